"""Embeddings of a cohort or of ECG files: what an encoder makes of each recording, as Parquet.

The one idea: one shard of the cohort, or `PART` recordings, become one file, so an interrupted run goes on where it stopped
and memory holds a row group or a part per worker, whatever the size of all. Ray Data maps shards and parts over workers that
load the encoder once each; one part needs no Ray. `_embeddings.json` comes last and says what they are embeddings of.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from ecgcmr import plugins, presets, store
from ecgcmr.cohort import dataset, shards
from ecgcmr.data import inputs
from ecgcmr.errors import InputError, differing, unknown
from ecgcmr.files import write_json, write_whole
from ecgcmr.inference import ensemble, model, predict
from ecgcmr.inference.model import Model
from ecgcmr.inference.predict import Prepared, Refused
from ecgcmr.methods import encodings
from ecgcmr.raw import search
from ecgcmr.runs import check_prepared_alike
from ecgcmr.runtime import cluster, hardware
from ecgcmr.signals import ecg

REFUSED = b"refused"  # key of a part's metadata: [[source, reason], …]
MANIFEST, REQUEST = (
    "_embeddings.json",
    "_request.json",
)  # readers of Parquet folders pass over names with an underscore
FILE, FILES = "embeddings.parquet", "embeddings-{:05d}.parquet"  # of one part, and of several
PART = 256  # recordings; some seconds of work


# -- the encoder -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Encoder:
    """An encoder of a finished run, for evaluation.

    Attributes:
        run: whose it is.
        modality: the signal that it reads.
        device: where it is.
        dtype: of its weights: float32, or float64 if it was trained so.
    """

    run: Model
    modality: str
    device: torch.device
    dtype: torch.dtype

    @property
    def pooling(self) -> str:
        """What an embedding is, in words."""
        answers = self.run.head is not None and self.modality == "ecg"
        return "what the last layer reads" if answers else encodings.of(self.modality).pooling

    @torch.no_grad()
    def of(self, signals: np.ndarray) -> np.ndarray:
        """Embeddings of signals as a shard holds them.

        An ECG is seen whole, as fine-tuning starts from it (positions of a pre-training are stretched over it). Of a
        pre-training it is the mean token, which contrastive learning compares; of a fine-tuned network what its last layer
        reads, so logits are a linear function of it. Of an image it is what the ResNet pools.

        Args:
            signals: (n, *shape), e.g. (n, 12, 5000) float16 mV.

        Returns:
            (n, width) float32.
        """
        x = inputs.held(signals, self.modality, self.device)
        x = self._view(inputs.of_held(x, self.modality, self.dtype), {})
        encoding, network = encodings.of(self.modality), self.run.encoders[self.modality]
        if self.run.head is not None and self.modality == "ecg":
            embeddings = self.run.head.embedding(encoding.features(network, x, None, 0.0, False))
        else:
            embeddings = encoding.embed(network, x, None, 0.0, False)
        return embeddings.float().cpu().numpy()

    @cached_property
    def _view(self) -> encodings.View:
        """What fine-tuning shows in evaluation: an ECG from its beginning, an image resized."""
        trial = self.run.trial
        samples = self.run.samples if self.run.ecg else 0
        preset = presets.preset(trial.preset)
        return encodings.of(self.modality).view(trial.network, preset, samples, rate=0.0)

    @property
    def width(self) -> int:
        """Numbers of an embedding."""
        signal = shards.SIGNALS[self.modality]
        return self.of(np.zeros((1, *signal.shape), signal.dtype)).shape[1]


def encoder(folder: Path | str, modality: str | None = None, device: str | None = None) -> Encoder:
    """The encoder of the one run in a folder.

    Args:
        folder: of a pre-training or a final run, or one above it that holds no other.
        modality: the signal; None for the only one there is, or "ecg".
        device: "cpu", "cuda" …; by default a GPU if there is one.

    Raises:
        InputError: see `model.open_run`; or the run has no such encoder.
    """
    run, place = model.open_run(folder), hardware.device(device)
    held = run.encoders
    modality = modality or next(iter(held))
    if modality not in held:
        raise unknown(f"modality of the encoders in {run.run.folder}", modality, held)
    dtype = ensemble.dtype(run.run.provenance)
    for part in (held[modality], run.head):
        if part is not None:
            part.to(place, dtype)
    return Encoder(run, modality, place, dtype)


# -- what is written ---------------------------------------------------------------------------------------------------


def table(words: dict[str, Any], embeddings: np.ndarray) -> pa.Table:
    """Columns of words beside the column `embedding`, a fixed-size list of float32; `embeddings` is (n, width)."""
    width = embeddings.shape[1]
    values = pa.FixedSizeListArray.from_arrays(
        pa.array(np.ascontiguousarray(embeddings, np.float32).ravel()), width
    )
    return pa.table({**words, "embedding": values})


def write_parquet(path: Path, tables: Iterator[pa.Table]) -> int:
    """Write tables one after another, whole or not at all; the number of rows, 0 if there is no table, and no file."""
    rows = 0
    first = next(tables, None)
    if first is None:
        return rows

    def fill(aside: Path) -> None:
        nonlocal rows
        with pq.ParquetWriter(aside, first.schema) as writer:
            writer.write_table(first)
            rows = len(first)
            for one in tables:
                writer.write_table(one)
                rows += len(one)

    write_whole(path, fill)
    return rows


def described(made: Encoder) -> dict[str, Any]:
    """What all embeddings of an encoder have in common."""
    trial, recipe = made.run.trial, made.run.run.signal_recipes
    return {
        "format": 1,
        "model": trial.name,
        "weights": shards.sha256(made.run.run.folder / store.ENCODER),
        "modality": made.modality,
        "pooling": made.pooling,
        "recipe_hash": dataset.digest(recipe) if recipe else "unknown",
    }


# -- of a cohort -------------------------------------------------------------------------------------------------------


def of_cohort(
    folder: Path | str,
    cohort_path: Path | str,
    out: Path,
    *,
    modality: str | None = None,
    device: str | None = None,
    cpus: int | None = None,
    tick: Callable[[int], None] = lambda rows: None,
) -> dict[str, Any]:
    """Embed every row of a cohort that has the signal; goes on where it was interrupted, and does nothing if it is done.

    Args:
        folder: of the run, see `encoder`.
        cohort_path: a complete cohort.
        out: folder of `<split>/shard-….parquet` with `subject`, `split`, `embedding`, in the order of the cohort.
        modality: of the encoder.
        device: of every worker; on GPUs one worker each.
        cpus: of a local Ray, if it has to be started.
        tick: is told how many rows of the cohort are done.

    Returns:
        The content of `_embeddings.json`.

    Raises:
        InputError: see `encoder`; signals of another recipe; `out` holds something else; a damaged shard.
    """
    made, opened = encoder(folder, modality, "cpu"), dataset.open(cohort_path)
    check_prepared_alike(made.run.run, opened.recipe, (made.modality,), where=str(opened.path))
    request = {**described(made), "cohort": opened.fingerprint}
    if ready(out, request):
        return json.loads((out / MANIFEST).read_text())
    write_json(out / REQUEST, request)
    jobs = [{"part": shard["path"], "rows": shard["rows"]} for shard in opened.manifest["shards"]]
    given = {
        "folder": str(made.run.run.folder.resolve()),
        "cohort": str(opened.path.resolve()),
        "out": str(out.resolve()),
        "modality": made.modality,
        "device": device,
    }
    _do(jobs, given, cpus, tick)
    files = [path for job in jobs if (path := out / job["part"]).exists()]
    counts = [pq.ParquetFile(path).metadata.num_rows for path in files]
    width = pq.ParquetFile(files[0]).schema_arrow.field("embedding").type.list_size if files else 0
    return _finish(out, {**request, "rows": sum(counts), "width": width})


def ready(out: Path, request: dict[str, Any]) -> bool:
    """Whether `out` holds the embeddings that this request would make.

    Raises:
        InputError: it holds others, or something else.
    """
    for path in (out / MANIFEST, out / REQUEST):
        if path.exists():
            held = json.loads(path.read_text())
            if differ := differing(held, request, request):
                raise InputError(
                    f"{out}: holds other embeddings: {differ}; use another folder or delete it"
                )
            return path.name == MANIFEST
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out}: not empty and no embeddings; use another folder")
    return False


def _do(
    jobs: Sequence[dict[str, Any]],
    given: dict[str, Any],
    cpus: int | None,
    tick: Callable[[int], None],
) -> None:
    """Do the jobs whose part is not there yet; tells how many rows of all are done."""
    out = Path(given["out"])
    left = [job for job in jobs if not (out / job["part"]).exists()]
    done = sum(job["rows"] for job in jobs) - sum(job["rows"] for job in left)
    tick(done)
    for rows in _mapped(left, given, cpus):
        done += rows
        tick(done)


def _finish(out: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    write_json(out / MANIFEST, manifest)
    (out / REQUEST).unlink(missing_ok=True)
    return manifest


def _mapped(
    jobs: Sequence[dict[str, Any]], given: dict[str, Any], cpus: int | None
) -> Iterator[int]:
    """Do the jobs with Ray Data, as many at once as there are GPUs, or CPUs; the rows of each as it is done."""
    if not jobs:
        return
    import ray
    import ray.data

    with cluster.running(cpus=cpus):
        gpus = (
            int(ray.cluster_resources().get("GPU", 0))
            if hardware.device(given["device"]).type == "cuda"
            else 0
        )
        workers = min(len(jobs), gpus or cluster.cpus())
        work: Any = Worker
        found = ray.data.from_items(list(jobs), override_num_blocks=len(jobs)).map(
            work,
            fn_constructor_kwargs={**given, "named": plugins.carried()},
            compute=ray.data.ActorPoolStrategy(size=workers),
            num_cpus=1,
            num_gpus=1 if gpus else 0,
        )
        for batch in found.iter_batches(batch_size=1, batch_format="pyarrow", prefetch_batches=1):
            error = batch["error"][0].as_py()
            if error:
                raise InputError(error)
            yield batch["rows"][0].as_py()


class Worker:
    """One process of the map: loads the encoder once, then embeds a shard or some files per call."""

    def __init__(
        self,
        folder: str,
        cohort: str,
        out: str,
        modality: str,
        device: str | None,
        named: Sequence[str] = (),
    ) -> None:
        plugins.load(named)
        self.encoder = encoder(folder, modality, device)
        self.cohort, self.out = Path(cohort), Path(out)

    def __call__(self, job: dict[str, Any]) -> dict[str, Any]:
        """Write the embeddings of one part; bad input comes back as words."""
        try:
            if "files" in job:
                write_files(self.out / job["part"], self.encoder, job["files"])
            else:
                write_parquet(self.out / job["part"], self._groups(self.cohort / job["part"]))
        except InputError as error:
            return {"rows": job["rows"], "error": str(error)}
        return {"rows": job["rows"], "error": ""}

    def _groups(self, path: Path) -> Iterator[pa.Table]:
        """Embeddings of a shard, one row group after the other; a group without the signal is an empty table."""
        name = self.encoder.modality
        with shards.open_shard(path, (name,)) as file:
            for group in range(file.num_row_groups):
                rows = shards.read_group(file, group, ["subject", "split", name], path)
                rows = rows.filter(rows[name].is_valid())
                signals = shards.unpack(rows[name], name)
                embeddings = (
                    self.encoder.of(signals)
                    if len(rows)
                    else np.empty((0, self.encoder.width), np.float32)
                )
                yield table({k: rows[k] for k in ("subject", "split")}, embeddings)


# -- of files ----------------------------------------------------------------------------------------------------------


def of_files(
    folder: Path | str,
    listed: Sequence[tuple[str, str] | Refused],
    out: Path,
    *,
    device: str | None = None,
    cpus: int | None = None,
    tick: Callable[[int], None] = lambda done: None,
) -> list[Refused]:
    """Embed ECG files into Parquet with `key`, `source` and `embedding`; goes on where it was interrupted.

    Args:
        folder: of the run, see `encoder`.
        listed: of `predict.recordings`.
        out: a folder for `embeddings.parquet`, or, of more than `PART` recordings, for `embeddings-00000.parquet` and on.
        device: of the encoder; on GPUs one worker each.
        cpus: of a local Ray, if it has to be started, which it is for more than `PART`.
        tick: is told how many files are done.

    Returns:
        Files that could not be served. If there is no other, nothing is written.

    Raises:
        InputError: see `encoder`; signals of another recipe; `out` holds something else.
    """
    made = encoder(folder, "ecg", device)
    check_prepared_alike(made.run.run, {"ecg": ecg.RECIPE}, ("ecg",))
    refused = [one for one in listed if isinstance(one, Refused)]
    files = [one for one in listed if not isinstance(one, Refused)]
    request = {
        **described(made),
        "recordings": len(files),
        "files": dataset.digest([_stamp(one[1]) for one in files]),
    }
    parts = [files[at : at + PART] for at in range(0, len(files), PART)]
    names = [FILE] if len(parts) == 1 else [FILES.format(n) for n in range(len(parts))]
    if not ready(out, request) and files:
        write_json(out / REQUEST, request)
        jobs = [
            {"part": n, "rows": len(part), "files": part}
            for n, part in zip(names, parts, strict=True)
        ]
        given = {
            "folder": str(made.run.run.folder.resolve()),
            "cohort": "",
            "out": str(out.resolve()),
            "modality": "ecg",
            "device": device,
        }
        if len(parts) > 1:
            _do(jobs, given, cpus, lambda done: tick(len(refused) + done))
        else:
            write_files(out / FILE, made, files, lambda done: tick(len(refused) + done))
    schemas = [pq.ParquetFile(out / name).schema_arrow for name in names]
    refused += [
        Refused(*pair)
        for schema in schemas
        for pair in json.loads((schema.metadata or {})[REFUSED])
    ]
    if len(refused) == len(listed):
        for name in (*names, REQUEST):
            (out / name).unlink(missing_ok=True)
        if files:
            out.rmdir()
    elif (out / REQUEST).exists():
        _finish(out, {**request, "rows": len(listed) - len(refused), "width": made.width})
    return refused


def write_files(
    path: Path,
    made: Encoder,
    files: Sequence[tuple[str, str]],
    tick: Callable[[int], None] = lambda done: None,
) -> None:
    """Write one part: the embeddings of some recordings, and in the schema's metadata those that could not be served."""
    tables, refused, done = [], [], 0
    for batch in predict.prepared_in_batches(files):
        good = [one for one in batch if isinstance(one, Prepared)]
        refused += [(one.source, one.reason) for one in batch if isinstance(one, Refused)]
        signals = np.array([one.ecg for one in good], np.float16)
        embeddings = made.of(signals) if good else np.empty((0, made.width), np.float32)
        words = {
            name: pa.array([getattr(one, name) for one in good], pa.string())
            for name in ("key", "source")
        }
        tables.append(table(words, embeddings))
        done += len(batch)
        tick(done)
    whole = pa.concat_tables(tables).replace_schema_metadata({REFUSED: json.dumps(refused)})
    write_whole(path, lambda aside: pq.write_table(whole, aside))


def _stamp(source: str) -> list[str | int]:
    """What tells a recording from one that has taken its place."""
    state = search.file_of(source).stat()
    return [source, state.st_size, state.st_mtime_ns]
