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
from types import MappingProxyType

import numpy as np
import pandas as pd
import pyarrow as pa

from ecgcmr.cohort import follow_up
from ecgcmr.cohort.labels import cells as cell_reading
from ecgcmr.cohort.labels import dates, entries, records, section, survival, tables, visits
from ecgcmr.cohort.labels import layout as layouts
from ecgcmr.cohort.labels.layout import Layout
from ecgcmr.cohort.labels.numbers import ALWAYS, UNSTATED, Column
from ecgcmr.cohort.labels.rules import Rules
from ecgcmr.cohort.labels.section import Account, Section
from ecgcmr.cohort.labels.sources import SOURCES
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
    path: Path, rules: Rules, stays: Mapping[str, pd.Series] = MappingProxyType({})
) -> LabelFile:
    """Read one file.

    Args:
        path: CSV, tab-separated or Parquet.
        rules: how.
        stays: source -> days of `records.days`, for lines of codes that name their hospital stay or
            death.

    Raises:
        InputError: it is unreadable, without a key column, with a key twice, without a column to
            read, in another unit, or more than half of a column is unreadable.
    """
    layout, account = layouts.layout_of(path, rules), Account()
    account.events = frozenset(code for group in layout.codes for code in group.events.values())
    plain = list(layout.plain)
    pieces: list[Section] = []
    for cells in tables.pieces(path, layout.columns):
        try:
            pieces.append(_piece(path, layout, cells, plain, rules, account, stays))
        # A Parquet column of a kind that no key, number, date or code has.
        except pa.ArrowException as error:
            raise tables.refusal(path, error) from error
        plain = [column.name for column in pieces[-1].flag_columns]
    if not pieces:
        raise InputError(f"{path}: no rows below the names of the columns")
    main_visits = (ALWAYS, UNSTATED, str(rules.visit))
    main_columns = [column for column in layout.quantities if column.visit in main_visits]
    other_columns = [column for column in layout.quantities if column.visit not in main_visits]
    whole = section.joined(path, pieces, main_columns, other_columns, plain)
    account.unread = [
        *layout.unread,
        *(name for name in layout.plain if Column(name) not in whole.flag_columns),
    ]
    _say(path, account)
    survival.check(whole, follow_up.stems(tables.names(path)))
    if account.unread and not whole.says_something:
        raise InputError(
            f"{path}: no column of 0/1 labels, demographics or phenotypes; "
            f"it has {layouts.some(account.unread)}"
        )
    names = [disease.name for disease in rules.diseases]
    sections = [
        section.by_key(part) for part in visits.by_visit(visits.timed(whole), rules.visit, names)
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
    for source, n in account.n_entries.items():
        n_bad = sum(account.shapes[source].values())
        if n_bad * 2 > n:
            raise InputError(
                f"{path}: {n_bad:,} of {n:,} entries are no {SOURCES[source].words}"
                f"{_like(account.shapes[source])}"
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
    rules: Rules,
    account: Account,
    stays: Mapping[str, pd.Series],
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
    diagnoses = []
    complete = {group.source: np.ones(cells.num_rows, bool) for group in layout.codes}
    for group in layout.codes:
        group_diagnoses, n_of_row = entries.read(path, group, cells, rules.prefixes[group.source])
        if layout.episode and (days := stays.get(group.source)) is not None:
            lines = records.stay_keys(keys["subject"], cells[layout.episode])
            group_diagnoses = entries.dated(group_diagnoses, lines, days)
        diagnoses.append(group_diagnoses)
        account.note_codes(group.source, group_diagnoses)
        if group.code_list and group.code_list == layout.list_name:
            complete[group.source] = n_of_row > 0
    return Section(
        path=path,
        keys=keys,
        numbers=numbers,
        flag_columns=tuple(Column(name) for name in columns),
        flags=np.column_stack([*columns.values()]) if columns else section.no_flags(cells.num_rows),
        visit=visit,
        follow_up={
            kind: _earliest([dates.days(path, cells, name) for name in names])
            for kind, names in layout.follow_up.items()
        },
        dates={visit: dates.days(path, cells, name) for visit, name in layout.dates.items()},
        diagnoses=entries.joined(diagnoses) if diagnoses else None,
        complete=complete,
        visits_of=layout.visits_of,
        is_long=layout.is_long,
        is_dual=len(keys) == 2 and len({*layout.keys.values()}) == 1,
    )


def _earliest(days: Sequence[np.ndarray]) -> np.ndarray:
    """(n,) the first known day of each row."""
    first, *others = days
    for values in others:
        first = np.fmin(first, values)
    return first
