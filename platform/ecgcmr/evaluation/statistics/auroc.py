"""AUROCs of members on the same rows, and how they vary when other people are drawn and, for a
claim about methods, other seeds.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from ecgcmr.errors import InputError
from ecgcmr.evaluation.statistics import effects, inputs, persons, seeds
from ecgcmr.evaluation.statistics.effects import ROUNDING, Effect

# An AUROC's variance is weighed against that of a model as if this many people had shown the
# latter: of a handful of positives the variance is too uncertain by itself.
MODEL_WEIGHT = 4


def delong(
    scores: ArrayLike, labels: ArrayLike, name: str = "label", people: ArrayLike | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """AUROCs of several members on the same rows, and how they vary together when other people are
    drawn.

        V10_i = mean over negatives j of [x_i > y_j] + ½ [x_i = y_j]
        V01_j = the same mean over positives i
        A = mean V10,   S = cov(V10) / P + cov(V01) / N

    Of several visits a person the deviations of V10 and of V01 from A are summed per person, and
    their covariance, of people with either class, joins.

    Args:
        scores: (m, n), larger means more likely positive.
        labels: (n,) 0 or 1.
        name: of the label, for the error.
        people: (n,) whose row it is; None: each another person's.

    Returns:
        AUROCs (m,) and their covariance (m, m); NaN for a member whose scores are not all finite.
        One person alone with positives (or with negatives) shows no spread: the covariance is NaN.

    Raises:
        InputError: only one class; labels other than 0 and 1; shapes that do not fit.

    Source: DeLong, DeLong & Clarke-Pearson 1988, doi:10.2307/2531595; found by sorting, in n log n,
        as in Sun & Xu 2014, doi:10.1109/LSP.2014.2337313. For people with several rows: Obuchowski
        1997, doi:10.2307/2533958.
    """
    spread = _spread(*inputs.scored(scores, labels, name), people)
    return spread.areas, spread.covariance()


def auroc_contrast(
    scores: ArrayLike,
    labels: ArrayLike,
    weights: ArrayLike,
    name: str = "label",
    people: ArrayLike | None = None,
    systems: ArrayLike | None = None,
) -> Effect:
    """Σ w_i AUROC_i with DeLong's interval, and the test of the hypothesis that it is 0.

    With weights 1/5 for five seeds of one system and −1/5 for five of another it is the difference
    of their means; with (1, −1) it is DeLong's test. Without `systems` the members are taken as
    they are: the interval is about other people, not other seeds. With them it is about the
    systems, whose seeds are drawn as well (`seeds.contrast`).

    Args:
        scores: (m, n), larger means more likely positive.
        labels: (n,) 0 or 1.
        weights: (m,); a member of weight 0 takes no part.
        name: of the label, for the error.
        people: (n,) whose row it is; None: each another person's.
        systems: (m,) of which system a member is a seed, by any name.

    Returns:
        Value, interval, cut to what such a sum can be, and p: normal from variance L S Lᵀ, or
        Student's with `systems`. Scores without any spread (identical members, or all of them
        perfect) have an interval of no width and p = 1, or 0 if the value is not 0; the
        approximation says nothing more there. A member that is not finite makes all of it NaN.

    Raises:
        InputError: as `delong`; weights or systems that do not fit.

    Source: DeLong, DeLong & Clarke-Pearson 1988, doi:10.2307/2531595; Obuchowski 1997,
        doi:10.2307/2533958.
    """
    member_scores, positive = inputs.scored(scores, labels, name)
    member_weights = np.asarray(weights, float)
    if member_weights.shape != (len(member_scores),):
        raise InputError(
            f"weights {member_weights.shape}: give one for each of the {len(member_scores)} members"
        )
    has_weight = member_weights != 0
    kept_weights = member_weights[has_weight]
    spread = _spread(member_scores[has_weight], positive, people)
    value = float(kept_weights @ spread.areas)
    if systems is None:
        variance, _ = spread.mixed(kept_weights).variance()
        effect = effects.of_error(value, effects.error_of(variance))
    else:
        names = seeds.systems_of(systems, len(member_weights))[has_weight]
        effect = seeds.contrast(
            spread.areas, kept_weights, names, lambda w: spread.mixed(w).variance()
        )
    low, high = np.clip(
        (effect.low, effect.high),
        kept_weights[kept_weights < 0].sum(),
        kept_weights[kept_weights > 0].sum(),
    )
    return Effect(effect.value, float(low), float(high), effect.p)


def auroc_interval(
    scores: ArrayLike, labels: ArrayLike, name: str = "label", people: ArrayLike | None = None
) -> Effect:
    """The mean AUROC of members that are taken as they are, with an interval that holds for few
    positives as well.

        logit A ± t √V / (A (1 − A)),   V = (f V_DeLong + 4 V_model) / (f + 4)

    f are the degrees of freedom of DeLong's variance, t has f + 4. V_model is what Hanley and
    McNeil give for exponential scores of as many people, at an AUROC that two people of the
    rarer class draw to ½. Of hundreds of positives V is DeLong's.

    Args:
        scores: (m, n), larger means more likely positive.
        labels: (n,) 0 or 1.
        name: of the label, for the error.
        people: (n,) whose row it is; None: each another person's.

    Returns:
        Value and interval, inside [0, 1]; p is NaN, as nothing is tested. An AUROC of 0 or 1, which
        has no logit, gets Wilson's interval of as many trials as there are people of the rarer
        class (no AUROC varies more: Birnbaum & Klose); constant scores get one of no width. NaN for
        a member that is not finite, and with one person alone of a class.

    Raises:
        InputError: as `delong`.

    Source: Hanley & McNeil 1982, doi:10.1148/radiology.143.1.7063747; the weighing of variances:
        Smyth 2004, doi:10.2202/1544-6115.1027; the logit: Pepe 2003, The Statistical Evaluation of
        Medical Tests, section 5.2; Birnbaum & Klose 1957, doi:10.1214/aoms/1177706794.
    """
    spread = _spread(*inputs.scored(scores, labels, name), people)
    area = float(spread.areas.mean())
    mean = spread.mixed(np.full(len(spread.areas), 1 / len(spread.areas)))
    variance, freedom = mean.variance()
    if np.isnan(variance):
        return Effect(area, np.nan, np.nan, np.nan)
    fewest = min(spread.positives, spread.negatives)
    if not ROUNDING < area < 1 - ROUNDING:
        low, high = effects.wilson(np.array(area), np.array(fewest))
        return Effect(area, float(low), float(high), np.nan)
    if not effects.error_of(variance):
        return Effect(area, area, area, np.nan)
    inner = (area * fewest + 1) / (fewest + 2)
    model = _exponential_variance(inner, spread.positives, spread.negatives)
    variance = (freedom * variance + MODEL_WEIGHT * model) / (freedom + MODEL_WEIGHT)
    reach = effects.quantile(freedom + MODEL_WEIGHT) * variance**0.5 / (area * (1 - area))
    middle = special.logit(area)
    low, high = special.expit(middle - reach), special.expit(middle + reach)
    return Effect(area, float(low), float(high), np.nan)


@dataclass(frozen=True, eq=False)
class _Spread:
    """AUROCs and what each person adds to their errors.

    Attributes:
        areas: (m,).
        above, below: (m, people), of a person's positives and negatives; 0 for who has none.
        positives, negatives: how many people have such rows.
    """

    areas: np.ndarray
    above: np.ndarray
    below: np.ndarray
    positives: int
    negatives: int

    def mixed(self, weights: np.ndarray) -> "_Spread":
        """One weighted sum in place of the members. Summing before the variance is taken keeps that
        of identical members at 0, which L S Lᵀ would not.
        """
        sums = (weights[None] @ values for values in (self.areas[:, None], self.above, self.below))
        areas, above, below = sums
        return _Spread(areas[:, 0], above, below, self.positives, self.negatives)

    def covariance(self) -> np.ndarray:
        """(m, m)."""
        across = self.above @ self.below.T * _unbiased(self.above.shape[1])
        return (
            self._of(self.above, self.positives)
            + self._of(self.below, self.negatives)
            + (across + across.T)
        )

    def _of(self, deviations: np.ndarray, n: int) -> np.ndarray:
        return deviations @ deviations.T * _unbiased(n)

    def variance(self) -> tuple[float, float]:
        """Of a single member, with its degrees of freedom."""
        parts = [self._of(self.above, self.positives), self._of(self.below, self.negatives)]
        freedoms = [max(1, n - 1) for n in (self.positives, self.negatives)]
        total = self.covariance().item()
        return total, effects.satterthwaite(total, [part.item() for part in parts], freedoms)


def _unbiased(n: int) -> float:
    """What a sum over n deviations from their own mean lacks; NaN where one alone shows nothing."""
    return n / (n - 1) if n > 1 else np.nan


def _spread(scores: np.ndarray, positive: np.ndarray, people: ArrayLike | None) -> _Spread:
    person = persons.of_rows(people, len(positive))
    above, below = _placements(scores, positive)
    areas = above.mean(1)
    by_person = []
    for placements, rows in ((above, positive), (below, ~positive)):
        deviations = np.zeros(scores.shape)
        deviations[:, rows] = (placements - areas[:, None]) / rows.sum()
        by_person.append(persons.sums(deviations, person))
    counts = [len(np.unique(person[rows])) for rows in (positive, ~positive)]
    return _Spread(areas, by_person[0], by_person[1], counts[0], counts[1])


def _exponential_variance(area: float, positives: int, negatives: int) -> float:
    """Of an AUROC whose scores are exponential, the mean over which of the classes is which."""
    placements = area / (2 - area) + 2 * area**2 / (1 + area) - 2 * area**2
    pairs = positives * negatives
    return (area * (1 - area) + ((positives + negatives) / 2 - 1) * placements) / pairs


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
