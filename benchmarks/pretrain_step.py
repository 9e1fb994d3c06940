"""How fast is one pre-training step, and what share of the machine's arithmetic does it use?

    python benchmarks/pretrain_step.py [--batch N] [--steps N] [--precision float32|bfloat16] [--loop COHORT]

Runs MAE and MMCL at the paper's network on random resident data, without Ray, and before every step a large matrix
product in the same precision: the rates of a shared machine drift, their ratio hardly. Prints one line of JSON:
samples/s (median step), the model's FLOPs per sample (counted by torch: products and convolutions, both directions),
the share of the measured matrix-product rate, and peak memory. `--loop` also trains MAE from a cohort through Ray Data,
in this process, and says which share of the time it waited for data.
"""

import argparse
import json
import math
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from ecgcmr import hardware, training
from ecgcmr.trial import Trial

BATCH = {"cpu": {"mae": 32, "mmcl": 16}, "cuda": {"mae": 128, "mmcl": 256}}  # on a GPU the paper's
TASK = {"mae": "ecg", "simclr": "cmr", "mmcl": "ecg+cmr"}
SHAPES = {"ecg": ((12, 5000), torch.float16), "cmr": ((3, 210, 210), torch.uint8)}


def timed(work: Callable[[], Any], device: torch.device) -> float:
    """Wall time of `work()` in seconds, the device's queue included."""
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def product(device: torch.device, dtype: torch.dtype) -> tuple[Callable[[], Any], int]:
    """A large square matrix product, and its FLOPs."""
    side = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return lambda: a @ b, 2 * side**3


def batch_of(needs: tuple[str, ...], n: int, device: torch.device) -> dict[str, torch.Tensor]:
    """Random signals as `stream.batches` hands them over."""
    draw = {torch.float16: torch.randn, torch.uint8: lambda *shape, **k: torch.randint(256, shape, **k)}
    return {k: draw[SHAPES[k][1]](n, *SHAPES[k][0], device=device).to(SHAPES[k][1]) for k in needs}


def measure(name: str, args: argparse.Namespace, device: torch.device, precision: torch.dtype) -> dict[str, Any]:
    """One method: samples/s, FLOPs per sample, peak memory."""
    n = args.batch or BATCH[device.type][name]
    trial = Trial(space="bench", stage="pretrain", task=TASK[name], label=name, method=name, batch=n, epochs=1000)
    run = training.prepare(trial, 100, device, precision)
    batch = batch_of(run.method.needs, n, device)
    with FlopCounterMode(display=False) as counter:
        training.step(run, batch, 1)
    multiply, flop = product(device, precision)
    multiply()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    times = [(timed(multiply, device), timed(lambda: training.step(run, batch, 2), device)) for _ in range(args.steps)]
    alone, took = (statistics.median(column) for column in zip(*times, strict=True))
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_rss()
    rate, best = counter.get_total_flops() / took, flop / alone
    return {
        "batch": n, "step_s": round(took, 4), "samples_per_s": round(n / took, 2),
        "gflop_per_sample": round(counter.get_total_flops() / n / 1e9, 3), "tflop_per_s": round(rate / 1e12, 4),
        "matmul_tflop_per_s": round(best / 1e12, 4), "share_of_matmul": round(rate / best, 3),
        "peak_gib": round(peak / 2**30, 2),
    }  # fmt: skip


def peak_rss() -> int:
    """Largest resident memory of this process so far, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def wait_share(args: argparse.Namespace, device: torch.device, precision: torch.dtype) -> dict[str, Any]:
    """Train MAE for some steps from a cohort: the share of the time spent waiting for Ray Data."""
    from ecgcmr import cluster, cohort, stream

    n = args.batch or BATCH[device.type]["mae"]
    steps = args.steps + 1  # the first waits for Ray Data to start and is not counted
    trial = Trial(space="bench", stage="pretrain", task="ecg", label="mae", method="mae", batch=n, epochs=1)
    run, state = training.prepare(trial, steps, device, precision), training.beginning()
    epochs = math.ceil(steps / stream.steps_per_epoch(cohort.open(args.loop), "train", ("ecg",), n))
    with cluster.running():
        feed = stream.batches(args.loop, split="train", needs=("ecg",), batch=n, seed=0, epochs=epochs, device=device)
        training.loop(run, feed, lambda: [(1, batch_of(("ecg",), 1, device))], state)
        for _ in feed:  # to its end: Ray Data's own threads outlive a stream that is left, and Ray's end then kills us
            pass
    return {"data_wait_share": round(state["waited"] / state["seconds"], 5), "steps": args.steps}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, help="rows per step (default 32 and 16 on a CPU, 128 and 256 on a GPU)")
    parser.add_argument("--steps", type=int, default=5, help="timed steps per method")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--device")
    parser.add_argument("--methods", nargs="+", default=["mae", "mmcl"])
    parser.add_argument("--loop", type=Path, metavar="COHORT", help="also measure the wait for data from this cohort")
    args = parser.parse_args()
    device = hardware.device(args.device)
    precision = hardware.precision(args.precision, device)
    line = {
        "device": hardware.name(device), "threads": torch.get_num_threads(),
        "precision": str(precision).removeprefix("torch."),
        **{name: measure(name, args, device, precision) for name in args.methods},
    }  # fmt: skip
    if args.loop:
        line["loop"] = wait_share(args, device, precision)
    print(json.dumps(line))


if __name__ == "__main__":
    main()
