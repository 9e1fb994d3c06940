"""One training run, as data. A Trial's readable name is its folder; its fingerprint says which
recipe made the folder.

Fine-tuning is the method `supervised` with `init_from`; the supervised baseline is the same
without; a grid is a list of Trials; five seeds are `replace(best, seed=s)`. This file knows nothing
of how a trial is run.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ecgcmr import __version__
from ecgcmr.errors import InputError
from ecgcmr.nn import Network

STAGES = ("pretrain", "grid", "evaluation")
# Words that stood in users' files before 28 November 2026 -> what they are called since. What
# still holds one is refused in a line (`runs`, `search.spaces`).
RENAMED = {
    "label": "system",
    "take": "label_fraction",
    "starts": "init_from",
    "halving": "asha",
    "point": "configuration",
    "final": "evaluation",
}
# Method of a pre-training whose weights came in a file: not trained here, for no epochs.
IMPORTED = "imported"


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A training run.

    Attributes:
        space: the search space's name; the first folder.
        stage: "pretrain"; "grid" (a configuration evaluated on validation); "evaluation" (the
            chosen configuration, the only one to see test).
        task: a name of `tasks.TASKS` or a label column; for pre-training the modality: "ecg", "cmr"
            or "ecg+cmr".
        system: the word for the system in tables and paths: "supervised", "mae", "mmcl",
            "mmcl-wo-mdm" …
        method: a name of `methods.METHODS`, "xgboost", or IMPORTED.
        init_from: (part, name of the trial whose encoder it starts from) pairs, e.g. (("ecg",
            "toy/pretrain/ecg/mae/…"),).
        modality: what a supervised trial reads: "ecg", "cmr", or "tabular" (method "xgboost": age,
            sex, height, weight).
        seed: of weights, batches and noise.
        preset: "paper" or "authors".
        network: every size that fixes a shape.
        batch: subjects per optimiser step, over all workers together; 0: all rows at once, as trees
            do.
        epochs: passes over the training rows; the schedule's length.
        label_fraction: share of the (balanced) training rows used, in (0, 1].
        eval_every: epochs between two validations.
        asha: of a grid's trials one in so many goes on at each rung (`training.asha`); 0: all
            do, as in the paper.
        knobs: (name, number) pairs that may differ within a pack; what is absent is the method's
            default.
    """

    space: str
    stage: str
    task: str
    system: str
    method: str
    init_from: tuple[tuple[str, str], ...] = ()
    modality: str = "ecg"
    seed: int = 0
    preset: str = "paper"
    network: Network = field(default_factory=Network)
    batch: int = 32
    epochs: int = 400
    label_fraction: float = 1.0
    eval_every: int = 1
    asha: int = 0
    knobs: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        """Refuse what could never run, while the file that says it is still known to the reader."""
        if self.stage not in STAGES:
            hint = f" ('final' is '{RENAMED['final']}' now)" if self.stage == "final" else ""
            raise InputError(
                f"stage '{self.stage}' of a trial in space '{self.space}': use one of "
                f"{', '.join(STAGES)}{hint}"
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
        if self.asha == 1 or self.asha < 0:
            raise InputError(
                f"asha={self.asha} of trial '{self.name}': must be 0 (none) or at least 2"
            )
        if not 0 < self.label_fraction <= 1:
            raise InputError(
                f"label_fraction={self.label_fraction} of trial '{self.name}': must lie in (0, 1]"
            )

    @property
    def configuration(self) -> str:
        """The folder of what a search varies, e.g. `batch=8,layer_decay=0.5,lr=1e-05`; `default` if
        nothing is.
        """
        words = [f"batch={self.batch}"] if self.batch else []
        words += [f"{name}={value:g}" for name, value in sorted(self.knobs)]
        words += [f"label_fraction={self.label_fraction:g}"] if self.label_fraction != 1 else []
        words += [f"asha={self.asha}"] if self.asha else []
        words += ["authors"] if self.preset == "authors" else []
        return ",".join(words) or "default"

    @property
    def task_folder(self) -> str:
        """`<space>/<stage>/<task>`: what the trials of a task have in common."""
        return f"{self.space}/{self.stage}/{self.task}"

    @property
    def system_folder(self) -> str:
        """`<space>/<stage>/<task>/<system>`: what a system's configurations have in common."""
        return f"{self.task_folder}/{self.system}"

    @property
    def name(self) -> str:
        """`<space>/<stage>/<task>/<system>/<configuration>/seed=<s>`: the folder under `runs/`."""
        return f"{self.system_folder}/{self.configuration}/seed={self.seed}"


# -- the grammar of a name, which is a path --------------------------------------------------------

SEED_FOLDERS = "**/seed=*"  # below a folder of runs: where trials lie
DEPTH = 6  # folders of a name


class NameParts(NamedTuple):
    """The folders of a trial's name, or of what it shares with others; "" where it has none."""

    space: str = ""
    stage: str = ""
    task: str = ""
    system: str = ""
    configuration: str = ""
    seed: str = ""

    @property
    def system_folder(self) -> str:
        """`<space>/<stage>/<task>/<system>`."""
        return "/".join(self[:4])


def name_parts(name: str) -> NameParts:
    """The folders of a trial's name, of a sweep of pre-trainings (`Trial.system_folder`), or of any
    folder above it.
    """
    return NameParts(*name.split("/")[:DEPTH])


def first_seeds(names: Iterable[str]) -> set[str]:
    """Of trials' names those of the least seed of every configuration."""
    first: dict[str, tuple[int, str]] = {}
    for name in names:
        configuration, _, seed = name.rpartition("/seed=")
        entry = int(seed), name
        first[configuration] = min(entry, first.get(configuration, entry))
    return {name for _, name in first.values()}


def label_fraction_of(configuration: str) -> float:
    """The share of the labels that a configuration's folder tells of."""
    shares = [
        word.removeprefix("label_fraction=")
        for word in configuration.split(",")
        if word.startswith("label_fraction=")
    ]
    return float(shares[0]) if shares else 1.0


def words_before(name: str) -> list[str]:
    """The words of a path, or of a configuration, that are called otherwise now (`RENAMED`)."""
    stage = ["final"] if name_parts(name).stage == "final" else []
    return stage + (["take"] if any(w.startswith("take=") for w in re.split("[/,]", name)) else [])


def runs_above(folder: Path) -> Path:
    """The folder of runs that a trial's own folder lies in."""
    return folder.parents[DEPTH - 1]


def stage_above(folder: Path) -> str:
    """The stage of a trial's own folder; "" of a folder that lies as no trial's does."""
    name = folder.parents[DEPTH - 3].name if len(folder.parents) > DEPTH - 3 else ""
    return name if name in STAGES else ""


def to_json(trial: Trial) -> dict[str, Any]:
    """Plain JSON values, complete: `from_json(to_json(trial)) == trial`."""
    return json.loads(json.dumps(dataclasses.asdict(trial)))


def from_json(record: dict[str, Any]) -> Trial:
    """The inverse of `to_json`."""
    network: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in record["network"].items()
    }
    pairs = {
        k: tuple((str(name), value) for name, value in record[k]) for k in ("init_from", "knobs")
    }
    return Trial(**{**record, **pairs, "network": Network(**network)})


def recipe(trial: Trial, cohort_fingerprint: str) -> dict[str, Any]:
    """All that decides a trial's result, flat, in canonical JSON values: what a finished folder is
    compared with.
    """
    record = to_json(trial)
    network = record.pop("network")
    knobs = {f"knob.{name}": value for name, value in record.pop("knobs")}
    init_from = {f"init_from.{part}": name for part, name in record.pop("init_from")}
    sizes = {f"network.{name}": value for name, value in network.items()}
    if not record["asha"]:
        del record["asha"]  # as it was before there was a choice
    return {
        **record,
        **knobs,
        **init_from,
        **sizes,
        "cohort": cohort_fingerprint,
        "code": __version__,
    }


def fingerprint(trial: Trial, cohort_fingerprint: str) -> str:
    """A hash of `recipe`; equal on every machine."""
    text = json.dumps(recipe(trial, cohort_fingerprint), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
