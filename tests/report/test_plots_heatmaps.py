"""Figure 6: a colour means the same number in every panel, maps lie as their frames do, and rows are those given."""

import matplotlib.image
import numpy as np
import pytest

from ecgcmr.errors import InputError
from ecgcmr.report.plots import curves, heatmaps

SYSTEMS = ("MMCL w/o MDM", "MMCL")


def case(caption="Typical heart\nLVEDV 150 mL", seed=0, grid=7, systems=SYSTEMS, amplitude=1.0):
    rng = np.random.default_rng(seed)
    time = np.arange(5000) / 500
    beat = amplitude * np.exp(-0.5 * ((time % 1.0 - 0.5) / 0.012) ** 2)
    ecg = np.linspace(0.3, 2.0, 12)[:, None] * beat
    frame = rng.integers(0, 256, (210, 210)).astype(np.uint8)
    maps = {name: 0.2 * rng.uniform(-1, 1, (grid, grid)) for name in systems}
    return heatmaps.Case(caption, ecg.astype(np.float16), 500.0, frame, maps)


@pytest.fixture(scope="module")
def drawn():
    cases = [case(), case("Thickest wall", seed=1, amplitude=0.5)]
    return cases, heatmaps.figure6(cases)


def rows(figure, panels=5):
    """The panels of each case, and that of the colour bar."""
    *grid, bar = figure.axes
    return [grid[i : i + panels] for i in range(0, len(grid), panels)], bar


def overlays(figure):
    """(panel, [frame below, similarity above]) of every system and case."""
    return [(ax, ax.images) for row in rows(figure)[0] for ax in row if len(ax.images) == 2]


def test_every_overlay_has_one_fixed_scale_whatever_its_values(drawn):
    _, figure = drawn
    assert len(overlays(figure)) == 4
    for _, (grey, heat) in overlays(figure):
        assert (grey.get_cmap().name, heat.get_cmap().name) == ("gray", "RdBu_r")
        assert heat.get_clim() == (-1, 1)
        assert heat.get_alpha() == 0.5


def test_one_colour_bar_tells_it(drawn):
    _, bar = rows(drawn[1])
    assert bar.get_ylabel() == "cosine similarity"
    assert bar.get_ylim() == (-1, 1)


def test_the_grid_is_resized_bilinearly_and_lies_as_the_frame_does(drawn):
    cases, figure = drawn
    (_, (grey, heat)), *_ = overlays(figure)
    grid, fine = cases[0].maps[SYSTEMS[0]], np.asarray(heat.get_array())
    assert fine.shape == (210, 210)
    assert grey.get_extent() == heat.get_extent()
    np.testing.assert_allclose(
        fine[[0, 0, -1, -1], [0, -1, 0, -1]], grid[[0, 0, -1, -1], [0, -1, 0, -1]]
    )
    # 30 pixels per location: halfway between the middles of two lies their mean.
    np.testing.assert_allclose(fine[29:31, 0].mean(), grid[:2, 0].mean())
    np.testing.assert_allclose(fine[-1, 59:61].mean(), grid[-1, 1:3].mean())
    assert np.abs(fine).max() <= np.abs(grid).max()


def test_rows_are_cases_and_columns_systems(drawn):
    cases, figure = drawn
    grid, _ = rows(figure)
    assert [ax.get_title() for ax in grid[0]] == [
        "",
        "ECG, leads II and V2",
        "CMR, mid-phase",
        *SYSTEMS,
    ]
    assert not any(ax.get_title() for ax in grid[1])
    assert [text.get_text() for text in grid[0][0].texts] == ["Typical heart", "LVEDV 150 mL"]
    for one, panels in zip(cases, grid):
        np.testing.assert_array_equal(panels[2].images[0].get_array(), one.frame)


def test_leads_are_the_named_ones_five_seconds_of_them_at_one_scale_in_all_rows(drawn):
    cases, figure = drawn
    grid, _ = rows(figure)
    for one, panels in zip(cases, grid):
        lines = {line.get_gid(): line for line in panels[1].lines}
        for lead, number in (("II", 1), ("V2", 7)):
            assert lines[lead].get_xdata()[-1] == pytest.approx(5, abs=0.01)
            assert np.ptp(lines[lead].get_ydata()) == pytest.approx(
                np.ptp(one.ecg[number].astype(float)), rel=1e-6
            )
        assert lines["V2"].get_ydata().max() < lines["II"].get_ydata().min()
    heights = [np.ptp(panels[1].get_ylim()) for panels in grid]
    assert heights[0] == pytest.approx(heights[1])
    (bar,) = [line for line in grid[1][1].lines if line.get_gid() == "scale"]
    assert (np.ptp(bar.get_xdata()), np.ptp(bar.get_ydata())) == (
        pytest.approx(0.5),
        pytest.approx(1.0),
    )


def test_what_is_written_has_the_colours_of_the_numbers(tmp_path):
    high, low = (np.full((7, 7), value) for value in (1.0, -1.0))
    black = np.zeros((210, 210), np.uint8)
    one = case()
    figure = heatmaps.figure6(
        [heatmaps.Case(one.caption, one.ecg, 500.0, black, {"high": high, "low": low})]
    )
    (tmp_path / "figure.png").write_bytes(curves.png(figure, dpi=100))
    picture = matplotlib.image.imread(tmp_path / "figure.png")
    for axes, reddish in zip(rows(figure)[0][0][3:], (True, False)):
        box = axes.get_window_extent().extents * 100 / figure.dpi
        pixel = picture[picture.shape[0] - int(box[[1, 3]].mean()), int(box[[0, 2]].mean())]
        assert (pixel[0] > pixel[2]) == reddish


@pytest.mark.parametrize(
    ("cases", "message"),
    [
        ([], "nothing to draw"),
        ([case(systems=())], "nothing to draw"),
        ([case(), case("other", systems=("MMCL",))], "case 'other' has maps of"),
    ],
)
def test_what_cannot_be_drawn_is_refused(cases, message):
    with pytest.raises(InputError, match=message):
        heatmaps.figure6(cases)
