"""Figures drawn from results: phenotypes (the paper's Figure 4), low data (Figure 5), calibration,
paired differences.

The functions take plain numbers and draw them; they read no files, choose no runs and compute no
statistics, except the regression line of Figure 4 (named in its caption) and a prevalence, which
the bins of a reliability curve hold already.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ecgcmr.errors import InputError
from ecgcmr.report.plots.curves import FAINT, INK, PALETTE, styled

Look = dict[str, Any]  # how an artist is drawn: the words of `Line2D`

WIDTH = 9.6  # inches: the page's width at 200 dpi
SHOWN = 500  # paper, caption of Figure 4
SHARES = (0.01, 0.1, 1.0)  # of the training set: paper, section V-D
ALPHA = 0.05
_GREY, _STRONG = PALETTE[0], PALETTE[3]
_OTHERS = tuple(colour for colour in PALETTE if colour not in (_GREY, _STRONG))
_MARKERS = (
    "s",
    "^",
    "D",
    "v",
    "P",
    "X",
    "p",
)  # seven, for six colours: it takes 42 systems to repeat a pair
_RISKS = (0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1)  # ticks of a square-root axis


@dataclass(frozen=True)
class Scatter:
    """One phenotype of the test set.

    Attributes:
        name, unit: what the panel's title says, `LVEDV` and `mL`.
        measured, predicted: (n,) in that unit; a subject with NaN in either is left out.
        r: Pearson's correlation coefficient over all of them.
        shown: the rows drawn as points; see `choose`.

    Raises:
        InputError: the arrays differ in length, or `shown` names a row that is not there.
    """

    name: str
    unit: str
    measured: np.ndarray
    predicted: np.ndarray
    r: float
    shown: np.ndarray

    def __post_init__(self) -> None:
        n = _equally_long(
            f"figure 4: phenotype '{self.name}'", measured=self.measured, predicted=self.predicted
        )
        rows = np.asarray(self.shown)
        if rows.size and not (rows.min() >= 0 and rows.max() < n):
            raise InputError(
                f"figure 4: phenotype '{self.name}': shown has a row outside 0 … {n - 1}; "
                f"use choose({n})"
            )


@dataclass(frozen=True)
class Point:
    """One system on one disease, trained with a share of the labels.

    Attributes:
        label_fraction: share of the training set, in (0, 1].
        n_train: rows of it.
        mean: ROC AUC [%].
        low, high: the 95 % interval, in the same unit; NaN if there is none.
    """

    label_fraction: float
    n_train: int
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class ReliabilityCurve:
    """Calibration of one set of predictions, in bins of predicted probability.

    Attributes:
        name: `as trained (balanced)`, `prior-corrected` …
        predicted: (bins,) mean predicted probability.
        observed: (bins,) share of positives.
        low, high: (bins,) 95 % interval of `observed` (Wilson).
        n: (bins,) subjects; a bin of none is not drawn.

    Raises:
        InputError: the arrays differ in length.
    """

    name: str
    predicted: np.ndarray
    observed: np.ndarray
    low: np.ndarray
    high: np.ndarray
    n: np.ndarray

    def __post_init__(self) -> None:
        columns = {
            field: getattr(self, field) for field in ("predicted", "observed", "low", "high", "n")
        }
        _equally_long(f"reliability: curve '{self.name}'", **columns)


@dataclass(frozen=True)
class Difference:
    """How far our system is ahead of another on a task.

    Attributes:
        group: title of the task.
        name: title of the other system.
        value: proposed − other, in the task's unit.
        low, high: its 95 % interval; NaN if there is none.
        p: adjusted for the comparisons of its family (Holm); NaN if not tested.
    """

    group: str
    name: str
    value: float
    low: float
    high: float
    p: float


def choose(n: int, count: int = SHOWN, seed: int = 0) -> np.ndarray:
    """Which of n subjects a scatter shows: the same ones for every system and phenotype, whatever
    they look like.

    Returns:
        (min(n, count),) row numbers, ascending, without repetition.
    """
    return np.sort(np.random.default_rng(seed).choice(n, min(n, count), replace=False))


def figure4(panels: Sequence[Scatter]) -> Figure:
    """Phenotypes predicted from the ECG against those measured from CMR, one square panel each.

    Points are the `shown` subjects; the line is the least-squares regression of predicted on
    measured over all subjects. A panel spans the 0.5 to 99.5 % quantiles of both quantities, alike
    in x and y; what lies outside is cut off.
    Source: paper, Figure 4.
    """
    if not panels:
        return _empty()
    columns = _columns(len(panels))
    side = WIDTH / max(3, columns)
    with styled(), _larger(9):
        figure, axes = _grid(len(panels), columns, side + 0.05, side * max(2, columns))
        for ax, panel in zip(axes, panels):
            _phenotype(ax, panel)
        for place, ax in enumerate(axes):
            ax.set_xlabel("measured" if place + columns >= len(panels) else "")
            ax.set_ylabel("predicted" if place % columns == 0 else "")
        figure.align_ylabels(axes[::columns])
        measured = [panel for panel in panels if _known(panel).any()]
        drawn_count = _range(len(_shown(panel)) for panel in measured)
        subject_count = _range(int(_known(panel).sum()) for panel in measured)
        keys = {
            f"{drawn_count or 0} subjects": Line2D(
                [], [], color=PALETTE[1], marker="o", markersize=4, linewidth=0
            ),
            f"regression, all {subject_count or 0} test subjects": Line2D(
                [], [], color=_STRONG, linewidth=2
            ),
            "identity": Line2D([], [], color=FAINT, linewidth=1, linestyle=(0, (4, 3))),
        }
        _legend_below(figure, keys)
    return figure


def _phenotype(ax: Axes, panel: Scatter) -> None:
    """One panel of Figure 4."""
    ax.set_title(f"{panel.name} [{panel.unit}]" if panel.unit else panel.name, fontsize=9)
    complete = _known(panel)
    if not complete.any():
        _nothing(ax, bare=True)
        return
    low, high = _limits(panel)
    ax.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(3, min_n_ticks=2))
    ax.tick_params(labelsize=8, pad=2)
    ax.plot(
        (low, high),
        (low, high),
        color=FAINT,
        linewidth=0.8,
        linestyle=(0, (4, 3)),
        gid="identity",
        zorder=1.5,
    )
    rows = _shown(panel)
    ax.scatter(
        *(panel.measured[rows], panel.predicted[rows]),
        s=6,
        color=PALETTE[1],
        alpha=0.45,
        linewidths=0,
        gid="subjects",
    )
    line = _regression(panel.measured[complete], panel.predicted[complete])
    if line:
        ax.plot(*line, color=_STRONG, linewidth=1.6, solid_capstyle="butt", gid="regression")
    r_text = f"r = {panel.r:.2f}".replace("-", "−") if math.isfinite(panel.r) else "r = —"
    ground = {"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 1.0}
    ax.text(0.05, 0.94, r_text, transform=ax.transAxes, va="top", fontsize=9, bbox=ground, zorder=5)


def _known(panel: Scatter) -> np.ndarray:
    """(n,) whether a subject has both values."""
    return np.isfinite(panel.measured) & np.isfinite(panel.predicted)


def _shown(panel: Scatter) -> np.ndarray:
    """The rows drawn as points: those asked for that have both values."""
    rows = np.asarray(panel.shown, dtype=int)
    return rows[_known(panel)[rows]]


def _limits(panel: Scatter) -> tuple[float, float]:
    """The span of a panel: the middle 99 % of measured and of predicted, and 4 % on either side."""
    complete = _known(panel)
    ends = [
        np.quantile(values[complete], (0.005, 0.995))
        for values in (panel.measured, panel.predicted)
    ]
    low, high = min(float(a) for a, _ in ends), max(float(b) for _, b in ends)
    pad = 0.04 * (high - low) or max(1.0, abs(low)) * 0.04
    return low - pad, high + pad


def _regression(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Ends of the least-squares line of y on x, from the least to the greatest x.

    None if x has no spread.
    """
    spread = np.square(x - x.mean()).sum()
    if spread == 0:
        return None
    slope = ((x - x.mean()) * (y - y.mean())).sum() / spread
    ends = np.array([x.min(), x.max()])
    return ends, y.mean() + slope * (ends - x.mean())


def figure5(panels: Mapping[str, Mapping[str, Sequence[Point]]], proposed: str = "MMCL") -> Figure:
    """ROC AUC against the share of labels trained on, a panel per disease, a line per system.

    Bands are the 95 % intervals. Only neighbouring shares are joined: the paper's 1, 10 and 100 %
    and any other that occurs. A point that stands alone shows its interval as a bar. Source: paper,
    Figure 5.

    Args:
        panels: disease -> system -> its points, in any order; a missing share, or a NaN mean, is a
            gap.
        proposed: the system to emphasise; `Supervised …` is grey.

    Raises:
        InputError: a share outside (0, 1], or one that occurs twice in a line.
    """
    if not panels:
        return _empty()
    lines = [
        (f"{disease}, {system}", line)
        for disease, by_system in panels.items()
        for system, line in by_system.items()
    ]
    for where, line in lines:
        _check_shares(where, line)
    shares = tuple(
        sorted({*SHARES, *(point.label_fraction for _, line in lines for point in line)})
    )
    looks = _looks(
        list(dict.fromkeys(system for by_system in panels.values() for system in by_system)),
        proposed,
    )
    with styled(), _larger(10.5):
        columns = min(3, len(panels))
        figure, axes = _grid(len(panels), columns, 3.8, WIDTH, sharey=True)
        for ax, (disease, by_system) in zip(axes, panels.items()):
            ax.set_title(disease, fontsize=11)
            _share_axis(ax, shares, [point for line in by_system.values() for point in line])
            ax.axhline(50, color=FAINT, linewidth=1, linestyle=":", gid="chance")
            has_points = [
                _system(ax, shares, line, looks[system], system)
                for system, line in by_system.items()
            ]
            if not any(has_points):
                _nothing(ax)
        for ax in axes[::columns]:
            ax.set_ylabel("ROC AUC [%]")
            ax.yaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
        if looks:
            keys = {system: Line2D([], [], **look) for system, look in looks.items()}
            _legend_below(
                figure, {**keys, "chance": Line2D([], [], color=FAINT, linewidth=1, linestyle=":")}
            )
    return figure


def _check_shares(where: str, line: Sequence[Point]) -> None:
    """Refuse shares that have no place on the axis, or two points at one place."""
    fractions = [point.label_fraction for point in line]
    for label_fraction in fractions:
        if not 0 < label_fraction <= 1:
            raise InputError(
                f"figure 5: {where}: label_fraction is {label_fraction:g}, needs a share in (0, 1]"
            )
        if fractions.count(label_fraction) > 1:
            raise InputError(
                f"figure 5: {where}: label_fraction {label_fraction:g} occurs "
                f"{fractions.count(label_fraction)} times; give one point each"
            )


def _looks(systems: Sequence[str], proposed: str) -> dict[str, Look]:
    """Colour, marker and weight of each system's line: proposed strong, the supervised baseline
    grey, others by order.
    """
    looks: dict[str, Look] = {}
    place = 0
    for system in systems:
        if system == proposed:
            looks[system] = {
                "color": _STRONG,
                "marker": "o",
                "linewidth": 2.8,
                "markersize": 7,
                "zorder": 4,
            }
        elif system.lower().startswith("supervised"):
            looks[system] = {
                "color": _GREY,
                "marker": "o",
                "linewidth": 1.6,
                "markersize": 5,
                "zorder": 2.5,
            }
        else:
            colour, marker = _OTHERS[place % len(_OTHERS)], _MARKERS[place % len(_MARKERS)]
            looks[system] = {
                "color": colour,
                "marker": marker,
                "linewidth": 1.6,
                "markersize": 5.5,
                "zorder": 3,
            }
            place += 1
    return looks


def _share_axis(ax: Axes, shares: Sequence[float], points: Sequence[Point]) -> None:
    """Shares on a log axis, each with the number of training rows where it is known."""
    labels, last = [], math.inf
    for share in reversed(shares):
        sizes = {point.n_train for point in points if point.label_fraction == share}
        # Two labels of "100 %\n(4,000)" need this much of the axis; between them a tick stays
        # without words.
        room = math.log10(last / share) >= 0.4
        labels.append(
            (f"{100 * share:g} %" + (f"\n({_range(sizes)})" if sizes else "")) if room else ""
        )
        last = share if room else last
    ax.set_xscale("log")
    ax.set_xlim(shares[0] / 1.6, shares[-1] * 1.6)
    ax.set_xticks(shares, labels[::-1])
    ax.minorticks_off()
    ax.set_xlabel("labels used (training rows)")


def _system(
    ax: Axes, shares: Sequence[float], line: Sequence[Point], look: Look, name: str
) -> bool:
    """One system's line and band in one panel; whether there was anything to draw."""
    by_share = {point.label_fraction: point for point in line}
    gap = Point(0, 0, math.nan, math.nan, math.nan)
    rows = [by_share.get(share, gap) for share in shares]
    mean, low, high = (
        np.array([getattr(row, field) for row in rows]) for field in ("mean", "low", "high")
    )
    finite = np.isfinite(mean)
    if not finite.any():
        return False
    is_proposed = look["color"] == _STRONG
    ax.plot(shares, mean, markeredgecolor="white", markeredgewidth=0.7, gid=name, **look)
    has_interval = finite & np.isfinite(low) & np.isfinite(high)
    ax.fill_between(
        *(shares, low, high),
        where=has_interval,
        color=look["color"],
        alpha=0.24 if is_proposed else 0.12,
        linewidth=0,
        gid=name,
    )
    has_neighbour = np.r_[False, has_interval[:-1]] | np.r_[has_interval[1:], False]
    alone = has_interval & ~has_neighbour
    if alone.any():
        ax.vlines(
            np.array(shares)[alone],
            low[alone],
            high[alone],
            color=look["color"],
            linewidth=1.6,
            alpha=0.6,
        )
    return True


def reliability(panels: Mapping[str, Sequence[ReliabilityCurve]]) -> Figure:
    """Observed share against predicted probability, one panel per disease, on square-root axes.

    Diseases of 3 to 7 % crowd into the corner of a linear axis, and a log axis has no place for a
    bin without positives; the square root shows both, and the balanced model's overstated risks
    beside the corrected ones. Bars are the intervals of `observed`, the dotted line is the
    prevalence, the dashed one perfect calibration.

    Args:
        panels: disease -> its curves, of the same subjects; curves of one name share a colour.
    """
    if not panels:
        return _empty()
    curves = [curve for disease_curves in panels.values() for curve in disease_curves]
    looks = {
        name: _bin_look(place)
        for place, name in enumerate(dict.fromkeys(curve.name for curve in curves))
    }
    right, top = _reach(curve.predicted for curve in curves), _reach(curve.high for curve in curves)
    columns = min(3, len(panels))
    with styled(), _larger(10.5):
        # A panel is as high as its axes' equal scale asks for, with room for title and labels.
        figure, axes = _grid(
            len(panels), columns, 2.7 * math.sqrt(top / right) + 1.15, WIDTH, sharey=True
        )
        for ax, (disease, disease_curves) in zip(axes, panels.items()):
            ax.set_title(disease, fontsize=11, pad=20)
            _risk_axes(ax, right, top)
            _calibration(ax, disease_curves, looks)
        for ax in axes[::columns]:
            ax.set_ylabel("observed share [%]")
        if looks:
            keys = {name: Line2D([], [], **look) for name, look in looks.items()}
            keys["perfect calibration"] = Line2D(
                [], [], color=FAINT, linewidth=1, linestyle=(0, (4, 3))
            )
            keys["prevalence"] = Line2D([], [], color=INK, linewidth=1, linestyle=":")
            _legend_below(figure, keys)
    return figure


def _calibration(ax: Axes, curves: Sequence[ReliabilityCurve], looks: Mapping[str, Look]) -> None:
    """The curves of one disease with their bars, its prevalence, and the diagonal."""
    prevalence = _prevalence(curves)
    if not math.isfinite(prevalence):
        _nothing(ax)
        return
    offset: Look = {"xytext": (0, 6), "xycoords": "axes fraction", "textcoords": "offset points"}
    ax.annotate(f"prevalence {100 * prevalence:.1f} %", (0, 1), color=FAINT, **offset)
    ax.plot((0, 1), (0, 1), color=FAINT, linewidth=1, linestyle=(0, (4, 3)), gid="diagonal")
    ax.axhline(prevalence, color=INK, linewidth=1, linestyle=":", gid="prevalence")
    for curve in curves:
        full, look = np.asarray(curve.n) > 0, looks[curve.name]
        x, y, low, high = (
            np.asarray(v)[full] for v in (curve.predicted, curve.observed, curve.low, curve.high)
        )
        ax.vlines(x, low, high, color=look["color"], linewidth=1.4, alpha=0.6, gid=curve.name)
        # A bin without positives sits on the axis and is seen whole.
        ax.plot(
            x,
            y,
            markeredgecolor="white",
            markeredgewidth=0.7,
            clip_on=False,
            zorder=3,
            gid=curve.name,
            **look,
        )


def _risk_axes(ax: Axes, right: float, top: float) -> None:
    """Square-root axes from 0, alike in scale, in percent."""
    root = (lambda x: np.sqrt(np.clip(x, 0, None)), np.square)
    labels = [f"{100 * risk:g}" for risk in _RISKS]
    for scale, ticks, limit, end in (
        (ax.set_xscale, ax.set_xticks, ax.set_xlim, right),
        (ax.set_yscale, ax.set_yticks, ax.set_ylim, top),
    ):
        scale("function", functions=root)
        ticks(_RISKS, labels)
        limit(0, end)
    ax.set_aspect("equal")
    ax.set_xlabel("predicted risk [%]")


def _reach(values: Iterable[np.ndarray]) -> float:
    """Where an axis of probabilities ends: a little above the greatest, between 30 and 100 %."""
    maxima = [float(np.nanmax(array)) for array in values if np.isfinite(array).any()]
    return min(1.0, max([0.3, *(1.15 * value for value in maxima)]))


def _prevalence(curves: Sequence[ReliabilityCurve]) -> float:
    """Share of positives over all bins of the first curve that has subjects; NaN if none has."""
    for curve in curves:
        n = np.asarray(curve.n, dtype=float)
        if n.sum() > 0:
            return float((n * np.where(n > 0, curve.observed, 0)).sum() / n.sum())
    return math.nan


def _bin_look(place: int) -> Look:
    """Colour and marker of the curve with this place among the names."""
    marker = ("o", *_MARKERS)[place % (1 + len(_MARKERS))]
    return {
        "color": PALETTE[place % len(PALETTE)],
        "marker": marker,
        "linewidth": 1.6,
        "markersize": 5.5,
    }


def forest(rows: Sequence[Difference], label: str = "difference, proposed − other") -> Figure:
    """Differences with 95 % intervals under a heading per task; the height grows with the rows.

    A filled marker says that the adjusted p is below 0.05, a hollow one that it is not or that
    nothing was tested. All rows share the axis, so tasks of one unit belong in one figure.

    Args:
        rows: in the order to be read; those of one group are gathered below its heading.
        label: of the axis, with the unit.
    """
    if not rows:
        return _empty()
    groups = list(dict.fromkeys(row.group for row in rows))
    digits = 2 if max((abs(end) for row in rows for end in _ends(row)), default=1.0) >= 1 else 3
    with styled(), _larger(10.5):
        figure, (ax,) = _grid(1, 1, 0.28 * max(3.0, len(rows) + 1.4 * len(groups)) + 0.9, WIDTH)
        names: list[tuple[float, str, str]] = []  # height, words, weight
        y = -1.4
        for group in groups:
            y += 1.4
            names.append((y, group, "bold"))
            for row in (row for row in rows if row.group == group):
                y += 1
                names.append((y, row.name, "normal"))
                _difference(ax, row, y, digits)
        ax.set_ylim(y + 0.7, -0.7)
        ax.set_yticks([height for height, _, _ in names], [words for _, words, _ in names])
        for text, (_, _, weight) in zip(ax.get_yticklabels(), names):
            text.set_fontweight(weight)
        ax.set_xlabel(label)
        _forest_frame(ax, rows)
        dot: Look = {"color": PALETTE[1], "marker": "o", "linewidth": 1.8, "markersize": 7}
        hollow = Line2D([], [], **dot, markerfacecolor="white")
        keys = {
            f"p < {ALPHA:g} (Holm)": Line2D([], [], **dot),
            f"p ≥ {ALPHA:g}, or not tested": hollow,
        }
        _legend_below(figure, keys)
    return figure


def _difference(ax: Axes, row: Difference, y: float, digits: int) -> None:
    """One row of a forest: marker, interval, and both in figures at the right."""
    if not math.isfinite(row.value):
        _beside(ax, y, "not measured", "")
        return
    has_interval = math.isfinite(row.low) and math.isfinite(row.high)
    if has_interval:
        ax.plot(
            (row.low, row.high),
            (y, y),
            color=PALETTE[1],
            linewidth=1.8,
            solid_capstyle="butt",
            gid="interval",
        )
    face = PALETTE[1] if row.p < ALPHA else "white"
    ax.plot(
        *([row.value], [y], "o"),
        color=PALETTE[1],
        markersize=7,
        markerfacecolor=face,
        markeredgewidth=1.5,
        gid="value",
    )
    text = f"{row.value:+.{digits}f}" + (
        f" ({row.low:+.{digits}f} to {row.high:+.{digits}f})" if has_interval else ""
    )
    _beside(ax, y, text.replace("-", "−"), _p(row.p))


def _ends(row: Difference) -> list[float]:
    """What is known of a difference and its interval."""
    return [end for end in (row.low, row.value, row.high) if math.isfinite(end)]


def _p(p: float) -> str:
    """`< 0.001`, `0.012`, or `—`."""
    if not math.isfinite(p):
        return "—"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _beside(ax: Axes, y: float, number: str, p: str, **look: Any) -> None:
    """Two columns right of the axes, at height y of the data."""
    anchor: Look = {
        "xycoords": ("axes fraction", "data"),
        "textcoords": "offset points",
        "va": "center_baseline",
    }
    ax.annotate(number, (1, y), xytext=(14, 0), ha="left", **anchor, **look)
    ax.annotate(p, (1, y), xytext=(232, 0), ha="right", **anchor, **look)


def _forest_frame(ax: Axes, rows: Sequence[Difference]) -> None:
    """The line of no difference, limits that hold it and all intervals, and the columns' heads."""
    ends = [end for row in rows for end in _ends(row)]
    low, high = min([0.0, *ends]), max([0.0, *ends])
    pad = 0.06 * (high - low) or 1.0
    ax.set_xlim(low - pad, high + pad)
    ax.axvline(0, color=INK, linewidth=1, zorder=1.5, gid="zero")
    ax.grid(axis="y", visible=False)
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    _beside(ax, 0, "difference (95 % interval)", "p (Holm)", color=FAINT)


@contextmanager
def _larger(size: float) -> Iterator[None]:
    """Text and marks of this many points, for figures that a phone shows small."""
    with matplotlib.rc_context(
        {"font.size": size, "legend.fontsize": size, "lines.solid_joinstyle": "round"}
    ):
        yield


def _columns(count: int) -> int:
    """Columns for small square panels: five, four or three, whichever fills the last line best."""
    return count if count < 4 else min((5, 4, 3), key=lambda columns: -count % columns)


def _grid(
    count: int, columns: int, height: float, width: float, **sharing: Any
) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels, `height` inches a line; places beyond them stay white."""
    lines = math.ceil(count / columns)
    figure = Figure(
        figsize=(width, height * lines + 0.5),
        layout=ConstrainedLayoutEngine(h_pad=0.07, w_pad=0.08),
    )
    grid: Any = figure.subplots(lines, columns, squeeze=False, **sharing)
    axes = list(grid.ravel())
    for ax in axes[count:]:
        ax.remove()
    return figure, axes[:count]


def _empty() -> Figure:
    """The figure of no panels."""
    with styled(), _larger(10.5):
        figure, (ax,) = _grid(1, 1, 1.2, WIDTH)
        _nothing(ax, bare=True)
    return figure


def _legend_below(figure: Figure, keys: Mapping[str, Artist]) -> None:
    """One legend for all panels: on one line if that holds it, else in even columns."""
    letter = 0.0085 * matplotlib.rcParams["legend.fontsize"]
    widths = [0.7 + letter * len(name) for name in keys]  # inches, a little generous
    lines = (
        1
        if sum(widths) <= figure.get_figwidth()
        else math.ceil(len(keys) * max(widths) / figure.get_figwidth())
    )
    figure.legend(
        list(keys.values()),
        list(keys),
        loc="outside lower center",
        ncols=math.ceil(len(keys) / lines),
    )


def _range(numbers: Iterable[int]) -> str:
    """`500`, or `480–6,007` where they differ."""
    distinct = sorted(set(numbers))
    ends = distinct if len(distinct) < 2 else (distinct[0], distinct[-1])
    return "–".join(f"{n:,}" for n in ends)


def _nothing(ax: Axes, bare: bool = False) -> None:
    """Say that a panel is empty for want of results; `bare` if its axes mean nothing either."""
    ground = {"facecolor": "white", "linewidth": 0, "pad": 3.0}
    ax.text(
        0.5,
        0.5,
        "nothing measured",
        transform=ax.transAxes,
        ha="center",
        va="center",
        color=FAINT,
        bbox=ground,
    )
    if bare:
        ax.grid(False)
        ax.tick_params(length=0, labelleft=False, labelbottom=False)


def _equally_long(where: str, **columns: np.ndarray) -> int:
    """The common length of one-dimensional arrays."""
    shapes = {name: np.shape(array) for name, array in columns.items()}
    if len(set(shapes.values())) > 1 or any(len(shape) != 1 for shape in shapes.values()):
        raise InputError(
            f"{where}: "
            + ", ".join(f"{k} has shape {s}" for k, s in shapes.items())
            + "; need (n,) alike"
        )
    return next(iter(shapes.values()))[0]
