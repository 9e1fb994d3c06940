"""Short-axis cine stacks as DICOM images, in a folder or in an archive that is read in place.

One idea: geometry decides, not names. Images are grouped by plane, a plane's positions are `ImagePositionPatient` along
its normal (`SliceLocation` is no distance in some exports), a position's phases are ordered by trigger time, and the
stack is the largest set of parallel positions that move. Nothing but geometry, timing and pixels leaves this module.
"""

import re
import tarfile
import warnings
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError

from ecgcmr.errors import Excluded, InputError
from ecgcmr.raw import ecg_dicom, records
from ecgcmr.raw.records import CmrRecord

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".zip")
MEMBER_LIMIT = 64 << 20  # one image
TOTAL_LIMIT = 1 << 30  # all images of one person
COUNT_LIMIT = 20_000
LEAST_PHASES = 10  # fewer do not show a heartbeat; UK Biobank has 50, Sunnybrook 20
LEAST_SLICES = 3
# The apex points to the left, to the front and down; DICOM's axes run right → left +, front → back +, feet → head +.
APEX_LPS = np.array([1.0, -1.0, -1.0])


@dataclass(frozen=True)
class Image:
    """One DICOM image with the few facts that sort it; `dataset` keeps the pixels undecoded."""

    dataset: pydicom.Dataset
    origin: np.ndarray
    normal: np.ndarray
    plane: tuple
    series: tuple
    when: tuple[float, float]

    @property
    def position(self) -> float:
        """Distance along the normal, to 0.1 mm: rounding in the header must not split a slice."""
        return round(float(self.origin @ self.normal), 1)


def find(path: str) -> list[str]:
    """List the persons under a path: every archive is one; a folder that holds images and no archive is one as well.

    Raises:
        InputError: the path does not exist or holds no DICOM image and no archive.
    """
    root = Path(path)
    found = [root] if root.is_file() else _persons(root) if root.is_dir() else []
    if not found:
        raise InputError(
            f"{path}: no DICOM images or archives here; name an archive, a folder of images, or their folder"
        )
    return [str(person) for person in found]


def _persons(folder: Path) -> list[Path]:
    children = sorted(folder.iterdir())
    if any(map(_looks_like_dicom, children)):
        return [folder]
    persons: list[Path] = []
    for child in children:
        if child.is_dir() and any(map(_is_archive, child.rglob("*"))):
            persons += _persons(child)
        elif _is_archive(child) or (child.is_dir() and any(map(_looks_like_dicom, child.rglob("*")))):
            persons.append(child)
    return persons


def suits(file: Path, head: bytes) -> bool:
    """Whether it is an archive, a DICOM file that is no ECG, or a folder that holds some."""
    if file.is_dir():
        return any(_looks_like_dicom(f) and not ecg_dicom.suits(f, records.head(f)) for f in file.rglob("*"))
    if ecg_dicom.suits(file, head):
        return False
    return head[128:132] == b"DICM" or file.name.lower().endswith((*ARCHIVES, ".dcm", ".ima"))


def read(source: str) -> CmrRecord:
    """Read the short-axis stack of one person.

    Raises:
        Excluded: nothing readable, no cine, no stack, or more than the limits allow.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns of identifiers that break the standard's rules
        images = [image for image in map(_image, _datasets(Path(source))) if image]
        if not images:
            raise Excluded("no DICOM image with a position")
        slices, repairs = _stack(images)
        frames = np.stack([np.stack([_pixels(image.dataset) for image in phases]) for phases in slices])
    first, second = slices[0][0], slices[1][0]
    rows, columns = (float(x) for x in first.dataset.PixelSpacing)
    times = np.array([image.when[0] for image in slices[len(slices) // 2]])
    return CmrRecord(
        key=_key(source),
        frames=frames,
        spacing_mm=(abs(second.position - first.position), rows, columns),
        trigger_ms=times if np.isfinite(times).all() else None,
        repairs=repairs,
    )


def _key(source: str) -> str:
    return re.sub(r"(\.tar)?\.(tar|gz|tgz|xz|bz2|zip|dcm|ima)$", "", Path(source).name, flags=re.IGNORECASE)


def _looks_like_dicom(file: Path) -> bool:
    if not file.is_file():
        return False
    if file.suffix.lower() in (".dcm", ".ima"):
        return True
    with file.open("rb") as opened:
        return opened.read(132)[128:] == b"DICM"


def _is_archive(file: Path) -> bool:
    return file.name.lower().endswith(ARCHIVES) and file.is_file()


def _datasets(source: Path) -> Iterator[pydicom.Dataset]:
    """Every DICOM image of a source; what is no DICOM (tables, previews) is passed over."""
    total = 0
    try:
        for number, content in enumerate(_contents(source)):
            total += len(content)
            if number >= COUNT_LIMIT or total > TOTAL_LIMIT:
                raise Excluded("more images than one person's stack can have")
            try:
                yield pydicom.dcmread(BytesIO(content))
            except InvalidDicomError:
                continue
    except Excluded:
        raise
    except Exception as error:  # lzma, zlib, tarfile, zipfile and pydicom share no base
        raise Excluded("unreadable archive or folder") from error


def _contents(source: Path) -> Iterator[bytes]:
    """The files' bytes, one at a time: nothing is unpacked to disk, so a member's name cannot lead anywhere."""
    name = source.name.lower()
    if source.is_dir():
        for file in sorted(file for file in source.rglob("*") if file.is_file()):
            if file.stat().st_size <= MEMBER_LIMIT:
                yield file.read_bytes()
    elif name.endswith(".zip"):
        with zipfile.ZipFile(source) as archive:
            for entry in archive.infolist():
                if not entry.is_dir() and entry.file_size <= MEMBER_LIMIT:
                    yield archive.read(entry)
    elif name.endswith(ARCHIVES):
        with tarfile.open(source) as archive:
            for member in archive:
                opened = archive.extractfile(member) if member.isfile() and member.size <= MEMBER_LIMIT else None
                if opened:
                    yield opened.read()
    else:
        yield source.read_bytes()


def _image(dataset: pydicom.Dataset) -> Image | None:
    """The sorting facts of a plain MR image, or None for what has no plane or no pixels."""
    if "PixelData" not in dataset or int(dataset.get("NumberOfFrames") or 1) > 1:
        return None
    try:
        origin = np.array(dataset.ImagePositionPatient, dtype=np.float64)
        directions = np.array(dataset.ImageOrientationPatient, dtype=np.float64).reshape(2, 3)
        spacing = tuple(round(float(x), 3) for x in dataset.PixelSpacing)
    except (AttributeError, TypeError, ValueError):
        return None
    plane = (int(dataset.Rows), int(dataset.Columns), *spacing, *directions.ravel().round(2))
    trigger = dataset.get("TriggerTime")
    return Image(
        dataset=dataset,
        origin=origin,
        normal=np.cross(directions[0], directions[1]),
        plane=plane,
        series=(int(dataset.get("SeriesNumber") or 0), str(dataset.get("SeriesInstanceUID", ""))),
        when=(np.nan if trigger in (None, "") else float(trigger), float(dataset.get("InstanceNumber") or 0)),
    )


def _stack(images: list[Image]) -> tuple[list[list[Image]], tuple[str, ...]]:
    """The largest set of parallel positions that move: slices from base to apex, each with its phases in order."""
    planes: dict[tuple, list[Image]] = defaultdict(list)
    for image in images:
        planes[image.plane].append(image)
    stacks = [stack for stack in (_slices(group) for group in planes.values()) if stack[0]]
    if not stacks:
        raise Excluded("not a cine: fewer than 10 phases per position")
    slices, repairs = max(stacks, key=lambda stack: len(stack[0]))
    if len(slices) < LEAST_SLICES:
        raise Excluded("not a stack: fewer than 3 parallel slices")
    if len(stacks) > 1:
        repairs = (*repairs, "largest of several parallel sets taken")
    return _equal_phases(slices, repairs)


def _slices(group: list[Image]) -> tuple[list[list[Image]], tuple[str, ...]]:
    """The moving positions of one plane, from base to apex; where several series share a position, the last is taken."""
    by_position: dict[float, dict[tuple, list[Image]]] = defaultdict(lambda: defaultdict(list))
    for image in group:
        by_position[image.position][image.series].append(image)
    cines: dict[float, list[Image]] = {}
    repairs: tuple[str, ...] = ()
    for position, series in by_position.items():
        moving = {name: phases for name, phases in series.items() if len(phases) >= LEAST_PHASES}
        if moving:
            cines[position] = _ordered(moving[max(moving)])
        if len(moving) > 1:
            repairs = ("last of several series of one slice taken",)
    towards_apex = group[0].normal @ APEX_LPS >= 0
    return [cines[position] for position in sorted(cines, reverse=not towards_apex)], repairs


def _ordered(phases: list[Image]) -> list[Image]:
    """By trigger time, or by instance number where a trigger time is missing or all are one."""
    times = {image.when[0] for image in phases}
    timed = np.isfinite(list(times)).all() and len(times) > 1
    return sorted(phases, key=lambda image: image.when if timed else image.when[::-1])


def _equal_phases(slices: list[list[Image]], repairs: tuple[str, ...]) -> tuple[list[list[Image]], tuple[str, ...]]:
    """Give every slice the commonest number of phases; a slice with another repeats or skips its nearest ones."""
    count = Counter(len(phases) for phases in slices).most_common(1)[0][0]
    if all(len(phases) == count for phases in slices):
        return slices, repairs
    picks = [np.linspace(0, len(phases) - 1, count).round().astype(int) for phases in slices]
    matched = [[phases[i] for i in pick] for phases, pick in zip(slices, picks)]
    return matched, (*repairs, "numbers of phases matched")


def _pixels(dataset: pydicom.Dataset) -> np.ndarray:
    try:
        pixels = dataset.pixel_array.astype(np.float32)
    except Exception as error:  # a truncated or compressed image raises what its decoder raises
        raise Excluded("pixels cannot be decoded") from error
    if pixels.ndim != 2:
        raise Excluded("colour images")
    pixels = pixels * float(dataset.get("RescaleSlope") or 1) + float(dataset.get("RescaleIntercept") or 0)
    return -pixels if dataset.get("PhotometricInterpretation") == "MONOCHROME1" else pixels
