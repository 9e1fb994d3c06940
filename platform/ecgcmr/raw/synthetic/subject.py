"""A synthetic paired cohort: subject by subject, an ECG, three CMR frames, phenotypes and diagnoses
of one latent heart.

The idea: `subject(index, seed)` is a pure function of its two numbers, so that any part of a cohort
of any size can be made anywhere, in any order. The heart is in `latent_heart`, the signals in
`synthetic_ecg` and `synthetic_cmr`; here they meet, and here the heart is measured. Nothing is
cleaned, cropped or scaled: subjects enter a cohort as recordings do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ecgcmr import tasks
from ecgcmr.raw.synthetic import cmr as synthetic_cmr
from ecgcmr.raw.synthetic import ecg as synthetic_ecg
from ecgcmr.raw.synthetic import heart as latent_heart

# Standard deviations of repeated measurements: mL and g from the inter-observer study of Petersen
# et al. 2017 and the repeat scans of Bhuva et al. 2019; mm and % by segment from the repeatability
# of ukbb_cardiac (Bai et al. 2018, 2020).
_ERROR = {
    "LVEDV": 4.0,
    "LVESV": 3.5,
    "LVM": 4.0,
    "RVEDV": 5.5,
    "RVESV": 5.0,
    "WT": 0.25,
    "Ecc": 1.3,
    "Err": 4.0,
}

# What a cohort records of its origin; raise `model` when a change of the generator changes what it
# makes.
RECIPE: dict[str, object] = {
    "model": 1,
    "ecg": {
        "rate_hz": synthetic_ecg.RATE_HZ,
        "samples": synthetic_ecg.SAMPLES,
        "count_mv": synthetic_ecg.COUNT_MV,
    },
    "cmr": {"shape": list(synthetic_cmr.SHAPE), "spacing_mm": synthetic_cmr.SPACING_MM},
    "phenotyped": "one of each pair of subjects",
}


@dataclass(frozen=True)
class Subject:
    """One subject-visit as recorded.

    Attributes:
        ecg: (12, 5000) float32, mV at 500 Hz, order of `ecg.LEADS`, with drift and noise.
        cmr: (3, 192, 208) float32, scanner units, 1.8 mm; ES, mid, ED of the middle short-axis
            slice.
        age: years. sex: 0 female, 1 male. height: cm. weight: kg.
        diseases: tasks.DISEASES -> 0.0 or 1.0, ever diagnosed.
        phenotypes: tasks.PHENOTYPES -> value in tasks.UNITS, as measured.
        phenotyped: whether the cohort may show them; see `phenotyped`.
        latents: the heart itself, without error; numbers, or (16,) arrays by AHA segment.
    """

    ecg: np.ndarray
    cmr: np.ndarray
    age: float
    sex: float
    height: float
    weight: float
    diseases: dict[str, float]
    phenotypes: dict[str, float]
    phenotyped: bool
    latents: dict[str, float | np.ndarray]


def subject(index: int, seed: int) -> Subject:
    """Subject `index` of the cohort `seed`; a pure function, whatever the size of the cohort."""
    h = heart(index, seed)
    return Subject(
        ecg=synthetic_ecg.record(h, latent_heart.generator(index, seed, 1)),
        cmr=synthetic_cmr.frames(h, latent_heart.generator(index, seed, 2)),
        age=round(float(h["age"]), 1),
        sex=float(h["sex"]),
        height=round(float(h["height"]), 1),
        weight=round(float(h["weight"]), 1),
        diseases={name: float(h[name]) for name in tasks.DISEASES},
        phenotypes=measure(h, latent_heart.generator(index, seed, 3)),
        phenotyped=phenotyped(index, seed),
        latents=h,
    )


def heart(index: int, seed: int) -> dict[str, float | np.ndarray]:
    """Latents of one subject: numbers, or (16,) arrays by AHA segment."""
    rows = latents([index], seed)
    return {name: value[0] if value.ndim > 1 else float(value[0]) for name, value in rows.items()}


def latents(indices: Sequence[int] | np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Latents of many subjects without their signals: name -> (n,) or (n, 16).

    20,000 take about a second.
    """
    return latent_heart.draw(indices, seed)


def phenotyped(index: int, seed: int) -> bool:
    """Whether the phenotypes of this subject are known: exactly one of each pair 2k, 2k + 1.

    Source: "we used half of the dataset to extract the following 61 phenotypes" (paper, section
    IV-B).
    """
    first = np.random.SeedSequence([seed, index // 2], spawn_key=(4,)).generate_state(1)[0] & 1
    return bool(index % 2 == first)


def measure(h: Mapping[str, float | np.ndarray], random: np.random.Generator) -> dict[str, float]:
    """The 61 phenotypes as an analyst would find them: volumes, mass, walls and strains with
    errors, the rest derived.
    """
    scalar = {"LVEDV": "edv", "LVESV": "esv", "LVM": "mass", "RVEDV": "rv_edv", "RVESV": "rv_esv"}
    p = {
        name: float(h[latent]) + _ERROR[name] * random.standard_normal()
        for name, latent in scalar.items()
    }
    for side in ("LV", "RV"):
        # An observer may err, but not see more blood at end-systole than at end-diastole, or none.
        p[f"{side}ESV"] = float(np.clip(p[f"{side}ESV"], 5.0, 0.92 * p[f"{side}EDV"]))
        p[f"{side}SV"] = p[f"{side}EDV"] - p[f"{side}ESV"]
        p[f"{side}EF"] = 100 * p[f"{side}SV"] / p[f"{side}EDV"]
    p["LVCO"] = p["LVSV"] * float(h["cmr_rate"]) / 1000
    for group, latent in (
        ("WT", "wall_segments"),
        ("Ecc", "ecc_segments"),
        ("Err", "err_segments"),
    ):
        segments = np.asarray(h[latent]) + _ERROR[group] * random.standard_normal(
            latent_heart.SEGMENT_COUNT
        )
        if group == "WT":
            segments = segments.clip(1.5)
        values = (*segments.tolist(), float(segments.mean()))
        p |= {f"{group}_{segment}": value for segment, value in zip(tasks.SEGMENTS, values)}
    return {name: p[name] for name in tasks.PHENOTYPES}
