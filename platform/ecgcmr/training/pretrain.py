"""Pre-training: one trial at a time over N workers, started by Ray Train, fed by Ray Data,
restartable at any instant.

`loop` holds the steps; this file is the door to Ray Train around it: which trials, which workers,
which feed, and what a run leaves behind.

Checkpoints are our own file in the trial's folder, not `ray.train.report`'s: a reported checkpoint
is lost when the worker dies within one poll of the controller (measured with Ray 2.60), every
report waits for that poll, and what to resume would hang on a run's name. Ray Train places the
workers, joins them in a process group and starts them again when they die.

This file never sees labels.
"""

import contextlib
import json
import math
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, distributed

from ecgcmr import files, methods, plugins, store
from ecgcmr.cohort import dataset, presence, shards
from ecgcmr.data import cache, sampler, stream
from ecgcmr.data.cache import check as check_cache
from ecgcmr.errors import InputError, unknown
from ecgcmr.runs import is_finished, set_damaged_aside
from ecgcmr.runtime import cluster, hardware
from ecgcmr.training import checkpoint, loop
from ecgcmr.training.checkpoint import EVERY_S
from ecgcmr.training.loop import Training
from ecgcmr.trial import Trial, from_json, recipe, to_json

CHECKPOINT = "checkpoint.pt"
FAILURES = 3  # of workers that a run survives; our own defects are tried as often before they show
# Of Ray's count, per worker: whole ones would leave Ray Data none on a small machine. `work` sets
# the threads apart.
CPUS = 0.25


# -- workers ---------------------------------------------------------------------------------------


def validation_batches(
    cohort: dataset.Cohort,
    needs: tuple[str, ...],
    batch: int,
    device: torch.device,
    rank: int = 0,
    world: int = 1,
) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """(rows of the whole batch, this worker's share of it) over the validation split,
    in file order.

    A plain read: one per epoch through Ray Data would wait for its start each time.
    """
    rows = complete(cohort, "val", needs)
    for size, share in sampler.validated(len(rows), batch, rank, world):
        arrays = cohort.load(rows.iloc[share], needs)
        yield size, {name: torch.from_numpy(values).to(device) for name, values in arrays.items()}


def complete(cohort: dataset.Cohort, split: str, needs: tuple[str, ...]) -> pd.DataFrame:
    """The rows of a split that have every signal a method needs."""
    rows = cohort.rows(split)
    return rows[presence.has(rows, *needs)]


def train(
    trial: Trial, config: dict[str, Any], device: torch.device, rank: int, world: int
) -> None:
    """Pre-train one trial on this worker, from its checkpoint if it has one,
    and write its folder (rank 0).
    """
    runs, cohort = Path(config["runs"]), dataset.open(Path(config["cohort"]))
    precision = hardware.precision(config["precision"], device)
    needs = loop.build(trial).needs
    per_epoch = stream.steps_per_epoch(cohort, "train", needs, trial.batch)
    run = loop.prepare(trial, per_epoch, device, precision, rank=rank, world=world)
    for part, name in trial.init_from:
        run.method.load(part, store.weights(runs, name, part))
    identity = recipe(trial, cohort.fingerprint)
    path = store.folder(runs, trial.name) / CHECKPOINT
    state = loop.resume(path, run, identity)
    agree(f"the step of {path}", state.step, world)
    progress = (
        store.Progress(runs, trial.name, run.steps, "steps", done=state.step) if rank == 0 else None
    )
    order = stream.plan(cohort, "train", needs, trial.batch, trial.seed, rank, world)
    cache_place = cache.place(config["cache"], order, trial.epochs, state.step, device)
    feed = stream.batches(
        cohort.path,
        split="train",
        needs=needs,
        batch=trial.batch,
        seed=trial.seed,
        epochs=trial.epochs,
        start_step=state.step,
        rank=rank,
        world=world,
        device=device,
        cache=cache_place,
    )

    def tell(loss: float) -> None:
        if progress is not None:
            progress.update(state.step, **{"loss": loss, "samples/s": speed(run, state)})

    def keep() -> None:
        if rank == 0:
            loop.save(path, run, state, identity)

    def validation() -> Iterable[tuple[int, dict[str, Tensor]]]:
        return validation_batches(cohort, needs, trial.batch, device, rank, world)

    # A generator, whose end ends Ray Data's execution.
    with contextlib.closing(feed):  # type: ignore[type-var]
        status = loop.loop(
            run, feed, validation, state, save=keep, tell=tell, every_s=config["every_s"]
        )
    if rank == 0:
        store.write(runs, outcome(run, state, status, cohort, cache_place), cohort.fingerprint)


def speed(run: Training, state: loop.State) -> float:
    """Samples per second so far, validation and checkpoints included."""
    return state.step * run.trial.batch / max(state.seconds, 1e-9)


def agree(subject: str, value: Any, world: int) -> None:
    """Make sure that every worker read the same.

    Raises:
        InputError: this worker read something else than rank 0; --runs is not shared between them.
    """
    if world == 1:
        return
    first = [value]
    distributed.broadcast_object_list(first, src=0)
    if first[0] != value:
        raise InputError(
            f"{subject} is {value} here and {first[0]} on rank 0: --runs must be a folder all "
            "workers share"
        )


def outcome(
    run: Training, state: loop.State, status: str, cohort: dataset.Cohort, cache_place: str
) -> store.Finished:
    """What the run leaves behind; a diverged one leaves no weights."""
    good = status == "finished"
    curve = pd.DataFrame(state.curve)
    row = curve[curve.epoch == state.epoch] if len(curve) else curve
    columns = [str(c) for c in row if str(c).startswith("val_")]
    scores = [("val", c.removeprefix("val_"), float(row[c].iloc[0]), state.rows) for c in columns]
    return store.Finished(
        trial=run.trial,
        status=status,
        scores=tuple(scores) if good else (("val", "loss", math.nan, state.rows),),
        curve=curve,
        predictions=None,
        weights={name: value.numpy() for name, value in state.kept.items()} if good else {},
        epoch=state.epoch,
        provenance={**provenance(run, state, cohort), "cache": cache_place},
    )


def provenance(run: Training, state: loop.State, cohort: dataset.Cohort) -> dict[str, Any]:
    """Where, with what and how fast.

    `seconds` add up over resumes and leave out what starting took.
    """
    return {
        **hardware.provenance(run.device, run.precision),
        "cohort": cohort.provenance,
        "seconds": round(state.seconds, 3),
        "steps": state.step,
        "samples_per_s": round(speed(run, state), 3),
        "data_wait_share": round(state.waited / max(state.seconds, 1e-9), 5),
        "workers": run.world,
    }


def work(config: dict[str, Any]) -> None:
    """What Ray Train runs on each worker: train the trials that are not finished, in order."""
    import ray.train.torch

    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    device = ray.train.torch.get_device() if config["gpu"] else torch.device("cpu")
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // context.get_local_world_size()))
    refusal, runs = Path(config["refusal"]), Path(config["runs"])
    if refusal.exists():  # an earlier attempt met input that no further attempt can serve
        return
    with leaves_refusal(refusal, runs):
        plugins.load(config["plugins"])
        for trial in map(from_json, config["trials"]):
            has_finished = is_finished(runs, trial, config["fingerprint"])
            agree(f"whether {trial.name} has finished", has_finished, world)
            if not has_finished:
                train(trial, config, device, rank, world)
                distributed.barrier()


@contextlib.contextmanager
def leaves_refusal(refusal: Path, runs: Path) -> Iterator[None]:
    """Leave the reason that no further attempt can help in a file.

    The next attempt and the driver find it there.
    """
    try:
        yield
    except (InputError, OSError) as error:
        reason = shards.disk_full(error, runs) if isinstance(error, OSError) else error
        if isinstance(reason, InputError):
            files.write_json(refusal, str(reason))
        raise


# -- the driver ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CheckedPretrainings:
    """Pre-trainings that every worker can serve, and which of them are finished.

    Attributes:
        trials: all of them, each after those that it starts from.
        todo: those that are not finished, in that order.
        cohort: they run on it.
        runs: the folder of runs, absolute.
        workers: that share each batch.
        set_aside: a line for each run that was damaged, and is to be made again.
    """

    trials: list[Trial]
    todo: list[Trial]
    cohort: dataset.Cohort
    runs: Path
    workers: int
    set_aside: list[str]


def run(trial: Trial, cohort_path: Path, runs: Path, **options: Any) -> list[dict[str, Any]]:
    """Pre-train one trial; see `run_all`."""
    return run_all([trial], cohort_path, runs, **options)


def run_all(
    pretrainings: list[Trial], cohort_path: Path, runs: Path, *, workers: int = 1, **options: Any
) -> list[dict[str, Any]]:
    """Check and pre-train trials; see `check_all` and `run_checked`."""
    return run_checked(check_all(pretrainings, cohort_path, runs, workers), **options)


def run_checked(
    pretrainings: CheckedPretrainings,
    *,
    device: str | None = None,
    precision: str = "auto",
    every_s: float = EVERY_S,
    cache: str = "auto",
) -> list[dict[str, Any]]:
    """Pre-train trials, each after those it starts from, on `workers` workers.

    What has finished is skipped.

    All go through one call of Ray Train, whose start takes 10 to 18 s on two cores whatever it runs
    (measured).

    Args:
        pretrainings: of `check_all`.
        device: "cpu", "cuda"; by default GPUs if the cluster has as many as workers.
        precision: a name that `hardware.precision` knows.
        every_s: seconds between two checkpoints.
        cache: where rows stay after the first epoch, a word that `cache.choose` knows; no result
            depends on it.

    Returns:
        The measured numbers of every trial, as in `rows.parquet`.

    Raises:
        InputError: something that no run could serve, met while it runs.
    """
    check_cache(cache)
    runs, workers = pretrainings.runs, pretrainings.workers
    if pretrainings.todo:
        config = {
            "trials": [to_json(trial) for trial in pretrainings.todo],
            "cohort": str(pretrainings.cohort.path),
            "runs": str(runs),
            "fingerprint": pretrainings.cohort.fingerprint,
            "precision": precision,
            "every_s": every_s,
            "cache": cache,
            "plugins": plugins.carried(),
        }
        with cluster.running():
            launch(config, workers, on_gpu(device, workers), runs / ".train")
    folders = [store.folder(runs, trial.name) for trial in pretrainings.trials]
    tables = [pd.read_parquet(store.verified(folder, store.ROWS)) for folder in folders]
    return [
        dict(zip(table.columns, row)) for table in tables for row in table.itertuples(index=False)
    ]


def in_order(todo: list[Trial]) -> list[Trial]:
    """The trials, each after those among them that it starts from; otherwise as given."""
    by_name = {trial.name: trial for trial in todo}
    order: dict[str, Trial] = {}

    def visit(name: str) -> None:
        for _, start in by_name[name].init_from:
            if start in by_name and start not in order:
                visit(start)
        order[name] = by_name[name]

    for name in by_name:
        visit(name)
    return list(order.values())


def check_all(
    pretrainings: list[Trial], cohort_path: Path, runs: Path, workers: int = 1
) -> CheckedPretrainings:
    """Refuse what no worker could serve; Ray need not run yet.

    Args:
        pretrainings: trials of methods without a target.
        cohort_path: the cohort's folder, which every worker reaches.
        runs: likewise.
        workers: processes, one per GPU if they run on GPUs; each takes batch/workers rows.

    Raises:
        InputError: see `check`; or a shard is damaged, or a folder was made by another recipe.
    """
    plugins.carried()  # refuses what no worker could know
    cohort, runs = dataset.open(Path(cohort_path).resolve()), Path(runs).resolve()
    trials = in_order(pretrainings)
    set_aside = set_damaged_aside(runs, trials)
    todo = [trial for trial in trials if not is_finished(runs, trial, cohort.fingerprint)]
    for trial in todo:
        check(trial, {t.name for t in todo}, cohort, runs, workers)
    for needs in dict.fromkeys(tuple(trial.task.split("+")) for trial in todo):
        sampler.check(stream.plan(cohort, "train", needs, workers, world=workers))
    return CheckedPretrainings(trials, todo, cohort, runs, workers, set_aside)


def check(trial: Trial, before: set[str], cohort: dataset.Cohort, runs: Path, workers: int) -> None:
    """Refuse what no worker could serve.

    Args:
        trial: the trial.
        before: names of the trials that run before it, whose encoders will exist by then.
        cohort: the cohort.
        runs: where finished trials lie.
        workers: that would share each batch.
    """
    if trial.method not in methods.METHODS or trial.method == "supervised":
        raise unknown("pre-training method", trial.method, set(methods.METHODS) - {"supervised"})
    method = loop.build(trial)
    methods.knobs(method, dict(trial.knobs))
    needs = method.needs
    if trial.task != "+".join(needs):
        raise InputError(
            f"task='{trial.task}' of trial '{trial.name}': {trial.method} needs "
            f"task='{'+'.join(needs)}'"
        )
    if trial.batch % workers:
        raise InputError(
            f"batch={trial.batch} of trial '{trial.name}' cannot be shared by {workers} workers "
            "equally"
        )
    if trial.label_fraction != 1:
        raise InputError(
            f"label_fraction={trial.label_fraction} of trial '{trial.name}': pre-training uses all "
            "rows; leave it at 1"
        )
    signals = " and ".join(needs)
    for split, least in (("train", trial.batch), ("val", workers)):
        n = len(complete(cohort, split, needs))
        if n < least:
            raise InputError(
                f"{cohort.path} has {n} {split} rows with {signals}, trial '{trial.name}' needs "
                f"{least}"
            )
    for part, name in trial.init_from:
        if name not in before:
            store.weights(runs, name, part)
    path = store.folder(runs, trial.name) / CHECKPOINT
    checkpoint.read(path, recipe(trial, cohort.fingerprint))


def on_gpu(device: str | None, workers: int) -> bool:
    """Whether workers get a GPU each: as asked, else if the cluster has enough.

    Raises:
        InputError: GPUs are asked for and the cluster has too few.
    """
    import ray

    gpus = ray.cluster_resources().get("GPU", 0)
    if device is not None and not device.startswith("cuda"):
        return False
    if device is not None and gpus < workers:
        raise InputError(
            f"device '{device}': {workers} workers need a GPU each, Ray has {gpus:g}; use "
            "--device cpu"
        )
    return bool(gpus >= workers)


def launch(config: dict[str, Any], workers: int, gpu: bool, storage: Path) -> None:
    """Run `work` on the workers until it ends, through at most FAILURES deaths among them.

    Raises:
        InputError: one of them met input that cannot be served.
    """
    import ray.train.torch

    name = uuid.uuid4().hex  # of its own: Ray Train resumes a run whose name it has seen
    refusal = storage / f"{name}.refusal"
    trainer = ray.train.torch.TorchTrainer(
        work,
        train_loop_config={**config, "gpu": gpu, "refusal": str(refusal)},
        scaling_config=ray.train.ScalingConfig(
            num_workers=workers,
            use_gpu=gpu,
            resources_per_worker={"CPU": CPUS, **({"GPU": 1} if gpu else {})},
        ),
        torch_config=ray.train.torch.TorchConfig(backend="nccl" if gpu else "gloo"),
        run_config=ray.train.RunConfig(
            name=name,
            storage_path=str(storage),
            failure_config=ray.train.FailureConfig(max_failures=FAILURES),
        ),
    )
    try:
        trainer.fit()
        if refusal.exists():
            raise InputError(json.loads(refusal.read_text()))
    finally:
        shutil.rmtree(storage / name, ignore_errors=True)
        refusal.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # another run is using it
            storage.rmdir()
