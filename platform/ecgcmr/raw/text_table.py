"""Tables of numbers, the leads named in the first line (`csv`): a column for each lead, a line for
each moment.

One idea: a text says its names, and may say more: a unit behind a name (`II (mV)`), a time column
with its unit, lines `# fs: 500` before the names, or a JSON file beside it. What it does not say
its user declares; the array itself goes the way of all arrays (`plain_array`).
"""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd

from ecgcmr.errors import Excluded, InputError
from ecgcmr.raw import plain_array, records, statements
from ecgcmr.raw.records import FILE_LIMIT, EcgRecord, key
from ecgcmr.raw.statements import UNDECLARED, Declaration
from ecgcmr.signals import ecg

ENDINGS = (".csv", ".tsv")
LEADS_LEAST = 8  # names of leads that make a table an ECG; labels files have none
DELIMITERS = ",;\t"
_TO_SECONDS = {"s": 1.0, "sec": 1.0, "second": 1.0, "seconds": 1.0, "ms": 1e-3, "us": 1e-6}
_NAME_UNIT = re.compile(r"^\s*(.*?)\s*[(\[_ ]\s*([A-Za-zµμ]+)\s*[)\]]?\s*$")


@dataclass(frozen=True)
class Header:
    """What stands before the numbers.

    Attributes:
        lines: how many.
        delimiter: between columns.
        names: of the columns, without their units.
        units: of the columns, "" for none.
        words: what lines before the names state, by name.
    """

    lines: int
    delimiter: str
    names: tuple[str, ...]
    units: tuple[str, ...]
    words: tuple[tuple[str, str], ...]

    @property
    def leads(self) -> list[int]:
        """The columns that are leads."""
        return [i for i, name in enumerate(self.names) if ecg.lead_name(name)]


def find(path: str) -> list[str]:
    """List the tables of ECGs under a folder, or the one named.

    Raises:
        InputError: the path does not exist or holds none.
    """
    place = Path(path)
    if place.is_file():
        return [str(place)]
    files = sorted(file for file in place.rglob("*") if file.suffix.lower() in ENDINGS)
    sources = [str(file) for file in files if suits(file, records.head(file))]
    if not sources:
        raise InputError(
            f"{path}: no table of an ECG (*.csv, *.tsv with the leads' names in its first line) "
            "here; name one"
        )
    return sources


def suits(file: Path, head: bytes) -> bool:
    """Whether a text's first line names leads."""
    if file.suffix.lower() not in ENDINGS:
        return False
    try:
        names = header(head.decode("utf-8-sig", "replace"))
    except Excluded:
        return False
    return len({ecg.lead_name(name) for name in names.names} - {None}) >= LEADS_LEAST


def read(source: str, declaration: Declaration = UNDECLARED) -> EcgRecord:
    """Read one recording.

    Args:
        source: the file.
        declaration: what its user says of it.

    Raises:
        Excluded: no leads are named, a cell is no number, normalised, or unit or rate are not
            known.
    """
    file = Path(source)
    text = _text(file)
    names = header(text)
    if not names.leads:
        raise Excluded("no standard lead")
    table = _numbers(text, names)
    items = [
        *names.words,
        *_rate_of_time(text, names),
        *[("unit", names.units[i]) for i in names.leads if names.units[i]],
        ("leads", [names.names[i] for i in names.leads]),
        *[item for item in statements.beside(file) if not statements.is_leads(item[0])],
    ]
    return plain_array.record(key(source), table.T, statements.statement(items), declaration)


def _text(file: Path) -> str:
    try:
        if file.stat().st_size > FILE_LIMIT:
            raise Excluded("file too large")
        return file.read_bytes().decode("utf-8-sig", "replace")
    except OSError:
        raise Excluded("unreadable file") from None


def header(text: str) -> Header:
    """The lines before the numbers.

    Raises:
        Excluded: there is no line of names.
    """
    words: list[tuple[str, str]] = []
    for n, line in enumerate(text.splitlines()[:100]):
        match = re.match(r"^[#%\s]*([A-Za-z][^:=,;\t]{0,40}?)\s*[:=]\s*([^,;\t]*)[,;\t]*\s*$", line)
        if line.startswith(("#", "%")) or not line.strip() or match:
            words += [(match[1], match[2])] if match and statements.says(match[1]) else []
            continue
        delimiter = max(DELIMITERS, key=line.count)
        cells = next(csv.reader([line], delimiter=delimiter), [])
        pairs = [_name_and_unit(cell) for cell in cells]
        names, units = (tuple(column) for column in zip(*pairs)) if pairs else ((), ())
        return Header(n + 1, delimiter, names, units, tuple(words))
    raise Excluded("no line that names the leads")


def _name_and_unit(cell: str) -> tuple[str, str]:
    """`II (mV)`, `V1 [uV]`, `aVF_mV` → name and unit; a name alone has none."""
    match = _NAME_UNIT.match(cell)
    if match and match[1] and (_is_voltage(match[2]) or match[2].lower() in _TO_SECONDS):
        return match[1].strip(), match[2]
    return cell.strip(), ""


def _is_voltage(word: str) -> bool:
    try:
        return statements.millivolts(word) > 0
    except Excluded:
        return False


def _numbers(text: str, names: Header, columns: Sequence[int] = ()) -> np.ndarray:
    """The leads' columns, (samples, leads) float64; blank cells are missing samples.

    Raises:
        Excluded: a cell is no number.
    """
    columns = columns or names.leads
    lines = [line for line in text.splitlines()[names.lines :] if line.strip()]
    if '"' not in text and {line.count(names.delimiter) for line in lines} != {
        len(names.names) - 1
    }:
        raise Excluded("lines of different numbers of cells")
    decimal = "," if names.delimiter == ";" and re.search(r"\d,\d", text[:4096]) else "."
    try:
        table = pd.read_csv(
            StringIO(text),
            sep=names.delimiter,
            decimal=decimal,
            header=None,
            skiprows=names.lines,
            usecols=sorted(columns),
            dtype=np.float64,
            skip_blank_lines=True,
            low_memory=False,
        )
    except Exception:  # pandas' errors quote the cell
        raise Excluded("samples are not numbers") from None
    values = table[list(columns)].to_numpy()
    return np.where(np.isfinite(values), values, np.nan)


def _rate_of_time(text: str, names: Header) -> list[tuple[str, object]]:
    """What a time column with a unit states: its steps must be alike.

    Raises:
        Excluded: they are not.
    """
    columns = [
        i
        for i, name in enumerate(names.names)
        if name.lower() in ("time", "t", "seconds", "ms") and (names.units[i] or name != "t")
    ]
    for i in columns:
        unit = names.units[i] or names.names[i].lower()
        step = _TO_SECONDS.get(unit.lower())
        if step is None:
            continue
        times = _numbers(text, names, [i])[:, 0] * step
        steps = np.diff(times)
        if not len(steps) or not np.isfinite(steps).all() or (steps <= 0).any():
            raise Excluded("times that do not rise")
        mean = float((times[-1] - times[0]) / len(steps))
        if np.abs(steps - mean).max() > 0.5 * mean:
            raise Excluded("samples that are not evenly spaced")
        return [("fs", round(1 / mean, 3))]
    return []
