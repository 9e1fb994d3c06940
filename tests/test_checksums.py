"""What is read of a finished run is what was written, to the bit, or the reader hears which file is not."""

import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest
import test_store

from ecgcmr import checksums, store
from ecgcmr.errors import InputError
from ecgcmr.inference import ensemble
from ecgcmr.report import track
from ecgcmr.runs import is_finished, read_run, set_damaged_aside

TRIAL = test_store.TRIAL
FILES = (store.RECORD, store.ROWS, store.CURVE, store.PREDICTIONS, store.ENCODER)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder of runs with one finished trial; read-only."""
    runs = tmp_path_factory.mktemp("runs")
    store.write(runs, test_store.finished(), "cohort")
    return runs


@pytest.fixture
def runs(written, tmp_path):
    """A copy of it."""
    return shutil.copytree(written, tmp_path / "runs")


def flipped(path, seed):
    """One bit of the file is another."""
    content = bytearray(path.read_bytes())
    at, bit = np.random.default_rng(seed).integers((len(content), 8))
    content[at] ^= 1 << bit
    path.write_bytes(content)


def halved(path, seed):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path, seed):
    path.write_bytes(b"")


def deleted(path, seed):
    path.unlink()


FAULTS = [
    *((flipped, seed) for seed in range(12)),
    *((fault, 0) for fault in (halved, emptied, deleted)),
]


@pytest.mark.parametrize("name", [*FILES, checksums.SUMS])
def test_every_fault_of_every_file_is_seen_named_and_set_aside(written, tmp_path, name):
    for number, (fault, seed) in enumerate(FAULTS):
        runs = shutil.copytree(written, tmp_path / str(number))
        folder = store.folder(runs, TRIAL.name)
        fault(folder / name, seed)
        if (name, fault) == (checksums.SUMS, deleted):
            continue  # of the next test
        (line,) = set_damaged_aside(runs, [TRIAL])
        assert str(folder) in line
        assert "which reads the test set once more" in line
        assert name == checksums.SUMS or str(folder / name) in line
        assert not is_finished(runs, TRIAL, "cohort")
        assert store.finished_folders(runs) == []
        (aside,) = folder.parent.iterdir()
        assert aside.name.endswith(".damaged")
        store.write(runs, test_store.finished(), "cohort")
        assert set_damaged_aside(runs, [TRIAL]) == []
        assert is_finished(runs, TRIAL, "cohort")


def test_without_checksums_a_folder_is_refused_and_the_advice_helps(runs):
    folder = store.folder(runs, TRIAL.name)
    (folder / checksums.SUMS).unlink()
    with pytest.raises(InputError, match=r"before there were checksums") as refused:
        set_damaged_aside(runs, [TRIAL])
    with pytest.raises(InputError, match="before there were checksums"):
        store.rows(runs)
    command = str(refused.value).split("write it (")[1].split(")")[0]
    subprocess.run(command, shell=True, cwd=folder, check=True)
    assert set_damaged_aside(runs, [TRIAL]) == []
    assert len(store.rows(runs)) == 1


def test_the_checksums_are_those_of_sha256sum(runs):
    folder = store.folder(runs, TRIAL.name)
    check = ["sha256sum", "--check", "--strict", "--quiet", checksums.SUMS]
    assert subprocess.run(check, cwd=folder).returncode == 0
    assert checksums.names(folder) == set(FILES)


READERS = {
    store.RECORD: lambda runs, folder: read_run(folder),
    store.ROWS: lambda runs, folder: store.rows(runs),
    store.CURVE: lambda runs, folder: track.digest(folder),
    store.ENCODER: lambda runs, folder: store.weights(runs, TRIAL.name, "ecg"),
}


@pytest.mark.parametrize("name", READERS)
def test_whoever_reads_a_damaged_file_hears_of_it_and_what_to_run(runs, name):
    folder = store.folder(runs, TRIAL.name)
    READERS[name](runs, folder)
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-2] + bytes([content[-2] ^ 1]) + content[-1:])
    line = rf"{name}.*damaged.*(ecgcmr evaluate|delete it and train it again)"
    with pytest.raises(InputError, match=line):
        READERS[name](runs, folder)


def test_rows_that_are_gone_are_no_missing_number(runs):
    folder = store.folder(runs, TRIAL.name)
    run = read_run(folder)
    assert run.score("test", "auroc") == 0.75
    (folder / store.ROWS).unlink()
    with pytest.raises(InputError, match=r"rows\.parquet: is gone; ecgcmr evaluate sets"):
        run.score("test", "auroc")


def test_weights_that_are_not_those_of_the_run_are_not_served(runs):
    run = read_run(store.folder(runs, TRIAL.name))
    assert len(ensemble.tensors(run)) == 2
    path = run.folder / store.ENCODER
    other = bytearray(path.read_bytes())
    other[-1] ^= 1  # the last number of the head: a file of the same form
    path.write_bytes(other)
    with pytest.raises(InputError, match="damaged"):
        ensemble.tensors(run)


def test_a_file_is_read_once_for_as_long_as_it_is_the_same(runs, monkeypatch):
    folder, readings = store.folder(runs, TRIAL.name), []
    sha256 = checksums.sha256
    monkeypatch.setattr(checksums, "sha256", lambda path: readings.append(path) or sha256(path))
    for _ in range(3):
        pd.read_parquet(store.verified(folder, store.ROWS))
    assert len(readings) == 1
