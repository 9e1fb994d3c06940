"""Who are the synthetic people, and how fast are they made? The numbers of docs/synthetic.md.

    python benchmarks/generator.py [--hearts 100000] [--subjects 40]

Draws latent hearts and prints prevalences, and means and standard deviations of the healthy (no disease, no scar,
BMI < 30) by sex, beside those published for the UK Biobank (Petersen et al. 2017, mean, sd). Then makes whole subjects on
one core, as a shard's task does, and prints subjects per second and what each of the steps takes. One JSON line.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "platform"))

import numpy as np

from ecgcmr import tasks
from ecgcmr.raw.synthetic import cmr as synthetic_cmr
from ecgcmr.raw.synthetic import subject as synthetic
from ecgcmr.signals import cmr, ecg

LATENTS = {"LVEDV": "edv", "LVESV": "esv", "LVM": "mass", "LVEF": "ef", "RVEDV": "rv_edv"}
PUBLISHED = {  # doi:10.1186/s12968-017-0327-9, reference ranges of 800 healthy participants
    "men": {
        "LVEDV": (166, 32),
        "LVESV": (69, 16),
        "LVM": (103, 21),
        "LVEF": (58, 5),
        "RVEDV": (182, 36),
    },
    "women": {
        "LVEDV": (124, 21),
        "LVESV": (49, 11),
        "LVM": (70, 13),
        "LVEF": (61, 5),
        "RVEDV": (130, 24),
    },
}


def people(count: int, seed: int) -> dict[str, Any]:
    """Prevalences, and the healthy by sex."""
    h = synthetic.latents(range(count), seed)
    healthy = (
        (h["bmi"] < 30)
        & (h["scar"].max(1) == 0)
        & ~np.any([h[d] > 0 for d in tasks.DISEASES], axis=0)
    )
    line: dict[str, Any] = {
        "hearts": count,
        "prevalence": {
            name: [round(float(h[name].mean()), 5), tasks.PREVALENCE[name]]
            for name in tasks.DISEASES
        },
    }
    for word, sex in (("men", 1), ("women", 0)):
        mine = healthy & (h["sex"] == sex)
        line[word] = {"n": int(mine.sum())} | {
            name: {
                "here": [round(float(h[key][mine].mean()), 1), round(float(h[key][mine].std()), 1)],
                "published": PUBLISHED[word][name],
            }
            for name, key in LATENTS.items()
        }
    strain = {
        name: h[key][healthy].mean(1)
        for name, key in (("Ecc", "ecc_segments"), ("Err", "err_segments"))
    }
    return line | {
        name: [round(float(x.mean()), 1), round(float(x.std()), 1)] for name, x in strain.items()
    }


def speed(count: int, seed: int) -> dict[str, Any]:
    """Seconds of each step for one subject, on one core."""
    taken = dict.fromkeys(("signals", "clean", "frames"), 0.0)
    for index in range(count):
        start = time.perf_counter()
        subject = synthetic.subject(index, seed)
        made = time.perf_counter()
        ecg.clean(subject.ecg)
        cleaned = time.perf_counter()
        cmr.prepare_frames(
            subject.cmr, spacing_mm=(synthetic_cmr.SPACING_MM, synthetic_cmr.SPACING_MM)
        )
        done = time.perf_counter()
        if index:  # the first pays for imports and tables
            for name, seconds in zip(
                taken, (made - start, cleaned - made, done - cleaned), strict=True
            ):
                taken[name] += seconds / (count - 1)
    return {"subjects_per_s": round(1 / sum(taken.values()), 1)} | {
        f"{k}_ms": round(1e3 * v, 2) for k, v in taken.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hearts", type=int, default=100_000)
    parser.add_argument("--subjects", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print(
        json.dumps(people(args.hearts, args.seed) | {"one_core": speed(args.subjects, args.seed)})
    )


if __name__ == "__main__":
    main()
