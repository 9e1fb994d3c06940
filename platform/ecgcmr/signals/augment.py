"""Augmentations as pure functions f(x, u, strength): batched, on the device, the same alone and in
a pack.

Every random number comes in as `u`, one row per sample, uniform in [0, 1) unless said otherwise;
nothing here draws. "Only with probability p" is `where(u < p, …)`, so there is no branch and
`torch.func.vmap` maps all of it. `EcgView` and `CmrView` put the functions in order and know which
numbers they need.
"""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ecgcmr.runtime import hardware
from ecgcmr.signals import LEADS

# -- ECG -------------------------------------------------------------------------------------------


def crop(x: Tensor, u: Tensor | None, length: int) -> Tensor:
    """`length` consecutive samples of each record, the same of all leads; the first ones without
    `u`.

    Args:
        x: (n, leads, time).
        u: (n,) uniforms; the start is ⌊u · (time − length + 1)⌋.
        length: of the result, at most time.
    """
    if u is None or x.shape[-1] == length:
        return x[..., :length]
    starts = (u * (x.shape[-1] - length + 1)).long()
    index = starts[:, None] + torch.arange(length, device=x.device)
    return x.gather(-1, index[:, None].expand(-1, x.shape[1], -1))


def jitter(x: Tensor, normal: Tensor, sigma: float) -> Tensor:
    """Gaussian noise, x + σ ε.

    Args:
        x: (n, leads, time), in units of the normalised signal.
        normal: ε ~ N(0, 1), shaped like x.
        sigma: 0.25 in pre-training, 0.2 in fine-tuning (section IV-C.2).
    """
    return x + sigma * normal.to(x.dtype)


def jitter_by_amplitude(x: Tensor, normal: Tensor, sigma: float) -> Tensor:
    """Gaussian noise in proportion to the sample, x · (1 + 0.6 σ ε), as the authors'
    util/augmentations.py has it.
    """
    return x * (1 + 0.6 * sigma * normal.to(x.dtype))


def rescale(x: Tensor, normal: Tensor, sigma: float) -> Tensor:
    """Change the amplitude of all leads together, x · (1 + σ ε), one ε ~ N(0, 1) per record.

    Args:
        x: (n, leads, time).
        normal: (n,).
        sigma: 0.5 (section IV-C.2): in 2.3 % of draws the sign flips.
    """
    return x * (1 + sigma * normal.to(x.dtype))[:, None, None]


def surrogate(x: Tensor, u: Tensor, magnitude: float) -> Tensor:
    """Fourier surrogate: turn the phases of all leads by the same random angles, X_k · exp(2πi ·
    magnitude · u_k).

    The mean and the highest frequency keep their phase, so the result is real and keeps its
    spectrum.

    Args:
        x: (n, leads, time).
        u: (n, time // 2 + 1).
        magnitude: share of a full turn, 0.1 in pre-training, 0.075 in fine-tuning (section IV-C.2).

    Source: Schreiber & Schmitz 2000, arXiv:chao-dyn/9909041; the same angles for all leads as in
    the authors' code.
    """
    time, wide = x.shape[-1], hardware.full(x)
    k = torch.arange(time // 2 + 1, device=x.device)
    angles = 2 * math.pi * magnitude * u.to(wide.dtype) * ((k > 0) & (2 * k < time))
    spectrum = torch.fft.rfft(wide) * torch.complex(angles.cos(), angles.sin())[:, None]
    return torch.fft.irfft(spectrum, n=time).to(x.dtype)


def flip_time(x: Tensor, u: Tensor, rate: float) -> Tensor:
    """Reverse a share `rate` of the records in time. x: (n, leads, time), u: (n,)."""
    return choose(u, rate, x.flip(-1), x)


def flip_sign(x: Tensor, u: Tensor, rate: float) -> Tensor:
    """Turn a share `rate` of the records upside down. x: (n, leads, time), u: (n,)."""
    return choose(u, rate, -x, x)


def mask_spectrum(x: Tensor, u: Tensor, share: float, length: int = 120) -> Tensor:
    """Cut a stretch out of the short-time spectrum: of half of the records a band of frequencies,
    of half a stretch of time.

    Frames of `length` samples without taper begin every length / 4 samples, the record's ends
    mirrored by half a frame; where they overlap again, their mean is taken.

    Args:
        x: (n, leads, time), time > length / 2.
        u: (n, 2): below 0.5 frequencies are cut, else frames; and where the cut begins. The same
            for all leads.
        share: of the frequencies or frames that is cut, rounded down; 0.25 (authors' train_ecg.py).
        length: a multiple of 4; 120 are 0.24 s.

    Source: Park et al. 2019, arXiv:1904.08779, for ECGs as in the authors' util/augmentations.py.
    """
    hop, time, wide = length // 4, x.shape[-1], hardware.full(x)
    ends = wide[..., 1 : length // 2 + 1].flip(-1), wide[..., -length // 2 - 1 : -1].flip(-1)
    spectrum = torch.fft.rfft(torch.cat([ends[0], wide, ends[1]], -1).unfold(-1, length, hop))
    count = spectrum.shape[-2]
    by_time, by_frequency = (_gap(u[:, 1], n, share) for n in spectrum.shape[-2:])
    keep_mask = torch.where(
        (u[:, 0] < 0.5)[:, None, None], by_frequency[:, None, :], by_time[:, :, None]
    )
    frames = torch.fft.irfft(spectrum * keep_mask[:, None], n=length)
    frames = frames.reshape(*frames.shape[:-1], 4, hop)
    # Quarter q of frame f lies at quarter f + q of the result: four shifted copies add up to it.
    total = sum(F.pad(frames[..., q, :].flatten(-2), (q * hop, (3 - q) * hop)) for q in range(4))
    place = torch.arange(count + 3, device=x.device)
    overlaps = (
        torch.minimum(place + 1, count + 3 - place).clamp(max=min(4, count)).repeat_interleave(hop)
    )
    return (total / overlaps)[..., length // 2 : length // 2 + time].to(x.dtype)


def _gap(u: Tensor, n: int, share: float) -> Tensor:
    """(m,) uniforms -> (m, n) ones with a stretch of ⌊share · n⌋ zeros."""
    wide = int(n * share)
    start = (u * (n - wide + 1)).long()[:, None]
    place = torch.arange(n, device=u.device)
    return ((place < start) | (place >= start + wide)).to(u.dtype)


def choose(u: Tensor, rate: float, changed_x: Tensor, x: Tensor) -> Tensor:
    """`changed_x` for the share `rate` of the samples, `x` for the rest. u: (n,); x: (n, …)."""
    return torch.where((u < rate).reshape(-1, *[1] * (changed_x.dim() - 1)), changed_x, x)


# -- images ----------------------------------------------------------------------------------------


def resize(x: Tensor, side: int) -> Tensor:
    """Resize square images with a triangle filter as wide as the reduction, so that fine detail
    does not alias.

    Args:
        x: (…, height, height).
        side: the new height; the same one returns `x` itself.
    """
    if x.shape[-1] == side:
        return x
    weights = _triangles(x.shape[-1], side, x.device).to(x.dtype)
    return weights @ x @ weights.T


@functools.lru_cache(maxsize=8)
def _triangles(inside: int, outside: int, device: torch.device) -> Tensor:
    """(outside, inside) weights of linear interpolation, widened when shrinking; rows sum to 1."""
    ratio = inside / outside
    centres = (torch.arange(outside, dtype=torch.float64) + 0.5) * ratio - 0.5
    distance = (centres[:, None] - torch.arange(inside)).abs() / max(ratio, 1.0)
    weights = (1 - distance).clamp(min=0)
    return (weights / weights.sum(1, keepdim=True)).to(device)


def colour(x: Tensor, u: Tensor, brightness: float, contrast: float, saturation: float) -> Tensor:
    """Colour jitter on three channels: brightness, then contrast, then saturation, each by a factor
    in [1 − s, 1 + s].

        x ← clip(f x),   x ← clip(f x + (1 − f) · mean of grey),   x ← clip(f x + (1 − f) · grey)

    Args:
        x: (n, 3, h, w) in [0, 1]; the channels are phases of the heartbeat and are treated as
            colours all the same.
        u: (n, 3).
        brightness: strength s of the first; 0.5 (section IV-C.2).
        contrast: of the second; 0.5.
        saturation: of the third; 0.25.

    Source: torchvision's ColorJitter, whose order is random; it is fixed here.
    """
    strengths = (brightness, contrast, saturation)
    by_brightness, by_contrast, by_saturation = (
        (1 + s * (2 * u[:, i].to(x.dtype) - 1))[:, None, None, None]
        for i, s in enumerate(strengths)
    )
    x = (by_brightness * x).clamp(0, 1)
    x = _blend(x, _grey(x).mean((-2, -1), keepdim=True), by_contrast)
    return _blend(x, _grey(x), by_saturation)


def _grey(x: Tensor) -> Tensor:
    return 0.2989 * x[:, :1] + 0.587 * x[:, 1:2] + 0.114 * x[:, 2:]


def _blend(x: Tensor, base: Tensor, factor: Tensor) -> Tensor:
    return (factor * x + (1 - factor) * base).clamp(0, 1)


def window(
    u: Tensor, scale: tuple[float, float] = (0.6, 1.0), ratio: tuple[float, float] = (3 / 4, 4 / 3)
) -> tuple[Tensor, Tensor]:
    """A random rectangle inside the square [−1, 1]²: the crop of `geometry`.

    Args:
        u: (n, 10, 4): up to ten tries of area, shape and place; the first that fits counts, else
            the whole square.
        scale: range of the area as a share of the square's.
        ratio: range of width / height, uniform in its logarithm.

    Returns:
        Centres and half sides, (n, 2) each, x before y.

    Source: torchvision's RandomResizedCrop, which also rounds to whole pixels.
    """
    area = scale[0] + (scale[1] - scale[0]) * u[..., 0]
    shape = torch.exp(math.log(ratio[0]) + math.log(ratio[1] / ratio[0]) * u[..., 1])
    sides = torch.stack([(area * shape).sqrt(), (area / shape).sqrt()], -1)
    fits = (sides <= 1).all(-1)
    # A one-hot row instead of an index: vmap maps a product faster than a gather. All zero where no
    # try fits.
    first = (fits & (fits.long().cumsum(-1) == 1)).to(u.dtype)[..., None]
    half = (sides * first).sum(1) + (1 - first.sum(1))
    place = (u[..., 2:] * first).sum(1)
    return (2 * place - 1) * (1 - half), half


def geometry(x: Tensor, flip: Tensor, turn: Tensor, centre: Tensor, half: Tensor) -> Tensor:
    """Flip, rotate and crop in one bilinear look-up: a pixel is interpolated once, what lies
    outside is 0.

    Args:
        x: (n, channels, side, side).
        flip: (n,) −1 mirrors left and right, +1 does not.
        turn: (n,) anticlockwise rotation about the centre, radians.
        centre: (n, 2) of the rectangle of the turned image that fills the result, in [−1, 1], x
            before y.
        half: (n, 2) half sides of that rectangle.

    Returns:
        (n, channels, side, side).
    """
    side = x.shape[-1]
    ticks = (torch.arange(side, dtype=x.dtype, device=x.device) * 2 + 1) / side - 1
    cosine, sine = turn.cos().to(x.dtype), turn.sin().to(x.dtype)
    # From the result's pixel back to the source's: out of the crop, back by the rotation, back by
    # the flip.
    right = (centre[:, :1] + half[:, :1] * ticks).to(x.dtype)[:, None, :]
    down = (centre[:, 1:] + half[:, 1:] * ticks).to(x.dtype)[:, :, None]
    across = (cosine[:, None, None] * right - sine[:, None, None] * down) * flip.to(x.dtype)[
        :, None, None
    ]
    along = sine[:, None, None] * right + cosine[:, None, None] * down
    grid = torch.stack([across, along], -1)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


# -- views -----------------------------------------------------------------------------------------


def uniform(generator: torch.Generator, *shape: int) -> Tensor:
    """Uniform numbers in [0, 1), float32, on the generator's device."""
    return torch.rand(*shape, generator=generator, device=generator.device)


def normal(generator: torch.Generator, *shape: int) -> Tensor:
    """Standard normal numbers, float32, on the generator's device."""
    return torch.randn(*shape, generator=generator, device=generator.device)


@dataclass(frozen=True)
class EcgView:
    """Crop, Fourier surrogate, jitter, rescale, flips, gaps in the spectrum: one augmented view of
    ECGs.

    Attributes:
        length: samples that are left of each record.
        sigma, amplitude, magnitude: strengths of `jitter`, `rescale` and `surrogate`.
        multiplicative: jitter in proportion to the sample.
        rate: share of records that are augmented at all; all are cropped.
        surrogate_rate: share of those that get a surrogate.
        flips: share reversed in time, and share turned upside down.
        spectrum: share of the short-time spectrum that is cut out, in every record.
        crops: whether the crop is random, or the record's beginning.
    """

    length: int
    sigma: float = 0.25
    amplitude: float = 0.5
    magnitude: float = 0.1
    multiplicative: bool = False
    rate: float = 1.0
    surrogate_rate: float = 1.0
    flips: float = 0.0
    spectrum: float = 0.0
    crops: bool = True

    def noise(
        self, generator: torch.Generator, n: int, leads: int = len(LEADS)
    ) -> dict[str, Tensor]:
        """Numbers for `n` records."""
        noise = {
            "phase": uniform(generator, n, self.length // 2 + 1),
            "jitter": normal(generator, n, leads, self.length),
            "rescale": normal(generator, n),
        }
        # Drawn whether or not the rate is 1: a preset then does not shift the numbers of what
        # follows.
        noise |= {"apply": uniform(generator, n, 2), "flip": uniform(generator, n, 2)}
        start = uniform(generator, n)
        noise |= {"start": start} if self.crops else {}
        return {**noise, "spectrum": uniform(generator, n, 2)} if self.spectrum else noise

    def __call__(self, x: Tensor, noise: Mapping[str, Tensor]) -> Tensor:
        """(n, leads, time) -> (n, leads, length); without noise the record's beginning as it is."""
        x = crop(x, noise.get("start"), self.length)
        if "jitter" not in noise:
            return x
        y = surrogate(x, noise["phase"], self.magnitude)
        if self.surrogate_rate < 1:
            y = choose(noise["apply"][:, 0], self.surrogate_rate, y, x)
        y = (jitter_by_amplitude if self.multiplicative else jitter)(y, noise["jitter"], self.sigma)
        y = rescale(y, noise["rescale"], self.amplitude)
        if self.flips:
            y = flip_sign(
                flip_time(y, noise["flip"][:, 0], self.flips), noise["flip"][:, 1], self.flips
            )
        if self.spectrum:
            y = mask_spectrum(y, noise["spectrum"], self.spectrum)
        return y if self.rate == 1 else choose(noise["apply"][:, 1], self.rate, y, x)


@dataclass(frozen=True)
class CmrView:
    """Resize, colour jitter, and flip, rotation and crop as one look-up: one augmented view of CMR
    frames.

    Attributes:
        side: pixels of the result's side.
        saturation: strength; brightness and contrast are 0.5.
        rotation_rate: share that is rotated, by up to 45 degrees either way; half are mirrored.
        rate: share of images that are augmented at all.
    """

    side: int
    saturation: float = 0.25
    rotation_rate: float = 0.5
    rate: float = 1.0

    def noise(self, generator: torch.Generator, n: int) -> dict[str, Tensor]:
        """Numbers for `n` images."""
        shapes = {"colour": (3,), "window": (10, 4), "flip": (), "turn": (2,), "apply": ()}
        return {name: uniform(generator, n, *shape) for name, shape in shapes.items()}

    def __call__(self, x: Tensor, noise: Mapping[str, Tensor]) -> Tensor:
        """(n, 3, height, height) -> (n, 3, side, side); without noise resized only."""
        x = resize(x, self.side)
        if "colour" not in noise:
            return x
        turn = torch.where(
            noise["turn"][:, 0] < self.rotation_rate,
            (2 * noise["turn"][:, 1] - 1) * math.pi / 4,
            0.0,
        )
        flip = torch.where(noise["flip"] < 0.5, -1.0, 1.0)
        y = colour(x, noise["colour"], 0.5, 0.5, self.saturation)
        y = geometry(y, flip, turn, *window(noise["window"]))
        return y if self.rate == 1 else choose(noise["apply"], self.rate, y, x)
