"""Tables of text with named leads, and EDF: written by hand, with what they state and what they leave open."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_raw_wfdb import beats

from ecgcmr.errors import Excluded, InputError
from ecgcmr.raw import READERS, declaration, edf, records, search, text_table
from ecgcmr.signals import ecg

MV = np.round(beats(1), 4)


def table(path: Path, values=MV, names=ecg.LEADS, head="", sep=",", **columns) -> str:
    frame = pd.DataFrame({**columns, **dict(zip(names, values))})
    path.write_text(head + frame.to_csv(index=False, sep=sep))
    return str(path)


def times(unit=1.0, rate=500):
    return np.arange(5000) / rate / unit


@pytest.mark.parametrize(
    ("form", "scale"),
    [
        ({"head": "# fs: 500\n# unit: mV\n"}, 1),
        ({"head": "Sampling Rate: 500 Hz\nUnits: mV\n\n"}, 1),
        ({"names": [f"{lead} (mV)" for lead in ecg.LEADS], "time_s": times()}, 1),
        ({"names": [f"{lead}_uV" for lead in ecg.LEADS], "Time [ms]": times(1e-3)}, 1000),
        ({"names": [f"ECG {lead.lower()} [µV]" for lead in ecg.LEADS], "seconds": times()}, 1000),
        ({"head": "# fs=500\n# unit=mV\n", "sep": ";", "note": np.arange(5000)}, 1),
    ],
)
def test_what_a_table_states_is_used(tmp_path, form, scale):
    path = table(tmp_path / "a.csv", np.round(MV * scale, 4), **form)
    record = text_table.read(path)
    assert record.rate_hz == 500
    assert np.array_equal([ecg.lead_name(lead) for lead in record.leads], ecg.LEADS)
    assert np.abs(record.signal - MV).max() < 1e-4
    assert search.whose("ecg", Path(path)) == "csv"
    with pytest.raises(Excluded, match="--rate contradicts"):
        text_table.read(path, declaration(250))
    with pytest.raises(Excluded, match="--unit contradicts"):
        text_table.read(path, declaration(unit="V"))


def test_what_a_table_leaves_open_is_asked_for(tmp_path):
    path = table(tmp_path / "a.tsv", sep="\t")
    with pytest.raises(Excluded, match=r"--unit mV --rate 500$"):
        text_table.read(path)
    assert np.abs(text_table.read(path, declaration(500, "mV")).signal - MV).max() < 1e-6
    (tmp_path / "a.json").write_text(json.dumps({"sfreq": 500, "units": "mV"}))
    assert text_table.read(path).rate_hz == 500
    path = table(tmp_path / "b.csv", time=times())  # of no unit
    with pytest.raises(Excluded, match="sampling rate unknown"):
        text_table.read(path, declaration(unit="mV"))
    path = table(tmp_path / "c.csv", np.round(1000 * MV).astype(int))
    with pytest.raises(Excluded, match="whole numbers: the unit is not known"):
        text_table.read(path, declaration(500))


def test_leads_are_taken_by_name_and_blank_cells_are_missing(tmp_path):
    order = [1, 0, *range(11, 5, -1)]
    path = table(tmp_path / "a.csv", MV[order], [ecg.LEADS[i] for i in order], ward=["x"] * 5000)
    lines = Path(path).read_text().splitlines()
    cells = lines[101].split(",")
    lines[101] = ",".join([cells[0], "", *cells[2:]])
    Path(path).write_text("\n".join(lines) + "\n")
    record = text_table.read(path, declaration(500, "mV"))
    assert record.leads == tuple(ecg.LEADS[i] for i in order)
    assert np.isnan(record.signal[0, 100])
    assert np.isnan(record.signal).sum() == 1
    settled = ecg.settle(record.signal, 500, record.leads)
    assert np.nanmax(np.abs(settled[6:] - MV[6:])) < 1e-6


def test_decimal_commas(tmp_path):
    frame = pd.DataFrame(dict(zip(ecg.LEADS, MV))).to_csv(index=False, sep=";", decimal=",")
    (tmp_path / "a.csv").write_text("# fs: 500\n# unit: mV\n" + frame)
    assert np.abs(text_table.read(str(tmp_path / "a.csv")).signal - MV).max() < 1e-6


def _read_and_prepare(path):
    record = text_table.read(path, declaration(500, "mV"))
    return ecg.prepare(record.signal, record.rate_hz, record.leads)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda text: text.replace("\n0.", "\nx", 1), "samples are not numbers"),
        (lambda text: text.replace("\n0.", "\n1,0.", 1), "lines of different numbers of cells"),
        (lambda text: text[:-20], "lines of different numbers of cells"),
        (lambda text: text.replace("V1,V2", "V2,V2"), "two leads of one name"),
        (lambda text: text.replace("I,II,III", "a,b,c"), "a lead is missing"),
        (lambda text: "\n".join(text.splitlines()[:2000]), "shorter than 10 s"),
        (lambda text: "", "no line that names the leads"),
        (lambda text: "a,b\n1,2\n", "no standard lead"),
    ],
)
def test_what_a_table_is_refused_for(tmp_path, change, reason):
    path = Path(table(tmp_path / "a.csv"))
    path.write_text(change(path.read_text()))
    with pytest.raises(Excluded, match=reason):
        _read_and_prepare(str(path))


def test_times_that_are_not_even_are_refused(tmp_path):
    late = times()
    late[3000:] += 0.5
    with pytest.raises(Excluded, match="samples that are not evenly spaced"):
        text_table.read(table(tmp_path / "a.csv", time_s=late), declaration(unit="mV"))


def test_a_normalised_table_is_refused(tmp_path):
    path = table(tmp_path / "a.csv", MV / np.abs(MV).max(), head="# fs: 500\n# unit: mV\n")
    with pytest.raises(Excluded, match="normalised by range"):
        text_table.read(path)


def test_labels_files_are_no_ecgs(tmp_path):
    for name, text in (("labels.csv", "id,af,1,2,3\n1,0,0,0,1\n"), ("a.csv", "I,II\n1,2\n")):
        (tmp_path / name).write_text(text)
        assert not text_table.suits(tmp_path / name, records.head(tmp_path / name))
    with pytest.raises(InputError, match="no table of an ECG"):
        text_table.find(str(tmp_path))
    path = table(tmp_path / "b.csv")
    assert text_table.find(str(tmp_path)) == [path]
    assert READERS["ecg"]["csv"] is text_table


# -- EDF


def write_edf(
    path: Path,
    rows,
    *,
    rate=500,
    unit="uV",
    scale=1000.0,
    blocks=None,
    patient="X F 23-APR-1951 Quillfeather",
    kind="EDF+C",
    duration="1",
    limits=("-5000", "5000", "-32768", "32767"),
    others=(),
) -> str:
    """An EDF+ file of one-second records; `rows` are (label, mV at `rate`), `others` (label, unit, counts)."""
    low, high, least, most = map(float, limits)
    gain = (high - low) / (most - least)
    signals = [
        (label, unit, rate, np.round((row * scale - low) / gain + least)) for label, row in rows
    ]
    signals += [(label, word, len(row) // 10, row) for label, word, row in others]
    count = len(signals)
    seconds = len(signals[0][3]) // rate

    def cells(words, width):
        return "".join(str(word)[:width].ljust(width) for word in words)

    head = cells(["0"], 8) + cells([patient], 80)
    head += cells(["Startdate 17-FEB-2019 X X SN889XQ"], 80) + "17.02.1914.35.09"
    head += cells([256 * (count + 1)], 8) + cells([kind], 44)
    head += cells([seconds if blocks is None else blocks], 8) + cells([duration], 8)
    head += cells([count], 4)
    head += cells([s[0] for s in signals], 16) + cells([""] * count, 80)
    head += cells([s[1] for s in signals], 8)
    for word in limits:
        head += cells([word] * count, 8)
    head += cells([""] * count, 80) + cells([s[2] for s in signals], 8) + cells([""] * count, 32)
    body = b"".join(
        np.asarray(row[second * n : (second + 1) * n]).astype("<i2").tobytes()
        for second in range(seconds)
        for _, _, n, row in signals
    )
    path.write_bytes(head.encode("latin-1") + body)
    return str(path)


ROWS = list(zip(ecg.LEADS, beats(1)))


@pytest.mark.parametrize(("unit", "scale"), [("uV", 1000), ("mV", 1), ("V", 1e-3), ("\xb5V", 1000)])
def test_edf(tmp_path, unit, scale):
    limits = (f"{-5 * scale:g}", f"{5 * scale:g}", "-32768", "32767")
    rows = [(f"ECG {lead}", row) for lead, row in ROWS]
    others = [("ABP", "mmHg", np.arange(1000)), ("EEG Fpz-Cz", "uV", np.arange(1000))]
    path = write_edf(tmp_path / "a.edf", rows, unit=unit, scale=scale, limits=limits, others=others)
    record = edf.read(path)
    assert np.abs(record.signal - beats(1)).max() < 1e-4
    assert (record.rate_hz, [ecg.lead_name(lead) for lead in record.leads]) == (
        500,
        list(ecg.LEADS),
    )
    assert (record.age, record.sex) == (67, 0)
    assert "Quillfeather" not in repr(record)
    assert search.whose("ecg", Path(path)) == "edf"
    assert edf.find(str(tmp_path)) == [path]
    with pytest.raises(Excluded, match="--rate contradicts"):
        edf.read(path, declaration(250))
    with pytest.raises(Excluded, match="--unit contradicts"):
        edf.read(path, declaration(unit="nV"))


def test_a_unit_of_edf_that_is_blank_is_asked_for(tmp_path):
    path = write_edf(tmp_path / "a.edf", ROWS, unit="")
    with pytest.raises(Excluded, match="unit unknown"):
        edf.read(path)
    assert np.abs(edf.read(path, declaration(unit="uV")).signal - beats(1)).max() < 1e-3


def test_plain_edf_has_free_text_for_a_person(tmp_path):
    record = edf.read(write_edf(tmp_path / "a.edf", ROWS, kind="", patient="4711 Roe 1951"))
    assert (record.age, record.sex, record.patient) == (None, None, None)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"unit": "mmHg"}, "unit is not a voltage"),
        ({"limits": ("5000", "-5000", "-32768", "32767")}, "gain unknown"),
        ({"limits": ("0", "0", "-32768", "32767")}, "gain unknown|unreadable"),
        ({"limits": ("-5000", "5000", "0", "0")}, "gain unknown|unreadable"),
        ({"blocks": 12}, "file cut short"),
        ({"blocks": 9}, "number of samples differs from the stated"),
        ({"blocks": "x"}, "unreadable EDF file"),
        ({"duration": "0"}, "unreadable EDF file"),
    ],
)
def test_what_edf_is_refused_for(tmp_path, options, reason):
    if "limits" in options and len(set(options["limits"])) < 4:
        path = Path(write_edf(tmp_path / "a.edf", ROWS))
        content = path.read_bytes()
        start = 256 + 13 * 8 * 12 if options["limits"][0] == "0" else 256 + 15 * 8 * 12
        blank = b"0".ljust(8) * 24
        path.write_bytes(content[:start] + blank + content[start + len(blank) :])
    else:
        path = Path(write_edf(tmp_path / "a.edf", ROWS, **options))
    with pytest.raises(Excluded, match=reason):
        edf.read(str(path))


@pytest.mark.parametrize("text", [b"12,-7,204,33,-1,8,", b"<p>Roe, Jane; 4711</p>\n"])
@pytest.mark.parametrize("limits", [("-5000", "5000", "-2048", "2047"), None])
def test_a_tail_of_text_in_the_chest_leads_of_edf_is_refused(tmp_path, text, limits):
    """The last second of V5 and V6: no law of the limb leads holds for these, and EDF has no checksum."""
    path = Path(write_edf(tmp_path / "a.edf", ROWS, **({"limits": limits} if limits else {})))
    sound = path.read_bytes()
    tail = (text + bytes(np.random.default_rng(0).integers(44, 58, 2000, "u1")))[:2000]
    path.write_bytes(sound[:-2000] + tail)
    if limits:
        with pytest.raises(Excluded, match="samples beyond the digital limits"):
            edf.read(str(path))
    else:
        record = edf.read(str(path))
        with pytest.raises(Excluded, match="stretch of noise"):
            ecg.prepare(record.signal, record.rate_hz, record.leads)


def test_a_count_beyond_the_digital_limits_of_edf_is_no_damage(tmp_path):
    """Some recorders mark by it what is missing, and state symmetric limits."""
    rows = [(name, np.where(np.arange(5000) == 9, -5.005, row)) for name, row in ROWS]
    limits = ("-5000", "5000", "-1000", "1000")
    assert edf.read(write_edf(tmp_path / "a.edf", rows, limits=limits)).leads == ecg.LEADS


def test_edf_of_other_signals_or_several_rates_is_refused(tmp_path):
    with pytest.raises(Excluded, match="no standard lead"):
        edf.read(write_edf(tmp_path / "a.edf", [("EEG Fpz-Cz", beats(1)[0])]))
    odd = [("V6", "uV", np.round(beats(1000)[11][::5]))]
    with pytest.raises(Excluded, match=r"leads differ in length|several sampling rates"):
        edf.read(write_edf(tmp_path / "b.edf", ROWS[:11], others=odd))


def test_registry():
    assert READERS["ecg"]["edf"] is edf
