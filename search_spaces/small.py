"""The whole paper on a synthetic cohort of 5,000 subjects, as large as two cores bear: does knowledge transfer?

Command     ecgcmr reproduce --scale small --cohort small/cohort --runs small/runs
Cost        14 pre-trainings, 1,030 grid trials and 545 final trials; not run as a whole yet. `ecgcmr plan` prints its time.
Expectation MAE above supervised, MMCL above MAE, phenotypes from the CMR image on top; with 750 test subjects differences of
            less than about 0.05 in AUROC or r cannot be told.
"""

from ecgcmr import study
from ecgcmr.trial import Trial


def trials() -> list[Trial]:
    """Fourteen pre-trainings, then a small grid for every system, task and share of the labels."""
    return study.trials(study.SMALL)
