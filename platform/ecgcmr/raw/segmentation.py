"""What a segmentation of a short-axis stack gives: labels by anatomy, the segmented phases, and
end-diastole and end-systole among them.

One idea: whoever drew it, it goes one way. Labels lie beside a stack (`sax_nifti`) or come from a
network that the user brings (`sax_network`); here they are known by anatomy, failed phases are left
out, and the ends of the cycle are found.
"""

from dataclasses import dataclass

import numpy as np

from ecgcmr.errors import Excluded
from ecgcmr.signals import cmr, phenotypes

OBLIQUE = 0.01  # of a unit vector, 0.6°, by which a short axis misses the patient's own axes


@dataclass(frozen=True)
class Segmentation:
    """`masks` and `masked` of a CmrRecord, the labels of the two ends of the cycle, and words."""

    masks: np.ndarray | None = None
    masked: tuple[int, ...] = ()
    ed: np.ndarray | None = None
    es: np.ndarray | None = None
    words: tuple[str, ...] = ()


def of_whole(masks: np.ndarray, phases: int) -> Segmentation:
    """From a segmentation of the cycle.

    A phase in which the cavity all but vanished, or that holds a multiple, is taken as not
    segmented.
    """
    if masks.shape[1] != phases:
        raise Excluded("another number of phases")
    masks, words = by_anatomy(masks)
    blood = (masks == cmr.BLOOD).sum((0, 2, 3))
    before, after = np.roll(blood, 1), np.roll(blood, -1)
    # Between two phases it neither halves nor doubles.
    is_between = np.minimum(before, after) >= cmr.LEAST_BLOOD
    is_failed = 2 * blood < np.minimum(before, after)
    is_failed |= is_between & (blood > 2 * np.maximum(before, after))
    masked = tuple(int(t) for t in np.flatnonzero((blood >= cmr.LEAST_BLOOD) & ~is_failed))
    masks = np.where(np.isin(np.arange(phases), masked)[:, None, None], masks, np.uint8(0))
    if is_failed.any():
        words = (*words, "phases with a failed segmentation left out")
    es, ed = cmr.end_systole(masks, masked), cmr.end_diastole(masks, masked)
    if ed is None and 0 in masked:
        ed = 0
    ed_mask = None if ed is None else masks[:, ed]
    es_mask = None if es is None else masks[:, es]
    return Segmentation(masks, masked, ed_mask, es_mask, words)


def of_ends(
    ed: np.ndarray,
    es: np.ndarray | None,
    phases: tuple[int, int | None, int],
    words: tuple[str, ...],
) -> Segmentation:
    """From segmentations of end-diastole and end-systole, laid to their phases.

    `phases`: of ED, of ES, in all.
    """
    at_ed, at_es, count = phases
    labels, order_words = by_anatomy(np.stack([ed] if es is None else [ed, es]))
    words = (*words, *order_words)
    ed, es = labels[0], None if es is None else labels[1]
    if es is not None and (es == cmr.BLOOD).sum() >= (ed == cmr.BLOOD).sum():
        raise Excluded("its end-systole holds as much as its end-diastole")
    masks = np.zeros((len(ed), count, *ed.shape[1:]), np.uint8)
    masks[:, at_ed] = ed
    if es is not None and at_es is not None:
        masks[:, at_es] = es
        return Segmentation(masks, tuple(sorted((at_ed, at_es))), ed, es, words)
    if es is not None:
        words = (*words, "phase of the segmented end-systole not known")
    return Segmentation(masks, (at_ed,), ed, es, words)


def by_anatomy(masks: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Masks with 1 for the left ventricle's cavity, 2 its muscle, 3 the right one, and words.

    Raises:
        Excluded: no label is enclosed by another.
    """
    order = phenotypes.label_order(masks)
    if order is None:
        raise Excluded("no label is enclosed by another, as the left ventricle is by its muscle")
    if order == (phenotypes.CAVITY, phenotypes.MUSCLE, phenotypes.RIGHT):
        return masks, ()
    table = np.zeros(4, np.uint8)
    table[list(order)] = phenotypes.CAVITY, phenotypes.MUSCLE, phenotypes.RIGHT
    numbers = ", ".join(map(str, order))
    return table[masks], (f"segmentation of another order: cavity, muscle, right are {numbers}",)


def is_oblique(directions: np.ndarray) -> bool:
    """Whether an image's directions, unit vectors in the patient, are measured: a header that was
    filled in has the axes of the patient, along which no short axis lies.
    """
    return bool(np.sort(np.abs(directions), axis=1)[:, :2].max() >= OBLIQUE)


def seen_from_apex(axes: np.ndarray | None) -> bool | None:
    """Whether images are known to be seen from the apex once they are displayed (`cmr.to_view`);
    None where the header does not say.

    Args:
        axes: of a CmrRecord.
    """
    if axes is None:
        return None
    directions = np.asarray(axes, np.float64)
    return True if is_oblique(np.array([*directions, np.cross(*directions)])) else None
