import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from ecgcmr import store, tasks
from ecgcmr.data import examples, sampler
from ecgcmr.errors import InputError
from ecgcmr.nn import Network
from ecgcmr.runs import is_finished
from ecgcmr.runtime import hardware
from ecgcmr.training import finetune, pack_step
from ecgcmr.training.pack import assemble
from ecgcmr.trial import Trial

TINY = Network(
    crop=2500,
    patch=500,
    width=8,
    depth=2,
    heads=2,
    blocks=(1, 1, 1, 1),
    image_width=4,
    image_size=48,
)
SIZES = {"train": 60, "val": 24, "test": 26}
CPU = torch.device("cpu")


class Cohort:
    """A cohort in memory: the label shifts the QRS-less sine of lead I in frequency; phenotypes follow its amplitude."""

    path = Path("cohorts/tiny")
    fingerprint = "tiny"

    def __init__(self):
        self.recipe = {"reader": "test"}
        draw = np.random.default_rng(0)
        n = sum(SIZES.values())
        self.index = pd.DataFrame(
            {
                "subject": [f"s{i:03d}" for i in range(n)],
                "split": np.repeat(list(SIZES), list(SIZES.values())),
            }
        )
        self.index["af"] = (draw.random(n) < 0.3).astype(float)
        self.index.loc[draw.random(n) < 0.1, "af"] = np.nan
        size = draw.normal(size=n)
        for i, name in enumerate(tasks.TASKS["rv"].columns):
            self.index[name] = 100 + 10 * i + 20 * size
            self.index.loc[draw.random(n) < 0.5, name] = np.nan
        self.index["one"] = 1.0
        self.index["rare"] = 0.0
        self.index.loc[0, "rare"] = 1.0
        self.index["has_ecg"] = draw.random(n) > 0.05
        self.index["has_cmr"] = draw.random(n) > 0.05
        time = np.arange(5000) / 500
        wave = np.sin(
            2 * np.pi * (1 + np.nan_to_num(self.index.af.to_numpy()))[:, None, None] * time
        )
        self.ecg = (
            wave * np.linspace(0.5, 1, 12)[:, None] + 0.3 * draw.normal(size=(n, 12, 5000))
        ).astype(np.float16)
        self.ecg[:, 0] += (0.3 * size[:, None] * np.sign(np.sin(2 * np.pi * 3 * time))).astype(
            np.float16
        )
        self.cmr = draw.integers(0, 256, (n, 3, 210, 210), dtype=np.uint8)

    @property
    def provenance(self):
        return {"fingerprint": self.fingerprint, "recipe": self.recipe}

    def rows(self, split=None):
        return (
            self.index
            if split is None
            else self.index[self.index.split == split].reset_index(drop=True)
        )

    def load(self, index, columns=("ecg",)):
        rows = index["subject"].str[1:].astype(int).to_numpy()
        return {name: getattr(self, name)[rows] for name in columns}


@pytest.fixture(scope="module")
def cohort():
    return Cohort()


def a_trial(**changed):
    given = {
        "space": "t",
        "stage": "grid",
        "task": "af",
        "system": "supervised",
        "method": "supervised",
        "network": TINY,
        "batch": 8,
        "epochs": 2,
        "knobs": (("lr", 1e-3),),
    }
    return Trial(**{**given, **changed})


def run(trials, cohort, runs, **options):
    return finetune.fit(trials, cohort, runs, device="cpu", **{"precision": "float64", **options})


def weights_after(trials, cohort, steps):
    """Train a pack for some steps; every member's weights and losses."""
    task = tasks.of(trials[0].task)
    pack = assemble(trials, task, Path("."), CPU, torch.float64)
    chosen = examples.training_rows(cohort, trials[0]).index
    scale = examples.scale_of(examples.answers(chosen, task), task, cohort.path)
    rows = examples.bring(cohort, chosen, task, trials[0].modality, scale, CPU)
    draws, n, losses = pack_step.draws_of(trials, CPU), len(chosen), []
    for now in range(steps):
        losses.append(
            pack_step.advance(
                pack,
                rows,
                draws,
                pack_step.orders(draws, now // fit_steps(n, trials), n, trials, CPU),
                now,
                steps,
            )
        )
    return pack, torch.stack(losses)


def fit_steps(n, trials):
    return sampler.permuted_steps(n, trials[0].batch)


# -- which subjects


def test_training_set_is_balanced_static_and_nested(cohort):
    whole = examples.training_rows(cohort, a_trial()).index
    assert whole.af.sum() == len(whole) / 2
    train = cohort.rows("train")
    assert set(train[(train.af == 1) & train.has_ecg].subject) <= set(whole.subject)
    assert (
        whole.subject.tolist()
        == examples.training_rows(cohort, a_trial(seed=9)).index.subject.tolist()
    )
    parts = [
        set(examples.training_rows(cohort, a_trial(label_fraction=label_fraction)).index.subject)
        for label_fraction in (0.1, 0.4, 1.0)
    ]
    assert parts[0] < parts[1] < parts[2]
    tenth = examples.training_rows(cohort, a_trial(label_fraction=0.1)).index
    assert set(tenth.af) == {0.0, 1.0}


def test_rows_without_signal_or_answer_are_left_out(cohort):
    val = examples.answerable(cohort, tasks.of("rv"), "cmr", "val")
    assert val.has_cmr.all()
    assert val[list(tasks.of("rv").columns)].notna().any(axis=1).all()
    assert val[list(tasks.of("rv").columns)].isna().any(axis=None)


def test_phenotypes_are_scored_in_units_by_training_statistics(cohort):
    task = tasks.of("rv")
    chosen = examples.training_rows(cohort, a_trial(task="rv")).index
    scale = examples.scale_of(examples.answers(chosen, task), task, cohort.path)
    np.testing.assert_allclose(scale.mean, chosen[list(task.columns)].mean())
    rows = examples.bring(cohort, chosen, task, "ecg", scale, CPU)
    known = ~torch.isnan(rows.target)
    assert abs(rows.target[known].mean()) < 0.05
    assert torch.equal(known, torch.from_numpy(~np.isnan(rows.answers)))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"task": "one"}, "'one' has"),
        ({"task": "rare"}, "1 positives"),
        ({"task": "unheard"}, "no column 'unheard'"),
        ({"task": "lv"}, "no column 'LVEDV'"),
        ({"knobs": (("learning_rate", 1.0),)}, "learning_rate"),
        (
            {"init_from": (("ecg", "t/pretrain/ecg/mae/none/seed=0"),)},
            "t/pretrain/ecg/mae/none/seed=0",
        ),
        ({"init_from": (("cmr", "x"),)}, "'cmr' is not its modality"),
        ({"method": "mae"}, "method 'mae'"),
    ],
)
def test_bad_input_is_one_line(cohort, tmp_path, changed, words):
    with pytest.raises(InputError, match=words) as caught:
        run([a_trial(**changed)], cohort, tmp_path)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("*"))


@pytest.mark.parametrize("field", [f for f in finetune.SHARED if f != "method"])
def test_mixed_pack_is_refused_with_the_field_named(cohort, tmp_path, field):
    other = {
        "space": "u",
        "stage": "evaluation",
        "task": "rv",
        "modality": "cmr",
        "network": dataclasses.replace(TINY, depth=1),
        "batch": 4,
        "epochs": 3,
        "label_fraction": 0.5,
        "preset": "authors",
        "eval_every": 2,
        "asha": 4,
    }[field]
    with pytest.raises(InputError, match=f"differ in {field}"):
        run([a_trial(), a_trial(**{field: other})], cohort, tmp_path)


# -- batches


def test_an_epoch_has_every_row_and_full_batches():
    rows = sampler.permuted(seed=3, epoch=1, rows=21, batch=8)
    assert rows.shape == (3, 8)
    assert set(rows.ravel()) == set(range(21))
    assert rows.ravel()[21:].tolist() == rows.ravel()[:3].tolist()
    assert (rows != sampler.permuted(3, 2, 21, 8)).any()
    assert (rows != sampler.permuted(4, 1, 21, 8)).any()
    assert sampler.permuted(0, 0, 5, 8).shape == (1, 5)


# -- packs


@pytest.mark.parametrize("task", ["af", "rv"])
def test_a_pack_equals_its_solos(cohort, task):
    knobs = [
        {"lr": 1e-3},
        {"lr": 3e-3, "drop_path": 0.3, "layer_decay": 0.5},
        {"lr": 1e-3, "weight_decay": 0.3},
    ]
    trials = [
        a_trial(task=task, knobs=tuple(k.items()), seed=seed) for k, seed in zip(knobs, (0, 0, 7))
    ]
    pack, losses = weights_after(trials, cohort, 20)
    for e, trial in enumerate(trials):
        solo, alone = weights_after([trial], cohort, 20)
        assert (losses[:, e] - alone[:, 0]).abs().max() < 1e-6
        assert max((pack.params[k][e] - v[0]).abs().max() for k, v in solo.params.items()) < 1e-6
    assert losses[-5:].mean() < losses[:5].mean()


def test_image_pack_equals_its_solos_with_its_running_statistics(cohort):
    trials = [
        a_trial(modality="cmr", seed=seed, knobs=(("lr", lr),))
        for seed, lr in ((0, 1e-3), (0, 1e-2), (5, 1e-3))
    ]
    pack, _ = weights_after(trials, cohort, 4)
    for e, trial in enumerate(trials):
        solo, _ = weights_after([trial], cohort, 4)
        for name, tensor in {**solo.params, **solo.buffers}.items():
            torch.testing.assert_close(
                {**pack.params, **pack.buffers}[name][e], tensor[0], atol=1e-6, rtol=1e-6
            )
    assert pack.buffers["cmr.bn1.running_mean"].abs().max() > 0


def test_a_diverging_member_freezes_alone(cohort, tmp_path):
    good, bad = (
        a_trial(system="good", epochs=3),
        a_trial(system="bad", epochs=3, knobs=(("lr", float("inf")),)),
    )
    together = run([good, bad], cohort, tmp_path / "a")
    alone = run([good], cohort, tmp_path / "b")
    assert [r.status for r in together] == ["finished", "diverged"]
    for (_, name, value, _), (_, _, other, _) in zip(together[0].scores, alone[0].scores):
        assert value == pytest.approx(other, abs=1e-9), name
    pd.testing.assert_frame_equal(together[0].curve, alone[0].curve, atol=1e-6)
    rows = store.rows(tmp_path / "a")
    assert set(rows[rows.system == "bad"].status) == {"diverged"}
    assert rows[rows.system == "bad"].value.isna().all()


def test_a_frozen_member_does_not_change(cohort):
    pack, _ = weights_after([a_trial(), a_trial(system="b")], cohort, 1)
    pack.alive[1] = False
    before = {k: v.clone() for k, v in pack.params.items()}
    rows = examples.bring(
        cohort,
        examples.training_rows(cohort, a_trial()).index,
        tasks.of("af"),
        "ecg",
        examples.Scale(np.zeros(1), np.ones(1)),
        CPU,
    )
    draws = pack_step.draws_of(pack.trials, CPU)
    pack_step.advance(
        pack, rows, draws, pack_step.orders(draws, 0, len(rows.subjects), pack.trials, CPU), 1, 20
    )
    assert all(torch.equal(before[k][1], v[1]) for k, v in pack.params.items())
    assert any(not torch.equal(before[k][0], v[0]) for k, v in pack.params.items())


# -- early stopping


def test_patience_counts_epochs_since_within_slack_of_the_best():
    watch = finetune.Watch.of(3)
    patience, slack = np.full(3, 2.0), np.array([0.0, 0.05, 0.0])
    alive = np.ones(3, bool)
    values = [
        [0.6, 0.6, 0.6],
        [0.5, 0.56, 0.5],
        [0.5, 0.5, 0.7],
        [0.5, 0.5, np.nan],
        [0.9, 0.5, 0.9],
    ]
    better = [
        watch.see(epoch, np.array(v), alive, patience, slack).tolist()
        for epoch, v in enumerate(values)
    ]
    assert better[0] == [True] * 3
    assert better[2] == [False, False, True]
    assert watch.status == ["early-stopped", "early-stopped", "diverged"]
    assert watch.epoch.tolist() == [0, 0, 2]
    assert watch.best.tolist() == [0.6, 0.6, 0.7]


def test_at_a_rung_the_worse_of_a_grid_end_and_the_others_are_as_without(cohort, tmp_path):
    rates = (1e-3, 1e-2, 0.0, 1e-5)
    grid = [a_trial(epochs=16, knobs=(("lr", lr),), batch=32, label_fraction=0.5) for lr in rates]
    whole = run(grid, cohort, tmp_path / "whole")
    halved = run(
        [dataclasses.replace(trial, asha=2) for trial in grid], cohort, tmp_path / "halved"
    )
    assert [result.status for result in whole] == ["finished"] * 4
    ends = {result.status: len(result.curve) for result in halved}
    assert ends["halted"] in (2, 4, 8)
    assert ends["finished"] == 16
    lengths = [len(result.curve) for result in halved]
    assert sum(lengths) < 48
    for one, other, n in zip(whole, halved, lengths):
        pd.testing.assert_frame_equal(
            one.curve[:n], other.curve, atol=1e-9
        )  # a neighbour's end changes nothing
    best = max(range(4), key=lambda e: halved[e].curve.val_auroc[: min(lengths)].max())
    assert lengths[best] > min(lengths)


def test_the_pack_ends_when_all_have_stopped_and_keeps_the_best(cohort, tmp_path):
    still = a_trial(epochs=50, knobs=(("lr", 0.0), ("max_delta", -1e-9), ("patience", 1.0)))
    (result,) = run([still], cohort, tmp_path)
    assert (result.status, result.epoch) == ("early-stopped", 0)
    assert result.curve.epoch.max() == 2


# -- what is left behind


def test_a_grid_trial_leaves_validation_scores_and_no_weights(cohort, tmp_path):
    (result,) = run(
        [a_trial(eval_every=2, epochs=3)],
        cohort,
        tmp_path,
        precision="auto",
        progress="t/grid/af/pack-0",
    )
    folder = store.folder(tmp_path, result.trial.name)
    assert is_finished(tmp_path, result.trial, "tiny")
    rows = pd.read_parquet(folder / store.ROWS)
    assert set(rows.split) == {"val"}
    assert rows[rows.metric == "auroc"].n.item() == len(
        examples.answerable(cohort, tasks.of("af"), "ecg", "val")
    )
    assert not (folder / store.ENCODER).exists()
    record = json.loads((folder / store.RECORD).read_text())
    assert record["provenance"]["test_reads"] == 0
    assert store.test_reads(tmp_path) == []
    train = examples.answerable(cohort, tasks.of("af"), "ecg", "train")
    assert record["provenance"]["prevalence"] == train.af.mean() < 0.5
    assert record["provenance"]["trained_prevalence"] == 0.5
    assert result.curve.epoch.tolist() == [1, 2]
    assert not list(tmp_path.rglob(store.PROGRESS))
    assert not (tmp_path / "t/grid/af/pack-0").exists()


def test_evaluation_trials_read_test_once_and_leave_weights(cohort, tmp_path):
    reads = []

    class Counting(Cohort):
        def load(self, index, columns=("ecg",)):
            reads.append(set(index.split))
            return super().load(index, columns)

    results = run(
        [a_trial(stage="evaluation", seed=seed) for seed in (0, 101)], Counting(), tmp_path
    )
    assert sum("test" in splits for splits in reads) == 1
    logged = {(read["trial"], read["rows"]) for read in store.test_reads(tmp_path)}
    n = len(examples.answerable(cohort, tasks.of("af"), "ecg", "test"))
    assert logged == {(result.trial.name, n) for result in results}
    assert len(store.test_reads(tmp_path)) == 2
    rows = store.rows(tmp_path)
    assert set(rows.split) == {"val", "test"}
    assert rows.groupby("trial").size().nunique() == 1
    frame = pd.read_parquet(store.folder(tmp_path, results[0].trial.name) / store.PREDICTIONS)
    assert frame["output:af"].between(0, 1).all()
    assert set(frame.split) == {"val", "test"}
    loaded = store.weights(tmp_path, results[0].trial.name, "ecg")
    assert "cls_token" in loaded


def test_kept_weights_give_the_kept_scores(cohort, tmp_path):
    (result,) = run([a_trial(stage="evaluation", epochs=3)], cohort, tmp_path)
    best = result.curve.val_auroc.max()
    value = next(v for split, name, v, _ in result.scores if (split, name) == ("val", "auroc"))
    assert value == pytest.approx(best)
    assert result.epoch == result.curve.epoch[result.curve.val_auroc.idxmax()]


def test_phenotype_predictions_are_in_units(cohort, tmp_path):
    (result,) = run([a_trial(task="rv", stage="evaluation", epochs=1)], cohort, tmp_path)
    frame = result.predictions
    assert 60 < frame["output:RVEDV"].mean() < 140
    assert {"pearson"} <= {name for _, name, _, _ in result.scores}
    assert len(result.provenance["target_mean"]) == 4


def test_a_small_training_set_is_one_batch(cohort, tmp_path):
    (result,) = run([a_trial(label_fraction=0.2, batch=64, epochs=1)], cohort, tmp_path)
    assert result.provenance["batch"] == result.provenance["n_train"] < 64
    assert "smaller than batch" in result.provenance["batch_note"]


def test_starts_are_loaded(cohort, tmp_path):
    (source,) = run([a_trial(stage="evaluation", epochs=1)], cohort, tmp_path)
    started = a_trial(system="mmcl", init_from=(("ecg", source.trial.name),), seed=3)
    fresh = a_trial(seed=3)
    pack = assemble([started, fresh], tasks.of("af"), tmp_path, CPU, torch.float32)
    name = "ecg.blocks.0.attn.qkv.weight"
    np.testing.assert_allclose(pack.params[name][0], source.weights[name], rtol=1e-6)
    assert not np.allclose(pack.params[name][1], source.weights[name])


def test_a_start_that_learnt_from_other_signals_is_refused(cohort, tmp_path):
    other = Cohort()
    other.recipe = {"ecg": {"clip_sd": 3.0, "rate_hz": 500}, "reader": "a"}
    (source,) = run([a_trial(stage="evaluation", epochs=1)], other, tmp_path)
    other.recipe = {"ecg": {"clip_sd": 4.0, "rate_hz": 500}, "reader": "b"}
    with pytest.raises(InputError, match=r"clip_sd 3.0 → 4.0"):
        run([a_trial(system="mmcl", init_from=(("ecg", source.trial.name),))], other, tmp_path)


def test_linear_layers_of_a_pack_run_in_the_precision_asked_for(cohort):
    x, weight, bias = torch.randn(4, 6), torch.randn(2, 3, 6), torch.randn(2, 3)
    with hardware.autocast("cpu", torch.bfloat16), pack_step.Cast(torch.bfloat16):
        out = torch.func.vmap(torch.nn.functional.linear, in_dims=(None, 0, 0))(x, weight, bias)
    assert out.dtype == torch.bfloat16
    with pack_step.Cast(torch.float64):
        assert (
            torch.func.vmap(torch.nn.functional.linear, in_dims=(None, 0, 0))(x, weight, bias).dtype
            == torch.float32
        )


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "changed", [{}, {"preset": "authors"}, {"task": "rv"}, {"modality": "cmr", "knobs": ()}]
)
def test_every_kind_trains_in_every_precision(cohort, tmp_path, precision, changed):
    (result,) = run(
        [a_trial(epochs=1, label_fraction=0.5, **changed)], cohort, tmp_path, precision=precision
    )
    assert result.status == "finished"
    assert np.isfinite([value for _, _, value, _ in result.scores]).all()
    assert result.provenance["precision"] == precision
