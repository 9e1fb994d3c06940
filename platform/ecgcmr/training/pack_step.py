"""A step of a pack: which rows and noise its members see, their losses, and the optimiser's move.

The one idea: the step is `vmap` of the method over the member axis with autograd outside, so every
layer is one batched product, and members never mix.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ecgcmr.data import examples, sampler
from ecgcmr.data.examples import Split
from ecgcmr.methods.contract import of_view
from ecgcmr.runtime import cuda_graph, hardware
from ecgcmr.training import optim
from ecgcmr.training.pack import Pack, in_cache, members_of, parts, slice_members
from ecgcmr.trial import Trial


@dataclass(frozen=True)
class Draws:
    """Which rows the members see: one stream per distinct seed, shared by all members of that seed.

    Attributes:
        seeds: the distinct seeds.
        of: member -> place in `seeds`, (E,).
    """

    seeds: tuple[int, ...]
    of: Tensor

    def spread(self, by_seed: list[dict[str, Tensor]]) -> tuple[dict[str, Tensor], int | None]:
        """Per-seed tensors -> (tensors, the member axis that vmap maps over).

        There is no such axis when all members share one draw.
        """
        if len(self.seeds) == 1:
            return by_seed[0], None
        members = {
            name: torch.stack([tensors[name] for tensors in by_seed])[self.of]
            for name in by_seed[0]
        }
        return members, 0


def draws_of(trials: Sequence[Trial], device: torch.device) -> Draws:
    """The streams of a pack."""
    seeds = tuple(dict.fromkeys(trial.seed for trial in trials))
    return Draws(seeds, torch.tensor([seeds.index(trial.seed) for trial in trials], device=device))


def orders(
    draws: Draws, epoch: int, n: int, trials: Sequence[Trial], device: torch.device
) -> list[Tensor]:
    """`sampler.permuted` of every distinct seed, on the device."""
    batch = trials[0].batch
    rows = (sampler.permuted(seed, epoch, n, batch) for seed in draws.seeds)
    return [torch.from_numpy(permutation).to(device) for permutation in rows]


def _noise(pack: Pack, seed: int, step: int, n: int) -> dict[str, Tensor]:
    noise = pack.method.noise(hardware.generator(pack.device, seed, step), n)
    return {
        name: tensor.to(pack.dtype) if tensor.is_floating_point() else tensor
        for name, tensor in noise.items()
    }


class Cast(TorchFunctionMode):
    """Give linear layers and convolutions operands of one dtype, as autocast does outside vmap.

    Under `torch.func.vmap` autocast reaches matrix products but neither F.linear with a bias nor
    F.conv2d, which vmap takes apart first (torch 2.13, tried): a pack would run in float32 and a
    single trial in bfloat16.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Call `function`; the operands of the two are cast first.

        Those of batch norm are cast to its weights' float32.
        """
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
    output: str,
) -> tuple[Tensor, dict[str, Tensor]]:
    """One output of the method for every member, and the buffers afterwards."""

    def forward_member(
        params: Any, buffers: Any, batch: Any, noise: Any, knobs: Any
    ) -> tuple[Tensor, dict[str, Tensor]]:
        tensors = {**params, **buffers}
        outputs = torch.func.functional_call(pack.method, tensors, (batch, noise, knobs))
        return outputs[output], {name: tensors[name] for name in buffers}

    knobs = {name: values.to(pack.dtype) for name, values in pack.knobs.items()}
    with hardware.autocast(pack.device, pack.precision), Cast(pack.precision):
        return torch.func.vmap(forward_member, in_dims=(0, 0, axis, axis, 0))(
            pack.params, pack.buffers, batch, noise, knobs
        )


@functools.cache
def compiled_forward() -> Any:
    """`forward` by torch.compile, anew for every shape of a pack."""
    return torch.compile(forward, dynamic=False)


def advance(
    pack: Pack, rows: Split, draws: Draws, epoch_orders: list[Tensor], now: int, total: int
) -> Tensor:
    """Step `now` of `total` of the whole pack on the rows that `epoch_orders` gives it.

    Returns:
        The losses before the step, (E,); on a GPU overwritten by the next step.
    """
    steps, batch_size = epoch_orders[0].shape
    modality, place = pack.trials[0].modality, now % steps
    batch, axis = draws.spread(
        [examples.batch_of(rows, order[place], modality, pack.dtype) for order in epoch_orders]
    )
    noise, _ = draws.spread([_noise(pack, seed, now, batch_size) for seed in draws.seeds])
    return learn(pack, batch, noise, axis, now, total)


def learn(
    pack: Pack,
    batch: Mapping[str, Tensor],
    noise: Mapping[str, Tensor],
    axis: int | None,
    now: int,
    total: int,
) -> Tensor:
    """`step` number `now` of `total`; recorded and replayed where that pays.

    Batch and noise therefore keep their shapes.
    """
    inputs = {
        **{f"batch.{k}": x for k, x in batch.items()},
        **{f"noise.{k}": x for k, x in noise.items()},
    }
    inputs["now"] = torch.full((), now, dtype=torch.float64, device=pack.device)

    def work(inputs: Mapping[str, Tensor]) -> Tensor:
        batch, noise = (of_view(inputs, kind) for kind in ("batch", "noise"))
        share = optim.schedule(inputs["now"], total, pack.knobs["warmup"])
        return step(pack, batch, noise, axis, share)

    return pack.replay(work, inputs)


def step(
    pack: Pack,
    batch: Mapping[str, Tensor],
    noise: Mapping[str, Tensor],
    axis: int | None,
    share: Tensor,
) -> Tensor:
    """One optimiser step of every member that is alive, kernel by kernel.

    Args:
        pack: changed in place. A member whose loss is not finite is frozen before the step.
        batch: of `Draws.spread`.
        noise: of `Draws.spread`.
        axis: the member axis of both, or none.
        share: of the learning rate by the schedule, (E,).

    Returns:
        The losses before the step, (E,).
    """

    def part_of(tensors: Mapping[str, Tensor], part: slice) -> Mapping[str, Tensor]:
        return tensors if axis is None else slice_members(tensors, part)

    method, members = pack.method, len(pack.trials)
    size = in_cache(pack.trials[0]) if pack.device.type == "cpu" else members
    losses = torch.cat(
        [
            _gradient(members_of(pack, part), part_of(batch, part), part_of(noise, part), axis)
            for part in parts(members, size)
        ]
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
    run_forward = compiled_forward() if cuda_graph.compiled(pack.device) else forward
    losses, buffers = run_forward(pack, batch, noise, axis, "loss")
    # The members share no tensor that needs a gradient: the gradient of the sum is every member's
    # own.
    grads = torch.autograd.grad(losses.sum(), params)
    rows = pack.layout.params(pack.gradient)
    torch._foreach_copy_([rows[name] for name in pack.params], list(grads))
    losses = losses.detach()
    pack.alive &= losses.isfinite()
    _overwrite(pack.alive, buffers, pack.buffers)
    return losses


def _overwrite(mask: Tensor, new: dict[str, Tensor], old: dict[str, Tensor]) -> None:
    """Write `new` over `old` for the members of `mask`."""
    for name, tensor in old.items():
        members = mask.reshape(-1, *[1] * (tensor.dim() - 1))
        tensor.copy_(torch.where(members, new[name], tensor))
