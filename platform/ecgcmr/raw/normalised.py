"""Arrays that were cleaned and normalised by lead group before: the authors' `…_noBase_gn` files.

One idea: the network reads signals normalised by lead group, and what it reads is still there; only
the millivolts are lost, which people and checks read. The laws of the limb leads give back how
their two groups were scaled and shifted against each other. Beyond that, heights are set to those
of a typical recording, and each recording says so. Such arrays are read by this name alone, as
nothing in an array says whether its baseline was removed.

Source: authors' utils/preprocessing.py (clip, baseline, normalisation by group); issue 1 of
oetu/MMCL-ECG-CMR.
"""

from pathlib import Path

import numpy as np

from ecgcmr.errors import Excluded
from ecgcmr.raw import plain_array, tensors
from ecgcmr.raw.records import EcgRecord, key
from ecgcmr.raw.statements import UNDECLARED, Declaration
from ecgcmr.signals import SIGNALS, ecg

# Standard deviation of the cleaned Einthoven and Wilson leads: medians of 55 CinC recordings, every
# fourth.
LIMBS_MV, CHEST_MV = 0.11, 0.18
WORDS = "normalised before: heights are those of a typical recording, not its own"

find = tensors.find


def suits(file: Path, head: bytes) -> bool:
    """Never: such arrays are read only where they are asked for."""
    return False


def read(source: str, declaration: Declaration = UNDECLARED) -> EcgRecord:
    """Read one recording; it is not cleaned again. Its name says what it is: the authors' form, at
    500 Hz and with the leads in standard order.

    Args:
        source: a file, or `file#row`.
        declaration: what its user says of it; must not say otherwise.

    Raises:
        Excluded: damaged, pickled, of another form, or not normalised by lead group.
    """
    signal, statement = tensors.array(source)
    if signal.shape != SIGNALS["ecg"].shape:
        raise Excluded("not the authors' form: 12 leads and 5000 samples")
    signal = signal.astype(np.float32)
    if plain_array.normalised(signal) != plain_array.GROUP:
        raise Excluded("not normalised by lead group; the format 'tensors' takes millivolts")
    if tuple(map(ecg.lead_name, statement.leads or ecg.LEADS)) != ecg.LEADS:
        raise Excluded("not the authors' form: leads in standard order")
    declaration.check_names(ecg.LEADS)
    return EcgRecord(
        key=key(source),
        signal=restored(signal),
        rate_hz=declaration.rate(statement.rate_hz or float(ecg.RATE_HZ)),
        leads=ecg.LEADS,
        age=None,
        sex=None,
        height=None,
        weight=None,
        labels={},
        repairs=(WORDS,),
        cleaned=True,
    )


def restored(signal: np.ndarray) -> np.ndarray:
    """Undo the normalisation as far as the laws of the limb leads tell; normalised again it is what
    it was.

    With x = (v − μ) / σ in either limb group, I − II + III = 0 gives μ / σ of the first, and the
    slope of the second against what Goldberger's laws make of the first is σ₁ / σ₂.

    Args:
        signal: (12, 5000), normalised by lead group.

    Returns:
        (12, 5000) float32, mV in size.

    Raises:
        Excluded: the limb leads obey no law.
    """
    x = signal.astype(np.float64)
    einthoven = x[:3] - np.nanmean(x[0] - x[1] + x[2])
    i, ii, iii = einthoven
    goldberger = np.stack([-(i + ii) / 2, (i - iii) / 2, (ii + iii) / 2])
    steps = np.nan_to_num(np.diff(x[3:6], axis=1))
    goldberger_steps = np.nan_to_num(np.diff(goldberger, axis=1))
    slope = (steps * goldberger_steps).sum() / max((goldberger_steps**2).sum(), 1e-12)
    if not slope > 0:
        raise Excluded("Einthoven's law violated")
    groups = [LIMBS_MV * einthoven, LIMBS_MV / slope * x[3:6], CHEST_MV * x[6:]]
    return np.concatenate(groups).astype(np.float32)
