"""ECGs as plain arrays: NumPy (.npy, .npz) and PyTorch (.pt), stacked (N, 12, 5000), a list of (12,
5000), or one of them.

One idea: an array says nothing of itself, so only what leaves no doubt is read: twelve leads in
standard order, 10 s at 500 Hz (5000 samples), millivolts. The authors' own files have this form,
but those named `…_noBase_gn` are normalised by lead group. Their millivolts are lost, and with them
what a height means and every check of it, so here they are refused; `normalised` takes them. Files
are read without running code from them.

Source: issue 1 of oetu/MMCL-ECG-CMR: a tensor of (28030, 12, 5000).
"""

import pickle
import zipfile
from collections.abc import Sequence
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import IO

import numpy as np
import torch
from numpy.lib import format as npy

from ecgcmr.errors import Excluded, InputError
from ecgcmr.raw.records import EcgRecord, key, row
from ecgcmr.signals import SIGNALS, ecg

ENDINGS = (".npy", ".npz", ".pt")
UNPACKED_LIMIT = 2 << 30  # bytes of an array that cannot be mapped from the disk
FORM = SIGNALS["ecg"].shape
GROUP = "lead group"
OTHER = "no array of 12 leads and 5000 samples"

# One recording each along the first axis.
Recordings = Sequence[torch.Tensor] | torch.Tensor | np.ndarray


def find(path: str) -> list[str]:
    """List the recordings of the files under a folder, or of the one named: `file#row`, or the file
    where it holds one.

    Arrays of another form in a folder, such as images and labels beside the ECGs, are passed over.

    Raises:
        InputError: there is none.
    """
    root = Path(path)
    files = (
        [root]
        if root.is_file()
        else sorted(f for f in root.rglob("*") if f.suffix.lower() in ENDINGS)
    )
    sources = [source for file in files for source in _sources(file, alone=root.is_file())]
    if not sources:
        raise InputError(
            f"{path}: no array of ECGs (*.npy, *.npz or *.pt of (N, 12, 5000)) here; name one"
        )
    return sources


def _sources(file: Path, *, alone: bool) -> list[str]:
    try:
        recordings = _open(file)
    except Excluded as error:
        return [str(file)] if alone or str(error) != OTHER else []
    if len(recordings) == 1:
        return [str(file)]
    return [f"{file}#{number}" for number in range(len(recordings))]


def suits(file: Path, head: bytes) -> bool:
    """Whether it is an array file; a `.npy` only where its header has the form of ECGs."""
    ending = file.suffix.lower()
    if ending != ".npy":
        return ending in ENDINGS and head.startswith(b"PK")
    try:
        return _ecgs(_npy_form(BytesIO(head))[0])
    except Exception:  # numpy's header is Python: TokenError, RecursionError and others
        return False


def read(source: str) -> EcgRecord:
    """Read one recording.

    Args:
        source: a file, or `file#row`.

    Raises:
        Excluded: damaged, pickled, of another form, or normalised.
    """
    signal = array(source)
    norm = normalised(signal)
    if norm:
        reason = f"normalised by {norm}, the millivolts are lost"
        raise Excluded(f"{reason}; the format 'normalised' takes it" if norm == GROUP else reason)
    return EcgRecord(
        key=key(source),
        signal=signal,
        rate_hz=float(ecg.RATE_HZ),
        leads=ecg.LEADS,
        age=None,
        sex=None,
        height=None,
        weight=None,
        labels={},
        repairs=(),
    )


def array(source: str) -> np.ndarray:
    """The numbers of one recording, (12, 5000) float32, in whatever unit they are.

    Raises:
        Excluded: damaged, pickled, or of another form.
    """
    file, number = row(source)
    recordings = _open(file)
    if number >= len(recordings):
        raise Excluded("no such row")
    recording = recordings[number]
    if isinstance(recording, torch.Tensor):
        recording = recording.detach().float().numpy()
    return np.array(recording, dtype=np.float32)


def normalised(signal: np.ndarray) -> str:
    """How a recording was normalised: by "lead" or "lead group" to mean 0 and variance 1, by
    "range" to 0 … 1; "" if not.

    Of the 223 CinC recordings none is taken for normalised, and all are once they are normalised
    and stored as float16; without this one of them would pass for millivolts.
    """
    values = np.nan_to_num(signal.astype(np.float64))
    lead_groups = np.split(values, np.cumsum(ecg.GROUPS)[:-1])
    for norm, groups in (("lead", values), (GROUP, lead_groups)):
        if all(abs(group.mean()) < 2e-3 and abs(group.var() - 1) < 2e-2 for group in groups):
            return norm
    return "range" if values.min() == 0 and values.max() == 1 else ""


def _ecgs(shape: Sequence[int]) -> bool:
    return tuple(shape[-2:]) == FORM and len(shape) in (2, 3) and 0 not in shape


def _open(file: Path) -> Recordings:
    """The recordings of a file; arrays of several are mapped or kept, so that a row costs no more
    than itself.

    Raises:
        Excluded: it cannot be read, or holds something else.
    """
    try:
        state = file.stat()
        return _opened(str(file), state.st_size, state.st_mtime_ns)
    except Excluded:
        raise
    except Exception as error:  # numpy, zipfile and torch raise what their parsing meets
        raise Excluded("unreadable array file") from error


@lru_cache(maxsize=1)  # rows are read file by file
def _opened(path: str, size: int, modified_ns: int) -> Recordings:
    opener = {".npz": _npz, ".pt": _pt}.get(Path(path).suffix.lower(), _npy)
    recordings = opener(path)
    if isinstance(recordings, list):
        return recordings
    floats = (
        recordings.is_floating_point()
        if isinstance(recordings, torch.Tensor)
        else recordings.dtype.kind == "f"
    )
    if not _ecgs(recordings.shape) or not floats:
        raise Excluded(OTHER)
    return recordings if recordings.ndim == 3 else recordings[None]


def _npy(path: str) -> np.ndarray:
    memmap = np.load(path, mmap_mode="r", allow_pickle=False)
    # What was inserted would shift all that follows.
    if memmap.offset + memmap.nbytes != Path(path).stat().st_size:
        raise Excluded("unreadable array file")
    return memmap


def _npy_form(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of a `.npy` file from its header."""
    version = npy.read_magic(file)
    reader = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = reader(file)
    return shape, dtype


def _npz(path: str) -> np.ndarray:
    """The one array of an archive that has the form of ECGs."""
    with zipfile.ZipFile(path) as archive:
        names = []
        for member in archive.infolist():
            with archive.open(member) as file:
                shape, dtype = _npy_form(file)
            claimed_bytes = np.prod(shape, dtype=np.float64) * dtype.itemsize
            if _ecgs(shape) and dtype.kind == "f":
                if claimed_bytes > min(
                    UNPACKED_LIMIT, member.file_size
                ):  # a header can state any shape
                    raise Excluded("file too large")
                names.append(member.filename)
    if len(names) != 1:
        raise Excluded("several arrays of ECGs in one file" if names else OTHER)
    with np.load(path, allow_pickle=False) as arrays:
        return arrays[names[0].removesuffix(".npy")]


def _pt(path: str) -> list[torch.Tensor] | torch.Tensor:
    """A tensor or a list of tensors, mapped from the disk.

    PyTorch stores its parts as they are: a packed one could expand without end, a tensor larger
    than the file is a view that repeats or reaches beyond its part.
    """
    with zipfile.ZipFile(path) as archive:
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise Excluded("unreadable array file")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise Excluded("not plain tensors") from error
    tensors = list(content) if isinstance(content, (list, tuple)) else [content]
    plain = [isinstance(t, torch.Tensor) and t.layout == torch.strided for t in tensors]
    if not all(plain) or not tensors:
        raise Excluded(OTHER)
    size = Path(path).stat().st_size
    if any(max(t.numel() * t.element_size(), t.untyped_storage().nbytes()) > size for t in tensors):
        raise Excluded("unreadable array file")
    if not isinstance(content, (list, tuple)):
        return content
    if not all(tuple(t.shape) == FORM and t.is_floating_point() for t in tensors):
        raise Excluded(OTHER)
    return tensors
