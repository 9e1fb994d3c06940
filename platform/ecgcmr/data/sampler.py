"""Every order of rows, a pure function of (seed, epoch): streamed, on the device, validated.

The one idea of the stream: row groups of the whole cohort are permuted, about eight of them are
mixed, and the mix is dealt into global batches. Inside a batch the rows are then sorted by row
group: that changes no loss, but the r-th of `world` parts of every batch touches only its share of
the row groups, so ranks divide the reading instead of each reading everything; what does not fill a
batch waits for another epoch. Fine-tuning has few rows, all on the device: it permutes them and
leaves none out. No Ray and no PyTorch here: the tasks of Ray Data import this file.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from ecgcmr import plugins
from ecgcmr.cohort import shards
from ecgcmr.errors import InputError

MIX = 512  # rows mixed together: eight row groups, 129 MB of ECG and CMR; a block of Ray Data
# Pieces that one task reads, one after another: Ray Data takes milliseconds to lay out a task, and
# a run of 400 epochs has 20,000 pieces.
RUN = 8


@dataclass(frozen=True)
class Order:
    """The rows of a split and how they are dealt out; two are equal if their words and numbers are.

    Attributes:
        path: the cohort's folder.
        fingerprint: the cohort's.
        split: "train", "val" or "test".
        columns: the signals read; a row serves if it has all of them.
        batch: rows of a global batch, over all ranks.
        seed: of the order; None keeps the order of the shards.
        rank, world: this reader among all.
        shards: paths below `path`.
        shard, row: (rows,) where each row lies.
    """

    path: str
    fingerprint: str
    split: str
    columns: tuple[str, ...]
    batch: int
    seed: int | None
    rank: int
    world: int
    shards: tuple[str, ...] = field(compare=False)
    shard: np.ndarray = field(compare=False)
    row: np.ndarray = field(compare=False)

    @property
    def steps(self) -> int:
        """Global batches in an epoch; what is left over is dropped, other rows in every epoch."""
        return streamed_steps(len(self.row), self.batch)

    @property
    def local(self) -> int:
        """Rows of this rank in a global batch."""
        return self.batch // self.world

    @property
    def mixed(self) -> int:
        """Global batches dealt from one mix."""
        return max(1, MIX // self.batch)

    @property
    def cuts(self) -> int:
        """Pieces into which this rank's rows of one mix are cut, so that a piece has at most `MIX`
        rows.
        """
        return -(-self.mixed * self.local // MIX)

    @property
    def piece_bytes(self) -> int:
        """Of a whole piece."""
        return (
            self.mixed
            * self.local
            * sum(shards.SIGNALS[name].width for name in self.columns)
            // self.cuts
        )

    @property
    def pieces(self) -> int:
        """Pieces in an epoch."""
        return -(-self.steps // self.mixed) * self.cuts


def streamed_steps(rows: int, batch: int) -> int:
    """Steps of a streamed epoch: whole batches only."""
    return rows // batch


def permuted_steps(rows: int, batch: int) -> int:
    """Steps of an epoch of `permuted` rows; none is left out, and a batch of 0 is all."""
    return -(-rows // min(batch or rows, rows))


def permuted(seed: int, epoch: int, rows: int, batch: int) -> np.ndarray:
    """Rows of an epoch as (steps, batch): a permutation, filled up from its own beginning."""
    batch = min(batch, rows)
    order = np.random.default_rng((seed, epoch)).permutation(rows)
    return np.resize(order, (permuted_steps(rows, batch), batch))


def validated(rows: int, batch: int, rank: int, world: int) -> Iterator[tuple[int, slice]]:
    """(rows of the whole batch, this rank's share of them), in file order.

    Batches of one size, since a contrastive loss grows with it: the largest up to `batch` that
        leaves least rows out.
    """
    count = -(-rows // batch)
    size = max(rows // count // world, 1) * world
    share = size // world
    for start in range(0, min(count, rows // size) * size, size):
        yield size, slice(start + rank * share, start + (rank + 1) * share)


@lru_cache(maxsize=2)
def sequence(order: Order, epoch: int) -> np.ndarray:
    """The rows of one epoch, (steps, batch), as positions in `sampler.row`."""
    n_rows = order.steps * order.batch
    if order.seed is None:
        return np.arange(n_rows).reshape(order.steps, order.batch)
    rng = np.random.default_rng([order.seed, epoch])
    _, group = np.unique(
        np.stack([order.shard, order.row // shards.GROUP]), axis=1, return_inverse=True
    )
    place = rng.permutation(group.max() + 1)[group]  # of each row's group in this epoch
    by_group = np.lexsort((rng.random(len(place)), place))[:n_rows]
    mix = np.arange(n_rows) // (order.mixed * order.batch)
    dealt = by_group[np.lexsort((rng.random(n_rows), mix))].reshape(order.steps, order.batch)
    return np.take_along_axis(dealt, place[dealt].argsort(1, kind="stable"), axis=1)


def mine(order: Order, step: int) -> np.ndarray:
    """This rank's rows of the global batch `step` of the whole run, as positions in
    `sampler.row`.
    """
    epoch, inside = divmod(step, order.steps)
    return sequence(order, epoch)[inside, order.rank * order.local : (order.rank + 1) * order.local]


def piece(order: Order, number: int, start_step: int = 0) -> np.ndarray:
    """This rank's rows of piece `number` of the whole run, without what lies before
    `start_step`.
    """
    epoch, inside = divmod(number, order.pieces)
    mix, cut_index = divmod(inside, order.cuts)
    first = max(mix * order.mixed, start_step - epoch * order.steps)
    batches = sequence(order, epoch)[first : (mix + 1) * order.mixed]
    rank_rows = batches[:, order.rank * order.local : (order.rank + 1) * order.local].ravel()
    return np.array_split(rank_rows, order.cuts)[cut_index]


def first_piece(order: Order, start_step: int) -> int:
    """The first piece that holds something of `start_step` or later."""
    epoch, step = divmod(start_step, order.steps)
    return epoch * order.pieces + step // order.mixed * order.cuts


def read(
    runs: pa.Table, order: Order, start_step: int, last: int, plugin_names: Sequence[str] = ()
) -> Iterator[pa.Table]:
    """Read the pieces `first` to `first + RUN`, one table each: the function that Ray Data maps
    over the runs.

    Args:
        runs: a column `first`.
        order: of the rows.
        start_step: batches before it are left out.
        last: pieces from this one on are left out.
        plugin_names: plugins that register the signals.

    Raises:
        InputError: a shard is damaged.
    """
    plugins.load(plugin_names)
    for first in runs["first"].to_pylist():
        for number in range(first, min(first + RUN, last)):
            out = load(order, piece(order, number, start_step))
            yield pa.table({name: shards.column(array, name) for name, array in out.items()})


def load(order: Order, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Read the signals of rows, given as positions in `sampler.row`; (n, *shape) each, in their
    order.

    Raises:
        InputError: a shard is damaged.
    """
    out = {name: shards.space(len(rows), name) for name in order.columns}
    files = order.shard[rows]
    for file in np.unique(files):
        where = np.flatnonzero(files == file)
        path = Path(order.path) / order.shards[file]
        shards.read_rows(path, order.row[rows[where]], order.columns, out, where)
    return out


def check(order: Order) -> None:
    """Look at every shard's footer, so that a damaged cohort fails here and not in the middle of a
    run.

    Raises:
        InputError: fewer rows than one batch, a batch that ranks cannot share, or a shard without a
            column or truncated.
    """
    if order.batch % order.world:
        raise InputError(
            f"batch={order.batch} cannot be shared by {order.world} workers; use a multiple of "
            f"{order.world}"
        )
    if order.steps < 1:
        signal_names = " and ".join(order.columns)
        raise InputError(
            f"{order.path}: split '{order.split}' has {len(order.row)} rows with {signal_names}, "
            "fewer than one batch of "
            f"{order.batch}; use a smaller batch or a larger cohort"
        )
    for name in order.shards:
        shards.open_shard(Path(order.path) / name, order.columns)


def columns_of(needs: Sequence[str]) -> tuple[str, ...]:
    """The signals among a method's needs, in the shard's order."""
    return tuple(name for name in shards.SIGNALS if name in needs)
