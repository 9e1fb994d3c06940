"""Raw recordings: one file per format, each with `find`, `read` and `suits`, and the registry of
them by kind.
"""

import inspect
from collections.abc import Callable

from ecgcmr import plugins
from ecgcmr.errors import Excluded
from ecgcmr.raw import (
    aecg,
    cardiosoft,
    code15,
    ecg_dicom,
    edf,
    mortara,
    muse,
    normalised,
    philips,
    sax_dicom,
    sax_nifti,
    scp,
    tensors,
    text_table,
    wfdb,
)
from ecgcmr.raw.records import CmrRecord, EcgRecord, Reader, key
from ecgcmr.raw.statements import UNDECLARED, Declaration, declaration

# The order is that in which `inspect` and `predict` ask whose a file is.
READERS: dict[str, dict[str, Reader]] = {
    "ecg": {
        "wfdb": wfdb,
        "dicom": ecg_dicom,
        "cardiosoft": cardiosoft,
        "muse": muse,
        "philips": philips,
        "mortara": mortara,
        "aecg": aecg,
        "scp": scp,
        "edf": edf,
        "csv": text_table,
        "code15": code15,
        "tensors": tensors,
        "normalised": normalised,
    },
    "cmr": {"nifti": sax_nifti, "dicom": sax_dicom},
}

ASKED_FOR = {"normalised"}  # read by name alone: nothing in such a file tells it from another


def register(kind: str, name: str, reader: Reader) -> None:
    """Add a reader of a kind of signal, from a plugin.

    Raises:
        InputError: the name is taken.
    """
    readers = READERS.setdefault(kind, {})
    plugins.register(readers, f"reader of {kind}", name, reader)


def read(
    kind: str,
    name: str,
    source: str,
    declaration: Declaration = UNDECLARED,
    segment: Callable[[CmrRecord], CmrRecord] | None = None,
) -> EcgRecord | CmrRecord:
    """Read one recording.

    Args:
        kind, name: of the reader.
        source: of its `find`.
        declaration: what its user says of ECGs that do not say it.
        segment: adds a segmentation to stacks that have none (`sax_network`).

    Raises:
        Excluded: it cannot serve; the error says why.
    """
    reader = READERS[kind][name]
    if kind != "ecg" or declaration == UNDECLARED:
        recording = reader.read(source)
        if segment and isinstance(recording, CmrRecord):
            return segment(recording)
        return recording
    if len(inspect.signature(reader.read).parameters) > 1:
        return reader.read(source, declaration)  # type: ignore[call-arg]
    record = reader.read(source)  # of a plugin whose format says everything
    assert isinstance(record, EcgRecord)
    declaration.rate(record.rate_hz)
    declaration.check_names(record.leads)
    return record


__all__ = [
    "ASKED_FOR",
    "READERS",
    "UNDECLARED",
    "CmrRecord",
    "Declaration",
    "EcgRecord",
    "Excluded",
    "Reader",
    "declaration",
    "key",
    "read",
    "register",
]
