"""What `ecgcmr inspect` says of files, that it leaves nothing behind, and how it leaves."""

import json
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
from test_cohort import write_wfdb
from test_quality_flags import person, wired

from ecgcmr import cli
from ecgcmr.cohort import inspect
from ecgcmr.errors import InputError
from ecgcmr.signals import ecg

DATA = Path(__file__).parents[1] / "recordings" / "wfdb"
REAL = Path(__file__).resolve().parents[3] / "shared" / "data"


def beat(rate=500):
    time = np.arange(10 * rate) / rate
    return np.exp(-(((time * 1.1) % 1 - 0.4) ** 2) / 0.001)


def write_stack(path, slices=9, phases=12):
    """A pulsing disc as 4-D NIfTI."""
    y, x = np.mgrid[:64, :64] - 32
    radius = 12 - 4 * np.sin(np.pi * np.arange(phases) / phases)
    frames = np.stack([(np.hypot(x, y) < r) * 100.0 for r in radius], axis=-1)
    stack = np.repeat(frames[:, :, None, :], slices, axis=2).astype(np.float32)
    image = nibabel.Nifti1Image(stack, np.diag([2.0, 2.0, -8.0, 1.0]))
    image.header.set_xyzt_units("mm", "msec")
    image.header["pixdim"][4] = 40.0
    nibabel.save(image, path)


def seen(path):
    (one,) = inspect.look(inspect.find(path))
    return one


def called(capfd, *words):
    code = cli.main(["inspect", *map(str, words)])
    said = capfd.readouterr()
    return code, said.out, said.err


def test_an_ecg(tmp_path):
    write_wfdb(tmp_path, "r0", beat())
    one = seen(tmp_path / "r0.hea")
    assert (one.kind, one.format, one.error, one.faults, one.flags, one.kept) == (
        "ecg",
        "wfdb",
        "",
        (),
        (),
        True,
    )
    assert one.facts["leads"] == f"12: {' '.join(ecg.LEADS)}"
    assert (one.facts["rate"], one.facts["length"]) == ("500 Hz", "10.0 s, 5,000 samples")
    assert one.facts["person"] == "61 years, female"
    assert one.facts["labels"] == "none in the file"
    assert one.picture.shape == (12, 5000)
    assert seen(tmp_path / "r0.dat") == one  # people name the signal file as well


def test_what_would_be_done_and_what_not(tmp_path):
    write_wfdb(tmp_path, "slow", np.tile(beat(), 2)[::5], rate=100)
    write_wfdb(tmp_path, "short", beat()[:3000])
    write_wfdb(tmp_path, "loud", 28 * beat())
    slow, short, loud = (seen(tmp_path / f"{name}.hea") for name in ("slow", "short", "loud"))
    assert slow.repairs == (
        "resampled from 100 Hz",
        "cropped to the first 10 s",
        "clipped and freed of its baseline",
    )
    assert (short.kept, short.faults, short.picture) == (False, ("shorter than 10 s",), None)
    assert (loud.kept, loud.faults[0], loud.picture is None) == (
        False,
        "implausible amplitude",
        False,
    )


def test_a_suspicion_is_named_and_does_not_exclude(tmp_path, monkeypatch):
    import wfdb

    signal = wired(person(1), "RA–LL").T
    wfdb.wrsamp(
        "x",
        fs=500,
        units=["mV"] * 12,
        sig_name=list(ecg.LEADS),
        p_signal=signal,
        fmt=["16"] * 12,
        adc_gain=[1000] * 12,
        baseline=[0] * 12,
        write_dir=str(tmp_path),
    )
    one = seen(tmp_path / "x.hea")
    assert (one.flags, one.kept) == (("lead reversal suspected: RA–LL",), True)


def test_a_stack(tmp_path):
    write_stack(tmp_path / "s.nii.gz")
    one = seen(tmp_path / "s.nii.gz")
    assert (one.kind, one.format, one.kept) == ("cmr", "nifti", True)
    assert one.facts["stack"] == "9 slices, 8 mm apart"
    assert one.facts["cycle"] == "12 phases, 0 to 440 ms after the R wave"
    assert one.facts["pixels"] == "64 × 64, 2 × 2 mm"
    assert one.facts["taken"].startswith("slice 4 of 0 to 8; phases ES ")
    write_stack(tmp_path / "thin.nii.gz", slices=5)
    assert seen(tmp_path / "thin.nii.gz").faults == ("too few slices: 7 or fewer",)


def test_a_folder_of_many_formats(tmp_path):
    (tmp_path / "a").mkdir()
    write_wfdb(tmp_path / "a", "r0", beat())
    write_stack(tmp_path / "s.nii.gz")
    (tmp_path / "a" / "broken.hea").write_text("broken 12 500 5000\n")
    (tmp_path / "notes.txt").write_text("nothing")
    found = list(inspect.look(inspect.find(tmp_path)))
    assert [Path(one.source).name for one in found] == ["broken.hea", "r0.hea", "s.nii.gz"]
    assert [one.kind for one in found] == ["", "ecg", "cmr"]
    assert found[0].error == "unreadable WFDB record"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere", "no such file or folder"),
        ("notes.txt", "no recording of a known format; known: wfdb"),
    ],
)
def test_what_is_no_recording(tmp_path, name, words):
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(InputError, match=words):
        inspect.find(tmp_path / name)


def test_one_file_that_cannot_be_read_is_one_line_and_2(tmp_path, capfd):
    (tmp_path / "broken.hea").write_text("broken 12 500 5000\n")
    code, out, err = called(capfd, tmp_path / "broken.hea")
    assert (code, out) == (2, "")
    assert err == f"ecgcmr: {tmp_path / 'broken.hea'} (wfdb): unreadable WFDB record\n"


def test_one_among_many_that_cannot_be_read_does_not_stop_the_others(tmp_path, capfd):
    write_wfdb(tmp_path, "r0", beat())
    (tmp_path / "broken.hea").write_text("broken 12 500 5000\n")
    code, out, err = called(capfd, tmp_path)
    assert code == 2
    assert out == "r0.hea  wfdb ECG  500 Hz  10.0 s, 5,000 samples  kept\n"
    assert "broken.hea (wfdb): unreadable WFDB record" in err
    code, out, _ = called(capfd, tmp_path, "--limit", 1)
    assert (code, out) == (2, "")


def test_recordings_in_an_archive_are_looked_at_in_place(tmp_path, capfd):
    (tmp_path / "loose").mkdir()
    for name in ("r0", "r1"):
        write_wfdb(tmp_path / "loose", name, beat())
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as opened:
        for file in sorted((tmp_path / "loose").iterdir()):
            opened.write(file, f"a/{file.name}")
    both = list(inspect.look(inspect.find(tmp_path / "all.zip")))
    assert [one.source for one in both] == [f"{tmp_path / 'all.zip'}#a/r{i}.hea" for i in (0, 1)]
    loose = seen(tmp_path / "loose/r1.hea")
    assert both[1].facts == loose.facts
    assert (both[1].picture == loose.picture).all()
    assert called(capfd, f"{tmp_path / 'all.zip'}#a/r1.hea")[0] == 0
    code, _, err = called(capfd, f"{tmp_path / 'all.zip'}#a/r2.hea")
    assert (code, err) == (
        2,
        f"ecgcmr: {tmp_path / 'all.zip'}#a/r2.hea: no such recording in all.zip\n",
    )
    (tmp_path / "cut.zip").write_bytes((tmp_path / "all.zip").read_bytes()[:-30])
    code, out, err = called(capfd, tmp_path / "cut.zip")
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert "damaged archive" in err


def test_nothing_but_plots_is_written(tmp_path, capfd, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "temp").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temp"))
    write_wfdb(tmp_path, "r0", beat())
    code, out, _ = called(capfd, tmp_path / "r0.hea", "--plot", "plots")
    assert code == 0
    assert "cohort   keeps it" in out
    assert [p.name for p in (tmp_path / "here").rglob("*")] == ["plots", "001-r0.hea.png"]
    assert list((tmp_path / "temp").iterdir()) == []
    called(capfd, tmp_path / "r0.hea", "--plot", "one.svg")
    assert (tmp_path / "here" / "one.svg").exists()
    write_wfdb(tmp_path, "r1", beat())
    code, _, err = called(capfd, tmp_path, "--plot", "one.svg")
    assert code == 2
    assert "one image for several recordings; name a folder" in err


def test_json_is_json(tmp_path, capfd):
    write_wfdb(tmp_path, "r0", beat())
    code, out, _ = called(capfd, tmp_path / "r0.hea", "--json")
    (one,) = json.loads(out)
    assert code == 0
    assert (one["kind"], one["kept"], one["facts"]["rate"]) == ("ecg", True, "500 Hz")
    assert "picture" not in one


def test_the_small_real_recordings():
    for header in DATA.glob("*.hea"):
        one = seen(header)
        assert (one.kind, one.format) == ("ecg", "wfdb")


@pytest.mark.skipif(not REAL.exists(), reason="needs the shared recordings")
def test_a_tape_of_scouts_is_refused_as_it_is():
    one = seen(REAL / "cmr" / "sunnybrook" / "localizer")
    assert one.error == "not a cine: fewer than 10 phases per position"
