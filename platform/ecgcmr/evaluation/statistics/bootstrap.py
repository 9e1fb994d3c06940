"""People drawn with replacement: metrics in resamples, and what their spread says.

A metric over resamples is the metric with counts (draws, n), how often each row was drawn, as
weights; nothing is ever copied.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike

from ecgcmr.errors import InputError
from ecgcmr.evaluation.statistics import persons, seeds
from ecgcmr.evaluation.statistics.effects import LEVEL, ROUNDING, Effect, numbers
from ecgcmr.evaluation.statistics.inputs import scored

CHUNK = 2**21  # counts at once: 16 MB in float64, a few times that with what comes between

Metric = Callable[[np.ndarray], np.ndarray]  # counts (draws, n) -> (draws,)


def resamples(n: int, draws: int, seed: int, strata: ArrayLike | None = None) -> np.ndarray:
    """How often each subject is drawn, in each resample of n subjects with replacement.

    Args:
        n: subjects.
        draws: resamples.
        seed: of the random numbers; the same seed gives the same resamples for every metric and
            system.
        strata: (n,), a class for each subject; each class then keeps its size, so that no resample
            is without positives.

    Returns:
        (draws, n) float32, whole numbers.

    Raises:
        InputError: nothing to draw, or strata of another length.

    Source: Efron & Tibshirani 1993, An Introduction to the Bootstrap.
    """
    if n < 1 or draws < 1:
        raise InputError(f"resamples: {draws} of {n} subjects; both must be at least 1")
    groups = np.zeros(n, int)
    if strata is not None:
        groups = np.unique(np.asarray(strata), return_inverse=True)[1]
    if groups.shape != (n,):
        raise InputError(f"strata {groups.shape}: give one class for each of the {n} subjects")
    random, counts = np.random.default_rng(seed), np.zeros((draws, n), np.float32)
    for group in range(groups.max() + 1):
        subjects = np.flatnonzero(groups == group)
        for row in counts:
            places = random.integers(len(subjects), size=len(subjects))
            row[subjects] = np.bincount(places, minlength=len(subjects))
    return counts


def resamples_of_people(
    people: ArrayLike, draws: int, seed: int, labels: ArrayLike | None = None
) -> np.ndarray:
    """How often each row is drawn where people are drawn, with all their visits.

    Args:
        people: (n,) whose row it is.
        draws, seed: see `resamples`.
        labels: (n,) 0 or 1; people with a positive visit and people without then keep their number.

    Returns:
        (draws, n) float32, whole numbers, alike for rows of one person.
    """
    person = persons.of_rows(people, np.size(people))
    strata = None
    if labels is not None:
        strata = np.zeros(persons.count(person))
        np.maximum.at(strata, person, np.asarray(labels, float))
    return resamples(persons.count(person), draws, seed, strata)[:, person]


def bootstrap_auroc(
    scores: ArrayLike, labels: ArrayLike, counts: ArrayLike, name: str = "label"
) -> np.ndarray:
    """AUROC of every member in every resample; ties count one half.

    Args:
        scores: (m, n), larger means more likely positive.
        labels: (n,) 0 or 1.
        counts: (draws, n) from `resamples`.
        name: of the label, for the error.

    Returns:
        (draws, m); NaN for a member that is not finite, and for a resample with one class.

    Raises:
        InputError: only one class; shapes that do not fit.
    """
    return _bootstrap(_auroc_of, scores, labels, counts, name)


def bootstrap_average_precision(
    scores: ArrayLike, labels: ArrayLike, counts: ArrayLike, name: str = "label"
) -> np.ndarray:
    """Average precision (`metrics.average_precision`) of every member in every resample.

    Args:
        scores: (m, n), larger means more likely positive.
        labels: (n,) 0 or 1.
        counts: (draws, n) from `resamples`; with strata, since the metric moves with the share of
            positives.
        name: of the label, for the error.

    Returns:
        (draws, m); NaN for a member that is not finite, and for a resample without positives.

    Raises:
        InputError: only one class; shapes that do not fit.
    """
    return _bootstrap(_average_precision_of, scores, labels, counts, name)


def bootstrap_pearson(
    outputs: ArrayLike, targets: ArrayLike, counts: ArrayLike, names: Sequence[str] = ()
) -> np.ndarray:
    """Pearson's r of every output of every member in every resample, over rows of known target.

    Args:
        outputs: (m, n, k).
        targets: (n, k), NaN where missing.
        counts: (draws, n) from `resamples`.
        names: of the targets, for the error.

    Returns:
        (draws, m, k); NaN for a member that is not finite, and where r is undefined: a constant
        output, or a resample of one value.

    Raises:
        InputError: a target without two known values that differ; shapes that do not fit.
    """
    outputs, targets = np.asarray(outputs, float), np.asarray(targets, float)
    if outputs.ndim != 3 or outputs.shape[1:] != targets.shape:
        raise InputError(
            f"outputs {outputs.shape}: must be (members, *targets), and targets are {targets.shape}"
        )
    counts, mask = _counts(counts, len(targets)), ~np.isnan(targets)
    y = _standard(targets, mask)
    for column in np.flatnonzero(~y.any(0)).tolist():
        name = names[column] if column < len(names) else f"column {column}"
        raise InputError(
            f"target '{name}': no two known values that differ; r needs two, take a larger cohort"
        )
    size, sum_y, sum_yy = _sums(counts, mask, y, y * y)
    distribution = np.full((len(counts), *outputs.shape[::2]), np.nan)
    for member in np.flatnonzero(np.isfinite(outputs).all((1, 2))):
        x = _standard(outputs[member], mask)
        sum_x, sum_xx, sum_xy = _sums(counts, x, x * x, x * y)
        with np.errstate(divide="ignore", invalid="ignore"):
            spread_x, spread_y = _spread(size, sum_x, sum_xx), _spread(size, sum_y, sum_yy)
            distribution[:, member] = (sum_xy - sum_x * sum_y / size) / np.sqrt(spread_x * spread_y)
    return np.clip(distribution, -1, 1)


def interval(distribution: ArrayLike, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray]:
    """Percentiles of a bootstrap distribution along its first axis; NaN are left out.

    Args:
        distribution: (draws, …).
        level: share of the draws inside.

    Returns:
        Low and high, (…,) each (numbers for one distribution); NaN where no draw is a number.
    """
    distribution = np.asarray(distribution, float)
    missing = np.isnan(distribution).all(0)
    low, high = np.nanquantile(
        np.where(missing, 0, distribution), ((1 - level) / 2, (1 + level) / 2), axis=0
    )
    return np.where(missing, np.nan, low)[()], np.where(missing, np.nan, high)[()]


def paired(observed: float, distribution: ArrayLike) -> Effect:
    """A difference of two systems on the same subjects, with its bootstrap interval and test.

        p = min(1, 2 (1 + min(#{d ≤ 0}, #{d ≥ 0})) / (1 + draws))

    Args:
        observed: the difference on the cohort itself, of metrics of order one.
        distribution: (draws,) the same difference in each resample; NaN are left out.

    Returns:
        Percentile interval and two-sided p, at least 2 / (draws + 1); NaN if the difference or all
        draws are NaN.

    Source: Davison & Hinkley 1997, Bootstrap Methods and their Application, chapter 4.
    """
    differences = numbers(distribution)
    if np.isnan(observed) or not len(differences):
        return Effect(float(observed), np.nan, np.nan, np.nan)
    low, high = interval(differences)
    # Identical systems differ by rounding; as a difference of one sign it would be significant.
    least = min(int((differences <= ROUNDING).sum()), int((differences >= -ROUNDING).sum()))
    return Effect(
        float(observed), float(low), float(high), min(1.0, 2 * (1 + least) / (1 + len(differences)))
    )


def bootstrap_contrast(
    values: ArrayLike, distribution: ArrayLike, weights: ArrayLike, systems: ArrayLike
) -> Effect:
    """Σ w_i value_i as a statement about systems, other people and other seeds (`seeds.contrast`),
    of any metric that can be resampled.

    Args:
        values: (m,) the metric of each member.
        distribution: (draws, m) the same in resamples of people; draws with a NaN are left out.
        weights: (m,), within a system all alike.
        systems: (m,) of which system a member is a seed.

    Returns:
        Value, Student's interval and p; NaN if a value or all draws are.
    """
    members, draws = np.asarray(values, float), np.asarray(distribution, float)
    draws = draws[np.isfinite(draws).all(1)]

    def variance(of: np.ndarray) -> tuple[float, float]:
        return (float((draws @ of).var(ddof=1)) if len(draws) > 1 else np.nan), np.inf

    names = seeds.systems_of(systems, len(members))
    return seeds.contrast(members, np.asarray(weights, float), names, variance)


def _counts(counts: ArrayLike, n: int) -> np.ndarray:
    drawn_counts = np.asarray(counts)
    if drawn_counts.ndim != 2 or drawn_counts.shape[1] != n:
        raise InputError(
            f"counts {drawn_counts.shape}: must be (draws, {n}), one for each row; "
            "take them from resamples"
        )
    return drawn_counts


def _bootstrap(
    of: Callable[[np.ndarray, np.ndarray], Metric],
    scores: ArrayLike,
    labels: ArrayLike,
    counts: ArrayLike,
    name: str,
) -> np.ndarray:
    """A metric of every member in every resample, (draws, m): prepared once per member, and
    evaluated chunk by chunk.
    """
    scores, positive = scored(scores, labels, name)
    counts = _counts(counts, len(positive))
    distribution = np.full((len(counts), len(scores)), np.nan)
    for member in np.flatnonzero(np.isfinite(scores).all(1)):
        metric = of(scores[member], positive)
        for rows, chunk in _chunks(counts):
            with np.errstate(divide="ignore", invalid="ignore"):
                distribution[rows, member] = metric(chunk)
    return distribution


def _chunks(counts: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Resamples in float64, few enough at a time to bound memory."""
    step = max(1, CHUNK // counts.shape[1])
    for start in range(0, len(counts), step):
        rows = slice(start, start + step)
        yield rows, counts[rows].astype(float)


def _auroc_of(scores: np.ndarray, positive: np.ndarray) -> Metric:
    """Σ over positives of (negatives below + half of those beside) / (P N), everything counted as
    often as drawn.
    """
    miss = _ordered(scores, ~positive)
    start, end = (
        np.searchsorted(scores[miss], scores[positive], side) for side in ("left", "right")
    )

    def metric(counts: np.ndarray) -> np.ndarray:
        hits, below = counts[:, positive], _running(counts[:, miss])
        won = (hits * (below[:, start] + below[:, end])).sum(1) / 2
        return won / (hits.sum(1) * below[:, -1])

    return metric


def _average_precision_of(scores: np.ndarray, positive: np.ndarray) -> Metric:
    """Mean over positives of (positives / subjects) at their score or above, everything counted as
    often as drawn.
    """
    hit, everyone = _ordered(scores, positive), _ordered(scores, np.ones_like(positive))
    start_hit, start = (np.searchsorted(scores[places], scores[hit]) for places in (hit, everyone))

    def metric(counts: np.ndarray) -> np.ndarray:
        hits, true_positives, called_positive = (
            counts[:, hit],
            _running(counts[:, hit]),
            _running(counts[:, everyone]),
        )
        true_positives, called_positive = (
            true_positives[:, -1:] - true_positives[:, start_hit],
            called_positive[:, -1:] - called_positive[:, start],
        )
        # Nobody at this score or above was drawn: the positive has no weight either.
        precision = true_positives / np.where(called_positive == 0, 1, called_positive)
        return (hits * precision).sum(1) / hits.sum(1)

    return metric


def _ordered(scores: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Places of those subjects from the lowest score to the highest."""
    places = np.flatnonzero(mask)
    return places[np.argsort(scores[places], kind="stable")]


def _running(counts: np.ndarray) -> np.ndarray:
    """(draws, n) -> (draws, n + 1): how many were drawn before each place."""
    running = np.zeros((counts.shape[0], counts.shape[1] + 1))
    np.cumsum(counts, axis=1, out=running[:, 1:])
    return running


def _standard(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Columns (n, k) with mean 0 and spread 1 over the known rows, and 0 elsewhere.

    All 0 for a constant column.

    Sums of squares in resamples lose no digits then.
    """
    values, n = np.where(mask, values, 0), np.maximum(mask.sum(0), 1)
    deviations = np.where(mask, values - values.sum(0) / n, 0)
    spread = np.sqrt((deviations**2).sum(0) / n)
    # Rounding leaves a constant a spread of some ulps of its value.
    constant = spread <= ROUNDING * np.abs(values).max(0)
    return np.where(constant, 0, deviations / np.where(constant, 1, spread))


def _sums(counts: np.ndarray, *columns: np.ndarray) -> list[np.ndarray]:
    """Sums over each resample, (draws, k) for each (n, k)."""
    sums = [np.empty((len(counts), column.shape[1])) for column in columns]
    for rows, chunk in _chunks(counts):
        for total, column in zip(sums, columns):
            total[rows] = chunk @ column
    return sums


def _spread(size: np.ndarray, total: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """Sum of squared deviations from the resample's mean.

    NaN where nothing but rounding is left of it.
    """
    spread = squares - total**2 / size
    return np.where(spread > ROUNDING * squares, spread, np.nan)
