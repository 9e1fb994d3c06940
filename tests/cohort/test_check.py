"""Faults planted one by one in a copied cohort, and found by file and row."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import heart_rows, write_cohort

from ecgcmr import checksums
from ecgcmr.cohort import check, dataset, shards
from ecgcmr.errors import InputError

TRAIN, VAL = "train/shard-00000.parquet", "val/shard-00000.parquet"


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return write_cohort(
        tmp_path_factory.mktemp("check") / "sound",
        heart_rows(40, seed=3, paired=False),
        shard_rows=16,
    )


@pytest.fixture
def copy(sound, tmp_path):
    shutil.copytree(sound.path, tmp_path / "copy")
    return tmp_path / "copy"


def change(path, file, column, row, value):
    """Put another value into one cell of a shard, and the file's new checksum into the manifest."""
    table = pq.read_table(path / file)
    values = table[column].to_pylist()
    values[row] = value(values[row]) if callable(value) else value
    field = table.schema.field(column)
    where = table.schema.names.index(column)
    pq.write_table(
        table.set_column(where, field, pa.array(values, field.type)), path / file, **shards.ONE_PAGE
    )
    sign(path, file)


def sign(path, file):
    """Make checksum and fingerprint right again, so that only the planted fault is left."""
    manifest = json.loads((path / dataset.MANIFEST).read_text())
    for entry in manifest["shards"]:
        if entry["path"] == file:
            entry["sha256"] = checksums.sha256(path / file)
    manifest["fingerprint"] = dataset.digest(
        {"recipe": manifest["recipe_hash"], "shards": manifest["shards"]}
    )
    (path / dataset.MANIFEST).write_text(json.dumps(manifest))


def ecg(edit):
    """A change of one stored ECG."""

    def apply(stored):
        signal = np.frombuffer(stored, np.float16).reshape(12, 5000).copy()
        edit(signal)
        return signal.tobytes()

    return apply


def swap_arms(x):
    x[[1, 2]] = x[[2, 1]]


def faults(path):
    return [str(fault) for fault in check.check(path)]


def test_a_sound_cohort_has_no_fault(sound):
    assert check.check(sound.path) == []


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        (
            "ecg",
            ecg(lambda x: x.__setitem__((3, 7), np.nan)),
            "ECG is not finite, lead aVR sample 7",
        ),
        ("ecg", ecg(lambda x: x.__setitem__((8, 9), 30)), "lead V3 reaches 30 mV"),
        ("ecg", ecg(lambda x: x.__setitem__(11, 0)), "lead V6 is flat"),
        ("ecg", ecg(swap_arms), "limb leads break Einthoven's law"),
        ("cmr", bytes(132300), "CMR frame ES is blank"),
        ("age", 430.0, "'age' is 430, expected 0 to 120"),
        ("sex", 0.5, "'sex' is 0.5, expected 0 or 1"),
        ("af", 2.0, "'af' is 2, expected 0 or 1"),
        ("LVEF", np.inf, "'LVEF' is inf, expected a number"),
        ("cmr", None, "'cmr' is null, the index says otherwise"),
        ("subject", "stranger", "'subject' is stranger, the index says"),
    ],
)
def test_a_fault_in_a_cell_is_found_by_file_and_row(copy, column, value, words):
    change(copy, TRAIN, column, 4, value)
    found = faults(copy)
    assert any(line.startswith(f"{TRAIN} row 4: ") and words in line for line in found), found
    assert all(line.startswith(f"{TRAIN} row 4: ") for line in found), found


def test_a_flipped_byte_breaks_the_checksum(copy):
    with (copy / VAL).open("r+b") as file:
        file.seek(50_000)
        file.write(b"\x7f")
    assert f"{VAL}: checksum is not the manifest's" in faults(copy)


def test_a_truncated_shard(copy):
    (copy / TRAIN).write_bytes((copy / TRAIN).read_bytes()[:100_000])
    assert f"{TRAIN}: truncated or not Parquet" in faults(copy)


def test_a_missing_shard_and_a_stray_one(copy):
    (copy / VAL).rename(copy / "val/shard-00009.parquet")
    found = faults(copy)
    assert f"{VAL}: missing" in found
    assert "val/shard-00009.parquet: not in the manifest" in found


def test_a_missing_column(copy):
    table = pq.read_table(copy / TRAIN)
    pq.write_table(table.drop_columns(["cmr"]), copy / TRAIN)
    sign(copy, TRAIN)
    assert f"{TRAIN}: no column 'cmr'" in faults(copy)


def test_other_types_units_and_counts(copy):
    table = pq.read_table(copy / TRAIN)
    where = table.schema.names.index("ecg")
    field = table.schema.field("ecg").with_metadata(
        {**table.schema.field("ecg").metadata, b"unit": b"uV"}
    )
    table = table.set_column(where, field, table["ecg"]).slice(0, len(table) - 1)
    pq.write_table(table, copy / TRAIN)
    sign(copy, TRAIN)
    found = faults(copy)
    assert f"{TRAIN}: metadata of 'ecg' is not the format's" in found
    assert f"{TRAIN}: 15 rows, the manifest says 16" in found


def test_a_person_in_two_splits(copy):
    index = dataset.open(copy).rows()
    person = index[index["split"] == "train"]["subject"].iloc[0]
    change(copy, VAL, "subject", 2, person)
    index.loc[(index["shard"] == VAL) & (index["row"] == 2), "subject"] = person
    index.to_parquet(copy / dataset.INDEX)
    assert f"{VAL} row 2: subject {person} is in val and in train" in faults(copy)


def test_a_signal_in_two_splits(copy):
    stolen = pq.read_table(copy / TRAIN)["ecg"][4].as_py()
    change(
        copy,
        VAL,
        "ecg",
        1,
        ecg(lambda x: x.__setitem__(slice(None), np.frombuffer(stolen, "f2").reshape(12, 5000))),
    )
    assert faults(copy) == [f"{VAL} row 1: same ECG as {TRAIN} row 4, which is in train"]


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda m: m["rows"].update(train=1), "rows of train: 1, the index has 28"),
        (lambda m: m["recipe"].update(extra=1), "recipe_hash is not the recipe's"),
        (lambda m: m.update(fingerprint="0"), "fingerprint is not that of recipe and shards"),
        (
            lambda m: m["labels"]["af"]["val"].update(positive=99),
            "labels of 'af' are not those of the index",
        ),
    ],
)
def test_a_manifest_that_lies(copy, edit, words):
    manifest = json.loads((copy / dataset.MANIFEST).read_text())
    edit(manifest)
    (copy / dataset.MANIFEST).write_text(json.dumps(manifest))
    assert faults(copy) == [f"{dataset.MANIFEST}: {words}"]


def test_no_cohort(tmp_path):
    with pytest.raises(InputError, match="no cohort; make one with"):
        check.check(tmp_path)
