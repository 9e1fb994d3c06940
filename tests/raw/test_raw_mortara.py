"""Mortara's ELI XML, held against an encoder written for the tests and against the library's reading."""

import base64

import ecgdatakit
import handmade_exports as made
import numpy as np
import pytest

from ecgcmr.errors import Excluded, InputError
from ecgcmr.raw import READERS, declaration, mortara, search
from ecgcmr.signals import ecg

SIGNAL = made.beats()
STEPS = np.round(SIGNAL * 400) / 400


@pytest.fixture(scope="module")
def export():
    return made.mortara(SIGNAL)


def read(tmp_path, content, **options):
    path = tmp_path / "a.xml"
    path.write_bytes(content)
    return mortara.read(str(path), declaration(**options))


def test_all_leads_to_the_step(tmp_path, export):
    record = read(tmp_path, export)
    assert np.abs(record.signal - STEPS).max() < 1e-6
    assert (record.rate_hz, record.leads, record.repairs) == (500, ecg.LEADS, ())
    assert (record.age, record.sex) == (made.AGE, 0)
    assert not [secret for secret in made.SECRETS if secret in repr(record)[:2000]]
    assert search.whose("ecg", tmp_path / "a.xml") == "mortara"
    ecg.prepare(record.signal, record.rate_hz, record.leads)


def test_the_library_reads_the_same(tmp_path):
    """1000 Hz and leads in another order and case, one that is none of the twelve between them."""
    signal = np.vstack([made.beats(samples=10_000, rate=1000)[::-1], np.ones(10_000)])
    names = [*(lead.upper() for lead in ecg.LEADS[::-1]), "V7"]
    record = read(tmp_path, made.mortara(signal, names, units=200, rate=1000))
    theirs = ecgdatakit.FileParser.parse(tmp_path / "a.xml", units="mV")
    assert record.rate_hz == 1000
    assert record.signal.shape == (12, 10_000)
    for lead, row in zip(theirs.leads, record.signal):
        assert np.abs(lead.samples - row).max() < 1e-6
    settled = ecg.settle(record.signal, record.rate_hz, record.leads)
    assert np.abs(settled[:, 50:-50] - made.beats()[:, 50:-50]).max() < 0.2  # noise of its own


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b'UNITS_PER_MV="400"', b"", "gain unknown"),
        (b'UNITS_PER_MV="400"', b'UNITS_PER_MV="0"', "gain unknown"),
        (b'UNITS_PER_MV="400"', b'UNITS_PER_MV="-400"', "gain unknown"),
        (b' SAMPLE_FREQ="500"', b"", "sampling rate unknown.*--rate"),
        (b'SAMPLE_FREQ="500"', b'SAMPLE_FREQ="0"', "sampling rate unknown"),
        (b'SAMPLE_FREQ="500"', b'SAMPLE_FREQ="fast"', "sampling rate unknown"),
        (b'OFFSET="0"', b'OFFSET="12"', "lead with an offset"),
        (b'BITS="16"', b'BITS="12"', "not signed numbers of 16 bits"),
        (b' BITS="16"', b"", "not signed numbers of 16 bits"),
        (b'"SIGNED"', b'"UNSIGNED"', "not signed numbers of 16 bits"),
        (b'"BASE64"', b'"LZW"', "not signed numbers of 16 bits"),
        (b'DURATION="5000"', b'DURATION="6000"', "number of samples differs"),
        (b'DURATION="5000"', b"", "number of samples differs"),
        (b"CHANNEL", b"KANAL", "not a Mortara file"),
        (b"<ECG ", b"<EKG ", "malformed XML"),
        (b'NAME="V3" ENC', b'NAME="X" ENC', None),
        (b"?>", b'?><!DOCTYPE a [<!ENTITY b "c">]>', "declares entities"),
    ],
)
def test_what_is_refused(tmp_path, export, old, new, reason):
    if reason is None:
        record = read(tmp_path, export.replace(old, new))
        with pytest.raises(Excluded, match="a lead is missing"):
            ecg.prepare(record.signal, record.rate_hz, record.leads)
    else:
        with pytest.raises(Excluded, match=reason):
            read(tmp_path, export.replace(old, new))


@pytest.mark.parametrize(
    ("data", "reason"),
    [("12,-7,3", "samples are not base64"), ("QUJD", "samples are not of 16 bits")],
)
def test_samples_that_are_none_are_refused(tmp_path, export, data, reason):
    v6 = base64.b64encode(np.round(SIGNAL[11] * 400).astype("<i2").tobytes())
    assert v6 in export
    with pytest.raises(Excluded, match=reason):
        read(tmp_path, export.replace(v6, data.encode()))


def test_leads_of_several_rates_are_refused(tmp_path, export):
    with pytest.raises(Excluded, match="leads of several sampling rates"):
        read(tmp_path, export.replace(b'FREQ="500" NAME="V3"', b'FREQ="250" NAME="V3"'))


def test_a_duration_in_milliseconds_is_one_too(tmp_path, export):
    assert read(tmp_path, export.replace(b'"5000"', b'"10000"')).signal.shape == (12, 5000)


@pytest.mark.parametrize(
    ("old", "new", "age", "sex"),
    [
        (b' AGE="67"', b"", 67, 0),
        (b' AGE_UNITS="YEARS"', b"", 67, 0),
        (b'DOB="19510423"', b'DOB="00000000"', 67, 0),
        (b'AGE="67" AGE_UNITS="YEARS"', b'AGE="20" AGE_UNITS="YEARS"', None, 0),
        (b'AGE="67" AGE_UNITS="YEARS"', b'AGE="67" AGE_UNITS="MONTHS"', 67, 0),
        (b'GENDER="Female"', b'GENDER="M"', 67, 1),
        (b'GENDER="Female"', b'GENDER="Unknown"', 67, None),
        (b"<SUBJECT ", b"<PERSON ", 67, None),
    ],
)
def test_age_and_sex(tmp_path, export, old, new, age, sex):
    record = read(tmp_path, export.replace(old, new))
    assert (record.age, record.sex) == (age, sex)


def test_what_is_declared_must_not_contradict(tmp_path, export):
    assert read(tmp_path, export, rate_hz=500, unit="mV").rate_hz == 500
    assert read(tmp_path, export.replace(b' SAMPLE_FREQ="500"', b""), rate_hz=500).rate_hz == 500
    for options, words in (({"rate_hz": 250}, "--rate"), ({"unit": "uV"}, "--unit")):
        with pytest.raises(Excluded, match=f"{words} contradicts"):
            read(tmp_path, export, **options)


def test_it_is_told_from_other_xml_of_a_folder(tmp_path, export):
    (tmp_path / "a.xml").write_bytes(export)
    (tmp_path / "b.xml").write_bytes(made.muse(SIGNAL))
    assert mortara.find(str(tmp_path)) == [str(tmp_path / "a.xml")]
    assert READERS["ecg"]["mortara"] is mortara
    (tmp_path / "a.xml").unlink()
    with pytest.raises(InputError, match="no Mortara file"):
        mortara.find(str(tmp_path))
