"""The ECG of a latent heart: one moving dipole, seen by nine electrodes through a noisy amplifier.

The idea: sixteen wall segments and the right ventricle are each a small dipole that points from
endocardium to epicardium and swells as a Gaussian when the front crosses it. A scar fires less, a
blocked branch fires late, a thick wall fires more; Q waves, R progression, bundle-branch patterns
and the axis are then consequences. Repolarisation follows Wilson's ventricular gradient: the area
of QRST does not depend on the order of activation, so T opposes a wide QRS by itself. Axes are
Frank's: x to the left, y to the feet, z to the back. No pictures, no labels, no cleaning.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ecgcmr.signals import SIGNALS

RATE_HZ = 500
SAMPLES = SIGNALS["ecg"].shape[1]
COUNT_MV = 0.005  # resolution of the UK Biobank recorder (GE CardioSoft: 5 µV)
_STEP_MS = 1000 / RATE_HZ
# Samples kept on either side, so that beats cut by the edges are whole while they are drawn.
_MARGIN = 512

# Leads I, II, V1..V6 from x, y, z: Dower et al. 1980, the matrix that Edenbrandt & Pahlm 1988
# invert.
DOWER = np.array(
    [
        [0.632, -0.235, 0.059],
        [0.235, 1.066, -0.132],
        [-0.515, 0.157, -0.917],
        [0.044, 0.164, -1.387],
        [0.882, 0.098, -1.277],
        [1.213, 0.127, -0.601],
        [1.125, 0.127, -0.086],
        [0.831, 0.076, 0.230],
    ]
)
# The same leads from the potentials of RA, LA, LL, V1..V6 (Wilson's terminal for V).
_WIRING = np.zeros((8, 9))
_WIRING[0, [0, 1]] = -1, 1
_WIRING[1, [0, 2]] = -1, 1
_WIRING[2:, :3] = -1 / 3
_WIRING[2:, 3:] = np.eye(6)


class _Sources(NamedTuple):
    """K Gaussian dipoles: (K, 3) peak in mV, (K,) time of the peak in ms after QRS onset, (K,)
    standard deviation in ms.
    """

    peak: np.ndarray
    centre: np.ndarray
    width: np.ndarray

    def area(self) -> np.ndarray:
        """Time integral (3,) in mV·ms."""
        return np.sqrt(2 * np.pi) * self.width @ self.peak


class _Beats(NamedTuple):
    """(B,) QRS onsets in ms of the record, RR before them in ms, and kinds: 0 normal, 1 atrial, 2
    ventricular ectopic.
    """

    onset: np.ndarray
    rr: np.ndarray
    kind: np.ndarray


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


# The left ventricle in the chest: its apex points left, down and forward (Engblom et al. 2005).
_APEX = _unit(np.array([0.64, 0.56, -0.52]))
_UPPER = np.array([0.10, -0.85, -0.50])
_ANTERIOR = _unit(_UPPER - (_UPPER @ _APEX) * _APEX)
_LATERAL = np.cross(_APEX, _ANTERIOR) * np.sign(np.cross(_APEX, _ANTERIOR)[0])


def _normals() -> np.ndarray:
    """Outward normals (16, 3) of the AHA segments: three rings that tilt towards the apex
    (Cerqueira et al. 2002).
    """
    rings = (
        ((90, 150, 210, 270, 330, 30), -12),
        ((90, 150, 210, 270, 330, 30), 10),
        ((90, 180, 270, 0), 40),
    )
    rows = []
    for angles, tilt in rings:
        around, up = np.deg2rad(angles), np.deg2rad(tilt)
        across = np.cos(around)[:, None] * _LATERAL + np.sin(around)[:, None] * _ANTERIOR
        rows.append(np.cos(up) * across + np.sin(up) * _APEX)
    return np.concatenate(rows)


NORMALS = _normals()
_SEPTAL = np.isin(np.arange(1, 17), (2, 3, 8, 9, 14))
_ANTERIOR_WALL = np.isin(np.arange(1, 17), (1, 7, 13))
_ANTEROLATERAL = np.isin(np.arange(1, 17), (1, 6, 7, 12))

# Mid-wall activation of the segments, ms after QRS onset (Durrer et al. 1970, total excitation of
# the human heart).
_ACTIVATION = np.array(
    [54, 30, 32, 62, 68, 62, 42, 20, 22, 48, 56, 50, 36, 20, 40, 42], dtype=float
)
# Peak dipoles in mV: a non-negative fit, at these times, to a loop of the form and size of normal
# adults (Draper et al. 1964), then rounded so that normal recordings agree in each lead; the septum
# is weak because its two sides cancel.
_STRENGTH = (
    np.array([10, 8, 8, 34, 32, 16, 38, 10, 6, 58, 48, 34, 30, 8, 50, 56], dtype=float) / 100
)
_WIDTH = 9.0  # ms, the front's passage through the wall
# Right ventricle: free wall to the right and forward (breakthrough at 25-30 ms), outflow tract last
# and upwards.
_RIGHT_NORMALS = np.array([[-0.55, 0.20, -0.80], [-0.45, -0.80, 0.10]])
_RIGHT_STRENGTH = np.array([0.06, 0.20])
_RIGHT_ACTIVATION = np.array([34.0, 75.0])

# T of a normal adult: left, down and forward, in mV (Draper et al. 1964); its Gaussian flanks in ms
# at QT 400.
_T_PEAK = np.array([0.30, 0.24, -0.22])
_T_LEFT, _T_RIGHT = 58.0, 33.0
# Right and left atrium at their peak, mV: their sum is P, upright in II and biphasic in V1.
_P_PEAK = np.array([[0.040, 0.090, -0.055], [0.070, 0.040, 0.050]])
# Fibrillatory waves: largest in V1, which lies over the right atrium (Stridh & Sörnmo 2001,
# saw-tooth model).
_F_WAVE = np.array([[-0.020, 0.045, -0.055], [0.015, 0.030, 0.020]])


def record(h: Mapping[str, np.ndarray | float], random: np.random.Generator) -> np.ndarray:
    """Ten seconds of a resting ECG: (12, 5000) float32 in mV at 500 Hz, with drift, muscle, mains
    and 5 µV steps.

    I + III = II and the augmented leads hold exactly: only I, II and V1..V6 are measured, as in a
    real recorder.
    """
    beats = _beats(h, random)
    dipole = np.zeros((3, SAMPLES + 2 * _MARGIN))
    sources = ventricles(h)
    _draw_qrs(dipole, beats, _individual(sources, random))
    _draw_recovery(dipole, beats, h, sources, 0.05 * random.standard_normal(3))
    if h["in_af"]:
        dipole += _fibrillation(dipole.shape[1], random)
    else:
        _draw_p(dipole, beats, h)
    dipole = float(h["voltage"]) * (rotation(h) @ dipole[:, _MARGIN:-_MARGIN])
    breath = _breathing(random)
    leads = lead_vectors(random) @ (dipole * (1 + 0.04 * breath))
    return twelve(leads + _WIRING @ _nuisance(breath, random))


def twelve(leads: np.ndarray) -> np.ndarray:
    """Standard order, float32 mV, from measured I, II, V1..V6 (8, T) in mV, rounded to the
    recorder's counts.
    """
    counts = np.rint(leads / COUNT_MV)
    lead_i, lead_ii = counts[0], counts[1]
    limb_leads = [
        lead_ii - lead_i,
        -(lead_i + lead_ii) / 2,
        lead_i - lead_ii / 2,
        lead_ii - lead_i / 2,
    ]
    return (np.concatenate([counts[:2], limb_leads, counts[2:]]) * COUNT_MV).astype(np.float32)


def ventricles(h: Mapping[str, np.ndarray | float]) -> _Sources:
    """The dipoles of one QRS for this heart."""
    stretch = float(h["qrs"]) / 90
    # Surface dipole of a growing shell; voltage criteria: Hancock et al. 2009.
    muscle = (float(h["mass"]) / 88) ** 0.55
    strength = _STRENGTH * muscle * (1 - 0.95 * np.asarray(h["scar"]))
    left_centre, width, normals = _ACTIVATION * stretch, np.full(16, _WIDTH * stretch), NORMALS
    right_centre, right_strength = _RIGHT_ACTIVATION * stretch, _RIGHT_STRENGTH
    right_width = np.full(2, _WIDTH * stretch)
    if h["lafb"]:
        # Anterolateral wall reached late, from below: axis about -50° (Rosenbaum et al. 1970).
        left_centre = left_centre + 16 * _ANTEROLATERAL - 3 * ~_ANTEROLATERAL
        strength = strength * np.where(_ANTEROLATERAL, 1.8, 0.75)
    if h["lbbb"]:
        # The septum fires from the right, unopposed; the free wall follows 40 ms later
        # (Strauss et al. 2011).
        left_centre = np.where(_SEPTAL, 26 + 1.1 * left_centre, 38 + 1.15 * left_centre)
        strength = np.where(_SEPTAL, 2.7, np.where(_ANTERIOR_WALL, 0.4, 0.85)) * strength
        normals, width = np.where(_SEPTAL[:, None], -NORMALS, NORMALS), 2.0 * width
        right_centre, right_strength = right_centre * 0.6, right_strength * 0.8
    block = float(h["rbbb"])
    # RBBB: last and unopposed (Surawicz et al. 2009).
    right_centre = right_centre + block * np.array([58.0, 40.0])
    right_strength = right_strength * (1 + block * np.array([7.5, 0.5]))
    right_width = right_width * (1 + 0.6 * block)
    return _Sources(
        np.concatenate([strength[:, None] * normals, right_strength[:, None] * _RIGHT_NORMALS]),
        np.concatenate([left_centre, right_centre]),
        np.concatenate([width, right_width]),
    )


def _individual(sources: _Sources, random: np.random.Generator) -> _Sources:
    """The same heart with Purkinje fibres of its own: fronts differ in strength and come some ms
    earlier or later.

    With the electrodes this gives normal leads the spread that they have (Macfarlane et al. 2010:
    limits of a factor 3-4).
    """
    count = sources.centre.size
    gain = np.exp(0.25 * random.standard_normal((count, 1)))
    return sources._replace(
        peak=gain * sources.peak, centre=sources.centre + 2.5 * random.standard_normal(count)
    )


def _reference() -> np.ndarray:
    """QRS area (3,) of the normal heart, mV·ms."""
    normal: dict[str, np.ndarray | float] = {
        "qrs": 90.0,
        "mass": 88.0,
        "scar": np.zeros(16),
        "lafb": 0.0,
        "lbbb": 0.0,
        "rbbb": 0.0,
    }
    return ventricles(normal).area()


_QRS_AREA = _reference()
# A wide beat from the ventricles: three slow fronts up the left-lower axis, T opposite (Surawicz &
# Knilans 2008).
_ECTOPIC = _Sources(
    np.array([[0.3, 0.5, 0.2], [0.5, 0.9, 0.5], [-0.2, 0.3, 0.4]]),
    np.array([45.0, 85.0, 125.0]),
    np.full(3, 24.0),
)


def recovery(
    h: Mapping[str, np.ndarray | float], sources: _Sources
) -> tuple[np.ndarray, np.ndarray]:
    """Peaks (3,) in mV of ST and of T.

    Wilson's gradient G = ∫QRS + ∫T keeps its normal value whatever the order of activation: what
    QRS gains, T loses. Ischaemia points ST away from its segment, and away from the apex as well,
    since subendocardial depression localises poorly (Li et al. 1998); old infarcts keep an inverted
    T; a thick wall strains (Okin et al. 1995).
    """
    excess = 0.7 * (sources.area() - _QRS_AREA * (float(h["mass"]) / 88) ** 0.35)
    per_mv = np.sqrt(np.pi / 2) * (_T_LEFT + _T_RIGHT)
    scar, ischaemia = np.asarray(h["scar"]), np.asarray(h["ischaemia"])
    strain = np.clip((float(h["wall_ed"]) - 7.0) / 2.5, 0, 1)
    lateral = _unit(_APEX + _LATERAL)
    peak = _T_PEAK * float(h["t_amplitude"]) - excess / per_mv - 0.30 * strain * lateral
    peak = (
        peak - 0.20 * scar @ NORMALS - 0.07 * ischaemia @ NORMALS - 0.03 * ischaemia.sum() * _APEX
    )
    # The normal rise towards T, higher in men (Macfarlane et al. 2010).
    level = 0.10 * peak * (1 + float(h["sex"])) / 1.5
    level = (
        level
        - 0.012 * ischaemia @ NORMALS
        - 0.022 * ischaemia.sum() * _APEX
        - 0.06 * strain * lateral
    )
    return level + 0.012 * scar @ NORMALS, peak


def rotation(h: Mapping[str, np.ndarray | float]) -> np.ndarray:
    """Turn (3, 3) of the heart in the chest: frontal (clockwise, axis to the right), horizontal and
    sagittal, degrees.
    """
    frontal, horizontal, sagittal = (
        np.deg2rad(float(h[name])) for name in ("frontal", "horizontal", "sagittal")
    )
    cos, sin = np.cos(frontal), np.sin(frontal)
    about_z = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    cos, sin = np.cos(horizontal), np.sin(horizontal)
    about_y = np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])
    cos, sin = np.cos(sagittal), np.sin(sagittal)
    return about_z @ about_y @ np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])


def lead_vectors(random: np.random.Generator) -> np.ndarray:
    """Lead vectors (8, 3) of one session: chest electrodes are off by 2-3 cm, V1 and V2 mostly too
    high (Wenger & Kligfield 1996; Bond et al. 2012), and chests differ.
    """
    size = np.linalg.norm(DOWER, axis=1, keepdims=True)
    spread = np.array([0.05, 0.05, 0.10, 0.10, 0.13, 0.12, 0.10, 0.08])[:, None]
    vectors = DOWER + spread * size * random.standard_normal((8, 3))
    vectors[2:4, 1] -= 0.10 + 0.15 * random.standard_normal()
    vectors[2:] *= np.exp(0.12 * random.standard_normal() + 0.08 * random.standard_normal((6, 1)))
    return vectors


def _beats(h: Mapping[str, np.ndarray | float], random: np.random.Generator) -> _Beats:
    """Beats that cover the record and its margins.

    Sinus: breathing (respiratory sinus arrhythmia) and 0.1 Hz waves share SDNN (Task Force 1996).
    AF: RR without memory, coefficient of variation 0.22 (Tateno & Glass 2001). Ectopic beats come
    early and pause.
    """
    mean = 60_000 / float(h["heart_rate"])
    count = int(11_900 / mean * (1.9 if h["in_af"] else 1.15)) + 6
    white = random.standard_normal(count)
    phase, breath = 2 * np.pi * random.random(2), random.uniform(0.2, 0.3)
    early = random.random(count)
    kind = np.zeros(count, dtype=int)
    if h["in_af"]:
        rr = np.maximum(mean * np.exp(0.22 * white - 0.024), 300.0)
    else:
        seconds = np.arange(count) * mean / 1000
        waves = np.sin(2 * np.pi * breath * seconds + phase[0]) + 0.8 * np.sin(
            0.2 * np.pi * seconds + phase[1]
        )
        rr = mean + float(h["sdnn"]) * (0.95 * waves + 0.4 * white)
        kind = np.where(early < h["ectopy"], 1, np.where(early > 1 - h["ventricular_ectopy"], 2, 0))
        kind[1:][kind[:-1] > 0] = 0
        pause = np.concatenate([[0], kind[:-1]])
        rr = rr * np.select(
            [kind == 1, kind == 2, pause == 1, pause == 2], [0.70, 0.62, 1.12, 1.38], 1.0
        )
    onset = np.cumsum(rr) - 900 - mean * random.random()
    keep = (onset > -_MARGIN * _STEP_MS + 420) & (onset < SAMPLES * _STEP_MS + 230)
    return _Beats(onset[keep], rr[keep], kind[keep])


def _add(
    dipole: np.ndarray, onset: np.ndarray, span: tuple[float, float], centre, rise, fall, peak
) -> None:
    """Add, per beat, the Gaussians with peaks (K, 3), centres (B, K) ms, flanks (B, K) ms, within
    `span` ms of the onset.
    """
    width = int((span[1] - span[0]) / _STEP_MS)
    first = np.floor((onset + span[0]) / _STEP_MS).astype(int)
    clock = (first[:, None] + np.arange(width)) * _STEP_MS - onset[:, None]
    away = clock[:, None, :] - centre[:, :, None]
    slope = np.where(away < 0, 1 / rise[:, :, None], 1 / fall[:, :, None])
    waves = peak.T @ np.exp(-0.5 * (away * slope) ** 2)
    for beat, start in enumerate(first + _MARGIN):
        dipole[:, start : start + width] += waves[beat]


def _draw_qrs(dipole: np.ndarray, beats: _Beats, sources: _Sources) -> None:
    for selection, fronts in ((beats.kind < 2, sources), (beats.kind == 2, _ECTOPIC)):
        onset = beats.onset[selection]
        if onset.size:
            centre = np.broadcast_to(fronts.centre, (onset.size, fronts.centre.size))
            width = np.broadcast_to(fronts.width, centre.shape)
            _add(dipole, onset, (-40, 236), centre, width, width, fronts.peak)


def _draw_recovery(
    dipole: np.ndarray, beats: _Beats, h: Mapping, sources: _Sources, t_offset: np.ndarray
) -> None:
    """ST, the shoulder and the peak of T, and a small U, scaled with QT = QTc · RR^(1/3)
    (Fridericia 1920).

    `t_offset` (3,) mV is what T has of its own, beyond what the heart's state explains.
    """
    level, peak = recovery(h, sources)
    peak = peak + t_offset
    # QT follows RR with minutes of hysteresis (Pueyo et al. 2004).
    memory = 0.75 * beats.rr.mean() + 0.25 * beats.rr
    wide = max(float((sources.centre + 2 * sources.width).max()) - 95, 0)
    for selection, st, t, extra in (
        (beats.kind < 2, level, peak, 0.5 * wide),
        (beats.kind == 2, -0.15 * _ECTOPIC.peak[1], -0.45 * _ECTOPIC.peak[1], 40.0),
    ):
        onset, qt = (
            beats.onset[selection],
            float(h["qtc"]) * np.cbrt(memory[selection] / 1000) + extra,
        )
        if not onset.size:
            continue
        scale = qt[:, None] / 400
        # The tangent to the falling flank meets the baseline 2 sd after the peak.
        top = qt[:, None] - 2 * _T_RIGHT * scale
        centre = np.concatenate(
            [top - 205 * scale, top - 80 * scale, top, top + 165 * scale], axis=1
        )
        rise = np.array([38, 45, _T_LEFT, 32]) * scale
        fall = np.array([48, 50, _T_RIGHT, 38]) * scale
        shoulder = 0.14 * t + np.array([0, 0, -0.02]) * np.linalg.norm(t)
        _add(dipole, onset, (-110, 770), centre, rise, fall, np.stack([st, shoulder, t, 0.04 * t]))


def _draw_p(dipole: np.ndarray, beats: _Beats, h: Mapping) -> None:
    """P: right atrium, then left.

    A large left atrium is late, wide and strong (Tsao et al. 2008).
    """
    atrium, pr = float(h["atrium"]), float(h["pr"])
    for kind, turn in ((0, np.array([1.0, 1.0, 1.0])), (1, np.array([0.9, -0.4, 0.8]))):
        onset = beats.onset[beats.kind == kind]
        if onset.size:
            gain = np.array([1.0, atrium**1.5])[:, None]
            centre = np.tile([34 - pr, 60 + 14 * (atrium - 1) - pr], (onset.size, 1))
            width = np.tile([15.0, 17.0 * atrium**0.5], (onset.size, 1))
            _add(dipole, onset, (-390, 20), centre, width, width, gain * _P_PEAK * turn)


def _fibrillation(width: int, random: np.random.Generator) -> np.ndarray:
    """Fibrillatory waves (3, width): a saw-tooth of 5-7.5 Hz whose rate and size wander, seen from
    two directions.
    """
    t = np.arange(width) / RATE_HZ
    size, waves = np.exp(0.35 * random.standard_normal()), []
    for _ in range(2):
        rate, turns = random.uniform(5.0, 7.5), random.random(4)
        phase = 2 * np.pi * (rate * t + turns[0]) + 1.5 * np.sin(2 * np.pi * (0.25 * t + turns[1]))
        swell = (
            1
            + 0.35 * np.sin(2 * np.pi * (0.4 * t + turns[2]))
            + 0.2 * np.sin(2 * np.pi * (1.1 * t + turns[3]))
        )
        waves.append(
            size * swell * (np.sin(phase) + 0.45 * np.sin(2 * phase) + 0.2 * np.sin(3 * phase))
        )
    return _F_WAVE.T @ np.array(waves)


def _breathing(random: np.random.Generator) -> np.ndarray:
    """Respiration (T,), about -1..1, 0.2-0.3 Hz."""
    t = np.arange(SAMPLES) / RATE_HZ
    return np.sin(2 * np.pi * (random.uniform(0.2, 0.3) * t + random.random()))


def _nuisance(breath: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Potentials (9, T) in mV of the electrodes that are not the heart: muscle, mains, contact
    drift, now and then a bump.

    Sizes: muscle 3-15 µV and residual mains of a few µV at rest; drift below 0.5 Hz of some 0.1 mV
    (Sörnmo & Laguna 2005, chapter 7).
    """
    t = np.arange(SAMPLES) / RATE_HZ
    muscle = 0.005 * np.exp(0.5 * random.standard_normal() + 0.3 * random.standard_normal((9, 1)))
    white = random.standard_normal((9, SAMPLES + 1), dtype=np.float32)
    noise = muscle * 0.7 * (white[:, 1:] + white[:, :-1])  # the recorder's low-pass at 150 Hz
    mains = 0.0015 * np.exp(0.8 * random.standard_normal() + 0.4 * random.standard_normal((9, 1)))
    turns = 2 * np.pi * random.random((9, 4))
    noise += mains * np.sin(2 * np.pi * 50 * t + 0.3 * turns[:, :1])
    noise += 0.05 * random.standard_normal((9, 1)) * breath
    for wave, size in enumerate((0.10, 0.06, 0.03)):
        rate = np.array([0.05, 0.12, 0.35])[wave] * random.uniform(0.6, 1.4)
        noise += (
            size
            * random.standard_normal((9, 1))
            * np.sin(2 * np.pi * rate * t + turns[:, wave + 1, None])
        )
    if random.random() < 0.04:
        bump = random.uniform(0.2, 0.7) * np.exp(-0.5 * ((t - random.uniform(0, 10)) / 0.12) ** 2)
        noise[random.integers(9)] += bump
    return noise
