"""Three frames of a short-axis cine of a latent heart: end-systole, mid-systole, end-diastole, as a
scanner gives them.

The idea: contours in polar form about the middle of the left ventricle, six segment values smoothed
around the ring, so that volumes, walls and the motion of every segment are those of the latent
heart; a painted chest around it; then what a scanner adds: coil shading, blur, noise, sometimes
bands or ghosts. Contrast is that of bSSFP at 1.5 T: bright blood and fat, dark muscle, black lung.
The right ventricle lies on the left of the picture. No cropping, no scaling to 8 bits.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter

# Rows, columns; UK Biobank stacks are 192 × 208 (Petersen et al. 2016, protocol).
SHAPE = (192, 208)
SPACING_MM = 1.8
# Planned place of the left ventricle. With the frame padded to 210 × 210, both ventricles together
# lie in the middle of the box that the authors crop (rows 44-122, columns 68-146).
CENTRE = (74.0, 113.0)
_WINDOW = 104  # side of the square in which the heart is painted, pixels
_BINS = 720  # of the contours; 0.3 mm at the epicardium

# bSSFP intensity over blood at 1.5 T, flip 80° (Scheffler & Lehnhardt 2003, from T2/T1; Bieri &
# Scheffler 2013).
_BLOOD, _MUSCLE, _FAT, _LUNG, _LIVER, _MARROW, _SKELETAL = 1.0, 0.30, 0.88, 0.05, 0.42, 0.40, 0.25
_FLUID = 1.05


class _Contours(NamedTuple):
    """Radii (720,) in mm from the centre of the left ventricle, by angle from the picture's right,
    anticlockwise.
    """

    endo: np.ndarray
    epi: np.ndarray
    right: np.ndarray
    outer: np.ndarray
    fat: np.ndarray


def frames(h: Mapping[str, np.ndarray | float], random: np.random.Generator) -> np.ndarray:
    """Frames (3, 192, 208) float32 in scanner units: ES, mid, ED of the middle slice."""
    planning = random.normal(0, 3.0, 2)  # the operator's, pixels
    place = (np.array(CENTRE) + planning).tolist()
    turn = float(np.deg2rad(random.normal(0, 9.0)))
    # Plain floats: numpy scalars would turn every picture into float64.
    habit = random.standard_normal(16).tolist()
    chest = _chest(h, place, habit, random)
    rows, columns = (slice(round(p) - _WINDOW // 2, round(p) + _WINDOW // 2) for p in place)
    rows = slice(max(rows.start, 0), rows.stop)
    right, up = _offsets(place, rows, columns)
    radius, angle = np.sqrt(right**2 + up**2), np.arctan2(up, right)
    images = np.repeat(chest[None], 3, axis=0)
    fill = (0.0, float(h["mid_share"]), 1.0)
    blood = (_BLOOD * (1 + 0.04 * random.standard_normal((3, 2)))).tolist()
    grain = _texture(2, random)[: rows.stop - rows.start, : columns.stop - columns.start]
    for frame, share in enumerate(fill):
        # Mid-ventricular rotation (Lorenz et al. 2000).
        twist = turn + float(np.deg2rad(5.0)) * (1 - share)
        bins = ((angle - twist) * (_BINS / (2 * np.pi))).astype(np.int32) % _BINS
        shape, window = contours(h, share, habit), images[frame, rows, columns]
        window[:] = _heart(window, shape, radius, bins, blood[frame], grain)
        window[:] = _papillaries(window, shape, right, up, twist, share, habit, _MUSCLE)
    return _scan(images, random)


def contours(
    h: Mapping[str, np.ndarray | float], share: float, habit: Sequence[float] = (0.0,) * 16
) -> _Contours:
    """Contours while `share` of the stroke volume is in the ventricle: 0 end-systole, 1
    end-diastole.

    The inner radius of a segment shortens in proportion to its contraction, r = r_ED (1 − k c),
    with k such that the cavity's area is the one the volume asks for; walls thicken in the same
    proportion, so that muscle is kept.
    """
    ring = slice(6, 12)
    slice_level = 0.97 + 0.02 * habit[0]  # the middle slice is not quite the widest
    angles = np.linspace(0, 2 * np.pi, _BINS, endpoint=False)
    oval = (
        1
        + 0.025 * np.cos(2 * (angles - 0.5 - 0.5 * habit[1]))
        + 0.01 * np.cos(3 * angles + habit[2])
    )
    base = slice_level * float(h["radius_ed"]) * oval
    contraction = np.asarray(h["contraction"])[ring]
    motion = _around(contraction)
    radius_es, radius_ed = float(h["radius_es"]), float(h["radius_ed"])
    area = (radius_es**2 * (1 - share) + radius_ed**2 * share) / radius_ed**2
    # mean of base² (1 − k c)² = area · mean of base²: a quadratic in k.
    b0, b1, b2 = (base**2).mean(), (base**2 * motion).mean(), (base**2 * motion**2).mean()
    k = (b1 - np.sqrt(max(b1**2 - b2 * b0 * (1 - area), 0.0))) / b2
    # Trabeculae.
    rough = (
        1 + 0.010 * np.cos(7 * angles + 3 * habit[11]) + 0.008 * np.cos(11 * angles + 3 * habit[12])
    )
    endo = base * rough * (1 - k * motion).clip(0.15)
    thick = np.asarray(h["wall_segments"])[ring]
    gain = (float(h["wall_es"]) / float(h["wall_ed"]) - 1) * (1 - share)
    relative = contraction / max(float(np.mean(contraction)), 0.2)
    epi = endo + _around(thick * (1 + gain * relative.clip(0, 1.4)))
    return _Contours(endo, epi, *_right(h, share, angles, epi, habit))


def _right(
    h: Mapping, share: float, angles: np.ndarray, epi: np.ndarray, habit: Sequence[float]
) -> tuple[np.ndarray, ...]:
    """The crescent of the right ventricle, its thin wall and the fat around both.

    Its width w solves ∫ (R w g + w² g² / 2) dθ = area, where g falls to 0 at the insertions, 75°
    from its middle.
    """
    away = (angles - np.pi * 1.02 + np.pi) % (2 * np.pi) - np.pi
    half = np.deg2rad(74 + 3 * habit[3])
    g = np.cos((away / half).clip(-1, 1) * np.pi / 2).clip(0) ** 0.62 * (
        1 + 0.12 * np.sin(away) * np.sign(habit[4] + 2)
    )
    volume = float(h["rv_esv"]) + share * (float(h["rv_edv"]) - float(h["rv_esv"]))
    # Area in mm² at mid-level: volume over the long axis of the ventricle, whose section is widest
    # there.
    target = 1.2 * 1000 * volume / (3.4 * float(h["radius_ed"])) * (1 + 0.06 * habit[5])
    step = 2 * np.pi / _BINS
    linear, square = (epi * g).sum() * step, 0.5 * (g**2).sum() * step
    width = (np.sqrt(linear**2 + 4 * square * target) - linear) / (2 * square)
    cavity = epi + width * g
    outer = cavity + (2.8 + 1.0 * (1 - share)) * (4 * g).clip(0, 1)
    # Fat fills the grooves and covers the right ventricle; the lateral wall is almost bare
    # (Iacobellis 2015).
    amount = max(1 + 0.07 * (float(h["bmi"]) - 26.5) + 0.25 * habit[6], 0.3)
    groove = np.exp(-((np.abs(away) - half) ** 2) / 0.10)
    front = (0.5 + 0.5 * np.cos(angles - 2.3)) ** 2 * (1 + 0.4 * np.cos(5 * angles + 3 * habit[13]))
    rim = amount * (0.5 + 3.0 * front + 2.0 * groove)
    return cavity, outer, outer + rim


@cache
def _blend() -> np.ndarray:
    """Weights (720, 6) that turn the six mid-ventricular segments (AHA 7-12) into a smooth ring."""
    centres = np.deg2rad([90, 150, 210, 270, 330, 30])
    angles = np.linspace(0, 2 * np.pi, _BINS, endpoint=False)
    away = (angles[:, None] - centres + np.pi) % (2 * np.pi) - np.pi
    weights = np.exp(-0.5 * (away / np.deg2rad(24)) ** 2)
    return weights / weights.sum(axis=1, keepdims=True)


def _around(segments: np.ndarray) -> np.ndarray:
    return _blend() @ segments


def _offsets(place: list[float], rows: slice, columns: slice) -> tuple[np.ndarray, np.ndarray]:
    """How far right (1, w) and up (h, 1) of `place` (row, column) the pixels of a window lie, in
    mm.
    """
    x, y = _grid()
    return x[:, columns] - place[1] * SPACING_MM, place[0] * SPACING_MM - y[rows]


def _inside(distance: np.ndarray) -> np.ndarray:
    """Share of a pixel inside a contour, from the signed distance in mm; one pixel wide."""
    return (distance * (1 / SPACING_MM) + 0.5).clip(0, 1)


def _heart(image, c: _Contours, radius, bins, blood: Sequence[float], grain) -> np.ndarray:
    """Paint fat, right and left ventricle over what lies under them, (rows, columns)."""
    muscle = _MUSCLE * (1 + 0.06 * grain)
    cavity = blood[0] * (1 + 0.02 * grain)
    for contour, value in (
        (c.fat, _FAT * (1 + 0.05 * grain)),
        (c.outer, muscle),
        # Trabeculae: darker specks towards the free wall.
        (c.right, blood[1] * (1 - 0.12 * grain.clip(0))),
        (c.epi, muscle),
        (c.endo, cavity),
    ):
        inside = _inside(contour.astype(np.float32)[bins] - radius)
        image = _over(image, inside, value)
    return image


def _papillaries(
    image, c: _Contours, right, up, turn: float, share: float, habit, muscle
) -> np.ndarray:
    """Anterolateral and posteromedial papillary muscle, in contact with the wall.

    They thicken in systole.
    """
    for where, lean in (
        (np.deg2rad(35) + 0.12 * habit[7], habit[8]),
        (np.deg2rad(247) + 0.12 * habit[9], habit[10]),
    ):
        wall = float(c.endo[int(where / (2 * np.pi) * _BINS) % _BINS])
        size = (4.2 + 0.5 * lean) * (1 + 0.12 * (1 - share))
        middle, toward = wall - 0.75 * size - 1.5 * share, float(where) + turn
        x, y = right - middle * float(np.cos(toward)), up - middle * float(np.sin(toward))
        image = _over(image, _inside(size - np.sqrt(x * x + y * y)), muscle)
    return image


@cache
def _bank() -> np.ndarray:
    """Four fixed smooth random fields (4, 512, 512) of unit variance, from fine to coarse, that
    wrap around.
    """
    random = np.random.default_rng(20171)
    fields = []
    for scale in (0.9, 2.2, 1.2, 12.0):
        field = gaussian_filter(random.standard_normal((512, 512)), scale, mode="wrap")
        fields.append(field / field.std())
    return np.stack(fields).astype(np.float32)


def _texture(kind: int, random: np.random.Generator) -> np.ndarray:
    """A window of the picture's size somewhere in one of the fields."""
    row, column = random.integers(0, 512 - np.array(SHAPE))
    return _bank()[kind, row : row + SHAPE[0], column : column + SHAPE[1]]


@cache
def _grid() -> tuple[np.ndarray, np.ndarray]:
    """Columns and rows of the picture in mm, (1, W) and (H, 1)."""
    return (
        (np.arange(SHAPE[1], dtype=np.float32) * SPACING_MM)[None],
        (np.arange(SHAPE[0], dtype=np.float32) * SPACING_MM)[:, None],
    )


def _chest(
    h: Mapping, place: list[float], habit: list[float], random: np.random.Generator
) -> np.ndarray:
    """The chest around the heart (H, W): skin fat by BMI, wall with ribs, lungs, liver, spine and
    aorta.
    """
    columns, rows = _grid()
    x, y = columns - np.float32(place[1] * SPACING_MM), rows - np.float32(place[0] * SPACING_MM)
    bmi, female = float(h["bmi"]), 1 - float(h["sex"])
    fat = max(5 + 0.8 * (bmi - 21) + 3 * female, 3.0)  # mm under the skin
    half_x, half_y = 168 + 1.2 * (float(h["height"]) - 170) + fat, 108 + 1.0 * (bmi - 26) + fat
    mid_x, mid_y = -22 + 5 * habit[0], half_y - 0.6 * fat - 58 - 0.6 * (float(h["radius_ed"]) - 25)
    u, v = (x - mid_x) / half_x, (y - mid_y) / half_y
    square = u * u * u * u + v * v * v * v  # rounder than a box, squarer than an ellipse
    # mm under the skin, front and back
    depth = (1 - np.sqrt(0.75 * (u * u + v * v) + 0.25 * np.sqrt(square))) * half_y
    coarse, fine = _texture(3, random), _texture(1, random)
    image = _inside(depth) * _FAT * (1 + 0.05 * coarse)
    wall = depth - fat * (1 + 0.4 * v)  # thinner over the breastbone
    ribs = 0.16 * np.cos(22 * u + 9 * v + 3 * habit[1]) * _inside(6 - np.abs(wall - 8))
    image = _over(image, _inside(wall), _SKELETAL + ribs + 0.02 * fine)
    cavity = _inside(wall - 16)
    vessels = 0.35 * (fine - 1.5).clip(0, 1.5)
    image = _over(image, cavity, _LUNG + vessels)
    low = slice(int(place[0]), None)  # everything else lies below the heart's middle
    image[low] = _organs(image[low], cavity[low], x, y[low], habit, coarse[low], fine[low])
    return image


def _over(image: np.ndarray, share: np.ndarray, value: np.ndarray | float) -> np.ndarray:
    return image + share * (value - image)


def _organs(image, cavity, x, y, habit, coarse, fine) -> np.ndarray:
    """Liver under the diaphragm, stomach and spleen, mediastinum, spine and descending aorta;
    positions in mm from the heart.
    """
    # Both sides of the diaphragm, on which the inferior wall rests: liver on the left of the
    # picture, stomach on its right.
    dome = y - (35 + 2 * habit[2]) - 0.0022 * (x + 25) ** 2
    liver = _LIVER * (1 + 0.05 * coarse + 0.05 * fine) + 0.35 * (fine - 1.7).clip(0, 1)
    liver_edge = 36 + 8 * habit[3] - x - 0.4 * (y - 40)
    image = _over(image, cavity * _inside(dome) * _inside(liver_edge), liver)
    stomach = (1 - np.sqrt(((x - 66 - 6 * habit[4]) / 52) ** 2 + ((y - 84) / 42) ** 2)) * 42
    image = _over(image, cavity * _inside(stomach), 0.46 * (1 + 0.20 * coarse + 0.06 * fine))
    middle = (1 - np.sqrt(((x + 26) / 36) ** 2 + ((y - 92) / 34) ** 2)) * 34
    image = _over(image, _inside(middle), 0.50 * (1 + 0.20 * coarse + 0.05 * fine))
    spine = np.hypot(x + 42 + 3 * habit[5], (y - 116) * 1.12)
    image = _over(image, _inside(25 - spine), 0.12)  # cortical bone
    image = _over(image, _inside(22 - spine), _MARROW * (1 + 0.10 * fine))
    image = _over(image, _inside(8 - np.hypot(x + 42 + 3 * habit[5], y - 147)), _FLUID)
    aorta = np.hypot(x + 4 + 3 * habit[6], y - 92)
    image = _over(image, _inside(13.5 - aorta), _MUSCLE)
    return _over(image, _inside(11.5 - aorta), 0.95 * _BLOOD)


def _scan(images: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """What the scanner adds to `images` (taken over): shading, blur, now and then ghosts or bands,
    noise, a scale.
    """
    columns, rows = _grid()
    x, y = columns / 187 - 1, rows / 173 - 1
    across, along = (0.12 * random.standard_normal(2)).tolist()
    # Anterior and posterior arrays: brighter towards the skin (Roemer et al. 1990).
    shading = 1 + across * x + (along - 0.18) * y + random.uniform(0.05, 0.25) * (y * y - 0.4)
    if random.random() < 0.06:  # off-resonance bands (Bieri & Scheffler 2013)
        tilt, phase = random.uniform(-0.6, 0.6), random.uniform(0, 2 * np.pi)
        band = np.cos(1.3 * np.pi * (x + tilt * y) + phase)
        shading = shading * (1 - 0.6 * np.exp(-40 * (1 + band)))
    images *= shading.clip(0.2)
    if random.random() < 0.08:  # a breath or an irregular beat: ghosts along the phase direction
        images += random.uniform(0.05, 0.14) * np.roll(images, int(random.integers(25, 60)), axis=1)
    images = _blur(images)
    channels = random.standard_normal((2, *images.shape), dtype=np.float32)
    channels *= 1 / random.uniform(22, 50)  # of blood's signal
    channels[0] += images
    channels *= channels
    magnitude = np.sqrt(channels[0] + channels[1])
    magnitude *= random.uniform(160, 320)
    return magnitude


def _blur(images: np.ndarray) -> np.ndarray:
    """The matrix acquired is coarser than the one stored: 1-3-1 along both axes."""
    tall = images[:, :-2] + images[:, 2:]
    tall += 3 * images[:, 1:-1]
    wide = tall[:, :, :-2] + tall[:, :, 2:]
    wide += 3 * tall[:, :, 1:-1]
    images[:, 1:-1, 1:-1] = wide
    images[:, 1:-1, 1:-1] *= 1 / 25
    return images
