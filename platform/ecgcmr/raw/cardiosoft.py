"""GE CardioSoft XML: the resting ECG of UK Biobank (field 20205).

One idea: leads go by their attribute, never by their place, and every count that the file states is
held against what it holds. Exercise ECGs (field 6025) have the same root element and are refused.
Read beside the samples: age, sex, and which filters the device says it has applied.
"""

import re
from datetime import date
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from ecgcmr.errors import Excluded
from ecgcmr.raw import diagnoses, markup
from ecgcmr.raw.records import (
    EcgRecord,
    age_in_years,
    biobank,
    key,
    patient,
    sex,
    standard_leads,
)
from ecgcmr.raw.statements import UNDECLARED, Declaration

ROOT = "CardiologyXML"
_ON = {"yes", "true", "on", "1"}


def find(path: str) -> list[str]:
    """List the CardioSoft files under a folder, or the one named.

    Raises:
        InputError: the path does not exist or holds none.
    """
    return markup.find(path, ROOT, "CardioSoft")


def suits(file: Path, head: bytes) -> bool:
    """Whether a file begins as CardioSoft's XML does."""
    return markup.root_element(head) == ROOT


def read(source: str, declaration: Declaration = UNDECLARED) -> EcgRecord:
    """Read one recording; `1000001_20205_2_0.xml` and `1000001_20205_3_0.xml` are two visits of the
    person 1000001.

    Raises:
        Excluded: it is no CardioSoft file, no resting ECG, or its counts, gain or rate do not
            stand.
    """
    root, stem = markup.parse(source), key(source)
    strip = _strip(root, stem)
    signal, leads = standard_leads(_rows(strip, declaration))
    declaration.check_names(leads)
    person, visit = biobank(stem)
    return EcgRecord(
        key=stem,
        signal=signal,
        rate_hz=declaration.rate(_rate(strip)),
        leads=leads,
        age=_age(root),
        sex=sex(markup.text(root, "PatientInfo/Gender")),
        height=None,
        weight=None,
        labels={},
        repairs=_filters(root.find("FilterSetting")),
        person=person,
        visit=visit,
        patient=patient(markup.text(root, "PatientInfo/PID")),
    )


def _strip(root: Element, stem: str) -> Element:
    if root.tag != ROOT:
        raise Excluded("not a CardioSoft file")
    kind = markup.text(root, "ObservationType").lower()
    exercise = any(
        root.find(f".//{name}") is not None for name in ("Strip", "ExerciseMeasurements")
    )
    if exercise or "_6025_" in stem or re.search("exerc|stress|ergo", kind):
        raise Excluded("exercise ECG (field 6025), not a resting ECG")
    strip = root.find("StripData")
    if kind not in ("", "restecg") or strip is None:
        raise Excluded("not a resting ECG")
    return strip


def _rate(strip: Element) -> float | None:
    """Hz; None where it is blank or 0."""
    element = strip.find("SampleRate")
    rate_hz = diagnoses.number(markup.text(element) or "0")
    unit = "hz" if element is None else element.get("units", "Hz").strip().lower()
    if rate_hz is None or rate_hz < 0 or unit != "hz":
        raise Excluded("sampling rate unknown")
    return rate_hz or None


def _rows(strip: Element, declaration: Declaration) -> list[tuple[str, np.ndarray]]:
    """The file's leads in mV, as many and as long as it states."""
    resolution = strip.find("Resolution")
    units = "" if resolution is None else resolution.get("units", "").lower()
    unit = re.fullmatch(r"(.*?)\s*per\s*lsb|", units.strip())
    if not unit:
        raise Excluded("unit is not a voltage")
    gain = markup.positive(diagnoses.number(markup.text(resolution)), "gain")
    scale = gain * declaration.millivolts(unit[1] or "")
    waves = strip.findall("WaveformData")
    if markup.whole(markup.text(strip, "NumberOfLeads")) not in (None, len(waves)):
        raise Excluded("number of leads differs from the stated")
    rows = [(_lead(wave), scale * _counts(wave)) for wave in waves]
    sample_count = markup.whole(markup.text(strip, "ChannelSampleCountTotal"))
    if sample_count is not None and any(len(row) != sample_count for _, row in rows):
        raise Excluded("number of samples differs from the stated")
    return rows


def _lead(wave: Element) -> str:
    return next((value for name, value in wave.attrib.items() if name.lower() == "lead"), "")


def _counts(wave: Element) -> np.ndarray:
    """Counts between commas; a last comma ends the last sample."""
    words = markup.text(wave).split(",")
    return markup.samples(words if words[-1].strip() else words[:-1])


def _age(root: Element) -> float | None:
    age = root.find("PatientInfo/Age")
    in_years = age is not None and age.get("units", "").lower().startswith("year")
    stated_age = diagnoses.years(markup.text(age)) if in_years else None
    birth = _date(root.find("PatientInfo/BirthDateTime"))
    return age_in_years(stated_age, birth, _date(root.find("ObservationDateTime")))


def _date(element: Element | None) -> date | None:
    numbers = [markup.whole(markup.text(element, tag)) for tag in ("Year", "Month", "Day")]
    try:
        return date(*numbers)  # type: ignore[arg-type]  # None is refused like the 31st of February
    except (TypeError, ValueError):
        return None


def _filters(setting: Element | None) -> tuple[str, ...]:
    """What the device says it has filtered, in words."""
    if setting is None:
        return ()
    pairs = (("HighPass", "high pass"), ("LowPass", "low pass"))
    cutoffs = [(word, diagnoses.number(markup.text(setting, name))) for name, word in pairs]
    words = [f"{word} {cutoff_hz:g} Hz" for word, cutoff_hz in cutoffs if cutoff_hz]
    words += [
        f"notch {mains} Hz"
        for mains in (50, 60)
        if markup.text(setting, f"Filter{mains}Hz").lower() in _ON
    ]
    words += ["cubic spline"] if markup.text(setting, "CubicSpline").lower() in _ON else []
    return (f"filtered by the device: {', '.join(words)}",) if words else ()
