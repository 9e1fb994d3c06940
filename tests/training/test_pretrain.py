"""Pre-training: the loop in torch alone, what is refused, and once the whole way through Ray."""

import dataclasses
import json
import math
import resource
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import heart_rows, write_cohort
from torch import distributed, multiprocessing

from ecgcmr import checksums, store
from ecgcmr import trial as trials
from ecgcmr.errors import InputError
from ecgcmr.nn import Network
from ecgcmr.training import checkpoint, loop, optim, pretrain
from ecgcmr.trial import Trial

TINY = Network(
    crop=500,
    patch=100,
    width=16,
    depth=1,
    heads=2,
    decoder_width=16,
    decoder_depth=1,
    decoder_heads=2,
    blocks=(1, 1, 1, 1),
    image_width=4,
    image_size=64,
    hidden=16,
    projection=8,
)
PER_EPOCH, EPOCHS, BATCH = 3, 4, 4
SHAPES = {"ecg": ((12, 5000), torch.float16), "cmr": ((3, 210, 210), torch.uint8)}


def tiny(method: str, **changes) -> Trial:
    modality = {"mae": "ecg", "byol": "ecg", "simclr": "cmr"}.get(method, "ecg+cmr")
    trial = Trial(
        space="t",
        stage="pretrain",
        task=modality,
        modality=modality.split("+")[0],
        system=method,
        method=method,
        network=TINY,
        batch=BATCH,
        epochs=EPOCHS,
        eval_every=2,
        knobs=(("lr", 1e-3),),
    )
    return dataclasses.replace(trial, **changes)


def rows(needs, key: int, n: int = BATCH) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(key)
    made = {}
    for name in needs:
        shape, dtype = SHAPES[name]
        x = torch.rand(n, *shape, generator=generator)
        made[name] = (x * 255).to(dtype) if dtype == torch.uint8 else x.to(dtype)
    return made


def feed(trial: Trial, start: int = 0, rank: int = 0, world: int = 1):
    needs, mine = trial.task.split("+"), slice(rank * BATCH // world, (rank + 1) * BATCH // world)
    for number in range(start, trial.epochs * PER_EPOCH):
        yield {name: value[mine] for name, value in rows(needs, number).items()}


def validation(trial: Trial, rank: int = 0, world: int = 1):
    needs, mine = trial.task.split("+"), slice(rank * BATCH // world, (rank + 1) * BATCH // world)
    return lambda: [
        (BATCH, {k: v[mine] for k, v in rows(needs, 1000 + i).items()}) for i in range(2)
    ]


def prepared(trial: Trial, precision=torch.float64, **place) -> loop.Training:
    return loop.prepare(trial, PER_EPOCH, torch.device("cpu"), precision, **place)


def trained(trial: Trial, **place):
    made, state = prepared(trial, **place), loop.State()
    status = loop.loop(made, feed(trial, **place), validation(trial, **place), state)
    return made, state, status


class Killed(Exception):
    pass


def killed_after(trial: Trial, steps: int, path: Path) -> None:
    """Train with a checkpoint after every step and stop dead after `steps`; what is left is the file."""
    made, state = prepared(trial), loop.State()

    def save() -> None:
        loop.save(path, made, state, trials.recipe(trial, "cohort"))
        if state.step >= steps:
            raise Killed

    with pytest.raises(Killed):
        loop.loop(made, feed(trial), validation(trial), state, save=save, every_s=0)


@pytest.mark.parametrize("method", ["mae", "simclr", "mmcl", "byol"])
@pytest.mark.parametrize("steps", [1, PER_EPOCH * 2, PER_EPOCH * 2 + 2, PER_EPOCH * EPOCHS])
def test_a_resumed_run_ends_bit_for_bit_like_an_undisturbed_one(method, steps, tmp_path):
    trial = tiny(method)
    whole, expected, _ = trained(trial)
    killed_after(trial, steps, tmp_path / "checkpoint.pt")

    again = prepared(trial)
    state = loop.resume(tmp_path / "checkpoint.pt", again, trials.recipe(trial, "cohort"))
    assert state.step == steps
    assert loop.loop(again, feed(trial, start=steps), validation(trial), state) == "finished"

    for name, value in whole.method.state_dict().items():
        assert torch.equal(value, again.method.state_dict()[name]), name
    assert state.curve == expected.curve
    assert state.epoch == expected.epoch
    assert all(torch.equal(value, state.kept[name]) for name, value in expected.kept.items())


def work_on_half(rank: int, trial: Trial, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2
    )
    made, state, _ = trained(trial, rank=rank, world=2)
    torch.save((made.method.state_dict(), vars(state)), f"{folder}/rank{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.parametrize("method", ["mmcl"])
def test_two_workers_with_half_the_batch_each_end_like_one(method, forking, tmp_path):
    trial = tiny(method)
    one, alone, _ = trained(trial)
    multiprocessing.start_processes(
        work_on_half, (trial, str(tmp_path)), nprocs=2, start_method=forking
    )
    for rank in range(2):
        weights, record = torch.load(tmp_path / f"rank{rank}.pt")
        state = loop.State(**record)
        for name, value in one.method.state_dict().items():
            torch.testing.assert_close(weights[name], value, rtol=1e-6, atol=1e-9, msg=name)
        for mine, its in zip(state.curve, alone.curve, strict=True):
            assert mine["train_loss"] == pytest.approx(its["train_loss"], rel=1e-9)
            assert mine["val_loss"] == pytest.approx(its["val_loss"], rel=1e-9)


def test_the_curve_has_a_row_per_validation_and_the_schedule_s_rate():
    trial = tiny("mae")
    made, state, status = trained(trial)
    assert status == "finished"
    assert [(row["step"], row["epoch"]) for row in state.curve] == [(6, 1), (12, 3)]
    share = float(optim.schedule(5, 12, made.knobs["warmup"]))
    assert state.curve[0]["lr"] == pytest.approx(1e-3 * made.method.lr_scale(BATCH) * share)
    assert made.optimiser.param_groups[0]["lr"] == state.curve[1]["lr"]


def test_the_last_epoch_is_validated_whatever_eval_every_is():
    _, state, _ = trained(tiny("mae", eval_every=3))
    assert [row["epoch"] for row in state.curve] == [2, 3]


def test_validation_is_the_same_every_time_and_leaves_no_trace():
    made = prepared(tiny("mmcl"))
    before = {name: value.clone() for name, value in made.method.state_dict().items()}
    first, again = (loop.validate(made, validation(made.trial)()) for _ in range(2))
    assert first == again
    assert first[1] == 2 * BATCH
    assert all(torch.equal(before[name], value) for name, value in made.method.state_dict().items())


def test_the_copy_of_byol_follows_at_the_pace_of_its_schedule():
    run = prepared(tiny("byol"))
    before = {k: v.clone() for k, v in run.method.target.state_dict().items()}
    loop.step(run, rows(("ecg",), 0), 0)
    keep = optim.inertia(0, run.steps, run.knobs["momentum"])
    for k, p in run.method.online.named_parameters():
        expected = keep * before[k] + (1 - keep) * p
        torch.testing.assert_close(run.method.target.get_parameter(k), expected, atol=1e-12, rtol=0)


def test_mae_hands_on_its_last_weights_and_contrastive_methods_their_best(monkeypatch):
    losses = iter([2.0, 1.0, 3.0, 4.0] * 2)
    monkeypatch.setattr(loop, "validate", lambda *_: ({"loss": next(losses)}, 8))
    made, last, _ = trained(tiny("mae", eval_every=1))
    assert last.epoch == 3
    assert all(
        torch.equal(value, last.kept[name]) for name, value in loop.handed_on(made.method).items()
    )
    made, best, _ = trained(tiny("simclr", eval_every=1))
    assert (best.epoch, best.best) == (1, 1.0)
    assert any(
        not torch.equal(value, best.kept[name])
        for name, value in loop.handed_on(made.method).items()
    )


def test_mmcl_hands_on_both_encoders_which_load_again():
    _, state, _ = trained(tiny("mmcl", epochs=1))
    assert {name.split(".")[0] for name in state.kept} == {"ecg", "cmr", "head"}
    other = prepared(tiny("mmcl", seed=5))
    for part in ("ecg", "cmr"):
        mine = {
            k.removeprefix(f"{part}."): v.numpy()
            for k, v in state.kept.items()
            if k.startswith(f"{part}.")
        }
        other.method.load(part, mine)
    again = {k: v for k, v in loop.handed_on(other.method).items() if not k.startswith("head.")}
    assert all(torch.equal(v.float(), state.kept[k].float()) for k, v in again.items())


def test_a_loss_that_is_not_finite_stops_the_run_as_diverged(caplog):
    _, state, status = trained(tiny("mae", knobs=(("lr", math.inf),)))
    assert status == "diverged"
    assert "not finite" in caplog.text
    assert state.step < PER_EPOCH * EPOCHS


def test_half_precision_trains_too():
    made, state = prepared(tiny("mae"), torch.bfloat16), loop.State()
    assert loop.loop(made, feed(made.trial), validation(made.trial), state) == "finished"
    assert {p.dtype for p in made.method.parameters()} == {torch.float32}


def test_a_checkpoint_of_another_recipe_is_refused_and_says_which_fields_differ(tmp_path):
    trial, path = tiny("mae"), tmp_path / "checkpoint.pt"
    killed_after(trial, 1, path)
    longer = dataclasses.replace(trial, epochs=9, network=dataclasses.replace(TINY, depth=2))
    with pytest.raises(InputError, match=r"epochs 4 → 9; network.depth 1 → 2"):
        loop.resume(path, prepared(longer), trials.recipe(longer, "cohort"))


def test_a_damaged_checkpoint_is_refused_in_one_line(tmp_path):
    path = tmp_path / "checkpoint.pt"
    killed_after(tiny("mae"), 1, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match="cannot be read") as caught:
        checkpoint.read(path, {})
    assert "\n" not in str(caught.value)


def test_a_full_disk_is_one_line_and_leaves_the_checkpoint_before(tmp_path):
    path = tmp_path / "checkpoint.pt"
    killed_after(tiny("mae"), 1, path)
    before, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (20_000, limits[1])
    )  # files of more than 20 kB meet an error
    try:
        with pytest.raises(InputError, match=r"checkpoint.pt: .*free space"):
            loop.save(path, prepared(tiny("mae")), loop.State(), {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_trials_run_after_those_they_start_from():
    mae, simclr = tiny("mae"), tiny("simclr")
    mmcl = tiny("mmcl", init_from=(("ecg", mae.name), ("cmr", simclr.name)))
    assert [t.method for t in pretrain.in_order([mmcl, simclr, mae])] == ["mae", "simclr", "mmcl"]


def test_an_unknown_knob_is_refused():
    with pytest.raises(InputError, match="knob"):
        prepared(tiny("mae", knobs=(("learning_rate", 1e-3),)))


def steps_of(trial: Trial, cohort) -> int:
    rows = pretrain.complete(cohort, "train", tuple(trial.task.split("+")))
    return len(rows) // trial.batch * trial.epochs


def options(**changes):
    return {"device": "cpu", "precision": "float32", **changes}


@pytest.mark.timeout(300)
def test_through_ray_a_trial_follows_the_one_it_starts_from_and_neither_runs_twice(
    small_cohort, ray_session, tmp_path
):
    mae = tiny("mae", batch=32, epochs=2, eval_every=1)
    mmcl = tiny("mmcl", batch=32, epochs=1, init_from=(("ecg", mae.name),))
    found = pretrain.run_all([mmcl, mae], small_cohort.path, tmp_path, **options())

    assert [(row["system"], row["metric"]) for row in found if row["metric"] == "loss"] == [
        ("mae", "loss"),
        ("mmcl", "loss"),
    ]
    assert all(np.isfinite(row["value"]) and row["status"] == "finished" for row in found)
    assert set(store.weights(tmp_path, mmcl.name, "cmr")) >= {"conv1.weight"}
    for trial in (mae, mmcl):
        folder = store.folder(tmp_path, trial.name)
        assert {path.name for path in folder.iterdir()} == {
            store.RECORD,
            store.ROWS,
            store.CURVE,
            store.ENCODER,
            checksums.SUMS,
        }
        provenance = json.loads((folder / store.RECORD).read_text())["provenance"]
        assert provenance["steps"] == steps_of(trial, small_cohort)
        assert provenance["cohort"]["fingerprint"] == small_cohort.fingerprint
        assert provenance["cache"] == (
            "host" if trial is mae else "off"
        )  # one epoch leaves nothing to gain
    assert not (tmp_path / ".train").exists()

    began = time.monotonic()
    assert pretrain.run_all([mmcl, mae], small_cohort.path, tmp_path, **options()) == found
    assert time.monotonic() - began < 2


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_through_ray_two_workers_end_like_one(small_cohort, ray_session, tmp_path):
    trial, ends = tiny("mmcl", batch=16, epochs=1), []
    for workers in (1, 2):
        runs = tmp_path / str(workers)
        pretrain.run(
            trial, small_cohort.path, runs, **options(workers=workers, precision="float64")
        )
        ends.append({part: store.weights(runs, trial.name, part) for part in ("ecg", "cmr")})
    for part in ("ecg", "cmr"):
        for name, value in ends[0][part].items():
            np.testing.assert_allclose(
                ends[1][part][name], value, rtol=1e-6, atol=1e-9, err_msg=name
            )


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_through_ray_a_diverged_trial_leaves_rows_but_no_weights_and_the_next_one_runs(
    small_cohort, ray_session, tmp_path
):
    wild, calm = (tiny("mae", batch=16, epochs=2, knobs=(("lr", lr),)) for lr in (math.inf, 1e-3))
    found = pretrain.run_all([wild, calm], small_cohort.path, tmp_path, **options())
    assert {row["trial"]: row["status"] for row in found} == {
        wild.name: "diverged",
        calm.name: "finished",
    }
    with pytest.raises(InputError):
        store.weights(tmp_path, wild.name, "ecg")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_input_that_turns_out_bad_inside_a_worker_is_one_line_in_the_driver(ray_session, tmp_path):
    cohort = write_cohort(tmp_path / "cohort", heart_rows(120))
    shard = sorted((cohort.path / "val").glob("*.parquet"))[0]
    shard.write_bytes(shard.read_bytes()[:1000])
    with pytest.raises(InputError, match="truncated") as caught:
        pretrain.run(tiny("mae", batch=16), cohort.path, tmp_path / "runs", **options())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"method": "supervised"}, "unknown pre-training method 'supervised'"),
        ({"task": "cmr"}, "needs task='ecg'"),
        ({"batch": 33}, "cannot be shared by 2 workers"),
        ({"batch": 4096}, "train rows with ecg"),
        ({"label_fraction": 0.5}, "label_fraction=0.5"),
        ({"knobs": (("speed", 1.0),)}, "unknown knob"),
        ({"init_from": (("ecg", "t/pretrain/nowhere"),)}, "start 't/pretrain/nowhere'"),
    ],
)
def test_what_cannot_run_is_refused_before_ray_starts(changes, told, small_cohort, tmp_path):
    with pytest.raises(InputError, match=told):
        pretrain.run(
            dataclasses.replace(tiny("mae"), **changes),
            small_cohort.path,
            tmp_path,
            **options(workers=2),
        )


def test_a_checkpoint_of_another_recipe_is_refused_before_ray_starts(small_cohort, tmp_path):
    trial = tiny("mae")
    killed_after(trial, 1, store.folder(tmp_path, trial.name) / pretrain.CHECKPOINT)
    with pytest.raises(InputError, match="cohort cohort → "):
        pretrain.run(trial, small_cohort.path, tmp_path, **options())


def test_validation_reads_every_row_but_a_few_in_batches_of_one_size_and_workers_share_them(
    small_cohort,
):
    whole = list(pretrain.validation_batches(small_cohort, ("ecg",), 32, torch.device("cpu")))
    n = len(pretrain.complete(small_cohort, "val", ("ecg",)))
    assert len({size for size, _ in whole}) == 1
    assert n - len(whole) < sum(size for size, _ in whole) <= n
    halves = [
        list(pretrain.validation_batches(small_cohort, ("ecg",), 32, torch.device("cpu"), r, 2))
        for r in range(2)
    ]
    for (size, batch), (_, a), (_, b) in zip(whole, *halves):
        if size % 2 == 0:
            assert torch.equal(batch["ecg"], torch.cat([a["ecg"], b["ecg"]]))
