"""Which configuration stands for a system: written once, read by all, and said when finished runs contradict it."""

import json
from dataclasses import replace

import handmade
import pytest

from ecgcmr import store
from ecgcmr.errors import InputError
from ecgcmr.evaluation import selection
from ecgcmr.inference import ensemble, model
from ecgcmr.report.results import evaluation_runs
from ecgcmr.runs import all_runs, read_run
from ecgcmr.search import spaces, study

A, B, C = ((("lr", rate),) for rate in (1e-5, 1e-4, 1e-3))
SEEDS = (0, 1)


def run(runs, knobs, value, stage="grid", seed=0):
    return handmade.finish(runs, system="mmcl", stage=stage, knobs=knobs, value=value, seed=seed)


def evaluation(runs, knobs, test, validation):
    """Five seeds of which validation and test tell different things."""
    for seed in SEEDS:
        scores = (("val", "auroc", validation, 60), ("test", "auroc", test, 60))
        handmade.finish(runs, system="mmcl", knobs=knobs, seed=seed, scores=scores)


def shown(runs):
    """The configuration in the table, and its mean on test."""
    (cell,) = evaluation_runs.of_space(store.rows(runs), "toy", runs, len(SEEDS)).values()
    return cell.names[0].split("/")[4], cell.mean


def served(runs):
    """The configuration that answers."""
    (seeds,) = ensemble.of_system(ensemble.runs_in(runs / "toy"), "mmcl").values()
    return seeds[0].trial.configuration


@pytest.fixture
def widened(tmp_path):
    """A grid widened after its first evaluation: A .80 and B .79 on the grid, .78 and .82 in the evaluation's validation."""
    grid = [run(tmp_path, A, 0.80)]
    spaces.evaluation_trials(grid, tmp_path, SEEDS)
    evaluation(tmp_path, A, test=0.70, validation=0.78)
    grid.append(run(tmp_path, B, 0.79))
    evaluation(tmp_path, B, test=0.90, validation=0.82)
    return tmp_path, grid


def test_the_table_shows_what_is_served(widened):
    runs, _ = widened
    assert shown(runs) == ("batch=32,lr=1e-05", pytest.approx(0.70))
    assert served(runs) == "batch=32,lr=1e-05"
    assert selection.contradictions(runs) == []  # .79 on the grid is no better than .80


def test_what_was_compared_and_which_won_is_written(widened):
    runs, grid = widened
    path = runs / "toy/evaluation/af/mmcl/choice.json"
    assert json.loads(path.read_text())["compared"] == {"batch=32,lr=1e-05": 0.80}
    spaces.evaluation_trials(grid, runs, SEEDS)
    record = json.loads(path.read_text())
    assert record["chosen"] == "batch=32,lr=1e-05"
    assert record["compared"] == {"batch=32,lr=1e-05": 0.80, "batch=32,lr=0.0001": 0.79}
    assert "auroc" in record["by"]


def test_a_better_configuration_that_came_later_is_said_and_not_followed(widened):
    runs, grid = widened
    grid.append(run(runs, C, 0.85))
    (line,) = selection.contradictions(runs)
    assert "toy/evaluation/af/mmcl/choice.json: 'batch=32,lr=1e-05' (0.8) was chosen of 1" in line
    assert (
        "'batch=32,lr=0.001' (0.85) has finished since: run  ecgcmr evaluate --choose-again" in line
    )
    assert "\n" not in line
    (first,) = [
        r for r in all_runs(runs / "toy/evaluation") if r.trial.configuration == "batch=32,lr=1e-05"
    ][:1]
    assert line in ensemble.cautions(first, runs)
    assert shown(runs)[0] == served(runs) == "batch=32,lr=1e-05"
    with pytest.raises(InputError, match=r"'batch=32,lr=0\.001' \(0\.85\) is best: choose it with"):
        spaces.evaluation_trials(grid, runs, SEEDS)
    chosen = spaces.evaluation_trials(grid, runs, SEEDS, again=True)
    assert {trial.knobs for trial in chosen} == {C}
    assert selection.contradictions(runs) == []
    assert selection.read_choice(runs / "toy/evaluation/af/mmcl").replaced == ("batch=32,lr=1e-05",)


def test_until_the_chosen_configuration_has_run_neither_shows_another(widened):
    runs, grid = widened
    grid.append(run(runs, C, 0.85))
    spaces.evaluation_trials(grid, runs, SEEDS, again=True)
    (cell,) = evaluation_runs.of_space(store.rows(runs), "toy", runs, len(SEEDS)).values()
    assert cell.lack == "no finished run"
    assert "lr=0.001, the chosen one, which has none: run ecgcmr evaluate" in cell.note
    with pytest.raises(
        InputError, match=r"'batch=32,lr=0\.001' was chosen and has no evaluation run"
    ):
        served(runs)
    evaluation(runs, C, test=0.6, validation=0.7)
    assert (shown(runs)[0], served(runs)) == ("batch=32,lr=0.001",) * 2


def test_a_configuration_outside_the_search_space_is_noted_and_contradicts_no_more(widened):
    runs, grid = widened
    run(runs, C, 0.85)
    assert selection.contradictions(runs)
    spaces.evaluation_trials(grid, runs, SEEDS)
    assert selection.contradictions(runs) == []
    choice = selection.read_choice(runs / "toy/evaluation/af/mmcl")
    assert (choice.chosen, choice.unlisted) == ("batch=32,lr=1e-05", ("batch=32,lr=0.001",))


def test_shares_of_the_labels_have_choices_of_their_own(tmp_path):
    grid = [
        handmade.finish(
            tmp_path,
            system="mmcl",
            stage="grid",
            knobs=knobs,
            value=value,
            label_fraction=label_fraction,
        )
        for label_fraction, knobs, value in (
            (1.0, A, 0.8),
            (1.0, B, 0.7),
            (0.1, A, 0.6),
            (0.1, B, 0.65),
        )
    ]
    chosen = {
        trial.label_fraction: trial.knobs
        for trial in spaces.evaluation_trials(grid, tmp_path, (0,))
    }
    assert chosen == {1.0: A, 0.1: B}
    names = sorted(path.name for path in (tmp_path / "toy/evaluation/af/mmcl").iterdir())
    assert names == ["choice,label_fraction=0.1.json", "choice.json"]


def test_a_damaged_choice_is_one_line(widened):
    runs, _ = widened
    (runs / "toy/evaluation/af/mmcl/choice.json").write_text("{")
    with pytest.raises(
        InputError, match=r"choice\.json: damaged .*; delete it and run  ecgcmr evaluate"
    ):
        served(runs)


# -- pre-trainings -------------------------------------------------------------------------------------------------------


def pretrained(runs, rate, loss, seed=0):
    scores = (("val", "loss", loss, 60),)
    return handmade.finish(
        runs,
        system="mmcl",
        stage="pretrain",
        task="ecg+cmr",
        method="mmcl",
        knobs=(("lr", rate),),
        scores=scores,
        seed=seed,
    )


@pytest.fixture
def swept(tmp_path):
    """Two rates, and a grid trial that starts from the better one."""
    listed = [pretrained(tmp_path, rate, loss) for rate, loss in ((1e-3, 0.5), (1e-4, 0.4))]
    grid = replace(
        listed[0],
        stage="grid",
        task="af",
        method="supervised",
        init_from=(("ecg", "toy/pretrain/ecg+cmr/mmcl"),),
    )
    return tmp_path, [*listed, grid]


def test_the_pretraining_of_least_loss_is_written_and_stands(swept):
    runs, listed = swept
    with pytest.raises(InputError, match="holds 2 runs; name one of them"):
        model.find("toy/pretrain/ecg+cmr/mmcl", runs)
    (*_, trial) = study.resolved(listed, runs)
    assert trial.init_from == (("ecg", listed[1].name),)
    assert model.find("toy/pretrain/ecg+cmr/mmcl", runs).name == listed[1].name
    chosen = [read_run(runs / name.name) for name in listed[:2]]
    assert selection.standing_pretraining(chosen).trial == listed[1]


def test_a_better_pretraining_that_came_later_is_said_and_not_followed(swept):
    runs, listed = swept
    study.resolved(listed, runs)
    wider = [pretrained(runs, 1e-2, 0.3), *listed]
    (line,) = selection.contradictions(runs)
    assert "(0.3) has finished since: run  ecgcmr sweep --choose-again" in line
    with pytest.raises(InputError, match="choose it with --choose-again"):
        study.resolved(wider, runs)
    (*_, trial) = study.resolved(wider, runs, again=True)
    assert trial.init_from == (("ecg", wider[0].name),)
    assert selection.contradictions(runs) == []


def test_other_seeds_of_a_pretraining_neither_choose_a_rate_nor_contradict_the_choice(swept):
    runs, listed = swept
    study.resolved(listed, runs)
    path = runs / "toy/pretrain/ecg+cmr/mmcl/choice.json"
    before = path.read_text()
    for rate, loss in ((1e-3, 0.1), (1e-4, 0.9)):  # by these the other rate would win
        pretrained(runs, rate, loss, seed=101)
    (*_, trial) = study.resolved(listed, runs)
    assert trial.init_from == (("ecg", listed[1].name),)
    assert path.read_text() == before  # nor are they noted as unlisted
    assert selection.contradictions(runs) == []
    every = [read_run(folder) for folder in store.finished_folders(path.parent)]
    assert len(every) == 4
    assert selection.standing_pretraining(every).trial == listed[1]
    # Listed by hand, too: a lucky seed is no better rate.
    (*_, trial) = study.resolved([pretrained(runs, 1e-3, 0.1, seed=101), *listed], runs)
    assert trial.init_from == (("ecg", listed[1].name),)


def test_of_seeds_of_one_pretraining_the_first_stands(tmp_path):
    trials = [pretrained(tmp_path, 1e-3, loss, seed) for seed, loss in ((101, 0.1), (0, 0.5))]
    candidates = [read_run(tmp_path / trial.name) for trial in trials]
    assert selection.standing_pretraining(candidates).trial.seed == 0
    candidates.append(read_run(tmp_path / pretrained(tmp_path, 1e-4, 0.4).name))
    with pytest.raises(InputError, match="2 pre-trainings and no choice"):
        selection.standing_pretraining(candidates)
