"""What does running a grid cost beside its training, and how long is the paper's CAD grid here?

    python benchmarks/grid.py [--seconds S] [--configurations N] [--limit E] [--budget N] [--cohort COHORT]
    python benchmarks/grid.py --project [--epochs N] [--rows N] [--evaluated N]

The first runs the paper's 648 configurations through the real path: Ray, Tune, Optuna, `finetune`, folders on disk and Aim.
Only a pack's arithmetic is replaced, in the worker: its training is a sleep of S seconds per member, its answers are random
numbers. Each trial still leaves what a trial of the full study leaves: predictions of 6,007 validation subjects, their
scores, a curve of 60 validations. Packs are cut as for the paper's network on this device (on a CPU each trial is its own
pack, the worst case; `--limit` sets another size). One line of JSON: wall seconds by stage; the seconds that the sleeps
would take with all slots always full, `ideal_s`; the overhead, all the rest, and its share of the wall; and CPU seconds of
all processes, which sleeps do not use. `at_10_s` is no measurement: this overhead beside 648 trials of 10 s.

`--project` times steps and validations of packs at the paper's network and multiplies: a projection, labelled so, beside the
arithmetic floor, the FLOPs of the same work (counted by torch) at the rate of a large matrix product, measured in turn.
"""

import argparse
import contextlib
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from packs import Bench, trials, warmed
from pretrain_step import product, timed
from torch.utils.flop_counter import FlopCounterMode

from ecgcmr import tasks
from ecgcmr.data import examples, sampler
from ecgcmr.nn import Network
from ecgcmr.report import track
from ecgcmr.runtime import cluster, hardware
from ecgcmr.search import study, sweep
from ecgcmr.training import finetune, pack_judge, pack_step, partition
from ecgcmr.training.pack import Pack
from ecgcmr.trial import Trial

TASK = "cad"
ROWS, JUDGED = 4030, 6007  # of CAD in the paper: the balanced training set, the validation split
NOTED = 60  # validations of a trial, rows of its curve
IMPORTED = (
    time.time() - psutil.Process().create_time()
)  # seconds from the start of the process to here
SUBJECTS = 400  # of the tiny cohort: the fewest hundreds with enough of the sick in both splits


# -- the grid, its arithmetic replaced ---------------------------------------------------------------------------------


def grid(configurations: int | None) -> list[Trial]:
    """The paper's configurations at the toy network, in an order that shares every batch size out."""
    found = study.finetuning(
        "bench", [TASK], {"supervised": ()}, study.PAPER_GRID, network=study.TOY.network, epochs=400
    )
    chosen = np.random.default_rng(0).permutation(len(found))[: configurations or len(found)]
    return [found[i] for i in sorted(chosen)]


def pretend(*given: Any, seconds: float, evaluated: int) -> None:
    """Stands for `partition.train` in a worker: the same, but for the arithmetic. Arguments as there."""
    finetune.train = partial(asleep, seconds=seconds)
    pack_judge.evaluate = guessed
    if not isinstance(finetune._materials, partial):  # the worker's first pack
        finetune._materials = partial(enlarged, finetune._materials, evaluated)
    partition.train(*given)


def asleep(course: finetune.Course, task: tasks.Task, *_: Any, seconds: float) -> None:
    """Stands for `finetune.train`: every member stops early."""
    members, watch = len(course.whole.trials), course.watch
    time.sleep(seconds * members)
    watch.best[:], watch.epoch[:], watch.status = 0.7, NOTED // 2, ["early-stopped"] * members
    fall, rise = np.linspace(1, 0.5, NOTED).tolist(), np.linspace(0.5, 0.7, NOTED).tolist()
    points = [
        {"step": i, "epoch": i, "train_loss": fall[i], f"val_{task.metric}": rise[i]}
        for i in range(NOTED)
    ]
    course.curves.points = [list(points) for _ in range(members)]


def guessed(pack: Pack, split: examples.Split, *_: Any) -> torch.Tensor:
    """Stands for `pack_judge.evaluate`: random probabilities."""
    return torch.rand(len(pack.trials), len(split.subjects), 1, dtype=torch.float64)


def enlarged(materials: Callable[..., Any], evaluated: int, *given: Any) -> Any:
    """Stands for `finetune._materials`: the same, its validation rows repeated until there are as many as the paper has."""
    splits, scale, notes = materials(*given)
    val = splits["val"]
    rows = np.resize(np.arange(len(val.subjects)), evaluated)
    splits["val"] = replace(val, subjects=val.subjects[rows], answers=val.answers[rows])
    return splits, scale, notes


class Clock:
    """Wall seconds by stage, and CPU seconds of this process and all that descend from it, sampled as some end early."""

    def __init__(self) -> None:
        """Begin with what this process has spent on its start."""
        self.wall = {"import": IMPORTED}
        self.spent: dict[int, float] = {}
        self.ended = threading.Event()
        threading.Thread(target=self.watch, daemon=True).start()

    def watch(self) -> None:
        """Sample until told to end."""
        while not self.ended.wait(0.5):
            self.sample()

    def sample(self) -> float:
        """CPU seconds so far."""
        for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
            try:
                self.spent[process.pid] = sum(process.cpu_times()[:2])
            except psutil.Error:
                continue
        return sum(self.spent.values())

    def stage(self, name: str, work: Callable[[], Any]) -> Any:
        """Do the work and note how long it took."""
        begun = time.perf_counter()
        done = work()
        self.wall[name] = time.perf_counter() - begun
        return done


def measure(args: argparse.Namespace, cohort: Path, runs: Path) -> dict[str, Any]:
    """The grid from a bare process to an Aim repository."""
    clock, configurations = Clock(), grid(args.configurations)
    limit = args.limit or partition.pack_limit(
        replace(configurations[0], network=Network()), partition.device_bytes()
    )
    run = partial(
        sweep.run, configurations, cohort, runs, device="cpu", limit=limit, budget=args.budget
    )
    clock.stage("ray_start", partial(cluster.start, gpus=0))
    at_once, _ = sweep.beside([cluster.cpus()])
    with contextlib.ExitStack() as beside:
        beside.enter_context(track.following(runs, runs / "aim"))
        ran = clock.stage(
            "sweep",
            partial(run, train=partial(pretend, seconds=args.seconds, evaluated=args.evaluated)),
        )
        clock.stage("aim_after", beside.close)
    used = clock.sample()
    clock.ended.set()
    clock.stage("ray_stop", cluster.stop)
    wall, ideal = sum(clock.wall.values()), ran * args.seconds / at_once
    copied = len(track.content(runs / "aim"))
    if ran != copied or ran != len(configurations[: args.budget]):
        raise SystemExit(f"{ran} trials ran and {copied} are in Aim, of {len(configurations)}")
    clock.stage(
        "again", run
    )  # the same command once more, all of it finished; not part of the whole
    return {
        "trials": ran,
        "trial_s": args.seconds,
        "pack": limit,
        "at_once": at_once,
        "wall_s": round(wall, 1),
        **{f"{name}_s": round(taken, 1) for name, taken in clock.wall.items()},
        "compute_s": round(ran * args.seconds, 1),
        "ideal_s": round(ideal, 1),
        "overhead_s": round(wall - ideal, 1),
        "overhead_share": round(1 - ideal / wall, 4),
        "cpu_s": round(used, 1),
        "at_10_s": at_ten(wall - ideal, ran, at_once),
    }


def at_ten(overhead: float, ran: int, at_once: int) -> dict[str, float]:
    """The share of this overhead in the wall time of as many trials of 10 s: with these slots, and one after another."""
    return {
        name: round(overhead / (overhead + 10 * ran / slots), 4)
        for name, slots in (("slots", at_once), ("one", 1))
    }


def orchestration(args: argparse.Namespace) -> dict[str, Any]:
    """Make the cohort if none is given, in a process of its own, and measure."""
    with tempfile.TemporaryDirectory() as folder:
        cohort = args.cohort or Path(folder) / "cohort"
        if not cohort.exists():
            words = ["cohort", "synth", "--subjects", str(SUBJECTS), "--cohort", str(cohort)]
            subprocess.run(
                [sys.executable, "-m", "ecgcmr.cli", *words], check=True, stdout=subprocess.DEVNULL
            )
        runs = args.runs or Path(folder) / "runs"
        try:
            return measure(args, cohort, runs)
        finally:
            if not args.runs:
                shutil.rmtree(runs, ignore_errors=True)


# -- the projection ----------------------------------------------------------------------------------------------------


def projection(args: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Hours of the CAD grid from a few steps and validations, and what its FLOPs alone would take."""
    at_once, cores = places(device)
    torch.set_num_threads(cores)
    precision = hardware.precision(args.precision, device)
    multiply, flop = product(device, precision)
    evaluated: dict[int, tuple[float, float]] = {}
    parts = {
        batch: part(args, int(batch), device, precision, multiply, evaluated)
        for batch in study.PAPER_GRID["batch"]
    }
    configurations = math.prod(len(values) for values in study.PAPER_GRID.values()) // len(
        parts
    )  # of one batch size
    rate = flop / statistics.median(x["product_s"] for x in parts.values())
    taken = (
        sum(args.epochs * configurations * x["epoch_s"] for x in parts.values()) / at_once / 3600
    )
    least = (
        sum(args.epochs * configurations * x["epoch_tflop"] for x in parts.values())
        * 1e12
        / (rate * at_once)
        / 3600
    )
    for x in parts.values():
        x |= {name: float(f"{value:.4g}") for name, value in x.items()}
    return {
        "projection": True,
        "device": hardware.name(device),
        "precision": str(precision).removeprefix("torch."),
        "packs_at_once": at_once,
        "threads_each": cores,
        "rows": args.rows,
        "evaluated": args.evaluated,
        "epochs": args.epochs,
        "trials": configurations * len(parts),
        **{f"batch {batch}": x for batch, x in parts.items()},
        "matmul_tflop_per_s": round(rate / 1e12, 4),
        "projected_hours": round(taken, 2),
        "projected_hours_per_epoch": round(taken / args.epochs, 3),
        "floor_hours": round(least, 2),
        "floor_share": round(least / taken, 3),
    }


def places(device: torch.device) -> tuple[int, int]:
    """Packs at once here, and the threads of each; they are taken not to slow one another down."""
    if device.type == "cuda":
        return 1, torch.get_num_threads()
    return sweep.beside([len(os.sched_getaffinity(0))])


def part(
    args: argparse.Namespace,
    batch: int,
    device: torch.device,
    precision: torch.dtype,
    multiply: Callable[[], Any],
    evaluated: dict[int, tuple[float, float]],
) -> dict[str, Any]:
    """Points of one batch size: seconds and FLOPs of one epoch of one member, its validation included.

    `evaluated` keeps what `judge` found by pack size.
    """
    members = args.limit or partition.pack_limit(
        trials(Network(), batch, 1)[0], partition.device_bytes()
    )
    bench = Bench(trials(Network(), batch, members), device, precision)
    step_flop = counted(bench.step) / members
    warmed(bench)
    times = [(timed(multiply, device), timed(bench.step, device)) for _ in range(args.steps)]
    alone, step = (statistics.median(column) for column in zip(*times, strict=True))
    if members not in evaluated:
        evaluated[members] = judge(bench, members, device, args.steps)
    judge_s, judge_flop = evaluated[members]
    steps = sampler.permuted_steps(args.rows, batch)
    return {
        "pack": members,
        "step_s": step,
        "judge_s_per_1000": 1000 * judge_s,
        "product_s": alone,
        "epoch_s": steps * step / members + args.evaluated * judge_s,
        "epoch_tflop": (steps * step_flop + args.evaluated * judge_flop) / 1e12,
    }


def judge(bench: Bench, members: int, device: torch.device, times: int) -> tuple[float, float]:
    """Seconds and FLOPs per member and subject of a validation, as many subjects at once as `pack_judge.evaluate` takes."""
    size = max(1, pack_judge.at_once(bench.pack) // members)
    signals = torch.randn(size, 12, 5000, device=device).to(bench.pack.dtype)

    def work(n: int) -> None:
        with torch.no_grad():
            pack_step.forward(bench.pack, {"ecg": signals[:n]}, {}, None, "logits")

    few = min(size, 8)
    flop = counted(partial(work, few)) / few / members
    work(size)  # chooses its kernels
    return statistics.median(
        timed(partial(work, size), device) for _ in range(times)
    ) / size / members, flop


def counted(work: Callable[[], Any]) -> int:
    """FLOPs of the products and convolutions in `work()`."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--seconds", type=float, default=0.0, help="of a trial: how long its pack sleeps for it"
    )
    parser.add_argument(
        "--configurations", type=int, help="of the 648, drawn at random (default: all)"
    )
    parser.add_argument(
        "--limit",
        type=int,
        help="members of a pack at most (default: the paper's network on this device)",
    )
    parser.add_argument(
        "--budget", type=int, help="let TPE propose so many configurations instead of running all"
    )
    parser.add_argument("--evaluated", type=int, default=JUDGED, help="validation subjects")
    parser.add_argument(
        "--cohort", type=Path, help="a cohort to use (default: a synthetic one is made, uncounted)"
    )
    parser.add_argument(
        "--runs",
        type=Path,
        help="where the trials go, and stay (default: a folder that is removed)",
    )
    parser.add_argument(
        "--project",
        action="store_true",
        help="instead: hours of the CAD grid at the paper's network",
    )
    parser.add_argument(
        "--epochs",
        type=int,
        default=400,
        help="of every trial in the projection (400: none stops early)",
    )
    parser.add_argument("--rows", type=int, default=ROWS, help="training rows in the projection")
    parser.add_argument(
        "--steps", type=int, default=5, help="timed per batch size in the projection"
    )
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--device", help="of the projection")
    args = parser.parse_args()
    found = projection(args, hardware.device(args.device)) if args.project else orchestration(args)
    print(
        json.dumps(
            {
                "benchmark": "grid",
                **found,
                "cores": len(os.sched_getaffinity(0)),
                "load": os.getloadavg()[0],
            }
        )
    )


if __name__ == "__main__":
    main()
