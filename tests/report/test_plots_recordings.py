"""Figures: true scale on paper, no shared state, honest refusals."""

import subprocess
import sys

import numpy as np
import pytest

from ecgcmr.errors import InputError
from ecgcmr.report.plots import recordings

MM = 1 / 25.4  # inch


@pytest.fixture(scope="module")
def ecg():
    t = np.arange(5000) / 500
    beat = np.exp(-0.5 * (((t + 0.5) % 1.0 - 0.5) / 0.012) ** 2)
    return np.linspace(0.3, 2.0, 12)[:, None] * beat


def inches(axes, points):
    return axes.transData.transform(points) / axes.figure.dpi


def trace(figure, gid):
    axes = figure.axes[0]
    return axes, [line for line in axes.lines if line.get_gid() == gid]


def test_paper_runs_at_25_mm_per_second_and_10_mm_per_millivolt(ecg):
    axes, (limb, strip) = trace(recordings.ecg_paper(ecg, 500), "II")
    xy = inches(axes, strip.get_xydata())
    assert len(xy) == 5000
    assert xy[500, 0] - xy[0, 0] == pytest.approx(25 * MM)
    assert np.ptp(xy[:, 1]) == pytest.approx(10 * MM * np.ptp(ecg[1]))
    assert len(limb.get_xydata()) == 1250


def test_calibration_pulse_is_one_millivolt_for_a_fifth_of_a_second(ecg):
    axes, pulses = trace(recordings.ecg_paper(ecg, 500), "calibration")
    assert len(pulses) == 4
    xy = inches(axes, pulses[0].get_xydata())
    assert np.ptp(xy[:, 1]) == pytest.approx(10 * MM)
    assert xy[3, 0] - xy[2, 0] == pytest.approx(5 * MM)


def test_grid_is_of_one_and_five_millimetres(ecg):
    axes = recordings.ecg_paper(ecg, 500).axes[0]
    for lines, step in zip(axes.collections, (1, 5)):
        ends = [np.asarray(path.vertices) for path in lines.get_paths()]
        upright = [xy for xy in ends if xy[0, 0] == xy[1, 0]]
        assert inches(axes, upright[1])[0, 0] - inches(axes, upright[0])[0, 0] == pytest.approx(
            step * MM
        )


def test_scale_does_not_depend_on_the_rate(ecg):
    axes, (_, strip) = trace(recordings.ecg_paper(ecg[:, ::2], 250), "II")
    xy = inches(axes, strip.get_xydata())
    assert xy[250, 0] - xy[0, 0] == pytest.approx(25 * MM)


def test_every_lead_stands_once_and_two_twice(ecg):
    figure = recordings.ecg_paper(ecg, 500)
    for lead in recordings.LEADS:
        assert len(trace(figure, lead)[1]) == (2 if lead == "II" else 1)


def test_columns_follow_each_other_in_time(ecg):
    marked = ecg.copy()
    marked[6, 2500:3750] = 1.5  # V1 is the third column: 5 to 7.5 s
    _, (v1,) = trace(recordings.ecg_paper(marked, 500), "V1")
    assert np.ptp(v1.get_ydata()) == 0


@pytest.mark.parametrize("shape", [(11, 5000), (12, 100), (5000,)])
def test_wrong_shape_is_refused(shape):
    with pytest.raises(InputError, match="needs \\(12, T\\)"):
        recordings.ecg_paper(np.zeros(shape), 500)


def test_frames_share_one_grey_scale():
    cmr = np.stack([np.full((210, 210), value, np.uint8) for value in (10, 100, 250)])
    figure = recordings.frames(cmr, title="subject")
    limits = {axes.images[0].get_clim() for axes in figure.axes}
    assert limits == {(10.0, 250.0)}
    assert [axes.get_title() for axes in figure.axes] == [
        "end-systole",
        "mid-phase",
        "end-diastole",
    ]


def test_contact_sheet_has_a_row_for_each(ecg, tmp_path):
    rows = [
        (f"subject {i}", ecg, np.zeros((3, 20, 20), np.uint8) + np.arange(20, dtype=np.uint8))
        for i in range(3)
    ]
    figure = recordings.contact_sheet(rows, 500)
    assert len(figure.axes) == 12
    assert recordings.save(figure, tmp_path / "sheet.png").stat().st_size > 5000


def test_save_makes_folders_and_equal_files(ecg, tmp_path):
    paths = [
        recordings.save(recordings.ecg_paper(ecg, 500), tmp_path / name / "ecg.png")
        for name in ("a", "b")
    ]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_pyplot_stays_out():
    code = "import sys; from ecgcmr.report.plots import recordings; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], check=False, env={"PYTHONPATH": ":".join(sys.path)}
        ).returncode
        == 0
    )
