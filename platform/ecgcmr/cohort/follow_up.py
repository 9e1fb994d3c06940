"""Which columns of a cohort are of follow-up: they are no labels, and no task learns them yet.

`<disease>_time_days` are days from the visit to an onset or to the end of follow-up,
`<disease>_event` is 1 for an onset and 0 for an end without one. Both are known or none.
"""

from collections.abc import Collection

TIME, EVENT = "_time_days", "_event"


def stems(names: Collection[str]) -> list[str]:
    """The diseases of which both columns are there."""
    times = [name.removesuffix(TIME) for name in names if name.endswith(TIME)]
    return [stem for stem in times if stem and stem + EVENT in names]


def columns(names: Collection[str]) -> list[str]:
    """The columns of follow-up among others; one without its partner is none."""
    return [stem + ending for stem in stems(names) for ending in (TIME, EVENT)]
