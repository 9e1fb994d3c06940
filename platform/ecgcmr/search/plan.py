"""The bill before anything starts: trials, packs, steps, bytes, and time from a few steps timed on this machine.

The steps are those of the real engines on random numbers of the right shapes, with as many cores as the work will have.
Early stopping makes a grid shorter than this says; reading shards, starting Ray and a busy machine make it longer.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ecgcmr import methods, paper, presets, tasks
from ecgcmr.cohort import dataset
from ecgcmr.data import examples
from ecgcmr.evaluation import selection
from ecgcmr.runtime import cuda_graph, hardware
from ecgcmr.search import spaces, study, sweep
from ecgcmr.signals import SIGNALS
from ecgcmr.training import finetune, loop, trees
from ecgcmr.training import pack as packs
from ecgcmr.trial import Trial

FEW = 4  # subjects of the first timed step
QUICK_S = 3.0  # a whole batch is timed too where it is expected to take less
STEPS = 2  # timed, after one that warms up
ROW_BYTES = 60_000  # of a finished trial without weights, measured on the demo's grid


@dataclass(frozen=True)
class Cost:
    """What a trial of a kind takes: seconds per subject learnt from, per subject judged, and bytes that it leaves."""

    learn: float
    judge: float
    bytes: int


@dataclass(frozen=True)
class Line:
    """What one stage of one task amounts to.

    Attributes:
        stage, task: which.
        trials, packs, steps: how many.
        bytes: that it leaves on disk.
        seconds: of training on this machine; 0 if nothing was timed.
    """

    stage: str
    task: str
    trials: int
    packs: int
    steps: int
    bytes: int
    seconds: float


@dataclass(frozen=True)
class Estimate:
    """What trials amount to on a cohort.

    Attributes:
        trials: those that can run.
        left_out: reasons why others cannot, with how many.
        lines: one per stage and task.
        rows, cohort_bytes: of the cohort.
        free_bytes: on the disk of the runs.
        device: "cpu" or "cuda", which the times are of.
        timed: whether anything was timed.
    """

    trials: list[Trial]
    left_out: dict[str, int]
    lines: list[Line]
    rows: int
    cohort_bytes: int
    free_bytes: int
    device: str
    timed: bool

    @property
    def seconds(self) -> float:
        """Of all lines."""
        return sum(line.seconds for line in self.lines)

    @property
    def bytes(self) -> int:
        """That all lines leave on disk."""
        return sum(line.bytes for line in self.lines)

    @property
    def questions(self) -> int:
        """Systems, tasks and shares of the labels whose best point will run with every one of `paper.SEEDS`."""
        return len({selection.question(trial) for trial in self.trials if trial.stage == "grid"})


def estimate(
    trials: list[Trial], cohort_path: Path, runs: Path, *, calibrate: bool = True
) -> Estimate:
    """What the trials amount to on a cohort.

    Raises:
        InputError: no cohort there, or trials that could not run on it.
    """
    cohort = dataset.open(cohort_path)
    tuned = [trial for trial in trials if trial.stage != "pretrain"]
    finetune.check(tuned)
    kept, left_out = spaces.feasible(tuned, cohort)
    runnable = [*(trial for trial in trials if trial.stage == "pretrain"), *kept]
    at_once, cores = _beside(hardware.device(None))
    return Estimate(
        trials=runnable,
        left_out=left_out,
        lines=[_line(group, cohort, at_once, cores, calibrate) for group in _groups(runnable)],
        rows=sum(cohort.manifest["rows"].values()),
        cohort_bytes=sum(file.stat().st_size for file in cohort_path.rglob("*.parquet")),
        free_bytes=shutil.disk_usage(
            next(parent for parent in (runs, *runs.parents) if parent.exists())
        ).free,
        device=hardware.device(None).type,
        timed=calibrate,
    )


def _line(
    group: list[Trial], cohort: dataset.Cohort, at_once: int, cores: int, calibrate: bool
) -> Line:
    # Trials of a stage and task differ in system; one of them stands for all that share a network.
    kinds = _kinds(group)
    bills = [found for kind in kinds for found in sweep.plan(kind, cohort, at_once)]
    costs = [cost(kind[0], found, at_once, cores, calibrate) for kind, found in zip(kinds, bills)]
    return Line(
        stage=group[0].stage,
        task=group[0].task,
        trials=len(group),
        packs=sum(found.packs for found in bills),
        steps=sum(found.steps for found in bills),
        bytes=sum(each.bytes * found.trials for each, found in zip(costs, bills)),
        seconds=sum(
            each.learn * found.subjects + each.judge * found.judged
            for each, found in zip(costs, bills)
        ),
    )


def parts(trials: list[Trial]) -> list[tuple[str, int, int]]:
    """(table or figure of the paper, grid trials, final trials) for each that the trials make.

    What two of them share is counted in both.
    """
    made = []
    for part, (labels, names, takes) in study.PARTS.items():
        mine = [
            t
            for t in trials
            if t.stage == "grid" and t.label in labels and t.task in names and t.take in takes
        ]
        # A fraction that the cohort is too small for is missing for every system alike.
        if {t.label for t in mine} == set(labels) and {t.task for t in mine} == set(names):
            made.append(
                (
                    part,
                    len(mine),
                    len({selection.question(trial) for trial in mine}) * len(paper.SEEDS),
                )
            )
    return made


def _groups(trials: Iterable[Trial]) -> list[list[Trial]]:
    """By stage and task; the final trials stand as all seeds of each system's first grid point."""
    groups: dict[tuple[str, str], list[Trial]] = {}
    for trial in trials:
        groups.setdefault((trial.stage, trial.task), []).append(trial)
    for stage, task in list(groups):
        if stage == "grid":
            firsts = {(trial.label, trial.take): trial for trial in reversed(groups[stage, task])}
            groups["final", task] = [
                replace(trial, stage="final", seed=seed)
                for trial in firsts.values()
                for seed in paper.SEEDS
            ]
    order = ("pretrain", "grid", "final")
    return [groups[key] for key in sorted(groups, key=lambda key: order.index(key[0]))]


def _kinds(group: Iterable[Trial]) -> list[list[Trial]]:
    """Trials that cost alike; no two kinds share a pack."""
    kinds: dict[tuple[object, ...], list[Trial]] = {}
    for trial in group:
        kinds.setdefault((trial.method, trial.modality, trial.network, trial.preset), []).append(
            trial
        )
    return list(kinds.values())


def _beside(device: torch.device) -> tuple[int, int]:
    """Packs at once on this machine, and the cores of each."""
    if device.type == "cuda":
        return torch.cuda.device_count(), torch.get_num_threads()
    return sweep.beside([len(os.sched_getaffinity(0))])


def cost(trial: Trial, found: sweep.Bill, at_once: int, cores: int, calibrate: bool) -> Cost:
    """What a trial of a kind costs per subject and leaves on disk.

    Args:
        trial: one of the kind.
        found: the bill of the kind: how large its packs and training sets are.
        at_once: packs side by side.
        cores: of each.
        calibrate: whether to time it; else it costs no time.
    """
    if trial.method == trees.METHOD:
        answered = tasks.of(trial.task, (trial.task,))
        learn, judge = (
            _tabular_seconds(answered, found.subjects // found.trials) if calibrate else (0.0, 0.0)
        )
        return Cost(learn / at_once, judge / at_once, ROW_BYTES)
    pack = max(1, found.trials // found.packs)
    task = None if trial.stage == "pretrain" else tasks.of(trial.task, (trial.task,))
    outputs = task.outputs if task else 0
    preset = presets.preset(trial.preset)
    method = methods.build(
        trial.method, trial.network, preset, outputs=outputs, modality=trial.modality
    )
    kept = (
        [method]
        if task
        else [method.get_submodule(name) for name in (method.parts | method.beside).values()]
    )
    weights = (
        0
        if trial.stage == "grid"
        else 4 * sum(p.numel() for module in kept for p in module.parameters())
    )
    learn, judge = (0.0, 0.0)
    if calibrate:
        learn, judge = _seconds(
            _bare(trial), task, pack, cores if task else torch.get_num_threads()
        )
    learn, judge = (seconds / (at_once if task else 1) for seconds in (learn, judge))
    return Cost(learn, judge, weights + ROW_BYTES)


def _bare(trial: Trial) -> Trial:
    """The trial without what does not change its speed, so that each kind is timed once."""
    stage = "pretrain" if trial.stage == "pretrain" else "grid"
    return replace(
        trial,
        space="plan",
        stage=stage,
        task=trial.task if stage == "pretrain" else "plan",
        label="plan",
        starts=(),
        seed=0,
        epochs=1,
        take=1.0,
        eval_every=1,
        knobs=(),
    )


@lru_cache(maxsize=64)
def _seconds(trial: Trial, task: tasks.Task | None, pack: int, cores: int) -> tuple[float, float]:
    """Per subject, learning and judging, on so many cores.

    From a few subjects, or from whole batches where those are quick, since small steps waste time.
    """
    device, threads = hardware.device(None), torch.get_num_threads()
    few = min(trial.batch, FEW)
    torch.set_num_threads(cores)
    try:
        n, members = few, 1
        learn, judge = _steps(trial, task, n, members, device)
        seconds = _timed(learn, device)
        if seconds / few * trial.batch * pack < QUICK_S:
            n, members = trial.batch, pack
            learn, judge = _steps(trial, task, n, members, device)
            seconds = _timed(learn, device)
        return seconds / (n * members), _timed(judge, device) / (n * members)
    finally:
        torch.set_num_threads(threads)


def _tabular_seconds(task: tasks.Task, n: int) -> tuple[float, float]:
    """Per subject, learning from n random ones and judging them, by trees in the middle of the paper's grid."""
    draw, cpu, columns = np.random.default_rng(0), torch.device("cpu"), len(task.columns)
    answers = (
        draw.integers(0, 2, (n, columns))
        if task.kind == "binary"
        else draw.normal(size=(n, columns))
    )
    features = draw.normal(size=(n, len(trees.FEATURES))).astype(np.float32)
    rows = trees.Table(np.arange(n), features, answers, answers.astype(np.float32))
    forest, _ = trees.grow(trees.KNOBS, 0, task, rows, rows)
    scale = examples.Scale(np.zeros(columns), np.ones(columns))
    learn = _timed(lambda _: trees.grow(trees.KNOBS, 0, task, rows, rows), cpu)
    return learn / n, _timed(lambda _: trees.answer(forest, features, scale), cpu) / n


def _timed(step: Callable[[int], object], device: torch.device) -> float:
    """Seconds of one step: the quickest of STEPS, since others use the machine too."""
    for _ in range(1 if device.type == "cpu" else cuda_graph.WARM + 1):
        step(0)
    taken = []
    for number in range(1, STEPS + 1):
        _wait(device)
        start = time.perf_counter()
        step(number)
        _wait(device)
        taken.append(time.perf_counter() - start)
    return min(taken)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _batch(n: int, columns: Iterable[str], device: torch.device) -> dict[str, Tensor]:
    signals = [SIGNALS[name] for name in columns if name in SIGNALS]
    return {signal.name: torch.rand((n, *signal.shape), device=device) for signal in signals}


Step = Callable[[int], object]


def _steps(
    trial: Trial, task: tasks.Task | None, n: int, members: int, device: torch.device
) -> tuple[Step, Step]:
    """A step of learning and one of judging, on n random subjects and so many members."""
    return (
        _pack_steps(trial, task, n, members, device) if task else _training_steps(trial, n, device)
    )


def _training_steps(trial: Trial, n: int, device: torch.device) -> tuple[Step, Step]:
    run = loop.prepare(
        replace(trial, batch=n), STEPS + 1, device, hardware.precision("auto", device)
    )
    batch = _batch(n, run.method.needs, device)
    return lambda number: loop.step(run, batch, number), lambda number: loop.validate(
        run, [(n, batch)]
    )


def _pack_steps(
    trial: Trial, task: tasks.Task, n: int, members: int, device: torch.device
) -> tuple[Step, Step]:
    alone = [replace(trial, starts=()) for _ in range(members)]
    pack = packs.assemble(alone, task, Path(), device, hardware.precision("auto", device))
    batch = _batch(n, (trial.modality,), device)
    classes, numbers = (
        torch.arange(n, device=device) % 2,
        torch.rand((n, task.outputs), device=device),
    )
    answers = classes if task.kind == "binary" else numbers

    def learn(number: int) -> None:
        noise = pack.method.noise(hardware.generator(device, trial.seed, number), n)
        packs.learn(pack, {**batch, "target": answers}, noise, None, number, STEPS + 1)

    def judge(number: int) -> None:
        with torch.no_grad():
            packs.forward(pack, batch, {}, None, "logits")

    return learn, judge
