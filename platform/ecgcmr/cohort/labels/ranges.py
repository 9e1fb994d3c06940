"""Codes and ranges of codes as people write them in a definition: `I25.1`, `I20-I25`."""

import re
from collections.abc import Callable

from ecgcmr.errors import InputError


def expand(
    word: str, clean: Callable[[str], str | None], title: str, examples: tuple[str, str]
) -> tuple[str, ...]:
    """The prefixes of a code or of a range: `I20-I22` is I20, I21 and I22.

    Args:
        word: what was written.
        clean: a code without its dot, None for what is none.
        title: of the classification.
        examples: two codes of it, one range.

    Raises:
        InputError: it is neither.
    """
    codes, example = examples
    first, *rest = (clean(end) for end in re.split(r"[-–]", word))
    last = rest[0] if rest else first
    if first is None or last is None or len(rest) > 1:
        raise InputError(
            f"'{word}' is no {title} code such as {codes} and no range such as {example}"
        )
    if first == last:
        return (first,)
    pattern = re.compile(r"([A-Z]?)(\d+)")
    ends = [pattern.fullmatch(code) for code in (first, last)]
    if (
        ends[0] is None
        or ends[1] is None
        or ends[0][1] != ends[1][1]
        or len(first) != len(last)
        or first > last
    ):
        kind = "one letter and as many digits" if first[0].isalpha() else "as many digits"
        raise InputError(f"'{word}' is no range: write both ends with {kind}, e.g. {example}")
    letter, width = ends[0][1], len(ends[0][2])
    numbers = range(int(ends[0][2]), int(ends[1][2]) + 1)
    return tuple(f"{letter}{number:0{width}d}" for number in numbers)
