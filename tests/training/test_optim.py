"""Packed AdamW and Adam against torch.optim member by member; frozen and diverged members; the schedule."""

import math

import pytest
import torch

from ecgcmr.training import optim

SHAPES = {"w": (4, 3), "b": (4,), "s": ()}
LR, DECAY = [1e-2, 3e-3, 1e-1], [0.1, 0.0, 0.3]


def member(e):
    generator = torch.Generator().manual_seed(e)
    return {
        k: torch.randn(shape, dtype=torch.float64, generator=generator)
        for k, shape in SHAPES.items()
    }


def grads_at(step, e):
    generator = torch.Generator().manual_seed(1000 + 10 * step + e)
    return {
        k: torch.randn(shape, dtype=torch.float64, generator=generator)
        for k, shape in SHAPES.items()
    }


def stack(tables):
    return {k: torch.stack([t[k] for t in tables]) for k in tables[0]}


def packed(steps, coupled=False, active=None, spoil=None, **options):
    params = stack([member(e) for e in range(3)])
    state = optim.start(params)
    for step in range(steps):
        grads = stack([grads_at(step, e) for e in range(3)])
        if spoil is not None:
            grads = {k: g.index_fill(0, torch.tensor(spoil), math.nan) for k, g in grads.items()}
        rates = torch.tensor(LR, dtype=torch.float64), torch.tensor(DECAY, dtype=torch.float64)
        optim.step(
            params,
            grads,
            state,
            lr=rates[0],
            weight_decay=rates[1],
            coupled=coupled,
            active=active,
            **options,
        )
    return params


@pytest.mark.parametrize("coupled", [False, True])
def test_every_member_equals_torch(coupled):
    found = packed(50, coupled, betas=(0.9, 0.95), multiplier={"w": 0.5}, decays={"b": False})
    for e in range(3):
        params = {k: v.requires_grad_() for k, v in member(e).items()}
        groups = [
            {"params": [params["w"]], "lr": LR[e] * 0.5, "weight_decay": DECAY[e]},
            {"params": [params["b"]], "lr": LR[e], "weight_decay": 0.0},
            {"params": [params["s"]], "lr": LR[e], "weight_decay": DECAY[e]},
        ]
        theirs = (torch.optim.Adam if coupled else torch.optim.AdamW)(groups, betas=(0.9, 0.95))
        for step in range(50):
            for k, g in grads_at(step, e).items():
                params[k].grad = g
            theirs.step()
        for k in SHAPES:
            assert (found[k][e] - params[k]).abs().max() < 2e-12


def test_a_multiplier_may_differ_by_member():
    found = packed(
        5, multiplier=dict.fromkeys(SHAPES, torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64))
    )
    free = packed(5)
    for k in SHAPES:
        assert torch.equal(found[k][1], member(1)[k])
        assert torch.equal(found[k][[0, 2]], free[k][[0, 2]])


def test_an_inactive_member_is_frozen_bit_for_bit_and_the_others_do_not_notice():
    free, found = packed(5), packed(5, active=torch.tensor([True, False, True]))
    for k in SHAPES:
        assert torch.equal(found[k][1], member(1)[k])
        assert torch.equal(found[k][[0, 2]], free[k][[0, 2]])


def test_a_diverged_member_is_held_by_the_mask_and_the_others_do_not_notice():
    free = packed(5)
    for active in (None, torch.tensor([True, False, True])):
        found = packed(5, active=active, spoil=[1])
        for k in SHAPES:
            assert torch.equal(found[k][[0, 2]], free[k][[0, 2]])
            assert (
                found[k][1].isnan().all()
                if active is None
                else torch.equal(found[k][1], member(1)[k])
            )


def test_layer_decay_zero_leaves_the_encoder_still():
    """0 ** 0 = 1 at the head and 0 below it: a linear probe."""
    decay = torch.tensor([0.0, 0.5], dtype=torch.float64)
    assert (decay**0).tolist() == [1, 1]
    assert (decay**2).tolist() == [0, 0.25]


def test_schedule_warms_up_linearly_and_anneals_to_zero():
    share = [optim.schedule(s, 100, 0.1).item() for s in range(101)]
    assert share[0] == 0
    assert share[5] == pytest.approx(0.5)
    assert share[10] == 1
    assert share[55] == pytest.approx(0.5)
    assert share[100] == pytest.approx(0, abs=1e-12)
    assert max(share) == 1


def test_schedule_is_batched_over_members_and_knows_no_warm_up():
    share = optim.schedule(10, 100, torch.tensor([0.0, 0.1, 0.2]))
    expected = [0.5 * (1 + math.cos(math.pi / 10)), 1.0, 0.5]
    assert share.tolist() == pytest.approx(expected, abs=1e-7)
    assert optim.schedule(0, 100, 0.0).item() == 1


def test_a_trailing_copy_keeps_its_share_and_ends_still():
    copies, leaders = [torch.zeros(2)], [torch.ones(2)]
    optim.trail(copies, leaders, 0.75)
    assert torch.equal(copies[0], torch.full((2,), 0.25))
    keeps = [optim.inertia(step, 100, 0.99) for step in (0, 50, 100)]
    assert keeps == pytest.approx([0.99, 0.995, 1.0])
