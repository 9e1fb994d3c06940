"""WFDB recordings in zip archives: equal to the loose ones, and no way out, no bomb, no traceback."""

import io
import shutil
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from test_raw_wfdb import DATA, beats, write

from ecgcmr.errors import Excluded, InputError
from ecgcmr.raw import archive, key, wfdb

HEADER = (DATA / "A0002.hea").read_bytes()
SIGNAL = (DATA / "A0002.mat").read_bytes()


def pack(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        for name, content in members.items():
            file.writestr(zipfile.ZipInfo(name), content, method)
    return path


def test_members_read_as_loose_files_do(tmp_path):
    members = {f"g1/{file.name}": file.read_bytes() for file in DATA.iterdir()}
    file = pack(tmp_path / "records.zip", {**members, "g1/README.txt": b"no recording"})
    sources = wfdb.find(str(file))
    assert sources == [
        f"{file}#g1/{name}.hea" for name in ("00001_lr", "A0002", "E00001", "HR00001", "JS11438")
    ]
    for source in sources:
        member, loose = wfdb.read(source), wfdb.read(str(DATA / Path(source).name))
        assert np.array_equal(member.signal, loose.signal)
        assert (member.key, member.labels, member.age, member.repairs) == (
            loose.key,
            loose.labels,
            loose.age,
            loose.repairs,
        )


def test_nothing_stays_behind(tmp_path, monkeypatch):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    file = pack(tmp_path / "r.zip", {"A0002.hea": HEADER, "A0002.mat": SIGNAL})
    wfdb.read(f"{file}#A0002.hea")
    assert not list(scratch.iterdir())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["r.zip", "scratch"]


def test_persons_and_the_table_are_found_in_the_archive(tmp_path):
    folder = tmp_path / "x"
    folder.mkdir()
    write(folder, beats(), name="s1")
    pair = {end: (folder / f"s1{end}").read_bytes() for end in (".hea", ".dat")}
    table = (
        b"ecg_id,patient_id,age,sex,height,weight,scp_codes,filename_lr,filename_hr\n"
        b"1,15709.0,56.0,1,,63.0,\"{'NORM': 100.0}\",records100/00000/s1,records500/00000/s1\n"
    )
    ptbxl = {f"ptb/records500/00000/s1{end}": content for end, content in pair.items()}
    file = pack(tmp_path / "ptb.zip", {**ptbxl, "ptb/ptbxl_database.csv": table})
    record = wfdb.read(f"{file}#ptb/records500/00000/s1.hea")
    assert (record.age, record.sex, record.person, record.labels["scp_NORM"]) == (
        56.0,
        0.0,
        "patient15709",
        1.0,
    )
    mimic = pack(
        tmp_path / "m.zip", {f"files/p1000/p10001725/s4/s1{end}": c for end, c in pair.items()}
    )
    assert wfdb.read(wfdb.find(str(mimic))[0]).person == "p10001725"


def test_a_folder_of_archives_counts_only_without_loose_recordings(tmp_path):
    pack(tmp_path / "a.zip", {"A0002.hea": HEADER, "A0002.mat": SIGNAL})
    (tmp_path / "b.zip").write_bytes(b"PK\x03\x04 cut short")
    assert wfdb.find(str(tmp_path)) == [f"{tmp_path}/a.zip#A0002.hea", f"{tmp_path}/b.zip#"]
    with pytest.raises(Excluded, match="damaged archive"):
        wfdb.read(f"{tmp_path}/b.zip#")
    shutil.copy(DATA / "A0002.hea", tmp_path)
    assert wfdb.find(str(tmp_path)) == [f"{tmp_path}/A0002.hea"]


def test_an_archive_without_recordings_is_one_line(tmp_path):
    with pytest.raises(InputError, match="no WFDB header"):
        wfdb.find(str(pack(tmp_path / "a.zip", {"x.txt": b""})))


@pytest.mark.parametrize(
    "name", ["../A0002.hea", "/tmp/A0002.hea", "a/../../A0002.hea", "C:\\A0002.hea", "c:A0002.hea"]
)
def test_names_that_lead_outside(tmp_path, name):
    (tmp_path / "in").mkdir()
    file = pack(tmp_path / "in" / "a.zip", {name: HEADER})
    (source,) = wfdb.find(str(file))
    with pytest.raises(Excluded, match="archive member leads outside"):
        wfdb.read(source)
    assert [p.name for p in tmp_path.rglob("*")] == ["in", "a.zip"]


def test_a_sibling_that_is_a_link_is_a_file_of_words(tmp_path):
    """A symbolic link in an archive is a small file with a path in it: it must not become a link."""
    file = tmp_path / "a.zip"
    with zipfile.ZipFile(file, "w") as opened:
        opened.writestr("A0002.hea", HEADER)
        link = zipfile.ZipInfo("A0002.mat")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        opened.writestr(link, str(DATA / "A0002.mat"))
    with pytest.raises(Excluded, match="signal file truncated"):
        wfdb.read(f"{file}#A0002.hea")


def test_bombs(tmp_path):
    flat = pack(tmp_path / "a.zip", {"A0002.hea": HEADER, "A0002.mat": bytes(20 << 20)})
    with pytest.raises(Excluded, match="archive member expands too much"):
        wfdb.read(f"{flat}#A0002.hea")
    many = pack(tmp_path / "b.zip", {"A0002.hea": HEADER, **{f"A0002.x{i}": b"" for i in range(9)}})
    with pytest.raises(Excluded, match="too many files"):
        wfdb.read(f"{many}#A0002.hea")


def test_a_member_that_states_another_size(tmp_path):
    """The directory says 100 bytes, the stream holds 20 MB: reading ends at what is stated, the checksum tells."""
    content = bytearray(pack(tmp_path / "a.zip", {"A0002.hea": bytes(20 << 20)}).read_bytes())
    at = content.index(b"PK\x01\x02") + 24
    content[at : at + 4] = (100).to_bytes(4, "little")
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(Excluded, match="damaged archive"):
        wfdb.read(f"{tmp_path}/a.zip#A0002.hea")


def test_encrypted(tmp_path):
    content = bytearray(pack(tmp_path / "a.zip", {"A0002.hea": HEADER}).read_bytes())
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(mark) + at] |= 1
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(Excluded, match="encrypted archive"):
        wfdb.read(f"{tmp_path}/a.zip#A0002.hea")


def test_damage_ends_in_a_reason(tmp_path):
    """Every byte of a small archive flipped in turn: a reason or the same record, never another error."""
    signal = beats()[:, :5000]
    write(tmp_path, signal, name="r")
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as file:
        for name in ("r.hea", "r.dat"):
            file.write(tmp_path / name, name)
    content, rng = whole.getvalue(), np.random.default_rng(0)
    places = [
        *range(60),
        *rng.integers(0, len(content), 60),
        *range(len(content) - 140, len(content)),
    ]
    for place in places:
        broken = bytearray(content)
        broken[place] ^= 0xFF
        (tmp_path / "b.zip").write_bytes(broken)
        try:
            for source in wfdb.find(str(tmp_path / "b.zip")):
                assert np.abs(wfdb.read(source).signal - np.trunc(signal) / 1000).max() < 1e-6
        except (Excluded, InputError):
            pass


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a/rec.hea", "rec"),
        ("a/x.zip#b/rec.hea", "rec"),
        ("x.zip#rec.hea", "rec"),
        ("a/f.hdf5#7", "f-7"),
        ("sub1/sa.nii.gz", "sub1"),
        ("x.zip#", "x"),
    ],
)
def test_key_of_a_source(source, expected):
    assert key(source) == expected


def test_beside(tmp_path):
    file = pack(tmp_path / "a.zip", {"p/q/r.hea": b"", "p/t.csv": b"x"})
    assert archive.beside(f"{file}#p/q/r.hea", "t.csv", folders=1) == f"{file}#p/t.csv"
    assert archive.beside(f"{file}#p/q/r.hea", "t.csv", folders=0) is None
    (tmp_path / "t.csv").touch()
    assert archive.beside(str(tmp_path / "q" / "r.hea"), "t.csv", folders=1) == str(
        tmp_path / "t.csv"
    )
