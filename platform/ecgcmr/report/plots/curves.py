"""Figures of training: how losses fell and validation rose, epoch by epoch.

A curve is the table a run leaves in `curve.parquet`: `step`, `epoch`, then `train_…`, `val_…` and
plain quantities. The functions here draw; they read no files and choose no runs. Nothing here opens
a window (no pyplot, no global state).
"""

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

Curve = pd.DataFrame

INK, FAINT, GRID = "#22252b", "#767b84", "#e4e6ea"
# Okabe & Ito 2008: told apart by readers with colour blindness, and in grey print.
PALETTE = ("#767b84", "#0072b2", "#e69f00", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#8a6d00")
WORDS = {"auroc": "ROC AUC", "pearson": "Pearson's r", "loss": "loss", "lr": "learning rate"}

STYLE: dict[str, Any] = {
    **{
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],
        "font.size": 9,
        "text.color": INK,
    },
    **{
        "axes.edgecolor": FAINT,
        "axes.labelcolor": INK,
        "axes.linewidth": 0.6,
        "axes.axisbelow": True,
    },
    **{"axes.titlesize": 9.5, "axes.titleweight": "bold", "axes.titlelocation": "left"},
    **{"axes.spines.top": False, "axes.spines.right": False, "axes.grid": True},
    **{"grid.color": GRID, "grid.linewidth": 0.6, "lines.linewidth": 1.4},
    **{
        "xtick.color": FAINT,
        "ytick.color": FAINT,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
    },
    **{
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        "legend.frameon": False,
        "legend.fontsize": 8.5,
    },
}


@contextmanager
def styled() -> Iterator[None]:
    """The look of all figures here, for the time of a `with`."""
    with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
        yield


def png(figure: Figure, dpi: int = 200) -> bytes:
    """The figure as a PNG file's bytes; the same figure gives the same bytes."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=dpi, facecolor="white", metadata={"Software": None})
    return out.getvalue()


def run(curve: Curve) -> Figure:
    """One run: its losses left, the metrics of validation right."""
    val_metrics = [c for c in curve.columns if c.startswith("val_") and c != "val_loss"]
    losses = [c for c in ("train_loss", "val_loss", "loss") if c in curve.columns]
    groups = [group for group in (losses, val_metrics) if group] or [[]]
    with styled():
        # Laid out by hand: constrained layout is half of the cost, and Aim gets dozens of these.
        figure = Figure(figsize=(3.2 * len(groups), 2.3))
        axes: Any = figure.subplots(1, len(groups), squeeze=False)[0]
        figure.subplots_adjust(
            left=0.2 / len(groups), right=0.98, bottom=0.2, top=0.95, wspace=0.25
        )
        for ax, group in zip(axes, groups):
            for name, colour in zip(group, PALETTE[1:]):
                _line(ax, curve, name, color=colour, label=name.replace("_", " "))
            ax.set_xlabel("epoch")
            _legend(ax)
    return figure


def pretraining(curves: Mapping[str, Curve]) -> Figure:
    """One panel per pre-training: training loss and validation loss over the epochs."""
    with styled():
        figure, axes = _panels(len(curves))
        for ax, (title, curve) in zip(axes, curves.items()):
            _line(ax, curve, "train_loss", color=PALETTE[1], label="training")
            _line(ax, curve, "val_loss", color=PALETTE[3], label="validation")
            ax.set_title(title)
            ax.set_xlabel("epoch")
            _legend(ax)
        axes[0].set_ylabel("loss")
    return figure


def validation(
    curves: Mapping[str, Mapping[str, Sequence[Curve]]], metrics: Mapping[str, str]
) -> Figure:
    """A panel per task: the selecting metric on validation, a colour per system, a line per seed.

    Args:
        curves: task title -> system title -> the seeds' curves.
        metrics: task title -> name of its metric.
    """
    systems = list(dict.fromkeys(system for by_system in curves.values() for system in by_system))
    with styled():
        figure, axes = _panels(len(curves))
        for ax, (task, by_system) in zip(axes, curves.items()):
            for system, seeds in by_system.items():
                for curve in seeds:
                    _line(
                        ax,
                        curve,
                        f"val_{metrics[task]}",
                        alpha=0.75,
                        linewidth=0.9,
                        **_look(systems.index(system)),
                    )
            ax.set_title(task)
            ax.set_xlabel("epoch")
        axes[0].set_ylabel(WORDS.get(next(iter(metrics.values())), "validation"))
        handles = [Line2D([], [], linewidth=2, **_look(i)) for i in range(len(systems))]
        figure.legend(
            handles, systems, loc="outside lower center", ncols=min(4, max(1, len(systems)))
        )
    return figure


def _look(place: int) -> dict[str, Any]:
    """Colour and dash of the system with this place: dashed once the colours begin anew."""
    return {
        "color": PALETTE[place % len(PALETTE)],
        "linestyle": "-" if place < len(PALETTE) else (0, (3, 1.2)),
    }


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    """Panels, three to a line; four make a square."""
    columns = 2 if count == 4 else max(1, min(3, count))
    lines = max(1, math.ceil(count / columns))
    figure = Figure(
        figsize=(9.6, (2.6 if columns > 2 else 2.8) * lines + 0.3),
        layout=ConstrainedLayoutEngine(h_pad=0.12),
    )
    grid: Any = figure.subplots(lines, columns, squeeze=False)
    axes = list(grid.ravel())
    for ax in axes[max(1, count) :]:
        ax.set_visible(False)
    return figure, axes[: max(1, count)]


def _line(ax: Axes, curve: Curve, column: str, **look: Any) -> None:
    """One quantity over the epochs (counted from 1); nothing if the run did not measure it."""
    if column not in curve.columns:
        return
    points = curve[["epoch", column]].dropna()
    if len(points):
        ax.plot(
            points.epoch + 1,
            points[column],
            marker="o" if len(points) < 3 else None,
            markersize=3,
            **look,
        )


def _legend(ax: Axes) -> None:
    """Names of the lines, if there are any."""
    if ax.get_lines():
        ax.legend()
    else:
        ax.text(0.5, 0.5, "nothing measured", transform=ax.transAxes, ha="center", color=FAINT)
