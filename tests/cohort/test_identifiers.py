"""One id has many spellings, and two spellings of it must not miss each other."""

import pytest

from ecgcmr.cohort import identifiers


@pytest.mark.parametrize(
    "text",
    [
        "1000022",
        " 1000022 ",
        "1000022.0",
        "1000022.00",
        "1000022,0",
        "1.000022e6",
        "1.000022E+06",
        "1,000,022",
        "1 000 022",
        "1'000'022",
        "1.000.022",
        '"1000022"',
        "'1000022'",
        '="1000022"',
        "\ufeff1000022",
        "1000\u200b022",
        "\u00a01000022\u00a0",
        "１００００２２",
    ],
)
def test_a_number_is_one_id_however_it_is_written(text):
    assert identifiers.clean(text) == "1000022"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("1000011_20209_2_0.zip", "1000011_20209_2_0"),
        ("1000022_20209_2_0.tar.xz", "1000022_20209_2_0"),
        ("1000011_20205_2_0.XML", "1000011_20205_2_0"),
        ("bulk/20205/1000011_20205_2_0.xml", "1000011_20205_2_0"),
        ("C:\\data\\rec2.hea", "rec2"),
        ("\\\\server\\share\\A0001.scp", "A0001"),
        ("records/A0001.hea", "A0001"),
        ("exams_part0.hdf5#17", "exams_part0-17"),
        ("stacks/1000011/sa.nii.gz", "1000011"),
        ("A-1_b", "A-1_b"),
        ("123456789012e345", "123456789012e345"),  # a pseudonym is no number in powers of ten
        ("P.12", "P.12"),
        ("0012", "0012"),
        ("", ""),
        (" \u200b ", ""),
    ],
)
def test_names_of_files(text, name):
    assert identifiers.clean(text) == name
    assert identifiers.clean(name) == name


def test_uk_biobanks_names_hold_person_and_visit():
    assert identifiers.participant("1000011_20205_2_0") == ("1000011", "2")
    assert identifiers.participant("1000011_3_0") == ("1000011", "3")
    assert identifiers.participant("1000011") == (None, None)
    assert identifiers.participant("12_3_0") == (None, None)  # seven digits, or a field between


def test_a_rounded_number_is_known():
    assert identifiers.is_rounded("1.00E+06")
    assert identifiers.is_rounded("1e6")
    assert not identifiers.is_rounded("1.000022e6")
    assert not identifiers.is_rounded("1000000")


def test_a_shape_says_no_name():
    assert identifiers.shape("Maria 1958") == "Aaaaa 9999"
    assert identifiers.shape("1" * 99) == "9" * 24 + "…"
