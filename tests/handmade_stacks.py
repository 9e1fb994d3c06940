"""Short-axis stacks written here, as DICOM and NIfTI, and segmented hearts that beat."""

import functools
import io
import tarfile
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ExplicitVRLittleEndian,
    MRImageStorage,
    generate_uid,
)
from test_phenotypes import heart

from ecgcmr.raw import sax_nifti

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
