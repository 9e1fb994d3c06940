"""The tables that come from predictions: claims, comparisons, and what a reviewer asks for;
`evidence` as tables.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pandas as pd

from ecgcmr import tasks
from ecgcmr.evaluation.statistics import Effect
from ecgcmr.paper import FRACTIONS, GROUPS, METRICS, SHORT, TITLES, Layout
from ecgcmr.report.results import evaluation_runs
from ecgcmr.report.results.evaluation_runs import PerSeed
from ecgcmr.report.results.evidence import (
    BASELINE,
    PROPOSED,
    Calibrated,
    Evidence,
    Line,
    Score,
    Share,
)
from ecgcmr.report.results.verdicts import Comparison
from ecgcmr.report.tables.table import NONE, Table, Word, interval, mean_sd, p_value, signed

BRACKETS = "In brackets: 95 % interval of the mean for other test subjects (bootstrap)."
ONCE = (
    "Pre-training ran once per method: what another pre-training would give is in no interval and "
    "no p."
)


def pretraining_note(evidence: Evidence, systems: Collection[str] = ()) -> str:
    """How often pre-training ran, and whether its spread is in the intervals; empty where nothing
    starts from one.

    Args:
        evidence: of one search space.
        systems: of whom; by default of all.
    """
    counts = evidence.pretrainings(systems)
    if set(counts) == {1}:
        return ONCE
    sentences = []
    for n, titles in counts.items():
        if n == 1:
            sentences.append(
                f"Pre-training of {', '.join(titles)} ran once: what another would give is in no "
                "interval and no p."
            )
            continue
        seeds = max(runs.wanted for runs in evidence.by_cell.values())
        shared = f" {seeds} seeds share {n}, so it is understated." if n < seeds else ""
        sentences.append(
            f"{n} pre-trainings of {', '.join(titles)}: evaluation seed i starts from pre-training "
            f"i mod {n}, so the spread over seeds is of pre-training, too.{shared}"
        )
    return " ".join(sentences)


def every(
    evidence: Evidence, layouts: Sequence[Layout], people: pd.DataFrame | None
) -> list[Table]:
    """Every table that has a line.

    Args:
        evidence: of one search space.
        layouts: the tables whose comparisons are wanted.
        people: `cohort.rows("test")`, for the subgroups.
    """
    tables = [figure5(evidence), claims(evidence)]
    tables += [comparisons(evidence, layout) for layout in layouts if layout.proposed_system]
    tables += [phenotypes(evidence), secondary(evidence), calibration(evidence)]
    tables += [] if people is None else [subgroups(evidence, people)]
    return [table for table in tables if table.rows]


# -- claims and comparisons ------------------------------------------------------------------------


def claims(evidence: Evidence) -> Table:
    """Every claim of the paper: holds, does not hold, or not decidable, with the contrast that
    supports it least.
    """
    verdicts = evidence.verdicts()
    return Table(
        stem="claims",
        title="The paper's claims, judged by these runs.",
        header=("Section", "Claim", "Verdict", "Difference", "95 % interval", "p", "Why"),
        kind=("name", "text", "name", "number", "number", "number", "text"),
        rows=tuple(
            (
                Word(verdict.claim.section),
                Word(verdict.claim.text),
                Word(verdict.verdict),
                *_effect(
                    Effect(verdict.value, verdict.low, verdict.high, verdict.p_unadjusted),
                    verdict.metric,
                ),
                Word(verdict.reason),
            )
            for verdict in verdicts
        ),
        notes=(
            "Difference (points of ROC AUC, or r), interval and two-sided p (unadjusted): of the "
            "contrast that supports a claim least; about other test subjects and other seeds of "
            "fine-tuning.",
            pretraining_note(evidence) or ONCE,
            "A claim holds if the 95 % interval of every one of its contrasts lies above 0 (or "
            "above the margin that it names); it does not hold if one lies below, after Holm's "
            "adjustment; else these runs cannot decide it.",
        ),
        records=tuple(
            {
                "section": verdict.claim.section,
                "claim": verdict.claim.text,
                "verdict": verdict.verdict,
                "metric": verdict.metric,
                "difference": verdict.value,
                "low": verdict.low,
                "high": verdict.high,
                "p": verdict.p_unadjusted,
                "margin": verdict.claim.margin,
                "contrasts": len(verdict.comparisons),
                "reason": verdict.reason,
            }
            for verdict in verdicts
        ),
    )


def comparisons(evidence: Evidence, layout: Layout) -> Table:
    """A table's own system minus each of the others, per task."""
    table_comparisons = evidence.comparisons(layout)
    titles = {system.name: system.title for system in layout.systems}
    number = layout.title.split(".")[0]
    n_tests = sum(not c.reasons for c in evidence.family().values())
    binary = tasks.TASKS[layout.tasks[0]].kind == "binary"
    test, unit = (
        ("DeLong's covariance", "points of ROC AUC") if binary else ("a paired bootstrap", "r")
    )
    return Table(
        stem=f"comparisons-{layout.stem}",
        title=f"{number}, comparisons: {titles[layout.proposed_system]} minus each other system.",
        header=("Task", "Minus", "Difference", "95 % interval", "p", "p (Holm)", "Subjects"),
        kind=("name", "name", "number", "number", "number", "number", "number"),
        rows=tuple(_compared(comparison, titles) for comparison in table_comparisons),
        notes=(
            f"Difference of the means over seeds in {unit}, on the test subjects of both; interval "
            f"and p are about other subjects, by {test}, and other seeds of fine-tuning, by the "
            "spread over seeds.",
            pretraining_note(evidence) or ONCE,
            f"Holm's adjustment is over the {n_tests} comparisons of all tables, each counted "
            "once: a comparison has one adjusted p wherever it stands.",
        ),
        records=tuple(
            {
                "task": c.contrast.task,
                "proposed": c.contrast.better,
                "other": c.contrast.worse,
                "difference": c.effect.value,
                "low": c.effect.low,
                "high": c.effect.high,
                "p": c.effect.p,
                "p_holm": c.adjusted,
                "n": c.n,
                "subjects": c.people,
                "reason": c.reason,
            }
            for c in table_comparisons
        ),
    )


def _compared(comparison: Comparison, titles: Mapping[str, str]) -> tuple[Word, ...]:
    task = comparison.contrast.task
    worse = Word(titles[comparison.contrast.worse], 0, comparison.reasons)
    effect = _effect(comparison.effect, tasks.TASKS[task].metric)
    return (
        Word(SHORT[task]),
        worse,
        *effect,
        Word(p_value(comparison.adjusted)),
        _subjects(comparison.people, comparison.n),
    )


def _effect(effect: Effect, metric: str) -> list[Word]:
    """Difference, interval and p; AUROC in points."""
    if math.isnan(effect.value):
        return [Word(NONE)] * 3
    scale = METRICS[metric][1]
    form = ".2f" if scale == 100 else ".3f"
    ends = interval(scale * effect.low, scale * effect.high, form)
    return [Word(signed(scale * effect.value, f"+{form}")), Word(ends), Word(p_value(effect.p))]


# -- more numbers ----------------------------------------------------------------------------------


def figure5(evidence: Evidence) -> Table:
    """The numbers of Figure 5: AUROC by share of the labels.

    Empty if only the full training sets have run.
    """
    points = {(p.task, p.system, p.label_fraction): p for p in evidence.low_label()}
    fractions = [
        label_fraction
        for label_fraction in FRACTIONS
        if any(share == label_fraction for _, _, share in points)
    ]
    lines = []
    if set(fractions) - {1.0}:
        lines = list(dict.fromkeys((task, system) for task, system, _ in points))
    return Table(
        stem="figure5",
        title="Figure 5 in numbers: few labels.",
        header=(
            "Disease",
            "Model",
            *(f"{100 * label_fraction:g} %" for label_fraction in fractions),
        ),
        kind=("name", "name", *("number" for _ in fractions)),
        rows=tuple(
            (
                Word(SHORT[task]),
                Word(_title(system)),
                *(
                    _share(points.get((task, system, label_fraction)))
                    for label_fraction in fractions
                ),
            )
            for task, system in lines
        ),
        notes=(
            "ROC AUC [%] on the test set by share of the labels used for training, mean ± sd over "
            "seeds.",
            "In brackets: 95 % interval of the mean over seeds (Student's t). n: rows trained on.",
        ),
        records=tuple(
            {
                "task": p.task,
                "system": p.system,
                "label_fraction": p.label_fraction,
                "n_train": p.n_train or None,
                "mean": 100 * p.mean,
                "sd": 100 * p.sd,
                "low": 100 * p.low,
                "high": 100 * p.high,
                "seeds": len(p.values),
                "lack": p.lack,
            }
            for p in points.values()
        ),
    )


def _share(point: Share | None) -> Word:
    if point is None:
        return Word(NONE)
    size = f"n = {point.n_train:,}" if point.n_train else ""
    return _scored(point, 100, *filter(None, (point.lack, size)))


def phenotypes(evidence: Evidence) -> Table:
    """Pearson's r of all 61 phenotypes for every system that has run on them, with both means of
    each group below.
    """
    systems = evaluation_runs.ordered(
        [system for task in GROUPS for system in evidence.systems(task)], list(TITLES)
    )
    lines, means = evidence.phenotypes(systems), evidence.means(systems)

    def row(line: Line, name: str, unit: str) -> tuple[Word, ...]:
        return Word(name), Word(unit), *(_scored(line.scores.get(system), 1) for system in systems)

    return Table(
        stem="phenotypes",
        title="CMR phenotypes one by one.",
        header=("Phenotype", "Unit", *map(_title, systems)),
        kind=("name", "name", *("number" for _ in systems)),
        rows=(
            *(row(line, line.name, tasks.UNITS[line.name]) for line in lines),
            *(row(line, f"{SHORT[line.task]}, {line.name}", "") for line in means),
        ),
        foot=len(means),
        notes=(
            "Pearson's r on the test set, mean ± sd over seeds.",
            BRACKETS,
            "The paper's Table IV gives the mean of r; the mean by Fisher's z gives strong "
            "correlations more weight.",
        ),
        records=tuple(
            {
                "phenotype": line.name,
                "task": line.task,
                "system": system,
                "r": score.mean,
                "sd": score.sd,
                "low": score.low,
                "high": score.high,
                "n": score.n,
            }
            for line in (*lines, *means)
            for system, score in line.scores.items()
        ),
    )


def secondary(evidence: Evidence) -> Table:
    """Average precision of every system on the diseases, with the prevalence that it has to be read
    against.
    """
    precisions = {(line.system, line.task): line for line in evidence.secondary()}
    systems = evaluation_runs.ordered([system for system, _ in precisions], list(TITLES))
    shares = {
        task: sorted(x.prevalence for x in precisions.values() if x.task == task)
        for task in tasks.DISEASES
    }
    ends = [
        "–".join(dict.fromkeys(f"{100 * x:.2f}" for x in (*of[:1], *of[-1:]))) or NONE
        for of in shares.values()
    ]
    foot = ((Word("Prevalence"), *map(Word, ends)),) if precisions else ()

    def score(system: str, task: str) -> Word:
        return _scored(
            precisions[system, task].score if (system, task) in precisions else None, 100
        )

    return Table(
        stem="secondary",
        title="Average precision beside the prevalence.",
        header=("Model", *(SHORT[task] for task in tasks.DISEASES)),
        kind=("name", *("number" for _ in tasks.DISEASES)),
        rows=(
            *(
                (Word(_title(system)), *(score(system, task) for task in tasks.DISEASES))
                for system in systems
            ),
            *foot,
        ),
        foot=len(foot),
        notes=(
            "Average precision (AUPRC) [%] on the test set, mean ± sd over seeds.",
            BRACKETS,
            "Prevalence [%]: positives among the test subjects, which a random order would reach.",
        ),
        records=tuple(
            {
                "system": x.system,
                "task": x.task,
                "auprc": x.score.mean,
                "sd": x.score.sd,
                "low": x.score.low,
                "high": x.score.high,
                "prevalence": x.prevalence,
                "n": x.score.n,
                "positives": x.score.positives,
            }
            for x in precisions.values()
        ),
    )


def calibration(evidence: Evidence) -> Table:
    """Calibration of every system on the diseases, as trained on balanced sets and after prior
    correction.
    """
    calibrations = evidence.calibration()
    silent = ", ".join(
        dict.fromkeys(_title(x.system) for x in calibrations if x.prior_corrected is None)
    )
    return Table(
        stem="calibration",
        title="Calibration: as trained on balanced sets, and corrected for prevalence.",
        header=(
            "Disease",
            "Model",
            "Slope",
            "Intercept",
            "Brier",
            "ECE",
            "Intercept, corrected",
            "Brier, corrected",
            "ECE, corrected",
        ),
        kind=("name", "name", *("number",) * 7),
        rows=tuple(_calibrated(x) for x in calibrations),
        notes=(
            "On the test set, of the mean over seeds of the logit, with 95 % intervals (Wald); "
            "runs: one by one, mean ± sd.",
            "Calibrated is slope 1 and intercept 0. ECE: expected calibration error in ten bins of "
            "equally many subjects.",
            "Corrected: logit p + logit(prevalence in the training split) − logit(share of "
            "positives trained on); it keeps order and slope.",
            *(
                [
                    "Not corrected, as the runs do not say at which prevalence they were trained: "
                    f"{silent}."
                ]
                if silent
                else []
            ),
        ),
        records=tuple(_calibration_record(x) for x in calibrations),
    )


def _calibrated(entry: Calibrated) -> tuple[Word, ...]:
    def sure(effect: Effect, runs: Sequence[Effect] = ()) -> Word:
        single = PerSeed(tuple(run.value for run in runs))
        small = (f"runs {mean_sd(single.mean, single.sd)}",) if len(runs) > 1 else ()
        if math.isnan(effect.value):
            return Word(NONE, 0, small)
        return Word(
            signed(effect.value, ".2f"), 0, (interval(effect.low, effect.high, ".2f"), *small)
        )

    slope = sure(entry.as_trained.slope, [single.slope for single in entry.single])
    words = [
        sure(entry.as_trained.intercept, [single.intercept for single in entry.single]),
        *_errors(entry.as_trained.brier, entry.as_trained.ece),
    ]
    if entry.prior_corrected:
        words += [
            sure(entry.prior_corrected.intercept),
            *_errors(entry.prior_corrected.brier, entry.prior_corrected.ece),
        ]
    return (
        Word(SHORT[entry.task]),
        Word(_title(entry.system)),
        slope,
        *words,
        *[Word(NONE)] * (6 - len(words)),
    )


def _errors(*values: float) -> list[Word]:
    return [Word(f"{value:.3f}") for value in values]


def _calibration_record(entry: Calibrated) -> dict[str, Any]:
    def of(name: str, effect: Effect | None) -> dict[str, Any]:
        ends = ("", "_low", "_high")
        values = (effect.value, effect.low, effect.high) if effect else (None,) * 3
        return {f"{name}{end}": value for end, value in zip(ends, values)}

    return {
        "system": entry.system,
        "task": entry.task,
        "trained_at": entry.trained_at,
        "prevalence": entry.population,
        **of("slope", entry.as_trained.slope),
        **of("intercept", entry.as_trained.intercept),
        "brier": entry.as_trained.brier,
        "ece": entry.as_trained.ece,
        **of(
            "intercept_corrected",
            entry.prior_corrected.intercept if entry.prior_corrected else None,
        ),
        "brier_corrected": entry.prior_corrected.brier if entry.prior_corrected else None,
        "ece_corrected": entry.prior_corrected.ece if entry.prior_corrected else None,
    }


def subgroups(evidence: Evidence, people: pd.DataFrame) -> Table:
    """Our system and the supervised one by sex and by age.

    Args:
        evidence: of one search space.
        people: `cohort.rows("test")`: subject, age, sex.
    """
    groups = evidence.subgroups(people)
    systems = [
        system for system in (PROPOSED, BASELINE) if any(system in group.scores for group in groups)
    ]

    def row(task: str, name: str, scores: Mapping[str, Score | None]) -> tuple[Word, ...]:
        first_score = next((score for score in scores.values() if score), Score())
        scale = METRICS[tasks.TASKS[task].metric][1]
        subjects = _subjects(first_score.people, first_score.n)
        counts = subjects, _count(first_score.positives)
        return (
            Word(SHORT[task]),
            Word(name),
            *counts,
            *(_scored(scores.get(system), scale) for system in systems),
        )

    return Table(
        stem="subgroups",
        title="By sex and by age.",
        header=("Task", "Subgroup", "Subjects", "Positives", *map(_title, systems)),
        kind=("name", "name", "number", "number", *("number" for _ in systems)),
        rows=tuple(row(group.task, group.name, group.scores) for group in groups),
        notes=(
            "ROC AUC [%] of diseases, mean r of phenotypes, on the test set, mean ± sd over seeds.",
            "In brackets: 95 % interval of the mean for other test subjects (ROC AUC by DeLong's "
            "variance on the logit scale, r by bootstrap).",
            f"{NONE}: fewer than two subjects of either class, or a phenotype without two values.",
        ),
        records=tuple(
            {
                "task": group.task,
                "subgroup": group.name,
                "system": system,
                "mean": score.mean,
                "sd": score.sd,
                "low": score.low,
                "high": score.high,
                "n": score.n,
                "positives": score.positives,
            }
            for group in groups
            for system, score in group.scores.items()
            if score
        ),
    )


# -- words -----------------------------------------------------------------------------------------


def _title(system: str) -> str:
    return TITLES.get(system, system)


def _count(n: int | None) -> Word:
    return Word(NONE if n is None else f"{n:,}")


def _subjects(people: int, visits: int) -> Word:
    """How many people, and below that their visits if these are more."""
    if not people:
        return Word(NONE)
    return Word(f"{people:,}", 0, (f"{visits:,} visits",) if visits > people else ())


def _scored(score: Score | Share | None, scale: float, *small: str) -> Word:
    """Mean ± sd with the interval below, and more small print below that."""
    if score is None:
        return Word(NONE)
    form = ".1f" if scale == 100 else ".2f"
    ends = () if math.isnan(score.low) else (interval(scale * score.low, scale * score.high, form),)
    return Word(mean_sd(scale * score.mean, scale * score.sd), 0, (*ends, *small))
