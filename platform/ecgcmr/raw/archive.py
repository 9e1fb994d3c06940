"""Recordings inside zip archives, read in place: a source `records.zip#folder/name.hea` is one
member.

One idea: a member is copied, with the files beside it that share its stem, into a temporary folder
that ends with the read; so a reader of paths reads archives too. An archive is hostile until shown
otherwise: names that lead outside, encrypted members, members that are large or expand too much are
refused before a byte is unpacked.
"""

import re
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from ecgcmr.errors import Excluded, InputError
from ecgcmr.raw.records import FILE_LIMIT

# The 224 CinC recordings shrink 1.5- to 4-fold, XML with decimal numbers 5- to 15-fold.
RATIO_LIMIT = 100
NAME_LIMIT = 200  # characters; file systems take 255 bytes
SIBLING_LIMIT = 8  # files of one recording: header, signals, Frank leads, annotations

_MEMBER = re.compile(r"(?is)^(.*?\.zip)#(.*)$")


@dataclass(frozen=True)
class Archive:
    """An open archive; `siblings` lists the members of one folder and stem."""

    file: zipfile.ZipFile
    members: dict[str, zipfile.ZipInfo]
    siblings: dict[str, list[zipfile.ZipInfo]]


def find(root: Path, endings: tuple[str, ...]) -> list[str]:
    """List the recordings under a folder or in an archive, sorted: paths, and `archive.zip#member`
    for members.

    Archives of a folder are looked into only where it holds no loose recording, so that an unpacked
    archive beside its contents does not count twice. A damaged archive is one source, which
    `opened` refuses with the reason.

    Args:
        root: a folder or an archive.
        endings: of the recordings' names, lower case.
    """
    if root.is_dir():
        files = sorted(file for file in root.rglob("*") if file.is_file())
        loose = [str(file) for file in files if file.name.lower().endswith(endings)]
        return loose or [
            source for file in files if is_archive(file) for source in _members(file, endings)
        ]
    return _members(root, endings) if is_archive(root) else []


def named(path: str, endings: tuple[str, ...], title: str) -> list[str]:
    """The file named, or those of these endings below a folder or in an archive.

    Raises:
        InputError: the path does not exist or holds none.
    """
    place = Path(path)
    if place.is_file() and not is_archive(place):
        return [str(place)]
    if not place.exists():
        raise InputError(f"{path}: no such file or folder")
    sources = find(place, endings)
    if not sources:
        raise InputError(
            f"{path}: no {title} file (*{endings[0]}) in this folder; "
            "name the folder that holds the recordings"
        )
    return sources


def is_archive(file: Path) -> bool:
    """Whether a file is named as an archive."""
    return file.suffix.lower() == ".zip" and file.is_file()


def names(file: Path) -> list[str]:
    """The members of an archive.

    Raises:
        Excluded: it is damaged.
    """
    return sorted(_archive(str(file)).members)


def split(source: str) -> tuple[str, str]:
    """The archive and the member that a source names; ("", "") where it is a path."""
    match = _MEMBER.match(source)
    return (match[1], match[2]) if match else ("", "")


@contextmanager
def opened(source: str) -> Iterator[Path]:
    """Give the path of a recording's file; for a member of an archive a copy beside its siblings,
    gone afterwards.

    The copy keeps the member's name and its folders' names, by which some readers know the person.

    Raises:
        Excluded: the archive is damaged, or the member is absent, encrypted, too large or named
            against the rules.
    """
    path, name = split(source)
    if not path:
        yield Path(source)
        return
    archive = _archive(path)
    if name not in archive.members:
        raise Excluded("not in the archive")
    with tempfile.TemporaryDirectory() as folder:
        siblings = archive.siblings[_stem(name)]
        if len(siblings) > SIBLING_LIMIT:
            raise Excluded("too many files of one name in the archive")
        for member in siblings:
            copy = Path(folder, *_inside(member.filename).parts)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(_content(archive.file, member))
        yield Path(folder, *_inside(name).parts)


def beside(source: str, name: str, folders: int) -> str | None:
    """The file of this name in a source's folder or up to so many folders above, in the same
    archive; None if none.
    """
    path, member = split(source)
    if not path:
        files = [folder / name for folder in list(Path(source).parents)[: folders + 1]]
        return next((str(file) for file in files if file.is_file()), None)
    places = [folder / name for folder in list(PurePosixPath(member).parents)[: folders + 1]]
    members = _archive(path).members
    return next((f"{path}#{place}" for place in places if str(place) in members), None)


def _members(file: Path, endings: tuple[str, ...]) -> list[str]:
    try:
        names = _archive(str(file)).members
    except Excluded:
        return [f"{file}#"]
    return sorted(f"{file}#{name}" for name in names if name.lower().endswith(endings))


def _archive(path: str) -> Archive:
    try:
        state = Path(path).stat()
        return _open(path, state.st_size, state.st_mtime_ns)
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise Excluded("damaged archive") from error


# The directory of PTB-XL's archive, 87,000 members, needs half a second.
@lru_cache(maxsize=2)
def _open(path: str, size: int, modified_ns: int) -> Archive:
    file = zipfile.ZipFile(path)
    members = {member.filename: member for member in file.infolist() if not member.is_dir()}
    siblings = defaultdict(list)
    for name, member in members.items():
        siblings[_stem(name)].append(member)
    return Archive(file, members, dict(siblings))


def _stem(name: str) -> str:
    return re.sub(r"\.[^./]*$", "", name)


def _inside(name: str) -> PurePosixPath:
    """A member's path, which must stay inside the folder that it is copied to."""
    path = PurePosixPath(name)
    if path.is_absolute() or not path.parts or re.search(r"[\\:\x00]", name):
        raise Excluded("archive member leads outside")
    if any(part == ".." or len(part) > NAME_LIMIT for part in path.parts):
        raise Excluded("archive member leads outside")
    return path


def _content(file: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    if member.flag_bits & 1:
        raise Excluded("encrypted archive")
    if member.file_size > FILE_LIMIT:
        raise Excluded("file too large")
    if member.file_size > RATIO_LIMIT * (member.compress_size + 1024):
        raise Excluded("archive member expands too much")
    try:
        return file.read(member)  # stops at the stated size and compares the checksum
    except Exception as error:  # zlib, lzma and zipfile share no base
        raise Excluded("damaged archive") from error
