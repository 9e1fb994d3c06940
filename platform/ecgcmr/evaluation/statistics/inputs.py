"""What statistics are given, checked; the errors name the label and what to do."""

import numpy as np
from numpy.typing import ArrayLike

from ecgcmr.errors import InputError


def one_label(labels: ArrayLike, name: str) -> np.ndarray:
    """Labels as float64 (n,), 0 or 1 each."""
    classes = np.asarray(labels, float)
    if classes.ndim != 1 or not np.isin(classes, (0, 1)).all():
        raise InputError(
            f"label '{name}' {classes.shape}: must be one row of 0 and 1; "
            "leave out subjects without a label"
        )
    return classes


def two_classes(labels: ArrayLike, name: str) -> np.ndarray:
    """The same, refused if only one class is there."""
    classes = one_label(labels, name)
    if not classes.any() or classes.all():
        only = 1 if len(classes) and classes.all() else 0
        raise InputError(
            f"label '{name}': all {len(classes)} rows are {only}; "
            "its statistics need both classes, take a larger cohort"
        )
    return classes


def scored(scores: ArrayLike, labels: ArrayLike, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Scores as float64 (m, n), and which rows are positive."""
    positive, member_scores = two_classes(labels, name) == 1, np.asarray(scores, float)
    if member_scores.ndim != 2 or member_scores.shape[1] != len(positive):
        raise InputError(
            f"scores {member_scores.shape}: must be (members, {len(positive)}), "
            f"as label '{name}' has rows"
        )
    return member_scores, positive


def probabilities(probability: ArrayLike) -> np.ndarray:
    """Probabilities as float64, refused beyond [0, 1]."""
    chance = np.asarray(probability, float)
    if ((chance < 0) | (chance > 1)).any():
        raise InputError("probability: some lie outside [0, 1]; give probabilities, not logits")
    return chance


def same_length(chance: np.ndarray, labels: np.ndarray, name: str) -> None:
    """Refuse probabilities and labels of different rows."""
    if chance.shape != labels.shape:
        raise InputError(
            f"probability {chance.shape}: must be ({len(labels)},), as label '{name}' has rows"
        )
