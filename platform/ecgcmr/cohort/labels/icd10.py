"""ICD-10: which codes make a disease, and when it began. No tables here; `merge` reads them.

Codes are compared without dots and by prefix, so that I25 has I251 and what finer classifications
make of it (I2510). A list of all four-character codes, as it stands in the authors' notebook, is
how a missing comma turned I24.9 and I25.0 into one code that nobody has, and how I23 was forgotten;
a range of three-character codes can do neither.
"""

import re
from dataclasses import dataclass
from datetime import date

from ecgcmr.errors import InputError

CODE = re.compile(r"[A-Z][0-9][0-9A-Z][0-9A-Z]{0,4}")

# UK Biobank's stand-ins where a date is missing, before birth or in the future (its data-coding
# 819).
NO_DATES = tuple(
    date.fromisoformat(day)
    for day in ("1900-01-01", "1901-01-01", "1902-02-02", "1903-03-03", "1909-09-09", "2037-07-07")
)


@dataclass(frozen=True)
class Disease:
    """A label column and the codes that make it.

    Attributes:
        name: of the column; `<name>_past` and `<name>_future` go with it.
        words: prefixes and ranges of prefixes, as they were asked for, e.g. "I20-I25", "I11.0".
        from_user: whether a person typed them, who may have mistyped.
    """

    name: str
    words: tuple[str, ...]
    from_user: bool = True

    @property
    def prefixes(self) -> dict[str, str]:
        """Prefix without dot -> the word that it came from."""
        return {prefix: word for word in self.words for prefix in expand(word)}


# Turgut et al., section IV-B.
PAPER = (
    Disease("cad", ("I20-I25",), from_user=False),
    Disease("af", ("I48",), from_user=False),
    Disease("dm", ("E10-E14",), from_user=False),
)


def disease(text: str) -> Disease:
    """Read `hf=I50,I11.0,I42-I43`.

    Raises:
        InputError: there is no name, or a word is no code and no range of codes.
    """
    name, equals, codes = text.partition("=")
    name = name.strip().lower()
    if (
        not equals
        or not re.fullmatch(r"[a-z][a-z0-9_]*", name)
        or name.endswith(("_past", "_future"))
    ):
        raise InputError(
            f"--disease {text}: write NAME=CODES, e.g. hf=I50,I11.0,I42-I43; "
            "a name has a-z, 0-9 and _"
        )
    words = tuple(word.strip() for word in codes.split(",") if word.strip())
    if not words:
        raise InputError(f"--disease {text}: no codes after '='")
    for word in words:
        expand(word)
    return Disease(name, words)


def expand(word: str) -> tuple[str, ...]:
    """The prefixes of a code or of a range: `I20-I22` is I20, I21 and I22.

    Raises:
        InputError: it is neither.
    """
    first, *rest = (clean(end) for end in re.split(r"[-–]", word))
    last = rest[0] if rest else first
    if first is None or last is None or len(rest) > 1:
        raise InputError(
            f"'{word}' is no ICD-10 code such as I48 or I25.1 and no range such as I20-I25"
        )
    if first == last:
        return (first,)
    if (
        first[0] != last[0]
        or len(first) != len(last)
        or not (first[1:] + last[1:]).isdigit()
        or first > last
    ):
        raise InputError(
            f"'{word}' is no range: "
            "write both ends with one letter and as many digits, e.g. I20-I25"
        )
    letter, digits = first[0], len(first) - 1
    numbers = range(int(first[1:]), int(last[1:]) + 1)
    return tuple(f"{letter}{number:0{digits}d}" for number in numbers)


def clean(text: str) -> str | None:
    """The code without dot, in capitals.

    A meaning behind it is dropped (`I25.1 Atherosclerotic …`). None if it is none.
    """
    word, _, _ = text.strip().partition(" ")
    code = word.replace(".", "", 1).upper()
    return code if CODE.fullmatch(code) else None


def dotted(code: str) -> str:
    """`I251` as people write it, I25.1."""
    return f"{code[:3]}.{code[3:]}" if len(code) > 3 else code
