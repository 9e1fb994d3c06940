"""What the names of a table's columns say: whose a line is, what was measured, where codes are."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ecgcmr import tasks
from ecgcmr.cohort import follow_up
from ecgcmr.cohort.labels import code_columns, survival, tables, ukbb_tables
from ecgcmr.cohort.labels.entries import CodeColumns
from ecgcmr.cohort.labels.limits import BODY
from ecgcmr.cohort.labels.numbers import UNSTATED, Column
from ecgcmr.cohort.labels.rules import Rules
from ecgcmr.errors import InputError

KEYS = {
    "subject": (
        "subject",
        "eid",
        "f.eid",
        "participant.eid",
        "hesin.eid",
        "hesin_diag.eid",
        "hesin_oper.eid",
        "death.eid",
        "death_cause.eid",
        "subject_id",
    ),
    "ecg": ("ecg", "record", "study_id"),
    "cmr": ("cmr",),
}


UNNAMED = ("", "Unnamed: 0", "__index_level_0__")  # how pandas writes an index: ukbb_cardiac's ids


KNOWN = ("sex", *BODY, *tasks.PHENOTYPES)


VISITS = ("visit", "instance")  # columns that say which visit a line is of: UK Biobank's instance


IMAGING = 2  # UK Biobank's first instance with resting ECGs and CMR


@dataclass(frozen=True)
class Layout:
    """What the names of a file's columns say.

    Attributes:
        keys: "subject", "ecg" and "cmr" -> their column.
        quantities: column of a cohort -> columns that may hold it; the first that knows a row's
            wins.
        plain: columns that may hold 0 and 1.
        codes: columns of codes of diseases, by source.
        list_name: column of lists of codes of which an empty one says that nothing is known.
        dates: visit -> column with its date.
        follow_up: what ends it -> columns with its day, the first of which counts.
        visit: column that says which visit a line is of.
        unread: columns that are not looked at.
        episode: column with the hospital stay of a line, whose date another table has.
    """

    keys: dict[str, str]
    quantities: dict[Column, list[str]]
    plain: list[str]
    codes: tuple[CodeColumns, ...]
    list_name: str | None
    dates: dict[str, str]
    follow_up: dict[str, list[str]]
    visit: str | None
    unread: list[str]
    episode: str | None = None

    @property
    def is_long(self) -> bool:
        """Whether the file has a line for each code."""
        return any(group.is_long for group in self.codes)

    @property
    def visits_of(self) -> dict[str, tuple[str, ...]]:
        """Source -> the visits at which people were asked for it."""
        visits: dict[str, tuple[str, ...]] = {}
        for group in self.codes:
            if group.visit:
                visits[group.source] = (*visits.get(group.source, ()), group.visit)
        return visits

    @property
    def columns(self) -> list[str]:
        """What has to be read."""
        groups = (
            self.keys.values(),
            *self.quantities.values(),
            self.plain,
            *(group.columns for group in self.codes),
            self.dates.values(),
            *self.follow_up.values(),
            [name for name in (self.visit, self.episode) if name],
        )
        return list(dict.fromkeys(name for group in groups for name in group))


def layout_of(path: Path, rules: Rules) -> Layout:
    """What the columns of a file mean, of which the rules say what is asked for."""
    visit = rules.visit
    names = tables.names(path)
    keys = key_columns(path, names)
    rest = [name for name in names if name not in (*keys.values(), *UNNAMED)]
    fields = {name: column for name in rest if (column := ukbb_tables.column(name))}
    quantities: dict[Column, list[str]] = {}
    # 50 before 12144
    for name in sorted(rest, key=lambda n: n in fields and fields[n].field != 50):
        if quantity := _quantity(path, name, fields.get(name), visit):
            quantities.setdefault(quantity, []).append(name)
    for stem in follow_up.stems(rest):
        quantities[Column(stem + follow_up.TIME, UNSTATED)] = [stem + follow_up.TIME]
    codes = code_columns.find(path, rest, fields, rules.prefixes, rules.codes)
    is_long = any(group.is_long for group in codes)
    if is_long:
        quantities = {}
    dates = {
        str(c.instance): name
        for name, c in fields.items()
        if c.field == ukbb_tables.VISIT and _is_read(c.instance, visit)
    }
    if "visit_date" in rest:
        dates[UNSTATED] = "visit_date"
    visit_column = next((name for name in VISITS if name in rest and "subject" in keys), None)
    episode = next((name for name in ukbb_tables.EPISODE if name in rest and is_long), None)
    ends = _ends(path, rest, fields, rules)
    used_columns = {
        episode,
        *(name for group in quantities.values() for name in group),
        *(name for group in codes for name in group.columns),
        *dates.values(),
        *(name for group in ends.values() for name in group),
        visit_column,
    }
    remaining = [name for name in rest if name not in used_columns]
    free = [name for name in remaining if name not in fields]
    plain = [name for name in free if not is_long and not re.search(r"(^|_)id$", name, re.I)]
    unread = set(remaining) - set(plain)
    return Layout(
        keys=keys,
        quantities=quantities,
        plain=plain,
        codes=codes,
        list_name=next((g.code_list for g in codes if g.code_list == rules.codes), None),
        dates=dates,
        follow_up=ends,
        visit=visit_column,
        unread=[name for name in remaining if name in unread],
        episode=episode,
    )


def _ends(
    path: Path,
    names: Sequence[str],
    fields: Mapping[str, ukbb_tables.Column],
    rules: Rules,
) -> dict[str, list[str]]:
    """The columns with what ends the follow-up of a person, if it is asked for.

    Raises:
        InputError: a column has the name of one that is going to be made.
    """
    if rules.time is None:
        return {}
    of_pairs = {*follow_up.columns(names)}
    endings = (follow_up.TIME, follow_up.EVENT)
    to_make = {disease.name + ending for disease in rules.diseases for ending in endings}
    if clashes := (to_make & {*names}) - of_pairs:
        raise InputError(
            f"{path}: column '{min(clashes)}' has the name of one that --time makes; rename it"
        )
    columns = {
        survival.DEATH: [
            *(name for name, c in fields.items() if c.field == ukbb_tables.DEATH),
            *(name for name in ukbb_tables.DEATH_DATES if name in names),
        ],
        survival.LOST: [name for name, c in fields.items() if c.field == ukbb_tables.LOST],
        survival.END: [name for name in names if name == rules.time_column],
    }
    return {kind: group for kind, group in columns.items() if group}


def key_columns(path: Path, names: Sequence[str]) -> dict[str, str]:
    """Whom the lines are of: "subject", "ecg" and "cmr" -> the column that names them."""
    keys: dict[str, str] = {}
    for unit, spellings in KEYS.items():
        present = [name for name in spellings if name in names]
        if len(present) > 1:
            raise InputError(
                f"{path}: columns '{present[0]}' and '{present[1]}' both name the {unit}; keep one"
            )
        if present:
            keys[unit] = present[0]
    if keys:
        return keys
    id_column = next((name for name in UNNAMED if name in names), None)
    with_unit = [name for name in names if re.fullmatch(r"\w+ \(.+\)", name)]
    if id_column is None or not with_unit:
        raise InputError(
            f"{path}: no column 'subject', 'eid', 'ecg', 'record' or 'cmr' to join on; "
            f"it has {some(names)}"
        )
    # ukbb_cardiac: the folder of the person's stack
    return {"subject": id_column, "cmr": id_column}


def _is_read(instance: int | None, visit: int) -> bool:
    """Whether an instance of UK Biobank's can have recordings, or is the one that is asked for."""
    return instance is not None and (instance >= IMAGING or instance == visit)


def _quantity(
    path: Path, name: str, column: ukbb_tables.Column | None, visit: int
) -> Column | None:
    """The cohort's column that a file's column holds, if it is one of known meaning."""
    if column:
        known_name = ukbb_tables.FIELDS.get(column.field)
        if known_name and column.field in ukbb_tables.ONCE:
            return Column(known_name)
        is_read = known_name and _is_read(column.instance, visit)
        return Column(known_name, str(column.instance)) if known_name and is_read else None
    if match := re.fullmatch(r"(\w+) \((.+)\)", name):
        quantity, unit = match.groups()
        if quantity in tasks.UNITS and unit.lower() != tasks.UNITS[quantity].lower():
            raise InputError(
                f"{path}: column '{name}' is in {unit}; "
                f"{quantity} is wanted in {tasks.UNITS[quantity]}"
            )
        return Column(quantity, UNSTATED) if quantity in tasks.UNITS else None
    if name in ("sex", "gender"):
        return Column("sex")
    return Column(name, UNSTATED) if name in KNOWN else None


def some(names: Iterable[Any]) -> str:
    """The first names of many, in words."""
    words = [str(name) for name in names]
    return ", ".join(words[:8]) + (f" … ({len(words)} columns)" if len(words) > 8 else "")
