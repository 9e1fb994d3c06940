"""Random streams are named by their key; precision and device are what was asked for."""

import platform
import subprocess
import sys

import pytest
import torch

from ecgcmr.errors import InputError
from ecgcmr.runtime import hardware


def test_a_stream_is_fixed_by_its_key():
    first, again = (torch.rand(4, generator=hardware.generator("cpu", 3, 7)) for _ in range(2))
    assert torch.equal(first, again)


def test_keys_do_not_collide():
    keys = [(1, 2), (2, 1), (12,), (1, 2, 0), (1, 3), (-1, 2), (0,), ()]
    draws = {
        tuple(torch.rand(2, generator=hardware.generator("cpu", *key)).tolist()) for key in keys
    }
    assert len(draws) == len(keys)


def test_neighbouring_steps_are_uncorrelated():
    rows = torch.stack(
        [torch.randn(2000, generator=hardware.generator("cpu", 0, step)) for step in range(20)]
    )
    off = torch.corrcoef(rows) - torch.eye(20)
    assert off.abs().max() < 0.1  # 4.5 standard errors


def test_the_global_stream_is_left_alone():
    before = torch.get_rng_state()
    torch.rand(5, generator=hardware.generator("cpu", 1))
    assert torch.equal(before, torch.get_rng_state())


def test_precision():
    assert hardware.precision("float64", "cpu") == torch.float64
    assert hardware.precision("bfloat16", "cpu") == torch.bfloat16
    assert hardware.precision("auto", "cpu") in (torch.float32, torch.bfloat16)
    with pytest.raises(
        InputError, match="unknown precision 'half'; known: auto, bfloat16, float32, float64"
    ):
        hardware.precision("half", "cpu")


def test_device():
    assert hardware.device("cpu").type == "cpu"
    assert hardware.device().type in ("cpu", "cuda")
    for name in ("tpu9", "cuda:99"):
        with pytest.raises(InputError, match=name):
            hardware.device(name)


def test_autocast_runs_products_in_bfloat16_and_leaves_float64():
    x = torch.ones(2, 2)
    with hardware.autocast("cpu", torch.bfloat16):
        assert (x @ x).dtype == torch.bfloat16
    with hardware.autocast("cpu", torch.float64):
        assert (x.double() @ x.double()).dtype == torch.float64


FAULTS = """
import resource, sys, torch
from ecgcmr.runtime import hardware
if sys.argv[1] == "keep":
    hardware.keep_memory(torch.device("cpu"))
def step():
    return len([torch.nn.functional.gelu(torch.ones(4_000_000 + 50_000 * i)) for i in range(10)])
for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_memory_that_is_kept_is_not_asked_for_again():
    def faults(word):
        run = [sys.executable, "-c", FAULTS, word]
        return int(
            subprocess.run(run, check=True, capture_output=True, text=True, timeout=120).stdout
        )

    assert faults("keep") * 10 < faults("leave")
