"""Two augmented views of every subject: what methods that compare them have in common.

The one idea: such a method inherits `TwoViews` and adds an encoder, a projector and a loss.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from ecgcmr.methods import encodings, trunk
from ecgcmr.methods.contract import Knobs, Method, Tensors, of_view
from ecgcmr.methods.encodings import View
from ecgcmr.nn import Network
from ecgcmr.presets import Preset
from ecgcmr.signals.augment import uniform


class TwoViews(Method):
    """Two augmented views of every subject, encoded alike. Left to a method are encoder, projector
    and loss.

    Attributes:
        passes: axes of `drop_path` between subjects and blocks: one row per view, for each encoder
            that sees it.
        views: the augmentation of either view.
        encoding: of the modality; the method builds the encoder under the modality's name, e.g.
            `self.ecg`.
    """

    modalities: ClassVar[Sequence[str]] = ("ecg",)
    needs = ("ecg",)
    parts = {"ecg": "ecg"}
    passes: ClassVar[tuple[int, ...]] = (2,)

    views: tuple[View, ...]

    def __init__(
        self,
        network: Network,
        preset: Preset,
        *,
        outputs: int,
        modality: str,
        samples: int,
        **strength: Any,
    ) -> None:
        """Settle views and optimiser; `outputs` is not used.

        Args:
            network: sizes.
            preset: paper or authors.
            outputs: not used.
            modality: one of `modalities`.
            samples: of a view of an ECG.
            strength: fields of the view that differ from pre-training's.
        """
        super().__init__(network, preset, outputs=outputs, modality=modality, samples=samples)
        self.optimiser = trunk.contrastive_optimiser(preset)
        # A trial names a modality whatever its method; a method of one kind of signal ignores it.
        self.modality = modality if modality in self.modalities else self.modalities[0]
        self.depth = network.depth
        rates = 1.0, preset.augment_rate  # the first view is always augmented
        self.encoding = encodings.of(self.modality)
        self.views = tuple(
            self.encoding.view_of_two(network, preset, samples, rate, **strength) for rate in rates
        )

    def noise(self, generator: torch.Generator, n: int, augment: bool = True) -> dict[str, Tensor]:
        """Numbers for `n` subjects; evaluation compares two augmented views as well, without drop
        path.
        """
        noise: dict[str, Tensor] = {}
        for i, view in enumerate(self.views):
            noise |= {f"{i}.{name}": u for name, u in view.noise(generator, n).items()}
        if augment and self.encoding.drops:
            noise["drop_path"] = uniform(generator, n, *self.passes, self.depth, 2)
        return noise

    def seen(self, batch: Tensors, noise: Tensors) -> list[Tensor]:
        """Both views, of the modality's entry of the batch."""
        return [view(batch[self.modality], of_view(noise, i)) for i, view in enumerate(self.views)]

    def embeddings(self, batch: Tensors, noise: Tensors, knobs: Knobs) -> tuple[Tensor, Tensor]:
        """Embeddings of both views, (n, width) each, not of length one."""
        first, second = (
            self._embed(x, i, noise, knobs) for i, x in enumerate(self.seen(batch, noise))
        )
        return first, second

    def _embed(self, x: Tensor, i: int, noise: Tensors, knobs: Knobs) -> Tensor:
        drops = noise["drop_path"][:, i] if "drop_path" in noise else None
        rate, learns = knobs.get("drop_path", 0.0), self.training and bool(noise)
        return self.encoding.embed(getattr(self, self.modality), x, drops, rate, learns)
