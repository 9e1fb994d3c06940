"""Are sound ECGs refused because their recorder rounds coarsely, and are wrong ones still found? Lines of JSON, a table.

    python benchmarks/studies/resolution.py --recordings RECORDINGS [--recordings MORE] [--every 1]

RECORDINGS are folders of WFDB recordings. Those that `ecg.quality` passes as they come are passed through a low pass (4th
order, both ways; one above half the rate changes nothing and is left out), rounded to counts at their own rate, and judged
again. Rounding is of three kinds: `each` lead for itself; `derived`, where I and II are rounded and the other limb leads
are made of the rounded ones and rounded again, as UK Biobank's recorder does; and `hidden`, where each is rounded, brought
to 7/8 of its rate and stored in whole microvolts, so that no step shows the counts.

One line per setting: how many were judged and refused, by reason, and of every tenth with a fault planted in the limb
leads after rounding the share in which the laws are found broken. Exchanges are of any two of the six, the other faults
of one of them, drawn anew for each recording. An hour on two cores for 2,271 recordings.
"""

import argparse
import json
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
from scipy.signal import butter, resample_poly, sosfiltfilt

from ecgcmr.errors import Excluded
from ecgcmr.raw import wfdb
from ecgcmr.signals import ecg

COUNTS_MV = (0.001, 0.0025, 0.00488, 0.005, 0.010)
LOW_PASS_HZ = (40.0, 100.0, 150.0)
FAULTY = 10  # every tenth recording gets faults
Fault = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def recordings(paths: list[str], every: int) -> Iterator[tuple[np.ndarray, float]]:
    """(12, samples) mV and the rate of each recording that passes as it comes."""
    for path in paths:
        for source in wfdb.find(path)[::every]:
            try:
                record = wfdb.read(source)
                samples = int(np.ceil(12 * record.rate_hz))
                if not ecg.quality(ecg.settle(record.signal, record.rate_hz, record.leads)):
                    yield ecg._twelve(record.signal[:, :samples], record.leads), record.rate_hz
            except Excluded:
                continue


def rounded(signal: np.ndarray, rate_hz: float, count_mv: float, kind: str) -> np.ndarray:
    """The recording settled after rounding, (12, 5000) mV."""
    counts = np.round(signal / count_mv)
    if kind == "derived":
        one, two = counts[:2]
        derived = [two - one, -(one + two) / 2, one - two / 2, two - one / 2]
        counts[2:6] = np.round(derived)
    out = counts * count_mv
    if kind == "hidden":
        long = np.concatenate([out, out[:, ::-1]], axis=1)  # 7/8 of 10 s are too short
        out = np.round(resample_poly(long, 7, 8, axis=1, padtype="line"), 3)
        rate_hz *= 7 / 8
    return ecg.settle(out.astype(np.float32), rate_hz, ecg.LEADS)


def low_passed(signal: np.ndarray, rate_hz: float, limit_hz: float) -> np.ndarray:
    """The recording through a Butterworth filter, both ways."""
    if limit_hz >= rate_hz / 2:
        return signal
    return sosfiltfilt(butter(4, limit_hz, fs=rate_hz, output="sos"), signal, axis=1)


def exchanged(signal: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Two limb leads with each other's names."""
    order = np.arange(12)
    a, b = random.choice(6, 2, replace=False)
    order[[a, b]] = b, a
    return signal[order]


def changed(change: Callable[[np.ndarray], np.ndarray]) -> Fault:
    """A fault of one limb lead."""

    def fault(signal: np.ndarray, random: np.random.Generator) -> np.ndarray:
        out = signal.copy()
        lead = random.integers(6)
        out[lead] = change(out[lead])
        return out

    return fault


FAULTS: dict[str, Fault] = {
    "two exchanged": exchanged,
    "sign": changed(lambda lead: -lead),
    "gain 2": changed(lambda lead: 2 * lead),
    "gain 1/2": changed(lambda lead: lead / 2),
    "offset 0.5 mV": changed(lambda lead: lead + 0.5),
    "offset 5 mV of all": lambda signal, random: signal + 5,
    "slip 2 ms": changed(lambda lead: np.roll(lead, 1)),
    "slip 10 ms": changed(lambda lead: np.roll(lead, 5)),
    "slip 20 ms": changed(lambda lead: np.roll(lead, 10)),
}


def lawless(signal: np.ndarray) -> bool:
    """Whether the laws are found broken."""
    return (
        ecg.worst_einthoven(signal) > ecg.EINTHOVEN_LIMIT
        or ecg.out_of_step(signal) > ecg.SLIP_SAMPLES
        or ecg.level_violation(signal) > ecg.LEVEL_LIMIT
    )


def setting(
    sound: list[tuple[np.ndarray, float]], low_pass_hz: float, count_mv: float, kind: str
) -> dict[str, object]:
    """One line."""
    random = np.random.default_rng(0)
    reasons: Counter[str] = Counter()
    found = {name: [] for name in FAULTS}
    n = 0
    for signal, rate_hz in sound:
        if low_pass_hz >= rate_hz / 2 and low_pass_hz != LOW_PASS_HZ[1]:
            continue  # the same as 100 Hz
        n += 1
        judged = rounded(low_passed(signal, rate_hz, low_pass_hz), rate_hz, count_mv, kind)
        reasons.update(ecg.quality(judged)[:1])
        if n % FAULTY == 1:
            for name, fault in FAULTS.items():
                found[name].append(lawless(fault(judged, random)))
    return {
        "counts_uv": 1000 * count_mv,
        "low_pass_hz": low_pass_hz,
        "rounding": kind,
        "recordings": n,
        "refused": sum(reasons.values()),
        "reasons": dict(reasons),
        "with_faults": len(found["sign"]),
        "caught": {name: round(float(np.mean(marks)), 3) for name, marks in found.items()},
    }


def main() -> None:
    """Print the lines, then the table of the docs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recordings", required=True, action="append")
    parser.add_argument("--every", type=int, default=1)
    args = parser.parse_args()
    sound = list(recordings(args.recordings, args.every))
    lines = []
    for count_mv in COUNTS_MV:
        for low_pass_hz in LOW_PASS_HZ:
            for kind in ("each", "derived", "hidden"):
                lines.append(setting(sound, low_pass_hz, count_mv, kind))
                print(json.dumps(lines[-1]), flush=True)
    print(
        f"| counts | refused at {', '.join(f'{hz:g}' for hz in LOW_PASS_HZ)} Hz | "
        + " | ".join(FAULTS)
        + " |"
    )
    print("|---|---|" + "---|" * len(FAULTS))
    for count_mv in COUNTS_MV:
        own = [line for line in lines if line["counts_uv"] == 1000 * count_mv]
        refused = [
            f"{sum(line['refused'] for line in own if line['low_pass_hz'] == hz)} of "
            f"{sum(line['recordings'] for line in own if line['low_pass_hz'] == hz)}"
            for hz in LOW_PASS_HZ
        ]
        least = [f"{100 * min(line['caught'][name] for line in own):.0f} %" for name in FAULTS]
        print(f"| {1000 * count_mv:g} µV | {', '.join(refused)} | " + " | ".join(least) + " |")


if __name__ == "__main__":
    main()
