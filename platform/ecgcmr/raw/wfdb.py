"""WFDB recordings (header and signal files, also with MATLAB v4 payloads): PTB-XL, PTB, CinC, Chapman, MIMIC-IV-ECG.

One idea: headers lie, so what they say is checked against the samples: their checksums, and the gain against the step
of the converter, which the samples show. What is certain is repaired and said, the rest is refused with a reason.
Age, sex and diagnoses are taken from a header's comments; everything else in them stays there.
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
STEPS = (
    4.0,
    20.0,
)  # µV; below, a file of doubled or tripled counts with an honest gain would look the same
TYPICAL_MV = 0.9  # median of `ecg.amplitude` over the 224 CinC recordings
FRANK = ("vx", "vy", "vz")
_HEADER_LIMIT = 1 << 20


def find(path: str) -> list[str]:
    """List the headers under a folder or in a zip archive, or the one named with or without `.hea`, or by its signals.

    Where PTB-XL's two rates of one recording are both there, only `_hr` (500 Hz) is listed.

    Raises:
        InputError: the path does not exist or holds no header.
    """
    root = Path(path)
    if root.is_dir() or archive.is_archive(root):
        headers = archive.find(root, (".hea",))
        fine = {
            Path(header).stem.removesuffix("_hr")
            for header in headers
            if header.endswith("_hr.hea")
        }
        headers = [
            h
            for h in headers
            if not (h.endswith("_lr.hea") and Path(h).stem.removesuffix("_lr") in fine)
        ]
        if not headers:
            raise InputError(
                f"{path}: no WFDB header (*.hea) here; name the folder or the archive that holds the recordings"
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
    return (
        file
        if suffix == ".hea"
        else file.with_suffix(".hea")
        if suffix in (".dat", ".mat")
        else None
    )


def read(source: str) -> EcgRecord:
    """Read one recording in millivolts.

    Args:
        source: path of the header, or `archive.zip#member`.

    Raises:
        Excluded: it cannot be read, disagrees with its checksums, has another unit, or its gain is in doubt.
    """
    with archive.opened(source) as header:
        record, repairs = _open(header)
        person = _person(header)
    # format 16 and others mark a missing sample with the lowest value; `dac` turns it into NaN
    signal = (
        record.dac(return_res=64).T * np.array([_to_mv(unit) for unit in record.units])[:, None]
    )
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
    """The name as the file spells it if it is a lead's; other words may be anybody's and stay in the file."""
    return name if name and (ecg.lead_name(name) or name.lower() in FRANK) else "other"


def _open(header: Path) -> tuple[wfdb.Record, tuple[str, ...]]:
    """Open through `wfdb`; a header that it refuses for the record's name is put right in a temporary folder."""
    try:
        with header.open("rb") as file:
            text = file.read(_HEADER_LIMIT).decode("utf-8", errors="replace")
        mended = _mend(text, header.stem)
        if (
            sum((header.parent / name).stat().st_size for name in _signal_files(mended))
            > FILE_LIMIT
        ):
            raise Excluded("file too large")
        if mended == text:
            record = wfdb.rdrecord(str(header.with_suffix("")), physical=False)
            return _checked(record), ()
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, header.name).write_text(mended, encoding="utf-8")
            for name in _signal_files(mended):
                Path(folder, name).symlink_to((header.parent / name).resolve())
            record = wfdb.rdrecord(str(Path(folder, header.stem)), physical=False)
            return _checked(record), ("record name in the header put right",)
    except Excluded:
        raise
    except (
        Exception
    ) as error:  # wfdb raises whatever its parsing meets: IndexError, ValueError, struct.error …
        raise Excluded("unreadable WFDB record") from error


def _mend(text: str, stem: str) -> str:
    """The header with a record line that names a file (`E00001.mat 12 500 …`) naming the record instead."""
    lines = text.splitlines(keepends=True)
    first = next((i for i, line in enumerate(lines) if _speaks(line)), None)
    if first is None:
        raise Excluded("unreadable WFDB record")
    name, *stated = lines[first].split()
    if "/" in name:  # its parts name files of their own, and may lie hours apart
        raise Excluded("multi-segment record")
    if stated[:1] != [
        str(sum(map(_speaks, lines)) - 1)
    ]:  # wfdb would make room for as many signals as stated
        raise Excluded("unreadable WFDB record")
    # wfdb passes over what is no number and takes its default
    if len(stated) > 1 and not re.fullmatch(r"0*[1-9]\d*(\.\d*)?([/(].*)?", stated[1]):
        raise Excluded("sampling rate unknown")
    if len(stated) > 2 and not stated[2].isdecimal():
        raise Excluded("unreadable WFDB record")
    if "." in name:
        lines[first] = lines[first].replace(name, re.sub(r"[^-\w]", "_", stem), 1)
    for file in _signal_files(text):
        if Path(file).name != file or ":" in file:
            raise Excluded("header names a file outside its folder")
    return "".join(lines)


def _speaks(line: str) -> bool:
    """Whether a header's line is neither blank nor a comment."""
    return bool(line.strip()) and not line.startswith("#")


def _signal_files(text: str) -> list[str]:
    lines = [line for line in text.splitlines() if _speaks(line)]
    return sorted({line.split()[0] for line in lines[1:]})


def _checked(record: wfdb.Record) -> wfdb.Record:
    if record.d_signal is None or not record.sig_len or not record.n_sig:
        raise Excluded("no samples")
    sums = record.calc_checksum()
    for stated, found in zip(record.checksum or [], sums):
        if stated is not None and (stated - found) % 65536:
            raise Excluded("samples differ from the header's checksum")
    if len({*zip(record.file_name, record.fmt)}) > len(set(record.file_name)):
        raise Excluded(
            "unreadable WFDB record"
        )  # one file is read in one format, whatever a lead states
    if not all(gain > 0 for gain in record.adc_gain):  # below 0 it would stand the ECG on its head
        raise Excluded("gain unknown")
    return record


def _to_mv(unit: str | None) -> float:
    factor = TO_MV.get((unit or "mV").strip().lower())
    if factor is None:
        raise Excluded("unit is not a voltage")
    return factor


def _gain_repair(record: wfdb.Record) -> tuple[float, tuple[str, ...]]:
    """The factor that the physical signal needs, and the repair in words; (1, ()) for a gain that stands."""
    gains = {gain / _to_mv(unit) for gain, unit in zip(record.adc_gain, record.units)}
    if len(gains) != 1:
        return 1.0, ()
    stated = gains.pop()
    counts = (
        record.d_signal.T.astype(np.float64) - np.array(record.baseline, dtype=np.float64)[:, None]
    )
    true = true_gain(counts, stated, float(record.fs))
    return (
        (1.0, ())
        if true == stated
        else (stated / true, (f"gain {stated:g}/mV in the header, {true:g} in the samples",))
    )


def true_gain(counts: np.ndarray, stated: float, rate_hz: float) -> float:
    """Find the gain from the samples: the stated one, or 1000/mV (whole microvolts) where that is certain.

    A converter with a step of s µV leaves multiples of s in samples that were stored as whole microvolts. Two kinds of
    header state the converter instead of the file: PTB-XL's early ones 1000/s (200 for 5 µV), Georgia's 1000·s (4880 for
    4.88 µV). So a stated gain G names a step, s = max(G/1000, 1000/G), and if the samples fall on multiples of that s
    twice as often as by chance or more, they are microvolts. The beat's amplitude must agree: nearer to 0.9 mV so than
    as stated. Without such steps only a factor of 1000 (a unit) is certain, where it alone gives a human amplitude.

    Args:
        counts: (leads, samples), converter counts without their baseline.
        stated: counts per mV in the header.
        rate_hz: samples per second.

    Returns:
        Counts per mV.

    Raises:
        Excluded: the steps speak against the stated gain, the amplitude for it, and both are possible.
    """
    height = ecg.amplitude(counts, rate_hz)
    if not height or not np.isfinite(stated) or stated <= 0:
        return stated
    low, high = ecg.AMPLITUDE_MV
    step = max(stated / MICROVOLT, MICROVOLT / stated)
    if STEPS[0] <= step <= STEPS[1] and _share_on_steps(counts, step) >= 2 / step:
        if abs(np.log(height / MICROVOLT / TYPICAL_MV)) < abs(np.log(height / stated / TYPICAL_MV)):
            return MICROVOLT
        if low <= height / MICROVOLT <= high:
            raise Excluded("gain in doubt")
    if not low <= height / stated <= high:
        fitting = [gain for gain in (stated / 1000, stated * 1000) if low <= height / gain <= high]
        return fitting[0] if len(fitting) == 1 else stated
    return stated


def _share_on_steps(counts: np.ndarray, step: float) -> float:
    """The share of samples that are multiples of `step` cut or rounded to whole numbers; median over the live leads."""
    size = np.abs(counts[np.ptp(counts, axis=1) > 0])
    if not size.size:
        return 0.0
    cut = np.floor(np.ceil(size / step - 1e-9) * step + 1e-9) == size
    rounded = np.round(np.round(size / step) * step) == size
    return float(max(np.median(cut.mean(1)), np.median(rounded.mean(1))))


def _subject(source: str, key: str, person: str | None, comments: list[str]) -> dict:
    """Age, sex, labels and person, from PTB-XL's table where the recording is in it, else from the header's comments."""
    table = archive.beside(source, "ptbxl_database.csv", folders=3)
    annotation = _annotations(table).get(key) if table else None
    if annotation:
        return {
            key: getattr(annotation, key)
            for key in ("age", "sex", "height", "weight", "labels", "person")
        }
    fields = dict(re.findall(r"(?im)^\s*(age|sex|dx)\s*:[ \t]*(.*?)\s*$", "\n".join(comments)))
    said = {name.lower(): value for name, value in fields.items()}
    return {
        "age": diagnoses.years(said.get("age", "")),
        "sex": {"f": 0.0, "m": 1.0}.get(said.get("sex", "")[:1].lower()),
        "height": None,
        "weight": None,
        "labels": diagnoses.snomed(said.get("dx", "")),
        "person": person,
    }


def _person(header: Path) -> str | None:
    """The folder of the person in PTB (`patient001/`) and MIMIC-IV-ECG (`p10001725/`), which hold several visits."""
    folders = [part for part in header.parent.parts if re.fullmatch(r"patient\d+|p\d{6,}", part)]
    return folders[-1] if folders else None


@lru_cache(maxsize=4)
def _annotations(table: str) -> dict[str, diagnoses.Annotation]:
    """PTB-XL's table, which lies up to three folders above its recordings."""
    with archive.opened(table) as file:
        return diagnoses.ptbxl(str(file))
