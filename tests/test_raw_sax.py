"""Short-axis stacks written here, shuffled, and read back: NIfTI and DICOM, folder and archive."""

import gzip
import io
import tarfile
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from ecgcmr import cmr
from ecgcmr.errors import Excluded, InputError
from ecgcmr.raw import sax_dicom, sax_nifti

SLICES, PHASES, ROWS, COLUMNS = 9, 12, 40, 48
ALONG = np.array([0.72, -0.48, -0.5]) / np.linalg.norm([0.72, -0.48, -0.5])  # base → apex: left, to the front, down


def frames() -> np.ndarray:
    """Each image is known by its level: 100 · slice + phase, and by a mark in its corner."""
    out = np.add.outer(100.0 * np.arange(SLICES), np.arange(PHASES))[:, :, None, None] * np.ones((ROWS, COLUMNS))
    out[:, :, 3, 5] = 2000
    return out.astype(np.float32)


def image(slice_: int, phase: int, **changes) -> Dataset:
    """One MR image of the stack, with everything identifying that a scanner writes."""
    right = np.cross(ALONG, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    down = np.cross(ALONG, right)
    data = Dataset()
    data.PatientName, data.PatientID, data.PatientBirthDate = "Roe^Jane", "12345", "19700201"
    data.SOPClassUID, data.SOPInstanceUID, data.Modality = MRImageStorage, generate_uid(), "MR"
    data.SeriesInstanceUID, data.SeriesNumber, data.InstanceNumber = "1.2.3", 5, 1000 - slice_ * PHASES - phase
    data.ImageOrientationPatient = [float(x) for x in (*right, *down)]
    data.ImagePositionPatient = [round(float(x), 4) for x in np.array([10.0, -20, 30]) + 8 * slice_ * ALONG]
    data.SliceLocation = float(np.random.default_rng(slice_).uniform(-50, 50))  # no distance, as in Sunnybrook
    data.TriggerTime, data.PixelSpacing = 10.0 + 40 * phase, [1.5, 1.4]
    data.Rows, data.Columns, data.SamplesPerPixel = ROWS, COLUMNS, 1
    data.PhotometricInterpretation, data.PixelRepresentation = "MONOCHROME2", 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11
    data.PixelData = frames()[slice_, phase].astype("<u2").tobytes()
    for name, value in changes.items():
        if value is None:
            delattr(data, name)
        else:
            setattr(data, name, value)
    return data


def stored(data: Dataset) -> bytes:
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, data, enforce_file_format=True)
    return buffer.getvalue()


def stack(**changes) -> list[bytes]:
    """All images in random order."""
    images = [stored(image(s, p, **changes)) for s in range(SLICES) for p in range(PHASES)]
    return [images[i] for i in np.random.default_rng(0).permutation(len(images))]


def folder(path: Path, images: list[bytes]) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(images):
        (path / f"IM{number:04d}.dcm").write_bytes(content)
    return path


def archive(path: Path, images: list[bytes]) -> Path:
    names = [f"../../escape/{number}.dcm" for number in range(len(images))]  # must not lead anywhere
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as opened:
            for name, content in zip(names, images):
                opened.writestr(name, content)
            opened.writestr("manifest.csv", "a,b\n")
        return path
    with tarfile.open(path, "w:xz") as opened:
        for name, content in zip(names, images):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            opened.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("link.dcm")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        opened.addfile(link)
    return path


@pytest.mark.parametrize("kind", ["folder", "p1.tar.xz", "p1.zip"])
def test_dicom_is_sorted_by_geometry_and_time(tmp_path, kind):
    source = folder(tmp_path / "p1", stack()) if kind == "folder" else archive(tmp_path / kind, stack())
    record = sax_dicom.read(str(source))
    assert np.array_equal(record.frames, frames())
    assert record.spacing_mm == (8.0, 1.5, 1.4)
    assert np.array_equal(record.trigger_ms, 10.0 + 40 * np.arange(PHASES))
    assert record.key == "p1"
    assert record.repairs == ()
    assert "Roe" not in repr(record)
    assert not list(tmp_path.parent.rglob("escape"))


def test_dicom_opposite_normal_still_runs_from_base_to_apex(tmp_path):
    turned = [image(s, p) for s in range(SLICES) for p in range(PHASES)]
    for data in turned:
        right, down = data.ImageOrientationPatient[:3], data.ImageOrientationPatient[3:]
        data.ImageOrientationPatient = [*down, *right]
    assert np.array_equal(sax_dicom.read(str(folder(tmp_path, [stored(d) for d in turned]))).frames, frames())


def test_dicom_orders_by_instance_without_trigger_times(tmp_path):
    record = sax_dicom.read(str(folder(tmp_path, stack(TriggerTime=None))))
    assert np.array_equal(record.frames[:, ::-1], frames())  # our instance numbers run backwards
    assert record.trigger_ms is None


def test_dicom_slope_and_rounded_orientation(tmp_path):
    images = [image(s, p, RescaleSlope=2, RescaleIntercept=-5) for s in range(SLICES) for p in range(PHASES)]
    for number, data in enumerate(images):
        data.ImageOrientationPatient = [x + 1e-6 * (number % 2) for x in data.ImageOrientationPatient]
    record = sax_dicom.read(str(folder(tmp_path, [stored(data) for data in images])))
    assert np.array_equal(record.frames, 2 * frames() - 5)


def test_dicom_takes_the_stack_among_other_series(tmp_path):
    scouts = [image(s, 0, ImageOrientationPatient=[1, 0, 0, 0, 1, 0], TriggerTime=None) for s in range(5)]
    long_axis = [image(0, p, ImageOrientationPatient=[0, 1, 0, 0, 0, -1]) for p in range(PHASES)]
    again = [image(4, p, SeriesNumber=9, SeriesInstanceUID="1.2.4") for p in range(PHASES)]
    for data in again:
        data.PixelData = (np.frombuffer(data.PixelData, "<u2") + 7).astype("<u2").tobytes()
    more = [stored(data) for data in (*scouts, *long_axis, *again)]
    record = sax_dicom.read(str(folder(tmp_path, more + stack())))
    assert np.array_equal(record.frames[[0, 3, 5]], frames()[[0, 3, 5]])
    assert np.array_equal(record.frames[4], frames()[4] + 7)
    assert record.repairs == ("last of several series of one slice taken", "largest of several parallel sets taken")


def test_dicom_matches_numbers_of_phases(tmp_path):
    images = [image(s, p) for s in range(SLICES) for p in range(PHASES) if (s, p) != (3, PHASES - 1)]
    record = sax_dicom.read(str(folder(tmp_path, [stored(data) for data in images])))
    assert record.frames.shape == (SLICES, PHASES, ROWS, COLUMNS)
    assert record.repairs == ("numbers of phases matched",)
    assert record.frames[3, -1, 0, 0] == 300 + PHASES - 2


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        (lambda: [stored(image(s, 0)) for s in range(SLICES)], "not a cine"),
        (lambda: [stored(image(0, p)) for p in range(PHASES)], "not a stack"),
        (lambda: stack(ImagePositionPatient=None), "no DICOM image with a position"),
        (lambda: [b"not a DICOM file at all" * 20], "no DICOM image with a position"),
        (lambda: [content[: len(content) - 500] for content in stack()], "pixels cannot be decoded"),
    ],
)
def test_dicom_refuses_with_a_reason(tmp_path, images, reason):
    with pytest.raises(Excluded, match=reason):
        sax_dicom.read(str(folder(tmp_path, images())))


def test_dicom_refuses_damaged_archives_and_floods(tmp_path, monkeypatch):
    good = archive(tmp_path / "p.tar.xz", stack()).read_bytes()
    (tmp_path / "cut.tar.xz").write_bytes(good[: len(good) // 2])
    (tmp_path / "no.zip").write_bytes(b"PK\x03\x04 nothing")
    for name in ("cut.tar.xz", "no.zip"):
        with pytest.raises(Excluded, match="unreadable archive"):
            sax_dicom.read(str(tmp_path / name))
    monkeypatch.setattr(sax_dicom, "TOTAL_LIMIT", 10_000)
    with pytest.raises(Excluded, match="more images than"):
        sax_dicom.read(str(tmp_path / "p.tar.xz"))


def test_dicom_find(tmp_path):
    few = stack()[:2]
    folder(tmp_path / "b" / "series1", few)
    archive(tmp_path / "a.tar.xz", few)
    (tmp_path / "notes.txt").write_text("no images")
    (tmp_path / "empty").mkdir()
    assert sax_dicom.find(str(tmp_path)) == [str(tmp_path / "a.tar.xz"), str(tmp_path / "b")]
    assert sax_dicom.find(str(tmp_path / "b" / "series1")) == [str(tmp_path / "b" / "series1")]
    (tmp_path / "more" / "deep").mkdir(parents=True)
    archive(tmp_path / "more" / "deep" / "c.tar.xz", few)
    folder(tmp_path / "more" / "d", few)
    deep = [tmp_path / "more" / "d", tmp_path / "more" / "deep" / "c.tar.xz"]
    assert sorted(sax_dicom.find(str(tmp_path / "more"))) == sorted(map(str, deep))
    for wrong in (tmp_path / "empty", tmp_path / "nowhere"):
        with pytest.raises(InputError, match=wrong.name):
            sax_dicom.find(str(wrong))


def write_nifti(path: Path, data: np.ndarray, towards_apex: bool = True) -> Path:
    step = ALONG * (8 if towards_apex else -8) * np.array([-1, -1, 1])  # NIfTI's axes: x and y have the other sign
    affine = np.eye(4)
    affine[:3, :3] = np.stack([[1.4, 0, 0], [0, 1.5, 0], step], axis=1)
    made = nibabel.Nifti1Image(data.transpose(3, 2, 0, 1), affine)
    made.header.set_zooms((1.4, 1.5, 8.0, 0.04))
    made.header.set_xyzt_units("mm", "sec")
    nibabel.save(made, path)
    return path


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_nifti_is_seen_as_the_scanner_shows_it(tmp_path, ending):
    record = sax_nifti.read(str(write_nifti(tmp_path / f"p7{ending}", frames())))
    assert np.array_equal(record.frames, frames())
    assert record.frames[0, 0, 3, 5] == 2000
    assert record.spacing_mm == pytest.approx((8.0, 1.5, 1.4))
    assert record.trigger_ms == pytest.approx(40.0 * np.arange(PHASES))
    assert (record.key, record.repairs) == ("p7", ())


def test_nifti_runs_from_base_to_apex(tmp_path):
    record = sax_nifti.read(str(write_nifti(tmp_path / "p.nii", frames()[::-1], towards_apex=False)))
    assert np.array_equal(record.frames, frames())
    assert record.repairs == ("slices reversed to run from base to apex",)


def test_nifti_find_in_the_layout_of_ukbb_cardiac(tmp_path):
    for name in ("p1/sa.nii.gz", "p1/la_2ch.nii.gz", "p1/seg_sa_ED.nii.gz", "p0/sa.nii.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_nifti(tmp_path / name, frames())
    found = sax_nifti.find(str(tmp_path))
    assert [sax_nifti.read(source).key for source in found] == ["p0", "p1"]
    with pytest.raises(InputError, match="no NIfTI"):
        sax_nifti.find(str(tmp_path / "nowhere"))


def _garbage(path: Path) -> None:
    path.write_bytes(b"\x1f\x8b" + bytes(500))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:600])


def _cut_inside(path: Path) -> None:
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:2000]))


@pytest.mark.parametrize("damage", [_garbage, _cut, _cut_inside, lambda path: path.write_bytes(b"")])
def test_nifti_damage_is_a_reason(tmp_path, damage):
    path = write_nifti(tmp_path / "p.nii.gz", frames())
    damage(path)
    with pytest.raises(Excluded, match="unreadable NIfTI"):
        sax_nifti.read(str(path))


def test_nifti_needs_time_and_bounds(tmp_path, monkeypatch):
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 3), np.float32), np.eye(4)), tmp_path / "still.nii")
    with pytest.raises(Excluded, match="no time axis"):
        sax_nifti.read(str(tmp_path / "still.nii"))
    monkeypatch.setattr(sax_nifti, "VOXEL_LIMIT", 100)
    with pytest.raises(Excluded, match="too large"):
        sax_nifti.read(str(write_nifti(tmp_path / "p.nii", frames())))


def test_a_record_goes_through_preparation(tmp_path):
    """What a reader returns is what `cmr.prepare` takes."""
    record = sax_dicom.read(str(folder(tmp_path, stack())))
    image_, words = cmr.prepare(record)
    assert image_.shape == (3, 210, 210)
    assert {"end-systole from the smallest blood pool", "heart found by what moves"} <= set(words)
