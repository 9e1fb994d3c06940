"""Ventricles of known shape: their volumes, mass, walls and segments."""

import numpy as np
import pytest

from ecgcmr import tasks
from ecgcmr.signals import phenotypes

SPACING = (8.0, 1.5, 1.5)
SHAPE = (14, 100, 110)
CENTRE = (50.0, 58.0)  # row, column of the long axis, pixels
BASE = 2  # first slice with a heart
LONG, OUTER = 82.0, 36.0  # mm, half axes of the epicardium; half of the ellipsoid, cut at the base


def heart(
    wall_mm=9.0, scale=1.0, rv=True, thick=None, spacing=SPACING, shape=SHAPE, centre=CENTRE
) -> np.ndarray:
    """A half ellipsoid whose cavity is cut out by a smaller one, a crescent RV on the left of the image.

    Args:
        scale: of the cavity's radius, for another phase.
        thick: AHA segment whose wall is 4 mm thicker, inwards, seen from the apex.
    """
    out = np.zeros(shape, np.uint8)
    row, column = np.mgrid[: shape[1], : shape[2]].astype(float)
    y, x = (row - centre[0]) * spacing[1], (column - centre[1]) * spacing[2]
    for z in range(BASE, shape[0]):
        depth = (z - BASE + 0.5) * spacing[0]
        outer = OUTER * np.sqrt(max(0.0, 1 - (depth / LONG) ** 2))
        inner = (OUTER - wall_mm) * scale * np.sqrt(max(0.0, 1 - (depth / (LONG - wall_mm)) ** 2))
        radius = np.hypot(y, x)
        if rv:
            out[z][
                (np.hypot(y / 1.1, x + 28) < outer * (0.5 + 0.5 * scale)) & (radius >= outer)
            ] = 3
        out[z][radius < outer] = 2
        out[z][radius < inner - (4.0 * wedge(thick, y, x, depth) if thick else 0.0)] = 1
    return out


def wedge(segment, y, x, depth) -> np.ndarray:
    """Where an AHA segment lies in the image as seen from the apex: anterior up, septum left, counted counter-clockwise."""
    third = 0 if segment <= 6 else 1 if segment <= 12 else 2
    here = min(int(3 * depth // (LONG - 9.0)), 2)
    width = 90 if third == 2 else 60
    middle = 90 + width * (segment - (1, 7, 13)[third])
    angle = np.degrees(np.arctan2(-y, x))
    return (third == here) & (np.abs((angle - middle + 180) % 360 - 180) < width / 2)


def turned(labels: np.ndarray, quarter: int) -> np.ndarray:
    return np.ascontiguousarray(np.rot90(labels, quarter, axes=(1, 2)))


def test_volumes_of_half_ellipsoids():
    """V = 2/3 π a b²; the slices end at the base plane, so only pixels and slice steps differ from it."""
    spacing, shape = (4.0, 1.0, 1.0), (24, 130, 150)
    cut = {"spacing": spacing, "shape": shape, "centre": (65, 80)}
    found = phenotypes.measure(
        heart(**cut), heart(scale=0.7, **cut), spacing, heart_rate=60.0, from_apex=True
    )
    cavity = 2 / 3 * np.pi * (LONG - 9) * (OUTER - 9) ** 2 / 1000
    whole = 2 / 3 * np.pi * LONG * OUTER**2 / 1000
    assert found["LVEDV"] == pytest.approx(cavity, rel=0.01)
    assert found["LVESV"] == pytest.approx(0.49 * cavity, rel=0.01)
    assert found["LVEF"] == pytest.approx(51.0, abs=0.5)
    assert found["LVM"] == pytest.approx(1.05 * (whole - cavity), rel=0.01)
    assert found["LVSV"] == found["LVEDV"] - found["LVESV"]
    assert found["LVCO"] == pytest.approx(found["LVSV"] * 60 / 1000)
    assert set(found) <= set(tasks.PHENOTYPES)


def test_right_ventricle_counts_its_voxels():
    ed, es = heart(), heart(scale=0.8)
    found = phenotypes.measure(ed, es, SPACING)
    voxel = 8 * 1.5 * 1.5 / 1000
    assert found["RVEDV"] == pytest.approx((ed == 3).sum() * voxel)
    assert found["RVESV"] == pytest.approx((es == 3).sum() * voxel)
    assert found["RVEF"] == pytest.approx(100 * found["RVSV"] / found["RVEDV"])
    assert "LVCO" not in found  # no heart rate


@pytest.mark.parametrize("wall", [6.0, 9.0, 13.0])
@pytest.mark.parametrize("spacing", [SPACING, (8.0, 1.2, 1.9)])
def test_the_wall_of_a_shell_is_as_thick_as_it_is(wall, spacing):
    """In a slice both borders are circles, so the thickness is the difference of their radii, exactly."""
    shell = heart(wall_mm=wall, spacing=spacing, shape=(12, 130, 110), centre=(65, 58))
    found = phenotypes.wall_thickness(shell, spacing, from_apex=True)
    depths = (np.arange(BASE, 12) - BASE + 0.5) * 8.0
    inner, outer = (
        (r * np.sqrt(np.clip(1 - (depths / n) ** 2, 0, 1)))
        for r, n in ((OUTER - wall, LONG - wall), (OUTER, LONG))
    )
    radial = (outer - inner)[inner > 3]
    for segment in range(1, 7):
        assert found[f"WT_AHA_{segment}"] == pytest.approx(
            radial[: len(depths[inner > 0]) // 3 + 1].mean(), abs=0.35
        )
    assert found["WT_Global"] == pytest.approx(
        np.average(radial, weights=inner[inner > 3]), abs=0.35
    )


@pytest.fixture(scope="module")
def plain():
    """The thickness of a wall without a thick segment."""
    return phenotypes.wall_thickness(heart(), SPACING, from_apex=True)


@pytest.mark.parametrize("segment", range(1, 17))
@pytest.mark.parametrize(("quarter", "flip"), [(0, False), (1, False), (2, True), (3, True)])
def test_a_thick_segment_is_found_under_its_number_however_the_image_is_turned(
    segment, quarter, flip, plain
):
    labels = turned(heart(thick=segment), quarter)
    labels = labels[:, ::-1] if flip else labels  # a mirrored image is one seen from the base
    found = phenotypes.wall_thickness(labels, SPACING, from_apex=not flip)
    more = {k: found[f"WT_AHA_{k}"] - plain[f"WT_AHA_{k}"] for k in range(1, 17)}
    assert max(more, key=more.get) == segment
    assert more.pop(segment) > 2
    assert max(more.values()) < 1.3


def test_segments_need_to_know_the_side_and_a_right_ventricle():
    assert set(phenotypes.wall_thickness(heart(), SPACING)) == {"WT_Global"}
    assert set(phenotypes.wall_thickness(heart(rv=False), SPACING, from_apex=True)) == {"WT_Global"}
    assert set(phenotypes.wall_thickness(heart()[::-1], SPACING, from_apex=True)) == {
        "WT_Global"
    }  # apex first


def test_an_open_wall_is_not_measured():
    """The outflow tract: muscle lacks on one side, where a naive distance would be 0."""
    labels = heart()
    plain = phenotypes.wall_thickness(labels, SPACING, from_apex=True)
    labels[BASE, :, 58:][labels[BASE, :, 58:] == 2] = 0
    found = phenotypes.wall_thickness(labels, SPACING, from_apex=True)
    assert all(found[name] == pytest.approx(plain[name], abs=0.2) for name in found)
    labels[BASE : BASE + 9, :, 58:][labels[BASE : BASE + 9, :, 58:] == 2] = 0
    assert phenotypes.wall_thickness(labels, SPACING, from_apex=True) == {}


def test_stray_pixels_and_holes_do_not_reach_the_thickness():
    labels = heart()
    plain = phenotypes.wall_thickness(labels, SPACING, from_apex=True)
    labels[4, 2:4, 100:103] = 1
    labels[5, 90:93, 3:6] = 2
    labels[6, 50, 58] = 2  # a papillary muscle
    found = phenotypes.wall_thickness(labels, SPACING, from_apex=True)
    assert found == pytest.approx(plain, abs=0.02)


def test_what_a_stack_lacks_is_absent():
    ed, es = heart(), heart(scale=0.7)
    assert "LVESV" not in phenotypes.measure(ed, None, SPACING)
    assert "LVEDV" in phenotypes.measure(ed, None, SPACING)
    assert phenotypes.measure(es, ed, SPACING) == {}  # the phases are exchanged
    hole = ed.copy()
    hole[5] = 0
    assert phenotypes.measure(hole, es, SPACING) == {}  # a slice is missing
    alone = phenotypes.measure(heart(rv=False), heart(scale=0.7, rv=False), SPACING)
    assert "LVEF" in alone
    assert not any(name.startswith("RV") for name in alone)
    assert phenotypes.measure(np.zeros_like(ed), es, SPACING) == {}
    assert phenotypes.measure(ed, es, (0.0, 1.5, 1.5)) == {}
    few = ed.copy()
    few[BASE + 4 :] = 0
    assert not any(name.startswith("WT") for name in phenotypes.measure(few, None, SPACING))


def test_other_orders_of_labels_are_noticed():
    swapped = np.array([0, 3, 2, 1], np.uint8)  # ACDC: 1 RV, 2 myocardium, 3 LV
    assert phenotypes.measure(swapped[heart()], swapped[heart(scale=0.7)], SPACING) == {}


def test_heart_rate():
    assert phenotypes.heart_rate(np.arange(50) * 20.0) == pytest.approx(60.0)
    assert phenotypes.heart_rate(np.arange(50) * 1000.0) is None  # a converter's default step
    assert phenotypes.heart_rate(np.zeros(50)) is None
    assert phenotypes.heart_rate(None) is None


def test_labels_are_not_changed():
    ed, es = heart(), heart(scale=0.7)
    kept = ed.copy(), es.copy()
    phenotypes.measure(ed, es, SPACING, heart_rate=70.0, from_apex=True)
    assert np.array_equal(ed, kept[0])
    assert np.array_equal(es, kept[1])
