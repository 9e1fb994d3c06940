"""Labels: diseases from codes, phenotypes, demographics and 0/1 columns, by person or by
recording.

The one idea: whatever a file looks like, `label_file` makes numbers by key of it and triples (key,
code, date). Here files are merged, diseases follow from the triples, and an audit says what was
counted. docs/labels.md has the rules.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ecgcmr.cohort.labels import label_file, records
from ecgcmr.cohort.labels.audit import audit_lines, counts, write_audit
from ecgcmr.cohort.labels.label_file import LabelFile
from ecgcmr.cohort.labels.layout import KEYS
from ecgcmr.cohort.labels.lookup import ANY, Labels
from ecgcmr.cohort.labels.merger import merged, refuse_disagreement
from ecgcmr.cohort.labels.numbers import ALWAYS, UNSTATED, Numbers
from ecgcmr.cohort.labels.onsets import onsets
from ecgcmr.cohort.labels.output import write_labels
from ecgcmr.cohort.labels.rules import Rules, rules
from ecgcmr.cohort.labels.section import Section
from ecgcmr.cohort.labels.sources import DEATH, HOSPITAL
from ecgcmr.errors import InputError

__all__ = ["Labels", "Rules", "audit_lines", "read_labels", "rules", "write_audit", "write_labels"]


def read_labels(paths: Sequence[Path], rules: Rules | None = None) -> Labels:
    """Read labels files and merge them.

    Args:
        paths: CSV, tab-separated or Parquet files; none gives empty labels.
        rules: how.

    Raises:
        InputError: a file is unreadable, without a key column, with a key twice, or without a
            column to read; a column is in another unit; two files disagree; a code that was asked
            for matches nobody.
    """
    rules = rules or Rules()
    if not paths and (rules.asked_for or rules.time is not None):
        option = rules.asked_for[0].place if rules.asked_for else f"--time {rules.time}"
        raise InputError(f"{option}: no table of labels to find it in; name one")
    if not paths:
        return Labels()
    stays = records.by_source(paths)
    label_files = [
        label_file.read(path, rules, stays) for path in paths if not records.dates_of(path)
    ]
    sections = [section for file in label_files for section in file.sections]
    keys = {file.path.name: list(file.keys()) for file in label_files}
    links = {
        (of, to): _links(sections, of, to)
        for of, to in (("ecg", "subject"), ("cmr", "subject"), ("cmr", "ecg"))
    }
    asked_visit = str(rules.visit)
    diseases, audit = onsets(label_files, rules, stays.get(DEATH))
    origin = "the ICD-10 codes" if [*rules.prefixes] == [HOSPITAL] else "the codes of diseases"
    unread = _unread(label_files, records.unused(paths, rules))
    del label_files  # a table of a unit takes the place of the files
    tables = {
        unit: merged(unit, sections, diseases.get(unit, {}), asked_visit, origin) for unit in KEYS
    }
    numbers = {unit: Numbers(table) for unit, table in tables.items() if table is not None}
    people = numbers.get("subject")
    views = {unit: _view(unit, table, asked_visit) for unit, table in numbers.items()}
    columns = {unit: counts(view) for unit, view in views.items()}
    by_visit = {}
    if people:
        by_visit = {visit: people.at(ALWAYS, visit) for visit in people.table.visits}
        by_visit |= {ALWAYS: people.at(ALWAYS), ANY: people.at(ALWAYS, UNSTATED)}
        columns |= {
            f"subject at visit {visit}": counts(people.at(visit))
            for visit in people.table.visits
            if visit != asked_visit
        }
    return Labels(
        by_ecg=numbers.get("ecg"),
        by_cmr=numbers.get("cmr"),
        by_person=views.get("subject"),
        by_visit=by_visit,
        visit=asked_visit,
        person_of_ecg=links["ecg", "subject"],
        person_of_cmr=links["cmr", "subject"],
        ecg_of_cmr=links["cmr", "ecg"],
        keys=keys,
        audit={
            "files": [path.name for path in paths],
            "columns": columns,
            **({"icd10": audit} if audit else {}),
            **unread,
        },
    )


def _view(unit: str, numbers: Numbers, asked: str) -> Numbers:
    return numbers.at(ALWAYS, UNSTATED, asked) if unit == "subject" else numbers


def _unread(label_files: Sequence[LabelFile], unused: Mapping[str, list[str]]) -> dict[str, Any]:
    """What of the files was not taken: columns by name, and entries that are no numbers."""
    columns = {file.path.name: file.account.unread for file in label_files if file.account.unread}
    columns |= unused
    numbers = [
        {"file": file.path.name, "column": name, "of": n, "shapes": dict(shapes.most_common())}
        for file in label_files
        for name, (n, shapes) in file.account.numbers.items()
        if shapes
    ]
    return {
        **({"unread": columns} if columns else {}),
        **({"no_numbers": numbers} if numbers else {}),
    }


def _links(sections: Sequence[Section], of: str, to: str) -> dict[str, str] | None:
    """Key of one unit -> key of another, where a file names both."""
    links: dict[str, str] = {}
    with_both = [
        section for section in sections if {of, to} <= section.keys.keys() and not section.is_dual
    ]
    for section in with_both:
        new = {k: v for k, v in zip(section.keys[of], section.keys[to], strict=True) if k and v}
        clash = sum(links.get(k, v) != v for k, v in new.items())
        refuse_disagreement(section.path, None, f"the {to} of an {of}", clash)
        links |= new
    return links if with_both else None
