"""Philips XML (`restingecgdata`: SierraECG, PhilipsECG 1.03 to 1.04.02), decoded by `ecgdatakit`.

One idea: the library undoes the compression (XLI: LZW and second differences), this reader decides
what may pass. A file states how many samples it has; what would expand beyond that is not decoded.
PageWriters write 11 s, of which the last half second is the calibration pulse in all leads: behind
10 s the signal is cut off. Representative beats are not read. Age and sex are read;
statements are not labels.

Source: the format as sierra-ecg-tools describes it; five real files of its tests.
"""

import base64
import binascii
import re
import warnings
from datetime import date
from pathlib import Path
from xml.etree.ElementTree import Element

import ecgdatakit
import numpy as np

from ecgcmr.errors import Excluded
from ecgcmr.raw import archive, diagnoses, markup
from ecgcmr.raw.records import EcgRecord, age_in_years, key, patient, sex, standard_leads
from ecgcmr.raw.statements import UNDECLARED, Declaration

ROOT = "restingecgdata"
PULSE = "calibration pulse behind 10 s cut off"
SAMPLES_LIMIT = 1 << 18  # of a lead; 11 s have 5500
CODE_BITS, CHUNK_HEAD = 10, 8  # of XLI


def find(path: str) -> list[str]:
    """List the Philips files under a folder, or the one named.

    Raises:
        InputError: the path does not exist or holds none.
    """
    return markup.find(path, ROOT, "Philips")


def suits(file: Path, head: bytes) -> bool:
    """Whether a file begins as Philips' XML does."""
    return markup.root_element(head) == ROOT


def read(source: str, declaration: Declaration = UNDECLARED) -> EcgRecord:
    """Read the rhythm of one recording.

    Raises:
        Excluded: it is no Philips file, of another version, cannot be decoded, or rate or gain are
            not stated.
    """
    root = markup.parse(source)
    wave = _waveforms(root)
    with archive.opened(source) as file:
        record = _decoded(file)
    signal, leads = standard_leads(_rows(record))
    declaration.check_names(leads)
    declaration.millivolts("uV")  # in which the format states every step
    rate_hz = declaration.rate(_rate(root, wave))
    signal, repairs = _without_pulse(signal, rate_hz)
    person = root.find("{*}patient/{*}generalpatientdata")
    return EcgRecord(
        key=key(source),
        signal=signal,
        rate_hz=rate_hz,
        leads=leads,
        age=_age(root, person),
        sex=sex(markup.text(person, "{*}sex")),
        height=None,
        weight=None,
        labels={},
        repairs=repairs,
        patient=patient(markup.text(person, "{*}patientid") or markup.text(person, "{*}MRN")),
    )


def _waveforms(root: Element) -> Element:
    """The rhythm's element, whose samples are as many as it states.

    Raises:
        Excluded: there is none, or they are not.
    """
    if root.tag.rpartition("}")[2] != ROOT:
        raise Excluded("not a Philips file")
    waves = root.findall(".//{*}parsedwaveforms")
    if len(waves) != 1:
        raise Excluded("several rhythm waveforms" if waves else "no rhythm waveform")
    (wave,) = waves
    _check_lengths(root, wave)
    return wave


def _check_lengths(root: Element, wave: Element) -> None:
    """Refuse samples that are not as many bytes as the file states; the library takes more.

    Raises:
        Excluded: they are more or fewer, or would expand without end.
    """
    duration_ms = diagnoses.number(wave.get("durationperchannel", ""))
    samples = round((duration_ms or 0) * (_rate(root, wave) or 0) / 1000)
    if not 0 < samples <= SAMPLES_LIMIT:
        raise Excluded("number of samples unknown")
    if wave.get("dataencoding") != "Base64":
        return
    payload = _payload(markup.text(wave))
    if {"XLI"} & {wave.get(name) for name in ("compression", "compressmethod")}:
        lengths = [_string_lengths(chunk) for chunk in _chunks(payload)]
        # the last second difference, and a byte for an even number of them
        is_whole = len(lengths) >= 8 and all(0 <= n - 2 * samples <= 4 for n in lengths)
    else:
        is_whole = len(payload) % (2 * samples) == 0
    if not is_whole:
        raise Excluded("number of samples differs from the stated")


def _payload(text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise Excluded("samples are not base64") from None


def _chunks(payload: bytes) -> list[bytes]:
    """The leads' chunks of XLI, each behind its size and first second difference."""
    chunks: list[bytes] = []
    place = 0
    while place < len(payload):
        size = int.from_bytes(payload[place : place + 4], "little")
        place += CHUNK_HEAD
        chunks.append(payload[place : place + size])
        place += size
    return chunks


def _string_lengths(chunk: bytes) -> int:
    """How many bytes a chunk expands to: the lengths of LZW's strings, without the strings."""
    n_codes = 8 * len(chunk) // CODE_BITS
    bits = np.unpackbits(np.frombuffer(chunk, "u1"))[: CODE_BITS * n_codes]
    codes = bits.reshape(-1, CODE_BITS) @ (1 << np.arange(CODE_BITS)[::-1])
    lengths = [1] * 256
    total = previous = 0
    for code in codes.tolist():
        length = lengths[code] if code < len(lengths) else previous + 1
        if previous and len(lengths) < (1 << CODE_BITS) - 1:
            lengths.append(previous + 1)
        total += length
        previous = length
        if total > 2 * SAMPLES_LIMIT:
            break
    return total


def _decoded(file: Path) -> ecgdatakit.ECGRecord:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the library warns of, the record says too
        try:
            return ecgdatakit.FileParser.parse(file, units="mV")
        except ecgdatakit.UnsupportedFormatError:
            raise Excluded("version or compression of Philips' XML that is not decoded") from None
        except Exception:  # the library's errors quote the file, and a damaged one can meet any
            raise Excluded("unreadable Philips XML") from None


def _rows(record: ecgdatakit.ECGRecord) -> list[tuple[str, np.ndarray]]:
    """The leads in mV under the names that the library gives them."""
    if any(lead.is_raw or lead.units != "mV" for lead in record.leads):
        raise Excluded("gain unknown")
    # a second lead of one name is called I_2: under its own name it is refused as a double
    return [(re.sub(r"_\d+$", "", lead.label), lead.samples) for lead in record.leads]


def _rate(root: Element, wave: Element) -> float | None:
    """Hz, which the library rounds."""
    path = ".//{*}signalcharacteristics/{*}samplingrate"
    return diagnoses.number(wave.get("samplespersecond") or markup.text(root, path))


def _without_pulse(signal: np.ndarray, rate_hz: float) -> tuple[np.ndarray, tuple[str, ...]]:
    """The first 10 s, where all leads rise at once behind them, as hearts cannot."""
    end = round(10 * rate_hz)
    behind = signal[:, end:]
    is_pulse = (behind.min(axis=0, initial=np.inf) > 0.1) & (np.ptp(behind, axis=0) < 0.05)
    return (signal[:, :end], (PULSE,)) if is_pulse.sum() > 0.05 * rate_hz else (signal, ())


def _age(root: Element, person: Element | None) -> float | None:
    stated_age = diagnoses.number(markup.text(person, "{*}age/{*}years"))
    birth = markup.text(person, "{*}age/{*}dateofbirth") or markup.text(person, "{*}dateofbirth")
    acquisition = root.find("{*}dataacquisition")
    day = "" if acquisition is None else acquisition.get("date", "")
    return age_in_years(stated_age, _date(birth), _date(day))


def _date(word: str) -> date | None:
    """A day, YYYY-MM-DD; None for what names none."""
    try:
        return date.fromisoformat(word.strip())
    except ValueError:
        return None
