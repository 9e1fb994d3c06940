"""Labels: diseases from ICD-10 codes, phenotypes, demographics and 0/1 columns, by person or by recording.

The one idea: whatever a file looks like, `raw.label_file` makes numbers by key of it and triples (key, code, date). Here
files are merged, diseases follow from the triples, and an audit says what was counted. docs/labels.md has the rules.
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
from ecgcmr.cohort.labels.label_file import KEYS, Part
from ecgcmr.cohort.shards import DEMOGRAPHICS
from ecgcmr.errors import InputError

SMALL = 5  # people; a smaller number is not shown


@dataclass(frozen=True)
class Rules:
    """How labels files are to be read.

    Attributes:
        diseases: by name; the paper's three and what was asked for besides.
        visit: UK Biobank's instance: 2 imaging, 3 repeat imaging.
        censored: diagnoses after this day are left out; None takes the latest date seen as the end of the records.
        codes: column with a list of ICD-10 codes in each cell (MIMIC-IV-ECG-ICD).
        allow_empty: take a code that was asked for and that nobody has.
    """

    diseases: tuple[icd10.Disease, ...] = icd10.PAPER
    visit: int = 2
    censored: date | None = None
    codes: str = "all_diag_hosp"
    allow_empty: bool = False

    @property
    def words(self) -> str:
        """What differs from the default, in a line; "" for the default."""
        asked = [f"{d.name}={','.join(d.words)}" for d in self.diseases if d not in icd10.PAPER]
        plain = Rules()
        others = [
            name
            for name in ("visit", "censored", "codes")
            if getattr(self, name) != getattr(plain, name)
        ]
        return " ".join([*asked, *(f"{name}={getattr(self, name)}" for name in others)])


def rules(
    diseases: Iterable[str] = (),
    *,
    visit: int = 2,
    censored: str | None = None,
    codes: str = "all_diag_hosp",
    allow_empty: bool = False,
) -> Rules:
    """The rules of a command line; a disease that was asked for replaces the paper's of the same name.

    Raises:
        InputError: a disease is defined badly or twice, or a date is none.
    """
    asked = [icd10.disease(text) for text in diseases]
    names = [d.name for d in asked]
    taken = [
        n for n in names if names.count(n) > 1 or n in (*DEMOGRAPHICS, *tasks.PHENOTYPES, *KEYS)
    ]
    if taken:
        raise InputError(
            f"--disease {taken[0]}: the name is taken; choose another, or give all its codes in one go"
        )
    try:
        day = date.fromisoformat(censored) if censored else None
    except ValueError as error:
        raise InputError(f"--censored {censored}: not a date such as 2022-10-31") from error
    kept = tuple(d for d in icd10.PAPER if d.name not in names)
    return Rules((*kept, *asked), visit, day, codes, allow_empty)


class Numbers(Mapping[str, Mapping[str, float]]):
    """Known numbers by key; half a million people with 70 columns are one array, not as many dictionaries."""

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
    """What the labels files say: numbers by ECG, by CMR or by person, who belongs to whom, and how it was counted."""

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
        InputError: a file is unreadable, without a key column, with a key twice, or without a column to take; a column is in
            another unit; two files disagree; a code that was asked for matches nobody.
    """
    if not paths:
        return Labels()
    rules = rules or Rules()
    prefixes = tuple(prefix for d in rules.diseases for prefix in d.prefixes)
    parts = [label_file.read(path, prefixes, rules.visit, rules.codes) for path in paths]
    onsets, audit = _onsets(parts, rules)
    frames = {unit: _merged(unit, parts, onsets) for unit in KEYS}
    counted = {unit: _counts(frame) for unit, frame in frames.items() if frame is not None}
    ready = {unit: Numbers(frame) for unit, frame in frames.items() if frame is not None}
    return Labels(
        by_ecg=ready.get("ecg"),
        by_cmr=ready.get("cmr"),
        by_person=ready.get("subject"),
        person_of_ecg=_links(parts, "ecg", "subject"),
        person_of_cmr=_links(parts, "cmr", "subject"),
        ecg_of_cmr=_links(parts, "cmr", "ecg"),
        audit={
            "files": [path.name for path in paths],
            "columns": counted,
            **({"icd10": audit} if audit else {}),
        },
    )


# -- diseases ----------------------------------------------------------------------------------------------------------


def _onsets(parts: Sequence[Part], rules: Rules) -> tuple[dict[str, pd.DataFrame], dict[str, Any]]:
    """Diseases by unit, from the codes of all files, and their audit; nothing where no file has codes.

    Raises:
        InputError: a disease is asked for and there are no codes, or nobody has one of its codes; files disagree on visits.
    """
    coded = [part for part in parts if part.diagnoses is not None]
    asked = [d.name for d in rules.diseases if d.asked]
    if not coded:
        if asked:
            raise InputError(f"--disease {asked[0]}: none of the labels files holds ICD-10 codes")
        return {}, {}
    units = {part.units[0] for part in coded}
    if len(units) > 1:
        raise InputError(
            f"ICD-10 codes by {' and by '.join(sorted(units))}: give files that speak of one of them"
        )
    (unit,) = units
    alike = [part for part in parts if part.units[0] == unit]
    listed = [
        part
        for part in alike
        if part.diagnoses is not None or (part.visits is not None and _any_long(coded))
    ]
    people = _union([part.keys[unit][part.covered | (part.diagnoses is None)] for part in listed])
    visits = _visits(alike, unit).reindex(people)
    found = pd.concat([_by_person(part, unit) for part in coded], ignore_index=True)
    latest = pd.Series([part.latest for part in coded], dtype="datetime64[s]").max()
    end = pd.Timestamp(rules.censored) if rules.censored else latest
    late = found["date"] > end
    found = found[~late]
    split = bool(visits.notna().any() and found["date"].notna().any())
    columns: dict[str, pd.Series] = {}
    accounts = {}
    for d in rules.diseases:
        mine = found[found["code"].str.startswith(tuple(d.prefixes))]
        onset = _onset(mine, people, visits, end)
        columns |= {
            d.name + suffix: onset[suffix]
            for suffix in (("", "_past", "_future") if split else ("",))
        }
        accounts[d.name] = _account(d, mine, onset, visits, split)
    _refuse_unmatched(rules, accounts)
    audit = {
        "of": "people" if unit == "subject" else "recordings",
        "n": len(people),
        "visit": rules.visit,
        "visited": int(visits.notna().sum()),
        "end": None if pd.isna(end) else end.date().isoformat(),
        "end_is": "as asked" if rules.censored else "the latest date of any code",
        "after_end": int(late.sum()),
        "entries": sum(part.entries for part in coded),
        "no_codes": sum(part.wrong for part in coded),
        "split": split,
        "diseases": accounts,
    }
    return {unit: pd.DataFrame(columns, index=people)}, audit


def _any_long(parts: Sequence[Part]) -> bool:
    return any(part.long for part in parts)


def _union(keys: Sequence[np.ndarray]) -> pd.Index:
    """Keys in the order of their first appearance."""
    found = pd.unique(np.concatenate(keys))
    return pd.Index(found[found != ""], dtype=object)


def _visits(parts: Sequence[Part], unit: str) -> pd.Series:
    """Day of the visit by key; files that disagree are refused."""
    out = pd.Series(dtype="datetime64[s]", index=pd.Index([], dtype=object))
    for part in parts:
        if part.visits is not None:
            days = pd.Series(
                part.visits.astype("datetime64[s]"), index=pd.Index(part.keys[unit], dtype=object)
            ).dropna()
            days = days[days.index != ""]
            both = days.index.intersection(out.index)
            _refuse_disagreement(
                part.path, None, "the visit's date", int((days[both] != out[both]).sum())
            )
            out = pd.concat([out, days.drop(both)])
    return out


def _by_person(part: Part, unit: str) -> pd.DataFrame:
    assert part.diagnoses is not None
    keys = part.keys[unit][part.diagnoses["row"].to_numpy(np.int64)]
    found = pd.DataFrame(
        {"key": keys, "code": part.diagnoses["code"], "date": part.diagnoses["date"]}, dtype=object
    )
    return found[found["key"] != ""].astype({"date": "datetime64[s]"})


def _onset(
    found: pd.DataFrame, people: pd.Index, visits: pd.Series, end: Any
) -> dict[str, pd.Series]:
    """A disease by person: ever, by the visit ("_past"), first after it ("_future").

    Who has it by the visit cannot get it any more, so the future is unknown then, as it is without a visit, without a date
    of any of the codes, and for a visit at or after the end of the records.
    """
    has = pd.Series(people.isin(found["key"]), index=people)
    first = found.dropna(subset=["date"]).groupby("key")["date"].min().reindex(people)
    unclear = visits.isna() | (has & first.isna())
    past = (has & (first <= visits)).astype(float).mask(unclear)
    future = (has & (first > visits)).astype(float).mask(unclear | (past == 1))
    if end == end:
        future = future.mask((future == 0) & (visits >= end))
    return {"": has.astype(float), "_past": past, "_future": future}


def _account(
    d: icd10.Disease,
    found: pd.DataFrame,
    onset: Mapping[str, pd.Series],
    visits: pd.Series,
    split: bool,
) -> dict[str, Any]:
    """How many have a disease, since when, and by which codes."""
    has = onset[""] == 1
    account: dict[str, Any] = {"codes": list(d.words), "n": int(has.sum())}
    if split:
        seen = has & visits.notna()
        account |= {
            "past": int((onset["_past"] == 1).sum()),
            "future": int((onset["_future"] == 1).sum()),
            "undated": int((seen & onset["_past"].isna()).sum()),
            "unvisited": int((has & visits.isna()).sum()),
        }
    codes = found["code"].astype(str)
    parts = {length: codes.str[:length][codes.str.len() >= length] for length in (3, 4)}
    account["by_code"] = {
        icd10.dotted(str(code)): int(n)
        for part in parts.values()
        for code, n in found["key"].groupby(part).nunique().items()
    }
    every = set(codes)
    unmatched = {
        prefix for prefix in d.prefixes if not any(code.startswith(prefix) for code in every)
    }
    account["nobody"] = [icd10.dotted(prefix) for prefix in d.prefixes if prefix in unmatched]
    matched = {word for prefix, word in d.prefixes.items() if prefix not in unmatched}
    account["unmatched"] = [word for word in d.words if word not in matched]
    return account


def _refuse_unmatched(rules: Rules, accounts: Mapping[str, Mapping[str, Any]]) -> None:
    for d in rules.diseases:
        words = accounts[d.name]["unmatched"]
        if d.asked and words and not rules.allow_empty:
            raise InputError(
                f"--disease {d.name}: {', '.join(words)} matches nobody; correct it, or add --allow-empty if that may be"
            )


# -- merging -----------------------------------------------------------------------------------------------------------


def _merged(
    unit: str, parts: Sequence[Part], onsets: Mapping[str, pd.DataFrame]
) -> pd.DataFrame | None:
    """All that the files know of a unit, in the order in which its keys appear; None where they know nothing."""
    frames = [(part.path.name, part.frame(unit)) for part in parts if unit in part.units]
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


def _links(parts: Sequence[Part], of: str, to: str) -> dict[str, str] | None:
    """Key of one unit -> key of another, where a file names both."""
    out: dict[str, str] = {}
    files = [
        part
        for part in parts
        if {of, to} <= part.keys.keys() and part.keys[of] is not part.keys[to]
    ]
    for part in files:
        new = {k: v for k, v in zip(part.keys[of], part.keys[to], strict=True) if k and v}
        clash = sum(out.get(k, v) != v for k, v in new.items())
        _refuse_disagreement(part.path, None, f"the {to} of an {of}", clash)
        out |= new
    return out if files else None


def _refuse_disagreement(one: object, other: object, what: str, people: int) -> None:
    if people:
        files = (
            f"{one} and {other}" if other and other != one else f"{one} and an earlier line or file"
        )
        raise InputError(
            f"{files} disagree on '{what}' of {people:,} people or recordings; correct one of them"
        )


# -- audit -------------------------------------------------------------------------------------------------------------


def _counts(frame: pd.DataFrame) -> dict[str, Any]:
    columns: dict[str, dict[str, Any]] = {}
    for name in frame.columns:
        known = frame[name].dropna()
        binary = known.isin((0, 1)).all()
        said = {"positive": int(known.sum())} if binary else {"mean": float(known.mean())}
        columns[name] = {"n": len(known), **(said if len(known) else {})}
    return {"rows": len(frame), "columns": columns}


def audit_lines(audit: Mapping[str, Any]) -> list[str]:
    """The audit as Markdown, to be read as it stands; one to four people are `<5`, and a mean of so few is left out."""
    lines = [f"# Labels: {', '.join(audit['files'])}", ""]
    if "icd10" in audit:
        lines += _icd10_lines(audit["icd10"])
    alike: dict[str, str] = {}  # ukbb_cardiac's ids are of people and of stacks, and counted alike
    for unit, counted in audit["columns"].items():
        same = next((u for u in alike if audit["columns"][u] == counted), None)
        alike[same or unit] = f"{alike[same]}` or `{unit}" if same else unit
    for unit, words in alike.items():
        counted = audit["columns"][unit]
        if not counted["columns"]:
            continue
        lines += [
            f"{_shown(counted['rows'])} keys of `{words}`",
            "",
            "| column | known | positive | mean |",
            "|---|--:|--:|--:|",
        ]
        for name, said in counted["columns"].items():
            positive = _shown(said["positive"]) if "positive" in said else ""
            mean = f"{said['mean']:.4g}" if "mean" in said and said["n"] >= SMALL else ""
            lines.append(f"| {name} | {_shown(said['n'])} | {positive} | {mean} |")
        lines.append("")
    return lines[:-1]


def _icd10_lines(found: Mapping[str, Any]) -> list[str]:
    seen = (
        f", {_shown(found['visited'])} with the date of their visit"
        if found["visited"]
        else ", no dates of visits"
    )
    end = (
        f" Records end on {found['end']} ({found['end_is']})."
        if found["end"]
        else " The codes have no dates."
    )
    lines = [f"ICD-10 codes of {_shown(found['n'])} {found['of']}{seen}.{end}"]
    if found["no_codes"] or found["after_end"]:
        lines[0] += (
            f" Left out: {_shown(found['no_codes'])} of {found['entries']:,} entries are no ICD-10 codes"
        )
        lines[0] += f", {_shown(found['after_end'])} lie after the end."
    split = ("past", "future", "undated", "unvisited") if found["split"] else ()
    heads = {
        "past": "by the visit",
        "future": "first after it",
        "undated": "no date",
        "unvisited": "no visit",
    }
    lines += ["", "| disease | codes | ever |" + "".join(f" {heads[s]} |" for s in split)]
    lines += ["|---|---|--:|" + "--:|" * len(split)]
    for name, d in found["diseases"].items():
        lines.append(
            f"| {name} | {', '.join(d['codes'])} | {' | '.join(_shown(d[key]) for key in ('n', *split))} |"
        )
    lines.append("")
    for name, d in found["diseases"].items():
        counted = ", ".join(f"{code} {_shown(n)}" for code, n in sorted(d["by_code"].items()))
        nobody = [f"{code} matches nobody" for code in d["nobody"]]
        lines.append(f"* {name}: {'; '.join(words for words in (counted, *nobody) if words)}")
    return [*lines, ""]


def _within(part: pd.DataFrame, whole: pd.DataFrame) -> bool:
    """Whether a table adds nothing to another: ukbb_cardiac's, read as one of stacks, beside the same of people."""
    here = part.index.isin(whole.index).all() and part.columns.isin(whole.columns).all()
    return bool(here) and part.equals(whole.loc[part.index, part.columns])


def _shown(n: int) -> str:
    return f"<{SMALL}" if 0 < n < SMALL else f"{n:,}"


def write_audit(path: Path, audit: Mapping[str, Any]) -> None:
    """Write the audit as Markdown."""
    files.write_whole(path, lambda aside: aside.write_text("\n".join(audit_lines(audit)) + "\n"))


def write_labels(out: Path, labels: Labels, inputs: Sequence[Path]) -> None:
    """Write merged labels as CSV, or Parquet by the name's ending; `read_labels` reads them again.

    Raises:
        InputError: they speak of people and of recordings at once, or `out` is one of the files that were read.
    """
    if out.resolve() in [path.resolve() for path in inputs]:
        raise InputError(f"{out}: is one of the files that are read; choose another --out")
    held = {"subject": labels.by_person, "ecg": labels.by_ecg, "cmr": labels.by_cmr}
    known = {unit: numbers for unit, numbers in held.items() if isinstance(numbers, Numbers)}
    unit, numbers = next(iter(known.items()))
    if len(known) > 1 and not (
        list(known) == ["subject", "cmr"] and _within(known["cmr"].frame, numbers.frame)
    ):
        raise InputError(
            f"labels by {' and by '.join(known)} do not fit into one table; write them apart"
        )
    frame = numbers.frame.rename_axis(unit).reset_index()
    owner = {"ecg": labels.person_of_ecg, "cmr": labels.person_of_cmr}.get(unit)
    if owner:
        frame.insert(1, "subject", frame[unit].map(owner))
    if out.suffix == ".parquet":
        files.write_whole(out, lambda aside: frame.to_parquet(aside, index=False))
    else:
        files.write_whole(out, lambda aside: frame.to_csv(aside, index=False, float_format="%.10g"))
