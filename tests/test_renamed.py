"""What was written before names changed is refused in one line that says how to go on, and nothing is written."""

import json
import shutil

import handmade
import pytest

from ecgcmr import cli, runs, store
from ecgcmr.errors import InputError
from ecgcmr.evaluation import selection
from ecgcmr.search import spaces

NETWORK = {"width": 48, "depth": 3, "heads": 6}
BEFORE = {
    "space": "toy",
    "stage": "grid",
    "task": "cad",
    "label": "mmcl",
    "method": "supervised",
    "starts": [["ecg", "toy/pretrain/ecg+cmr/mmcl/batch=8/seed=0"]],
    "modality": "ecg",
    "seed": 0,
    "preset": "paper",
    "network": NETWORK,
    "batch": 8,
    "epochs": 1,
    "take": 1.0,
    "eval_every": 1,
    "halving": 0,
    "knobs": [["lr", 0.001]],
}
OLD = r"written before names changed \(.*\), and not read any more; make it again with another --runs .*CHANGELOG"


def write(folder, trial=BEFORE, **changed):
    """A finished run as ecgcmr wrote it before names changed; its folder."""
    folder.mkdir(parents=True)
    record = {
        "trial": {**trial, **changed},
        "recipe": {"label": "mmcl", "take": 1.0, "cohort": "c", "code": "0.1.0"},
        "fingerprint": "f",
        "status": "finished",
        "provenance": {"seconds": 1.0},
    }
    (folder / "trial.json").write_text(json.dumps(record))
    return folder


def a_choice(path, chosen="batch=8,lr=0.001"):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = {"chosen": chosen, "by": "validation auroc", "compared": {chosen: 0.8}}
    path.write_text(json.dumps({**text, "unlisted": [], "replaced": []}))
    return path


def tree(folder):
    return {path: path.is_file() and path.read_bytes() for path in sorted(folder.rglob("*"))}


def refused(capfd, folder, *words):
    """The one line that a command leaves with exit code 2, having changed nothing in a folder."""
    before = tree(folder)
    assert cli.main([str(word) for word in words]) == 2
    said = capfd.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert tree(folder) == before
    return said.err


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, "label → system, take → label_fraction, starts → init_from, halving → asha"),
        ({"stage": "final"}, "final → evaluation"),
    ],
)
def test_a_record_of_before_is_refused_and_says_how_to_go_on(tmp_path, changed, words):
    folder = write(tmp_path / "seed=0", **changed)
    with pytest.raises(InputError, match=OLD) as caught:
        runs.read_run(folder)
    line = str(caught.value)
    assert line.startswith(f"{folder / 'trial.json'}: ")
    assert words in line
    assert "0.1.0 wrote it" in line
    assert "\n" not in line


def test_one_word_of_before_among_new_ones_is_enough(tmp_path):
    trial = handmade.finish(tmp_path, system="mmcl")
    path = tmp_path / trial.name / store.RECORD
    record = json.loads(path.read_text())
    record["trial"]["take"] = record["trial"].pop("label_fraction")
    path.write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"\(take → label_fraction\)"):
        runs.read_run(path.parent)


SPACE = """
from ecgcmr.search import study


def trials():
    return study.finetuning("toy", ["cad"], {"supervised": ()}, {"lr": (1e-3,)}, batch=8, epochs=1)
"""


@pytest.mark.parametrize("stage", ["pretrain", "grid", "final"])
@pytest.mark.parametrize(
    "command",
    [
        "pretrain",
        "sweep",
        "evaluate",
        "reproduce --space",
        "plan",
        "report",
        "status",
        "track rebuild",
    ],
)
def test_every_command_over_runs_refuses_them(command, stage, small_cohort, tmp_path, capfd):
    write(tmp_path / "runs" / "toy" / stage / "cad/mmcl/batch=8,lr=0.001/seed=0", stage=stage)
    (tmp_path / "space.py").write_text(SPACE)
    space = () if command in ("report", "status", "track rebuild") else (tmp_path / "space.py",)
    options = "--cohort", small_cohort.path, "--runs", tmp_path / "runs"
    line = refused(capfd, tmp_path, *command.split(), *space, *options)
    assert "written before names changed (" in line
    assert str(tmp_path / "runs/toy" / stage / "cad/mmcl") in line


def test_a_withdrawal_that_could_not_mark_them_is_refused_before_it_begins(
    small_cohort, tmp_path, capfd
):
    write(tmp_path / "runs/toy/grid/cad/mmcl/batch=8,lr=0.001/seed=0")
    (tmp_path / "ids.txt").write_text(f"{small_cohort.rows().subject.iloc[0]}\n")
    words = ["--list", tmp_path / "ids.txt", "--out", tmp_path / "out", "--runs", tmp_path / "runs"]
    line = refused(capfd, tmp_path, "cohort", "withdraw", "--cohort", small_cohort.path, *words)
    assert "written before names changed (" in line


@pytest.mark.parametrize("command", ["predict", "share", "embed", "explain", "export"])
def test_every_command_over_a_model_refuses_it(command, tmp_path, capfd):
    folder = write(tmp_path / "runs/toy/final/cad/mmcl/batch=8,lr=0.001/seed=0", stage="final")
    out = [] if command == "predict" else ["--out", tmp_path / "out"]
    more = {"export": ["--format", "onnx"]}.get(command, [])
    ecg = [tmp_path / "a.hea"] if command in ("predict", "embed", "explain") else []
    words = ["--model", folder, *ecg, *out, *more, "--runs", tmp_path / "runs"]
    assert "written before names changed (" in refused(capfd, tmp_path, command, *words)


@pytest.mark.parametrize(
    "folder", ["toy/final/cad/mmcl/batch=8/seed=0", "toy/grid/cad/mmcl/batch=8,take=0.1/seed=0"]
)
def test_what_was_begun_before_and_did_not_finish_is_refused_by_its_name(folder, tmp_path):
    (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(InputError, match=OLD):
        runs.check_names(tmp_path)


def test_new_runs_may_lie_in_a_folder_that_is_called_final(tmp_path):
    trial = handmade.finish(tmp_path / "runs", system="mmcl")
    home = tmp_path / "models/toy/final/af"
    shutil.copytree(tmp_path / "runs/toy/evaluation/af", home)
    a_choice(home / "mmcl/choice.json", trial.configuration)
    runs.check_names(tmp_path / "models")
    assert selection.read_choice(home / "mmcl").chosen == trial.configuration


@pytest.mark.parametrize(
    ("name", "chosen"),
    [
        ("final/cad/mmcl/choice.json", "batch=8"),
        ("final/cad/mmcl/choice,take=0.1.json", "batch=8,take=0.1"),
        ("evaluation/cad/mmcl/choice,take=0.1.json", "batch=8,take=0.1"),
        ("evaluation/cad/mmcl/choice.json", "batch=8,take=0.1"),
    ],
)
def test_a_choice_of_before_is_refused_where_it_is_read_or_said(name, chosen, tmp_path):
    path = a_choice(tmp_path / "toy" / name, chosen)
    match = rf"{path.name}: {OLD}"
    with pytest.raises(InputError, match=match):
        selection.read_choice(path.parent)
    with pytest.raises(InputError, match=match):
        selection.contradictions(tmp_path)


TRIAL = "space='a', stage='grid', task='af', method='supervised'"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (f"[Trial({TRIAL}, label='mmcl')]", "a trial's 'label' is called 'system' now"),
        (
            f"[Trial({TRIAL}, system='b', take=0.1)]",
            "a trial's 'take' is called 'label_fraction' now",
        ),
        (
            f"[Trial({TRIAL}, system='b', starts=())]",
            "a trial's 'starts' is called 'init_from' now",
        ),
        (f"[Trial({TRIAL}, system='b', halving=4)]", "a trial's 'halving' is called 'asha' now"),
        (
            f"[replace(Trial({TRIAL}, system='b'), take=0.1)]",
            "'take' is called 'label_fraction' now",
        ),
        (f"[t for t in [Trial({TRIAL}, system='b')] if t.label]", "'label' is called 'system' now"),
        (
            f"[t for t in [Trial({TRIAL}, system='b')] if t.point]",
            "'point' is called 'configuration'",
        ),
        (f"[replace(Trial({TRIAL}, system='b'), stage='final')]", "'final' is 'evaluation' now"),
        (
            "study.finetuning('a', ['af'], starts={'b': ()}, grid={})",
            "'starts' is called 'init_from'",
        ),
        ("study.finetuning('a', ['af'], {'b': ()}, {'lr': (1,)}, take=0.1)", "'take' is called"),
        (
            "study.finetuning('a', ['af'], {'b': ()}, {'take': (1.0, 0.1)})",
            "'take' is called 'label_",
        ),
    ],
)
def test_a_search_space_of_before_is_told_the_new_word(code, words, tmp_path):
    path = tmp_path / "space.py"
    imports = "from dataclasses import replace\nfrom ecgcmr.search import study\nfrom ecgcmr.trial import Trial\n"
    path.write_text(f"{imports}def trials():\n    return {code}\n")
    with pytest.raises(InputError, match=words) as caught:
        spaces.load(path)
    line = str(caught.value)
    assert line.startswith(f"{path}:")
    assert "Traceback" not in line
    assert "\n" not in line


def test_a_word_that_is_wrong_and_was_never_another_is_told_as_it_is(tmp_path):
    path = tmp_path / "space.py"
    path.write_text(
        f"from ecgcmr.trial import Trial\ndef trials():\n    return [Trial({TRIAL}, labels='b')]\n"
    )
    with pytest.raises(
        InputError, match=r":3: TypeError: Trial.__init__\(\) got an unexpected keyword"
    ):
        spaces.load(path)
