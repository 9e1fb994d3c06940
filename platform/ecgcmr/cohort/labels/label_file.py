"""One labels file: what its columns mean, and what it says row by row.

A file is read once and in pieces. Known columns (demographics, phenotypes) give numbers, others only if they hold
nothing but 0, 1 and blanks, and of ICD-10 codes those that are asked for go on, with their dates. Nothing else does.
"""

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
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
# As `tasks.LIMITS`: a value's lower and upper limit, then a median's. Metres, inches and days fall out.
LIMITS = {
    "age": (0, 120, 1, 110),
    "height": (50, 250, 100, 220),
    "weight": (2, 400, 20, 250),
    **tasks.LIMITS,
}
KNOWN = ("sex", *BODY, *tasks.PHENOTYPES)


# -- the columns of a file ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layout:
    """What the names of a file's columns say.

    Attributes:
        keys: "subject", "ecg" and "cmr" -> their column.
        known: column of a cohort -> columns that may hold it; the first that knows a row's wins.
        plain: columns that may hold 0 and 1.
        codes, dates: array index -> column, of ICD-10 codes and of their dates.
        listed: column with many codes in a cell. found_only: an empty cell of it says that nothing is known.
        long: the file has a line for each code.
        visit: column with the date of the visit.
        left: columns that are not looked at.
    """

    keys: dict[str, str]
    known: dict[str, list[str]]
    plain: list[str]
    codes: dict[int, str]
    dates: dict[int, str]
    listed: str | None
    found_only: bool
    long: bool
    visit: str | None
    left: list[str]

    @property
    def columns(self) -> list[str]:
        """What has to be read."""
        groups = (
            self.keys.values(),
            *self.known.values(),
            self.plain,
            self.codes.values(),
            self.dates.values(),
        )
        single = [name for name in (self.listed, self.visit) if name is not None]
        return list(dict.fromkeys([*(name for group in groups for name in group), *single]))


def layout_of(path: Path, visit: int, lists: str) -> Layout:
    """What the columns of a file mean; `visit` and `lists` as in `read`."""
    names = tables.names(path)
    keys = _key_columns(path, names)
    rest = [name for name in names if name not in (*keys.values(), *UNNAMED)]
    fields = {name: column for name in rest if (column := ukbb_tables.column(name))}
    known: dict[str, list[str]] = {}
    for name in sorted(
        rest, key=lambda n: fields[n].field != 50 if n in fields else False
    ):  # 50 before 12144
        if meaning := _meaning(path, name, fields.get(name), visit):
            known.setdefault(meaning, []).append(name)
    ours = {name for group in known.values() for name in group}
    arrays = {
        wanted: {
            c.array: name for name, c in fields.items() if c.field == wanted and c.array is not None
        }
        for wanted in (ukbb_tables.CODES, ukbb_tables.DATES)
    }
    codes, dates = arrays[ukbb_tables.CODES], arrays[ukbb_tables.DATES]
    whole = [name for name, c in fields.items() if c.field == ukbb_tables.CODES and c.array is None]
    listed = next((name for name in (*whole, lists) if name in rest), None)
    attended = (n for n, c in fields.items() if (c.field, c.instance) == (ukbb_tables.VISIT, visit))
    day = "visit_date" if "visit_date" in rest else next(attended, None)
    long = "icd10" in rest
    if dates and not codes and not listed:
        raise InputError(
            f"{path}: dates of diagnoses (field 41280) without their codes (41270); export both together"
        )
    if long:
        codes, dates = {0: "icd10"}, {0: "date"} if "date" in rest else {}
        known, ours, listed = {}, set(), None
    taken = {*ours, *codes.values(), *dates.values(), listed, day}
    others = [name for name in rest if name not in taken]
    plain = (
        []
        if long
        else [
            name for name in others if name not in fields and not re.search(r"(^|_)id$", name, re.I)
        ]
    )
    left = [name for name in others if name not in plain]
    return Layout(
        keys, known, plain, codes, dates, listed, bool(listed and not whole), long, day, left
    )


def _key_columns(path: Path, names: Sequence[str]) -> dict[str, str]:
    keys: dict[str, str] = {}
    for unit, spellings in KEYS.items():
        found = [name for name in spellings if name in names]
        if len(found) > 1:
            raise InputError(
                f"{path}: columns '{found[0]}' and '{found[1]}' both name the {unit}; keep one"
            )
        if found:
            keys[unit] = found[0]
    unnamed = next((name for name in UNNAMED if name in names), None)
    if (
        not keys
        and unnamed is not None
        and any(re.fullmatch(r"\w+ \(.+\)", name) for name in names)
    ):
        return {
            "subject": unnamed,
            "cmr": unnamed,
        }  # ukbb_cardiac: the folder of the person's stack
    if not keys:
        raise InputError(
            f"{path}: no column 'subject', 'eid', 'ecg', 'record' or 'cmr' to join on; it has {_some(names)}"
        )
    return keys


def _meaning(path: Path, name: str, column: ukbb_tables.Column | None, visit: int) -> str | None:
    """The cohort's column that a file's column holds, if it is one of known meaning."""
    if column:
        mine = column.field in ukbb_tables.ONCE or column.instance == visit
        return ukbb_tables.FIELDS.get(column.field) if mine else None
    if measured := re.fullmatch(r"(\w+) \((.+)\)", name):
        quantity, unit = measured.groups()
        if quantity in tasks.UNITS and unit.lower() != tasks.UNITS[quantity].lower():
            raise InputError(
                f"{path}: column '{name}' is in {unit}; {quantity} is wanted in {tasks.UNITS[quantity]}"
            )
        return quantity if quantity in tasks.UNITS else None
    if name == "gender":
        return "sex"
    return name if name in KNOWN else None


# -- reading a file ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """What a file, or a piece of one, says row by row.

    Attributes:
        path: of the file.
        keys: "subject", "ecg", "cmr" -> (n,) keys, "" for none.
        numbers: column of a cohort -> (n,) numbers, NaN for unknown.
        visits: (n,) days, or None.
        diagnoses: `row`, `code`, `date` of the codes that are asked for; None if the file has no codes.
        covered: (n,) whether the absence of a code says that there was no such diagnosis.
        entries, wrong: codes read, and how many of them are no ICD-10 codes.
        latest: date of any code, NaT without dates.
        long: the file has a line for each code.
    """

    path: Path
    keys: dict[str, np.ndarray]
    numbers: dict[str, np.ndarray]
    visits: np.ndarray | None
    diagnoses: pd.DataFrame | None
    covered: np.ndarray
    entries: int = 0
    wrong: int = 0
    latest: Any = pd.NaT
    long: bool = False

    @property
    def units(self) -> tuple[str, ...]:
        """Whom its rows speak of: recordings where it names them, else people; ukbb_cardiac's id may be either."""
        if len(self.keys) == 2 and self.keys.get("cmr") is self.keys.get("subject"):
            return ("subject", "cmr")
        return tuple(unit for unit in ("ecg", "cmr") if unit in self.keys) or ("subject",)

    def frame(self, unit: str) -> pd.DataFrame:
        """The numbers by key of a unit; of a key that stands twice (a CMR with two ECGs) the last row."""
        frame = pd.DataFrame(
            self.numbers, index=pd.Index(self.keys[unit], dtype=object), dtype=np.float64
        )
        return frame[(frame.index != "") & ~frame.index.duplicated(keep="last")]


def read(path: Path, prefixes: tuple[str, ...], visit: int, lists: str) -> Part:
    """Read one file.

    Args:
        path: CSV, tab-separated or Parquet.
        prefixes: of the ICD-10 codes that are asked for, without dots.
        visit: UK Biobank's instance.
        lists: column with a list of codes in each cell.

    Raises:
        InputError: it is unreadable, without a key column, with a key twice, without a column to take, or in another unit.
    """
    layout = layout_of(path, visit, lists)
    plain = list(layout.plain)
    pieces: list[Part] = []
    for cells in tables.pieces(path, layout.columns):
        try:
            pieces.append(_piece(path, layout, cells, plain, prefixes))
        except (
            pa.ArrowException
        ) as error:  # a Parquet column of a kind that no key, number, date or code has
            raise tables.refusal(path, error) from error
        plain = [name for name in plain if name in pieces[-1].numbers]
    if not pieces:
        raise InputError(f"{path}: no rows below the names of the columns")
    kept = [*layout.known, *plain]
    part = _joined(path, pieces, kept, layout.long)
    part = _by_key(part) if layout.long else part
    _check_keys(part)
    left = [*layout.left, *(name for name in layout.plain if name not in part.numbers)]
    if left:
        log.warning("%s: left out, neither 0/1 nor a known number: %s", path.name, _some(left))
    if left and not part.numbers and part.visits is None and part.diagnoses is None:
        raise InputError(
            f"{path}: no column of 0/1 labels, demographics or phenotypes; it has {_some(left)}"
        )
    if part.wrong * 2 > part.entries:
        raise InputError(
            f"{path}: {part.wrong:,} of {part.entries:,} entries are no ICD-10 codes such as I251 or I25.1"
        )
    return part


def _piece(
    path: Path,
    layout: Layout,
    cells: pa.RecordBatch,
    plain: Sequence[str],
    prefixes: tuple[str, ...],
) -> Part:
    keys = {name: _keys(cells[name]) for name in dict.fromkeys(layout.keys.values())}
    numbers = {
        name: _number(path, name, [cells[c] for c in columns])
        for name, columns in layout.known.items()
    }
    flags = {name: _flag(cells[name]) for name in plain}
    has_codes = bool(layout.codes or layout.listed)
    words, rows, dates, unlisted = _entries(path, layout, cells)
    diagnoses, wrong = _wanted(words, rows, dates, prefixes)
    covered = has_codes & ~unlisted
    if layout.found_only:
        covered &= np.bincount(rows, minlength=cells.num_rows) > 0
    return Part(
        path,
        {unit: keys[name] for unit, name in layout.keys.items()},
        numbers | {name: flag for name, flag in flags.items() if flag is not None},
        _days(path, cells, layout.visit) if layout.visit else None,
        diagnoses if has_codes else None,
        covered,
        len(words) + int(unlisted.sum()),
        wrong + int(unlisted.sum()),
        pd.Series(dates).max(),
    )


def _joined(path: Path, read: Sequence[Part], columns: Sequence[str], long: bool) -> Part:
    """The pieces of a file as one; columns of known meaning are checked, columns that are blank throughout are dropped."""
    numbers = {
        name: _checked(path, name, np.concatenate([p.numbers[name] for p in read]))
        for name in columns
    }
    starts = np.cumsum([0, *(len(p.covered) for p in read[:-1])])
    shared: dict[int, np.ndarray] = {}  # ukbb_cardiac's one column is two keys
    keys = {
        u: shared.setdefault(id(k), np.concatenate([p.keys[u] for p in read]))
        for u, k in read[0].keys.items()
    }
    told = [
        p.diagnoses.assign(row=p.diagnoses["row"] + at)
        for p, at in zip(read, starts)
        if p.diagnoses is not None
    ]
    return Part(
        path,
        keys,
        {name: values for name, values in numbers.items() if not np.isnan(values).all()},
        np.concatenate([p.visits for p in read if p.visits is not None])
        if read[0].visits is not None
        else None,
        pd.concat(told, ignore_index=True) if told else None,
        np.concatenate([p.covered for p in read]),
        sum(p.entries for p in read),
        sum(p.wrong for p in read),
        pd.Series([p.latest for p in read], dtype="datetime64[s]").max(),
        long,
    )


def _by_key(part: Part) -> Part:
    """A file with a line for each code, as one row for each key."""
    (unit,) = part.units[:1]
    row, names = pd.factorize(part.keys[unit])
    assert part.diagnoses is not None
    visits = None
    if part.visits is not None:
        days = pd.Series(part.visits).groupby(row)
        several = int((days.nunique() > 1).sum())
        if several:
            raise InputError(
                f"{part.path}: visit_date: {several:,} keys have more than one; give each its own line of visit"
            )
        visits = days.first().to_numpy("datetime64[D]")
    diagnoses = part.diagnoses.assign(row=row[part.diagnoses["row"]])
    covered = np.ones(len(names), bool)
    return Part(
        part.path,
        {unit: names},
        {},
        visits,
        diagnoses,
        covered,
        part.entries,
        part.wrong,
        part.latest,
        long=True,
    )


def _check_keys(part: Part) -> None:
    keys = pd.Series(part.keys[part.units[0]], dtype=object)
    twice = int(keys[keys.ne("") & keys.duplicated()].nunique())
    if twice:
        raise InputError(
            f"{part.path}: {part.units[0]}: {twice:,} of the keys stand in more than one line; keep one line for each"
        )


# -- cells -------------------------------------------------------------------------------------------------------------


def _keys(cells: pa.Array) -> np.ndarray:
    """A recording's key from what a labels file calls it: `records/A0001.hea` is `A0001`."""
    return np.array([_key(text) for text in tables.keys(cells)], dtype=object)


def _key(text: str) -> str:
    name = text.rpartition("/")[2]
    for end in (".gz", ".nii", ".hea", ".mat", ".dat", ".dcm"):
        name = name.removesuffix(end)
    return name


def _number(path: Path, name: str, columns: Sequence[pa.Array]) -> np.ndarray:
    """Numbers of known meaning; the first column that knows a row's is taken."""
    found = np.full(len(columns[0]), np.nan)
    for cells in columns:
        values = _sex(path, cells) if name == "sex" else tables.numbers(cells)[0]
        found = np.where(np.isnan(found), values, found)
    return found


def _sex(path: Path, cells: pa.Array) -> np.ndarray:
    codes, words = pd.factorize(tables.keys(cells))
    strange = [
        word for word in words if word.lower() not in SEXES and re.fullmatch(r"-?\d+(\.\d+)?", word)
    ]
    if strange:
        raise InputError(
            f"{path}: sex: {len(strange)} numbers other than 0 and 1; write 0 or F for women, 1 or M for men"
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
    values, failed = tables.numbers(cells)
    return values if not failed and np.isin(values[~np.isnan(values)], (0.0, 1.0)).all() else None


def _checked(path: Path, name: str, values: np.ndarray) -> np.ndarray:
    """Values outside what is possible become unknown.

    Raises:
        InputError: the median is that of another unit.
    """
    if name not in LIMITS:
        return values
    low, high, least, most = LIMITS[name]
    closed = name in BODY
    good = (values >= low) & (values <= high) if closed else (values > low) & (values < high)
    known = ~np.isnan(values)
    if (known & ~good).any():
        log.warning(
            "%s: %s: %d values outside %g to %g count as unknown",
            path.name,
            name,
            (known & ~good).sum(),
            low,
            high,
        )
    median = float(np.median(values[known & good])) if (known & good).any() else np.nan
    if known.any() and not least <= median <= most:
        said = (
            f"the median is {median:.3g}"
            if median == median
            else f"no value lies between {low:g} and {high:g}"
        )
        raise InputError(
            f"{path}: {name}: {said}, expected {least:g} to {most:g} {UNITS[name]}; is it in another unit?"
        )
    return np.where(good, values, np.nan)


def _days(path: Path, cells: pa.RecordBatch, name: str) -> np.ndarray:
    days, failed = tables.days(cells[name])
    if failed:
        raise InputError(
            f"{path}: column '{name}' holds {failed:,} entries that are no dates such as 2019-11-26"
        )
    days[np.isin(days, np.array(icd10.NO_DATES, "datetime64[D]"))] = np.datetime64("NaT")
    return days


def _entries(
    path: Path, layout: Layout, cells: pa.RecordBatch
) -> tuple[pa.Array, np.ndarray, np.ndarray, np.ndarray]:
    """Every code of a piece, with its row and the date of the same array index; then (n,) which cells are no list."""
    if layout.listed:
        words, rows, places, wrong = tables.lists(cells[layout.listed])
        dates = np.full(len(rows), "NaT", "datetime64[D]")
        for place in set(places.tolist()) & layout.dates.keys():
            here = places == place
            dates[here] = _days(path, cells, layout.dates[place])[rows[here]]
        return words, rows, dates, wrong
    found, at, when = [], [], []
    for place, name in layout.codes.items():
        text = tables.text(cells[name])
        rows = np.flatnonzero(text.is_valid().to_numpy(zero_copy_only=False))
        if not len(rows):
            continue
        found.append(text.drop_null())
        at.append(rows)
        dates = np.full(len(rows), "NaT", "datetime64[D]")
        if place in layout.dates:
            dates = _days(
                path, cells.select([layout.dates[place]]).take(pa.array(rows)), layout.dates[place]
            )
        when.append(dates)
    none = np.zeros(cells.num_rows, bool)
    if not found:
        return pa.array([], pa.string()), np.zeros(0, np.int64), np.zeros(0, "datetime64[D]"), none
    return pa.concat_arrays(found), np.concatenate(at), np.concatenate(when), none


def _wanted(
    words: pa.Array, rows: np.ndarray, dates: np.ndarray, prefixes: tuple[str, ...]
) -> tuple[pd.DataFrame, int]:
    """The diagnoses that are asked for, and how many words are no codes."""
    coded = words.dictionary_encode()
    codes = np.array(
        [icd10.clean(word or "") for word in coded.dictionary.to_pylist()], dtype=object
    )
    index = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    known = np.array([code is not None for code in codes] + [False])  # the last stands for null
    asked = np.array([code is not None and code.startswith(prefixes) for code in codes] + [False])
    hits = asked[index]
    taken = {
        "row": rows[hits],
        "code": codes[index[hits]] if hits.any() else [],
        "date": dates[hits],
    }
    return pd.DataFrame(taken).astype({"code": object, "date": "datetime64[s]"}), int(
        (~known[index]).sum()
    )


def _some(names: Iterable[Any]) -> str:
    words = [str(name) for name in names]
    return ", ".join(words[:8]) + (f" … ({len(words)} columns)" if len(words) > 8 else "")
