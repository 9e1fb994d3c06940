"""Labels files: what counts as a diagnosis and when, what passes into a cohort, and what is refused."""

import datetime
import gzip
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ecgcmr import cli, tasks
from ecgcmr.cohort import linkage
from ecgcmr.cohort.labels import icd10, layout, merge, tables, ukbb_tables
from ecgcmr.cohort.labels.merge import Rules, read_labels, rules
from ecgcmr.errors import InputError

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
SPELLINGS = {
    "ukbconv": ("eid", "{field}-{instance}.{array}"),
    "r": ("f.eid", "f.{field}.{instance}.{array}"),
    "platform": ("eid", "p{field}_i{instance}_a{array}"),
}


def column(spelling, field, instance, array=0):
    """A field as UK Biobank's three tools name it; the platform leaves out what a field has once."""
    name = SPELLINGS[spelling][1].format(field=field, instance=instance, array=array)
    if spelling == "platform":
        name = name if field in (41270, 41280) else name.removesuffix(f"_a{array}")
        name = name.replace("_i0", "") if field in (31, 41270, 41280) else name
    return name


def write(path, rows):
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def people(found, *names):
    """{person: (values of the columns, None for unknown)}."""
    return {key: tuple(row.get(name) for name in names) for key, row in found.by_person.items()}


def ukbb(path, spelling, persons):
    """A wide table; persons: eid -> (visit, [(array, code, date)])."""
    key = SPELLINGS[spelling][0]
    places = sorted({place for _, coded in persons.values() for place, _, _ in coded}, reverse=True)
    rows = []
    for eid, (visit, coded) in persons.items():
        given = {place: (code, day) for place, code, day in coded}
        row = {key: eid}
        # Dates in the other order than codes: what belongs together is told by the index alone.
        row |= {column(spelling, 41280, 0, p): given.get(p, ("", ""))[1] for p in reversed(places)}
        row |= {column(spelling, 53, 2): visit}
        row |= {column(spelling, 41270, 0, p): given.get(p, ("", ""))[0] for p in places}
        rows.append(row)
    return write(path, rows)


# -- ICD-10 ------------------------------------------------------------------------------------------------------------

VISIT = "2016-05-05"
PERSONS = {
    1: (
        VISIT,
        [(0, "I251", "2016-05-05"), (7, "I480", "2016-05-06")],
    ),  # CAD on the day, AF a day later
    2: (VISIT, [(3, "I259", "2020-01-01"), (7, "I10", "2001-01-01")]),
    3: (VISIT, []),
    4: (VISIT, [(0, "E119", "")]),  # no date
    5: ("", [(0, "I209", "2010-01-01")]),  # no visit
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_the_three_spellings_of_uk_biobank_say_the_same(tmp_path, spelling):
    found = read_labels([ukbb(tmp_path / "u.csv", spelling, PERSONS)])
    assert people(found, "cad", "cad_past", "cad_future") == {
        "1": (1, 1, None),  # who has it cannot get it
        "2": (1, 0, 1),
        "3": (0, 0, 0),  # in the table and without a code: no diagnosis
        "4": (0, 0, 0),
        "5": (1, None, None),
    }
    assert people(found, "af", "af_past", "af_future")["1"] == (1, 0, 1)
    assert people(found, "dm", "dm_past", "dm_future")["4"] == (1, None, None)
    assert found.by_person.get("6") is None  # not in the table: unknown


@pytest.mark.parametrize(
    "joined", ["|".join, json.dumps, str, list], ids=["pipes", "json", "python", "parquet"]
)
def test_codes_in_one_cell_pair_with_dates_by_their_place(tmp_path, joined):
    codes = [["I10", "I251", "I480"], [], ["I480"]]
    table = {
        "participant.eid": ["1", "2", "3"],
        "participant.p41270": [joined(words) if words else None for words in codes],
        "participant.p41280_a2": ["2020-01-01", None, None],
        "participant.p41280_a0": ["2001-01-01", None, "2002-01-01"],
        "participant.p41280_a1": ["2003-03-04", None, None],
        "participant.p53_i2": [VISIT] * 3,
    }
    pq.write_table(pa.table(table), tmp_path / "u.parquet")
    found = read_labels([tmp_path / "u.parquet"])
    assert people(found, "cad_past", "af_past", "af_future") == {
        "1": (1, 0, 1),
        "2": (0, 0, 0),
        "3": (0, 1, None),
    }


def test_a_shuffled_array_mixes_nothing(tmp_path):
    """Thirty diagnoses at random places: each disease begins at the date that stands at its code's index."""
    rng = np.random.default_rng(0)
    pool, persons, truth = ["I251", "I480", "E110", "J45", "K21"], {}, {}
    for eid in range(40):
        places = rng.permutation(30)[:8]
        days = [str(np.datetime64("2010-01-01") + int(d)) for d in rng.integers(0, 4000, 8)]
        coded = [
            (int(p), pool[i % 5], day) for i, (p, day) in enumerate(zip(places, days, strict=True))
        ]
        persons[eid] = (VISIT, coded)
        truth[str(eid)] = tuple(
            float(min(day for _, code, day in coded if code == word) <= VISIT) for word in pool[:3]
        )
    found = read_labels([ukbb(tmp_path / "u.csv", "r", persons)])
    assert people(found, "cad_past", "af_past", "dm_past") == truth


def test_every_four_character_code_of_the_papers_diseases_counts(tmp_path):
    """The authors' list lost I24.9 and I25.0 to a missing comma, and never had I23."""
    codes = [
        f"{three}{n}"
        for three in (*(f"I{n}" for n in range(20, 26)), "I48", *(f"E{n}" for n in range(10, 15)))
        for n in ("", *range(10))
    ]
    found = read_labels(
        [
            ukbb(
                tmp_path / "u.csv",
                "ukbconv",
                {n: (VISIT, [(0, c, VISIT)]) for n, c in enumerate(codes)},
            )
        ]
    )
    has = people(found, "cad", "af", "dm")
    for n, code in enumerate(codes):
        assert has[str(n)] == (code[:2] == "I2", code[:3] == "I48", code[0] == "E"), code
    account = found.audit["icd10"]["diseases"]["cad"]
    assert account["n"] == 66
    assert (
        account["by_code"]["I24.9"]
        == account["by_code"]["I25.0"]
        == account["by_code"]["I23.0"]
        == 1
    )
    assert account["by_code"]["I23"] == 11
    assert account["nobody"] == []


@pytest.mark.parametrize("code", ["I26", "I19", "I470", "E150", "Z951"])
def test_neighbours_do_not_count(tmp_path, code):
    persons = {n: (VISIT, [(0, "K21", VISIT)]) for n in range(3)} | {9: (VISIT, [(0, code, VISIT)])}
    assert people(read_labels([ukbb(tmp_path / "u.csv", "r", persons)]), "cad", "af", "dm")[
        "9"
    ] == (0, 0, 0)


@pytest.mark.parametrize(
    "code", ["I25.1", "i251", " I251 ", "I25.10", "I2510", "I25.1 Atherosclerotic heart disease"]
)
def test_codes_in_any_dress(tmp_path, code):
    write(tmp_path / "l.csv", [{"subject": "a", "icd10": code}])
    found = read_labels([tmp_path / "l.csv"])
    assert people(found, "cad") == {"a": (1,)}
    assert found.audit["icd10"]["diseases"]["cad"]["by_code"] == {"I25": 1, "I25.1": 1}


def test_long_form_with_a_table_of_visits(tmp_path):
    long = [
        ("a", "I251", "2016-05-06"),
        ("a", "I209", "2016-05-05"),
        ("b", "I48", ""),
        ("c", "K21", "2001-01-01"),
    ]
    write(
        tmp_path / "l.csv",
        [dict(zip(("subject", "icd10", "date"), row, strict=True)) for row in long],
    )
    write(tmp_path / "v.csv", [{"subject": name, "visit_date": VISIT} for name in "abcd"])
    found = read_labels([tmp_path / "l.csv", tmp_path / "v.csv"])
    assert people(found, "cad_past", "af", "af_past", "dm") == {
        "a": (1, 0, 0, 0),
        "b": (0, 1, None, 0),
        "c": (0, 0, 0, 0),
        "d": (0, 0, 0, 0),
    }
    assert found.audit["icd10"]["diseases"]["af"]["undated"] == 1
    alone = read_labels([tmp_path / "l.csv"])
    assert "d" not in alone.by_person  # without a row and without a visit nothing is known
    assert "cad_past" not in alone.by_person["a"]


def test_mimics_lists_are_by_recording_and_an_empty_one_is_unknown(tmp_path):
    rows = [
        {
            "study_id": 40000001,
            "subject_id": 1001,
            "ecg_time": "2180-07-23 08:44:00",
            "gender": "F",
            "age": 60,
            "all_diag_hosp": "['I2510', 'E785']",
            "all_diag_all": "['I2510', 'E785']",
        },
        {
            "study_id": 40000002,
            "subject_id": 1001,
            "ecg_time": "2180-07-23 08:44:00",
            "gender": "F",
            "age": 61,
            "all_diag_hosp": "[]",
            "all_diag_all": "['I4891']",
        },
    ]
    write(tmp_path / "records_w_diag_icd10.csv", rows)
    found = read_labels([tmp_path / "records_w_diag_icd10.csv"])
    assert found.by_ecg["40000001"] == {"age": 60, "sex": 0, "cad": 1, "af": 0, "dm": 0}
    assert found.by_ecg["40000002"] == {"age": 61, "sex": 0}
    assert found.person_of_ecg == {"40000001": "1001", "40000002": "1001"}
    wide = read_labels([tmp_path / "records_w_diag_icd10.csv"], Rules(codes="all_diag_all"))
    assert wide.by_ecg["40000002"]["af"] == 1


@pytest.mark.parametrize(
    "text", ["[__import__('os').system('true')]", "['I251'", "['I251', open('/etc/passwd')]"]
)
def test_a_list_is_text_and_nothing_of_it_runs(tmp_path, text):
    rows = [{"study_id": n, "all_diag_hosp": "['I251', 'I10']"} for n in range(3)]
    write(tmp_path / "l.csv", [*rows, {"study_id": 9, "all_diag_hosp": text}])
    found = read_labels([tmp_path / "l.csv"])
    assert "9" not in found.by_ecg or "cad" not in found.by_ecg["9"]
    assert found.audit["icd10"]["no_codes"] == 1


def test_a_damaged_list_of_uk_biobank_is_unknown_and_not_health(tmp_path):
    rows = [{"eid": n, "p41270": "I10|J45"} for n in range(3)]
    found = read_labels([write(tmp_path / "l.csv", [*rows, {"eid": 9, "p41270": "['I251'"}])])
    assert {key for key, row in found.by_person.items() if "cad" in row} == {"0", "1", "2"}


def test_the_end_of_the_records(tmp_path):
    path = ukbb(tmp_path / "u.csv", "r", {**PERSONS, 8: ("2021-01-01", [])})
    found = read_labels([path])
    assert found.audit["icd10"]["end"] == "2020-01-01"
    assert people(found, "cad_past", "cad_future")["8"] == (
        0,
        None,
    )  # seen after the end: nobody knows what came then
    early = read_labels([path], rules(censored="2016-05-05"))
    assert people(early, "cad", "af")["2"] == (0, 0)
    assert people(early, "af", "af_past")["1"] == (0, 0)
    assert early.audit["icd10"]["after_end"] == 2
    assert "2016-05-05 (as asked)" in "\n".join(merge.audit_lines(early.audit))


def test_stand_ins_for_dates_are_no_dates(tmp_path):
    persons = {1: (VISIT, [(0, "I251", "2037-07-07")]), 2: (VISIT, [(0, "I480", "2018-01-01")])}
    found = read_labels([ukbb(tmp_path / "u.csv", "r", persons)])
    assert people(found, "cad", "cad_past", "cad_future")["1"] == (1, None, None)
    assert found.audit["icd10"]["end"] == "2018-01-01"


# -- diseases asked for ------------------------------------------------------------------------------------------------


def test_a_disease_of_ones_own(tmp_path):
    persons = {
        1: (VISIT, [(0, "I501", VISIT)]),
        2: (VISIT, [(0, "I110", VISIT)]),
        3: (VISIT, [(0, "I119", VISIT)]),
        4: (VISIT, [(0, "I429", VISIT)]),
    }
    found = read_labels([ukbb(tmp_path / "u.csv", "r", persons)], rules(["HF=I50,I11.0,I41-I43"]))
    assert people(found, "hf", "hf_past") == {"1": (1, 1), "2": (1, 1), "3": (0, 0), "4": (1, 1)}
    account = found.audit["icd10"]["diseases"]["hf"]
    assert account["nobody"] == ["I41", "I43"]
    assert "I41 matches nobody; I43 matches nobody" in "\n".join(merge.audit_lines(found.audit))


def test_a_code_that_matches_nobody_is_a_typo(tmp_path):
    path = ukbb(tmp_path / "u.csv", "r", PERSONS)
    with pytest.raises(
        InputError, match=r"--disease mi: I24.9 matches nobody; correct it, or add --allow-empty"
    ):
        read_labels([path], rules(["mi=I25,I24.9"]))
    found = read_labels([path], rules(["mi=I25,I24.9"], allow_empty=True))
    assert "I24.9 matches nobody" in "\n".join(merge.audit_lines(found.audit))


@pytest.mark.parametrize(
    "text",
    [
        "I50",
        "=I50",
        "hf=",
        "hf=heart",
        "hf=I249I250",
        "hf='I249' 'I250'",
        "hf=I25-I20",
        "hf=I20-E25",
        "hf=I20-I251",
        "hf=I20-I22-I24",
        "a b=I50",
        "../x=I50",
        "hf_past=I50",
        "age=I50",
        "lvef.=I50",
    ],
)
def test_definitions_that_are_none(text):
    with pytest.raises(InputError, match=r"--disease|no ICD-10 code|no range"):
        rules([text])


def test_a_definition_takes_the_place_of_the_papers():
    assert [d.name for d in rules(["cad=I21"]).diseases] == ["af", "dm", "cad"]
    assert rules(["cad=I21"]).words == "cad=I21"
    assert Rules().words == ""
    with pytest.raises(InputError, match="the name is taken"):
        rules(["hf=I50", "hf=I42"])
    with pytest.raises(InputError, match="not a date"):
        rules(censored="31/10/2022")


def test_a_disease_without_codes_is_refused(tmp_path):
    with pytest.raises(InputError, match="none of the labels files holds ICD-10 codes"):
        read_labels([write(tmp_path / "l.csv", [{"subject": "a", "cad": 1}])], rules(["hf=I50"]))


# -- numbers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_fields_of_uk_biobank(tmp_path, spelling):
    row = {SPELLINGS[spelling][0]: "7", column(spelling, 31, 0): 1, column(spelling, 24103, 3): 11}
    row |= {
        column(spelling, 21003, 0): 48,
        column(spelling, 21003, 2): 61,
        column(spelling, 21002, 2): 75.5,
    }
    row |= {column(spelling, 12144, 2): 171, column(spelling, 50, 2): 170}
    row |= {
        column(spelling, 24103, 2): 55.5,
        column(spelling, 24110, 2): 77,
        column(spelling, 24140, 2): 6.1,
    }
    row |= {
        column(spelling, 24141, 2): -21,
        column(spelling, 24157, 2): -22,
        column(spelling, 24174, 2): 44,
    }
    row |= {column(spelling, 34, 0): 1955}
    found = read_labels([write(tmp_path / "u.csv", [row])])
    assert found.by_person == {
        "7": {
            "age": 61,
            "sex": 1,
            "height": 170,
            "weight": 75.5,
            "LVEF": 55.5,
            "WT_Global": 6.1,
            "Ecc_AHA_1": -21,
            "Ecc_Global": -22,
            "Err_Global": 44,
        }
    }
    again = read_labels([tmp_path / "u.csv"], Rules(visit=3))
    assert again.by_person == {"7": {"sex": 1, "LVEF": 11}}


def test_every_phenotype_has_its_field():
    names = {name: field for field, name in ukbb_tables.FIELDS.items()}
    assert [names[name] for name in tasks.PHENOTYPES] == [
        *range(24100, 24110),
        *range(24124, 24175),
    ]
    assert names["WT_AHA_10"] == 24133
    assert names["Ecc_AHA_2"] == 24142
    assert names["Err_AHA_1"] == 24158


def test_ukbb_cardiacs_table_has_units_in_its_names_and_its_ids_unnamed(tmp_path):
    (tmp_path / "p.csv").write_text(
        ",LVEDV (mL),LVEF (%),RVEF (%)\n11,150.5,60,-inf\n12,0.0,55,50\n"
    )
    found = read_labels([tmp_path / "p.csv"])
    assert (
        found.by_person
        == found.by_cmr
        == {"11": {"LVEDV": 150.5, "LVEF": 60}, "12": {"LVEF": 55, "RVEF": 50}}
    )
    both = read_labels(
        [
            tmp_path / "p.csv",
            write(tmp_path / "d.csv", [{"eid": 11, "age": 60}, {"eid": 13, "age": 61}]),
        ]
    )
    merge.write_labels(tmp_path / "out.parquet", both, [])
    assert read_labels([tmp_path / "out.parquet"]).by_person == both.by_person
    assert "2 keys" not in "\n".join(merge.audit_lines(found.audit))
    assert "<5 keys of `subject` or `cmr`" in "\n".join(merge.audit_lines(found.audit))


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("LVEDV", (0.15, 0.12, 0.2), "LVEDV: the median is 0.15, expected 5 to 800 mL"),
        ("LVEF", (0.6, 0.55, 0.7), "LVEF: the median is 0.6, expected 3 to 98 %"),
        ("LVCO", (5100, 4700, 6000), "LVCO: no value lies between 0 and 40"),
        ("LVM", (0.09, 0.1, 0.12), "LVM"),
        ("WT_AHA_3", (0.6, 0.7, 0.8), "expected 1.5 to 40 mm"),
        ("Ecc_Global", (-0.2, -0.18, -0.22), "expected -70 to -1.5 %"),
        ("Ecc_Global", (20, 18, 22), "Ecc_Global"),
        ("height", (1.7, 1.8, 1.6), "height: no value lies between 50 and 250"),
        ("height", (67, 70, 65), "height: the median is 67, expected 100 to 220 cm"),
        ("age", (22000, 23000, 25000), "age"),
        ("LVEDV (L)", (0.15, 0.12, 0.2), r"column 'LVEDV \(L\)' is in L; LVEDV is wanted in mL"),
        ("sex", (1, 2, 1), "sex: 1 numbers other than 0 and 1; write 0 or F for women"),
    ],
)
def test_another_unit_is_refused(tmp_path, name, values, words):
    write(tmp_path / "l.csv", [{"subject": n, name: value} for n, value in enumerate(values)])
    with pytest.raises(InputError, match=words):
        read_labels([tmp_path / "l.csv"])


def test_only_numbers_of_known_meaning_pass(tmp_path, caplog):
    rows = [
        {
            "subject": "a",
            "birth_date": "1960-01-01",
            "name": "Ann Other",
            "patient_id": 0,
            "flag": "True",
            "score": 7,
            "hospital": "0",
            "blank": "",
            "icd": "I25",
        },
        {
            "subject": "b",
            "birth_date": "1961-01-01",
            "name": "0",
            "patient_id": 1,
            "flag": "False",
            "score": 1,
            "hospital": "",
            "blank": "",
            "icd": "1",
        },
    ]
    found = read_labels([write(tmp_path / "l.csv", rows)])
    assert found.by_person == {"a": {"flag": 1, "hospital": 0}, "b": {"flag": 0}}
    assert "Ann" not in caplog.text + json.dumps(found.audit)
    assert "1960" not in caplog.text + json.dumps(found.audit)


# -- files -------------------------------------------------------------------------------------------------------------


def test_files_are_merged_and_a_disagreement_is_counted_and_not_named(tmp_path):
    a = write(tmp_path / "a.csv", [{"subject": "maria", "cad": 1}, {"subject": "bob", "cad": 0}])
    b = write(
        tmp_path / "b.csv",
        [{"subject": "maria", "cad": 1, "age": 60}, {"subject": "eve", "cad": 1}],
    )
    c = write(tmp_path / "c.csv", [{"record": "r1", "subject": "bob", "af": 1}])
    found = read_labels([a, b, c])
    assert found.by_person == {"maria": {"cad": 1, "age": 60}, "bob": {"cad": 0}, "eve": {"cad": 1}}
    assert found.by_ecg == {"r1": {"af": 1}}
    assert found.person_of_ecg == {"r1": "bob"}
    d = write(tmp_path / "d.csv", [{"subject": "maria", "cad": 0}, {"subject": "bob", "cad": 1}])
    with pytest.raises(
        InputError, match=r"a\.csv and d\.csv disagree on 'cad' of 2 people"
    ) as refused:
        read_labels([a, d])
    assert "maria" not in str(refused.value)


def test_codes_and_a_column_of_the_same_name_must_agree(tmp_path):
    path = ukbb(tmp_path / "u.csv", "r", PERSONS)
    mine = write(tmp_path / "a.csv", [{"subject": 3, "cad": 1}, {"subject": 1, "cad": 1}])
    with pytest.raises(
        InputError, match=r"a\.csv and the ICD-10 codes disagree on 'cad' of 1 people"
    ):
        read_labels([mine, path])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("eid,41280-0.0\n1,2001-01-01\n", "dates of diagnoses .* without their codes"),
        (
            "eid,41270-0.0,41280-0.0\n1,I251,26/11/2019\n",
            "column '41280-0.0' holds 1 entries that are no dates",
        ),
        ("eid,41270-0.0,41280-0.0\n1,I251,2019-02-31\n", "no dates"),
        ("eid,41270-0.0\n1,yes\n2,no\n", "2 of 2 entries are no ICD-10 codes"),
        ("eid,41270-0.0\n12345,I251\n12345,I10\n", "1 of the keys stand in more than one line"),
        ("eid,subject,cad\n1,2,1\n", "'subject' and 'eid' both name the subject"),
        ("subject,cad,cad\n1,1,1\n", "column 'cad' stands twice"),
        ("subject,cad\n", "no rows"),
        (
            "subject,cad\n12345,1,2\n",
            "cannot be read as a table: expected 2 columns, got 3; export it again",
        ),
        (
            "subject,icd10,visit_date\na,I251,2016-01-01\na,I10,2017-01-01\n",
            "1 keys have more than one",
        ),
    ],
)
def test_bad_tables(tmp_path, text, words):
    (tmp_path / "l.csv").write_text(text)
    with pytest.raises(InputError, match=words) as refused:
        read_labels([tmp_path / "l.csv"])
    assert "12345" not in str(refused.value)  # Arrow quotes the line


@pytest.mark.parametrize("name", ["l.csv", "l.parquet", "l.csv.gz"])
def test_what_is_no_table_is_refused_in_a_line(tmp_path, name):
    for content in (
        b"",
        b"\0\1\2\xff\xfe" * 50,
        b"subject,cad\n12345\xff,1\n",
        gzip.compress(b"subject,cad\n1,1\n")[:-9],
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError) as refused:
            read_labels([tmp_path / name])
        assert "\n" not in str(refused.value)
        assert "12345" not in str(refused.value)
    pq.write_table(pa.table({"subject": [{"a": 1}], "cad": [1]}), tmp_path / "nested.parquet")
    with pytest.raises(InputError, match="cannot be read as a table"):
        read_labels([tmp_path / "nested.parquet"])
    with pytest.raises(InputError, match="no such labels file"):
        read_labels([tmp_path / "absent.csv"])


def test_dresses_of_a_table(tmp_path):
    """Tab-separated, gzipped, with a byte-order mark; as Parquet with dates and numbers typed."""
    (tmp_path / "l.tab").write_bytes(
        b"\xef\xbb\xbff.eid\tf.41270.0.0\tf.41280.0.0\n1\tI251\t2001-01-01\n"
    )
    (tmp_path / "l.csv.gz").write_bytes(gzip.compress((tmp_path / "l.tab").read_bytes()))
    day = datetime.date(2001, 1, 1)
    table = pa.table(
        {
            "f.eid": [1.0],
            "f.41270.0.0": pa.array(["I251"]).dictionary_encode(),
            "f.41280.0.0": [day],
        }
    )
    pq.write_table(table, tmp_path / "l.parquet")
    for path in sorted(tmp_path.iterdir()):
        found = read_labels([path])
        assert people(found, "cad") == {"1": (1,)}
        assert found.audit["icd10"]["end"] == "2001-01-01"


def test_pieces_of_a_file_are_one_file(tmp_path, monkeypatch):
    rng = np.random.default_rng(1)
    persons = {
        n: (VISIT, [(int(p), "I251", f"20{10 + n % 12}-01-01") for p in rng.permutation(9)[:2]])
        for n in range(300)
    }
    path = ukbb(tmp_path / "u.csv", "r", persons)
    whole = read_labels([path])
    monkeypatch.setattr(tables, "BLOCK", 2048)
    assert len(list(tables.pieces(path, ["f.eid"]))) > 5
    parts = read_labels([path])
    assert parts.by_person == whole.by_person
    assert parts.audit == whole.audit


def test_memory_does_not_follow_the_file(tmp_path):
    """A table of 64 MB, of which two columns are wanted, adds a small part of its size to the peak of a small one."""
    names = [
        "eid",
        "cad",
        *(f"note_{n}" for n in range(10)),
        *(f"{30000 + n}-0.0" for n in range(250)),
    ]
    filler = ",".join(["some words of a free text"] * 10 + ["123456"] * 250)
    for name, rows in (("small.csv", 1000), ("large.csv", 32_000)):
        lines = "".join(f"{n},{n % 2},{filler}\n" for n in range(rows))
        (tmp_path / name).write_text(",".join(names) + "\n" + lines)
    code = (
        "import resource, sys; from pathlib import Path; from ecgcmr.cohort.labels import merge, tables\n"
        "tables.BLOCK = 2**20\n"
        "for path in sys.argv[1:]:\n"
        "    found = merge.read_labels([Path(path)])\n"
        "    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10, len(found.by_person))"
    )
    files = [str(tmp_path / name) for name in ("small.csv", "large.csv")]
    said = subprocess.run(
        [sys.executable, "-c", code, *files], capture_output=True, check=True, text=True
    ).stdout
    (before, _), (after, people) = (map(int, line.split()) for line in said.splitlines())
    assert people == 32_000
    assert (tmp_path / "large.csv").stat().st_size > 60e6
    assert after - before < 40, said


# -- audit and command -------------------------------------------------------------------------------------------------


def test_small_numbers_are_not_shown(tmp_path):
    persons = {n: (VISIT, [(0, "I251" if n < 4 else "I480", VISIT)]) for n in range(12)}
    found = read_labels([ukbb(tmp_path / "u.csv", "r", persons)])
    text = "\n".join(merge.audit_lines(found.audit))
    assert "| cad | I20-I25 | <5 | <5 | 0 | 0 | 0 |" in text
    assert "I25.1 <5" in text
    assert "| af | I48 | 8 | 8 | 0 | 0 | 0 |" in text
    assert found.audit["icd10"]["diseases"]["cad"]["n"] == 4  # exact beside the rows themselves


def test_the_command_writes_what_it_reads_again(tmp_path, capfd):
    path = ukbb(tmp_path / "u.csv", "r", PERSONS)
    out = tmp_path / "labels.csv"
    arguments = ["cohort", "labels", str(path), "--out", str(out), "--runs", str(tmp_path / "runs")]
    assert cli.main(arguments) == 0
    assert "| cad | I20-I25 |" in capfd.readouterr().out
    assert read_labels([out]).by_person == read_labels([path]).by_person
    assert "2016" not in out.read_text()
    assert cli.main([*arguments, "--disease", "mi=I26"]) == 2
    assert "I26 matches nobody" in capfd.readouterr().err
    assert (
        cli.main(
            ["cohort", "labels", str(path), "--out", str(path), "--runs", str(tmp_path / "runs")]
        )
        == 2
    )


def test_a_pair_takes_the_labels_of_its_person(tmp_path):
    path = ukbb(tmp_path / "u.csv", "r", PERSONS)
    found = [
        linkage.SurveyedRecording("ecg", "x", "1_20205_2_0", person="1", digest="d", numbers={})
    ]
    (row,) = linkage.link(linkage.sort_out(found), read_labels([path]), b"k", 0).rows
    assert row["numbers"]["cad"] == row["numbers"]["cad_past"] == 1
    assert "cad_future" not in row["numbers"]


def test_the_page_shows_what_happens(tmp_path, capfd, monkeypatch):
    text = (Path(__file__).resolve().parents[2] / "docs" / "labels.md").read_text()
    table, screen, out = re.findall(r"^```\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    (tmp_path / "hospital.csv").write_text(table)
    monkeypatch.chdir(tmp_path)
    command, _, shown = screen.partition("\n")
    assert cli.main(command.removeprefix("$ ecgcmr ").split()) == 0
    assert capfd.readouterr().out == shown
    assert (tmp_path / "labels.csv").read_text() == out


# -- real files --------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not SHARED.exists(), reason="no shared data here")
def test_a_real_table_of_ukbb_cardiac():
    (path,) = (SHARED / "phenotypes").glob("dsb2015*.csv")
    found = read_labels([path])
    assert len(found.by_cmr) == 1396
    assert found.by_cmr["1"]["LVEDV"] == pytest.approx(242.179, abs=1e-3)
    counted = found.audit["columns"]["cmr"]["columns"]
    assert counted["LVEDV"]["n"] == 1390  # six volumes of 0
    assert np.isfinite(found.by_cmr.frame["RVEF"].dropna()).all()


def test_helpers_of_codes():
    assert icd10.expand("I20–I22") == ("I20", "I21", "I22")
    assert icd10.expand("E10.0-E10.2") == ("E100", "E101", "E102")
    assert icd10.dotted("I2510") == "I25.10"
    assert icd10.clean("I25-") is None
    assert ukbb_tables.column("p31").instance is None
    assert ukbb_tables.column("41270-0.17").array == 17
    assert ukbb_tables.column("p24100_i2") == ukbb_tables.Column(24100, 2, None)
    assert ukbb_tables.column("LVEF") is None
    assert layout.KEYS.keys() == {"subject", "ecg", "cmr"}
