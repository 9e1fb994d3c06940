"""A finished model in use: the answers of its runs, what is refused, what may be handed on, and the words of the command."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import handmade_model
import numpy as np
import pandas as pd
import pytest

import ecgcmr
from ecgcmr import checksums, cli, raw, store, tasks
from ecgcmr.errors import InputError
from ecgcmr.evaluation import selection
from ecgcmr.files import write_json
from ecgcmr.inference import calibration, predict, share
from ecgcmr.raw import records
from ecgcmr.report import prediction
from ecgcmr.runs import read_run
from ecgcmr.signals import ecg

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return handmade_model.made(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def served(study):
    return ecgcmr.load(study[1] / "t/evaluation", device="cpu")


@pytest.fixture(scope="module")
def files(study, tmp_path_factory):
    """Three test subjects as WFDB: key -> header."""
    cohort, _, raw = study
    folder = tmp_path_factory.mktemp("ecgs")
    return {
        key: handmade_model.write_wfdb(folder, key, raw[key])
        for key in cohort.rows("test").subject[:3]
    }


@pytest.fixture
def copied(study, tmp_path):
    shutil.copytree(study[1] / "t/evaluation", tmp_path / "evaluation")
    return tmp_path / "evaluation"


def edit(path, change):
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))
    if (path.parent / checksums.SUMS).exists():
        checksums.write(path.parent)


# -- the answers of the runs


def test_a_subjects_raw_recording_gets_the_answers_that_its_runs_stored(served, files):
    for key, header in files.items():
        found = served.predict(header)
        assert found.key == key
        outputs = served.outputs(found.ecg[None])
        for one in served.task_models:
            for seed, run in enumerate(one.runs):
                stored = pd.read_parquet(run.folder / store.PREDICTIONS).query(
                    "split == 'test' and subject == @key"
                )
                wanted = stored[[f"output:{name}" for name in one.task.columns]].to_numpy()[0]
                np.testing.assert_allclose(outputs[one.task.name][seed, 0], wanted, rtol=1e-5)


def test_the_answers_are_calibrated_means_over_the_seeds(served, files):
    found = served.predict(next(iter(files.values())))
    outputs = served.outputs(found.ecg[None])
    fitted = served.task_models[0].means["cad"].recalibration
    mean = np.mean(np.log(outputs["cad"][:, 0, 0] / (1 - outputs["cad"][:, 0, 0])))
    risk = found.risks["cad"]
    assert risk.value == pytest.approx(1 / (1 + np.exp(-fitted.intercept - fitted.slope * mean)))
    assert risk.low < risk.value < risk.high
    edv = found.phenotypes["LVEDV"]
    assert edv.value == pytest.approx(outputs["lv"][:, 0, 0].mean())
    assert edv.sd == pytest.approx(outputs["lv"][:, 0, 0].std(ddof=1))
    assert edv.high - edv.value == pytest.approx(edv.value - edv.low)
    assert edv.unit == "mL"
    assert edv.cohort_low < edv.cohort < edv.cohort_high


def test_on_the_rows_that_calibrated_it_the_mean_risk_is_the_prevalence(study, served):
    val = study[0].rows("val")
    answers = served.answers(study[0].load(val)["ecg"])
    risks = [answer for of_one in answers for answer in of_one if answer.name == "cad"]
    assert np.mean([risk.value for risk in risks]) == pytest.approx(val.cad.mean(), rel=1e-4)
    assert risks[0].cohort == val.cad.mean()
    edv = [next(answer for answer in of_one if answer.name == "LVEDV") for of_one in answers]
    held = np.mean([one.low <= x <= one.high for one, x in zip(edv, val.LVEDV)])
    assert held >= 0.9


def test_a_batch_changes_no_answer_and_no_order(served, files, monkeypatch):
    monkeypatch.setattr(predict, "BATCH", 2)
    together = list(served.predict_all(files.values()))
    assert [one.key for one in together] == list(files)
    alone = [served.predict(header) for header in files.values()]
    np.testing.assert_allclose(
        [one.risks["cad"].value for one in together], [one.risks["cad"].value for one in alone]
    )


def test_leads_in_another_order_give_the_same_answer(study, served):
    signal = next(iter(study[2].values()))
    order = np.random.default_rng(0).permutation(12)
    one = served.predict_signal(signal, 500, ecg.LEADS)
    other = served.predict_signal(signal[order], 500, [ecg.LEADS[i].lower() for i in order])
    assert one.risks == other.risks
    assert other.repairs == ("leads reordered",)
    with pytest.raises(InputError, match="signal: shorter than 10 s"):
        served.predict_signal(signal[:, :4000], 500, ecg.LEADS)


# -- which runs answer


def test_several_systems_need_a_name_unless_mmcl_is_among_them(study, served, copied):
    assert served.system == "mmcl"
    assert list(served.about["seeds"]) == ["cad", "lv"]
    assert ecgcmr.load(study[1] / "t", "mae", "cpu").system == "mae"
    assert len(ecgcmr.load(study[1] / "t/evaluation/cad/mae", device="cpu").task_models) == 1
    with pytest.raises(InputError, match="unknown system 'byol'; known: mae, mmcl"):
        ecgcmr.load(study[1] / "t/evaluation", "byol")
    for record in (copied / "cad/mmcl").rglob(store.RECORD):
        edit(record, lambda record: record["trial"].update(system="clocs"))
    with pytest.raises(InputError, match="holds the systems clocs, mae; choose one with --system"):
        ecgcmr.load(copied / "cad")


def test_the_configuration_that_was_chosen_stands_for_a_system(study, copied):
    system = copied / "cad/mmcl"
    (configuration,) = system.iterdir()
    other = shutil.copytree(configuration, configuration.with_name("batch=16,lr=0.9"))
    for folder in other.iterdir():
        edit(folder / store.RECORD, lambda record: record["trial"].update(knobs=[["lr", 0.9]]))
    with pytest.raises(
        InputError, match=r"cad/mmcl: evaluation runs of 2 configurations and no choice"
    ):
        ecgcmr.load(copied, "mmcl", "cpu")
    for chosen in (configuration.name, other.name):
        choice = selection.Choice(
            chosen, "validation auroc", {configuration.name: 0.8, other.name: 0.8}
        )
        write_json(selection.choice_file(system), dataclasses.asdict(choice))
        assert ecgcmr.load(copied, "mmcl", "cpu").about["configurations"]["cad"] == chosen
    shutil.rmtree(other)
    with pytest.raises(
        InputError, match=r"'batch=16,lr=0\.9' was chosen and has no evaluation run"
    ):
        ecgcmr.load(copied, "mmcl", "cpu")


def test_a_seed_that_diverged_is_left_out(copied):
    (configuration,) = (copied / "cad/mmcl").iterdir()
    edit(configuration / "seed=101" / store.RECORD, lambda record: record.update(status="diverged"))
    loaded = ecgcmr.load(copied, "mmcl", "cpu")
    assert loaded.about["seeds"]["cad"] == [0, 202]
    assert ("Seeds", "0, 101, 202 (fewer of cad: 2)") in prediction.origin(loaded)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda r: r["provenance"]["cohort"]["recipe"]["ecg"].update(clip_sd=3.0),
            "another recipe than these: ecg.clip_sd 3.0 → 4.0",
        ),
        (
            lambda r: r["provenance"]["cohort"]["recipe"].pop("ecg"),
            "does not say how its ecg signals were prepared",
        ),
        (
            lambda r: r["provenance"]["cohort"].update(fingerprint="other"),
            "runs of different cohorts",
        ),
        (lambda r: r["trial"]["network"].update(width=16), "weights of another network"),
        (lambda r: r["trial"].update(task="../../x"), "not the record of a run"),
        (lambda r: r.pop("trial"), "not the record of a run"),
        (lambda r: r["trial"].update(space="u"), "holds search spaces t, u"),
    ],
)
def test_a_model_that_cannot_answer_is_refused_with_the_reason(change, said, copied):
    edit(next((copied / "cad/mmcl").rglob("seed=0")) / store.RECORD, change)
    with pytest.raises(InputError, match=re.escape(said)) as refused:
        ecgcmr.load(copied, "mmcl", "cpu")
    assert "\n" not in str(refused.value)


def test_damaged_or_missing_weights_are_refused(copied):
    weights = next((copied / "cad/mmcl").rglob("seed=0")) / store.ENCODER
    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(
        InputError, match=r"safetensors: is damaged: .*; ecgcmr evaluate sets the run"
    ):
        ecgcmr.load(copied, "mmcl", "cpu")
    (copied.parent / "empty").mkdir()
    with pytest.raises(InputError, match="holds no evaluation run on ECGs"):
        ecgcmr.load(copied.parent / "empty")
    with pytest.raises(InputError, match="no such folder"):
        ecgcmr.load(copied.parent / "nowhere")


# -- what may be handed on


def test_a_shared_model_answers_alike_and_names_nobody(study, served, files, tmp_path):
    out = tmp_path / "models/mmcl"
    share.share(study[1] / "t/evaluation", out)
    assert {path.name for path in out.rglob("*") if path.is_file()} == {
        store.RECORD,
        store.ENCODER,
        calibration.CALIBRATION,
        checksums.SUMS,
    }
    held = b"".join(path.read_bytes() for path in out.rglob("*") if path.is_file())
    assert not [subject for subject in study[0].rows().subject if subject.encode() in held]
    header = next(iter(files.values()))
    assert ecgcmr.load(out, device="cpu").predict(header).answers == served.predict(header).answers
    with pytest.raises(InputError, match="is there already"):
        share.share(study[1] / "t/evaluation", out)
    (out / "cad" / calibration.CALIBRATION).write_text("{}")
    with pytest.raises(InputError, match="damaged; share the model anew"):
        ecgcmr.load(out)
    checksums.write(out / "cad")  # whoever writes it himself has another form to answer for
    with pytest.raises(InputError, match="damaged; share the model anew"):
        ecgcmr.load(out)
    (out / "cad" / calibration.CALIBRATION).unlink()
    with pytest.raises(InputError, match="neither predictions of its runs nor"):
        ecgcmr.load(out)


def test_what_too_few_people_cannot_tell_survives_sharing():
    task = tasks.of("lv")
    unknown = calibration._phenotype(np.array([1.0, np.nan]), np.array([1.0, 2.0]))
    assert np.isnan([unknown.radius, *unknown.reference]).all()
    told = json.loads(
        json.dumps(calibration.meaning_record({task.columns[0]: unknown}), allow_nan=False)
    )
    assert np.isnan(calibration._of_record(told[task.columns[0]]).radius)


def test_people_calibrate_a_phenotype_and_not_their_visits():
    rng = np.random.default_rng(0)
    measured, predicted = 100 + 10 * rng.normal(size=(2, 60))
    once = calibration._phenotype(measured, predicted)
    assert once.n == 60
    # Of 60 the 58th residual: P(Binomial(60, 0.9) ≥ 58) = 0.053 ≤ 0.1 < P(≥ 57) = 0.137.
    assert once.radius == np.sort(np.abs(measured - predicted))[57]
    assert once.reference == pytest.approx(np.percentile(measured, (5, 50, 95)))
    whose = np.tile([f"p{i}" for i in range(60)], 3)
    thrice = calibration._phenotype(np.tile(measured, 3), np.tile(predicted, 3), whose)
    assert (thrice.n, thrice.radius) == (once.n, once.radius)
    assert thrice.reference == pytest.approx(once.reference)
    of_few = calibration._phenotype(measured, predicted, np.arange(60) % 19)
    assert of_few.n == 19
    assert np.isnan([of_few.radius, *of_few.reference]).all(), "60 visits of 19 people"


def test_the_recalibration_of_a_disease_is_about_other_people(study, copied):
    system = copied / "cad/mmcl"
    seeds = [read_run(path.parent) for path in sorted(system.rglob(store.RECORD))]
    task = tasks.of("cad", ("cad",))
    once = calibration.meaning(seeds, task)["cad"].recalibration
    for run in seeds:
        table = pd.read_parquet(run.folder / store.PREDICTIONS)
        pd.concat([table] * 4).to_parquet(run.folder / store.PREDICTIONS)
        checksums.write(run.folder)
    again = calibration.meaning(seeds, task)["cad"].recalibration
    assert (again.intercept, again.slope) == pytest.approx((once.intercept, once.slope))
    np.testing.assert_allclose(again.covariance, once.covariance, rtol=1e-6)


# -- which ECGs


def test_a_folder_is_searched_and_what_is_no_ecg_is_passed_over(files, tmp_path):
    folder = shutil.copytree(next(iter(files.values())).parent, tmp_path / "some" / "where")
    (folder / "notes.txt").write_text("no ECG")
    found = predict.recordings(
        [tmp_path, folder / "notes.txt", tmp_path / "absent", tmp_path / "some#3"]
    )
    assert [one[1] for one in found if isinstance(one, tuple)] == [
        str(folder / f"{key}.hea") for key in files
    ]
    refused = [one for one in found if isinstance(one, predict.Refused)]
    assert refused[0].reason.startswith("no ECG in a format that can be read (wfdb, ")
    assert [one.reason for one in refused[1:]] == ["no such file or folder"] * 2
    (tmp_path / "empty").mkdir()
    assert predict.recordings([tmp_path / "empty"])[0].reason.startswith("no ECG in a format")


def test_an_archive_is_answered_like_the_files_in_it(served, files, tmp_path):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as opened:
        for header in files.values():
            for file in (header, header.with_suffix(".dat")):
                opened.write(file, file.name)
    inside = [one[1] for one in predict.recordings([tmp_path])]
    assert inside == [f"{tmp_path / 'all.zip'}#{key}.hea" for key in files]
    loose, packed = (served.predict(one) for one in (files[next(iter(files))], inside[0]))
    assert packed.risks == loose.risks
    assert packed.phenotypes == loose.phenotypes


def test_what_would_wait_for_a_writer_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.hea")
    (refused,) = predict.recordings([tmp_path / "pipe.hea"])
    assert refused.reason == "no regular file"
    assert records.head(tmp_path / "pipe.hea") == b""


def test_a_reader_that_fails_does_not_end_the_service(served, files, monkeypatch):
    def fail(source):
        raise ZeroDivisionError

    monkeypatch.setattr(raw.READERS["ecg"]["wfdb"], "read", fail)
    with pytest.raises(InputError, match=r"the reader 'wfdb' failed \(ZeroDivisionError\)"):
        served.predict(next(iter(files.values())))


# -- the command


def called(capfd, *words):
    code = cli.main([str(word) for word in words])
    said = capfd.readouterr()
    return code, said.out.strip(), said.err.strip()


def test_one_ecg_on_the_terminal_and_in_files(study, files, tmp_path, capfd):
    key, header = next(iter(files.items()))
    words = [f"--{kind}={tmp_path / f'out/a.{kind}'}" for kind in ("csv", "json")]
    places = ["--runs", tmp_path / "runs", "--cohort", tmp_path / "none"]
    code, text, _ = called(
        capfd, "predict", "--model", study[1] / "t/evaluation", *words, header, *places
    )
    assert code == 0
    assert text.splitlines()[0] == key
    assert re.search(
        r"^Coronary artery disease +\d+\.\d% +\d+\.\d% to \d+\.\d% +\d+\.\d%$", text, re.MULTILINE
    )
    assert text.endswith(predict.NOTE)
    table = pd.read_csv(tmp_path / "out/a.csv")
    assert list(table.name) == ["cad", *tasks.TASKS["lv"].columns]
    assert table.unit.tolist()[1:] == [tasks.UNITS[name] for name in table.name[1:]]
    record = json.loads((tmp_path / "out/a.json").read_text())
    assert record["ecgs"][0]["risks"]["cad"]["value"] == pytest.approx(table.value[0])
    assert record["about"]["cohort"] == study[0].fingerprint
    assert record["note"] == predict.NOTE
    assert not (tmp_path / "runs/predict").exists()


def test_a_file_that_cannot_be_served_is_a_line_and_the_others_are_answered(
    study, files, tmp_path, capfd
):
    flat = handmade_model.write_wfdb(tmp_path / "ecgs", "flat", np.zeros((12, 5000)))
    first = list(files.values())[:2]
    (tmp_path / "ecgs/Vigdis.pdf").write_bytes(b"%PDF-1.7")
    words = [
        "--csv",
        tmp_path / "a.csv",
        "--json",
        tmp_path / "a.json",
        *first,
        flat.parent,
        "--runs",
        tmp_path / "runs",
    ]
    code, text, beside = called(capfd, "predict", "--model", study[1] / "t/evaluation", *words)
    assert code == 2
    assert len(text.splitlines()) == 3
    assert f"ecgcmr: {flat}: flat lead" in beside.splitlines()
    table = pd.read_csv(tmp_path / "a.csv")
    assert table.dropna(subset="refused")[["source", "refused"]].to_numpy().tolist() == [
        [str(flat), "flat lead"]
    ]
    record = json.loads((tmp_path / "a.json").read_text())
    assert len(record["ecgs"]) == 2
    assert record["left_aside"] == {".pdf": 1}


def test_nothing_from_inside_a_header_is_written(study, tmp_path, capfd):
    signal = next(iter(study[2].values()))
    header = handmade_model.write_wfdb(tmp_path / "ecgs", "a", signal)
    with header.open("a") as file:
        file.write("# Name: Vigdis Planted\n# Born: 1961-02-03\n")
    words = [f"--{kind}={tmp_path / f'out/a.{kind}'}" for kind in ("csv", "json", "page")]
    flat = handmade_model.write_wfdb(tmp_path / "ecgs", "b", np.zeros((12, 5000)))
    flat.write_text(flat.read_text() + "# Vigdis Planted\n")
    code, text, beside = called(
        capfd,
        "predict",
        "--model",
        study[1] / "t/evaluation",
        *words,
        tmp_path / "ecgs",
        "--runs",
        tmp_path / "out",
    )
    assert code == 2
    written = b"".join(
        path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()
    )
    for planted in ("Vigdis", "Planted", "1961"):
        assert planted.encode() not in written
        assert planted not in text + beside


def test_where_nothing_can_be_served_nothing_is_written(study, tmp_path, capfd):
    words = [
        "--csv",
        tmp_path / "a.csv",
        "--page",
        tmp_path / "a.html",
        tmp_path / "absent",
        "--runs",
        tmp_path / "runs",
    ]
    code, text, _ = called(capfd, "predict", "--model", study[1] / "t/evaluation", *words)
    assert (code, text) == (2, "")
    assert not list(tmp_path.glob("a.*"))


def test_a_page_of_too_many_is_refused_before_anything_is_read(
    study, files, tmp_path, capfd, monkeypatch
):
    monkeypatch.setattr(prediction, "MOST", 2)
    words = ["--page", tmp_path / "a.html", *files.values(), "--runs", tmp_path / "runs"]
    code, _, beside = called(capfd, "predict", "--model", study[1] / "t/evaluation", *words)
    assert code == 2
    assert beside == "ecgcmr: --page: shows at most 2 ECGs, 3 are named; use --csv or --json"
    assert list(tmp_path.iterdir()) == []


def test_share_says_what_it_made(study, tmp_path, capfd):
    words = [
        "--model",
        study[1] / "t/evaluation",
        "--out",
        tmp_path / "m",
        "--runs",
        tmp_path / "runs",
    ]
    assert called(capfd, "share", *words)[:2] == (
        0,
        f"{tmp_path / 'm'}: cad (3 seeds), lv (3 seeds)",
    )


# -- the page


def test_the_page_stands_alone_and_says_what_it_is(served, files, tmp_path):
    page = tmp_path / "a.html"
    prediction.write(page, [served.predict(header) for header in files.values()], served)
    text = page.read_text()
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", text)
    assert text.count(predict.NOTE) == 2
    assert text.count("data:image/png;base64,") == 3
    assert served.about["cohort"] in text
    assert "synthetic" not in text


@pytest.mark.parametrize(
    ("value", "said"), [(0.0712, "7.1 %"), (0.0038, "0.38 %"), (0.5, "50.0 %")]
)
def test_risks_in_words(value, said):
    assert prediction.percent(value) == said


# -- in Python


def test_the_documents_snippet_runs(study, files, tmp_path, monkeypatch, capsys):
    text = (ROOT / "docs/use.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    header = next(iter(files.values()))
    record = next((study[1] / "t/evaluation/cad/mmcl").rglob("seed=0"))
    code = code.replace("runs/toy/evaluation/cad/mmcl/batch=16,lr=0.001/seed=0", str(record))
    code = code.replace("runs/toy/evaluation", str(study[1] / "t/evaluation")).replace(
        "ecg.hea", str(header)
    )
    names = {"signal": study[2][header.stem]}
    exec(code, names)
    assert re.match(r"cad: \d+\.\d%, 95 % interval", capsys.readouterr().out)
    assert names["vectors"].shape == (1, handmade_model.TINY.width)


def test_importing_the_package_stays_fast():
    code = "import sys, ecgcmr; print('torch' in sys.modules or 'numpy' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "False"
