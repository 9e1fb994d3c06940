"""A model on disk: a folder of evaluation runs, five seeds for each task; which of them answer, and
their networks.

This file computes no answer. What answers mean is in `calibration`; `share` makes a folder that
serves without its cohort.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file

from ecgcmr import methods, store, tasks
from ecgcmr.errors import InputError, unknown
from ecgcmr.evaluation import selection
from ecgcmr.runs import Run, read_run, withdrawn_since
from ecgcmr.training import pack
from ecgcmr.trial import Trial

DEFAULT = "mmcl"  # the system that answers where several could and none is named: the paper's own


def runs_in(folder: Path) -> list[Run]:
    """The finished ECG networks of stage "evaluation" below a folder, by name.

    Args:
        folder: of a search space (`runs/toy`), of its evaluation runs (`runs/toy/evaluation`), of a
            task, or of one run.

    Raises:
        InputError: see `records`; none in it, or of several search spaces.
    """
    evaluations = [
        run
        for run in records(folder / "evaluation" if (folder / "evaluation").is_dir() else folder)
        if _answers(run.trial)
    ]
    spaces = sorted({run.trial.space for run in evaluations})
    if len(spaces) > 1:
        raise InputError(
            f"model {folder}: holds search spaces {', '.join(spaces)}; name one, e.g. "
            f"{folder / spaces[0]}"
        )
    if not evaluations:
        raise InputError(
            f"model {folder}: holds no evaluation run on ECGs; run  ecgcmr evaluate  first, or "
            "name another folder"
        )
    return evaluations


def _answers(trial: Trial) -> bool:
    return (trial.stage, trial.method, trial.modality) == ("evaluation", "supervised", "ecg")


def records(folder: Path) -> list[Run]:
    """Every finished run below a folder, or the one that the folder itself is, by name.

    Raises:
        InputError: no such folder, or a damaged record.
    """
    if not folder.is_dir():
        raise InputError(
            f"model {folder}: no such folder; name the folder of finished runs, e.g. "
            "runs/toy/evaluation"
        )
    alone = (folder / store.RECORD).exists()
    return [_run_of(path) for path in ([folder] if alone else store.finished_folders(folder))]


def _run_of(folder: Path) -> Run:
    run = read_run(folder)
    if run.trial.task != Path(run.trial.task).name:  # it names a folder in `share`
        raise InputError(
            f"{folder / store.RECORD}: not the record of a run of this version: task "
            f"'{run.trial.task}' is a path"
        )
    return run


def of_system(evaluations: Sequence[Run], system: str | None) -> dict[str, list[Run]]:
    """The runs of one system by task: with all labels, of the best configuration, in the order of
    the seeds.

    Args:
        evaluations: of `runs_in`.
        system: its name; None for the only one there is, or MMCL.

    Raises:
        InputError: no such system, several without MMCL among them, or a task whose every seed
            diverged.
    """
    systems = sorted({run.trial.system for run in evaluations})
    if system is None:
        system = systems[0] if len(systems) == 1 else DEFAULT
        if system not in systems:
            raise InputError(
                f"the model holds the systems {', '.join(systems)}; choose one with --system"
            )
    if system not in systems:
        raise unknown("system", system, systems)
    of_system_named = [run for run in evaluations if run.trial.system == system]
    by_task = {}
    for task in sorted(
        {run.trial.task for run in of_system_named},
        key=lambda name: ([*tasks.TASKS, name].index(name), name),
    ):
        of_task = [run for run in of_system_named if run.trial.task == task]
        most = max(run.trial.label_fraction for run in of_task)
        standing = selection.standing_runs(
            [run for run in of_task if run.trial.label_fraction == most]
        )
        seeds = [run for run in standing if not run.diverged]
        if not seeds:
            raise InputError(
                f"every seed of '{system}' on task '{task}' diverged; train it again with a lower "
                "lr"
            )
        by_task[task] = seeds
    return by_task


def cautions(run: Run, runs: Path) -> list[str]:
    """What whoever uses a run should know of where it comes from, a line each.

    Args:
        run: the run.
        runs: a folder of runs that may know of withdrawals, beside the one that the run lies in.

    Raises:
        InputError: the note of withdrawals is damaged.
    """
    cohort = run.provenance.get("cohort", {}).get("fingerprint", "")
    since = store.withdrawn(run.home) | store.withdrawn(runs)
    people = max(
        withdrawn_since(home, cohort, run.trial.init_from, since) for home in (run.home, runs)
    )
    lines = []
    if people:
        people_have = "1 person has" if people == 1 else f"{people:,} people have"
        lines.append(f"made from a cohort from which {people_have} withdrawn since; train it again")
    if "imported" in run.provenance and not run.signal_recipes:
        file = run.provenance["imported"].get("file", "the file")
        lines.append(
            f"{file} says nothing of how its signals were prepared; yours are prepared as "
            "docs/presets.md says"
        )
    if line := selection.contradiction(run.folder.parents[1], run.trial.label_fraction):
        lines.append(line)
    return lines


def network(run: Run, device: torch.device) -> methods.Method:
    """The network that a supervised run left, for evaluation.

    Raises:
        InputError: its weights are missing, damaged, or not of its network.
    """
    method = pack.build(run.trial, tasks.of(run.trial.task, (run.trial.task,)).outputs)
    try:
        method.load_state_dict({name: torch.from_numpy(x) for name, x in tensors(run).items()})
    except RuntimeError as error:
        raise InputError(
            f"{run.folder / store.ENCODER}: weights of another network; train it again"
        ) from error
    return method.to(device, dtype(run.provenance)).eval()


def tensors(run: Run) -> dict[str, np.ndarray]:
    """All weights that a run left, by name.

    Raises:
        InputError: missing or damaged.
    """
    path = store.verified(run.folder, store.ENCODER)
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: missing or damaged; train it again, or copy it anew") from error


def dtype(provenance: Mapping[str, Any]) -> torch.dtype:
    """What a run's weights are served in: float32, or float64 if it was trained so."""
    return torch.float64 if provenance["precision"] == "float64" else torch.float32
