"""Claims about methods: the seeds of a system are drawn as well as the people that judge it.

A system is trained a few times. What another training would give is seen in how its members differ
beyond what the people drawn explain: two members are never judged alike by a finite test set.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from ecgcmr.errors import InputError
from ecgcmr.evaluation.statistics import effects
from ecgcmr.evaluation.statistics.effects import Effect

# Weights of members (m,) -> the variance of their weighted sum when other people are drawn, and its
# degrees of freedom.
PeopleVariance = Callable[[np.ndarray], tuple[float, float]]


def systems_of(systems: ArrayLike, m: int) -> np.ndarray:
    """The system of each of m members, (m,).

    Raises:
        InputError: not one for each member.
    """
    names = np.asarray(systems)
    if names.shape != (m,):
        raise InputError(f"systems {names.shape}: give the system of each of the {m} members")
    return names


def contrast(
    values: np.ndarray, weights: np.ndarray, systems: np.ndarray, people_variance: PeopleVariance
) -> Effect:
    """Σ w_i value_i as a statement about systems: other people and other seeds.

        V = V_people(w) + Σ over systems of (Σ w_i²) max(0, s² − e)

    s² is the variance of a system's values over its seeds, e what of it the people drawn explain:
    the mean over seeds i of V_people(value_i − mean), in the same degrees of freedom. A system of
    one seed shows nothing of others: it is taken as it is.

    Args:
        values: (m,) a metric of each member.
        weights: (m,), within a system all alike.
        systems: (m,) of which system a member is a seed.
        people_variance: of any weighted sum of the members.

    Returns:
        Value, Student's interval and p, with the degrees of freedom that V_people(w) and every s²
        leave to V. An interval of no width where nothing varies.

    Source: Obuchowski & Rockette 1995, doi:10.1080/03610919508813243, with readers for seeds; the
        degrees of freedom: Hillis 2007, doi:10.1002/sim.2532.
    """
    variance, freedom = people_variance(weights)
    uncertain, freedoms = [variance], [freedom]
    for system in np.unique(systems):
        members = np.flatnonzero(systems == system)
        k = len(members)
        if k < 2:
            continue
        deviations = np.zeros((k, len(values)))
        deviations[:, members] = np.eye(k) - 1 / k
        by_people = sum(people_variance(row)[0] for row in deviations) / (k - 1)
        share = float((weights[members] ** 2).sum())
        spread = float(values[members].var(ddof=1))
        variance += share * max(0.0, spread - by_people)
        uncertain.append(share * spread)
        freedoms.append(k - 1)
    return effects.of_error(
        float(weights @ values),
        effects.error_of(variance),
        freedom=effects.satterthwaite(variance, uncertain, freedoms),
    )
