import gc
import importlib
import logging
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import handmade
import pytest

from ecgcmr.errors import InputError
from ecgcmr.report import track

pytestmark = pytest.mark.timeout(120)

PLATFORM = str(Path(track.__file__).parents[2])


@pytest.fixture
def runs(tmp_path):
    """Three finished trials: a pre-training, a diverged trial of a grid and an evaluation run."""
    runs = tmp_path / "runs"
    handmade.finish(runs, system="mae", task="ecg", stage="pretrain", method="mae")
    handmade.finish(runs, system="mmcl", stage="grid", value=float("nan"), status="diverged")
    handmade.finish(runs, system="mmcl", value=0.75)
    return runs


@pytest.fixture(scope="module", autouse=True)
def fresh_heap():
    """What other tests have left is not looked at by the dozens of collections of garbage that Aim needs."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """The SQLite file of a repository without runs, as Aim's own migrations leave it."""
    migrations = importlib.import_module("aim.storage.migrations.utils")
    path = tmp_path_factory.mktemp("tables") / "empty.sqlite"
    migrations.upgrade_database(f"sqlite:///{path}")
    return path


@pytest.fixture
def migrated(tables, monkeypatch):
    """A new repository gets a copy of these tables: Aim makes them in a process of its own, 1.6 s for each."""
    database = importlib.import_module("aim.storage.structured.db")
    upgrade = database.upgrade_database

    def copied(url):
        path = Path(url.removeprefix("sqlite:///"))
        if path.exists():
            upgrade(url)
        else:
            shutil.copy(tables, path)

    monkeypatch.setattr(database, "upgrade_database", copied)


def python(code):
    """Run code in another process that sees the package."""
    lines = f"import sys; sys.path.insert(0, {PLATFORM!r})\n" + textwrap.dedent(code)
    return subprocess.run(
        [sys.executable, "-c", lines], capture_output=True, text=True, timeout=100, check=False
    )


def test_importing_does_not_import_aim():
    done = python("from ecgcmr.report import track; print('aim' in sys.modules)")
    assert done.stdout.strip() == "False", done.stderr


def test_mirror_copies_everything_once_then_only_what_is_new(runs, migrated):
    repo = runs / "aim"
    assert track.mirror(runs, repo) == 3
    held = track.content(repo)
    assert track.differences(held, track.truth(runs)) == []
    evaluation = held["toy/evaluation/af/mmcl/batch=32,lr=1e-05/seed=0"]
    assert evaluation["experiment"] == "toy/evaluation/af"
    assert evaluation["params"]["score"]["test"]["auroc"] == {"value": 0.75, "n": 240}
    assert evaluation["params"]["knobs"] == {"lr": 1e-5}
    assert evaluation["params"]["provenance"]["versions"]["torch"] == "2.13.0"
    assert evaluation["points"]["auroc [val]"] == {0: (0, 0.5), 20: (2, 0.54), 40: (4, 0.58)}
    assert evaluation["figures"] == ["curve"]
    assert track.mirror(runs, repo) == 0

    handmade.finish(runs, system="mmcl", seed=202)
    remade = handmade.finish(
        runs, system="mmcl", seed=0, value=0.625
    )  # its folder is replaced by another result
    assert track.mirror(runs, repo) == 2
    held = track.content(repo)
    assert held == track.truth(runs)
    assert held[remade.name]["params"]["score"]["test"]["auroc"]["value"] == 0.625


def test_a_run_half_written_by_a_killed_process_is_written_again(runs):
    repo = runs / "aim"
    done = python(f"""
        import os, pathlib
        from ecgcmr.report import track
        from ecgcmr.runs import all_runs
        runs, repo = pathlib.Path({str(runs)!r}), pathlib.Path({str(repo)!r})
        entry = track.read(runs, next(all_runs(runs)))
        aim_run = track._open(repo)
        import aim
        class Killed(aim.Run):
            def close(self): os._exit(9)
            def __setitem__(self, key, value):
                if key == "provenance": os._exit(9)
                super().__setitem__(key, value)
        aim.Run = Killed
        track._write(aim_run, entry, None)
    """)
    assert done.returncode == 9, done.stderr
    assert track.mirror(runs, repo) == 3
    assert track.content(repo) == track.truth(runs)


def test_rebuild_replaces_what_is_there_only_by_what_equals_the_disk(runs, migrated, monkeypatch):
    repo = runs / "aim"
    track.mirror(runs, repo)
    shutil.rmtree(runs / "toy/evaluation/af/mmcl/batch=32,lr=1e-05/seed=0")
    assert len(track.content(repo)) == 3  # a mirror forgets nothing
    assert track.rebuild(runs, repo) == 2
    assert track.content(repo) == track.truth(runs)
    assert track.mirror(runs, repo) == 0

    write = track._write

    def loses_the_last_point(opened, entry, picture):
        shorter = {key: series[:-1] for key, series in entry.points.items()}
        write(
            opened,
            track.Entry(entry.name, entry.experiment, entry.params, shorter, entry.figures),
            picture,
        )

    monkeypatch.setattr(track, "_write", loses_the_last_point)
    with pytest.raises(RuntimeError, match="differs in points"):
        track.rebuild(runs, repo)
    assert track.content(repo) == track.truth(runs)
    assert [path.name for path in repo.iterdir() if path.name.startswith(".rebuild")] == []


def test_a_broken_repository_is_a_warning_and_rebuild_heals_it(runs, migrated, caplog):
    repo = runs / "aim"
    track.rebuild(runs, repo)
    for path in (repo / ".aim").rglob("*"):
        if path.is_file():
            path.write_bytes(b"broken")
    handmade.finish(runs, system="mmcl", seed=202)
    with caplog.at_level(logging.WARNING):
        assert track.mirror(runs, repo) == 0
    assert "ecgcmr track rebuild" in caplog.text
    assert track.rebuild(runs, repo) == 4
    assert track.content(repo) == track.truth(runs)


def test_no_runs_make_an_empty_repository(tmp_path, migrated):
    assert track.rebuild(tmp_path / "runs", tmp_path / "aim") == 0
    assert track.content(tmp_path / "aim") == {}


def test_one_process_writes_at_a_time(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(track, "LOCK_WAIT_S", 0.2)
    code = f"""
        import pathlib
        from ecgcmr.report import track
        with track.writer(pathlib.Path({str(tmp_path)!r})):
            print("locked", flush=True); sys.stdin.read()
    """
    lines = f"import sys; sys.path.insert(0, {PLATFORM!r})\n" + textwrap.dedent(code)
    other = subprocess.Popen(
        [sys.executable, "-c", lines], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout.readline().strip() == "locked"
        with pytest.raises(InputError, match="another process"):
            track.rebuild(tmp_path / "runs", tmp_path)
        assert track.mirror(tmp_path / "runs", tmp_path) == 0
        assert "another process" in caplog.text
    finally:
        other.kill()  # the kernel frees the lock
        other.wait()
    with track.writer(tmp_path):
        pass


def test_a_follower_shows_runs_while_others_are_still_to_come(runs):
    repo = runs / "aim"
    with track.following(runs, repo):
        deadline = time.monotonic() + 60
        while not list(repo.glob(".aim/meta/chunks/*")) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert list(repo.glob(".aim/meta/chunks/*")), "nothing was copied while the block ran"
        handmade.finish(runs, system="mmcl", seed=202)
    assert track.content(repo) == track.truth(runs)
    assert len(track.truth(runs)) == 4
    assert track.mirror(runs, repo) == 0


def test_a_follower_does_not_outlive_a_killed_process(runs):
    code = f"""
        import os, pathlib, multiprocessing, time
        from ecgcmr.report import track
        runs = pathlib.Path({str(runs)!r})
        if __name__ == "__main__":
            with track.following(runs, runs / "aim"):
                print(multiprocessing.active_children()[0].pid, flush=True)
                time.sleep(60)
    """
    file = runs / "killed.py"
    file.write_text(f"import sys; sys.path.insert(0, {PLATFORM!r})\n" + textwrap.dedent(code))
    parent = subprocess.Popen([sys.executable, str(file)], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 60
    while (
        Path(f"/proc/{child}").exists()
        and "Z" not in Path(f"/proc/{child}/stat").read_text().split()[2]
    ):
        assert time.monotonic() < deadline, "the follower still runs"
        time.sleep(0.2)


def test_probe(tmp_path):
    track.probe(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="Aim cannot write"):
        track.probe(tmp_path / "file" / "below")
