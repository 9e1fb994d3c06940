"""Metrics against scikit-learn and SciPy, with ties, missing targets, members that diverged, and one class."""

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn import metrics as reference

from ecgcmr.errors import InputError
from ecgcmr.evaluation import metrics

RNG = np.random.default_rng(0)


def labels(n=200):
    return torch.from_numpy((RNG.random(n) < 0.2).astype(np.float64))


@pytest.mark.parametrize("ties", [False, True])
def test_ranking_metrics_equal_sklearn_for_every_member(ties):
    y, scores = labels(), torch.from_numpy(RNG.normal(size=(5, 200)))
    scores = scores.round(decimals=0) if ties else scores
    for mine, theirs in (
        (metrics.auroc, reference.roc_auc_score),
        (metrics.average_precision, reference.average_precision_score),
    ):
        expected = [theirs(y.numpy(), row.numpy()) for row in scores]
        np.testing.assert_allclose(mine(scores, y).numpy(), expected, atol=1e-12)


def test_auroc_closed_cases():
    y = torch.tensor([0, 0, 1, 1])
    assert metrics.auroc(torch.tensor([1.0, 2.0, 3.0, 4.0]), y) == 1
    assert metrics.auroc(torch.tensor([4.0, 3.0, 2.0, 1.0]), y) == 0
    assert metrics.auroc(torch.zeros(4), y) == 0.5


def test_a_diverged_member_does_not_touch_the_others():
    y, scores = labels(), torch.from_numpy(RNG.normal(size=(3, 200)))
    clean = metrics.auroc(scores, y)
    scores[1, 17] = torch.nan
    found = metrics.auroc(scores, y)
    assert found[1].isnan()
    assert torch.equal(found[[0, 2]], clean[[0, 2]])


@pytest.mark.parametrize("value", [0, 1])
def test_one_class_names_the_label(value):
    for metric in (metrics.auroc, metrics.average_precision):
        with pytest.raises(InputError, match=f"label 'af': all 4 rows are {value}"):
            metric(torch.rand(4), torch.full((4,), value), "af")


def test_pearson_ignores_missing_targets():
    outputs, targets = RNG.normal(size=(3, 50, 4)), RNG.normal(size=(50, 4))
    targets[RNG.random((50, 4)) < 0.3] = np.nan
    found = metrics.pearson(torch.from_numpy(outputs), torch.from_numpy(targets))
    for e in range(3):
        for k in range(4):
            known = ~np.isnan(targets[:, k])
            expected = stats.pearsonr(outputs[e, known, k], targets[known, k]).statistic
            assert found[e, k].item() == pytest.approx(expected, abs=1e-12)


def test_pearson_of_a_constant_output_is_zero():
    targets = torch.from_numpy(RNG.normal(size=(50, 1)))
    assert metrics.pearson(torch.full((50, 1), 0.1), targets).item() == 0
    assert metrics.pearson(torch.full((50, 1), 1e6 + 0.1), targets).item() == 0
    assert metrics.pearson(torch.zeros(50, 1), targets).item() == 0


def test_pearson_of_small_numbers_survives():
    targets = torch.from_numpy(RNG.normal(size=(50, 1)))
    assert metrics.pearson(targets * 1e-9, targets).item() == pytest.approx(1)


@pytest.mark.parametrize("bad", [[np.nan] * 5, [1.0] * 5, [1.0, np.nan, np.nan, np.nan, np.nan]])
def test_a_target_without_spread_is_named(bad):
    targets = torch.stack([torch.arange(5.0), torch.tensor(bad)], 1)
    with pytest.raises(InputError, match="target 'LVM'"):
        metrics.pearson(torch.rand(5, 2), targets, ("LVEF", "LVM"))


def test_error_metrics_equal_sklearn():
    outputs, targets = RNG.normal(size=(50, 2)), RNG.normal(size=(50, 2))
    targets[3, 1] = np.nan
    known = ~np.isnan(targets[:, 1])
    found = metrics.rmse(torch.from_numpy(outputs), torch.from_numpy(targets))
    expected = reference.mean_squared_error(targets[known, 1], outputs[known, 1]) ** 0.5
    assert found[1].item() == pytest.approx(expected)
    found = metrics.r2(torch.from_numpy(outputs), torch.from_numpy(targets))
    assert found[1].item() == pytest.approx(
        reference.r2_score(targets[known, 1], outputs[known, 1])
    )


def test_binary_equals_sklearn():
    y, p = labels().numpy(), RNG.random(200)
    found, called = metrics.binary(y, p), p >= 0.5
    assert found["f1"] == pytest.approx(reference.f1_score(y, called))
    assert found["accuracy"] == pytest.approx(reference.accuracy_score(y, called))
    assert found["sensitivity"] == pytest.approx(reference.recall_score(y, called))
    assert found["specificity"] == pytest.approx(reference.recall_score(1 - y, ~called))
    assert found["auroc"] == pytest.approx(reference.roc_auc_score(y, p))


def test_regression_is_the_group_mean():
    outputs, targets = RNG.normal(size=(50, 2)), RNG.normal(size=(50, 2))
    found = metrics.regression(targets, outputs, ("LVEF", "LVM"))
    each = [stats.pearsonr(outputs[:, k], targets[:, k]).statistic for k in range(2)]
    assert found["pearson"] == pytest.approx(np.mean(each))
    assert found["pearson:LVM"] == pytest.approx(each[1])
