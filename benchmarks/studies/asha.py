"""Does successive halving find what the whole grid finds, and what does it save?

    python benchmarks/studies/asha.py --cohort COHORT [--task af] [--keep 4] [--epochs 64] [--configurations N] [--runs RUNS]

Both searches run the same configurations of the paper's grid at the toy network (packs in this process, no Ray), the best
configuration of each then runs with five seeds, as `ecgcmr evaluate` has it. One line of JSON: epochs trained and seconds of
both, how many trials were halted, the validation value of either winner, its test metric over the seeds, and the difference
in standard deviations over the seeds of the whole grid's winner. The same seeds are run twice where the winners are one
configuration.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ecgcmr import store, tasks
from ecgcmr.cohort import dataset
from ecgcmr.evaluation import selection
from ecgcmr.search import spaces, study
from ecgcmr.training import partition
from ecgcmr.trial import Trial


def grid(task: str, epochs: int, configurations: int | None) -> list[Trial]:
    """The paper's configurations at the toy network; some of them, drawn at random, if asked."""
    found = study.finetuning(
        "asha",
        [task],
        {"supervised": ()},
        study.PAPER_GRID,
        network=study.TOY.network,
        epochs=epochs,
    )
    chosen = np.random.default_rng(0).permutation(len(found))[: configurations or len(found)]
    # The paper's rates are for a network that starts from pre-training; from nothing it needs larger ones.
    return [
        replace(t, knobs=tuple((k, 30 * v if k == "lr" else v) for k, v in t.knobs))
        for t in (found[i] for i in chosen)
    ]


def search(trials: list[Trial], cohort: dataset.Cohort, runs: Path) -> dict[str, Any]:
    """Run a grid and the five seeds of its best configuration; what it took and gave."""
    begun = time.monotonic()
    for pack in partition.packs(trials):
        partition.train(pack, cohort, runs, None, "auto", "asha")
    seconds = time.monotonic() - begun
    curves = [pd.read_parquet(store.folder(runs, trial.name) / store.CURVE) for trial in trials]
    rows = store.rows(runs)
    evaluations = spaces.evaluation_trials(trials, runs)
    for pack in partition.packs(evaluations):
        partition.train(pack, cohort, runs, None, "auto", "evaluation")
    metric = tasks.of(trials[0].task, (trials[0].task,)).metric
    after = store.rows(runs)
    test = (
        after[(after.stage == "evaluation") & (after.split == "test") & (after.metric == metric)]
        .sort_values("seed")
        .value
    )
    best = next(trial for trial in trials if trial.configuration == evaluations[0].configuration)
    return {
        "epochs": sum(len(curve) for curve in curves),
        "seconds": round(seconds, 1),
        "halted": int((rows.drop_duplicates("trial").status == "halted").sum()),
        "winner": evaluations[0].configuration,
        "val": round(selection.value(runs, best), 4),
        "test": [round(float(value), 4) for value in test],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cohort", type=Path, required=True)
    parser.add_argument("--task", default="af")
    parser.add_argument("--keep", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=64)
    parser.add_argument("--configurations", type=int)
    parser.add_argument(
        "--runs",
        type=Path,
        help="where the trials go, and stay (default: a folder that is removed)",
    )
    args = parser.parse_args()
    trials, cohort = grid(args.task, args.epochs, args.configurations), dataset.open(args.cohort)
    with tempfile.TemporaryDirectory() as folder:
        runs = args.runs or Path(folder)
        whole = search(trials, cohort, runs / "whole")
        halved = search(spaces.under_asha(trials, args.keep), cohort, runs / "halved")
    means = [statistics.fmean(found["test"]) for found in (whole, halved)]
    sd = statistics.stdev(whole["test"])
    print(
        json.dumps(
            {
                "benchmark": "asha",
                "task": args.task,
                "keep": args.keep,
                "epochs_each": args.epochs,
                "configurations": len(trials),
                "whole": whole,
                "halved": halved,
                "epochs_ratio": round(halved["epochs"] / whole["epochs"], 3),
                "seconds_ratio": round(halved["seconds"] / whole["seconds"], 3),
                "test_difference": round(means[1] - means[0], 4),
                "seed_sd": round(sd, 4),
                "cores": len(os.sched_getaffinity(0)),
                "load": os.getloadavg()[0],
            }
        )
    )


if __name__ == "__main__":
    main()
