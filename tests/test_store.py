import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest

from ecgcmr import files, store
from ecgcmr.errors import InputError
from ecgcmr.runs import all_runs, is_finished
from ecgcmr.trial import Trial

TRIAL = Trial(
    space="s",
    stage="evaluation",
    task="af",
    system="mae",
    method="supervised",
    batch=8,
    knobs=(("lr", 1e-5),),
)


def finished(trial=TRIAL, value=0.75):
    curve = pd.DataFrame({"step": [1, 2], "epoch": [0, 1], "loss": [1.0, 0.5]})
    weights = {
        "ecg.norm.weight": np.ones(4, np.float32),
        "head.weight": np.zeros((2, 4), np.float32),
    }
    predictions = pd.DataFrame(
        {"split": ["test"], "subject": ["a"], "target:af": [1.0], "output:af": [0.7]}
    )
    return store.Finished(
        trial,
        "finished",
        (("test", "auroc", value, 40),),
        curve,
        predictions,
        weights,
        1,
        {"s": 1.0},
    )


def test_what_was_written_is_read_back(tmp_path):
    store.write(tmp_path, finished(), "cohort")
    assert is_finished(tmp_path, TRIAL, "cohort")
    row = store.rows(tmp_path).iloc[0]
    assert (row.trial, row.split, row.metric, row.value, row.n) == (
        TRIAL.name,
        "test",
        "auroc",
        0.75,
        40,
    )
    np.testing.assert_array_equal(
        store.weights(tmp_path, TRIAL.name, "ecg")["norm.weight"], np.ones(4)
    )


def test_a_group_may_read_what_is_written(tmp_path):
    old = os.umask(0o027)
    try:
        store.write(tmp_path, finished(), "cohort")
    finally:
        os.umask(old)
    folder = store.folder(tmp_path, finished().trial.name)
    assert {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()} == {
        path.name: 0o640 for path in folder.iterdir()
    }
    assert folder.stat().st_mode & 0o777 == 0o750


def test_a_folder_of_another_recipe_is_refused_with_the_fields(tmp_path):
    store.write(tmp_path, finished(), "cohort")
    with pytest.raises(InputError, match=r"another recipe: epochs 400 → 10"):
        is_finished(tmp_path, dataclasses.replace(TRIAL, epochs=10), "cohort")
    with pytest.raises(InputError, match=r"cohort cohort → other"):
        is_finished(tmp_path, TRIAL, "other")


def test_missing_starts_are_named(tmp_path):
    with pytest.raises(InputError, match="start 'nowhere/seed=0' has no encoder"):
        store.weights(tmp_path, "nowhere/seed=0", "ecg")
    store.write(tmp_path, finished(), "cohort")
    with pytest.raises(InputError, match="has no 'cmr' encoder"):
        store.weights(tmp_path, TRIAL.name, "cmr")


def test_an_unfinished_folder_gives_way_to_the_finished_one(tmp_path):
    progress = store.Progress(tmp_path, TRIAL.name, 10, "steps")
    progress.update(10)
    assert not is_finished(tmp_path, TRIAL, "cohort")
    store.write(tmp_path, finished(), "cohort")
    assert is_finished(tmp_path, TRIAL, "cohort")
    assert store.running(tmp_path) == []
    assert [path.name for path in store.folder(tmp_path, TRIAL.name).parent.iterdir()] == ["seed=0"]


def test_a_writer_killed_at_any_moment_leaves_nothing_half_written(tmp_path):
    """Write the same trial again and again, kill the writer, and read what is there."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[2]); from pathlib import Path\n"
        "from ecgcmr import store; import test_store as t\n"
        "i = 0\n"
        "while True: store.write(Path(sys.argv[1]), t.finished(value=i / 1e6), 'cohort'); i += 1"
    )
    for wait in (0.0, 0.013, 0.031):
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path), os.path.dirname(__file__)]
        )
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("**/seed=0/trial.json")) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.wait()
        for run in all_runs(tmp_path):
            assert run.status == "finished"
            assert len(pd.read_parquet(run.folder / store.ROWS)) == 1
            assert len(store.weights(tmp_path, TRIAL.name, "ecg")) == 1


def test_progress_goes_to_a_file_and_is_forgotten(tmp_path):
    progress = store.Progress(tmp_path, "s/pretrain/x", 100, "steps", done=40)
    progress.update(50, loss=0.5)
    record = store.running(tmp_path)[0]
    assert (record["done"], record["resumed_at"], record["total"], record["shown"]) == (
        50,
        40,
        100,
        {"loss": 0.5},
    )
    progress.close()
    assert store.running(tmp_path) == []


def test_reads_logged_by_several_processes_do_not_mix(tmp_path):
    script = (
        "import sys; from pathlib import Path; from ecgcmr import store\n"
        "for i in range(300): store.log_test_read(Path(sys.argv[1]) / 'runs', f'{sys.argv[2]}/seed={i}', i)"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path), name]) for name in ("a", "b")
    ]
    assert [writer.wait() for writer in writers] == [0, 0]
    reads = store.test_reads(tmp_path / "runs")
    assert {(r["trial"], r["rows"]) for r in reads} == {
        (f"{a}/seed={i}", i) for a in ("a", "b") for i in range(300)
    }
    assert len(reads) == 600
    assert abs(datetime.now(UTC) - datetime.fromisoformat(reads[-1]["time"])).total_seconds() < 60


def test_a_damaged_log_of_reads_is_named_with_its_line(tmp_path):
    assert store.test_reads(tmp_path) == []
    store.log_test_read(tmp_path, "a", 3)
    with (tmp_path / store.TEST_READS).open("a") as file:
        file.write('{"time"')
    with pytest.raises(InputError, match=r"test-reads.jsonl:2: not a JSON record"):
        store.test_reads(tmp_path)


def test_write_json_leaves_the_old_file_when_writing_fails(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        files.write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert os.listdir(tmp_path) == ["a.json"]
