"""Scaled-dot-product attention that stays fast for a pack of members.

The one idea: attention has no weights, so members fold into the batch. `torch.func.vmap` has no
rule of its own for `F.scaled_dot_product_attention` and would loop over the members; this operator
brings one. Its solo form is the plain call, so autograd outside vmap is the ordinary one in both.

In bfloat16 on a CPU the plain call is not the fast one: its backward computes in small float32
pieces. Products and a softmax take a fifth to two thirds of its time there, as many samples at once
as a cache holds, and in float32 longer (benchmarks/attention.py).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

CACHE = 8 * 2**20  # bytes of weights that are made at once

torch.library.define("ecgcmr::attention", "(Tensor q, Tensor k, Tensor v) -> Tensor")


@torch.library.impl("ecgcmr::attention", "CompositeImplicitAutograd")
def _solo(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return _attend(q, k, v)


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return written_out(q, k, v) if whole(q) else F.scaled_dot_product_attention(q, k, v)


def whole(q: Tensor) -> bool:
    """Whether the matrix of weights is made as a whole."""
    return q.dtype == torch.bfloat16 and q.device.type == "cpu"


def weights(q: Tensor, k: Tensor) -> Tensor:
    """softmax(q kᵀ / √d), (n, heads, queries, tokens): what `attention` weighs v by,
    for those who want to see it.
    """
    return (q / math.sqrt(q.shape[-1]) @ k.transpose(-2, -1)).softmax(-1)


def written_out(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """`attention` as its formula stands, two products and a softmax, some samples at a time."""
    bytes_each = q.shape[1] * q.shape[2] * k.shape[2] * q.element_size()
    parts = [x.split(max(1, CACHE // bytes_each)) for x in (q, k, v)]
    outputs = [weights(q, k) @ v for q, k, v in zip(*parts)]
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


@torch.library.register_vmap("ecgcmr::attention")
def _pack(info, in_dims: tuple[int | None, ...], *qkv: Tensor) -> tuple[Tensor, int]:
    members = info.batch_size
    by_member = (
        t.expand(members, *t.shape) if d is None else t.movedim(d, 0) for t, d in zip(qkv, in_dims)
    )
    q, k, v = (t.flatten(0, 1) for t in by_member)
    output = _attend(q, k, v)
    return output.reshape(members, -1, *output.shape[1:]), 0


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q kᵀ / √d) v.

    Args:
        q: (n, heads, queries, d).
        k: (n, heads, tokens, d).
        v: (n, heads, tokens, d).

    Returns:
        (n, heads, queries, d).
    """
    return torch.ops.ecgcmr.attention(q, k, v)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(n, tokens, heads · d) -> (n, heads, tokens, d)."""
    return x.reshape(*x.shape[:-1], heads, -1).transpose(-3, -2)


def join_heads(x: Tensor) -> Tensor:
    """(n, heads, tokens, d) -> (n, tokens, heads · d)."""
    return x.transpose(-3, -2).flatten(-2)
