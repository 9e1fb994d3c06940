"""The window: every finished run in an Aim repository. The only file that imports Aim.

Rows on disk are the truth. One process at a time copies what is missing: `mirror` once, `following`
beside a sweep, so that its runs can be watched. `rebuild` makes the repository anew and compares it
with the disk, so a broken repository costs nothing but time. Runs know nothing of Aim and never
fail by it.
"""

import contextlib
import fcntl
import gc
import hashlib
import importlib
import io
import json
import logging
import math
import multiprocessing
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from ecgcmr import store
from ecgcmr import trial as trials
from ecgcmr.errors import InputError
from ecgcmr.report.plots import curves
from ecgcmr.runs import Run, all_runs

log = logging.getLogger(__name__)

LOCK = ".ecgcmr-writer"
LOCK_WAIT_S = 60.0
INDEX_TRIES = 20  # a tenth of a second apart
REST_S = (5.0, 60.0)  # between two looks of a follower: after one that found runs, and at most
LAST_S = 600.0  # a follower may take so long after its sweep, for what is still to be copied
# Stage and seed: a figure costs 0.3 s, and Aim draws the curves of all runs itself.
DRAWN = (("pretrain", 0), ("evaluation", 0))

Points = dict[str, dict[int, tuple[int, float]]]  # "name [subset]" -> step -> (epoch, value)


@dataclass(frozen=True)
class Entry:
    """One run as Aim is to show it.

    Attributes:
        name: the trial's name.
        experiment: `<space>/<stage>/<task>`.
        params: plain JSON values; `digest` tells the files that they were read from.
        points: (name, subset) -> (step, epoch, value) of every finite measurement.
        figures: names of the images.
    """

    name: str
    experiment: str
    params: dict[str, Any]
    points: dict[tuple[str, str], list[tuple[int, int, float]]]
    figures: tuple[str, ...]


# -- what is on disk -------------------------------------------------------------------------------


def digest(folder: Path) -> str:
    """A hash of the files that make a run's entry."""
    whole = hashlib.sha256()
    for name in (store.RECORD, store.ROWS, store.CURVE):
        whole.update(store.verified(folder, name).read_bytes())
    return whole.hexdigest()[:16]


def read(runs: Path, run: Run) -> Entry:
    """The entry of one finished trial."""
    folder, name = run.folder, run.folder.relative_to(runs).as_posix()
    # A third of the time that data frames take, and a study has tens of thousands of these.
    rows = pq.read_table(store.verified(folder, store.ROWS)).to_pylist()
    curve = pq.read_table(store.verified(folder, store.CURVE)).to_pydict()
    score: dict[str, dict[str, Any]] = {}
    for row in rows:
        score.setdefault(row["split"], {})[row["metric"]] = {
            "value": number(row["value"]),
            "n": row["n"],
        }
    epoch = int(rows[0]["epoch"]) if rows else -1
    # `knobs` as a mapping too: Aim's query language reads run.knobs.lr, not a list of pairs.
    params = {
        "trial": trials.to_json(run.trial),
        "recipe": run.recipe,
        "fingerprint": run.fingerprint,
        "status": run.status,
        "provenance": run.provenance,
        "name": name,
        "knobs": dict(run.trial.knobs),
        "score": score,
        "kept_epoch": epoch,
    }
    params["digest"] = digest(folder)
    kept_points = {
        (f"kept_{row['metric']}", str(row["split"])): [(0, epoch, float(row["value"]))]
        for row in rows
        if math.isfinite(number(row["value"]))
    }
    return Entry(
        name=name,
        experiment=run.trial.task_folder,
        params=plain(params),
        points=_points(curve) | kept_points,
        figures=("curve",)
        if (run.trial.stage, run.trial.seed) in DRAWN and curve.get("step")
        else (),
    )


def number(value: float | None) -> float:
    """NaN for what Parquet holds as null."""
    return float("nan") if value is None else float(value)


def _points(curve: dict[str, list[Any]]) -> dict[tuple[str, str], list[tuple[int, int, float]]]:
    """`train_loss` becomes (loss, train), `val_auroc` (auroc, val), `lr` (lr, train)."""
    points = {}
    for column in curve.keys() - {"step", "epoch"}:
        subset, _, rest = column.partition("_")
        key = (rest, subset) if rest and subset in ("train", "val") else (column, "train")
        numbers = zip(curve["step"], curve["epoch"], map(number, curve[column]))
        series = [
            (int(step), int(epoch), value) for step, epoch, value in numbers if math.isfinite(value)
        ]
        if series:
            points[key] = series
    return points


def plain(value: Any) -> Any:
    """JSON values that equal themselves after a trip through Aim: NaN and infinity become words."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def canonical(entry: Entry) -> dict[str, Any]:
    """What two repositories have to agree on for one run; free of hashes, wall times and order."""
    points: Points = {
        f"{n} [{s}]": {a: (b, v) for a, b, v in series} for (n, s), series in entry.points.items()
    }
    return {
        "experiment": entry.experiment,
        "params": entry.params,
        "points": points,
        "figures": list(entry.figures),
    }


def truth(runs: Path) -> dict[str, Any]:
    """What `content` has to be, from the files under `runs`."""
    entries = (read(runs, run) for run in all_runs(runs))
    return {entry.name: canonical(entry) for entry in entries}


# -- the repository --------------------------------------------------------------------------------


def mirror(runs: Path, repo: Path, up_to_date: set[str] | None = None) -> int:
    """Copy every finished trial that the repository lacks or holds in another version.

    Returns how many were copied. Trouble with Aim is logged with its cure and never raised: results
    do not depend on it.

    Args:
        runs: where finished trials lie.
        repo: the folder of the repository.
        up_to_date: names that need no look; those that have been copied or found equal are added.
    """
    try:
        with writer(repo):
            return _copy_missing(runs, repo, set() if up_to_date is None else up_to_date)
    except Exception as error:  # Aim, RocksDB and SQLite raise dozens of unrelated types
        log.warning(
            "Aim repository %s is behind (%s: %s); no run under %s is lost by that; "
            "remake it: ecgcmr track rebuild --runs %s",
            repo,
            type(error).__name__,
            error,
            runs,
            runs,
        )
        return 0


@contextlib.contextmanager
def following(runs: Path, repo: Path) -> Iterator[None]:
    """While the block runs, copy finished trials in a process of its own, and what is left when it
    ends.

    Ctrl-C ends that process at once, and so may anybody: the next command copies what it has not.
    """
    # A fork would take Ray's threads and connections along, half alive.
    spawn = multiprocessing.get_context("spawn")
    # A pipe: its ends notice each other's death; to set an Event waits for the dead, for ever.
    block_ended, end_block = spawn.Pipe(duplex=False)
    child = spawn.Process(target=_follow, args=(runs, repo, block_ended), daemon=True)
    child.start()
    block_ended.close()
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        child.terminate()
        raise
    finally:
        with contextlib.suppress(BrokenPipeError):  # it was killed
            end_block.send(None)
        child.join(LAST_S)
        end_block.close()


def _follow(runs: Path, repo: Path, block_ended: Connection) -> None:
    """Copy until told to end, then once more.

    Without the process that asked for it there is nothing to wait for.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the parent decides
    up_to_date: set[str] = set()
    rest = REST_S[0]
    last = False
    while True:
        # Without any, not even the folder is made.
        waiting = any(True for _ in all_runs(runs, up_to_date))
        rest = REST_S[0] if waiting and mirror(runs, repo, up_to_date) else min(2 * rest, REST_S[1])
        if last:
            return
        try:
            last = block_ended.poll(rest) and block_ended.recv() is None
        except EOFError:  # the parent is gone
            return


def rebuild(runs: Path, repo: Path) -> int:
    """Make the repository anew from the files under `runs`, prove it equal, and put it in place of
    the old; how many runs.

    Raises:
        InputError: another process writes to the repository.
        RuntimeError: what Aim holds is not what was written; the old repository stays.
    """
    with writer(repo):
        for leftover in repo.glob(".rebuild-*"):  # of a rebuild that was killed
            shutil.rmtree(leftover)
        # Aim caches by path: never twice the same.
        fresh = Path(tempfile.mkdtemp(prefix=".rebuild-", dir=repo))
        try:
            count = _copy_missing(runs, fresh, set())
            wrong = differences(content(fresh), truth(runs))
            if wrong:
                raise RuntimeError(
                    f"Aim does not hold what is under {runs}: {'; '.join(wrong[:3])}"
                )
            gc.collect()  # closes Aim's handles on files about to move
            old = fresh / "old"
            if (repo / ".aim").exists():
                os.replace(repo / ".aim", old)
            (fresh / ".aim").mkdir(exist_ok=True)  # no runs: an empty repository
            os.replace(fresh / ".aim", repo / ".aim")
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return count


def content(repo: Path) -> dict[str, Any]:
    """Everything the repository shows, by trial name, in the form of `truth`."""
    _index(repo)
    aim_repo = _open(repo)
    return {run.name: _content(run) for run in aim_repo.iter_runs()}


def differences(actual: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """One line per run that is missing, too many, or not the same."""
    lines = [f"{name} is missing" for name in expected.keys() - actual.keys()]
    lines += [f"{name} is not on disk" for name in actual.keys() - expected.keys()]
    for name in expected.keys() & actual.keys():
        fields = [field for field in expected[name] if expected[name][field] != actual[name][field]]
        lines += [f"{name} differs in {', '.join(fields)}"] if fields else []
    return sorted(lines)


def probe(folder: Path) -> None:
    """Write one run into a new repository below `folder` and read it back.

    Raises:
        InputError: that does not work here.
    """
    entry = Entry(
        "probe", "probe", {"digest": "0"}, {("loss", "train"): [(0, 0, 0.5), (1, 1, 0.25)]}, ()
    )
    try:
        _write(_open(folder), entry, None)
        good = content(folder) == {"probe": canonical(entry)}
    except Exception as error:  # see mirror
        raise InputError(
            f"Aim cannot write a repository in {folder} ({type(error).__name__}: {error})"
        ) from error
    if not good:
        raise InputError(
            f"Aim reads from {folder} other than what was written; reinstall with make install"
        )


@contextlib.contextmanager
def writer(repo: Path) -> Iterator[None]:
    """Be the one process that writes; the kernel frees the lock of a killed process.

    Raises:
        InputError: another process writes for longer than a minute.
    """
    repo.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + LOCK_WAIT_S
    with (repo / LOCK).open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise InputError(
                        f"{repo}: another process writes this Aim repository; try again later"
                    ) from None
                time.sleep(0.1)
        yield


# -- Aim -------------------------------------------------------------------------------------------


def _open(repo: Path) -> Any:
    """The repository, made if absent.

    Imported here: Aim takes 1.4 s, and only those who track pay.
    """
    aim = importlib.import_module("aim")
    logging.getLogger("aim").setLevel(logging.WARNING)  # three lines a run otherwise
    repo.mkdir(parents=True, exist_ok=True)
    return aim.Repo.from_path(str(repo), init=not (repo / ".aim").exists())


def _index(repo: Path) -> None:
    """Let readers see all runs: Aim's writers do not update the index of every read."""
    manager = importlib.import_module("aim.sdk.index_manager").RepoIndexManager(_open(repo))
    for _ in range(INDEX_TRIES):
        # Aim reads a snapshot for as long as anything holds it, and skips a run whose writer still
        # lives.
        gc.collect()
        aim_repo = _open(repo)
        aim_repo._all_run_hashes.cache_clear()  # Aim's list of runs may be half a second old
        missing = set(aim_repo.list_all_runs()) - _indexed(aim_repo)
        if not missing:
            return
        kept_open = aim_repo._get_index_tree(
            "meta", 0
        )  # Aim would open its index anew for every run
        for run_hash in sorted(missing):
            manager.index(run_hash)
        del kept_open
        time.sleep(0.05)


def _indexed(aim_repo: Any) -> set[str]:
    """The keys of the runs that readers see; `iter_runs` asks SQLite about each as well."""
    aim_repo.meta_tree.preload()
    return set(aim_repo.meta_tree.subtree("chunks").keys())


def _copy_missing(runs: Path, repo: Path, up_to_date: set[str]) -> int:
    """Write the trials that the repository does not hold as they are on disk; see `mirror`."""
    on_disk = {run.folder.relative_to(runs).as_posix(): run for run in all_runs(runs, up_to_date)}
    aim_repo = _open(repo)
    if not up_to_date:
        _index(repo)  # runs that a killed writer left
        up_to_date |= _held(aim_repo, on_disk)
    missing = sorted(on_disk.keys() - up_to_date)
    for name in missing:
        entry = read(runs, on_disk[name])
        curve_file = store.verified(on_disk[name].folder, store.CURVE)
        picture = (
            curves.png(curves.run(pd.read_parquet(curve_file)), dpi=100) if entry.figures else None
        )
        _write(aim_repo, entry, picture)
    _index(repo)
    up_to_date |= set(missing)
    return len(missing)


def _held(aim_repo: Any, on_disk: dict[str, Run]) -> set[str]:
    """The names of `on_disk` that the repository holds as they are.

    What it holds otherwise is deleted.
    """
    current: set[str] = set()
    runs = {run.hash: (run.name, run.get("digest")) for run in aim_repo.iter_runs()}
    for run_hash, (name, stored_digest) in runs.items():
        is_new = name not in current and stored_digest is not None and name in on_disk
        if is_new and stored_digest == digest(on_disk[name].folder):
            current.add(name)
        # Half-written, twice, or of an older run of this name.
        elif stored_digest is None or name in on_disk:
            aim_repo.delete_run(run_hash)
    return current


def _write(aim_repo: Any, entry: Entry, picture: bytes | None) -> None:
    """One Aim run; `digest` goes in last and says that the run is whole."""
    aim = importlib.import_module("aim")
    run = aim.Run(
        repo=aim_repo,
        experiment=entry.experiment,
        system_tracking_interval=None,
        capture_terminal_logs=False,
    )
    try:
        run.name = entry.name
        for (name, subset), series in entry.points.items():
            for step, epoch, value in series:
                run.track(value, name=name, step=step, epoch=epoch, context={"subset": subset})
        if picture:
            image = aim.Image(
                importlib.import_module("PIL.Image").open(io.BytesIO(picture)), caption=entry.name
            )
            run.track(image, name=entry.figures[0], step=0, context={"subset": "figure"})
        for key in sorted(entry.params, key=lambda key: key == "digest"):
            run[key] = entry.params[key]
    finally:
        run.close()


def _content(run: Any) -> dict[str, Any]:
    """One run in canonical form."""
    points: Points = {}
    for metric in run.metrics():
        steps, (values, epochs, _) = metric.data.items_list()
        key = f"{metric.name} [{metric.context.to_dict()['subset']}]"
        points[key] = {int(s): (int(e), float(v)) for s, v, e in zip(steps, values, epochs)}
    params = {key: run.get(key) for key in json.loads(json.dumps(run.get(...)))}
    figures = sorted(
        name for name, _, _ in run.iter_sequence_info_by_type(("aim.image", "list(aim.image)"))
    )
    return {"experiment": run.experiment, "params": params, "points": points, "figures": figures}
