"""ECG arrays: signals with known answers, and formulas written again as loops."""

import base64
from functools import cache

import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.signal import butter, resample_poly, sosfiltfilt
from scipy.sparse.linalg import spsolve

from ecgcmr.errors import Excluded
from ecgcmr.signals import ecg, quality_flags

SECONDS = np.arange(ecg.SAMPLES) / ecg.RATE_HZ


def heart(seed: int = 0, beats_hz: float = 1.2) -> np.ndarray:
    """Twelve lawful leads of spikes and waves, (12, 5000) mV, to be changed as a test likes."""
    return _heart(seed, beats_hz).copy()


@cache
def _heart(seed: int, beats_hz: float) -> np.ndarray:
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


# -- levels ------------------------------------------------------------------------------------------------------------

LEVELS = "Einthoven's law violated by the leads' levels"


def stored(signal: np.ndarray) -> np.ndarray:
    """What a cohort would hold, which its own check must pass."""
    trace, _ = ecg.prepare(signal, 500, ecg.LEADS)
    assert list(ecg.faults(trace.astype(np.float16))) == []
    return trace


@pytest.mark.parametrize("level", [5.0, -5.0, 0.9, 300.0])
def test_a_level_that_all_leads_share_breaks_the_laws(level):
    """A baseline that a file lost: I − II + III is the level, which no electrode gives."""
    assert ecg.quality(heart() + level) == [LEVELS]
    assert np.ptp(ecg.clean(heart() + level), axis=1).min() > 0.2  # and cleaning leaves the beats


@pytest.mark.parametrize("lead", range(6))
@pytest.mark.parametrize("level", [0.5, -1.0, 5.0])
def test_a_limb_lead_at_another_level_breaks_the_laws(lead, level):
    signal = heart()
    signal[lead] += level
    assert ecg.quality(signal)[0].startswith("Einthoven's law violated")
    late_level = heart()
    late_level[lead, 4000:] += 2 * level
    assert ecg.quality(late_level)[0].startswith("Einthoven's law violated")


@pytest.mark.parametrize("size", [0.05, 2.0, 300.0])
def test_levels_of_electrodes_change_nothing(size):
    """An electrode's own voltage raises every lead lawfully; the beats are clipped as if it were not there."""
    right, left, foot, *chest = size * np.random.default_rng(3).uniform(-1, 1, 9)
    limbs = [left - right, foot - right, foot - left]
    augmented = [right - (left + foot) / 2, left - (right + foot) / 2, foot - (right + left) / 2]
    level = np.array([*limbs, *augmented, *(np.array(chest) - (right + left + foot) / 3)])[:, None]
    signal = heart() + level
    assert ecg.quality(signal.astype(np.float32)) == []
    _, words = ecg.prepare(signal, 500, ecg.LEADS)
    assert words == (("level removed",) if size > 1 else ())
    difference = np.abs(stored(signal) - stored(heart()))
    assert np.quantile(difference, 0.97) < 0.02


def test_a_chest_lead_at_another_level_keeps_its_beats():
    signal = heart()
    signal[9] += 40
    signal[9, 700:720] = np.nan  # set to the lead's level, not to 0 mV
    plain = heart()
    plain[9, 700:720] = 0
    assert np.abs(stored(signal) - stored(plain)).max() < 0.25
    assert np.ptp(stored(signal)[9, 600:800]) < 1.5


def test_sound_recordings_are_not_levelled():
    """What lies near 0 mV is clipped about 0, as the authors do."""
    signal = heart() + 0.2 * np.sin(SECONDS)
    clipped = np.clip(signal, -4 * signal.std(), 4 * signal.std())
    assert np.array_equal(ecg.clean(signal), ecg.remove_baseline(clipped).astype(np.float32))


def test_leads_that_were_centred_or_filtered_one_by_one_are_lawful():
    drift = np.linspace(-0.5, 0.5, 5000) * np.array([1, 1, 0, -1, 0.5, 0.5])[:, None]
    signal = heart()
    signal[:6] += drift
    centred = signal - np.median(signal, axis=1, keepdims=True)
    assert ecg.quality(centred) == []
    assert ecg.quality(ecg.remove_baseline(signal)) == []


# -- rounding ----------------------------------------------------------------------------------------------------------


def slow_and_quiet(seed: int) -> np.ndarray:
    """Forty-five beats a minute of 0.5 mV behind a low pass of 40 Hz: steps as small as a coarse converter's counts."""
    draw = np.random.default_rng(seed)
    phase = (SECONDS * 0.75) % 1
    waves = [(0.26, 0.025, 0.1), (0.4, 0.013, 1.0), (0.43, 0.013, -0.3), (0.62, 0.05, 0.3)]
    p, r, s, t = [h * np.exp(-0.5 * ((phase - at) / width) ** 2) for at, width, h in waves]
    sizes = [(0.7, 0.7, 1.2, 1.1), (1, 1, 0.8, 0.8)]
    sizes += [(0.4, 0.3 * i - 0.5, 2 - 0.3 * i, 1.2 - 0.1 * i) for i in range(6)]
    eight = np.array([0.5 * (a * p + b * r + c * s + d * t) for a, b, c, d in sizes])
    eight += 0.003 * draw.normal(size=eight.shape)
    one, two, *chest = sosfiltfilt(butter(4, 40, fs=500, output="sos"), eight, axis=1)
    return np.stack([one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2, *chest])


def in_counts(signal: np.ndarray, count_mv: float, kind: str) -> np.ndarray:
    counts = np.round(signal / count_mv)
    if kind == "derived":
        one, two = counts[:2]
        counts[2:6] = np.round([two - one, -(one + two) / 2, one - two / 2, two - one / 2])
    elif kind == "cut":
        counts = np.trunc(signal / count_mv)
    return (counts * count_mv).astype(np.float32)


@pytest.mark.parametrize(
    ("count_mv", "kind"),
    [
        *((count, kind) for count in (0.00488, 0.01) for kind in ("each", "derived")),
        (0.001, "each"),
        (0.0025, "derived"),
        (0.005, "cut"),
    ],
)
def test_rounding_breaks_no_law(count_mv, kind):
    for seed in range(2):
        signal = in_counts(slow_and_quiet(seed), count_mv, kind)
        assert ecg.quality(signal) == []
        stored(signal)


def test_rounding_before_the_rate_was_changed_breaks_no_law():
    for rate, down in ((100, 5), (250, 2)):
        signal = in_counts(slow_and_quiet(0)[:, ::down], 0.01, "each")
        assert ecg.quality(ecg.settle(signal, rate, ecg.LEADS)) == []
    finer = resample_poly(in_counts(slow_and_quiet(1), 0.01, "each"), 8, 7, axis=1)[:, 100:5100]
    assert ecg.quality(finer.astype(np.float32)) == []


@pytest.mark.parametrize("count_mv", [0.001, 0.005, 0.01])
def test_faults_are_found_through_rounding(count_mv):
    signal = in_counts(slow_and_quiet(0), count_mv, "each")
    order = [1, 0, 2, 3, 4, 5, *range(6, 12)]
    assert ecg.quality(signal[order]) == ["Einthoven's law violated: I and II exchanged"]
    changes = {np.negative: (0, 1, 3), lambda x: 2 * x: (0, 1), lambda x: x + 0.4: range(6)}
    for change, leads in changes.items():
        for lead in leads:
            wrong = signal.copy()
            wrong[lead] = change(wrong[lead])
            assert ecg.worst_einthoven(wrong) > 0.25 or ecg.level_violation(wrong) > 0.2


# -- stretches without signal ------------------------------------------------------------------------------------------

DRAW = np.random.default_rng(7)
FILLINGS = {
    "zeros": lambda x, gap: 0 * gap,
    "last value": lambda x, gap: 0 * gap + x[:, :1],
    "mean": lambda x, gap: 0 * gap + x.mean(axis=1, keepdims=True),
    "line": lambda x, gap: np.linspace(x[:, 0], x[:, -1], gap.shape[1]).T,
    "rail": lambda x, gap: 0 * gap + 3.2767,
    "dither": lambda x, gap: 0.005 * DRAW.integers(0, 2, gap.shape),
}


def filled(signal: np.ndarray, leads: list[int], start: int, stop: int, kind: str) -> np.ndarray:
    out = signal.copy()
    gap = signal[leads, start:stop]
    out[leads, start:stop] = FILLINGS[kind](signal[leads], gap)
    return out


@pytest.mark.parametrize("kind", FILLINGS)
@pytest.mark.parametrize("leads", [[8], list(range(12))], ids=["one lead", "all leads"])
@pytest.mark.parametrize(("start", "stop"), [(2500, 5000), (0, 2500), (1200, 3800)])
def test_half_a_recording_is_none(kind, leads, start, stop):
    assert ecg.quality(filled(heart(), leads, start, stop, kind))


@pytest.mark.parametrize("kind", FILLINGS)
@pytest.mark.parametrize(("start", "stop"), [(0, 500), (4500, 5000), (100, 700), (4000, 4950)])
def test_a_second_of_padding_in_all_leads_is_refused(kind, start, stop):
    assert "flat stretch" in ecg.quality(filled(heart(), list(range(12)), start, stop, kind))


@pytest.mark.parametrize("kind", sorted(set(FILLINGS) - {"rail"}))
def test_a_second_without_signal_is_flagged(kind):
    short = filled(heart(), [7], 2000, 2600, kind)
    assert ecg.quality(short) == []
    assert quality_flags.flags(short)["flag_flat"] == 1
    assert quality_flags.flags(filled(heart(), [7], 2000, 2420, kind))["flag_flat"] == 0


@pytest.mark.parametrize("rate", [100, 250, 257.5, 1000])
def test_resampling_does_not_hide_that_a_lead_stood_still(rate):
    """The filter rings beside the edges of a stretch: judged after it alone, a second would seem shorter."""
    time = np.arange(int(11 * rate)) / rate
    signal = np.stack([np.interp(time, SECONDS, lead) for lead in heart()])
    at = (time >= 4) & (time < 5.05)
    signal[8, at] = 1.7
    settled = ecg.settle(signal, rate, ecg.LEADS)
    assert quality_flags.flags(settled)["flag_flat"] == 1
    assert np.abs(settled[8, 2010:2510] - 1.7).max() < 1e-3
    signal[8, time >= 4] = 1.7
    with pytest.raises(Excluded, match="flat"):
        ecg.prepare(signal, rate, ecg.LEADS)


def test_gaps_do_not_hide_that_a_lead_stood_still():
    dead = filled(heart(), [8], 2500, 5000, "zeros")
    dead[8, 2600:5000:40] = np.nan
    assert "flat stretch" in ecg.quality(dead)
    empty = heart()
    empty[:, 2500:] = np.nan
    assert ecg.quality(empty)[0] == "missing samples"


def test_quiet_leads_are_no_flat_stretches():
    for seed in range(3):
        for count_mv in (0.005, 0.01):
            signal = in_counts(slow_and_quiet(seed), count_mv, "each")
            assert quality_flags.flags(signal)["flag_flat"] == 0


def test_a_stored_lead_that_is_half_dead_is_a_fault():
    half = ecg.clean(heart()).astype(np.float16)
    half[10, 2500:] = 0
    assert list(ecg.faults(half)) == ["lead V5 is flat for 5.0 s"]


# -- stretches of noise ------------------------------------------------------------------------------------------------

FOREIGN = {
    "numbers": b",".join(b"%d" % n for n in np.random.default_rng(1).integers(-300, 300, 900)),
    "base64": base64.b64encode(np.random.default_rng(2).bytes(2000)),
    "packed": np.random.default_rng(3).bytes(2000),
    "markup": b"".join(b'<v n="%d">x%d</v>' % (n, 37 * n % 101) for n in range(90)),
}


@pytest.mark.parametrize("count_mv", [1e-4, 1.5e-4, 1e-3])
@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_bytes_in_half_a_second_of_a_chest_lead_are_refused(kind, count_mv):
    """No law holds for these leads, and no format of plain counts has a checksum."""
    for first in (1500, 4625):
        signal = heart()
        signal[10, first : first + 375] = np.frombuffer(FOREIGN[kind][:750], "<i2") * count_mv
        assert "stretch of noise" in ecg.quality(signal)


def _band(draw: np.random.Generator) -> np.ndarray:
    sos = butter(4, (20, 150), "bandpass", fs=500, output="sos")
    return sosfiltfilt(sos, draw.normal(size=5000))


ARTEFACTS = {
    "mains of 1 mV": lambda draw: np.sin(2 * np.pi * 50 * SECONDS),
    "mains of 60 Hz and its third": lambda draw: (
        0.5 * np.sin(2 * np.pi * 60 * SECONDS) + 0.05 * np.sin(2 * np.pi * 180 * SECONDS)
    ),
    "muscle of 0.2 mV": lambda draw: 0.2 * _band(draw) / _band(draw).std(),
    "noise of 0.05 mV": lambda draw: 0.05 * draw.normal(size=5000),
    "spikes of 10 mV": lambda draw: 10.0 * (np.arange(5000) % 40 < 3),
    "an electrode that jumps": lambda draw: 2.0 * (np.arange(5000) // 60 % 2),
}


@pytest.mark.parametrize("kind", ARTEFACTS)
def test_artefacts_are_no_foreign_bytes(kind):
    signal = heart()
    signal[10, 2000:2600] += ARTEFACTS[kind](np.random.default_rng(4))[2000:2600]
    assert ecg.quality(signal) == []


def test_a_lead_that_is_noisy_throughout_is_no_damage():
    noisy = heart()
    noisy[10] += 0.15 * np.random.default_rng(5).normal(size=5000)
    assert ecg.quality(noisy) == []


# -- a lead out of step ------------------------------------------------------------------------------------------------

SLIPPED = "Einthoven's law violated by a lead out of step"


@pytest.mark.parametrize(
    ("lead", "count_mv"),
    # III is a third as high as the others: one sample of it is less than coarse counts
    [*((lead, 0.001) for lead in range(6)), *((lead, 0.005) for lead in (0, 1, 3, 4, 5))],
)
def test_a_limb_lead_one_sample_late_is_found_below_the_rounding(lead, count_mv):
    """Too little to be seen in single samples of a slow heart behind a low pass of 40 Hz."""
    signal = in_counts(2 * slow_and_quiet(0), count_mv, "each")
    assert ecg.out_of_step(signal) == 0
    signal[lead] = np.roll(signal[lead], 1)
    assert ecg.worst_einthoven(signal) < ecg.EINTHOVEN_LIMIT
    assert ecg.quality(signal) == [SLIPPED]
    assert ecg.out_of_step(signal) < 2


def test_a_slip_late_and_beside_gaps_is_found():
    signal = 2 * slow_and_quiet(1)
    signal[1, 2500:] = np.roll(signal[1, 2500:], -1)
    signal[1, 3000:3100] = np.nan
    signal[2, 7::50] = np.nan
    assert ecg.quality(signal) == [SLIPPED]


@pytest.mark.parametrize(
    "change",
    [
        lambda signal: 1.1 * signal,
        lambda signal: np.clip(signal, -0.6, 0.6),
        lambda signal: signal + 0.2 * np.sin(SECONDS),
        lambda signal: np.where(np.arange(5000) % 700 < 40, np.nan, signal),
        lambda signal: np.interp(SECONDS, SECONDS + 2e-4, signal),
    ],
    ids=["gain", "clipped", "drift", "gaps", "0.2 ms late"],
)
def test_what_is_no_slip(change):
    for signal in (slow_and_quiet(2), heart(3)):
        for lead in range(3):
            changed = signal.copy()
            changed[lead] = change(signal[lead])
            assert ecg.out_of_step(changed) <= ecg.SLIP_SAMPLES
    assert ecg.out_of_step(np.zeros((12, 5000))) == ecg.out_of_step(heart()[:, :700]) == 0


# -- what was prepared passes the check of a cohort --------------------------------------------------------------------

REPAIRS = {
    "rate of 100 Hz": lambda x: (x[:, ::5], 100, ecg.LEADS),
    "rate of 1000 Hz": lambda x: (np.repeat(x, 2, axis=1), 1000, ecg.LEADS),
    "other order": lambda x: (x[::-1], 500, ecg.LEADS[::-1]),
    "derived leads": lambda x: (x[[0, 1, *range(6, 12)]], 500, ("I", "II", *ecg.LEADS[6:])),
    "longer": lambda x: (np.tile(x, (1, 2)), 500, ecg.LEADS),
    "gaps": lambda x: (np.where(np.arange(5000) % 40 == 7, np.nan, x), 500, ecg.LEADS),
    "levels": lambda x: (x + 100 * (np.arange(12) > 5)[:, None], 500, ecg.LEADS),
    "an artefact": lambda x: (x + 8 * (np.arange(5000) // 200 == 9), 500, ecg.LEADS),
    "drift": lambda x: (
        x + np.sin(SECONDS) * np.array([1, 1, 0, -1, 0.5, 0.5] + [3] * 6)[:, None],
        500,
        ecg.LEADS,
    ),
}


@pytest.mark.parametrize("repair", REPAIRS)
def test_what_is_prepared_passes_the_check(repair):
    for signal in (heart(1), slow_and_quiet(1), 2.5 * heart(2)):
        try:
            trace, _ = ecg.prepare(*REPAIRS[repair](signal))
        except Excluded:
            assert repair == "an artefact"  # 8 mV in every lead break the laws
        else:
            assert list(ecg.faults(trace.astype(np.float16))) == []


def test_what_cleaning_empties_is_refused(monkeypatch):
    monkeypatch.setattr(ecg, "clean", lambda signal: 0 * signal)
    with pytest.raises(Excluded, match="flat lead after cleaning"):
        ecg.prepare(heart(), 500, ecg.LEADS)
