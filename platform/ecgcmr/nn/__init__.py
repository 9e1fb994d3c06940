"""Networks: what has weights, and nothing that knows of data, trials or Ray."""

from dataclasses import dataclass

from ecgcmr.signals import SIGNALS


@dataclass(frozen=True)
class Network:
    """Every size that fixes a tensor's shape; the defaults are the paper's (section IV-C.1).

    Attributes:
        crop: ECG samples seen in pre-training (0.5 of 5,000).
        patch: samples in one patch of one lead.
        width, depth, heads: the ECG transformer.
        decoder_width, decoder_depth, decoder_heads: MAE's decoder (not in the text; the authors'
            code).
        blocks: bottlenecks in the four stages of the image encoder; (3, 4, 6, 3) is ResNet-50.
        image_width: channels of the first stage; 64 is ResNet-50, whose embedding then has
            32 · 64 = 2,048 numbers.
        image_size: pixels of the side of the square that the image encoder sees.
        hidden, projection: hidden and output width of both projectors.
    """

    crop: int = 2500
    patch: int = 100
    width: int = 384
    depth: int = 3
    heads: int = 6
    decoder_width: int = 256
    decoder_depth: int = 2
    decoder_heads: int = 8
    blocks: tuple[int, int, int, int] = (3, 4, 6, 3)
    image_width: int = 64
    image_size: int = 210
    hidden: int = 512
    projection: int = 128

    @property
    def ecg_tokens(self) -> int:
        """Tokens of a whole ECG, with the class token."""
        leads, samples = SIGNALS["ecg"].shape
        return leads * (samples // self.patch) + 1
