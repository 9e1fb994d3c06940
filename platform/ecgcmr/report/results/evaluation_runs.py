"""The evaluation runs: which of them stand for a system, and what they answered for whom.

Seeds of two configurations of a grid are two systems: which configuration stands for the system is
written beside the runs (`evaluation.selection`). And answers are compared subject by subject: runs
of different modalities were evaluated on different people, so they are aligned by (subject, number
of the visit) and cut to those that all share.
"""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from ecgcmr import checksums, paper, store, tasks
from ecgcmr.evaluation.selection import standing_configuration
from ecgcmr.runs import read_run
from ecgcmr.tasks import Task


@dataclass(frozen=True)
class PerSeed:
    """A metric of the runs of one system, one number per seed.

    Attributes:
        values: in the metric's unit, in the order of the seeds.
    """

    values: tuple[float, ...] = ()

    @property
    def mean(self) -> float:
        """Mean over the seeds there are; NaN without any."""
        return statistics.fmean(self.values) if self.values else math.nan

    @property
    def sd(self) -> float:
        """Sample standard deviation (n − 1); NaN below two seeds."""
        return statistics.stdev(self.values) if len(self.values) > 1 else math.nan


@dataclass(frozen=True)
class EvaluationRuns(PerSeed):
    """The evaluation runs of one system on one task with one share of the labels.

    Attributes:
        values: the test metric of each run that gave a number, in the order of the seeds.
        names, seeds: its trial and seed.
        wanted: seeds that belong here.
        diverged: seeds that ran and gave no number.
        subjects: numbers of test subjects that they were evaluated on, distinct, ascending.
        note: says so if runs of several configurations lie on disk, or the grid was not run whole;
            else empty.
    """

    names: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    wanted: int = len(paper.SEEDS)
    diverged: int = 0
    subjects: tuple[int, ...] = ()
    note: str = ""

    @property
    def started(self) -> bool:
        """Whether any seed has run."""
        return bool(self.values) or self.diverged > 0

    @property
    def complete(self) -> bool:
        """Whether every seed gave a number."""
        return len(self.values) == self.wanted

    @property
    def lack(self) -> str:
        """`3 of 5 seeds, 1 diverged`; empty for a complete set."""
        if self.complete:
            return ""
        if not self.started:
            return "no finished run"
        return f"{len(self.values)} of {self.wanted} seeds" + (
            f", {self.diverged} diverged" if self.diverged else ""
        )


Cell = tuple[str, str, float]  # system, task, share of the labels


def of_space(
    rows: pd.DataFrame, space: str, runs: Path, seeds: int = len(paper.SEEDS)
) -> dict[Cell, EvaluationRuns]:
    """The evaluation runs of a search space, by (system, task, share of the labels).

    Args:
        rows: `store.rows(runs)`.
        space: its name.
        runs: the folder of runs, where it is written which configuration stands for a system.
        seeds: how many belong to a system.

    Raises:
        InputError: see `selection.standing_configuration`.
    """
    metric = {task: tasks.of(task, (task,)).metric for task in rows.task.unique()}
    of_metric = rows[(rows.space == space) & (rows.metric == rows.task.map(metric))]
    evaluation_rows = of_metric[(of_metric.stage == "evaluation") & (of_metric.split == "test")]
    return {
        cell: _of_cell(cell, group, runs / space, seeds)
        for cell, group in _by_cell(evaluation_rows)
    }


def _of_cell(cell: Cell, group: pd.DataFrame, space: Path, seeds: int) -> EvaluationRuns:
    """The evaluation runs of one system on one task, of the configuration that stands for it."""
    system, task, label_fraction = cell
    configurations = sorted(group.configuration.unique())
    standing_name = standing_configuration(
        configurations, space / "evaluation" / task / system, label_fraction
    )
    standing = group[group.configuration == standing_name]
    whole = standing[(standing.status != "diverged") & standing.value.map(math.isfinite)]
    whole = whole.sort_values("seed")
    return EvaluationRuns(
        values=tuple(float(value) for value in whole.value),
        names=tuple(whole.trial),
        seeds=tuple(int(seed) for seed in whole.seed),
        wanted=max(seeds, len(whole)),
        diverged=int(standing.seed.nunique() - whole.seed.nunique()),
        subjects=tuple(sorted({int(n) for n in standing.n})),
        note=" ".join(
            filter(None, (_note_of_others(configurations, standing_name), asha_note(standing)))
        ),
    )


def _note_of_others(configurations: Sequence[str], standing_name: str) -> str:
    """A note if configurations other than the chosen one have evaluation runs; else empty."""
    if set(configurations) <= {standing_name}:
        return ""
    missing = "" if standing_name in configurations else ", which has none: run ecgcmr evaluate"
    return (
        f"evaluation runs of {len(configurations)} configurations exist; shown is "
        f"{standing_name}, the chosen one{missing}."
    )


def _by_cell(rows: pd.DataFrame) -> Iterator[tuple[Cell, pd.DataFrame]]:
    return cast(
        Iterator[tuple[Cell, pd.DataFrame]],
        iter(rows.groupby(["system", "task", "label_fraction"])),
    )


def asha_note(evaluation_rows: pd.DataFrame) -> str:
    """A note if the configuration was chosen under successive halving; else empty."""
    by_asha = any("asha=" in configuration for configuration in evaluation_rows.configuration)
    return (
        "its configuration was chosen by successive halving, not by the whole grid as in the paper."
        if by_asha
        else ""
    )


# -- answers ---------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class TestPredictions:
    """What the seeds of a system answered on the test set, on the rows that all of them share,
    ordered by subject.

    Attributes:
        subjects: (n,) pseudonyms; a subject with several visits occurs several times.
        visits: (n,) number of the visit, from 0.
        targets: (n, k) float64, NaN where missing.
        outputs: (m, n, k) float64: probability of the disease, or phenotypes in their units.
        seeds: (m,).
        columns: (k,) names of what was asked.
    """

    subjects: np.ndarray
    visits: np.ndarray
    targets: np.ndarray
    outputs: np.ndarray
    seeds: tuple[int, ...]
    columns: tuple[str, ...]

    @cached_property
    def index(self) -> pd.MultiIndex:
        """(subject, visit) of each row."""
        return pd.MultiIndex.from_arrays([self.subjects, self.visits])

    @cached_property
    def people(self) -> int:
        """How many subjects they are."""
        return len(set(self.subjects))

    @cached_property
    def mark(self) -> int:
        """Equal for equal answers of equal subjects; what was computed from them is kept under it."""
        return hash(
            (*self.subjects, self.visits.tobytes(), self.targets.tobytes(), self.outputs.tobytes())
        )

    def at(self, rows: np.ndarray) -> "TestPredictions":
        """Some of the rows: places or a mask, (n,)."""
        return TestPredictions(
            self.subjects[rows],
            self.visits[rows],
            self.targets[rows],
            self.outputs[:, rows],
            self.seeds,
            self.columns,
        )


def read(runs: Path, evaluations: EvaluationRuns, task: Task) -> TestPredictions | str:
    """The test predictions of a system's runs, aligned; or in words why there are none.

    Args:
        runs: the folder of runs.
        evaluations: which of them.
        task: what was asked.
    """
    folders = [store.folder(runs, name) for name in evaluations.names]
    absent = [folder for folder in folders if store.PREDICTIONS not in checksums.names(folder)]
    if absent:
        return f"{len(absent)} of {len(folders)} runs left no predictions"
    if not folders:
        return evaluations.lack
    by_seed = [
        _predictions_of(pd.read_parquet(store.verified(folder, store.PREDICTIONS)), seed, task)
        for folder, seed in zip(folders, evaluations.seeds)
    ]
    index = by_seed[0].index
    for predictions in by_seed[1:]:
        index = index.intersection(predictions.index)
    by_seed = [
        predictions.at(predictions.index.get_indexer(index.sort_values()))
        for predictions in by_seed
    ]
    first = by_seed[0]
    if not all(
        np.array_equal(first.targets, predictions.targets, equal_nan=True)
        for predictions in by_seed
    ):
        return "its seeds were evaluated on different answers of the same subjects"
    outputs = np.concatenate([predictions.outputs for predictions in by_seed])
    return TestPredictions(
        first.subjects, first.visits, first.targets, outputs, evaluations.seeds, first.columns
    )


def _predictions_of(table: pd.DataFrame, seed: int, task: Task) -> TestPredictions:
    """The test rows of one run's predictions, in file order."""
    rows = table[table.split == "test"]
    targets, outputs = (
        np.stack([rows[f"{kind}:{name}"].to_numpy(np.float64) for name in task.columns], axis=1)
        for kind in ("target", "output")
    )
    visits = rows.groupby("subject").cumcount().to_numpy()
    return TestPredictions(
        rows.subject.to_numpy(object), visits, targets, outputs[None], (seed,), task.columns
    )


def on_common_subjects(
    ours: TestPredictions, theirs: TestPredictions
) -> tuple[TestPredictions, TestPredictions] | str:
    """Both on the subjects that they have in common, row by row; or in words why that cannot be."""
    index = ours.index.intersection(theirs.index).sort_values()
    if index.empty:
        return "no test subject in common"
    pair = tuple(answers.at(answers.index.get_indexer(index)) for answers in (ours, theirs))
    if not np.array_equal(pair[0].targets, pair[1].targets, equal_nan=True):
        return "evaluated on different answers of the same subjects"
    return pair[0], pair[1]


def provenance(runs: Path, evaluations: EvaluationRuns) -> Mapping[str, Any]:
    """What the first of the runs says of itself; all seeds train on the same rows. Empty without
    runs.
    """
    if not evaluations.names:
        return {}
    return read_run(store.folder(runs, evaluations.names[0])).provenance


def pretrainings(runs: Path, evaluations: EvaluationRuns) -> int:
    """How many different pre-trainings the seeds start from; 0 without any."""
    starts = {read_run(store.folder(runs, name)).trial.init_from for name in evaluations.names} - {
        ()
    }
    return len(starts)


def ordered(systems: Sequence[str], first: Sequence[str]) -> list[str]:
    """Distinct systems: those of `first` first, in its order, then the others by name."""
    distinct = set(systems)
    return [*(system for system in first if system in distinct), *sorted(distinct - set(first))]
