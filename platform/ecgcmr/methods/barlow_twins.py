"""Barlow Twins: embeddings of two views agree feature by feature, and features of one embedding do
not repeat each other.

Source: Zbontar et al. 2021, arXiv:2103.03230; as a baseline section IV-D.1.
"""

from torch import Tensor

from ecgcmr.methods import losses, trunk, two_views
from ecgcmr.methods.contract import Knobs, Tensors
from ecgcmr.nn import Network, heads
from ecgcmr.presets import Preset

# Times the projector's: 8192 beside 512, two layers as in the authors' code (Zbontar et al. have
# three)
HIDDEN = 16


class BarlowTwins(two_views.TwoViews):
    """Redundancy reduction between two views of ECGs."""

    def __init__(
        self, network: Network, preset: Preset, *, outputs: int, modality: str, samples: int
    ) -> None:
        """Build encoder and projector for records of `samples` samples; `outputs` is not used."""
        super().__init__(network, preset, outputs=outputs, modality=modality, samples=samples)
        wide = HIDDEN * network.hidden
        self.ecg = trunk.ecg_encoder(network, preset, samples)
        self.projector = heads.NormedMLP(network.width, wide, wide, norm=preset.siamese_norm)

    @staticmethod
    def defaults(preset: Preset, modality: str = "ecg") -> dict[str, float]:
        """Every knob; `off_diagonal` is λ of Zbontar et al., where the paper is silent."""
        return {
            "lr": 3e-5,
            "weight_decay": 1.5e-6,
            "warmup": 0.1,
            "off_diagonal": 5e-3,
            "drop_path": 0.1,
        }

    def forward(self, batch: Tensors, noise: Tensors | None, knobs: Knobs) -> dict[str, Tensor]:
        """Correlate two views of batch["ecg"], (n, 12, time), over the batch."""
        noise, knobs = noise or {}, {**self.knobs, **knobs}
        learns = self.training and bool(noise)
        a, b = (self.projector(z, learns) for z in self.embeddings(batch, noise, knobs))
        return {
            "loss": losses.barlow_twins(a, b, knobs["off_diagonal"]),
            "top1": losses.retrieval(a, b),
        }
