"""Volumes from the manual contours of Sunnybrook against the published ones.

    python benchmarks/studies/sunnybrook_volumes.py --stacks DICOM --contours FOLDER --link link.csv --statistics CSV
                                                    [--segment MODEL.onnx] [--figure PNG]

Each `IM-0001-NNNN-icontour-manual.txt` is an endocardial contour (x y, pixels) on image NNNN, each `ocontour` an epicardial
one; end-diastole is the phase that has both. The contours are filled, pixel by pixel, into labels as `phenotypes` takes
them, and beside that their areas are taken exactly (the shoelace formula). Prints a table: both, what was published (the
mass was not), and the difference of the first from the last. A second table says which phases were taken and how far the
crop's middle is from the left ventricle's as drawn: automatically and by the contours, and, like a column of volumes, by
the network of `--segment`. `--figure` draws one stack with its contours and the crops.
"""

import argparse
import dataclasses
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from ecgcmr import tasks
from ecgcmr.raw import CmrRecord, sax_dicom, sax_network
from ecgcmr.signals import cmr, phenotypes

NAMES = {"EDV": "LVEDV", "ESV": "LVESV", "SV": "LVSV", "EF": "LVEF", "CO": "LVCO"}
Contours = dict[tuple[int, int], np.ndarray]  # (slice, phase) -> (n, 2) x and y in pixels


def contours(folder: Path, kind: str, phases: int) -> Contours:
    """The contours of one kind, "i" or "o"; images count from 1, slice by slice."""
    found = {}
    for file in sorted(folder.glob(f"{kind}-contours/*.txt")):
        number = int(re.search(r"-(\d{4})-[io]contour", file.name)[1])  # type: ignore[index]
        found[divmod(number - 1, phases)] = np.loadtxt(file)
    return found


def area(points: np.ndarray) -> float:
    """Square pixels within a closed contour."""
    x, y = points.T
    return float(abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2)


def filled(points: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The pixels whose middle lies within a closed contour: those that an odd number of its sides lies to the right of."""
    row, column = np.mgrid[: shape[0], : shape[1]]
    inside = np.zeros(shape, bool)
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0)):
        if y0 != y1:
            inside ^= ((row < y0) != (row < y1)) & (
                column < x0 + (row - y0) * (x1 - x0) / (y1 - y0)
            )
    return inside


def drawn(record: CmrRecord, inner: Contours, outer: Contours) -> tuple[np.ndarray, int, int]:
    """Labels like the frames, and the phases of end-diastole and end-systole."""
    masks = np.zeros(record.frames.shape, np.uint8)
    for label, lines in ((phenotypes.MUSCLE, outer), (phenotypes.CAVITY, inner)):
        for place, points in lines.items():
            masks[place][filled(points, masks.shape[2:])] = label
    (ed,) = {phase for _, phase in outer}
    (es,) = {phase for _, phase in inner} - {ed}
    return masks, ed, es


def exact(
    inner: Contours, outer: Contours, ed: int, es: int, record: CmrRecord
) -> dict[str, float]:
    """The same volumes from the contours' areas."""
    voxel = float(np.prod(record.spacing_mm)) / 1000
    volume = {
        t: voxel * sum(area(p) for (_, phase), p in inner.items() if phase == t) for t in (ed, es)
    }
    wall = voxel * sum(area(p) - area(inner[place]) for place, p in outer.items() if place in inner)
    stroke = volume[ed] - volume[es]
    ejected = 100 * stroke / volume[ed]
    return {
        "LVEDV": volume[ed],
        "LVESV": volume[es],
        "LVSV": stroke,
        "LVEF": ejected,
        "LVM": phenotypes.DENSITY * wall,
    }


def off_mm(record: CmrRecord, masks: np.ndarray) -> float:
    """From the middle of a record's crop to the left ventricle's as drawn, over the cycle, in the slice that is taken."""
    upright = cmr.to_view(record)
    z = cmr.phases(record).slice
    drawn = cmr.to_view(dataclasses.replace(record, masks=masks)).masks
    assert drawn is not None
    ventricle = np.argwhere((drawn[z] == phenotypes.CAVITY).any(0)).mean(0)
    heart = None if upright.masks is None else cmr.middle_of(upright.masks, z)
    middle = heart or cmr.centre(upright.frames[z].std(0), upright.spacing_mm[1:])
    return float(np.linalg.norm((np.array(middle) - ventricle) * upright.spacing_mm[1:]))


def rows(
    args: argparse.Namespace, stack: str, original: str, published: pd.Series
) -> tuple[list[str], list[str]]:
    """One person's lines of the two tables."""
    record = sax_dicom.read(str(args.stacks / f"{stack}.tar.xz"))
    inner, outer = (
        contours(args.contours / original, kind, record.frames.shape[1]) for kind in "io"
    )
    masks, ed, es = drawn(record, inner, outer)
    rate = phenotypes.heart_rate(record.trigger_ms)
    found = phenotypes.measure(masks[:, ed], masks[:, es], record.spacing_mm, heart_rate=rate)
    areas = exact(inner, outer, ed, es, record)
    if args.figure and not args.figure.exists():
        draw(record, masks, ed, es, args.figure)
    told = {ours: float(published[theirs]) for theirs, ours in NAMES.items()}
    by_contours = dataclasses.replace(record, masks=masks, masked=tuple(sorted((ed, es))))
    ways = {"automatic": record, "contours": by_contours}
    if args.segment:
        ways["network"] = sax_network.open_network(args.segment).segmented(record)
        print(f"{stack}: {'; '.join(ways['network'].repairs)}", file=sys.stderr)
    drawn_by_network = ways["network"].labels if args.segment else {}
    volumes = [
        f"| {stack} | {name} ({tasks.UNITS[name]}) | {found[name]:.1f} | {areas.get(name, np.nan):.1f} "
        f"| {drawn_by_network.get(name, np.nan):.1f} "
        f"| {told.get(name, np.nan):.1f} | {found[name] - told.get(name, np.nan):+.1f} |"
        for name in ("LVEDV", "LVESV", "LVSV", "LVEF", "LVCO", "LVM")
    ]
    places = [
        f"| {stack} | {name} | {cmr.phases(way).ed} | {cmr.phases(way).es} | {off_mm(way, masks):.0f} |"
        for name, way in ways.items()
    ]
    return volumes, places


def draw(record: CmrRecord, masks: np.ndarray, ed: int, es: int, out: Path) -> None:
    """End-diastole and end-systole of every third slice with the labels, and the three crops of the middle one."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    slices = range(1, len(masks), 3)
    figure, axes = pyplot.subplots(3, max(len(slices), 3), figsize=(13, 10), layout="constrained")
    for row, (phase, name) in zip(axes, ((ed, "ED"), (es, "ES"))):
        for panel, z in zip(row, slices):
            panel.imshow(record.frames[z, phase], cmap="gray")
            for label, colour in ((1, "#e07b39"), (2, "#3b7dd8")):
                panel.contour(masks[z, phase] == label, [0.5], colors=colour, linewidths=1)
            panel.set_title(f"{name}, slice {z}")
    whole = CmrRecord(**{**vars(record), "masks": masks, "masked": tuple(sorted((ed, es)))})
    crops = {
        "by the segmentation": cmr.prepare(whole)[0],
        "by what moves": cmr.prepare(record)[0],
        "the authors' box": cmr.prepare(record, "fixed")[0],
    }
    for panel, (name, image) in zip(axes[2], crops.items()):
        panel.imshow(np.moveaxis(image, 0, -1))
        panel.set_title(f"crop {name}")
    for panel in axes.ravel():
        panel.axis("off")
    figure.savefig(out, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("stacks", "contours", "link", "statistics"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--segment", type=Path, help="a network, see docs/formats.md")
    args = parser.parse_args()
    link = pd.read_csv(args.link, encoding="utf-8-sig")
    published = pd.read_csv(args.statistics, encoding="utf-8-sig").set_index("Patient")
    tables: list[list[str]] = [
        ["| person | | filled | exact | network | published | difference |", "|---" * 7 + "|"],
        ["| person | way | ED | ES | crop off by, mm |", "|---" * 5 + "|"],
    ]
    for n, (stack, original) in enumerate(zip(link["patient_id"], link["original_id"]), start=1):
        if (args.contours / original).is_dir():
            for table, lines in zip(tables, rows(args, stack, original, published.loc[n])):
                table += lines
    for table in tables:
        print("\n".join(table).replace("+nan", "–").replace("nan", "–") + "\n")


if __name__ == "__main__":
    main()
