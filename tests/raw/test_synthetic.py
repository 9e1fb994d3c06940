"""The synthetic cohort: a pure function of (index, seed), true to published hearts, with a link that can be learnt."""

import pickle
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import binary_opening, label

from ecgcmr import tasks
from ecgcmr.raw.synthetic import cmr, subject
from ecgcmr.raw.synthetic import ecg as synthetic_ecg
from ecgcmr.raw.synthetic import heart as latent_heart

SEED = 2023
# Healthy adults, mean and sd, men and women: Petersen et al. 2017, J Cardiovasc Magn Reson 19:18.
REFERENCE = {
    "edv": ((166, 32), (124, 21)),
    "esv": ((69, 16), (49, 11)),
    "mass": ((103, 21), (70, 13)),
    "ef": ((58, 5), (61, 5)),
    "rv_edv": ((182, 36), (130, 24)),
}
LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")


@pytest.fixture(scope="module")
def hearts():
    return subject.latents(range(24_000), SEED)


@pytest.fixture(scope="module")
def people():
    return [subject.subject(index, SEED) for index in range(60)]


def heart(**changes) -> dict[str, Any]:
    """A normal heart of middle age with the given latents changed."""
    normal = latent_heart.physiology(
        np.zeros((1, latent_heart.NORMAL_COUNT)), np.full((1, latent_heart.UNIFORM_COUNT), 0.5)
    )
    h = {name: value[0] if value.ndim > 1 else float(value[0]) for name, value in normal.items()}
    assert not set(changes) - set(h)
    return {**h, **changes}


def clean_leads(**changes):
    """One QRS-T of that heart on the standard leads without chest, electrode or noise; (12, T) mV, 1 ms steps."""
    h = heart(**changes)
    sources = synthetic_ecg.ventricles(h)
    t = np.arange(-40, 240.0)
    qrs = np.exp(-0.5 * ((t[:, None] - sources.centre) / sources.width) ** 2) @ sources.peak
    eight = synthetic_ecg.DOWER @ qrs.T
    one, two = eight[:2]
    return np.concatenate(
        [eight[:2], [two - one, -(one + two) / 2, one - two / 2, two - one / 2], eight[2:]]
    )


def duration(leads):
    """Milliseconds during which the steepest lead moves faster than a fiftieth of its fastest."""
    speed = np.abs(np.diff(leads, axis=1)).max(axis=0)
    active = np.flatnonzero(speed > 0.02 * speed.max())
    return active[-1] - active[0]


def pool(frame):
    """Pixels of the left ventricle's blood: the bright component at the planned centre."""
    row, column = (round(c) for c in cmr.CENTRE)
    near = slice(row - 6, row + 7), slice(column - 6, column + 7)
    bright = frame > 0.62 * np.percentile(frame[near], 80)
    components, _ = label(
        binary_opening(bright, iterations=2)
    )  # cuts what noise joins to the right ventricle
    return (components == np.bincount(components[near][components[near] > 0]).argmax()).sum()


def test_subject_is_pure_and_independent_of_the_cohort(hearts):
    state = pickle.dumps(np.random.get_state())  # noqa: NPY002  the global generator must not move
    a, b = subject.subject(17, SEED), subject.subject(17, SEED)
    assert pickle.dumps(np.random.get_state()) == state  # noqa: NPY002
    np.testing.assert_array_equal(a.ecg, b.ecg)
    np.testing.assert_array_equal(a.cmr, b.cmr)
    assert (a.phenotypes, a.diseases, a.age, a.phenotyped) == (
        b.phenotypes,
        b.diseases,
        b.age,
        b.phenotyped,
    )
    for name, values in hearts.items():
        np.testing.assert_array_equal(a.latents[name], values[17], err_msg=name)


def test_subjects_and_seeds_differ():
    a, b, c = subject.subject(0, 1), subject.subject(1, 1), subject.subject(0, 2)
    assert len({a.age, b.age, c.age}) == 3
    assert np.abs(a.ecg - c.ecg).max() > 0.1
    assert np.abs(a.cmr - b.cmr).max() > 10


def test_a_subject_has_the_promised_arrays(people):
    for s in people:
        assert (s.ecg.shape, s.ecg.dtype) == ((12, 5000), np.float32)
        assert (s.cmr.shape, s.cmr.dtype) == ((3, *cmr.SHAPE), np.float32)
        assert np.isfinite(s.ecg).all()
        assert np.isfinite(s.cmr).all()
        assert (s.cmr >= 0).all()
        assert 0.3 < np.ptp(s.ecg, axis=1).max() < 8
        assert tuple(s.phenotypes) == tasks.PHENOTYPES
        assert tuple(s.diseases) == tasks.DISEASES
        assert all(
            type(value) is float
            for value in (*s.phenotypes.values(), *s.diseases.values(), s.age, s.height)
        )


def test_limb_leads_obey_einthoven_and_goldberger(people):
    for s in people:
        one, two, three, avr, avl, avf = s.ecg[:6].astype(float)
        assert np.abs(one + three - two).max() < 1e-6
        assert np.abs(avr + avl + avf).max() < 1e-6
        assert np.abs(avl - (one - three) / 2).max() < 1e-6
        steps = s.ecg[[0, 1, *range(6, 12)]].astype(float) / synthetic_ecg.COUNT_MV
        assert np.abs(steps - np.rint(steps)).max() < 1e-3


def test_no_lead_jumps(people):
    # The steepest normal R wave rises at some 0.1 mV per ms.
    assert max(np.abs(np.diff(s.ecg, axis=1)).max() for s in people) < 0.6


def test_prevalences_are_the_papers(hearts):
    n = len(hearts["age"])
    for name, prevalence in tasks.PREVALENCE.items():
        error = np.sqrt(prevalence * (1 - prevalence) / n)
        assert abs(hearts[name].mean() - prevalence) < 3.5 * error, name


def test_healthy_hearts_lie_within_published_ranges(hearts):
    well = (
        (hearts["cad"] + hearts["af"] + hearts["dm"] == 0)
        & (hearts["bmi"] < 30)
        & (hearts["scar"].max(axis=1) == 0)
    )
    for name, by_sex in REFERENCE.items():
        for sex, (mean, sd) in zip((1, 0), by_sex):
            x = hearts[name][well & (hearts["sex"] == sex)]
            assert abs(x.mean() - mean) < 0.25 * sd, (name, sex, x.mean())
            assert 0.65 * sd < x.std() < 1.3 * sd, (name, sex, x.std())


def test_demographics_are_those_of_the_imaging_cohort(hearts):
    assert 63 < hearts["age"].mean() < 65
    assert hearts["age"].min() >= 45
    assert hearts["age"].max() <= 82
    assert 0.46 < hearts["sex"].mean() < 0.50
    assert 26 < hearts["bmi"].mean() < 27.2


def test_af_at_the_visit_is_a_part_of_af_ever(hearts):
    ever = hearts["af"] == 1
    assert 0.15 < hearts["in_af"][ever].mean() < 0.35
    assert hearts["in_af"][~ever].mean() < 0.005
    assert (
        hearts["heart_rate"][hearts["in_af"] == 1].mean()
        > hearts["heart_rate"][hearts["in_af"] == 0].mean() + 10
    )


def test_phenotypes_are_consistent(people):
    for s in people:
        p = s.phenotypes
        for side in ("LV", "RV"):
            assert p[f"{side}SV"] == pytest.approx(p[f"{side}EDV"] - p[f"{side}ESV"])
            assert p[f"{side}EF"] == pytest.approx(100 * p[f"{side}SV"] / p[f"{side}EDV"])
        assert p["LVCO"] == pytest.approx(p["LVSV"] * s.latents["cmr_rate"] / 1000)
        for group in ("WT", "Ecc", "Err"):
            segments = [p[f"{group}_AHA_{i}"] for i in range(1, 17)]
            assert p[f"{group}_Global"] == pytest.approx(np.mean(segments))
        assert p["Ecc_Global"] < 0 < p["Err_Global"]


def test_measurements_carry_small_errors(people):
    for phenotype, latent in (("LVEDV", "edv"), ("LVM", "mass"), ("RVEDV", "rv_edv")):
        errors = [s.phenotypes[phenotype] - s.latents[latent] for s in people]
        assert 1 < np.std(errors) < 9, phenotype


def test_the_wall_holds_the_muscle(hearts):
    """Bullet of the module: outer minus inner volume times density is the mass, at both phases."""
    for phase, volume in (("ed", "edv"), ("es", "esv")):
        r, t, v = hearts[f"radius_{phase}"], hearts[f"wall_{phase}"], hearts[volume]
        length = 1200 * v / (np.pi * r**2)
        outer = 5 / 6 * np.pi * (r + t) ** 2 * (length + t) / 1000
        np.testing.assert_allclose((outer - v) * latent_heart.DENSITY, hearts["mass"], rtol=1e-6)


def test_exactly_half_are_phenotyped():
    marks = [subject.phenotyped(index, SEED) for index in range(400)]
    assert sum(marks) == 200
    assert 60 < sum(marks[::2]) < 140  # not every other one
    assert marks == [subject.phenotyped(index, SEED) for index in range(400)]


def test_the_heart_contracts_in_the_picture(people):
    for s in people:
        es, mid, ed = (pool(frame) for frame in s.cmr)
        assert es < mid < ed


def test_the_picture_shows_the_volume(people):
    for phenotype, frame in (("LVEDV", 2), ("LVESV", 0)):
        areas = [pool(s.cmr[frame]) for s in people]
        assert np.corrcoef(areas, [s.phenotypes[phenotype] for s in people])[0, 1] > 0.85


def test_the_ecg_shows_the_mass_but_weakly():
    n = 400
    rows = subject.latents(range(n), 5)
    size = []
    for index in range(n):
        ecg = synthetic_ecg.record(
            subject.heart(index, 5), latent_heart.generator(index, 5, 1)
        ).astype(float)
        fast = ecg[6:, 8:] - ecg[6:, :-8]  # 16 ms differences: QRS, hardly T or drift
        size.append(np.sqrt((fast**2).mean()))
    r = np.corrcoef(np.log(size), np.log(rows["mass"]))[0, 1]
    assert 0.12 < r < 0.6, r


def test_an_infarct_stands_still_in_the_picture():
    scar = 0.9 * latent_heart.TERRITORY[0]
    h = heart(scar=scar, contraction=1 - 0.9 * scar)
    es, ed = (cmr.contours(h, share) for share in (0.0, 1.0))
    moved = ed.endo - es.endo
    anterior, lateral = (
        moved[180],
        moved[(330 * 2) % 720],
    )  # 0.5 degrees per bin, anticlockwise from the right
    assert anterior < 0.5 * lateral
    thickening = (es.epi - es.endo) - (ed.epi - ed.endo)
    assert thickening[180] < 0.5 * thickening[660]


def test_contours_enclose_what_the_volume_asks_for():
    h = heart()
    for share, radius in ((1.0, h["radius_ed"]), (0.0, h["radius_es"])):
        c = cmr.contours(h, share)
        assert np.sqrt((c.endo**2).mean()) == pytest.approx(0.97 * radius, rel=0.01)
        assert (c.endo < c.epi).all()
        assert (c.epi <= c.right + 1e-9).all()
        assert (c.right <= c.outer + 1e-9).all()
        assert (c.outer < c.fat).all()


def test_normal_ecg_has_a_normal_shape():
    leads = dict(zip(LEADS, clean_leads()))
    assert 70 < duration(np.array(list(leads.values()))) < 115
    assert leads["aVR"].sum() < 0
    assert leads["II"].max() > 0.4
    height = [leads[f"V{i}"].max() for i in range(1, 7)]
    depth = [-leads[f"V{i}"].min() for i in range(1, 7)]
    assert height[0] < depth[0]  # rS in V1
    assert height[4] > 3 * depth[4]  # R in V5
    assert height[0] < height[1] < height[2] < height[3]  # R grows to V4
    axis = np.degrees(np.arctan2(2 * leads["aVF"].sum() / np.sqrt(3), leads["I"].sum()))
    assert -30 < axis < 90


def test_blocks_have_their_patterns():
    normal = clean_leads()
    lbbb, rbbb, lafb = (clean_leads(**{name: 1.0}) for name in ("lbbb", "rbbb", "lafb"))
    v1, v6, avf = 6, 11, 5
    assert duration(lbbb) > duration(normal) + 35
    assert duration(rbbb) > duration(normal) + 20
    assert lbbb[v1].max() < 0.1 < -lbbb[v1].min()  # QS
    assert lbbb[v6].min() > -0.05  # no q, no S
    late = slice(40 + 95, None)
    assert rbbb[v1, late].max() > 0.2 > normal[v1, late].max()  # R'
    assert rbbb[v6, late].min() < -0.1  # wide S
    assert lafb[avf].sum() < 0 < normal[avf].sum()  # left axis


def test_repolarisation_opposes_a_wide_qrs():
    h, block = heart(), heart(lbbb=1.0)
    (_, t), (_, opposed) = (
        synthetic_ecg.recovery(x, synthetic_ecg.ventricles(x)) for x in (h, block)
    )
    v6 = synthetic_ecg.DOWER[7]
    assert v6 @ t > 0.1 > v6 @ opposed


def test_infarcts_write_q_waves():
    ii, avf, v2, v3 = 1, 5, 7, 8
    normal = clean_leads()
    anterior = clean_leads(scar=0.9 * latent_heart.TERRITORY[0])
    inferior = clean_leads(scar=0.9 * latent_heart.TERRITORY[1])
    assert anterior[v2].max() < 0.4 * normal[v2].max()
    assert anterior[v3].max() < 0.5 * normal[v3].max()
    assert inferior[avf].max() < 0.4 * normal[avf].max()
    assert inferior[ii].max() < 0.6 * normal[ii].max()


def beats_of(ecg):
    """R peaks in samples, from the speed of all leads."""
    speed = np.abs(ecg[:, 6:] - ecg[:, :-6]).sum(axis=0)
    peaks: list[int] = []
    level = 0.5 * np.percentile(speed, 99.5)
    for i in np.flatnonzero(speed > level):
        if not peaks or i - peaks[-1] > 120:
            peaks.append(int(i))
    return np.array(peaks)


def test_fibrillation_is_irregular_and_sinus_is_not():
    def spread(**changes):
        changes = {"ectopy": 0.0, "ventricular_ectopy": 0.0, **changes}
        ratios = []
        for seed in range(6):
            peaks = beats_of(synthetic_ecg.record(heart(**changes), np.random.default_rng(seed)))
            ratios.append(np.diff(peaks).std() / np.diff(peaks).mean())
        return np.median(ratios)

    assert spread(in_af=1.0, heart_rate=85.0) > 0.13
    assert spread() < 0.08


def test_heart_rate_is_the_latent_one():
    for rate in (48.0, 66.0, 100.0):
        ecg = synthetic_ecg.record(
            heart(heart_rate=rate, ectopy=0.0, ventricular_ectopy=0.0, sdnn=10.0),
            np.random.default_rng(1),
        )
        assert 60 * 500 / np.diff(beats_of(ecg)).mean() == pytest.approx(rate, rel=0.04)


def test_latents_reach_extremes_without_breaking(hearts):
    for name in ("in_af", "lbbb", "weak", "bmi", "edv", "wall_ed", "heart_rate"):
        index = int(np.argmax(hearts[name]))
        s = subject.subject(index, SEED)
        assert np.isfinite(s.ecg).all(), name
        assert np.isfinite(s.cmr).all(), name
        assert all(np.isfinite(value) for value in s.phenotypes.values()), name
