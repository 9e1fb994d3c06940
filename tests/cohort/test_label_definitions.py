"""A file says which codes of which sources make a disease; what is wrong in it is refused in a line."""

import re
from pathlib import Path

import pandas as pd
import pytest

from ecgcmr import cli
from ecgcmr.cohort.labels.merge import read_labels, rules
from ecgcmr.cohort.labels.sources import SOURCES
from ecgcmr.errors import InputError

VISIT = "2016-05-05"
PAPER = """
[cad]
icd10 = ["I20-I25"]
[af]
icd10 = ["I48"]
[dm]
icd10 = ["E10-E14"]
"""


def definitions(folder, text):
    (folder / "diseases.toml").write_text(text)
    return folder / "diseases.toml"


def hospital(folder):
    """Person 1 had a heart attack before the visit, 2 heart failure after it, 3 nothing."""
    frame = pd.DataFrame(
        {
            "eid": [1, 2, 3],
            "p53_i2": VISIT,
            "p41270": ["I219|I10", "I500", None],
            "p41280_a0": ["2015-01-01", "2019-01-01", None],
            "p41280_a1": ["2001-01-01", None, None],
        }
    )
    frame.to_csv(folder / "hospital.csv", index=False)
    return folder / "hospital.csv"


def test_the_papers_definitions_as_a_file_are_the_default(tmp_path):
    written = rules(definitions_file=definitions(tmp_path, PAPER))
    assert written == rules()
    path = hospital(tmp_path)
    assert read_labels([path], written).by_person == read_labels([path]).by_person
    assert read_labels([path], written).audit == read_labels([path]).audit


def test_a_file_adds_diseases_and_replaces_those_of_its_names(tmp_path):
    text = '[HF]\nicd10 = ["I50", "I11.0"]\n[cad]\nicd10 = ["I21-I22"]\n'
    asked = rules(["mi=I21"], definitions_file=definitions(tmp_path, text), allow_empty=True)
    assert [disease.name for disease in asked.diseases] == ["af", "dm", "hf", "cad", "mi"]
    assert asked.words == "hf=I50,I11.0 cad=I21-I22 mi=I21"
    people = read_labels([hospital(tmp_path)], asked).by_person
    assert {key: (row["hf"], row["cad"], row["mi"]) for key, row in people.items()} == {
        "1": (0, 1, 1),
        "2": (1, 0, 0),
        "3": (0, 0, 0),
    }
    assert people["2"]["hf_future"] == 1


def test_a_code_of_a_file_that_matches_nobody_is_a_typo(tmp_path):
    path = definitions(tmp_path, '[hf]\nicd10 = ["I50", "I51"]\n')
    with pytest.raises(
        InputError,
        match=r"diseases\.toml: \[hf\]: I51 matches nobody; correct it, or add --allow-empty",
    ):
        read_labels([hospital(tmp_path)], rules(definitions_file=path))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no disease; write one as"),
        ("# nothing\n", "no disease"),
        ('[cad\nicd10 = ["I20"]\n', "no TOML: .*line 1"),
        ('[cad]\nicd10 = ["I20"\n[af]\nicd10 = ["I48"]\n', "no TOML"),
        ('[cad]\nicd10 = ["I20"]\n[cad]\nicd10 = ["I21"]\n', "no TOML: .*twice.*line 3"),
        ('[cad]\nicd10 = ["I20"]\nicd10 = ["I21"]\n', "no TOML: .*line 3"),
        ('icd10 = ["I20"]\n', "'icd10' stands in no disease; write \\[name\\] above it"),
        ("[cad]\n", "\\[cad\\]: counts no source; name one"),
        ("[cad]\nicd10 = []\n", "\\[cad\\] icd10: no codes; name some"),
        ('[cad]\nicd10 = "I20"\n', "\\[cad\\] icd10: no list; write  icd10 = "),
        ("[cad]\nicd10 = [true]\n", "\\[cad\\] icd10: True is no code"),
        ('[cad]\nicd10 = [["I20"]]\n', "is no code"),
        ("[cad]\nicd10 = [20.5]\n", "20.5 is no code"),
        ("[cad]\nicd10 = [20]\n", "\\[cad\\] icd10: '20' is no ICD-10 code such as I48"),
        ('[cad]\nicd10 = [""]\n', "\\[cad\\] icd10: '' is no ICD-10 code"),
        ('[cad]\nicd10 = ["heart"]\n', "'heart' is no ICD-10 code"),
        ('[cad]\nicd10 = ["I20, I21"]\n', "is no ICD-10 code"),
        ('[cad]\nicd10 = ["I25-I20"]\n', "'I25-I20' is no range"),
        ('[cad]\nicd10 = ["I20-I25", "I21"]\n', "'I21' and 'I20-I25' overlap; remove one"),
        ('[cad]\nicd10 = ["I25.1", "I25"]\n', "'I25' and 'I25.1' overlap"),
        ('[cad]\nicd10 = ["I48", "I48"]\n', "'I48' and 'I48' overlap"),
        (
            '[cad]\nidc10 = ["I20"]\n',
            "\\[cad\\]: unknown source 'idc10'; known: .*; did you mean 'icd10'\\?",
        ),
        ('[cad]\nICD10 = ["I20"]\n', "unknown source 'ICD10'"),
        ('[cad.icd10]\ncodes = ["I20"]\n', "\\[cad\\] icd10: no list"),
        ('["a b"]\nicd10 = ["I20"]\n', "\\[a b\\]: no name of a column"),
        ('[hf_past]\nicd10 = ["I50"]\n', "\\[hf_past\\]: no name of a column"),
        ('[age]\nicd10 = ["I50"]\n', "\\[age\\]: the name is taken"),
        ('[hf]\nicd10 = ["I50"]\n[HF]\nicd10 = ["I51"]\n', "\\[HF\\]: the name is taken"),
    ],
)
def test_files_that_define_nothing_sound(tmp_path, text, words):
    path = definitions(tmp_path, text)
    with pytest.raises(InputError, match=words) as refused:
        rules(definitions_file=path)
    assert str(refused.value).startswith(f"{path}: ")
    assert "\n" not in str(refused.value)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match=r"absent\.toml: no such file of diseases"):
        rules(definitions_file=tmp_path / "absent.toml")
    (tmp_path / "latin.toml").write_bytes("[hf]\n# Herzschwäche\n".encode("latin-1"))
    for path in (tmp_path / "latin.toml", tmp_path):
        with pytest.raises(InputError, match="cannot be read as text in UTF-8"):
            rules(definitions_file=path)
    (tmp_path / "marked.toml").write_text('\ufeff[hf]\nicd10 = ["I50"]\n')
    assert rules(definitions_file=tmp_path / "marked.toml").words == "hf=I50"


def test_a_name_of_both_options_is_taken(tmp_path):
    path = definitions(tmp_path, '[hf]\nicd10 = ["I50"]\n')
    with pytest.raises(InputError, match="--disease hf: the name is taken"):
        rules(["hf=I42"], definitions_file=path)


def test_definitions_without_a_table_are_refused(tmp_path):
    path = definitions(tmp_path, '[hf]\nicd10 = ["I50"]\n')
    with pytest.raises(InputError, match=r"\[hf\]: no table of labels to find it in"):
        read_labels([], rules(definitions_file=path))


def test_the_command_takes_the_file_and_refuses_a_bad_one_with_code_2(tmp_path, capfd):
    table, out = hospital(tmp_path), tmp_path / "labels.csv"
    path = definitions(tmp_path, '[hf]\nicd10 = ["I50"]\n')
    line = ["cohort", "labels", str(table), "--diseases", str(path), "--out", str(out)]
    line += ["--runs", str(tmp_path / "runs")]
    assert cli.main(line) == 0
    assert "| hf | I50 |" in capfd.readouterr().out
    assert "hf_future" in out.read_text()
    out.unlink()
    definitions(tmp_path, '[hf]\nicd01 = ["I50"]\n')
    assert cli.main(line) == 2
    errors = capfd.readouterr().err
    assert "[hf]: unknown source 'icd01'" in errors
    assert "Traceback" not in errors
    assert not out.exists()


def test_the_page_shows_the_default_as_a_file(tmp_path):
    page = (Path(__file__).resolve().parents[2] / "docs" / "labels.md").read_text()
    blocks = re.findall(r"^~~~toml\n(.*?)^~~~$", page, re.DOTALL | re.MULTILINE)
    assert rules(definitions_file=definitions(tmp_path, blocks[0])) == rules()
    both = rules(definitions_file=definitions(tmp_path, blocks[1]))
    assert [disease.name for disease in both.diseases] == ["af", "dm", "cad", "statin"]
    assert {*both.prefixes} == {*SOURCES}
