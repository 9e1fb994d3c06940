"""What all files say of diagnoses: of whom, since when, and who is known to be without."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ecgcmr.cohort.labels.label_file import LabelFile
from ecgcmr.cohort.labels.merger import refuse_disagreement, union
from ecgcmr.cohort.labels.numbers import ALWAYS, UNSTATED
from ecgcmr.cohort.labels.rules import Rules
from ecgcmr.cohort.labels.section import Section
from ecgcmr.cohort.labels.sources import MEDICATION
from ecgcmr.errors import InputError


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


def collected(
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
    if not visits_of:
        return diagnoses
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
