"""UK Biobank's first occurrences: a field with a date for each three-character code of ICD-10.

A field's title says its code: 131306 is "Date I25 first reported (chronic ischaemic heart
disease)", 131307 where that came from. The fields follow the codes two by two. What is known here
is the two stretches of which published scripts name fields at both ends and between, all where the
rule puts them: 130706 (E10) to 131042 (G35), with 130792 E66, 130814 E78, 130842 F03, 130894 F32
and 131036 G30; and 131286 (I10) to 132032 (N18), with 131298 I21, 131306 I25, 131350 I48, 131360
I60, 131456 J18 and 131850 M06. Other fields are named by their number in a definition, or by their
title in a table.
"""

import re
from itertools import chain

from ecgcmr.cohort.labels import ranges
from ecgcmr.cohort.labels.icd10 import Reading
from ecgcmr.errors import InputError

FIELDS = range(130000, 132606, 2)
CODE = re.compile(r"[A-Z]\d{2}")
TITLE = re.compile(r"Date ([A-Z]\d{2}) first reported\b.*", re.IGNORECASE)
# The codes that ICD-10 has, of which the first has the field.
STRETCHES = {
    130706: """E10-E16 E20-E32 E34-E35 E40-E46 E50-E56 E58-E61 E63-E68 E70-E80 E83-E90
        F00-F07 F09-F25 F28-F34 F38-F45 F48 F50-F55 F59-F66 F68-F73 F78-F84 F88-F95 F98-F99
        G00-G14 G20-G26 G30-G32 G35""",
    131286: """I10-I13 I15 I20-I28 I30-I52 I60-I74 I77-I89 I95 I97-I99
        J00-J06 J09-J18 J20-J22 J30-J47 J60-J70 J80-J82 J84-J86 J90-J96 J98-J99
        K00-K14 K20-K23 K25-K31 K35-K38 K40-K46 K50-K52 K55-K67 K70-K77 K80-K83 K85-K87 K90-K93
        L00-L05 L08 L10-L14 L20-L30 L40-L45 L50-L60 L62-L68 L70-L75 L80-L95 L97-L99
        M00-M03 M05-M25 M30-M36 M40-M43 M45-M51 M53-M54 M60-M63 M65-M68 M70-M73 M75-M77 M79-M96
        M99 N00-N08 N10-N18""",
}


def clean(text: str) -> str | None:
    """A three-character code, in capitals; None if it is none."""
    code = text.strip().upper()
    return code if CODE.fullmatch(code) else None


def _range(word: str) -> tuple[str, ...]:
    return ranges.expand(word, clean, "three-character ICD-10", ("I48", "I20-I25"))


CODE_OF = {
    first + 2 * at: code
    for first, words in STRETCHES.items()
    for at, code in enumerate(chain.from_iterable(map(_range, words.split())))
}


def code_of(field: int | None, title: str) -> str | None:
    """The code of a column, by its field or by its title; of an unknown field its number.

    None if it is no date of a first occurrence.
    """
    if match := TITLE.fullmatch(title.removeprefix("participant.")):
        return match[1].upper()
    if field is None or field not in FIELDS:
        return None
    return CODE_OF.get(field, str(field))


def expand(word: str) -> tuple[str, ...]:
    """The codes of a word of a definition: a code, a range, or a field's number.

    Raises:
        InputError: it is neither.
    """
    if not word.isdigit():
        return _range(word)
    field = int(word)
    if field - 1 in FIELDS:
        raise InputError(f"'{word}' is where a report came from; its date is field {field - 1}")
    if field not in FIELDS:
        raise InputError(
            f"'{word}' is no field of a first occurrence: those are even, "
            f"{FIELDS[0]} to {FIELDS[-1]}"
        )
    return (CODE_OF.get(field, word),)


def read(text: str) -> Reading:
    """The code of a column, which is that of each of its dates."""
    return Reading((text,))
