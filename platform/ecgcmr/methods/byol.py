"""BYOL: predict the embedding that a slowly following copy of the network gives another view of the same ECG.

No record repels another; what keeps the answer from being constant is that the copy only follows (`trails`) and that the
predictor has no counterpart. Source: Grill et al. 2020, arXiv:2006.07733; as a baseline section IV-D.1.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from ecgcmr import augment, losses
from ecgcmr.methods.contract import Method, of_view
from ecgcmr.nn import Network, heads, load, vit
from ecgcmr.presets import Preset

HIDDEN, OUT = 8, 2  # times the projector's: 4096 and 256 beside 512 and 128, as in the authors' code


class BYOL(Method):
    """Bootstrap your own latent, of ECGs."""

    modalities = ("ecg",)
    needs = ("ecg",)
    parts = {"ecg": "online.ecg"}
    trails = {"target": "online"}

    def __init__(self, network: Network, preset: Preset, *, outputs: int, modality: str, samples: int) -> None:
        """Build the network twice, for records of `samples` samples; `outputs` and `modality` are not used."""
        super().__init__(network, preset, outputs=outputs, modality=modality, samples=samples)
        self.knobs = self.defaults(preset, modality)
        self.optimiser = "adam" if preset.coupled_decay else "adamw"
        self.view = augment.EcgView(samples, multiplicative=preset.multiplicative_jitter, flips=0.5)
        self.depth = network.depth
        hidden, out = HIDDEN * network.hidden, OUT * network.projection

        def arm() -> nn.ModuleDict:
            times = samples // network.patch
            encoder = vit.ViT(network.width, network.depth, network.heads, network.patch, times, norm=False)
            return nn.ModuleDict({"ecg": encoder, "projector": heads.NormedMLP(network.width, hidden, out)})

        self.online, self.target = arm(), arm()
        self.target.load_state_dict(self.online.state_dict())
        self.target.requires_grad_(False)
        self.predictor = heads.NormedMLP(out, hidden, out)

    @staticmethod
    def defaults(preset: Preset, modality: str = "ecg") -> dict[str, float]:
        """Every knob; `momentum` is the paper's τ, from which the copy's inertia rises to 1 (Grill et al., section 3.2)."""
        return {"lr": 1e-5, "weight_decay": 1e-4, "warmup": 0.1, "momentum": 0.9996, "drop_path": 0.1}

    def noise(self, generator: torch.Generator, n: int, augment: bool = True) -> dict[str, Tensor]:
        """Numbers for `n` records; evaluation compares two augmented views as well."""
        drawn = {f"{i}.{name}": u for i in range(2) for name, u in self.view.noise(generator, n).items()}
        if augment:
            drawn["drop_path"] = torch.rand(n, 2, 2, self.depth, 2, generator=generator, device=generator.device)
        return drawn

    def forward(
        self, batch: Mapping[str, Tensor], noise: Mapping[str, Tensor] | None, knobs: Mapping[str, Tensor | float]
    ) -> dict[str, Tensor]:
        """Predict each view's target embedding from the other view; batch["ecg"] is (n, 12, time)."""
        noise, knobs = noise or {}, {**self.knobs, **knobs}
        views = [self._view(batch["ecg"], i, noise) for i in range(2)]
        embedded = [self._embed(self.online, x, i, 0, noise, knobs) for i, x in enumerate(views)]
        mine = [self.predictor(z, self.training and bool(noise)) for z in embedded]
        with torch.no_grad():
            theirs = [self._embed(self.target, x, i, 1, noise, knobs) for i, x in enumerate(views)]
        loss = losses.byol(mine[0], theirs[1]) + losses.byol(mine[1], theirs[0])
        return {"loss": loss, "top1": losses.retrieval(mine[0], theirs[1])}

    def _view(self, x: Tensor, i: int, noise: Mapping[str, Tensor]) -> Tensor:
        return self.view(x, of_view(noise, i))

    def _embed(
        self, arm: nn.ModuleDict, x: Tensor, i: int, which: int, noise: Mapping[str, Tensor],
        knobs: Mapping[str, Tensor | float],
    ) -> Tensor:  # fmt: skip
        drops = noise["drop_path"][:, which, i] if "drop_path" in noise else None
        tokens = arm["ecg"](x, drops=drops, rate=knobs["drop_path"])
        return arm["projector"](tokens[:, 1:].mean(1), self.training and bool(noise))

    def load(self, part: str, weights: Mapping[str, np.ndarray]) -> None:
        """Start both copies of the encoder from another's weights."""
        for arm in (self.online, self.target):
            load.into(arm["ecg"], weights, part)
