"""Nothing that identifies a person leaves a reader: names, ids, dates and places planted in headers and file names are
looked for in every byte that a build, a pre-training, a report, a check and a withdrawal write.

A new format is one function that writes a recording full of them, and one line of `FORMATS`.
"""

import base64
import json
import shutil
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pyarrow.parquet as pq
import pydicom
import pytest
import wfdb
from test_raw_sax import COLUMNS, PHASES, ROWS, SLICES, image, stored

from ecgcmr import cli, cluster, cohort, inspect, shards, store

NAME, PERSON, BIRTH, PLACE, ORDER = "Plantagenet", "PID7731903", "19530417", "Zauberberghaus", "ACC5519202"
FILE, FOLDER = "querulantov", "oblomovitsch"
PLANTED = (NAME, PERSON, BIRTH, "1953-04-17", "17.04.1953", PLACE, ORDER, FILE, FOLDER)
PEOPLE = 5

SPACE = """
from ecgcmr.nn import Network
from ecgcmr.trial import Trial


def trials():
    tiny = Network(crop=500, patch=100, width=16, depth=1, heads=2, decoder_width=16, decoder_depth=1, decoder_heads=2)
    return [Trial(space="t", stage="pretrain", task="ecg", label="mae", method="mae", network=tiny, batch=2, epochs=1)]
"""


def heart(number):
    """Twelve lawful leads, (12, 5000) mV, of a person of this number."""
    random, time = np.random.default_rng(number), np.arange(5000) / 500
    wave = np.exp(-(((time * random.uniform(0.9, 1.6)) % 1 - 0.4) ** 2) / 0.001)
    one, two = (size * wave + 0.01 * random.standard_normal(5000) for size in (0.6, 1.0))
    chest = [size * wave + 0.01 * random.standard_normal(5000) for size in (-0.5, -0.3, 0.45, 0.9, 1.1, 0.8)]
    return np.stack([one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2, *chest])


def disc(number):
    """A pulsing disc, (SLICES, PHASES, ROWS, COLUMNS)."""
    y, x = np.mgrid[:ROWS, :COLUMNS] - np.array([ROWS, COLUMNS])[:, None, None] / 2
    radius = 12 + number / 4 - 4 * np.sin(np.pi * np.arange(PHASES) / PHASES)
    frames = np.stack([(np.hypot(y, x) < r) * 900.0 + 10 * number for r in radius])
    return np.broadcast_to(frames, (SLICES, *frames.shape)).astype(np.float32)


def write_wfdb(folder, stem, number):
    said = [f"Name: {NAME}", f"ID: {PERSON}", f"Birth date: 17.04.1953 {BIRTH} 1953-04-17", f"Hospital: {PLACE}",
            f"Accession: {ORDER}", f"Age: {PERSON}", f"Sex: {NAME}", f"Dx: 426783006,{NAME}"]  # fmt: skip
    wfdb.wrsamp(stem, fs=500, units=["mV"] * 12, sig_name=list(shards.LEADS), p_signal=heart(number).T, fmt=["16"] * 12,
                adc_gain=[1000] * 12, baseline=[0] * 12, write_dir=str(folder), comments=said)  # fmt: skip


def write_nifti(folder, stem, number):
    made = nibabel.Nifti1Image(disc(number).transpose(3, 2, 0, 1), np.diag([1.5, 1.5, -8.0, 1.0]))
    made.header["descrip"], made.header["db_name"], made.header["aux_file"] = f"{NAME} {PERSON} {BIRTH}", PERSON, PLACE
    made.header["intent_name"] = ORDER
    note = nibabel.nifti1.Nifti1Extension("comment", " ".join(PLANTED[:7]).encode())
    made.header.extensions.append(note)
    nibabel.save(made, folder / f"{stem}.nii.gz")


def write_dicom_stack(folder, stem, number):
    frames = disc(number)
    (folder / stem).mkdir()
    for s in range(SLICES):
        for p in range(PHASES):
            pixels = frames[s, p].astype("<u2").tobytes()
            made = image(s, p, PatientName=f"{NAME}^{PLACE}", PatientID=PERSON, PatientBirthDate=BIRTH, StudyDate=BIRTH,
                         InstitutionName=PLACE, AccessionNumber=ORDER, SeriesDescription=NAME, StudyID=ORDER[:9],
                         PatientComments=f"{NAME} 17.04.1953", PixelData=pixels)  # fmt: skip
            made.add(pydicom.DataElement(0x00091001, "LO", f"{NAME} {PERSON}"))
            (folder / stem / f"{FILE}{s:02d}{p:02d}.dcm").write_bytes(stored(made))


FORMATS = [
    ("ecg", "wfdb", write_wfdb),
    ("cmr", "nifti", write_nifti),
    ("cmr", "dicom", write_dicom_stack),
]


def needles():
    """Every planted word as it may be written: as text in three encodings, and in base64 from any place."""
    for word in PLANTED:
        for coded in (word.encode(), word.encode("utf-16-le"), word.encode("utf-16-be")):
            yield word, coded.lower()
        for before in range(3):
            coded = base64.b64encode(b"\0" * before + word.encode())
            yield word, coded[[0, 2, 3][before] :].rstrip(b"=")[:-1].lower()


def contents(path):
    """The bytes of a file, and of a table or a compressed file also what is stored in them encoded."""
    yield path.read_bytes()
    if path.suffix == ".gz":
        yield zlib.decompressobj(wbits=31).decompress(path.read_bytes())  # also of one that was cut off
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        words = table.select([f.name for f in table.schema if not str(f.type).startswith("fixed_size_binary")])
        yield json.dumps(words.to_pylist(), default=str).encode() + str(table.schema.metadata).encode()


def leaks(*folders):
    """(planted word, file) of everything that was found in a file's name or content."""
    wanted = list(needles())
    found = set()
    for folder in folders:
        for path in folder.rglob("*"):
            inside = path.relative_to(folder).as_posix().encode().lower()
            held = [inside, *(content.lower() for content in contents(path))] if path.is_file() else [inside]
            found |= {(word, str(path)) for word, coded in wanted for content in held if coded in content}
    return found


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """A folder for each format with whole recordings and one that is cut off."""
    root = tmp_path_factory.mktemp("raw") / FOLDER
    for number, (_, name, write) in enumerate(FORMATS):
        folder = root / name
        folder.mkdir(parents=True)
        for i in range(PEOPLE):
            write(folder, f"{FILE}-{name}-{i}", 10 * number + i)
        for path in sorted(path for path in folder.iterdir() if path.is_file() and f"-{name}-0" in path.name):
            cut = path.with_name(path.name.replace(f"-{name}-0", f"-{name}-cut"))
            content = path.read_bytes().replace(f"-{name}-0".encode(), f"-{name}-cut".encode())
            cut.write_bytes(content[: len(content) * 2 // 3])
    return root


@pytest.fixture
def one_ray(ray_session, monkeypatch):
    """Commands that run in this process leave the session's Ray as it is."""
    monkeypatch.setattr(cluster, "stop", lambda: None)


def run(*words):
    return cli.main([str(word) for word in words])


def test_the_search_finds_what_is_there(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"x" + base64.b64encode(f"ab{PERSON}cd".encode()))
    (tmp_path / "b.bin").write_bytes(NAME.upper().encode("utf-16-le"))
    pq.write_table(pq.read_table(table(tmp_path / "c.parquet", PLACE)), tmp_path / "d.parquet", compression="gzip")
    assert {(word, Path(path).name) for word, path in leaks(tmp_path)} >= {
        (PERSON, "a.bin"), (NAME, "b.bin"), (PLACE, "d.parquet"),
    }  # fmt: skip


def table(path, word):
    import pandas as pd

    pd.DataFrame({"a": [word] * 500}).to_parquet(path)
    return path


def test_every_format_is_planted_and_read(recordings):
    for kind, name, _ in FORMATS:
        seen = list(inspect.look(inspect.find(recordings / name)))
        assert sum(one.kept for one in seen) == PEOPLE, [(one.error, one.faults) for one in seen]
        assert {one.kind for one in seen if one.kept} == {kind}
        assert {word for word, _ in leaks(recordings / name)} >= {NAME, PERSON, BIRTH, PLACE}


def test_no_identifier_is_written(recordings, tmp_path, one_ray, capfd):
    out, runs, space = tmp_path / "cohorts" / "c", tmp_path / "runs", tmp_path / "space.py"
    space.write_text(SPACE)
    places = [word for kind, name, _ in FORMATS for word in (f"--{kind}", f"{name}:{recordings / name}")]
    shared = ("--cohort", out, "--runs", runs)
    assert run("cohort", "build", *places, *shared) == 0
    assert run("cohort", "check", *shared) == 0
    assert run("pretrain", space, *shared) == 0
    assert run("report", *shared) == 0
    (tmp_path / "list").write_text(f"{FILE}-wfdb-1\n")
    new = out.with_name("new")
    assert run("cohort", "withdraw", "--list", tmp_path / "list", "--out", new, *shared) == 0
    assert (
        run("cohort", "build", "--ecg", f"wfdb:{recordings}", "--cohort", new, "--runs", runs) == 2
    )  # refused, in words
    said = capfd.readouterr()
    assert len(cohort.open(out).rows()) == len(FORMATS) * PEOPLE
    assert any((runs / "logs").iterdir())
    assert list(store.records(runs))
    assert leaks(out, new, runs) == set()
    assert not [word for word in PLANTED if word.lower() in (said.out + said.err).lower()]
    link = (out.with_name("c.link.csv")).read_text()
    assert f"{FILE}-wfdb-1" in link  # with the builder, beside the cohort


def test_errors_of_a_build_name_no_recording(recordings, tmp_path, one_ray, capfd):
    places = []
    for kind, name, _ in FORMATS:
        for path in (recordings / name).glob(f"*-{name}-cut*"):
            (tmp_path / "only" / name).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, tmp_path / "only" / name)
            places += [f"--{kind}", f"{name}:{tmp_path / 'only' / name}"]
    places = list(dict.fromkeys(zip(places[::2], places[1::2], strict=True)))
    words = [word for pair in places for word in pair]
    assert run("cohort", "build", *words, "--cohort", tmp_path / "c", "--runs", tmp_path / "r") == 2
    said = capfd.readouterr()
    assert f"none of {len(places)} recordings can serve" in said.err
    assert not [word for word in PLANTED if word.lower() in (said.out + said.err).lower()]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["only"]
