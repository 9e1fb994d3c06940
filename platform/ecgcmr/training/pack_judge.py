"""What a pack predicts, and how good that is by the metric that selects.

No weight changes here, and nothing is augmented.
"""

import numpy as np
import torch
from torch import Tensor

from ecgcmr.data import examples
from ecgcmr.data.examples import Scale, Split
from ecgcmr.evaluation import metrics
from ecgcmr.tasks import Task
from ecgcmr.training.pack import CPU_BYTES, Pack, members_of, parts, widest
from ecgcmr.training.pack_step import forward

FORWARD = {"cuda": 4096, "cpu": 512}  # members × subjects evaluated at once, at most


def at_once(pack: Pack) -> int:
    """Members × subjects that are evaluated at once:
    on a CPU as many as its caches hold without a gradient.
    """
    trial = pack.trials[0]
    if pack.device.type != "cpu":
        return FORWARD[pack.device.type]
    return min(FORWARD["cpu"], max(1, 2 * CPU_BYTES * trial.batch // widest(trial)))


@torch.no_grad()
def evaluate(pack: Pack, split: Split, task: Task, scale: Scale) -> Tensor:
    """Predictions of every member on every row, without augmentation, float64 on the device.

    Returns:
        (E, n, 1), the probability of the disease, or (E, n, phenotypes) in their units.
    """
    modality, together = pack.trials[0].modality, at_once(pack)
    members = min(len(pack.trials), together)
    smaller_packs = [members_of(pack, part) for part in parts(len(pack.trials), members)]
    logits_by_rows = []
    for rows in parts(len(split.subjects), together // members):
        batch = examples.batch_of(split, rows, modality, pack.dtype)
        del batch["target"]
        logits_by_rows.append(
            torch.cat(
                [forward(part, batch, {}, None, "logits")[0].double() for part in smaller_packs]
            )
        )
    logits = torch.cat(logits_by_rows, dim=1)
    if task.kind == "binary":
        return logits.softmax(-1)[..., 1:]
    return logits * torch.from_numpy(scale.sd).to(logits) + torch.from_numpy(scale.mean).to(logits)


def judge(predictions: Tensor, split: Split, task: Task) -> np.ndarray:
    """The selecting metric of every member, (E,); NaN where a prediction is not finite."""
    targets = torch.from_numpy(split.answers).to(predictions.device)
    if task.kind == "binary":
        return metrics.auroc(predictions[..., 0], targets[:, 0], task.name).cpu().numpy()
    return metrics.pearson(predictions, targets, task.columns).mean(-1).cpu().numpy()
