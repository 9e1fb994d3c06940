"""One pre-training in plain torch: a step, a validation, the loop around them,
and the checkpoint it goes on from.

The one idea: a step is a pure function of (weights, step number), because batches and noise are
keyed by (seed, step). A checkpoint is therefore the weights, the optimiser and a number, and a
killed run that goes on ends with the weights of an undisturbed one. Workers share a batch: each
takes its rows, and gradients are averaged over them.

This file does not know Ray, does not read cohorts (batches are handed in) and does not pack trials
(that is `pack`).
"""

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed

from ecgcmr import methods, presets
from ecgcmr.data import inputs
from ecgcmr.methods.contract import of_view
from ecgcmr.runtime import hardware
from ecgcmr.runtime.cuda_graph import Replay, compiled
from ecgcmr.training import checkpoint, optim
from ecgcmr.training.checkpoint import EVERY_S, SAVE_SHARE
from ecgcmr.trial import Trial

log = logging.getLogger(__name__)

LOOK = 10  # steps between two readings of the loss from a GPU, each of which drains its queue


# -- a step ----------------------------------------------------------------------------------------


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
        replay: of the step.
        rank, world: this worker and how many there are; each has batch/world rows of every batch.
    """

    trial: Trial
    method: Any
    optimiser: torch.optim.Optimizer
    knobs: dict[str, float]
    device: torch.device
    precision: torch.dtype
    per_epoch: int
    replay: Replay
    rank: int = 0
    world: int = 1

    @property
    def steps(self) -> int:
        """Optimiser steps in all."""
        return self.trial.epochs * self.per_epoch


def prepare(
    trial: Trial,
    per_epoch: int,
    device: torch.device,
    precision: torch.dtype,
    *,
    rank: int = 0,
    world: int = 1,
) -> Training:
    """The trial at its first step: method with weights drawn from the seed,
    optimiser without memory.
    """
    hardware.keep_memory(device)
    method = build(trial)
    knobs = methods.knobs(method, dict(trial.knobs))
    method.to(device, torch.float64 if precision == torch.float64 else None)
    # In which convolutions compute; in the other order they copy.
    method.to(memory_format=torch.channels_last)
    if compiled(device):
        method.compile(dynamic=False)
    replay = Replay(device, on=world == 1)  # workers average their gradients in between
    return Training(
        trial,
        method,
        optimiser(method, knobs),
        knobs,
        device,
        precision,
        per_epoch,
        replay,
        rank,
        world,
    )


def build(trial: Trial) -> Any:
    """The trial's method, with weights drawn from its seed."""
    preset = presets.preset(trial.preset)
    return methods.build(
        trial.method, trial.network, preset, modality=modality_of(trial), seed=trial.seed
    )


def modality_of(trial: Trial) -> str:
    """What a pre-training reads: of several signals its task says which, as `modality` names one."""
    return trial.task if "+" in trial.task else trial.modality


def optimiser(method: Any, knobs: dict[str, float]) -> torch.optim.Optimizer:
    """AdamW, or Adam with coupled decay, as the method says.

    Biases and the like are not decayed.
    """
    params = [(name, p) for name, p in method.named_parameters() if p.requires_grad]
    groups = [
        {
            "params": [p for name, p in params if method.decays(name, p.ndim) == has_decay],
            "weight_decay": decay,
        }
        for has_decay, decay in ((True, knobs["weight_decay"]), (False, 0.0))
    ]
    kinds = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}
    device = params[0][1].device
    # On a GPU the rate is a tensor there and the step asks for no value, so that it can be
    # recorded.
    options: dict[str, Any] = {"lr": 0.0}
    if device.type == "cuda":
        options = {"lr": torch.zeros((), device=device), "capturable": True}
    return kinds[method.optimiser](groups, betas=method.betas, fused=True, **options)


@dataclass
class State:
    """What a run knows beside weights and optimiser.

    Plain values and tensors only, as a checkpoint holds them.

    Attributes:
        step: the next one.
        losses: their sum since the last validation, () float64 on the device.
        since: how many those are.
        curve: a row per validation.
        best: the least validation loss.
        epoch: of the kept weights, from 0; −1 before the first validation.
        kept: the weights to be handed on, see `handed_on`.
        seconds: of training, validation and checkpoints.
        waited: of those, seconds that steps waited for their batch.
        rows: of a validation.
    """

    step: int = 0
    losses: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    since: int = 0
    curve: list[dict[str, float]] = field(default_factory=list)
    best: float = math.inf
    epoch: int = -1
    kept: dict[str, Tensor] = field(default_factory=dict)
    seconds: float = 0.0
    waited: float = 0.0
    rows: int = 0


def share(rows: dict[str, Tensor], training: Training) -> dict[str, Tensor]:
    """This worker's rows of what was drawn for the whole batch."""
    parts = {name: value.chunk(training.world)[training.rank] for name, value in rows.items()}
    return parts if training.world > 1 else rows


def noise_share(
    training: Training, n: int, key: tuple[int, ...], augment: bool
) -> dict[str, Tensor]:
    """This worker's part of the noise for a batch of n, named by `key`."""
    generator = hardware.generator(training.device, training.trial.seed, *key)
    return share(training.method.noise(generator, n, augment=augment), training)


def forward(
    training: Training, batch: Mapping[str, Tensor], noise: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The method's loss and scalars on this worker's rows of a batch."""
    dtype = torch.float64 if training.precision == torch.float64 else torch.float32
    with hardware.autocast(training.device, training.precision):
        return training.method(inputs.to_model(batch, dtype), noise, training.knobs)


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
    """The learning rate of a step: linear warm-up, then half a cosine to 0.

    Source: section IV-C.2.
    """
    knobs = training.knobs
    share = float(optim.schedule(number, training.steps, knobs["warmup"]))
    return knobs["lr"] * training.method.lr_scale(training.trial.batch) * share


def step(training: Training, batch: dict[str, Tensor], number: int) -> Tensor:
    """One optimiser step, the same on every worker; the mean loss of the whole batch before it.

    On a GPU the loss is overwritten by the next step.
    """
    for group in training.optimiser.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate(training, number))
        else:
            group["lr"] = rate(training, number)
    noise = noise_share(training, training.trial.batch, (number,), augment=True)
    inputs = {
        **{f"batch.{k}": x for k, x in batch.items()},
        **{f"noise.{k}": x for k, x in noise.items()},
    }
    mean = training.replay(lambda inputs: descend(training, inputs), inputs)
    follow(training, number)
    return mean


def descend(training: Training, inputs: Mapping[str, Tensor]) -> Tensor:
    """Gradient, its mean over the workers, and the optimiser's step; the mean loss before it."""
    loss = forward(training, of_view(inputs, "batch"), of_view(inputs, "noise"))["loss"]
    params = [p for p in training.method.parameters() if p.requires_grad]
    # Not `backward`: what adds up gradients there is bound to one CUDA stream.
    grads = torch.autograd.grad(loss, params, allow_unused=True)
    for p, grad in zip(params, grads, strict=True):
        p.grad = grad
    gradients = [p.grad for p in params if p.grad is not None]
    mean = loss.detach().to(gradients[0].dtype, copy=True)
    average([mean, *gradients], training.world)
    training.optimiser.step()
    training.optimiser.zero_grad(set_to_none=True)
    return mean


def follow(training: Training, number: int) -> None:
    """Let the trailing parts of the method follow their leaders (`trails`)."""
    for behind, ahead in training.method.trails.items():
        copies, leaders = (
            list(training.method.get_submodule(name).parameters()) for name in (behind, ahead)
        )
        keep = optim.inertia(number, training.steps, training.knobs["momentum"])
        optim.trail(copies, leaders, keep)


@torch.no_grad()
def validate(
    training: Training, batches: Iterable[tuple[int, dict[str, Tensor]]]
) -> tuple[dict[str, float], int]:
    """Mean loss and scalars over validation batches, and their rows.

    Masks and views are the same every time.

    Args:
        training: the trial.
        batches: (rows of the whole batch, this worker's share of it).
    """
    training.method.eval()
    sums: dict[str, Tensor] = {}
    count = 0
    for i, (n, batch) in enumerate(batches):
        noise = noise_share(training, n, (-1, i), augment=False)  # no step has a negative number
        out = forward(training, batch, noise)
        sums = {k: sums.get(k, 0) + v.double() * n for k, v in out.items() if v.ndim == 0}
        count += n
    training.method.train()
    average(list(sums.values()), training.world)
    return {k: float(v) / count for k, v in sums.items()}, count


def measure(
    training: Training, state: State, batches: Iterable[tuple[int, dict[str, Tensor]]]
) -> None:
    """Validate at the end of an epoch: one more row of the curve.

    The weights are kept if they are to be handed on.
    """
    scalars, state.rows = validate(training, batches)
    epoch = state.step // training.per_epoch - 1
    row = {"step": state.step, "epoch": epoch, "lr": rate(training, state.step - 1)}
    row["train_loss"] = float(state.losses) / max(state.since, 1)
    state.curve.append({**row, **{f"val_{name}": value for name, value in scalars.items()}})
    state.losses, state.since = torch.zeros_like(state.losses), 0
    if training.method.keep == "last" or scalars["loss"] < state.best:
        state.best, state.epoch = scalars["loss"], epoch
        state.kept = handed_on(training.method)


def handed_on(method: Any) -> dict[str, Tensor]:
    """The encoders a method hands on, `ecg.*` and `cmr.*`,
    and what it keeps beside them, copied.
    """
    submodules = {**method.parts, **method.beside}
    parts = {part: method.get_submodule(name).state_dict() for part, name in submodules.items()}
    return {
        f"{part}.{k}": v.detach().cpu().contiguous().clone()
        for part, weights in parts.items()
        for k, v in weights.items()
    }


def loop(
    training: Training,
    feed: Iterator[dict[str, Tensor]],
    validation: Callable[[], Iterable[tuple[int, dict[str, Tensor]]]],
    state: State,
    *,
    save: Callable[[], None] = lambda: None,
    tell: Callable[[float], None] = lambda loss: None,
    every_s: float = EVERY_S,
) -> str:
    """Train from `state.step` to the end; "finished", or "diverged" once a loss is not finite.

    Args:
        training: the trial; its method and optimiser are changed in place.
        feed: this worker's share of the batches from that step on, as `stream.batches` gives them.
        validation: called at the end of every `eval_every`-th epoch and of the last, for the
            validation batches.
        state: a new one, or what a checkpoint holds; changed in place.
        save: writes a checkpoint. Called every `every_s`, and after a validation if that costs
            little.
        tell: is told the loss now and then.
        every_s: seconds between two checkpoints.
    """
    trial, look = training.trial, 1 if training.device.type == "cpu" else LOOK
    state.losses = state.losses.to(training.device)
    saved_s, cost_s, is_first = time.monotonic(), 0.0, True
    while state.step < training.steps:
        request_s = time.monotonic()
        batch = next(feed)
        arrival_s = time.monotonic()
        loss = step(training, batch, state.step)
        state.step += 1
        state.since += 1
        state.losses += loss
        epoch, inside = divmod(state.step, training.per_epoch)
        validates = not inside and (epoch % trial.eval_every == 0 or epoch == trial.epochs)
        if validates or state.step % look == 0:
            if not torch.isfinite(state.losses):
                log.error("%s: the loss is not finite at step %d; diverged", trial.name, state.step)
                return "diverged"
            tell(float(loss))
        if validates:
            measure(training, state, validation())
        now_s = time.monotonic()
        # The first batch waits for Ray Data to start, which is no property of the steady state.
        state.waited += 0.0 if is_first else arrival_s - request_s
        state.seconds += now_s - (arrival_s if is_first else request_s)
        is_first = False
        if now_s - saved_s >= (min(every_s, cost_s / SAVE_SHARE) if validates else every_s):
            save()
            saved_s, cost_s = time.monotonic(), time.monotonic() - now_s
    return "finished"


# -- checkpoints -----------------------------------------------------------------------------------


def save(path: Path, training: Training, state: State, recipe: dict[str, Any]) -> None:
    """Write everything a run needs to go on; see `checkpoint.write`."""
    parts = {
        "method": training.method.state_dict(),
        "optimiser": training.optimiser.state_dict(),
        "state": vars(state),
    }
    checkpoint.write(path, recipe, parts)


def resume(path: Path, training: Training, recipe: dict[str, Any]) -> State:
    """Put weights and optimiser back as the checkpoint holds them and return its state.

    Without a checkpoint, a new state.

    Raises:
        InputError: see `checkpoint.read`.
    """
    record = checkpoint.read(path, recipe)
    if record is None:
        return State()
    training.method.load_state_dict(record["method"])
    training.optimiser.load_state_dict(record["optimiser"])
    for group in training.optimiser.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"] = group["lr"].to(training.device)
    return State(**record["state"])
