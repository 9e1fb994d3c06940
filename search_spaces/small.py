"""The whole paper on a synthetic cohort of 5,000 subjects, with networks a fiftieth of the paper's: does knowledge transfer?

Command     ecgcmr reproduce --scale small --cohort small/cohort --runs small/runs
Cost        8 pre-trainings, 1,022 grid trials and 545 evaluation trials; whole not run yet, `ecgcmr plan` prints its time.
            Table III and the groups LV and WT of Table IV on 2 cores, 2026-11-26, with other work beside: cohort 1 min,
            MAE 11 min, CMR SimCLR 4 min, MMCL and MMCL without MDM 28 min, Table III 19 min, LV 17 min, WT 29 min.
Expectation MAE above supervised, MMCL above MAE, phenotypes from the CMR image on top; with 750 test subjects differences of
            less than about 0.05 in AUROC or r cannot be told.
Found       MMCL above MAE and supervised on phenotypes, on CAD above MAE; MAE not above supervised on diseases; the CMR
            image on top (README.md; benchmarks/results/2026-11-26-two-cores.jsonl). MMCL's validation loss in a pilot of
            15 epochs: 3.99 at a rate of 3e-4, 3.95 at 1e-3, 4.03 at 3e-3; so 1e-3 here. Four times the epochs put MAE above
            supervised on phenotypes (length.py).
"""

from ecgcmr.search import study
from ecgcmr.trial import Trial


def trials() -> list[Trial]:
    """Eight pre-trainings, then a small grid for every system, task and share of the labels."""
    return study.trials(study.SMALL)
