"""Encoder files: our safetensors, the layout in which the paper's weights are published, and
torchvision's ResNets.

The one idea: inside the package an encoder has one set of names (the published ECG names,
torchvision's ResNet names), and only this file knows how others spell them. Files are foreign: they
are read without running code from them (`weights_only=True`), and what they hold is bounded before
it is copied.
"""

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor

from ecgcmr.errors import InputError
from ecgcmr.files import write_whole
from ecgcmr.signals import ALWAYS, SIGNALS

PUBLISHED = ALWAYS  # encoders whose layout others know
LIMIT = 1 << 30  # numbers in a file; ResNet-50 and the ECG transformer have 24 and 5 million

# children() of torchvision's ResNet in order; pooling and activations have no tensors.
_STAGES = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}
_NAMES = {number: name for name, number in _STAGES.items()}


@dataclass(frozen=True, eq=False)
class File:
    """What a weight file holds.

    Attributes:
        path: of the file.
        layout: "ecgcmr" (prefixes of ours), "torchvision" (a bare ResNet) or "authors" (as
            published).
        tensors: by our names with prefix, `ecg.…`, `cmr.…`, `head.…`; not yet copied from the file
            where it allows that.
        notes: the metadata of a safetensors file, none for others.
    """

    path: Path
    layout: str
    tensors: dict[str, Tensor]
    notes: dict[str, str]

    def encoder(self, part: str) -> dict[str, np.ndarray]:
        """One encoder by names without prefix, floats as float32.

        Args:
            part: "ecg" or "cmr".

        Raises:
            InputError: the file has none, or not of plain finite numbers.
        """
        prefix = f"{part}."
        tensors = {
            k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)
        }
        if not tensors:
            parts = sorted({k.split(".")[0] for k in self.tensors}) or ["nothing"]
            raise InputError(f"{self.path} has no '{part}' encoder; it holds {', '.join(parts)}")
        return {name: self._plain(name, tensor) for name, tensor in tensors.items()}

    def _plain(self, name: str, tensor: Tensor) -> np.ndarray:
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex():
            raise InputError(
                f"{self.path}: '{name}' is no plain tensor; save the weights anew as float32"
            )
        array = (tensor.float() if tensor.is_floating_point() else tensor).detach().numpy()
        if not np.isfinite(array).all():
            raise InputError(
                f"{self.path}: '{name}' holds values that are no numbers; a diverged training left "
                "them"
            )
        return array


def read(path: Path, part: str) -> dict[str, np.ndarray]:
    """The encoder `part` of a file, whichever layout the file has; see `open_file` and
    `File.encoder`.
    """
    return open_file(path).encoder(part)


def open_file(path: Path) -> File:
    """Open a weight file.

    Args:
        path: `.safetensors`, of ours or of bare names; any other ending is a PyTorch file of
            tensors: {"model": …}, {"state_dict": …} or the tensors themselves.

    Raises:
        InputError: unreadable, not of tensors alone, or absurdly large.
    """
    tensors, notes = _safetensors(path) if path.suffix == ".safetensors" else (_pytorch(path), {})
    if sum(tensor.numel() for tensor in tensors.values()) > LIMIT:
        raise InputError(f"{path} holds more than {LIMIT:,} numbers; that is no encoder")
    if any(name.split(".")[0] in SIGNALS for name in tensors):
        return File(path, "ecgcmr", tensors, notes)
    bare = any(name.split(".")[0] in _STAGES for name in tensors)
    by_our_names = {_inside(name): tensor for name, tensor in tensors.items()}
    return File(path, "torchvision" if bare else "authors", by_our_names, notes)


def _safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{path} is not a readable safetensors file ({error}); make it again"
        ) from error


def _pytorch(path: Path) -> dict[str, Tensor]:
    try:
        is_compressed = _is_compressed(path)
        record: Any = (
            {} if is_compressed else torch.load(path, map_location="cpu", weights_only=True)
        )
    except Exception as error:  # torch raises half a dozen kinds for a damaged file
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{path} is not a file of plain tensors ({reason}); save it anew as "
            'torch.save({"model": state_dict}, file)'
        ) from error
    if is_compressed:
        raise InputError(
            f"{path} is a compressed archive, which torch.save does not write; save it anew"
        )
    content = record if isinstance(record, dict) else {}
    tensors = next(
        (content[k] for k in ("model", "state_dict") if isinstance(content.get(k), dict)), content
    )
    return {str(name): tensor for name, tensor in tensors.items() if isinstance(tensor, Tensor)}


def _is_compressed(path: Path) -> bool:
    """Whether an archive grows when it is opened: PyTorch stores tensors as they are, so this one
    would be a bomb.
    """
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return sum(member.file_size for member in archive.infolist()) > 2 * path.stat().st_size


def _inside(name: str) -> str:
    """Our name of another's: `cmr.layer1.0.bn1.bias` of `encoder_imaging.4.0.bn1.bias` and of
    `layer1.0.bn1.bias`.
    """
    first, _, rest = name.partition(".")
    if first == "encoder_imaging":
        number, _, rest = rest.partition(".")
        return f"cmr.{_NAMES.get(number, number)}.{rest}"
    if first in _STAGES or first == "fc":
        return f"cmr.{name}"
    return "ecg." + name.removeprefix("encoder_ecg.")


def write(
    path: Path,
    encoders: Mapping[str, Mapping[str, np.ndarray]],
    notes: Mapping[str, str] | None = None,
) -> None:
    """Write encoders to a safetensors file, whole or not at all.

    Args:
        path: of the file.
        encoders: {"ecg" or "cmr": {name: array}}.
        notes: the file's metadata.
    """
    flat = {
        f"{part}.{k}": np.asarray(v, order="C")
        for part, encoder in encoders.items()
        for k, v in encoder.items()
    }
    write_whole(
        path, lambda aside: save_file(dict(sorted(flat.items())), aside, dict(notes or {}) or None)
    )


def publish(path: Path, part: str, encoder: Mapping[str, np.ndarray]) -> None:
    """Write one encoder in the published layout: tensors only, so that it opens anywhere with
    `weights_only=True`.

    Args:
        path: of the `.pth` file.
        part: "ecg" for {"model": …}, "cmr" for {"state_dict": {"encoder_imaging.…": …}}.
        encoder: by our names. An ECG encoder whose method pools before the norm has none; a neutral
            one is added, which makes up the 42 published names.
    """
    tensors = {k: torch.from_numpy(np.asarray(v, order="C").copy()) for k, v in encoder.items()}
    record: dict[str, Any]
    if part == "cmr":
        record = {"state_dict": {_outside(k): v for k, v in tensors.items()}}
    else:
        width = tensors["cls_token"].shape[-1]
        record = {
            "model": {**tensors, **{k: v for k, v in _neutral(width).items() if k not in tensors}}
        }
    write_whole(path, lambda aside: torch.save(record, aside))


def _outside(name: str) -> str:
    first, _, rest = name.partition(".")
    return f"encoder_imaging.{_STAGES[first]}.{rest}"


def _neutral(width: int) -> dict[str, torch.Tensor]:
    return {"norm.weight": torch.ones(width), "norm.bias": torch.zeros(width)}
