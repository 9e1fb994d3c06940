"""The vocabularies beside ICD-10: ICD-9, OPCS-4, and codes that are numbers.

As of ICD-10, an entry that is no code is not nothing: whoever has it is not known to be without
what it may mean.
"""

import re
import unicodedata

from ecgcmr.cohort import identifiers
from ecgcmr.cohort.labels import icd10, ranges
from ecgcmr.cohort.labels.icd10 import BLANKS, SEPARATORS, Reading
from ecgcmr.errors import InputError

ICD9 = re.compile(r"\d{3}[0-9X]{0,2}|V\d{2}[0-9X]{0,2}|E\d{3}[0-9X]{0,2}")
ICD9_LIKE = re.compile(r"(?<![A-Z0-9])(?:\d{2,3}|[VE]\d{1,3})")
ICD9_RANGE = re.compile(r"(?<![A-Z0-9])([VE]?\d{2,3})[0-9.]*\s*[-–—]\s*([VE]?\d{2,3})")
ICD9_NAME = re.compile(r"^ICD[\s_-]*9(?:[\s_-]*CM)?[\s:=/#_-]+")
OPCS4 = re.compile(r"[A-Z]\d{2}\d?")


def icd9_clean(text: str) -> str | None:
    """An ICD-9 code without its dot, in capitals; None if it is none."""
    word, _, _ = text.strip().partition(" ")
    code = word.replace(".", "", 1).upper()
    return code if ICD9.fullmatch(code) else None


def icd9_expand(word: str) -> tuple[str, ...]:
    """The prefixes of an ICD-9 code or range.

    Raises:
        InputError: it is neither.
    """
    return ranges.expand(word, icd9_clean, "ICD-9", ("410 or 427.3", "410-414"))


def icd9_read(text: str) -> Reading:
    """Read an entry: a code, several, or a code with its meaning; `4109.0` is a number's 4109."""
    word = identifiers.bare(unicodedata.normalize("NFKC", text)).upper()
    if word in BLANKS or not word.strip("-–—."):
        return Reading()
    word = ICD9_NAME.sub("", re.sub(r"^(\d{4,5})\.0+$", r"\1", word))
    word = re.sub(r"(?<=\d),(?=\d{1,2}(?!\d))", ".", word)  # a decimal comma
    pieces = [icd10.undressed(piece) for piece in SEPARATORS.split(word)]
    pieces = [piece for piece in pieces if piece]
    codes = [code for code in map(icd9_clean, pieces) if code]
    if codes and len(codes) == len(pieces):
        return Reading(tuple(codes))
    head, _, rest = word.partition(" ")
    code = icd9_clean(icd10.undressed(head.rstrip(",;-–")))
    if code and re.search(r"[^\W\d_]{3}", rest):
        return Reading((code,), tuple(ICD9_LIKE.findall(rest)))
    common = [icd10.shared(first, last) for first, last in ICD9_RANGE.findall(word)]
    # A number of less than three digits may have lost its zeros, and mean anything.
    likes = [] if re.fullmatch(r"\d{1,2}", word) else ICD9_LIKE.findall(word)
    return Reading(stems=tuple(dict.fromkeys([*common, *likes])) or ("",))


def opcs4_clean(text: str) -> str | None:
    """An OPCS-4 code without its dot, in capitals; None if it is none."""
    code = text.strip().replace(".", "", 1).upper()
    return code if OPCS4.fullmatch(code) else None


def opcs4_expand(word: str) -> tuple[str, ...]:
    """The prefixes of an OPCS-4 code or range.

    Raises:
        InputError: it is neither.
    """
    return ranges.expand(word, opcs4_clean, "OPCS-4", ("K40 or K49.1", "K40-K46"))


def number_expand(word: str) -> tuple[str, ...]:
    """The one code of a number.

    Raises:
        InputError: it is none.
    """
    if not re.fullmatch(r"[1-9]\d{0,11}", word):
        raise InputError(f"'{word}' is no code: UK Biobank numbers them, e.g. 1074")
    return (word,)


def number_read(text: str) -> Reading:
    """Read an entry of numbered codes: one or several; words are of unknown meaning.

    Numbers below 0 say that somebody did not know or would not answer.
    """
    word = identifiers.bare(unicodedata.normalize("NFKC", text)).upper().strip("[](){}")
    if word in BLANKS or not word.strip("-–—."):
        return Reading()
    pieces = [piece.strip(identifiers.QUOTES) for piece in SEPARATORS.split(word)]
    numbers = [re.fullmatch(r"(\d+)(?:\.0*)?", piece) for piece in pieces if piece]
    if numbers and all(numbers):
        return Reading(tuple(str(int(match[1])) for match in numbers if match))
    return Reading(stems=("",))
