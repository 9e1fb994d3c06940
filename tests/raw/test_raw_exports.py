"""What devices export (CardioSoft, MUSE, HL7 aECG, SCP-ECG): traps, damage, and what must not leave a reader."""

import dataclasses
import re
import zipfile
from datetime import date
from pathlib import Path

import handmade_exports as made
import numpy as np
import pytest

from ecgcmr.errors import Excluded, InputError
from ecgcmr.raw import READERS, aecg, cardiosoft, markup, muse, scp
from ecgcmr.raw.records import age_in_years, patient, standard_leads
from ecgcmr.signals import ecg

SIGNAL = made.beats()
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "ecg" / "formats"
READER = {"cardiosoft": cardiosoft, "muse": muse, "aecg": aecg, "scp": scp}
CONTENT = {name: getattr(made, name)(SIGNAL) for name in READER}
STEP = {"cardiosoft": 5e-3, "muse": 4.88e-3, "aecg": 2.5e-3, "scp": 2.5e-3}  # mV
XML = [name for name in READER if name != "scp"]
SHUFFLED = tuple(ecg.LEADS[i] for i in np.random.default_rng(1).permutation(12))


def read(name, content, folder, stem="r1"):
    file = folder / f"{stem}.{'scp' if name == 'scp' else 'xml'}"
    file.write_bytes(content)
    return READER[name].read(str(file))


def swapped(name, *pairs, count=1):
    """A format's text with words replaced; every one of them must be there."""
    content = CONTENT[name]
    for old, new in pairs:
        assert old.encode("latin-1") in content
        content = content.replace(old.encode("latin-1"), new.encode("latin-1"), count)
    return content


def prepared(name, content, folder):
    record = read(name, content, folder)
    return ecg.prepare(record.signal, record.rate_hz, record.leads)


def refusal(name, content, folder):
    with pytest.raises(Excluded) as caught:
        prepared(name, content, folder)
    said = str(caught.value) + repr(caught.value.__cause__)
    assert not [secret for secret in made.SECRETS if secret in said]
    return str(caught.value)


def permuted(name, leads):
    rows = np.stack([dict(zip(ecg.LEADS, SIGNAL))[ecg.lead_name(lead)] for lead in leads])
    return getattr(made, name)(rows if name in ("cardiosoft", "aecg") else SIGNAL, leads)


# --- what is read


@pytest.mark.parametrize("name", READER)
def test_an_archive_is_read_in_place(name, tmp_path):
    ending = "scp" if name == "scp" else "xml"
    with zipfile.ZipFile(tmp_path / "visits.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"2015/7000001_20205_2_0.{ending}", CONTENT[name])
        archive.writestr("readme.txt", "nothing")
    (source,) = READER[name].find(str(tmp_path))
    assert READER[name].find(str(tmp_path / "visits.zip")) == [source]
    record, loose = (
        READER[name].read(source),
        read(name, CONTENT[name], tmp_path, "7000001_20205_2_0"),
    )
    assert (
        (record.key, record.person)
        == (loose.key, loose.person)
        == ("7000001_20205_2_0", loose.person)
    )
    np.testing.assert_array_equal(record.signal, loose.signal)
    with pytest.raises(Excluded, match="not in the archive"):
        READER[name].read(f"{tmp_path / 'visits.zip'}#2015/other.{ending}")


@pytest.mark.parametrize("name", READER)
def test_samples_come_back(name, tmp_path):
    record = read(name, CONTENT[name], tmp_path, "1000001_20205_2_0")
    row = {lead: SIGNAL[i] for i, lead in enumerate(ecg.LEADS)}
    assert record.signal.dtype == np.float32
    assert all(
        np.abs(found - row[lead]).max() < 0.51 * STEP[name]
        for lead, found in zip(record.leads, record.signal)
    )
    assert (record.key, record.rate_hz, record.age, record.sex) == (
        "1000001_20205_2_0",
        500,
        made.AGE,
        0.0,
    )
    assert (record.labels, record.height, record.weight) == ({}, None, None)
    settled = ecg.settle(record.signal, record.rate_hz, record.leads)
    assert ecg.quality(settled) == []
    assert np.abs(settled - SIGNAL).max() < 2 * STEP[name]


@pytest.mark.parametrize("name", READER)
def test_leads_in_any_order_and_case(name, tmp_path):
    leads = (
        SHUFFLED
        if name == "scp"
        else tuple(lead.lower() if i % 2 else lead.upper() for i, lead in enumerate(SHUFFLED))
    )
    record = read(name, permuted(name, leads), tmp_path)
    assert record.leads == SHUFFLED
    assert (
        np.abs(ecg.settle(record.signal, record.rate_hz, record.leads) - SIGNAL).max()
        < 0.51 * STEP[name]
    )


@pytest.mark.parametrize("name", READER)
def test_a_lead_that_is_missing_or_there_twice(name, tmp_path):
    assert refusal(name, permuted(name, made.EIGHT[:-1]), tmp_path) == "a lead is missing"
    assert refusal(name, permuted(name, (*made.EIGHT, "V1")), tmp_path) == "two leads of one name"


@pytest.mark.parametrize("name", READER)
def test_other_rates_and_short_recordings(name, tmp_path):
    content = getattr(made, name)(SIGNAL[:, :4999])
    assert refusal(name, content, tmp_path) == "shorter than 10 s"
    if name != "scp":
        fast = {
            "cardiosoft": {"rate": 1000},
            "muse": {"base": 1, "exponent": 3},
            "aecg": {"increment": "0.001"},
        }[name]
        record = read(
            name, getattr(made, name)(made.beats(samples=10_000, rate=1000), **fast), tmp_path
        )
        assert record.rate_hz == 1000
        assert ecg.prepare(record.signal, record.rate_hz, record.leads)[0].shape == (12, 5000)


@pytest.mark.parametrize("name", READER)
def test_nothing_identifying_leaves(name, tmp_path):
    content = CONTENT[name]
    assert made.LAST.encode() in content
    assert made.DOCTOR.encode() in content
    record = dataclasses.replace(read(name, content, tmp_path), signal=np.zeros(0))
    assert not [secret for secret in made.SECRETS if secret in repr(record)]
    assert record.patient == patient(made.ID)  # by which visits of a person share a split


@pytest.mark.parametrize("name", READER)
def test_the_name_of_a_lead_carries_nothing(name, tmp_path):
    if name == "scp":
        return  # its leads are numbers
    old = {"cardiosoft": 'lead="V6"', "muse": "<LeadID>V6<", "aecg": '"MDC_ECG_LEAD_V6"'}[name]
    content = swapped(name, (old, old.replace("V6", f"V6 {made.LAST}")), count=9)
    record = dataclasses.replace(read(name, content, tmp_path), signal=np.zeros(0))
    assert "V6" not in record.leads
    assert made.LAST not in repr(record)


def test_visits_of_a_person(tmp_path):
    people = {
        stem: read("cardiosoft", CONTENT["cardiosoft"], tmp_path, stem).person
        for stem in ("1000001_20205_2_0", "1000001_20205_3_0", "1000002_20205_2_0", "ward7")
    }
    assert list(people.values()) == ["1000001", "1000001", "1000002", None]


def test_the_filters_of_the_device_are_told(tmp_path):
    repairs = read("cardiosoft", CONTENT["cardiosoft"], tmp_path).repairs
    assert repairs == ("filtered by the device: high pass 0.05 Hz, low pass 100 Hz, notch 50 Hz",)
    content = swapped(
        "cardiosoft", ("<FilterSetting>", "<Other>"), ("</FilterSetting>", "</Other>")
    )
    assert read("cardiosoft", content, tmp_path).repairs == ()


def test_origin_of_an_aecg_is_added(tmp_path):
    record = read("aecg", made.aecg(SIGNAL, origin=100), tmp_path)
    assert (
        np.abs(ecg.settle(record.signal, record.rate_hz, record.leads) - SIGNAL).max()
        < 0.51 * STEP["aecg"]
    )


@pytest.mark.parametrize(
    ("name", "old", "new", "age"),
    [
        ("cardiosoft", 'units="years">67', 'units="years">', 67),
        ("cardiosoft", 'units="years">67', 'units="months">67', 67),
        (
            "cardiosoft",
            'units="years">67',
            'units="years">47',
            None,
        ),  # against the dates: nobody can tell
        ("cardiosoft", "<Month>4</Month>", "<Month>14</Month>", 67),
        ("muse", "YEARS", "MONTHS", None),
        ("muse", ">67<", ">300<", None),
        ("aecg", 'unit="a"', 'unit="mo"', 67),
        ("aecg", "19510423", "1951", 67),
        ("aecg", "19510423", "19410423", None),
    ],
)
def test_age(name, old, new, age, tmp_path):
    assert read(name, swapped(name, (old, new)), tmp_path).age == age


@pytest.mark.parametrize(
    ("name", "old"), [("cardiosoft", "FEMALE"), ("muse", "FEMALE"), ("aecg", 'Code code="F"')]
)
def test_sex(name, old, tmp_path):
    for word, sex in (("M", 1.0), ("m", None if name == "aecg" else 1.0), ("UN", None), ("", None)):
        new = f'Code code="{word}"' if name == "aecg" else word
        assert read(name, swapped(name, (old, new)), tmp_path).sex == sex


def test_a_patient_number_becomes_a_hash_of_those_that_count_somebody():
    assert patient(" 0012 3a") == patient("123A") != patient("1234")
    assert [patient(word) for word in (None, "", "0000", "ANONYMOUS", "^^")] == [None] * 5
    assert len(patient(made.ID)) == 16


def test_age_in_years_is_counted_in_full_years():
    assert age_in_years(None, date(1951, 4, 23), date(2019, 4, 22)) == 67
    assert age_in_years(None, date(1951, 4, 23), date(2019, 4, 23)) == 68
    assert age_in_years(None, date(2019, 4, 23), date(1951, 4, 23)) is None
    assert age_in_years(None, None, date(2019, 4, 23)) is None


# --- what is refused

NO_RATE = "sampling rate unknown: the file does not state it; give --rate HZ"


@pytest.mark.parametrize(
    ("name", "pairs", "reason"),
    [
        (
            "cardiosoft",
            [("<NumberOfLeads>12", "<NumberOfLeads>11")] * 2,
            "number of leads differs from the stated",
        ),
        (
            "cardiosoft",
            [("CountTotal>5000", "CountTotal>5001")],
            "number of samples differs from the stated",
        ),
        ("cardiosoft", [('"uVperLsb">5', '"uVperLsb">0')], "gain unknown"),
        (
            "cardiosoft",
            [('"uVperLsb">5', '"uVperLsb">'), ("<Resolution", "<Resolution")],
            "gain unknown",
        ),
        ("cardiosoft", [('"uVperLsb">5', '"mmHgperLsb">5')], "unit is not a voltage"),
        ("cardiosoft", [('"uVperLsb">5', '"mVperLsb">5')], "implausible amplitude"),
        ("cardiosoft", [('"Hz">500', '"Hz">')], NO_RATE),
        ("cardiosoft", [('"Hz">500', '"ms">500')], "sampling rate unknown"),
        ("cardiosoft", [('"Hz">500', '"Hz">1e-9')], "implausible sampling rate"),
        ("cardiosoft", [("RestECG", "VectorECG")], "not a resting ECG"),
        ("cardiosoft", [("StripData>", "OtherData>")] * 2, "not a resting ECG"),
        (
            "muse",
            [("LeadSampleCountTotal>5000", "LeadSampleCountTotal>2500")],
            "number of samples differs from the stated",
        ),
        (
            "muse",
            [("LeadByteCountTotal>10000", "LeadByteCountTotal>5000")],
            "number of samples differs from the stated",
        ),
        ("muse", [("<WaveformType>Rhythm", "<WaveformType>Other")], "no rhythm waveform"),
        ("muse", [("<WaveformType>Median", "<WaveformType>Rhythm")], "several rhythm waveforms"),
        ("muse", [("</Waveform>", "")], "malformed XML"),
        ("muse", [("<SampleBase>500", "<SampleBase>0")], NO_RATE),
        ("aecg", [('code="RHYTHM"', 'code="OTHER"')], "no rhythm series"),
        ("aecg", [('value="0.002"', 'value="0"')], NO_RATE),
        ("aecg", [('"0.002" unit="s"', '"0.002" unit="mV"')], "sampling rate unknown"),
        ("aecg", [('"0.002" unit="s"', '"2" unit="min"')], "sampling rate unknown"),
        ("aecg", [('code="TIME_ABSOLUTE"', 'code="OTHER"')], NO_RATE),
    ],
)
def test_what_a_file_states_is_held_against_it(name, pairs, reason, tmp_path):
    assert refusal(name, swapped(name, *pairs), tmp_path) == reason


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("LeadDataCRC32>", "LeadDataCRC32>1", "samples differ from the checksum"),
        ("MICROVOLTS", "PASCALS", "unit is not a voltage"),
        ("MICROVOLTS", "", "unit unknown: the file does not state it; give --unit, e.g. mV"),
        ("MICROVOLTS", "MILLIVOLTS", "implausible amplitude"),
        ("UnitsPerBit>4.88", "UnitsPerBit>", "gain unknown"),
        ("UnitsPerBit>4.88", "UnitsPerBit>-4.88", "gain unknown"),
        ("FirstSampleBaseline>0", "FirstSampleBaseline>12", "lead with an offset"),
        ("LeadTimeOffset>0", "LeadTimeOffset>2500", "lead with an offset"),
        ("LeadOff>FALSE", "LeadOff>TRUE", "electrode off"),
        ("LeadSampleSize>2", "LeadSampleSize>4", "samples are not of 16 bits"),
        ("<WaveFormData>", "<WaveFormData>!", "samples are not base64"),
        (
            "<WaveFormData>",
            "<WaveFormData>AAAA",
            "samples are not of 16 bits|samples are not base64",
        ),
    ],
)
def test_a_lead_of_muse_that_does_not_hold(old, new, reason, tmp_path):
    content = swapped("muse", (old, new), count=99)
    assert re.fullmatch(reason, refusal("muse", content, tmp_path))


def test_muse_without_a_checksum_is_read(tmp_path):
    content = re.sub(rb"(<LeadDataCRC32>)\d+", rb"\g<1>0", CONTENT["muse"])
    assert read("muse", content, tmp_path).signal.shape == (8, 5000)
    with pytest.raises(Excluded, match="checksum"):
        read("muse", re.sub(rb"(<LeadDataCRC32>)\d+", rb"\g<1>77", CONTENT["muse"]), tmp_path)


@pytest.mark.parametrize(("name", "unit"), [("aecg", "uV"), ("cardiosoft", "uV")])
def test_a_unit_that_is_no_voltage(name, unit, tmp_path):
    content = CONTENT[name].replace(unit.encode(), b"kg")
    assert refusal(name, content, tmp_path) == "unit is not a voltage"


def test_leads_of_an_aecg_that_were_not_recorded_together(tmp_path):
    text = CONTENT["aecg"].decode()
    series = re.search(r"<component><series>.*?<derivation>", text, re.DOTALL)[0].replace(
        "<derivation>", ""
    )
    two = text.replace(
        "<component><series>", series + "</series></component><component><series>", 1
    )
    assert refusal("aecg", two.encode(), tmp_path) == "leads not recorded together"
    one = re.search(r"<component><sequenceSet>.*?</sequenceSet></component>", text, re.DOTALL)[0]
    assert (
        refusal("aecg", text.replace(one, one + one, 1).encode(), tmp_path)
        == "leads not recorded together"
    )


def test_two_rates_in_one_set_of_an_aecg(tmp_path):
    clock = '<sequence><code code="TIME_RELATIVE"/><value><increment value="0.004" unit="s"/></value></sequence>'
    clock = f"<component>{clock}</component>"
    content = swapped("aecg", ("<sequenceSet>", "<sequenceSet>" + clock))
    assert refusal("aecg", content, tmp_path) == "two sampling rates"
    content = swapped(
        "aecg",
        ("<sequenceSet>", "<sequenceSet>" + clock.replace('"0.004" unit="s"', '"2" unit="ms"')),
    )
    assert read("aecg", content, tmp_path).rate_hz == 500


@pytest.mark.parametrize("name", ["cardiosoft", "aecg"])
def test_leads_of_different_length(name, tmp_path):
    content = re.sub(
        rb"<ChannelSampleCountTotal>5000<", b"<ChannelSampleCountTotal><", CONTENT[name]
    )
    last = b"\n\t\t</WaveformData>" if name == "cardiosoft" else b"</digits>"
    longer = content.replace(last, (b",7" if name == "cardiosoft" else b" 7") + last, 1)
    assert refusal(name, longer, tmp_path) == "leads differ in length"


@pytest.mark.parametrize(
    ("word", "missing"), [("NaN", True), (" ", True), ("-", None), ("0x1f", None), ("inf", True)]
)
def test_samples_that_are_no_numbers(word, missing, tmp_path):
    head, lead, tail = CONTENT["cardiosoft"].rpartition(b'lead="V3">')
    words = tail.split(b",")
    words[100:150] = [word.encode()] * 50
    content = head + lead + b",".join(words)
    if not missing:
        assert refusal("cardiosoft", content, tmp_path) == "samples are not numbers"
        return
    record = read("cardiosoft", content, tmp_path)
    assert np.isnan(record.signal).sum() == 50
    signal, words = ecg.prepare(record.signal, record.rate_hz, record.leads)
    assert np.isfinite(signal).all()
    assert "missing samples set to 0" in words


def test_a_comma_after_the_last_sample(tmp_path):
    content = CONTENT["cardiosoft"].replace(b"\n\t\t</WaveformData>", b",\n\t\t</WaveformData>")
    assert read("cardiosoft", content, tmp_path).signal.shape == (12, 5000)


@pytest.mark.parametrize(
    "pairs",
    [
        [("RestECG", "StressECG")],
        [("<StripData>", "<StripData><Strip/>")],
        [("<StripData>", "<ExerciseMeasurements/><StripData>")],
    ],
)
def test_exercise_ecgs_are_refused(pairs, tmp_path):
    reason = "exercise ECG (field 6025), not a resting ECG"
    assert refusal("cardiosoft", swapped("cardiosoft", *pairs), tmp_path) == reason
    with pytest.raises(Excluded, match="field 6025"):
        read("cardiosoft", CONTENT["cardiosoft"], tmp_path, "1000001_6025_0_0")


# --- hostile and damaged XML

BOMB = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10 if i else "lol"}">' for i in range(9))


def declared(name, doctype, entity=""):
    """A format's text with another document type, and a reference to an entity in a field that is read."""
    text = CONTENT[name].decode("latin-1")
    text = re.sub(r"<!DOCTYPE[^>]*>\n", "", text)
    root = {"cardiosoft": "CardiologyXML", "muse": "RestingECG", "aecg": "AnnotatedECG"}[name]
    text = text.replace("?>\n", f"?>\n<!DOCTYPE {root} {doctype}>\n", 1)
    return (
        text.replace("<text>", f"<text>{entity}")
        .replace("FEMALE", entity or "FEMALE")
        .encode("latin-1")
    )


@pytest.mark.parametrize("name", XML)
@pytest.mark.parametrize(
    ("doctype", "entity"),
    [
        (f"[{BOMB}]", "&a8;"),
        ('[<!ENTITY x SYSTEM "file:///etc/passwd">]', "&x;"),
        ('[<!ENTITY % p SYSTEM "http://127.0.0.1:9/x.dtd"> %p;]', ""),
        (f'[<!ATTLIST lead x CDATA "{"y" * 1000}">]', ""),
    ],
)
def test_declarations_are_refused(name, doctype, entity, tmp_path):
    content = declared(name, doctype, entity)
    assert markup.root_element(content[: 4096 if "a8" not in entity else 200]) == READER[name].ROOT
    assert refusal(name, content, tmp_path) == "XML that declares entities or a DTD"


@pytest.mark.parametrize("name", XML)
def test_an_external_dtd_is_passed_over(name, tmp_path):
    content = declared(name, 'SYSTEM "http://127.0.0.1:9/restecg.dtd"')
    assert read(name, content, tmp_path).rate_hz == 500
    assert (
        refusal(name, declared(name, 'SYSTEM "restecg.dtd"', "&unknown;"), tmp_path)
        == "malformed XML"
    )


def test_sizes_are_bounded(tmp_path, monkeypatch):
    too_large = "XML too large for a resting ECG"
    for name, root in (
        ("muse", b"RestingECG"),
        ("cardiosoft", b"CardiologyXML"),
        ("aecg", b"AnnotatedECG"),
    ):
        deep = b"<%s>" % root + b"<a>" * 90_000 + b"</a>" * 90_000 + b"</%s>" % root
        assert refusal(name, deep, tmp_path) == "XML too deep for a resting ECG"
    for flood in (b"<a/>" * 300_000, b"<a " + b"b='' " * 300_000 + b"/>"):
        assert refusal("muse", b"<x>" + flood + b"</x>", tmp_path) == too_large
    monkeypatch.setattr(markup, "LIMIT", 1000)
    assert [refusal(name, CONTENT[name], tmp_path) for name in XML] == [too_large] * 3


def markup_refusal(name):
    return {
        "cardiosoft": "not a CardioSoft file",
        "muse": "not a MUSE file",
        "aecg": "not an HL7 aECG",
    }[name]


@pytest.mark.parametrize("name", XML)
def test_damaged_files(name, tmp_path):
    assert refusal(name, b"", tmp_path) == "empty file"
    assert refusal(name, b" \n", tmp_path) == "empty file"
    assert refusal(name, CONTENT[name][: len(CONTENT[name]) // 2], tmp_path) == "malformed XML"
    assert refusal(name, b"\x89PNG\r\n" + bytes(range(256)) * 9, tmp_path) == "malformed XML"
    for other in XML:
        if other != name:
            assert refusal(name, CONTENT[other], tmp_path) == markup_refusal(name)
    with pytest.raises(Excluded, match="unreadable file"):
        READER[name].read(str(tmp_path / "nowhere.xml"))


@pytest.mark.parametrize("name", XML)
@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1", "cp949"]
)
def test_encodings(name, encoding, tmp_path):
    """The declaration stays as it is, so that it lies in most of these; devices do that."""
    text = (
        CONTENT[name]
        .decode("latin-1")
        .replace(made.FIRST, "홍길동" if encoding == "cp949" else "Jörg")
    )
    content = text.replace("M\xfcller", "Miller").encode(encoding)
    record = read(name, content, tmp_path)
    assert (record.rate_hz, record.sex) == (500, 0.0)
    assert READER[name].suits(Path("x.xml"), content[:4096])


@pytest.mark.parametrize("name", READER)
def test_mutations_end_in_a_record_or_a_reason(name, tmp_path):
    draw = np.random.default_rng(5)
    reasons = set()
    for number in range(12 if name == "scp" else 60):
        content = bytearray(CONTENT[name])
        if number % 3 == 0:
            del content[draw.integers(len(content)) :]
        else:
            # the header more often than the samples, which are most of a file
            places = draw.integers(
                len(content) if number % 3 == 1 else 4000, size=draw.integers(1, 12)
            )
            for place in places:
                content[place] = draw.integers(256)
        try:
            prepared(name, bytes(content), tmp_path)
        except Excluded as error:
            reasons.add(str(error))
    assert all(re.fullmatch(r"[a-zA-Z0-9 ,()'-]{5,60}", reason) for reason in reasons)


# --- SCP-ECG


@pytest.mark.parametrize("code", ["default", "two", "none"])
@pytest.mark.parametrize("differences", [0, 1, 2])
def test_codes_and_differences_of_scp(code, differences, tmp_path):
    counts = np.round(SIGNAL * 400)
    record = read("scp", made.scp(SIGNAL, ecg.LEADS, code=code, differences=differences), tmp_path)
    assert np.array_equal(np.round(record.signal * 400), counts)


@pytest.mark.parametrize("differences", [0, 2])
def test_the_reference_beat_of_scp_is_added(differences, tmp_path):
    record = read("scp", made.scp(SIGNAL, subtract=True, differences=differences), tmp_path)
    assert (
        np.abs(ecg.settle(record.signal, record.rate_hz, record.leads) - SIGNAL).max()
        < 2 * STEP["scp"]
    )


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"bimodal": 1}, "SCP-ECG compression that is not decoded"),
        ({"stated": 0}, "gain unknown"),
        ({"starts": [1, 1, 2501, 1, 1, 1, 1, 1]}, "leads not recorded together"),
    ],
)
def test_what_scp_readers_cannot_vouch_for(options, reason, tmp_path):
    assert refusal("scp", made.scp(SIGNAL, **options), tmp_path) == reason


def test_a_lead_upside_down_is_not_taken(tmp_path):
    leads = ("I", "II", "III", "aVL", "aVF", "-aVR", *ecg.LEADS[6:])
    record = read("scp", made.scp(SIGNAL, leads), tmp_path)
    assert "aVR" not in record.leads
    assert (
        np.abs(ecg.settle(record.signal, record.rate_hz, record.leads) - SIGNAL).max()
        < 2 * STEP["scp"]
    )
    with pytest.raises(Excluded, match="no standard lead"):
        standard_leads([("-aVR", np.zeros(9)), ("X", np.zeros(9))])


def test_damaged_scp(tmp_path):
    content = CONTENT["scp"]
    assert refusal("scp", b"", tmp_path) == "empty file"
    assert refusal("scp", b"GIF89a" + bytes(100), tmp_path) == "not an SCP-ECG record"
    assert refusal("scp", content[:-100], tmp_path) == "unreadable SCP-ECG record"
    flipped = bytearray(content)
    flipped[-2000] ^= 4
    assert refusal("scp", bytes(flipped), tmp_path) in (
        "samples differ from the checksum",
        "unreadable SCP-ECG record",
    )
    assert (
        refusal("scp", content + bytes(scp.LIMIT), tmp_path)
        == "SCP-ECG too large for a resting ECG"
    )


# --- whose file it is


def test_each_file_suits_its_reader_alone():
    for name, content in CONTENT.items():
        mine = [
            key
            for key, reader in READERS["ecg"].items()
            if reader.suits(Path("f.xml"), content[:4096])
        ]
        assert mine == [name]
    assert not [
        n
        for n, r in READERS["ecg"].items()
        if r.suits(Path("f.xml"), b"<html><body>") or r.suits(Path("f"), b"")
    ]


def test_find(tmp_path):
    (tmp_path / "deep").mkdir()
    for name in READER:
        (tmp_path / "deep" / f"{name}.{'scp' if name == 'scp' else 'XML'}").write_bytes(
            CONTENT[name]
        )
    (tmp_path / "page.xml").write_text("<html/>")
    (tmp_path / "empty.xml").touch()
    for name in XML:
        found = [Path(file).name for file in READER[name].find(str(tmp_path))]
        assert found == [f"{name}.XML", "empty.xml"]
    assert [Path(file).name for file in scp.find(str(tmp_path))] == ["scp.scp"]
    (tmp_path / "none").mkdir()
    for name, reader in READER.items():
        assert reader.find(str(tmp_path / "page.xml")) == [str(tmp_path / "page.xml")]
        with pytest.raises(InputError, match=f"no {'SCP-ECG' if name == 'scp' else '.*'} file"):
            reader.find(str(tmp_path / "none"))
        with pytest.raises(InputError, match="no such file or folder"):
            reader.find(str(tmp_path / "nowhere"))


# --- real files


@pytest.mark.skipif(not SHARED.exists(), reason="no shared data here")
def test_one_recording_in_two_real_formats_is_the_same():
    """ECGToolkit's example as HL7 aECG and as SCP-ECG (Huffman, second differences)."""
    first = aecg.read(str(SHARED / "aecg_hl7_ecgtoolkit.xml"))
    second = scp.read(str(SHARED / "scpecg_ecgtoolkit.scp"))
    assert first.leads == second.leads
    assert np.array_equal(first.signal, second.signal)
    # the aECG states 46 years between dates 49 years apart
    assert (first.age, second.age, first.sex, second.sex) == (None, 49, 1.0, 1.0)
    settled = ecg.settle(first.signal, first.rate_hz, first.leads)
    assert ecg.quality(settled) == []
    assert ecg.einthoven(settled) < 0.02
