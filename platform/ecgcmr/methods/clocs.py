"""CLOCS: two stretches of one recording attract, stretches of others repel (contrastive multi-segment coding, CMSC).

Of the three variants of Kiyasseh et al. the authors ran this one. Source: Kiyasseh et al. 2021, arXiv:2005.13249, section 4;
as a baseline section IV-D.1.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from ecgcmr import augment, losses
from ecgcmr.methods.contract import Method, of_view
from ecgcmr.nn import Network, heads, vit
from ecgcmr.presets import Preset


class CLOCS(Method):
    """Contrastive learning over time, of ECGs."""

    modalities = ("ecg",)
    needs = ("ecg",)
    parts = {"ecg": "ecg"}

    def __init__(self, network: Network, preset: Preset, *, outputs: int, modality: str, samples: int) -> None:
        """Build encoder and projector for stretches of `samples` samples; `outputs` and `modality` are not used."""
        super().__init__(network, preset, outputs=outputs, modality=modality, samples=samples)
        self.knobs = self.defaults(preset, modality)
        self.optimiser = "adam" if preset.coupled_decay else "adamw"
        strength = {"sigma": 0.4, "amplitude": 0.65, "magnitude": 0.125} if preset.heavy_clocs else {}
        self.view = augment.EcgView(
            samples, multiplicative=preset.multiplicative_jitter, flips=0.5, crops=False, **strength
        )
        self.depth, self.samples = network.depth, samples
        times = samples // network.patch
        self.ecg = vit.ViT(network.width, network.depth, network.heads, network.patch, times, norm=False)
        # The authors' projector is as wide as the embedding: 384, 384, 128.
        self.head = heads.Projector(network.width, network.width, network.projection, norm=True)

    @staticmethod
    def defaults(preset: Preset, modality: str = "ecg") -> dict[str, float]:
        """Every knob."""
        return {"lr": 3e-4, "weight_decay": 1e-4, "warmup": 0.1, "temperature": 0.1, "drop_path": 0.1}

    def noise(self, generator: torch.Generator, n: int, augment: bool = True) -> dict[str, Tensor]:
        """Numbers for `n` records; none for evaluation, where the two stretches differ by themselves."""
        if not augment:
            return {}
        drawn = {f"{i}.{name}": u for i in range(2) for name, u in self.view.noise(generator, n).items()}
        drawn["drop_path"] = torch.rand(n, 2, self.depth, 2, generator=generator, device=generator.device)
        return drawn

    def forward(
        self, batch: Mapping[str, Tensor], noise: Mapping[str, Tensor] | None, knobs: Mapping[str, Tensor | float]
    ) -> dict[str, Tensor]:
        """Contrast the first and the last stretch of batch["ecg"], (n, 12, time), which is longer than one."""
        noise, knobs = noise or {}, {**self.knobs, **knobs}
        stretches = (batch["ecg"][..., : self.samples], batch["ecg"][..., -self.samples :])
        a, b = (self._project(x, i, noise, knobs) for i, x in enumerate(stretches))
        return {"loss": losses.clip(a, b, knobs["temperature"], 0.5), "top1": losses.retrieval(a, b)}

    def _project(self, x: Tensor, i: int, noise: Mapping[str, Tensor], knobs: Mapping[str, Tensor | float]) -> Tensor:
        x = self.view(x, of_view(noise, i))
        drops = noise["drop_path"][:, i] if "drop_path" in noise else None
        return self.head(self.ecg(x, drops=drops, rate=knobs["drop_path"])[:, 1:].mean(1))
