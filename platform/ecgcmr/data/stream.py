"""From shards to device batches, epoch after epoch: what pre-training eats.

The one idea: `sampler` lays down which rows come when, before anything is read; Ray Data only
carries it out, in parallel tasks and in order, one execution for all epochs. A thread takes its
blocks, copies them to the device as float16 and uint8 and stays two batches ahead of the consumer;
`inputs.to_model` makes floats there. Where `cache` has room, one epoch is read so and the others
come from there. Nothing is augmented here.
"""

import contextlib
import functools
import queue
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ecgcmr import plugins
from ecgcmr.cohort import dataset, presence, shards
from ecgcmr.data import cache as memory
from ecgcmr.data import sampler
from ecgcmr.data.sampler import Order
from ecgcmr.errors import InputError
from ecgcmr.runtime import cluster

AHEAD = 2  # batches on the device beyond the one in use
TASKS = 2  # reading tasks at once; two fill 2-3 GB/s, more only hold memory
# A task mostly waits for memory: Train workers that hold nearly all CPUs must not starve it.
TASK_CPUS = 0.25


class Breath:
    """Pauses in Ray Data's scheduling loop, which runs in a thread of the training process.

    With full buffers, which is what training wants, that loop turns without waiting for anything
    and holds Python's lock: the steps of a small network took 2.6 times as long (Ray 2.60, two
    cores; `benchmarks/stream.py --beside`). So it rests after every turn for as long as no consumer
    waits. Ray Data calls this as one of its execution callbacks; it makes the object itself and
    sends its class to workers, hence the state beside it.
    """

    SECONDS = 0.02
    hungry: ClassVar[set[int]] = set()  # streams of this process whose consumer waits for a batch

    def before_execution_starts(self, executor: Any) -> None:
        """Nothing."""

    def on_execution_step(self, executor: Any) -> None:
        """Let others run."""
        if not self.hungry:
            time.sleep(self.SECONDS)

    def after_execution_succeeds(self, executor: Any) -> None:
        """Nothing."""

    def after_execution_fails(self, executor: Any, error: Exception) -> None:
        """Nothing."""


def steps_per_epoch(cohort: dataset.Cohort, split: str, needs: Sequence[str], batch: int) -> int:
    """Global batches in an epoch: whole ones only, of the rows that have every signal that is
    needed.
    """
    return plan(cohort, split, needs, batch).steps


def plan(
    cohort: dataset.Cohort,
    split: str,
    needs: Sequence[str],
    batch: int,
    seed: int | None = 0,
    rank: int = 0,
    world: int = 1,
) -> Order:
    """The order of a run's rows; see `sampler.Order`."""
    columns = sampler.columns_of(needs)
    if not columns:
        raise InputError(
            f"needs={tuple(needs)} of the method names no signal; a stream reads "
            f"{', '.join(shards.SIGNALS)}"
        )
    rows = cohort.rows(split)
    rows = rows[presence.has(rows, *columns)]
    names, shard = np.unique(rows["shard"].to_numpy(dtype=str), return_inverse=True)
    return Order(
        path=str(cohort.path.resolve()),
        fingerprint=cohort.fingerprint,
        split=split,
        columns=columns,
        batch=batch,
        seed=seed,
        rank=rank,
        world=world,
        shards=tuple(str(name) for name in names),
        shard=shard.astype(np.int32),
        row=rows["row"].to_numpy(dtype=np.int32),
    )


def batches(
    cohort_path: Path | str,
    *,
    split: str,
    needs: Sequence[str],
    batch: int,
    seed: int,
    epochs: int,
    start_step: int = 0,
    rank: int = 0,
    world: int = 1,
    device: torch.device | str = "cpu",
    shuffle: bool = True,
    cache: str = "off",
) -> Iterator[dict[str, Tensor]]:
    """Yield this rank's part of every global batch from `start_step` on.

    Args:
        cohort_path: a complete cohort.
        split: "train", "val" or "test".
        needs: what a row must have, names of signals; other words are no business of a stream.
        batch: rows of a global batch; this rank gets batch / world of them.
        seed: of the order; with the epoch it decides everything.
        epochs: passes over the split.
        start_step: global batches already seen; the sequence goes on as if never interrupted.
        rank, world: this reader among all.
        device: where the tensors arrive.
        shuffle: off, rows come in the order of the shards.
        cache: where rows stay once they are read, a word that `cache.choose` knows; it changes no
            batch. A run keeps its rows once, and streams with what is kept: its peak is that of
            streaming and `cache.size` beside it.

    Yields:
        (batch / world, *shape) each as stored, e.g. ecg (…, 12, 5000) float16 mV; owned by the
        caller.

    Raises:
        InputError: fewer rows than one batch, a damaged shard, a missing column, a cache that is
            unknown or too large. Raised at the call, not at the first batch.
    """
    order = plan(
        dataset.open(cohort_path), split, needs, batch, seed if shuffle else None, rank, world
    )
    sampler.check(order)
    place = memory.place(cache, order, epochs, start_step, torch.device(device))
    cluster.start()
    return _ahead(
        _source(order, epochs, start_step, torch.device(device), place), torch.device(device)
    )


def _tables(order: Order, epochs: int, start_step: int) -> Generator[Any, None, None]:
    """Arrow tables of one local batch each, from one execution of Ray Data."""
    import ray.data

    first, last = sampler.first_piece(order, start_step), epochs * order.pieces
    if first >= last:
        return
    context = ray.data.DataContext.get_current().copy()
    context.execution_options.preserve_order = True
    context.raise_original_map_exception = True
    callbacks: list[Any] = [*context.custom_execution_callback_classes, Breath]
    context.custom_execution_callback_classes = callbacks
    # A block is emitted when it exceeds this and cut when it is half as much again: so a piece is
    # one block, uncopied.
    context.target_max_block_size = int(0.8 * order.piece_bytes)
    plugin_names = plugins.carried()
    runs = [{"first": number} for number in range(first, last, sampler.RUN)]
    with ray.data.DataContext.current(context):
        pieces = ray.data.from_items(runs, override_num_blocks=len(runs)).map_batches(
            functools.partial(
                sampler.read,
                order=order,
                start_step=start_step,
                last=last,
                plugin_names=plugin_names,
            ),
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=TASK_CPUS,
            compute=ray.data.TaskPoolStrategy(size=min(TASKS, len(runs))),
        )
    tables: Any = iter(
        pieces.iter_batches(batch_size=order.local, batch_format="pyarrow", prefetch_batches=1)
    )
    with contextlib.closing(tables):  # ends the execution when the consumer leaves early
        yield from tables


def _source(
    order: Order, epochs: int, start_step: int, device: torch.device, place: str
) -> Generator[dict[str, Tensor], None, None]:
    """Batches on the device: through Ray Data, or, where rows have a place to stay, only the first
    epoch so.
    """
    pin, streamed_epochs = device.type == "cuda", epochs
    row_cache = None
    if place != "off":
        row_cache = memory.empty(order, device if place == "device" else torch.device("cpu"))
        streamed_epochs = (
            start_step // order.steps + 1
        )  # the first whole or begun epoch is the last that Ray Data reads
    with contextlib.closing(
        _decoded(_tables(order, streamed_epochs, start_step), order.columns, pin)
    ) as host_batches:
        for step, batch in enumerate(host_batches, start_step):
            there = _moved(batch, device)
            if row_cache is not None:
                row_cache.keep(sampler.mine(order, step), there if place == "device" else batch)
            yield there
    if row_cache is not None:
        for step in range(streamed_epochs * order.steps, epochs * order.steps):
            yield _moved(row_cache.gather(sampler.mine(order, step), pin), device)


def _moved(batch: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {name: x.to(device, non_blocking=True) for name, x in batch.items()}


def _decoded(
    tables: Generator[Any, None, None], columns: Sequence[str], pin: bool
) -> Generator[dict[str, Tensor], None, None]:
    """Tensors on the host, copied from Ray's shared memory, which is read-only and wanted back."""
    with contextlib.closing(tables):
        for table in tables:
            yield {name: _owned(shards.unpack(table[name], name), pin) for name in columns}


def _owned(array: np.ndarray, pin: bool) -> Tensor:
    tensor = torch.empty(array.shape, dtype=getattr(torch, array.dtype.name), pin_memory=pin)
    np.copyto(tensor.numpy(), array)
    return tensor


def _ahead(
    source: Generator[dict[str, Tensor], None, None], device: torch.device
) -> Iterator[dict[str, Tensor]]:
    """Run `source` in a thread, `AHEAD` batches before the consumer; what it raises is raised here.

    On a GPU the thread works beside the consumer's stream: copies run during its computation.
    """
    side = torch.cuda.Stream(device) if device.type == "cuda" else None
    ready: queue.Queue[dict[str, Tensor] | BaseException | None] = queue.Queue(maxsize=AHEAD)
    consumer_left = threading.Event()

    def put(item: dict[str, Tensor] | BaseException | None) -> None:
        while not consumer_left.is_set():
            with contextlib.suppress(queue.Full):
                return ready.put(item, timeout=0.1)

    def work() -> None:
        with (
            contextlib.closing(source),
            torch.cuda.stream(side) if side is not None else contextlib.nullcontext(),
        ):
            try:
                for batch in source:
                    if side is not None:
                        side.synchronize()
                    put(batch)
                    if consumer_left.is_set():
                        return
                put(None)
            except BaseException as error:
                put(error)

    thread = threading.Thread(target=work, name="stream", daemon=True)
    thread.start()
    try:
        while (item := _next(ready)) is not None:
            if isinstance(item, BaseException):
                raise _plain(item)
            for x in item.values():
                # It was allocated for another stream: not to be reused before ours is done with it.
                if x.is_cuda:
                    x.record_stream(torch.cuda.current_stream(x.device))
            yield item
    finally:
        consumer_left.set()
        thread.join(timeout=30)


def _next(ready: queue.Queue[Any]) -> Any:
    """The next item; Ray Data does not rest while somebody waits for it."""
    with contextlib.suppress(queue.Empty):
        return ready.get_nowait()
    Breath.hungry.add(id(ready))
    try:
        return ready.get()
    finally:
        Breath.hungry.discard(id(ready))


def _plain(error: BaseException) -> BaseException:
    """The InputError that a task raised, in its own one line; any other error as it is.

    Ray hands it over as it was, with lines of advice added, or as the `cause` of an error whose
    text is a traceback.
    """
    cause = getattr(error, "cause", None) or error
    return InputError(str(cause).splitlines()[0]) if isinstance(cause, InputError) else error
