"""How trials are cut into packs: by what changes shapes, and by what the device's memory holds.

This file does not know Ray and does not choose which trials run.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ecgcmr.data.examples import Cohort
from ecgcmr.methods import encodings
from ecgcmr.training import finetune, trees
from ecgcmr.training.pack import in_cache
from ecgcmr.trial import Trial

log = logging.getLogger(__name__)

CPU_PACK = 16  # members; larger packs gain nothing on a few cores and delay the first rows
GPU_PACK = 64
TABULAR_PACK = 64  # trees need no device and run in turn: a pack shares the reading of the index


def partition(trials: Iterable[Trial]) -> list[list[Trial]]:
    """Trials that can share a pack, by what changes shapes or data.

    In order of first appearance.
    """
    parts: dict[Any, list[Trial]] = defaultdict(list)
    for trial in trials:
        parts[finetune.pack_key(trial)].append(trial)
    return list(parts.values())


def packs(
    trials: Iterable[Trial], limit: Callable[[Trial], int] | None = None, at_once: int = 1
) -> list[list[Trial]]:
    """Cut trials into packs of nearly equal size.

    Args:
        trials: supervised trials.
        limit: members of a pack of such trials at most; by default what the memory of this
            machine's device holds.
        at_once: packs that run side by side; a partition is cut at least so often.
    """
    packs_of_trials = []
    for part in partition(trials):
        size = limit(part[0]) if limit else pack_limit(part[0], device_bytes())
        count = min(len(part), max(-(-len(part) // size), at_once))
        by_seed = sorted(part, key=lambda trial: trial.seed)  # one seed, one stream of batches
        places = np.array_split(np.arange(len(part)), count)
        packs_of_trials += [[by_seed[i] for i in pack] for pack in places]
    return packs_of_trials


def pack_limit(trial: Trial, memory: int | None) -> int:
    """How many such trials fit on a device of so many bytes; `None` is a CPU.

    Trees use no device.
    """
    if trial.method == trees.METHOD:
        return TABULAR_PACK
    if memory is None:
        return min(CPU_PACK, in_cache(trial))
    return max(1, min(GPU_PACK, int(0.6 * memory // member_bytes(trial))))


def member_bytes(trial: Trial) -> int:
    """Bytes that one more member needs: weights with gradient, two moments, best and a copy, and
    the activations of a batch.
    """
    weights, activations = encodings.of(trial.modality).bytes_of(trial.network, trial.batch)
    return int(6 * 4 * weights + activations)


def device_bytes() -> int | None:
    """Memory of the first GPU; None without one."""
    return torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else None


def train(
    trials: list[Trial], cohort: Cohort, runs: Path, device: str | None, precision: str, name: str
) -> None:
    """Fit a pack; one that does not fit into the GPU's memory is halved."""
    waiting = [trials] if trials else []
    while waiting:
        pack = waiting.pop(0)
        try:
            finetune.fit(pack, cohort, runs, device=device, precision=precision, progress=name)
            halves = []
        except torch.cuda.OutOfMemoryError:
            if len(pack) == 1:
                raise
            halves = [pack[: len(pack) // 2], pack[len(pack) // 2 :]]
        if halves:  # outside `except`: there the failed pack's tensors are still referred to
            torch.cuda.empty_cache()
            log.warning("pack of %d does not fit into the device's memory: halved", len(pack))
            waiting = halves + waiting
