"""A model on disk: a folder of final runs, five seeds for each task, with what their answers mean.

The one idea: what answers mean is settled on the validation rows, which no run trained on and whose share of the ill is the
cohort's: the recalibration of a risk, the interval and the usual range of a phenotype. A folder that `share` made holds that
in place of the rows, so it names nobody and serves without its cohort. This file computes no answer.
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file

from ecgcmr import files, methods, store, tasks
from ecgcmr.errors import InputError, unknown
from ecgcmr.evaluation import selection, statistics
from ecgcmr.evaluation.statistics import Recalibration
from ecgcmr.runs import Run, read_run, withdrawn_since
from ecgcmr.tasks import Task
from ecgcmr.training import pack
from ecgcmr.trial import Trial

DEFAULT = "mmcl"  # the system that answers where several could and none is named: the paper's own
CALIBRATION = (
    "calibration.json"  # beside the seeds of a shared model, in place of their predictions
)
LEVEL = 0.9  # of the interval of a phenotype
RANGE = (5, 50, 95)  # percentiles of a phenotype in the cohort
FEWEST = 20  # subjects of whom percentiles are told


# -- which runs --------------------------------------------------------------------------------------------------------


def runs_in(folder: Path) -> list[Run]:
    """The finished ECG networks of stage "final" below a folder, by name.

    Args:
        folder: of a search space (`runs/toy`), of its final runs (`runs/toy/final`), of a task, or of one run.

    Raises:
        InputError: see `records`; none in it, or of several search spaces.
    """
    found = [
        run
        for run in records(folder / "final" if (folder / "final").is_dir() else folder)
        if _answers(run.trial)
    ]
    spaces = sorted({run.trial.space for run in found})
    if len(spaces) > 1:
        raise InputError(
            f"model {folder}: holds search spaces {', '.join(spaces)}; name one, e.g. {folder / spaces[0]}"
        )
    if not found:
        raise InputError(
            f"model {folder}: holds no final run on ECGs; run  ecgcmr seeds  first, or name another folder"
        )
    return found


def _answers(trial: Trial) -> bool:
    return (trial.stage, trial.method, trial.modality) == ("final", "supervised", "ecg")


def records(folder: Path) -> list[Run]:
    """Every finished run below a folder, or the one that the folder itself is, by name.

    Raises:
        InputError: no such folder, or a damaged record.
    """
    if not folder.is_dir():
        raise InputError(
            f"model {folder}: no such folder; name the folder of finished runs, e.g. runs/toy/final"
        )
    alone = (folder / store.RECORD).exists()
    return [_read(path) for path in ([folder] if alone else store.finished_folders(folder))]


def _read(folder: Path) -> Run:
    run = read_run(folder)
    if run.trial.task != Path(run.trial.task).name:  # it names a folder in `share`
        raise InputError(
            f"{folder / store.RECORD}: not the record of a run of this version: task '{run.trial.task}' is a path"
        )
    return run


def of_system(found: Sequence[Run], system: str | None) -> dict[str, list[Run]]:
    """The runs of one system by task: with all labels, of the best point, in the order of the seeds.

    Args:
        found: of `runs_in`.
        system: its label; None for the only one there is, or MMCL.

    Raises:
        InputError: no such system, several without MMCL among them, or a task whose every seed diverged.
    """
    labels = sorted({run.trial.label for run in found})
    if system is None:
        system = labels[0] if len(labels) == 1 else DEFAULT
        if system not in labels:
            raise InputError(
                f"the model holds the systems {', '.join(labels)}; choose one with --system"
            )
    if system not in labels:
        raise unknown("system", system, labels)
    mine = [run for run in found if run.trial.label == system]
    chosen = {}
    for task in sorted(
        {run.trial.task for run in mine}, key=lambda name: ([*tasks.TASKS, name].index(name), name)
    ):
        of_task = [run for run in mine if run.trial.task == task]
        most = max(run.trial.take for run in of_task)
        standing = selection.standing_runs([run for run in of_task if run.trial.take == most])
        seeds = [run for run in standing if not run.diverged]
        if not seeds:
            raise InputError(
                f"every seed of '{system}' on task '{task}' diverged; train it again with a lower lr"
            )
        chosen[task] = seeds
    return chosen


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
        withdrawn_since(home, cohort, run.trial.starts, since) for home in (run.home, runs)
    )
    said = []
    if people:
        who = "1 person has" if people == 1 else f"{people:,} people have"
        said.append(f"made from a cohort from which {who} withdrawn since; train it again")
    if "imported" in run.provenance and not run.signal_recipes:
        file = run.provenance["imported"].get("file", "the file")
        said.append(
            f"{file} says nothing of how its signals were prepared; yours are prepared as docs/presets.md says"
        )
    if line := selection.contradiction(run.folder.parents[1], run.trial.take):
        said.append(line)
    return said


def network(run: Run, device: torch.device) -> methods.Method:
    """The network that a supervised run left, for evaluation.

    Raises:
        InputError: its weights are missing, damaged, or not of its network.
    """
    made = pack.build(run.trial, tasks.of(run.trial.task, (run.trial.task,)).outputs)
    try:
        made.load_state_dict({name: torch.from_numpy(x) for name, x in tensors(run).items()})
    except RuntimeError as error:
        raise InputError(
            f"{run.folder / store.ENCODER}: weights of another network; train it again"
        ) from error
    return made.to(device, dtype(run.provenance)).eval()


def tensors(run: Run) -> dict[str, np.ndarray]:
    """All weights that a run left, by name.

    Raises:
        InputError: missing or damaged.
    """
    path = run.folder / store.ENCODER
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: missing or damaged; train it again, or copy it anew") from error


def dtype(provenance: Mapping[str, Any]) -> torch.dtype:
    """What a run's weights are served in: float32, or float64 if it was trained so."""
    return torch.float64 if provenance["precision"] == "float64" else torch.float32


# -- what answers mean -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Disease:
    """What the answers of a binary task mean: the recalibration, and the validation rows that it was made on."""

    n: int
    positive: int
    recalibration: Recalibration


@dataclass(frozen=True)
class Phenotype:
    """What the answers of one phenotype mean.

    Attributes:
        n: validation rows where it is known.
        radius: half width of the interval that holds `LEVEL` of measurements; NaN of too few rows.
        reference: percentiles `RANGE` of those rows; NaN of fewer than `FEWEST`.
    """

    n: int
    radius: float
    reference: tuple[float, float, float]


Meaning = dict[str, Disease | Phenotype]  # by column


def meaning(seeds: Sequence[Run], task: Task) -> Meaning:
    """What a task's answers mean: from the runs' predictions of validation rows, or as a shared model says.

    Raises:
        InputError: neither is there, or the seeds were judged on different rows.
    """
    paths, shared = (
        [run.folder / store.PREDICTIONS for run in seeds],
        seeds[0].folder.parent / CALIBRATION,
    )
    if not all(path.exists() for path in paths):
        return _meaning_of(shared)
    tables = [pd.read_parquet(path).query("split == 'val'") for path in paths]
    if not all(np.array_equal(tables[0].subject, table.subject) for table in tables):
        raise InputError(
            f"{shared.parent}: the seeds were judged on different validation rows; train them on one cohort"
        )
    outputs = np.stack([_columns(table, "output", task) for table in tables])
    targets = _columns(tables[0], "target", task)
    if task.kind == "binary":
        fitted = statistics.recalibration(logit(outputs[..., 0]).mean(0), targets[:, 0], task.name)
        return {task.columns[0]: Disease(len(targets), int(targets.sum()), fitted)}
    return {
        name: _phenotype(targets[:, i], outputs[..., i].mean(0))
        for i, name in enumerate(task.columns)
    }


def _columns(table: pd.DataFrame, kind: str, task: Task) -> np.ndarray:
    return table[[f"{kind}:{name}" for name in task.columns]].to_numpy(np.float64)


def logit(probability: np.ndarray) -> np.ndarray:
    """With the bounds of `statistics.CLIP`: float32 knows no probability nearer to 1."""
    found = np.clip(probability, statistics.CLIP, 1 - statistics.CLIP)
    return np.log(found) - np.log1p(-found)


def _phenotype(measured: np.ndarray, predicted: np.ndarray) -> Phenotype:
    known = measured[np.isfinite(measured)]
    low, middle, high = np.percentile(known, RANGE) if len(known) >= FEWEST else (np.nan,) * 3
    return Phenotype(
        len(known),
        statistics.conformal(measured - predicted, LEVEL),
        (float(low), float(middle), float(high)),
    )


def _told(found: Meaning) -> dict[str, Any]:
    """JSON of a meaning; `_meaning_of` is the inverse. NaN becomes null."""

    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray | tuple | list):
            return [plain(x) for x in value]
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        return None if isinstance(value, float) and np.isnan(value) else value

    return {name: plain(asdict(one)) for name, one in found.items()}


def _meaning_of(path: Path) -> Meaning:
    if not path.exists():
        raise InputError(
            f"{path.parent}: neither predictions of its runs nor {CALIBRATION}; share it anew (ecgcmr share)"
        )
    try:
        return {name: _meant(one) for name, one in json.loads(path.read_text())["answers"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: damaged; share the model anew (ecgcmr share)") from error


def _meant(one: Mapping[str, Any]) -> Disease | Phenotype:
    if "recalibration" in one:
        given = one["recalibration"]
        return Disease(
            one["n"],
            one["positive"],
            Recalibration(**{**given, "covariance": np.array(given["covariance"])}),
        )
    number = [np.nan if x is None else float(x) for x in (one["radius"], *one["reference"])]
    return Phenotype(one["n"], number[0], (number[1], number[2], number[3]))


# -- sharing -----------------------------------------------------------------------------------------------------------


def share(folder: Path | str, out: Path | str, system: str | None = None) -> dict[str, list[Run]]:
    """Make a folder that holds all that serving needs of one system, and no row about a person.

    Weights, records and what the answers mean; neither predictions nor pseudonyms. Counts and percentiles of the validation
    rows are in it, as are prevalence and the fingerprint of the cohort.

    Returns:
        The runs that were copied, by task.

    Raises:
        InputError: see `runs_in`, `of_system` and `meaning`; or `out` is there already.
    """
    out, chosen = Path(out), of_system(runs_in(Path(folder)), system)
    if out.exists():
        raise InputError(f"{out}: is there already; choose another folder or delete it")
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        for name, seeds in chosen.items():
            found = meaning(seeds, tasks.of(name, (name,)))
            for run in seeds:
                network(run, torch.device("cpu"))  # what cannot be loaded is not shared
                kept = aside / name / run.folder.name
                kept.mkdir(parents=True)
                for file in (store.RECORD, store.ENCODER):
                    shutil.copyfile(run.folder / file, kept / file)
            files.write_json(
                aside / name / CALIBRATION, {"format": 1, "level": LEVEL, "answers": _told(found)}
            )
        aside.rename(out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return chosen
