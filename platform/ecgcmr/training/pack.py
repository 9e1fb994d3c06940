"""A pack: trials of one shape trained as one program over stacked weights, (E, …).

The one idea: the step is `vmap` of the method over the member axis with autograd outside, so every layer is one batched
product, and members never mix. Each member's weights lie in one row, ordered by how they are updated, so that the
optimiser is a few operations on stretches of rows and not some on every parameter. A member that diverges or stops is
frozen by a mask and leaves the pack at the next `compact`; its neighbours do not notice.

This file does not know Ray, does not read cohorts and does not decide when a member has had enough (that is `finetune`).
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ecgcmr import methods, presets, store
from ecgcmr.data import examples, sampler
from ecgcmr.data.examples import Scale, Split
from ecgcmr.evaluation import metrics
from ecgcmr.methods import encodings
from ecgcmr.methods.contract import of_view
from ecgcmr.runtime import cuda_graph, hardware
from ecgcmr.runtime.cuda_graph import Replay
from ecgcmr.tasks import Task
from ecgcmr.training import optim
from ecgcmr.trial import Trial

FORWARD = {"cuda": 4096, "cpu": 512}  # members × subjects evaluated at once, at most
# On a CPU so many members take a step together as keep the largest result of a layer in the caches (docs/performance.md).
CPU_BYTES = 16 * 2**20
ALIGN = 32  # numbers between which a parameter begins in a row: 128 bytes, what a GPU reads at once


# -- how weights lie ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layout:
    """Where the parameters lie in a member's row: those of one layer-decay depth and kind of decay side by side.

    Attributes:
        shapes: of every parameter, by name.
        starts: of every parameter.
        groups: (depth, whether weight decay applies) -> (start, end) of its stretch.
        length: of a row.
    """

    shapes: dict[str, torch.Size]
    starts: dict[str, int]
    groups: dict[tuple[int, bool], tuple[int, int]]
    length: int

    @classmethod
    def of(cls, method: methods.Method) -> "Layout":
        """The layout of a method's parameters."""
        shapes = {name: p.shape for name, p in method.named_parameters()}
        kind = {
            name: (method.depth_of(name), method.decays(name, len(shape)))
            for name, shape in shapes.items()
        }
        starts: dict[str, int] = {}
        groups: dict[tuple[int, bool], tuple[int, int]] = {}
        end = 0
        for name in sorted(shapes, key=lambda name: kind[name]):
            starts[name] = end
            end += -(-shapes[name].numel() // ALIGN) * ALIGN
            groups[kind[name]] = groups.get(kind[name], (starts[name], 0))[0], end
        return cls(shapes, starts, groups, end)

    def params(self, rows: Tensor) -> dict[str, Tensor]:
        """Views of rows (E, length) by parameter, (E, …)."""
        return {
            name: rows[:, self.starts[name] : self.starts[name] + shape.numel()].view(-1, *shape)
            for name, shape in self.shapes.items()
        }

    def stretches(self, rows: Tensor) -> dict[str, Tensor]:
        """Views of rows by group, (E, numbers)."""
        return {str(group): rows[:, start:end] for group, (start, end) in self.groups.items()}

    def rows(self, members: Sequence[Mapping[str, Tensor]]) -> Tensor:
        """Rows of these parameters, (E, length), 0 between them."""
        first = next(iter(members[0].values()))
        rows = torch.zeros(len(members), self.length, dtype=first.dtype, device=first.device)
        for e, member in enumerate(members):
            for name, view in self.params(rows[e : e + 1]).items():
                view[0].copy_(member[name].detach())
        return rows


# -- the pack ----------------------------------------------------------------------------------------------------------


@dataclass
class Pack:
    """Members stacked along a leading axis E.

    Attributes:
        trials: the members.
        places: of each among the members that the pack began with, (E,).
        method: the network's structure; its own weights are not used.
        layout: how weights lie in `rows`.
        rows, gradient: (E, length).
        params: views of `rows` by name, (E, …).
        buffers: by name, (E, …).
        knobs: by name, (E,) float64 on the device.
        state: the optimiser's.
        multiplier, decays: by group, layer decay's factor of the rate, (E,), and whether weight decay applies.
        alive: (E,) bool on the device; a member that is not is frozen.
        best, best_buffers: at the best validation, of all members that the pack began with.
        device, dtype, precision: where, dtype of the weights, dtype of matrix products.
        replay: of the step.
    """

    trials: list[Trial]
    places: np.ndarray
    method: methods.Method
    layout: Layout
    rows: Tensor
    gradient: Tensor
    params: dict[str, Tensor]
    buffers: dict[str, Tensor]
    knobs: dict[str, Tensor]
    state: optim.State
    multiplier: dict[str, Tensor]
    decays: dict[str, bool]
    alive: Tensor
    best: Tensor
    best_buffers: dict[str, Tensor]
    device: torch.device
    dtype: torch.dtype
    precision: torch.dtype
    replay: Replay


def assemble(
    trials: Sequence[Trial], task: Task, runs: Path, device: torch.device, precision: torch.dtype
) -> Pack:
    """Build, start and stack the members.

    Raises:
        InputError: a start does not exist or does not fit the network.
    """
    hardware.keep_memory(device)
    dtype = torch.float64 if precision == torch.float64 else torch.float32
    built: dict[Any, methods.Method] = {}
    for trial in trials:
        key = trial.seed, trial.starts
        if key not in built:
            built[key] = _member(trial, task, runs).to(device, dtype)
    members = [built[trial.seed, trial.starts] for trial in trials]
    method = members[0]
    layout = Layout.of(method)
    rows = layout.rows([dict(member.named_parameters()) for member in members])
    buffers = _stack([dict(member.named_buffers()) for member in members])
    given = [methods.knobs(method, dict(trial.knobs)) for trial in trials]
    knobs = {
        k: torch.tensor([float(g[k]) for g in given], dtype=torch.float64, device=device)
        for k in given[0]
    }
    return Pack(
        trials=list(trials),
        places=np.arange(len(trials)),
        method=method,
        layout=layout,
        rows=rows,
        gradient=torch.zeros_like(rows),
        params=layout.params(rows),
        buffers=buffers,
        knobs=knobs,
        state=optim.start(layout.stretches(rows)),
        multiplier={str(g): knobs["layer_decay"] ** (method.depths - g[0]) for g in layout.groups},
        decays={str(g): g[1] for g in layout.groups},
        alive=torch.ones(len(trials), dtype=torch.bool, device=device),
        best=rows.clone(),
        best_buffers={name: x.clone() for name, x in buffers.items()},
        device=device,
        dtype=dtype,
        precision=precision,
        replay=Replay(device),
    )


def build(trial: Trial, outputs: int) -> methods.Method:
    """The trial's network, with weights drawn from its seed."""
    preset = presets.preset(trial.preset)
    return methods.build(
        "supervised",
        trial.network,
        preset,
        outputs=outputs,
        modality=trial.modality,
        seed=trial.seed,
    )


def _member(trial: Trial, task: Task, runs: Path) -> methods.Method:
    method = build(trial, task.outputs)
    for part, name in trial.starts:
        method.load(part, store.weights(runs, name, part))
    return method


def _stack(tensors: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([t[name].detach() for t in tensors]) for name in tensors[0]}


def compact(pack: Pack, kept: Sequence[int] | np.ndarray) -> Pack:
    """A pack of some of the members, which go on as if the others were still there; `best` stays shared."""
    index = torch.as_tensor(np.asarray(kept), device=pack.device)

    def take(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: x[index] for name, x in tensors.items()}

    rows = pack.rows[index]
    return replace(
        pack,
        trials=[pack.trials[e] for e in kept],
        places=pack.places[np.asarray(kept)],
        rows=rows,
        gradient=torch.zeros_like(rows),
        params=pack.layout.params(rows),
        buffers=take(pack.buffers),
        knobs=take(pack.knobs),
        multiplier=take(pack.multiplier),
        alive=pack.alive[index],
        replay=Replay(pack.device),
        state=optim.State(pack.state.steps, take(pack.state.first), take(pack.state.second)),
    )


def some(pack: Pack, part: slice) -> Pack:
    """Some of the members as views: what is written to it in place is written to the pack. It takes no step of its own."""
    rows = pack.rows[part]
    return replace(
        pack,
        trials=pack.trials[part],
        places=pack.places[part],
        rows=rows,
        gradient=pack.gradient[part],
        params=pack.layout.params(rows),
        buffers=_of(pack.buffers, part),
        knobs=_of(pack.knobs, part),
        multiplier=_of(pack.multiplier, part),
        alive=pack.alive[part],
    )


def _of(tensors: Mapping[str, Tensor], part: slice) -> dict[str, Tensor]:
    return {name: x[part] for name, x in tensors.items()}


def parts(members: int, size: int) -> list[slice]:
    """Members cut into parts of `size`, the last one smaller."""
    return [slice(start, min(start + size, members)) for start in range(0, members, size)]


def in_cache(trial: Trial) -> int:
    """How many such members take a step together before a layer's largest result is more than a CPU's caches hold."""
    return max(1, CPU_BYTES // widest(trial))


def widest(trial: Trial) -> int:
    """Bytes of the largest result of a layer for a batch of one member, in 16 bit."""
    return encodings.of(trial.modality).widest(trial.network, trial.batch)


def keep(pack: Pack, better: np.ndarray) -> None:
    """Note the weights of the members of `better`, (E,) bool, as their best."""
    here = torch.from_numpy(np.flatnonzero(better)).to(pack.device)
    there = torch.from_numpy(pack.places[better]).to(pack.device)
    pack.best[there] = pack.rows[here]
    for name, x in pack.best_buffers.items():
        x[there] = pack.buffers[name][here]


def at_best(pack: Pack) -> Pack:
    """The pack that it began as, with every member's best weights."""
    return replace(
        pack, rows=pack.best, params=pack.layout.params(pack.best), buffers=pack.best_buffers
    )


def state_of(pack: Pack) -> dict[str, Any]:
    """Everything that changes in training, for a checkpoint."""
    return {
        "places": pack.places.tolist(),
        "rows": pack.rows,
        "buffers": pack.buffers,
        "alive": pack.alive,
        "steps": pack.state.steps,
        "first": pack.state.first,
        "second": pack.state.second,
        "best": pack.best,
        "best_buffers": pack.best_buffers,
    }


def restored(whole: Pack, state: Mapping[str, Any]) -> Pack:
    """The pack as `state_of` found it, from the pack that it began as."""
    pack = compact(whole, state["places"])
    single = {"rows": pack.rows, "alive": pack.alive, "best": pack.best, "steps": pack.state.steps}
    named = {
        "buffers": pack.buffers,
        "first": pack.state.first,
        "second": pack.state.second,
        "best_buffers": pack.best_buffers,
    }
    for name, tensor in single.items():
        tensor.copy_(state[name])
    for name, tensors in named.items():
        for key, tensor in tensors.items():
            tensor.copy_(state[name][key])
    return pack


# -- what members see --------------------------------------------------------------------------------------------------


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


def orders(
    draws: Draws, epoch: int, n: int, trials: Sequence[Trial], device: torch.device
) -> list[Tensor]:
    """`sampler.permuted` of every distinct seed, on the device."""
    return [
        torch.from_numpy(sampler.permuted(seed, epoch, n, trials[0].batch)).to(device)
        for seed in draws.seeds
    ]


def _noise(pack: Pack, seed: int, step: int, n: int) -> dict[str, Tensor]:
    drawn = pack.method.noise(hardware.generator(pack.device, seed, step), n)
    return {
        name: tensor.to(pack.dtype) if tensor.is_floating_point() else tensor
        for name, tensor in drawn.items()
    }


# -- a step ------------------------------------------------------------------------------------------------------------


class Cast(TorchFunctionMode):
    """Give linear layers and convolutions operands of one dtype, as autocast does outside vmap.

    Under `torch.func.vmap` autocast reaches matrix products but neither F.linear with a bias nor F.conv2d, which vmap
    takes apart first (torch 2.13, tried): a pack would run in float32 and a single trial in bfloat16.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Call `function`; the operands of the two are cast first, and those of batch norm to its weights' float32."""
        low = self.dtype in (torch.bfloat16, torch.float16)
        if low and function in (F.linear, F.conv2d):
            args = tuple(x.to(self.dtype) if isinstance(x, Tensor) else x for x in args)
        elif low and function is F.batch_norm:
            args = (args[0].float(), *args[1:])
        return function(*args, **(kwargs or {}))


def forward(
    pack: Pack,
    batch: Mapping[str, Tensor],
    noise: Mapping[str, Tensor],
    axis: int | None,
    wanted: str,
) -> tuple[Tensor, dict[str, Tensor]]:
    """One output of the method for every member, and the buffers afterwards."""

    def one(
        params: Any, buffers: Any, batch: Any, noise: Any, knobs: Any
    ) -> tuple[Tensor, dict[str, Tensor]]:
        tensors = {**params, **buffers}
        found = torch.func.functional_call(pack.method, tensors, (batch, noise, knobs))[wanted]
        return found, {name: tensors[name] for name in buffers}

    knobs = {name: values.to(pack.dtype) for name, values in pack.knobs.items()}
    with hardware.autocast(pack.device, pack.precision), Cast(pack.precision):
        return torch.func.vmap(one, in_dims=(0, 0, axis, axis, 0))(
            pack.params, pack.buffers, batch, noise, knobs
        )


@functools.cache
def compiled_forward() -> Any:
    """`forward` by torch.compile, anew for every shape of a pack."""
    return torch.compile(forward, dynamic=False)


def advance(
    pack: Pack, rows: Split, draws: Draws, chosen: list[Tensor], now: int, total: int
) -> Tensor:
    """Step `now` of `total` of the whole pack on the rows that `chosen` gives it.

    Returns:
        The losses before the step, (E,); on a GPU overwritten by the next step.
    """
    modality, place = pack.trials[0].modality, now % len(chosen[0])
    batch, axis = draws.spread(
        [examples.batch_of(rows, order[place], modality, pack.dtype) for order in chosen]
    )
    noise, _ = draws.spread([_noise(pack, seed, now, chosen[0].shape[1]) for seed in draws.seeds])
    return learn(pack, batch, noise, axis, now, total)


def learn(
    pack: Pack,
    batch: Mapping[str, Tensor],
    noise: Mapping[str, Tensor],
    axis: int | None,
    now: int,
    total: int,
) -> Tensor:
    """`step` number `now` of `total`; recorded and replayed where that pays, so batch and noise keep their shapes."""
    given = {
        **{f"batch.{k}": x for k, x in batch.items()},
        **{f"noise.{k}": x for k, x in noise.items()},
    }
    given["now"] = torch.full((), now, dtype=torch.float64, device=pack.device)

    def work(given: Mapping[str, Tensor]) -> Tensor:
        batch, noise = (of_view(given, kind) for kind in ("batch", "noise"))
        return step(
            pack, batch, noise, axis, optim.schedule(given["now"], total, pack.knobs["warmup"])
        )

    return pack.replay(work, given)


def step(
    pack: Pack,
    batch: Mapping[str, Tensor],
    noise: Mapping[str, Tensor],
    axis: int | None,
    share: Tensor,
) -> Tensor:
    """One optimiser step of every member that is alive, kernel by kernel; the losses before it, (E,).

    Args:
        pack: changed in place. A member whose loss is not finite is frozen before the step.
        batch: of `Draws.spread`.
        noise: of `Draws.spread`.
        axis: the member axis of both, or none.
        share: of the learning rate by the schedule, (E,).
    """

    def seen(tensors: Mapping[str, Tensor], part: slice) -> Mapping[str, Tensor]:
        return tensors if axis is None else _of(tensors, part)

    method, members = pack.method, len(pack.trials)
    cut = parts(members, in_cache(pack.trials[0]) if pack.device.type == "cpu" else members)
    losses = torch.cat(
        [_gradient(some(pack, part), seen(batch, part), seen(noise, part), axis) for part in cut]
    )
    optim.step(
        pack.layout.stretches(pack.rows),
        pack.layout.stretches(pack.gradient),
        pack.state,
        lr=pack.knobs["lr"] * method.lr_scale(pack.trials[0].batch) * share,
        weight_decay=pack.knobs["weight_decay"],
        multiplier=pack.multiplier,
        decays=pack.decays,
        betas=method.betas,
        coupled=method.optimiser == "adam",
        active=pack.alive,
    )
    return losses


def _gradient(
    pack: Pack, batch: Mapping[str, Tensor], noise: Mapping[str, Tensor], axis: int | None
) -> Tensor:
    """Write every member's gradient, the buffers, and who is alive; the losses, (E,)."""
    params = list(pack.params.values())
    for tensor in params:
        tensor.requires_grad_(True)
    found = compiled_forward() if cuda_graph.compiled(pack.device) else forward
    losses, buffers = found(pack, batch, noise, axis, "loss")
    # The members share no tensor that needs a gradient: the gradient of the sum is every member's own.
    grads = torch.autograd.grad(losses.sum(), params)
    torch._foreach_copy_(
        [pack.layout.params(pack.gradient)[name] for name in pack.params], list(grads)
    )
    losses = losses.detach()
    pack.alive &= losses.isfinite()
    _choose(pack.alive, buffers, pack.buffers)
    return losses


def _choose(mask: Tensor, new: dict[str, Tensor], old: dict[str, Tensor]) -> None:
    """Write `new` over `old` for the members of `mask`."""
    for name, tensor in old.items():
        tensor.copy_(torch.where(mask.reshape(-1, *[1] * (tensor.dim() - 1)), new[name], tensor))


# -- judging -----------------------------------------------------------------------------------------------------------


def at_once(pack: Pack) -> int:
    """Members × subjects that are evaluated at once: on a CPU as many as its caches hold without a gradient."""
    trial = pack.trials[0]
    if pack.device.type != "cpu":
        return FORWARD[pack.device.type]
    return min(FORWARD["cpu"], max(1, 2 * CPU_BYTES * trial.batch // widest(trial)))


@torch.no_grad()
def evaluate(pack: Pack, split: Split, task: Task, scale: Scale) -> Tensor:
    """Answers of every member on every row, without augmentation, float64 on the device.

    Returns:
        (E, n, 1), the probability of the disease, or (E, n, phenotypes) in their units.
    """
    modality, together = pack.trials[0].modality, at_once(pack)
    members = min(len(pack.trials), together)
    cut = [some(pack, part) for part in parts(len(pack.trials), members)]
    found = []
    for rows in parts(len(split.subjects), together // members):
        batch = examples.batch_of(split, rows, modality, pack.dtype)
        del batch["target"]
        found.append(
            torch.cat([forward(part, batch, {}, None, "logits")[0].double() for part in cut])
        )
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
