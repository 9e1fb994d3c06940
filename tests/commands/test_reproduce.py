"""`ecgcmr reproduce --scale toy`, from nothing to the page: the paper's every system, table and figure."""

import subprocess
import sys
import time

import pandas as pd
import pytest

from ecgcmr import paper, store
from ecgcmr.runs import all_runs
from ecgcmr.search import study

FIGURES = (
    "figure4",
    "figure5",
    "figure6",
    "reliability",
    *(f"differences-{stem}" for stem in paper.LAYOUTS),
)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """The runs of the toy study, and how long it took."""
    folder = tmp_path_factory.mktemp("toy")
    command = [sys.executable, "-m", "ecgcmr.cli", "reproduce", "--scale", "toy"]
    command += ["--cohort", str(folder / "cohort"), "--runs", str(folder / "runs")]
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, timeout=1780, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "runs", time.monotonic() - started, done.stdout


@pytest.mark.slow
def test_it_takes_less_than_25_minutes(toy):
    _, seconds, _ = toy
    assert seconds < 25 * 60


@pytest.mark.slow
def test_every_system_has_run(toy):
    runs, _, _ = toy
    found = [run.trial for run in all_runs(runs)]
    assert {trial.system for trial in found if trial.stage == "pretrain"} == set(study.PRETRAININGS)
    assert {trial.system for trial in found if trial.stage == "evaluation"} == {
        *study.FINETUNED,
        study.TREES,
    }


@pytest.mark.slow
@pytest.mark.parametrize("stem", paper.LAYOUTS)
def test_every_cell_of_a_table_has_its_seeds(stem, toy):
    runs, _, shown = toy
    layout, report = paper.LAYOUTS[stem], runs / "report"
    table = pd.read_csv(report / f"{stem}.csv")
    assert list(zip(table.system, table.task)) == [
        (s.name, task) for s in layout.systems for task in layout.tasks
    ]
    assert (table.seeds == len(paper.SEEDS)).all()
    assert table[["mean", "low", "high"]].notna().all(axis=None)
    assert (table.low <= table.high).all()
    assert layout.title in shown
    assert all((report / f"{stem}.{ending}").stat().st_size > 300 for ending in ("md", "tex"))


@pytest.mark.slow
def test_every_figure_is_there_and_every_claim_is_judged(toy):
    runs, _, _ = toy
    for name in FIGURES:
        assert (runs / "report" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    claims = pd.read_csv(runs / "report" / "claims.csv")
    assert len(claims) == len(paper.CLAIMS)


@pytest.mark.slow
def test_the_test_set_was_read_once_by_each_evaluation_run(toy):
    runs, _, _ = toy
    evaluations = [run.folder for run in all_runs(runs) if run.trial.stage == "evaluation"]
    read = [line["trial"] for line in store.test_reads(runs)]
    assert sorted(read) == sorted(folder.relative_to(runs).as_posix() for folder in evaluations)
