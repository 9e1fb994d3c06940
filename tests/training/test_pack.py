"""How packs lie in memory, shrink, and are recorded; that a pack equals its members alone is in test_finetune."""

import contextlib
import dataclasses
import itertools

import numpy as np
import pandas as pd
import pytest
import torch
import torch._dynamo
from test_finetune import CPU, TINY, Cohort, a_trial

from ecgcmr import methods, presets, store, tasks
from ecgcmr.data import examples, sampler
from ecgcmr.runtime import cuda_graph, hardware
from ecgcmr.training import finetune, loop, optim, pack_judge, pack_step
from ecgcmr.training.pack import (
    ALIGN,
    assemble,
    at_best,
    compact,
    in_cache,
    keep_best,
    parts,
    widest,
)
from ecgcmr.trial import Trial

META = torch.device("meta")


@pytest.fixture(scope="module")
def cohort():
    return Cohort()


def a_pack(tmp_path, precision=torch.float64, device=CPU, **changed):
    trials = [
        a_trial(knobs=(("lr", lr),), seed=seed, **changed)
        for lr, seed in ((1e-3, 0), (3e-3, 0), (1e-3, 7))
    ]
    return assemble(trials, tasks.of(trials[0].task), tmp_path, device, precision)


# -- how weights lie


def test_rows_hold_every_parameter_apart_and_groups_cover_them(tmp_path):
    pack = a_pack(tmp_path)
    layout, rows = pack.layout, torch.arange(pack.layout.length, dtype=torch.float64)[None]
    places = {
        name: set(view.flatten().long().tolist()) for name, view in layout.params(rows).items()
    }
    assert sum(map(len, places.values())) == len(set().union(*places.values()))
    for (depth, decayed), (start, end) in layout.groups.items():
        inside = [name for name, found in places.items() if found <= set(range(start, end))]
        assert {pack.method.depth_of(name) for name in inside} == {depth}
        assert {pack.method.decays(name, len(layout.shapes[name])) for name in inside} == {decayed}
    spans = sorted(layout.groups.values())
    assert (spans[0][0], spans[-1][1]) == (0, layout.length)
    assert all(one[1] == other[0] for one, other in itertools.pairwise(spans))
    assert all(start % ALIGN == 0 for start in layout.starts.values())


def test_params_are_views_of_the_rows(tmp_path):
    pack = a_pack(tmp_path)
    pack.rows.fill_(3.0)
    assert all((view == 3).all() for view in pack.params.values())


# -- a smaller pack


def steps(pack, cohort, count, first=0):
    """Train; the losses, (steps, E)."""
    trial = pack.trials[0]
    chosen = examples.training_rows(cohort, trial).index
    rows = examples.bring(
        cohort,
        chosen,
        tasks.of(trial.task),
        trial.modality,
        examples.Scale(np.zeros(1), np.ones(1)),
        CPU,
    )
    draws, n = pack_step.draws_of(pack.trials, CPU), len(chosen)
    per_epoch = sampler.permuted_steps(n, trial.batch)
    losses = []
    for now in range(first, first + count):
        order = pack_step.orders(draws, now // per_epoch, n, pack.trials, CPU)
        losses.append(pack_step.advance(pack, rows, draws, order, now, 100))
    return torch.stack(losses)


@pytest.mark.parametrize("modality", ["ecg", "cmr"])
def test_members_go_on_in_a_smaller_pack_as_if_nothing_had_happened(cohort, tmp_path, modality):
    whole, shrinking = (a_pack(tmp_path, modality=modality) for _ in range(2))
    losses = steps(whole, cohort, 8)
    first = steps(shrinking, cohort, 4)
    smaller = compact(shrinking, [0, 2])
    last = steps(smaller, cohort, 4, first=4)
    torch.testing.assert_close(
        torch.cat([first[:, [0, 2]], last]), losses[:, [0, 2]], atol=1e-9, rtol=0
    )
    for name, tensor in {**whole.params, **whole.buffers}.items():
        torch.testing.assert_close(
            {**smaller.params, **smaller.buffers}[name],
            tensor[[0, 2]],
            atol=1e-9,
            rtol=1e-9,
            msg=name,
        )
    assert smaller.places.tolist() == [0, 2]


@pytest.mark.parametrize("modality", ["ecg", "cmr"])
def test_members_that_step_part_by_part_step_as_all_together(
    cohort, tmp_path, monkeypatch, modality
):
    """Parts of two members and one; with a neighbour that diverges and seeds that differ."""
    whole, parted = (a_pack(tmp_path, modality=modality) for _ in range(2))
    for pack in (whole, parted):
        pack.rows[0] = float("nan")
    losses = steps(whole, cohort, 4)
    monkeypatch.setattr("ecgcmr.training.pack.CPU_BYTES", 2 * widest(parted.trials[0]))
    assert parts(3, in_cache(parted.trials[0])) == [slice(0, 2), slice(2, 3)]
    torch.testing.assert_close(steps(parted, cohort, 4), losses, atol=1e-9, rtol=0, equal_nan=True)
    assert parted.alive.tolist() == whole.alive.tolist() == [False, True, True]
    for name, tensor in {**whole.params, **whole.buffers}.items():
        torch.testing.assert_close(
            {**parted.params, **parted.buffers}[name],
            tensor,
            atol=1e-9,
            rtol=1e-9,
            equal_nan=True,
            msg=name,
        )


def test_the_best_weights_of_members_stay_in_their_place(cohort, tmp_path):
    pack = a_pack(tmp_path)
    smaller = compact(pack, [1, 2])
    steps(smaller, cohort, 2)
    keep_best(smaller, np.array([False, True]))
    kept = at_best(pack)
    for name, view in kept.params.items():
        assert torch.equal(view[2], smaller.params[name][1]), name
    assert torch.equal(kept.rows[:2], a_pack(tmp_path).rows[:2])


def test_no_step_is_spent_on_members_that_have_ended(cohort, tmp_path, monkeypatch):
    """Three of four members stop after their second validation; from then on the pack has one."""
    sizes = []
    real = pack_step.step
    monkeypatch.setattr(
        pack_step, "step", lambda pack, *given: sizes.append(len(pack.trials)) or real(pack, *given)
    )
    still = {"knobs": (("lr", 0.0), ("max_delta", -1e-9), ("patience", 0.0))}
    trials = [
        a_trial(epochs=5, system="moves"),
        *(a_trial(epochs=5, system=f"still-{i}", **still) for i in range(3)),
    ]
    results = finetune.fit(trials, cohort, tmp_path / "a", device="cpu", precision="float64")
    assert [r.status for r in results] == ["finished", *["early-stopped"] * 3]
    per_epoch = len(sizes) // 5
    assert sizes == [4] * 2 * per_epoch + [1] * 3 * per_epoch
    (alone,) = finetune.fit(trials[:1], cohort, tmp_path / "b", device="cpu", precision="float64")
    np.testing.assert_allclose(results[0].curve.train_loss, alone.curve.train_loss, atol=1e-9)
    assert results[0].curve.val_auroc.tolist() == alone.curve.val_auroc.tolist()
    assert [len(r.curve) for r in results] == [5, 2, 2, 2]


# -- a killed pack goes on


@pytest.mark.parametrize("modality", ["ecg", "cmr"])
def test_a_killed_pack_goes_on_where_it_was_and_ends_alike(cohort, tmp_path, monkeypatch, modality):
    """Two seeds, one member that stops early: killed after the third of five validations, when the pack is smaller."""
    monkeypatch.setattr(finetune, "EVERY_S", 0.0)
    monkeypatch.setattr(finetune, "SAVE_SHARE", 1e9)
    still = a_trial(
        epochs=5,
        system="still",
        modality=modality,
        knobs=(("lr", 0.0), ("max_delta", -1e-9), ("patience", 0.0)),
    )
    moving = [a_trial(epochs=5, system="moves", modality=modality, seed=seed) for seed in (0, 7)]
    trials = [still, *moving]
    whole = finetune.fit(trials, cohort, tmp_path / "whole", device="cpu", precision="float64")

    real, seen = finetune.validate, []

    def killed(*given):
        if len(seen) == 3:
            raise KeyboardInterrupt
        seen.append(1)
        return real(*given)

    monkeypatch.setattr(finetune, "validate", killed)
    with pytest.raises(KeyboardInterrupt):
        finetune.fit(trials, cohort, tmp_path / "killed", device="cpu", precision="float64")
    assert not list((tmp_path / "killed").rglob(store.RECORD))
    steps, ours = [], pack_step.step
    monkeypatch.setattr(finetune, "validate", real)
    monkeypatch.setattr(
        pack_step, "step", lambda pack, *given: steps.append(len(pack.trials)) or ours(pack, *given)
    )
    again = finetune.fit(trials, cohort, tmp_path / "killed", device="cpu", precision="float64")
    assert set(steps) == {2}
    assert len(steps) * 5 == 2 * whole[1].curve.step.iloc[-1]
    for one, other in zip(whole, again):
        assert (one.status, one.epoch) == (other.status, other.epoch)
        pd.testing.assert_frame_equal(one.curve, other.curve, atol=1e-12)
        pd.testing.assert_frame_equal(one.predictions, other.predictions)
    assert not (tmp_path / "killed" / finetune.CHECKPOINTS).exists()


def test_a_checkpoint_that_cannot_be_read_costs_the_pack_its_progress_only(cohort, tmp_path):
    trial = a_trial(epochs=1)
    path, _ = finetune._checkpoint([trial], cohort, tmp_path, torch.float64)
    path.parent.mkdir()
    path.write_bytes(b"torn")
    (result,) = finetune.fit([trial], cohort, tmp_path, device="cpu", precision="float64")
    assert result.status == "finished"


# -- what a GPU can record: a step that never asks for a value. On the meta device tensors have none.


@pytest.fixture
def without_values(monkeypatch):
    """Autocast that knows nothing of the meta device is left out."""
    real = torch.autocast
    monkeypatch.setattr(
        torch,
        "autocast",
        lambda device, *a, **k: (
            contextlib.nullcontext() if device == "meta" else real(device, *a, **k)
        ),
    )


def there(tensors):
    return {name: x.to(META) for name, x in tensors.items()}


@pytest.mark.parametrize("preset", presets.PRESETS)
@pytest.mark.parametrize(("task", "modality"), [("af", "ecg"), ("lv", "ecg"), ("af", "cmr")])
def test_a_step_of_a_pack_asks_for_no_value(tmp_path, without_values, task, modality, preset):
    pack = a_pack(tmp_path, torch.float32, task=task, modality=modality, preset=preset)
    noise = pack.method.noise(hardware.generator(CPU, 0, 0), 8)
    rows = pack.rows.to(META)
    state = optim.AdamState(
        pack.state.steps.to(META), there(pack.state.first), there(pack.state.second)
    )
    pack = dataclasses.replace(
        pack,
        rows=rows,
        gradient=pack.gradient.to(META),
        params=pack.layout.params(rows),
        buffers=there(pack.buffers),
        knobs=there(pack.knobs),
        state=state,
        multiplier=there(pack.multiplier),
        alive=pack.alive.to(META),
    )
    shape = (8, 12, 5000) if modality == "ecg" else (8, 3, 210, 210)
    target = (
        torch.zeros(8, dtype=torch.long) if task == "af" else torch.zeros(8, tasks.of(task).outputs)
    )
    batch = there({modality: torch.zeros(shape), "target": target})
    now = torch.zeros((), dtype=torch.float64, device=META)
    losses = pack_step.step(
        pack, batch, there(noise), None, optim.schedule(now, 100, pack.knobs["warmup"])
    )
    assert losses.shape == (3,)


@pytest.mark.parametrize("preset", presets.PRESETS)
@pytest.mark.parametrize(
    ("method", "modality"),
    [
        (name, modality)
        for name, kind in methods.METHODS.items()
        if name != "supervised"
        for modality in kind.modalities
    ],
)
def test_a_step_of_pre_training_asks_for_no_value(without_values, method, modality, preset):
    trial = Trial(
        space="t",
        stage="pretrain",
        task="x",
        system=method,
        method=method,
        network=TINY,
        preset=preset,
        modality=modality if modality in ("ecg", "cmr") else "ecg",
        batch=8,
        epochs=1,
    )
    run = loop.prepare(trial, 10, CPU, torch.float32)
    noise = run.method.noise(hardware.generator(CPU, 0, 0), 8)
    run.method.to(META)
    forms = {"ecg": ((8, 12, 5000), torch.float16), "cmr": ((8, 3, 210, 210), torch.uint8)}
    batch = there(
        {
            name: torch.zeros(shape, dtype=dtype)
            for name, (shape, dtype) in forms.items()
            if name in run.method.needs
        }
    )
    # The optimiser's own kernels differ by device; what is asked here is the method's.
    run.optimiser.step = lambda: None
    run.optimiser.param_groups.clear()
    given = {
        **{f"batch.{k}": x for k, x in batch.items()},
        **{f"noise.{k}": x for k, x in there(noise).items()},
    }
    assert loop.descend(run, given).device == META


def test_off_a_gpu_a_replay_calls_the_function(monkeypatch):
    calls = []
    run = cuda_graph.Replay(CPU)
    for number in range(6):
        assert (
            run(lambda given: calls.append(1) or given["x"] + 1, {"x": torch.tensor(number)})
            == number + 1
        )
    assert len(calls) == 6
    assert cuda_graph.wanted(torch.device("cuda"))
    assert not cuda_graph.wanted(CPU)
    monkeypatch.setenv(cuda_graph.SWITCH, "off")
    assert not cuda_graph.wanted(torch.device("cuda"))
    assert not cuda_graph.compiled(torch.device("cuda"))
    monkeypatch.setenv(cuda_graph.COMPILE, "on")
    assert cuda_graph.compiled(torch.device("cuda"))
    assert not cuda_graph.compiled(CPU)


@pytest.mark.filterwarnings("ignore:Dynamo detected a call")
@pytest.mark.parametrize(
    ("modality", "preset"), [("ecg", "paper"), ("ecg", "authors"), ("cmr", "paper")]
)
def test_a_pack_can_be_compiled_as_one_graph(cohort, tmp_path, monkeypatch, modality, preset):
    shallow = dataclasses.replace(TINY, depth=1)  # a block more is traced like the first
    plain, merged = (
        a_pack(tmp_path, torch.float32, modality=modality, preset=preset, network=shallow)
        for _ in range(2)
    )
    losses = steps(plain, cohort, 3)
    torch._dynamo.reset()
    whole = torch.compile(pack_step.forward, backend="aot_eager", fullgraph=True, dynamic=False)
    monkeypatch.setattr(pack_step, "compiled_forward", lambda: whole)
    monkeypatch.setattr(cuda_graph, "compiled", lambda device: True)
    with torch._dynamo.config.patch(
        error_on_recompile=True
    ):  # each step would take as long as the first
        torch.testing.assert_close(steps(merged, cohort, 3), losses, atol=1e-5, rtol=0)


@pytest.mark.gpu
def test_a_recorded_pack_equals_one_launched_kernel_by_kernel(cohort, tmp_path, monkeypatch):
    found = []
    for word in ("on", "off"):
        monkeypatch.setenv(cuda_graph.SWITCH, word)
        results = finetune.fit(
            [a_trial(epochs=4), a_trial(epochs=4, system="b", knobs=(("lr", 3e-3),))],
            cohort,
            tmp_path / word,
            device="cuda",
            precision="float32",
        )
        found.append(np.array([r.curve.train_loss for r in results]))
    np.testing.assert_allclose(found[0], found[1], atol=1e-4)


@pytest.mark.parametrize("rows", [1, 2, 7, 512])
def test_answers_do_not_depend_on_how_many_are_evaluated_at_once(
    cohort, tmp_path, monkeypatch, rows
):
    pack, task = a_pack(tmp_path), tasks.of("af")
    scale = examples.Scale(np.zeros(1), np.ones(1))
    val = examples.bring(
        cohort, examples.answerable(cohort, task, "ecg", "val"), task, "ecg", scale, CPU
    )
    whole = pack_judge.evaluate(pack, val, task, scale)
    monkeypatch.setattr(pack_judge, "at_once", lambda pack: rows)
    assert whole.shape == (3, len(val.subjects), 1)
    torch.testing.assert_close(
        pack_judge.evaluate(pack, val, task, scale), whole, atol=1e-12, rtol=0
    )
