"""Parts of a work of embedding, one file each: a shard of a cohort, or some recordings.

The one idea: what is there already is not done again, and memory holds a row group or a part per
worker, whatever the size of all. Ray Data maps parts over workers that load the encoder once each.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ecgcmr import plugins, raw
from ecgcmr.cohort import shards
from ecgcmr.errors import InputError
from ecgcmr.files import write_whole
from ecgcmr.inference import embeddings, predict
from ecgcmr.inference.encoder import Encoder, open_encoder
from ecgcmr.inference.predict import Prepared, Refused
from ecgcmr.raw import statements
from ecgcmr.runtime import cluster, hardware

REFUSED = b"refused"  # key of a part's metadata: [[source, reason], …]


def options(encoder: Encoder, out: Path, device: str | None, cohort: str = "") -> dict[str, Any]:
    """What every worker is made of, but for the plugins."""
    return {
        "folder": str(encoder.run.run.folder.resolve()),
        "cohort": cohort,
        "out": str(out.resolve()),
        "modality": encoder.modality,
        "device": device,
    }


def make(
    jobs: Sequence[dict[str, Any]],
    worker_options: dict[str, Any],
    cpus: int | None,
    tick: Callable[[int], None],
) -> None:
    """Do the jobs whose part is not there yet; tells how many rows of all are done."""
    out = Path(worker_options["out"])
    missing = [job for job in jobs if not (out / job["part"]).exists()]
    rows_done = sum(job["rows"] for job in jobs) - sum(job["rows"] for job in missing)
    tick(rows_done)
    for rows in _rows_of_each(missing, worker_options, cpus):
        rows_done += rows
        tick(rows_done)


def _rows_of_each(
    jobs: Sequence[dict[str, Any]], worker_options: dict[str, Any], cpus: int | None
) -> Iterator[int]:
    """Do the jobs with Ray Data, as many at once as there are GPUs, or CPUs.

    Yields:
        The rows of each as it is done.
    """
    if not jobs:
        return
    import ray
    import ray.data

    with cluster.running(cpus=cpus):
        on_gpu = hardware.device(worker_options["device"]).type == "cuda"
        gpus = int(ray.cluster_resources().get("GPU", 0)) if on_gpu else 0
        workers = min(len(jobs), gpus or cluster.cpus())
        work: Any = Worker
        reports = ray.data.from_items(list(jobs), override_num_blocks=len(jobs)).map(
            work,
            fn_constructor_kwargs={**worker_options, "plugin_names": plugins.carried()},
            compute=ray.data.ActorPoolStrategy(size=workers),
            num_cpus=1,
            num_gpus=1 if gpus else 0,
        )
        for batch in reports.iter_batches(batch_size=1, batch_format="pyarrow", prefetch_batches=1):
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
        plugin_names: Sequence[str] = (),
    ) -> None:
        plugins.load(plugin_names)
        self.encoder = open_encoder(folder, modality, device)
        self.cohort, self.out = Path(cohort), Path(out)

    def __call__(self, job: dict[str, Any]) -> dict[str, Any]:
        """Write the embeddings of one part; bad input comes back as words."""
        try:
            if "files" in job:
                declaration = statements.of_json(json.loads(job["declared"]))
                write_files(self.out / job["part"], self.encoder, job["files"], declaration)
            else:
                embeddings.write_parquet(
                    self.out / job["part"], self._groups(self.cohort / job["part"])
                )
        except InputError as error:
            return {"rows": job["rows"], "error": str(error)}
        return {"rows": job["rows"], "error": ""}

    def _groups(self, path: Path) -> Iterator[pa.Table]:
        """Embeddings of a shard, one row group after the other; a group without the signal is an
        empty table.
        """
        name = self.encoder.modality
        with shards.open_shard(path, (name,)) as file:
            for group in range(file.num_row_groups):
                rows = shards.read_group(file, group, ["subject", "split", name], path)
                rows = rows.filter(rows[name].is_valid())
                signals = shards.unpack(rows[name], name)
                vectors = _vectors(self.encoder, signals)
                yield embeddings.table({k: rows[k] for k in ("subject", "split")}, vectors)


def _vectors(encoder: Encoder, signals: np.ndarray) -> np.ndarray:
    """Embeddings of signals, of none too."""
    return encoder.of(signals) if len(signals) else np.empty((0, encoder.width), np.float32)


def write_files(
    path: Path,
    encoder: Encoder,
    files: Sequence[tuple[str, str]],
    declaration: raw.Declaration = raw.UNDECLARED,
    tick: Callable[[int], None] = lambda count: None,
) -> None:
    """Write one part: the embeddings of some recordings; in the schema's metadata those that could
    not be served.
    """
    tables: list[pa.Table] = []
    refusals: list[tuple[str, str]] = []
    count = 0
    for batch in predict.prepared_in_batches(files, declaration):
        good = [recording for recording in batch if isinstance(recording, Prepared)]
        refusals += [
            (recording.source, recording.reason)
            for recording in batch
            if isinstance(recording, Refused)
        ]
        vectors = _vectors(encoder, np.array([recording.ecg for recording in good], np.float16))
        words = {
            name: pa.array([getattr(recording, name) for recording in good], pa.string())
            for name in ("key", "source")
        }
        tables.append(embeddings.table(words, vectors))
        count += len(batch)
        tick(count)
    whole = pa.concat_tables(tables).replace_schema_metadata({REFUSED: json.dumps(refusals)})
    write_whole(path, lambda aside: pq.write_table(whole, aside))


def refusals_in(path: Path) -> list[Refused]:
    """The recordings that could not be served, as a part's metadata says."""
    metadata = pq.ParquetFile(path).schema_arrow.metadata or {}
    return [Refused(*pair) for pair in json.loads(metadata[REFUSED])]
