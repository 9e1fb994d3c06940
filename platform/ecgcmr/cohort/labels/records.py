"""UK Biobank's record tables: a line for each code, and the dates of hospital stays beside them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from ecgcmr.cohort.labels import entries, tables, ukbb_tables
from ecgcmr.cohort.labels.cells import keys
from ecgcmr.cohort.labels.layout import key_columns
from ecgcmr.errors import InputError


def is_episodes(path: Path) -> bool:
    """Whether a file is UK Biobank's `hesin`: hospital stays with their dates, and no codes."""
    names = {*tables.names(path)}
    has_dates = bool(
        names.intersection(ukbb_tables.EPISODE) and names.intersection(ukbb_tables.EPISODE_DATES)
    )
    return has_dates and not names.intersection(ukbb_tables.RECORD_CODES)


def episode_days(path: Path) -> pd.Series:
    """Day on which each hospital stay began, by `<person> <ins_index>`.

    Raises:
        InputError: the file cannot be read, a date is none, or a stay stands in it twice.
    """
    names = tables.names(path)
    (key,) = key_columns(path, names).values()
    episode = next(name for name in ukbb_tables.EPISODE if name in names)
    dates = [name for name in ukbb_tables.EPISODE_DATES if name in names]
    blocks = []
    for cells in tables.pieces(path, [key, episode, *dates]):
        days = np.full(cells.num_rows, np.datetime64("NaT", "D"))
        for name in dates:
            days = np.where(np.isnat(days), entries.days(path, cells, name), days)
        blocks.append(pd.Series(days, stay_keys(keys(cells[key]), cells[episode])))
    stays = pd.concat(blocks) if blocks else pd.Series(dtype="datetime64[s]")
    if twice := int(stays.index.duplicated().sum()):
        raise InputError(
            f"{path}: {twice:,} hospital stays stand in more than one line; export it again"
        )
    return stays


def stay_keys(persons: np.ndarray, episodes: pa.Array) -> list[str]:
    """`<person> <ins_index>` of each line."""
    return [f"{person} {stay}" for person, stay in zip(persons, tables.keys(episodes), strict=True)]
