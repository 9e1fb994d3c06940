"""Files are written whole or not at all, and folders that nothing was written to go again."""

import contextlib
import errno
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


def write_whole(path: Path, write: Callable[[Path], object], *, durable: bool = True) -> None:
    """Call `write` with a path aside and rename it to `path`: readers see all of it or nothing.

    A loss of power leaves the old file or the new one, unless it need not be `durable`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(aside)
        if durable:
            flush(aside)
        os.replace(aside, path)
        if durable:
            flush(path.parent)
    finally:
        aside.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Wait until what is written to a file, or the names in a folder, is on the disk.

    A disk that is full may say so only here. Some file systems cannot do it for folders.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def flush_all(folder: Path) -> None:
    """`flush` every file and folder below a folder, and the folder."""
    for path in folder.rglob("*"):
        flush(path)
    flush(folder)


def write_json(path: Path, value: Any, *, durable: bool = True) -> None:
    """Write canonical, readable JSON, whole or not at all; see `write_whole`."""
    text = json.dumps(value, indent=1, sort_keys=True) + "\n"
    write_whole(path, lambda aside: aside.write_text(text), durable=durable)


def absent(folder: Path) -> list[Path]:
    """The folder and those above it, innermost first, as far as they are not there yet."""
    return [path for path in (folder, *folder.parents) if not path.exists()]


def vacate(folders: Iterable[Path]) -> None:
    """Remove empty folders, given innermost first, up to the first that is not empty."""
    with contextlib.suppress(OSError):
        for path in folders:
            path.rmdir()
