"""What is done to recordings in the tasks of a build: each is judged, or prepared and written into
a shard.

The one idea: a job is JSON, and so is what it leaves in `.build/`; a task knows nothing of the
others.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ecgcmr import files, plugins, raw
from ecgcmr.cohort import linkage, shards
from ecgcmr.cohort.dataset import BUILD
from ecgcmr.errors import Excluded, InputError
from ecgcmr.raw import sax_network, statements
from ecgcmr.raw.synthetic import cmr as synthetic_cmr
from ecgcmr.raw.synthetic import subject as synthetic
from ecgcmr.signals import SIGNALS, Options, cmr, ecg

# How recordings are read: `declared`, a Declaration's JSON, and `network`, empty or the file and
# the identity of a network that segments stacks, with the folder that keeps its labels.
PLAIN: Mapping[str, Any] = {"declared": {}, "network": {}}


def work(row: dict[str, Any]) -> dict[str, Any]:
    """One job: survey some recordings, or write one shard; its part is written last. Bad input
    comes back as words.
    """
    job, out = json.loads(row["job"]), Path(row["out"])
    try:
        plugins.load(json.loads(row["plugins"]))
        part = {"survey": _survey}.get(job["work"], _shard)(job, out)
        part |= {"part": job["part"], "rows": job["rows"]}
        files.write_json(out / BUILD / job["part"], part)
    except InputError as error:
        part = {"error": str(error)}
    except Excluded as error:
        part = {
            "error": f"a recording that could be read before cannot be now ({error}); keep them as "
            "they are, run it again"
        }
    except OSError as error:
        explanation = shards.disk_full(error, out)
        if explanation is error:
            raise
        part = {"error": str(explanation)}
    return {"part": json.dumps(part)}


def _shard(job: dict[str, Any], out: Path) -> dict[str, Any]:
    """Write one shard."""
    has: dict[str, list[str]] = {name: [] for name in job["signals"]}

    def noted(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for row in rows:
            for name, marks in has.items():
                marks.append("0" if row.get(name) is None else "1")
            yield row

    rows = {"synthetic": _synthetic, "recordings": _recorded, "copied": _copied}[job["work"]](job)
    summary = shards.write_shard(out / job["path"], noted(rows), job["labels"], job["signals"])
    return {
        **summary,
        "path": job["path"],
        "has": {name: "".join(marks) for name, marks in has.items()},
    }


def _synthetic(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for item in job["items"]:
        subject = synthetic.subject(item["index"], job["seed"])
        numbers = {**subject.diseases, **(subject.phenotypes if subject.phenotyped else {})}
        image = cmr.prepare_frames(
            subject.cmr, spacing_mm=(synthetic_cmr.SPACING_MM, synthetic_cmr.SPACING_MM)
        )
        yield {
            "subject": item["subject"],
            "split": item["split"],
            "ecg": ecg.clean(subject.ecg).astype(np.float16),
            "cmr": image,
            **{name: float(getattr(subject, name)) for name in shards.DEMOGRAPHICS},
            **numbers,
        }


def _recorded(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for item in job["items"]:
        row = {
            "subject": item["subject"],
            "split": item["split"],
            **item["numbers"],
            **item["flags"],
        }
        for kind in job["signals"]:
            if item.get(kind):
                record = _read(kind, item[kind], job)
                row[kind] = SIGNALS[kind].prepare(record, job["options"]).array
        yield row


def _copied(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The rows of another cohort's shard whose numbers are listed."""
    row_numbers = set(job["items"])
    return (
        row for number, row in enumerate(shards.rows(Path(job["from"]))) if number in row_numbers
    )


def _read(kind: str, source: str, reading: Mapping[str, Any]) -> raw.EcgRecord | raw.CmrRecord:
    reader, _, path = source.partition(":")
    declaration = statements.of_json(reading["declared"])
    return raw.read(kind, reader, path, declaration, _segment(reading["network"]))


def _segment(job: Mapping[str, str]) -> Callable[[raw.CmrRecord], raw.CmrRecord] | None:
    """What segments stacks in this build; None without a network."""
    if not job:
        return None
    network = sax_network.of_identity(job["file"], job["identity"])
    return functools.partial(network.segmented, folder=Path(job["folder"]))


def _survey(job: dict[str, Any], out: Path) -> dict[str, Any]:
    """Judge recordings: what is known of each, or the step at which it failed and why."""
    return {
        "found": [
            dataclasses.asdict(_judge(job["kind"], source, job["options"], job))
            for source in job["sources"]
        ]
    }


def _judge(
    kind: str, source: str, options: Options, reading: Mapping[str, Any] = PLAIN
) -> linkage.SurveyedRecording:
    blank = linkage.SurveyedRecording(kind, source, raw.key(source.partition(":")[2]))
    try:
        record = _read(kind, source, reading)
    except Excluded as error:
        return dataclasses.replace(blank, step="readable", reason=str(error))
    identity = dataclasses.replace(
        blank, key=record.key, person=record.person, visit=record.visit, patient=record.patient
    )
    try:
        prepared_signal = SIGNALS[kind].prepare(record, options)
    except Excluded as error:
        return dataclasses.replace(identity, step="plausible", reason=str(error))
    demographics = {
        n: float(v) for n in shards.DEMOGRAPHICS if (v := getattr(record, n, None)) is not None
    }
    return dataclasses.replace(
        identity,
        digest=hashlib.sha256(prepared_signal.array.tobytes()).hexdigest(),
        numbers=record.labels | demographics,
        flags=prepared_signal.suspicions(),
        repairs=(*record.repairs, *prepared_signal.repairs),
    )
