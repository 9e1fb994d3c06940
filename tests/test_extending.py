"""docs/extending.md, run as it stands: its method, search space, tasks, reader and signal; and docs/presets.md is complete.

The signal, and the method and task from outside, go the whole way through real workers of Ray.
"""

import dataclasses
import inspect
import itertools
import json
import re
import sys
import types
from pathlib import Path

import conftest
import numpy as np
import pandas as pd
import pytest
import test_cohort
import test_methods
import torch

from ecgcmr import methods, plugins, raw, signals, store, tasks
from ecgcmr.cohort import build, check, presence, shards
from ecgcmr.errors import Excluded, InputError
from ecgcmr.inference import embed_cohort, pairs, similarity
from ecgcmr.methods import losses
from ecgcmr.nn import Network
from ecgcmr.presets import PRESETS, Preset
from ecgcmr.report.plots import recordings
from ecgcmr.runs import read_run
from ecgcmr.search import spaces, sweep
from ecgcmr.signals import ecg
from ecgcmr.training import finetune, loop, pretrain
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
    assert {start for trial in grid for _, start in trial.init_from} == {first.name}
    assert {trial.system for trial in grid if not trial.init_from} == {"supervised"}


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
        system="vicreg",
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
        system="vicreg",
        method="supervised",
        init_from=(("ecg", start.name),),
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
def txt_table(monkeypatch):
    """The reader, registered by the document's two lines."""
    made = module(monkeypatch, "ecgcmr.raw.txt_table", FILES["txt_table"])
    monkeypatch.setattr(raw, "txt_table", made, raising=False)
    names = {}
    exec(block("from ecgcmr.raw import txt_table"), names)
    for name, reader in eval("{" + block('"txt"') + "}", names).items():
        monkeypatch.setitem(raw.READERS["ecg"], name, reader)


def test_the_reader_reads_what_a_cohort_can_prepare(txt_table, small_cohort, tmp_path):
    (record,) = small_cohort.load(small_cohort.rows("train").iloc[:1], ("ecg",))["ecg"]
    path = tmp_path / "visits" / "p1.txt"
    path.parent.mkdir()
    pd.DataFrame(record.T.astype(np.float32), columns=list(ecg.LEADS)).to_csv(path, index=False)
    (path.parent / "p2.txt").write_text("I,II\nno,numbers\n")
    reader = raw.READERS["ecg"]["txt"]
    assert [Path(source).name for source in reader.find(str(tmp_path))] == ["p1.txt", "p2.txt"]
    found = reader.read(str(path))
    assert (found.key, found.rate_hz, found.leads) == ("p1", 500.0, ecg.LEADS)
    assert np.allclose(found.signal, record, atol=1e-6)
    prepared, words = ecg.prepare(found.signal, found.rate_hz, found.leads)
    assert prepared.shape == (12, 5000)
    assert words == ()
    with pytest.raises(Excluded, match="unreadable text"):
        reader.read(str(path.parent / "p2.txt"))
    with pytest.raises(InputError, match=r"no \*\.txt here"):
        reader.find(str(tmp_path / "nowhere"))


REGISTRIES = (
    methods.METHODS,
    tasks.TASKS,
    signals.SIGNALS,
    raw.READERS,
    plugins._modules,
    plugins._contents,
    plugins._owners,
)
SMALL = dataclasses.replace(TINY, blocks=(1, 1, 1, 1), image_width=4, image_size=64)


@pytest.fixture
def outside(tmp_path):
    """Writes a file of the document into a folder of its own; what it registers is forgotten after the test."""
    before = [dict(registry) for registry in REGISTRIES]

    def write(name):
        path = tmp_path / "mine" / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(FILES[name])
        return path

    yield write
    for registry, entries in zip(REGISTRIES, before, strict=True):
        registry.clear()
        registry.update(entries)


@pytest.fixture
def two_signals(outside, tmp_path, ray_session):
    """The document's signal, and a cohort that was built of ECGs and synthetic echoes of 60 people, some without."""
    plugins.load([str(outside("echo"))])
    ecgs, echoes = tmp_path / "ecgs", tmp_path / "echoes"
    rng, labels = np.random.default_rng(0), ["subject,visit,cad,LVEF"]
    y, x = np.mgrid[:112, :112] - 56
    for folder in (ecgs, echoes):
        folder.mkdir()
    for i, row in enumerate(conftest.heart_rows(60)):
        leads = dict(zip(ecg.LEADS, row["ecg"].astype(np.float64)))
        wave = leads["II"] - np.median(leads["II"]) + 0.03 * rng.standard_normal(5000)
        test_cohort.write_wfdb(ecgs, f"p{i:03d}", 1.2 * wave / np.ptp(wave))
        labels.append(f"p{i:03d},1,{row['cad']:g},{row['LVEF']:.3f}")
        if i % 10 != 9:
            size = 20 + 20 * (80 - row["LVEF"]) / 30
            frames = [(np.hypot(x, y) < size * part) * 90.0 for part in (1.0, 0.9, 0.8)]
            frames += rng.normal(0, 5, (3, 112, 112))
            np.save(echoes / f"p{i:03d}_1.npy", frames)
    np.save(echoes / "blank_1.npy", np.zeros((3, 112, 112)))
    (tmp_path / "labels.csv").write_text("\n".join(labels))
    return build.build(
        tmp_path / "cohort",
        ecg=f"wfdb:{ecgs}",
        others={"echo": f"npy:{echoes}"},
        labels=tmp_path / "labels.csv",
    )


def smaller(trial, **changed):
    return dataclasses.replace(trial, network=SMALL, batch=8, epochs=1, **changed)


def test_a_third_signal_goes_the_whole_way(two_signals, outside, tmp_path):
    cohort, runs = two_signals, tmp_path / "runs"
    index = cohort.rows()
    assert (len(index), int(presence.has(index, "ecg", "echo").sum())) == (60, 54)
    assert cohort.recipe["echo"] == {"shape": [3, 112, 112], "percentiles": [1, 99]}
    flow = {step["step"]: step["reasons"] for step in cohort.manifest["flow"]}
    assert flow["plausible"] == {"echo: blank echo": 1}
    assert flow["paired"] == {"ecg: no Echo": 6}
    assert check.check(cohort.path) == []

    simclr, mmcl, *grid = spaces.load(outside("echoes"))
    first = smaller(simclr)
    second = smaller(mmcl, init_from=(("echo", first.name),))
    pretrain.run_all([first, second], cohort.path, runs, device="cpu", precision="float32")
    name = {"ecg": second.name, "echo": first.name}
    for modality in ("ecg", "echo"):
        trial = next(trial for trial in grid if trial.modality == modality)
        tuned = smaller(trial, init_from=((modality, name[modality]),))
        (result,) = finetune.fit([tuned], cohort, runs, device="cpu", precision="float32")
        assert result.status == "finished"

    folder = store.folder(runs, second.name)
    made = embed_cohort.of_cohort(
        folder, cohort.path, tmp_path / "e", modality="echo", device="cpu"
    )
    assert (made["rows"], made["width"], made["pooling"]) == (54, 128, "pooled features")
    rows = index[presence.has(index, "ecg", "echo")].head(2)
    contrasted = read_run(runs / second.name)
    maps = similarity.maps_for([contrasted], cohort, rows)[second.name]
    assert maps.shape == (2, 2, 2)
    pair = pairs.of_subject(contrasted, cohort, rows["subject"].iloc[0])
    assert np.array_equal(pair.image, cohort.load(rows, ("echo",))["echo"][0])
    assert len(recordings.stored("echo", pair.image).axes) == 3


def test_a_signal_that_nobody_registered_is_a_fault(two_signals):
    del signals.SIGNALS["echo"]
    (fault, *_) = check.check(two_signals.path)
    assert fault.what == "nobody has registered the signal 'echo'"


def test_a_third_signal_changes_no_cohort_that_lacks_it(outside, tmp_path):
    before = conftest.write_cohort(tmp_path / "before", conftest.heart_rows(12))
    columns = shards.schema(conftest.LABELS)
    plugins.load([str(outside("echo"))])
    after = conftest.write_cohort(tmp_path / "after", conftest.heart_rows(12))
    assert after.fingerprint == before.fingerprint
    assert shards.schema(conftest.LABELS).equals(columns, check_metadata=True)
    assert not presence.has(before.rows(), "echo").any()


def test_method_and_task_from_outside_reach_the_workers(
    outside, small_cohort, tmp_path, ray_session
):
    first, *grid = spaces.load(outside("outside"))
    assert plugins.carried() == [str(tmp_path / "mine" / "outside.py")]
    start = smaller(first)
    pretrain.run_all([start], small_cohort.path, tmp_path / "runs", device="cpu")
    todo = [smaller(trial, init_from=(("ecg", start.name),)) for trial in grid]
    assert sweep.run(todo, small_cohort.path, tmp_path / "runs", device="cpu") == 2
    for trial in todo:
        record = json.loads(
            (store.folder(tmp_path / "runs", trial.name) / store.RECORD).read_text()
        )
        assert (record["status"], record["trial"]["task"]) == ("finished", "ef_alone")


def test_a_module_of_the_environment_is_imported_once(outside, monkeypatch):
    path = outside("echo")
    monkeypatch.syspath_prepend(path.parent)
    monkeypatch.setenv(plugins.VARIABLE, "echo")
    plugins.load()
    plugins.load()
    assert plugins.carried() == ["echo"]
    assert signals.SIGNALS["echo"].title == "Echo"
    del sys.modules["echo"]


def test_what_was_registered_by_hand_is_refused_before_a_worker_starts(outside, vicreg):
    methods.register("by_hand", vicreg.VICReg)
    with pytest.raises(InputError, match="method 'by_hand' was registered in this process alone"):
        plugins.carried()


def test_a_name_that_is_taken_is_refused(outside, vicreg):
    with pytest.raises(InputError, match="method 'mae' is registered by ecgcmr already"):
        methods.register("mae", vicreg.VICReg)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no_such_module", "plugin 'no_such_module' cannot be imported on .*: ModuleNotFoundError"),
        ("/no/such/plugin.py", "plugin.py: .* has no such file, which registers what the command"),
    ],
)
def test_a_plugin_that_is_not_there_is_one_line(name, words):
    with pytest.raises(InputError, match=words) as told:
        plugins.load([name])
    assert "\n" not in str(told.value)


def test_a_file_is_found_below_a_jobs_folder(outside, tmp_path, monkeypatch):
    outside("echo")
    monkeypatch.chdir(tmp_path)
    plugins.load(["/driver/of/the/job/mine/echo.py"])
    assert "echo" in signals.SIGNALS


def test_every_choice_in_dispute_is_in_the_table():
    rows = re.findall(r"^\|.*\| `(\w+)` \|$", (DOCS / "presets.md").read_text(), re.MULTILINE)
    assert sorted(rows) == sorted({field.name for field in dataclasses.fields(Preset)} - {"name"})
    same = [
        name for name in rows if len({getattr(preset, name) for preset in PRESETS.values()}) == 1
    ]
    assert not same, f"{same} do not differ between the presets: no field is needed"


def test_losses_gather_is_what_the_document_says_a_loss_needs():
    assert losses.gather(torch.ones(2, 3)).shape == (2, 3)  # one process: the rows themselves
