"""Hand-made finished trials, written through the store as real runs are, for the tests of what reads them."""

import numpy as np
import pandas as pd

from ecgcmr import store
from ecgcmr.trial import Trial

LABELS = ("supervised", "mae", "mmcl-wo-mdm", "mmcl")
METHODS = {"mae": "mae", "mmcl": "mmcl", "simclr": "simclr"}


def curve(steps=6, **columns):
    """A curve as training writes it: validation is measured on every second step only."""
    step = np.arange(steps)
    val = np.where(step % 2 == 0, 0.5 + 0.02 * step, np.nan)
    return pd.DataFrame({"step": step * 10, "epoch": step, "loss": 1 / (1.0 + step), "val_auroc": val, **columns})


def finish(runs, *, label, seed=0, task="af", stage="final", value=0.7, status="finished", take=1.0, space="toy",
           knobs=(("lr", 1e-5),), scores=None, n=240, method="supervised", curve_=None):  # fmt: skip
    """Write one finished trial and return it."""
    trial = Trial(space=space, stage=stage, task=task, label=label, method=method, seed=seed, take=take, knobs=knobs)
    split = "test" if stage == "final" else "val"
    result = store.Finished(
        trial=trial, status=status, scores=scores or ((split, "auroc", value, n),),
        curve=curve() if curve_ is None else curve_, predictions=None, weights={}, epoch=3,
        provenance={"seconds": 1.5, "versions": {"torch": "2.13.0"}, "precision": "float32"},
    )  # fmt: skip
    store.write(runs, result, "cohort-print")
    return trial


def fill(runs, seeds=(0, 1, 2, 3, 4), tasks=("cad", "af", "dm"), skip=()):
    """All systems × tasks × seeds but those in `skip` of (label, task, seed); AUROC rises with the system and seed."""
    for i, label in enumerate(LABELS):
        for j, task in enumerate(tasks):
            for seed in seeds:
                if (label, task, seed) not in skip:
                    finish(runs, label=label, task=task, seed=seed, value=0.60 + 0.03 * i + 0.01 * j + 0.001 * seed)
