"""Table I of the paper: what do ECG, tabular data and CMR each say about three diseases?

Command     ecgcmr plan      search_spaces/table1.py --cohort cohorts/ukbb
            ecgcmr pretrain  search_spaces/table1.py --cohort cohorts/ukbb --runs runs
            ecgcmr sweep     search_spaces/table1.py --cohort cohorts/ukbb --runs runs
            ecgcmr evaluate  search_spaces/table1.py --cohort cohorts/ukbb --runs runs
Cost        Not measured yet. 4 systems x 3 diseases: ECG and MMCL 648 configurations each, CMR 108, tabular 270; MMCL's
            pre-trainings.
            Shares its space with search_spaces/full.py: what another table has run is skipped.
Expectation (paper; ROC AUC in %, mean ± sd over five seeds)
                           CAD             AF              DM
            supervised     66.90 ± 0.47    69.76 ± 2.13    67.35 ± 0.76
            xgboost        71.97 ± 0.14    72.22 ± 0.00    72.53 ± 0.15
            cmr-supervised 71.88 ± 0.64    73.11 ± 0.64    74.24 ± 0.50
            mmcl           73.00 ± 0.30    74.11 ± 0.53    75.56 ± 0.16
"""

from ecgcmr.search import study
from ecgcmr.trial import Trial


def trials() -> list[Trial]:
    """What the table needs."""
    return study.trials(study.FULL, "table1")
