"""Which visit a number of a file is of, and the rows of each visit as a section of their own."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ecgcmr.cohort import follow_up, identifiers
from ecgcmr.cohort.labels import section as sections
from ecgcmr.cohort.labels.numbers import ALWAYS, UNSTATED, Column
from ecgcmr.cohort.labels.section import Section

TIMED = ("_past", "_future")  # endings of columns that are relative to a visit


def timed(section: Section) -> Section:
    """Mark the columns of 0 and 1 that are relative to a visit: past and future onsets, events."""
    names = {column.name for column in (*section.numbers, *section.flag_columns)}
    timed_names = {name for name in names if name.endswith(TIMED)} | {*follow_up.columns(names)}
    columns = (
        Column(column.name, UNSTATED) if column.name in timed_names else column
        for column in section.flag_columns
    )
    return replace(section, flag_columns=tuple(columns))


def by_visit(section: Section, asked: int, people: Sequence[str]) -> list[Section]:
    """A section for the rows of each visit, in which every column is of that visit.

    What stands in a line of a visit is of that visit, but for what is of a person whatever the
    visit. A recording's line has what is of its own visit, by its name or as asked for.
    """
    if section.units == ("subject",) or section.is_dual:
        if section.visit is None:
            return [section]
        row_visit, own_names = section.visit, _own_columns(section, people)
        return [
            _renamed(sections.rows(section, row_visit == visit), visit, own_names)
            for visit in dict.fromkeys(row_visit.tolist())
        ]
    columns = (*section.numbers, *section.flag_columns, *map(_as_column, section.dates))
    if all(column.visit in (ALWAYS, UNSTATED) for column in columns):
        return [_of_recordings(section, str(asked))]
    visits = [identifiers.participant(key)[1] for key in section.keys[section.units[0]]]
    row_visit = np.array([visit or str(asked) for visit in visits], object)
    return [
        _of_recordings(sections.rows(section, row_visit == visit), visit)
        for visit in dict.fromkeys(row_visit.tolist())
    ]


def _as_column(visit: str) -> Column:
    return Column("", visit)


def _own_columns(section: Section, people: Sequence[str]) -> set[str]:
    """The columns that are of a person: sex, and diseases that one ever had."""
    names = {column.name for column in section.flag_columns}
    split_names = {name for name in names if {name + ending for ending in TIMED} & names}
    return {"sex", *(name for name in people if name in names), *split_names}


def _renamed(section: Section, visit: str, own: set[str]) -> Section:
    """The section with its columns at a visit; "" leaves them as they are."""
    if not visit:
        return replace(section, visit=None)

    def at(column: Column) -> Column:
        is_own = column.name in own or column.visit not in (ALWAYS, UNSTATED)
        return column if is_own else Column(column.name, visit)

    return replace(
        section,
        numbers={at(column): values for column, values in section.numbers.items()},
        flag_columns=tuple(map(at, section.flag_columns)),
        dates={visit if v == UNSTATED else v: days for v, days in section.dates.items()},
        visit=None,
    )


def _of_recordings(section: Section, visit: str) -> Section:
    """The section with what is of a recording's own visit alone."""
    own_visits = (visit, UNSTATED, ALWAYS)
    columns = [c for c in section.numbers if c.visit in own_visits]
    return replace(
        section,
        numbers={Column(c.name): section.numbers[c] for c in columns},
        flag_columns=tuple(Column(c.name) for c in section.flag_columns),
        dates=dict([(ALWAYS, section.dates[v]) for v in own_visits if v in section.dates][:1]),
        visit=None,
    )
