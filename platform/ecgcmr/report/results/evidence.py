"""What the test predictions of the evaluation runs show, with its uncertainty: scores,
comparisons, verdicts on the claims.

Scores are about the runs at hand: the standard deviation over their seeds, and an interval over
test subjects (another cohort of the same size), from DeLong's variance for AUROCs and from a
bootstrap for everything else. Comparisons are about methods: their intervals and tests take
subjects and seeds as drawn. The unit is the subject with all its visits, in every one of them. A
system that lacks a seed is compared with nobody: missing runs never become a smaller sample. This
file computes; it renders nothing.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch
from scipy import special

from ecgcmr import tasks
from ecgcmr.evaluation import metrics, statistics
from ecgcmr.evaluation.statistics import Bins, Calibration, Effect
from ecgcmr.paper import (
    CLAIMS,
    FRACTIONS,
    LAYOUTS,
    LOW_LABEL,
    SEEDS,
    TITLES,
    Claim,
    Contrast,
    Layout,
)
from ecgcmr.report.results import evaluation_runs
from ecgcmr.report.results.evaluation_runs import Cell, EvaluationRuns, PerSeed, TestPredictions
from ecgcmr.report.results.verdicts import NOTHING, Comparison, Verdict, asked, verdict_of, versus
from ecgcmr.tasks import PHENOTYPES, Task

T = TypeVar("T")

DRAWS = 2000  # bootstrap resamples
# Their seed: one for all, so that all systems on the same subjects see the same resamples.
RESAMPLING = 2023
FEWEST = 2  # subjects of either class, or values of a phenotype, that a score needs
PROPOSED, BASELINE = "mmcl", "supervised"  # whom subgroups are shown for
SHOWN = 20  # panels of Figure 4
SEXES = ((0.0, "women"), (1.0, "men"))
AGES = (
    (-math.inf, 55.0, "below 55 years"),
    (55.0, 65.0, "55 to 64 years"),
    (65.0, math.inf, "65 years and above"),
)


@dataclass(frozen=True)
class Score(PerSeed):
    """A metric of one system on some test subjects.

    Attributes:
        values: one per seed, in the metric's unit.
        low, high: the 95 % interval of their mean, over test subjects; NaN where none was made.
        n, positives: test rows (visits), and those of them with the disease; None for a phenotype.
        people: the subjects that these rows belong to.
    """

    low: float = math.nan
    high: float = math.nan
    n: int = 0
    positives: int | None = None
    people: int = 0


@dataclass(frozen=True)
class Line:
    """One phenotype, or the mean of a group of them, for several systems; r by system."""

    name: str
    task: str
    scores: Mapping[str, Score]


@dataclass(frozen=True)
class Precision:
    """Average precision of one system on a disease, beside the test prevalence that a coin would
    reach.
    """

    system: str
    task: str
    score: Score
    prevalence: float


@dataclass(frozen=True)
class Calibrated:
    """Calibration of one system on a disease.

    Attributes:
        system, task: of whom on what.
        as_trained: of the probabilities as trained, the five runs' logits averaged.
        prior_corrected: the same, moved to the prevalence of the population; None if the runs do
            not say what they trained at.
        single: of each run by itself, as trained.
        trained_at, population: share of positives in the balanced training set, and before
            balancing; NaN if unknown.
    """

    system: str
    task: str
    as_trained: Calibration
    prior_corrected: Calibration | None
    single: tuple[Calibration, ...]
    trained_at: float
    population: float


@dataclass(frozen=True)
class Subgroup:
    """Scores of a part of the test subjects, by system.

    None where they are too few to be scored.
    """

    task: str
    name: str
    scores: Mapping[str, Score | None]


@dataclass(frozen=True)
class Share(PerSeed):
    """One point of Figure 5.

    Attributes:
        values: AUROC per seed, in [0, 1].
        system, task, label_fraction: which system on which disease with which share of the labels.
        n_train: rows it was trained on; 0 if the runs do not say.
        low, high: 95 % interval of the mean over seeds (Student's t), as the paper's bands are over
            seeds.
        lack: what is missing of its seeds; a point with a lack is to be named and not to be drawn.
    """

    system: str = ""
    task: str = ""
    label_fraction: float = 1.0
    n_train: int = 0
    low: float = math.nan
    high: float = math.nan
    lack: str = ""


@dataclass(frozen=True, eq=False)
class Measured:
    """One panel of Figure 4: a phenotype measured from CMR and predicted (mean over seeds), (n,)
    each, in its unit.
    """

    name: str
    unit: str
    measured: np.ndarray
    predicted: np.ndarray
    r: float


@dataclass(frozen=True, eq=False)
class Evidence:
    """The evaluation runs of one search space, and everything computed from their predictions.

    Attributes:
        runs: the folder of runs; each file is read once.
        space: the search space.
        by_cell: its evaluation runs by (system, task, share of the labels).
        draws: bootstrap resamples.
    """

    runs: Path
    space: str
    by_cell: Mapping[Cell, EvaluationRuns]
    draws: int = DRAWS
    _cache: dict[Any, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def of(
        cls,
        runs: Path,
        space: str,
        rows: pd.DataFrame,
        *,
        seeds: int = len(SEEDS),
        draws: int = DRAWS,
    ) -> "Evidence":
        """Of a search space.

        Args:
            runs: the folder of runs.
            space: its name.
            rows: `store.rows(runs)`.
            seeds: how many belong to a system.
            draws: bootstrap resamples.
        """
        return cls(runs, space, evaluation_runs.of_space(rows, space, runs, seeds), draws)

    def _once(self, key: tuple[Any, ...], make: Callable[[], T]) -> T:
        if key not in self._cache:
            self._cache[key] = make()
        return self._cache[key]

    # -- what there is -----------------------------------------------------------------------------

    def systems(self, task: str, label_fraction: float = 1.0) -> list[str]:
        """The systems with an evaluation run on a task, the paper's first."""
        return evaluation_runs.ordered(
            [system for system, *cell in self.by_cell if cell == [task, label_fraction]],
            list(TITLES),
        )

    def answers(
        self, system: str, task: str, label_fraction: float = 1.0
    ) -> TestPredictions | None:
        """The test predictions of a system's runs, aligned by subject; None without any."""
        answers = self._answers(system, task, label_fraction)
        return None if isinstance(answers, str) else answers

    def _answers(self, system: str, task: str, label_fraction: float) -> TestPredictions | str:
        cell = system, task, label_fraction
        return self._once(
            ("answers", *cell),
            lambda: evaluation_runs.read(
                self.runs, self.by_cell.get(cell, EvaluationRuns()), _task(task)
            ),
        )

    def lack(self, system: str, task: str, label_fraction: float = 1.0) -> str:
        """What keeps a system from being compared, in words.

        Empty for one whose seeds are all there.
        """
        runs = self.by_cell.get((system, task, label_fraction), EvaluationRuns())
        answers = self._answers(system, task, label_fraction)
        lack = runs.lack or (answers if isinstance(answers, str) else "")
        return (
            f"{TITLES.get(system, system)} for {asked(task, label_fraction)}: {lack}"
            if lack
            else ""
        )

    def _provenance(self, system: str, task: str, label_fraction: float = 1.0) -> Mapping[str, Any]:
        cell = system, task, label_fraction
        return self._once(
            ("provenance", *cell),
            lambda: evaluation_runs.provenance(self.runs, self.by_cell.get(cell, EvaluationRuns())),
        )

    def pretrainings(self, systems: Collection[str] = ()) -> dict[int, list[str]]:
        """How many pre-trainings the seeds of a system start from -> the titles of those systems.

        Args:
            systems: of whom; by default of all. What starts from none is left out.
        """
        titles: dict[int, dict[str, None]] = {}
        for (system, *_), n in self._once(("pretrainings",), self._pretrainings).items():
            if n and (system in systems or not systems):
                titles.setdefault(n, {})[TITLES.get(system, system)] = None
        return {n: list(titles[n]) for n in sorted(titles, reverse=True)}

    def _pretrainings(self) -> dict[Cell, int]:
        return {
            cell: evaluation_runs.pretrainings(self.runs, evaluations)
            for cell, evaluations in self.by_cell.items()
        }

    # -- scores and comparisons --------------------------------------------------------------------

    def score(self, system: str, task: str, label_fraction: float = 1.0) -> Score | None:
        """AUROC, or the group's mean r, of the seeds there are, with its interval over test
        subjects; None without any.
        """
        answers = self.answers(system, task, label_fraction)
        return None if answers is None else self._score(answers, _task(task))

    def interval(self, system: str, task: str, label_fraction: float = 1.0) -> tuple[float, float]:
        """The 95 % interval of `score`; NaN where there is none."""
        score = self.score(system, task, label_fraction)
        return (score.low, score.high) if score else (math.nan, math.nan)

    def _score(self, answers: TestPredictions, task: Task) -> Score | None:
        """None where the subjects are too few."""
        if not evaluable(answers, task):
            return None
        values = per_seed(each(answers, task), task)
        if task.kind == "binary":
            effect = statistics.auroc_interval(
                answers.outputs[..., 0], answers.targets[:, 0], task.name, answers.subjects
            )
            return _scored(values, (effect.low, effect.high), answers, task)
        mean = self._drawn(answers, task).mean((1, 2))
        return _scored(values, statistics.interval(mean), answers, task)

    def _drawn(self, answers: TestPredictions, task: Task) -> np.ndarray:
        """Correlations in every resample, (draws, m, k)."""

        def draw() -> np.ndarray:
            counts = self._counts(answers, task)
            correlations = statistics.bootstrap_pearson(
                answers.outputs, answers.targets, counts, task.columns
            )
            # A constant output has no r in any resample; it orders nobody: 0, as in `metrics`.
            correlations[:, (each(answers, task) == 0) & np.isnan(correlations).all(0)] = 0
            return correlations

        return self._once(("drawn", answers.mark), draw)

    def _counts(self, answers: TestPredictions, task: Task) -> np.ndarray:
        """How often each row is drawn, (draws, n); of either class as many subjects."""
        labels = answers.targets[:, 0] if task.kind == "binary" else None
        key = (*answers.subjects, None if labels is None else labels.tobytes())
        last, counts = self._cache.get("counts", (None, None))
        if last != key:  # only the last is kept: those of 6,007 subjects take 48 MB
            counts = statistics.resamples_of_people(
                answers.subjects, self.draws, RESAMPLING, labels
            )
            self._cache["counts"] = key, counts
        return counts

    def contrast(
        self, better: str, worse: str, task: str, label_fraction: float = 1.0
    ) -> Comparison:
        """The difference of two systems on the test subjects that both were evaluated on.

        It is that of the means over seeds (and phenotypes), and a statement about methods: interval
        and p are about other subjects, by DeLong's covariance of AUROCs or a paired bootstrap of r,
        and about other seeds, by what their values differ in beyond that.

        Returns:
            The effect, or the reason why there is none: a system lacks a seed, the subjects in
            common are too few.
        """
        pair = Contrast(better, worse, task, label_fraction)
        return self._once(("contrast", pair), lambda: self._contrast(pair, _task(task)))

    def _contrast(self, pair: Contrast, task: Task) -> Comparison:
        cells = [(system, pair.task, pair.label_fraction) for system in (pair.better, pair.worse)]
        both_answers = [answers for cell in cells if (answers := self.answers(*cell))]
        if lacks := tuple(lack for cell in cells if (lack := self.lack(*cell))):
            return Comparison(pair, reasons=lacks)
        sides = evaluation_runs.on_common_subjects(*both_answers)
        if isinstance(sides, str):
            return Comparison(pair, reasons=(f"{versus(pair)}: {sides}",))
        n, people = len(sides[0].subjects), sides[0].people
        effect = self._difference(*sides, task) if evaluable(sides[0], task) else NOTHING
        if math.isnan(effect.low + effect.high):
            reason = f"{versus(pair)}: the {people} subjects in common are too few for an interval"
            return Comparison(pair, n=n, reasons=(reason,), people=people)
        return Comparison(pair, effect, n, people=people)

    def _difference(self, better: TestPredictions, worse: TestPredictions, task: Task) -> Effect:
        sizes = len(better.seeds), len(worse.seeds)
        weights, systems = np.repeat([1 / sizes[0], -1 / sizes[1]], sizes), np.repeat([0, 1], sizes)
        if task.kind == "binary":
            scores = np.concatenate([better.outputs, worse.outputs])[..., 0]
            return statistics.auroc_contrast(
                scores, better.targets[:, 0], weights, task.name, better.subjects, systems
            )
        sides = better, worse
        values = np.concatenate([each(side, task).mean(-1) for side in sides])
        distribution = np.concatenate([self._drawn(side, task).mean(-1) for side in sides], axis=1)
        return statistics.bootstrap_contrast(values, distribution, weights, systems)

    def comparisons(self, layout: Layout) -> list[Comparison]:
        """A table's own system against every other that has run, per task.

        p adjusted by Holm over `family`: a contrast that stands in several tables has one p.
        """
        return [self.family()[pair] for pair in self._pairs(layout)]

    def family(self) -> dict[Contrast, Comparison]:
        """Every comparison that some table of the paper asks for and runs can answer, each once,
        with its adjusted p.
        """
        return self._once(("family",), self._family)

    def _family(self) -> dict[Contrast, Comparison]:
        pairs = [pair for layout in LAYOUTS.values() for pair in self._pairs(layout)]
        comparisons = {
            pair: self.contrast(pair.better, pair.worse, pair.task) for pair in dict.fromkeys(pairs)
        }
        holm_p = statistics.holm([comparison.effect.p for comparison in comparisons.values()])
        return {
            pair: replace(comparison, adjusted=float(p))
            for (pair, comparison), p in zip(comparisons.items(), holm_p)
        }

    def _pairs(self, layout: Layout) -> list[Contrast]:
        return [
            Contrast(layout.proposed_system, system.name, task)
            for task in layout.tasks
            for system in layout.systems
            if system.name != layout.proposed_system
            and system.name in self.systems(task)
            and layout.proposed_system in self.systems(task)
        ]

    def verdicts(self, claims: Sequence[Claim] = CLAIMS) -> list[Verdict]:
        """Every claim of the paper, judged by the runs; see `verdict_of`."""
        return [
            verdict_of(
                c, [self.contrast(x.better, x.worse, x.task, x.label_fraction) for x in c.contrasts]
            )
            for c in claims
        ]

    # -- what a reviewer asks for ------------------------------------------------------------------

    def phenotypes(self, systems: Sequence[str]) -> list[Line]:
        """Pearson's r of every phenotype that some system answered, as tasks.PHENOTYPES go."""
        lines: dict[str, Line] = {}
        for task in _regressions():
            for system in systems:
                for column, score in self._each_phenotype(system, task).items():
                    line = lines.setdefault(column, Line(column, task.name, {}))
                    lines[column] = replace(line, scores={**line.scores, system: score})
        return [lines[name] for name in PHENOTYPES if name in lines]

    def _each_phenotype(self, system: str, task: Task) -> dict[str, Score]:
        answers = self.answers(system, task.name)
        if answers is None or not evaluable(answers, task):
            return {}
        values, distribution = each(answers, task), self._drawn(answers, task).mean(1)
        mask = np.isfinite(answers.targets)
        low, high = statistics.interval(distribution)
        return {
            column: Score(
                tuple(values[:, i].tolist()),
                float(low[i]),
                float(high[i]),
                int(mask[:, i].sum()),
                people=answers.at(mask[:, i]).people,
            )
            for i, column in enumerate(task.columns)
        }

    def means(self, systems: Sequence[str]) -> list[Line]:
        """Two lines per group: the mean of r over its phenotypes, as the paper's Table IV, and the
        mean by Fisher's z.
        """
        lines = []
        for task in _regressions():
            plain = {
                system: score for system in systems if (score := self.score(system, task.name))
            }
            fisher = {}
            for system, score in plain.items():
                answers = self.answers(system, task.name)
                rs = each(answers, task) if answers else np.empty((0, 1))
                fisher[system] = Score(
                    tuple(statistics.fisher_mean(r) for r in rs), n=score.n, people=score.people
                )
            if plain:
                lines += [
                    Line("mean of r", task.name, plain),
                    Line("mean by Fisher's z", task.name, fisher),
                ]
        return lines

    def secondary(self) -> list[Precision]:
        """Average precision of every system on every disease.

        Bootstrap stratified by class, so prevalence stays.
        """
        return [
            precision
            for task in tasks.DISEASES
            for system in self.systems(task)
            if (precision := self._precision(system, task))
        ]

    def _precision(self, system: str, name: str) -> Precision | None:
        answers, task = self.answers(system, name), _task(name)
        if answers is None or not evaluable(answers, task):
            return None
        scores, targets = answers.outputs[..., 0], answers.targets[:, 0]
        values = metrics.average_precision(
            torch.from_numpy(scores), torch.from_numpy(targets), name
        ).numpy()
        distribution = statistics.bootstrap_average_precision(
            scores, targets, self._counts(answers, task), name
        ).mean(1)
        return Precision(
            system,
            name,
            _scored(values, statistics.interval(distribution), answers, task),
            float(targets.mean()),
        )

    def calibration(self) -> list[Calibrated]:
        """Calibration of every system on every disease, as trained on a balanced set and moved to
        the population.

        There is one probability per visit: the mean over seeds of the logit, so that intervals
        count each subject once, with all its visits, and the table speaks of the curve of
        `reliability`. Averaging is a little better calibrated than a single run, hence
        `Calibrated.single`.
        """
        return [
            entry
            for task in tasks.DISEASES
            for system in self.systems(task)
            if (entry := self._calibrated(system, task))
        ]

    def _calibrated(self, system: str, name: str) -> Calibrated | None:
        answers = self.answers(system, name)
        trained_at, population = self._prevalences(system, name)
        if answers is None or not evaluable(answers, _task(name)):
            return None
        targets, chance, people = answers.targets[:, 0], _averaged(answers), answers.subjects
        prior_corrected = None
        if not math.isnan(trained_at + population):
            population_chance = statistics.prior_corrected(chance, trained_at, population)
            prior_corrected = statistics.calibration(population_chance, targets, name, people)
        single = tuple(
            statistics.calibration(p, targets, name, people) for p in answers.outputs[..., 0]
        )
        as_trained = statistics.calibration(chance, targets, name, people)
        return Calibrated(system, name, as_trained, prior_corrected, single, trained_at, population)

    def _prevalences(self, system: str, task: str) -> tuple[float, float]:
        """Share of positives that the runs were trained at, and of the population.

        NaN if they do not say.
        """
        note = self._provenance(system, task)
        trained_at, population = (
            float(note.get(name, math.nan)) for name in ("trained_prevalence", "prevalence")
        )
        return trained_at, population

    def reliability(self, system: str, task: str) -> tuple[Bins, Bins | None] | None:
        """Bins of a reliability diagram, as trained and prior-corrected (None if unknown at which
        prevalence they trained).

        Of the mean over seeds of the logit, see `calibration`. None without answers.
        """
        answers = self.answers(system, task)
        trained_at, population = self._prevalences(system, task)
        if answers is None:
            return None
        targets, chance, people = answers.targets[:, 0], _averaged(answers), answers.subjects
        before = statistics.reliability(chance, targets, name=task, people=people)
        if math.isnan(trained_at + population):
            return before, None
        population_chance = statistics.prior_corrected(chance, trained_at, population)
        return before, statistics.reliability(population_chance, targets, name=task, people=people)

    def subgroups(
        self, index: pd.DataFrame, systems: Sequence[str] = (PROPOSED, BASELINE)
    ) -> list[Subgroup]:
        """Scores by sex and by age on every task that one of the systems answered.

        Args:
            index: `cohort.rows("test")`: subject, age [years], sex (0 female, 1 male). A subject's
                first visit counts.
            systems: whose.
        """
        first_visits = index.drop_duplicates("subject").set_index("subject")
        people = first_visits.reindex(columns=["age", "sex"]).astype(float)
        groups = []
        for task in tasks.TASKS.values():
            scores: dict[str, dict[str, Score | None]] = {}  # by subgroup, then by system
            for system in systems:
                answers = self.answers(system, task.name)
                if answers is not None:
                    for name, rows in _inside(people.reindex(answers.subjects)).items():
                        scores.setdefault(name, {})[system] = self._score(answers.at(rows), task)
            groups += [Subgroup(task.name, name, by_label) for name, by_label in scores.items()]
        return groups

    # -- figures -----------------------------------------------------------------------------------

    def low_label(self) -> list[Share]:
        """The points of Figure 5 (paper, section V-D) as far as runs exist: diseases, then systems,
        then shares.
        """
        cells = [
            (s.name, task, label_fraction)
            for task in tasks.DISEASES
            for s in LOW_LABEL
            for label_fraction in FRACTIONS
        ]
        return [self._share(*cell, self.by_cell[cell]) for cell in cells if cell in self.by_cell]

    def _share(self, system: str, task: str, label_fraction: float, runs: EvaluationRuns) -> Share:
        low, high = statistics.mean_interval(runs.values)
        n_train = int(self._provenance(system, task, label_fraction).get("n_train", 0))
        return Share(runs.values, system, task, label_fraction, n_train, low, high, runs.lack)

    def scatter(self, system: str = PROPOSED) -> list[Measured]:
        """The panels of Figure 4: up to 20 phenotypes of those that a system answered.

        Volumes, masses and fractions of both ventricles first, then the global wall thickness and
        strains, then segments, each in the order of tasks.PHENOTYPES. r is the mean over seeds; the
        prediction is that of the seeds' mean.
        """
        names = sorted(
            PHENOTYPES, key=lambda name: 2 if "_AHA_" in name else 1 if "_" in name else 0
        )
        panels = {
            panel.name: panel for task in _regressions() for panel in self._panels(system, task)
        }
        return [panels[name] for name in names if name in panels][:SHOWN]

    def _panels(self, system: str, task: Task) -> list[Measured]:
        answers = self.answers(system, task.name)
        if answers is None or not evaluable(answers, task):
            return []
        r, predicted = each(answers, task).mean(0), answers.outputs.mean(0)
        mask = np.isfinite(answers.targets)
        return [
            Measured(
                name,
                tasks.UNITS[name],
                answers.targets[mask[:, i], i],
                predicted[mask[:, i], i],
                float(r[i]),
            )
            for i, name in enumerate(task.columns)
        ]


# -- of answers ------------------------------------------------------------------------------------


def evaluable(answers: TestPredictions, task: Task) -> bool:
    """Whether a task's metric and its spread are defined: two subjects of either class, or two
    values that differ of every phenotype.
    """
    if task.kind == "binary":
        positive = answers.targets[:, 0] == 1
        return min(answers.at(rows).people for rows in (positive, ~positive)) >= FEWEST
    mask = np.isfinite(answers.targets)
    low, high = (np.where(mask, answers.targets, edge) for edge in (math.inf, -math.inf))
    return len(mask) > 0 and bool((low.min(0) < high.max(0)).all())


def each(answers: TestPredictions, task: Task) -> np.ndarray:
    """AUROC of each seed, (m,), or r of each seed and phenotype, (m, k)."""
    outputs, targets = torch.from_numpy(answers.outputs), torch.from_numpy(answers.targets)
    if task.kind == "binary":
        return metrics.auroc(outputs[..., 0], targets[:, 0], task.name).numpy()
    return metrics.pearson(outputs, targets, task.columns).numpy()


def per_seed(values: np.ndarray, task: Task) -> np.ndarray:
    """(…, m) AUROCs as they are.

    Of (…, m, k) correlation coefficients the mean over phenotypes, as in Table IV.
    """
    return values if task.kind == "binary" else values.mean(-1)


def _scored(
    values: np.ndarray, ends: tuple[Any, Any], answers: TestPredictions, task: Task
) -> Score:
    """Values (m,) with the ends of the interval of their mean."""
    low, high = map(float, ends)
    positives = int((answers.targets == 1).sum()) if task.kind == "binary" else None
    n = len(answers.subjects)
    return Score(tuple(values.tolist()), low, high, n, positives, answers.people)


def _averaged(answers: TestPredictions) -> np.ndarray:
    """The probability whose logit is the mean over seeds, (n,)."""
    chance = np.clip(answers.outputs[..., 0], statistics.CLIP, 1 - statistics.CLIP)
    return special.expit(special.logit(chance).mean(0))


def _task(name: str) -> Task:
    return tasks.of(name, (name,))


def _regressions() -> list[Task]:
    return [task for task in tasks.TASKS.values() if task.kind == "regression"]


def _inside(people: pd.DataFrame) -> dict[str, np.ndarray]:
    """Name of a subgroup -> which rows of (age, sex) belong to it, (n,) bool.

    Unknown belongs to none.
    """
    age, sex = people["age"].to_numpy(), people["sex"].to_numpy()
    by_sex = {name: sex == value for value, name in SEXES}
    return {**by_sex, **{name: (age >= low) & (age < high) for low, high, name in AGES}}
