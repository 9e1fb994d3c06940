"""What this machine, its packages, Ray and Aim can do, found out by trying; each finding is one
line with its cure.
"""

import importlib.metadata
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from ecgcmr.errors import InputError
from ecgcmr.report import track
from ecgcmr.runtime import cluster, hardware

PACKAGES = (
    "ray",
    "torch",
    "numpy",
    "scipy",
    "pyarrow",
    "pandas",
    "scikit-learn",
    "xgboost",
    "optuna",
    "aim",
)
DISK_GIB = 5  # the demo's cohort, runs and Ray's session together, with room


@dataclass(frozen=True)
class Finding:
    """One thing looked at: whether it is good, what it is, and what was found."""

    good: bool
    name: str
    text: str


def examine(runs: Path, cohort: Path) -> list[Finding]:
    """Look at everything a study needs; never raises."""
    looks: dict[str, Callable[[], Finding]] = {
        "machine": machine,
        "python": python,
        "packages": packages,
        "device": device,
        "disk": lambda: disk(runs, cohort),
        "ray": ray,
        "aim": aim,
    }
    findings = []
    for name, look in looks.items():
        try:
            findings.append(look())
        except Exception as error:  # a look that fails is a finding
            message = " ".join(str(error).split())[:200]
            findings.append(Finding(False, name, f"{type(error).__name__}: {message}"))
    return findings


def machine() -> Finding:
    """Cores and memory."""
    memory = psutil.virtual_memory()
    total, free = memory.total / 2**30, memory.available / 2**30
    text = f"{os.cpu_count()} cores, {total:.0f} GiB of memory, {free:.0f} free"
    return Finding(memory.available > 6 * 2**30, "machine", text)


def python() -> Finding:
    """The interpreter, and that `import platform` is the standard library's."""
    plain = hasattr(platform, "python_version")
    text = (
        f"{platform.python_version()} on {platform.system()}"
        if plain
        else "`platform/` hides the standard library"
    )
    return Finding(plain, "python", text)


def packages() -> Finding:
    """Versions of what the results depend on."""
    versions, missing = [], []
    for name in PACKAGES:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    text = f"missing {', '.join(missing)}: run make install" if missing else ", ".join(versions)
    return Finding(not missing, "packages", text)


def device() -> Finding:
    """What trains, and in which precision."""
    where = hardware.device(None)
    precision = str(hardware.precision("auto", where)).removeprefix("torch.")
    if where.type == "cuda":
        properties = torch.cuda.get_device_properties(where)
        memory = properties.total_memory / 2**30
        name = f"{torch.cuda.device_count()} × {properties.name}, {memory:.0f} GiB"
    else:
        name = "no GPU: training on the CPU"
    return Finding(True, "device", f"{name}; mixed precision: {precision}")


def disk(runs: Path, cohort: Path) -> Finding:
    """Room where runs and cohort go."""
    free = {}
    for name, path in (("runs", runs), ("cohort", cohort)):
        existing = next(parent for parent in (path, *path.parents) if parent.exists())
        free[name] = shutil.disk_usage(existing).free / 2**30
    text = ", ".join(f"{amount:.0f} GiB free for {name}" for name, amount in free.items())
    return Finding(min(free.values()) > DISK_GIB, "disk", text)


def ray() -> Finding:
    """Start or join Ray and run one task."""
    start = time.monotonic()
    resources = cluster.probe()
    seconds = time.monotonic() - start
    return Finding(True, "ray", f"starts and answers in {seconds:.1f} s with {resources}")


def aim() -> Finding:
    """Write a run into a repository and read it back."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            track.probe(Path(folder))
        except InputError as error:
            return Finding(False, "aim", str(error))
    return Finding(True, "aim", "writes and reads a repository")
