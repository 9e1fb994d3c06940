"""Encoder files: our safetensors, and the layout in which the paper's weights are published.

The one idea: inside the package an encoder has one set of names (the published ECG names, torchvision's ResNet names),
and only this file knows how others spell them. Files are read without running code from them (`weights_only=True`).
"""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ecgcmr.errors import InputError
from ecgcmr.store import write_whole

PARTS = ("ecg", "cmr")

# children() of torchvision's ResNet in order; pooling and activations have no tensors.
_STAGES = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}
_NAMES = {number: name for name, number in _STAGES.items()}


def write(path: Path, encoders: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Write encoders to a safetensors file, whole or not at all.

    Args:
        path: of the file.
        encoders: {"ecg" or "cmr": {name: array}}.
    """
    flat = {f"{part}.{k}": np.asarray(v, order="C") for part, found in encoders.items() for k, v in found.items()}
    write_whole(path, lambda aside: save_file(dict(sorted(flat.items())), aside))


def read(path: Path, part: str) -> dict[str, np.ndarray]:
    """The encoder `part` of a file, by names without prefix, whichever layout the file has.

    Args:
        path: a safetensors file of ours, or a published `.pth`: {"model": …} for an ECG encoder, {"state_dict": …} with
            `encoder_imaging.*` for an image encoder.
        part: "ecg" or "cmr".

    Raises:
        InputError: unreadable, or without that encoder.
    """
    found = _ours(path) if path.suffix == ".safetensors" else _published(path)
    encoder = {k.removeprefix(f"{part}."): v for k, v in found.items() if k.startswith(f"{part}.")}
    if not encoder:
        held = sorted({k.split(".")[0] for k in found}) or ["nothing"]
        raise InputError(f"{path} has no '{part}' encoder; it holds {', '.join(held)}")
    return encoder


def _ours(path: Path) -> dict[str, np.ndarray]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} is not a readable safetensors file ({error}); make it again") from error


def _published(path: Path) -> dict[str, np.ndarray]:
    try:
        record = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path} is not a file of plain tensors ({str(error).splitlines()[0]}); "
            'save it anew as torch.save({"model": state_dict}, file)'
        ) from error
    tensors: dict[str, Any] = {}
    if isinstance(record, dict):
        tensors = record.get("model") or record.get("state_dict") or record
    named = {_inside(k): v for k, v in tensors.items() if isinstance(v, torch.Tensor)}
    return {k: v.numpy() for k, v in named.items()}


def _inside(name: str) -> str:
    """Our name of a published one: `encoder_imaging.4.0.conv1.weight` is `cmr.layer1.0.conv1.weight`."""
    if name.startswith("encoder_imaging."):
        number, _, rest = name.removeprefix("encoder_imaging.").partition(".")
        return f"cmr.{_NAMES.get(number, number)}.{rest}"
    return "ecg." + name.removeprefix("encoder_ecg.")


def publish(path: Path, part: str, encoder: Mapping[str, np.ndarray]) -> None:
    """Write one encoder in the published layout: tensors only, so that it opens anywhere with `weights_only=True`.

    Args:
        path: of the `.pth` file.
        part: "ecg" for {"model": …}, "cmr" for {"state_dict": {"encoder_imaging.…": …}}.
        encoder: by our names. An ECG encoder whose method pools before the norm has none; a neutral one is added, which
            makes up the 42 published names.
    """
    tensors = {k: torch.from_numpy(np.asarray(v, order="C").copy()) for k, v in encoder.items()}
    record: dict[str, Any]
    if part == "cmr":
        record = {"state_dict": {_outside(k): v for k, v in tensors.items()}}
    else:
        width = tensors["cls_token"].shape[-1]
        record = {"model": {**tensors, **{k: v for k, v in _neutral(width).items() if k not in tensors}}}
    write_whole(path, lambda aside: torch.save(record, aside))


def _outside(name: str) -> str:
    first, _, rest = name.partition(".")
    return f"encoder_imaging.{_STAGES[first]}.{rest}"


def _neutral(width: int) -> dict[str, torch.Tensor]:
    return {"norm.weight": torch.ones(width), "norm.bias": torch.zeros(width)}
