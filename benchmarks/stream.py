"""Does the Ray Data feed keep a training step fed? Feed against a plain pyarrow read of the same shards, in one run.

    python benchmarks/stream.py                       # 4,096 random rows, ECG alone and with CMR
    python benchmarks/stream.py --step-ms 400         # and the share of time that a step of 400 ms waits for data

    python benchmarks/stream.py --beside              # and how much an open stream slows a training step down

    python benchmarks/stream.py --grow 1 4 16         # instead: cohorts of so many times the memory budget
    python benchmarks/stream.py --cache host          # instead: epochs from memory against epochs through Ray Data
    python benchmarks/stream.py --cache device --device cuda

One JSON line per set of signals: rows/s of both (medians of interleaved rounds, the feed after its first blocks), their
ratio (aim: 0.5 or more), seconds to the first batch, peak memory of all processes together, waiting share if asked.
With --grow: one line per cohort, ECG and CMR: rows/s after the first batches over as many epochs as make equally many rows,
and peak memory; the budget is Ray's object store, 256 MiB here. The last line holds the largest against the smallest (aim:
equal rows/s, 1.15 in memory).
With --cache: rows/s of the feed, of the epoch that fills memory, of those after it (the first of which reads the few rows
that the epoch before dropped), and how many times the feed that is.
"""

import argparse
import json
import os
import shutil
import statistics
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import torch

from ecgcmr import nn
from ecgcmr.cohort import build, dataset, shards, staging
from ecgcmr.data import cache as memory
from ecgcmr.data import stream
from ecgcmr.runtime import cluster, hardware
from ecgcmr.training import loop
from ecgcmr.trial import Trial

BUDGET_MB = 256  # of Ray's object store with --grow


class Memory:
    """Peak proportional set size of this process and its children, sampled twice a second."""

    def __init__(self):
        self.peak, self.ended = 0.0, threading.Event()
        threading.Thread(target=self.watch, daemon=True).start()

    def watch(self):
        """Sample until told to end."""
        while not self.ended.wait(0.5):
            total = 0
            for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
                try:
                    total += process.memory_full_info().pss
                except psutil.Error:
                    continue
            self.peak = max(self.peak, total / 2**30)


def make(out: Path, rows: int) -> dataset.Cohort:
    """A cohort of noise: reading does not depend on what the bytes mean."""
    rng, parts = np.random.default_rng(0), []
    recipe = build.recipe_of("noise", {})
    request = {"source": "noise", "seed": 0, "recipe_hash": dataset.digest(recipe)}
    ecg = rng.standard_normal((64, 12, 5000)).astype(np.float16)
    cmr = rng.integers(0, 255, (64, 3, 210, 210), np.uint8)
    with staging.building(out, request):
        for n, start in enumerate(range(0, rows, 512)):
            count, path = min(512, rows - start), f"train/shard-{n:05d}.parquet"
            body = (
                {
                    "subject": f"n{start + i}",
                    "split": "train",
                    "ecg": ecg[i % 64],
                    "cmr": cmr[i % 64],
                }
                for i in range(count)
            )
            summary = shards.write_shard(out / path, body, ())
            parts.append({**summary, "path": path, "has": {"ecg": "1" * count, "cmr": "1" * count}})
        return staging.finish(
            out, request, recipe, parts, (), {"flow": [], "exclusions": [], "repairs": []}
        )


def plain(path: Path, needs: tuple[str, ...], batch: int) -> float:
    """Rows/s of reading every shard in order with pyarrow alone, into tensors of our own."""
    begin, count = time.perf_counter(), 0
    for shard in sorted(path.glob("train/*.parquet")):
        for part in pq.ParquetFile(shard, memory_map=True).iter_batches(
            batch_size=batch, columns=list(needs)
        ):
            for name in needs:
                torch.from_numpy(shards.unpack(part[name], name).copy())
            count += len(part)
    return count / (time.perf_counter() - begin)


def feed(
    path: Path, needs: tuple[str, ...], batch: int, epochs: int, step_s: float, device: str = "cpu"
) -> tuple[float, float, float]:
    """Rows/s after the first batches, seconds to the first batch, and the share of time spent waiting."""
    waits, ends = [], []
    source = stream.batches(
        path, split="train", needs=needs, batch=batch, seed=0, epochs=epochs, device=device
    )
    while True:
        asked = time.perf_counter()
        if next(source, None) is None:
            break
        waits.append(time.perf_counter() - asked)
        if step_s:
            time.sleep(step_s)
        ends.append(time.perf_counter())
    warm = min(16, len(ends) // 4)  # read ahead while processes started
    took = ends[-1] - ends[warm - 1]
    return (len(ends) - warm) * batch / took, waits[0], sum(waits[warm:]) / took


def kept(
    path: Path, needs: tuple[str, ...], batch: int, epochs: int, cache: str, device: str
) -> tuple[float, float]:
    """Rows/s of the epoch that fills memory, after its first batches, and of the epochs that memory serves."""
    steps = stream.steps_per_epoch(dataset.open(path), "train", needs, batch)
    warm, ends = min(16, steps // 4), []
    given = {
        "split": "train",
        "needs": needs,
        "batch": batch,
        "seed": 0,
        "epochs": epochs,
        "device": device,
    }
    for _ in stream.batches(path, **given, cache=cache):
        ends.append(time.perf_counter())
    filling = (steps - warm) * batch / (ends[steps - 1] - ends[warm - 1])
    return filling, (len(ends) - steps) * batch / (ends[-1] - ends[steps - 1])


def measure_kept(path: Path, needs: tuple[str, ...], args: argparse.Namespace) -> dict[str, object]:
    """Streamed and kept epochs in interleaved rounds."""
    rows = stream.plan(dataset.open(path), "train", needs, args.batch)
    place = memory.place(args.cache, rows, args.epochs, 0, torch.device(args.device))
    watch, feeds, fills, keeps = Memory(), [], [], []
    for _ in range(args.rounds):
        feeds.append(feed(path, needs, args.batch, args.epochs, 0.0, args.device)[0])
        filling, serving = kept(path, needs, args.batch, args.epochs, place, args.device)
        fills.append(filling)
        keeps.append(serving)
    watch.ended.set()
    a, b, c = (statistics.median(rates) for rates in (feeds, fills, keeps))
    return {
        "needs": "+".join(needs),
        "batch": args.batch,
        "rows_GB": round(memory.size(rows) / 1e9, 2),
        "cache": place,
        "device": hardware.name(torch.device(args.device)),
        "feed_rows_s": round(a),
        "filling_rows_s": round(b),
        "kept_rows_s": round(c),
        "times": round(c / a, 1),
        "peak_GiB": round(watch.peak, 2),
        "rounds": args.rounds,
    }


def grow(times: list[int], batch: int, folder: Path) -> None:
    """Print a line for each multiple of the budget, and what the last is of the first."""
    needs = ("ecg", "cmr")
    row_bytes = sum(shards.SIGNALS[name].width for name in needs)
    found = []
    for number in times:
        rows = number * BUDGET_MB * 2**20 // row_bytes
        path = make(folder / f"x{number}", rows).path
        # One Ray and one watch each: what an earlier cohort left behind must not count for the next.
        with cluster.running(object_store_mb=BUDGET_MB):
            watch = Memory()
            rate, first, _ = feed(path, needs, batch, max(times) // number, 0.0)
            watch.ended.set()
        shutil.rmtree(path)
        found.append(
            {
                "times": number,
                "rows": rows,
                "rows_s": round(rate),
                "first_batch_s": round(first, 2),
                "peak_GiB": round(watch.peak, 2),
            }
        )
        print(
            json.dumps(
                {"benchmark": "stream", "budget_MiB": BUDGET_MB, "batch": batch, **found[-1]}
            ),
            flush=True,
        )
    ratio = {name: round(found[-1][name] / found[0][name], 2) for name in ("rows_s", "peak_GiB")}
    print(json.dumps({"benchmark": "stream", "largest_over_smallest": ratio}), flush=True)


def beside(path: Path, epochs: int, steps: int = 30) -> float:
    """Time of a training step while a stream stands by with full buffers, over its time alone; the noise is ours."""
    network = nn.Network(
        crop=2500,
        patch=500,
        width=32,
        depth=2,
        heads=4,
        decoder_width=32,
        decoder_depth=1,
        decoder_heads=4,
    )
    trial = Trial(
        space="bench",
        stage="pretrain",
        task="ecg",
        system="mae",
        method="mae",
        network=network,
        batch=64,
    )
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    run = loop.prepare(trial, steps, torch.device("cpu"), torch.float32)
    batch = {"ecg": torch.randn(64, 12, 5000)}

    def seconds() -> float:
        taken = []
        for number in range(steps):
            start = time.perf_counter()
            loop.step(run, batch, number)
            taken.append(time.perf_counter() - start)
        return statistics.median(taken)

    seconds()
    alone = seconds()
    source = stream.batches(path, split="train", needs=("ecg",), batch=64, seed=0, epochs=epochs)
    next(source)
    time.sleep(5)  # until every buffer is full
    ratio = seconds() / alone
    for _ in source:  # to its end: Ray Data's threads outlive a stream that is left
        pass
    return ratio


def measure(path: Path, needs: tuple[str, ...], args: argparse.Namespace) -> dict[str, object]:
    watch, plains, feeds, firsts = Memory(), [], [], []
    for _ in range(args.rounds):
        plains.append(plain(path, needs, args.batch))
        rate, first, _ = feed(path, needs, args.batch, args.epochs, 0.0)
        feeds.append(rate)
        firsts.append(first)
    watch.ended.set()
    a, b = statistics.median(plains), statistics.median(feeds)
    found = {
        "needs": "+".join(needs),
        "batch": args.batch,
        "plain_rows_s": round(a),
        "feed_rows_s": round(b),
        "ratio": round(b / a, 2),
        "first_batch_s": round(statistics.median(firsts), 2),
        "peak_GiB": round(watch.peak, 2),
        "rounds": args.rounds,
    }
    if args.step_ms:
        _, _, share = feed(path, needs, args.batch, 1, args.step_ms / 1000)
        found |= {"step_ms": args.step_ms, "wait_share": round(share, 4)}
    return found


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cohort", type=Path, help="measure on this cohort instead of noise")
    parser.add_argument("--rows", type=int, default=4096, help="of the noise cohort")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=8, help="per round of the feed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--beside", action="store_true", help="time a training step beside an open stream too"
    )
    parser.add_argument(
        "--grow", type=int, nargs="+", help="cohorts of so many times the memory budget instead"
    )
    parser.add_argument(
        "--step-ms", type=float, default=0, help="stand-in for a training step of one batch"
    )
    parser.add_argument(
        "--cache", choices=memory.WORDS[:-1], help="measure epochs from memory instead"
    )
    parser.add_argument("--device", default="cpu", help="where batches arrive, with --cache")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.grow:
        with tempfile.TemporaryDirectory(prefix="stream-") as scratch:
            grow(args.grow, args.batch, Path(scratch))
        return
    with tempfile.TemporaryDirectory(prefix="stream-") as scratch, cluster.running():
        path = args.cohort or make(Path(scratch) / "noise", args.rows).path
        for needs in (("ecg",), ("ecg", "cmr")):
            print(
                json.dumps((measure_kept if args.cache else measure)(path, needs, args)), flush=True
            )
        if args.beside:
            print(
                json.dumps({"step_beside_stream_over_alone": round(beside(path, args.epochs), 2)}),
                flush=True,
            )


if __name__ == "__main__":
    main()
