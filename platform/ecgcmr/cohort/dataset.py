"""A cohort: which people, which signals, which labels; a folder of shards that is made once and
never edited.

The one idea: a cohort is complete when `_cohort.json` is there, and that is written last
(`staging`). Training reads through `stream`; whoever needs chosen rows at once calls `Cohort.load`.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from ecgcmr.cohort import shards
from ecgcmr.errors import InputError, unknown

MANIFEST = "_cohort.json"
INDEX = "index.parquet"
BUILD = ".build"  # what an unfinished cohort notes of itself


@dataclass(frozen=True, eq=False)
class Cohort:
    """A complete cohort on disk.

    Attributes:
        path: its folder.
        manifest: the content of `_cohort.json`.
    """

    path: Path
    manifest: dict[str, Any]

    @property
    def fingerprint(self) -> str:
        """A hash of everything that could change a result: recipe, rows, every shard's checksum."""
        return str(self.manifest["fingerprint"])

    @property
    def recipe(self) -> dict[str, Any]:
        """How signals were prepared; bound to every checkpoint trained on them."""
        return dict(self.manifest["recipe"])

    @property
    def provenance(self) -> dict[str, Any]:
        """What every result made from this cohort keeps of it."""
        return {"fingerprint": self.fingerprint, "recipe": self.recipe}

    @property
    def replaced(self) -> dict[str, int]:
        """Fingerprints of the cohorts that this one replaces -> how many people have withdrawn
        since.
        """
        withdrawn_since, people = {}, 0
        for replacement in self.manifest.get("replaces", []):  # the latest first
            people += replacement["people"]
            withdrawn_since[replacement["fingerprint"]] = people
        return withdrawn_since

    @property
    def columns(self) -> tuple[str, ...]:
        """The label columns (0/1 or phenotypes) of which at least one row is known; flags and times
        of follow-up are none.
        """
        return tuple(name for name in self._index.columns if name in self.manifest["labels"])

    @cached_property
    def _index(self) -> pd.DataFrame:
        try:
            return pd.read_parquet(self.path / INDEX)
        except (pa.ArrowInvalid, OSError) as error:
            raise InputError(
                f"{self.path / INDEX}: missing or damaged; restore it or build the cohort again"
            ) from error

    def rows(self, split: str | None = None) -> pd.DataFrame:
        """Every column but the signals, in the order of the shards, with `shard` and `row`; see
        `presence` for signals.
        """
        if split is not None and split not in shards.SPLITS:
            raise unknown("split", split, shards.SPLITS)
        return self._index if split is None else self._index[self._index["split"] == split]

    def load(self, index: pd.DataFrame, columns: Sequence[str] = ("ecg",)) -> dict[str, np.ndarray]:
        """Read the signals of chosen rows.

        Args:
            index: rows of `rows()`, any order.
            columns: names of signals.

        Returns:
            (n, *shape) each as stored, e.g. ecg (n, 12, 5000) float16 in mV, in the order of
            `index`.

        Raises:
            InputError: a shard is damaged, or a wanted signal is absent.
        """
        for name in columns:
            if name not in shards.SIGNALS:
                raise unknown("signal", name, shards.SIGNALS)
        files, numbers = index["shard"].to_numpy(), index["row"].to_numpy()
        form = {name: shards.SIGNALS[name] for name in columns}
        out = {name: np.empty((len(index), *s.shape), s.dtype) for name, s in form.items()}
        for file in pd.unique(index["shard"]):
            where = np.flatnonzero(files == file)
            shards.read_rows(self.path / file, numbers[where], tuple(columns), out, where)
        return out


def open(path: Path | str) -> Cohort:
    """Open a complete cohort.

    Raises:
        InputError: there is none, it is unfinished, or of another format.
    """
    path = Path(path)
    manifest = path / MANIFEST
    if not manifest.exists():
        state = (
            "an unfinished cohort; run the same command again"
            if (path / BUILD).exists()
            else "no cohort"
        )
        raise InputError(
            f"{path}: {state}"
            + ("; make one with  ecgcmr cohort synth" if state == "no cohort" else "")
        )
    try:
        record = json.loads(manifest.read_text())
    except ValueError as error:
        raise InputError(f"{manifest}: not JSON; restore it or build the cohort again") from error
    if record.get("format") != shards.FORMAT:
        raise InputError(
            f"{manifest}: format {record.get('format')}, this version reads {shards.FORMAT}; "
            "build it again"
        )
    return Cohort(path, record)


def digest(value: Any) -> str:
    """A hash of a JSON value, the same on every machine; 16 hexadecimal digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
