"""How long must one pre-train until knowledge transfers? The small study's systems, four times as long.

Command     ecgcmr reproduce --space search_spaces/length.py --cohort small/cohort --runs small/runs
            after small.py, from whose pre-trainings it starts. On a GPU machine without Ray:
            python benchmarks/studies/bare.py search_spaces/length.py --cohort small/cohort --runs small/runs
Expectation The text trains MAE for 400 epochs on 28,030 subjects, 88,000 steps; `small` has 3,240. If length is what MAE
            lacks, the longer ones are above `supervised`; if MMCL needs a good start, `mmcl-240-mae-240`
            is above `mmcl-wo-mdm-240`.
            `…-tuned` train four times as long on the labels: a baseline without a start may just need more steps.
"""

from collections.abc import Mapping
from dataclasses import replace

from ecgcmr import study
from ecgcmr.study import Recipe
from ecgcmr.trial import Trial

TASKS = ("cad", "lv", "wt")
SMALL = study.SMALL
MAE, MMCL = (SMALL.pretraining[name] for name in ("mae", "mmcl"))


def pretraining(label: str, kind: str, recipe: Recipe, starts: Mapping[str, Trial]) -> Trial:
    """One pre-training of this space."""
    of = study.PRETRAININGS[kind]
    return Trial(
        space="length", stage="pretrain", task=of.task, label=label, method=of.method,
        modality=of.task if of.task in ("ecg", "cmr") else "ecg", network=SMALL.network, batch=recipe.batch,
        epochs=recipe.epochs, eval_every=recipe.eval_every, knobs=(("lr", recipe.rates[0]), *recipe.knobs),
        starts=tuple((part, trial.name) for part, trial in starts.items()),
    )  # fmt: skip


def longer(recipe: Recipe, times: int, **changed: object) -> Recipe:
    """The recipe with so many times its epochs, validated as often."""
    return replace(recipe, epochs=times * recipe.epochs, eval_every=times * recipe.eval_every, **changed)


SHORT = {trial.label: trial for trial in study.trials(SMALL) if trial.stage == "pretrain"}
LONG = pretraining("mae-240", "mae", longer(MAE, 4), {})
IMAGE = SHORT["cmr-simclr"]
MMCLS = {
    "mmcl-240": pretraining("mmcl-240", "mmcl", longer(MMCL, 4), {"ecg": SHORT["mae"], "cmr": IMAGE}),
    "mmcl-240-mae-240": pretraining("mmcl-240-mae-240", "mmcl", longer(MMCL, 4), {"ecg": LONG, "cmr": IMAGE}),
    "mmcl-wo-mdm-240": pretraining("mmcl-wo-mdm-240", "mmcl", longer(MMCL, 4), {"cmr": IMAGE}),
    "mmcl-240-batch-256": pretraining(
        "mmcl-240-batch-256", "mmcl", longer(MMCL, 4, batch=256), {"ecg": SHORT["mae"], "cmr": IMAGE}
    ),
}
ENCODERS = {"mae-60": SHORT["mae"], "mae-240": LONG, "mmcl-60": SHORT["mmcl"], **MMCLS}
STARTS = {"supervised": (), **{label: (("ecg", trial.name),) for label, trial in ENCODERS.items()}}
TUNED = ("supervised", "mae-60", "mae-240", "mmcl-240")


def trials() -> list[Trial]:
    """Five pre-trainings; every encoder fine-tuned as in `small`, some of them four times as long."""
    made = [LONG, *MMCLS.values()]
    for task in TASKS:
        disease = task == "cad"
        recipe, grid = (SMALL.disease, SMALL.grid) if disease else (SMALL.phenotype, SMALL.phenotype_grid)
        for times, starts in ((1, STARTS), (4, {f"{label}-tuned": STARTS[label] for label in TUNED})):
            made += study.finetuning(
                "length", [task], starts, grid, network=SMALL.network, batch=recipe.batch, epochs=times * recipe.epochs,
                eval_every=times * recipe.eval_every,
            )  # fmt: skip
    return made
