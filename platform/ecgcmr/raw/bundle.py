"""All files of one person, in a folder or an archive, read in place and one at a time.

Nothing is unpacked to disk, so a member's name cannot lead anywhere; what an archive claims or
turns out to hold is bounded before it is kept, so that a bomb ends as a reason. Archives within
archives are not opened.
"""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from ecgcmr.errors import Excluded

OPENERS: dict[str, Any] = {
    ".tar": open,
    ".tar.gz": gzip.open,
    ".tgz": gzip.open,
    ".tar.xz": lzma.open,
    ".tar.bz2": bz2.open,
}
ENDINGS = (*OPENERS, ".zip")
MEMBER_LIMIT = 256 << 20  # one file; an enhanced DICOM holds a whole stack
TOTAL_LIMIT = 1 << 30  # all files of one person
COUNT_LIMIT = 20_000
SWELL_LIMIT = 100  # times the archive's size; images shrink to a third, bombs to a thousandth
SWELL_FROM = 64 << 20  # below, swelling does no harm
DAMAGED = "unreadable archive or folder"
TOO_MUCH = "more files than one person's images can be"


def is_archive(file: Path) -> bool:
    """Whether a file is named as an archive that is read here."""
    return file.name.lower().endswith(ENDINGS) and file.is_file()


def contents(source: Path) -> Iterator[bytes]:
    """The bytes of every file of a folder or archive, or of the one file; files above
    `MEMBER_LIMIT` are passed over.

    Raises:
        Excluded: damaged or encrypted, or more than the limits allow.
    """
    name = source.name.lower()
    try:
        if source.is_dir():
            yield from _loose(source)
        elif name.endswith(".zip"):
            yield from _zipped(source)
        elif name.endswith(ENDINGS):
            opener = next(OPENERS[ending] for ending in OPENERS if name.endswith(ending))
            yield from _tarred(source, opener)
        else:
            size = source.stat().st_size
            _allow(1, size, size)
            yield source.read_bytes()
    except Excluded:
        raise
    except Exception as error:  # lzma, zlib, tarfile and zipfile share no base
        raise Excluded(DAMAGED) from error


def _loose(folder: Path) -> Iterator[bytes]:
    total = 0
    for number, file in enumerate(sorted(file for file in folder.rglob("*") if file.is_file())):
        size = file.stat().st_size
        total += size
        _allow(number + 1, total, total)
        if size <= MEMBER_LIMIT:
            yield file.read_bytes()


def _zipped(source: Path) -> Iterator[bytes]:
    with zipfile.ZipFile(source) as archive:
        entries = [entry for entry in archive.infolist() if not entry.is_dir()]
        if any(entry.flag_bits & 1 for entry in entries):
            raise Excluded("encrypted archive")
        # A member is never read beyond the size that is claimed here; more of it fails the
        # checksum.
        _allow(len(entries), sum(entry.file_size for entry in entries), source.stat().st_size)
        for entry in entries:
            if entry.file_size <= MEMBER_LIMIT:
                yield archive.read(entry)


def _tarred(source: Path, opener: Any) -> Iterator[bytes]:
    with (
        opener(source, "rb") as stream,
        tarfile.open(fileobj=Bounded(stream, source), mode="r|") as archive,
    ):
        for number, member in enumerate(archive):
            _allow(number + 1, 0, 0)
            if not member.isfile() or member.size > MEMBER_LIMIT:
                continue
            content = archive.extractfile(member)
            if content:
                yield content.read()
        # A damaged header looks like the end to tarfile; and a compressed stream knows its checksum
        # at its end.
        while rest := archive.fileobj.read(1 << 20):
            if rest.strip(b"\0"):
                raise Excluded(DAMAGED)


class Bounded(io.RawIOBase):
    """A stream that ends in `Excluded` when more has been read of it than `_allow` permits: headers
    count as well.
    """

    def __init__(self, stream: IO[bytes], source: Path) -> None:
        """Read `stream`, which expands `source`."""
        self.stream, self.size, self.total = stream, source.stat().st_size, 0

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes."""
        chunk = self.stream.read(size)
        self.total += len(chunk)
        _allow(1, self.total, self.size)
        return chunk


def _allow(count: int, total: int, size: int) -> None:
    """Refuse `count` files of `total` bytes out of `size` stored ones if that is too much."""
    if count > COUNT_LIMIT or total > TOTAL_LIMIT:
        raise Excluded(TOO_MUCH)
    if total > SWELL_FROM and total > SWELL_LIMIT * size:
        raise Excluded("archive swells a hundredfold")
