"""Multimodal contrastive learning: an ECG and the CMR image of the same subject attract (paper, section III-B).

Both encoders learn; afterwards the ECG encoder answers alone. Averaging the tokens is this stage's pooling; attention
pooling replaces it in fine-tuning (section IV-C.2).
"""

import torch
from torch import Tensor, nn

from ecgcmr.methods import losses, trunk
from ecgcmr.methods.contract import Knobs, Method, Tensors, of_view
from ecgcmr.nn import Network, heads
from ecgcmr.presets import Preset


class MMCL(Method):
    """Contrastive learning between ECG and CMR."""

    modalities = ("ecg+cmr",)
    needs = ("ecg", "cmr")
    parts = {"ecg": "ecg", "cmr": "cmr"}
    beside = {
        "head": "head"
    }  # the projectors, without which ECG and image cannot be compared (section III-C)

    def __init__(
        self, network: Network, preset: Preset, *, outputs: int, modality: str, samples: int
    ) -> None:
        """Build both encoders and projectors for records of `samples` samples; `outputs`, `modality` are not used."""
        super().__init__(network, preset, outputs=outputs, modality=modality, samples=samples)
        self.optimiser = trunk.contrastive_optimiser(preset)
        self.ecg_view = trunk.ecg_view(preset, samples, rate=preset.augment_rate)
        self.cmr_view = trunk.cmr_view(network, preset, preset.augment_rate)
        self.depth = network.depth
        self.ecg = trunk.ecg_encoder(network, preset, samples)
        self.cmr = trunk.cmr_encoder(network)
        hidden, out = network.hidden, network.projection
        self.head = nn.ModuleDict(
            {
                "ecg": heads.Projector(network.width, hidden, out, norm=True),
                "cmr": heads.Projector(self.cmr.out, hidden, out),
            }
        )

    @staticmethod
    def defaults(preset: Preset, modality: str = "ecg+cmr") -> dict[str, float]:
        """Every knob (section IV-C.2); drop path is in the authors' configuration, where the paper is silent."""
        contrast = {"temperature": 0.1, "lambda": 0.75}
        return {"lr": 1e-4, "weight_decay": 1e-4, "warmup": 0.1, **contrast, "drop_path": 0.1}

    def noise(self, generator: torch.Generator, n: int, augment: bool = True) -> dict[str, Tensor]:
        """Numbers for `n` pairs; none for evaluation."""
        if not augment:
            return {}
        drawn = {f"ecg.{name}": u for name, u in self.ecg_view.noise(generator, n).items()}
        drawn |= {f"cmr.{name}": u for name, u in self.cmr_view.noise(generator, n).items()}
        drawn["drop_path"] = torch.rand(
            n, self.depth, 2, generator=generator, device=generator.device
        )
        return drawn

    def forward(self, batch: Tensors, noise: Tensors | None, knobs: Knobs) -> dict[str, Tensor]:
        """Contrast batch["ecg"] (n, 12, time) with batch["cmr"] (n, 3, h, h)."""
        knobs = {**self.knobs, **knobs}
        signal, image = self.project(batch, noise or {}, knobs["drop_path"])
        loss = losses.clip(signal, image, knobs["temperature"], knobs["lambda"])
        return {"loss": loss, "top1": losses.retrieval(signal, image)}

    def project(
        self, batch: Tensors, noise: Tensors, drop_path: Tensor | float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Projections of both modalities, (n, projection) each, not yet of length one."""
        signal = self.ecg_view(batch["ecg"], of_view(noise, "ecg"))
        image = self.cmr_view(batch["cmr"], of_view(noise, "cmr"))
        embedded = trunk.embed(self.ecg, signal, noise.get("drop_path"), drop_path)
        return self.head["ecg"](embedded), self.head["cmr"](
            self.cmr(image, self.training and bool(noise))
        )
