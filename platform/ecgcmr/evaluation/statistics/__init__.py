"""How sure an answer is: intervals, paired tests and calibration, exact where a formula exists and
resampled elsewhere.

One idea: the unit of analysis is the person (`people`). People are drawn, with all their visits;
members are not. Scores are (m, n), one row per member (a seed, a system, a trial) over the same n
rows, so every comparison is paired: DeLong's covariance holds for all members together, and one set
of resamples serves every metric and every member. A member whose outputs are not numbers gets NaN
while the others get their values. Where every row is another person, all of it is what the
textbooks say. That seeds are drawn too is `seeds`'s matter.
"""

from ecgcmr.evaluation.statistics.auroc import auroc_contrast, auroc_interval, delong
from ecgcmr.evaluation.statistics.bootstrap import (
    bootstrap_auroc,
    bootstrap_average_precision,
    bootstrap_contrast,
    bootstrap_pearson,
    interval,
    paired,
    resamples,
    resamples_of_people,
)
from ecgcmr.evaluation.statistics.effects import (
    LEVEL,
    ROUNDING,
    Effect,
    fisher_interval,
    fisher_mean,
    holm,
    mean_interval,
)
from ecgcmr.evaluation.statistics.prediction_intervals import assured, conformal
from ecgcmr.evaluation.statistics.probabilities import (
    CLIP,
    Bins,
    Calibration,
    Recalibration,
    calibration,
    prior_corrected,
    recalibration,
    reliability,
)

__all__ = [
    "CLIP",
    "LEVEL",
    "ROUNDING",
    "Bins",
    "Calibration",
    "Effect",
    "Recalibration",
    "assured",
    "auroc_contrast",
    "auroc_interval",
    "bootstrap_auroc",
    "bootstrap_average_precision",
    "bootstrap_contrast",
    "bootstrap_pearson",
    "calibration",
    "conformal",
    "delong",
    "fisher_interval",
    "fisher_mean",
    "holm",
    "interval",
    "mean_interval",
    "paired",
    "prior_corrected",
    "recalibration",
    "reliability",
    "resamples",
    "resamples_of_people",
]
