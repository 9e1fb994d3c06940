"""CODE-15 %: small HDF5 files of its form, its table, and files that reach elsewhere."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.signal import resample_poly
from test_raw_wfdb import beats

from ecgcmr.errors import Excluded, InputError
from ecgcmr.raw import READERS, code15
from ecgcmr.signals import ecg

SECRETS = ("Jane Roe", "Mercy Hospital", "4711004711")
HEADER = "exam_id,age,is_male,nn_predicted_age,1dAVb,RBBB,LBBB,SB,ST,AF,patient_id,death,timey,normal_ecg,trace_file\n"


def tracing(samples: int, seed: int = 0) -> np.ndarray:
    """(4096, 12) at 400 Hz with as many samples of signal in its middle as asked, zeros around."""
    signal = resample_poly(np.tile(beats(1, seed), 2), 4, 5, axis=1, padtype="line")[:, :samples]
    left = (4096 - samples) // 2
    return np.pad(signal, ((0, 0), (left, 4096 - samples - left))).T.astype(np.float32)


def part(path: Path, *tracings: np.ndarray, exams=(4711004711, 12, 13)) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset(
            "tracings", data=np.stack(tracings), compression="gzip", chunks=(1, 4096, 12)
        )
        file["exam_id"] = np.array(exams[: len(tracings)])
        file.attrs["patient"] = SECRETS[0]
        file["tracings"].attrs["institution"] = SECRETS[1]
    return path


def test_rows_padding_and_rate(tmp_path):
    path = part(tmp_path / "exams_part3.hdf5", tracing(4096), tracing(4000, 1), tracing(2800, 2))
    sources = code15.find(str(tmp_path))
    assert sources == [f"{path}#{i}" for i in range(3)] == code15.find(str(path))
    found = [code15.read(source) for source in sources]
    assert [record.signal.shape for record in found] == [(12, 4096), (12, 4000), (12, 2800)]
    assert [record.key for record in found] == ["exams_part3-0", "exams_part3-1", "exams_part3-2"]
    assert {(record.rate_hz, record.leads, record.repairs) for record in found} == {
        (400.0, ecg.LEADS, (code15.SCALE,)),
    }
    signal, words = ecg.prepare(found[0].signal, 400.0, found[0].leads)
    assert words == ("resampled from 400 Hz", "cropped to the first 10 s")
    assert (
        np.abs(signal - ecg.clean(beats(1)))[:, 50:-50].max() < 0.08
    )  # the noise above 200 Hz is not in 400 Hz
    assert ecg.prepare(found[1].signal, 400.0, found[1].leads)[0].shape == (12, 5000)
    with pytest.raises(Excluded, match="shorter than 10 s"):
        ecg.prepare(found[2].signal, 400.0, found[2].leads)


def test_zeros_inside_stay(tmp_path):
    held = tracing(4096)
    held[1000:1010] = 0
    assert code15.read(f"{part(tmp_path / 'a.hdf5', held)}#0").signal.shape == (12, 4096)


@pytest.mark.parametrize("above", [False, True])
def test_table_beside_or_one_folder_above(tmp_path, above):
    folder = tmp_path / "hdf5"
    folder.mkdir()
    path = part(folder / "exams_part0.hdf5", tracing(4096), tracing(4096, 1), tracing(4096, 2))
    (tmp_path if above else folder).joinpath("exams.csv").write_text(
        HEADER
        + "4711004711,38,True,40.1,True,False,False,True,False,False,77,False,2.0,False,exams_part0.hdf5\n"
        + "12,130,False,40.1,False,False,False,False,False,True,77,,,,exams_part0.hdf5\n"
    )
    first, second, third = (code15.read(f"{path}#{i}") for i in range(3))
    assert (first.age, first.sex, first.person) == (38.0, 1.0, "patient77")
    assert first.labels == {
        "code_1dAVb": 1.0,
        "code_RBBB": 0.0,
        "code_LBBB": 0.0,
        "code_SB": 1.0,
        "code_AF": 0.0,
        "code_ST": 0.0,
        "code_normal_ecg": 0.0,
        "af": 0.0,
    }
    assert (second.age, second.sex, second.labels["af"], second.person) == (
        None,
        0.0,
        1.0,
        "patient77",
    )
    assert "code_normal_ecg" not in second.labels
    assert (third.age, third.labels, third.person) == (None, {}, None)


def test_nothing_identifying_leaves(tmp_path):
    path = part(tmp_path / "a.hdf5", tracing(4096))
    (tmp_path / "exams.csv").write_text(
        HEADER.replace("trace_file", "name") + f"4711004711{',0' * 13},Jane Roe\n"
    )
    record = code15.read(f"{path}#0")
    assert record.labels["af"] == 0
    assert not [secret for secret in SECRETS if secret in repr(record)]


@pytest.mark.parametrize("table", ["exam_id,AF\n1,0\n1,1\n", "id,AF\n1,0\n", ""])
def test_a_wrong_table_is_one_line(tmp_path, table):
    path = part(tmp_path / "a.hdf5", tracing(4096))
    (tmp_path / "exams.csv").write_text(table)
    with pytest.raises(InputError, match=r"exams.csv: not the table of CODE-15"):
        code15.read(f"{path}#0")


def test_a_person_that_is_no_number_is_unknown(tmp_path):
    path = part(tmp_path / "a.hdf5", tracing(4096))
    (tmp_path / "exams.csv").write_text("exam_id,patient_id,age,AF\n4711004711,inf,-inf,1\n")
    record = code15.read(f"{path}#0")
    assert (record.person, record.age, record.labels["af"]) == (None, None, 1.0)


def test_swapped_leads_are_refused_by_the_laws(tmp_path):
    """The laws guard the order of leads, which a file of this form does not state."""
    path = part(tmp_path / "a.hdf5", tracing(4096)[:, [0, 1, 2, 3, 5, 4, *range(6, 12)]])
    record = code15.read(f"{path}#0")
    with pytest.raises(Excluded, match="Einthoven's law violated"):
        ecg.prepare(record.signal, record.rate_hz, record.leads)


def _soft(file):
    file["tracings"] = h5py.SoftLink("/other")


def _external(file):
    file["tracings"] = h5py.ExternalLink("/etc/passwd", "/x")


def _stored_elsewhere(file):
    file.create_dataset(
        "tracings", (1, 4096, 12), "f4", external=[("/etc/passwd", 0, 4096 * 12 * 4)]
    )


def _virtual(file):
    layout = h5py.VirtualLayout((1, 4096, 12), "f4")
    layout[0] = h5py.VirtualSource("/etc/passwd", "x", shape=(4096, 12))
    file.create_virtual_dataset("tracings", layout)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (_soft, "data outside the file|no dataset tracings"),
        (_external, "data outside the file|no dataset tracings|unreadable HDF5 file"),
        (_stored_elsewhere, "data outside the file"),
        (_virtual, "data outside the file"),
        (lambda file: file.create_group("tracings"), "no dataset tracings"),
        (lambda file: None, "no dataset tracings"),
        (
            lambda file: file.create_dataset("tracings", data=np.ones((2, 4096, 8))),
            "no array of 12 leads",
        ),
        (
            lambda file: file.create_dataset("tracings", data=np.zeros((2, 9, 12), int)),
            "no array of 12 leads",
        ),
        (lambda file: file.create_dataset("tracings", data=np.zeros((1, 4096, 12))), "no samples"),
        (
            lambda file: file.create_dataset(
                "tracings", (10**12, 4096, 12), "f4", chunks=(1, 4096, 12)
            ),
            "too large",
        ),
        (
            lambda file: file.create_dataset(
                "tracings", (1, 10**9, 12), "f4", chunks=(1, 4096, 12)
            ),
            "too large",
        ),
        (
            lambda file: file.create_dataset(
                "tracings", (9000, 4096, 12), "f4", chunks=(9000, 4096, 12)
            ),
            "file too large",
        ),
    ],
)
def test_hostile_and_foreign_files(tmp_path, make, reason):
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        make(file)
    (source, *_) = code15.find(str(tmp_path))
    with pytest.raises(Excluded, match=reason):
        code15.read(source)


def test_find_and_suits(tmp_path):
    (tmp_path / "exams_part0.zip").write_bytes(b"PK")
    with pytest.raises(InputError, match="unpack exams_part"):
        code15.find(str(tmp_path))
    with pytest.raises(InputError, match="no HDF5 file"):
        code15.find(str(tmp_path / "nowhere.hdf5"))
    path = part(tmp_path / "a.h5", tracing(4096))
    assert code15.suits(path, path.read_bytes()[:4096])
    assert not code15.suits(path, b"PK")
    with pytest.raises(Excluded, match="no such row"):
        code15.read(f"{path}#1")
    assert READERS["ecg"]["code15"] is code15
