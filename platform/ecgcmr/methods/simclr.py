"""SimCLR: two augmented views of a subject attract, the views of all others repel; of CMR images, or of ECGs.

Source: Chen et al. 2020, arXiv:2002.05709; for CMR images section IV-C.1, for ECGs the baseline of section IV-D.1.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from ecgcmr import augment, losses
from ecgcmr.methods.contract import Method, of_view
from ecgcmr.nn import Network, heads, resnet, vit
from ecgcmr.presets import Preset

# The CMR encoder's rate is in the authors' run.sh only; the paper gives the ECG baseline's.
_KNOBS = {
    "cmr": {"lr": 1e-4, "weight_decay": 1e-4, "warmup": 0.1, "temperature": 0.1},
    "ecg": {"lr": 3e-3, "weight_decay": 1e-4, "warmup": 0.1, "temperature": 0.1, "drop_path": 0.1},
}


class SimCLR(Method):
    """Contrastive learning within one modality."""

    modalities = ("cmr", "ecg")
    needs = ("cmr",)

    def __init__(self, network: Network, preset: Preset, *, outputs: int, modality: str, samples: int) -> None:
        """Build the encoder of `modality` and its projector; `outputs` is not used."""
        super().__init__(network, preset, outputs=outputs, modality=modality, samples=samples)
        self.modality = modality
        self.needs = (modality,)
        self.parts = {modality: modality}
        self.knobs = self.defaults(preset, modality)
        self.optimiser = "adam" if preset.coupled_decay else "adamw"
        self.views: tuple[augment.EcgView | augment.CmrView, ...]
        if modality == "ecg":
            view = augment.EcgView(samples, multiplicative=preset.multiplicative_jitter, flips=0.5)
            self.views = (view, view)
            times = samples // network.patch
            self.ecg = vit.ViT(network.width, network.depth, network.heads, network.patch, times, norm=False)
            self.depth = network.depth
        else:
            always, mostly = (
                augment.CmrView(network.image_size, preset.saturation, preset.rotation_rate, rate)
                for rate in (1.0, preset.augment_rate)
            )
            self.views = (always, mostly)
            self.cmr = resnet.ResNet(network.blocks, network.image_width)
        width = network.width if modality == "ecg" else self.cmr.out
        self.head = heads.Projector(width, network.hidden, network.projection, norm=modality == "ecg")

    @staticmethod
    def defaults(preset: Preset, modality: str = "cmr") -> dict[str, float]:
        """Every knob of that modality."""
        return dict(_KNOBS[modality])

    def noise(self, generator: torch.Generator, n: int, augment: bool = True) -> dict[str, Tensor]:
        """Numbers for `n` subjects; evaluation compares two augmented views as well."""
        drawn: dict[str, Tensor] = {}
        for i, view in enumerate(self.views):
            drawn |= {f"{i}.{name}": u for name, u in view.noise(generator, n).items()}
        if augment and self.modality == "ecg":
            drawn["drop_path"] = torch.rand(n, 2, self.depth, 2, generator=generator, device=generator.device)
        return drawn

    def forward(
        self, batch: Mapping[str, Tensor], noise: Mapping[str, Tensor] | None, knobs: Mapping[str, Tensor | float]
    ) -> dict[str, Tensor]:
        """Contrast two views of batch["ecg"] (n, 12, time) or batch["cmr"] (n, 3, h, h)."""
        noise, knobs = noise or {}, {**self.knobs, **knobs}
        a, b = (self._project(batch[self.modality], i, noise, knobs) for i in range(2))
        return {"loss": losses.nt_xent(a, b, knobs["temperature"]), "top1": losses.retrieval(a, b)}

    def _project(self, x: Tensor, i: int, noise: Mapping[str, Tensor], knobs: Mapping[str, Tensor | float]) -> Tensor:
        own = of_view(noise, i)
        x = self.views[i](x, own)
        if self.modality == "cmr":
            return self.head(self.cmr(x, self.training and bool(noise)))
        drops = noise["drop_path"][:, i] if "drop_path" in noise else None
        return self.head(self.ecg(x, drops=drops, rate=knobs["drop_path"])[:, 1:].mean(1))
