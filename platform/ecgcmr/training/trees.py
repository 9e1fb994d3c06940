"""Trees on age, sex, height and weight: the paper's tabular baseline, and the only door of XGBoost.

The one idea: four numbers are a modality. A trial of trees takes its rows from `examples`, is
evaluated by the same metrics and leaves the same folder as a network's, so that grids, seeds and
tables need not know which is which. Trees differ in two ways: they see all rows at once
(`batch=0`), and a boosting round is their step. This file chooses nothing to run.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from ecgcmr import store, tasks
from ecgcmr.cohort import shards
from ecgcmr.data import examples
from ecgcmr.data.examples import Cohort, Scale
from ecgcmr.errors import InputError, unknown
from ecgcmr.runtime import hardware
from ecgcmr.tasks import Task
from ecgcmr.trial import Trial

if TYPE_CHECKING:
    import xgboost

METHOD = "xgboost"  # the word in a trial's field `method`
MODALITY = "tabular"
FEATURES = shards.DEMOGRAPHICS  # age, sex, height, weight (section IV-D.1)

# Defaults: the middle of the paper's grid (section IV-D.1); of its depths 3 to 8 the one that is
# XGBoost's own.
KNOBS: dict[str, float] = {"rounds": 100, "max_depth": 6, "lr": 0.2, "subsample": 0.75}
WHOLE = ("rounds", "max_depth")


def check(trial: Trial) -> None:
    """Refuse a trial that trees could not run.

    Raises:
        InputError: not tabular, with a start, in batches or epochs, or with a knob that is unknown
        or out of range.
    """
    if trial.modality != MODALITY:
        raise unknown(
            f"modality of '{trial.name}' with method '{METHOD}'", trial.modality, (MODALITY,)
        )
    if trial.init_from:
        raise InputError(
            f"start of '{trial.name}': trees start from nothing; leave 'init_from' empty"
        )
    if trial.batch != 0 or trial.epochs != 1:
        raise InputError(
            f"batch={trial.batch}, epochs={trial.epochs} of '{trial.name}': trees see all rows at "
            "once; use batch=0, epochs=1 and the knob 'rounds'"
        )
    for name, value in trial.knobs:
        if name not in KNOBS:
            raise unknown(f"knob of '{trial.name}'", name, KNOBS)
        if name in WHOLE and (value < 1 or not float(value).is_integer()):
            raise InputError(
                f"knob {name}={value:g} of '{trial.name}': must be a whole number, at least 1"
            )
        if name not in WHOLE and not 0 < value <= 1:
            raise InputError(f"knob {name}={value:g} of '{trial.name}': must lie in (0, 1]")


@dataclass(frozen=True)
class TabularSplit:
    """The rows of one split.

    Attributes:
        subjects: pseudonyms, (n,).
        features: FEATURES in years, 0/1, cm and kg, (n, 4) float32, NaN where missing.
        targets: as in the cohort, in units, (n, columns) float64, NaN where missing.
        labels: what the trees fit: 0/1, or targets z-scored by training statistics, (n, columns)
            float32, NaN where missing.
    """

    subjects: np.ndarray
    features: np.ndarray
    targets: np.ndarray
    labels: np.ndarray


def tabular_split(index: pd.DataFrame, task: Task, scale: Scale) -> TabularSplit:
    """The rows of an index as numbers; no signal is read."""
    features = index[list(FEATURES)].to_numpy(dtype=np.float32, na_value=np.nan)
    features = np.where(np.isfinite(features), features, np.nan)  # XGBoost refuses infinity
    targets = examples.answers(index, task)
    labels = ((targets - scale.mean) / scale.sd).astype(np.float32)
    return TabularSplit(index["subject"].to_numpy(), features, targets, labels)


def grow(
    knobs: Mapping[str, float], seed: int, task: Task, train: TabularSplit, val: TabularSplit
) -> tuple[list["xgboost.Booster"], pd.DataFrame]:
    """Boost the trees of every column of a task, each on the rows where its target is known.

    Binary tasks minimise the cross-entropy, regressions the squared error of z-scored targets
    (section IV-D.1), by the histogram method, on one thread: packs run side by side, and the sums
    do not depend on the machine's cores.

    Args:
        knobs: every one of KNOBS.
        seed: of the row draws; without effect where `subsample` is 1.
        task: decides the loss.
        train, val: every column has a known target in both.

    Returns:
        One booster per column, and the curve: `step` is the number of rounds so far, and a round
        sees every row, so `epoch` counts rounds from 0. `train_loss` and `val_loss` are means over
        all known targets.

    Source: Chen & Guestrin 2016, doi:10.1145/2939672.2939785.
    """
    import xgboost

    binary, rounds = task.kind == "binary", int(knobs["rounds"])
    objective, metric = ("binary:logistic", "logloss") if binary else ("reg:squarederror", "rmse")
    parameters = {
        "objective": objective,
        "eval_metric": metric,
        "tree_method": "hist",
        "device": "cpu",
        "nthread": 1,
        "seed": seed,
        "verbosity": 0,
        "max_depth": int(knobs["max_depth"]),
        "learning_rate": knobs["lr"],
        "subsample": knobs["subsample"],
    }
    forest, losses, counts = [], [], []
    for column in range(len(task.columns)):
        matrices = {"train": _matrix(train, column), "val": _matrix(val, column)}
        losses_by_split: dict[str, Any] = {}  # which XGBoost fills
        booster = xgboost.train(
            parameters,
            matrices["train"],
            rounds,
            evals=[(matrix, name) for name, matrix in matrices.items()],
            evals_result=losses_by_split,
            verbose_eval=False,
        )
        forest.append(booster)
        losses.append([losses_by_split[name][metric] for name in matrices])
        counts.append([[matrix.num_row()] * rounds for matrix in matrices.values()])
    means = np.average(np.array(losses) ** (1 if binary else 2), axis=0, weights=counts)
    step = np.arange(1, rounds + 1)
    return forest, pd.DataFrame(
        {"step": step, "epoch": step - 1, "train_loss": means[0], "val_loss": means[1]}
    )


def _matrix(split: TabularSplit, column: int) -> "xgboost.DMatrix":
    """The rows whose label of a column is known, as XGBoost reads them."""
    import xgboost

    rows = np.isfinite(split.labels[:, column])
    return xgboost.DMatrix(split.features[rows], split.labels[rows, column], nthread=1)


def predict(forest: Sequence["xgboost.Booster"], features: np.ndarray, scale: Scale) -> np.ndarray:
    """Predictions on rows of features.

    Returns:
        (n, columns) float64: the probability of the disease, or the phenotypes in their units.
    """
    import xgboost

    matrix = xgboost.DMatrix(features, nthread=1)
    columns = np.stack([booster.predict(matrix) for booster in forest], axis=1)
    return columns.astype(np.float64) * scale.sd + scale.mean


def fit(
    trials: Sequence[Trial], cohort: Cohort, runs: Path, progress: store.Progress | None = None
) -> list[store.Finished]:
    """Train tabular trials in turn and write each one's folder as soon as it has ended.

    `finetune.fit` calls it.

    Args:
        trials: of one task, stage and `label_fraction`; checked.
        cohort: of `dataset.open`; only its index is read.
        runs: the folder of runs.
        progress: told how many trials are done.

    Raises:
        InputError: a missing column, a label with one class, a phenotype that cannot be evaluated.
    """
    first = trials[0]
    task = tasks.of(first.task, (first.task,))
    rows = examples.rows_of(cohort, first, task)
    train, val = (tabular_split(index, task, rows.scale) for index in (rows.train, rows.val))
    # What cannot be evaluated is refused before it learns.
    examples.scores(val.targets, np.zeros_like(val.targets), task)
    results = []
    for number, trial in enumerate(trials, 1):
        start_s = time.monotonic()
        forest, curve = grow({**KNOBS, **dict(trial.knobs)}, trial.seed, task, train, val)
        splits = {"val": val}
        if trial.stage == "evaluation":  # the only place where test rows are read
            index = examples.answerable(cohort, task, MODALITY, "test")
            store.log_test_read(runs, trial.name, len(index))
            splits["test"] = tabular_split(index, task, rows.scale)
        predictions = {
            name: predict(forest, split.features, rows.scale) for name, split in splits.items()
        }
        notes = {**rows.notes, **_provenance(splits, time.monotonic() - start_s, cohort)}
        results.append(_result(trial, task, splits, predictions, curve, notes))
        store.write(runs, results[-1], cohort.fingerprint)
        if progress:
            progress.update(number)
    return results


def _provenance(
    splits: Mapping[str, TabularSplit], seconds: float, cohort: Cohort
) -> dict[str, Any]:
    import xgboost

    machine = hardware.provenance(torch.device("cpu"), torch.float32)
    return {
        **machine,
        "versions": {**machine["versions"], "xgboost": xgboost.__version__},
        "threads": 1,
        "cohort": cohort.provenance,
        "seconds": round(seconds, 3),
        "pack_size": 1,
        "test_reads": list(splits).count("test"),
    }


def _result(
    trial: Trial,
    task: Task,
    splits: Mapping[str, TabularSplit],
    predictions: Mapping[str, np.ndarray],
    curve: pd.DataFrame,
    notes: dict[str, Any],
) -> store.Finished:
    """What a trial leaves behind.

    No weights, since nothing starts from trees and they can be grown again.
    """
    rows: list[tuple[str, str, float, int]] = []
    tables = []
    for name, outputs in predictions.items():
        split = splits[name]
        scores = examples.scores(split.targets, outputs, task)
        rows += [(name, metric, score, len(outputs)) for metric, score in scores.items()]
        tables.append(examples.predictions(name, split.subjects, split.targets, outputs, task))
    val_score = next(
        score for name, metric, score, _ in rows if (name, metric) == ("val", task.metric)
    )
    # All rounds are kept: validation judges the whole forest.
    val_curve = np.where(curve.step == len(curve), val_score, np.nan)
    return store.Finished(
        trial=trial,
        status="finished",
        scores=tuple(rows),
        curve=curve.assign(**{f"val_{task.metric}": val_curve}),
        predictions=pd.concat(tables, ignore_index=True),
        weights={},
        epoch=int(curve.epoch.iloc[-1]),
        provenance=notes,
    )
