"""UK Biobank's record tables beside those of codes: the dates of hospital stays, and of deaths."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from ecgcmr.cohort.labels import dates as date_columns
from ecgcmr.cohort.labels import tables, ukbb_tables
from ecgcmr.cohort.labels.cells import keys
from ecgcmr.cohort.labels.layout import key_columns
from ecgcmr.cohort.labels.rules import Rules
from ecgcmr.cohort.labels.sources import DEATH, HOSPITAL, SOURCES
from ecgcmr.errors import InputError

# Dates -> the sources whose lines of codes name their stay or death.
DATED = {
    ukbb_tables.STAY_DATES: (HOSPITAL, "icd9", "opcs4"),
    ukbb_tables.DEATH_DATES: (DEATH,),
}


def dates_of(path: Path) -> tuple[str, ...]:
    """The names of dates of a table of stays or deaths that has no codes; none for another."""
    names = {*tables.names(path)}
    codes = {name for source in SOURCES.values() for name in source.record_codes}
    if not names.intersection(ukbb_tables.EPISODE) or names & codes:
        return ()
    return next((dates for dates in DATED if names.intersection(dates)), ())


def days(path: Path, dates: tuple[str, ...]) -> pd.Series:
    """Day of each hospital stay, or of each record of a death, by `<person> <ins_index>`.

    Args:
        path: of the table.
        dates: of `dates_of`.

    Raises:
        InputError: the file cannot be read, a date is none, or a stay stands in it twice.
    """
    names = tables.names(path)
    (key,) = key_columns(path, names).values()
    episode = next(name for name in ukbb_tables.EPISODE if name in names)
    present = [name for name in dates if name in names]
    blocks = []
    for cells in tables.pieces(path, [key, episode, *present]):
        values = np.full(cells.num_rows, np.datetime64("NaT", "D"))
        for name in present:
            values = np.where(np.isnat(values), date_columns.days(path, cells, name), values)
        blocks.append(pd.Series(values, stay_keys(keys(cells[key]), cells[episode])))
    stays = pd.concat(blocks) if blocks else pd.Series(dtype="datetime64[s]")
    if twice := int(stays.index.duplicated().sum()):
        title = "hospital stays" if dates == ukbb_tables.STAY_DATES else "deaths"
        raise InputError(f"{path}: {twice:,} {title} stand in more than one line; export it again")
    return stays


def by_source(paths: Sequence[Path]) -> dict[str, pd.Series]:
    """Source -> the days of stays or deaths of the tables that hold them.

    Raises:
        InputError: there is nothing beside them.
    """
    tables_of = {path: dates for path in paths if (dates := dates_of(path))}
    if paths and len(tables_of) == len(paths):
        path, dates = next(iter(tables_of.items()))
        title, partner = (
            ("hospital stays", "hesin_diag")
            if dates == ukbb_tables.STAY_DATES
            else ("deaths", "death_cause")
        )
        raise InputError(f"{path}: {title} without their codes; give {partner} beside it")
    stays: dict[str, pd.Series] = {}
    for dates, sources in DATED.items():
        with_days = [days(path, dates) for path, of_path in tables_of.items() if of_path == dates]
        if with_days:
            stays |= dict.fromkeys(sources, pd.concat(with_days))
    return stays


def unused(paths: Sequence[Path], rules: Rules) -> dict[str, list[str]]:
    """Names of files -> their dates that no source that counts has a use for, nor follow-up."""
    counted = {*rules.prefixes} | ({DEATH} if rules.time is not None else set())
    return {
        path.name: [name for name in tables.names(path) if name in dates]
        for path in paths
        if (dates := dates_of(path)) and not set(DATED[dates]) & counted
    }


def stay_keys(persons: np.ndarray, episodes: pa.Array) -> list[str]:
    """`<person> <ins_index>` of each line."""
    return [f"{person} {stay}" for person, stay in zip(persons, tables.keys(episodes), strict=True)]
