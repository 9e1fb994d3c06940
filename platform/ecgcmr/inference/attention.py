"""Leads and times of an ECG that a run attends to.

The one idea: a token stays where its lead and time put it, so what the pooling takes from a token
is traced back through the blocks to patches. Passive: nothing here trains.

Source: attention rollout is of Abnar & Zuidema 2020, arXiv:2005.00928.
"""

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from ecgcmr.data import inputs
from ecgcmr.inference.model import Model
from ecgcmr.nn.vit import LEADS
from ecgcmr.runs import check_prepared_alike
from ecgcmr.signals import ecg as signals


@torch.no_grad()
def rollout(model: Model, ecg: np.ndarray) -> np.ndarray:
    """Which leads and times of ECGs the embedding, or the answer, takes its content from: attention
    rollout.

        w = p · Â_L … Â_1,   Â_l = (A_l + I) / 2

    A_l is the attention of block l, averaged over its heads; I is its residual connection. p is
    what pooling takes from each token: the weights of the attention pool of a fine-tuned run,
    averaged over heads, else equal weights. The class token is never pooled; what goes through it
    is left out.

    Args:
        model: with an ECG encoder.
        ecg: (n, 12, 5000) mV, prepared.

    Returns:
        (n, 12, times) float32, summing to 1 over the patches that the encoder sees; patch t is the
        `model.samples` / times samples from t on. 1 / (12 · times) is the average.

    Raises:
        InputError: it has no ECG encoder, or its signals were prepared otherwise.

    Source: Abnar & Zuidema 2020, with this model's pooling in place of the class token. The
        authors' plots shuffle the tokens (mask ratio 0) and so give weights to wrong leads and
        times; here tokens keep their order.
    """
    encoder = model.ecg_encoder
    check_prepared_alike(
        model.run,
        {"ecg": signals.RECIPE},
        ("ecg",),
        where="files are given now",
        advice="give the cohort that it learnt from",
    )
    x = inputs.to_model({"ecg": torch.from_numpy(ecg)})["ecg"][..., : model.samples]
    shares = _pooling(model, x)
    for weights in reversed(encoder.weights(x)):
        shares = (shares @ weights.mean(1) + shares) / 2
    patches = shares[:, 0, 1:]
    return (patches / patches.sum(1, keepdim=True)).unflatten(1, (LEADS, encoder.times)).numpy()


def _pooling(model: Model, x: Tensor) -> Tensor:
    """What pooling takes from each token of ECGs, (n, 1, 1 + tokens), nothing from the class token."""
    tokens = model.ecg_encoder(x)[:, 1:]
    even = tokens.new_full(tokens.shape[:2], 1 / tokens.shape[1])
    shares = even if model.head is None else model.head.attention_pool.weights(tokens).mean(1)
    return F.pad(shares, (1, 0))[:, None]


def table(weights: np.ndarray, patch_s: float) -> pd.DataFrame:
    """Weights (12, times) as rows of `lead`, `start_s`, `end_s`, `weight`; time runs fastest."""
    leads, times = weights.shape
    start = np.tile(np.arange(times) * patch_s, leads)
    names = np.repeat(signals.LEADS, times)
    return pd.DataFrame(
        {
            "lead": names,
            "start_s": start,
            "end_s": start + patch_s,
            "weight": weights.ravel().astype(np.float64),
        }
    )
