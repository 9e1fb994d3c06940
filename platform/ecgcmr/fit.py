"""The pack engine: trains supervised trials together, as one program over stacked weights, and judges them.

A pack is what may share a program: everything that fixes a shape or the data is equal (`SHARED`), while start, seed and
knobs differ. The step is `vmap` of the method over the member axis E with autograd outside; members never mix, so each
ends as it would have alone: one that diverges or stops early freezes and its neighbours do not notice. This file knows
nothing of Ray, and does not choose what to run.
"""

import contextlib
import dataclasses
import json
import logging
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ecgcmr import examples, hardware, methods, metrics, optim, presets, store, tabular, tasks
from ecgcmr.errors import InputError, unknown
from ecgcmr.examples import Cohort, Scale, Split
from ecgcmr.tasks import Task
from ecgcmr.trial import Trial

log = logging.getLogger(__name__)

MAY_DIFFER = ("label", "starts", "seed", "knobs")  # none of them changes a shape or the data
SHARED = tuple(f.name for f in dataclasses.fields(Trial) if f.name not in MAY_DIFFER)

FORWARD = {"cuda": 4096, "cpu": 512}  # members × subjects evaluated at once


# -- which trials ------------------------------------------------------------------------------------------------------


def shared(trial: Trial) -> tuple[Any, ...]:
    """What the members of a pack have in common."""
    return tuple(getattr(trial, name) for name in SHARED)


def check(trials: Sequence[Trial]) -> None:
    """Refuse trials that no pack could run.

    Raises:
        InputError: not a fine-tuning, a modality or knob that does not exist; or see `tabular.check`.
    """
    for trial in trials:
        if trial.method == tabular.METHOD:
            tabular.check(trial)
            continue
        if trial.method != "supervised":
            raise InputError(
                f"method '{trial.method}' of '{trial.name}': fit trains 'supervised' and '{tabular.METHOD}'; pre-train it"
            )
        modalities = methods.Supervised.modalities
        if trial.modality not in modalities:
            raise unknown(f"modality of '{trial.name}'", trial.modality, modalities)
        if alien := [part for part, _ in trial.starts if part != trial.modality]:
            raise InputError(f"start of '{trial.name}': part '{alien[0]}' is not its modality '{trial.modality}'")
        known = methods.Supervised.defaults(presets.preset(trial.preset), trial.modality)
        for name, _ in trial.knobs:
            if name not in known:
                raise unknown(f"knob of '{trial.name}'", name, known)


def _build(trial: Trial, outputs: int) -> methods.Method:
    preset = presets.preset(trial.preset)
    return methods.build("supervised", trial.network, preset, outputs=outputs, modality=trial.modality, seed=trial.seed)


def check_pack(trials: Sequence[Trial]) -> None:
    """Refuse a mixed pack, with the field named."""
    for name in SHARED:
        found = {getattr(trial, name): None for trial in trials}
        if len(found) > 1:
            listed = ", ".join(str(value) for value in found)
            raise InputError(f"a pack needs trials of one shape; they differ in {name}: {listed}")


# -- the pack ----------------------------------------------------------------------------------------------------------


@dataclass
class Pack:
    """Members stacked along a leading axis E.

    Attributes:
        trials: the members.
        method: the network's structure; its own weights are not used.
        params, buffers: by name, (E, …).
        knobs: by name, (E,) float64 on the device.
        state: the optimiser's.
        multiplier, decays: by name, layer decay's factor of the rate, (E,), and whether weight decay applies.
        alive: (E,) bool on the device; a member that is not is frozen.
        best, best_buffers: weights at the best validation.
        device, dtype, precision: where, dtype of the weights, dtype of matrix products.
    """

    trials: list[Trial]
    method: methods.Method
    params: dict[str, Tensor]
    buffers: dict[str, Tensor]
    knobs: dict[str, Tensor]
    state: optim.State
    multiplier: dict[str, Tensor]
    decays: dict[str, bool]
    alive: Tensor
    best: dict[str, Tensor]
    best_buffers: dict[str, Tensor]
    device: torch.device
    dtype: torch.dtype
    precision: torch.dtype


def assemble(trials: Sequence[Trial], task: Task, runs: Path, device: torch.device, precision: torch.dtype) -> Pack:
    """Build, start and stack the members.

    Raises:
        InputError: a start does not exist or does not fit the network.
    """
    dtype = torch.float64 if precision == torch.float64 else torch.float32
    built: dict[Any, methods.Method] = {}
    for trial in trials:
        key = trial.seed, trial.starts
        if key not in built:
            built[key] = _member(trial, task, runs).to(device, dtype)
    members = [built[trial.seed, trial.starts] for trial in trials]
    params = _stack([dict(member.named_parameters()) for member in members])
    buffers = _stack([dict(member.named_buffers()) for member in members])
    method = members[0]
    given = [methods.knobs(method, dict(trial.knobs)) for trial in trials]
    knobs = {k: torch.tensor([float(g[k]) for g in given], dtype=torch.float64, device=device) for k in given[0]}
    return Pack(
        trials=list(trials), method=method, params=params, buffers=buffers, knobs=knobs, state=optim.start(params),
        multiplier={k: knobs["layer_decay"] ** (method.depths - method.depth_of(k)) for k in params},
        decays={k: method.decays(k, tensor.dim() - 1) for k, tensor in params.items()},
        alive=torch.ones(len(trials), dtype=torch.bool, device=device),
        best=_copy(params), best_buffers=_copy(buffers), device=device, dtype=dtype, precision=precision,
    )  # fmt: skip


def _member(trial: Trial, task: Task, runs: Path) -> methods.Method:
    method = _build(trial, task.outputs)
    for part, name in trial.starts:
        method.load(part, store.weights(runs, name, part))
    return method


def _stack(tensors: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([t[name].detach() for t in tensors]) for name in tensors[0]}


def _copy(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in tensors.items()}


def _choose(mask: Tensor, new: dict[str, Tensor], old: dict[str, Tensor]) -> None:
    """Write `new` over `old` for the members of `mask`."""
    for name, tensor in old.items():
        tensor.copy_(torch.where(mask.reshape(-1, *[1] * (tensor.dim() - 1)), new[name], tensor))


@dataclass(frozen=True)
class Draws:
    """Which rows the members see: one stream per distinct seed, shared by all members of that seed.

    Attributes:
        seeds: the distinct seeds.
        of: member -> place in `seeds`, (E,).
    """

    seeds: tuple[int, ...]
    of: Tensor

    def spread(self, drawn: list[dict[str, Tensor]]) -> tuple[dict[str, Tensor], int | None]:
        """Per-seed tensors -> (tensors, the member axis that vmap maps over): none when all members share one draw."""
        if len(self.seeds) == 1:
            return drawn[0], None
        return {name: torch.stack([d[name] for d in drawn])[self.of] for name in drawn[0]}, 0


def draws_of(trials: Sequence[Trial], device: torch.device) -> Draws:
    """The streams of a pack."""
    seeds = tuple(dict.fromkeys(trial.seed for trial in trials))
    return Draws(seeds, torch.tensor([seeds.index(trial.seed) for trial in trials], device=device))


def order(seed: int, epoch: int, n: int, batch: int) -> np.ndarray:
    """Rows of an epoch as (steps, batch): a permutation fixed by (seed, epoch), filled up from its own beginning."""
    batch = min(batch, n)
    rows = np.random.default_rng((seed, epoch)).permutation(n)
    return np.resize(rows, (examples.steps_per_epoch(n, batch), batch))


class Cast(TorchFunctionMode):
    """Give linear layers and convolutions operands of one dtype, as autocast does outside vmap.

    Under `torch.func.vmap` autocast reaches matrix products but neither F.linear with a bias nor F.conv2d, which vmap
    takes apart first (torch 2.13, tried): a pack would run in float32 and a single trial in bfloat16.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call `function`; the operands of the two are cast first, and those of batch norm to its weights' float32."""
        low = self.dtype in (torch.bfloat16, torch.float16)
        if low and function in (F.linear, F.conv2d):
            args = tuple(x.to(self.dtype) if isinstance(x, Tensor) else x for x in args)
        elif low and function is F.batch_norm:
            args = (args[0].float(), *args[1:])
        return function(*args, **(kwargs or {}))


def forward(
    pack: Pack, batch: dict[str, Tensor], noise: dict[str, Tensor], axis: int | None, wanted: str
) -> tuple[Tensor, dict[str, Tensor]]:
    """One output of the method for every member, and the buffers afterwards."""

    def one(params: Any, buffers: Any, batch: Any, noise: Any, knobs: Any) -> tuple[Tensor, dict[str, Tensor]]:
        tensors = {**params, **buffers}
        found = torch.func.functional_call(pack.method, tensors, (batch, noise, knobs))[wanted]
        return found, {name: tensors[name] for name in buffers}

    knobs = {name: values.to(pack.dtype) for name, values in pack.knobs.items()}
    with hardware.autocast(pack.device, pack.precision), Cast(pack.precision):
        return torch.func.vmap(one, in_dims=(0, 0, axis, axis, 0))(pack.params, pack.buffers, batch, noise, knobs)


def step(pack: Pack, batch: dict[str, Tensor], noise: dict[str, Tensor], axis: int | None, share: Tensor) -> Tensor:
    """One optimiser step of every member that is alive; the losses before it, (E,).

    Args:
        pack: changed in place. A member whose loss is not finite is frozen before the step.
        batch: of `Draws.spread`.
        noise: of `Draws.spread`.
        axis: the member axis of both, or none.
        share: of the learning rate by the schedule, (E,).
    """
    method = pack.method
    for tensor in pack.params.values():
        tensor.requires_grad_(True)
    losses, buffers = forward(pack, batch, noise, axis, "loss")
    # The members share no tensor that needs a gradient: the gradient of the sum is every member's own.
    grads = torch.autograd.grad(losses.sum(), list(pack.params.values()))
    for tensor in pack.params.values():
        tensor.requires_grad_(False)
    losses = losses.detach()
    pack.alive &= losses.isfinite()
    _choose(pack.alive, buffers, pack.buffers)
    optim.step(
        pack.params, dict(zip(pack.params, grads)), pack.state,
        lr=pack.knobs["lr"] * method.lr_scale(pack.trials[0].batch) * share,
        weight_decay=pack.knobs["weight_decay"],
        multiplier=pack.multiplier, decays=pack.decays,
        betas=method.betas, coupled=method.optimiser == "adam", active=pack.alive,
    )  # fmt: skip
    return losses


@torch.no_grad()
def evaluate(pack: Pack, split: Split, task: Task, scale: Scale) -> Tensor:
    """Answers of every member on every row, without augmentation, float64 on the device.

    Returns:
        (E, n, 1), the probability of the disease, or (E, n, phenotypes) in their units.
    """
    modality, size = pack.trials[0].modality, max(1, FORWARD[pack.device.type] // len(pack.trials))
    found = []
    for start in range(0, len(split.subjects), size):
        batch = examples.batch_of(split, slice(start, start + size), modality, pack.dtype)
        del batch["target"]
        found.append(forward(pack, batch, {}, None, "logits")[0].double())
    logits = torch.cat(found, dim=1)
    if task.kind == "binary":
        return logits.softmax(-1)[..., 1:]
    return logits * torch.from_numpy(scale.sd).to(logits) + torch.from_numpy(scale.mean).to(logits)


def judge(answers: Tensor, split: Split, task: Task) -> np.ndarray:
    """The selecting metric of every member, (E,); NaN where an answer is not finite."""
    given = torch.from_numpy(split.answers).to(answers.device)
    if task.kind == "binary":
        return metrics.auroc(answers[..., 0], given[:, 0], task.name).cpu().numpy()
    return metrics.pearson(answers, given, task.columns).mean(-1).cpu().numpy()


def orders(draws: Draws, epoch: int, n: int, trials: Sequence[Trial], device: torch.device) -> list[Tensor]:
    """`order` of every distinct seed, on the device."""
    return [torch.from_numpy(order(seed, epoch, n, trials[0].batch)).to(device) for seed in draws.seeds]


def advance(pack: Pack, rows: Split, draws: Draws, chosen: list[Tensor], now: int, total: int) -> Tensor:
    """Step `now` of `total` of the whole pack on the rows that `chosen` gives it; the losses, (E,)."""
    modality, place = pack.trials[0].modality, now % len(chosen[0])
    batch, axis = draws.spread([examples.batch_of(rows, order[place], modality, pack.dtype) for order in chosen])
    noise, _ = draws.spread([_noise(pack, seed, now, chosen[0].shape[1]) for seed in draws.seeds])
    return step(pack, batch, noise, axis, optim.schedule(now, total, pack.knobs["warmup"]))


def _noise(pack: Pack, seed: int, step: int, n: int) -> dict[str, Tensor]:
    drawn = pack.method.noise(hardware.generator(pack.device, seed, step), n)
    return {name: tensor.to(pack.dtype) if tensor.is_floating_point() else tensor for name, tensor in drawn.items()}


# -- training ----------------------------------------------------------------------------------------------------------


@dataclass
class Watch:
    """Early stopping of every member, (E,) each.

    Attributes:
        best: the best validation metric, −∞ before the first.
        epoch: when that was, from 0; −1 before the first.
        good: the last epoch that came within `max_delta` of the best.
        status: "" while it trains, then "finished", "early-stopped" or "diverged".
    """

    best: np.ndarray
    epoch: np.ndarray
    good: np.ndarray
    status: list[str]

    @classmethod
    def of(cls, members: int) -> "Watch":
        """Before the first epoch."""
        return cls(np.full(members, -np.inf), np.full(members, -1), np.full(members, -1), [""] * members)

    def see(
        self, epoch: int, values: np.ndarray, alive: np.ndarray, patience: np.ndarray, slack: np.ndarray
    ) -> np.ndarray:
        """Take in a validation; returns who reached a new best.

        Patience counts epochs since the metric last came within `slack` of the best (authors' util/callbacks.py).
        A member that is no longer alive, or whose metric is not a number, has diverged.
        """
        training = np.array([status == "" for status in self.status])
        for e in np.flatnonzero(training & ~(alive & np.isfinite(values))):
            self.status[e] = "diverged"
        training &= alive & np.isfinite(values)
        better = training & (values > self.best)
        self.best[better], self.epoch[better] = values[better], epoch
        self.good[better | training & (values >= self.best - slack)] = epoch
        for e in np.flatnonzero(training & (epoch - self.good > patience)):
            self.status[e] = "early-stopped"
        return better


def train(
    pack: Pack, task: Task, rows: Split, val: Split, scale: Scale, progress: store.Progress | None = None
) -> tuple[Watch, list[pd.DataFrame]]:
    """Train the pack until every member has ended; its `best` weights are those to keep. Also returns the curves."""
    trial, n = pack.trials[0], len(rows.subjects)
    per_epoch = examples.steps_per_epoch(n, trial.batch)
    total = trial.epochs * per_epoch
    draws, watch = draws_of(pack.trials, pack.device), Watch.of(len(pack.trials))
    curves: list[list[dict[str, float]]] = [[] for _ in pack.trials]
    losses: list[Tensor] = []
    shown: dict[str, float] = {}
    for epoch in range(trial.epochs):
        chosen = orders(draws, epoch, n, pack.trials, pack.device)
        for now in range(epoch * per_epoch, (epoch + 1) * per_epoch):
            losses.append(advance(pack, rows, draws, chosen, now, total))
            if progress:
                progress.update(now + 1, **shown)
        if (epoch + 1) % trial.eval_every and epoch + 1 < trial.epochs:
            continue
        training = [e for e, status in enumerate(watch.status) if not status]
        values = validate(pack, val, task, scale, watch, epoch)
        loss = torch.stack(losses).double().mean(0).cpu().numpy()
        losses.clear()
        for e in training:
            point = {"step": now + 1, "epoch": epoch, "train_loss": loss[e], f"val_{task.metric}": values[e]}
            curves[e].append(point)
        shown = {"training": watch.status.count(""), f"best {task.metric}": float(watch.best.max())}
        if not shown["training"]:
            break
    watch.status = [status or "finished" for status in watch.status]
    return watch, [pd.DataFrame(curve) for curve in curves]


def validate(pack: Pack, val: Split, task: Task, scale: Scale, watch: Watch, epoch: int) -> np.ndarray:
    """Judge every member, keep the weights of those at their best, freeze those that have ended; the metric, (E,)."""
    values = judge(evaluate(pack, val, task, scale), val, task)
    patience, slack = (pack.knobs[name].cpu().numpy() for name in ("patience", "max_delta"))
    better = torch.from_numpy(watch.see(epoch, values, pack.alive.cpu().numpy(), patience, slack)).to(pack.device)
    _choose(better, pack.params, pack.best)
    _choose(better, pack.buffers, pack.best_buffers)
    pack.alive &= torch.tensor([not status for status in watch.status], device=pack.device)
    log.info("epoch %d: %d members train, best %s %.4f", epoch, watch.status.count(""), task.metric, watch.best.max())
    return values


# -- the verb ----------------------------------------------------------------------------------------------------------


def fit(
    trials: Sequence[Trial], cohort: Cohort, runs: Path, *, device: str | None = None, precision: str = "auto",
    progress: str | None = None,
) -> list[store.Finished]:  # fmt: skip
    """Train a pack of supervised trials, networks together and trees in turn, and write each one's folder.

    Args:
        trials: of one shape; see MAY_DIFFER. None of them finished.
        cohort: of `cohort.open`.
        runs: the folder of runs; starts are read from it and results written to it.
        device: "cpu", "cuda" …; by default a GPU if there is one.
        precision: "auto", "float32", "bfloat16" or "float64".
        progress: the name under which the display shows the pack.

    Raises:
        InputError: a mixed pack, an unknown knob, a missing start or column, a label with one class.
    """
    check(trials)
    check_pack(trials)
    begun, first = time.monotonic(), trials[0]
    if first.method == tabular.METHOD:
        with _displayed(runs, progress, len(trials), "trials") as shown:
            return tabular.fit(trials, cohort, runs, shown)
    place = hardware.device(device)
    task = tasks.of(first.task, (first.task,))
    _check_recipes(trials, cohort, runs)
    splits, scale, notes = _materials(cohort, first, task, place)
    pack = assemble(trials, task, runs, place, hardware.precision(precision, place))
    steps = first.epochs * examples.steps_per_epoch(len(splits["train"].subjects), first.batch)
    with _displayed(runs, progress, steps, "steps") as shown:
        watch, curves = train(pack, task, splits["train"], splits["val"], scale, shown)
    pack.params, pack.buffers = pack.best, pack.best_buffers
    judged = ["val", "test"] if first.stage == "final" else ["val"]
    if "test" in judged:  # the only place where test signals are read
        index = examples.answerable(cohort, task, first.modality, "test")
        for trial in trials:
            store.log_test_read(runs, trial.name, len(index))
        splits["test"] = examples.bring(cohort, index, task, first.modality, scale, place)
    answers = {split: evaluate(pack, splits[split], task, scale).cpu().numpy() for split in judged}
    notes |= _provenance(pack, judged, time.monotonic() - begun, cohort)
    results = [_result(pack, e, task, splits, answers, watch, curves[e], notes) for e in range(len(trials))]
    for result in results:
        store.write(runs, result, cohort.fingerprint)
    return results


@contextlib.contextmanager
def _displayed(runs: Path, name: str | None, total: int, unit: str) -> Iterator[store.Progress | None]:
    if name is None:
        yield None
        return
    shown = store.Progress(runs, name, total, unit)
    try:
        yield shown
    finally:
        shown.close()
        with contextlib.suppress(OSError):  # never made, or not empty
            shown.path.parent.rmdir()


def _check_recipes(trials: Sequence[Trial], cohort: Cohort, runs: Path) -> None:
    """Refuse an encoder that was trained on signals prepared in another way."""
    for part, name in sorted({start for trial in trials for start in trial.starts}):
        path = store.folder(runs, name) / store.RECORD
        if not path.exists():
            continue  # `store.weights` says so
        old = json.loads(path.read_text())["provenance"].get("cohort", {}).get("recipe", {}).get(part, {})
        new = cohort.recipe.get(part, {})
        differ = [f"{k} {old[k]} → {new[k]}" for k in sorted({*old} & {*new}) if old[k] != new[k]]
        if differ:
            raise InputError(
                f"start '{name}' learnt from {part} signals of another recipe than {cohort.path}: {'; '.join(differ)}; "
                "pre-train on this cohort or build it alike"
            )


def _materials(
    cohort: Cohort, trial: Trial, task: Task, device: torch.device
) -> tuple[dict[str, Split], Scale, dict[str, Any]]:
    rows = examples.rows_of(cohort, trial, task)
    splits = {
        "train": examples.bring(
            cohort, rows.train, task, trial.modality, rows.scale, device, f"train {trial.task} {trial.take}"
        ),
        "val": examples.bring(cohort, rows.val, task, trial.modality, rows.scale, device, f"val {trial.task}"),
    }
    return splits, rows.scale, rows.notes


def _provenance(pack: Pack, judged: list[str], seconds: float, cohort: Cohort) -> dict[str, Any]:
    return {
        **hardware.provenance(pack.device, pack.precision), "cohort": cohort.provenance,
        "seconds": round(seconds, 3), "pack_size": len(pack.trials), "test_reads": judged.count("test"),
    }  # fmt: skip


def _result(
    pack: Pack, e: int, task: Task, splits: dict[str, Split], answers: dict[str, np.ndarray], watch: Watch,
    curve: pd.DataFrame, notes: dict[str, Any],
) -> store.Finished:  # fmt: skip
    """What member `e` leaves behind; without a single validation that is its status alone."""
    trial, known = pack.trials[e], watch.epoch[e] >= 0
    rows: list[tuple[str, str, float, int]] = []
    for split, found in answers.items():
        values = examples.scores(splits[split].answers, found[e], task) if known else {task.metric: math.nan}
        rows += [(split, name, value, len(found[e])) for name, value in values.items()]
    tables = [
        examples.predictions(split, splits[split].subjects, splits[split].answers, found[e], task)
        for split, found in answers.items()
    ]
    weights = {}
    if trial.stage == "final" and known:  # those of a grid would fill the disk
        stacked = {**pack.params, **pack.buffers}
        weights = {name: tensor[e].float().cpu().contiguous().numpy() for name, tensor in stacked.items()}
    return store.Finished(
        trial=trial, status=watch.status[e], scores=tuple(rows), curve=curve,
        predictions=pd.concat(tables, ignore_index=True) if known else None,
        weights=weights, epoch=int(watch.epoch[e]), provenance=notes,
    )  # fmt: skip
