"""What every reader returns: a recording as it was read, not yet cleaned.

The key comes from the file's name, never from inside it: names, dates and identifiers of a header stay in the reader.
Frames and signals are as the file holds them; `ecg.prepare` and `cmr.prepare` settle, check and clean them.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

HEAD = 4096  # bytes at a file's beginning that `suits` may judge by


@dataclass(frozen=True)
class EcgRecord:
    """One ECG as read.

    Attributes:
        key: stem of the file's name.
        signal: (leads, samples) float32, mV; NaN where the file marks a sample as missing.
        rate_hz: samples per second.
        leads: names in the order of `signal`, as the file spells them.
        age: years. sex: 0 female, 1 male. height: cm. weight: kg. None where unknown.
        labels: label column -> 0.0 or 1.0; a column that is absent is unknown, not 0.
        repairs: what was settled while reading, in words.
        person: groups repeat visits; None means that the record is its own person.
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


@dataclass(frozen=True)
class CmrRecord:
    """One short-axis cine stack as read.

    Attributes:
        key: stem of the file's or folder's name.
        frames: (slices, phases, height, width) float32, scanner intensities, slices in order of position.
        spacing_mm: distance of slices, rows and columns.
        trigger_ms: (phases,) time after the R wave, or None.
        repairs: what was settled while reading, in words.
        person: groups repeat visits; None means that the record is its own person.
        masks: uint8 like `frames`, 0 background, 1 LV cavity, 2 myocardium, 3 RV cavity; None without a segmentation.
        masked: the phases that have a segmentation; the masks of all others are 0.
        es: the phase that the files name as end-systole, or None.
        labels: phenotype -> value in its unit (tasks.UNITS); one that is absent is unknown.
    """

    key: str
    frames: np.ndarray
    spacing_mm: tuple[float, float, float]
    trigger_ms: np.ndarray | None
    repairs: tuple[str, ...]
    person: str | None = None
    masks: np.ndarray | None = None
    masked: tuple[int, ...] = ()
    es: int | None = None
    labels: dict[str, float] = field(default_factory=dict)


def biobank(stem: str) -> tuple[str, int] | None:
    """(person, instance) of a file that UK Biobank names `{eid}_{field}_{instance}_{array}`; None for other names."""
    parts = re.fullmatch(r"(\d+)_\d{4,5}_(\d)_\d+", stem)
    return (parts[1], int(parts[2])) if parts else None


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
