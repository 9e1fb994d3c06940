"""Short-axis stacks as DICOM, shuffled, in folders and archives, and read back."""

import io
import lzma
import tarfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
from handmade_stacks import (
    COLUMNS,
    PHASES,
    ROWS,
    SLICES,
    archive,
    folder,
    frames,
    image,
    stack,
    stored,
)
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from ecgcmr.errors import Excluded, InputError
from ecgcmr.raw import bundle, sax_dicom
from ecgcmr.raw.records import biobank, patient


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
