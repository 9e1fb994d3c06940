"""Does knowledge transfer? The answers of a finished study, as one line of JSON.

    ecgcmr reproduce --scale small --cohort small/cohort --runs small/runs
    python benchmarks/studies/transfer.py --runs small/runs --space small [--pairs BETTER:WORSE ...]

Reads the evaluation runs and says, with intervals over test subjects: test scores of every ablation system on every task,
the differences of pairs of systems (by default MAE − supervised, MMCL − MAE, MMCL − MMCL without MDM, CMR image − MMCL), the
verdict on every claim of the paper, and how far each pre-training came (validation loss at its first and last validation,
and the chance level of a contrastive loss at that batch).
"""

import argparse
import itertools
import json
import math
from pathlib import Path
from typing import Any

import pandas as pd

from ecgcmr import paper, store
from ecgcmr.report.results.evidence import Evidence
from ecgcmr.runs import all_runs

PAIRS = ("mae:supervised", "mmcl:mae", "mmcl:mmcl-wo-mdm", "cmr-supervised:mmcl")
CONTRASTIVE = ("simclr", "mmcl", "clocs")


def rounded(*numbers: float) -> list[float | None]:
    """Four decimals; null where there is no number."""
    return [None if math.isnan(x) else round(float(x), 4) for x in numbers]


def pretrainings(runs: Path, space: str) -> dict[str, Any]:
    """First and last validation loss by trial, beside log(batch), where a contrastive loss of two modalities starts."""
    found = {}
    for run in all_runs(runs):
        trial, folder = run.trial, run.folder
        if trial.space != space or trial.stage != "pretrain":
            continue
        curve = pd.read_parquet(folder / store.CURVE)
        name = f"{trial.task} {trial.system} {trial.configuration}"
        found[name] = {
            "val_loss": rounded(curve.val_loss.iloc[0], curve.val_loss.iloc[-1]),
            "status": run.status,
            "minutes": round(run.provenance["seconds"] / 60, 1),
        }
        if "val_top1" in curve:
            found[name]["val_top1"] = rounded(curve.val_top1.iloc[-1])[0]
        if trial.method in CONTRASTIVE:
            found[name]["log_batch"] = rounded(math.log(trial.batch))[0]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--space", default="small")
    parser.add_argument(
        "--pairs", nargs="+", default=PAIRS, metavar="BETTER:WORSE", help="systems to compare"
    )
    args = parser.parse_args()
    evidence = Evidence.of(args.runs, args.space, store.rows(args.runs))
    names = (*paper.LAYOUTS["table3"].tasks, *paper.LAYOUTS["table4"].tasks)
    pairs = [pair.split(":") for pair in args.pairs]
    systems = dict.fromkeys(
        [*(system.name for system in paper.LAYOUTS["table4"].systems), *itertools.chain(*pairs)]
    )
    scores: dict[str, Any] = {}
    for task in names:
        for system in systems:
            if score := evidence.score(system, task):
                mean = sum(score.values) / len(score.values)
                scores.setdefault(task, {})[system] = rounded(mean, score.low, score.high)
    differences: dict[str, Any] = {}
    for better, worse in pairs:
        for task in names:
            found = evidence.contrast(better, worse, task)
            if not found.reasons:
                effect = found.effect
                numbers = rounded(effect.value, effect.low, effect.high, effect.p)
                differences.setdefault(f"{better} - {worse}", {})[task] = numbers
    line = {
        "benchmark": "transfer",
        "space": args.space,
        "test_scores": scores,
        "differences": differences,
        "claims": [
            [v.claim.text, v.verdict, *rounded(v.value, v.low, v.high, v.p)]
            for v in evidence.verdicts()
        ],
        "pretrainings": pretrainings(args.runs, args.space),
    }
    print(json.dumps(line, ensure_ascii=False))


if __name__ == "__main__":
    main()
