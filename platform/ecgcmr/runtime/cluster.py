"""The only place where Ray is started or joined: one call before any Ray work, one after.

The one idea: the same command runs on a laptop and in a cluster's job. Where a cluster is at hand
(`RAY_ADDRESS`, a Ray job, a Ray worker) it is joined and never ended; elsewhere Ray starts on this
machine, on the loopback interface alone, and `stop` ends it. Ray logs into its session folder, not
on the terminal. It does not decide what runs.
"""

import contextlib
import json
import logging
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from ecgcmr.errors import InputError

log = logging.getLogger(__name__)

JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set by `ray job submit` for its driver
MIB = 2**20
HEAD_WAIT_S = 10.0  # for a cluster's head that is about to start

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_DATA_LOG_LEVEL": "ERROR",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # else every line of a worker appears twice
    # ray.train.report waits for the controller's next poll: 2.0 s a call by default (measured),
    # 0.2 s so.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    # Two cores import PyTorch in two workers for more than 60 s.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300",
    "RAY_worker_niceness": "0",  # 15 by default: on a busy machine training would starve
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths mean the same in driver and worker
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # What the coming default does; unset, each worker warns.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
# Ray reads these when it is imported, and a worker inherits them: set here, before any door imports
# Ray.
for _name, _value in QUIET.items():
    os.environ.setdefault(_name, _value)
if not (os.environ.get("RAY_ADDRESS") or JOB in os.environ):
    # Ray 2.60 starts with token authentication while its own clients come without. A Ray of our own
    # is reached by its own processes alone: no token, and every socket on loopback. It is this
    # variable that binds them (measured with ss: with _node_ip_address="127.0.0.1" they all listen
    # on every interface); it means "this machine is no cluster".
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")

GONE_S = 20.0  # without an answer, after which a head or this machine's Ray counts as dead
LOOK_S = 1.0
GONE = 4  # exit code

_ours = False  # whether this process started (or joined) Ray and has to leave it
_leaving = threading.Event()


def _on_stderr(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def start(
    *,
    cpus: int | None = None,
    gpus: int | None = None,
    object_store_mb: int | None = None,
    last_words: Callable[[str], None] = _on_stderr,
) -> None:
    """Join the cluster at hand, or start Ray on this machine.

    Does nothing where Ray already runs in this process.

    Args:
        cpus: logical CPUs of a local Ray; the machine's by default.
        gpus: logical GPUs of a local Ray; those that PyTorch's environment shows by default.
        object_store_mb: MiB of shared memory of a local Ray; by default 1/20 of the machine's,
            within 512 and 8,192.
        last_words: how to say that Ray has died, before this process ends with code 4: its calls
            would wait for minutes, or it would end without a word.

    Raises:
        InputError: no Ray answers at `RAY_ADDRESS`.
    """
    global _ours
    import ray

    if ray.is_initialized():
        return
    if os.environ.get("RAY_ADDRESS") or JOB in os.environ:
        check_address(os.environ.get("RAY_ADDRESS", ""))
        ray.init(
            log_to_driver=False, logging_level=logging.ERROR, runtime_env=_worker_environment()
        )
    else:
        _start_local(cpus, gpus, object_store_mb or _share_of_memory())
    _ours = True
    log.info("Ray %s with %s", ray.__version__, ray.cluster_resources())
    _leaving.clear()
    addresses = _addresses()
    threading.Thread(target=_watch, args=(addresses, last_words), daemon=True).start()


def _addresses() -> dict[str, tuple[str, int]]:
    """Where the head and this machine's Ray answer, by what to call them."""
    import ray

    context = ray.get_runtime_context()
    host, _, port = context.gcs_address.rpartition(":")
    here = next(node for node in ray.nodes() if node["NodeID"] == context.get_node_id())
    return {
        "Ray's head (GCS)": (host, int(port)),
        "Ray on this machine (raylet)": (here["NodeManagerAddress"], here["NodeManagerPort"]),
    }


def _watch(addresses: dict[str, tuple[str, int]], last_words: Callable[[str], None]) -> None:
    """End this process when one of the addresses has not answered for `GONE_S`, unless it leaves
    Ray by itself.
    """
    last_answers = dict.fromkeys(addresses, time.monotonic())
    while not _leaving.wait(LOOK_S):
        for name, address in addresses.items():
            try:
                socket.create_connection(address, timeout=GONE_S).close()
                last_answers[name] = time.monotonic()
            except OSError:
                if time.monotonic() - last_answers[name] >= GONE_S and not _leaving.is_set():
                    last_words(
                        f"ecgcmr: {name} has died; what has finished stands, the same command "
                        "goes on from there"
                    )
                    os._exit(GONE)


def check_address(address: str) -> None:
    """Refuse an address at which no Ray answers; `ray.init` would wait there for ten minutes.

    Args:
        address: `host:port` of a head; what Ray resolves itself ("auto", "ray://…") passes.

    Raises:
        InputError: nothing listens there, or something else than Ray.
    """
    host, _, port = address.rpartition(":")
    if not port.isdigit() or "//" in host:
        return
    cure = "start it (ray start --head), correct the address, or unset it to run on this machine"
    deadline = time.monotonic() + HEAD_WAIT_S
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=HEAD_WAIT_S).close()
            break
        except (OSError, OverflowError) as error:
            if time.monotonic() >= deadline:
                raise InputError(f"RAY_ADDRESS={address}: no Ray answers there; {cure}") from error
            time.sleep(0.5)
    # Ray has no public way to ask with a deadline, which is 40 s here.
    from ray._raylet import GcsClient  # type: ignore[attr-defined]
    from ray.exceptions import RpcError

    try:
        GcsClient(address=address)
    except RpcError as error:
        raise InputError(
            f"RAY_ADDRESS={address}: what answers there is no Ray of this version; {cure}"
        ) from error


def stop() -> None:
    """End the Ray that `start` started, or leave the cluster that it joined; nothing else."""
    global _ours
    if not _ours:
        return
    import ray

    _leaving.set()
    ray.shutdown()
    _ours = False


@contextlib.contextmanager
def running(**options: Any) -> Iterator[None]:
    """`start` for the body; `stop` after it, unless Ray ran before."""
    outer = _ours
    start(**options)
    try:
        yield
    finally:
        if not outer:
            stop()


def cpus() -> int:
    """Logical CPUs of the Ray that runs, at least 1."""
    import ray

    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def probe() -> str:
    """Start or join Ray, run one task, and say what there is to run on."""
    import ray

    with running():
        answer = ray.get(ray.remote(num_cpus=1)(lambda: os.getpid()).remote(), timeout=120)
        resources = ray.cluster_resources()
    counts = ", ".join(
        f"{resources[name]:g} {name}s" for name in ("CPU", "GPU") if name in resources
    )
    return f"{counts}; a worker answered" if answer != os.getpid() else "the driver alone"


def _start_local(cpus: int | None, gpus: int | None, object_store_mb: int) -> None:
    import ray

    ray.init(
        address="local",
        num_cpus=cpus,
        num_gpus=gpus,
        object_store_memory=object_store_mb * MIB,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _temp_dir=_short_folder(),
    )


def _short_folder() -> str:
    # Ray puts sockets below it, whose whole path may have 107 bytes; TMPDIR of a test run is longer
    # than the rest allows.
    folder = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    if len(folder) < 40 and "RAY_TMPDIR" in os.environ:
        return folder
    return f"/tmp/ecgcmr-{os.getuid()}"


def _share_of_memory() -> int:
    return int(min(max(psutil.virtual_memory().total / 20 / MIB, 512), 8192))


def _worker_environment() -> dict[str, Any]:
    """What every worker of the cluster gets: this package as it is here,
    and the quiet environment.
    """
    of_job = json.loads(os.environ.get(JOB, "{}")).get("runtime_env") or {}
    job_variables = of_job.get("env_vars") or {}
    variables = {k: os.environ[k] for k in QUIET if k not in job_variables}
    environment: dict[str, Any] = {"env_vars": variables}
    if "py_modules" not in of_job:
        environment["py_modules"] = [str(Path(__file__).resolve().parents[1])]
    return environment
