import math

import handmade
import numpy as np
import pandas as pd
import pytest
import scipy.special
import scipy.stats
import torch
from sklearn.metrics import roc_auc_score
from statsmodels.stats.multitest import multipletests

from ecgcmr import checksums, store, tasks
from ecgcmr.evaluation import statistics
from ecgcmr.evaluation.statistics import Effect
from ecgcmr.paper import LAYOUTS, Claim, Contrast
from ecgcmr.report.results import evaluation_runs, evidence, verdicts
from ecgcmr.report.results.evidence import Evidence
from ecgcmr.report.results.verdicts import FAILS, HOLDS, OPEN, Comparison, verdict_of

torch.set_num_threads(1)
DRAWS = 300


def seen(runs, **options):
    """The evidence of what lies under `runs`."""
    return Evidence.of(runs, "toy", store.rows(runs), **{"draws": DRAWS, **options})


def predictions(runs, system, task="af"):
    """(targets (n, k), outputs (m, n, k)) of every seed, read by hand, by subject."""
    folders = sorted((runs / "toy" / "evaluation" / task / system).glob("*/seed=*"))
    each = [
        pd.read_parquet(folder / "predictions.parquet").set_index("subject").sort_index()
        for folder in folders
    ]
    of = {
        kind: [one.filter(like=f"{kind}:").to_numpy(float) for one in each]
        for kind in ("target", "output")
    }
    return of["target"][0], np.stack(of["output"])


def rewrite(runs, system, change, task="af", seed=0):
    """Change one run's predictions on disk."""
    (path,) = (runs / "toy" / "evaluation" / task / system).glob(
        f"*/seed={seed}/predictions.parquet"
    )
    change(pd.read_parquet(path)).to_parquet(path)
    checksums.write(path.parent)


@pytest.fixture(scope="module")
def diseases(tmp_path_factory):
    """Three systems on AF; the CMR one was evaluated on nine tenths of the subjects."""
    runs = tmp_path_factory.mktemp("diseases")
    handmade.plant(runs, "supervised", signal=0.5)
    handmade.plant(runs, "mmcl", signal=2.0)
    handmade.plant(runs, "cmr-supervised", signal=1.5, keep=np.arange(400) % 10 > 0)
    return runs


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    """Two systems on the right ventricle's four phenotypes."""
    runs = tmp_path_factory.mktemp("numbers")
    handmade.plant(runs, "supervised", "rv", signal=0.5)
    handmade.plant(runs, "mmcl", "rv", signal=1.5)
    return runs


# -- answers -----------------------------------------------------------------------------------------------------------


def test_answers_are_lined_up_by_subject_whatever_the_order_of_the_files(tmp_path):
    handmade.plant(tmp_path, "mmcl")
    targets, outputs = predictions(tmp_path, "mmcl")
    rewrite(tmp_path, "mmcl", lambda table: table.sample(frac=1, random_state=1), seed=3)
    rewrite(tmp_path, "mmcl", lambda table: table[table.subject != "p00007"], seed=1)
    found = seen(tmp_path).answers("mmcl", "af")
    rest = np.arange(400) != 7
    assert list(found.subjects) == [f"p{i:05d}" for i in np.flatnonzero(rest)]
    np.testing.assert_array_equal(found.targets, targets[rest])
    np.testing.assert_array_equal(found.outputs, outputs[:, rest])
    assert found.seeds == (0, 1, 2, 3, 4)


def test_visits_of_one_subject_are_told_apart(tmp_path):
    handmade.plant(tmp_path, "mmcl", seeds=(0, 1))
    rename = {"p00001": "p00000", "p00002": "p00000"}
    for seed in (0, 1):
        rewrite(
            tmp_path,
            "mmcl",
            lambda table: table.assign(subject=table.subject.replace(rename)),
            seed=seed,
        )
    _, before = predictions(tmp_path, "mmcl")
    found = seen(tmp_path).answers("mmcl", "af")
    assert len(found.subjects) == 400
    assert list(found.visits[:4]) == [0, 1, 2, 0]
    np.testing.assert_array_equal(found.outputs[:, :3, 0], before[:, :3, 0])


def test_only_test_predictions_of_complete_runs_count(tmp_path):
    handmade.plant(tmp_path, "mmcl", seeds=range(4))
    rewrite(tmp_path, "mmcl", lambda table: pd.concat([table, table.assign(split="val")]), seed=2)
    handmade.finish(tmp_path, system="mmcl", seed=4, value=0.7, status="diverged")
    handmade.finish(tmp_path, system="mae", seed=0, value=0.7)
    found = seen(tmp_path)
    assert found.answers("mmcl", "af").outputs.shape == (4, 400, 1)
    assert found.lack("mmcl", "af") == "MMCL for AF: 4 of 5 seeds, 1 diverged"
    assert found.answers("mae", "af") is None
    assert (
        seen(tmp_path, seeds=1).lack("mae", "af") == "MAE for AF: 1 of 1 runs left no predictions"
    )
    assert found.lack("mmcl", "dm", 0.1) == "MMCL for DM with 10 % of the labels: no finished run"
    assert seen(tmp_path, seeds=4).lack("mmcl", "af") == ""


# -- intervals ---------------------------------------------------------------------------------------------------------


def test_the_interval_of_an_auroc_is_of_the_mean_over_seeds_and_holds_its_standard_error(diseases):
    targets, outputs = predictions(diseases, "mmcl")
    won = (
        outputs[:, targets[:, 0] == 1][:, :, None, 0]
        - outputs[:, targets[:, 0] == 0][:, None, :, 0]
    )
    won = ((won > 0) + 0.5 * (won == 0)).mean(0)
    error = (won.mean(1).var(ddof=1) / 80 + won.mean(0).var(ddof=1) / 320) ** 0.5
    area = won.mean()
    half = scipy.stats.t.ppf(0.975, 100) * error / (area * (1 - area))
    ends = scipy.special.expit(scipy.special.logit(area) + np.array([-half, half]))
    found = seen(diseases)
    assert found.interval("mmcl", "af") == pytest.approx(ends, abs=1e-3)
    score = found.score("mmcl", "af")
    assert score.values == pytest.approx(
        [roc_auc_score(targets[:, 0], one[:, 0]) for one in outputs]
    )
    assert (score.n, score.people, score.positives) == (400, 400, 80)


def test_visits_are_drawn_with_their_subject(tmp_path):
    handmade.plant(tmp_path, "mmcl", seeds=(0, 1))
    once = seen(tmp_path).interval("mmcl", "af")
    for seed in (0, 1):
        rewrite(tmp_path, "mmcl", lambda table: pd.concat([table, table]), seed=seed)
    found = seen(tmp_path)
    assert found.score("mmcl", "af").n == 800
    assert found.score("mmcl", "af").people == 400
    assert found.interval("mmcl", "af") == pytest.approx(
        once
    )  # twice the same visits are no more evidence


def came_again(runs, label, task="af", people=None):
    """Every row of a system's predictions twice, or those of some people, as another visit."""
    for seed in range(5):
        rewrite(
            runs,
            label,
            lambda table: pd.concat(
                [table, table if people is None else table[table.subject.isin(people)]]
            ),
            task,
            seed,
        )


@pytest.mark.parametrize("task", ["af", "rv"])
def test_comparisons_and_calibration_count_people(tmp_path, task):
    for label, signal in (("supervised", 0.8), ("mmcl", 1.0)):
        handmade.plant(tmp_path, label, task, signal=signal)
    before = seen(tmp_path)
    once = before.contrast("mmcl", "supervised", task)
    calibrated, bins = before.calibration(), before.reliability("mmcl", "af")
    for label in ("supervised", "mmcl"):
        came_again(tmp_path, label, task)
    found = seen(tmp_path)
    twice = found.contrast("mmcl", "supervised", task)
    assert (once.n, once.people, twice.n, twice.people) == (400, 400, 800, 400)
    assert vars(twice.effect) == pytest.approx(vars(once.effect))
    assert 0.001 < once.effect.p < 1
    for line, again in zip(calibrated, found.calibration(), strict=True):
        for name in ("intercept", "slope"):
            first, second = (getattr(x.as_trained, name) for x in (line, again))
            assert (second.low, second.high) == pytest.approx((first.low, first.high), rel=1e-6)
    if bins:
        np.testing.assert_allclose(found.reliability("mmcl", "af")[0].low, bins[0].low)


def test_one_ill_person_with_many_visits_is_too_few(tmp_path):
    handmade.plant(tmp_path, "mmcl", n=100, prevalence=0.01)
    sick = handmade.people(100, prevalence=0.01)[0][
        handmade.people(100, prevalence=0.01)[1][:, 0] == 1
    ]
    came_again(tmp_path, "mmcl", people=sick)
    found = seen(tmp_path)
    assert found.answers("mmcl", "af").targets.sum() == 2
    assert found.score("mmcl", "af") is None
    assert found.calibration() == []


def test_the_interval_of_a_group_is_of_the_mean_over_its_phenotypes(numbers):
    targets, outputs = predictions(numbers, "mmcl", "rv")
    counts = statistics.resamples(400, DRAWS, evidence.RESAMPLING)
    drawn = statistics.bootstrap_pearson(outputs, targets, counts).mean((1, 2))
    found = seen(numbers)
    assert found.interval("mmcl", "rv") == pytest.approx(statistics.interval(drawn))
    rows = store.rows(numbers)
    values = rows[(rows.system == "mmcl") & (rows.metric == "pearson")].sort_values("seed").value
    assert found.score("mmcl", "rv").values == pytest.approx(list(values), abs=1e-6)


def test_what_has_not_run_has_no_interval(diseases):
    assert seen(diseases).score("mae", "af") is None
    assert all(math.isnan(end) for end in seen(diseases).interval("mmcl", "dm"))


# -- contrasts ---------------------------------------------------------------------------------------------------------


def test_the_contrast_is_delongs_on_the_subjects_in_common(diseases):
    targets, mmcl = predictions(diseases, "mmcl")
    _, cmr = predictions(diseases, "cmr-supervised")
    both = np.arange(400) % 10 > 0
    scores = np.concatenate([mmcl[:, both, 0], cmr[..., 0]])
    expected = statistics.auroc_contrast(
        scores, targets[both, 0], [0.2] * 5 + [-0.2] * 5, systems=[0] * 5 + [1] * 5
    )
    found = seen(diseases).contrast("mmcl", "cmr-supervised", "af")
    assert found.n == 360
    assert found.effect == expected
    by_hand = np.mean([roc_auc_score(targets[both, 0], one[both, 0]) for one in mmcl])
    by_hand -= np.mean([roc_auc_score(targets[both, 0], one[:, 0]) for one in cmr])
    assert found.effect.value == pytest.approx(by_hand)


def test_seeds_of_either_side_may_differ_in_number(diseases, tmp_path):
    handmade.plant(tmp_path, "supervised", signal=0.5, seeds=range(2))
    handmade.plant(tmp_path, "mmcl", signal=2.0, seeds=range(3))
    targets, mmcl = predictions(tmp_path, "mmcl")
    _, other = predictions(tmp_path, "supervised")
    aucs = [
        np.mean([roc_auc_score(targets[:, 0], one[:, 0]) for one in side]) for side in (mmcl, other)
    ]
    assert seen(tmp_path, seeds=2).contrast(
        "mmcl", "supervised", "af"
    ).effect.value == pytest.approx(aucs[0] - aucs[1])


def test_phenotypes_are_compared_by_a_paired_bootstrap(numbers):
    targets, ours = predictions(numbers, "mmcl", "rv")
    _, other = predictions(numbers, "supervised", "rv")
    counts = statistics.resamples(400, DRAWS, evidence.RESAMPLING)
    drawn = [
        statistics.bootstrap_pearson(side, targets, counts).mean((1, 2)) for side in (ours, other)
    ]
    known = [np.isfinite(targets[:, i]) for i in range(4)]
    r = [
        np.mean(
            [
                np.corrcoef(one[k, i], targets[k, i])[0, 1]
                for one in side
                for i, k in enumerate(known)
            ]
        )
        for side in (ours, other)
    ]
    there, back = (
        seen(numbers).contrast(*pair, "rv").effect
        for pair in (("mmcl", "supervised"), ("supervised", "mmcl"))
    )
    assert there.value == pytest.approx(r[0] - r[1])
    # Seeds of these runs differ by noise on people alone, which the resamples explain: no more is added.
    spread = (drawn[0] - drawn[1]).std(ddof=1)
    half = scipy.stats.norm.ppf(0.975) * spread
    assert (there.low, there.high) == pytest.approx(
        (there.value - half, there.value + half), abs=0.1 * half
    )
    assert there.p < 1e-6
    assert (back.value, back.low, back.high) == pytest.approx(
        (-there.value, -there.high, -there.low)
    )


def test_a_missing_seed_leaves_no_contrast(tmp_path):
    handmade.plant(tmp_path, "supervised", seeds=range(4))
    handmade.plant(tmp_path, "mmcl")
    found = seen(tmp_path).contrast("mmcl", "supervised", "af")
    assert math.isnan(found.effect.value)
    assert found.reason == "Supervised ViT for AF: 4 of 5 seeds"
    (both,) = [
        c
        for c in seen(tmp_path).verdicts()
        if c.claim.text == "MMCL's ECG outperforms tabular data"
    ]
    assert both.verdict == OPEN
    assert "XGBoost (tabular) for AF: no finished run" in both.reason


def test_answers_that_contradict_each_other_are_not_compared(tmp_path):
    handmade.plant(tmp_path, "supervised")
    handmade.plant(tmp_path, "mmcl")
    for seed in range(5):
        rewrite(
            tmp_path,
            "mmcl",
            lambda table: table.assign(**{"target:af": 1 - table["target:af"]}),
            seed=seed,
        )
    assert "different answers" in seen(tmp_path).contrast("mmcl", "supervised", "af").reason
    rewrite(
        tmp_path,
        "mmcl",
        lambda table: table.assign(**{"target:af": 1 - table["target:af"]}),
        seed=2,
    )
    assert "its seeds were evaluated on different answers" in seen(tmp_path).lack("mmcl", "af")


def test_too_few_subjects_in_common_are_said(tmp_path):
    _, targets = handmade.people()
    sick = targets[:, 0] == 1
    handmade.plant(tmp_path, "supervised", keep=np.arange(400) < 200)
    handmade.plant(tmp_path, "mmcl", keep=(np.arange(400) >= 200) | ((np.arange(400) < 50) & ~sick))
    found = seen(tmp_path).contrast("mmcl", "supervised", "af")
    assert "too few for an interval" in found.reason
    handmade.plant(tmp_path, "mae", keep=np.arange(400) >= 200)
    assert "no test subject in common" in seen(tmp_path).contrast("mae", "supervised", "af").reason


def test_a_tables_comparisons_are_adjusted_together(diseases):
    found = seen(diseases).comparisons(LAYOUTS["table1"])
    assert [(c.contrast.better, c.contrast.worse) for c in found] == [
        ("mmcl", "supervised"),
        ("mmcl", "cmr-supervised"),
    ]
    adjusted = statistics.holm([c.effect.p for c in found])
    assert [c.adjusted for c in found] == pytest.approx(list(adjusted))
    assert max(c.adjusted / c.effect.p for c in found) == pytest.approx(2)


def test_a_contrast_has_one_adjusted_p_whatever_the_table(tmp_path):
    for label, signal in (("supervised", 1.0), ("mae", 1.2), ("mmcl-wo-mdm", 1.2), ("mmcl", 1.4)):
        handmade.plant(tmp_path, label, signal=signal, seeds=range(2), n=200)
        handmade.plant(tmp_path, label, "cad", signal=signal, seeds=range(2), n=200)
    found = seen(tmp_path, seeds=2)
    by_table = [
        {c.contrast: c.adjusted for c in found.comparisons(LAYOUTS[stem])}
        for stem in ("table1", "table2", "table3")
    ]
    assert [len(table) for table in by_table] == [2, 4, 6]
    everywhere = {**by_table[0], **by_table[1], **by_table[2]}
    assert len(everywhere) == 6
    for table in by_table:
        assert {contrast: everywhere[contrast] for contrast in table} == table
    raw = [found.contrast(c.better, c.worse, c.task).effect.p for c in everywhere]
    np.testing.assert_allclose(list(everywhere.values()), multipletests(raw, method="holm")[1])


def test_seeds_that_differ_make_a_comparison_of_methods_less_sure(tmp_path):
    """The same systems, of which the seeds of one tell the ill better or worse."""
    handmade.plant(tmp_path, "supervised", n=3000, signal=1.0)
    handmade.plant(tmp_path, "mmcl", n=3000, signal=1.2)
    steady = seen(tmp_path).contrast("mmcl", "supervised", "af").effect
    for seed, less in enumerate((0.8, 0.4, 0.0, -0.4, -0.8)):

        def shifted(table, less=less):
            logits = scipy.special.logit(table["output:af"]) - less * table["target:af"]
            return table.assign(**{"output:af": scipy.special.expit(logits)})

        rewrite(tmp_path, "mmcl", shifted, seed=seed)
    unsteady = seen(tmp_path).contrast("mmcl", "supervised", "af")
    areas = np.array(seen(tmp_path).score("mmcl", "af").values)
    assert areas.std(ddof=1) > 0.05
    half = scipy.stats.t.ppf(0.975, 4) * areas.std(ddof=1) / 5**0.5
    assert unsteady.effect.high - unsteady.effect.low == pytest.approx(2 * half, rel=0.25)
    assert steady.high - steady.low < 0.5 * half


# -- verdicts ----------------------------------------------------------------------------------------------------------


def compared(value, half, task="af", reason=""):
    """A comparison with a normal interval of that half width."""
    z = abs(value) / (half / scipy.stats.norm.ppf(0.975)) if half else math.inf
    effect = Effect(value, value - half, value + half, 2 * scipy.stats.norm.sf(z))
    contrast = Contrast("mmcl", "mae", task)
    return (
        Comparison(contrast, verdicts.NOTHING, 0, (reason,))
        if reason
        else Comparison(contrast, effect, 100)
    )


MISSING = compared(0, 1, "dm", "MAE for DM: no finished run")


@pytest.mark.parametrize(
    ("found", "margin", "said", "value"),
    [
        ([compared(0.03, 0.02)], 0, HOLDS, 0.03),
        ([compared(0.03, 0.04)], 0, OPEN, 0.03),
        ([compared(-0.03, 0.02)], 0, FAILS, -0.03),
        ([compared(0.03, 0.02), compared(0.5, 0.1, "dm")], 0, HOLDS, 0.03),
        (
            [compared(0.02, 0.01), compared(0.03, 0.04, "dm")],
            0,
            OPEN,
            0.03,
        ),  # less in width, not in value
        ([compared(0.5, 0.1), compared(-0.03, 0.02, "dm")], 0, FAILS, -0.03),
        ([compared(0.5, 0.1), MISSING], 0, OPEN, 0.5),
        ([compared(-0.5, 0.1), MISSING], 0, FAILS, -0.5),  # what is missing could not save it
        ([MISSING], 0, OPEN, math.nan),
        ([compared(-0.005, 0.004)], 0.01, HOLDS, -0.005),
        ([compared(-0.005, 0.006)], 0.01, OPEN, -0.005),
        ([compared(-0.03, 0.01)], 0.01, FAILS, -0.03),
        ([compared(0.0, 0.0)], 0, OPEN, 0.0),
        ([], 0, OPEN, math.nan),
    ],
)
def test_the_rule_of_verdicts(found, margin, said, value):
    verdict = verdict_of(Claim("V-A", "…", tuple(c.contrast for c in found), margin), found)
    assert verdict.verdict == said
    assert verdict.value == pytest.approx(value, nan_ok=True)
    assert verdict.reason


def test_one_failure_among_many_has_to_stand_holms_adjustment():
    weak = compared(-0.0102, 0.01)  # its own interval excludes 0: p = 0.046
    assert verdict_of(Claim("", "", (weak.contrast,)), [weak]).verdict == FAILS
    others = [compared(0.001, 0.01, task) for task in ("cad", "dm")]
    found = verdict_of(Claim("", "", tuple(c.contrast for c in (weak, *others))), [weak, *others])
    assert found.verdict == OPEN
    assert "3 of 3" in found.reason
    strong = compared(-0.05, 0.01)
    failed = verdict_of(
        Claim("", "", tuple(c.contrast for c in (strong, *others))), [strong, *others]
    )
    assert failed.verdict == FAILS
    assert failed.p == pytest.approx(3 * strong.effect.p)


def test_the_numbers_shown_are_those_of_one_contrast_and_it_is_named():
    sure, unsure = compared(0.02, 0.001, "cad"), compared(0.03, 0.02, "dm")
    found = verdict_of(Claim("", "", (sure.contrast, unsure.contrast)), [sure, unsure])
    assert (found.value, found.low, found.high, found.p) == tuple(vars(unsure.effect).values())
    assert found.reason == "all 2 intervals are above 0. Shown: DM"
    assert found.metric == "auroc"


def test_p_of_a_margin_is_against_the_margin():
    found = verdict_of(
        Claim("", "", (Contrast("mmcl", "mae", "af"),), 0.01), [compared(-0.005, 0.004)]
    )
    z = 0.005 / (0.004 / scipy.stats.norm.ppf(0.975))
    assert found.p == pytest.approx(2 * scipy.stats.norm.sf(z))
    assert "−1 point" in found.reason


def test_planted_differences_are_found_and_equal_systems_are_not_told_apart(tmp_path):
    for system, signal in (("supervised", 1.0), ("mmcl", 2.0), ("mae", 2.0)):
        handmade.plant(tmp_path, system, signal=signal, n=2000)
    claims = [
        Claim("", "", (Contrast(better, worse, "af"),))
        for better, worse in (("mmcl", "supervised"), ("mmcl", "mae"), ("supervised", "mmcl"))
    ]
    found = seen(tmp_path).verdicts(claims)
    assert [one.verdict for one in found] == [HOLDS, OPEN, FAILS]
    assert found[0].low > 0 > found[2].high


# -- what a reviewer asks for --------------------------------------------------------------------------------------------


def test_phenotypes_one_by_one_and_both_means(numbers):
    found = seen(numbers)
    lines = found.phenotypes(["supervised", "mmcl"])
    assert [line.name for line in lines] == list(tasks.TASKS["rv"].columns)
    rows = store.rows(numbers)
    values = (
        rows[(rows.system == "mmcl") & (rows.metric == "pearson:RVESV")].sort_values("seed").value
    )
    score = lines[1].scores["mmcl"]
    assert score.values == pytest.approx(list(values), abs=1e-6)
    assert score.low < score.mean < score.high
    targets, _ = predictions(numbers, "mmcl", "rv")
    assert score.n == np.isfinite(targets[:, 1]).sum() < 400
    plain, fisher = found.means(["mmcl"])
    each = np.array([line.scores["mmcl"].values for line in lines])
    assert plain.scores["mmcl"].values == pytest.approx(list(each.mean(0)))
    assert fisher.scores["mmcl"].values == pytest.approx(list(np.tanh(np.arctanh(each).mean(0))))


def test_a_constant_answer_has_r_0_and_not_no_interval(numbers, tmp_path):
    handmade.plant(tmp_path, "mmcl", "rv", seeds=(0,))
    rewrite(tmp_path, "mmcl", lambda table: table.assign(**{"output:RVEDV": 1.0}), "rv")
    score = seen(tmp_path).phenotypes(["mmcl"])[0].scores["mmcl"]
    assert (score.mean, score.low, score.high) == (0, 0, 0)
    low, high = seen(tmp_path).interval("mmcl", "rv")
    assert low < high


def test_average_precision_agrees_with_the_rows(diseases):
    (found,) = [line for line in seen(diseases).secondary() if line.system == "mmcl"]
    rows = store.rows(diseases)
    values = rows[(rows.system == "mmcl") & (rows.metric == "auprc")].sort_values("seed").value
    assert found.score.values == pytest.approx(list(values), abs=1e-6)
    assert found.score.low < found.score.mean < found.score.high
    assert found.prevalence == pytest.approx(0.2)


def test_prior_correction_moves_the_intercept_and_keeps_the_slope(diseases):
    found = {line.system: line for line in seen(diseases).calibration()}["mmcl"]
    shift = math.log(0.2 / 0.8) - math.log(0.5 / 0.5)
    assert found.prior_corrected.slope.value == pytest.approx(
        found.as_trained.slope.value, rel=1e-4
    )
    assert found.prior_corrected.intercept.value == pytest.approx(
        found.as_trained.intercept.value - shift, abs=1e-4
    )
    assert abs(found.prior_corrected.intercept.value) < abs(found.as_trained.intercept.value)
    assert found.prior_corrected.brier < found.as_trained.brier
    targets, outputs = predictions(diseases, "mmcl")
    single = [statistics.calibration(one[:, 0], targets[:, 0]).slope.value for one in outputs]
    assert [c.slope.value for c in found.single] == pytest.approx(single)


def test_runs_that_do_not_say_their_prevalence_are_not_corrected(tmp_path):
    handmade.plant(tmp_path, "mmcl", trained=None)
    found = seen(tmp_path)
    (line,) = found.calibration()
    assert line.prior_corrected is None
    assert math.isnan(line.population)
    before, after = found.reliability("mmcl", "af")
    assert before.n.sum() == 400
    assert after is None
    assert found.reliability("mae", "af") is None


def test_reliability_has_the_same_subjects_before_and_after(diseases):
    before, after = seen(diseases).reliability("mmcl", "af")
    assert list(before.n) == list(after.n)
    np.testing.assert_allclose(before.observed, after.observed)
    assert (after.predicted < before.predicted).all()


def test_subgroups_are_scored_on_their_own_subjects(diseases):
    age = np.linspace(45, 80, 400)
    sex = (np.arange(400) % 2).astype(float)
    age[0], sex[1] = np.nan, np.nan
    index = pd.DataFrame({"subject": [f"p{i:05d}" for i in range(400)], "age": age, "sex": sex})
    found = {
        (group.task, group.name): group.scores
        for group in seen(diseases).subgroups(index.sample(frac=1))
    }
    assert {task for task, _ in found} == {"af"}
    targets, outputs = predictions(diseases, "mmcl")
    men = sex == 1
    score = found["af", "men"]["mmcl"]
    assert score.values == pytest.approx(
        [roc_auc_score(targets[men, 0], one[men, 0]) for one in outputs]
    )
    assert (score.n, score.positives) == (199, int(targets[men].sum()))
    by_age = [
        found["af", name]["mmcl"].n
        for name in ("below 55 years", "55 to 64 years", "65 years and above")
    ]
    assert by_age == [
        int(((age >= low) & (age < high)).sum()) for low, high in ((0, 55), (55, 65), (65, 99))
    ]
    few = index.assign(age=np.where(np.arange(400) < 3, 40.0, 70.0))
    found = {group.name: group.scores for group in seen(diseases).subgroups(few)}
    assert found["below 55 years"] == {"mmcl": None, "supervised": None}


# -- figures -----------------------------------------------------------------------------------------------------------


def test_points_of_figure_5_have_an_interval_over_seeds_and_say_what_they_lack(tmp_path):
    handmade.plant(tmp_path, "mmcl")
    handmade.plant(tmp_path, "mmcl", label_fraction=0.1)
    handmade.plant(tmp_path, "supervised", label_fraction=0.01, seeds=range(3))
    handmade.plant(tmp_path, "cmr-supervised", label_fraction=0.1)
    found = seen(tmp_path).low_label()
    assert [(p.system, p.label_fraction, p.n_train, p.lack) for p in found] == [
        ("supervised", 0.01, 10, "3 of 5 seeds"),
        ("mmcl", 1.0, 1000, ""),
        ("mmcl", 0.1, 100, ""),
    ]
    values = np.array(found[2].values)
    ends = scipy.stats.t.interval(0.95, 4, values.mean(), scipy.stats.sem(values))
    assert (found[2].low, found[2].high) == pytest.approx(ends)


def test_panels_of_figure_4_come_in_the_stated_order(tmp_path):
    for task in ("lv", "rv", "wt", "err"):
        handmade.plant(tmp_path, "mmcl", task, seeds=(0, 1), n=60)
    found = seen(tmp_path).scatter("mmcl")
    assert len(found) == 20
    names = [panel.name for panel in found]
    assert names[:10] == list(tasks.PHENOTYPES[:10])
    assert names[10:12] == ["WT_Global", "Err_Global"]
    assert names[12:] == [f"WT_AHA_{i}" for i in range(1, 9)]
    targets, outputs = predictions(tmp_path, "mmcl", "lv")
    known = np.isfinite(targets[:, 0])
    np.testing.assert_allclose(found[0].measured, targets[known, 0])
    np.testing.assert_allclose(found[0].predicted, outputs[:, known, 0].mean(0))
    r = [np.corrcoef(one[known, 0], targets[known, 0])[0, 1] for one in outputs]
    assert found[0].r == pytest.approx(np.mean(r))
    assert (found[0].name, found[0].unit) == ("LVEDV", "mL")
    assert seen(tmp_path).scatter("mae") == []


def test_each_file_is_read_once(diseases, monkeypatch):
    read = []
    ours = evaluation_runs.read
    monkeypatch.setattr(
        evaluation_runs, "read", lambda *given: read.append(given[1].names) or ours(*given)
    )
    found = seen(diseases)
    for _ in range(2):
        found.comparisons(LAYOUTS["table1"])
        found.calibration()
        found.secondary()
    named = [names for names in read if names]
    assert len(named) == len(set(named)) == 3
