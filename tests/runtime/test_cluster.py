import importlib.util
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ecgcmr.errors import InputError
from ecgcmr.runtime import cluster

SOURCE = Path(cluster.__file__).resolve().parents[2]


def test_the_source_root_is_no_package():
    # With it, `import platform` would be ours: every Ray worker dies at start, and a job hangs PENDING without a word.
    assert SOURCE.name == "platform"
    assert not (SOURCE / "__init__.py").exists()


def test_platform_stays_the_standard_library_s_in_the_driver():
    import platform

    assert platform.python_version() == ".".join(map(str, sys.version_info[:3]))
    assert Path(importlib.util.find_spec("platform").origin).parent == Path(os.__file__).parent


def test_platform_stays_the_standard_library_s_in_workers(ray_session):
    import ray

    @ray.remote(num_cpus=0.1)
    def look():
        import platform

        import ecgcmr

        return platform.python_version(), ecgcmr.__file__, os.environ["RAY_DATA_LOG_LEVEL"]

    version, package, quiet = ray.get(look.remote())
    assert version == ".".join(map(str, sys.version_info[:3]))
    assert Path(package).parent == SOURCE / "ecgcmr"
    assert quiet == "ERROR"


def test_start_inside_a_started_ray_changes_nothing_and_running_leaves_it(ray_session):
    import ray

    node = ray.get_runtime_context().get_node_id()
    cluster.start(cpus=1)
    with cluster.running():
        assert ray.get_runtime_context().get_node_id() == node
    assert ray.is_initialized()


def test_an_address_where_nothing_listens_is_refused_within_its_wait(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets the port
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setattr(cluster, "HEAD_WAIT_S", 0.6)
        began = time.monotonic()
        with pytest.raises(InputError, match=f"RAY_ADDRESS={address}: no Ray answers there; start"):
            cluster.check_address(address)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("address", ["auto", "", "ray://127.0.0.1:1", "local"])
def test_what_ray_resolves_itself_passes(address):
    cluster.check_address(address)


def test_a_head_that_answers_passes(ray_session):
    import ray

    cluster.check_address(ray.get_runtime_context().gcs_address)


@pytest.mark.slow
def test_an_address_of_something_else_is_refused():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(InputError, match="no Ray of this version"):
            cluster.check_address(f"127.0.0.1:{other.getsockname()[1]}")


def test_a_local_ray_listens_on_loopback_alone(ray_session):
    import psutil
    import ray

    node = ray.nodes()[0]
    assert node["NodeManagerAddress"] == "127.0.0.1"
    raylet = next(p for p in psutil.Process().children(recursive=True) if p.name() == "raylet")
    listening = {c.laddr.ip for c in raylet.net_connections() if c.status == psutil.CONN_LISTEN}
    assert listening
    assert all(ip in ("127.0.0.1", "::ffff:127.0.0.1", "::1") for ip in listening), listening


@pytest.mark.slow
@pytest.mark.parametrize("name", ["raylet", "gcs_server"])
def test_the_death_of_ray_is_one_line_and_exit_code_4_within_half_a_minute(name):
    code = f"""
import psutil, ray
from ecgcmr.runtime import cluster
cluster.start(cpus=1, object_store_mb=100)
sleeping = ray.remote(lambda: __import__("time").sleep(300)).remote()
[died] = [p for p in psutil.Process().children(recursive=True) if p.name() == "{name}"]
died.kill()
print("killed", flush=True)
ray.get(sleeping)
"""
    driver = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert driver.stdout.readline() == "killed\n"
    began = time.monotonic()
    _, words = driver.communicate(timeout=60)
    assert driver.returncode == 4
    assert time.monotonic() - began < 30
    assert "has died; what has finished stands, the same command goes on from there" in words


@pytest.fixture
def watched(monkeypatch):
    """A head that listens, a watch over it that looks often, and what the watch has done."""
    done = []

    def end(code):
        done.append(code)
        raise SystemExit

    monkeypatch.setattr(cluster.os, "_exit", end)
    monkeypatch.setattr(cluster, "LOOK_S", 0.01)
    monkeypatch.setattr(cluster, "GONE_S", 0.2)
    monkeypatch.setattr(cluster, "_leaving", threading.Event())
    head = socket.create_server(("127.0.0.1", 0))
    watch = threading.Thread(
        target=cluster._watch, args=({"the head": head.getsockname()}, done.append)
    )
    watch.start()
    yield head, watch, done
    cluster._leaving.set()
    watch.join(5)
    head.close()


def test_a_ray_that_answers_is_left_alone_and_so_is_one_that_is_left(watched):
    _, watch, done = watched
    time.sleep(0.5)
    assert watch.is_alive()
    cluster._leaving.set()
    watch.join(5)
    assert not watch.is_alive()
    assert done == []


def test_a_ray_that_no_longer_answers_is_a_line_and_code_4(watched):
    head, watch, done = watched
    head.close()
    watch.join(5)
    line, code = done
    assert line.startswith("ecgcmr: the head has died; what has finished stands")
    assert code == 4


@pytest.mark.slow
def test_start_and_stop_twice_in_one_process():
    code = """
import ray
from ecgcmr.runtime import cluster
for _ in range(2):
    cluster.start(cpus=1, object_store_mb=100)
    assert ray.get(ray.remote(lambda: 41).remote()) == 41
    cluster.stop(); cluster.stop()
    assert not ray.is_initialized()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


def test_a_job_s_own_environment_is_respected(monkeypatch):
    given = {
        "runtime_env": {"working_dir": "gcs://x.zip", "env_vars": {"RAY_DATA_LOG_LEVEL": "DEBUG"}}
    }
    monkeypatch.setenv(cluster.JOB, json.dumps(given))
    ours = cluster._worker_environment()
    assert "RAY_DATA_LOG_LEVEL" not in ours["env_vars"]  # Ray refuses the same variable twice
    assert ours["py_modules"] == [str(SOURCE / "ecgcmr")]
    monkeypatch.setenv(cluster.JOB, json.dumps({"runtime_env": {"py_modules": ["gcs://y.zip"]}}))
    assert "py_modules" not in cluster._worker_environment()
