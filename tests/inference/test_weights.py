"""Encoder files: ours and the published layout, there and back, and what cannot be read."""

import argparse

import numpy as np
import pytest
import torch

from ecgcmr.errors import InputError
from ecgcmr.inference import weights
from ecgcmr.nn import load, resnet, vit


def arrays(module):
    return {k: v.numpy() for k, v in module.state_dict().items()}


def equal(a, b):
    return set(a) == set(b) and all(np.array_equal(a[k], b[k]) for k in a)


def test_our_file_there_and_back(tmp_path):
    ecg, cmr = arrays(vit.ViT(16, 1, 2, 20, 5)), arrays(resnet.ResNet((1, 1, 1, 1), 4))
    path = tmp_path / "encoder.safetensors"
    weights.write(path, {"ecg": ecg, "cmr": cmr})
    assert equal(weights.read(path, "ecg"), ecg)
    assert equal(weights.read(path, "cmr"), cmr)
    assert [p.name for p in tmp_path.iterdir()] == ["encoder.safetensors"]


def test_published_ecg_layout_there_and_back(tmp_path):
    encoder, path = vit.ViT(16, 3, 2, 20, 5, norm=False), tmp_path / "signal_encoder.pth"
    weights.publish(path, "ecg", arrays(encoder))
    record = torch.load(path, weights_only=True)
    assert set(record) == {"model"}
    assert len(record["model"]) == 42
    again = vit.ViT(16, 3, 2, 20, 5, norm=False)
    load.into(again, weights.read(path, "ecg"), "ecg")
    assert equal(arrays(again), arrays(encoder))


def test_published_image_layout_there_and_back(tmp_path):
    encoder, path = arrays(resnet.ResNet((1, 2, 1, 1), 4)), tmp_path / "image_encoder.pth"
    weights.publish(path, "cmr", encoder)
    names = torch.load(path, weights_only=True)["state_dict"]
    assert {
        "encoder_imaging.0.weight",
        "encoder_imaging.5.1.conv1.weight",
        "encoder_imaging.1.running_var",
    } <= set(names)
    assert equal(weights.read(path, "cmr"), encoder)


def test_a_multimodal_checkpoint_holds_both(tmp_path):
    ecg, cmr = vit.ViT(16, 1, 2, 20, 5), resnet.ResNet((1, 1, 1, 1), 4)
    weights.publish(tmp_path / "cmr.pth", "cmr", arrays(cmr))
    state = torch.load(tmp_path / "cmr.pth", weights_only=True)["state_dict"]
    state |= {f"encoder_ecg.{k}": v for k, v in ecg.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "both.pth")
    assert equal(weights.read(tmp_path / "both.pth", "ecg"), arrays(ecg))
    assert equal(weights.read(tmp_path / "both.pth", "cmr"), arrays(cmr))


def test_files_that_run_code_are_refused(tmp_path):
    path = tmp_path / "checkpoint-399.pth"
    torch.save({"model": {}, "args": argparse.Namespace(lr=1)}, path)
    with pytest.raises(InputError, match=r"checkpoint-399\.pth is not a file of plain tensors"):
        weights.read(path, "ecg")


@pytest.mark.parametrize("name", ["encoder.safetensors", "encoder.pth"])
def test_broken_and_absent_files_are_named(tmp_path, name):
    with pytest.raises(InputError, match=name):
        weights.read(tmp_path / name, "ecg")
    (tmp_path / name).write_bytes(b"\x00" * 50)
    with pytest.raises(InputError, match=name):
        weights.read(tmp_path / name, "ecg")


def test_an_absent_encoder_is_named(tmp_path):
    path = tmp_path / "encoder.safetensors"
    weights.write(path, {"ecg": {"cls_token": np.zeros(3, np.float32)}})
    with pytest.raises(InputError, match="has no 'cmr' encoder; it holds ecg"):
        weights.read(path, "cmr")
