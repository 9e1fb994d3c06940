"""Which regions of a CMR image the ECG of the same subject resembles: the patch-based interpretability module.

The one idea: image encoder and projector are applied as in contrastive learning but for the pooling between them, so each
location of the last feature map gets its own place in the space where the ECG lies, and a cosine says how near. Passive:
nothing here trains, and the subjects shown are chosen by rule, before any map is seen.

Source: paper, sections III-C and V-E.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from ecgcmr import examples, store, tasks, training
from ecgcmr import trial as trials
from ecgcmr.cohort import Cohort
from ecgcmr.errors import InputError
from ecgcmr.methods.mmcl import MMCL
from ecgcmr.nn import load as loading
from ecgcmr.trial import Trial

SIGNALS = ("ecg", "cmr")
CASES = 4  # as many as Figure 6 has
# (caption, phenotypes, sign): the row where sign · phenotype is greatest; sign 0 asks for the row nearest the medians.
RULES = (
    ("Typical heart", ("LVEDV", "LVEF"), 0),
    ("Largest left ventricle", ("LVEDV",), 1),
    ("Lowest ejection fraction", ("LVEF",), -1),
    ("Thickest wall", ("WT_Global",), 1),
    ("Heaviest left ventricle", ("LVM",), 1),
)
UNRULED = "Next in file order"


# -- similarity --------------------------------------------------------------------------------------------------------


def load(runs: Path, name: str) -> tuple[MMCL, Trial]:
    """The method of a finished multimodal pre-training with the weights it kept, projectors included, for evaluation.

    Args:
        runs: where finished trials lie.
        name: of the trial.

    Raises:
        InputError: it has not finished or has diverged, is of another method, or kept no projectors.
    """
    record = _record(runs, name)
    trial, folder = trials.from_json(record["trial"]), store.folder(runs, name)
    if trial.method != "mmcl":
        raise InputError(f"trial '{name}' is of method '{trial.method}'; similarity maps need one of method 'mmcl'")
    if record["status"] == "diverged":
        raise InputError(f"trial '{name}' diverged and left no weights; delete {folder} and pre-train with a lower lr")
    method: MMCL = training.build(trial)
    for part in method.parts:
        method.load(part, store.weights(runs, name, part))
    try:
        projectors = store.weights(runs, name, "head")
    except InputError as error:
        raise InputError(
            f"trial '{name}' was made before projectors were kept; delete {folder} and pre-train it again "
            "(ecgcmr pretrain)"
        ) from error
    loading.into(method.head, projectors, "head")
    return method.eval(), trial


def _record(runs: Path, name: str) -> dict[str, Any]:
    path = store.folder(runs, name) / store.RECORD
    if not path.exists():
        raise InputError(f"trial '{name}' has not finished under {runs}; run it first (ecgcmr pretrain)")
    return json.loads(path.read_text())


@torch.no_grad()
def similarity(method: MMCL, ecg: Tensor, cmr: Tensor) -> Tensor:
    """Cosine of every local image projection and the projection of the whole ECG.

        s_p = z_i^p · z_s / (|z_i^p| |z_s|),   z_i^p = g_i(f_i(x_i)_p),   z_s = g_s(f_s(x_s))

    f_i(x_i)_p is the last feature map of the image encoder at location p, before pooling. Views are those of evaluation.

    Args:
        method: trained; its batch norms use the statistics they tracked, so a row depends on its own subject alone.
        ecg: x_s, (n, 12, time), standardised as `ecg.normalise` does.
        cmr: x_i, (n, 3, side, side), in [0, 1].

    Returns:
        (n, h, w) in [−1, 1]; 7 × 7 for 210 pixels. Row 0 is the top of the image.

    Source: section III-C. The authors' code upsamples the map to 14 × 14 before projecting and divides the cosine by 0.8;
        neither is in the text.
    """
    # The image is encoded twice, once for nothing: for a few subjects cheaper than a second way to project an ECG.
    signal, _ = method.project({"ecg": ecg, "cmr": cmr}, {})
    maps = method.cmr.maps(method.cmr_view(cmr, {}), False)
    local = method.head["cmr"](maps.movedim(1, -1))
    return F.cosine_similarity(local, signal[:, None, None], dim=-1).clamp(-1, 1)


def maps_for(runs: Path, cohort: Cohort, names: Sequence[str], index: pd.DataFrame) -> dict[str, np.ndarray]:
    """Similarity maps of the same subjects by several systems.

    Args:
        runs: where finished trials lie.
        cohort: the subjects' cohort.
        names: of multimodal pre-trainings, one per system.
        index: rows of `cohort.rows()` with both signals, a few: all are computed at once.

    Returns:
        name -> (n, h, w) float32, in the order of `index`.

    Raises:
        InputError: see `load`; a system learnt from signals prepared otherwise; a row lacks a signal.
    """
    lacking = index[~(index["has_ecg"] & index["has_cmr"])]
    if len(lacking):
        raise InputError(
            f"{cohort.path}: {len(lacking)} of the {len(index)} chosen rows lack ECG or CMR; leave them out"
        )
    for name in names:
        _check_recipe(runs, name, cohort)
    arrays = cohort.load(index, SIGNALS)
    batch = examples.to_model({signal: torch.from_numpy(values) for signal, values in arrays.items()})
    return {name: similarity(load(runs, name)[0], batch["ecg"], batch["cmr"]).numpy() for name in names}


def _check_recipe(runs: Path, name: str, cohort: Cohort) -> None:
    """Refuse a system that learnt from signals prepared in another way."""
    recipe = _record(runs, name)["provenance"].get("cohort", {}).get("recipe", {})
    differ = []
    for signal in SIGNALS:
        old, new = recipe.get(signal, {}), cohort.recipe.get(signal, {})
        differ += [f"{signal}.{k} {old[k]} → {new[k]}" for k in sorted({*old} & {*new}) if old[k] != new[k]]
    if differ:
        raise InputError(
            f"trial '{name}' learnt from signals of another recipe than {cohort.path}: {'; '.join(differ)}; "
            "give the cohort that it learnt from"
        )


# -- subjects ----------------------------------------------------------------------------------------------------------


def cases(cohort: Cohort, split: str = "val") -> pd.DataFrame:
    """Four subjects to look at, chosen by phenotype and never by map: one typical heart and three extreme ones.

    Each rule of `RULES` in turn takes the subject that fits it best of those not yet taken, the first in file order of
    equals; rules whose phenotypes nobody has are passed over. What is then lacking is filled up in file order.
    "Typical" is the least Σ ((x − median) / sd)² over LVEDV and LVEF.

    Args:
        cohort: the cohort.
        split: whose rows; validation by default, since only final runs read the test split.

    Returns:
        Rows of the cohort's index with a column `caption` before them, at most four, of different subjects; a caption's
        first line names the rule, a second one the phenotypes.

    Raises:
        InputError: no row of the split has both signals.

    Source: the kinds are ours; the paper's Figure 6 shows occlusion, motion and extreme morphology, chosen by eye.
    """
    rows = cohort.rows(split)
    left = rows[rows["has_ecg"] & rows["has_cmr"]]
    if left.empty:
        raise InputError(f"{cohort.path}: no row of '{split}' has both ECG and CMR; similarity maps need both")
    chosen: dict[Any, str] = {}
    for caption, columns, sign in (*RULES, *[(UNRULED, (), 0)] * CASES):
        if len(chosen) == CASES or left.empty:
            break
        found = _fittest(left, columns, sign)
        if found is None:
            continue
        measured = ", ".join(_measured(name, rows.loc[found, name]) for name in columns)
        chosen[found] = f"{caption}\n{measured}" if measured else caption
        left = left[left["subject"] != left.loc[found, "subject"]]
    picked = rows.loc[list(chosen)]
    picked.insert(0, "caption", list(chosen.values()))
    return picked


def _fittest(rows: pd.DataFrame, columns: Sequence[str], sign: int) -> Any:
    """The label of the row that fits a rule best; the first row for a rule of no phenotype; None if none has them."""
    if not columns:
        return rows.index[0]
    if not {*columns} <= {*rows.columns}:
        return None
    known = rows[list(columns)].astype(float).dropna()
    if known.empty:
        return None
    values = known.to_numpy()
    if sign:
        return known.index[int((sign * values[:, 0]).argmax())]
    spread = values.std(0)
    spread[spread == 0] = 1.0  # of one value only: all are equally near
    distance = np.square((values - np.median(values, 0)) / spread).sum(1)
    return known.index[int(distance.argmin())]


def _measured(name: str, value: float) -> str:
    """`LVEDV 142 mL`."""
    return f"{name.replace('_', ' ')} {value:.3g} {tasks.UNITS[name]}"
