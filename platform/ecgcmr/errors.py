"""What a user can put right: one line that names the file, the field, what is wrong and what to do.

The command line prints an `InputError` as it is and exits with 2. Everything else that escapes is a
defect of ours.
"""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any


class InputError(ValueError):
    """Input that cannot be served; `str(error)` is one line, complete without a traceback."""


def unknown(what: str, got: object, known: object) -> InputError:
    """The error of a choice by name: says what was asked for and lists what exists."""
    listed = ", ".join(sorted(str(name) for name in known))  # type: ignore[attr-defined]
    return InputError(f"unknown {what} '{got}'; known: {listed}")


def near(word: str, words: Iterable[str]) -> str:
    """`; did you mean 'X'?`, or nothing where no word is near."""
    closest = difflib.get_close_matches(word, list(words), n=1)
    return f"; did you mean '{closest[0]}'?" if closest else ""


def differing(
    old: Mapping[str, Any], new: Mapping[str, Any], among: Iterable[str] | None = None
) -> str:
    """`lr 0.1 → 0.2; seed 0 → 1`: the fields in which two records differ, by name; "" if they
    agree.

    Args:
        old, new: the records.
        among: the fields that count; by default all of either.
    """
    names = sorted({*old, *new} if among is None else among)
    return "; ".join(
        f"{name} {old.get(name)} → {new.get(name)}"
        for name in names
        if old.get(name) != new.get(name)
    )


class Excluded(Exception):
    """A recording that cannot serve; `str(error)` is the reason, worded alike for all so that
    reasons can be counted.
    """
