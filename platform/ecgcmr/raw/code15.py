"""HDF5 files: those of CODE-15 % with the table `exams.csv` that says whose they are, and arrays of
ECGs under `tracings` or any other name.

One idea: a source is a file and a row (`exams_part3.hdf5#17`), and so is the key; the exam's number
only finds its line in the table and stays here. Rows are padded with zeros at both ends, which are
cut off; what is then shorter than 10 s is for `ecg.settle` to refuse. Unit and rate are what
attributes or scalars beside the array state, or what its user declares. Only the form of CODE-15 %
(`tracings` of 4096 samples with `exam_id`) says by itself that it has 400 Hz; its scale is what its
users assume, millivolts: its description contradicts itself ("1e-4 V: … multiplied by 1000"), and
others have found the amplitudes about twice those of other sets.

Source: Ribeiro et al. 2021, doi:10.5281/zenodo.4916206; README of
antonior92/automatic-ecg-diagnosis (order of leads); issues 1 and 5 of antonior92/ecg-age-prediction
(scale).
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from ecgcmr.errors import Excluded, InputError
from ecgcmr.raw import plain_array, statements
from ecgcmr.raw.records import EcgRecord, key, row
from ecgcmr.raw.statements import UNDECLARED, Declaration, Statement

RATE_HZ, SAMPLES = 400.0, 4096  # of CODE-15 %
TABLE = "exams.csv"  # beside the files or one folder above
# Columns of the table that become labels. `af` is atrial fibrillation alone: the set does not
# annotate flutter.
LABELS = ("1dAVb", "RBBB", "LBBB", "SB", "AF", "ST", "normal_ecg")
SCALE = "amplitude taken as mV; the data set leaves its scale open"
MAGIC = b"\x89HDF\r\n\x1a\n"
ENDINGS = (".hdf5", ".h5")
ROWS_LIMIT = 1_000_000  # CODE-15 % has 20,001 a file
UNPACKED_LIMIT = 256 << 20  # bytes that HDF5 unpacks to give one row
WORDS_LIMIT = 1 << 20  # entries of a dataset that states something
MEMBERS_LIMIT = 1000  # names of a file that are looked at
NO_ECGS = "no dataset tracings, nor another array of ECGs"


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
    return [source for file in files for source in _sources(file)]


def suits(file: Path, head: bytes) -> bool:
    """Whether it is an HDF5 file."""
    return head.startswith(MAGIC)


def read(source: str, declaration: Declaration = UNDECLARED) -> EcgRecord:
    """Read one recording in millivolts.

    Args:
        source: `file.hdf5#row`.
        declaration: what its user says of it.

    Raises:
        Excluded: the file is damaged or of another form, the row is empty, or unit or rate are not
            known.
        InputError: the table beside it cannot be read.
    """
    file, number = row(source)
    try:
        with h5py.File(file, "r") as hdf5:
            tracings = _tracings(hdf5)
            rows = _count(tracings)
            if number >= rows:
                raise Excluded("no such row")
            values = np.asarray(tracings[number] if tracings.ndim == 3 else tracings)
            items = [*_words(hdf5, tracings), *statements.beside(file)]
            statement = statements.statement(items, number, rows)
            exam = _exam(hdf5, number)
            is_code15 = _is_code15(hdf5, tracings)
    except Excluded:
        raise
    except Exception as error:  # damaged: OSError, KeyError, RuntimeError and others
        raise Excluded("unreadable HDF5 file") from error
    values = _trimmed(values)
    notes: tuple[str, ...] = ()
    if is_code15:
        notes = () if statement.unit or declaration.unit else (SCALE,)
        statement = _as_code15(statement, declaration)
    record = plain_array.record(key(source), values, statement, declaration)
    subject = _subject(file, exam) if is_code15 else {}
    repairs = notes if is_code15 else record.repairs
    return replace(record, repairs=repairs, **subject)


def _is_code15(hdf5: h5py.File, tracings: h5py.Dataset) -> bool:
    """Whether a file has the very form of CODE-15 %, whose rate and leads are published."""
    shape = tracings.shape[1:]
    return tracings.name == "/tracings" and shape == (SAMPLES, 12) and "exam_id" in hdf5


def _as_code15(statement: Statement, declaration: Declaration) -> Statement:
    """What CODE-15 % publishes, where its file does not say otherwise."""
    unit = statement.unit or ("" if declaration.unit else "mV")
    return replace(statement, rate_hz=statement.rate_hz or RATE_HZ, unit=unit)


def _sources(file: Path) -> list[str]:
    """Every row of a file; the file itself where it holds one recording or cannot be read, so that
    `read` gives the reason.
    """
    try:
        with h5py.File(file, "r") as hdf5:
            tracings = _tracings(hdf5)
            is_stack, rows = tracings.ndim == 3, _count(tracings)
    except Exception:
        return [f"{file}#0"]
    return [f"{file}#{i}" for i in range(rows)] if is_stack else [str(file)]


def _count(tracings: h5py.Dataset) -> int:
    return len(tracings) if tracings.ndim == 3 else 1


def _tracings(hdf5: h5py.File) -> h5py.Dataset:
    """The signals, if they lie in this very file and one row can be had without unpacking much.

    Raises:
        Excluded: they are not there, or of another form.
    """
    tracings = _own_dataset(hdf5, "tracings") if "tracings" in hdf5 else _only_array(hdf5)
    plain_array.check_numbers(tracings.dtype)
    shape = tracings.shape[1:] if tracings.ndim == 3 else tracings.shape
    unpacked_values = max(
        np.prod(sizes, dtype=np.float64) for sizes in (shape, tracings.chunks or ())
    )
    if unpacked_values * tracings.dtype.itemsize > UNPACKED_LIMIT or len(tracings) > ROWS_LIMIT:
        raise Excluded("file too large")
    if not plain_array.is_form(tracings.shape):
        raise Excluded(plain_array.FORM)
    return tracings


def _only_array(hdf5: h5py.File) -> h5py.Dataset:
    """The one dataset of ECG's form at the top or in a group there."""
    places = [name for name in _names(hdf5) if _is_array(hdf5, name)]
    if len(places) != 1:
        raise Excluded("several arrays of ECGs in one file" if places else NO_ECGS)
    return _own_dataset(hdf5, places[0])


def _names(hdf5: h5py.File) -> Iterator[str]:
    """Names at the top and in the groups there, as many as are looked at."""
    count = 0
    for name in hdf5:
        yield name
        is_own = isinstance(hdf5.get(name, getlink=True), h5py.HardLink)
        member = hdf5[name] if is_own else None
        for inner in member if isinstance(member, h5py.Group) else ():
            yield f"{name}/{inner}"
            count += 1
            if count > MEMBERS_LIMIT:
                return
        count += 1
        if count > MEMBERS_LIMIT:
            return


def _is_array(hdf5: h5py.File, name: str) -> bool:
    if not isinstance(hdf5.get(name, getlink=True), h5py.HardLink):
        return False
    dataset = hdf5[name]
    is_array = isinstance(dataset, h5py.Dataset) and dataset.dtype.kind in "fiu"
    return is_array and plain_array.is_form(dataset.shape)


def _words(hdf5: h5py.File, tracings: h5py.Dataset) -> Iterator[tuple[str, object]]:
    """What attributes of the file, the group and the array, and small datasets beside it, state."""
    for place in (hdf5, tracings.parent, tracings):
        for name in place.attrs:
            value = place.attrs[name] if statements.says(name) else h5py.Empty("f4")
            if not isinstance(value, h5py.Empty):
                yield name, value
    for group in {hdf5.name: hdf5, tracings.parent.name: tracings.parent}.values():
        for name in group:
            if statements.says(name) and group[name].name != tracings.name:
                dataset = _own_dataset(group, name)
                if dataset.size and dataset.size <= WORDS_LIMIT:
                    yield name, dataset.asstr()[()] if dataset.dtype.kind == "O" else dataset[()]


def _own_dataset(hdf5: h5py.Group, name: str) -> h5py.Dataset:
    """A dataset of the file itself: links and external storage could name any file here."""
    if not isinstance(hdf5.get(name, getlink=True), h5py.HardLink):
        raise Excluded("data outside the file")
    dataset = hdf5[name]
    if not isinstance(dataset, h5py.Dataset):
        raise Excluded(NO_ECGS)
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


def _trimmed(values: np.ndarray) -> np.ndarray:
    """Without the samples at either end at which every lead is zero; leads are the shorter axis.

    Raises:
        Excluded: nothing is left.
    """
    axis = int(np.argmax(values.shape))
    nonzero = np.flatnonzero(values.any(axis=1 - axis))
    if not nonzero.size:
        raise Excluded("no samples")
    return values.take(range(nonzero[0], nonzero[-1] + 1), axis)


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
