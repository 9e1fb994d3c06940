"""Figure 5 of the paper: how does each ECG system do with 100, 10 and 1 % of the labels?

Command     ecgcmr plan      search_spaces/figure5.py --cohort cohorts/ukbb
            ecgcmr pretrain  search_spaces/figure5.py --cohort cohorts/ukbb --runs runs
            ecgcmr sweep     search_spaces/figure5.py --cohort cohorts/ukbb --runs runs
            ecgcmr evaluate  search_spaces/figure5.py --cohort cohorts/ukbb --runs runs
Cost        Not measured yet. 8 systems x 3 diseases x 3 shares x 648 configurations = 46,656 fine-tunings: the text does not
            say whether the grid was searched anew for each share; it is here. `--budget 50` asks TPE for 50 configurations
            of each. Shares its space with search_spaces/full.py: what another table has run is skipped.
Expectation MMCL above all others at every share, but for CAD with 1 %, where MMCL without MDM is above it. Training rows
            (paper, section V-D): CAD 4,000 / 400 / 40, AF 1,700 / 170 / 17, DM 2,500 / 250 / 25.
"""

from ecgcmr.search import study
from ecgcmr.trial import Trial


def trials() -> list[Trial]:
    """What the figure needs."""
    return study.trials(study.FULL, "figure5")
