"""One training run, as data. A Trial's readable name is its folder; its fingerprint says which
recipe made the folder.

Fine-tuning is the method `supervised` with `starts`; the supervised baseline is the same without; a
grid is a list of Trials; five seeds are `replace(best, seed=s)`. This file knows nothing of how a
trial is run.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ecgcmr import __version__
from ecgcmr.errors import InputError
from ecgcmr.nn import Network

STAGES = ("pretrain", "grid", "final")
# Method of a pre-training whose weights came in a file: not trained here, for no epochs.
IMPORTED = "imported"


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A training run.

    Attributes:
        space: the search space's name; the first folder.
        stage: "pretrain"; "grid" (a point judged on validation); "final" (the chosen point, the
            only one to see test).
        task: a name of `tasks.TASKS` or a label column; for pre-training the modality: "ecg", "cmr"
            or "ecg+cmr".
        label: the word for the system in tables and paths: "supervised", "mae", "mmcl",
            "mmcl-wo-mdm" …
        method: a name of `methods.METHODS`, "xgboost", or IMPORTED.
        starts: (part, name of the trial whose encoder it starts from) pairs, e.g. (("ecg",
            "toy/pretrain/ecg/mae/…"),).
        modality: what a supervised trial reads: "ecg", "cmr", or "tabular" (method "xgboost": age,
            sex, height, weight).
        seed: of weights, batches and noise.
        preset: "paper" or "authors".
        network: every size that fixes a shape.
        batch: subjects per optimiser step, over all workers together; 0: all rows at once, as trees
            do.
        epochs: passes over the training rows; the schedule's length.
        take: share of the (balanced) training rows used, in (0, 1].
        eval_every: epochs between two validations.
        halving: of a grid's trials one in so many goes on at each rung (`training.asha`); 0: all
            do, as in the paper.
        knobs: (name, number) pairs that may differ within a pack; what is absent is the method's
            default.
    """

    space: str
    stage: str
    task: str
    label: str
    method: str
    starts: tuple[tuple[str, str], ...] = ()
    modality: str = "ecg"
    seed: int = 0
    preset: str = "paper"
    network: Network = field(default_factory=Network)
    batch: int = 32
    epochs: int = 400
    take: float = 1.0
    eval_every: int = 1
    halving: int = 0
    knobs: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        """Refuse what could never run, while the file that says it is still known to the reader."""
        if self.stage not in STAGES:
            raise InputError(
                f"stage '{self.stage}' of a trial in space '{self.space}': use one of "
                f"{', '.join(STAGES)}"
            )
        ready = self.method == IMPORTED
        least = {
            "batch": 0 if ready or self.method == "xgboost" else 1,
            "epochs": 0 if ready else 1,
            "eval_every": 1,
        }
        for name, low in least.items():
            if getattr(self, name) < low:
                raise InputError(
                    f"{name}={getattr(self, name)} of trial '{self.name}': must be at least {low}"
                )
        if self.halving == 1 or self.halving < 0:
            raise InputError(
                f"halving={self.halving} of trial '{self.name}': must be 0 (none) or at least 2"
            )
        if not 0 < self.take <= 1:
            raise InputError(f"take={self.take} of trial '{self.name}': must lie in (0, 1]")

    @property
    def point(self) -> str:
        """The folder of what a search varies, e.g. `batch=8,layer_decay=0.5,lr=1e-05`; `default` if
        nothing is.
        """
        words = [f"batch={self.batch}"] if self.batch else []
        words += [f"{name}={value:g}" for name, value in sorted(self.knobs)]
        words += [f"take={self.take:g}"] if self.take != 1 else []
        words += [f"asha={self.halving}"] if self.halving else []
        words += ["authors"] if self.preset == "authors" else []
        return ",".join(words) or "default"

    @property
    def task_folder(self) -> str:
        """`<space>/<stage>/<task>`: what the trials of a task have in common."""
        return f"{self.space}/{self.stage}/{self.task}"

    @property
    def system_folder(self) -> str:
        """`<space>/<stage>/<task>/<label>`: what the points of one system have in common."""
        return f"{self.task_folder}/{self.label}"

    @property
    def name(self) -> str:
        """`<space>/<stage>/<task>/<label>/<point>/seed=<s>`: the trial's folder under `runs/`."""
        return f"{self.system_folder}/{self.point}/seed={self.seed}"


# -- the grammar of a name, which is a path --------------------------------------------------------

SEED_FOLDERS = "**/seed=*"  # below a folder of runs: where trials lie
DEPTH = 6  # folders of a name


class NameParts(NamedTuple):
    """The folders of a trial's name, or of what it shares with others; "" where it has none."""

    space: str = ""
    stage: str = ""
    task: str = ""
    label: str = ""
    point: str = ""
    seed: str = ""

    @property
    def system_folder(self) -> str:
        """`<space>/<stage>/<task>/<label>`."""
        return "/".join(self[:4])


def name_parts(name: str) -> NameParts:
    """The folders of a trial's name, of a sweep of pre-trainings (`Trial.system_folder`), or of any
    folder above it.
    """
    return NameParts(*name.split("/")[:DEPTH])


def take_of(point: str) -> float:
    """The share of the labels that a point's folder tells of."""
    shares = [word.removeprefix("take=") for word in point.split(",") if word.startswith("take=")]
    return float(shares[0]) if shares else 1.0


def runs_above(folder: Path) -> Path:
    """The folder of runs that a trial's own folder lies in."""
    return folder.parents[DEPTH - 1]


def to_json(trial: Trial) -> dict[str, Any]:
    """Plain JSON values, complete: `from_json(to_json(trial)) == trial`."""
    return json.loads(json.dumps(dataclasses.asdict(trial)))


def from_json(record: dict[str, Any]) -> Trial:
    """The inverse of `to_json`."""
    network: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in record["network"].items()
    }
    pairs = {k: tuple((str(name), value) for name, value in record[k]) for k in ("starts", "knobs")}
    return Trial(**{**record, **pairs, "network": Network(**network)})


def recipe(trial: Trial, cohort_fingerprint: str) -> dict[str, Any]:
    """All that decides a trial's result, flat, in canonical JSON values: what a finished folder is
    compared with.
    """
    record = to_json(trial)
    network = record.pop("network")
    knobs = {f"knob.{name}": value for name, value in record.pop("knobs")}
    starts = {f"start.{part}": name for part, name in record.pop("starts")}
    sizes = {f"network.{name}": value for name, value in network.items()}
    if not record["halving"]:
        del record["halving"]  # as it was before there was a choice
    return {**record, **knobs, **starts, **sizes, "cohort": cohort_fingerprint, "code": __version__}


def fingerprint(trial: Trial, cohort_fingerprint: str) -> str:
    """A hash of `recipe`; equal on every machine."""
    text = json.dumps(recipe(trial, cohort_fingerprint), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
