"""How much faster are trials trained as a pack than one after another, or as processes beside each other?

    python benchmarks/packs.py [--members N ...] [--batches N ...] [--processes N ...] [--small] [--seconds S]

torch alone, no Ray: it runs on a bare GPU machine. Fine-tunes the paper's ECG network (`--small`: that of the scale
`small`) on random resident signals and prints one line of JSON: for every batch and number of members E the seconds of a
step and the member-steps per second; for as many processes with one member each the sum of theirs over the same stretch of
time. The ratios are of member-steps per second: `of_sequential` to E = 1 of the same engine, `of_eager` to E = 1 launched
kernel by kernel, and `of_processes` to the best of the processes. All in one run; E = 1 is timed again around every other
E, and the least of each is taken. The pack's losses are compared with those of its members alone first. On a GPU the peak of
memory stands beside what `partition` reckons with.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from ecgcmr import tasks
from ecgcmr.nn import Network
from ecgcmr.runtime import cuda_graph, hardware
from ecgcmr.search import study
from ecgcmr.training import pack_step, partition
from ecgcmr.training.pack import assemble
from ecgcmr.trial import Trial

TOTAL = 10_000  # steps of the schedule: long, so that no rate ends at 0
WARM = cuda_graph.WARM + 2
LEAST = 3  # steps per measurement


def trials(network: Network, batch: int, members: int) -> list[Trial]:
    """Points of the paper's grid for one seed."""
    rates, paths = study.PAPER_GRID["lr"], study.PAPER_GRID["drop_path"]
    return [
        Trial(
            space="bench",
            stage="grid",
            task="cad",
            system=f"member-{e}",
            method="supervised",
            network=network,
            batch=batch,
            epochs=1,
            knobs=(("lr", rates[e % len(rates)]), ("drop_path", paths[e % len(paths)])),
        )
        for e in range(members)
    ]


class Bench:
    """A pack on random signals, taking steps."""

    def __init__(self, given: list[Trial], device: torch.device, precision: torch.dtype) -> None:
        """Assemble the pack of these trials."""
        self.pack = assemble(given, tasks.of("cad"), Path(), device, precision)
        draw = torch.Generator(device).manual_seed(0)
        n = given[0].batch
        self.batch = {
            "ecg": torch.randn(n, 12, 5000, generator=draw, device=device).to(self.pack.dtype),
            "target": torch.arange(n, device=device) % 2,
        }
        self.number = 0

    def step(self) -> torch.Tensor:
        """One step, its noise drawn as in training."""
        device, n = self.pack.device, len(self.batch["target"])
        drawn = self.pack.method.noise(hardware.generator(device, 0, self.number), n)
        noise = {name: x.to(self.pack.dtype) for name, x in drawn.items()}
        self.number += 1
        return pack_step.learn(self.pack, self.batch, noise, None, self.number, TOTAL)

    def timed(self, seconds: float) -> float:
        """Median seconds of a step over about so many seconds."""
        taken: list[float] = []
        begun = time.perf_counter()
        while len(taken) < LEAST or time.perf_counter() - begun < seconds:
            taken.append(timed_step(self))
        return statistics.median(taken)


def timed_step(bench: Bench) -> float:
    """Wall seconds of a step, the device's queue included."""
    start = time.perf_counter()
    bench.step()
    if bench.pack.device.type == "cuda":
        torch.cuda.synchronize(bench.pack.device)
    return time.perf_counter() - start


def warmed(bench: Bench) -> Bench:
    """After the first steps, in which kernels are chosen and recorded."""
    for _ in range(WARM if bench.pack.replay.on else 1):
        timed_step(bench)
    return bench


def apart(network: Network, device: torch.device) -> float:
    """Largest difference of a loss between members of a pack and the same alone, over ten float32 steps."""
    given = trials(network, 8, 3)
    runs = [
        Bench(chosen, device, torch.float32) for chosen in (given, *([trial] for trial in given))
    ]
    worst = 0.0
    for _ in range(10):
        losses = [bench.step().clone() for bench in runs]
        worst = max(worst, float((losses[0] - torch.cat(losses[1:])).abs().max()))
    return worst


def pack_times(
    args: argparse.Namespace, network: Network, batch: int, device: torch.device
) -> dict[str, Any]:
    """Seconds of a step by E, and peak memory of the largest."""
    precision = hardware.precision(args.precision, device)
    alone = warmed(Bench(trials(network, batch, 1), device, precision))
    single: list[float] = []
    found: dict[str, Any] = {}
    for members in args.members:
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        try:
            bench = warmed(Bench(trials(network, batch, members), device, precision))
            single.append(alone.timed(args.seconds / 2))
            taken = min(bench.timed(args.seconds / 2), bench.timed(args.seconds / 2))
        except torch.cuda.OutOfMemoryError:
            found[str(members)] = "out of memory"
            break
        found[str(members)] = {
            "step_s": round(taken, 5),
            "member_steps_per_s": round(members / taken, 2),
        }
        if device.type == "cuda":
            modelled = members * partition.member_bytes(trials(network, batch, 1)[0])
            found[str(members)] |= {
                "peak_gib": round(torch.cuda.max_memory_allocated(device) / 2**30, 2),
                "modelled_gib": round(modelled / 2**30, 2),
            }
        del bench
    one = min(single)
    line = {"1": {"step_s": round(one, 5), "member_steps_per_s": round(1 / one, 2)}, **found}
    os.environ[cuda_graph.SWITCH] = "off"
    eager = warmed(Bench(trials(network, batch, 1), device, precision)).timed(args.seconds)
    os.environ.pop(cuda_graph.SWITCH)
    return {
        "sequential": line["1"],
        "eager": {"step_s": round(eager, 5), "member_steps_per_s": round(1 / eager, 2)},
        "packs": found,
    }


# -- processes beside each other ---------------------------------------------------------------------------------------


def beside(
    me: int,
    plan: list[tuple[int, int]],
    network: Network,
    name: str,
    precision: str,
    seconds: float,
    barrier: Any,
    results: Any,
) -> None:
    """One of the processes: in every round of the plan that it takes part in, count steps of one member."""
    device = torch.device(name)
    torch.set_num_threads(1 if device.type == "cpu" else torch.get_num_threads())
    for number, (batch, processes) in enumerate(plan):
        bench = None
        if me < processes:
            bench = warmed(
                Bench(trials(network, batch, 1), device, hardware.precision(precision, device))
            )
        barrier.wait()
        begun, steps = time.perf_counter(), 0
        while bench is not None and (steps < LEAST or time.perf_counter() - begun < seconds):
            timed_step(bench)
            steps += 1
        results[number] = steps / (
            time.perf_counter() - begun
        )  # not of `seconds`, in which a last step need not end
        barrier.wait()


def process_rates(
    args: argparse.Namespace, network: Network, device: torch.device
) -> dict[int, dict[str, float]]:
    """Batch -> processes -> member-steps per second of all."""
    context = multiprocessing.get_context("spawn")
    plan = [(batch, count) for batch in args.batches for count in args.processes]
    most = max(args.processes)
    barrier = context.Barrier(most)
    shared = [context.Array("d", len(plan), lock=False) for _ in range(most)]
    given = (plan, network, str(device), args.precision, max(args.seconds, 2.0), barrier)
    workers = [context.Process(target=beside, args=(me, *given, shared[me])) for me in range(most)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        if worker.exitcode:
            raise SystemExit(f"a process ended with {worker.exitcode}")
    rates: dict[int, dict[str, float]] = {}
    for number, (batch, count) in enumerate(plan):
        rates.setdefault(batch, {})[str(count)] = round(sum(column[number] for column in shared), 2)
    return rates


def ratios(found: dict[str, Any]) -> dict[str, Any]:
    """The best pack's rate over the others'."""
    best = max(x["member_steps_per_s"] for x in found["packs"].values() if isinstance(x, dict))
    others = {
        "of_sequential": found["sequential"]["member_steps_per_s"],
        "of_eager": found["eager"]["member_steps_per_s"],
    }
    if found.get("processes"):
        others["of_processes"] = max(found["processes"].values())
    return {name: round(best / rate, 2) for name, rate in others.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--members", type=int, nargs="+")
    parser.add_argument("--batches", type=int, nargs="+")
    parser.add_argument("--processes", type=int, nargs="*")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--seconds", type=float, default=2.0, help="per measurement")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--device")
    args = parser.parse_args()
    device = hardware.device(args.device)
    gpu = device.type == "cuda"
    args.members = args.members or ([2, 4, 8, 16, 32, 64] if gpu else [2, 4])
    args.batches = args.batches or ([8, 16, 32] if gpu else [8])
    args.processes = [2, 4, 8] if args.processes is None and gpu else args.processes or []
    network = study.SMALL.network if args.small else Network()
    line: dict[str, Any] = {
        "benchmark": "packs",
        "device": hardware.name(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "network": "small" if args.small else "paper",
        "precision": str(hardware.precision(args.precision, device)).removeprefix("torch."),
        "pack_minus_solo_loss": apart(network, device),
    }
    rates = process_rates(args, network, device) if args.processes else {}
    for batch in args.batches:
        found = pack_times(args, network, batch, device)
        if batch in rates:
            found["processes"] = rates[batch]
        line[f"batch {batch}"] = {**found, **ratios(found)}
    print(json.dumps(line))


if __name__ == "__main__":
    main()
