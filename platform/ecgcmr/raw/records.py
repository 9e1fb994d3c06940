"""What every reader returns: a recording as it was read, not yet cleaned.

The key comes from the file's name, never from inside it: names, dates and identifiers of a header
stay in the reader, and of a patient number a hash goes on. Frames and signals are as the file holds
them; `ecg.prepare` and `cmr.prepare` settle, check and clean them.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path, PurePath
from typing import Protocol

import numpy as np

from ecgcmr.errors import Excluded
from ecgcmr.signals import ecg

HEAD = 4096  # bytes at a file's beginning that `suits` may judge by
# Bytes of a file that holds one ECG; an hour of 12 leads at 500 Hz and 16 bits has 43 MB.
FILE_LIMIT = 64 << 20


def head(file: Path) -> bytes:
    """What `suits` judges a file by; empty for what is no regular file."""
    if not file.is_file():
        return b""
    with file.open("rb") as stream:
        return stream.read(HEAD)


def row(source: str) -> tuple[Path, int]:
    """The file and the row of a source `file#row` (row 0 without one)."""
    match = re.match(r"(?s)^(.+)#(\d{1,9})$", source)
    return (Path(match[1]), int(match[2])) if match else (Path(source), 0)


def key(source: str) -> str:
    """The key of a source, from names and row numbers: `a/rec.hea`, `x.zip#a/rec.hea` → `rec`;
    `f.hdf5#7` → `f-7`.

    A stack that is called `sa` in every folder has its folder's name.
    """
    match = re.match(r"(?s)^(.*?)(?:#(\d{1,9}))?$", source)
    assert match is not None  # it matches any text
    file, number = match.groups()
    path = PurePath(file.replace("#", "/"))
    stem = path.name.split(".")[0]
    stem = path.parent.name if stem in ("sa", "sa_ED") else stem
    return f"{stem}-{number}" if number else stem


@dataclass(frozen=True)
class EcgRecord:
    """One ECG as read.

    Attributes:
        key: stem of the file's name; with the row of a file of many, as in `file-17`.
        signal: (leads, samples) float32, mV; NaN where the file marks a sample as missing.
        rate_hz: samples per second.
        leads: names in the order of `signal`, as the file spells them.
        age: years. sex: 0 female, 1 male. height: cm. weight: kg. None where unknown.
        labels: label column -> 0.0 or 1.0; a column that is absent is unknown, not 0.
        repairs: what was settled while reading, in words.
        person: groups repeat visits; None means that the record is its own person.
        visit: which of the person's visits; an ECG and a CMR of two known visits are no pair. None
            where unknown.
        patient: `patient` of the header's patient number.
        cleaned: whether the paper's cleaning was done before, and must not be repeated.
    """

    key: str
    signal: np.ndarray
    rate_hz: float
    leads: tuple[str, ...]
    age: float | None
    sex: float | None
    height: float | None
    weight: float | None
    labels: dict[str, float]
    repairs: tuple[str, ...]
    person: str | None = None
    visit: str | None = None
    patient: str | None = None
    cleaned: bool = False


@dataclass(frozen=True)
class CmrRecord:
    """One short-axis cine stack as read.

    Attributes:
        key: stem of the file's or folder's name.
        frames: (slices, phases, height, width) float32, scanner intensities, slices in order of
            position.
        spacing_mm: distance of slices, rows and columns.
        trigger_ms: (phases,) time after the R wave, or None.
        repairs: what was settled while reading, in words.
        person, visit, patient: as in `EcgRecord`.
        masks: uint8 like `frames`, 0 background, 1 LV cavity, 2 myocardium, 3 RV cavity; None
            without a segmentation.
        masked: the phases that have a segmentation; the masks of all others are 0.
        masks_from: what the masks are, in words: a "segmentation" beside the stack, or a "model's
            segmentation".
        es: the phase that the files name as end-systole, or None.
        labels: phenotype -> value in its unit (tasks.UNITS); one that is absent is unknown.
        axes: (2, 3) unit vectors in the patient, right → left, front → back, feet → head +: where
            columns and where rows grow to; None where the file does not say.
    """

    key: str
    frames: np.ndarray
    spacing_mm: tuple[float, float, float]
    trigger_ms: np.ndarray | None
    repairs: tuple[str, ...]
    person: str | None = None
    visit: str | None = None
    patient: str | None = None
    masks: np.ndarray | None = None
    masked: tuple[int, ...] = ()
    masks_from: str = "segmentation"
    es: int | None = None
    labels: dict[str, float] = field(default_factory=dict)
    axes: np.ndarray | None = None


def biobank(stem: str) -> tuple[str, str] | tuple[None, None]:
    """(person, visit) of a file that UK Biobank names `{eid}_{field}_{instance}_{array}`.

    Nothing for other names.
    """
    match = re.fullmatch(r"(\d+)_\d{4,5}_(\d)_\d+", stem)
    return (match[1], match[2]) if match else (None, None)


def patient(number: object) -> str | None:
    """A header's patient number as a hash, which keeps recordings of one person in one split and
    says no name.

    Args:
        number: as it stands in the header.

    Returns:
        16 hexadecimal digits; None where it counts nobody ("", "0000", "ANONYMOUS").
    """
    word = "".join(str(number or "").split()).upper().lstrip("0")
    return hashlib.sha256(word.encode()).hexdigest()[:16] if re.search("[1-9]", word) else None


# The words of the languages and devices that exports come from.
_SEXES = {
    0.0: "f female w weiblich woman frau girl féminin feminin féminine feminine femme femenino "
    "mujer feminino mulher femminile femmina donna vrouw vrouwelijk kvinna kvinne kvinde kobieta",
    1.0: "m male man mann männlich maennlich boy masculin masculine homme masculino hombre homem "
    "maschile maschio uomo mannelijk mand mężczyzna",
}
_SEX_OF_WORD = {word: code for code, words in _SEXES.items() for word in words.split()}


def sex(word: str) -> float | None:
    """0 female, 1 male, by a whole word; None for every other, such as `Missing`, `mixed` or a
    number: only a format that defines one may be read by it.
    """
    return _SEX_OF_WORD.get(word.strip().casefold())


def years(word: str) -> float | None:
    """An age in years as people write it, `65`, `65 years`, `065Y`; None for another unit, and
    outside 0–120.
    """
    match = re.fullmatch(
        r"(\d{1,3}(?:\.\d*)?)\s*(?:y|yr|yrs|years?|jahre?|a)?\.?", word.strip().lower()
    )
    age = float(match[1]) if match else -1.0
    return age if 0 <= age <= 120 else None


def only(values: Iterable[float | None]) -> float | None:
    """The value, where all that are known agree."""
    distinct = {value for value in values if value is not None}
    return distinct.pop() if len(distinct) == 1 else None


class Reader(Protocol):
    """A raw format: a module with these three functions."""

    def find(self, path: str) -> list[str]:
        """List the recordings under a file or folder, sorted; each goes to `read`.

        Raises:
            InputError: the path does not exist or holds none.
        """
        ...

    def read(self, source: str) -> EcgRecord | CmrRecord:
        """Read one recording.

        Raises:
            Excluded: it cannot serve; the error says why.
        """
        ...

    def suits(self, file: Path, head: bytes) -> bool:
        """Whether a file looks like this format; one that does may still be refused by `read`.

        Args:
            file: its path; a folder for formats that spread one recording over many files.
            head: its first `HEAD` bytes, or fewer; empty for a folder.
        """
        ...


def standard_leads(rows: Iterable[tuple[str, np.ndarray]]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Stack the rows that are one of the twelve leads, under its own name; what else a file calls a
    lead stays there.

    Args:
        rows: the file's name of a lead and its samples, (n,), mV.

    Returns:
        (leads, samples) float32, mV, and their names; a lead that is there twice is so here.

    Raises:
        Excluded: none is one of the twelve, or they differ in length.
    """
    leads: list[str] = []
    signal: list[np.ndarray] = []
    for name, row in rows:
        # a name with a minus (−aVR in Cabrera's order) is the lead upside down
        upright = not name.lstrip().startswith(("-", "−"))
        lead = ecg.lead_name(name)
        if upright and lead:
            leads.append(lead)
            signal.append(row)
    if not leads:
        raise Excluded("no standard lead")
    if len({len(row) for row in signal}) != 1:
        raise Excluded("leads differ in length")
    return np.stack(signal).astype(np.float32), tuple(leads)


def age_in_years(
    stated_age: float | None, birth: date | None, recording: date | None
) -> float | None:
    """Settle an age from what a header states and from its dates, neither of which is kept.

    Returns:
        The stated age, else the full years between the dates; None where they differ by more than a
        year, outside 0–120 and where neither is known.
    """
    age_by_dates = None
    if birth and recording:
        before_birthday = (recording.month, recording.day) < (birth.month, birth.day)
        age_by_dates = float(recording.year - birth.year - before_birthday)
    if stated_age is not None and age_by_dates is not None and abs(stated_age - age_by_dates) > 1:
        return None
    age = age_by_dates if stated_age is None else stated_age
    return age if age is not None and 0 <= age <= 120 else None
