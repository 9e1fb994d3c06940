"""Short-axis cine stacks as 4-D NIfTI (X, Y, Z, T), as ukbb_cardiac and most converters write them.

The array is turned back to the scanner's view (rows = Y, columns = X) and the slices are ordered from base to apex by the
affine. A segmentation that lies beside the stack is read with it: `seg_sa.nii.gz`, or `seg_sa_ED` and `seg_sa_ES`; where
only the frames `sa_ED` and `sa_ES` were kept, these two are the stack. One that does not fit is left out, with a word.
Only geometry and timing are read from the header.
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
# The apex points to the left, to the front and down: NIfTI's axes run right → left −, back → front +, feet → head +.
APEX_RAS = np.array([-1.0, 1.0, -1.0])
UNITS_MS = {8: 1e3, 16: 1.0, 24: 1e-3}  # bits 3 to 5 of `xyzt_units`: s, ms, µs
LEFT_OUT = "segmentation left out: "

logging.getLogger("nibabel.global").setLevel(
    logging.CRITICAL
)  # it reports what it sets right in a header


@dataclass(frozen=True)
class Drawn:
    """What the segmentation beside a stack gives: `masks` and `masked` of a CmrRecord, the two phases, and words."""

    masks: np.ndarray | None = None
    masked: tuple[int, ...] = ()
    ed: np.ndarray | None = None
    es: np.ndarray | None = None
    words: tuple[str, ...] = ()


def find(path: str) -> list[str]:
    """List the stacks under a folder, or the one file named.

    A folder in ukbb_cardiac's layout (`<person>/sa.nii.gz` beside long axes and segmentations) yields its `sa` files only,
    or `sa_ED` where there is no `sa`.

    Raises:
        InputError: the path does not exist or holds no NIfTI file.
    """
    root = Path(path)
    if root.is_file():
        return [str(root)]
    files = sorted(file for file in root.rglob("*") if file.name.endswith(ENDINGS))
    named = [f for f in files if _stem(f) == "sa" or (_stem(f) == "sa_ED" and not _beside(f, "sa"))]
    files = named or [file for file in files if not _stem(file).startswith("seg_")]
    if not files:
        raise InputError(
            f"{path}: no NIfTI file (*.nii, *.nii.gz) here; name a stack or the folder that holds them"
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
    if frames.shape[1] == 1 and stem.endswith("_ED") and (other := _beside(path, stem[:-2] + "ES")):
        frames, stem, es = (
            np.concatenate([frames, _same(_load(other), frames, image)], axis=1),
            stem[:-3],
            1,
        )
    if frames.shape[1] < 2:
        raise Excluded("not a cine: no time axis")
    zooms = image.header.get_zooms()
    spacing = (float(zooms[2]), float(zooms[1]), float(zooms[0]))
    trigger, timed = (None, ()) if es else _trigger(image)
    drawn = _drawn(path, stem, frames, image)
    flip, from_apex, turned = _orientation(image)
    order = slice(None, None, -1 if flip else 1)
    person, visit = biobank(_key(path))
    return CmrRecord(
        key=_key(path),
        frames=np.ascontiguousarray(frames[order]),
        spacing_mm=spacing,
        trigger_ms=trigger,
        repairs=(*turned, *timed, *drawn.words),
        person=person,
        visit=visit,
        masks=None if drawn.masks is None else np.ascontiguousarray(drawn.masks[order]),
        masked=drawn.masked,
        es=es,
        labels={}
        if drawn.ed is None
        else phenotypes.measure(
            drawn.ed[order],
            None if drawn.es is None else drawn.es[order],
            spacing,
            heart_rate=phenotypes.heart_rate(trigger),
            from_apex=from_apex,
        ),
    )


def _load(path: Path) -> tuple[np.ndarray, Any]:
    """(slices, phases, height, width), one phase for a 3-D file, and the image with its header."""
    try:
        length = _length(path)
        image: Any = nibabel.load(path)  # nibabel types only the base of its formats
        if not isinstance(
            image, nibabel.Nifti1Pair
        ):  # of which NIfTI-2 is one; nibabel reads many formats
            raise Excluded("unreadable NIfTI")
        shape = image.shape
        if len(shape) not in (3, 4) or min(shape) < 1:
            raise Excluded("not a cine: no time axis")
        if np.prod(shape, dtype=np.int64) > VOXEL_LIMIT:
            raise Excluded("too large for a cine stack")
        stored: Any = image.dataobj
        # Bytes too many or too few: something before the pixels' end was inserted or lost, and has shifted them.
        if stored.offset + np.prod(shape, dtype=np.int64) * stored.dtype.itemsize != length:
            raise Excluded("unreadable NIfTI")
        if stored.slope <= 0 or not _agree(image):
            raise Excluded("unreadable NIfTI")
        values = np.asarray(stored).reshape((*shape, 1)[:4])
        if values.dtype.kind not in "iuf" or not np.isfinite(image.affine).all():
            raise Excluded("unreadable NIfTI")
        return values.transpose(2, 3, 1, 0), image
    except Excluded:
        raise
    except Exception as error:  # nibabel lets gzip, zlib, struct and its own errors through
        raise Excluded("unreadable NIfTI") from error


def _agree(image: Any) -> bool:
    """Whether the header states one size of voxels, where it states it twice; nibabel puts 1 mm for a size of 0."""
    sizes = np.linalg.norm(image.affine[:3, :3], axis=0)
    return not image.header["sform_code"] or np.allclose(
        sizes, image.header.get_zooms()[:3], rtol=0.05
    )


def _length(path: Path) -> int:
    """Bytes of the file, unpacked; a compressed one is read to its end, where its checksum is: nibabel stops before.

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


def _same(other: tuple[np.ndarray, Any], frames: np.ndarray, image: Any) -> np.ndarray:
    """The array of another file that must lie where `image` lies.

    Raises:
        Excluded: it has another size or place.
    """
    values, found = other
    if values.shape[0] != frames.shape[0] or values.shape[2:] != frames.shape[2:]:
        raise Excluded("files of another size beside the stack")
    if not np.allclose(found.affine, image.affine, rtol=1e-3, atol=0.05):
        raise Excluded("files of another place beside the stack")
    return values


# -- geometry and time -------------------------------------------------------------------------------------------------


def _orientation(image: Any) -> tuple[bool, bool | None, tuple[str, ...]]:
    """Whether slices have to be reversed to run from base to apex, whether the apex is the viewer's side, and words."""
    if not (image.header["sform_code"] or image.header["qform_code"]):
        return False, None, ("no orientation in the header: slices in the order of the file",)
    across, down, along = image.affine[:3, :3].T
    flip = bool(along @ APEX_RAS < 0)
    # Rows and columns are looked at along across × down; who looks from the apex looks against base → apex.
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


# -- segmentation ------------------------------------------------------------------------------------------------------


def _drawn(path: Path, stem: str, frames: np.ndarray, image: Any) -> Drawn:
    """The segmentation beside a stack, in the order of its file; empty if there is none or it does not fit."""
    whole = _beside(path, f"seg_{stem}")
    at_ed, at_es = (_beside(path, f"seg_{stem}_{phase}") for phase in ("ED", "ES"))
    try:
        if whole and not _stem(path).endswith("_ED"):
            return _of_whole(_labels(whole, frames, image), frames.shape[1])
        if at_ed:
            es = _labels(at_es, frames, image)[:, 0] if at_es else None
            return _of_ends(
                _labels(at_ed, frames, image)[:, 0], es, _phases(path, stem, frames, image)
            )
        return Drawn()
    except Excluded as error:
        return Drawn(words=(f"{LEFT_OUT}{error}",))


def _labels(file: Path, frames: np.ndarray, image: Any) -> np.ndarray:
    """(slices, phases, height, width) uint8.

    Raises:
        Excluded: unreadable, of another size or place, or with other labels than 0 … 3.
    """
    values = _same(_load(file), frames, image)
    labels = np.where(np.isin(values, (1, 2, 3)), values, 0).astype(np.uint8)
    if not np.array_equal(labels, values):
        raise Excluded("labels other than 0 to 3")
    return labels


def _of_whole(masks: np.ndarray, phases: int) -> Drawn:
    """From a segmentation of the cycle; a phase in which the cavity all but vanished is taken as not segmented."""
    if masks.shape[1] != phases:
        raise Excluded("another number of phases")
    blood = (masks == cmr.BLOOD).sum((0, 2, 3))
    failed = 2 * blood < np.minimum(
        np.roll(blood, 1), np.roll(blood, -1)
    )  # between two phases it does not halve
    masked = tuple(int(t) for t in np.flatnonzero((blood >= cmr.LEAST_BLOOD) & ~failed))
    masks = np.where(np.isin(np.arange(phases), masked)[:, None, None], masks, np.uint8(0))
    es = cmr.end_systole(masks, masked)
    words = ("phases with a failed segmentation left out",) if failed.any() else ()
    return Drawn(
        masks,
        masked,
        masks[:, 0] if 0 in masked else None,
        None if es is None else masks[:, es],
        words,
    )


def _of_ends(ed: np.ndarray, es: np.ndarray | None, phases: tuple[int, int | None, int]) -> Drawn:
    """From segmentations of end-diastole and end-systole, laid to their phases; `phases`: of ED, of ES, in all."""
    at_ed, at_es, count = phases
    masks = np.zeros((len(ed), count, *ed.shape[1:]), np.uint8)
    masks[:, at_ed] = ed
    if es is not None and at_es is not None:
        masks[:, at_es] = es
        return Drawn(masks, (at_ed, at_es), ed, es)
    words = ("phase of the segmented end-systole not known",) if es is not None else ()
    return Drawn(masks, (at_ed,), ed, es, words)


def _phases(path: Path, stem: str, frames: np.ndarray, image: Any) -> tuple[int, int | None, int]:
    """The phases of ED and ES, by the frames `_ED` and `_ES` beside a 4-D stack, and how many there are."""
    count = frames.shape[1]
    if _stem(path).endswith("_ED"):
        return 0, 1, count
    found = [_beside(path, f"{stem}_{phase}") for phase in ("ED", "ES")]
    at = [
        _phase_of(_same(_load(file), frames, image)[:, 0], frames) if file else None
        for file in found
    ]
    if found[0] and at[0] != 0:
        raise Excluded("its end-diastole is not the first phase")
    return 0, at[1], count


def _phase_of(still: np.ndarray, frames: np.ndarray) -> int | None:
    """The phase whose frames a still repeats, to a thousandth of their range."""
    for t in range(frames.shape[1]):
        if np.abs(frames[:, t] - still).max() <= 1e-3 * np.ptp(still):
            return t
    return None


# -- names -------------------------------------------------------------------------------------------------------------


def _beside(file: Path, stem: str) -> Path | None:
    """The file of that stem in the same folder, if there is one."""
    return next((found for end in ENDINGS if (found := file.with_name(stem + end)).is_file()), None)


def _key(file: Path) -> str:
    """The file's stem, or the folder's name for a file that is called `sa` in every folder."""
    return file.parent.name if _stem(file) in ("sa", "sa_ED") else _stem(file).removesuffix("_ED")


def _stem(file: Path) -> str:
    return re.sub(r"\.nii(\.gz)?$", "", file.name)
