"""The report page: one HTML file that stands alone, with the tables and figures as files beside it.

It says which claims of the paper hold here, by which numbers, on whom, trained how, and what it takes to run it again. It
computes no result of its own: numbers come from `evidence` through `tables`, pictures from `figures`, all other words from
`appendix`. The same files on disk, and the same installed versions, give the same bytes.
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
from ecgcmr.report.tables import paper as tables
from ecgcmr.report.tables.sheet import Sheet
from ecgcmr.runs import Run, withdrawn_since

PAGE, DATA = "index.html", "rows.csv"
LOOKS = {
    HOLDS: ("yes", "✓"),
    FAILS: ("no", "✗"),
    OPEN: ("open", "○"),
}  # class and sign of a verdict
ONE = {HOLDS: "holds", FAILS: "does not hold", OPEN: "is not decidable"}
MANY = {HOLDS: "hold", FAILS: "do not hold", OPEN: "are not decidable"}
UNITS = {"auroc": "points", "pearson": "in r", "": ""}
STATISTICS = (
    "secondary",
    "calibration",
    "subgroups",
    "phenotypes",
)  # sheets for a reviewer, in the order of the page
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
        sheets: the tables, for whoever shows them elsewhere.
    """

    files: Mapping[str, Path]
    sheets: tuple[Sheet, ...]


def write(runs: Path, cohort_path: Path, out: Path) -> Report:
    """Write the page, the tables and the figures.

    Args:
        runs: where finished trials lie.
        cohort_path: the cohort that they were trained on.
        out: folder to write to; files of the same name are replaced, each whole or not at all.

    Raises:
        InputError: there is no complete cohort at `cohort_path`, or the log of test reads is damaged.
    """
    opened = dataset.open(cohort_path)
    found, rows = appendix.read(runs), store.rows(runs)
    parts = _parts(runs, opened, found, rows)
    general = [*drawings.example(opened), *drawings.training(found)]
    data = _data(rows)
    files = {DATA: data}
    sheets = tuple(sheet for part in parts for sheet in part.sheets.values())
    for sheet in sheets:
        for ending, text in (
            ("md", sheet.markdown()),
            ("csv", sheet.csv()),
            ("tex", sheet.latex()),
        ):
            files[f"{sheet.stem}.{ending}"] = text.encode()
    drawn = [drawing for part in parts for drawing in part.drawings] + general
    files |= {f"{one.name}.png": curves.png(one.figure) for one in drawn if one.figure is not None}
    # The page needs no other file: pictures are in it.
    pictures = {
        name.removesuffix(".png"): _address(content)
        for name, content in files.items()
        if name.endswith(".png")
    }
    words = _words(runs, opened, found, rows) | {"digest": hashlib.sha256(data).hexdigest()}
    drawn_by = {drawing.name: drawing for drawing in general}
    text = _template().render(
        **words, parts=parts, general=drawn_by, pictures=pictures, looks=LOOKS
    )
    files[PAGE] = text.encode()
    return Report({name: _put(out / name, content) for name, content in files.items()}, sheets)


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
    """Every measured number as CSV, in an order that does not depend on the disk: what the page's hash is of."""
    ordered = rows.sort_values(["trial", "split", "metric"], kind="stable")
    return ordered.to_csv(index=False, lineterminator="\n").encode()


# -- results -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Claims:
    """The claims of the paper, judged by one search space.

    Attributes:
        sheet: the table that says the same.
        tally: (verdict, how many claims, the verdict's words for so many).
        sections: (section, its title, lines); a line has verdict, text, effect, interval, p and reason.
    """

    sheet: Sheet
    tally: tuple[tuple[str, int, str], ...]
    sections: tuple[tuple[str, str, list[dict[str, str]]], ...]

    @property
    def total(self) -> int:
        """How many claims there are."""
        return sum(n for _, n, _ in self.tally)

    @property
    def sentence(self) -> str:
        """`14 hold, 3 do not hold, 5 are not decidable`."""
        return ", ".join(f"{n} {said}" for _, n, said in self.tally)


@dataclass(frozen=True, eq=False)
class Block:
    """A table, a figure or both, under one title; `more` is folded below."""

    title: str
    sheet: Sheet | None = None
    drawing: Drawing | None = None
    more: tuple[Sheet | Drawing, ...] = ()


@dataclass(frozen=True, eq=False)
class Part:
    """What one search space has to say.

    Attributes:
        space: its name.
        sheets: all its tables, by the stem without the space.
        claims: None if nothing was judged from predictions.
        tables, figures, statistics: the blocks of the sections.
        drawings: all that appear in them.
    """

    space: str
    sheets: Mapping[str, Sheet]
    claims: Claims | None
    tables: tuple[Block, ...]
    figures: tuple[Block, ...]
    statistics: tuple[Block, ...]
    drawings: tuple[Drawing, ...]


def _parts(runs: Path, opened: Cohort, found: Sequence[Run], rows: pd.DataFrame) -> list[Part]:
    """One part per search space that has final runs or multimodal pre-trainings."""
    evidence = {space: Evidence.of(runs, space, rows) for space in tables.spaces(rows)}
    paper, labels = tables.comparable(opened.manifest), opened.manifest["labels"]
    made = tables.every(
        rows, runs, evidence, labels=labels, paper=paper, people=opened.rows("test")
    )
    spaces = sorted({*evidence, *(run.trial.space for run in found if run.trial.method == "mmcl")})
    parts = []
    for space in spaces:
        ending = f"-{space}" if len(spaces) > 1 else ""
        own = _of_space(made, space, list(evidence))
        sixth = drawings.figure6(opened, found, space, ending)
        parts.append(_part(space, own, evidence.get(space), ending, sixth))
    return parts


def _of_space(made: Mapping[str, Sheet], space: str, spaces: Sequence[str]) -> dict[str, Sheet]:
    """The tables of a space by their stems without its name, which they end in where several spaces have final runs."""
    if space not in spaces:
        return {}
    if len(spaces) == 1:
        return dict(made)
    longer = [f"-{other}" for other in spaces if other.endswith(f"-{space}")]
    mine = {stem: sheet for stem, sheet in made.items() if stem.endswith(f"-{space}")}
    return {
        stem.removesuffix(f"-{space}"): sheet
        for stem, sheet in mine.items()
        if not stem.endswith(tuple(longer))
    }


def _part(
    space: str, own: dict[str, Sheet], evidence: Evidence | None, ending: str, sixth: Drawing | None
) -> Part:
    """One space's blocks, in the order of the page; `sixth` is its Figure 6, if it has one."""
    drawn: list[tuple[Drawing | None, tuple[Sheet, ...]]] = [(sixth, ())]
    if evidence:
        numbers = (own["figure5"],) if "figure5" in own else ()
        drawn = [
            (drawings.figure4(evidence, ending), ()),
            (drawings.figure5(evidence, ending), numbers),
            *drawn,
        ]
    figures = [Block(one.title, drawing=one, more=more) for one, more in drawn if one]
    placed = {
        "claims",
        "figure5",
        *STATISTICS,
        *(stem for stem in own if stem.startswith("comparisons-")),
    }
    shown = [_table(stem, own, evidence, ending) for stem in own if stem not in placed]
    statistics = []
    for stem in STATISTICS:
        if stem in own:
            picture = (
                drawings.reliability(evidence, ending)
                if stem == "calibration" and evidence
                else None
            )
            statistics.append(Block(own[stem].title, own[stem], picture))
    blocks = [*shown, *figures, *statistics]
    return Part(
        space=space,
        sheets=own,
        claims=_claims(own["claims"]) if "claims" in own else None,
        tables=tuple(shown),
        figures=tuple(figures),
        statistics=tuple(statistics),
        drawings=tuple(
            d for block in blocks for d in (block.drawing, *block.more) if isinstance(d, Drawing)
        ),
    )


def _table(stem: str, own: Mapping[str, Sheet], evidence: Evidence | None, ending: str) -> Block:
    """A table with its comparisons."""
    compared, more = own.get(f"comparisons-{stem}"), []
    if compared and evidence and stem in LAYOUTS:
        forest = drawings.forest(evidence, LAYOUTS[stem], ending)
        more = [one for one in (forest, compared) if one]
    return Block(own[stem].title, own[stem], more=tuple(more))


def _claims(sheet: Sheet) -> Claims:
    """The lines of the table of claims, by section."""
    sections: dict[str, list[dict[str, str]]] = {}
    for row, record in zip(sheet.rows, sheet.records):
        said = {title: word.text for title, word in zip(sheet.header, row)}
        known = said["p"] != "—"
        sections.setdefault(said["Section"], []).append(
            {
                "verdict": said["Verdict"],
                "text": said["Claim"],
                "reason": said["Why"],
                "effect": f"{said['Difference']} {UNITS[record['metric']]}" if known else "",
                "interval": said["95 % interval"] if known else "",
                "p": said["p"] if known else "",
            }
        )
    counts = Counter(line["verdict"] for lines in sections.values() for line in lines)
    listed = tuple(
        (section, SECTIONS.get(section, ""), lines) for section, lines in sections.items()
    )
    tally = tuple(
        (word, counts[word], (ONE if counts[word] == 1 else MANY)[word]) for word in LOOKS
    )
    return Claims(sheet, tally, listed)


# -- words -------------------------------------------------------------------------------------------------------------


def _words(runs: Path, opened: Cohort, found: Sequence[Run], rows: pd.DataFrame) -> dict[str, Any]:
    """Everything the template says but tables and pictures."""
    manifest = opened.manifest
    since = {**store.withdrawn(runs), **opened.replaced}
    people = [withdrawn_since(runs, run.cohort, run.trial.starts, since) for run in found]
    stale = [n for n in people if n]
    return {
        "version": __version__,
        "manifest": manifest,
        "synthetic": manifest["source"] == "synthetic",
        "stages": {stage: sum(run.trial.stage == stage for run in found) for stage in trial.STAGES},
        "strangers": sum(run.cohort != opened.fingerprint for run in found),
        "stale": len(stale),
        "withdrawn": max(stale, default=0),
        "subjects": opened.rows().subject.nunique(),
        "flow": appendix.flow(manifest),
        "splits": appendix.splits(opened),
        "repairs": appendix.repairs(manifest),
        "characteristics": appendix.characteristics(opened),
        "phenotypes": appendix.phenotypes(manifest),
        "pretrainings": appendix.pretrainings(found, rows),
        "test_reads": appendix.test_reads(runs, found),
        "commands": appendix.commands(manifest, sorted({run.trial.space for run in found})),
        "settings": appendix.settings(found, manifest),
        "exact": appendix.exact(found, manifest),
        "grids": appendix.grids(found),
        "points": appendix.points(found),
        "fingerprints": appendix.fingerprints(found),
    }
