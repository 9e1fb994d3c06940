"""Which subjects a trial learns from and is judged on, what their answers are, and their signals on the device.

The one idea: the rows are fixed before any training. Balanced sets and their nested parts are drawn once, from one seed
that belongs to no trial, so every system, seed and pack size sees the same people. This file does not train.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ecgcmr import ecg, tasks
from ecgcmr.errors import InputError
from ecgcmr.tasks import Task
from ecgcmr.trial import Trial

BALANCE = 2023  # seed of the static draw of negatives and of the nested subsets; the same for every trial
FEWEST = 2  # subjects of either class, in every split
CHUNK = 256  # subjects normalised at once


class Cohort(Protocol):
    """What fit asks of a cohort; `cohort.Cohort` is one."""

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
    """The rows of a split that have the signal and an answer: the label, or any of the phenotypes.

    Raises:
        InputError: a column is missing or not 0/1, or one class is all there is.
    """
    rows = cohort.rows(split)
    absent = [name for name in task.columns if name not in rows.columns]
    if absent:
        raise InputError(
            f"{cohort.path}: no column '{absent[0]}', which task '{task.name}' needs; rebuild with --labels"
        )
    rows = rows[rows[f"has_{modality}"].to_numpy(bool)]
    rows = rows[np.isfinite(answers(rows, task)).any(axis=1)]
    if task.kind == "binary":
        _check_classes(cohort, task, split, answers(rows, task)[:, 0])
    elif len(rows) < FEWEST:
        raise InputError(f"{cohort.path}: {len(rows)} rows of '{split}' have a phenotype of task '{task.name}'")
    return rows


def _check_classes(cohort: Cohort, task: Task, split: str, labels: np.ndarray) -> None:
    strange = set(np.unique(labels)) - {0.0, 1.0}
    if strange:
        raise InputError(f"{cohort.path}: column '{task.columns[0]}' holds {min(strange):g}; a label is 0, 1 or empty")
    positive, negative = int((labels == 1).sum()), int((labels == 0).sum())
    if min(positive, negative) < FEWEST:
        raise InputError(
            f"{cohort.path}: column '{task.columns[0]}' has {positive} positives and {negative} negatives with a "
            f"signal in split '{split}'; at least {FEWEST} of either are needed"
        )


def answers(rows: pd.DataFrame, task: Task) -> np.ndarray:
    """(n, columns) float64, NaN where missing."""
    columns = [rows[name].to_numpy(dtype=np.float64, na_value=np.nan) for name in task.columns]
    return np.stack(columns, axis=1)


def training_rows(cohort: Cohort, trial: Trial) -> TrainingRows:
    """The balanced training set of a trial, or the nested part of it that `take` asks for.

    Binary: all positives and as many negatives, drawn once and for all (section IV-B). A smaller `take` is contained in
    every larger one and keeps the balance (section V-D). Regression: every row with a phenotype.
    """
    task = tasks.of(trial.task, (trial.task,))
    rows = answerable(cohort, task, trial.modality, "train")
    draw = np.random.default_rng(BALANCE)
    if task.kind == "binary":
        labels = answers(rows, task)[:, 0]
        strata = [draw.permutation(np.flatnonzero(labels == value)) for value in (1, 0)]
        balanced = min(map(len, strata))  # of a label that most people have, it is the negatives that are all taken
        strata = [part[:balanced] for part in strata]
    else:
        strata = [draw.permutation(len(rows))]
    kept = [part[: max(1, round(trial.take * len(part)))] for part in strata]
    notes = {"n_train": sum(map(len, kept)), "n_train_full": sum(map(len, strata))}
    return TrainingRows(rows.iloc[np.sort(np.concatenate(kept))], notes)


def steps_per_epoch(n: int, batch: int) -> int:
    """Batches of an epoch; the last is filled up from the epoch's beginning, so that no row is left out."""
    return -(-n // min(batch, n))


@dataclass(frozen=True)
class Split:
    """The rows of one split on the device.

    Attributes:
        subjects: pseudonyms, (n,).
        signals: (n, 12, 5000) float16, normalised, or (n, 3, 210, 210) uint8.
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


def scale_of(given: np.ndarray, task: Task, path: Path) -> Scale:
    """Statistics that z-score a regression's targets.

    Raises:
        InputError: a phenotype has no value or no spread in the training rows.
    """
    if task.kind == "binary":
        return Scale(np.zeros(1), np.ones(1))
    known = np.isfinite(given).sum(0)
    for name, count in zip(task.columns, known):
        if count < FEWEST:
            raise InputError(
                f"{path}: column '{name}' has {count} values in the training rows; at least {FEWEST} are needed"
            )
    mean, sd = np.nanmean(given, 0), np.nanstd(given, 0)
    if not (sd > 0).all():
        raise InputError(f"{path}: column '{task.columns[int(np.argmin(sd))]}' has one value in all training rows")
    return Scale(mean, sd)


def bring(
    cohort: Cohort, index: pd.DataFrame, task: Task, modality: str, scale: Scale, device: torch.device, shelf: str = ""
) -> Split:
    """Load rows to the device; a named `shelf` keeps their signals there for the next pack of this process."""
    given = answers(index, task)
    key = (cohort.fingerprint, modality, shelf, str(device))
    signals = _SHELVES[key] if shelf and key in _SHELVES else _signals(cohort, index, modality, device)
    if shelf:
        _SHELVES.pop(key, None)
        _SHELVES[key] = signals
        for old in list(_SHELVES)[:-KEPT]:
            del _SHELVES[old]
    target = given[:, 0].astype(np.int64) if task.kind == "binary" else (given - scale.mean) / scale.sd
    return Split(index["subject"].to_numpy(), signals, given, torch.from_numpy(target).to(device))


# Signals on the device, by cohort and rows: the packs of one process mostly ask for the same (a Tune worker is reused).
_SHELVES: dict[tuple[str, ...], Tensor] = {}
KEPT = 2  # training and validation rows of one task


def _signals(cohort: Cohort, index: pd.DataFrame, modality: str, device: torch.device) -> Tensor:
    parts = []
    for start in range(0, len(index), CHUNK):
        found = cohort.load(index.iloc[start : start + CHUNK], columns=(modality,))[modality]
        part = torch.from_numpy(np.array(found)).to(device)  # a copy: what is read may be a read-only view of a file
        parts.append(ecg.normalise(part.float()).half() if modality == "ecg" else part)
    return torch.cat(parts)


def batch_of(split: Split, rows: Tensor | slice, modality: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """Model arrays of some rows: ECG as it is, CMR in [0, 1]."""
    signal = split.signals[rows].to(dtype)
    target = split.target[rows]
    return {
        modality: signal / 255 if modality == "cmr" else signal,
        "target": target if target.dtype == torch.long else target.to(dtype),
    }
