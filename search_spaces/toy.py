"""The whole paper at toy size: every system, table and figure, on a synthetic cohort of 1,600 subjects.

Command     ecgcmr reproduce --scale toy --cohort toy/cohort --runs toy/runs
Cost        14 pre-trainings, 208 grid trials and 505 evaluation trials: 19 min 07 s on 2 cores, cohort, report and Aim
            included (2026-11-26, printed by tests/test_reproduce.py).
Expectation The machinery is the point, not the numbers: nearly every claim comes out as "not decidable". With 1 % of the
            labels no patient is left of AF or DM, which is said and left out.
"""

from ecgcmr.search import study
from ecgcmr.trial import Trial


def trials() -> list[Trial]:
    """Fourteen pre-trainings, then a small grid for every system, task and share of the labels."""
    return study.trials(study.TOY)
