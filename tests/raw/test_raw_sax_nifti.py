"""Short-axis stacks as NIfTI, written here and read back."""

import gzip
import struct
from pathlib import Path

import nibabel
import numpy as np
import pytest
from handmade_stacks import PHASES, folder, frames, stack, write_nifti

from ecgcmr.errors import Excluded, InputError
from ecgcmr.raw import sax_dicom, sax_nifti
from ecgcmr.signals import cmr


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
