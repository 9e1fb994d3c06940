"""From an ECG file to the risk of each disease and the phenotypes: a finished model, served.

The one idea: a recording goes the way of the cohort's own (`ecg.prepare`, float16, normalisation),
so a subject of the cohort gets the answers that the runs stored, to the rounding of the precision
that they ran in; they are served in float32, alike on every machine. What was prepared by another
recipe is refused. Which runs answer is in `ensemble`, what that means in `calibration`. Neither Ray
nor a cohort is needed here.
"""

import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from ecgcmr import __version__, methods, raw, tasks
from ecgcmr.cohort import dataset
from ecgcmr.data import examples, inputs
from ecgcmr.errors import Excluded, InputError
from ecgcmr.inference import calibration, ensemble
from ecgcmr.inference.calibration import Disease, Meaning, Phenotype
from ecgcmr.raw import leftovers, search
from ecgcmr.runs import Run, check_prepared_alike
from ecgcmr.runtime import hardware
from ecgcmr.signals import ecg
from ecgcmr.tasks import Task

log = logging.getLogger(__name__)

BATCH = 32  # recordings held and answered at once
NOTE = (
    "A result of research. ecgcmr is no medical device; its answers must not guide the care of a "
    "patient."
)


# -- answers ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """One number about one ECG.

    Attributes:
        name, title, kind: of the disease ("risk") or phenotype ("phenotype").
        unit: of the value; "" for a risk, which lies in [0, 1].
        value: the calibrated risk, or the mean of the seeds' phenotypes.
        low, high: a risk's 95 % interval over seeds and calibration (`Recalibration.risk`); or
            where 90 % of measured phenotypes lie (`statistics.conformal`). NaN where the cohort was
            too small to tell.
        sd: spread of the seeds' own values; NaN of one seed.
        cohort: the cohort's prevalence, or the median of its phenotype.
        cohort_low, cohort_high: its 5th and 95th percentile; NaN for a risk.
    """

    name: str
    title: str
    kind: str
    unit: str
    value: float
    low: float
    high: float
    sd: float
    cohort: float
    cohort_low: float
    cohort_high: float


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model answers to one ECG.

    Attributes:
        key: stem of the file's name.
        source: the file, with `#n` for one of several recordings in it.
        answers: of every disease and phenotype.
        repairs: what was settled before, in words.
        ecg: (12, 5000) float32 mV, as the model's cohort holds ECGs: cleaned, at 500 Hz; None if it
            was not kept.
    """

    key: str
    source: str
    answers: tuple[Answer, ...]
    repairs: tuple[str, ...]
    ecg: np.ndarray | None = field(repr=False)

    @property
    def risks(self) -> dict[str, Answer]:
        """By disease."""
        return {answer.name: answer for answer in self.answers if answer.kind == "risk"}

    @property
    def phenotypes(self) -> dict[str, Answer]:
        """By phenotype."""
        return {answer.name: answer for answer in self.answers if answer.kind == "phenotype"}


@dataclass(frozen=True)
class Refused:
    """A file that cannot be served, and why."""

    source: str
    reason: str


@dataclass(frozen=True, eq=False)
class TaskModel:
    """One task of a model.

    Attributes:
        task: the task.
        runs: its seeds.
        networks: one for each, on the device.
        scale: of a regression's answers.
        means: what they mean, by column.
    """

    task: Task
    runs: Sequence[Run]
    networks: Sequence[methods.Method]
    scale: examples.Scale
    means: Meaning


class Model:
    """A finished system: five networks per task, and what their answers mean. Made by `load`."""

    def __init__(
        self, folder: Path, task_models: Sequence[TaskModel], device: torch.device
    ) -> None:
        self.folder, self.task_models, self.device = folder, tuple(task_models), device
        self.system = task_models[0].runs[0].trial.system

    @cached_property
    def about(self) -> dict[str, Any]:
        """Where it comes from: system, space, tasks with their seeds, cohort, recipe, versions."""
        first = self.task_models[0].runs[0]
        recipe = first.provenance["cohort"]["recipe"]
        return {
            "model": first.trial.space,
            "system": self.system,
            "seeds": {
                model.task.name: [run.trial.seed for run in model.runs]
                for model in self.task_models
            },
            "configurations": {
                model.task.name: model.runs[0].trial.configuration for model in self.task_models
            },
            "cohort": first.provenance["cohort"]["fingerprint"],
            "recipe": dataset.digest(recipe),
            "reader": recipe.get("reader", "unknown"),
            "trained_with": first.provenance.get("versions", {}).get("ecgcmr", "?"),
            "served_with": __version__,
        }

    @torch.no_grad()
    def outputs(self, ecgs: np.ndarray) -> dict[str, np.ndarray]:
        """What each seed's network says, by task, as the runs' own predictions do: not calibrated.

        Args:
            ecgs: (n, 12, 5000) mV, prepared; rounded to float16 as in a shard.

        Returns:
            (seeds, n, columns) float64: the probability at balanced classes, or phenotypes in their
            units.
        """
        x = inputs.held(np.asarray(ecgs, np.float16), "ecg", self.device)
        return {
            model.task.name: np.stack(
                [self._answer(model, *pair, x) for pair in zip(model.runs, model.networks)]
            )
            for model in self.task_models
        }

    def _answer(
        self, model: TaskModel, run: Run, network: methods.Method, x: torch.Tensor
    ) -> np.ndarray:
        batch = {"ecg": inputs.of_held(x, "ecg", ensemble.dtype(run.provenance))}
        logits = network(batch, {}, {})["logits"].double().cpu()
        if model.task.kind == "binary":
            return logits.softmax(-1)[:, 1:].numpy()
        return logits.numpy() * model.scale.sd + model.scale.mean

    def answers(self, ecgs: np.ndarray) -> list[tuple[Answer, ...]]:
        """Every answer to each of n prepared ECGs, (n, 12, 5000) mV."""
        outputs = self.outputs(ecgs)
        columns = [
            _answers_of_column(
                model.task, name, model.means[name], outputs[model.task.name][..., i]
            )
            for model in self.task_models
            for i, name in enumerate(model.task.columns)
        ]
        return list(zip(*columns))

    def predict(
        self, source: str | Path, declaration: raw.Declaration = raw.UNDECLARED
    ) -> Prediction:
        """Answer one ECG file; `declaration` says what it does not state of rate, unit and leads.

        Raises:
            InputError: it cannot be served, or is not one recording; says why.
        """
        sources = recordings([source])
        if len(sources) != 1:
            raise InputError(f"{source}: holds {len(sources)} recordings; use predict_all")
        (prediction,) = self.predict_recordings(sources, declaration=declaration)
        if isinstance(prediction, Refused):
            raise InputError(f"{prediction.source}: {prediction.reason}")
        return prediction

    def predict_all(
        self, sources: Iterable[str | Path], declaration: raw.Declaration = raw.UNDECLARED
    ) -> Iterator[Prediction | Refused]:
        """Answer ECG files, and all in folders, in their order; what cannot be served comes with
        the reason.
        """
        return self.predict_recordings(recordings(sources), declaration=declaration)

    def predict_recordings(
        self,
        sources: Iterable[tuple[str, str] | Refused],
        keep_ecgs: bool = True,
        declaration: raw.Declaration = raw.UNDECLARED,
    ) -> Iterator[Prediction | Refused]:
        """Answer what `recordings` found, some at a time; `keep_ecgs` the ECGs beside the answers."""
        for batch in prepared_in_batches(sources, declaration):
            good = [recording for recording in batch if isinstance(recording, Prepared)]
            answers = iter(
                self.answers(np.stack([recording.ecg for recording in good])) if good else ()
            )
            for recording in batch:
                if isinstance(recording, Refused):
                    yield recording
                else:
                    yield Prediction(
                        recording.key,
                        recording.source,
                        next(answers),
                        recording.repairs,
                        recording.ecg if keep_ecgs else None,
                    )

    def predict_signal(
        self, signal: np.ndarray, rate_hz: float, leads: Sequence[str]
    ) -> Prediction:
        """Answer one ECG at hand.

        Args:
            signal: (leads, samples) mV, at least 10 s.
            rate_hz: samples per second.
            leads: the name of each row, in any order.

        Raises:
            InputError: it cannot serve; says why.
        """
        try:
            prepared_ecg, words = ecg.prepare(np.asarray(signal), rate_hz, tuple(leads))
        except Excluded as error:
            raise InputError(f"signal: {error}") from error
        return Prediction(
            "signal", "signal", self.answers(prepared_ecg[None])[0], words, prepared_ecg
        )


def _answers_of_column(
    task: Task, name: str, means: Disease | Phenotype, values: np.ndarray
) -> list[Answer]:
    """Answers to n ECGs; `values` is (seeds, n)."""
    if isinstance(means, Disease):
        logits, recalibration = calibration.logit(values), means.recalibration
        value, low, high = recalibration.risk(logits)
        by_seed = np.stack([recalibration.risk(seed_logits[None])[0] for seed_logits in logits])
        words = {"title": task.title, "unit": "", "kind": "risk"}
        cohort = (means.positive / means.n, np.nan, np.nan)
    else:
        value, by_seed = values.mean(0), values
        low, high = value - means.radius, value + means.radius
        words = {
            "title": name.replace("_", " "),
            "unit": tasks.UNITS.get(name, ""),
            "kind": "phenotype",
        }
        cohort = means.reference[1], means.reference[0], means.reference[2]
    sd = by_seed.std(0, ddof=1) if len(by_seed) > 1 else np.full(values.shape[1], np.nan)
    return [
        Answer(
            name=name,
            value=float(value[i]),
            low=float(low[i]),
            high=float(high[i]),
            sd=float(sd[i]),
            cohort=cohort[0],
            cohort_low=cohort[1],
            cohort_high=cohort[2],
            **words,
        )
        for i in range(values.shape[1])
    ]


def load(folder: Path | str, system: str | None = None, device: str | None = None) -> Model:
    """A finished model.

    Args:
        folder: of evaluation runs (`runs/toy/evaluation`), or made by `share.share`.
        system: which of its systems; None for the only one, or MMCL.
        device: "cpu", "cuda" …; by default a GPU if there is one.

    Raises:
        InputError: see `runs_in`, `of_system` and `network` of `ensemble`, and
            `calibration.meaning`; tasks of several cohorts.
    """
    folder, place = Path(folder), hardware.device(device)
    seeds_by_task = ensemble.of_system(ensemble.runs_in(folder), system)
    all_runs = [run for seeds in seeds_by_task.values() for run in seeds]
    for run in all_runs:
        check_prepared_alike(run, {"ecg": ecg.RECIPE}, ("ecg",))
    cohorts = sorted({str(run.provenance["cohort"]["fingerprint"]) for run in all_runs})
    if len(cohorts) > 1:
        raise InputError(
            f"model {folder}: runs of different cohorts ({', '.join(cohorts)}); name the folder of "
            "one task"
        )
    return Model(
        folder, [_task_model(name, seeds, place) for name, seeds in seeds_by_task.items()], place
    )


def _task_model(name: str, seeds: Sequence[Run], device: torch.device) -> TaskModel:
    task, notes = tasks.of(name, (name,)), seeds[0].provenance
    scale = examples.Scale(np.zeros(1), np.ones(1))
    if task.kind == "regression":
        if "target_mean" not in notes:
            raise InputError(
                f"{seeds[0].folder}: does not say what its answers are scaled by; train it again"
            )
        scale = examples.Scale(np.array(notes["target_mean"]), np.array(notes["target_sd"]))
    return TaskModel(
        task,
        seeds,
        [ensemble.network(run, device) for run in seeds],
        scale,
        calibration.meaning(seeds, task),
    )


# -- which ECGs ------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Prepared:
    """A recording that can be served: (12, 5000) float32 mV, and what was settled."""

    key: str
    source: str
    ecg: np.ndarray
    repairs: tuple[str, ...]


def recordings(sources: Iterable[str | Path]) -> list[tuple[str, str] | Refused]:
    """(reader, source) of every ECG in files and folders, in order; see `raw.search`."""
    listing: list[tuple[str, str] | Refused] = []
    for source in sources:
        try:
            listing += search.recordings("ecg", Path(source))
        except Excluded as error:
            listing.append(Refused(str(source), str(error)))
    return list(dict.fromkeys(listing))


def left_aside(
    places: Iterable[str | Path], sources: Iterable[tuple[str, str] | Refused]
) -> dict[str, int]:
    """Files in places that are no part of the recordings found there, counted by kind."""
    paths = [source for _, source in (s for s in sources if not isinstance(s, Refused))]
    return leftovers.left_aside([Path(place) for place in places], paths)


def prepared_in_batches(
    sources: Iterable[tuple[str, str] | Refused],
    declaration: raw.Declaration = raw.UNDECLARED,
) -> Iterator[list[Prepared | Refused]]:
    """Read and prepare recordings, `BATCH` at a time."""
    results = (
        source if isinstance(source, Refused) else prepare(*source, declaration)
        for source in sources
    )
    while batch := list(islice(results, BATCH)):
        yield batch


def prepare(
    reader: str, source: str, declaration: raw.Declaration = raw.UNDECLARED
) -> Prepared | Refused:
    """One recording as a model reads it, or the reason why it cannot."""
    try:
        record = raw.read("ecg", reader, source, declaration)
        assert isinstance(record, raw.EcgRecord)
        prepared_ecg, words = ecg.prepare(
            record.signal, record.rate_hz, record.leads, cleaned=record.cleaned
        )
    except Excluded as error:
        return Refused(source, str(error))
    except (
        Exception
    ) as error:  # a defect of a reader: one odd file must not end the service of thousands
        log.exception("reader '%s' failed", reader)
        return Refused(
            source, f"the reader '{reader}' failed ({type(error).__name__}); please report it"
        )
    return Prepared(record.key, source, prepared_ecg, (*record.repairs, *words))


# -- what is written -------------------------------------------------------------------------------


def table(predictions: Iterable[Prediction | Refused]) -> pd.DataFrame:
    """One row per ECG and answer, and one per file that was refused: `key`, `source`, the fields of
    `Answer`, `refused`.
    """
    rows: list[dict[str, Any]] = []
    for prediction in predictions:
        if isinstance(prediction, Refused):
            rows.append({"source": prediction.source, "refused": prediction.reason})
        else:
            rows += [
                {"key": prediction.key, "source": prediction.source, **asdict(answer)}
                for answer in prediction.answers
            ]
    return pd.DataFrame(
        rows, columns=["key", "source", *(f.name for f in fields(Answer)), "refused"]
    )


def record(
    about: dict[str, Any],
    predictions: Sequence[Prediction | Refused],
    kinds_aside: Mapping[str, int],
) -> dict[str, Any]:
    """The same as JSON values, by ECG, with where the model comes from; what is not known is null.

    Args:
        about: of the model.
        predictions: in the order of the ECGs.
        kinds_aside: how many files are no part of any ECG, see `left_aside`.
    """

    def as_json(answers: dict[str, Answer]) -> dict[str, Any]:
        return {
            name: {
                k: None if isinstance(v, float) and math.isnan(v) else v
                for k, v in asdict(answer).items()
            }
            for name, answer in answers.items()
        }

    return {
        "about": about,
        "ecgs": [
            {
                "key": prediction.key,
                "source": prediction.source,
                "repairs": list(prediction.repairs),
                "risks": as_json(prediction.risks),
                "phenotypes": as_json(prediction.phenotypes),
            }
            for prediction in predictions
            if isinstance(prediction, Prediction)
        ],
        "refused": [
            asdict(prediction) for prediction in predictions if isinstance(prediction, Refused)
        ],
        "left_aside": dict(kinds_aside),
        "note": NOTE,
    }


def lines(predictions: Sequence[Prediction]) -> list[str]:
    """For a terminal: one ECG whole, of several the risks, a line each."""
    if len(predictions) == 1:
        return _whole(predictions[0])
    if not predictions or not predictions[0].risks:
        return (
            [f"{len(predictions)} ECGs answered; --csv and --json write the phenotypes"]
            if predictions
            else []
        )
    width = max(len(prediction.key) for prediction in predictions)
    names = list(predictions[0].risks)
    text = [f"{'ECG':{width}s}" + "".join(f"  {name:>24s}" for name in names)]
    for prediction in predictions:
        cells = [
            f"{risk.value:.1%} [{risk.low:.1%}, {risk.high:.1%}]"
            for risk in prediction.risks.values()
        ]
        text.append(f"{prediction.key:{width}s}" + "".join(f"  {cell:>24s}" for cell in cells))
    return text


def _whole(prediction: Prediction) -> list[str]:
    """Every answer to one ECG, with its interval and what is usual in the cohort."""
    text = [
        f"{prediction.key}"
        + (f"   ({'; '.join(prediction.repairs)})" if prediction.repairs else "")
    ]
    if prediction.risks:
        text += ["", f"{'risk':28s}{'':9s}  {'95 % interval':>17s}  {'cohort':>17s}"]
    for risk in prediction.risks.values():
        interval = f"{risk.low:.1%} to {risk.high:.1%}"
        text.append(f"{risk.title:28.28s}{risk.value:9.1%}  {interval:>17s}  {risk.cohort:>17.1%}")
    if prediction.phenotypes:
        text += [
            "",
            f"{'phenotype':28s}{'':9s}  {'90 % interval':>17s}  {'cohort, 5 to 95 %':>17s}",
        ]
    segments = [answer for answer in prediction.phenotypes.values() if "_AHA_" in answer.name]
    for answer in [answer for answer in prediction.phenotypes.values() if answer not in segments]:
        name = f"{answer.title} [{answer.unit}]" if answer.unit else answer.title
        interval, usual = (
            f"{low:.1f} to {high:.1f}"
            for low, high in ((answer.low, answer.high), (answer.cohort_low, answer.cohort_high))
        )
        text.append(f"{name:28.28s}{answer.value:9.1f}  {interval:>17s}  {usual:>17s}")
    if segments:
        text.append(f"and {len(segments)} values by segment, which --csv, --json and --page show")
    return [*text, "", NOTE]
