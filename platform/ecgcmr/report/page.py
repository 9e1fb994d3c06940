"""The report page: one HTML file that stands alone, with the tables and figures as files beside it.

It says which claims of the paper hold here, by which numbers, on whom, trained how, and what it
takes to run it again. It computes no result of its own: numbers come from `evidence` through
`tables`, pictures from `figures`, all other words from `appendix`. The same files on disk, and the
same installed versions, give the same bytes.
"""

import base64
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from ecgcmr import __version__, files, store, trial
from ecgcmr.cohort import dataset
from ecgcmr.cohort.dataset import Cohort
from ecgcmr.paper import LAYOUTS
from ecgcmr.report import appendix
from ecgcmr.report import figures as drawings
from ecgcmr.report.figures import Drawing
from ecgcmr.report.plots import curves
from ecgcmr.report.results.evidence import Evidence
from ecgcmr.report.results.verdicts import FAILS, HOLDS, OPEN
from ecgcmr.report.tables import paper as paper_tables
from ecgcmr.report.tables.table import Table
from ecgcmr.runs import Run, withdrawn_since

PAGE, DATA = "index.html", "rows.csv"
# Class and sign of a verdict.
LOOKS = {HOLDS: ("yes", "✓"), FAILS: ("no", "✗"), OPEN: ("open", "○")}
ONE = {HOLDS: "holds", FAILS: "does not hold", OPEN: "is not decidable"}
MANY = {HOLDS: "hold", FAILS: "do not hold", OPEN: "are not decidable"}
UNITS = {"auroc": "points", "pearson": "in r", "": ""}
# Tables for a reviewer, in the order of the page.
STATISTICS = ("secondary", "calibration", "subgroups", "phenotypes")
SECTIONS = {  # the paper's own headings
    "V-A": "CMR-level disease classification from the ECG only",
    "V-B": "Masked data modelling against other pre-training strategies",
    "V-C": "Cardiac phenotypes from ECG data",
    "V-D": "Low-data regimes",
    "V-E": "Interpretability: knowledge transfer made visible",
    "V-F": "Analysis of CMR images",
}


@dataclass(frozen=True, eq=False)
class Report:
    """What was written.

    Attributes:
        files: the path of each file by its name; the page is "index.html".
        tables: all of them, for whoever shows them elsewhere.
    """

    files: Mapping[str, Path]
    tables: tuple[Table, ...]


def write(runs: Path, cohort_path: Path, out: Path) -> Report:
    """Write the page, the tables and the figures.

    Args:
        runs: where finished trials lie.
        cohort_path: the cohort that they were trained on.
        out: folder to write to; files of the same name are replaced, each whole or not at all.

    Raises:
        InputError: there is no complete cohort at `cohort_path`, or the log of test reads is
            damaged.
    """
    cohort = dataset.open(cohort_path)
    finished_runs, rows = appendix.read(runs), store.rows(runs)
    parts = _parts(runs, cohort, finished_runs, rows)
    general = [*drawings.example(cohort), *drawings.training(finished_runs)]
    tables = tuple(table for part in parts for table in part.tables.values())
    rows_csv = _data(rows)
    files = {DATA: rows_csv}
    for table in tables:
        files |= _table_files(table)
    images = {}
    for drawing in [drawing for part in parts for drawing in part.drawings] + general:
        if drawing.figure is not None:
            images[drawing.name] = curves.png(drawing.figure)
    files |= {f"{name}.png": image for name, image in images.items()}
    text = _template().render(
        **_words(runs, cohort, finished_runs, rows),
        digest=hashlib.sha256(rows_csv).hexdigest(),
        parts=parts,
        general={drawing.name: drawing for drawing in general},
        # The page needs no other file: pictures are in it.
        pictures={name: _address(image) for name, image in images.items()},
        looks=LOOKS,
    )
    files[PAGE] = text.encode()
    return Report({name: _put(out / name, content) for name, content in files.items()}, tables)


def _table_files(table: Table) -> dict[str, bytes]:
    """A table as files, by name."""
    texts = {"md": table.markdown(), "csv": table.csv(), "tex": table.latex()}
    return {f"{table.stem}.{ending}": text.encode() for ending, text in texts.items()}


def _template() -> jinja2.Template:
    """The page's template; escapes whatever it is given."""
    settings = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return settings.get_template("page.html.jinja")


def _put(path: Path, content: bytes) -> Path:
    """Write a file, whole or not at all."""

    def fill(aside: Path) -> None:
        aside.write_bytes(content)

    files.write_whole(path, fill)
    return path


def _address(picture: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(picture).decode()}"


def _data(rows: pd.DataFrame) -> bytes:
    """Every measured number as CSV, in the same order on every disk: what the page's hash is of."""
    sorted_rows = rows.sort_values(["trial", "split", "metric"], kind="stable")
    return sorted_rows.to_csv(index=False, lineterminator="\n").encode()


# -- results ---------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Claims:
    """The claims of the paper, judged by one search space.

    Attributes:
        table: the one that says the same.
        tally: (verdict, how many claims, the verdict's words for so many).
        sections: (section, its title, lines); a line has verdict, text, effect, interval, p and
            reason.
    """

    table: Table
    tally: tuple[tuple[str, int, str], ...]
    sections: tuple[tuple[str, str, list[dict[str, str]]], ...]

    @property
    def total(self) -> int:
        """How many claims there are."""
        return sum(n for _, n, _ in self.tally)

    @property
    def sentence(self) -> str:
        """`14 hold, 3 do not hold, 5 are not decidable`."""
        return ", ".join(f"{n} {verdict_words}" for _, n, verdict_words in self.tally)


@dataclass(frozen=True, eq=False)
class Block:
    """A table, a figure or both, under one title; `more` is folded below."""

    title: str
    table: Table | None = None
    drawing: Drawing | None = None
    more: tuple[Table | Drawing, ...] = ()


@dataclass(frozen=True, eq=False)
class Part:
    """What one search space has to say.

    Attributes:
        space: its name.
        tables: all of them, by the stem without the space.
        claims: None if nothing was judged from predictions.
        table_blocks, figure_blocks, statistics_blocks: of the sections.
        drawings: all that appear in them.
    """

    space: str
    tables: Mapping[str, Table]
    claims: Claims | None
    table_blocks: tuple[Block, ...]
    figure_blocks: tuple[Block, ...]
    statistics_blocks: tuple[Block, ...]
    drawings: tuple[Drawing, ...]


def _parts(
    runs: Path, cohort: Cohort, finished_runs: Sequence[Run], rows: pd.DataFrame
) -> list[Part]:
    """One part per search space that has evaluation runs or multimodal pre-trainings."""
    evidence = {space: Evidence.of(runs, space, rows) for space in paper_tables.spaces(rows)}
    comparable, label_counts = paper_tables.comparable(cohort.manifest), cohort.manifest["labels"]
    people = cohort.rows("test")
    tables = paper_tables.every(
        rows, runs, evidence, label_counts=label_counts, paper=comparable, people=people
    )
    multimodal = {run.trial.space for run in finished_runs if run.trial.method == "mmcl"}
    spaces = sorted({*evidence, *multimodal})
    parts = []
    for space in spaces:
        ending = f"-{space}" if len(spaces) > 1 else ""
        space_tables = _of_space(tables, space, list(evidence))
        figure6 = drawings.figure6(cohort, finished_runs, space, ending)
        parts.append(_part(space, space_tables, evidence.get(space), ending, figure6))
    return parts


def _of_space(tables: Mapping[str, Table], space: str, spaces: Sequence[str]) -> dict[str, Table]:
    """The tables of a space by their stems without its name.

    Stems end in it where several spaces have evaluation runs.
    """
    if space not in spaces:
        return {}
    if len(spaces) == 1:
        return dict(tables)
    ending = f"-{space}"
    longer = tuple(f"-{space_name}" for space_name in spaces if space_name.endswith(ending))
    return {
        stem.removesuffix(ending): table
        for stem, table in tables.items()
        if stem.endswith(ending) and not stem.endswith(longer)
    }


def _part(
    space: str,
    tables: dict[str, Table],
    evidence: Evidence | None,
    ending: str,
    figure6: Drawing | None,
) -> Part:
    """One space's blocks, in the order of the page; `figure6` is its Figure 6, if it has one."""
    figures_with_tables: list[tuple[Drawing | None, tuple[Table, ...]]] = [(figure6, ())]
    if evidence:
        numbers = (tables["figure5"],) if "figure5" in tables else ()
        figures_with_tables = [
            (drawings.figure4(evidence, ending), ()),
            (drawings.figure5(evidence, ending), numbers),
            *figures_with_tables,
        ]
    figure_blocks = [
        Block(drawing.title, drawing=drawing, more=more)
        for drawing, more in figures_with_tables
        if drawing
    ]
    elsewhere = {
        "claims",
        "figure5",
        *STATISTICS,
        *(stem for stem in tables if stem.startswith("comparisons-")),
    }
    table_blocks = [
        _table(stem, tables, evidence, ending) for stem in tables if stem not in elsewhere
    ]
    statistics_blocks = []
    for stem in STATISTICS:
        if stem in tables:
            drawing = None
            if stem == "calibration" and evidence:
                drawing = drawings.reliability(evidence, ending)
            statistics_blocks.append(Block(tables[stem].title, tables[stem], drawing))
    blocks = [*table_blocks, *figure_blocks, *statistics_blocks]
    contents = [content for block in blocks for content in (block.drawing, *block.more)]
    return Part(
        space=space,
        tables=tables,
        claims=_claims(tables["claims"]) if "claims" in tables else None,
        table_blocks=tuple(table_blocks),
        figure_blocks=tuple(figure_blocks),
        statistics_blocks=tuple(statistics_blocks),
        drawings=tuple(content for content in contents if isinstance(content, Drawing)),
    )


def _table(stem: str, tables: Mapping[str, Table], evidence: Evidence | None, ending: str) -> Block:
    """A table with its comparisons."""
    comparisons, more = tables.get(f"comparisons-{stem}"), []
    if comparisons and evidence and stem in LAYOUTS:
        forest = drawings.forest(evidence, LAYOUTS[stem], ending)
        more = [content for content in (forest, comparisons) if content]
    return Block(tables[stem].title, tables[stem], more=tuple(more))


def _claims(table: Table) -> Claims:
    """The lines of the table of claims, by section."""
    sections: dict[str, list[dict[str, str]]] = {}
    for row, record in zip(table.rows, table.records):
        words = {title: word.text for title, word in zip(table.header, row)}
        has_numbers = words["p"] != "—"
        sections.setdefault(words["Section"], []).append(
            {
                "verdict": words["Verdict"],
                "text": words["Claim"],
                "reason": words["Why"],
                "effect": f"{words['Difference']} {UNITS[record['metric']]}" if has_numbers else "",
                "interval": words["95 % interval"] if has_numbers else "",
                "p": words["p"] if has_numbers else "",
            }
        )
    counts = Counter(line["verdict"] for lines in sections.values() for line in lines)
    titled_sections = tuple(
        (section, SECTIONS.get(section, ""), lines) for section, lines in sections.items()
    )
    tally = tuple(
        (word, counts[word], (ONE if counts[word] == 1 else MANY)[word]) for word in LOOKS
    )
    return Claims(table, tally, titled_sections)


# -- words -----------------------------------------------------------------------------------------


def _words(
    runs: Path, cohort: Cohort, finished_runs: Sequence[Run], rows: pd.DataFrame
) -> dict[str, Any]:
    """Everything the template says but tables and pictures."""
    manifest = cohort.manifest
    since = {**store.withdrawn(runs), **cohort.replaced}
    people_gone = [
        withdrawn_since(runs, run.cohort, run.trial.init_from, since) for run in finished_runs
    ]
    stale = [people for people in people_gone if people]
    stages = Counter(run.trial.stage for run in finished_runs)
    return {
        "version": __version__,
        "manifest": manifest,
        "synthetic": manifest["source"] == "synthetic",
        "stages": {stage: stages[stage] for stage in trial.STAGES},
        "other_cohort": sum(run.cohort != cohort.fingerprint for run in finished_runs),
        "stale": len(stale),
        "withdrawn": max(stale, default=0),
        "subjects": cohort.rows().subject.nunique(),
        "flow": appendix.flow(manifest),
        "splits": appendix.splits(cohort),
        "repairs": appendix.repairs(manifest),
        "characteristics": appendix.characteristics(cohort),
        "phenotypes": appendix.phenotypes(manifest),
        "pretrainings": appendix.pretrainings(finished_runs, rows),
        "test_reads": appendix.test_reads(runs, finished_runs),
        "commands": appendix.commands(
            manifest,
            sorted({run.trial.space for run in finished_runs}),
            appendix.pretrain_seeds_of(finished_runs),
        ),
        "settings": appendix.settings(finished_runs, manifest),
        "exact": appendix.exact(finished_runs, manifest),
        "grids": appendix.grids(finished_runs),
        "configurations": appendix.configurations(finished_runs),
        "fingerprints": appendix.fingerprints(finished_runs),
    }
