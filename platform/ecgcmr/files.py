"""Files are written whole or not at all, and folders that nothing was written to go again."""

import contextlib
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write` with a path aside and rename it to `path`: readers see all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(aside)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write canonical, readable JSON, whole or not at all."""
    write_whole(
        path, lambda aside: aside.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")
    )


def absent(folder: Path) -> list[Path]:
    """The folder and those above it, innermost first, as far as they are not there yet."""
    return [path for path in (folder, *folder.parents) if not path.exists()]


def vacate(folders: Iterable[Path]) -> None:
    """Remove empty folders, given innermost first, up to the first that is not empty."""
    with contextlib.suppress(OSError):
        for path in folders:
            path.rmdir()
