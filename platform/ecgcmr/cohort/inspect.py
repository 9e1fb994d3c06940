"""What a reader sees in a file, and what a cohort would do with it; nothing is written and nobody is named.

The one idea: ask the registry. The first reader that a file suits and that can read it says the format; `ecg` and `cmr` say
the rest, by the very functions that build a cohort. Files are judged one by one, so a repeat of another is not noticed.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ecgcmr import raw
from ecgcmr.errors import Excluded, InputError
from ecgcmr.raw import diagnoses, search
from ecgcmr.signals import HEART, SIGNALS, cmr, ecg, quality_flags

# Source -> the readers that may have it, as (kind, format), in the order of the registry.
Claims = dict[str, list[tuple[str, str]]]


@dataclass(frozen=True)
class Seen:
    """One recording as its reader sees it.

    Attributes:
        source: the file or folder, with `#n` where a file holds several.
        format: the reader's name; the formats that refused it where `error` says why.
        kind: the signal; "" if no reader could read it.
        error: why it cannot be read; "" if it can.
        facts: what it holds, in words, by name: leads, rate, length, amplitude … or slices, phases, spacing, timing …
        repairs: what the reader settled and what preparing it would change.
        flags: suspicions with which it would be kept, e.g. "lead reversal suspected: RA–LA".
        faults: what makes it unfit, worst first; a cohort would leave it out.
        picture: (12, 5000) mV before cleaning, or (3, 210, 210) uint8; None where it could not be brought to that form.
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


def as_json(seen: Seen) -> dict[str, Any]:
    """Plain JSON values: every field but the picture, and `kept`."""
    values = {
        f.name: getattr(seen, f.name) for f in dataclasses.fields(seen) if f.name != "picture"
    }
    return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()} | {
        "kept": seen.kept
    }


def find(path: Path | str) -> Claims:
    """Every recording in a file or below a folder, sorted, with the readers that may have it by name and first bytes.

    Args:
        path: a file, a folder, or one recording of several in a file (`exams.hdf5#17`, `records.zip#a/rec.hea`).

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
                for source in _found(reader, path):
                    claims.setdefault(source, []).append((kind, name))
    if not claims:
        names = (
            name
            for readers in raw.READERS.values()
            for name in readers
            if name not in raw.ASKED_FOR
        )
        known = ", ".join(dict.fromkeys(names))
        raise InputError(f"{path}: no recording of a known format; known: {known}")
    return dict(sorted(claims.items()))


def look(claims: Claims) -> Iterator[Seen]:
    """Look at what `find` found, also at what cannot be read; one recording is in memory at a time.

    A folder or an archive that is no recording is passed over where it holds some.
    """
    for source, formats in claims.items():
        seen = _read(source, formats)
        if not (
            seen.error and any(other.startswith((f"{source}/", f"{source}#")) for other in claims)
        ):
            yield seen


def _found(reader: raw.Reader, path: Path) -> list[str]:
    """The reader's recordings under a path, less the files that do not look like its format."""
    try:
        found = reader.find(str(path))
    except InputError:
        return []
    fits: dict[Path, bool] = {}
    for source in found:
        file = search.file_of(source)
        if file not in fits:
            fits[file] = file.is_dir() or search.takes(reader, file)
    return [source for source in found if fits[search.file_of(source)]]


def _read(source: str, formats: list[tuple[str, str]]) -> Seen:
    refused: dict[str, list[str]] = {}
    for kind, name in formats:
        try:
            record = raw.READERS[kind][name].read(source)
        except Excluded as error:
            refused.setdefault(str(error), []).append(name)
        else:
            if isinstance(record, raw.EcgRecord):
                return _ecg(source, name, record)
            if isinstance(record, raw.CmrRecord):
                return _cmr(source, name, record)
            return _other(source, name, kind, record)
    words = [
        reason if len(refused) == 1 else f"as {'/'.join(names)}: {reason}"
        for reason, names in refused.items()
    ]
    return Seen(
        source, "/".join(dict.fromkeys(name for _, name in formats)), error="; ".join(words)
    )


def _ecg(source: str, name: str, record: raw.EcgRecord) -> Seen:
    facts = {
        "leads": f"{len(record.leads)}: {' '.join(record.leads)}",
        **_extent(record.signal, record.rate_hz),
        "person": _person(record),
        "labels": _labels(record.labels),
    }
    seen = Seen(source, name, "ecg", facts=facts, repairs=record.repairs)
    try:
        settled = ecg.settle(record.signal, record.rate_hz, record.leads)
    except Excluded as error:
        return dataclasses.replace(seen, faults=(str(error),))
    faults = tuple(ecg.quality(settled))
    if faults:
        return dataclasses.replace(seen, faults=faults, picture=np.nan_to_num(settled))
    changes = ecg.repairs(record.signal.shape[1], record.rate_hz, record.leads)
    _, words = ecg.prepare_settled(settled, cleaned=record.cleaned)
    cleaning = () if record.cleaned else ("clipped and freed of its baseline",)
    return dataclasses.replace(
        seen,
        repairs=(*record.repairs, *changes, *words, *cleaning),
        flags=_suspicions(settled),
        picture=np.nan_to_num(settled),
    )


def _extent(signal: np.ndarray, rate_hz: float) -> dict[str, str]:
    """Rate, length and size; a file may state no rate and hold no sample."""
    n, known = signal.shape[1], np.isfinite(rate_hz) and rate_hz > 0
    values = signal[np.isfinite(signal)]
    beats = f"beats of {ecg.amplitude(signal, rate_hz):.2f} mV, " if known and values.size else ""
    span = f"{values.min():.2f} to {values.max():.2f} mV" if values.size else "no samples"
    return {
        "rate": f"{rate_hz:g} Hz" if known else "unknown",
        "length": (f"{n / rate_hz:.1f} s, " if known else "") + f"{n:,} samples",
        "unit": f"mV; {beats}{span}",
    }


def _suspicions(settled: np.ndarray) -> tuple[str, ...]:
    exchange = quality_flags.reversal(np.nan_to_num(settled.astype(np.float64)))
    words = {
        "flag_paced": "paced",
        "flag_noisy": "noisy",
        "flag_lead_reversal": f"lead reversal suspected: {exchange}",
    }
    return tuple(words[name] for name, value in quality_flags.flags(settled).items() if value)


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


def _cmr(source: str, name: str, record: raw.CmrRecord) -> Seen:
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
    seen = Seen(source, name, "cmr", facts=facts, repairs=record.repairs)
    try:
        chosen = cmr.phases(record)
        image, words = cmr.prepare(record)
    except Excluded as error:
        return dataclasses.replace(seen, faults=(str(error),))
    facts["taken"] = (
        f"slice {chosen.slice} of 0 to {slices - 1}; phases ES {chosen.es}, mid {chosen.mid}, ED {chosen.ed}"
    )
    return dataclasses.replace(
        seen,
        facts=facts,
        repairs=(*record.repairs, *words, "cropped to the heart, scaled"),
        picture=image,
    )


def _other(source: str, name: str, kind: str, record: Any) -> Seen:
    """A signal of a plugin, of which only its entry knows more."""
    seen = Seen(source, name, kind, repairs=record.repairs)
    try:
        prepared = SIGNALS[kind].prepare(record, HEART)
    except Excluded as error:
        return dataclasses.replace(seen, faults=(str(error),))
    repairs = (*record.repairs, *prepared.repairs)
    return dataclasses.replace(seen, repairs=repairs, picture=prepared.array)
