"""One labels file: what its columns mean, and what it says row by row.

A file is read once and in pieces. Known columns (demographics, phenotypes) give numbers, others
only if they hold nothing but 0, 1 and blanks, and of codes of diseases those that are asked for go
on, with their dates. Nothing else does, and what does not is named. Every number is of all visits
of a person, of one, or of one that nobody stated.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from ecgcmr.cohort.labels import cells as cell_reading
from ecgcmr.cohort.labels import entries, records, section, tables, visits
from ecgcmr.cohort.labels import layout as layouts
from ecgcmr.cohort.labels.layout import Layout
from ecgcmr.cohort.labels.numbers import ALWAYS, UNSTATED, Column
from ecgcmr.cohort.labels.section import Account, Section
from ecgcmr.errors import InputError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LabelFile:
    """A file as sections, each of which has a key once, and the account of it."""

    path: Path
    sections: list[Section]
    account: Account

    def keys(self) -> Iterator[dict[str, np.ndarray]]:
        """The keys of each section."""
        return (section.keys for section in self.sections)


def read(
    path: Path,
    prefixes: Mapping[str, tuple[str, ...]],
    visit: int,
    lists: str,
    people: Sequence[str] = (),
    stays: pd.Series | None = None,
) -> LabelFile:
    """Read one file.

    Args:
        path: CSV, tab-separated or Parquet.
        prefixes: source -> beginnings of the codes that are asked for.
        visit: UK Biobank's instance of what states none.
        lists: column with a list of codes in each cell.
        people: columns beside `sex` that hold at all visits of a person, in a line of a visit too.
        stays: of `episode_days`, for lines of codes that name their hospital stay.

    Raises:
        InputError: it is unreadable, without a key column, with a key twice, without a column to
            read, in another unit, or more than half of a column is unreadable.
    """
    layout, account = layouts.layout_of(path, visit, lists), Account()
    plain = list(layout.plain)
    pieces: list[Section] = []
    for cells in tables.pieces(path, layout.columns):
        try:
            pieces.append(_piece(path, layout, cells, plain, prefixes, account, stays))
        # A Parquet column of a kind that no key, number, date or code has.
        except pa.ArrowException as error:
            raise tables.refusal(path, error) from error
        plain = [column.name for column in pieces[-1].flag_columns]
    if not pieces:
        raise InputError(f"{path}: no rows below the names of the columns")
    main_visits = (ALWAYS, UNSTATED, str(visit))
    main_columns = [column for column in layout.quantities if column.visit in main_visits]
    other_columns = [column for column in layout.quantities if column.visit not in main_visits]
    whole = section.joined(path, pieces, main_columns, other_columns, plain)
    account.unread = [
        *layout.unread,
        *(name for name in layout.plain if Column(name) not in whole.flag_columns),
    ]
    _say(path, account)
    if account.unread and not whole.says_something:
        raise InputError(
            f"{path}: no column of 0/1 labels, demographics or phenotypes; "
            f"it has {layouts.some(account.unread)}"
        )
    sections = [
        section.by_key(part) for part in visits.by_visit(visits.timed(whole), visit, people)
    ]
    for part in sections:
        section.check_keys(part)
    return LabelFile(path, sections, account)


def _say(path: Path, account: Account) -> None:
    """Say what of a file could not be read.

    Raises:
        InputError: it is more than half of a column.
    """
    if account.unread:
        log.warning(
            "%s: left out, neither 0/1 nor a known number: %s",
            path.name,
            layouts.some(account.unread),
        )
    if sum(account.shapes.values()) * 2 > account.n_entries:
        raise InputError(
            f"{path}: {sum(account.shapes.values()):,} of {account.n_entries:,} entries "
            f"are no ICD-10 codes such as I251 or I25.1{_like(account.shapes)}"
        )
    for name, (n, shapes) in account.numbers.items():
        if sum(shapes.values()) * 2 > n:
            raise InputError(
                f"{path}: {name}: {sum(shapes.values()):,} of {n:,} entries are no "
                f"numbers{_like(shapes)}; write 55.1: a decimal point, no unit, no words"
            )
        if shapes:
            log.warning(
                "%s: %s: %d of %d entries are no numbers%s and count as unknown",
                path.name,
                name,
                sum(shapes.values()),
                n,
                _like(shapes),
            )


def _like(shapes: Counter[str]) -> str:
    words = [shape for shape, _ in shapes.most_common(3)]
    return f" (they look like {', '.join(words)})" if words else ""


def _piece(
    path: Path,
    layout: Layout,
    cells: pa.RecordBatch,
    plain: Sequence[str],
    prefixes: Mapping[str, tuple[str, ...]],
    account: Account,
    stays: pd.Series | None,
) -> Section:
    keys = {unit: cell_reading.keys(cells[name]) for unit, name in layout.keys.items()}
    visit = None
    if "subject" in keys:
        keys["subject"], visit = cell_reading.persons(keys["subject"])
    if layout.visit:
        visit = cell_reading.visits(path, layout.visit, cells[layout.visit])
    numbers = {
        column: cell_reading.numbers(path, column.name, names, cells, account)
        for column, names in layout.quantities.items()
    }
    flags = {name: cell_reading.flags(cells[name]) for name in plain}
    columns = {name: values for name, values in flags.items() if values is not None}
    diagnoses, per_row = [], np.zeros(cells.num_rows, np.int64)
    for group in layout.codes:
        group_diagnoses, n_of_row = entries.read(path, group, cells, prefixes[group.source])
        if layout.episode and stays is not None and not group.dates:
            lines = records.stay_keys(keys["subject"], cells[layout.episode])
            group_diagnoses = entries.dated(group_diagnoses, lines, stays)
        diagnoses.append(group_diagnoses)
        per_row += n_of_row
    complete = np.full(cells.num_rows, bool(layout.codes))
    for part in diagnoses:
        account.n_entries += part.n_entries
        account.shapes += part.shapes
        account.latest = pd.Series([account.latest, part.latest], dtype="datetime64[s]").max()
    return Section(
        path=path,
        keys=keys,
        numbers=numbers,
        flag_columns=tuple(Column(name) for name in columns),
        flags=np.column_stack([*columns.values()]) if columns else section.no_flags(cells.num_rows),
        visit=visit,
        dates={visit: entries.days(path, cells, name) for visit, name in layout.dates.items()},
        diagnoses=entries.joined(diagnoses) if diagnoses else None,
        complete=complete & (per_row > 0) if layout.blank_is_unknown else complete,
        is_long=layout.is_long,
        is_dual=len(keys) == 2 and len({*layout.keys.values()}) == 1,
    )
