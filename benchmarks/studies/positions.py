"""How should an encoder that learnt positions of 5 s read 10 s? MAE fine-tuned on the left ventricle, three ways.

    python benchmarks/studies/positions.py --cohort small/cohort --runs positions/runs [--jobs 2]

One MAE of `search_spaces/small.py` is pre-trained on 5 s, and fine-tuned on the 10 s of the LV phenotypes with positions
`stretched` over them by interpolation, `continued` beyond their end (MAE's are sine-cosine, so these are exactly those of
later times) and in `parts` of 5 s (the same encoder on either half; the head pools the tokens of both, and their mean is the
mean of the halves'). Each way has its own grid of two rates, from which validation r chooses, and five seeds. Nothing else
differs. The switch is `Preset.finetune_ecg`; see docs/presets.md.

Prints one line of JSON per comparison: test r of either way (mean over phenotypes and seeds) and their difference, each with
its 95 % interval over other test people and other seeds of fine-tuning, p and Holm's adjustment over the three. Pre-training
ran once. What has finished under `--runs` is skipped and what was ended goes on from its checkpoint, so it can be run in
stretches. Without a cohort at `--cohort` one of 5,000 synthetic subjects is made. `--epochs 240` takes a MAE four times as
long, which transfers better (docs/transfer.md); its runs are others and stand beside the first.
"""

import argparse
import itertools
import json
import logging
import multiprocessing
import signal
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import bare  # one thread a process, before torch comes
import numpy as np

from ecgcmr import presets, store, tasks
from ecgcmr.cohort import dataset
from ecgcmr.evaluation import statistics
from ecgcmr.evaluation.statistics import Effect
from ecgcmr.report.results import evidence
from ecgcmr.search import spaces, study
from ecgcmr.trial import Trial

WAYS = ("stretched", "continued", "parts")
TASK = "lv"
SUBJECTS = 5000
SPACE = "positions"

for way in WAYS:  # at the top, so that every process has them
    presets.PRESETS[way] = replace(presets.preset("paper"), name=way, finetune_ecg=way)


def listed(scale: study.StudyScale, epochs: int) -> list[Trial]:
    """The pre-training, then the grid of each way."""
    mae = next(trial for trial in study.trials(scale) if trial.system == "mae")
    mae = replace(mae, space=SPACE, system=f"mae-{epochs}", epochs=epochs)
    recipe = scale.phenotype
    grids = [
        study.finetuning(
            SPACE,
            [TASK],
            {f"{mae.system}-{way}": (("ecg", mae.name),)},
            scale.phenotype_grid,
            preset=way,
            network=scale.network,
            batch=recipe.batch,
            epochs=recipe.epochs,
            eval_every=recipe.eval_every,
        )
        for way in WAYS
    ]
    return [mae, *itertools.chain(*grids)]


def stop(number: int, frame: Any) -> None:
    """End the processes too: a pool would wait for what they do."""
    for child in multiprocessing.active_children():
        child.terminate()
    raise SystemExit(128 + number)


def run(trials: list[Trial], cohort: Path, runs: Path, jobs: int) -> None:
    """Whatever of it has not finished."""
    opened, (mae, *grid) = dataset.open(cohort), trials
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        where = (cohort, runs, "cpu")
        bare.every(pool, [mae], bare.pre_train, (trials, *where))
        bare.every(pool, bare.packs(grid, opened, runs), bare.fit_pack, where)
        evaluations = spaces.evaluation_trials(grid, runs)
        bare.every(pool, bare.packs(evaluations, opened, runs), bare.fit_pack, where)


def rounded(effect: Effect) -> list[float]:
    """Value and interval."""
    return [round(float(x), 4) for x in (effect.value, effect.low, effect.high)]


def score(results: evidence.Evidence, system: str) -> Effect:
    """Test r of a way of reading, over other people and other seeds."""
    answers, task = results.answers(system, TASK), tasks.TASKS[TASK]
    if answers is None:
        raise SystemExit(f"{system}: no test predictions")
    counts = statistics.resamples_of_people(
        answers.subjects, evidence.DRAWS, evidence.RESAMPLING, None
    )
    drawn = statistics.bootstrap_pearson(answers.outputs, answers.targets, counts, task.columns)
    values = evidence.each(answers, task).mean(-1)
    m = len(values)
    return statistics.bootstrap_contrast(
        values, drawn.mean(-1), np.full(m, 1 / m), np.zeros(m, int)
    )


def lines(runs: Path, prefix: str) -> list[dict[str, Any]]:
    """One per comparison."""
    results = evidence.Evidence.of(runs, SPACE, store.rows(runs))
    scores = {way: score(results, f"{prefix}-{way}") for way in WAYS}
    pairs = list(itertools.combinations(WAYS, 2))
    comparisons = [results.contrast(f"{prefix}-{b}", f"{prefix}-{a}", TASK) for a, b in pairs]
    adjusted = statistics.holm([comparison.effect.p for comparison in comparisons])
    return [
        {
            "benchmark": "positions",
            "task": TASK,
            "pretraining": prefix,
            "pretrainings": 1,
            "seeds": results.by_cell[f"{prefix}-{a}", TASK, 1.0].seeds,
            "test_people": comparison.people,
            "r": {way: rounded(scores[way]) for way in (a, b)},
            "difference": {f"{b} - {a}": rounded(comparison.effect)},
            "p": round(comparison.effect.p, 4),
            "p_holm": round(float(p), 4),
            "reasons": comparison.reasons,
        }
        for (a, b), comparison, p in zip(pairs, comparisons, adjusted)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cohort", type=Path, required=True, help="made if there is none")
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--subjects", type=int, default=SUBJECTS, help="of a cohort that is made")
    parser.add_argument("--epochs", type=int, help="of MAE (default: the scale's)")
    parser.add_argument(
        "--scale", choices=("small", "toy"), default="small", help="toy: a try of the script"
    )
    parser.add_argument("--jobs", type=int, default=1, help="processes of one thread each")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", force=True)
    logging.getLogger("ecgcmr").setLevel(logging.WARNING)
    scale = {"small": study.SMALL, "toy": study.TOY}[args.scale]
    if not args.cohort.exists():
        bare.make_cohort(args.cohort, args.subjects, args.jobs)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    trials = listed(scale, args.epochs or scale.pretraining["mae"].epochs)
    run(trials, args.cohort, args.runs, args.jobs)
    for line in lines(args.runs, trials[0].system):
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
