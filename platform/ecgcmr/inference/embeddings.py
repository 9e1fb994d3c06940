"""Embeddings on disk: Parquet with `_embeddings.json`, which comes last and says what they are
embeddings of.

While they are made `_request.json` says what of, so an interrupted run goes on, and other
embeddings are not mixed in.
"""

import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ecgcmr import checksums, store
from ecgcmr.cohort import dataset
from ecgcmr.errors import InputError, differing
from ecgcmr.files import write_json, write_whole
from ecgcmr.inference.encoder import Encoder

# Readers of Parquet folders pass over names with an underscore.
MANIFEST, REQUEST = "_embeddings.json", "_request.json"


def table(words: dict[str, Any], embeddings: np.ndarray) -> pa.Table:
    """Columns of words beside the column `embedding`, a fixed-size list of float32; `embeddings` is
    (n, width).
    """
    width = embeddings.shape[1]
    values = pa.FixedSizeListArray.from_arrays(
        pa.array(np.ascontiguousarray(embeddings, np.float32).ravel()), width
    )
    return pa.table({**words, "embedding": values})


def write_parquet(path: Path, tables: Iterator[pa.Table]) -> int:
    """Write tables one after another, whole or not at all.

    Returns:
        The number of rows; 0 if there is no table, and no file.
    """
    rows = 0
    first = next(tables, None)
    if first is None:
        return rows

    def fill(aside: Path) -> None:
        nonlocal rows
        with pq.ParquetWriter(aside, first.schema) as writer:
            for rows_of_group in chain([first], tables):
                writer.write_table(rows_of_group)
                rows += len(rows_of_group)

    write_whole(path, fill)
    return rows


def description(encoder: Encoder) -> dict[str, Any]:
    """What all embeddings of an encoder have in common."""
    trial, recipe = encoder.run.trial, encoder.run.run.signal_recipes
    return {
        "format": 1,
        "model": trial.name,
        "weights": checksums.sha256(store.verified(encoder.run.run.folder, store.ENCODER)),
        "modality": encoder.modality,
        "pooling": encoder.pooling,
        "recipe_hash": dataset.digest(recipe) if recipe else "unknown",
    }


def ready(out: Path, request: dict[str, Any]) -> bool:
    """Whether `out` holds the embeddings that this request would make.

    Raises:
        InputError: it holds others, or something else.
    """
    for path in (out / MANIFEST, out / REQUEST):
        if path.exists():
            present = json.loads(path.read_text())
            if differ := differing(present, request, request):
                raise InputError(
                    f"{out}: holds other embeddings: {differ}; use another folder or delete it"
                )
            return path.name == MANIFEST
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out}: not empty and no embeddings; use another folder")
    return False


def finish(out: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """Say that the embeddings are whole, and of what."""
    write_json(out / MANIFEST, manifest)
    (out / REQUEST).unlink(missing_ok=True)
    return manifest
