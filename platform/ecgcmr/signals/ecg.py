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
from numpy.lib.stride_tricks import sliding_window_view
from scipy.linalg import cho_solve_banded, cholesky_banded, solveh_banded
from scipy.signal import resample_poly

from ecgcmr.errors import Excluded
from ecgcmr.signals import LEADS, RATE_HZ, SIGNALS, Options, Prepared, quality_flags

if TYPE_CHECKING:
    from torch import Tensor, dtype

RATES_HZ = (
    50.0,
    20_000.0,
)  # beyond these a rate is a mistake, and the filter of the resampling would be unbounded
SAMPLES = SIGNALS["ecg"].shape[1]  # 10 s
GROUPS = (3, 3, 6)  # Einthoven, Goldberger, Wilson: normalised apart (paper, section IV-A)

CLIP_SD = 4.0
SMOOTHNESS = 1e7  # λ at 500 Hz
ASYMMETRY = 0.3  # p
ROUNDS = 5

MISSING_LIMIT = 0.05
FLAT_MV = 0.01  # two steps of a 5 µV converter in most of the time: no electrode
BLANK_MV = 1e-3  # of a stored lead
# `amplitude` of the 224 CinC recordings with their true gains is 0.36–2.2 mV, paced ones included;
# a gain that is wrong by a factor of 5 or more leaves this range except by chance.
AMPLITUDE_MV = (0.15, 4.0)
SATURATED_SAMPLES = 25  # 50 ms at one extreme value; an R peak's top lasts under 10 ms
SATURATED_MV = 1.0
# `einthoven` of the 224 CinC recordings is at most 0.08 (whole microvolts), cleaned and in float16
# at most 0.13; with two limb leads swapped it is above the limit in 223 or all of the 224, 1.6 and
# more in half of them. `worst_einthoven` is at most 0.13.
EINTHOVEN_LIMIT = 0.25
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
        Excluded: `quality` finds fault; the first fault is the reason.
    """
    faults = quality(settled_ecg)
    if faults:
        raise Excluded(faults[0])
    words = ("missing samples set to 0",) if np.isnan(settled_ecg).any() else ()
    return (np.nan_to_num(settled_ecg) if cleaned else clean(settled_ecg)), words


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
    length.
    """
    ratio = Fraction(RATE_HZ / rate_hz).limit_denominator(
        10_000
    )  # off by less than 1 µs after 10 s
    if ratio == 1:
        return signal
    finite = np.nan_to_num(signal)
    out = resample_poly(finite, ratio.numerator, ratio.denominator, axis=1, padtype="line")
    nearest = (
        np.minimum(np.arange(out.shape[1]) * rate_hz / RATE_HZ, signal.shape[1] - 1)
        .round()
        .astype(int)
    )
    return np.where(np.isnan(signal)[:, nearest], np.nan, out)


def clean(ecg: np.ndarray) -> np.ndarray:
    """Clean one record: NaN to 0, clip to ±4 standard deviations of the whole record, subtract the
    baseline.

    Args:
        ecg: (12, samples), mV at 500 Hz.

    Returns:
        (12, samples) float32, mV.

    Source: order and constants of the authors' utils/preprocessing.py (facts/authors-code.md §2.8).
    The mean is not removed before clipping; the standard deviation is one number over all leads.
    """
    finite = np.nan_to_num(np.asarray(ecg, dtype=np.float64), posinf=0, neginf=0)
    limit = CLIP_SD * finite.std()
    return remove_baseline(np.clip(finite, -limit, limit)).astype(np.float32)


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
    baseline = cho_solve_banded((factor, True), y.T, check_finite=False).T
    return y - np.stack([_refine(lead, start, bands) for lead, start in zip(y, baseline)])


def _refine(y: np.ndarray, z: np.ndarray, bands: np.ndarray) -> np.ndarray:
    for _ in range(ROUNDS - 1):
        # A tie gets 1 − p; the authors' code gives it 0, which makes the system of an all-zero lead
        # singular.
        weight = np.where(y > z, ASYMMETRY, 1 - ASYMMETRY)
        system = bands.copy(order="F")  # LAPACK's order: it would copy any other
        system[0] += weight
        z = solveh_banded(
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
    return bands, cholesky_banded(bands + np.array([[1.0], [0.0], [0.0]]), lower=True)


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

        r = max over laws of median |Δ law| / mean(|ΔI|, |ΔII|, |ΔIII|)
        over the steepest fifth of all samples

    The laws are III = II − I, aVR = −(I + II)/2, aVL = (I − III)/2, aVF = (II + III)/2. First
    differences, because the baseline is estimated per lead and leaves slow violations; the steepest
    samples, because elsewhere rounding dominates; the median, because clipped peaks break the laws
    on a minority of them.

    Args:
        ecg: (12, samples), mV, raw or cleaned; NaN counts as 0.

    Returns:
        The residual, dimensionless; 0 for flat limb leads.
    """
    step = np.diff(np.nan_to_num(np.asarray(ecg[:6], dtype=np.float64)), axis=1)
    size = np.abs(step[:3]).mean(0)
    steep = (size >= np.quantile(size, 0.8)) & (size > 0)
    if not steep.any():
        return 0.0
    return float(np.median(np.abs(_LAWS @ step[:, steep]) / size[steep], axis=1).max())


def worst_einthoven(ecg: np.ndarray) -> float:
    """Measure `einthoven` in each second and give the worst: leads that slip out of step late leave
    the whole lawful.

        r = max over seconds and laws of median (|Δ law| / max(size, typical size))
        over the second's steepest fifth

    where size = mean(|ΔI|, |ΔII|, |ΔIII|), and the typical one is the median over the steepest
    fifth of the record: a second between two beats is held against the beats, not against its
    rounding. Of the 223 fit CinC recordings, with all leads moved by one row somewhere after 5.2 s,
    `einthoven` finds under 4 % and this all.

    Args:
        ecg: (12, samples), mV at 500 Hz, raw; NaN counts as 0.

    Returns:
        The residual, dimensionless; 0 for flat limb leads.
    """
    step = np.diff(np.nan_to_num(np.asarray(ecg[:6], dtype=np.float64)), axis=1)
    size = np.abs(step[:3]).mean(0)
    typical = np.median(size[size >= np.quantile(size, 0.8)])
    worst = 0.0
    for start in range(0, step.shape[1], RATE_HZ):
        second_step, second_size = step[:, start : start + RATE_HZ], size[start : start + RATE_HZ]
        steep = (second_size >= np.quantile(second_size, 0.8)) & (second_size > 0)
        if steep.any():
            violations = np.abs(_LAWS @ second_step[:, steep]) / np.maximum(
                second_size[steep], typical
            )
            worst = max(worst, float(np.median(violations, axis=1).max()))
    return worst


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
    height, live = _heights(signal, rate_hz)
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
        Reasons in stable words: missing samples, flat lead, two leads with one signal, implausible
            amplitude, saturated,
        Einthoven's law violated (and by which two leads' exchange, where one exchange restores it).

    Electrodes on the wrong limbs or ribs keep the laws and can only be suspected:
    `quality_flags.reversal`.
    """
    finite = np.nan_to_num(signal)
    faults = {
        "missing samples": np.isnan(signal).mean(1).max() > MISSING_LIMIT,
        "flat lead": _heights(signal)[0].min() < FLAT_MV,
        "two leads with one signal": _repeated(finite),
        "implausible amplitude": not AMPLITUDE_MV[0] <= amplitude(signal) <= AMPLITUDE_MV[1]
        or _absurd(finite),
        "saturated": _saturated(finite),
    }
    law_faults = (
        ["Einthoven's law violated" + exchanged(signal)]
        if worst_einthoven(signal) > EINTHOVEN_LIMIT
        else []
    )
    return [name for name, is_present in faults.items() if is_present] + law_faults


def faults(stored_ecg: np.ndarray) -> Iterator[str]:
    """What is wrong with a stored ECG, (12, 5000) float16 mV; limits are wide, and catch wrong
    units and swapped leads.
    """
    signal = stored_ecg.astype(np.float32)
    if not np.isfinite(signal).all():
        lead, sample = np.argwhere(~np.isfinite(signal))[0]
        yield f"ECG is not finite, lead {LEADS[lead]} sample {sample}"
        return
    highest = np.abs(signal).max(axis=1)
    if highest.max() > PEAK_MV:
        name = LEADS[highest.argmax()]
        yield f"lead {name} reaches {highest.max():.0f} mV, more than {PEAK_MV:.0f}"
    span = np.ptp(signal, axis=1)
    if span.min() < BLANK_MV:
        yield f"lead {LEADS[span.argmin()]} is flat"
    elif (residual := einthoven(signal)) > EINTHOVEN_LIMIT:
        yield f"limb leads break Einthoven's law by {residual:.2f}, more than {EINTHOVEN_LIMIT}"


def exchanged(signal: np.ndarray) -> str:
    """Say which two limb leads of a settled recording bear each other's names: `: aVL and aVF
    exchanged`, or nothing.

    One exchange at most restores the laws; where none does, another fault broke them.
    """
    for a, b in _EXCHANGES:
        order = list(range(6))
        order[a], order[b] = b, a
        if worst_einthoven(signal[order]) <= EINTHOVEN_LIMIT:
            return f": {LEADS[a]} and {LEADS[b]} exchanged"
    return ""


def _repeated(signal: np.ndarray) -> bool:
    """Whether two leads differ by a constant, to 10 µV: a channel that was written twice."""
    return any(
        np.ptp(signal[i + 1 :] - signal[i], axis=1).min() < FLAT_MV for i in range(len(signal) - 1)
    )


def _absurd(signal: np.ndarray) -> bool:
    """Whether one lead is where no electrode can be, however plausible the others are: a unit or
    gain of its own.
    """
    signal = signal.astype(np.float64)
    limit = CLIP_SD * signal.std()
    span = np.ptp(np.clip(signal, -limit, limit), axis=1).max()
    offset = np.abs(np.median(signal, axis=1)).max()
    return bool(_heights(signal)[0].max() > LEAD_MV or span > PEAK_MV or offset > OFFSET_MV)


def _saturated(signal: np.ndarray) -> bool:
    """Whether a lead stays 50 ms at its own extreme, 1 mV or more from its median."""
    centre = np.median(signal, axis=1, keepdims=True)
    for extreme in (signal.max(1, keepdims=True), signal.min(1, keepdims=True)):
        at_extreme = (signal == extreme) & (np.abs(extreme - centre) >= SATURATED_MV)
        rows = at_extreme[at_extreme.sum(1) >= SATURATED_SAMPLES]
        if rows.size and sliding_window_view(rows, SATURATED_SAMPLES, axis=1).all(-1).any():
            return True
    return False
