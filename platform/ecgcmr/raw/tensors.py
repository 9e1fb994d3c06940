"""ECGs as plain arrays: NumPy (.npy, .npz) and PyTorch (.pt), one recording or several along the
first axis, leads by samples or samples by leads.

One idea: an array says nothing of itself. What lies beside it says its unit, rate and leads
(scalars of the same `.npz` or `.pt`, a JSON file of its name), or its user declares them
(`plain_array`, `statements`). The authors' own files have this form, but those named `…_noBase_gn`
are normalised by lead group: their millivolts are lost, and with them what a height means and every
check of it, so here they are refused; `normalised` takes them. Files are read without running code
from them.

Source: issue 1 of oetu/MMCL-ECG-CMR: a tensor of (28030, 12, 5000).
"""

import pickle
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeGuard

import numpy as np
from numpy.lib import format as npy

from ecgcmr.errors import Excluded, InputError
from ecgcmr.raw import plain_array, statements
from ecgcmr.raw.records import EcgRecord, key, row
from ecgcmr.raw.statements import UNDECLARED, Declaration, Statement

if TYPE_CHECKING:
    from torch import Tensor

ENDINGS = (".npy", ".npz", ".pt")
UNPACKED_LIMIT = 2 << 30  # bytes of an array that cannot be mapped from the disk
WORDS_LIMIT = 1 << 22  # bytes of an array of numbers or words that states something
OTHER = plain_array.FORM


@dataclass(frozen=True)
class Content:
    """What an array file holds.

    Attributes:
        recordings: one each along the first axis.
        words: what the file says of them, by name, for `statements.statement`.
    """

    recordings: "Sequence[Tensor] | Tensor | np.ndarray"
    words: Mapping[str, object] = field(default_factory=dict)


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
            f"{path}: no array of ECGs (*.npy, *.npz or *.pt of leads by samples) here; name one"
        )
    return sources


def _sources(file: Path, *, alone: bool) -> list[str]:
    try:
        recordings = _open(file).recordings
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
        return plain_array.is_form(_npy_form(BytesIO(head))[0])
    except Exception:  # numpy's header is Python: TokenError, RecursionError and others
        return False


def read(source: str, declaration: Declaration = UNDECLARED) -> EcgRecord:
    """Read one recording.

    Args:
        source: a file, or `file#row`.
        declaration: what its user says of it.

    Raises:
        Excluded: damaged, pickled, of another form, normalised, or unit or rate are not known.
    """
    values, statement = array(source)
    return plain_array.record(key(source), values, statement, declaration)


def array(source: str) -> tuple[np.ndarray, Statement]:
    """The numbers of one recording, two axes of any dtype, and what is stated of them.

    Raises:
        Excluded: damaged, pickled, of another form, or two statements contradict each other.
    """
    file, number = row(source)
    content = _open(file)
    rows = len(content.recordings)
    if number >= rows:
        raise Excluded("no such row")
    values = content.recordings[number]
    if not isinstance(values, np.ndarray):
        is_short = "bfloat16" in str(values.dtype)  # which NumPy does not know
        values = (values.detach().float() if is_short else values.detach()).numpy()
    items = [*content.words.items(), *statements.beside(file)]
    return np.array(values), statements.statement(items, number, rows)


def _open(file: Path) -> Content:
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
def _opened(path: str, size: int, modified_ns: int) -> Content:
    opener = {".npz": _npz, ".pt": _pt}.get(Path(path).suffix.lower(), _npy)
    content = opener(path)
    recordings = content.recordings
    if isinstance(recordings, np.ndarray):
        _check(recordings.shape, recordings.dtype)
        recordings = recordings if recordings.ndim == 3 else recordings[None]
    return Content(recordings, content.words)


def _check(shape: Sequence[int], dtype: np.dtype) -> None:
    if not plain_array.is_form(shape):
        raise Excluded(OTHER)
    plain_array.check_numbers(dtype)


def _npy(path: str) -> Content:
    memmap = np.load(path, mmap_mode="r", allow_pickle=False)
    # What was inserted would shift all that follows.
    if memmap.offset + memmap.nbytes != Path(path).stat().st_size:
        raise Excluded("unreadable array file")
    return Content(memmap)


def _npy_form(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of a `.npy` file from its header."""
    version = npy.read_magic(file)
    reader = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = reader(file)
    return shape, dtype


def _npz(path: str) -> Content:
    """The one array of an archive that has the form of ECGs, and what the others say of it."""
    names: list[str] = []
    words: list[str] = []
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            with archive.open(member) as file:
                shape, dtype = _npy_form(file)
            # a header can state any shape
            n_bytes = np.prod(shape, dtype=np.float64) * dtype.itemsize
            is_true = n_bytes <= min(UNPACKED_LIMIT, member.file_size)
            name = member.filename.removesuffix(".npy")
            if statements.says(name) and is_true and n_bytes <= WORDS_LIMIT and not dtype.hasobject:
                words.append(name)
            elif plain_array.is_form(shape):
                if not is_true:
                    raise Excluded("file too large")
                names.append(name)
    if len(names) != 1:
        raise Excluded("several arrays of ECGs in one file" if names else OTHER)
    with np.load(path, allow_pickle=False) as arrays:
        return Content(arrays[names[0]], {name: arrays[name] for name in words})


def _pt(path: str) -> Content:
    """A tensor, a list of tensors, or the one of a dictionary that has the form of ECGs, mapped
    from the disk.

    PyTorch stores its parts as they are: a packed one could expand without end, a tensor larger
    than the file is a view that repeats or reaches beyond its part. It writes their checksums and
    does not look at them, so a part may begin elsewhere, and all leads slip by as much.
    """
    with zipfile.ZipFile(path) as archive:
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise Excluded("unreadable array file")
        if archive.testzip():
            raise Excluded("array file differs from its checksums")
    import torch  # not above: every worker of a build would wait for it

    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise Excluded("not plain tensors") from error
    words: dict[str, object] = {}
    if isinstance(content, Mapping):
        words = {str(n): _word(v) for n, v in content.items() if statements.says(str(n))}
        content = _one_of(
            [value for name, value in content.items() if not statements.says(str(name))]
        )
    tensors = list(content) if isinstance(content, (list, tuple)) else [content]
    plain = [_is_tensor(t) and t.layout == torch.strided for t in tensors]
    if not all(plain) or not tensors:
        raise Excluded(OTHER)
    size = Path(path).stat().st_size
    if any(max(t.numel() * t.element_size(), t.untyped_storage().nbytes()) > size for t in tensors):
        raise Excluded("unreadable array file")
    if not isinstance(content, (list, tuple)):
        is_real = not content.is_complex() and content.dtype != torch.bool
        _check(content.shape, np.dtype("f4" if is_real else "c8"))
        return Content(content if content.ndim == 3 else content[None], words)
    if not all(t.ndim == 2 and plain_array.is_form(t.shape) for t in tensors):
        raise Excluded(OTHER)
    return Content(tensors, words)


def _one_of(values: Sequence[object]) -> object:
    """The one value of a dictionary that may be ECGs.

    Raises:
        Excluded: there is none, or several.
    """
    arrays = [
        value
        for value in values
        if isinstance(value, (list, tuple))
        or (_is_tensor(value) and plain_array.is_form(value.shape))
    ]
    if len(arrays) != 1:
        raise Excluded("several arrays of ECGs in one file" if arrays else OTHER)
    return arrays[0]


def _word(value: object) -> object:
    """A tensor that states something, as an array."""
    is_plain = _is_tensor(value) and value.numel() * 8 <= WORDS_LIMIT
    return value.detach().cpu().numpy() if is_plain and _is_tensor(value) else value


def _is_tensor(value: object) -> "TypeGuard[Tensor]":
    import torch

    return isinstance(value, torch.Tensor)
