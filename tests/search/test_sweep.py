import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from ray.tune.search import Searcher

from ecgcmr import store
from ecgcmr.data import examples
from ecgcmr.errors import InputError
from ecgcmr.evaluation import selection
from ecgcmr.nn import Network
from ecgcmr.runs import is_finished
from ecgcmr.search import spaces, study, sweep
from ecgcmr.training import finetune, partition
from ecgcmr.trial import Trial

SPACES = Path(__file__).resolve().parents[2] / "search_spaces"
TINY = Network(
    crop=2500,
    patch=500,
    width=8,
    depth=1,
    heads=2,
    blocks=(1, 1, 1, 1),
    image_width=4,
    image_size=48,
)
GRID = {"batch": (8, 16), "lr": (1e-4, 3e-4, 1e-3), "drop_path": (0.0, 0.1)}
SYSTEMS = {"supervised": (), "mae": ()}


def a_grid(grid=GRID, tasks=("af",), init_from=SYSTEMS, **changed):
    return study.finetuning(
        "t", tasks, init_from, grid, **{"network": TINY, "epochs": 1, **changed}
    )


def finish(runs, trial, value, cohort="print"):
    """Leave a finished folder, as fit does."""
    result = store.Finished(
        trial=trial,
        status="finished",
        scores=(("val", "auroc", value, 9),),
        curve=pd.DataFrame(),
        predictions=None,
        weights={},
        epoch=0,
        provenance={},
    )
    store.write(runs, result, cohort)


def drive(searcher, runs, value=lambda trial: 0.5):
    """Play Tune: take packs until there are none, and finish their members; the packs."""
    packs = []
    while (config := searcher.suggest(f"tune-{len(packs)}")) != Searcher.FINISHED:
        members = [searcher.trials[i] for i in config["members"]]
        for trial in members:
            finish(runs, trial, value(trial))
        searcher.on_trial_complete(f"tune-{len(packs)}", {"best": 0.5})
        packs.append(members)
    return packs


# -- search spaces


@pytest.mark.parametrize("name", ["demo", "toy", "table3", "figure5"])
def test_every_start_is_a_pretraining_of_the_same_file(name):
    trials = spaces.load(SPACES / f"{name}.py")
    made = {trial.name for trial in trials if trial.stage == "pretrain"}
    made |= {"/".join(name.split("/")[:4]) for name in made}  # a start may name a sweep
    assert {start for trial in trials for _, start in trial.init_from} <= made
    finetune.check([trial for trial in trials if trial.stage != "pretrain"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no function trials"),
        ("def trials():\n    return []", "returns no trials"),
        ("def trials():\n    return [1]", "returns a int"),
        ("def trials():\n    x = 1\n    return x / 0", r":3: ZeroDivisionError"),
        ("def trials(:", r":1: SyntaxError"),
        (
            "from ecgcmr.trial import Trial\nT = Trial(space='a', stage='grid', task='af', system='b', "
            "method='supervised')\n"
            "def trials():\n    return [T, T]",
            "two trials are named 'a/grid/af/b",
        ),
        (
            "from ecgcmr.trial import Trial\ndef trials():\n    return [Trial(space='a', stage='g', task='b', system='c', "
            "method='d')]",
            "stage 'g'",
        ),
    ],
)
def test_a_bad_file_is_one_line_that_names_it(tmp_path, text, words):
    path = tmp_path / "space.py"
    path.write_text(text)
    with pytest.raises(InputError, match=words) as caught:
        spaces.load(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_one_line():
    with pytest.raises(InputError, match="no such search-space file"):
        spaces.load(Path("nowhere.py"))


# -- packs


def test_packs_hold_one_shape_each_and_every_trial_once():
    trials = a_grid(tasks=("af", "cad"))
    packs = partition.packs(trials, limit=lambda _: 5)
    for pack in packs:
        finetune.check_pack(pack)
        assert len(pack) <= 5
    assert Counter(t.name for pack in packs for t in pack) == Counter(t.name for t in trials)
    assert len(packs) == 4 * 3  # 12 trials per task and batch: 3 packs of 4, not 5 + 5 + 2
    assert {t.system for t in packs[0]} | {t.system for t in packs[1]} == {"supervised", "mae"}


def test_packs_keep_all_workers_busy():
    assert [
        len(pack)
        for pack in partition.packs(a_grid({"lr": (1e-4, 1e-3)}), limit=lambda _: 16, at_once=2)
    ] == [
        2,
        2,
    ]


def test_a_larger_device_takes_larger_packs():
    trial = spaces.load(SPACES / "table3.py")[-1]
    sizes = [partition.pack_limit(trial, gib * 2**30) for gib in (8, 24, 80)]
    assert 1 <= sizes[0] < sizes[1] <= sizes[2] <= partition.GPU_PACK
    assert partition.pack_limit(trial, None) == 1
    assert (
        partition.pack_limit(replace(trial, network=study.TOY.network, batch=16), None)
        == partition.CPU_PACK
    )


# -- the searcher


def test_every_configuration_is_asked_once_and_told_once(tmp_path):
    trials = a_grid(tasks=("af", "cad"))
    searcher = sweep.Packed(trials, tmp_path, finished_names=set(), limit=5)
    packs = drive(searcher, tmp_path)
    assert Counter(t.name for pack in packs for t in pack) == Counter(t.name for t in trials)
    for asked in searcher.studies.values():
        done = asked.study.get_trials()
        assert len(done) == 12
        assert {t.state.name for t in done} == {"COMPLETE"}
        assert len({tuple(sorted(t.params.items())) for t in done}) == 12
        assert all(t.params in asked.params.values() for t in done)


def test_finished_configurations_are_told_and_not_asked(tmp_path):
    trials = a_grid()
    for trial in trials[:7]:
        finish(tmp_path, trial, 0.6)
    searcher = sweep.Packed(trials, tmp_path, finished_names={t.name for t in trials[:7]}, limit=4)
    packs = drive(searcher, tmp_path)
    assert {t.name for pack in packs for t in pack} == {t.name for t in trials[7:]}
    assert sum(len(study.study.get_trials()) for study in searcher.studies.values()) == len(trials)


def test_a_member_without_rows_has_failed(tmp_path):
    trials = a_grid({"lr": (1e-4, 1e-3)}, init_from={"mae": ()})
    searcher = sweep.Packed(trials, tmp_path, finished_names=set())
    searcher.suggest("one")
    finish(tmp_path, trials[0], 0.7)
    searcher.on_trial_complete("one", error=True)
    (study,) = searcher.studies.values()
    assert [t.state.name for t in study.study.get_trials()] == ["COMPLETE", "FAIL"]


def test_what_the_worker_has_read_is_told_without_reading_again(tmp_path):
    trials = a_grid({"lr": (1e-4, 3e-4, 1e-3)}, init_from={"mae": ()})
    searcher = sweep.Packed(trials, tmp_path, finished_names=set())
    searcher.suggest("one")
    searcher.on_trial_complete(
        "one", {"best": 0.7, "values": [0.6, float("nan"), 0.7]}
    )  # no rows are here
    (study,) = searcher.studies.values()
    assert [t.value for t in study.study.get_trials()] == [0.6, None, 0.7]


def test_the_value_is_the_metric_of_the_validation_rows(tmp_path):
    trial = a_grid({"lr": (1e-4,)}, init_from={"mae": ()})[0]
    assert np.isnan(selection.value(tmp_path, trial))
    for scores, value in [
        ((("val", "auprc", 0.3, 9), ("test", "auroc", 0.9, 9), ("val", "auroc", 0.8, 9)), 0.8),
        ((("val", "auprc", 0.3, 9),), np.nan),
        ((("val", "auroc", np.nan, 9),), np.nan),
    ]:
        result = store.Finished(
            trial=trial,
            status="finished",
            scores=scores,
            curve=pd.DataFrame(),
            predictions=None,
            weights={},
            epoch=0,
            provenance={},
        )
        store.write(tmp_path, result, "print")
        np.testing.assert_equal(selection.value(tmp_path, trial), value)


def good(trial):
    """A surface with its best at lr 1e-3, batch 8."""
    knobs = dict(trial.knobs)
    return (
        0.9 - 0.1 * abs(np.log10(knobs["lr"]) + 3) - 0.05 * (trial.batch == 16) - knobs["drop_path"]
    )


def test_a_budget_is_kept_without_repeats(tmp_path):
    trials = a_grid({**GRID, "lr": tuple(10.0 ** -np.arange(1, 9))})
    packs = drive(
        sweep.Packed(trials, tmp_path, finished_names=set(), limit=4, budget=10, seed=1),
        tmp_path,
        good,
    )
    for pack in packs:
        finetune.check_pack(pack)
    names = [t.name for pack in packs for t in pack]
    assert len(names) == len(set(names)) == 20
    assert Counter(t.system for pack in packs for t in pack) == {"supervised": 10, "mae": 10}


def test_a_budget_counts_what_is_finished(tmp_path):
    trials = a_grid()
    first = drive(
        sweep.Packed(trials, tmp_path, finished_names=set(), limit=4, budget=4), tmp_path, good
    )
    done = {t.name for pack in first for t in pack}
    second = drive(
        sweep.Packed(trials, tmp_path, finished_names=done, limit=4, budget=6), tmp_path, good
    )
    assert len(done) == 8
    assert len({t.name for pack in second for t in pack} - done) == 4
    assert not drive(sweep.Packed(trials, tmp_path, finished_names=done, budget=4), tmp_path)


def test_proposals_learn_from_values(tmp_path):
    """TPE finds a better neighbourhood than the average of the grid."""
    trials = a_grid(
        {
            "lr": tuple(10.0 ** -np.arange(1, 9)),
            "drop_path": tuple(np.arange(8) / 10),
            "batch": (8, 16),
        },
        init_from={"mae": ()},
    )
    packs = drive(
        sweep.Packed(trials, tmp_path, finished_names=set(), limit=4, budget=40, seed=0),
        tmp_path,
        good,
    )
    later = [good(t) for pack in packs[5:] for t in pack]
    assert np.mean(later) > np.mean([good(t) for t in trials]) + 0.05


# -- the choice


def test_the_evaluation_takes_the_best_configuration_with_five_seeds(tmp_path):
    trials = a_grid(tasks=("af", "cad"))
    for trial in trials:
        finish(tmp_path, trial, good(trial))
    evaluations = spaces.evaluation_trials(trials, tmp_path)
    assert len(evaluations) == 2 * 2 * 5
    assert {t.stage for t in evaluations} == {"evaluation"}
    assert {t.seed for t in evaluations} == {0, 101, 202, 303, 404}
    assert {(t.batch, dict(t.knobs)["lr"], dict(t.knobs)["drop_path"]) for t in evaluations} == {
        (8, 1e-3, 0.0)
    }
    assert len({t.name for t in evaluations}) == len(evaluations)


def test_ties_are_broken_by_name_whatever_the_order(tmp_path):
    trials = a_grid(init_from={"mae": ()})
    for trial in trials:
        finish(tmp_path, trial, 0.5)
    chosen = {
        spaces.evaluation_trials(order, tmp_path, seeds=(0,))[0] for order in (trials, trials[::-1])
    }
    assert len(chosen) == 1


def test_a_configuration_without_a_number_is_never_chosen(tmp_path):
    trials = a_grid({"lr": (1e-4, 1e-3)}, init_from={"mae": ()})
    finish(tmp_path, trials[0], 0.4)
    finish(tmp_path, trials[1], float("nan"))
    assert spaces.evaluation_trials(trials, tmp_path, seeds=(0,))[0].knobs == trials[0].knobs
    with pytest.raises(InputError, match="no configuration of t/grid/af/mae"):
        spaces.evaluation_trials(trials[1:], tmp_path)


def test_missing_rows_are_listed(tmp_path):
    trials = a_grid(init_from={"mae": ()})
    for trial in trials[:-1]:
        finish(tmp_path, trial, 0.5)
    with pytest.raises(InputError, match=trials[-1].name):
        spaces.evaluation_trials(trials, tmp_path)
    assert spaces.evaluation_trials(trials, tmp_path, seeds=(0,), budget=5)


def test_the_plan_counts_packs_and_steps(small_cohort):
    trials = [
        *a_grid(epochs=3),
        Trial(space="t", stage="pretrain", task="ecg+cmr", system="mmcl", method="mmcl", batch=50),
    ]
    grid, pretraining = sweep.plan(trials, small_cohort, at_once=2)
    n = len(examples.training_rows(small_cohort, trials[0]).index)
    assert (grid.trials, grid.packs) == (24, 4)
    assert grid.steps == 2 * 3 * (-(-n // 8) + -(-n // 16))
    answered = small_cohort.rows("val").query("has_ecg and af == af")
    assert grid.evaluations == 24 * (3 + 1) * len(answered)
    paired = small_cohort.rows("train").query("has_ecg and has_cmr")
    assert pretraining.evaluations == 400 * len(
        small_cohort.rows("val").query("has_ecg and has_cmr")
    )
    assert (pretraining.packs, pretraining.steps) == (1, 400 * (len(paired) // 50))


def test_a_pack_too_large_for_the_gpu_is_halved(monkeypatch, small_cohort, tmp_path):
    done = []

    def small_gpu(trials, *_, **__):
        if len(trials) > 3:
            raise torch.cuda.OutOfMemoryError
        done.append(list(trials))

    monkeypatch.setattr(finetune, "fit", small_gpu)
    trials = a_grid({"lr": (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)})
    partition.train(trials, small_cohort, tmp_path, None, "auto", "name")
    assert [trial for pack in done for trial in pack] == trials
    assert max(map(len, done)) <= 3


# -- with Ray


def times(runs):
    """When each trial finished."""
    return {path: path.stat().st_mtime_ns for path in runs.rglob(store.RECORD)}


def test_a_sweep_runs_every_configuration_once_and_is_skipped_the_second_time(
    ray_session, small_cohort, tmp_path
):
    trials = a_grid({"batch": (16, 32), "lr": (1e-4, 1e-3)}, label_fraction=0.4)
    assert sweep.run(trials, small_cohort.path, tmp_path, limit=2, concurrency=2, device="cpu") == 8
    assert all(is_finished(tmp_path, trial, small_cohort.fingerprint) for trial in trials)
    before = times(tmp_path)
    assert len(before) == 8
    assert sweep.run(trials, small_cohort.path, tmp_path, device="cpu") == 0
    assert sweep.run(a_grid(), small_cohort.path, tmp_path, budget=0, device="cpu") == 0
    assert times(tmp_path) == before
    assert set(store.rows(tmp_path).split) == {"val"}
    assert not list(tmp_path.rglob(store.PROGRESS))
    assert not (tmp_path / sweep.TUNE).exists()


def test_a_pack_is_handed_to_what_is_given(ray_session, small_cohort, tmp_path):
    """`train` gets what packing.train gets, once per pack, whatever the order."""

    def note(members, cohort, runs, device, precision, name):
        (runs / f"{name.replace('/', '-')}.txt").write_text(
            "\n".join([*(t.name for t in members), device, precision])
        )

    trials = a_grid({"lr": (1e-4, 3e-4, 1e-3)}, init_from={"mae": ()})
    ran = sweep.run(
        trials,
        small_cohort.path,
        tmp_path,
        limit=2,
        concurrency=1,
        device="cpu",
        precision="float32",
        train=note,
    )
    assert ran == 0  # nothing has left rows
    lines = [path.read_text().splitlines() for path in tmp_path.glob("t-grid-af-pack-*.txt")]
    assert sorted(name for pack in lines for name in pack[:-2]) == sorted(
        trial.name for trial in trials
    )
    assert all(pack[-2:] == ["cpu", "float32"] for pack in lines)


def test_what_a_worker_refuses_is_refused_here_and_the_others_finish(
    ray_session, small_cohort, tmp_path
):
    other = Trial(space="t", stage="pretrain", task="ecg", system="mae", method="mae")
    foreign = {"ecg.cls_token": np.zeros((1, 1, 3), np.float32)}  # of a network of another size
    curve = pd.DataFrame({"step": [1], "epoch": [0]})
    notes = {"cohort": small_cohort.provenance}
    result = store.Finished(other, "finished", (), curve, None, foreign, 0, notes)
    store.write(tmp_path, result, small_cohort.fingerprint)
    alone = {"mae": (("ecg", other.name),)}
    with pytest.raises(InputError, match="encoder differ"):
        sweep.run(
            a_grid({"lr": (1e-4,)}, init_from=alone, label_fraction=0.4),
            small_cohort.path,
            tmp_path,
            device="cpu",
            limit=1,
        )
    assert not (tmp_path / sweep.TUNE).exists()  # all were refused: the one line says it
    trials = a_grid({"lr": (1e-4,)}, init_from={"supervised": (), **alone}, label_fraction=0.4)
    one_worker = {"limit": 1, "concurrency": 1}
    with pytest.raises(InputError, match="encoder differ"):
        sweep.run(trials, small_cohort.path, tmp_path, device="cpu", **one_worker)
    assert len(times(tmp_path / "t/grid")) == 1
    assert "InputError" in next((tmp_path / sweep.TUNE).glob("failed-*.txt")).read_text()


def test_bad_input_is_refused_before_ray_is_asked(small_cohort, tmp_path):
    missing = a_grid({"lr": (1e-4,)}, init_from={"mae": (("ecg", "t/pretrain/nowhere"),)})
    with pytest.raises(InputError, match="t/pretrain/nowhere"):
        sweep.run(missing, small_cohort.path, tmp_path)
    with pytest.raises(InputError, match="no column 'unheard'"):
        sweep.run(a_grid({"lr": (1e-4,)}, tasks=("af", "unheard")), small_cohort.path, tmp_path)
    with pytest.raises(InputError, match="no_knob"):
        sweep.run(a_grid({"no_knob": (1.0,)}), small_cohort.path, tmp_path)
    done = a_grid({"lr": (1e-4,)}, init_from={"mae": ()})
    finish(tmp_path, done[0], 0.5, cohort="another")
    with pytest.raises(InputError, match="cohort another"):
        sweep.run(done, small_cohort.path, tmp_path)


DRIVER = """
import sys
from pathlib import Path
sys.path[:] = {paths!r}
import test_sweep
from ecgcmr.runtime import cluster
from ecgcmr.search import sweep
trials = test_sweep.a_grid(test_sweep.GRID, label_fraction=0.4, epochs=6)
with cluster.running(cpus=2, gpus=0, object_store_mb=256):
    sweep.run(trials, Path({cohort!r}), Path({runs!r}), limit=2, device="cpu")
"""


@pytest.mark.slow
def test_a_killed_driver_is_just_run_again(small_cohort, tmp_path):
    words = {
        "paths": sys.path,
        "cohort": str(small_cohort.path),
        "runs": str(tmp_path),
    }
    command = [sys.executable, "-c", DRIVER.format(**words)]
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(times(tmp_path)) < 4 and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    time.sleep(10)  # the orphaned worker may finish its pack before Ray notices
    before = times(tmp_path)
    assert 4 <= len(before) < 24
    subprocess.run(
        command, check=True, timeout=200, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    after = times(tmp_path)
    assert len(after) == 24
    assert {path: after[path] for path in before} == before
    assert not [path for path in tmp_path.rglob(".*") if path.is_dir() and "seed=" in path.name]
