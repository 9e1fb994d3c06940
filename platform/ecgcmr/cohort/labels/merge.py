"""Labels: diseases from ICD-10 codes, phenotypes, demographics and 0/1 columns, by person or by
recording.

The one idea: whatever a file looks like, `label_file` makes numbers by key of it and triples (key,
code, date). Here files are merged, diseases follow from the triples, and an audit says what was
counted. docs/labels.md has the rules.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ecgcmr import files, tasks
from ecgcmr.cohort.labels import icd10, label_file
from ecgcmr.cohort.labels.label_file import KEYS, Section
from ecgcmr.cohort.shards import DEMOGRAPHICS
from ecgcmr.errors import InputError

SMALL = 5  # people; a smaller number is not shown


@dataclass(frozen=True)
class Rules:
    """How labels files are to be read.

    Attributes:
        diseases: by name; the paper's three and what was asked for besides.
        visit: UK Biobank's instance: 2 imaging, 3 repeat imaging.
        censored: diagnoses after this day are left out; None takes the latest date seen as the end
            of the records.
        codes: column with a list of ICD-10 codes in each cell (MIMIC-IV-ECG-ICD).
        allow_empty: accept a code that was asked for and that nobody has.
    """

    diseases: tuple[icd10.Disease, ...] = icd10.PAPER
    visit: int = 2
    censored: date | None = None
    codes: str = "all_diag_hosp"
    allow_empty: bool = False

    @property
    def words(self) -> str:
        """What differs from the default, in a line; "" for the default."""
        disease_words = [
            f"{disease.name}={','.join(disease.words)}"
            for disease in self.diseases
            if disease not in icd10.PAPER
        ]
        default = Rules()
        options = [
            name
            for name in ("visit", "censored", "codes")
            if getattr(self, name) != getattr(default, name)
        ]
        return " ".join([*disease_words, *(f"{name}={getattr(self, name)}" for name in options)])


def rules(
    diseases: Iterable[str] = (),
    *,
    visit: int = 2,
    censored: str | None = None,
    codes: str = "all_diag_hosp",
    allow_empty: bool = False,
) -> Rules:
    """The rules of a command line; a disease that was asked for replaces the paper's of the same
    name.

    Raises:
        InputError: a disease is defined badly or twice, or a date is none.
    """
    extra_diseases = [icd10.disease(text) for text in diseases]
    extra_names = [disease.name for disease in extra_diseases]
    other_columns = (*DEMOGRAPHICS, *tasks.PHENOTYPES, *KEYS)
    taken_names = [
        name for name in extra_names if extra_names.count(name) > 1 or name in other_columns
    ]
    if taken_names:
        raise InputError(
            f"--disease {taken_names[0]}: the name is taken; "
            "choose another, or give all its codes in one go"
        )
    try:
        day = date.fromisoformat(censored) if censored else None
    except ValueError as error:
        raise InputError(f"--censored {censored}: not a date such as 2022-10-31") from error
    paper_diseases = tuple(disease for disease in icd10.PAPER if disease.name not in extra_names)
    return Rules((*paper_diseases, *extra_diseases), visit, day, codes, allow_empty)


class Numbers(Mapping[str, Mapping[str, float]]):
    """Known numbers by key.

    Half a million people with 70 columns are one array, not as many dictionaries.
    """

    def __init__(self, frame: pd.DataFrame) -> None:
        self.frame = frame
        self._values = frame.to_numpy(np.float64)
        self._row = {key: n for n, key in enumerate(frame.index)}

    def __getitem__(self, key: str) -> dict[str, float]:
        values = self._values[self._row[key]].tolist()
        return {
            name: value
            for name, value in zip(self.frame.columns, values, strict=True)
            if value == value
        }

    def __iter__(self) -> Iterator[str]:
        return iter(self._row)

    def __len__(self) -> int:
        return len(self._row)


@dataclass(frozen=True)
class Labels:
    """What the labels files say: numbers by ECG, by CMR or by person, who belongs to whom, and how
    it was counted.
    """

    by_ecg: Mapping[str, Mapping[str, float]] | None = None
    by_cmr: Mapping[str, Mapping[str, float]] | None = None
    by_person: Mapping[str, Mapping[str, float]] | None = None
    person_of_ecg: Mapping[str, str] | None = None
    person_of_cmr: Mapping[str, str] | None = None
    ecg_of_cmr: Mapping[str, str] | None = None
    audit: Mapping[str, Any] = field(default_factory=dict)

    @property
    def columns(self) -> set[str]:
        """Every column of which somebody has a number."""
        return {name for unit in self.audit.get("columns", {}).values() for name in unit["columns"]}


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
    if not paths:
        return Labels()
    rules = rules or Rules()
    prefixes = tuple(prefix for disease in rules.diseases for prefix in disease.prefixes)
    sections = [label_file.read(path, prefixes, rules.visit, rules.codes) for path in paths]
    onsets, audit = _onsets(sections, rules)
    frames = {unit: _merged(unit, sections, onsets) for unit in KEYS}
    present = {unit: frame for unit, frame in frames.items() if frame is not None}
    numbers = {unit: Numbers(frame) for unit, frame in present.items()}
    return Labels(
        by_ecg=numbers.get("ecg"),
        by_cmr=numbers.get("cmr"),
        by_person=numbers.get("subject"),
        person_of_ecg=_links(sections, "ecg", "subject"),
        person_of_cmr=_links(sections, "cmr", "subject"),
        ecg_of_cmr=_links(sections, "cmr", "ecg"),
        audit={
            "files": [path.name for path in paths],
            "columns": {unit: _counts(frame) for unit, frame in present.items()},
            **({"icd10": audit} if audit else {}),
        },
    )


# -- diseases --------------------------------------------------------------------------------------


def _onsets(
    sections: Sequence[Section], rules: Rules
) -> tuple[dict[str, pd.DataFrame], dict[str, Any]]:
    """Diseases by unit, from the codes of all files, and their audit; nothing where no file has
    codes.

    Raises:
        InputError: a disease is asked for and there are no codes, or nobody has one of its codes;
            files disagree on visits.
    """
    with_codes = [section for section in sections if section.diagnoses is not None]
    extra_names = [disease.name for disease in rules.diseases if disease.from_user]
    if not with_codes:
        if extra_names:
            raise InputError(
                f"--disease {extra_names[0]}: none of the labels files holds ICD-10 codes"
            )
        return {}, {}
    units = {section.units[0] for section in with_codes}
    if len(units) > 1:
        raise InputError(
            f"ICD-10 codes by {' and by '.join(sorted(units))}: "
            "give files that speak of one of them"
        )
    (unit,) = units
    of_unit = [section for section in sections if section.units[0] == unit]
    any_long = any(section.long for section in with_codes)
    counting = [
        section
        for section in of_unit
        if section.diagnoses is not None or (section.visits is not None and any_long)
    ]
    people = _union(
        [section.keys[unit][section.complete | (section.diagnoses is None)] for section in counting]
    )
    visits = _visits(of_unit, unit).reindex(people)
    diagnoses = pd.concat([_by_person(section, unit) for section in with_codes], ignore_index=True)
    latest = pd.Series([section.latest for section in with_codes], dtype="datetime64[s]").max()
    end = pd.Timestamp(rules.censored) if rules.censored else latest
    late = diagnoses["date"] > end
    diagnoses = diagnoses[~late]
    split = bool(visits.notna().any() and diagnoses["date"].notna().any())
    columns: dict[str, pd.Series] = {}
    accounts = {}
    for disease in rules.diseases:
        disease_rows = diagnoses[diagnoses["code"].str.startswith(tuple(disease.prefixes))]
        onset = _onset(disease_rows, people, visits, end)
        suffixes = ("", "_past", "_future") if split else ("",)
        columns |= {disease.name + suffix: onset[suffix] for suffix in suffixes}
        accounts[disease.name] = _account(disease, disease_rows, onset, visits, split)
    _refuse_unmatched(rules, accounts)
    audit = {
        "of": "people" if unit == "subject" else "recordings",
        "n": len(people),
        "visit": rules.visit,
        "visited": int(visits.notna().sum()),
        "end": None if pd.isna(end) else end.date().isoformat(),
        "end_is": "as asked" if rules.censored else "the latest date of any code",
        "after_end": int(late.sum()),
        "entries": sum(section.entries for section in with_codes),
        "no_codes": sum(section.invalid for section in with_codes),
        "split": split,
        "diseases": accounts,
    }
    return {unit: pd.DataFrame(columns, index=people)}, audit


def _union(keys: Sequence[np.ndarray]) -> pd.Index:
    """Keys in the order of their first appearance."""
    distinct_keys = pd.unique(np.concatenate(keys))
    return pd.Index(distinct_keys[distinct_keys != ""], dtype=object)


def _visits(sections: Sequence[Section], unit: str) -> pd.Series:
    """Day of the visit by key; files that disagree are refused."""
    visits = pd.Series(dtype="datetime64[s]", index=pd.Index([], dtype=object))
    for section in sections:
        if section.visits is None:
            continue
        keys = pd.Index(section.keys[unit], dtype=object)
        days = pd.Series(section.visits.astype("datetime64[s]"), index=keys).dropna()
        days = days[days.index != ""]
        in_both = days.index.intersection(visits.index)
        clash = int((days[in_both] != visits[in_both]).sum())
        _refuse_disagreement(section.path, None, "the visit's date", clash)
        visits = pd.concat([visits, days.drop(in_both)])
    return visits


def _by_person(section: Section, unit: str) -> pd.DataFrame:
    assert section.diagnoses is not None
    keys = section.keys[unit][section.diagnoses["row"].to_numpy(np.int64)]
    columns = {"key": keys, "code": section.diagnoses["code"], "date": section.diagnoses["date"]}
    diagnoses = pd.DataFrame(columns, dtype=object)
    return diagnoses[diagnoses["key"] != ""].astype({"date": "datetime64[s]"})


def _onset(
    diagnoses: pd.DataFrame, people: pd.Index, visits: pd.Series, end: Any
) -> dict[str, pd.Series]:
    """A disease by person: ever, by the visit ("_past"), first after it ("_future").

    Who has it by the visit cannot get it any more, so the future is unknown then, as it is without
    a visit, without a date of any of the codes, and for a visit at or after the end of the records.
    """
    has = pd.Series(people.isin(diagnoses["key"]), index=people)
    first = diagnoses.dropna(subset=["date"]).groupby("key")["date"].min().reindex(people)
    unclear = visits.isna() | (has & first.isna())
    past = (has & (first <= visits)).astype(float).mask(unclear)
    future = (has & (first > visits)).astype(float).mask(unclear | (past == 1))
    if end == end:
        future = future.mask((future == 0) & (visits >= end))
    return {"": has.astype(float), "_past": past, "_future": future}


def _account(
    disease: icd10.Disease,
    diagnoses: pd.DataFrame,
    onset: Mapping[str, pd.Series],
    visits: pd.Series,
    split: bool,
) -> dict[str, Any]:
    """How many have a disease, since when, and by which codes."""
    has = onset[""] == 1
    account: dict[str, Any] = {"codes": list(disease.words), "n": int(has.sum())}
    if split:
        has_visit = has & visits.notna()
        account |= {
            "past": int((onset["_past"] == 1).sum()),
            "future": int((onset["_future"] == 1).sum()),
            "undated": int((has_visit & onset["_past"].isna()).sum()),
            "unvisited": int((has & visits.isna()).sum()),
        }
    codes = diagnoses["code"].astype(str)
    by_length = {length: codes.str[:length][codes.str.len() >= length] for length in (3, 4)}
    account["by_code"] = {
        icd10.dotted(str(code)): int(n)
        for prefix_of_row in by_length.values()
        for code, n in diagnoses["key"].groupby(prefix_of_row).nunique().items()
    }
    person_codes = set(codes)
    unmatched_prefixes = {
        prefix
        for prefix in disease.prefixes
        if not any(code.startswith(prefix) for code in person_codes)
    }
    account["nobody"] = [
        icd10.dotted(prefix) for prefix in disease.prefixes if prefix in unmatched_prefixes
    ]
    matched_words = {
        word for prefix, word in disease.prefixes.items() if prefix not in unmatched_prefixes
    }
    account["unmatched"] = [word for word in disease.words if word not in matched_words]
    return account


def _refuse_unmatched(rules: Rules, accounts: Mapping[str, Mapping[str, Any]]) -> None:
    for disease in rules.diseases:
        words = accounts[disease.name]["unmatched"]
        if disease.from_user and words and not rules.allow_empty:
            raise InputError(
                f"--disease {disease.name}: {', '.join(words)} matches nobody; "
                "correct it, or add --allow-empty if that may be"
            )


# -- merging ---------------------------------------------------------------------------------------


def _merged(
    unit: str, sections: Sequence[Section], onsets: Mapping[str, pd.DataFrame]
) -> pd.DataFrame | None:
    """All that the files know of a unit, in the order in which its keys appear.

    None where they know nothing.
    """
    frames = [
        (section.path.name, section.frame(unit)) for section in sections if unit in section.units
    ]
    frames += [("the ICD-10 codes", onsets[unit])] if unit in onsets else []
    if not frames:
        return None
    index = _union([frame.index.to_numpy(object) for _, frame in frames])
    columns: dict[str, pd.Series] = {}
    source: dict[str, str] = {}
    for name, frame in frames:
        for column in frame.columns:
            new = frame[column].reindex(index)
            old = columns.get(column, new)
            clash = old.notna() & new.notna() & ~np.isclose(old, new, rtol=1e-6)
            _refuse_disagreement(source.get(column, name), name, column, int(clash.sum()))
            columns[column] = old.where(old.notna(), new)
            source.setdefault(column, name)
    return pd.DataFrame(columns, index=index)


def _links(sections: Sequence[Section], of: str, to: str) -> dict[str, str] | None:
    """Key of one unit -> key of another, where a file names both."""
    links: dict[str, str] = {}
    with_both = [
        section
        for section in sections
        if {of, to} <= section.keys.keys() and section.keys[of] is not section.keys[to]
    ]
    for section in with_both:
        new = {k: v for k, v in zip(section.keys[of], section.keys[to], strict=True) if k and v}
        clash = sum(links.get(k, v) != v for k, v in new.items())
        _refuse_disagreement(section.path, None, f"the {to} of an {of}", clash)
        links |= new
    return links if with_both else None


def _refuse_disagreement(source: object, other_source: object, column: str, people: int) -> None:
    if people:
        has_other = other_source and other_source != source
        files = f"{source} and {other_source if has_other else 'an earlier line or file'}"
        raise InputError(
            f"{files} disagree on '{column}' of {people:,} people or recordings; "
            "correct one of them"
        )


# -- audit -----------------------------------------------------------------------------------------


def _counts(frame: pd.DataFrame) -> dict[str, Any]:
    columns: dict[str, dict[str, Any]] = {}
    for name in frame.columns:
        values = frame[name].dropna()
        binary = values.isin((0, 1)).all()
        columns[name] = {"n": len(values)}
        if len(values):
            columns[name] |= (
                {"positive": int(values.sum())} if binary else {"mean": float(values.mean())}
            )
    return {"rows": len(frame), "columns": columns}


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
    return lines[:-1]


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
    lines = [f"ICD-10 codes of {_shown(account['n'])} {account['of']}{visit_words}.{end}"]
    if account["no_codes"] or account["after_end"]:
        lines[0] += f" Left out: {_shown(account['no_codes'])} of {account['entries']:,} entries"
        lines[0] += f" are no ICD-10 codes, {_shown(account['after_end'])} lie after the end."
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
        lines.append(f"* {name}: {'; '.join(words for words in (code_counts, *nobody) if words)}")
    return [*lines, ""]


def _within(frame: pd.DataFrame, whole: pd.DataFrame) -> bool:
    """Whether a table adds nothing to another: ukbb_cardiac's, read as one of stacks, beside the
    same of people.
    """
    is_inside = frame.index.isin(whole.index).all() and frame.columns.isin(whole.columns).all()
    return bool(is_inside) and frame.equals(whole.loc[frame.index, frame.columns])


def _shown(n: int) -> str:
    return f"<{SMALL}" if 0 < n < SMALL else f"{n:,}"


def write_audit(path: Path, audit: Mapping[str, Any]) -> None:
    """Write the audit as Markdown."""
    files.write_whole(path, lambda aside: aside.write_text("\n".join(audit_lines(audit)) + "\n"))


def write_labels(out: Path, labels: Labels, inputs: Sequence[Path]) -> None:
    """Write merged labels as CSV, or Parquet by the name's ending; `read_labels` reads them again.

    Raises:
        InputError: they speak of people and of recordings at once, or `out` is one of the files
            that were read.
    """
    if out.resolve() in [path.resolve() for path in inputs]:
        raise InputError(f"{out}: is one of the files that are read; choose another --out")
    by_unit = {"subject": labels.by_person, "ecg": labels.by_ecg, "cmr": labels.by_cmr}
    present = {unit: numbers for unit, numbers in by_unit.items() if isinstance(numbers, Numbers)}
    unit, numbers = next(iter(present.items()))
    if len(present) > 1 and not (
        list(present) == ["subject", "cmr"] and _within(present["cmr"].frame, numbers.frame)
    ):
        raise InputError(
            f"labels by {' and by '.join(present)} do not fit into one table; write them apart"
        )
    frame = numbers.frame.rename_axis(unit).reset_index()
    owner = {"ecg": labels.person_of_ecg, "cmr": labels.person_of_cmr}.get(unit)
    if owner:
        frame.insert(1, "subject", frame[unit].map(owner))
    if out.suffix == ".parquet":
        files.write_whole(out, lambda aside: frame.to_parquet(aside, index=False))
    else:
        files.write_whole(out, lambda aside: frame.to_csv(aside, index=False, float_format="%.10g"))
