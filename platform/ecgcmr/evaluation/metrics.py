"""How answers are evaluated: exact statistics in float64, batched over a leading member axis.

The one idea: labels are shared by the members of a pack and outputs are not, so every function
takes outputs (…, n) and targets (n,), and a member whose outputs are not numbers gets NaN while the
others get their scores.
"""

from collections.abc import Sequence

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ecgcmr.errors import InputError


def auroc(scores: Tensor, labels: Tensor, name: str = "label") -> Tensor:
    """Area under the receiver operating characteristic.

    It is the chance that a positive scores above a negative:

        A = [Σ_{positives} rank − P (P + 1) / 2] / (P N)

    Ties share their mean rank (count one half).

    Args:
        scores: (…, n), larger means more likely positive.
        labels: (n,) 0 or 1.
        name: of the label, for the error.

    Returns:
        (…,) in [0, 1], float64.

    Raises:
        InputError: only one class.

    Source: Hanley & McNeil 1982, doi:10.1148/radiology.143.1.7063747.
    """
    positive = _two_classes(labels, name)
    scores = scores.double().contiguous()
    ascending = scores.sort(-1).values
    below = torch.searchsorted(ascending, scores)
    rank = (below + torch.searchsorted(ascending, scores, right=True) + 1).double() / 2
    hits = positive.sum()
    area = (rank[..., positive].sum(-1) - hits * (hits + 1) / 2) / (hits * (~positive).sum())
    return _numbers(area, scores)


def average_precision(scores: Tensor, labels: Tensor, name: str = "label") -> Tensor:
    """Mean over the positives of the precision at their own score: the area under the stepwise
    precision–recall curve.

    Args:
        scores: (…, n), larger means more likely positive.
        labels: (n,) 0 or 1.
        name: of the label, for the error.

    Returns:
        (…,) in [0, 1], float64.

    Raises:
        InputError: only one class.
    """
    positive = _two_classes(labels, name)
    scores = scores.double().contiguous()
    positive_scores = scores[..., positive].contiguous()
    true_positives = positive_scores.shape[-1] - torch.searchsorted(
        positive_scores.sort(-1).values, positive_scores
    )
    called_positive = scores.shape[-1] - torch.searchsorted(scores.sort(-1).values, positive_scores)
    return _numbers((true_positives.double() / called_positive).mean(-1), scores)


def pearson(outputs: Tensor, targets: Tensor, names: Sequence[str] = ()) -> Tensor:
    """Pearson's r of every output with its target, over the rows whose target is known.

    Args:
        outputs: (…, n, k).
        targets: (n, k), NaN where missing.
        names: of the targets, for the error.

    Returns:
        (…, k) in [−1, 1], float64; 0 for a constant output, which orders nobody.

    Raises:
        InputError: a target with fewer than two known values, or with one value only.
    """
    mask, targets = _known(targets, names)
    outputs = outputs.double()
    a = _centre(torch.where(mask, outputs, 0), mask)
    b = _centre(targets, mask)
    size = a.square().sum(-2).sqrt()
    # Rounding leaves a constant a spread of some ulps of its value, and its r would be noise.
    level = torch.where(mask, outputs, 0).abs().amax(-2) * mask.sum(0).sqrt()
    constant = size <= 1e-12 * level
    r = (a * b).sum(-2) / (torch.where(constant, 1, size) * b.square().sum(-2).sqrt())
    # A constant's a is rounding noise: its quotient is replaced and not trusted to be small.
    return _numbers(torch.where(constant, 0, r).clamp(-1, 1), outputs.sum(-1))


def rmse(outputs: Tensor, targets: Tensor, names: Sequence[str] = ()) -> Tensor:
    """Root of the mean squared error per output, over the rows whose target is known.

    Args:
        outputs: (…, n, k), in the unit of the targets.
        targets: (n, k), NaN where missing.
        names: of the targets, for the error.

    Returns:
        (…, k), float64, in the unit of the targets.
    """
    mask, targets = _known(targets, names)
    error = torch.where(mask, outputs.double() - targets, 0)
    return (error.square().sum(-2) / mask.sum(0)).sqrt()


def r2(outputs: Tensor, targets: Tensor, names: Sequence[str] = ()) -> Tensor:
    """Coefficient of determination per output, over the rows whose target is known.

        R² = 1 − Σ (y − ŷ)² / Σ (y − ȳ)²

    Args:
        outputs: (…, n, k).
        targets: (n, k), NaN where missing.
        names: of the targets, for the error.

    Returns:
        (…, k) at most 1, float64.
    """
    mask, targets = _known(targets, names)
    error = torch.where(mask, outputs.double() - targets, 0)
    return 1 - error.square().sum(-2) / _centre(targets, mask).square().sum(-2)


def binary(answers: ArrayLike, probability: ArrayLike, name: str = "label") -> dict[str, float]:
    """Every metric of one member on a disease.

    Args:
        answers: (n,) 0 or 1.
        probability: (n,) of the positive class; accuracy, sensitivity, specificity and F1 cut it at
            one half.
        name: of the label, for the error.

    Returns:
        Shares in [0, 1].

    Raises:
        InputError: only one class.
    """
    labels, scores = torch.as_tensor(answers), torch.as_tensor(probability).double()
    positive, called_positive = _two_classes(labels, name), scores >= 0.5
    true_positives = (called_positive & positive).sum().double()
    return {
        "auroc": float(auroc(scores, labels, name)),
        "auprc": float(average_precision(scores, labels, name)),
        "accuracy": float((called_positive == positive).double().mean()),
        "sensitivity": float(true_positives / positive.sum()),
        "specificity": float((~called_positive & ~positive).sum() / (~positive).sum()),
        "f1": float(2 * true_positives / (called_positive.sum() + positive.sum())),
    }


def regression(answers: ArrayLike, outputs: ArrayLike, columns: Sequence[str]) -> dict[str, float]:
    """Every metric of one member on a group of phenotypes: group means, then r of each phenotype.

    Args:
        answers: (n, k), NaN where missing.
        outputs: (n, k), in the unit of `answers`.
        columns: names of the k phenotypes.

    Raises:
        InputError: a phenotype with fewer than two known values, or with one value only.
    """
    targets, outputs = torch.as_tensor(answers), torch.as_tensor(outputs)
    correlations = pearson(outputs, targets, columns)
    means = {
        "pearson": correlations,
        "rmse": rmse(outputs, targets, columns),
        "r2": r2(outputs, targets, columns),
    }
    group = {metric: float(values.mean()) for metric, values in means.items()}
    return {**group, **{f"pearson:{column}": float(r) for column, r in zip(columns, correlations)}}


def _two_classes(labels: Tensor, name: str) -> Tensor:
    positive = labels == 1
    if not positive.any() or positive.all():
        only = 1 if len(labels) and positive.all() else 0
        raise InputError(
            f"label '{name}': all {len(labels)} rows are {only}; "
            "its metrics need both classes, take a larger cohort"
        )
    return positive


def _known(targets: Tensor, names: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Where targets are known, and the targets with 0 elsewhere."""
    mask = ~targets.isnan()
    values = torch.where(mask, targets.double(), 0)
    low = torch.where(mask, values, torch.inf).amin(0)
    for i in torch.nonzero(low >= torch.where(mask, values, -torch.inf).amax(0))[:, 0].tolist():
        name = names[i] if i < len(names) else f"column {i}"
        raise InputError(
            f"target '{name}': {int(mask[:, i].sum())} known values and no two that differ; "
            "its metrics need two, take a larger cohort"
        )
    return mask, values


def _centre(x: Tensor, mask: Tensor) -> Tensor:
    mean = x.sum(-2, keepdim=True) / mask.sum(0)
    return torch.where(mask, x - mean, 0)


def _numbers(score: Tensor, outputs: Tensor) -> Tensor:
    """NaN for the members whose outputs are not all numbers.

    Sorting puts NaN somewhere, and a score would result.
    """
    bad = ~outputs.isfinite().all(-1)
    return torch.where(bad.reshape(bad.shape + (1,) * (score.dim() - bad.dim())), torch.nan, score)
