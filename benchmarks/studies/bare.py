"""A search space on a machine that has torch and nothing of Ray, Optuna or Aim: a lent GPU, say.

    python benchmarks/studies/bare.py search_spaces/small.py --cohort small/cohort --runs small/runs [--jobs N]

What `ecgcmr reproduce` does up to the report, with processes where that has Ray: the synthetic cohort if there is none
(`--subjects`), every pre-training after those it starts from, the grid in packs, each best configuration with five seeds.
The pieces are the package's own and what it writes is the same, so `ecgcmr report` reads it; what has finished is skipped,
what was ended goes on from its checkpoint. Trees are left out; `ecgcmr sweep` and `evaluate` grow them afterwards where
XGBoost is. Prints one line of JSON: seconds of every stage, and of every pre-training.
"""

import argparse
import json
import logging
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

for name in (
    "OMP",
    "OPENBLAS",
    "MKL",
):  # many processes share the cores: threads of each would be in each other's way
    os.environ.setdefault(f"{name}_NUM_THREADS", "1")

import numpy as np  # noqa: E402
import torch  # noqa: E402

from ecgcmr import store  # noqa: E402
from ecgcmr.cohort import build, dataset, prepare, staging  # noqa: E402
from ecgcmr.data import cache, sampler, stream  # noqa: E402
from ecgcmr.runs import is_finished  # noqa: E402
from ecgcmr.runtime import hardware  # noqa: E402
from ecgcmr.search import spaces, study  # noqa: E402
from ecgcmr.training import loop, partition, pretrain, trees  # noqa: E402
from ecgcmr.trial import Trial, recipe  # noqa: E402

KEEP_GB = 8  # rows of one pre-training on the device
ROWS = 512  # read at once


def make_cohort(path: Path, subjects: int, jobs: int) -> None:
    """Make the synthetic cohort with processes where `build.synth` has Ray Data."""
    with multiprocessing.get_context("fork").Pool(jobs) as pool:

        def each(todo: Any, out: Path) -> Iterator[dict[str, Any]]:
            for row in pool.imap_unordered(prepare.work, staging.task_rows(todo, out)):
                part = json.loads(row["part"])
                if "error" in part:
                    raise SystemExit(part["error"])
                yield part

        staging._each = each
        build.synth(path, subjects=subjects, shard_rows=build.SHARD_ROWS if subjects > 2000 else 64)


def pre_train(trial: Trial, listed: list[Trial], cohort_path: Path, runs: Path, name: str) -> float:
    """One pre-training from memory; its seconds. A start may be the best of a sweep that has finished."""
    begun, cohort, device = time.monotonic(), dataset.open(cohort_path), torch.device(name)
    if is_finished(runs, trial, cohort.fingerprint):
        return 0.0
    trial = study.resolved([trial, *(t for t in listed if starts_from(trial, t.name))], runs)[0]
    needs = loop.build(trial).needs
    per_epoch = stream.steps_per_epoch(cohort, "train", needs, trial.batch)
    run = loop.prepare(trial, per_epoch, device, hardware.precision("auto", device))
    for part, start in trial.init_from:
        run.method.load(part, store.weights(runs, start, part))
    held = cache.empty(stream.plan(cohort, "train", needs, trial.batch, trial.seed), device)
    if cache.size(held.order) > KEEP_GB * 1e9:
        raise SystemExit(
            f"{trial.name}: {cache.size(held.order) / 1e9:.0f} GB of rows, more than {KEEP_GB}"
        )
    rows = np.arange(len(held.order.row))
    for piece in np.array_split(rows, -(-len(rows) // ROWS)):
        held.gather(piece)
    identity = recipe(trial, cohort.fingerprint)
    path = store.folder(runs, trial.name) / pretrain.CHECKPOINT
    state = loop.resume(path, run, identity)
    feed = (held.gather(sampler.mine(held.order, step)) for step in range(state.step, run.steps))
    evaluated = list(pretrain.validation_batches(cohort, needs, trial.batch, device))
    status = loop.loop(
        run, feed, lambda: evaluated, state, save=lambda: loop.save(path, run, state, identity)
    )
    store.write(runs, pretrain.outcome(run, state, status, cohort, "device"), cohort.fingerprint)
    return time.monotonic() - begun


def fit_pack(pack: list[Trial], cohort_path: Path, runs: Path, name: str) -> float:
    """One pack; its seconds."""
    begun, cohort = time.monotonic(), dataset.open(cohort_path)
    partition.train(
        pack,
        cohort,
        runs,
        name,
        "auto",
        f"{pack[0].space}/{pack[0].stage}/{pack[0].task}/pack-{id(pack)}",
    )
    return time.monotonic() - begun


def every(
    pool: ProcessPoolExecutor,
    jobs: list[Any],
    work: Callable[..., float],
    given: tuple[Any, ...],
    ready: Callable[[Any, set[str]], bool] = lambda job, done: True,
) -> dict[str, float]:
    """Do all jobs, each once `ready(job, names done)`; seconds by name."""
    seconds: dict[str, float] = {}
    running: dict[Future[float], str] = {}
    left = list(jobs)
    while left or running:
        for job in [job for job in left if ready(job, set(seconds))]:
            left.remove(job)
            running[pool.submit(work, job, *given)] = name_of(job)
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            seconds[running[future]] = round(future.result(), 1)
            logging.info("%s %.1f s", running[future], future.result())
            del running[future]
    return seconds


def name_of(job: Any) -> str:
    """A trial's name, or that of a pack's first."""
    return job.name if isinstance(job, Trial) else job[0].name


def starts_from(trial: Trial, name: str) -> bool:
    """Whether a trial starts from the pre-training of that name, alone or as one of a sweep."""
    return any(name == start or name.startswith(f"{start}/") for _, start in trial.init_from)


def packs(trials: list[Trial], cohort: dataset.Cohort, runs: Path) -> list[list[Trial]]:
    """What is not finished, in packs; the dearest first."""
    todo = [
        t
        for t in trials
        if t.method != trees.METHOD and not is_finished(runs, t, cohort.fingerprint)
    ]
    return sorted(partition.packs(todo), key=lambda pack: -pack[0].epochs * len(pack))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("space", type=Path)
    parser.add_argument("--cohort", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--subjects", type=int, help="of a synthetic cohort, if there is none")
    parser.add_argument("--jobs", type=int, default=4, help="processes on the device")
    parser.add_argument("--device")
    parser.add_argument(
        "--only", nargs="+", metavar="LABEL", help="pre-train these; the others are there"
    )
    parser.add_argument(
        "--until",
        choices=("pretrain", "grid", "evaluation"),
        default="evaluation",
        help="the last stage",
    )
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", force=True)
    logging.getLogger("ecgcmr").setLevel(logging.WARNING)
    clock, seconds = time.monotonic(), {}

    def lap(name: str) -> None:
        nonlocal clock
        seconds[name], clock = round(time.monotonic() - clock, 1), time.monotonic()
        logging.info("== %s %.1f s", name, seconds[name])

    if args.subjects:
        make_cohort(args.cohort, args.subjects, multiprocessing.cpu_count())
        lap("cohort")
    cohort, listed = dataset.open(args.cohort), spaces.load(args.space)
    device = str(hardware.device(args.device))
    given = (args.cohort, args.runs, device)
    with ProcessPoolExecutor(args.jobs, multiprocessing.get_context("spawn")) as pool:
        first = [
            trial
            for trial in listed
            if trial.stage == "pretrain" and trial.system in (args.only or [trial.system])
        ]
        names = [trial.name for trial in first]

        def ready(trial: Trial, done: set[str]) -> bool:
            return {name for name in names if starts_from(trial, name)} <= done

        pretrained = every(pool, first, pre_train, (first, *given), ready)
        lap("pre-training")
        grid: list[Trial] = []
        evaluations: list[Trial] = []
        if args.until != "pretrain":
            grid, _ = spaces.feasible(
                [t for t in study.resolved(listed, args.runs) if t.stage == "grid"], cohort
            )
            grid = [trial for trial in grid if trial.method != trees.METHOD]
            every(pool, packs(grid, cohort, args.runs), fit_pack, given)
            lap("grid")
        if args.until == "evaluation":
            evaluations = spaces.evaluation_trials(grid, args.runs)
            every(pool, packs(evaluations, cohort, args.runs), fit_pack, given)
            lap("five seeds")
    line = {
        "benchmark": "bare",
        "space": args.space.stem,
        "device": hardware.name(torch.device(device)),
        "jobs": args.jobs,
        "trials": [len(first), len(grid), len(evaluations)],
        "seconds": seconds,
        "pretraining_s": pretrained,
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
