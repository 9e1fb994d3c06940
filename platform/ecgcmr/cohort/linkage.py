"""From recordings to the rows of a cohort: who is a person, which ECG belongs to which CMR, which
split, which labels.

Pure functions over what the survey of the files found; no signal is touched here. The one idea:
everything is decided by the person, so that repeat visits share a pseudonym and a split. A
recording's own key never enters a cohort: pseudonyms are keyed hashes, and the key stays with
whoever built it.
"""

import hashlib
import hmac
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from ecgcmr.cohort import identifiers
from ecgcmr.cohort.labels.lookup import Labels
from ecgcmr.cohort.shards import DEMOGRAPHICS
from ecgcmr.errors import InputError
from ecgcmr.raw import diagnoses
from ecgcmr.signals import ALWAYS, SIGNALS

log = logging.getLogger(__name__)

DUPLICATE = "same signal as an earlier recording"
SHARED_NAME = "told from another of its file name by its folder"
SAME_PATIENT = "one person with others by the patient number of its header"


@dataclass(frozen=True)
class SurveyedRecording:
    """What the survey says of one recording.

    Attributes:
        kind: the signal.
        source: `reader:PATH`, what is read.
        key: the file's key.
        person: groups repeat visits, or None.
        digest: of the signal; equal for equal recordings.
        numbers: demographics and 0/1 labels of the header.
        repairs: what was settled while reading.
        visit: of the person, or None.
        flags: 0/1 by name, for the index; no labels.
        patient: hash of the header's patient number, or None.
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
    visit: str | None = None
    flags: Mapping[str, float] | None = None
    patient: str | None = None
    step: str = ""
    reason: str = ""


Visit = tuple[
    str, dict[str, SurveyedRecording]
]  # person, and recordings by signal in the order of the registry


@dataclass(frozen=True)
class LinkedRows:
    """The rows to be written, and the account of what became of every recording."""

    rows: list[dict[str, Any]]  # subject, split, source (or None) by signal, numbers
    labels: tuple[str, ...]
    flow: list[dict[str, Any]]
    exclusions: list[dict[str, str]]
    repairs: list[dict[str, str]]
    link: list[dict[str, str]]  # pseudonym, kind, key: for the builder alone


class SortedOut(NamedTuple):
    """Recordings that can serve, and those that failed or repeat another."""

    usable: list[SurveyedRecording]
    failures: list[SurveyedRecording]


def splits(persons: int, seed: int) -> np.ndarray:
    """The split of each of `persons`, 70 / 15 / 15, a pure function of the seed: floor(0.7 n), then
    halves.
    """
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


# -- linking ---------------------------------------------------------------------------------------


def link(sorted_out: SortedOut, labels: Labels, secret: bytes, seed: int) -> LinkedRows:
    """Turn recordings into rows: paired by person, split by person, labelled.

    Args:
        sorted_out: of `sort_out`.
        labels: of the labels files.
        secret: key of the pseudonyms.
        seed: of the split.
    """
    usable = _told_apart([_named(recording) for recording in sorted_out.usable])
    failures = [_named(recording) for recording in sorted_out.failures]
    visits = sorted(_by_patient(_visits(usable, labels), labels), key=_order)
    persons = sorted({person for person, _ in visits})
    split_of = dict(zip(persons, splits(len(persons), seed), strict=True))
    name_of = {person: pseudonym(secret, person) for person in persons}
    candidates = Counter(p for p, visit in visits if _visit(visit) in (None, labels.visit))
    rows = [
        _row(
            {"subject": name_of[p], "split": split_of[p]},
            visit,
            _label_numbers(visit, labels, is_sole=candidates[p] < 2),
        )
        for p, visit in visits
    ]
    _say_withheld(visits, rows, labels)
    label_names = _diagnosed(rows)
    excluded_people = [(f, pseudonym(secret, _person(f, labels))) for f in failures]
    return LinkedRows(
        rows=rows,
        labels=label_names,
        flow=_flow([*usable, *failures], failures, rows),
        exclusions=[
            {"key": name, "reason": f"{f.kind}: {f.reason}"} for f, name in excluded_people
        ],
        repairs=[
            {"key": name_of[p], "what": f"{f.kind}: {repair}"}
            for p, recordings in visits
            for f in recordings.values()
            for repair in f.repairs
        ],
        link=[
            {"subject": name, "kind": f.kind, "key": f.key, "excluded": f.reason}
            for f, name in excluded_people
        ]
        + [
            {"subject": name_of[p], "kind": f.kind, "key": f.key, "excluded": ""}
            for p, recordings in visits
            for f in recordings.values()
        ],
    )


def sort_out(recordings: Sequence[SurveyedRecording]) -> SortedOut:
    """Divide recordings, given in the order of their sources; of two equal ones the first can
    serve.

    Raises:
        InputError: nothing can serve; says why.
    """
    usable: list[SurveyedRecording] = []
    failures: list[SurveyedRecording] = []
    digests = set()
    for recording in recordings:
        if recording.reason:
            failures.append(recording)
        elif (recording.kind, recording.digest) in digests:
            failures.append(replace(recording, step="unique", reason=DUPLICATE))
        else:
            digests.add((recording.kind, recording.digest))
            usable.append(recording)
    if not usable:
        reasons = ", ".join(
            f"{n} {reason}" for reason, n in Counter(f.reason for f in failures).most_common()
        )
        raise InputError(f"none of {len(recordings)} recordings can serve: {reasons}")
    return SortedOut(usable, failures)


def _named(recording: SurveyedRecording) -> SurveyedRecording:
    """A recording with the person and the visit that its name states, if its reader knew neither.

    Of `<eid>_<instance>_<array>` all are recordings of one person, in one split.
    """
    person, visit = identifiers.participant(identifiers.clean(recording.key))
    if person is None or recording.person not in (None, person):
        return recording
    return replace(recording, person=person, visit=recording.visit or visit)


def matched_keys(sorted_out: SortedOut, labels: Labels) -> dict[str, tuple[int, int]]:
    """How many keys of each labels file are a recording's or a person's, and how many it has.

    Raises:
        InputError: none of a file's is.
    """
    recordings = [_named(f) for f in (*sorted_out.usable, *sorted_out.failures)]
    names: dict[str, set[str]] = {
        kind: {identifiers.clean(f.key) for f in recordings if f.kind == kind} for kind in SIGNALS
    }
    names["subject"] = {identifiers.clean(_person(f, labels)) for f in recordings}
    counts = {}
    for file, sections in labels.keys.items():
        keys: set[str] = set()
        matches: set[str] = set()
        for section in sections:
            is_match = np.any(
                [pd.Index(values).isin(names[unit]) for unit, values in section.items()], axis=0
            )
            main = next(section[unit] for unit in ("ecg", "cmr", "subject") if unit in section)
            keys.update(main)
            matches.update(main[is_match])
        counts[file] = (len(matches - {""}), len(keys - {""}))
        if not counts[file][0]:
            units = " and ".join(dict.fromkeys(unit for section in sections for unit in section))
            raise InputError(
                f"{file}: none of its {counts[file][1]:,} keys (`{units}`) is the name of a "
                "recording or a person; name people as their recordings do, or give the labels "
                "of these recordings"
            )
    return counts


def _stated_person(recording: SurveyedRecording, labels: Labels) -> str | None:
    """Whose a recording is, as the labels file or the recording itself says."""
    person_of_key = {"ecg": labels.person_of_ecg, "cmr": labels.person_of_cmr}.get(recording.kind)
    return (person_of_key or {}).get(_label_key(recording)) or recording.person


def _label_key(recording: SurveyedRecording) -> str:
    """What a labels file calls a recording; one of several of its name keeps its folders."""
    return recording.key if "/" in recording.key else identifiers.clean(recording.key)


def _person(recording: SurveyedRecording, labels: Labels) -> str:
    return _stated_person(recording, labels) or PurePosixPath(recording.key).name


def _certain(recording: SurveyedRecording, labels: Labels) -> bool:
    """Whether it is known whose a recording is; of two files of one name it is not, unless
    something says so.
    """
    return "/" not in recording.key or _stated_person(recording, labels) is not None


def _told_apart(usable: Sequence[SurveyedRecording]) -> list[SurveyedRecording]:
    """Give recordings of one kind and one file name, in different folders, the folders as part of
    their keys: `a/0001`.

    `a/0001` and `b/0001` may be two visits or two people. Both stay, as one person where their
    records name none, so that nobody can be in two splits; a labels file's `0001` means neither for
    certain and is given to neither.
    """
    times = Counter((f.kind, f.key) for f in usable)
    out, n_namesakes = list(usable), 0
    for kind in SIGNALS:
        namesakes = [i for i, f in enumerate(usable) if f.kind == kind and times[kind, f.key] > 1]
        for i, folders in zip(
            namesakes, _folders([usable[i].source for i in namesakes]), strict=True
        ):
            f = usable[i]
            out[i] = replace(f, key=f"{folders}/{f.key}", repairs=(*f.repairs, SHARED_NAME))
        n_namesakes += len(namesakes)
    if n_namesakes:
        log.warning(
            "%d recordings share their file name with another: labels by file name do not reach "
            "them",
            n_namesakes,
        )
    return out


def _folders(sources: Sequence[str]) -> list[str]:
    """The folders above each file, below what all of them have in common; `reader:PATH` each."""
    above = [PurePosixPath(source.partition(":")[2]).parts[:-1] for source in sources]
    alike = [len(set(names)) == 1 for names in zip(*above)]  # as deep as the shallowest
    common = alike.index(False) if False in alike else len(alike)
    return ["/".join(parts[common:]) or "." for parts in above]


def _visits(usable: Sequence[SurveyedRecording], labels: Labels) -> list[Visit]:
    """Every subject-visit: the recordings of each signal in turn join the visits that those before
    it make.
    """
    visits: list[dict[str, SurveyedRecording]] = []
    for kind in SIGNALS:
        visits = _joined(visits, [f for f in usable if f.kind == kind], labels)
    return [(_person(_first(visit), labels), visit) for visit in visits]


def _first(visit: Mapping[str, SurveyedRecording]) -> SurveyedRecording:
    """The recording that a visit began with, its ECG where it has one."""
    return next(iter(visit.values()))


def _joined(
    visits: Sequence[dict[str, SurveyedRecording]],
    recordings: Sequence[SurveyedRecording],
    labels: Labels,
) -> list[dict[str, SurveyedRecording]]:
    """Visits with the recordings of one more signal.

    A CMR joins the ECG that the labels file names for it; any recording else the visit that began
    with one of its key, else its person's first of its visit that still lacks its signal, else,
    where either's visit is unknown, its person's first that still lacks it. Without any it is a
    visit by itself.
    """
    by_key = {_first(visit).key: at for at, visit in enumerate(visits)}
    of_person: dict[str, list[int]] = {}
    for at, first in enumerate(map(_first, visits)):
        if _certain(first, labels):
            of_person.setdefault(_person(first, labels), []).append(at)
    visit_of: dict[int, int] = {}  # by recording

    def join(choose: Callable[[SurveyedRecording], Iterable[int | None]]) -> None:
        for n, recording in enumerate(recordings):
            if n not in visit_of:
                at = next(
                    (
                        at
                        for at in choose(recording)
                        if at is not None and at not in recording_of_visit
                    ),
                    None,
                )
                if at is not None:
                    visit_of[n] = at
                    recording_of_visit[at] = recording

    def same(recording: SurveyedRecording) -> list[tuple[int, str | None]]:
        if not _certain(recording, labels):
            return []
        return [
            (at, _first(visits[at]).visit) for at in of_person.get(_person(recording, labels), [])
        ]

    recording_of_visit: dict[int, SurveyedRecording] = {}  # visit -> recording
    join(lambda f: [by_key.get(_partner_key(f, labels))])
    join(lambda f: (at for at, visit in same(f) if f.visit and visit == f.visit))
    join(lambda f: (at for at, visit in same(f) if not f.visit or not visit))
    rest = [visit for at, visit in enumerate(visits) if at not in recording_of_visit]
    partner_visits = (visits[visit_of[n]] if n in visit_of else {} for n in range(len(recordings)))
    return [*rest, *({**visit, f.kind: f} for visit, f in zip(partner_visits, recordings))]


def _partner_key(recording: SurveyedRecording, labels: Labels) -> str:
    """The key of the recording that this one belongs to: as the labels file says, or its own."""
    partner_of_key = labels.ecg_of_cmr if recording.kind == "cmr" else None
    return (partner_of_key or {}).get(_label_key(recording), recording.key)


def _by_patient(visits: Sequence[Visit], labels: Labels) -> list[Visit]:
    """The visits, of which those that nobody names are one person where their headers state one
    patient number.

    Repeat ECGs of a hospital have names of their own and would stand in two splits. What a labels
    file or a file's name says of a person outweighs a header. No pair follows from a header: an ECG
    and a CMR of one patient can be years apart.
    """
    has_name = [any(_stated_person(f, labels) for f in visit.values()) for _, visit in visits]
    trusted_numbers = _trusted(visits, has_name)
    words = [
        [person, *(f.patient for f in visit.values() if f.patient in trusted_numbers)]
        for person, visit in visits
    ]
    group = _connected(words)
    members: dict[int, set[tuple[bool, str]]] = {}
    for g, sure, (person, _) in zip(group, has_name, visits, strict=True):
        members.setdefault(g, set()).add((not sure, person))
    out = []
    for g, sure, (person, visit) in zip(group, has_name, visits, strict=True):
        if sure or len(members[g]) == 1:
            out.append((person, visit))
        else:  # a person who is named first, else the first name
            noted_visit = {kind: _noted(f, SAME_PATIENT) for kind, f in visit.items()}
            out.append((min(members[g])[1], noted_visit))
    return out


def _trusted(visits: Sequence[Visit], has_name: Sequence[bool]) -> set[str]:
    """The patient numbers that belong to no two named persons and to no two sexes; others are a
    device's or "TEST 1".
    """
    owners: dict[str, set[str]] = {}
    sexes: dict[str, set[float]] = {}
    for sure, (person, visit) in zip(has_name, visits, strict=True):
        for f in visit.values():
            if f.patient:
                owners.setdefault(f.patient, set()).update([person] if sure else [])
                sexes.setdefault(f.patient, set()).update(
                    v for k, v in (f.numbers or {}).items() if k == "sex"
                )
    trusted_numbers = {
        number for number in owners if len(owners[number]) < 2 and len(sexes[number]) < 2
    }
    if n_doubtful := len(owners) - len(trusted_numbers):
        log.warning(
            "%d patient numbers of headers stand for several people: passed over", n_doubtful
        )
    return trusted_numbers


def _connected(words: Sequence[Sequence[str]]) -> list[int]:
    """The group of each list of words; two that share a word, or are joined by a third, are of one
    group.
    """
    rows = np.repeat(np.arange(len(words)), [len(word_list) for word_list in words])
    codes, vocabulary = pd.factorize(
        np.array([word for word_list in words for word in word_list], dtype=object)
    )
    size = len(words) + len(vocabulary)
    graph = coo_matrix((np.ones(len(rows)), (rows, len(words) + codes)), shape=(size, size))
    return connected_components(graph, directed=False)[1][: len(words)].tolist()


def _noted(recording: SurveyedRecording, word: str) -> SurveyedRecording:
    return replace(recording, repairs=(*recording.repairs, word))


def _order(visit: Visit) -> tuple[str, ...]:
    person, recordings = visit
    return person, *(recordings[kind].key if kind in recordings else "" for kind in SIGNALS)


def _visit(visit: Mapping[str, SurveyedRecording]) -> str | None:
    """The visit that its recordings state, the ECG before all."""
    return next((f.visit for f in visit.values() if f.visit), None)


def _label_numbers(
    visit: dict[str, SurveyedRecording], labels: Labels, *, is_sole: bool
) -> dict[str, float]:
    """What the labels files say of a row: of its person at its visit, then of its recordings."""
    numbers: dict[str, float] = {}
    labels_of_kind = {"ecg": labels.by_ecg, "cmr": labels.by_cmr}
    last_first = list(reversed(visit.values()))  # the ECG has the last word
    for name in dict.fromkeys(_person(recording, labels) for recording in last_first):
        key = identifiers.clean(name)
        numbers |= labels.of_person(key, _visit(visit), is_sole=is_sole)
    for recording in last_first:
        numbers |= (labels_of_kind.get(recording.kind) or {}).get(_label_key(recording), {})
    return numbers


def _row(
    identity: Mapping[str, str],
    visit: dict[str, SurveyedRecording],
    label_numbers: Mapping[str, float],
) -> dict[str, Any]:
    numbers: dict[str, float] = {}
    flags: dict[str, float] = {}
    for recording in reversed(visit.values()):  # the ECG has the last word
        numbers |= recording.numbers or {}
        flags |= recording.flags or {}
    numbers |= label_numbers  # after the recordings themselves, the file of labels
    return {
        **identity,
        "numbers": dict(sorted(numbers.items())),
        **dict.fromkeys(ALWAYS),
        **{kind: recording.source for kind, recording in visit.items()},
        "flags": flags,
    }


def _say_withheld(
    visits: Sequence[Visit], rows: Sequence[Mapping[str, Any]], labels: Labels
) -> None:
    """Say how many rows lack what a labels file knows of another visit of their person."""
    by_person = labels.by_person or {}
    n_withheld = sum(
        bool(by_person.get(person, {}).keys() - row["numbers"].keys())
        for (person, _), row in zip(visits, rows, strict=True)
    )
    if n_withheld:
        log.warning(
            "%d rows are of a visit of which the labels say nothing; values of another visit are "
            "not given to them",
            n_withheld,
        )


def _diagnosed(rows: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """Complete the diagnoses of every row and drop those that nobody has; the label columns that
    are left.
    """
    names = {name for row in rows for name in row["numbers"]}
    positive_names = {name for row in rows for name, value in row["numbers"].items() if value}
    kept_names = {
        name for name in names if name in positive_names or not name.startswith(diagnoses.PREFIXES)
    }
    for row in rows:
        whole = diagnoses.complete(row["numbers"], kept_names)
        row["numbers"] = {name: whole[name] for name in sorted(whole.keys() & kept_names)}
    return tuple(sorted(kept_names - set(DEMOGRAPHICS)))


def _flow(
    recordings: Sequence[SurveyedRecording],
    failures: Sequence[SurveyedRecording],
    rows: Sequence[dict[str, Any]],
) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = [
        {"step": "found", "n": len(recordings), "unit": "recordings", "reasons": {}}
    ]
    remaining = len(recordings)
    for step in ("readable", "plausible", "unique"):
        reasons = Counter(f"{f.kind}: {f.reason}" for f in failures if f.step == step)
        remaining -= sum(reasons.values())
        steps.append(
            {
                "step": step,
                "n": remaining,
                "unit": "recordings",
                "reasons": dict(sorted(reasons.items())),
            }
        )
    kinds = [kind for kind in SIGNALS if any(f.kind == kind for f in recordings)]
    alone = Counter(_lacking(row, kinds) for row in rows if not all(row.get(k) for k in kinds))
    bare = sum(not set(row["numbers"]) - set(DEMOGRAPHICS) for row in rows)
    pairing = [("paired", alone)] if len(kinds) > 1 else []
    # Rows that are not paired or not labelled stay: the reasons of these two steps say what a row
    # lacks, none has left.
    for step, lacking in (
        *pairing,
        ("labelled", Counter({"no label": bare} if bare else {})),
        ("kept", Counter()),
    ):
        n = len(rows) - sum(lacking.values())
        steps.append(
            {"step": step, "n": n, "unit": "rows", "reasons": dict(sorted(lacking.items()))}
        )
    return steps


def _lacking(row: Mapping[str, Any], kinds: Sequence[str]) -> str:
    """`ecg: no CMR`: which signals a row has, and which it lacks."""
    there = "+".join(kind for kind in kinds if row.get(kind))
    return f"{there}: no {' or '.join(SIGNALS[kind].title for kind in kinds if not row.get(kind))}"
