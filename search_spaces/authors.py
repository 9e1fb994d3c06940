"""The whole paper at full size as its authors' code ran it, where that differs from the text (platform/ecgcmr/presets.py).

Command     ecgcmr reproduce --scale full --space search_spaces/authors.py --cohort cohorts/ukbb --runs runs
Cost        As search_spaces/full.py; not measured yet.
Expectation The numbers of the tables: they were made by this code, at rates up to 32 times those that the text states.
"""

from dataclasses import replace

from ecgcmr.search import study
from ecgcmr.trial import Trial

SCALE = replace(study.FULL, space="authors", preset="authors")


def trials() -> list[Trial]:
    """Every pre-training, then every configuration of the grids."""
    return study.trials(SCALE)
