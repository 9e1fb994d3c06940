"""Table II of the paper: which pre-training makes the best ECG encoder, when only the ECG is at hand?

Command     ecgcmr plan      search_spaces/table2.py --cohort cohorts/ukbb
            ecgcmr pretrain  search_spaces/table2.py --cohort cohorts/ukbb --runs runs
            ecgcmr sweep     search_spaces/table2.py --cohort cohorts/ukbb --runs runs
            ecgcmr seeds     search_spaces/table2.py --cohort cohorts/ukbb --runs runs
Cost        Not measured yet. 4 pre-trainings of its own and 648 points x 3 diseases x 4 systems; supervised, MAE and MMCL of
            the table are those of search_spaces/table3.py.
Expectation (paper, ROC AUC in %, mean ± sd over five seeds)
                           CAD             AF              DM
            simclr         66.03 ± 0.99    67.95 ± 0.59    68.73 ± 0.47
            clocs          67.30 ± 0.46    67.33 ± 0.32    68.68 ± 0.37
            byol           67.59 ± 0.28    69.76 ± 0.52    67.70 ± 0.26
            barlow-twins   68.11 ± 0.54    67.42 ± 0.72    69.58 ± 0.02
"""

from ecgcmr import sweep
from ecgcmr.trial import Trial

SPACE = "table2"
PRESET = "paper"
DISEASES = ("cad", "af", "dm")

# Section IV-D.1; batch and epochs of the authors' runs, where the text is silent. Rates are the methods' defaults.
RIVALS = {
    label: Trial(space=SPACE, stage="pretrain", task="ecg", label=label, method=label.replace("-", "_"), preset=PRESET,
                 batch=batch, epochs=300, knobs=(("lr", lr),))
    for label, batch, lr in (("simclr", 256, 3e-3), ("clocs", 768, 3e-4), ("byol", 256, 1e-5), ("barlow-twins", 256, 3e-5))
}  # fmt: skip


def trials() -> list[Trial]:
    """Four pre-trainings, then every point of the grid for every disease and system."""
    starts = {label: (("ecg", trial.name),) for label, trial in RIVALS.items()}
    return [*RIVALS.values(), *sweep.finetuning(SPACE, DISEASES, starts, sweep.PAPER_GRID, preset=PRESET, epochs=400)]
