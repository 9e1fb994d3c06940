"""Cells of known meaning: keys, visits, numbers and columns of 0 and 1."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from ecgcmr.cohort import identifiers
from ecgcmr.cohort.labels import tables
from ecgcmr.cohort.labels.numbers import to_flags
from ecgcmr.cohort.labels.section import Account
from ecgcmr.errors import InputError

SEXES = {
    "f": 0.0,
    "female": 0.0,
    "w": 0.0,
    "m": 1.0,
    "male": 1.0,
    "0": 0.0,
    "1": 1.0,
    "0.0": 0.0,
    "1.0": 1.0,
}


def keys(cells: pa.Array) -> np.ndarray:
    """Ids as they are meant: `records/A0001.hea` is `A0001`."""
    return np.array([identifiers.clean(text) for text in tables.keys(cells)], dtype=object)


def persons(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """People, and the visit of each row, of names such as `1000011_2_0`; None if none has one."""
    pairs = [identifiers.participant(key) if "_" in key else (None, None) for key in keys]
    if not any(person for person, _ in pairs):
        return keys, None
    persons = [person or key for key, (person, _) in zip(keys, pairs, strict=True)]
    return np.array(persons, object), np.array([visit or "" for _, visit in pairs], object)


def visits(path: Path, name: str, cells: pa.Array) -> np.ndarray:
    """The visit of each row, UK Biobank's instance; "" for none."""
    visits = tables.keys(cells)
    bad = sum(not re.fullmatch(r"\d{0,2}", visit) for visit in visits)
    if bad:
        raise InputError(
            f"{path}: column '{name}' holds {bad:,} entries that are no visit; write UK Biobank's "
            "instance, 2 for imaging, or nothing"
        )
    return visits


def numbers(
    path: Path, name: str, columns: Sequence[str], cells: pa.RecordBatch, account: Account
) -> np.ndarray:
    """Numbers of known meaning; the first column that knows a row's wins."""
    numbers = np.full(cells.num_rows, np.nan)
    for column in columns:
        read_cells = _sex if name == "sex" else tables.numbers
        values, bad_words = read_cells(cells[column])
        if name == "sex":
            _refuse_sexes(path, bad_words)
        account.note(column, values, bad_words)
        numbers = np.where(np.isnan(numbers), values, numbers)
    return numbers


def _sex(cells: pa.Array) -> tuple[np.ndarray, list[str]]:
    codes, words = pd.factorize(tables.keys(cells))
    values = np.array([SEXES.get(identifiers.bare(word).lower(), np.nan) for word in words])[codes]
    bad = np.isnan(values) & (words[codes] != "")
    return values, words[codes[bad]].tolist()


def _refuse_sexes(path: Path, bad_words: Sequence[str]) -> None:
    numbers = {word for word in bad_words if re.fullmatch(r"-?\d+(\.\d+)?", word)}
    if numbers:
        raise InputError(
            f"{path}: sex: {len(numbers)} numbers other than 0 and 1; "
            "write 0 or F for women, 1 or M for men"
        )


def flags(cells: pa.Array) -> np.ndarray | None:
    """A column of 0, 1 and blanks as int8; None if it holds anything else."""
    if (
        pa.types.is_nested(cells.type)
        or pa.types.is_temporal(cells.type)
        or pa.types.is_binary(cells.type)
    ):
        return None
    if (flags := tables.bits(cells)) is not None:
        return flags
    values, bad_words = tables.numbers(cells)
    is_flag = not bad_words and np.isin(values[~np.isnan(values)], (0.0, 1.0)).all()
    return to_flags(values) if is_flag else None
