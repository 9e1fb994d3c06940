"""Tables of the paper as pivots of result rows: systems down, tasks across, mean ± sd over the seeds.

One cell is the final runs of one (system, task): full training set, test split, the task's metric. A cell that lacks
seeds says so and is never averaged in silence; a column is ranked only when all that stands in it is complete. Reads
rows, never Aim, and knows nothing of files.
"""

import csv
import io
import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from ecgcmr import tasks
from ecgcmr.errors import InputError
from ecgcmr.tasks import Task

SEEDS = 5  # paper, section IV-C: mean and standard deviation over five seeds


@dataclass(frozen=True)
class System:
    """One line of a table: the trial's label, its title, and which pre-training it had (None: not of that scheme)."""

    label: str
    title: str
    mdm: bool | None = None
    mmcl: bool | None = None


SYSTEMS = (
    System("supervised", "Supervised ViT", False, False),
    System("mae", "MDM", True, False),
    System("mmcl-wo-mdm", "MMCL w/o MDM", False, True),
    System("mmcl", "MMCL", True, True),
)

# Paper, Table III: ROC AUC [%] on 6,007 subjects of the UK Biobank. Comparable to no other cohort.
PAPER_TABLE3 = {
    ("supervised", "cad"): (66.90, 0.47), ("supervised", "af"): (69.76, 2.13), ("supervised", "dm"): (67.35, 0.76),
    ("mae", "cad"): (71.71, 0.36), ("mae", "af"): (72.32, 0.73), ("mae", "dm"): (73.15, 0.39),
    ("mmcl-wo-mdm", "cad"): (70.36, 0.51), ("mmcl-wo-mdm", "af"): (72.41, 0.52), ("mmcl-wo-mdm", "dm"): (73.40, 0.48),
    ("mmcl", "cad"): (73.00, 0.30), ("mmcl", "af"): (74.11, 0.53), ("mmcl", "dm"): (75.56, 0.16),
}  # fmt: skip

RIVALS = (
    System("supervised", "Supervised ViT"),
    System("simclr", "SimCLR"),
    System("clocs", "CLOCS"),
    System("byol", "BYOL"),
    System("barlow-twins", "Barlow Twins"),
    System("mae", "MAE"),
    System("mmcl", "MMCL"),
)
UNIMODAL = {"simclr", "clocs", "byol", "barlow-twins"}  # what Table II has and Table III has not

# Paper, Table II, beside what it shares with Table III.
PAPER_TABLE2 = PAPER_TABLE3 | {
    ("simclr", "cad"): (66.03, 0.99), ("simclr", "af"): (67.95, 0.59), ("simclr", "dm"): (68.73, 0.47),
    ("clocs", "cad"): (67.30, 0.46), ("clocs", "af"): (67.33, 0.32), ("clocs", "dm"): (68.68, 0.37),
    ("byol", "cad"): (67.59, 0.28), ("byol", "af"): (69.76, 0.52), ("byol", "dm"): (67.70, 0.26),
    ("barlow-twins", "cad"): (68.11, 0.54), ("barlow-twins", "af"): (67.42, 0.72), ("barlow-twins", "dm"): (69.58, 0.02),
}  # fmt: skip

METRICS = {"auroc": ("ROC AUC [%]", 100.0), "pearson": ("Pearson's r", 1.0)}
SHORT = {"cad": "CAD", "af": "AF", "dm": "DM", "lv": "LV", "rv": "RV", "wt": "WT", "ecc": "Ecc", "err": "Err"}


@dataclass(frozen=True)
class Cell:
    """What the seeds of one system say on one task.

    Attributes:
        values: one number per finished seed, in the table's unit.
        wanted: seeds that belong in the cell.
        diverged: seeds that ran and gave no number.
        place: 1 best, 2 second best, 0 neither or not ranked; equal as printed is equal in place.
    """

    values: tuple[float, ...] = ()
    wanted: int = SEEDS
    diverged: int = 0
    place: int = 0

    @property
    def started(self) -> bool:
        """Whether any seed has run."""
        return bool(self.values) or self.diverged > 0

    @property
    def complete(self) -> bool:
        """Whether every seed gave a number."""
        return len(self.values) == self.wanted

    @property
    def mean(self) -> float | None:
        """Mean over the seeds there are."""
        return statistics.fmean(self.values) if self.values else None

    @property
    def sd(self) -> float | None:
        """Sample standard deviation (n − 1); None below two seeds."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def number(self) -> str:
        """`71.71 ± 0.36`, or `—` where nothing finished."""
        if self.mean is None:
            return "—"
        return f"{self.mean:.2f} ± " + ("—" if self.sd is None else f"{self.sd:.2f}")

    @property
    def lack(self) -> str:
        """`3 of 5 seeds, 1 diverged`; empty for a complete cell and for one never started."""
        if self.complete or not self.started:
            return ""
        return f"{len(self.values)} of {self.wanted} seeds" + (f", {self.diverged} diverged" if self.diverged else "")

    @property
    def text(self) -> str:
        """The number, and what it lacks."""
        return f"{self.number} ({self.lack})" if self.lack else self.number


@dataclass(frozen=True)
class Table:
    """A finished table; the four renderings say the same.

    Attributes:
        title, unit: `Table III. …` and what the numbers are.
        systems, tasks: lines and columns.
        cells: by (label, task name).
        subjects: test subjects per task as printed; `—` where nothing ran.
        positives: positive test subjects per task as printed; empty if the cohort was not asked.
        notes: sentences that belong below.
        paper: (mean, sd) of the paper by (label, task name); empty unless the cohort is comparable.
    """

    title: str
    unit: str
    systems: tuple[System, ...]
    tasks: tuple[Task, ...]
    cells: Mapping[tuple[str, str], Cell]
    subjects: Mapping[str, str]
    positives: Mapping[str, str]
    notes: tuple[str, ...] = ()
    paper: Mapping[tuple[str, str], tuple[float, float]] | None = None

    @property
    def caption(self) -> str:
        """Title, unit and what the ± is."""
        return f"{self.title} {self.unit} on the test set, mean ± sd over {self.wanted} seeds."

    @property
    def wanted(self) -> int:
        """Seeds that belong in a cell."""
        return max((cell.wanted for cell in self.cells.values()), default=SEEDS)

    @property
    def schemed(self) -> bool:
        """Whether the columns MDM and MMCL make sense: some system says what it was pre-trained with."""
        return any(system.mdm is not None for system in self.systems)

    @property
    def titles(self) -> list[str]:
        """Column titles, without those of the paper's numbers."""
        return ["Model", *(["MDM", "MMCL"] if self.schemed else []), *(SHORT.get(t.name, t.title) for t in self.tasks)]

    @property
    def header(self) -> list[str]:
        """Column titles."""
        return self.titles + ([f"{title} (paper)" for title in self.titles[-len(self.tasks) :]] if self.paper else [])

    @property
    def footer(self) -> list[list[str]]:
        """The lines under the systems: test subjects, and positives where known."""
        empty = ["", ""] if self.schemed else []
        beside = [""] * len(self.tasks) if self.paper else []
        lines = [("Test subjects", self.subjects)] + ([("Positives", self.positives)] if self.positives else [])
        return [[name, *empty, *(by.get(task.name, "—") for task in self.tasks), *beside] for name, by in lines]

    def before(self, system: System) -> list[str]:
        """The first columns of a line: the title and what the system was pre-trained with."""
        marks = ["✓" if had else "✗" if had is not None else "" for had in (system.mdm, system.mmcl)]
        return [system.title, *(marks if self.schemed else [])]

    def line(self, system: System) -> list[Cell]:
        """The cells of a line."""
        return [self.cells[system.label, task.name] for task in self.tasks]

    def beside(self, system: System) -> list[str]:
        """The paper's own numbers of a line, if they belong in the table."""
        if not self.paper:
            return []
        found = [self.paper.get((system.label, task.name)) for task in self.tasks]
        return ["—" if pair is None else f"{pair[0]:.2f} ± {pair[1]:.2f}" for pair in found]

    def rows(self, mark: Any) -> list[list[str]]:
        """Every line below the header as words; `mark(cell)` renders a cell."""
        lines = [[*self.before(s), *(mark(c) for c in self.line(s)), *self.beside(s)] for s in self.systems]
        return lines + self.footer

    def text(self) -> str:
        """For a terminal: aligned, best and second best marked ¹ and ²."""
        places = {0: " ", 1: "¹", 2: "²"}
        rows = self.rows(lambda cell: f"{cell.text}{places[cell.place]}")
        first = len(self.before(self.systems[0])) if self.systems else 1
        padded = [[word if i < first or word.endswith(("¹", "²", " ")) else word + " " for i, word in enumerate(row)]
                  for row in [self.header, *rows]]  # fmt: skip
        widths = [max(len(row[i]) for row in padded) for i in range(len(self.header))]
        lines = [_aligned(row, widths, first) for row in padded]
        rule = "─" * max(len(line) for line in lines)
        body = [lines[0], rule, *lines[1 : 1 + len(self.systems)], rule, *lines[1 + len(self.systems) :]]
        legend = ["¹ best, ² second best"] if any(cell.place for cell in self.cells.values()) else []
        return "\n".join([self.caption, "", *body, "", *legend, *self.notes]).rstrip()

    def markdown(self) -> str:
        """GitHub Markdown: best bold, second best underlined."""
        marks = {0: "{}", 1: "**{}**", 2: "<u>{}</u>"}
        rows = self.rows(lambda cell: marks[cell.place].format(cell.text))
        words = [[word.replace("|", "\\|") for word in row] for row in [self.header, *rows]]
        first = 3 if self.schemed else 1
        rule = [":--" if i == 0 else ":-:" if i < first else "--:" for i in range(len(self.header))]
        lines = ["| " + " | ".join(row) + " |" for row in [words[0], rule, *words[1:]]]
        return "\n".join([f"**{self.caption}**", "", *lines, "", *(f"{note}  " for note in self.notes)]).rstrip() + "\n"

    def latex(self) -> str:
        """A LaTeX `table` for booktabs and amssymb: best bold, second best underlined."""
        marks = {0: "{}", 1: "\\textbf{{{}}}", 2: "\\underline{{{}}}"}
        rows = self.rows(lambda cell: marks[cell.place].format(_latex(cell.text)))
        escaped = [[*map(_latex, row[:1]), *(_symbols(word) for word in row[1:])] for row in rows]
        lines = [" & ".join(row) + r" \\" for row in escaped]
        columns = "l" + "c" * (len(self.header) - 1)
        return "\n".join([
            r"\begin{table}", r"\centering", rf"\caption{{{_latex(' '.join([self.caption, *self.notes]))}}}",
            rf"\begin{{tabular}}{{{columns}}}", r"\toprule", " & ".join(map(_latex, self.header)) + r" \\", r"\midrule",
            *lines[: len(self.systems)], r"\midrule", *lines[len(self.systems) :], r"\bottomrule",
            r"\end{tabular}", r"\end{table}", "",
        ])  # fmt: skip

    def csv(self) -> str:
        """One line per cell, full precision, for whoever computes on."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["label", "model", "task", "unit", "mean", "sd", "seeds", "seeds_wanted", "diverged", "place",
                         "test_subjects", "test_positives"])  # fmt: skip
        for system in self.systems:
            for task, cell in zip(self.tasks, self.line(system)):
                counts = [
                    by.get(task.name, "").replace(",", "").replace("—", "") for by in (self.subjects, self.positives)
                ]
                numbers = ["" if x is None else f"{x:.6f}" for x in (cell.mean, cell.sd)]
                writer.writerow([system.label, system.title, task.name, self.unit, *numbers, len(cell.values),
                                 cell.wanted, cell.diverged, cell.place or "", *counts])  # fmt: skip
        return out.getvalue()


def _aligned(row: list[str], widths: list[int], first: int) -> str:
    """One line of a terminal table: the name left, marks centred, numbers right."""
    words = [word.ljust(width) if i == 0 else word.center(width) if i < first else word.rjust(width)
             for i, (word, width) in enumerate(zip(row, widths))]  # fmt: skip
    return "  ".join(words).rstrip()


def _latex(text: str) -> str:
    """Escape what LaTeX reads as commands, then set the symbols."""
    for character in "&%$#_{}":
        text = text.replace(character, f"\\{character}")
    return _symbols(text)


def _symbols(text: str) -> str:
    """The signs of a table as LaTeX; `text` is escaped already."""
    for sign, command in (("±", r"$\pm$"), ("✓", r"\checkmark"), ("✗", r"$\times$"), ("—", "---"), ("–", "--")):
        text = text.replace(sign, command)
    return text


# -- from rows ---------------------------------------------------------------------------------------------------------


def spaces(rows: pd.DataFrame) -> list[str]:
    """The search spaces that have final runs, sorted."""
    return sorted(rows.loc[rows.stage == "final", "space"].unique())


def table2(rows: pd.DataFrame, *, paper: bool = False, **options: Any) -> Table:
    """Table II of the paper: pre-training strategies × three diseases, ROC AUC [%]; arguments as of `table3`."""
    return _diseases(
        rows, "Table II. Cardiovascular disease from the ECG.", RIVALS, PAPER_TABLE2 if paper else None, **options
    )


def table3(rows: pd.DataFrame, *, paper: bool = False, **options: Any) -> Table:
    """Table III of the paper: four pre-training strategies × three diseases, ROC AUC [%].

    Args:
        rows: `store.rows(runs)`.
        paper: show the paper's numbers beside; only for a cohort that compares with the paper's.
        options: `space`, which may be left out if only one has final runs; `seeds`, how many belong in a cell; `labels` of
            the cohort's manifest, for the number of positives.

    Raises:
        InputError: several spaces have final runs and none was chosen.
    """
    return _diseases(
        rows, "Table III. Cardiovascular disease from the ECG.", SYSTEMS, PAPER_TABLE3 if paper else None, **options
    )


def _diseases(
    rows: pd.DataFrame,
    title: str,
    systems: tuple[System, ...],
    paper: Mapping[tuple[str, str], tuple[float, float]] | None,
    *,
    space: str | None = None,
    seeds: int = SEEDS,
    labels: Mapping[str, Any] | None = None,
) -> Table:
    columns = tuple(tasks.TASKS[name] for name in tasks.DISEASES)
    return replace(_pivot(rows, title, systems, columns, space, seeds, labels or {}), paper=paper)


def every(
    rows: pd.DataFrame, *, seeds: int = SEEDS, labels: Mapping[str, Any] | None = None, paper: bool = False
) -> dict[str, Table]:
    """All tables that the rows can fill, by file stem; `table3` is there even if nothing has run yet.

    Tables II, III and IV where the systems of the paper ran on its tasks, and one table for all other tasks of a space. With
    several search spaces the stem ends in the space's name.
    """
    found = spaces(rows)
    made: dict[str, Table] = {}
    for space in found:
        mine = rows[(rows.space == space) & (rows.stage == "final")]
        ending, here = (f"-{space}", f" [{space}]") if len(found) > 1 else ("", "")
        names = set(mine.task)
        asked = set(mine[mine.task.isin(tasks.DISEASES)].label)
        options: dict[str, Any] = {"space": space, "seeds": seeds, "labels": labels, "paper": paper}
        if asked & UNIMODAL:
            table = table2(rows, **options)
            made[f"table2{ending}"] = replace(table, title=table.title + here)
        if asked - UNIMODAL - {"supervised", "mae"} or (asked and not asked & UNIMODAL):
            table = table3(rows, **options)
            made[f"table3{ending}"] = replace(table, title=table.title + here)
        phenotypes = tuple(task for task in tasks.TASKS.values() if task.kind == "regression" and task.name in names)
        if phenotypes:
            title = f"Table IV. CMR phenotypes from the ECG.{here}"
            made[f"table4{ending}"] = _pivot(rows, title, SYSTEMS, phenotypes, space, seeds, labels or {})
        others = tuple(tasks.of(name, (name,)) for name in sorted(names - set(tasks.TASKS)))
        if others:
            systems = _systems(mine[mine.task.isin([task.name for task in others])].label.unique())
            title = f"Labels of this cohort from the ECG.{here}"
            made[f"labels{ending}"] = _pivot(rows, title, systems, others, space, seeds, labels or {})
    return made or {"table3": table3(rows, seeds=seeds, labels=labels, paper=paper)}


def _systems(labels: Iterable[str]) -> tuple[System, ...]:
    """The systems of those labels: the paper's first, in its order, then the rest by name."""
    left = set(labels)
    known = tuple(system for system in SYSTEMS if system.label in left)
    return known + tuple(System(label, label) for label in sorted(left - {system.label for system in known}))


def _pivot(
    rows: pd.DataFrame,
    title: str,
    systems: tuple[System, ...],
    columns: tuple[Task, ...],
    space: str | None,
    seeds: int,
    labels: Mapping[str, Any],
) -> Table:
    """Systems × tasks of one space's final test rows."""
    found = spaces(rows)
    if space is None and len(found) > 1:
        raise InputError(f"final runs of several search spaces: {', '.join(found)}; choose one (space=…)")
    space = space or (found[0] if found else "")
    rows = rows[rows.space == space]
    metric = columns[0].metric
    unit, scale = METRICS[metric]
    rows = rows[(rows.metric == metric) & (rows["take"] == 1)]
    final = rows[(rows.stage == "final") & (rows.split == "test")]
    grid = rows[(rows.stage == "grid") & (rows.split == "val")]
    cells: dict[tuple[str, str], Cell] = {}
    notes: list[str] = []
    for task in columns:
        for system in systems:
            mine = final[(final.task == task.name) & (final.label == system.label)]
            tried = grid[(grid.task == task.name) & (grid.label == system.label)]
            mine, note = _one_point(mine, tried, f"{SHORT.get(task.name, task.title)}, {system.title}")
            notes += [note] if note else []
            cells[system.label, task.name] = _cell(mine, seeds, scale)
        cells, note = _ranked(cells, task, systems)
        notes += [note] if note else []
    if any(cell.started for cell in cells.values()) and not all(cell.started for cell in cells.values()):
        notes.append("—: no finished run.")
    used = {task.name: sorted(final.loc[final.task == task.name, "n"].unique()) for task in columns}
    return Table(
        title, unit, systems, columns, cells,
        subjects={name: _range(ns) for name, ns in used.items()},
        positives=_positives(columns, used, labels),
        notes=tuple(notes),
    )  # fmt: skip


def _one_point(mine: pd.DataFrame, tried: pd.DataFrame, where: str) -> tuple[pd.DataFrame, str]:
    """The final rows of one point of the grid; a note if final runs of several points lie on disk.

    Several lie there when a grid was widened after its first finals. Seeds of two points are two systems, so they are
    never pooled: the point that validation prefers stays.
    """
    points = sorted(mine.point.unique())
    if len(points) < 2:
        return mine, ""
    scores = tried[tried.point.isin(points)].groupby("point").value.mean().dropna()
    best = max(points, key=lambda point: (scores.get(point, -math.inf), point)) if len(scores) else points[-1]
    why = "best on validation" if len(scores) else "the last by name, as no grid rows tell which is best on validation"
    return mine[mine.point == best], f"{where}: final runs of {len(points)} points exist; shown is {best}, {why}."


def _cell(mine: pd.DataFrame, seeds: int, scale: float) -> Cell:
    """The cell of one system's final test rows."""
    good = mine[(mine.status != "diverged") & mine.value.map(math.isfinite)]
    values = tuple(scale * float(v) for v in good.sort_values("seed").value)
    return Cell(values, max(seeds, len(values)), diverged=int(mine.seed.nunique() - good.seed.nunique()))


def _ranked(
    cells: dict[tuple[str, str], Cell], task: Task, systems: tuple[System, ...]
) -> tuple[dict[tuple[str, str], Cell], str]:
    """Give best and second best of a column their places; a note instead if some cell there lacks seeds."""
    column = {key: cell for key, cell in cells.items() if key[1] == task.name and cell.started}
    title = SHORT.get(task.name, task.title)
    lacking = [system.title for system in systems if (c := column.get((system.label, task.name))) and not c.complete]
    if lacking:
        return cells, f"{title} is not ranked: seeds are missing for {', '.join(lacking)}."
    if len(column) < 2:
        return cells, ""
    shown = {key: round(cell.mean or 0.0, 2) for key, cell in column.items()}
    places = {key: 1 + sum(other > value for other in shown.values()) for key, value in shown.items()}
    return {**cells, **{key: replace(cells[key], place=p) for key, p in places.items() if p <= 2}}, ""


def _range(counts: list[int]) -> str:
    """`6,007`, or `238–240` if runs were judged on different numbers of subjects."""
    ends = [f"{n:,}" for n in sorted({int(n) for n in counts})]
    return "—" if not ends else ends[0] if len(ends) == 1 else f"{ends[0]}–{ends[-1]}"


def _positives(columns: tuple[Task, ...], used: Mapping[str, list[int]], labels: Mapping[str, Any]) -> dict[str, str]:
    """Positive test subjects per binary task, where the manifest counts the subjects that the runs were judged on."""
    found = {}
    for task in columns:
        test = labels.get(task.columns[0], {}).get("test", {})
        if task.kind == "binary" and "positive" in test and [test.get("n")] == used[task.name]:
            found[task.name] = f"{int(test['positive']):,}"
    return found
