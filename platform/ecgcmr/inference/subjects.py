"""The subjects of Figure 6: chosen by phenotype and by rule, before any map is seen."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from ecgcmr import tasks
from ecgcmr.cohort import presence
from ecgcmr.cohort.dataset import Cohort
from ecgcmr.errors import InputError
from ecgcmr.signals import ALWAYS

CASES = 4  # as many as Figure 6 has
# (caption, phenotypes, sign): the row where sign · phenotype is greatest; sign 0 asks for the row
# nearest the medians.
RULES = (
    ("Typical heart", ("LVEDV", "LVEF"), 0),
    ("Largest left ventricle", ("LVEDV",), 1),
    ("Lowest ejection fraction", ("LVEF",), -1),
    ("Thickest wall", ("WT_Global",), 1),
    ("Heaviest left ventricle", ("LVM",), 1),
)
UNRULED = "Next in file order"


def cases(cohort: Cohort, split: str = "val") -> pd.DataFrame:
    """Four subjects to look at, chosen by phenotype and never by map: one typical heart and three
    extreme ones.

    Each rule of `RULES` in turn takes the subject that fits it best of those not yet taken, the
    first in file order of equals; rules whose phenotypes nobody has are passed over. What is then
    lacking is filled up in file order. "Typical" is the least Σ ((x − median) / sd)² over LVEDV and
    LVEF.

    Args:
        cohort: the cohort.
        split: whose rows; validation by default, since only evaluation runs read the test split.

    Returns:
        Rows of the cohort's index with a column `caption` before them, at most four, of different
        subjects; a caption's first line names the rule, a second one the phenotypes.

    Raises:
        InputError: no row of the split has both signals.

    Source: the kinds are ours; the paper's Figure 6 shows occlusion, motion and extreme morphology,
        chosen by eye.
    """
    rows = cohort.rows(split)
    candidates = rows[presence.has(rows, *ALWAYS)]
    if candidates.empty:
        raise InputError(
            f"{cohort.path}: no row of '{split}' has both ECG and CMR; similarity maps need both"
        )
    captions: dict[Any, str] = {}
    for caption, columns, sign in (*RULES, *[(UNRULED, (), 0)] * CASES):
        if len(captions) == CASES or candidates.empty:
            break
        fittest = _fittest(candidates, columns, sign)
        if fittest is None:
            continue
        measured = ", ".join(_measured(name, rows.loc[fittest, name]) for name in columns)
        captions[fittest] = f"{caption}\n{measured}" if measured else caption
        candidates = candidates[candidates["subject"] != candidates.loc[fittest, "subject"]]
    table = rows.loc[list(captions)]
    table.insert(0, "caption", list(captions.values()))
    return table


def _fittest(rows: pd.DataFrame, columns: Sequence[str], sign: int) -> Any:
    """The label of the row that fits a rule best; the first row for a rule of no phenotype; None if
    none has them.
    """
    if not columns:
        return rows.index[0]
    if not {*columns} <= {*rows.columns}:
        return None
    complete = rows[list(columns)].astype(float).dropna()
    if complete.empty:
        return None
    values = complete.to_numpy()
    if sign:
        return complete.index[int((sign * values[:, 0]).argmax())]
    spread = values.std(0)
    spread[spread == 0] = 1.0  # of one value only: all are equally near
    distance = np.square((values - np.median(values, 0)) / spread).sum(1)
    return complete.index[int(distance.argmin())]


def _measured(name: str, value: float) -> str:
    """`LVEDV 142 mL`."""
    return f"{name.replace('_', ' ')} {value:.3g} {tasks.UNITS[name]}"
