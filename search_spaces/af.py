"""Atrial fibrillation from the ECG alone: which pre-training helps where there is no MRI? Toy size.

Command     ecgcmr cohort build --ecg wfdb:recordings --cohort cohorts/af
            ecgcmr pretrain search_spaces/af.py --cohort cohorts/af --runs runs
            ecgcmr sweep    search_spaces/af.py --cohort cohorts/af --runs runs
            ecgcmr evaluate search_spaces/af.py --cohort cohorts/af --runs runs
Cost        5 pre-trainings, 24 grid trials, 30 evaluation trials. On 2 cores and 224 recordings of CinC 2020/2021,
            2026-11-26, with other work beside: pre-training 4 min 14 s, grid 2 min 11 s, five seeds 2 min 59 s.
Expectation An irregular rhythm without P waves is what an ECG shows best; but with 14 positives to learn from and 5 to be
            tested on, the systems cannot be told apart.
Found       Test AUROC 0.32 to 0.57, five of six systems below chance, every interval holding 0.5. Labels, signals and
            rows were checked; 28 rows to learn from and chance suffice for it (docs/real-input.md).
"""

from ecgcmr.nn import Network
from ecgcmr.search import study
from ecgcmr.trial import Trial

SPACE = "af"
NETWORK = Network(
    crop=2500,
    patch=250,
    width=48,
    depth=2,
    heads=4,
    decoder_width=32,
    decoder_depth=1,
    decoder_heads=4,
    hidden=64,
    projection=32,
)

# Small networks learn at rates a hundred times the paper's; the copy of BYOL follows faster in a run this short.
PRETRAININGS = {
    system: Trial(
        space=SPACE,
        stage="pretrain",
        task="ecg",
        system=system,
        method=system.replace("-", "_"),
        network=NETWORK,
        batch=32,
        epochs=epochs,
        eval_every=10,
        knobs=knobs,
    )
    for system, epochs, knobs in (
        ("mae", 40, (("lr", 2e-3),)),
        ("simclr", 20, (("lr", 1e-3),)),
        ("clocs", 20, (("lr", 1e-3),)),
        ("byol", 20, (("lr", 1e-3), ("momentum", 0.99))),
        ("barlow-twins", 20, (("lr", 1e-3),)),
    )
}

STARTS = {
    "supervised": (),
    **{system: (("ecg", trial.name),) for system, trial in PRETRAININGS.items()},
}

GRID = {"layer_decay": (0.5, 0.75), "lr": (1e-3, 3e-3)}


def trials() -> list[Trial]:
    """Five pre-trainings, then four configurations for each of the six systems."""
    grid = study.finetuning(
        SPACE, ["af"], STARTS, GRID, network=NETWORK, batch=16, epochs=20, eval_every=2
    )
    return [*PRETRAININGS.values(), *grid]
