"""Nothing that identifies a person leaves a reader: names, ids, dates and places planted in headers and file names are
looked for in every byte that a build, a training, a report, a check, a withdrawal and a model in use write and print.

A new format is one function that writes a recording full of them, and one line of `FORMATS`; a test misses what is lacking.

A file's name is its user's. It may stand where the user asked about that very file: in what `inspect`, `predict`, `embed`
and `explain` print and write of it (`OWN`). It is in no cohort, run, log, exported or shared model.
"""

import base64
import dataclasses
import json
import shutil
import zipfile
import zlib
from pathlib import Path

import h5py
import handmade_exports
import handmade_model
import nibabel
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pydicom
import pytest
import test_raw_ecg_dicom
import test_raw_text
import torch
import wfdb
from handmade_stacks import COLUMNS, PHASES, ROWS, SLICES, image, stored
from scipy.signal import resample_poly
from test_explain import RUN, leave

from ecgcmr import cli, raw
from ecgcmr.cohort import dataset, shards
from ecgcmr.runs import all_runs
from ecgcmr.runtime import cluster
from ecgcmr.signals import ecg
from ecgcmr.training import finetune

PEOPLE = 3
NAME, PERSON, BIRTH, PLACE, ORDER = (
    "Plantagenet",
    "PID7731903",
    "19530417",
    "Zauberberghaus",
    "ACC5519202",
)
NUMBERS = tuple(str(77_319_035_500 + i) for i in range(PEOPLE))
OWN_WORDS = (NAME, PERSON, BIRTH, "1953-04-17", "17.04.1953", PLACE, ORDER)
EXPORTED = (
    *(handmade_exports.FIRST, handmade_exports.LAST, handmade_exports.ID, handmade_exports.CLINIC),
    *(
        handmade_exports.DOCTOR,
        handmade_exports.SERIAL,
        "Brugada",
        "19510423",
        "04-23-1951",
        "02-17-2019",
    ),
    *("14:35:09", "20190217143509"),
)
HEADER = (*OWN_WORDS, *NUMBERS, *EXPORTED)
FILE, FOLDER = "querulantov", "oblomovitsch"
PLANTED = (*HEADER, FILE, FOLDER)
OWN = (
    "inspect/",
    "risks.csv",
    "risks.json",
    "risks.html",
    "vectors/embeddings.parquet",
    "attention/",
)

SPACE = """
from ecgcmr.nn import Network
from ecgcmr.trial import Trial


def trials():
    tiny = Network(crop=500, patch=100, width=16, depth=1, heads=2, decoder_width=16, decoder_depth=1, decoder_heads=2)
    return [Trial(space="t", stage="pretrain", task="ecg", system="mae", method="mae", network=tiny, batch=2, epochs=1)]
"""


def heart(number):
    """Twelve lawful leads, (12, 5000) mV, of a person of this number."""
    random, time = np.random.default_rng(number), np.arange(5000) / 500
    wave = np.exp(-(((time * random.uniform(0.9, 1.6)) % 1 - 0.4) ** 2) / 0.004)
    one, two = (size * wave + 0.01 * random.standard_normal(5000) for size in (0.6, 1.0))
    chest = [
        size * wave + 0.01 * random.standard_normal(5000)
        for size in (-0.5, -0.3, 0.45, 0.9, 1.1, 0.8)
    ]
    return np.stack([one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2, *chest])


def disc(number):
    """A pulsing disc, (SLICES, PHASES, ROWS, COLUMNS)."""
    y, x = np.mgrid[:ROWS, :COLUMNS] - np.array([ROWS, COLUMNS])[:, None, None] / 2
    radius = 12 + number / 4 - 4 * np.sin(np.pi * np.arange(PHASES) / PHASES)
    frames = np.stack([(np.hypot(y, x) < r) * 900.0 + 10 * number for r in radius])
    return np.broadcast_to(frames, (SLICES, *frames.shape)).astype(np.float32)


def write_wfdb(folder, stem, number):
    said = [
        f"Name: {NAME}",
        f"ID: {PERSON}",
        f"Birth date: 17.04.1953 {BIRTH} 1953-04-17",
        f"Hospital: {PLACE}",
        f"Accession: {ORDER}",
        f"Age: {PERSON}",
        f"Sex: {NAME}",
        f"Dx: 426783006,{NAME}",
    ]
    wfdb.wrsamp(
        stem,
        fs=500,
        units=["mV"] * 12,
        sig_name=list(shards.LEADS),
        p_signal=heart(number).T,
        fmt=["16"] * 12,
        adc_gain=[1000] * 12,
        baseline=[0] * 12,
        write_dir=str(folder),
        comments=said,
    )


def write_ecg_dicom(folder, stem, number):
    made = test_raw_ecg_dicom.dataset(test_raw_ecg_dicom.group(heart(number) * 1000))
    made.PatientName, made.PatientID, made.PatientBirthDate, made.StudyDate = (
        NAME,
        f"{PERSON}{number}",
        BIRTH,
        BIRTH,
    )
    made.InstitutionName, made.AccessionNumber, made.PatientComments = (
        PLACE,
        ORDER,
        f"{NAME} 17.04.1953",
    )
    made.add(pydicom.DataElement(0x00091001, "LO", f"{NAME} {PERSON}"))
    test_raw_ecg_dicom.save(folder / f"{stem}.dcm", made)


def write_cardiosoft(folder, stem, number):
    (folder / f"{stem}.xml").write_bytes(handmade_exports.cardiosoft(heart(number)))


def write_muse(folder, stem, number):
    (folder / f"{stem}.xml").write_bytes(handmade_exports.muse(heart(number)))


def write_mortara(folder, stem, number):
    (folder / f"{stem}.xml").write_bytes(handmade_exports.mortara(heart(number)))


def write_philips(folder, stem, number):
    (folder / f"{stem}.xml").write_bytes(handmade_exports.philips(heart(number)))


def write_aecg(folder, stem, number):
    (folder / f"{stem}.xml").write_bytes(handmade_exports.aecg(heart(number)))


def write_scp(folder, stem, number):
    (folder / f"{stem}.scp").write_bytes(handmade_exports.scp(heart(number)))


def write_edf(folder, stem, number):
    rows = list(zip(ecg.LEADS, heart(number)))
    patient = f"{PERSON} F X {NAME} {PLACE} {ORDER}"
    test_raw_text.write_edf(folder / f"{stem}.edf", rows, patient=patient)


def write_table(folder, stem, number):
    head = f"# name: {NAME} {PERSON}\n# site: {PLACE} {ORDER}\n# fs: 500\n# unit: mV\n"
    path = folder / f"{stem}.csv"
    test_raw_text.table(path, heart(number), head=head, note=[PLACE] * heart(number).shape[1])


def write_code15(folder, stem, number):
    tracing = np.pad(resample_poly(heart(number), 4, 5, axis=1), ((0, 0), (48, 48)))
    who = NUMBERS[number % 10]
    with h5py.File(folder / f"{stem}.hdf5", "w") as file:
        file["tracings"] = tracing.T[None].astype(np.float32)
        file["exam_id"] = [int(who)]
        file["names"] = [f"{NAME} {PERSON}"]
        file.attrs["patient"], file["tracings"].attrs["site"] = " ".join(OWN_WORDS), PLACE
    table, head = folder / "exams.csv", "exam_id,age,is_male,patient_id,AF,name\n"
    table.write_text(
        (table.read_text() if table.exists() else head) + f"{who},61,True,{who},False,{NAME}\n"
    )


def write_tensors(folder, stem, number):
    words = np.array([word.encode() for word in OWN_WORDS])
    facts = {"fs": 500, "unit": "mV", "patient": words}
    np.savez(folder / f"{stem}.npz", ecg=heart(number).astype(np.float32), **facts)


def write_normalised(folder, stem, number):
    words = np.array([word.encode() for word in OWN_WORDS])
    x = ecg.normalise(torch.from_numpy(ecg.clean(heart(number)))).numpy()
    np.savez(folder / f"{stem}.npz", ecg=x, patient=words)


def write_zipped_wfdb(folder, stem, number):
    write_wfdb(folder, stem, number)
    pack(folder, stem, f"{stem}.hea", f"{stem}.dat")


def write_zipped_muse(folder, stem, number):
    write_muse(folder, stem, number)
    pack(folder, stem, f"{stem}.xml")


def pack(folder, stem, *names):
    with zipfile.ZipFile(folder / f"{stem}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.comment = " ".join(OWN_WORDS).encode()
        for name in names:
            archive.write(folder / name, f"{FOLDER}/{name}")
            (folder / name).unlink()


def write_nifti(folder, stem, number):
    made = nibabel.Nifti1Image(disc(number).transpose(3, 2, 0, 1), np.diag([1.5, 1.5, -8.0, 1.0]))
    made.header["descrip"], made.header["db_name"], made.header["aux_file"] = (
        f"{NAME} {PERSON} {BIRTH}",
        PERSON,
        PLACE,
    )
    made.header["intent_name"] = ORDER
    note = nibabel.nifti1.Nifti1Extension("comment", " ".join(OWN_WORDS).encode())
    made.header.extensions.append(note)
    nibabel.save(made, folder / f"{stem}.nii.gz")


def write_dicom_stack(folder, stem, number):
    frames = disc(number)
    (folder / stem).mkdir()
    for s in range(SLICES):
        for p in range(PHASES):
            pixels = frames[s, p].astype("<u2").tobytes()
            made = image(
                s,
                p,
                PatientName=f"{NAME}^{PLACE}",
                PatientID=f"{PERSON}{number}",
                PatientBirthDate=BIRTH,
                InstitutionName=PLACE,
                AccessionNumber=ORDER,
                SeriesDescription=NAME,
                StudyID=ORDER[:9],
                StudyDate=BIRTH,
                PatientComments=f"{NAME} 17.04.1953",
                PixelData=pixels,
            )
            made.add(pydicom.DataElement(0x00091001, "LO", f"{NAME} {PERSON}"))
            (folder / stem / f"{FILE}{s:02d}{p:02d}.dcm").write_bytes(stored(made))


FORMATS = [  # folder, kind, reader, writer; stacks first: their size grows with the number
    ("nifti", "cmr", "nifti", write_nifti),
    ("stacks", "cmr", "dicom", write_dicom_stack),
    ("wfdb", "ecg", "wfdb", write_wfdb),
    ("dicom", "ecg", "dicom", write_ecg_dicom),
    ("cardiosoft", "ecg", "cardiosoft", write_cardiosoft),
    ("muse", "ecg", "muse", write_muse),
    ("philips", "ecg", "philips", write_philips),
    ("aecg", "ecg", "aecg", write_aecg),
    ("scp", "ecg", "scp", write_scp),
    ("edf", "ecg", "edf", write_edf),
    ("tables", "ecg", "csv", write_table),
    ("code15", "ecg", "code15", write_code15),
    ("tensors", "ecg", "tensors", write_tensors),
    ("normalised", "ecg", "normalised", write_normalised),
    ("zipped-wfdb", "ecg", "wfdb", write_zipped_wfdb),
    ("zipped-muse", "ecg", "muse", write_zipped_muse),
    ("mortara", "ecg", "mortara", write_mortara),
]
ECGS = [
    name for name, kind, *_ in FORMATS if kind == "ecg" and name != "normalised"
]  # which a model in use does not take


def needles():
    """Every planted word as it may be written: as text in three encodings, in base64 from any place, and as a number."""
    for word in PLANTED:
        for coded in (word.encode(), word.encode("utf-16-le"), word.encode("utf-16-be")):
            yield word, coded.lower()
        for before in range(3):
            coded = base64.b64encode(b"\0" * before + word.encode())
            yield word, coded[[0, 2, 3][before] :].rstrip(b"=")[:-1].lower()
    for word in NUMBERS:
        yield word, np.int64(word).tobytes().lower()
        yield word, np.float64(word).tobytes().lower()


def contents(path):
    """The bytes of a file, and of a table or a compressed file also what is stored in them encoded."""
    yield path.read_bytes()
    if path.suffix == ".gz":
        yield zlib.decompressobj(wbits=31).decompress(
            path.read_bytes()
        )  # also of one that was cut off
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            yield from (archive.read(name) for name in archive.namelist())
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        words = table.select(
            [f.name for f in table.schema if not str(f.type).startswith("fixed_size_binary")]
        )
        yield (
            json.dumps(words.to_pylist(), default=str).encode()
            + str(table.schema.metadata).encode()
        )


def suspects(content, wanted):
    """Those of the wanted whose first four bytes are in the content: no others can be in it.

    A search for each of the needles reads every byte again; this reads each once for all of them.
    """
    if len(content) < 4:
        return []
    firsts = [int.from_bytes(coded[:2], "little") for _, coded in wanted]
    seconds = [int.from_bytes(coded[2:4], "little") for _, coded in wanted]
    begins = np.zeros(1 << 16, bool)
    begins[firsts] = True
    pairs_met = set()
    for start in (0, 1):
        pairs = np.frombuffer(content, "<u2", (len(content) - start) // 2, start)
        places = np.flatnonzero(begins[pairs[:-1]])
        pairs_met |= set(zip(pairs[places].tolist(), pairs[places + 1].tolist()))
    return [needle for needle, *pair in zip(wanted, firsts, seconds) if tuple(pair) in pairs_met]


def leaks(*folders):
    """(planted word, file) of everything that was found in a file's name or content."""
    wanted = list(needles())
    found = set()
    for folder in folders:
        for path in folder.rglob("*"):
            inside = path.relative_to(folder).as_posix().encode().lower()
            held = (
                [inside, *(content.lower() for content in contents(path))]
                if path.is_file()
                else [inside]
            )
            found |= {
                (word, str(path))
                for content in held
                for word, coded in suspects(content, wanted)
                if coded in content
            }
    return found


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """A folder for each format with whole recordings and one that is cut off."""
    root = tmp_path_factory.mktemp("raw") / FOLDER
    for number, (name, _, _, write) in enumerate(FORMATS):
        folder = root / name
        folder.mkdir(parents=True)
        for i in range(PEOPLE):
            write(folder, f"{FILE}-{name}-{i}", 10 * number + i)
        for path in sorted(
            path for path in folder.iterdir() if path.is_file() and f"-{name}-0" in path.name
        ):
            cut = path.with_name(path.name.replace(f"-{name}-0", f"-{name}-cut"))
            content = path.read_bytes().replace(f"-{name}-0".encode(), f"-{name}-cut".encode())
            cut.write_bytes(content[: len(content) * 2 // 3])
    return root


@pytest.fixture
def one_ray(ray_session, monkeypatch):
    """Commands that run in this process leave the session's Ray as it is."""
    monkeypatch.setattr(cluster, "stop", lambda: None)
    monkeypatch.setattr(cluster, "cpus", lambda: 1)  # a worker more writes nothing else


def run(*words):
    return cli.main([str(word) for word in words])


def test_the_search_finds_what_is_there(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"x" + base64.b64encode(f"ab{PERSON}cd".encode()))
    (tmp_path / "b.bin").write_bytes(NAME.upper().encode("utf-16-le"))
    pq.write_table(
        pq.read_table(table(tmp_path / "c.parquet", PLACE)),
        tmp_path / "d.parquet",
        compression="gzip",
    )
    assert {(word, Path(path).name) for word, path in leaks(tmp_path)} >= {
        (PERSON, "a.bin"),
        (NAME, "b.bin"),
        (PLACE, "d.parquet"),
    }


def table(path, word):
    pd.DataFrame({"a": [word] * 500}).to_parquet(path)
    return path


def test_every_reader_has_its_recordings():
    registered = {(kind, name) for kind, readers in raw.READERS.items() for name in readers}
    assert {(kind, reader) for _, kind, reader, _ in FORMATS} == registered


@pytest.mark.parametrize(("name", "kind", "reader", "write"), FORMATS)
def test_every_format_is_planted_and_read(recordings, name, kind, reader, write):
    assert len({word for word, _ in leaks(recordings / name)} & set(HEADER)) >= 4
    read = 0
    for source in raw.READERS[kind][reader].find(str(recordings / name)):
        try:
            record = raw.READERS[kind][reader].read(source)
        except raw.Excluded as error:
            assert "-cut" in source
            said = str(error)
        else:
            said, read = (
                repr(dataclasses.replace(record, person=None)),
                read + 1,
            )  # a person becomes a pseudonym
        assert not [word for word in HEADER if word.lower() in said.lower()]
    assert read == PEOPLE


def words_in(said):
    """The planted words of what a command printed."""
    text = (said.out + said.err).lower()
    return {word for word in PLANTED if word.lower() in text}


def test_no_identifier_is_written(recordings, tmp_path, one_ray, capfd):
    out, runs, space = tmp_path / "cohorts" / "c", tmp_path / "runs", tmp_path / "space.py"
    space.write_text(SPACE)
    places = [
        word
        for name, kind, reader, _ in FORMATS
        for word in (f"--{kind}", f"{reader}:{recordings / name}")
    ]
    keys = [
        f"{FILE}-{name}-{i}" for name, kind, _, _ in FORMATS if kind == "ecg" for i in range(PEOPLE)
    ]
    known = pd.DataFrame({"ecg": [f"{key}-0" if "code15" in key else key for key in keys]})
    known["LVEDV"], known["LVESV"] = 140.0 + known.index, 60.0 + known.index / 2
    known["LVSV"] = known.LVEDV - known.LVESV
    known["LVEF"], known["LVCO"], known["LVM"] = (
        100 * known.LVSV / known.LVEDV,
        0.06 * known.LVSV,
        100.0 + known.index,
    )
    known.to_csv(tmp_path / "labels.csv", index=False)
    shared = ("--cohort", out, "--runs", runs)
    assert run("cohort", "build", *places, "--labels", tmp_path / "labels.csv", *shared) == 0
    assert len(dataset.open(out).rows()) == len(FORMATS) * PEOPLE
    assert run("cohort", "check", *shared) == 0
    assert run("pretrain", space, *shared) == 0
    finetune.fit(
        [handmade_model.trial("lv")], dataset.open(out), runs, device="cpu", precision="float32"
    )
    assert run("report", *shared) == 0
    files, evaluation, own = (
        tmp_path / "files",
        runs / "t/evaluation",
        next((runs / "t/pretrain").rglob("seed=0")),
    )
    assert run("share", "--model", evaluation, "--out", tmp_path / "shared", *shared) == 0
    assert run("embed", "--model", evaluation, "--out", tmp_path / "vectors", *shared) == 0
    for form, ending in (("safetensors", "safetensors"), ("authors", "pth"), ("onnx", "onnx")):
        assert (
            run("export", "--model", own, "--out", files / f"a.{ending}", "--format", form, *shared)
            == 0
        )
    (tmp_path / "list").write_text(f"{FILE}-wfdb-1\n")
    new = out.with_name("new")
    assert run("cohort", "withdraw", "--list", tmp_path / "list", "--out", new, *shared) == 0
    refused = ("cohort", "build", "--ecg", f"wfdb:{recordings}", "--cohort", new, "--runs", runs)
    assert run(*refused) == 2  # in words
    assert any((runs / "logs").iterdir())
    assert len(list(all_runs(runs))) == 2
    assert leaks(out, new, runs, tmp_path / "shared", tmp_path / "vectors", files) == set()
    assert words_in(capfd.readouterr()) == set()
    link = (out.with_name("c.link.csv")).read_text()
    assert f"{FILE}-wfdb-1" in link  # with the builder, beside the cohort


def test_a_model_in_use_names_files_and_nobody(recordings, tmp_path, tmp_path_factory, capfd):
    _, runs, _ = handmade_model.made(tmp_path_factory.getbasetemp())
    leave(tmp_path / "mmcl")
    made, own, evaluation = (
        tmp_path / "made",
        next((runs / "t/evaluation/cad/mmcl").rglob("seed=0")),
        runs / "t/evaluation",
    )
    ecg, stack = (
        recordings / "wfdb" / f"{FILE}-wfdb-1.hea",
        recordings / "nifti" / f"{FILE}-nifti-1.nii.gz",
    )
    cut, folders = (
        recordings / "muse" / f"{FILE}-muse-cut.xml",
        [recordings / name for name, *_ in FORMATS],
    )
    written = [word for kind in ("csv", "json") for word in (f"--{kind}", made / f"risks.{kind}")]
    # a page shows 50 ECGs: those in archives have the readers of loose ones, normalised have none
    loose = [folder for folder in folders if not folder.name.startswith(("zipped", "normalised"))]
    paged = ["--page", made / "risks.html", *loose]
    shared = ("--runs", tmp_path / "runs")
    for code, words in (
        (2, ["inspect", "--json", *folders]),
        (2, ["inspect", "--plot", made / "inspect", *folders[1:3]]),
        (0, ["inspect", ecg]),
        (2, ["predict", "--model", evaluation, *written, recordings, *shared]),
        (2, ["predict", "--model", evaluation, *paged, *shared]),
        (0, ["predict", "--model", evaluation, ecg, *shared]),
        (2, ["predict", "--model", evaluation, cut, *shared]),
        (2, ["embed", "--model", own, "--out", made / "vectors", recordings, *shared]),
        (2, ["explain", "--model", own, "--out", made / "attention", cut, ecg, *shared]),
        (
            0,
            [
                "explain",
                "--model",
                tmp_path / "mmcl" / RUN.name,
                "--ecg",
                ecg,
                "--cmr",
                stack,
                "--out",
                made / "pair.png",
                *shared,
            ],
        ),
        (
            2,
            [
                "explain",
                "--model",
                tmp_path / "mmcl" / RUN.name,
                "--ecg",
                cut,
                "--cmr",
                stack,
                "--out",
                made / "no.png",
                *shared,
            ],
        ),
    ):
        assert run(*words) == code, words
        assert words_in(capfd.readouterr()) <= {FILE, FOLDER}, words
    found = leaks(made)
    assert {word for word, _ in found} == {FILE, FOLDER}
    named = {Path(path).relative_to(made).as_posix() for _, path in found}
    assert {next((own for own in OWN if path.startswith(own)), path) for path in named} == set(OWN)
    assert leaks(tmp_path / "runs") == set()
    assert len(pd.read_csv(made / "risks.csv").dropna(subset="key").key.unique()) == PEOPLE * len(
        ECGS
    )
    assert len(list((made / "inspect").iterdir())) == 2 * PEOPLE


def test_errors_of_a_build_name_no_recording(recordings, tmp_path, one_ray, capfd):
    places = []
    for name, kind, reader, _ in FORMATS:
        for path in (recordings / name).glob(f"*-{name}-cut*"):
            (tmp_path / "only" / name).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, tmp_path / "only" / name)
            places += [f"--{kind}", f"{reader}:{tmp_path / 'only' / name}"]
    places = list(dict.fromkeys(zip(places[::2], places[1::2], strict=True)))
    words = [word for pair in places for word in pair]
    assert run("cohort", "build", *words, "--cohort", tmp_path / "c", "--runs", tmp_path / "r") == 2
    said = capfd.readouterr()
    assert len(places) == len(FORMATS) - 1  # a stack of many files is not cut
    assert f"none of {len(places)} recordings can serve" in said.err
    assert words_in(said) == set()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["only"]
