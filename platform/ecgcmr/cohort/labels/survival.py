"""Time from a visit to the onset of a disease, or to the end of follow-up, by person."""

from collections.abc import Mapping, Sequence
from datetime import date

import numpy as np
import pandas as pd

from ecgcmr.cohort.follow_up import EVENT, TIME
from ecgcmr.cohort.labels.numbers import UNKNOWN
from ecgcmr.cohort.labels.onset import Onset
from ecgcmr.cohort.labels.section import Section
from ecgcmr.errors import InputError

# What ends the follow-up of a person: the day for all or that of a column, death, and the day on
# which UK Biobank lost sight of them.
END, DEATH, LOST = "end", "death", "lost"


def check(section: Section, stems: Sequence[str]) -> None:
    """Check the columns of follow-up of a table that has them already.

    Args:
        section: what was read of the table.
        stems: the diseases of which it has both columns, blank ones too.

    Raises:
        InputError: a time cannot be, or is known without its event, or an event without its time.
    """
    times_of = {column.name: values for column, values in section.numbers.items()}
    places = {column.name: at for at, column in enumerate(section.flag_columns)}
    no_times, no_events = np.full(section.n_rows, np.nan), np.full(section.n_rows, UNKNOWN)
    for stem in stems:
        time, event = stem + TIME, stem + EVENT
        times = times_of.get(time, no_times)
        events = section.flags[:, places[event]] if event in places else no_events
        if time in times_of and event not in places:
            raise InputError(
                f"{section.path}: {event}: blank, or not 0 and 1 alone, beside {time}; "
                "write 1 where the time ends with an onset, 0 where it does not"
            )
        if bad := int(((times < 0) | np.isinf(times)).sum()):
            raise InputError(
                f"{section.path}: {time}: {bad:,} times below 0 or without an end; correct them"
            )
        if bad := int((~np.isnan(times) != (events != UNKNOWN)).sum()):
            raise InputError(
                f"{section.path}: {time} and {event}: in {bad:,} lines one is known without "
                "the other; fill in both or none"
            )


def ends(
    sections: Sequence[Section],
    unit: str,
    people: pd.Index,
    deaths: pd.Series | None,
    time: date | str,
) -> dict[str, pd.Series]:
    """What ends the follow-up of each person, by kind: (n,) days, NaT for nothing.

    Args:
        sections: of the unit, of all files.
        unit: "subject", "ecg" or "cmr".
        people: whom to follow.
        deaths: day of death by `<person> <number of the record>`, of a table of deaths.
        time: the day for all, or the column that has one for each.

    Raises:
        InputError: nothing has that name.
    """
    blocks: dict[str, list[pd.Series]] = {}
    if deaths is not None:
        persons = [str(key).rpartition(" ")[0] for key in deaths.index]
        blocks[DEATH] = [pd.Series(deaths.to_numpy("datetime64[s]"), persons)]
    for section in sections:
        for kind, values in section.follow_up.items():
            days = pd.Series(values.astype("datetime64[s]"), section.keys[unit])
            blocks.setdefault(kind, []).append(days)
    by_kind = {kind: _first(pd.concat(parts), people) for kind, parts in blocks.items()}
    if isinstance(time, date):
        by_kind[END] = pd.Series(np.datetime64(time, "s"), people)
    if END not in by_kind:
        raise InputError(
            f"--time {time}: neither a date such as 2022-10-31 nor a column of the labels files"
        )
    return by_kind


def _first(days: pd.Series, people: pd.Index) -> pd.Series:
    """The first day of each person."""
    days = days.dropna()
    return days.groupby(days.index).min().reindex(people).astype("datetime64[s]")


def end_of(by_kind: Mapping[str, pd.Series], censored: date | None) -> pd.Series:
    """The day on which the follow-up of each person ends; NaT where nobody says."""
    end = pd.concat([*by_kind.values()], axis=1).min(axis=1).mask(by_kind[END].isna())
    if censored is None:
        return end
    last = pd.Series(np.datetime64(censored, "s"), end.index)
    return end.where(end < last, last).mask(end.isna())


def follow_up(onset: Onset, visit: str, days: pd.Series, end: pd.Series) -> dict[str, pd.Series]:
    """Time and event of a disease after a visit.

    Unknown where it was there by the visit, where nobody knows when it began or whether it did, and
    where the visit is not before the end. An onset after the end is none.

    Args:
        onset: of the disease.
        visit: its name.
        days: (n,) its day.
        end: (n,) of the follow-up.
    """
    is_followed = ~onset.unknown(visit, days) & ~onset.by(visit, days) & (days < end)
    is_event = is_followed & (onset.has == 1) & (onset.first <= end)
    last = onset.first.where(is_event, end)
    times = (last - days).dt.days.astype(float)
    return {
        TIME: times.where(is_followed),
        EVENT: is_event.astype(float).where(is_followed),
    }
