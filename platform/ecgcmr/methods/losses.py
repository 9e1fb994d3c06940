"""Training losses as plain functions: each is the formula in its docstring, which the tests
evaluate with loops.

Contrastive losses see the whole batch however many processes hold it: `gather` collects the
projections with gradient. Under DistributedDataParallel's mean, N processes with B/N rows then have
the gradients of one process with B.
"""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from ecgcmr.runtime import hardware


def mse_patches(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error over all patches, visible and masked, L = mean (x̂ − x)².

    Args:
        prediction: x̂, (n, tokens, patch).
        target: x, shaped like it.

    Source: eq. 2a, which takes the norm over all of x; the authors' code does so too.
    """
    return (hardware.full(prediction) - hardware.full(target)).square().mean()


def ncc(prediction: Tensor, target: Tensor) -> Tensor:
    """Normalised cross-correlation: Pearson's r over time, averaged over records and leads.

    Args:
        prediction: (n, leads, time).
        target: shaped like it.

    Source: the authors' models_mae.py (unbiased variance, 1e-12 added to it).
    """
    prediction, target = hardware.full(prediction), hardware.full(target)
    a, b = (x - x.mean(-1, keepdim=True) for x in (prediction, target))
    steps = a.shape[-1] - 1
    spreads = [(x.square().sum(-1) / steps + 1e-12).sqrt() for x in (a, b)]
    return ((a * b).sum(-1) / steps / (spreads[0] * spreads[1])).mean()


def nt_xent(a: Tensor, b: Tensor, temperature: Tensor | float) -> Tensor:
    """Tell the other view of the same subject from the 2N − 2 views of others.

        L = mean over the 2N views z of  −log [ exp(z·z⁺/τ) / Σ_{z' ≠ z} exp(z·z'/τ) ],    |z| = 1

    Args:
        a: (n, dim) projections of one view, of any length; gathered here from all processes.
        b: of the other view.
        temperature: τ > 0.

    Source: Chen et al. 2020, arXiv:2002.05709, eq. 1.
    """
    z = torch.cat([gather(_unit(a)), gather(_unit(b))])
    n = z.shape[0] // 2
    with torch.autocast(z.device.type, enabled=False):
        logits = z @ z.T / temperature
    # Minus infinity on the diagonal leaves 2N − 1 terms; a view is no negative of itself.
    logits = logits.masked_fill(torch.eye(2 * n, dtype=torch.bool, device=z.device), float("-inf"))
    positive = (z[:n] * z[n:]).sum(-1) / temperature
    return torch.logsumexp(logits, -1).mean() - positive.mean()


def clip(
    signal: Tensor, image: Tensor, temperature: Tensor | float, image_weight: Tensor | float
) -> Tensor:
    """Match each ECG with its own image and each image with its own ECG, contrasting only between
    the modalities.

        L = (1 − λ) mean_k −log softmax_j(s_k·i_j/τ)[k]  +  λ mean_k −log softmax_j(i_k·s_j/τ)[k],
        |s| = |i| = 1

    Args:
        signal: (n, dim) projections of the ECGs, of any length; gathered here from all processes.
        image: of the images.
        temperature: τ > 0.
        image_weight: λ in [0, 1], the weight of the image-anchored direction.

    Source: eqs. 4, 5 and the total loss of section III-B (eq. 6).
    """
    s, i = gather(_unit(signal)), gather(_unit(image))
    with torch.autocast(s.device.type, enabled=False):
        logits = s @ i.T / temperature
    positive = logits.diagonal().mean()
    by_signal = torch.logsumexp(logits, 1).mean() - positive
    by_image = torch.logsumexp(logits, 0).mean() - positive
    return (1 - image_weight) * by_signal + image_weight * by_image


def byol(prediction: Tensor, target: Tensor) -> Tensor:
    """Squared distance between unit vectors, L = mean (2 − 2 p·t), |p| = |t| = 1; one direction of
    BYOL's two.

    Args:
        prediction: (n, dim), of any length.
        target: (n, dim), without gradient.

    Source: Grill et al. 2020, arXiv:2006.07733, eq. 2.
    """
    return (2 - 2 * (_unit(prediction) * _unit(target)).sum(-1)).mean()


def barlow_twins(a: Tensor, b: Tensor, off_diagonal: Tensor | float) -> Tensor:
    """Push the cross-correlation of two views towards the identity.

        L = Σᵢ (1 − Cᵢᵢ)² + λ Σ_{i≠j} Cᵢⱼ²,      C = âᵀ b̂ / n,   ^ = z-score over the batch

    Args:
        a: (n, dim) embeddings of one view; gathered here from all processes. Shift and positive
            scale of a feature do not matter.
        b: of the other view.
        off_diagonal: λ ≥ 0.

    Source: Zbontar et al. 2021, arXiv:2103.03230, eqs. 1 and 2.
    """
    a, b = (_standard(gather(hardware.full(x))) for x in (a, b))
    with torch.autocast(a.device.type, enabled=False):
        c = a.T @ b / a.shape[0]
    on = (1 - c.diagonal()).square().sum()
    return on + off_diagonal * (c.square().sum() - c.diagonal().square().sum())


def _standard(z: Tensor) -> Tensor:
    deviations = z - z.mean(0)
    return deviations / (deviations.square().mean(0) + 1e-5).sqrt()


def retrieval(a: Tensor, b: Tensor) -> Tensor:
    """Share of rows of `a` whose nearest row of `b` is their own, in these rows only: a number to
    watch, no gradient.

    Args:
        a: (n, dim).
        b: (n, dim).
    """
    similarity = _unit(a.detach()) @ _unit(b.detach()).T
    own_rows = torch.arange(a.shape[0], device=a.device)
    return (similarity.argmax(1) == own_rows).to(similarity.dtype).mean()


def _unit(z: Tensor) -> Tensor:
    return F.normalize(hardware.full(z), dim=-1)


def cross_entropy(logits: Tensor, target: Tensor, smoothing: Tensor | float = 0.0) -> Tensor:
    """Cross-entropy with label smoothing, L = mean [(1 − s)(−log p_target) + s · mean over classes
    of −log p].

    Args:
        logits: (n, classes).
        target: (n,) class numbers.
        smoothing: s in [0, 1); a tensor may differ between the members of a pack, which torch's own
            cannot.

    Source: Szegedy et al. 2016, arXiv:1512.00567, section 7.
    """
    surprise = -F.log_softmax(hardware.full(logits), -1)
    hit = surprise.gather(-1, target.long()[:, None])[:, 0]
    return ((1 - smoothing) * hit + smoothing * surprise.mean(-1)).mean()


def masked_mse(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error over the targets that exist; a NaN enters neither numerator nor
    denominator.

    Args:
        prediction: (n, k).
        target: (n, k), z-scored, NaN where missing; without any target the loss is 0.
    """
    has_target = ~target.isnan()
    error = hardware.full(prediction) - torch.where(has_target, target, 0)
    return torch.where(has_target, error, 0).square().sum() / has_target.sum().clamp(min=1)


class _Gather(torch.autograd.Function):
    """All processes' rows in rank order; the backward sums over processes, since each one's loss
    reads every row.
    """

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        grad = grad.contiguous()
        dist.all_reduce(grad)
        return grad.chunk(dist.get_world_size())[dist.get_rank()]


def gather(x: Tensor) -> Tensor:
    """The rows of every process, with gradient; `x` itself where there is one process.

    Args:
        x: (n, dim), equally many rows in each process.

    Returns:
        (processes · n, dim), in the order of the ranks.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return x
    return _Gather.apply(x)
