"""Table IV of the paper: 61 CMR phenotypes from the ECG alone, by group; its runs also make Figure 4.

Command     ecgcmr plan      search_spaces/table4.py --cohort cohorts/ukbb
            ecgcmr pretrain  search_spaces/table4.py --cohort cohorts/ukbb --runs runs
            ecgcmr sweep     search_spaces/table4.py --cohort cohorts/ukbb --runs runs
            ecgcmr evaluate  search_spaces/table4.py --cohort cohorts/ukbb --runs runs
Cost        Not measured yet. 4 ECG systems x 5 groups x 216 configurations and the CMR reference x 5 x 36; 10 pre-trainings.
            Shares its space with search_spaces/full.py: what another table has run is skipped.
Expectation (paper; Pearson's r, mean over the group's phenotypes)
                           LV      RV      WT      Ecc     Err
            supervised     0.56    0.58    0.54    0.29    0.30
            mae            0.62    0.64    0.60    0.36    0.36
            mmcl-wo-mdm    0.58    0.60    0.57    0.32    0.33
            mmcl           0.63    0.65    0.61    0.37    0.38
            cmr-supervised 0.84    0.85    0.78    0.64    0.66
"""

from ecgcmr.search import study
from ecgcmr.trial import Trial


def trials() -> list[Trial]:
    """What the table needs."""
    return study.trials(study.FULL, "table4")
