"""Rate, unit and leads: what is stated is used, what is not is asked for, what contradicts is refused."""

import json
from pathlib import Path

import h5py
import handmade_exports as made
import numpy as np
import pytest
import test_raw_ecg_dicom as waveform
import torch
from test_raw_wfdb import beats, write

from ecgcmr import raw
from ecgcmr.errors import Excluded, InputError
from ecgcmr.raw import (
    cardiosoft,
    code15,
    declaration,
    ecg_dicom,
    muse,
    normalised,
    plain_array,
    records,
    scp,
    statements,
    tensors,
    wfdb,
)
from ecgcmr.signals import ecg

MV = beats(1).astype(np.float32)
SHARED = Path(__file__).parents[3] / "shared"
CASES = SHARED / "cases" / "ecg"
NO_UNIT = "^unit unknown"
NO_RATE = "^sampling rate unknown"
DECLARED = declaration(500, "mV")


def npy(path: Path, values: np.ndarray, **facts) -> str:
    np.save(path, values)
    if facts:
        path.with_suffix(".json").write_text(json.dumps(facts))
    return str(path)


def hdf5(path: Path, values: np.ndarray, name: str = "tracings", **attributes) -> str:
    with h5py.File(path, "w") as file:
        file[name] = values
        file[name].attrs.update(attributes)
    return str(path)


# -- words


@pytest.mark.parametrize(
    ("unit", "factor"),
    [
        ("mV", 1.0),
        ("MILLIVOLTS", 1.0),
        ("uV", 1e-3),
        ("µV", 1e-3),
        ("μV", 1e-3),
        ("microvolt", 1e-3),
        (" V ", 1e3),
        ("nV", 1e-6),
        ("4.88uV", 4.88e-3),
        ("2.5 µV", 2.5e-3),
    ],
)
def test_units_of_voltage(unit, factor):
    assert statements.millivolts(unit) == pytest.approx(factor)


@pytest.mark.parametrize("unit", ["mmHg", "counts", "", "NU", "m V", "0uV", "-1mV", "mVs", "kV"])
def test_what_is_no_voltage(unit):
    with pytest.raises(Excluded, match="unit is not a voltage"):
        statements.millivolts(unit)


@pytest.mark.parametrize(
    ("word", "rate"),
    [
        (500, 500.0),
        ("500", 500.0),
        ("250 Hz", 250.0),
        ("0.5 kHz", 500.0),
        (np.float32(257.5), 257.5),
        ("400 sps", 400.0),
        (0, None),
        (-500, None),
        ("nan", None),
        ("fast", None),
        ("", None),
        ("1-2", None),
        (True, None),
    ],
)
def test_rates_as_they_are_written(word, rate):
    assert statements.hertz(word) == rate


@pytest.mark.parametrize(
    "name",
    [
        "fs",
        "Fs",
        "sampling_rate",
        "samplingFrequency",
        "sample_rate",
        "sfreq",
        "freq",
        "Hz",
        "rate_hz",
        "Sampling Rate (Hz)",
        "ecg_fs",
        "SampleFrequency",
        "sr",
    ],
)
def test_names_of_a_rate(name):
    assert statements.statement([(name, 250)]).rate_hz == 250


@pytest.mark.parametrize("name", ["heart_rate", "error_rate", "learning_rate", "frames", "offset"])
def test_other_rates_are_not_the_sampling_rate(name):
    assert statements.statement([(name, 60)]).rate_hz is None


def test_a_value_for_each_recording_counts_for_its_own():
    items = [("fs", np.array([250, 500, 400])), ("unit", np.array(["uV", "mV", "mV"]))]
    found = [statements.statement(items, i, 3) for i in range(3)]
    assert [(one.rate_hz, one.unit) for one in found] == [(250, "uV"), (500, "mV"), (400, "mV")]


@pytest.mark.parametrize(
    ("items", "reason"),
    [
        ([("fs", 250), ("sampling_rate", 500)], "two sampling rates"),
        ([("unit", "uV"), ("units", "mV")], "two units"),
        ([("unit", "counts")], "unit is not a voltage"),
        ([("leads", "I,II"), ("channels", ["II", "I"])], "two orders of leads"),
    ],
)
def test_statements_that_contradict_each_other(items, reason):
    with pytest.raises(Excluded, match=reason):
        statements.statement(items)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rate_hz": 0.0}, "--rate 0: not between"),
        ({"rate_hz": float("nan")}, "--rate nan: not between"),
        ({"unit": "mmHg"}, "--unit mmHg: not a voltage"),
        ({"leads": "I,II,V9"}, "'V9' is no lead"),
        ({"leads": "I,I"}, "name each lead once"),
    ],
)
def test_options_that_say_nothing_are_one_line(options, words):
    with pytest.raises(InputError, match=words):
        declaration(**options)


# -- arrays


def test_a_plain_array_is_refused_and_the_line_says_how_it_goes_on(tmp_path):
    path = npy(tmp_path / "a.npy", MV)
    with pytest.raises(Excluded, match=r"--unit mV --rate 500$"):
        tensors.read(path)
    with pytest.raises(Excluded, match=NO_RATE):
        tensors.read(path, declaration(unit="mV"))
    with pytest.raises(Excluded, match=NO_UNIT):
        tensors.read(path, declaration(500))
    record = tensors.read(path, DECLARED)
    assert np.array_equal(record.signal, MV)
    assert (record.rate_hz, record.leads) == (500, ecg.LEADS)


@pytest.mark.parametrize(
    ("unit", "scale"), [("mV", 1), ("uV", 1e3), ("µV", 1e3), ("V", 1e-3), ("microvolt", 1e3)]
)
def test_what_lies_beside_an_array_is_used(tmp_path, unit, scale):
    stack = np.stack([MV, MV])[:, :, ::2] * scale
    facts = {"fs": 250, "unit": unit, "leads": list(ecg.LEADS)}
    np.savez(tmp_path / "a.npz", ecg=stack, **facts)
    torch.save({"ecg": torch.from_numpy(stack), **facts}, tmp_path / "b.pt")
    npy(tmp_path / "c.npy", stack, **facts)
    np.save(tmp_path / "d.npy", stack)
    (tmp_path / "d.npy.json").write_text(json.dumps({"sampling_rate": "250 Hz", "units": unit}))
    hdf5(tmp_path / "e.h5", stack, "ecg", sampling_frequency=250, unit=unit)
    for name in ("a.npz", "b.pt", "c.npy", "d.npy", "e.h5"):
        path, reader = tmp_path / name, code15 if name == "e.h5" else tensors
        record = reader.read(f"{path}#1")
        assert record.rate_hz == 250
        assert np.abs(record.signal - MV[:, ::2]).max() < 1e-5
        with pytest.raises(Excluded, match="--rate contradicts"):
            reader.read(f"{path}#1", declaration(500))
        with pytest.raises(Excluded, match="--unit contradicts"):
            reader.read(f"{path}#1", declaration(unit="nV"))
        assert reader.read(f"{path}#1", declaration(250, unit)).rate_hz == 250


def test_leads_beside_an_array_are_used(tmp_path):
    order = [ecg.LEADS[i] for i in (1, 0, 2, 3, 5, 4, 6, 7, 8, 9, 10, 11)]
    rows = MV[[ecg.LEADS.index(lead) for lead in order]]
    path = npy(tmp_path / "a.npy", rows, fs=500, unit="mV", lead_names=order)
    record = tensors.read(path)
    assert (record.leads, record.repairs) == (tuple(order), ())
    assert np.array_equal(ecg.settle(record.signal, 500, record.leads), MV)
    with pytest.raises(Excluded, match="--leads contradicts"):
        tensors.read(path, declaration(leads=ecg.LEADS))
    eight = npy(tmp_path / "b.npy", MV[[0, 1, *range(6, 12)]].T)
    with pytest.raises(Excluded, match="named with --leads"):
        tensors.read(eight, DECLARED)
    record = tensors.read(eight, declaration(500, "mV", "I,II,V1,V2,V3,V4,V5,V6"))
    assert record.repairs == ()
    assert np.abs(ecg.settle(record.signal, 500, record.leads) - MV).max() < 1e-6
    beside = npy(tmp_path / "c.npy", np.vstack([MV, MV[:1]]))
    record = tensors.read(beside, declaration(500, "mV", [*ecg.LEADS, "-"]))
    assert record.leads == (*ecg.LEADS, "other")


@pytest.mark.parametrize(
    "shape", ["leads first", "samples first", "stack of samples first", "long"]
)
def test_arrays_in_other_shapes(tmp_path, shape):
    values = {
        "leads first": MV,
        "samples first": MV.T,
        "stack of samples first": np.stack([MV.T, MV.T]),
        "long": np.hstack([MV, MV]),
    }[shape]
    path = npy(tmp_path / "a.npy", values)
    source = f"{path}#1" if values.ndim == 3 else path
    assert tensors.find(path)[-1] == source
    record = tensors.read(source, DECLARED)
    assert np.array_equal(ecg.settle(record.signal, 500, record.leads), MV)


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float32, np.float64])
def test_whole_numbers_have_no_unit(tmp_path, dtype):
    """Counts, in whatever type they are stored."""
    path = npy(tmp_path / "a.npy", np.round(beats(1000)).astype(dtype))
    with pytest.raises(Excluded, match=r"^whole numbers: the unit is not known; give --unit"):
        tensors.read(path)
    record = tensors.read(path, declaration(500, "uV"))
    assert np.abs(record.signal - np.round(beats(1000)) / 1000).max() < 1e-6
    counts = npy(tmp_path / "b.npy", np.round(beats(1000 / 4.88)).astype(dtype))
    assert np.abs(tensors.read(counts, declaration(500, "4.88uV")).signal - MV).max() < 4.88e-3


def test_hdf5_without_a_statement_is_not_taken_for_code_15(tmp_path):
    long = np.hstack([MV, MV])[:, :6000].T[None]
    for name, what in (("a.hdf5", long), ("b.hdf5", long[:, :4096])):
        path = hdf5(tmp_path / name, what)
        with pytest.raises(Excluded, match="--unit mV --rate 500"):
            code15.read(f"{path}#0")
        assert code15.read(f"{path}#0", DECLARED).rate_hz == 500
    with h5py.File(tmp_path / "b.hdf5", "a") as file:  # the form of CODE-15 %, stated otherwise
        file["exam_id"] = [1]
        file["fs"], file.attrs["units"] = 500, "mV"
    record = code15.read(str(tmp_path / "b.hdf5#0"))
    assert (record.rate_hz, record.repairs) == (500, ())
    with h5py.File(tmp_path / "b.hdf5", "a") as file:
        del file["fs"], file.attrs["units"]
    record = code15.read(str(tmp_path / "b.hdf5#0"))
    assert (record.rate_hz, record.repairs) == (400, (code15.SCALE,))
    with pytest.raises(Excluded, match="--rate contradicts"):
        code15.read(str(tmp_path / "b.hdf5#0"), declaration(500))


def test_hdf5_of_several_arrays_says_so(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["left/ecg"], file["right/ecg"] = MV, MV
    with pytest.raises(Excluded, match="several arrays of ECGs in one file"):
        code15.read(str(tmp_path / "a.h5"), DECLARED)
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["left/ecg"] = MV
        file["left"].attrs["fs"] = np.array([500])
        file["left/units"] = "mV"
    assert code15.find(str(tmp_path / "b.h5")) == [str(tmp_path / "b.h5")]
    assert np.array_equal(code15.read(str(tmp_path / "b.h5")).signal, MV)


# -- what was normalised


def _to_range(values, low, high):
    span = np.ptp(values, axis=-1, keepdims=True) if values.ndim > 1 else np.ptp(values)
    return (values - values.min(-1, keepdims=True)) / span * (high - low) + low


def _whole(values, low, high):
    return _to_range(values.ravel(), low, high).reshape(values.shape)


NORMS = {
    "-1..1 of the recording": lambda x: _whole(x, -1, 1),
    "0..1 of the recording": lambda x: _whole(x, 0, 1),
    "-1..1 by lead": lambda x: _to_range(x, -1, 1),
    "0..1 by lead": lambda x: _to_range(x, 0, 1),
    "-0.5..0.5 of the recording": lambda x: _whole(x, -0.5, 0.5),
    "by max|x| of the recording": lambda x: x / np.abs(x).max(),
    "by max|x| by lead": lambda x: x / np.abs(x).max(1, keepdims=True),
    "z-score of the recording": lambda x: (x - x.mean()) / x.std(),
    "z-score by lead": lambda x: (x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True),
    "robust, of the recording": lambda x: (x - np.median(x)) / np.ptp(np.quantile(x, (0.25, 0.75))),
    "robust by lead": lambda x: (
        (x - np.median(x, axis=1, keepdims=True))
        / np.ptp(np.quantile(x, (0.25, 0.75), axis=1), axis=0)[:, None]
    ),
}


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("norm", NORMS)
def test_what_was_normalised_is_refused_whatever_it_states(tmp_path, norm, dtype):
    values = NORMS[norm](ecg.clean(beats(1)).astype(np.float64)).astype(dtype)
    path = npy(tmp_path / "a.npy", values, fs=500, unit="mV")
    with pytest.raises(Excluded, match=r"^normalised by .*, the millivolts are lost"):
        tensors.read(path)
    with pytest.raises(Excluded, match=r"^normalised by .*, the millivolts are lost"):
        code15.read(hdf5(tmp_path / "a.h5", values, "ecg", fs=500, unit="mV"))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
def test_whole_numbers_stretched_over_their_type_are_refused(tmp_path, dtype):
    limits = np.iinfo(dtype)
    path = npy(tmp_path / "a.npy", _whole(MV, limits.min, limits.max).round().astype(dtype))
    with pytest.raises(Excluded, match="normalised by range"):
        tensors.read(path, declaration(500, "uV"))


@pytest.mark.parametrize("step", [1e-3, 1.25e-3, 2.5e-3, 5e-3])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_peak_of_one_millivolt_is_no_normalisation(step, dtype):
    """A converter's steps tell a heart of exactly 1 mV from a division by the largest value."""
    steps = np.round(MV * (0.999 / np.abs(MV).max()) / step)
    steps[7, 900] = np.round(1 / step)
    assert plain_array.normalised((steps * step).astype(dtype)) == ""


def test_real_recordings_are_normalised_only_once_they_are(tmp_path):
    folder = SHARED / "data" / "ecg" / "cinc"
    if not folder.exists():
        pytest.skip("the real recordings lie beside a development checkout")
    for header in sorted(folder.glob("*.hea"))[::80]:
        record = wfdb.read(str(header))
        signal = record.signal.astype(np.float64)
        assert plain_array.normalised(record.signal) == ""
        assert plain_array.normalised(ecg.clean(record.signal)) == ""
        missed = [
            norm
            for norm, make in NORMS.items()
            if not plain_array.normalised(make(ecg.clean(signal)).astype(np.float16))
        ]
        assert missed == [] or np.ptp(signal, axis=1).min() == 0


def test_the_authors_form_is_asked_for_by_name_and_not_contradicted(tmp_path):
    flat = ecg.normalise(torch.from_numpy(ecg.clean(beats(1)))[None]).numpy()[0]
    path = npy(tmp_path / "a.npy", flat)
    assert normalised.read(path, declaration(500)).rate_hz == 500
    with pytest.raises(Excluded, match="--rate contradicts"):
        normalised.read(path, declaration(400))
    with pytest.raises(Excluded, match="not the authors' form"):
        normalised.read(npy(tmp_path / "b.npy", flat[:, :4000]))


# -- WFDB


@pytest.mark.parametrize("gain", ["0", "0/mV", "0(0)/mV", "-5/mV", "", "nan/mV", "1E3/mV"])
def test_a_gain_of_wfdb_that_is_none_is_refused(tmp_path, gain):
    """The library reads 200 per mV where a header states nothing."""
    header = Path(write(tmp_path, beats(200), gain=gain or "1000/mV"))
    if not gain:
        lines = header.read_text().splitlines()
        short = [" ".join([*line.split()[:2]]) for line in lines[1:]]
        header.write_text("\n".join([lines[0], *short]) + "\n")
    with pytest.raises(Excluded, match=r"gain unknown|no standard lead"):
        wfdb.read(str(header))


@pytest.mark.parametrize("line", ["r1 12", "r1 12 0 5000", "r1 12 0.0 5000"])
def test_a_rate_of_wfdb_that_is_not_stated_is_asked_for(tmp_path, line):
    """The library reads 250 Hz there."""
    header = Path(write(tmp_path, beats()))
    header.write_text("\n".join([line, *header.read_text().splitlines()[1:]]) + "\n")
    with pytest.raises(Excluded, match=NO_RATE):
        wfdb.read(str(header))
    record = wfdb.read(str(header), declaration(500))
    assert record.rate_hz == 500
    assert np.abs(record.signal - beats().astype("<i2") / 1000).max() < 1e-6


def test_a_counter_frequency_is_not_the_rate(tmp_path):
    header = Path(write(tmp_path, beats()))
    header.write_text(header.read_text().replace("r1 12 500 ", "r1 12 500/250(7) ", 1))
    assert wfdb.read(str(header)).rate_hz == 500


def test_a_unit_of_wfdb_that_is_absent_is_millivolts_and_said(tmp_path):
    path = write(tmp_path, beats(), gain="1000(0)")
    record = wfdb.read(path)
    assert record.repairs == (wfdb.UNIT_ABSENT,)
    assert np.abs(record.signal - beats(1)).max() < 2e-3
    assert wfdb.read(write(tmp_path, beats(), gain="1"), declaration(unit="uV")).repairs == ()


def _records(tmp_path, rows, frames=1, skew=None, sums=None):
    """A WFDB record of (name, unit, gain, samples per frame, skew, counts), stored as it is."""
    count = len(rows[0][5]) // rows[0][3]
    stored = [np.asarray(row[5]).astype("<i2").reshape(count, -1) for row in rows]
    (tmp_path / "r1.dat").write_bytes(np.hstack(stored).tobytes())
    lines = [f"r1 {len(rows)} {500 // frames} {count}"]
    for (name, unit, gain, per_frame, late, _), column in zip(rows, stored):
        form = "16" + (f"x{per_frame}" if per_frame > 1 else "") + (f":{late}" if late else "")
        checksum = int(column.astype(np.int64).sum()) % 65536
        lines.append(f"r1.dat {form} {gain}(0)/{unit} 16 0 {column.flat[0]} {checksum} 0 {name}")
    (tmp_path / "r1.hea").write_text("\n".join(lines) + "\n")
    return str(tmp_path / "r1.hea")


def test_signals_that_lag_are_moved_and_their_checksum_stands(tmp_path):
    counts = np.round(beats())
    rows = [
        (
            lead,
            "mV",
            1000,
            1,
            3 if lead.startswith("V") else 0,
            np.roll(row, 3) if lead.startswith("V") else row,
        )
        for lead, row in zip(ecg.LEADS, counts)
    ]
    record = wfdb.read(_records(tmp_path, rows))
    assert np.abs(record.signal[:, :4997] - counts[:, :4997] / 1000).max() < 1e-6
    assert np.isnan(record.signal[6:, 4997:]).all()
    payload = bytearray((tmp_path / "r1.dat").read_bytes())
    payload[2400] ^= 0x10
    (tmp_path / "r1.dat").write_bytes(payload)
    with pytest.raises(Excluded, match="samples differ from the header's checksum"):
        wfdb.read(str(tmp_path / "r1.hea"))


@pytest.mark.parametrize(("leads", "other"), [(2, 1), (1, 4), (2, 2)])
def test_several_samples_in_a_frame(tmp_path, leads, other):
    """Leads of 500 Hz in frames of 250 or 500 a second, a pressure at another rate beside them."""
    counts = np.round(beats())
    rows = [(lead, "mV", 1000, leads, 0, row) for lead, row in zip(ecg.LEADS, counts)]
    rows.append(("ABP", "mmHg", 100, other, 0, np.arange(5000 // leads * other) % 900))
    record = wfdb.read(_records(tmp_path, rows, frames=leads))
    assert (record.rate_hz, record.leads) == (500, ecg.LEADS)
    assert np.abs(record.signal - counts / 1000).max() < 1e-6


def test_leads_of_two_rates_are_averaged_and_it_is_said(tmp_path):
    counts = np.round(beats())
    rows = [
        (lead, "mV", 1000, 2 if lead == "V6" else 1, 0, row if lead == "V6" else row[::2])
        for lead, row in zip(ecg.LEADS, counts)
    ]
    record = wfdb.read(_records(tmp_path, rows[:1] + rows[1:], frames=2))
    assert (record.rate_hz, record.repairs) == (250, (wfdb.FRAMES,))
    assert record.signal.shape == (12, 2500)


@pytest.mark.parametrize(
    ("name", "unit"), [("ABP", "mmHg"), ("RESP", "NU"), ("SpO2", "%"), ("CVP", "")]
)
def test_what_is_no_voltage_beside_the_leads_is_dropped(tmp_path, name, unit):
    """Also its gain, which must not keep the leads' own from being put right."""
    counts = np.trunc(np.round(beats(1000) / 4.88) * 4.88)
    rows = [(lead, "mV", 4880, 1, 0, row) for lead, row in zip(ecg.LEADS, counts)]
    record = wfdb.read(_records(tmp_path, [*rows, (name, unit, 100, 1, 0, np.arange(5000))]))
    assert record.leads[:12] == ecg.LEADS
    assert np.abs(record.signal[:12] - counts / 1000).max() < 1e-6
    assert any("4880" in repair for repair in record.repairs)
    rows[3] = ("aVR", "mmHg", *rows[3][2:])
    with pytest.raises(Excluded, match="unit is not a voltage"):
        wfdb.read(_records(tmp_path, rows))


@pytest.mark.parametrize(
    ("gain", "step"), [("205/mV", 4.88), ("204.8/mV", 4.8828125), ("4883/mV", 4.8828125)]
)
def test_a_gain_that_is_rounded_names_its_step_as_well(tmp_path, gain, step):
    counts = np.trunc(np.round(beats(1000) / step) * step)
    record = wfdb.read(write(tmp_path, counts, gain=gain))
    assert len(record.repairs) == 1
    assert np.abs(record.signal - counts / 1000).max() < 1e-6


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda text: text.replace(" 16 1000", " 17 1000"), "unknown format of a signal file"),
        (lambda text: text.replace("500 5000", "500 5001"), "signal file truncated"),
        (lambda text: text.replace("r1.dat", "r2.dat"), "signal file absent"),
        (
            lambda text: text.replace(".dat 16 ", ".dat 32 ", 3),
            "several formats in one signal file",
        ),
    ],
)
def test_reasons_tell_what_is_wrong(tmp_path, damage, reason):
    header = Path(write(tmp_path, beats()))
    header.write_text(damage(header.read_text()))
    with pytest.raises(Excluded, match=reason):
        wfdb.read(str(header))


# -- formats of devices


def test_blank_fields_of_devices_are_asked_for(tmp_path):
    made_muse = made.muse(made.beats())
    cases = [
        (muse, made_muse, b"<SampleBase>500", b"<SampleBase>", NO_RATE, declaration(500)),
        (muse, made_muse, b"MICROVOLTS", b"", NO_UNIT, declaration(unit="uV")),
        (
            cardiosoft,
            made.cardiosoft(made.beats()),
            b'"Hz">500',
            b'"Hz">',
            NO_RATE,
            declaration(500),
        ),
        (
            cardiosoft,
            made.cardiosoft(made.beats()),
            b"uVperLsb",
            b"",
            NO_UNIT,
            declaration(unit="uV"),
        ),
    ]
    for reader, content, old, new, reason, option in cases:
        path = tmp_path / "a.xml"
        path.write_bytes(content)
        sound = reader.read(str(path))
        path.write_bytes(content.replace(old, new))
        with pytest.raises(Excluded, match=reason):
            reader.read(str(path))
        record = reader.read(str(path), option)
        assert record.rate_hz == sound.rate_hz
        assert np.array_equal(record.signal, sound.signal)


def test_what_devices_state_is_not_overruled(tmp_path):
    muse_file, scp_file = tmp_path / "a.xml", tmp_path / "a.scp"
    muse_file.write_bytes(made.muse(made.beats()))
    scp_file.write_bytes(made.scp(made.beats()))
    dicom = waveform.save(tmp_path / "a.dcm", waveform.dataset(waveform.group(beats(1000))))
    hea = write(tmp_path, beats())
    with pytest.raises(Excluded, match="--unit contradicts"):
        scp.read(str(scp_file), declaration(unit="uV"))
    for reader, path in ((muse, muse_file), (ecg_dicom, dicom), (wfdb, hea)):
        for options, words in (
            ({"rate_hz": 400}, "--rate contradicts"),
            ({"unit": "V"}, "--unit contradicts"),
            ({"leads": "II,I"}, "--leads contradicts"),
        ):
            with pytest.raises(Excluded, match=words):
                reader.read(str(path), declaration(**options))
        assert reader.read(str(path), declaration(500)).rate_hz == 500


def test_a_dicom_file_without_a_rate_or_unit_is_asked_for(tmp_path):
    rhythm = waveform.group(beats(1000))
    rhythm.SamplingFrequency = None
    path = waveform.save(tmp_path / "a.dcm", waveform.dataset(rhythm))
    with pytest.raises(Excluded, match=NO_RATE):
        ecg_dicom.read(path)
    assert ecg_dicom.read(path, declaration(500)).rate_hz == 500


def test_a_plugins_reader_takes_no_declaration_and_is_held_to_it(monkeypatch):
    class Reader:
        @staticmethod
        def read(source):
            return records.EcgRecord("a", MV, 500.0, ecg.LEADS, None, None, None, None, {}, ())

    monkeypatch.setitem(raw.READERS["ecg"], "own", Reader)
    assert raw.read("ecg", "own", "a", declaration(500)).rate_hz == 500
    with pytest.raises(Excluded, match="--rate contradicts"):
        raw.read("ecg", "own", "a", declaration(250))


# -- age and sex


@pytest.mark.parametrize(
    ("word", "sex"),
    [
        ("F", 0.0),
        ("female", 0.0),
        ("Weiblich", 0.0),
        ("w", 0.0),
        ("M", 1.0),
        ("Mann", 1.0),
        ("MALE", 1.0),
        ("männlich", 1.0),
        ("Missing", None),
        ("mixed", None),
        ("Frank", None),
        ("fetus", None),
        ("0", None),
        ("1", None),
        ("U", None),
        ("O", None),
        ("", None),
        ("Male/Female", None),
        ("not female", None),
    ],
)
def test_sex_is_a_vocabulary(tmp_path, word, sex):
    assert records.sex(word) == sex
    assert wfdb.read(write(tmp_path, beats(), f"# Sex: {word}\n")).sex == sex
    for reader, content, old in (
        (muse, made.muse(made.beats()), b"FEMALE"),
        (cardiosoft, made.cardiosoft(made.beats()), b"FEMALE"),
    ):
        (tmp_path / "a.xml").write_bytes(content.replace(old, word.encode("latin-1")))
        assert reader.read(str(tmp_path / "a.xml")).sex == sex


@pytest.mark.parametrize(
    ("comments", "age", "sex"),
    [
        ("# <age>: 65 <sex>: F <diagnoses> Coronary artery disease", 65, 0),
        ("#<age>: 51\n#<sex>: M\n#<diagnoses>:", 51, 1),
        ("# Age: 65, Sex: F", 65, 0),
        ("# Age: 65; Gender: male", 65, 1),
        ("# age=65 sex=M", 65, 1),
        ("# Age: 65 years", 65, None),
        ("# Age: 6 months", None, None),
        ("# Age: 65\n# Age: 66", None, None),
        ("# Sex: M\n# Sex: F", None, None),
        ("# Diagnosis at age: 12, Sex: F", None, None),
        ("# Average: 65", None, None),
        ("# Age: <unknown>", None, None),
        ("# Age: 650", None, None),
    ],
)
def test_comments_as_data_sets_write_them(tmp_path, comments, age, sex):
    record = wfdb.read(write(tmp_path, beats(), comments + "\n"))
    assert (record.age, record.sex) == (age, sex)


@pytest.mark.parametrize(
    ("stated", "birth", "study", "acquired", "age"),
    [
        ("", "19600101", "20260501", "", 66),
        (None, "19600601", "20260501", "", 65),
        (None, "19600601", "20260501", "20260701120000", 66),
        ("066Y", "19600101", "20260501", "", 66),
        ("030Y", "19600101", "20260501", "", None),
        (None, "", "20260501", "", None),
        (None, "19600101", "", "", None),
        (None, "1960", "20260501", "", None),
        (None, "18600101", "20260501", "", None),
    ],
)
def test_an_age_of_dicom_is_stated_or_counted(tmp_path, stated, birth, study, acquired, age):
    whole = waveform.dataset(waveform.group(beats(1000)))
    whole.PatientBirthDate, whole.StudyDate = birth, study
    if acquired:
        whole.AcquisitionDateTime = acquired
    if stated is None:
        del whole.PatientAge
    else:
        whole.PatientAge = stated
    path = waveform.save(tmp_path / "a.dcm", whole)
    assert ecg_dicom.read(path).age == age


# -- the cases that gave rise to all this


@pytest.mark.skipif(not CASES.exists(), reason="the cases lie beside a development checkout")
@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("array_minus1_1/rec.npy", "^normalised by range"),
        ("int16_array_message/rec.npy", "^whole numbers: the unit is not known"),
        ("gain_zero_wfdb/rec.hea", "^gain unknown"),
        ("npz_fs_250/rec.npz", NO_UNIT),
        ("hdf5_tracings_500hz_attr/rec.hdf5", NO_UNIT),
    ],
)
def test_cases_that_are_refused(case, reason):
    ((name, source),) = raw.search.recordings("ecg", CASES / case)
    with pytest.raises(Excluded, match=reason):
        raw.read("ecg", name, source)


@pytest.mark.skipif(not CASES.exists(), reason="the cases lie beside a development checkout")
def test_cases_that_are_read():
    def read(case, **options):
        ((name, source),) = raw.search.recordings("ecg", CASES / case)
        record = raw.read("ecg", name, source, declaration(**options))
        assert ecg.quality(ecg.settle(record.signal, record.rate_hz, record.leads)) == []
        return record

    assert read("npz_fs_250/rec.npz", unit="mV").rate_hz == 250
    assert read("hdf5_tracings_500hz_attr/rec.hdf5", unit="mV").rate_hz == 500
    assert read("pressure_beside_wfdb/rec.hea").leads == ecg.LEADS
    assert np.isnan(read("skew_wfdb/rec.hea").signal[6:, -3:]).all()
    assert read("sex_missing_wfdb/rec.hea").sex is None
    incart = read("age_sex_incart_style/rec.hea")
    assert (incart.age, incart.sex) == (65, 0)
    assert read("age_dicom_birth_date/rec.dcm").age == 66
