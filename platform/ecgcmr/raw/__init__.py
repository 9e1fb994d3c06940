"""Raw recordings: one file per format, each with `find(path)` and `read(source)`, and the registry of them."""

from ecgcmr.errors import Excluded
from ecgcmr.raw import sax_dicom, sax_nifti, wfdb
from ecgcmr.raw.records import CmrRecord, EcgRecord, Reader

READERS: dict[str, Reader] = {"wfdb": wfdb, "nifti": sax_nifti, "dicom": sax_dicom}

__all__ = ["READERS", "CmrRecord", "EcgRecord", "Excluded", "Reader"]
