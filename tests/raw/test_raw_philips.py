"""Philips XML, packed and not, held against an encoder written for the tests."""

import handmade_exports as made
import numpy as np
import pytest

from ecgcmr.errors import Excluded
from ecgcmr.raw import READERS, declaration, philips, search
from ecgcmr.signals import ecg

SIGNAL = made.beats()
STEPS = np.round(SIGNAL / 5e-3) * 5e-3


@pytest.fixture(scope="module")
def packed():
    return made.philips(SIGNAL)


def read(tmp_path, content, **options):
    path = tmp_path / "a.xml"
    path.write_bytes(content)
    return philips.read(str(path), declaration(**options))


@pytest.mark.parametrize(
    ("form", "encoding"),
    [
        ({}, "utf-8"),
        ({"packed": False}, "utf-8"),
        ({"version": "1.03"}, "utf-8"),
        ({"version": "1.04.01"}, "utf-16"),
    ],
)
def test_all_leads_to_the_step(tmp_path, form, encoding):
    text = (
        made.philips(SIGNAL, **form).decode().replace('encoding="UTF-8"', f'encoding="{encoding}"')
    )
    record = read(tmp_path, text.encode(encoding))
    assert np.abs(record.signal - STEPS).max() < 1e-6
    assert (record.rate_hz, record.leads) == (500, ecg.LEADS)
    assert record.repairs == (philips.PULSE,)
    assert (record.age, record.sex) == (made.AGE, 0)
    assert not [secret for secret in made.SECRETS if secret in repr(record)[:2000]]
    assert search.whose("ecg", tmp_path / "a.xml") == "philips"


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b"1.04<", b"2.0<", "version or compression of Philips' XML"),
        (b"PhilipsECG", b"MortaraECG", "version or compression of Philips' XML"),
        (
            b'compression="XLI"',
            b'compression="ZIP"',
            "number of samples differs|version or compression",
        ),
        (b"parsedwaveforms", b"otherwaveforms", "no rhythm waveform"),
        (b'durationperchannel="11000"', b'durationperchannel="12000"', "number of samples differs"),
        (b'durationperchannel="11000"', b'durationperchannel=""', "number of samples unknown"),
        (b"restingecgdata", b"otherdata", "not a Philips file"),
        (b'encoding="UTF-8"?>', b'?><!DOCTYPE a [<!ENTITY b "c">]>', "declares entities"),
    ],
)
def test_what_is_refused(tmp_path, packed, old, new, reason):
    with pytest.raises(Excluded, match=reason):
        read(tmp_path, packed.replace(old, new))


def test_a_resolution_that_is_not_stated_is_refused(tmp_path, packed):
    blank = packed.replace(b'resolution="5"', b"").replace(
        b"<signalresolution>5<", b"<signalresolution><"
    )
    with pytest.raises(Excluded, match="gain unknown"):
        read(tmp_path, blank)


def test_age_is_counted_where_it_is_blank(tmp_path, packed):
    assert read(tmp_path, packed.replace(b"<years>67", b"<years>")).age == 67
    assert read(tmp_path, packed.replace(b"<years>67", b"<years>47")).age is None
    assert read(tmp_path, packed.replace(b"Female", b"Unknown")).sex is None


def test_what_is_declared_must_not_contradict(tmp_path, packed):
    assert read(tmp_path, packed, rate_hz=500, unit="uV").rate_hz == 500
    for options, words in (({"rate_hz": 250}, "--rate"), ({"unit": "mV"}, "--unit")):
        with pytest.raises(Excluded, match=f"{words} contradicts"):
            read(tmp_path, packed, **options)


def test_strings_that_expand_without_end_are_not_decoded(tmp_path):
    """LZW's codes of ever longer strings: 100 kB of them are 50 MB."""
    codes = [0, *range(256, 1022), *[1021] * 80_000]
    stream = "".join(f"{code:010b}" for code in codes)
    body = int(stream + "0" * (-len(stream) % 8), 2).to_bytes(len(stream) // 8 + 1, "big")
    assert philips._string_lengths(body) > 2 * philips.SAMPLES_LIMIT
    row = made._lzw(bytes(range(256)) * 40)
    assert philips._string_lengths(row) == 256 * 40


def test_registry():
    assert READERS["ecg"]["philips"] is philips
