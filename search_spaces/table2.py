"""Table II of the paper: which pre-training makes the best ECG encoder?

Command     ecgcmr plan      search_spaces/table2.py --cohort cohorts/ukbb
            ecgcmr pretrain  search_spaces/table2.py --cohort cohorts/ukbb --runs runs
            ecgcmr sweep     search_spaces/table2.py --cohort cohorts/ukbb --runs runs
            ecgcmr evaluate  search_spaces/table2.py --cohort cohorts/ukbb --runs runs
Cost        Not measured yet. 7 systems x 3 diseases x 648 configurations = 13,608 fine-tunings; 10 pre-trainings.
            Shares its space with search_spaces/full.py: what another table has run is skipped.
Expectation (paper; ROC AUC in %, mean ± sd over five seeds)
                           CAD             AF              DM
            supervised     66.90 ± 0.47    69.76 ± 2.13    67.35 ± 0.76
            simclr         66.03 ± 0.99    67.95 ± 0.59    68.73 ± 0.47
            clocs          67.30 ± 0.46    67.33 ± 0.32    68.68 ± 0.37
            byol           67.59 ± 0.28    69.76 ± 0.52    67.70 ± 0.26
            barlow-twins   68.11 ± 0.54    67.42 ± 0.72    69.58 ± 0.02
            mae            71.71 ± 0.36    72.32 ± 0.73    73.15 ± 0.39
            mmcl           73.00 ± 0.30    74.11 ± 0.53    75.56 ± 0.16
"""

from ecgcmr.search import study
from ecgcmr.trial import Trial


def trials() -> list[Trial]:
    """What the table needs."""
    return study.trials(study.FULL, "table2")
