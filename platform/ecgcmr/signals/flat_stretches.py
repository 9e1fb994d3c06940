"""Stretches of a lead that hold no signal: padding, a held value, a line drawn across a gap.

One idea: no heart and no recorder leaves a lead on a straight line for a second. None of 2,271
sound recordings does (benchmarks/studies/sound.py), nor of 781 rounded to 10 µV behind a low pass
of 40 Hz. So a second is suspicious, and padding at either end or over much of a lead is refused
(`ecg.quality`).
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

SECONDS = 1.0
# Either side of the line, so that dither of a count is no signal.
FLAT_MV = 0.006
LOOKED_AT_HZ = 250.0  # a sample in 4 ms is enough to tell, whatever the rate
_PIECES = 8


def marks(signal: np.ndarray, rate_hz: float) -> np.ndarray:
    """Mark the samples in stretches of a second or more that stay within 6 µV of a straight line.

    Args:
        signal: (leads, samples), mV; gaps of NaN are looked at as lines between their ends.
        rate_hz: samples per second.

    Returns:
        (leads, samples), bool.
    """
    step = max(1, int(rate_hz // LOOKED_AT_HZ))
    width = round(SECONDS * rate_hz / step)
    leads = np.stack([filled(lead) for lead in signal[:, ::step].astype(np.float64)])
    is_flat = np.zeros(leads.shape, dtype=bool)
    if _PIECES <= width <= leads.shape[1]:
        for lead, starts in enumerate(_candidates(leads, width)):
            for start in _straight(leads[lead], np.flatnonzero(starts), width):
                is_flat[lead, start : start + width] = True
    return np.repeat(is_flat, step, axis=1)[:, : signal.shape[1]]


def filled(lead: np.ndarray) -> np.ndarray:
    """A lead with lines across its gaps; zeros if it is all gap."""
    finite = np.isfinite(lead)
    if finite.all():
        return lead
    if not finite.any():
        return np.zeros_like(lead)
    return np.interp(np.arange(len(lead)), np.flatnonzero(finite), lead[finite])


def _candidates(leads: np.ndarray, width: int) -> np.ndarray:
    """Where a window may begin whose eighths have means near a line: (leads, starts), bool."""
    piece, n_starts = width // _PIECES, leads.shape[1] - width + 1
    levels = leads - np.median(leads, axis=1, keepdims=True)
    sums = np.cumsum(np.pad(levels, ((0, 0), (1, 0))), axis=1)
    means = (sums[:, piece:] - sums[:, :-piece]) / piece
    offsets = [part * (width - piece) // (_PIECES - 1) for part in range(_PIECES)]
    first, last = (means[:, at : at + n_starts] for at in (0, offsets[-1]))
    near = np.ones(first.shape, dtype=bool)
    for at in offsets[1:-1]:
        line = first + (last - first) * (at / offsets[-1])
        # the means of a flat window lie within FLAT_MV of its line each, so does a line through two
        near &= np.abs(means[:, at : at + n_starts] - line) <= 2.5 * FLAT_MV
    return near


def _straight(lead: np.ndarray, starts: np.ndarray, width: int) -> np.ndarray:
    """Those of the starts at which a window stays within `FLAT_MV` of its line of least squares."""
    if not starts.size:
        return starts
    windows = sliding_window_view(lead, width)[starts]
    time = np.arange(width) - (width - 1) / 2
    deviations = windows - windows.mean(axis=1, keepdims=True)
    deviations -= np.outer(deviations @ time / (time @ time), time)
    return starts[np.abs(deviations).max(axis=1) <= FLAT_MV]
