"""What an id means, however a list or a table spells it.

The one idea: labels, visits and withdrawals ask `clean`, and so does the recording that is looked
up, so that two spellings of one id cannot miss each other. UK Biobank's file names hold the person
and the visit; `participant` takes them apart.
"""

import re
import unicodedata
from decimal import Decimal

# Letters, digits, underscores and hyphens alone need no cleaning, unless they are a number.
PLAIN = re.compile(r"[A-Za-z0-9_-]+")
EXPONENT = re.compile(r"(\d(?:\.\d+)?)[eE]\+?(\d{1,2})")
# 1000022.0 and 1000022,0 as pandas and a German Excel write them; 1,000,022 as people do.
FLOAT = re.compile(r"(\d+)(?:\.0*|,0{1,2})")
GROUPS = re.compile(r"\d{1,3}(?:(?:,\d{3})+|(?:[ '’]\d{3})+|(?:\.\d{3}){2,})")
# Zero-width and directional marks, soft hyphens, byte-order marks.
INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\x00]"
)
QUOTES = "\"'`´“”„‟‘’‚‛«»‹›"
ENDINGS = re.compile(
    r"(?:\.(?:7z|aecg|bz2|csv|dat|dcm|dicom|ecg|edf|gz|h5|hd5|hdf5|hea|ima|jls|json|lz4|mat|mha|mhd"
    r"|nii|npy|npz|nrrd|parquet|pkl|pt|pth|rar|scp|tar|tbz2?|tgz|txz|txt|xml|xz|zip|zst))+$",
    re.IGNORECASE,
)
# <eid>_<field>_<instance>_<array>, and without the field.
BIOBANK = re.compile(r"(\d+)_\d{4,6}_(\d{1,2})_\d+|(\d{7})_(\d{1,2})_\d+")
# A stack that is called so in every folder has its folder's name (raw.key).
STACKS = ("sa", "sa_ED")


def clean(text: str) -> str:
    r"""The id that a word means: of a person, or of a recording by its file.

    Args:
        text: `1000022`, `1000022.0`, `1.000022e6`, `"1,000,022"`, `C:\data\A0001.hea`,
            `1000022_20209_2_0.zip`.

    Returns:
        The id; "" where nothing is left.
    """
    if PLAIN.fullmatch(text) and not EXPONENT.fullmatch(text):
        return text
    word = bare(text)
    if number := _number(word):
        return number
    parts = [part for part in re.split(r"[/\\#]", word) if part]
    row = re.fullmatch(r".+#(\d{1,9})", word)
    if row:
        parts = parts[:-1]
    if not parts:
        return word
    name = _stem(parts[-1])
    if name in STACKS and len(parts) > 1:
        name = _stem(parts[-2])
    return f"{name}-{row[1]}" if row else _number(name) or name


def bare(text: str) -> str:
    """Text without what cannot be seen and without quotes around it.

    `="1000022"`, which keeps a spreadsheet from reckoning, is 1000022.
    """
    word = INVISIBLE.sub("", unicodedata.normalize("NFKC", text)).strip()
    if re.fullmatch(r"""=\s*".*"|=\d+""", word):
        word = word[1:]
    shorter = word.strip(QUOTES).strip()
    while shorter != word:
        word, shorter = shorter, shorter.strip(QUOTES).strip()
    return word


def is_rounded(text: str) -> bool:
    """Whether a word is a number in powers of ten that does not show all its digits.

    `1.00E+06` may have been 1000022.
    """
    match = EXPONENT.fullmatch(bare(text))
    return match is not None and len(match[1].replace(".", "")) <= int(match[2])


def participant(name: str) -> tuple[str, str] | tuple[None, None]:
    """(person, visit) of a name of UK Biobank's, `<eid>_20205_2_0` or `<eid>_2_0`.

    Nothing for other names.
    """
    match = BIOBANK.fullmatch(name)
    if not match:
        return None, None
    return (match[1], match[2]) if match[1] else (match[3], match[4])


def shape(text: str) -> str:
    """What a word looks like and not what it says: `A99.9`, `9999999_9_9`; at most 24 long."""
    kinds = (
        "9" if sign.isdigit() else "A" if sign.isupper() else "a" if sign.isalpha() else sign
        for sign in text[:24]
    )
    word = "".join(kinds)
    return word + ("…" if len(text) > 24 else "")


def _stem(name: str) -> str:
    name = name.strip()
    ending = ENDINGS.search(name)
    return (name[: ending.start()].strip() if ending else name) or name


def _number(word: str) -> str | None:
    """The whole number that a word is, as digits; None if it is none."""
    if match := EXPONENT.fullmatch(word):
        value = Decimal(match[1]).scaleb(int(match[2]))
        is_id = value == value.to_integral_value() and value < 10**12
        return str(int(value)) if is_id else None
    if match := FLOAT.fullmatch(word):
        return match[1]
    return re.sub(r"\D", "", word) if GROUPS.fullmatch(word) else None
