"""Figures from results: what is drawn is what was given, gaps stay gaps, and nothing at all is said in words."""

import math

import numpy as np
import pytest
from matplotlib.colors import to_hex

from ecgcmr.errors import InputError
from ecgcmr.report.plots import paper
from ecgcmr.report.plots.curves import PALETTE, png
from ecgcmr.report.plots.paper import Difference, Point, ReliabilityCurve, Scatter

NAN = math.nan


def phenotype(n=700, name="LVEDV", count=500, r=0.63):
    rng = np.random.default_rng(len(name))
    measured = 150 + 30 * rng.standard_normal(n)
    predicted = 150 + 0.4 * (measured - 150) + 15 * rng.standard_normal(n)
    return Scatter(name, "mL", measured, predicted, r, paper.choose(n, count))


def points(*fractions, base=70.0):
    return [
        Point(
            label_fraction,
            round(400 * label_fraction),
            base + 3 * math.log10(label_fraction),
            base - 9,
            base + 1,
        )
        for label_fraction in fractions
    ]


def curve(name="as trained (balanced)", observed=(0.0, 0.05, 0.2), n=(100, 100, 100)):
    observed = np.array(observed)
    return ReliabilityCurve(
        name,
        np.array([0.1, 0.4, 0.8]),
        observed,
        np.clip(observed - 0.02, 0, 1),
        observed + 0.04,
        np.array(n),
    )


ROWS = [
    Difference("CAD", "MDM", 2.0, 0.5, 3.5, 0.004),
    Difference("AF", "MDM", -0.4, -2.0, 1.2, 0.6),
    Difference("CAD", "SimCLR", 5.0, 3.0, 7.0, NAN),
]


def marked(artists, gid):
    return [artist for artist in artists if artist.get_gid() == gid]


def words(figure):
    return [text.get_text() for ax in figure.axes for text in ax.texts]


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


# Figure 4


def test_the_same_subjects_are_shown_whatever_they_look_like():
    rows = paper.choose(3003)
    assert len(rows) == len(set(rows)) == 500
    assert rows.min() >= 0
    assert rows.max() < 3003
    assert np.array_equal(rows, paper.choose(3003))
    assert not np.array_equal(rows, paper.choose(3003, seed=1))
    assert np.array_equal(paper.choose(120), np.arange(120))


def test_the_line_is_the_regression_over_all_subjects_not_over_those_shown():
    panel = phenotype(count=50)
    (line,) = marked(paper.figure4([panel]).axes[0].lines, "regression")
    everyone = np.polyfit(panel.measured, panel.predicted, 1)
    shown = np.polyfit(panel.measured[panel.shown], panel.predicted[panel.shown], 1)
    assert np.polyval(everyone, line.get_xdata()) == pytest.approx(line.get_ydata())
    assert np.polyval(shown, line.get_xdata()) != pytest.approx(line.get_ydata())
    assert list(line.get_xdata()) == [panel.measured.min(), panel.measured.max()]


def test_only_the_chosen_subjects_are_points():
    panel = phenotype(count=50)
    (cloud,) = marked(paper.figure4([panel]).axes[0].collections, "subjects")
    assert np.array_equal(cloud.get_offsets(), np.c_[panel.measured, panel.predicted][panel.shown])


def test_unknown_values_count_neither_as_points_nor_in_the_line():
    panel = phenotype(n=100)
    measured = panel.measured.copy()
    measured[:10] = NAN
    figure = paper.figure4([Scatter("LVM", "g", measured, panel.predicted, 0.5, panel.shown)])
    (line,) = marked(figure.axes[0].lines, "regression")
    expected = np.polyfit(measured[10:], panel.predicted[10:], 1)
    assert np.polyval(expected, line.get_xdata()) == pytest.approx(line.get_ydata())
    assert legend(figure)[:2] == ["90 subjects", "regression, all 90 test subjects"]


@pytest.mark.parametrize(("r", "said"), [(0.634, "r = 0.63"), (-0.02, "r = −0.02"), (NAN, "r = —")])
def test_r_is_said_as_given(r, said):
    assert words(paper.figure4([phenotype(r=r)])) == [said]


def test_a_panel_is_alike_in_x_and_y_and_an_outlier_does_not_stretch_it():
    panel = phenotype()
    wild = panel.measured.copy()
    wild[0] = 1e6
    for measured in (panel.measured, wild):
        ax = paper.figure4(
            [Scatter("LVEDV", "mL", measured, panel.predicted, 0.6, panel.shown)]
        ).axes[0]
        assert ax.get_xlim() == ax.get_ylim()
        assert ax.get_xlim()[1] < 300
        assert ax.get_title(loc="left") == "LVEDV [mL]"


@pytest.mark.parametrize(("count", "columns"), [(20, 5), (8, 4), (6, 3), (3, 3), (1, 1)])
def test_every_phenotype_has_a_panel(count, columns):
    figure = paper.figure4([phenotype(60, f"P{i}") for i in range(count)])
    assert [ax.get_title(loc="left") for ax in figure.axes] == [f"P{i} [mL]" for i in range(count)]
    assert figure.axes[0].get_subplotspec().get_gridspec().ncols == columns


def test_phenotypes_that_cannot_be_fitted_are_still_drawn():
    flat = Scatter("flat", "mm", np.full(5, 3.0), np.arange(5.0), NAN, np.arange(5))
    unknown = Scatter("unknown", "mm", np.full(5, NAN), np.arange(5.0), NAN, np.arange(5))
    figure = paper.figure4([flat, unknown])
    assert not marked(figure.axes[0].lines, "regression")
    assert words(figure) == ["r = —", "nothing measured"]
    assert png(figure, dpi=40)


def test_a_scatter_that_does_not_fit_together_is_refused():
    with pytest.raises(
        InputError, match=r"'LVM'.*measured has shape \(5,\), predicted has shape \(4,\)"
    ):
        Scatter("LVM", "g", np.zeros(5), np.zeros(4), 0.0, np.arange(4))
    with pytest.raises(InputError, match=r"row outside 0 … 4; use choose\(5\)"):
        Scatter("LVM", "g", np.zeros(5), np.zeros(5), 0.0, np.array([5]))


# Figure 5


def test_a_line_goes_through_its_points_in_order_of_share():
    figure = paper.figure5({"CAD": {"MMCL": points(1, 0.01, 0.1)}})
    (line,) = marked(figure.axes[0].lines, "MMCL")
    assert list(line.get_xdata()) == [0.01, 0.1, 1]
    assert list(line.get_ydata()) == pytest.approx([64, 67, 70])
    assert figure.axes[0].get_xscale() == "log"


def test_no_line_crosses_a_missing_share():
    lines = {
        "missing": points(1, 0.01),
        "not a number": [*points(1, 0.01), Point(0.1, 40, NAN, NAN, NAN)],
    }
    ax = paper.figure5({"CAD": lines}).axes[0]
    for name in lines:
        (line,) = marked(ax.lines, name)
        assert np.isnan(line.get_ydata()).tolist() == [False, True, False]
        (band,) = marked(ax.collections, name)
        assert all(
            np.ptp(area[:, 0]) == 0
            for path in band.get_paths()
            for area in path.to_polygons(closed_only=False)
        )


def test_a_point_alone_shows_its_interval_as_a_bar():
    ax = paper.figure5({"CAD": {"MMCL": [Point(0.01, 4, 60, 55, 64)]}}).axes[0]
    (bar,) = [bar for bar in ax.collections if bar.get_gid() is None]
    assert bar.get_segments()[0].tolist() == [[0.01, 55], [0.01, 64]]


def test_the_band_spans_low_to_high():
    line = [Point(0.1, 40, 66, 61, 68), Point(1, 400, 70, 69, 72)]
    ax = paper.figure5({"CAD": {"MMCL": line}}).axes[0]
    (band,) = marked(ax.collections, "MMCL")
    corners = {tuple(map(float, corner)) for corner in band.get_paths()[0].vertices}
    assert corners == {(0.1, 61), (0.1, 68), (1, 69), (1, 72)}


def test_points_without_an_interval_have_a_line_and_no_band():
    line = [Point(label_fraction, 40, 66, NAN, NAN) for label_fraction in (0.1, 1)]
    ax = paper.figure5({"CAD": {"MMCL": line}}).axes[0]
    assert np.isfinite(marked(ax.lines, "MMCL")[0].get_ydata()[1:]).all()
    assert not any(band.get_paths() for band in marked(ax.collections, "MMCL"))


def test_ticks_say_the_share_and_the_rows_of_each_disease():
    panels = {
        "CAD": {"MMCL": [Point(1, 4000, 70, 69, 71), Point(0.01, 40, 60, 59, 61)]},
        "AF": {"MMCL": points(0.1)},
    }
    figure = paper.figure5(panels)
    ticks = [[text.get_text() for text in ax.get_xticklabels()] for ax in figure.axes]
    assert ticks == [["1 %\n(40)", "10 %", "100 %\n(4,000)"], ["1 %", "10 %\n(40)", "100 %"]]
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["CAD", "AF"]


def test_ticks_too_close_for_words_stay_without():
    ax = paper.figure5({"CAD": {"MMCL": points(0.01, 0.1, 0.5, 1)}}).axes[0]
    assert list(ax.get_xticks()) == [0.01, 0.1, 0.5, 1]
    assert ax.get_xticklabels()[2].get_text() == ""


def test_ours_stands_out_supervised_is_grey_and_no_two_systems_look_alike():
    systems = [
        "Supervised ViT",
        "SimCLR",
        "CLOCS",
        "BYOL",
        "Barlow Twins",
        "MAE",
        "MMCL w/o MDM",
        "MMCL",
    ]
    figure = paper.figure5({"CAD": {name: points(0.1, 1) for name in systems}})
    lines = {name: marked(figure.axes[0].lines, name)[0] for name in systems}
    assert lines["MMCL"].get_linewidth() > max(lines[name].get_linewidth() for name in systems[:-1])
    assert lines["MMCL"].get_zorder() > max(lines[name].get_zorder() for name in systems[:-1])
    assert to_hex(lines["Supervised ViT"].get_color()) == PALETTE[0]
    assert len({line.get_color() for line in lines.values()}) == len(systems)
    assert legend(figure) == [*systems, "chance"]
    (chance,) = marked(figure.axes[0].lines, "chance")
    assert set(chance.get_ydata()) == {50}


def test_a_system_looks_the_same_in_all_panels():
    panels = {"CAD": {"SimCLR": points(1), "BYOL": points(1)}, "AF": {"BYOL": points(1)}}
    first, second = paper.figure5(panels).axes
    assert marked(first.lines, "BYOL")[0].get_color() == marked(second.lines, "BYOL")[0].get_color()


@pytest.mark.parametrize(
    ("fractions", "said"),
    [((0, 1), "label_fraction is 0"), ((1.5,), "label_fraction is 1.5"), ((0.1, 0.1), "2 times")],
)
def test_shares_without_a_place_are_refused(fractions, said):
    with pytest.raises(InputError, match=f"CAD, MMCL: .*{said}"):
        paper.figure5(
            {
                "CAD": {
                    "MMCL": [Point(label_fraction, 4, 60, 59, 61) for label_fraction in fractions]
                }
            }
        )


# Reliability


def test_bins_bars_and_prevalence_stand_where_they_were_measured():
    figure = paper.reliability({"CAD": [curve(n=(100, 100, 50))]})
    ax = figure.axes[0]
    (line,) = marked(ax.lines, "as trained (balanced)")
    assert list(line.get_xdata()) == [0.1, 0.4, 0.8]
    assert list(line.get_ydata()) == [0.0, 0.05, 0.2]
    (bars,) = marked(ax.collections, "as trained (balanced)")
    assert np.array(bars.get_segments())[:, :, 1] == pytest.approx(
        np.array([[0, 0.04], [0.03, 0.09], [0.18, 0.24]])
    )
    (level,) = marked(ax.lines, "prevalence")
    assert set(level.get_ydata()) == {(5 + 10) / 250}
    assert words(figure) == ["prevalence 6.0 %"]


def test_the_axes_are_square_roots_alike_in_scale_so_the_diagonal_is_one():
    ax = paper.reliability({"CAD": [curve()]}).axes[0]
    assert ax.transScale.transform((0.25, 0.25)) == pytest.approx((0.5, 0.5))
    assert ax.transScale.transform((0.01, 0.0)) == pytest.approx((0.1, 0.0))
    assert ax.get_aspect() == 1
    assert ax.get_xlim()[1] >= 0.8
    assert ax.get_ylim()[1] >= 0.24


def test_every_curve_has_a_colour_and_an_empty_bin_is_left_out():
    empty = curve("prior-corrected", (0.0, NAN, 0.2), n=(100, 0, 100))
    figure = paper.reliability({"CAD": [curve(), empty], "AF": [empty], "DM": []})
    first, second = (marked(ax.lines, "prior-corrected")[0] for ax in figure.axes[:2])
    assert list(first.get_ydata()) == [0.0, 0.2]
    assert first.get_color() == second.get_color()
    assert first.get_color() != marked(figure.axes[0].lines, "as trained (balanced)")[0].get_color()
    assert "nothing measured" in words(figure)
    assert legend(figure)[:2] == ["as trained (balanced)", "prior-corrected"]


def test_a_curve_of_unequal_columns_is_refused():
    with pytest.raises(InputError, match=r"curve 'x'.* n has shape \(2,\); need \(n,\) alike"):
        curve("x", n=(1, 2))


# Forest


def test_rows_are_gathered_below_their_group():
    ax = paper.forest(ROWS).axes[0]
    labels = ax.get_yticklabels()
    assert [text.get_text() for text in labels] == ["CAD", "MDM", "SimCLR", "AF", "MDM"]
    assert [text.get_fontweight() for text in labels] == [
        "bold",
        "normal",
        "normal",
        "bold",
        "normal",
    ]
    assert [line.get_xdata()[0] for line in marked(ax.lines, "value")] == [2.0, 5.0, -0.4]
    assert [tuple(line.get_xdata()) for line in marked(ax.lines, "interval")] == [
        (0.5, 3.5),
        (3, 7),
        (-2, 1.2),
    ]
    assert [line.get_ydata()[0] for line in marked(ax.lines, "value")] == list(
        ax.get_yticks()[[1, 2, 4]]
    )


def test_only_an_adjusted_p_below_five_percent_fills_the_marker():
    ax = paper.forest(ROWS).axes[0]
    faces = [to_hex(line.get_markerfacecolor()) for line in marked(ax.lines, "value")]
    assert faces == [PALETTE[1], "#ffffff", "#ffffff"]
    on_the_line = Difference("CAD", "MDM", 2.0, 0.5, 3.5, 0.05)
    (value,) = marked(paper.forest([on_the_line]).axes[0].lines, "value")
    assert to_hex(value.get_markerfacecolor()) == "#ffffff"


def test_the_numbers_stand_beside():
    said = words(paper.forest([*ROWS, Difference("AF", "BYOL", NAN, NAN, NAN, NAN)]))
    assert {
        "+2.00 (+0.50 to +3.50)",
        "0.004",
        "−0.40 (−2.00 to +1.20)",
        "0.600",
        "—",
        "not measured",
    } <= set(said)
    small = words(paper.forest([Difference("LV", "MDM", 0.011, -0.001, 0.023, 0.00001)]))
    assert {"+0.011 (−0.001 to +0.023)", "< 0.001"} <= set(small)


def test_zero_and_every_interval_are_in_sight_and_height_grows_with_rows():
    short = paper.forest([Difference("CAD", "MDM", 4, 3, 5, 0.01)])
    low, high = short.axes[0].get_xlim()
    assert low < 0
    assert high > 5
    long = paper.forest([Difference("CAD", f"system {i}", 4, 3, 5, 0.01) for i in range(30)])
    assert long.get_figheight() > 3 * short.get_figheight()
    assert long.get_figwidth() == short.get_figwidth()


# All


@pytest.mark.parametrize(
    "figure",
    [
        lambda: paper.figure4([]),
        lambda: paper.figure5({}),
        lambda: paper.figure5({"CAD": {}}),
        lambda: paper.figure5({"CAD": {"MMCL": []}}),
        lambda: paper.reliability({}),
        lambda: paper.reliability({"CAD": []}),
        lambda: paper.forest([]),
    ],
)
def test_nothing_is_said_to_be_nothing(figure):
    drawn = figure()
    assert words(drawn) == ["nothing measured"]
    assert png(drawn, dpi=40)


@pytest.mark.parametrize(
    "figure",
    [
        lambda: paper.figure4([phenotype(120)]),
        lambda: paper.figure5({"CAD": {"MMCL": points(0.1, 1)}}),
        lambda: paper.reliability({"CAD": [curve()]}),
        lambda: paper.forest(ROWS),
    ],
    ids=["figure4", "figure5", "reliability", "forest"],
)
def test_same_input_same_bytes_and_no_words_below_seven_points_or_off_the_page(figure):
    drawn = figure()
    assert png(drawn, dpi=60) == png(figure(), dpi=60)
    page = drawn.bbox
    ticks = [
        text for ax in drawn.axes for axis in (ax.xaxis, ax.yaxis) for text in axis.get_ticklabels()
    ]
    titles = [text for ax in drawn.axes for text in (ax.xaxis.label, ax.yaxis.label, *ax.texts)]
    for text in (*ticks, *titles, *drawn.legends[0].get_texts()):
        if text.get_text():
            assert text.get_fontsize() >= 7
    for ax in drawn.axes:
        box = ax.get_tightbbox()
        assert box.x0 >= page.x0 - 1
        assert box.x1 <= page.x1 + 1
        assert box.y0 >= page.y0 - 1
        assert box.y1 <= page.y1 + 1
        assert not box.overlaps(drawn.legends[0].get_window_extent())
