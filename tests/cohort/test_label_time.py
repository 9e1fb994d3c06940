"""Days from a visit to a disease or to the end of follow-up: right by hand, checked, and mistaken for no label."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import LABELS, heart_rows, write_cohort

from ecgcmr import cli, tasks
from ecgcmr.cohort import build, check, dataset, linkage, prepare, staging, withdraw
from ecgcmr.cohort.labels import merge
from ecgcmr.cohort.labels.merge import read_labels, rules
from ecgcmr.data import examples
from ecgcmr.errors import InputError
from ecgcmr.report import appendix

RECORDINGS = Path(__file__).resolve().parents[1] / "recordings" / "wfdb"
STYLES = {"rap": "p{0}_i{1}_a{2}", "ukbconv": "{0}-{1}.{2}", "r": "f.{0}.{1}.{2}"}
SECOND, THIRD, END = "2016-05-05", "2019-06-06", "2022-10-31"
CODE, DAY, DEATH, LOST = (41270, 0, 0), (41280, 0, 0), (40000, 0, 0), (191, 0, 0)
NONE = (None, None)
PEOPLE = {
    1: {CODE: "I251", DAY: "2018-01-01"},
    2: {CODE: "I251", DAY: "2010-01-01"},  # before the visit
    3: {CODE: "I251", DAY: SECOND},  # on its day
    4: {},
    5: {CODE: "I251", DAY: "2022-12-01"},  # after the end
    6: {DEATH: "2020-01-01"},
    7: {LOST: "2018-01-01", CODE: "I251", DAY: "2019-01-01"},  # after nobody saw them any more
    8: {(53, 2, 0): None, (53, 3, 0): None},
    9: {CODE: "I251"},  # nobody knows when
    10: {CODE: "I2?1", DAY: "2018-01-01"},  # nobody knows what
    11: {CODE: "I251", DAY: "2018-01-01", DEATH: "2018-01-01"},
    12: {(53, 2, 0): END, (53, 3, 0): None},  # nothing follows
    13: {CODE: "I10", DAY: "2018-01-01"},
}
# 6 years with one leap day, and 26 + 30 + 31 + 31 + 30 + 31 days of May to October.
ALL_2 = 6 * 365 + 1 + 179
ALL_3 = 3 * 365 + 1 + 24 + 31 + 31 + 30 + 31
TO_2018 = 365 + 26 + 30 + 31 + 31 + 30 + 31 + 30 + 31 + 1
AT_SECOND = {
    1: (TO_2018, 1),
    2: NONE,
    3: NONE,
    4: (ALL_2, 0),
    5: (ALL_2, 0),
    6: (TO_2018 + 730, 0),
    7: (TO_2018, 0),
    8: NONE,
    9: NONE,
    10: NONE,
    11: (TO_2018, 1),
    12: NONE,
    13: (ALL_2, 0),
}
AT_THIRD = {
    **dict.fromkeys(PEOPLE, NONE),
    4: (ALL_3, 0),
    5: (ALL_3, 0),
    6: (24 + 31 + 31 + 30 + 31 + 30 + 31 + 1, 0),
    13: (ALL_3, 0),
}


def table(path, people=PEOPLE, style="rap"):
    rows = []
    for eid, cells in people.items():
        row = {"f.eid" if style == "r" else "eid": eid}
        for place, value in ({(53, 2, 0): SECOND, (53, 3, 0): THIRD} | cells).items():
            name = STYLES[style].format(*place) if isinstance(place, tuple) else place
            if style == "rap" and place in (CODE, DAY):
                name = name.replace("_i0", "")
            elif style == "rap":
                name = name.replace("_a0", "").replace("p191_i0", "p191")
            row[name] = value
        rows.append(row)
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def times(labels, visit, name="cad"):
    """id -> (days, event) at a visit."""
    columns = (f"{name}_time_days", f"{name}_event")
    return {
        int(key): tuple(row.get(column) for column in columns)
        for key, row in labels.by_visit[visit].items()
    }


@pytest.mark.parametrize("style", STYLES)
def test_time_to_onset_or_to_the_end(tmp_path, style):
    labels = read_labels([table(tmp_path / "t.csv", style=style)], rules(time=END))
    assert times(labels, "2") == AT_SECOND
    assert times(labels, "3") == AT_THIRD
    assert labels.by_person["5"]["cad_future"] == 1  # it begins, after the end of the follow-up
    account = labels.audit["icd10"]
    assert account["follow_up"] == {"time": END, "death": 2, "lost": 1, "end": 13}
    followed = {name: account["diseases"][name]["followed"] for name in ("cad", "af")}
    assert followed == {"cad": 7, "af": 11}  # of af nobody is prevalent or in doubt
    assert account["diseases"]["cad"]["events"] == 2
    text = "\n".join(merge.audit_lines(labels.audit))
    assert f"* followed up to {END}, or at death (<5), or when lost to follow-up (<5)" in text
    assert "* cad: 7 followed up, <5 with an onset" in text
    plain = read_labels([tmp_path / "t.csv"])
    assert not [name for name in plain.columns if "event" in name or "time" in name]
    death, lost = STYLES[style].format(*DEATH), STYLES[style].format(*LOST)
    if style != "rap":
        assert {death, lost} <= {*plain.audit["unread"]["t.csv"]}


def test_each_has_an_end_of_a_column(tmp_path):
    ends = {1: "2017-05-05", 4: "2017-05-05", 6: "2021-01-01", 13: None}
    people = {eid: PEOPLE[eid] | {"last_seen": day} for eid, day in ends.items()}
    labels = read_labels([table(tmp_path / "t.csv", people)], rules(time="last_seen"))
    assert times(labels, "2") == {1: (365, 0), 4: (365, 0), 6: (TO_2018 + 730, 0), 13: NONE}
    assert "last_seen" not in labels.columns
    with pytest.raises(InputError, match="'last_seen' holds 1 entries that are no dates"):
        read_labels(
            [table(tmp_path / "t.csv", {1: {"last_seen": "never"}})], rules(time="last_seen")
        )


def test_deaths_of_a_table_of_their_own(tmp_path):
    (tmp_path / "death.csv").write_text(
        "eid,ins_index,date_of_death\n4,0,2017-05-05\n4,1,2017-05-06\n"
    )
    files = [table(tmp_path / "t.csv"), tmp_path / "death.csv"]
    labels = read_labels(files, rules(time=END))
    assert times(labels, "2") == AT_SECOND | {4: (365, 0)}
    assert "death.csv" not in labels.audit.get("unread", {})


def test_follow_up_ends_with_the_records(tmp_path):
    labels = read_labels([table(tmp_path / "t.csv")], rules(time=END, censored="2017-05-05"))
    known = {eid: pair for eid, pair in times(labels, "2").items() if pair != NONE}
    assert known == dict.fromkeys((1, 4, 5, 6, 7, 11, 13), (365, 0))


def test_what_is_told_at_visits_follows_nobody(tmp_path):
    (tmp_path / "d.toml").write_text(
        "[mi]\nself_report = [1075]\n[both]\nself_report = [1075]\nicd10 = ['I21']\n"
    )
    people = {
        1: {(20002, 3, 0): 1075, (20008, 3, 0): -1, CODE: "I219", DAY: "2020-01-01"},
        2: {(20002, 3, 0): 1075, (20008, 3, 0): 2018},
        3: {(20002, 2, 0): 1075, (20008, 2, 0): -1},
        4: {CODE: "I219", DAY: "2018-01-01"},
    }
    path = table(tmp_path / "t.csv", people)
    labels = read_labels([path], rules(definitions_file=tmp_path / "d.toml", time=END))
    assert "mi_future" in labels.columns
    assert "mi_event" not in labels.columns
    assert times(labels, "2", "both") == {
        1: NONE,  # it was there by visit 3 and nobody knows since when; hospital saw it later
        2: (TO_2018, 1),
        3: NONE,
        4: (TO_2018, 1),
    }


@pytest.mark.parametrize(
    ("text", "time", "words"),
    [
        (None, "31/10/2022", "--time 31/10/2022: neither a date such as 2022-10-31 nor a column"),
        (None, "", "--time : neither a date"),
        (None, "cad", "--time cad: neither"),
        (
            "eid,p41270,p41280_a0\n1,I251,2018-01-01\n",
            END,
            "none of the labels files has a day of a",
        ),
        ("eid,p53_i2,p41270\n1,2016-01-01,I251\n", END, "none of the codes has a date"),
        ("subject,cad\n1,1\n", END, "none of the labels files holds codes of diseases"),
        (
            "eid,p53_i2,p41270,p41280_a0,cad_event\n1,2016-01-01,I251,2018-01-01,1\n",
            END,
            "column 'cad_event' has the name of one that --time makes; rename it",
        ),
    ],
)
def test_times_that_cannot_be(tmp_path, text, time, words):
    path = tmp_path / "t.csv"
    if text:
        path.write_text(text)
    else:
        table(path)
    with pytest.raises(InputError, match=words):
        read_labels([path], rules(time=time))


def test_without_a_table_there_is_no_time():
    with pytest.raises(InputError, match="--time 2022-10-31: no table of labels"):
        read_labels([], rules(time=END))


def test_the_command_writes_times_that_it_reads_again(tmp_path, capfd):
    path, out = table(tmp_path / "t.csv"), tmp_path / "labels.csv"
    line = ["cohort", "labels", str(path), "--time", END, "--out", str(out)]
    assert cli.main([*line, "--runs", str(tmp_path / "runs")]) == 0
    assert "cad_time_days" in capfd.readouterr().out
    labels, again = read_labels([path], rules(time=END)), read_labels([out])
    for visit in ("2", "3"):
        assert times(again, visit) == times(labels, visit)
    assert "2018" not in out.read_text()
    assert cli.main([*line, "--runs", str(tmp_path / "runs"), "--time", "x"]) == 2
    assert "--time x: neither a date" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("-1,1\n", "cad_time_days: 1 times below 0"),
        ("5,\n6,1\n", "cad_time_days and cad_event: in 1 lines one is known without the other"),
        (",1\n6,1\n", "in 1 lines one is known without the other"),
        (",1\n", "in 1 lines one is known without the other"),
        ("inf,1\n", "cad_time_days: 1 times below 0 or without an end"),
        ("5,2\n", "cad_event: blank, or not 0 and 1 alone, beside cad_time_days"),
    ],
)
def test_times_of_a_table_that_are_none(tmp_path, rows, words):
    lines = "".join(f"{n},{row}\n" for n, row in enumerate(rows.splitlines()))
    (tmp_path / "t.csv").write_text("subject,cad_time_days,cad_event\n" + lines)
    with pytest.raises(InputError, match=words):
        read_labels([tmp_path / "t.csv"])


def test_an_event_without_a_time_is_a_label_as_before(tmp_path):
    (tmp_path / "t.csv").write_text("subject,cad_event,x_time_days\n1000011,1,44\n")
    labels = read_labels([tmp_path / "t.csv"])
    assert labels.by_person == {"1000011": {"cad_event": 1}}
    assert labels.audit["unread"]["t.csv"] == ["x_time_days"]


def test_each_recording_has_the_time_of_its_own_visit(tmp_path):
    people = {1000004: {}, 1000006: {DEATH: "2020-01-01"}, 1000001: PEOPLE[1]}
    labels = read_labels([table(tmp_path / "t.csv", people)], rules(time=END))
    recordings = [
        linkage.SurveyedRecording(
            "ecg", f"x:{eid}_{visit}", f"{eid}_20205_{visit}_0", digest=f"{eid}_{visit}", numbers={}
        )
        for eid in people
        for visit in (2, 3)
    ]
    rows = linkage.link(linkage.sort_out(recordings), labels, b"k", 0).rows
    by_name = {
        row["ecg"].removeprefix("x:"): (
            row["numbers"].get("cad_time_days"),
            row["numbers"].get("cad_event"),
        )
        for row in rows
    }
    assert by_name == {
        "1000004_2": (ALL_2, 0),
        "1000004_3": (ALL_3, 0),
        "1000006_2": AT_SECOND[6],
        "1000006_3": AT_THIRD[6],
        "1000001_2": (TO_2018, 1),
        "1000001_3": NONE,
    }


# -- in a cohort -------------------------------------------------------------------------------------------------------

COLUMNS = ("cad_past", "cad_future", "cad_time_days", "cad_event")


def rows_with_times(n=24, wrong=()):
    """Hearts of which each third is prevalent, falls ill, or stays free of it, the last with what is wrong in turn."""
    cases = (
        {"cad": 1.0, "cad_past": 1.0},
        {"cad": 1.0, "cad_past": 0.0, "cad_future": 1.0, "cad_time_days": 606.0, "cad_event": 1.0},
        {"cad": 0.0, "cad_past": 0.0, "cad_future": 0.0, "cad_time_days": 0.0, "cad_event": 0.0},
    )
    for i, row in enumerate(heart_rows(n)):
        yield {
            **row,
            **dict.fromkeys(COLUMNS),
            **cases[i % 3],
            **(wrong[i // 3] if wrong and i % 3 == 2 else {}),
        }


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("times")
    return write_cohort(folder / "c", rows_with_times(), labels=(*LABELS, *COLUMNS))


def test_times_are_no_labels_of_a_cohort(cohort):
    assert check.check(cohort.path) == []
    assert {*cohort.manifest["times"]} == {"cad_time_days", "cad_event"}
    assert not {*cohort.manifest["labels"], *cohort.columns} & {"cad_time_days", "cad_event"}
    counts = cohort.manifest["times"]["cad_event"]
    assert sum(part["n"] for part in counts.values()) == 16
    assert sum(part["positive"] for part in counts.values()) == 8
    assert "cad_future" in cohort.columns
    lines = [*appendix.characteristics(cohort), *appendix.phenotypes(cohort.manifest)]
    assert not [line for line in lines if "event" in line[0] or "time" in line[0]]
    for name in ("cad_event", "cad_time_days"):
        with pytest.raises(InputError, match=f"'{name}' is of follow-up and no label; no task"):
            examples.answerable(cohort, tasks.of(name, (name,)), "ecg", "train")


WRONG = (
    ({"cad_time_days": -1.0}, "'cad_time_days' is no number of days from 0 on"),
    ({"cad_time_days": np.inf}, "'cad_time_days' is no number of days from 0 on"),
    ({"cad_time_days": None}, "'cad_time_days' is known without 'cad_event' or"),
    ({"cad_event": None}, "'cad_time_days' is known without 'cad_event' or"),
    ({"cad_event": 2.0}, "'cad_event' is 2, expected 0 or 1"),
    ({"cad_event": 1.0, "cad": None}, "contradict 'cad_future', which is 0"),
    ({"cad_event": 1.0, "cad_future": None}, "contradict 'cad', which is 0"),
    ({"cad_past": 1.0}, "contradict 'cad_past', which is 1"),
)


def test_times_that_are_wrong_are_faults(tmp_path):
    rows = [row | {"split": "train"} for row in rows_with_times(wrong=[case for case, _ in WRONG])]
    made = write_cohort(tmp_path / "c", rows, labels=(*LABELS, *COLUMNS))
    faults = [str(fault) for fault in check.check(made.path)]
    for row, (_, words) in enumerate(WRONG):
        (fault,) = [line for line in faults if f" row {3 * row + 2}: " in line]
        assert words in fault
    assert len(faults) == len(WRONG)


def test_times_among_the_labels_of_a_manifest_are_a_fault(tmp_path):
    made = write_cohort(tmp_path / "c", rows_with_times(6), labels=(*LABELS, *COLUMNS))
    manifest = made.manifest
    manifest["labels"] |= manifest.pop("times")
    (made.path / dataset.MANIFEST).write_text(json.dumps(manifest))
    assert [str(fault) for fault in check.check(made.path)] == [
        "_cohort.json: 'cad_time_days' is of follow-up and counted as a label",
        "_cohort.json: 'cad_event' is of follow-up and counted as a label",
    ]


def each(jobs, out):
    """The jobs of a build one after the other, without Ray."""
    return (json.loads(prepare.work(row)["part"]) for row in staging.task_rows(jobs, out))


LINKS = "ecg,subject\nA0002,1000001_2_0\n00001_lr,1000006_2_0\nE00001,1000002_3_0\n"


def test_a_build_has_the_times_of_its_recordings(tmp_path, monkeypatch):
    monkeypatch.setattr(staging, "_each", each)
    (tmp_path / "m.csv").write_text(LINKS)
    people = {1000000 + eid: PEOPLE[eid] for eid in (1, 2, 6)}
    built = build.build(
        tmp_path / "c",
        ecg=f"wfdb:{RECORDINGS}",
        labels=[table(tmp_path / "t.csv", people), tmp_path / "m.csv"],
        rules=rules(time=END),
    )
    assert check.check(built.path) == []
    rows = built.rows()
    pairs = rows[["cad_time_days", "cad_event"]].dropna().to_numpy().tolist()
    assert sorted(pairs) == sorted(map(list, (AT_SECOND[1], AT_SECOND[6])))  # 2 was ill by visit 3
    assert {*built.manifest["times"]} >= {"cad_time_days", "cad_event"}
    assert "cad_event" not in built.columns
    assert "time=2022-10-31" in built.manifest["request"]["labels"]


def test_who_withdraws_takes_their_times_along(cohort, tmp_path, monkeypatch):
    monkeypatch.setattr(staging, "_each", each)
    index = cohort.rows()
    gone = index[index["cad_event"] == 1]["subject"].iloc[0]
    (tmp_path / "list.csv").write_text(f"{gone}\n")
    (tmp_path / "key").write_text("k" * 32)
    left = withdraw.withdraw(
        cohort.path, tmp_path / "out", tmp_path / "list.csv", key=tmp_path / "key"
    )
    assert check.check(left.path) == []
    assert gone not in set(left.rows()["subject"])
    counts = left.manifest["times"]
    assert sum(part["n"] for part in counts["cad_time_days"].values()) == 15
    assert sum(part["positive"] for part in counts["cad_event"].values()) == 7
    pd.testing.assert_frame_equal(
        left.rows().set_index("subject")[[*COLUMNS]],
        index[index["subject"] != gone].set_index("subject")[[*COLUMNS]],
        check_like=True,
    )
