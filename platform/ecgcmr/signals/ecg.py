"""From a 12-lead ECG in any order, rate and length to the array that a network reads.

One idea: `settle` makes recordings comparable (leads, rate, 10 s) and refuses what it cannot make
so, `quality` says what makes a recording unfit, `clean` is the paper's cleaning, and `normalise`,
the only step in torch, runs on the device on whole batches, because shards keep millivolts. This
module does not read files.
"""

import re
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Protocol

import numpy as np
import scipy  # its parts come at their first use: they take a second
from numpy.lib.stride_tricks import sliding_window_view

from ecgcmr.errors import Excluded
from ecgcmr.signals import (
    LEADS,
    RATE_HZ,
    SIGNALS,
    Options,
    Prepared,
    flat_stretches,
    noise_stretches,
    quality_flags,
)

if TYPE_CHECKING:
    from torch import Tensor, dtype

RATES_HZ = (
    50.0,
    20_000.0,
)  # beyond these a rate is a mistake, and the filter of the resampling would be unbounded
SAMPLES = SIGNALS["ecg"].shape[1]  # 10 s
GROUPS = (3, 3, 6)  # Einthoven, Goldberger, Wilson: normalised apart (paper, section IV-A)

CLIP_SD = 4.0
# A lead that lies higher than this is brought to 0 before clipping, which would cut its beats off.
# At most 1.5 in 2,271 recordings, 2.4 in 700 synthetic ones, so none of those changes.
LEVEL_SD = 3.0
SMOOTHNESS = 1e7  # λ at 500 Hz
ASYMMETRY = 0.3  # p
ROUNDS = 5

MISSING_LIMIT = 0.05
FLAT_SHARE = 0.25  # of a lead in stretches without signal; a pause of the heart takes less
STORED_FLAT_SHARE = 0.4  # without its baseline a quiet lead is flatter
FLAT_END = 125  # samples at either end, in which a filter may ring beside padding
FLAT_MV = 0.01  # two steps of a 5 µV converter in most of the time: no electrode
BLANK_MV = 1e-3  # of a stored lead
# `amplitude` of the 224 CinC recordings with their true gains is 0.36–2.2 mV, paced ones included;
# a gain that is wrong by a factor of 5 or more leaves this range except by chance.
AMPLITUDE_MV = (0.15, 4.0)
SATURATED_SAMPLES = 25  # 50 ms at one extreme value; an R peak's top lasts under 10 ms
SATURATED_MV = 1.0
# `worst_einthoven` of 2,271 recordings is 0, their rounding allowed for, `einthoven` of what is
# stored of them at most 0.06 (benchmarks/studies/sound.py); with two limb leads swapped both are
# above the limit (benchmarks/studies/resolution.py).
EINTHOVEN_LIMIT = 0.25
# `level_violation` of the 2,271 is at most 0.002 (benchmarks/studies/sound.py); where a baseline
# was taken off lead by lead it may be 0.15.
LEVEL_LIMIT = 0.2
LAGS = (1, 5, 20)  # 2, 10 and 40 ms: a slip in time shows over short steps, a wrong lead over all
STORED_LAG = 10  # 20 ms, where float16 and clipped peaks matter least
STEEP_SHARE = 0.2
COUNTS = 1.5  # of rounding in I − II + III where each was rounded for itself
SLIP_SAMPLES = 0.3  # 0.6 ms; see `out_of_step`
SLIP_BASE = 40  # 80 ms: slower violations of a law are levels and baselines
QUIET_LEAD = 0.25  # of the limb leads' power: below, rounding looks like a slip
FINEST_MV = 0.9e-3  # smaller steps are no recorder's counts: the samples were resampled or scaled
COARSEST_MV = 0.01  # counts that such samples may hide
LEAD_MV = 15.0  # height of one lead's beats; at most 6.7 mV in the 224
PEAK_MV = 20.0  # what `clean` leaves of peaks; a pacing spike of 13 mV exists
OFFSET_MV = 1000.0  # electrodes lie up to 300 mV apart

RECIPE: dict[str, object] = {
    "leads": list(LEADS),
    "unit": "mV",
    "rate_hz": RATE_HZ,
    "samples": SAMPLES,
    "crop": "first 10 s",
    "resample": "polyphase, Kaiser 5.0, line padding",
    "missing": "0, at most 5 % per lead",
    "level": f"a lead's median, of all leads where one is beyond {LEVEL_SD:g} SD",
    "clip_sd": CLIP_SD,
    "baseline": {
        "method": "asymmetric least squares",
        "lambda": SMOOTHNESS,
        "p": ASYMMETRY,
        "rounds": ROUNDS,
    },
    "normalise": {
        "groups": list(GROUPS),
        "variance": "population",
        "eps": 1e-12,
        "when": "after loading, per record",
    },
}

_NAMES = {lead.upper(): lead for lead in LEADS}
# Limb leads as left + a·I + b·II = 0: Einthoven's law and Goldberger's three (rows of I, II, III,
# aVR, aVL, aVF).
_LAWS = np.array(
    [
        [1.0, -1.0, 1.0, 0.0, 0.0, 0.0],
        [0.5, 0.5, 0.0, 1.0, 0.0, 0.0],
        [-0.5, 0.0, 0.5, 0.0, 1.0, 0.0],
        [0.0, -0.5, -0.5, 0.0, 0.0, 1.0],
    ]
)
# Two rows of which one exchange would restore the laws: a file with wrong names, not electrodes on
# wrong limbs.
_EXCHANGES = tuple((a, b) for a in range(6) for b in range(a + 1, 6))
_FROM_I_II = {"III": (-1.0, 1.0), "aVR": (-0.5, -0.5), "aVL": (1.0, -0.5), "aVF": (-0.5, 1.0)}


class Recording(Protocol):
    """What `prepared` needs of a recording (see raw.EcgRecord)."""

    @property
    def signal(self) -> np.ndarray:
        """(leads, samples) mV."""
        ...

    @property
    def rate_hz(self) -> float:
        """Samples per second."""
        ...

    @property
    def leads(self) -> tuple[str, ...]:
        """The name of each row."""
        ...

    @property
    def cleaned(self) -> bool:
        """Whether it was cleaned before."""
        ...


def recipe(options: Options) -> dict[str, object]:
    """How recordings come to their stored form."""
    return RECIPE


def lead_name(name: str) -> str | None:
    """Say which of the twelve leads a name means, or None: any case, prefixes as in
    `MDC_ECG_LEAD_aVR`, `ECG II`, `DI`.
    """
    word = re.sub(r"[^A-Z0-9]", "", name.upper())
    word = re.sub(r"^(MDC)?(ECG)?(LEAD)?", "", word)
    word = re.sub(
        r"^D(?=I|[123]$)", "", word
    )  # DI, D1: Portuguese and Spanish names, as in CODE-15
    word = {"1": "I", "2": "II", "3": "III"}.get(word, word)
    return _NAMES.get(re.sub(r"^C(?=[1-6]$)", "V", word))  # C1: IEC code of V1


def settle(signal: np.ndarray, rate_hz: float, leads: tuple[str, ...]) -> np.ndarray:
    """Bring a recording to twelve leads in standard order, 500 Hz and its first 10 s.

    III, aVR, aVL and aVF are derived from I and II where absent (III = II − I, aVR = −(I + II)/2,
    aVL = I − II/2, aVF = II − I/2); other leads of the file are dropped. Samples between new ones
    are filtered against aliasing.

    Args:
        signal: (leads, samples), mV; NaN marks a missing sample and stays.
        rate_hz: samples per second.
        leads: the name of each row.

    Returns:
        (12, 5000) float32, mV.

    Raises:
        Excluded: a lead is absent or there twice, the rate is none or implausible, or the recording
            is shorter than 10 s.
    """
    if not np.isfinite(rate_hz) or rate_hz <= 0:
        raise Excluded("sampling rate unknown")
    if not RATES_HZ[0] <= rate_hz <= RATES_HZ[1]:
        raise Excluded("implausible sampling rate")
    if signal.shape[1] < round(10 * rate_hz):
        raise Excluded("shorter than 10 s")
    n_samples = int(
        np.ceil(11 * rate_hz)
    )  # one second more than is kept: the filter's edge lies outside
    return np.ascontiguousarray(
        _resample(_twelve(signal[:, :n_samples], leads), rate_hz)[:, :SAMPLES], dtype=np.float32
    )


def repairs(samples: int, rate_hz: float, leads: tuple[str, ...]) -> tuple[str, ...]:
    """Say in words what `settle` changes on a recording of so many samples; empty for the standard
    form.
    """
    standard_names = [lead_name(lead) for lead in leads]
    derived_leads = [lead for lead in LEADS if lead not in standard_names]
    words = []
    if [lead for lead in standard_names if lead] != [
        lead for lead in LEADS if lead in standard_names
    ]:
        words.append("leads reordered")
    if derived_leads:
        words.append(f"{', '.join(derived_leads)} derived from I and II")
    if rate_hz != RATE_HZ:
        words.append(f"resampled from {rate_hz:g} Hz")
    if samples > round(10 * rate_hz):
        words.append("cropped to the first 10 s")
    return tuple(words)


def prepare(
    signal: np.ndarray, rate_hz: float, leads: tuple[str, ...], *, cleaned: bool = False
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Settle, check and clean one recording.

    Args:
        signal: (leads, samples), mV.
        rate_hz: samples per second.
        leads: the name of each row.
        cleaned: whether it was cleaned before; estimated again, the baseline of a clean signal is
            not zero.

    Returns:
        (12, 5000) float32, mV, cleaned; and what was changed, in words.

    Raises:
        Excluded: it cannot be settled, or `quality` finds fault; the first fault is the reason.
    """
    trace, words = prepare_settled(settle(signal, rate_hz, leads), cleaned=cleaned)
    return trace, (*repairs(signal.shape[1], rate_hz, leads), *words)


def prepare_settled(
    settled_ecg: np.ndarray, *, cleaned: bool = False
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Check and clean a recording that is settled.

    Args:
        settled_ecg: (12, 5000) mV, see `settle`.
        cleaned: see `prepare`.

    Returns:
        (12, 5000) float32, mV, cleaned; and what was changed, in words.

    Raises:
        Excluded: `quality` finds fault, of which the first is the reason, or `faults` finds one in
            what would be stored.
    """
    reasons = quality(settled_ecg)
    if reasons:
        raise Excluded(reasons[0])
    words = ("missing samples set to 0",) if np.isnan(settled_ecg).any() else ()
    if cleaned:
        trace = np.nan_to_num(settled_ecg)
    else:
        words = (*words, "level removed") if _levels(settled_ecg).any() else words
        trace = clean(settled_ecg)
    for reason, _ in _stored_faults(trace.astype(SIGNALS["ecg"].dtype)):
        raise Excluded(f"{reason} after cleaning")
    return trace, words


def prepared(record: Recording, options: Options) -> Prepared:
    """`prepare` as a shard holds it, with suspicions that are judged before cleaning."""
    settled_ecg = settle(record.signal, record.rate_hz, record.leads)
    trace, words = prepare_settled(settled_ecg, cleaned=record.cleaned)
    changes = repairs(record.signal.shape[1], record.rate_hz, record.leads)
    suspicions = partial(quality_flags.flags, settled_ecg)
    return Prepared(trace.astype(np.float16), (*changes, *words), suspicions)


def _twelve(signal: np.ndarray, leads: tuple[str, ...]) -> np.ndarray:
    if len(leads) != len(signal):
        raise Excluded("number of leads and of names differ")
    rows: dict[str, np.ndarray] = {}
    for name, row in zip(leads, signal):
        lead = lead_name(name)
        if lead in rows:
            raise Excluded("two leads of one name")
        if lead:
            rows[lead] = np.where(np.isfinite(row), row, np.nan).astype(np.float64)
    for lead, (a, b) in _FROM_I_II.items():
        if lead not in rows and "I" in rows and "II" in rows:
            rows[lead] = a * rows["I"] + b * rows["II"]
    if any(lead not in rows for lead in LEADS):
        raise Excluded("a lead is missing")
    return np.stack([rows[lead] for lead in LEADS])


def _resample(signal: np.ndarray, rate_hz: float) -> np.ndarray:
    """Resample to 500 Hz; a missing sample stays missing instead of spreading over the filter's
    length, and a stretch without signal stays a line instead of ringing.
    """
    ratio = Fraction(RATE_HZ / rate_hz).limit_denominator(
        10_000
    )  # off by less than 1 µs after 10 s
    if ratio == 1:
        return signal
    finite = np.nan_to_num(signal)
    out = scipy.signal.resample_poly(
        finite, ratio.numerator, ratio.denominator, axis=1, padtype="line"
    )
    nearest = (
        np.minimum(np.arange(out.shape[1]) * rate_hz / RATE_HZ, signal.shape[1] - 1)
        .round()
        .astype(int)
    )
    is_flat = flat_stretches.marks(signal, rate_hz)
    for lead in np.flatnonzero(is_flat.any(axis=1)):
        line = np.interp(
            np.arange(out.shape[1]) / RATE_HZ, np.arange(signal.shape[1]) / rate_hz, finite[lead]
        )
        out[lead] = np.where(is_flat[lead, nearest], line, out[lead])
    return np.where(np.isnan(signal)[:, nearest], np.nan, out)


def clean(ecg: np.ndarray) -> np.ndarray:
    """Clean one record: NaN to 0, clip to ±4 standard deviations of the whole record, subtract the
    baseline. Where a lead's level would be clipped, all leads are brought to 0 before.

    Args:
        ecg: (12, samples), mV at 500 Hz.

    Returns:
        (12, samples) float32, mV.

    Source: order and constants of the authors' utils/preprocessing.py (facts/authors-code.md §2.8).
    The mean is not removed before clipping; the standard deviation is one number over all leads.
    Levels are ours: on millivolts far from 0 the authors' code cuts every beat off.
    """
    values = np.asarray(ecg, dtype=np.float64) - _levels(ecg)
    finite = np.nan_to_num(values, posinf=0, neginf=0)
    limit = CLIP_SD * finite.std()
    return remove_baseline(np.clip(finite, -limit, limit)).astype(np.float32)


def _levels(ecg: np.ndarray) -> np.ndarray:
    """What `clean` takes off each lead before it clips, (12, 1) mV: its median, or 0 of all leads
    where none lies far off.
    """
    values = np.asarray(ecg, dtype=np.float64)
    medians = _medians(values)
    spread = np.nan_to_num(values - medians, posinf=0, neginf=0).std()
    is_far = np.abs(medians).max() > LEVEL_SD * spread
    return medians if is_far else np.zeros_like(medians)


def _medians(values: np.ndarray) -> np.ndarray:
    """The median of each lead's finite samples, (leads, 1); 0 where it has none."""
    rows = (row[np.isfinite(row)] for row in values)
    return np.array([[np.median(row) if row.size else 0.0] for row in rows])


def remove_baseline(ecg: np.ndarray) -> np.ndarray:
    """Subtract the slow drift of each lead, estimated by asymmetric least squares.

        z = argmin Σᵢ wᵢ (yᵢ − zᵢ)² + λ Σᵢ (Δ²zᵢ)²
        w = p where y > z, else 1 − p;  5 rounds from w = 1

    The matrix diag(w) + λ D'D is symmetric with five bands. The first round is the same for every
    lead and is factorised once; the others are solved lead by lead, which keeps a system inside a
    core's cache.

    Args:
        ecg: (leads, samples) float64 mV, finite. At 500 Hz, λ = 1e7 halves a sine of 1.2 Hz and
            removes one of 0.3 Hz.

    Returns:
        mV, same shape.

    Raises:
        ValueError: fewer than five samples, NaN or infinity.

    Source: Eilers & Boelens 2005; λ, p and rounds from the authors' utils/preprocessing.py. The
    paper cites airPLS [40].
    """
    if ecg.shape[-1] < 5 or not np.isfinite(ecg).all():
        raise ValueError("the baseline needs at least five samples, all of them finite")
    y = np.asarray(ecg, dtype=np.float64)
    bands, factor = _smoother(y.shape[-1])
    baseline = scipy.linalg.cho_solve_banded((factor, True), y.T, check_finite=False).T
    return y - np.stack([_refine(lead, start, bands) for lead, start in zip(y, baseline)])


def _refine(y: np.ndarray, z: np.ndarray, bands: np.ndarray) -> np.ndarray:
    for _ in range(ROUNDS - 1):
        # A tie gets 1 − p; the authors' code gives it 0, which makes the system of an all-zero lead
        # singular.
        weight = np.where(y > z, ASYMMETRY, 1 - ASYMMETRY)
        system = bands.copy(order="F")  # LAPACK's order: it would copy any other
        system[0] += weight
        z = scipy.linalg.solveh_banded(
            system, weight * y, overwrite_ab=True, overwrite_b=True, lower=True, check_finite=False
        )
    return z


@lru_cache(maxsize=8)
def _smoother(n: int) -> tuple[np.ndarray, np.ndarray]:
    """The lower bands of λ D'D for second differences D of n samples, (3, n), and the Cholesky
    factor of 1 + λ D'D.
    """
    bands = np.zeros((3, n), order="F")
    bands[0] = 6
    bands[0, [1, -2]] = 5
    bands[0, [0, -1]] = 1
    bands[1, :-1] = -4
    bands[1, [0, -2]] = -2
    bands[2, :-2] = 1
    bands *= SMOOTHNESS
    return bands, scipy.linalg.cholesky_banded(bands + np.array([[1.0], [0.0], [0.0]]), lower=True)


def normalise(x: "Tensor") -> "Tensor":
    """Standardise the Einthoven, Goldberger and Wilson leads apart, each record for itself.

        x ← (x − μ_g) / √(σ_g² + 1e-12)
        μ_g, σ_g² over the leads of group g and time; population variance

    Args:
        x: (..., 12, time), mV, any floating type.

    Returns:
        Dimensionless, same shape; float64 for float64, else float32.

    Source: paper section IV-A; authors' utils/preprocessing.py.
    """
    import torch  # not above: cohorts are built without it, and every worker of Ray would wait

    x = x if x.dtype == torch.float64 else x.float()
    return torch.cat([_standardise(group) for group in x.split(GROUPS, dim=-2)], dim=-2)


def to_model(recordings: "Tensor", dtype: "dtype") -> "Tensor":
    """What a network reads of stored ECGs, (n, 12, 5000) mV: `normalise`d in float32 at least, then
    of that dtype.
    """
    return normalise(recordings).to(dtype)


def _standardise(x: "Tensor") -> "Tensor":
    deviations = x - x.mean((-2, -1), keepdim=True)
    return deviations / (deviations.square().mean((-2, -1), keepdim=True) + 1e-12).sqrt()


def einthoven(ecg: np.ndarray) -> float:
    """Measure how far the limb leads are from Einthoven's and Goldberger's laws; 0 = held, 1 = as
    large as the ECG.

        r = max over laws of median (|Δ law| / max(size, 0.2 its 99th percentile))
        over the steepest fifth of all samples; size = mean(|ΔI|, |ΔII|, |ΔIII|), Δ over 20 ms

    The laws are III = II − I, aVR = −(I + II)/2, aVL = (I − III)/2, aVF = (II + III)/2.
    Differences, because the baseline is estimated per lead and leaves slow violations; over 20 ms
    and at the steepest samples, because elsewhere rounding dominates, held against the 99th
    percentile of size where beats are short; the median, because clipped peaks break the laws on a
    minority of them.

    Args:
        ecg: (12, samples), mV at 500 Hz, raw or cleaned; NaN is passed over.

    Returns:
        The residual, dimensionless; 0 for flat limb leads.
    """
    violation, size = _law_steps(ecg, STORED_LAG)
    steep = (size >= np.quantile(size, 0.8)) & (size > 0)
    if not steep.any():
        return 0.0
    least_size = STEEP_SHARE * np.quantile(size, 0.99)
    return float(np.median(violation[:, steep] / np.maximum(size[steep], least_size), axis=1).max())


def worst_einthoven(ecg: np.ndarray) -> float:
    """Measure the laws in each second and give the worst: leads that slip out of step late leave
    the whole lawful.

        r = max over seconds, laws and Δ of median (|Δ law| / max(size, typical size))
        over the second's steepest fifth, where median |Δ law| is beyond `rounding`; else 0
        Δ over 2, 10 and 40 ms

    where size = mean(|ΔI|, |ΔII|, |ΔIII|), and the typical one is the median over the steepest
    fifth of the record: a second between two beats is held against the beats. Short steps show a
    slip in time best; long ones are large beside the rounding of a slow and quiet ECG.

    Args:
        ecg: (12, samples), mV at 500 Hz, raw; NaN is passed over.

    Returns:
        The residual, dimensionless; 0 for flat limb leads.
    """
    limit = rounding(ecg)
    return max(_worst_second(*_law_steps(ecg, lag), limit) for lag in LAGS)


def _worst_second(violation: np.ndarray, size: np.ndarray, rounding_mv: float) -> float:
    typical = np.median(size[size >= np.quantile(size, 0.8)])
    worst = 0.0
    for start in range(0, len(size) - RATE_HZ // 2, RATE_HZ):
        second = slice(start, start + RATE_HZ)
        steep = (size[second] >= np.quantile(size[second], 0.8)) & (size[second] > 0)
        if not steep.any():
            continue
        steep_violation = violation[:, second][:, steep]
        is_beyond = np.median(steep_violation, axis=1) > rounding_mv
        if not is_beyond.any():
            continue
        ratios = steep_violation / np.maximum(size[second][steep], typical)
        worst = max(worst, float((np.median(ratios, axis=1) * is_beyond).max()))
    return worst


def out_of_step(ecg: np.ndarray) -> float:
    """Measure by how many samples a limb lead is ahead of the others, or behind them.

        r = max over laws and their leads of the second largest over seconds of
            |Σ law · slope| / Σ slope², where the slope explains half of the law's violation; else 0

    where slope is the lead's change in two samples, halved and times its factor in the law. A lead
    that slips by r samples breaks its laws by r times its slope, which adds up over a beat.
    Rounding of a sample does not, as it is not in the slope there: so slips are seen below the
    rounding of single samples. Clipped beats, gains and drift are not explained by a slope. A lead
    that is quiet in a second is held against the limb leads' power of that or a typical second.

    Args:
        ecg: (12, samples), mV at 500 Hz, raw or cleaned; NaN is passed over.

    Returns:
        Samples of 2 ms; 0 for flat limb leads.
    """
    n_seconds = ecg.shape[1] // RATE_HZ
    if n_seconds < 2:
        return 0.0
    limbs = np.asarray(ecg[:6, : n_seconds * RATE_HZ], dtype=np.float64)
    laws = np.stack([flat_stretches.filled(law) for law in _LAWS @ limbs])
    laws -= scipy.ndimage.uniform_filter1d(laws, SLIP_BASE, axis=1)
    slopes = np.gradient(limbs, axis=1)
    slopes[:, ~np.isfinite(slopes + limbs).all(axis=0)] = 0
    laws = laws.reshape(len(laws), 1, n_seconds, RATE_HZ)
    slopes = _LAWS[:, :, None, None] * slopes.reshape(1, len(limbs), n_seconds, RATE_HZ)
    products = np.abs((laws * slopes).sum(axis=3))
    power = (slopes**2).sum(axis=3)
    quiet = QUIET_LEAD * power.sum(axis=1, keepdims=True) / 3  # a law has three leads
    least_power = np.maximum(quiet, np.median(quiet, axis=2, keepdims=True))
    is_explained = products**2 > 0.5 * power * (laws**2).sum(axis=3)
    size = np.maximum(power, least_power)
    slips = np.divide(products, size, out=np.zeros_like(size), where=is_explained)
    return float(np.sort(slips, axis=2)[:, :, -2].max())


def rounding(ecg: np.ndarray) -> float:
    """How far rounding may take the limb leads from their laws, mV.

    1.5 counts of the recorder, which are the smallest steps between samples; where those are too
    small for counts, the samples were resampled or scaled, and may hide counts of 10 µV. Counts may
    hide behind finer ones too: what breaks the laws over 40 ms in the quiet half of the samples is
    rounding up to 1.5 counts of 10 µV, as a fault grows with the beats.

    Args:
        ecg: (12, samples), mV at 500 Hz, raw.
    """
    steps = np.abs(np.diff(np.asarray(ecg[:3], dtype=np.float64), axis=1))
    smallest = [lead[lead > 1e-7].min(initial=np.inf) for lead in steps]
    count = float(np.median(smallest))
    count = count if FINEST_MV <= count < np.inf else COARSEST_MV
    violation, size = _law_steps(ecg, LAGS[-1])
    quiet = violation[:, size <= np.median(size)]
    quiet_limit = float(np.quantile(quiet, 0.9, axis=1).max())
    return max(COUNTS * count, min(quiet_limit, COUNTS * COARSEST_MV))


def level_violation(ecg: np.ndarray) -> float:
    """Measure how far the levels of the limb leads are from the laws: a baseline that was lost, an
    offset of one lead.

        r = max over laws of max(|median over seconds of m|, max over seconds of |m| / 2)
            / max(1 mV, height of the beats),   m = the law's median in a second

    One second may be twice as far off, as where a baseline was removed lead by lead.

    Args:
        ecg: (12, samples), mV at 500 Hz, raw; NaN is passed over.
    """
    limbs = np.asarray(ecg[:6], dtype=np.float64)
    laws = (_LAWS @ limbs)[:, : limbs.shape[1] // RATE_HZ * RATE_HZ]
    seconds = laws.reshape(len(laws), -1, RATE_HZ)
    seconds = seconds[:, np.isfinite(seconds[0]).any(axis=1)]
    if not seconds.size:
        return 0.0
    medians = np.nanmedian(seconds, axis=2)
    whole = np.abs(np.median(medians, axis=1)).max()
    height = _heights(limbs)[0][:3].mean()
    return float(max(whole, np.abs(medians).max() / 2) / max(1.0, height))


def _law_steps(ecg: np.ndarray, lag: int) -> tuple[np.ndarray, np.ndarray]:
    """By how much each law breaks from a sample to the one `lag` later, (4, n), and mean(|ΔI|,
    |ΔII|, |ΔIII|), (n,); both 0 beside missing samples.
    """
    limbs = np.asarray(ecg[:6], dtype=np.float64)
    steps = limbs[:, lag:] - limbs[:, :-lag]
    steps[:, ~np.isfinite(steps).all(axis=0)] = 0
    return np.abs(_LAWS @ steps), np.abs(steps[:3]).mean(axis=0)


def amplitude(signal: np.ndarray, rate_hz: float = RATE_HZ) -> float:
    """The height of a beat: 1st to 99th percentile in windows of 2 s, median over windows and over
    leads that are not flat.

    Two seconds hold a beat down to 30 per minute; the percentiles pass over 20 ms at either end, so
    that the spikes of a pacemaker (10 mV, 10 ms) do not count.

    Args:
        signal: (leads, samples), any unit.
        rate_hz: samples per second.

    Returns:
        In the unit of `signal`; 0 if every lead is flat.
    """
    return _typical(*_heights(signal, rate_hz))


def _typical(height: np.ndarray, live: np.ndarray) -> float:
    return float(np.median(height[live])) if live.any() else 0.0


def _heights(signal: np.ndarray, rate_hz: float = RATE_HZ) -> tuple[np.ndarray, np.ndarray]:
    """The height of each lead's beats as `amplitude` measures it, and whether the lead moves at
    all.
    """
    width = max(1, min(int(2 * rate_hz), signal.shape[1]))
    windows = np.nan_to_num(signal[:, : signal.shape[1] // width * width]).reshape(
        len(signal), -1, width
    )
    low, high = np.quantile(windows, (0.01, 0.99), axis=2, method="nearest")
    return np.median(high - low, axis=1), np.ptp(windows, axis=(1, 2)) > 0


def quality(signal: np.ndarray) -> list[str]:
    """List what makes a settled recording unfit, worst first; empty if nothing does.

    Args:
        signal: (12, 5000), mV, before cleaning (clipping hides saturation and wrong gains).

    Returns:
        Reasons in stable words: missing samples, flat lead, flat stretch (padding at either end, or
            a quarter of a lead), stretch of noise (bytes that are no samples), two leads with one
        signal, implausible amplitude, saturated,
        Einthoven's law violated (and by which two leads' exchange, where one exchange restores it,
        or that it is the levels or one lead's time).

    Electrodes on the wrong limbs or ribs keep the laws and can only be suspected:
    `quality_flags.reversal`.
    """
    finite = np.nan_to_num(signal)
    height, live = _heights(signal)
    faults = {
        "missing samples": np.isnan(signal).mean(1).max() > MISSING_LIMIT,
        "flat lead": height.min() < FLAT_MV,
        "flat stretch": _padded(flat_stretches.marks(signal, RATE_HZ)),
        "stretch of noise": noise_stretches.marks(signal).any(),
        "two leads with one signal": _repeated(finite),
        "implausible amplitude": not AMPLITUDE_MV[0] <= _typical(height, live) <= AMPLITUDE_MV[1]
        or _absurd(finite, height),
        "saturated": _saturated(finite),
    }
    law_faults = []
    if worst_einthoven(signal) > EINTHOVEN_LIMIT:
        law_faults = ["Einthoven's law violated" + exchanged(signal)]
    elif out_of_step(signal) > SLIP_SAMPLES:
        law_faults = ["Einthoven's law violated by a lead out of step"]
    elif level_violation(signal) > LEVEL_LIMIT:
        law_faults = ["Einthoven's law violated by the leads' levels"]
    return [name for name, is_present in faults.items() if is_present] + law_faults


def faults(stored_ecg: np.ndarray) -> Iterator[str]:
    """What is wrong with a stored ECG, (12, 5000) float16 mV; limits are wide, and catch wrong
    units and swapped leads.
    """
    return (words for _, words in _stored_faults(stored_ecg))


def _stored_faults(stored_ecg: np.ndarray) -> Iterator[tuple[str, str]]:
    """Each fault as a reason in stable words and as words that say where and how much."""
    signal = stored_ecg.astype(np.float32)
    if not np.isfinite(signal).all():
        lead, sample = np.argwhere(~np.isfinite(signal))[0]
        yield "not finite", f"ECG is not finite, lead {LEADS[lead]} sample {sample}"
        return
    highest = np.abs(signal).max(axis=1)
    if highest.max() > PEAK_MV:
        name = LEADS[highest.argmax()]
        words = f"lead {name} reaches {highest.max():.0f} mV, more than {PEAK_MV:.0f}"
        yield "implausible amplitude", words
    span = np.ptp(signal, axis=1)
    flat_shares = flat_stretches.marks(signal, RATE_HZ).mean(axis=1)
    if span.min() < BLANK_MV:
        yield "flat lead", f"lead {LEADS[span.argmin()]} is flat"
    elif flat_shares.max() > STORED_FLAT_SHARE:
        words = f"lead {LEADS[flat_shares.argmax()]} is flat for {10 * flat_shares.max():.1f} s"
        yield "flat stretch", words
    elif (residual := einthoven(signal)) > EINTHOVEN_LIMIT:
        words = f"limb leads break Einthoven's law by {residual:.2f}, more than {EINTHOVEN_LIMIT}"
        yield "Einthoven's law violated", words


def exchanged(signal: np.ndarray) -> str:
    """Say which two limb leads of a settled recording bear each other's names: `: aVL and aVF
    exchanged`, or nothing.

    One exchange at most restores the laws; where none does, another fault broke them.
    """
    for a, b in _EXCHANGES:
        order = list(range(6))
        order[a], order[b] = b, a
        if einthoven(signal[order]) > EINTHOVEN_LIMIT:
            continue  # the quicker measure
        if worst_einthoven(signal[order]) <= EINTHOVEN_LIMIT:
            return f": {LEADS[a]} and {LEADS[b]} exchanged"
    return ""


def _padded(is_flat: np.ndarray) -> bool:
    """Whether stretches without signal take too much of a lead, or begin or end all leads at
    once.
    """
    ends = np.concatenate([is_flat[:, :FLAT_END], is_flat[:, -FLAT_END:]], axis=1)
    at_an_end = ends.all(axis=0).any()
    return bool(at_an_end or is_flat.mean(axis=1).max() > FLAT_SHARE)


def _repeated(signal: np.ndarray) -> bool:
    """Whether two leads differ by a constant, to 10 µV: a channel that was written twice."""
    return any(
        np.ptp(signal[i + 1 :] - signal[i], axis=1).min() < FLAT_MV for i in range(len(signal) - 1)
    )


def _absurd(signal: np.ndarray, height: np.ndarray) -> bool:
    """Whether one lead is where no electrode can be, however plausible the others are: a unit or
    gain of its own.
    """
    signal = signal.astype(np.float64)
    levels = np.median(signal, axis=1, keepdims=True)
    beats = signal - levels
    limit = CLIP_SD * beats.std()
    span = np.ptp(np.clip(beats, -limit, limit), axis=1).max()
    offset = np.abs(levels).max()
    return bool(height.max() > LEAD_MV or span > PEAK_MV or offset > OFFSET_MV)


def _saturated(signal: np.ndarray) -> bool:
    """Whether a lead stays 50 ms at its own extreme, 1 mV or more from its median."""
    centre = np.median(signal, axis=1, keepdims=True)
    for extreme in (signal.max(1, keepdims=True), signal.min(1, keepdims=True)):
        at_extreme = (signal == extreme) & (np.abs(extreme - centre) >= SATURATED_MV)
        rows = at_extreme[at_extreme.sum(1) >= SATURATED_SAMPLES]
        if rows.size and sliding_window_view(rows, SATURATED_SAMPLES, axis=1).all(-1).any():
            return True
    return False
