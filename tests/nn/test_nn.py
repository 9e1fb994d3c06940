"""Networks: published names and sizes, attention and batch norm alone and packed, starting from other weights."""

import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ecgcmr.errors import InputError
from ecgcmr.nn import attention, heads, load, resnet, vit
from ecgcmr.runtime import hardware

D = torch.float64


def random(*shape, seed=0):
    return torch.randn(shape, dtype=D, generator=hardware.generator("cpu", seed))


# ------------------------------------------------------------------------------------------------------ attention


def by_hand(q, k, v):
    return torch.softmax(q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5, -1) @ v


@pytest.mark.parametrize("axes", [(0, 0, 0), (0, None, None), (None, 0, 0), (1, 0, 2)])
def test_packed_attention_is_the_formula_for_every_member(axes):
    shape = (2, 3, 5, 4)
    tensors = [
        random(2, 3, 5, 4, seed=i) if a is None else random(7, *shape, seed=i)
        for i, a in enumerate(axes)
    ]
    given = [t if a is None else t.movedim(0, a) for t, a in zip(tensors, axes)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # vmap warns when it loops
        found = torch.func.vmap(attention.attention, in_dims=axes)(*given)
    for e in range(7):
        expected = by_hand(*(t if a is None else t[e] for t, a in zip(tensors, axes)))
        assert torch.allclose(found[e], expected, atol=1e-12)


@pytest.mark.parametrize("cache", [1, 2 * 2 * 5 * 7 * 8, 10**9])
def test_attention_written_out_in_parts_is_the_fused_one(monkeypatch, cache):
    """One sample at a time, two of the five at a time, and all."""
    monkeypatch.setattr(attention, "CACHE", cache)
    q, k, v = (torch.randn(5, 2, n, 4, dtype=torch.float64, requires_grad=True) for n in (5, 7, 7))
    ways = [
        work(q, k, v)
        for work in (attention.written_out, torch.nn.functional.scaled_dot_product_attention)
    ]
    torch.testing.assert_close(*ways)
    for mine, theirs in zip(*(torch.autograd.grad(found.sin().sum(), (q, k, v)) for found in ways)):
        torch.testing.assert_close(mine, theirs)


def test_only_bfloat16_on_a_cpu_is_written_out():
    low = torch.zeros(1, dtype=torch.bfloat16)
    assert attention.whole(low)
    assert not attention.whole(low.float())
    assert not attention.whole(low.to("meta"))


def test_gradient_through_packed_attention_is_the_formulas():
    q = random(3, 2, 2, 5, 4).requires_grad_()
    found = torch.func.vmap(attention.attention)(q, q.sin(), q.cos())
    expected = by_hand(q, q.sin(), q.cos())
    grads = [torch.autograd.grad((y**2).sum(), q)[0] for y in (found, expected)]
    assert torch.allclose(*grads, atol=1e-12)


# ------------------------------------------------------------------------------------------------------------ vit


def paper_vit(**options):
    return vit.ViT(384, 3, 6, 100, 25, **options)


def test_the_paper_encoder_has_the_published_names_and_size():
    state = paper_vit(fixed=True).state_dict()
    assert len(state) == 42
    assert state["pos_embed"].shape == (1, 301, 384)
    assert state["patch_embed.proj.weight"].shape == (384, 1, 1, 100)
    assert state["blocks.2.attn.qkv.weight"].shape == (1152, 384)
    # 5.479 M with positions and without the class token's (facts: 5.363 M trainable in MAE).
    assert sum(v.numel() for v in state.values()) == 5_478_912
    assert sum(p.numel() for p in paper_vit(fixed=True).parameters()) == 5_478_912 - 301 * 384


def test_positions_are_half_time_half_lead():
    table = vit.positions(16, 12, 5)[0]
    assert table[0].abs().max() == 0
    lead, time = 3, 2
    omega = 10000.0 ** (-torch.arange(4, dtype=D) / 4)
    expected = torch.cat(
        [(time * omega).sin(), (time * omega).cos(), (lead * omega).sin(), (lead * omega).cos()]
    )
    assert torch.allclose(table[1 + lead * 5 + time], expected.float())


def test_patch_embedding_is_the_convolution_it_is_named_after():
    embed, x = vit.PatchEmbed(8, 20).double(), random(2, 12, 100)
    expected = embed.proj(x[:, None]).flatten(2).transpose(1, 2)
    assert torch.allclose(embed(vit.patchify(x, 20)), expected, atol=1e-12)


def test_a_token_comes_from_its_lead_and_time():
    x = torch.zeros(1, 12, 100)
    x[0, 4, 40:60] = 1
    assert vit.patchify(x, 20)[0].sum(1).nonzero().tolist() == [[4 * 5 + 2]]


def test_encoding_the_visible_tokens_ignores_the_hidden_ones():
    encoder = vit.ViT(16, 2, 2, 20, 5).double()
    x, keep = random(2, 12, 100), torch.tensor([[3, 17, 5], [0, 59, 21]])
    before = encoder(x, keep)
    hidden = x.clone()
    hidden[0, 11] += 9
    assert torch.allclose(encoder(hidden, keep)[0], before[0])
    hidden[0, 0, 60:80] += 9  # token 3
    assert not torch.allclose(encoder(hidden, keep)[0], before[0])


def test_encoding_all_tokens_in_another_order_permutes_them():
    encoder, x = vit.ViT(16, 2, 2, 20, 5).double(), random(1, 12, 100)
    order = torch.randperm(60, generator=hardware.generator("cpu", 0))[None]
    assert torch.allclose(encoder(x, order)[:, 1:], encoder(x)[:, 1:][:, order[0]], atol=1e-12)


def test_drop_path_keeps_the_mean_and_takes_a_tensor():
    x, u = torch.ones(1000, 1, 1, dtype=D), torch.arange(1000) / 1000
    out = vit.drop_path(x, u, torch.tensor(0.2))
    assert out.mean().item() == pytest.approx(1)
    assert sorted(set(out.flatten().tolist())) == [0, pytest.approx(1.25)]
    assert torch.equal(vit.drop_path(x, u, 0.0), x)
    assert vit.drop_path(x, None, 0.9) is x


def test_drop_path_grows_linearly_to_the_last_block():
    encoder, x = vit.ViT(16, 3, 2, 20, 5).double(), random(1, 12, 100)
    u = torch.full((1, 3, 2), 0.85, dtype=D)  # dropped where the rate exceeds 0.15
    dropped = encoder(x, drops=u, rate=0.2)  # rates 0, 0.1, 0.2: the last block alone
    tokens = x.new_zeros(1, 61, 16)
    tokens[:, 1:] = encoder.patch_embed(vit.patchify(x, 20))
    tokens[:, :1] = encoder.cls_token
    tokens = tokens + encoder.pos_embed
    keep = torch.zeros(1, dtype=D)
    tokens = encoder.blocks[1](encoder.blocks[0](tokens), (keep, keep), 0.1)
    assert torch.allclose(dropped, encoder.norm(tokens), atol=1e-12)


def test_a_norm_moved_into_a_layer_changes_neither_value_nor_gradient():
    norm, linear, x = (
        nn.LayerNorm(16, eps=1e-6).double(),
        nn.Linear(16, 24).double(),
        random(3, 5, 16, seed=1) * 4 + 2,
    )
    with torch.no_grad():
        norm.weight.copy_(random(16, seed=2))
        norm.bias.copy_(random(16, seed=3))
    x.requires_grad_(True)
    of = [x, *norm.parameters(), *linear.parameters()]
    moved, plain = vit.normed(x, norm, linear), linear(norm(x))
    assert torch.allclose(moved, plain, atol=1e-12)
    given = random(3, 5, 24, seed=4)
    for a, b in zip(
        torch.autograd.grad((moved * given).sum(), of),
        torch.autograd.grad((plain * given).sum(), of),
    ):
        assert torch.allclose(a, b, atol=1e-12)


def test_attention_pool_is_torchs_multihead_attention():
    pool, reference = (
        heads.AttentionPool(16, 4).double(),
        nn.MultiheadAttention(16, 4, batch_first=True).double(),
    )
    nn.init.normal_(pool.in_proj_bias)
    reference.load_state_dict(pool.state_dict())  # the names are the same
    tokens = random(3, 7, 16)
    expected, _ = reference(tokens.mean(1, keepdim=True), tokens, tokens)
    assert torch.allclose(pool(tokens), expected[:, 0], atol=1e-12)


def test_the_paper_head_has_the_published_size():
    encoder, head = paper_vit(norm=False), heads.EcgHead(384, 6, 2, double_norm=False)
    count = sum(p.numel() for module in (encoder, head) for p in module.parameters())
    assert count == pytest.approx(6.071e6, rel=1e-3)


# --------------------------------------------------------------------------------------------------------- resnet


def test_resnet50_has_torchvisions_names_and_size():
    encoder = resnet.ResNet((3, 4, 6, 3), 64)
    state = encoder.state_dict()
    assert len(state) == 318
    assert sum(p.numel() for p in encoder.parameters()) == 23_508_032
    assert state["layer1.0.downsample.0.weight"].shape == (256, 64, 1, 1)
    assert state["layer4.2.bn3.num_batches_tracked"].dtype == torch.int64
    assert encoder.out == 2048


def test_resnet_maps_are_a_32nd_of_the_image():
    encoder = resnet.ResNet((1, 1, 1, 1), 4)
    x = torch.rand(1, 3, 210, 210)
    assert encoder.maps(x, False).shape == (1, 128, 7, 7)
    assert torch.allclose(encoder(x, False), encoder.maps(x, False).mean((2, 3)))


def test_batch_norm_is_torchs():
    mine, theirs = resnet.BatchNorm(4).double(), nn.BatchNorm2d(4).double()
    for i in range(3):
        x = random(5, 4, 3, 3, seed=i) * 2 + 1
        assert torch.allclose(mine(x, True), theirs(x))
    theirs.load_state_dict(mine.state_dict())
    assert mine.num_batches_tracked == 3
    theirs.eval()
    assert torch.allclose(mine(x, False), theirs(x))


def test_packed_batch_norm_tracks_every_members_statistics():
    norm, x = resnet.BatchNorm(4).double(), random(3, 5, 4, 3, 3)
    params = {k: v.detach().expand(3, -1).clone() for k, v in norm.named_parameters()}
    buffers = {k: v.expand(3, *v.shape).clone() for k, v in norm.named_buffers()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = torch.func.vmap(
            lambda p, b, x: torch.func.functional_call(norm, (p, b), (x, True))
        )(params, buffers, x)
    for e in range(3):
        alone = resnet.BatchNorm(4).double()
        assert torch.allclose(found[e], alone(x[e], True))
        for k, v in alone.named_buffers():
            assert torch.allclose(buffers[k][e], v)


# ---------------------------------------------------------------------------------------------------------- start


def arrays(module):
    return {k: v.numpy() for k, v in module.state_dict().items()}


def test_positions_are_stretched_along_time_lead_by_lead():
    table = torch.zeros(1, 1 + 12 * 4, 2)
    table[0, 0] = 7
    for lead in range(12):
        table[0, 1 + 4 * lead : 5 + 4 * lead] = lead * 100 + torch.arange(4.0)[:, None]
    out = load.resize_positions(table, 1 + 12 * 8)
    assert out.shape == (1, 97, 2)
    assert (out[0, 0] == 7).all()
    expected = F.interpolate(torch.arange(4.0)[None, None], size=8, mode="linear")[0, 0]
    for lead in range(12):
        assert torch.allclose(out[0, 1 + 8 * lead : 9 + 8 * lead, 0], lead * 100 + expected)
    assert load.resize_positions(table, 49) is table


def test_an_encoder_starts_from_one_of_half_the_length():
    small, large = vit.ViT(16, 2, 2, 20, 5, fixed=True), vit.ViT(16, 2, 2, 20, 10, norm=False)
    load.into(large, arrays(small), "ecg")
    assert torch.equal(large.blocks[1].mlp.fc2.weight, small.blocks[1].mlp.fc2.weight)
    assert torch.equal(large.pos_embed[:, :1], small.pos_embed[:, :1])


def test_what_sat_on_the_encoder_is_left_behind():
    encoder = vit.ViT(16, 1, 2, 20, 5, norm=False)
    extra = {
        k: np.zeros(3)
        for k in ("norm.weight", "head.weight", "decoder_embed.bias", "mask_token", "fc_norm.bias")
    }
    start = vit.ViT(16, 1, 2, 20, 5)
    load.into(encoder, {**arrays(start), **extra}, "ecg")
    assert torch.equal(encoder.blocks[0].attn.qkv.weight, start.blocks[0].attn.qkv.weight)
    assert not {"norm.weight", "head.weight", "mask_token"} & set(encoder.state_dict())


def test_the_mismatch_lists_names():
    encoder = vit.ViT(16, 1, 2, 20, 5)
    weights = arrays(vit.ViT(16, 2, 2, 20, 5))
    del weights["cls_token"]
    weights["patch_embed.proj.bias"] = np.zeros(9, np.float32)
    with pytest.raises(InputError) as caught:
        load.into(encoder, weights, "ecg")
    text = str(caught.value)
    assert "- in the file only: blocks.1.attn.proj.bias" in text
    assert "+ in the model only: cls_token" in text
    assert "~ patch_embed.proj.bias: (9,) in the file, (16,) in the model" in text


def test_continued_positions_of_mae_are_the_sine_cosine_of_later_times():
    table = vit.positions(16, 12, 5)
    assert torch.allclose(
        load.continue_positions(table, 1 + 12 * 10), vit.positions(16, 12, 10), atol=1e-6
    )
    assert torch.equal(load.continue_positions(table, 1 + 12 * 3), vit.positions(16, 12, 3))
    assert load.continue_positions(table, 61) is table


def test_what_training_added_to_a_lead_goes_on_with_its_positions():
    table = vit.positions(16, 12, 5)
    table[0, 1 + 5 * 7 : 1 + 5 * 8] += torch.tensor([1.0, 2, 3, 4, 5])[:, None]  # lead 7
    grid = load.continue_positions(table, 1 + 12 * 8)[0, 1:].unflatten(0, (12, 8))
    plain = vit.positions(16, 12, 8)[0, 1:].unflatten(0, (12, 8))
    added = torch.tensor([1.0, 2, 3, 4, 5, 3, 3, 3])[:, None]  # beyond the end their mean
    assert torch.allclose(grid[7], plain[7] + added, atol=1e-5)
    assert torch.allclose(grid[6], plain[6], atol=1e-6)


def two_parts():
    """An encoder of records in two parts, and the same weights for one part."""
    whole, half = (vit.ViT(16, 3, 2, 20, times, parts=p).double() for times, p in ((10, 2), (5, 1)))
    whole.load_state_dict(half.state_dict())
    return whole, half


def test_a_record_in_parts_is_each_part_by_itself():
    whole, half = two_parts()
    x, u = random(2, 12, 200), torch.rand(2, 3, 2, dtype=D)
    tokens = whole(x, drops=u, rate=0.9)
    first, second = (half(x[..., i : i + 100], drops=u, rate=0.9) for i in (0, 100))
    assert torch.allclose(tokens[:, 0], (first[:, 0] + second[:, 0]) / 2, atol=1e-12)
    for part, alone in enumerate((first, second)):  # lead by lead, first half, then second
        assert torch.allclose(
            tokens[:, 1:].unflatten(1, (12, 2, 5))[:, :, part],
            alone[:, 1:].unflatten(1, (12, 5)),
            atol=1e-12,
        )
    mean = (first[:, 1:].mean(1) + second[:, 1:].mean(1)) / 2
    assert torch.allclose(tokens[:, 1:].mean(1), mean, atol=1e-12)  # the embedding is averaged


def test_attention_of_a_record_in_parts_stays_within_them():
    whole, half = two_parts()
    x = random(2, 12, 200)
    for layer, weights in enumerate(whole.weights(x)):
        parts = [half.weights(x[..., i : i + 100])[layer] for i in (0, 100)]
        assert weights.shape == (2, 2, 121, 121)
        assert torch.allclose(weights.sum(-1), torch.ones(2, 2, 121, dtype=D))
        for lead, time, to_lead, to_time in (
            (0, 0, 3, 4),
            (11, 7, 2, 9),
            (4, 3, 4, 8),
            (4, 8, 4, 3),
        ):
            row, column = 1 + 10 * lead + time, 1 + 10 * to_lead + to_time
            part, own = divmod(time, 5)
            of_part = parts[part][:, :, 1 + 5 * lead + own]
            expected = of_part[:, :, 1 + 5 * to_lead + to_time % 5] * (part == to_time // 5)
            assert torch.allclose(weights[:, :, row, column], expected, atol=1e-12)
            assert torch.allclose(weights[:, :, row, 0], of_part[:, :, 0], atol=1e-12)
            from_class = parts[to_time // 5][:, :, 0, 1 + 5 * to_lead + to_time % 5] / 2
            assert torch.allclose(weights[:, :, 0, column], from_class, atol=1e-12)
