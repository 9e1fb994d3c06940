"""Cells that hold diagnoses: which codes, of whom, since when, and what could not be read.

Nothing is dropped in silence: an entry that is no code is counted, what it looked like is kept, and
whoever has it is not known to be without the diseases that it may mean.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from ecgcmr.cohort import identifiers
from ecgcmr.cohort.labels import icd10, tables
from ecgcmr.cohort.labels.dates import days, first_days, years
from ecgcmr.cohort.labels.icd10 import Reading
from ecgcmr.cohort.labels.sources import SOURCES


@dataclass(frozen=True)
class CodeColumns:
    """The columns of a file that hold the codes of one source.

    Attributes:
        source: of `sources.SOURCES`.
        codes, dates: (instance, array index) -> column of codes, and of their dates.
        code_list: column with many codes in a cell, of which the n-th has index n; None if each has
            a column of its own.
        events: column of dates -> the code that each of them is a date of.
        visit: at which people told it; "" for records.
        is_long: the file has a line for each code, and a date of a line is that of all its codes.
    """

    source: str
    codes: Mapping[tuple[int, int], str] = field(default_factory=dict)
    dates: Mapping[tuple[int, int], str] = field(default_factory=dict)
    code_list: str | None = None
    events: Mapping[str, str] = field(default_factory=dict)
    visit: str = ""
    is_long: bool = False

    @property
    def columns(self) -> list[str]:
        """What has to be read."""
        names = [*self.codes.values(), *self.dates.values(), *self.events]
        return [*names, self.code_list] if self.code_list else names

    @property
    def has_one_date(self) -> bool:
        """Whether the date of a cell is that of all codes in it."""
        return self.is_long or SOURCES[self.source].has_one_date


@dataclass(frozen=True)
class Diagnoses:
    """What cells say of diseases.

    Attributes:
        codes: `row`, `source`, `code`, `date`, `visit` of the codes that are asked for.
        doubts: `row`, `source`, `stem`: an entry of that row that may be any code which begins so.
        n_entries: how many there were.
        shapes: what those looked like that are no codes -> how many.
        latest: date of any code of a record, NaT without dates.
    """

    codes: pd.DataFrame
    doubts: pd.DataFrame
    n_entries: int
    shapes: Counter[str]
    latest: pd.Timestamp


BROKEN = "a list that does not end"
KNOWN = {
    "row": np.int64,
    "source": object,
    "code": object,
    "date": "datetime64[s]",
    "visit": object,
}
UNCLEAR = {"row": np.int64, "source": object, "stem": object}


def frame(columns: Mapping[str, object], types: Mapping[str, object]) -> pd.DataFrame:
    """A table of these types, empty ones included."""
    table = pd.DataFrame(dict(columns), columns=list(types))
    return table.astype(dict(types))  # type: ignore[arg-type]


def joined(parts: Sequence[Diagnoses]) -> Diagnoses:
    """Several as one; rows count on as they are."""
    latest = pd.Series([part.latest for part in parts], dtype="datetime64[s]").max()
    return Diagnoses(
        codes=pd.concat([part.codes for part in parts], ignore_index=True),
        doubts=pd.concat([part.doubts for part in parts], ignore_index=True),
        n_entries=sum(part.n_entries for part in parts),
        shapes=sum((part.shapes for part in parts), Counter()),
        latest=latest,
    )


def dated(diagnoses: Diagnoses, lines: Sequence[str], stays: pd.Series) -> Diagnoses:
    """Diagnoses with the days of their hospital stays where they have none of their own.

    Args:
        diagnoses: of a table with a line for each code.
        lines: (n,) the stay of each line.
        stays: day of each stay.
    """
    words = np.array(lines, object)[diagnoses.codes["row"].to_numpy(np.int64)]
    days = stays.reindex(words).to_numpy("datetime64[s]")
    own_days = diagnoses.codes["date"].to_numpy("datetime64[s]")
    codes = diagnoses.codes.assign(date=np.where(np.isnat(own_days), days, own_days))
    latest = pd.Series([diagnoses.latest, stays.max()], dtype="datetime64[s]").max()
    return replace(diagnoses, codes=codes, latest=latest)


def read(
    path: Path, group: CodeColumns, cells: pa.RecordBatch, prefixes: tuple[str, ...]
) -> tuple[Diagnoses, np.ndarray]:
    """The diagnoses of a piece of a file.

    Args:
        path: of the file.
        group: which columns.
        cells: the piece.
        prefixes: beginnings of the codes that are asked for.

    Returns:
        Diagnoses, and (n,) how many entries each row has.

    Raises:
        InputError: a date is none.
    """
    words, rows, dates, no_list = _entries(path, group, cells)
    encoded_words = words.dictionary_encode()
    distinct_words = [word or "" for word in encoded_words.dictionary.to_pylist()]
    index = encoded_words.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    rows, dates, index = rows[index >= 0], dates[index >= 0], index[index >= 0]
    readings = [SOURCES[group.source].reading(word) for word in distinct_words]
    codes, doubts = _requested(group, readings, index, rows, dates, prefixes)
    bad_rows = np.flatnonzero(no_list)
    no_lists = frame({"row": bad_rows, "source": group.source, "stem": ""}, UNCLEAR)
    shapes = Counter({BROKEN: len(bad_rows)} if len(bad_rows) else {})
    for word, reading, n in zip(distinct_words, readings, np.bincount(index)):
        if reading.stems:
            shapes[identifiers.shape(word)] += int(n)
    has_entry = np.array([reading != Reading() for reading in readings], bool)[index]
    diagnoses = Diagnoses(
        codes=codes,
        doubts=pd.concat([doubts, no_lists], ignore_index=True),
        n_entries=int(has_entry.sum()) + len(bad_rows),
        shapes=shapes,
        latest=_latest(group, dates),
    )
    return diagnoses, np.bincount(rows[has_entry], minlength=cells.num_rows) + no_list


def _latest(group: CodeColumns, dates: np.ndarray) -> Any:
    """The last day of records; what people tell has no end."""
    if SOURCES[group.source].at_visits:
        return pd.NaT
    return pd.Series(dates.astype("datetime64[s]")).max()


def _requested(
    group: CodeColumns,
    readings: Sequence[Reading],
    index: np.ndarray,
    rows: np.ndarray,
    dates: np.ndarray,
    prefixes: tuple[str, ...],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The codes that are asked for, and what may be one of them; `index` says which reading is
    whose entry.
    """
    no_day = np.datetime64("NaT", "D")
    hits = [
        (at, code, len(reading.codes) > 1 and not group.has_one_date)
        for at, reading in enumerate(readings)
        for code in reading.codes
        if SOURCES[group.source].matches(code, prefixes)
    ]
    doubts = [
        (at, stem)
        for at, reading in enumerate(readings)
        for stem in reading.stems
        if icd10.could_be(stem, prefixes)
    ]
    order = np.argsort(index, kind="stable")
    bounds = np.searchsorted(index[order], np.arange(len(readings) + 1))

    def places(at: int) -> np.ndarray:
        return order[bounds[at] : bounds[at + 1]]

    # Of several codes in one cell nobody knows which the cell's date belongs to.
    blocks = [
        (rows[p], np.full(len(p), code, object), np.full(len(p), no_day) if several else dates[p])
        for at, code, several in hits
        for p in [places(at)]
    ]
    code_columns = {
        "row": _concatenated([block[0] for block in blocks]),
        "source": group.source,
        "code": _concatenated([block[1] for block in blocks]),
        "date": _concatenated([block[2] for block in blocks]),
        "visit": group.visit,
    }
    doubt_columns = {
        "row": _concatenated([rows[places(at)] for at, _ in doubts]),
        "source": group.source,
        "stem": _concatenated([np.full(len(places(at)), stem, object) for at, stem in doubts]),
    }
    return frame(code_columns, KNOWN), frame(doubt_columns, UNCLEAR)


def _concatenated(blocks: Sequence[np.ndarray]) -> np.ndarray | list[Any]:
    return np.concatenate(blocks) if blocks else []


def _entries(
    path: Path, group: CodeColumns, cells: pa.RecordBatch
) -> tuple[pa.Array, np.ndarray, np.ndarray, np.ndarray]:
    """Every entry of a piece, with its row and the date of the same index.

    Then (n,) which cells are no list.
    """
    blocks: list[tuple[pa.Array, np.ndarray, np.ndarray]] = []
    no_list = np.zeros(cells.num_rows, bool)
    if group.code_list:
        words, rows, places, no_list = tables.lists(cells[group.code_list])
        dates = np.full(len(rows), "NaT", "datetime64[D]")
        for (_, place), name in group.dates.items():
            here = places == place
            if here.any():
                dates[here] = _dates(path, group, cells, name)[rows[here]]
        return words, rows, dates, no_list
    for name, code in group.events.items():
        dates, has_date = first_days(path, cells, name)
        rows = np.flatnonzero(has_date)
        blocks.append((pa.array([code] * len(rows), pa.string()), rows, dates[rows]))
    for index, name in group.codes.items():
        text, rows, is_bad = _words(cells[name])
        no_list |= is_bad
        if not len(rows):
            continue
        dates = np.full(len(rows), "NaT", "datetime64[D]")
        index = (index[0], 0) if group.has_one_date else index
        if index in group.dates:
            column = group.dates[index]
            dates = _dates(path, group, cells.select([column]).take(pa.array(rows)), column)
        blocks.append((text, rows, dates))
    if not blocks:
        return pa.array([], pa.string()), np.zeros(0, np.int64), _no_days(0), no_list
    return (
        pa.concat_arrays([words for words, _, _ in blocks]),
        np.concatenate([rows for _, rows, _ in blocks]),
        np.concatenate([dates for _, _, dates in blocks]),
        no_list,
    )


def _words(cells: pa.Array) -> tuple[pa.Array, np.ndarray, np.ndarray]:
    """The cells of a column that should have one code each, and which of them are broken lists.

    Several codes in a cell stay together, so that the cell's date is not given to each of them.
    """
    if pa.types.is_list(cells.type) or pa.types.is_large_list(cells.type):
        several, rows, _, no_list = tables.lists(cells)
        return several, rows, no_list
    text = tables.text(cells)
    rows = np.flatnonzero(text.is_valid().to_numpy(zero_copy_only=False))
    return text.drop_null(), rows, np.zeros(len(cells), bool)


def _no_days(n: int) -> np.ndarray:
    return np.full(n, "NaT", "datetime64[D]")


def _dates(path: Path, group: CodeColumns, cells: pa.RecordBatch, name: str) -> np.ndarray:
    """The dates of codes, in the form of their source."""
    reads = years if SOURCES[group.source].has_years else days
    return reads(path, cells, name)
