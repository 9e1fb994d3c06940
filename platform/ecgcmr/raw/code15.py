"""CODE-15 %: HDF5 files of many recordings, and the table `exams.csv` that says whose they are.

One idea: a source is a file and a row (`exams_part3.hdf5#17`), and so is the key; the exam's number
only finds its line in the table and stays here. Rows are padded with zeros at both ends, which are
cut off; what is then shorter than 10 s is for `ecg.settle` to refuse. The scale is what the data
set's users assume, millivolts: its description contradicts itself ("1e-4 V: … multiplied by 1000"),
and others have found the amplitudes about twice those of other sets.

Source: Ribeiro et al. 2021, doi:10.5281/zenodo.4916206; README of
antonior92/automatic-ecg-diagnosis (order of leads); issues 1 and 5 of antonior92/ecg-age-prediction
(scale).
"""

from functools import lru_cache
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from ecgcmr.errors import Excluded, InputError
from ecgcmr.raw.records import EcgRecord, key, row
from ecgcmr.signals import ecg

RATE_HZ = 400.0
TABLE = "exams.csv"  # beside the files or one folder above
# Columns of the table that become labels. `af` is atrial fibrillation alone: the set does not
# annotate flutter.
LABELS = ("1dAVb", "RBBB", "LBBB", "SB", "AF", "ST", "normal_ecg")
SCALE = "amplitude taken as mV; the data set leaves its scale open"
MAGIC = b"\x89HDF\r\n\x1a\n"
ENDINGS = (".hdf5", ".h5")
ROWS_LIMIT = 1_000_000  # CODE-15 % has 20,001 a file
UNPACKED_LIMIT = 256 << 20  # bytes that HDF5 unpacks to give one row


def find(path: str) -> list[str]:
    """List every row of the HDF5 files under a folder, or of the one named, as `file.hdf5#row`.

    Raises:
        InputError: there is no HDF5 file.
    """
    root = Path(path)
    files = (
        [root]
        if root.is_file()
        else sorted(f for f in root.rglob("*") if f.suffix.lower() in ENDINGS)
    )
    if not files or files[0].suffix.lower() not in ENDINGS:
        raise InputError(
            f"{path}: no HDF5 file (*.hdf5, *.h5) here; "
            "unpack exams_part*.zip and name their folder"
        )
    return [f"{file}#{i}" for file in files for i in range(_rows(file))]


def suits(file: Path, head: bytes) -> bool:
    """Whether it is an HDF5 file."""
    return head.startswith(MAGIC)


def read(source: str) -> EcgRecord:
    """Read one row in millivolts.

    Args:
        source: `file.hdf5#row`.

    Raises:
        Excluded: the file is damaged or of another form, or the row is empty.
        InputError: the table beside it cannot be read.
    """
    file, number = row(source)
    try:
        with h5py.File(file, "r") as hdf5:
            tracings = _tracings(hdf5)
            if number >= len(tracings):
                raise Excluded("no such row")
            signal = np.asarray(tracings[number], dtype=np.float32).T
            exam = _exam(hdf5, number)
    except Excluded:
        raise
    except Exception as error:  # damaged: OSError, KeyError, RuntimeError and others
        raise Excluded("unreadable HDF5 file") from error
    return EcgRecord(
        key=key(source),
        signal=_trimmed(signal),
        rate_hz=RATE_HZ,
        leads=ecg.LEADS,
        height=None,
        weight=None,
        repairs=(SCALE,),
        **_subject(file, exam),
    )


def _rows(file: Path) -> int:
    """How many rows a file has; 1 for one that cannot be read, so that `read` gives the reason."""
    try:
        with h5py.File(file, "r") as hdf5:
            return len(_tracings(hdf5))
    except Exception:
        return 1


def _tracings(hdf5: h5py.File) -> h5py.Dataset:
    """The signals, if they lie in this very file and one row can be had without unpacking much.

    Raises:
        Excluded: they are not there, or of another form.
    """
    tracings = _own_dataset(hdf5, "tracings")
    if tracings.ndim != 3 or tracings.shape[2] != 12 or tracings.dtype.kind != "f":
        raise Excluded("no tracings of 12 leads")
    shapes = (tracings.shape[1:], tracings.chunks or ())
    unpacked_values = max(np.prod(shape, dtype=np.float64) for shape in shapes)
    if unpacked_values * tracings.dtype.itemsize > UNPACKED_LIMIT or len(tracings) > ROWS_LIMIT:
        raise Excluded("file too large")
    return tracings


def _own_dataset(hdf5: h5py.File, name: str) -> h5py.Dataset:
    """A dataset of the file itself: links and external storage could name any file here."""
    if name not in hdf5:
        raise Excluded(f"no dataset {name}")
    if not isinstance(hdf5.get(name, getlink=True), h5py.HardLink):
        raise Excluded("data outside the file")
    dataset = hdf5[name]
    if not isinstance(dataset, h5py.Dataset):
        raise Excluded(f"no dataset {name}")
    if dataset.external or dataset.is_virtual:
        raise Excluded("data outside the file")
    return dataset


def _exam(hdf5: h5py.File, number: int) -> int | None:
    """The number by which the table knows a row."""
    if "exam_id" not in hdf5:
        return None
    exams = _own_dataset(hdf5, "exam_id")
    whole_numbers = exams.ndim == 1 and exams.dtype.kind in "iu"
    return int(exams[number]) if whole_numbers and number < len(exams) else None


def _trimmed(signal: np.ndarray) -> np.ndarray:
    """Without the samples at either end at which every lead is zero.

    Raises:
        Excluded: nothing is left.
    """
    nonzero = np.flatnonzero(signal.any(axis=0))
    if not nonzero.size:
        raise Excluded("no samples")
    return signal[:, nonzero[0] : nonzero[-1] + 1]


def _subject(file: Path, exam: int | None) -> dict:
    """Age, sex, labels and person of an exam; nothing where there is no table or no line."""
    nothing_known: dict = {"age": None, "sex": None, "labels": {}, "person": None}
    paths = [folder / TABLE for folder in (file.parent, file.parent.parent)]
    table = next((path for path in paths if path.is_file()), None)
    if table is None or exam is None:
        return nothing_known
    exams = _table(str(table))
    if exam not in exams.index:
        return nothing_known
    cells = exams.loc[exam].to_dict()
    exam_row = {str(name): float(value) for name, value in cells.items() if pd.notna(value)}
    labels = {f"code_{name}": exam_row[name] for name in LABELS if name in exam_row}
    if "AF" in exam_row:
        labels["af"] = exam_row["AF"]
    age = exam_row.get("age")
    return {
        "age": age if age is not None and 0 <= age <= 120 else None,
        "sex": exam_row.get("is_male"),
        "labels": labels,
        "person": f"patient{int(exam_row['patient_id'])}" if "patient_id" in exam_row else None,
    }


@lru_cache(maxsize=2)
def _table(path: str) -> pd.DataFrame:
    """The table's columns that are read, as numbers, by exam.

    Raises:
        InputError: it cannot be read, names an exam twice or lacks its number.
    """
    columns = ("exam_id", "age", "is_male", "patient_id", *LABELS)
    try:
        table = pd.read_csv(path, usecols=lambda name: name in columns)
        table = table.replace({"True": 1, "False": 0, "true": 1, "false": 0})
        table = table.apply(pd.to_numeric, errors="coerce").replace([np.inf, -np.inf], np.nan)
        table = table.set_index("exam_id", verify_integrity=True)
    except (KeyError, ValueError, OSError) as error:
        raise InputError(
            f"{path}: not the table of CODE-15 %: it needs a column exam_id, each number once"
        ) from error
    for name in {*LABELS, "is_male"} & set(table):
        table[name] = table[name].where(table[name].isin((0, 1)))
    return table
