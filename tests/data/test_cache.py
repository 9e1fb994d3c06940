"""Rows kept in memory: the same batches as the stream's, bit for bit, and where they are kept as a function of sizes."""

import threading

import numpy as np
import psutil
import pytest
import torch
from test_pretrain import prepared, tiny, validation

from ecgcmr import cli
from ecgcmr.cohort import shards
from ecgcmr.commands import studies
from ecgcmr.data import cache as memory
from ecgcmr.data import sampler, stream
from ecgcmr.errors import InputError
from ecgcmr.runtime import hardware
from ecgcmr.training import loop, pretrain

BOTH, EPOCHS, BATCH = ("ecg", "cmr"), 4, 16
CPU = torch.device("cpu")


def plan(cohort, needs=BOTH, **options):
    return stream.plan(cohort, "train", needs, BATCH, 4, **options)


def batches(cohort, cache, needs=BOTH, epochs=EPOCHS, **options):
    given = {
        "split": "train",
        "needs": needs,
        "batch": BATCH,
        "seed": 4,
        "epochs": epochs,
        "cache": cache,
    }
    return stream.batches(cohort.path, **given | options)


def collect(source):
    """All batches; what the consumer does to them afterwards must not reach those to come."""
    found = []
    for batch in source:
        found.append({name: x.cpu().clone() for name, x in batch.items()})
        for x in batch.values():
            x.zero_()
    return found


@pytest.fixture(scope="module")
def whole(small_cohort, ray_session):
    """Four epochs as Ray Data delivers them."""
    return collect(batches(small_cohort, "off"))


@pytest.fixture
def reading(monkeypatch):
    """Which epochs Ray Data is asked for, and which rows are read plainly."""
    asked, read, tables, load = [], [], stream._tables, sampler.load
    monkeypatch.setattr(
        stream, "_tables", lambda o, end, start: asked.append((start, end)) or tables(o, end, start)
    )
    monkeypatch.setattr(
        sampler, "load", lambda o, rows: read.extend(rows.tolist()) or load(o, rows)
    )
    return asked, read


def assert_same(found, expected, columns=BOTH, part=slice(None)):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert set(one) == set(columns)
        for name in columns:
            assert one[name].dtype == other[name].dtype
            assert torch.equal(one[name].view(torch.uint8), other[name][part].view(torch.uint8))


# -- batches -----------------------------------------------------------------------------------------------------------


def test_memory_repeats_the_stream_bit_for_bit_and_reads_each_row_once(
    small_cohort, whole, reading
):
    asked, read = reading
    rows = plan(small_cohort)
    first = set(sampler.sequence(rows, 0).ravel())
    later = set(
        np.concatenate([sampler.sequence(rows, epoch) for epoch in range(1, EPOCHS)]).ravel()
    )
    assert later - first  # the first epoch drops some that later ones want
    assert_same(collect(batches(small_cohort, "host")), whole)
    assert asked == [(0, 1)]
    assert sorted(read) == sorted(later - first)


@pytest.mark.parametrize(
    "ahead", [3, 0, -1]
)  # in the middle, at the beginning and before the last step of an epoch
def test_a_resumed_run_goes_on_as_if_never_interrupted(small_cohort, whole, reading, ahead):
    asked, read = reading
    steps = plan(small_cohort).steps
    start = (steps if ahead >= 0 else 2 * steps) + ahead
    assert_same(collect(batches(small_cohort, "auto", start_step=start)), whole[start:])
    assert asked == [(start, 2)]
    assert len(read) == len(set(read))


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_gets_its_part_whatever_it_read_before(small_cohort, whole, rank):
    part = slice(rank * BATCH // 2, (rank + 1) * BATCH // 2)
    found = collect(batches(small_cohort, "host", start_step=5, rank=rank, world=2))
    assert_same(found, whole[5:], part=part)


def test_other_signals_and_no_shuffling(small_cohort, ray_session):
    for options in ({"needs": ("ecg",)}, {"needs": ("cmr",), "shuffle": False}):
        streamed, kept = (
            collect(batches(small_cohort, cache, epochs=3, **options)) for cache in ("off", "host")
        )
        assert_same(kept, streamed, options["needs"])


@pytest.mark.parametrize(("epochs", "start"), [(1, 0), (3, 2), (3, 3)])
def test_a_run_that_reads_nothing_twice_keeps_nothing(small_cohort, epochs, start):
    rows = plan(small_cohort)
    assert memory.place("host", rows, epochs, start * rows.steps, CPU) == "off"
    assert memory.place("host", rows, epochs + 2, start * rows.steps, CPU) == "host"


def test_leaving_while_memory_serves_ends_the_thread(small_cohort, ray_session):
    steps = plan(small_cohort).steps
    source = batches(small_cohort, "host", epochs=500)
    for _ in range(2 * steps):
        next(source)
    source.close()
    assert [t.name for t in threading.enumerate() if t.name == "stream"] == []


def test_a_shard_lost_before_its_rows_were_met_is_one_line(small_cohort):
    rows = plan(small_cohort)
    missing = sampler.Order(**{**vars(rows), "path": "/nowhere"})
    with pytest.raises(
        InputError, match=r"^/nowhere/train/shard-\d+.parquet: the shard is missing[^\n]*$"
    ):
        memory.empty(missing, CPU).gather(np.arange(3))


def test_a_training_from_memory_ends_with_the_weights_of_one_that_streams(
    small_cohort, ray_session
):
    trial, ends = tiny("mmcl", batch=BATCH, epochs=3), []
    for cache in ("off", "host"):
        run, state = prepared(trial, torch.float32), loop.State()
        per_epoch = stream.steps_per_epoch(small_cohort, "train", BOTH, BATCH)
        run = loop.Training(**{**vars(run), "per_epoch": per_epoch})
        feed = batches(small_cohort, cache, epochs=3)
        assert loop.loop(run, feed, validation(trial), state) == "finished"
        ends.append({**run.method.state_dict(), **state.kept})
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_through_ray_train_cache_changes_provenance_and_nothing_else(
    small_cohort, ray_session, tmp_path
):
    trial, ends = tiny("mae", batch=BATCH, epochs=3, eval_every=1), []
    for cache in ("off", "host"):
        options = {"device": "cpu", "precision": "float32", "cache": cache}
        pretrain.run(trial, small_cohort.path, tmp_path / cache, **options)
        folder = pretrain.store.folder(tmp_path / cache, trial.name)
        assert f'"cache": "{cache}"' in (folder / pretrain.store.RECORD).read_text()
        ends.append((folder / pretrain.store.ENCODER).read_bytes())
    assert ends[0] == ends[1]


# -- a GPU -------------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("cache", ["device", "host", "off"])
def test_on_a_gpu_every_place_gives_the_same(small_cohort, whole, cache):
    assert_same(collect(batches(small_cohort, cache, device="cuda", start_step=3)), whole[3:])


@pytest.mark.gpu
def test_on_a_gpu_there_is_memory_and_auto_takes_it(small_cohort):
    assert hardware.device_memory(torch.device("cuda")) > 0
    assert memory.place("auto", plan(small_cohort), EPOCHS, 0, torch.device("cuda")) == "device"


# -- the choice --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "need", "host", "device", "chosen"),
    [
        ("auto", 40, 100, 100, "device"),
        ("auto", 50, 100, 100, "device"),
        ("auto", 51, 200, 100, "host"),
        ("auto", 51, 100, 100, "off"),
        ("auto", 50, 100, None, "host"),
        ("auto", 51, 100, None, "off"),
        ("device", 90, 10, 100, "device"),
        ("device", 90, 100, None, "host"),
        ("host", 90, 100, 1000, "host"),
        ("off", 1, 100, 100, "off"),
    ],
)
def test_where_rows_are_kept_is_a_function_of_sizes(word, need, host, device, chosen):
    assert memory.choose(word, need, host, device) == chosen


@pytest.mark.parametrize(
    ("word", "host", "device"), [("device", 100, 89), ("host", 89, 100), ("device", 89, None)]
)
def test_a_place_that_is_asked_for_and_too_small_is_refused(word, host, device):
    with pytest.raises(
        InputError,
        match=rf"^cache='{word}': the rows take .* free for them; use cache auto or off$",
    ):
        memory.choose(word, 90, host, device)


def test_an_unknown_word_is_refused(small_cohort, tmp_path, capsys):
    with pytest.raises(InputError, match="unknown cache 'disk'; known: auto, device, host, off"):
        batches(small_cohort, "disk")
    with pytest.raises(InputError, match="unknown cache 'disk'"):
        pretrain.run_all([tiny("mae")], small_cohort.path, tmp_path, cache="disk")
    assert studies.CACHES == memory.WORDS
    for command in (["pretrain", "x.py"], ["reproduce"]):
        assert cli.parser().parse_args(command).cache == "auto"
        with pytest.raises(SystemExit) as left:
            cli.main([*command, "--cache", "disk", "--runs", str(tmp_path)])
        assert left.value.code == 2
        assert "argument --cache: there is no 'disk'" in capsys.readouterr().err


def test_size_counts_the_rows_that_serve_and_ranks_share_the_host(small_cohort, monkeypatch):
    rows = plan(small_cohort)
    assert memory.size(rows) == len(rows.row) * (12 * 5000 * 2 + 3 * 210 * 210)
    assert (
        memory.size(plan(small_cohort, ("ecg",))) == len(small_cohort.rows("train")) * 12 * 5000 * 2
    )
    monkeypatch.setattr(hardware, "host_memory", lambda: 3 * memory.size(rows))
    assert memory.place("auto", rows, EPOCHS, 0, CPU) == "host"
    assert memory.place("auto", plan(small_cohort, world=2), EPOCHS, 0, CPU) == "off"


def test_room_takes_no_memory_before_rows_are_met():
    many = sampler.Order(
        path="",
        fingerprint="",
        split="train",
        columns=("ecg",),
        batch=1,
        seed=0,
        rank=0,
        world=1,
        shards=("a",),
        shard=np.zeros(20_000, np.int32),
        row=np.arange(20_000, dtype=np.int32),
    )
    before = psutil.Process().memory_info().rss
    held = memory.empty(many, CPU)
    assert psutil.Process().memory_info().rss - before < 0.01 * memory.size(many)
    held.keep(
        np.arange(10), {"ecg": torch.ones(10, *shards.SIGNALS["ecg"].shape, dtype=torch.float16)}
    )
    assert held.gather(np.array([9, 0]))["ecg"].unique().tolist() == [1.0]


@pytest.mark.parametrize(
    ("limit", "left"),
    [("max", None), (1000, 1000 - 700 + 300), (500, 100), (300, 0), (2**62, None)],
)
def test_a_container_s_limit_counts(limit, left, tmp_path):
    for name, text in (("memory.max", limit), ("memory.current", 700)):
        (tmp_path / name).write_text(f"{text}\n")
    (tmp_path / "memory.stat").write_text("anon 400\nactive_file 100\ninactive_file 200\n")
    machine = psutil.virtual_memory().available
    found = hardware.host_memory(tmp_path)
    assert found == left if left is not None else 0.5 * machine < found < 2 * machine


def test_without_control_groups_the_machine_counts(tmp_path):
    assert hardware.host_memory(tmp_path / "nowhere") > 0
