"""The state of a build: a cohort that is not complete yet, and goes on at the shard where it
stopped.

The one idea: every shard is written aside, renamed and accounted for in `.build/`, so that an
interrupted build ends byte for byte as if nothing had happened. The parallel map over jobs is Ray
Data's, one shard per task, one row group of each in memory; what a job does is in `prepare`.
"""

import contextlib
import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ecgcmr import checksums, files, plugins, signals, store
from ecgcmr.cohort import dataset, follow_up, prepare, presence, shards
from ecgcmr.cohort.dataset import BUILD, INDEX, MANIFEST, Cohort, digest
from ecgcmr.errors import InputError, differing
from ecgcmr.runtime import cluster


def ready(out: Path, request: dict[str, Any]) -> bool:
    """Whether `out` is complete and made by this very request; prepares the folder where it is not
    complete.

    Raises:
        InputError: it holds a cohort of another request, or something that is no cohort, or the
            disk is too small.
    """
    for path, name in (
        (out / MANIFEST, "a cohort"),
        (out / BUILD / "request.json", "an unfinished cohort"),
    ):
        if path.exists():
            record = json.loads(path.read_text())
            old = record.get("request", {}) if path.name == MANIFEST else record
            if differ := differing(old, request):
                raise InputError(
                    f"{out}: holds {name} made otherwise: {differ}; use another folder or delete it"
                )
            return path.name == MANIFEST
    if out.exists() and any(path.name != store.PROGRESS for path in out.iterdir()):
        raise InputError(f"{out}: not empty and no cohort; use another folder")
    return False


@contextlib.contextmanager
def building(out: Path, request: dict[str, Any]) -> Iterator[None]:
    """Surround a build: note the request first, clear leftovers of a killed one, leave nothing of a
    refused one.
    """
    new_folders = files.absent(out.parent)
    try:
        files.write_json(out / BUILD / "request.json", request)
        for leftover in out.glob("*/.shard-*"):
            leftover.unlink(missing_ok=True)
        yield
    except OSError as error:
        raise shards.disk_full(error, out) from error
    except InputError:
        if not any(
            out.glob("*/*.parquet")
        ):  # refused before the first row: there is nothing to go on from
            shutil.rmtree(out / BUILD, ignore_errors=True)
            (out / store.PROGRESS).unlink(missing_ok=True)
            files.vacate([out, *new_folders])
        raise
    finally:
        (out / store.PROGRESS).unlink(missing_ok=True)


def write_shards(
    out: Path, rows: Sequence[dict[str, Any]], job_fields: dict[str, Any], shard_rows: int
) -> list[dict[str, Any]]:
    """Write the shards that are not yet there, in parallel; the summaries of all, in order.

    Args:
        out: the cohort's folder.
        rows: what becomes a row each, with its `split`.
        job_fields: what all jobs have in common; `signals` are the shards' signal columns.
        shard_rows: rows of one shard.

    Raises:
        InputError: the disk has no room for them.
    """
    jobs = []
    for split in shards.SPLITS:
        split_rows = [row for row in rows if row["split"] == split]
        for n, start in enumerate(range(0, len(split_rows), shard_rows)):
            name, chunk = f"shard-{n:05d}", split_rows[start : start + shard_rows]
            part = f"{split}-{name}.json"
            jobs.append(
                {
                    **job_fields,
                    "path": f"{split}/{name}.parquet",
                    "items": chunk,
                    "rows": len(chunk),
                    "part": part,
                }
            )
    rows_to_write = sum(job["rows"] for job in jobs if not (out / BUILD / job["part"]).exists())
    free = shutil.disk_usage(out).free
    bytes_needed = rows_to_write * sum(shards.SIGNALS[name].width for name in job_fields["signals"])
    if bytes_needed > free:
        raise InputError(
            f"{out}: disk too small, {bytes_needed / 2**30:.1f} GiB are needed and "
            f"{free / 2**30:.1f} free; "
            "free space or choose another folder"
        )
    return run_jobs(out, jobs, "rows")


def run_jobs(out: Path, jobs: Sequence[dict[str, Any]], unit: str) -> list[dict[str, Any]]:
    """Do the jobs whose part is not yet written, one Ray Data task each; return all parts in the
    order of `jobs`.

    Raises:
        InputError: what a job raised, in one line.
    """
    parts_done = {job["part"]: part for job in jobs if (part := _part(out, job)) is not None}
    todo = [job for job in jobs if job["part"] not in parts_done]
    have = sum(job["rows"] for job in jobs if job["part"] in parts_done)
    progress = store.Progress(
        out.parent, out.name, sum(job["rows"] for job in jobs), unit, done=have
    )
    progress.update(have)
    for part in _each(todo, out):
        parts_done[part["part"]] = part
        have += part["rows"]
        progress.update(have)
    progress.close()
    return [parts_done[job["part"]] for job in jobs]


def _part(out: Path, job: dict[str, Any]) -> dict[str, Any] | None:
    """What an earlier run noted of this job; None if it has to be done, also where its shard has
    gone since.
    """
    path, shard = out / BUILD / job["part"], out / job.get("path", "")
    if not path.exists():
        return None
    part: dict[str, Any] = json.loads(path.read_text())
    if "path" in job and not (shard.exists() and checksums.sha256(shard) == part["sha256"]):
        return None
    return part


def task_rows(jobs: Sequence[dict[str, Any]], out: Path) -> list[dict[str, str]]:
    """What `prepare.work` takes, for each job.

    JSON both ways: Ray Data makes Arrow columns of rows, and jobs of one map need not have the same
    fields.
    """
    context = {"out": str(out.resolve()), "plugins": json.dumps(plugins.carried())}
    return [{"job": json.dumps(job), **context} for job in jobs]


def _each(jobs: Sequence[dict[str, Any]], out: Path) -> Iterator[dict[str, Any]]:
    """Map jobs with Ray Data, one task each, as many at once as there are CPUs; results as they
    come.
    """
    if not jobs:
        return
    import ray.data

    with cluster.running():
        rows = task_rows(jobs, out)
        outputs = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            prepare.work, num_cpus=1
        )
        for row in outputs.iter_batches(batch_size=1, batch_format="pyarrow", prefetch_batches=1):
            part = json.loads(row["part"][0].as_py())
            if "error" in part:
                raise InputError(part["error"])
            yield part


def finish(
    out: Path,
    request: dict[str, Any],
    recipe: dict[str, Any],
    parts: Sequence[dict[str, Any]],
    labels: Sequence[str],
    account: dict[str, Any],
) -> Cohort:
    """Write the index and then the manifest: from here on it is a cohort.

    Columns of follow-up are among the labels that come in, and are counted apart: no task learns
    them.
    """
    times = follow_up.columns(labels)
    index = pd.concat([_index_of(out, part) for part in parts], ignore_index=True)
    files.write_whole(out / INDEX, lambda aside: index.to_parquet(aside, index=False))
    shard_entries = [
        {"path": part["path"], "rows": part["rows"], "sha256": part["sha256"]} for part in parts
    ]
    manifest = {
        "format": shards.FORMAT,
        "name": out.name,
        "source": request["source"],
        "seed": request["seed"],
        "rows": {split: int((index["split"] == split).sum()) for split in shards.SPLITS},
        "labels": counts(index, [name for name in labels if name not in times]),
        **({"times": counts(index, times)} if times else {}),
        "flags": counts(index, [name for name in signals.flags(signals.SIGNALS) if name in index]),
        **account,
        "recipe": recipe,
        "recipe_hash": request["recipe_hash"],
        "request": request,
        "shards": shard_entries,
        "fingerprint": digest({"recipe": request["recipe_hash"], "shards": shard_entries}),
    }
    files.write_json(out / MANIFEST, manifest)
    shutil.rmtree(out / BUILD)
    return dataset.open(out)


def _index_of(out: Path, part: dict[str, Any]) -> pd.DataFrame:
    file = shards.open_shard(out / part["path"])
    signal_names = shards.signals_of(file.schema_arrow, out / part["path"])
    names = [name for name in file.schema_arrow.names if name not in signal_names]
    frame = file.read(columns=names).to_pandas()
    frame["shard"] = part["path"]
    frame["row"] = np.arange(len(frame), dtype=np.int64)
    for name in signal_names:
        presence.mark(frame, name, [mark == "1" for mark in part["has"][name]])
    return frame


def counts(index: pd.DataFrame, labels: Iterable[str]) -> dict[str, dict[str, Any]]:
    """For each column of which something is known: rows per split, with the positives or the
    mean.
    """
    out: dict[str, dict[str, Any]] = {}
    for name in labels:
        known_rows = index[index[name].notna()]
        if len(known_rows):
            binary = known_rows[name].isin((0, 1)).all()
            groups = {
                split: known_rows.loc[known_rows["split"] == split, name] for split in shards.SPLITS
            }
            out[name] = {
                split: {
                    "n": len(v),
                    **(
                        {"positive": int(v.sum())}
                        if binary
                        else {"mean": float(v.mean()) if len(v) else None}
                    ),
                }
                for split, v in groups.items()
            }
    return out
