"""Which diseases there are, and which codes of which sources make them.

The paper's three are built in; `--disease` adds one of ICD-10 codes of hospital stays, a file of
definitions any, of every source that `sources` knows:

    [cad]
    icd10 = ["I20-I25"]
"""

import re
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ecgcmr import tasks
from ecgcmr.cohort.follow_up import EVENT, TIME
from ecgcmr.cohort.labels.sources import HOSPITAL, SOURCES, Source
from ecgcmr.cohort.shards import DEMOGRAPHICS
from ecgcmr.errors import InputError, near, unknown

NAME = re.compile(r"[a-z][a-z0-9_]*")
# Columns that go with a disease: had by the visit, first after it, and time to onset.
ENDINGS = ("_past", "_future", TIME, EVENT)
# What else a column of a cohort or of a labels file is called.
TAKEN = (*DEMOGRAPHICS, *tasks.PHENOTYPES, "subject", "ecg", "cmr", "split", "visit", "instance")


@dataclass(frozen=True)
class Disease:
    """A label column and the codes that make it.

    Attributes:
        name: of the column; `<name>_past` and `<name>_future` go with it.
        codes: by source, as they were asked for: prefixes and ranges of prefixes, e.g. "I20-I25",
            "I11.0"; of numbered codes the numbers.
        place: where a person wrote it, who may have mistyped; "" for the paper's.
    """

    name: str
    codes: Mapping[str, tuple[str, ...]]
    place: str = ""

    @property
    def words(self) -> tuple[str, ...]:
        """The codes, with the source before those of others than hospital stays' ICD-10."""
        return tuple(titled(source, word) for source, words in self.codes.items() for word in words)

    def prefixes(self, source: str) -> dict[str, str]:
        """Prefix, as codes of the source are compared -> the word that it came from."""
        words = self.codes.get(source, ())
        return {prefix: word for word in words for prefix in SOURCES[source].expand(word)}


def titled(source: str, word: str) -> str:
    """A code with its source, which goes without saying of ICD-10 codes of hospital stays."""
    return word if source == HOSPITAL else f"{source} {word}"


# Turgut et al., section IV-B.
PAPER = (
    Disease("cad", {HOSPITAL: ("I20-I25",)}),
    Disease("af", {HOSPITAL: ("I48",)}),
    Disease("dm", {HOSPITAL: ("E10-E14",)}),
)


def of_option(text: str) -> Disease:
    """Read `hf=I50,I11.0,I42-I43`.

    Raises:
        InputError: there is no name, or a word is no code and no range of codes.
    """
    name, equals, codes = text.partition("=")
    name = name.strip().lower()
    if not equals or not NAME.fullmatch(name) or name.endswith(ENDINGS):
        raise InputError(
            f"--disease {text}: write NAME=CODES, e.g. hf=I50,I11.0,I42-I43; "
            "a name has a-z, 0-9 and _"
        )
    words = tuple(word.strip() for word in codes.split(",") if word.strip())
    if not words:
        raise InputError(f"--disease {text}: no codes after '='")
    for word in words:
        SOURCES[HOSPITAL].expand(word)
    return Disease(name, {HOSPITAL: words}, f"--disease {name}")


def of_file(path: Path) -> tuple[Disease, ...]:
    """Read a file of definitions; one that is the paper's is the paper's.

    Raises:
        InputError: it cannot be read, or a definition names no source, an unknown one, or what is
            no code of it.
    """
    diseases: dict[str, Disease] = {}
    for title, table in _toml(path).items():
        name = title.strip().lower()
        if not isinstance(table, dict):
            raise InputError(
                f"{path}: '{title}' stands in no disease; write [name] above it, e.g. [cad]"
            )
        if not NAME.fullmatch(name) or name.endswith(ENDINGS):
            raise InputError(
                f"{path}: [{title}]: no name of a column; it has a-z, 0-9 and _ and does not end "
                f"in {' or '.join(ENDINGS)}"
            )
        if name in diseases or name in TAKEN:
            raise InputError(f"{path}: [{title}]: the name is taken; choose another")
        diseases[name] = _disease(path, name, table)
    if not diseases:
        raise InputError(
            f'{path}: no disease; write one as  [cad]  and below it  icd10 = ["I20-I25"]'
        )
    paper_diseases = {disease.name: disease for disease in PAPER}
    return tuple(
        paper_diseases[name]
        if name in paper_diseases and paper_diseases[name].codes == disease.codes
        else disease
        for name, disease in diseases.items()
    )


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8-sig"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file of diseases") from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(
            f'{path}: no TOML: {error}; write  [cad]  and below it  icd10 = ["I20-I25"]'
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text in UTF-8") from error


def _disease(path: Path, name: str, table: Mapping[str, Any]) -> Disease:
    """A definition of a file.

    Raises:
        InputError: see `of_file`.
    """
    codes = {}
    for source, words in table.items():
        if source not in SOURCES:
            fault = unknown("source", source, SOURCES)
            raise InputError(f"{path}: [{name}]: {fault}{near(source, SOURCES)}")
        place = f"{path}: [{name}] {source}"
        codes[source] = tuple(_words(place, source, words))
        _refuse_overlaps(place, source, codes[source])
    if not codes:
        raise InputError(
            f'{path}: [{name}]: counts no source; name one, e.g. icd10 = ["I20-I25"], or remove it'
        )
    return Disease(name, codes, f"{path}: [{name}]")


def _words(place: str, source: str, words: Any) -> Iterator[str]:
    """The codes of a source, as they stand in a file."""
    example = f'{source} = ["{SOURCES[source].example}"]'
    if not isinstance(words, list):
        raise InputError(f"{place}: no list; write  {example}")
    if not words:
        raise InputError(f"{place}: no codes; name some, e.g.  {example}, or remove the line")
    for word in words:
        if isinstance(word, bool) or not isinstance(word, (str, int)):
            raise InputError(f"{place}: {word!r} is no code; write  {example}")
        yield str(word).strip()


def _refuse_overlaps(place: str, source: str, words: Iterable[str]) -> None:
    """Check each code, and refuse one that another has already."""
    word_of: dict[str, str] = {}
    for word in words:
        try:
            prefixes = SOURCES[source].expand(word)
        except InputError as error:
            raise InputError(f"{place}: {error}") from error
        for prefix in prefixes:
            if earlier := _overlapping(SOURCES[source], prefix, word_of):
                raise InputError(
                    f"{place}: '{word}' and '{word_of[earlier]}' overlap; remove one of them"
                )
        word_of |= dict.fromkeys(prefixes, word)


def _overlapping(source: Source, prefix: str, prefixes: Collection[str]) -> str | None:
    """One of the prefixes that has codes of another, or the other of it."""
    if source.whole:
        return prefix if prefix in prefixes else None
    overlapping = (other for other in prefixes if other.startswith(prefix))
    return next(overlapping, next((p for p in prefixes if prefix.startswith(p)), None))
