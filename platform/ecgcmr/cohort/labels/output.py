"""Merged labels as one table, which can be read again as it stands."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ecgcmr import files
from ecgcmr.cohort.labels.lookup import Labels
from ecgcmr.cohort.labels.numbers import ALWAYS, PIECE, UNSTATED, Numbers
from ecgcmr.errors import InputError


def write_labels(out: Path, labels: Labels, inputs: Sequence[Path]) -> None:
    """Write merged labels as CSV, or Parquet by the name's ending; `read_labels` reads them again.

    Raises:
        InputError: they speak of people and of recordings at once, or `out` is one of the files
            that were read.
    """
    if out.resolve() in [path.resolve() for path in inputs]:
        raise InputError(f"{out}: is one of the files that are read; choose another --out")
    by_unit = {"subject": labels.by_person, "ecg": labels.by_ecg, "cmr": labels.by_cmr}
    present = {unit: numbers for unit, numbers in by_unit.items() if isinstance(numbers, Numbers)}
    unit, numbers = next(iter(present.items()))
    if len(present) > 1 and not (
        list(present) == ["subject", "cmr"] and _is_within(present["cmr"], numbers)
    ):
        raise InputError(
            f"labels by {' and by '.join(present)} do not fit into one table; write them apart"
        )
    owner = {"ecg": labels.person_of_ecg, "cmr": labels.person_of_cmr}.get(unit)
    pieces = _pieces(unit, numbers, labels.visit, owner)
    if out.suffix == ".parquet":
        files.write_whole(out, lambda aside: _write_parquet(aside, pieces))
    else:
        files.write_whole(out, lambda aside: _write_csv(aside, pieces))


def _pieces(
    unit: str, numbers: Numbers, asked: str, owner: Mapping[str, str] | None
) -> Iterator[pd.DataFrame]:
    """The rows of a table in pieces; of people one for each visit that something is stated for."""
    visits = numbers.table.visits if unit == "subject" else []
    columns = numbers.at(ALWAYS, UNSTATED, *visits).columns
    for start in range(0, len(numbers), PIECE):
        rows = slice(start, start + PIECE)
        blocks = [
            frame.reindex(columns=columns).assign(visit=visit)
            for visit, frame in _by_visits(numbers, visits, asked, rows)
        ]
        piece = pd.concat(blocks).rename_axis(unit).reset_index()
        if len(blocks) > 1:
            place = pd.Series(range(len(numbers.table.keys[rows])), numbers.table.keys[rows])
            piece = piece.iloc[np.argsort(place[piece[unit]].to_numpy(), kind="stable")]
        if owner:
            piece.insert(1, "subject", piece[unit].map(owner))
        visit_column = piece.pop("visit")
        if visits:
            piece.insert(1, "visit", visit_column)
        yield piece


def _by_visits(
    numbers: Numbers, visits: Sequence[str], asked: str, rows: slice
) -> Iterator[tuple[str, pd.DataFrame]]:
    """Some rows at each visit: first without one, of those whom none is stated for."""
    with_values = {
        visit: numbers.at(visit).rows(rows).notna().any(axis=1).to_numpy() for visit in visits
    }
    at_unstated = numbers.at(UNSTATED).rows(rows).notna().any(axis=1).to_numpy()
    at_none = (
        ~np.any([*with_values.values()], axis=0) if visits else np.ones(len(at_unstated), bool)
    )
    at_none |= at_unstated & ~with_values.get(asked, np.zeros(len(at_unstated), bool))
    yield "", numbers.at(ALWAYS, UNSTATED).rows(rows)[at_none]
    for visit, has in with_values.items():
        names = (ALWAYS, UNSTATED, visit) if visit == asked else (ALWAYS, visit)
        yield visit, numbers.at(*names).rows(rows)[has]


def _is_within(numbers: Numbers, whole: Numbers) -> bool:
    """Whether a table adds nothing to another: ukbb_cardiac's, read as one of stacks, beside the
    same of people.
    """
    return all(key in whole and numbers[key].items() <= whole[key].items() for key in numbers)


def _write_csv(path: Path, pieces: Iterable[pd.DataFrame]) -> None:
    for at, piece in enumerate(pieces):
        piece.to_csv(
            path, mode="a" if at else "w", header=not at, index=False, float_format="%.10g"
        )


def _write_parquet(path: Path, pieces: Iterable[pd.DataFrame]) -> None:
    tables = (pa.Table.from_pandas(piece, preserve_index=False) for piece in pieces)
    first = next(tables)
    with pq.ParquetWriter(path, first.schema) as writer:
        for table in itertools.chain([first], tables):
            writer.write_table(table.cast(first.schema))
