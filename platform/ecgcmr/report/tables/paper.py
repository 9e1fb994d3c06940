"""The tables of the report as sheets: Tables I to V of the paper, then what a reviewer asks for beside them.

One cell of Tables I to V is the final runs of one (system, task): full training set, test split, the task's metric. A cell
that lacks seeds says so and is never averaged in silence; a column is ranked only when all that stands in it is complete.
This file lays out words. Which runs count is `finals`' matter, intervals are `evidence`'s, the other tables `reviewer`'s.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from ecgcmr import tasks
from ecgcmr.paper import GROUPS, LAYOUTS, METRICS, SHORT, TITLES, Layout, System
from ecgcmr.report.results import finals
from ecgcmr.report.results.evidence import Evidence
from ecgcmr.report.results.finals import SEEDS, Cell, Finals
from ecgcmr.report.tables import reviewer
from ecgcmr.report.tables.sheet import NONE, Sheet, Word, interval, mean_sd, span
from ecgcmr.tasks import Task

LEAST = 1000  # test subjects of a cohort whose numbers may stand beside the paper's
SIGNS = {True: "✓", False: "✗", None: ""}


def spaces(rows: pd.DataFrame) -> list[str]:
    """The search spaces that have final runs, sorted."""
    return sorted(rows.loc[rows.stage == "final", "space"].unique())


def every(
    rows: pd.DataFrame,
    runs: Path,
    evidence: Mapping[str, Evidence] | None = None,
    *,
    labels: Mapping[str, Any] | None = None,
    paper: bool = False,
    seeds: int = SEEDS,
    people: pd.DataFrame | None = None,
) -> dict[str, Sheet]:
    """All tables that the runs can fill, by file stem.

    Those of the paper's Tables I to V of whose systems more than half have run; tables of their own for runs that none of
    these shows ("others", "others-phenotypes", "labels"). From predictions: "figure5", "claims", "comparisons-table1" …,
    "phenotypes", "secondary", "calibration", "subgroups". With several search spaces a stem ends in the space's name.

    Args:
        rows: `store.rows(runs)`.
        runs: the folder of runs.
        evidence: by search space; without it there are no intervals and no tables from predictions.
        labels: of the cohort's manifest, for the number of positives.
        paper: show the paper's numbers beside ours; only for a cohort that is `comparable`.
        seeds: how many belong in a cell.
        people: `cohort.rows("test")`, for the subgroups.
    """
    made: dict[str, Sheet] = {}
    for space in (names := spaces(rows)):
        found, own = finals.of_space(rows, space, runs, seeds), (evidence or {}).get(space)
        shown = layouts(found)
        sheets = [of_layout(found, layout, own, labels=labels, paper=paper) for layout in shown]
        for sheet in [*sheets, *(reviewer.every(own, shown, people) if own else [])]:
            if len(names) > 1:
                sheet = replace(
                    sheet, stem=f"{sheet.stem}-{space}", title=f"{sheet.title} [{space}]"
                )
            made[sheet.stem] = sheet
    return made


def comparable(manifest: Mapping[str, Any]) -> bool:
    """Whether the paper's numbers may stand beside those of a cohort: it is like the UK Biobank's in what decides them.

    It is not synthetic, has at least 1,000 test subjects, CMR paired with the ECG for at least half of its rows, and labels
    of all three diseases. On anything else the same AUROC would mean something else.

    Args:
        manifest: the content of `_cohort.json`.
    """
    counts = {step["step"]: step["n"] for step in manifest["flow"]}
    labelled = all(
        "positive" in manifest["labels"].get(name, {}).get("test", {}) for name in tasks.DISEASES
    )
    paired = 2 * counts.get("paired", 0) >= sum(manifest["rows"].values())
    real = not str(manifest["source"]).startswith("synthetic")
    return real and manifest["rows"]["test"] >= LEAST and paired and labelled


def layouts(found: Mapping[Cell, Finals]) -> list[Layout]:
    """The paper's tables of whose systems more than half have run, then tables for the runs that these leave out."""
    ran = {(label, task) for label, task, take in found if take == 1}
    shown = [
        layout
        for layout in LAYOUTS.values()
        if 2 * sum(any((s.label, task) in ran for task in layout.tasks) for s in layout.systems)
        > len(layout.systems)
    ]
    left = ran - {
        (system.label, task)
        for layout in shown
        for system in layout.systems
        for task in layout.tasks
    }
    for stem, title, names in (
        ("others", "Diseases: runs beside the paper's tables.", tasks.DISEASES),
        ("others-phenotypes", "CMR phenotypes: runs beside the paper's tables.", GROUPS),
        ("labels", "Labels of this cohort.", sorted({task for _, task in left} - set(tasks.TASKS))),
    ):
        labels = finals.ordered([label for label, task in left if task in names], list(TITLES))
        if labels:
            columns = tuple(name for name in names if any(task == name for _, task in left))
            shown.append(
                Layout(stem, title, tuple(System(s, TITLES.get(s, s)) for s in labels), columns, "")
            )
    return shown


# -- one table ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Field:
    """One cell: its runs, its interval over test subjects, its place in the column and the paper's (mean, sd)."""

    system: System
    task: Task
    found: Finals
    low: float
    high: float
    paper: tuple[float, float | None] | None
    place: int = 0

    @property
    def scale(self) -> float:
        return METRICS[self.task.metric][1]

    @property
    def shown(self) -> float:
        """The mean as printed, by which cells are ranked."""
        return round(self.scale * self.found.mean, 2)

    def word(self) -> Word:
        """Mean ± sd; below it what it lacks, its interval and the paper's number."""
        small = [self.found.lack] if self.found.started and self.found.lack else []
        if not math.isnan(self.low):
            form = ".1f" if self.scale == 100 else ".2f"
            small.append(interval(self.scale * self.low, self.scale * self.high, form))
        if self.paper:
            mean, sd = self.paper
            small.append(f"paper {mean:.2f}" if sd is None else f"paper {mean_sd(mean, sd)}")
        return Word(
            mean_sd(self.scale * self.found.mean, self.scale * self.found.sd),
            self.place,
            tuple(small),
        )

    def record(self, counts: "_Counts") -> dict[str, Any]:
        """The same in full precision, in the unit of the table."""
        used = counts.subjects[self.task.name]
        means = self.found.mean, self.found.sd, self.low, self.high
        return {
            "label": self.system.label,
            "model": self.system.title,
            "task": self.task.name,
            "unit": METRICS[self.task.metric][0],
            **{
                name: self.scale * value
                for name, value in zip(("mean", "sd", "low", "high"), means)
            },
            "seeds": len(self.found.values),
            "seeds_wanted": self.found.wanted,
            "diverged": self.found.diverged,
            "place": self.place or None,
            "test_subjects": "–".join(map(str, sorted({*used[:1], *used[-1:]}))),
            "test_positives": counts.positives.get(self.task.name),
        }


@dataclass(frozen=True)
class _Counts:
    """By task: the numbers of test subjects that runs were judged on, and the positives where they are known."""

    subjects: Mapping[str, list[int]]
    positives: Mapping[str, int]


def of_layout(
    found: Mapping[Cell, Finals],
    layout: Layout,
    evidence: Evidence | None = None,
    *,
    labels: Mapping[str, Any] | None = None,
    paper: bool = False,
) -> Sheet:
    """Systems down, tasks across: mean ± sd over the seeds, and small below it the interval over test subjects.

    Args:
        found: `finals.of_space`.
        layout: which systems and tasks.
        evidence: of the same search space, for the intervals.
        labels: of the cohort's manifest, for the number of positives.
        paper: show the paper's numbers too.
    """
    columns = [tasks.of(name, (name,)) for name in layout.tasks]
    ranked = [
        _ranked([_field(found, s, t, layout, evidence, paper) for s in layout.systems])
        for t in columns
    ]
    fields = list(zip(*(column for column, _ in ranked)))  # a tuple per system
    notes = [*(note for column, lacking in ranked for note in (*_pointed(column), lacking) if note)]
    counts = _counts([column for column, _ in ranked], labels or {})
    schemed = any(system.mdm is not None for system in layout.systems)
    marks = [(Word(SIGNS[s.mdm]), Word(SIGNS[s.mmcl])) if schemed else () for s in layout.systems]
    foot = _foot(columns, counts, 2 if schemed else 0)
    unit, seeds = (
        METRICS[columns[0].metric][0],
        max(field.found.wanted for line in fields for field in line),
    )
    return Sheet(
        stem=layout.stem,
        title=layout.title,
        header=(
            "Model",
            *(("MDM", "MMCL") if schemed else ()),
            *(SHORT.get(t.name, t.title) for t in columns),
        ),
        kind=("name", *(("mark", "mark") if schemed else ()), *("number" for _ in columns)),
        rows=(
            *(
                (Word(s.title), *mark, *(field.word() for field in line))
                for s, mark, line in zip(layout.systems, marks, fields)
            ),
            *foot,
        ),
        foot=len(foot),
        notes=(
            f"{unit} on the test set, mean ± sd over {seeds} seeds.",
            *notes,
            *_general([field for line in fields for field in line], evidence),
        ),
        records=tuple(field.record(counts) for line in fields for field in line),
    )


def _field(
    found: Mapping[Cell, Finals],
    system: System,
    task: Task,
    layout: Layout,
    evidence: Evidence | None,
    paper: bool,
) -> _Field:
    low, high = evidence.interval(system.label, task.name) if evidence else (math.nan, math.nan)
    printed = layout.numbers.get((system.label, task.name)) if paper else None
    return _Field(
        system, task, found.get((system.label, task.name, 1.0), Finals()), low, high, printed
    )


def _ranked(column: list[_Field]) -> tuple[list[_Field], str]:
    """The column with its best and second best, equal as printed equal in place; a note instead if seeds are missing."""
    rivals = [field for field in column if field.found.started and not field.system.reference]
    lacking = [field.system.title for field in rivals if not field.found.complete]
    if lacking:
        title = SHORT.get(column[0].task.name, column[0].task.title)
        return column, f"{title} is not ranked: seeds are missing for {', '.join(lacking)}."
    if len(rivals) < 2:
        return column, ""
    places = {
        field.system.label: 1 + sum(other.shown > field.shown for other in rivals)
        for field in rivals
    }
    return [
        replace(f, place=p if (p := places.get(f.system.label, 0)) <= 2 else 0) for f in column
    ], ""


def _pointed(column: Sequence[_Field]) -> list[str]:
    """Notes on systems of which final runs of several points exist."""
    title = SHORT.get(column[0].task.name, column[0].task.title)
    return [
        f"{title}, {field.system.title}: {field.found.note}" for field in column if field.found.note
    ]


def _counts(columns: Sequence[Sequence[_Field]], labels: Mapping[str, Any]) -> _Counts:
    """Positives only where the manifest counts the very subjects that the runs were judged on."""
    subjects, positives = {}, {}
    for column in columns:
        task = column[0].task
        subjects[task.name] = sorted({n for field in column for n in field.found.subjects})
        test = labels.get(task.columns[0], {}).get("test", {})
        if task.kind == "binary" and "positive" in test and [test["n"]] == subjects[task.name]:
            positives[task.name] = int(test["positive"])
    return _Counts(subjects, positives)


def _foot(columns: Sequence[Task], counts: _Counts, marks: int) -> list[tuple[Word, ...]]:
    """The lines under the systems."""
    blank = [Word("")] * marks
    lines = [
        (
            Word("Test subjects"),
            *blank,
            *(Word(span(counts.subjects[task.name])) for task in columns),
        )
    ]
    if counts.positives:
        known = [counts.positives.get(task.name) for task in columns]
        lines.append(
            (Word("Positives"), *blank, *(Word(NONE if n is None else f"{n:,}") for n in known))
        )
    return lines


def _general(fields: Sequence[_Field], evidence: Evidence | None) -> list[str]:
    """What has to be said of every table of this form."""
    started = [field.found.started for field in fields]
    notes = [f"{NONE}: no finished run."] if any(started) and not all(started) else []
    if evidence and any(not math.isnan(field.low) for field in fields):
        notes.append(
            f"In brackets: 95 % interval of the mean for other test subjects, from {evidence.draws:,} bootstrap resamples."
        )
    if any(field.paper for field in fields):
        notes.append("paper: the paper's number, on 6,007 subjects of the UK Biobank.")
    return notes
