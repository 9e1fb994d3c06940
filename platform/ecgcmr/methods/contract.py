"""The contract of a method, with what most have in common: what a new method inherits, and may
override.

A method is one step of learning as a pure function, loss = f(parameters, batch, noise, knobs).
Fixed tensors (MAE's positions) are buffers and a trailing copy asks for no gradient, so every other
parameter is trained. Draw nothing inside `forward`, branch on no value, write in place on no tensor
of the batch: `torch.func.vmap` then maps a pack of members through it.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ecgcmr.nn import Network, load
from ecgcmr.presets import Preset
from ecgcmr.signals import SIGNALS

Tensors = Mapping[str, Tensor]
Knobs = Mapping[str, Tensor | float]  # tensors where the members of a pack differ


class EverySignal(Sequence[str]):
    """The modalities of a method that reads any signal: those that are registered when it is asked,
    the default first.
    """

    def __init__(self, default: str) -> None:
        """Begin with `default`; one of several signals, such as "ecg+cmr", asks for as many of all
        others.
        """
        self.default = default

    def _names(self) -> list[str]:
        several = combinations(SIGNALS, len(self.default.split("+")))
        return list(dict.fromkeys([self.default, *map("+".join, several)]))

    def __len__(self) -> int:
        return len(self._names())

    def __getitem__(self, index: Any) -> Any:
        return self._names()[index]


class Method(nn.Module, ABC):
    """How one step learns.

    Attributes:
        modalities: what it can be built for, the default first; `EverySignal` of one that reads
            any.
        needs: columns of the batch that it reads.
        parts: signal -> the submodule that is handed on to the next stage.
        beside: prefix -> submodule handed on with the encoders, from which nothing starts.
        trails: prefix -> prefix of parameters that follow others by a moving average; `momentum`
            says how closely.
        optimiser, betas: "adamw" or "adam" (coupled decay), and its two averages.
        depths: deepest layer-decay depth.
        keep: weights of which epoch are handed on, "last" or "best".
        knobs: every number that may differ inside a pack, with its default.
    """

    modalities: ClassVar[Sequence[str]]
    needs: tuple[str, ...]
    parts: dict[str, str]
    beside: ClassVar[dict[str, str]] = {}
    trails: ClassVar[dict[str, str]] = {}
    optimiser: str = "adamw"
    betas: ClassVar[tuple[float, float]] = (0.9, 0.999)
    depths: int = 0
    keep: ClassVar[str] = "best"
    knobs: dict[str, float]

    def __init__(
        self, network: Network, preset: Preset, *, outputs: int, modality: str, samples: int
    ) -> None:
        """Build it, with weights drawn from torch's own stream.

        Args:
            network: sizes.
            preset: paper or authors.
            outputs: width of the head of a method that answers.
            modality: one of `modalities`.
            samples: ECG samples that the network sees.
        """
        super().__init__()
        self.knobs = self.defaults(preset, modality)

    @staticmethod
    @abstractmethod
    def defaults(preset: Preset, modality: str) -> dict[str, float]:
        """Every knob of that modality, known before a network is built."""

    @abstractmethod
    def noise(self, generator: torch.Generator, n: int, augment: bool = True) -> dict[str, Tensor]:
        """Every random number of one step for `n` subjects, each tensor with n rows; less or none
        for evaluation.
        """

    @abstractmethod
    def forward(self, batch: Tensors, noise: Tensors | None, knobs: Knobs) -> dict[str, Tensor]:
        """{"loss": scalar, … scalars to log}."""

    def lr_scale(self, batch: int) -> float:
        """What the learning rate is multiplied by at this batch size: nothing, unless text or code
        say so.
        """
        return 1.0

    def depth_of(self, name: str) -> int:
        """Layer-decay depth of a parameter, 0 … depths; a rate's factor is layer_decay ** (depths −
        depth).
        """
        return 0

    def decays(self, name: str, ndim: int) -> bool:
        """Whether weight decay applies to a parameter: to all, as torch's own Adam and AdamW do."""
        return True

    def load(self, part: str, weights: Mapping[str, np.ndarray]) -> None:
        """Start an encoder from another's weights.

        Raises:
            InputError: they are not of this network.
        """
        load.into(self.get_submodule(self.parts[part]), weights, part)


def of_view(noise: Tensors, view: int | str) -> dict[str, Tensor]:
    """The numbers of one view: those named `<view>.…`, without that prefix."""
    prefix = f"{view}."
    return {name.removeprefix(prefix): u for name, u in noise.items() if name.startswith(prefix)}
