"""From a short-axis cine stack to the three-channel image that a network reads: end-systole,
mid-phase, end-diastole.

One idea: `select` takes the middle slice and finds the three phases, `prepare_frames` scales them
together, cuts the heart out and brings it to 210 × 210; both are pure. The paper cut by hand, its
authors' code with one box for all; here the box follows the segmentation or, without one, what
moves, or is theirs on request. Nothing is segmented here, no file is read.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ecgcmr.errors import Excluded, unknown
from ecgcmr.signals import SIGNALS, Options, Prepared

if TYPE_CHECKING:
    from torch import Tensor, dtype

SIZE = SIGNALS["cmr"].shape[-1]
FRAMES = ("ES", "mid", "ED")
LEAST_SLICES = 8  # the authors drop stacks of 7 slices and fewer
LEAST_SIDE = 16  # pixels
PERCENTILES = (1.0, 99.0)
# The authors' box in a 210-pixel image. UK Biobank's pixels are 1.8 mm (Petersen et al. 2016), so
# it is 140 mm wide.
FIXED_TOP, FIXED_LEFT, FIXED_SIDE = 44, 68, 78
PIXEL_MM = (0.2, 5.0)  # beyond, the header states no size of a cine's pixels
SLICE_MM = (1.0, 50.0)  # likewise the distance of slices; UK Biobank's are 10 mm apart
INTENSITY = 1e9  # likewise pixels; beyond, their differences are lost in single precision
MISSING_LIMIT = 0.05  # share of pixels that are no number
# Least correlation of a phase with the median over the cycle; 0.97 in the Sunnybrook stacks.
ALIKE = 0.5
HEART_MM = 140.0
# Radius around the heart's centre in which the blood is counted: both ventricles, little else.
POOL_MM = 40.0
PLATEAU = 0.05
PRIOR_MM = 60.0  # the heart lies near the middle of the field: standard deviation of that belief
COARSE = 4  # pixels per block in which motion is seen; a heart is 60 pixels wide
CROPS = ("heart", "fixed", "none")
BLOOD = 1  # label of the left ventricle's cavity
LEAST_BLOOD = 10  # pixels of it that make a phase segmented

# Of a pixel's side in mm: DICOM and NIfTI state one spacing to different digits, and images are
# compared by hash.
DIGITS = 4

RECIPE: dict[str, object] = {
    "frames": list(FRAMES),
    "slice": "Z // 2 of at least 8",
    "ed": "phase 0",
    "es": "least segmented LV; else as named; else first phase within 5 % of the least blood, "
    "middle three slices",
    "mid": "ES // 2",
    "percentiles": list(PERCENTILES),  # of every second row and column
    "scale": "min-max of the three frames together, before the crop",
    "crop": "heart",
    "heart": {
        "side_mm": HEART_MM,
        "side_pixels": FIXED_SIDE,
        "spacing_digits": DIGITS,
        "centre": "box of the segmentation; else temporal deviation",
    },
    "fixed": {"top": FIXED_TOP, "left": FIXED_LEFT, "side": FIXED_SIDE, "of": SIZE},
    "resize": "bilinear, widened when shrinking",
    "size": SIZE,
    "dtype": "uint8",
}


def recipe(options: Options) -> dict[str, object]:
    """How stacks come to their stored form; `options["crop"]` is one of `CROPS`.

    Raises:
        InputError: it is another.
    """
    if options["crop"] not in CROPS:
        raise unknown("crop", options["crop"], CROPS)
    return {**RECIPE, "crop": options["crop"]}


def faults(image: np.ndarray) -> Iterator[str]:
    """What is wrong with a stored image, uint8 (3, 210, 210)."""
    for frame, pixels in zip(FRAMES, image, strict=True):
        if pixels.min() == pixels.max():
            yield f"CMR frame {frame} is blank"


def to_model(images: "Tensor", dtype: "dtype") -> "Tensor":
    """What a network reads of stored images, uint8 (n, 3, 210, 210): intensities in [0, 1]."""
    return images.to(dtype) / 255


class Stack(Protocol):
    """What `prepare` needs of a recording (see raw.CmrRecord)."""

    @property
    def frames(self) -> np.ndarray:
        """(slices, phases, height, width)."""
        ...

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance of slices, rows and columns."""
        ...

    @property
    def masks(self) -> np.ndarray | None:
        """Labels like `frames`: 1 LV cavity, 2 myocardium, 3 RV cavity."""
        ...

    @property
    def masked(self) -> tuple[int, ...]:
        """The phases that are segmented."""
        ...

    @property
    def es(self) -> int | None:
        """The phase that the files name as end-systole."""
        ...


@dataclass(frozen=True)
class Phases:
    """The slice and the phases that `select` chose."""

    slice: int
    es: int
    mid: int
    ed: int


def prepare(stack: Stack, crop: str = "heart") -> tuple[np.ndarray, tuple[str, ...]]:
    """Turn a stack into one image.

    Args:
        stack: at least 8 slices, base to apex, phases from the R wave on.
        crop: "heart", "fixed" (the authors' box) or "none".

    Returns:
        uint8 (3, 210, 210), frames ES, mid, ED; and what was settled, in words.

    Raises:
        Excluded: too few slices, sizes or pixels beyond what a cine has, a phase of the middle
            slices that shows something else than the others, or nothing moves there.
    """
    frames, bad = _plausible(stack)
    selection, how = _chosen(stack, frames)
    image = frames[selection.slice, [selection.es, selection.mid, selection.ed]]
    heart = (
        None if stack.masks is None or crop != "heart" else middle_of(stack.masks, selection.slice)
    )
    # The centre comes from the whole cycle; three frames of it would do, less surely.
    moving = frames[selection.slice] if crop == "heart" and heart is None else None
    words = [*(["pixels that are no number set to 0"] if bad else []), how]
    if selection.mid == selection.ed:
        words.append(
            "no frame between end-diastole and end-systole: end-diastole stands for the mid-phase"
        )
    if crop == "heart":
        words.append(
            "heart found by what moves" if heart is None else "heart found by the segmentation"
        )
    rows, columns = (round(side, DIGITS) for side in stack.spacing_mm[1:])
    box = prepare_frames(image, crop, spacing_mm=(rows, columns), cycle=moving, middle=heart)
    return box, tuple(words)


def prepared(stack: Stack, options: Options) -> Prepared:
    """`prepare` with `options["crop"]`, as a shard holds it."""
    return Prepared(*prepare(stack, options["crop"]))


def phases(stack: Stack) -> Phases:
    """The slice and the phases that `prepare` takes.

    Raises:
        Excluded: see `prepare`.
    """
    return _chosen(stack, _plausible(stack)[0])[0]


def _chosen(stack: Stack, frames: np.ndarray) -> tuple[Phases, str]:
    """The slice and the phases of plausible frames, and how end-systole was found."""
    segmented_es = None if stack.masks is None else end_systole(stack.masks, stack.masked)
    if segmented_es is not None:
        return select(frames, stack.spacing_mm, segmented_es), "end-systole from the segmentation"
    how = "as the files name it" if stack.es is not None else "from the smallest blood pool"
    return select(frames, stack.spacing_mm, stack.es), f"end-systole {how}"


def _plausible(stack: Stack) -> tuple[np.ndarray, bool]:
    """The frames with 0 for what is no number, and whether there was any.

    Raises:
        Excluded: see `prepare`.
    """
    if not all(PIXEL_MM[0] <= side <= PIXEL_MM[1] for side in stack.spacing_mm[1:]):
        raise Excluded("implausible size of pixels")
    if not SLICE_MM[0] <= stack.spacing_mm[0] <= SLICE_MM[1]:
        raise Excluded("implausible distance of slices")
    frames = stack.frames
    if min(frames.shape[2:]) < LEAST_SIDE:
        raise Excluded("images too small")
    bad = ~np.isfinite(frames)
    if bad.mean() > MISSING_LIMIT:
        raise Excluded("missing pixels")
    if bad.any():
        frames = np.where(bad, 0, frames)
    if np.abs(frames).max() > INTENSITY:
        raise Excluded("implausible intensities")
    middle = len(frames) // 2
    if any(_alike(cycle) < ALIKE for cycle in frames[middle - 1 : middle + 2]):
        raise Excluded("a phase shows something else than the others")
    return frames, bool(bad.any())


def _alike(cycle: np.ndarray) -> float:
    """The least correlation of a phase of one slice, (phases, height, width), with the median over
    the cycle.
    """
    pixels = cycle[:, ::2, ::2].reshape(len(cycle), -1).astype(np.float64)
    pixels = np.vstack([pixels, np.median(pixels, axis=0)])
    pixels -= pixels.mean(1, keepdims=True)
    size = np.linalg.norm(pixels, axis=1)
    products = pixels[:-1] @ pixels[-1]
    return float((products / np.maximum(size[:-1] * size[-1], 1e-9)).min()) if size[-1] > 0 else 1.0


def end_systole(masks: np.ndarray, masked: tuple[int, ...]) -> int | None:
    """The segmented phase with the least left-ventricular cavity; None if fewer than two are, or
    the first has the least.

    Args:
        masks: (slices, phases, height, width) labels, 1 the LV cavity.
        masked: the phases that are segmented.

    Source: ukbb_cardiac takes the same phase; phase 0 is its end-diastole.
    """
    if len(masked) < 2:
        return None
    least = masked[int((masks[:, list(masked)] == BLOOD).sum((0, 2, 3)).argmin())]
    return least or None


def middle_of(masks: np.ndarray, slice_: int) -> tuple[float, float] | None:
    """The centre of the box around all that is labelled in a slice over the cycle, (row, column);
    None without labels.
    """
    labelled = masks[slice_].any(0)
    if not labelled.any():
        return None
    rows, columns = (np.flatnonzero(labelled.any(axis)) for axis in (1, 0))
    return float(rows[0] + rows[-1]) / 2, float(columns[0] + columns[-1]) / 2


def select(
    frames: np.ndarray, spacing_mm: tuple[float, float, float], es: int | None = None
) -> Phases:
    """Choose slice and phases.

    The slice is Z // 2. ED is phase 0, the R wave's. Where ES is not known beforehand, it is the
    first phase in which the least blood is seen, to a twentieth of the stroke (a failing heart
    stays small for several phases): pixels brighter than Otsu's threshold within 40 mm of the
    heart's centre, summed over the middle three slices and three neighbouring phases, in the first
    four fifths of the cycle. The mid-phase is ES // 2. On the three Sunnybrook stacks ES is the
    experts' phase or the next.

    Args:
        frames: (slices, phases, height, width), finite.
        spacing_mm: of slices, rows and columns.
        es: the phase of end-systole, if known.

    Raises:
        Excluded: 7 slices or fewer, fewer than 5 phases of which none is known as ES, or no motion.

    Source: slice and mid-phase from the authors' notebooks (facts/field.md §1.2); the ES rule is
    ours.
    """
    if frames.shape[0] < LEAST_SLICES:
        raise Excluded("too few slices: 7 or fewer")
    if frames.shape[1] < 5 and es is None:
        raise Excluded("too few phases")
    middle = frames.shape[0] // 2
    block = frames[middle - 1 : middle + 2]
    motion = block.std(1).mean(0)
    if not motion.any():
        raise Excluded("nothing moves in the middle slices")
    if es is None:
        es = _least_blood(block, motion, spacing_mm)
    return Phases(slice=middle, es=es, mid=es // 2, ed=0)


def _least_blood(
    block: np.ndarray, motion: np.ndarray, spacing_mm: tuple[float, float, float]
) -> int:
    """End-systole as `select` finds it; block: the middle slices, motion: where they change."""
    near = _disc(motion.shape, centre(motion, spacing_mm[1:]), POOL_MM, spacing_mm[1:])
    pixels = block[:, :, near]
    blood = (pixels > otsu(pixels[:, 0])).sum((0, 2)).astype(np.float64)
    smooth = ((np.roll(blood, 1) + blood + np.roll(blood, -1)) / 3)[: max(2, len(blood) * 4 // 5)]
    return 1 + int((smooth[1:] <= smooth.min() + PLATEAU * (smooth.max() - smooth.min())).argmax())


def prepare_frames(
    frames: np.ndarray,
    crop: str = "heart",
    *,
    spacing_mm: tuple[float, float] | None = None,
    cycle: np.ndarray | None = None,
    middle: tuple[float, float] | None = None,
) -> np.ndarray:
    """Scale three frames together, cut the heart out and resize it to 210 × 210.

        x ← clip(x, q₁, q₉₉);   x ← (x − min) / (max − min);   q over all three frames

    Args:
        frames: (3, height, width) ES, mid, ED; any intensities, finite.
        crop: "heart": a box of 140 mm (78 pixels without spacing) around the heart, zero outside
            the image; "fixed": the authors' box after padding or cutting to 210 × 210; "none": only
            that.
        spacing_mm: of rows and columns, if known.
        cycle: (phases, height, width) from which the motion is seen; the three frames by default.
        middle: (row, column) of the heart's centre, if known; else `centre` of the motion.

    Returns:
        uint8 (3, 210, 210).

    Raises:
        InputError: another `crop`.
    """
    if crop not in CROPS:
        raise unknown("crop", crop, CROPS)
    frames = np.asarray(frames, dtype=np.float32)
    if crop == "heart":
        pixel = spacing_mm or (HEART_MM / FIXED_SIDE, HEART_MM / FIXED_SIDE)
        middle = middle or centre((frames if cycle is None else cycle).std(0), pixel)
        box = [(m + 0.5 - HEART_MM / s / 2, HEART_MM / s) for m, s in zip(middle, pixel)]
    else:
        first_row, first_column, side = (
            (FIXED_TOP, FIXED_LEFT, FIXED_SIDE) if crop == "fixed" else (0, 0, SIZE)
        )
        box = [
            ((n - SIZE) // 2 + start, side)
            for n, start in zip(frames.shape[1:], (first_row, first_column))
        ]  # < 0: zeros around
    return _resize(frames, _window(frames), box)


def centre(motion: np.ndarray, spacing_mm: tuple[float, float]) -> tuple[float, float]:
    """Find the heart: where the image changes over the cycle, as (row, column) in pixels.

    Starts at the liveliest 40-mm neighbourhood near the image's middle (vessels of the chest wall
    and the stomach move as well, further out), then goes to the weighted mean of the motion within
    60 mm, three times. The weight is the motion above its noise, cut off early: how much a pixel
    moves says less than that it moves. Against the left ventricle as drawn by hand on the three
    Sunnybrook stacks the result is 4 to 17 mm off, towards the right one.

    Args:
        motion: (height, width) standard deviation over the phases.
        spacing_mm: of rows and columns.
    """
    height, width = (n // COARSE for n in motion.shape)
    blocks = motion[: height * COARSE, : width * COARSE].reshape(height, COARSE, width, COARSE)
    coarse = blocks.mean(
        (1, 3), dtype=np.float64
    )  # averages the noise, which three phases alone would not
    noise, lively = np.quantile(coarse, (0.5, 0.85), method="nearest")
    weight = np.clip(coarse, 1.2 * noise, max(lively, 2 * noise) or None) - 1.2 * noise
    pixel = (COARSE * spacing_mm[0], COARSE * spacing_mm[1])
    rows, columns = (np.arange(n) for n in coarse.shape)
    falloff = [
        np.exp(-0.5 * ((x - (len(x) - 1) / 2) * s / PRIOR_MM) ** 2)
        for x, s in zip((rows, columns), pixel)
    ]
    likely = _box_sum(
        weight * falloff[0][:, None] * falloff[1], [max(1, round(20.0 / s)) for s in pixel]
    )
    row, column = (float(x) for x in np.unravel_index(int(likely.argmax()), coarse.shape))
    for _ in range(3):
        inside = weight * _disc(coarse.shape, (row, column), 60.0, pixel)
        total = inside.sum()
        if total <= 0:
            break
        row, column = float(inside.sum(1) @ rows / total), float(inside.sum(0) @ columns / total)
    return COARSE * (row + 0.5) - 0.5, COARSE * (column + 0.5) - 0.5


def otsu(values: np.ndarray) -> float:
    """The threshold that parts values into two classes of least variance within (Otsu 1979), over
    128 bins.
    """
    counts, edges = np.histogram(values, bins=128)
    middles = (edges[:-1] + edges[1:]) / 2
    below, above = counts.cumsum(), counts.sum() - counts.cumsum()
    mass = (counts * middles).cumsum()
    gap = mass / np.maximum(below, 1) - (mass[-1] - mass) / np.maximum(above, 1)
    return float(edges[1:][int((below * above * gap**2).argmax())])


def _window(frames: np.ndarray) -> tuple[float, float]:
    """The 1st and the 99th percentile over every second row and column of all frames: 0.5 ms
    instead of 2.
    """
    pixels = frames[:, ::2, ::2]
    at = tuple(round(q / 100 * (pixels.size - 1)) for q in PERCENTILES)
    sorted_pixels = np.partition(pixels.ravel(), at)
    return float(sorted_pixels[at[0]]), float(sorted_pixels[at[1]])


def _disc(
    shape: tuple[int, ...],
    middle: tuple[float, float],
    radius_mm: float,
    spacing_mm: tuple[float, float],
) -> np.ndarray:
    rows, columns = (((np.arange(n) - m) * s) ** 2 for n, m, s in zip(shape, middle, spacing_mm))
    return rows[:, None] + columns <= radius_mm**2


def _box_sum(image: np.ndarray, reach: list[int]) -> np.ndarray:
    """The sum over a box of ± `reach` rows and columns around each pixel; the image ends in
    zeros.
    """
    for axis, n in enumerate(reach):
        total = np.cumsum(np.insert(image, 0, 0, axis=axis), axis=axis)
        at = np.arange(image.shape[axis])
        image = total.take(np.minimum(at + n + 1, len(at)), axis) - total.take(
            np.maximum(at - n, 0), axis
        )
    return image


def _resize(
    frames: np.ndarray, window: tuple[float, float], box: list[tuple[float, float]]
) -> np.ndarray:
    """Cut a box, (start, length) of rows and of columns, map the window to 0..255 and resize; 0
    outside the image.
    """
    (rows, down), (columns, across) = (_weights(n, *part) for n, part in zip(frames.shape[1:], box))
    low, high = window
    if high <= low:
        return np.zeros((len(frames), SIZE, SIZE), np.uint8)
    crop = (np.clip(frames[:, rows, columns], low, high) - low) * (255 / (high - low))
    return np.rint(down @ crop @ across.T).clip(0, 255).astype(np.uint8)


def _weights(n: int, start: float, length: float) -> tuple[slice, np.ndarray]:
    """The pixels that are needed of n, and bilinear weights (210, needed): new centres lie evenly
    in start … + length.
    """
    scale = length / SIZE
    reach = max(1.0, scale)  # a shrinking triangle must cover what falls between the new pixels
    at = start + (np.arange(SIZE) + 0.5) * scale - 0.5
    first, last = int(np.floor(at[0] - reach)), int(np.ceil(at[-1] + reach))
    weight = np.maximum(0, 1 - np.abs(np.arange(first, last + 1) - at[:, None]) / reach)
    weight /= weight.sum(1, keepdims=True)
    low, high = max(first, 0), max(min(last + 1, n), 0)
    low = min(low, high)
    return slice(low, high), weight[:, low - first : high - first].astype(np.float32)
