"""SimCLR: two augmented views of a subject attract, the views of all others repel; of CMR images, or of ECGs.

Source: Chen et al. 2020, arXiv:2002.05709; for CMR images section IV-C.1, for ECGs the baseline of section IV-D.1.
"""

from torch import Tensor

from ecgcmr.methods import losses, trunk
from ecgcmr.methods.contract import Knobs, Tensors
from ecgcmr.nn import Network, heads
from ecgcmr.presets import Preset

# The CMR encoder's rate is in the authors' run.sh only; the paper gives the ECG baseline's.
_KNOBS = {
    "cmr": {"lr": 1e-4, "weight_decay": 1e-4, "warmup": 0.1, "temperature": 0.1},
    "ecg": {"lr": 3e-3, "weight_decay": 1e-4, "warmup": 0.1, "temperature": 0.1, "drop_path": 0.1},
}


class SimCLR(trunk.TwoViews):
    """Contrastive learning within one modality."""

    modalities = ("cmr", "ecg")
    needs = ("cmr",)

    def __init__(
        self, network: Network, preset: Preset, *, outputs: int, modality: str, samples: int
    ) -> None:
        """Build the encoder of `modality` and its projector; `outputs` is not used."""
        super().__init__(network, preset, outputs=outputs, modality=modality, samples=samples)
        self.needs = (modality,)
        self.parts = {modality: modality}
        hidden, out = network.hidden, network.projection
        if modality == "ecg":
            self.ecg = trunk.ecg_encoder(network, preset, samples)
            self.head = heads.Projector(network.width, hidden, out, norm=True)
        else:
            self.cmr = trunk.cmr_encoder(network)
            if preset.wide_image_projector:  # 2048, 2048, 256
                hidden, out = self.cmr.out, 2 * out
            self.head = heads.Projector(self.cmr.out, hidden, out)

    @staticmethod
    def defaults(preset: Preset, modality: str = "cmr") -> dict[str, float]:
        """Every knob of that modality."""
        return dict(_KNOBS[modality])

    def forward(self, batch: Tensors, noise: Tensors | None, knobs: Knobs) -> dict[str, Tensor]:
        """Contrast two views of batch["ecg"] (n, 12, time) or batch["cmr"] (n, 3, h, h)."""
        knobs = {**self.knobs, **knobs}
        a, b = map(self.head, self.embeddings(batch, noise or {}, knobs))
        return {"loss": losses.nt_xent(a, b, knobs["temperature"]), "top1": losses.retrieval(a, b)}
