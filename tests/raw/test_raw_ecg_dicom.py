"""DICOM ECGs: two makers' real files, and small objects with everything that the standard allows and makers do."""

import copy
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
)
from test_raw_wfdb import beats

from ecgcmr.errors import Excluded, InputError
from ecgcmr.raw import READERS, ecg_dicom, records, sax_dicom
from ecgcmr.signals import ecg

SHARED = Path(__file__).parents[3] / "shared" / "data" / "ecg" / "formats"
SCP = {
    "I": 1,
    "II": 2,
    "III": 61,
    "aVR": 62,
    "aVL": 63,
    "aVF": 64,
    **{f"V{n}": n + 2 for n in range(1, 7)},
}
TWELVE_LEAD, MR = "1.2.840.10008.5.1.4.1.1.9.1.1", "1.2.840.10008.5.1.4.1.1.4"
SECRETS = (
    "Roe^Jane",
    "PAT-4711",
    "19610503",
    "Mercy Hospital",
    "ACC-99",
    "Dr^House",
    "20240229",
    "STATION7",
)


def code(value: str, scheme: str, meaning: str = "") -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def channel(lead: str, unit: str | None = "uV", sensitivity: float | None = 1.0) -> Dataset:
    item = Dataset()
    item.ChannelSourceSequence = [code(f"5.6.3-9-{SCP[lead]}", "SCPECG", f"Lead {lead}")]
    if sensitivity is not None:
        item.ChannelSensitivity = sensitivity
    if unit is not None:
        item.ChannelSensitivityUnitsSequence = [code(unit, "UCUM")]
    return item


def group(
    counts: np.ndarray,
    leads=ecg.LEADS,
    rate: float = 500,
    kind: str = "i2",
    interpretation: str = "SS",
) -> Dataset:
    item = Dataset()
    stored = np.round(counts).astype(f"<{kind}")
    item.NumberOfWaveformChannels, item.NumberOfWaveformSamples = stored.shape
    item.SamplingFrequency = rate
    item.WaveformOriginality, item.MultiplexGroupLabel = "ORIGINAL", "RHYTHM"
    item.WaveformBitsAllocated, item.WaveformSampleInterpretation = (
        stored.itemsize * 8,
        interpretation,
    )
    item.add_new("WaveformData", "OB" if stored.itemsize == 1 else "OW", stored.T.tobytes())
    item.ChannelDefinitionSequence = [channel(lead) for lead in leads]
    return item


def dataset(*groups: Dataset, sop: str = TWELVE_LEAD) -> Dataset:
    whole = Dataset()
    whole.SOPClassUID, whole.SOPInstanceUID = sop, "1.2.3.4"
    whole.Modality = "ECG"
    whole.PatientName, whole.PatientID, whole.PatientBirthDate = SECRETS[:3]
    whole.InstitutionName, whole.AccessionNumber, whole.ReferringPhysicianName = SECRETS[3:6]
    whole.StudyDate, whole.StationName = SECRETS[6:]
    whole.PatientAge, whole.PatientSex = "061Y", "F"
    whole.WaveformSequence = list(groups)
    return whole


def save(path: Path, whole: Dataset, syntax: str = ExplicitVRLittleEndian) -> str:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = (
        whole.SOPClassUID,
        whole.SOPInstanceUID,
    )
    meta.TransferSyntaxUID = syntax
    file = FileDataset(str(path), whole, preamble=bytes(128), file_meta=meta)
    pydicom.dcmwrite(path, file, enforce_file_format=True)
    return str(path)


def read(tmp_path: Path, *groups: Dataset):
    return ecg_dicom.read(save(tmp_path / "e.dcm", dataset(*groups)))


@pytest.mark.skipif(
    not SHARED.exists(), reason="the real recordings lie beside a development checkout"
)
@pytest.mark.parametrize(
    ("name", "rate", "scale", "age", "sex"),
    [("mortara_1000hz", 1000, 1.25e-3, 42.0, 0.0), ("ecgtoolkit_500hz", 500, 2.5e-3, 49.0, 1.0)],
)
def test_real_files_of_two_makers(name, rate, scale, age, sex):
    path = SHARED / f"dicom_12lead_{name}.dcm"
    record = ecg_dicom.read(str(path))
    stored = pydicom.dcmread(path).waveform_array(0) * 1e-3
    assert np.abs(record.signal - stored.T).max() < 1e-6
    assert record.signal.shape == (12, 10 * rate)
    assert (record.rate_hz, record.leads, record.repairs) == (rate, ecg.LEADS, ())
    assert (record.age, record.sex, record.height, record.labels, record.person) == (
        age,
        sex,
        None,
        {},
        None,
    )
    assert np.abs(np.diff(np.unique(record.signal[0])).min() - scale) < 1e-6
    settled = ecg.settle(record.signal, record.rate_hz, record.leads)
    assert ecg.quality(settled) == []
    assert ecg.einthoven(settled) < 0.03


def test_stored_numbers_become_millivolts(tmp_path):
    rhythm = group(beats(100))
    for item in rhythm.ChannelDefinitionSequence:
        item.ChannelSensitivity, item.ChannelSensitivityCorrectionFactor, item.ChannelBaseline = (
            8.0,
            1.25,
            300.0,
        )
    assert np.abs(read(tmp_path, rhythm).signal - (np.round(beats(100)) / 100 + 0.3)).max() < 1e-5


def test_units_are_read_channel_by_channel(tmp_path):
    rhythm = group(beats(1000))
    for item, (unit, sensitivity) in zip(
        rhythm.ChannelDefinitionSequence, [("uV", 1.0), ("mV", 1e-3), ("V", 1e-6), ("µV", 1.0)] * 3
    ):
        item.ChannelSensitivity = sensitivity
        item.ChannelSensitivityUnitsSequence = [code(unit, "UCUM")]
    assert np.abs(read(tmp_path, rhythm).signal - np.round(beats(1000)) / 1000).max() < 1e-6


@pytest.mark.parametrize(("scale", "unit"), [(1000, "uV"), (1, "mV")])
def test_an_absent_unit_follows_from_the_amplitude(tmp_path, scale, unit):
    rhythm = group(beats(1000))
    rhythm.ChannelDefinitionSequence = [channel(lead, None, scale / 1000) for lead in ecg.LEADS]
    record = read(tmp_path, rhythm)
    assert record.repairs == (f"unit absent, {unit} by the amplitude",)
    assert np.abs(record.signal - np.round(beats(1000)) / 1000).max() < 1e-6


@pytest.mark.parametrize(
    "name",
    ["2:{number}", "MDC_ECG_LEAD_{lead}", "5.6.3-9-{number}"],
)
def test_leads_by_code_in_any_order(tmp_path, name):
    order = [11, 3, 0, 5, 1, 4, 2, 10, 6, 9, 7, 8]
    leads = [ecg.LEADS[i] for i in order]
    rhythm = group(beats(1000)[order], leads)
    for item, lead in zip(rhythm.ChannelDefinitionSequence, leads):
        item.ChannelSourceSequence = [code(name.format(number=SCP[lead], lead=lead), "MDC")]
    record = read(tmp_path, rhythm)
    assert record.leads == tuple(leads)
    settled = ecg.settle(record.signal, 500, record.leads)
    assert np.abs(settled - np.round(beats(1000)) / 1000).max() < 1e-6


def test_leads_by_meaning_or_label(tmp_path):
    rhythm = group(beats(1000))
    for i, (item, lead) in enumerate(zip(rhythm.ChannelDefinitionSequence, ecg.LEADS)):
        if i % 2:
            item.ChannelSourceSequence = [
                code("x", "99LOCAL", f"Lead {lead} (Einthoven), augmented voltage")
            ]
        else:
            del item.ChannelSourceSequence
            item.ChannelLabel = lead
    assert read(tmp_path, rhythm).leads == ecg.LEADS


def test_a_channel_that_is_no_lead_neither_disturbs_nor_speaks(tmp_path):
    rhythm = group(np.concatenate([beats(1000), np.ones((1, 5000))]), [*ecg.LEADS, "I"])
    pressure = rhythm.ChannelDefinitionSequence[12]
    pressure.ChannelSourceSequence = [code("Roe", "99LOCAL", "Roe^Jane")]
    pressure.ChannelSensitivityUnitsSequence = [code("mm[Hg]", "UCUM")]
    record = read(tmp_path, rhythm)
    assert record.leads == (*ecg.LEADS, "other")
    assert ecg.prepare(record.signal, record.rate_hz, record.leads)[0].shape == (12, 5000)


def test_the_rhythm_is_taken_wherever_it_stands(tmp_path):
    beat = group(beats(1000)[:, :600])
    beat.WaveformOriginality, beat.MultiplexGroupLabel = "DERIVED", "MEDIAN BEAT"
    unlabelled = copy.deepcopy(beat)
    del unlabelled.MultiplexGroupLabel
    strip = group(beats(1000)[1:2], ["II"])
    record = read(tmp_path, beat, unlabelled, strip, group(beats(1000)))
    assert record.signal.shape == (12, 5000)
    with pytest.raises(Excluded, match="no rhythm"):
        read(tmp_path, beat)
    eight = [0, 1, *range(6, 12)]
    record = read(tmp_path, unlabelled, group(beats(1000)[eight], [ecg.LEADS[i] for i in eight]))
    assert ecg.prepare(record.signal, record.rate_hz, record.leads)[1] == (
        "III, aVR, aVL, aVF derived from I and II",
    )


@pytest.mark.parametrize(
    ("kind", "interpretation", "offset"),
    [
        ("i1", "SB", 0),
        ("u1", "UB", 128),
        ("i2", "SS", 0),
        ("u2", "US", 32768),
        ("i4", "SL", 0),
        ("u4", "UL", 1 << 20),
    ],
)
def test_sample_types(tmp_path, kind, interpretation, offset):
    scale = 50 if "1" in kind else 1000
    rhythm = group(beats(scale) + offset, kind=kind, interpretation=interpretation)
    for item in rhythm.ChannelDefinitionSequence:
        item.ChannelSensitivity, item.ChannelBaseline = 1000 / scale, -offset * 1000 / scale
    record = read(tmp_path, rhythm)
    assert np.abs(record.signal - np.round(beats(scale)) / scale).max() < 1e-3


def test_big_endian(tmp_path):
    rhythm = group(beats(1000))
    rhythm["WaveformData"].value = np.round(beats(1000)).astype(">i2").T.tobytes()
    record = ecg_dicom.read(save(tmp_path / "b.dcm", dataset(rhythm), ExplicitVRBigEndian))
    assert np.abs(record.signal - np.round(beats(1000)) / 1000).max() < 1e-6


def test_padding_at_the_edge_of_the_range_is_missing(tmp_path):
    counts = np.round(beats(1000))
    counts[3, 100:150] = -32768
    rhythm = group(counts)
    rhythm.add_new("WaveformPaddingValue", "OW", np.int16(-32768).tobytes())
    record = read(tmp_path, rhythm)
    assert np.isnan(record.signal[3, 100:150]).all()
    assert np.isnan(record.signal).sum() == 50


def test_padding_with_a_value_that_signals_take(tmp_path):
    """One maker states 0: a lead that passes through 0 is there, only where all stand at 0 nothing was recorded."""
    counts = np.round(beats(1000)) + 1
    counts[:, 4990:] = 0
    counts[2, 50] = 0
    rhythm = group(counts)
    rhythm.add_new("WaveformPaddingValue", "OW", np.int16(0).tobytes())
    record = read(tmp_path, rhythm)
    assert np.isnan(record.signal[:, 4990:]).all()
    assert np.isnan(record.signal).sum() == 120


@pytest.mark.filterwarnings("ignore:Invalid value")
def test_ages(tmp_path):
    whole = dataset(group(beats(1000)))
    del whole.PatientBirthDate
    for said, years in (("006M", 0.5), ("010Y", 10.0), ("", None), ("999Y", None), ("Jane", None)):
        whole.PatientAge = said
        assert ecg_dicom.read(save(tmp_path / "a.dcm", whole)).age == years
    del whole.PatientAge, whole.PatientSex
    record = ecg_dicom.read(save(tmp_path / "a.dcm", whole))
    assert (record.age, record.sex) == (None, None)


@pytest.mark.filterwarnings("ignore:Invalid value")
def test_nothing_identifying_leaves(tmp_path, capfd, caplog):
    """Neither in the record, nor in what pydicom says of values that break its rules, nor in a reason."""
    whole = dataset(group(beats(1000)))
    whole.PatientAge = "Roe^Jane"
    path = save(tmp_path / "e.dcm", whole)
    caplog.clear()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        record = ecg_dicom.read(path)
    said = repr(record) + repr(warned) + caplog.text + "".join(capfd.readouterr())
    assert not [secret for secret in SECRETS if secret.split("^")[0] in said]
    assert record.patient == records.patient(SECRETS[1])
    assert (record.key, record.age) == ("e", 62.0)  # from the dates, which stay
    whole.WaveformSequence[0].SamplingFrequency = None
    whole.WaveformSequence[0].ChannelDefinitionSequence[0].ChannelLabel = "Roe^Jane"
    del whole.WaveformSequence[0].NumberOfWaveformSamples
    with pytest.raises(Excluded) as refused:
        ecg_dicom.read(save(tmp_path / "e.dcm", whole))
    assert str(refused.value) == "unreadable DICOM file"


def change(**values):
    def apply(rhythm: Dataset) -> None:
        for name, value in values.items():
            setattr(rhythm, name, value)

    return apply


def change_channel(**values):
    def apply(rhythm: Dataset) -> None:
        for name, value in values.items():
            setattr(rhythm.ChannelDefinitionSequence[4], name, value)

    return apply


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (change(NumberOfWaveformSamples=5001), "fewer samples than stated"),
        (change(NumberOfWaveformSamples=2**31), "fewer samples than stated"),
        (change(NumberOfWaveformChannels=11), "number of leads and of names differ"),
        (change(WaveformSampleInterpretation="MB"), "samples are not plain whole numbers"),
        (change(WaveformBitsAllocated=12), "samples are not plain whole numbers"),
        (change(WaveformData=b""), "fewer samples than stated"),
        (change_channel(ChannelSensitivity=None), "no sensitivity"),
        (change_channel(ChannelSensitivity=0), "no sensitivity"),
        (change_channel(ChannelSensitivity=-1), "no sensitivity"),
        (change_channel(ChannelSensitivityUnitsSequence=[]), "unit unknown"),
        (
            change_channel(ChannelSensitivityUnitsSequence=[code("mm[Hg]", "UCUM")]),
            "unit is not a voltage",
        ),
        (change(SamplingFrequency=None), "sampling rate unknown"),
        (change_channel(ChannelTimeSkew=0.002), "leads recorded at different times"),
        (change_channel(ChannelSampleSkew=3), "leads recorded at different times"),
        (
            change_channel(ChannelSourceSequence=[code("2:63", "MDC", "Lead V1")]),
            "lead names contradict each other",
        ),
    ],
)
def test_what_is_in_doubt_is_refused(tmp_path, damage, reason):
    rhythm = group(beats(1000))
    damage(rhythm)
    with pytest.raises(Excluded, match=reason):
        read(tmp_path, rhythm)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (change(SamplingFrequency=1000), "shorter than 10 s"),
        (change_channel(ChannelSourceSequence=[code("2:1", "MDC")]), "two leads of one name"),
        (change_channel(ChannelSourceSequence=[code("2:64", "MDC")]), "two leads of one name"),
    ],
)
def test_what_settling_refuses(tmp_path, damage, reason):
    rhythm = group(beats(1000))
    damage(rhythm)
    record = read(tmp_path, rhythm)
    with pytest.raises(Excluded, match=reason):
        ecg.prepare(record.signal, record.rate_hz, record.leads)


def test_leads_of_several_groups_were_not_recorded_together(tmp_path):
    """Four groups of three leads, as a page shows them."""
    groups = []
    for first in range(0, 12, 3):
        part = group(beats(1000))
        rows = slice(first, first + 3)
        samples = np.frombuffer(part.WaveformData, "<i2").reshape(5000, 12)[:, rows]
        part.ChannelDefinitionSequence = part.ChannelDefinitionSequence[rows]
        part.NumberOfWaveformChannels, part.WaveformData = 3, samples.tobytes()
        groups.append(part)
    with pytest.raises(Excluded, match="leads in several groups, recorded one after the other"):
        read(tmp_path, *groups)


def test_compressed_and_damaged_files(tmp_path):
    path = Path(
        save(tmp_path / "a.dcm", dataset(group(beats(1000))), DeflatedExplicitVRLittleEndian)
    )
    with pytest.raises(Excluded, match="compressed DICOM"):
        ecg_dicom.read(str(path))
    bomb = path.read_bytes()[:400] + zlib.compress(bytes(1 << 20))
    path.write_bytes(bomb)
    with pytest.raises(Excluded, match="compressed DICOM"):
        ecg_dicom.read(str(path))
    whole = Path(save(tmp_path / "b.dcm", dataset(group(beats(1000))))).read_bytes()
    encapsulated = whole.replace(b"1.2.840.10008.1.2.1\x00", JPEGBaseline8Bit.encode()[:20])
    for content in (encapsulated, b"", b"not DICOM", bytes(200), whole[:140]):
        path.write_bytes(content)
        with pytest.raises(Excluded):
            ecg_dicom.read(str(path))


def test_bytes_inserted_or_lost_among_the_samples_are_noticed(tmp_path):
    """They move all that follows, however late; the file then goes on after its last element, or ends within it."""
    path = Path(save(tmp_path / "a.dcm", dataset(group(beats(1000)))))
    content = path.read_bytes()
    for broken in (content[:-300] + b"\1\2" * 5 + content[-300:], content[:-300] + content[-290:]):
        path.write_bytes(broken)
        with pytest.raises(Excluded, match="unreadable DICOM file"):
            ecg_dicom.read(str(path))
    path.write_bytes(content + bytes(7))  # padding of a medium
    assert ecg_dicom.read(str(path)).signal.shape == (12, 5000)


def test_in_an_archive(tmp_path):
    path = save(tmp_path / "e.dcm", dataset(group(beats(1000))))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.write(path, "x/e.dcm")
    assert ecg_dicom.find(str(tmp_path / "a.zip")) == [f"{tmp_path}/a.zip#x/e.dcm"]
    assert np.array_equal(
        ecg_dicom.read(f"{tmp_path}/a.zip#x/e.dcm").signal, ecg_dicom.read(path).signal
    )


def test_ecgs_and_images_are_told_apart(tmp_path):
    image = Dataset()
    image.SOPClassUID, image.SOPInstanceUID = MR, "1.2.3.5"
    (tmp_path / "ecg").mkdir()
    (tmp_path / "cmr").mkdir()
    wave = Path(save(tmp_path / "ecg" / "x.dcm", dataset(group(beats(1000)))))
    slice_ = Path(save(tmp_path / "cmr" / "IM1", image))
    told = {
        (reader, path.name): reader.suits(path, records.head(path))
        for reader in (ecg_dicom, sax_dicom)
        for path in (wave, slice_, wave.parent, slice_.parent)
    }
    assert [told[ecg_dicom, name] for name in ("x.dcm", "IM1", "ecg", "cmr")] == [
        True,
        False,
        False,
        False,
    ]
    assert [told[sax_dicom, name] for name in ("x.dcm", "IM1", "ecg", "cmr")] == [
        False,
        True,
        False,
        True,
    ]
    assert sax_dicom.find(str(tmp_path)) == [str(slice_.parent)]
    with pytest.raises(InputError, match="no DICOM images or archives here"):
        sax_dicom.find(str(wave.parent))
    assert ecg_dicom.find(str(tmp_path)) == [str(wave)]
    assert ecg_dicom.find(str(slice_)) == [str(slice_)]
    with pytest.raises(Excluded, match="no rhythm"):
        ecg_dicom.read(str(slice_))
    with pytest.raises(InputError, match="no DICOM ECG here"):
        ecg_dicom.find(str(slice_.parent))
    assert READERS["ecg"]["dicom"] is ecg_dicom
