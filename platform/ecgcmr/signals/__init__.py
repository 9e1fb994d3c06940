"""What a signal is, in one entry each: its stored form, the way there, and what reads it.

The registry itself knows neither PyTorch nor SciPy, since the tasks of Ray Data that only read
shards import it: what an entry of the package does lies in a module of its own, which `later`
imports at the first call. Networks and drawings lie above this layer; an entry names them
(`methods.encodings`, `report.plots.recordings`).
"""

import functools
import importlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ecgcmr import plugins

if TYPE_CHECKING:
    import torch

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
RATE_HZ = 500  # of a stored ECG

Options = Mapping[str, str]  # choices of a build
# What is chosen unless told otherwise: images are cut to the heart.
HEART: Options = {"crop": "heart"}


@dataclass(frozen=True, eq=False)
class Prepared:
    """A recording in its stored form.

    Attributes:
        array: as a shard holds it.
        repairs: what was changed, in words.
        suspicions: makes the signal's flags, 0.0 or 1.0 by name.
    """

    array: np.ndarray
    repairs: tuple[str, ...]
    suspicions: Callable[[], Mapping[str, float]] = dict


@dataclass(frozen=True, kw_only=True, eq=False)
class Signal:
    """All that the package knows of a kind of signal.

    Attributes:
        name: the word in columns, options and paths.
        title: what a reader sees.
        dtype, shape: of one stored array.
        unit: of its numbers.
        notes: what else the metadata of a shard's field says, (name, text) pairs.
        recipe: says how recordings come to the stored form, as JSON values; whatever changes an
            array's content is in it.
        prepare: brings what a reader returned to the stored form; raises `Excluded` where that
            cannot serve.
        faults: yields what is wrong with a stored array of a finished cohort, in words.
        to_model: what a network reads of stored arrays (n, *shape), in the dtype that is asked for.
        once: whether `to_model` costs so much that fine-tuning does it once and keeps the result in
            half precision; else it keeps stored arrays and does it for every batch.
        encoder: the kind of network that reads it, a name of `methods.encodings.ENCODINGS`.
        drawing: how a page draws a stored array, a name of `report.plots.recordings.DRAWINGS`.
        flags: names of the 0/1 columns of suspicions that `prepare` comes with.
        by_content: whether a file says by itself which reader's it is, so that none need be named.
    """

    name: str
    title: str
    dtype: str
    shape: tuple[int, ...]
    unit: str
    notes: tuple[tuple[str, str], ...] = ()
    recipe: Callable[[Options], dict[str, object]]
    prepare: Callable[[Any, Options], Prepared]
    faults: Callable[[np.ndarray], Iterable[str]]
    to_model: "Callable[[torch.Tensor, torch.dtype], torch.Tensor]"
    once: bool = False
    encoder: str
    drawing: str
    flags: tuple[str, ...] = ()
    by_content: bool = False

    @property
    def width(self) -> int:
        """Bytes of one row."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize

    @property
    def metadata(self) -> dict[str, str]:
        """The field's metadata."""
        form = {"dtype": self.dtype, "shape": json.dumps(self.shape), "unit": self.unit}
        return {**form, **dict(self.notes)}


def later(module: str, name: str) -> Callable[..., Any]:
    """A function of a module that is imported when it is first called."""

    def call(*args: Any) -> Any:
        return _function(module, name)(*args)

    return call


@functools.cache
def _function(module: str, name: str) -> Callable[..., Any]:
    return getattr(importlib.import_module(module), name)


def _work(module: str) -> dict[str, Any]:
    """What an entry of the package does, by the names of the module's functions."""
    names = {"recipe": "recipe", "prepare": "prepared", "faults": "faults", "to_model": "to_model"}
    return {field: later(module, name) for field, name in names.items()}


# Every cohort has columns for the first two (format 1); of any other only one built of it.
SIGNALS: dict[str, Signal] = {
    "ecg": Signal(
        name="ecg",
        title="ECG",
        dtype="float16",
        shape=(len(LEADS), 5000),
        unit="mV",
        notes=(("rate_hz", str(RATE_HZ)), ("leads", json.dumps(LEADS))),
        once=True,
        encoder="transformer",
        drawing="ecg paper",
        flags=("flag_paced", "flag_noisy", "flag_lead_reversal", "flag_flat"),
        by_content=True,
        **_work("ecgcmr.signals.ecg"),
    ),
    "cmr": Signal(
        name="cmr",
        title="CMR",
        dtype="uint8",
        shape=(3, 210, 210),
        unit="intensity",
        notes=(("frames", json.dumps(["ES", "mid", "ED"])),),
        encoder="resnet",
        drawing="frames",
        **_work("ecgcmr.signals.cmr"),
    ),
}
ALWAYS = tuple(SIGNALS)


def register(signal: Signal) -> None:
    """Add a signal, from a plugin.

    Raises:
        InputError: the name is taken.
    """
    plugins.register(SIGNALS, "signal", signal.name, signal)


def flags(names: Iterable[str]) -> tuple[str, ...]:
    """The columns of suspicions that come with these signals."""
    return tuple(flag for name in names for flag in SIGNALS[name].flags)
