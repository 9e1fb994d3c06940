"""The rows of a run kept in memory after their first reading: from the second epoch on, nothing is
read from disk.

The one idea: a batch is a function of (order, step), so memory needs to know rows, not batches.
Rows are kept as they stream by and gathered by the same `sampler`; a row that is wanted and not yet
there (an epoch drops a few rows, a rank sees its share, a resumed run the rest of an epoch) is read
plainly, once, when its batch comes. Every rank keeps whatever rows it meets, which are soon all of
them: epochs deal rows to ranks anew. This file knows neither Ray nor threads.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ecgcmr.cohort import shards
from ecgcmr.data import sampler
from ecgcmr.data.sampler import Order
from ecgcmr.errors import InputError, unknown
from ecgcmr.runtime import hardware

WORDS = ("auto", "device", "host", "off")
# Of what is free when a run starts, at most so much is taken unasked: on a GPU the activations are
# still to come, on a host the object store, the page cache of the shards and whatever else runs
# there.
SHARES = {"device": 0.5, "host": 0.5}


def check(word: str) -> None:
    """Refuse a word that names no place.

    Raises:
        InputError: it is none of WORDS.
    """
    if word not in WORDS:
        raise unknown("cache", word, WORDS)


def choose(word: str, row_bytes: int, host: int, device: int | None = None) -> str:
    """Where rows are kept: "device", "host" or "off".

    Args:
        word: one of WORDS. "auto" takes the device if the rows fit into its share of SHARES, else
            the host, else none.
        row_bytes: bytes of all rows.
        host: bytes of memory that this reader may take.
        device: bytes free on its accelerator; None on a CPU, whose memory is the host's.

    Raises:
        InputError: a place is asked for that is too small, or the word is unknown.
    """
    check(word)
    free = {"host": host} if device is None else {"device": device, "host": host}
    if word == "auto":
        return next((place for place in free if row_bytes <= SHARES[place] * free[place]), "off")
    if word == "off":
        return word
    place = word if word in free else "host"
    if row_bytes > free[place]:
        raise InputError(
            f"cache='{word}': the rows take {row_bytes / 1e9:.1f} GB and the {place} has "
            f"{free[place] / 1e9:.1f} GB free for them; use cache auto or off"
        )
    return place


def place(word: str, order: Order, epochs: int, start_step: int, device: torch.device) -> str:
    """`choose` for a run on this machine; "off" if it ends within the epoch in which it starts, and
    would gain nothing.

    The host's memory is divided by the number of ranks, as if all were on one machine.

    Raises:
        InputError: see `choose`.
    """
    check(word)
    if word == "off" or start_step // order.steps >= epochs - 1:
        return "off"
    return choose(
        word, size(order), hardware.host_memory() // order.world, hardware.device_memory(device)
    )


def size(order: Order) -> int:
    """Bytes of all rows of an order."""
    return len(order.row) * sum(shards.SIGNALS[name].width for name in order.columns)


@dataclass(frozen=True, eq=False)
class RowCache:
    """All rows of an order, as far as they have been met.

    Attributes:
        order: of the rows.
        values: (rows, *shape) each as stored; untouched pages of it take no memory yet.
        here: (rows,) which of them are there.
    """

    order: Order
    values: Mapping[str, Tensor]
    here: np.ndarray

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return next(iter(self.values.values())).device

    def keep(self, rows: np.ndarray, batch: Mapping[str, Tensor]) -> None:
        """Copy rows in.

        Args:
            rows: (n,) positions in the order.
            batch: (n, *shape) each, on `device`.
        """
        for name, values in self.values.items():
            if values.is_cuda:
                values.index_copy_(0, torch.from_numpy(rows).to(values.device), batch[name])
            else:  # not PyTorch: it would start threads of its own beside those that train
                values.numpy()[rows] = batch[name].numpy()
        self.here[rows] = True

    def gather(self, rows: np.ndarray, pin: bool = False) -> dict[str, Tensor]:
        """A copy of rows, (n, *shape) each, on `device`; those not yet there are read first.

        Args:
            rows: (n,) positions in the order.
            pin: whether into host memory that a GPU copies from by itself.

        Raises:
            InputError: a shard is damaged.
        """
        missing = rows[~self.here[rows]]
        if len(missing):
            arrays = sampler.load(self.order, missing)
            self.keep(
                missing, {name: torch.from_numpy(x).to(self.device) for name, x in arrays.items()}
            )
        return {name: _gathered(values, rows, pin) for name, values in self.values.items()}


def empty(order: Order, device: torch.device) -> RowCache:
    """Room for all rows of an order, on a device."""
    forms = {name: shards.SIGNALS[name] for name in order.columns}
    values = {
        name: torch.empty(
            (len(order.row), *form.shape), dtype=getattr(torch, form.dtype), device=device
        )
        for name, form in forms.items()
    }
    return RowCache(order, values, np.zeros(len(order.row), dtype=bool))


def _gathered(values: Tensor, rows: np.ndarray, pin: bool) -> Tensor:
    if values.is_cuda:
        return values.index_select(0, torch.from_numpy(rows).to(values.device))
    out = torch.empty((len(rows), *values.shape[1:]), dtype=values.dtype, pin_memory=pin)
    np.take(
        values.numpy(), rows, axis=0, out=out.numpy(), mode="clip"
    )  # "raise" would gather into a copy first
    return out
