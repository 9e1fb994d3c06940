"""Embeddings of a cohort through Ray Data and of files without it: values, resumption, refusals."""

import json
import shutil

import handmade
import handmade_model
import numpy as np
import pyarrow as pa
import pyarrow.dataset as dataset
import pyarrow.parquet as pq
import pytest
import torch
from conftest import LABELS, heart_rows, write_cohort

from ecgcmr import checksums, cli, files, store, trial
from ecgcmr.data import inputs
from ecgcmr.errors import InputError
from ecgcmr.inference import (
    adopt,
    embed_cohort,
    embed_files,
    embed_parts,
    embeddings,
    ensemble,
    predict,
    weights,
)
from ecgcmr.inference.encoder import open_encoder
from ecgcmr.inference.predict import Refused
from ecgcmr.training import loop
from ecgcmr.trial import Trial


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return handmade_model.made(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def evaluation(study):
    return next((study[1] / "t/evaluation/cad/mmcl").rglob("seed=0"))


@pytest.fixture(scope="module")
def paired(tmp_path_factory):
    """40 subjects of whom a third has no CMR, in shards of 16 rows."""
    return write_cohort(
        tmp_path_factory.mktemp("paired") / "cohort", heart_rows(40, paired=False), 16, LABELS
    )


@pytest.fixture(scope="module")
def pretrained(paired, tmp_path_factory):
    """A multimodal pre-training as it leaves its encoders, of weights that are drawn."""
    runs = tmp_path_factory.mktemp("runs")
    made = Trial(
        space="t",
        stage="pretrain",
        task="ecg+cmr",
        system="mmcl",
        method="mmcl",
        network=handmade_model.TINY,
        seed=4,
    )
    method = loop.build(made)
    result = store.Finished(
        trial=made,
        status="finished",
        scores=(("val", "loss", 1.0, 4),),
        curve=handmade.curve(),
        predictions=None,
        weights={k: v.numpy() for k, v in loop.handed_on(method).items()},
        epoch=0,
        provenance={
            "cohort": paired.provenance,
            "precision": "float32",
            "versions": {"ecgcmr": "0.1.0"},
        },
    )
    store.write(runs, result, paired.fingerprint)
    return runs, method.eval()


# -- what an embedding is


def test_the_logits_of_an_evaluation_run_are_linear_in_its_embeddings(study, evaluation):
    cohort, _, _ = study
    made = open_encoder(evaluation, device="cpu")
    signals = cohort.load(cohort.rows("val"))["ecg"]
    head = made.run.head.head
    logits = torch.from_numpy(made.of(signals)) @ head.weight.T + head.bias
    cpu = torch.device("cpu")
    network = ensemble.network(ensemble.records(evaluation)[0], cpu)
    expected = network({"ecg": inputs.held(signals, "ecg", cpu).float()}, {}, {})["logits"]
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    assert made.pooling == "what the last layer reads"


def test_a_pretrained_encoder_gives_its_mean_token_and_its_pooled_features(paired, pretrained):
    runs, method = pretrained
    rows = paired.rows("train").query("has_cmr")[:3]
    signals = paired.load(rows, ("ecg", "cmr"))
    ecg = open_encoder(runs, device="cpu")
    assert (ecg.modality, ecg.pooling) == ("ecg", "mean token")
    assert ecg.of(signals["ecg"]).shape == (3, handmade_model.TINY.width)
    cmr = open_encoder(runs, "cmr", "cpu")
    image = method.views["cmr"](torch.from_numpy(signals["cmr"].copy()).float() / 255, {})
    np.testing.assert_allclose(
        cmr.of(signals["cmr"]), method.cmr(image, False).detach().numpy(), rtol=1e-5, atol=1e-6
    )


def test_several_runs_or_another_modality_are_refused(study, evaluation, pretrained):
    with pytest.raises(InputError, match=r"holds 9 runs; name one of them, e\.g\. .*/cad/"):
        open_encoder(study[1] / "t/evaluation")
    with pytest.raises(
        InputError, match=r"unknown modality of the encoders in .* 'cmr'; known: ecg"
    ):
        open_encoder(evaluation, "cmr")
    with pytest.raises(InputError, match="nowhere: no finished run"):
        open_encoder(study[1] / "nowhere")


@pytest.fixture
def one_worker(monkeypatch):
    """Ray as if of one CPU, for tests that ask nothing of several workers: each takes five seconds to start."""
    monkeypatch.setattr(embed_parts.cluster, "cpus", lambda: 1)


# -- of a cohort


def test_a_cohort_is_embedded_shard_by_shard_and_goes_on_where_it_was(
    ray_session, study, evaluation, tmp_path
):
    cohort, out, seen = study[0], tmp_path / "out", []
    made = embed_cohort.of_cohort(evaluation, cohort.path, out, device="cpu", tick=seen.append)
    assert made["rows"] == seen[-1] == len(cohort.rows())
    found = dataset.dataset(out).to_table().to_pandas().set_index("subject")
    assert found.split.to_dict() == cohort.rows().set_index("subject").split.to_dict()
    rows = cohort.rows("test")
    alone = open_encoder(evaluation, device="cpu").of(cohort.load(rows)["ecg"])
    np.testing.assert_allclose(
        np.stack(found.loc[rows.subject].embedding), alone, rtol=1e-4, atol=1e-5
    )
    form = pq.read_schema(out / cohort.rows("val").shard.iloc[0])
    assert form.field("embedding").type == pa.list_(pa.float32(), handmade_model.TINY.width)

    kept, lost = (out / cohort.rows(split).shard.iloc[0] for split in ("train", "val"))
    manifest = json.loads((out / embeddings.MANIFEST).read_text())
    (out / embeddings.MANIFEST).unlink()
    files.write_json(
        out / embeddings.REQUEST, {k: v for k, v in manifest.items() if k not in ("rows", "width")}
    )
    before, old = kept.stat().st_mtime_ns, lost.read_bytes()
    lost.unlink()
    assert embed_cohort.of_cohort(evaluation, cohort.path, out, device="cpu") == made
    assert (kept.stat().st_mtime_ns, lost.read_bytes()) == (before, old)
    assert not (out / embeddings.REQUEST).exists()


def test_images_of_those_who_have_one_are_embedded(
    ray_session, one_worker, paired, pretrained, tmp_path
):
    made = embed_cohort.of_cohort(
        pretrained[0], paired.path, tmp_path / "out", modality="cmr", device="cpu"
    )
    found = dataset.dataset(tmp_path / "out").to_table()
    assert sorted(found["subject"].to_pylist()) == sorted(paired.rows().query("has_cmr").subject)
    assert made["rows"] == len(found) < 40


def test_finished_embeddings_start_no_ray_and_others_are_refused(
    study, evaluation, pretrained, tmp_path, monkeypatch
):
    cohort, out = study[0], tmp_path / "out"
    held = {
        **embeddings.description(open_encoder(evaluation, device="cpu")),
        "cohort": cohort.fingerprint,
        "rows": 7,
        "width": 8,
    }
    files.write_json(out / embeddings.MANIFEST, held)
    monkeypatch.setattr(embed_parts, "_rows_of_each", lambda *_: pytest.fail("started"))
    assert embed_cohort.of_cohort(evaluation, cohort.path, out) == held
    other = next((study[1] / "t/evaluation/lv/mmcl").rglob("seed=0"))
    with pytest.raises(
        InputError, match=r"holds other embeddings: model t/evaluation/cad.* → t/evaluation/lv"
    ):
        embed_cohort.of_cohort(other, cohort.path, out)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").touch()
    with pytest.raises(InputError, match="not empty and no embeddings"):
        embed_cohort.of_cohort(evaluation, cohort.path, tmp_path / "full")


def test_signals_of_another_recipe_are_refused(study, evaluation, tmp_path):
    folder = shutil.copytree(evaluation, tmp_path / "run")
    record = json.loads((folder / store.RECORD).read_text())
    record["provenance"]["cohort"]["recipe"]["ecg"]["rate_hz"] = 250
    (folder / store.RECORD).write_text(json.dumps(record))
    checksums.write(folder)
    with pytest.raises(InputError, match=r"another recipe than .*: ecg\.rate_hz 250 → 500"):
        embed_cohort.of_cohort(folder, study[0].path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# -- of files


def test_files_are_embedded_as_their_cohort_is(study, evaluation, tmp_path, capfd):
    cohort, _, raw = study
    rows = cohort.rows("test")[:3]
    for key in rows.subject:
        handmade_model.write_wfdb(tmp_path / "ecgs", key, raw[key])
    handmade_model.write_wfdb(tmp_path / "ecgs", "flat", np.zeros((12, 5000)))
    words = [
        "embed",
        "--model",
        evaluation,
        "--out",
        tmp_path / "out",
        tmp_path / "ecgs",
        "--runs",
        tmp_path / "runs",
    ]
    assert cli.main([str(word) for word in [*words, "--device", "cpu"]]) == 2
    said = capfd.readouterr()
    assert said.out.strip() == f"{tmp_path / 'out'}: 3 embeddings, 1 ECG refused"
    assert f"ecgcmr: {tmp_path / 'ecgs/flat.hea'}: flat lead" in said.err
    found = (
        pq.read_table(tmp_path / "out" / embed_files.FILE)
        .to_pandas()
        .set_index("key")
        .loc[rows.subject]
    )
    alone = open_encoder(evaluation, device="cpu").of(cohort.load(rows)["ecg"])
    np.testing.assert_allclose(np.stack(found.embedding), alone, rtol=1e-4, atol=1e-5)
    assert json.loads((tmp_path / "out" / embeddings.MANIFEST).read_text())["rows"] == 3
    listed = predict.recordings([tmp_path / "ecgs"])
    assert [one.reason for one in embed_files.of_files(evaluation, listed, tmp_path / "out")] == [
        "flat lead"
    ]  # nothing is done again
    handmade_model.write_wfdb(tmp_path / "ecgs", "flat", raw[rows.subject.iloc[0]])
    with pytest.raises(InputError, match="holds other embeddings: files "):
        embed_files.of_files(evaluation, listed, tmp_path / "out")


def test_many_files_are_embedded_in_parts_by_ray_and_go_on_where_they_were(
    ray_session, one_worker, study, evaluation, tmp_path, monkeypatch
):
    cohort, _, raw = study
    keys = sorted(cohort.rows("test").subject[:5])
    for key in keys:
        handmade_model.write_wfdb(tmp_path / "ecgs", key, raw[key])
    handmade_model.write_wfdb(tmp_path / "ecgs", "zflat", np.zeros((12, 5000)))
    listed, out, seen = (
        [*predict.recordings([tmp_path / "ecgs"]), Refused("absent", "no such file")],
        tmp_path / "out",
        [],
    )
    monkeypatch.setattr(embed_files, "PART", 2)
    refused = embed_files.of_files(evaluation, listed, out, device="cpu", tick=seen.append)
    assert [one.reason for one in refused] == ["no such file", "flat lead"]
    assert seen[0] == 1 and seen[-1] == 7  # noqa: PT018
    names = [f"embeddings-{n:05d}.parquet" for n in range(3)]
    assert sorted(path.name for path in out.iterdir()) == [embeddings.MANIFEST, *names]
    found = dataset.dataset(out).to_table().to_pandas()
    assert found.key.tolist() == keys
    monkeypatch.setattr(embed_files, "PART", 256)
    embed_files.of_files(evaluation, listed, tmp_path / "one", device="cpu")
    one = pq.read_table(tmp_path / "one" / embed_files.FILE).to_pandas()
    np.testing.assert_allclose(
        np.stack(found.embedding), np.stack(one.embedding), rtol=1e-4, atol=1e-5
    )

    monkeypatch.setattr(embed_files, "PART", 2)  # as if it had been killed in the second part
    manifest = json.loads((out / embeddings.MANIFEST).read_text())
    (out / embeddings.MANIFEST).unlink()
    (out / names[1]).unlink()
    files.write_json(
        out / embeddings.REQUEST, {k: v for k, v in manifest.items() if k not in ("rows", "width")}
    )
    before = (out / names[0]).stat().st_mtime_ns
    assert embed_files.of_files(evaluation, listed, out, device="cpu") == refused
    assert (out / names[0]).stat().st_mtime_ns == before
    assert json.loads((out / embeddings.MANIFEST).read_text()) == manifest


def test_an_import_that_says_nothing_of_its_signals_is_used_with_a_word_and_a_run_of_ours_is_not(
    study, pretrained, tmp_path, capfd
):
    cohort, _, raw = study
    subject = cohort.rows("test").subject.iloc[0]
    handmade_model.write_wfdb(tmp_path / "ecgs", subject, raw[subject])
    weights.publish(
        tmp_path / "mmcl.pth", "ecg", weights.read(next(pretrained[0].rglob(store.ENCODER)), "ecg")
    )
    name = adopt.adopt(
        tmp_path / "mmcl.pth", tmp_path / "runs", part="ecg", space="p", system="mmcl", heads=2
    )
    words = [
        "--model",
        tmp_path / "runs" / name,
        "--runs",
        tmp_path / "runs",
        "--device",
        "cpu",
        tmp_path / "ecgs",
    ]
    assert cli.main(["embed", "--out", str(tmp_path / "out"), *map(str, words)]) == 0
    said = "ecgcmr: mmcl.pth says nothing of how its signals were prepared; yours are prepared as docs/presets.md says"
    assert capfd.readouterr().err.splitlines()[0] == said
    found = np.stack(pq.read_table(tmp_path / "out" / embed_files.FILE).to_pandas().embedding)
    signals = cohort.load(cohort.rows("test")[:1])["ecg"]
    np.testing.assert_allclose(
        found, open_encoder(pretrained[0], device="cpu").of(signals), rtol=1e-4, atol=1e-5
    )
    assert (
        json.loads((tmp_path / "out" / embeddings.MANIFEST).read_text())["recipe_hash"] == "unknown"
    )

    weights.write(
        tmp_path / "stated.safetensors",
        {"ecg": weights.read(tmp_path / "mmcl.pth", "ecg")},
        {
            "network": json.dumps({"heads": 2}),
            "cohort": json.dumps({"recipe": {"ecg": {"rate_hz": 250}}}),
        },
    )
    other = adopt.adopt(
        tmp_path / "stated.safetensors", tmp_path / "runs", part="ecg", space="p", system="stated"
    )
    listed = predict.recordings([tmp_path / "ecgs"])
    with pytest.raises(InputError, match=r"another recipe than .*: .*rate_hz 250 → 500"):
        embed_files.of_files(tmp_path / "runs" / other, listed, tmp_path / "no")
    path = next(shutil.copytree(pretrained[0], tmp_path / "own").rglob(store.RECORD))
    record = json.loads(path.read_text())
    del record["provenance"]["cohort"]["recipe"]
    path.write_text(json.dumps(record))
    checksums.write(path.parent)
    with pytest.raises(
        InputError, match="does not say how its ecg signals were prepared; train it on a cohort"
    ):
        embed_files.of_files(tmp_path / "own", listed, tmp_path / "no")


def test_where_no_file_can_serve_nothing_is_written(evaluation, tmp_path):
    refused = embed_files.of_files(
        evaluation, predict.recordings([tmp_path / "absent"]), tmp_path / "out", device="cpu"
    )
    assert [one.reason for one in refused] == ["no such file or folder"]
    assert not (tmp_path / "out").exists()


def test_a_run_keeps_its_name_in_what_is_embedded(study, evaluation):
    record = json.loads((evaluation / store.RECORD).read_text())
    assert (
        embeddings.description(open_encoder(evaluation))["model"]
        == trial.from_json(record["trial"]).name
    )
