"""Damaged and lying files, by thousands: every reader ends in a reason or in the recording, whatever it is given.

A reader that joins raw.READERS needs a line in `TABLE`: sound small files of its format and what changes of their fields
may do (fuzz_seeds.py); bytes are damaged for it. What the run has found stands as a test beside the reader's others.
"""

import base64
import itertools
import os
import tempfile
import time
from collections import Counter
from pathlib import Path
from unittest import mock

import fuzz_judge
import fuzz_labels
import fuzz_seeds
import fuzz_stacks
import numpy as np
import pytest
import torch

from ecgcmr import raw
from ecgcmr.cohort.labels import limits
from ecgcmr.errors import Excluded
from ecgcmr.raw import (
    archive,
    cardiosoft,
    ecg_dicom,
    markup,
    muse,
    sax_nifti,
    statements,
    tensors,
    wfdb,
)
from ecgcmr.signals import cmr, ecg

TABLE = {
    ("ecg", "wfdb"): fuzz_seeds.wfdb_seeds,
    ("ecg", "dicom"): fuzz_seeds.dicom_seeds,
    ("ecg", "cardiosoft"): fuzz_seeds.cardiosoft_seeds,
    ("ecg", "muse"): fuzz_seeds.muse_seeds,
    ("ecg", "philips"): fuzz_seeds.philips_seeds,
    ("ecg", "mortara"): fuzz_seeds.mortara_seeds,
    ("ecg", "aecg"): fuzz_seeds.aecg_seeds,
    ("ecg", "scp"): fuzz_seeds.scp_seeds,
    ("ecg", "edf"): fuzz_seeds.edf_seeds,
    ("ecg", "csv"): fuzz_seeds.table_seeds,
    ("ecg", "code15"): fuzz_seeds.code15_seeds,
    ("ecg", "tensors"): fuzz_seeds.tensor_seeds,
    ("ecg", "normalised"): fuzz_seeds.normalised_seeds,
    ("cmr", "nifti"): fuzz_stacks.nifti_seeds,
    ("cmr", "dicom"): fuzz_stacks.sax_seeds,
}
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "ecg"
EACH, REAL_EACH, MINUTES = 250, 100, 6


def seeds() -> dict[str, fuzz_seeds.Seed]:
    """Name -> seed, of every reader in the table."""
    return {
        f"{kind}/{name}/{i}": seed
        for (kind, name), make in TABLE.items()
        for i, seed in enumerate(make())
    }


def all_seeds() -> dict[str, fuzz_seeds.Seed]:
    """These, and real recordings where they are."""
    return {**seeds(), **(fuzz_seeds.real_seeds(SHARED) if SHARED.exists() else {})}


@pytest.fixture(scope="module")
def sound() -> dict[str, fuzz_seeds.Seed]:
    return seeds()


def test_every_reader_is_in_the_table():
    assert {(kind, name) for kind, readers in raw.READERS.items() for name in readers} == set(TABLE)


def test_sound_files_are_kept(sound):
    outcomes = [fuzz_judge.judge(seed, name, -1) for name, seed in sound.items()]
    assert [outcome for outcome in outcomes if outcome.fault or not outcome.kept] == []


def test_a_few_cases(sound):
    work = [(name, number) for name in sound for number in range(6)]
    outcomes = [fuzz_judge.judge(sound[name], name, number) for name, number in work]
    assert len(outcomes) >= 100
    assert [outcome for outcome in outcomes if outcome.fault] == []


@pytest.mark.parametrize("each", [12, pytest.param(500, marks=pytest.mark.slow)])
def test_labels_files(tmp_path, each):
    work = [(name, number) for name in fuzz_labels.files() for number in range(-1, each)]
    found = {
        case: fuzz_labels.fault(tmp_path / case[0], fuzz_labels.damaged(*case)) for case in work
    }
    assert {case: fault for case, fault in found.items() if fault} == {}


@pytest.mark.slow
def test_thousands_of_cases():
    names = all_seeds()
    work = [
        (name, n)
        for n in range(EACH)
        for name in names
        if n < (REAL_EACH if name.startswith("real") else EACH)
    ]
    started, outcomes = time.monotonic(), []
    for outcome in fuzz_judge.run(work, "test_fuzz:all_seeds"):
        outcomes.append(outcome)
        if (
            time.monotonic() - started > 60 * MINUTES
        ):  # a slow or busy machine does fewer, of every seed alike
            break
    faults = Counter(outcome.fault for outcome in outcomes if outcome.fault)
    assert [outcome for outcome in outcomes if outcome.fault] == [], faults
    assert len(outcomes) >= 2000
    kept = Counter(outcome.case.rpartition("/")[0] for outcome in outcomes if outcome.kept)
    assert (
        min(kept[f"{kind}/{name}"] for kind, name in TABLE) >= 10
    )  # not all is refused: what is kept was compared


# -- the run is able to fail -------------------------------------------------------------------------------------------


def _without_end(path: str) -> tensors.Content:
    return tensors.Content(np.load(path, mmap_mode="r", allow_pickle=False))


def _unchecked(lead) -> np.ndarray:
    return np.frombuffer(base64.b64decode(markup.text(lead, "WaveFormData")), "<i2").astype(
        np.float64
    )


def _quoting(words: list[str]) -> np.ndarray:
    try:
        return np.array([float(word or "nan") for word in words])
    except ValueError as error:
        raise Excluded(f"samples are not numbers: {error}") from None


PLACES = itertools.cycle(ecg.LEADS)


def _by_place(wave) -> str:
    return next(PLACES)


def _last_of_a_name(signal: np.ndarray, leads: tuple[str, ...]) -> np.ndarray:
    rows = {ecg.lead_name(name): row for name, row in zip(leads, signal)}
    rows.setdefault("V1", rows.get("V2"))
    return np.stack([rows[lead] for lead in ecg.LEADS])


def _greedy(file: Path) -> Path:
    np.ones(700 << 17)  # 700 MiB
    return file


def _left_behind() -> object:
    class Kept(tempfile.TemporaryDirectory):
        def __exit__(self, *_: object) -> None:
            self._finalizer.detach()

    return Kept


DEFECTS = {
    "a checksum is not compared": (
        "ecg/wfdb/0",
        wfdb,
        "_checked",
        lambda record: record,
    ),
    "leads by place": ("ecg/cardiosoft/0", cardiosoft, "_lead", _by_place),
    "of two leads of one name one is taken": ("ecg/wfdb/0", ecg, "_twelve", _last_of_a_name),
    "Einthoven's law is not asked": ("ecg/aecg/0", ecg, "worst_einthoven", lambda signal: 0.0),
    "one lead may be absurd": ("ecg/dicom/0", ecg, "_absurd", lambda signal, height: False),
    "units are not read": (
        "ecg/muse/0",
        statements.Declaration,
        "millivolts",
        lambda declaration, unit: 1e-3,
    ),
    "a rate that is none is 500 Hz": (
        "ecg/muse/0",
        statements.Declaration,
        "rate",
        lambda declaration, value: value or 500.0,
    ),
    "stated counts are not compared": ("ecg/cardiosoft/0", markup, "whole", lambda word: None),
    "counts are not words": ("ecg/cardiosoft/0", markup, "whole", int),
    "payload unchecked": ("ecg/muse/0", muse, "_counts", _unchecked),
    "an error quotes the file": ("ecg/aecg/0", markup, "samples", _quoting),
    "pickles are run": (
        "ecg/tensors/2",
        torch,
        "load",
        lambda path, _load=torch.load, **_: _load(path, weights_only=False),
    ),
    "an array's end is not looked at": ("ecg/tensors/0", tensors, "_npy", _without_end),
    "a DICOM file's end is not looked at": (
        "ecg/dicom/0",
        ecg_dicom,
        "_ends",
        lambda dataset, file: None,
    ),
    "an encrypted or large member is unpacked": (
        "ecg/wfdb/3",
        archive,
        "_content",
        lambda file, member: file.read(member) if member.file_size < 1 << 30 else b"",
    ),
    "copies are left": ("ecg/wfdb/3", archive.tempfile, "TemporaryDirectory", _left_behind()),
    "memory": ("cmr/nifti/0", sax_nifti, "Path", _greedy),
    "sizes of pixels are not compared": ("cmr/nifti/0", sax_nifti, "_agree", lambda image: True),
    "bytes of an image are not counted": (
        "cmr/nifti/0",
        sax_nifti,
        "_length",
        lambda path: mock.ANY,
    ),
    "stacks are not judged": (
        "cmr/nifti/0",
        cmr,
        "plausible",
        lambda stack: (np.nan_to_num(stack.frames), False),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("defect", DEFECTS)
def test_a_planted_defect_is_found(sound, monkeypatch, defect):
    name, place, attribute, wrong = DEFECTS[defect]
    monkeypatch.setattr(place, attribute, wrong)
    numbers = (number for number in range(600))
    assert any(fuzz_judge.judge(sound[name], name, number).fault for number in numbers)


@pytest.mark.slow
def test_a_planted_defect_of_labels_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(
        limits, "LIMITS", dict.fromkeys(limits.LIMITS, (-1e300, 1e300, -1e300, 1e300))
    )
    found = (
        fuzz_labels.fault(tmp_path / "wide.csv", fuzz_labels.damaged("wide.csv", n))
        for n in range(3000)
    )
    assert any(found)


def plant_death() -> None:
    """The reader of arrays kills its process at some files."""
    sound = tensors._opened

    def wrong(path: str, size: int, modified: int) -> object:
        if size < 480_000:
            os.abort()
        return sound(path, size, modified)

    tensors._opened = wrong


def plant_silence() -> None:
    """The reader of arrays never comes back from some files."""
    sound = tensors._opened

    def wrong(path: str, size: int, modified: int) -> object:
        while size < 480_000:
            time.sleep(0.1)
        return sound(path, size, modified)

    tensors._opened = wrong


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plant", "words"), [("plant_death", "died, exit code -6"), ("plant_silence", "silent for 3 s")]
)
def test_a_process_that_dies_or_is_silent_is_a_fault_of_its_case(plant, words):
    work = [("ecg/tensors/0", number) for number in range(25)]
    outcomes = list(fuzz_judge.run(work, "test_fuzz:seeds", 1, f"test_fuzz:{plant}", silence=3.0))
    faults = [outcome for outcome in outcomes if outcome.fault]
    assert len(outcomes) == 25
    assert 0 < len(faults) < 10
    assert all(
        words in outcome.fault and outcome.case.startswith("ecg/tensors/0 #") for outcome in faults
    )
