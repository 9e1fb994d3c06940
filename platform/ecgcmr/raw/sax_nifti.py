"""Short-axis cine stacks as 4-D NIfTI (X, Y, Z, T), as ukbb_cardiac and most converters write them.

The array is turned back to the scanner's view (rows = Y, columns = X) and the slices are ordered from base to apex by the
affine. Only geometry and timing are read from the header.
"""

import re
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from ecgcmr.errors import Excluded, InputError
from ecgcmr.raw.records import CmrRecord

VOXEL_LIMIT = 1 << 29  # 2 GiB as float32; a stack of UK Biobank has 20 million
# The apex points to the left, to the front and down: NIfTI's axes run right → left −, back → front +, feet → head +.
APEX_RAS = np.array([-1.0, 1.0, -1.0])
_TO_MS = {"sec": 1e3, "msec": 1.0, "usec": 1e-3}


def find(path: str) -> list[str]:
    """List the stacks under a folder, or the one file named.

    A folder in ukbb_cardiac's layout (`<person>/sa.nii.gz` beside long axes and segmentations) yields its `sa` files only.

    Raises:
        InputError: the path does not exist or holds no NIfTI file.
    """
    root = Path(path)
    if root.is_file():
        return [str(root)]
    files = sorted(str(file) for file in root.rglob("*") if file.name.endswith((".nii", ".nii.gz")))
    files = [file for file in files if _stem(file) == "sa"] or files
    if not files:
        raise InputError(f"{path}: no NIfTI file (*.nii, *.nii.gz) here; name a stack or the folder that holds them")
    return files


def suits(file: Path, head: bytes) -> bool:
    """Whether a file is named as NIfTI."""
    return file.name.lower().endswith((".nii", ".nii.gz"))


def read(source: str) -> CmrRecord:
    """Read one stack.

    Raises:
        Excluded: it is unreadable, has no time axis, or is absurdly large.
    """
    try:
        image: Any = nibabel.load(source)  # nibabel types only the base of its formats
        shape, zooms, affine = image.shape, image.header.get_zooms(), image.affine
        _refuse(shape)
        frames = np.asarray(image.dataobj, dtype=np.float32).transpose(2, 3, 1, 0)
        unit = image.header.get_xyzt_units()[1]
    except Excluded:
        raise
    except Exception as error:  # nibabel lets gzip, zlib, struct and its own errors through
        raise Excluded("unreadable NIfTI") from error
    step = float(zooms[3]) * _TO_MS.get(unit, 0.0)
    frames, repairs = _base_first(frames, affine)
    return CmrRecord(
        key=_key(source),
        frames=np.ascontiguousarray(frames),
        spacing_mm=(float(zooms[2]), float(zooms[1]), float(zooms[0])),
        trigger_ms=np.arange(shape[3]) * step if step > 0 else None,
        repairs=repairs,
    )


def _refuse(shape: tuple[int, ...]) -> None:
    if len(shape) != 4 or shape[3] < 2:
        raise Excluded("not a cine: no time axis")
    if np.prod(shape, dtype=np.int64) > VOXEL_LIMIT:
        raise Excluded("too large for a cine stack")


def _base_first(frames: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    if affine[:3, 2] @ APEX_RAS >= 0:
        return frames, ()
    return frames[::-1], ("slices reversed to run from base to apex",)


def _key(source: str) -> str:
    """The file's stem, or the folder's name for a file that is called `sa` in every folder."""
    return Path(source).parent.name if _stem(source) == "sa" else _stem(source)


def _stem(file: str) -> str:
    return re.sub(r"\.nii(\.gz)?$", "", Path(file).name)
