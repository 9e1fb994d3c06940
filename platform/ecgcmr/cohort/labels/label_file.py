"""One labels file: what its columns mean, and what it says row by row.

A file is read once and in pieces. Known columns (demographics, phenotypes) give numbers, others
only if they hold nothing but 0, 1 and blanks, and of codes of diseases those that are asked for go
on, with their dates. Nothing else does, and what does not is named. Every number is of all visits
of a person, of one, or of one that nobody stated.
"""

import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from ecgcmr import tasks
from ecgcmr.cohort import identifiers
from ecgcmr.cohort.labels import entries, tables, ukbb_tables
from ecgcmr.cohort.labels.entries import CodeColumns, Diagnoses
from ecgcmr.cohort.labels.numbers import ALWAYS, UNKNOWN, UNSTATED, Column, to_flags
from ecgcmr.cohort.labels.sources import HOSPITAL
from ecgcmr.errors import InputError

log = logging.getLogger(__name__)

KEYS = {
    "subject": (
        "subject",
        "eid",
        "f.eid",
        "participant.eid",
        "hesin.eid",
        "hesin_diag.eid",
        "subject_id",
    ),
    "ecg": ("ecg", "record", "study_id"),
    "cmr": ("cmr",),
}
UNNAMED = ("", "Unnamed: 0", "__index_level_0__")  # how pandas writes an index: ukbb_cardiac's ids
SEXES = {
    "f": 0.0,
    "female": 0.0,
    "w": 0.0,
    "m": 1.0,
    "male": 1.0,
    "0": 0.0,
    "1": 1.0,
    "0.0": 0.0,
    "1.0": 1.0,
}
BODY = {"age": "years", "height": "cm", "weight": "kg"}
UNITS = {**BODY, **tasks.UNITS}
# As `tasks.LIMITS`: a value's lower and upper limit, then a median's. Metres, inches and days fall
# out.
LIMITS = {
    "age": (0, 120, 1, 110),
    "height": (50, 250, 100, 220),
    "weight": (2, 400, 20, 250),
    **tasks.LIMITS,
}
KNOWN = ("sex", *BODY, *tasks.PHENOTYPES)
VISITS = ("visit", "instance")  # columns that say which visit a line is of: UK Biobank's instance
TIMED = ("_past", "_future")  # endings of columns that are relative to a visit
# A line for each code: by hand, and UK Biobank's record tables as the platform names them.
RECORD_CODES = ("icd10", "diag_icd10", "hesin_diag.diag_icd10")
RECORD_DATES = ("date", "epistart", "hesin.epistart")
EPISODE = ("ins_index", "hesin.ins_index", "hesin_diag.ins_index")
EPISODE_DATES = ("epistart", "hesin.epistart", "admidate", "hesin.admidate")  # the first known
IMAGING = 2  # UK Biobank's first instance with resting ECGs and CMR


# -- the columns of a file -------------------------------------------------------------------------


@dataclass(frozen=True)
class Layout:
    """What the names of a file's columns say.

    Attributes:
        keys: "subject", "ecg" and "cmr" -> their column.
        quantities: column of a cohort -> columns that may hold it; the first that knows a row's
            wins.
        plain: columns that may hold 0 and 1.
        codes: columns of codes of diseases, by source.
        blank_is_unknown: an empty cell of codes says that nothing is known.
        dates: visit -> column with its date.
        visit: column that says which visit a line is of.
        unread: columns that are not looked at.
        episode: column with the hospital stay of a line, whose date another table has.
    """

    keys: dict[str, str]
    quantities: dict[Column, list[str]]
    plain: list[str]
    codes: tuple[CodeColumns, ...]
    blank_is_unknown: bool
    dates: dict[str, str]
    visit: str | None
    unread: list[str]
    episode: str | None = None

    @property
    def is_long(self) -> bool:
        """Whether the file has a line for each code."""
        return any(group.is_long for group in self.codes)

    @property
    def columns(self) -> list[str]:
        """What has to be read."""
        groups = (
            self.keys.values(),
            *self.quantities.values(),
            self.plain,
            *(group.columns for group in self.codes),
            self.dates.values(),
            [name for name in (self.visit, self.episode) if name],
        )
        return list(dict.fromkeys(name for group in groups for name in group))


def layout_of(path: Path, visit: int, lists: str) -> Layout:
    """What the columns of a file mean; `visit` and `lists` as in `read`."""
    names = tables.names(path)
    keys = _key_columns(path, names)
    rest = [name for name in names if name not in (*keys.values(), *UNNAMED)]
    fields = {name: column for name in rest if (column := ukbb_tables.column(name))}
    quantities: dict[Column, list[str]] = {}
    # 50 before 12144
    for name in sorted(rest, key=lambda n: n in fields and fields[n].field != 50):
        if quantity := _quantity(path, name, fields.get(name), visit):
            quantities.setdefault(quantity, []).append(name)
    codes = _code_columns(path, rest, fields, lists)
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
    episode = next((name for name in EPISODE if name in rest and is_long), None)
    used_columns = {
        episode,
        *(name for group in quantities.values() for name in group),
        *(name for group in codes for name in group.columns),
        *dates.values(),
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
        blank_is_unknown=any(group.code_list == lists for group in codes),
        dates=dates,
        visit=visit_column,
        unread=[name for name in remaining if name in unread],
        episode=episode,
    )


def is_episodes(path: Path) -> bool:
    """Whether a file is UK Biobank's `hesin`: hospital stays with their dates, and no codes."""
    names = {*tables.names(path)}
    has_dates = bool(names.intersection(EPISODE) and names.intersection(EPISODE_DATES))
    return has_dates and not names.intersection(RECORD_CODES)


def episode_days(path: Path) -> pd.Series:
    """Day on which each hospital stay began, by `<person> <ins_index>`.

    Raises:
        InputError: the file cannot be read, a date is none, or a stay stands in it twice.
    """
    names = tables.names(path)
    (key,) = _key_columns(path, names).values()
    episode = next(name for name in EPISODE if name in names)
    dates = [name for name in EPISODE_DATES if name in names]
    blocks = []
    for cells in tables.pieces(path, [key, episode, *dates]):
        days = np.full(cells.num_rows, np.datetime64("NaT", "D"))
        for name in dates:
            days = np.where(np.isnat(days), entries.days(path, cells, name), days)
        blocks.append(pd.Series(days, _stays(_keys(cells[key]), cells[episode])))
    stays = pd.concat(blocks) if blocks else pd.Series(dtype="datetime64[s]")
    if twice := int(stays.index.duplicated().sum()):
        raise InputError(
            f"{path}: {twice:,} hospital stays stand in more than one line; export it again"
        )
    return stays


def _stays(persons: np.ndarray, episodes: pa.Array) -> list[str]:
    return [f"{person} {stay}" for person, stay in zip(persons, tables.keys(episodes), strict=True)]


def _code_columns(
    path: Path, names: Sequence[str], fields: Mapping[str, ukbb_tables.Column], lists: str
) -> tuple[CodeColumns, ...]:
    """The columns with codes of diseases, and with their dates."""
    code = next((name for name in RECORD_CODES if name in names), None)
    if code:
        date = next((name for name in RECORD_DATES if name in names), None)
        dates = {(0, 0): date} if date else {}
        return (CodeColumns(HOSPITAL, {(0, 0): code}, dates, is_long=True),)
    codes, dates = (_arrays(fields, field) for field in (ukbb_tables.CODES, ukbb_tables.DATES))
    list_columns = [
        name for name, c in fields.items() if c.field == ukbb_tables.CODES and c.array is None
    ]
    # With UKB-FORMAT names a field that the platform keeps in one cell is `41270-0.0`.
    whole = [*list_columns, *(codes.values() if list(codes) == [(0, 0)] else ())]
    code_list = next((name for name in (*whole, lists) if name in names), None)
    if dates and not codes and not code_list:
        raise InputError(
            f"{path}: dates of diagnoses (field 41280) without their codes (41270); "
            "export both together"
        )
    if code_list:
        return (CodeColumns(HOSPITAL, dates=dates, code_list=code_list),)
    return (CodeColumns(HOSPITAL, codes, dates),) if codes else ()


def _arrays(fields: Mapping[str, ukbb_tables.Column], field: int) -> dict[tuple[int, int], str]:
    """(instance, array index) -> column of a field of UK Biobank."""
    columns = {name: column for name, column in fields.items() if column.field == field}
    return {(c.instance or 0, c.array): name for name, c in columns.items() if c.array is not None}


def _key_columns(path: Path, names: Sequence[str]) -> dict[str, str]:
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
            f"it has {_some(names)}"
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


# -- reading a file --------------------------------------------------------------------------------


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
        complete: (n,) whether the absence of a code says that there was no such diagnosis.
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
    complete: np.ndarray
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
    def says_something(self) -> bool:
        """Whether there is anything to take from it."""
        return bool(self.numbers or self.flag_columns or self.dates or self.diagnoses)


@dataclass
class Account:
    """What was read of a file, and what was not.

    Attributes:
        n_entries: codes of diseases.
        shapes: what entries looked like that are no codes -> how many.
        numbers: column -> (entries, what those looked like that are no numbers -> how many).
        unread: columns that nothing was taken from.
        latest: date of any code, NaT without dates.
    """

    n_entries: int = 0
    shapes: Counter[str] = field(default_factory=Counter)
    numbers: dict[str, tuple[int, Counter[str]]] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)
    latest: Any = pd.NaT

    def note(self, name: str, values: np.ndarray, bad_words: Sequence[str]) -> None:
        """Count the entries of a piece of a column of numbers."""
        n, shapes = self.numbers.get(name, (0, Counter()))
        shapes = shapes + Counter(map(identifiers.shape, bad_words))
        self.numbers[name] = (n + int((~np.isnan(values)).sum()) + len(bad_words), shapes)


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
    layout, account = layout_of(path, visit, lists), Account()
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
    section = _joined(path, pieces, main_columns, other_columns, plain)
    account.unread = [
        *layout.unread,
        *(name for name in layout.plain if Column(name) not in section.flag_columns),
    ]
    _say(path, account)
    if account.unread and not section.says_something:
        raise InputError(
            f"{path}: no column of 0/1 labels, demographics or phenotypes; "
            f"it has {_some(account.unread)}"
        )
    sections = [_by_key(part) for part in _by_visit(_timed(section), visit, people)]
    for part in sections:
        _check_keys(part)
    return LabelFile(path, sections, account)


def _say(path: Path, account: Account) -> None:
    """Say what of a file could not be read.

    Raises:
        InputError: it is more than half of a column.
    """
    if account.unread:
        log.warning(
            "%s: left out, neither 0/1 nor a known number: %s", path.name, _some(account.unread)
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
    keys = {unit: _keys(cells[name]) for unit, name in layout.keys.items()}
    visit = None
    if "subject" in keys:
        keys["subject"], visit = _persons(keys["subject"])
    if layout.visit:
        visit = _visit(path, layout.visit, cells[layout.visit])
    numbers = {
        column: _number(path, column.name, names, cells, account)
        for column, names in layout.quantities.items()
    }
    flags = {name: _flag(cells[name]) for name in plain}
    columns = {name: values for name, values in flags.items() if values is not None}
    diagnoses, per_row = [], np.zeros(cells.num_rows, np.int64)
    for group in layout.codes:
        group_diagnoses, n_of_row = entries.read(path, group, cells, prefixes[group.source])
        if layout.episode and stays is not None and not group.dates:
            lines = _stays(keys["subject"], cells[layout.episode])
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
        flags=np.column_stack([*columns.values()]) if columns else _no_flags(cells.num_rows),
        visit=visit,
        dates={visit: entries.days(path, cells, name) for visit, name in layout.dates.items()},
        diagnoses=entries.joined(diagnoses) if diagnoses else None,
        complete=complete & (per_row > 0) if layout.blank_is_unknown else complete,
        is_long=layout.is_long,
        is_dual=len(keys) == 2 and len({*layout.keys.values()}) == 1,
    )


def _no_flags(n: int) -> np.ndarray:
    return np.zeros((n, 0), np.int8)


def _joined(
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
        for names, check in ((columns, _checked), (other_columns, _possible))
        for column in names
    }
    sizes = [len(piece.complete) for piece in pieces]
    starts = np.cumsum([0, *sizes[:-1]])
    first = pieces[0]
    whole = replace(
        first,
        keys={unit: np.concatenate([piece.keys[unit] for piece in pieces]) for unit in first.keys},
        numbers={column: v for column, v in numbers.items() if not np.isnan(v).all()},
        visit=_visits_of([piece.visit for piece in pieces], sizes),
        dates={name: np.concatenate([p.dates[name] for p in pieces]) for name in first.dates},
        diagnoses=_diagnoses_of(pieces, starts),
        complete=np.concatenate([piece.complete for piece in pieces]),
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
        _moved(piece.diagnoses, np.arange(start, start + len(piece.complete)))
        for piece, start in zip(pieces, starts, strict=True)
        if piece.diagnoses is not None
    ]
    return entries.joined(parts) if parts else None


def _moved(diagnoses: Diagnoses, place: np.ndarray) -> Diagnoses:
    """The same of other rows; `place` says where each went."""
    frames = (diagnoses.codes, diagnoses.doubts)
    codes, doubts = (frame.assign(row=place[frame["row"].to_numpy(np.int64)]) for frame in frames)
    return replace(diagnoses, codes=codes, doubts=doubts)


# -- visits ----------------------------------------------------------------------------------------


def _timed(section: Section) -> Section:
    """Mark the columns of 0 and 1 that are relative to a visit: past and future onsets."""
    columns = (
        Column(column.name, UNSTATED) if column.name.endswith(TIMED) else column
        for column in section.flag_columns
    )
    return replace(section, flag_columns=tuple(columns))


def _by_visit(section: Section, asked: int, people: Sequence[str]) -> list[Section]:
    """A section for the rows of each visit, in which every column is of that visit.

    What stands in a line of a visit is of that visit, but for what is of a person whatever the
    visit. A recording's line has what is of its own visit, by its name or as asked for.
    """
    if section.units == ("subject",) or section.is_dual:
        if section.visit is None:
            return [section]
        row_visit, own_names = section.visit, _own_columns(section, people)
        return [
            _renamed(_rows(section, row_visit == visit), visit, own_names)
            for visit in dict.fromkeys(row_visit.tolist())
        ]
    columns = (*section.numbers, *section.flag_columns, *map(_as_column, section.dates))
    if all(column.visit in (ALWAYS, UNSTATED) for column in columns):
        return [_of_recordings(section, str(asked))]
    visits = [identifiers.participant(key)[1] for key in section.keys[section.units[0]]]
    row_visit = np.array([visit or str(asked) for visit in visits], object)
    return [
        _of_recordings(_rows(section, row_visit == visit), visit)
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


def _rows(section: Section, mask: np.ndarray) -> Section:
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
        diagnoses=diagnoses,
        complete=section.complete[mask],
    )


def _by_key(section: Section) -> Section:
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
        flags=_no_flags(len(names)),
        dates=dates,
        diagnoses=_moved(section.diagnoses, row),
        complete=np.ones(len(names), bool),
    )


def _check_keys(section: Section) -> None:
    keys = pd.Series(section.keys[section.units[0]], dtype=object)
    twice = int(keys[keys.ne("") & keys.duplicated()].nunique())
    if twice:
        raise InputError(
            f"{section.path}: {section.units[0]}: "
            f"{twice:,} of the keys stand in more than one line; keep one line for each"
        )


# -- cells -----------------------------------------------------------------------------------------


def _keys(cells: pa.Array) -> np.ndarray:
    """Ids as they are meant: `records/A0001.hea` is `A0001`."""
    return np.array([identifiers.clean(text) for text in tables.keys(cells)], dtype=object)


def _persons(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """People, and the visit of each row, of names such as `1000011_2_0`; None if none has one."""
    pairs = [identifiers.participant(key) if "_" in key else (None, None) for key in keys]
    if not any(person for person, _ in pairs):
        return keys, None
    persons = [person or key for key, (person, _) in zip(keys, pairs, strict=True)]
    return np.array(persons, object), np.array([visit or "" for _, visit in pairs], object)


def _visit(path: Path, name: str, cells: pa.Array) -> np.ndarray:
    visits = tables.keys(cells)
    bad = sum(not re.fullmatch(r"\d{0,2}", visit) for visit in visits)
    if bad:
        raise InputError(
            f"{path}: column '{name}' holds {bad:,} entries that are no visit; write UK Biobank's "
            "instance, 2 for imaging, or nothing"
        )
    return visits


def _number(
    path: Path, name: str, columns: Sequence[str], cells: pa.RecordBatch, account: Account
) -> np.ndarray:
    """Numbers of known meaning; the first column that knows a row's wins."""
    numbers = np.full(cells.num_rows, np.nan)
    for column in columns:
        read_cells = _sex if name == "sex" else tables.numbers
        values, bad_words = read_cells(cells[column])
        if name == "sex":
            _refuse_sexes(path, bad_words)
        account.note(column, values, bad_words)
        numbers = np.where(np.isnan(numbers), values, numbers)
    return numbers


def _sex(cells: pa.Array) -> tuple[np.ndarray, list[str]]:
    codes, words = pd.factorize(tables.keys(cells))
    values = np.array([SEXES.get(identifiers.bare(word).lower(), np.nan) for word in words])[codes]
    bad = np.isnan(values) & (words[codes] != "")
    return values, words[codes[bad]].tolist()


def _refuse_sexes(path: Path, bad_words: Sequence[str]) -> None:
    numbers = {word for word in bad_words if re.fullmatch(r"-?\d+(\.\d+)?", word)}
    if numbers:
        raise InputError(
            f"{path}: sex: {len(numbers)} numbers other than 0 and 1; "
            "write 0 or F for women, 1 or M for men"
        )


def _flag(cells: pa.Array) -> np.ndarray | None:
    """A column of 0, 1 and blanks as int8; None if it holds anything else."""
    if (
        pa.types.is_nested(cells.type)
        or pa.types.is_temporal(cells.type)
        or pa.types.is_binary(cells.type)
    ):
        return None
    if (flags := tables.bits(cells)) is not None:
        return flags
    values, bad_words = tables.numbers(cells)
    is_flag = not bad_words and np.isin(values[~np.isnan(values)], (0.0, 1.0)).all()
    return to_flags(values) if is_flag else None


def _checked(path: Path, name: str, values: np.ndarray) -> np.ndarray:
    """Values outside what is possible become unknown.

    Raises:
        InputError: the median is that of another unit.
    """
    possible_values = _possible(path, name, values)
    if name not in LIMITS or np.isnan(values).all():
        return possible_values
    low, high, least, most = LIMITS[name]
    has_value = not np.isnan(possible_values).all()
    median = float(np.nanmedian(possible_values)) if has_value else np.nan
    if not least <= median <= most:
        fault = (
            f"the median is {median:.3g}"
            if has_value
            else f"no value lies between {low:g} and {high:g}"
        )
        raise InputError(
            f"{path}: {name}: {fault}, expected {least:g} to {most:g} {UNITS[name]}; "
            "is it in another unit?"
        )
    return possible_values


def _possible(path: Path, name: str, values: np.ndarray) -> np.ndarray:
    """Values, NaN where they cannot be; how many is said."""
    if name not in LIMITS:
        return values
    low, high, _, _ = LIMITS[name]
    if name in BODY:
        is_possible = (values >= low) & (values <= high)
    else:
        is_possible = (values > low) & (values < high)
    outside = ~np.isnan(values) & ~is_possible
    if outside.any():
        log.warning(
            "%s: %s: %d values outside %g to %g count as unknown",
            path.name,
            name,
            outside.sum(),
            low,
            high,
        )
    return np.where(is_possible, values, np.nan)


def _some(names: Iterable[Any]) -> str:
    words = [str(name) for name in names]
    return ", ".join(words[:8]) + (f" … ({len(words)} columns)" if len(words) > 8 else "")
