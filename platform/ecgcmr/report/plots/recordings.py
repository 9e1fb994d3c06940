"""Figures of signals and pictures: an ECG on millimetre paper in true scale, short-axis frames, and
a sheet of several.

The idea: a figure is drawn on a `Figure` of its own, never through pyplot, so that workers and
threads share no state. Lengths are millimetres on paper: at any dpi, 25 mm is one second and 10 mm
is one millivolt. Draws; computes nothing.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from ecgcmr import plugins
from ecgcmr.errors import InputError, unknown
from ecgcmr.signals import SIGNALS

MM_PER_S = 25.0
MM_PER_MV = 10.0
LEADS = (
    "I",
    "II",
    "III",
    "aVR",
    "aVL",
    "aVF",
    "V1",
    "V2",
    "V3",
    "V4",
    "V5",
    "V6",
)  # as ecg.LEADS, the rows of the input
_LAYOUT = (
    (0, 3, 6, 9),
    (1, 4, 7, 10),
    (2, 5, 8, 11),
)  # rows and columns of the 4 × 3 print; lead II runs below
_INCH = 25.4
_ROW_MM = 34.0
_EDGE_MM = 5.0
_PULSE_MM = 10.0  # room for the calibration pulse before each row
_REACH_MM = (
    6.0,
    25.0,
)  # above and below the median of a lead, where all twelve stand below each other
_SCALE_MM = 13.0  # room below them for the scale
_INK = "#1a1a1a"
# From nothing to a strong blue, which the red of the paper does not hide.
_ATTENTION = LinearSegmentedColormap.from_list(
    "attention", [(0.16, 0.36, 0.80, 0.0), (0.16, 0.36, 0.80, 0.75)]
)
_FINE, _COARSE = "#f6d5d2", "#e9a8a3"


def ecg_paper(ecg: np.ndarray, rate_hz: float, title: str = "") -> Figure:
    """A 12-lead ECG as it is printed: 4 × 3 leads of 2.5 s and a strip of lead II, 25 mm/s, 10
    mm/mV, in true scale.

    Args:
        ecg: (12, T) mV in the order of `LEADS`; the four columns show consecutive quarters of the
            first 10 s.
        rate_hz: samples per second.
        title: one line above the traces.

    Raises:
        InputError: not twelve leads, or shorter than 2.5 s.
    """
    ecg = np.asarray(ecg, dtype=float)
    if ecg.ndim != 2 or ecg.shape[0] != 12 or ecg.shape[1] < 2.5 * rate_hz:
        raise InputError(
            f"figure: ecg has shape {ecg.shape}, needs (12, T) with T >= 2.5 s at {rate_hz:g} Hz"
        )
    seconds = min(10.0, ecg.shape[1] / rate_hz)
    width, height = 2 * _EDGE_MM + _PULSE_MM + MM_PER_S * seconds, 4 * _ROW_MM + 2 * _EDGE_MM + 8
    figure, axes = _paper(width, height)
    trace, column = ecg[:, : int(seconds * rate_hz)], seconds / 4
    x = _EDGE_MM + _PULSE_MM + MM_PER_S * np.arange(trace.shape[1]) / rate_hz
    for row in range(4):
        middle = height - _EDGE_MM - 8 - _ROW_MM * (row + 0.55)
        _pulse(axes, _EDGE_MM + 1, middle)
        for slot, lead in enumerate(_LAYOUT[row] if row < 3 else (1,)):
            span = column if row < 3 else seconds
            samples = slice(round(slot * span * rate_hz), round((slot + 1) * span * rate_hz))
            # A printed lead's level is the median of what is shown; paper has no absolute zero.
            y = middle + MM_PER_MV * (trace[lead, samples] - np.median(trace[lead, samples]))
            axes.plot(
                x[samples],
                np.clip(y, 0, height),
                color=_INK,
                linewidth=0.7,
                solid_joinstyle="round",
                gid=LEADS[lead],
            )
            axes.text(
                x[samples][0] + 1,
                middle + 9,
                LEADS[lead],
                fontsize=7,
                color=_INK,
                fontweight="bold",
            )
    axes.text(_EDGE_MM, height - _EDGE_MM - 2, title, fontsize=8, color=_INK, va="center")
    scale = f"{MM_PER_S:g} mm/s   {MM_PER_MV:g} mm/mV   {rate_hz:g} Hz"
    axes.text(width - _EDGE_MM, 2.0, scale, fontsize=6, color=_INK, ha="right", va="center")
    return figure


def attended_ecg(
    ecg: np.ndarray, rate_hz: float, weights: np.ndarray, patch_s: float, title: str = ""
) -> Figure:
    """A 12-lead ECG on millimetre paper, leads below each other, with attention behind the traces.

    Patches of average weight or less are left clear; above, colour deepens with the logarithm of
    the weight up to the greatest of the record. A lead gets the height that it needs, from 6 to 25
    mm above and below its median.

    Args:
        ecg: (12, T) mV in the order of `LEADS`; the first 10 s are drawn.
        rate_hz: samples per second.
        weights: (12, times), patches of `patch_s` seconds from the beginning on; what lies after
            them was not seen.
        patch_s: length of a patch.
        title: one line above the traces.

    Raises:
        InputError: not twelve leads.
    """
    ecg, weights = (np.asarray(values, dtype=float) for values in (ecg, weights))
    if ecg.ndim != 2 or ecg.shape[0] != 12 or weights.ndim != 2 or weights.shape[0] != 12:
        raise InputError(
            f"figure: ecg {ecg.shape} and weights {weights.shape} need twelve rows each"
        )
    seconds = min(10.0, ecg.shape[1] / rate_hz)
    trace = MM_PER_MV * (ecg - np.median(ecg, axis=1, keepdims=True))[:, : int(seconds * rate_hz)]
    rise, fall = (np.clip(reach + 1, *_REACH_MM) for reach in (trace.max(1), -trace.min(1)))
    x_start, x_end = _EDGE_MM + 10, _EDGE_MM + 10 + MM_PER_S * seconds
    top = _SCALE_MM + float((rise + fall).sum())
    figure, axes = _paper(x_end + _EDGE_MM, top + _EDGE_MM + 8)
    ratio = weights / weights.mean()
    norm = LogNorm(1, max(2.0, float(ratio.max())))
    x_seen = x_start + MM_PER_S * patch_s * weights.shape[1]
    middles = top - np.cumsum(rise) - np.cumsum(fall) + fall
    x = x_start + MM_PER_S * np.arange(trace.shape[1]) / rate_hz
    for lead, y, middle, up, down, attention in zip(LEADS, trace, middles, rise, fall, ratio):
        extent = (x_start, x_seen, middle - down + 0.3, middle + up - 0.3)
        picture = _attention(axes, attention, extent, norm, lead)
        y = middle + np.clip(y, 0.5 - down, up - 0.5)
        axes.plot(x, y, color=_INK, linewidth=0.7, solid_joinstyle="round", gid=lead)
        name: dict[str, Any] = {"fontsize": 7, "fontweight": "bold", "ha": "right"}
        axes.text(x_start - 2, middle, lead, color=_INK, va="center", **name)
    if x_seen < x[-1]:
        _end_of_sight(axes, x_seen, top)
    axes.set(xlim=(0, x_end + _EDGE_MM), ylim=(0, top + _EDGE_MM + 8))
    axes.text(_EDGE_MM, top + 6, title, fontsize=8, color=_INK, va="center")
    scale = f"{MM_PER_S:g} mm/s   {MM_PER_MV:g} mm/mV   {rate_hz:g} Hz"
    axes.text(x_end, 2.0, scale, fontsize=6, color=_INK, ha="right", va="center")
    _attention_scale(figure, axes, picture, x_start)
    return figure


def _attention(
    axes: Axes,
    attention: np.ndarray,
    extent: tuple[float, float, float, float],
    norm: LogNorm,
    lead: str,
) -> AxesImage:
    """The attention to one lead, (times,), behind its trace."""
    return axes.imshow(
        attention[None],
        extent=extent,
        cmap=_ATTENTION,
        norm=norm,
        aspect="auto",
        interpolation="nearest",
        zorder=0.5,
        gid=f"attention {lead}",
    )


def _end_of_sight(axes: Axes, x_seen: float, top: float) -> None:
    """A dashed line where the part of the record that the model saw ends."""
    look: dict[str, Any] = {"color": _INK, "linewidth": 0.7, "linestyle": (0, (4, 3))}
    axes.plot([x_seen, x_seen], [_SCALE_MM, top], gid="seen", **look)
    axes.text(x_seen + 1, top + 1.5, "not seen by the model", fontsize=6, color=_INK, va="center")


def _attention_scale(figure: Figure, axes: Axes, picture: AxesImage, x_start: float) -> None:
    """What the colours mean, 60 mm wide at the lower left of the paper."""
    (_, width), (_, height), (_, most) = axes.get_xlim(), axes.get_ylim(), picture.get_clim()
    beside = figure.add_axes((x_start / width, 6 / height, 60 / width, 3 / height))
    bar = figure.colorbar(picture, cax=beside, orientation="horizontal")
    bar.set_ticks([])
    beside.minorticks_off()
    bar.outline.set_linewidth(0.4)
    words = {
        "1 or less": (0, "left"),
        f"{most**0.5:.1f}": (30, "center"),
        f"{most:.1f}": (60, "right"),
    }
    axes.text(x_start + 62, 7.5, "times the average attention", fontsize=6, color=_INK, va="center")
    for text, (x_mm, side) in words.items():
        axes.text(x_start + x_mm, 4.3, text, fontsize=6, color=_INK, ha=side, va="center")


def _paper(width: float, height: float) -> tuple[Figure, Axes]:
    """Millimetre paper of this size in mm; data units of the axes are millimetres."""
    figure = _figure(width / _INCH, height / _INCH)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.set_axis_off()
    for step, colour, line in ((1, _FINE, 0.3), (5, _COARSE, 0.5)):
        upright = [((x, 0.0), (x, height)) for x in np.arange(0, width + 0.5, step)]
        level = [((0.0, y), (width, y)) for y in np.arange(0, height + 0.5, step)]
        axes.add_collection(
            LineCollection(upright + level, colors=colour, linewidths=line, zorder=0), autolim=False
        )
    return figure, axes


def _pulse(axes: Axes, x_start: float, middle: float) -> None:
    """The calibration pulse: 1 mV for 0.2 s."""
    step = MM_PER_S * 0.2
    x = x_start + np.array([0, 1, 1, 1 + step, 1 + step, 2 + step])
    axes.plot(
        x,
        middle + MM_PER_MV * np.array([0, 0, 1, 1, 0, 0]),
        color=_INK,
        linewidth=0.7,
        gid="calibration",
    )


def frames(
    cmr: np.ndarray,
    titles: Sequence[str] = ("end-systole", "mid-phase", "end-diastole"),
    title: str = "",
) -> Figure:
    """The frames of one subject side by side, (frames, H, W), grey from the least to the greatest
    of all frames.
    """
    cmr = np.asarray(cmr)
    figure = _figure(2.2 * len(cmr) + 0.1, 2.45 + 0.2 * bool(title))
    grid = figure.subplots(1, len(cmr), squeeze=False)[0]
    for axes, frame, name in zip(grid, cmr, titles):
        _picture(axes, frame, float(cmr.min()), float(cmr.max()))
        axes.set_title(name, fontsize=8, color=_INK, pad=3)
    figure.subplots_adjust(0.01, 0.01, 0.99, 0.92 - 0.08 * bool(title), 0.03, 0)
    figure.suptitle(title, fontsize=9, color=_INK, x=0.01, ha="left", y=0.99)
    return figure


def contact_sheet(subjects: Sequence[tuple[str, np.ndarray, np.ndarray]], rate_hz: float) -> Figure:
    """Several subjects, a row each of (caption, ecg (12, T) mV, cmr (3, H, W)): 5 s of I, II, V1,
    V5 and the frames.
    """
    rows = len(subjects)
    figure = _figure(10.0, 1.55 * rows + 0.1)
    grid = figure.subplots(rows, 4, squeeze=False, width_ratios=(3.2, 1, 1, 1))
    for row, (caption, ecg, cmr) in zip(grid, subjects):
        samples = slice(0, int(5 * rate_hz))
        t = np.arange(ecg.shape[1])[samples] / rate_hz
        for place, lead in enumerate((0, 1, 6, 10)):
            y = ecg[lead, samples] - np.median(ecg[lead, samples]) - 2.0 * place
            row[0].plot(t, y, color=_INK, linewidth=0.6)
            row[0].text(
                -0.05, -2.0 * place, LEADS[lead], fontsize=6, ha="right", va="center", color=_INK
            )
        row[0].set(ylim=(-7.6, 2.2), xlim=(-0.3, 5))
        row[0].set_axis_off()
        row[0].set_title(caption, fontsize=7, loc="left", color=_INK, pad=1)
        for axes, frame, name in zip(row[1:], cmr, ("ES", "mid", "ED")):
            _picture(axes, frame, float(np.min(cmr)), float(np.max(cmr)))
            axes.set_title(name, fontsize=6, color=_INK, pad=1)
    figure.subplots_adjust(0.01, 0.01, 0.99, 1 - 0.17 / (1.55 * rows), 0.02, 0.12)
    return figure


def stored(signal: str, array: np.ndarray, title: str = "") -> Figure:
    """One recording as a shard holds it, drawn as the signal's entry says.

    Raises:
        InputError: its entry names no drawing.
    """
    drawing = SIGNALS[signal].drawing
    if drawing not in DRAWINGS:
        raise unknown(f"drawing of signal '{signal}'", drawing, DRAWINGS)
    return DRAWINGS[drawing](signal, array, title)


def _on_paper(signal: str, array: np.ndarray, title: str) -> Figure:
    return ecg_paper(array, float(SIGNALS[signal].metadata["rate_hz"]), title)


def _in_frames(signal: str, array: np.ndarray, title: str) -> Figure:
    names = json.loads(SIGNALS[signal].metadata.get("frames", "[]"))
    titles = [PHASES.get(name, name) for name in names] or [""] * len(array)
    return frames(array, titles, title)


PHASES = {"ES": "end-systole", "mid": "mid-phase", "ED": "end-diastole"}
# Kind of drawing -> what draws a stored array of a signal, with a title.
DRAWINGS: dict[str, Callable[[str, np.ndarray, str], Figure]] = {
    "ecg paper": _on_paper,
    "frames": _in_frames,
}


def register(name: str, drawing: Callable[[str, np.ndarray, str], Figure]) -> None:
    """Add a kind of drawing, from a plugin.

    Raises:
        InputError: the name is taken.
    """
    plugins.register(DRAWINGS, "drawing", name, drawing)


def save(figure: Figure, path: str | Path) -> Path:
    """Write the figure in the format of the path's ending (png, svg, pdf), 200 dpi, size as drawn;
    makes the folder.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(
        path,
        dpi=200,
        facecolor="white",
        metadata={"Software": None} if path.suffix == ".png" else None,
    )
    return path


def _figure(width: float, height: float) -> Figure:
    """An empty figure in inches on the Agg canvas."""
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def _picture(axes: Axes, frame: np.ndarray, low: float, high: float) -> None:
    axes.imshow(frame, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
    axes.set_axis_off()
