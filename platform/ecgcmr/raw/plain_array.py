"""One ECG as an array of numbers, from whatever file: which axis is the leads', what a number is in
mV, and whether that was lost.

One idea: plausible heights prove nothing, so an array needs a unit and a rate (`statements`), and
one that was normalised is refused whatever it states. Twelve rows without names are the standard
leads in their order, which the recording's notes say and the laws of the limb leads check.
"""

from collections.abc import Sequence

import numpy as np

from ecgcmr.errors import Excluded
from ecgcmr.raw.records import EcgRecord
from ecgcmr.raw.statements import Declaration, Statement
from ecgcmr.signals import ecg

GROUP = "lead group"
FORM = "no array of 12 leads by samples; other rows are named with --leads"
STANDARD = "the array names no leads: taken in standard order"
NEITHER = (
    "neither unit nor sampling rate are stated; an array in mV at 500 Hz is read with "
    "--unit mV --rate 500"
)
WHOLE = "whole numbers: the unit is not known; give --unit, e.g. uV"
LEADS_LEAST, LEADS_MOST = 8, 16  # I, II and V1 to V6 make twelve; PTB has fifteen
LEAST_SAMPLES = 500  # 10 s at the lowest rate that is read
# Steps of converters per mV: 1, 1.25 and 2.5 µV. A peak of exactly 1 mV is no accident elsewhere.
_STEPS = (1000, 800)


def is_form(shape: Sequence[int]) -> bool:
    """Whether an array may be one ECG, or several along the first axis: leads by samples, in either
    order.
    """
    if len(shape) not in (2, 3) or 0 in shape:
        return False
    leads, samples = sorted(shape[-2:])
    return LEADS_LEAST <= leads <= LEADS_MOST and samples >= LEAST_SAMPLES


def check_numbers(dtype: np.dtype) -> None:
    """Refuse what is no array of real numbers.

    Raises:
        Excluded: it is none.
    """
    if dtype.kind not in "fiu":
        raise Excluded("not an array of real numbers")


def record(
    key: str, values: np.ndarray, statement: Statement, declaration: Declaration
) -> EcgRecord:
    """The recording that an array holds.

    Args:
        key: of the recording.
        values: two axes, leads and samples in either order, of any real dtype.
        statement: what the file says of it.
        declaration: what its user says of it.

    Raises:
        Excluded: another form, normalised, or unit, rate or leads are not known.
    """
    check_numbers(values.dtype)
    names = declaration.names(statement.leads)
    rows = by_lead(values, len(names) or len(ecg.LEADS))
    leads = tuple(name if ecg.lead_name(name) else "other" for name in names) or ecg.LEADS
    if norm := normalised(rows):
        reason = f"normalised by {norm}, the millivolts are lost"
        raise Excluded(f"{reason}; the format 'normalised' takes it" if norm == GROUP else reason)
    factor, rate_hz = _settled(rows, statement, declaration)
    return EcgRecord(
        key=key,
        signal=(rows * factor).astype(np.float32),
        rate_hz=rate_hz,
        leads=leads,
        age=None,
        sex=None,
        height=None,
        weight=None,
        labels={},
        repairs=() if names else (STANDARD,),
    )


def by_lead(values: np.ndarray, count: int) -> np.ndarray:
    """The array with its leads along the first axis.

    Raises:
        Excluded: not one of its two axes has as many entries as there are leads.
    """
    if values.ndim != 2 or (values.shape[0] == count) == (values.shape[1] == count):
        raise Excluded(FORM)
    return values if values.shape[0] == count else values.T


def _settled(
    rows: np.ndarray, statement: Statement, declaration: Declaration
) -> tuple[float, float]:
    """What a number is in mV, and the rate."""
    has_unit = bool(statement.unit or declaration.unit)
    if not has_unit and _whole(rows):
        raise Excluded(WHOLE)
    if not has_unit and not (statement.rate_hz or declaration.rate_hz):
        raise Excluded(NEITHER)
    return declaration.millivolts(statement.unit), declaration.rate(statement.rate_hz)


def _whole(rows: np.ndarray) -> bool:
    finite = rows[np.isfinite(rows)]
    return bool(rows.dtype.kind in "iu" or (finite.any() and (finite == np.round(finite)).all()))


def normalised(rows: np.ndarray) -> str:
    """How a recording was normalised, or "" if it was not.

    By "lead", "lead group" or "recording": to mean 0 and variance 1, or median 0 and interquartile
    range 1. By "range": to 0 … 1 or −1 … 1, divided by the largest value, or stretched over a whole
    integer type, by lead or all leads alike. Of the 223 CinC recordings none is taken for
    normalised, and all are once they are normalised in any of these ways and stored as float16.

    Args:
        rows: (leads, samples), any real dtype.
    """
    if rows.dtype.kind in "iu":
        limits = np.iinfo(rows.dtype)
        edges = (int(rows.min()), int(rows.max()))
        return "range" if edges[1] == limits.max and edges[0] in _lowest(limits) else ""
    values = np.nan_to_num(rows.astype(np.float64))
    lives = values[np.ptp(values, axis=1) > 0]
    if not len(lives):
        return ""
    return _standardised(values) or ("range" if _by_range(rows, lives) else "")


def _lowest(limits: np.iinfo) -> tuple[int, int]:
    """The least value of an integer type, and the one that mirrors its largest."""
    return int(limits.min), -int(limits.max)


def _standardised(values: np.ndarray) -> str:
    groups = np.split(values, np.cumsum(ecg.GROUPS)[:-1]) if len(values) == 12 else []
    for norm, parts, slack in (
        ("lead", list(values), 2e-2),
        (GROUP, groups, 2e-2),
        ("recording", [values], 2e-3),
    ):
        if parts and all(abs(part.mean()) < 2e-3 and abs(part.var() - 1) < slack for part in parts):
            return norm
        if parts and all(_is_robust(part) for part in parts):
            return norm
    return ""


def _is_robust(part: np.ndarray) -> bool:
    """Whether the median is 0 and the interquartile range 1."""
    low, middle, high = np.quantile(part, (0.25, 0.5, 0.75))
    return bool(abs(middle) < 1e-3 and abs(high - low - 1) < 2e-3)


def _by_range(rows: np.ndarray, lives: np.ndarray) -> bool:
    lows, highs = lives.min(1), lives.max(1)
    peaks = np.maximum(np.abs(lows), highs)
    if len(lives) > 2 and (_alike(peaks) or (_alike(lows) and _alike(highs))):
        return True
    low, high, peak = lows.min(), highs.max(), peaks.max()
    if high == 1 and low in (0, -1):
        return True
    return bool(abs(peak - 1) < 1e-6 or low == -high or low == 0) and not _on_steps(rows)


def _alike(values: np.ndarray) -> bool:
    return bool(np.ptp(values) <= 1e-6 * np.abs(values).max())


def _on_steps(rows: np.ndarray) -> bool:
    """Whether all values are multiples of a converter's step, to the precision of their type."""
    values = np.nan_to_num(rows.astype(np.float64))
    slack = 2 * float(np.finfo(rows.dtype).eps) * np.abs(values)
    return any(
        bool((np.abs(np.round(values * steps) / steps - values) <= slack).all()) for steps in _STEPS
    )
