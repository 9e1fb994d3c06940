"""From recordings to the rows of a cohort: who is a person, which ECG belongs to which CMR, which split, which labels.

Pure functions over what the survey of the files found; no signal is touched here. The one idea: everything is decided by
the person, so that repeat visits share a pseudonym and a split. A recording's own key never enters a cohort: pseudonyms
are keyed hashes, and the key stays with whoever built it.
"""

import hashlib
import hmac
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ecgcmr.errors import InputError
from ecgcmr.labels import Labels
from ecgcmr.raw import diagnoses
from ecgcmr.shards import DEMOGRAPHICS

SPLITS = ("train", "val", "test")
DUPLICATE = "same signal as an earlier recording"


@dataclass(frozen=True)
class Found:
    """What the survey says of one recording.

    Attributes:
        kind: "ecg" or "cmr".
        source: what the reader opens.
        key: the file's key.
        person: groups repeat visits, or None.
        digest: of the signal; equal for equal recordings.
        numbers: demographics and 0/1 labels of the header.
        repairs: what was settled while reading.
        step: "" if it can serve, else "readable" or "plausible", the step that it failed.
        reason: why it failed.
    """

    kind: str
    source: str
    key: str
    person: str | None = None
    digest: str = ""
    numbers: Mapping[str, float] | None = None
    repairs: tuple[str, ...] = ()
    step: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Linked:
    """The rows to be written, and the account of what became of every recording."""

    rows: list[dict[str, Any]]  # subject, split, ecg and cmr (source or None), numbers
    labels: tuple[str, ...]
    flow: list[dict[str, Any]]
    exclusions: list[dict[str, str]]
    repairs: list[dict[str, str]]
    link: list[dict[str, str]]  # pseudonym, kind, key: for the builder alone


def splits(persons: int, seed: int) -> np.ndarray:
    """The split of each of `persons`, 70 / 15 / 15, a pure function of the seed: floor(0.7 n), then halves."""
    train = persons * 7 // 10
    val = (persons - train) // 2
    out = np.full(persons, "test", dtype=object)
    order = np.random.default_rng([seed, persons]).permutation(persons)
    out[order[:train]] = "train"
    out[order[train : train + val]] = "val"
    return out


def pseudonym(secret: bytes, person: str) -> str:
    """HMAC-SHA-256 of the person under the builder's key, 16 hexadecimal digits."""
    return hmac.new(secret, person.encode(), hashlib.sha256).hexdigest()[:16]


# -- linking -----------------------------------------------------------------------------------------------------------


def link(found: Sequence[Found], labels: Labels, secret: bytes, seed: int) -> Linked:
    """Turn what was found into rows: without duplicates, paired by person, split by person, labelled.

    Args:
        found: every recording, in the order of its source; of two equal ones the first stays.
        labels: of the labels files.
        secret: key of the pseudonyms.
        seed: of the split.

    Raises:
        InputError: nothing can serve.
    """
    usable, failed = sort_out(found)
    visits = _visits(usable, labels)
    persons = sorted({person for person, _, _ in visits})
    split_of = dict(zip(persons, splits(len(persons), seed), strict=True))
    name_of = {person: pseudonym(secret, person) for person in persons}
    rows = [_row(name_of[p], split_of[p], ecg, cmr, labels) for p, ecg, cmr in visits]
    held = _diagnosed(rows)
    unknown = [(f, pseudonym(secret, _person(f, labels))) for f in failed]
    return Linked(
        rows=rows,
        labels=held,
        flow=_flow(found, failed, rows),
        exclusions=[{"key": name, "reason": f"{f.kind}: {f.reason}"} for f, name in unknown],
        repairs=[
            {"key": name_of[p], "what": f"{f.kind}: {what}"}
            for p, *pair in visits
            for f in pair
            if f
            for what in f.repairs
        ],
        link=[{"subject": name, "kind": f.kind, "key": f.key, "excluded": f.reason} for f, name in unknown]
        + [
            {"subject": name_of[p], "kind": f.kind, "key": f.key, "excluded": ""}
            for p, *pair in visits
            for f in pair
            if f
        ],
    )


def sort_out(found: Sequence[Found]) -> tuple[list[Found], list[Found]]:
    """(those that can serve, those that failed or repeat another).

    Raises:
        InputError: nothing can serve; says why.
    """
    usable: list[Found] = []
    failed: list[Found] = []
    seen = set()
    for recording in found:
        if recording.reason:
            failed.append(recording)
        elif (recording.kind, recording.digest) in seen:
            failed.append(Found(recording.kind, recording.source, recording.key, step="unique", reason=DUPLICATE))
        else:
            seen.add((recording.kind, recording.digest))
            usable.append(recording)
    if not usable:
        reasons = ", ".join(f"{n} {reason}" for reason, n in Counter(f.reason for f in failed).most_common())
        raise InputError(f"none of {len(found)} recordings can serve: {reasons}")
    return usable, failed


def _person(recording: Found, labels: Labels) -> str:
    known = labels.person_of_ecg if recording.kind == "ecg" else labels.person_of_cmr
    return (known or {}).get(recording.key) or recording.person or recording.key


def _visits(usable: Sequence[Found], labels: Labels) -> list[tuple[str, Found | None, Found | None]]:
    """(person, ECG, CMR) of every subject-visit.

    A CMR joins the ECG that the labels file names for it, else the one of its key, else its person's first ECG that is
    still alone; without any it is a row by itself.
    """
    ecgs = {f.key: f for f in usable if f.kind == "ecg"}
    free = dict(ecgs)
    pairs: list[tuple[str, Found | None, Found | None]] = []
    for cmr in (f for f in usable if f.kind == "cmr"):
        person = _person(cmr, labels)
        key = (labels.ecg_of_cmr or {}).get(cmr.key, cmr.key)
        if key not in free:
            key = next((k for k, f in free.items() if _person(f, labels) == person), "")
        ecg = free.pop(key, None)
        pairs.append((_person(ecg, labels) if ecg else person, ecg, cmr))
    pairs += [(_person(ecg, labels), ecg, None) for ecg in free.values()]
    return sorted(pairs, key=lambda v: (v[0], v[1].key if v[1] else "", v[2].key if v[2] else ""))


def _row(subject: str, split: str, ecg: Found | None, cmr: Found | None, labels: Labels) -> dict[str, Any]:
    numbers: dict[str, float] = {}
    for recording in (cmr, ecg):
        numbers |= recording.numbers or {} if recording else {}
    named = {"ecg": labels.by_ecg or {}, "cmr": labels.by_cmr or {}}
    for recording in (cmr, ecg):  # the file of labels has the last word, and in it the ECG's line
        if recording:
            numbers |= (labels.by_person or {}).get(_person(recording, labels), {})
            numbers |= named[recording.kind].get(recording.key, {})
    return {
        "subject": subject, "split": split, "numbers": dict(sorted(numbers.items())),
        "ecg": ecg.source if ecg else None, "cmr": cmr.source if cmr else None,
    }  # fmt: skip


def _diagnosed(rows: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """Complete the diagnoses of every row and drop those that nobody has; the label columns that are left."""
    given = {name for row in rows for name in row["numbers"]}
    had = {name for row in rows for name, value in row["numbers"].items() if value}
    kept = {name for name in given if name in had or not name.startswith(diagnoses.PREFIXES)}
    for row in rows:
        whole = diagnoses.complete(row["numbers"], kept)
        row["numbers"] = {name: whole[name] for name in sorted(whole.keys() & kept)}
    return tuple(sorted(kept - set(DEMOGRAPHICS)))


def _flow(found: Sequence[Found], failed: Sequence[Found], rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = [{"step": "found", "n": len(found), "unit": "recordings", "reasons": {}}]
    left = len(found)
    for step in ("readable", "plausible", "unique"):
        reasons = Counter(f"{f.kind}: {f.reason}" for f in failed if f.step == step)
        left -= sum(reasons.values())
        steps.append({"step": step, "n": left, "unit": "recordings", "reasons": dict(sorted(reasons.items()))})
    labelled = sum(bool(set(row["numbers"]) - set(DEMOGRAPHICS)) for row in rows)
    both = sum(bool(row["ecg"] and row["cmr"]) for row in rows)
    paired = [("paired", both)] if len({f.kind for f in found}) == 2 else []
    for step, n in (*paired, ("labelled", labelled), ("kept", len(rows))):
        steps.append({"step": step, "n": n, "unit": "rows", "reasons": {}})
    return steps
