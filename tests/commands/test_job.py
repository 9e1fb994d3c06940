"""A real cluster of one machine: `ray start --head`, then `ray job submit` of a job file, to the table."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SPACE = """
from ecgcmr import study
from ecgcmr.nn import Network
from ecgcmr.trial import Trial

NETWORK = Network(crop=500, patch=250, width=16, depth=1, heads=2, decoder_width=16, decoder_depth=1, decoder_heads=2)
MAE = Trial(space="job", stage="pretrain", task="ecg", system="mae", method="mae", network=NETWORK, batch=32, epochs=1)


def trials():
    init_from = {"supervised": (), "mae": (("ecg", MAE.name),)}
    return [MAE, *study.finetuning("job", ["cad"], init_from, {"lr": (1e-3,)}, network=NETWORK, batch=8, epochs=1)]
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert time.monotonic() < deadline, f"nothing listens on {port} after {seconds} s"
            time.sleep(0.5)


@pytest.fixture
def head(tmp_path):
    """A head node with token authentication; yields (environment of its clients, the dashboard's address)."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    path = f"{Path(sys.executable).parent}:{environment['PATH']}"  # a job's `python` is that of whoever started Ray
    environment |= {
        "HOME": str(tmp_path),
        "PATH": path,
        "RAY_AUTH_MODE": "token",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    folder, dashboard = (
        tempfile.mkdtemp(prefix="ray-", dir="/tmp"),
        free_port(),
    )  # sockets below it: a short path
    subprocess.run(
        ["ray", "get-auth-token", "--generate"], env=environment, check=True, capture_output=True
    )
    words = [
        "ray",
        "start",
        "--head",
        "--block",
        "--node-ip-address=127.0.0.1",
        f"--port={free_port()}",
        f"--dashboard-port={dashboard}",
        f"--temp-dir={folder}",
        "--object-store-memory=500000000",
    ]
    with open(tmp_path / "head.log", "wb") as log:
        node = subprocess.Popen(words, env=environment, stdout=log, stderr=log)
    try:
        wait_for(dashboard, 120)
        yield environment, f"http://127.0.0.1:{dashboard}"
    finally:
        node.terminate()  # `--block` takes its children along
        node.wait(timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_a_submitted_job_runs_to_the_table(head, tmp_path):
    environment, address = head
    (tmp_path / "space.py").write_text(SPACE)
    words = [
        "ray",
        "job",
        "submit",
        "--address",
        address,
        "--working-dir",
        str(REPOSITORY),
        "--",
        "python",
        "jobs/reproduce.py",
        "--space",
        str(tmp_path / "space.py"),
        "--subjects",
        "800",
        "--cohort",
        str(tmp_path / "cohort"),
        "--runs",
        str(tmp_path / "runs"),
    ]
    done = subprocess.run(
        words, env=environment, capture_output=True, text=True, timeout=900, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "runs beside the paper's tables" in done.stdout  # two systems are not yet Table III
    line = next(line for line in done.stdout.splitlines() if line.startswith("Supervised ViT"))
    assert "±" in line
    assert (tmp_path / "runs" / "report" / "index.html").exists()
    assert "Traceback" not in done.stdout
