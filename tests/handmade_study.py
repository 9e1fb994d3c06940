"""A whole study by hand: pre-trainings, grid and evaluation runs with predictions, as if trained; for tests of the page.

The people and their answers are those of a cohort; what a system answers is the truth plus noise of the system's own size.
"""

import functools
from dataclasses import replace

import conftest
import numpy as np
import pandas as pd

from ecgcmr import store, tasks
from ecgcmr.cohort import dataset, shards
from ecgcmr.data import examples
from ecgcmr.report import page
from ecgcmr.search import study
from ecgcmr.training import loop

# How far the mean score of the sick lies above that of the healthy, in sd; the noise of a phenotype is about its inverse.
STRENGTH = {
    "supervised": 0.6,
    "simclr": 0.55,
    "clocs": 0.65,
    "byol": 0.7,
    "barlow-twins": 0.75,
    "mae": 0.85,
    "mmcl-wo-mdm": 0.8,
    "mmcl": 1.1,
    "xgboost": 0.85,
    "cmr-supervised": 0.9,
    "cmr-mmcl-wo-mdm": 1.1,
    "cmr-mmcl": 1.15,
}
SEEDS = (0, 1, 2, 3, 4)


def cohort(out, n=400):
    """Subjects with diseases and all phenotypes; only those of the validation split have signals, which saves the disk."""
    rng = np.random.default_rng(1)
    rows = []
    for i, row in enumerate(conftest.heart_rows(n)):
        if row["split"] != "val":
            row |= {"ecg": None, "cmr": None}
        known = i % 2 == 0  # half of the people, as in the paper
        size = row["LVEDV"] / 150
        row |= {
            name: 50 + 20 * size + rng.normal(0, 5) if known else None for name in tasks.PHENOTYPES
        }
        rows.append(row)
    return conftest.write_cohort(out, rows, labels=shards.default_labels())


def fill(runs, cohort, *, scale=study.TOY, parts=(), seeds=SEEDS, logged=True):
    """Write every trial of some parts of the study; the names of those of the evaluation."""
    trials = study.trials(scale, *parts)
    before = [trial for trial in trials if trial.stage == "pretrain"]
    for i, trial in enumerate(before):
        weights = loop.handed_on(loop.build(trial)) if trial.method == "mmcl" else {}
        leave(
            runs,
            trial,
            (("val", "loss", 0.5 - 0.01 * i, 40),),
            cohort,
            weights={k: v.numpy() for k, v in weights.items()},
        )
    grid = [trial for trial in study.resolved(trials, runs) if trial.stage == "grid"]
    chosen = {(t.system, t.task, t.label_fraction): t for t in grid}
    for trial in grid:
        value = 0.7 + 0.01 * (trial is chosen[trial.system, trial.task, trial.label_fraction])
        leave(runs, trial, (("val", tasks.TASKS[trial.task].metric, value, 40),), cohort)
    evaluations = [
        replace(trial, stage="evaluation", seed=seed) for trial in chosen.values() for seed in seeds
    ]
    for trial in evaluations:
        table, scores = answered(cohort, trial)
        if logged:
            store.log_test_read(runs, trial.name, len(table))
        leave(runs, trial, scores, cohort, table)
    return [trial.name for trial in evaluations]


def leave(runs, trial, scores, cohort, table=None, weights=None):
    """Write one finished trial."""
    note = {
        "seconds": 90.0,
        "versions": {"ecgcmr": "0.1.0", "torch": "2.13.0"},
        "precision": "float32",
        "device": "cpu",
        "cohort": cohort.provenance,
        "n_train": max(2, round(trial.label_fraction * 120)),
        "balance_seed": 2308,
    }
    if trial.task in tasks.DISEASES:
        note |= {
            "trained_prevalence": 0.5,
            "prevalence": float((people(cohort.path, "train")[trial.task] == 1).mean()),
        }
    result = store.Finished(trial, "finished", scores, curve(trial), table, weights or {}, 3, note)
    store.write(runs, result, cohort.fingerprint)


def curve(trial, steps=8):
    """A curve as training writes it."""
    step, rng = np.arange(steps), np.random.default_rng([trial.seed, *trial.system.encode()])
    noise = rng.normal(0, 0.01, steps)
    metric = tasks.TASKS[trial.task].metric if trial.task in tasks.TASKS else "loss"
    told = (
        1 / (2.0 + step) + 0.2 if metric == "loss" else 0.7 + 0.1 * rng.random() - 0.2 / (1 + step)
    )
    table = {
        "step": step * 10,
        "epoch": step,
        "train_loss": 0.6 / (1.0 + step) + noise,
        f"val_{metric}": told + noise,
    }
    return pd.DataFrame(table)


@functools.cache
def people(path, split):
    """The rows of one split of a cohort, which many trials ask for; nobody changes them."""
    return dataset.open(path).rows(split)


def answered(cohort, trial):
    """Predictions of an evaluation run and their scores: the truth, a noise that all systems share, and the seed's own."""
    task = tasks.TASKS[trial.task]
    rows = people(cohort.path, "test")
    given = examples.answers(rows, task)
    rows, given = rows[np.isfinite(given).any(axis=1)], given[np.isfinite(given).any(axis=1)]
    strength = STRENGTH[trial.system] * trial.label_fraction**0.15
    shared, own = (
        np.random.default_rng([*task.name.encode(), seed]) for seed in (0, 1 + trial.seed)
    )
    noise = shared.standard_normal(given.shape)
    noise += 0.3 * own.standard_normal(given.shape) * (trial.method != "xgboost")
    if task.kind == "binary":
        found = 1 / (1 + np.exp(-(strength * (given - 0.3) + noise)))
    else:
        found = given + 2.2 / strength * given.std(axis=0) * noise
    scores = examples.scores(given, found, task)
    table = examples.predictions("test", rows.subject.to_numpy(), given, found, task)
    return table, tuple(("test", name, value, len(rows)) for name, value in scores.items())


@functools.cache
def reported(base):
    """The page of the whole study, made once in a session's folder: (runs, cohort, what `page.write` wrote)."""
    folder = base / "study"
    folder.mkdir()
    everyone, runs = cohort(folder / "cohort"), folder / "runs"
    fill(runs, everyone)
    return runs, everyone, page.write(runs, everyone.path, runs / "report").files
