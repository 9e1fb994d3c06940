"""How far a new answer may lie from its prediction: split conformal prediction by person."""

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from ecgcmr.evaluation.statistics import persons
from ecgcmr.evaluation.statistics.effects import ROUNDING


def conformal(residuals: ArrayLike, level: float, people: ArrayLike | None = None) -> float:
    """How far a new answer lies from its prediction, with probability `level` at least: split
    conformal prediction.

    It is the ⌈(n + 1) level⌉-th smallest of |residuals| of n people. The promise is for people like
    those of the residuals, on average over them, and asks nothing of the errors' shape. A person of
    several rows counts once, each row for its share: the promise is for a visit of a new person.

    Args:
        residuals: (n,) of rows that trained nothing; NaN are left out.
        level: in (0, 1).
        people: (n,) whose row it is; None: each another person's.

    Returns:
        The half width of the interval, in the unit of the residuals; NaN where there are too few
        for the level.

    Source: Lei et al. 2018, doi:10.1080/01621459.2017.1307116; of several rows a person: Lee,
        Barber & Willett 2023, arXiv:2306.06342.
    """
    distances = np.abs(np.asarray(residuals, float))
    is_known = ~np.isnan(distances)
    if not is_known.any():
        return np.nan
    person = persons.of_rows(people, len(distances))[is_known]
    person = persons.of_rows(person, len(person))
    shares = 1 / np.bincount(person)[person]
    order = np.argsort(distances[is_known], kind="stable")
    enough = np.cumsum(shares[order]) >= (persons.count(person) + 1) * level - ROUNDING
    return float(distances[is_known][order][np.argmax(enough)]) if enough.any() else np.nan


def assured(n: int, level: float, confidence: float) -> float:
    """The level that `conformal` has to be asked for, so that intervals hold `level` not on average
    over calibrations but in a share `confidence` of them: Wilks' tolerance interval.

    Of n people the k-th smallest residual holds a share that is Beta(k, n + 1 − k) distributed. It
    is the least k / (n + 1) of which that share is below `level` in at most 1 − confidence.

    Args:
        n: people that calibrate.
        level, confidence: in (0, 1).

    Returns:
        In (level, 1); 1, which no residual reaches, if n are too few.

    Source: Wilks 1941, doi:10.1214/aoms/1177731788; Vovk 2012, arXiv:1209.2673.
    """
    places = np.arange(1, n + 1)
    short = special.betainc(places, n + 1 - places, level)
    sure = places[short <= 1 - confidence]
    return float(sure[0] / (n + 1)) if len(sure) else 1.0
