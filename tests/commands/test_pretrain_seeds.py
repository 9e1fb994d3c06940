"""`--pretrain-seeds N` from pre-training to the tables, by the commands themselves; this process stands in for Ray."""

import contextlib
import shutil

import numpy as np
import pytest
import torch
from conftest import heart_rows, write_cohort
from test_cli import called

from ecgcmr import cli, store
from ecgcmr.paper import TITLES
from ecgcmr.report import track
from ecgcmr.report.results.evidence import Evidence
from ecgcmr.report.tables import paper as tables
from ecgcmr.runs import all_runs
from ecgcmr.runtime import cluster
from ecgcmr.search import sweep
from ecgcmr.training import loop, partition, pretrain

# Nothing changes an encoder but MAE and the images' SimCLR: MMCL's one rate that does not diverge is 0, and fine-tuning
# is a linear probe. So what an evaluation run kept is what its MAE left, whatever the way from there.
SPACE = """
from dataclasses import replace

from ecgcmr.nn import Network
from ecgcmr.search import study
from ecgcmr.trial import Trial

NETWORK = Network(crop=2500, patch=500, width=8, depth=1, heads=2, decoder_width=8, decoder_depth=1, decoder_heads=2,
                  blocks=(1, 1, 1, 1), image_width=2, image_size=32, hidden=8, projection=8)
MAE = Trial(space="t", stage="pretrain", task="ecg", system="mae", method="mae", network=NETWORK, batch=40, epochs=1,
            knobs=(("lr", 1e-3),))
IMAGE = replace(MAE, task="cmr", system="cmr-simclr", method="simclr", modality="cmr", batch=20)
MMCL = [replace(MAE, task="ecg+cmr", system="mmcl", method="mmcl", batch=20, knobs=(("lr", rate),),
                init_from=(("ecg", MAE.name), ("cmr", IMAGE.name))) for rate in (0.0, float("inf"))]
STARTS = {"supervised": (), "mae": (("ecg", MAE.name),), "mmcl": (("ecg", MMCL[0].system_folder),)}


def trials():
    grid = study.finetuning("t", ["af"], STARTS, {"lr": (1e-3,)}, fixed=(("layer_decay", 0.0),), network=NETWORK,
                            batch=16, epochs=1)
    return [*MMCL, MAE, IMAGE, *grid]
"""
MAE, MMCL = "t/pretrain/ecg/mae/batch=40,lr=0.001", "t/pretrain/ecg+cmr/mmcl/batch=20,lr=0"
EVALUATION = "t/evaluation/af/{}/batch=16,layer_decay=0,lr=0.001"
SEEDS = (0, 101, 202, 303, 404)


def train_here(checked, **options):
    """What Ray Train does, without it: every pre-training that is not finished, from memory."""
    cohort = checked.cohort
    for trial in checked.todo:
        needs = loop.build(trial).needs
        rows = pretrain.complete(cohort, "train", needs)
        run = loop.prepare(trial, len(rows) // trial.batch, torch.device("cpu"), torch.float32)
        for part, name in trial.init_from:
            run.method.load(part, store.weights(checked.runs, name, part))
        signals = cohort.load(rows.iloc[: run.steps * trial.batch], needs)
        feed = (
            {
                name: torch.from_numpy(np.array(x[i * trial.batch : (i + 1) * trial.batch]))
                for name, x in signals.items()
            }
            for i in range(run.steps)
        )
        evaluated = list(pretrain.validation_batches(cohort, needs, trial.batch, run.device))
        state = loop.State()
        status = loop.loop(run, feed, lambda batches=evaluated: batches, state)
        result = pretrain.outcome(run, state, status, cohort, "host")
        store.write(checked.runs, result, cohort.fingerprint)
    return []


def fit_here(checked, **options):
    """What Ray Tune does, without it."""
    for pack in partition.packs(checked.todo):
        partition.train(pack, checked.cohort, checked.runs, "cpu", "float32", "pack")
    return len(checked.todo)


@pytest.fixture(scope="module")
def without_ray():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster, "start", lambda **_: None)
        patch.setattr(cluster, "stop", lambda: None)
        patch.setattr(track, "following", lambda *_: contextlib.nullcontext())
        patch.setattr(pretrain, "run_checked", train_here)
        patch.setattr(sweep, "run_checked", fit_here)
        yield


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seeds")
    (folder / "space.py").write_text(SPACE)
    cohort = write_cohort(folder / "cohort", heart_rows(80))
    return folder / "space.py", ["--cohort", cohort.path, "--runs", folder / "runs"]


@pytest.fixture(scope="module")
def runs(places, without_ray):
    """Pre-trained with the first seed, then with two, searched and evaluated."""
    space, options = places
    names = []
    for verb, seeds in (("pretrain", 1), ("pretrain", 2), ("sweep", 1), ("evaluate", 2)):
        words = [] if seeds == 1 else ["--pretrain-seeds", seeds]
        assert cli.main([str(word) for word in (verb, space, *options, *words)]) == 0
        names.append({run.trial.name for run in all_runs(options[-1])})
    return options[-1], names


def qkv(runs, name):
    return store.weights(runs, name, "ecg")["blocks.0.attn.qkv.weight"]


def test_the_first_seed_is_named_as_without_the_option_and_no_rate_but_the_chosen_has_more(runs):
    _, (first, both, *_) = runs
    image = "t/pretrain/cmr/cmr-simclr/batch=20,lr=0.001"
    diverged = "t/pretrain/ecg+cmr/mmcl/batch=20,lr=inf"
    assert first == {f"{name}/seed=0" for name in (MAE, image, MMCL, diverged)}
    assert both - first == {f"{name}/seed=101" for name in (MAE, image, MMCL)}


def test_a_chain_has_one_seed_all_the_way(runs):
    folder, _ = runs
    by_name = {run.trial.name: run.trial for run in all_runs(folder)}
    for seed in (0, 101):
        starts = dict(by_name[f"{MMCL}/seed={seed}"].init_from)
        assert starts["ecg"] == f"{MAE}/seed={seed}"
        assert starts["cmr"].endswith(f"/cmr-simclr/batch=20,lr=0.001/seed={seed}")


@pytest.mark.parametrize("system", ["mae", "mmcl"])
def test_evaluation_seed_i_starts_from_pretraining_i_mod_n(runs, system):
    folder, _ = runs
    left = {seed: qkv(folder, f"{MAE}/seed={seed}") for seed in (0, 101)}
    assert not np.allclose(left[0], left[101])
    for i, seed in enumerate(SEEDS):
        kept = qkv(folder, f"{EVALUATION.format(system)}/seed={seed}")
        np.testing.assert_allclose(kept, left[(0, 101)[i % 2]], atol=1e-6)
    grid = [run.trial for run in all_runs(folder) if run.trial.stage == "grid"]
    assert all(name.endswith("/seed=0") for trial in grid for _, name in trial.init_from)
    assert sum(bool(trial.init_from) for trial in grid) == 2


def test_tables_say_what_is_in_their_intervals(runs):
    folder, _ = runs
    rows = store.rows(folder)
    evidence = Evidence.of(folder, "t", rows, draws=20)
    assert evidence.pretrainings() == {2: [TITLES["mae"], TITLES["mmcl"]]}
    text = " ".join(
        " ".join(table.notes)
        for stem, table in tables.every(rows, folder, {"t": evidence}).items()
        if stem in ("others", "table3", "claims")
    )
    assert "evaluation seed i starts from pre-training i mod 2" in text
    assert "5 seeds share 2, so it is understated" in text
    assert "ran once" not in text


def test_status_tells_the_seeds(runs, places, capfd):
    _, text, _ = called(capfd, "status", *places[1])
    assert f"finished  {MAE.rpartition('/')[0]}  2 trials, seeds 0, 101" in text
    assert "finished  t/evaluation/af/mae  5 trials" in text.splitlines()


def refused(capfd, *words):
    code, results, text = called(capfd, *words)
    assert (code, results) == (2, "")
    return text.splitlines()[-1]


@pytest.mark.parametrize("n", [1, 5])
def test_runs_of_another_number_of_seeds_are_refused_and_not_mixed(runs, places, capfd, n):
    folder, _ = runs
    before = {path: path.stat().st_mtime_ns for path in folder.rglob(store.RECORD)}
    line = refused(capfd, "evaluate", places[0], *places[1], "--pretrain-seeds", n)
    assert "was made by another recipe: init_from.ecg" in line
    assert "give the --pretrain-seeds that it was made with" in line
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob(store.RECORD)}


def test_seeds_that_were_not_pretrained_are_named(runs, places, tmp_path, capfd):
    folder, _ = runs
    for stage in ("pretrain", "grid"):
        shutil.copytree(folder / "t" / stage, tmp_path / "t" / stage)
    words = [*places[1][:-1], tmp_path, "--pretrain-seeds", 3]
    line = refused(capfd, "evaluate", places[0], *words)
    assert f"start '{MMCL}/seed=202' has no encoder under" in line
    assert "with the same --pretrain-seeds" in line
    assert not list(tmp_path.glob("t/evaluation/**/seed=*"))


@pytest.mark.parametrize("verb", ["pretrain", "evaluate", "reproduce", "plan"])
def test_more_seeds_than_an_evaluation_has_do_not_parse(places, capfd, verb):
    space = [] if verb == "reproduce" else [places[0]]
    with pytest.raises(SystemExit, match="2"):
        called(capfd, verb, *space, *places[1], "--pretrain-seeds", 6)
    assert "--pretrain-seeds: an evaluation has 5 seeds" in capfd.readouterr().err


def test_what_has_run_is_skipped(runs, places, capfd):
    folder, _ = runs
    before = {path: path.stat().st_mtime_ns for path in folder.rglob(store.RECORD)}
    for verb, said in (
        ("pretrain", "7 pre-trainings finished"),
        ("evaluate", "0 trials run, 15 of 15"),
    ):
        code, text, _ = called(capfd, verb, places[0], *places[1], "--pretrain-seeds", 2)
        assert (code, said in text) == (0, True)
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob(store.RECORD)}


def test_the_plan_counts_them(runs, places, capfd):
    options = [*places[1], "--no-calibration"]
    counts = {}
    for n in (1, 3):
        _, text, _ = called(capfd, "plan", places[0], *options, "--pretrain-seeds", n)
        counts[n] = {
            tuple(line.split()[:2]): int(line.split()[2])
            for line in text.splitlines()
            if line.startswith(("pretrain", "evaluation"))
        }
        assert f"{4 if n == 1 else 10} pre-trainings" in text.splitlines()[0]
    evaluation = {("evaluation", "af"): 15}
    assert counts[1] == {
        ("pretrain", "ecg"): 1,
        ("pretrain", "cmr"): 1,
        ("pretrain", "ecg+cmr"): 2,
        **evaluation,
    }
    assert counts[3] == {
        ("pretrain", "ecg"): 3,
        ("pretrain", "cmr"): 3,
        ("pretrain", "ecg+cmr"): 4,
        **evaluation,
    }
