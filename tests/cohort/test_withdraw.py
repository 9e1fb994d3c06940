"""People who withdraw leave no trace in the new cohort, nobody else changes, and what was made with them is told."""

import dataclasses
import json
import shutil

import handmade
import handmade_model
import pandas as pd
import pytest
from conftest import heart_rows, write_cohort

from ecgcmr import checksums, cli, files, store
from ecgcmr.cohort import check, dataset, linkage, shards, withdraw
from ecgcmr.errors import InputError
from ecgcmr.report import page
from ecgcmr.runs import withdrawn_since
from ecgcmr.trial import Trial, to_json

SECRET = b"k" * 32


def people(n=90):
    """Rows of which three in a row are visits of one person."""
    rows = list(heart_rows(n, paired=False))
    for i, row in enumerate(rows):
        first = rows[i - i % 3]
        yield {
            **row,
            "subject": linkage.pseudonym(SECRET, f"10000{i // 3:02d}"),
            "split": first["split"],
        }


def write_old(folder):
    made = write_cohort(folder / "old", people(), shard_rows=16)
    index = made.rows()
    link = [
        {"subject": subject, "kind": "ecg", "key": f"{person}_20205_2_0", "excluded": ""}
        for person in (f"10000{i:02d}" for i in range(30))
        for subject in [linkage.pseudonym(SECRET, person)]
    ]
    lost = {
        "subject": linkage.pseudonym(SECRET, "1000007_20205_3_0"),
        "kind": "ecg",
        "key": "1000007_20205_3_0",
    }
    pd.DataFrame([*link, {**lost, "excluded": "unreadable"}]).to_csv(
        folder / "old.link.csv", index=False
    )
    (folder / "old.key").write_bytes(SECRET + b"\n")
    manifest = {
        **made.manifest,
        "exclusions": [{"key": lost["subject"], "reason": "ecg: unreadable"}],
        "repairs": [{"key": s, "what": "ecg: cropped"} for s in index["subject"].unique()],
    }
    files.write_json(made.path / dataset.MANIFEST, manifest)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The folder in which the old cohort lies with its link and key; each test gets a copy."""
    folder = tmp_path_factory.mktemp("old")
    write_old(folder)
    return folder


@pytest.fixture
def old(written, tmp_path):
    shutil.copytree(written, tmp_path, dirs_exist_ok=True)
    return dataset.open(tmp_path / "old")


def listed(tmp_path, *ids):
    (tmp_path / "list.csv").write_text("".join(f"{word}\n" for word in ids))
    return tmp_path / "list.csv"


def test_all_visits_of_a_person_leave_and_nobody_elses(old, tmp_path, ray_session):
    who = {linkage.pseudonym(SECRET, person) for person in ("1000007", "1000011")}
    new = withdraw.withdraw(old.path, tmp_path / "new", listed(tmp_path, "1000007", "1000011"))
    before, after = old.rows(), new.rows()
    assert len(after) == len(before) - 6
    assert not who & set(after["subject"])
    kept = before[~before["subject"].isin(who)]
    columns = [name for name in before if name not in ("shard", "row")]
    pd.testing.assert_frame_equal(
        after[columns].reset_index(drop=True), kept[columns].reset_index(drop=True)
    )
    assert (new.load(after)["ecg"] == old.load(kept)["ecg"]).all()
    some = after["has_cmr"]
    assert (
        new.load(after[some], ("cmr",))["cmr"] == old.load(kept[kept["has_cmr"]], ("cmr",))["cmr"]
    ).all()
    assert check.check(new.path) == []
    assert new.recipe == old.recipe
    assert new.fingerprint != old.fingerprint
    assert new.manifest["replaces"] == [{"fingerprint": old.fingerprint, "people": 2, "rows": 6}]


def test_who_left_is_nowhere_in_the_new_cohort(old, tmp_path, ray_session):
    who = [linkage.pseudonym(SECRET, word) for word in ("1000007", "1000007_20205_3_0")]
    new = withdraw.withdraw(old.path, tmp_path / "new", listed(tmp_path, "1000007"))
    written = b"".join(path.read_bytes() for path in new.path.rglob("*") if path.is_file())
    written += (tmp_path / "new.link.csv").read_bytes()
    assert not any(word.encode() in written for word in (*who, "1000007"))
    assert (tmp_path / "new.key").read_bytes() == (tmp_path / "old.key").read_bytes()
    assert new.manifest["exclusions"] == []
    assert len(new.manifest["repairs"]) == 29


@pytest.mark.parametrize(
    "word", ["1000007", "1000007_20205_2_0", linkage.pseudonym(SECRET, "1000007")]
)
def test_a_person_is_known_by_id_by_recording_and_by_pseudonym(old, word):
    known = withdraw._id_lookup(old, old.path.with_name("old.key"))
    assert linkage.pseudonym(SECRET, "1000007") in known.of(word)
    assert (
        known.of("100000") == known.of("1000007_20205") == set()
    )  # the beginning of an id is nobody's
    without = dataclasses.replace(known, link=None)
    assert bool(without.of(word)) == ("_" not in word)


def obeyed(old, path, ignore_unknown=False):
    """The people, of those that the link file names, whom a list lets go."""
    lookup = withdraw._id_lookup(old, old.path.with_name("old.key"))
    gone = withdraw._matched(path, lookup, ignore_unknown)
    return {
        f"10000{i:02d}" for i in range(30) if linkage.pseudonym(SECRET, f"10000{i:02d}") in gone
    }


@pytest.mark.parametrize(
    "text",
    [
        "1000007.0\n1000011.0\n",
        "1000007\n1000011.0\n",
        "1000007\r\n1000011\r\n",
        "1000007\r1000011",
        "\ufeff1000007\n1000011\n",
        "1000\u200b007\n\u00a01000011\u00a0\n",
        '"1000007"\n"1000011\n',  # an open quotation mark swallows nobody
        "'1000007'\n`1000011`\n",
        '="1000007"\n="1000011"\n',
        "1,000,007\n1 000 011\n",
        "1.000007e6\n1.000011E+06\n",
        "eid\n1000007\n1000011\n",
        "Participant ID\n1000007\n1000011\n",
        ",eid\n0,1000007\n1,1000011\n",
        '"","x"\n"1",1000007\n"2",1000011\n',
        "eid,date\n1000007,2024-01-01\n1000011,2024-02-01\n",
        "eid;reason\n1000007;asked to\n1000011;\n",
        "1000007\tJan 2024\n1000011\tFeb 2024\n",
        "1000007 # 2024\n1000011 # 2024\n",
        "1000007_20205_2_0.xml\n1000011_20209_3_0.zip\n",
        "1000007_2_0\n1000011_3_0\n",
        "bulk/1000007_20205_2_0.xml\nC:\\bulk\\1000011_20205_2_0.xml\n",
        "１０００００７\n1000011\n",
    ],
)
def test_no_spelling_leaves_a_person_in(old, tmp_path, text):
    path = tmp_path / "list.csv"
    path.write_text(text, encoding="utf-8", newline="")
    assert obeyed(old, path) == {"1000007", "1000011"}
    path.write_bytes(text.encode("utf-16"))
    assert obeyed(old, path) == {"1000007", "1000011"}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("1000O11", r"1 of 2 entries are no ids \(lines 2\)"),  # the letter O
        ("100001", "1 of 2 entries are no ids"),
        ("10000110", "1 of 2 entries are no ids"),
        ("1000-011", "1 of 2 entries are no ids"),
        ("-1000011", "1 of 2 entries are no ids"),
        ("no longer 1000011x", "1 of 2 entries are no ids"),
        ("1.0E+06", r"1 ids are rounded, as 1.0E\+06 is \(lines 2\)"),
        ("1e6", "rounded"),
        ("x,1000011", "ids stand in 2 columns|no ids"),
        ("1000011,1000012", "ids stand in 2 columns"),
    ],
)
def test_a_line_that_is_no_id_is_refused_also_where_unknown_ids_are_passed_over(
    old, tmp_path, line, words
):
    (tmp_path / "list.csv").write_text(f"1000007,\n{line}\n")
    with pytest.raises(InputError, match=words) as refused:
        obeyed(old, tmp_path / "list.csv", ignore_unknown=True)
    assert "1000007" not in str(refused.value)


def test_ids_that_are_not_in_the_cohort_are_counted(old, tmp_path, caplog):
    path = listed(tmp_path, "1000007.0", "9999999.0", "8888888")
    assert obeyed(old, path, ignore_unknown=True) == {"1000007"}
    assert "2 of 3 ids are not in the cohort" in caplog.text


@pytest.mark.parametrize("content", [b"\x00\x01\x02", b"\xff1000007\n", b"1\x000\x000\x00"])
def test_a_list_that_is_no_text_is_refused(old, tmp_path, content):
    (tmp_path / "list.csv").write_bytes(content)
    with pytest.raises(InputError, match="cannot be read as a list"):
        obeyed(old, tmp_path / "list.csv", ignore_unknown=True)


def test_ids_that_match_nobody_are_counted_and_not_named(old, tmp_path, ray_session):
    names = listed(tmp_path, "1000007", "9999999", "", "8888888")
    with pytest.raises(InputError) as refused:
        withdraw.withdraw(old.path, tmp_path / "new", names)
    assert "2 of 3 ids match nobody (lines 2, 4)" in str(refused.value)
    assert not any(word in str(refused.value) for word in ("9999999", "1000007"))
    assert not (tmp_path / "new").exists()
    made = withdraw.withdraw(old.path, tmp_path / "new", names, ignore_unknown=True)
    assert made.manifest["replaces"][0]["people"] == 1


def test_without_link_and_key_ids_cannot_be_passed_over(old, tmp_path):
    (tmp_path / "old.link.csv").unlink()
    (tmp_path / "old.key").unlink()
    with pytest.raises(
        InputError, match="neither the cohort's link file nor its key lies beside it"
    ):
        withdraw.withdraw(
            old.path, tmp_path / "new", listed(tmp_path, "1000007"), ignore_unknown=True
        )


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        ([], "nobody on it is in the cohort"),
        ([f"10000{i:02d}" for i in range(30)], "nobody would be left"),
    ],
)
def test_lists_that_make_no_cohort(old, tmp_path, ids, words):
    with pytest.raises(InputError, match=words):
        withdraw.withdraw(old.path, tmp_path / "new", listed(tmp_path, *ids))
    assert not (tmp_path / "new").exists()


def test_another_list_is_not_taken_for_done(old, tmp_path, ray_session):
    withdraw.withdraw(old.path, tmp_path / "new", listed(tmp_path, "1000007"))
    again = withdraw.withdraw(old.path, tmp_path / "new", listed(tmp_path, "1000007"))
    assert again.manifest["replaces"][0]["people"] == 1
    with pytest.raises(InputError, match="holds a cohort made otherwise: withdrawn"):
        withdraw.withdraw(old.path, tmp_path / "new", listed(tmp_path, "1000008"))


def test_runs_of_every_replaced_cohort_are_stale_also_when_it_is_gone(
    old, tmp_path, ray_session, capfd
):
    runs = tmp_path / "runs"
    handmade.fill(runs, tasks=("af",), seeds=(0,))
    for folder in store.finished_folders(runs):  # as if made from the old cohort
        record = json.loads((folder / store.RECORD).read_text())
        record["recipe"]["cohort"] = old.fingerprint
        files.write_json(folder / store.RECORD, record)
        checksums.write(folder)
    words = [
        "--cohort",
        old.path,
        "--out",
        tmp_path / "second",
        "--list",
        listed(tmp_path, "1000007"),
    ]
    assert cli.main(["cohort", "withdraw", *map(str, words), "--runs", str(runs)]) == 0
    assert "1 person (3 rows) fewer than" in capfd.readouterr().out
    words = [
        "--cohort",
        tmp_path / "second",
        "--out",
        tmp_path / "third",
        "--list",
        listed(tmp_path, "1000001", "1000002"),
    ]
    assert cli.main(["cohort", "withdraw", *map(str, words), "--runs", str(runs)]) == 0
    shutil.rmtree(old.path)
    shutil.rmtree(tmp_path / "second")
    capfd.readouterr()
    assert cli.main(["status", "--runs", str(runs), "--cohort", str(tmp_path / "none")]) == 0
    stale = [line for line in capfd.readouterr().out.splitlines() if line.startswith("stale")]
    assert stale
    assert all("from their cohort 3 people have withdrawn since" in line for line in stale)
    text = (page.write(runs, tmp_path / "third", tmp_path / "report").files[page.PAGE]).read_text()
    assert "from which 3 people have withdrawn since" in text
    (runs / store.WITHDRAWN).unlink()  # the cohort that replaces it says so as well
    text = (page.write(runs, tmp_path / "third", tmp_path / "report").files[page.PAGE]).read_text()
    assert "from which 3 people have withdrawn since" in text


def test_withdrawals_reach_what_started_from_a_run_of_the_old_cohort(tmp_path):
    runs = tmp_path / "runs"
    for name, cohort_, init_from in (
        ("s/pre/mae", "old", []),
        ("s/pre/mmcl", "middle", [["ecg", "s/pre/mae"]]),
        ("s/evaluation/cad", "new", [["ecg", "s/pre/mmcl"], ["cmr", "s/pre/gone"]]),
    ):
        started = Trial(
            space="s",
            stage="grid",
            task="af",
            system="mmcl",
            method="supervised",
            init_from=tuple(map(tuple, init_from)),
        )
        record = {
            "trial": to_json(started),
            "recipe": {"cohort": cohort_},
            "fingerprint": "",
            "status": "finished",
            "provenance": {},
        }
        files.write_json(store.folder(runs, name) / store.RECORD, record)
        checksums.write(store.folder(runs, name))
    init_from = [["ecg", "s/pre/mmcl"], ["cmr", "s/pre/gone"]]
    assert withdrawn_since(runs, "new", init_from, {"old": 3}) == 3
    assert withdrawn_since(runs, "new", init_from, {"old": 3, "middle": 5}) == 5
    assert withdrawn_since(runs, "new", [], {"old": 3}) == 0
    assert withdrawn_since(runs, "new", init_from, {}) == 0


@pytest.mark.parametrize(("people", "who"), [(0, ""), (1, "1 person has"), (12, "12 people have")])
def test_whoever_uses_a_model_is_told_who_withdrew_since(
    people, who, tmp_path, tmp_path_factory, capfd
):
    cohort, runs, raw = handmade_model.made(tmp_path_factory.getbasetemp())
    ecg = handmade_model.write_wfdb(tmp_path / "ecgs", "a", next(iter(raw.values())))
    runs = shutil.copytree(runs, tmp_path / "runs")
    store.note_withdrawn(runs, {cohort.fingerprint: people, "another": 5})
    shared, run = tmp_path / "shared", next((runs / "t/evaluation/cad/mmcl").rglob("seed=0"))
    for (
        here,
        words,
    ) in (  # `--runs` may be another folder than the model's own, and of a shared model it has to be
        (runs, ["share", "--model", runs / "t/evaluation", "--out", shared]),
        (tmp_path / "none", ["predict", "--model", runs / "t/evaluation", ecg]),
        (runs, ["predict", "--model", shared, ecg]),
        (tmp_path / "none", ["embed", "--model", run, "--out", tmp_path / "vectors", ecg]),
        (tmp_path / "none", ["explain", "--model", run, "--out", tmp_path / "maps", ecg]),
        (
            tmp_path / "none",
            ["export", "--model", run, "--out", tmp_path / "a.pth", "--format", "authors"],
        ),
    ):
        assert cli.main([*map(str, words), "--runs", str(here)]) == 0
        told = [line for line in capfd.readouterr().err.splitlines() if "withdrawn" in line]
        line = f"ecgcmr: made from a cohort from which {who} withdrawn since; train it again"
        assert told == ([line] if people else [])


def test_rows_of_a_shard_are_what_was_written(old):
    entry = old.manifest["shards"][0]
    rows = list(shards.rows(old.path / entry["path"]))
    index = old.rows()
    mine = index[index["shard"] == entry["path"]]
    assert [row["subject"] for row in rows] == mine["subject"].tolist()
    assert [row["cmr"] is not None for row in rows] == mine["has_cmr"].tolist()
    assert (rows[3]["ecg"] == old.load(mine.iloc[[3]])["ecg"][0]).all()
