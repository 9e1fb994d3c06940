"""A cohort: which people, which signals, which labels; a folder of shards that is made once and never edited.

The one idea: a cohort is complete when `_cohort.json` is there, and that is written last. Before it, every shard is written
aside, renamed and accounted for in `.build/`, so that an interrupted build goes on at the shard where it stopped and ends
byte for byte as if nothing had happened. The parallel map over shards is Ray Data's, one shard per task, one row group of
each in memory. Training reads through `stream`; whoever needs chosen rows at once calls `Cohort.load`.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from ecgcmr import raw, store
from ecgcmr.cohort import linkage, shards
from ecgcmr.cohort.labels.merge import Rules, read_labels, write_audit
from ecgcmr.errors import Excluded, InputError, differing, unknown
from ecgcmr.raw import search
from ecgcmr.raw.synthetic import cmr as synthetic_cmr
from ecgcmr.raw.synthetic import subject as synthetic
from ecgcmr.runtime import cluster
from ecgcmr.signals import cmr, ecg, quality_flags

MANIFEST = "_cohort.json"
INDEX = "index.parquet"
BUILD = ".build"
SHARD_ROWS = 256  # 65 MB: small enough for a display that moves and a resume that loses little
SURVEY = 64  # recordings judged by one task
ROW_BYTES = sum(signal.width for signal in shards.SIGNALS.values())


# -- reading -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Cohort:
    """A complete cohort on disk.

    Attributes:
        path: its folder.
        manifest: the content of `_cohort.json`.
    """

    path: Path
    manifest: dict[str, Any]

    @property
    def fingerprint(self) -> str:
        """A hash of everything that could change a result: recipe, rows, every shard's checksum."""
        return str(self.manifest["fingerprint"])

    @property
    def recipe(self) -> dict[str, Any]:
        """How signals were prepared; bound to every checkpoint trained on them."""
        return dict(self.manifest["recipe"])

    @property
    def provenance(self) -> dict[str, Any]:
        """What every result made from this cohort keeps of it."""
        return {"fingerprint": self.fingerprint, "recipe": self.recipe}

    @property
    def replaced(self) -> dict[str, int]:
        """Fingerprints of the cohorts that this one replaces -> how many people have withdrawn since."""
        found, people = {}, 0
        for one in self.manifest.get("replaces", []):  # the latest first
            people += one["people"]
            found[one["fingerprint"]] = people
        return found

    @property
    def columns(self) -> tuple[str, ...]:
        """The label columns (0/1 or phenotypes) of which at least one row is known; flags are none."""
        return tuple(name for name in self._index.columns if name in self.manifest["labels"])

    @cached_property
    def _index(self) -> pd.DataFrame:
        try:
            return pd.read_parquet(self.path / INDEX)
        except (pa.ArrowInvalid, OSError) as error:
            raise InputError(
                f"{self.path / INDEX}: missing or damaged; restore it or build the cohort again"
            ) from error

    def rows(self, split: str | None = None) -> pd.DataFrame:
        """Every column but the signals, in the order of the shards, with `shard`, `row`, `has_ecg` and `has_cmr`."""
        if split is not None and split not in linkage.SPLITS:
            raise unknown("split", split, linkage.SPLITS)
        return self._index if split is None else self._index[self._index["split"] == split]

    def load(self, index: pd.DataFrame, columns: Sequence[str] = ("ecg",)) -> dict[str, np.ndarray]:
        """Read the signals of chosen rows.

        Args:
            index: rows of `rows()`, any order.
            columns: "ecg", "cmr" or both.

        Returns:
            ecg (n, 12, 5000) float16 in mV, cmr (n, 3, 210, 210) uint8, in the order of `index`.

        Raises:
            InputError: a shard is damaged, or a wanted signal is absent.
        """
        for name in columns:
            if name not in shards.SIGNALS:
                raise unknown("signal", name, shards.SIGNALS)
        files, numbers = index["shard"].to_numpy(), index["row"].to_numpy()
        form = {name: shards.SIGNALS[name] for name in columns}
        out = {name: np.empty((len(index), *s.shape), s.dtype) for name, s in form.items()}
        for file in pd.unique(index["shard"]):
            where = np.flatnonzero(files == file)
            shards.read_rows(self.path / file, numbers[where], tuple(columns), out, where)
        return out


def open(path: Path | str) -> Cohort:
    """Open a complete cohort.

    Raises:
        InputError: there is none, it is unfinished, or of another format.
    """
    path = Path(path)
    manifest = path / MANIFEST
    if not manifest.exists():
        state = (
            "an unfinished cohort; run the same command again"
            if (path / BUILD).exists()
            else "no cohort"
        )
        raise InputError(
            f"{path}: {state}"
            + ("; make one with  ecgcmr cohort synth" if state == "no cohort" else "")
        )
    try:
        record = json.loads(manifest.read_text())
    except ValueError as error:
        raise InputError(f"{manifest}: not JSON; restore it or build the cohort again") from error
    if record.get("format") != shards.FORMAT:
        raise InputError(
            f"{manifest}: format {record.get('format')}, this version reads {shards.FORMAT}; build it again"
        )
    return Cohort(path, record)


# -- making ------------------------------------------------------------------------------------------------------------


def synth(out: Path | str, *, subjects: int, seed: int = 0, shard_rows: int = SHARD_ROWS) -> Cohort:
    """Make a synthetic paired cohort, or open it if it is there.

    Args:
        out: its folder.
        subjects: how many; the first n of the generator's endless row for this seed.
        seed: of people and split.
        shard_rows: rows of one shard.

    Raises:
        InputError: the folder holds something else, or the disk is full.
    """
    out = Path(out)
    if subjects < 3:
        raise InputError(f"subjects={subjects}: a cohort of three splits needs at least 3")
    recipe = recipe_of("synthetic", {"synthetic": synthetic.RECIPE})
    request = {"source": "synthetic", "subjects": subjects, **_common(recipe, seed, shard_rows)}
    if ready(out, request):
        return open(out)
    split = linkage.splits(subjects, seed)
    rows = [
        {"subject": f"synth-{i + 1:07d}", "split": split[i], "index": i} for i in range(subjects)
    ]
    labels = shards.default_labels()
    shared = {"work": "synthetic", "seed": seed, "labels": labels}
    flow: list[dict[str, Any]] = [
        {"step": step, "n": subjects, "unit": "rows", "reasons": {}} for step in ("found", "kept")
    ]
    with building(out, request):
        parts = write_shards(out, rows, shared, shard_rows)
        return finish(
            out, request, recipe, parts, labels, {"flow": flow, "exclusions": [], "repairs": []}
        )


def build(
    out: Path | str,
    *,
    ecg: str | Sequence[str] = (),
    cmr: str | Sequence[str] = (),
    labels: Path | str | Sequence[Path | str] | None = None,
    rules: Rules | None = None,
    seed: int = 0,
    key: Path | str | None = None,
    crop: str = "heart",
    shard_rows: int = SHARD_ROWS,
) -> Cohort:
    """Make a cohort of real recordings, or open it if it is there.

    Every recording is read twice: once to judge it (readable, plausible, not a repeat of another), which decides rows and
    splits, once to prepare and write it. So nothing is staged on disk, and memory holds one row group per task.

    Args:
        out: its folder.
        ecg: where ECGs lie, "PATH", "reader:PATH" or several of them, e.g. "wfdb:PATH"; formats may be mixed.
        cmr: where short-axis stacks lie, e.g. "nifti:PATH", "dicom:PATH".
        labels: files of labels, see `merge.read_labels`; their audit is written to `<out>.audit.md`.
        rules: how they are to be read.
        seed: of the split.
        key: file with the secret of the pseudonyms, outside `out`; made beside it by default. What a pseudonym stands for
            is written to `<out>.link.csv`, beside the cohort and never inside.
        crop: how the heart is cut out of the images, one of `cmr.CROPS`.
        shard_rows: rows of one shard.

    Raises:
        InputError: no source, unknown reader or crop, nothing that can serve, another cohort in the way, or a full disk.
    """
    out = Path(out)
    files = [Path(file) for file in ([labels] if isinstance(labels, (str, Path)) else labels or ())]
    table = read_labels(files, rules)
    given = {
        "ecg": [ecg] if isinstance(ecg, str) else ecg,
        "cmr": [cmr] if isinstance(cmr, str) else cmr,
    }
    sources = {
        kind: [s for path in paths for s in find(kind, path)]
        for kind, paths in given.items()
        if paths
    }
    if not sources:
        raise InputError(
            "a cohort needs recordings: give --ecg wfdb:PATH, --cmr nifti:PATH or --cmr dicom:PATH"
        )
    if taken := table.columns & set(quality_flags.FLAGS):
        raise InputError(
            f"--labels: column '{min(taken)}' is a flag that the build makes itself; rename it"
        )
    told = (
        " ".join(
            [*(shards.sha256(file)[:16] for file in files), rules.words if rules else ""]
        ).strip()
        or "none"
    )
    recipe, request = _requested(sources, {"labels": told, "crop": crop}, seed, shard_rows)
    if ready(out, request):
        return open(out)
    with building(out, request):
        judged = survey(out, sources, crop)
        linkage.sort_out(judged)  # refuses before a key is made
        linked = linkage.link(judged, table, secret(out, Path(key) if key else None), seed)
        pd.DataFrame(linked.link).to_csv(out.with_name(out.name + ".link.csv"), index=False)
        columns = tuple(dict.fromkeys((*shards.default_labels(), *linked.labels)))
        held = (*columns, *quality_flags.FLAGS) if "ecg" in sources else columns
        parts = write_shards(
            out, linked.rows, {"work": "recordings", "crop": crop, "labels": held}, shard_rows
        )
        account = {name: getattr(linked, name) for name in ("flow", "exclusions", "repairs")}
        if table.audit:
            account["audit"] = table.audit
            write_audit(out.with_name(out.name + ".audit.md"), table.audit)
        return finish(out, request, recipe, parts, columns, account)


def _requested(
    sources: dict[str, list[str]], choices: dict[str, str], seed: int, shard_rows: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The recipe, and what a build is made of: readers and counts, no folder or file, whose names may be people's."""
    readers = {
        kind: "+".join(dict.fromkeys(s.partition(":")[0] for s in found))
        for kind, found in sources.items()
    }
    recipe = recipe_of("+".join(readers.values()), {"readers": readers}, choices["crop"])
    return recipe, {
        "source": recipe["reader"],
        **{f"{kind} recordings": len(found) for kind, found in sources.items()},
        "names": digest(sorted(Path(s).name for found in sources.values() for s in found)),
        **choices,
        **_common(recipe, seed, shard_rows),
    }


def recipe_of(reader: str, notes: dict[str, Any], crop: str = "heart") -> dict[str, Any]:
    """How signals come to their form; whatever changes an array's content is in it.

    Raises:
        InputError: another `crop` than those of `cmr.CROPS`.
    """
    if crop not in cmr.CROPS:
        raise unknown("crop", crop, cmr.CROPS)
    images = {**cmr.RECIPE, "crop": crop}
    return {"format": shards.FORMAT, "ecg": ecg.RECIPE, "cmr": images, "reader": reader, **notes}


def _common(recipe: dict[str, Any], seed: int, shard_rows: int) -> dict[str, Any]:
    return {"seed": seed, "shard_rows": shard_rows, "recipe_hash": digest(recipe)}


def digest(value: Any) -> str:
    """A hash of a JSON value, the same on every machine; 16 hexadecimal digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def find(kind: str, given: str) -> list[str]:
    """The recordings of `reader:PATH`, `reader:` before each; of a PATH of ECGs alone each file's own.

    Raises:
        InputError: unknown reader, no such place, or nothing there; for images the reader must be named, because whether a
            folder is one person or many is the reader's to say.
    """
    name, colon, path = given.partition(":")
    readers = raw.READERS[kind]
    if (name not in readers or not colon) and kind == "ecg" and (not colon or Path(given).exists()):
        try:
            return [f"{reader}:{source}" for reader, source in search.recordings(kind, Path(given))]
        except Excluded as error:
            raise InputError(f"--ecg {given}: {error}") from error
    if name not in readers or not colon:
        raise unknown(f"reader of --{kind}", name, readers)
    return [f"{name}:{source}" for source in readers[name].find(path)]


def secret(out: Path, key: Path | None) -> bytes:
    """The secret of the pseudonyms; made on first use, readable by its owner alone.

    Raises:
        InputError: it would lie inside the cohort, or is empty.
    """
    path = key or out.with_name(out.name + ".key")
    if path.resolve().is_relative_to(out.resolve()):
        raise InputError(
            f"{path}: the key of the pseudonyms must not lie inside the cohort; choose another --key"
        )
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
            file.write(secrets.token_hex(32) + "\n")
    held = path.read_bytes().strip()
    if not held:
        raise InputError(
            f"{path}: the key of the pseudonyms is empty; write at least 32 random characters into it"
        )
    return held


# -- the state of a build ----------------------------------------------------------------------------------------------


def ready(out: Path, request: dict[str, Any]) -> bool:
    """Whether `out` is complete and made by this very request; prepares the folder where it is not complete.

    Raises:
        InputError: it holds a cohort of another request, or something that is no cohort, or the disk is too small.
    """
    for path, name in (
        (out / MANIFEST, "a cohort"),
        (out / BUILD / "request.json", "an unfinished cohort"),
    ):
        if path.exists():
            held = json.loads(path.read_text())
            old = held.get("request", {}) if path.name == MANIFEST else held
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
    """Surround a build: note the request first, clear leftovers of a killed one, leave nothing of a refused one."""
    made = store.absent(out.parent)
    try:
        store.write_json(out / BUILD / "request.json", request)
        for left in out.glob("*/.shard-*"):
            left.unlink(missing_ok=True)
        yield
    except OSError as error:
        raise shards.disk_full(error, out) from error
    except InputError:
        if not any(
            out.glob("*/*.parquet")
        ):  # refused before the first row: there is nothing to go on from
            shutil.rmtree(out / BUILD, ignore_errors=True)
            store.vacate([out, *made])
        raise
    finally:
        (out / store.PROGRESS).unlink(missing_ok=True)


def survey(out: Path, sources: dict[str, list[str]], crop: str = "heart") -> list[linkage.Found]:
    """Judge every recording, in parallel; ECGs first, each kind in the order of its sources."""
    jobs = [
        {
            "work": "survey",
            "kind": kind,
            "sources": found[start : start + SURVEY],
            "crop": crop,
            "rows": len(found[start : start + SURVEY]),
            "part": f"survey-{kind}-{start // SURVEY:05d}.json",
        }
        for kind, found in sources.items()
        for start in range(0, len(found), SURVEY)
    ]
    parts = run_jobs(out, jobs, "recordings")
    return [
        linkage.Found(**{**f, "repairs": tuple(f["repairs"])})
        for part in parts
        for f in part["found"]
    ]


def write_shards(
    out: Path, rows: Sequence[dict[str, Any]], shared: dict[str, Any], shard_rows: int
) -> list[dict[str, Any]]:
    """Write the shards that are not yet there, in parallel; the summaries of all, in order.

    Raises:
        InputError: the disk has no room for them.
    """
    jobs = []
    for split in linkage.SPLITS:
        mine = [row for row in rows if row["split"] == split]
        for n, start in enumerate(range(0, len(mine), shard_rows)):
            name, chunk = f"shard-{n:05d}", mine[start : start + shard_rows]
            part = f"{split}-{name}.json"
            jobs.append(
                {
                    **shared,
                    "path": f"{split}/{name}.parquet",
                    "items": chunk,
                    "rows": len(chunk),
                    "part": part,
                }
            )
    left = sum(job["rows"] for job in jobs if not (out / BUILD / job["part"]).exists())
    free = shutil.disk_usage(out).free
    if left * ROW_BYTES > free:
        raise InputError(
            f"{out}: disk too small, {left * ROW_BYTES / 2**30:.1f} GiB are needed and {free / 2**30:.1f} free; "
            "free space or choose another folder"
        )
    return run_jobs(out, jobs, "rows")


def run_jobs(out: Path, jobs: Sequence[dict[str, Any]], unit: str) -> list[dict[str, Any]]:
    """Do the jobs whose part is not yet written, one Ray Data task each; return all parts in the order of `jobs`.

    Raises:
        InputError: what a job raised, in one line.
    """
    done = {job["part"]: part for job in jobs if (part := _part(out, job)) is not None}
    todo = [job for job in jobs if job["part"] not in done]
    have = sum(job["rows"] for job in jobs if job["part"] in done)
    progress = store.Progress(
        out.parent, out.name, sum(job["rows"] for job in jobs), unit, done=have
    )
    progress.update(have)
    for part in _each(todo, out):
        done[part["part"]] = part
        have += part["rows"]
        progress.update(have)
    progress.close()
    return [done[job["part"]] for job in jobs]


def _part(out: Path, job: dict[str, Any]) -> dict[str, Any] | None:
    """What an earlier run noted of this job; None if it has to be done, also where its shard has gone since."""
    path, shard = out / BUILD / job["part"], out / job.get("path", "")
    if not path.exists():
        return None
    part: dict[str, Any] = json.loads(path.read_text())
    if "path" in job and not (shard.exists() and shards.sha256(shard) == part["sha256"]):
        return None
    return part


def _each(jobs: Sequence[dict[str, Any]], out: Path) -> Iterator[dict[str, Any]]:
    """Map jobs with Ray Data, one task each, as many at once as there are CPUs; results as they come."""
    if not jobs:
        return
    import ray.data

    with cluster.running():
        # JSON both ways: Ray Data makes Arrow columns of rows, and jobs of one map need not have the same fields.
        items = [{"job": json.dumps(job), "out": str(out.resolve())} for job in jobs]
        found = ray.data.from_items(items, override_num_blocks=len(items)).map(_work, num_cpus=1)
        for row in found.iter_batches(batch_size=1, batch_format="pyarrow", prefetch_batches=1):
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
    """Write the index and then the manifest: from here on it is a cohort."""
    index = pd.concat([_index_of(out, part) for part in parts], ignore_index=True)
    store.write_whole(out / INDEX, lambda aside: index.to_parquet(aside, index=False))
    listed = [
        {"path": part["path"], "rows": part["rows"], "sha256": part["sha256"]} for part in parts
    ]
    manifest = {
        "format": shards.FORMAT,
        "name": out.name,
        "source": request["source"],
        "seed": request["seed"],
        "rows": {split: int((index["split"] == split).sum()) for split in linkage.SPLITS},
        "labels": counts(index, labels),
        "flags": counts(index, [name for name in quality_flags.FLAGS if name in index]),
        **account,
        "recipe": recipe,
        "recipe_hash": request["recipe_hash"],
        "request": request,
        "shards": listed,
        "fingerprint": digest({"recipe": request["recipe_hash"], "shards": listed}),
    }
    store.write_json(out / MANIFEST, manifest)
    shutil.rmtree(out / BUILD)
    return open(out)


def _index_of(out: Path, part: dict[str, Any]) -> pd.DataFrame:
    file = shards.open_shard(out / part["path"])
    names = [name for name in file.schema_arrow.names if name not in shards.SIGNALS]
    frame = file.read(columns=names).to_pandas()
    frame["shard"] = part["path"]
    frame["row"] = np.arange(len(frame), dtype=np.int64)
    for name in shards.SIGNALS:
        frame[f"has_{name}"] = [mark == "1" for mark in part["has"][name]]
    return frame


def counts(index: pd.DataFrame, labels: Iterable[str]) -> dict[str, dict[str, Any]]:
    """For each column of which something is known: rows per split, with the positives or the mean."""
    out: dict[str, dict[str, Any]] = {}
    for name in labels:
        known = index[index[name].notna()]
        if len(known):
            binary = known[name].isin((0, 1)).all()
            groups = {split: known.loc[known["split"] == split, name] for split in linkage.SPLITS}
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


# -- in the tasks ------------------------------------------------------------------------------------------------------


def _work(row: dict[str, Any]) -> dict[str, Any]:
    """One job: survey some recordings, or write one shard; its part is written last. Bad input comes back as words."""
    job, out = json.loads(row["job"]), Path(row["out"])
    try:
        part = {"survey": _survey}.get(job["work"], _shard)(job, out)
        part |= {"part": job["part"], "rows": job["rows"]}
        store.write_json(out / BUILD / job["part"], part)
    except InputError as error:
        part = {"error": str(error)}
    except Excluded as error:
        part = {
            "error": f"a recording that could be read before cannot be now ({error}); keep them as they are, run it again"
        }
    except OSError as error:
        told = shards.disk_full(error, out)
        if told is error:
            raise
        part = {"error": str(told)}
    return {"part": json.dumps(part)}


def _shard(job: dict[str, Any], out: Path) -> dict[str, Any]:
    """Write one shard."""
    has: dict[str, list[str]] = {name: [] for name in shards.SIGNALS}

    def noted(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for row in rows:
            for name, marks in has.items():
                marks.append("0" if row.get(name) is None else "1")
            yield row

    rows = {"synthetic": _synthetic, "recordings": _recorded, "copied": _copied}[job["work"]](job)
    summary = shards.write_shard(out / job["path"], noted(rows), job["labels"])
    return {
        **summary,
        "path": job["path"],
        "has": {name: "".join(marks) for name, marks in has.items()},
    }


def _synthetic(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for item in job["items"]:
        subject = synthetic.subject(item["index"], job["seed"])
        numbers = {**subject.diseases, **(subject.phenotypes if subject.phenotyped else {})}
        frames = cmr.prepare_frames(
            subject.cmr, spacing_mm=(synthetic_cmr.SPACING_MM, synthetic_cmr.SPACING_MM)
        )
        yield {
            "subject": item["subject"],
            "split": item["split"],
            "ecg": ecg.clean(subject.ecg).astype(np.float16),
            "cmr": frames,
            **{name: float(getattr(subject, name)) for name in shards.DEMOGRAPHICS},
            **numbers,
        }


def _recorded(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for item in job["items"]:
        row = {
            "subject": item["subject"],
            "split": item["split"],
            **item["numbers"],
            **item["flags"],
        }
        for kind in shards.SIGNALS:
            if item[kind]:
                row[kind], _ = _prepare(kind, _read(kind, item[kind]), job["crop"])
        yield row


def _copied(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The rows of another cohort's shard whose numbers are listed."""
    wanted = set(job["items"])
    return (row for number, row in enumerate(shards.rows(Path(job["from"]))) if number in wanted)


def _read(kind: str, source: str) -> raw.EcgRecord | raw.CmrRecord:
    reader, _, path = source.partition(":")
    return raw.READERS[kind][reader].read(path)


def _prepare(kind: str, record: Any, crop: str) -> tuple[np.ndarray, tuple[str, ...]]:
    if kind == "ecg":
        signal, words = ecg.prepare(
            record.signal, record.rate_hz, record.leads, cleaned=record.cleaned
        )
        return signal.astype(np.float16), words
    return cmr.prepare(record, crop)


def _survey(job: dict[str, Any], out: Path) -> dict[str, Any]:
    """Judge recordings: what is known of each, or the step at which it failed and why."""
    return {
        "found": [
            dataclasses.asdict(_judge(job["kind"], source, job["crop"]))
            for source in job["sources"]
        ]
    }


def _judge(kind: str, source: str, crop: str) -> linkage.Found:
    blank = linkage.Found(kind, source, raw.key(source.partition(":")[2]))
    try:
        record = _read(kind, source)
    except Excluded as error:
        return dataclasses.replace(blank, step="readable", reason=str(error))
    whose = dataclasses.replace(
        blank, key=record.key, person=record.person, visit=record.visit, patient=record.patient
    )
    try:
        array, words = _prepare(kind, record, crop)
    except Excluded as error:
        return dataclasses.replace(whose, step="plausible", reason=str(error))
    known = {
        n: float(v) for n in shards.DEMOGRAPHICS if (v := getattr(record, n, None)) is not None
    }
    suspicions: dict[str, float] = {}
    if isinstance(record, raw.EcgRecord):
        suspicions = quality_flags.flags(ecg.settle(record.signal, record.rate_hz, record.leads))
    return dataclasses.replace(
        whose,
        digest=hashlib.sha256(array.tobytes()).hexdigest(),
        numbers=record.labels | known,
        flags=suspicions,
        repairs=(*record.repairs, *words),
    )
