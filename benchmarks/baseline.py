"""What does the banded solver save? Baseline of one 12-lead ECG: `ecg.remove_baseline` against sparse solves.

    python benchmarks/baseline.py [--rounds 5]

Both run on the same synthetic record, interleaved, single-threaded; the minimum of each counts, because other work on the
machine only adds. One JSON line: ratio (banded / sparse, wanted at most 0.1), the largest difference (wanted at most
1e-6 mV) and the times.
"""

import argparse
import json
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import sys

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "platform"))

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import spsolve

from ecgcmr.signals import ecg


def record(seed: int = 0) -> np.ndarray:
    """Twelve leads of spikes at 72 per minute, drift, hum and noise, (12, 5000) mV."""
    draw = np.random.default_rng(seed)
    t = np.arange(ecg.SAMPLES) / ecg.RATE_HZ
    beat = np.exp(-0.5 * (((t % 0.833) - 0.3) / 0.012) ** 2) + 0.25 * np.exp(
        -0.5 * (((t % 0.833) - 0.55) / 0.05) ** 2
    )
    drift = 0.3 * np.sin(2 * np.pi * 0.05 * t) + 0.02 * t
    size = draw.normal(0, 1, (12, 1))
    return size * beat + draw.normal(0, 1, (12, 1)) * drift + 0.02 * draw.normal(size=(12, len(t)))


def sparse_baseline(y: np.ndarray) -> np.ndarray:
    """The same equations with a general sparse solver: z of diag(w) z + λ D'D z = w y, five rounds (Eilers & Boelens)."""
    n = len(y)
    d = sparse.diags([1.0, -2.0, 1.0], [0, 1, 2], shape=(n - 2, n))
    smooth = ecg.SMOOTHNESS * (d.T @ d)
    z, w = y, np.ones(n)
    for _ in range(ecg.ROUNDS):
        z = spsolve((sparse.diags(w) + smooth).tocsc(), w * y)
        w = ecg.ASYMMETRY * (y > z) + (1 - ecg.ASYMMETRY) * (y < z)
    return z


def timed(function, argument) -> tuple[float, np.ndarray]:
    start = time.perf_counter()
    result = function(argument)
    return time.perf_counter() - start, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    y = record()
    banded, general, worst = [], [], 0.0
    for _ in range(rounds):
        seconds, ours = timed(ecg.remove_baseline, y)
        banded.append(seconds)
        seconds, theirs = timed(lambda x: x - np.stack([sparse_baseline(lead) for lead in x]), y)
        general.append(seconds)
        worst = max(worst, float(np.abs(ours - theirs).max()))
    ratio = min(banded) / min(general)
    print(
        json.dumps(
            {
                "benchmark": "baseline",
                "ratio": round(ratio, 4),
                "max_abs_difference_mV": worst,
                "ms_banded": round(min(banded) * 1e3, 2),
                "ms_sparse": round(min(general) * 1e3, 2),
                "leads": 12,
                "samples": ecg.SAMPLES,
                "rounds": rounds,
                "ok": ratio <= 0.1 and worst <= 1e-6,
            }
        )
    )


if __name__ == "__main__":
    main()
