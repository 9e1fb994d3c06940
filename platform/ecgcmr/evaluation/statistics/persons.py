"""The unit of analysis: the person. Rows are visits, and those of one person are no independent
evidence.

This is the one place where it is decided whose a row is; whoever states an interval asks here. In
all of it `people` is (n,), the person of each row by any name, and None says that every row is
another person's: what then comes out is what the textbooks say of independent rows.
"""

import numpy as np
from numpy.typing import ArrayLike

from ecgcmr.errors import InputError


def of_rows(people: ArrayLike | None, n: int) -> np.ndarray:
    """The person of each of n rows, numbered from 0, (n,).

    Raises:
        InputError: not one for each row.
    """
    if people is None:
        return np.arange(n)
    names = np.asarray(people)
    if names.shape != (n,):
        raise InputError(f"people {names.shape}: give the person of each of the {n} rows")
    return np.unique(names, return_inverse=True)[1]


def count(person: np.ndarray) -> int:
    """How many people they are."""
    return int(person.max()) + 1 if len(person) else 0


def sums(values: np.ndarray, person: np.ndarray) -> np.ndarray:
    """Sums over each person's rows: (…, n) -> (…, people)."""
    order = np.argsort(person, kind="stable")
    starts = np.flatnonzero(np.diff(person[order], prepend=-1))
    return np.add.reduceat(values[..., order], starts, axis=-1)


def design_effect(values: np.ndarray, person: np.ndarray) -> np.ndarray:
    """How much more a sum over rows varies than that of as many independent rows: (k, n) -> (k, k).

        R⁻¹ B R⁻ᵀ,   B = Σ over people of (Σ v) (Σ v)ᵀ,   R Rᵀ = Σ over rows of v vᵀ

    The identity of one row a person, k times it of the same rows k times. What lies below is taken
    as 1: visits of one person never count for more than those of as many people.

    Source: Skinner 1989, in Analysis of Complex Surveys, chapter 2, with people for clusters.
    """
    if count(person) == values.shape[-1]:
        return np.eye(len(values))
    by_person = np.linalg.solve(np.linalg.cholesky(values @ values.T), sums(values, person))
    size, direction = np.linalg.eigh(by_person @ by_person.T)
    return (direction * np.maximum(size, 1)) @ direction.T
