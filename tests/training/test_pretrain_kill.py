"""SIGKILL, for real: of a worker and of the driver. Either way the run ends with the weights of an undisturbed one."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
from test_pretrain import TINY

from ecgcmr import store
from ecgcmr import trial as trials
from ecgcmr.training import pretrain
from ecgcmr.trial import Trial

DRIVER = """
import json, sys
from pathlib import Path
from ecgcmr import trial
from ecgcmr.training import pretrain
record, cohort, runs = json.loads(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
pretrain.run(trial.from_json(record), cohort, runs, device="cpu", precision="float32", every_s=0.2)
"""
TRIAL = Trial(
    space="t",
    stage="pretrain",
    task="ecg",
    system="mae",
    method="mae",
    network=TINY,
    batch=16,
    epochs=30,
    eval_every=5,
    knobs=(("lr", 1e-3),),
)
LIMIT_S = 280.0  # a run takes 30 s on two idle cores


def start(trial: Trial, cohort: Path, runs: Path) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(Path(pretrain.__file__).parents[2])}
    command = [
        sys.executable,
        "-c",
        DRIVER,
        json.dumps(trials.to_json(trial)),
        str(cohort),
        str(runs),
    ]
    with open(runs.with_suffix(".log"), "ab") as sink:
        return subprocess.Popen(command, env=environment, stdout=sink, stderr=sink)


def wait_for_middle(trial: Trial, runs: Path, driver: subprocess.Popen) -> int:
    """Return once a checkpoint exists and some steps are done; the steps."""
    folder, end = store.folder(runs, trial.name), time.monotonic() + LIMIT_S
    while time.monotonic() < end and driver.poll() is None:
        records = [record for record in store.running(runs) if record["done"] >= 60]
        if records and (folder / pretrain.CHECKPOINT).exists():
            return records[0]["done"]
        time.sleep(0.02)
    raise AssertionError(f"no checkpoint in time; {runs.with_suffix('.log').read_text()[-3000:]}")


def kill_worker(driver: subprocess.Popen) -> None:
    family = psutil.Process(driver.pid).children(recursive=True)
    workers = [p for p in family if any("RayTrainWorker" in word for word in p.cmdline())]
    assert len(workers) == 1
    workers[0].send_signal(signal.SIGKILL)


def end(driver: subprocess.Popen, runs: Path) -> None:
    assert driver.wait(LIMIT_S) == 0, runs.with_suffix(".log").read_text()[-3000:]


def result(runs: Path) -> tuple[bytes, pd.DataFrame]:
    folder = store.folder(runs, TRIAL.name)
    return (folder / store.ENCODER).read_bytes(), pd.read_parquet(folder / store.CURVE)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_whose_worker_or_driver_is_killed_ends_like_an_undisturbed_one(
    tmp_path, small_cohort
):
    cohort = small_cohort.path
    whole, worker, driver = (tmp_path / name for name in ("whole", "worker", "driver"))
    end(start(TRIAL, cohort, whole), whole)
    weights, curve = result(whole)

    running = start(TRIAL, cohort, worker)
    wait_for_middle(TRIAL, worker, running)
    kill_worker(running)
    end(running, worker)

    running = start(TRIAL, cohort, driver)
    wait_for_middle(TRIAL, driver, running)
    running.kill()
    running.wait()
    assert not (store.folder(driver, TRIAL.name) / store.RECORD).exists()
    end(start(TRIAL, cohort, driver), driver)

    for runs in (worker, driver):
        again, its_curve = result(runs)
        assert again == weights
        pd.testing.assert_frame_equal(its_curve, curve, check_exact=True)
        assert not (runs / ".train").exists() or runs == driver  # a killed driver cannot clean up
