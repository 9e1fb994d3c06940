"""Is it length that MAE and MMCL lack in the small study? Four times the epochs, a larger batch, longer fine-tuning.

Command     after small.py, from whose pre-trainings these start, with the same cohort and runs:
            ecgcmr reproduce --space search_spaces/length.py --cohort small/cohort --runs small/runs
            python benchmarks/studies/transfer.py --runs small/runs --space small
Expectation The text trains MAE for 400 epochs on 28,030 subjects, 88,000 steps; `small` has 3,240. If length is what MAE
            lacks, `mae-240` is above `mae`. `mmcl-240-batch-256` has four times the epochs and four times the negatives of
            `mmcl`. `…-tuned` train four times as long on the labels: a baseline without a start may just need more steps.
Cost        2026-11-26, by benchmarks/studies/bare.py: mae-240 33 min on one busy core, its fine-tuning 12 min;
            mmcl-240-batch-256 67 s on an H200 beside five others.
Found       Length is what lacked: mae-240 above supervised on LV and WT, the longer MMCL above the shorter; the baseline
            gains from longer fine-tuning too (docs/transfer.md). mae-240-tuned was not run.
"""

from dataclasses import replace

from ecgcmr.search import study
from ecgcmr.trial import Trial

SMALL = study.SMALL
SHORT = {trial.system: trial for trial in study.trials(SMALL) if trial.stage == "pretrain"}
TIMES = 4


def longer(system: str, name: str, **changed: object) -> Trial:
    """A pre-training of `small` with so many times its epochs, validated as often."""
    trial = SHORT[system]
    return replace(
        trial,
        space="length",
        system=name,
        epochs=TIMES * trial.epochs,
        eval_every=TIMES * trial.eval_every,
        **changed,
    )


MAE = longer("mae", "mae-240")
MMCL = longer("mmcl", "mmcl-240-batch-256", batch=256)
# Fine-tuned under the space of the small study, so that its report and comparisons show them beside the others.
STARTS = {"mae-240": (("ecg", MAE.name),), "mmcl-240-batch-256": (("ecg", MMCL.name),)}
TUNED = {"supervised-tuned": (), "mae-240-tuned": STARTS["mae-240"]}


def trials() -> list[Trial]:
    """Two pre-trainings, both fine-tuned as in `small`, and two systems fine-tuned for longer."""
    made = [MAE, MMCL]
    for task, recipe, grid in (
        ("cad", SMALL.disease, SMALL.grid),
        ("lv", SMALL.phenotype, SMALL.phenotype_grid),
        ("wt", SMALL.phenotype, SMALL.phenotype_grid),
    ):
        for times, init_from in ((1, STARTS), (TIMES, TUNED)):
            if times == 1 or task != "wt":
                made += study.finetuning(
                    SMALL.space,
                    [task],
                    init_from,
                    grid,
                    network=SMALL.network,
                    batch=recipe.batch,
                    epochs=times * recipe.epochs,
                    eval_every=times * recipe.eval_every,
                )
    return made
