"""Table III of the paper: does masked data modelling (MDM) help the transfer from CMR to ECG?

Command     ecgcmr plan      search_spaces/table3.py --cohort cohorts/ukbb
            ecgcmr pretrain  search_spaces/table3.py --cohort cohorts/ukbb --runs runs
            ecgcmr sweep     search_spaces/table3.py --cohort cohorts/ukbb --runs runs
            ecgcmr evaluate  search_spaces/table3.py --cohort cohorts/ukbb --runs runs
Cost        Not measured yet. 4 systems x 3 diseases x 648 configurations = 7,776 fine-tunings; 10 pre-trainings.
            Shares its space with search_spaces/full.py: what another table has run is skipped.
Expectation (paper; ROC AUC in %, mean ± sd over five seeds)
                           CAD             AF              DM
            supervised     66.90 ± 0.47    69.76 ± 2.13    67.35 ± 0.76
            mae            71.71 ± 0.36    72.32 ± 0.73    73.15 ± 0.39
            mmcl-wo-mdm    70.36 ± 0.51    72.41 ± 0.52    73.40 ± 0.48
            mmcl           73.00 ± 0.30    74.11 ± 0.53    75.56 ± 0.16
"""

from ecgcmr.search import study
from ecgcmr.trial import Trial


def trials() -> list[Trial]:
    """What the table needs."""
    return study.trials(study.FULL, "table3")
