"""ECG arrays: signals with known answers, and formulas written again as loops."""

import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.sparse.linalg import spsolve

from ecgcmr.errors import Excluded
from ecgcmr.signals import ecg

SECONDS = np.arange(ecg.SAMPLES) / ecg.RATE_HZ


def heart(seed: int = 0, beats_hz: float = 1.2) -> np.ndarray:
    """Twelve lawful leads of spikes and waves, (12, 5000) mV."""
    draw = np.random.default_rng(seed)
    phase = (SECONDS * beats_hz) % 1
    wave = np.exp(-0.5 * ((phase - 0.4) / 0.015) ** 2) + 0.2 * np.exp(
        -0.5 * ((phase - 0.7) / 0.05) ** 2
    )
    one, two = 0.7 * wave + 0.01 * draw.normal(size=5000), wave + 0.01 * draw.normal(size=5000)
    chest = [
        size * wave + 0.01 * draw.normal(size=5000) for size in (-0.6, -0.4, 0.5, 1.1, 1.0, 0.7)
    ]
    return np.stack([one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2, *chest])


def sparse_baseline(y: np.ndarray) -> np.ndarray:
    """Eilers & Boelens as the authors wrote it: z of (diag(w) + λ D Dᵀ) z = w y with a sparse solver."""
    n = len(y)
    d = sparse.diags([1.0, -2.0, 1.0], [0, -1, -2], shape=(n, n - 2))
    w = np.ones(n)
    for _ in range(5):
        z = spsolve((sparse.diags(w) + 1e7 * (d @ d.T)).tocsc(), w * y)
        w = 0.3 * (y > z) + 0.7 * (y < z)
    return z


def test_baseline_equals_sparse_solve():
    y = heart()[:3] + 0.3 * np.sin(2 * np.pi * 0.07 * SECONDS) + 0.05 * SECONDS
    expected = np.stack([lead - sparse_baseline(lead) for lead in y])
    assert np.abs(ecg.remove_baseline(y) - expected).max() < 1e-6


def test_leads_do_not_touch_each_other():
    """The first round is shared by all leads; the rest is each lead's own."""
    y = heart() + 0.5 * np.sin(2 * np.pi * 0.1 * SECONDS)
    alone = np.concatenate([ecg.remove_baseline(lead[None]) for lead in y])
    assert np.abs(ecg.remove_baseline(y) - alone).max() < 1e-9


@pytest.mark.parametrize("level", [0.0, 3.0, -0.7])
def test_constant_becomes_zero(level):
    assert np.abs(ecg.remove_baseline(np.full((2, 5000), level))).max() < 1e-6


def test_ramp_becomes_zero():
    """The second difference of a ramp is zero: it is all baseline."""
    assert np.abs(ecg.remove_baseline(np.stack([SECONDS * 0.3, 2 - SECONDS]))).max() < 1e-6


@pytest.mark.parametrize("hertz", [0.05, 1.0, 50.0])
def test_sine_passes_as_the_smoother_says(hertz):
    """What is left of a sine is λx⁴/(w + λx⁴), x = 2 sin(π f / 500), for a weight w between p and 1 − p: half at 1.2 Hz."""
    out = ecg.remove_baseline(np.sin(2 * np.pi * hertz * SECONDS)[None])[0, 500:-500]
    stiff = 1e7 * (2 * np.sin(np.pi * hertz / 500)) ** 4
    left = out.std() * np.sqrt(2)
    assert (
        stiff / (0.7 + stiff) * 0.98 - 0.02 <= left <= stiff / (0.3 + stiff) * 1.02 + 0.02
    )  # the ends leave a little


def test_spike_stays_in_place():
    y = np.zeros((1, 5000))
    y[0, 2500] = 1.0
    out = ecg.remove_baseline(y)
    assert out[0].argmax() == 2500
    assert abs(out[0, 2500] - 1) < 0.02
    assert np.abs(np.delete(out[0], 2500)).max() < 0.02


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_baseline_refuses_what_is_no_number(bad):
    y = np.zeros((1, 100))
    y[0, 3] = bad
    with pytest.raises(ValueError, match="finite"):
        ecg.remove_baseline(y)


def test_clean_follows_the_authors_order():
    y = heart()
    y[2, 100:110] = np.nan
    y[7, 2000] = 40.0
    filled = np.nan_to_num(y)
    clipped = np.clip(filled, -4 * filled.std(), 4 * filled.std())
    expected = np.stack([lead - sparse_baseline(lead) for lead in clipped])
    assert np.abs(ecg.clean(y) - expected).max() < 1e-6
    assert ecg.clean(y).dtype == np.float32


def test_clean_of_nothing_is_nothing():
    assert not ecg.clean(np.full((12, 5000), np.nan)).any()


@pytest.mark.parametrize(
    ("name", "lead"),
    [
        ("avr", "aVR"),
        (" V1", "V1"),
        ("MDC_ECG_LEAD_aVF", "aVF"),
        ("Lead II", "II"),
        ("ECG V6", "V6"),
        ("DIII", "III"),
        ("D1", "I"),
        ("C3", "V3"),
        ("vx", None),
        ("V7", None),
        ("MLII", None),
        ("", None),
        ("ABP", None),
    ],
)
def test_lead_names(name, lead):
    assert ecg.lead_name(name) == lead


def test_settle_reorders_and_drops():
    y = heart()
    order = [4, 0, 11, 1, 3, 5, 2, 6, 7, 8, 9, 10]
    shuffled = np.concatenate([y[order], np.ones((1, 5000))])
    names = (*(ecg.LEADS[i].upper() for i in order), "vx")
    assert np.array_equal(ecg.settle(shuffled, 500, names), y.astype(np.float32))
    assert ecg.repairs(5000, 500, names) == ("leads reordered",)
    assert ecg.repairs(5000, 500, ecg.LEADS) == ()


def test_settle_derives_the_limb_leads():
    y = heart()
    keep = [0, 1, *range(6, 12)]
    out = ecg.settle(y[keep], 500, tuple(ecg.LEADS[i] for i in keep))
    assert np.abs(out - y).max() < 1e-6
    assert ecg.repairs(5000, 500, tuple(ecg.LEADS[i] for i in keep)) == (
        "III, aVR, aVL, aVF derived from I and II",
    )


@pytest.mark.parametrize(
    ("rate", "samples", "names", "reason"),
    [
        (500, 4999, ecg.LEADS, "shorter than 10 s"),
        (0, 5000, ecg.LEADS, "sampling rate unknown"),
        (float("nan"), 5000, ecg.LEADS, "sampling rate unknown"),
        (500, 5000, ("I", *ecg.LEADS[:11]), "two leads of one name"),
        (500, 5000, ("x", *ecg.LEADS[1:]), "a lead is missing"),
        (500, 5000, (*ecg.LEADS[:11], "V7"), "a lead is missing"),
        (500, 5000, ecg.LEADS[:11], "number of leads and of names differ"),
    ],
)
def test_settle_refuses(rate, samples, names, reason):
    with pytest.raises(Excluded, match=reason):
        ecg.settle(np.zeros((12, samples)), rate, names)


@pytest.mark.parametrize("rate", [100, 250, 257.5, 400, 1000])
def test_resampling_keeps_a_sine(rate):
    t = np.arange(int(12 * rate)) / rate
    y = np.tile(np.sin(2 * np.pi * 7 * t) + 3, (12, 1))
    out = ecg.settle(y, rate, ecg.LEADS)
    assert out.shape == (12, 5000)
    assert np.abs(out[0, 250:-250] - np.sin(2 * np.pi * 7 * SECONDS[250:-250]) - 3).max() < 0.02


def test_resampling_does_not_alias():
    """Without a filter 430 Hz sampled at 1000 Hz would fold to 70 Hz."""
    y = np.tile(np.sin(2 * np.pi * 430 * np.arange(10_000) / 1000), (12, 1))
    assert np.abs(ecg.settle(y, 1000, ecg.LEADS)[0, 50:-50]).max() < 0.02


def test_a_tone_above_the_new_limit_is_suppressed():
    """A recording of 1000 Hz holds 300 Hz, one of 500 Hz cannot: without a filter it would come back as 200 Hz."""
    t = np.arange(10_000) / 1000
    y = np.tile(np.sin(2 * np.pi * 10 * t) + np.sin(2 * np.pi * 300 * t), (12, 1))
    rest = ecg.settle(y, 1000, ecg.LEADS)[0] - np.sin(2 * np.pi * 10 * SECONDS)
    assert np.abs(rest[50:-50]).max() < 0.01
    assert 2 * abs(np.mean((rest * np.exp(-2j * np.pi * 200 * SECONDS))[250:-250])) < 2e-3


def test_a_tone_keeps_its_height_from_100_to_500_hz():
    y = np.tile(np.sin(2 * np.pi * 10 * np.arange(1000) / 100), (12, 1))
    out = ecg.settle(y, 100, ecg.LEADS)[0]
    assert abs(2 * abs(np.mean(out * np.exp(-2j * np.pi * 10 * SECONDS))) - 1) < 0.005
    assert np.abs(out - np.sin(2 * np.pi * 10 * SECONDS))[50:-50].max() < 0.02


def test_missing_samples_do_not_spread_when_resampled():
    y = np.ones((12, 1200))
    y[0, 300] = np.nan
    out = ecg.settle(y, 100, ecg.LEADS)
    assert 1 <= np.isnan(out).sum() <= 6
    assert np.isnan(out[0, 1500])


def test_longer_is_cropped_to_its_first_ten_seconds():
    y = np.tile(np.arange(7000.0), (12, 1))
    assert np.array_equal(ecg.settle(y, 500, ecg.LEADS)[3], np.arange(5000, dtype=np.float32))
    assert ecg.repairs(7000, 500, ecg.LEADS) == ("cropped to the first 10 s",)


def test_normalise_equals_a_loop():
    x = torch.randn(2, 3, 12, 400, dtype=torch.float64) * 3 + 1
    out = ecg.normalise(x)
    for i in range(2):
        for j in range(3):
            for first, last in ((0, 3), (3, 6), (6, 12)):
                group = x[i, j, first:last]
                mean = group.sum() / group.numel()
                variance = ((group - mean) ** 2).sum() / group.numel()
                assert torch.allclose(
                    out[i, j, first:last], (group - mean) / (variance + 1e-12) ** 0.5, atol=1e-12
                )


def test_normalise_computes_halves_in_single():
    """1 mV of offset on 1 µV steps would lose the variance in float16."""
    x = (torch.randn(4, 12, 5000) * 0.3 + 1).half()
    out = ecg.normalise(x)
    assert out.dtype == torch.float32
    assert torch.allclose(out.double(), ecg.normalise(x.double()), atol=1e-4)
    assert ecg.normalise(torch.zeros(12, 50)).abs().max() == 0
    assert not torch.equal(x, out.half())


def test_einthoven_holds_through_cleaning_and_half_precision():
    y = (
        heart() + np.linspace(-0.5, 0.5, 5000) * np.arange(12)[:, None] ** 0
    )  # the laws hold up to one common drift
    assert ecg.einthoven(heart()) < 1e-9
    assert ecg.einthoven(ecg.clean(y).astype(np.float16)) < ecg.EINTHOVEN_LIMIT / 2


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ([0, 1, 2, 3, 5, 4], "aVL and aVF"),
        ([1, 0, 2, 3, 4, 5], "I and II"),
        ([0, 2, 1, 3, 4, 5], "II and III"),
        ([3, 1, 2, 0, 4, 5], "I and aVR"),
    ],
    ids=["as in MIMIC-IV-ECG", "I-II", "II-III", "I-aVR"],
)
def test_einthoven_finds_swapped_leads(wrong, named):
    y = heart()[[*wrong, *range(6, 12)]]
    assert ecg.einthoven(y) > ecg.EINTHOVEN_LIMIT
    assert ecg.einthoven(ecg.clean(y)) > ecg.EINTHOVEN_LIMIT
    assert ecg.quality(y) == [f"Einthoven's law violated: {named} exchanged"]


def test_a_lawless_recording_that_no_exchange_explains_is_not_named():
    y = heart()
    y[2] *= 3
    assert ecg.quality(y) == ["Einthoven's law violated"]


@pytest.mark.parametrize("pair", [(6, 7), (0, 8), (10, 11)])
def test_a_channel_written_twice_is_refused(pair):
    y = heart()
    y[pair[1]] = y[pair[0]] + 0.3  # a constant apart is the same signal still
    assert "two leads with one signal" in ecg.quality(y)


def _faulty(kind: str) -> np.ndarray:
    y = heart()
    if kind == "missing samples":
        y[8, :300] = np.nan
    elif kind == "flat lead":
        y[9] = 0.2
    elif kind == "saturated":
        y[8] = np.minimum(y[8] * 5, 2)
        y[8, 1000:1100] = 2.0
    return y * {"implausible amplitude": 200}.get(kind, 1)


@pytest.mark.parametrize(
    "kind", ["missing samples", "flat lead", "saturated", "implausible amplitude"]
)
def test_quality_names_the_fault(kind):
    assert ecg.quality(_faulty(kind))[0] == kind
    with pytest.raises(Excluded, match=kind):
        ecg.prepare(_faulty(kind), 500, ecg.LEADS)


def late(signal: np.ndarray, change) -> np.ndarray:
    """The last two seconds and a half changed; the first two thirds are lawful and as high as ever."""
    out = signal.copy()
    out[:, 3750:] = change(signal[:, 3750:])
    return out


def test_leads_that_slip_out_of_step_late_are_found():
    """Bytes that were lost or inserted move every later sample; over the whole record the laws hold."""
    for change in (lambda s: np.roll(s, 1, axis=0), lambda s: np.stack([np.roll(s[0], 7), *s[1:]])):
        slipped = late(heart(), change)
        assert ecg.einthoven(slipped) < 0.1 < ecg.EINTHOVEN_LIMIT < ecg.worst_einthoven(slipped)
        assert ecg.quality(slipped)[0].startswith("Einthoven's law violated")


def test_seconds_without_a_beat_are_lawful():
    """Rounding breaks the laws by half a step: much of the noise of a pause, little of a beat."""
    pause = heart()
    pause[:, 1500:2600] *= 0.01
    assert ecg.quality(np.round(pause / 0.005) * 0.005) == []


@pytest.mark.parametrize(
    ("fault", "change"),
    [
        ("implausible amplitude", lambda s: s * 1000),  # its unit is µV, the others' mV
        ("implausible amplitude", lambda s: s + 1e5),
        (
            "implausible amplitude",
            lambda s: np.where(np.arange(5000) == 77, 1e6, s),
        ),  # `clean` leaves 16 V of it
        ("implausible amplitude", lambda s: np.where(np.arange(5000) == 77, 3e38, s)),
        ("flat lead", lambda s: np.where(SECONDS < 3, s, 0)),
    ],
)
def test_one_lead_beyond_what_electrodes_give(fault, change):
    wrong = heart()
    wrong[8] = change(wrong[8])
    assert ecg.quality(wrong)[0] == fault


def test_amplitude_of_less_than_a_sample_a_second():
    assert ecg.amplitude(heart(), 0.1) == 0.0


def test_quality_accepts_a_heart_and_pacing_spikes():
    assert ecg.quality(heart()) == []
    paced = heart()
    spike = ((SECONDS * 1.2) % 1 < 0.005).astype(float) * 10
    limbs = [spike, spike, 0 * spike, -spike, spike / 2, spike / 2]
    assert ecg.quality(paced + np.stack([*limbs, *[spike] * 6])) == []


def test_prepare_says_what_it_did():
    y = np.tile(heart(), (1, 2))[:, ::-1]
    y[0, 5] = np.nan
    out, words = ecg.prepare(y[::-1], 500, ecg.LEADS[::-1])
    assert words == ("leads reordered", "cropped to the first 10 s", "missing samples set to 0")
    assert out.dtype == np.float32
    assert np.isfinite(out).all()
