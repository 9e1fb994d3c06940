"""Regions of an image that an ECG resembles: the similarity maps of Figure 6.

The one idea: image encoder and projector are applied as in contrastive learning but for the pooling
between them, so each location of the last feature map gets its own place in the space where the ECG
lies, and a cosine says how near. Passive: nothing here trains.

Source: paper, sections III-C and V-E.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from ecgcmr import store
from ecgcmr.cohort import presence
from ecgcmr.cohort.dataset import Cohort
from ecgcmr.data import inputs
from ecgcmr.errors import InputError
from ecgcmr.methods.mmcl import MMCL
from ecgcmr.nn import load as loading
from ecgcmr.runs import Run, check_prepared_alike
from ecgcmr.signals import SIGNALS
from ecgcmr.training import loop
from ecgcmr.trial import Trial


def load(run: Run) -> MMCL:
    """The method of a finished multimodal pre-training with the weights it kept, projectors
    included, for evaluation.

    Raises:
        InputError: it has diverged, is of another method, or kept no projectors.
    """
    trial, runs = multimodal(run), run.home
    if run.diverged:
        raise InputError(
            f"trial '{run.name}' diverged and left no weights; delete {run.folder} and pre-train "
            "with a lower lr"
        )
    method: MMCL = loop.build(trial)
    for part in method.parts:
        method.load(part, store.weights(runs, run.name, part))
    try:
        projectors = store.weights(runs, run.name, "head")
    except InputError as error:
        raise InputError(
            f"trial '{run.name}' was made before projectors were kept; delete {run.folder} and "
            "pre-train it again "
            "(ecgcmr pretrain)"
        ) from error
    loading.into(method.head, projectors, "head")
    return method.eval()


def multimodal(run: Run) -> Trial:
    """The trial of a multimodal pre-training, whose task names two signals.

    Raises:
        InputError: it is of another method.
    """
    if run.trial.method != "mmcl":
        raise InputError(
            f"trial '{run.name}' is of method '{run.trial.method}'; similarity maps need one of "
            "method 'mmcl'"
        )
    return run.trial


@torch.no_grad()
def maps(method: MMCL, ecg: Tensor, image: Tensor) -> Tensor:
    """Cosine of every local projection of an image and the projection of the whole ECG.

        s_p = z_i^p · z_s / (|z_i^p| |z_s|),   z_i^p = g_i(f_i(x_i)_p),   z_s = g_s(f_s(x_s))

    f_i(x_i)_p is the last feature map of the image encoder at location p, before pooling. Views are
    those of evaluation.

    Args:
        method: trained on these two signals; its batch norms use the statistics they tracked, so
            that a row depends on its own subject alone.
        ecg: x_s, of the method's first signal, as networks read it (`inputs.to_model`), e.g. (n,
            12, time).
        image: x_i, likewise of its second, e.g. (n, 3, side, side).

    Raises:
        InputError: the second signal's encoder has no feature maps.

    Returns:
        (n, h, w) in [−1, 1]; 7 × 7 for 210 pixels. Row 0 is the top of the image.

    Source: section III-C. The authors' code upsamples the map to 14 × 14 before projecting and
        divides the cosine by 0.8; neither is in the text.
    """
    # The image is encoded twice, once for nothing: for a few subjects cheaper than a second way to
    # project an ECG.
    first, second = method.needs
    signal, _ = method.project({first: ecg, second: image}, {})
    view = method.views[second](image, {})
    features = method.encodings[second].maps(method.get_submodule(second), view)
    local = method.head[second](features.movedim(1, -1))
    return F.cosine_similarity(local, signal[:, None, None], dim=-1).clamp(-1, 1)


def maps_for(runs: Sequence[Run], cohort: Cohort, index: pd.DataFrame) -> dict[str, np.ndarray]:
    """Similarity maps of the same subjects by several systems.

    Args:
        runs: multimodal pre-trainings, one per system.
        cohort: the subjects' cohort.
        index: rows of `cohort.rows()` with the signals of every system, a few: all are computed at
            once.

    Returns:
        name -> (n, h, w) float32, in the order of `index`.

    Raises:
        InputError: see `load`; a system learnt from signals prepared otherwise; a row lacks a
            signal.
    """
    pairs = {run.name: multimodal(run).task.split("+") for run in runs}
    needs = list(dict.fromkeys(signal for pair in pairs.values() for signal in pair))
    lacking = index[~presence.has(index, *needs)]
    if len(lacking):
        raise InputError(
            f"{cohort.path}: {len(lacking)} of the {len(index)} chosen rows lack {titles(needs)}; "
            "leave them out"
        )
    for run, pair in zip(runs, pairs.values(), strict=True):
        check_prepared_alike(
            run,
            cohort.recipe,
            pair,
            where=str(cohort.path),
            advice="give the cohort that it learnt from",
        )
    batch = batch_of(cohort.load(index, needs))
    return {
        run.name: maps(load(run), *(batch[signal] for signal in pairs[run.name])).numpy()
        for run in runs
    }


def titles(names: Iterable[str], between: str = " or ") -> str:
    """`ECG or CMR`."""
    return between.join(SIGNALS[name].title for name in names)


def batch_of(arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """What networks read, of signals as shards hold them."""
    return inputs.to_model({signal: torch.from_numpy(values) for signal, values in arrays.items()})
