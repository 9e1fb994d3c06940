"""What a model looks at: regions of a CMR image that an ECG resembles, and leads and times of an ECG that it attends to.

The one idea of the first: image encoder and projector are applied as in contrastive learning but for the pooling between
them, so each location of the last feature map gets its own place in the space where the ECG lies, and a cosine says how
near. The one of the second: a token stays where its lead and time put it, so what the pooling takes from a token is traced
back through the blocks to patches. Passive: nothing here trains, and the subjects of Figure 6 are chosen by rule, before any
map is seen.

Source: paper, sections III-C and V-E; attention rollout is of Abnar & Zuidema 2020, arXiv:2005.00928.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from ecgcmr import raw, store, tasks
from ecgcmr.cohort import presence
from ecgcmr.cohort.dataset import Cohort
from ecgcmr.data import inputs
from ecgcmr.errors import Excluded, InputError
from ecgcmr.inference import predict
from ecgcmr.inference.model import Model
from ecgcmr.methods.mmcl import MMCL
from ecgcmr.nn import load as loading
from ecgcmr.nn.vit import LEADS
from ecgcmr.raw import search
from ecgcmr.runs import Run, check_prepared_alike
from ecgcmr.signals import ALWAYS, SIGNALS, Options
from ecgcmr.signals import ecg as signals
from ecgcmr.training import loop
from ecgcmr.trial import Trial

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


def load(run: Run) -> MMCL:
    """The method of a finished multimodal pre-training with the weights it kept, projectors included, for evaluation.

    Raises:
        InputError: it has diverged, is of another method, or kept no projectors.
    """
    trial, runs = _multimodal(run), run.home
    if run.diverged:
        raise InputError(
            f"trial '{run.name}' diverged and left no weights; delete {run.folder} and pre-train with a lower lr"
        )
    method: MMCL = loop.build(trial)
    for part in method.parts:
        method.load(part, store.weights(runs, run.name, part))
    try:
        projectors = store.weights(runs, run.name, "head")
    except InputError as error:
        raise InputError(
            f"trial '{run.name}' was made before projectors were kept; delete {run.folder} and pre-train it again "
            "(ecgcmr pretrain)"
        ) from error
    loading.into(method.head, projectors, "head")
    return method.eval()


def _multimodal(run: Run) -> Trial:
    """The trial of a multimodal pre-training, whose task names two signals.

    Raises:
        InputError: it is of another method.
    """
    if run.trial.method != "mmcl":
        raise InputError(
            f"trial '{run.name}' is of method '{run.trial.method}'; similarity maps need one of method 'mmcl'"
        )
    return run.trial


@torch.no_grad()
def similarity(method: MMCL, ecg: Tensor, image: Tensor) -> Tensor:
    """Cosine of every local projection of an image and the projection of the whole ECG.

        s_p = z_i^p · z_s / (|z_i^p| |z_s|),   z_i^p = g_i(f_i(x_i)_p),   z_s = g_s(f_s(x_s))

    f_i(x_i)_p is the last feature map of the image encoder at location p, before pooling. Views are those of evaluation.

    Args:
        method: trained on these two signals; its batch norms use the statistics they tracked, so that a row depends on its
            own subject alone.
        ecg: x_s, of the method's first signal, as networks read it (`inputs.to_model`), e.g. (n, 12, time).
        image: x_i, likewise of its second, e.g. (n, 3, side, side).

    Raises:
        InputError: the second signal's encoder has no feature maps.

    Returns:
        (n, h, w) in [−1, 1]; 7 × 7 for 210 pixels. Row 0 is the top of the image.

    Source: section III-C. The authors' code upsamples the map to 14 × 14 before projecting and divides the cosine by 0.8;
        neither is in the text.
    """
    # The image is encoded twice, once for nothing: for a few subjects cheaper than a second way to project an ECG.
    first, second = method.needs
    signal, _ = method.project({first: ecg, second: image}, {})
    seen = method.views[second](image, {})
    maps = method.encodings[second].maps(method.get_submodule(second), seen)
    local = method.head[second](maps.movedim(1, -1))
    return F.cosine_similarity(local, signal[:, None, None], dim=-1).clamp(-1, 1)


def maps_for(runs: Sequence[Run], cohort: Cohort, index: pd.DataFrame) -> dict[str, np.ndarray]:
    """Similarity maps of the same subjects by several systems.

    Args:
        runs: multimodal pre-trainings, one per system.
        cohort: the subjects' cohort.
        index: rows of `cohort.rows()` with the signals of every system, a few: all are computed at once.

    Returns:
        name -> (n, h, w) float32, in the order of `index`.

    Raises:
        InputError: see `load`; a system learnt from signals prepared otherwise; a row lacks a signal.
    """
    pairs = {run.name: _multimodal(run).task.split("+") for run in runs}
    needs = list(dict.fromkeys(need for pair in pairs.values() for need in pair))
    lacking = index[~presence.has(index, *needs)]
    if len(lacking):
        raise InputError(
            f"{cohort.path}: {len(lacking)} of the {len(index)} chosen rows lack {_titles(needs)}; leave them out"
        )
    for run, pair in zip(runs, pairs.values(), strict=True):
        check_prepared_alike(
            run,
            cohort.recipe,
            pair,
            where=str(cohort.path),
            advice="give the cohort that it learnt from",
        )
    batch = _batch(cohort.load(index, needs))
    return {
        run.name: similarity(load(run), *(batch[need] for need in pairs[run.name])).numpy()
        for run in runs
    }


def _titles(names: Iterable[str], between: str = " or ") -> str:
    """`ECG or CMR`."""
    return between.join(SIGNALS[name].title for name in names)


def _batch(arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """What networks read, of signals as shards hold them."""
    return inputs.to_model({signal: torch.from_numpy(values) for signal, values in arrays.items()})


# -- one pair, or one ECG ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Pair:
    """An ECG and an image with their similarities.

    Attributes:
        ecg: (12, 5000) mV.
        image: as stored, e.g. a CMR's (3, 210, 210) uint8: end-systole, mid-phase, end-diastole.
        similarity: (h, w), see `similarity`.
    """

    ecg: np.ndarray
    image: np.ndarray
    similarity: np.ndarray


def pair(run: Run, cohort: Cohort, subject: str) -> Pair:
    """The similarity map of a subject of a cohort, of the first visit that has both signals.

    One of the test split is logged as read (`store.log_test_read`).

    Raises:
        InputError: no such subject, or none with both signals; see `maps_for`.
    """
    rows = cohort.rows()
    mine = rows[rows["subject"] == subject]
    if mine.empty:
        raise InputError(f"{cohort.path}: no subject '{subject}'; index.parquet lists them")
    first, second = needs = _multimodal(run).task.split("+")
    index = mine[presence.has(mine, *needs)].head(1)
    if index.empty:
        raise InputError(
            f"{cohort.path}: subject '{subject}' lacks {_titles(needs)}; a similarity map needs both"
        )
    (similarities,) = maps_for([run], cohort, index).values()
    if index["split"].iloc[0] == "test":
        store.log_test_read(run.home, run.name, 1)
    arrays = cohort.load(index, needs)
    return Pair(arrays[first][0].astype(np.float32), arrays[second][0], similarities[0])


def pair_of_files(run: Run, ecg_file: Path, image_file: Path) -> Pair:
    """The similarity map of an ECG file and an image's, e.g. a short-axis stack, prepared as the run's cohort was.

    Raises:
        InputError: a file cannot serve, the run's signals were prepared in a way that files no longer are; see `load`.
    """
    method = load(run)
    first, second = method.needs
    options = {"crop": run.signal_recipes.get(second, {}).get("crop", "heart")}
    check_prepared_alike(
        run,
        {need: SIGNALS[need].recipe(options) for need in method.needs},
        method.needs,
        where="files are given now",
        advice="give the cohort that it learnt from",
    )
    trace = _trace(ecg_file)
    image = _image(second, image_file, options)
    stored = {first: trace.astype(SIGNALS[first].dtype), second: image}  # as a cohort holds them
    batch = _batch({need: array[None] for need, array in stored.items()})
    found = similarity(method, batch[first], batch[second])[0].numpy()
    return Pair(trace, image, found)


def _trace(file: Path) -> np.ndarray:
    (first, *more) = predict.recordings([file])
    if more:
        raise InputError(f"{file}: {len(more) + 1} recordings where one is needed; name one file")
    found = first if isinstance(first, predict.Refused) else predict.prepared(*first)
    if isinstance(found, predict.Refused):
        raise InputError(f"{file}: {found.reason}; this recording cannot serve")
    return found.ecg


def _image(signal: str, file: Path, options: Options) -> np.ndarray:
    try:
        sources = search.recordings(signal, file)
        if len(sources) > 1:
            raise InputError(f"{file}: {len(sources)} stacks where one is needed; name one file")
        reader, source = sources[0]
        return SIGNALS[signal].prepare(raw.READERS[signal][reader].read(source), options).array
    except Excluded as error:
        raise InputError(f"{file}: {error}; this stack cannot serve") from error


# -- attention ---------------------------------------------------------------------------------------------------------


@torch.no_grad()
def attention(model: Model, ecg: np.ndarray) -> np.ndarray:
    """Which leads and times of ECGs the embedding, or the answer, takes its content from: attention rollout.

        w = p · Â_L … Â_1,   Â_l = (A_l + I) / 2

    A_l is the attention of block l, averaged over its heads; I is its residual connection. p is what pooling takes from each
    token: the weights of the attention pool of a fine-tuned run, averaged over heads, else equal weights. The class token is
    never pooled; what goes through it is left out.

    Args:
        model: with an ECG encoder.
        ecg: (n, 12, 5000) mV, prepared.

    Returns:
        (n, 12, times) float32, summing to 1 over the patches that the encoder sees; patch t is the `model.samples` / times
        samples from t on. 1 / (12 · times) is the average.

    Raises:
        InputError: it has no ECG encoder, or its signals were prepared otherwise.

    Source: Abnar & Zuidema 2020, with this model's pooling in place of the class token. The authors' plots shuffle the
        tokens (mask ratio 0) and so give weights to wrong leads and times; here tokens keep their order.
    """
    encoder = model.ecg_encoder
    check_prepared_alike(
        model.run,
        {"ecg": signals.RECIPE},
        ("ecg",),
        where="files are given now",
        advice="give the cohort that it learnt from",
    )
    x = _batch({"ecg": ecg})["ecg"][..., : model.samples]
    taken = _pooling(model, x)
    for weights in reversed(encoder.weights(x)):
        taken = (taken @ weights.mean(1) + taken) / 2
    patches = taken[:, 0, 1:]
    return (patches / patches.sum(1, keepdim=True)).unflatten(1, (LEADS, encoder.times)).numpy()


def _pooling(model: Model, x: Tensor) -> Tensor:
    """What pooling takes from each token of ECGs, (n, 1, 1 + tokens), nothing from the class token."""
    tokens = model.ecg_encoder(x)[:, 1:]
    even = tokens.new_full(tokens.shape[:2], 1 / tokens.shape[1])
    taken = even if model.head is None else model.head.attention_pool.weights(tokens).mean(1)
    return F.pad(taken, (1, 0))[:, None]


def table(weights: np.ndarray, patch_s: float) -> pd.DataFrame:
    """Weights (12, times) as rows of `lead`, `start_s`, `end_s`, `weight`; time runs fastest."""
    leads, times = weights.shape
    start = np.tile(np.arange(times) * patch_s, leads)
    names = np.repeat(signals.LEADS, times)
    return pd.DataFrame(
        {
            "lead": names,
            "start_s": start,
            "end_s": start + patch_s,
            "weight": weights.ravel().astype(np.float64),
        }
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
    left = rows[presence.has(rows, *ALWAYS)]
    if left.empty:
        raise InputError(
            f"{cohort.path}: no row of '{split}' has both ECG and CMR; similarity maps need both"
        )
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
