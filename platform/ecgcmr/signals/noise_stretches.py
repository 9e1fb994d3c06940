"""Stretches of a lead that are bytes of something else, text or packed data, read as samples.

One idea: such bytes follow no other, so a sample is as far from the mean of its neighbours as noise
of all frequencies alike makes it; a recorder's low pass, muscle, mains and pacemakers leave less,
or last shorter. Of 2,271 sound recordings (benchmarks/studies/sound.py) one has two quarters of a
second of a lead that are as rough, by mains: its second differences are 0.57 of the first.
"""

import numpy as np

WINDOW = 125  # samples: 0.25 s, in which a beat's steep part is the lesser half
# Text as 16 bit counts of 0.1 µV is 0.36 mV rough.
ROUGH_MV = 0.15
ROUGHER = 4.0  # than the lead is elsewhere: a lead that is noisy throughout was recorded so
# Second differences of white noise are √3 of its first ones, of mains below 0.8 at 500 Hz.
WHITE = 1.5


def roughness(signal: np.ndarray, order: int = 2) -> np.ndarray:
    """The median size of differences in each quarter of a second, (leads, windows) mV.

    Args:
        signal: (leads, samples), mV at 500 Hz; NaN counts as 0.
        order: how often differences are taken.
    """
    differences = np.abs(np.diff(np.nan_to_num(signal), order, axis=1))
    n_windows = differences.shape[1] // WINDOW
    windows = differences[:, : n_windows * WINDOW].reshape(len(signal), n_windows, WINDOW)
    return np.median(windows, axis=2)


def marks(signal: np.ndarray) -> np.ndarray:
    """Mark the quarters of a second that are noise, (leads, windows) bool.

    Args:
        signal: (leads, samples), mV at 500 Hz. One of a lower rate has no noise of all frequencies
            left, so none is found.
    """
    bends = roughness(signal)
    if bends.max(initial=0.0) <= ROUGH_MV:
        return np.zeros(bends.shape, dtype=bool)
    steps = roughness(signal, order=1)[:, : bends.shape[1]]
    usual = np.median(bends, axis=1, keepdims=True)
    return (bends > ROUGH_MV) & (bends > ROUGHER * usual) & (bends > WHITE * steps)
