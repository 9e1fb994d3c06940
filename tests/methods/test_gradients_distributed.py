"""One process with a batch of B and N processes with B/N have the same gradients, float64, 1e-9."""

import pickle

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from ecgcmr import methods
from ecgcmr.nn import Network
from ecgcmr.presets import PRESETS
from ecgcmr.runtime import hardware

WORLD, B = 2, 8
TINY = Network(
    crop=200,
    patch=50,
    width=16,
    depth=2,
    heads=2,
    decoder_width=8,
    decoder_depth=1,
    decoder_heads=2,
    blocks=(1, 2, 1, 1),
    image_width=4,
    image_size=32,
    hidden=16,
    projection=8,
)
CASES = [
    ("mae", "ecg"),
    ("simclr", "cmr"),
    ("simclr", "ecg"),
    ("mmcl", "ecg+cmr"),
    ("supervised", "cmr"),
    ("byol", "ecg"),
    ("barlow_twins", "ecg"),
    ("clocs", "ecg"),
]


def prepared(name, modality):
    method = methods.build(
        name, TINY, PRESETS["paper"], modality=modality, outputs=2, seed=1, samples=200
    ).double()
    generator = hardware.generator("cpu", 3)
    batch = {
        "ecg": torch.randn(B, 12, 300, dtype=torch.float64, generator=generator),
        "cmr": torch.rand(B, 3, 40, 40, dtype=torch.float64, generator=generator),
        "target": torch.arange(B) % 2,
    }
    return method, batch, method.noise(hardware.generator("cpu", 1, 0), B)


def learnt(name, modality, rank=0, world=1):
    method, batch, noise = prepared(name, modality)
    rows = slice(rank * B // world, (rank + 1) * B // world)
    mine = [{k: v[rows] for k, v in table.items()} for table in (batch, noise)]
    loss = method(*mine, method.knobs)["loss"]
    loss.backward()
    grads = {k: p.grad for k, p in method.named_parameters() if p.requires_grad}
    return loss.detach(), grads, dict(method.named_buffers())


def work(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=WORLD
    )
    found = {}
    for case in CASES:
        loss, grads, buffers = learnt(*case, rank, WORLD)
        for tensor in (loss, *grads.values()):
            dist.all_reduce(tensor)
            tensor /= WORLD
        found[case] = loss, grads, buffers
    with open(f"{folder}/{rank}.pkl", "wb") as file:
        pickle.dump(found, file)
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def spread(forking, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    mp.start_processes(work, (str(folder),), nprocs=WORLD, start_method=forking)
    return [pickle.loads((folder / f"{rank}.pkl").read_bytes()) for rank in range(WORLD)]


@pytest.mark.parametrize("case", CASES)
def test_n_processes_have_the_gradients_of_one(spread, case):
    loss, grads, buffers = learnt(*case)
    for found in spread:
        assert abs(found[case][0] - loss) < 1e-9
        for k, grad in grads.items():
            assert (found[case][1][k] - grad).abs().max() < 1e-9, k
        for k, buffer in buffers.items():
            assert (found[case][2][k] - buffer).abs().max() < 1e-9, k


@pytest.mark.parametrize("case", CASES[1:2])
def test_the_gradients_compared_are_not_zero(case):
    _, grads, _ = learnt(*case)
    assert min(g.abs().max() for g in grads.values()) > 1e-6
