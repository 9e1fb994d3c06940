"""How fast is one pre-training step, and what share of the machine's arithmetic does it use?

    python benchmarks/pretrain_step.py [--batch N] [--steps N] [--precision float32|bfloat16] [--plain] [--loop COHORT]

Runs MAE and MMCL at the paper's network on random resident data, without Ray, and before every step a large matrix
product in the same precision: the rates of a shared machine drift, their ratio hardly. Prints one line of JSON:
samples/s (median step), the model's FLOPs per sample (counted by torch: products and convolutions, both directions),
the share of the measured matrix-product rate, and peak memory. `--plain` also takes steps as one writes them first: float32,
softmax written out, signals augmented one by one in NumPy on the host; the two alternate and the least of each counts.
`--loop` also trains MAE from a cohort through Ray Data, in this process, and says which share of the time it waited for
data.
"""

import argparse
import functools
import json
import math
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch.utils.flop_counter import FlopCounterMode

from ecgcmr.nn import heads, vit
from ecgcmr.runtime import cuda_graph, hardware
from ecgcmr.training import loop
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
    draw = {
        torch.float16: torch.randn,
        torch.uint8: lambda *shape, **k: torch.randint(256, shape, **k),
    }
    return {k: draw[SHAPES[k][1]](n, *SHAPES[k][0], device=device).to(SHAPES[k][1]) for k in needs}


def measure(
    name: str, args: argparse.Namespace, device: torch.device, precision: torch.dtype
) -> dict[str, Any]:
    """One method: samples/s, FLOPs per sample, peak memory."""
    n = args.batch or BATCH[device.type][name]
    trial = Trial(
        space="bench",
        stage="pretrain",
        task=TASK[name],
        system=name,
        method=name,
        batch=n,
        epochs=1000,
    )
    run = loop.prepare(trial, 100, device, precision)
    batch = batch_of(run.method.needs, n, device)
    with FlopCounterMode(display=False) as counter:
        loop.step(run, batch, 1)
    multiply, flop = product(device, precision)
    multiply()
    for _ in range(cuda_graph.WARM if run.replay.on else 0):
        loop.step(run, batch, 1)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    times = [
        (timed(multiply, device), timed(lambda: loop.step(run, batch, 2), device))
        for _ in range(args.steps)
    ]
    alone, took = (statistics.median(column) for column in zip(*times, strict=True))
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_rss()
    rate, best = counter.get_total_flops() / took, flop / alone
    line = {
        "batch": n,
        "step_s": round(took, 4),
        "samples_per_s": round(n / took, 2),
        "gflop_per_sample": round(counter.get_total_flops() / n / 1e9, 3),
        "tflop_per_s": round(rate / 1e12, 4),
        "matmul_tflop_per_s": round(best / 1e12, 4),
        "share_of_matmul": round(rate / best, 3),
        "peak_gib": round(peak / 2**30, 2),
    }
    return {**line, **against_plain(trial, run, batch, args.steps)} if args.plain else line


# -- the plain way -----------------------------------------------------------------------------------------------------


def against_plain(
    trial: Trial, run: loop.Training, batch: dict[str, torch.Tensor], steps: int
) -> dict[str, float]:
    """Seconds of a plain step, and how many of ours fit into it; both the least of as many steps, in turn."""
    plain = loop.prepare(trial, 100, run.device, torch.float32)
    host = {name: x.cpu().numpy() for name, x in batch.items()}
    plain_step(plain, host, 0)
    ours, theirs = [], []
    for number in range(steps):
        theirs.append(timed(functools.partial(plain_step, plain, host, number), run.device))
        ours.append(timed(lambda: loop.step(run, batch, 2), run.device))
    return {"plain_step_s": round(min(theirs), 4), "of_plain": round(min(theirs) / min(ours), 2)}


def softmax_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Attention as in the paper: the whole matrix of weights is made."""
    return (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).softmax(-1) @ v


def plain_step(run: loop.Training, host: dict[str, np.ndarray], number: int) -> torch.Tensor:
    """One step in float32, launched operation by operation, on signals augmented here one after another."""
    draw = np.random.default_rng(number)
    change = {"ecg": plain_ecg, "cmr": plain_cmr}
    seen = {
        k: torch.from_numpy(np.stack([change[k](x, draw) for x in rows])).to(run.device)
        for k, rows in host.items()
    }
    noise = {}
    if run.trial.method == "mae":  # masks are drawn in either way
        noise = {"mask": torch.rand(len(host["ecg"]), run.method.tokens, device=run.device)}
    fused = vit.attention
    vit.attention = heads.attention = softmax_attention
    try:
        loss = run.method(seen, noise, run.knobs)["loss"]
        loss.backward()
    finally:
        vit.attention = heads.attention = fused
    run.optimiser.step()
    run.optimiser.zero_grad(set_to_none=True)
    return loss.detach()


def plain_ecg(x: np.ndarray, draw: np.random.Generator, length: int = 2500) -> np.ndarray:
    """Standardise by groups of leads, crop, Fourier surrogate, jitter, rescale: one record, (12, time)."""
    groups = np.split(x.astype(np.float32), (3, 6))
    x = np.concatenate([(g - g.mean()) / (g.std() + 1e-6) for g in groups])
    start = draw.integers(x.shape[1] - length + 1)
    spectrum = np.fft.rfft(x[:, start : start + length])
    spectrum *= np.exp(0.2j * np.pi * draw.random(spectrum.shape[1]))
    x = np.fft.irfft(spectrum, n=length) + 0.25 * draw.standard_normal((len(x), length))
    return ((1 + 0.5 * draw.standard_normal()) * x).astype(np.float32)


def plain_cmr(x: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Colour jitter, flip, rotation, crop and resize: the frames of one subject, (3, side, side)."""
    side = x.shape[-1]
    x = np.clip(x.astype(np.float32) / 255 * draw.uniform(0.5, 1.5), 0, 1)
    x = np.clip((x - x.mean()) * draw.uniform(0.5, 1.5) + x.mean(), 0, 1)
    grey = x.mean(0, keepdims=True)
    x = np.clip((x - grey) * draw.uniform(0.75, 1.25) + grey, 0, 1)
    x = x[:, :, ::-1] if draw.random() < 0.5 else x
    if draw.random() < 0.5:
        x = ndimage.rotate(x, draw.uniform(-45, 45), axes=(1, 2), reshape=False, order=1)
    kept = int(side * math.sqrt(draw.uniform(0.6, 1.0)))
    top, left = draw.integers(side - kept + 1, size=2)
    x = ndimage.zoom(
        x[:, top : top + kept, left : left + kept], (1, side / kept, side / kept), order=1
    )
    return np.ascontiguousarray(x, dtype=np.float32)


def peak_rss() -> int:
    """Largest resident memory of this process so far, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def wait_share(
    args: argparse.Namespace, device: torch.device, precision: torch.dtype
) -> dict[str, Any]:
    """Train MAE for some steps from a cohort: the share of the time spent waiting for Ray Data."""
    from ecgcmr.cohort import dataset
    from ecgcmr.data import stream
    from ecgcmr.runtime import cluster

    n = args.batch or BATCH[device.type]["mae"]
    steps = args.steps + 1  # the first waits for Ray Data to start and is not counted
    trial = Trial(
        space="bench", stage="pretrain", task="ecg", system="mae", method="mae", batch=n, epochs=1
    )
    run, state = loop.prepare(trial, steps, device, precision), loop.State()
    epochs = math.ceil(
        steps / stream.steps_per_epoch(dataset.open(args.loop), "train", ("ecg",), n)
    )
    with cluster.running():
        feed = stream.batches(
            args.loop, split="train", needs=("ecg",), batch=n, seed=0, epochs=epochs, device=device
        )
        loop.loop(run, feed, lambda: [(1, batch_of(("ecg",), 1, device))], state)
        for _ in feed:  # to its end: Ray Data's own threads outlive a stream that is left, and Ray's end then kills us
            pass
    return {"data_wait_share": round(state.waited / state.seconds, 5), "steps": args.steps}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--batch", type=int, help="rows per step (default 32 and 16 on a CPU, 128 and 256 on a GPU)"
    )
    parser.add_argument("--steps", type=int, default=5, help="timed steps per method")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--device")
    parser.add_argument("--plain", action="store_true", help="also take steps the plain way")
    parser.add_argument("--methods", nargs="+", default=["mae", "mmcl"])
    parser.add_argument(
        "--loop",
        type=Path,
        metavar="COHORT",
        help="also measure the wait for data from this cohort",
    )
    args = parser.parse_args()
    device = hardware.device(args.device)
    precision = hardware.precision(args.precision, device)
    line = {
        "benchmark": "pretrain_step",
        "device": hardware.name(device),
        "threads": torch.get_num_threads(),
        "precision": str(precision).removeprefix("torch."),
        **{name: measure(name, args, device, precision) for name in args.methods},
    }
    if args.loop:
        line["loop"] = wait_share(args, device, precision)
    print(json.dumps(line))


if __name__ == "__main__":
    main()
