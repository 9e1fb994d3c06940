"""Learning from labels: fine-tuning an encoder that was started from pre-training, or a baseline
that was not.

Diseases are two classes under cross-entropy, phenotypes z-scored numbers under the squared error of
those that are known; the target's dtype says which. All weights train; a linear probe is layer
decay 0. Source: section IV-C.2.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ecgcmr.methods import encodings, losses
from ecgcmr.methods.contract import EverySignal, Knobs, Method, Tensors
from ecgcmr.nn import Network, load
from ecgcmr.presets import Preset


class Supervised(Method):
    """An encoder and a head that answers."""

    modalities = EverySignal("ecg")
    needs = ("ecg",)

    def __init__(
        self, network: Network, preset: Preset, *, outputs: int, modality: str, samples: int
    ) -> None:
        """Build the encoder of `modality` for ECGs of `samples` samples, with a head of `outputs`
        numbers.
        """
        super().__init__(network, preset, outputs=outputs, modality=modality, samples=samples)
        self.preset, self.modality, self.network = preset, modality, network
        self.needs = (modality,)
        self.parts = {modality: modality}
        self.encoding = encodings.of(modality)
        self.depths = self.encoding.depths(network)
        self.view = self.encoding.tuning_view(network, preset, samples)
        self.add_module(modality, self.encoding.build(network, preset, samples))
        self.head = self.encoding.head(network, preset, outputs)

    @staticmethod
    def defaults(preset: Preset, modality: str = "ecg") -> dict[str, float]:
        """Every knob of that modality; patience and max_delta rule early stopping (epochs; the
        metric's unit).
        """
        return {
            **encodings.of(modality).knobs["supervised"],
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
        if part != self.modality:
            return self.depths
        return self.encoding.depth_of(rest, self.network)

    def decays(self, name: str, ndim: int) -> bool:
        """Whether weight decay applies: to matrices but not to what the encoding excepts."""
        exceptions = {f"{self.modality}.{tensor}" for tensor in self.encoding.no_decay}
        return ndim > 1 and name not in exceptions

    def load(self, part: str, weights: Mapping[str, np.ndarray]) -> None:
        """Start the encoder from another's weights, its positions for longer records as the preset
        has them.

        Raises:
            InputError: they are not of this network.
        """
        continues = self.preset.finetune_ecg == "continued"
        load.into(self.get_submodule(self.parts[part]), weights, part, continues=continues)

    def noise(self, generator: torch.Generator, n: int, augment: bool = True) -> dict[str, Tensor]:
        """Numbers for `n` subjects; none for evaluation."""
        if not augment:
            return {}
        noise = self.view.noise(generator, n)
        if self.encoding.drops:
            noise["drop_path"] = torch.rand(
                n, self.network.depth, 2, generator=generator, device=generator.device
            )
        return noise

    def forward(self, batch: Tensors, noise: Tensors | None, knobs: Knobs) -> dict[str, Tensor]:
        """Answer; batch["target"] is (n,) class numbers or (n, outputs) numbers with NaN, or
        absent: {"logits"}.
        """
        noise, knobs = noise or {}, {**self.knobs, **knobs}
        x = self.view(batch[self.modality], noise)
        drops, rate = noise.get("drop_path"), knobs.get("drop_path", 0.0)
        learns = self.training and bool(noise)
        encoder = getattr(self, self.modality)
        logits = self.head(self.encoding.features(encoder, x, drops, rate, learns))
        if "target" not in batch:
            return {"logits": logits}
        if batch["target"].is_floating_point():
            loss = losses.masked_mse(logits, batch["target"])
            if self.preset.mse_counts_missing:
                loss = loss * (~batch["target"].isnan()).to(loss.dtype).mean()
            return {"loss": loss}
        smoothing = (
            knobs["label_smoothing"] if noise else 0.0
        )  # evaluated without smoothing, as in the authors' code
        return {"loss": losses.cross_entropy(logits, batch["target"], smoothing)}
