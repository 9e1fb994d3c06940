"""WFDB recordings (header and signal files, also with MATLAB v4 payloads): PTB-XL, PTB, CinC,
Chapman, MIMIC-IV-ECG.

One idea: headers lie, so what they say is checked against the samples: their checksums, and the
gain against the step of the converter, which the samples show. What is certain is repaired and
said, the rest is refused with a reason. The library puts defaults (250 Hz, 200 counts per mV) where
a header states nothing; so rate, gain and unit are read from the header's own text. Age, sex and
diagnoses are read from a header's comments; everything else in them stays there.

Source: header(5) and signal(5) of the WFDB Applications Guide.
"""

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import wfdb

from ecgcmr.errors import Excluded, InputError
from ecgcmr.raw import archive, diagnoses, records, wfdb_segments
from ecgcmr.raw.records import FILE_LIMIT, EcgRecord
from ecgcmr.raw.statements import UNDECLARED, Declaration
from ecgcmr.signals import ecg

MICROVOLT = 1000.0  # counts per mV of a file in µV
# Of each format: so many samples are held by so many bytes (of a compressed one only the library
# knows), and the bits of which the lowest number marks a missing sample.
FORMATS = {
    "8": (1, 1, 32),
    "16": (1, 2, 16),
    "24": (1, 3, 24),
    "32": (1, 4, 32),
    "61": (1, 2, 16),
    "80": (1, 1, 8),
    "160": (1, 2, 16),
    "212": (2, 3, 12),
    "310": (3, 4, 10),
    "311": (3, 4, 10),
    "508": (1, 0, 8),
    "516": (1, 0, 16),
    "524": (1, 0, 24),
}
UNIT_ABSENT = "unit absent in the header: mV, as WFDB's standard says"
JOINED = "segments joined"
GAP = "gap between segments: samples missing"
FRAMES = "leads of several rates averaged to that of the header"
# µV; below, a file of doubled or tripled counts with an honest gain would look the same.
STEPS = (4.0, 20.0)
CONVERTERS = (4.88, 4.8828125)  # µV, whose gains are written with two to five digits
TYPICAL_MV = 0.9  # median of `ecg.amplitude` over the 224 CinC recordings
FRANK = ("vx", "vy", "vz")
_HEADER_LIMIT = 1 << 20


def find(path: str) -> list[str]:
    """List the headers under a folder or in a zip archive, or the one named with or without `.hea`,
    or by its signals.

    Where PTB-XL's two rates of one recording are both there, only `_hr` (500 Hz) is listed. Of a
    multi-segment record the segments are not.

    Raises:
        InputError: the path does not exist or holds no header.
    """
    root = Path(path)
    if root.is_dir() or archive.is_archive(root):
        headers = archive.find(root, (".hea",))
        full_rate = {
            Path(header).stem.removesuffix("_hr")
            for header in headers
            if header.endswith("_hr.hea")
        }
        headers = [
            header
            for header in headers
            if not header.endswith("_lr.hea")
            or Path(header).stem.removesuffix("_lr") not in full_rate
        ]
        segments = {segment for header in headers for segment in parts(header)}
        headers = [header for header in headers if header not in segments]
        if not headers:
            raise InputError(
                f"{path}: no WFDB header (*.hea) here; "
                "name the folder or the archive that holds the recordings"
            )
        return headers
    header = _header(root) or root.with_name(root.name + ".hea")
    if not header.is_file():
        raise InputError(f"{path}: no such WFDB header or folder")
    return [str(header)]


def parts(source: str) -> set[str]:
    """The headers of a multi-segment record's segments and of its layout, as sources; none of
    another record.
    """
    try:
        if wfdb_segments.has_own_signals(source):
            return set()
        with archive.opened(source) as header:
            names = wfdb_segments.names(_content(_text(header)))
    except Excluded:
        return set()
    return {part for part in (wfdb_segments.header(source, name) for name in names) if part}


def suits(file: Path, head: bytes) -> bool:
    """Whether a file is named as a WFDB header, or as a signal file whose header lies beside it."""
    header = _header(file)
    return header is not None and header.is_file()


def _header(file: Path) -> Path | None:
    """The header that a file is, or that a file with a signal file's name would have."""
    suffix = file.suffix.lower()
    if suffix == ".hea":
        return file
    return file.with_suffix(".hea") if suffix in (".dat", ".mat") else None


def read(source: str, declaration: Declaration = UNDECLARED) -> EcgRecord:
    """Read one recording in millivolts.

    Args:
        source: path of the header, or `archive.zip#member`.
        declaration: what its user says of it.

    Raises:
        Excluded: it cannot be read, disagrees with its checksums, has another unit, its gain is in
            doubt, or its segments do not make one recording.
    """
    with archive.opened(source) as header:
        text = _text(header)
        person = _person(header)
        segments = wfdb_segments.stated(_content(text))
        if segments is None:
            part = _part(header, text, declaration)
        else:
            part = _joined(source, text, segments, declaration)
    rows, repairs = part.rows, part.repairs
    if not rows:
        raise Excluded("no standard lead")
    declaration.check_names([row.name for row in rows if row.name != "other"])
    rate_hz = declaration.rate(part.rate_hz)
    if len({row.per_frame for row in rows}) == 1:
        rate_hz *= rows[0].per_frame
    else:
        rows = [row.averaged() for row in rows]
        repairs = (*repairs, FRAMES)
    scale, repair = _gain_repair(rows, rate_hz)
    notes = (UNIT_ABSENT,) if not declaration.unit and not all(row.unit for row in rows) else ()
    return EcgRecord(
        key=header.stem,
        signal=(np.stack([row.millivolts for row in rows]) * scale).astype(np.float32),
        rate_hz=rate_hz,
        leads=tuple(row.name for row in rows),
        repairs=(*repairs, *repair, *notes),
        **_subject(source, header.stem, person, part.comments),
    )


@dataclass(frozen=True, eq=False)
class Row:
    """One signal of a record.

    Attributes:
        name: as the file spells it if it is a lead's, else "other": other words may be anybody's
            and stay in the file.
        unit: as the header states it; "" where it does not.
        gain: counts per mV.
        per_frame: samples of one frame.
        counts: (n,) float64, without their baseline; NaN where a sample is missing.
    """

    name: str
    unit: str
    gain: float
    per_frame: int
    counts: np.ndarray

    @property
    def millivolts(self) -> np.ndarray:
        """(n,) mV."""
        return self.counts / self.gain

    def averaged(self) -> "Row":
        """One sample for each frame."""
        counts = self.counts.reshape(-1, self.per_frame).mean(1)
        return Row(self.name, self.unit, self.gain, 1, counts)


@dataclass(frozen=True, eq=False)
class Part:
    """What a header and its signal files hold: a record, or a segment of one.

    Attributes:
        rows: the leads, and other voltages of their rate; empty where there is no lead.
        repairs: in words.
        rate_hz: frames per second as the header states them; None where it does not.
        comments: of the header.
    """

    rows: list[Row]
    repairs: tuple[str, ...]
    rate_hz: float | None
    comments: list[str]


def _part(header: Path, text: str, declaration: Declaration) -> Part:
    record, repairs = _open(header, text)
    rows = _leads(record, _signals(text), declaration)
    return Part(rows, repairs, _rate(text), _comments(text))


def _joined(
    source: str,
    text: str,
    segments: Sequence[wfdb_segments.Segment],
    declaration: Declaration,
) -> Part:
    """The segments of a record behind each other; where one lacks a lead its samples are missing.

    Raises:
        Excluded: a segment is absent, cannot be read, has another length than stated, or they have
            several rates.
    """
    names = [segment.name for segment in segments if segment.name != wfdb_segments.GAP]
    parts = {name: _segment(source, name, declaration) for name in names}
    rates = {part.rate_hz for part in parts.values()} | {_rate(text)}
    if len(rates - {None}) > 1:
        raise Excluded("segments of several sampling rates")
    leads = {name: _by_lead(part.rows) for name, part in parts.items()}
    if len({row.per_frame for rows in leads.values() for row in rows.values()}) > 1:
        raise Excluded("segments of several sampling rates")
    for segment in segments:
        for row in leads.get(segment.name, {}).values():
            if len(row.counts) != segment.frames * row.per_frame:
                raise Excluded("number of samples differs from the stated")
    rows = [
        _in_line(lead, [(segment.frames, leads.get(segment.name, {})) for segment in segments])
        for lead in dict.fromkeys(lead for rows in leads.values() for lead in rows)
    ]
    words = dict.fromkeys(word for part in parts.values() for word in part.repairs)
    gaps = (GAP,) if len(names) < len(segments) else ()
    comments = [line for part in parts.values() for line in part.comments]
    rate_hz = next(iter(rates - {None}), None)
    return Part(rows, (*words, JOINED, *gaps), rate_hz, [*_comments(text), *comments])


def _segment(source: str, name: str, declaration: Declaration) -> Part:
    place = wfdb_segments.header(source, name)
    if place is None:
        raise Excluded("segment absent")
    with archive.opened(place) as header:
        return _part(header, _text(header), declaration)


def _by_lead(rows: Sequence[Row]) -> dict[str, Row]:
    leads: dict[str, Row] = {}
    for row in rows:
        lead = ecg.lead_name(row.name)
        if lead in leads:
            raise Excluded("two leads of one name")
        if lead:
            leads[lead] = row
    return leads


def _in_line(lead: str, parts: Sequence[tuple[int, dict[str, Row]]]) -> Row:
    """One lead of all segments, (frames, rows) each, in counts of the first that has it."""
    rows = [leads[lead] for _, leads in parts if lead in leads]
    first = rows[0]
    counts = [
        leads[lead].counts * (first.gain / leads[lead].gain)
        if lead in leads
        else np.full(frames * first.per_frame, np.nan)
        for frames, leads in parts
    ]
    unit = first.unit if all(row.unit for row in rows) else ""
    return Row(first.name, unit, first.gain, first.per_frame, np.concatenate(counts))


def _leads(
    record: wfdb.Record, signals: Sequence["SignalLine"], declaration: Declaration
) -> list[Row]:
    """The signals that are leads, and others that are voltages of the same rate; a pressure beside
    them is no fault.

    Raises:
        Excluded: unit or gain of a lead are unknown.
    """
    rows: list[Row] = []
    for i, signal in enumerate(signals):
        name = record.sig_name[i] or ""
        is_lead = bool(ecg.lead_name(name))
        is_known = is_lead or name.lower() in FRANK
        try:
            factor = _to_mv(signal.unit, declaration)
            gain = _gain(signal.gain) / factor
        except Excluded:
            if is_lead:
                raise
            continue
        counts = _counts(record, i)
        per_frame = record.samps_per_frame[i] or 1
        rows.append(Row(name if is_known else "other", signal.unit, gain, per_frame, counts))
    leads = [row for row in rows if ecg.lead_name(row.name)]
    rates = {row.per_frame for row in leads}
    return [row for row in rows if row in leads or {row.per_frame} == rates]


def _counts(record: wfdb.Record, i: int) -> np.ndarray:
    """One signal's samples without their baseline, moved by its skew."""
    samples = record.e_d_signal[i]
    counts = samples.astype(np.float64) - record.baseline[i]
    lowest = -(2 ** (FORMATS[record.fmt[i]][2] - 1))
    counts[samples == lowest] = np.nan
    skew = (record.skew[i] or 0) * (record.samps_per_frame[i] or 1)
    return np.concatenate([counts[skew:], np.full(min(skew, len(counts)), np.nan)])


def _comments(text: str) -> list[str]:
    """The comments as they are written; the library drops what is not ASCII."""
    return [line[1:] for line in text.splitlines() if line.startswith("#")]


def _text(header: Path) -> str:
    try:
        with header.open("rb") as stream:
            return stream.read(_HEADER_LIMIT).decode("utf-8", errors="replace")
    except OSError:
        raise Excluded("unreadable WFDB record") from None


def _open(header: Path, text: str) -> tuple[wfdb.Record, tuple[str, ...]]:
    """Open through `wfdb`, every sample as it is stored.

    A header that it refuses for the record's name is put right in a temporary folder.
    """
    try:
        corrected_text = _mend(text, header.stem)
        files = [header.parent / name for name in _signal_files(corrected_text)]
        _check_files(header.parent, corrected_text)
        if corrected_text == text:
            return _stored(header), ()
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, header.name).write_text(corrected_text, encoding="utf-8")
            for file in files:
                Path(folder, file.name).symlink_to(file.resolve())
            return _stored(Path(folder, header.name)), ("record name in the header put right",)
    except Excluded:
        raise
    except Exception as error:  # of wfdb's parsing: IndexError, ValueError, struct.error …
        raise Excluded("unreadable WFDB record") from error


def _stored(header: Path) -> wfdb.Record:
    """The record as it is stored: checksums are of samples before skew and smoothing."""
    path = str(header.with_suffix(""))
    frames = wfdb.rdheader(path).samps_per_frame or [1]
    is_plain = set(frames) <= {1, None}  # the library cannot keep format 61 apart from smoothing
    record = wfdb.rdrecord(path, physical=False, smooth_frames=is_plain, ignore_skew=True)
    if is_plain and record.d_signal is not None:
        record.e_d_signal = list(record.d_signal.T)
    return _checked(record)


def _check_files(folder: Path, text: str) -> None:
    """Refuse signal files that are absent, too large or shorter than the header says.

    Raises:
        Excluded: one is.
    """
    names = _signal_files(text)
    if not all((folder / name).is_file() for name in names):
        raise Excluded("signal file absent")
    sizes = {name: (folder / name).stat().st_size for name in names}
    if sum(sizes.values()) > FILE_LIMIT:
        raise Excluded("file too large")
    frames = _frames(text)
    signals = _signals(text)
    for name, size in sizes.items():
        lines = [signal for signal in signals if signal.file == name]
        formats = {signal.format for signal in lines}
        if not formats <= {*FORMATS}:
            raise Excluded("unknown format of a signal file")
        if len(formats) > 1:  # one file is read in one format, whatever a lead states
            raise Excluded("several formats in one signal file")
        samples = frames * sum(signal.per_frame for signal in lines)
        count, n_bytes, _ = FORMATS[formats.pop()]
        if size < lines[0].offset + samples // count * n_bytes:
            raise Excluded("signal file truncated: fewer samples than the header states")


def _mend(text: str, stem: str) -> str:
    """The header with a record line that names a file (`E00001.mat 12 500 …`) naming the record
    instead.
    """
    lines = text.splitlines(keepends=True)
    first = next((i for i, line in enumerate(lines) if _is_content(line)), None)
    if first is None:
        raise Excluded("unreadable WFDB record")
    name, *fields = lines[first].split()
    if "/" in name:
        raise Excluded("segment that has segments")
    # wfdb would make room for as many signals as stated
    if fields[:1] != [str(sum(map(_is_content, lines)) - 1)]:
        raise Excluded("unreadable WFDB record")
    _rate(text)
    if len(fields) > 2 and not fields[2].isdecimal():
        raise Excluded("unreadable WFDB record")
    if "." in name:
        lines[first] = lines[first].replace(name, re.sub(r"[^-\w]", "_", stem), 1)
    for file in _signal_files(text):
        if Path(file).name != file or ":" in file:
            raise Excluded("header names a file outside its folder")
    return "".join(lines)


def _content(text: str) -> list[str]:
    return [line for line in text.splitlines() if _is_content(line)]


def _is_content(line: str) -> bool:
    """Whether a header's line is neither blank nor a comment."""
    return bool(line.strip()) and not line.startswith("#")


def _signal_files(text: str) -> list[str]:
    return sorted({line.split()[0] for line in _content(text)[1:]})


@dataclass(frozen=True)
class SignalLine:
    """What a signal's line of a header states; "" for a gain and a unit that it does not."""

    file: str
    format: str
    per_frame: int
    offset: int
    gain: str
    unit: str


def _signals(text: str) -> list[SignalLine]:
    """The signals' lines: `file format[xsamples][:skew][+offset] gain[(baseline)][/unit] …`.

    Raises:
        Excluded: one is none.
    """
    signals: list[SignalLine] = []
    for line in _content(text)[1:]:
        file, form, gain = (*line.split(), "", "", "")[:3]
        match = re.fullmatch(r"(\d+)(?:x(\d+))?(?::\d+)?(?:\+(\d+))?", form)
        if not match:
            raise Excluded("unreadable WFDB record")
        value, _, unit = gain.partition("/")
        number = re.fullmatch(r"(-?[\d.]+(?:e[+-]?\d+)?)(?:\(-?\d+\))?", value)
        numbers = (int(match[2] or 1), int(match[3] or 0))
        signals.append(SignalLine(file, match[1], *numbers, number[1] if number else "", unit))
    return signals


def _fields(text: str) -> list[str]:
    """The record's line: name, number of signals, rate, number of frames …"""
    return next((line.split() for line in _content(text)), [])


def _rate(text: str) -> float | None:
    """Frames per second as the header states them; None where it does not, or states 0.

    Raises:
        Excluded: it states no number.
    """
    field = (*_fields(text), "", "", "")[2]
    # a frequency of a counter may follow
    match = re.fullmatch(r"(\d+(?:\.\d*)?)(?:[/(].*)?", field)
    if field and not match:
        raise Excluded("sampling rate unknown")
    return float(match[1]) or None if match else None


def _frames(text: str) -> int:
    field = (*_fields(text), "", "", "", "")[3]
    return int(field) if field.isdecimal() else 0


def _checked(record: wfdb.Record) -> wfdb.Record:
    if record.e_d_signal is None or not record.sig_len or not record.n_sig:
        raise Excluded("no samples")
    sums = [int(np.sum(row, dtype=np.int64)) for row in record.e_d_signal]
    for stated_sum, actual_sum in zip(record.checksum or [], sums):
        if stated_sum is not None and (stated_sum - actual_sum) % 65536:
            raise Excluded("samples differ from the header's checksum")
    return record


def _gain(word: str) -> float:
    """Counts per unit: 0 and blank say that a signal is not calibrated.

    Raises:
        Excluded: it is so, or below 0, which would stand the ECG on its head.
    """
    gain = diagnoses.number(word)
    if not gain or gain <= 0:
        raise Excluded("gain unknown")
    return gain


def _to_mv(unit: str, declaration: Declaration) -> float:
    """One of a unit in mV; an absent one is mV by the standard, unless its user says otherwise."""
    return declaration.millivolts(unit) if unit or declaration.unit else 1.0


def _gain_repair(rows: Sequence[Row], rate_hz: float) -> tuple[float, tuple[str, ...]]:
    """The factor that the physical signal needs, and the repair in words.

    (1, ()) for a gain that stands.
    """
    leads = [row for row in rows if ecg.lead_name(row.name)]
    gains = {row.gain for row in leads}
    if len(gains) != 1:
        return 1.0, ()
    stated_gain = gains.pop()
    actual_gain = true_gain(np.stack([row.counts for row in leads]), stated_gain, rate_hz)
    if actual_gain == stated_gain:
        return 1.0, ()
    words = f"gain {stated_gain:g}/mV in the header, {actual_gain:g} in the samples"
    return stated_gain / actual_gain, (words,)


def true_gain(counts: np.ndarray, stated_gain: float, rate_hz: float) -> float:
    """Find the gain from the samples: the stated one, or 1000/mV (whole microvolts) where that is
    certain.

    A converter with a step of s µV leaves multiples of s in samples that were stored as whole
    microvolts. Two kinds of header state the converter instead of the file: PTB-XL's early ones
    1000/s (200 for 5 µV), Georgia's 1000·s (4880 for 4.88 µV). So a stated gain G names a step, s =
    max(G/1000, 1000/G), and if the samples fall on multiples of that s twice as often as by chance
    or more, they are microvolts. The beat's amplitude must agree: nearer to 0.9 mV so than as
    stated. Without such steps only a factor of 1000 (a unit) is certain, where it alone gives a
    human amplitude.

    Args:
        counts: (leads, samples), converter counts without their baseline.
        stated_gain: counts per mV in the header.
        rate_hz: samples per second.

    Returns:
        Counts per mV.

    Raises:
        Excluded: the steps speak against the stated gain, the amplitude for it, and both are
            possible.
    """
    height = ecg.amplitude(counts, rate_hz)
    if not height or not np.isfinite(stated_gain) or stated_gain <= 0:
        return stated_gain
    low, high = ecg.AMPLITUDE_MV
    step = max(stated_gain / MICROVOLT, MICROVOLT / stated_gain)
    near = [step, *(width for width in CONVERTERS if abs(width - step) < 0.01 * step)]
    share = max(_share_on_steps(counts, candidate) for candidate in near)
    if STEPS[0] <= step <= STEPS[1] and share >= 2 / step:
        if abs(np.log(height / MICROVOLT / TYPICAL_MV)) < abs(
            np.log(height / stated_gain / TYPICAL_MV)
        ):
            return MICROVOLT
        if low <= height / MICROVOLT <= high:
            raise Excluded("gain in doubt")
    if not low <= height / stated_gain <= high:
        fitting = [
            gain
            for gain in (stated_gain / 1000, stated_gain * 1000)
            if low <= height / gain <= high
        ]
        return fitting[0] if len(fitting) == 1 else stated_gain
    return stated_gain


def _share_on_steps(counts: np.ndarray, step: float) -> float:
    """The share of samples that are multiples of `step` cut or rounded to whole numbers.

    Median over the live leads.
    """
    size = np.abs(counts[np.ptp(counts, axis=1) > 0])
    if not size.size:
        return 0.0
    is_cut = np.floor(np.ceil(size / step - 1e-9) * step + 1e-9) == size
    is_rounded = np.round(np.round(size / step) * step) == size
    return float(max(np.median(is_cut.mean(1)), np.median(is_rounded.mean(1))))


def _subject(source: str, key: str, person: str | None, comments: list[str]) -> dict:
    """Age, sex, labels and person, from PTB-XL's table where the recording is in it, else from the
    header's comments.
    """
    table = archive.beside(source, "ptbxl_database.csv", folders=3)
    annotation = _annotations(table).get(key) if table else None
    if annotation:
        names = ("age", "sex", "height", "weight", "labels", "person")
        return {name: getattr(annotation, name) for name in names}
    diagnosis = re.search(r"(?im)^\s*dx\s*:[ \t]*(.*?)\s*$", "\n".join(comments))
    return {
        "age": records.only(map(records.years, _said("age", comments))),
        "sex": records.only(map(records.sex, _said("sex|gender", comments))),
        "height": None,
        "weight": None,
        "labels": diagnoses.snomed(diagnosis[1] if diagnosis else ""),
        "person": person,
    }


def _said(name: str, comments: Sequence[str]) -> list[str]:
    """What comments say under a name: `Age: 65`, and several in a line as INCART and LUDB write
    them, `<age>: 65 <sex>: F <diagnoses> …`.
    """
    mark = r"\s*>?\s*[:=]"
    begins = re.compile(rf"(?i)[#<\s]*(?:age|sex|gender){mark}")
    end = rf"\s*(?=[<,;|]|\b(?:age|sex|gender){mark}|$)"
    field = rf"(?i)\b(?:{name}){mark}\s*([^<,;|]*?){end}"
    lines = [line for line in comments if begins.match(line)]
    return [word for line in lines for word in re.findall(field, line)]


def _person(header: Path) -> str | None:
    """The folder of the person in PTB (`patient001/`) and MIMIC-IV-ECG (`p10001725/`), which hold
    several visits.
    """
    folders = [part for part in header.parent.parts if re.fullmatch(r"patient\d+|p\d{6,}", part)]
    return folders[-1] if folders else None


@lru_cache(maxsize=4)
def _annotations(table: str) -> dict[str, diagnoses.Annotation]:
    """PTB-XL's table, which lies up to three folders above its recordings."""
    with archive.opened(table) as file:
        return diagnoses.ptbxl(str(file))
