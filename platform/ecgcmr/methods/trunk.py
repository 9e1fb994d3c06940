"""The encoders of ECGs and of images, their augmentations and the pooled embedding of an ECG.

A method of ECGs alone takes the functions that it needs; one of any signal asks `encodings` for
them.
"""

from typing import Any

from torch import Tensor, nn

from ecgcmr.errors import InputError
from ecgcmr.nn import Network, resnet, vit
from ecgcmr.presets import Preset
from ecgcmr.signals import augment as views


def ecg_encoder(network: Network, preset: Preset, samples: int) -> vit.ViT:
    """The ECG transformer for records of `samples` samples, without its final norm: what pools has
    its own.

    Raises:
        InputError: it reads a record in parts of a crop's length, and they do not fill it.
    """
    times, parts = samples // network.patch, 1
    if preset.finetune_ecg == "parts" and samples > network.crop:
        parts = samples // network.crop
        if samples % network.crop or network.crop % network.patch:
            raise InputError(
                f"network.crop={network.crop}: parts of this length do not fill the {samples} "
                f"samples that the network sees; choose a divisor and a multiple of {network.patch}"
            )
    encoder = vit.ViT(
        network.width,
        network.depth,
        network.heads,
        network.patch,
        times,
        norm=False,
        parts=parts,
    )
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
