"""Cohorts are made: of synthetic subjects, or of real recordings and tables.

The one idea: every recording is read twice, once to judge it, which decides rows and splits, once
to write it, so that no signal is staged on disk and memory holds one row group per task (a
network's labels are kept in `.build/`, since they take long to draw). What is done to a recording
is in `prepare`, how a build survives an interruption in `staging`.
"""

import json
import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ecgcmr import checksums, raw, signals
from ecgcmr.cohort import dataset, linkage, prepare, shards, staging
from ecgcmr.cohort.dataset import BUILD, Cohort, digest
from ecgcmr.cohort.labels.merge import Labels, Rules, read_labels, write_audit
from ecgcmr.errors import Excluded, InputError, unknown
from ecgcmr.raw import leftovers, search
from ecgcmr.raw.sax_network import Network
from ecgcmr.raw.synthetic import subject as synthetic
from ecgcmr.signals import ALWAYS, HEART, SIGNALS, Options

SHARD_ROWS = 256  # 65 MB: small enough for a display that moves and a resume that loses little
SURVEY = 64  # recordings judged by one task
DRAWN = 4  # stacks, where a network draws them: it takes minutes for one


def synth(out: Path | str, *, subjects: int, seed: int = 0, shard_rows: int = SHARD_ROWS) -> Cohort:
    """Make a synthetic paired cohort, or open it if it is there.

    Args:
        out: its folder.
        subjects: how many; the first n of the generator's endless row for this seed.
        seed: of people and split.
        shard_rows: rows of one shard.

    Raises:
        InputError: the folder holds something else, or the disk is full.
    """
    out = Path(out)
    if subjects < 3:
        raise InputError(f"subjects={subjects}: a cohort of three splits needs at least 3")
    recipe = recipe_of("synthetic", {"synthetic": synthetic.RECIPE})
    request = {"source": "synthetic", "subjects": subjects, **_common(recipe, seed, shard_rows)}
    if staging.ready(out, request):
        return dataset.open(out)
    split = linkage.splits(subjects, seed)
    rows = [
        {"subject": f"synth-{i + 1:07d}", "split": split[i], "index": i} for i in range(subjects)
    ]
    labels = shards.default_labels()
    job_fields = {"work": "synthetic", "seed": seed, "labels": labels, "signals": ALWAYS}
    flow: list[dict[str, Any]] = [
        {"step": step, "n": subjects, "unit": "rows", "reasons": {}} for step in ("found", "kept")
    ]
    with staging.building(out, request):
        parts = staging.write_shards(out, rows, job_fields, shard_rows)
        return staging.finish(
            out, request, recipe, parts, labels, {"flow": flow, "exclusions": [], "repairs": []}
        )


def build(
    out: Path | str,
    *,
    ecg: str | Sequence[str] = (),
    cmr: str | Sequence[str] = (),
    others: Mapping[str, str | Sequence[str]] = {},
    labels: Path | str | Sequence[Path | str] | None = None,
    rules: Rules | None = None,
    seed: int = 0,
    key: Path | str | None = None,
    crop: str = "heart",
    declaration: raw.Declaration = raw.UNDECLARED,
    network: Network | None = None,
    shard_rows: int = SHARD_ROWS,
) -> Cohort:
    """Make a cohort of real recordings, or open it if it is there.

    Args:
        out: its folder.
        ecg: where ECGs lie, "PATH", "reader:PATH" or several of them, e.g. "wfdb:PATH"; formats may
            be mixed.
        cmr: where short-axis stacks lie, e.g. "nifti:PATH", "dicom:PATH".
        others: likewise, by the name of any other registered signal.
        labels: files of labels, see `merge.read_labels`; their audit is written to
            `<out>.audit.md`.
        rules: how they are to be read.
        seed: of the split.
        key: file with the secret of the pseudonyms, outside `out`; made beside it by default. What
            a pseudonym stands for is written to `<out>.link.csv`, beside the cohort and never
            inside.
        crop: how the heart is cut out of the images, one of `cmr.CROPS`.
        declaration: rate, unit and leads of ECGs that do not state them.
        network: segments stacks that have no segmentation, see `sax_network.open_network`.
        shard_rows: rows of one shard.

    Raises:
        InputError: no source, unknown reader or crop, a network without stacks, nothing that can
            serve, another cohort in the way, or a full disk.
    """
    out = Path(out)
    files = [Path(file) for file in ([labels] if isinstance(labels, (str, Path)) else labels or ())]
    table = read_labels(files, rules)
    places = {"ecg": ecg, "cmr": cmr, **others}
    sources = _sources(places)
    _refuse_flags(table)
    if network and "cmr" not in sources:
        raise InputError("--segment: there is no --cmr; it segments short-axis stacks")
    options = {"crop": crop, **({"segment": network.identity} if network else {})}
    declared_json = declaration.as_json()
    choices = _choices(_label_words(files, rules), options, declared_json)
    recipe, request = _requested(sources, choices, options, seed, shard_rows)
    if staging.ready(out, request):
        return dataset.open(out)
    with staging.building(out, request):
        reading = {"declared": declared_json, "network": _network_job(out, network)}
        recordings = survey(out, sources, options, reading)
        sorted_out = linkage.sort_out(recordings)  # refuses before a key is made
        key_counts = linkage.matched_keys(sorted_out, table)
        linked_rows = linkage.link(sorted_out, table, secret(out, Path(key) if key else None), seed)
        pd.DataFrame(linked_rows.link).to_csv(out.with_name(out.name + ".link.csv"), index=False)
        columns = tuple(dict.fromkeys((*shards.default_labels(), *linked_rows.labels)))
        job_fields = {
            "work": "recordings",
            "options": options,
            **reading,
            "labels": (*columns, *signals.flags(sources)),
            "signals": tuple(dict.fromkeys((*ALWAYS, *sources))),
        }
        parts = staging.write_shards(out, linked_rows.rows, job_fields, shard_rows)
        audit = {**table.audit, "matched": key_counts}
        account = _account(out, linked_rows, audit, _left_aside(places, sources))
        return staging.finish(out, request, recipe, parts, columns, account)


def _account(
    out: Path,
    linked_rows: linkage.LinkedRows,
    audit: Mapping[str, Any],
    left_aside: Mapping[str, int],
) -> dict[str, Any]:
    """What the manifest says of recordings, of files that are none, and of labels, whose audit lies
    beside the cohort.
    """
    account: dict[str, Any] = {
        name: getattr(linked_rows, name) for name in ("flow", "exclusions", "repairs")
    }
    if left_aside:
        first, *later = account["flow"]
        account["flow"] = [{**first, "left_aside": dict(left_aside)}, *later]
    if "files" in audit:
        account["audit"] = audit
        write_audit(out.with_name(out.name + ".audit.md"), audit)
    return account


def _left_aside(
    places: Mapping[str, str | Sequence[str]], sources: Mapping[str, Sequence[str]]
) -> dict[str, int]:
    """Files in the places of recordings that are no part of one, counted by kind."""
    folders = {
        _path(place, kind)
        for kind, named in places.items()
        for place in ([named] if isinstance(named, str) else named)
        if place
    }
    paths = [source.partition(":")[2] for kind in sources for source in sources[kind]]
    return leftovers.left_aside(sorted(folders), paths)


def _path(place: str, kind: str) -> Path:
    """The path of `reader:PATH` or `PATH`."""
    name, colon, path = place.partition(":")
    return Path(path if colon and name in raw.READERS[kind] else place)


def _sources(places: Mapping[str, str | Sequence[str]]) -> dict[str, list[str]]:
    """Every recording by signal, `reader:PATH` each, of the signals that a place is named for.

    Raises:
        InputError: of none; else see `find`.
    """
    places_of = {
        kind: [location] if isinstance(location, str) else location
        for kind, location in places.items()
    }
    sources = {
        kind: [source for path in paths for source in find(kind, path)]
        for kind, paths in places_of.items()
        if paths
    }
    if not sources:
        raise InputError(
            "a cohort needs recordings: give --ecg wfdb:PATH, --cmr nifti:PATH or --cmr dicom:PATH"
        )
    return sources


def _refuse_flags(table: Labels) -> None:
    """Refuse a label's column that bears the name of a flag.

    Raises:
        InputError: one does.
    """
    if clashes := table.columns & set(signals.flags(SIGNALS)):
        raise InputError(
            f"--labels: column '{min(clashes)}' is a flag that the build makes itself; rename it"
        )


def _label_words(files: Sequence[Path], rules: Rules | None) -> str:
    """What a request says of the files of labels: the beginnings of their checksums, the rules."""
    sums = [checksums.sha256(file)[:16] for file in files]
    return " ".join([*sums, rules.words if rules else ""]).strip() or "none"


def _choices(
    label_words: str, options: Options, declared_json: Mapping[str, Any]
) -> dict[str, str]:
    """What a request says of a build's options, in words."""
    choices = {"labels": label_words, "crop": options["crop"]}
    choices |= {"declared": json.dumps(declared_json)} if declared_json else {}
    choices |= {"segment": digest(options["segment"])} if "segment" in options else {}
    return choices


def _network_job(out: Path, network: Network | None) -> dict[str, str]:
    """What a task needs to know of a network, as JSON values; empty without one."""
    if network is None:
        return {}
    folder = (out / BUILD / "segmented").resolve()
    file = network.file.resolve()
    return {"file": str(file), "identity": network.identity, "folder": str(folder)}


def _requested(
    sources: dict[str, list[str]],
    choices: dict[str, str],
    options: Options,
    seed: int,
    shard_rows: int,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The recipe, and what a build is made of: readers and counts, no folder or file, whose names
    may be people's.
    """
    readers = {
        kind: "+".join(dict.fromkeys(s.partition(":")[0] for s in kind_sources))
        for kind, kind_sources in sources.items()
    }
    notes: dict[str, Any] = {"readers": readers}
    notes |= {"declared": choices["declared"]} if "declared" in choices else {}
    recipe = recipe_of("+".join(readers.values()), notes, options, sources)
    return recipe, {
        "source": recipe["reader"],
        **{f"{kind} recordings": len(kind_sources) for kind, kind_sources in sources.items()},
        "names": digest(
            sorted(Path(s).name for kind_sources in sources.values() for s in kind_sources)
        ),
        **choices,
        **_common(recipe, seed, shard_rows),
    }


def recipe_of(
    reader: str,
    notes: dict[str, Any],
    options: Options = HEART,
    kinds: Iterable[str] = (),
) -> dict[str, Any]:
    """How signals come to their form; whatever changes an array's content is in it.

    Args:
        reader: of the recordings, or "synthetic".
        notes: what else there is to say.
        options: choices of the build.
        kinds: signals that the cohort is built of, beside those that every cohort has columns for.

    Raises:
        InputError: a signal knows no such option.
    """
    names = dict.fromkeys((*ALWAYS, *kinds))
    recipes = {name: SIGNALS[name].recipe(options) for name in names}
    return {"format": shards.FORMAT, **recipes, "reader": reader, **notes}


def _common(recipe: dict[str, Any], seed: int, shard_rows: int) -> dict[str, Any]:
    return {"seed": seed, "shard_rows": shard_rows, "recipe_hash": digest(recipe)}


def find(kind: str, location: str) -> list[str]:
    """The recordings of `reader:PATH`, `reader:` before each; of a PATH of ECGs alone each file's
    own.

    Raises:
        InputError: unknown reader, no such place, or nothing there; for images the reader must be
            named, because whether a folder is one person or many is the reader's to say.
    """
    if kind not in SIGNALS:
        raise unknown("signal", kind, SIGNALS)
    name, colon, path = location.partition(":")
    readers = raw.READERS.get(kind, {})
    by_content = SIGNALS[kind].by_content and (not colon or Path(location).exists())
    if (name not in readers or not colon) and by_content:
        try:
            return [
                f"{reader}:{source}" for reader, source in search.recordings(kind, Path(location))
            ]
        except Excluded as error:
            aside = leftovers.words(leftovers.left_aside([Path(location)], []))
            there = f"{aside}: " if aside else ""
            raise InputError(f"--{kind} {location}: {there}{error}") from error
    if name not in readers or not colon:
        raise unknown(f"reader of --{kind}", name, readers)
    return [f"{name}:{source}" for source in readers[name].find(path)]


def secret(out: Path, key: Path | None) -> bytes:
    """The secret of the pseudonyms; made on first use, readable by its owner alone.

    Raises:
        InputError: it would lie inside the cohort, or is empty.
    """
    path = key or out.with_name(out.name + ".key")
    if path.resolve().is_relative_to(out.resolve()):
        raise InputError(
            f"{path}: the key of the pseudonyms must not lie inside the cohort; choose another "
            "--key"
        )
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
            file.write(secrets.token_hex(32) + "\n")
    key_bytes = path.read_bytes().strip()
    if not key_bytes:
        raise InputError(
            f"{path}: the key of the pseudonyms is empty; write at least 32 random characters "
            "into it"
        )
    return key_bytes


def survey(
    out: Path,
    sources: dict[str, list[str]],
    options: Options = HEART,
    reading: Mapping[str, Any] = prepare.PLAIN,
) -> list[linkage.SurveyedRecording]:
    """Judge every recording, in parallel; ECGs first, each kind in the order of its sources.

    Args:
        out: the cohort's folder.
        sources: of `find`, by signal.
        options: choices of the build.
        reading: see `prepare.PLAIN`.
    """
    jobs = [
        {
            "work": "survey",
            "kind": kind,
            "sources": chunk,
            "options": options,
            **reading,
            "rows": len(chunk),
            "part": f"survey-{kind}-{number:05d}.json",
        }
        for kind, kind_sources in sources.items()
        for number, chunk in enumerate(
            _chunks(kind_sources, DRAWN if kind == "cmr" and reading["network"] else SURVEY)
        )
    ]
    parts = staging.run_jobs(out, jobs, "recordings")
    return [
        linkage.SurveyedRecording(**{**f, "repairs": tuple(f["repairs"])})
        for part in parts
        for f in part["found"]
    ]


def _chunks(sources: Sequence[str], size: int) -> list[Sequence[str]]:
    return [sources[start : start + size] for start in range(0, len(sources), size)]
