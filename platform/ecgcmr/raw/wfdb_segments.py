"""Multi-segment WFDB records: one recording whose header names others, its segments.

One idea: every segment is a record with its own checksums, so each is read as one and they are put
behind each other here, lead by lead by name. A null segment (`~`) and a lead that a segment lacks
are missing samples. A layout segment (variable layout) has no samples, and says nothing that the
segments do not.

Source: header(5) of the WFDB Applications Guide.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from ecgcmr.errors import Excluded
from ecgcmr.raw import archive
from ecgcmr.raw.records import FILE_LIMIT

GAP = "~"
SEGMENTS_LIMIT = 1000
FRAMES_LIMIT = FILE_LIMIT // (12 * 4)  # 46 minutes at 500 Hz; a gap takes no file but memory


@dataclass(frozen=True)
class Segment:
    """A line of a multi-segment header.

    Attributes:
        name: of the segment's record, or `~`.
        frames: how many it has.
    """

    name: str
    frames: int


def stated(lines: Sequence[str]) -> list[Segment] | None:
    """The segments that a header names, but for its layout; None where it is no such header.

    Args:
        lines: of the header, without blank ones and comments.

    Raises:
        Excluded: they are not as the record's line says, or more than a resting ECG has.
    """
    name, *fields = (lines[0] if lines else "").split() or [""]
    _, slash, number = name.partition("/")
    if not slash:
        return None
    matches = [
        re.fullmatch(r"\s*(~|[\w-]{1,200})\s+(\d{1,12})(?:\s.*)?", line) for line in lines[1:]
    ]
    segments = [Segment(match[1], int(match[2])) for match in matches if match]
    if not segments or len(segments) != len(matches) or number != str(len(segments)):
        raise Excluded("unreadable WFDB record")
    if segments[0].frames == 0:  # the layout
        segments = segments[1:]
    names = [segment.name for segment in segments if segment.name != GAP]
    if not names or not all(segment.frames for segment in segments):
        raise Excluded("no samples")
    if len(set(names)) != len(names):
        raise Excluded("segment named twice")
    frames = sum(segment.frames for segment in segments)
    if len(fields) > 2 and fields[2] not in ("0", str(frames)):
        raise Excluded("number of samples differs from the stated")
    if frames > FRAMES_LIMIT or len(segments) > SEGMENTS_LIMIT:
        raise Excluded("file too large")
    return segments


def names(lines: Sequence[str]) -> list[str]:
    """Every record that a multi-segment header names, its layout too; none of another header."""
    if "/" not in (lines[0] if lines else "").partition(" ")[0]:
        return []
    words = [line.split()[0] for line in lines[1:]]
    return [word for word in words if re.fullmatch(r"[\w-]{1,200}", word)]


def header(source: str, name: str) -> str | None:
    """The source of a header beside a source; None where there is none."""
    return archive.beside(source, f"{name}.hea", folders=0)


def has_own_signals(source: str) -> bool:
    """Whether a header's signal file lies beside it under its name, as none of a multi-segment
    header does.
    """
    stem = PurePosixPath(source.replace("#", "/")).stem
    return any(archive.beside(source, stem + ending, folders=0) for ending in (".dat", ".mat"))
