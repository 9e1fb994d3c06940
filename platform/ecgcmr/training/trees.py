"""Trees on age, sex, height and weight: the paper's tabular baseline, and the only door of XGBoost.

The one idea: four numbers are a modality. A trial of trees takes its rows from `examples`, is judged by the same metrics
and leaves the same folder as a network's, so that grids, seeds and tables need not know which is which. Trees differ in
two ways: they see all rows at once (`batch=0`), and a boosting round is their step. This file chooses nothing to run.
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

# Defaults: the middle of the paper's grid (section IV-D.1); of its depths 3 to 8 the one that is XGBoost's own.
KNOBS: dict[str, float] = {"rounds": 100, "max_depth": 6, "lr": 0.2, "subsample": 0.75}
WHOLE = ("rounds", "max_depth")


def check(trial: Trial) -> None:
    """Refuse a trial that trees could not run.

    Raises:
        InputError: not tabular, with a start, in batches or epochs, or with a knob that is unknown or out of range.
    """
    if trial.modality != MODALITY:
        raise unknown(
            f"modality of '{trial.name}' with method '{METHOD}'", trial.modality, (MODALITY,)
        )
    if trial.starts:
        raise InputError(f"start of '{trial.name}': trees start from nothing; leave 'starts' empty")
    if trial.batch != 0 or trial.epochs != 1:
        raise InputError(
            f"batch={trial.batch}, epochs={trial.epochs} of '{trial.name}': trees see all rows at once; use batch=0, "
            "epochs=1 and the knob 'rounds'"
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
class Table:
    """The rows of one split.

    Attributes:
        subjects: pseudonyms, (n,).
        features: FEATURES in years, 0/1, cm and kg, (n, 4) float32, NaN where missing.
        answers: as in the cohort, in units, (n, columns) float64, NaN where missing.
        target: what the trees fit: 0/1, or z-scored by training statistics, (n, columns) float32, NaN where missing.
    """

    subjects: np.ndarray
    features: np.ndarray
    answers: np.ndarray
    target: np.ndarray


def table(index: pd.DataFrame, task: Task, scale: Scale) -> Table:
    """The rows of an index as numbers; no signal is read."""
    features = index[list(FEATURES)].to_numpy(dtype=np.float32, na_value=np.nan)
    features = np.where(np.isfinite(features), features, np.nan)  # XGBoost refuses infinity
    given = examples.answers(index, task)
    return Table(
        index["subject"].to_numpy(),
        features,
        given,
        ((given - scale.mean) / scale.sd).astype(np.float32),
    )


def grow(
    knobs: Mapping[str, float], seed: int, task: Task, train: Table, val: Table
) -> tuple[list["xgboost.Booster"], pd.DataFrame]:
    """Boost the trees of every column of a task, each on the rows where its target is known.

    Binary tasks minimise the cross-entropy, regressions the squared error of z-scored targets (section IV-D.1), by the
    histogram method, on one thread: packs run side by side, and the sums do not depend on the machine's cores.

    Args:
        knobs: every one of KNOBS.
        seed: of the row draws; without effect where `subsample` is 1.
        task: decides the loss.
        train, val: every column has a known target in both.

    Returns:
        One booster per column, and the curve: `step` is the number of rounds so far, and a round sees every row, so
        `epoch` counts rounds from 0. `train_loss` and `val_loss` are means over all known targets.

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
        sides = [(_known(side, column), name) for side, name in ((train, "train"), (val, "val"))]
        seen: dict[str, Any] = {}
        learnt, options = sides[0][0], {"evals": sides, "evals_result": seen, "verbose_eval": False}
        forest.append(xgboost.train(parameters, learnt, rounds, **options))
        losses.append([seen[name][metric] for _, name in sides])
        counts.append([[matrix.num_row()] * rounds for matrix, _ in sides])
    means = np.average(np.array(losses) ** (1 if binary else 2), axis=0, weights=counts)
    step = np.arange(1, rounds + 1)
    return forest, pd.DataFrame(
        {"step": step, "epoch": step - 1, "train_loss": means[0], "val_loss": means[1]}
    )


def _known(side: Table, column: int) -> "xgboost.DMatrix":
    import xgboost

    known = np.isfinite(side.target[:, column])
    return xgboost.DMatrix(side.features[known], side.target[known, column], nthread=1)


def answer(forest: Sequence["xgboost.Booster"], features: np.ndarray, scale: Scale) -> np.ndarray:
    """Answers on rows of features.

    Returns:
        (n, columns) float64: the probability of the disease, or the phenotypes in their units.
    """
    import xgboost

    matrix = xgboost.DMatrix(features, nthread=1)
    found = np.stack([booster.predict(matrix) for booster in forest], axis=1).astype(np.float64)
    return found * scale.sd + scale.mean


def fit(
    trials: Sequence[Trial], cohort: Cohort, runs: Path, progress: store.Progress | None = None
) -> list[store.Finished]:
    """Train tabular trials one after the other and write each one's folder as soon as it has ended; `finetune.fit` calls it.

    Args:
        trials: of one task, stage and `take`; checked.
        cohort: of `dataset.open`; only its index is read.
        runs: the folder of runs.
        progress: told how many trials are done.

    Raises:
        InputError: a missing column, a label with one class, a phenotype that cannot be judged.
    """
    first = trials[0]
    task = tasks.of(first.task, (first.task,))
    rows = examples.rows_of(cohort, first, task)
    train, val = (table(index, task, rows.scale) for index in (rows.train, rows.val))
    examples.scores(
        val.answers, np.zeros_like(val.answers), task
    )  # what cannot be judged is refused before it learns
    results = []
    for done, trial in enumerate(trials, 1):
        begun = time.monotonic()
        forest, curve = grow({**KNOBS, **dict(trial.knobs)}, trial.seed, task, train, val)
        splits = {"val": val}
        if trial.stage == "final":  # the only place where test rows are read
            index = examples.answerable(cohort, task, MODALITY, "test")
            store.log_test_read(runs, trial.name, len(index))
            splits["test"] = table(index, task, rows.scale)
        answers = {
            split: answer(forest, side.features, rows.scale) for split, side in splits.items()
        }
        notes = {**rows.notes, **_provenance(splits, time.monotonic() - begun, cohort)}
        results.append(_result(trial, task, splits, answers, curve, notes))
        store.write(runs, results[-1], cohort.fingerprint)
        if progress:
            progress.update(done)
    return results


def _provenance(splits: Mapping[str, Table], seconds: float, cohort: Cohort) -> dict[str, Any]:
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
    splits: Mapping[str, Table],
    answers: Mapping[str, np.ndarray],
    curve: pd.DataFrame,
    notes: dict[str, Any],
) -> store.Finished:
    """What a trial leaves behind; no weights, since nothing starts from trees and they can be grown again."""
    rows: list[tuple[str, str, float, int]] = []
    for split, found in answers.items():
        values = examples.scores(splits[split].answers, found, task)
        rows += [(split, name, value, len(found)) for name, value in values.items()]
    kept = next(value for split, name, value, _ in rows if (split, name) == ("val", task.metric))
    tables = [
        examples.predictions(split, splits[split].subjects, splits[split].answers, found, task)
        for split, found in answers.items()
    ]
    last = np.where(
        curve.step == len(curve), kept, np.nan
    )  # all rounds are kept: validation judges the whole forest
    return store.Finished(
        trial=trial,
        status="finished",
        scores=tuple(rows),
        curve=curve.assign(**{f"val_{task.metric}": last}),
        predictions=pd.concat(tables, ignore_index=True),
        weights={},
        epoch=int(curve.epoch.iloc[-1]),
        provenance=notes,
    )
