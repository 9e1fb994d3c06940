"""What the rules of `signals` say of sound ECGs: how far off they are, and how many are flagged. A line of JSON a folder.

    python benchmarks/studies/sound.py --recordings RECORDINGS [--recordings MORE]

RECORDINGS are folders of WFDB recordings. `law`, `levels` and `stored` are the largest `worst_einthoven`,
`level_violation` and `einthoven` of what would be stored, `slip` of `out_of_step`, `rough` of a quarter of a second in
mV; `kept` are those that a cohort takes, `refused` the others by reason, `flags` and `on_a_leg` how many are suspected,
`level_removed` how many lie so far from 0 mV that cleaning moves them.
"""

import argparse
import json
import warnings
from collections import Counter

import numpy as np

from ecgcmr.errors import Excluded
from ecgcmr.raw import wfdb
from ecgcmr.signals import ecg, noise_stretches, quality_flags


def main() -> None:
    """Print a line for each folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recordings", action="append", required=True)
    warnings.filterwarnings("ignore")  # wfdb's, of headers
    for folder in parser.parse_args().recordings:
        print(json.dumps(measured(folder)), flush=True)


def measured(folder: str) -> dict[str, object]:
    """The line of one folder."""
    numbers = dict.fromkeys(("kept", "level_removed"), 0)
    numbers |= dict.fromkeys(("law", "levels", "stored", "slip", "rough"), 0.0)
    refused: Counter[str] = Counter()
    flags: Counter[str] = Counter()
    on_a_leg: Counter[str] = Counter()
    for source in wfdb.find(folder):
        try:
            record = wfdb.read(source)
            settled = ecg.settle(record.signal, record.rate_hz, record.leads)
            stored, words = ecg.prepare(record.signal, record.rate_hz, record.leads)
        except Excluded as error:
            refused[str(error)] += 1
            continue
        numbers["kept"] += 1
        numbers["level_removed"] += "level removed" in words
        numbers["law"] = max(numbers["law"], ecg.worst_einthoven(settled))
        numbers["levels"] = max(numbers["levels"], ecg.level_violation(settled))
        numbers["slip"] = max(numbers["slip"], ecg.out_of_step(settled))
        roughness = float(noise_stretches.roughness(settled).max())
        numbers["rough"] = max(numbers["rough"], roughness)
        as_stored = stored.astype(np.float16).astype(np.float64)
        numbers["stored"] = max(numbers["stored"], ecg.einthoven(as_stored))
        flags.update(name for name, mark in quality_flags.flags(settled).items() if mark)
        suspicion = quality_flags.reversal(settled)
        on_a_leg.update([suspicion] if "RL" in suspicion else [])
    counters = {"refused": refused, "flags": flags, "on_a_leg": on_a_leg}
    return {"recordings": folder.rstrip("/").rpartition("/")[2], **numbers, **counters}


if __name__ == "__main__":
    main()
