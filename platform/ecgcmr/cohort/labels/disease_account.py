"""How many people have a disease, since when, by which source and by which code."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import pandas as pd

from ecgcmr.cohort.follow_up import EVENT
from ecgcmr.cohort.labels import survival
from ecgcmr.cohort.labels.definitions import Disease, titled
from ecgcmr.cohort.labels.diagnoses import Records
from ecgcmr.cohort.labels.label_file import LabelFile
from ecgcmr.cohort.labels.onset import Onset
from ecgcmr.cohort.labels.rules import Rules
from ecgcmr.cohort.labels.sources import FIRST, SOURCES
from ecgcmr.errors import InputError


def of_all(
    label_files: Sequence[LabelFile],
    records: Records,
    rules: Rules,
    after_end: int,
    accounts: Mapping[str, Any],
) -> dict[str, Any]:
    """The account of all diseases.

    Args:
        label_files: that were read.
        records: what they say of diagnoses.
        rules: how they were read.
        after_end: diagnoses that were left out as of after the end of the records.
        accounts: of each disease.
    """
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


def of_ends(ends: Mapping[str, pd.Series], rules: Rules) -> dict[str, Any]:
    """What ends the follow-up: the day or column for all, and of how many people something else."""
    time = rules.time.isoformat() if isinstance(rules.time, date) else rules.time
    return {"time": time, **{kind: int(days.notna().sum()) for kind, days in ends.items()}}


def of_follow_up(onset: Onset, records: Records, end: pd.Series) -> dict[str, Any]:
    """How many people are followed from the visit on, and how many get the disease."""
    if onset.is_told:
        return {"followed": 0, "events": 0}
    times = survival.follow_up(onset, records.asked_visit, records.days, end)
    events = times[EVENT]
    return {"followed": int(events.notna().sum()), "events": int((events == 1).sum())}


def of_disease(
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


def refuse_unmatched(rules: Rules, accounts: Mapping[str, Mapping[str, Any]]) -> None:
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
