"""Do tests and intervals hold where people come several times, and where few are ill? Simulated people, nothing is trained.

    python benchmarks/studies/people.py [--people 240 750 6007] [--visits 1 2 5] [--draws 2000]

Prints a line of JSON per cohort: `type_1`, how often systems that are equally good are told apart at 5 % (wanted: at most
0.06), and `coverage`, how often a 95 % interval holds what is true (wanted: at least 0.94); `assured` is how often the
interval of a phenotype holds 0.9 of new people's visits (wanted: 0.9 or more). `as_rows`: the same visits taken for as many
people. Then a line for each number of positives and AUROC, of 95 % intervals of the AUROC: `ours`, beside it DeLong's plain
one and the percentiles of a bootstrap.

In eight of a hundred people a disease is found, in a quarter of these between their visits. A score is the disease, what a
person has, what a system makes of the person, and the visit; of members, also what a seed makes of it. Seeds of a method
differ in how well they tell the ill by 2 points of AUROC, as the paper's do for AF.
"""

import argparse
import itertools
import json
from typing import Any

import numpy as np
from scipy import special

from ecgcmr.evaluation import statistics
from ecgcmr.evaluation.statistics import Effect

PREVALENCE, SEPARATION = 0.08, 1.0
PERSON, SYSTEM, SEED, VISIT = 0.8, 0.5, 0.3, 0.5  # standard deviations of the parts of a score
SEED_SPREAD = 0.08  # of the separation: 2 points of AUROC
SEEDS = 5
POSITIVES, AUROCS = (5, 10, 20, 40), (0.7, 0.8, 0.94)
RESAMPLES = 1000
FEWEST = 250  # simulations of a large cohort


class Cohort:
    """People and their visits; who is ill at which is the same in every simulation."""

    def __init__(self, people: int, visits: int, rng: np.random.Generator) -> None:
        self.people, self.visits, self.rng = people, visits, rng
        self.person = np.repeat(np.arange(people), visits)
        ill = np.zeros((people, visits))
        ill[: round(PREVALENCE * people)] = 1
        ill[: round(PREVALENCE * people) // 4, : visits // 2] = 0
        self.labels = ill.ravel()

    def noise(self, members: int, by_person: float, by_visit: float) -> np.ndarray:
        """(members, rows)."""
        persons = by_person * self.rng.standard_normal((members, self.people))
        rows = by_visit * self.rng.standard_normal((members, len(self.person)))
        return persons[:, self.person] + rows

    def systems(self) -> np.ndarray:
        """Scores of two systems that are equally good, (2, rows)."""
        return SEPARATION * self.labels + self.noise(1, PERSON, 0) + self.noise(2, SYSTEM, VISIT)

    def methods(self) -> np.ndarray:
        """Scores of the seeds of two methods that are equally good, (2 · SEEDS, rows)."""
        systems = self.noise(2, SYSTEM, VISIT).repeat(SEEDS, 0)
        separation = SEPARATION + SEED_SPREAD * self.rng.standard_normal((2 * SEEDS, 1))
        own = self.noise(2 * SEEDS, SEED, 0)
        return separation * self.labels + self.noise(1, PERSON, 0) + systems + own


def told_apart(effects: list[Effect]) -> float:
    return round(float(np.mean([effect.p < 0.05 for effect in effects])), 4)


def holds(intervals: list[tuple[float, float]], truth: float) -> float:
    return round(float(np.mean([low <= truth <= high for low, high in intervals])), 4)


def ends(effect: Effect) -> tuple[float, float]:
    return effect.low, effect.high


def of_cohort(people: int, visits: int, draws: int, rng: np.random.Generator) -> dict[str, Any]:
    cohort = Cohort(people, visits, rng)
    line = {
        "people": people,
        "visits": visits,
        "positive_people": round(PREVALENCE * people),
        "draws": draws,
        "by_person": measured(cohort, cohort.person, draws),
    }
    if visits > 1:
        line["as_rows"] = measured(cohort, np.arange(people * visits), max(100, draws // 4))
    return line


def measured(cohort: Cohort, whose: np.ndarray, draws: int) -> dict[str, Any]:
    """Of one unit of analysis: how often equals are told apart, how often intervals hold."""
    y, contrast = cohort.labels, [1.0, -1.0]
    weights = np.repeat([1 / SEEDS, -1 / SEEDS], SEEDS)
    systems = np.repeat([0, 1], SEEDS)
    pairs, same_seeds, methods, areas, fits, shares = [], [], [], [], [], []
    for _ in range(draws):
        scores = cohort.systems()
        pairs.append(
            statistics.auroc_contrast(scores, y, contrast, people=whose, systems=["a", "b"])
        )
        areas.append(statistics.auroc_interval(scores[:1], y, people=whose))
        seeds = cohort.methods()
        same_seeds.append(statistics.auroc_contrast(seeds, y, weights, people=whose))
        methods.append(statistics.auroc_contrast(seeds, y, weights, people=whose, systems=systems))
        logits = -2.5 + cohort.noise(1, 1.0, 0.3)[0]
        outcome = disease(cohort, logits)
        chance = special.expit(logits)
        fits.append(statistics.calibration(chance, outcome, people=whose))
        bins = statistics.reliability(chance, outcome, 5, people=whose)
        shares.append((bins.low <= bins.predicted) & (bins.predicted <= bins.high))
    type_1 = {
        "two systems": told_apart(pairs),
        "two methods": told_apart(methods),
        "two methods, seeds as given": told_apart(same_seeds),
    }
    coverage = {
        "auroc": holds([ends(x) for x in areas], float(np.mean([x.value for x in areas]))),
        "calibration intercept": holds([ends(x.intercept) for x in fits], 0.0),
        "calibration slope": holds([ends(x.slope) for x in fits], 1.0),
        "reliability": round(float(np.mean(shares)), 4),
        **of_correlations(cohort, whose, min(draws, 500)),
    }
    return {
        "type_1": type_1,
        "coverage": coverage,
        "assured": of_intervals(cohort, whose, min(draws, 500)),
    }


def disease(cohort: Cohort, logits: np.ndarray) -> np.ndarray:
    """Outcomes of that risk, (rows,): visits of one person share the luck, by a normal copula."""
    luck = cohort.noise(1, 0.9**0.5, 0.1**0.5)[0]
    return (special.ndtr(luck) < special.expit(logits)).astype(float)


def of_correlations(cohort: Cohort, whose: np.ndarray, draws: int) -> dict[str, float]:
    """Intervals of Pearson's r and tests of its difference, every simulation a column."""
    truth, first, second = (cohort.noise(draws, 0.8, 0.6) for _ in range(3))
    outputs = np.stack([0.6 * truth + 0.8 * own for own in (first, second)]).swapaxes(1, 2)
    counts = statistics.resamples_of_people(whose, RESAMPLES, 1)
    drawn = statistics.bootstrap_pearson(outputs, truth.T, counts)
    low, high = statistics.interval(drawn[:, 0])
    return {"r": holds(list(zip(low, high)), 0.6)}


def of_intervals(cohort: Cohort, whose: np.ndarray, draws: int) -> float:
    """How much of other people's visits the intervals of a phenotype hold."""
    n = len(np.unique(whose))
    level = statistics.assured(n, 0.9, 0.9)
    held = []
    for _ in range(draws):
        radius = statistics.conformal(cohort.noise(1, 0.8, 0.6)[0], level, whose)
        held.append(2 * special.ndtr(radius) - 1)
    return round(float(np.mean(np.array(held) >= 0.9)), 4)


def of_positives(
    positives: int, truth: float, draws: int, rng: np.random.Generator
) -> dict[str, Any]:
    """Intervals of an AUROC of 750 people, few of them positive."""
    y = np.repeat([1.0, 0.0], [positives, 750 - positives])
    counts = statistics.resamples(750, RESAMPLES, 1, y)
    ours, plain, percentiles = [], [], []
    for draw in range(draws):
        scores = rng.standard_normal((1, 750)) + 2**0.5 * special.ndtri(truth) * y
        ours.append(ends(statistics.auroc_interval(scores, y)))
        plain.append(ends(statistics.auroc_contrast(scores, y, [1.0])))
        if draw < 500:
            drawn = statistics.bootstrap_auroc(scores, y, counts)[:, 0]
            percentiles.append(statistics.interval(drawn))
    return {
        "positives": positives,
        "auroc": truth,
        "draws": draws,
        "coverage": {
            "ours": holds(ours, truth),
            "delong": holds(plain, truth),
            "bootstrap": holds(percentiles, truth),
        },
        "width": round(float(np.median([high - low for low, high in ours])), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, nargs="+", default=[240, 750, 6007])
    parser.add_argument("--visits", type=int, nargs="+", default=[1, 2, 5])
    parser.add_argument("--draws", type=int, default=2000, help="simulations; fewer of large ones")
    args = parser.parse_args()
    rng = np.random.default_rng(2023)
    for people, visits in itertools.product(args.people, args.visits):
        draws = max(FEWEST, min(args.draws, args.draws * 1500 // (people * visits)))
        print(
            json.dumps({"benchmark": "people", **of_cohort(people, visits, draws, rng)}), flush=True
        )
    for positives, truth in itertools.product(POSITIVES, AUROCS):
        line = of_positives(positives, truth, args.draws, rng)
        print(json.dumps({"benchmark": "people", **line}), flush=True)


if __name__ == "__main__":
    main()
