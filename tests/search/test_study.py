import functools
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ecgcmr import methods, paper, presets, store, tasks
from ecgcmr.errors import InputError
from ecgcmr.search import spaces, study
from ecgcmr.training import finetune

ROOT = Path(__file__).resolve().parents[2]
SPACES = ROOT / "search_spaces"
SCALES = (study.TOY, study.SMALL, study.FULL)


@functools.cache
def listed_of(space):
    """All trials of the scale of this name: tens of thousands, which many tests look at and none can change."""
    (scale,) = (scale for scale in SCALES if scale.space == space)
    return tuple(study.trials(scale))


def finish(runs, trial, loss):
    """A finished pre-training with this validation loss."""
    store.write(
        runs,
        store.Finished(trial, "finished", (("val", "loss", loss, 10),), _curve(), None, {}, 0, {}),
        "print",
    )


def _curve():
    return pd.DataFrame({"step": [1], "epoch": [0], "val_loss": [0.5]})


@pytest.mark.parametrize("scale", SCALES, ids=lambda scale: scale.space)
def test_every_scale_runs_every_system_of_every_table(scale):
    listed = listed_of(scale.space)
    asked = {
        (trial.system, trial.task, trial.label_fraction)
        for trial in listed
        if trial.stage == "grid"
    }
    for layout in paper.LAYOUTS.values():
        assert {
            (system.name, task, 1.0) for system in layout.systems for task in layout.tasks
        } <= asked
    assert {
        (s.name, task, label_fraction)
        for s in paper.LOW_LABEL
        for task in tasks.DISEASES
        for label_fraction in (1, 0.1, 0.01)
    } <= asked
    assert {trial.system for trial in listed if trial.stage == "pretrain"} == set(
        study.PRETRAININGS
    )


@pytest.mark.parametrize("scale", SCALES, ids=lambda scale: scale.space)
def test_every_trial_could_run(scale):
    listed = listed_of(scale.space)
    finetune.check([trial for trial in listed if trial.stage == "grid"])
    for trial in listed:
        if trial.stage == "pretrain":
            preset = presets.preset(trial.preset)
            known = methods.METHODS[trial.method].defaults(preset, trial.modality)
            assert {name for name, _ in trial.knobs} <= set(known)


def test_the_full_grids_are_the_papers():
    listed = [trial for trial in listed_of(study.FULL.space) if trial.stage == "grid"]
    count = Counter((trial.system, trial.task, trial.label_fraction) for trial in listed)
    assert {
        count[system, task, label_fraction]
        for system in ("supervised", "mae", "mmcl")
        for task in tasks.DISEASES
        for label_fraction in paper.FRACTIONS
    } == {648}
    assert {count["xgboost", task, 1.0] for task in tasks.DISEASES} == {270}
    rates = [
        dict(t.knobs)["lr"]
        for t in listed_of(study.FULL.space)
        if t.stage == "pretrain" and t.system == "mmcl"
    ]
    assert rates == [3e-5, 1e-4, 3e-4, 1e-3]  # section IV-C.2


def test_pretrainings_have_the_papers_settings():
    """Sections IV-C.2 and IV-D.1."""
    found = {t.system: t for t in listed_of(study.FULL.space) if t.stage == "pretrain"}
    knobs = {}
    for system, trial in found.items():
        defaults = methods.METHODS[trial.method].defaults(presets.preset("paper"), trial.modality)
        knobs[system] = {**defaults, **dict(trial.knobs)}
    assert (found["mae"].batch, found["mae"].epochs, found["mmcl"].batch, found["mmcl"].epochs) == (
        128,
        400,
        256,
        300,
    )
    wanted = {
        "mae": {"lr": 1e-5, "weight_decay": 0.15, "warmup": 0.1},
        "mmcl": {"temperature": 0.1, "lambda": 0.75, "weight_decay": 1e-4, "warmup": 0.1},
        "simclr": {"temperature": 0.1, "lr": 3e-3, "weight_decay": 1e-4},
        "byol": {"momentum": 0.9996, "lr": 1e-5, "weight_decay": 1e-4},
        "clocs": {"temperature": 0.1, "lr": 3e-4, "weight_decay": 1e-4},
        "barlow-twins": {"lr": 3e-5, "weight_decay": 1.5e-6},
    }
    for system, values in wanted.items():
        assert {name: knobs[system][name] for name in values} == values


def test_a_trial_that_two_tables_share_runs_once():
    shared = study.trials(study.TOY, "table2", "table3")
    names = [trial.name for trial in shared]
    assert len(names) == len(set(names))
    assert set(names) == {
        t.name for part in ("table2", "table3") for t in study.trials(study.TOY, part)
    }


def test_parts_bring_the_pretrainings_they_start_from():
    for part in study.PARTS:
        listed = study.trials(study.TOY, part)
        folders = {"/".join(t.name.split("/")[:4]) for t in listed if t.stage == "pretrain"}
        assert all(
            "/".join(start.split("/")[:4]) in folders for t in listed for _, start in t.init_from
        )
    with pytest.raises(InputError, match="table9"):
        study.trials(study.TOY, "table9")


@pytest.mark.parametrize("path", sorted(SPACES.glob("*.py")), ids=lambda path: path.stem)
def test_every_search_space_loads(path):
    assert spaces.load(path)


def test_a_start_from_a_sweep_is_the_run_of_least_loss(tmp_path):
    listed = study.trials(study.TOY, "table3")
    rates = [t for t in listed if t.stage == "pretrain" and t.system == "mmcl"]
    for trial in listed:
        if trial.stage == "pretrain":
            finish(tmp_path, trial, 1.0)
    finish(tmp_path, rates[2], 0.5)
    finish(tmp_path, rates[1], float("nan"))  # diverged: never chosen
    found = study.resolved(listed, tmp_path)
    (start,) = {t.init_from for t in found if t.system == "mmcl" and t.stage == "grid"}
    assert start == (("ecg", rates[2].name),)
    assert [t.name for t in found] == [t.name for t in listed]
    untouched = [t for t in found if t.system in ("supervised", "mae")]
    assert untouched == [t for t in listed if t.system in ("supervised", "mae")]


def test_an_unfinished_sweep_is_refused_and_a_diverged_one_too(tmp_path):
    listed = study.trials(study.TOY, "table3")
    before = [t for t in listed if t.stage == "pretrain"]
    for trial in before[:-1]:
        finish(tmp_path, trial, 1.0)
    with pytest.raises(InputError, match="best of 4 pre-trainings, of which 1 have not finished"):
        study.resolved(listed, tmp_path)
    finish(tmp_path, before[-1], 1.0)
    for trial in before:
        if trial.system == "mmcl":
            finish(tmp_path, trial, np.nan)
    with pytest.raises(InputError, match="all 4 pre-trainings diverged"):
        study.resolved(listed, tmp_path)


def test_what_a_cohort_is_too_small_for_is_left_out_with_a_reason(small_cohort):
    few = replace(study.TOY, grid={"lr": (1e-3,)})
    listed = [
        t
        for t in study.trials(few, "figure5")
        if t.stage == "grid" and t.system == "mae" and t.task == "cad"
    ]
    kept, reasons = spaces.feasible(listed, small_cohort)
    assert [t.label_fraction for t in kept] == [1.0, 0.1, 0.01][: len(kept)]
    assert len(kept) + sum(reasons.values()) == len(listed)
    lone = replace(listed[0], label_fraction=0.0001)
    kept, reasons = spaces.feasible([lone], small_cohort)
    assert not kept
    (reason,) = reasons
    assert "label_fraction=0.0001" in reason
    assert "'cad'" in reason


def started(trial):
    return dict(trial.init_from)


def test_seeds_of_pretraining_are_those_of_evaluation_and_chains_keep_to_one():
    listed = study.before_choice(listed_of("toy"))
    by_seed = study.pretraining_seeds(listed, 3)
    first = {trial.name: trial for trial in listed if trial.stage == "pretrain"}
    assert by_seed[0] == {name: first[name] for name in by_seed[0]}
    systems = Counter(trial.system for trial in by_seed[0].values())
    assert systems == dict.fromkeys(study.PRETRAININGS, 1)  # of MMCL's four rates one
    for seed, pretrainings in zip((0, 101, 202), by_seed):
        names = {trial.name for trial in pretrainings.values()}
        for name, trial in pretrainings.items():
            assert trial == replace(first[name], seed=seed, init_from=trial.init_from)
            assert set(started(trial).values()) <= names
            assert started(trial).keys() == started(first[name]).keys()


def test_with_one_seed_nothing_changes():
    listed = study.before_choice(listed_of("toy"))
    (only,) = study.pretraining_seeds(listed, 1)
    assert set(only.values()) <= set(listed)
    evaluations = [replace(t, stage="evaluation") for t in listed if t.stage == "grid"][:50]
    assert study.over_pretrainings(evaluations, listed, 1) == evaluations


def test_what_is_not_listed_has_one_pretraining_and_nothing_listed_is_refused():
    listed = study.before_choice(study.trials(study.TOY, "table3"))
    grid = [trial for trial in listed if trial.stage == "grid" and trial.system == "mae"][:1]
    foreign = replace(
        grid[0], system="imported", init_from=(("ecg", "x/pretrain/ecg/y/default/seed=0"),)
    )
    evaluations = [
        replace(t, stage="evaluation", seed=s) for t in (*grid, foreign) for s in paper.SEEDS
    ]
    spread = study.over_pretrainings(evaluations, [*listed, foreign], 5)
    assert [started(t)["ecg"].rpartition("=")[2] for t in spread[:5]] == [
        str(seed) for seed in paper.SEEDS
    ]
    assert spread[5:] == evaluations[5:]
    with pytest.raises(InputError, match="starts from a pre-training that the search space lists"):
        study.over_pretrainings(evaluations[5:], listed, 2)
    with pytest.raises(InputError, match="--pretrain-seeds 2: the search space lists no pre-train"):
        study.over_pretrainings(evaluations, grid, 2)


def test_pretrainings_that_nothing_starts_from_all_have_as_many_seeds():
    alone = [
        trial for trial in listed_of("toy") if trial.stage == "pretrain" and not trial.init_from
    ]
    assert [len(of_seed) for of_seed in study.pretraining_seeds(alone, 2)] == [len(alone)] * 2
