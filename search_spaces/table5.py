"""Table V of the paper: does the ECG teach the image encoder in turn?

Command     ecgcmr plan      search_spaces/table5.py --cohort cohorts/ukbb
            ecgcmr pretrain  search_spaces/table5.py --cohort cohorts/ukbb --runs runs
            ecgcmr sweep     search_spaces/table5.py --cohort cohorts/ukbb --runs runs
            ecgcmr evaluate  search_spaces/table5.py --cohort cohorts/ukbb --runs runs
Cost        Not measured yet. 3 systems x 3 diseases x 108 configurations; 10 pre-trainings.
            Shares its space with search_spaces/full.py: what another table has run is skipped.
Expectation (paper; ROC AUC in %, mean ± sd over five seeds)
                               CAD             AF              DM
            cmr-supervised     71.88 ± 0.64    73.11 ± 0.64    74.24 ± 0.50
            cmr-mmcl-wo-mdm    74.69 ± 0.23    77.36 ± 0.62    77.37 ± 0.42
            cmr-mmcl           74.37 ± 0.69    77.13 ± 0.42    77.82 ± 0.26
"""

from ecgcmr.search import study
from ecgcmr.trial import Trial


def trials() -> list[Trial]:
    """What the table needs."""
    return study.trials(study.FULL, "table5")
