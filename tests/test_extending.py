"""docs/extending.md, run as it stands: its method, search space, tasks and reader; and docs/presets.md is complete."""

import dataclasses
import inspect
import itertools
import re
import sys
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import test_methods
import torch

from ecgcmr import methods, raw, store, tasks
from ecgcmr.errors import Excluded, InputError
from ecgcmr.methods import losses
from ecgcmr.nn import Network
from ecgcmr.presets import PRESETS, Preset
from ecgcmr.signals import ecg
from ecgcmr.training import finetune, loop
from ecgcmr.training.pack import assemble
from ecgcmr.trial import Trial

DOCS = Path(__file__).resolve().parents[1] / "docs"
BLOCKS = re.findall(
    r"(?:`([\w/]+\.py)`:\n\n)?```python\n(.*?)```", (DOCS / "extending.md").read_text(), re.DOTALL
)
FILES = {Path(path).stem: code for path, code in BLOCKS if path}
LINES = [code for path, code in BLOCKS if not path]
TINY = Network(crop=500, patch=100, width=16, depth=1, heads=2, hidden=16, projection=8)
OPTIONS = {"preset": list(PRESETS), "own_noise": [False, True]}  # of the contract's checks


def block(start):
    """The registry's line, or lines, that begin so."""
    (code,) = [code for code in LINES if code.strip().startswith(start)]
    return code


def module(monkeypatch, name, code):
    """The document's file, as if it lay in the package."""
    made = types.ModuleType(name)
    monkeypatch.setitem(sys.modules, name, made)
    exec(compile(code, f"docs/extending.md:{name}", "exec"), made.__dict__)
    return made


@pytest.fixture
def vicreg(monkeypatch):
    """The method, registered by the document's two lines."""
    made = module(monkeypatch, "ecgcmr.methods.vicreg", FILES["vicreg"])
    names = {}
    exec(block("from ecgcmr.methods.vicreg"), names)
    for name, method in eval("{" + block('"vicreg"') + "}", names).items():
        monkeypatch.setitem(methods.METHODS, name, method)
    return made


def test_the_method_is_short():
    assert len(FILES["vicreg"].splitlines()) <= 60


@pytest.mark.parametrize("check", test_methods.CONTRACT, ids=lambda check: check.__name__)
def test_the_method_meets_the_contract(check, vicreg):
    taken = [name for name in inspect.signature(check).parameters if name in OPTIONS]
    for values in itertools.product(*(OPTIONS[name] for name in taken)):
        check("vicreg", "ecg", **dict(zip(taken, values)))


def test_the_loss_is_the_papers(vicreg):
    method = test_methods.build("vicreg")
    batch, noise = test_methods.batch_for(method), test_methods.noise_for(method)
    knobs = {**method.knobs, "invariance": 3.0, "variance": 5.0, "covariance": 7.0}
    a, b = (
        method.expander(z, True).detach().numpy() for z in method.embeddings(batch, noise, knobs)
    )
    expected = 3.0 * ((a - b) ** 2).mean()
    for z in (a, b):
        covariance = np.cov(z.T)
        expected += 5.0 * np.maximum(0, 1 - np.sqrt(np.diag(covariance) + 1e-4)).mean()
        expected += 7.0 * (covariance - np.diag(np.diag(covariance))).__pow__(2).sum() / z.shape[1]
    assert method(batch, noise, knobs)["loss"].item() == pytest.approx(expected, rel=1e-9)


def test_constant_embeddings_cost_and_whitened_ones_do_not(vicreg):
    flat = torch.ones(8, 3, dtype=torch.float64)
    assert vicreg.flatness(flat).item() == pytest.approx(0.99)
    assert vicreg.redundancy(flat) == 0
    signs = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=3)), dtype=torch.float64)
    assert vicreg.flatness(signs) == 0
    assert vicreg.redundancy(signs).abs() < 1e-12
    assert vicreg.redundancy(signs[:, [0, 0, 1]]) > 0.5


def test_the_search_space_pre_trains_it_and_fine_tunes_from_it(vicreg, monkeypatch):
    monkeypatch.setitem(tasks.TASKS, "hf", tasks.Task("hf", "Heart failure", "binary", ("hf",)))
    first, *grid = module(monkeypatch, "heart_failure", FILES["heart_failure"]).trials()
    assert (first.stage, first.method) == ("pretrain", "vicreg")
    assert methods.knobs(loop.build(first), dict(first.knobs))["lr"] == 3e-4
    finetune.check(grid)
    assert len({trial.name for trial in grid}) == len(grid) == 16
    assert {start for trial in grid for _, start in trial.starts} == {first.name}
    assert {trial.label for trial in grid if not trial.starts} == {"supervised"}


@pytest.fixture
def registered(monkeypatch):
    """The tasks, registered by the document's lines."""
    for task in eval("(" + block('Task("hf"') + ")", {"Task": tasks.Task}):
        monkeypatch.setitem(tasks.TASKS, task.name, task)


def pre_trained(cohort, runs):
    """A few steps on one batch of the cohort, left as a finished pre-training; and the losses."""
    trial = Trial(
        space="t",
        stage="pretrain",
        task="ecg",
        label="vicreg",
        method="vicreg",
        network=TINY,
        batch=16,
        epochs=12,
        knobs=(("lr", 3e-3), ("warmup", 0.0)),
    )
    run = loop.prepare(trial, 1, torch.device("cpu"), torch.float32)
    rows = cohort.rows("train")
    signals = cohort.load(rows[rows.has_ecg].iloc[: trial.batch], ("ecg",))["ecg"]
    batch = {"ecg": torch.from_numpy(np.array(signals))}
    found = [loop.step(run, batch, number).item() for number in range(run.steps)]
    result = store.Finished(
        trial=trial,
        status="finished",
        scores=(("val", "loss", found[-1], trial.batch),),
        curve=pd.DataFrame(),
        predictions=None,
        weights={k: v.numpy() for k, v in loop.handed_on(run.method).items()},
        epoch=11,
        provenance={"cohort": cohort.provenance},
    )
    store.write(runs, result, cohort.fingerprint)
    return trial, found


def test_the_task_is_fine_tuned_from_its_encoder(vicreg, registered, small_cohort, tmp_path):
    start, found = pre_trained(small_cohort, tmp_path)
    assert np.isfinite(found).all()
    fresh = loop.build(start).ecg.blocks[0].attn.qkv.weight
    trial = Trial(
        space="t",
        stage="grid",
        task="ef",
        label="vicreg",
        method="supervised",
        starts=(("ecg", start.name),),
        network=TINY,
        batch=32,
        epochs=1,
        knobs=(("lr", 1e-3),),
    )
    pack = assemble([trial], tasks.of("ef"), tmp_path, torch.device("cpu"), torch.float32)
    kept = torch.from_numpy(store.weights(tmp_path, start.name, "ecg")["blocks.0.attn.qkv.weight"])
    assert torch.equal(pack.params["ecg.blocks.0.attn.qkv.weight"][0], kept)
    assert (kept - fresh).abs().max() > 1e-3
    (result,) = finetune.fit([trial], small_cohort, tmp_path, device="cpu", precision="float32")
    assert result.status == "finished"
    assert {"pearson", "pearson:LVEF"} <= {metric for _, metric, _, _ in result.scores}
    with pytest.raises(InputError, match="no column 'hf', which task 'hf' needs"):
        finetune.fit([dataclasses.replace(trial, task="hf")], small_cohort, tmp_path, device="cpu")


def test_any_column_of_zeros_and_ones_is_a_task_without_a_line(small_cohort):
    assert "snomed_164889003" not in tasks.TASKS
    task = tasks.of("snomed_164889003", ("snomed_164889003",))
    assert (task.kind, task.columns, task.outputs) == ("binary", ("snomed_164889003",), 2)


@pytest.fixture
def csv_table(monkeypatch):
    """The reader, registered by the document's two lines."""
    made = module(monkeypatch, "ecgcmr.raw.csv_table", FILES["csv_table"])
    monkeypatch.setattr(raw, "csv_table", made, raising=False)
    names = {}
    exec(block("from ecgcmr.raw import csv_table"), names)
    for name, reader in eval("{" + block('"csv"') + "}", names).items():
        monkeypatch.setitem(raw.READERS["ecg"], name, reader)


def test_the_reader_reads_what_a_cohort_can_prepare(csv_table, small_cohort, tmp_path):
    (record,) = small_cohort.load(small_cohort.rows("train").iloc[:1], ("ecg",))["ecg"]
    path = tmp_path / "visits" / "p1.csv"
    path.parent.mkdir()
    pd.DataFrame(record.T.astype(np.float32), columns=list(ecg.LEADS)).to_csv(path, index=False)
    (path.parent / "p2.csv").write_text("I,II\nno,numbers\n")
    reader = raw.READERS["ecg"]["csv"]
    assert [Path(source).name for source in reader.find(str(tmp_path))] == ["p1.csv", "p2.csv"]
    found = reader.read(str(path))
    assert (found.key, found.rate_hz, found.leads) == ("p1", 500.0, ecg.LEADS)
    assert np.allclose(found.signal, record, atol=1e-6)
    prepared, words = ecg.prepare(found.signal, found.rate_hz, found.leads)
    assert prepared.shape == (12, 5000)
    assert words == ()
    with pytest.raises(Excluded, match="unreadable CSV"):
        reader.read(str(path.parent / "p2.csv"))
    with pytest.raises(InputError, match=r"no \*\.csv here"):
        reader.find(str(tmp_path / "nowhere"))


def test_every_choice_in_dispute_is_in_the_table():
    rows = re.findall(r"^\|.*\| `(\w+)` \|$", (DOCS / "presets.md").read_text(), re.MULTILINE)
    assert sorted(rows) == sorted({field.name for field in dataclasses.fields(Preset)} - {"name"})
    same = [
        name for name in rows if len({getattr(preset, name) for preset in PRESETS.values()}) == 1
    ]
    assert not same, f"{same} do not differ between the presets: no field is needed"


def test_losses_gather_is_what_the_document_says_a_loss_needs():
    assert losses.gather(torch.ones(2, 3)).shape == (2, 3)  # one process: the rows themselves
