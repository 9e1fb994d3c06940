"""What methods share below their projectors: encoders, views, the pooled embedding, and two views of every subject.

The one idea: a method that compares two views of a subject inherits `TwoViews` and adds a projector and a loss; any other
takes the functions that it needs.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ecgcmr.methods.contract import Knobs, Method, Tensors, of_view
from ecgcmr.nn import Network, resnet, vit
from ecgcmr.presets import Preset
from ecgcmr.signals import augment as views


def ecg_encoder(network: Network, preset: Preset, samples: int) -> vit.ViT:
    """The ECG transformer for records of `samples` samples, without its final norm: what pools has its own."""
    times = samples // network.patch
    encoder = vit.ViT(network.width, network.depth, network.heads, network.patch, times, norm=False)
    if preset.random_positions:
        nn.init.trunc_normal_(encoder.pos_embed, std=0.02)
        nn.init.normal_(encoder.cls_token, std=1e-6)
    return encoder


def cmr_encoder(network: Network) -> resnet.ResNet:
    """The image encoder."""
    return resnet.ResNet(network.blocks, network.image_width)


def ecg_view(preset: Preset, samples: int, **strength: Any) -> views.EcgView:
    """Augmentation of ECGs, of pre-training's strength unless told otherwise (section IV-C.2)."""
    return views.EcgView(samples, multiplicative=preset.multiplicative_jitter, **strength)


def cmr_view(network: Network, preset: Preset, rate: float) -> views.CmrView:
    """Augmentation of the share `rate` of the images (section IV-C.2)."""
    return views.CmrView(network.image_size, preset.saturation, preset.rotation_rate, rate)


def contrastive_optimiser(preset: Preset) -> str:
    """What trains every pre-training but MAE: AdamW, or Adam with coupled decay."""
    return "adam" if preset.coupled_decay else "adamw"


def embed(encoder: nn.Module, x: Tensor, drops: Tensor | None, rate: Tensor | float) -> Tensor:
    """The mean token, without the class token: (n, 12, samples) -> (n, width).

    Args:
        encoder: of `ecg_encoder`.
        x: (n, 12, samples).
        drops: (n, depth, 2) uniforms for drop path, or none.
        rate: of drop path.
    """
    return encoder(x, drops=drops, rate=rate)[:, 1:].mean(1)


class TwoViews(Method):
    """Two augmented views of every subject, encoded alike. Left to a method are encoder, projector and loss.

    Attributes:
        passes: axes of `drop_path` between subjects and blocks: one row per view, for each encoder that sees it.
        views: the augmentation of either view.
        ecg, cmr: the encoder, which the method builds under the name of its modality.
    """

    modalities: ClassVar[tuple[str, ...]] = ("ecg",)
    needs = ("ecg",)
    parts = {"ecg": "ecg"}
    passes: ClassVar[tuple[int, ...]] = (2,)

    views: tuple[views.EcgView | views.CmrView, ...]
    ecg: vit.ViT
    cmr: resnet.ResNet

    def __init__(
        self,
        network: Network,
        preset: Preset,
        *,
        outputs: int,
        modality: str,
        samples: int,
        **strength: Any,
    ) -> None:
        """Settle views and optimiser; `outputs` is not used.

        Args:
            network: sizes.
            preset: paper or authors.
            outputs: not used.
            modality: one of `modalities`.
            samples: of a view of an ECG.
            strength: fields of `augment.EcgView` that differ from pre-training's.
        """
        super().__init__(network, preset, outputs=outputs, modality=modality, samples=samples)
        self.optimiser = contrastive_optimiser(preset)
        # A trial names a modality whatever its method; a method of one kind of signal ignores it.
        self.modality = modality if modality in self.modalities else self.modalities[0]
        self.depth = network.depth
        rates = 1.0, preset.augment_rate  # the first view is always augmented
        if self.modality == "cmr":
            self.views = tuple(cmr_view(network, preset, rate) for rate in rates)
        else:
            strength = {"flips": 0.5, "spectrum": preset.spec_augment, **strength}
            self.views = tuple(ecg_view(preset, samples, rate=rate, **strength) for rate in rates)

    def noise(self, generator: torch.Generator, n: int, augment: bool = True) -> dict[str, Tensor]:
        """Numbers for `n` subjects; evaluation compares two augmented views as well, without drop path."""
        drawn: dict[str, Tensor] = {}
        for i, view in enumerate(self.views):
            drawn |= {f"{i}.{name}": u for name, u in view.noise(generator, n).items()}
        if augment and self.modality == "ecg":
            drawn["drop_path"] = views.uniform(generator, n, *self.passes, self.depth, 2)
        return drawn

    def seen(self, batch: Tensors, noise: Tensors) -> list[Tensor]:
        """Both views, of batch["ecg"] (n, 12, time) or batch["cmr"] (n, 3, h, h)."""
        return [view(batch[self.modality], of_view(noise, i)) for i, view in enumerate(self.views)]

    def embeddings(self, batch: Tensors, noise: Tensors, knobs: Knobs) -> tuple[Tensor, Tensor]:
        """Embeddings of both views, (n, width) each, not of length one."""
        first, second = (
            self._embed(x, i, noise, knobs) for i, x in enumerate(self.seen(batch, noise))
        )
        return first, second

    def _embed(self, x: Tensor, i: int, noise: Tensors, knobs: Knobs) -> Tensor:
        if self.modality == "cmr":
            return self.cmr(x, self.training and bool(noise))
        drops = noise["drop_path"][:, i] if "drop_path" in noise else None
        return embed(self.ecg, x, drops, knobs["drop_path"])
