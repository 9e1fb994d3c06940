"""The tables of the report: Tables I to V of the paper, then what a reviewer asks for beside them.

One cell of Tables I to V is the evaluation runs of one (system, task): full training set, test
split, the task's metric. A cell that lacks seeds says so and is never averaged in silence; a column
is ranked only when all that stands in it is complete. This file lays out words. Which runs count is
`evaluation_runs`' matter, intervals are `evidence`'s, the other tables `reviewer`'s.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from ecgcmr import tasks
from ecgcmr.paper import GROUPS, LAYOUTS, METRICS, SEEDS, SHORT, TITLES, Layout, System
from ecgcmr.report.results import evaluation_runs
from ecgcmr.report.results.evaluation_runs import Cell, EvaluationRuns
from ecgcmr.report.results.evidence import Evidence, Score
from ecgcmr.report.tables import reviewer
from ecgcmr.report.tables.table import NONE, Table, Word, interval, mean_sd, span
from ecgcmr.tasks import Task

LEAST = 1000  # test subjects of a cohort whose numbers may stand beside the paper's
SIGNS = {True: "✓", False: "✗", None: ""}


def spaces(rows: pd.DataFrame) -> list[str]:
    """The search spaces that have evaluation runs, sorted."""
    return sorted(rows.loc[rows.stage == "evaluation", "space"].unique())


def every(
    rows: pd.DataFrame,
    runs: Path,
    evidence: Mapping[str, Evidence] | None = None,
    *,
    label_counts: Mapping[str, Any] | None = None,
    paper: bool = False,
    seeds: int = len(SEEDS),
    people: pd.DataFrame | None = None,
) -> dict[str, Table]:
    """All tables that the runs can fill, by file stem.

    Those of the paper's Tables I to V of whose systems more than half have run; tables of their own
    for runs that none of these shows ("others", "others-phenotypes", "labels"). From predictions:
    "figure5", "claims", "comparisons-table1" …, "phenotypes", "secondary", "calibration",
    "subgroups". With several search spaces a stem ends in the space's name.

    Args:
        rows: `store.rows(runs)`.
        runs: the folder of runs.
        evidence: by search space; without it there are no intervals and no tables from predictions.
        label_counts: of the cohort's manifest, for the number of positives.
        paper: show the paper's numbers beside ours; only for a cohort that is `comparable`.
        seeds: how many belong in a cell.
        people: `cohort.rows("test")`, for the subgroups.
    """
    tables: dict[str, Table] = {}
    for space in (names := spaces(rows)):
        by_cell = evaluation_runs.of_space(rows, space, runs, seeds)
        space_evidence = (evidence or {}).get(space)
        space_layouts = layouts(by_cell)
        space_tables = [
            of_layout(by_cell, layout, space_evidence, label_counts=label_counts, paper=paper)
            for layout in space_layouts
        ]
        if space_evidence:
            space_tables += reviewer.every(space_evidence, space_layouts, people)
        for table in space_tables:
            if len(names) > 1:
                table = replace(
                    table, stem=f"{table.stem}-{space}", title=f"{table.title} [{space}]"
                )
            tables[table.stem] = table
    return tables


def comparable(manifest: Mapping[str, Any]) -> bool:
    """Whether the paper's numbers may stand beside those of a cohort: it is like the UK Biobank's
    in what decides them.

    It is not synthetic, has at least 1,000 test subjects, CMR paired with the ECG for at least half
    of its rows, and labels of all three diseases. On anything else the same AUROC would mean
    something else.

    Args:
        manifest: the content of `_cohort.json`.
    """
    counts = {step["step"]: step["n"] for step in manifest["flow"]}
    labelled = all(
        "positive" in manifest["labels"].get(name, {}).get("test", {}) for name in tasks.DISEASES
    )
    mostly_paired = 2 * counts.get("paired", 0) >= sum(manifest["rows"].values())
    real = not str(manifest["source"]).startswith("synthetic")
    return real and manifest["rows"]["test"] >= LEAST and mostly_paired and labelled


def layouts(by_cell: Mapping[Cell, EvaluationRuns]) -> list[Layout]:
    """The paper's tables of whose systems more than half have run, then tables of other runs."""
    ran = {(system, task) for system, task, label_fraction in by_cell if label_fraction == 1}
    run_layouts = []
    for layout in LAYOUTS.values():
        n_ran = sum(any((s.name, task) in ran for task in layout.tasks) for s in layout.systems)
        if 2 * n_ran > len(layout.systems):
            run_layouts.append(layout)
    leftover = ran - {
        (system.name, task)
        for layout in run_layouts
        for system in layout.systems
        for task in layout.tasks
    }
    left_tasks = {task for _, task in leftover}
    for stem, title, names in (
        ("others", "Diseases: runs beside the paper's tables.", tasks.DISEASES),
        ("others-phenotypes", "CMR phenotypes: runs beside the paper's tables.", GROUPS),
        ("labels", "Labels of this cohort.", sorted(left_tasks - set(tasks.TASKS))),
    ):
        left_systems = [system for system, task in leftover if task in names]
        systems = tuple(
            System(name, TITLES.get(name, name))
            for name in evaluation_runs.ordered(left_systems, list(TITLES))
        )
        if systems:
            columns = tuple(name for name in names if name in left_tasks)
            run_layouts.append(Layout(stem, title, systems, columns, ""))
    return run_layouts


# -- one table -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Field:
    """One cell: its runs, their score with its interval over test subjects, its place in the column
    and the paper's (mean, sd).
    """

    system: System
    task: Task
    runs: EvaluationRuns
    score: Score
    paper: tuple[float, float | None] | None
    place: int = 0

    @property
    def scale(self) -> float:
        return METRICS[self.task.metric][1]

    @property
    def printed_mean(self) -> float:
        """The mean as printed, by which cells are ranked."""
        return round(self.scale * self.runs.mean, 2)

    def word(self) -> Word:
        """Mean ± sd; below it what it lacks, its interval and the paper's number."""
        small = [self.runs.lack] if self.runs.started and self.runs.lack else []
        if not math.isnan(self.score.low):
            form = ".1f" if self.scale == 100 else ".2f"
            small.append(interval(self.scale * self.score.low, self.scale * self.score.high, form))
        if self.paper:
            mean, sd = self.paper
            small.append(f"paper {mean:.2f}" if sd is None else f"paper {mean_sd(mean, sd)}")
        return Word(
            mean_sd(self.scale * self.runs.mean, self.scale * self.runs.sd),
            self.place,
            tuple(small),
        )

    def record(self, counts: "_Counts") -> dict[str, Any]:
        """The same in full precision, in the unit of the table."""
        means = self.runs.mean, self.runs.sd, self.score.low, self.score.high
        return {
            "system": self.system.name,
            "model": self.system.title,
            "task": self.task.name,
            "unit": METRICS[self.task.metric][0],
            **{
                name: self.scale * value
                for name, value in zip(("mean", "sd", "low", "high"), means)
            },
            "seeds": len(self.runs.values),
            "seeds_wanted": self.runs.wanted,
            "diverged": self.runs.diverged,
            "place": self.place or None,
            "test_subjects": _ends(counts.subjects[self.task.name]),
            "test_visits": _ends(counts.visits[self.task.name]),
            "test_positives": counts.positives.get(self.task.name),
        }


@dataclass(frozen=True)
class _Counts:
    """By task: the numbers of test subjects and of their visits that runs were evaluated on, and
    the positives where they are known.
    """

    subjects: Mapping[str, list[int]]
    visits: Mapping[str, list[int]]
    positives: Mapping[str, int]


def _ends(counts: Sequence[int]) -> str:
    return "–".join(map(str, sorted({*counts[:1], *counts[-1:]})))


def of_layout(
    by_cell: Mapping[Cell, EvaluationRuns],
    layout: Layout,
    evidence: Evidence | None = None,
    *,
    label_counts: Mapping[str, Any] | None = None,
    paper: bool = False,
) -> Table:
    """Systems down, tasks across: mean ± sd over the seeds, and small below it the interval over
    test subjects.

    Args:
        by_cell: `evaluation_runs.of_space`.
        layout: which systems and tasks.
        evidence: of the same search space, for the intervals.
        label_counts: of the cohort's manifest, for the number of positives.
        paper: show the paper's numbers too.
    """
    columns = [tasks.of(name, (name,)) for name in layout.tasks]
    ranked_columns = [
        _ranked([_field(by_cell, s, t, layout, evidence, paper) for s in layout.systems])
        for t in columns
    ]
    lines = list(zip(*(column for column, _ in ranked_columns)))  # a tuple per system
    fields = [field for line in lines for field in line]
    counts = _counts([column for column, _ in ranked_columns], label_counts or {})
    schemes = ("MDM", "MMCL") if any(s.mdm is not None for s in layout.systems) else ()
    foot = _foot(columns, counts, len(schemes))
    return Table(
        stem=layout.stem,
        title=layout.title,
        header=("Model", *schemes, *(SHORT.get(t.name, t.title) for t in columns)),
        kind=("name", *("mark" for _ in schemes), *("number" for _ in columns)),
        rows=(
            *(
                (Word(s.title), *(_marks(s) if schemes else ()), *(field.word() for field in line))
                for s, line in zip(layout.systems, lines)
            ),
            *foot,
        ),
        foot=len(foot),
        notes=_notes(ranked_columns, fields, evidence),
        records=tuple(field.record(counts) for field in fields),
    )


def _marks(system: System) -> tuple[Word, Word]:
    """Whether a system was pre-trained by masked modelling, and with the image."""
    return Word(SIGNS[system.mdm]), Word(SIGNS[system.mmcl])


def _notes(
    ranked_columns: Sequence[tuple[Sequence[_Field], str]],
    fields: Sequence[_Field],
    evidence: Evidence | None,
) -> tuple[str, ...]:
    """The unit, what columns lack, and what is said of every table of this form."""
    unit, seeds = METRICS[fields[0].task.metric][0], max(field.runs.wanted for field in fields)
    notes = [f"{unit} on the test set, mean ± sd over {seeds} seeds."]
    for column, lacking in ranked_columns:
        notes += [note for note in (*_pointed(column), lacking) if note]
    return (*notes, *_general(fields, evidence))


def _field(
    by_cell: Mapping[Cell, EvaluationRuns],
    system: System,
    task: Task,
    layout: Layout,
    evidence: Evidence | None,
    paper: bool,
) -> _Field:
    score = evidence.score(system.name, task.name) if evidence else None
    paper_numbers = layout.numbers.get((system.name, task.name)) if paper else None
    return _Field(
        system,
        task,
        by_cell.get((system.name, task.name, 1.0), EvaluationRuns()),
        score or Score(),
        paper_numbers,
    )


def _ranked(column: list[_Field]) -> tuple[list[_Field], str]:
    """The column with its best and second best, equal as printed equal in place.

    A note instead if seeds are missing.
    """
    rivals = [field for field in column if field.runs.started and not field.system.reference]
    lacking = [field.system.title for field in rivals if not field.runs.complete]
    if lacking:
        title = SHORT.get(column[0].task.name, column[0].task.title)
        return column, f"{title} is not ranked: seeds are missing for {', '.join(lacking)}."
    if len(rivals) < 2:
        return column, ""
    places = {
        field.system.name: 1 + sum(rival.printed_mean > field.printed_mean for rival in rivals)
        for field in rivals
    }
    return [
        replace(f, place=p if (p := places.get(f.system.name, 0)) <= 2 else 0) for f in column
    ], ""


def _pointed(column: Sequence[_Field]) -> list[str]:
    """Notes on systems of which evaluation runs of several configurations exist."""
    title = SHORT.get(column[0].task.name, column[0].task.title)
    return [
        f"{title}, {field.system.title}: {field.runs.note}" for field in column if field.runs.note
    ]


def _counts(columns: Sequence[Sequence[_Field]], label_counts: Mapping[str, Any]) -> _Counts:
    """Positives only where the manifest counts the very rows that the runs were evaluated on."""
    subjects, visits, positives = {}, {}, {}
    for column in columns:
        task = column[0].task
        rows = sorted({n for field in column for n in field.runs.subjects})
        several = any(field.score.people < field.score.n for field in column)
        people = sorted({field.score.people for field in column if field.score.people})
        subjects[task.name], visits[task.name] = people if several else rows, rows
        test = label_counts.get(task.columns[0], {}).get("test", {})
        if task.kind == "binary" and "positive" in test and [test["n"]] == rows:
            positives[task.name] = int(test["positive"])
    return _Counts(subjects, visits, positives)


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
    if counts.visits != counts.subjects:
        visits = [Word(span(counts.visits[task.name])) for task in columns]
        lines.append((Word("Test visits"), *blank, *visits))
    if counts.positives:
        positives = [counts.positives.get(task.name) for task in columns]
        lines.append(
            (Word("Positives"), *blank, *(Word(NONE if n is None else f"{n:,}") for n in positives))
        )
    return lines


def _general(fields: Sequence[_Field], evidence: Evidence | None) -> list[str]:
    """What has to be said of every table of this form."""
    has_runs = [field.runs.started for field in fields]
    notes = [f"{NONE}: no finished run."] if any(has_runs) and not all(has_runs) else []
    if evidence and any(not math.isnan(field.score.low) for field in fields):
        method = (
            "by DeLong's variance, on the logit scale"
            if fields[0].task.kind == "binary"
            else f"from {evidence.draws:,} bootstrap resamples"
        )
        notes.append(f"In brackets: 95 % interval of the mean for other test subjects, {method}.")
    if evidence and (
        note := reviewer.pretraining_note(evidence, [field.system.name for field in fields])
    ):
        notes.append(note)
    if any(field.paper for field in fields):
        notes.append("paper: the paper's number, on 6,007 subjects of the UK Biobank.")
    return notes
