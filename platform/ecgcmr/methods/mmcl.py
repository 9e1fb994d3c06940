"""Multimodal contrastive learning: an ECG and the CMR image of the same subject attract (paper, section III-B).

Both encoders learn; afterwards the ECG encoder answers alone. Averaging the tokens is this stage's pooling; attention
pooling replaces it in fine-tuning (section IV-C.2).
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ecgcmr import augment, losses
from ecgcmr.methods.contract import Method
from ecgcmr.nn import Network, heads, resnet, vit
from ecgcmr.presets import Preset


class MMCL(Method):
    """Contrastive learning between ECG and CMR."""

    modalities = ("ecg+cmr",)
    needs = ("ecg", "cmr")
    parts = {"ecg": "ecg", "cmr": "cmr"}

    def __init__(self, network: Network, preset: Preset, *, outputs: int, modality: str, samples: int) -> None:
        """Build both encoders and projectors for records of `samples` samples; `outputs`, `modality` are not used."""
        super().__init__(network, preset, outputs=outputs, modality=modality, samples=samples)
        self.knobs = self.defaults(preset, modality)
        self.optimiser = "adam" if preset.coupled_decay else "adamw"
        rate = preset.augment_rate
        self.ecg_view = augment.EcgView(samples, multiplicative=preset.multiplicative_jitter, rate=rate)
        self.cmr_view = augment.CmrView(network.image_size, preset.saturation, preset.rotation_rate, rate)
        self.depth = network.depth
        times = samples // network.patch
        self.ecg = vit.ViT(network.width, network.depth, network.heads, network.patch, times, norm=False)
        self.cmr = resnet.ResNet(network.blocks, network.image_width)
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
        drawn["drop_path"] = torch.rand(n, self.depth, 2, generator=generator, device=generator.device)
        return drawn

    def forward(
        self, batch: Mapping[str, Tensor], noise: Mapping[str, Tensor] | None, knobs: Mapping[str, Tensor | float]
    ) -> dict[str, Tensor]:
        """Contrast batch["ecg"] (n, 12, time) with batch["cmr"] (n, 3, h, h)."""
        knobs = {**self.knobs, **knobs}
        signal, image = self.project(batch, noise or {}, knobs["drop_path"])
        loss = losses.clip(signal, image, knobs["temperature"], knobs["lambda"])
        return {"loss": loss, "top1": losses.retrieval(signal, image)}

    def project(
        self, batch: Mapping[str, Tensor], noise: Mapping[str, Tensor], drop_path: Tensor | float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Projections of both modalities, (n, projection) each, not yet of length one."""
        own = {
            part: {k.removeprefix(part): u for k, u in noise.items() if k.startswith(part)} for part in ("ecg.", "cmr.")
        }
        tokens = self.ecg(self.ecg_view(batch["ecg"], own["ecg."]), drops=noise.get("drop_path"), rate=drop_path)
        embedding = self.cmr(self.cmr_view(batch["cmr"], own["cmr."]), self.training and bool(noise))
        return self.head["ecg"](tokens[:, 1:].mean(1)), self.head["cmr"](embedding)
