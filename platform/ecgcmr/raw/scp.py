"""SCP-ECG (EN 1064, ISO 11073-91064): the rhythm data of section 6, decoded by `ecgdatakit`.

One idea: the library decodes, this reader decides what may pass. Its decoding (Huffman code, second
differences, gain) is exact for a recording that exists in three formats; subtracted reference beats
and tables of the file's own are held against an encoder in the tests. Bimodal compression and
long-term data are refused, as is a record whose checksums fail. Of the header only age and sex are
read.
"""

import re
import warnings
from datetime import date, datetime
from pathlib import Path

import ecgdatakit
import numpy as np

from ecgcmr.errors import Excluded
from ecgcmr.raw import archive
from ecgcmr.raw.records import EcgRecord, age_in_years, key, patient, standard_leads
from ecgcmr.raw.statements import UNDECLARED, Declaration

_NOT_DECODED = "SCP-ECG compression that is not decoded"
# Bytes; ten seconds need 35 to 240 kB, and the library needs seconds to decode a MiB.
LIMIT = 1 << 20


def find(path: str) -> list[str]:
    """List the `*.scp` under a folder, or the one file named.

    Raises:
        InputError: the path does not exist or holds none.
    """
    return archive.named(path, (".scp",), "SCP-ECG")


def suits(file: Path, head: bytes) -> bool:
    """Whether a file begins with SCP-ECG's section 0; its first pointer is to itself at byte 7."""
    return head[8:10] == b"\0\0" and head[22:24] == b"\0\0" and head[28:32] == b"\7\0\0\0"


def read(source: str, declaration: Declaration = UNDECLARED) -> EcgRecord:
    """Read one recording.

    Raises:
        Excluded: it cannot be decoded, its checksums fail, its leads are not simultaneous, or its
            gain is not stated.
    """
    with archive.opened(source) as file:
        record = _decoded(file)
    signal, leads = standard_leads(_rows(record))
    declaration.check_names(leads)
    declaration.millivolts("nV")  # in which the standard states every step
    header = record.patient
    stated_age = None if header.age is None else float(header.age)
    return EcgRecord(
        key=key(source),
        signal=signal,
        rate_hz=declaration.rate(float(record.leads[0].sampling_rate)),
        leads=leads,
        age=age_in_years(stated_age, _day(header.birth_date), _day(record.recording.date)),
        sex={"F": 0.0, "M": 1.0}.get(header.sex),
        height=None,
        weight=None,
        labels={},
        repairs=(),
        patient=patient(header.patient_id),
    )


def _day(moment: datetime | None) -> date | None:
    return moment.date() if moment else None


def _decoded(file: Path) -> ecgdatakit.ECGRecord:
    try:
        with file.open("rb") as stream:
            head, size = stream.read(32), file.stat().st_size
    except OSError:
        raise Excluded("unreadable file") from None
    if not size:
        raise Excluded("empty file")
    if size > LIMIT:
        raise Excluded("SCP-ECG too large for a resting ECG")
    if not suits(file, head):
        raise Excluded("not an SCP-ECG record")
    return _parsed(file)


def _parsed(file: Path) -> ecgdatakit.ECGRecord:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the library warns of, the record says too
        try:
            detection = ecgdatakit.FileParser.detect_format(file)
            if detection and detection["name"] == "SCP-ECG":
                return ecgdatakit.FileParser.parse(file, units="mV")
        except ecgdatakit.UnsupportedFormatError:
            raise Excluded(_NOT_DECODED) from None
        except Exception:  # the library's errors quote the file, and a damaged one can meet any
            raise Excluded("unreadable SCP-ECG record") from None
    raise Excluded("not an SCP-ECG record")


def _rows(record: ecgdatakit.ECGRecord) -> list[tuple[str, np.ndarray]]:
    """The leads in mV under the names that the library gives them, if they can be relied on."""
    if record.raw_metadata.get("checksum_valid") is not True:
        raise Excluded("samples differ from the checksum")
    if "bimodal" in record.recording.acquisition.signal.compression:
        raise Excluded(_NOT_DECODED)
    if any(lead.is_raw or lead.units != "mV" for lead in record.leads):
        raise Excluded("gain unknown")
    if any("start_sample" in lead.annotations for lead in record.leads):
        raise Excluded("leads not recorded together")
    # a second lead of one name is called I_2: under its own name it is refused as a double
    return [(re.sub(r"_\d+$", "", lead.label), lead.samples) for lead in record.leads]
