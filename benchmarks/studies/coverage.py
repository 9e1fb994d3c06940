"""Do the numbers of `ecgcmr predict` hold on people who calibrated nothing? Test subjects of finished evaluation runs.

    python benchmarks/studies/coverage.py --model runs/toy/evaluation [--system mmcl]

Takes what the validation rows settled (recalibration, intervals) to the test predictions that the evaluation runs stored; no
signal is read and nothing is fitted. Prints one line of JSON. By disease: prevalence of the test rows beside the mean risk,
calibration intercept (wanted 0) and slope (wanted 1) with 95 % intervals, and the Brier score beside that of the prevalence
for everybody. By group of phenotypes: how many of the measured values lie in their interval (wanted 0.9), least and most of
the columns.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ecgcmr import store, tasks
from ecgcmr.evaluation import statistics
from ecgcmr.inference import calibration, ensemble
from ecgcmr.inference.calibration import Disease, Meaning, Phenotype
from ecgcmr.tasks import Task


def columns(tables: list[pd.DataFrame], kind: str, task: Task) -> np.ndarray:
    """(seeds, n, columns)."""
    return np.stack(
        [table[[f"{kind}:{name}" for name in task.columns]].to_numpy(float) for table in tables]
    )


def of_disease(
    means: Disease, outputs: np.ndarray, y: np.ndarray, name: str, people: np.ndarray
) -> dict[str, Any]:
    """`outputs` is (seeds, n), the probabilities at balanced classes; `people` (n,) whose row it is."""
    risk, low, high = means.recalibration.risk(calibration.logit(outputs))
    found = statistics.calibration(risk, y, name, people)
    usual = means.positive / means.n
    return {
        "n": len(y),
        "positive": int(y.sum()),
        "prevalence": round(y.mean(), 4),
        "mean_risk": round(risk.mean(), 4),
        "rule": means.recalibration.rule,
        "brier": round(found.brier, 4),
        "brier_of_prevalence": round(float(((y - usual) ** 2).mean()), 4),
        "half_width": round(float((high - low).mean() / 2), 4),
        **{
            word: [round(x, 2) for x in (effect.value, effect.low, effect.high)]
            if np.isfinite(effect.value)
            else None
            for word, effect in (("intercept", found.intercept), ("slope", found.slope))
        },
    }


def of_phenotypes(means: Meaning, outputs: np.ndarray, measured: np.ndarray) -> dict[str, Any]:
    """`outputs` is (seeds, n, columns) in units, `measured` (n, columns)."""
    radius = np.array([one.radius for one in means.values() if isinstance(one, Phenotype)])
    known = np.isfinite(measured)
    held = np.where(known, np.abs(measured - outputs.mean(0)) <= radius, np.nan)
    each = np.nanmean(held, axis=0)
    return {
        "n": int(known.sum(0).max()),
        "coverage": round(float(np.nanmean(held)), 3),
        "least": round(float(each.min()), 3),
        "most": round(float(each.max()), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--model", type=Path, required=True, help="folder of evaluation runs with their predictions"
    )
    parser.add_argument("--system")
    args = parser.parse_args()
    found: dict[str, Any] = {}
    for name, seeds in ensemble.of_system(ensemble.runs_in(args.model), args.system).items():
        task = tasks.of(name, (name,))
        means = calibration.meaning(seeds, task)
        tables = [
            pd.read_parquet(run.folder / store.PREDICTIONS).query("split == 'test'")
            for run in seeds
        ]
        outputs, targets = columns(tables, "output", task), columns(tables[:1], "target", task)[0]
        one = means[task.columns[0]]
        if isinstance(one, Disease):
            found[name] = of_disease(
                one, outputs[..., 0], targets[:, 0], name, tables[0].subject.to_numpy()
            )
        else:
            found[name] = of_phenotypes(means, outputs, targets)
    print(json.dumps({"benchmark": "coverage", "level": calibration.LEVEL, **found}))


if __name__ == "__main__":
    main()
