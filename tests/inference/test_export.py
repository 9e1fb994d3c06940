"""Files for elsewhere: what they say of themselves, and ONNX that takes millivolts and gives what PyTorch gives."""

import dataclasses
import json
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from test_cli import called
from test_model import MAE, MMCL, RECIPE, embedded, leave
from test_raw_wfdb import beats, write

from ecgcmr import checksums, methods, presets, store, tasks
from ecgcmr.cohort import dataset
from ecgcmr.data import inputs
from ecgcmr.errors import InputError
from ecgcmr.inference import export, model
from ecgcmr.runs import Run
from ecgcmr.signals import ecg

torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parents[2]
EVALUATION = dataclasses.replace(MMCL, stage="evaluation", task="cad", method="supervised")


def test_safetensors_say_what_they_are(tmp_path):
    leave(tmp_path)
    said = export.write(MMCL.name, tmp_path / "x.safetensors", "safetensors", runs=tmp_path)
    with safe_open(tmp_path / "x.safetensors", framework="np") as file:
        notes, names = file.metadata(), set(file.keys())
    record = json.loads((tmp_path / MMCL.name / store.RECORD).read_text())
    assert {name.split(".")[0] for name in names} == {"ecg", "cmr", "head"}
    assert sorted(line.split(":")[0] for line in said) == ["cmr", "ecg", "head"]
    assert {k: notes[k] for k in ("ecgcmr", "run", "method", "preset")} == {
        "ecgcmr": "0.1.0",
        "run": MMCL.name,
        "method": "mmcl",
        "preset": "paper",
    }
    assert notes["fingerprint"] == record["fingerprint"]
    assert notes["recipe_hash"] == dataset.digest(RECIPE)
    assert json.loads(notes["network"])["heads"] == 2
    assert json.loads(notes["cohort"])["recipe"] == RECIPE


def test_one_part_alone_and_parts_that_are_not_there(tmp_path):
    leave(tmp_path)
    export.write(MMCL.name, tmp_path / "x.safetensors", "safetensors", runs=tmp_path, part="cmr")
    with safe_open(tmp_path / "x.safetensors", framework="np") as file:
        assert {name.split(".")[0] for name in file.keys()} == {"cmr"}  # noqa: SIM118
    for form, part, name, said in (
        ("authors", None, "y.pth", "has encoders cmr and ecg; choose one with --part"),
        ("authors", "head", "y.pth", "the published layout is of encoders"),
        ("safetensors", "mri", "y.safetensors", "has no part 'mri'; it has cmr, ecg, head"),
        ("authors", "ecg", "y.safetensors", r"a file of format 'authors' is named \*\.pth"),
        ("keras", None, "y", "unknown format 'keras'"),
    ):
        with pytest.raises(InputError, match=said):
            export.write(MMCL.name, tmp_path / name, form, runs=tmp_path, part=part)
        assert not (tmp_path / name).exists()


def test_the_documents_lines_do_what_they_say(tmp_path, monkeypatch, capsys):
    (tmp_path / "recordings").mkdir()
    write(tmp_path / "recordings", beats(), name="one")
    leave(tmp_path / "runs", EVALUATION)
    record = json.loads((tmp_path / "runs" / EVALUATION.name / store.RECORD).read_text())
    record["provenance"]["cohort"] = {"recipe": {"ecg": ecg.RECIPE}}  # of this version
    (tmp_path / "runs" / EVALUATION.name / store.RECORD).write_text(json.dumps(record))
    checksums.write(tmp_path / "runs" / EVALUATION.name)
    monkeypatch.chdir(tmp_path)
    code, *_ = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs/explain-export.md").read_text(), re.DOTALL
    )
    names = {}
    exec(code, names)
    said = capsys.readouterr().out
    assert "one" in said
    assert "weight" in said
    assert model.open_run(names["name"]).samples == 5000


# -- ONNX


def millivolts(n=4):
    """Prepared recordings that differ in size and wander: mV as a cohort holds them."""
    draw = np.random.default_rng(0)
    wave = np.sin(2 * np.pi * np.linspace(0.8, 2, n)[:, None, None] * np.arange(5000) / 500)
    x = wave * np.linspace(0.1, 2, 12)[:, None] + 0.1 * draw.standard_normal((n, 12, 5000)) + 0.3
    return x.astype(np.float32)


def session(file):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    return runtime.InferenceSession(file.read_bytes(), providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A folder of runs with one of MMCL, and its ONNX file alone in a folder."""
    pytest.importorskip("onnxscript")
    runs, file = tmp_path_factory.mktemp("runs"), tmp_path_factory.mktemp("onnx") / "x.onnx"
    leave(runs)
    export.write(MMCL.name, file, "onnx", runs=runs)
    return runs, file


def test_onnx_embeds_millivolts_as_the_encoder_does_standardised_ones(exported):
    runs, file = exported
    opened, x, found = model.open_run(MMCL.name, runs), millivolts(), session(file)
    expected = embedded(
        opened, inputs.to_model({"ecg": torch.from_numpy(x)})["ecg"][..., : opened.samples]
    ).numpy()
    assert [output.name for output in found.get_outputs()] == ["embedding"]
    for n in (1, 2, 4):  # the batch is free
        np.testing.assert_allclose(found.run(None, {"ecg_mv": x[:n]})[0], expected[:n], atol=1e-4)
    louder = found.run(None, {"ecg_mv": 3 * x})[0]
    np.testing.assert_allclose(
        louder, expected, atol=1e-4
    )  # a gain makes no difference: standardised inside
    notes = found.get_modelmeta().custom_metadata_map
    assert notes["run"] == MMCL.name
    assert notes["input"].startswith("mV, leads I II III aVR")
    assert json.loads(notes["cohort"])["recipe"] == RECIPE


def tuned(tmp_path, task, outputs, **notes):
    """A finished fine-tuning whose head is not the one that its seed draws."""
    shallow = dataclasses.replace(
        EVALUATION.network, depth=1
    )  # a block more is exported like the first
    trial = dataclasses.replace(EVALUATION, task=task, network=shallow)
    method = methods.build(
        "supervised", trial.network, presets.preset("paper"), outputs=outputs, seed=3
    )
    kept = {name: value.numpy() for name, value in method.state_dict().items()}
    note = {"versions": {"ecgcmr": "0.1.0"}, **notes}
    store.write(
        tmp_path, store.Finished(trial, "finished", (), pd.DataFrame(), None, kept, 1, note), "abc"
    )
    return trial, method.eval()


def test_onnx_of_a_fine_tuned_run_answers_in_probabilities_or_units(tmp_path):
    pytest.importorskip("onnxscript")
    columns = tasks.TASKS["rv"].columns
    mean, sd = [100.0 + i for i in range(4)], [10.0 * (i + 1) for i in range(4)]
    x = millivolts()
    given = {"ecg": inputs.to_model({"ecg": torch.from_numpy(x)})["ecg"]}
    for task, outputs, notes in (
        ("cad", 2, {}),
        ("rv", len(columns), {"target_mean": mean, "target_sd": sd}),
    ):
        trial, method = tuned(tmp_path, task, outputs, **notes)
        said = export.write(trial.name, tmp_path / f"{task}.onnx", "onnx", runs=tmp_path)
        with torch.no_grad():
            logits, read = (
                method(given, {}, {})["logits"],
                method.head.embedding(method.ecg(given["ecg"])),
            )
        expected = (
            logits.softmax(-1)[:, 1:]
            if task == "cad"
            else logits * torch.tensor(sd) + torch.tensor(mean)
        )
        embedding, answer = session(tmp_path / f"{task}.onnx").run(None, {"ecg_mv": x})
        np.testing.assert_allclose(embedding, read.numpy(), atol=1e-4)
        np.testing.assert_allclose(answer, expected.numpy(), rtol=1e-4)
        assert ("not calibrated: cad" if task == "cad" else "RVEDV [mL], RVESV [mL]") in said[1]


def test_the_graph_is_one_file_of_the_documented_opset(exported):
    _, file = exported
    made = pytest.importorskip("onnx").load(file)
    assert [entry.version for entry in made.opset_import if entry.domain == ""] == [export.OPSET]
    assert made.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    assert f"opset {export.OPSET}" in (ROOT / "docs/explain-export.md").read_text()
    assert list(file.parent.iterdir()) == [file]


def test_a_graph_that_disagrees_is_not_written(tmp_path, monkeypatch):
    pytest.importorskip("onnxscript")
    leave(tmp_path, MAE)
    monkeypatch.setattr(export, "TOLERANCE", 0.0)
    with pytest.raises(InputError, match=r"ONNX Runtime differs from PyTorch by .*; not written"):
        export.write(MAE.name, tmp_path / "x.onnx", "onnx", runs=tmp_path)
    assert not (tmp_path / "x.onnx").exists()


@pytest.mark.parametrize("wrong", ["scaled", "constant"])
def test_disagreement_sees_other_answers(wrong):
    run, ecg_encoder = Run(None, MAE, {}, "", "finished", {}), encoder()
    graph = export.Graph(model.Model(run, ecg_encoder, None, None, {"ecg": ecg_encoder}))

    def other(x):
        found = graph(torch.from_numpy(x))[0].detach().numpy()
        return [1.01 * found if wrong == "scaled" else found * 0 + found.mean()]

    assert (
        export.disagreement(
            graph, lambda x: [y.detach().numpy() for y in graph(torch.from_numpy(x))]
        )
        == 0
    )
    assert export.disagreement(graph, other) > 1e-4


def encoder():
    return methods.build("mae", MAE.network, presets.preset("paper")).ecg.requires_grad_(False)


@pytest.mark.parametrize("missing", export.EXTRA)
def test_without_the_extra_the_line_says_how_to_install_it(tmp_path, monkeypatch, capfd, missing):
    leave(tmp_path / "runs", MAE)
    monkeypatch.setitem(sys.modules, missing, None)
    words = [
        "export",
        "--model",
        MAE.name,
        "--format",
        "onnx",
        "--out",
        tmp_path / "x.onnx",
        "--runs",
        tmp_path / "runs",
    ]
    code, said, beside = called(capfd, *words)
    assert (code, said) == (2, "")
    assert "pip install 'ecgcmr[onnx]'" in beside
    assert not (tmp_path / "x.onnx").exists()


def test_runs_without_an_ecg_encoder_have_no_graph(tmp_path):
    pytest.importorskip("onnxscript")
    simclr = dataclasses.replace(
        MMCL, task="cmr", system="cmr-simclr", method="simclr", modality="cmr"
    )
    leave(tmp_path, simclr)
    with pytest.raises(InputError, match="has no ECG encoder"):
        export.write(simclr.name, tmp_path / "x.onnx", "onnx", runs=tmp_path)


def test_the_command_says_what_goes_in_and_comes_out(tmp_path, capfd):
    pytest.importorskip("onnxscript")
    leave(tmp_path / "runs", MAE)
    words = [
        "export",
        "--model",
        "t/pretrain/ecg",
        "--format",
        "onnx",
        "--out",
        tmp_path / "x.onnx",
    ]
    code, said, _ = called(capfd, *words, "--runs", tmp_path / "runs")
    assert code == 0
    assert f"input ecg_mv (n, 12, {ecg.SAMPLES}) float32: mV" in said
    assert said.endswith(str(tmp_path / "x.onnx"))
