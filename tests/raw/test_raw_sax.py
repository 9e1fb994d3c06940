"""Short-axis stacks written here, shuffled, and read back: NIfTI and DICOM, folder and archive."""

import dataclasses
import functools
import gzip
import io
import lzma
import struct
import tarfile
import warnings
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
    generate_uid,
)
from test_phenotypes import heart

from ecgcmr.cohort import build, inspect, prepare
from ecgcmr.errors import Excluded, InputError
from ecgcmr.raw import bundle, sax_dicom, sax_nifti
from ecgcmr.raw.records import biobank, patient
from ecgcmr.signals import cmr, phenotypes

SLICES, PHASES, ROWS, COLUMNS = 9, 12, 40, 48
ALONG = np.array([0.72, -0.48, -0.5]) / np.linalg.norm(
    [0.72, -0.48, -0.5]
)  # base → apex: left, to the front, down


@functools.cache
def levels() -> np.ndarray:
    """What `frames` hands out copies of."""
    out = np.add.outer(100.0 * np.arange(SLICES), np.arange(PHASES))[:, :, None, None] * np.ones(
        (ROWS, COLUMNS)
    )
    out[:, :, 3, 5] = 2000
    return out.astype(np.float32)


def frames() -> np.ndarray:
    """Each image is known by its level: 100 · slice + phase, and by a mark in its corner."""
    return levels().copy()


def image(slice_: int, phase: int, **changes) -> Dataset:
    """One MR image of the stack, with everything identifying that a scanner writes."""
    right = np.cross(ALONG, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    down = np.cross(ALONG, right)
    data = Dataset()
    data.PatientName, data.PatientID, data.PatientBirthDate = "Roe^Jane", "12345", "19700201"
    data.SOPClassUID, data.SOPInstanceUID, data.Modality = MRImageStorage, generate_uid(), "MR"
    data.SeriesInstanceUID, data.SeriesNumber, data.InstanceNumber = (
        "1.2.3",
        5,
        1000 - slice_ * PHASES - phase,
    )
    data.ImageOrientationPatient = [float(x) for x in (*right, *down)]
    data.ImagePositionPatient = [
        round(float(x), 4) for x in np.array([10.0, -20, 30]) + 8 * slice_ * ALONG
    ]
    data.SliceLocation = float(
        np.random.default_rng(slice_).uniform(-50, 50)
    )  # no distance, as in Sunnybrook
    data.TriggerTime, data.PixelSpacing = 10.0 + 40 * phase, [1.5, 1.4]
    data.Rows, data.Columns, data.SamplesPerPixel = ROWS, COLUMNS, 1
    data.PhotometricInterpretation, data.PixelRepresentation = "MONOCHROME2", 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11
    data.PixelData = levels()[slice_, phase].astype("<u2").tobytes()
    for name, value in changes.items():
        if value is None:
            delattr(data, name)
        else:
            setattr(data, name, value)
    return data


def stored(data: Dataset, syntax: str = ExplicitVRLittleEndian) -> bytes:
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, data, enforce_file_format=True)
    return buffer.getvalue()


@functools.cache
def plain_stack() -> tuple[bytes, ...]:
    """All images as they are without changes, in order: to write them takes a fifth of a second."""
    return tuple(stored(image(s, p)) for s in range(SLICES) for p in range(PHASES))


def stack(**changes) -> list[bytes]:
    """All images in random order."""
    images = (
        plain_stack()
        if not changes
        else [stored(image(s, p, **changes)) for s in range(SLICES) for p in range(PHASES)]
    )
    return [images[i] for i in np.random.default_rng(0).permutation(len(images))]


def folder(path: Path, images: list[bytes]) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(images):
        (path / f"IM{number:04d}.dcm").write_bytes(content)
    return path


def archive(path: Path, images: list[bytes]) -> Path:
    names = [
        f"../../escape/{number}.dcm" for number in range(len(images))
    ]  # must not lead anywhere
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
    source = (
        folder(tmp_path / "p1", stack()) if kind == "folder" else archive(tmp_path / kind, stack())
    )
    record = sax_dicom.read(str(source))
    assert np.array_equal(record.frames, frames())
    assert record.spacing_mm == (8.0, 1.5, 1.4)
    assert np.array_equal(record.trigger_ms, 10.0 + 40 * np.arange(PHASES))
    assert record.key == "p1"
    assert record.repairs == ()
    assert "Roe" not in repr(record)
    assert "12345" not in repr(record)
    assert record.patient == patient("12345")
    assert not list(tmp_path.parent.rglob("escape"))


def test_dicom_opposite_normal_still_runs_from_base_to_apex(tmp_path):
    turned = [image(s, p) for s in range(SLICES) for p in range(PHASES)]
    for data in turned:
        right, down = data.ImageOrientationPatient[:3], data.ImageOrientationPatient[3:]
        data.ImageOrientationPatient = [*down, *right]
    assert np.array_equal(
        sax_dicom.read(str(folder(tmp_path, [stored(d) for d in turned]))).frames, frames()
    )


def test_dicom_orders_by_instance_without_trigger_times(tmp_path):
    record = sax_dicom.read(str(folder(tmp_path, stack(TriggerTime=None))))
    assert np.array_equal(record.frames[:, ::-1], frames())  # our instance numbers run backwards
    assert record.trigger_ms is None


def test_dicom_slope_and_rounded_orientation(tmp_path):
    images = [
        image(s, p, RescaleSlope=2, RescaleIntercept=-5)
        for s in range(SLICES)
        for p in range(PHASES)
    ]
    for number, data in enumerate(images):
        data.ImageOrientationPatient = [
            x + 1e-6 * (number % 2) for x in data.ImageOrientationPatient
        ]
    record = sax_dicom.read(str(folder(tmp_path, [stored(data) for data in images])))
    assert np.array_equal(record.frames, 2 * frames() - 5)


def test_dicom_takes_the_stack_among_other_series(tmp_path):
    scouts = [
        image(s, 0, ImageOrientationPatient=[1, 0, 0, 0, 1, 0], TriggerTime=None) for s in range(5)
    ]
    long_axis = [image(0, p, ImageOrientationPatient=[0, 1, 0, 0, 0, -1]) for p in range(PHASES)]
    again = [image(4, p, SeriesNumber=9, SeriesInstanceUID="1.2.4") for p in range(PHASES)]
    for data in again:
        data.PixelData = (np.frombuffer(data.PixelData, "<u2") + 7).astype("<u2").tobytes()
    more = [stored(data) for data in (*scouts, *long_axis, *again)]
    record = sax_dicom.read(str(folder(tmp_path, more + stack())))
    assert np.array_equal(record.frames[[0, 3, 5]], frames()[[0, 3, 5]])
    assert np.array_equal(record.frames[4], frames()[4] + 7)
    assert record.repairs == (
        "last of several series of one slice taken",
        "largest of several parallel sets taken",
    )


def test_dicom_matches_numbers_of_phases(tmp_path):
    images = [
        image(s, p) for s in range(SLICES) for p in range(PHASES) if (s, p) != (3, PHASES - 1)
    ]
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
        (
            lambda: [content[: len(content) - 500] for content in stack()],
            "pixels cannot be decoded",
        ),
    ],
)
def test_dicom_refuses_with_a_reason(tmp_path, images, reason):
    with pytest.raises(Excluded, match=reason):
        sax_dicom.read(str(folder(tmp_path, images())))


def test_dicom_of_several_people_is_no_stack(tmp_path):
    """`site/patient/*.dcm` taken for one person: the images would fit each other."""
    folder(tmp_path / "site/a", stack())
    folder(tmp_path / "site/b", stack(PatientID=""))  # a series without its number may be anybody's
    assert np.array_equal(sax_dicom.read(str(tmp_path / "site/a")).frames, frames())
    sax_dicom.read(str(tmp_path / "site"))
    folder(tmp_path / "site/b", stack(PatientID="67890"))
    with pytest.raises(Excluded, match="images of several people in one place"):
        sax_dicom.read(str(tmp_path / "site"))


def worded(**words: str) -> list[bytes]:
    """The stack with words where numbers or other words belong; under implicit VR a reader goes by its dictionary."""
    images = [image(s, p) for s in range(SLICES) for p in range(PHASES)]
    for data in images:
        for keyword, word in words.items():
            data.pop(keyword, None)
            data.add_new(keyword, "LO", word)
    return [stored(data, ImplicitVRLittleEndian) for data in images]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ({"ImagePositionPatient": "1\\2"}, "no DICOM image with a position"),
        ({"RescaleSlope": "-1", "RescaleIntercept": "0"}, "no DICOM image with a position"),
        ({"RescaleSlope": "NaN", "RescaleIntercept": "0"}, "no DICOM image with a position"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "colour images"),
        ({"PhotometricInterpretation": "Roe"}, "pixels cannot be decoded"),
    ],
)
def test_dicom_values_that_cannot_be(tmp_path, words, reason):
    with pytest.raises(Excluded, match=reason):
        sax_dicom.read(str(folder(tmp_path, worded(**words))))


def test_dicom_with_fewer_rows_than_pixels_is_refused(tmp_path):
    with pytest.raises(Excluded, match="pixels cannot be decoded"):
        sax_dicom.read(str(folder(tmp_path, stack(Rows=ROWS - 1))))


def test_dicom_refuses_damaged_archives_and_floods(tmp_path, monkeypatch):
    good = archive(tmp_path / "p.tar.xz", stack()).read_bytes()
    (tmp_path / "cut.tar.xz").write_bytes(good[: len(good) // 2])
    (tmp_path / "no.zip").write_bytes(b"PK\x03\x04 nothing")
    for name in ("cut.tar.xz", "no.zip"):
        with pytest.raises(Excluded, match="unreadable archive"):
            sax_dicom.read(str(tmp_path / name))
    archive(tmp_path / "p.zip", stack())
    folder(tmp_path / "p", stack())
    for limit, value in (("TOTAL_LIMIT", 10_000), ("COUNT_LIMIT", 50)):
        with monkeypatch.context() as patch:
            patch.setattr(bundle, limit, value)
            for name in ("p.tar.xz", "p.zip", "p"):
                with pytest.raises(Excluded, match="more files than"):
                    sax_dicom.read(str(tmp_path / name))


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
    step = (
        ALONG * (8 if towards_apex else -8) * np.array([-1, -1, 1])
    )  # NIfTI's axes: x and y have the other sign
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
    record = sax_nifti.read(
        str(write_nifti(tmp_path / "p.nii", frames()[::-1], towards_apex=False))
    )
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


def _flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-6] ^= 1  # in the checksum
    path.write_bytes(content)


def _cut_inside(path: Path) -> None:
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:2000]))


@pytest.mark.parametrize(
    "damage", [_garbage, _cut, _cut_inside, _flipped, lambda path: path.write_bytes(b"")]
)
def test_nifti_damage_is_a_reason(tmp_path, damage):
    path = write_nifti(tmp_path / "p.nii.gz", frames())
    damage(path)
    with pytest.raises(Excluded, match="unreadable NIfTI"):
        sax_nifti.read(str(path))


def _put(at: int, form: str, value: float):
    def change(path: Path) -> None:
        content = bytearray(path.read_bytes())
        struct.pack_into(form, content, at, value)
        path.write_bytes(content)

    return change


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(
            path.read_bytes()[:20_000] + bytes(96) + path.read_bytes()[20_000:]
        ),
        _put(48, "<h", PHASES - 1),
        _put(70, "<h", 4),  # 16 bits, of 32
        _put(80, "<f", 0.0),  # nibabel makes it 1 mm
        _put(112, "<f", -1.0),
        _put(280, "<f", 1e30),
    ],
)
def test_nifti_that_contradicts_itself_is_refused(tmp_path, damage):
    path = write_nifti(tmp_path / "p.nii", frames())
    damage(path)
    with pytest.raises(Excluded, match="unreadable NIfTI"):
        sax_nifti.read(str(path))


def test_nifti_needs_time_and_bounds(tmp_path, monkeypatch):
    nibabel.save(
        nibabel.Nifti1Image(np.zeros((4, 4, 3), np.float32), np.eye(4)), tmp_path / "still.nii"
    )
    with pytest.raises(Excluded, match="no time axis"):
        sax_nifti.read(str(tmp_path / "still.nii"))
    monkeypatch.setattr(sax_nifti, "VOXEL_LIMIT", 100)
    with pytest.raises(Excluded, match="too large"):
        sax_nifti.read(str(write_nifti(tmp_path / "p.nii", frames())))


SUNNYBROOK = Path(__file__).resolve().parents[3] / "shared" / "data" / "cmr" / "sunnybrook"


@pytest.mark.skipif(not SUNNYBROOK.exists(), reason="the Sunnybrook stacks are not here")
def test_sunnybrook_as_dicom_and_as_nifti_is_the_same_stack():
    plain = sax_dicom.read(str(SUNNYBROOK / "dicom" / "SCD0000101.tar.xz"))
    other = sax_nifti.read(str(SUNNYBROOK / "nifti" / "SCD0000101_sax_4d.nii.gz"))
    assert plain.frames.shape == (12, 20, 256, 256)
    assert np.array_equal(plain.frames, other.frames)
    assert plain.spacing_mm == pytest.approx(other.spacing_mm, abs=1e-3)
    assert np.array_equal(cmr.prepare(plain)[0], cmr.prepare(other)[0])  # so a cohort takes it once
    with pytest.raises(Excluded):
        sax_dicom.read(str(SUNNYBROOK / "localizer"))


def test_a_record_goes_through_preparation(tmp_path):
    """What a reader returns is what `cmr.prepare` takes."""
    record = sax_dicom.read(str(folder(tmp_path, stack())))
    image_, words = cmr.prepare(record)
    assert image_.shape == (3, 210, 210)
    assert {"end-systole from the smallest blood pool", "heart found by what moves"} <= set(words)


# -- UK Biobank field 20209 --------------------------------------------------------------------------------------------

MANIFEST = """filename,patientid,studyid,date,series discription
1.2.3.dcm,1234567,55,Jan 1, 2015,CINE_segmented_SAX_b1
"""


def biobank_zip(path: Path, images: list[Dataset], table: str = "manifest.cvs") -> Path:
    """Flat, compressed, named by UIDs, with the table of contents that no CSV parser reads."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr(table, MANIFEST)
        for data in images:
            opened.writestr(f"{data.SOPInstanceUID}.dcm", stored(data))
    return path


def every_slice(**changes) -> list[Dataset]:
    """A series per slice, `CINE_segmented_SAX_b1` and so on; `changes` may be a function of the slice."""
    out = []
    for s in range(SLICES):
        for p in range(PHASES):
            data = image(
                s,
                p,
                SeriesNumber=20 + s,
                SeriesInstanceUID=f"1.2.{s}",
                CardiacNumberOfImages=PHASES,
                **changes,
            )
            data.SeriesDescription = f"CINE_segmented_SAX_b{s + 1}"
            out.append(data)
    return out


@pytest.mark.parametrize("table", ["manifest.csv", "manifest.cvs"])
def test_biobank_zip_with_a_series_per_slice(tmp_path, table):
    record = sax_dicom.read(
        str(biobank_zip(tmp_path / "1234567_20209_2_0.zip", every_slice(), table))
    )
    assert np.array_equal(record.frames, frames())
    assert (record.key, record.person) == ("1234567_20209_2_0", "1234567")
    assert record.repairs == ()


def test_biobank_zip_with_one_mixed_series(tmp_path):
    images = every_slice()
    for data in images:
        data.SeriesNumber, data.SeriesInstanceUID, data.SeriesDescription = (
            20,
            "1.2.9",
            "CINE_segmented_SAX",
        )
    record = sax_dicom.read(str(biobank_zip(tmp_path / "1234567_20209_3_0.zip", images[::-1])))
    assert np.array_equal(record.frames, frames())
    assert (record.person, record.visit) == ("1234567", "3")  # another visit of one person


def test_biobank_zip_with_several_series_of_a_slice(tmp_path):
    again = [
        image(4, p, SeriesNumber=24, SeriesInstanceUID=f"1.2.4.{n}")
        for n in (1, 2)
        for p in range(PHASES)
    ]
    for data in again[PHASES:]:
        data.PixelData = (np.frombuffer(data.PixelData, "<u2") + 7).astype("<u2").tobytes()
    record = sax_dicom.read(str(biobank_zip(tmp_path / "1_20209_2_0.zip", again + every_slice())))
    assert np.array_equal(record.frames[4], frames()[4] + 7)
    assert np.array_equal(record.frames[3], frames()[3])
    assert record.repairs == ("last of several series of one slice taken",)


@pytest.mark.parametrize("missing", [0, 5, PHASES - 1])
def test_biobank_zip_with_a_missing_frame_repeats_its_neighbour(tmp_path, missing):
    images = [
        data
        for data in every_slice()
        if (data.SeriesNumber, data.TriggerTime) != (23, 10.0 + 40 * missing)
    ]
    record = sax_dicom.read(str(biobank_zip(tmp_path / "1_20209_2_0.zip", images)))
    others = [p for p in range(PHASES) if p != missing]
    assert np.array_equal(record.frames[:, others], frames()[:, others])
    assert record.frames[3, missing, 0, 0] == 300 + (missing - 1 if missing else 1)
    assert record.repairs == ("numbers of phases matched",)


@pytest.mark.parametrize(
    ("stem", "expected"),
    [
        ("1234567_20209_2_0", ("1234567", "2")),
        ("1234567_20205_3_1", ("1234567", "3")),
        ("1234567_6025_0_0", ("1234567", "0")),
        ("SCD0000101", (None, None)),
        ("00001_hr", (None, None)),
        ("1234567_20209_2", (None, None)),
        ("x1234567_20209_2_0", (None, None)),
    ],
)
def test_biobank_names(stem, expected):
    assert biobank(stem) == expected


def test_other_names_are_their_own_person(tmp_path):
    assert sax_dicom.read(str(folder(tmp_path / "p1", stack()))).person is None


def encrypted(path: Path) -> Path:
    """A zip whose members are marked as encrypted, in the local and in the central header."""
    content = bytearray(archive(path, stack()[:3]).read_bytes())
    for sign, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = content.find(sign)
        while at >= 0:
            content[at + offset] |= 1
            at = content.find(sign, at + 4)
    path.write_bytes(content)
    return path


def test_encrypted_zip_is_a_reason(tmp_path):
    with pytest.raises(Excluded, match="encrypted archive"):
        sax_dicom.read(str(encrypted(tmp_path / "p.zip")))


def test_zip_with_a_damaged_member_is_a_reason(tmp_path):
    path = biobank_zip(tmp_path / "p.zip", every_slice())
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(Excluded, match="unreadable archive"):
        sax_dicom.read(str(path))


@pytest.mark.parametrize("name", ["p.zip", "p.tar.xz", "p.tar.gz", "header.tar.gz"])
def test_bombs_are_a_reason_before_they_fill_the_memory(tmp_path, monkeypatch, name):
    """80 MB of zeros that take 80 kB; in `header.tar.gz` they are a header of the archive instead of a member."""
    monkeypatch.setattr(bundle, "SWELL_FROM", 1 << 20)
    zeros = bytes(80 << 20)
    if name == "p.zip":
        with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as opened:
            opened.writestr("image.dcm", zeros)
    else:
        member = tarfile.TarInfo("image.dcm")
        member.size = len(zeros)
        member.type = tarfile.XHDTYPE if name.startswith("header") else tarfile.REGTYPE
        with bundle.OPENERS[name[name.index(".") :]](tmp_path / name, "wb") as opened:
            opened.write(member.tobuf() + zeros + bytes(1024))
    with pytest.raises(Excluded, match="swells"):
        sax_dicom.read(str(tmp_path / name))


def test_a_claimed_size_that_is_too_small_is_damage(tmp_path):
    """A zip that claims 100 bytes for a member of a million never yields more, and then fails its checksum."""
    path = tmp_path / "p.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("image.dcm", bytes(1_000_000))
    size = (1_000_000).to_bytes(4, "little")
    path.write_bytes(path.read_bytes().replace(size, (100).to_bytes(4, "little")))
    with pytest.raises(Excluded, match="unreadable archive"):
        sax_dicom.read(str(path))


@pytest.mark.parametrize("end", ["tar", "tar.xz"])
def test_a_damaged_tar_is_not_a_shorter_one(tmp_path, end):
    """tarfile takes a header that it cannot read for the end; within xz only the checksum at the end tells."""
    good = tmp_path / "p.tar.xz"
    content = bytearray(lzma.decompress(archive(good, stack()).read_bytes()))
    content[len(content) // 10240 * 5120 // 512 * 512 : len(content) // 2] = b"x" * 700
    path = tmp_path / f"q.{end}"
    path.write_bytes(bytes(content) if end == "tar" else lzma.compress(bytes(content)))
    with pytest.raises(Excluded, match="unreadable archive"):
        sax_dicom.read(str(path))


def test_slices_at_unequal_distances_are_said(tmp_path):
    images = [stored(image(s, p)) for s in range(SLICES) for p in range(PHASES) if s != 4]
    assert sax_dicom.read(str(folder(tmp_path, images))).repairs == ("slices at unequal distances",)


# -- pixels that are not plain -----------------------------------------------------------------------------------------


def encapsulated(data: Dataset, syntax: str, content: bytes) -> bytes:
    """The image with its pixels replaced by one compressed frame."""
    data.PixelData = pydicom.encaps.encapsulate([content])
    data["PixelData"].is_undefined_length = True
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, data, enforce_file_format=True)
    return buffer.getvalue()


def run_length(data: Dataset) -> bytes:
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.compress(pydicom.uid.RLELossless)
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, data, enforce_file_format=True)
    return buffer.getvalue()


def test_run_length_pixels_are_decoded(tmp_path):
    images = [run_length(image(s, p)) for s in range(SLICES) for p in range(PHASES)]
    assert np.array_equal(sax_dicom.read(str(folder(tmp_path, images))).frames, frames())


@pytest.mark.parametrize("keyword", ["JPEGLosslessSV1", "JPEGLSLossless", "MPEG2MPML"])
def test_pixels_without_a_decoder_name_it(tmp_path, keyword):
    syntax = getattr(pydicom.uid, keyword)
    if sax_dicom._decodable(syntax):
        pytest.skip(f"a decoder of {keyword} is installed")
    images = [
        encapsulated(image(s, p), syntax, bytes(64)) for s in range(SLICES) for p in range(PHASES)
    ]
    with pytest.raises(
        Excluded, match=f"^compressed pixels: no decoder of {keyword} is installed$"
    ):
        sax_dicom.read(str(folder(tmp_path, images)))


def test_claimed_sizes_allocate_nothing(tmp_path):
    images = [
        image(s, p, Rows=60_000, Columns=60_000) for s in range(SLICES) for p in range(PHASES)
    ]
    with pytest.raises(Excluded, match="no DICOM image"):
        sax_dicom.read(str(folder(tmp_path, [run_length_claim(data) for data in images])))


def run_length_claim(data: Dataset) -> bytes:
    return encapsulated(data, pydicom.uid.RLELossless, bytes(64))


def test_deflated_datasets_are_refused(tmp_path):
    """pydicom would inflate them whole, whatever they hold."""
    data = image(0, 0)
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, data, enforce_file_format=True)
    with pytest.raises(Excluded, match="deflated"):
        sax_dicom.read(str(folder(tmp_path, [buffer.getvalue()])))


def enhanced(slice_: int, with_groups: bool = True) -> bytes:
    """All phases of a slice as one multi-frame image, frames in random order, geometry in functional groups."""
    data = image(slice_, 0, SOPClassUID=EnhancedMRImageStorage, NumberOfFrames=PHASES)
    order = np.random.default_rng(slice_).permutation(PHASES)
    data.PixelData = frames()[slice_, order].astype("<u2").tobytes()
    shared, position, direction, pixel, scale = (Dataset() for _ in range(5))
    direction.ImageOrientationPatient = data.ImageOrientationPatient
    pixel.PixelSpacing = data.PixelSpacing
    scale.RescaleSlope, scale.RescaleIntercept = 2, -5
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [direction], [pixel]
    shared.PixelValueTransformationSequence = [scale]
    position.ImagePositionPatient = data.ImagePositionPatient
    groups = []
    for phase in order:
        group, beat = Dataset(), Dataset()
        beat.NominalCardiacTriggerDelayTime = 40.0 * phase
        group.CardiacSynchronizationSequence, group.PlanePositionSequence = [beat], [position]
        groups.append(group)
    for name in ("ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing", "TriggerTime"):
        delattr(data, name)
    if with_groups:
        data.SharedFunctionalGroupsSequence, data.PerFrameFunctionalGroupsSequence = (
            [shared],
            groups,
        )
    return stored(data)


def test_enhanced_multi_frame_images(tmp_path):
    record = sax_dicom.read(str(folder(tmp_path, [enhanced(s) for s in range(SLICES)])))
    assert np.array_equal(record.frames, 2 * frames() - 5)
    assert record.spacing_mm == (8.0, 1.5, 1.4)
    assert np.array_equal(record.trigger_ms, 40.0 * np.arange(PHASES))


def test_plain_images_with_a_leftover_of_functional_groups(tmp_path):
    images = stack(PerFrameFunctionalGroupsSequence=[Dataset()])
    assert np.array_equal(sax_dicom.read(str(folder(tmp_path, images))).frames, frames())


def test_multi_frame_images_without_places_are_refused(tmp_path):
    with pytest.raises(Excluded, match="no DICOM image with a position"):
        sax_dicom.read(
            str(folder(tmp_path, [enhanced(s, with_groups=False) for s in range(SLICES)]))
        )


@pytest.mark.parametrize(
    "changes",
    [
        {"PixelSpacing": [0, 1.4]},
        {"ImagePositionPatient": ["nan", 0, 0]},
        {"Rows": 0},
        {"ImageOrientationPatient": [1, 0, 0]},
        {"TriggerTime": 8765},
        {"RescaleSlope": 1},
    ],
)
def test_senseless_headers_are_a_reason(tmp_path, changes):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pydicom.config.disable_value_validation():
            images = [stored(image(s, p, **changes)) for s in range(SLICES) for p in range(PHASES)]
    images = [content.replace(b"8765", b"soon") for content in images]
    with pytest.raises(Excluded, match="no DICOM image with a position"):
        sax_dicom.read(str(folder(tmp_path, images)))


def test_jpeg_2000_pixels_are_decoded_by_pillow(tmp_path):
    pillow = pytest.importorskip("PIL.Image")
    images = []
    for s in range(SLICES):
        for p in range(PHASES):
            buffer = io.BytesIO()
            pillow.fromarray(frames()[s, p].astype("<u2")).save(
                buffer, "JPEG2000", no_jp2=True, irreversible=False
            )
            data = image(s, p, BitsStored=16, HighBit=15)
            images.append(encapsulated(data, pydicom.uid.JPEG2000Lossless, buffer.getvalue()))
    assert np.array_equal(sax_dicom.read(str(folder(tmp_path, images))).frames, frames())


# -- segmentations beside NIfTI stacks ---------------------------------------------------------------------------------

BEAT = np.array(
    [0.0, 0.06, 0.15, 0.25, 0.3, 0.27, 0.2, 0.12, 0.06, 0.03, 0.01, 0.0]
)  # the cavity's radius shrinks by it
MM = (1.5, 1.5, 8.0)  # of columns, rows and slices
ES = 4


def beating() -> np.ndarray:
    """(slices, phases, rows, columns) labels; thick in segment 2, the anteroseptal one at the base."""
    return np.stack([heart(scale=1 - b, thick=2) for b in BEAT], axis=1)


def shown(labels: np.ndarray) -> np.ndarray:
    """A cine in which blood is bright."""
    noise = np.random.default_rng(0).normal(0, 4, labels.shape)
    return (np.array([60.0, 220.0, 40.0, 200.0])[labels] + noise).round().astype(np.int16)


def save(path: Path, array: np.ndarray, affine: np.ndarray, unit: str = "unknown") -> None:
    """(slices, phases, rows, columns), or without phases, as X, Y, Z, T; 0.08 s per phase, as ukbb_cardiac writes it."""
    made = nibabel.Nifti1Image(
        array.transpose((3, 2, 0, 1) if array.ndim == 4 else (2, 1, 0)), affine
    )
    if array.ndim == 4:
        made.header["pixdim"][4] = 0.08
        made.header.set_xyzt_units("mm", unit)
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(made, path)


def scanner() -> np.ndarray:
    """An affine whose slices run from base to apex and whose images are seen from the apex (RAS), columns to the left."""
    along = ALONG * np.array([-1, -1, 1])  # base → apex
    across = np.cross([0.0, 0.0, 1.0], along)
    across /= np.linalg.norm(across)
    affine = np.eye(4)
    affine[:3, :3] = np.stack([across, np.cross(across, along), along], axis=1) * MM
    assert np.linalg.det(affine[:3, :3]) < 0
    return affine


def person(folder: Path, labels: np.ndarray, affine: np.ndarray, **files: np.ndarray) -> str:
    """A folder with `sa.nii` and what else is given; the source of its stack."""
    for name, array in {"sa": shown(labels), **files}.items():
        save(folder / f"{name}.nii", array, affine)
    return sax_nifti.find(str(folder))[0]


def test_segmentation_of_the_whole_cycle(tmp_path):
    labels = beating()
    record = sax_nifti.read(
        person(tmp_path / "1234567_20209_2_0", labels, scanner(), seg_sa=labels)
    )
    assert np.array_equal(record.masks, labels)
    assert record.masks.dtype == np.uint8
    assert record.masked == tuple(range(len(BEAT)))
    assert (record.key, record.person) == ("1234567_20209_2_0", "1234567")
    assert record.repairs == ("unit of time not named, taken as s",)
    truth = phenotypes.measure(
        labels[:, 0], labels[:, ES], (8.0, 1.5, 1.5), heart_rate=62.5, from_apex=True
    )
    assert record.labels == pytest.approx(truth)
    assert len(record.labels) == 27
    assert cmr.prepare(record)[1] == (
        "end-systole from the segmentation",
        "heart found by the segmentation",
    )


def test_segments_follow_the_affine_through_every_flip_and_quarter_turn(tmp_path):
    """The same heart stored with each axis reversed and rows and columns exchanged, the affine saying so."""
    labels, affine = beating(), scanner()
    for number in range(16):
        stored_, place = labels, affine.copy()
        for axis, bit in ((3, 1), (2, 2), (0, 4)):  # columns, rows, slices
            if number & bit:
                column = {3: 0, 2: 1, 0: 2}[axis]
                place[:3, 3] += place[:3, column] * (stored_.shape[axis] - 1)
                place[:3, column] *= -1
                stored_ = np.flip(stored_, axis)
        if number & 8:
            stored_ = stored_.swapaxes(2, 3)
            place[:3, [0, 1]] = place[:3, [1, 0]]
        record = sax_nifti.read(person(tmp_path / f"p{number}", stored_, place, seg_sa=stored_))
        walls = {k: record.labels[f"WT_AHA_{k}"] for k in range(1, 7)}
        assert max(walls, key=walls.get) == 2, number
        assert record.labels["LVEF"] == pytest.approx(51, abs=3)
        assert (record.masks[0] > 0).sum() < (
            record.masks[3] > 0
        ).sum()  # two empty slices above the base
        assert np.array_equal(record.masks[..., 0, 0] > 0, record.frames[..., 0, 0] > 300)
        assert np.corrcoef(record.masks.ravel() == 1, record.frames.ravel())[0, 1] > 0.5


def test_segmentation_of_end_diastole_and_end_systole(tmp_path):
    labels = beating()
    seen = shown(labels)
    ends = {"seg_sa_ED": labels[:, 0], "seg_sa_ES": labels[:, ES]}
    whole = sax_nifti.read(person(tmp_path / "w", labels, scanner(), seg_sa=labels))
    placed = sax_nifti.read(
        person(tmp_path / "p", labels, scanner(), **ends, sa_ED=seen[:, 0], sa_ES=seen[:, ES])
    )
    assert placed.masked == (0, ES)
    assert np.array_equal(placed.masks[:, ES], labels[:, ES])
    assert not placed.masks[:, 1:ES].any()
    assert placed.labels == pytest.approx(whole.labels)
    loose = sax_nifti.read(person(tmp_path / "l", labels, scanner(), **ends))
    assert loose.masked == (0,)
    assert loose.labels == pytest.approx(whole.labels)
    assert "phase of the segmented end-systole not known" in loose.repairs
    assert cmr.prepare(loose)[1] == (
        "end-systole from the smallest blood pool",
        "heart found by the segmentation",
    )


def test_frames_of_end_diastole_and_end_systole_alone(tmp_path):
    labels = beating()
    seen = shown(labels)
    for name, array in (("sa_ED", seen[:, 0]), ("sa_ES", seen[:, ES])):
        save(tmp_path / "p1" / f"{name}.nii", array, scanner())
        save(tmp_path / "p2" / f"{name}.nii", array, scanner())
        save(
            tmp_path / "p2" / f"seg_{name}.nii",
            labels[:, {"sa_ED": 0, "sa_ES": ES}[name]],
            scanner(),
        )
    plain, drawn = map(sax_nifti.read, sax_nifti.find(str(tmp_path)))
    assert (plain.key, drawn.key) == ("p1", "p2")
    assert np.array_equal(plain.frames, seen[:, [0, ES]])
    assert (plain.es, plain.masks, plain.labels) == (1, None, {})
    assert drawn.masked == (0, 1)
    assert "LVCO" not in drawn.labels  # no time
    assert len(drawn.labels) == 26
    assert cmr.prepare(plain)[1][0] == "end-systole as the files name it"
    assert cmr.prepare(drawn)[1][0] == "end-systole from the segmentation"
    (tmp_path / "p1" / "sa_ES.nii").unlink()
    with pytest.raises(Excluded, match="no time axis"):
        sax_nifti.read(str(tmp_path / "p1" / "sa_ED.nii"))


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (lambda m: m[:, :, :-1], "files of another size"),
        (lambda m: m[:, :-1], "another number of phases"),
        (lambda m: np.where(m == 3, 5, m), "labels other than 0 to 3"),
        (lambda m: np.where(m == 3, 2.5, m).astype(np.float32), "labels other than 0 to 3"),
        (lambda m: np.where(m == 3, np.nan, m).astype(np.float32), "labels other than 0 to 3"),
    ],
)
def test_a_segmentation_that_does_not_fit_is_left_out(tmp_path, spoil, word):
    labels = beating()
    record = sax_nifti.read(person(tmp_path / "p", labels, scanner(), seg_sa=spoil(labels)))
    assert any(word in repair for repair in record.repairs)
    assert (record.masks, record.masked, record.labels) == (None, (), {})
    assert cmr.prepare(record)[1] == (
        "end-systole from the smallest blood pool",
        "end-diastole taken as the first phase",
        "heart found by what moves",
    )


def test_a_segmentation_of_another_place_or_broken_is_left_out(tmp_path):
    labels, moved = beating(), scanner()
    moved[:3, 3] += 20
    source = person(tmp_path / "p", labels, scanner())
    save(tmp_path / "p" / "seg_sa.nii", labels, moved)
    assert (
        "segmentation left out: files of another place beside the stack"
        in sax_nifti.read(source).repairs
    )
    (tmp_path / "p" / "seg_sa.nii").write_bytes(b"\x1f\x8bnothing")
    assert "segmentation left out: unreadable NIfTI" in sax_nifti.read(source).repairs


def test_a_failed_phase_is_not_end_systole(tmp_path):
    labels = beating()
    broken = labels.copy()
    broken[:, 9] = 0
    broken[5, 9, 50, 58] = 1
    record = sax_nifti.read(person(tmp_path / "p", labels, scanner(), seg_sa=broken))
    assert 9 not in record.masked
    assert record.labels["LVEF"] == pytest.approx(51, abs=3)
    assert "phases with a failed segmentation left out" in record.repairs


def test_the_segmentation_outweighs_the_blood_pool_also_where_a_stack_is_looked_at(tmp_path):
    labels, later = beating(), np.roll(beating(), 3, axis=1)
    source = person(tmp_path / "p", labels, scanner(), seg_sa=later)
    record = sax_nifti.read(source)
    assert cmr.phases(record).es == ES + 3
    assert cmr.phases(dataclasses.replace(record, masks=None)).es == ES
    (seen,) = inspect.look(inspect.find(source))
    assert f"ES {ES + 3}," in seen.facts["taken"]
    assert "end-systole from the segmentation" in seen.repairs


def test_a_named_unit_and_a_senseless_step(tmp_path):
    labels = beating()
    source = person(tmp_path / "p", labels, scanner(), seg_sa=labels)
    save(tmp_path / "p" / "sa.nii", shown(labels), scanner(), unit="sec")
    record = sax_nifti.read(source)
    assert record.repairs == ()
    assert record.labels["LVCO"] == pytest.approx(record.labels["LVSV"] * 0.0625)
    save(tmp_path / "p" / "sa.nii", shown(labels), scanner(), unit="msec")  # 12 phases of 0.08 ms
    assert "LVCO" not in sax_nifti.read(source).labels
    path = tmp_path / "p" / "sa.nii"
    content = path.read_bytes()
    path.write_bytes(content[:123] + b"\xb7" + content[124:])  # units that do not exist
    assert sax_nifti.read(source).repairs == ("unit of time not named, taken as s",)


def test_without_orientation_no_segment_is_named(tmp_path):
    labels = beating()
    source = person(tmp_path / "p", labels, scanner(), seg_sa=labels)
    for name in ("sa", "seg_sa"):
        path = tmp_path / "p" / f"{name}.nii"
        content = path.read_bytes()
        path.write_bytes(content[:252] + bytes(4) + content[256:])  # qform_code and sform_code
    record = sax_nifti.read(source)
    assert record.repairs[0] == "no orientation in the header: slices in the order of the file"
    assert "WT_Global" in record.labels
    assert "WT_AHA_1" not in record.labels


def test_the_survey_of_a_cohort_takes_phenotypes_and_the_crop(tmp_path):
    labels = beating()
    source = person(tmp_path / "1234567_20209_2_0", labels, scanner(), seg_sa=labels)
    found = {crop: prepare._judge("cmr", f"nifti:{source}", {"crop": crop}) for crop in cmr.CROPS}
    assert found["heart"].numbers == sax_nifti.read(source).labels
    assert (found["heart"].key, found["heart"].person) == ("1234567_20209_2_0", "1234567")
    assert len({each.digest for each in found.values()}) == 3
    assert "heart found by the segmentation" in found["heart"].repairs
    assert "heart found by the segmentation" not in found["fixed"].repairs
    assert [
        build.recipe_of("nifti", {}, {"crop": crop})["cmr"]["crop"] for crop in cmr.CROPS
    ] == list(cmr.CROPS)
    with pytest.raises(InputError, match="known: fixed, heart, none"):
        build.recipe_of("nifti", {}, {"crop": "manual"})
