"""A recording has the values of its own visit or none, and every key that matches nobody is said."""

import pandas as pd
import pytest

from ecgcmr.cohort import linkage
from ecgcmr.cohort.labels import merge
from ecgcmr.cohort.labels.merge import Labels, Rules, read_labels, rules
from ecgcmr.cohort.linkage import SurveyedRecording
from ecgcmr.errors import InputError

SPELLINGS = {"rap": "p{0}_i{1}", "ukbconv": "{0}-{1}.0", "r": "f.{0}.{1}.0"}
VALUES = {  # of visits 2 and 3
    21003: (61, 67),
    24100: (150, 120),
    24103: (60, 45),
    21002: (80, 90),
    53: ("2015-05-05", "2021-06-06"),
}


def ukbb(path, spelling="rap", without=()):
    """Person 1000011, whose atrial fibrillation began on 2018-01-01, between two visits; another ends the records."""
    row = {"f.eid" if spelling == "r" else "eid": 1000011}
    for field, values in VALUES.items():
        for instance, value in zip((2, 3), values, strict=True):
            row[SPELLINGS[spelling].format(field, instance)] = (
                None if (field, instance) in without else value
            )
    codes = {
        "rap": ("p41270_a0", "p41280_a0"),
        "ukbconv": ("41270-0.0", "41280-0.0"),
        "r": ("f.41270.0.0", "f.41280.0.0"),
    }
    row |= dict(zip(codes[spelling], ("I480", "2018-01-01"), strict=True))
    end = {**dict.fromkeys(row), next(iter(row)): 1000099} | dict(
        zip(codes[spelling], ("I10", "2022-01-01"), strict=True)
    )
    pd.DataFrame([row, end]).to_csv(path, index=False)
    return path


def recordings(*names):
    """ECGs and stacks by their files' names: field 20205 is an ECG."""
    return [
        SurveyedRecording(
            "cmr" if "20209" in name else "ecg", f"x:/raw/{name}", name, digest=name, numbers={}
        )
        for name in names
    ]


def rows(labels, *names):
    """Numbers of the rows by the name of their ECG or stack."""
    linked = linkage.link(linkage.sort_out(recordings(*names)), labels, b"k", 0)
    return {(row["ecg"] or row["cmr"]).rpartition("/")[2]: row["numbers"] for row in linked.rows}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_each_visit_has_its_own_values(tmp_path, spelling):
    labels = read_labels([ukbb(tmp_path / "l.csv", spelling)])
    names = [f"1000011_{field}_{visit}_0" for field in (20205, 20209) for visit in (2, 3)]
    by_name = rows(labels, *names)
    first, second = by_name["1000011_20205_2_0"], by_name["1000011_20205_3_0"]
    assert {
        name: first[name]
        for name in ("age", "LVEDV", "LVEF", "weight", "af", "af_past", "af_future")
    } == {"age": 61, "LVEDV": 150, "LVEF": 60, "weight": 80, "af": 1, "af_past": 0, "af_future": 1}
    assert {name: second[name] for name in ("age", "LVEDV", "LVEF", "weight", "af", "af_past")} == {
        "age": 67,
        "LVEDV": 120,
        "LVEF": 45,
        "weight": 90,
        "af": 1,
        "af_past": 1,
    }
    assert "af_future" not in second  # who has it cannot get it


def test_a_failed_segmentation_of_another_visit_refuses_nothing(tmp_path):
    frame = pd.read_csv(ukbb(tmp_path / "l.csv"))
    frame["p24100_i3"] = 0.0
    frame.to_csv(tmp_path / "l.csv", index=False)
    by_name = rows(read_labels([tmp_path / "l.csv"]), "1000011_20205_3_0")
    assert "LVEDV" not in by_name["1000011_20205_3_0"]
    with pytest.raises(InputError, match="LVEDV: no value lies between"):
        read_labels([tmp_path / "l.csv"], Rules(visit=3))


@pytest.mark.parametrize("visit", [2, 3])
def test_the_visit_asked_for_is_that_of_recordings_that_state_none(tmp_path, visit):
    labels = read_labels([ukbb(tmp_path / "l.csv")], Rules(visit=visit))
    by_name = rows(labels, "1000011_20205_2_0", "1000011_20205_3_0")
    assert [by_name[f"1000011_20205_{v}_0"]["age"] for v in (2, 3)] == [61, 67]
    (row,) = rows(labels, "1000011").values()  # ukbb_cardiac's folder
    assert row["age"] == (61 if visit == 2 else 67)


def test_without_values_of_its_visit_nothing_is_known(tmp_path, caplog):
    without = [(field, 3) for field in VALUES]
    labels = read_labels([ukbb(tmp_path / "l.csv", without=without)])
    by_name = rows(labels, "1000011_20205_2_0", "1000011_20205_3_0")
    assert by_name["1000011_20205_3_0"] == {"af": 1, "cad": 0, "dm": 0}
    assert "1 rows are of a visit of which the labels say nothing" in caplog.text
    by_name = rows(labels, "1000011_20205_0_0")  # nor at recruitment
    assert by_name["1000011_20205_0_0"] == {"af": 1, "cad": 0, "dm": 0}


def test_of_two_recordings_that_state_no_visit_neither_has_a_visits_values(tmp_path):
    """`a` and `b` are one person's by the labels file; which of them is of visit 2, nobody says."""
    (tmp_path / "who.csv").write_text("ecg,subject\na,1000011\nb,1000011\n")
    labels = read_labels([ukbb(tmp_path / "l.csv"), tmp_path / "who.csv"])
    assert all(
        "age" not in row and "af_future" not in row for row in rows(labels, "a", "b").values()
    )
    assert rows(labels, "a")["a"]["age"] == 61


def test_a_date_of_visit_in_a_table_is_that_of_the_visit_asked_for(tmp_path):
    (tmp_path / "l.csv").write_text(
        "subject,icd10,date\n1000011,I48,2018-01-01\n1000099,I10,2022-01-01\n"
    )
    (tmp_path / "v.csv").write_text("subject,visit_date\n1000011,2015-05-05\n")
    by_name = rows(
        read_labels([tmp_path / "l.csv", tmp_path / "v.csv"]),
        "1000011_20205_2_0",
        "1000011_20205_3_0",
    )
    assert by_name["1000011_20205_2_0"]["af_future"] == 1
    assert by_name["1000011_20205_3_0"] == {"af": 1, "cad": 0, "dm": 0}
    (tmp_path / "v.csv").write_text(
        "subject,visit,visit_date\n1000011,2,2015-05-05\n1000011,3,2021-06-06\n"
    )
    by_name = rows(
        read_labels([tmp_path / "l.csv", tmp_path / "v.csv"]),
        "1000011_20205_2_0",
        "1000011_20205_3_0",
    )
    assert by_name["1000011_20205_2_0"]["af_future"] == by_name["1000011_20205_3_0"]["af_past"] == 1
    assert "af_future" not in by_name["1000011_20205_3_0"]


def test_measurements_of_a_table_without_visits_are_not_given_to_another(tmp_path):
    (tmp_path / "l.csv").write_text("subject,age,LVEF,smoker\n1000011,61,60,1\n")
    by_name = rows(read_labels([tmp_path / "l.csv"]), "1000011_20205_2_0", "1000011_20205_3_0")
    assert by_name == {
        "1000011_20205_2_0": {"age": 61, "LVEF": 60, "smoker": 1},
        "1000011_20205_3_0": {"smoker": 1},
    }
    (tmp_path / "h.csv").write_text("subject,ecg,age\nann,a,\nann,b,\n")
    (tmp_path / "p.csv").write_text("subject,age\nann,61\n")
    labels = read_labels(
        [tmp_path / "h.csv", tmp_path / "p.csv"]
    )  # no visits anywhere: all of them
    assert rows(labels, "a", "b") == {"a": {"age": 61}, "b": {"age": 61}}


@pytest.mark.parametrize("key", ["{0}_{1}_0", "{0}_20205_{1}_0.xml", "{0}_20209_{1}_0.zip"])
def test_a_key_that_holds_a_visit_is_of_that_visit(tmp_path, key):
    lines = "".join(f"{key.format(1000011, visit)},{age}\n" for visit, age in ((2, 61), (3, 67)))
    (tmp_path / "l.csv").write_text("subject,age\n" + lines)
    by_name = rows(read_labels([tmp_path / "l.csv"]), "1000011_20205_2_0", "1000011_20205_3_0")
    assert [by_name[f"1000011_20205_{v}_0"]["age"] for v in (2, 3)] == [61, 67]


def test_names_without_a_field_are_one_person_too():
    names = [f"10000{i}_{visit}_0" for i in range(11, 41) for visit in (2, 3)]
    linked = linkage.link(linkage.sort_out(recordings(*names)), Labels(), b"k", 0)
    frame = pd.DataFrame(linked.rows)
    assert frame["subject"].nunique() == 30
    assert (frame.groupby("subject")["split"].nunique() == 1).all()
    assert frame["subject"].iloc[0] in {linkage.pseudonym(b"k", f"10000{i}") for i in range(11, 41)}


def test_what_is_written_is_of_its_visit_when_it_is_read_again(tmp_path):
    labels = read_labels([ukbb(tmp_path / "l.csv")])
    for name in ("out.csv", "out.parquet"):
        merge.write_labels(tmp_path / name, labels, [])
        again = read_labels([tmp_path / name])
        assert again.by_person == labels.by_person
        names = ("1000011_20205_2_0", "1000011_20205_3_0")
        assert rows(again, *names) == rows(labels, *names)
    assert (tmp_path / "out.csv").read_text().splitlines()[0].startswith("subject,visit,")


# -- keys --------------------------------------------------------------------------------------------------------------


def matched(labels, *names):
    return linkage.matched_keys(linkage.sort_out(recordings(*names)), labels)


@pytest.mark.parametrize(
    ("unit", "key", "name"),
    [
        ("cmr", "1000011_20209_2_0.zip", "1000011_20209_2_0"),
        ("cmr", "1000011_20209_2_0.tar.xz", "1000011_20209_2_0"),
        ("ecg", "1000011_20205_2_0.xml", "1000011_20205_2_0"),
        ("ecg", "C:\\data\\rec2.hea", "rec2"),
        ("ecg", "data/rec2.scp", "rec2"),
        ("ecg", "rec2.HDF5", "rec2"),
        ("subject", "1000011.0", "1000011_20205_2_0"),
        ("subject", "1.000011e6", "1000011_20205_2_0"),
        ("subject", " 1000011 ", "1000011_20205_2_0"),
        ("subject", "1000011_20205_2_0", "1000011_20205_2_0"),
    ],
)
def test_keys_in_any_dress_match(tmp_path, unit, key, name):
    (tmp_path / "l.csv").write_text(f"{unit},cad\n{key},1\n")
    labels = read_labels([tmp_path / "l.csv"])
    assert matched(labels, name) == {"l.csv": (1, 1)}
    assert rows(labels, name) == {name: {"cad": 1}}


def test_keys_that_match_nobody_are_counted_and_none_is_refused(tmp_path):
    (tmp_path / "l.csv").write_text("ecg,cad\nr1,1\nr2,0\nr9,1\n")
    labels = read_labels([tmp_path / "l.csv"])
    counts = matched(labels, "r1", "r2", "r3")
    assert counts == {"l.csv": (2, 3)}
    assert "labels: 2 of 3 keys matched" in merge.audit_lines({**labels.audit, "matched": counts})
    with pytest.raises(
        InputError, match=r"l\.csv: none of its 3 keys \(`ecg`\) is the name of a recording"
    ):
        matched(labels, "x1")
    (tmp_path / "m.csv").write_text("subject,af\nnobody,1\n")
    both = read_labels([tmp_path / "l.csv", tmp_path / "m.csv"])
    with pytest.raises(InputError, match=r"m\.csv: none of its 1 keys"):
        matched(both, "r1")


def test_visits_of_other_people_make_nobody_healthy(tmp_path):
    (tmp_path / "l.csv").write_text("subject,icd10,date\na,I48,2018-01-01\nb,I10,2018-01-01\n")
    (tmp_path / "v.csv").write_text("subject,visit_date\nA-1,2015-05-05\nB-1,2015-05-05\n")
    with pytest.raises(InputError, match=r"v\.csv: none of its 2 keys has a line of codes"):
        read_labels([tmp_path / "l.csv", tmp_path / "v.csv"])


def test_a_visit_that_is_none_is_refused(tmp_path):
    (tmp_path / "l.csv").write_text("subject,visit,cad\na,first,1\n")
    with pytest.raises(InputError, match="column 'visit' holds 1 entries that are no visit"):
        read_labels([tmp_path / "l.csv"])
    assert rules().visit == 2
