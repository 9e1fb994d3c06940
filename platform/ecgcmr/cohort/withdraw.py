"""People who withdraw: a new cohort without them, and the mark on what was made with them.

The one idea: a cohort is never edited. The rows that stay are copied, shard by shard, into a new
folder with their splits and their recipe; no recording is read again. The new manifest says which
cohort it replaces and how many people left, not who. The old cohort can then be deleted: runs keep
its fingerprint, and `runs/withdrawn.json` says what that means.
"""

import csv
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
from ecgcmr.cohort import dataset, linkage, presence, shards, staging
from ecgcmr.cohort.dataset import Cohort
from ecgcmr.errors import InputError
from ecgcmr.runs import all_runs, withdrawn_since
from ecgcmr.signals import ALWAYS, SIGNALS

FIELD = re.compile(r"(?<=^\d{7})_\d{4,6}_\d+_\d+$")  # of UK Biobank's file names: <eid>_20205_2_0


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

    @cached_property
    def _subjects_of_word(self) -> dict[str, set[str]]:
        """Key, file name without folders, and UK Biobank's participant of every recording ->
        pseudonyms.
        """
        subjects_of_word: dict[str, set[str]] = {}
        for key, subject in (
            self.link[["key", "subject"]].itertuples(index=False) if self.link is not None else ()
        ):
            name = key.rpartition("/")[2]
            for word in {key, name, FIELD.sub("", name)}:
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
        InputError: it cannot be read, or names nobody, or somebody who is not there and is not to
            be ignored.
    """
    ids = _ids(id_list)
    people_of_line = {number: lookup.of(word) for number, word in ids.items()}
    unknown_lines = [number for number, people in people_of_line.items() if not people]
    lines = ", ".join(map(str, unknown_lines[:10])) + (" …" if len(unknown_lines) > 10 else "")
    if unknown_lines and lookup.link is None and lookup.secret is None:
        raise InputError(
            f"{id_list}: {len(unknown_lines)} of {len(ids)} ids are no pseudonyms "
            f"(lines {lines}), and neither the cohort's link file nor its key lies beside it; "
            "put one there or name the key with --key"
        )
    if unknown_lines and not ignore_unknown:
        raise InputError(
            f"{id_list}: {len(unknown_lines)} of {len(ids)} ids match nobody (lines {lines}); "
            "correct them, or pass over people who are not in the data with --ignore-unknown"
        )
    gone = set().union(*people_of_line.values())
    if not gone:
        raise InputError(f"{id_list}: nobody on it is in the cohort; it can stay as it is")
    return gone


def _ids(id_list: Path) -> dict[int, str]:
    """Line number -> the first field of each line that has one."""
    try:
        with id_list.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file)
            numbered_words = [(rows.line_num, row[0].strip()) for row in rows if row]
            return {number: word for number, word in numbered_words if word}
    except FileNotFoundError as error:
        raise InputError(f"{id_list}: no such list") from error
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{id_list}: cannot be read as a list of one id a line") from error


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
