"""Runs on disk: the truth that reports, resumes and Aim are made from.

One folder per trial under `runs/`, named by the trial. A folder is finished when it holds
`trial.json`; whatever is written is written aside and renamed, so a killed run leaves no half file.
A running trial keeps `progress.json` beside it for the display and for `ecgcmr status`.
`test-reads.jsonl` says who read the test split, and when; `withdrawn.json` which cohorts people
have withdrawn from since.
"""

import json
import os
import shutil
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors.numpy import load_file, save_file

from ecgcmr import checksums, files
from ecgcmr import trial as trials
from ecgcmr.errors import InputError
from ecgcmr.trial import SEED_FOLDERS, Trial

RECORD = "trial.json"
ROWS = "rows.parquet"
CURVE = "curve.parquet"
PREDICTIONS = "predictions.parquet"
ENCODER = "encoder.safetensors"
PROGRESS = "progress.json"
TEST_READS = "test-reads.jsonl"
WITHDRAWN = "withdrawn.json"
# Stage -> the command that runs it.
COMMANDS = {"pretrain": "pretrain", "grid": "sweep", "evaluation": "evaluate"}

# rows.parquet: one measured number each. `status`: "finished", "early-stopped", "halted" or
# "diverged".
ROW_COLUMNS = (
    "trial",
    "space",
    "stage",
    "task",
    "system",
    "method",
    "configuration",
    "seed",
    "label_fraction",
    "preset",
    "split",
    "metric",
    "value",
    "n",
    "status",
    "epoch",
)


@dataclass(frozen=True)
class Finished:
    """What one trial leaves behind.

    Attributes:
        trial: the trial.
        status: "finished", "early-stopped", "halted" or "diverged".
        scores: (split, metric, value, n) of the kept weights.
        curve: one row per measurement while training: `step`, `epoch`, then one column per
            quantity.
        predictions: `split`, `subject`, `target:<column>`, `output:<column>` (probability, or
            phenotype in its unit).
        weights: tensors by name, `ecg.*` and `cmr.*` for encoders, `head.*` for what answers.
        epoch: the epoch of the kept weights, from 0.
        provenance: machine, versions, seconds, cohort recipe.
    """

    trial: Trial
    status: str
    scores: tuple[tuple[str, str, float, int], ...]
    curve: pd.DataFrame
    predictions: pd.DataFrame | None
    weights: dict[str, Any]
    epoch: int
    provenance: dict[str, Any]


def folder(runs: Path, name: str) -> Path:
    """The folder of the trial of that name."""
    return runs / name


def write(runs: Path, result: Finished, cohort_fingerprint: str) -> list[dict[str, Any]]:
    """Write one trial's folder, whole or not at all, and return its rows."""
    trial = result.trial
    identity = {
        "trial": trial.name,
        "space": trial.space,
        "stage": trial.stage,
        "task": trial.task,
        "system": trial.system,
        "method": trial.method,
        "configuration": trial.configuration,
        "seed": trial.seed,
        "label_fraction": trial.label_fraction,
        "preset": trial.preset,
        "status": result.status,
        "epoch": result.epoch,
    }
    rows = [
        {**identity, "split": s, "metric": m, "value": float(v), "n": int(n)}
        for s, m, v, n in result.scores
    ]
    target = folder(runs, trial.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(
        f".{target.name}.{uuid.uuid4().hex}"
    )  # not tempfile's: that hides it from a shared group
    aside.mkdir()
    try:
        pd.DataFrame(rows, columns=list(ROW_COLUMNS)).to_parquet(aside / ROWS)
        result.curve.to_parquet(aside / CURVE)
        if result.predictions is not None:
            result.predictions.to_parquet(aside / PREDICTIONS)
        if result.weights:
            save_file(dict(sorted(result.weights.items())), aside / ENCODER)
            shutil.copymode(aside / ROWS, aside / ENCODER)  # safetensors writes for the owner alone
        record = {
            "trial": trials.to_json(trial),
            "recipe": trials.recipe(trial, cohort_fingerprint),
            "fingerprint": trials.fingerprint(trial, cohort_fingerprint),
            "status": result.status,
            "provenance": result.provenance,
        }
        (aside / RECORD).write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
        checksums.write(aside)
        if (
            target.exists()
        ):  # an unfinished one: progress and checkpoints; set aside first, lest a kill lose both
            os.replace(target, aside.with_name(f"{aside.name}.old"))
        files.flush_all(aside)
        os.replace(aside, target)
        files.flush(target.parent)
        shutil.rmtree(aside.with_name(f"{aside.name}.old"), ignore_errors=True)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return rows


def verified(folder: Path, name: str) -> Path:
    """The path of a file of a finished run, which is as it was written.

    Raises:
        Damaged: it is not; names the commands that run it again.
        InputError: the run was written without it, or without checksums.
    """
    try:
        return checksums.verified(folder, name)
    except checksums.Damaged as error:
        raise checksums.Damaged(f"{error}; {_again(folder)}") from error


def _again(folder: Path) -> str:
    command = COMMANDS.get(trials.stage_above(folder), "pretrain, sweep or evaluate")
    return f"ecgcmr {command} sets the run aside and makes it again (a copy: copy it anew)"


def set_damaged_aside(folder: Path) -> str:
    """Rename the folder of a finished run whose files are not all as they were written.

    Returns:
        A line that says so; "" where all are.

    Raises:
        InputError: it was written without checksums.
    """
    if not (folder / RECORD).exists() and not (folder / checksums.SUMS).exists():
        return ""
    try:
        line = next(checksums.faults(folder), "")
    except checksums.Damaged as error:
        line = str(error)
    if not line:
        return ""
    target = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.damaged")
    os.replace(folder, target)
    files.flush(folder.parent)
    is_evaluation = trials.stage_above(folder) == "evaluation"
    twice = ", which reads the test set once more" if is_evaluation else ""
    return f"{line}; the run is set aside as {target.name} and made again{twice}"


def finished_folders(runs: Path) -> list[Path]:
    """The folders of all finished trials below a folder, by name."""
    return sorted(path.parent for path in runs.glob(f"{SEED_FOLDERS}/{RECORD}"))


def rows(runs: Path) -> pd.DataFrame:
    """Every measured number under `runs`, one row each; empty if nothing has finished."""
    tables = [pd.read_parquet(verified(path, ROWS)) for path in finished_folders(runs)]
    return (
        pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(ROW_COLUMNS))
    )


def weights(runs: Path, name: str, part: str) -> dict[str, Any]:
    """The encoder `part` ("ecg" or "cmr") that the trial of that name left, as NumPy arrays without
    the prefix.

    Raises:
        InputError: no such trial has finished, or it left no such encoder.
    """
    if not (folder(runs, name) / RECORD).exists():
        raise InputError(
            f"start '{name}' has no {ENCODER} under {runs}; run its pre-training first (ecgcmr "
            "pretrain)"
        )
    path = verified(folder(runs, name), ENCODER)
    prefix = f"{part}."
    tensors = {
        key.removeprefix(prefix): value
        for key, value in load_file(path).items()
        if key.startswith(prefix)
    }
    if not tensors:
        raise InputError(f"start '{name}' has no '{part}' encoder in {path}")
    return tensors


def log_test_read(runs: Path, trial_name: str, rows: int) -> None:
    """Note that a trial is about to read the test split: one JSON line in `runs/test-reads.jsonl`.

    The line is appended by a single O_APPEND write, so that those of packs side by side do not mix.
    A run that is killed after it and starts again adds another line: it has read the test split
    twice.

    Args:
        runs: the folder of runs.
        trial_name: of the evaluation trial.
        rows: how many rows of the split it reads.
    """
    record = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "trial": trial_name,
        "rows": rows,
    }
    runs.mkdir(parents=True, exist_ok=True)
    file = os.open(runs / TEST_READS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(file, f"{json.dumps(record)}\n".encode())
    finally:
        os.close(file)


def test_reads(runs: Path) -> list[dict[str, Any]]:
    """Every read of the test split under `runs`, in the order of the log: `time` (ISO, UTC),
    `trial`, `rows`.

    Raises:
        InputError: a line of the log is damaged.
    """
    path, reads = runs / TEST_READS, []
    if not path.exists():
        return []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            reads.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise InputError(
                f"{path}:{number}: not a JSON record; restore the file, it is the log of test reads"
            ) from error
    return reads


def note_withdrawn(runs: Path, since: Mapping[str, int]) -> None:
    """Note of cohorts, by fingerprint, how many people have withdrawn since; what was made from
    them is stale.
    """
    files.write_json(runs / WITHDRAWN, {**withdrawn(runs), **since})


def withdrawn(runs: Path) -> dict[str, int]:
    """Fingerprint of a cohort -> people who have withdrawn since; empty if nobody has.

    Raises:
        InputError: the note is damaged.
    """
    path = runs / WITHDRAWN
    if not path.exists():
        return {}
    try:
        return {str(name): int(people) for name, people in json.loads(path.read_text()).items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise InputError(
            f"{path}: damaged; withdraw again with this --runs, it says which runs are stale"
        ) from error


class Progress:
    """Tells the display how far a piece of work is, through a small file; at most one write per
    `every` seconds.
    """

    def __init__(
        self, runs: Path, name: str, total: int, unit: str, every: float = 0.5, done: int = 0
    ) -> None:
        self.path = folder(runs, name) / PROGRESS
        self.record: dict[str, Any] = {
            "name": name,
            "total": total,
            "unit": unit,
            "started": time.time(),
        }
        self.record.update(done=done, resumed_at=done)
        self.every, self.written = every, 0.0

    def update(self, done: int, **shown: float) -> None:
        """Set how many units are done, with a few numbers to show beside."""
        self.record.update(done=done, shown=shown, now=time.time())
        if self.record["now"] - self.written >= self.every or done >= self.record["total"]:
            files.write_json(self.path, self.record, durable=False)  # of no use to the next run
            self.written = self.record["now"]

    def close(self) -> None:
        """Forget the work: it is finished, or stopped."""
        self.path.unlink(missing_ok=True)


def running(runs: Path) -> list[dict[str, Any]]:
    """The progress records under `runs`, oldest first; a killed run leaves its last one."""
    records = []
    for path in runs.glob(f"**/{PROGRESS}"):
        try:
            records.append(json.loads(path.read_text()))
        except (OSError, json.JSONDecodeError):  # removed or replaced between the two calls
            continue
    return sorted(records, key=lambda record: record["started"])
