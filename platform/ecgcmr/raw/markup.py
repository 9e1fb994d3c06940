"""XML files of foreign devices, read without harm: what the readers of XML share.

One idea: a file is parsed only after its size and the number of its tags are bounded, and nothing
that it declares is expanded or fetched: entities and a DTD inside the file are refused, the name of
one outside it (`restecg.dtd` in every MUSE file) is passed over. Nothing of a file's text reaches
an error.
"""

import contextlib
import re
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

import numpy as np
from defusedxml.common import DefusedXmlException, DTDForbidden
from defusedxml.ElementTree import DefusedXMLParser

from ecgcmr.errors import Excluded, InputError
from ecgcmr.raw import archive
from ecgcmr.raw.records import head

LIMIT = 16 << 20  # bytes; ten seconds of twelve leads take half a MiB
DEPTH = 64  # elements within each other; an aECG has 12
TAGS = 200_000  # tags and attributes; an aECG has 4,000


def find(path: str, root: str, format_name: str) -> list[str]:
    """List the XML files under a folder, or the one named.

    Files with another root element belong to another reader and are left out. A file that shows no
    root element (empty, cut short) is listed, so that the cohort's flow counts it, and so are all
    members of an archive.

    Raises:
        InputError: the path does not exist or the folder holds none.
    """
    place = Path(path)
    if place.is_file() and not archive.is_archive(place):
        return [str(place)]
    if not place.exists():
        raise InputError(f"{path}: no such file or folder")
    candidates = archive.find(place, (".xml",))
    sources = [source for source in candidates if _element(source) in (root, "")]
    if not sources:
        raise InputError(
            f"{path}: no {format_name} file (*.xml with root element {root}) in this folder; "
            "name the folder that holds the recordings"
        )
    return sources


def _element(source: str) -> str:
    """The root element of a file.

    Of a member of an archive it is not looked at before the file is read.
    """
    with contextlib.suppress(OSError):
        return "" if archive.split(source)[0] else root_element(head(Path(source)))
    return ""


def root_element(head: bytes) -> str:
    """Name the root element, without a namespace's prefix, that a file begins with.

    Empty where none is seen.
    """
    text = _decoded(head).lstrip("\ufeff \t\r\n")
    bare = re.sub(r"<!--.*?(?:-->|\Z)", "", text, flags=re.DOTALL)
    match = re.search(r"<(?:!DOCTYPE\s+)?(?:[\w.-]+:)?([A-Za-z_][\w.-]*)", bare)
    return match[1] if match and text.startswith("<") else ""


def parse(source: str) -> Element:
    """Parse a file.

    Raises:
        Excluded: it is empty, too large, no XML, or declares entities or a DTD of its own.
    """
    try:
        with archive.opened(source) as path, path.open("rb") as file:
            content = file.read(LIMIT + 1)
    except OSError:
        raise Excluded("unreadable file") from None
    if not content.strip():
        raise Excluded("empty file")
    if len(content) > LIMIT or content.count(b"<") + content.count(b"=") > TAGS:
        raise Excluded("XML too large for a resting ECG")
    parser = DefusedXMLParser(forbid_dtd=False, forbid_entities=True, forbid_external=True)
    parser.parser.StartDoctypeDeclHandler = _refuse_internal_subset
    # A parser's message quotes the file: `from None` keeps it out of every traceback.
    try:
        parser.feed(_decoded(content))
        root = parser.close()
    except DefusedXmlException:
        raise Excluded("XML that declares entities or a DTD") from None
    except (ParseError, ValueError):
        raise Excluded("malformed XML") from None
    level = [root]
    for _ in range(DEPTH):
        level = [child for element in level for child in element]
    if level:  # a search through it would end in a RecursionError
        raise Excluded("XML too deep for a resting ECG")
    return root


def _refuse_internal_subset(
    name: str, system: str | None, public: str | None, internal: bool
) -> None:
    # Without entities it can still give every element an attribute of a megabyte.
    if internal:
        raise DTDForbidden(name, system, public)


def _decoded(content: bytes) -> str:
    """Text as UTF-16 by its marks, as UTF-8 where it is that, else as ISO-8859-1, whatever the
    declaration says.

    Tags, names of leads and numbers are ASCII in every format, and in the eight-bit and Asian
    encodings that devices declare (cp949, Shift JIS) no other character holds the bytes of `<`,
    `>`, `&` or a quote. What this garbles is text of the header, which no reader reads.
    """
    for mark, encoding in (
        (b"\xff\xfe", "utf-16"),
        (b"\xfe\xff", "utf-16"),
        (b"<\0", "utf-16-le"),
        (b"\0<", "utf-16-be"),
    ):
        if content.startswith(mark):
            return content.decode(encoding, errors="replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def text(element: Element | None, path: str = ".") -> str:
    """The text at a path below an element, stripped; empty where there is none."""
    child = None if element is None else element.find(path)
    return "" if child is None else (child.text or "").strip()


def samples(words: list[str]) -> np.ndarray:
    """Turn words into numbers, (n,) float64; a blank one, and one that is not finite, is a missing
    sample, NaN.

    Raises:
        Excluded: one of them is something else.
    """
    try:
        numbers = np.array([float(word) if word.strip() else np.nan for word in words])
    except ValueError:
        raise Excluded("samples are not numbers") from None
    return np.where(np.isfinite(numbers), numbers, np.nan)


def whole(word: str) -> int | None:
    """A count as it is written; None for what is none."""
    return int(word) if re.fullmatch(r"\d{1,9}", word) else None


def positive(value: float | None, quantity: str) -> float:
    """The value, if it is a positive number.

    Raises:
        Excluded: it is not; the quantity is unknown.
    """
    if value is None or not value > 0:
        raise Excluded(f"{quantity} unknown")
    return value
