"""A number with its uncertainty, and what is done with several such numbers."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

LEVEL = 0.95
# Metrics are of order one, so a smaller difference is that of two orders of summation.
ROUNDING = 1e-12


@dataclass(frozen=True)
class Effect:
    """A number with its uncertainty; `p` is two-sided and NaN where no test was made."""

    value: float
    low: float
    high: float
    p: float


def quantile(freedom: float = np.inf) -> float:
    """How many standard errors `LEVEL` reaches: Student's with that many degrees of freedom, by
    default the normal one.
    """
    share = (1 + LEVEL) / 2
    return float(special.ndtri(share) if np.isinf(freedom) else special.stdtrit(freedom, share))


def of_error(value: float, error: float, against: float = 0, freedom: float = np.inf) -> Effect:
    """Interval and two-sided p of the hypothesis that the value is `against`, normal or Student's.

    An error of 0 is certainty.
    """
    if error == 0:
        return Effect(value, value, value, float(abs(value - against) <= ROUNDING))
    half, far = quantile(freedom) * error, -abs(value - against) / error
    tail = special.ndtr(far) if np.isinf(freedom) else special.stdtr(freedom, far)
    return Effect(value, value - half, value + half, 2 * float(tail))


def error_of(variance: float) -> float:
    """The standard error; exactly 0 where the variance is nothing but rounding."""
    return 0.0 if variance < ROUNDING**2 else variance**0.5


def satterthwaite(total: float, parts: Sequence[float], freedoms: Sequence[float]) -> float:
    """Degrees of freedom of a variance made of estimated parts, at least 1; infinite if none
    counts.

    Source: Satterthwaite 1946, doi:10.2307/3002019.
    """
    share = sum(part**2 / freedom for part, freedom in zip(parts, freedoms))
    return max(1.0, total**2 / share) if share > 0 else np.inf


def wilson(share: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Interval of a share of n independent trials, (…,); n need not be whole.

    Source: Wilson 1927, doi:10.1080/01621459.1927.10502953.
    """
    z = quantile()
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    # The share itself bounds them: rounding would leave error bars of negative length at 0 and 1.
    return np.clip(centre - half, 0, share), np.clip(centre + half, share, 1)


def mean_interval(values: ArrayLike, level: float = LEVEL) -> tuple[float, float]:
    """Student's t interval of a mean over seeds.

    Args:
        values: (seeds,); NaN are left out.
        level: of confidence.

    Returns:
        Low and high; NaN with fewer than two values.

    Source: Student 1908, doi:10.2307/2331554.
    """
    finite = numbers(values)
    if len(finite) < 2:
        return np.nan, np.nan
    half = special.stdtrit(len(finite) - 1, (1 + level) / 2) * finite.std(ddof=1)
    half = half / len(finite) ** 0.5
    return float(finite.mean() - half), float(finite.mean() + half)


def holm(p: ArrayLike) -> np.ndarray:
    """The p values of one family, each raised so that one false claim among all is as rare as one
    of a single test.

    Args:
        p: (tests,) in any order; NaN are no tests and do not count.

    Returns:
        (tests,) in the same order; NaN stay.

    Source: Holm 1979, Scandinavian Journal of Statistics 6(2), pp. 65–70.
    """
    p_values = np.array(p, float)
    tests = np.flatnonzero(~np.isnan(p_values))
    order = tests[np.argsort(p_values[tests], kind="stable")]
    remaining = len(order) - np.arange(len(order))
    p_values[order] = np.minimum(np.maximum.accumulate(p_values[order] * remaining), 1)
    return p_values


def fisher_interval(r: float, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Interval of a correlation coefficient, tanh(artanh r ± z / √(n − 3)).

    Args:
        r: Pearson's, in [−1, 1].
        n: pairs; with three or fewer nothing is known of r.
        level: of confidence.

    Returns:
        Low and high; NaN if r is.

    Source: Fisher 1921, Metron 1, pp. 3–32.
    """
    if np.isnan(r):
        return np.nan, np.nan
    if n <= 3:
        return -1.0, 1.0
    with np.errstate(divide="ignore"):
        centre, half = np.arctanh(r), special.ndtri((1 + level) / 2) / (n - 3) ** 0.5
    return float(np.tanh(centre - half)), float(np.tanh(centre + half))


def fisher_mean(r: ArrayLike) -> float:
    """Mean of correlation coefficients, tanh(mean artanh r).

    Args:
        r: (k,) in [−1, 1]; NaN are left out. A perfect r, whose artanh is infinite, counts as the
            float next to it.

    Returns:
        In [−1, 1]; NaN if none is a number.

    Source: Silver & Dunlap 1987, doi:10.1037/0021-9010.72.1.146.
    """
    coefficients, edge = numbers(r), np.nextafter(1, 0)
    if not len(coefficients):
        return np.nan
    return float(np.tanh(np.arctanh(np.clip(coefficients, -edge, edge)).mean()))


def numbers(values: ArrayLike) -> np.ndarray:
    """All that are not NaN, in one row."""
    floats = np.asarray(values, float)
    return floats[~np.isnan(floats)]
