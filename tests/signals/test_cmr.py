"""CMR arrays: a beating disc whose phases, place and size are known."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from ecgcmr.errors import Excluded, InputError
from ecgcmr.signals import cmr

RADII = (
    28,
    26,
    24,
    22,
    20,
    18,
    17,
    17,
    18,
    20,
    22,
    23,
    24,
    25,
    25,
    26,
    26,
    27,
    27,
    28,
)  # smallest: phases 6 and 7


@dataclass(frozen=True)
class Stack:
    frames: np.ndarray
    spacing_mm: tuple[float, float, float] = (10.0, 1.8, 1.8)
    masks: np.ndarray | None = None
    masked: tuple[int, ...] = ()
    es: int | None = None
    axes: np.ndarray | None = None


PHASES = tuple(range(len(RADII)))
SEEN = (
    "end-systole from the smallest blood pool",
    "end-diastole taken as the first phase",
    "heart found by what moves",
)


def stack(slices=10, size=(210, 210), place=(95, 120), radii=RADII, seed=0) -> Stack:
    """A bright disc that contracts in a dark ring, in a static bright chest; (slices, 20, height, width)."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]]
    far = np.hypot(y - place[0], x - place[1])
    chest = 90.0 * (np.hypot(y - size[0] / 2, x - size[1] / 2) > 0.42 * min(size))
    cycle = np.stack([np.where(far < r, 200.0, np.where(far < 36, 30.0, chest)) for r in radii])
    noise = draw.normal(0, 3, (len(radii) + slices - 1, *size)).astype(
        np.float32
    )  # each slice sees another part of it
    return Stack(
        np.stack([cycle.astype(np.float32) + noise[i : i + len(radii)] for i in range(slices)])
    )


def test_phases_and_slice():
    chosen = cmr.select(*(lambda s: (s.frames, s.spacing_mm))(stack(slices=11)))
    assert chosen == cmr.Phases(slice=5, es=6, mid=3, ed=0)


def test_frames_are_es_mid_ed():
    image, words = cmr.prepare(stack())
    assert image.shape == (3, 210, 210)
    assert image.dtype == np.uint8
    assert words == SEEN
    es, mid, ed = ((frame > 200).sum() for frame in image)
    assert es < mid < ed


@pytest.mark.parametrize("place", [(95, 120), (80, 90), (130, 125)])
@pytest.mark.parametrize("shape", [(210, 210), (256, 232)])
def test_heart_is_in_the_middle_wherever_it_lies(place, shape):
    image, _ = cmr.prepare(stack(place=place, size=shape))
    rows, columns = np.nonzero(image[2] > 200)
    assert abs(rows.mean() - 104.5) < 12
    assert abs(columns.mean() - 104.5) < 12


def test_heart_box_is_140_mm():
    """The ED disc of 28 pixels of 1.8 mm is 100.8 mm across: 151 of 210 pixels; the same at half the pixel size."""
    coarse = cmr.prepare(stack())[0]
    fine = stack()
    fine = Stack(fine.frames.repeat(2, axis=2).repeat(2, axis=3), (10.0, 0.9, 0.9))
    for image in (coarse, cmr.prepare(fine)[0]):
        width = (image[2, 105] > 128).sum()
        assert abs(width - 100.8 / 140 * 210) < 6


def test_scale_is_min_max_between_percentiles():
    frames = np.linspace(0, 1000, 3 * 210 * 210, dtype=np.float32).reshape(3, 210, 210)
    out = cmr.prepare_frames(frames, "none")
    expected = (np.clip(frames, 10, 990) - 10) / 980 * 255
    assert np.abs(out - expected).max() < 1.5
    assert out.min() == 0
    assert out.max() == 255


def test_fixed_box_is_the_authors():
    frames = np.zeros((3, 210, 210), np.float32)
    frames[:, 44 : 44 + 78, 68 : 68 + 78] = 100
    out = cmr.prepare_frames(frames, "fixed")
    assert (out == 255).mean() > 0.98
    frames = np.zeros((3, 210, 210), np.float32)
    frames[:, 44:70, 68:107] = 100
    out = cmr.prepare_frames(frames, "fixed")
    assert out[0, 2:68, 2:103].min() == 255
    assert out[0, 73:].max() == 0
    assert out[0, :, 108:].max() == 0


@pytest.mark.parametrize("size", [(180, 196), (256, 300), (209, 211)])
def test_other_sizes_are_padded_or_cut_about_the_middle(size):
    frames = np.zeros((3, *size), np.float32)  # a white square of 40 × 40 in the middle
    middle = [n // 2 for n in size]
    frames[:, middle[0] - 20 : middle[0] + 20, middle[1] - 20 : middle[1] + 20] = 1
    out = cmr.prepare_frames(frames, "none")
    rows, columns = np.nonzero(out[0])
    assert out.shape == (3, 210, 210)
    assert len(rows) == 1600
    assert abs(rows.mean() - 104.5) <= 1
    assert abs(columns.mean() - 104.5) <= 1


def test_resizing_equals_a_bilinear_loop():
    draw = np.random.default_rng(0)
    frames = draw.random((3, 210, 210)).astype(np.float32)
    out = cmr.prepare_frames(frames, "fixed")
    seen = np.sort(frames[:, ::2, ::2].ravel())
    low, high = (seen[round(q * (len(seen) - 1))] for q in (0.01, 0.99))
    scaled = (np.clip(frames[1], low, high) - low) / (high - low) * 255
    for row, column in draw.integers(5, 205, (40, 2)):
        y, x = 44 + (row + 0.5) * 78 / 210 - 0.5, 68 + (column + 0.5) * 78 / 210 - 0.5
        i, j = int(np.floor(y)), int(np.floor(x))
        a, b = y - i, x - j
        value = (1 - a) * ((1 - b) * scaled[i, j] + b * scaled[i, j + 1])
        value += a * ((1 - b) * scaled[i + 1, j] + b * scaled[i + 1, j + 1])
        assert abs(out[1, row, column] - value) < 0.51


def test_constant_image_becomes_zero():
    for crop in cmr.CROPS:
        assert not cmr.prepare_frames(np.full((3, 210, 210), 7, np.float32), crop).any()


def segmented(one: Stack, radii=RADII, place=(95, 120), phases=PHASES) -> Stack:
    """With the cavity drawn as discs of `radii`, muscle to 36 pixels, and a right ventricle of 30 columns on its left."""
    y, x = np.mgrid[: one.frames.shape[2], : one.frames.shape[3]]
    far = np.hypot(y - place[0], x - place[1])
    masks = np.zeros(one.frames.shape, np.uint8)
    for phase in phases:
        masks[:, phase] = np.where(far < radii[phase], 1, np.where(far < 36, 2, 0))
        masks[:, phase, place[0] - 10 : place[0] + 10, place[1] - 66 : place[1] - 36] = 3
    return replace(one, masks=masks, masked=phases)


def test_end_systole_is_the_least_segmented_cavity():
    radii = tuple(
        int(r) for r in np.roll(RADII, 5)
    )  # 11 and 12 are the smallest, against what the pixels show
    one = segmented(stack(), radii)
    assert cmr.end_systole(one.masks, one.masked) == 11
    assert cmr.end_systole(one.masks, one.masked[:6]) is None  # of these phase 0 is the least
    assert cmr.end_systole(one.masks, (0,)) is None
    image, words = cmr.prepare(one)
    assert words == (
        "end-systole from the segmentation",
        "end-diastole from the segmentation, not the first phase",
        "heart found by the segmentation",
    )
    assert (image[0] > 200).sum() != (cmr.prepare(stack())[0][0] > 200).sum()


def test_heart_is_cut_about_the_box_of_its_segmentation():
    """The labels reach from column 54 to 155 and from row 60 to 130: their middle is 104.5 and 95.

    The cavity lies 15.5 pixels of 1.8 mm right of it, 42 pixels of 140 / 210 mm; its radius is 76 of these.
    """
    one = segmented(stack())
    assert cmr.middle_of(one.masks, 5) == (95.0, 104.5)
    image, _ = cmr.prepare(one)
    rows, columns = np.nonzero(image[2] > 200)
    assert (rows.min() + rows.max()) / 2 == pytest.approx(104.5, abs=1)
    assert columns.min() == pytest.approx(104.5 + 42 - 76, abs=3)
    empty = replace(one, masks=np.zeros_like(one.masks), masked=())
    assert cmr.prepare(empty)[1] == SEEN
    assert np.array_equal(cmr.prepare(one, "fixed")[0][2], cmr.prepare(stack(), "fixed")[0][2])


def test_two_frames_of_known_phase_are_a_stack():
    one = stack()
    ends = Stack(one.frames[:, [0, 6]], es=1)
    image, words = cmr.prepare(ends)
    whole, _ = cmr.prepare(one)
    assert np.array_equal(image[1], image[2])  # no frame between them
    assert (image[0] > 200).sum() == pytest.approx((whole[0] > 200).sum(), rel=0.02)
    assert words[0] == "end-systole as the files name it"
    assert words[1].startswith("no frame between")
    with pytest.raises(Excluded, match="too few phases"):
        cmr.prepare(replace(ends, es=None))


def test_input_is_not_changed():
    one = stack()
    before = one.frames.copy()
    cmr.prepare(one)
    assert np.array_equal(one.frames, before)


def test_pixels_that_are_no_number():
    one = stack()
    one.frames[3, 2, 5, 5] = np.nan
    image, words = cmr.prepare(one)
    assert words == ("pixels that are no number set to 0", *SEEN)
    assert np.array_equal(image, cmr.prepare(Stack(np.nan_to_num(one.frames)))[0])


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        (np.zeros((7, 20, 64, 64), np.float32), "too few slices"),
        (np.zeros((9, 3, 64, 64), np.float32), "too few phases"),
        (np.ones((9, 20, 64, 64), np.float32), "nothing moves"),
    ],
)
def test_unfit_stacks_are_excluded(frames, reason):
    with pytest.raises(Excluded, match=reason):
        cmr.prepare(Stack(frames))


@pytest.mark.parametrize("side", [0.0, 1e-9, 1e9, float("nan")])
def test_pixels_of_no_size_are_excluded(side):
    with pytest.raises(Excluded, match="size of pixels"):
        cmr.prepare(replace(stack(), spacing_mm=(10.0, side, 1.8)))


@pytest.mark.parametrize("distance", [0.0, 1e-9, 4000.0, float("nan")])
def test_slices_of_no_distance_are_excluded(distance):
    with pytest.raises(Excluded, match="distance of slices"):
        cmr.prepare(replace(stack(), spacing_mm=(distance, 1.8, 1.8)))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda f: f * 1e36, "implausible intensities"),
        (lambda f: f - 3e38, "implausible intensities"),
        (lambda f: np.where(f > 20, np.inf, f), "missing pixels"),
        (lambda f: f[:, :, :1, :1], "images too small"),
    ],
)
def test_pixels_that_cannot_be_are_excluded(change, reason):
    with pytest.raises(Excluded, match=reason):
        cmr.prepare(Stack(change(stack().frames)))


def test_a_phase_of_something_else_is_excluded():
    """The end of a file that was overwritten is noise or text, on every slice of the last phases."""
    one = stack()
    one.frames[:, -2:] = np.random.default_rng(0).integers(0, 30_000, one.frames[:, -2:].shape)
    with pytest.raises(Excluded, match="something else"):
        cmr.prepare(one)


def test_unknown_crop_lists_the_known():
    with pytest.raises(InputError, match="known: fixed, heart, none"):
        cmr.prepare_frames(np.zeros((3, 210, 210)), "manual")
