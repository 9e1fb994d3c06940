"""What labels files held: counted, and written for a reader without numbers below five."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ecgcmr import files
from ecgcmr.cohort.labels import ukbb_tables
from ecgcmr.cohort.labels.numbers import PIECE, Numbers
from ecgcmr.cohort.labels.sources import HOSPITAL

SMALL = 5  # people; a smaller number is not shown


SHAPES = 8  # of entries that could not be read, in the audit


def counts(numbers: Numbers) -> dict[str, Any]:
    """How much is known of every column, in pieces of rows."""
    n_rows, names = len(numbers), numbers.columns
    totals = {name: np.zeros(3) for name in names}  # known, sum, neither 0 nor 1
    for start in range(0, n_rows, PIECE):
        frame = numbers.rows(slice(start, start + PIECE))
        values = frame.to_numpy(np.float64)
        has_value = ~np.isnan(values)
        is_bit = (values == 0) | (values == 1)
        sums = (
            has_value.sum(axis=0),
            np.nansum(values, axis=0),
            (has_value & ~is_bit).sum(axis=0),
        )
        for name, *parts in zip(names, *sums, strict=True):
            totals[name] += parts
    columns = {name: _summary(*total) for name, total in totals.items()}
    return {"rows": n_rows, "columns": columns}


def _summary(n: float, total: float, others: float) -> dict[str, Any]:
    summary: dict[str, Any] = {"n": int(n)}
    if n:
        summary |= {"mean": float(total / n)} if others else {"positive": int(total)}
    return summary


def audit_lines(audit: Mapping[str, Any]) -> list[str]:
    """The audit as Markdown, to be read as it stands.

    One to four people are `<5`, and a mean of so few is left out.
    """
    lines = [f"# Labels: {', '.join(audit['files'])}", ""]
    if "icd10" in audit:
        lines += _icd10_lines(audit["icd10"])
    alike: dict[str, str] = {}  # ukbb_cardiac's ids are of people and of stacks, and counted alike
    for unit, counts in audit["columns"].items():
        same = next((u for u in alike if audit["columns"][u] == counts), None)
        alike[same or unit] = f"{alike[same]}` or `{unit}" if same else unit
    for unit, words in alike.items():
        counts = audit["columns"][unit]
        if not counts["columns"]:
            continue
        lines += [
            f"{_shown(counts['rows'])} keys of `{words}`",
            "",
            "| column | known | positive | mean |",
            "|---|--:|--:|--:|",
        ]
        for name, summary in counts["columns"].items():
            positive = _shown(summary["positive"]) if "positive" in summary else ""
            mean = f"{summary['mean']:.4g}" if "mean" in summary and summary["n"] >= SMALL else ""
            lines.append(f"| {name} | {_shown(summary['n'])} | {positive} | {mean} |")
        lines.append("")
    lines += _unread_lines(audit)
    return lines if lines[-1] else lines[:-1]


def _unread_lines(audit: Mapping[str, Any]) -> list[str]:
    """Entries that are no numbers, columns that nothing was taken from, and keys that matched."""
    lines = _matched_lines(audit.get("matched", {}))
    for entry in audit.get("no_numbers", []):
        n = sum(entry["shapes"].values())
        lines.append(
            f"{entry['file']}: {entry['column']}: {_shown(n)} of {_shown(entry['of'])} entries are "
            f"no numbers and count as unknown; they look like {_shapes(entry['shapes'])}"
        )
    for file, names in audit.get("unread", {}).items():
        lines.append(f"{file}: not read: {', '.join(_fields(names))}")
    return lines


def _matched_lines(matched: Mapping[str, Sequence[int]]) -> list[str]:
    if not matched:
        return []
    n, n_keys = (sum(counts) for counts in zip(*matched.values()))
    of_files = [f"{file} {n:,} of {of:,}" for file, (n, of) in matched.items()]
    files_words = f" ({', '.join(of_files)})" if len(of_files) > 1 else ""
    return [f"labels: {n:,} of {n_keys:,} keys matched{files_words}"]


def _shapes(shapes: Mapping[str, int]) -> str:
    """`A99.9! <5, aaa 12`, the most frequent first."""
    words = [f"`{shape}` {_shown(n)}" for shape, n in shapes.items()]
    return ", ".join(words[:SHAPES]) + (f" and {len(words) - SHAPES} more" * (len(words) > SHAPES))


def _fields(names: Sequence[str]) -> list[str]:
    """Names of columns, of UK Biobank's those of one field together."""
    groups: dict[str | int, list[str]] = {}
    for name in names:
        column = ukbb_tables.column(name)
        groups.setdefault(column.field if column else name, []).append(name)
    return [_title(group, names_of) for group, names_of in groups.items()]


def _title(group: str | int, names: Sequence[str]) -> str:
    """`field 41271, ICD-9 codes (3 columns)`."""
    known_use = ukbb_tables.UNUSED.get(group) if isinstance(group, int) else None
    name = names[0] if len(names) == 1 else f"field {group}"
    words = f"{name}, {known_use}" if known_use else name
    return words if len(names) == 1 else f"{words} ({len(names)} columns)"


def _icd10_lines(account: Mapping[str, Any]) -> list[str]:
    visit_words = (
        f", {_shown(account['visited'])} with the date of their visit"
        if account["visited"]
        else ", no dates of visits"
    )
    end = (
        f" Records end on {account['end']} ({account['end_is']})."
        if account["end"]
        else " The codes have no dates."
    )
    is_default = account["sources"] == [HOSPITAL]
    kind = "ICD-10 codes" if is_default else f"Codes ({', '.join(account['sources'])})"
    lines = [f"{kind} of {_shown(account['n'])} {account['of']}{visit_words}.{end}"]
    if account["no_codes"] or account["after_end"]:
        lines[0] += f" Left out: {_shown(account['no_codes'])} of {account['entries']:,} entries"
        lines[0] += f" are no {'ICD-10 ' * is_default}codes, "
        lines[0] += f"{_shown(account['after_end'])} lie after the end."
    if account["no_codes"]:
        lines[0] += f" They look like {_shapes(account['shapes'])}; {_shown(account['unclear'])}"
        lines[0] += f" {account['of']} are not known to be without what they may mean."
    times = ("past", "future", "undated", "unvisited") if account["split"] else ()
    heads = {
        "past": "by the visit",
        "future": "first after it",
        "undated": "no date",
        "unvisited": "no visit",
    }
    lines += ["", "| disease | codes | ever |" + "".join(f" {heads[time]} |" for time in times)]
    lines += ["|---|---|--:|" + "--:|" * len(times)]
    for name, numbers in account["diseases"].items():
        cells = " | ".join(_shown(numbers[column]) for column in ("n", *times))
        lines.append(f"| {name} | {', '.join(numbers['codes'])} | {cells} |")
    lines.append("")
    for name, numbers in account["diseases"].items():
        code_counts = ", ".join(
            f"{code} {_shown(n)}" for code, n in sorted(numbers["by_code"].items())
        )
        nobody = [f"{code} matches nobody" for code in numbers["nobody"]]
        nobody += [f"{code} has no column" for code in numbers["no_column"]]
        lines.append(f"* {name}: {'; '.join(words for words in (code_counts, *nobody) if words)}")
        lines += _source_lines(name, numbers)
    lines += _follow_up_lines(account)
    for name, sources in account["no_table"].items():
        lines.append(f"* {name}: no column of {', '.join(sources)} in the tables, so no label")
    return [*lines, ""]


def _follow_up_lines(account: Mapping[str, Any]) -> list[str]:
    """What ends the follow-up, and of how many people a disease begins before."""
    if "follow_up" not in account:
        return []
    ends = account["follow_up"]
    words = {"death": "at death", "lost": "when lost to follow-up"}
    others = [f"{title} ({_shown(ends[kind])})" for kind, title in words.items() if kind in ends]
    line = f"* followed up to {ends['time']}" + "".join(f", or {word}" for word in others)
    return [
        line,
        *(
            f"* {name}: {_shown(numbers['followed'])} followed up, {_shown(numbers['events'])} "
            "with an onset"
            for name, numbers in account["diseases"].items()
        ),
    ]


def _source_lines(name: str, numbers: Mapping[str, Any]) -> list[str]:
    """How many people each source gives, where more than one counts."""
    if len(numbers["by_source"]) + len(numbers["no_table"]) < 2:
        return []
    words = [f"{source} {_shown(n)}" for source, n in numbers["by_source"].items()]
    absent = numbers["no_table"]
    words += [f"no column of {', '.join(absent)} in the tables"] if absent else []
    return [f"* {name} by source, people: {'; '.join(words)}"]


def _shown(n: int) -> str:
    return f"<{SMALL}" if 0 < n < SMALL else f"{n:,}"


def write_audit(path: Path, audit: Mapping[str, Any]) -> None:
    """Write the audit as Markdown."""
    files.write_whole(path, lambda aside: aside.write_text("\n".join(audit_lines(audit)) + "\n"))
