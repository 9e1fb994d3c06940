"""The hidden state of one synthetic heart, from which its ECG, its images, its phenotypes and its
diseases all follow.

The idea: a fixed number of independent draws per subject, keyed by (seed, index) alone, then
closed-form physiology over arrays with one row per subject. So thousands of hearts cost as little
as their random numbers, and none depends on how many others are drawn. Every constant is physiology
with its source (docs/synthetic.md); none was fitted to a training result. This module makes neither
signals nor pictures.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import expit, ndtr, ndtri

SEGMENT_COUNT = 16
DENSITY = 1.05  # g/mL of myocardium, as in Bai et al. 2020

# Liability beyond which a disease is ever diagnosed: quantiles 1 − prevalence (7.22, 2.98, 4.46 %;
# paper, section IV-B) over 16,000,000 subjects drawn once; a prevalence is known within 0.007
# points (docs/synthetic.md).
THRESHOLD = {"cad": 1.4345, "af": 1.8046, "dm": 1.6564}

_NORMALS = (
    *("height", "bmi", "pressure", "fitness", "metabolic", "coronary", "atrial", "arrhythmia"),
    *(
        "edv",
        "mass",
        "contraction",
        "cardiomyopathy",
        "sphericity",
        "shortening",
        "rv",
        "rv_stroke",
    ),
    *(
        "rate",
        "af_rate",
        "cmr_rate",
        "pr",
        "qrs",
        "qtc",
        "variability",
        "t_wave",
        "voltage",
        "mid_share",
    ),
    *("frontal", "horizontal", "sagittal", "scar_size", "p_wave"),
)
_UNIFORMS = (
    "age",
    "sex",
    "scar",
    "scar_place",
    "ischaemia",
    "ischaemia_place",
    "lbbb",
    "rbbb",
    "lafb",
    "af_rhythm",
)
NORMAL_COUNT = len(_NORMALS) + 3 * SEGMENT_COUNT  # standard normals of one subject
UNIFORM_COUNT = len(_UNIFORMS)

# Membership of the 16 AHA segments in the beds of the left anterior descending, right and
# circumflex coronary artery (Cerqueira et al. 2002, figure 5; shared borders after Ortiz-Pérez et
# al. 2008).
TERRITORY = np.array(
    [
        [0.7, 0.7, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.1, 0.0, 0.0, 0.3, 1.0, 1.0, 0.3, 0.3],
        [0.0, 0.0, 0.8, 1.0, 0.4, 0.0, 0.0, 0.0, 0.8, 1.0, 0.4, 0.0, 0.0, 0.1, 0.8, 0.0],
        [0.0, 0.0, 0.0, 0.3, 1.0, 0.8, 0.0, 0.0, 0.0, 0.3, 1.0, 0.9, 0.0, 0.0, 0.2, 0.8],
    ]
)
# Of infarcts: anterior, inferior, lateral (Stone et al. 1988).
_TERRITORY_SHARE = np.cumsum([0.45, 0.35, 0.20])

# Wall thickness of a segment over the mean: septum thickest, apex and lateral wall thinner (Kawel
# et al. 2012, MESA).
_THICKNESS = np.array(
    [0.99, 1.14, 1.12, 1.03, 0.98, 0.98, 0.93, 1.06, 1.10, 1.00, 0.94, 0.95, 0.95, 0.98, 0.92, 0.92]
)
_THICKNESS /= _THICKNESS.mean()
# Circumferential shortening grows towards the apex and the free wall (Moore et al. 2000).
_SHORTENING = np.array(
    [0.95, 0.88, 0.86, 0.94, 1.02, 1.03, 1.02, 0.97, 0.93, 1.00, 1.06, 1.07, 1.08, 1.02, 1.06, 1.11]
)
_SHORTENING /= _SHORTENING.mean()
_SEPTAL = np.isin(np.arange(1, 17), (2, 3, 8, 9, 14)).astype(float)


class _Draws(NamedTuple):
    """Standard normals and uniforms by name, (n,) each, and (n, 3, 16) normals for the segments."""

    normal: dict[str, np.ndarray]
    uniform: dict[str, np.ndarray]
    segments: np.ndarray


def generator(index: int, seed: int, stream: int) -> np.random.Generator:
    """The random numbers of one subject: stream 0 heart, 1 ECG, 2 CMR, 3 measurement."""
    return np.random.Generator(
        np.random.PCG64(np.random.SeedSequence([seed, index], spawn_key=(stream,)))
    )


def draw(indices: Sequence[int] | np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Latents of the subjects `indices`: name -> (n,) array, or (n, 16) for what differs by AHA
    segment.
    """
    normal = np.empty((len(indices), NORMAL_COUNT))
    uniform = np.empty((len(indices), UNIFORM_COUNT))
    for row, index in enumerate(indices):
        numbers = generator(int(index), seed, 0)
        normal[row] = numbers.standard_normal(NORMAL_COUNT)
        uniform[row] = numbers.random(UNIFORM_COUNT)
    return physiology(normal, uniform)


def physiology(normal: np.ndarray, uniform: np.ndarray) -> dict[str, np.ndarray]:
    """Latents from (n, NORMAL_COUNT) standard normals and (n, UNIFORM_COUNT) uniforms."""
    draws = _Draws(
        dict(zip(_NORMALS, normal.T)),
        dict(zip(_UNIFORMS, uniform.T)),
        normal[:, len(_NORMALS) :].reshape(-1, 3, SEGMENT_COUNT),
    )
    h: dict[str, np.ndarray] = {}
    for step in (
        _body,
        _disease,
        _coronary,
        _rhythm,
        _conduction,
        _function,
        _shape,
        _strain,
        _right,
        _recovery,
    ):
        h |= step(h, draws)
    return h


def _body(h: dict[str, np.ndarray], d: _Draws) -> dict[str, np.ndarray]:
    """Demographics of UK Biobank's imaging visit (Littlejohns et al. 2020).

    Systolic pressure (Joffres et al. 2013).
    """
    low, high = ndtr((45 - 64.0) / 7.8), ndtr((82 - 64.0) / 7.8)
    age = 64.0 + 7.8 * ndtri(low + (high - low) * d.uniform["age"])
    sex = (d.uniform["sex"] < 0.48).astype(float)
    height = 163.0 + 13.2 * sex + 6.4 * d.normal["height"] - 0.1 * (age - 64)  # cm
    bmi = np.exp(np.log(25.6) + 0.045 * sex + (0.17 - 0.03 * sex) * d.normal["bmi"]).clip(16, 55)
    weight = bmi * (height / 100) ** 2
    pressure = (
        0.6 * (age - 64) + 0.9 * (bmi - 26.5) + 3 * (sex - 0.5) + 15.5 * d.normal["pressure"]
    ) / 18
    return {
        "age": age,
        "sex": sex,
        "height": height,
        "weight": weight,
        "bmi": bmi,
        # m², Du Bois & Du Bois 1916, as Petersen et al. 2017 index
        "bsa": 0.007184 * height**0.725 * weight**0.425,
        "systolic": 138 + 18 * pressure,  # mmHg
        "fitness": d.normal["fitness"],
    }


def _disease(h: dict[str, np.ndarray], d: _Draws) -> dict[str, np.ndarray]:
    """Liabilities (probit scale, threshold model of Falconer 1965) and the diagnoses that they
    cross.

    Weights are probit versions of known hazard ratios: SCORE2 2021 (age, sex, pressure, diabetes
    for coronary disease), CHARGE-AF (Alonso et al. 2013: age, sex, height, weight, pressure),
    diabetes by BMI (Abdullah et al. 2010).
    """
    age, male = (h["age"] - 64) / 7.8, 2 * h["sex"] - 1
    fat, pressure = d.normal["bmi"], (h["systolic"] - 138) / 18
    dm = 0.15 * age + 0.17 * male + 0.38 * fat + 0.12 * pressure + 0.85 * d.normal["metabolic"]
    cad = (
        0.32 * age
        + 0.25 * male
        + 0.12 * fat
        + 0.17 * pressure
        + 0.15 * dm
        + 0.82 * d.normal["coronary"]
    )
    af = 0.36 * age + 0.15 * male + 0.17 * fat + 0.15 * pressure + 0.10 * d.normal["height"]
    af = af + 0.45 * d.normal["atrial"] + 0.70 * d.normal["arrhythmia"]
    liability = {"cad": cad, "af": af, "dm": dm}
    return {f"liability_{name}": value - THRESHOLD[name] for name, value in liability.items()} | {
        name: (value > THRESHOLD[name]).astype(float) for name, value in liability.items()
    }


def _coronary(h: dict[str, np.ndarray], d: _Draws) -> dict[str, np.ndarray]:
    """Scar (transmural share) and resting ischaemia (0..1) by segment.

    A third of the diagnosed carry a scar, and some 3 % of the others: unrecognised infarcts are
    commoner than known ones (Turkbey et al. 2015, MESA: 7.9 % scarred, 78 % of them unrecognised).
    """

    def where(u: np.ndarray) -> np.ndarray:
        return TERRITORY[np.searchsorted(_TERRITORY_SHARE, u).clip(0, 2)]

    severity = h["liability_cad"]
    has_scar = d.uniform["scar"] < expit(-1.4 + 2.0 * severity)
    size = (0.55 + 0.12 * severity.clip(-1.5, 1.5) + 0.18 * d.normal["scar_size"]).clip(0.15, 1.0)
    rough = (0.8 + 0.5 * d.segments[:, 0]).clip(0, 1.3)  # an infarct fills a part of its bed
    scar = (has_scar * size)[:, None] * where(d.uniform["scar_place"]) * rough
    has_ischaemia = d.uniform["ischaemia"] < expit(-1.2 + 1.6 * severity)
    depth = (0.6 + 0.2 * severity).clip(0.2, 1.0)
    return {
        "scar": scar.clip(0, 1),
        "ischaemia": (has_ischaemia * depth)[:, None] * where(d.uniform["ischaemia_place"]),
        # graded: pre-diabetes counts a little
        "glycaemia": np.logaddexp(0, h["liability_dm"] / 0.4) * 0.4,
    }


def _rhythm(h: dict[str, np.ndarray], d: _Draws) -> dict[str, np.ndarray]:
    """Rhythm at the visit, heart rate, its variability, and the atria.

    AF as a diagnosis means ever, before or after the visit; most is paroxysmal, so that only a
    quarter is in AF at one random 10 s recording (Chiang et al. 2012, RealiseAF; Charitos et al.
    2012 for the low yield of spot recordings).
    """
    in_af = d.uniform["af_rhythm"] < np.where(h["af"] > 0, 0.25, 0.001)
    sinus = (
        61.5
        + 2 * (1 - h["sex"])
        - 4.0 * h["fitness"]
        + 0.3 * (h["bmi"] - 26.5)
        + 6 * h["glycaemia"]
    )
    sinus = sinus + 8.0 * d.normal["rate"]
    rate = np.where(in_af, 84 + 15 * d.normal["af_rate"], sinus).clip(40, 140)
    # Short-term SDNN falls by half from 45 to 80 years and in diabetes (Nunan et al. 2010; Benichou
    # et al. 2018).
    spread = 0.15 * h["fitness"] + 0.4 * d.normal["variability"]
    sdnn = 32 * np.exp(-0.018 * (h["age"] - 64) - 0.35 * h["glycaemia"] + spread)
    log_atrium = 0.14 * d.normal["atrial"] + 0.05 * (h["systolic"] - 138) / 18 + 0.20 * in_af
    return {
        "in_af": in_af.astype(float),
        "heart_rate": rate,  # beats/min at the ECG
        "cmr_rate": (rate + 3.0 * d.normal["cmr_rate"]).clip(38, 150),
        # ms; HRV rises with the RR interval (Sacha 2013)
        "sdnn": (sdnn * 60 / rate.clip(45, 110)).clip(3, 110),
        # 1 = mean left atrial volume; enlarges with atrial myopathy, pressure and AF itself (Thomas
        # & Abhayaratna 2017).
        "atrium": np.exp(log_atrium + 0.04 * d.normal["p_wave"]),
        # share of beats (Conen et al. 2012)
        "ectopy": 0.012 * np.exp(0.7 * h["liability_af"].clip(-3, 2) + 1.0),
        "ventricular_ectopy": 0.003 * np.exp(0.03 * (h["age"] - 64) + 3 * h["scar"].mean(axis=1)),
    }


def _conduction(h: dict[str, np.ndarray], d: _Draws) -> dict[str, np.ndarray]:
    """PR and QRS in ms and the blocks: LBBB 0.4 % at 50 to 6 % at 80 years (Eriksson et al. 1998),
    RBBB and incomplete RBBB (Bussink et al. 2013, Copenhagen), left anterior fascicular block
    (Mandyam et al. 2013).
    """
    age, cardiomyopathy = h["age"] - 64, (d.normal["cardiomyopathy"] - 1.6).clip(0)
    burden = h["scar"].mean(axis=1)
    lbbb = d.uniform["lbbb"] < expit(-5.0 + 0.08 * age + 2.5 * cardiomyopathy + 4 * burden)
    complete = expit(-4.3 + 0.06 * age + 0.8 * h["sex"])
    rbbb = np.where(
        d.uniform["rbbb"] < complete, 1.0, np.where(d.uniform["rbbb"] < complete + 0.035, 0.4, 0.0)
    )
    lafb = d.uniform["lafb"] < expit(-3.9 + 0.05 * age + 0.5 * h["sex"])
    pr = (
        161
        + 0.35 * age
        + 4 * h["sex"]
        - 0.25 * (h["heart_rate"] - 62)
        + 6 * d.normal["atrial"]
        + 18 * d.normal["pr"]
    )
    return {
        "lbbb": lbbb.astype(float),
        "rbbb": np.where(lbbb, 0.0, rbbb),
        "lafb": np.where(lbbb, 0.0, lafb),
        "pr": pr.clip(110, 300),  # Magnani et al. 2010; Nikolaidou et al. 2017
        "qrs_noise": d.normal["qrs"],
    }


def _function(h: dict[str, np.ndarray], d: _Draws) -> dict[str, np.ndarray]:
    """Contraction by segment (1 = normal) and the ejection fraction: healthy 58 ± 5 % in men, 61 ±
    5 % in women (Petersen et al. 2017), scaled with the mean contraction of the wall.
    """
    local = (1 - 0.9 * h["scar"]) * (1 - 0.25 * h["ischaemia"]) * (1 + 0.05 * d.segments[:, 1])
    # LBBB: early, wasted septal contraction; 5-10 EF points (Grines et al. 1989a).
    contraction = (local * (1 - 0.35 * h["lbbb"][:, None] * _SEPTAL)).clip(-0.05, 1.25)
    # 3 %: systolic dysfunction without a scar (Davies et al. 2001, ECHOES).
    weak = (d.normal["cardiomyopathy"] - 1.9).clip(0)
    healthy = (
        61
        - 3 * h["sex"]
        + 4.4 * d.normal["contraction"]
        - 14 * weak
        - 5 * h["in_af"]
        - 0.5 * h["glycaemia"]
    )
    return {
        "contraction": contraction,
        "weak": weak,
        # In %; the wall that is spared makes up for a part (Grines et al. 1989b).
        "ef": (healthy * contraction.mean(axis=1) ** 0.75).clip(14, 78),
        # Share of the stroke volume still to be ejected at half of systole, the paper's mid-phase:
        # about a half, more when activation is late or the wall weak (Hammermeister et al. 1974,
        # ejection by thirds of systole).
        "mid_share": (
            0.50
            + 0.05 * d.normal["mid_share"]
            + 0.06 * h["lbbb"]
            + 0.10 * (1 - contraction.mean(axis=1))
            + 0.04 * weak
        ).clip(0.25, 0.8),
    }


def _shape(h: dict[str, np.ndarray], d: _Draws) -> dict[str, np.ndarray]:
    """Volumes (mL), mass (g) and the bullet that holds them: V = 5/6 · A · L (area-length; Folland
    et al. 1979), radius and wall in mm at end-diastole (`_ed`) and end-systole (`_es`).

    Volumes and mass per body surface of Petersen et al. 2017; mass follows volume (eccentric) and
    pressure (concentric). Diabetes shrinks the cavity and thickens the wall (Jensen et al. 2019).
    """
    loss = 1 - h["contraction"].mean(axis=1)
    size = (
        0.145 * d.normal["edv"]
        + 0.05 * h["fitness"]
        - 0.005 * (h["age"] - 61)
        - 0.006 * (h["bmi"] - 26.5)
    )
    # Remodelling: Pfeffer & Braunwald 1990.
    size = size + 0.5 * loss + 0.35 * h["weak"] - 0.03 * h["glycaemia"]
    edv = h["bsa"] * (73.5 + 11.5 * h["sex"]) * np.exp(size)
    load = (
        0.07 * (h["systolic"] - 138) / 18
        + 0.45 * size
        + 0.10 * d.normal["mass"]
        + 0.03 * h["glycaemia"]
    )
    mass = h["bsa"] * (41.5 + 10.5 * h["sex"]) * np.exp(load) * (1 - 0.25 * h["scar"].mean(axis=1))
    esv = edv * (1 - h["ef"] / 100)
    # Length over diameter.
    slender = 1.72 * np.exp(0.07 * d.normal["sphericity"] - 0.3 * size.clip(0))
    radius_ed = np.cbrt(1200 * edv / (2 * np.pi * slender))
    length_ed = 2 * slender * radius_ed
    # MAPSE 13-15 mm.
    length_es = length_ed * (1 - 0.155 * h["ef"] / 60 * np.exp(0.1 * d.normal["shortening"]))
    radius_es = np.sqrt(1200 * esv / (np.pi * length_es))
    wall_ed = _wall(radius_ed, length_ed, mass)
    # Old infarcts are thin (Baer et al. 1995).
    pattern = _THICKNESS * (1 + 0.05 * d.segments[:, 2]) * (1 - 0.35 * h["scar"])
    return {
        "edv": edv,
        "esv": esv,
        "mass": mass,
        "radius_ed": radius_ed,
        "radius_es": radius_es,
        "wall_ed": wall_ed,
        "wall_es": _wall(radius_es, length_es, mass),
        "wall_segments": wall_ed[:, None] * pattern,
        # ms: wider with mass, in men, and by itself (van der Ende et al. 2017); LBBB and RBBB add
        # their own.
        "qrs": (88 + 5 * h["sex"] + 0.10 * (mass - 88) + 6.5 * h["qrs_noise"]).clip(70, 125),
    }


def _wall(radius: np.ndarray, length: np.ndarray, mass: np.ndarray) -> np.ndarray:
    """Wall (mm) of a bullet that holds the muscle: 5/6 π (r + t)² (L + t) = V + mass / density.

    Newton, 5 rounds.
    """
    target = radius**2 * length + 1000 * mass / DENSITY * 6 / (5 * np.pi)
    wall = np.full_like(radius, 6.0)
    for _ in range(5):
        outer, long = radius + wall, length + wall
        wall = wall - (outer**2 * long - target) / (2 * outer * long + outer**2)
    return wall


def _strain(h: dict[str, np.ndarray], d: _Draws) -> dict[str, np.ndarray]:
    """Circumferential (mid-wall, negative) and radial (positive) strain in %, from the two shapes,
    by segment.

    Registration-based strain, as ukbb_cardiac computes it, is smoothed: 0.93 and 0.80 of the
    geometry (Bai et al. 2020; Puyol-Antón et al. 2018).
    """
    middle_ed, middle_es = h["radius_ed"] + h["wall_ed"] / 2, h["radius_es"] + h["wall_es"] / 2
    relative = h["contraction"] / h["contraction"].mean(axis=1, keepdims=True)
    ecc = 93 * (middle_es / middle_ed - 1)
    err = 80 * (h["wall_es"] / h["wall_ed"] - 1)
    return {
        "ecc_segments": ecc[:, None] * relative * _SHORTENING,
        "err_segments": err[:, None] * relative * (0.5 + 0.5 * _SHORTENING),
    }


def _right(h: dict[str, np.ndarray], d: _Draws) -> dict[str, np.ndarray]:
    """Right ventricle (mL): size per body surface of Petersen et al. 2017; both ventricles eject
    the same, within shunt and regurgitation.
    """
    common_size = 0.5 * np.log(h["edv"] / (h["bsa"] * (73.5 + 11.5 * h["sex"])))
    size = common_size + 0.11 * d.normal["rv"] - 0.002 * (h["age"] - 61)
    stroke = (h["edv"] - h["esv"]) * np.exp(0.04 * d.normal["rv_stroke"])
    edv = h["bsa"] * (77 + 15.5 * h["sex"]) * np.exp(size)
    edv = np.clip(edv, stroke / 0.75, stroke / 0.22)
    return {"rv_edv": edv, "rv_esv": edv - stroke}


def _recovery(h: dict[str, np.ndarray], d: _Draws) -> dict[str, np.ndarray]:
    """Repolarisation, the heart's place in the chest (degrees) and the chest's conductivity."""
    qtc = 406 + 9 * (1 - h["sex"])
    return {
        # Fridericia, ms: +9 in women, longer in diabetes (Rautaharju et al. 2014; Veglio et al.
        # 2002).
        "qtc": (qtc + 0.25 * (h["age"] - 64) + 6 * h["glycaemia"] + 15 * d.normal["qtc"]).clip(
            350, 500
        ),
        # T flattens with age and in women (Macfarlane et al. 2010) and, as assumed here, a little
        # in diabetes.
        "t_amplitude": np.exp(
            0.20 * d.normal["t_wave"]
            + 0.12 * (h["sex"] - 0.5)
            - 0.12 * h["glycaemia"]
            - 0.006 * (h["age"] - 64)
        ),
        # The axis turns left with age and fat, which lifts the diaphragm (Macfarlane et al. 2010;
        # Alpert et al. 2000).
        "frontal": 18 * d.normal["frontal"] - 0.9 * (h["bmi"] - 26.5) - 0.3 * (h["age"] - 64),
        "horizontal": 16 * d.normal["horizontal"],
        "sagittal": 12 * d.normal["sagittal"],
        # Voltage falls with chest fat and age (Frank et al. 1986; Macfarlane et al. 2010).
        "voltage": np.exp(
            0.20 * d.normal["voltage"] - 0.018 * (h["bmi"] - 26.5) - 0.004 * (h["age"] - 64)
        ),
    }
