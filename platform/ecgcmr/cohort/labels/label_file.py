"""One labels file: what its columns mean, and what it says row by row.

A file is read once and in pieces. Known columns (demographics, phenotypes) give numbers, others
only if they hold nothing but 0, 1 and blanks, and of ICD-10 codes those that are asked for go on,
with their dates. Nothing else does.
"""

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from ecgcmr import tasks
from ecgcmr.cohort.labels import icd10, tables, ukbb_tables
from ecgcmr.errors import InputError

log = logging.getLogger(__name__)

KEYS = {
    "subject": ("subject", "eid", "f.eid", "participant.eid", "subject_id"),
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


# -- the columns of a file -------------------------------------------------------------------------


@dataclass(frozen=True)
class Layout:
    """What the names of a file's columns say.

    Attributes:
        keys: "subject", "ecg" and "cmr" -> their column.
        quantities: column of a cohort -> columns that may hold it; the first that knows a row's
            wins.
        plain: columns that may hold 0 and 1.
        codes, dates: array index -> column, of ICD-10 codes and of their dates.
        code_list: column with many codes in a cell.
        blank_is_unknown: an empty cell of it says that nothing is known.
        long: the file has a line for each code.
        visit: column with the date of the visit.
        unread: columns that are not looked at.
    """

    keys: dict[str, str]
    quantities: dict[str, list[str]]
    plain: list[str]
    codes: dict[int, str]
    dates: dict[int, str]
    code_list: str | None
    blank_is_unknown: bool
    long: bool
    visit: str | None
    unread: list[str]

    @property
    def columns(self) -> list[str]:
        """What has to be read."""
        groups = (
            self.keys.values(),
            *self.quantities.values(),
            self.plain,
            self.codes.values(),
            self.dates.values(),
        )
        single = [name for name in (self.code_list, self.visit) if name is not None]
        return list(dict.fromkeys([*(name for group in groups for name in group), *single]))


def layout_of(path: Path, visit: int, lists: str) -> Layout:
    """What the columns of a file mean; `visit` and `lists` as in `read`."""
    names = tables.names(path)
    keys = _key_columns(path, names)
    rest = [name for name in names if name not in (*keys.values(), *UNNAMED)]
    fields = {name: column for name in rest if (column := ukbb_tables.column(name))}
    quantities: dict[str, list[str]] = {}
    # 50 before 12144
    for name in sorted(rest, key=lambda n: n in fields and fields[n].field != 50):
        if quantity := _quantity(path, name, fields.get(name), visit):
            quantities.setdefault(quantity, []).append(name)
    quantity_columns = {name for group in quantities.values() for name in group}
    codes, dates = (_arrays(fields, field) for field in (ukbb_tables.CODES, ukbb_tables.DATES))
    list_columns = [
        name for name, c in fields.items() if c.field == ukbb_tables.CODES and c.array is None
    ]
    code_list = next((name for name in (*list_columns, lists) if name in rest), None)
    visit_columns = (
        name for name, c in fields.items() if (c.field, c.instance) == (ukbb_tables.VISIT, visit)
    )
    visit_column = "visit_date" if "visit_date" in rest else next(visit_columns, None)
    long = "icd10" in rest
    if dates and not codes and not code_list:
        raise InputError(
            f"{path}: dates of diagnoses (field 41280) without their codes (41270); "
            "export both together"
        )
    if long:
        codes, dates = {0: "icd10"}, {0: "date"} if "date" in rest else {}
        quantities, quantity_columns, code_list = {}, set(), None
    used_columns = {*quantity_columns, *codes.values(), *dates.values(), code_list, visit_column}
    remaining = [name for name in rest if name not in used_columns]
    free = [name for name in remaining if name not in fields]
    plain = [name for name in free if not long and not re.search(r"(^|_)id$", name, re.I)]
    return Layout(
        keys=keys,
        quantities=quantities,
        plain=plain,
        codes=codes,
        dates=dates,
        code_list=code_list,
        blank_is_unknown=bool(code_list and not list_columns),
        long=long,
        visit=visit_column,
        unread=[name for name in remaining if name not in plain],
    )


def _arrays(fields: dict[str, ukbb_tables.Column], field: int) -> dict[int, str]:
    """Array index -> column of a field of UK Biobank."""
    columns = {name: column for name, column in fields.items() if column.field == field}
    return {c.array: name for name, c in columns.items() if c.array is not None}


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


def _quantity(path: Path, name: str, column: ukbb_tables.Column | None, visit: int) -> str | None:
    """The cohort's column that a file's column holds, if it is one of known meaning."""
    if column:
        at_visit = column.field in ukbb_tables.ONCE or column.instance == visit
        return ukbb_tables.FIELDS.get(column.field) if at_visit else None
    if match := re.fullmatch(r"(\w+) \((.+)\)", name):
        quantity, unit = match.groups()
        if quantity in tasks.UNITS and unit.lower() != tasks.UNITS[quantity].lower():
            raise InputError(
                f"{path}: column '{name}' is in {unit}; "
                f"{quantity} is wanted in {tasks.UNITS[quantity]}"
            )
        return quantity if quantity in tasks.UNITS else None
    if name == "gender":
        return "sex"
    return name if name in KNOWN else None


# -- reading a file --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Section:
    """What a file, or a piece of one, says row by row.

    Attributes:
        path: of the file.
        keys: "subject", "ecg", "cmr" -> (n,) keys, "" for none.
        numbers: column of a cohort -> (n,) numbers, NaN for unknown.
        visits: (n,) days, or None.
        diagnoses: `row`, `code`, `date` of the codes that are asked for; None if the file has no
            codes.
        complete: (n,) whether the absence of a code says that there was no such diagnosis.
        entries, invalid: codes read, and how many of them are no ICD-10 codes.
        latest: date of any code, NaT without dates.
        long: the file has a line for each code.
    """

    path: Path
    keys: dict[str, np.ndarray]
    numbers: dict[str, np.ndarray]
    visits: np.ndarray | None
    diagnoses: pd.DataFrame | None
    complete: np.ndarray
    entries: int = 0
    invalid: int = 0
    latest: Any = pd.NaT
    long: bool = False

    @property
    def units(self) -> tuple[str, ...]:
        """Whom its rows speak of: recordings where it names them, else people.

        An id of ukbb_cardiac may be either.
        """
        if len(self.keys) == 2 and self.keys.get("cmr") is self.keys.get("subject"):
            return ("subject", "cmr")
        return tuple(unit for unit in ("ecg", "cmr") if unit in self.keys) or ("subject",)

    def frame(self, unit: str) -> pd.DataFrame:
        """The numbers by key of a unit.

        Of a key that stands twice (a CMR with two ECGs) the last row.
        """
        frame = pd.DataFrame(
            self.numbers, index=pd.Index(self.keys[unit], dtype=object), dtype=np.float64
        )
        return frame[(frame.index != "") & ~frame.index.duplicated(keep="last")]


def read(path: Path, prefixes: tuple[str, ...], visit: int, lists: str) -> Section:
    """Read one file.

    Args:
        path: CSV, tab-separated or Parquet.
        prefixes: of the ICD-10 codes that are asked for, without dots.
        visit: UK Biobank's instance.
        lists: column with a list of codes in each cell.

    Raises:
        InputError: it is unreadable, without a key column, with a key twice, without a column to
            read, or in another unit.
    """
    layout = layout_of(path, visit, lists)
    plain = list(layout.plain)
    pieces: list[Section] = []
    for cells in tables.pieces(path, layout.columns):
        try:
            pieces.append(_piece(path, layout, cells, plain, prefixes))
        # A Parquet column of a kind that no key, number, date or code has.
        except pa.ArrowException as error:
            raise tables.refusal(path, error) from error
        plain = [name for name in plain if name in pieces[-1].numbers]
    if not pieces:
        raise InputError(f"{path}: no rows below the names of the columns")
    number_columns = [*layout.quantities, *plain]
    section = _joined(path, pieces, number_columns, layout.long)
    section = _by_key(section) if layout.long else section
    _check_keys(section)
    unread = [*layout.unread, *(name for name in layout.plain if name not in section.numbers)]
    if unread:
        log.warning("%s: left out, neither 0/1 nor a known number: %s", path.name, _some(unread))
    if unread and not section.numbers and section.visits is None and section.diagnoses is None:
        raise InputError(
            f"{path}: no column of 0/1 labels, demographics or phenotypes; it has {_some(unread)}"
        )
    if section.invalid * 2 > section.entries:
        raise InputError(
            f"{path}: {section.invalid:,} of {section.entries:,} entries "
            "are no ICD-10 codes such as I251 or I25.1"
        )
    return section


def _piece(
    path: Path,
    layout: Layout,
    cells: pa.RecordBatch,
    plain: Sequence[str],
    prefixes: tuple[str, ...],
) -> Section:
    keys = {name: _keys(cells[name]) for name in dict.fromkeys(layout.keys.values())}
    numbers = {
        name: _number(path, name, [cells[c] for c in columns])
        for name, columns in layout.quantities.items()
    }
    flags = {name: _flag(cells[name]) for name in plain}
    has_codes = bool(layout.codes or layout.code_list)
    words, rows, dates, no_list = _entries(path, layout, cells)
    diagnoses, invalid = _requested_diagnoses(words, rows, dates, prefixes)
    complete = has_codes & ~no_list
    if layout.blank_is_unknown:
        complete &= np.bincount(rows, minlength=cells.num_rows) > 0
    return Section(
        path=path,
        keys={unit: keys[name] for unit, name in layout.keys.items()},
        numbers=numbers | {name: flag for name, flag in flags.items() if flag is not None},
        visits=_days(path, cells, layout.visit) if layout.visit else None,
        diagnoses=diagnoses if has_codes else None,
        complete=complete,
        entries=len(words) + int(no_list.sum()),
        invalid=invalid + int(no_list.sum()),
        latest=pd.Series(dates).max(),
    )


def _joined(path: Path, pieces: Sequence[Section], columns: Sequence[str], long: bool) -> Section:
    """The pieces of a file as one.

    Columns of known meaning are checked, columns that are blank throughout are dropped.
    """
    numbers = {
        name: _checked(path, name, np.concatenate([piece.numbers[name] for piece in pieces]))
        for name in columns
    }
    starts = np.cumsum([0, *(len(piece.complete) for piece in pieces[:-1])])
    key_arrays: dict[int, np.ndarray] = {}  # ukbb_cardiac's one column is two keys
    keys = {
        unit: key_arrays.setdefault(
            id(array), np.concatenate([piece.keys[unit] for piece in pieces])
        )
        for unit, array in pieces[0].keys.items()
    }
    diagnoses = [
        piece.diagnoses.assign(row=piece.diagnoses["row"] + start)
        for piece, start in zip(pieces, starts)
        if piece.diagnoses is not None
    ]
    visits = [piece.visits for piece in pieces if piece.visits is not None]
    return Section(
        path=path,
        keys=keys,
        numbers={name: values for name, values in numbers.items() if not np.isnan(values).all()},
        visits=np.concatenate(visits) if visits else None,
        diagnoses=pd.concat(diagnoses, ignore_index=True) if diagnoses else None,
        complete=np.concatenate([piece.complete for piece in pieces]),
        entries=sum(piece.entries for piece in pieces),
        invalid=sum(piece.invalid for piece in pieces),
        latest=pd.Series([piece.latest for piece in pieces], dtype="datetime64[s]").max(),
        long=long,
    )


def _by_key(section: Section) -> Section:
    """A file with a line for each code, as one row for each key."""
    (unit,) = section.units[:1]
    row, names = pd.factorize(section.keys[unit])
    assert section.diagnoses is not None
    visits = None
    if section.visits is not None:
        days = pd.Series(section.visits).groupby(row)
        several = int((days.nunique() > 1).sum())
        if several:
            raise InputError(
                f"{section.path}: visit_date: {several:,} keys have more than one; "
                "give each its own line of visit"
            )
        visits = days.first().to_numpy("datetime64[D]")
    return replace(
        section,
        keys={unit: names},
        numbers={},
        visits=visits,
        diagnoses=section.diagnoses.assign(row=row[section.diagnoses["row"]]),
        complete=np.ones(len(names), bool),
        long=True,
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
    """A recording's key from what a labels file calls it: `records/A0001.hea` is `A0001`."""
    return np.array([_key(text) for text in tables.keys(cells)], dtype=object)


def _key(text: str) -> str:
    name = text.rpartition("/")[2]
    for end in (".gz", ".nii", ".hea", ".mat", ".dat", ".dcm"):
        name = name.removesuffix(end)
    return name


def _number(path: Path, name: str, columns: Sequence[pa.Array]) -> np.ndarray:
    """Numbers of known meaning; the first column that knows a row's wins."""
    numbers = np.full(len(columns[0]), np.nan)
    for cells in columns:
        values = _sex(path, cells) if name == "sex" else tables.numbers(cells)[0]
        numbers = np.where(np.isnan(numbers), values, numbers)
    return numbers


def _sex(path: Path, cells: pa.Array) -> np.ndarray:
    codes, words = pd.factorize(tables.keys(cells))
    invalid = [
        word for word in words if word.lower() not in SEXES and re.fullmatch(r"-?\d+(\.\d+)?", word)
    ]
    if invalid:
        raise InputError(
            f"{path}: sex: {len(invalid)} numbers other than 0 and 1; "
            "write 0 or F for women, 1 or M for men"
        )
    return np.array([SEXES.get(word.lower(), np.nan) for word in words])[codes]


def _flag(cells: pa.Array) -> np.ndarray | None:
    """A column of 0, 1 and blanks; None if it holds anything else."""
    if (
        pa.types.is_nested(cells.type)
        or pa.types.is_temporal(cells.type)
        or pa.types.is_binary(cells.type)
    ):
        return None
    values, invalid = tables.numbers(cells)
    if invalid:
        return None
    return values if np.isin(values[~np.isnan(values)], (0.0, 1.0)).all() else None


def _checked(path: Path, name: str, values: np.ndarray) -> np.ndarray:
    """Values outside what is possible become unknown.

    Raises:
        InputError: the median is that of another unit.
    """
    if name not in LIMITS:
        return values
    low, high, least, most = LIMITS[name]
    if name in BODY:
        is_possible = (values >= low) & (values <= high)
    else:
        is_possible = (values > low) & (values < high)
    is_known = ~np.isnan(values)
    outside = is_known & ~is_possible
    if outside.any():
        log.warning(
            "%s: %s: %d values outside %g to %g count as unknown",
            path.name,
            name,
            outside.sum(),
            low,
            high,
        )
    possible_values = values[is_known & is_possible]
    median = float(np.median(possible_values)) if possible_values.size else np.nan
    if is_known.any() and not least <= median <= most:
        fault = (
            f"the median is {median:.3g}"
            if median == median
            else f"no value lies between {low:g} and {high:g}"
        )
        raise InputError(
            f"{path}: {name}: {fault}, expected {least:g} to {most:g} {UNITS[name]}; "
            "is it in another unit?"
        )
    return np.where(is_possible, values, np.nan)


def _days(path: Path, cells: pa.RecordBatch, name: str) -> np.ndarray:
    days, invalid = tables.days(cells[name])
    if invalid:
        raise InputError(
            f"{path}: column '{name}' holds {invalid:,} entries "
            "that are no dates such as 2019-11-26"
        )
    days[np.isin(days, np.array(icd10.NO_DATES, "datetime64[D]"))] = np.datetime64("NaT")
    return days


def _entries(
    path: Path, layout: Layout, cells: pa.RecordBatch
) -> tuple[pa.Array, np.ndarray, np.ndarray, np.ndarray]:
    """Every code of a piece, with its row and the date of the same array index.

    Then (n,) which cells are no list.
    """
    if layout.code_list:
        words, rows, places, no_list = tables.lists(cells[layout.code_list])
        dates = np.full(len(rows), "NaT", "datetime64[D]")
        for place in set(places.tolist()) & layout.dates.keys():
            here = places == place
            dates[here] = _days(path, cells, layout.dates[place])[rows[here]]
        return words, rows, dates, no_list
    word_blocks, row_blocks, date_blocks = [], [], []
    for place, name in layout.codes.items():
        text = tables.text(cells[name])
        rows = np.flatnonzero(text.is_valid().to_numpy(zero_copy_only=False))
        if not len(rows):
            continue
        word_blocks.append(text.drop_null())
        row_blocks.append(rows)
        dates = np.full(len(rows), "NaT", "datetime64[D]")
        if place in layout.dates:
            column = layout.dates[place]
            dates = _days(path, cells.select([column]).take(pa.array(rows)), column)
        date_blocks.append(dates)
    no_list = np.zeros(cells.num_rows, bool)
    if not word_blocks:
        rows, dates = np.zeros(0, np.int64), np.zeros(0, "datetime64[D]")
        return pa.array([], pa.string()), rows, dates, no_list
    rows, dates = np.concatenate(row_blocks), np.concatenate(date_blocks)
    return pa.concat_arrays(word_blocks), rows, dates, no_list


def _requested_diagnoses(
    words: pa.Array, rows: np.ndarray, dates: np.ndarray, prefixes: tuple[str, ...]
) -> tuple[pd.DataFrame, int]:
    """The diagnoses that are asked for, and how many words are no codes."""
    encoded_words = words.dictionary_encode()
    distinct_words = encoded_words.dictionary.to_pylist()
    codes = np.array([icd10.clean(word or "") for word in distinct_words], dtype=object)
    index = encoded_words.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    # The last stands for null.
    is_code = np.array([*(code is not None for code in codes), False])
    matches = [code is not None and code.startswith(prefixes) for code in codes]
    is_requested = np.array([*matches, False])
    hits = is_requested[index]
    columns = {
        "row": rows[hits],
        "code": codes[index[hits]] if hits.any() else [],
        "date": dates[hits],
    }
    diagnoses = pd.DataFrame(columns).astype({"code": object, "date": "datetime64[s]"})
    return diagnoses, int((~is_code[index]).sum())


def _some(names: Iterable[Any]) -> str:
    words = [str(name) for name in names]
    return ", ".join(words[:8]) + (f" … ({len(words)} columns)" if len(words) > 8 else "")
