"""Files that are no part of any recording: what is passed over in a folder is counted by kind.

One idea: nothing is passed over without a word. A kind is what a file is by its beginning or by a
known ending; a name goes no further, as it may be a person's.
"""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from ecgcmr.errors import Excluded
from ecgcmr.raw import archive, markup, sax_names, wfdb
from ecgcmr.raw.records import head, row

MAKERS = {
    "restingecgdata": "Philips",
    "RestingECG": "GE MUSE",
    "CardiologyXML": "GE CardioSoft",
    "AnnotatedECG": "HL7 aECG",
    "ECG": "Mortara",
    "examdescript": "Schiller",
}
# What readers take from beside a recording.
TABLES = frozenset({"ptbxl_database.csv", "exams.csv"})
# Of a WFDB record all files have its name; these are somebody's reports on it.
_DOCUMENTS = "csv doc docx gif htm html jpeg jpg json md pdf png rtf svg txt xml"
_OTHERS = (
    "7z atr bmp bz2 dat db dcm dicom ecg edf gdf gz h5 hdf5 hea ini ishne log mat mfer mwf nii "
    "nii.gz npy npz parquet pkl pt pth py qrs rar scp sqlite tar tar.gz tif tiff tmp tsv xls xlsx "
    "xyz yaml yml zip zst"
)
DOCUMENTS = frozenset(f".{ending}" for ending in _DOCUMENTS.split())
ENDINGS = DOCUMENTS | {f".{ending}" for ending in _OTHERS.split()}
NO_ENDING = "without ending"
OTHER_ENDING = "of another ending"
HIDDEN = "hidden"
SLOWER = "WFDB at 100 Hz beside the same at 500 Hz"


def left_aside(places: Iterable[Path], sources: Iterable[str]) -> dict[str, int]:
    """Count the files of folders and archives that are no part of a recording, the commonest kind
    first.

    Args:
        places: files and folders that were searched.
        sources: the recordings that were found there.
    """
    members: dict[str, set[str]] = defaultdict(set)
    parts = Parts()
    for source in sources:
        path, member = archive.split(source)
        parts.add(_file_of(source))
        if path:
            members[path].add(member)
    kinds: Counter[str] = Counter()
    for place in places:
        for folder, _, names in os.walk(place):
            kinds.update(
                kind(Path(folder, name)) for name in names if not parts.has(Path(folder, name))
            )
    for path, names_inside in members.items():
        kinds.update(_members_aside(Path(path), names_inside))
    return dict(sorted(kinds.items(), key=lambda pair: (-pair[1], pair[0])))


def _file_of(source: str) -> Path:
    path = Path(source)
    return path if path.exists() else Path(archive.split(source)[0] or row(source)[0])


def words(kinds: Mapping[str, int]) -> str:
    """`5 XML with root restingecgdata (Philips), 3 .pdf, 1 without ending`."""
    counts = sorted(kinds.items(), key=lambda pair: (-pair[1], pair[0]))
    return ", ".join(f"{n:,} {name}" for name, n in counts)


class Parts:
    """The files of recordings, and what belongs to them."""

    def __init__(self) -> None:
        self.files: set[Path] = set()
        self.folders: set[Path] = set()
        self.records: dict[Path, set[str]] = defaultdict(set)  # stems of WFDB headers by folder
        self.signals: dict[Path, set[str]] = {}  # signal files that headers of a folder name
        self.hearts: set[tuple[Path, tuple[str, ...]]] = set()  # of NIfTI stacks, by `sax_names`

    def add(self, file: Path) -> None:
        """Add the file or folder of a recording."""
        if file.is_dir():
            self.folders.add(file)
        self.files.add(file)
        if file.suffix.lower() == ".hea":
            self.records[file.parent].update(_stems(str(file)))
        if sax_names.is_nifti(file):
            self.hearts.add(sax_names.name(file).heart)

    def has(self, file: Path) -> bool:
        """Whether a file is a recording's, or belongs to one."""
        if file in self.files or file.name in TABLES:
            return True
        if any(folder in self.folders for folder in file.parents):
            return True
        if sax_names.is_nifti(file) and sax_names.name(file).heart in self.hearts:
            return True
        return self._is_record_part(file) or self._is_sidecar(file)

    def _is_record_part(self, file: Path) -> bool:
        stems = self.records.get(file.parent, set())
        if file.stem in stems:
            return file.suffix.lower() not in DOCUMENTS
        return file.suffix.lower() != ".hea" and file.name in self._signals_of(file.parent)

    def _signals_of(self, folder: Path) -> set[str]:
        """The names at the beginning of the lines of a folder's headers."""
        if folder not in self.signals:
            texts = [head(folder / f"{stem}.hea") for stem in self.records.get(folder, ())]
            lines = [line.split() for text in texts for line in text.decode("latin-1").splitlines()]
            self.signals[folder] = {fields[0] for fields in lines if fields}
        return self.signals[folder]

    def _is_sidecar(self, file: Path) -> bool:
        """Whether it is the JSON beside an array (`statements.beside`)."""
        if file.suffix.lower() != ".json":
            return False
        endings = (".npy", ".npz", ".pt", ".hdf5", ".h5", ".csv", ".tsv")
        beside = [file.with_suffix(ending) for ending in endings]
        return file.with_suffix("") in self.files or any(path in self.files for path in beside)


def _stems(header: str) -> set[str]:
    """Of a WFDB record's files: of its own and, if it has any, of its segments."""
    sources = {header, *wfdb.parts(header)}
    return {PurePosixPath(source.replace("#", "/")).stem for source in sources}


def kind(file: Path) -> str:
    """What a file is, in words."""
    if file.name.startswith("."):
        return HIDDEN
    beginning = b"" if _ending(file.name) in ENDINGS - {".xml"} else _beginning(file)
    if beginning.lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n\0").startswith(b"<"):
        return _xml(beginning)
    if file.name.endswith("_lr.hea"):
        return SLOWER
    return _by_name(file.name)


def _beginning(file: Path) -> bytes:
    try:
        return head(file)
    except OSError:
        return b""


def _xml(beginning: bytes) -> str:
    root = markup.root_element(beginning)
    if not re.fullmatch(r"[A-Za-z_][\w.-]{0,39}", root):
        return "XML without a root element"
    maker = f" ({MAKERS[root]})" if root in MAKERS else ""
    return f"XML with root {root}{maker}"


def _by_name(name: str) -> str:
    ending = _ending(name)
    if not ending:
        return NO_ENDING
    return ending if ending in ENDINGS else OTHER_ENDING


def _ending(name: str) -> str:
    path = PurePosixPath(name.lower())
    return "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix


def _members_aside(file: Path, sources: set[str]) -> Counter[str]:
    """Members of an archive that are no part of those that were found."""
    try:
        names = archive.names(file)
    except Excluded:
        return Counter()
    headers = [name for name in sources if name.lower().endswith(".hea")]
    stems = {
        str(PurePosixPath(name).with_name(stem))
        for name in headers
        for stem in _stems(f"{file}#{name}")
    }
    aside = [
        name
        for name in names
        if name not in sources
        and re.sub(r"\.[^./]*$", "", name) not in stems
        and PurePosixPath(name).name not in TABLES
    ]
    return Counter(_by_name(PurePosixPath(name).name) for name in aside if sources != {""})
