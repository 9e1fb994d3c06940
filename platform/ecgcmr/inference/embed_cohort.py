"""Embeddings of a cohort: every shard becomes one file, so an interrupted run goes on where it
stopped.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from ecgcmr.cohort import dataset
from ecgcmr.files import write_json
from ecgcmr.inference import embed_parts, embeddings
from ecgcmr.inference.embeddings import MANIFEST, REQUEST
from ecgcmr.inference.encoder import open_encoder
from ecgcmr.runs import check_prepared_alike


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
    """Embed every row of a cohort that has the signal; goes on where it was interrupted, and does
    nothing if it is done.

    Args:
        folder: of the run, see `open_encoder`.
        cohort_path: a complete cohort.
        out: folder of `<split>/shard-….parquet` with `subject`, `split`, `embedding`, in the order
            of the cohort.
        modality: of the encoder.
        device: of every worker; on GPUs one worker each.
        cpus: of a local Ray, if it has to be started.
        tick: is told how many rows of the cohort are done.

    Returns:
        The content of `_embeddings.json`.

    Raises:
        InputError: see `open_encoder`; signals of another recipe; `out` holds something else; a
            damaged shard.
    """
    encoder, cohort = open_encoder(folder, modality, "cpu"), dataset.open(cohort_path)
    check_prepared_alike(
        encoder.run.run, cohort.recipe, (encoder.modality,), where=str(cohort.path)
    )
    request = {**embeddings.description(encoder), "cohort": cohort.fingerprint}
    if embeddings.ready(out, request):
        return json.loads((out / MANIFEST).read_text())
    write_json(out / REQUEST, request)
    jobs = [{"part": shard["path"], "rows": shard["rows"]} for shard in cohort.manifest["shards"]]
    options = embed_parts.options(encoder, out, device, cohort=str(cohort.path.resolve()))
    embed_parts.make(jobs, options, cpus, tick)
    files = [path for job in jobs if (path := out / job["part"]).exists()]
    counts = [pq.ParquetFile(path).metadata.num_rows for path in files]
    width = pq.ParquetFile(files[0]).schema_arrow.field("embedding").type.list_size if files else 0
    return embeddings.finish(out, {**request, "rows": sum(counts), "width": width})
