"""CLOCS: two stretches of one recording attract, stretches of others repel (contrastive
multi-segment coding, CMSC).

Of the three variants of Kiyasseh et al. the authors ran this one. Source: Kiyasseh et al. 2021,
arXiv:2005.13249, section 4; as a baseline section IV-D.1.
"""

import torch
from torch import Tensor

from ecgcmr.methods import losses, trunk, two_views
from ecgcmr.methods.contract import Knobs, Tensors, of_view
from ecgcmr.nn import Network, heads
from ecgcmr.presets import Preset


class CLOCS(two_views.TwoViews):
    """Contrastive learning over time, of ECGs."""

    def __init__(
        self, network: Network, preset: Preset, *, outputs: int, modality: str, samples: int
    ) -> None:
        """Build encoder and projector for stretches of `samples` samples; `outputs` is not used."""
        strength = (
            {"sigma": 0.4, "amplitude": 0.65, "magnitude": 0.125} if preset.heavy_clocs else {}
        )
        super().__init__(
            network,
            preset,
            outputs=outputs,
            modality=modality,
            samples=samples,
            crops=False,
            **strength,
        )
        self.samples = samples
        self.ecg = trunk.ecg_encoder(network, preset, samples)
        # The authors' projector is as wide as the embedding: 384, 384, 128.
        self.head = heads.Projector(network.width, network.width, network.projection, norm=True)

    @staticmethod
    def defaults(preset: Preset, modality: str = "ecg") -> dict[str, float]:
        """Every knob."""
        return {
            "lr": 3e-4,
            "weight_decay": 1e-4,
            "warmup": 0.1,
            "temperature": 0.1,
            "drop_path": 0.1,
        }

    def noise(self, generator: torch.Generator, n: int, augment: bool = True) -> dict[str, Tensor]:
        """Numbers for `n` records; none for evaluation, where the two stretches differ by
        themselves.
        """
        return super().noise(generator, n) if augment else {}

    def seen(self, batch: Tensors, noise: Tensors) -> list[Tensor]:
        """The first and the last stretch of batch["ecg"], (n, 12, time), which is longer than
        one.
        """
        stretches = batch["ecg"][..., : self.samples], batch["ecg"][..., -self.samples :]
        return [
            view(x, of_view(noise, i)) for i, (view, x) in enumerate(zip(self.views, stretches))
        ]

    def forward(self, batch: Tensors, noise: Tensors | None, knobs: Knobs) -> dict[str, Tensor]:
        """Contrast two stretches of batch["ecg"]."""
        knobs = {**self.knobs, **knobs}
        a, b = map(self.head, self.embeddings(batch, noise or {}, knobs))
        return {
            "loss": losses.clip(a, b, knobs["temperature"], 0.5),
            "top1": losses.retrieval(a, b),
        }
