"""Tables of any size: read in pieces, only the columns that are wanted, cells as keys, numbers,
days or lists of codes.

CSV, tab-separated text (either may be gzipped) and Parquet. A piece is some megabytes, so memory
does not grow with the file. What Arrow says of a bad line would quote it; only its shape is passed
on. A file has as many rows as it has lines: a quotation mark that opens and does not close would
swallow people in silence.
"""

import csv
import gzip
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from ecgcmr.errors import InputError

BLOCK = 16 * 2**20  # bytes of text in a piece
ROWS = 8192  # of a piece of Parquet
HEADER = 4 * 2**20  # bytes that the line of names may have; UK Biobank's whole table needs 0.4 MB
# A list of quoted words: JSON's and Python's with commas, NumPy's with blanks, R's `c(…)`.
QUOTED = r"""(?:'[^']*'|"[^"]*")"""
LIST = (
    rf"^(?:array\(|c)?[\[({{]\s*(?:{QUOTED}(?:[\s,]+{QUOTED})*[\s,]*)?[\])}}](?:,\s*dtype=.*\))?$"
)
OPENS = r"^(?:array\(|c)?[\[({]"
# The same without quotes, as Spark and PostgreSQL write it: `[I10, I251]`, `{I10,I251}`.
WORDS = r"^[\[{(]\s*[A-Za-z0-9.]*(?:\s*,\s*[A-Za-z0-9.]+)*\s*[\])}]$"
FAILURES = (pa.ArrowException, OSError, EOFError, UnicodeDecodeError, csv.Error)


def names(path: Path) -> list[str]:
    """The names of a table's columns.

    Raises:
        InputError: there is no such file, it is no table, or a name stands twice.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such labels file")
    try:
        columns = pq.read_schema(path).names if path.suffix == ".parquet" else _header(path)
    except FAILURES as error:
        raise refusal(path, error) from error
    if len({*columns}) < len(columns):
        doubles = sorted({name for name in columns if columns.count(name) > 1})
        raise InputError(f"{path}: column '{doubles[0]}' stands twice; keep one")
    return columns


def pieces(path: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The rows of some columns, in order and in pieces; cells of text files are strings, blanks and
    NA are null.

    Raises:
        InputError: the file is damaged.
    """
    try:
        if path.suffix == ".parquet":
            with pq.ParquetFile(path) as file:
                yield from file.iter_batches(ROWS, columns=list(columns))
            return
        convert_options = pyarrow.csv.ConvertOptions(
            include_columns=list(columns),
            column_types=dict.fromkeys(columns, pa.string()),
            strings_can_be_null=True,
        )
        read_options = pyarrow.csv.ReadOptions(block_size=BLOCK)
        parse_options = pyarrow.csv.ParseOptions(
            delimiter=_delimiter(path), quote_char='"' if _is_quoted(path) else False
        )
        with _opened(path) as stream:
            lines = CountedLines(stream)
            source = pa.PythonFile(lines, mode="r")
            n_rows = 0
            with pyarrow.csv.open_csv(source, read_options, parse_options, convert_options) as file:
                for piece in file:
                    n_rows += piece.num_rows
                    yield piece
    except FAILURES as error:
        raise refusal(path, error) from error
    if n_rows != lines.n - 1:
        raise InputError(
            f"{path}: {lines.n - 1:,} lines below the names of the columns, but {n_rows:,} rows: a "
            'quotation mark (") opens a text that does not end on its line; remove the mark or '
            "the column"
        )


class CountedLines(io.RawIOBase):
    """A stream that counts the lines which pass through it, empty ones aside."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._is_open = False  # whether the last line so far has begun
        self.n = 0

    def readable(self) -> bool:
        """True: it is there to be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read some bytes."""
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        self._count(data)
        return len(data)

    def _count(self, data: bytes) -> None:
        if not data:
            return
        if b"\r" in data:
            data = data.replace(b"\r", b"\n")
        is_end = np.frombuffer(data, np.uint8) == ord("\n")
        begins = ~is_end[1:] & is_end[:-1]
        self.n += int(begins.sum()) + int(not is_end[0] and not self._is_open)
        self._is_open = not is_end[-1]


def _opened(path: Path) -> IO[bytes]:
    start: Any = gzip.open if path.suffix == ".gz" else open
    return start(path, "rb")


def keys(cells: pa.Array) -> np.ndarray:
    """Cells as (n,) object: text without blanks around it, "" where there is none.

    1234567.0 is 1234567.
    """
    plain = pc.replace_substring_regex(text(cells), r"^(\d+)\.0+$", r"\1")
    return np.asarray(plain.fill_null("").to_numpy(zero_copy_only=False), dtype=object)


def numbers(cells: pa.Array) -> tuple[np.ndarray, list[str]]:
    """Cells as (n,) float64 with NaN for blanks, and the entries that are no number.

    True and False are 1 and 0.
    """
    if (
        pa.types.is_boolean(cells.type)
        or pa.types.is_integer(cells.type)
        or pa.types.is_floating(cells.type)
    ):
        return _floats(cells), []
    texts = text(cells)
    try:
        return _floats(texts), []
    except pa.ArrowInvalid:
        words = texts.to_pandas().replace({"True": "1", "False": "0", "TRUE": "1", "FALSE": "0"})
        values = pd.to_numeric(words, errors="coerce").to_numpy(np.float64)
        bad = np.isnan(values) & words.notna().to_numpy()
        return values, words[bad].astype(str).tolist()


def bits(cells: pa.Array) -> np.ndarray | None:
    """Cells that are `0`, `1` or null as (n,) int8, -1 for null; None, at no cost, for others."""
    try:
        whole = cells.cast(pa.int8())
    except pa.ArrowException:
        return None
    ends = pc.min_max(whole)
    if ends["min"].is_valid and not 0 <= ends["min"].as_py() <= ends["max"].as_py() <= 1:
        return None
    return np.asarray(whole.fill_null(-1).to_numpy(zero_copy_only=False), np.int8)


def _floats(cells: pa.Array) -> np.ndarray:
    values = cells.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return np.asarray(values, dtype=np.float64)


def days(cells: pa.Array) -> tuple[np.ndarray, int]:
    """Cells as (n,) datetime64[D] with NaT for blanks, and how many are no date YYYY-MM-DD.

    A time of day is dropped.
    """
    if pa.types.is_date(cells.type) or pa.types.is_timestamp(cells.type):
        return _whole_days(cells.cast(pa.timestamp("s"), safe=False)), 0
    texts = text(cells)
    is_day_like = pc.match_substring_regex(texts, r"^\d{4}-\d{2}-\d{2}(?:[T ][\d:.+Z]*)?$")
    day = pc.if_else(
        is_day_like, pc.utf8_slice_codeunits(texts, 0, 10), pa.scalar(None, pa.string())
    )
    moments = pc.strptime(day, format="%Y-%m-%d", unit="s", error_is_null=True)
    # strptime makes 3 March of 31 February
    is_day = pc.equal(pc.strftime(moments, format="%Y-%m-%d"), day)
    moments = pc.if_else(is_day, moments, pa.scalar(None, moments.type))
    return _whole_days(moments), moments.null_count - texts.null_count


def _whole_days(moments: pa.Array) -> np.ndarray:
    return moments.to_numpy(zero_copy_only=False).astype("datetime64[D]")


def lists(cells: pa.Array) -> tuple[pa.Array, np.ndarray, np.ndarray, np.ndarray]:
    """Cells that hold many words: the words, the row of each, its place in its cell from 0, and
    (n,) which are no list.

    A cell is a list of Parquet, words with `|` between (the Research Analysis Platform), or the
    text of a list as Python, JSON, NumPy, R or Spark write it, of which nothing is evaluated.
    """
    if not (pa.types.is_list(cells.type) or pa.types.is_large_list(cells.type)):
        texts = text(cells)
        has_brackets = pc.match_substring_regex(texts, OPENS).fill_null(False)
        is_list = pc.match_substring_regex(texts, LIST).fill_null(False)
        is_bare_list = pc.match_substring_regex(texts, WORDS).fill_null(False)
        is_readable = pc.or_(pc.invert(has_brackets), pc.or_(is_list, is_bare_list))
        no_list = pc.and_(is_readable.is_valid(), pc.invert(is_readable))
        no_list = no_list.to_numpy(zero_copy_only=False) & texts.is_valid().to_numpy(False)
        ends = rf"""{OPENS}\s*["']?|["']?[\s,]*[\])}}](?:,\s*dtype=.*\))?$"""
        bare = pc.replace_substring_regex(texts, ends, "")
        between_quotes = pc.replace_substring_regex(bare, r"""["'][\s,]+["']""", "|")
        with_bars = pc.if_else(
            is_list, between_quotes, pc.replace_substring_regex(bare, r"\s*,\s*", "|")
        )
        plain = pc.if_else(has_brackets, with_bars, texts)
        empty = pc.equal(plain, "").fill_null(True)
        plain = pc.if_else(
            pc.and_(is_readable, pc.invert(empty)), plain, pa.scalar(None, pa.string())
        )
        cells = pc.split_pattern(plain, "|")
    else:
        no_list = np.zeros(len(cells), bool)
    words = pc.list_flatten(cells).cast(pa.string())
    rows = pc.list_parent_indices(cells).to_numpy(zero_copy_only=False).astype(np.int64)
    places = np.arange(len(rows)) - np.searchsorted(rows, rows, side="left")
    return words, rows, places, no_list


def text(cells: pa.Array) -> pa.Array:
    """Cells as trimmed strings; null where nothing is left."""
    if pa.types.is_dictionary(cells.type):
        cells = cells.dictionary_decode()
    if pa.types.is_floating(cells.type) and pc.all(pc.equal(cells, pc.floor(cells))).as_py():
        cells = cells.cast(pa.int64())
    words = pc.utf8_trim_whitespace(cells.cast(pa.string()))
    return pc.if_else(pc.equal(words, ""), pa.scalar(None, pa.string()), words)


def _header(path: Path) -> list[str]:
    line = _first_line(path)
    if not line.strip():
        raise InputError(f"{path}: cannot be read as a table: it has no line of names")
    return next(csv.reader([line], delimiter=_delimiter(path)))


def _first_line(path: Path) -> str:
    with _opened(path) as file:
        line = file.readline(HEADER)
    if len(line) == HEADER:
        raise InputError(f"{path}: cannot be read as a table: its first line does not end")
    return line.decode("utf-8-sig").rstrip("\r\n")


def _delimiter(path: Path) -> str:
    line = _first_line(path)
    return max(",", "\t", ";", key=line.count)


def _is_quoted(path: Path) -> bool:
    """Whether a quotation mark encloses text; ukbconv's `.tab` and UK Biobank's record tables do
    not quote, and a mark in them is a mark. R, which does, quotes the names of the columns too.
    """
    return _delimiter(path) != "\t" or '"' in _first_line(path)


def refusal(path: Path, error: Exception) -> InputError:
    """What to say of a table that cannot be read, without a word of its content."""
    shape = re.search(r"Expected \d+ columns, got \d+|invalid UTF8|straddling object", str(error))
    words = {
        "invalid UTF8": "not UTF-8",
        "straddling object": f"a line of more than {BLOCK >> 20} MB",
    }
    reason = f": {words.get(shape.group(), shape.group().lower())}" if shape else ""
    return InputError(f"{path}: cannot be read as a table{reason}; export it again")
