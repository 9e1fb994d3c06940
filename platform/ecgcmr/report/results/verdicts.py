"""From contrasts to verdicts: when a claim of the paper holds, when it does not, and when these
runs cannot tell.

The rule is stated once, in `verdict_of`. It reads effects and their intervals; how they came about
is `evidence`'s matter.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from scipy import special

from ecgcmr import tasks
from ecgcmr.evaluation import statistics
from ecgcmr.evaluation.statistics import Effect
from ecgcmr.paper import SHORT, TITLES, Claim, Contrast

HOLDS, FAILS, OPEN = "holds", "does not hold", "not decidable"
NOTHING = Effect(math.nan, math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class Comparison:
    """One contrast, decided or not.

    Attributes:
        contrast: what is compared.
        effect: the difference of the means over seeds, in the metric's unit, with interval and p
            about other subjects and other seeds; NaN if not decidable.
        n: test rows (visits) that both were evaluated on.
        people: the subjects that these rows belong to.
        reasons: why there is no effect; empty if there is one.
        adjusted: p after Holm's adjustment: for every comparison that some table shows, alike in
            all of them, or for the others of its claim; NaN outside of both.
    """

    contrast: Contrast
    effect: Effect = NOTHING
    n: int = 0
    reasons: tuple[str, ...] = ()
    adjusted: float = math.nan
    people: int = 0

    @property
    def reason(self) -> str:
        """The reasons as one sentence."""
        return "; ".join(self.reasons)


@dataclass(frozen=True)
class Verdict:
    """What the runs say on a claim; see `verdict_of`.

    Numbers in the metric's unit, NaN where there are none.

    Attributes:
        claim: of the paper.
        verdict: HOLDS, FAILS or OPEN.
        value, low, high, p: of the contrast that supports it least.
        p_unadjusted: p before Holm's adjustment, which "does not hold" needs.
        metric: "auroc", "pearson", or "" for a claim without contrasts.
        reason: in words.
        comparisons: all its contrasts.
    """

    claim: Claim
    verdict: str
    value: float
    low: float
    high: float
    p: float
    metric: str
    reason: str
    comparisons: tuple[Comparison, ...]
    p_unadjusted: float = math.nan


def verdict_of(claim: Claim, comparisons: Sequence[Comparison]) -> Verdict:
    """The verdict on a claim from its contrasts.

    With d a contrast's difference, [low, high] its 95 % interval and m the claim's margin (0 for
    superiority):

    * "holds" if every contrast has low > −m. A claim of several contrasts is an intersection–union
      test (Berger 1982): each is tested at the same level and nothing has to be adjusted.
    * "does not hold" if some contrast has high < −m, and still p < 0.05 after Holm's adjustment
      over the claim's contrasts: looking for one failure among many needs it.
    * "not decidable" otherwise: undecided contrasts, missing runs, or a claim that is judged by
      eye.

    Value, interval and p are those of the contrast that supports the claim least (the least (d + m)
    / width of interval): p is two-sided, of the hypothesis d = −m, and Holm's for "does not hold".

    Args:
        claim: of the paper.
        comparisons: its contrasts, in the same order.
    """
    if not comparisons:
        return _verdict(claim, OPEN, None, math.nan, "judged by eye: Figure 6", ())
    bar = 0.0 - claim.margin
    holm_p = statistics.holm([_p(comparison.effect, bar) for comparison in comparisons])
    comparisons = [
        replace(comparison, adjusted=float(p)) for comparison, p in zip(comparisons, holm_p)
    ]
    by_support = sorted(
        (c for c in comparisons if not c.reasons), key=lambda c: _support(c.effect, bar)
    )
    contrary = [c for c in by_support if c.effect.high < bar and c.adjusted < 1 - statistics.LEVEL]
    if contrary:
        reason = f"the other way round: {_listed(contrary, claim)}"
        return _verdict(claim, FAILS, contrary[0], contrary[0].adjusted, reason, comparisons)
    least = by_support[0] if by_support else None
    p = _p(least.effect, bar) if least else math.nan
    inconclusive = [c for c in by_support if not c.effect.low > bar]
    missing = [reason for comparison in comparisons for reason in comparison.reasons]
    if inconclusive or missing:
        return _verdict(claim, OPEN, least, p, _doubts(inconclusive, missing, claim), comparisons)
    return _verdict(claim, HOLDS, least, p, _all_exceed(claim), comparisons)


def _verdict(
    claim: Claim,
    word: str,
    least: Comparison | None,
    p: float,
    reason: str,
    comparisons: Sequence[Comparison],
) -> Verdict:
    """The words and the numbers of one contrast, which is named if the claim has several."""
    effect, metric = (least.effect, _metric(least.contrast.task)) if least else (NOTHING, "")
    least_words = f". Shown: {_listed([least], claim)}" if least and len(comparisons) > 1 else ""
    return Verdict(
        claim,
        word,
        effect.value,
        effect.low,
        effect.high,
        p,
        metric,
        reason + least_words,
        tuple(comparisons),
        _p(effect, 0.0 - claim.margin),
    )


def _metric(task: str) -> str:
    return tasks.of(task, (task,)).metric


def _p(effect: Effect, bar: float) -> float:
    """Two-sided p of the hypothesis that the effect is `bar`.

    For one other than 0 by the normal width of its interval.
    """
    if bar == 0 or math.isnan(effect.p):
        return effect.p
    width = effect.high - effect.low
    if width == 0:
        return float(effect.value == bar)
    error = width / (2 * float(special.ndtri((1 + statistics.LEVEL) / 2)))
    return 2 * float(special.ndtr(-abs(effect.value - bar) / error))


def _support(effect: Effect, bar: float) -> float:
    """How far an effect lies above `bar`, in widths of its interval."""
    distance, width = effect.value - bar, effect.high - effect.low
    return distance / width if width else math.copysign(math.inf, distance) if distance else 0.0


# -- words -----------------------------------------------------------------------------------------


def _doubts(inconclusive: Sequence[Comparison], missing: Sequence[str], claim: Claim) -> str:
    """What keeps a claim from holding."""
    total = len(claim.contrasts)
    words = []
    if inconclusive and total > 1:
        count = f"{len(inconclusive)} of {total} intervals are not above {_bar(claim)}"
        words.append(f"{count}: {_listed(inconclusive, claim)}")
    elif inconclusive:
        words.append(f"the interval is not above {_bar(claim)}")
    if missing:
        words.append(f"missing: {_some(missing)}")
    return "; ".join(words)


def _all_exceed(claim: Claim) -> str:
    total = len(claim.contrasts)
    return (
        f"all {total} intervals are above {_bar(claim)}"
        if total > 1
        else f"the interval is above {_bar(claim)}"
    )


def _bar(claim: Claim) -> str:
    scale, unit = (100, " point") if _metric(claim.contrasts[0].task) == "auroc" else (1, "")
    return f"−{claim.margin * scale:g}{unit}" if claim.margin else "0"


def _listed(comparisons: Sequence[Comparison], claim: Claim) -> str:
    """`MMCL − MAE for CAD, AF; MMCL − BYOL for AF`, in the claim's order.

    `CAD, AF` if it is about one pair of systems.
    """
    tasks_by_pair: dict[tuple[str, str], list[str]] = {}
    contrasts = [comparison.contrast for comparison in comparisons]
    for contrast in sorted(contrasts, key=claim.contrasts.index):
        tasks_by_pair.setdefault((contrast.better, contrast.worse), []).append(SHORT[contrast.task])
    if len({(contrast.better, contrast.worse) for contrast in claim.contrasts}) == 1:
        return ", ".join(name for names in tasks_by_pair.values() for name in names)
    return _some(
        [
            f"{TITLES[better]} − {TITLES[worse]} for {', '.join(names)}"
            for (better, worse), names in tasks_by_pair.items()
        ]
    )


def _some(words: Sequence[str], most: int = 3) -> str:
    """Distinct words, the first few of them."""
    distinct = list(dict.fromkeys(words))
    more = f" and {len(distinct) - most} more" if len(distinct) > most else ""
    return "; ".join(distinct[:most]) + more


def versus(contrast: Contrast) -> str:
    """`MMCL − MAE for AF with 10 % of the labels`."""
    better, worse = (TITLES.get(system, system) for system in (contrast.better, contrast.worse))
    return f"{better} − {worse} for {asked(contrast.task, contrast.label_fraction)}"


def asked(task: str, label_fraction: float) -> str:
    """`AF with 10 % of the labels`."""
    return SHORT.get(task, task) + (
        f" with {100 * label_fraction:g} % of the labels" if label_fraction != 1 else ""
    )
