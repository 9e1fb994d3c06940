"""Whether probabilities mean what they say, and how they are made to."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from ecgcmr.errors import InputError
from ecgcmr.evaluation.statistics import effects, inputs, persons
from ecgcmr.evaluation.statistics.effects import ROUNDING, Effect

# Probabilities nearer to 0 or 1 are claims that no cohort can check, and their logit would rule the
# fit.
CLIP = 1e-7


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
        half = effects.quantile() * np.sqrt(np.einsum("in,ij,jn->n", basis, self.covariance, basis))
        if k > 1:
            reach = effects.quantile(k - 1) * by_seed.std(0, ddof=1) / k**0.5
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
    return special.expit(special.logit(inputs.probabilities(probability)) + shift)


def calibration(
    probability: ArrayLike,
    labels: ArrayLike,
    name: str = "label",
    people: ArrayLike | None = None,
) -> Calibration:
    """Calibration of one member's probabilities.

        intercept a:  logit P(y = 1) = a + logit p
        slope b:      logit P(y = 1) = c + b logit p

    The intercept is 0 if the mean is right, above if risk is understated; the slope is 1 if the
    spread is right, below if predictions are too extreme.

    Args:
        probability: (n,) in [0, 1]; taken as at least 1e-7 and at most 1 − 1e-7.
        labels: (n,) 0 or 1.
        name: of the label, for the error.
        people: (n,) whose row it is; None: each another person's.

    Returns:
        Intercept and slope with Wald intervals, about other people; Brier score, the mean of
        (p − y)²; expected calibration error, the mean distance of observed from predicted over the
        bins of `reliability`. The slope is NaN where no finite one is best: constant predictions,
        or classes that a threshold separates. All are NaN if a probability is.

    Raises:
        InputError: only one class; labels other than 0 and 1; probabilities outside [0, 1]; lengths
            that differ.

    Source: Cox 1958, doi:10.1093/biomet/45.3-4.562; Van Calster et al. 2019,
        doi:10.1186/s12916-019-1466-7; Naeini et al. 2015, doi:10.1609/aaai.v29i1.9602, whose bins
        are of equal width.
    """
    y, chance = inputs.two_classes(labels, name), inputs.probabilities(probability)
    inputs.same_length(chance, y, name)
    person = persons.of_rows(people, len(y))
    nothing = Effect(np.nan, np.nan, np.nan, np.nan)
    if np.isnan(chance).any():
        return Calibration(nothing, nothing, np.nan, np.nan)
    logits = special.logit(np.clip(chance, CLIP, 1 - CLIP))
    ones = np.ones_like(logits)
    intercept, slope = (
        effects.of_error(*_last(*_logistic(ones[:, None], y, logits, person))),
        nothing,
    )
    if not _separated(logits, y):
        # Centred, the columns are independent; the slope is the same.
        design = np.column_stack((ones, logits - logits.mean()))
        slope = effects.of_error(*_last(*_logistic(design, y, 0 * ones, person)), against=1)
    bins = reliability(chance, y, people=person)
    ece = (bins.n * np.abs(bins.observed - bins.predicted)).sum() / len(y)
    return Calibration(intercept, slope, float(((chance - y) ** 2).mean()), float(ece))


def recalibration(
    logits: ArrayLike, labels: ArrayLike, name: str = "label", people: ArrayLike | None = None
) -> Recalibration:
    """Fit a model's logits to a population: intercept and slope of Cox's logistic recalibration.

    A model of balanced classes is right about neither; the intercept brings its mean to the
    population's prevalence, as `prior_corrected` would, and the slope its spread to what the labels
    bear out.

    Args:
        logits: (n,), finite.
        labels: (n,) 0 or 1, in the population's proportion.
        name: of the label, for the error.
        people: (n,) whose row it is; None: each another person's. The covariance is about other
            people.

    Raises:
        InputError: only one class; labels other than 0 and 1; lengths that differ.

    Source: Cox 1958, doi:10.1093/biomet/45.3-4.562; Steyerberg et al. 2004, doi:10.1002/sim.1844.
    """
    y, x = inputs.two_classes(labels, name), np.asarray(logits, float)
    inputs.same_length(x, y, name)
    person = persons.of_rows(people, len(y))
    ones, middle = np.ones((len(y), 1)), x.mean()
    if not _separated(x, y):
        beta, covariance = _logistic(np.column_stack((ones, x - middle)), y, 0 * y, person)
        if beta[1] > 0:
            # Back from the centred columns, which are independent.
            back = np.array([[1, -middle], [0, 1]])
            intercept, slope = back @ beta
            return Recalibration(
                float(intercept), float(slope), back @ covariance @ back.T, "intercept and slope"
            )
    # The slope's sign; the best of those allowed is then 0.
    flat = x[y == 1].mean() <= x[y == 0].mean()
    (intercept,), ((variance,),) = _logistic(ones, y, 0 * y if flat else x, person)
    rule = "prevalence" if flat else "intercept"
    return Recalibration(float(intercept), float(not flat), np.diag([variance, 0.0]), rule)


def reliability(
    probability: ArrayLike,
    labels: ArrayLike,
    bins: int = 10,
    name: str = "label",
    people: ArrayLike | None = None,
) -> Bins:
    """Predicted against observed, in bins of equally many rows, with Wilson's interval of the
    observed share.

    Several rows of a person count for as many trials as their share varies like, n over the design
    effect; where all of a bin are alike, for as many as there are people.

    Args:
        probability: (n,) in [0, 1].
        labels: (n,) 0 or 1; one class alone is no fault here.
        bins: at most; equal probabilities stay together, so fewer come of few distinct ones.
        name: of the label, for the error.
        people: (n,) whose row it is; None: each another person's.

    Returns:
        From the lowest prediction to the highest; no bins if a probability is NaN.

    Raises:
        InputError: labels other than 0 and 1; probabilities outside [0, 1]; lengths that differ; no
            bin asked for.

    Source: Wilson 1927, doi:10.1080/01621459.1927.10502953; of a survey's clusters: Korn & Graubard
        1998, Survey Methodology 24(2), pp. 193–201.
    """
    y, chance = inputs.one_label(labels, name), inputs.probabilities(probability)
    inputs.same_length(chance, y, name)
    person = persons.of_rows(people, len(y))
    if bins < 1:
        raise InputError(f"bins is {bins}: must be at least 1")
    if np.isnan(chance).any() or not len(chance):
        empty = np.empty(0)
        return Bins(empty, empty, empty, empty, empty.astype(int))
    inner = np.quantile(chance, np.arange(1, bins) / bins)
    _, bin_of, n = np.unique(
        np.searchsorted(inner, chance), return_inverse=True, return_counts=True
    )
    observed = np.bincount(bin_of, y) / n
    trials = [_trials(y[bin_of == i], person[bin_of == i]) for i in range(len(n))]
    low, high = effects.wilson(observed, np.array(trials))
    return Bins(np.bincount(bin_of, chance) / n, observed, low, high, n)


def _trials(labels: np.ndarray, people: np.ndarray) -> float:
    """How many independent rows tell as much of the share of positives as these do."""
    person, n = persons.of_rows(people, len(labels)), len(labels)
    deviations = labels - labels.mean()
    if not deviations.any():
        return persons.count(person)
    return n / persons.design_effect(deviations[None], person).item()


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
    design: np.ndarray, labels: np.ndarray, offset: np.ndarray, person: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Maximum likelihood of logit P(y = 1) = offset + design β by Newton's method: β and its
    covariance, the inverse information L⁻ᵀ L⁻¹ of independent rows with the design effect of the
    people's scores between.

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
            scores = (design * (labels - chance)[:, None]).T
            root = np.linalg.inv(np.linalg.cholesky(information))
            return beta, root.T @ persons.design_effect(scores, person) @ root
        # Near the maximum a good step changes the likelihood by less than its rounding.
        least = likelihood(beta) * (1 + ROUNDING)
        while likelihood(beta + step) < least:
            step = step / 2
        beta = beta + step
    return np.full(len(beta), np.nan), np.full((len(beta), len(beta)), np.nan)
