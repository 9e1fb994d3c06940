"""The ECG transformer: one token per patch of one lead, lead-major, behind a class token.

Parameter names are the published ones (cls_token, pos_embed, patch_embed.proj, blocks.i.…, norm),
so that published weights load and ours are readable elsewhere. Draws no random number: what drop
path needs comes in as uniforms.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ecgcmr import signals
from ecgcmr.nn.attention import attention, join_heads, split_heads, weights

LEADS = len(signals.LEADS)
EPS = 1e-6  # of every LayerNorm; torch's own default is 1e-5


def positions(width: int, leads: int, times: int) -> Tensor:
    """Fixed 2-D sine-cosine positions behind a zero row for the class token,
    (1, 1 + leads · times, width).

        [sin(t ω), cos(t ω), sin(l ω), cos(l ω)],   ω_i = 10000^(−i / (width / 4)),  i < width / 4

    First half time t, second half lead l. Source: MAE's positions as the authors' models_mae.py
    calls them.
    """
    omega = 10000.0 ** (-torch.arange(width // 4, dtype=torch.float64) / (width / 4))
    lead, time = torch.meshgrid(torch.arange(leads), torch.arange(times), indexing="ij")
    angles = [place.reshape(-1, 1).double() * omega for place in (time, lead)]
    grid = torch.cat([wave for angle in angles for wave in (angle.sin(), angle.cos())], 1)
    return torch.cat([torch.zeros(1, width), grid.float()])[None]


def drop_path(x: Tensor, u: Tensor | None, rate: Tensor | float) -> Tensor:
    """Drop a residual branch of whole samples, x · [u < 1 − rate] / (1 − rate).

    Without `u` nothing drops.

    Args:
        x: (n, tokens, width).
        u: (n,) uniforms in [0, 1).
        rate: share that is dropped; may be a tensor, so that members of a pack differ in it.

    Source: Huang et al. 2016, arXiv:1603.09382.
    """
    if u is None:
        return x
    keep = 1 - (rate.to(u.dtype) if isinstance(rate, Tensor) else rate)
    # Compared in the precision of u and not of x: bfloat16 has 1/256 between neighbours below 1.
    return x * ((u < keep) / keep)[:, None, None].to(x.dtype)


def normed(x: Tensor, norm: nn.LayerNorm, linear: nn.Linear) -> Tensor:
    """`linear(norm(x))` with the norm's scale γ and shift β moved into the layer:
    x̂ (Wγ)ᵀ + (b + Wβ).

    x̂ is long and W is short: scaling W spares two passes over all tokens, four with those of the
    gradient.

    Args:
        x: (n, tokens, width).
        norm: over width.
        linear: from width to out.

    Returns:
        (n, tokens, out).
    """
    plain = F.layer_norm(x, norm.normalized_shape, eps=norm.eps)
    weight, bias = linear.weight * norm.weight, linear.bias + (linear.weight * norm.bias).sum(-1)
    return F.linear(plain, weight, bias)


class PatchEmbed(nn.Module):
    """Patches to tokens; a convolution by name and initialisation,
    a matrix product by computation.
    """

    def __init__(self, width: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(1, width, kernel_size=(1, patch), stride=(1, patch))

    def forward(self, patches: Tensor) -> Tensor:
        """(n, tokens, patch) -> (n, tokens, width)."""
        return F.linear(patches, self.proj.weight.flatten(1), self.proj.bias)


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, norm: nn.LayerNorm) -> Tensor:
        """Of tokens that `norm` normalises first, (n, tokens, width) -> the same."""
        return self.proj(join_heads(attention(*self._split(x, norm))))

    def weights(self, x: Tensor, norm: nn.LayerNorm) -> Tensor:
        """How much each token (row) takes from each (column).

        (n, tokens, width) -> (n, heads, tokens, tokens).
        """
        q, k, _ = self._split(x, norm)
        return weights(q, k)

    def _split(self, x: Tensor, norm: nn.LayerNorm) -> list[Tensor]:
        return [split_heads(part, self.heads) for part in normed(x, norm, self.qkv).chunk(3, -1)]


class Mlp(nn.Module):
    """Two layers with the exact GELU between."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor, norm: nn.LayerNorm) -> Tensor:
        """Of tokens that `norm` normalises first, (n, tokens, width) -> the same."""
        return self.fc2(F.gelu(normed(x, norm, self.fc1)))


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=EPS)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=EPS)
        self.mlp = Mlp(width)

    def forward(
        self, x: Tensor, drops: tuple[Tensor, Tensor] | None = None, rate: Tensor | float = 0.0
    ) -> Tensor:
        """(n, tokens, width) -> the same; `drops` are (n,) uniforms for the two branches."""
        first, second = drops or (None, None)
        x = x + drop_path(self.attn(x, self.norm1), first, rate)
        return x + drop_path(self.mlp(x, self.norm2), second, rate)

    def weights(self, x: Tensor) -> Tensor:
        """How much each token takes from each, (n, tokens, width) -> (n, heads, tokens, tokens)."""
        return self.attn.weights(x, self.norm1)


class ViT(nn.Module):
    """The encoder (paper, section IV-C.1): width 384, 3 layers, 6 heads, patches of (1, 100)."""

    def __init__(
        self,
        width: int,
        depth: int,
        heads: int,
        patch: int,
        times: int,
        *,
        fixed: bool = False,
        norm: bool = True,
        parts: int = 1,
    ) -> None:
        """Build the encoder of `nn.Network`'s sizes for `times` patches per lead.

        With `fixed`, positions are constants (MAE) and not trained. `norm` is a final norm of every
        token (MAE); the methods that pool have their own norm after pooling. A record is encoded in
        `parts` of equal length, each by itself and at the same positions.
        """
        super().__init__()
        self.pos_embed: Tensor
        self.patch, self.times, self.parts = patch, times, parts
        self.cls_token = nn.Parameter(torch.empty(1, 1, width).normal_(std=0.02))
        # A fixed position is a buffer under its published name: an optimiser cannot reach it by
        # mistake.
        if fixed:
            self.register_buffer("pos_embed", positions(width, LEADS, times // parts))
        else:
            self.pos_embed = nn.Parameter(positions(width, LEADS, times // parts))
        self.patch_embed = PatchEmbed(width, patch)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=EPS) if norm else None
        self.apply(truncated_normal)

    def forward(
        self,
        x: Tensor,
        keep: Tensor | None = None,
        drops: Tensor | None = None,
        rate: Tensor | float = 0.0,
    ) -> Tensor:
        """Tokens of an ECG, the class token first.

        Args:
            x: (n, 12, patch · times).
            keep: (n, visible) indices of the tokens to encode; all of them without. Of a record in
                one part only.
            drops: (n, depth, 2) uniforms for drop path; the parts of a record drop together.
            rate: drop-path rate of the last block; it grows linearly from 0 at the first.

        Returns:
            (n, 1 + tokens, width); the first is the mean of the parts' class tokens.
        """
        if self.parts > 1 and drops is not None:
            drops = drops.repeat_interleave(self.parts, 0)
        tokens = self._embed(split(x, self.parts), keep)
        last = max(len(self.blocks) - 1, 1)
        for i, block in enumerate(self.blocks):
            # The first block drops nothing.
            pair = (drops[:, i, 0], drops[:, i, 1]) if i and drops is not None else None
            tokens = block(tokens, pair, rate * (i / last))
        return join(tokens if self.norm is None else self.norm(tokens), self.parts)

    def weights(self, x: Tensor) -> list[Tensor]:
        """The attention of every block for ECGs (n, 12, patch · times).

        Each is (n, heads, 1 + tokens, 1 + tokens). Tokens of different parts take nothing from each
        other; the parts' class tokens count as one, their mean.
        """
        tokens, by_block = self._embed(split(x, self.parts), None), []
        for block in self.blocks:
            # A ModuleList knows no blocks.
            by_block.append(
                join_weights(block.weights(tokens), self.parts)  # type: ignore[operator]
            )
            tokens = block(tokens)
        return by_block

    def _embed(self, x: Tensor, keep: Tensor | None) -> Tensor:
        patches = patchify(x, self.patch)
        places = self.pos_embed[:, 1:].expand(x.shape[0], -1, -1)
        if keep is not None:  # before the embedding: masked patches then cost nothing
            patches, places = gather(patches, keep), gather(places, keep)
        tokens = self.patch_embed(patches) + places
        first = (self.cls_token + self.pos_embed[:, :1]).expand(x.shape[0], -1, -1)
        return torch.cat([first, tokens], 1)


def patchify(x: Tensor, patch: int) -> Tensor:
    """(n, 12, patch · times) -> (n, 12 · times, patch), lead-major."""
    return x.reshape(x.shape[0], -1, patch)


def split(x: Tensor, parts: int) -> Tensor:
    """(n, 12, time) -> (n · parts, 12, time / parts), a record's parts one after the other."""
    if parts == 1:
        return x
    return x.unflatten(-1, (parts, -1)).transpose(1, 2).flatten(0, 1)


def join(tokens: Tensor, parts: int) -> Tensor:
    """Tokens of parts as those of records, lead-major; the class tokens' mean is the first.

    (n · parts, 1 + 12 · t, width) -> (n, 1 + 12 · parts · t, width).
    """
    if parts == 1:
        return tokens
    records = tokens.unflatten(0, (-1, parts))
    first = records[:, :, 0].mean(1, keepdim=True)
    patches = records[:, :, 1:].unflatten(2, (LEADS, -1)).transpose(1, 2).flatten(1, 3)
    return torch.cat([first, patches], 1)


def join_weights(weights: Tensor, parts: int) -> Tensor:
    """Attention within parts as that of records; rows still sum to 1.

    (n · parts, heads, 1 + 12 · t, …) -> (n, heads, 1 + 12 · parts · t, …), square both.
    """
    if parts == 1:
        return weights
    by_part = weights.unflatten(0, (-1, parts)).transpose(1, 2)  # n, heads, parts, from, to

    def record(patches: Tensor) -> Tensor:
        """(n, heads, parts, 12 · t) -> (n, heads, 12 · parts · t), lead-major."""
        return patches.unflatten(-1, (LEADS, -1)).transpose(2, 3).flatten(2)

    patches = by_part[..., 1:, 1:].unflatten(3, (LEADS, -1)).unflatten(5, (LEADS, -1))
    same_part = torch.eye(parts, dtype=weights.dtype, device=weights.device)
    among = torch.einsum("nhpltms,pq->nhlptmqs", patches, same_part).flatten(2, 4).flatten(3)
    to_class = record(by_part[..., 1:, 0])[..., None]
    of_class = record(by_part[..., 0, 1:])[..., None, :] / parts
    corner = by_part[..., :1, :1].mean(2)
    return torch.cat([torch.cat([corner, of_class], -1), torch.cat([to_class, among], -1)], -2)


def gather(tokens: Tensor, index: Tensor) -> Tensor:
    """(n, tokens, width) and (n, k) indices -> (n, k, width)."""
    return tokens.gather(1, index[..., None].expand(-1, -1, tokens.shape[-1]))


def depth_of(name: str, depth: int) -> int:
    """Layer-decay depth of an encoder's parameter: 0 for the stem, i + 1 for block i,
    depth + 1 after the blocks.

    Source: BEiT, arXiv:2106.08254, as the authors' util/lr_decay.py has it.
    """
    words = name.split(".")
    if words[0] == "blocks":
        return int(words[1]) + 1
    return 0 if words[0] in ("cls_token", "pos_embed", "patch_embed") else depth + 1


def truncated_normal(module: nn.Module) -> None:
    """Initialise a linear layer as timm's ViT does: N(0, 0.02) cut at ±2, bias 0."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


def xavier(module: nn.Module) -> None:
    """Initialise a linear layer as MAE does: Xavier uniform (q, k and v as one matrix), bias 0."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
    elif isinstance(module, PatchEmbed):
        nn.init.xavier_uniform_(module.proj.weight.data.flatten(1))
