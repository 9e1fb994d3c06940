"""What answers mean: the recalibration of a risk, the interval and the usual range of a phenotype.

The one idea: it is settled on the validation rows, which no run trained on and whose share of the
ill is the cohort's; a person of several visits is one person. These rows stopped the training and
chose the configuration, so errors on them are a little too small: the interval of a phenotype asks
for more than its share, as finite samples do (`CONFIDENCE`). A shared model holds it as JSON in
place of the rows, so it names nobody and serves without its cohort.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ecgcmr import checksums, store
from ecgcmr.errors import InputError
from ecgcmr.evaluation import statistics
from ecgcmr.evaluation.statistics import Recalibration
from ecgcmr.runs import Run
from ecgcmr.tasks import Task

# beside the seeds of a shared model, in place of their predictions
CALIBRATION = "calibration.json"
LEVEL = 0.9  # of the interval of a phenotype
# In how many calibrations it would hold that much if its rows had chosen nothing. What this asks
# beyond an average outweighs what their choice takes (benchmarks/studies/chosen.py).
CONFIDENCE = 0.9
RANGE = (5, 50, 95)  # percentiles of a phenotype in the cohort
FEWEST = 20  # subjects of whom percentiles are told


@dataclass(frozen=True)
class Disease:
    """What the answers of a binary task mean: the recalibration, and the validation rows that it
    was made on.
    """

    n: int
    positive: int
    recalibration: Recalibration


@dataclass(frozen=True)
class Phenotype:
    """What the answers of one phenotype mean.

    Attributes:
        n: people of the validation rows in whom it is known.
        radius: half width of the interval that holds `LEVEL` of measurements; NaN of too few
            people.
        reference: percentiles `RANGE` of these people, by the mean of their visits; NaN of fewer
            than `FEWEST`.
    """

    n: int
    radius: float
    reference: tuple[float, float, float]


Meaning = dict[str, Disease | Phenotype]  # by column


def meaning(seeds: Sequence[Run], task: Task) -> Meaning:
    """What a task's answers mean: from the runs' predictions of validation rows, or as a shared
    model says.

    Raises:
        InputError: neither is there, or the seeds were evaluated on different rows.
    """
    shared_file = seeds[0].folder.parent / CALIBRATION
    if not all(store.PREDICTIONS in checksums.names(run.folder) for run in seeds):
        return _shared_meaning(shared_file)
    tables = [
        pd.read_parquet(store.verified(run.folder, store.PREDICTIONS)).query("split == 'val'")
        for run in seeds
    ]
    if not all(np.array_equal(tables[0].subject, table.subject) for table in tables):
        raise InputError(
            f"{shared_file.parent}: the seeds were evaluated on different validation rows; train "
            "them on one cohort"
        )
    outputs = np.stack([_columns(table, "output", task) for table in tables])
    targets, people = _columns(tables[0], "target", task), tables[0].subject.to_numpy()
    if task.kind == "binary":
        fitted = statistics.recalibration(
            logit(outputs[..., 0]).mean(0), targets[:, 0], task.name, people
        )
        return {task.columns[0]: Disease(len(targets), int(targets.sum()), fitted)}
    return {
        name: _phenotype(targets[:, i], outputs[..., i].mean(0), people)
        for i, name in enumerate(task.columns)
    }


def _columns(table: pd.DataFrame, kind: str, task: Task) -> np.ndarray:
    return table[[f"{kind}:{name}" for name in task.columns]].to_numpy(np.float64)


def logit(probability: np.ndarray) -> np.ndarray:
    """With the bounds of `statistics.CLIP`: float32 knows no probability nearer to 1."""
    inner = np.clip(probability, statistics.CLIP, 1 - statistics.CLIP)
    return np.log(inner) - np.log1p(-inner)


def _phenotype(
    measured: np.ndarray, predicted: np.ndarray, people: np.ndarray | None = None
) -> Phenotype:
    """All (n,); without `people` each row is another person's."""
    person = statistics.persons.of_rows(people, len(measured))
    by_person = pd.Series(measured).groupby(person).mean().dropna()
    n = len(by_person)
    low, middle, high = np.percentile(by_person, RANGE) if n >= FEWEST else (np.nan,) * 3
    level = statistics.assured(n, LEVEL, CONFIDENCE)
    return Phenotype(
        n,
        statistics.conformal(measured - predicted, level, people),
        (float(low), float(middle), float(high)),
    )


def meaning_record(meaning: Meaning) -> dict[str, Any]:
    """JSON of a meaning; `_shared_meaning` is the inverse. NaN becomes null."""

    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray | tuple | list):
            return [plain(x) for x in value]
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        return None if isinstance(value, float) and np.isnan(value) else value

    return {name: plain(asdict(answer)) for name, answer in meaning.items()}


def _shared_meaning(path: Path) -> Meaning:
    if not path.exists():
        raise InputError(
            f"{path.parent}: neither predictions of its runs nor {CALIBRATION}; share it anew "
            "(ecgcmr share)"
        )
    try:
        record = json.loads(checksums.verified(path.parent, path.name).read_text())
        return {name: _of_record(answer) for name, answer in record["answers"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: damaged; share the model anew (ecgcmr share)") from error


def _of_record(answer: Mapping[str, Any]) -> Disease | Phenotype:
    if "recalibration" in answer:
        fields = answer["recalibration"]
        return Disease(
            answer["n"],
            answer["positive"],
            Recalibration(**{**fields, "covariance": np.array(fields["covariance"])}),
        )
    number = [np.nan if x is None else float(x) for x in (answer["radius"], *answer["reference"])]
    return Phenotype(answer["n"], number[0], (number[1], number[2], number[3]))
