"""What a number of known meaning can be, and when its column is in another unit."""

import logging
from pathlib import Path

import numpy as np

from ecgcmr import tasks
from ecgcmr.errors import InputError

log = logging.getLogger(__name__)


BODY = {"age": "years", "height": "cm", "weight": "kg"}


UNITS = {**BODY, **tasks.UNITS}


# As `tasks.LIMITS`: a value's lower and upper limit, then a median's. Metres, inches and days fall
# out.
LIMITS = {
    "age": (0, 120, 1, 110),
    "height": (50, 250, 100, 220),
    "weight": (2, 400, 20, 250),
    **tasks.LIMITS,
}


def checked(path: Path, name: str, values: np.ndarray) -> np.ndarray:
    """Values outside what is possible become unknown.

    Raises:
        InputError: the median is that of another unit.
    """
    possible_values = possible(path, name, values)
    if name not in LIMITS or np.isnan(values).all():
        return possible_values
    low, high, least, most = LIMITS[name]
    has_value = not np.isnan(possible_values).all()
    median = float(np.nanmedian(possible_values)) if has_value else np.nan
    if not least <= median <= most:
        fault = (
            f"the median is {median:.3g}"
            if has_value
            else f"no value lies between {low:g} and {high:g}"
        )
        raise InputError(
            f"{path}: {name}: {fault}, expected {least:g} to {most:g} {UNITS[name]}; "
            "is it in another unit?"
        )
    return possible_values


def possible(path: Path, name: str, values: np.ndarray) -> np.ndarray:
    """Values, NaN where they cannot be; how many is said."""
    if name not in LIMITS:
        return values
    low, high, _, _ = LIMITS[name]
    if name in BODY:
        is_possible = (values >= low) & (values <= high)
    else:
        is_possible = (values > low) & (values < high)
    outside = ~np.isnan(values) & ~is_possible
    if outside.any():
        log.warning(
            "%s: %s: %d values outside %g to %g count as unknown",
            path.name,
            name,
            outside.sum(),
            low,
            high,
        )
    return np.where(is_possible, values, np.nan)
