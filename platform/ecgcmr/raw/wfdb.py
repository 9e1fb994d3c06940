"""WFDB recordings (header and signal files, also with MATLAB v4 payloads): PTB-XL, PTB, CinC,
Chapman, MIMIC-IV-ECG.

One idea: headers lie, so what they say is checked against the samples: their checksums, and the
gain against the step of the converter, which the samples show. What is certain is repaired and
said, the rest is refused with a reason. Age, sex and diagnoses are read from a header's comments;
everything else in them stays there.
"""

import re
import tempfile
from functools import lru_cache
from pathlib import Path

import numpy as np
import wfdb

from ecgcmr.errors import Excluded, InputError
from ecgcmr.raw import archive, diagnoses
from ecgcmr.raw.records import FILE_LIMIT, EcgRecord
from ecgcmr.signals import ecg

MICROVOLT = 1000.0  # counts per mV of a file in µV
TO_MV = {"mv": 1.0, "uv": 1e-3, "µv": 1e-3, "μv": 1e-3, "v": 1e3, "nv": 1e-6}
# µV; below, a file of doubled or tripled counts with an honest gain would look the same.
STEPS = (4.0, 20.0)
TYPICAL_MV = 0.9  # median of `ecg.amplitude` over the 224 CinC recordings
FRANK = ("vx", "vy", "vz")
_HEADER_LIMIT = 1 << 20


def find(path: str) -> list[str]:
    """List the headers under a folder or in a zip archive, or the one named with or without `.hea`,
    or by its signals.

    Where PTB-XL's two rates of one recording are both there, only `_hr` (500 Hz) is listed.

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


def read(source: str) -> EcgRecord:
    """Read one recording in millivolts.

    Args:
        source: path of the header, or `archive.zip#member`.

    Raises:
        Excluded: it cannot be read, disagrees with its checksums, has another unit, or its gain is
            in doubt.
    """
    with archive.opened(source) as header:
        record, repairs = _open(header)
        person = _person(header)
    # format 16 and others mark a missing sample with the lowest value; `dac` turns it into NaN
    factors = np.array([_to_mv(unit) for unit in record.units])
    signal = record.dac(return_res=64).T * factors[:, None]
    scale, repair = _gain_repair(record)
    return EcgRecord(
        key=header.stem,
        signal=(signal * scale).astype(np.float32),
        rate_hz=float(record.fs),
        leads=tuple(_lead(name) for name in record.sig_name),
        repairs=(*repairs, *repair),
        **_subject(source, header.stem, person, record.comments),
    )


def _lead(name: str | None) -> str:
    """The name as the file spells it if it is a lead's.

    Other words may be anybody's and stay in the file.
    """
    return name if name and (ecg.lead_name(name) or name.lower() in FRANK) else "other"


def _open(header: Path) -> tuple[wfdb.Record, tuple[str, ...]]:
    """Open through `wfdb`.

    A header that it refuses for the record's name is put right in a temporary folder.
    """
    try:
        with header.open("rb") as stream:
            text = stream.read(_HEADER_LIMIT).decode("utf-8", errors="replace")
        corrected_text = _mend(text, header.stem)
        files = [header.parent / name for name in _signal_files(corrected_text)]
        if sum(file.stat().st_size for file in files) > FILE_LIMIT:
            raise Excluded("file too large")
        if corrected_text == text:
            record = wfdb.rdrecord(str(header.with_suffix("")), physical=False)
            return _checked(record), ()
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, header.name).write_text(corrected_text, encoding="utf-8")
            for file in files:
                Path(folder, file.name).symlink_to(file.resolve())
            record = wfdb.rdrecord(str(Path(folder, header.stem)), physical=False)
            return _checked(record), ("record name in the header put right",)
    except Excluded:
        raise
    except Exception as error:  # of wfdb's parsing: IndexError, ValueError, struct.error …
        raise Excluded("unreadable WFDB record") from error


def _mend(text: str, stem: str) -> str:
    """The header with a record line that names a file (`E00001.mat 12 500 …`) naming the record
    instead.
    """
    lines = text.splitlines(keepends=True)
    first = next((i for i, line in enumerate(lines) if _is_content(line)), None)
    if first is None:
        raise Excluded("unreadable WFDB record")
    name, *fields = lines[first].split()
    if "/" in name:  # its parts name files of their own, and may lie hours apart
        raise Excluded("multi-segment record")
    # wfdb would make room for as many signals as stated
    if fields[:1] != [str(sum(map(_is_content, lines)) - 1)]:
        raise Excluded("unreadable WFDB record")
    # wfdb passes over what is no number and takes its default
    if len(fields) > 1 and not re.fullmatch(r"0*[1-9]\d*(\.\d*)?([/(].*)?", fields[1]):
        raise Excluded("sampling rate unknown")
    if len(fields) > 2 and not fields[2].isdecimal():
        raise Excluded("unreadable WFDB record")
    if "." in name:
        lines[first] = lines[first].replace(name, re.sub(r"[^-\w]", "_", stem), 1)
    for file in _signal_files(text):
        if Path(file).name != file or ":" in file:
            raise Excluded("header names a file outside its folder")
    return "".join(lines)


def _is_content(line: str) -> bool:
    """Whether a header's line is neither blank nor a comment."""
    return bool(line.strip()) and not line.startswith("#")


def _signal_files(text: str) -> list[str]:
    lines = [line for line in text.splitlines() if _is_content(line)]
    return sorted({line.split()[0] for line in lines[1:]})


def _checked(record: wfdb.Record) -> wfdb.Record:
    if record.d_signal is None or not record.sig_len or not record.n_sig:
        raise Excluded("no samples")
    sums = record.calc_checksum()
    for stated_sum, actual_sum in zip(record.checksum or [], sums):
        if stated_sum is not None and (stated_sum - actual_sum) % 65536:
            raise Excluded("samples differ from the header's checksum")
    if len({*zip(record.file_name, record.fmt)}) > len(set(record.file_name)):
        # One file is read in one format, whatever a lead states.
        raise Excluded("unreadable WFDB record")
    if not all(gain > 0 for gain in record.adc_gain):  # below 0 it would stand the ECG on its head
        raise Excluded("gain unknown")
    return record


def _to_mv(unit: str | None) -> float:
    factor = TO_MV.get((unit or "mV").strip().lower())
    if factor is None:
        raise Excluded("unit is not a voltage")
    return factor


def _gain_repair(record: wfdb.Record) -> tuple[float, tuple[str, ...]]:
    """The factor that the physical signal needs, and the repair in words.

    (1, ()) for a gain that stands.
    """
    gains = {gain / _to_mv(unit) for gain, unit in zip(record.adc_gain, record.units)}
    if len(gains) != 1:
        return 1.0, ()
    stated_gain = gains.pop()
    baseline = np.array(record.baseline, dtype=np.float64)
    counts = record.d_signal.T.astype(np.float64) - baseline[:, None]
    actual_gain = true_gain(counts, stated_gain, float(record.fs))
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
    if STEPS[0] <= step <= STEPS[1] and _share_on_steps(counts, step) >= 2 / step:
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
    fields = dict(re.findall(r"(?im)^\s*(age|sex|dx)\s*:[ \t]*(.*?)\s*$", "\n".join(comments)))
    comment_fields = {name.lower(): value for name, value in fields.items()}
    return {
        "age": diagnoses.years(comment_fields.get("age", "")),
        "sex": {"f": 0.0, "m": 1.0}.get(comment_fields.get("sex", "")[:1].lower()),
        "height": None,
        "weight": None,
        "labels": diagnoses.snomed(comment_fields.get("dx", "")),
        "person": person,
    }


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
