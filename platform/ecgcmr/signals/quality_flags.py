"""What makes a settled ECG suspicious without making it unfit: a pacemaker, noise, electrodes on
the wrong places, a second without signal.

`ecg.quality` refuses what is certain; what is only likely becomes a 0/1 column of the cohort's
index, `flag_…`, for whoever chooses rows. A flag is no label: it is no task, no input and no
target. The numbers behind the limits are those of `benchmarks/studies/flags.py` on 223 CinC
recordings.
"""

from functools import cache
from itertools import combinations

import numpy as np
import scipy  # its parts come at their first use

from ecgcmr.signals import RATE_HZ, SIGNALS, flat_stretches

FLAGS = SIGNALS["ecg"].flags

SPIKE_MV = 0.15
SPIKES = 4  # in 10 s
# Height of a spike to the median of the same measure: muscle noise makes many and is everywhere.
SPIKE_TO_REST = 20.0
NARROW = 0.7
NOISE_HZ = 40.0
NOISE_MV = 0.04  # mains of 0.13 mV from peak to peak, of which the filter passes 0.86 at 50 Hz
SUSPECT = 0.35
# RMS of a limb lead to that of the other two, Einthoven's three; at least 0.185 in II, 0.135 in III
# and 0.138 in I of 2,271 recordings.
LEGS = 0.16

INDEPENDENT = (0, 1, 6, 7, 8, 9, 10, 11)  # I, II, V1 … V6; the other limb leads follow from these
BAND_HZ = (3.0, 40.0)  # the QRS and most of the T wave, without drift and noise
# Mean second moments of the eight leads over the 223 recordings, each with trace 1; in thousandths.
MOMENTS = np.array(
    [
        [45, 32, -34, 1, 28, 54, 59, 51],
        [32, 60, -35, -16, 31, 69, 75, 64],
        [-34, -35, 82, 76, 34, -16, -41, -46],
        [1, -16, 76, 166, 125, 63, 15, -12],
        [28, 31, 34, 125, 181, 146, 92, 49],
        [54, 69, -16, 63, 146, 193, 158, 107],
        [59, 75, -41, 15, 92, 158, 161, 122],
        [51, 64, -46, -12, 49, 107, 122, 111],
    ]
)
# Towards equal and independent leads, so that a lead which is all but predicted weighs not too
# much.
SHRINK = 0.01


def flags(signal: np.ndarray) -> dict[str, float]:
    """Judge a settled recording.

    Args:
        signal: (12, 5000), mV at 500 Hz, before cleaning (clipping hides spikes).

    Returns:
        Each of `FLAGS` -> 0.0 or 1.0.
    """
    finite = np.nan_to_num(np.asarray(signal, dtype=np.float64))
    suspicions = (
        spikes(finite) >= SPIKES,
        noise(finite) > NOISE_MV,
        bool(reversal(finite)),
        bool(flat_stretches.marks(signal, RATE_HZ).any()),
    )
    return {name: float(value) for name, value in zip(FLAGS, suspicions, strict=True)}


def spikes(signal: np.ndarray) -> int:
    """Count a pacemaker's spikes: higher than 0.15 mV and narrower than 8 ms in three leads or
    more, at most five a second.

        b(k) = third largest over the leads of |x[t] − (x[t − k] + x[t + k]) / 2|
        b(4 ms) > 0.7 b(16 ms) at a spike

    A QRS complex is several times as high over 16 ms as over 4; a spike is as high over both.

    Args:
        signal: (12, samples), mV at 500 Hz, finite.
    """
    sharp, wide = (_bump(signal, k) for k in (2, 8))
    height = max(SPIKE_MV, SPIKE_TO_REST * float(np.median(sharp)))
    peaks, _ = scipy.signal.find_peaks(sharp, height=height, distance=100)
    return sum(bool(sharp[at] > NARROW * wide[max(0, at - 3) : at + 4].max()) for at in peaks)


def _bump(signal: np.ndarray, k: int) -> np.ndarray:
    out = np.zeros(signal.shape[1])
    middle = np.abs(signal[:, k:-k] - (signal[:, : -2 * k] + signal[:, 2 * k :]) / 2)
    out[k:-k] = np.partition(middle, -3, axis=0)[-3]
    return out


def noise(signal: np.ndarray) -> float:
    """Measure mains and muscle: the RMS above 40 Hz of the worst lead, in mV.

    The median over windows of 0.2 s, of which QRS complexes fill fewer than half. A recording at
    100 Hz has nothing above 50 Hz, so that its noise is seen in part only.

    Args:
        signal: (12, samples), mV at 500 Hz, finite.
    """
    high = scipy.signal.sosfiltfilt(_butterworth(4, NOISE_HZ, "highpass"), signal, axis=1)
    windows = high[:, : high.shape[1] // 100 * 100].reshape(len(high), -1, 100)
    return float(np.median(np.sqrt((windows**2).mean(2)), axis=1).max())


def reversal(signal: np.ndarray) -> str:
    """Name the exchange of two electrodes that a recording looks like, e.g. `RA–LA` or `V1–V2`; ""
    if it looks right.

        f(T) = log tr(Σ⁻¹ T M Tᵀ);   suspected: min f(T) < f(1) − 0.35 over the exchanges T

    M are the second moments of I, II, V1 … V6 between 3 and 40 Hz, Σ their mean over recordings, so
    f says how unlikely the leads are as a whole once T has put them back: chest leads progress, and
    predict the limb leads. Any two of the limb or of the chest electrodes, and V1 … V6 in reverse.
    An exchange of LA and LL is hardly seen by any method.

    The legs have nearly one potential, and the right one is in no lead. With RA on the right leg
    and RL on the right arm II = LL − RL is almost flat, with LA and RL exchanged III = LL − LA is,
    with both arms on the legs I is: suspected below 0.16 of the other two. LL–RL changes nothing.

    Args:
        signal: (12, samples), mV at 500 Hz, finite, lawful (see `ecg.einthoven`).

    Source: ours; exchanges of limb electrodes as linear maps from Einthoven's and Goldberger's
    laws; Batchvarov et al. 2007 on those with the right leg.
    """
    own_moments = moments(signal)
    return "" if own_moments is None else likeliest(own_moments, MOMENTS)


def likeliest(own_moments: np.ndarray, reference: np.ndarray) -> str:
    """The exchange that `reversal` names, by a recording's `moments` and their mean over others, in
    thousandths.
    """
    if legs := on_a_leg(own_moments):
        return legs
    precision = np.linalg.inv(reference / 1000 + SHRINK * np.eye(8) / 8)
    unlikely = {
        name: float(np.log(np.sum(precision * (T @ own_moments @ T.T))))
        for name, T in EXCHANGES.items()
    }
    best = min(unlikely, key=unlikely.__getitem__)
    return best if unlikely[best] < unlikely[""] - SUSPECT else ""


def on_a_leg(own_moments: np.ndarray) -> str:
    """Which arm's electrode a recording's `moments` say is on the right leg, by the limb lead that
    is almost flat; "" if none is.
    """
    lead_i, lead_ii = float(own_moments[0, 0]), float(own_moments[1, 1])
    lead_iii = lead_i + lead_ii - 2 * float(own_moments[0, 1])
    power = {"RA–RL": lead_ii, "LA–RL": lead_iii, "RA–RL and LA–LL": lead_i}
    name = min(power, key=power.__getitem__)
    rest = sum(power.values()) - power[name]
    return name if power[name] < LEGS**2 * rest / 2 else ""


def moments(signal: np.ndarray) -> np.ndarray | None:
    """The second moments of the eight independent leads between 3 and 40 Hz, (8, 8), trace 1; None
    where nothing moves.
    """
    band = _butterworth(2, BAND_HZ, "bandpass")
    beats = scipy.signal.sosfiltfilt(band, signal[list(INDEPENDENT)], axis=1)
    product = beats @ beats.T
    total = float(np.trace(product))
    return product / total if total > 0 else None


def _exchanges() -> dict[str, np.ndarray]:
    """Each exchange as a map of (I, II, V1 … V6) onto what they would be without it; all are their
    own inverses.
    """
    limbs = {  # rows I and II; RA–LA: I → −I, II → III; RA–LL: I → −III, II → −II; LA–LL: I ↔ II
        "": [[1, 0], [0, 1]],
        "RA–LA": [[-1, 0], [-1, 1]],
        "RA–LL": [[1, -1], [0, -1]],
        "LA–LL": [[0, 1], [1, 0]],
    }
    chest = {f"V{a + 1}–V{b + 1}": {a: b, b: a} for a, b in combinations(range(6), 2)}
    chest["V1–V6 in reverse"] = {i: 5 - i for i in range(6)}
    maps = {name: np.eye(8) for name in (*limbs, *chest)}
    for name, rows in limbs.items():
        maps[name][:2, :2] = rows
    for name, exchange in chest.items():
        maps[name][2:, 2:] = np.eye(6)[[exchange.get(i, i) for i in range(6)]]
    return maps


EXCHANGES = _exchanges()


@cache
def _butterworth(order: int, hz: float | tuple[float, float], kind: str) -> np.ndarray:
    """A filter of ECGs at 500 Hz in second-order sections."""
    sections: np.ndarray = scipy.signal.butter(order, hz, kind, fs=RATE_HZ, output="sos")
    return sections
