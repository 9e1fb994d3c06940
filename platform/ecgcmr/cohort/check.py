"""Verify a cohort: every fault by file and row, none repaired.

The one idea: trust nothing that the manifest says; read every shard once, row group by row group,
and compare. Memory is one row group and a digest per signal. Physical limits are wide: they catch
wrong units and swapped leads, not odd hearts.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ecgcmr import checksums, tasks
from ecgcmr.cohort import dataset, follow_up, presence, shards, staging
from ecgcmr.errors import InputError
from ecgcmr.signals import ALWAYS, SIGNALS

RANGES = {
    "age": (0, 120),
    "sex": (0, 1),
    "height": (50, 250),
    "weight": (10, 400),
}  # years, -, cm, kg
INDEX_COLUMNS = ("subject", "split", *shards.DEMOGRAPHICS)


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong: file below the cohort's folder, row in that file if it concerns
    one.
    """

    file: str
    row: int | None
    what: str

    def __str__(self) -> str:
        """`train/shard-00002.parquet row 17: lead V3 is flat`."""
        return f"{self.file}{'' if self.row is None else f' row {self.row}'}: {self.what}"


def check(path: Path | str) -> list[Fault]:
    """Every fault of a cohort, in the order of its files; empty if it is sound.

    Raises:
        InputError: there is no complete cohort.
    """
    cohort = dataset.open(path)
    index = _index(cohort)
    if isinstance(index, Fault):
        return [index]
    faults = [*_manifest(cohort, index), *_persons(index)]
    first_seen: dict[tuple[str, bytes], tuple[str, str, int]] = {}
    for entry in cohort.manifest["shards"]:
        faults += _shard(cohort, entry, index[index["shard"] == entry["path"]], first_seen)
    return faults


def _index(cohort: dataset.Cohort) -> pd.DataFrame | Fault:
    try:
        index = cohort.rows()
    except InputError:
        return Fault(dataset.INDEX, None, "missing or damaged")
    columns = (*INDEX_COLUMNS, "shard", "row", *map(presence.column, ALWAYS))
    absent = [name for name in columns if name not in index]
    return Fault(dataset.INDEX, None, f"no column '{absent[0]}'") if absent else index


def _manifest(cohort: dataset.Cohort, index: pd.DataFrame) -> Iterator[Fault]:
    """What the manifest says of itself, of the index and of the files beside it."""
    manifest = cohort.manifest
    if dataset.digest(manifest["recipe"]) != manifest["recipe_hash"]:
        yield Fault(dataset.MANIFEST, None, "recipe_hash is not the recipe's")
    if (
        dataset.digest({"recipe": manifest["recipe_hash"], "shards": manifest["shards"]})
        != manifest["fingerprint"]
    ):
        yield Fault(dataset.MANIFEST, None, "fingerprint is not that of recipe and shards")
    for split in shards.SPLITS:
        n_rows = int((index["split"] == split).sum())
        if manifest["rows"].get(split) != n_rows:
            yield Fault(
                dataset.MANIFEST,
                None,
                f"rows of {split}: {manifest['rows'].get(split)}, the index has {n_rows}",
            )
    for name in follow_up.columns(index.columns):
        if name in manifest["labels"]:
            yield Fault(dataset.MANIFEST, None, f"'{name}' is of follow-up and counted as a label")
    counts_of = {**manifest["labels"], **manifest.get("flags", {}), **manifest.get("times", {})}
    for name, counts in counts_of.items():
        if name not in index:
            yield Fault(dataset.INDEX, None, f"no column '{name}', which the manifest counts")
        elif staging.counts(index, [name]).get(name) != counts:
            yield Fault(dataset.MANIFEST, None, f"labels of '{name}' are not those of the index")
    shard_names = {entry["path"] for entry in manifest["shards"]}
    for file in sorted(cohort.path.glob("*/*.parquet")):
        if (name := file.relative_to(cohort.path).as_posix()) not in shard_names:
            yield Fault(name, None, "not in the manifest")


def _persons(index: pd.DataFrame) -> Iterator[Fault]:
    """Each person in one split only."""
    home: dict[str, str] = {}
    columns = (index[name].tolist() for name in ("subject", "split", "shard", "row"))
    for subject, split, file, row in zip(*columns, strict=True):
        if split not in shards.SPLITS:
            yield Fault(file, row, f"split '{split}' is none of {', '.join(shards.SPLITS)}")
        elif home.setdefault(subject, split) != split:
            yield Fault(file, row, f"subject {subject} is in {split} and in {home[subject]}")


def _shard(
    cohort: dataset.Cohort,
    entry: dict[str, Any],
    index: pd.DataFrame,
    first_seen: dict[tuple[str, bytes], tuple[str, str, int]],
) -> list[Fault]:
    name, path = entry["path"], cohort.path / entry["path"]
    faults: list[Fault] = []
    if not path.exists():
        return [Fault(name, None, "missing")]
    if checksums.sha256(path) != entry["sha256"]:
        faults.append(Fault(name, None, "checksum is not the manifest's"))
    try:
        with shards.open_shard(path) as file:
            faults += _form(name, file, entry["rows"], len(index))
            if any(fault.what.startswith(("no column", "column")) for fault in faults):
                return faults  # what follows reads them
            start = 0
            for group in range(file.num_row_groups):
                table = shards.read_group(file, group, file.schema_arrow.names, path)
                faults += _rows(name, start, table, index.iloc[start : start + len(table)])
                faults += _repeats(name, start, table, first_seen)
                start += len(table)
    except InputError as error:
        what = str(error).removeprefix(f"{path}: ").removeprefix(f"{name}: ")
        faults.append(Fault(name, None, what.partition(";")[0]))
    return faults


def _form(name: str, file: pq.ParquetFile, manifest_rows: int, index_rows: int) -> Iterator[Fault]:
    """Columns, types, signal metadata and counts."""
    form = file.schema_arrow
    signal_names = shards.signals_of(form, Path(name))
    format_schema = shards.schema((), list(dict.fromkeys((*ALWAYS, *signal_names))))
    for field in format_schema:
        if field.name not in form.names:
            yield Fault(name, None, f"no column '{field.name}'")
        elif form.field(field.name).type != field.type:
            yield Fault(
                name,
                None,
                f"column '{field.name}' is {form.field(field.name).type}, expected {field.type}",
            )
        elif (
            field.metadata
            and dict(field.metadata).items() - dict(form.field(field.name).metadata or {}).items()
        ):
            yield Fault(name, None, f"metadata of '{field.name}' is not the format's")
    for field in form:
        if field.name not in format_schema.names and field.type != pa.float64():
            yield Fault(name, None, f"column '{field.name}' is {field.type}, expected double")
    if file.metadata.num_rows != manifest_rows:
        yield Fault(name, None, f"{file.metadata.num_rows} rows, the manifest says {manifest_rows}")
    if file.metadata.num_rows != index_rows:
        yield Fault(name, None, f"{file.metadata.num_rows} rows, the index has {index_rows}")


def _rows(name: str, start: int, table: pa.Table, index: pd.DataFrame) -> Iterator[Fault]:
    """Signals and numbers of one row group, against physics and against the index."""
    signals = shards.signals_of(table.schema, Path(name))
    present = {kind: table[kind].is_valid().to_numpy() for kind in signals}
    for i in range(len(table)):
        for kind in signals:
            if present[kind][i]:
                for words in SIGNALS[kind].faults(shards.unpack(table[kind].slice(i, 1), kind)[0]):
                    yield Fault(name, start + i, words)
        if not any(marks[i] for marks in present.values()):
            titles = " nor ".join(SIGNALS[kind].title for kind in signals)
            yield Fault(name, start + i, f"neither {titles}")
    for kind, marks in present.items():
        for at in np.flatnonzero(marks[: len(index)] != presence.has(index, kind)):
            state = "there" if marks[at] else "null"
            yield Fault(name, start + int(at), f"'{kind}' is {state}, the index says otherwise")
    numbers = table.drop_columns(signals).to_pandas()
    yield from _numbers(name, start, numbers)
    yield from _times(name, start, numbers)
    for column in numbers.columns.intersection(index.columns):
        here, there = numbers[column].to_numpy()[: len(index)], index[column].to_numpy()
        for at in np.flatnonzero((here != there) & ~(pd.isna(here) & pd.isna(there))):
            yield Fault(
                name, start + int(at), f"'{column}' is {here[at]}, the index says {there[at]}"
            )


def _numbers(name: str, start: int, numbers: pd.DataFrame) -> Iterator[Fault]:
    days = [stem + follow_up.TIME for stem in follow_up.stems(numbers.columns)]
    for column in numbers.columns.drop(["subject", "split", *days]):
        low, high = RANGES.get(column, (-np.inf, np.inf) if column in tasks.PHENOTYPES else (0, 1))
        values = numbers[column].to_numpy(dtype=np.float64)
        has_value = ~np.isnan(values)
        bad = has_value & ~((values >= low) & (values <= high) & np.isfinite(values))
        if column == "sex" or column not in (*RANGES, *tasks.PHENOTYPES):
            bad |= has_value & ~np.isin(values, (0, 1))
        for i in np.flatnonzero(bad):
            range_words = f"{low} to {high}" if column in RANGES and column != "sex" else "0 or 1"
            range_words = "a number" if column in tasks.PHENOTYPES else range_words
            yield Fault(
                name, start + int(i), f"'{column}' is {values[i]:g}, expected {range_words}"
            )


def _times(name: str, start: int, numbers: pd.DataFrame) -> Iterator[Fault]:
    """Times to onset: from 0 on, known with their events, and as the other columns have it."""
    for stem in follow_up.stems(numbers.columns):
        time, event = stem + follow_up.TIME, stem + follow_up.EVENT
        days, events = (numbers[column].to_numpy(np.float64) for column in (time, event))
        wrong = {
            f"'{time}' is no number of days from 0 on": ~np.isnan(days)
            & ~((days >= 0) & np.isfinite(days)),
            f"'{time}' is known without '{event}' or '{event}' without it": np.isnan(days)
            != np.isnan(events),
        }
        for column, value, excluded in (
            (f"{stem}_past", 1, ~np.isnan(days)),
            (f"{stem}_future", 0, events == 1),
            (stem, 0, events == 1),
        ):
            if column in numbers:
                is_value = numbers[column].to_numpy(np.float64) == value
                words = f"'{time}' and '{event}' contradict '{column}', which is {value}"
                wrong[words] = is_value & excluded
        for words, marks in wrong.items():
            yield from (Fault(name, start + int(i), words) for i in np.flatnonzero(marks))


def _repeats(
    name: str,
    start: int,
    table: pa.Table,
    first_seen: dict[tuple[str, bytes], tuple[str, str, int]],
) -> Iterator[Fault]:
    """Signals that another split has as well, compared after rounding (0.01 mV; whole grey
    values).
    """
    splits = table["split"].to_pylist()
    for kind in shards.signals_of(table.schema, Path(name)):
        for i in np.flatnonzero(table[kind].is_valid().to_numpy()):
            array = shards.unpack(table[kind].slice(int(i), 1), kind)[0]
            with np.errstate(invalid="ignore", over="ignore"):
                round_ = (
                    np.rint(array.astype(np.float32) * 100).astype(np.int32)
                    if np.issubdtype(array.dtype, np.floating)
                    else array
                )
            key = (
                kind,
                hashlib.blake2b(np.ascontiguousarray(round_).tobytes(), digest_size=16).digest(),
            )
            split, file, row = first_seen.setdefault(key, (splits[i], name, start + int(i)))
            if split != splits[i]:
                yield Fault(
                    name,
                    start + int(i),
                    f"same {SIGNALS[kind].title} as {file} row {row}, which is in {split}",
                )
