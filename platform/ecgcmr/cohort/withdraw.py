"""People who withdraw: a new cohort without them, and the mark on what was made with them.

The one idea: a cohort is never edited. The rows that stay are copied, shard by shard, into a new
folder with their splits and their recipe; no recording is read again. The new manifest says which
cohort it replaces and how many people left, not who. The old cohort can then be deleted: runs keep
its fingerprint, and `runs/withdrawn.json` says what that means.
"""

import csv
import logging
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from ecgcmr import files, signals, store
from ecgcmr.cohort import dataset, identifiers, linkage, presence, shards, staging
from ecgcmr.cohort.dataset import Cohort
from ecgcmr.cohort.labels.layout import KEYS
from ecgcmr.errors import InputError
from ecgcmr.runs import all_runs, withdrawn_since
from ecgcmr.signals import ALWAYS, SIGNALS

log = logging.getLogger(__name__)

HEADERS = {"id", "ids", "participant", "withdrawn", *(n for names in KEYS.values() for n in names)}
PSEUDONYM = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class IdLookup:
    """How an id is found: pseudonyms of the cohort, and the builder's link file and key, which may
    be absent.
    """

    pseudonyms: frozenset[str]
    link: pd.DataFrame | None
    secret: bytes | None

    def of(self, word: str) -> set[str]:
        """The pseudonyms that an id means: of a person, a recording's key, or a pseudonym
        itself.
        """
        candidates = {word, linkage.pseudonym(self.secret, word)} if self.secret else {word}
        return (candidates & self.pseudonyms) | self._subjects_of_word.get(word, set())

    def could_be(self, word: str) -> bool:
        """Whether a word that is nobody's has the form of an id: one that its data have, or a
        pseudonym's.

        Without a link file any number may be an id.
        """
        if PSEUDONYM.fullmatch(word):
            return True
        if self.link is None:
            return bool(re.fullmatch(r"\d+", word))
        return identifiers.shape(word) in self._shapes

    def could_name(self, row: Sequence[str]) -> bool:
        """Whether fields may be ids: one has a digit, or not all ids of the link file have."""
        has_digit = any(re.search(r"\d", word) for word in row)
        return has_digit or self.link is None or any("9" not in shape for shape in self._shapes)

    @cached_property
    def _shapes(self) -> set[str]:
        return {identifiers.shape(word) for word in self._subjects_of_word}

    @cached_property
    def _subjects_of_word(self) -> dict[str, set[str]]:
        """Key, file name without folders, and UK Biobank's participant of every recording ->
        pseudonyms.
        """
        subjects_of_word: dict[str, set[str]] = {}
        for key, subject in (
            self.link[["key", "subject"]].itertuples(index=False) if self.link is not None else ()
        ):
            name = identifiers.clean(key)
            for word in {key, name, identifiers.participant(name)[0] or name}:
                subjects_of_word.setdefault(word, set()).add(subject)
        return subjects_of_word


def withdraw(
    old: Path | str,
    out: Path | str,
    id_list: Path | str,
    *,
    key: Path | str | None = None,
    ignore_unknown: bool = False,
) -> Cohort:
    """Make the cohort without some people, all their visits, or open it if it is there.

    Args:
        old: the cohort's folder; `<old>.link.csv` and `<old>.key` are used where they lie beside
            it.
        out: the new cohort's folder; link file and key are written beside it, without those people.
        id_list: file with one id a line: UK Biobank's participant, a person or recording of the
            link file, or a pseudonym.
        key: file with the key of the pseudonyms, if not beside the cohort.
        ignore_unknown: pass over ids that match nobody (UK Biobank lists people who are not in the
            data).

    Raises:
        InputError: ids match nobody (says how many and on which lines), nobody is left, or another
            cohort is in the way.
    """
    old, out = Path(old), Path(out)
    cohort = dataset.open(old)
    lookup = _id_lookup(cohort, Path(key) if key else _beside(old, ".key"))
    gone = _matched(Path(id_list), lookup, ignore_unknown)
    index = cohort.rows()
    stays = ~index["subject"].isin(gone)
    if not stays.any():
        raise InputError(f"{id_list}: nobody would be left in {old}")
    request = {
        **cohort.manifest["request"],
        "source": cohort.manifest["source"],
        "seed": cohort.manifest["seed"],
        "recipe_hash": cohort.manifest["recipe_hash"],
        "replaces": cohort.fingerprint,
        "withdrawn": dataset.digest([cohort.fingerprint, *sorted(gone)]),
    }
    if not staging.ready(out, request):
        with staging.building(out, request):
            columns = _columns(cohort)
            parts = staging.run_jobs(out, _jobs(cohort, index, stays, columns), "rows")
            account = _account(cohort, index[stays], gone)
            labels = [name for name in columns if name not in signals.flags(SIGNALS)]
            staging.finish(out, request, cohort.recipe, parts, labels, account)
    _hand_on(old, out, lookup, gone, Path(key) if key else None)
    return dataset.open(out)


def mark(runs: Path, cohort: Cohort) -> int:
    """Note in `runs` that cohorts which `cohort` replaces are stale; how many finished trials were
    made from them.
    """
    since = cohort.replaced
    stale = sum(
        withdrawn_since(runs, run.cohort, run.trial.init_from, since) > 0 for run in all_runs(runs)
    )
    if stale:
        store.note_withdrawn(runs, since)
    return stale


# -- who -------------------------------------------------------------------------------------------


def _beside(cohort: Path, ending: str) -> Path | None:
    path = cohort.with_name(cohort.name + ending)
    return path if path.exists() else None


def _id_lookup(cohort: Cohort, key: Path | None) -> IdLookup:
    link = _beside(cohort.path, ".link.csv")
    table = pd.read_csv(link, dtype=str, keep_default_na=False) if link else None
    pseudonyms = {
        *cohort.rows()["subject"],
        *(exclusion["key"] for exclusion in cohort.manifest["exclusions"]),
    }
    try:
        secret = key.read_bytes().strip() if key else None
    except OSError as error:
        raise InputError(f"{key}: the key of the pseudonyms cannot be read") from error
    return IdLookup(
        frozenset(pseudonyms | set(table["subject"] if table is not None else ())), table, secret
    )


def _matched(id_list: Path, lookup: IdLookup, ignore_unknown: bool) -> set[str]:
    """The pseudonyms of the people on a list.

    Raises:
        InputError: it cannot be read, has a line that is no id, or names nobody, or somebody who is
            not there and is not to be ignored.
    """
    ids = _ids(id_list, lookup)
    people_of_line = {
        number: lookup.of(word) or lookup.of(identifiers.participant(word)[0] or word)
        for number, word in ids.items()
    }
    unknown_lines = [number for number, people in people_of_line.items() if not people]
    if unknown_lines and lookup.link is None and lookup.secret is None:
        raise InputError(
            f"{id_list}: {len(unknown_lines)} of {len(ids)} ids are no pseudonyms "
            f"({_lines(unknown_lines)}), and neither the cohort's link file nor its key lies "
            "beside it; put one there or name the key with --key"
        )
    if unknown_lines and not ignore_unknown:
        raise InputError(
            f"{id_list}: {len(unknown_lines)} of {len(ids)} ids match nobody "
            f"({_lines(unknown_lines)}); correct them, or pass over people who are not in the data "
            "with --ignore-unknown"
        )
    odd_lines = [number for number in unknown_lines if not lookup.could_be(ids[number])]
    if odd_lines:
        raise InputError(
            f"{id_list}: {len(odd_lines)} of {len(ids)} entries are no ids ({_lines(odd_lines)}): "
            "they match nobody and do not look like the ids of this cohort; correct or remove them"
        )
    gone = set().union(*people_of_line.values())
    if not gone:
        raise InputError(f"{id_list}: nobody on it is in the cohort; it can stay as it is")
    if unknown_lines:
        log.warning("%s: %d of %d ids are not in the cohort", id_list, len(unknown_lines), len(ids))
    return gone


def _lines(numbers: Sequence[int]) -> str:
    return f"lines {', '.join(map(str, numbers[:10]))}{' …' if len(numbers) > 10 else ''}"


def _ids(id_list: Path, lookup: IdLookup) -> dict[int, str]:
    """Line number -> the id of each line that has one, as it is meant.

    A list of several columns has its ids in one of them: the only one in which the cohort's are.

    Raises:
        InputError: it is no text, has rounded numbers, or ids in several columns.
    """
    lines = {
        number: line for number, line in enumerate(_text(id_list).splitlines(), 1) if line.strip()
    }
    rounded_lines = [
        number
        for number, line in lines.items()
        if any(map(identifiers.is_rounded, (line, *_fields(line))))
    ]
    if rounded_lines:
        raise InputError(
            f"{id_list}: {len(rounded_lines)} ids are rounded, as 1.0E+06 is "
            f"({_lines(rounded_lines)}); write them in full"
        )
    words = {number: identifiers.clean(line) for number, line in lines.items()}
    whole = {number: word for number, word in words.items() if lookup.could_be(word)}
    whole |= {number: word for number, word in words.items() if lookup.of(word)}
    fields = {
        number: [identifiers.clean(field) for field in _fields(line)]
        for number, line in lines.items()
        if number not in whole
    }
    column = _id_column(id_list, fields, lookup)
    ids = {number: word for number, word in words.items() if number in whole}
    for number, row in fields.items():
        is_header = number == min(lines) and (_is_header(row) or not lookup.could_name(row))
        if not is_header:
            word = row[column] if column < len(row) else ""
            ids[number] = word or words[number]
    return {number: ids[number] for number in sorted(ids) if words[number]}


def _id_column(id_list: Path, fields: dict[int, list[str]], lookup: IdLookup) -> int:
    """The column of a list in which ids of the cohort are; the first where none is.

    Raises:
        InputError: several are.
    """
    columns = {at for row in fields.values() for at, word in enumerate(row) if lookup.of(word)}
    if len(columns) > 1:
        raise InputError(
            f"{id_list}: ids stand in {len(columns)} columns; give a list with one id a line"
        )
    named_columns = [
        at for row in list(fields.values())[:1] for at, word in enumerate(row) if _is_name(word)
    ]
    return min(columns, default=named_columns[0] if named_columns else 0)


def _is_name(word: str) -> bool:
    return re.sub(r"[\s_]+(id|ids)$", "", word.lower()) in HEADERS or word.lower() in HEADERS


def _is_header(row: Sequence[str]) -> bool:
    """Whether a first line names columns: one as ids are called, and no number in any."""
    return any(map(_is_name, row)) and not any(re.search(r"\d{2}", word) for word in row)


def _fields(line: str) -> list[str]:
    mark = next((mark for mark in ("\t", ";", "|", ",") if mark in line), " ")
    return next(csv.reader([line.strip() if mark == " " else line], delimiter=mark), [])


def _text(id_list: Path) -> str:
    """The text of a list: UTF-8, or UTF-16 with its mark."""
    try:
        content = id_list.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{id_list}: no such list") from error
    except OSError as error:
        raise InputError(f"{id_list}: cannot be read as a list of one id a line") from error
    try:
        encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        text = content.decode(encoding)
    except ValueError as error:
        raise InputError(f"{id_list}: cannot be read as a list of one id a line") from error
    if "\0" in text:
        raise InputError(f"{id_list}: cannot be read as a list of one id a line; it is no text")
    return text


# -- what stays ------------------------------------------------------------------------------------


def _columns(cohort: Cohort) -> list[str]:
    """The number columns of its shards beyond the demographics."""
    form, signal_names = _form(cohort)
    other_columns = {*signal_names, *shards.DEMOGRAPHICS, "subject", "split"}
    return [name for name in form.names if name not in other_columns]


def _form(cohort: Cohort) -> tuple[pa.Schema, list[str]]:
    """The columns of its shards, and which of them are signals."""
    path = cohort.path / cohort.manifest["shards"][0]["path"]
    with shards.open_shard(path) as file:
        return file.schema_arrow, shards.signals_of(file.schema_arrow, path)


def _jobs(
    cohort: Cohort, index: pd.DataFrame, stays: pd.Series, columns: Sequence[str]
) -> list[dict[str, Any]]:
    """A job for each shard of which something is left."""
    _, signal_names = _form(cohort)
    jobs = []
    for entry in cohort.manifest["shards"]:
        in_shard = index["shard"] == entry["path"]
        rows = index.loc[in_shard & stays, "row"].tolist()
        if rows:
            jobs.append(
                {
                    "work": "copied",
                    "from": str((cohort.path / entry["path"]).resolve()),
                    "path": entry["path"],
                    "items": rows,
                    "rows": len(rows),
                    "labels": list(columns),
                    "signals": signal_names,
                    "part": entry["path"].replace("/", "-") + ".json",
                }
            )
    return jobs


def _account(cohort: Cohort, remaining: pd.DataFrame, gone: Iterable[str]) -> dict[str, Any]:
    """Flow, exclusions and repairs without the people who left, and what the cohort replaces."""
    manifest, index = cohort.manifest, cohort.rows()
    people = len(set(index["subject"]) & set(gone))
    away = len(index) - len(remaining)
    labels = [name for name in manifest["labels"] if name in remaining]
    now = {
        "paired": int(presence.has(remaining, *_paired(cohort)).sum()),
        "labelled": int(remaining[labels].notna().any(axis=1).sum()),
        "kept": len(remaining),
    }
    flow = []
    for step in manifest["flow"]:
        reasons = {} if step["step"] in now else step["reasons"]
        if step["step"] == "kept":
            reasons = {"withdrawn": step["reasons"].get("withdrawn", 0) + away}
        flow.append({**step, "n": now.get(step["step"], step["n"]), "reasons": reasons})
    return {
        "flow": flow,
        **{
            name: [entry for entry in manifest[name] if entry["key"] not in gone]
            for name in ("exclusions", "repairs")
        },
        "replaces": [
            {"fingerprint": cohort.fingerprint, "people": people, "rows": away},
            *manifest.get("replaces", []),
        ],
    }


def _paired(cohort: Cohort) -> Sequence[str]:
    """The signals that a row of it must have to be called paired."""
    request = cohort.manifest["request"]
    return [name for name in SIGNALS if f"{name} recordings" in request] or ALWAYS


def _hand_on(old: Path, out: Path, lookup: IdLookup, gone: set[str], key: Path | None) -> None:
    """Link file and key beside the new cohort, so that the old one can be deleted with all that
    belongs to it.
    """
    if lookup.link is not None:
        remaining_links = lookup.link[~lookup.link["subject"].isin(gone)]
        files.write_whole(
            out.with_name(out.name + ".link.csv"),
            lambda aside: remaining_links.to_csv(aside, index=False),
        )
    old_key, new_key = _beside(old, ".key"), out.with_name(out.name + ".key")
    if old_key and not key and not new_key.exists():
        shutil.copy(old_key, new_key)  # with its mode: readable by its owner alone
