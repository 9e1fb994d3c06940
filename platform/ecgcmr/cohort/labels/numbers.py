"""Numbers by person and visit, or by recording: two arrays, however many columns there are.

A column of 0 and 1 costs one byte a cell; half a million people with 2,000 of them are 1 GB.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd

ALWAYS = ""  # holds at all visits of a person: sex, and whether there ever was a disease
UNSTATED = "?"  # of a visit that nobody stated
PIECE = 8192  # rows of a table that are looked at or written at once
UNKNOWN = -1  # of a column of 0 and 1


class Column(NamedTuple):
    """A column of a cohort, and the visit that its values are of.

    It is UK Biobank's instance, `ALWAYS` or `UNSTATED`.
    """

    name: str
    visit: str = ALWAYS


@dataclass(frozen=True)
class Table:
    """Numbers by key.

    Attributes:
        keys: (n,) distinct.
        columns: of `values`, (n, m) float64, NaN for unknown.
        flag_columns: of `flags`, (n, k) int8: 0, 1 or `UNKNOWN`.
    """

    keys: pd.Index
    columns: tuple[Column, ...]
    values: np.ndarray
    flag_columns: tuple[Column, ...]
    flags: np.ndarray

    @property
    def visits(self) -> list[str]:
        """The visits that something is stated for."""
        visits = {column.visit for column in (*self.columns, *self.flag_columns)}
        return sorted(visits - {ALWAYS, UNSTATED})

    @cached_property
    def _place(self) -> dict[Column, tuple[np.ndarray, int]]:
        """Column -> the array that holds it, and where."""
        parts = ((self.columns, self.values), (self.flag_columns, self.flags))
        return {column: (array, at) for names, array in parts for at, column in enumerate(names)}

    def __contains__(self, column: object) -> bool:
        return column in self._place

    def column(self, column: Column, rows: slice = slice(None)) -> np.ndarray:
        """Some rows of a column, float64 with NaN, whatever it is kept as."""
        array, at = self._place[column]
        return from_flags(array[rows, at]) if array is self.flags else array[rows, at]


class Numbers(Mapping[str, Mapping[str, float]]):
    """Known numbers by key, at some visits of a table.

    Args:
        table: of which it is a view.
        visits: whose columns count; of two with a value for one name the later.
        row: key -> row of the table, if it is there already.
    """

    def __init__(
        self,
        table: Table,
        visits: Sequence[str] = (ALWAYS,),
        row: Mapping[str, int] | None = None,
    ) -> None:
        self.table, self.visits = table, tuple(visits)
        self._row = row if row is not None else {key: n for n, key in enumerate(table.keys)}
        self._places = [_of_visit(table.columns, visit) for visit in visits]
        self._flag_places = [_of_visit(table.flag_columns, visit) for visit in visits]

    def at(self, *visits: str) -> "Numbers":
        """The same table at other visits."""
        return Numbers(self.table, visits, self._row)

    @property
    def columns(self) -> list[str]:
        """Their names."""
        table = self.table
        columns = (*table.columns, *table.flag_columns)
        return list(dict.fromkeys(c.name for c in columns if c.visit in self.visits))

    @property
    def frame(self) -> pd.DataFrame:
        """All of it, float64 with NaN."""
        return self.rows(slice(None))

    def rows(self, rows: slice) -> pd.DataFrame:
        """Some of the keys, float64 with NaN."""
        table, columns = self.table, {}
        for name in self.columns:
            values = np.full(len(table.keys[rows]), np.nan)
            for visit in self.visits:
                if (column := Column(name, visit)) in table:
                    new = table.column(column, rows)
                    values = np.where(np.isnan(new), values, new)
            columns[name] = values
        return pd.DataFrame(columns, index=table.keys[rows], columns=self.columns)

    def __getitem__(self, key: str) -> dict[str, float]:
        row = self._row[key]
        numbers: dict[str, float] = {}
        for (names, places), (flag_names, flag_places) in zip(self._places, self._flag_places):
            values, flags = self.table.values[row, places], self.table.flags[row, flag_places]
            numbers |= {names[at]: float(values[at]) for at in np.flatnonzero(~np.isnan(values))}
            numbers |= {flag_names[at]: float(flags[at]) for at in np.flatnonzero(flags != UNKNOWN)}
        return numbers

    def __contains__(self, key: object) -> bool:
        return key in self._row

    def __iter__(self) -> Iterator[str]:
        return iter(self._row)

    def __len__(self) -> int:
        return len(self._row)


def from_flags(flags: np.ndarray) -> np.ndarray:
    """Flags as float64 with NaN."""
    return np.where(flags == UNKNOWN, np.nan, flags).astype(np.float64)


def to_flags(values: np.ndarray) -> np.ndarray:
    """0, 1 and NaN as int8."""
    return np.where(np.isnan(values), UNKNOWN, values).astype(np.int8)


def _of_visit(columns: Sequence[Column], visit: str) -> tuple[list[str], np.ndarray]:
    places = [at for at, column in enumerate(columns) if column.visit == visit]
    return [columns[at].name for at in places], np.array(places, np.int64)
