"""Mortara's ELI XML (root `ECG`): ELI 250, 280, 380 and ELI Link; base64 of int16 in attributes.

One idea: what a channel states of its samples (bits, sign, encoding, number) must be there and
hold; nothing is taken for usual. The typical beat (`TYPICAL_CYCLE`) is not read. Age and sex are
read; statements are not labels.

Source: no public specification; the attributes as EDFbrowser, BRAVEHEART and ecgdatakit, which
agree, read them.
"""

import base64
import binascii
import re
from datetime import date
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from ecgcmr.errors import Excluded
from ecgcmr.raw import diagnoses, markup
from ecgcmr.raw.records import EcgRecord, age_in_years, key, patient, sex, standard_leads
from ecgcmr.raw.statements import UNDECLARED, Declaration

ROOT = "ECG"
_FORM = {"BITS": "16", "FORMAT": "SIGNED", "ENCODING": "BASE64"}


def find(path: str) -> list[str]:
    """List the Mortara files under a folder, or the one named.

    Raises:
        InputError: the path does not exist or holds none.
    """
    return markup.find(path, ROOT, "Mortara")


def suits(file: Path, head: bytes) -> bool:
    """Whether a file begins as Mortara's XML does."""
    return markup.root_element(head) == ROOT


def read(source: str, declaration: Declaration = UNDECLARED) -> EcgRecord:
    """Read the rhythm of one recording.

    Raises:
        Excluded: it is no Mortara file, its samples are not as stated, or rate or gain are not
            stated.
    """
    root = markup.parse(source)
    channels = root.findall("CHANNEL")
    if root.tag != ROOT or not channels:
        raise Excluded("not a Mortara file")
    rate_hz = _rate(channels)
    rows = [(channel.get("NAME", ""), _millivolts(channel, rate_hz)) for channel in channels]
    signal, leads = standard_leads(rows)
    declaration.check_names(leads)
    declaration.millivolts("mV")  # the format states counts per mV
    subject = root.find("SUBJECT")
    subject = Element("SUBJECT") if subject is None else subject
    return EcgRecord(
        key=key(source),
        signal=signal,
        rate_hz=declaration.rate(rate_hz),
        leads=leads,
        age=_age(root, subject),
        sex=sex(subject.get("GENDER", "")),
        height=None,
        weight=None,
        labels={},
        repairs=(),
        patient=patient(subject.get("ID")),
    )


def _rate(channels: list[Element]) -> float | None:
    """Hz; None where it is not stated."""
    rates = {channel.get("SAMPLE_FREQ", "").strip() for channel in channels}
    if len(rates) > 1:
        raise Excluded("leads of several sampling rates")
    word = rates.pop()
    rate_hz = diagnoses.number(word)
    if word and not (rate_hz and rate_hz > 0):
        raise Excluded("sampling rate unknown")
    return rate_hz


def _millivolts(channel: Element, rate_hz: float | None) -> np.ndarray:
    """One lead's samples, (n,), mV."""
    if diagnoses.number(channel.get("OFFSET", "0")) != 0:  # which readers add, or pass over
        raise Excluded("lead with an offset")
    gain = markup.positive(diagnoses.number(channel.get("UNITS_PER_MV", "")), "gain")
    return _counts(channel, rate_hz) / gain


def _counts(channel: Element, rate_hz: float | None) -> np.ndarray:
    """Little-endian int16, as many as stated: a number of samples, or of milliseconds."""
    if any(channel.get(name, "").strip().upper() != word for name, word in _FORM.items()):
        raise Excluded("samples are not signed numbers of 16 bits in base64")
    try:
        payload = base64.b64decode("".join(channel.get("DATA", "").split()), validate=True)
    except (binascii.Error, ValueError):
        raise Excluded("samples are not base64") from None
    if len(payload) % 2:
        raise Excluded("samples are not of 16 bits")
    n_samples = len(payload) // 2
    durations = (n_samples, round(1000 * n_samples / (rate_hz or 1000)))
    if markup.whole(channel.get("DURATION", "").strip()) not in durations:
        raise Excluded("number of samples differs from the stated")
    return np.frombuffer(payload, "<i2").astype(np.float64)


def _age(root: Element, subject: Element) -> float | None:
    in_years = root.get("AGE_UNITS", "").strip().upper() in ("Y", "YEARS")
    stated_age = diagnoses.years(root.get("AGE", "")) if in_years else None
    recording = _date(root.get("ACQUISITION_TIME", "")[:8])
    return age_in_years(stated_age, _date(subject.get("DOB", "")), recording)


def _date(word: str) -> date | None:
    """A day, YYYYMMDD; None for what names none."""
    if not re.fullmatch(r"\d{8}", word.strip()):
        return None
    try:
        return date.fromisoformat(word.strip())
    except ValueError:
        return None
