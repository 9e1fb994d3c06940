"""Who has a disease, and since when: before the visit, after it, or never.

Several sources may count. The earliest day decides; what people tell at a visit was there by then,
and knows nothing of later.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from ecgcmr.cohort.labels import icd10
from ecgcmr.cohort.labels.definitions import Disease, titled
from ecgcmr.cohort.labels.label_file import LabelFile
from ecgcmr.cohort.labels.merger import refuse_disagreement, union
from ecgcmr.cohort.labels.numbers import ALWAYS, UNSTATED, Column
from ecgcmr.cohort.labels.rules import Rules
from ecgcmr.cohort.labels.section import Section
from ecgcmr.cohort.labels.sources import FIRST, MEDICATION, SOURCES
from ecgcmr.errors import InputError


@dataclass(frozen=True)
class Onset:
    """A disease by person.

    Attributes:
        has: 1 for ever, 0 for never, NaN where an entry may be of it and could not be read, or a
            source that counts knows nothing of the person.
        first: day of the first dated code.
        told_at: number of the first visit at which a person told it, NaN for none.
        unclear: whether an entry may be of it.
        end: day up to which the sources know, NaT where they have no end; by person where all of it
            is told at visits.
    """

    has: pd.Series
    first: pd.Series
    told_at: pd.Series
    unclear: pd.Series
    end: Any

    @property
    def is_told(self) -> bool:
        """Whether nothing but what people tell at visits counts."""
        return isinstance(self.end, pd.Series)

    def by(self, visit: str, days: pd.Series) -> pd.Series:
        """Whether a person has it by a visit of theirs."""
        earlier = (self.first <= days) | (
            self.told_at <= (int(visit) if visit.isdigit() else np.nan)
        )
        return (self.has == 1) & earlier

    def unknown(self, visit: str, days: pd.Series) -> pd.Series:
        """Whether nobody knows if a person had it by a visit."""
        has, by_visit = self.has == 1, self.by(visit, days)
        no_time = (has & self.first.isna()) | self.unclear
        return days.isna() | self.has.isna() | (no_time & ~by_visit)

    def at(self, visit: str, days: pd.Series) -> dict[str, pd.Series]:
        """Had by the visit (`_past`), and first after it (`_future`).

        Who has it by the visit cannot get it any more, so the future is unknown then, as it is
        without a visit, without a date of any of the codes, and for a visit at or after the end of
        the records. Who was last asked before the visit may have got it since.
        """
        unknown = self.unknown(visit, days)
        past = self.by(visit, days).astype(float).mask(unknown)
        if self.is_told:
            past = past.mask((past == 0) & ~(self.end >= days))
        future = ((self.has == 1) & (self.first > days)).astype(float)
        future = future.mask(unknown | (past == 1))
        if self.is_told or self.end == self.end:
            future = future.mask((future == 0) & ~(days < self.end))
        return {"_past": past, "_future": future}


@dataclass(frozen=True)
class Records:
    """What all files say of diagnoses, by the unit that they speak of.

    Attributes:
        unit: "subject", "ecg" or "cmr".
        people: whose disease is known where no code says so, or of whom something is known.
        visits: visit -> day of it by person.
        diagnoses: `key`, `source`, `code`, `date`, `visit`.
        doubts: `key`, `source`, `stem`.
        without: source -> people whom it knows to be without a diagnosis that it does not have; a
            table with a line for each code has no such people, as it knows of nobody else.
        latest: source -> last day of its records.
        visits_of: source -> visits at which it was asked for.
        events: codes of which a column of first occurrences is there.
        sources: those that some file has.
        asked_visit: that is asked for, as in `visits`.
    """

    unit: str
    people: pd.Index
    visits: Mapping[str, pd.Series]
    diagnoses: pd.DataFrame
    doubts: pd.DataFrame
    without: Mapping[str, pd.Index]
    latest: Mapping[str, Any]
    visits_of: Mapping[str, tuple[str, ...]]
    events: frozenset[str]
    sources: tuple[str, ...]
    asked_visit: str

    @property
    def days(self) -> pd.Series:
        """Day of the visit that is asked for."""
        no_days = pd.Series(np.datetime64("NaT"), self.people, dtype="datetime64[s]")
        return self.visits.get(self.asked_visit, no_days)

    @property
    def has_times(self) -> bool:
        """Whether any diagnosis has a day, or a visit at which it was told."""
        is_told = self.diagnoses["visit"] != ""
        return bool((self.diagnoses["date"].notna() | is_told).any())


def onsets(
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
    sources = tuple(name for name in SOURCES if any(name in s.complete for s in with_codes))
    for disease in rules.asked_for:
        if not set(disease.codes) & set(sources):
            titles = " nor ".join(SOURCES[source].title for source in disease.codes)
            raise InputError(f"{disease.place}: none of the labels files holds {titles}")
    if not with_codes:
        return {}, {}
    records = _records(label_files, with_codes, sources, rules)
    end = pd.Timestamp(rules.censored) if rules.censored else None
    late = records.diagnoses["date"] > end if end else np.zeros(len(records.diagnoses), bool)
    records = replace(records, diagnoses=records.diagnoses[~late])
    columns: dict[Column, pd.Series] = {}
    accounts = {}
    for disease in rules.diseases:
        if not set(disease.codes) & set(sources):
            continue
        disease_rows = records.diagnoses[_is_of(disease, records.diagnoses)]
        onset = _onset(disease, disease_rows, records, end)
        columns[Column(disease.name)] = onset.has
        for visit, days in records.visits.items():
            if records.has_times and days.notna().any():
                columns |= {
                    Column(disease.name + ending, visit): values
                    for ending, values in onset.at(visit, days).items()
                }
        accounts[disease.name] = _account(disease, disease_rows, onset, records)
    _refuse_unmatched(rules, accounts)
    return {records.unit: columns}, _audit(label_files, records, rules, int(late.sum()), accounts)


def _records(
    label_files: Sequence[LabelFile],
    with_codes: Sequence[Section],
    sources: tuple[str, ...],
    rules: Rules,
) -> Records:
    """What all files say of diagnoses.

    Raises:
        InputError: they speak of people and of recordings, or disagree on visits.
    """
    units = {section.units[0] for section in with_codes}
    if len(units) > 1:
        raise InputError(
            f"ICD-10 codes by {' and by '.join(sorted(units))}: "
            "give files that speak of one of them"
        )
    (unit,) = units
    sections = [section for file in label_files for section in file.sections]
    of_unit = [section for section in sections if section.units[0] == unit]
    people = _counted(of_unit, unit)
    visits = {
        visit: days.reindex(people) for visit, days in _visits(of_unit, unit, rules.visit).items()
    }
    visits_of: dict[str, tuple[str, ...]] = {}
    for section in with_codes:
        for source, names in section.visits_of.items():
            visits_of[source] = tuple(sorted({*visits_of.get(source, ()), *names}, key=int))
    diagnoses = pd.concat([_by_person(section, unit) for section in with_codes], ignore_index=True)
    latest = {
        source: pd.Series(
            [file.account.latest.get(source, pd.NaT) for file in label_files],
            dtype="datetime64[s]",
        ).max()
        for source in sources
    }
    return Records(
        unit=unit,
        people=people,
        visits=visits,
        diagnoses=_dated(diagnoses, visits, visits_of),
        doubts=pd.concat([_doubts(section, unit) for section in with_codes], ignore_index=True),
        without=_without(with_codes, unit),
        latest=latest,
        visits_of=visits_of,
        events=frozenset().union(*(file.account.events for file in label_files)),
        sources=sources,
        asked_visit=str(rules.visit) if unit == "subject" else ALWAYS,
    )


def _dated(
    diagnoses: pd.DataFrame,
    visits: Mapping[str, pd.Series],
    visits_of: Mapping[str, tuple[str, ...]],
) -> pd.DataFrame:
    """Diagnoses that were told, with days: none lies after the visit.

    A medicine that was not taken at an earlier visit begins at the visit; where nobody asked
    earlier, nobody knows.
    """
    dates = diagnoses["date"].copy()
    for source, names in visits_of.items():
        for visit in names:
            here = ((diagnoses["source"] == source) & (diagnoses["visit"] == visit)).to_numpy()
            if visit not in visits or not here.any():
                continue
            days = visits[visit].reindex(diagnoses["key"][here]).to_numpy("datetime64[s]")
            if source == MEDICATION:
                dates[here] = days if visit != names[0] else np.datetime64("NaT")
            else:
                own_days = dates[here].to_numpy("datetime64[s]")
                dates[here] = np.where(days < own_days, days, own_days)
    return diagnoses.assign(date=dates)


def _without(with_codes: Sequence[Section], unit: str) -> dict[str, pd.Index]:
    """Source -> whom it knows to be without what it does not have, of tables with a line for each
    person.
    """
    keys: dict[str, list[np.ndarray]] = {}
    for section in with_codes:
        for source, is_complete in section.complete.items():
            if not section.is_long:
                keys.setdefault(source, []).append(section.keys[unit][is_complete])
    return {source: union(blocks) for source, blocks in keys.items()}


def _counted(sections: Sequence[Section], unit: str) -> pd.Index:
    """Whose disease is known where no code says so, or of whom a code or a doubt is known.

    Raises:
        InputError: a file of visits shares nobody with the codes.
    """
    with_codes = [section for section in sections if section.diagnoses is not None]
    with_code = union([section.keys[unit][_is_counted(section)] for section in with_codes])
    if not any(section.is_long for section in with_codes):
        return with_code
    of_visits = [s for s in sections if s.diagnoses is None and s.dates]
    for section in of_visits:
        if not pd.Index(section.keys[unit]).isin(with_code).any():
            raise InputError(
                f"{section.path}: none of its {len(section.keys[unit]):,} keys has a line of "
                "codes; are they written otherwise, or of another data set?"
            )
    return union([with_code.to_numpy(), *(section.keys[unit] for section in of_visits)])


def _is_counted(section: Section) -> np.ndarray:
    """(n,) whether a row is complete, or has a code or a doubt."""
    assert section.diagnoses is not None
    is_counted = np.any([*section.complete.values()], axis=0)
    for frame in (section.diagnoses.codes, section.diagnoses.doubts):
        is_counted[frame["row"].to_numpy(np.int64)] = True
    return is_counted


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
                refuse_disagreement(section.path, None, "the visit's date", clash)
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


def _onset(
    disease: Disease, diagnoses: pd.DataFrame, records: Records, censored: pd.Timestamp | None
) -> Onset:
    """A disease by person, from its diagnoses.

    Who has none is known to be without it if every source that counts, and that has a line for each
    person, has one of theirs.
    """
    people = records.people
    has = pd.Series(people.isin(diagnoses["key"]), index=people)
    unclear = pd.Series(people.isin(_doubtful(disease, records.doubts)), index=people)
    first = diagnoses.dropna(subset=["date"]).groupby("key")["date"].min().reindex(people)
    told_rows = diagnoses[diagnoses["visit"] != ""]
    told_at = told_rows["visit"].astype(float).groupby(told_rows["key"]).min().reindex(people)
    whole = [records.without[source] for source in disease.codes if source in records.without]
    is_known = pd.Series(True, people)
    for of_source in whole:
        is_known &= people.isin(of_source)
    return Onset(
        has=has.astype(float).mask(~has & (unclear | ~is_known)),
        first=first,
        told_at=told_at,
        unclear=unclear,
        end=_end(disease, records, censored),
    )


def _end(disease: Disease, records: Records, censored: pd.Timestamp | None) -> Any:
    """The day up to which the sources of a disease know, see `Onset`."""
    sources = [source for source in disease.codes if source in records.sources]
    of_records = [source for source in sources if not SOURCES[source].at_visits]
    if of_records:
        days = [records.latest[source] for source in of_records]
        return censored or pd.Series(days, dtype="datetime64[s]").max()
    names = {visit for source in sources for visit in records.visits_of[source]}
    no_days = pd.Series(np.datetime64("NaT"), records.people, dtype="datetime64[s]")
    days = [records.visits[visit] for visit in names if visit in records.visits]
    return pd.concat([no_days, *days], axis=1).max(axis=1)


def _audit(
    label_files: Sequence[LabelFile],
    records: Records,
    rules: Rules,
    after_end: int,
    accounts: Mapping[str, Any],
) -> dict[str, Any]:
    latest = pd.Series([*records.latest.values()], dtype="datetime64[s]").max()
    end = pd.Timestamp(rules.censored) if rules.censored else latest
    days = records.days
    return {
        "of": "people" if records.unit == "subject" else "recordings",
        "n": len(records.people),
        "sources": list(records.sources),
        "visit": rules.visit,
        "visited": int(days.notna().sum()),
        "end": None if pd.isna(end) else end.date().isoformat(),
        "end_is": "as asked" if rules.censored else "the latest date of any code",
        "after_end": after_end,
        **_account_of_entries(label_files),
        "unclear": int(pd.Index(records.doubts["key"]).nunique()),
        "split": bool(days.notna().any() and records.has_times),
        "diseases": accounts,
        "no_table": {
            disease.name: list(disease.codes)
            for disease in rules.diseases
            if disease.name not in accounts
        },
    }


def _account_of_entries(label_files: Sequence[LabelFile]) -> dict[str, Any]:
    """How many entries stand where codes belong, and what those that are none look like."""
    accounts = [file.account for file in label_files]
    blocks = [shapes for account in accounts for shapes in account.shapes.values()]
    shapes = sum(blocks, Counter[str]())
    return {
        "entries": sum(account.n_entries.total() for account in accounts),
        "no_codes": sum(shapes.values()),
        "shapes": dict(shapes.most_common()),
    }


def _account(
    disease: Disease, diagnoses: pd.DataFrame, onset: Onset, records: Records
) -> dict[str, Any]:
    """How many have a disease, since when, and by which codes."""
    has, days = onset.has == 1, records.days
    account: dict[str, Any] = {"codes": list(disease.words), "n": int(has.sum())}
    account["unclear"] = int(onset.has.isna().sum())
    if days.notna().any() and records.has_times:
        times = onset.at(records.asked_visit, days)
        has_visit = has & days.notna()
        without_day = onset.first.isna() & ~onset.by(records.asked_visit, days)
        account |= {
            "past": int((times["_past"] == 1).sum()),
            "future": int((times["_future"] == 1).sum()),
            "undated": int((has_visit & without_day).sum()),
            "unvisited": int((has & days.isna()).sum()),
        }
    return account | _account_of_codes(disease, diagnoses, records)


def _account_of_codes(
    disease: Disease, diagnoses: pd.DataFrame, records: Records
) -> dict[str, Any]:
    """People by source and by code, and what of the definition nobody has or no file holds."""
    account: dict[str, Any] = {
        "by_source": {},
        "by_code": {},
        "nobody": [],
        "no_column": [],
        "no_table": [source for source in disease.codes if source not in records.sources],
        "unmatched": [],
    }
    for name in disease.codes:
        if name not in records.sources:
            continue
        of_source = diagnoses[diagnoses["source"] == name]
        account["by_source"][name] = int(of_source["key"].nunique())
        account["by_code"] |= _by_code(name, of_source)
        codes, prefixes = set(of_source["code"]), disease.prefixes(name)
        missing = [
            prefix
            for prefix in prefixes
            if not any(SOURCES[name].matches(code, (prefix,)) for code in codes)
        ]
        for prefix in missing:
            has_column = name != FIRST or prefix in records.events
            account["nobody" if has_column else "no_column"].append(
                titled(name, SOURCES[name].spelling(prefix))
            )
        matched_words = {word for prefix, word in prefixes.items() if prefix not in missing}
        account["unmatched"] += [
            titled(name, word) for word in disease.codes[name] if word not in matched_words
        ]
    return account


def _by_code(name: str, diagnoses: pd.DataFrame) -> dict[str, int]:
    """People by each code of a source, of ICD and OPCS by their beginnings too."""
    source, codes = SOURCES[name], diagnoses["code"].astype(str)
    counts: dict[str, int] = {}
    for length in (None,) if source.whole else (3, 4):
        beginnings = codes.str[:length][codes.str.len() >= (length or 0)]
        counts |= {
            titled(name, source.spelling(str(code))): int(n)
            for code, n in diagnoses["key"].groupby(beginnings).nunique().items()
        }
    return counts


def _refuse_unmatched(rules: Rules, accounts: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse a definition of which a code has nobody.

    Raises:
        InputError: it is one that a person made, and that is not allowed.
    """
    for disease in rules.asked_for:
        account = accounts[disease.name]
        if account["unmatched"] and not rules.allow_empty:
            words = ", ".join(account["unmatched"])
            absent = set(account["unmatched"]) & set(account["no_column"])
            hint = (
                f"; no column is of {', '.join(sorted(absent))}: name the field by its number"
                if absent
                else ""
            )
            raise InputError(
                f"{disease.place}: {words} matches nobody{hint}; "
                "correct it, or add --allow-empty if that may be"
            )
