"""Short-axis cine stacks as 4-D NIfTI (X, Y, Z, T), as ukbb_cardiac and most converters write them.

The array is turned back to the scanner's view (rows = Y, columns = X) and the slices are ordered
from base to apex by the affine. A segmentation that lies beside the stack is read with it:
`seg_sa.nii.gz`, or `seg_sa_ED` and `seg_sa_ES`; where only the frames `sa_ED` and `sa_ES` were
kept, these two are the stack. One that does not fit is left out, with a word. Only geometry and
timing are read from the header.
"""

import gzip
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from ecgcmr.errors import Excluded, InputError
from ecgcmr.raw.records import CmrRecord, biobank
from ecgcmr.signals import cmr, phenotypes

VOXEL_LIMIT = 1 << 29  # 2 GiB as float32; a stack of UK Biobank has 20 million
ENDINGS = (".nii.gz", ".nii")
# The apex points to the left, to the front and down: NIfTI's axes run right → left −, back → front
# +, feet → head +.
APEX_RAS = np.array([-1.0, 1.0, -1.0])
UNITS_MS = {8: 1e3, 16: 1.0, 24: 1e-3}  # bits 3 to 5 of `xyzt_units`: s, ms, µs
LEFT_OUT = "segmentation left out: "

# It reports what it sets right in a header.
logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class Segmentation:
    """What the segmentation beside a stack gives: `masks` and `masked` of a CmrRecord, the two
    phases, and words.
    """

    masks: np.ndarray | None = None
    masked: tuple[int, ...] = ()
    ed: np.ndarray | None = None
    es: np.ndarray | None = None
    words: tuple[str, ...] = ()


def find(path: str) -> list[str]:
    """List the stacks under a folder, or the one file named.

    A folder in ukbb_cardiac's layout (`<person>/sa.nii.gz` beside long axes and segmentations)
    yields its `sa` files only, or `sa_ED` where there is no `sa`.

    Raises:
        InputError: the path does not exist or holds no NIfTI file.
    """
    root = Path(path)
    if root.is_file():
        return [str(root)]
    files = sorted(file for file in root.rglob("*") if file.name.endswith(ENDINGS))
    short_axes = [
        file
        for file in files
        if _stem(file) == "sa" or (_stem(file) == "sa_ED" and not _beside(file, "sa"))
    ]
    files = short_axes or [file for file in files if not _stem(file).startswith("seg_")]
    if not files:
        raise InputError(
            f"{path}: no NIfTI file (*.nii, *.nii.gz) here; "
            "name a stack or the folder that holds them"
        )
    return [str(file) for file in files]


def suits(file: Path, head: bytes) -> bool:
    """Whether a file is named as NIfTI."""
    return file.name.lower().endswith(ENDINGS)


def read(source: str) -> CmrRecord:
    """Read one stack, and the segmentation beside it if there is one.

    Raises:
        Excluded: it is unreadable, has no time axis, or is absurdly large.
    """
    path = Path(source)
    frames, image = _load(path)
    frames = frames.astype(np.float32)
    stem, es = _stem(path), None
    is_ed = frames.shape[1] == 1 and stem.endswith("_ED")
    es_file = _beside(path, stem[:-2] + "ES") if is_ed else None
    if es_file:
        es_frames = _same(_load(es_file), frames, image)
        frames = np.concatenate([frames, es_frames], axis=1)
        stem, es = stem[:-3], 1
    if frames.shape[1] < 2:
        raise Excluded("not a cine: no time axis")
    zooms = image.header.get_zooms()
    spacing = (float(zooms[2]), float(zooms[1]), float(zooms[0]))
    trigger, time_words = (None, ()) if es else _trigger(image)
    segmentation = _segmentation(path, stem, frames, image)
    flip, from_apex, orientation_words = _orientation(image)
    base_to_apex = slice(None, None, -1 if flip else 1)
    masks, ed_mask, es_mask = (
        None if array is None else array[base_to_apex]
        for array in (segmentation.masks, segmentation.ed, segmentation.es)
    )
    labels: dict[str, float] = {}
    if ed_mask is not None:
        rate = phenotypes.heart_rate(trigger)
        labels = phenotypes.measure(ed_mask, es_mask, spacing, heart_rate=rate, from_apex=from_apex)
    person, visit = biobank(_key(path))
    return CmrRecord(
        key=_key(path),
        frames=np.ascontiguousarray(frames[base_to_apex]),
        spacing_mm=spacing,
        trigger_ms=trigger,
        repairs=(*orientation_words, *time_words, *segmentation.words),
        person=person,
        visit=visit,
        masks=None if masks is None else np.ascontiguousarray(masks),
        masked=segmentation.masked,
        es=es,
        labels=labels,
    )


def _load(path: Path) -> tuple[np.ndarray, Any]:
    """(slices, phases, height, width), one phase for a 3-D file, and the image with its header."""
    try:
        length = _length(path)
        image: Any = nibabel.load(path)  # nibabel types only the base of its formats
        # NIfTI-2 is a Nifti1Pair too; nibabel reads many other formats
        if not isinstance(image, nibabel.Nifti1Pair):
            raise Excluded("unreadable NIfTI")
        shape = image.shape
        if len(shape) not in (3, 4) or min(shape) < 1:
            raise Excluded("not a cine: no time axis")
        if np.prod(shape, dtype=np.int64) > VOXEL_LIMIT:
            raise Excluded("too large for a cine stack")
        proxy: Any = image.dataobj
        # Bytes too many or too few: something before the pixels' end was inserted or lost, and has
        # shifted them.
        if proxy.offset + np.prod(shape, dtype=np.int64) * proxy.dtype.itemsize != length:
            raise Excluded("unreadable NIfTI")
        if proxy.slope <= 0 or not _agree(image):
            raise Excluded("unreadable NIfTI")
        values = np.asarray(proxy).reshape((*shape, 1)[:4])
        if values.dtype.kind not in "iuf" or not np.isfinite(image.affine).all():
            raise Excluded("unreadable NIfTI")
        return values.transpose(2, 3, 1, 0), image
    except Excluded:
        raise
    except Exception as error:  # nibabel lets gzip, zlib, struct and its own errors through
        raise Excluded("unreadable NIfTI") from error


def _agree(image: Any) -> bool:
    """Whether the header states one size of voxels, where it states it twice.

    Nibabel puts 1 mm for a size of 0.
    """
    if not image.header["sform_code"]:
        return True
    sizes = np.linalg.norm(image.affine[:3, :3], axis=0)
    return np.allclose(sizes, image.header.get_zooms()[:3], rtol=0.05)


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


def _same(companion: tuple[np.ndarray, Any], frames: np.ndarray, image: Any) -> np.ndarray:
    """The array of another file that must lie where `image` lies.

    Raises:
        Excluded: it has another size or place.
    """
    values, companion_image = companion
    if values.shape[0] != frames.shape[0] or values.shape[2:] != frames.shape[2:]:
        raise Excluded("files of another size beside the stack")
    if not np.allclose(companion_image.affine, image.affine, rtol=1e-3, atol=0.05):
        raise Excluded("files of another place beside the stack")
    return values


# -- geometry and time -----------------------------------------------------------------------------


def _orientation(image: Any) -> tuple[bool, bool | None, tuple[str, ...]]:
    """Whether slices have to be reversed to run from base to apex, whether the apex is the viewer's
    side, and words.
    """
    if not (image.header["sform_code"] or image.header["qform_code"]):
        return False, None, ("no orientation in the header: slices in the order of the file",)
    across, down, along = image.affine[:3, :3].T
    flip = bool(along @ APEX_RAS < 0)
    # Rows and columns are looked at along across × down; who looks from the apex looks against base
    # → apex.
    from_apex = bool(np.cross(across, down) @ along * (-1 if flip else 1) < 0)
    return flip, from_apex, ("slices reversed to run from base to apex",) if flip else ()


def _trigger(image: Any) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Times of the phases in ms, and words; None if the header gives no step."""
    phases, step = image.shape[3], float(image.header.get_zooms()[3])
    unit = int(image.header["xyzt_units"]) & 0x38
    if not (np.isfinite(step) and step > 0):
        return None, ()
    if unit in UNITS_MS:
        return np.arange(phases) * step * UNITS_MS[unit], ()
    for factor, name in ((1e3, "s"), (1.0, "ms")):  # ukbb_cardiac writes seconds and names no unit
        times = np.arange(phases) * step * factor
        if phenotypes.heart_rate(times):
            return times, (f"unit of time not named, taken as {name}",)
    return None, ()


# -- segmentation ----------------------------------------------------------------------------------


def _segmentation(path: Path, stem: str, frames: np.ndarray, image: Any) -> Segmentation:
    """The segmentation beside a stack, in the order of its file.

    Empty if there is none or it does not fit.
    """
    whole = _beside(path, f"seg_{stem}")
    ed_file, es_file = (_beside(path, f"seg_{stem}_{phase}") for phase in ("ED", "ES"))
    try:
        if whole and not _stem(path).endswith("_ED"):
            return _of_whole(_masks(whole, frames, image), frames.shape[1])
        if ed_file:
            es = _masks(es_file, frames, image)[:, 0] if es_file else None
            ed = _masks(ed_file, frames, image)[:, 0]
            return _of_ends(ed, es, _phases(path, stem, frames, image))
        return Segmentation()
    except Excluded as error:
        return Segmentation(words=(f"{LEFT_OUT}{error}",))


def _masks(file: Path, frames: np.ndarray, image: Any) -> np.ndarray:
    """(slices, phases, height, width) uint8.

    Raises:
        Excluded: unreadable, of another size or place, or with other labels than 0 … 3.
    """
    values = _same(_load(file), frames, image)
    masks = np.where(np.isin(values, (1, 2, 3)), values, 0).astype(np.uint8)
    if not np.array_equal(masks, values):
        raise Excluded("labels other than 0 to 3")
    return masks


def _of_whole(masks: np.ndarray, phases: int) -> Segmentation:
    """From a segmentation of the cycle.

    A phase in which the cavity all but vanished is taken as not segmented.
    """
    if masks.shape[1] != phases:
        raise Excluded("another number of phases")
    blood = (masks == cmr.BLOOD).sum((0, 2, 3))
    # Between two phases it does not halve.
    is_failed = 2 * blood < np.minimum(np.roll(blood, 1), np.roll(blood, -1))
    masked = tuple(int(t) for t in np.flatnonzero((blood >= cmr.LEAST_BLOOD) & ~is_failed))
    masks = np.where(np.isin(np.arange(phases), masked)[:, None, None], masks, np.uint8(0))
    es = cmr.end_systole(masks, masked)
    words = ("phases with a failed segmentation left out",) if is_failed.any() else ()
    ed_mask = masks[:, 0] if 0 in masked else None
    es_mask = None if es is None else masks[:, es]
    return Segmentation(masks, masked, ed_mask, es_mask, words)


def _of_ends(
    ed: np.ndarray, es: np.ndarray | None, phases: tuple[int, int | None, int]
) -> Segmentation:
    """From segmentations of end-diastole and end-systole, laid to their phases.

    `phases`: of ED, of ES, in all.
    """
    at_ed, at_es, count = phases
    masks = np.zeros((len(ed), count, *ed.shape[1:]), np.uint8)
    masks[:, at_ed] = ed
    if es is not None and at_es is not None:
        masks[:, at_es] = es
        return Segmentation(masks, (at_ed, at_es), ed, es)
    words = ("phase of the segmented end-systole not known",) if es is not None else ()
    return Segmentation(masks, (at_ed,), ed, es, words)


def _phases(path: Path, stem: str, frames: np.ndarray, image: Any) -> tuple[int, int | None, int]:
    """The phases of ED and ES, by the frames `_ED` and `_ES` beside a 4-D stack, and how many there
    are.
    """
    count = frames.shape[1]
    if _stem(path).endswith("_ED"):
        return 0, 1, count
    ed_file, es_file = (_beside(path, f"{stem}_{phase}") for phase in ("ED", "ES"))
    ed_phase, es_phase = (
        _phase_of(_same(_load(file), frames, image)[:, 0], frames) if file else None
        for file in (ed_file, es_file)
    )
    if ed_file and ed_phase != 0:
        raise Excluded("its end-diastole is not the first phase")
    return 0, es_phase, count


def _phase_of(still: np.ndarray, frames: np.ndarray) -> int | None:
    """The phase whose frames a still repeats, to a thousandth of their range."""
    for t in range(frames.shape[1]):
        if np.abs(frames[:, t] - still).max() <= 1e-3 * np.ptp(still):
            return t
    return None


# -- names -----------------------------------------------------------------------------------------


def _beside(file: Path, stem: str) -> Path | None:
    """The file of that stem in the same folder, if there is one."""
    candidates = [file.with_name(stem + ending) for ending in ENDINGS]
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _key(file: Path) -> str:
    """The file's stem, or the folder's name for a file that is called `sa` in every folder."""
    return file.parent.name if _stem(file) in ("sa", "sa_ED") else _stem(file).removesuffix("_ED")


def _stem(file: Path) -> str:
    return re.sub(r"\.nii(\.gz)?$", "", file.name)
