"""What an encoder knows before anybody fine-tunes it: linear probes of every pre-training of a search space.

    python benchmarks/studies/probe.py --cohort small/cohort --runs small/runs --space search_spaces/small.py

Embeds all training and validation subjects with each finished encoder (mean token of the ECG encoder, pooled features of the
image encoder; signals not augmented), fits ridge regressions to the phenotypes on the training rows, and prints one line of
JSON: by encoder the mean r per group of phenotypes and of age, sex, height and weight, on the validation rows. Beside it the
canonical correlations between ECG and image embeddings of each MMCL, found on the training rows and measured on the
validation rows, and what they leave of a contrastive loss: I = −½ Σ log(1 − r²) nats, so that loss ≈ log(batch) − I. The
test split is not touched. The penalty is fixed beforehand, so nothing is chosen on the validation rows.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from ecgcmr import presets, store, tasks
from ecgcmr.cohort import dataset, shards
from ecgcmr.data import inputs
from ecgcmr.methods import trunk
from ecgcmr.search import spaces, study
from ecgcmr.training import loop
from ecgcmr.trial import Trial

PENALTY = 100.0  # of standardised features, beside thousands of rows
CANONICAL = 8  # pairs of directions
BATCH = 128


@torch.no_grad()
def embedded(trial: Trial, runs: Path, signals: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Embeddings of all rows by the trial's encoders, (n, width) each, by modality."""
    method, found = loop.build(trial).eval(), {}
    for part in method.parts:
        method.load(part, store.weights(runs, trial.name, part))
        rows = []
        for i in range(0, len(signals[part]), BATCH):
            batch = inputs.to_model(
                {part: torch.from_numpy(np.array(signals[part][i : i + BATCH]))}
            )
            encoder = method.get_submodule(method.parts[part])
            if part == "ecg":
                rows.append(
                    trunk.embed(encoder, batch["ecg"][..., : trial.network.crop], None, 0.0)
                )
            else:
                rows.append(
                    encoder(
                        trunk.cmr_view(trial.network, presets.preset(trial.preset), 0.0)(
                            batch["cmr"], {}
                        ),
                        False,
                    )
                )
        found[part] = torch.cat(rows).double().numpy()
    return found


def standard(train: np.ndarray, val: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both in units of the training rows."""
    mean, sd = train.mean(0), train.std(0) + 1e-9
    return (train - mean) / sd, (val - mean) / sd


def probed(
    train: np.ndarray, val: np.ndarray, known: pd.DataFrame, evaluated: pd.DataFrame
) -> dict[str, float]:
    """Pearson's r on the validation rows by what is asked: groups of phenotypes (mean of r) and demographics."""
    asked = {name: tasks.TASKS[name].columns for name in ("lv", "rv", "wt", "ecc", "err")}
    asked |= {name: (name,) for name in shards.DEMOGRAPHICS}
    found = {}
    for name, columns in asked.items():
        rs = []
        for column in columns:
            y, truth = known[column].to_numpy(float), evaluated[column].to_numpy(float)
            here, there = np.isfinite(y), np.isfinite(truth)
            x, z = standard(train[here], val[there])
            weights = np.linalg.solve(
                x.T @ x + PENALTY * np.eye(x.shape[1]), x.T @ (y[here] - y[here].mean())
            )
            rs.append(float(np.corrcoef(z @ weights, truth[there])[0, 1]))
        found[name] = round(float(np.mean(rs)), 3)
    return found


def canonical(
    train: tuple[np.ndarray, np.ndarray], val: tuple[np.ndarray, np.ndarray]
) -> dict[str, list[float] | float]:
    """Canonical correlations of two embeddings on the validation rows, and the information that they carry [nats]."""
    sides, roots = [], []
    for a, b in zip(train, val):
        x, z = standard(a, b)
        values, vectors = np.linalg.eigh(x.T @ x + PENALTY * np.eye(x.shape[1]))
        roots.append(vectors @ np.diag(values**-0.5) @ vectors.T)
        sides.append((x, z))
    (x, z), (y, w) = sides
    u, _, vt = np.linalg.svd(roots[0] @ (x.T @ y) @ roots[1])
    one, other = z @ roots[0] @ u[:, :CANONICAL], w @ roots[1] @ vt.T[:, :CANONICAL]
    rs = [float(np.corrcoef(one[:, i], other[:, i])[0, 1]) for i in range(CANONICAL)]
    nats = -0.5 * sum(math.log(1 - max(r, 0.0) ** 2) for r in rs)
    return {"r": [round(r, 3) for r in rs], "nats": round(nats, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("cohort", "runs", "space"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args()
    opened = dataset.open(args.cohort)
    rows = {split: opened.rows(split).query("has_ecg and has_cmr") for split in ("train", "val")}
    signals = {split: opened.load(index, ("ecg", "cmr")) for split, index in rows.items()}
    probes: dict[str, Any] = {}
    agreement: dict[str, Any] = {}
    for trial in study.resolved(spaces.load(args.space), args.runs):
        if (
            trial.stage != "pretrain"
            or not (store.folder(args.runs, trial.name) / store.ENCODER).exists()
        ):
            continue
        train, val = (embedded(trial, args.runs, signals[split]) for split in ("train", "val"))
        for part in train:
            probes[f"{trial.system} {part} {trial.configuration}"] = probed(
                train[part], val[part], rows["train"], rows["val"]
            )
        if len(train) == 2:
            pairs = [(of["ecg"], of["cmr"]) for of in (train, val)]
            agreement[f"{trial.system} {trial.configuration}"] = canonical(*pairs)
    line = {
        "benchmark": "probe",
        "train": len(rows["train"]),
        "val": len(rows["val"]),
        "r": probes,
        "canonical": agreement,
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
