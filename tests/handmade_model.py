"""A small cohort, its recordings as WFDB, and evaluation runs trained on it: for the tests of served models."""

import functools

import numpy as np
import wfdb
from conftest import heart_rows, write_cohort

from ecgcmr import tasks
from ecgcmr.nn import Network
from ecgcmr.signals import ecg
from ecgcmr.training import finetune
from ecgcmr.trial import Trial

TINY = Network(
    crop=2500,
    patch=500,
    width=8,
    depth=2,
    heads=2,
    blocks=(1, 1, 1, 1),
    image_width=4,
    image_size=48,
)
LABELS = ("cad", *tasks.TASKS["lv"].columns)
SEEDS = (0, 101, 202)


def people(n=170):
    """Rows of a cohort, and the raw signals behind: (rows, subject -> (12, 5000) mV).

    Those of the test split are as `cohort build` makes them of the raw signals, which takes 35 ms each; to learn from,
    and to calibrate, the same hearts do without what was added and would be removed.
    """
    rows, raw = list(heart_rows(n, seed=3)), {}
    rng = np.random.default_rng(0)
    for row in rows:
        raw[row["subject"]] = np.round(200 * (row["ecg"].astype(float) + levels(rng))) / 200
        if row["split"] == "test":
            row["ecg"] = ecg.prepare(raw[row["subject"]], 500, ecg.LEADS)[0].astype(np.float16)
        row["cmr"] = None
        ill = row["LVEDV"] / 150 + 0.5 * rng.standard_normal() > 1.3
        row |= {
            "cad": float(ill),
            **{name: 10.0 * i + row["LVEDV"] for i, name in enumerate(tasks.TASKS["lv"].columns)},
        }
    return rows, raw


def levels(rng):
    """Of twelve leads, (12, 1) mV, that keep the laws, as those of any electrodes do."""
    height = 0.1 * rng.standard_normal((12, 1))
    one, two = height[:2]
    height[2:6] = two - one, -(one + two) / 2, one - two / 2, two - one / 2
    return height


def write_wfdb(folder, key, signal, rate=500, leads=ecg.LEADS):
    """A recording in steps of 5 µV."""
    folder.mkdir(parents=True, exist_ok=True)
    wfdb.wrsamp(
        key,
        fs=rate,
        units=["mV"] * len(leads),
        sig_name=list(leads),
        d_signal=np.round(200 * signal).astype(int).T,
        fmt=["16"] * len(leads),
        adc_gain=[200.0] * len(leads),
        baseline=[0] * len(leads),
        write_dir=str(folder),
    )
    return folder / f"{key}.hea"


def trial(task, system="mmcl", seed=0, **changed):
    """An evaluation run of one epoch."""
    given = {
        "space": "t",
        "stage": "evaluation",
        "method": "supervised",
        "network": TINY,
        "batch": 16,
        "epochs": 2,
        "knobs": (("lr", 3e-3),),
    }
    return Trial(task=task, system=system, seed=seed, **{**given, **changed})


@functools.cache
def made(base):
    """(cohort, runs, subject -> raw signal), made once in a session's folder: `mmcl` on two tasks, `mae` on one."""
    rows, raw = people()
    cohort = write_cohort(base / "served" / "cohort", rows, labels=LABELS)
    runs = base / "served" / "runs"
    for task, system in (("cad", "mmcl"), ("lv", "mmcl"), ("cad", "mae")):
        finetune.fit(
            [trial(task, system, seed) for seed in SEEDS],
            cohort,
            runs,
            device="cpu",
            precision="float32",
        )
    return cohort, runs, raw
