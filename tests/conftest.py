"""Shared by all tests: a small cohort on disk, written without Ray from arrays, and one Ray for the whole session."""

import gc
import multiprocessing
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch

from ecgcmr.cohort import build, dataset, linkage, shards, staging
from ecgcmr.runtime import cluster

LABELS = ("cad", "af", "dm", "LVEF", "LVEDV")


def heart_rows(n, seed=0, paired=True):
    """Subjects whose ECG and CMR are simple, lawful (Einthoven), all different, and follow one hidden number."""
    rng = np.random.default_rng(seed)
    time = np.arange(5000) / 500
    split = linkage.splits(n, seed)
    for i in range(n):
        size, rate = rng.uniform(0.5, 1.5), rng.uniform(0.8, 1.8)
        wave = size * np.exp(-(((time * rate) % 1 - 0.4) ** 2) / 0.001)
        one, two = (
            0.6 * wave + 0.01 * rng.standard_normal(5000),
            wave + 0.01 * rng.standard_normal(5000),
        )
        limbs = [one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2]
        chest = [
            wave * c + 0.01 * rng.standard_normal(5000) for c in (-0.5, -0.3, 0.4, 0.9, 1.1, 0.8)
        ]
        y, x = np.mgrid[:210, :210] - 105
        disc = [
            (np.hypot(x, y) < 60 * size * r) * 200 + rng.integers(0, 30, (210, 210))
            for r in (0.7, 0.85, 1.0)
        ]
        yield {
            "subject": f"p{i:05d}",
            "split": split[i],
            "ecg": np.array([*limbs, *chest]).astype(np.float16),
            "cmr": np.array(disc).astype(np.uint8) if paired or i % 3 else None,
            "age": 40.0 + i % 40,
            "sex": float(i % 2),
            "height": 170.0,
            "weight": None if i % 7 == 0 else 75.0,
            "cad": float(size > 1),
            "af": float(rate > 1.3),
            "dm": float(i % 2),
            "LVEF": 80 - 30 * size,
            "LVEDV": 150 * size,
        }


def write_cohort(out, rows, shard_rows=64, labels=LABELS):
    """A complete cohort of these rows, by the package's own writer, without Ray."""
    request = {
        "source": "test",
        "seed": 0,
        "recipe_hash": dataset.digest(build.recipe_of("test", {})),
    }
    rows, parts = list(rows), []
    with staging.building(out, request):
        for split in shards.SPLITS:
            mine = [row for row in rows if row["split"] == split]
            for n, start in enumerate(range(0, len(mine), shard_rows)):
                path, chunk = f"{split}/shard-{n:05d}.parquet", mine[start : start + shard_rows]
                summary = shards.write_shard(out / path, chunk, labels)
                has = {
                    k: "".join("0" if row.get(k) is None else "1" for row in chunk)
                    for k in shards.SIGNALS
                }
                parts.append({**summary, "path": path, "has": has})
        account = {
            "flow": [{"step": "kept", "n": len(rows), "reasons": {}}],
            "exclusions": [],
            "repairs": [],
        }
        return staging.finish(out, request, build.recipe_of("test", {}), parts, labels, account)


@pytest.fixture(scope="session")
def small_cohort(tmp_path_factory):
    """300 subjects, some without CMR, shards of 64 + 64 + …; read-only."""
    return write_cohort(tmp_path_factory.mktemp("cohorts") / "small", heart_rows(300, paired=False))


@pytest.fixture(scope="session")
def ray_session():
    """One Ray of two CPUs for all tests that need one."""
    cluster.start(cpus=2, gpus=0, object_store_mb=512)
    yield
    cluster.stop()


@pytest.fixture(scope="session")
def forking():
    """How to start processes that have imported what two of them would each import for four seconds.

    They are forked from a server that does nothing else, so no thread or state of the tests is in them.
    """
    multiprocessing.get_context("forkserver").set_forkserver_preload(
        ["pytest", "conftest", "torch._dynamo", "ecgcmr.training.pretrain", "ecgcmr.methods"]
    )
    return "forkserver"


def pytest_collection_finish():
    """What is imported stays: no collection of garbage looks at it again, and Aim asks for dozens of them."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items):
    """Files that need Ray come last, as it idles at a tenth of a core; what needs a GPU is skipped where there is none."""
    with_ray = {item.path for item in items if "ray_session" in item.fixturenames}
    items.sort(key=lambda item: item.path in with_ray)
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no GPU"))
