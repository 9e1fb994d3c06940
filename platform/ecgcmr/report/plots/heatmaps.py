"""Figure 6: ECG, CMR frame, and for each system the similarity of ECG and image regions over the
frame.

Draws what it is given, plain arrays; it reads no files, chooses no subjects and computes no
similarity (`explain` does). The colours mean the same in every panel and every figure: the scale is
fixed, as the range of a cosine is.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from ecgcmr.errors import InputError
from ecgcmr.report.plots import curves
from ecgcmr.signals import augment, ecg

LEADS = ("II", "V2")  # one limb lead, one chest lead; below each other
# Of ECG shown: what the encoder sees of a record in evaluation, with the paper's crop of 0.5.
SECONDS = 5.0
COLOURS, LOW, HIGH, OPACITY = "RdBu_r", -1.0, 1.0, 0.5  # the authors' code, plot_localization
_MARGIN_MV = 0.3
_BAR_MV, _BAR_S = 1.0, 0.5
_LABEL_S = 0.45  # room for the names of the leads, on the axis of time
_SIDE, _GAP = 1.6, 0.08  # inches


@dataclass(frozen=True, eq=False)
class Case:
    """One subject, a row of the figure.

    Attributes:
        caption: its first line names the subject, further lines describe it.
        ecg: (12, T) mV, in the order of `ecg.LEADS`.
        rate_hz: samples per second.
        frame: (side, side) mid-phase CMR frame, any unit; shown from its least to its greatest
            value.
        maps: title of a system -> (h, h) cosine similarities, row 0 at the top of the frame.
    """

    caption: str
    ecg: np.ndarray
    rate_hz: float
    frame: np.ndarray
    maps: Mapping[str, np.ndarray]


def figure6(cases: Sequence[Case]) -> Figure:
    """One row per case: caption, two ECG leads, the frame, and a panel per system with its
    similarities over the frame.

    Args:
        cases: at least one; all with the same systems, whose order is that of the columns.

    Raises:
        InputError: no cases, no systems, or cases of different systems.

    Source: paper, Figure 6.
    """
    if not cases or not cases[0].maps:
        raise InputError(
            "figure 6: nothing to draw; give at least one case, with the map of at least one system"
        )
    systems = list(cases[0].maps)
    for case in cases:
        if list(case.maps) != systems:
            raise InputError(
                f"figure 6: case '{case.caption}' has maps of {list(case.maps)}, "
                f"the first of {systems}"
            )
    with curves.styled():
        figure, grid, beside = _panels(len(cases), len(systems))
        for (words, traces, picture, *panels), case in zip(grid, cases):
            _caption(words, case.caption)
            _ecg(traces, case)
            _frame(picture, case.frame)
            overlays = [
                _overlay(axes, case.frame, case.maps[name]) for axes, name in zip(panels, systems)
            ]
        _same_millivolts(grid[:, 1])
        _scale_bar(grid[-1, 1])
        for axes, title in zip(
            grid[0, 1:], (f"ECG, leads {' and '.join(LEADS)}", "CMR, mid-phase", *systems)
        ):
            axes.set_title(title, loc="center", size=8.5)
        bar = figure.colorbar(overlays[0], cax=beside, ticks=[-1, -0.5, 0, 0.5, 1])
        bar.set_label("cosine similarity")
        bar.outline.set_visible(False)
        beside.grid(False)
    return figure


def _panels(rows: int, systems: int) -> tuple[Figure, np.ndarray, Axes]:
    """Panels of (caption, ECG, frame, one per system) for each row, and that of the colour bar at
    their right.

    Laid out by hand, in inches: image panels are squares as high as their row, so that titles and
    rows stand in line.
    """
    widths = (1.7, 2.9, *[_SIDE] * (1 + systems))
    lefts = 0.1 + np.concatenate([[0.0], np.cumsum(np.add(widths, _GAP))])
    width, height = lefts[-1] + 0.8, 0.4 + rows * (_SIDE + _GAP)
    figure = Figure(figsize=(width, height))

    def place(x: float, y: float, wide: float, high: float) -> Axes:
        return figure.add_axes((x / width, y / height, wide / width, high / height))

    bottoms = [0.1 + (rows - 1 - row) * (_SIDE + _GAP) for row in range(rows)]
    grid = np.array([[place(x, y, wide, _SIDE) for x, wide in zip(lefts, widths)] for y in bottoms])
    for axes in grid.ravel():
        axes.set_axis_off()
    tall = height - 0.4 - _GAP  # of all rows
    long = min(0.9 * tall, 2.5)
    return figure, grid, place(lefts[-1] + 0.05, 0.1 + (tall - long) / 2, 0.12, long)


def _caption(axes: Axes, caption: str) -> None:
    """The first line bold, the others fainter below it."""
    first, *rest = caption.split("\n")
    axes.text(0, 0.52, first, weight="bold", va="bottom", size=8.5)
    axes.text(0, 0.48, "\n".join(rest), color=curves.FAINT, va="top", size=7.5)


def _ecg(axes: Axes, case: Case) -> None:
    """Both leads at one scale, the second as far below the first as keeps them apart."""
    trace = np.asarray(case.ecg, dtype=float)[:, : round(SECONDS * case.rate_hz)]
    upper, lower = (trace[ecg.LEADS.index(lead)] for lead in LEADS)
    upper, lower = upper - np.median(upper), lower - np.median(lower)
    drop = lower.max() - upper.min() + _MARGIN_MV
    time = np.arange(trace.shape[1]) / case.rate_hz
    for lead, values, level in zip(LEADS, (upper, lower - drop), (0.0, -drop)):
        axes.plot(time, values, color=curves.INK, linewidth=0.7, gid=lead)
        axes.text(-0.1, level, lead, ha="right", va="center", size=7.5, color=curves.FAINT)
    axes.set_xlim(-_LABEL_S, SECONDS + 0.15)


def _same_millivolts(column: Iterable[Axes]) -> None:
    """Give all ECG panels the height, in mV, of the one that needs most: amplitudes compare."""
    limits = {axes: axes.dataLim.intervaly for axes in column}
    most = max(high - low for low, high in limits.values()) + 2 * _MARGIN_MV
    for axes, (low, high) in limits.items():
        axes.set_ylim((low + high - most) / 2, (low + high + most) / 2)


def _scale_bar(axes: Axes) -> None:
    """How long half a second and how high a millivolt is, at the lower right of the last ECG."""
    x, y = axes.get_xlim()[1], axes.get_ylim()[0]
    line = {"color": curves.FAINT, "linewidth": 1.0, "clip_on": False, "gid": "scale"}
    axes.plot([x - _BAR_S, x, x], [y, y, y + _BAR_MV], **line)  # type: ignore[arg-type]
    axes.text(
        x - _BAR_S - 0.08,
        y,
        f"{_BAR_S:g} s, {_BAR_MV:g} mV",
        ha="right",
        va="center",
        size=7,
        color=curves.FAINT,
    )


def _frame(axes: Axes, frame: np.ndarray) -> None:
    axes.imshow(frame, cmap="gray", interpolation="nearest")


def _overlay(axes: Axes, frame: np.ndarray, grid: np.ndarray) -> AxesImage:
    """The frame in grey under the similarities, resized bilinearly to its side."""
    _frame(axes, frame)
    fine = augment.resize(
        torch.from_numpy(np.asarray(grid, dtype=np.float64)), frame.shape[-1]
    ).numpy()
    return axes.imshow(
        fine, cmap=COLOURS, vmin=LOW, vmax=HIGH, alpha=OPACITY, interpolation="nearest"
    )
