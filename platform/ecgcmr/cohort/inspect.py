"""What a reader sees in a file, and what a cohort would do with it; nothing is written and nobody
is named.

The one idea: ask the registry. The first reader that a file suits and that can read it says the
format; `ecg` and `cmr` say the rest, by the very functions that build a cohort. Files are judged
one by one, so a repeat of another is not noticed.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ecgcmr import raw, tasks
from ecgcmr.errors import Excluded, InputError
from ecgcmr.raw import diagnoses, leftovers, search
from ecgcmr.raw.sax_network import Network
from ecgcmr.signals import HEART, SIGNALS, cmr, ecg, quality_flags

# Source -> the readers that may have it, as (kind, format), in the order of the registry.
Claims = dict[str, list[tuple[str, str]]]


@dataclass(frozen=True)
class InspectedRecording:
    """One recording as its reader sees it.

    Attributes:
        source: the file or folder, with `#n` where a file holds several.
        format: the reader's name; the formats that refused it where `error` says why.
        kind: the signal; "" if no reader could read it.
        error: why it cannot be read; "" if it can.
        facts: what it holds, in words, by name: leads, rate, length, amplitude … or slices, phases,
            spacing, timing …
        repairs: what the reader settled and what preparing it would change.
        flags: suspicions with which it would be kept, e.g. "lead reversal suspected: RA–LA".
        faults: what makes it unfit, worst first; a cohort would leave it out.
        picture: (12, 5000) mV before cleaning, or (3, 210, 210) uint8; None where it could not be
            brought to that form.
    """

    source: str
    format: str
    kind: str = ""
    error: str = ""
    facts: dict[str, str] = field(default_factory=dict)
    repairs: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    picture: np.ndarray | None = field(default=None, repr=False, compare=False)

    @property
    def kept(self) -> bool:
        """Whether a cohort would keep it."""
        return not self.error and not self.faults


def as_json(inspection: InspectedRecording) -> dict[str, Any]:
    """Plain JSON values: every field but the picture, and `kept`."""
    values = {
        f.name: getattr(inspection, f.name)
        for f in dataclasses.fields(inspection)
        if f.name != "picture"
    }
    return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()} | {
        "kept": inspection.kept
    }


def find(path: Path | str) -> Claims:
    """Every recording in a file or below a folder, sorted, with the readers that may have it by
    name and first bytes.

    Args:
        path: a file, a folder, or one recording of several in a file (`exams.hdf5#17`,
            `records.zip#a/rec.hea`).

    Raises:
        InputError: there is no such path, or no recording of a known format in it.
    """
    path, claims = Path(path), Claims()
    file = search.file_of(str(path))
    if not file.exists():
        raise InputError(f"{path}: no such file or folder")
    if file != path:
        claims = {source: readers for source, readers in find(file).items() if source == str(path)}
        if not claims:
            raise InputError(f"{path}: no such recording in {file.name}")
        return claims
    for kind, readers in raw.READERS.items():
        for name, reader in readers.items():
            if path.is_dir() or search.takes(reader, path):
                for source in _sources(reader, path):
                    claims.setdefault(source, []).append((kind, name))
    if not claims:
        names = (
            name
            for readers in raw.READERS.values()
            for name in readers
            if name not in raw.ASKED_FOR
        )
        format_names = ", ".join(dict.fromkeys(names))
        aside = left_aside(path, claims)
        there = f"{leftovers.words(aside) or leftovers.kind(path)}: "
        raise InputError(f"{path}: {there}no recording of a known format; known: {format_names}")
    return dict(sorted(claims.items()))


def left_aside(path: Path | str, claims: Claims) -> dict[str, int]:
    """Files below a path that are no part of a recording, counted by kind."""
    return leftovers.left_aside([Path(path)], claims)


def look(
    claims: Claims,
    declaration: raw.Declaration = raw.UNDECLARED,
    network: Network | None = None,
) -> Iterator[InspectedRecording]:
    """Look at what `find` found, also at what cannot be read; one recording is in memory at a time.

    A folder or an archive that is no recording is passed over where it holds some.

    Args:
        claims: of `find`.
        declaration: rate, unit and leads of ECGs that do not state them.
        network: segments stacks that have no segmentation.
    """
    for source, formats in claims.items():
        inspection = _read(source, formats, declaration, network)
        if not (
            inspection.error
            and any(claim.startswith((f"{source}/", f"{source}#")) for claim in claims)
        ):
            yield inspection


def _sources(reader: raw.Reader, path: Path) -> list[str]:
    """The reader's recordings under a path, less the files that do not look like its format."""
    try:
        sources = reader.find(str(path))
    except InputError:
        return []
    fits: dict[Path, bool] = {}
    for source in sources:
        file = search.file_of(source)
        if file not in fits:
            fits[file] = file.is_dir() or search.takes(reader, file)
    return [source for source in sources if fits[search.file_of(source)]]


def _read(
    source: str,
    formats: list[tuple[str, str]],
    declaration: raw.Declaration,
    network: Network | None,
) -> InspectedRecording:
    segment = network.segmented if network else None
    refusals: dict[str, list[str]] = {}
    for kind, name in formats:
        try:
            record = raw.read(kind, name, source, declaration, segment)
        except Excluded as error:
            refusals.setdefault(str(error), []).append(name)
        else:
            if isinstance(record, raw.EcgRecord):
                return _ecg(source, name, record)
            if isinstance(record, raw.CmrRecord):
                return _cmr(source, name, record)
            return _other(source, name, kind, record)
    words = [
        reason if len(refusals) == 1 else f"as {'/'.join(names)}: {reason}"
        for reason, names in refusals.items()
    ]
    return InspectedRecording(
        source, "/".join(dict.fromkeys(name for _, name in formats)), error="; ".join(words)
    )


def _ecg(source: str, name: str, record: raw.EcgRecord) -> InspectedRecording:
    facts = {
        "leads": f"{len(record.leads)}: {' '.join(record.leads)}",
        **_extent(record.signal, record.rate_hz),
        "person": _person(record),
        "labels": _labels(record.labels),
    }
    inspection = InspectedRecording(source, name, "ecg", facts=facts, repairs=record.repairs)
    try:
        settled_ecg = ecg.settle(record.signal, record.rate_hz, record.leads)
    except Excluded as error:
        return dataclasses.replace(inspection, faults=(str(error),))
    try:
        _, words = ecg.prepare_settled(settled_ecg, cleaned=record.cleaned)
    except Excluded as error:
        faults = tuple(ecg.quality(settled_ecg)) or (str(error),)
        return dataclasses.replace(inspection, faults=faults, picture=np.nan_to_num(settled_ecg))
    changes = ecg.repairs(record.signal.shape[1], record.rate_hz, record.leads)
    cleaning = () if record.cleaned else ("clipped and freed of its baseline",)
    return dataclasses.replace(
        inspection,
        repairs=(*record.repairs, *changes, *words, *cleaning),
        flags=_suspicions(settled_ecg),
        picture=np.nan_to_num(settled_ecg),
    )


def _extent(signal: np.ndarray, rate_hz: float) -> dict[str, str]:
    """Rate, length and size; a file may state no rate and hold no sample."""
    n, has_rate = signal.shape[1], np.isfinite(rate_hz) and rate_hz > 0
    values = signal[np.isfinite(signal)]
    beats = (
        f"beats of {ecg.amplitude(signal, rate_hz):.2f} mV, " if has_rate and values.size else ""
    )
    span = f"{values.min():.2f} to {values.max():.2f} mV" if values.size else "no samples"
    return {
        "rate": f"{rate_hz:g} Hz" if has_rate else "unknown",
        "length": (f"{n / rate_hz:.1f} s, " if has_rate else "") + f"{n:,} samples",
        "unit": f"mV; {beats}{span}",
    }


def _suspicions(settled_ecg: np.ndarray) -> tuple[str, ...]:
    exchange = quality_flags.reversal(np.nan_to_num(settled_ecg.astype(np.float64)))
    words = {
        "flag_paced": "paced",
        "flag_noisy": "noisy",
        "flag_lead_reversal": f"lead reversal suspected: {exchange}",
        "flag_flat": "no signal for a second or more",
    }
    return tuple(words[name] for name, value in quality_flags.flags(settled_ecg).items() if value)


def _person(record: raw.EcgRecord) -> str:
    sex = {0.0: "female", 1.0: "male"}.get(
        -1.0 if record.sex is None else record.sex, "sex unknown"
    )
    age = "age unknown" if record.age is None else f"{record.age:g} years"
    sizes = [(record.height, "height", "cm"), (record.weight, "weight", "kg")]
    return ", ".join(
        [age, sex, *(f"{value:g} {unit}" for value, _, unit in sizes if value is not None)]
    )


def _labels(labels: dict[str, float]) -> str:
    present = [
        f"{name} ({words})" if (words := diagnoses.name(name)) != name else name
        for name, v in labels.items()
        if v
    ]
    return (
        f"{len(labels)} known, present: {', '.join(present) or 'none'}"
        if labels
        else "none in the file"
    )


def _cmr(source: str, name: str, record: raw.CmrRecord) -> InspectedRecording:
    slices, phases, height, width = record.frames.shape
    apart, rows, columns = record.spacing_mm
    times = record.trigger_ms
    timing = (
        "times unknown"
        if times is None
        else f"{times[0]:.0f} to {times[-1]:.0f} ms after the R wave"
    )
    facts = {
        "stack": f"{slices} slices, {apart:g} mm apart",
        "cycle": f"{phases} phases, {timing}",
        "pixels": f"{height} × {width}, {rows:g} × {columns:g} mm",
    }
    inspection = InspectedRecording(source, name, "cmr", facts=facts, repairs=record.repairs)
    try:
        selection = cmr.phases(record)
        image, words = cmr.prepare(record)
    except Excluded as error:
        return dataclasses.replace(inspection, faults=(str(error),))
    facts["taken"] = (
        f"slice {selection.slice} of 0 to {slices - 1}; phases ES {selection.es}, mid "
        f"{selection.mid}, ED {selection.ed}"
    )
    if record.labels:
        facts["volumes"] = _volumes(record)
    return dataclasses.replace(
        inspection,
        facts=facts,
        repairs=(*record.repairs, *words, "cropped to the heart, scaled"),
        picture=image,
    )


def _volumes(record: raw.CmrRecord) -> str:
    sizes = [
        f"{name} {record.labels[name]:.1f} {tasks.UNITS[name]}"
        for name in ("LVEDV", "LVESV", "LVEF", "LVM", "RVEDV", "RVESV", "RVEF")
        if name in record.labels
    ]
    return f"{', '.join(sizes)}, from the {record.masks_from}"


def _other(source: str, name: str, kind: str, record: Any) -> InspectedRecording:
    """A signal of a plugin, of which only its entry knows more."""
    inspection = InspectedRecording(source, name, kind, repairs=record.repairs)
    try:
        prepared_signal = SIGNALS[kind].prepare(record, HEART)
    except Excluded as error:
        return dataclasses.replace(inspection, faults=(str(error),))
    repairs = (*record.repairs, *prepared_signal.repairs)
    return dataclasses.replace(inspection, repairs=repairs, picture=prepared_signal.array)
