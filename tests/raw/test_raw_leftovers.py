"""Files of a folder that are no recording are counted by kind, and nothing of their names is said."""

import json
import shutil
import zipfile
from pathlib import Path
from types import SimpleNamespace

import handmade_exports as made
import numpy as np
import pytest
from test_raw_wfdb import beats, write

from ecgcmr import cli
from ecgcmr.cohort import build, inspect
from ecgcmr.commands import cohorts
from ecgcmr.errors import Excluded
from ecgcmr.inference import predict
from ecgcmr.raw import leftovers, search

CASES = Path(__file__).parents[3] / "shared" / "cases" / "ecg"
OWN = (
    b'<?xml version="1.0"?>\n<!-- Jane Roe -->\n<sapphire xmlns="urn:x"><name>Roe</name></sapphire>'
)


@pytest.fixture
def ward(tmp_path):
    """One MUSE file and one WFDB record with what else lies in such folders."""
    folder = tmp_path / "ward"
    (folder / "inner").mkdir(parents=True)
    (folder / "a.xml").write_bytes(made.muse(made.beats()))
    write(folder / "inner", beats(), name="r1")
    (folder / "inner" / "r1.atr").write_bytes(b"\0\0")
    (folder / "inner" / "r1.pdf").write_bytes(b"%PDF")
    for n in range(5):
        (folder / f"x{n}.xml").write_bytes(OWN)
    (folder / "utf16.xml").write_bytes(OWN.decode().encode("utf-16"))
    (folder / "empty.txt").touch()
    (folder / "Roe.Jane").write_bytes(b"Jane Roe")
    (folder / "README").write_text("Jane Roe")
    (folder / ".DS_Store").write_bytes(b"\0")
    (folder / "exams.csv").write_text("exam_id\n")
    return folder


KINDS = {
    "XML with root sapphire": 6,
    ".pdf": 1,
    ".txt": 1,
    "hidden": 1,
    "of another ending": 1,
    "without ending": 1,
}
WORDS = "6 XML with root sapphire, 1 .pdf, 1 .txt, 1 hidden, 1 of another ending, 1 without ending"


def test_predict_inspect_and_build_count_alike(ward):
    sources = predict.recordings([ward])
    assert [name for name, _ in sources] == ["muse", "wfdb"]
    assert predict.left_aside([ward], sources) == KINDS
    assert inspect.left_aside(ward, inspect.find(ward)) == KINDS
    for place in (str(ward), [str(ward)]):
        found = build._sources({"ecg": place})
        assert build._left_aside({"ecg": place}, found) == KINDS
    found = build._sources({"ecg": f"muse:{ward}"})
    aside = build._left_aside({"ecg": f"muse:{ward}"}, found)
    assert aside == {**KINDS, ".dat": 1, ".hea": 1, ".atr": 1}
    assert leftovers.words(KINDS) == WORDS


def test_images_of_no_stack_are_counted_and_what_belongs_to_one_is_not(tmp_path):
    ecgs, stacks = tmp_path / "ecgs", tmp_path / "stacks"
    (stacks / "p1").mkdir(parents=True)
    ecgs.mkdir()
    (ecgs / "a.xml").write_bytes(made.muse(made.beats()))
    for name in ("sa.nii.gz", "seg_sa.nii.gz", "la_2ch.nii.gz", "seg_la_2ch.nii.gz", "report.pdf"):
        (stacks / "p1" / name).write_bytes(b"")
    sources = {"ecg": [f"muse:{ecgs / 'a.xml'}"], "cmr": [f"nifti:{stacks / 'p1' / 'sa.nii.gz'}"]}
    places = {"ecg": str(ecgs), "cmr": [f"nifti:{stacks}", f"nifti:{stacks}"]}
    assert build._left_aside(places, sources) == {".nii.gz": 2, ".pdf": 1}


def test_they_are_a_line_and_the_recordings_are_read(ward, capfd):
    code = cli.main(["inspect", str(ward)])
    said = capfd.readouterr()
    assert code == 0
    assert len(said.out.splitlines()) == 2
    assert said.err == f"ecgcmr: left aside: {WORDS}\n"
    assert "Jane" not in said.err
    assert cli.main(["inspect", str(ward / "a.xml")]) == 0
    assert capfd.readouterr().err == ""


def test_they_are_in_the_flow_of_a_cohort():
    rows = SimpleNamespace(
        flow=[{"step": "found", "n": 2, "unit": "recordings", "reasons": {}}],
        exclusions=[],
        repairs=[],
    )
    account = build._account(Path("x"), rows, {}, KINDS)
    json.dumps(account)
    assert account["flow"][0]["left_aside"] == KINDS
    cohort = SimpleNamespace(manifest=account)
    assert cohorts.flow_of(cohort) == f"left aside {WORDS} → found 2"


def test_a_folder_of_nothing_else_says_what_there_is(tmp_path):
    (tmp_path / "a.xml").write_bytes(OWN)
    with pytest.raises(Exception, match="1 XML with root sapphire: no recording of a known format"):
        inspect.find(tmp_path)
    with pytest.raises(Exception, match="1 XML with root sapphire: no ECG in a format"):
        build._sources({"ecg": str(tmp_path)})
    with pytest.raises(Excluded, match=r"^XML with root sapphire: no ECG in a format"):
        search.recordings("ecg", tmp_path / "a.xml")


def test_signals_under_another_name_belong_to_their_header(tmp_path):
    header = Path(write(tmp_path, beats()))
    (tmp_path / "r1.dat").rename(tmp_path / "signals.d00")
    header.write_text(header.read_text().replace("r1.dat", "signals.d00"))
    assert inspect.left_aside(tmp_path, inspect.find(tmp_path)) == {}


def test_words_beside_an_array_belong_to_it(tmp_path):
    for name in ("a.npy", "b.npy", "c.npy"):
        np.save(tmp_path / name, beats(1))
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "b.npy.json").write_text("{}")
    (tmp_path / "other.json").write_text("{}")
    assert inspect.left_aside(tmp_path, inspect.find(tmp_path)) == {".json": 1}


def test_slower_copies_of_ptb_xl_are_counted(tmp_path):
    for name, rate in (("00001_hr", 500), ("00001_lr", 100)):
        write(tmp_path, beats(), name=name, rate=rate)
    found = build._sources({"ecg": f"wfdb:{tmp_path}"})
    aside = build._left_aside({"ecg": f"wfdb:{tmp_path}"}, found)
    assert aside == {".dat": 1, leftovers.SLOWER: 1}


def test_members_of_an_archive_are_counted(ward, tmp_path):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as opened:
        for file in sorted((ward / "inner").iterdir()):
            opened.write(file, f"inner/{file.name}")
        opened.writestr("notes.pdf", b"")
        opened.writestr("notes", b"")
    claims = inspect.find(tmp_path / "all.zip")
    aside = inspect.left_aside(tmp_path / "all.zip", claims)
    assert aside == {".pdf": 1, "without ending": 1}


@pytest.mark.skipif(not CASES.exists(), reason="the cases lie beside a development checkout")
def test_the_case_of_an_unknown_xml(tmp_path):
    folder = shutil.copytree(CASES / "unknown_xml_in_folder", tmp_path / "case")
    aside = inspect.left_aside(folder, inspect.find(folder))
    assert sum(aside.values()) in (1, 2)
