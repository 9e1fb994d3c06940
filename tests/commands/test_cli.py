"""The command line as a person meets it: words, exit codes, and nothing written where nothing should be."""

import errno
import json
import os
import runpy
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest
from conftest import heart_rows, write_cohort

from ecgcmr import cli, files, store
from ecgcmr.cohort import dataset
from ecgcmr.errors import InputError
from ecgcmr.runtime import cluster
from ecgcmr.search import spaces, sweep

REPOSITORY = Path(__file__).resolve().parents[2]
COMMANDS = sorted(cli.EXAMPLES)
ANYWHERE = {
    "inspect"
}  # needs neither cohort nor runs, nor a job: jobs/inspect.py would hide the standard library's module
SPACE = """
from ecgcmr.search import study


def trials():
    return study.finetuning("t", ["cad"], {"supervised": ()}, {"lr": (1e-3,)}, epochs=1)
"""

SMALL_DEMO = f"""
from dataclasses import replace
from pathlib import Path

from ecgcmr.nn import Network
from ecgcmr.search import spaces

NETWORK = Network(crop=2500, patch=500, width=8, depth=1, heads=2, blocks=(1, 1, 1, 1), image_width=4, image_size=48)


def trials():
    demo = spaces.load(Path({str(REPOSITORY / "search_spaces/demo.py")!r}))
    return [replace(trial, network=NETWORK, batch=min(trial.batch, 4)) for trial in demo]
"""  # small steps, as they are timed


def called(capfd, *words):
    """The exit code, the results (stdout) and the rest (stderr)."""
    code = cli.main([str(word) for word in words])
    said = capfd.readouterr()
    return code, said.out.strip(), said.err.strip()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_that_ends_in_an_example(name, capsys):
    with pytest.raises(SystemExit) as left:
        cli.main([*name.split(), "--help"])
    text = capsys.readouterr().out
    assert left.value.code == 0
    assert text.rstrip().endswith(cli.EXAMPLES[name])
    assert ("--runs" in text and "--cohort" in text) == (name not in ANYWHERE)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_example_parses(name):
    assert cli.parser().parse_args(cli.EXAMPLES[name].split()[1:]).name == name


def test_the_version_is_that_of_the_package(capsys):
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    with pytest.raises(SystemExit) as left:
        cli.main(["--version"])
    assert left.value.code == 0
    assert capsys.readouterr().out == f"ecgcmr {project['version']}\n"


EACH_JOB = """
import contextlib, io, json, runpy, sys

path, answers = list(sys.path), {}
for script in sys.argv[1:]:
    sys.path[:] = path
    for name in [name for name in sys.modules if name.split(".")[0] == "ecgcmr"]:
        del sys.modules[name]  # each job has to find the package anew
    sys.argv = [script, "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            code = runpy.run_path(script, run_name="__main__") and 0
        except SystemExit as left:
            code = left.code
    answers[script] = code, out.getvalue()
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def helped(tmp_path_factory):
    """Exit code and output of every job's --help, by its file: all in one process, as most of the time is its start."""
    words = [sys.executable, "-c", EACH_JOB, *map(str, (REPOSITORY / "jobs").glob("*.py"))]
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, cwd=elsewhere)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", sorted({name.split()[0] for name in COMMANDS} - ANYWHERE))
def test_every_command_has_a_job_that_is_the_same_function(name, helped):
    code, text = helped[str(REPOSITORY / "jobs" / f"{name}.py")]
    assert code == 0
    assert text.startswith(f"usage: ecgcmr {name}")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["sweeep", "x.py"], "ecgcmr: there is no 'sweeep'; did you mean 'sweep'?"),
        (["seeds", "x.py"], "ecgcmr: there is no 'seeds', it is called 'evaluate' now"),
        (["cohort", "biuld"], "ecgcmr cohort: there is no 'biuld'; did you mean 'build'?"),
        (["cohort", "zzz"], "ecgcmr cohort: there is no 'zzz'; there are synth, build, "),
        (
            ["cohort", "build", "--lables=x.csv"],
            "ecgcmr cohort build: there is no option --lables; did you mean '--labels'?",
        ),
        (
            ["import", "--label", "mae", "weights.pt"],
            "ecgcmr import: there is no option --label, it is called '--system' now",
        ),
        (["--vesion"], "ecgcmr: there is no option --vesion; did you mean '--version'?"),
        (["sweep", "a.py", "b.py"], "ecgcmr: one argument too many: b.py"),
        (["pretrain"], "ecgcmr pretrain: the following arguments are required: space"),
        (
            ["pretrain", "a.py", "--workers", "0"],
            "ecgcmr pretrain: argument --workers: '0' is not a positive whole number",
        ),
    ],
)
def test_a_slip_of_the_keyboard_is_one_line_that_says_what_was_meant(words, line, capsys):
    with pytest.raises(SystemExit) as left:
        cli.main(words)
    said = capsys.readouterr()
    assert left.value.code == 2
    assert said.out == ""
    assert said.err.startswith(line)
    assert said.err.endswith(" --help\n")
    assert said.err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["pretrain", "nowhere.py"], "nowhere.py: no such search-space file"),
        (["sweep", "nowhere.py"], "nowhere.py: no such search-space file"),
        (["cohort", "check"], "cohort"),
        (["report"], "cohort"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(words, said, tmp_path, capfd):
    code, results, text = called(
        capfd, *words, "--runs", tmp_path / "a/runs", "--cohort", tmp_path / "b/cohort"
    )
    lines = [line for line in text.splitlines() if line.startswith("ecgcmr: ")]
    assert code == 2
    assert len(lines) == 1
    assert said in lines[0]
    assert "Traceback" not in text
    assert results == ""
    assert list(tmp_path.iterdir()) == []


BAD_WORDS = [
    ["fly"],
    ["cohort", "synth", "--subjects", "0"],
    ["cohort", "synth", "--scale", "x"],
    [],
]


@pytest.mark.parametrize("words", BAD_WORDS)
@pytest.mark.filterwarnings("ignore:.*found in sys.modules")
def test_words_that_do_not_parse_leave_with_2(words, monkeypatch, capfd):
    monkeypatch.setattr(sys, "argv", ["ecgcmr", *words])
    with pytest.raises(SystemExit) as left:
        runpy.run_module("ecgcmr.cli", run_name="__main__")
    assert left.value.code == 2
    assert "Traceback" not in capfd.readouterr().err


def test_a_space_without_trials_names_file_and_line(tmp_path, small_cohort, capfd):
    space = tmp_path / "space.py"
    space.write_text('"""A space."""\n\ndef trials():\n    return [1 / 0]\n')
    code, _, text = called(
        capfd, "sweep", space, "--cohort", small_cohort.path, "--runs", tmp_path / "runs"
    )
    assert code == 2
    assert "space.py:4: ZeroDivisionError" in text


def test_a_full_disk_is_one_line(tmp_path, capfd, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "x"))

    monkeypatch.setattr(store, "rows", full)
    code, _, text = called(capfd, "status", "--runs", tmp_path / "runs", "--cohort", tmp_path)
    assert code == 2
    assert (
        text
        == f"ecgcmr: no space left on the disk of {tmp_path / 'x'}; free some and run the same command again"
    )


def test_a_defect_of_ours_is_one_line_and_a_log(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(store, "rows", lambda runs: 1 / 0)
    code, _, text = called(capfd, "status", "--runs", tmp_path / "runs", "--cohort", tmp_path)
    assert code == 1
    assert text.startswith("ecgcmr: ZeroDivisionError: division by zero; the whole story is in ")
    assert "Traceback" in Path(text.rsplit(" ", 1)[1]).read_text()


def test_an_input_error_keeps_to_one_line(tmp_path, capfd, monkeypatch):
    def refuse(runs):
        raise InputError("two\nlines")

    monkeypatch.setattr(store, "rows", refuse)
    assert called(capfd, "status", "--runs", tmp_path / "r", "--cohort", tmp_path) == (
        2,
        "",
        "ecgcmr: two lines",
    )


def test_a_refusal_leaves_what_was_there_before(tmp_path, capfd):
    (tmp_path / "runs/logs").mkdir(parents=True)
    (tmp_path / "runs/logs/older.log").touch()
    assert (
        called(capfd, "report", "--runs", tmp_path / "runs", "--cohort", tmp_path / "cohort")[0]
        == 2
    )
    assert [path.name for path in tmp_path.rglob("*")] == ["runs", "logs", "older.log"]


@pytest.mark.parametrize("works", [True, False])
def test_the_log_of_a_refusal_is_kept_where_work_was_done_before(
    works, small_cohort, tmp_path, capfd, monkeypatch
):
    def refuse(checked, **_):
        if works:
            files.write_json(checked.runs / checked.todo[0].name / store.RECORD, {})
        raise InputError("a worker's refusal")

    monkeypatch.setattr(cluster, "start", lambda **_: None)
    monkeypatch.setattr(sweep, "run_checked", refuse)
    (tmp_path / "space.py").write_text(SPACE)
    words = [
        "sweep",
        tmp_path / "space.py",
        "--cohort",
        small_cohort.path,
        "--runs",
        tmp_path / "runs",
    ]
    assert called(capfd, *words)[0] == 2
    assert [
        ("a worker's refusal" in log.read_text()) for log in tmp_path.glob("runs/logs/*.log")
    ] == [True] * works
    assert (tmp_path / "runs").exists() == works


def test_a_build_that_is_refused_leaves_nothing(ray_session, tmp_path, capfd):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/a.hea").write_text("a 12 500 5000\n")
    words = [
        "cohort",
        "build",
        "--ecg",
        f"wfdb:{tmp_path / 'raw'}",
        "--cohort",
        tmp_path / "made/for/cohort",
    ]
    code, results, text = called(capfd, *words, "--runs", tmp_path / "runs")
    assert (code, results) == (2, "")
    assert "none of 1 recordings can serve" in text
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_what_a_cohort_is_too_small_for_is_no_result(small_cohort, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(spaces, "feasible", lambda trials, cohort: ([], {"too small": len(trials)}))
    (tmp_path / "space.py").write_text(SPACE)
    words = [
        "sweep",
        tmp_path / "space.py",
        "--cohort",
        small_cohort.path,
        "--runs",
        tmp_path / "runs",
    ]
    code, results, text = called(capfd, *words)
    assert code == 0
    assert results == "0 trials run, 0 of 0 were finished or left out by --budget"
    assert text == "left out, 1 trials: too small"


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """A cohort that is checked in no time."""
    return write_cohort(tmp_path_factory.mktemp("few") / "cohort", heart_rows(12))


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("words", [["--help"], ["status"], ["cohort", "check"]])
def test_a_reader_who_has_left_is_no_error(words, both, few, tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    places = [] if words == ["--help"] else ["--runs", tmp_path, "--cohort", few.path]
    done = subprocess.run(
        [sys.executable, "-m", "ecgcmr.cli", *words, *places],
        stdout=writer,
        text=True,
        timeout=120,
        stderr=writer if both else subprocess.PIPE,
        env={
            name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"
        },  # it hides late failures
    )
    os.close(writer)
    assert done.returncode == 0
    assert "Error" not in (done.stderr or "")
    assert not [log for log in tmp_path.rglob("*.log") if log.stat().st_size]


def test_status_tells_finished_running_and_stopped(tmp_path, capfd):
    progress = store.Progress(tmp_path, "s/pretrain/ecg/mae/seed=0", 10, "steps")
    progress.update(5, loss=0.5)
    code, text, beside = called(capfd, "status", "--runs", tmp_path, "--cohort", tmp_path)
    assert (code, beside) == (0, "")
    assert "running" in text
    assert "5/10 steps" in text
    files.write_json(progress.path, {**progress.record, "now": progress.record["now"] - 3600})
    assert "stopped" in called(capfd, "status", "--runs", tmp_path, "--cohort", tmp_path)[1]


def test_check_of_a_clean_cohort(small_cohort, tmp_path, capfd):
    code, results, text = called(
        capfd, "cohort", "check", "--cohort", small_cohort.path, "--runs", tmp_path
    )
    assert code == 0
    assert results == f"{small_cohort.path}: clean"
    assert text.startswith("✓ Check of ")
    assert len(text.splitlines()) == 1  # the stage; the result is not said twice


def test_plan_prints_the_bill_and_starts_nothing(small_cohort, tmp_path, capfd):
    (tmp_path / "space.py").write_text(SMALL_DEMO)
    words = [
        "plan",
        tmp_path / "space.py",
        "--cohort",
        small_cohort.path,
        "--runs",
        tmp_path / "runs",
    ]
    code, text, beside = called(capfd, *words)
    assert (code, beside) == (0, "")
    assert "preset paper" in text
    grid = Counter(
        trial.task
        for trial in spaces.load(REPOSITORY / "search_spaces/demo.py")
        if trial.stage == "grid"
    )
    shown = [line.split()[:3] for line in text.splitlines() if line.startswith("grid")]
    assert shown == [["grid", task, str(count)] for task, count in grid.items()]
    assert "time:" in text
    assert not list((tmp_path / "runs").glob("demo"))
    assert dataset.open(small_cohort.path).fingerprint == small_cohort.fingerprint
