"""ICD-10: what an entry of a column of codes says, and what a word of a definition means.

Codes are compared without dots and by prefix, so that I25 has I251 and what finer classifications
make of it (I2510). A list of all four-character codes, as it stands in the authors' notebook, is
how a missing comma turned I24.9 and I25.0 into one code that nobody has, and how I23 was forgotten;
a range of three-character codes can do neither.
"""

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

from ecgcmr.cohort import identifiers
from ecgcmr.cohort.labels import ranges

# The third sign is a digit, or A or B in the American C7A, M1A and Z3A.
CODE = re.compile(r"[A-Z][0-9][0-9AB][0-9A-Z]{0,4}")
# What may be the beginning of a code, within other text.
CODE_LIKE = re.compile(r"(?<![A-Z0-9])[A-Z][0-9][0-9]?")
RANGE = re.compile(r"(?<![A-Z0-9])([A-Z][0-9][0-9]?)[0-9.]*\s*[-–—]\s*([A-Z][0-9][0-9]?)")
VOCABULARY = re.compile(
    r"ICD[\s_-]*(?:10)?(?:[\s_-]*(?:AM|CA|CM|GM|UK|WHO))?(?:[\s_-]*20\d\d)?[\s:=/#_-]+(?=[A-Z]\d)"
    r"|[^\s:#=]*[:#=]\s*(?=[A-Z]\d)"
)
SEPARATORS = re.compile(r"[\s|;,/&]+")
# Dagger, asterisk and exclamation mark are ICD-10's own; the rest are notes.
MARKS = "†‡*!+°^~$#:"
BLANKS = {"", "NONE", "<NA>", "NAT", "NAN", "NA", "NULL"}


def expand(word: str) -> tuple[str, ...]:
    """The prefixes of a code or of a range: `I20-I22` is I20, I21 and I22.

    Raises:
        InputError: it is neither.
    """
    return ranges.expand(word, clean, "ICD-10", ("I48 or I25.1", "I20-I25"))


def clean(text: str) -> str | None:
    """The code without dot, in capitals.

    A meaning behind it is dropped (`I25.1 Atherosclerotic …`). None if it is none.
    """
    word, _, _ = text.strip().partition(" ")
    code = word.replace(".", "", 1).upper()
    return code if CODE.fullmatch(code) else None


@dataclass(frozen=True)
class Reading:
    """What an entry of a column of codes says.

    Attributes:
        codes: without dots, in capitals.
        stems: beginnings of what else it may mean, "" for anything; nothing where all was read.
    """

    codes: tuple[str, ...] = ()
    stems: tuple[str, ...] = ()


@lru_cache(maxsize=200_000)
def read(text: str) -> Reading:
    """Read an entry: a code, several, or a code with its meaning; in any dress that is no doubt.

    `I25.1†`, `I25,1`, `I48.-` and `ICD10:I48` are codes, `I10;I251` are two, `I2?1` and `yes` are
    none: whoever has such an entry is not known to be without a disease whose codes begin so.
    """
    word = identifiers.bare(unicodedata.normalize("NFKC", text)).upper()
    if word in BLANKS or not word.strip("-–—."):
        return Reading()
    if plain := clean(word if "," not in word and " " not in word else ""):
        return Reading((plain,))
    word = re.sub(r"(?<=\d),(?=\d{1,2}(?!\d))", ".", word)  # a decimal comma
    word = VOCABULARY.sub(lambda match: "" if not CODE_LIKE.search(match[0]) else match[0], word)
    pieces = [undressed(piece) for piece in SEPARATORS.split(word)]
    pieces = [piece for piece in pieces if piece]
    codes = [code for code in map(clean, pieces) if code]
    if codes and len(codes) == len(pieces):
        return Reading(tuple(codes))
    return _with_meaning(word) or Reading(stems=_stems(word))


def _with_meaning(word: str) -> Reading | None:
    """`I21.9 ACUTE MYOCARDIAL INFARCTION, UNSPECIFIED`; None if it is no code before words."""
    head, _, rest = word.partition(" ")
    code = clean(undressed(head.rstrip(",;-–")))
    rest = re.sub(r"\(.*?\)|\[.*?\]", "", rest)
    if code is None or not re.search(r"[^\W\d_]{3}", rest):
        return None
    return Reading((code,), _stems(rest) if CODE_LIKE.search(rest) else ())


def undressed(piece: str) -> str:
    """A code without marks, and without the `.-` that says "not specified"."""
    piece = piece.strip(identifiers.QUOTES + "[](){}").strip(MARKS)
    return re.sub(r"[.\-–—]+$", "", piece).strip(MARKS)


def _stems(word: str) -> tuple[str, ...]:
    """The beginnings of codes in a text; of a range what both ends have in common."""
    ranges = RANGE.findall(word)
    common = [shared(first, last) for first, last in ranges]
    return tuple(dict.fromkeys([*common, *CODE_LIKE.findall(word)])) or ("",)


def shared(first: str, last: str) -> str:
    """What two codes have in common from their beginning on."""
    same = [a == b for a, b in zip(first, last)]
    return first[: same.index(False)] if False in same else first


def could_be(stem: str, prefixes: tuple[str, ...]) -> bool:
    """Whether a code that begins with `stem` may be one of those that begin with `prefixes`."""
    return any(prefix.startswith(stem) or stem.startswith(prefix) for prefix in prefixes)


def dotted(code: str) -> str:
    """`I251` as people write it, I25.1."""
    return f"{code[:3]}.{code[3:]}" if len(code) > 3 else code
