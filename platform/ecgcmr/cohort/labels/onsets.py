"""The columns of diseases, and their account.

Several sources may count. The earliest day decides; what people tell at a visit was there by then,
and knows nothing of later.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from ecgcmr.cohort.labels import diagnoses, disease_account, icd10, survival
from ecgcmr.cohort.labels.definitions import Disease
from ecgcmr.cohort.labels.diagnoses import Records
from ecgcmr.cohort.labels.label_file import LabelFile
from ecgcmr.cohort.labels.numbers import Column
from ecgcmr.cohort.labels.onset import Onset
from ecgcmr.cohort.labels.rules import Rules
from ecgcmr.cohort.labels.section import Section
from ecgcmr.cohort.labels.sources import SOURCES
from ecgcmr.errors import InputError


def onsets(
    label_files: Sequence[LabelFile], rules: Rules, deaths: pd.Series | None = None
) -> tuple[dict[str, dict[Column, pd.Series]], dict[str, Any]]:
    """Diseases by unit, from the codes of all files, and their audit; nothing where no file has
    codes.

    Args:
        label_files: that were read.
        rules: how.
        deaths: days of a table of deaths, see `survival.ends`.

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
    if not with_codes and rules.time is not None:
        raise InputError(f"--time {rules.time}: none of the labels files holds codes of diseases")
    if not with_codes:
        return {}, {}
    records = diagnoses.collected(label_files, with_codes, sources, rules)
    end = pd.Timestamp(rules.censored) if rules.censored else None
    late = records.diagnoses["date"] > end if end else np.zeros(len(records.diagnoses), bool)
    records = replace(records, diagnoses=records.diagnoses[~late])
    ends = _ends(sections, records, rules, deaths)
    follow_up_end = survival.end_of(ends, rules.censored) if ends else None
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
                times = onset.at(visit, days)
                if follow_up_end is not None and not onset.is_told:
                    times |= survival.follow_up(onset, visit, days, follow_up_end)
                columns |= {
                    Column(disease.name + ending, visit): values for ending, values in times.items()
                }
        account = disease_account.of_disease(disease, disease_rows, onset, records)
        if follow_up_end is not None:
            account |= disease_account.of_follow_up(onset, records, follow_up_end)
        accounts[disease.name] = account
    disease_account.refuse_unmatched(rules, accounts)
    audit = disease_account.of_all(label_files, records, rules, int(late.sum()), accounts)
    if ends:
        audit["follow_up"] = disease_account.of_ends(ends, rules)
    return {records.unit: columns}, audit


def _ends(
    sections: Sequence[Section], records: Records, rules: Rules, deaths: pd.Series | None
) -> dict[str, pd.Series]:
    """What ends the follow-up of people; nothing where it is not asked for.

    Raises:
        InputError: it is, and there is no visit from which to follow, or no day of a diagnosis.
    """
    if rules.time is None:
        return {}
    if not any(days.notna().any() for days in records.visits.values()):
        raise InputError(
            f"--time {rules.time}: none of the labels files has a day of a visit; "
            "export field 53, or add a table with visit_date"
        )
    if not records.has_times:
        raise InputError(
            f"--time {rules.time}: none of the codes has a date; export their dates beside them"
        )
    of_unit = [section for section in sections if section.units[0] == records.unit]
    return survival.ends(of_unit, records.unit, records.people, deaths, rules.time)


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
    first = _not_later_than_told(first, told_rows, records)
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


def _not_later_than_told(first: pd.Series, told_rows: pd.DataFrame, records: Records) -> pd.Series:
    """The first day of each person, unknown where the disease was told before, without a day."""
    for visit, days in records.visits.items():
        undated_rows = told_rows[(told_rows["visit"] == visit) & told_rows["date"].isna()]
        first = first.mask(first.index.isin(undated_rows["key"]) & (days < first))
    return first


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
