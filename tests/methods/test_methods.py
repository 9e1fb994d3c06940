"""The contract of a method, over every registered one, and what is particular to each."""

import dataclasses
import warnings

import numpy as np
import pytest
import torch

from ecgcmr import methods
from ecgcmr.errors import InputError
from ecgcmr.methods import losses
from ecgcmr.nn import Network
from ecgcmr.presets import PRESETS
from ecgcmr.runtime import hardware
from ecgcmr.training import optim

TINY = Network(
    crop=200,
    patch=50,
    width=16,
    depth=2,
    heads=2,
    decoder_width=8,
    decoder_depth=1,
    decoder_heads=2,
    blocks=(1, 1, 1, 1),
    image_width=2,
    image_size=24,
    hidden=16,
    projection=8,
)
N, D = 6, torch.float64
CASES = [
    (name, modality) for name, method in methods.METHODS.items() for modality in method.modalities
]
presets = pytest.mark.parametrize("preset", list(PRESETS))
CONTRACT = []  # the checks that any method must pass; tests/test_extending.py puts the documented example through them


def every(check):
    """Run a check on every registered method."""
    CONTRACT.append(check)
    return pytest.mark.parametrize(("name", "modality"), CASES)(check)


def build(name, modality="", preset="paper", seed=0, **options):
    # 300 samples and not 5,000 for the supervised method: as far as lengths go, the contract is the same.
    samples = 300 if name == "supervised" else None
    options = {"outputs": 2, "samples": samples, **options}
    return methods.build(
        name, TINY, PRESETS[preset], modality=modality, seed=seed, **options
    ).double()


def random_ecgs(n, samples):
    return torch.randn(n, 12, samples, dtype=D, generator=hardware.generator("cpu", 1))


def batch_for(method, n=N):
    made = {
        "ecg": torch.randn(n, 12, 300, dtype=D, generator=hardware.generator("cpu", 1)),
        "cmr": torch.rand(n, 3, 40, 40, dtype=D, generator=hardware.generator("cpu", 2)),
    }
    target = {"target": torch.arange(n) % 2} if isinstance(method, methods.Supervised) else {}
    return {**{k: made[k] for k in method.needs}, **target}


def noise_for(method, step=0, n=N, augment=True):
    return method.noise(hardware.generator("cpu", 7, step), n, augment=augment)


def trained_of(method):
    """Parameters by name: those that are trained, and those of trailing copies."""
    named = dict(method.named_parameters())
    trained = {k: p for k, p in named.items() if p.requires_grad}
    return trained, {k: p for k, p in named.items() if k not in trained}


def stack(tables):
    return {k: torch.stack([t[k].detach() for t in tables]) for k in tables[0]}


# -------------------------------------------------------------------------------------------------- the contract


@presets
@every
def test_loss_is_a_finite_scalar_beside_scalars(name, modality, preset):
    method = build(name, modality, preset)
    out = method(batch_for(method), noise_for(method), method.knobs)
    assert all(v.shape == () and v.isfinite() for v in out.values())
    assert out["loss"].requires_grad


@every
def test_pure(name, modality):
    method = build(name, modality)
    batch, noise = batch_for(method), noise_for(method)
    copies = [{k: v.clone() for k, v in table.items()} for table in (batch, noise)]
    before = torch.get_rng_state()
    first, again = (method(batch, noise, method.knobs)["loss"] for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(before, torch.get_rng_state())
    for table, copy in zip((batch, noise), copies):
        assert all(torch.equal(table[k], copy[k]) for k in table)


@every
def test_noise_has_a_row_per_subject_and_is_fixed_by_its_key(name, modality):
    method = build(name, modality)
    noise, again, later = (noise_for(method, step) for step in (3, 3, 4))
    assert all(len(v) == N for v in noise.values())
    assert all(torch.equal(noise[k], again[k]) for k in noise)
    assert not any(torch.equal(noise[k], later[k]) for k in noise)


@presets
@every
def test_gradient_reaches_every_parameter(name, modality, preset):
    method = build(name, modality, preset)
    method(batch_for(method), noise_for(method), method.knobs)["loss"].backward()
    trained, others = trained_of(method)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained.values())
    assert all(k.startswith(tuple(f"{name}." for name in method.trails)) for k in others)
    for part in method.parts.values():
        assert any(p.grad.abs().max() > 0 for p in method.get_submodule(part).parameters())


@every
def test_twenty_steps_lower_the_loss(name, modality):
    method = build(name, modality)
    batch, noise = batch_for(method), noise_for(method, augment=False)
    optimiser = torch.optim.AdamW(method.parameters(), lr=3e-3)
    found = []
    for _ in range(20):
        loss = method(batch, noise, method.knobs)["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        found.append(loss.item())
    assert found[-1] < found[0]


@every
def test_bfloat16_products_give_nearly_the_same_loss(name, modality):
    method = build(name, modality).float()
    batch = {k: v.float() if v.is_floating_point() else v for k, v in batch_for(method).items()}
    exact = method(batch, noise_for(method), method.knobs)["loss"]
    with hardware.autocast("cpu", torch.bfloat16):
        rough = method(batch, noise_for(method), method.knobs)["loss"]
    rough.backward()
    assert rough.dtype == torch.float32
    # Ten times the cosine: at temperature 0.1 the contrastive losses magnify rounding.
    assert rough.item() == pytest.approx(exact.item(), rel=0.1)
    assert all(p.grad.isfinite().all() for p in trained_of(method)[0].values())


@every
def test_members_are_declared(name, modality):
    method = build(name, modality)
    assert method.optimiser in ("adamw", "adam")
    assert method.keep in ("last", "best")
    assert {"lr", "weight_decay", "warmup"} <= set(method.knobs)
    assert method.knobs == type(method).defaults(PRESETS["paper"], modality)
    assert set(method.parts) <= set(method.needs)
    depths = [method.depth_of(k) for k, _ in method.named_parameters()]
    assert max(depths) == method.depths
    assert min(depths) == 0
    assert method.lr_scale(32) == 1
    for k, p in method.named_parameters():
        assert isinstance(method.decays(k, p.ndim), bool)


@every
def test_equal_seeds_give_equal_weights_and_leave_the_global_stream_alone(name, modality):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = (build(name, modality, seed=s).state_dict() for s in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not all(torch.equal(first[k], other[k]) for k in first)


@every
def test_encoders_are_handed_on(name, modality):
    method, other = build(name, modality, seed=1), build(name, modality, seed=2)
    for part, attribute in method.parts.items():
        weights = {k: v.numpy() for k, v in other.get_submodule(attribute).state_dict().items()}
        method.load(part, weights)
        mine = method.get_submodule(attribute).state_dict()
        assert all(torch.equal(mine[k], torch.from_numpy(weights[k])) for k in weights)


# ------------------------------------------------------------------------------------------------- pack = solos

LR = [1e-3, 3e-3, 1e-4]


class Pack:
    """Three members of different seed, rate and knobs, stepped together by torch.func and ecgcmr.optim."""

    def __init__(self, name, modality, lr=LR):
        self.members = [build(name, modality, seed=s) for s in (0, 1, 2)]
        self.method = self.members[0]
        self.params = stack([trained_of(m)[0] for m in self.members])
        still = [{**trained_of(m)[1], **dict(m.named_buffers())} for m in self.members]
        self.buffers = stack(still) if still[0] else {}
        self.state = optim.start(self.params)
        self.knobs = {k: torch.full((3,), v, dtype=D) for k, v in self.method.knobs.items()}
        self.knobs["lr"] = torch.tensor(lr, dtype=D)
        for knob, values in (("drop_path", [0.0, 0.1, 0.5]), ("label_smoothing", [0.0, 0.1, 0.2])):
            if knob in self.knobs:
                self.knobs[knob] = torch.tensor(values, dtype=D)

    def losses(self, batch, noise, axis):
        def one(params, buffers, batch, noise, knobs):
            return torch.func.functional_call(
                self.method, (params, buffers), (batch, noise, knobs)
            )["loss"]

        return torch.func.vmap(one, in_dims=(0, 0, axis, axis, 0))(
            self.params, self.buffers, batch, noise, self.knobs
        )

    def step(self, batch, noise, axis=None, active=None):
        for p in self.params.values():
            p.requires_grad_(True)
        losses = self.losses(batch, noise, axis)
        grads = torch.autograd.grad(losses.sum(), list(self.params.values()))
        for p in self.params.values():
            p.requires_grad_(False)
        optim.step(
            self.params,
            dict(zip(self.params, grads)),
            self.state,
            lr=self.knobs["lr"],
            weight_decay=self.knobs["weight_decay"],
            betas=self.method.betas,
            active=active,
        )
        return losses.detach()


def solo(name, modality, e, steps, noises):
    method, knobs = (
        build(name, modality, seed=e),
        {k: v[e] for k, v in Pack(name, modality).knobs.items()},
    )
    optimiser = torch.optim.AdamW(
        method.parameters(), lr=LR[e], weight_decay=method.knobs["weight_decay"], betas=method.betas
    )
    for step in range(steps):
        loss = method(batch_for(method), noises(method, step, e), knobs)["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return method


@pytest.mark.parametrize("own_noise", [False, True])
@every
def test_a_pack_of_three_is_three_solo_runs(name, modality, own_noise):
    def noises(method, step, e):
        return noise_for(method, 100 * e + step if own_noise else step)

    pack = Pack(name, modality)
    batch = batch_for(pack.method)
    if own_noise:
        batch = {k: v.expand(3, *v.shape) for k, v in batch.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # vmap warns where it falls back to a loop
        for step in range(20):
            drawn = [noises(pack.method, step, e) for e in range(3)]
            pack.step(batch, stack(drawn) if own_noise else drawn[0], 0 if own_noise else None)
    for e in range(3):
        alone = solo(name, modality, e, 20, noises)
        for k, v in [*alone.named_parameters(), *alone.named_buffers()]:
            packed = (pack.params if k in pack.params else pack.buffers)[k][e]
            assert (packed - v.detach()).abs().max() < 1e-6, k


@every
def test_a_member_that_diverges_leaves_the_others_alone(name, modality):
    free, ill = Pack(name, modality), Pack(name, modality, lr=[LR[0], float("nan"), LR[2]])
    for step in range(3):
        noise = noise_for(free.method, step)
        expected, found = (pack.step(batch_for(free.method), noise) for pack in (free, ill))
        assert torch.equal(expected[[0, 2]], found[[0, 2]])
    assert all(torch.equal(free.params[k][[0, 2]], ill.params[k][[0, 2]]) for k in free.params)
    assert all(torch.equal(free.buffers[k][[0, 2]], ill.buffers[k][[0, 2]]) for k in free.buffers)
    assert all(v[1].isnan().all() for v in ill.params.values())


# --------------------------------------------------------------------------------------------- method by method


def test_a_trailing_copy_begins_equal_and_is_never_trained():
    method = build("byol")
    online, target = method.online.state_dict(), method.target.state_dict()
    assert all(torch.equal(online[k], target[k]) for k in online)
    method(batch_for(method), noise_for(method), method.knobs)["loss"].backward()
    assert all(p.grad is None for p in method.target.parameters())
    assert all(p.grad is not None for p in method.predictor.parameters())


def test_starting_byol_starts_both_copies():
    method, other = build("byol", seed=1), build("byol", seed=2)
    method.load("ecg", {k: v.numpy() for k, v in other.online["ecg"].state_dict().items()})
    for arm in (method.online, method.target):
        assert all(
            torch.equal(v, other.online["ecg"].state_dict()[k])
            for k, v in arm["ecg"].state_dict().items()
        )


def test_clocs_contrasts_the_first_stretch_with_the_last():
    method = build("clocs")
    batch = batch_for(method)
    assert batch["ecg"].shape[-1] > TINY.crop
    loss = method(batch, None, method.knobs)["loss"]
    middle = {"ecg": batch["ecg"].clone()}
    middle["ecg"][..., :100] = 0.0  # seen by the first stretch alone, as 300 − 200 = 100
    assert not torch.equal(loss, method(middle, None, method.knobs)["loss"])
    repeated = {"ecg": batch["ecg"][..., : TINY.crop]}
    assert method(repeated, None, method.knobs)["top1"] == 1  # both stretches are then the same


def test_barlow_twins_does_not_see_the_scale_of_a_feature():
    a, b = (torch.randn(8, 5, dtype=D, generator=hardware.generator("cpu", s)) for s in (1, 2))
    scale, shift = torch.rand(5, dtype=D) + 10, torch.randn(5, dtype=D)
    plain, moved = (
        losses.barlow_twins(a, b, 0.005),
        losses.barlow_twins(a * scale + shift, b, 0.005),
    )
    assert moved.item() == pytest.approx(plain.item(), rel=1e-4)


def test_mae_sees_60_or_59_of_300_patches():
    paper, authors = (
        methods.build("mae", dataclasses.replace(TINY, crop=1250), p) for p in PRESETS.values()
    )
    assert paper.tokens == 300
    assert (paper.visible, authors.visible) == (60, 59)


def test_mae_reconstructs_from_visible_patches_only():
    method = build("mae")
    x, mask = torch.randn(1, 12, 200, dtype=D), torch.rand(1, 48)
    before = method.reconstruct(x, mask)
    hidden = mask[0].argsort()[-1].item()
    visible = mask[0].argsort()[0].item()
    for token, same in ((hidden, True), (visible, False)):
        changed = x.clone()
        changed[0, token // 4, 50 * (token % 4)] += 5
        assert torch.allclose(method.reconstruct(changed, mask), before) is same


def test_mae_positions_are_no_parameters():
    method = build("mae")
    assert {"ecg.pos_embed", "decoder_pos_embed"} <= dict(method.named_buffers()).keys()
    assert "pos_embed" in method.ecg.state_dict()


def test_the_paper_mae_has_the_published_size():
    method = methods.build("mae", Network(), PRESETS["paper"])
    assert sum(p.numel() for p in method.parameters()) == pytest.approx(7.068e6, rel=1e-3)


def test_mae_loss_of_the_two_presets():
    for name in PRESETS:
        out = (method := build("mae", preset=name))(batch_for(method), noise_for(method), {})
        expected = out["mse"] if name == "paper" else 0.9 * out["mse"] + 0.1 * (1 - out["ncc"])
        assert torch.allclose(out["loss"], expected)


def test_mae_evaluates_without_noise_repeatably():
    method = build("mae")
    assert method(batch_for(method), None, {})["loss"] == method(batch_for(method), {}, {})["loss"]


def test_encoders_begin_with_positions_of_their_preset():
    fixed = build("mae").ecg.pos_embed
    for name, modality in CASES:
        if "ecg" not in modality or name == "mae":
            continue
        for preset in PRESETS:
            method = build(name, modality, preset, samples=200)
            encoder = method.get_submodule(method.parts["ecg"])
            assert torch.equal(encoder.pos_embed.detach(), fixed) is (preset == "paper")
            if preset == "authors":
                assert encoder.pos_embed.std().item() == pytest.approx(0.02, rel=0.2)
                assert encoder.cls_token.abs().max() < 1e-5


def test_the_second_view_of_the_authors_is_sometimes_only_cropped():
    for name, modality in (
        ("simclr", "cmr"),
        ("simclr", "ecg"),
        ("byol", "ecg"),
        ("barlow_twins", "ecg"),
        ("clocs", "ecg"),
    ):
        for preset, rate in (("paper", 1.0), ("authors", 0.95)):
            assert [view.rate for view in build(name, modality, preset).views] == [1.0, rate]
    method = build("simclr", "ecg", "authors")
    noise = noise_for(method)
    noise["0.apply"], noise["1.apply"] = torch.full((2, N, 2), 0.99)
    one, other = method.seen(batch_for(method), noise)
    record = batch_for(method)["ecg"]
    starts = (noise["1.start"] * 101).long()
    assert all(torch.equal(other[i], record[i, :, s : s + 200]) for i, s in enumerate(starts))
    starts = (noise["0.start"] * 101).long()
    assert not any(torch.equal(one[i], record[i, :, s : s + 200]) for i, s in enumerate(starts))


def test_only_the_authors_cut_the_spectrum_and_only_where_ecgs_meet_ecgs():
    for name, modality in CASES:
        for preset in PRESETS:
            drawn = noise_for(build(name, modality, preset))
            cut = (
                preset == "authors"
                and modality == "ecg"
                and name in ("simclr", "byol", "clocs", "barlow_twins")
            )
            assert any(k.endswith("spectrum") for k in drawn) is cut


def test_projectors_of_the_two_presets():
    paper, authors = (
        methods.build("simclr", Network(), p, modality="cmr").head.layers for p in PRESETS.values()
    )
    assert (paper[0].out_features, paper[2].out_features) == (512, 128)
    assert (authors[0].out_features, authors[2].out_features) == (2048, 256)
    for name, projector in (("byol", "online.projector"), ("barlow_twins", "projector")):
        norms = [build(name, preset=p).get_submodule(projector).input_norm for p in PRESETS]
        assert norms[0] is None
        assert norms[1].normalized_shape == (TINY.width,)


def test_half_of_the_surrogates_are_left_out_where_the_code_does():
    for name in ("mae", "supervised"):
        assert [build(name, preset=p).view.surrogate_rate for p in PRESETS] == [1.0, 0.5]
    assert build("mmcl", preset="authors").views["ecg"].surrogate_rate == 1.0


def test_early_stopping_forgives_a_quarter_point_in_the_authors_code():
    assert [build("supervised", preset=p).knobs["max_delta"] for p in PRESETS] == [0.0, 0.0025]


def test_a_method_of_one_signal_ignores_the_modality_of_its_trial():
    plain, named = build("byol", seed=1), build("byol", "cmr", seed=1)
    assert torch.equal(
        plain(batch_for(plain), None, {})["loss"], named(batch_for(named), None, {})["loss"]
    )


def test_presets_scale_the_rate_where_the_code_does():
    for name, scale in (("mae", 8), ("supervised", 8), ("mmcl", 1), ("simclr", 1)):
        assert build(name, preset="authors").lr_scale(32) == scale
        assert build(name).lr_scale(32) == 1
    assert {build(name, preset="authors").optimiser for name in ("mmcl", "simclr")} == {"adam"}


def test_supervised_layer_decay_follows_the_blocks():
    method = build("supervised")
    names = (
        "ecg.cls_token",
        "ecg.patch_embed.proj.bias",
        "ecg.blocks.0.norm1.weight",
        "ecg.blocks.1.mlp.fc1.bias",
        "head.attention_pool.in_proj_weight",
        "head.fc_norm.bias",
        "head.head.weight",
    )
    assert [method.depth_of(name) for name in names] == [0, 0, 1, 2, 3, 3, 3]
    assert not method.decays("ecg.pos_embed", 3)
    assert not method.decays("head.head.bias", 1)
    assert method.decays("head.head.weight", 2)


@pytest.mark.parametrize("modality", ["ecg", "cmr"])
def test_supervised_answers_without_a_target_and_alike_in_any_batch(modality):
    method = build("supervised", modality)
    batch = {k: v for k, v in batch_for(method).items() if k != "target"}
    logits = method(batch, {}, {})["logits"]
    assert logits.shape == (N, 2)
    one = method({k: v[2:3] for k, v in batch.items()}, None, {})["logits"]
    assert torch.allclose(
        one, logits[2:3], atol=1e-9
    )  # also in train mode: without noise nothing depends on the batch


def test_supervised_regression_ignores_missing_targets():
    method = build("supervised", outputs=4)
    batch = batch_for(method)
    batch["target"] = torch.randn(N, 4, dtype=D)
    batch["target"][0, 1] = float("nan")
    logits = method({"ecg": batch["ecg"]}, {}, {})["logits"]
    known = ~batch["target"].isnan()
    expected = (logits - batch["target"])[known].square().mean()
    assert torch.allclose(method(batch, {}, {})["loss"], expected)


def test_a_missing_phenotype_counts_as_no_error_in_the_authors_mean():
    found = {}
    for name in PRESETS:
        method = build("supervised", preset=name, outputs=4)
        batch = {**batch_for(method), "target": torch.zeros(N, 4, dtype=D)}
        batch["target"][:3] = float("nan")
        method.head.head.weight.data.zero_()
        method.head.head.bias.data.fill_(2.0)
        found[name] = method(batch, {}, {})["loss"].item()
    assert found == {"paper": pytest.approx(4.0), "authors": pytest.approx(2.0)}


def test_supervised_sees_the_whole_record_or_a_crop():
    assert build("supervised", samples=None).ecg.times == 100
    assert build("supervised", preset="authors", samples=None).ecg.times == 4


def longer(name):
    """The text's preset with another way of reading records longer than a crop."""
    return dataclasses.replace(PRESETS["paper"], finetune_ecg=name)


def test_a_longer_record_is_stretched_continued_or_read_in_parts():
    source = build("mae", seed=3)
    weights = {k: v.numpy() for k, v in source.ecg.state_dict().items()}
    tables = {}
    for name in ("stretched", "continued", "parts"):
        target = methods.build("supervised", TINY, longer(name), outputs=2, samples=400).double()
        target.load("ecg", weights)
        tables[name] = target.ecg.pos_embed[0, 1:].detach().unflatten(0, (12, -1))
        assert target.ecg.times == 8  # of the record, whatever the table
        assert target({"ecg": random_ecgs(3, 400)}, {}, {})["logits"].shape == (3, 2)
    learnt = source.ecg.pos_embed[0, 1:].unflatten(0, (12, 4))
    assert torch.equal(tables["parts"], learnt)
    assert torch.equal(tables["continued"][:, :4], learnt)
    assert tables["continued"].shape == tables["stretched"].shape == (12, 8, 16)
    assert not torch.allclose(tables["stretched"], tables["continued"], atol=0.1)


def test_halves_of_a_record_are_pooled_together():
    method = methods.build("supervised", TINY, longer("parts"), outputs=2, samples=400).double()
    x = random_ecgs(2, 400)
    swapped = torch.cat([x[..., 200:], x[..., :200]], -1)
    answers = [method({"ecg": ecg}, {}, {})["logits"] for ecg in (x, swapped)]
    assert torch.allclose(*answers, atol=1e-12)  # neither half comes first
    assert not torch.allclose(method({"ecg": x.flip(0)}, {}, {})["logits"], answers[0])


def test_parts_that_do_not_fill_a_record_are_refused():
    network = dataclasses.replace(TINY, crop=150)
    with pytest.raises(InputError, match="crop=150: parts of this length do not fill the 400"):
        methods.build("supervised", network, longer("parts"), outputs=2, samples=400)


def test_fine_tuning_starts_from_every_pre_training():
    target = build("supervised", samples=None, seed=9)
    for name, modality in (("mae", "ecg"), ("mmcl", ""), ("simclr", "ecg")):
        source = build(name, modality, seed=3)
        target.load("ecg", {k: v.numpy() for k, v in source.ecg.state_dict().items()})
        assert torch.equal(
            target.ecg.blocks[0].attn.qkv.weight, source.ecg.blocks[0].attn.qkv.weight
        )
    image = build("supervised", "cmr")
    image.load("cmr", {k: v.numpy() for k, v in build("mmcl").cmr.state_dict().items()})


def test_loading_reports_a_network_of_another_size():
    other = methods.build("mae", dataclasses.replace(TINY, width=8), PRESETS["paper"])
    with pytest.raises(InputError, match="ecg encoder differ"):
        build("supervised").load("ecg", {k: v.numpy() for k, v in other.ecg.state_dict().items()})


def test_bad_input_is_named():
    for arguments, text in (
        (
            ("byolo", TINY),
            "unknown method 'byolo'; known: barlow_twins, byol, clocs, mae, mmcl, simclr, supervised",
        ),
        (("supervised", TINY), "outputs=0"),
        (("mae", dataclasses.replace(TINY, patch=60)), "network.patch=60 does not divide the 200"),
        (("mae", dataclasses.replace(TINY, heads=3)), "network.width=16"),
    ):
        with pytest.raises(InputError, match=text):
            methods.build(*arguments, PRESETS["paper"])
    with pytest.raises(
        InputError, match="unknown modality of method 'simclr' 'mri'; known: cmr, ecg"
    ):
        methods.build("simclr", TINY, PRESETS["paper"], modality="mri")
    with pytest.raises(InputError, match="unknown knob of method 'mae' 'learning_rate'"):
        methods.knobs(build("mae"), {"learning_rate": 1.0})


def test_weights_load_from_numpy_of_another_dtype():
    method = build("mae")
    method.load(
        "ecg",
        {k: v.numpy().astype(np.float32) for k, v in build("mae", seed=4).ecg.state_dict().items()},
    )
    assert method.ecg.cls_token.dtype == D
