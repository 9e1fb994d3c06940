"""How a kind of network reads a signal: one entry per kind, which the signal's entry names.

The one idea: what a method needs to know of a modality is here, so that no method asks which it is.
An ECG goes through the transformer, images through the ResNet; a third signal names one of them, or
a plugin's own kind.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from ecgcmr import plugins
from ecgcmr.errors import InputError, unknown
from ecgcmr.methods import trunk
from ecgcmr.nn import Network, heads, resnet, vit
from ecgcmr.presets import Preset
from ecgcmr.signals import SIGNALS


class View(Protocol):
    """One augmented view of a signal (`signals.augment`)."""

    def noise(self, generator: torch.Generator, n: int) -> dict[str, Tensor]:
        """Numbers for `n` subjects."""
        ...

    def __call__(self, x: Tensor, noise: Mapping[str, Tensor]) -> Tensor:
        """What the encoder sees; without noise as in evaluation."""
        ...


class Encoding(ABC):
    """A kind of network, and what depends on it.

    Attributes:
        drops: whether its blocks take drop path, (n, network.depth, 2) uniforms.
        layer_normed: whether a projector layer-normalises its embedding first.
        has_maps: whether it has feature maps by location (`maps`).
        pooling: what an embedding is, in words.
        no_decay: tensors of more than one axis to which no weight decay applies.
        knobs: method -> its hyperparameters beside those that all signals share.
    """

    drops: ClassVar[bool] = False
    layer_normed: ClassVar[bool] = False
    has_maps: ClassVar[bool] = False
    pooling: ClassVar[str]
    no_decay: ClassVar[tuple[str, ...]] = ()
    knobs: ClassVar[Mapping[str, Mapping[str, float]]]

    @abstractmethod
    def build(self, network: Network, preset: Preset, samples: int) -> nn.Module:
        """An encoder with fresh weights; `samples` are those of an ECG."""

    @abstractmethod
    def width(self, network: Network) -> int:
        """Numbers of an embedding."""

    @abstractmethod
    def view(self, network: Network, preset: Preset, samples: int, **strength: Any) -> View:
        """An augmented view, of pre-training's strength unless told otherwise."""

    @abstractmethod
    def view_of_two(
        self, network: Network, preset: Preset, samples: int, rate: float, **strength: Any
    ) -> View:
        """A view of the contrast within one signal."""

    @abstractmethod
    def tuning_view(self, network: Network, preset: Preset, samples: int) -> View:
        """A view of fine-tuning's strength."""

    @abstractmethod
    def features(
        self,
        encoder: nn.Module,
        x: Tensor,
        drops: Tensor | None,
        rate: Tensor | float,
        learns: bool,
    ) -> Tensor:
        """What a head reads of a view x.

        Args:
            encoder: of `build`.
            x: (n, …), of a view.
            drops: (n, depth, 2) uniforms for drop path, or none.
            rate: of drop path.
            learns: whether batch norms use, and track, this batch's statistics.
        """

    @abstractmethod
    def embed(
        self,
        encoder: nn.Module,
        x: Tensor,
        drops: Tensor | None,
        rate: Tensor | float,
        learns: bool,
    ) -> Tensor:
        """What contrastive learning compares, (n, width); arguments as for `features`."""

    @abstractmethod
    def head(self, network: Network, preset: Preset, outputs: int) -> nn.Module:
        """What answers from `features`."""

    @abstractmethod
    def depths(self, network: Network) -> int:
        """The deepest layer-decay depth, the head's."""

    @abstractmethod
    def depth_of(self, name: str, network: Network) -> int:
        """The layer-decay depth of an encoder's tensor."""

    @abstractmethod
    def widest(self, network: Network, batch: int) -> int:
        """Bytes of the largest result of a layer for a batch, in 16 bit."""

    @abstractmethod
    def bytes_of(self, network: Network, batch: int) -> tuple[float, float]:
        """Numbers of weights, and bytes of the activations that a step on a batch holds."""

    def maps(self, encoder: nn.Module, x: Tensor) -> Tensor:
        """Features by location before pooling, (n, width, h, w), for evaluation.

        Raises:
            InputError: it has none.
        """
        raise InputError(f"{type(encoder).__name__} has no feature maps; similarity maps need some")

    def projector(self, network: Network, hidden: int, out: int) -> heads.Projector:
        """From an embedding to the space of a contrast."""
        return heads.Projector(self.width(network), hidden, out, norm=self.layer_normed)


class Transformer(Encoding):
    """The ECG transformer: patches of single leads."""

    drops = True
    layer_normed = True
    pooling = "mean token"
    no_decay = ("pos_embed", "cls_token")  # BEiT's rule
    # Supervised: centres of the paper's grid. SimCLR: the paper's ECG baseline.
    knobs = {
        "supervised": {
            "lr": 1e-5,
            "weight_decay": 0.1,
            "layer_decay": 0.75,
            "drop_path": 0.1,
            "label_smoothing": 0.1,
        },
        "simclr": {"lr": 3e-3, "drop_path": 0.1},
    }

    def build(self, network: Network, preset: Preset, samples: int) -> vit.ViT:
        """An encoder for records of `samples` samples."""
        return trunk.ecg_encoder(network, preset, samples)

    def width(self, network: Network) -> int:
        """Of a token."""
        return network.width

    def view(self, network: Network, preset: Preset, samples: int, **strength: Any) -> View:
        """Crop, surrogate, jitter, rescale."""
        return trunk.ecg_view(preset, samples, **strength)

    def view_of_two(
        self, network: Network, preset: Preset, samples: int, rate: float, **strength: Any
    ) -> View:
        """With flips, and gaps in the spectrum as the preset has them."""
        strengths = {"flips": 0.5, "spectrum": preset.spec_augment, **strength}
        return trunk.ecg_view(preset, samples, rate=rate, **strengths)

    def tuning_view(self, network: Network, preset: Preset, samples: int) -> View:
        """Weaker jitter and surrogates (section IV-C.2)."""
        return trunk.ecg_view(
            preset,
            samples,
            sigma=0.2,
            magnitude=0.075,
            surrogate_rate=preset.surrogate_rate,
            crops=preset.finetune_ecg == "crop",
        )

    def features(
        self,
        encoder: nn.Module,
        x: Tensor,
        drops: Tensor | None,
        rate: Tensor | float,
        learns: bool,
    ) -> Tensor:
        """Tokens, (n, 1 + tokens, width)."""
        return encoder(x, drops=drops, rate=rate)

    def embed(
        self,
        encoder: nn.Module,
        x: Tensor,
        drops: Tensor | None,
        rate: Tensor | float,
        learns: bool,
    ) -> Tensor:
        """The mean token."""
        return trunk.embed(encoder, x, drops, rate)

    def head(self, network: Network, preset: Preset, outputs: int) -> nn.Module:
        """Attention pooling."""
        return heads.EcgHead(network.width, network.heads, outputs, double_norm=preset.double_norm)

    def depths(self, network: Network) -> int:
        """One per block, and the head's."""
        return network.depth + 1

    def depth_of(self, name: str, network: Network) -> int:
        """By block."""
        return vit.depth_of(name, network.depth)

    def widest(self, network: Network, batch: int) -> int:
        """An MLP's inside."""
        return 2 * batch * network.ecg_tokens * 4 * network.width

    def bytes_of(self, network: Network, batch: int) -> tuple[float, float]:
        """Activations of a block in 16 bit are about 34 · tokens · width · batch bytes; doubled, as
        norms run in 32 bit.

        Source: Korthikanti et al. 2022, eq. 1, without the attention matrix, which fused attention
            does not keep.
        """
        width, depth = network.width, network.depth
        weights = 12 * width**2 * depth + 4 * width**2
        return weights, 2 * 34 * network.ecg_tokens * width * (depth + 1) * batch


class ResNet(Encoding):
    """The image encoder: three frames."""

    has_maps = True
    pooling = "pooled features"
    # The paper gives no rates for the image baseline; these are ours. SimCLR's is in the authors'
    # run.sh only.
    knobs = {
        "supervised": {"lr": 1e-4, "weight_decay": 0.1, "layer_decay": 1.0, "label_smoothing": 0.1},
        "simclr": {"lr": 1e-4},
    }

    def build(self, network: Network, preset: Preset, samples: int) -> resnet.ResNet:
        """An encoder of images of three channels."""
        return trunk.cmr_encoder(network)

    def width(self, network: Network) -> int:
        """Of the last feature map."""
        return 8 * network.image_width * resnet.Bottleneck.expansion

    def view(self, network: Network, preset: Preset, samples: int, **strength: Any) -> View:
        """Resize, colour, flip, rotate and crop the share `rate` of the images."""
        return trunk.cmr_view(network, preset, **strength)

    def view_of_two(
        self, network: Network, preset: Preset, samples: int, rate: float, **strength: Any
    ) -> View:
        """The view of pre-training."""
        return trunk.cmr_view(network, preset, rate)

    def tuning_view(self, network: Network, preset: Preset, samples: int) -> View:
        """The view of pre-training."""
        return trunk.cmr_view(network, preset, preset.augment_rate)

    def features(
        self,
        encoder: nn.Module,
        x: Tensor,
        drops: Tensor | None,
        rate: Tensor | float,
        learns: bool,
    ) -> Tensor:
        """Pooled features, (n, width)."""
        return encoder(x, learns)

    embed = features  # they are pooled already

    def head(self, network: Network, preset: Preset, outputs: int) -> nn.Module:
        """A linear layer."""
        return heads.CmrHead(self.width(network), outputs)

    def depths(self, network: Network) -> int:
        """The stem, four layers and the head."""
        return 5

    def depth_of(self, name: str, network: Network) -> int:
        """By layer."""
        return resnet.depth_of(name)

    def widest(self, network: Network, batch: int) -> int:
        """The first maps."""
        return 2 * batch * 4 * network.image_width * (network.image_size // 4) ** 2

    def bytes_of(self, network: Network, batch: int) -> tuple[float, float]:
        """In proportion to ResNet-50 at 224 × 224 pixels."""
        size, blocks = (network.image_size / 224) ** 2, sum(network.blocks)
        share = size * network.image_width / 64 * blocks / 16
        return 23.5e6 * (network.image_width / 64) ** 2, 90e6 * share * batch

    def maps(self, encoder: nn.Module, x: Tensor) -> Tensor:
        """The last feature map, (n, width, h, w)."""
        return encoder.maps(x, False)  # type: ignore[operator]


ENCODINGS: dict[str, Encoding] = {"transformer": Transformer(), "resnet": ResNet()}


def register(name: str, encoding: Encoding) -> None:
    """Add a kind of network, from a plugin.

    Raises:
        InputError: the name is taken.
    """
    plugins.register(ENCODINGS, "encoding", name, encoding)


def of(signal: str) -> Encoding:
    """How networks read a signal.

    Raises:
        InputError: no such signal, or its entry names no kind of network.
    """
    if signal not in SIGNALS:
        raise unknown("signal", signal, SIGNALS)
    kind = SIGNALS[signal].encoder
    if kind not in ENCODINGS:
        raise unknown(f"encoder of signal '{signal}'", kind, ENCODINGS)
    return ENCODINGS[kind]
