"""Short-axis cine stacks as 4-D NIfTI (X, Y, Z, T), as ukbb_cardiac and most converters write them.

The array's rows are Y and its columns X, as a scanner has them; slices are ordered from base to
apex by the affine, which also says how the images lie, for `cmr.prepare` to turn them. A
segmentation that lies beside the stack is read with it: of the cycle (`seg_sa`, `A0S9V9_sa_gt`), or
of end-diastole and end-systole (`seg_sa_ED`, `001_SA_ES_gt`, `patient001_frame12_gt`); where only
the frames `sa_ED` and `sa_ES` were kept, these two are the stack. One that does not fit is left
out, with a word. Only geometry and timing are read from the header.
"""

import gzip
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from ecgcmr.errors import Excluded, InputError
from ecgcmr.raw import sax_names
from ecgcmr.raw.records import CmrRecord, biobank
from ecgcmr.raw.sax_names import Name
from ecgcmr.raw.segmentation import Segmentation, is_oblique, of_ends, of_whole
from ecgcmr.signals import cmr, phenotypes

VOXEL_LIMIT = 1 << 29  # 2 GiB as float32; a stack of UK Biobank has 20 million
UNITS_MS = {8: 1e3, 16: 1.0, 24: 1e-3}  # bits 3 to 5 of `xyzt_units`: s, ms, µs
LPS = np.array([-1.0, -1.0, 1.0])  # NIfTI's axes have the other sign from right to left and back
LEFT_OUT = "segmentation left out: "
SAME_DIRECTION = 0.1  # of a unit vector, by which sform and qform may differ
STEP_MM = (4.0, 20.0)  # between slices of a stack
# Of neighbouring slices to phases; in five open stacks they differ 7 to 10 times as much, and the
# last slice is 1.9 to 2.5 such steps from the first.
ALIKE, OPEN = 0.8, 1.8

# It reports what it sets right in a header.
logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class Volume:
    """One file.

    Attributes:
        values: (slices, phases, height, width), one phase for a still.
        affine: (4, 4) as NIfTI defines it.
        spacing_mm: of slices, rows and columns.
        step: between phases, in the header's `unit`.
        has_place: whether the header places it.
        words: what was settled.
    """

    values: np.ndarray
    affine: np.ndarray
    spacing_mm: tuple[float, float, float]
    step: float
    unit: int
    has_place: bool
    words: tuple[str, ...]


def find(path: str) -> list[str]:
    """List the stacks under a folder, or the one file named.

    One file for each heart (see `sax_names`): segmentations and stills beside a cine are read with
    it, and ukbb_cardiac's long axes beside `sa` are left out.

    Raises:
        InputError: the path does not exist or holds no NIfTI file.
    """
    root = Path(path)
    if root.is_file():
        return [str(root)]
    files = [file for file in root.rglob("*") if sax_names.is_nifti(file) and file.is_file()]
    if not files:
        raise InputError(
            f"{path}: no NIfTI file (*.nii, *.nii.gz) here; "
            "name a stack or the folder that holds them"
        )
    return [str(file) for file in sax_names.stacks(files)]


def suits(file: Path, head: bytes) -> bool:
    """Whether a file is named as NIfTI."""
    return sax_names.is_nifti(file)


def read(source: str) -> CmrRecord:
    """Read one stack, and the segmentation beside it if there is one.

    Raises:
        Excluded: it is unreadable, has no time axis, or is absurdly large.
    """
    path = Path(source)
    volume = _load(path)
    frames = volume.values.astype(np.float32)
    names, es = sax_names.companions(path), None
    if frames.shape[1] == 1 and sax_names.name(path).still == "ed":
        es_file = next((n.file for n in names if n.still == "es" and not n.is_drawing), None)
        if es_file:
            frames = np.concatenate([frames, _same(_load(es_file), volume)], axis=1)
            es = 1
    if frames.shape[1] < 2:
        raise Excluded("not a cine: no time axis")
    trigger, time_words = (None, ()) if es else _trigger(volume)
    segmentation = _segmentation(names, frames, volume, ends=bool(es))
    flip, from_apex, orientation_words = _orientation(volume)
    base_to_apex = slice(None, None, -1 if flip else 1)
    masks, ed_mask, es_mask = (
        None if array is None else array[base_to_apex]
        for array in (segmentation.masks, segmentation.ed, segmentation.es)
    )
    labels: dict[str, float] = {}
    if ed_mask is not None:
        rate = phenotypes.heart_rate(trigger)
        labels = phenotypes.measure(
            ed_mask, es_mask, volume.spacing_mm, heart_rate=rate, from_apex=from_apex
        )
    key = sax_names.key(path)
    person, visit = biobank(key)
    return CmrRecord(
        key=key,
        frames=np.ascontiguousarray(frames[base_to_apex]),
        spacing_mm=volume.spacing_mm,
        trigger_ms=trigger,
        repairs=(*volume.words, *orientation_words, *time_words, *segmentation.words),
        person=person,
        visit=visit,
        masks=None if masks is None else np.ascontiguousarray(masks),
        masked=segmentation.masked,
        es=es,
        labels=labels,
        axes=_directions(volume.affine)[:, :2].T * LPS if volume.has_place else None,
    )


def _load(path: Path) -> Volume:
    """One file, judged by its header and its length."""
    try:
        length = _length(path)
        image: Any = nibabel.load(path)  # nibabel types only the base of its formats
        # NIfTI-2 is a Nifti1Pair too; nibabel reads many other formats
        if not isinstance(image, nibabel.Nifti1Pair):
            raise Excluded("unreadable NIfTI")
        shape = image.shape
        if min(shape) < 1:
            raise Excluded("unreadable NIfTI")
        time = _time_axis(shape)
        if np.prod(shape, dtype=np.int64) > VOXEL_LIMIT:
            raise Excluded("too large for a cine stack")
        proxy: Any = image.dataobj
        # Bytes too many or too few: something before the pixels' end was inserted or lost, and has
        # shifted them.
        if proxy.offset + np.prod(shape, dtype=np.int64) * proxy.dtype.itemsize != length:
            raise Excluded("unreadable NIfTI")
        if proxy.slope <= 0:
            raise Excluded("unreadable NIfTI")
        if not _agree(image):
            raise Excluded("unreadable NIfTI: sform and pixdim state other sizes of voxels")
        values = np.asarray(proxy).reshape((*shape[:3], shape[time] if time else 1))
        affine, words = _affine(image)
        if values.dtype.kind not in "iuf" or not np.isfinite(affine).all():
            raise Excluded("unreadable NIfTI")
        values = values.transpose(2, 3, 1, 0)
        zooms = [float(zoom) for zoom in image.header.get_zooms()]
        if time and _exchanged(values, zooms[2], zooms[time]):
            raise Excluded("axes are X, Y, time, slices: a stack is X, Y, slices, time")
        return Volume(
            values=values,
            affine=affine,
            spacing_mm=(zooms[2], zooms[1], zooms[0]),
            step=zooms[time] if time else 0.0,
            unit=int(image.header["xyzt_units"]) & 0x38,
            has_place=bool(image.header["sform_code"] or image.header["qform_code"]),
            words=words,
        )
    except Excluded:
        raise
    except Exception as error:  # nibabel lets gzip, zlib, struct and its own errors through
        raise Excluded("unreadable NIfTI") from error


def _time_axis(shape: tuple[int, ...]) -> int:
    """The axis of phases, 0 for a still; ITK writes time as a fifth axis after one of length 1.

    Raises:
        Excluded: there are more axes than X, Y, Z and time, or fewer than three.
    """
    if len(shape) == 3:
        return 0
    if len(shape) == 4 or (len(shape) == 5 and shape[4] == 1):
        return 3
    if len(shape) == 5 and shape[3] == 1:
        return 4
    if len(shape) < 3:
        raise Excluded("not a stack: fewer than three axes")
    raise Excluded(f"{len(shape)} axes, more than X, Y, Z and time")


def _exchanged(values: np.ndarray, apart: float, step: float) -> bool:
    """Whether the axes of slices and of time are exchanged: by their steps, or because neighbours
    on the axis of slices are more alike than those in time, which ends far from its beginning.

    Args:
        values: (slices, phases, height, width). apart: mm between slices. step: between phases.
    """
    if apart < cmr.SLICE_MM[0] / 2 and STEP_MM[0] <= step <= STEP_MM[1]:
        return True
    if min(values.shape[:2]) < cmr.LEAST_SLICES:
        return False
    pixels = values[:, :, ::4, ::4].astype(np.float32)
    (slice_step, slice_way), (phase_step, phase_way) = _ways(pixels), _ways(pixels.swapaxes(0, 1))
    return 0 < slice_step < ALIKE * phase_step and phase_way > max(OPEN, slice_way)


def _ways(pixels: np.ndarray) -> tuple[float, float]:
    """The mean step from one to the next on the first axis, and how many such steps the last is
    from the first: about 1 on a cycle.
    """
    step = float(np.abs(np.diff(pixels, axis=0)).mean())
    way = float(np.abs(pixels[-1] - pixels[0]).mean())
    return step, way / step if step > 0 else 0.0


def _agree(image: Any) -> bool:
    """Whether the header states one size of voxels, where it states it twice.

    Nibabel puts 1 mm for a size of 0. An sform of unit scale states no size (ACDC's).
    """
    if not image.header["sform_code"]:
        return True
    sizes = np.linalg.norm(image.affine[:3, :3], axis=0)
    return np.allclose(sizes, image.header.get_zooms()[:3], rtol=0.05) or _unit(sizes)


def _unit(sizes: np.ndarray) -> bool:
    return np.allclose(sizes, 1, rtol=0, atol=1e-4)


def _affine(image: Any) -> tuple[np.ndarray, tuple[str, ...]]:
    """Where voxels lie, and words where the header says it in two ways."""
    header, affine = image.header, image.affine
    if not header["sform_code"]:
        return affine, ()
    zooms = np.array(header.get_zooms()[:3], np.float64)
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    if _unit(sizes) and not np.allclose(sizes, zooms, rtol=0.05):
        word = "sform of unit scale: sizes taken from pixdim"
        if header["qform_code"]:
            return header.get_qform(), (word,)
        return affine * (*zooms, 1.0), (word,)
    if header["qform_code"]:
        apart = np.abs(_directions(affine) - _directions(header.get_qform())).max()
        if apart > SAME_DIRECTION:
            return affine, ("sform and qform contradict each other: sform taken",)
    return affine, ()


def _directions(affine: np.ndarray) -> np.ndarray:
    """(3, 3): where each axis of the array grows to, as columns of length 1."""
    columns = affine[:3, :3]
    return columns / np.maximum(np.linalg.norm(columns, axis=0), 1e-30)


def _length(path: Path) -> int:
    """Bytes of the file, unpacked; a compressed one is read to its end, where its checksum is:
    nibabel stops before.

    Raises:
        Excluded: it is larger than any stack.
    """
    if path.suffix.lower() != ".gz":
        return path.stat().st_size
    with gzip.open(path) as stream:
        while stream.read(1 << 20):
            if stream.tell() > 8 * VOXEL_LIMIT:
                raise Excluded("too large for a cine stack")
        return stream.tell()


def _same(companion: Volume, volume: Volume) -> np.ndarray:
    """The array of another file that must lie where `volume` lies.

    Raises:
        Excluded: it has another size or place.
    """
    size, own_size = companion.values.shape, volume.values.shape
    if size[0] != own_size[0] or size[2:] != own_size[2:]:
        raise Excluded("files of another size beside the stack")
    if not np.allclose(companion.affine, volume.affine, rtol=1e-3, atol=0.05):
        raise Excluded("files of another place beside the stack")
    return companion.values


# -- geometry and time -----------------------------------------------------------------------------


def _orientation(volume: Volume) -> tuple[bool, bool | None, tuple[str, ...]]:
    """Whether slices have to be reversed to run from base to apex, whether the apex is the viewer's
    side, and words.
    """
    if not volume.has_place:
        return False, None, ("no orientation in the header: slices in the order of the file",)
    across, down, along = _directions(volume.affine).T * LPS
    flip = bool(along @ cmr.APEX_LPS < 0)
    words = ("slices reversed to run from base to apex",) if flip else ()
    if not is_oblique(np.array([across, down, along])):
        return flip, None, ("orientation in doubt: no short axis lies along the body", *words)
    # Rows and columns are looked at along across × down; who looks from the apex looks against base
    # → apex.
    from_apex = bool(np.cross(across, down) @ along * (-1 if flip else 1) < 0)
    return flip, from_apex, words


def _trigger(volume: Volume) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Times of the phases in ms, and words; None if the header gives no step."""
    phases, step = volume.values.shape[1], volume.step
    if not (np.isfinite(step) and step > 0):
        return None, ()
    if volume.unit in UNITS_MS:
        return np.arange(phases) * step * UNITS_MS[volume.unit], ()
    for factor, name in ((1e3, "s"), (1.0, "ms")):  # ukbb_cardiac writes seconds and names no unit
        times = np.arange(phases) * step * factor
        if phenotypes.heart_rate(times):
            return times, (f"unit of time not named, taken as {name}",)
    return None, ()


# -- segmentation ----------------------------------------------------------------------------------


def _segmentation(
    names: list[Name], frames: np.ndarray, volume: Volume, *, ends: bool
) -> Segmentation:
    """The segmentation beside a stack, in the order of its file.

    Empty if there is none or it does not fit.

    Args:
        names: of the files beside it. ends: whether the stack is end-diastole and end-systole.
    """
    drawings = [name for name in names if name.is_drawing and not (ends and not name.still)]
    if not drawings:
        return Segmentation()
    try:
        by_still = {name.still: name.file for name in drawings}
        if len(by_still) < len(drawings):
            raise Excluded("there are several")
        if "" in by_still:
            return of_whole(_masks(by_still[""], volume), frames.shape[1])
        ed, es, phases, words = _of_stills(by_still, names, frames, volume, ends=ends)
        return of_ends(ed, es, phases, words)
    except Excluded as error:
        return Segmentation(words=(f"{LEFT_OUT}{error}",))


def _masks(file: Path, volume: Volume) -> np.ndarray:
    """(slices, phases, height, width) uint8.

    Raises:
        Excluded: unreadable, of another size or place, or with other labels than 0 … 3.
    """
    values = _same(_load(file), volume)
    masks = np.where(np.isin(values, (1, 2, 3)), values, 0).astype(np.uint8)
    if not np.array_equal(masks, values):
        raise Excluded("labels other than 0 to 3")
    return masks


def _of_stills(
    by_still: dict[str, Path],
    names: list[Name],
    frames: np.ndarray,
    volume: Volume,
    *,
    ends: bool,
) -> tuple[np.ndarray, np.ndarray | None, tuple[int, int | None, int], tuple[str, ...]]:
    """Masks of end-diastole and end-systole, their phases and that of all, and words.

    Of numbered stills (ACDC's `frame01`, from 1) the one with the larger cavity is end-diastole.

    Raises:
        Excluded: none is of end-diastole, or its phase is not known.
    """
    count = frames.shape[1]
    masks = {still: _masks(file, volume)[:, 0] for still, file in by_still.items()}
    phase_of_still = {still: int(still[5:]) - 1 for still in masks if still.startswith("frame")}
    if phase_of_still:
        if len(phase_of_still) != 2 or not all(
            0 <= phase < count for phase in phase_of_still.values()
        ):
            raise Excluded("its numbers are not those of two phases")
        cavity = phenotypes.label_order(np.stack(list(masks.values())))
        blood = {still: (masks[still] == (cavity or (1,))[0]).sum() for still in phase_of_still}
        es, ed = sorted(phase_of_still, key=lambda still: blood[still])
        return masks[ed], masks[es], (phase_of_still[ed], phase_of_still[es], count), ()
    if "ed" not in masks:
        raise Excluded("none of end-diastole")
    if ends:
        return masks["ed"], masks.get("es"), (0, 1, count), ()
    stills = {name.still: name.file for name in names if name.still and not name.is_drawing}
    ed_phase, es_phase = (
        _phase_of(_same(_load(stills[still]), volume)[:, 0], frames) if still in stills else None
        for still in ("ed", "es")
    )
    if "ed" in stills and ed_phase is None:
        raise Excluded("phase of its end-diastole not known")
    words = () if "ed" in stills else ("segmented end-diastole taken as the first phase",)
    return masks["ed"], masks.get("es"), (ed_phase or 0, es_phase, count), words


def _phase_of(still: np.ndarray, frames: np.ndarray) -> int | None:
    """The phase whose frames a still repeats, to a thousandth of their range."""
    for t in range(frames.shape[1]):
        if np.abs(frames[:, t] - still).max() <= 1e-3 * np.ptp(still):
            return t
    return None
