"""An ECG and an image with their similarity map: of a subject of a cohort, or of two files."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ecgcmr import raw, store
from ecgcmr.cohort import presence
from ecgcmr.cohort.dataset import Cohort
from ecgcmr.errors import Excluded, InputError
from ecgcmr.inference import predict, similarity
from ecgcmr.raw import search
from ecgcmr.runs import Run, check_prepared_alike
from ecgcmr.signals import SIGNALS, Options


@dataclass(frozen=True, eq=False)
class Pair:
    """An ECG and an image with their similarities.

    Attributes:
        ecg: (12, 5000) mV.
        image: as stored, e.g. a CMR's (3, 210, 210) uint8: end-systole, mid-phase, end-diastole.
        similarity: (h, w), see `similarity.maps`.
    """

    ecg: np.ndarray
    image: np.ndarray
    similarity: np.ndarray


def of_subject(run: Run, cohort: Cohort, subject: str) -> Pair:
    """The similarity map of a subject of a cohort, of the first visit that has both signals.

    One of the test split is logged as read (`store.log_test_read`).

    Raises:
        InputError: no such subject, or none with both signals; see `similarity.maps_for`.
    """
    rows = cohort.rows()
    visits = rows[rows["subject"] == subject]
    if visits.empty:
        raise InputError(f"{cohort.path}: no subject '{subject}'; index.parquet lists them")
    first, second = needs = similarity.multimodal(run).task.split("+")
    index = visits[presence.has(visits, *needs)].head(1)
    if index.empty:
        raise InputError(
            f"{cohort.path}: subject '{subject}' lacks {similarity.titles(needs)}; a similarity "
            "map needs both"
        )
    (similarities,) = similarity.maps_for([run], cohort, index).values()
    if index["split"].iloc[0] == "test":
        store.log_test_read(run.home, run.name, 1)
    arrays = cohort.load(index, needs)
    return Pair(arrays[first][0].astype(np.float32), arrays[second][0], similarities[0])


def of_files(
    run: Run,
    ecg_file: Path,
    image_file: Path,
    declaration: raw.Declaration = raw.UNDECLARED,
) -> Pair:
    """The similarity map of an ECG file and an image's, e.g. a short-axis stack, prepared as the
    run's cohort was; `declaration` says what the ECG does not state of rate, unit and leads.

    Raises:
        InputError: a file cannot serve, the run's signals were prepared as files no
            longer are; see `similarity.load`.
    """
    method = similarity.load(run)
    first, second = method.needs
    options = {"crop": run.signal_recipes.get(second, {}).get("crop", "heart")}
    check_prepared_alike(
        run,
        {signal: SIGNALS[signal].recipe(options) for signal in method.needs},
        method.needs,
        where="files are given now",
        advice="give the cohort that it learnt from",
    )
    trace = _trace(ecg_file, declaration)
    image = _image(second, image_file, options)
    arrays = {first: trace.astype(SIGNALS[first].dtype), second: image}  # as a cohort holds them
    batch = similarity.batch_of({signal: array[None] for signal, array in arrays.items()})
    similarities = similarity.maps(method, batch[first], batch[second])[0].numpy()
    return Pair(trace, image, similarities)


def _trace(file: Path, declaration: raw.Declaration) -> np.ndarray:
    (first, *more) = predict.recordings([file])
    if more:
        raise InputError(f"{file}: {len(more) + 1} recordings where one is needed; name one file")
    recording = (
        first if isinstance(first, predict.Refused) else predict.prepare(*first, declaration)
    )
    if isinstance(recording, predict.Refused):
        raise InputError(f"{file}: {recording.reason}; this recording cannot serve")
    return recording.ecg


def _image(signal: str, file: Path, options: Options) -> np.ndarray:
    try:
        sources = search.recordings(signal, file)
        if len(sources) > 1:
            raise InputError(f"{file}: {len(sources)} stacks where one is needed; name one file")
        reader, source = sources[0]
        return SIGNALS[signal].prepare(raw.READERS[signal][reader].read(source), options).array
    except Excluded as error:
        raise InputError(f"{file}: {error}; this stack cannot serve") from error
