"""Hand-made finished trials, written through the store as real runs are, for the tests of what reads them."""

import numpy as np
import pandas as pd

from ecgcmr import store, tasks
from ecgcmr.data import examples
from ecgcmr.trial import Trial

SYSTEMS = ("supervised", "mae", "mmcl-wo-mdm", "mmcl")
METHODS = {"mae": "mae", "mmcl": "mmcl", "simclr": "simclr"}


def curve(steps=6, **columns):
    """A curve as training writes it: validation is measured on every second step only."""
    step = np.arange(steps)
    val = np.where(step % 2 == 0, 0.5 + 0.02 * step, np.nan)
    return pd.DataFrame(
        {"step": step * 10, "epoch": step, "loss": 1 / (1.0 + step), "val_auroc": val, **columns}
    )


def finish(
    runs,
    *,
    system,
    seed=0,
    task="af",
    stage="evaluation",
    value=0.7,
    status="finished",
    label_fraction=1.0,
    space="toy",
    knobs=(("lr", 1e-5),),
    scores=None,
    n=240,
    method="supervised",
    curve_=None,
    predictions=None,
    notes=None,
    init_from=(),
):
    """Write one finished trial and return it."""
    trial = Trial(
        space=space,
        stage=stage,
        task=task,
        system=system,
        method=method,
        seed=seed,
        label_fraction=label_fraction,
        knobs=knobs,
        init_from=init_from,
    )
    split = "test" if stage == "evaluation" else "val"
    result = store.Finished(
        trial=trial,
        status=status,
        scores=scores or ((split, "auroc", value, n),),
        curve=curve() if curve_ is None else curve_,
        predictions=predictions,
        weights={},
        epoch=3,
        provenance={
            "seconds": 1.5,
            "versions": {"torch": "2.13.0"},
            "precision": "float32",
            **(notes or {}),
        },
    )
    store.write(runs, result, "cohort-print")
    return trial


def fill(runs, seeds=(0, 1, 2, 3, 4), tasks=("cad", "af", "dm"), skip=()):
    """All systems × tasks × seeds but those in `skip` of (system, task, seed); AUROC rises with the system and seed."""
    for i, system in enumerate(SYSTEMS):
        for j, task in enumerate(tasks):
            for seed in seeds:
                if (system, task, seed) not in skip:
                    finish(
                        runs,
                        system=system,
                        task=task,
                        seed=seed,
                        value=0.60 + 0.03 * i + 0.01 * j + 0.001 * seed,
                    )


def people(n=400, task="af", prevalence=0.2, seed=0):
    """Subjects and what is true of them, the same for every system: targets (n, k), with some phenotypes unknown."""
    rng = np.random.default_rng((seed, *task.encode()))
    of = tasks.of(task, (task,))
    subjects = np.array([f"p{i:05d}" for i in range(n)])
    if of.kind == "binary":
        return subjects, (rng.permutation(n) < round(prevalence * n)).astype(float)[:, None]
    targets = 100 + 10 * rng.standard_normal((n, len(of.columns)))
    targets[rng.random(n) < 0.1] = np.nan
    return subjects, targets


def plant(
    runs,
    system,
    task="af",
    *,
    signal=1.0,
    seeds=(0, 1, 2, 3, 4),
    n=400,
    prevalence=0.2,
    keep=None,
    spread=0.2,
    label_fraction=1.0,
    space="toy",
    trained=0.5,
    **options,
):
    """Evaluation runs of one system whose answers follow the truth by `signal`, with predictions and the metrics of these.

    One noise per system and another, of size `spread`, per seed. `keep` is a mask of the subjects it was evaluated on,
    `trained` the share of positives that it learned at (None: the runs do not say).
    """
    subjects, targets = people(n, task, prevalence)
    of, kept = tasks.of(task, (task,)), np.ones(n, bool) if keep is None else np.asarray(keep)
    own = np.random.default_rng(list(f"{system} {task} {label_fraction}".encode())).standard_normal(
        targets.shape
    )
    notes = {"n_train": round(1000 * label_fraction)}
    for seed in seeds:
        noise = own + spread * np.random.default_rng((seed, *system.encode())).standard_normal(
            targets.shape
        )
        if of.kind == "binary":
            answers = 1 / (1 + np.exp(-(signal * (targets - 0.5) + noise)))
            notes |= {"trained_prevalence": trained, "prevalence": prevalence} if trained else {}
        else:
            answers = 100 + np.nan_to_num(signal * (targets - 100)) + 10 * noise
        given, found = targets[kept], answers[kept]
        scores = examples.scores(given, found, of)
        finish(
            runs,
            system=system,
            task=task,
            seed=seed,
            label_fraction=label_fraction,
            space=space,
            n=len(given),
            notes=notes,
            scores=tuple(("test", name, value, len(given)) for name, value in scores.items()),
            predictions=examples.predictions("test", subjects[kept], given, found, of),
            **options,
        )
