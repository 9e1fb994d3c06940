"""A shard: one Parquet file of a cohort, and the only place that knows its form.

The one idea: signals are raw bytes of fixed width (`fixed_size_binary`), uncompressed, in row
groups of 64, with dtype, shape and unit in the field's metadata. A column of a row group is then
one buffer, which NumPy views without decoding: 14,000 rows/s on two cores against 400-900 for
tensor extension columns. No PyTorch here: the tasks of Ray Data that read shards import this file,
and a worker process without PyTorch starts in a third of the time and memory.
"""

import errno
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ecgcmr import checksums, files, tasks
from ecgcmr.errors import InputError
from ecgcmr.signals import ALWAYS, LEADS, SIGNALS

__all__ = ["LEADS", "SIGNALS"]

FORMAT = 1
SPLITS = ("train", "val", "test")
GROUP = 64  # rows; 16 MB of ECG and CMR together
DEMOGRAPHICS = ("age", "sex", "height", "weight")
# A column chunk is then a page header of some bytes and the rows themselves; without
# `data_page_size`, one header per MB.
ONE_PAGE = {
    "compression": "none",
    "use_dictionary": False,
    "write_statistics": False,
    "data_page_size": 2**30,
}
HEADER = 128  # bytes that are more than any page header with the marks of 64 non-null rows
FULL_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def schema(labels: Sequence[str], signals: Sequence[str] = ALWAYS) -> pa.Schema:
    """The columns of a shard: two words, signals, demographics, then `labels` (0/1 or phenotypes;
    null = unknown).
    """
    forms = [SIGNALS[name] for name in signals]
    arrays = [pa.field(s.name, pa.binary(s.width), metadata=s.metadata) for s in forms]
    numbers = [pa.field(name, pa.float64()) for name in (*DEMOGRAPHICS, *labels)]
    words = [pa.field("subject", pa.string()), pa.field("split", pa.string())]
    return pa.schema([*words, *arrays, *numbers], metadata={"format": str(FORMAT), "pages": "one"})


def pack(array: np.ndarray | None, name: str) -> bytes | None:
    """The stored bytes of one signal; None stays None.

    Raises:
        ValueError: the array's form is not the column's.
    """
    if array is None:
        return None
    signal = SIGNALS[name]
    if array.shape != signal.shape or array.dtype != signal.dtype:
        raise ValueError(
            f"{name} is {array.dtype}{array.shape}, a shard needs {signal.dtype}{signal.shape}"
        )
    return np.ascontiguousarray(array, np.dtype(signal.dtype).newbyteorder("<")).tobytes()


def unpack(column: pa.Array | pa.ChunkedArray, name: str) -> np.ndarray:
    """View a signal column as (n, *shape), without a copy where it is one chunk; rows that are null
    hold anything.
    """
    if isinstance(column, pa.ChunkedArray):
        column = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    signal = SIGNALS[name]
    if len(column) == 0:
        return np.empty((0, *signal.shape), signal.dtype)
    raw = np.frombuffer(
        column.buffers()[1], np.uint8, len(column) * signal.width, column.offset * signal.width
    )
    return raw.view(signal.dtype).reshape(len(column), *signal.shape)


def column(array: np.ndarray, name: str) -> pa.Array:
    """The inverse of `unpack`, without a copy."""
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(SIGNALS[name].width),
        len(array),
        [None, pa.py_buffer(np.ascontiguousarray(array))],
    )


def space(n: int, name: str) -> np.ndarray:
    """An array (n, *shape) to be filled; from Arrow's pool, which keeps its pages, where NumPy
    faults each in anew.

    Measured: a task's 120 MB fill at 7 GB/s instead of 1 to 4.
    """
    signal = SIGNALS[name]
    return np.frombuffer(pa.allocate_buffer(n * signal.width), signal.dtype).reshape(
        n, *signal.shape
    )


def _table(rows: Sequence[Mapping[str, Any]], form: pa.Schema) -> pa.Table:
    def values(field: pa.Field) -> list[Any]:
        if field.name in SIGNALS:
            return [pack(row.get(field.name), field.name) for row in rows]
        return [None if _missing(row.get(field.name)) else row[field.name] for row in rows]

    return pa.table([pa.array(values(field), field.type) for field in form], schema=form)


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and np.isnan(value))


def _groups(rows: Iterable[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    group: list[Mapping[str, Any]] = []
    for row in rows:
        group.append(row)
        if len(group) == GROUP:
            yield group
            group = []
    if group:
        yield group


def signals_of(form: pa.Schema, path: Path) -> list[str]:
    """The signals of a shard, in the order of its columns.

    Raises:
        InputError: one of them is not registered.
    """
    names = [field.name for field in form if pa.types.is_fixed_size_binary(field.type)]
    if unknown_signals := [name for name in names if name not in SIGNALS]:
        raise InputError(
            f"{path}: nobody has registered the signal '{unknown_signals[0]}'; name the module "
            "that does in ECGCMR_PLUGINS"
        )
    return names


def write_shard(
    path: Path,
    rows: Iterable[Mapping[str, Any]],
    labels: Sequence[str],
    signals: Sequence[str] = ALWAYS,
) -> dict[str, Any]:
    """Write rows to one shard, whole or not at all; at most one row group is held in memory.

    Args:
        path: the shard's file.
        rows: `subject`, `split`, for each signal its array or None, numbers by name.
        labels: the number columns beyond the demographics; a row that lacks one has null there.
        signals: the signal columns.

    Returns:
        {"rows": count, "sha256": of the file}.

    Raises:
        InputError: the disk is full.
    """
    form, count, digest = schema(labels, signals), 0, ""

    def fill(aside: Path) -> None:
        nonlocal count, digest
        with pq.ParquetWriter(aside, form, **ONE_PAGE) as writer:
            for group in _groups(rows):
                writer.write_table(_table(group, form), row_group_size=GROUP)
                count += len(group)
        digest = checksums.sha256(aside)

    try:
        files.write_whole(path, fill)
    except OSError as error:
        raise disk_full(error, path) from error
    return {"rows": count, "sha256": digest}


def disk_full(error: OSError, path: Path) -> Exception:
    """The InputError of a full disk; any other error as it is."""
    if error.errno not in FULL_DISK:
        return error
    return InputError(
        f"{path}: {os.strerror(error.errno)}; free space or choose another folder, then run it "
        "again"
    )


def open_shard(path: Path, columns: Iterable[str] = ()) -> pq.ParquetFile:
    """Open a shard's footer and make sure that it has `columns` in the stored form.

    Raises:
        InputError: missing, truncated, or without one of the columns.
    """
    try:
        file = pq.ParquetFile(path, memory_map=True)
    except FileNotFoundError as error:
        raise InputError(
            f"{path}: the shard is missing; restore it or build the cohort again"
        ) from error
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(
            f"{path}: truncated or not Parquet; restore it or build the cohort again"
        ) from error
    form = file.schema_arrow
    for name in columns:
        if name not in form.names:
            raise InputError(
                f"{path}: no column '{name}'; it has {', '.join(form.names[:8])} …; build the "
                "cohort again"
            )
        if name in SIGNALS and form.field(name).type != pa.binary(SIGNALS[name].width):
            raise InputError(
                f"{path}: column '{name}' is {form.field(name).type}, expected "
                f"{pa.binary(SIGNALS[name].width)}"
            )
    return file


def read_group(file: pq.ParquetFile, group: int, columns: Sequence[str], path: Path) -> pa.Table:
    """Read one row group.

    Raises:
        InputError: its bytes cannot be read.
    """
    try:
        return file.read_row_group(group, columns=list(columns), use_threads=False)
    except (pa.ArrowException, OSError, IndexError) as error:
        raise InputError(
            f"{path}: row group {group} cannot be read; restore it or build the cohort again"
        ) from error


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """Every row of a shard as `write_shard` takes it, in order; one row group is in memory.

    Raises:
        InputError: the shard is missing or damaged.
    """
    with open_shard(path) as file:
        names, signals = file.schema_arrow.names, signals_of(file.schema_arrow, path)
        for group in range(file.num_row_groups):
            table = read_group(file, group, names, path)
            numbers = table.drop_columns(signals).to_pylist()
            for i, row in enumerate(numbers):
                for name in signals:
                    cell = table[name].slice(i, 1)
                    row[name] = None if cell.null_count else unpack(cell, name)[0]
                yield row


def read_rows(
    path: Path,
    rows: np.ndarray,
    columns: Sequence[str],
    out: Mapping[str, np.ndarray],
    where: np.ndarray,
) -> None:
    """Read chosen rows of signal columns into `out[column][where]`.

    Args:
        path: the shard.
        rows: (n,) row numbers in the shard, any order.
        columns: of `SIGNALS`.
        out: an array (m, *shape) for each column.
        where: (n,) the place in `out` of each row.

    Raises:
        InputError: the shard is damaged, too short, or a wanted signal is null.
    """
    with open_shard(path, columns) as file, path.open("rb", buffering=0) as raw:
        starts = np.cumsum(
            [0, *(file.metadata.row_group(i).num_rows for i in range(file.num_row_groups))]
        )
        if rows.max(initial=0) >= starts[-1]:
            raise InputError(
                f"{path}: has {starts[-1]} rows, row {rows.max()} is wanted; the index is another "
                "cohort's"
            )
        groups = np.searchsorted(starts, rows, side="right") - 1
        for group in np.unique(groups):
            in_group = np.flatnonzero(groups == group)
            inside, places = rows[in_group] - starts[group], where[in_group]
            for name in columns:
                begin = _values_at(file, int(group), name)
                if begin is None:
                    out[name][places] = _decoded(file, int(group), name, inside, path)
                else:
                    _copy(raw, begin + inside * SIGNALS[name].width, out[name], places, path)


def _values_at(file: pq.ParquetFile, group: int, name: str) -> int | None:
    """Where in the file the rows' bytes of a column chunk begin, if it is one plain page without
    nulls; else None.

    Parquet's own decoding copies whole row groups twice (3,200 rows/s of ECG for mixed rows); bytes
    read from their place straight into the batch come at several times that rate, and only those
    that are wanted.
    """
    if (file.schema_arrow.metadata or {}).get(b"pages") != b"one":
        return None
    chunk = file.metadata.row_group(group).column(file.schema_arrow.names.index(name))
    values = chunk.num_values * SIGNALS[name].width
    plain = chunk.compression == "UNCOMPRESSED" and not chunk.has_dictionary_page
    if (
        not plain or not 0 < chunk.total_compressed_size - values < HEADER
    ):  # nulls take no bytes: it would be less
        return None
    return int(chunk.data_page_offset + chunk.total_compressed_size - values)


def _copy(raw: Any, offsets: np.ndarray, out: np.ndarray, places: np.ndarray, path: Path) -> None:
    for offset, place in zip(offsets.tolist(), places.tolist(), strict=True):
        row = memoryview(out[place]).cast("B")
        if os.preadv(raw.fileno(), [row], offset) != len(row):
            raise InputError(
                f"{path}: ends in the middle of a row; restore it or build the cohort again"
            )


def _decoded(
    file: pq.ParquetFile, group: int, name: str, inside: np.ndarray, path: Path
) -> np.ndarray:
    column = read_group(file, group, [name], path)[name]
    if column.null_count and column.take(inside).null_count:
        raise InputError(
            f"{path}: '{name}' is null where the index says it is not; build the cohort again"
        )
    return unpack(column, name)[inside]


def default_labels() -> tuple[str, ...]:
    """The label columns every cohort has: the paper's three diseases and 61 phenotypes."""
    return (*tasks.DISEASES, *tasks.PHENOTYPES)
