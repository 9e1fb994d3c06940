"""HL7 annotated ECG (aECG, ANSI/HL7 V3 ECG R1-2004): the rhythm series of a file.

One idea: a series holds one set of sequences, of which one counts the time and the others are leads
on it; a file with several rhythm series or sets holds leads that were not recorded together, and is
refused. Representative beats are derived series and are not read, nor are annotations. Age and sex
are read.
"""

from datetime import date
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from ecgcmr.errors import Excluded
from ecgcmr.raw import diagnoses, markup
from ecgcmr.raw.records import EcgRecord, age_in_years, key, patient, standard_leads
from ecgcmr.raw.statements import UNDECLARED, Declaration

ROOT = "AnnotatedECG"
_AGE_CODES = {"21612-7", "29553-5", "30525-0"}  # LOINC: reported, calculated, age
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
_VALUE = "{*}value"


def find(path: str) -> list[str]:
    """List the aECG files under a folder, or the one named.

    Raises:
        InputError: the path does not exist or holds none.
    """
    return markup.find(path, ROOT, "HL7 aECG")


def suits(file: Path, head: bytes) -> bool:
    """Whether a file begins as an HL7 aECG does."""
    return markup.root_element(head) == ROOT


def read(source: str, declaration: Declaration = UNDECLARED) -> EcgRecord:
    """Read the rhythm series of one recording.

    Raises:
        Excluded: it is no aECG, its leads are not one simultaneous set, or time or gain are not
            stated.
    """
    root = markup.parse(source)
    sequences = _rhythm(root)
    signal, leads = standard_leads(_rows(sequences, declaration))
    declaration.check_names(leads)
    person = root.find(".//{*}subjectDemographicPerson")
    return EcgRecord(
        key=key(source),
        signal=signal,
        rate_hz=declaration.rate(_rate(sequences)),
        leads=leads,
        age=_age(root, person),
        sex={"F": 0.0, "M": 1.0}.get(_attribute(person, "{*}administrativeGenderCode", "code")),
        height=None,
        weight=None,
        labels={},
        repairs=(),
        patient=patient(_attribute(root, ".//{*}trialSubject/{*}id", "extension")),
    )


def _attribute(element: Element | None, path: str, name: str) -> str:
    child = None if element is None else element.find(path)
    return "" if child is None else child.get(name, "").strip()


def _code(element: Element) -> str:
    return _attribute(element, "{*}code", "code")


def _rhythm(root: Element) -> list[Element]:
    """The sequences of the only set of the only rhythm series."""
    if root.tag.rpartition("}")[2] != ROOT:
        raise Excluded("not an HL7 aECG")
    series = root.findall("{*}component/{*}series")
    rhythms = [item for item in series if _code(item).upper() == "RHYTHM"]
    sets = [item for rhythm in rhythms for item in rhythm.findall("{*}component/{*}sequenceSet")]
    if len(sets) != 1:
        raise Excluded("leads not recorded together" if sets else "no rhythm series")
    return sets[0].findall("{*}component/{*}sequence")


def _rate(sequences: list[Element]) -> float | None:
    """One over the increment of TIME_ABSOLUTE (GLIST_TS) or TIME_RELATIVE (GLIST_PQ), in Hz; None
    where there is none.
    """
    clocks = [sequence for sequence in sequences if _code(sequence).upper().startswith("TIME_")]
    steps = {_number(clock, "increment", "value") * _unit(clock) for clock in clocks}
    if len(steps) > 1:
        raise Excluded("two sampling rates")
    step = steps.pop() if steps else 0.0
    if step < 0 or not all(_unit(clock) for clock in clocks):
        raise Excluded("sampling rate unknown")
    return round(1 / step, 6) if step else None  # 0.002 s are 500 Hz, not 499.99999999999994


def _unit(clock: Element) -> float:
    return _SECONDS.get(_attribute(clock, f"{_VALUE}/{{*}}increment", "unit"), 0.0)


def _number(sequence: Element, tag: str, attribute: str) -> float:
    return diagnoses.number(_attribute(sequence, f"{_VALUE}/{{*}}{tag}", attribute)) or 0.0


def _rows(sequences: list[Element], declaration: Declaration) -> list[tuple[str, np.ndarray]]:
    """The leads in mV: origin + scale · digits (SLIST_PQ)."""
    codes = [_code(sequence) for sequence in sequences]
    return [
        (code, _millivolts(sequence, declaration))
        for code, sequence in zip(codes, sequences)
        if code.upper().startswith("MDC_ECG_LEAD")
    ]


def _millivolts(sequence: Element, declaration: Declaration) -> np.ndarray:
    digits = markup.samples(markup.text(sequence, f"{_VALUE}/{{*}}digits").split())
    gain = markup.positive(_number(sequence, "scale", "value"), "gain")
    scale = gain * declaration.millivolts(_unit_of(sequence, "scale"))
    origin = _number(sequence, "origin", "value")
    if origin:
        origin *= declaration.millivolts(_unit_of(sequence, "origin"))
    return scale * digits + origin


def _unit_of(sequence: Element, tag: str) -> str:
    return _attribute(sequence, f"{_VALUE}/{{*}}{tag}", "unit")


def _age(root: Element, person: Element | None) -> float | None:
    """The age that an observation states in years (`a`), or the one between birth and recording."""
    stated_age = None
    for observation in root.findall("{*}controlVariable/{*}relatedObservation"):
        if _code(observation) in _AGE_CODES and _attribute(observation, _VALUE, "unit") == "a":
            stated_age = diagnoses.years(_attribute(observation, _VALUE, "value"))
    center, low = (
        _attribute(root, f"{{*}}effectiveTime/{{*}}{tag}", "value") for tag in ("center", "low")
    )
    birth = _attribute(person, "{*}birthTime", "value")
    return age_in_years(stated_age, _date(birth), _date(center or low))


def _date(stamp: str) -> date | None:
    """The day of an HL7 time stamp, YYYYMMDD…; None for one that names no day."""
    numbers = [markup.whole(digits) for digits in (stamp[:4], stamp[4:6], stamp[6:8])]
    try:
        return date(*numbers)  # type: ignore[arg-type]  # None is refused like the 31st of February
    except (TypeError, ValueError):
        return None
