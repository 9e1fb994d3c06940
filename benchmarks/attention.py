"""Is attention faster written out, or in torch's fused kernel, on this machine?

    python benchmarks/attention.py [--threads N] [--rounds N]

Forward and backward at the shapes of this project (samples, heads, tokens, width of a head): the paper's network fine-tuning
and under MAE's mask, and the networks of `small` and `af`. Prints one line of JSON: by shape and precision the milliseconds
of either, the least of all rounds, taken in turn. On a CPU the package takes the first in bfloat16, else the second.
"""

import argparse
import json
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ecgcmr.nn.attention import written_out
from ecgcmr.runtime import hardware

SHAPES = {
    "paper, fine-tuning": (8, 6, 601, 64),
    "paper, batch 32": (32, 6, 601, 64),
    "paper, MAE encoder": (32, 6, 61, 64),
    "small, pre-training": (64, 4, 121, 16),
    "small, fine-tuning": (16, 4, 241, 16),
}


def once(
    work: Callable[[Tensor, Tensor, Tensor], Tensor], qkv: list[Tensor], device: torch.device
) -> float:
    """Milliseconds of a forward and a backward."""
    start = time.perf_counter()
    found = work(*qkv)
    torch.autograd.grad(found, qkv, torch.ones_like(found))
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return 1e3 * (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--device")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    device, ways = (
        hardware.device(args.device),
        {"written_out": written_out, "fused": F.scaled_dot_product_attention},
    )
    line: dict[str, object] = {
        "benchmark": "attention",
        "device": hardware.name(device),
        "threads": torch.get_num_threads(),
    }
    for name, shape in SHAPES.items():
        for precision in (torch.bfloat16, torch.float32):
            qkv = [
                torch.randn(shape, device=device, dtype=precision, requires_grad=True)
                for _ in range(3)
            ]
            taken = [
                {way: once(work, qkv, device) for way, work in ways.items()}
                for _ in range(args.rounds)
            ]
            least = {way: round(min(found[way] for found in taken), 2) for way in ways}
            line[f"{name} {str(precision).removeprefix('torch.')}"] = {"ms": least}
    print(json.dumps(line))


if __name__ == "__main__":
    main()
