"""DICOM 12-lead ECGs: the rhythm of a waveform object, in millivolts.

One idea: a waveform object holds several multiplex groups, such as the rhythm and a median beat,
and describes channels by sequences of which many are absent. Of the groups of 10 s the one with the
most leads is read; leads come from codes, units are stated or follow from the amplitude where they
must; what stays in doubt is refused. Age and sex are read from the header; everything else in it
stays there.

Source: DICOM PS3.3 C.10.9 (Waveform Module), PS3.16 CID 3001 (ECG leads); ISO/IEEE 11073-10101 and
SCP-ECG 5.6.3 (codes).
"""

import logging
import re
import warnings
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from ecgcmr.errors import Excluded, InputError
from ecgcmr.raw import archive, diagnoses, records, statements
from ecgcmr.raw.records import FILE_LIMIT, EcgRecord
from ecgcmr.raw.statements import UNDECLARED, Declaration
from ecgcmr.signals import ecg

# Every waveform storage class begins so; images have other numbers.
CLASSES = b"1.2.840.10008.5.1.4.1.1.9."
PLAIN = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)
ENDINGS = (".dcm",)
TYPES = {
    (8, "SB"): "i1",
    (8, "UB"): "u1",
    (16, "SS"): "i2",
    (16, "US"): "u2",
    (32, "SL"): "i4",
    (32, "UL"): "u4",
}
# The numbers of leads in SCP-ECG (5.6.3-9-61) and in ISO/IEEE 11073-10101 (2:61) are the same.
CODES = {
    1: "I",
    2: "II",
    **{n + 2: f"V{n}" for n in range(1, 7)},
    61: "III",
    62: "aVR",
    63: "aVL",
    64: "aVF",
}
# Of the recording, the nearest to its beginning first.
_RECORDED = ("AcquisitionDateTime", "AcquisitionDate", "ContentDate", "StudyDate", "SeriesDate")
UNDEFINED = 0xFFFFFFFF  # the length of a sequence that says itself where it ends
LEADS_LEAST = 8  # I, II and V1 to V6, from which the others follow
SKEW_LIMIT_S = 0.001  # half a sample at 500 Hz

logging.getLogger("pydicom").setLevel(logging.CRITICAL)  # its warnings quote the header's values


def find(path: str) -> list[str]:
    """List the waveform objects under a folder or in an archive (`*.dcm`), or the file named.

    Raises:
        InputError: there is none.
    """
    root = Path(path)
    if root.is_file() and not archive.is_archive(root):
        return [str(root)]
    files = [file for file in sorted(root.rglob("*")) if file.is_file()] if root.is_dir() else []
    loose = [str(file) for file in files if suits(file, records.head(file))]
    sources = loose or archive.find(root, ENDINGS)
    if not sources:
        raise InputError(
            f"{path}: no DICOM ECG here; name a recording, or the folder or archive that holds them"
        )
    return sources


def suits(file: Path, head: bytes) -> bool:
    """Whether it is a DICOM file of a waveform class, which the file meta information states near
    the beginning.
    """
    return head[128:132] == b"DICM" and CLASSES in head


def read(source: str, declaration: Declaration = UNDECLARED) -> EcgRecord:
    """Read the rhythm of one object in millivolts.

    Args:
        source: path of the file, or `archive.zip#member`.

    Raises:
        Excluded: damaged, compressed, without an ECG, or leads, units or gains are in doubt.
    """
    with warnings.catch_warnings(), archive.opened(source) as file:
        warnings.simplefilter("ignore")  # pydicom quotes values that break the standard's rules
        try:
            return _record(file.stem, _dataset(file), declaration)
        except Excluded:
            raise
        except Exception as error:  # elements of a wrong type or length raise anything in pydicom
            raise Excluded("unreadable DICOM file") from error


def _record(key: str, dataset: pydicom.Dataset, declaration: Declaration) -> EcgRecord:
    group = _rhythm(dataset)
    channels = list(group.get("ChannelDefinitionSequence") or [])
    samples = _samples(group, big=dataset.original_encoding[1] is False)
    if len(channels) != len(samples):
        raise Excluded("number of leads and of names differ")
    rate_hz = declaration.rate(float(group.get("SamplingFrequency") or 0))
    _skew(channels, rate_hz)
    leads = tuple(_lead(channel) for channel in channels)
    declaration.check_names([lead for lead in leads if lead != "other"])
    signal, repairs = _millivolts(samples, channels, leads, rate_hz, declaration)
    return EcgRecord(
        key=key,
        signal=signal.astype(np.float32),
        rate_hz=rate_hz,
        leads=leads,
        age=_years(dataset),
        sex=_sex(dataset),
        height=None,
        weight=None,
        labels={},
        repairs=repairs,
        patient=records.patient(dataset.get("PatientID")),
    )


def _dataset(file: Path) -> pydicom.Dataset:
    """The object, if it is plain: a deflated one would be unpacked whole, to any size."""
    if file.stat().st_size > FILE_LIMIT:
        raise Excluded("file too large")
    if pydicom.filereader.read_file_meta_info(file).TransferSyntaxUID not in PLAIN:
        raise Excluded("compressed DICOM")
    dataset = pydicom.dcmread(file)
    _ends(dataset, file)
    return dataset


def _ends(dataset: pydicom.Dataset, file: Path) -> None:
    """Refuse a file that does not end with its last element: what was inserted or lost before it
    has shifted the samples.
    """
    tags = list(dataset.keys())  # iterating the dataset itself gives values
    elements: list[Any] = [dataset.get_item(tag) for tag in tags]

    def place(element: Any) -> int:
        return element.value_tell if isinstance(element, RawDataElement) else element.file_tell or 0

    last = max(elements, key=place)
    if isinstance(last, RawDataElement) and last.length != UNDEFINED:
        with file.open("rb") as stream:
            stream.seek(last.value_tell)
            tail = stream.read()
        if len(tail) < last.length or tail[last.length :].strip(b"\0"):
            raise Excluded("unreadable DICOM file")


def _rhythm(dataset: pydicom.Dataset) -> pydicom.Dataset:
    """The group of 10 s with the most of the twelve leads.

    Of several the original one, then the longest.
    """
    groups = dataset.get("WaveformSequence") or []
    rhythms = [
        group for group in groups if "MEDIAN" not in str(group.get("MultiplexGroupLabel")).upper()
    ]
    if not rhythms:
        raise Excluded("no rhythm in the waveform object")

    def rank(group: pydicom.Dataset) -> tuple:
        leads = _leads_of(group)
        samples = int(group.get("NumberOfWaveformSamples") or 0)
        rate_hz = float(group.get("SamplingFrequency") or 0)
        is_original = group.get("WaveformOriginality") == "ORIGINAL"
        return samples >= 10 * rate_hz, len(leads & set(ecg.LEADS)), is_original, samples

    best = max(rhythms, key=rank)
    together = set[str]().union(*map(_leads_of, rhythms)) & set(ecg.LEADS)
    if len(_leads_of(best) & set(ecg.LEADS)) < LEADS_LEAST <= len(together):
        raise Excluded("leads in several groups, recorded one after the other")
    return best


def _leads_of(group: pydicom.Dataset) -> set[str]:
    return {_lead(channel) for channel in group.get("ChannelDefinitionSequence") or []}


def _samples(group: pydicom.Dataset, *, big: bool) -> np.ndarray:
    """The stored numbers, (channels, samples) float64.

    NaN where the file marks a sample as missing.
    """
    type_code = TYPES.get(
        (int(group.WaveformBitsAllocated), str(group.WaveformSampleInterpretation))
    )
    if type_code is None:
        raise Excluded("samples are not plain whole numbers")
    dtype = np.dtype(type_code).newbyteorder(">" if big else "<")
    shape = int(group.NumberOfWaveformSamples), int(group.NumberOfWaveformChannels)
    content = bytes(group.get("WaveformData") or b"")
    if min(shape) < 1 or len(content) < shape[0] * shape[1] * dtype.itemsize:
        raise Excluded("fewer samples than stated")
    counts = np.frombuffer(content, dtype, count=shape[0] * shape[1]).reshape(shape).T
    return np.where(_missing(group, counts), np.nan, counts.astype(np.float64))


def _missing(group: pydicom.Dataset, counts: np.ndarray) -> np.ndarray:
    """Where the padding value marks a sample as absent.

    A value at the edge of the range does so anywhere. Any other also occurs in signals (one maker
    states 0), so it counts only where all channels hold it at once.
    """
    padding = bytes(group.get("WaveformPaddingValue") or b"")[: counts.dtype.itemsize]
    if len(padding) < counts.dtype.itemsize:
        return np.zeros(counts.shape, bool)
    value = np.frombuffer(padding, counts.dtype)[0]
    is_padding = counts == value
    limits = np.iinfo(counts.dtype)
    if value in (limits.min, limits.max):
        return is_padding
    return np.broadcast_to(is_padding.all(axis=0), is_padding.shape)


def _skew(channels: list[pydicom.Dataset], rate_hz: float) -> None:
    """Refuse channels that were not sampled at once."""
    if not rate_hz:
        return
    offsets = [
        float(channel.get("ChannelTimeSkew") or 0)
        + float(channel.get("ChannelSampleSkew") or 0) / rate_hz
        for channel in channels
    ]
    if np.ptp(offsets) > SKEW_LIMIT_S:
        raise Excluded("leads recorded at different times")


def _lead(channel: pydicom.Dataset) -> str:
    """The lead of a channel by code, meaning or label; "other" for none of the twelve.

    Raises:
        Excluded: code and meaning name different leads.
    """
    codes = channel.get("ChannelSourceSequence") or []
    code, meaning = (
        str(codes[0].get(name) or "") if codes else "" for name in ("CodeValue", "CodeMeaning")
    )
    number = re.search(r"(?:5\.6\.3-9-|^2:)(\d{1,3})$", code.strip())
    by_code = CODES.get(int(number[1])) if number else ecg.lead_name(code)
    by_words = ecg.lead_name(re.split(r"[(,]", meaning)[0])
    if by_code and by_words and by_code != by_words:
        raise Excluded("lead names contradict each other")
    return by_code or by_words or ecg.lead_name(str(channel.get("ChannelLabel") or "")) or "other"


def _millivolts(
    samples: np.ndarray,
    channels: list[pydicom.Dataset],
    leads: tuple[str, ...],
    rate_hz: float,
    declaration: Declaration,
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Scale every lead: stored · sensitivity · correction + baseline, in the channel's unit (PS3.3
    C.10.9.1.4).
    """
    # A pressure beside the leads is no fault.
    lead_rows = [i for i, lead in enumerate(leads) if lead != "other"]
    units = {i: _unit(channels[i]) for i in lead_rows}
    values = samples.copy()
    for i in lead_rows:
        gain = _number(channels[i], "ChannelSensitivity", np.nan)
        gain *= _number(channels[i], "ChannelSensitivityCorrectionFactor", 1.0)
        if not np.isfinite(gain) or gain <= 0:  # below 0 it would stand the lead on its head
            raise Excluded("no sensitivity")
        values[i] = samples[i] * gain + _number(channels[i], "ChannelBaseline", 0.0)
    distinct_units = set(units.values())
    if "" not in distinct_units or declaration.unit:
        for i in lead_rows:
            values[i] *= declaration.millivolts(units[i])
        return values, ()
    if distinct_units != {""}:
        raise Excluded("unit unknown")
    return _unit_by_amplitude(values, lead_rows, rate_hz)


def _unit_by_amplitude(
    values: np.ndarray, lead_rows: list[int], rate_hz: float
) -> tuple[np.ndarray, tuple[str, ...]]:
    """µV, mV and V differ by 1000, human amplitudes by 30: at most one of them fits.

    Raises:
        Excluded: none fits.
    """
    height = ecg.amplitude(values[lead_rows], rate_hz) if rate_hz else 0.0
    low, high = ecg.AMPLITUDE_MV
    for unit in ("uV", "mV", "V"):
        factor = statements.millivolts(unit)
        if low <= height * factor <= high:
            return values * factor, (f"unit absent, {unit} by the amplitude",)
    raise Excluded("unit unknown")


def _unit(channel: pydicom.Dataset) -> str:
    """The unit of a channel, a voltage; "" where it is not stated."""
    codes = list(channel.get("ChannelSensitivityUnitsSequence") or [])
    names = ("CodeValue", "CodeMeaning")
    words = [str(code.get(name) or "").strip().lower() for code in codes[:1] for name in names]
    voltages = [word for word in words if _is_voltage(word)]
    if any(words) and not voltages:
        raise Excluded("unit is not a voltage")
    return voltages[0] if voltages else ""


def _is_voltage(word: str) -> bool:
    try:
        return statements.millivolts(word) > 0
    except Excluded:
        return False


def _number(item: pydicom.Dataset, name: str, default: float) -> float:
    value = item.get(name)
    return default if value is None or value == "" else float(value)


def _years(dataset: pydicom.Dataset) -> float | None:
    """PatientAge, such as 042Y or 006M, in years, or the years between birth and recording."""
    match = re.fullmatch(r"(\d{3})([DWMY])", str(dataset.get("PatientAge") or "").strip())
    per_year = {"D": 365.25, "W": 52.18, "M": 12.0, "Y": 1.0}
    stated_age = diagnoses.years(str(int(match[1]) / per_year[match[2]])) if match else None
    days = [_day(dataset, name) for name in _RECORDED]
    recording = next((day for day in days if day), None)
    return records.age_in_years(stated_age, _day(dataset, "PatientBirthDate"), recording)


def _day(dataset: pydicom.Dataset, name: str) -> date | None:
    """The day of a date or a moment, YYYYMMDD…; None for what names none."""
    word = str(dataset.get(name) or "").strip()
    try:
        return date(int(word[:4]), int(word[4:6]), int(word[6:8]))
    except ValueError:
        return None


def _sex(dataset: pydicom.Dataset) -> float | None:
    return records.sex(str(dataset.get("PatientSex") or ""))
