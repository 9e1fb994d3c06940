"""WFDB recordings as they are: real headers that lie, files cut short, and what must not leave the reader."""

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import wfdb as library

from ecgcmr.errors import Excluded, InputError
from ecgcmr.raw import READERS, leftovers, wfdb
from ecgcmr.signals import ecg

DATA = Path(__file__).parents[1] / "recordings" / "wfdb"
SHARED = Path(__file__).parents[3] / "shared" / "data" / "ecg"


def copy(name: str, folder: Path) -> Path:
    for file in DATA.glob(f"{name}.*"):
        shutil.copy(file, folder)
    return folder / f"{name}.hea"


def write(
    folder: Path,
    signal: np.ndarray,
    head: str = "",
    name: str = "r1",
    gain: str = "1000/mV",
    rate: int = 500,
) -> str:
    """A record of format 16 with standard leads and a header of our own; counts are `signal`."""
    counts = signal.astype("<i2")
    (folder / f"{name}.dat").write_bytes(counts.T.tobytes())
    lines = [f"{name} {len(counts)} {rate} {counts.shape[1]}"]
    lines += [
        f"{name}.dat 16 {gain} 16 0 {row[0]} {row.sum() % 65536} 0 {lead}"
        for row, lead in zip(counts, ecg.LEADS)
    ]
    (folder / f"{name}.hea").write_text("\n".join(lines) + "\n" + head)
    return str(folder / f"{name}.hea")


def beats(scale: float = 1000, seed: int = 0) -> np.ndarray:
    """Lawful counts with beats of 0.9 mV on average at `scale` counts per mV, without a step of their own."""
    t = np.arange(5000) / 500
    wave = np.exp(-0.5 * (((t * 1.2) % 1 - 0.4) / 0.03) ** 2) - 0.3 * np.exp(
        -0.5 * (((t * 1.2) % 1 - 0.7) / 0.05) ** 2
    )
    noise = np.random.default_rng(seed).normal(0, 0.02, (8, 5000))
    one, two = 0.6 * wave + noise[0], 0.9 * wave + noise[1]
    chest = [size * wave + n for size, n in zip((-0.8, -0.6, 0.7, 1.1, 1.0, 0.8), noise[2:])]
    return scale * np.stack(
        [one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2, *chest]
    )


@pytest.mark.parametrize(
    ("name", "repairs"),
    [
        ("A0002", ()),
        ("HR00001", ("gain 200/mV in the header, 1000 in the samples",)),
        (
            "E00001",
            (
                "record name in the header put right",
                "gain 4880/mV in the header, 1000 in the samples",
            ),
        ),
    ],
)
def test_gain_and_name_of_real_headers(name, repairs):
    record = wfdb.read(str(DATA / f"{name}.hea"))
    microvolts = scipy.io.loadmat(DATA / f"{name}.mat")["val"]
    assert record.repairs == repairs
    assert np.abs(record.signal - microvolts / 1000).max() < 1e-6
    assert record.key == name
    assert record.rate_hz == 500
    assert record.leads == ecg.LEADS
    assert ecg.quality(ecg.settle(record.signal, record.rate_hz, record.leads)) == []


def test_the_source_files_are_not_changed():
    before = {file.name: file.read_bytes() for file in DATA.iterdir()}
    wfdb.read(str(DATA / "E00001.hea"))
    assert {file.name: file.read_bytes() for file in DATA.iterdir()} == before


def test_flat_leads_of_a_real_record():
    record = wfdb.read(str(DATA / "JS11438.hea"))
    with pytest.raises(Excluded, match="flat lead"):
        ecg.prepare(record.signal, record.rate_hz, record.leads)


def test_real_record_of_100_hz():
    record = wfdb.read(str(DATA / "00001_lr.hea"))
    assert record.rate_hz == 100
    signal, words = ecg.prepare(record.signal, record.rate_hz, record.leads)
    assert signal.shape == (12, 5000)
    assert words == ("resampled from 100 Hz",)


def test_age_sex_and_diagnoses():
    record = wfdb.read(str(DATA / "A0002.hea"))
    assert (record.age, record.sex) == (49.0, 0.0)
    assert record.labels["snomed_426783006"] == 1
    assert record.labels["af"] == 0
    assert wfdb.read(str(DATA / "E00001.hea")).age is None
    assert wfdb.read(str(DATA / "E00001.hea")).labels == {}


@pytest.mark.parametrize(
    ("head", "age", "sex", "af"),
    [
        ("# Age: 61\n# Sex: M\n# Dx: 164890007,426177001\n", 61.0, 1.0, 1.0),
        ("#Age: NaN\n#Sex: Unknown\n#Dx: Unknown\n", None, None, None),
        ("#age: 300\n#SEX: female\n#DX: 426177001\n", None, 0.0, 0.0),
        ("", None, None, None),
    ],
)
def test_comments(tmp_path, head, age, sex, af):
    record = wfdb.read(write(tmp_path, beats(), head))
    assert (record.age, record.sex, record.labels.get("af")) == (age, sex, af)


def test_nothing_identifying_leaves(tmp_path):
    secret = "Jane Roe"
    head = f"#Name: {secret}\n#Date: 1970-02-01\n#Dx: {secret}\n#Age: {secret}\n#Sex: {secret}\n# ID: 12345\n"
    record = wfdb.read(write(tmp_path, beats(), head))
    said = repr(
        (
            record.key,
            record.age,
            record.sex,
            list(record.labels.values()),
            record.repairs,
            record.person,
        )
    )
    assert "Jane" not in said
    assert not [name for name in record.labels if "Jane" in name or "12345" in name]


@pytest.mark.parametrize(
    ("gain", "scale"), [("200/mV", 200), ("204.9/mV", 204.9), ("5000/mV", 5000), ("1/uV", 1000)]
)
def test_right_gains_stand(tmp_path, gain, scale):
    record = wfdb.read(write(tmp_path, beats(scale), gain=gain))
    assert record.repairs == ()
    assert np.abs(record.signal - beats(1)).max() < 1.01 / scale


@pytest.mark.parametrize("doubled", [2, 5])
def test_scaled_up_counts_with_an_honest_gain_stand(tmp_path, doubled):
    counts = np.round(beats(1000)) * doubled
    assert wfdb.read(write(tmp_path, counts, gain=f"{1000 * doubled}/mV")).repairs == ()


@pytest.mark.parametrize(("gain", "step"), [("200/mV", 5.0), ("4880/mV", 4.88)])
def test_converter_steps_give_the_gain_away(tmp_path, gain, step):
    counts = np.trunc(np.round(beats(1000) / step) * step)
    record = wfdb.read(write(tmp_path, counts, gain=gain))
    assert len(record.repairs) == 1
    assert np.abs(record.signal - counts / 1000).max() < 1e-6


def test_unit_off_by_a_thousand():
    assert wfdb.true_gain(beats(1000), 1.0, 500) == 1000
    assert wfdb.true_gain(beats(1), 1000.0, 500) == 1


def test_gain_in_doubt_is_excluded(tmp_path):
    """Steps say microvolts, the height of a small heart says 200/mV: nobody can tell."""
    counts = np.round(beats(200) / 5) * 5
    with pytest.raises(Excluded, match="gain in doubt"):
        wfdb.read(write(tmp_path, counts, gain="200/mV"))


def test_wrong_gain_without_steps_is_excluded_by_its_height(tmp_path):
    record = wfdb.read(write(tmp_path, beats(30_000) / 4, gain="1000/mV"))
    with pytest.raises(Excluded, match="implausible amplitude"):
        ecg.prepare(record.signal, record.rate_hz, record.leads)


def test_missing_samples_are_nan(tmp_path):
    counts = beats()
    counts[3, 100:150] = -32768
    record = wfdb.read(write(tmp_path, counts))
    assert np.isnan(record.signal[3, 100:150]).all()
    assert np.isnan(record.signal).sum() == 50


def _truncate(header: Path) -> None:
    payload = header.with_suffix(".mat")
    payload.write_bytes(payload.read_bytes()[:50_000])


def _flip(header: Path) -> None:
    payload = header.with_suffix(".mat")
    content = bytearray(payload.read_bytes())
    content[60_000] ^= 0x55
    payload.write_bytes(content)


def _replace(old: str, new: str):
    def change(header: Path) -> None:
        header.write_text(header.read_text().replace(old, new))

    return change


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_truncate, "signal file truncated: fewer samples than the header states"),
        (_flip, "samples differ from the header's checksum"),
        (lambda header: header.write_text(""), "unreadable WFDB record"),
        (
            lambda header: header.write_bytes(bytes(range(256)) * 40),
            "unreadable WFDB record|outside",
        ),
        (lambda header: header.with_suffix(".mat").unlink(), "signal file absent"),
        (_replace("A0002.mat", "../A0002.mat"), "header names a file outside its folder"),
        (_replace("A0002.mat", "/etc/passwd"), "header names a file outside its folder"),
        (_replace("A0002.mat", "s3://x/A0002.mat"), "header names a file outside its folder"),
        (_replace("/mV", "/mmHg"), "unit is not a voltage"),
    ],
)
def test_damage_is_a_reason_not_a_traceback(tmp_path, damage, reason):
    header = copy("A0002", tmp_path)
    damage(header)
    with pytest.raises(Excluded, match=reason):
        wfdb.read(str(header))


MIMIC = ("I", "II", "III", "aVR", "aVF", "aVL", *ecg.LEADS[6:])


def mimic(folder: Path, counts: np.ndarray, names: tuple[str, ...]) -> str:
    """A record as MIMIC-IV-ECG writes it: 200/mV, goldberger leads as aVR, aVF, aVL."""
    header = Path(write(folder, counts, "#<redacted>\n", gain="200.0(0)/mV"))
    lines = header.read_text().splitlines()
    for i, name in enumerate(names, start=1):
        lines[i] = lines[i].rsplit(" ", 1)[0] + f" {name}"
    header.write_text("\n".join(lines) + "\n")
    return str(header)


def test_the_order_of_mimic_is_put_right_by_name(tmp_path):
    counts = beats(200)[[ecg.LEADS.index(lead) for lead in MIMIC]]
    counts[7, 2000:2020] = -32768  # NaN in physical units
    record = wfdb.read(mimic(tmp_path, counts, MIMIC))
    assert record.leads == MIMIC
    signal, words = ecg.prepare(record.signal, record.rate_hz, record.leads)
    assert words == ("leads reordered", "missing samples set to 0")
    untouched = np.trunc(beats(200)) / 200
    assert (
        np.abs(ecg.settle(record.signal, 500, record.leads)[[3, 4, 5]] - untouched[[3, 4, 5]]).max()
        < 1e-6
    )
    assert np.isfinite(signal).all()


@pytest.mark.parametrize("named", [True, False])
def test_swapped_leads_under_right_names_are_refused(tmp_path, named):
    """aVF stands where the header says aVL: nothing tells whether names or signals are wrong, so neither is moved."""
    counts = beats(200)[[ecg.LEADS.index(lead) for lead in (MIMIC if named else ecg.LEADS)]]
    record = wfdb.read(mimic(tmp_path, counts, ecg.LEADS if named else MIMIC))
    with pytest.raises(Excluded, match="Einthoven's law violated"):
        ecg.prepare(record.signal, record.rate_hz, record.leads)


@pytest.mark.skipif(
    not SHARED.exists(), reason="the real recordings lie beside a development checkout"
)
def test_swapped_leads_of_real_records_are_refused():
    caught = [
        ecg.einthoven(ecg.settle(record.signal, record.rate_hz, MIMIC)) > ecg.EINTHOVEN_LIMIT
        for record in (
            wfdb.read(str(path)) for path in sorted((SHARED / "cinc").glob("*.hea"))[::6]
        )
        if not ecg.quality(ecg.settle(record.signal, record.rate_hz, record.leads))
    ]
    assert len(caught) >= 30
    assert np.mean(caught) > 0.95


@pytest.mark.skipif(
    not SHARED.exists(), reason="the real recordings lie beside a development checkout"
)
def test_ptb_with_frank_leads_at_1000_hz():
    record = wfdb.read(str(SHARED / "formats" / "s0010_re.hea"))
    assert record.signal.shape == (15, 38_400)
    assert (record.rate_hz, record.leads[12:], record.age, record.sex) == (
        1000.0,
        ("vx", "vy", "vz"),
        81.0,
        0.0,
    )
    signal, words = ecg.prepare(record.signal, record.rate_hz, record.leads)
    assert signal.shape == (12, 5000)
    assert words == ("resampled from 1000 Hz", "cropped to the first 10 s")
    assert ecg.einthoven(ecg.settle(record.signal, 1000, record.leads)) < 0.02


@pytest.mark.parametrize("name", ["80", "212", "16", "24", "32", "61", "310", "311", "160"])
def test_signal_formats(tmp_path, name):
    """Written by `wfdb` where it can write, by hand where it only reads."""
    scale = 50 if name == "80" else 200
    counts = np.round(beats(scale)).astype(np.int64)
    store(tmp_path, counts, name, scale)
    record = wfdb.read(str(tmp_path / "r.hea"))
    assert np.abs(record.signal - counts / scale).max() < 1e-6
    assert ecg.quality(ecg.settle(record.signal, 500, record.leads)) == []


def store(folder: Path, counts: np.ndarray, name: str, scale: int) -> None:
    flat = counts.T.ravel()
    ten = flat & 0x3FF  # the formats of three samples in four bytes hold ten bits
    three = np.pad(ten, (0, -len(ten) % 3)).reshape(-1, 3)
    content = {
        "80": lambda: (flat + 128).astype("u1"),
        "160": lambda: (flat + 32768).astype("<u2"),
        "16": lambda: flat.astype("<i2"),
        "61": lambda: flat.astype(">i2"),
        "32": lambda: flat.astype("<i4"),
        "24": lambda: flat.astype("<i4").view("u1").reshape(-1, 4)[:, :3],
        "212": lambda: np.stack(
            [
                flat[::2] & 0xFF,
                (flat[::2] >> 8 & 0xF) | (flat[1::2] >> 8 & 0xF) << 4,
                flat[1::2] & 0xFF,
            ],
            axis=1,
        ).astype("u1"),
        "311": lambda: (three[:, 0] | three[:, 1] << 10 | three[:, 2] << 20).astype("<u4"),
        "310": lambda: np.stack(
            [
                three[:, 0] << 1 | (three[:, 2] & 0x1F) << 11,
                three[:, 1] << 1 | (three[:, 2] >> 5) << 11,
            ],
            axis=1,
        ).astype("<u2"),
    }[name]()
    (folder / "r.dat").write_bytes(content.tobytes())
    zero = {"160": 0, "80": 0}.get(name, 0)
    lines = [f"r 12 500 {counts.shape[1]}"]
    lines += [
        f"r.dat {name} {scale}/mV 16 {zero} {row[0]} {row.sum() % 65536} 0 {lead}"
        for row, lead in zip(counts, ecg.LEADS)
    ]
    (folder / "r.hea").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("rate", [257.5, 999.56, 360.25])
def test_fractional_rates(tmp_path, rate):
    samples = int(np.ceil(10 * rate)) + 5
    wave = np.sin(2 * np.pi * 5 * np.arange(samples) / rate)
    header = Path(write(tmp_path, 1000 * np.tile(wave, (12, 1)), rate=rate))
    record = wfdb.read(str(header))
    assert record.rate_hz == rate
    out = ecg.settle(record.signal, record.rate_hz, record.leads)[0]
    assert np.abs(out - np.sin(2 * np.pi * 5 * np.arange(5000) / 500))[50:-50].max() < 0.02


def test_skewed_signals_are_aligned(tmp_path):
    """A header may say that a signal lags by some samples: `II` was written five samples late."""
    counts = np.round(beats())
    late = counts.copy()
    late[1] = np.roll(counts[1], 5)
    header = Path(write(tmp_path, late))
    lines = header.read_text().splitlines()
    lines[2] = (
        lines[2]
        .replace(".dat 16 ", ".dat 16:5 ")
        .replace(f" {late[1].sum() % 65536:.0f} 0", " 0 0")
    )
    fields = lines[2].split()
    lines[2] = " ".join(
        [*fields[:5], *fields[-1:]]
    )  # first value and checksum are of the signal as stored
    header.write_text("\n".join(lines) + "\n")
    record = wfdb.read(str(header))
    assert np.abs(record.signal[1, :4990] - counts[1, :4990] / 1000).max() < 1e-6
    assert np.isnan(record.signal[1, -5:]).all()


SPANS = {"s1": (0, 2000), "s2": (2000, 5000)}


def master(folder: Path, *lines: str, record="m/2 12 500 5000", spans=SPANS, change=None) -> str:
    """A multi-segment record: segments of `beats()`, and a header with their lines or these."""
    for name, (first, last) in spans.items():
        write(folder, beats()[:, first:last], "# Age: 61\n# Sex: M\n", name=name)
    lines = lines or tuple(f"{name} {last - first}" for name, (first, last) in spans.items())
    (folder / "m.hea").write_text("\n".join([record, *lines]) + "\n")
    if change:
        change(folder)
    return str(folder / "m.hea")


def second_opinion(source: str) -> np.ndarray:
    """(leads, samples) mV as the library joins segments."""
    return library.rdrecord(source.removesuffix(".hea"), m2s=True).p_signal.T


def test_segments_of_a_fixed_layout_are_joined(tmp_path):
    source = master(tmp_path)
    record = wfdb.read(source)
    assert (record.key, record.rate_hz, record.leads) == ("m", 500, ecg.LEADS)
    assert (record.age, record.sex, record.repairs) == (61, 1, (wfdb.JOINED,))
    assert np.abs(record.signal - np.trunc(beats()) / 1000).max() < 1e-6
    assert np.abs(record.signal - second_opinion(source)).max() < 1e-6
    _, words = ecg.prepare(record.signal, record.rate_hz, record.leads)
    assert words == ()


def test_segments_that_the_library_wrote(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    millivolts = beats(1).T
    for name, part in (("s1", millivolts[:1500]), ("s2", millivolts[1500:])):
        form = {"units": ["mV"] * 12, "sig_name": list(ecg.LEADS), "fmt": ["16"] * 12}
        library.wrsamp(name, fs=500, p_signal=part, **form)  # each with gains of its own
    names = {"record_name": "m", "seg_name": ["s1", "s2"], "seg_len": [1500, 3500]}
    joined = library.MultiRecord(n_sig=12, fs=500, sig_len=5000, segments=[None, None], **names)
    joined.n_seg = 2
    joined.wrheader()
    record = wfdb.read(str(tmp_path / "m.hea"))
    assert np.abs(record.signal - beats(1)).max() < 1e-3
    assert np.abs(record.signal - second_opinion(str(tmp_path / "m.hea"))).max() < 1e-6


def test_segments_of_a_variable_layout_are_joined_by_name(tmp_path):
    """Another order of leads and other gains in the second, a gap of 0.2 s between them."""
    counts = beats()
    write(tmp_path, counts[:, :3000], name="s1")
    second = write(tmp_path, 0.2 * counts[::-1, 3100:], name="s2", gain="200/mV")
    text = Path(second).read_text()
    for i, (lead, other) in enumerate(zip(ecg.LEADS, ecg.LEADS[::-1])):
        text = text.replace(f" {lead}\n", f" <{i}>\n").replace(f" <{i}>\n", f" <{other}>\n")
    Path(second).write_text(text.replace("<", "").replace(">", ""))
    layout = [f"~ 0 1000/mV 16 0 0 0 0 {lead}" for lead in ecg.LEADS]
    (tmp_path / "m_layout.hea").write_text("\n".join(["m_layout 12 500 0", *layout]) + "\n")
    record = "m/4 12 500 5000"
    lines = ["m_layout 0", "s1 3000", "~ 100", "s2 1900"]
    (tmp_path / "m.hea").write_text("\n".join([record, *lines]) + "\n")
    record = wfdb.read(str(tmp_path / "m.hea"))
    assert record.repairs == (wfdb.JOINED, wfdb.GAP)
    assert np.isnan(record.signal[:, 3000:3100]).all()
    assert np.isnan(record.signal).sum() == 1200
    assert np.nanmax(np.abs(record.signal - counts / 1000)) < 6e-3
    theirs = second_opinion(str(tmp_path / "m.hea"))
    assert np.allclose(record.signal, theirs, atol=1e-6, equal_nan=True)
    _, words = ecg.prepare(record.signal, record.rate_hz, record.leads)
    assert words == ("missing samples set to 0",)


def test_a_lead_that_a_segment_lacks_and_a_long_gap_are_missing_samples(tmp_path):
    source = master(tmp_path, "s1 2000", "~ 3000", "s2 3000", record="m/3 12 500 8000")
    record = wfdb.read(source)
    with pytest.raises(Excluded, match="missing samples"):
        ecg.prepare(record.signal, record.rate_hz, record.leads)
    header = tmp_path / "s2.hea"
    header.write_text(header.read_text().replace(" V3\n", " ABP\n"))
    (tmp_path / "m.hea").write_text("m/2 12 500 5000\ns1 2000\ns2 3000\n")
    record = wfdb.read(source)
    assert np.isnan(record.signal[8, 2000:]).all()
    assert np.isnan(record.signal).sum() == 3000


def _rewritten(name: str, old: str, new: str):
    def change(folder: Path) -> None:
        file = folder / name
        file.write_text(file.read_text().replace(old, new))

    return change


def _damaged(folder: Path) -> None:
    content = bytearray((folder / "s2.dat").read_bytes())
    content[100] ^= 0x55
    (folder / "s2.dat").write_bytes(content)


@pytest.mark.parametrize(
    ("lines", "change", "reason"),
    [
        ((), _damaged, "samples differ from the header's checksum"),
        ((), lambda folder: (folder / "s2.hea").unlink(), "segment absent"),
        ((), lambda folder: (folder / "s2.dat").unlink(), "signal file absent"),
        ((), _rewritten("s2.hea", "s2 12 500", "s2 12 250"), "several sampling rates"),
        ((), _rewritten("m.hea", "12 500", "12 1000"), "several sampling rates"),
        ((), _rewritten("s2.hea", "16 1000/mV", "16x2 1000/mV"), "truncated|several sampling"),
        ((), _rewritten("m.hea", "500 5000", "500 6000"), "number of samples differs"),
        (("s1 2100", "s2 2900"), None, "number of samples differs"),
        (("s1 2000", "s1 3000"), None, "segment named twice"),
        (("s1 2000", "m 3000"), None, "segment that has segments"),
        (("s1 2000", "../s2 3000"), None, "unreadable WFDB record"),
        (("s1 2000",), None, "unreadable WFDB record"),
        (("s1 2000", "s2"), None, "unreadable WFDB record"),
        (("s1 2000", "s2 many"), None, "unreadable WFDB record"),
        (("~ 2000", "~ 3000"), None, "no samples"),
        (("s1 2000", "s2 0"), None, "no samples"),
        ((), _rewritten("s2.hea", " V3\n", " V4\n"), "two leads of one name"),
        ((), _rewritten("s2.hea", "1000/mV", "0/mV"), "gain unknown"),
        ((), _rewritten("s1.hea", "/mV", "/mmHg"), "unit is not a voltage"),
    ],
)
def test_segments_that_do_not_make_one_recording_are_refused(tmp_path, lines, change, reason):
    with pytest.raises(Excluded, match=reason):
        wfdb.read(master(tmp_path, *lines, change=change))


def test_a_gap_takes_no_memory_without_end(tmp_path):
    lines = ("s1 2000", "~ 999999999999", "s2 3000")
    with pytest.raises(Excluded, match="file too large"):
        wfdb.read(master(tmp_path, *lines, record="m/3 12 500"))


def test_segments_are_no_recordings_of_their_own(tmp_path):
    """In a folder and in an archive one is listed, and nothing of it is left aside."""
    master(tmp_path, "m_layout 0", "s1 2000", "s2 3000", record="m/3 12 500 5000")
    (tmp_path / "m_layout.hea").write_text("m_layout 0 500 0\n")
    write(tmp_path, beats(), name="r1")
    names = ["m.hea", "r1.hea"]
    assert [Path(source).name for source in wfdb.find(str(tmp_path))] == names
    assert leftovers.left_aside([tmp_path], wfdb.find(str(tmp_path))) == {}
    packed = tmp_path / "zip" / "a.zip"
    packed.parent.mkdir()
    with zipfile.ZipFile(packed, "w") as file:
        for member in tmp_path.glob("*.*"):
            file.write(member, f"ward/{member.name}")
    sources = wfdb.find(str(packed))
    assert [source.rpartition("/")[2] for source in sources] == names
    assert leftovers.left_aside([packed], sources) == {}
    loose, inside = wfdb.read(str(tmp_path / "m.hea")), wfdb.read(sources[0])
    assert np.array_equal(loose.signal, inside.signal)


@pytest.mark.parametrize(
    "line",
    [
        "r1 12 500 1000000000000",
        "r1 99999999 500 5000",
        "r1 11 500 5000",
        "r1 12 500 0",
        "r1 x",
        "r1",
    ],
)
def test_a_record_line_that_lies(tmp_path, line):
    header = Path(write(tmp_path, beats()))
    header.write_text("\n".join([line, *header.read_text().splitlines()[1:]]) + "\n")
    with pytest.raises(Excluded, match=r"unreadable WFDB record|no samples|signal file truncated"):
        wfdb.read(str(header))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("r1 12 -500 5000", "sampling rate unknown"),
        ("r1 12 0 5000", "sampling rate unknown"),
        ("r1 12 500 -5", "unreadable WFDB record"),
        ("r1 12 500 many", "unreadable WFDB record"),
    ],
)
def test_what_wfdb_would_pass_over_in_a_record_line(tmp_path, line, reason):
    header = Path(write(tmp_path, beats()))
    header.write_text("\n".join([line, *header.read_text().splitlines()[1:]]) + "\n")
    with pytest.raises(Excluded, match=reason):
        wfdb.read(str(header))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [("-1000/mV", "gain unknown"), ("80", "several formats in one signal file")],
)
def test_a_lead_upside_down_or_in_a_format_of_its_own(tmp_path, damage, reason):
    header = Path(write(tmp_path, beats()))
    lines = header.read_text().splitlines()
    old = "1000/mV" if "mV" in damage else " 16 "
    lines[4] = lines[4].replace(old, damage if "mV" in damage else f" {damage} ", 1)
    header.write_text("\n".join(lines) + "\n")
    with pytest.raises(Excluded, match=reason):
        wfdb.read(str(header))


def test_names_of_signals_that_are_no_leads_stay_inside(tmp_path):
    header = Path(write(tmp_path, np.concatenate([beats(), beats()[:1]])))
    text = header.read_text()
    counts = beats()[0].astype("<i2")
    last = f"r1.dat 16 1000/mV 16 0 {counts[0]} {counts.sum() % 65536} 0 Jane Roe"
    header.write_text(text + last + "\n")
    record = wfdb.read(str(header))
    assert record.leads == (*ecg.LEADS, "other")
    assert "Jane" not in repr(record)


def test_find(tmp_path):
    for name in ("b/2_hr", "a/1_lr", "b/2_lr", "a/x"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.hea").touch()
    found = [Path(source).relative_to(tmp_path).as_posix() for source in wfdb.find(str(tmp_path))]
    assert found == ["a/1_lr.hea", "a/x.hea", "b/2_hr.hea"]
    assert wfdb.find(str(tmp_path / "a" / "x")) == [str(tmp_path / "a" / "x.hea")]
    with pytest.raises(InputError, match="no such"):
        wfdb.find(str(tmp_path / "nowhere"))
    (tmp_path / "c").mkdir()
    with pytest.raises(InputError, match="no WFDB header"):
        wfdb.find(str(tmp_path / "c"))


@pytest.mark.parametrize(
    ("folder", "person"),
    [("patient001", "patient001"), ("p1000/p10001725/s4", "p10001725"), ("g1", None)],
)
def test_repeat_visits_share_a_person(tmp_path, folder, person):
    (tmp_path / folder).mkdir(parents=True)
    assert wfdb.read(write(tmp_path / folder, beats())).person == person


def test_ptbxl_table_is_found_above_the_records(tmp_path):
    folder = tmp_path / "records500" / "00000"
    folder.mkdir(parents=True)
    (tmp_path / "ptbxl_database.csv").write_text(
        "ecg_id,patient_id,age,sex,height,weight,scp_codes,filename_lr,filename_hr\n"
        "1,15709.0,300.0,1,,63.0,\"{'NORM': 100.0, 'AFLT': 0.0}\",records100/00000/00001_lr,records500/00000/00001_hr\n"
    )
    record = wfdb.read(write(folder, beats(), "#Age: 56\n", name="00001_hr"))
    assert (record.age, record.sex, record.height, record.weight) == (None, 0.0, None, 63.0)
    assert record.person == "patient15709"
    assert (record.labels["scp_NORM"], record.labels["scp_IMI"], record.labels["af"]) == (
        1.0,
        0.0,
        1.0,
    )


def test_registry():
    assert READERS["ecg"]["wfdb"] is wfdb
    for readers in READERS.values():
        for reader in readers.values():
            assert all(callable(getattr(reader, name)) for name in ("find", "read", "suits"))
