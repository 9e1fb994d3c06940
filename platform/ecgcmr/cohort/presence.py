"""Which rows have a signal: the columns that say so are named, written and read here alone.

A signal that the index has no column for is one that nobody in the cohort has. No PyTorch here.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from ecgcmr.cohort import shards

TABULAR = "tabular"  # no signal: age, sex, height and weight


def column(signal: str) -> str:
    """The index's column for a signal, bool."""
    return f"has_{signal}"


def has(rows: pd.DataFrame, *signals: str) -> np.ndarray:
    """Which rows have all of these signals; `TABULAR` is any of age, sex, height and weight.

    Args:
        rows: of `Cohort.rows`.
        signals: at least one.

    Returns:
        (n,) bool.
    """
    return np.logical_and.reduce([_has(rows, signal) for signal in signals])


def _has(rows: pd.DataFrame, signal: str) -> np.ndarray:
    if signal == TABULAR:
        demographics = rows[list(shards.DEMOGRAPHICS)].to_numpy(dtype=np.float64, na_value=np.nan)
        return np.isfinite(demographics).any(axis=1)
    if column(signal) not in rows:
        return np.zeros(len(rows), dtype=bool)
    return rows[column(signal)].to_numpy(bool)


def mark(index: pd.DataFrame, signal: str, marks: Iterable[bool]) -> None:
    """Note in an index which of its rows have a signal."""
    index[column(signal)] = list(marks)
