"""Phenotypes of the ventricles from a segmented short-axis stack: volumes, function, mass and wall
thickness.

One idea: what a stack cannot give is absent, never 0 and never a guess. A volume is a count of
voxels; a wall is as thick as the way from a point of the endocardial contour to the nearest of the
epicardial one; its segment follows from the angle to the septum. Labels are ukbb_cardiac's: 1 LV
cavity, 2 LV myocardium, 3 RV cavity. Names and units are those of `tasks`.
"""

import numpy as np

CAVITY, MUSCLE, RIGHT = 1, 2, 3
DENSITY = 1.05  # g/mL of myocardium, as ukbb_cardiac
LEAST_PIXELS = 10  # fewer in a slice are no structure; ukbb_cardiac's bound
LEAST_SLICES = 6  # with cavity and muscle, for thickness; ukbb_cardiac's bound
BEATS = (25.0, 220.0)  # per minute; outside, the times are not those of one heartbeat
SPACING_MM = (0.2, 25.0)  # of pixels and slices; beyond, the header states none
NEAR = 3.0  # pixels between the right ventricle and the wall that is called septum, at most


def measure(
    ed: np.ndarray,
    es: np.ndarray | None,
    spacing_mm: tuple[float, float, float],
    *,
    heart_rate: float | None = None,
    from_apex: bool | None = None,
) -> dict[str, float]:
    """Every phenotype that two segmented phases give.

        EDV, ESV = voxels · volume;   SV = EDV − ESV;   EF = 100 SV / EDV;
        CO = SV · rate / 1000;   LVM = 1.05 · muscle

    Args:
        ed, es: (slices, height, width) labels at end-diastole and end-systole, slices from base to
            apex; `es` may lack.
        spacing_mm: distance of slices, rows and columns.
        heart_rate: beats per minute, for the cardiac output.
        from_apex: whether rows and columns are seen from the apex, as scanners show them; None if
            it is not known, and then no segment can be told from its mirror image.

    Returns:
        Name -> mL, %, L/min, g or mm. A ventricle with a slice missing, or larger at end-systole
        than at end-diastole, has no values, and without the left one there are none; neither where
        muscle does not surround the cavity, since other orders of labels are common.

    Source: definitions of ukbb_cardiac (Bai et al. 2018, 2020), in our own code.
    """
    if not all(SPACING_MM[0] <= step <= SPACING_MM[1] for step in spacing_mm):
        return {}
    if label_order(ed) != (CAVITY, MUSCLE, RIGHT):
        return {}
    voxel = float(np.prod(spacing_mm)) / 1000
    left_ventricle, right_ventricle = (
        _ventricle(ed, es, label, name, voxel) for label, name in ((CAVITY, "LV"), (RIGHT, "RV"))
    )
    if not left_ventricle:
        return {}
    if "LVSV" in left_ventricle and heart_rate is not None:
        left_ventricle["LVCO"] = left_ventricle["LVSV"] * heart_rate / 1000
    left_ventricle["LVM"] = DENSITY * voxel * float((ed == MUSCLE).sum())
    return {**left_ventricle, **right_ventricle, **wall_thickness(ed, spacing_mm, from_apex)}


def heart_rate(trigger_ms: np.ndarray | None) -> float | None:
    """Beats per minute, taking the phases to fill one heartbeat; None if that is not plausible.

    Args:
        trigger_ms: (phases,) times after the R wave. A prospectively triggered cine ends before the
            next R wave: the rate is then some 10 % too high. ukbb_cardiac reckons alike.
    """
    if trigger_ms is None or len(trigger_ms) < 2:
        return None
    beat = float(np.median(np.diff(trigger_ms))) * len(trigger_ms)
    return 60_000 / beat if beat > 0 and BEATS[0] <= 60_000 / beat <= BEATS[1] else None


def wall_thickness(
    ed: np.ndarray, spacing_mm: tuple[float, float, float], from_apex: bool | None = None
) -> dict[str, float]:
    """Mean thickness of the LV wall by 16 AHA segments (`WT_AHA_1` … 16) and of all of it
    (`WT_Global`), mm.

    The slices with cavity and muscle fall into three thirds, basal, mid and apical. In each whose
    muscle closes around the cavity, the thickness at a point of the endocardial contour is its
    distance to the nearest point of the epicardial one. The angle is counted from the anterior wall
    over the septum; the middle between the two insertions of the right ventricle in the middle
    slice is 90°. Basal and mid segments take 60° each, apical ones 90°, the first around 0°.

    Args:
        ed: (slices, height, width) labels, base to apex.
        spacing_mm: of slices, rows and columns.
        from_apex: as in `measure`.

    Returns:
        Nothing without 6 adjoining slices; no segments without a right ventricle beside the middle
        slice, without `from_apex`, or where the first third is narrower than the last, so that base
        and apex are in doubt.

    Source: Cerqueira et al. 2002 (segments), ukbb_cardiac (thirds, direction of the septum).
    """
    wall_slices = [
        z
        for z in range(len(ed))
        if min((ed[z] == CAVITY).sum(), (ed[z] == MUSCLE).sum()) >= LEAST_PIXELS
    ]
    if len(wall_slices) < LEAST_SLICES or wall_slices[-1] - wall_slices[0] != len(wall_slices) - 1:
        return {}
    rows, columns = (np.flatnonzero((ed > 0).any(axes)) for axes in ((0, 2), (0, 1)))
    ed = ed[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    pixel = np.array(spacing_mm[1:])
    thickness, angles, thirds = [np.empty(0)], [np.empty(0)], [np.empty(0, int)]
    septum = None if from_apex is None else _septum(ed[wall_slices], pixel)
    for n, z in enumerate(wall_slices):
        inner = _piece(ed[z] == CAVITY)
        if not _closed(inner, ed[z]):
            continue
        outer = _piece(inner | (ed[z] == MUSCLE))
        points = contour(inner) * pixel
        thickness.append(np.linalg.norm(points[:, None] - contour(outer) * pixel, axis=2).min(1))
        angles.append(_angle(points - _centre(inner) * pixel))
        thirds.append(np.full(len(points), 3 * n // len(wall_slices)))
    mm, third = np.concatenate(thickness), np.concatenate(thirds)
    if set(third) != {0, 1, 2}:
        return {}
    out = {"WT_Global": float(mm.mean())}
    if septum is not None:
        # As seen from the apex, the anterior wall lies clockwise of the septum; our angles run
        # clockwise.
        turn = np.concatenate(angles) - septum
        segments = _segment(90 - turn if from_apex else 90 + turn, third)
        out |= {
            f"WT_AHA_{k}": float(mm[segments == k].mean())
            for k in range(1, 17)
            if (segments == k).any()
        }
    return out


def contour(mask: np.ndarray) -> np.ndarray:
    """Points on the border of a mask, (n, 2) row and column: where the softened mask crosses one
    half.

    Softening takes away the stairs of the pixels, which would bring two borders nearer to one
    another than they are.
    """
    soft = np.pad(mask.astype(np.float64), 2)
    for axis in (0, 1):
        soft = (np.roll(soft, 1, axis) + 2 * soft + np.roll(soft, -1, axis)) / 4
    points = []
    for axis in (0, 1):
        a, b = (soft[:-1], soft[1:]) if axis == 0 else (soft[:, :-1], soft[:, 1:])
        at = np.argwhere((a >= 0.5) != (b >= 0.5))
        start, end = a[tuple(at.T)], b[tuple(at.T)]
        crossing = at.astype(np.float64)
        crossing[:, axis] += (0.5 - start) / (end - start)
        points.append(crossing - 2)
    return np.concatenate(points)


def _ventricle(
    ed: np.ndarray, es: np.ndarray | None, label: int, name: str, voxel: float
) -> dict[str, float]:
    """EDV and, with `es`, ESV, SV and EF of one ventricle; empty where they are in doubt."""
    end = _volume(ed, label, voxel)
    if end is None:
        return {}
    if es is None:
        return {f"{name}EDV": end}
    start = _volume(es, label, voxel)
    if start is None or start >= end:
        return {}
    return {
        f"{name}EDV": end,
        f"{name}ESV": start,
        f"{name}SV": end - start,
        f"{name}EF": 100 * (end - start) / end,
    }


def _volume(labels: np.ndarray, label: int, voxel: float) -> float | None:
    """Millilitres of a label; None if it is absent or a slice of it is missing between others."""
    counts = (labels == label).sum((1, 2))
    label_slices = np.flatnonzero(counts)
    if counts.sum() < LEAST_PIXELS or label_slices[-1] - label_slices[0] != len(label_slices) - 1:
        return None
    return float(counts.sum()) * voxel


def label_order(labels: np.ndarray) -> tuple[int, int, int] | None:
    """Which label is the left ventricle's cavity, which its muscle, which the right one's cavity.

    Anatomy decides: the cavity is the one whose border is muscle for the most part. ACDC, for one,
    calls the right ventricle 1 and the left 3.

    Args:
        labels: (…, height, width), 0 … 3.

    Returns:
        A permutation of 1, 2, 3; None where none has most of its border in common with another.
    """
    borders = np.zeros((4, 4), np.int64)
    for axis in (-2, -1):
        a, b = (np.moveaxis(labels, axis, 0)[part] for part in (slice(1, None), slice(None, -1)))
        edge = a != b
        pairs = np.bincount(4 * a[edge].astype(np.int64) + b[edge], minlength=16).reshape(4, 4)
        borders += pairs + pairs.T
    shares = borders / np.maximum(borders.sum(1, keepdims=True), 1)
    shares[0] = shares[:, 0] = 0  # nothing is enclosed by the background, nor is it
    cavity, muscle = (int(n) for n in np.unravel_index(int(shares.argmax()), shares.shape))
    if shares[cavity, muscle] <= 0.5:
        return None
    return cavity, muscle, 6 - cavity - muscle


def _closed(cavity: np.ndarray, labels: np.ndarray) -> bool:
    """Whether every neighbour of the cavity is muscle; at the outflow tract the wall is open and
    has no thickness.
    """
    return bool((labels[_grown(cavity) & ~cavity] == MUSCLE).all())


def _piece(mask: np.ndarray) -> np.ndarray:
    """The connected part of a mask around its middle, holes filled; stray pixels elsewhere are left
    out.
    """
    pixels = np.argwhere(mask)
    nearest = pixels[np.linalg.norm(pixels - pixels.mean(0), axis=1).argmin()]
    around = np.pad(~_flood(tuple(nearest), mask), 1, constant_values=True)
    return ~_flood((0, 0), around)[1:-1, 1:-1]


def _flood(seed: tuple[int, ...], mask: np.ndarray) -> np.ndarray:
    """All of a mask that can be reached from a pixel of it."""
    region = np.zeros_like(mask)
    region[seed] = True
    while True:
        grown_region = _grown(region) & mask
        if (grown_region == region).all():
            return region
        region = grown_region


def _grown(mask: np.ndarray) -> np.ndarray:
    """A mask and its neighbours, four to a pixel."""
    out = mask.copy()
    out[1:] |= mask[:-1]
    out[:-1] |= mask[1:]
    out[:, 1:] |= mask[:, :-1]
    out[:, :-1] |= mask[:, 1:]
    return out


def _septum(labels: np.ndarray, pixel: np.ndarray) -> float | None:
    """Direction of the septum's middle from the cavity's centre, degrees, in the middle slice; None
    if it is in doubt.

    Args:
        labels: (slices, height, width), the slices with cavity and muscle, base to apex.
        pixel: mm between rows and columns.
    """
    third = len(labels) // 3
    if (labels[:third] > 0).sum() <= (labels[-third:] > 0).sum():
        return None
    slice_ = labels[round(float(np.argwhere(labels == CAVITY)[:, 0].mean()))]
    if (slice_ == RIGHT).sum() < LEAST_PIXELS:
        return None
    cavity = _piece(slice_ == CAVITY)
    wall = contour(_piece(cavity | (slice_ == MUSCLE))) * pixel
    gap = np.linalg.norm(wall[:, None] - np.argwhere(slice_ == RIGHT) * pixel, axis=2).min(1)
    if gap.min() > NEAR * pixel.max():
        return None
    angles = _angle(wall[gap <= gap.min() + pixel.max()] - _centre(cavity) * pixel)
    middle = float(np.degrees(np.angle(np.exp(1j * np.radians(angles)).sum())))
    spread = (
        angles - middle + 180
    ) % 360 - 180  # the insertions of the right ventricle are its two ends
    return middle + float(spread.min() + spread.max()) / 2


def _centre(mask: np.ndarray) -> np.ndarray:
    return np.argwhere(mask).mean(0)


def _angle(offsets: np.ndarray) -> np.ndarray:
    """Degrees of (n, 2) offsets in rows and columns: 0 to the right, growing clockwise as the image
    is shown.
    """
    return np.degrees(np.arctan2(offsets[:, 0], offsets[:, 1]))


def _segment(degrees: np.ndarray, third: np.ndarray) -> np.ndarray:
    """The AHA segment of each point, 1 … 16, from its angle (0 anterior, 90 septal) and third (0
    basal, 2 apical).
    """
    ring = 1 + 6 * third + ((degrees + 30) % 360 // 60).astype(int)
    apical = 13 + ((degrees + 45) % 360 // 90).astype(int)
    return np.where(third == 2, apical, ring)
