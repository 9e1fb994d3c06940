"""Grids and seeds: the only door of Ray Tune and Optuna.

Optuna says which configurations, Tune says when and where.

One Tune trial is a *pack*, a list of our trials that `fit` trains together, so that a grid of 648
configurations is a few dozen Tune trials. Rows on disk are the only memory: a run enumerates anew
what is not finished, and tells Optuna the rest. Tune's own restore is not used. This file does not
know how a pack is trained.
"""

import logging
import os
import shutil
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import ray
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import TrialState
from ray import tune
from ray.tune.search import Searcher

from ecgcmr import plugins, store, tasks
from ecgcmr.cohort import dataset, presence
from ecgcmr.data import examples, sampler
from ecgcmr.errors import InputError
from ecgcmr.evaluation import selection
from ecgcmr.runs import is_finished, set_damaged_aside
from ecgcmr.search import spaces
from ecgcmr.training import finetune, partition, trees
from ecgcmr.trial import Trial, recipe

log = logging.getLogger(__name__)

# At once on a node without GPU: single threads beside each other beat threads in one small pack.
CPU_PACKS = 4
TUNE = ".tune"  # under runs: what Tune keeps while it runs, and the tracebacks of failed packs
TUNE_ENVIRONMENT = {
    # CSV, JSON and TensorBoard files that nobody reads.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # else Ctrl-C ends `fit` as if all were done
    "RAY_AIR_NEW_OUTPUT": "0",  # the new one prints a table even when told to be silent
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}


@dataclass(frozen=True)
class Bill:
    """What one stage of one task amounts to.

    Attributes:
        stage, task: which.
        trials: how many; packs: how many processes of work they make (a pre-training is its own).
        steps: optimiser steps of all packs, if none stops early.
        subjects: subject-passes forward and backward of all trials together.
        evaluations: subject-passes forward only, of all validations and the tests of evaluation
            runs.
    """

    stage: str
    task: str
    trials: int
    packs: int
    steps: int
    subjects: int
    evaluations: int


def plan(trials: Iterable[Trial], cohort: dataset.Cohort, at_once: int = 1) -> list[Bill]:
    """What the trials amount to on a cohort, before anything starts:
    one bill per stage and task.
    """
    bills = []
    groups: dict[tuple[str, str], list[Trial]] = defaultdict(list)
    for trial in trials:
        groups[trial.stage, trial.task].append(trial)
    for (stage, task), members in groups.items():
        packs = [[trial] for trial in members]
        if stage != "pretrain":
            packs = partition.packs(members, at_once=at_once)
        steps = [pack[0].epochs * _steps_per_epoch(pack[0], cohort) for pack in packs]
        subjects = [
            len(pack) * _rows_per_step(pack[0], cohort) * n for pack, n in zip(packs, steps)
        ]
        bill = Bill(
            stage=stage,
            task=task,
            trials=len(members),
            packs=len(packs),
            steps=sum(steps),
            subjects=sum(subjects),
            evaluations=_evaluations(members, cohort),
        )
        bills.append(bill)
    return bills


def _steps_per_epoch(trial: Trial, cohort: dataset.Cohort) -> int:
    if trial.stage != "pretrain":
        rows = len(examples.training_rows(cohort, trial).index)
        return sampler.permuted_steps(rows, trial.batch)
    return max(1, sampler.streamed_steps(_paired(trial, cohort, "train"), trial.batch))


def _rows_per_step(trial: Trial, cohort: dataset.Cohort) -> int:
    return trial.batch or len(examples.training_rows(cohort, trial).index)


def _evaluations(members: list[Trial], cohort: dataset.Cohort) -> int:
    """Rows answered without learning: in every validation, then by the kept weights,
    of an evaluation trial on test too.
    """
    first = members[0]
    if first.stage == "pretrain":
        return sum(_validations(trial) * _paired(trial, cohort, "val") for trial in members)
    task = tasks.of(first.task, (first.task,))
    splits = ("val", "test") if first.stage == "evaluation" else ("val",)
    n = {
        modality: {
            split: len(examples.answerable(cohort, task, modality, split)) for split in splits
        }
        for modality in {trial.modality for trial in members}
    }
    return sum(
        _validations(trial) * n[trial.modality]["val"] + sum(n[trial.modality].values())
        for trial in members
    )


def _validations(trial: Trial) -> int:
    return -(-trial.epochs // trial.eval_every)


def _paired(trial: Trial, cohort: dataset.Cohort, split: str) -> int:
    """Rows of a split that have every signal of a pre-training."""
    return int(presence.has(cohort.rows(split), *trial.task.split("+")).sum())


# -- Optuna ----------------------------------------------------------------------------------------


class QuestionStudy:
    """One Optuna study over the enumerated configurations of one question.

    Each configuration is asked and told once.

    Args:
        configurations: the trials, by their place in the whole list.
        seed: of Optuna's sampler.
        budget: configurations to be run, the finished ones included; `None` is all, in the order
            given.
    """

    def __init__(self, configurations: Mapping[int, Trial], seed: int, budget: int | None) -> None:
        recipes = {i: recipe(trial, "") for i, trial in configurations.items()}
        names = sorted({name for fields in recipes.values() for name in fields})
        values = {
            i: {name: _scalar(fields.get(name)) for name in names} for i, fields in recipes.items()
        }
        choices = {
            name: list(dict.fromkeys(row[name] for row in values.values())) for name in names
        }
        dimensions = [name for name in names if len(choices[name]) > 1] or ["seed"]
        self.space: dict[str, BaseDistribution] = {
            name: CategoricalDistribution(choices[name]) for name in dimensions
        }
        self.params = {i: {name: row[name] for name in dimensions} for i, row in values.items()}
        self.open = dict.fromkeys(configurations)  # an ordered set: not finished, not asked
        # Points to be asked yet.
        self.remaining = len(configurations) if budget is None else min(budget, len(configurations))
        # Equally near configurations are taken in a random, fixed order: the first in the list
        # would favour the lowest values.
        order = np.random.default_rng(seed).permutation(len(configurations))
        self.rank = dict(zip(configurations, order.tolist()))
        self.proposals: dict[int, optuna.trial.Trial] = {}
        sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        self.study = optuna.create_study(direction="maximize", sampler=sampler)

    def add_finished(self, configuration: int, value: float) -> None:
        """Tell a configuration that was run before."""
        fields: dict[str, Any] = {"params": self.params[configuration], "distributions": self.space}
        if np.isfinite(value):
            self.study.add_trial(optuna.trial.create_trial(value=value, **fields))
        else:
            self.study.add_trial(optuna.trial.create_trial(state=TrialState.FAIL, **fields))
        self._take(configuration)

    def ask(self, configuration: int) -> None:
        """Ask this very configuration."""
        self.study.enqueue_trial(self.params[configuration])
        self.proposals[configuration] = self.study.ask(self.space)
        self._take(configuration)

    def propose(self, configurations: Iterable[int]) -> int | None:
        """Ask the open one of `configurations` that is nearest to Optuna's own proposal.

        `None` when there is none left.
        """
        candidates = (
            [configuration for configuration in configurations if configuration in self.open]
            if self.remaining
            else []
        )
        if not candidates:
            return None
        proposal = self.study.ask(self.space)
        configuration = min(
            candidates, key=lambda i: (self._distance(i, proposal.params), self.rank[i])
        )
        if self._distance(configuration, proposal.params):
            self.study.tell(proposal, state=TrialState.FAIL)
            self.ask(configuration)
        else:
            self.proposals[configuration] = proposal
            self._take(configuration)
        return configuration

    def tell(self, configuration: int, value: float | None) -> None:
        """Tell the value of a configuration that was asked; `None` or not finite: it has none."""
        if value is not None and np.isfinite(value):
            self.study.tell(self.proposals[configuration], value)
        else:
            self.study.tell(self.proposals[configuration], state=TrialState.FAIL)

    def _take(self, configuration: int) -> None:
        del self.open[configuration]
        self.remaining = max(0, self.remaining - 1)

    def _distance(self, configuration: int, params: Mapping[str, Any]) -> int:
        return sum(params[name] != value for name, value in self.params[configuration].items())


def _scalar(value: Any) -> Any:
    return str(value) if isinstance(value, list) else value


class Packed(Searcher):
    """Gives every Tune trial a pack: asks the studies for its members,
    and tells them what rows say afterwards.

    Args:
        trials: all trials, finished or not.
        runs: where rows are.
        finished_names: of those that are finished.
        limit: members of a pack at most; by default what `memory` holds.
        seed: of the samplers.
        budget: configurations per study; `None` runs all of them.
        at_once: packs side by side.
        memory: bytes of GPU memory that a pack gets; `None` is a CPU.
    """

    def __init__(
        self,
        trials: Sequence[Trial],
        runs: Path,
        *,
        finished_names: set[str],
        limit: int | None = None,
        seed: int = 0,
        budget: int | None = None,
        at_once: int = 1,
        memory: int | None = None,
    ) -> None:
        super().__init__(metric="best", mode="max")
        self.trials, self.runs = list(trials), runs
        self.limit = (lambda _: limit) if limit else partial(partition.pack_limit, memory=memory)
        self.place = {trial.name: i for i, trial in enumerate(trials)}
        configurations: dict[Any, dict[int, Trial]] = defaultdict(dict)
        for i, trial in enumerate(trials):
            configurations[selection.question(trial)][i] = trial
        self.studies = {
            key: QuestionStudy(group, seed, budget) for key, group in configurations.items()
        }
        for i, trial in enumerate(trials):
            if trial.name in finished_names:
                self._study(i).add_finished(i, selection.value(runs, trial))
        self.runs_whole_grid = budget is None
        self.queue: list[list[int]] = []
        if self.runs_whole_grid:
            todo = [trial for trial in trials if trial.name not in finished_names]
            packs = partition.packs(todo, self.limit, at_once)
            self.queue = [[self.place[trial.name] for trial in pack] for pack in packs]
        self.packs: dict[str, list[int]] = {}  # members by Tune's name of the pack
        self.count = 0

    def suggest(self, trial_id: str) -> dict[str, Any] | str:  # type: ignore[override]
        """The next pack, or Tune's word for the end."""
        members = self._next_in_queue() if self.runs_whole_grid else self._proposal()
        if not members:
            return Searcher.FINISHED
        self.packs[trial_id] = members
        self.count += 1
        return {"pack": self.count, "members": members}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell the studies what the members' rows say, which the worker has read.

        A member without rows has failed.
        """
        configurations = self.packs.pop(trial_id, [])
        values = (result or {}).get("values")  # absent where the pack failed, or its worker died
        if values is None:
            values = [
                selection.value(self.runs, self.trials[configuration])
                for configuration in configurations
            ]
        for configuration, value in zip(configurations, values):
            self._study(configuration).tell(configuration, value)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: rows on disk say what is finished, and the next run starts from them."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, as nothing was saved."""

    def _study(self, configuration: int) -> QuestionStudy:
        return self.studies[selection.question(self.trials[configuration])]

    def _next_in_queue(self) -> list[int]:
        members = self.queue.pop(0) if self.queue else []
        for configuration in members:
            self._study(configuration).ask(configuration)
        return members

    def _proposal(self) -> list[int]:
        """A pack by TPE: the first proposal settles what the pack shares.

        The studies then take turns within that.
        """
        members: list[int] = []
        candidates: dict[Any, list[int]] = {
            key: list(study.open) for key, study in self.studies.items()
        }
        size = 1
        while len(members) < size:
            before = len(members)
            for key, study in self.studies.items():
                configuration = study.propose(candidates[key]) if len(members) < size else None
                if configuration is None:
                    continue
                members.append(configuration)
                if len(members) == 1:
                    size = self.limit(self.trials[configuration])
                    candidates = {
                        question: self._fitting(configuration, configurations)
                        for question, configurations in candidates.items()
                    }
            if len(members) == before:
                break
        return members

    def _fitting(self, first: int, configurations: list[int]) -> list[int]:
        """Those of the configurations that may share a pack with the first."""
        key = finetune.pack_key(self.trials[first])
        return [
            configuration
            for configuration in configurations
            if finetune.pack_key(self.trials[configuration]) == key
        ]


# -- Ray Tune --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CheckedTrials:
    """Supervised trials that every worker can serve, and which of them are finished.

    Attributes:
        trials: all of them.
        finished_names: of those that need not run.
        cohort: they run on it.
        runs: the folder of runs, absolute.
        set_aside: a line for each run that was damaged, and is to be made again.
    """

    trials: list[Trial]
    finished_names: set[str]
    cohort: dataset.Cohort
    runs: Path
    set_aside: list[str]

    @property
    def todo(self) -> list[Trial]:
        """Those that are not finished."""
        return [trial for trial in self.trials if trial.name not in self.finished_names]


def check(trials: Sequence[Trial], cohort_path: Path, runs: Path) -> CheckedTrials:
    """Refuse what no worker could serve; Ray need not run yet.

    Args:
        trials: the whole grid, or the evaluation trials; pre-trainings among them are left out.
        cohort_path: the cohort's folder, as every node sees it.
        runs: the folder of runs, as every node sees it.

    Raises:
        InputError: see `spaces.check`; or a folder was made by another recipe.
    """
    plugins.carried()  # refuses what no worker could know
    runs, cohort = Path(runs).absolute(), dataset.open(Path(cohort_path).absolute())
    finetunings = [trial for trial in trials if trial.stage != "pretrain"]
    set_aside = set_damaged_aside(runs, finetunings)
    finished_names = {t.name for t in finetunings if is_finished(runs, t, cohort.fingerprint)}
    checked_trials = CheckedTrials(finetunings, finished_names, cohort, runs, set_aside)
    spaces.check(checked_trials.todo, cohort, runs)
    return checked_trials


def run(trials: Sequence[Trial], cohort_path: Path, runs: Path, **options: Any) -> int:
    """Check and run the supervised trials that are not finished; see `check` and `run_checked`."""
    return run_checked(check(trials, cohort_path, runs), **options)


def run_checked(
    trials: CheckedTrials,
    *,
    budget: int | None = None,
    seed: int = 0,
    concurrency: int | None = None,
    limit: int | None = None,
    device: str | None = None,
    precision: str = "auto",
    train: Callable[..., object] = partition.train,
) -> int:
    """Run what is not finished, in packs, and return how many that were. Ray must be running.

    Args:
        trials: of `check`.
        budget: configurations per system and task, proposed by TPE; `None` is every configuration.
        seed: of Optuna's sampler.
        concurrency: packs at once; by default one per GPU; without GPUs CPU_PACKS per node, or its
            cores. More than there are GPUs share them, and each other's memory.
        limit: members of a pack at most; by default what the memory that a pack gets holds.
        device: as for `finetune.fit`.
        precision: as for `finetune.fit`.
        train: what a worker does with a pack; takes what `partition.train` takes.

    Raises:
        InputError: bad input that a worker meets.
        RuntimeError: packs failed; the others have finished first.
    """
    todo, runs = trials.todo, trials.runs
    if not todo:
        return 0
    _forget_stopped(todo, runs)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # A grid of trees leaves the GPUs to others.
    all_trees = all(trial.method == trees.METHOD for trial in todo)
    resources, at_once = _resources(concurrency, "cpu" if all_trees else device)
    searcher = Packed(
        trials.trials,
        runs,
        finished_names=trials.finished_names,
        seed=seed,
        budget=budget,
        limit=limit,
        at_once=at_once,
        memory=_memory(resources.get("gpu", 0)),
    )
    if not any(study.remaining for study in searcher.studies.values()):
        return 0
    work = _worker(trials, device, precision, train)
    failures = _tune(work, searcher, resources, at_once, runs)
    count = sum(is_finished(runs, trial, trials.cohort.fingerprint) for trial in todo)
    if failures:
        _raise(failures, searcher.count, runs)
    # Of packs that were cut otherwise before a kill.
    shutil.rmtree(runs / finetune.CHECKPOINTS, ignore_errors=True)
    return count


def _worker(
    trials: CheckedTrials, device: str | None, precision: str, train: Callable[..., object]
) -> Callable[[dict[str, Any]], None]:
    """What Tune runs for every pack."""
    return partial(
        _work,
        # Tune unpickles what it runs several times per pack: the list must not be part of it.
        trials_ref=ray.put(trials.trials),
        cohort_path=trials.cohort.path,
        runs=trials.runs,
        device=device,
        precision=precision,
        train=train,
        named=plugins.carried(),
    )


def _forget_stopped(trials: Iterable[Trial], runs: Path) -> None:
    """Remove what a killed run has left: progress records,
    folders half-written aside, Tune's own.
    """
    shutil.rmtree(runs / TUNE, ignore_errors=True)
    for folder in {store.folder(runs, t.task_folder) for t in trials}:
        for path in folder.glob("pack-*"):
            shutil.rmtree(path)
    for folder in (store.folder(runs, trial.name) for trial in trials):
        for path in folder.parent.glob(f".{folder.name}.*"):
            shutil.rmtree(path)


def _resources(concurrency: int | None, device: str | None) -> tuple[dict[str, float], int]:
    """What Tune reserves for a pack, and how many packs run at once."""
    gpus = 0 if device == "cpu" else int(ray.cluster_resources().get("GPU", 0))
    if gpus:
        at_once = concurrency or gpus
        return {"cpu": 1, "gpu": min(1.0, gpus / at_once)}, at_once
    nodes = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    at_once, cpus = beside([cpus for cpus in nodes if cpus], concurrency)
    return {"cpu": cpus}, at_once


def _memory(share: float) -> int | None:
    """Bytes of GPU memory that a pack with this share of a GPU gets; None without one."""
    if not share:
        return None
    # A worker says: the head of a cluster may have no GPU.
    whole = ray.get(
        ray.remote(num_cpus=0, num_gpus=share)(partition.device_bytes).remote(), timeout=600
    )
    return int(whole * share) if whole else None


def beside(nodes: Sequence[int], concurrency: int | None = None) -> tuple[int, int]:
    """How many packs run at once on nodes of so many cores without GPU, and the cores of each."""
    at_once = concurrency or sum(min(cpus, CPU_PACKS) for cpus in nodes)
    # A pack must fit on one node; the smallest decides how many cores each gets.
    return at_once, max(1, min(nodes) // -(-at_once // len(nodes)))


def _tune(
    work: Any, searcher: Packed, resources: dict[str, float], at_once: int, runs: Path
) -> list[dict[str, Any]]:
    """Let Tune run every pack of the searcher; what failed, as one record per pack."""
    os.environ.update(TUNE_ENVIRONMENT)
    tuner = tune.Tuner(
        tune.with_resources(work, resources),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            num_samples=len(searcher.trials),
            metric="best",
            mode="max",
            max_concurrent_trials=at_once,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: f"pack-{trial.trial_id}",
        ),
        run_config=tune.RunConfig(
            name=f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}",
            storage_path=str(runs / TUNE),
            verbose=0,
            # A node may go; what is finished is not run again.
            failure_config=tune.FailureConfig(max_failures=1),
        ),
    )
    results = tuner.fit()
    reports = [results[i].metrics for i in range(len(results))]
    failures = [report for report in reports if report and report.get("error")]
    failures += [{"error": spaces.one_line(error), "refused": False} for error in results.errors]
    if not failures or sum(record["refused"] for record in failures) == len(results):
        # Rows say all that it says, or one line of refusal does.
        shutil.rmtree(runs / TUNE, ignore_errors=True)
    return failures


def _raise(failures: list[dict[str, Any]], count: int, runs: Path) -> None:
    refusal = next((record for record in failures if record["refused"]), None)
    if refusal:
        raise InputError(refusal["error"])
    raise RuntimeError(
        f"{len(failures)} of {count} packs failed, the others have finished: "
        f"{failures[0]['error']}; see {runs / TUNE}"
    )


def _work(
    config: dict[str, Any],
    *,
    trials_ref: Any,
    cohort_path: Path,
    runs: Path,
    device: str | None,
    precision: str,
    train: Callable[..., object],
    named: Sequence[str],
) -> None:
    """One Tune trial: fit a pack, and report once.

    Never raises, so that the process lives on for the next pack.
    """
    report: dict[str, Any] = {
        "pack": config["pack"],
        "error": "",
        "refused": False,
        "best": float("nan"),
    }
    try:
        plugins.load(named)
        cohort, trials = _cohort(cohort_path), _trials(trials_ref)
        members = [trials[i] for i in config["members"]]
        todo = [trial for trial in members if not is_finished(runs, trial, cohort.fingerprint)]
        place = todo[0].task_folder if todo else ""
        train(todo, cohort, runs, device, precision, f"{place}/pack-{config['pack']}")
        report["values"] = [selection.value(runs, trial) for trial in members]
        report["best"] = max(report["values"], default=float("nan"))
    except Exception as error:
        (runs / TUNE).mkdir(parents=True, exist_ok=True)
        (runs / TUNE / f"failed-pack-{config['pack']}.txt").write_text(traceback.format_exc())
        text = spaces.one_line(error)
        text = text if isinstance(error, InputError) else f"{type(error).__name__}: {text}"
        report.update(error=text, refused=isinstance(error, InputError))
    tune.report(report)


@lru_cache(maxsize=1)
def _trials(trials_ref: Any) -> list[Trial]:
    return ray.get(trials_ref)


@lru_cache(maxsize=1)
def _cohort(path: Path) -> dataset.Cohort:
    # Once per process: the next pack of this worker finds its signals on the device.
    return dataset.open(path)
