"""Raw recordings: one file per format, each with `find`, `read` and `suits`, and the registry of them by kind."""

from pathlib import Path

from ecgcmr.errors import Excluded
from ecgcmr.raw import sax_dicom, sax_nifti, wfdb
from ecgcmr.raw.records import HEAD, CmrRecord, EcgRecord, Reader

# The order is that in which `inspect` and `predict` ask whose a file is.
READERS: dict[str, dict[str, Reader]] = {
    "ecg": {"wfdb": wfdb},
    "cmr": {"nifti": sax_nifti, "dicom": sax_dicom},
}

__all__ = ["READERS", "CmrRecord", "EcgRecord", "Excluded", "Reader", "whose"]


def whose(kind: str, path: Path) -> str | None:
    """The first reader of that kind that takes a file, or a folder, for its own; None if none does."""
    head = b""
    if not path.is_dir():
        with path.open("rb") as file:
            head = file.read(HEAD)
    return next((name for name, reader in READERS[kind].items() if reader.suits(path, head)), None)
