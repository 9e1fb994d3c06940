"""Columns of several files as one table of a unit; values that differ are refused."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from ecgcmr.cohort.labels.numbers import (
    ALWAYS,
    UNKNOWN,
    UNSTATED,
    Column,
    Table,
    from_flags,
    to_flags,
)
from ecgcmr.cohort.labels.section import Section
from ecgcmr.errors import InputError


def merged(
    unit: str,
    sections: Sequence[Section],
    onsets: Mapping[Column, pd.Series],
    asked: str,
    origin: str,
) -> Table | None:
    """All that the files know of a unit, in the order in which its keys appear.

    Args:
        unit: "subject", "ecg" or "cmr".
        sections: of all files.
        onsets: the columns of diseases that codes make.
        asked: the visit that is asked for.
        origin: what to call the codes.

    Returns:
        None where they know nothing.

    Raises:
        InputError: two of them know different values.
    """
    of_unit = [section for section in sections if unit in section.units]
    if not of_unit:
        return None
    index = union([section.keys[unit] for section in of_unit])
    merger = Merger(index, asked if unit == "subject" else ALWAYS)
    for section in of_unit:
        rows = index.get_indexer(pd.Index(section.keys[unit], dtype=object))
        rows, lines = rows[rows >= 0], np.flatnonzero(rows >= 0)
        for column, values in section.numbers.items():
            merger.add(_of_unit(unit, column), rows, values[lines], section.path.name)
        merger.add_flags(section, unit)
    for column, series in onsets.items():
        rows = index.get_indexer(series.index)
        merger.add(column, rows, series.to_numpy(np.float64), origin)
    return merger.table()


def _of_unit(unit: str, column: Column) -> Column:
    return column if unit == "subject" else Column(column.name)


class Merger:
    """Columns of several files as one table; where two know different values, that is refused.

    Args:
        index: the keys.
        asked: the visit that a value of an unstated one has to agree with.
    """

    def __init__(self, index: pd.Index, asked: str) -> None:
        self.index, self.asked = index, asked
        self.numbers: dict[Column, np.ndarray] = {}
        self.flag_places: dict[Column, int] = {}
        self.flags = np.zeros((len(index), 0), np.int8)
        self.source: dict[str, str] = {}

    def add(self, column: Column, rows: np.ndarray, values: np.ndarray, source: str) -> None:
        """Add values of some rows, float64 with NaN."""
        for rival in self._rivals(column):
            old = self._values(rival, rows)
            clash = ~np.isnan(old) & ~np.isnan(values) & ~np.isclose(old, values, rtol=1e-6)
            first = self.source.get(column.name, source)
            refuse_disagreement(first, source, column.name, int(clash.sum()))
        self.source.setdefault(column.name, source)
        if column in self.flag_places:
            at = self.flag_places[column]
            old = self.flags[rows, at]
            self.flags[rows, at] = np.where(old == UNKNOWN, to_flags(values), old)
            return
        values_of_all = self.numbers.setdefault(column, np.full(len(self.index), np.nan))
        old = values_of_all[rows]
        values_of_all[rows] = np.where(np.isnan(old), values, old)

    def _rivals(self, column: Column) -> list[Column]:
        """The columns that speak of the same: of this visit, and of the one that was asked for."""
        visits = {column.visit}
        if column.visit in (UNSTATED, self.asked):
            visits = {UNSTATED, self.asked}
        columns = [Column(column.name, visit) for visit in sorted(visits)]
        return [name for name in columns if name in self.numbers or name in self.flag_places]

    def _values(self, column: Column, rows: np.ndarray) -> np.ndarray:
        if column in self.numbers:
            return self.numbers[column][rows]
        return from_flags(self.flags[rows, self.flag_places[column]])

    def add_flags(self, section: Section, unit: str) -> None:
        """Add a section's columns of 0 and 1; their memory is used on where it can be."""
        columns = [_of_unit(unit, column) for column in section.flag_columns]
        rows = self.index.get_indexer(pd.Index(section.keys[unit], dtype=object))
        lines, rows = np.flatnonzero(rows >= 0), rows[rows >= 0]
        is_new = np.array([not self._rivals(column) for column in columns], bool)
        for at in np.flatnonzero(~is_new):
            self.add(columns[at], rows, from_flags(section.flags[lines, at]), section.path.name)
        new_columns = [columns[at] for at in np.flatnonzero(is_new)]
        if not new_columns:
            return
        is_same = len(rows) == len(self.index) == len(section.flags)
        is_whole = is_same and (rows == np.arange(len(rows))).all()
        if is_whole and not self.flag_places and is_new.all():
            self.flags = section.flags
        else:
            new = np.full((len(self.index), len(new_columns)), UNKNOWN, np.int8)
            new[rows] = section.flags[np.ix_(lines, np.flatnonzero(is_new))]
            self.flags = np.concatenate([self.flags, new], axis=1) if self.flag_places else new
        for column in new_columns:
            self.flag_places[column] = len(self.flag_places)
            self.source.setdefault(column.name, section.path.name)

    def table(self) -> Table:
        """What has come together."""
        columns = tuple(self.numbers)
        values = np.full((len(self.index), len(columns)), np.nan)
        for at, column in enumerate(columns):
            values[:, at] = self.numbers[column]
        return Table(self.index, columns, values, tuple(self.flag_places), self.flags)


def union(keys: Sequence[np.ndarray]) -> pd.Index:
    """Keys in the order of their first appearance."""
    distinct_keys = pd.unique(np.concatenate(keys))
    return pd.Index(distinct_keys[distinct_keys != ""], dtype=object)


def refuse_disagreement(source: object, other_source: object, column: str, people: int) -> None:
    """Refuse two files that know different values of so many people."""
    if people:
        has_other = other_source and other_source != source
        files = f"{source} and {other_source if has_other else 'an earlier line or file'}"
        raise InputError(
            f"{files} disagree on '{column}' of {people:,} people or recordings; "
            "correct one of them"
        )
