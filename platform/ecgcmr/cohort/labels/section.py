"""What a file of labels, or a piece of one, says row by row; and the account of what it did not.

Memory holds a file once: its pieces are let go one by one where they become one.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ecgcmr.cohort import identifiers
from ecgcmr.cohort.labels import entries, limits
from ecgcmr.cohort.labels.entries import Diagnoses
from ecgcmr.cohort.labels.numbers import UNKNOWN, Column
from ecgcmr.errors import InputError


@dataclass(frozen=True)
class Section:
    """What a file, or a piece of one, says row by row.

    Attributes:
        path: of the file.
        keys: "subject", "ecg", "cmr" -> (n,) keys, "" for none.
        numbers: column of a cohort -> (n,) numbers, NaN for unknown.
        flag_columns, flags: columns of 0 and 1, and (n, k) int8.
        visit: (n,) the visit that a row is of, "" for none; None if no row is of one.
        dates: visit -> (n,) its day.
        diagnoses: None if the file has no codes.
        complete: source -> (n,) whether the absence of a code says that there was no such
            diagnosis.
        visits_of: source -> the visits at which people were asked.
        follow_up: what ends it, of `survival` -> (n,) its day.
        is_long: the file has a line for each code.
        is_dual: its ids are ukbb_cardiac's, which stand for people and for stacks.
    """

    path: Path
    keys: dict[str, np.ndarray]
    numbers: dict[Column, np.ndarray]
    flag_columns: tuple[Column, ...]
    flags: np.ndarray
    visit: np.ndarray | None
    dates: dict[str, np.ndarray]
    diagnoses: Diagnoses | None
    complete: dict[str, np.ndarray]
    visits_of: dict[str, tuple[str, ...]]
    follow_up: dict[str, np.ndarray] = field(default_factory=dict)
    is_long: bool = False
    is_dual: bool = False

    @property
    def units(self) -> tuple[str, ...]:
        """Whom its rows speak of: recordings where it names them, else people.

        An id of ukbb_cardiac may be either.
        """
        if self.is_dual:
            return ("subject", "cmr")
        return tuple(unit for unit in ("ecg", "cmr") if unit in self.keys) or ("subject",)

    @property
    def n_rows(self) -> int:
        """How many rows it has."""
        return len(next(iter(self.keys.values())))

    @property
    def says_something(self) -> bool:
        """Whether there is anything to take from it."""
        parts = (self.numbers, self.flag_columns, self.dates, self.diagnoses, self.follow_up)
        return any(map(bool, parts))


@dataclass
class Account:
    """What was read of a file, and what was not.

    Attributes:
        n_entries: source -> how many codes of diseases.
        shapes: source -> what entries looked like that are no codes -> how many.
        numbers: column -> (entries, what those looked like that are no numbers -> how many).
        unread: columns that nothing was taken from.
        events: codes of which a column of first occurrences is there.
        latest: source -> date of any code, NaT without dates.
    """

    n_entries: Counter[str] = field(default_factory=Counter)
    shapes: dict[str, Counter[str]] = field(default_factory=dict)
    numbers: dict[str, tuple[int, Counter[str]]] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)
    events: frozenset[str] = frozenset()
    latest: dict[str, Any] = field(default_factory=dict)

    def note_codes(self, source: str, diagnoses: Diagnoses) -> None:
        """Count the entries of a piece of columns of codes."""
        self.n_entries[source] += diagnoses.n_entries
        self.shapes[source] = self.shapes.get(source, Counter()) + diagnoses.shapes
        days = [self.latest.get(source, pd.NaT), diagnoses.latest]
        self.latest[source] = pd.Series(days, dtype="datetime64[s]").max()

    def note(self, name: str, values: np.ndarray, bad_words: Sequence[str]) -> None:
        """Count the entries of a piece of a column of numbers."""
        n, shapes = self.numbers.get(name, (0, Counter()))
        shapes = shapes + Counter(map(identifiers.shape, bad_words))
        self.numbers[name] = (n + int((~np.isnan(values)).sum()) + len(bad_words), shapes)


def joined(
    path: Path,
    pieces: list[Section],
    columns: Sequence[Column],
    other_columns: Sequence[Column],
    plain: Sequence[str],
) -> Section:
    """The pieces of a file as one; they are let go one by one, as memory holds the file once.

    Columns of known meaning are checked, columns that are blank throughout are dropped. Of another
    visit there may be a handful of values, of which all have failed; its unit is that of the field.
    """
    numbers = {
        column: check(path, column.name, np.concatenate([p.numbers[column] for p in pieces]))
        for names, check in ((columns, limits.checked), (other_columns, limits.possible))
        for column in names
    }
    sizes = [piece.n_rows for piece in pieces]
    starts = np.cumsum([0, *sizes[:-1]])
    first = pieces[0]
    whole = replace(
        first,
        keys={unit: np.concatenate([piece.keys[unit] for piece in pieces]) for unit in first.keys},
        numbers={column: v for column, v in numbers.items() if not np.isnan(v).all()},
        visit=_visits_of([piece.visit for piece in pieces], sizes),
        dates={name: np.concatenate([p.dates[name] for p in pieces]) for name in first.dates},
        follow_up={
            kind: np.concatenate([p.follow_up[kind] for p in pieces]) for kind in first.follow_up
        },
        diagnoses=_diagnoses_of(pieces, starts),
        complete={
            source: np.concatenate([piece.complete[source] for piece in pieces])
            for source in first.complete
        },
    )
    has_value = np.zeros(len(plain), bool)
    places: list[np.ndarray] = []
    for piece in pieces:
        place_of = {column.name: at for at, column in enumerate(piece.flag_columns)}
        places.append(np.array([place_of[name] for name in plain], np.int64))
        has_value |= (piece.flags[:, places[-1]] != UNKNOWN).any(axis=0)
    flags = np.empty((sum(sizes), int(has_value.sum())), np.int8)
    for start, size in zip(starts, sizes, strict=True):
        piece, place = pieces.pop(0), places.pop(0)
        flags[start : start + size] = piece.flags[:, place[has_value]]
    names = [name for name, has in zip(plain, has_value, strict=True) if has]
    return replace(whole, flag_columns=tuple(map(Column, names)), flags=flags)


def _visits_of(parts: Sequence[np.ndarray | None], sizes: Sequence[int]) -> np.ndarray | None:
    if all(part is None for part in parts):
        return None
    blank = (np.full(size, "", object) for size in sizes)
    return np.concatenate([b if part is None else part for part, b in zip(parts, blank)])


def _diagnoses_of(pieces: Sequence[Section], starts: np.ndarray) -> Diagnoses | None:
    """The diagnoses of pieces that begin at these rows."""
    parts = [
        _moved(piece.diagnoses, np.arange(start, start + piece.n_rows))
        for piece, start in zip(pieces, starts, strict=True)
        if piece.diagnoses is not None
    ]
    return entries.joined(parts) if parts else None


def _moved(diagnoses: Diagnoses, place: np.ndarray) -> Diagnoses:
    """The same of other rows; `place` says where each went."""
    frames = (diagnoses.codes, diagnoses.doubts)
    codes, doubts = (frame.assign(row=place[frame["row"].to_numpy(np.int64)]) for frame in frames)
    return replace(diagnoses, codes=codes, doubts=doubts)


def rows(section: Section, mask: np.ndarray) -> Section:
    """Some rows of a section."""
    place = np.where(mask, np.cumsum(mask) - 1, -1)
    diagnoses = section.diagnoses
    if diagnoses is not None:
        frames = (diagnoses.codes, diagnoses.doubts)
        codes, doubts = (frame[mask[frame["row"].to_numpy()]] for frame in frames)
        diagnoses = replace(diagnoses, codes=codes, doubts=doubts)
        diagnoses = _moved(diagnoses, place)
    return replace(
        section,
        keys={unit: keys[mask] for unit, keys in section.keys.items()},
        numbers={column: values[mask] for column, values in section.numbers.items()},
        flags=section.flags if mask.all() else section.flags[mask],
        dates={visit: days[mask] for visit, days in section.dates.items()},
        follow_up={kind: days[mask] for kind, days in section.follow_up.items()},
        diagnoses=diagnoses,
        complete={source: is_known[mask] for source, is_known in section.complete.items()},
    )


def by_key(section: Section) -> Section:
    """A file with a line for each code, as one row for each key; others as they are."""
    if not section.is_long or section.diagnoses is None:
        return section
    (unit,) = section.units[:1]
    row, names = pd.factorize(section.keys[unit])
    dates = {}
    for visit, values in section.dates.items():
        days = pd.Series(values).groupby(row)
        several = int((days.nunique() > 1).sum())
        if several:
            raise InputError(
                f"{section.path}: visit_date: {several:,} keys have more than one; "
                "give each its own line of visit"
            )
        dates[visit] = days.first().to_numpy("datetime64[D]")
    return replace(
        section,
        keys={unit: np.asarray(names, object)},
        numbers={},
        flag_columns=(),
        flags=no_flags(len(names)),
        dates=dates,
        follow_up={
            kind: pd.Series(days).groupby(row).min().to_numpy("datetime64[D]")
            for kind, days in section.follow_up.items()
        },
        diagnoses=_moved(section.diagnoses, row),
        complete={source: np.ones(len(names), bool) for source in section.complete},
    )


def check_keys(section: Section) -> None:
    """Refuse a key that stands in several lines."""
    keys = pd.Series(section.keys[section.units[0]], dtype=object)
    twice = int(keys[keys.ne("") & keys.duplicated()].nunique())
    if twice:
        raise InputError(
            f"{section.path}: {section.units[0]}: "
            f"{twice:,} of the keys stand in more than one line; keep one line for each"
        )


def no_flags(n: int) -> np.ndarray:
    """No columns of 0 and 1, of n rows."""
    return np.zeros((n, 0), np.int8)
