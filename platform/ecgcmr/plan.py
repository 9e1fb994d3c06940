"""The bill before anything starts: trials, packs, steps, bytes, and time from a few steps timed on this machine.

The steps are those of the real engines on random numbers of the right shapes, with as many cores as the work will have.
Early stopping makes a grid shorter than this says; reading shards, starting Ray and a busy machine make it longer.
"""

import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ecgcmr import cohort as cohorts
from ecgcmr import ecg, fit, hardware, methods, presets, sweep, tasks, training
from ecgcmr.progress import duration
from ecgcmr.trial import Trial

FEW = 4  # subjects of the first timed step
QUICK_S = 3.0  # a whole batch is timed too where it is expected to take less
STEPS = 2  # timed, after one that warms up
FINALS = 5  # seeds of every best point, which the file does not list
ROW_BYTES = 60_000  # of a finished trial without weights, measured on the demo's grid


@dataclass(frozen=True)
class Cost:
    """What a trial of a kind takes: seconds per subject learnt from, per subject judged, and bytes that it leaves."""

    learn: float
    judge: float
    bytes: int


def bill(trials: list[Trial], cohort_path: Path, runs: Path, *, calibrate: bool = True) -> list[str]:
    """What the trials amount to on a cohort, as lines for a person.

    Raises:
        InputError: no cohort there, or trials that could not run on it.
    """
    cohort = cohorts.open(cohort_path)
    fit.check([trial for trial in trials if trial.stage != "pretrain"])
    lines = [_summary(trials, cohort, cohort_path)]
    lines.append(f"{'stage':9s}{'task':10s}{'trials':>8s}{'packs':>7s}{'steps':>12s}{'disk':>10s}{'time':>16s}")
    seconds, space = 0.0, 0
    at_once, cores = _beside(hardware.device(None))
    for group in _groups(trials):
        (found,) = sweep.plan(group, cohort, at_once)
        # Trials of a stage and task may differ in system; one of them stands for all where they share a network.
        members = max(1, found.trials // found.packs)
        costs = {kind: cost(of, members, at_once, cores, calibrate) for kind, of in _kinds(group).items()}
        learn, judge = (sum(getattr(costs[_kind(t)], name) for t in group) / len(group) for name in ("learn", "judge"))
        taken = learn * found.subjects + judge * found.judged
        left = sum(costs[_kind(trial)].bytes for trial in group)
        seconds, space = seconds + taken, space + left
        lines.append(
            f"{found.stage:9s}{found.task:10s}{found.trials:8,}{found.packs:7,}{found.steps:12,}"
            f"{_size(left):>10s}{duration(taken) if calibrate else '—':>16s}"
        )
    free = shutil.disk_usage(next(parent for parent in (runs, *runs.parents) if parent.exists())).free
    lines.append(f"disk: {_size(space)} for runs, {_size(free)} free; finished trials are skipped")
    if calibrate:
        where = hardware.device(None)
        lines.append(f"time: {duration(seconds)} of training on this machine ({where.type}), if no trial stops early")
    return lines


def _summary(trials: list[Trial], cohort: cohorts.Cohort, path: Path) -> str:
    stages = Counter(trial.stage for trial in trials)
    systems = {(trial.task, trial.label) for trial in trials if trial.stage == "grid"}
    rows = sum(cohort.manifest["rows"].values())
    size = sum(file.stat().st_size for file in path.rglob("*.parquet"))
    names = ", ".join(sorted({trial.preset for trial in trials}))
    return (
        f"preset {names}; cohort of {rows:,} rows, {_size(size)}; {stages['pretrain']} pre-trainings, "
        f"{stages['grid']:,} grid trials, {len(systems) * FINALS} final trials"
    )


def _groups(trials: Iterable[Trial]) -> list[list[Trial]]:
    """By stage and task; the final trials stand as five seeds of each system's first grid point."""
    groups: dict[tuple[str, str], list[Trial]] = {}
    for trial in trials:
        groups.setdefault((trial.stage, trial.task), []).append(trial)
    for stage, task in list(groups):
        if stage == "grid":
            firsts = {trial.label: trial for trial in reversed(groups[stage, task])}
            groups["final", task] = [
                replace(trial, stage="final", seed=seed) for trial in firsts.values() for seed in sweep.SEEDS
            ]
    order = ("pretrain", "grid", "final")
    return [groups[key] for key in sorted(groups, key=lambda key: order.index(key[0]))]


def _kind(trial: Trial) -> tuple[object, ...]:
    return trial.stage, trial.method, trial.modality, trial.network, trial.preset


def _kinds(trials: Iterable[Trial]) -> dict[tuple[object, ...], Trial]:
    return {_kind(trial): trial for trial in trials}


def _beside(device: torch.device) -> tuple[int, int]:
    """Packs at once on this machine, and the cores of each."""
    if device.type == "cuda":
        return torch.cuda.device_count(), torch.get_num_threads()
    return sweep.beside([len(os.sched_getaffinity(0))])


def cost(trial: Trial, pack: int, at_once: int, cores: int, calibrate: bool) -> Cost:
    """What a trial of this kind costs per subject and leaves on disk, in packs of so many, so many of them at once."""
    task = None if trial.stage == "pretrain" else tasks.of(trial.task, (trial.task,))
    outputs = task.outputs if task else 0
    preset = presets.preset(trial.preset)
    method = methods.build(trial.method, trial.network, preset, outputs=outputs, modality=trial.modality)
    kept = [method] if task else [method.get_submodule(name) for name in method.parts.values()]
    weights = 0 if trial.stage == "grid" else 4 * sum(p.numel() for module in kept for p in module.parameters())
    learn, judge = _seconds(trial, task, pack, cores if task else torch.get_num_threads()) if calibrate else (0.0, 0.0)
    learn, judge = (seconds / (at_once if task else 1) for seconds in (learn, judge))
    return Cost(learn, judge, weights + ROW_BYTES)


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


def _timed(step: Callable[[int], object], device: torch.device) -> float:
    """Seconds of one step: the quickest of STEPS, since others use the machine too."""
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
    shapes = {"ecg": (n, len(ecg.LEADS), ecg.SAMPLES), "cmr": (n, 3, 210, 210)}
    return {name: torch.rand(shapes[name], device=device) for name in columns if name in shapes}


Step = Callable[[int], object]


def _steps(trial: Trial, task: tasks.Task | None, n: int, members: int, device: torch.device) -> tuple[Step, Step]:
    """A step of learning and one of judging, on n random subjects and so many members."""
    return _pack_steps(trial, task, n, members, device) if task else _training_steps(trial, n, device)


def _training_steps(trial: Trial, n: int, device: torch.device) -> tuple[Step, Step]:
    run = training.prepare(replace(trial, batch=n), STEPS + 1, device, hardware.precision("auto", device))
    batch = _batch(n, run.method.needs, device)
    return lambda number: training.step(run, batch, number), lambda number: training.validate(run, [(n, batch)])


def _pack_steps(trial: Trial, task: tasks.Task, n: int, members: int, device: torch.device) -> tuple[Step, Step]:
    alone = [replace(trial, starts=()) for _ in range(members)]
    pack = fit.assemble(alone, task, Path(), device, hardware.precision("auto", device))
    batch = _batch(n, (trial.modality,), device)
    classes, numbers = torch.arange(n, device=device) % 2, torch.rand((n, task.outputs), device=device)
    answers = classes if task.kind == "binary" else numbers
    share = torch.ones(members, dtype=torch.float64, device=device)

    def learn(number: int) -> None:
        noise = pack.method.noise(hardware.generator(device, trial.seed, number), n)
        fit.step(pack, {**batch, "target": answers}, noise, None, share)

    def judge(number: int) -> None:
        with torch.no_grad():
            fit.forward(pack, batch, {}, None, "logits")

    return learn, judge


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
