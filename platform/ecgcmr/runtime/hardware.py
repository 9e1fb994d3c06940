"""What the machine offers: the device, the precision it is fast in,
and random streams keyed by numbers.

The one idea: a stream is named, not carried. `generator(device, seed, step)` gives the same numbers
whenever it is asked, so nothing random has to be saved, and a trial draws the same alone, in a pack
and after a resume. This file does not place tensors and does not know Ray.
"""

import contextlib
import ctypes
import hashlib
import os
import platform
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor

from ecgcmr import __version__
from ecgcmr.errors import InputError, unknown

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}


def device(name: str | None = None) -> torch.device:
    """The device of that name; without one, the first GPU, else the CPU.

    Raises:
        InputError: not a device, or one that this machine lacks.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(name)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"device '{name}' is not usable here ({str(error).splitlines()[0]}); use cpu or cuda"
        ) from error
    return place


def generator(device: torch.device | str, *key: int) -> torch.Generator:
    """A fresh random stream on `device`, fixed by `key`, e.g. (seed, step).

    The key is hashed: (1, 2), (2, 1), (12,) and neighbouring steps give unrelated streams. CPU and
    GPU differ.
    """
    digest = hashlib.blake2b(",".join(str(int(k)) for k in key).encode(), digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "little") >> 1)


def precision(name: str, device: torch.device | str) -> torch.dtype:
    """The dtype that matrix products run in; "auto" is bfloat16 where the device computes in it,
    else float32.

    A CPU that merely emulates bfloat16 (no avx512_bf16, no AMX) is slower in it than in float32,
    hence float32.

    Raises:
        InputError: neither "auto" nor one of PRECISIONS.
    """
    if name in PRECISIONS:
        return PRECISIONS[name]
    if name != "auto":
        raise unknown("precision", name, {"auto", *PRECISIONS})
    if torch.device(device).type == "cuda":
        computes_in_it = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        capabilities = torch.cpu.get_capabilities()
        computes_in_it = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return torch.bfloat16 if computes_in_it else torch.float32


def autocast(device: torch.device | str, dtype: torch.dtype) -> contextlib.AbstractContextManager:
    """Run matrix products in `dtype` while weights stay as they are.

    Does nothing for float32 and float64.
    """
    if dtype in (torch.bfloat16, torch.float16):
        return torch.autocast(torch.device(device).type, dtype)
    return contextlib.nullcontext()


def keep_memory(device: torch.device) -> None:
    """On a CPU, let this process keep memory that tensors gave back instead of asking
    the system for it anew.

    glibc returns what lies free at its heap's end, and a training step then waits for thousands of
    pages to be zeroed again.
    Blocks above 32 MiB are still mapped one by one: kept as well, they would leave holes, and the
    process would grow with every step. Other allocators are left alone.
    """
    if device.type != "cpu" or os.name != "posix":
        return
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(_MMAP_THRESHOLD, 32 * 2**20)  # the largest that glibc takes
        mallopt(_TRIM_THRESHOLD, -1)


def device_memory(device: torch.device) -> int | None:
    """Bytes free on an accelerator, what PyTorch holds in reserve included; None on a CPU."""
    if device.type != "cuda":
        return None
    torch.cuda.empty_cache()  # a trial that ended in this process left its memory with PyTorch
    return int(torch.cuda.mem_get_info(device)[0])


def host_memory(group: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that may still be taken of the machine's memory,
    and of its container's limit where one is set.

    Args:
        group: the control group's folder (version 2); a container sees its own there.
    """
    free = int(psutil.virtual_memory().available)
    try:
        limit, usage = (
            (group / name).read_text().strip() for name in ("memory.max", "memory.current")
        )
        pages = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except OSError:
        return free
    if limit == "max":
        return free
    # File pages are given back when memory is wanted.
    file_pages = int(pages.get("active_file", 0)) + int(pages.get("inactive_file", 0))
    return max(0, min(free, int(limit) - int(usage) + file_pages))


def name(device: torch.device) -> str:
    """The accelerator's model, or the processor's architecture: no host name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu ({platform.machine()})"


def provenance(device: torch.device, precision: torch.dtype) -> dict[str, Any]:
    """What a result was computed with: device, precision, threads, versions."""
    return {
        "device": name(device),
        "precision": str(precision).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "versions": {
            "ecgcmr": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
    }


def full(x: Tensor) -> Tensor:
    """`x` in at least float32: what reductions, logarithms and Fourier transforms need."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
