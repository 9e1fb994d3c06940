"""AdamW, Adam and the learning-rate schedule for packs: tensors have a leading member axis E,
every rate may differ.

The one idea: the update is elementwise, so members never mix; one that diverges or stops is masked
out and the others do not notice. A single trial is a pack of one. This file does not compute
gradients.

Source: Kingma & Ba 2015, arXiv:1412.6980; Loshchilov & Hutter 2019, arXiv:1711.05101.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class AdamState:
    """What Adam remembers: the number of steps taken and the two moments of every parameter.

    Attributes:
        steps: () float64.
        first, second: by the parameter's name, shaped like it.
    """

    steps: Tensor
    first: dict[str, Tensor]
    second: dict[str, Tensor]


def start(params: Mapping[str, Tensor]) -> AdamState:
    """The state before the first step."""
    device = next(iter(params.values())).device
    first, second = (
        {k: torch.zeros_like(v, requires_grad=False) for k, v in params.items()} for _ in range(2)
    )
    return AdamState(torch.zeros((), dtype=torch.float64, device=device), first, second)


@torch.no_grad()
def step(
    params: Mapping[str, Tensor],
    grads: Mapping[str, Tensor],
    state: AdamState,
    *,
    lr: Tensor,
    weight_decay: Tensor,
    multiplier: Mapping[str, Tensor | float] | None = None,
    decays: Mapping[str, bool] | None = None,
    betas: tuple[float, float] = (0.9, 0.999),
    coupled: bool = False,
    active: Tensor | None = None,
    eps: float = 1e-8,
) -> None:
    """Take one step of AdamW (or, `coupled`, of Adam with L2 decay) in place.

        m ← β₁m + (1−β₁)g,   v ← β₂v + (1−β₂)g²,
        θ ← θ(1 − ηκλ) − ηκ · m/(1−β₁ᵗ) / (√(v/(1−β₂ᵗ)) + ε)

    With `coupled` the decay enters g ← g + λθ instead of the factor of θ.

    Args:
        params: θ by name, (E, …); changed in place.
        grads: g by the same names; every parameter of a method takes part in its loss.
        state: of `start`; changed in place.
        lr: η per member, (E,).
        weight_decay: λ per member, (E,).
        multiplier: κ by name, (E,) or a number; layer decay. 1 where absent.
        decays: by name whether λ applies; yes where absent.
        betas: β₁ and β₂.
        coupled: Adam instead of AdamW.
        active: (E,) bool. Weights of the others stay bit for bit as they are; their moments are
            given up, so a member that was masked out stays out.
        eps: ε.
    """
    state.steps += 1
    # Both corrections enter rate and ε: θ moves by −ηκ √(1−β₂ᵗ)/(1−β₁ᵗ) · m / (√v + ε √(1−β₂ᵗ)).
    # They are tensors, so that a recorded step counts on.
    root = (1 - betas[1] ** state.steps).sqrt()
    correction = root / (1 - betas[0] ** state.steps)
    for k, p in params.items():
        g, m, v = grads[k], state.first[k], state.second[k]
        rate = lr * (multiplier or {}).get(k, 1.0)
        has_decay = (decays or {}).get(k, True)
        if coupled and has_decay:
            g = g + _like(weight_decay, p) * p
        m.lerp_(g, 1 - betas[0])
        v.mul_(betas[1]).addcmul_(g, g, value=1 - betas[1])
        move = m / (v.sqrt() + (eps * root).to(v.dtype))
        move.mul_(_like(-rate * correction, p))
        if has_decay and not coupled:
            move.sub_(_like(rate * weight_decay, p) * p)
        if active is not None:
            move.copy_(torch.where(_like(active, p), move, 0))
        p.add_(move)


def _like(rate: Tensor, x: Tensor) -> Tensor:
    """(E,) -> (E, 1, …) in the dtype of `x` (a mask stays one), to multiply it."""
    rate = rate if rate.dtype == torch.bool else rate.to(x.dtype)
    return rate.reshape(-1, *[1] * (x.dim() - 1))


def schedule(step: Tensor | int, total: Tensor | int, warmup: Tensor | float) -> Tensor:
    """The share of the learning rate that step `step` uses: linear warm-up,
    then half a cosine to zero.

        s < wT:  s / (wT),      else  ½ [1 + cos π (s − wT) / (T − wT)]

    Args:
        step: s, from 0.
        total: T, steps of the whole run.
        warmup: w in [0, 1), the warm-up's share of T. All three broadcast, so (E,) for a pack.

    Returns:
        In [0, 1], float64.

    Source: section IV-C.2; per step and not per epoch as in the authors' util/lr_sched.py.
    """
    device = next((x.device for x in (step, total, warmup) if isinstance(x, Tensor)), None)
    s, t, w = (_double(x, device) for x in (step, total, warmup))
    rise = s / (w * t).clamp(min=1e-9)
    elapsed_share = ((s - w * t) / (t - w * t).clamp(min=1e-9)).clamp(0, 1)
    fall = 0.5 * (1 + torch.cos(torch.pi * elapsed_share))
    return torch.where(s < w * t, rise, fall)


def _double(x: Tensor | float, device: torch.device | None) -> Tensor:
    if isinstance(x, Tensor):
        return x.double()
    # Not `as_tensor` of a number, which a GPU would have to wait for.
    return torch.full((), x, dtype=torch.float64, device=device)


def inertia(step: int, total: int, start: float) -> float:
    """How much of itself a trailing copy keeps at a step: τ = 1 − (1 − τ₀) (cos(π s / T) + 1) / 2,
    rising to 1.

    Source: Grill et al. 2020, arXiv:2006.07733, section 3.2.
    """
    return 1 - (1 - start) * (math.cos(math.pi * step / total) + 1) / 2


@torch.no_grad()
def trail(copies: Sequence[Tensor], leaders: Sequence[Tensor], keep: float) -> None:
    """Move each copy towards its leader in place: ξ ← τ ξ + (1 − τ) θ."""
    torch._foreach_lerp_(list(copies), list(leaders), 1 - keep)
