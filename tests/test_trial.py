import dataclasses

import pytest

from ecgcmr import trial as trials
from ecgcmr.errors import InputError
from ecgcmr.nn import Network
from ecgcmr.trial import Trial

TRIAL = Trial(
    space="toy",
    stage="grid",
    task="af",
    system="mmcl",
    method="supervised",
    init_from=(("ecg", "toy/pretrain/ecg+cmr/mmcl/batch=8/seed=0"),),
    network=Network(width=48, blocks=(1, 1, 1, 1)),
    batch=8,
    label_fraction=0.1,
    knobs=(("lr", 3e-5), ("drop_path", 0.1)),
)


def test_name_is_a_readable_folder():
    assert TRIAL.name == "toy/grid/af/mmcl/batch=8,drop_path=0.1,lr=3e-05,label_fraction=0.1/seed=0"


def test_json_round_trip_is_complete():
    assert trials.from_json(trials.to_json(TRIAL)) == TRIAL


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(Trial)])
def test_every_field_changes_the_fingerprint(field):
    other = {
        "stage": "evaluation",
        "init_from": (),
        "seed": 1,
        "preset": "authors",
        "network": Network(),
        "batch": 9,
        "epochs": 7,
        "label_fraction": 0.5,
        "eval_every": 3,
        "asha": 4,
        "knobs": (("lr", 1e-5),),
        "modality": "cmr",
    }.get(field, "other")
    changed = dataclasses.replace(TRIAL, **{field: other})
    assert trials.fingerprint(changed, "c") != trials.fingerprint(TRIAL, "c")
    assert trials.fingerprint(TRIAL, "another cohort") != trials.fingerprint(TRIAL, "c")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"batch": 0}, "batch=0"),
        ({"label_fraction": 1.5}, "label_fraction=1.5"),
        ({"stage": "test"}, "stage 'test'"),
    ],
)
def test_what_could_never_run_is_refused_by_name(change, word):
    with pytest.raises(InputError, match=word):
        dataclasses.replace(TRIAL, **change)


def test_configurations_of_one_grid_have_names_of_their_own():
    grid = [
        dataclasses.replace(TRIAL, batch=b, knobs=(("lr", lr),))
        for b in (8, 16)
        for lr in (1e-6, 3e-6)
    ]
    assert len({trial.name for trial in grid}) == 4


def test_trees_have_no_batch_and_their_name_says_none():
    trees = dataclasses.replace(TRIAL, method="xgboost", modality="tabular", init_from=(), batch=0)
    assert trees.name == "toy/grid/af/mmcl/drop_path=0.1,lr=3e-05,label_fraction=0.1/seed=0"
    assert dataclasses.replace(trees, knobs=(), label_fraction=1.0).configuration == "default"
    assert trials.from_json(trials.to_json(trees)) == trees
    with pytest.raises(InputError, match="batch=-1"):
        dataclasses.replace(trees, batch=-1)
