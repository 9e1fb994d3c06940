"""Whose a file is: recordings of any format in files and folders, found by asking the registry."""

from pathlib import Path

from ecgcmr import raw
from ecgcmr.errors import Excluded, InputError
from ecgcmr.raw import archive, leftovers
from ecgcmr.raw.records import head, row


def recordings(kind: str, path: Path) -> list[tuple[str, str]]:
    """The reader's name and the source of every recording of a file or folder, in order.

    Files in a folder that no reader knows are passed over (`leftovers.left_aside` counts them); one
    that its reader cannot look into is listed, for `read` to refuse.

    Args:
        kind: "ecg" or "cmr".
        path: a file, one recording of several in a file (`file.hdf5#17`, `records.zip#a/rec.hea`),
            or a folder.

    Raises:
        Excluded: there is none that any reader knows; says why.
    """
    file = file_of(str(path))
    if not (path.exists() or file.is_file()):
        raise Excluded("no such file or folder")
    if not (file.is_dir() or file.is_file()):
        raise Excluded("no regular file")  # reading a pipe would wait for a writer
    reader = whose(kind, file)
    if file != path:
        sources = [(reader, str(path))] if reader else []
    elif reader or file.is_file():
        sources = _inside(kind, file)
    else:
        files = [inside for inside in sorted(file.rglob("*")) if inside.is_file()]
        sources = [source for inside in files for source in _inside(kind, inside)]
    if not sources:
        there = "" if file.is_dir() else leftovers.kind(file)
        there = f"{there}: " if there.startswith("XML") else ""
        formats = ", ".join(name for name in raw.READERS.get(kind, {}) if name not in raw.ASKED_FOR)
        raise Excluded(f"{there}no {kind.upper()} in a format that can be read ({formats})")
    # A recording of several files may have been found by each of them.
    return [(name, source) for name, source in dict.fromkeys(sources) if name]


def file_of(source: str) -> Path:
    """The file or folder of a source such as `exams.hdf5#17` or `records.zip#a/rec.hea`, whether it
    is there or not.
    """
    path = Path(source)
    return path if path.exists() else Path(archive.split(source)[0] or row(source)[0])


def whose(kind: str, file: Path) -> str:
    """The first reader that takes a file or folder for its own; "" if none does."""
    readers = raw.READERS.get(kind, {})
    return next((name for name, reader in readers.items() if takes(reader, file)), "")


def takes(reader: raw.Reader, file: Path) -> bool:
    """Whether a file or folder is a reader's: it suits, or it is an archive whose first recording
    does.
    """
    if reader.suits(file, head(file)):
        return True
    if not archive.is_archive(file):
        return False
    try:
        inside = next((source for source in reader.find(str(file)) if archive.split(source)[0]), "")
        with archive.opened(inside) as member:
            return bool(inside) and reader.suits(member, head(member))
    except InputError:
        return False
    except Excluded:  # damaged, encrypted …: the reader says so
        return True


def _inside(kind: str, file: Path) -> list[tuple[str, str]]:
    try:
        name = whose(kind, file)
        sources = raw.READERS[kind][name].find(str(file)) if name else []
        return [(name, source) for source in sources]
    except InputError:
        return [(name, str(file))]
    except OSError:  # not ours to open
        return []
