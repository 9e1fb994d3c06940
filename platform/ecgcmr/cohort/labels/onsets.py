"""Who has a disease, and since when: before the visit, after it, or never."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from ecgcmr.cohort.labels.sources import SOURCES
from ecgcmr.errors import InputError


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


def _counted(sections: Sequence[Section], unit: str) -> pd.Index:
    """Whose disease is known where no code says so, or of whom a code or a doubt is known.

    Raises:
        InputError: a file of visits shares nobody with the codes.
    """
    with_codes = [section for section in sections if section.diagnoses is not None]
    with_code = union(
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
    return union([with_code.to_numpy(), *(section.keys[unit] for section in of_visits)])


def _has_row(section: Section) -> np.ndarray:
    """(n,) whether a row has a code or a doubt."""
    assert section.diagnoses is not None
    has_row = np.zeros(len(section.complete), bool)
    for frame in (section.diagnoses.codes, section.diagnoses.doubts):
        has_row[frame["row"].to_numpy(np.int64)] = True
    return has_row


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


def _onset(diagnoses: pd.DataFrame, people: pd.Index, doubtful: set[str]) -> Onset:
    has = pd.Series(people.isin(diagnoses["key"]), index=people)
    unclear = pd.Series(people.isin(doubtful), index=people)
    first = diagnoses.dropna(subset=["date"]).groupby("key")["date"].min().reindex(people)
    return Onset(has.astype(float).mask(unclear & ~has), first, unclear)


def _account_of_entries(label_files: Sequence[LabelFile]) -> dict[str, Any]:
    """How many entries stand where codes belong, and what those that are none look like."""
    accounts = [file.account for file in label_files]
    shapes = sum((account.shapes for account in accounts), Counter[str]())
    return {
        "entries": sum(account.n_entries for account in accounts),
        "no_codes": sum(shapes.values()),
        "shapes": dict(shapes.most_common()),
    }


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
