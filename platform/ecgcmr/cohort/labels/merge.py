"""Labels: diseases from ICD-10 codes, phenotypes, demographics and 0/1 columns, by person or by
recording.

The one idea: whatever a file looks like, `label_file` makes numbers by key of it and triples (key,
code, date). Here files are merged, diseases follow from the triples, and an audit says what was
counted. docs/labels.md has the rules.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ecgcmr import files
from ecgcmr.cohort.labels import icd10, label_file, ukbb_tables
from ecgcmr.cohort.labels.definitions import Disease, titled
from ecgcmr.cohort.labels.label_file import KEYS, LabelFile, Section
from ecgcmr.cohort.labels.numbers import (
    ALWAYS,
    UNKNOWN,
    UNSTATED,
    Column,
    Numbers,
    Table,
    from_flags,
    to_flags,
)
from ecgcmr.cohort.labels.rules import Rules, rules
from ecgcmr.cohort.labels.sources import SOURCES
from ecgcmr.errors import InputError

__all__ = ["Rules", "rules"]

SMALL = 5  # people; a smaller number is not shown
SHAPES = 8  # of entries that could not be read, in the audit
PIECE = 8192  # rows of a table that are looked at or written at once
ANY = UNSTATED  # of `Labels.by_visit`: what a recording has whose visit nobody stated


@dataclass(frozen=True)
class Labels:
    """What the labels files say: numbers by ECG, by CMR or by person, who belongs to whom, and how
    it was counted.

    `by_person` is of the visit that was asked for, `by_visit` of each that something is stated for,
    and at "" whatever the visit. `keys` are those of each file, by unit.
    """

    by_ecg: Mapping[str, Mapping[str, float]] | None = None
    by_cmr: Mapping[str, Mapping[str, float]] | None = None
    by_person: Mapping[str, Mapping[str, float]] | None = None
    by_visit: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)
    visit: str = "2"
    person_of_ecg: Mapping[str, str] | None = None
    person_of_cmr: Mapping[str, str] | None = None
    ecg_of_cmr: Mapping[str, str] | None = None
    keys: Mapping[str, Sequence[Mapping[str, np.ndarray]]] = field(default_factory=dict)
    audit: Mapping[str, Any] = field(default_factory=dict)

    @property
    def columns(self) -> set[str]:
        """Every column of which somebody has a number."""
        return {name for unit in self.audit.get("columns", {}).values() for name in unit["columns"]}

    def of_person(self, person: str, visit: str | None, *, is_sole: bool) -> Mapping[str, float]:
        """The numbers of a person at a visit.

        Args:
            person: their name.
            visit: of the recordings, None where they state none.
            is_sole: no other recordings of the person may be of the visit that was asked for; of
                several nobody knows which are.
        """
        if self.by_person is None:
            return {}
        if visit == self.visit or (visit is None and is_sole) or not self.by_visit:
            return self.by_person.get(person, {})
        name = ANY if visit is None else visit
        return self.by_visit.get(name, self.by_visit[ALWAYS]).get(person, {})


def read_labels(paths: Sequence[Path], rules: Rules | None = None) -> Labels:
    """Read labels files and merge them.

    Args:
        paths: CSV, tab-separated or Parquet files; none gives empty labels.
        rules: how.

    Raises:
        InputError: a file is unreadable, without a key column, with a key twice, or without a
            column to read; a column is in another unit; two files disagree; a code that was asked
            for matches nobody.
    """
    rules = rules or Rules()
    if not paths and rules.asked_for:
        raise InputError(f"{rules.asked_for[0].place}: no table of labels to find it in; name one")
    if not paths:
        return Labels()
    names = [disease.name for disease in rules.diseases]
    stays = _stays(paths)
    label_files = [
        label_file.read(path, rules.prefixes, rules.visit, rules.codes, names, stays)
        for path in paths
        if not label_file.is_episodes(path)
    ]
    sections = [section for file in label_files for section in file.sections]
    keys = {file.path.name: list(file.keys()) for file in label_files}
    links = {
        (of, to): _links(sections, of, to)
        for of, to in (("ecg", "subject"), ("cmr", "subject"), ("cmr", "ecg"))
    }
    asked_visit = str(rules.visit)
    onsets, audit = _onsets(label_files, rules)
    unread = _unread(label_files)
    del label_files  # a table of a unit takes the place of the files
    tables = {unit: _merged(unit, sections, onsets.get(unit), asked_visit) for unit in KEYS}
    numbers = {unit: Numbers(table) for unit, table in tables.items() if table is not None}
    people = numbers.get("subject")
    views = {unit: _view(unit, table, asked_visit) for unit, table in numbers.items()}
    columns = {unit: _counts(view) for unit, view in views.items()}
    by_visit = {}
    if people:
        by_visit = {visit: people.at(ALWAYS, visit) for visit in people.table.visits}
        by_visit |= {ALWAYS: people.at(ALWAYS), ANY: people.at(ALWAYS, UNSTATED)}
        columns |= {
            f"subject at visit {visit}": _counts(people.at(visit))
            for visit in people.table.visits
            if visit != asked_visit
        }
    return Labels(
        by_ecg=numbers.get("ecg"),
        by_cmr=numbers.get("cmr"),
        by_person=views.get("subject"),
        by_visit=by_visit,
        visit=asked_visit,
        person_of_ecg=links["ecg", "subject"],
        person_of_cmr=links["cmr", "subject"],
        ecg_of_cmr=links["cmr", "ecg"],
        keys=keys,
        audit={
            "files": [path.name for path in paths],
            "columns": columns,
            **({"icd10": audit} if audit else {}),
            **unread,
        },
    )


def _stays(paths: Sequence[Path]) -> pd.Series | None:
    """The days of hospital stays, of the files that hold them (UK Biobank's `hesin`).

    Raises:
        InputError: there is nothing beside them.
    """
    with_stays = [path for path in paths if label_file.is_episodes(path)]
    if len(with_stays) == len(paths):
        raise InputError(
            f"{with_stays[0]}: hospital stays without their codes; give hesin_diag beside it"
        )
    return pd.concat(map(label_file.episode_days, with_stays)) if with_stays else None


def _view(unit: str, numbers: Numbers, asked: str) -> Numbers:
    return numbers.at(ALWAYS, UNSTATED, asked) if unit == "subject" else numbers


def _unread(label_files: Sequence[LabelFile]) -> dict[str, Any]:
    """What of the files was not taken: columns by name, and entries that are no numbers."""
    columns = {file.path.name: file.account.unread for file in label_files if file.account.unread}
    numbers = [
        {"file": file.path.name, "column": name, "of": n, "shapes": dict(shapes.most_common())}
        for file in label_files
        for name, (n, shapes) in file.account.numbers.items()
        if shapes
    ]
    return {
        **({"unread": columns} if columns else {}),
        **({"no_numbers": numbers} if numbers else {}),
    }


# -- diseases --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Onset:
    """A disease by person.

    Attributes:
        has: 1 for ever, 0 for never, NaN where an entry may be of it and could not be read.
        first: day of the first dated code.
        unclear: whether an entry may be of it.
    """

    has: pd.Series
    first: pd.Series
    unclear: pd.Series

    def at(self, visits: pd.Series, end: Any) -> dict[str, pd.Series]:
        """Had by the visit (`_past`), and first after it (`_future`).

        Who has it by the visit cannot get it any more, so the future is unknown then, as it is
        without a visit, without a date of any of the codes, and for a visit at or after the end of
        the records.
        """
        has = self.has == 1
        by_visit = has & (self.first <= visits)
        unknown = visits.isna() | (has & self.first.isna()) | (self.unclear & ~by_visit)
        past = by_visit.astype(float).mask(unknown)
        future = (has & (self.first > visits)).astype(float).mask(unknown | (past == 1))
        if end == end:
            future = future.mask((future == 0) & (visits >= end))
        return {"_past": past, "_future": future}


def _onsets(
    label_files: Sequence[LabelFile], rules: Rules
) -> tuple[dict[str, dict[Column, pd.Series]], dict[str, Any]]:
    """Diseases by unit, from the codes of all files, and their audit; nothing where no file has
    codes.

    Raises:
        InputError: a disease is asked for and there are no codes, or nobody has one of its codes;
            files disagree on visits.
    """
    sections = [section for file in label_files for section in file.sections]
    with_codes = [section for section in sections if section.diagnoses is not None]
    if not with_codes:
        if rules.asked_for:
            raise InputError(
                f"{rules.asked_for[0].place}: none of the labels files holds ICD-10 codes"
            )
        return {}, {}
    units = {section.units[0] for section in with_codes}
    if len(units) > 1:
        raise InputError(
            f"ICD-10 codes by {' and by '.join(sorted(units))}: "
            "give files that speak of one of them"
        )
    (unit,) = units
    of_unit = [section for section in sections if section.units[0] == unit]
    people = _counted(of_unit, unit)
    visits = {
        visit: days.reindex(people) for visit, days in _visits(of_unit, unit, rules.visit).items()
    }
    main = visits.get(
        str(rules.visit) if unit == "subject" else ALWAYS,
        pd.Series(np.datetime64("NaT"), people, dtype="datetime64[s]"),
    )
    diagnoses = pd.concat([_by_person(section, unit) for section in with_codes], ignore_index=True)
    unclear = pd.concat([_doubts(section, unit) for section in with_codes], ignore_index=True)
    latest = pd.Series([file.account.latest for file in label_files], dtype="datetime64[s]").max()
    end = pd.Timestamp(rules.censored) if rules.censored else latest
    late = diagnoses["date"] > end
    diagnoses = diagnoses[~late]
    has_dates = bool(diagnoses["date"].notna().any())
    split = bool(main.notna().any() and has_dates)
    columns: dict[Column, pd.Series] = {}
    accounts = {}
    for disease in rules.diseases:
        disease_rows = diagnoses[_is_of(disease, diagnoses)]
        onset = _onset(disease_rows, people, _doubtful(disease, unclear))
        columns[Column(disease.name)] = onset.has
        times = onset.at(main, end)
        for visit, days in visits.items():
            if has_dates and days.notna().any():
                columns |= {
                    Column(disease.name + ending, visit): values
                    for ending, values in onset.at(days, end).items()
                }
        accounts[disease.name] = _account(disease, disease_rows, onset, times, main, split)
    _refuse_unmatched(rules, accounts)
    audit = {
        "of": "people" if unit == "subject" else "recordings",
        "n": len(people),
        "visit": rules.visit,
        "visited": int(main.notna().sum()),
        "end": None if pd.isna(end) else end.date().isoformat(),
        "end_is": "as asked" if rules.censored else "the latest date of any code",
        "after_end": int(late.sum()),
        **_account_of_entries(label_files),
        "unclear": int(pd.Index(unclear["key"]).nunique()),
        "split": split,
        "diseases": accounts,
    }
    return {unit: columns}, audit


def _account_of_entries(label_files: Sequence[LabelFile]) -> dict[str, Any]:
    """How many entries the files hold where codes belong, and what those that are none look like."""
    accounts = [file.account for file in label_files]
    shapes = sum((account.shapes for account in accounts), Counter[str]())
    return {
        "entries": sum(account.n_entries for account in accounts),
        "no_codes": sum(shapes.values()),
        "shapes": dict(shapes.most_common()),
    }


def _counted(sections: Sequence[Section], unit: str) -> pd.Index:
    """Whose disease is known where no code says so, or of whom a code or a doubt is known.

    Raises:
        InputError: a file of visits shares nobody with the codes.
    """
    with_codes = [section for section in sections if section.diagnoses is not None]
    with_code = _union(
        [section.keys[unit][section.complete | _has_row(section)] for section in with_codes]
    )
    if not any(section.is_long for section in with_codes):
        return with_code
    of_visits = [s for s in sections if s.diagnoses is None and s.dates]
    for section in of_visits:
        if not pd.Index(section.keys[unit]).isin(with_code).any():
            raise InputError(
                f"{section.path}: none of its {len(section.keys[unit]):,} keys has a line of "
                "codes; are they written otherwise, or of another data set?"
            )
    return _union([with_code.to_numpy(), *(section.keys[unit] for section in of_visits)])


def _has_row(section: Section) -> np.ndarray:
    """(n,) whether a row has a code or a doubt."""
    assert section.diagnoses is not None
    has_row = np.zeros(len(section.complete), bool)
    for frame in (section.diagnoses.codes, section.diagnoses.doubts):
        has_row[frame["row"].to_numpy(np.int64)] = True
    return has_row


def _union(keys: Sequence[np.ndarray]) -> pd.Index:
    """Keys in the order of their first appearance."""
    distinct_keys = pd.unique(np.concatenate(keys))
    return pd.Index(distinct_keys[distinct_keys != ""], dtype=object)


def _visits(sections: Sequence[Section], unit: str, asked: int) -> dict[str, pd.Series]:
    """Day of each visit by key; files that disagree are refused.

    A day of a visit that nobody stated is that of the visit asked for.
    """
    visits: dict[str, pd.Series] = {}
    for section in sections:
        keys = pd.Index(section.keys[unit], dtype=object)
        for name, values in section.dates.items():
            visit = ALWAYS if unit != "subject" else str(asked) if name == UNSTATED else name
            days = pd.Series(values.astype("datetime64[s]"), index=keys).dropna()
            days = days[days.index != ""]
            if (earlier := visits.get(visit)) is not None:
                in_both = days.index.intersection(earlier.index)
                clash = int((days[in_both] != earlier[in_both]).sum())
                _refuse_disagreement(section.path, None, "the visit's date", clash)
                days = pd.concat([earlier, days.drop(in_both)])
            visits[visit] = days
    return visits


def _by_person(section: Section, unit: str) -> pd.DataFrame:
    assert section.diagnoses is not None
    codes = section.diagnoses.codes
    keys = section.keys[unit][codes["row"].to_numpy(np.int64)]
    return codes.assign(key=keys).drop(columns="row")[keys != ""]


def _doubts(section: Section, unit: str) -> pd.DataFrame:
    assert section.diagnoses is not None
    doubts = section.diagnoses.doubts
    keys = section.keys[unit][doubts["row"].to_numpy(np.int64)]
    return doubts.assign(key=keys).drop(columns="row")[keys != ""]


def _is_of(disease: Disease, diagnoses: pd.DataFrame) -> np.ndarray:
    """(n,) which diagnoses are of the disease, source by source."""
    is_of = np.zeros(len(diagnoses), bool)
    for source in disease.codes:
        prefixes = tuple(disease.prefixes(source))
        of_source = diagnoses["source"].eq(source).to_numpy()
        distinct_codes = diagnoses["code"][of_source].unique()
        codes = [code for code in distinct_codes if SOURCES[source].matches(code, prefixes)]
        is_of |= of_source & diagnoses["code"].isin(codes).to_numpy()
    return is_of


def _doubtful(disease: Disease, unclear: pd.DataFrame) -> set[str]:
    """The people who have an entry that may be of the disease."""
    keys: set[str] = set()
    for source in disease.codes:
        prefixes = tuple(disease.prefixes(source))
        of_source = unclear[unclear["source"] == source]
        stems = [stem for stem in of_source["stem"].unique() if icd10.could_be(stem, prefixes)]
        keys |= set(of_source["key"][of_source["stem"].isin(stems)])
    return keys


def _onset(diagnoses: pd.DataFrame, people: pd.Index, doubtful: set[str]) -> Onset:
    has = pd.Series(people.isin(diagnoses["key"]), index=people)
    unclear = pd.Series(people.isin(doubtful), index=people)
    first = diagnoses.dropna(subset=["date"]).groupby("key")["date"].min().reindex(people)
    return Onset(has.astype(float).mask(unclear & ~has), first, unclear)


def _account(
    disease: Disease,
    diagnoses: pd.DataFrame,
    onset: Onset,
    times: Mapping[str, pd.Series],
    visits: pd.Series,
    split: bool,
) -> dict[str, Any]:
    """How many have a disease, since when, and by which codes."""
    has = onset.has == 1
    account: dict[str, Any] = {"codes": list(disease.words), "n": int(has.sum())}
    account["unclear"] = int(onset.has.isna().sum())
    if split:
        has_visit = has & visits.notna()
        account |= {
            "past": int((times["_past"] == 1).sum()),
            "future": int((times["_future"] == 1).sum()),
            "undated": int((has_visit & onset.first.isna()).sum()),
            "unvisited": int((has & visits.isna()).sum()),
        }
    return account | _account_of_codes(disease, diagnoses)


def _account_of_codes(disease: Disease, diagnoses: pd.DataFrame) -> dict[str, Any]:
    """People by source and by code, and what of the definition nobody has."""
    by_code: dict[str, int] = {}
    by_source: dict[str, int] = {}
    nobody: list[str] = []
    unmatched: list[str] = []
    for name in disease.codes:
        source, of_source = SOURCES[name], diagnoses[diagnoses["source"] == name]
        codes, keys = of_source["code"].astype(str), of_source["key"]
        by_source[name] = int(keys.nunique())
        lengths = (None,) if source.whole else (3, 4)
        for length in lengths:
            beginnings = codes.str[:length][codes.str.len() >= (length or 0)]
            by_code |= {
                titled(name, source.spelling(str(code))): int(n)
                for code, n in keys.groupby(beginnings).nunique().items()
            }
        prefixes, distinct_codes = disease.prefixes(name), set(codes)
        missing = [
            prefix
            for prefix in prefixes
            if not any(source.matches(code, (prefix,)) for code in distinct_codes)
        ]
        nobody += [titled(name, source.spelling(prefix)) for prefix in missing]
        matched_words = {word for prefix, word in prefixes.items() if prefix not in missing}
        unmatched += [
            titled(name, word) for word in disease.codes[name] if word not in matched_words
        ]
    return {"by_source": by_source, "by_code": by_code, "nobody": nobody, "unmatched": unmatched}


def _refuse_unmatched(rules: Rules, accounts: Mapping[str, Mapping[str, Any]]) -> None:
    for disease in rules.asked_for:
        words = accounts[disease.name]["unmatched"]
        if words and not rules.allow_empty:
            raise InputError(
                f"{disease.place}: {', '.join(words)} matches nobody; "
                "correct it, or add --allow-empty if that may be"
            )


# -- merging ---------------------------------------------------------------------------------------


def _merged(
    unit: str,
    sections: Sequence[Section],
    onsets: Mapping[Column, pd.Series] | None,
    asked: str,
) -> Table | None:
    """All that the files know of a unit, in the order in which its keys appear.

    None where they know nothing.
    """
    of_unit = [section for section in sections if unit in section.units]
    if not of_unit:
        return None
    index = _union([section.keys[unit] for section in of_unit])
    merger = Merger(index, asked if unit == "subject" else ALWAYS)
    for section in of_unit:
        rows = index.get_indexer(pd.Index(section.keys[unit], dtype=object))
        rows, lines = rows[rows >= 0], np.flatnonzero(rows >= 0)
        for column, values in section.numbers.items():
            merger.add(_of_unit(unit, column), rows, values[lines], section.path.name)
        merger.add_flags(section, unit)
    for column, series in (onsets or {}).items():
        rows = index.get_indexer(series.index)
        merger.add(column, rows, series.to_numpy(np.float64), "the ICD-10 codes")
    return merger.table()


def _of_unit(unit: str, column: Column) -> Column:
    return column if unit == "subject" else Column(column.name)


class Merger:
    """Columns of several files as one table; where two know different values, that is refused.

    Args:
        index: the keys.
        asked: the visit that a value of an unstated one has to agree with.
    """

    def __init__(self, index: pd.Index, asked: str) -> None:
        self.index, self.asked = index, asked
        self.numbers: dict[Column, np.ndarray] = {}
        self.flag_places: dict[Column, int] = {}
        self.flags = np.zeros((len(index), 0), np.int8)
        self.source: dict[str, str] = {}

    def add(self, column: Column, rows: np.ndarray, values: np.ndarray, source: str) -> None:
        """Add values of some rows, float64 with NaN."""
        for rival in self._rivals(column):
            old = self._values(rival, rows)
            clash = ~np.isnan(old) & ~np.isnan(values) & ~np.isclose(old, values, rtol=1e-6)
            first = self.source.get(column.name, source)
            _refuse_disagreement(first, source, column.name, int(clash.sum()))
        self.source.setdefault(column.name, source)
        if column in self.flag_places:
            at = self.flag_places[column]
            old = self.flags[rows, at]
            self.flags[rows, at] = np.where(old == UNKNOWN, to_flags(values), old)
            return
        values_of_all = self.numbers.setdefault(column, np.full(len(self.index), np.nan))
        old = values_of_all[rows]
        values_of_all[rows] = np.where(np.isnan(old), values, old)

    def _rivals(self, column: Column) -> list[Column]:
        """The columns that speak of the same: of this visit, and of the one that was asked for."""
        visits = {column.visit}
        if column.visit in (UNSTATED, self.asked):
            visits = {UNSTATED, self.asked}
        columns = [Column(column.name, visit) for visit in sorted(visits)]
        return [name for name in columns if name in self.numbers or name in self.flag_places]

    def _values(self, column: Column, rows: np.ndarray) -> np.ndarray:
        if column in self.numbers:
            return self.numbers[column][rows]
        return from_flags(self.flags[rows, self.flag_places[column]])

    def add_flags(self, section: Section, unit: str) -> None:
        """Add a section's columns of 0 and 1; their memory is used on where it can be."""
        columns = [_of_unit(unit, column) for column in section.flag_columns]
        rows = self.index.get_indexer(pd.Index(section.keys[unit], dtype=object))
        lines, rows = np.flatnonzero(rows >= 0), rows[rows >= 0]
        is_new = np.array([not self._rivals(column) for column in columns], bool)
        for at in np.flatnonzero(~is_new):
            self.add(columns[at], rows, from_flags(section.flags[lines, at]), section.path.name)
        new_columns = [columns[at] for at in np.flatnonzero(is_new)]
        if not new_columns:
            return
        is_same = len(rows) == len(self.index) == len(section.flags)
        is_whole = is_same and (rows == np.arange(len(rows))).all()
        if is_whole and not self.flag_places and is_new.all():
            self.flags = section.flags
        else:
            new = np.full((len(self.index), len(new_columns)), UNKNOWN, np.int8)
            new[rows] = section.flags[np.ix_(lines, np.flatnonzero(is_new))]
            self.flags = np.concatenate([self.flags, new], axis=1) if self.flag_places else new
        for column in new_columns:
            self.flag_places[column] = len(self.flag_places)
            self.source.setdefault(column.name, section.path.name)

    def table(self) -> Table:
        """What has come together."""
        columns = tuple(self.numbers)
        values = np.full((len(self.index), len(columns)), np.nan)
        for at, column in enumerate(columns):
            values[:, at] = self.numbers[column]
        return Table(self.index, columns, values, tuple(self.flag_places), self.flags)


def _links(sections: Sequence[Section], of: str, to: str) -> dict[str, str] | None:
    """Key of one unit -> key of another, where a file names both."""
    links: dict[str, str] = {}
    with_both = [
        section for section in sections if {of, to} <= section.keys.keys() and not section.is_dual
    ]
    for section in with_both:
        new = {k: v for k, v in zip(section.keys[of], section.keys[to], strict=True) if k and v}
        clash = sum(links.get(k, v) != v for k, v in new.items())
        _refuse_disagreement(section.path, None, f"the {to} of an {of}", clash)
        links |= new
    return links if with_both else None


def _refuse_disagreement(source: object, other_source: object, column: str, people: int) -> None:
    if people:
        has_other = other_source and other_source != source
        files = f"{source} and {other_source if has_other else 'an earlier line or file'}"
        raise InputError(
            f"{files} disagree on '{column}' of {people:,} people or recordings; "
            "correct one of them"
        )


# -- audit -----------------------------------------------------------------------------------------


def _counts(numbers: Numbers) -> dict[str, Any]:
    """How much is known of every column, in pieces of rows."""
    n_rows, names = len(numbers), numbers.columns
    totals = {name: np.zeros(3) for name in names}  # known, sum, neither 0 nor 1
    for start in range(0, n_rows, PIECE):
        frame = numbers.rows(slice(start, start + PIECE))
        values = frame.to_numpy(np.float64)
        has_value = ~np.isnan(values)
        is_bit = (values == 0) | (values == 1)
        sums = (
            has_value.sum(axis=0),
            np.nansum(values, axis=0),
            (has_value & ~is_bit).sum(axis=0),
        )
        for name, *parts in zip(names, *sums, strict=True):
            totals[name] += parts
    columns = {name: _summary(*total) for name, total in totals.items()}
    return {"rows": n_rows, "columns": columns}


def _summary(n: float, total: float, others: float) -> dict[str, Any]:
    summary: dict[str, Any] = {"n": int(n)}
    if n:
        summary |= {"mean": float(total / n)} if others else {"positive": int(total)}
    return summary


def audit_lines(audit: Mapping[str, Any]) -> list[str]:
    """The audit as Markdown, to be read as it stands.

    One to four people are `<5`, and a mean of so few is left out.
    """
    lines = [f"# Labels: {', '.join(audit['files'])}", ""]
    if "icd10" in audit:
        lines += _icd10_lines(audit["icd10"])
    alike: dict[str, str] = {}  # ukbb_cardiac's ids are of people and of stacks, and counted alike
    for unit, counts in audit["columns"].items():
        same = next((u for u in alike if audit["columns"][u] == counts), None)
        alike[same or unit] = f"{alike[same]}` or `{unit}" if same else unit
    for unit, words in alike.items():
        counts = audit["columns"][unit]
        if not counts["columns"]:
            continue
        lines += [
            f"{_shown(counts['rows'])} keys of `{words}`",
            "",
            "| column | known | positive | mean |",
            "|---|--:|--:|--:|",
        ]
        for name, summary in counts["columns"].items():
            positive = _shown(summary["positive"]) if "positive" in summary else ""
            mean = f"{summary['mean']:.4g}" if "mean" in summary and summary["n"] >= SMALL else ""
            lines.append(f"| {name} | {_shown(summary['n'])} | {positive} | {mean} |")
        lines.append("")
    lines += _unread_lines(audit)
    return lines if lines[-1] else lines[:-1]


def _unread_lines(audit: Mapping[str, Any]) -> list[str]:
    """Entries that are no numbers, columns that nothing was taken from, and keys that matched."""
    lines = _matched_lines(audit.get("matched", {}))
    for entry in audit.get("no_numbers", []):
        n = sum(entry["shapes"].values())
        lines.append(
            f"{entry['file']}: {entry['column']}: {_shown(n)} of {_shown(entry['of'])} entries are "
            f"no numbers and count as unknown; they look like {_shapes(entry['shapes'])}"
        )
    for file, names in audit.get("unread", {}).items():
        lines.append(f"{file}: not read: {', '.join(_fields(names))}")
    return lines


def _matched_lines(matched: Mapping[str, Sequence[int]]) -> list[str]:
    if not matched:
        return []
    n, n_keys = (sum(counts) for counts in zip(*matched.values()))
    of_files = [f"{file} {n:,} of {of:,}" for file, (n, of) in matched.items()]
    files_words = f" ({', '.join(of_files)})" if len(of_files) > 1 else ""
    return [f"labels: {n:,} of {n_keys:,} keys matched{files_words}"]


def _shapes(shapes: Mapping[str, int]) -> str:
    """`A99.9! <5, aaa 12`, the most frequent first."""
    words = [f"`{shape}` {_shown(n)}" for shape, n in shapes.items()]
    return ", ".join(words[:SHAPES]) + (f" and {len(words) - SHAPES} more" * (len(words) > SHAPES))


def _fields(names: Sequence[str]) -> list[str]:
    """Names of columns, of UK Biobank's those of one field together."""
    groups: dict[str | int, list[str]] = {}
    for name in names:
        column = ukbb_tables.column(name)
        groups.setdefault(column.field if column else name, []).append(name)
    return [_title(group, names_of) for group, names_of in groups.items()]


def _title(group: str | int, names: Sequence[str]) -> str:
    """`field 41271, ICD-9 codes (3 columns)`."""
    known_use = ukbb_tables.UNUSED.get(group) if isinstance(group, int) else None
    name = names[0] if len(names) == 1 else f"field {group}"
    words = f"{name}, {known_use}" if known_use else name
    return words if len(names) == 1 else f"{words} ({len(names)} columns)"


def _icd10_lines(account: Mapping[str, Any]) -> list[str]:
    visit_words = (
        f", {_shown(account['visited'])} with the date of their visit"
        if account["visited"]
        else ", no dates of visits"
    )
    end = (
        f" Records end on {account['end']} ({account['end_is']})."
        if account["end"]
        else " The codes have no dates."
    )
    lines = [f"ICD-10 codes of {_shown(account['n'])} {account['of']}{visit_words}.{end}"]
    if account["no_codes"] or account["after_end"]:
        lines[0] += f" Left out: {_shown(account['no_codes'])} of {account['entries']:,} entries"
        lines[0] += f" are no ICD-10 codes, {_shown(account['after_end'])} lie after the end."
    if account["no_codes"]:
        lines[0] += f" They look like {_shapes(account['shapes'])}; {_shown(account['unclear'])}"
        lines[0] += f" {account['of']} are not known to be without what they may mean."
    times = ("past", "future", "undated", "unvisited") if account["split"] else ()
    heads = {
        "past": "by the visit",
        "future": "first after it",
        "undated": "no date",
        "unvisited": "no visit",
    }
    lines += ["", "| disease | codes | ever |" + "".join(f" {heads[time]} |" for time in times)]
    lines += ["|---|---|--:|" + "--:|" * len(times)]
    for name, numbers in account["diseases"].items():
        cells = " | ".join(_shown(numbers[column]) for column in ("n", *times))
        lines.append(f"| {name} | {', '.join(numbers['codes'])} | {cells} |")
    lines.append("")
    for name, numbers in account["diseases"].items():
        code_counts = ", ".join(
            f"{code} {_shown(n)}" for code, n in sorted(numbers["by_code"].items())
        )
        nobody = [f"{code} matches nobody" for code in numbers["nobody"]]
        lines.append(f"* {name}: {'; '.join(words for words in (code_counts, *nobody) if words)}")
    return [*lines, ""]


def _shown(n: int) -> str:
    return f"<{SMALL}" if 0 < n < SMALL else f"{n:,}"


def write_audit(path: Path, audit: Mapping[str, Any]) -> None:
    """Write the audit as Markdown."""
    files.write_whole(path, lambda aside: aside.write_text("\n".join(audit_lines(audit)) + "\n"))


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
