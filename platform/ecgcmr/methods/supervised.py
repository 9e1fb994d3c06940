"""Learning from labels: fine-tuning an encoder that was started from pre-training, or a baseline that was not.

Diseases are two classes under cross-entropy, phenotypes z-scored numbers under the squared error of those that are
known; the target's dtype says which. All weights train; a linear probe is layer decay 0. Source: section IV-C.2.
"""

import torch
from torch import Tensor

from ecgcmr.methods import losses, trunk
from ecgcmr.methods.contract import Knobs, Method, Tensors
from ecgcmr.nn import Network, heads, resnet, vit
from ecgcmr.presets import Preset
from ecgcmr.signals import augment

# Centres of the paper's grid. It gives no rates for the image baseline; these are ours.
_KNOBS = {
    "ecg": {
        "lr": 1e-5,
        "weight_decay": 0.1,
        "layer_decay": 0.75,
        "drop_path": 0.1,
        "label_smoothing": 0.1,
    },
    "cmr": {"lr": 1e-4, "weight_decay": 0.1, "layer_decay": 1.0, "label_smoothing": 0.1},
}


class Supervised(Method):
    """An encoder and a head that answers."""

    modalities = ("ecg", "cmr")
    needs = ("ecg",)

    def __init__(
        self, network: Network, preset: Preset, *, outputs: int, modality: str, samples: int
    ) -> None:
        """Build the encoder of `modality` for ECGs of `samples` samples, with a head of `outputs` numbers."""
        super().__init__(network, preset, outputs=outputs, modality=modality, samples=samples)
        self.preset, self.modality, self.depth = preset, modality, network.depth
        self.needs = (modality,)
        self.parts = {modality: modality}
        self.view: augment.EcgView | augment.CmrView
        self.head: heads.EcgHead | heads.CmrHead
        if modality == "ecg":
            self.depths = network.depth + 1
            self.view = trunk.ecg_view(
                preset,
                samples,
                sigma=0.2,
                magnitude=0.075,
                surrogate_rate=preset.surrogate_rate,
                crops=preset.crop_finetune,
            )
            self.ecg = trunk.ecg_encoder(network, preset, samples)
            self.head = heads.EcgHead(
                network.width, network.heads, outputs, double_norm=preset.double_norm
            )
        else:
            self.depths = 5
            self.view = trunk.cmr_view(network, preset, preset.augment_rate)
            self.cmr = trunk.cmr_encoder(network)
            self.head = heads.CmrHead(self.cmr.out, outputs)

    @staticmethod
    def defaults(preset: Preset, modality: str = "ecg") -> dict[str, float]:
        """Every knob of that modality; patience and max_delta rule early stopping (epochs; the metric's unit)."""
        return {
            **_KNOBS[modality],
            "warmup": preset.finetune_warmup,
            "patience": 25.0,
            "max_delta": preset.max_delta,
        }

    def lr_scale(self, batch: int) -> float:
        """What the learning rate is multiplied by at this batch size."""
        return batch / self.preset.lr_batch if self.preset.lr_batch else 1.0

    def depth_of(self, name: str) -> int:
        """Layer-decay depth, 0 at the stem to `depths` at the head."""
        part, _, rest = name.partition(".")
        if part == "ecg":
            return vit.depth_of(rest, self.depth)
        return resnet.depth_of(rest) if part == "cmr" else self.depths

    def decays(self, name: str, ndim: int) -> bool:
        """Whether weight decay applies: to matrices but not to positions and the class token (BEiT's rule)."""
        return ndim > 1 and name not in ("ecg.pos_embed", "ecg.cls_token")

    def noise(self, generator: torch.Generator, n: int, augment: bool = True) -> dict[str, Tensor]:
        """Numbers for `n` subjects; none for evaluation."""
        if not augment:
            return {}
        drawn = self.view.noise(generator, n)
        if self.modality == "ecg":
            drawn["drop_path"] = torch.rand(
                n, self.depth, 2, generator=generator, device=generator.device
            )
        return drawn

    def forward(self, batch: Tensors, noise: Tensors | None, knobs: Knobs) -> dict[str, Tensor]:
        """Answer; batch["target"] is (n,) class numbers or (n, outputs) numbers with NaN, or absent: {"logits"}."""
        noise, knobs = noise or {}, {**self.knobs, **knobs}
        x = self.view(batch[self.modality], noise)
        if self.modality == "ecg":
            embedded = self.ecg(x, drops=noise.get("drop_path"), rate=knobs["drop_path"])
        else:
            embedded = self.cmr(x, self.training and bool(noise))
        logits = self.head(embedded)
        if "target" not in batch:
            return {"logits": logits}
        if batch["target"].is_floating_point():
            loss = losses.masked_mse(logits, batch["target"])
            if self.preset.mse_counts_missing:
                loss = loss * (~batch["target"].isnan()).to(loss.dtype).mean()
            return {"loss": loss}
        smoothing = (
            knobs["label_smoothing"] if noise else 0.0
        )  # judged without smoothing, as in the authors' code
        return {"loss": losses.cross_entropy(logits, batch["target"], smoothing)}
