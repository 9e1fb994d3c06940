"""Flags of suspicious ECGs: what is put into a sound recording is found and named, and nothing else is."""

import sys
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from ecgcmr.raw.synthetic import subject
from ecgcmr.signals import ecg, quality_flags

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks" / "studies"))
from flags import hum, muscle, spiked, through_electrodes

PEOPLE = 12


@lru_cache(maxsize=PEOPLE)
def person(index):
    return subject.subject(index, 0).ecg.astype(np.float64)


def wired(signal, exchange):
    """The recording with two electrodes exchanged; exchanges undo themselves."""
    return through_electrodes(
        quality_flags.EXCHANGES[exchange] @ signal[list(quality_flags.INDEPENDENT)]
    )


def test_sound_recordings_have_no_flag():
    for index in range(PEOPLE):
        assert quality_flags.flags(person(index)) == dict.fromkeys(quality_flags.FLAGS, 0.0)


def test_exchanges_are_what_they_say():
    signal = person(0)
    one, two, three, avr, avl, avf = signal[:6]
    limbs = {
        "RA–LA": [-one, three, two, avl, avr, avf],
        "RA–LL": [-three, -two, -one, avf, avl, avr],
        "LA–LL": [two, one, -three, avr, avf, avl],
    }
    for name, leads in limbs.items():
        assert (
            np.abs(wired(signal, name)[:6] - np.stack(leads)).max() < 2e-3
        )  # the recording's own rounding
    assert (wired(signal, "V2–V5")[[7, 10]] == signal[[10, 7]]).all()
    assert (wired(signal, "V1–V6 in reverse")[6:] == signal[6:][::-1]).all()
    for T in quality_flags.EXCHANGES.values():
        assert (np.eye(8) == T @ T).all()


@pytest.mark.parametrize(
    "exchange", ["RA–LA", "RA–LL", "V1–V3", "V1–V6", "V2–V4", "V3–V6", "V1–V6 in reverse"]
)
def test_exchanged_electrodes_are_named(exchange):
    spoilt = [wired(person(index), exchange) for index in range(PEOPLE)]
    assert not any(ecg.quality(signal) for signal in spoilt)  # the laws hold: no refusal
    assert np.mean([quality_flags.reversal(signal) == exchange for signal in spoilt]) >= 0.75
    assert np.mean([quality_flags.flags(signal)["flag_lead_reversal"] for signal in spoilt]) >= 0.75


def test_a_recording_of_any_size_is_judged_alike():
    spoilt = wired(person(1), "RA–LL")
    assert quality_flags.reversal(spoilt) == quality_flags.reversal(3 * spoilt) == "RA–LL"
    assert quality_flags.reversal(np.zeros((12, 5000))) == ""


def test_a_pacemaker_is_found_and_a_loose_electrode_is_none():
    random = np.random.default_rng(0)
    assert all(
        quality_flags.flags(spiked(person(i), 2.0, random))["flag_paced"] for i in range(PEOPLE)
    )
    one_lead = person(0).copy()
    one_lead[11, 200::400] += 3.0  # spikes in V6 alone
    assert quality_flags.spikes(one_lead) == 0
    assert quality_flags.flags(muscle(person(0), 0.1, random)) == {
        **dict.fromkeys(quality_flags.FLAGS, 0.0),
        "flag_noisy": 1.0,
    }


def test_noise_is_measured_in_millivolts():
    quiet = quality_flags.noise(person(0))
    assert quiet < 0.03
    assert 0.08 < quality_flags.noise(hum(person(0), 0.1)) < 0.1  # 50 Hz passes the filter at 0.86
    assert quality_flags.flags(hum(person(0), 0.05))["flag_noisy"] == 1
    gap = person(0).copy()
    gap[:, 100:150] = np.nan
    assert set(quality_flags.flags(gap).values()) <= {0.0, 1.0}


def through_cables(signal, exchange):
    """The twelve leads that a recorder makes of the potentials of nine electrodes whose cables are exchanged.

    The legs have one potential, as good as; RA is put to 0, as leads are differences. RL is in no lead.
    """
    one, two = signal[:2]
    potential = {"RA": 0 * one, "LA": one, "LL": two, "RL": 0.98 * two}
    chest = signal[6:] + (one + two) / 3
    for a, b in exchange:
        potential[a], potential[b] = potential[b], potential[a]
    right, left, foot = potential["RA"], potential["LA"], potential["LL"]
    wilson = (right + left + foot) / 3
    return through_electrodes(np.stack([left - right, foot - right, *(chest - wilson)]))


@pytest.mark.parametrize(
    ("exchange", "name", "flat"),
    [
        ([("RA", "RL")], "RA–RL", 1),
        ([("LA", "RL")], "LA–RL", 2),
        ([("RA", "RL"), ("LA", "LL")], "RA–RL and LA–LL", 0),
    ],
)
def test_an_arm_on_the_right_leg_is_named(exchange, name, flat):
    for index in range(PEOPLE):
        spoilt = through_cables(person(index), exchange)
        assert np.argmin(np.ptp(spoilt[:3], axis=1)) == flat
        assert quality_flags.reversal(spoilt) == name
        assert quality_flags.flags(spoilt)["flag_lead_reversal"] == 1


def test_the_left_leg_on_the_right_is_hardly_seen():
    """Both legs have one potential: the leads are those of the right cables."""
    for index in range(PEOPLE):
        assert quality_flags.reversal(through_cables(person(index), [("LL", "RL")])) == ""


def test_exchanges_of_cables_are_the_maps():
    for name in ("RA–LA", "RA–LL", "LA–LL"):
        cables = through_cables(person(2), [tuple(name.split("–"))])
        assert np.abs(cables - wired(person(2), name)).max() < 2e-3
