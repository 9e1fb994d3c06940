"""Trees on four numbers: what they learn, what they refuse, and that their folders are like those of networks."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import test_finetune

from ecgcmr import store, tasks
from ecgcmr.commands import bill
from ecgcmr.data import examples
from ecgcmr.errors import InputError
from ecgcmr.search import plan, spaces, study, sweep
from ecgcmr.training import finetune, partition, trees
from ecgcmr.trial import Trial

SIZES = {"train": 240, "val": 80, "test": 90}


class Cohort:
    """An index in memory, without signals: `af` follows age alone, `rv` follows height, and some of all is missing."""

    path = Path("cohorts/tiny")
    fingerprint = "tiny"
    recipe: dict = {}  # noqa: RUF012
    provenance = {"fingerprint": "tiny"}  # noqa: RUF012

    def __init__(self):
        draw, n = np.random.default_rng(0), sum(SIZES.values())
        self.index = pd.DataFrame(
            {
                "subject": [f"s{i:03d}" for i in range(n)],
                "split": np.repeat(list(SIZES), list(SIZES.values())),
                "age": draw.uniform(45, 80, n),
                "sex": draw.integers(0, 2, n).astype(float),
                "height": draw.normal(170, 9, n),
                "weight": draw.normal(78, 12, n),
                "has_ecg": draw.random(n) > 0.5,
                "has_cmr": False,
            }
        )
        self.index["af"] = (self.index.age > 65).astype(float)
        self.index["noise"] = (draw.random(n) < 0.3).astype(float)
        for i, name in enumerate(tasks.TASKS["rv"].columns):
            self.index[name] = 100 + 10 * i + 2 * (self.index.height - 170) + draw.normal(size=n)
            self.index.loc[draw.random(n) < 0.4, name] = np.nan
        for name in ("sex", "height", "weight"):
            self.index.loc[draw.random(n) < 0.3, name] = np.nan
        self.index.loc[::20, list(trees.FEATURES)] = np.nan

    def rows(self, split=None):
        return (
            self.index
            if split is None
            else self.index[self.index.split == split].reset_index(drop=True)
        )

    def load(self, index, columns=("ecg",)):
        raise AssertionError("trees read no signals")


@pytest.fixture(scope="module")
def cohort():
    return Cohort()


def a_trial(knobs=(("rounds", 10), ("max_depth", 3)), **changed):
    given = {
        "space": "t",
        "stage": "grid",
        "task": "af",
        "system": "xgboost",
        "method": "xgboost",
        "modality": "tabular",
        "batch": 0,
        "epochs": 1,
        "knobs": knobs,
    }
    return Trial(**{**given, **changed})


def run(trials, cohort, runs):
    return finetune.fit(trials, cohort, runs, device="cpu")


def outputs(trial, cohort, runs):
    (result,) = run([trial], cohort, runs)
    return result.predictions["output:" + tasks.of(trial.task, (trial.task,)).columns[0]].to_numpy()


def score(result, metric, split="val"):
    return next(
        value for found, name, value, _ in result.scores if (found, name) == (split, metric)
    )


# -- what is learnt


def test_a_label_that_follows_age_is_learnt_though_features_are_missing(cohort, tmp_path):
    (result,) = run([a_trial(stage="evaluation")], cohort, tmp_path)
    assert score(result, "auroc", "test") > 0.97
    assert score(result, "accuracy", "test") > 0.9
    assert result.curve.train_loss.is_monotonic_decreasing
    assert result.curve.val_loss.iloc[-1] < 0.5 < result.curve.val_loss.iloc[0] < np.log(2)


def test_losses_are_the_cross_entropy_and_the_squared_error_of_what_is_predicted(cohort, tmp_path):
    binary, numbers = (run([a_trial(task=task)], cohort, tmp_path)[0] for task in ("af", "rv"))
    frame = binary.predictions
    p = np.where(frame["target:af"] == 1, frame["output:af"], 1 - frame["output:af"])
    assert -np.log(p).mean() == pytest.approx(binary.curve.val_loss.iloc[-1], rel=1e-4)
    columns, sd = tasks.TASKS["rv"].columns, np.array(numbers.provenance["target_sd"])
    error = [
        numbers.predictions[[f"{side}:{name}" for name in columns]].to_numpy()
        for side in ("target", "output")
    ]
    assert np.nanmean(((error[0] - error[1]) / sd) ** 2) == pytest.approx(
        numbers.curve.val_loss.iloc[-1], rel=1e-4
    )


def test_rows_with_any_feature_count_and_others_do_not(cohort, tmp_path):
    (result,) = run([a_trial()], cohort, tmp_path)
    val = cohort.rows("val")
    known = val[val[list(trees.FEATURES)].notna().any(axis=1)]
    assert result.predictions.subject.tolist() == known.subject.tolist()
    assert len(known) < len(val)
    assert known.weight.isna().any()
    assert not known.has_ecg.all()


def test_phenotypes_come_back_in_units_where_targets_are_missing(cohort, tmp_path):
    (result,) = run(
        [a_trial(task="rv", knobs=(("rounds", 30), ("max_depth", 3)))], cohort, tmp_path
    )
    frame = result.predictions
    assert frame["target:RVEDV"].isna().any()
    assert frame.filter(like="output:").notna().all(axis=None)
    tall = cohort.index.set_index("subject").height[frame.subject].to_numpy()
    seen = np.isfinite(tall)
    assert np.corrcoef(tall[seen], frame["output:RVEDV"][seen])[0, 1] > 0.9
    assert frame["output:RVEDV"].mean() == pytest.approx(frame["target:RVEDV"].mean(), abs=10)
    assert score(result, "pearson") > 0.6
    assert score(result, "pearson:RVEF") > 0.6


def test_a_phenotype_that_cannot_be_evaluated_is_refused_before_anything_is_written(
    cohort, tmp_path
):
    lame = Cohort()
    lame.index.loc[lame.index.split == "val", "RVEF"] = np.nan
    with pytest.raises(InputError, match="target 'RVEF': 0 known values"):
        run([a_trial(task="rv")], lame, tmp_path)
    assert not list(tmp_path.rglob("*"))


# -- chance


def test_a_seed_gives_the_same_trees_alone_and_in_a_pack(cohort, tmp_path):
    knobs = (("rounds", 10), ("subsample", 0.5))
    trials = [a_trial(knobs, task="noise", seed=seed) for seed in (7, 8)]
    together = run(trials, cohort, tmp_path / "a")
    for trial, result in zip(trials, together):
        (alone,) = run([trial], cohort, tmp_path / trial.configuration / str(trial.seed))
        pd.testing.assert_frame_equal(alone.predictions, result.predictions)
        pd.testing.assert_frame_equal(alone.curve, result.curve)


@pytest.mark.parametrize("task", ["noise", "rv"])
@pytest.mark.parametrize(("subsample", "same"), [(0.5, False), (1.0, True)])
def test_seeds_differ_only_where_rows_are_drawn(cohort, tmp_path, task, subsample, same):
    knobs = (("rounds", 10), ("subsample", subsample))
    a, b = (outputs(a_trial(knobs, task=task, seed=seed), cohort, tmp_path) for seed in (0, 101))
    assert np.array_equal(a, b) == same


# -- what is left behind


def test_a_folder_has_the_form_of_a_networks(tmp_path):
    neural = test_finetune.Cohort()
    for name, value in zip(trees.FEATURES, (60.0, 1.0, 170.0, 80.0)):
        neural.index[name] = value + np.arange(len(neural.index)) % 7
    for task in ("af", "rv"):
        network = test_finetune.a_trial(task=task, stage="evaluation", epochs=1)
        trials = [network, a_trial(task=task, stage="evaluation")]
        left, right = (run([trial], neural, tmp_path)[0] for trial in trials)
        assert [row[:2] for row in left.scores] == [row[:2] for row in right.scores]
        assert left.predictions.columns.tolist() == right.predictions.columns.tolist()
        assert left.predictions.dtypes.tolist() == right.predictions.dtypes.tolist()
        assert set(left.curve.columns) < {*right.curve.columns}
        notes = [
            json.loads((store.folder(tmp_path, t.name) / store.RECORD).read_text())["provenance"]
            for t in trials
        ]
        assert notes[0].keys() == notes[1].keys()
        assert ("prevalence" in notes[0], "target_sd" in notes[0]) == (task == "af", task == "rv")
        assert "xgboost" in notes[1]["versions"]


def test_the_curve_has_a_row_per_round_and_ends_with_the_kept_score(cohort, tmp_path):
    (result,) = run([a_trial()], cohort, tmp_path)
    assert result.curve.step.tolist() == list(range(1, 11))
    assert result.epoch == result.curve.epoch.max() == 9
    assert result.curve.val_auroc.notna().tolist() == [False] * 9 + [True]
    assert result.curve.val_auroc.iloc[-1] == score(result, "auroc")
    assert not (store.folder(tmp_path, result.trial.name) / store.ENCODER).exists()


def test_progress_counts_trials_and_is_forgotten(cohort, tmp_path):
    shown = store.Progress(tmp_path, "t/grid/af/pack-1", 2, "trials", every=0)
    trees.fit([a_trial(), a_trial(seed=1)], cohort, tmp_path, shown)
    assert [record["done"] for record in store.running(tmp_path)] == [2]
    finetune.fit([a_trial(seed=2)], cohort, tmp_path / "b", progress="t/grid/af/pack-1")
    assert not store.running(tmp_path / "b")


def test_the_test_set_is_read_once_per_evaluation_run_and_each_read_is_logged(cohort, tmp_path):
    run([a_trial(seed=seed) for seed in (0, 1)], cohort, tmp_path)
    assert store.test_reads(tmp_path) == []
    evaluations = [a_trial(stage="evaluation", seed=seed) for seed in (0, 1)]
    results = run(evaluations, cohort, tmp_path)
    reads = store.test_reads(tmp_path)
    assert [read["trial"] for read in reads] == [trial.name for trial in evaluations]
    assert {read["rows"] for read in reads} == {(results[0].predictions.split == "test").sum()}
    assert [result.provenance["test_reads"] for result in results] == [1, 1]


# -- which rows


def test_label_fractions_are_nested_and_balanced(cohort):
    parts = [
        examples.training_rows(cohort, a_trial(label_fraction=label_fraction))
        for label_fraction in (0.02, 0.1, 0.5, 1.0)
    ]
    names = [set(part.index.subject) for part in parts]
    assert names[0] < names[1] < names[2] < names[3]
    assert all(part.index.af.mean() == part.notes["trained_prevalence"] == 0.5 for part in parts)


def test_prevalence_is_that_before_balancing(cohort):
    train = cohort.rows("train")
    known = train[train[list(trees.FEATURES)].notna().any(axis=1)]
    notes = examples.training_rows(cohort, a_trial(task="noise")).notes
    assert notes["prevalence"] == known.noise.mean() != 0.5
    assert notes["trained_prevalence"] == 0.5


@pytest.mark.parametrize(
    ("task", "what"), [("af", "positives of 'af'"), ("rv", "rows with a phenotype of 'rv'")]
)
def test_a_label_fraction_that_leaves_nobody_is_refused(cohort, tmp_path, task, what):
    n = examples.training_rows(cohort, a_trial(task=task)).notes["n_train_full"] // (
        2 if task == "af" else 1
    )
    with pytest.raises(
        InputError, match=rf"label_fraction=0.001 leaves 0 of {n} {what}.*; at least 1"
    ) as caught:
        run([a_trial(task=task, label_fraction=0.001)], cohort, tmp_path)
    assert "\n" not in str(caught.value)
    assert len(
        examples.training_rows(cohort, a_trial(task=task, label_fraction=0.9 / n)).index
    ) == (2 if task == "af" else 1)


# -- what is refused


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"modality": "ecg"}, "modality of .* 'ecg'; known: tabular"),
        ({"init_from": (("ecg", "x"),)}, "trees start from nothing"),
        ({"batch": 8}, "use batch=0"),
        ({"epochs": 400}, "epochs=400 of"),
        ({"knobs": (("depth", 3),)}, "'depth'; known: lr, max_depth, rounds, subsample"),
        ({"knobs": (("rounds", 10.5),)}, "rounds=10.5 of .*whole number"),
        ({"knobs": (("max_depth", 0),)}, "max_depth=0 of"),
        ({"knobs": (("subsample", 0.0),)}, r"subsample=0 of .*\(0, 1\]"),
        ({"knobs": (("lr", float("nan")),)}, "lr=nan of"),
        ({"task": "unheard"}, "no column 'unheard'"),
    ],
)
def test_bad_input_is_one_line(cohort, tmp_path, changed, words):
    with pytest.raises(InputError, match=words) as caught:
        run([a_trial(**changed)], cohort, tmp_path)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("*"))


def test_a_network_reads_no_table_and_needs_a_batch():
    with pytest.raises(InputError, match=r"modality .* 'tabular'; known: cmr, ecg"):
        finetune.check([test_finetune.a_trial(modality="tabular")])
    with pytest.raises(InputError, match="batch=0"):
        test_finetune.a_trial(batch=0)


# -- grids


def a_grid(**changed):
    grid = {"rounds": (5, 10), "max_depth": (3,), "lr": (0.1, 0.3), "subsample": (0.5, 1.0)}
    given = {"method": "xgboost", "modality": "tabular", "batch": 0, "epochs": 1, **changed}
    return study.finetuning("t", ["dm"], {"xgboost": ()}, grid, **given)


def test_names_leave_the_batch_out():
    assert a_trial().name == "t/grid/af/xgboost/max_depth=3,rounds=10/seed=0"
    assert a_trial(knobs=()).configuration == "default"
    assert a_trial(knobs=(), label_fraction=0.1).configuration == "label_fraction=0.1"


@pytest.mark.parametrize("memory", [None, 2**30, 80 * 2**30])
def test_packs_hold_64_trials_on_any_device(memory):
    assert partition.pack_limit(a_trial(), memory) == 64


def test_a_grid_and_its_evaluation_run_through_the_same_packs(ray_session, small_cohort, tmp_path):
    """`dm` of the cohort is the sex."""
    trials = a_grid()
    assert sweep.run(trials, small_cohort.path, tmp_path, limit=4, concurrency=2, device="cpu") == 8
    assert sweep.run(trials, small_cohort.path, tmp_path) == 0
    evaluations = spaces.evaluation_trials(trials, tmp_path, seeds=(0, 101))
    assert sweep.run(evaluations, small_cohort.path, tmp_path, device="cpu", concurrency=1) == 2
    rows = store.rows(tmp_path)
    assert set(rows.status) == {"finished"}
    assert (rows[rows.metric == "auroc"].value == 1).all()
    assert sorted(read["trial"] for read in store.test_reads(tmp_path)) == sorted(
        trial.name for trial in evaluations
    )


def test_the_plan_counts_rows_and_times_real_trees(small_cohort):
    trials = a_grid()
    (found,) = sweep.plan(trials, small_cohort, at_once=2)
    n = len(examples.training_rows(small_cohort, trials[0]).index)
    assert (found.trials, found.packs, found.steps, found.subjects) == (8, 2, 2, 8 * n)
    for task in ("af", "rv"):
        cost = plan.cost(a_trial(task=task), found, 2, 1, True)
        assert cost.learn > cost.judge > 0
        assert plan.cost(a_trial(task=task), found, 2, 1, False) == plan.Cost(0, 0, cost.bytes)


def test_the_bill_of_networks_beside_trees_is_the_sum_of_both(small_cohort, tmp_path):
    networks = study.finetuning(
        "t", ["dm"], {"supervised": ()}, {"lr": (1e-3, 1e-4)}, network=test_finetune.TINY, epochs=3
    )
    parts = ([*networks, *a_grid()], networks, a_grid())
    estimates = [
        plan.estimate(part, small_cohort.path, tmp_path, calibrate=False) for part in parts
    ]
    bills = [bill.lines(estimate) for estimate in estimates]
    both, *alone = (
        next(line.split()[2:5] for line in lines if line.startswith("grid")) for lines in bills
    )
    assert [int(n) for n in both] == [int(a) + int(b) for a, b in zip(*alone)]
