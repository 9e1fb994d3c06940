"""A table of words and its renderings: terminal, Markdown, LaTeX, CSV; the page's template reads
the same fields.

The one idea: whoever fills a table decides every word, whoever renders it decides none. So all
renderings say the same, and one mechanism serves every table. Numbers for whoever computes on
travel beside the words, as records. How a number becomes a word is decided here too, so that it
reads alike everywhere.
"""

import csv
import io
import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Of columns: left, centred, right, and left with line breaks.
KINDS = ("name", "mark", "number", "text")
WRAP = 48  # characters of a line in a column of kind "text", on the terminal
NARROW = 88  # characters that notes may take below a narrower table
LONG = 30  # rows that LaTeX may break over pages
NONE = "—"  # nothing has run, or nothing can be said
PLACES = {0: "", 1: "¹", 2: "²"}
LEGEND = {1: "¹ best", 2: "² second best"}

# What a table may hold beyond ASCII, as LaTeX writes it.
SIGNS = {
    "±": r"$\pm$",
    "✓": r"\checkmark",
    "✗": r"$\times$",
    "—": "---",
    "–": "--",
    "−": "$-$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "<": "$<$",
    ">": "$>$",
    "…": r"\dots{}",
    "×": r"$\times$",
    "’": "'",
    "·": r"$\cdot$",
    "\u00a0": "~",
}
COMMANDS = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "^": r"\^{}",
    "~": r"\~{}",
    **SIGNS,
}


@dataclass(frozen=True)
class Word:
    """What stands in one field.

    Attributes:
        text: the word.
        place: 1 best of its column, 2 second best, 0 neither.
        small: lines of small print below, e.g. an interval.
    """

    text: str
    place: int = 0
    small: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """A finished table; every row has as many words as the header.

    Attributes:
        stem: of its files.
        title: what it is, in sentences.
        header: titles of the columns.
        kind: of each column, of KINDS.
        rows: all lines below the header.
        foot: how many of the last rows stand apart, below a rule.
        notes: sentences that belong below.
        records: the numbers in full precision, one mapping per line of the CSV file, all with the
            same keys.
    """

    stem: str
    title: str
    header: tuple[str, ...]
    kind: tuple[str, ...]
    rows: tuple[tuple[Word, ...], ...]
    foot: int = 0
    notes: tuple[str, ...] = ()
    records: tuple[Mapping[str, Any], ...] = ()

    @property
    def body(self) -> tuple[tuple[Word, ...], ...]:
        """The rows above the foot."""
        return self.rows[: len(self.rows) - self.foot]

    @property
    def places(self) -> tuple[int, ...]:
        """The places that some word has: 1, 2, both or none."""
        return tuple(sorted({word.place for row in self.rows for word in row} - {0}))

    def text(self) -> str:
        """For a terminal: aligned.

        Best and second best marked ¹ and ², small print on lines of its own.
        """
        columns = range(len(self.header))
        has_places = [any(row[i].place for row in self.rows) for i in columns]
        head = [[title + " " * has_places[i] for i, title in enumerate(self.header)]]
        rows = [_lines(row, self.kind, has_places) for row in self.rows]
        widths = [max(len(line[i]) for block in (head, *rows) for line in block) for i in columns]
        blocks = [[_aligned(line, widths, self.kind) for line in block] for block in (head, *rows)]
        rule = "─" * max(len(line) for block in blocks for line in block)
        body = [line for block in blocks[1 : 1 + len(self.body)] for line in block]
        foot = [line for block in blocks[1 + len(self.body) :] for line in block]
        legend = [", ".join(LEGEND[place] for place in self.places)] if self.places else []
        lines = [*blocks[0], rule, *body, *([rule, *foot] if foot else [])]
        notes = [
            line for note in self.notes for line in textwrap.wrap(note, max(len(rule), NARROW))
        ]
        return "\n".join([self.title, "", *lines, "", *legend, *notes]).rstrip()

    def markdown(self) -> str:
        """GitHub Markdown: best bold, second best underlined."""
        marks = {0: "{}", 1: "**{}**", 2: "<ins>{}</ins>"}
        rules = {"name": ":--", "mark": ":-:", "number": "--:", "text": ":--"}

        def field(word: Word) -> str:
            small = "".join(f"<br><small>{line}</small>" for line in word.small)
            return (marks[word.place].format(word.text) if word.text else "") + small

        grid = [
            list(self.header),
            [rules[kind] for kind in self.kind],
            *([field(w) for w in row] for row in self.rows),
        ]
        lines = ["| " + " | ".join(word.replace("|", "\\|") for word in row) + " |" for row in grid]
        return (
            "\n".join(
                [f"**{self.title}**", "", *lines, "", *(f"{note}  " for note in self.notes)]
            ).rstrip()
            + "\n"
        )

    def latex(self) -> str:
        """LaTeX for booktabs and amssymb, a `longtable` if it may not fit a page: best bold, second
        best underlined.
        """
        alignment = {"name": "l", "mark": "c", "number": "r", "text": "p{0.35\\linewidth}"}
        columns = "".join(alignment[kind] for kind in self.kind)
        caption = rf"\caption{{{latex(' '.join([self.title, *self.notes]))}}}"
        head = [r"\toprule", " & ".join(map(latex, self.header)) + r" \\", r"\midrule"]
        body = [line for row in self.body for line in _latex_lines(row)]
        foot = [line for row in self.rows[len(self.body) :] for line in _latex_lines(row)]
        lines = [*body, *([r"\midrule", *foot] if foot else []), r"\bottomrule"]
        if len(self.rows) > LONG:
            begin = [rf"\begin{{longtable}}{{{columns}}}", caption + r" \\", *head, r"\endhead"]
            return "\n".join([*begin, *lines, r"\end{longtable}", ""])
        begin = [
            r"\begin{table}",
            r"\centering",
            caption,
            rf"\begin{{tabular}}{{{columns}}}",
            *head,
        ]
        return "\n".join([*begin, *lines, r"\end{tabular}", r"\end{table}", ""])

    def csv(self) -> str:
        """The records, full precision, for whoever computes on; what is not a number is empty."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        if self.records:
            writer.writerow(self.records[0])
        writer.writerows([_plain(value) for value in record.values()] for record in self.records)
        return out.getvalue()


# -- rendering -------------------------------------------------------------------------------------


def latex(text: str) -> str:
    """The same words for LaTeX: escaped what it reads as commands, spelt out the signs it has
    commands for.
    """
    return re.sub(".", lambda match: COMMANDS.get(match[0], match[0]), text)


def _lines(row: Sequence[Word], kind: Sequence[str], has_places: Sequence[bool]) -> list[list[str]]:
    """A row as lines of a terminal: first the words, below them their small print."""
    fields = []
    for word, column_kind, has_place in zip(row, kind, has_places):
        first = textwrap.wrap(word.text, WRAP) or [""] if column_kind == "text" else [word.text]
        lines = [*first, *word.small]
        fields.append(
            [
                line + (PLACES[word.place] or " ")
                if has_place and not i
                else line + " " * has_place
                for i, line in enumerate(lines)
            ]
        )
    return [
        [lines[i] if i < len(lines) else "" for lines in fields]
        for i in range(max(map(len, fields)))
    ]


def _aligned(line: Sequence[str], widths: Sequence[int], kind: Sequence[str]) -> str:
    """One line of a terminal: names left, marks centred, numbers right."""
    align = {"name": str.ljust, "text": str.ljust, "mark": str.center, "number": str.rjust}
    return "  ".join(
        align[column_kind](word, width) for word, width, column_kind in zip(line, widths, kind)
    ).rstrip()


def _latex_lines(row: Sequence[Word]) -> list[str]:
    """A row of LaTeX, and one more for each line of small print."""
    marks = {0: "{}", 1: r"\textbf{{{}}}", 2: r"\underline{{{}}}"}
    lines = [[marks[word.place].format(latex(word.text)) if word.text else "" for word in row]]
    for i in range(max(len(word.small) for word in row)):
        lines.append(
            [
                rf"{{\footnotesize {latex(word.small[i])}}}" if i < len(word.small) else ""
                for word in row
            ]
        )
    return [" & ".join(words) + r" \\" for words in lines]


def _plain(value: Any) -> str:
    """A field of a CSV file: ten digits for a fraction, nothing for what is unknown."""
    if isinstance(value, float):
        return "" if value != value else f"{value:.10g}"
    return "" if value is None else str(value)


# -- numbers as words ------------------------------------------------------------------------------


def mean_sd(mean: float, sd: float) -> str:
    """`71.71 ± 0.36`; `—` for what is NaN."""
    if math.isnan(mean):
        return NONE
    return f"{signed(mean, '.2f')} ± " + (NONE if math.isnan(sd) else f"{sd:.2f}")


def interval(low: float, high: float, form: str) -> str:
    """`[−0.31, 3.40]`."""
    return f"[{signed(low, form)}, {signed(high, form)}]"


def signed(value: float, form: str) -> str:
    """A number with a true minus sign, and none before zero."""
    text = format(value, form)
    return text.lstrip("+-") if not text.strip("+-0.") else text.replace("-", "−")


def p_value(p: float) -> str:
    """`0.031`, `<0.001`; `—` for NaN."""
    return NONE if math.isnan(p) else "<0.001" if p < 0.001 else f"{p:.3f}"


def span(counts: Sequence[int]) -> str:
    """`6,007`, or `238–240` for ascending counts that differ."""
    ends = [f"{n:,}" for n in sorted({*counts[:1], *counts[-1:]})]
    return "–".join(ends) or NONE
