"""SimCLR: two augmented views of a subject attract, those of all others repel; of any signal.

Source: Chen et al. 2020, arXiv:2002.05709; for CMR images section IV-C.1, for ECGs the baseline of
section IV-D.1.
"""

from torch import Tensor

from ecgcmr.methods import encodings, losses, two_views
from ecgcmr.methods.contract import EverySignal, Knobs, Tensors
from ecgcmr.nn import Network
from ecgcmr.presets import Preset


class SimCLR(two_views.TwoViews):
    """Contrastive learning within one modality."""

    modalities = EverySignal("cmr")
    needs = ("cmr",)

    def __init__(
        self, network: Network, preset: Preset, *, outputs: int, modality: str, samples: int
    ) -> None:
        """Build the encoder of `modality` and its projector; `outputs` is not used."""
        super().__init__(network, preset, outputs=outputs, modality=modality, samples=samples)
        self.needs = (modality,)
        self.parts = {modality: modality}
        self.add_module(modality, self.encoding.build(network, preset, samples))
        hidden, out = network.hidden, network.projection
        if preset.wide_image_projector and self.encoding.has_maps:  # 2048, 2048, 256
            hidden, out = self.encoding.width(network), 2 * out
        self.head = self.encoding.projector(network, hidden, out)

    @staticmethod
    def defaults(preset: Preset, modality: str = "cmr") -> dict[str, float]:
        """Every knob of that modality."""
        common = {"weight_decay": 1e-4, "warmup": 0.1, "temperature": 0.1}
        return {**common, **encodings.of(modality).knobs["simclr"]}

    def forward(self, batch: Tensors, noise: Tensors | None, knobs: Knobs) -> dict[str, Tensor]:
        """Contrast two views of the modality's entry of the batch."""
        knobs = {**self.knobs, **knobs}
        a, b = map(self.head, self.embeddings(batch, noise or {}, knobs))
        return {"loss": losses.nt_xent(a, b, knobs["temperature"]), "top1": losses.retrieval(a, b)}
