"""BYOL: predict the embedding that a slowly following copy of the network gives another view of the
same ECG.

No record repels another; what keeps the answer from being constant is that the copy only follows
(`trails`) and that the predictor has no counterpart. Source: Grill et al. 2020, arXiv:2006.07733;
as a baseline section IV-D.1.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from ecgcmr.methods import losses, trunk, two_views
from ecgcmr.methods.contract import Knobs, Tensors
from ecgcmr.nn import Network, heads, load
from ecgcmr.presets import Preset

HIDDEN, OUT = (
    8,
    2,
)  # times the projector's: 4096 and 256 beside 512 and 128, as in the authors' code


class BYOL(two_views.TwoViews):
    """Bootstrap your own latent, of ECGs."""

    parts = {"ecg": "online.ecg"}
    trails = {"target": "online"}
    passes = (2, 2)  # the network and its copy, either view

    def __init__(
        self, network: Network, preset: Preset, *, outputs: int, modality: str, samples: int
    ) -> None:
        """Build the network twice, for records of `samples` samples; `outputs` is not used."""
        super().__init__(network, preset, outputs=outputs, modality=modality, samples=samples)
        hidden_width, out = HIDDEN * network.hidden, OUT * network.projection

        def arm() -> nn.ModuleDict:
            encoder = trunk.ecg_encoder(network, preset, samples)
            projector = heads.NormedMLP(network.width, hidden_width, out, norm=preset.siamese_norm)
            return nn.ModuleDict({"ecg": encoder, "projector": projector})

        self.online, self.target = arm(), arm()
        self.target.load_state_dict(self.online.state_dict())
        self.target.requires_grad_(False)
        self.predictor = heads.NormedMLP(out, hidden_width, out)

    @staticmethod
    def defaults(preset: Preset, modality: str = "ecg") -> dict[str, float]:
        """Every knob; `momentum` is the paper's τ, from which the copy's inertia rises to 1 (Grill
        et al., section 3.2).
        """
        return {
            "lr": 1e-5,
            "weight_decay": 1e-4,
            "warmup": 0.1,
            "momentum": 0.9996,
            "drop_path": 0.1,
        }

    def forward(self, batch: Tensors, noise: Tensors | None, knobs: Knobs) -> dict[str, Tensor]:
        """Predict each view's target embedding from the other view; batch["ecg"] is (n, 12,
        time).
        """
        noise, knobs = noise or {}, {**self.knobs, **knobs}
        views = self.seen(batch, noise)
        projections = self._project(self.online, 0, views, noise, knobs)
        predictions = [self.predictor(z, self.training and bool(noise)) for z in projections]
        with torch.no_grad():
            targets = self._project(self.target, 1, views, noise, knobs)
        loss = losses.byol(predictions[0], targets[1]) + losses.byol(predictions[1], targets[0])
        return {"loss": loss, "top1": losses.retrieval(predictions[0], targets[1])}

    def _project(
        self, arm: nn.ModuleDict, arm_index: int, views: list[Tensor], noise: Tensors, knobs: Knobs
    ) -> list[Tensor]:
        """Both views through one of the two networks."""
        projections = []
        for i, x in enumerate(views):
            drops = noise["drop_path"][:, arm_index, i] if "drop_path" in noise else None
            z = trunk.embed(arm["ecg"], x, drops, knobs["drop_path"])
            projections.append(arm["projector"](z, self.training and bool(noise)))
        return projections

    def load(self, part: str, weights: Mapping[str, np.ndarray]) -> None:
        """Start both copies of the encoder from another's weights."""
        for arm in (self.online, self.target):
            load.into(arm["ecg"], weights, part)
