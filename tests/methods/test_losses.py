"""Losses against the loops of their docstrings, closed cases and invariances."""

import math

import pytest
import torch
import torch.nn.functional as F

from ecgcmr.methods import losses


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def unit(rows):
    return [[v / math.sqrt(sum(w * w for w in row)) for v in row] for row in rows.tolist()]


def dot(a, b):
    return sum(x * y for x, y in zip(a, b))


def test_nt_xent_is_the_loop():
    a, b, tau = random(5, 3), random(5, 3, seed=1), 0.3
    views = unit(a) + unit(b)
    total = 0.0
    for i, z in enumerate(views):
        own = views[(i + 5) % 10]
        others = sum(math.exp(dot(z, other) / tau) for j, other in enumerate(views) if j != i)
        total -= math.log(math.exp(dot(z, own) / tau) / others)
    assert losses.nt_xent(a, b, tau).item() == pytest.approx(total / 10, abs=1e-12)


def test_nt_xent_of_orthonormal_pairs():
    z = torch.eye(4, dtype=torch.float64)
    # One positive at cosine 1 among 2N − 2 = 6 negatives at cosine 0.
    assert losses.nt_xent(z, z, 0.5).item() == pytest.approx(
        math.log(1 + 6 * math.exp(-2)), abs=1e-12
    )


def test_clip_is_the_loop():
    s, i, tau, weight = random(4, 3), random(4, 3, seed=1), 0.2, 0.75
    signals, images = unit(s), unit(i)
    by_signal = by_image = 0.0
    for k in range(4):
        by_signal -= math.log(
            math.exp(dot(signals[k], images[k]) / tau)
            / sum(math.exp(dot(signals[k], im) / tau) for im in images)
        )
        by_image -= math.log(
            math.exp(dot(images[k], signals[k]) / tau)
            / sum(math.exp(dot(images[k], sg) / tau) for sg in signals)
        )
    expected = (1 - weight) * by_signal / 4 + weight * by_image / 4
    assert losses.clip(s, i, tau, weight).item() == pytest.approx(expected, abs=1e-12)


def test_clip_weights_the_image_anchored_direction():
    # Two signals alike, images apart: an image cannot tell the signals apart, a signal can choose only its image.
    s = torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    i = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    assert losses.clip(s, i, 1.0, 1.0).item() == pytest.approx(math.log(2), abs=1e-12)
    assert losses.clip(s, i, 1.0, 0.0).item() != pytest.approx(math.log(2), abs=1e-3)


def test_contrastive_losses_ignore_length():
    a, b = random(4, 3), random(4, 3, seed=1)
    assert losses.clip(a, b, 0.1, 0.5).item() == pytest.approx(
        losses.clip(3 * a, 0.2 * b, 0.1, 0.5).item(), abs=1e-12
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.2])
def test_cross_entropy_is_torchs(smoothing):
    logits, target = random(6, 3), torch.tensor([0, 1, 2, 2, 1, 0])
    expected = F.cross_entropy(logits, target, label_smoothing=smoothing)
    assert losses.cross_entropy(logits, target, torch.tensor(smoothing)).item() == pytest.approx(
        expected.item()
    )


def test_masked_mse_counts_only_known_targets():
    prediction = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64, requires_grad=True)
    target = torch.tensor([[0.0, math.nan], [3.0, 2.0]], dtype=torch.float64)
    loss = losses.masked_mse(prediction, target)
    assert loss.item() == pytest.approx((1 + 0 + 4) / 3)
    (grad,) = torch.autograd.grad(loss, prediction)
    assert grad.tolist() == [[pytest.approx(2 / 3), 0], [0, pytest.approx(4 / 3)]]


def test_masked_mse_without_any_target_is_zero_with_zero_gradient():
    prediction = random(2, 2).requires_grad_()
    loss = losses.masked_mse(prediction, torch.full((2, 2), math.nan))
    assert loss.item() == 0
    assert torch.autograd.grad(loss, prediction)[0].abs().max() == 0


def test_mse_patches_and_ncc_are_the_loops():
    a, b = random(2, 3, 7), random(2, 3, 7, seed=1)
    squares = [
        (a[n, i, t] - b[n, i, t]).item() ** 2 for n in range(2) for i in range(3) for t in range(7)
    ]
    assert losses.mse_patches(a, b).item() == pytest.approx(sum(squares) / 42)
    rs = [
        torch.corrcoef(torch.stack([a[n, i], b[n, i]]))[0, 1].item()
        for n in range(2)
        for i in range(3)
    ]
    assert losses.ncc(a, b).item() == pytest.approx(sum(rs) / 6, abs=1e-9)


def test_ncc_ignores_offset_and_scale():
    a = random(2, 3, 50)
    assert losses.ncc(a, 4 * a + 7).item() == pytest.approx(1, abs=1e-9)


def test_losses_stay_exact_under_autocast():
    a, b = random(32, 16).float(), random(32, 16, seed=1).float()
    exact = losses.clip(a, b, 0.1, 0.75).item()
    with torch.autocast("cpu", torch.bfloat16):
        assert losses.clip(a, b, 0.1, 0.75).item() == pytest.approx(exact, abs=1e-5)
        assert losses.nt_xent(a, b, 0.1).dtype == torch.float32


def test_retrieval_counts_rows_that_find_their_own():
    z = torch.eye(4, dtype=torch.float64)
    assert losses.retrieval(z, z).item() == 1
    assert losses.retrieval(z, z[[1, 0, 2, 3]]).item() == 0.5


def test_gather_is_the_identity_in_one_process():
    x = random(3, 2)
    assert losses.gather(x) is x


def test_byol_is_the_loop():
    p, t = random(5, 3), random(5, 3, seed=1)
    expected = sum(sum((x - y) ** 2 for x, y in zip(a, b)) for a, b in zip(unit(p), unit(t))) / 5
    assert losses.byol(p, t).item() == pytest.approx(expected, abs=1e-12)
    assert losses.byol(p, 7 * p).item() == pytest.approx(0, abs=1e-12)


def test_barlow_twins_is_the_loop():
    a, b, weight, n, dim = random(6, 4), random(6, 4, seed=1), 0.05, 6, 4

    def standard(rows):
        columns = list(zip(*rows.tolist()))
        means = [sum(c) / n for c in columns]
        spreads = [
            math.sqrt(sum((v - m) ** 2 for v in c) / n + 1e-5) for c, m in zip(columns, means)
        ]
        return [[(v - m) / s for v in c] for c, m, s in zip(columns, means, spreads)]

    x, y = standard(a), standard(b)
    total = 0.0
    for i in range(dim):
        for j in range(dim):
            c = dot(x[i], y[j]) / n
            total += (1 - c) ** 2 if i == j else weight * c**2
    assert losses.barlow_twins(a, b, weight).item() == pytest.approx(total, abs=1e-10)


def test_barlow_twins_of_equal_uncorrelated_features_is_nothing():
    z = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
    assert losses.barlow_twins(z, z, 1.0).item() == pytest.approx(0, abs=1e-8)
