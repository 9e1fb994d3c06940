"""Attention on its lead and at its time: in numbers against loops, on paper, and from a file through the command."""

import dataclasses
import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from test_cli import called
from test_raw_wfdb import beats, write

from ecgcmr import store
from ecgcmr.data import inputs
from ecgcmr.errors import InputError
from ecgcmr.inference import attention, model
from ecgcmr.nn import Network, heads, vit
from ecgcmr.report.plots import recordings
from ecgcmr.runs import Run
from ecgcmr.signals import ecg
from ecgcmr.training import finetune
from ecgcmr.trial import Trial

torch.set_num_threads(1)

NETWORK = Network(crop=2500, patch=500, width=16, depth=2, heads=2, hidden=16, projection=8)
TRIAL = Trial(
    space="t",
    stage="evaluation",
    task="cad",
    system="mmcl",
    method="supervised",
    network=NETWORK,
    batch=4,
)


def opened(encoder, head=None, **record):
    provenance = {"cohort": {"recipe": {"ecg": ecg.RECIPE}}, **record}
    run = Run(Path("t/run"), TRIAL, {}, "", "finished", provenance)
    return model.Model(run, encoder.eval(), None, head, {"ecg": encoder})


def networks(depth=2, times=10, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder = vit.ViT(16, depth, 2, 500, times, norm=False)
        head = heads.EcgHead(16, 2, 2, double_norm=False)
        for p in [*encoder.parameters(), *head.parameters()]:
            p.data += 0.3 * torch.randn(p.shape)
    return encoder.requires_grad_(False), head.requires_grad_(False)


def noise(n=2, seed=0):
    return (0.3 * np.random.default_rng(seed).standard_normal((n, 12, 5000))).astype(np.float32)


def rolled(encoder, head, x):
    """Rollout of one record, head by head and token by token as the formula stands."""
    tokens = encoder._embed(x, None)[0]
    total = torch.eye(len(tokens))
    for block in encoder.blocks:
        q, k, _ = block.attn.qkv(block.norm1(tokens)).chunk(3, -1)
        mean = (
            sum((a @ b.T / 8**0.5).softmax(-1) for a, b in zip(q.split(8, -1), k.split(8, -1))) / 2
        )
        total = (mean + torch.eye(len(tokens))) / 2 @ total
        tokens = block(tokens[None])[0]
    pool = torch.full((len(tokens) - 1,), 1 / (len(tokens) - 1))
    if head:
        inside = head.attention_pool
        q = tokens[1:].mean(0) @ inside.in_proj_weight[:16].T + inside.in_proj_bias[:16]
        k = tokens[1:] @ inside.in_proj_weight[16:32].T + inside.in_proj_bias[16:32]
        pool = (
            sum((a @ b.T / 8**0.5).softmax(-1) for a, b in zip(q.split(8, -1), k.split(8, -1))) / 2
        )
    found = (pool @ total[1:])[1:]
    return (found / found.sum()).reshape(12, -1)


@pytest.mark.parametrize("fine_tuned", [True, False])
def test_rollout_is_the_formula(fine_tuned):
    encoder, head = networks()
    head = head if fine_tuned else None
    found = attention.rollout(opened(encoder, head), noise())
    x = inputs.to_model({"ecg": torch.from_numpy(noise())})["ecg"]
    for i in range(2):
        np.testing.assert_allclose(found[i], rolled(encoder, head, x[i : i + 1]), atol=1e-6)
    assert found.sum((1, 2)) == pytest.approx([1, 1])
    assert found.std() > 1e-5


def seeing_bumps(times=10):
    """A network that attends to patches of great mean and to nothing else: tokens hold the mean, the pool asks for it."""
    encoder, head = networks(times=times)
    for p in [*encoder.parameters(), *head.parameters()]:
        p.zero_()
    encoder.patch_embed.proj.weight[0] = 1 / 500
    pool = head.attention_pool
    pool.in_proj_bias[0] = 30.0  # the query, whatever the tokens are
    pool.in_proj_weight[16, 0] = 1.0  # the key
    return encoder, head


@pytest.mark.parametrize(("lead", "second"), [("I", 0), ("aVR", 9), ("V2", 3), ("V6", 5)])
def test_a_weight_lands_on_the_lead_and_at_the_time_of_what_is_attended_to(lead, second):
    signal = noise(1)
    signal[0, ecg.LEADS.index(lead), 500 * second : 500 * (second + 1)] += 3
    found = attention.rollout(opened(*seeing_bumps()), signal)[0]
    table = attention.table(found, 1.0)
    top = table.loc[table["weight"].idxmax()]
    assert (top["lead"], top["start_s"], top["end_s"]) == (lead, second, second + 1)
    assert top["weight"] > 10 * table["weight"].mean()
    assert len(table) == 120
    assert table["weight"].sum() == pytest.approx(1)


def test_two_looks_at_a_record_are_the_same():
    """The authors' code shuffles the tokens of every pass."""
    found = [attention.rollout(opened(*networks()), noise()) for _ in range(2)]
    assert np.array_equal(*found)


def test_an_encoder_of_five_seconds_says_nothing_of_the_rest():
    changed = noise()
    changed[:, :, 3000:] = changed[:, :, :2000]
    one, other = (attention.rollout(opened(*seeing_bumps(times=5)), x) for x in (noise(), changed))
    assert one.shape == (2, 12, 5)
    assert attention.table(one[0], 1.0)["end_s"].max() == 5
    assert one.argmax() == other.argmax()  # standardisation is over all ten seconds


def test_what_is_most_attended_to_matters_most_in_a_trained_model(small_cohort, tmp_path):
    trial = dataclasses.replace(
        TRIAL,
        network=dataclasses.replace(NETWORK, depth=1),
        batch=16,
        epochs=6,
        knobs=(("lr", 1e-2),),
    )
    finetune.fit([trial], small_cohort, tmp_path, device="cpu", precision="float32")
    trained = model.open_run(trial.name, tmp_path)
    signal = small_cohort.load(small_cohort.rows("val"), ("ecg",))["ecg"].astype(np.float32)
    order = torch.from_numpy(attention.rollout(trained, signal)).flatten(1).argsort(1)
    x = inputs.to_model({"ecg": torch.from_numpy(signal)})["ecg"]

    def moves(keep):
        return float(
            (trained.head(trained.ecg(x, keep)) - trained.head(trained.ecg(x))).norm(dim=1).mean()
        )

    assert moves(order[:, :-12]) > 1.5 * moves(order[:, 12:])  # a tenth of the 120 patches left out


def test_signals_of_another_recipe_are_refused():
    encoder, head = networks()
    other = {"recipe": {"ecg": {**ecg.RECIPE, "clip_sd": 3.0}}}
    with pytest.raises(
        InputError, match=r"another recipe than files are given now: ecg.clip_sd 3.0 → 4.0"
    ):
        attention.rollout(opened(encoder, head, cohort=other), noise())
    with pytest.raises(InputError, match="has no ECG encoder"):
        attention.rollout(dataclasses.replace(opened(encoder), ecg=None), noise())


# -- on paper


@pytest.mark.parametrize(("times", "seen"), [(10, False), (5, True)])
def test_a_patch_is_drawn_behind_its_trace(times, seen):
    weights = np.full((12, times), 0.5)
    weights[7, 3] = 8
    figure = recordings.attended_ecg(noise(1)[0], 500, weights, 1.0, "title")
    axes = figure.axes[0]
    pictures = {image.get_gid(): image for image in axes.images}
    lines = {line.get_gid(): line for line in axes.lines}
    for i, lead in enumerate(ecg.LEADS):
        left, right, low, high = pictures[f"attention {lead}"].get_extent()
        x, y = lines[lead].get_data()
        assert left == pytest.approx(x[0])
        assert right - left == pytest.approx(25 * times)
        assert low - 1 <= y.min() <= y.max() <= high + 1
        np.testing.assert_allclose(
            pictures[f"attention {lead}"].get_array()[0], weights[i] / weights.mean()
        )
        assert x[1500] == pytest.approx(left + 25 * 3)  # where patch 3 begins
    colours = pictures["attention V2"]
    assert colours.cmap(colours.norm(0.5))[3] == 0  # less than the average: clear
    assert colours.cmap(colours.norm(weights.max() / weights.mean()))[3] == pytest.approx(0.75)
    assert ("seen" in lines) == seen


def test_leads_do_not_overlap_however_high_they_are():
    signal = noise(1)[0]
    signal[8:] *= 6
    figure = recordings.attended_ecg(signal, 500, np.ones((12, 5)), 1.0)
    spans = [line.get_ydata() for line in figure.axes[0].lines if line.get_gid() in ecg.LEADS]
    assert all(lower.max() < upper.min() for upper, lower in itertools.pairwise(spans))
    with pytest.raises(InputError, match="need twelve rows"):
        recordings.attended_ecg(signal[:3], 500, np.ones((12, 5)), 1.0)


# -- from files


@pytest.fixture
def run(tmp_path):
    """A finished fine-tuning that attends to patches of great mean."""
    encoder, head = seeing_bumps()
    parts = {"ecg": encoder.state_dict(), "head": head.state_dict()}
    kept = {
        f"{part}.{name}": x.numpy() for part, found in parts.items() for name, x in found.items()
    }
    trial = dataclasses.replace(TRIAL, network=NETWORK)
    provenance = {"versions": {"ecgcmr": "0"}, "cohort": {"recipe": {"ecg": ecg.RECIPE}}}
    left = store.Finished(trial, "finished", (), pd.DataFrame(), None, kept, 1, provenance)
    store.write(tmp_path / "runs", left, "cohort")
    return tmp_path / "runs" / trial.name


def test_the_command_writes_picture_and_tables(run, tmp_path, capfd):
    ecgs = tmp_path / "ecgs"
    ecgs.mkdir()
    counts = beats()
    write(ecgs, counts, name="whole")
    write(ecgs, counts[:, :2000], name="short")
    code, said, beside = called(
        capfd,
        "explain",
        "--model",
        run,
        ecgs,
        "--out",
        tmp_path / "out",
        "--runs",
        tmp_path / "runs",
    )
    assert code == 2  # one of the two was refused
    assert said.startswith(f"{tmp_path / 'out' / 'whole'}.png .csv .json   most: ")
    assert "short.hea: shorter than 10 s" in beside
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "whole.csv",
        "whole.json",
        "whole.png",
    ]
    table = pd.read_csv(tmp_path / "out/whole.csv")
    record = json.loads((tmp_path / "out/whole.json").read_text())
    assert list(table) == ["lead", "start_s", "end_s", "weight"]
    assert pd.DataFrame(record["weights"])[list(table)].equals(table)
    assert record["recording"] == "whole"
    trace = ecg.prepare(counts.astype(np.float32) / 1000, 500, ecg.LEADS)[0]
    expected = attention.rollout(model.open_run(run), trace[None])[0]
    np.testing.assert_allclose(table["weight"], expected.ravel(), atol=1e-3)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["short.hea"], "none of 1 recordings can serve"),
        (["notes.txt"], "notes.txt: no ECG in a format that can be read (wfdb"),
        (["nowhere.hea"], "no such file or folder"),
        (["empty"], "empty: no ECG in a format that can be read"),
        ([], "give ECG files, or --subject, or --ecg with --cmr"),
        (["--ecg", "short.hea"], "give ECG files, or --subject, or --ecg with --cmr"),
        (["short.hea", "--subject", "p"], "give ECG files, or --subject, or --ecg with --cmr"),
    ],
)
def test_what_cannot_be_explained_is_one_line_and_nothing_is_written(
    words, said, run, tmp_path, capfd, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, beats()[:, :2000], name="short")
    (tmp_path / "notes.txt").write_text("none")
    (tmp_path / "empty").mkdir()
    code, results, text = called(
        capfd,
        "explain",
        "--model",
        run,
        *words,
        "--out",
        tmp_path / "out",
        "--runs",
        tmp_path / "runs",
    )
    assert (code, results) == (2, "")
    assert said in text
    assert not (tmp_path / "out").exists()


def test_a_copied_run_explains_as_the_run(run, tmp_path):
    shutil.copytree(run, tmp_path / "elsewhere")
    one, other = (model.open_run(path) for path in (run, tmp_path / "elsewhere"))
    assert (one.run.name, other.run.name) == (TRIAL.name, "elsewhere")
    assert np.array_equal(attention.rollout(one, noise()), attention.rollout(other, noise()))
