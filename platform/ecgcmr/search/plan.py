"""The bill before anything starts: trials, packs, steps, bytes,
and time from a few steps timed on this machine.

The steps are those of the real engines on random numbers of the right shapes, with as many cores as
the work will have. Early stopping makes a grid shorter than this says; reading shards, starting Ray
and a busy machine make it longer.
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

from ecgcmr import methods, paper, plugins, presets, tasks
from ecgcmr.cohort import dataset
from ecgcmr.data import examples
from ecgcmr.evaluation import selection
from ecgcmr.runtime import cuda_graph, hardware
from ecgcmr.search import spaces, study, sweep
from ecgcmr.signals import SIGNALS
from ecgcmr.training import finetune, loop, pack_step, trees
from ecgcmr.training.pack import assemble
from ecgcmr.trial import Trial

FEW = 4  # subjects of the first timed step
QUICK_S = 3.0  # a whole batch is timed too where it is expected to take less
STEPS = 2  # timed, after one that warms up
ROW_BYTES = 60_000  # of a finished trial without weights, measured on the demo's grid


@dataclass(frozen=True)
class Cost:
    """What a trial of a kind takes: seconds per subject learnt from, per subject evaluated,
    and bytes that it leaves.
    """

    learn: float
    judge: float
    bytes: int


@dataclass(frozen=True)
class StageEstimate:
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
        has_times: whether anything was timed.
        pretrain_seeds: of each pre-training that something starts from.
    """

    trials: list[Trial]
    left_out: dict[str, int]
    lines: list[StageEstimate]
    rows: int
    cohort_bytes: int
    free_bytes: int
    device: str
    has_times: bool
    pretrain_seeds: int = 1

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
        """Systems, tasks and shares of the labels whose best configuration will run with every one
        of `paper.SEEDS`.
        """
        return len({selection.question(trial) for trial in self.trials if trial.stage == "grid"})


def estimate(
    trials: list[Trial],
    cohort_path: Path,
    runs: Path,
    *,
    calibrate: bool = True,
    pretrain_seeds: int = 1,
) -> Estimate:
    """What the trials amount to on a cohort.

    Args:
        trials: of a search space.
        cohort_path: the cohort's folder.
        runs: the folder of runs, for its disk.
        calibrate: whether to time a few steps.
        pretrain_seeds: of each pre-training that something starts from.

    Raises:
        InputError: no cohort there, or trials that could not run on it.
    """
    plugins.carried()  # what no worker could know is refused here, too
    cohort = dataset.open(cohort_path)
    pretrainings = [trial for trial in trials if trial.stage == "pretrain"]
    if pretrain_seeds > 1:
        _, *further = study.pretraining_seeds(study.before_choice(trials), pretrain_seeds)
        pretrainings += [trial for of_seed in further for trial in of_seed.values()]
    finetunings = [trial for trial in trials if trial.stage != "pretrain"]
    finetune.check(finetunings)
    feasible, left_out = spaces.feasible(finetunings, cohort)
    runnable = [*pretrainings, *feasible]
    at_once, cores = _beside(hardware.device(None))
    return Estimate(
        trials=runnable,
        left_out=left_out,
        lines=[_line(group, cohort, at_once, cores, calibrate) for group in _groups(runnable)],
        rows=sum(cohort.manifest["rows"].values()),
        cohort_bytes=sum(file.stat().st_size for file in cohort_path.rglob("*.parquet")),
        free_bytes=_free_bytes(runs),
        device=hardware.device(None).type,
        has_times=calibrate,
        pretrain_seeds=pretrain_seeds,
    )


def _free_bytes(runs: Path) -> int:
    """On the disk of a folder that need not exist yet."""
    return shutil.disk_usage(
        next(parent for parent in (runs, *runs.parents) if parent.exists())
    ).free


def _line(
    group: list[Trial], cohort: dataset.Cohort, at_once: int, cores: int, calibrate: bool
) -> StageEstimate:
    # Trials of a stage and task differ in system; one of them stands for all that share a network.
    kinds = _kinds(group)
    bills = [bill for kind in kinds for bill in sweep.plan(kind, cohort, at_once)]
    costs = [cost(kind[0], bill, at_once, cores, calibrate) for kind, bill in zip(kinds, bills)]
    return StageEstimate(
        stage=group[0].stage,
        task=group[0].task,
        trials=len(group),
        packs=sum(bill.packs for bill in bills),
        steps=sum(bill.steps for bill in bills),
        bytes=sum(unit.bytes * bill.trials for unit, bill in zip(costs, bills)),
        seconds=sum(
            unit.learn * bill.subjects + unit.judge * bill.evaluations
            for unit, bill in zip(costs, bills)
        ),
    )


def parts(trials: list[Trial]) -> list[tuple[str, int, int]]:
    """(table or figure of the paper, grid trials, evaluation trials) for each that the trials make.

    What two of them share is counted in both.
    """
    counts = []
    for part, (systems, names, fractions) in study.PARTS.items():
        grid = [
            t
            for t in trials
            if t.stage == "grid"
            and t.system in systems
            and t.task in names
            and t.label_fraction in fractions
        ]
        # A fraction that the cohort is too small for is missing for every system alike.
        if {t.system for t in grid} == set(systems) and {t.task for t in grid} == set(names):
            questions = {selection.question(trial) for trial in grid}
            counts.append((part, len(grid), len(questions) * len(paper.SEEDS)))
    return counts


def _groups(trials: Iterable[Trial]) -> list[list[Trial]]:
    """By stage and task; the evaluation trials stand as all seeds of the first configuration of
    each system's grid.
    """
    groups: dict[tuple[str, str], list[Trial]] = {}
    for trial in trials:
        groups.setdefault((trial.stage, trial.task), []).append(trial)
    for stage, task in list(groups):
        if stage == "grid":
            firsts = {
                (trial.system, trial.label_fraction): trial
                for trial in reversed(groups[stage, task])
            }
            groups["evaluation", task] = [
                replace(trial, stage="evaluation", seed=seed)
                for trial in firsts.values()
                for seed in paper.SEEDS
            ]
    order = ("pretrain", "grid", "evaluation")
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


def cost(trial: Trial, bill: sweep.Bill, at_once: int, cores: int, calibrate: bool) -> Cost:
    """What a trial of a kind costs per subject and leaves on disk.

    Args:
        trial: one of the kind.
        bill: of the kind: how large its packs and training sets are.
        at_once: packs side by side.
        cores: of each.
        calibrate: whether to time it; else it costs no time.
    """
    learn, judge = (0.0, 0.0)
    if trial.method == trees.METHOD:
        if calibrate:
            tabular_task = tasks.of(trial.task, (trial.task,))
            learn, judge = _tabular_seconds(tabular_task, bill.subjects // bill.trials)
        return Cost(learn / at_once, judge / at_once, ROW_BYTES)
    task = None if trial.stage == "pretrain" else tasks.of(trial.task, (trial.task,))
    weights = _weight_bytes(trial, task)
    if calibrate:
        pack = max(1, bill.trials // bill.packs)
        threads = cores if task else torch.get_num_threads()
        learn, judge = _seconds(_bare(trial), task, pack, threads)
    beside = at_once if task else 1
    return Cost(learn / beside, judge / beside, weights + ROW_BYTES)


def _weight_bytes(trial: Trial, task: tasks.Task | None) -> int:
    """Of the weights that a trial leaves: none of a grid's,
    the parts that are handed on of a pre-training's.
    """
    preset, outputs = presets.preset(trial.preset), task.outputs if task else 0
    # Built for a grid too: a network that cannot be is refused here.
    method = methods.build(
        trial.method, trial.network, preset, outputs=outputs, modality=loop.modality_of(trial)
    )
    if trial.stage == "grid":
        return 0
    modules: list[torch.nn.Module] = [method]
    if not task:
        parts = method.parts | method.beside
        modules = [method.get_submodule(name) for name in parts.values()]
    return 4 * sum(p.numel() for module in modules for p in module.parameters())


def _bare(trial: Trial) -> Trial:
    """The trial without what does not change its speed, so that each kind is timed once."""
    stage = "pretrain" if trial.stage == "pretrain" else "grid"
    return replace(
        trial,
        space="plan",
        stage=stage,
        task=trial.task if stage == "pretrain" else "plan",
        system="plan",
        init_from=(),
        seed=0,
        epochs=1,
        label_fraction=1.0,
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
        seconds = _step_seconds(learn, device)
        if seconds / few * trial.batch * pack < QUICK_S:
            n, members = trial.batch, pack
            learn, judge = _steps(trial, task, n, members, device)
            seconds = _step_seconds(learn, device)
        return seconds / (n * members), _step_seconds(judge, device) / (n * members)
    finally:
        torch.set_num_threads(threads)


def _tabular_seconds(task: tasks.Task, n: int) -> tuple[float, float]:
    """Per subject, learning from n random ones and judging them,
    by trees in the middle of the paper's grid.
    """
    draw, cpu, columns = np.random.default_rng(0), torch.device("cpu"), len(task.columns)
    targets = (
        draw.integers(0, 2, (n, columns))
        if task.kind == "binary"
        else draw.normal(size=(n, columns))
    )
    features = draw.normal(size=(n, len(trees.FEATURES))).astype(np.float32)
    rows = trees.TabularSplit(np.arange(n), features, targets, targets.astype(np.float32))
    forest, _ = trees.grow(trees.KNOBS, 0, task, rows, rows)
    scale = examples.Scale(np.zeros(columns), np.ones(columns))
    learn = _step_seconds(lambda _: trees.grow(trees.KNOBS, 0, task, rows, rows), cpu)
    judge = _step_seconds(lambda _: trees.predict(forest, features, scale), cpu)
    return learn / n, judge / n


def _step_seconds(step: Callable[[int], object], device: torch.device) -> float:
    """Seconds of one step: the quickest of STEPS, since others use the machine too."""
    for _ in range(1 if device.type == "cpu" else cuda_graph.WARM + 1):
        step(0)
    times = []
    for number in range(1, STEPS + 1):
        _wait(device)
        start = time.perf_counter()
        step(number)
        _wait(device)
        times.append(time.perf_counter() - start)
    return min(times)


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
    if task:
        return _pack_steps(trial, task, n, members, device)
    return _training_steps(trial, n, device)


def _training_steps(trial: Trial, n: int, device: torch.device) -> tuple[Step, Step]:
    precision = hardware.precision("auto", device)
    run = loop.prepare(replace(trial, batch=n), STEPS + 1, device, precision)
    batch = _batch(n, run.method.needs, device)

    def learn(number: int) -> None:
        loop.step(run, batch, number)

    def judge(number: int) -> None:
        loop.validate(run, [(n, batch)])

    return learn, judge


def _pack_steps(
    trial: Trial, task: tasks.Task, n: int, members: int, device: torch.device
) -> tuple[Step, Step]:
    alone = [replace(trial, init_from=()) for _ in range(members)]
    pack = assemble(alone, task, Path(), device, hardware.precision("auto", device))
    batch = _batch(n, (trial.modality,), device)
    classes = torch.arange(n, device=device) % 2
    phenotypes = torch.rand((n, task.outputs), device=device)
    targets = classes if task.kind == "binary" else phenotypes

    def learn(number: int) -> None:
        noise = pack.method.noise(hardware.generator(device, trial.seed, number), n)
        pack_step.learn(pack, {**batch, "target": targets}, noise, None, number, STEPS + 1)

    def judge(number: int) -> None:
        with torch.no_grad():
            pack_step.forward(pack, batch, {}, None, "logits")

    return learn, judge
