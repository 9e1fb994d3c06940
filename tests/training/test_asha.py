import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from ecgcmr import trial
from ecgcmr.errors import InputError
from ecgcmr.training import asha
from ecgcmr.training.asha import Rungs
from ecgcmr.trial import Trial

POINT = Trial(
    space="t", stage="grid", task="af", system="mae", method="supervised", epochs=400, asha=4
)


def test_where_the_rungs_stand(tmp_path):
    found = asha.of(POINT, tmp_path, "c1")
    assert found.epochs == (6, 25, 100)
    assert (
        found.reached(0, 5),
        found.reached(5, 6),
        found.reached(6, 24),
        found.reached(5, 30),
    ) == (None, 6, None, 25)
    assert asha.of(dataclasses.replace(POINT, epochs=3), tmp_path, "c1").epochs == (1,)
    assert asha.of(dataclasses.replace(POINT, asha=0), tmp_path, "c1") is None
    assert (
        asha.of(dataclasses.replace(POINT, stage="evaluation"), tmp_path, "c1") is None
    )  # the five seeds run whole


@pytest.mark.parametrize(
    "other",
    [
        {"task": "dm"},
        {"system": "mmcl"},
        {"label_fraction": 0.1},
        {"seed": 1},
        {"preset": "authors"},
        {"space": "u"},
    ],
)
def test_only_trials_of_one_question_are_compared(tmp_path, other):
    ours = asha.of(POINT, tmp_path, "c1").folder
    assert asha.of(dataclasses.replace(POINT, **other), tmp_path, "c1").folder != ours
    assert asha.of(POINT, tmp_path, "c2").folder != ours
    assert (
        asha.of(dataclasses.replace(POINT, batch=8, knobs=(("lr", 1e-5),)), tmp_path, "c1").folder
        == ours
    )


def test_the_best_of_all_that_have_reported_go_on(tmp_path):
    board = Rungs(tmp_path, 2, (5, 10))
    assert board.survivors(5, {"a": 0.6, "b": 0.7, "c": 0.5, "d": 0.8}) == {"b", "d"}
    assert board.survivors(5, {"e": 0.55}) == set()  # of five the best three are 0.8, 0.7, 0.6
    assert board.survivors(5, {"f": 0.65}) == {"f"}
    assert board.survivors(10, {"b": 0.71}) == {"b"}  # alone on its rung
    assert board.survivors(5, {"g": 0.7, "h": 0.7}) == {
        "g",
        "h",
    }  # as good as the last that goes on


def test_a_resumed_trial_counts_once(tmp_path):
    board = Rungs(tmp_path, 2, (5,))
    board.survivors(5, {"a": 0.6, "b": 0.7})
    assert board.survivors(5, {"a": 0.9, "b": 0.7}) == {"a"}


def test_lines_of_processes_do_not_mix(tmp_path):
    code = f"""
import sys; sys.path.insert(0, {str(Path(asha.__file__).parents[2])!r})
from pathlib import Path
from ecgcmr.training.asha import Rungs
for i in range(200):
    Rungs(Path({str(tmp_path)!r}), 4, (5,)).survivors(5, {{f"{{sys.argv[1]}}-{{i}}": 0.5}})
"""
    writers = [subprocess.Popen([sys.executable, "-c", code, name]) for name in "ab"]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    assert len((tmp_path / "5.jsonl").read_text().splitlines()) == 400
    assert Rungs(tmp_path, 4, (5,)).survivors(5, {"last": 0.6}) == {"last"}


def test_a_trial_says_in_its_name_that_it_was_compared():
    whole = dataclasses.replace(POINT, asha=0)
    assert "asha=4" in POINT.configuration
    assert "asha" not in whole.configuration
    assert trial.fingerprint(POINT, "c") != trial.fingerprint(whole, "c")
    assert "asha" not in trial.recipe(
        whole, "c"
    )  # runs made before the option existed stay what they are
    old = trial.to_json(whole)
    del old["asha"]
    assert trial.from_json(old) == whole
    with pytest.raises(InputError, match="asha=1"):
        dataclasses.replace(POINT, asha=1)
