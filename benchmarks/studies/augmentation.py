"""What holds multimodal learning up: how far MMCL comes in a few epochs by the share of the pairs that is augmented.

    python benchmarks/studies/augmentation.py --cohort small/cohort --runs small/runs --space search_spaces/small.py

Trains the space's MMCL anew from the same two pre-trained encoders, once for each share, in memory and by the same step as
`ecgcmr pretrain`. Everything else is as the space has it, but the length. The validation pairs are not augmented, so the
losses compare. Prints one line of JSON: by share (1 is the paper's) training and validation loss and validation top-1 after
each validation, and log(batch), the loss of a guess.
"""

import argparse
import itertools
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ecgcmr import presets, store
from ecgcmr.cohort import dataset
from ecgcmr.runtime import hardware
from ecgcmr.search import spaces, study
from ecgcmr.training import loop, pretrain
from ecgcmr.trial import Trial

NEEDS = ("ecg", "cmr")


def shuffled(data: dict[str, Tensor], trial: Trial) -> Iterator[dict[str, Tensor]]:
    """Whole batches, every epoch in another order."""
    n = len(data["ecg"])
    for epoch in itertools.count():
        order = torch.from_numpy(np.random.default_rng([trial.seed, epoch]).permutation(n))
        for first in range(0, n - trial.batch + 1, trial.batch):
            yield {
                name: signals[order[first : first + trial.batch]] for name, signals in data.items()
            }


def trained(
    trial: Trial, runs: Path, opened: dataset.Cohort, data: dict[str, Tensor]
) -> list[dict[str, Any]]:
    """The curve of one training."""
    device = torch.device("cpu")
    run = loop.prepare(
        trial, len(data["ecg"]) // trial.batch, device, hardware.precision("auto", device)
    )
    for part, name in trial.init_from:
        run.method.load(part, store.weights(runs, name, part))
    state = loop.State()
    evaluated = partial(pretrain.validation_batches, opened, NEEDS, trial.batch, device, 0, 1)
    loop.loop(run, shuffled(data, trial), evaluated, state)
    return state.curve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("cohort", "runs", "space"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.0, 0.5, 1.0])
    parser.add_argument("--epochs", type=int, default=10)
    args = parser.parse_args()
    trials = study.resolved(spaces.load(args.space), args.runs)
    (trial, *_) = [
        trial for trial in trials if trial.stage == "pretrain" and trial.system == "mmcl"
    ]
    opened = dataset.open(args.cohort)
    signals = opened.load(pretrain.complete(opened, "train", NEEDS), NEEDS)
    data = {name: torch.from_numpy(np.array(values)) for name, values in signals.items()}
    found: dict[str, Any] = {}
    for share in args.shares:
        name = f"augmented-{share:g}"
        presets.PRESETS[name] = replace(presets.preset(trial.preset), name=name, augment_rate=share)
        short = replace(trial, preset=name, epochs=args.epochs, eval_every=max(1, args.epochs // 5))
        curve = trained(short, args.runs, opened, data)
        found[f"{share:g}"] = {
            key: [round(float(row[key]), 4) for row in curve]
            for key in ("epoch", "train_loss", "val_loss", "val_top1")
        }
    line = {
        "benchmark": "augmentation",
        "trial": trial.name,
        "batch": trial.batch,
        "pairs": len(data["ecg"]),
        "log_batch": round(math.log(trial.batch), 4),
        "by_share": found,
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
