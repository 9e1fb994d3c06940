"""Pre-training: one trial at a time over N workers, started by Ray Train, fed by Ray Data, restartable at any instant.

The one idea: a step is a pure function of (weights, step number), because batches and noise are keyed by (seed, step).
A checkpoint is therefore the weights, the optimiser and a number, and a killed run that goes on ends with the weights
of an undisturbed one. `loop` is plain torch; only `launch` and `work` are the door to Ray Train.

Checkpoints are our own file in the trial's folder, not `ray.train.report`'s: a reported checkpoint is lost when the
worker dies within one poll of the controller (measured with Ray 2.60), every report waits for that poll, and what to
resume would hang on a run's name. Ray Train places the workers, joins them in a process group and starts them again
when they die.

This file does not pack trials (that is `fit`) and never sees labels.
"""

import contextlib
import json
import logging
import math
import os
import platform
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, distributed

from ecgcmr import __version__, cluster, hardware, methods, optim, presets, shards, store, stream
from ecgcmr import cohort as cohorts
from ecgcmr import trial as trials
from ecgcmr.errors import InputError, unknown
from ecgcmr.trial import Trial

log = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.pt"
EVERY_S = 60.0  # between two checkpoints, at most
SAVE_SHARE = 0.05  # of the time that checkpoints after a validation may cost; each is written only if it costs less
FAILURES = 3  # of workers that a run survives; our own defects are tried as often before they show
# Of Ray's count, per worker: whole ones would leave Ray Data none on a small machine. `work` sets the threads apart.
CPUS = 0.25
LAST = ("mae",)  # hands on its last weights, others those of the best validation loss: the authors' published files
LOOK = 10  # steps between two readings of the loss from a GPU, each of which drains its queue


# -- one trial in torch ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Training:
    """A trial being trained, seen from one worker.

    Attributes:
        trial: the trial.
        method: its method, on `device`.
        optimiser: of the method's parameters.
        knobs: the method's numbers, with the trial's in their place.
        device, precision: where it runs; the type of matrix products (float64: of everything).
        per_epoch: steps per epoch.
        rank, world: this worker and how many there are; each has batch/world rows of every batch.
    """

    trial: Trial
    method: Any
    optimiser: torch.optim.Optimizer
    knobs: dict[str, float]
    device: torch.device
    precision: torch.dtype
    per_epoch: int
    rank: int = 0
    world: int = 1

    @property
    def steps(self) -> int:
        """Optimiser steps in all."""
        return self.trial.epochs * self.per_epoch


def prepare(
    trial: Trial, per_epoch: int, device: torch.device, precision: torch.dtype, *, rank: int = 0, world: int = 1
) -> Training:
    """The trial at its first step: method with weights drawn from the seed, optimiser without memory."""
    method = build(trial)
    knobs = methods.knobs(method, dict(trial.knobs))
    method.to(device, torch.float64 if precision == torch.float64 else None)
    return Training(trial, method, optimiser(method, knobs), knobs, device, precision, per_epoch, rank, world)


def build(trial: Trial) -> Any:
    """The trial's method; one that can read either modality reads the one the trial is about."""
    modality = "cmr" if trial.task == "cmr" else "ecg"
    return methods.build(trial.method, trial.network, presets.preset(trial.preset), modality=modality, seed=trial.seed)


def optimiser(method: Any, knobs: dict[str, float]) -> torch.optim.Optimizer:
    """AdamW, or Adam with coupled decay, as the method says; biases and the like are not decayed."""
    named = [(name, p) for name, p in method.named_parameters() if p.requires_grad]
    groups = [
        {"params": [p for name, p in named if method.decays(name, p.ndim) == decayed], "weight_decay": decay}
        for decayed, decay in ((True, knobs["weight_decay"]), (False, 0.0))
    ]
    kinds = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}
    return kinds[method.optimiser](groups, lr=0.0, betas=method.betas)


def beginning() -> dict[str, Any]:
    """What a run knows beside weights and optimiser, before its first step; plain values and tensors only."""
    return {
        "step": 0, "losses": torch.zeros((), dtype=torch.float64), "since": 0, "curve": [],
        "best": math.inf, "epoch": -1, "kept": {}, "seconds": 0.0, "waited": 0.0, "rows": 0,
    }  # fmt: skip


def share(rows: dict[str, Tensor], training: Training) -> dict[str, Tensor]:
    """This worker's rows of what was drawn for the whole batch."""
    parts = {name: value.chunk(training.world)[training.rank] for name, value in rows.items()}
    return parts if training.world > 1 else rows


def forward(
    training: Training, batch: dict[str, Tensor], n: int, key: tuple[int, ...], augment: bool
) -> dict[str, Tensor]:
    """The method's loss and scalars on this worker's rows of a batch of n, with the noise named by `key`."""
    generator = hardware.generator(training.device, training.trial.seed, *key)
    noise = share(training.method.noise(generator, n, augment=augment), training)
    dtype = torch.float64 if training.precision == torch.float64 else torch.float32
    with hardware.autocast(training.device, training.precision):
        return training.method(stream.to_model(batch, dtype), noise, training.knobs)


def average(values: list[Tensor], world: int) -> None:
    """Replace tensors by their means over the workers, in place and in one exchange."""
    if world == 1:
        return
    flat = torch.cat([value.reshape(-1) for value in values])
    distributed.all_reduce(flat)
    flat /= world
    for value, mean in zip(values, flat.split([value.numel() for value in values]), strict=True):
        value.copy_(mean.view_as(value))


def rate(training: Training, number: int) -> float:
    """The learning rate of a step: linear warm-up, then half a cosine to 0 (paper, section IV-C.2)."""
    knobs = training.knobs
    share = float(optim.schedule(number, training.steps, knobs["warmup"]))
    return knobs["lr"] * training.method.lr_scale(training.trial.batch) * share


def step(training: Training, batch: dict[str, Tensor], number: int) -> Tensor:
    """One optimiser step, the same on every worker; the mean loss of the whole batch before it."""
    for group in training.optimiser.param_groups:
        group["lr"] = rate(training, number)
    loss = forward(training, batch, training.trial.batch, (number,), augment=True)["loss"]
    loss.backward()
    gradients = [p.grad for p in training.method.parameters() if p.grad is not None]
    mean = loss.detach().to(gradients[0].dtype, copy=True)
    average([mean, *gradients], training.world)
    training.optimiser.step()
    training.optimiser.zero_grad(set_to_none=True)
    return mean


@torch.no_grad()
def validate(training: Training, batches: Iterable[tuple[int, dict[str, Tensor]]]) -> tuple[dict[str, float], int]:
    """Mean loss and scalars over validation batches, and their rows; masks and views are the same every time.

    Args:
        training: the trial.
        batches: (rows of the whole batch, this worker's share of it).
    """
    training.method.eval()
    sums: dict[str, Tensor] = {}
    count = 0
    for i, (n, batch) in enumerate(batches):
        out = forward(training, batch, n, (-1, i), augment=False)  # no step has a negative number
        sums = {k: sums.get(k, 0) + v.double() * n for k, v in out.items() if v.ndim == 0}
        count += n
    training.method.train()
    average(list(sums.values()), training.world)
    return {k: float(v) / count for k, v in sums.items()}, count


def measure(training: Training, state: dict[str, Any], batches: Iterable[tuple[int, dict[str, Tensor]]]) -> None:
    """Validate at the end of an epoch: one more row of the curve, and the weights kept if they are to be handed on."""
    scalars, state["rows"] = validate(training, batches)
    epoch = state["step"] // training.per_epoch - 1
    row = {"step": state["step"], "epoch": epoch, "lr": rate(training, state["step"] - 1)}
    row["train_loss"] = float(state["losses"]) / max(state["since"], 1)
    state["curve"].append({**row, **{f"val_{name}": value for name, value in scalars.items()}})
    state["losses"], state["since"] = torch.zeros_like(state["losses"]), 0
    if training.trial.method in LAST or scalars["loss"] < state["best"]:
        state.update(best=scalars["loss"], epoch=epoch, kept=handed_on(training.method))


def handed_on(method: Any) -> dict[str, Tensor]:
    """The encoders a method hands on, `ecg.*` and `cmr.*`, copied."""
    parts = {part: getattr(method, attribute).state_dict() for part, attribute in method.parts.items()}
    return {f"{part}.{k}": v.detach().cpu().clone() for part, weights in parts.items() for k, v in weights.items()}


def loop(
    training: Training,
    feed: Iterator[dict[str, Tensor]],
    validation: Callable[[], Iterable[tuple[int, dict[str, Tensor]]]],
    state: dict[str, Any],
    *,
    save: Callable[[], None] = lambda: None,
    tell: Callable[[float], None] = lambda loss: None,
    every_s: float = EVERY_S,
) -> str:
    """Train from `state["step"]` to the end; "finished", or "diverged" once a loss is not finite.

    Args:
        training: the trial; its method and optimiser are changed in place.
        feed: this worker's share of the batches from that step on, as `stream.batches` gives them.
        validation: called at the end of every `eval_every`-th epoch and of the last, for the validation batches.
        state: `beginning()` or what a checkpoint holds; changed in place.
        save: writes a checkpoint. Called every `every_s`, and after a validation if that costs little.
        tell: is told the loss now and then.
        every_s: seconds between two checkpoints.
    """
    trial, look = training.trial, 1 if training.device.type == "cpu" else LOOK
    state["losses"] = state["losses"].to(training.device)
    saved, cost, first = time.monotonic(), 0.0, True
    while state["step"] < training.steps:
        asked = time.monotonic()
        batch = next(feed)
        got = time.monotonic()
        loss = step(training, batch, state["step"])
        state["step"] += 1
        state["since"] += 1
        state["losses"] += loss
        epoch, inside = divmod(state["step"], training.per_epoch)
        measured = not inside and (epoch % trial.eval_every == 0 or epoch == trial.epochs)
        if measured or state["step"] % look == 0:
            if not torch.isfinite(state["losses"]):
                log.error("%s: the loss is not finite at step %d; diverged", trial.name, state["step"])
                return "diverged"
            tell(float(loss))
        if measured:
            measure(training, state, validation())
        now = time.monotonic()
        # The first batch waits for Ray Data to start, which is no property of the steady state.
        state["waited"] += 0.0 if first else got - asked
        state["seconds"] += now - (got if first else asked)
        first = False
        if now - saved >= (min(every_s, cost / SAVE_SHARE) if measured else every_s):
            save()
            saved, cost = time.monotonic(), time.monotonic() - now
    return "finished"


# -- checkpoints -------------------------------------------------------------------------------------------------------


def save(path: Path, training: Training, state: dict[str, Any], recipe: dict[str, Any]) -> None:
    """Write everything a run needs to go on, whole or not at all.

    Raises:
        InputError: the disk is full.
    """
    record = {
        "recipe": recipe, "method": training.method.state_dict(), "optimiser": training.optimiser.state_dict(),
        "state": state,
    }  # fmt: skip

    def write(aside: Path) -> None:
        with aside.open("wb") as file:
            torch.save(record, file)

    try:
        store.write_whole(path, write)
    except (OSError, RuntimeError) as error:  # torch raises its own error over the system's
        cause = error if isinstance(error, OSError) else error.__context__
        raise shards.disk_full(cause, path) if isinstance(cause, OSError) else error from cause


def resume(path: Path, training: Training, recipe: dict[str, Any]) -> dict[str, Any]:
    """Put weights and optimiser back as the checkpoint holds them and return its state; `beginning()` if there is none.

    Raises:
        InputError: the checkpoint is of another recipe (names the fields that differ), or cannot be read.
    """
    record = read(path, recipe)
    if record is None:
        return beginning()
    training.method.load_state_dict(record["method"])
    training.optimiser.load_state_dict(record["optimiser"])
    return record["state"]


def read(path: Path, recipe: dict[str, Any]) -> dict[str, Any] | None:
    """The checkpoint, on the CPU and not read before it is used; None if there is none.

    Raises:
        InputError: see `resume`.
    """
    if not path.exists():
        return None
    try:
        record = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        old = record["recipe"]
    except Exception as error:  # torch raises half a dozen kinds for a damaged file
        raise InputError(f"{path} cannot be read ({type(error).__name__}); delete it to begin anew") from error
    differ = [f"{k} {old.get(k)} → {recipe.get(k)}" for k in sorted({*old, *recipe}) if old.get(k) != recipe.get(k)]
    if differ:
        raise InputError(f"{path} is of another recipe: {'; '.join(differ)}; use another --runs or delete the file")
    return record


# -- workers -----------------------------------------------------------------------------------------------------------


def validation_batches(
    cohort: cohorts.Cohort, needs: tuple[str, ...], batch: int, device: torch.device, rank: int = 0, world: int = 1
) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """(rows of the whole batch, this worker's share of it) over the validation split, in file order.

    Batches of one size, since a contrastive loss grows with it: the largest up to `batch` that leaves least rows out.
    A plain read: one per epoch through Ray Data would wait for its start each time.
    """
    rows = complete(cohort, "val", needs)
    count = math.ceil(len(rows) / batch)
    size = max(len(rows) // count // world, 1) * world
    for start in range(0, min(count, len(rows) // size) * size, size):
        mine = rows.iloc[start + rank * (size // world) : start + (rank + 1) * (size // world)]
        arrays = cohort.load(mine, needs)
        yield size, {name: torch.from_numpy(values).to(device) for name, values in arrays.items()}


def complete(cohort: cohorts.Cohort, split: str, needs: tuple[str, ...]) -> pd.DataFrame:
    """The rows of a split that have every signal a method needs."""
    rows = cohort.rows(split)
    return rows[rows[[f"has_{name}" for name in needs]].all(axis=1)]


def train(trial: Trial, config: dict[str, Any], device: torch.device, rank: int, world: int) -> None:
    """Pre-train one trial on this worker, from its checkpoint if it has one, and write its folder (rank 0)."""
    runs, cohort = Path(config["runs"]), cohorts.open(Path(config["cohort"]))
    precision = hardware.precision(config["precision"], device)
    needs = build(trial).needs
    per_epoch = stream.steps_per_epoch(cohort, "train", needs, trial.batch)
    training = prepare(trial, per_epoch, device, precision, rank=rank, world=world)
    for part, name in trial.starts:
        training.method.load(part, store.weights(runs, name, part))
    recipe = trials.recipe(trial, cohort.fingerprint)
    path = store.folder(runs, trial.name) / CHECKPOINT
    state = resume(path, training, recipe)
    agree(f"the step of {path}", state["step"], world)
    progress = store.Progress(runs, trial.name, training.steps, "steps", done=state["step"]) if rank == 0 else None
    feed = stream.batches(
        cohort.path, split="train", needs=needs, batch=trial.batch, seed=trial.seed, epochs=trial.epochs,
        start_step=state["step"], rank=rank, world=world, device=device,
    )  # fmt: skip

    def tell(loss: float) -> None:
        if progress is not None:
            progress.update(state["step"], **{"loss": loss, "samples/s": speed(training, state)})

    def keep() -> None:
        if rank == 0:
            save(path, training, state, recipe)

    def validation() -> Iterable[tuple[int, dict[str, Tensor]]]:
        return validation_batches(cohort, needs, trial.batch, device, rank, world)

    with contextlib.closing(feed):  # type: ignore[type-var]  # a generator: ends Ray Data's execution
        status = loop(training, feed, validation, state, save=keep, tell=tell, every_s=config["every_s"])
    if rank == 0:
        store.write(runs, outcome(training, state, status, cohort), cohort.fingerprint)


def speed(training: Training, state: dict[str, Any]) -> float:
    """Samples per second so far, validation and checkpoints included."""
    return state["step"] * training.trial.batch / max(state["seconds"], 1e-9)


def agree(what: str, value: Any, world: int) -> None:
    """Make sure that every worker read the same.

    Raises:
        InputError: this worker read something else than rank 0; --runs is not shared between them.
    """
    if world == 1:
        return
    first = [value]
    distributed.broadcast_object_list(first, src=0)
    if first[0] != value:
        raise InputError(f"{what} is {value} here and {first[0]} on rank 0: --runs must be a folder all workers share")


def outcome(training: Training, state: dict[str, Any], status: str, cohort: cohorts.Cohort) -> store.Finished:
    """What the run leaves behind; a diverged one leaves no weights."""
    good = status == "finished"
    curve = pd.DataFrame(state["curve"])
    kept = curve[curve.epoch == state["epoch"]] if len(curve) else curve
    columns = [str(c) for c in kept if str(c).startswith("val_")]
    scores = [("val", c.removeprefix("val_"), float(kept[c].iloc[0]), state["rows"]) for c in columns]
    return store.Finished(
        trial=training.trial,
        status=status,
        scores=tuple(scores) if good else (("val", "loss", math.nan, state["rows"]),),
        curve=curve,
        predictions=None,
        weights={name: value.numpy() for name, value in state["kept"].items()} if good else {},
        epoch=state["epoch"],
        provenance=provenance(training, state, cohort),
    )


def provenance(training: Training, state: dict[str, Any], cohort: cohorts.Cohort) -> dict[str, Any]:
    """Where, with what and how fast; `seconds` add up over resumes and leave out what starting took."""
    return {
        "seconds": round(state["seconds"], 3),
        "steps": state["step"],
        "samples_per_s": round(speed(training, state), 3),
        "data_wait_share": round(state["waited"] / max(state["seconds"], 1e-9), 5),
        "device": hardware_name(training.device),
        "precision": str(training.precision).removeprefix("torch."),
        "workers": training.world,
        "threads": torch.get_num_threads(),
        "versions": {"ecgcmr": __version__, "python": platform.python_version(), "torch": torch.__version__},
        "cohort": {"fingerprint": cohort.fingerprint, "recipe": cohort.recipe, "hash": cohort.manifest["recipe_hash"]},
    }


def hardware_name(device: torch.device) -> str:
    """The accelerator's model, or the processor's architecture: no host name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu ({platform.machine()})"


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
    with told(refusal, runs):
        for trial in map(trials.from_json, config["trials"]):
            done = store.finished(runs, trial, config["fingerprint"])
            agree(f"whether {trial.name} has finished", done, world)
            if not done:
                train(trial, config, device, rank, world)
                distributed.barrier()


@contextlib.contextmanager
def told(refusal: Path, runs: Path) -> Iterator[None]:
    """Leave the reason that no further attempt can help in a file, where the next attempt and the driver find it."""
    try:
        yield
    except (InputError, OSError) as error:
        reason = shards.disk_full(error, runs) if isinstance(error, OSError) else error
        if isinstance(reason, InputError):
            store.write_json(refusal, str(reason))
        raise


# -- the driver --------------------------------------------------------------------------------------------------------


def run(trial: Trial, cohort_path: Path, runs: Path, **options: Any) -> list[dict[str, Any]]:
    """Pre-train one trial; see `run_all`."""
    return run_all([trial], cohort_path, runs, **options)


def run_all(
    todo: list[Trial],
    cohort_path: Path,
    runs: Path,
    *,
    workers: int = 1,
    device: str | None = None,
    precision: str = "auto",
    every_s: float = EVERY_S,
) -> list[dict[str, Any]]:
    """Pre-train trials, each after those it starts from, on `workers` workers; what has finished is skipped.

    All go through one call of Ray Train, whose start takes 10 to 18 s on two cores whatever it runs (measured).

    Args:
        todo: trials of methods without a target.
        cohort_path: the cohort's folder, which every worker reaches.
        runs: likewise.
        workers: processes, one per GPU if `device` is one; each takes batch/workers rows.
        device: "cpu", "cuda"; by default GPUs if the cluster has as many as workers.
        precision: a name that `hardware.precision` knows.
        every_s: seconds between two checkpoints.

    Returns:
        The measured numbers of every trial, as in `rows.parquet`.

    Raises:
        InputError: something that no run could serve, before or while it runs.
    """
    cohort_path, runs = Path(cohort_path).resolve(), Path(runs).resolve()
    cohort = cohorts.open(cohort_path)
    ordered = in_order(todo)
    left = [trial for trial in ordered if not store.finished(runs, trial, cohort.fingerprint)]
    for trial in left:
        check(trial, {t.name for t in ordered}, cohort, runs, workers)
    if left:
        config = {
            "trials": [trials.to_json(trial) for trial in left], "cohort": str(cohort_path), "runs": str(runs),
            "fingerprint": cohort.fingerprint, "precision": precision, "every_s": every_s,
        }  # fmt: skip
        with cluster.running():
            launch(config, workers, on_gpu(device, workers), runs / ".train")
    tables = [pd.read_parquet(store.folder(runs, trial.name) / store.ROWS) for trial in ordered]
    return [dict(zip(table.columns, row)) for table in tables for row in table.itertuples(index=False)]


def in_order(todo: list[Trial]) -> list[Trial]:
    """The trials, each after those among them that it starts from; otherwise as given."""
    by_name = {trial.name: trial for trial in todo}
    ordered: dict[str, Trial] = {}

    def visit(name: str) -> None:
        for _, start in by_name[name].starts:
            if start in by_name and start not in ordered:
                visit(start)
        ordered[name] = by_name[name]

    for name in by_name:
        visit(name)
    return list(ordered.values())


def check(trial: Trial, before: set[str], cohort: cohorts.Cohort, runs: Path, workers: int) -> None:
    """Refuse what no worker could serve, before any is started.

    Args:
        trial: the trial.
        before: names of the trials that run before it, whose encoders will exist by then.
        cohort: the cohort.
        runs: where finished trials lie.
        workers: that would share each batch.
    """
    if trial.method not in methods.METHODS or trial.method == "supervised":
        raise unknown("pre-training method", trial.method, set(methods.METHODS) - {"supervised"})
    method = build(trial)
    methods.knobs(method, dict(trial.knobs))
    needs = method.needs
    if trial.task != "+".join(needs):
        raise InputError(f"task='{trial.task}' of trial '{trial.name}': {trial.method} needs task='{'+'.join(needs)}'")
    if trial.batch % workers:
        raise InputError(f"batch={trial.batch} of trial '{trial.name}' cannot be shared by {workers} workers equally")
    if trial.take != 1:
        raise InputError(f"take={trial.take} of trial '{trial.name}': pre-training uses all rows; leave it at 1")
    signals = " and ".join(needs)
    for split, least in (("train", trial.batch), ("val", workers)):
        n = len(complete(cohort, split, needs))
        if n < least:
            raise InputError(f"{cohort.path} has {n} {split} rows with {signals}, trial '{trial.name}' needs {least}")
    for part, name in trial.starts:
        if name not in before:
            store.weights(runs, name, part)
    read(store.folder(runs, trial.name) / CHECKPOINT, trials.recipe(trial, cohort.fingerprint))


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
        raise InputError(f"device '{device}': {workers} workers need a GPU each, Ray has {gpus:g}; use --device cpu")
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
            num_workers=workers, use_gpu=gpu, resources_per_worker={"CPU": CPUS, **({"GPU": 1} if gpu else {})}
        ),
        torch_config=ray.train.torch.TorchConfig(backend="nccl" if gpu else "gloo"),
        run_config=ray.train.RunConfig(
            name=name, storage_path=str(storage), failure_config=ray.train.FailureConfig(max_failures=FAILURES)
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
