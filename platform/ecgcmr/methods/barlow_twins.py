"""Barlow Twins: embeddings of two views agree feature by feature, and features of one embedding do not repeat each other.

Source: Zbontar et al. 2021, arXiv:2103.03230; as a baseline section IV-D.1.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from ecgcmr import augment, losses
from ecgcmr.methods.contract import Method, of_view
from ecgcmr.nn import Network, heads, vit
from ecgcmr.presets import Preset

HIDDEN = 16  # times the projector's: 8192 beside 512, two layers as in the authors' code (Zbontar et al. have three)


class BarlowTwins(Method):
    """Redundancy reduction between two views of ECGs."""

    modalities = ("ecg",)
    needs = ("ecg",)
    parts = {"ecg": "ecg"}

    def __init__(self, network: Network, preset: Preset, *, outputs: int, modality: str, samples: int) -> None:
        """Build encoder and projector for records of `samples` samples; `outputs` and `modality` are not used."""
        super().__init__(network, preset, outputs=outputs, modality=modality, samples=samples)
        self.knobs = self.defaults(preset, modality)
        self.optimiser = "adam" if preset.coupled_decay else "adamw"
        self.view = augment.EcgView(samples, multiplicative=preset.multiplicative_jitter, flips=0.5)
        self.depth = network.depth
        times, wide = samples // network.patch, HIDDEN * network.hidden
        self.ecg = vit.ViT(network.width, network.depth, network.heads, network.patch, times, norm=False)
        self.projector = heads.NormedMLP(network.width, wide, wide)

    @staticmethod
    def defaults(preset: Preset, modality: str = "ecg") -> dict[str, float]:
        """Every knob; `off_diagonal` is λ of Zbontar et al., where the paper is silent."""
        return {"lr": 3e-5, "weight_decay": 1.5e-6, "warmup": 0.1, "off_diagonal": 5e-3, "drop_path": 0.1}

    def noise(self, generator: torch.Generator, n: int, augment: bool = True) -> dict[str, Tensor]:
        """Numbers for `n` records; evaluation compares two augmented views as well."""
        drawn = {f"{i}.{name}": u for i in range(2) for name, u in self.view.noise(generator, n).items()}
        if augment:
            drawn["drop_path"] = torch.rand(n, 2, self.depth, 2, generator=generator, device=generator.device)
        return drawn

    def forward(
        self, batch: Mapping[str, Tensor], noise: Mapping[str, Tensor] | None, knobs: Mapping[str, Tensor | float]
    ) -> dict[str, Tensor]:
        """Correlate two views of batch["ecg"], (n, 12, time), over the batch."""
        noise, knobs = noise or {}, {**self.knobs, **knobs}
        a, b = (self._project(batch["ecg"], i, noise, knobs) for i in range(2))
        return {"loss": losses.barlow_twins(a, b, knobs["off_diagonal"]), "top1": losses.retrieval(a, b)}

    def _project(self, x: Tensor, i: int, noise: Mapping[str, Tensor], knobs: Mapping[str, Tensor | float]) -> Tensor:
        x = self.view(x, of_view(noise, i))
        drops = noise["drop_path"][:, i] if "drop_path" in noise else None
        tokens = self.ecg(x, drops=drops, rate=knobs["drop_path"])
        return self.projector(tokens[:, 1:].mean(1), self.training and bool(noise))
