"""How often do the flags of `ecgcmr.flags` find what they are for, and how often what is not there? One line of JSON.

    python benchmarks/studies/flags.py --recordings RECORDINGS        (a folder of WFDB recordings, e.g. of CinC)

Every recording that `ecg.quality` passes is used, as it is and spoilt in known ways:

* `reversal`: for each exchange of electrodes the share that is flagged, and that is named rightly; the reference moments
  are fitted on nine tenths of the recordings and judge the last. `as recorded` is what is flagged without any exchange; some
  of it may be a true one.
* `paced`: by the header's label 10370003 where it has one, and spikes of 0.5 to 2 ms, through a 150 Hz filter, added at 67
  per minute in a random direction.
* `noisy`: 50 Hz mains in one electrode (all leads get their share) and white muscle noise in all, by RMS in mV.

`--fit` prints the reference moments of all of them instead, as they stand in `quality_flags.MOMENTS`. A minute on two cores.
"""

import argparse
import json

import numpy as np
from scipy.signal import butter, resample_poly, sosfiltfilt

from ecgcmr.errors import Excluded
from ecgcmr.raw import wfdb
from ecgcmr.signals import ecg, quality_flags

FOLDS = 10
PACING = "snomed_10370003"


def recordings(path: str) -> tuple[np.ndarray, np.ndarray]:
    """(n, 12, 5000) mV, and whether each is labelled as paced."""
    signals, paced = [], []
    for source in wfdb.find(path):
        try:
            record = wfdb.read(source)
            settled = ecg.settle(record.signal, record.rate_hz, record.leads)
        except Excluded:
            continue
        if not ecg.quality(settled):
            signals.append(np.nan_to_num(settled).astype(np.float64))
            paced.append(record.labels.get(PACING) == 1)
    return np.array(signals), np.array(paced)


def reversal(signals: np.ndarray) -> dict[str, str]:
    """Exchange -> share flagged / share named rightly, with reference moments of other recordings."""
    moments = np.array([quality_flags.moments(signal) for signal in signals])
    fold = np.arange(len(moments)) % FOLDS
    references = [1000 * moments[fold != f].mean(0) for f in range(FOLDS)]
    said = {
        name: [
            quality_flags.likeliest(T @ held @ T.T, references[f])
            for held, f in zip(moments, fold, strict=True)
        ]
        for name, T in quality_flags.EXCHANGES.items()
    }
    shares = {
        name: (np.mean([bool(w) for w in words]), np.mean([w == name for w in words]))
        for name, words in said.items()
    }
    return {
        name or "as recorded": f"{a:.3f}" + (f" / {b:.3f}" if name else "")
        for name, (a, b) in shares.items()
    }


def through_electrodes(eight: np.ndarray) -> np.ndarray:
    """Twelve lawful leads of I, II, V1 … V6."""
    one, two = eight[:2]
    return np.stack(
        [one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2, *eight[2:]]
    )


def spiked(signal: np.ndarray, height_mv: float, random: np.random.Generator) -> np.ndarray:
    """A pacemaker's spikes every 0.9 s; `height_mv` is the RMS over the eight independent leads."""
    fine = np.zeros(20_000)  # 2 kHz
    for start in np.arange(0.3, 9.8, 0.9):
        at = int(2000 * start)
        fine[at : at + int(random.integers(1, 5))] = 1
    shape = sosfiltfilt(butter(2, 150, fs=ecg.RATE_HZ, output="sos"), resample_poly(fine, 1, 4))
    direction = random.standard_normal(8)
    direction *= height_mv / np.sqrt((direction**2).mean())
    return signal + through_electrodes(np.outer(direction, shape / np.abs(shape).max()))


def hum(signal: np.ndarray, rms_mv: float) -> np.ndarray:
    """50 Hz in the left arm's electrode: whole in I and III, a third in the chest leads, by Wilson's terminal."""
    wave = rms_mv * np.sqrt(2) * np.sin(2 * np.pi * 50 * np.arange(signal.shape[1]) / ecg.RATE_HZ)
    return signal + through_electrodes(np.outer([1, 0, *[-1 / 3] * 6], wave))


def muscle(signal: np.ndarray, rms_mv: float, random: np.random.Generator) -> np.ndarray:
    """White noise, independent in the eight independent leads."""
    return signal + through_electrodes(rms_mv * random.standard_normal((8, signal.shape[1])))


def share(name: str, signals: list[np.ndarray]) -> float:
    """How many of the recordings get a flag."""
    return round(float(np.mean([quality_flags.flags(signal)[name] for signal in signals])), 3)


def main() -> None:
    """Print one line of JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recordings", required=True)
    parser.add_argument("--fit", action="store_true")
    args = parser.parse_args()
    signals, labelled = recordings(args.recordings)
    if args.fit:
        print(
            (1000 * np.mean([quality_flags.moments(signal) for signal in signals], axis=0))
            .round()
            .astype(int)
            .tolist()
        )
        return
    random = np.random.default_rng(0)
    plain = list(signals[~labelled])
    paced = {
        f"spikes of {mv} mV": share("flag_paced", [spiked(s, mv, random) for s in plain])
        for mv in (0.3, 0.5, 1, 2)
    }
    noisy = {
        f"mains {mv} mV": share("flag_noisy", [hum(s, mv) for s in plain])
        for mv in (0.03, 0.05, 0.1)
    }
    noisy |= {
        f"muscle {mv} mV": share("flag_noisy", [muscle(s, mv, random) for s in plain])
        for mv in (0.03, 0.05, 0.1)
    }
    print(
        json.dumps(
            {
                "recordings": len(signals),
                "reversal": reversal(signals),
                "paced": {
                    f"labelled, of {int(labelled.sum())}": share(
                        "flag_paced", list(signals[labelled])
                    ),
                    f"not labelled, of {len(plain)}": share("flag_paced", plain),
                    **paced,
                },
                "noisy": {"as recorded": share("flag_noisy", list(signals)), **noisy},
            },
            ensure_ascii=False,
        )
    )


if __name__ == "__main__":
    main()
