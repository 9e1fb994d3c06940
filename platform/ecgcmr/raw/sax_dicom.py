"""Short-axis cine stacks as DICOM images, in a folder or in an archive that is read in place.

One idea: geometry decides, not names. Images are grouped by plane, a plane's positions are
`ImagePositionPatient` along its normal (`SliceLocation` is no distance in some exports), both with
a tolerance, since headers round. A position's phases are ordered by trigger time or by what stands
in for it, never by names, and the stack is the largest set of parallel positions that move. So the
zips of UK Biobank's field 20209 need no table of contents: `manifest.csv` (or `.cvs`, with its
unquoted commas) is passed over, and one series or one per slice is the same. Nothing but geometry,
timing and pixels leaves this module.
"""

import hashlib
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pydicom.pixels
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID, AllTransferSyntaxes, DeflatedExplicitVRLittleEndian

from ecgcmr.errors import Excluded, InputError
from ecgcmr.raw import bundle, ecg_dicom, records
from ecgcmr.raw.records import CmrRecord, biobank, patient
from ecgcmr.signals.cmr import APEX_LPS

PIXEL_LIMIT = 1 << 22  # of one image, as its header claims
VOXEL_LIMIT = 1 << 29  # of a stack: 2 GiB as float32; one of UK Biobank has 20 million
LEAST_PHASES = 10  # fewer do not show a heartbeat; UK Biobank has 50, Sunnybrook 20
LEAST_SLICES = 3
SAME_PLACE_MM = 0.5  # along the normal; slices are 1 mm apart at least
SAME_DIRECTION = 0.02  # of a unit vector, 1.1°
SAME_SIDE = 1e-3  # of a pixel's side, as a share
UNIT = 0.05  # by which directions may miss being unit vectors at a right angle
# What the order of phases is taken from, the first that every phase has and no two share. A stack
# that is acquired over several beats may state one acquisition time for all phases of a slice.
ORDERS = ("trigger times", "temporal positions", "acquisition times", "instance numbers")
CINE_S = 3600.0  # acquisition times further apart are of no one slice, or of two days


@dataclass(frozen=True)
class Image:
    """One image with the few facts that sort it.

    `dataset` keeps the pixels undecoded, `frame` is its number in there; `when` has a number for
    each of `ORDERS`, NaN where the header has none.
    """

    dataset: pydicom.Dataset = field(repr=False)  # its text would be the whole header
    frame: int
    origin: np.ndarray
    axes: np.ndarray
    spacing: tuple[float, float]
    rescale: tuple[float, float]
    size: tuple[int, int]
    series: tuple
    study: tuple[str, str]
    when: tuple[float, ...]


def find(path: str) -> list[str]:
    """List the persons under a path: every archive is one; a folder that holds images and no
    archive is one as well.

    Raises:
        InputError: the path does not exist or holds no DICOM image and no archive.
    """
    root = Path(path)
    persons = [root] if root.is_file() else _persons(root) if root.is_dir() else []
    if not persons:
        raise InputError(
            f"{path}: no DICOM images or archives here; "
            "name an archive, a folder of images, or their folder"
        )
    return [str(person) for person in persons]


def _persons(folder: Path) -> list[Path]:
    children = sorted(folder.iterdir())
    if any(map(_may_be_image, children)):
        return [folder]
    persons: list[Path] = []
    for child in children:
        if child.is_dir() and any(map(bundle.is_archive, child.rglob("*"))):
            persons += _persons(child)
        elif bundle.is_archive(child) or (
            child.is_dir() and any(map(_may_be_image, child.rglob("*")))
        ):
            persons.append(child)
    return persons


def suits(file: Path, head: bytes) -> bool:
    """Whether it is an archive, a DICOM file that is no ECG, or a folder that holds some."""
    if file.is_dir():
        return any(map(_may_be_image, file.rglob("*")))
    if ecg_dicom.suits(file, head):
        return False
    return head[128:132] == b"DICM" or file.name.lower().endswith((*bundle.ENDINGS, ".dcm", ".ima"))


def read(source: str) -> CmrRecord:
    """Read the short-axis stack of one person.

    Raises:
        Excluded: nothing readable, images of several people, no cine, no stack, pixels in a
            compression that cannot be undone here, or more than the limits allow.
    """
    with warnings.catch_warnings():
        # pydicom warns of identifiers that break the standard's rules
        warnings.simplefilter("ignore")
        images: list[Image] = []
        people: set[str | None] = set()
        for dataset in _datasets(Path(source)):
            file_images = _images(dataset)
            images += file_images
            if file_images:
                people.add(patient(dataset.get("PatientID")))
        if not images:
            raise Excluded("no DICOM image with a position")
        people.discard(None)
        if len(people) > 1:
            raise Excluded("images of several people in one place")
        images, copy_words = _once(images)
        slices, words = _of_one_study(images)
        rows, columns = slices[0][0].size
        if len(slices) * len(slices[0]) * rows * columns > VOXEL_LIMIT:
            raise Excluded("too large for a cine stack")
        frames = np.stack([np.stack([_pixels(image) for image in phases]) for phases in slices])
    middle = slices[len(slices) // 2]
    normal = np.cross(*middle[0].axes)
    steps = np.abs(np.diff([float(phases[0].origin @ normal) for phases in slices]))
    if np.ptp(steps) > 1.0:
        words = (*words, "slices at unequal distances")
    times = np.array([image.when[0] for image in middle])
    key = re.sub(r"(?i)(\.tar)?\.(tar|gz|tgz|xz|bz2|zip|dcm|ima)$", "", Path(source).name)
    person, visit = biobank(key)
    return CmrRecord(
        key=key,
        frames=frames,
        # to 0.01 mm: positions are rounded, and volumes are compared
        spacing_mm=(round(float(np.median(steps)), 2), *slices[0][0].spacing),
        trigger_ms=times if np.isfinite(times).all() else None,
        repairs=(*copy_words, *words),
        person=person,
        visit=visit,
        patient=next(iter(people), None),
        axes=middle[0].axes,
    )


def _looks_like_dicom(file: Path) -> bool:
    if not file.is_file():
        return False
    if file.suffix.lower() in (".dcm", ".ima"):
        return True
    with file.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def _may_be_image(file: Path) -> bool:
    """Whether it looks like DICOM and is no ECG."""
    return _looks_like_dicom(file) and not ecg_dicom.suits(file, records.head(file))


def _datasets(source: Path) -> Iterator[pydicom.Dataset]:
    """Every DICOM image of a source; what is no DICOM (tables, previews) is passed over."""
    for content in bundle.contents(source):
        # pydicom would inflate it without a bound
        if DeflatedExplicitVRLittleEndian.encode() in content:
            raise Excluded("deflated DICOM")
        try:
            yield pydicom.dcmread(BytesIO(content))
        except InvalidDicomError:
            continue
        except Exception as error:  # whatever the parser stumbles over
            raise Excluded("unreadable DICOM image") from error


# -- sorting facts ---------------------------------------------------------------------------------


def _images(dataset: pydicom.Dataset) -> list[Image]:
    """The image of a plain file or the frames of an enhanced one.

    None of what has no plane, no pixels or no sense.
    """
    try:
        if "PixelData" not in dataset:
            return []
        if not 0 < int(dataset.Rows) * int(dataset.Columns) <= PIXEL_LIMIT:
            return []
        # Some exports leave functional groups in plain images too (GE's of Sunnybrook do), with
        # nothing of use in them.
        if "PerFrameFunctionalGroupsSequence" in dataset and "ImagePositionPatient" not in dataset:
            count = len(dataset.PerFrameFunctionalGroupsSequence)
            return [_enhanced(dataset, frame) for frame in range(count)]
        if int(dataset.get("NumberOfFrames") or 1) > 1:
            return []
        when = (
            _number(dataset.get("TriggerTime")),
            _number(dataset.get("TemporalPositionIdentifier")),
            _seconds(dataset.get("AcquisitionTime")),
            _number(dataset.get("InstanceNumber")),
        )
        return [_image(dataset, 0, (dataset,), when)]
    except Exception:  # pydicom converts a value when it is asked for, with any error
        return []


def _enhanced(dataset: pydicom.Dataset, frame: int) -> Image:
    """One frame of an enhanced MR image, whose facts lie in functional groups of its own or of all
    (PS3.3 C.7.6.16).
    """
    own_header = dataset.PerFrameFunctionalGroupsSequence[frame]
    shared_headers = (dataset.get("SharedFunctionalGroupsSequence") or [])[:1]
    sequences = [
        element.value
        for header in (own_header, *shared_headers)
        for element in header
        if element.VR == "SQ"
    ]
    groups = tuple(sequence[0] for sequence in sequences if sequence)

    def fact(name: str) -> Any:
        return next((group[name].value for group in groups if name in group), None)

    when = (
        _number(fact("NominalCardiacTriggerDelayTime")),
        _number(fact("TemporalPositionIndex")),
        np.nan,
        float(frame),
    )
    return _image(dataset, frame, groups, when)


def _number(value: Any) -> float:
    return np.nan if value in (None, "") else float(value)


def _seconds(value: Any) -> float:
    """Of a time of day, `HHMMSS.FFFFFF`; NaN where there is none."""
    match = re.fullmatch(r"(\d\d)(\d\d)(\d\d(?:\.\d*)?)", str(value or "").strip())
    return (
        np.nan
        if match is None
        else float(int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3]))
    )


def _image(
    dataset: pydicom.Dataset,
    frame: int,
    headers: tuple[pydicom.Dataset, ...],
    when: tuple[float, ...],
) -> Image:
    """The sorting facts of one image.

    Args:
        dataset: the file. frame: which of its frames.
        headers: where to look for geometry and scale, the nearest first.
        when: as in `Image`.

    Raises:
        Exception: of any kind; a fact is missing or no number.
    """

    def fact(name: str) -> Any:
        return next(header[name].value for header in headers if name in header)

    origin = np.array(fact("ImagePositionPatient"), dtype=np.float64).reshape(3)
    directions = np.array(fact("ImageOrientationPatient"), dtype=np.float64).reshape(2, 3)
    down, across = (float(x) for x in np.array(fact("PixelSpacing"), dtype=np.float64))
    if not np.isfinite([*origin, *directions.ravel()]).all():
        raise ValueError("no place in space")
    if np.abs(directions @ directions.T - np.eye(2)).max() > UNIT:
        raise ValueError("no directions")
    if not (0 < down < np.inf and 0 < across < np.inf):
        raise ValueError("no size of pixels")
    rescale = (1.0, 0.0)
    if any("RescaleSlope" in header for header in headers):
        rescale = (float(fact("RescaleSlope")), float(fact("RescaleIntercept")))
    if not (0 < rescale[0] < np.inf and np.isfinite(rescale[1])):
        raise ValueError("no scale")
    return Image(
        dataset=dataset,
        frame=frame,
        origin=origin,
        axes=directions / np.linalg.norm(directions, axis=1, keepdims=True),
        spacing=(down, across),
        rescale=rescale,
        size=(int(dataset.Rows), int(dataset.Columns)),
        series=(int(dataset.get("SeriesNumber") or 0), str(dataset.get("SeriesInstanceUID", ""))),
        study=(
            str(dataset.get("StudyInstanceUID") or ""),
            str(dataset.get("FrameOfReferenceUID") or ""),
        ),
        when=when,
    )


def _once(images: list[Image]) -> tuple[list[Image], tuple[str, ...]]:
    """The images without copies: of one instance number of the standard (`SOPInstanceUID`) and
    place, or of the same place, time and pixels.
    """
    known_copies: set[tuple] = set()
    digests: dict[int, bytes] = {}  # of a file's pixels, which many frames may share
    out = []
    for image in images:
        place = (image.origin.tobytes(), image.axes.tobytes(), image.study, image.series)
        facts = (image.frame, *place, repr(image.when))
        instance = str(image.dataset.get("SOPInstanceUID") or "")
        file = id(image.dataset)
        if file not in digests:
            digests[file] = hashlib.sha256(image.dataset.PixelData or b"").digest()
        copies: set[tuple] = {(facts, digests[file])}
        if instance:
            copies.add((facts, instance))
        if not copies & known_copies:
            out.append(image)
        known_copies |= copies
    words = ("images that are there twice taken once",) if len(out) < len(images) else ()
    return out, words


# -- slices and phases -----------------------------------------------------------------------------


def _of_one_study(images: list[Image]) -> tuple[list[list[Image]], tuple[str, ...]]:
    """`_stack` of the one study that has a stack, in one frame of reference.

    An anonymous number may stand for two patients, whose images are in one place by mistake, and
    nothing but these identifiers tells them apart. Where none of their values has a stack they were
    made anew for every image (Sunnybrook's frames of reference are) and say nothing.

    Raises:
        Excluded: there are several stacks, or none.
    """
    for place in range(len(images[0].study)):
        groups: dict[str, list[Image]] = defaultdict(list)
        for image in images:
            groups[image.study[place]].append(image)
        with_stack = [group for group in groups.values() if len(groups) > 1 and _has_stack(group)]
        if len(with_stack) > 1:
            raise Excluded("stacks of several studies or frames of reference in one place")
        if with_stack and place == 0:
            images = with_stack[0]
    return _stack(images)


def _has_stack(images: list[Image]) -> bool:
    try:
        return bool(_stack(images))
    except Excluded:
        return False


def _stack(images: list[Image]) -> tuple[list[list[Image]], tuple[str, ...]]:
    """The largest set of parallel positions that move: slices from base to apex, each with its
    phases in order.
    """
    planes: list[list[Image]] = []
    for image in images:
        plane = next((plane for plane in planes if _parallel(plane[0], image)), None)
        if plane is None:
            planes.append([image])
        else:
            plane.append(image)
    stacks = [stack for stack in (_slices(plane) for plane in planes) if stack[0]]
    if not stacks:
        raise Excluded("not a cine: fewer than 10 phases per position")
    slices, repairs = max(stacks, key=lambda stack: len(stack[0]))
    if len(slices) < LEAST_SLICES:
        raise Excluded("not a stack: fewer than 3 parallel slices")
    if len(stacks) > 1:
        repairs = (*repairs, "largest of several parallel sets taken")
    ordered_slices, order_words = _in_time(slices)
    return _equal_phases(ordered_slices, (*repairs, *order_words))


def _parallel(first: Image, other: Image) -> bool:
    """Whether two images have one size and lie in one direction, to what headers round."""
    return (
        first.size == other.size
        and np.allclose(first.spacing, other.spacing, rtol=SAME_SIDE, atol=0)
        and bool(np.abs(first.axes - other.axes).max() <= SAME_DIRECTION)
    )


def _slices(plane: list[Image]) -> tuple[list[list[Image]], tuple[str, ...]]:
    """The moving positions of one plane, from base to apex.

    Where several series share a position, the last is taken.
    """
    normal = np.cross(*plane[0].axes)
    towards_apex = normal if normal @ APEX_LPS >= 0 else -normal
    cines: list[list[Image]] = []
    repairs: tuple[str, ...] = ()
    for position in _positions(plane, towards_apex):
        series: dict[tuple, list[Image]] = defaultdict(list)
        for image in position:
            series[image.series].append(image)
        moving = {name: phases for name, phases in series.items() if len(phases) >= LEAST_PHASES}
        if moving:
            cines.append(moving[max(moving)])
        if len(moving) > 1:
            repairs = ("last of several series of one slice taken",)
    return cines, repairs


def _positions(plane: list[Image], along: np.ndarray) -> list[list[Image]]:
    """The images by their place along a direction, in its order; a gap begins another place."""
    places = np.array([float(image.origin @ along) for image in plane])
    order = np.argsort(places, kind="stable")
    cuts = np.flatnonzero(np.diff(places[order]) > SAME_PLACE_MM) + 1
    return [[plane[n] for n in numbers] for numbers in np.split(order, cuts)]


def _in_time(slices: list[list[Image]]) -> tuple[list[list[Image]], tuple[str, ...]]:
    """Every slice's phases in order, and words where it is not the trigger times'.

    Raises:
        Excluded: nothing tells the order of a slice.
    """
    sources = [_order(phases) for phases in slices]
    ordered_slices = [
        sorted(phases, key=lambda image: image.when[source])
        for phases, source in zip(slices, sources, strict=True)
    ]
    words = tuple(
        f"phases ordered by {ORDERS[source]}" for source in sorted(set(sources)) if source
    )
    return ordered_slices, words


def _order(phases: list[Image]) -> int:
    """Which of `ORDERS` tells the order of one slice's phases.

    Raises:
        Excluded: none does, or acquisition times contradict instance numbers, of which no other
            fact says which to believe.
    """
    table = np.array([image.when for image in phases])
    usable = [
        source
        for source, column in enumerate(table.T)
        if np.isfinite(column).all()
        and len(set(column)) == len(column)
        and (source != 2 or np.ptp(column) < CINE_S)
    ]
    if not usable:
        raise Excluded("order of phases unknown: no time and no number tells them apart")
    if usable[0] == 2 and 3 in usable:
        by_time, by_number = (np.argsort(table[:, source]) for source in (2, 3))
        if not np.array_equal(by_time, by_number):
            raise Excluded("order of phases unknown: acquisition times contradict instance numbers")
    return usable[0]


def _timed(phases: list[Image]) -> bool:
    return bool(np.isfinite([image.when[0] for image in phases]).all())


def _equal_phases(
    slices: list[list[Image]], repairs: tuple[str, ...]
) -> tuple[list[list[Image]], tuple[str, ...]]:
    """Give every slice the commonest number of phases: those nearest in time, so that a missing one
    repeats another.
    """
    count = Counter(len(phases) for phases in slices).most_common(1)[0][0]
    if all(len(phases) == count for phases in slices):
        return slices, repairs
    model = next(phases for phases in slices if len(phases) == count)
    return [_like(model, phases) for phases in slices], (*repairs, "numbers of phases matched")


def _like(model: list[Image], phases: list[Image]) -> list[Image]:
    """As many phases as `model` has: by trigger time, or spread evenly where there is none."""
    if len(phases) == len(model):
        return phases
    if not (_timed(model) and _timed(phases)):
        places = np.linspace(0, len(phases) - 1, len(model)).round().astype(int)
        return [phases[place] for place in places]
    times = np.array([image.when[0] for image in phases])
    return [phases[int(np.abs(times - image.when[0]).argmin())] for image in model]


# -- pixels ----------------------------------------------------------------------------------------


def _decodable(syntax: UID) -> bool:
    """Whether pydicom, or a package that it finds, decodes a transfer syntax."""
    try:
        return pydicom.pixels.get_decoder(syntax).is_available
    except NotImplementedError:
        return False


def _rows_too_many(dataset: pydicom.Dataset) -> bool:
    """Whether plain pixels go on for a row or more after the stated ones: sizes and pixels are not
    of one image.
    """
    row = int(dataset.Columns) * int(dataset.SamplesPerPixel) * int(dataset.BitsAllocated) // 8
    rows = int(dataset.Rows) * max(1, int(dataset.get("NumberOfFrames") or 1))
    return len(dataset.PixelData) >= row * (rows + 1)


def _pixels(image: Image) -> np.ndarray:
    """The pixels of one image, (height, width) float32, after its own scale."""
    syntax = image.dataset.file_meta.get("TransferSyntaxUID")
    if syntax in AllTransferSyntaxes and not _decodable(syntax):
        raise Excluded(f"compressed pixels: no decoder of {syntax.keyword} is installed")
    try:
        if not (syntax and syntax.is_encapsulated) and _rows_too_many(image.dataset):
            raise ValueError("more rows than are stated")
        pixels = pydicom.pixels.pixel_array(image.dataset, index=image.frame).astype(np.float32)
    except Exception as error:  # a truncated or damaged image raises what its decoder raises
        raise Excluded("pixels cannot be decoded") from error
    grey = image.dataset.get("PhotometricInterpretation") in ("MONOCHROME1", "MONOCHROME2")
    if pixels.ndim != 2 or not grey:
        raise Excluded("colour images")
    pixels = pixels * image.rescale[0] + image.rescale[1]
    return -pixels if image.dataset.get("PhotometricInterpretation") == "MONOCHROME1" else pixels
