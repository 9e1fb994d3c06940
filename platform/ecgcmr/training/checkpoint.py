"""A file from which a run goes on: written whole or not at all,
and only read by the run that wrote it.

It does not know what is in it, beside the recipe that says whose it is.
"""

from pathlib import Path
from typing import Any

import torch

from ecgcmr import files
from ecgcmr.cohort import shards
from ecgcmr.errors import InputError, differing

EVERY_S = 60.0  # between two checkpoints, at most
# Of the time that checkpoints after a validation may cost; each is written only if it costs less.
SAVE_SHARE = 0.05


def write(path: Path, recipe: dict[str, Any], parts: dict[str, Any]) -> None:
    """Write `parts`, plain values and tensors by name.

    Raises:
        InputError: the disk is full.
    """

    def whole(aside: Path) -> None:
        with aside.open("wb") as file:
            torch.save({"recipe": recipe, **parts}, file)

    try:
        files.write_whole(path, whole)
    except (OSError, RuntimeError) as error:  # torch raises its own error over the system's
        cause = error if isinstance(error, OSError) else error.__context__
        raise shards.disk_full(cause, path) if isinstance(cause, OSError) else error from cause


def read(path: Path, recipe: dict[str, Any]) -> dict[str, Any] | None:
    """What was written, on the CPU and not read before it is used; None if there is nothing.

    Raises:
        InputError: it is of another recipe (names the fields that differ), or cannot be read.
    """
    if not path.exists():
        return None
    try:
        record = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        old = record["recipe"]
    except Exception as error:  # torch raises half a dozen kinds for a damaged file
        raise InputError(
            f"{path} cannot be read ({type(error).__name__}); delete it to begin anew"
        ) from error
    if differ := differing(old, recipe):
        raise InputError(
            f"{path} is of another recipe: {differ}; use another --runs or delete the file"
        )
    return record
