"""The order of rows as a pure function, and the stream that carries it out."""

import shutil
import threading

import numpy as np
import pytest
import torch

from ecgcmr.cohort import dataset
from ecgcmr.data import inputs, sampler, stream
from ecgcmr.errors import InputError
from ecgcmr.signals import ecg

BOTH = ("ecg", "cmr")


def rows_of(plan, epoch):
    return sampler.sequence(plan, epoch)


def all_pieces(plan, epochs, start_step=0):
    numbers = range(sampler.first_piece(plan, start_step), epochs * plan.pieces)
    return np.concatenate([sampler.piece(plan, n, start_step) for n in numbers])


# -- order -------------------------------------------------------------------------------------------------------------


def test_an_epoch_visits_every_row_at_most_once_and_drops_less_than_a_batch(small_cohort):
    plan = stream.plan(small_cohort, "train", BOTH, 16)
    seen = rows_of(plan, 0).ravel()
    assert len(set(seen)) == len(seen) == plan.steps * 16
    assert 0 <= len(plan.row) - len(seen) < 16


def test_only_rows_with_every_needed_signal(small_cohort):
    index = small_cohort.rows("train")
    assert len(stream.plan(small_cohort, "train", ("ecg",), 8).row) == len(index)
    assert (
        len(stream.plan(small_cohort, "train", (*BOTH, "target"), 8).row)
        == int(index["has_cmr"].sum())
        < len(index)
    )
    assert stream.steps_per_epoch(small_cohort, "train", ("ecg",), 32) == len(index) // 32


def test_order_depends_on_seed_and_epoch_alone(small_cohort):
    one, two = (stream.plan(small_cohort, "train", BOTH, 16, seed=s) for s in (0, 1))
    assert (
        rows_of(one, 3) == rows_of(stream.plan(small_cohort, "train", BOTH, 16, seed=0), 3)
    ).all()
    assert (rows_of(one, 0) != rows_of(one, 1)).any()
    assert (rows_of(one, 0) != rows_of(two, 0)).any()


def test_without_shuffling_rows_come_as_they_lie(small_cohort):
    plan = stream.plan(small_cohort, "val", ("ecg",), 4, seed=None)
    assert (rows_of(plan, 5).ravel() == np.arange(plan.steps * 4)).all()


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_share_the_same_global_batches_in_order(small_cohort, world):
    alone = all_pieces(stream.plan(small_cohort, "train", BOTH, 16), 2).reshape(-1, 16)
    ranks = [
        stream.plan(small_cohort, "train", BOTH, 16, rank=r, world=world) for r in range(world)
    ]
    parts = [all_pieces(plan, 2).reshape(-1, 16 // world) for plan in ranks]
    assert (np.concatenate(parts, axis=1) == alone).all()


@pytest.mark.parametrize(
    ("batch", "rank", "world"), [(16, 0, 1), (16, 1, 2), (640, 0, 1), (1200, 1, 2)]
)
def test_resuming_at_any_step_continues_the_sequence(batch, rank, world):
    plan = of_size(3000, batch, rank, world)
    whole = all_pieces(plan, 2).reshape(-1, plan.local)
    for step in (0, 1, plan.steps - 1, plan.steps, 2 * plan.steps - 1):
        assert (all_pieces(plan, 2, step).reshape(-1, plan.local) == whole[step:]).all()


def of_size(n, batch, rank=0, world=1):
    return sampler.Order(
        path="",
        fingerprint=f"{n}",
        split="train",
        columns=BOTH,
        batch=batch,
        seed=0,
        rank=rank,
        world=world,
        shards=("a", "b"),
        shard=(np.arange(n) >= n // 2).astype(np.int32),
        row=(np.arange(n) % (n // 2)).astype(np.int32),
    )


def test_pieces_are_bounded_and_ranks_divide_the_reading():
    n = 8192
    groups = np.arange(n) // 64
    read = []
    for rank in range(2):
        plan = of_size(n, 128, rank, 2)
        pieces = [sampler.piece(plan, k) for k in range(plan.pieces)]
        assert max(map(len, pieces)) <= sampler.MIX
        read.append(sum(len(set(groups[piece])) for piece in pieces))
    # Each rank would open all 128 groups if rows were dealt at random; sorted inside the batch, a good half.
    assert max(read) < 0.75 * n / 64


def test_batches_mix_distant_rows():
    plan = of_size(8192, 128)
    groups = {len(set(batch // 64)) for batch in sampler.sequence(plan, 0)}
    assert min(groups) >= 6  # of 8 row groups in a mix
    first, second = (set(sampler.sequence(plan, e)[0]) for e in (0, 1))
    assert len(first & second) < 32


def test_too_small_a_split_and_an_indivisible_batch(small_cohort):
    path = small_cohort.path
    with pytest.raises(
        InputError, match=r"split 'val' has 45 rows with ecg, fewer than one batch of 64"
    ):
        stream.batches(path, split="val", needs=("ecg",), batch=64, seed=0, epochs=1)
    with pytest.raises(InputError, match="batch=15 cannot be shared by 2 workers"):
        stream.batches(path, split="train", needs=("ecg",), batch=15, seed=0, epochs=1, world=2)
    with pytest.raises(InputError, match="names no signal"):
        stream.batches(path, split="train", needs=("eeg",), batch=4, seed=0, epochs=1)


def test_a_damaged_shard_is_told_before_anything_runs(small_cohort, tmp_path):
    path = shutil.copytree(small_cohort.path, tmp_path / "copy")
    shard = path / "train/shard-00001.parquet"
    shard.write_bytes(shard.read_bytes()[:-1000])
    with pytest.raises(InputError, match=r"train/shard-00001.parquet: truncated or not Parquet"):
        stream.batches(path, split="train", needs=("ecg",), batch=4, seed=0, epochs=1)
    shard.unlink()
    with pytest.raises(InputError, match=r"train/shard-00001.parquet: the shard is missing"):
        stream.batches(path, split="train", needs=("ecg",), batch=4, seed=0, epochs=1)


def test_to_model_normalises_and_scales():
    batch = {
        "ecg": torch.randn(2, 12, 5000).half(),
        "cmr": torch.tensor([[0, 255]], dtype=torch.uint8),
        "target": torch.ones(2),
    }
    out = inputs.to_model(batch, torch.float64)
    assert torch.equal(out["ecg"], ecg.normalise(batch["ecg"]).double())
    assert out["cmr"].tolist() == [[0.0, 1.0]]
    assert out["target"] is batch["target"]


# -- the stream --------------------------------------------------------------------------------------------------------


def collect(path, **options):
    given = {"split": "train", "needs": BOTH, "batch": 16, "seed": 4, "epochs": 2} | options
    return list(stream.batches(path, **given))


def test_the_stream_delivers_the_order(small_cohort, ray_session):
    plan = stream.plan(small_cohort, "train", BOTH, 16, seed=4)
    index = small_cohort.rows("train")
    index = index[index["has_ecg"] & index["has_cmr"]]
    got = collect(small_cohort.path)
    wanted = np.concatenate([rows_of(plan, 0), rows_of(plan, 1)])
    assert len(got) == len(wanted) == 2 * plan.steps
    for batch, rows in zip(got, wanted, strict=True):
        true = small_cohort.load(index.iloc[rows], BOTH)
        assert batch["ecg"].dtype == torch.float16
        assert batch["cmr"].dtype == torch.uint8
        assert (batch["ecg"].numpy() == true["ecg"]).all()
        assert (batch["cmr"].numpy() == true["cmr"]).all()
    batch["ecg"].zero_()  # the caller's own memory, not Ray's


def test_resumed_and_ranked_streams_are_parts_of_the_whole(small_cohort, ray_session):
    whole = [batch["ecg"] for batch in collect(small_cohort.path, needs=("ecg",))]
    step = len(whole) // 2 + 3
    rest = collect(small_cohort.path, needs=("ecg",), start_step=step, rank=1, world=2)
    assert len(rest) == len(whole) - step
    assert all(
        torch.equal(part["ecg"], batch[8:]) for part, batch in zip(rest, whole[step:], strict=True)
    )
    assert collect(small_cohort.path, start_step=len(whole), epochs=1) == []


def test_leaving_early_ends_thread_and_execution(small_cohort, ray_session):
    before = set(threading.enumerate())
    source = stream.batches(
        small_cohort.path, split="train", needs=("ecg",), batch=8, seed=0, epochs=500
    )
    next(source)
    source.close()
    left = [
        t for t in set(threading.enumerate()) - before if t.name == "stream" or "Executor" in t.name
    ]
    assert [t.name for t in left if t.is_alive() and t.name == "stream"] == []
    for thread in left:
        thread.join(20)
        assert not thread.is_alive(), thread.name


def test_damage_during_the_run_is_one_line(small_cohort, tmp_path, ray_session):
    path = shutil.copytree(small_cohort.path, tmp_path / "copy")
    source = stream.batches(path, split="train", needs=("ecg",), batch=8, seed=0, epochs=1)
    (path / "train/shard-00001.parquet").unlink()
    with pytest.raises(
        InputError, match=r"^[^\n]*train/shard-00001.parquet: the shard is missing[^\n]*$"
    ):
        list(source)


def test_a_null_where_the_index_says_there_is_a_signal(small_cohort, tmp_path):
    path = shutil.copytree(small_cohort.path, tmp_path / "copy")
    index = dataset.open(path).rows()
    index["has_cmr"] = True
    index.to_parquet(path / dataset.INDEX)
    with pytest.raises(InputError, match="'cmr' is null where the index says it is not"):
        dataset.open(path).load(index, ("cmr",))
