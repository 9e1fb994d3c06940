"""GE MUSE XML (`RestingECG`): the rhythm waveform, base64 of int16, mostly of eight leads.

One idea: every count, size and checksum that the file states of a lead is held against its samples.
The median beat is not read; III, aVR, aVL and aVF are derived by `ecg.settle`. Age and sex are
read; statements are not labels.
"""

import base64
import binascii
import re
import zlib
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from ecgcmr.errors import Excluded
from ecgcmr.raw import diagnoses, markup
from ecgcmr.raw.records import EcgRecord, key, patient, sex, standard_leads
from ecgcmr.raw.statements import UNDECLARED, Declaration

ROOT = "RestingECG"
# Fields that shift a lead against the others or against zero. They are 0 in every file seen, and
# how a reader should apply them is not documented.
_SHIFTS = ("LeadTimeOffset", "LeadOffsetFirstSample", "FirstSampleBaseline")


def find(path: str) -> list[str]:
    """List the MUSE files under a folder, or the one named.

    Raises:
        InputError: the path does not exist or holds none.
    """
    return markup.find(path, ROOT, "MUSE")


def suits(file: Path, head: bytes) -> bool:
    """Whether a file begins as MUSE's XML does."""
    return markup.root_element(head) == ROOT


def read(source: str, declaration: Declaration = UNDECLARED) -> EcgRecord:
    """Read the rhythm waveform of one recording.

    Raises:
        Excluded: it is no MUSE file, has no or several rhythm waveforms, or what it states of a
            lead does not hold.
    """
    root = markup.parse(source)
    wave = _rhythm(root)
    signal, leads = standard_leads(_rows(wave, declaration))
    declaration.check_names(leads)
    in_years = markup.text(root, "PatientDemographics/AgeUnits").upper() == "YEARS"
    age = diagnoses.years(markup.text(root, "PatientDemographics/PatientAge")) if in_years else None
    return EcgRecord(
        key=key(source),
        signal=signal,
        rate_hz=declaration.rate(_rate(wave)),
        leads=leads,
        age=age,
        sex=sex(markup.text(root, "PatientDemographics/Gender")),
        height=None,
        weight=None,
        labels={},
        repairs=(),
        patient=patient(markup.text(root, "PatientDemographics/PatientID")),
    )


def _rhythm(root: Element) -> Element:
    if root.tag != ROOT:
        raise Excluded("not a MUSE file")
    waves = [
        wave
        for wave in root.findall("Waveform")
        if markup.text(wave, "WaveformType").lower() == "rhythm"
    ]
    if len(waves) != 1:
        raise Excluded("several rhythm waveforms" if waves else "no rhythm waveform")
    return waves[0]


def _rate(wave: Element) -> float | None:
    """SampleBase · 10^SampleExponent, in Hz; None where it is blank or 0."""
    base = diagnoses.number(markup.text(wave, "SampleBase") or "0")
    if base is None or base < 0:
        raise Excluded("sampling rate unknown")
    if not base:
        return None
    exponent = markup.text(wave, "SampleExponent") or "0"
    if not re.fullmatch(r"-?\d", exponent):
        raise Excluded("sampling rate unknown")
    return base * 10.0 ** int(exponent)


def _rows(wave: Element, declaration: Declaration) -> list[tuple[str, np.ndarray]]:
    leads = wave.findall("LeadData")
    if markup.whole(markup.text(wave, "NumberofLeads")) not in (None, len(leads)):
        raise Excluded("number of leads differs from the stated")
    return [(markup.text(lead, "LeadID"), _millivolts(lead, declaration)) for lead in leads]


def _millivolts(lead: Element, declaration: Declaration) -> np.ndarray:
    """One lead's samples, (n,), mV."""
    if any(diagnoses.number(markup.text(lead, name) or "0") for name in _SHIFTS):
        raise Excluded("lead with an offset")
    if markup.text(lead, "LeadOff").upper() == "TRUE":
        raise Excluded("electrode off")
    gain = markup.positive(diagnoses.number(markup.text(lead, "LeadAmplitudeUnitsPerBit")), "gain")
    unit = declaration.millivolts(markup.text(lead, "LeadAmplitudeUnits"))
    return gain * unit * _counts(lead)


def _counts(lead: Element) -> np.ndarray:
    """Little-endian int16, in agreement with the sizes and the CRC-32 (of the bytes, decimal) that
    the file states.
    """
    encoded_text = "".join(markup.text(lead, "WaveFormData").split())
    try:
        payload = base64.b64decode(encoded_text, validate=True)
    except (binascii.Error, ValueError):
        raise Excluded("samples are not base64") from None
    if (markup.text(lead, "LeadSampleSize") or "2") != "2" or len(payload) % 2:
        raise Excluded("samples are not of 16 bits")
    sizes = {"LeadByteCountTotal": len(payload), "LeadSampleCountTotal": len(payload) // 2}
    for name, size in sizes.items():
        if markup.whole(markup.text(lead, name)) not in (None, size):
            raise Excluded("number of samples differs from the stated")
    # 0 and blank: programs that write MUSE's format without a checksum
    if markup.text(lead, "LeadDataCRC32") not in ("", "0", str(zlib.crc32(payload))):
        raise Excluded("samples differ from the checksum")
    return np.frombuffer(payload, "<i2").astype(np.float64)
