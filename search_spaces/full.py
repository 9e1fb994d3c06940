"""The whole paper at full size: Tables I to V, and the runs of Figures 4 to 6.

Command     ecgcmr plan      search_spaces/full.py --cohort cohorts/ukbb
            ecgcmr reproduce --scale full --cohort cohorts/ukbb --runs runs
Cost        Not measured yet. 14 pre-trainings (MMCL's two with four rates each) and 52,938 grid trials; `ecgcmr plan`
            prints trials per table, packs, steps, bytes and time for the machine at hand. Tables can be run one by one
            (search_spaces/table1.py …): they share this space, so nothing runs twice.
Expectation See the files of the tables.
Caution     The preset "paper" takes the text's learning rates as they stand. The authors' code multiplies MAE's and those of
            fine-tuning by batch / 4, i.e. up to 32 times; search_spaces/authors.py trains at their rates.
"""

from ecgcmr.search import study
from ecgcmr.trial import Trial


def trials() -> list[Trial]:
    """Every pre-training, then every configuration of the grids."""
    return study.trials(study.FULL)
