"""Statistics against definitions written out here, scikit-learn, SciPy, statsmodels, MLstatkit and published numbers."""

import numpy as np
import pytest
from MLstatkit import Delong_test
from scipy import special, stats
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score
from statsmodels.genmod.families import Binomial
from statsmodels.genmod.generalized_linear_model import GLM
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from ecgcmr.errors import InputError
from ecgcmr.evaluation import statistics
from ecgcmr.evaluation.statistics import bootstrap as bootstrap_module


def people(n=120, members=3, positives=0.3, ties=False, seed=0):
    """Correlated scores (m, n) of some worth, and labels (n,)."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < positives).astype(float)
    scores = 0.8 * labels + rng.normal(size=n) + 0.7 * rng.normal(size=(members, n))
    return scores.round(0) if ties else scores, labels


def placements(scores, labels):
    """The kernel [x > y] + ½ [x = y] of every positive with every negative, (m, P, N)."""
    hit, miss = scores[:, labels == 1][:, :, None], scores[:, labels == 0][:, None]
    return (hit > miss) + 0.5 * (hit == miss)


def expanded(row):
    """Subjects of a resample, each as often as it was drawn."""
    return np.repeat(np.arange(len(row)), row.astype(int))


@pytest.mark.parametrize("ties", [False, True])
def test_delong_equals_its_definition(ties):
    scores, labels = people(members=4, ties=ties)
    won = placements(scores, labels)
    hits, misses = won.shape[1:]
    expected = np.cov(won.mean(2)) / hits + np.cov(won.mean(1)) / misses
    areas, covariance = statistics.delong(scores, labels)
    np.testing.assert_allclose(areas, [roc_auc_score(labels, row) for row in scores], atol=1e-13)
    np.testing.assert_allclose(covariance, expected, atol=1e-15)


def test_delong_of_a_published_table():
    # Hanley & McNeil 1982, table I: ratings of 109 CT images; area, error and interval as Stata's roctab prints them.
    normal, abnormal = (33, 6, 6, 11, 2), (3, 2, 2, 11, 33)
    scores = np.repeat([*range(5), *range(5)], [*normal, *abnormal])[None]
    labels = np.repeat([0, 1], [sum(normal), sum(abnormal)])
    areas, covariance = statistics.delong(scores, labels)
    assert areas == pytest.approx([0.8932], abs=5e-5)
    assert covariance[0, 0] ** 0.5 == pytest.approx(0.0307, abs=5e-5)
    found = statistics.auroc_contrast(scores, labels, [1])
    assert (found.low, found.high) == pytest.approx((0.83295, 0.95339), abs=5e-6)


@pytest.mark.parametrize("ties", [False, True])
def test_a_contrast_of_two_is_delongs_test(ties):
    scores, labels = people(members=2, ties=ties)
    z, p, ci, _, first, second, _ = Delong_test(labels, scores[0], scores[1])
    found = statistics.auroc_contrast(scores, labels, [1, -1])
    assert found.value == pytest.approx(first - second, abs=1e-12)
    assert found.p == pytest.approx(p, rel=1e-9)
    assert (found.high - found.low) / 2 == pytest.approx(
        1.959963984540054 * abs(found.value / z), rel=1e-9
    )
    alone = statistics.auroc_contrast(scores, labels, [1, 0])
    assert (alone.low, alone.high) == pytest.approx(ci, rel=1e-9)


def test_a_contrast_of_means_over_seeds_has_the_variance_l_s_l():
    scores, labels = people(members=10)
    weights = np.repeat([0.2, -0.2], 5)
    won = placements(scores, labels)
    mean = (weights[:, None, None] * won).sum(0)
    variance = mean.mean(1).var(ddof=1) / mean.shape[0] + mean.mean(0).var(ddof=1) / mean.shape[1]
    found = statistics.auroc_contrast(scores, labels, weights)
    assert found.value == pytest.approx(mean.mean(), abs=1e-12)
    assert found.p == pytest.approx(2 * stats.norm.sf(abs(mean.mean()) / variance**0.5), rel=1e-9)


def test_identical_systems_do_not_differ():
    scores, labels = people(members=5)
    found = statistics.auroc_contrast([*scores, *scores[::-1]], labels, np.repeat([0.2, -0.2], 5))
    assert found.p == 1
    assert found.high == found.low == pytest.approx(0, abs=1e-12)
    all_right, none = labels, np.zeros_like(labels)
    assert statistics.auroc_contrast([all_right, none], labels, [1, -1]) == statistics.Effect(
        0.5, 0.5, 0.5, 0
    )


def test_an_interval_ends_where_the_contrast_ends():
    scores = np.array([[0.1, 0.2, 0.3, 0.35, 0.3, 0.9, 0.8], [9, 8, 7, 6, 5, 4, 3]])
    labels = np.array([0, 0, 0, 0, 1, 1, 1])
    assert statistics.auroc_contrast(scores[:1], labels, [1]).high == 1
    assert statistics.auroc_contrast(scores, labels, [1, -1]).high == 1
    assert statistics.auroc_contrast(scores, labels, [-1, 1]).low == -1


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_diverged_member_does_not_touch_the_others(bad):
    scores, labels = people(members=3)
    counts = statistics.resamples(len(labels), 5, 0, labels)
    areas, covariance = statistics.delong(scores, labels)
    drawn = statistics.bootstrap_auroc(scores, labels, counts)
    scores[1, 7] = bad
    found, found_covariance = statistics.delong(scores, labels)
    np.testing.assert_array_equal(np.isnan(found), [False, True, False])
    np.testing.assert_allclose(found[[0, 2]], areas[[0, 2]])
    np.testing.assert_allclose(found_covariance[::2, ::2], covariance[::2, ::2])
    assert np.isnan(found_covariance[1]).all()
    assert np.isnan(found_covariance[:, 1]).all()
    assert np.isnan(statistics.auroc_contrast(scores, labels, [1, -1, 0]).p)
    assert statistics.auroc_contrast(scores, labels, [1, 0, -1]).p > 0
    for bootstrap in (statistics.bootstrap_auroc, statistics.bootstrap_average_precision):
        again = bootstrap(scores, labels, counts)
        assert np.isnan(again).any(0).tolist() == [False, True, False]
    np.testing.assert_array_equal(
        statistics.bootstrap_auroc(scores, labels, counts)[:, ::2], drawn[:, ::2]
    )


def test_one_positive_shows_no_spread():
    areas, covariance = statistics.delong([[0.1, 0.2, 0.3, 0.25]], [0, 0, 1, 0])
    assert areas == 1
    assert np.isnan(covariance).all()
    assert np.isnan(statistics.auroc_contrast([[0.1, 0.2, 0.3, 0.25]], [0, 0, 1, 0], [1]).p)


def test_delongs_interval_covers():
    # Binormal scores, so that the true area is Φ(δ / √2); every member is a data set of its own.
    rng = np.random.default_rng(3)
    labels = np.repeat([0, 1], [150, 40])
    areas, covariance = statistics.delong(rng.normal(size=(600, 190)) + 1.2 * labels, labels)
    truth = stats.norm.cdf(1.2 / 2**0.5)
    inside = np.abs(areas - truth) < 1.959964 * np.sqrt(np.diag(covariance))
    assert 0.92 < inside.mean() < 0.975
    assert areas.mean() == pytest.approx(truth, abs=0.005)
    assert np.diag(covariance).mean() == pytest.approx(areas.var(), rel=0.2)


def test_delongs_test_is_level_under_the_null():
    rng = np.random.default_rng(5)
    labels = np.repeat([0, 1], [150, 40])
    shared = rng.normal(size=(400, 1, 190)) + labels
    p = [
        statistics.auroc_contrast(pair, labels, [1, -1]).p
        for pair in shared + 0.8 * rng.normal(size=(400, 2, 190))
    ]
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_resamples_draw_everyone_alike_and_keep_strata():
    strata = np.array([0] * 17 + [1] * 3)
    counts = statistics.resamples(20, 2000, 7, strata)
    assert counts.shape == (2000, 20)
    np.testing.assert_array_equal(counts[:, :17].sum(1), 17)
    np.testing.assert_array_equal(counts[:, 17:].sum(1), 3)
    free = statistics.resamples(20, 2000, 7)
    np.testing.assert_array_equal(free.sum(1), 20)
    # A count is binomial(n, 1/n): mean 1, variance 1 − 1/n.
    assert free.mean(0) == pytest.approx(np.ones(20), abs=0.1)
    assert free.var(0) == pytest.approx(np.full(20, 0.95), abs=0.2)
    assert counts[:, 17:].var(0) == pytest.approx(np.full(3, 2 / 3), abs=0.1)
    assert len(np.unique(free, axis=0)) == 2000
    np.testing.assert_array_equal(free, statistics.resamples(20, 2000, 7))
    assert (free != statistics.resamples(20, 2000, 8)).any()


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("chunk", [1, 700, 2**21])
def test_a_bootstrapped_metric_is_that_of_the_expanded_resample(ties, members, chunk, monkeypatch):
    monkeypatch.setattr(bootstrap_module, "CHUNK", chunk)
    scores, labels = people(members=members, ties=ties)
    counts = statistics.resamples(len(labels), 25, 1)
    for bootstrap, reference in (
        (statistics.bootstrap_auroc, roc_auc_score),
        (statistics.bootstrap_average_precision, average_precision_score),
    ):
        expected = [
            [reference(labels[who], row[who]) for row in scores] for who in map(expanded, counts)
        ]
        np.testing.assert_allclose(bootstrap(scores, labels, counts), expected, atol=1e-12)


def test_a_resample_without_positives_is_nan():
    scores, labels, counts = [[0.3, 0.1, 0.2]], [1, 0, 0], [[0, 2, 1], [1, 1, 1], [3, 0, 0]]
    np.testing.assert_array_equal(
        statistics.bootstrap_auroc(scores, labels, counts)[:, 0], [np.nan, 1, np.nan]
    )
    np.testing.assert_array_equal(
        statistics.bootstrap_average_precision(scores, labels, counts)[:, 0], [np.nan, 1, 1]
    )


def test_the_bootstrap_and_delong_agree():
    scores, labels = people(n=600, members=2)
    drawn = statistics.bootstrap_auroc(scores, labels, statistics.resamples(600, 2000, 0, labels))
    np.testing.assert_allclose(np.cov(drawn.T), statistics.delong(scores, labels)[1], rtol=0.12)
    exact = statistics.auroc_contrast(scores, labels, [1, -1])
    resampled = statistics.paired(exact.value, drawn[:, 0] - drawn[:, 1])
    assert (resampled.low, resampled.high) == pytest.approx((exact.low, exact.high), abs=0.004)
    assert resampled.p == pytest.approx(exact.p, abs=0.05)


def test_bootstrapped_pearson_is_that_of_the_expanded_resample():
    rng = np.random.default_rng(4)
    targets = 1e3 + rng.normal(size=(60, 3)) * [1, 10, 1e-3]
    outputs = targets + rng.normal(size=(2, 60, 3)) * [1, 10, 1e-3]
    targets[rng.random((60, 3)) < 0.3] = np.nan
    counts = statistics.resamples(60, 20, 1)
    found = statistics.bootstrap_pearson(outputs, targets, counts)
    assert found.shape == (20, 2, 3)
    for draw, who in enumerate(map(expanded, counts)):
        for e in range(2):
            for k in range(3):
                mine = who[~np.isnan(targets[who, k])]
                expected = np.corrcoef(outputs[e, mine, k], targets[mine, k])[0, 1]
                assert found[draw, e, k] == pytest.approx(expected, abs=1e-9)


def test_an_undefined_r_is_nan():
    targets = np.array([[1.0, 1], [2, 2], [3, np.nan], [4, np.nan]])
    outputs = np.array(
        [[[1.0, 2], [2, 1], [2, 5], [7, 5]], [[0.1, 1]] * 4, [[np.nan, 1]] + [[2, 3]] * 3]
    )
    counts = [[1, 1, 1, 1], [2, 0, 2, 0], [4, 0, 0, 0], [0, 0, 2, 2]]
    found = statistics.bootstrap_pearson(outputs, targets, counts)
    np.testing.assert_array_equal(
        np.isnan(found[:, 0]), [[False, False], [False, True], [True, True], [False, True]]
    )
    assert found[0, 0, 1] == -1
    assert np.isnan(found[:, 1]).all(), "a constant orders nobody"
    assert np.isnan(found[:, 2]).all(), "a member that diverged"


def test_rounding_is_no_correlation():
    rng = np.random.default_rng(0)
    targets = rng.normal(size=(50, 40))
    constant = np.broadcast_to(1e6 + rng.random(40), (1, 50, 40))
    assert np.isnan(
        statistics.bootstrap_pearson(constant, targets, statistics.resamples(50, 3, 0))
    ).all()
    one_subject = 50 * np.eye(50)
    assert np.isnan(
        statistics.bootstrap_pearson(rng.normal(size=(1, 50, 40)), targets, one_subject)
    ).all()
    tiny = statistics.bootstrap_pearson(
        targets[None] * 1e-9, targets, statistics.resamples(50, 3, 0)
    )
    np.testing.assert_allclose(tiny, 1)


@pytest.mark.parametrize(
    "bad", [[np.nan] * 5, [0.1, 0.1, 0.1, np.nan, np.nan], [1.0, np.nan, np.nan, np.nan, np.nan]]
)
def test_a_target_without_spread_is_named(bad):
    targets = np.stack([np.arange(5.0), bad], 1)
    with pytest.raises(InputError, match="target 'LVM'"):
        statistics.bootstrap_pearson(np.ones((1, 5, 2)), targets, np.ones((3, 5)), ["LVEF", "LVM"])


def test_interval_takes_percentiles_of_numbers():
    drawn = np.random.default_rng(0).permutation(np.arange(101.0))
    assert statistics.interval(drawn) == pytest.approx((2.5, 97.5))
    assert statistics.interval(drawn, 0.8) == pytest.approx((10, 90))
    two = np.full((202, 3), np.nan)
    two[::2, 0], two[::2, 1] = drawn, drawn / 100
    low, high = statistics.interval(two)
    np.testing.assert_allclose(low, [2.5, 0.025, np.nan])
    np.testing.assert_allclose(high, [97.5, 0.975, np.nan])


def test_paired_counts_the_draws_beyond_zero():
    drawn = np.array([-0.1] * 3 + [0.0] + [0.1] * 95 + [np.nan] * 7)
    found = statistics.paired(0.09, drawn)
    assert found.p == pytest.approx(2 * (1 + 4) / (1 + 99))
    assert statistics.paired(-0.09, -drawn).p == found.p
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(drawn[:99], (0.025, 0.975))))
    assert statistics.paired(1, np.ones(99)).p == pytest.approx(2 / 100), "never 0"
    assert statistics.paired(0, np.zeros(99)).p == 1
    assert statistics.paired(1e-17, np.full(99, 1e-17)).p == 1, "rounding is no difference"
    assert np.isnan(statistics.paired(np.nan, drawn).p)
    assert np.isnan(statistics.paired(0.1, np.full(5, np.nan)).low)


def test_paired_is_level_under_the_null():
    rng = np.random.default_rng(1)
    counts = statistics.resamples(80, 300, 0)
    differences = rng.normal(size=(400, 80))
    p = [statistics.paired(row.mean(), counts @ row / 80).p for row in differences]
    assert np.mean(np.array(p) < 0.05) == pytest.approx(0.05, abs=0.03)
    assert np.mean(p) == pytest.approx(0.5, abs=0.05)


def test_mean_interval_is_students():
    values = [0.71, 0.74, 0.72, 0.75, 0.73]
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert statistics.mean_interval(values) == pytest.approx(tuple(expected))
    assert statistics.mean_interval([*values, np.nan]) == pytest.approx(tuple(expected))
    expected = stats.t.interval(0.9, 4, np.mean(values), stats.sem(values))
    assert statistics.mean_interval(values, 0.9) == pytest.approx(expected)
    assert np.isnan(statistics.mean_interval([0.7])).all()
    assert np.isnan(statistics.mean_interval([])).all()


def test_holm_equals_statsmodels_and_keeps_order():
    p = np.array([0.01, 0.2, 0.04, 0.03, 0.005, 0.9, 0.03])
    np.testing.assert_allclose(statistics.holm(p), multipletests(p, method="holm")[1])
    with_gaps = np.insert(p, [0, 3, 7], np.nan)
    found = statistics.holm(with_gaps)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(with_gaps))
    np.testing.assert_allclose(found[~np.isnan(found)], statistics.holm(p))
    assert statistics.holm([0.03]) == [0.03]
    assert np.isnan(statistics.holm([np.nan])).all()
    assert len(statistics.holm([])) == 0


@pytest.mark.parametrize("n", [4, 5, 60])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_fisher_interval_equals_scipys(n, level):
    rng = np.random.default_rng(n)
    x = rng.normal(size=n)
    known = stats.pearsonr(x, x + rng.normal(size=n))
    found = statistics.fisher_interval(known.statistic, n, level)
    assert found == pytest.approx(tuple(known.confidence_interval(level)))


def test_fisher_of_extremes():
    assert statistics.fisher_interval(1.0, 10) == (1, 1)
    assert statistics.fisher_interval(-1.0, 10) == (-1, -1)
    assert statistics.fisher_interval(0.5, 3) == (-1, 1)
    assert np.isnan(statistics.fisher_interval(np.nan, 10)).all()


def test_fisher_mean():
    # artanh r = ½ ln((1 + r) / (1 − r)), so that r = 0.6 and 0.8 are ln 2 and ln 3.
    assert statistics.fisher_mean([0.6, 0.8]) == pytest.approx(np.tanh((np.log(2) + np.log(3)) / 2))
    assert statistics.fisher_mean([0.6, np.nan, 0.6]) == pytest.approx(0.6)
    assert statistics.fisher_mean([1, 1]) == pytest.approx(1)
    assert statistics.fisher_mean([1, -1, 0]) == pytest.approx(0)
    assert 0.9 < statistics.fisher_mean([1, 0.0]) < 1
    assert np.isnan(statistics.fisher_mean([np.nan]))
    assert np.isnan(statistics.fisher_mean([]))


def test_prior_correction_is_bayes_rule():
    # A feature with four values; balanced by taking every positive and as many negatives.
    given_positive, given_negative, true = (
        np.array([0.1, 0.2, 0.3, 0.4]),
        np.array([0.4, 0.3, 0.2, 0.1]),
        0.03,
    )
    balanced = given_positive / (given_positive + given_negative)
    population = true * given_positive / (true * given_positive + (1 - true) * given_negative)
    np.testing.assert_allclose(statistics.prior_corrected(balanced, 0.5, true), population)
    np.testing.assert_allclose(statistics.prior_corrected(population, true, 0.5), balanced)
    np.testing.assert_array_equal(
        statistics.prior_corrected([0, 1, np.nan], 0.5, 0.1), [0, 1, np.nan]
    )
    with pytest.raises(InputError, match="prevalence 'true' is 0"):
        statistics.prior_corrected(balanced, 0.5, 0)
    with pytest.raises(InputError, match="not logits"):
        statistics.prior_corrected([-0.3], 0.5, 0.1)


def test_a_model_of_a_balanced_cohort_is_calibrated_by_prior_correction():
    rng = np.random.default_rng(2)
    labels = (rng.random(20_000) < 0.05).astype(float)
    feature = rng.normal(size=20_000) + labels
    balanced = 1 / (
        1 + np.exp(-(feature - 0.5))
    )  # Bayes for two normals at distance 1 and equal shares
    before = statistics.calibration(balanced, labels)
    after = statistics.calibration(statistics.prior_corrected(balanced, 0.5, 0.05), labels)
    assert before.intercept.high < -2
    assert after.intercept.low < 0 < after.intercept.high
    assert after.slope.low < 1 < after.slope.high
    assert after.ece < 0.01 < before.ece
    assert after.brier < before.brier


def predictions(n=400, seed=6):
    rng = np.random.default_rng(seed)
    logits = rng.normal(-1, 1.5, n)
    labels = (rng.random(n) < 1 / (1 + np.exp(-(0.3 + 0.7 * logits)))).astype(float)
    return 1 / (1 + np.exp(-logits)), logits, labels


def test_calibration_equals_statsmodels():
    probability, logits, labels = predictions()
    found = statistics.calibration(probability, labels)
    offset = GLM(labels, np.ones(400), family=Binomial(), offset=logits).fit(tol=1e-14)
    free = GLM(labels, np.column_stack((np.ones(400), logits)), family=Binomial()).fit(tol=1e-14)
    for effect, fit, column, against in (
        (found.intercept, offset, 0, 0),
        (found.slope, free, 1, 1),
    ):
        assert effect.value == pytest.approx(fit.params[column], rel=1e-7)
        assert (effect.low, effect.high) == pytest.approx(tuple(fit.conf_int()[column]), rel=1e-6)
        z = (fit.params[column] - against) / fit.bse[column]
        assert effect.p == pytest.approx(2 * stats.norm.sf(abs(z)), rel=1e-6)
    assert found.brier == pytest.approx(brier_score_loss(labels, probability))


def test_expected_calibration_error_by_hand():
    probability = np.array([0.1] * 4 + [0.4] * 4 + [0.9] * 2)
    labels = np.array([0, 0, 0, 1, 0, 0, 1, 1, 1, 1])
    found = statistics.calibration(probability, labels)
    assert found.ece == pytest.approx(
        (4 * abs(0.25 - 0.1) + 4 * abs(0.5 - 0.4) + 2 * abs(1 - 0.9)) / 10
    )


@pytest.mark.parametrize("shift", [-14, 0, 14])
def test_newton_survives_claims_far_from_the_truth(shift):
    _, logits, labels = predictions()
    probability = 1 / (1 + np.exp(-(logits + shift)))
    probability[:3], labels[:3] = (0, 1, 1), (1, 0, 1)
    clipped = np.clip(probability, 1e-7, 1 - 1e-7)
    offset = np.log(clipped) - np.log1p(-clipped)
    found = statistics.calibration(probability, labels)
    # The intercept that makes the mean prediction the observed share.
    mean = (1 / (1 + np.exp(-(offset + found.intercept.value)))).mean()
    assert mean == pytest.approx(labels.mean(), rel=1e-7)
    free = GLM(labels, np.column_stack((np.ones(400), offset)), family=Binomial()).fit(
        tol=1e-14, maxiter=200
    )
    assert found.slope.value == pytest.approx(free.params[1], rel=1e-5)


def test_calibration_without_a_slope():
    labels = np.array([0, 0, 0, 1, 1])
    for probability in (
        [0.1, 0.2, 0.3, 0.3, 0.9],
        [0.9, 0.8, 0.7, 0.2, 0.1],
        [0, 0, 0, 1, 1],
        [0.2] * 5,
    ):
        found = statistics.calibration(probability, labels)
        assert np.isnan([found.slope.value, found.slope.low, found.slope.high, found.slope.p]).all()
        assert np.isfinite([found.intercept.value, found.intercept.p, found.brier, found.ece]).all()
    nearly = np.random.default_rng(0).choice([np.nextafter(0.2, 0), 0.2, np.nextafter(0.2, 1)], 40)
    assert np.isnan(statistics.calibration(nearly, np.arange(40) % 2).slope.value)
    constant = statistics.calibration([0.2] * 5, labels)
    assert constant.intercept.value == pytest.approx(np.log(0.4 / 0.6) - np.log(0.2 / 0.8))
    diverged = statistics.calibration([0.1, np.nan, 0.2, 0.3, 0.4], labels)
    assert np.isnan(
        [diverged.intercept.value, diverged.slope.value, diverged.brier, diverged.ece]
    ).all()


def test_reliability_bins_hold_equally_many_with_wilsons_interval():
    probability, _, labels = predictions()
    found = statistics.reliability(probability, labels)
    np.testing.assert_array_equal(found.n, 40)
    order = np.argsort(probability).reshape(10, 40)
    np.testing.assert_allclose(found.predicted, probability[order].mean(1))
    np.testing.assert_allclose(found.observed, labels[order].mean(1))
    low, high = proportion_confint(labels[order].sum(1), 40, method="wilson")
    np.testing.assert_allclose((found.low, found.high), (low, high), atol=1e-12)


def test_reliability_of_few_distinct_values():
    found = statistics.reliability([0.1] * 30 + [0.2] * 5 + [0.7], [0] * 30 + [0, 1, 0, 0, 1] + [1])
    assert found.n.tolist() == [30, 5, 1]
    assert found.predicted == pytest.approx([0.1, 0.2, 0.7])
    assert found.observed == pytest.approx([0, 0.4, 1])
    assert (found.low[0], found.high[2]) == (0, 1)
    assert statistics.reliability([0.3, 0.3], [0, 0]).n.tolist() == [2]
    assert statistics.reliability([0.3, 0.4], [0, 1], bins=10).n.sum() == 2
    assert len(statistics.reliability([0.3, np.nan], [0, 1]).n) == 0


@pytest.mark.parametrize("value", [0, 1])
def test_one_class_names_the_label(value):
    labels, scores, counts = np.full(4, value), np.arange(4.0)[None] / 4, np.ones((2, 4))
    for ask in (
        lambda: statistics.delong(scores, labels, "af"),
        lambda: statistics.auroc_contrast(scores, labels, [1], "af"),
        lambda: statistics.bootstrap_auroc(scores, labels, counts, "af"),
        lambda: statistics.bootstrap_average_precision(scores, labels, counts, "af"),
        lambda: statistics.calibration(scores[0], labels, "af"),
    ):
        with pytest.raises(InputError, match=f"label 'af': all 4 rows are {value}"):
            ask()


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: statistics.delong([[1, 2, 3]], [0, 1]), r"scores \(1, 3\)"),
        (lambda: statistics.delong([1, 2], [0, 1]), r"scores \(2,\)"),
        (
            lambda: statistics.delong([[1, 2, 3]], [0, 1, np.nan], "dm"),
            "label 'dm' .* without a label",
        ),
        (lambda: statistics.delong([[1, 2, 3]], [0, 1, 2], "dm"), "label 'dm'"),
        (lambda: statistics.auroc_contrast([[1, 2]], [0, 1], [1, -1]), r"weights \(2,\)"),
        (lambda: statistics.bootstrap_auroc([[1, 2]], [0, 1], [[1, 1, 1]]), r"counts \(1, 3\)"),
        (
            lambda: statistics.bootstrap_pearson(
                np.ones((1, 3, 2)), np.ones((3, 1)), np.ones((1, 3))
            ),
            "outputs",
        ),
        (lambda: statistics.resamples(0, 5, 0), "resamples"),
        (lambda: statistics.resamples(3, 5, 0, [0, 1]), r"strata \(2,\)"),
        (lambda: statistics.calibration([0.1, 1.2], [0, 1]), "not logits"),
        (lambda: statistics.calibration([0.1, 0.2, 0.3], [0, 1]), r"probability \(3,\)"),
        (lambda: statistics.reliability([0.1, 0.2], [0, 1], bins=0), "bins"),
    ],
)
def test_input_that_cannot_be_served_is_told_apart(ask, message):
    with pytest.raises(InputError, match=message):
        ask()


# -- what answers mean


def population(n, seed, slope=2.0, intercept=-3.0, seeds=5, spread=0.0):
    """Logits (seeds, n) of a model that is too sure and too high, and labels whose risk is intercept + slope · its mean."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=n)
    labels = (rng.random(n) < 1 / (1 + np.exp(-(intercept + slope * truth)))).astype(float)
    return truth + spread * rng.normal(size=(seeds, n)), labels, truth


def test_recalibration_is_the_logistic_regression_of_labels_on_logits():
    logits, labels, _ = population(600, 1, seeds=1)
    found = statistics.recalibration(logits[0], labels)
    wanted = GLM(labels, np.column_stack((np.ones(600), logits[0])), family=Binomial()).fit(
        tol=1e-12
    )
    np.testing.assert_allclose([found.intercept, found.slope], wanted.params, rtol=1e-6)
    np.testing.assert_allclose(found.covariance, wanted.cov_params(), rtol=1e-5)
    assert found.rule == "intercept and slope"
    risk, low, high = found.risk(logits)
    assert risk.mean() == pytest.approx(labels.mean())
    predicted = (
        GLM(labels, np.column_stack((np.ones(600), logits[0])), family=Binomial())
        .fit()
        .get_prediction()
    )
    np.testing.assert_allclose(np.column_stack((low, high)), predicted.conf_int(), rtol=1e-4)


def test_a_model_that_ranks_the_wrong_way_gives_everybody_the_prevalence():
    logits, labels, _ = population(300, 2, seeds=1)
    found = statistics.recalibration(-logits[0], labels)
    assert (found.rule, found.slope) == ("prevalence", 0)
    risk, low, high = found.risk(-logits)
    assert np.ptp(risk) < 1e-12
    assert risk[0] == pytest.approx(labels.mean())
    error = 1 / np.sqrt(300 * labels.mean() * (1 - labels.mean()))
    assert (special.logit(high) - special.logit(low))[0] == pytest.approx(
        2 * 1.95996 * error, rel=1e-4
    )
    assert statistics.recalibration(np.zeros(300), labels).rule == "prevalence"


def test_where_no_finite_slope_is_best_the_intercept_alone_is_fitted():
    logits = np.linspace(-1, 1, 40)
    found = statistics.recalibration(logits, (logits > 0.8).astype(float))
    assert (found.rule, found.slope) == ("intercept", 1)
    assert found.risk(logits[None])[0].mean() == pytest.approx(np.mean(logits > 0.8))
    assert found.covariance[1].tolist() == [0, 0]


def test_the_interval_of_a_risk_holds_as_often_as_it_says():
    """Of the risk at the limit of many seeds and many calibrating subjects, over draws of both."""
    at, held = np.array([-1.0, 0.0, 1.0]), []
    for draw in range(300):
        logits, labels, _ = population(800, draw, spread=0.1)
        found = statistics.recalibration(logits.mean(0), labels)
        _, low, high = found.risk(at + 0.1 * np.random.default_rng((9, draw)).normal(size=(5, 3)))
        risk = 1 / (1 + np.exp(3 - 2 * at))
        held.append((low <= risk) & (risk <= high))
    share = np.mean(held, 0)
    assert (share > 0.92).all()
    assert (share < 0.99).all()


def test_seeds_that_disagree_widen_the_interval_and_one_seed_has_no_spread():
    logits, labels, _ = population(400, 3, seeds=1)
    found = statistics.recalibration(logits[0], labels)
    alike = found.risk(np.zeros((5, 1)))
    apart = found.risk(np.array([[-1.0], [-0.5], [0.0], [0.5], [1.0]]))
    assert apart[0] == pytest.approx(alike[0])
    assert (apart[1] < alike[1]).all()
    assert (apart[2] > alike[2]).all()
    assert found.risk(np.zeros((1, 1))) == alike


def test_conformal_is_an_order_statistic():
    residuals = np.array([3.0, -1.0, 2.0, -5.0, 4.0, np.nan, 9.0, -8.0, 7.0, 6.0])
    assert statistics.conformal(residuals, 0.9) == 9.0  # the 9th of nine
    assert statistics.conformal(residuals, 0.5) == 5.0
    assert np.isnan(statistics.conformal(residuals[:8], 0.9))


@pytest.mark.parametrize("draw", ["standard_normal", "standard_cauchy", "standard_exponential"])
def test_conformal_intervals_hold_nine_of_ten_whatever_the_errors(draw):
    rng = np.random.default_rng(5)
    held = []
    for _ in range(400):
        radius = statistics.conformal(getattr(rng, draw)(60), 0.9)
        held.append(np.mean(np.abs(getattr(rng, draw)(500)) <= radius))
    assert 0.89 < np.mean(held) < 0.92
