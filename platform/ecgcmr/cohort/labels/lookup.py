"""What the labels files say of a person at a visit, or of a recording."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ecgcmr.cohort.labels.numbers import ALWAYS, UNSTATED

ANY = UNSTATED  # of `Labels.by_visit`: what a recording has whose visit nobody stated


@dataclass(frozen=True)
class Labels:
    """What the labels files say: numbers by ECG, by CMR or by person, who belongs to whom, and how
    it was counted.

    `by_person` is of the visit that was asked for, `by_visit` of each that something is stated for,
    and at "" whatever the visit. `keys` are those of each file, by unit.
    """

    by_ecg: Mapping[str, Mapping[str, float]] | None = None
    by_cmr: Mapping[str, Mapping[str, float]] | None = None
    by_person: Mapping[str, Mapping[str, float]] | None = None
    by_visit: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)
    visit: str = "2"
    person_of_ecg: Mapping[str, str] | None = None
    person_of_cmr: Mapping[str, str] | None = None
    ecg_of_cmr: Mapping[str, str] | None = None
    keys: Mapping[str, Sequence[Mapping[str, np.ndarray]]] = field(default_factory=dict)
    audit: Mapping[str, Any] = field(default_factory=dict)

    @property
    def columns(self) -> set[str]:
        """Every column of which somebody has a number."""
        return {name for unit in self.audit.get("columns", {}).values() for name in unit["columns"]}

    def of_person(self, person: str, visit: str | None, *, is_sole: bool) -> Mapping[str, float]:
        """The numbers of a person at a visit.

        Args:
            person: their name.
            visit: of the recordings, None where they state none.
            is_sole: no other recordings of the person may be of the visit that was asked for; of
                several nobody knows which are.
        """
        if self.by_person is None:
            return {}
        if visit == self.visit or (visit is None and is_sole) or not self.by_visit:
            return self.by_person.get(person, {})
        name = ANY if visit is None else visit
        return self.by_visit.get(name, self.by_visit[ALWAYS]).get(person, {})
