"""Runs as networks, and weight files as runs: found by name or folder, there and back bit by bit, foreign files refused."""

import dataclasses
import json
import zipfile

import numpy as np
import pandas as pd
import pytest
import torch
from test_cli import called

from ecgcmr import methods, presets, store
from ecgcmr.errors import InputError
from ecgcmr.inference import adopt, export, model, weights
from ecgcmr.methods import trunk
from ecgcmr.nn import Network, resnet, vit
from ecgcmr.report import appendix
from ecgcmr.report.plots import curves
from ecgcmr.search import study
from ecgcmr.training import loop
from ecgcmr.trial import Trial

torch.set_num_threads(1)

TINY = Network(
    crop=500,
    patch=100,
    width=16,
    depth=2,
    heads=2,
    blocks=(1, 2, 1, 1),
    image_width=4,
    image_size=96,
    hidden=16,
    projection=8,
)
MMCL = Trial(
    space="t",
    stage="pretrain",
    task="ecg+cmr",
    system="mmcl",
    method="mmcl",
    network=TINY,
    batch=4,
    epochs=2,
)
MAE = dataclasses.replace(MMCL, task="ecg", system="mae", method="mae")
RECIPE = {"ecg": {"clip_sd": 4.0}, "cmr": {"crop": "fixed"}}


def leave(runs, trial=MMCL, status="finished", seed=7):
    """A finished run whose weights are not those that its seed draws; the method they are of."""
    preset = presets.preset(trial.preset)
    method = methods.build(
        trial.method, trial.network, preset, modality=trial.modality, outputs=2, seed=seed
    )
    kept = method.state_dict() if trial.method == "supervised" else loop.handed_on(method)
    arrays = {name: value.numpy() for name, value in kept.items() if status == "finished"}
    note = {"versions": {"ecgcmr": "0.1.0"}, "cohort": {"fingerprint": "abc", "recipe": RECIPE}}
    store.write(
        runs, store.Finished(trial, status, (), pd.DataFrame(), None, arrays, 1, note), "abc"
    )
    return method.eval()


def ecgs(samples, n=2):
    return torch.randn(n, 12, samples, generator=torch.Generator().manual_seed(0))


def embedded(opened, x):
    return trunk.embed(opened.ecg, x, None, 0.0)


# -- runs


def test_a_run_is_found_by_its_name_its_folder_and_the_folder_of_one(tmp_path):
    leave(tmp_path)
    for given in (
        MMCL.name,
        tmp_path / MMCL.name,
        str(tmp_path / "t/pretrain"),
        "t/pretrain/ecg+cmr",
    ):
        run = model.find(given, tmp_path)
        assert (run.home, run.name) == (tmp_path, MMCL.name)


def test_no_run_and_several_are_refused(tmp_path):
    with pytest.raises(InputError, match="t/x: no finished run; give a run's folder"):
        model.find("t/x", tmp_path)
    for trial in (MMCL, dataclasses.replace(MMCL, seed=1)):
        leave(tmp_path, trial)
    with pytest.raises(InputError, match=r"holds 2 runs; name one of them, e\.g\. .*/seed=0"):
        model.find("t/pretrain", tmp_path)
    for named in ("t/pretrain/ecg+cmr/mmcl", tmp_path / MMCL.name.rpartition("/")[0]):
        assert model.find(named, tmp_path).name == MMCL.name  # of seeds the first
    (tmp_path / MMCL.name / store.RECORD).write_text("{")
    with pytest.raises(InputError, match=r"trial\.json is damaged"):
        model.find(MMCL.name, tmp_path)


def test_runs_without_weights_say_why(tmp_path):
    leave(tmp_path, status="diverged")
    with pytest.raises(InputError, match=r"kept no weights \(diverged\)"):
        model.open_run(MMCL.name, tmp_path)
    grid = dataclasses.replace(MMCL, stage="grid", task="cad", method="supervised")
    leave(tmp_path, grid, status="early-stopped")
    with pytest.raises(
        InputError, match=r"kept no weights \(of stage 'grid' and method 'supervised'\)"
    ):
        model.open_run(grid.name, tmp_path)


def test_a_pre_training_opens_as_it_was_left(tmp_path):
    method, opened = leave(tmp_path), model.open_run(MMCL.name, tmp_path)
    started = methods.build("supervised", TINY, presets.preset("paper"), outputs=1)
    started.load("ecg", store.weights(tmp_path, MMCL.name, "ecg"))
    x, image = ecgs(5000), torch.rand(2, 3, 96, 96)
    assert torch.equal(
        embedded(opened, x), trunk.embed(started.ecg, x, None, 0.0)
    )  # as fine-tuning begins
    assert torch.equal(opened.ecg.blocks[0].attn.qkv.weight, method.ecg.blocks[0].attn.qkv.weight)
    assert torch.equal(opened.cmr(image, False), method.cmr(image, False))
    assert (opened.samples, opened.patch_s, opened.head, opened.run.signal_recipes) == (
        5000,
        0.2,
        None,
        RECIPE,
    )


@pytest.mark.parametrize(("preset", "samples"), [("paper", 5000), ("authors", 500)])
def test_a_fine_tuned_run_answers_as_it_did(tmp_path, preset, samples):
    trial = dataclasses.replace(
        MMCL, stage="evaluation", task="cad", method="supervised", preset=preset
    )
    method, opened = leave(tmp_path, trial), model.open_run(trial.name, tmp_path)
    x = ecgs(5000)
    answered = method({"ecg": x}, {}, {})["logits"]
    assert opened.samples == samples
    torch.testing.assert_close(opened.head(opened.ecg(x[..., : opened.samples])), answered)


@pytest.mark.parametrize("way", ["continued", "parts"])
def test_a_run_opens_for_the_whole_record_however_it_reads_it(tmp_path, monkeypatch, way):
    preset = dataclasses.replace(presets.preset("paper"), name=way, finetune_ecg=way)
    monkeypatch.setitem(presets.PRESETS, way, preset)
    trial = dataclasses.replace(
        MMCL, stage="evaluation", task="cad", method="supervised", preset=way
    )
    method, opened = leave(tmp_path, trial), model.open_run(trial.name, tmp_path)
    x = ecgs(5000)
    assert opened.samples == 5000
    torch.testing.assert_close(opened.head(opened.ecg(x)), method({"ecg": x}, {}, {})["logits"])


# -- there and back


@pytest.mark.parametrize("trial", [MMCL, MAE], ids=["mmcl", "mae"])
@pytest.mark.parametrize("form", ["safetensors", "authors"])
def test_what_is_exported_and_imported_embeds_alike(tmp_path, trial, form):
    leave(tmp_path, trial)
    file = tmp_path / f"encoder{export.ENDINGS[form]}"
    export.write(trial.name, file, form, runs=tmp_path, part="ecg")
    name = adopt.adopt(file, tmp_path, part="ecg", space="elsewhere", system="mine", heads=2)
    before, after = (model.open_run(run, tmp_path) for run in (trial.name, name))
    assert name == "elsewhere/pretrain/ecg/mine/default/seed=0"
    assert torch.equal(embedded(before, ecgs(5000)), embedded(after, ecgs(5000)))
    assert after.trial.network == dataclasses.replace(
        Network(), crop=500, patch=100, width=16, depth=2, heads=2, image_size=210
    )


def test_an_image_encoder_there_and_back(tmp_path):
    leave(tmp_path)
    file, image = tmp_path / "image.pth", torch.rand(2, 3, 96, 96)
    export.write(MMCL.name, file, "authors", runs=tmp_path, part="cmr")
    name = adopt.adopt(file, tmp_path, part="cmr", space="s", system="simclr")
    before, after = (model.open_run(run, tmp_path).cmr for run in (MMCL.name, name))
    assert torch.equal(before(image, False), after(image, False))


def published(path, part):
    """A file as the authors published it: 42 tensors of the paper's ECG encoder, or a ResNet by numbered stages."""
    draw = torch.Generator().manual_seed(1)
    if part == "ecg":
        module = vit.ViT(384, 3, 6, 100, 25)
        record = {
            "model": {
                k: torch.randn(v.shape, generator=draw) for k, v in module.state_dict().items()
            }
        }
    else:
        module, numbers = resnet.ResNet((1, 1, 1, 1), 8), {"conv1": "0", "bn1": "1"}
        numbers |= {f"layer{i}": str(i + 3) for i in (1, 2, 3, 4)}
        renamed = {
            k: f"encoder_imaging.{numbers[k.split('.')[0]]}.{k.split('.', 1)[1]}"
            for k in module.state_dict()
        }
        record = {"state_dict": {renamed[k]: v for k, v in module.state_dict().items()}}
    torch.save(record, path)
    return next(iter(record.values()))


@pytest.mark.parametrize("part", ["ecg", "cmr"])
def test_the_authors_file_comes_back_bit_by_bit(tmp_path, part):
    given = published(tmp_path / "given.pth", part)
    name = adopt.adopt(
        tmp_path / "given.pth", tmp_path, part=part, space="published", system="mmcl"
    )
    said = export.write(name, tmp_path / "again.pth", "authors", runs=tmp_path)
    again = next(iter(torch.load(tmp_path / "again.pth", weights_only=True).values()))
    assert again.keys() == given.keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in given.items())
    assert f"{len(given)} tensors" in said[0]
    assert part == "cmr" or len(given) == 42


def test_what_sat_on_the_encoder_is_left_behind_and_named(tmp_path):
    given = published(tmp_path / "x.pth", "ecg")
    given |= {
        "mask_token": torch.zeros(1, 1, 256),
        "decoder_norm.weight": torch.ones(256),
        "head.weight": torch.ones(2, 384),
    }
    torch.save({"model": given}, tmp_path / "x.pth")
    name = adopt.adopt(tmp_path / "x.pth", tmp_path, part="ecg", space="s", system="mae")
    record = json.loads((tmp_path / name / store.RECORD).read_text())
    noted = record["provenance"]["imported"]
    assert (noted["file"], noted["layout"], len(noted["sha256"])) == ("x.pth", "authors", 64)
    assert noted["left_behind"] == ["decoder_norm.weight", "head.weight", "mask_token"]
    assert store.weights(tmp_path, name, "ecg").keys() == given.keys() - set(noted["left_behind"])


def test_torchvisions_weights_make_an_image_run(tmp_path):
    module = resnet.ResNet((1, 2, 1, 1), 8)
    bare = {
        k: v for k, v in module.state_dict().items() if "num_batches" not in k
    }  # as old files are
    torch.save(
        {**bare, "fc.weight": torch.ones(3, 256), "fc.bias": torch.ones(3)},
        tmp_path / "resnet50.pth",
    )
    name = adopt.adopt(
        tmp_path / "resnet50.pth", tmp_path, part="cmr", space="s", system="imagenet"
    )
    opened, image = model.open_run(name, tmp_path), torch.rand(1, 3, 64, 64)
    assert torch.equal(opened.cmr(image, False), module.eval()(image, False))
    assert (opened.trial.network.blocks, opened.trial.network.image_width) == ((1, 2, 1, 1), 8)
    assert opened.run.provenance["imported"]["layout"] == "torchvision"


def test_a_trial_starts_from_an_import_with_its_positions_continued(tmp_path):
    leave(tmp_path)
    export.write(MMCL.name, tmp_path / "e.safetensors", "safetensors", runs=tmp_path)
    name = adopt.adopt(tmp_path / "e.safetensors", tmp_path, part="ecg", space="s", system="mine")
    record = json.loads((tmp_path / name / store.RECORD).read_text())
    assert record["provenance"]["cohort"] == {
        "fingerprint": "abc",
        "recipe": RECIPE,
    }  # so that fit can compare it
    method = methods.build("supervised", TINY, presets.preset("paper"), outputs=2)
    method.load("ecg", store.weights(tmp_path, name, "ecg"))
    mine = model.open_run(MMCL.name, tmp_path).ecg
    assert torch.equal(method.ecg.blocks[1].mlp.fc2.weight, mine.blocks[1].mlp.fc2.weight)
    assert torch.equal(method.ecg.pos_embed, mine.pos_embed)
    assert method.ecg.pos_embed.shape[1] == 1 + 12 * 50
    assert (
        store.weights(tmp_path, name, "ecg")["pos_embed"].shape[1] == 1 + 12 * 5
    )  # kept as they were


@pytest.mark.parametrize(("preset", "samples"), [("paper", 5000), ("authors", 500), (None, 5000)])
def test_an_import_sees_what_its_preset_shows_an_encoder(tmp_path, preset, samples):
    leave(tmp_path)
    export.write(MMCL.name, tmp_path / "e.pth", "authors", runs=tmp_path, part="ecg")  # tells none
    words = {"part": "ecg", "space": "s", "system": "mine", "heads": 2}
    name = adopt.adopt(tmp_path / "e.pth", tmp_path, **words, preset=preset)
    opened = model.open_run(name, tmp_path)
    assert opened.samples == samples
    assert opened.ecg.pos_embed.shape[1] == 1 + 12 * samples // 100


def test_an_import_of_our_own_has_the_preset_that_its_file_tells(tmp_path):
    authors = dataclasses.replace(MMCL, preset="authors")
    leave(tmp_path, authors)
    export.write(authors.name, tmp_path / "e.safetensors", "safetensors", runs=tmp_path)
    words = {"part": "ecg", "space": "s", "system": "mine", "heads": 2}
    with pytest.raises(InputError, match="was made with the preset 'authors', not 'paper'; leave"):
        adopt.adopt(tmp_path / "e.safetensors", tmp_path, **words, preset="paper")
    name = adopt.adopt(tmp_path / "e.safetensors", tmp_path, **words)
    assert model.open_run(name, tmp_path).trial.preset == "authors"


def test_an_import_twice_is_one_run_and_another_file_is_refused(tmp_path):
    published(tmp_path / "one.pth", "ecg")
    words = {"part": "ecg", "space": "s", "system": "x"}
    name = adopt.adopt(tmp_path / "one.pth", tmp_path, **words)
    made = (tmp_path / name / store.RECORD).stat().st_mtime_ns
    assert adopt.adopt(tmp_path / "one.pth", tmp_path, **words) == name
    assert (tmp_path / name / store.RECORD).stat().st_mtime_ns == made
    with pytest.raises(InputError, match="made with other --heads"):
        adopt.adopt(tmp_path / "one.pth", tmp_path, **words, heads=12)
    torch.save(
        {"model": {k: v + 1 for k, v in published(tmp_path / "two.pth", "ecg").items()}},
        tmp_path / "two.pth",
    )
    with pytest.raises(InputError, match="was made of another file; choose another --system"):
        adopt.adopt(tmp_path / "two.pth", tmp_path, **words)


def test_an_imported_run_stands_in_the_report(tmp_path):
    published(tmp_path / "one.pth", "ecg")
    name = adopt.adopt(tmp_path / "one.pth", tmp_path, part="ecg", space="s", system="mae")
    (line,) = appendix.pretrainings(appendix.read(tmp_path), store.rows(tmp_path))
    assert (line["title"], line["epochs"], line["time"]) == ("MAE, ECG", "0", "—")
    curves.pretraining({"MAE": pd.read_parquet(tmp_path / name / store.CURVE)})
    start = (("ecg", name),)
    (tuned,) = study.finetuning("s", ["cad"], {"mae": start}, {"lr": (1e-3,)}, epochs=1)
    assert study.resolved([tuned], tmp_path)[0].init_from == start


# -- refusals


def saved(tensors, path):
    torch.save({"model": tensors}, path)
    return path


def small(**changed):
    state = vit.ViT(16, 1, 2, 100, 5).state_dict()
    return {
        **{k: v for k, v in state.items() if changed.get(k, v) is not None},
        **{k: v for k, v in changed.items() if v is not None},
    }


NAN = torch.full((16,), torch.nan)
BAD = [
    (
        "no heads",
        small(),
        {"heads": None},
        "width 16 needs the number of its attention heads; give --heads",
    ),
    (
        "heads that do not divide",
        small(),
        {"heads": 3},
        "needs the number of its attention heads, not 3",
    ),
    (
        "whole-lead patches",
        small(**{"patch_embed.proj.weight": torch.ones(16, 1, 12, 100)}),
        {},
        "only patches of one lead",
    ),
    ("eleven leads", small(pos_embed=torch.ones(1, 56, 16)), {}, "only patches of one lead"),
    ("a minute", small(pos_embed=torch.ones(1, 1 + 12 * 300, 16)), {}, "fill up to 5000 samples"),
    (
        "no class token",
        small(cls_token=None),
        {},
        "'cls_token' is not as an encoder of part 'ecg' has it",
    ),
    (
        "a missing bias",
        small(**{"blocks.0.mlp.fc1.bias": None}),
        {},
        r"\+ in the model only: blocks.0.mlp.fc1.bias",
    ),
    (
        "another shape",
        small(**{"blocks.0.mlp.fc1.bias": torch.ones(3)}),
        {},
        "~ blocks.0.mlp.fc1.bias",
    ),
    (
        "a stranger",
        small(**{"blocks.0.gate": torch.ones(3)}),
        {},
        "- in the file only: blocks.0.gate",
    ),
    (
        "no numbers",
        small(**{"blocks.0.norm1.bias": NAN}),
        {},
        "'blocks.0.norm1.bias' holds values that are no numbers",
    ),
    (
        "sparse",
        small(cls_token=torch.zeros(1, 1, 16).to_sparse()),
        {},
        "'cls_token' is no plain tensor",
    ),
    (
        "endless",
        small(x=torch.zeros(1).expand(1 << 31)),
        {},
        "holds more than 1,073,741,824 numbers",
    ),
    ("a path", small(), {"space": "../s"}, "--space '../s': use letters"),
    ("a hidden folder", small(), {"system": ".x"}, "--system '.x': use letters"),
    ("the other part", small(), {"part": "cmr"}, "has no 'cmr' encoder; it holds ecg"),
]


@pytest.mark.parametrize(
    ("tensors", "words", "said"), [row[1:] for row in BAD], ids=[row[0] for row in BAD]
)
def test_what_is_no_encoder_of_ours_is_refused_and_leaves_nothing(tmp_path, tensors, words, said):
    file = saved(tensors, tmp_path / "x.pth")
    with pytest.raises(InputError, match=said):
        adopt.adopt(
            file,
            tmp_path / "runs",
            **{"part": "ecg", "space": "s", "system": "x", "heads": 2, **words},
        )
    assert not (tmp_path / "runs").exists()


def test_a_basic_resnet_is_refused(tmp_path):
    basic = {
        "conv1.weight": torch.ones(8, 3, 7, 7),
        "layer1.0.conv1.weight": torch.ones(8, 8, 3, 3),
    }
    torch.save(basic, tmp_path / "resnet18.pth")
    with pytest.raises(
        InputError, match="only ResNets of bottlenecks, such as ResNet-50, are supported"
    ):
        adopt.adopt(tmp_path / "resnet18.pth", tmp_path, part="cmr", space="s", system="x")


def test_hostile_files_are_refused_without_running_them(tmp_path):
    saved(small(), tmp_path / "x.pth")
    with (
        zipfile.ZipFile(tmp_path / "x.pth") as archive,
        zipfile.ZipFile(tmp_path / "bomb.pth", "w", 8) as bomb,
    ):
        for member in archive.namelist():
            bomb.writestr(member, archive.read(member))
        bomb.writestr("x/data/99", bytes(1 << 22))
    for name, content in (
        ("list.pth", [1]),
        ("words.pth", {"model": "x"}),
        ("tensor.pth", {"model": torch.ones(3)}),
    ):
        torch.save(content, tmp_path / name)
    (tmp_path / "short.pth").write_bytes((tmp_path / "x.pth").read_bytes()[:2000])
    for name, said in (
        ("bomb", "is a compressed archive"),
        ("list", "it holds nothing"),
        ("words", "it holds nothing"),
        ("tensor", "it holds ecg|is not as an encoder"),
        ("short", "is not a file of plain tensors"),
    ):
        with pytest.raises(InputError, match=said):
            adopt.adopt(
                tmp_path / f"{name}.pth",
                tmp_path / "runs",
                part="ecg",
                space="s",
                system="x",
                heads=2,
            )


def test_damaged_notes_are_refused_and_foreign_ones_do_no_harm(tmp_path):
    encoder = {k: v.numpy() for k, v in vit.ViT(16, 1, 2, 100, 5).state_dict().items()}
    for note, said in (
        ("{", "the note 'network' is damaged"),
        ('{"heads": "x"}', "is not as an encoder"),
    ):
        weights.write(tmp_path / "x.safetensors", {"ecg": encoder}, {"network": note})
        with pytest.raises(InputError, match=said):
            adopt.adopt(
                tmp_path / "x.safetensors", tmp_path / "runs", part="ecg", space="s", system="x"
            )
    weights.write(tmp_path / "x.safetensors", {"ecg": encoder}, {"network": "[1]"})
    assert adopt.adopt(
        tmp_path / "x.safetensors", tmp_path / "runs", part="ecg", space="s", system="x", heads=2
    )


def test_half_precision_becomes_single(tmp_path):
    halves = {k: v.bfloat16() for k, v in vit.ViT(16, 1, 2, 100, 5).state_dict().items()}
    file = saved(halves, tmp_path / "x.pth")
    name = adopt.adopt(file, tmp_path, part="ecg", space="s", system="x", heads=2)
    kept = store.weights(tmp_path, name, "ecg")
    assert {value.dtype for value in kept.values()} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(kept["cls_token"], halves["cls_token"].float().numpy())


def test_the_command_says_what_to_start_from(tmp_path, capfd):
    published(tmp_path / "x.pth", "ecg")
    words = [
        "import",
        "--weights",
        tmp_path / "x.pth",
        "--part",
        "ecg",
        "--space",
        "pub",
        "--system",
        "mmcl",
    ]
    code, said, _ = called(capfd, *words, "--runs", tmp_path / "runs")
    assert code == 0
    assert said.endswith('init_from=(("ecg", "pub/pretrain/ecg/mmcl/default/seed=0"),)')
    code, said, beside = called(
        capfd, *words[:2], tmp_path / "none.pth", *words[3:], "--runs", tmp_path / "other"
    )
    assert (code, said) == (2, "")
    assert "none.pth is not a file of plain tensors" in beside
    assert not (tmp_path / "other").exists()
