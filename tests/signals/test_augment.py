"""Augmentations against signals and images with known answers, and the same alone and in a pack."""

import math

import pytest
import torch

from ecgcmr.runtime import hardware
from ecgcmr.signals import augment

LEADS, TIME = 12, 400


def ecgs(n=3):
    return torch.randn(n, LEADS, TIME, dtype=torch.float64, generator=hardware.generator("cpu", n))


def images(n=2, side=32):
    return torch.rand(
        n, 3, side, side, dtype=torch.float64, generator=hardware.generator("cpu", side)
    )


def test_crop_is_a_slice_of_all_leads_and_reaches_both_ends():
    x = ecgs(3)
    out = augment.crop(x, torch.tensor([0.0, 0.5, 1 - 1e-7]), 100)
    for i, start in enumerate((0, 150, 300)):
        assert torch.equal(out[i], x[i, :, start : start + 100])
    assert torch.equal(augment.crop(x, None, 100), x[..., :100])


def test_jitter_both_ways():
    x, noise = ecgs(1), torch.ones(1, LEADS, TIME, dtype=torch.float64)
    assert torch.allclose(augment.jitter(x, noise, 0.25), x + 0.25)
    assert torch.allclose(augment.jitter_by_amplitude(x, noise, 0.25), x * 1.15)


def test_rescale_is_one_factor_per_record():
    x = ecgs(2)
    out = augment.rescale(x, torch.tensor([1.0, -3.0]), 0.5)
    assert torch.allclose(out[0], 1.5 * x[0])
    assert torch.allclose(out[1], -0.5 * x[1])


@pytest.mark.parametrize("time", [400, 401])
def test_surrogate_keeps_spectrum_mean_and_the_relation_of_leads(time):
    x = (
        torch.randn(2, LEADS, time, dtype=torch.float64, generator=hardware.generator("cpu", time))
        + 3
    )
    u = augment.uniform(hardware.generator("cpu", 1), 2, time // 2 + 1)
    y = augment.surrogate(x, u, 0.1)
    before, after = torch.fft.rfft(x), torch.fft.rfft(y)
    assert torch.allclose(before.abs(), after.abs(), atol=1e-9)
    assert torch.allclose(x.mean(-1), y.mean(-1))
    turns = torch.angle(after / before)
    assert (turns - turns[:, :1]).abs().max() < 1e-6  # the same for all leads
    expected = 2 * math.pi * 0.1 * u
    expected[:, 0] = 0
    if time % 2 == 0:
        expected[:, -1] = 0
        assert torch.allclose(before[..., -1], after[..., -1])
    assert torch.allclose(turns[:, 0], expected.double(), atol=1e-6)
    assert not torch.allclose(x, y, atol=0.1)


def test_surrogate_delays_a_sine_by_its_angle():
    t = torch.arange(TIME, dtype=torch.float64) / TIME
    x = torch.sin(2 * math.pi * 7 * t).expand(1, LEADS, -1)
    u = torch.full((1, TIME // 2 + 1), 0.5)
    expected = torch.sin(2 * math.pi * 7 * t + 2 * math.pi * 0.2 * 0.5)
    assert torch.allclose(augment.surrogate(x, u, 0.2)[0, 0], expected, atol=1e-9)


def test_surrogate_of_magnitude_zero_is_the_identity():
    x = ecgs()
    assert torch.allclose(augment.surrogate(x, torch.rand(3, TIME // 2 + 1), 0.0), x)


def test_flips():
    x, u = ecgs(2), torch.tensor([0.1, 0.9])
    assert torch.equal(augment.flip_time(x, u, 0.5), torch.stack([x[0].flip(-1), x[1]]))
    assert torch.equal(augment.flip_sign(x, u, 0.5), torch.stack([-x[0], x[1]]))


def test_resize_keeps_constants_and_ramps():
    assert torch.allclose(augment.resize(torch.full((1, 3, 210, 210), 0.3), 64), torch.tensor(0.3))
    ramp = torch.linspace(0, 1, 40, dtype=torch.float64).expand(1, 3, 40, -1)
    small = augment.resize(ramp, 20)[0, 0, 5]
    steps = small.diff()[2:-2]
    assert torch.allclose(steps, steps[0].expand_as(steps), atol=1e-9)
    x = images()
    assert augment.resize(x, 32) is x


def test_resize_does_not_alias():
    stripes = (
        (torch.arange(128) % 2).double().expand(1, 1, 128, -1)
    )  # finer than the result can show
    assert (augment.resize(stripes, 32) - 0.5).abs().max() < 0.15


def test_resize_is_torchs_antialiased_one():
    x = images(1, 48)
    expected = torch.nn.functional.interpolate(x, size=20, mode="bilinear", antialias=True)
    assert torch.allclose(augment.resize(x, 20), expected, atol=1e-6)


@pytest.mark.parametrize("time", [400, 390, 401])
@pytest.mark.parametrize("by_frequency", [True, False])
def test_the_spectrum_is_cut_as_torchs_own_transform_does(time, by_frequency):
    x = torch.randn(3, LEADS, time, dtype=torch.float64, generator=hardware.generator("cpu", time))
    u = torch.tensor([[0.4 if by_frequency else 0.6, place] for place in (0.0, 0.3, 1 - 1e-7)])
    window = torch.ones(120, dtype=torch.float64)
    for record, (_, place), found in zip(x, u, augment.mask_spectrum(x, u, 0.25)):
        spectrum = torch.stft(record, 120, window=window, return_complex=True)
        axis = 1 if by_frequency else 2
        wide = int(0.25 * spectrum.shape[axis])
        start = int(place * (spectrum.shape[axis] - wide + 1))
        spectrum.narrow(axis, start, wide).zero_()
        assert torch.allclose(
            found, torch.istft(spectrum, 120, window=window, length=time), atol=1e-12
        )


def test_cutting_nothing_from_the_spectrum_gives_the_record_back():
    x, u = ecgs(), torch.full((3, 2), 0.3)
    assert torch.allclose(augment.mask_spectrum(x, u, 0.0), x)


def test_cut_frequencies_are_those_of_the_signal():
    waves = torch.sin(
        2 * math.pi * torch.arange(1200, dtype=torch.float64) * torch.tensor([[4.0], [40.0]]) / 120
    )
    low = augment.mask_spectrum(waves[None], torch.tensor([[0.0, 0.0]]), 0.25)[
        0, :, 120:-120
    ]  # the lowest 15 of 61
    assert low[0].abs().max() < 0.05
    assert torch.allclose(low[1], waves[1, 120:-120], atol=0.05)


def test_colour_is_the_formula():
    x, u = images(1), torch.tensor([[0.75, 0.25, 1.0]], dtype=torch.float64)
    brightness, contrast, saturation = 1.25, 0.75, 1.25
    weights = torch.tensor([0.2989, 0.587, 0.114], dtype=torch.float64)
    y = (x[0] * brightness).clamp(0, 1)
    y = (contrast * y + (1 - contrast) * torch.einsum("c,chw->hw", weights, y).mean()).clamp(0, 1)
    y = (saturation * y + (1 - saturation) * torch.einsum("c,chw->hw", weights, y)).clamp(0, 1)
    assert torch.allclose(augment.colour(x, u, 0.5, 0.5, 0.25)[0], y)


def still(n):
    return torch.ones(n), torch.zeros(n), torch.zeros(n, 2), torch.ones(n, 2)


def test_geometry_at_rest_is_the_identity():
    x = images()
    assert torch.allclose(augment.geometry(x, *still(2)), x, atol=1e-6)


def test_geometry_flips_turns_and_crops():
    x = images(1)
    flip, turn, centre, half = still(1)
    assert torch.allclose(augment.geometry(x, -flip, turn, centre, half), x.flip(-1), atol=1e-6)
    quarter = torch.tensor([math.pi / 2])
    assert torch.allclose(
        augment.geometry(x, flip, quarter, centre, half), torch.rot90(x, 1, (-2, -1)), atol=1e-5
    )
    corner = augment.geometry(x, flip, turn, torch.full((1, 2), -0.5), torch.full((1, 2), 0.5))
    expected = torch.nn.functional.interpolate(x[..., :16, :16], size=32, mode="bilinear")
    assert torch.allclose(corner[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1], atol=1e-6)


def test_geometry_flips_before_it_turns():
    x = images(1)
    quarter = torch.tensor([math.pi / 2])
    _, _, centre, half = still(1)
    both = augment.geometry(x, -torch.ones(1), quarter, centre, half)
    assert torch.allclose(both, torch.rot90(x.flip(-1), 1, (-2, -1)), atol=1e-5)


def test_geometry_fills_outside_with_zero():
    x = torch.ones(1, 3, 32, 32)
    flip, _, centre, half = still(1)
    out = augment.geometry(x, flip, torch.tensor([math.pi / 4]), centre, half)
    assert out[0, 0, 0, 0] == 0
    assert out[0, 0, 16, 16] == 1


def test_window_stays_inside_and_keeps_its_ranges():
    u = augment.uniform(hardware.generator("cpu", 5), 4000, 10, 4)
    centre, half = augment.window(u)
    assert ((centre.abs() + half) <= 1 + 1e-6).all()
    area, shape = half.prod(1), half[:, 0] / half[:, 1]
    assert area.min() >= 0.6 - 1e-6
    assert area.max() <= 1 + 1e-6
    assert shape.min() >= 0.75 - 1e-6
    assert shape.max() <= 4 / 3 + 1e-6


def test_window_takes_the_first_try_that_fits_else_everything():
    u = torch.full((1, 10, 4), 0.5)
    u[0, :, 0], u[0, :, 1] = 1.0, 0.0  # area 1 at ratio 3/4 is higher than the square
    centre, half = augment.window(u)
    assert half.tolist() == [[1, 1]]
    assert centre.tolist() == [[0, 0]]
    u[0, 3] = torch.tensor([0.0, 0.5, 0.0, 1.0])  # area 0.6, square, in a corner
    centre, half = augment.window(u)
    side = 0.6**0.5
    assert half.tolist() == [[pytest.approx(side), pytest.approx(side)]]
    assert centre.tolist() == [[pytest.approx(side - 1), pytest.approx(1 - side)]]


VIEWS = [
    (augment.EcgView(200), ecgs),
    (augment.EcgView(200, multiplicative=True, rate=0.5, surrogate_rate=0.5, flips=0.5), ecgs),
    (augment.EcgView(TIME, crops=False), ecgs),
    (augment.EcgView(200, rate=0.5, flips=0.5, spectrum=0.25), ecgs),
    (augment.CmrView(24), images),
    (augment.CmrView(32, rotation_rate=1.0, rate=0.5), images),
]


@pytest.mark.parametrize(("view", "make"), VIEWS)
def test_a_view_is_the_same_in_a_pack_with_shared_or_own_noise(view, make, recwarn):
    x = make(4)
    noises = [view.noise(hardware.generator("cpu", e), 4) for e in range(3)]
    alone = torch.stack([view(x, noise) for noise in noises])
    stacked = {k: torch.stack([noise[k] for noise in noises]) for k in noises[0]}
    own = torch.func.vmap(view, in_dims=(None, 0))(x, stacked)
    assert torch.allclose(alone, own, atol=1e-9)
    both = torch.func.vmap(view, in_dims=(0, None))(torch.stack([x, 2 * x]), noises[0])
    assert torch.allclose(both[0], alone[0], atol=1e-9)
    assert not [w for w in recwarn if "performance drop" in str(w.message)]


@pytest.mark.parametrize(("view", "make"), VIEWS)
def test_rows_of_noise_belong_to_rows_of_the_batch(view, make):
    x = make(4)
    noise = view.noise(hardware.generator("cpu", 1), 4)
    half = view(x[2:], {k: v[2:] for k, v in noise.items()})
    assert torch.allclose(view(x, noise)[2:], half)


def test_without_noise_a_view_crops_and_resizes_only():
    x, frames = ecgs(), images()
    assert torch.equal(augment.EcgView(200)(x, {}), x[..., :200])
    assert torch.equal(augment.CmrView(32)(frames, {}), frames)


def test_the_rate_leaves_its_share_as_it_is():
    x = ecgs(400)
    view = augment.EcgView(TIME, rate=0.9)
    out = view(x, view.noise(hardware.generator("cpu", 1), 400))
    untouched = (out == x).all(-1).all(-1).float().mean().item()
    assert 0.05 < untouched < 0.15
