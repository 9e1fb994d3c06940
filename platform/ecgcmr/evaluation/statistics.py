"""How sure an answer is: intervals, paired tests and calibration, exact where a formula exists and
resampled elsewhere.

One idea: subjects are drawn, members are not. Scores are (m, n), one row per member (a seed, a
system, a trial) over the same n subjects, so every comparison is paired: DeLong's covariance holds
for all members together, and one set of resamples, counts (draws, n) of how often each subject was
drawn, serves every metric and every member. A metric over resamples is the metric with these counts
as weights; nothing is ever copied. A member whose outputs are not numbers gets NaN while the others
get their values. The spread over seeds is another matter, and `mean_interval` is for it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from ecgcmr.errors import InputError

LEVEL = 0.95
CHUNK = 2**21  # counts at once: 16 MB in float64, a few times that with what comes between
# Probabilities nearer to 0 or 1 are claims that no cohort can check, and their logit would rule the
# fit.
CLIP = 1e-7
# Metrics are of order one, so a smaller difference is that of two orders of summation.
ROUNDING = 1e-12

Metric = Callable[[np.ndarray], np.ndarray]  # counts (draws, n) -> (draws,)


@dataclass(frozen=True)
class Effect:
    """A number with its uncertainty; `p` is two-sided and NaN where no test was made."""

    value: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Calibration:
    """Whether probabilities mean what they say: intercept 0 and slope 1 do.

    `p` of each is against that.
    """

    intercept: Effect
    slope: Effect
    brier: float
    ece: float


@dataclass(frozen=True)
class Recalibration:
    """From a model's logit to the risk in a population: logit P(y = 1) = intercept + slope · logit.

    Attributes:
        intercept, slope: as fitted; the slope is never negative.
        covariance: (2, 2), of intercept and slope; 0 for what was not fitted.
        rule: "intercept and slope"; "intercept" where no finite slope is best (then 1);
            "prevalence" where the best slope is not above 0 (then 0): such a model does not rank,
            and everybody has the population's risk.
    """

    intercept: float
    slope: float
    covariance: np.ndarray
    rule: str

    def risk(self, logits: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The risk by the mean logit of several seeds, with its 95 % interval.

            η = a + b m̄,   half width² = (z σ_calibration)² + (t b s / √k)²

        m̄ and s are mean and spread of k logits.

        It covers that other seeds were drawn and that other subjects calibrated. It does not cover
        another training set, another population, or that a risk is a share of many people and no
        verdict on one.

        Args:
            logits: (seeds, n). One seed alone has no spread: only the calibration's part is then in
                the interval.

        Returns:
            Risk, low and high, (n,) each.
        """
        by_seed = np.asarray(logits, float)
        k, mean = len(by_seed), by_seed.mean(0)
        basis = np.stack([np.ones_like(mean), mean])
        half = float(special.ndtri((1 + LEVEL) / 2)) * np.sqrt(
            np.einsum("in,ij,jn->n", basis, self.covariance, basis)
        )
        if k > 1:
            reach = float(special.stdtrit(k - 1, (1 + LEVEL) / 2)) * by_seed.std(0, ddof=1) / k**0.5
            half = np.hypot(half, self.slope * reach)
        eta = self.intercept + self.slope * mean
        return special.expit(eta), special.expit(eta - half), special.expit(eta + half)


@dataclass(frozen=True)
class Bins:
    """A reliability diagram: mean prediction and observed share of each bin with the share's
    interval, all (bins,).
    """

    predicted: np.ndarray
    observed: np.ndarray
    low: np.ndarray
    high: np.ndarray
    n: np.ndarray


def delong(
    scores: ArrayLike, labels: ArrayLike, name: str = "label"
) -> tuple[np.ndarray, np.ndarray]:
    """AUROCs of several members on the same subjects, and how they vary together when other
    subjects are drawn.

        V10_i = mean over negatives j of [x_i > y_j] + ½ [x_i = y_j]
        V01_j = the same mean over positives i
        A = mean V10,   S = cov(V10) / P + cov(V01) / N

    Args:
        scores: (m, n), larger means more likely positive.
        labels: (n,) 0 or 1.
        name: of the label, for the error.

    Returns:
        AUROCs (m,) and their covariance (m, m); NaN for a member whose scores are not all finite.
        One positive (or one negative) alone shows no spread: the covariance is NaN.

    Raises:
        InputError: only one class; labels other than 0 and 1; shapes that do not fit.

    Source: DeLong, DeLong & Clarke-Pearson 1988, doi:10.2307/2531595; found by sorting, in n log n,
        as in Sun & Xu 2014, doi:10.1109/LSP.2014.2337313.
    """
    above, below = _placements(*_scored(scores, labels, name))
    return above.mean(1), _of_mean(above) + _of_mean(below)


def auroc_contrast(
    scores: ArrayLike, labels: ArrayLike, weights: ArrayLike, name: str = "label"
) -> Effect:
    """Σ w_i AUROC_i with DeLong's interval, and the test of the hypothesis that it is 0.

    With weights 1/5 for five seeds of one system and −1/5 for five of another it is the difference
    of their means; with (1, −1) it is DeLong's test. The seeds are taken as given: the interval is
    about other subjects, not other seeds.

    Args:
        scores: (m, n), larger means more likely positive.
        labels: (n,) 0 or 1.
        weights: (m,); a member of weight 0 takes no part.
        name: of the label, for the error.

    Returns:
        Value, normal interval, cut to what such a sum can be, and p from variance L S Lᵀ. Scores
        without any spread (identical members, or all of them perfect) have an interval of no width
        and p = 1, or 0 if the value is not 0; the normal approximation says nothing more there. A
        member that is not finite makes all of it NaN.

    Raises:
        InputError: as `delong`; weights that do not fit.

    Source: DeLong, DeLong & Clarke-Pearson 1988, doi:10.2307/2531595.
    """
    scores, positive = _scored(scores, labels, name)
    weights = np.asarray(weights, float)
    if weights.shape != (len(scores),):
        raise InputError(f"weights {weights.shape}: give one for each of the {len(scores)} members")
    has_weight = weights != 0
    # Summing placements before taking their variance keeps that of identical members at 0, which L
    # S Lᵀ would not.
    above, below = (
        weights[has_weight] @ placements for placements in _placements(scores[has_weight], positive)
    )
    variance = (_of_mean(above[None]) + _of_mean(below[None])).item()
    effect = _normal(float(above.mean()), 0.0 if variance < ROUNDING**2 else variance**0.5)
    low, high = np.clip(
        (effect.low, effect.high), weights[weights < 0].sum(), weights[weights > 0].sum()
    )
    return Effect(effect.value, float(low), float(high), effect.p)


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
    differences = _numbers(distribution)
    if np.isnan(observed) or not len(differences):
        return Effect(float(observed), np.nan, np.nan, np.nan)
    low, high = interval(differences)
    # Identical systems differ by rounding; as a difference of one sign it would be significant.
    least = min(int((differences <= ROUNDING).sum()), int((differences >= -ROUNDING).sum()))
    return Effect(
        float(observed), float(low), float(high), min(1.0, 2 * (1 + least) / (1 + len(differences)))
    )


def mean_interval(values: ArrayLike, level: float = LEVEL) -> tuple[float, float]:
    """Student's t interval of a mean over seeds.

    Args:
        values: (seeds,); NaN are left out.
        level: of confidence.

    Returns:
        Low and high; NaN with fewer than two values.

    Source: Student 1908, doi:10.2307/2331554.
    """
    numbers = _numbers(values)
    if len(numbers) < 2:
        return np.nan, np.nan
    half = (
        special.stdtrit(len(numbers) - 1, (1 + level) / 2)
        * numbers.std(ddof=1)
        / len(numbers) ** 0.5
    )
    return float(numbers.mean() - half), float(numbers.mean() + half)


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
    coefficients, edge = _numbers(r), np.nextafter(1, 0)
    if not len(coefficients):
        return np.nan
    return float(np.tanh(np.arctanh(np.clip(coefficients, -edge, edge)).mean()))


def prior_corrected(probability: ArrayLike, trained: float, true: float) -> np.ndarray:
    """Probabilities of a model that learned at one prevalence, for a population of another.

        logit p' = logit p + logit(true) − logit(trained)

    It is Bayes' rule where the two populations differ in nothing but their share of positives. It
    keeps the order, and with it AUROC and average precision.

    Args:
        probability: any shape, in [0, 1].
        trained: share of positives that the model was trained with, in (0, 1).
        true: share of positives in the population, in (0, 1).

    Returns:
        Shaped like `probability`.

    Raises:
        InputError: a prevalence of 0 or 1 or beyond; probabilities outside [0, 1].

    Source: Saerens et al. 2002, doi:10.1162/089976602753284446; King & Zeng 2001,
        doi:10.1093/oxfordjournals.pan.a004868.
    """
    for field, share in (("trained", trained), ("true", true)):
        if not 0 < share < 1:
            raise InputError(
                f"prevalence '{field}' is {share}: must be between 0 and 1, without them"
            )
    shift = special.logit(true) - special.logit(trained)
    return special.expit(special.logit(_probabilities(probability)) + shift)


def calibration(probability: ArrayLike, labels: ArrayLike, name: str = "label") -> Calibration:
    """Calibration of one member's probabilities.

        intercept a:  logit P(y = 1) = a + logit p
        slope b:      logit P(y = 1) = c + b logit p

    The intercept is 0 if the mean is right, above if risk is understated; the slope is 1 if the
    spread is right, below if predictions are too extreme.

    Args:
        probability: (n,) in [0, 1]; taken as at least 1e-7 and at most 1 − 1e-7.
        labels: (n,) 0 or 1.
        name: of the label, for the error.

    Returns:
        Intercept and slope with Wald intervals; Brier score, the mean of (p − y)²; expected
        calibration error, the mean distance of observed from predicted over the bins of
        `reliability`. The slope is NaN where no finite one is best: constant predictions, or
        classes that a threshold separates. All are NaN if a probability is.

    Raises:
        InputError: only one class; labels other than 0 and 1; probabilities outside [0, 1]; lengths
            that differ.

    Source: Cox 1958, doi:10.1093/biomet/45.3-4.562; Van Calster et al. 2019,
        doi:10.1186/s12916-019-1466-7; Naeini et al. 2015, doi:10.1609/aaai.v29i1.9602, whose bins
        are of equal width.
    """
    y, chance = _two_classes(labels, name), _probabilities(probability)
    _same_length(chance, y, name)
    nothing = Effect(np.nan, np.nan, np.nan, np.nan)
    if np.isnan(chance).any():
        return Calibration(nothing, nothing, np.nan, np.nan)
    logits = special.logit(np.clip(chance, CLIP, 1 - CLIP))
    ones = np.ones_like(logits)
    intercept, slope = _normal(*_last(*_logistic(ones[:, None], y, logits))), nothing
    if not _separated(logits, y):
        # Centred, the columns are independent; the slope is the same.
        design = np.column_stack((ones, logits - logits.mean()))
        slope = _normal(*_last(*_logistic(design, y, 0 * ones)), against=1)
    bins = reliability(chance, y)
    ece = (bins.n * np.abs(bins.observed - bins.predicted)).sum() / len(y)
    return Calibration(intercept, slope, float(((chance - y) ** 2).mean()), float(ece))


def recalibration(logits: ArrayLike, labels: ArrayLike, name: str = "label") -> Recalibration:
    """Fit a model's logits to a population: intercept and slope of Cox's logistic recalibration.

    A model of balanced classes is right about neither; the intercept brings its mean to the
    population's prevalence, as `prior_corrected` would, and the slope its spread to what the labels
    bear out.

    Args:
        logits: (n,), finite.
        labels: (n,) 0 or 1, in the population's proportion.
        name: of the label, for the error.

    Raises:
        InputError: only one class; labels other than 0 and 1; lengths that differ.

    Source: Cox 1958, doi:10.1093/biomet/45.3-4.562; Steyerberg et al. 2004, doi:10.1002/sim.1844.
    """
    y, x = _two_classes(labels, name), np.asarray(logits, float)
    _same_length(x, y, name)
    ones, middle = np.ones((len(y), 1)), x.mean()
    if not _separated(x, y):
        beta, covariance = _logistic(np.column_stack((ones, x - middle)), y, 0 * y)
        if beta[1] > 0:
            # Back from the centred columns, which are independent.
            back = np.array([[1, -middle], [0, 1]])
            intercept, slope = back @ beta
            return Recalibration(
                float(intercept), float(slope), back @ covariance @ back.T, "intercept and slope"
            )
    # The slope's sign; the best of those allowed is then 0.
    flat = x[y == 1].mean() <= x[y == 0].mean()
    (intercept,), ((variance,),) = _logistic(ones, y, 0 * y if flat else x)
    rule = "prevalence" if flat else "intercept"
    return Recalibration(float(intercept), float(not flat), np.diag([variance, 0.0]), rule)


def conformal(residuals: ArrayLike, level: float) -> float:
    """How far a new answer lies from its prediction, with probability `level` at least: split
    conformal prediction.

    It is the ⌈(n + 1) level⌉-th smallest of |residuals|. The promise is for people like those of
    the residuals, on average over them, and asks nothing of the errors' shape.

    Args:
        residuals: (n,) of rows that trained nothing; NaN are left out.
        level: in (0, 1).

    Returns:
        The half width of the interval, in the unit of the residuals; NaN where there are too few
        for the level.

    Source: Lei et al. 2018, doi:10.1080/01621459.2017.1307116.
    """
    distances = np.sort(np.abs(_numbers(residuals)))
    place = int(np.ceil((len(distances) + 1) * level))
    return float(distances[place - 1]) if place <= len(distances) else np.nan


def reliability(
    probability: ArrayLike, labels: ArrayLike, bins: int = 10, name: str = "label"
) -> Bins:
    """Predicted against observed, in bins of equally many subjects, with Wilson's interval of the
    observed share.

    Args:
        probability: (n,) in [0, 1].
        labels: (n,) 0 or 1; one class alone is no fault here.
        bins: at most; equal probabilities stay together, so fewer come of few distinct ones.
        name: of the label, for the error.

    Returns:
        From the lowest prediction to the highest; no bins if a probability is NaN.

    Raises:
        InputError: labels other than 0 and 1; probabilities outside [0, 1]; lengths that differ; no
            bin asked for.

    Source: Wilson 1927, doi:10.1080/01621459.1927.10502953.
    """
    y, chance = _labels(labels, name), _probabilities(probability)
    _same_length(chance, y, name)
    if bins < 1:
        raise InputError(f"bins is {bins}: must be at least 1")
    if np.isnan(chance).any() or not len(chance):
        empty = np.empty(0)
        return Bins(empty, empty, empty, empty, empty.astype(int))
    inner = np.quantile(chance, np.arange(1, bins) / bins)
    _, bin_of, n = np.unique(
        np.searchsorted(inner, chance), return_inverse=True, return_counts=True
    )
    hits = np.bincount(bin_of, y)
    low, high = _wilson(hits, n)
    return Bins(np.bincount(bin_of, chance) / n, hits / n, low, high, n)


def _numbers(values: ArrayLike) -> np.ndarray:
    """All that are not NaN, in one row."""
    numbers = np.asarray(values, float)
    return numbers[~np.isnan(numbers)]


def _labels(labels: ArrayLike, name: str) -> np.ndarray:
    """Labels as float64 (n,), 0 or 1 each."""
    classes = np.asarray(labels, float)
    if classes.ndim != 1 or not np.isin(classes, (0, 1)).all():
        raise InputError(
            f"label '{name}' {classes.shape}: must be one row of 0 and 1; "
            "leave out subjects without a label"
        )
    return classes


def _two_classes(labels: ArrayLike, name: str) -> np.ndarray:
    classes = _labels(labels, name)
    if not classes.any() or classes.all():
        only = 1 if len(classes) and classes.all() else 0
        raise InputError(
            f"label '{name}': all {len(classes)} rows are {only}; "
            "its statistics need both classes, take a larger cohort"
        )
    return classes


def _scored(scores: ArrayLike, labels: ArrayLike, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Scores as float64 (m, n), and which subjects are positive."""
    positive, member_scores = _two_classes(labels, name) == 1, np.asarray(scores, float)
    if member_scores.ndim != 2 or member_scores.shape[1] != len(positive):
        raise InputError(
            f"scores {member_scores.shape}: must be (members, {len(positive)}), "
            f"as label '{name}' has rows"
        )
    return member_scores, positive


def _counts(counts: ArrayLike, n: int) -> np.ndarray:
    drawn_counts = np.asarray(counts)
    if drawn_counts.ndim != 2 or drawn_counts.shape[1] != n:
        raise InputError(
            f"counts {drawn_counts.shape}: must be (draws, {n}), one for each subject; "
            "take them from resamples"
        )
    return drawn_counts


def _probabilities(probability: ArrayLike) -> np.ndarray:
    chance = np.asarray(probability, float)
    if ((chance < 0) | (chance > 1)).any():
        raise InputError("probability: some lie outside [0, 1]; give probabilities, not logits")
    return chance


def _same_length(chance: np.ndarray, labels: np.ndarray, name: str) -> None:
    if chance.shape != labels.shape:
        raise InputError(
            f"probability {chance.shape}: must be ({len(labels)},), as label '{name}' has rows"
        )


def _placements(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each positive the share of negatives below it, (m, P), and for each negative that of
    positives above, (m, N).
    """
    above, below = scores[:, positive].copy(), scores[:, ~positive].copy()
    finite = np.isfinite(scores).all(1)
    for member in np.flatnonzero(finite):
        hit, miss = scores[member, positive], scores[member, ~positive]
        above[member] = _share_below(hit, miss)
        below[member] = 1 - _share_below(miss, hit)
    above[~finite] = below[~finite] = np.nan
    return above, below


def _share_below(values: np.ndarray, reference: np.ndarray) -> np.ndarray:
    ascending = np.sort(reference)
    below, not_above = (np.searchsorted(ascending, values, side) for side in ("left", "right"))
    return (below + not_above) / (2 * len(reference))


def _of_mean(samples: np.ndarray) -> np.ndarray:
    """Covariance (m, m) of the means of samples (m, n); NaN for n = 1."""
    n = samples.shape[1]
    deviations = samples - samples.mean(1, keepdims=True)
    return (
        deviations @ deviations.T / ((n - 1) * n)
        if n > 1
        else np.full((len(samples), len(samples)), np.nan)
    )


def _normal(value: float, error: float, against: float = 0) -> Effect:
    """Normal interval and two-sided p of the hypothesis that the value is `against`.

    An error of 0 is certainty.
    """
    if error == 0:
        return Effect(value, value, value, float(abs(value - against) <= ROUNDING))
    half = float(special.ndtri((1 + LEVEL) / 2)) * error
    return Effect(
        value, value - half, value + half, 2 * float(special.ndtr(-abs(value - against) / error))
    )


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
    scores, positive = _scored(scores, labels, name)
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


def _separated(logits: np.ndarray, labels: np.ndarray) -> bool:
    """Whether a threshold tells the classes apart, ties on it (so constants too) allowed: no slope
    is the best then.

    Source: Albert & Anderson 1984, doi:10.1093/biomet/71.1.1.
    """
    hit, miss, tie = logits[labels == 1], logits[labels == 0], ROUNDING * np.abs(logits).max()
    return bool(hit.min() >= miss.max() - tie or miss.min() >= hit.max() - tie)


def _last(beta: np.ndarray, covariance: np.ndarray) -> tuple[float, float]:
    """The last coefficient and its standard error."""
    return float(beta[-1]), float(covariance[-1, -1]) ** 0.5


def _logistic(
    design: np.ndarray, labels: np.ndarray, offset: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Maximum likelihood of logit P(y = 1) = offset + design β by Newton's method: β and its
    covariance.

    Far from the maximum Newton's step can be too long: one that lowers the likelihood is halved.
    NaN if it does not settle.
    """

    def likelihood(beta: np.ndarray) -> float:
        return -float(np.logaddexp(0, (1 - 2 * labels) * (offset + design @ beta)).sum())

    beta = np.zeros(design.shape[1])
    for _ in range(100):
        chance = special.expit(offset + design @ beta)
        information = (design * (chance * (1 - chance))[:, None]).T @ design
        step = np.linalg.solve(information, design.T @ (labels - chance))
        if np.abs(step).max() <= 1e-9 * max(1, np.abs(beta).max()):
            return beta, np.linalg.inv(information)
        # Near the maximum a good step changes the likelihood by less than its rounding.
        least = likelihood(beta) * (1 + ROUNDING)
        while likelihood(beta + step) < least:
            step = step / 2
        beta = beta + step
    return np.full(len(beta), np.nan), np.full((len(beta), len(beta)), np.nan)


def _wilson(hits: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    z = float(special.ndtri((1 + LEVEL) / 2))
    centre = (hits + z**2 / 2) / (n + z**2)
    half = z / (n + z**2) * np.sqrt(hits * (n - hits) / n + z**2 / 4)
    # The share itself bounds them: rounding would leave error bars of negative length at 0 and 1.
    return np.clip(centre - half, 0, hits / n), np.clip(centre + half, hits / n, 1)
