"""A pack: trials of one shape whose weights are stacked, (E, …), to be trained as one program.

Each member's weights lie in one row, ordered by how they are updated, so that the optimiser is a
few operations on stretches of rows and not some on every parameter. A member that diverges or stops
is frozen by a mask and leaves the pack at the next `compact`; its neighbours do not notice. How a
pack takes a step is in `pack_step`, how it is evaluated in `pack_judge`.

This file does not know Ray, does not read cohorts and does not decide when a member has had enough
(that is `finetune`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ecgcmr import methods, presets, store
from ecgcmr.methods import encodings
from ecgcmr.runtime import hardware
from ecgcmr.runtime.cuda_graph import Replay
from ecgcmr.tasks import Task
from ecgcmr.training import optim
from ecgcmr.trial import Trial

# On a CPU so many members take a step together as keep the largest result of a layer in the caches
# (docs/performance.md).
CPU_BYTES = 16 * 2**20
ALIGN = 32  # numbers between which a parameter begins in a row: 128 bytes, what a GPU reads at once


@dataclass(frozen=True)
class WeightLayout:
    """Where the parameters lie in a member's row:
    those of one layer-decay depth and kind of decay side by side.

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
    def of(cls, method: methods.Method) -> "WeightLayout":
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
        multiplier, decays: by group, layer decay's factor of the rate, (E,), and whether weight
            decay applies.
        alive: (E,) bool on the device; a member that is not is frozen.
        best, best_buffers: at the best validation, of all members that the pack began with.
        device, dtype, precision: where, dtype of the weights, dtype of matrix products.
        replay: of the step.
    """

    trials: list[Trial]
    places: np.ndarray
    method: methods.Method
    layout: WeightLayout
    rows: Tensor
    gradient: Tensor
    params: dict[str, Tensor]
    buffers: dict[str, Tensor]
    knobs: dict[str, Tensor]
    state: optim.AdamState
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
    by_start: dict[Any, methods.Method] = {}
    for trial in trials:
        key = trial.seed, trial.init_from
        if key not in by_start:
            by_start[key] = _member(trial, task, runs).to(device, dtype)
    members = [by_start[trial.seed, trial.init_from] for trial in trials]
    method = members[0]
    layout = WeightLayout.of(method)
    rows = layout.rows([dict(member.named_parameters()) for member in members])
    buffers = _stack([dict(member.named_buffers()) for member in members])
    knobs = _stack_knobs([methods.knobs(method, dict(trial.knobs)) for trial in trials], device)
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
        multiplier={
            str((depth, decays)): knobs["layer_decay"] ** (method.depths - depth)
            for depth, decays in layout.groups
        },
        decays={str((depth, decays)): decays for depth, decays in layout.groups},
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
    for part, name in trial.init_from:
        method.load(part, store.weights(runs, name, part))
    return method


def _stack(tensors: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([t[name].detach() for t in tensors]) for name in tensors[0]}


def _stack_knobs(knobs: list[dict[str, float]], device: torch.device) -> dict[str, Tensor]:
    return {
        name: torch.tensor(
            [float(member[name]) for member in knobs], dtype=torch.float64, device=device
        )
        for name in knobs[0]
    }


def compact(pack: Pack, members: Sequence[int] | np.ndarray) -> Pack:
    """A pack of some of the members, which go on as if the others were still there.

    `best` stays shared.
    """
    index = torch.as_tensor(np.asarray(members), device=pack.device)

    def select(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: x[index] for name, x in tensors.items()}

    rows = pack.rows[index]
    return replace(
        pack,
        trials=[pack.trials[e] for e in members],
        places=pack.places[np.asarray(members)],
        rows=rows,
        gradient=torch.zeros_like(rows),
        params=pack.layout.params(rows),
        buffers=select(pack.buffers),
        knobs=select(pack.knobs),
        multiplier=select(pack.multiplier),
        alive=pack.alive[index],
        replay=Replay(pack.device),
        state=optim.AdamState(
            pack.state.steps, select(pack.state.first), select(pack.state.second)
        ),
    )


def members_of(pack: Pack, part: slice) -> Pack:
    """Some of the members as views: what is written to them in place is written to the pack.

    It takes no step of its own.
    """
    rows = pack.rows[part]
    return replace(
        pack,
        trials=pack.trials[part],
        places=pack.places[part],
        rows=rows,
        gradient=pack.gradient[part],
        params=pack.layout.params(rows),
        buffers=slice_members(pack.buffers, part),
        knobs=slice_members(pack.knobs, part),
        multiplier=slice_members(pack.multiplier, part),
        alive=pack.alive[part],
    )


def slice_members(tensors: Mapping[str, Tensor], part: slice) -> dict[str, Tensor]:
    """Of tensors with a leading member axis, the members of a part."""
    return {name: x[part] for name, x in tensors.items()}


def parts(members: int, size: int) -> list[slice]:
    """Members cut into parts of `size`, the last one smaller."""
    return [slice(start, min(start + size, members)) for start in range(0, members, size)]


def in_cache(trial: Trial) -> int:
    """How many such members take a step together before a layer's largest result is more
    than a CPU's caches hold.
    """
    return max(1, CPU_BYTES // widest(trial))


def widest(trial: Trial) -> int:
    """Bytes of the largest result of a layer for a batch of one member, in 16 bit."""
    return encodings.of(trial.modality).widest(trial.network, trial.batch)


def keep_best(pack: Pack, better: np.ndarray) -> None:
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


def restore(whole: Pack, state: Mapping[str, Any]) -> Pack:
    """The pack as `state_of` described it, from the pack that it began as."""
    pack = compact(whole, state["places"])
    single = {"rows": pack.rows, "alive": pack.alive, "best": pack.best, "steps": pack.state.steps}
    groups = {
        "buffers": pack.buffers,
        "first": pack.state.first,
        "second": pack.state.second,
        "best_buffers": pack.best_buffers,
    }
    for name, tensor in single.items():
        tensor.copy_(state[name])
    for name, tensors in groups.items():
        for key, tensor in tensors.items():
            tensor.copy_(state[name][key])
    return pack
