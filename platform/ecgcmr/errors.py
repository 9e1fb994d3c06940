"""What a user can put right: one line that names the file, the field, what is wrong and what to do.

The command line prints an `InputError` as it is and exits with 2. Everything else that escapes is a defect of ours.
"""


class InputError(ValueError):
    """Input that cannot be served; `str(error)` is one line, complete without a traceback."""


def unknown(what: str, got: object, known: object) -> InputError:
    """The error of a choice by name: says what was asked for and lists what exists."""
    listed = ", ".join(sorted(str(name) for name in known))  # type: ignore[attr-defined]
    return InputError(f"unknown {what} '{got}'; known: {listed}")


class Excluded(Exception):
    """A recording that cannot serve; `str(error)` is the reason, worded alike for all so that reasons can be counted."""
