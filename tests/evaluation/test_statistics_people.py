"""The person as the unit of analysis, and seeds that are drawn too: against formulas written out from the papers, published
numbers and simulations.
"""

import numpy as np
import pytest
from scipy import special, stats
from statsmodels.stats.proportion import proportion_confint

from ecgcmr.errors import InputError
from ecgcmr.evaluation import statistics
from ecgcmr.evaluation.statistics import bootstrap, persons

Z = 1.959963984540054


def visits(people=60, most=4, members=3, seed=0):
    """(scores (m, n), labels (n,), whose (n,)): unequal numbers of visits; some people are ill at some visits only."""
    rng = np.random.default_rng(seed)
    numbers = rng.integers(1, most + 1, people)
    whose = np.repeat(np.arange(people), numbers)
    ill = (rng.random(people) < 0.4)[whose]
    labels = (ill & (rng.random(len(whose)) < 0.7)).astype(float)
    common = rng.normal(size=people)[whose]
    own = rng.normal(size=(members, people))[:, whose]
    return labels + common + own + 0.5 * rng.normal(size=(members, len(whose))), labels, whose


def correlated(people, each, rng, members=2, person=1.0):
    """Scores of members that are equally good, each person's visits alike but for a little, and labels."""
    whose = np.repeat(np.arange(people), each)
    labels = (whose < people // 6).astype(float)
    own = person * rng.normal(size=(members, people))[:, whose]
    return labels + own + 0.4 * rng.normal(size=(members, len(whose))), labels, whose


def obuchowski(scores, labels, whose):
    """Areas and their covariance, by Obuchowski 1997, equations 4 to 8, one pair of rows after the other."""
    ill, well = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)

    def won(x, y):
        return 1.0 if x > y else 0.5 if x == y else 0.0

    members = range(len(scores))
    v10 = [{i: np.mean([won(row[i], row[j]) for j in well]) for i in ill} for row in scores]
    v01 = [{j: np.mean([won(row[i], row[j]) for i in ill]) for j in well} for row in scores]
    area = [np.mean(list(v10[r].values())) for r in members]
    clusters = sorted(set(whose))
    m, n = len(ill), len(well)
    of = {
        c: ([i for i in ill if whose[i] == c], [j for j in well if whose[j] == c]) for c in clusters
    }
    i10 = sum(bool(of[c][0]) for c in clusters)
    i01 = sum(bool(of[c][1]) for c in clusters)
    i = len(clusters)
    covariance = np.zeros((len(scores), len(scores)))
    for r in members:
        for s in members:
            d10 = [
                [sum(v10[k][x] for x in of[c][0]) - len(of[c][0]) * area[k] for c in clusters]
                for k in (r, s)
            ]
            d01 = [
                [sum(v01[k][x] for x in of[c][1]) - len(of[c][1]) * area[k] for c in clusters]
                for k in (r, s)
            ]
            s10 = i10 / ((i10 - 1) * m) * np.dot(*d10)
            s01 = i01 / ((i01 - 1) * n) * np.dot(*d01)
            s11 = i / (i - 1) * np.dot(d10[0], d01[1])
            s11_back = i / (i - 1) * np.dot(d10[1], d01[0])
            covariance[r, s] = s10 / m + s01 / n + s11 / (m * n) + s11_back / (m * n)
    return area, covariance


# -- AUROC


@pytest.mark.parametrize("ties", [False, True])
def test_delong_of_visits_is_obuchowskis(ties):
    scores, labels, whose = visits(people=25)
    scores = scores.round(0) if ties else scores
    areas, covariance = statistics.delong(scores, labels, people=whose)
    expected_areas, expected = obuchowski(scores, labels, whose)
    np.testing.assert_allclose(areas, expected_areas, atol=1e-13)
    np.testing.assert_allclose(covariance, expected, atol=1e-15)


def test_rows_of_different_people_are_independent_rows_whatever_the_people_are_called():
    scores, labels, whose = visits()
    names = np.array([f"p{i}" for i in np.random.default_rng(1).permutation(len(labels))], object)
    plain = statistics.delong(scores, labels)
    np.testing.assert_allclose(
        statistics.delong(scores, labels, people=names)[1], plain[1], rtol=1e-12
    )
    named = np.array(["b", "a", "zz"], object)[whose % 3] + whose.astype(str).astype(object)
    by_name = statistics.delong(scores, labels, people=named)[1]
    np.testing.assert_allclose(
        by_name, statistics.delong(scores, labels, people=whose)[1], rtol=1e-12
    )


@pytest.mark.parametrize("times", [2, 5])
def test_the_same_visits_again_are_no_more_evidence(times):
    scores, labels, whose = visits(most=1, people=80)
    again = {"people": np.tile(whose, times)}
    more, twice = np.tile(scores, times), np.tile(labels, times)
    weights = [1, -0.5, -0.5]
    for once, repeated in (
        (
            statistics.auroc_contrast(scores, labels, weights),
            statistics.auroc_contrast(more, twice, weights, **again),
        ),
        (
            statistics.auroc_interval(scores, labels),
            statistics.auroc_interval(more, twice, **again),
        ),
    ):
        assert vars(repeated) == pytest.approx(vars(once), nan_ok=True)
    chance = special.expit(scores[0])
    once, repeated = (
        statistics.reliability(chance, labels),
        statistics.reliability(np.tile(chance, times), twice, **again),
    )
    np.testing.assert_allclose(repeated.low, once.low)
    np.testing.assert_allclose(repeated.high, once.high)
    once, repeated = (
        statistics.calibration(chance, labels),
        statistics.calibration(np.tile(chance, times), twice, **again),
    )
    for name in ("intercept", "slope"):
        a, b = getattr(once, name), getattr(repeated, name)
        assert b.value == pytest.approx(a.value)
        assert (b.low, b.high) == pytest.approx((a.low, a.high))
    residuals = scores[0]
    assert statistics.conformal(
        np.tile(residuals, times), 0.9, again["people"]
    ) == statistics.conformal(residuals, 0.9)
    counts, repeated_counts = (
        statistics.resamples_of_people(people, 20, 0, of)
        for people, of in ((whose, labels), (again["people"], twice))
    )
    np.testing.assert_array_equal(np.tile(counts, times), repeated_counts)


def test_visits_are_no_people_in_delongs_test():
    """Systems that are equally good, five visits a person: of independent rows it would find a difference in a third."""
    rng, p = np.random.default_rng(2), {"by person": [], "as rows": []}
    for _ in range(250):
        scores, labels, whose = correlated(150, 5, rng)
        p["by person"].append(statistics.auroc_contrast(scores, labels, [1, -1], people=whose).p)
        p["as rows"].append(statistics.auroc_contrast(scores, labels, [1, -1]).p)
    type_1 = {unit: np.mean(np.array(values) < 0.05) for unit, values in p.items()}
    assert type_1["by person"] == pytest.approx(0.05, abs=0.03)
    assert type_1["as rows"] > 0.2


@pytest.mark.parametrize(("positives", "truth"), [(5, 0.7), (5, 0.94), (10, 0.8), (20, 0.94)])
def test_the_interval_of_an_auroc_covers_with_few_positives(positives, truth):
    rng, inside, plain = np.random.default_rng(positives), [], []
    labels = np.repeat([1.0, 0.0], [positives, 300])
    for _ in range(250):
        scores = rng.normal(size=(1, len(labels))) + 2**0.5 * special.ndtri(truth) * labels
        ours = statistics.auroc_interval(scores, labels)
        inside.append(ours.low <= truth <= ours.high)
        wald = statistics.auroc_contrast(scores, labels, [1])
        plain.append(wald.low <= truth <= wald.high)
    assert np.mean(inside) > 0.93
    assert np.mean(plain) < np.mean(inside)


def test_of_many_positives_the_interval_is_delongs_on_the_logit_scale():
    scores, labels, whose = visits(people=4000, members=5)
    area, covariance = (x.mean() for x in statistics.delong(scores, labels, people=whose))
    half = Z * covariance**0.5 / (area * (1 - area))
    expected = special.expit(special.logit(area) + np.array([-half, half]))
    ours = statistics.auroc_interval(scores, labels, people=whose)
    assert ours.value == pytest.approx(area)
    assert (ours.low, ours.high) == pytest.approx(expected, abs=2e-4)
    assert np.isnan(ours.p)


def test_an_auroc_of_one_has_wilsons_interval_of_the_people_of_the_rarer_class():
    labels = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0])
    whose = np.array([0, 0, 1, 2, 3, 4, 5, 6, 7])
    found = statistics.auroc_interval([labels], labels, people=whose)
    assert (found.low, found.high) == pytest.approx(proportion_confint(3, 3, method="wilson"))
    found = statistics.auroc_interval([-labels], labels, people=whose)
    assert (found.low, found.high) == pytest.approx(proportion_confint(0, 3, method="wilson"))


def test_one_ill_person_shows_no_spread_however_often_she_came():
    scores, labels = [[0.1, 0.9, 0.8, 0.3, 0.2]], [0, 1, 1, 0, 0]
    assert np.isnan(statistics.delong(scores, labels, people=[0, 1, 1, 2, 3])[1]).all()
    assert np.isnan(statistics.auroc_interval(scores, labels, people=[0, 1, 1, 2, 3]).low)
    assert not np.isnan(statistics.auroc_interval(scores, labels).low)
    bad = [[0.1, np.nan, 0.8, 0.3, 0.2]]
    assert np.isnan(statistics.auroc_interval(bad, labels).value)


# -- seeds


def seeded(rng, people=200, seeds=5, spread=0.0, systems=2):
    """Scores of the seeds of systems that are equally good; seeds differ by `spread` in how well they tell the ill."""
    labels = (np.arange(people) < people // 4).astype(float)
    common = rng.normal(size=people)
    own = 0.5 * rng.normal(size=(systems, people)).repeat(seeds, 0)
    separation = 1 + spread * rng.normal(size=(systems * seeds, 1))
    return separation * labels + common + own + 0.5 * rng.normal(
        size=(systems * seeds, people)
    ), labels


def test_the_variance_of_a_method_is_that_of_people_and_that_of_seeds():
    """Obuchowski & Rockette 1995 with seeds for readers: s² estimates σ²_seed + σ²_error − Cov, each from S."""
    scores, labels = seeded(np.random.default_rng(0), spread=0.6)
    scores, systems = scores[:8], np.repeat(["a", "b"], [5, 3])  # of unequal number
    weights = np.repeat([1 / 5, -1 / 3], [5, 3])
    areas, s = statistics.delong(scores, labels)
    parts, uncertain = [], []
    for members in (slice(0, 5), slice(5, 8)):
        block, k = s[members, members], len(areas[members])
        covariance = (block.sum() - np.trace(block)) / (k * (k - 1))
        spread = areas[members].var(ddof=1)
        parts.append(max(0, spread - (np.trace(block) / k - covariance)) / k)
        uncertain.append((spread / k) ** 2 / (k - 1))  # s² is what is estimated, Hillis 2007
    assert min(parts) > 0
    positives = int(labels.sum())
    hit, miss = scores[:, labels == 1], scores[:, labels == 0]
    mean = (weights[:, None, None] * (hit[:, :, None] > miss[:, None])).sum(0)
    of_class = (
        mean.mean(1).var(ddof=1) / positives,
        mean.mean(0).var(ddof=1) / (len(labels) - positives),
    )
    assert weights @ s @ weights == pytest.approx(sum(of_class))
    uncertain += [of_class[0] ** 2 / (positives - 1), of_class[1] ** 2 / (200 - positives - 1)]
    variance = sum(parts) + sum(of_class)
    freedom = variance**2 / sum(uncertain)
    found = statistics.auroc_contrast(scores, labels, weights, systems=systems)
    assert found.value == pytest.approx(weights @ areas)
    assert found.p == pytest.approx(
        2 * stats.t.sf(abs(found.value) / variance**0.5, freedom), rel=1e-9
    )
    assert (found.high - found.low) / 2 == pytest.approx(
        stats.t.ppf(0.975, freedom) * variance**0.5, rel=1e-9
    )


def test_seeds_that_differ_as_people_explain_add_little_and_one_seed_adds_nothing():
    scores, labels = seeded(np.random.default_rng(1))
    weights, systems = np.repeat([0.2, -0.2], 5), np.repeat([0, 1], 5)
    given, drawn = (
        statistics.auroc_contrast(scores, labels, weights, systems=of) for of in (None, systems)
    )
    assert drawn.high - drawn.low == pytest.approx(given.high - given.low, rel=0.1)
    alone = statistics.auroc_contrast(scores[:2], labels, [1, -1], systems=["a", "b"])
    plain = statistics.auroc_contrast(scores[:2], labels, [1, -1])
    assert alone.high - alone.low == pytest.approx(plain.high - plain.low, rel=0.05)


def test_identical_seeds_do_not_differ():
    scores, labels = seeded(np.random.default_rng(2))
    same = np.repeat(scores[:1], 10, 0)
    found = statistics.auroc_contrast(
        same, labels, np.repeat([0.2, -0.2], 5), systems=np.repeat([0, 1], 5)
    )
    assert (found.value, found.low, found.high, found.p) == pytest.approx((0, 0, 0, 1), abs=1e-12)


def test_a_claim_about_methods_is_level_where_seeds_differ():
    rng, weights, systems = (
        np.random.default_rng(3),
        np.repeat([0.2, -0.2], 5),
        np.repeat([0, 1], 5),
    )
    p = {"given": [], "drawn": []}
    for _ in range(250):
        scores, labels = seeded(rng, spread=0.3)
        p["given"].append(statistics.auroc_contrast(scores, labels, weights).p)
        p["drawn"].append(statistics.auroc_contrast(scores, labels, weights, systems=systems).p)
    type_1 = {seeds: np.mean(np.array(values) < 0.05) for seeds, values in p.items()}
    assert type_1["drawn"] == pytest.approx(0.05, abs=0.03)
    assert type_1["given"] > 0.1


def test_a_bootstrapped_contrast_of_methods_is_that_of_its_covariance():
    scores, labels = seeded(np.random.default_rng(4), spread=0.6)
    weights, systems = np.repeat([0.2, -0.2], 5), np.repeat([0, 1], 5)
    areas, covariance = statistics.delong(scores, labels)
    drawn = np.random.default_rng(0).multivariate_normal(areas, covariance, 4000)
    found = statistics.bootstrap_contrast(areas, drawn, weights, systems)
    expected = statistics.auroc_contrast(scores, labels, weights, systems=systems)
    assert found.value == pytest.approx(expected.value)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.004)
    assert found.p == pytest.approx(expected.p, abs=0.02)
    drawn[::2, 3] = np.nan
    assert not np.isnan(statistics.bootstrap_contrast(areas, drawn, weights, systems).p)
    assert np.isnan(statistics.bootstrap_contrast(areas, drawn * np.nan, weights, systems).p)


# -- probabilities


def test_the_design_effect_compares_sums_over_people_with_independent_rows():
    whose = np.array([0, 0, 1, 1, 1, 2, 3, 3, 4, 5, 5, 5])
    value = np.random.default_rng(0).normal(size=12) + 1
    by_hand = sum(value[whose == person].sum() ** 2 for person in range(6)) / (value**2).sum()
    assert by_hand > 1
    assert persons.design_effect(value[None], whose) == pytest.approx(by_hand)
    both = np.stack([value, value**2])
    np.testing.assert_array_equal(persons.design_effect(both, np.arange(12)), np.eye(2))
    again = persons.design_effect(np.tile(both, 3), np.tile(np.arange(12), 3))
    np.testing.assert_allclose(again, 3 * np.eye(2), atol=1e-12)
    apart = np.array([[1.0, -1.0, 2.0, -2.0]])
    assert persons.design_effect(apart, np.array([0, 0, 1, 1])) == 1, "never below as many people"


def test_the_errors_of_a_calibration_are_those_of_people():
    """Near the sandwich of Liang & Zeger 1986, I⁻¹ B I⁻¹ with the people's scores in B, which holds for a right model."""
    rng = np.random.default_rng(5)
    whose = np.repeat(np.arange(3000), rng.integers(1, 4, 3000))
    logits = rng.normal(size=3000)[whose] + 0.2 * rng.normal(size=len(whose))
    chance = special.expit(0.7 * logits - 1)
    labels = (special.ndtr(rng.normal(size=3000))[whose] < chance).astype(float)
    found = statistics.recalibration(logits, labels, people=whose)
    design = np.column_stack((np.ones(len(whose)), logits))
    fitted = special.expit(design @ [found.intercept, found.slope])
    inverse = np.linalg.inv((design.T * fitted * (1 - fitted)) @ design)
    scores = design * (labels - fitted)[:, None]
    by_person = np.stack([np.bincount(whose, column) for column in scores.T])
    sandwich = inverse @ by_person @ by_person.T @ inverse
    np.testing.assert_allclose(found.covariance, sandwich, rtol=0.1)
    plain = statistics.recalibration(logits, labels).covariance
    assert (np.diag(found.covariance) > 1.5 * np.diag(plain)).all()


def test_intervals_of_calibration_hold_for_people_of_many_visits():
    rng, inside = np.random.default_rng(6), {"by person": [], "as rows": []}
    whose = np.repeat(np.arange(250), 4)
    for _ in range(120):
        logits = -1 + rng.normal(size=250)[whose]
        labels = (special.ndtr(rng.normal(size=250))[whose] < special.expit(logits)).astype(float)
        for unit, people in (("by person", whose), ("as rows", None)):
            found = statistics.calibration(special.expit(logits), labels, people=people)
            inside[unit].append([found.intercept.p > 0.05, found.slope.p > 0.05])
    assert (np.mean(inside["by person"], 0) > 0.91).all()
    assert (np.mean(inside["as rows"], 0) < 0.8).all()


def test_a_bin_counts_as_many_trials_as_its_share_varies_like():
    whose = np.repeat(np.arange(40), 3)
    labels = np.repeat(np.arange(40) % 4 == 0, 3).astype(float)
    found = statistics.reliability(np.full(120, 0.3), labels, people=whose)
    assert found.n.tolist() == [120]
    assert (found.low[0], found.high[0]) == pytest.approx(
        proportion_confint(10, 40, method="wilson")
    )
    nobody = statistics.reliability(np.full(120, 0.3), 0 * labels, people=whose)
    assert nobody.high[0] == pytest.approx(proportion_confint(0, 40, method="wilson")[1])
    apart = np.tile([1.0, 0.0, 0.0], 40)  # each person ill once: no less than independent rows
    found = statistics.reliability(np.full(120, 0.3), apart, people=whose)
    assert (found.low[0], found.high[0]) == pytest.approx(
        proportion_confint(40, 120, method="wilson")
    )


# -- phenotypes


def test_conformal_counts_people_and_each_visit_for_its_share():
    residuals = [1.0, -9.0, 2.0, 3.0, np.nan, 4.0, 5.0]
    whose = ["a", "a", "b", "c", "c", "d", "e"]
    # Shares ½ 1 1 1 1 ½ in the order 1 2 3 4 5 9: of (5 + 1) · level people.
    for level, expected in ((0.25, 2.0), (0.26, 3.0), (0.75, 5.0), (0.8, 9.0), (0.84, np.nan)):
        assert statistics.conformal(residuals, level, whose) == pytest.approx(expected, nan_ok=True)
    assert np.isnan(statistics.conformal([np.nan], 0.5, ["a"]))


def test_conformal_intervals_hold_for_a_visit_of_a_new_person():
    rng, inside = np.random.default_rng(7), []
    whose = np.repeat(np.arange(60), rng.integers(1, 6, 60))
    for _ in range(400):
        size = rng.standard_gamma(2, 61)  # some people are hard to predict at every visit
        radius = statistics.conformal(size[whose] * rng.normal(size=len(whose)), 0.9, whose)
        inside.append(2 * special.ndtr(radius / size[-1]) - 1)
    assert np.mean(inside) == pytest.approx(0.91, abs=0.02)


def test_assured_levels_are_wilks_numbers():
    # Samples that a tolerance limit of 95 % with 95 % confidence needs, by its order: 59, 93, 124 (Wilks 1941).
    for order, n in enumerate((59, 93, 124)):
        assert statistics.assured(n, 0.95, 0.95) == (n - order) / (n + 1)
        assert statistics.assured(n - 1, 0.95, 0.95) > (n - 1 - order) / n
    assert statistics.assured(21, 0.9, 0.9) == 1
    assert statistics.assured(22, 0.9, 0.9) == 22 / 23
    assert statistics.assured(0, 0.9, 0.9) == 1
    for n in (22, 100, 999):
        residuals = np.arange(1.0, n + 1)
        place = statistics.conformal(residuals, statistics.assured(n, 0.9, 0.9))
        assert stats.binom.sf(place - 1, n, 0.9) <= 0.1 < stats.binom.sf(place - 2, n, 0.9)


# -- what cannot be


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: statistics.delong([[1, 2, 3]], [0, 1, 1], people=[1, 2]), r"people \(2,\)"),
        (
            lambda: statistics.auroc_interval([[1, 2, 3]], [0, 1, 1], people=[1]),
            "each of the 3 rows",
        ),
        (lambda: statistics.calibration([0.1, 0.2], [0, 1], people=[1, 2, 3]), r"people \(3,\)"),
        (lambda: statistics.recalibration([0.1, 0.2], [0, 1], people=[1]), r"people \(1,\)"),
        (lambda: statistics.reliability([0.1, 0.2], [0, 1], people=[1]), r"people \(1,\)"),
        (lambda: statistics.conformal([0.1, 0.2], 0.5, [1]), r"people \(1,\)"),
        (
            lambda: statistics.auroc_contrast([[1, 2]], [0, 1], [1], systems=["a", "b"]),
            r"systems \(2,\)",
        ),
    ],
)
def test_people_and_systems_that_do_not_fit_are_refused(ask, message):
    with pytest.raises(InputError, match=message):
        ask()


def test_people_are_drawn_with_all_their_visits():
    whose, labels = np.array(["b", "a", "b", "c", "c", "c"]), [0, 0, 1, 0, 0, 0]
    counts = statistics.resamples_of_people(whose, 200, 0, labels)
    np.testing.assert_array_equal(counts[:, 0], counts[:, 2])
    np.testing.assert_array_equal(counts[:, 3], counts[:, 5])
    np.testing.assert_array_equal(counts[:, 0], 1)  # alone of those with a positive visit
    np.testing.assert_array_equal(counts[:, 1] + counts[:, 3], 2)
    assert bootstrap.resamples_of_people(whose, 5, 0).shape == (5, 6)
