"""Codes to label columns: absent list is unknown, listed is 1, not listed is 0."""

import pytest

from ecgcmr.cohort import linkage
from ecgcmr.errors import InputError
from ecgcmr.raw import diagnoses


def test_a_list_knows_what_is_absent():
    labels = diagnoses.snomed("164889003, 426177001")
    assert labels["snomed_164889003"] == labels["snomed_426177001"] == labels["af"] == 1
    assert labels["snomed_426783006"] == 0
    assert set(labels.values()) == {0.0, 1.0}
    assert len(labels) == len(diagnoses.SNOMED) + 1


@pytest.mark.parametrize("words", ["", "  ", "Unknown", " , "])
def test_no_list_knows_nothing(words):
    assert diagnoses.snomed(words) == {}
    assert diagnoses.scp([]) == {}


@pytest.mark.parametrize(
    ("words", "af"),
    [
        ("AF,RBBB", 1),
        ("164890007", 1),
        ("314208002", 1),
        ("195080001", 1),
        ("RBBB", 0),
        ("713422000", 0),
    ],
)
def test_af_is_fibrillation_and_flutter(words, af):
    """ICD-10 I48 is both; atrial tachycardia is not in it."""
    assert diagnoses.snomed(words)["af"] == af


def test_a_word_that_is_no_code_leaves_the_absent_unknown():
    labels = diagnoses.snomed("164889003,see report of Mr X")
    assert labels == {"snomed_164889003": 1.0, "af": 1.0}
    assert diagnoses.snomed("426177001,see report of Mr X") == {"snomed_426177001": 1.0}


def test_every_class_of_cpsc_has_a_code():
    assert set(diagnoses.CPSC.values()) <= set(diagnoses.SNOMED)


def test_scp_statements():
    labels = diagnoses.scp({"NORM": 100.0, "LAO/LAE": 0.0})
    assert labels["scp_NORM"] == labels["scp_LAO_LAE"] == 1
    assert labels["af"] == labels["scp_PRC_S_"] == 0
    assert diagnoses.scp(["AFIB"])["af"] == diagnoses.scp(["AFLT"])["af"] == 1
    assert len(diagnoses.SCP) == len(set(diagnoses.SCP)) == 71


def test_columns_fit_in_a_path():
    for label in (*diagnoses.snomed("1234567"), *diagnoses.scp(diagnoses.SCP)):
        assert label.replace("_", "").isalnum()


def test_codes_outside_the_vocabulary_are_completed():
    columns = ["snomed_251170000", "af", "cad"]
    assert diagnoses.complete(diagnoses.snomed("426177001"), columns)["snomed_251170000"] == 0
    assert "cad" not in diagnoses.complete(diagnoses.snomed("426177001"), columns)
    assert diagnoses.complete(diagnoses.snomed("251170000"), columns)["snomed_251170000"] == 1
    assert diagnoses.complete({}, columns) == {}


def test_names():
    assert diagnoses.name("snomed_164889003") == "atrial fibrillation"
    assert diagnoses.name("snomed_1") == "snomed_1"


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ("1,2,50,1,,,__import__('os'),a_lr,a_hr", "line 2"),
        ("1,2,50,1,,,{'NORM',a_lr,a_hr", "line 2"),
        ("1,x,50,1,,,{},a_lr,a_hr", "line 2"),
        ("1,inf,50,1,,,{},a_lr,a_hr", "line 2"),
        ("1,Roe,50,1,,,{},a_lr,a_hr", "line 2"),
        ("1,2,50,1,,,Roe,a_lr,a_hr", "line 2"),
        ("1,2,50,1,,," + "-" * 20_000 + "1,a_lr,a_hr", "line 2"),
        ("1,2,50,1,,,\0,a_lr,a_hr", "line"),
    ],
)
def test_a_bad_table_names_file_and_line(tmp_path, row, what):
    file = tmp_path / "ptbxl_database.csv"
    file.write_text(
        "ecg_id,patient_id,age,sex,height,weight,scp_codes,filename_lr,filename_hr\n" + row + "\n"
    )
    with pytest.raises(InputError, match=what) as caught:
        diagnoses.ptbxl(str(file))
    assert "Roe" not in str(caught.value)


def test_a_table_says_only_what_a_table_of_ptbxl_says(tmp_path):
    """No word that is none of the 71 statements becomes a column, no size that no body has a number."""
    file = tmp_path / "ptbxl_database.csv"
    head = "ecg_id,patient_id,age,sex,height,weight,scp_codes,filename_lr,filename_hr,report\n"
    file.write_bytes(
        head.encode() + b"1,2,50,1,1e308,-4,\"{'IMI': 1, 'Roe': 1}\",a_lr,a_hr,M\xfcller \xff\n"
    )
    found = diagnoses.ptbxl(str(file))["a_hr"]
    assert (found.height, found.weight) == (None, None)
    assert found.labels == {"scp_IMI": 1.0, "scp_class_MI": 1.0}


def test_a_table_without_a_column_is_refused(tmp_path):
    file = tmp_path / "ptbxl_database.csv"
    file.write_text("ecg_id,age\n1,50\n")
    with pytest.raises(InputError, match="scp_codes"):
        diagnoses.ptbxl(str(file))


def test_a_cohort_completes_its_diagnoses_and_drops_those_that_nobody_has():
    normal, rare = diagnoses.snomed("426783006"), diagnoses.snomed("164889003,999999999")
    rows = [{"numbers": {**numbers, "age": 50.0}} for numbers in (normal, rare, {})]
    assert linkage._diagnosed(rows) == (
        "af",
        "snomed_164889003",
        "snomed_426783006",
        "snomed_999999999",
    )
    assert rows[0]["numbers"]["snomed_999999999"] == 0  # a full list that does not name it
    assert rows[2]["numbers"] == {"age": 50.0}  # no list: nothing is known
