import io
import os
import subprocess
import sys
import time

import pytest

from ecgcmr import store
from ecgcmr.commands import progress


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (59, "59 s"), (61, "1 min 01 s"), (3599, "59 min 59 s"), (7800, "2 h 10 min")],
)
def test_duration_in_two_units(seconds, words):
    assert progress.duration(seconds) == words


def test_rate_and_time_left_count_from_where_the_run_resumed():
    now = time.time()
    record = {
        "name": "x",
        "done": 60,
        "resumed_at": 40,
        "total": 100,
        "unit": "steps",
        "started": now - 10,
        "now": now,
    }
    words = progress.describe(record)
    assert (words["count"], words["rate"], words["left"]) == ("60/100 steps", "2 steps/s", "20 s")


def test_without_a_terminal_a_stage_is_a_line(tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.05)
    out = io.StringIO()
    store.Progress(tmp_path, "toy/pretrain/mae", 10, "steps").update(10, loss=0.25)
    with progress.Display([tmp_path], out).stage("Pre-training") as notes:
        time.sleep(0.2)
        notes.append("done")
    text = out.getvalue()
    assert "toy/pretrain/mae  10/10 steps" in text
    assert "loss 0.25" in text
    assert text.splitlines()[-1].startswith("✓ Pre-training  done  [")


def test_a_stage_that_fails_is_marked(tmp_path):
    out = io.StringIO()
    with pytest.raises(ValueError, match="x"), progress.Display([tmp_path], out).stage("Grid"):
        raise ValueError("x")
    assert out.getvalue().startswith("✗ Grid")


def test_capture_takes_what_native_code_and_children_print(tmp_path):
    script = (
        "import os, subprocess, sys; from pathlib import Path; from ecgcmr.commands import progress\n"
        "with progress.captured(Path(sys.argv[1])) as out:\n"
        "    os.write(1, b'native\\n'); print('python'); subprocess.run(['echo', 'child'])\n"
        "    print('for a person', file=out.person); print('a result', file=out.results)\n"
        "print('after')"
    )
    log = tmp_path / "logs" / "x.log"
    done = subprocess.run(
        [sys.executable, "-c", script, str(log)],
        capture_output=True,
        text=True,
        env=dict(os.environ),
    )
    assert done.stdout == "a result\nafter\n"
    assert done.stderr == "for a person\n"
    assert {"native", "python", "child"} <= set(log.read_text().split())


def test_a_log_is_discarded_with_the_folders_made_for_it_and_no_other(tmp_path):
    (tmp_path / "a").mkdir()
    with progress.captured(tmp_path / "a/b/logs/x.log") as out:
        out.discard()
    assert list(tmp_path.rglob("*")) == [tmp_path / "a"]
    with progress.captured(tmp_path / "a/b/logs/x.log") as out:
        (tmp_path / "a/b/kept").touch()
        out.discard()
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "a", tmp_path / "a/b", tmp_path / "a/b/kept"]


def test_what_is_written_for_a_reader_who_has_left_is_dropped():
    reader, writer = os.pipe()
    os.close(reader)
    with io.BufferedWriter(progress.Outlet(writer, "w")) as sink:
        assert sink.write(bytes(1_000_000)) == 1_000_000
        sink.flush()
