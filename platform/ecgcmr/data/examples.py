"""Which subjects a trial learns from and is evaluated on, their answers and scores, and their
signals on the device.

The one idea: the rows are fixed before any training. Balanced sets and their nested parts are drawn
once, from one seed that belongs to no trial, so every system, seed and pack size sees the same
people. This file does not train.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ecgcmr import tasks
from ecgcmr.cohort import follow_up, presence
from ecgcmr.data import inputs
from ecgcmr.errors import InputError
from ecgcmr.evaluation import metrics
from ecgcmr.tasks import Task
from ecgcmr.trial import Trial

BALANCE = (
    2023  # seed of the static draw of negatives and of the nested subsets; the same for every trial
)
FEWEST = 2  # subjects of either class, in every split
CHUNK = 256  # subjects normalised at once


class Cohort(Protocol):
    """What fit asks of a cohort; `dataset.Cohort` is one."""

    @property
    def path(self) -> Path:
        """Its folder."""

    @property
    def fingerprint(self) -> str:
        """A hash of its content."""

    @property
    def recipe(self) -> dict[str, Any]:
        """How its signals were prepared."""

    @property
    def provenance(self) -> dict[str, Any]:
        """What every result made from it keeps of it."""

    def rows(self, split: str | None = None) -> pd.DataFrame:
        """The index of a split, in file order."""

    def load(self, index: pd.DataFrame, columns: Sequence[str] = ("ecg",)) -> dict[str, np.ndarray]:
        """The signals of those rows."""


@dataclass(frozen=True)
class TrainingRows:
    """The rows a trial trains on, and what to say about them."""

    index: pd.DataFrame
    notes: dict[str, Any]


def answerable(cohort: Cohort, task: Task, modality: str, split: str) -> pd.DataFrame:
    """The rows of a split that have the modality and an answer: the label, or any of the
    phenotypes.

    Raises:
        InputError: a column is missing or not 0/1, or one class is all there is.
    """
    rows = cohort.rows(split)
    absent = [name for name in task.columns if name not in rows.columns]
    if absent:
        raise InputError(
            f"{cohort.path}: no column '{absent[0]}', which task '{task.name}' needs; rebuild "
            "with --labels"
        )
    if times := {*task.columns} & {*follow_up.columns(rows.columns)}:
        raise InputError(
            f"{cohort.path}: column '{min(times)}' is of follow-up and no label; no task learns it"
        )
    rows = rows[presence.has(rows, modality)]
    rows = rows[np.isfinite(answers(rows, task)).any(axis=1)]
    if task.kind == "binary":
        _check_classes(cohort, task, modality, split, answers(rows, task)[:, 0])
    elif len(rows) < FEWEST:
        raise InputError(
            f"{cohort.path}: {len(rows)} rows of '{split}' have a phenotype of task '{task.name}'"
        )
    return rows


def _check_classes(
    cohort: Cohort, task: Task, modality: str, split: str, labels: np.ndarray
) -> None:
    invalid = set(np.unique(labels)) - {0.0, 1.0}
    if invalid:
        raise InputError(
            f"{cohort.path}: column '{task.columns[0]}' holds {min(invalid):g}; a label is 0, 1 "
            "or empty"
        )
    positive, negative = int((labels == 1).sum()), int((labels == 0).sum())
    if min(positive, negative) < FEWEST:
        raise InputError(
            f"{cohort.path}: column '{task.columns[0]}' has {positive} positives and {negative} "
            "negatives with "
            f"{modality} data in split '{split}'; at least {FEWEST} of either are needed"
        )


def answers(rows: pd.DataFrame, task: Task) -> np.ndarray:
    """(n, columns) float64, NaN where missing."""
    columns = [rows[name].to_numpy(dtype=np.float64, na_value=np.nan) for name in task.columns]
    return np.stack(columns, axis=1)


def training_rows(cohort: Cohort, trial: Trial) -> TrainingRows:
    """The balanced training set of a trial, or the nested part of it that `label_fraction` asks
    for.

    Binary: all positives and as many negatives, drawn once and for all (section IV-B). A smaller
    `label_fraction` is contained in every larger one and keeps the balance (section V-D).
    Regression: every row with a phenotype.

    Returns:
        The rows in file order. The notes of a binary task tell the `prevalence`, the share of
        positives before the balancing, and the `trained_prevalence`, that among the kept rows.

    Raises:
        InputError: see `answerable`; or `label_fraction` leaves a class, or a regression, without a
            single row.
    """
    task = tasks.of(trial.task, (trial.task,))
    rows = answerable(cohort, task, trial.modality, "train")
    draw = np.random.default_rng(BALANCE)
    if task.kind == "binary":
        labels = answers(rows, task)[:, 0]
        strata = [draw.permutation(np.flatnonzero(labels == value)) for value in (1, 0)]
        per_class = min(
            map(len, strata)
        )  # of a label that most people have, it is the negatives that are all taken
        strata = [part[:per_class] for part in strata]
    else:
        strata = [draw.permutation(len(rows))]
    subsets = [part[: round(trial.label_fraction * len(part))] for part in strata]
    if not len(subsets[0]):  # both classes are equally many
        noun = "positives" if task.kind == "binary" else "rows with a phenotype"
        raise InputError(
            f"{cohort.path}: label_fraction={trial.label_fraction:g} leaves 0 of {len(strata[0])} "
            f"{noun} of '{task.name}' in the training "
            "rows; at least 1 is needed; use a larger label_fraction or cohort"
        )
    notes: dict[str, Any] = {
        "n_train": sum(map(len, subsets)),
        "n_train_full": sum(map(len, strata)),
    }
    if task.kind == "binary":
        notes |= {
            "prevalence": float(labels.mean()),
            "trained_prevalence": len(subsets[0]) / notes["n_train"],
        }
    return TrainingRows(rows.iloc[np.sort(np.concatenate(subsets))], notes)


@dataclass(frozen=True)
class Split:
    """The rows of one split on the device.

    Attributes:
        subjects: pseudonyms, (n,).
        signals: as `inputs.held` holds them.
        answers: as in the cohort, in units, (n, columns) float64, NaN where missing.
        target: what the loss sees: (n,) long, or (n, columns) z-scored by training statistics.
    """

    subjects: np.ndarray
    signals: Tensor
    answers: np.ndarray
    target: Tensor


@dataclass(frozen=True)
class Scale:
    """Mean and standard deviation of the answers in the training rows; (0, 1) for classes."""

    mean: np.ndarray
    sd: np.ndarray


def scale_of(true_values: np.ndarray, task: Task, path: Path) -> Scale:
    """Statistics that z-score a regression's targets.

    Raises:
        InputError: a phenotype has no value or no spread in the training rows.
    """
    if task.kind == "binary":
        return Scale(np.zeros(1), np.ones(1))
    known_counts = np.isfinite(true_values).sum(0)
    for name, count in zip(task.columns, known_counts):
        if count < FEWEST:
            raise InputError(
                f"{path}: column '{name}' has {count} values in the training rows; at least "
                f"{FEWEST} are needed"
            )
    mean, sd = np.nanmean(true_values, 0), np.nanstd(true_values, 0)
    if not (sd > 0).all():
        raise InputError(
            f"{path}: column '{task.columns[int(np.argmin(sd))]}' has one value in all training "
            "rows"
        )
    return Scale(mean, sd)


@dataclass(frozen=True)
class Rows:
    """What a trial is settled on before any signal is read.

    Attributes:
        train, val: rows of the index.
        scale: of the answers in `train`.
        notes: what provenance says about them.
    """

    train: pd.DataFrame
    val: pd.DataFrame
    scale: Scale
    notes: dict[str, Any]


def rows_of(cohort: Cohort, trial: Trial, task: Task) -> Rows:
    """The training and validation rows of a trial.

    Raises:
        InputError: see `training_rows`, `answerable` and `scale_of`; for an evaluation trial also
            about the test split.
    """
    training = training_rows(cohort, trial)
    scale = scale_of(answers(training.index, task), task, cohort.path)
    val = answerable(cohort, task, trial.modality, "val")
    if trial.stage == "evaluation":
        answerable(
            cohort, task, trial.modality, "test"
        )  # counts only: better refused now than after hours
    n = len(training.index)
    notes = {
        **training.notes,
        "n_val": len(val),
        "batch": min(trial.batch or n, n),
        "balance_seed": BALANCE,
    }
    if n < trial.batch:
        notes["batch_note"] = (
            f"the training set is smaller than batch={trial.batch}: every step sees all of it"
        )
    if task.kind == "regression":
        notes |= {"target_mean": scale.mean.tolist(), "target_sd": scale.sd.tolist()}
    return Rows(training.index, val, scale, notes)


def scores(true_values: np.ndarray, model_outputs: np.ndarray, task: Task) -> dict[str, float]:
    """Every metric of a task.

    Args:
        true_values: answers of the cohort, (n, columns) in units, NaN where missing.
        model_outputs: answers of a model, (n, columns): the probability of the disease, or
            phenotypes in their units.
        task: decides the metrics.

    Raises:
        InputError: one class only, or a phenotype without two values that differ.
    """
    if task.kind == "binary":
        return metrics.binary(true_values[:, 0], model_outputs[:, 0], task.name)
    return metrics.regression(true_values, model_outputs, task.columns)


def predictions(
    split: str, subjects: np.ndarray, true_values: np.ndarray, model_outputs: np.ndarray, task: Task
) -> pd.DataFrame:
    """The table of `store.Finished.predictions` for one split; arguments as for `scores`,
    `subjects` (n,).
    """
    columns: dict[str, Any] = {"split": split, "subject": subjects}
    columns |= {
        f"target:{name}": true_values[:, i].astype(np.float32)
        for i, name in enumerate(task.columns)
    }
    columns |= {
        f"output:{name}": model_outputs[:, i].astype(np.float32)
        for i, name in enumerate(task.columns)
    }
    return pd.DataFrame(columns)


def bring(
    cohort: Cohort,
    index: pd.DataFrame,
    task: Task,
    modality: str,
    scale: Scale,
    device: torch.device,
    shelf: str = "",
) -> Split:
    """Load rows to the device; a named `shelf` keeps their signals there for the next pack of this
    process.
    """
    true_values = answers(index, task)
    key = (cohort.fingerprint, modality, shelf, str(device))
    signals = (
        _SHELVES[key] if shelf and key in _SHELVES else _signals(cohort, index, modality, device)
    )
    if shelf:
        _SHELVES.pop(key, None)
        _SHELVES[key] = signals
        for old in list(_SHELVES)[:-SHELF_COUNT]:
            del _SHELVES[old]
    target = (
        true_values[:, 0].astype(np.int64)
        if task.kind == "binary"
        else (true_values - scale.mean) / scale.sd
    )
    return Split(
        index["subject"].to_numpy(), signals, true_values, torch.from_numpy(target).to(device)
    )


# Signals on the device, by cohort and rows: the packs of one process mostly ask for the same (a
# Tune worker is reused).
_SHELVES: dict[tuple[str, ...], Tensor] = {}
SHELF_COUNT = 2  # training and validation rows of one task


def _signals(cohort: Cohort, index: pd.DataFrame, modality: str, device: torch.device) -> Tensor:
    parts = []
    for start in range(0, len(index), CHUNK):
        stored_signal = cohort.load(index.iloc[start : start + CHUNK], columns=(modality,))[
            modality
        ]
        parts.append(inputs.held(stored_signal, modality, device))
    return torch.cat(parts)


def batch_of(
    split: Split, rows: Tensor | slice, modality: str, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Model arrays of some rows, and their target."""
    target = split.target[rows]
    return {
        modality: inputs.of_held(split.signals[rows], modality, dtype),
        "target": target if target.dtype == torch.long else target.to(dtype),
    }
