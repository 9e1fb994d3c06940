"""Since when somebody has a disease: by a visit, after it, or never."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Onset:
    """A disease by person.

    Attributes:
        has: 1 for ever, 0 for never, NaN where an entry may be of it and could not be read, or a
            source that counts knows nothing of the person.
        first: day of the first dated code.
        told_at: number of the first visit at which a person told it, NaN for none.
        unclear: whether an entry may be of it.
        end: day up to which the sources know, NaT where they have no end; by person where all of it
            is told at visits.
    """

    has: pd.Series
    first: pd.Series
    told_at: pd.Series
    unclear: pd.Series
    end: Any

    @property
    def is_told(self) -> bool:
        """Whether nothing but what people tell at visits counts."""
        return isinstance(self.end, pd.Series)

    def by(self, visit: str, days: pd.Series) -> pd.Series:
        """Whether a person has it by a visit of theirs."""
        earlier = (self.first <= days) | (
            self.told_at <= (int(visit) if visit.isdigit() else np.nan)
        )
        return (self.has == 1) & earlier

    def unknown(self, visit: str, days: pd.Series) -> pd.Series:
        """Whether nobody knows if a person had it by a visit."""
        has, by_visit = self.has == 1, self.by(visit, days)
        no_time = (has & self.first.isna()) | self.unclear
        return days.isna() | self.has.isna() | (no_time & ~by_visit)

    def at(self, visit: str, days: pd.Series) -> dict[str, pd.Series]:
        """Had by the visit (`_past`), and first after it (`_future`).

        Who has it by the visit cannot get it any more, so the future is unknown then, as it is
        without a visit, without a date of any of the codes, and for a visit at or after the end of
        the records. Who was last asked before the visit may have got it since.
        """
        unknown = self.unknown(visit, days)
        past = self.by(visit, days).astype(float).mask(unknown)
        if self.is_told:
            past = past.mask((past == 0) & ~(self.end >= days))
        future = ((self.has == 1) & (self.first > days)).astype(float)
        future = future.mask(unknown | (past == 1))
        if self.is_told or self.end == self.end:
            future = future.mask((future == 0) & ~(days < self.end))
        return {"_past": past, "_future": future}
