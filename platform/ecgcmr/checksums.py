"""Checksums of a folder's files: written with them, and asked when one is first read.

The one idea: what is read is what was written, to the bit, or the reader hears which file is not.
They lie beside the files as `sha256sum` writes them, so that anybody can look without this package:
`sha256sum --check SHA256SUMS`.
"""

import hashlib
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from ecgcmr.errors import InputError

SUMS = "SHA256SUMS"
LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")


class Damaged(InputError):
    """A file is not there, or not as it was written."""


def sha256(path: Path) -> str:
    """The file's SHA-256, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write(folder: Path) -> None:
    """Write the checksums of all files of a folder, those of before aside."""
    files = (path.name for path in folder.iterdir() if path.is_file())
    names = sorted(name for name in files if name != SUMS)
    lines = [f"{sha256(folder / name)}  {name}\n" for name in names]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def names(folder: Path) -> frozenset[str]:
    """The files that a folder was written with.

    Raises:
        InputError: its checksums are not there, or cannot be read.
    """
    return frozenset(_sums(folder))


def verified(folder: Path, name: str) -> Path:
    """The path of a file, which is as it was written; a process reads it once to know.

    Raises:
        Damaged: it is not there, though it was, or is not what was written.
        InputError: the checksums are not there, or do not know the file.
    """
    path, sums = folder / name, _sums(folder)
    if name not in sums:
        raise InputError(f"{path}: was never written; {SUMS} does not list it")
    if fact := _fault(path, sums[name]):
        raise Damaged(f"{path}: {fact}")
    return path


def faults(folder: Path) -> Iterator[str]:
    """What is wrong with the files of a folder, a line each; none where all are as written.

    Raises:
        InputError: its checksums are not there, or cannot be read.
    """
    for name, digest in _sums(folder).items():
        if fact := _fault(folder / name, digest):
            yield f"{folder / name}: {fact}"


def _fault(path: Path, digest: str) -> str:
    try:
        state = path.stat()
    except FileNotFoundError:
        return "is gone"
    if _digest(path, state.st_mtime_ns, state.st_size, state.st_ino) != digest:
        return f"is damaged: not what was written ({SUMS})"
    return ""


def _sums(folder: Path) -> dict[str, str]:
    path = folder / SUMS
    try:
        state = path.stat()
    except FileNotFoundError:
        raise InputError(
            f"{path}: is gone, or the folder was written before there were checksums; if you trust "
            f"the folder's files, write it (sha256sum *.* > {SUMS}), else delete the folder"
        ) from None
    return _listed(path, state.st_mtime_ns, state.st_size, state.st_ino)


# A file that was written anew has another time, size or number, and is read again.
@lru_cache(maxsize=1 << 16)
def _digest(path: Path, time_ns: int, size: int, number: int) -> str:
    return sha256(path)


@lru_cache(maxsize=1 << 14)
def _listed(path: Path, time_ns: int, size: int, number: int) -> dict[str, str]:
    lines = path.read_bytes().decode("utf-8", "replace").splitlines()
    matches = [LINE.fullmatch(line) for line in lines]
    if not lines or not all(matches):
        raise Damaged(f"{path}: is damaged: not as sha256sum writes it")
    return {match[2]: match[1] for match in matches if match}
