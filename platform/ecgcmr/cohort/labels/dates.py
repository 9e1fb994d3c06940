"""Columns of dates: days, years with a fraction, and what UK Biobank writes where it has none."""

from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa

from ecgcmr.cohort.labels import tables
from ecgcmr.errors import InputError

# UK Biobank's stand-ins (its data-coding 819): for a day on which and a year in which somebody was
# born; and for no date, one before birth, and two in the future.
AT_BIRTH = (date(1902, 2, 2), date(1903, 3, 3))
NO_DATES = (
    *AT_BIRTH,
    date(1900, 1, 1),
    date(1901, 1, 1),
    date(1909, 9, 9),
    date(2037, 7, 7),
)


def days(path: Path, cells: pa.RecordBatch, name: str) -> np.ndarray:
    """A column as (n,) datetime64[D]; UK Biobank's stand-ins are NaT.

    Raises:
        InputError: an entry is no date.
    """
    values = _days(path, cells, name)
    values[np.isin(values, np.array(NO_DATES, "datetime64[D]"))] = np.datetime64("NaT")
    return values


def _days(path: Path, cells: pa.RecordBatch, name: str) -> np.ndarray:
    values, invalid = tables.days(cells[name])
    if invalid:
        raise InputError(
            f"{path}: column '{name}' holds {invalid:,} entries "
            "that are no dates such as 2019-11-26"
        )
    return values


def years(path: Path, cells: pa.RecordBatch, name: str) -> np.ndarray:
    """Years with a fraction as days: 2003.5 is 2 July 2003; below 0 nobody knows.

    Raises:
        InputError: an entry is no year.
    """
    values, bad_words = tables.numbers(cells[name])
    has_year = ~np.isnan(values) & (values >= 0)
    invalid = len(bad_words) + int((has_year & ((values < 1900) | (values >= 2100))).sum())
    if invalid:
        raise InputError(
            f"{path}: column '{name}' holds {invalid:,} entries that are no years such as 2003.5"
        )
    years = np.where(has_year, np.floor(values), 1970)
    starts = (years.astype(np.int64) - 1970).astype("datetime64[Y]")
    first_days = starts.astype("datetime64[D]")
    lengths = (starts + 1).astype("datetime64[D]") - first_days
    day_of_year = np.floor(np.where(has_year, values - years, 0) * lengths.astype(np.int64))
    no_day = np.datetime64("NaT", "D")
    return np.where(has_year, first_days + day_of_year.astype("timedelta64[D]"), no_day)


def first_days(path: Path, cells: pa.RecordBatch, name: str) -> tuple[np.ndarray, np.ndarray]:
    """A column of first occurrences: (n,) days, and (n,) whether there is one, whatever its day.

    Of UK Biobank's stand-ins two say "at birth" and "in the year of birth"; they stay.

    Raises:
        InputError: an entry is no date.
    """
    values = _days(path, cells, name)
    has_date = ~np.isnat(values)
    no_dates = [day for day in NO_DATES if day not in AT_BIRTH]
    values[np.isin(values, np.array(no_dates, "datetime64[D]"))] = np.datetime64("NaT")
    return values, has_date
