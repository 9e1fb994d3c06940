"""A cohort is made whole or not at all, and reads back what was written."""

import dataclasses
import json
import resource
import subprocess
import sys
import time

import handmade_exports
import handmade_stacks
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from conftest import heart_rows, write_cohort

from ecgcmr import checksums, raw, tasks
from ecgcmr.cohort import build, check, dataset, linkage, shards
from ecgcmr.cohort.labels.merge import Labels, read_labels
from ecgcmr.cohort.linkage import SurveyedRecording
from ecgcmr.errors import InputError
from ecgcmr.signals import cmr, ecg, quality_flags

# -- shards ------------------------------------------------------------------------------------------------------------


def test_a_shard_gives_back_what_was_written(tmp_path):
    rows = list(heart_rows(130, paired=False))
    summary = shards.write_shard(tmp_path / "a.parquet", iter(rows), ("cad", "LVEF"))
    assert summary == {"rows": 130, "sha256": checksums.sha256(tmp_path / "a.parquet")}
    file = pq.ParquetFile(tmp_path / "a.parquet")
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [64, 64, 2]
    table = file.read()
    assert table["LVEF"].to_pylist() == [row["LVEF"] for row in rows]
    assert table["weight"].to_pylist() == [row["weight"] for row in rows]
    assert (shards.unpack(table["ecg"], "ecg") == np.stack([row["ecg"] for row in rows])).all()
    for stored, row in zip(table["cmr"], rows, strict=True):
        assert stored.as_py() == (None if row["cmr"] is None else row["cmr"].tobytes())


def test_a_shard_says_what_its_bytes_mean(tmp_path):
    shards.write_shard(tmp_path / "a.parquet", heart_rows(2), ())
    meta = {
        k.decode(): v.decode()
        for k, v in pq.read_schema(tmp_path / "a.parquet").field("ecg").metadata.items()
    }
    assert meta["dtype"] == "float16"
    assert json.loads(meta["shape"]) == [12, 5000]
    assert (meta["unit"], meta["rate_hz"]) == ("mV", "500")
    assert json.loads(meta["leads"])[3:7] == ["aVR", "aVL", "aVF", "V1"]


def test_the_form_of_a_shard_is_what_ecg_and_cmr_make():
    # Said twice because shards must not import PyTorch, which ecg does.
    assert shards.LEADS == ecg.LEADS
    assert shards.SIGNALS["ecg"].shape == (len(ecg.LEADS), ecg.SAMPLES)
    assert dict(shards.SIGNALS["ecg"].notes)["rate_hz"] == str(ecg.RATE_HZ)
    assert shards.SIGNALS["cmr"].shape == (len(cmr.FRAMES), cmr.SIZE, cmr.SIZE)
    assert json.loads(dict(shards.SIGNALS["cmr"].notes)["frames"]) == list(cmr.FRAMES)


def test_reading_tasks_do_without_pytorch():
    code = (
        "import sys, ecgcmr.data.sampler; sys.exit('torch' in sys.modules or 'ray' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


@pytest.mark.parametrize(
    "options", [shards.ONE_PAGE, {"compression": "zstd"}, {"data_page_size": 200_000}]
)
def test_rows_are_read_whatever_the_pages(tmp_path, options):
    rows = list(heart_rows(70, paired=False))
    shards.write_shard(tmp_path / "a.parquet", rows, ())
    pq.write_table(
        pq.read_table(tmp_path / "a.parquet"), tmp_path / "a.parquet", row_group_size=40, **options
    )
    have = [i for i, row in enumerate(rows) if row["cmr"] is not None]
    wanted = np.array(have[::-3])
    out = {name: shards.space(len(wanted) + 1, name) for name in shards.SIGNALS}
    shards.read_rows(
        tmp_path / "a.parquet", wanted, ("ecg", "cmr"), out, np.arange(1, len(wanted) + 1)
    )
    for place, row in enumerate(wanted, 1):
        assert (out["ecg"][place] == rows[row]["ecg"]).all()
        assert (out["cmr"][place] == rows[row]["cmr"]).all()


def test_an_array_of_another_form_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"ecg is float32\(12, 5000\), a shard needs float16"):
        shards.write_shard(
            tmp_path / "a.parquet", [{"subject": "a", "ecg": np.zeros((12, 5000), np.float32)}], ()
        )
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, limits[1]))
    try:
        with pytest.raises(InputError, match="free space or choose another folder") as caught:
            shards.write_shard(tmp_path / "train/a.parquet", heart_rows(40), ())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "train").iterdir()) == []


# -- cohort ------------------------------------------------------------------------------------------------------------


def test_load_gives_the_rows_that_were_asked_for(small_cohort):
    rows = {row["subject"]: row for row in heart_rows(300, paired=False)}
    index = small_cohort.rows()
    assert len(index) == 300
    chosen = index[index["has_cmr"]].sample(40, random_state=0)
    got = small_cohort.load(chosen, ("cmr", "ecg"))
    for i, subject in enumerate(chosen["subject"]):
        assert (got["ecg"][i] == rows[subject]["ecg"]).all()
        assert (got["cmr"][i] == rows[subject]["cmr"]).all()
        assert chosen["LVEF"].iloc[i] == rows[subject]["LVEF"]
    assert small_cohort.load(index.iloc[:0])["ecg"].shape == (0, 12, 5000)


def test_manifest_counts(small_cohort):
    index, manifest = small_cohort.rows(), small_cohort.manifest
    assert manifest["rows"] == {"train": 210, "val": 45, "test": 45}
    train = small_cohort.rows("train")
    assert manifest["labels"]["cad"]["train"] == {"n": 210, "positive": int(train["cad"].sum())}
    assert manifest["labels"]["LVEF"]["train"]["mean"] == pytest.approx(train["LVEF"].mean())
    assert small_cohort.columns == ("cad", "af", "dm", "LVEF", "LVEDV")
    assert index["has_ecg"].all()


def test_the_fingerprint_follows_the_content(tmp_path):
    rows = list(heart_rows(12))
    same = [write_cohort(tmp_path / name, rows).fingerprint for name in ("a", "b")]
    rows[3] = {**rows[3], "cad": 1 - rows[3]["cad"]}
    assert same[0] == same[1] != write_cohort(tmp_path / "c", rows).fingerprint


def test_opening_what_is_no_cohort(tmp_path, small_cohort):
    with pytest.raises(InputError, match="no cohort"):
        dataset.open(tmp_path)
    (tmp_path / dataset.MANIFEST).write_text(json.dumps({"format": 9}))
    with pytest.raises(InputError, match="format 9, this version reads 1"):
        dataset.open(tmp_path)
    with pytest.raises(InputError, match="unknown split 'dev'; known: test, train, val"):
        small_cohort.rows("dev")
    with pytest.raises(InputError, match="unknown signal 'eeg'"):
        small_cohort.load(small_cohort.rows(), ("eeg",))


def test_a_folder_with_something_else_is_left_alone(tmp_path, small_cohort):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="not empty and no cohort"):
        build.synth(tmp_path, subjects=10)
    with pytest.raises(
        InputError,
        match=r"holds a cohort made otherwise: .*source test → synthetic.*subjects None → 10",
    ):
        build.synth(small_cohort.path, subjects=10)


# -- pairing -----------------------------------------------------------------------------------------------------------

SECRET = b"k" * 32


def found(kind, key, person=None, digest=None, **numbers):
    return SurveyedRecording(
        kind, f"/raw/{key}.{kind}", key, person, digest or f"{kind}{key}", numbers
    )


def test_splits_are_the_paper_s_and_a_function_of_the_seed():
    one = linkage.splits(40_044, 0)
    assert [int((one == name).sum()) for name in shards.SPLITS] == [28_030, 6_007, 6_007]
    assert (one == linkage.splits(40_044, 0)).all()
    assert (one != linkage.splits(40_044, 1)).any()


def test_repeat_visits_share_person_and_split():
    visits = [found("ecg", f"e{i}", person=f"p{i // 3}") for i in range(60)]
    rows = pd.DataFrame(linkage.link(linkage.sort_out(visits), Labels(), SECRET, 0).rows)
    assert rows["subject"].nunique() == 20
    assert (rows.groupby("subject")["split"].nunique() == 1).all()


def test_pseudonyms_follow_the_key_and_hide_the_file():
    rows = [
        linkage.link(linkage.sort_out([found("ecg", "JOHN-DOE")]), Labels(), s, 0).rows[0][
            "subject"
        ]
        for s in (SECRET, SECRET, b"x")
    ]
    assert rows[0] == rows[1] != rows[2]
    assert "JOHN" not in rows[0]


def test_the_first_of_equal_recordings_stays():
    linked = linkage.link(
        linkage.sort_out(
            [found("ecg", "a", digest="d"), found("ecg", "b", digest="d"), found("ecg", "c")]
        ),
        Labels(),
        SECRET,
        0,
    )
    assert len(linked.rows) == 2
    assert linked.exclusions == [
        {"key": linkage.pseudonym(SECRET, "b"), "reason": f"ecg: {linkage.DUPLICATE}"}
    ]


def test_ecg_and_cmr_join_by_key_then_by_labels_file(tmp_path):
    recordings = [
        found("ecg", "1"),
        found("ecg", "2"),
        found("ecg", "3"),
        found("cmr", "1"),
        found("cmr", "S9"),
        found("cmr", "S7"),
    ]
    plain = linkage.link(linkage.sort_out(recordings), Labels(), SECRET, 0)
    assert sum(bool(r["ecg"] and r["cmr"]) for r in plain.rows) == 1
    assert len(plain.rows) == 5
    (tmp_path / "l.csv").write_text(
        "subject,ecg,cmr,cad\nann,records/2.hea,S9,1\nbob,3,,0\nann,,S7,\n"
    )
    linked = linkage.link(
        linkage.sort_out(recordings), read_labels([tmp_path / "l.csv"]), SECRET, 0
    )
    by = {(r["ecg"] or "", r["cmr"] or ""): r for r in linked.rows}
    pair = by["/raw/2.ecg", "/raw/S9.cmr"]
    assert pair["subject"] == linkage.pseudonym(SECRET, "ann")
    assert pair["numbers"] == {"cad": 1.0}
    assert by["", "/raw/S7.cmr"]["subject"] == pair["subject"]
    assert by["/raw/3.ecg", ""]["numbers"] == {"cad": 0.0}
    assert by["/raw/1.ecg", "/raw/1.cmr"]["numbers"] == {}


def named(kind, path, **more):
    """A recording of a file in a folder; the key is the file's name, as readers make it."""
    return dataclasses.replace(
        found(kind, path.split("/")[-1], digest=path + kind), source=f"x:/raw/{path}.x", **more
    )


def pairs(linked):
    return {(row["ecg"], row["cmr"]) for row in linked.rows}


def test_two_files_of_one_name_do_not_hide_each_other(tmp_path, caplog):
    (tmp_path / "l.csv").write_text("ecg,cad\n0001,1\n0002,1\n")
    ecgs = [named("ecg", "a/0001"), named("ecg", "b/0001"), named("ecg", "a/0002")]
    linked = linkage.link(
        linkage.sort_out([*ecgs, named("cmr", "c/0001")]),
        read_labels([tmp_path / "l.csv"]),
        SECRET,
        0,
    )
    assert pairs(linked) == {(f.source, None) for f in ecgs} | {
        (None, "x:/raw/c/0001.x")
    }  # of which one is the CMR?
    assert {row["ecg"]: row["numbers"] for row in linked.rows if row["ecg"]}[
        ecgs[0].source
    ] == {}  # nor the label
    assert sum(row["numbers"] == {"cad": 1.0} for row in linked.rows) == 1
    assert {line["key"] for line in linked.link} == {"a/0001", "b/0001", "0002", "0001"}
    assert len({row["subject"] for row in linked.rows}) == 2  # in doubt one person, hence one split
    assert "2 recordings share their file name" in caplog.text
    assert sum(repair["what"] == f"ecg: {linkage.SHARED_NAME}" for repair in linked.repairs) == 2


def test_folders_tell_files_of_one_name_apart_for_pairing_too():
    recordings = [
        named(kind, f"{kind}/{visit}/7") for kind in ("ecg", "cmr") for visit in ("first", "second")
    ]
    linked = linkage.link(linkage.sort_out(recordings), Labels(), SECRET, 0)
    assert pairs(linked) == {
        (f"x:/raw/ecg/{v}/7.x", f"x:/raw/cmr/{v}/7.x") for v in ("first", "second")
    }


def test_named_persons_may_share_file_names():
    ptb = [named("ecg", f"patient00{i}/s0010_re", person=f"patient00{i}") for i in (1, 2)]
    rows = linkage.link(linkage.sort_out(ptb), Labels(), SECRET, 0).rows
    assert len({row["subject"] for row in rows}) == len(rows) == 2


def test_one_patient_number_is_one_person_and_makes_no_pair(caplog):
    def of(kind, key, patient, **more):
        return dataclasses.replace(found(kind, key, **more), patient=patient)

    ecgs = [of("ecg", f"e{i}", f"n{i // 3}") for i in range(60)] + [of("ecg", "alone", None)]
    linked = linkage.link(linkage.sort_out([*ecgs, of("cmr", "c", "n0")]), Labels(), SECRET, 0)
    rows = pd.DataFrame(linked.rows)
    assert rows["subject"].nunique() == 21
    assert (rows.groupby("subject")["split"].nunique() == 1).all()
    assert not (rows["ecg"].notna() & rows["cmr"].notna()).any()  # of which of the three ECGs?
    assert sum(repair["what"].endswith(linkage.SAME_PATIENT) for repair in linked.repairs) == 61
    assert "n0" not in str(linked.rows) + str(linked.link)
    # Two systems count differently; the pair that shares a file name ties them together.
    both = [of("ecg", "x", "a"), of("cmr", "x", "b"), of("cmr", "y", "b"), of("ecg", "z", "a")]
    assert (
        len(
            {
                row["subject"]
                for row in linkage.link(linkage.sort_out(both), Labels(), SECRET, 0).rows
            }
        )
        == 1
    )
    assert not caplog.text
    device = [of("ecg", "x", "a", sex=0.0), of("ecg", "y", "a", sex=1.0), of("ecg", "z", "a")]
    assert (
        len(
            {
                row["subject"]
                for row in linkage.link(linkage.sort_out(device), Labels(), SECRET, 0).rows
            }
        )
        == 3
    )
    assert "1 patient numbers of headers stand for several people: passed over" in caplog.text


def test_a_labels_file_outweighs_the_patient_number(tmp_path):
    ecgs = [dataclasses.replace(found("ecg", key), patient="n") for key in ("a", "b", "c")]
    (tmp_path / "one.csv").write_text("subject,ecg,cad\nann,b,1\n")
    linked = linkage.link(linkage.sort_out(ecgs), read_labels([tmp_path / "one.csv"]), SECRET, 0)
    assert {row["subject"] for row in linked.rows} == {
        linkage.pseudonym(SECRET, "ann")
    }  # so `withdraw` finds all three
    (tmp_path / "two.csv").write_text("subject,ecg,cad\nann,b,1\nbob,c,1\n")
    linked = linkage.link(linkage.sort_out(ecgs), read_labels([tmp_path / "two.csv"]), SECRET, 0)
    assert {row["subject"] for row in linked.rows} == {
        linkage.pseudonym(SECRET, who) for who in ("a", "ann", "bob")
    }


def test_biobank_recordings_are_paired_by_person_and_visit():
    def of(kind, field, visit):
        return dataclasses.replace(
            found(kind, f"1000012_{field}_{visit}_0", person="1000012"), visit=visit
        )

    ecgs, cmrs = [of("ecg", 20205, v) for v in "23"], [of("cmr", 20209, v) for v in "34"]
    unknown = found("cmr", "1000012")  # ukbb_cardiac's folder: the person without the visit
    linked = linkage.link(linkage.sort_out([*ecgs, *cmrs, unknown]), Labels(), SECRET, 0)
    assert pairs(linked) == {
        (ecgs[1].source, cmrs[0].source),
        (ecgs[0].source, unknown.source),
        (None, cmrs[1].source),
    }
    assert len({row["subject"] for row in linked.rows}) == 1
    paired = next(step for step in linked.flow if step["step"] == "paired")
    assert (paired["n"], paired["reasons"]) == (2, {"cmr: no ECG": 1})


def test_the_flow_accounts_for_every_recording():
    bad = [
        dataclasses.replace(found("ecg", "x"), step="readable", reason="truncated"),
        dataclasses.replace(found("ecg", "y"), step="plausible", reason="flat lead"),
    ]
    linked = linkage.link(
        linkage.sort_out(
            [*bad, found("ecg", "a", digest="d", af=1.0), found("ecg", "b", digest="d")]
        ),
        Labels(),
        SECRET,
        0,
    )
    steps = {step["step"]: (step["n"], step["reasons"]) for step in linked.flow}
    assert steps["found"] == (4, {})
    assert steps["readable"] == (3, {"ecg: truncated": 1})
    assert steps["plausible"] == (2, {"ecg: flat lead": 1})
    assert steps["unique"] == (1, {f"ecg: {linkage.DUPLICATE}": 1})
    assert steps["labelled"][0] == steps["kept"][0] == 1
    with pytest.raises(
        InputError, match="none of 2 recordings can serve: 1 truncated, 1 flat lead"
    ):
        linkage.link(linkage.sort_out(bad), Labels(), SECRET, 0)


def test_a_labels_file_brings_no_text_and_no_dates(tmp_path, caplog):
    (tmp_path / "l.csv").write_text(
        "record,age,sex,cad,report,birth_year,LVEF\na,61,Female,1,John has pain,1960,55.5\nb,,M,,fine,1970,\n"
    )
    labels = read_labels([tmp_path / "l.csv"])
    assert labels.by_ecg == {"a": {"age": 61, "sex": 0, "cad": 1, "LVEF": 55.5}, "b": {"sex": 1}}
    assert "report, birth_year" in caplog.text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "name,cad\na,1\n",
            "no column 'subject', 'eid', 'ecg', 'record' or 'cmr' to join on; it has name, cad",
        ),
        ("ecg,cad\na,1\na,0\n", "ecg: 1 of the keys stand in more than one line"),
        ("ecg,year\na,1960\n", "no column of 0/1 labels, demographics or phenotypes; it has year"),
        ("", "cannot be read"),
    ],
)
def test_bad_labels_files(tmp_path, text, words):
    (tmp_path / "l.csv").write_text(text)
    with pytest.raises(InputError, match=words):
        read_labels([tmp_path / "l.csv"])


# -- building ----------------------------------------------------------------------------------------------------------


def tree(path):
    return {
        p.relative_to(path).as_posix(): p.read_bytes()
        for p in sorted(path.rglob("*"))
        if p.is_file()
    }


def synth(path):
    return build.synth(path, subjects=30, seed=5, shard_rows=4)


def test_a_killed_build_resumes_and_ends_byte_for_byte(tmp_path, ray_session):
    whole = synth(tmp_path / "a" / "c")
    code = f"""
import sys
sys.path[:] = {sys.path!r}
from pathlib import Path
from ecgcmr.runtime import cluster
from test_cohort import synth
cluster.start(cpus=1, object_store_mb=100)
synth(Path({str(tmp_path)!r}) / "b" / "c")
"""
    killed, parts = tmp_path / "b" / "c", []
    process = subprocess.Popen(
        [sys.executable, "-c", code], start_new_session=True, stderr=subprocess.PIPE
    )
    end = time.monotonic() + 120
    while len(parts) < 2 and time.monotonic() < end and process.poll() is None:
        time.sleep(0.05)
        parts = list((killed / dataset.BUILD).glob("*-shard-*.json"))
    ended_by_itself = process.poll() is not None
    process.kill()
    process.wait()
    words = process.stderr.read().decode()[-2000:]
    assert parts, words
    assert not ended_by_itself, words
    assert not (killed / dataset.MANIFEST).exists()
    with pytest.raises(InputError, match="an unfinished cohort; run the same command again"):
        dataset.open(killed)
    with pytest.raises(InputError, match="an unfinished cohort made otherwise: seed 5 → 6"):
        build.synth(killed, subjects=30, seed=6, shard_rows=4)
    done = {
        p: (killed / "train" / p.name.split("-", 1)[1]).with_suffix(".parquet")
        for p in parts
        if "train" in p.name
    }
    before = {p: p.stat().st_mtime_ns for p in done.values()}
    resumed = synth(killed)
    assert {p: p.stat().st_mtime_ns for p in before} == before  # what was there was not made again
    assert tree(resumed.path) == tree(whole.path)
    assert check.check(resumed.path) == []


def test_synthetic_rows_are_the_generator_s(tmp_path, ray_session):
    made = build.synth(tmp_path / "c", subjects=9, seed=2)
    assert made.manifest["rows"] == {"train": 6, "val": 1, "test": 2}
    index = made.rows()
    assert sorted(index["subject"]) == [f"synth-{i:07d}" for i in range(1, 10)]
    assert set(tasks.PHENOTYPES) | set(tasks.DISEASES) <= set(index.columns)
    assert 3 <= index["LVEF"].notna().sum() <= 6  # half of them are phenotyped
    again = build.synth(tmp_path / "c", subjects=9, seed=2)
    assert again.fingerprint == made.fingerprint


def write_wfdb(folder, name, wave, rate=500):
    """One lawful twelve-lead recording as header and signal file."""
    import wfdb

    one, two = 0.6 * wave, wave
    limbs = [one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2]
    signal_ = np.array([*limbs, *(wave * c for c in (-0.5, -0.3, 0.45, 0.9, 1.1, 0.8))]).T
    wfdb.wrsamp(
        name,
        fs=rate,
        units=["mV"] * 12,
        sig_name=list(shards.LEADS),
        p_signal=signal_,
        fmt=["16"] * 12,
        adc_gain=[1000] * 12,
        baseline=[0] * 12,
        write_dir=str(folder),
        comments=["Age: 61", "Sex: Female"],
    )


def test_a_cohort_of_recordings(tmp_path, ray_session):
    raw, rng = tmp_path / "raw", np.random.default_rng(0)
    raw.mkdir()
    time_ = np.arange(5000) / 500
    for i in range(8):
        beat = (1 + 0.1 * i) * np.exp(-(((time_ * (1 + 0.05 * i)) % 1 - 0.4) ** 2) / 0.001)
        write_wfdb(raw, f"r{i}", beat + 0.01 * rng.standard_normal(5000))
    write_wfdb(raw, "zcopy", beat)
    write_wfdb(raw, "zagain", beat)
    write_wfdb(raw, "zshort", beat[:2000])
    (tmp_path / "other site").mkdir()
    write_wfdb(
        tmp_path / "other site", "r0", beat + 0.1 * rng.standard_normal(5000)
    )  # noisy, and r0 is there twice
    (tmp_path / "labels.csv").write_text(
        "ecg,subject,cad\n" + "".join(f"r{i},P{i // 2},{i % 2}\n" for i in range(8))
    )
    places = [f"wfdb:{raw}", f"wfdb:{tmp_path / 'other site'}"]
    made = build.build(
        tmp_path / "c", ecg=places, labels=tmp_path / "labels.csv", seed=1, shard_rows=4
    )
    assert check.check(made.path) == []
    index = made.rows()
    assert len(index) == 10
    # Four persons (one with a single visit, as its r0 is in doubt), r0 of either place as one, one that nobody names.
    assert index["subject"].nunique() == 6
    assert not index["has_cmr"].any()
    assert index["cad"].notna().sum() == 7
    assert index["flag_noisy"].sum() == made.manifest["flags"]["flag_noisy"]["train"][
        "positive"
    ] + sum(made.manifest["flags"]["flag_noisy"][split]["positive"] for split in ("val", "test"))
    assert index["flag_noisy"].sum() == 1
    assert not set(quality_flags.FLAGS) & set(made.columns)
    assert (index["age"] == 61).all()
    flow = {step["step"]: step["n"] for step in made.manifest["flow"]}
    assert (flow["found"], flow["unique"], flow["kept"]) == (12, 10, 10)
    assert len(made.manifest["exclusions"]) == 2
    text = (made.path / dataset.MANIFEST).read_text() + index.to_csv()
    assert not any(name in text for name in ("zcopy", "zshort", "r3", "other site", str(tmp_path)))
    link = pd.read_csv(tmp_path / "c.link.csv")
    assert set(link["key"]) == {
        *(f"r{i}" for i in range(1, 8)),
        "raw/r0",
        "other site/r0",
        "zcopy",
        "zagain",
        "zshort",
    }
    assert (tmp_path / "c.key").stat().st_mode & 0o77 == 0
    with pytest.raises(InputError, match="seed 1 → 2"):
        build.build(
            tmp_path / "c", ecg=places, labels=tmp_path / "labels.csv", seed=2, shard_rows=4
        )
    (tmp_path / "labels.csv").write_text("ecg,flag_paced\nr1,1\n")
    with pytest.raises(
        InputError, match="column 'flag_paced' is a flag that the build makes itself"
    ):
        build.build(tmp_path / "d", ecg=places, labels=tmp_path / "labels.csv")


def test_a_folder_of_several_formats_needs_no_format(tmp_path):
    (tmp_path / "in/a").mkdir(parents=True)
    write_wfdb(tmp_path / "in/a", "r0", np.sin(np.arange(5000) / 40))
    (tmp_path / "in/x.xml").write_bytes(handmade_exports.muse(handmade_exports.beats()))
    (tmp_path / "in/notes.txt").write_text("no ECG")
    place = tmp_path / "in"
    assert build.find("ecg", str(place)) == [f"wfdb:{place}/a/r0.hea", f"muse:{place}/x.xml"]
    assert build.find("ecg", f"wfdb:{place}") == [f"wfdb:{place}/a/r0.hea"]


def test_bad_sources(tmp_path):
    with pytest.raises(InputError, match="a cohort needs recordings"):
        build.build(tmp_path / "c")
    with pytest.raises(InputError, match="unknown reader of --ecg 'tape'; known:"):
        build.build(tmp_path / "c", ecg="tape:/x")
    for given, words in (
        (str(tmp_path / "none"), "no such file or folder"),
        (str(tmp_path), "no ECG in a format"),
    ):
        with pytest.raises(InputError, match=f"--ecg {given}: {words}"):
            build.build(tmp_path / "c", ecg=given)
    with pytest.raises(InputError, match="unknown reader of --cmr"):
        build.build(tmp_path / "c", cmr=str(tmp_path))
    with pytest.raises(InputError, match="must not lie inside the cohort"):
        build.secret(tmp_path / "c", tmp_path / "c" / "key")


def test_a_build_of_nothing_usable_leaves_nothing(tmp_path, ray_session):
    source = tmp_path / "recordings"
    source.mkdir()
    (source / "a.hea").write_text("a 12 500 5000\n")  # no signal lines, no data
    with pytest.raises(InputError, match="none of 1 recordings can serve"):
        build.build(tmp_path / "c", ecg=f"wfdb:{source}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["recordings"]


def test_recordings_of_uk_biobank_pair_by_participant_and_visit(tmp_path, ray_session):
    ecgs, stacks = tmp_path / "20205", tmp_path / "20209"
    ecgs.mkdir()
    stacks.mkdir()
    visits = {
        "1000001": ("23", "23"),
        "1000002": ("2", "3"),
        "1000003": ("2", "2"),
        "1000004": ("23", "3"),
    }
    for number, (person, (of_ecg, of_cmr)) in enumerate(visits.items()):
        for visit in of_ecg:
            signal = handmade_exports.beats(10 * number + int(visit))
            (ecgs / f"{person}_20205_{visit}_0.xml").write_bytes(
                handmade_exports.cardiosoft(signal)
            )
        for visit in of_cmr:
            handmade_stacks.archive(
                stacks / f"{person}_20209_{visit}_0.zip", beating(10 + number, 300 * int(visit))
            )
    made = build.build(tmp_path / "c", ecg=[f"cardiosoft:{ecgs}"], cmr=[f"dicom:{stacks}"], seed=3)
    link = pd.read_csv(tmp_path / "c.link.csv", dtype=str, keep_default_na=False)
    assert set(link.excluded) == {""}
    subject = {key.split("_")[0]: name for key, name in zip(link.key, link.subject)}
    assert len(set(subject.values())) == len(visits)
    rows = made.rows()
    assert rows.groupby("subject").split.nunique().eq(1).all()  # all visits of a person on one side
    kinds = {
        person: sorted(zip(mine.has_ecg, mine.has_cmr))
        for person, name in subject.items()
        for mine in [rows[rows.subject == name]]
    }
    assert kinds == {
        "1000001": [(True, True), (True, True)],
        "1000002": [(False, True), (True, False)],
        "1000003": [(True, True)],
        "1000004": [(True, False), (True, True)],
    }
    for person, visit in (("1000001", "2"), ("1000001", "3"), ("1000003", "2"), ("1000004", "3")):
        record = raw.READERS["ecg"]["cardiosoft"].read(str(ecgs / f"{person}_20205_{visit}_0.xml"))
        trace = ecg.prepare(record.signal, record.rate_hz, record.leads)[0].astype(np.float16)
        image = cmr.prepare(
            raw.READERS["cmr"]["dicom"].read(str(stacks / f"{person}_20209_{visit}_0.zip"))
        )[0]
        mine = rows[(rows.subject == subject[person]) & rows.has_cmr & rows.has_ecg]
        both = made.load(mine, ("ecg", "cmr"))
        assert any(
            (a == trace).all() and (b == image).all() for a, b in zip(both["ecg"], both["cmr"])
        )


def beating(radius, level):
    """The images of a stack in which a disc shrinks and grows."""
    y, x = (
        np.mgrid[: handmade_stacks.ROWS, : handmade_stacks.COLUMNS]
        - np.array([20, 24])[:, None, None]
    )
    sizes = radius - 4 * np.sin(np.pi * np.arange(handmade_stacks.PHASES) / handmade_stacks.PHASES)
    cycle = [
        ((np.hypot(x, y) < size) * level + 20 * (x > 0)).astype("<u2").tobytes() for size in sizes
    ]
    return [
        handmade_stacks.stored(handmade_stacks.image(s, p, PixelData=pixels))
        for s in range(handmade_stacks.SLICES)
        for p, pixels in enumerate(cycle)
    ]
