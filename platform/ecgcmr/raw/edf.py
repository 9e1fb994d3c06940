"""EDF and EDF+: the leads among a file's signals, decoded by `ecgdatakit`.

One idea: the library reads header and samples, this reader decides what may pass: signals named as
leads, of one rate and a voltage, without a gap, as many as the header states. Other signals (EEG,
breath, a pressure) stay in the file. Age and sex are read from EDF+; plain EDF has free text there.

Source: Kemp et al. 1992; edfplus.info.
"""

import re
import warnings
from datetime import date, datetime
from pathlib import Path
from typing import Any

import ecgdatakit
import numpy as np

from ecgcmr.errors import Excluded
from ecgcmr.raw import archive
from ecgcmr.raw.records import (
    FILE_LIMIT,
    EcgRecord,
    age_in_years,
    key,
    patient,
    sex,
    standard_leads,
)
from ecgcmr.raw.statements import UNDECLARED, Declaration
from ecgcmr.signals import ecg

MAGIC = b"0       "  # the version, in eight characters
ENDINGS = (".edf",)
HEAD = 256  # bytes of the header, and of each signal's


def find(path: str) -> list[str]:
    """List the `*.edf` under a folder or in an archive, or the one file named.

    Raises:
        InputError: the path does not exist or holds none.
    """
    return archive.named(path, ENDINGS, "EDF")


def suits(file: Path, head: bytes) -> bool:
    """Whether a file begins as EDF does."""
    return head.startswith(MAGIC) and head[252:256].strip().isdigit()


def read(source: str, declaration: Declaration = UNDECLARED) -> EcgRecord:
    """Read one recording.

    Raises:
        Excluded: it cannot be decoded, is cut short or interrupted, or its leads have several
            rates, no gain, no unit or samples beyond their limits.
    """
    with archive.opened(source) as file:
        record = _decoded(file)
    leads = [lead for lead in record.leads if ecg.lead_name(_name(lead))]
    signal, names = standard_leads(
        [(_name(lead), _millivolts(lead, declaration)) for lead in leads]
    )
    declaration.check_names(names)
    header = record.patient
    is_plus = bool(record.raw_metadata.get("is_edfplus"))
    return EcgRecord(
        key=key(source),
        signal=signal,
        rate_hz=declaration.rate(_rate(record, leads)),
        leads=names,
        age=age_in_years(None, _day(header.birth_date), _day(record.recording.date)),
        sex=sex(header.sex or "") if is_plus else None,
        height=None,
        weight=None,
        labels={},
        repairs=(),
        patient=patient(header.patient_id) if is_plus else None,
    )


def _decoded(file: Path) -> ecgdatakit.ECGRecord:
    if file.stat().st_size > FILE_LIMIT:
        raise Excluded("file too large")
    with file.open("rb") as stream:
        head = stream.read(HEAD)
    if not suits(file, head):
        raise Excluded("not an EDF file")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what matters below the record says too
        try:
            record = ecgdatakit.FileParser.parse(file, auto_scale=False)
        except Exception:  # the library's errors quote the file, and a damaged one can meet any
            raise Excluded("unreadable EDF file") from None
    _check_length(file, head, record.raw_metadata)
    return record


def _check_length(file: Path, head: bytes, facts: dict[str, Any]) -> None:
    """Refuse a file that ends before or goes on behind its last record, or was interrupted.

    Raises:
        Excluded: it does.
    """
    blocks, stated_blocks = facts["num_records"], head[236:244].strip()
    if stated_blocks not in (b"-1", str(blocks).encode()):
        raise Excluded("file cut short: fewer records than the header states")
    signals = int(head[252:256])
    with file.open("rb") as stream:
        stream.seek(HEAD + 216 * signals)
        samples = [int(stream.read(8)) for _ in range(signals)]
    size = HEAD * (1 + signals) + 2 * blocks * sum(samples)
    if stated_blocks != b"-1" and file.stat().st_size != size:
        raise Excluded("number of samples differs from the stated")
    onsets = np.array(facts.get("record_onsets", ()))
    if len(onsets) > 1 and not np.allclose(np.diff(onsets), facts["record_duration"], atol=1e-6):
        raise Excluded("recording with gaps")


def _name(lead: ecgdatakit.Lead) -> str:
    # a second signal of one name is called I_2: under its own name it is refused as a double
    return re.sub(r"_\d+$", "", lead.label)


def _millivolts(lead: ecgdatakit.Lead, declaration: Declaration) -> np.ndarray:
    """One lead's samples, (n,), mV."""
    gain = float(lead.resolution)
    if not np.isfinite(gain) or gain <= 0 or not _has_range(lead):
        raise Excluded("gain unknown")  # below 0 it would stand the lead on its head
    low, high = _digital_limits(lead)
    counts = np.asarray(lead.samples)
    if counts.min(initial=low) < low - 1 or counts.max(initial=high) > high + 1:
        raise Excluded("samples beyond the digital limits of the header")  # other bytes, not counts
    unit = declaration.millivolts(lead.adc_resolution_unit or "")
    return (counts * gain + float(lead.offset)) * unit


def _digital_limits(lead: ecgdatakit.Lead) -> tuple[float, float]:
    return float(lead.annotations["digital_minimum"]), float(lead.annotations["digital_maximum"])


def _has_range(lead: ecgdatakit.Lead) -> bool:
    """Whether digital and physical limits are there; else the library leaves counts."""
    low, high = _digital_limits(lead)
    low_mv, high_mv = (float(lead.annotations[f"physical_{end}"]) for end in ("minimum", "maximum"))
    return high > low and high_mv != low_mv


def _rate(record: ecgdatakit.ECGRecord, leads: list[ecgdatakit.Lead]) -> float | None:
    """Hz; one that is no whole number lies beside, as the library rounds it."""
    exact = record.raw_metadata.get("exact_sampling_rates", {})
    rates = {float(exact.get(lead.label, lead.sampling_rate)) for lead in leads}
    if len(rates) > 1:
        raise Excluded("leads of several sampling rates")
    return rates.pop() if rates else None


def _day(moment: datetime | None) -> date | None:
    return moment.date() if moment else None
