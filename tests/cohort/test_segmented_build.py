"""A build with a network of the user's: which stack was decided by what, what a manifest says of it, and that a model that
cannot serve is refused before anything begins."""

import json
import re

import handmade_network
import numpy as np
import pytest
from handmade_network import nearest
from handmade_stacks import save, scanner
from test_raw_network import ES, LEVELS, ML, labels, pictured

from ecgcmr import cli, plugins
from ecgcmr.cohort import build, check, prepare, staging
from ecgcmr.errors import InputError
from ecgcmr.raw import sax_network
from ecgcmr.runtime import cluster


def in_process(jobs, out):
    """Stands for `staging._each`, without Ray."""
    for job in jobs:
        row = {"job": json.dumps(job), "out": str(out), "plugins": json.dumps(plugins.carried())}
        part = json.loads(prepare.work(row)["part"])
        if "error" in part:
            raise InputError(part["error"])
        yield part


@pytest.fixture
def without_ray(monkeypatch):
    monkeypatch.setattr(staging, "_each", in_process)
    monkeypatch.setattr(cluster, "start", lambda **options: None)


@pytest.fixture
def place(tmp_path):
    """Stacks of three people: with a segmentation beside it, as the network knows them, and too bright for it."""
    classes = labels()
    beside = np.roll(classes, 1, axis=1)
    frames = pictured(classes)
    for name, array in {
        "a/sa": frames,
        "a/seg_sa": beside,
        "b/sa": frames + 1,
        "c/sa": 10 * frames,
    }.items():
        save(tmp_path / "stacks" / f"{name}.nii", array.astype(np.int16), scanner())
    return tmp_path / "stacks"


def counted(monkeypatch):
    """How many images went through the network, in a list of one."""
    images, run = [0], sax_network._run

    def count(session, batch):
        images[0] += len(batch)
        return run(session, batch)

    monkeypatch.setattr(sax_network, "_run", count)
    return images


def test_each_stack_says_what_decided(tmp_path, place, without_ray, monkeypatch, capfd):
    """Volumes are the heart's own for the network; the segmentation beside a stack is a phase late."""
    file = nearest(LEVELS, tmp_path / "net.onnx")
    network = sax_network.open_network(file)
    out, images = tmp_path / "cohort", counted(monkeypatch)
    words = ["cohort", "build", "--cmr", f"nifti:{place}", "--cohort", str(out)]
    assert cli.main([*words, "--segment", str(file)]) == 0
    said = capfd.readouterr().out
    assert (
        "CMR: end-systole from the model's segmentation 1, end-systole from the segmentation 1, "
        "end-systole from the smallest blood pool 1\n"
        "CMR: heart found by the model's segmentation 1, heart found by the segmentation 1, "
        "heart found by what moves 1\n"
        "CMR: model's segmentation left out: a left ventricle of less than 10 or more than 1,000 mL 1\n"
    ) in said
    # blank at its opening and for the session of the build; two stacks once, though each is read twice
    assert images[0] - 2 * classes_of(place) in (1, 2)
    cohort = build.build(
        out, cmr=f"nifti:{place}", network=network
    )  # it is there: no Ray, no reading
    manifest = cohort.manifest
    assert manifest["recipe"]["cmr"]["segmentation"] == {
        "model": network.sha256,
        **handmade_network.CARD,
    }
    by_person = {}
    for entry in manifest["repairs"]:
        by_person.setdefault(entry["key"], set()).add(entry["what"])
    decided = sorted(
        re.sub(".* (by|from) ", "", what)
        for whats in by_person.values()
        for what in whats
        if what.startswith("cmr: heart found")
    )
    assert decided == ["the model's segmentation", "the segmentation", "what moves"]
    volumes = cohort.rows()[["LVEDV", "LVESV"]].dropna().to_numpy()
    cavity = (labels() == 1).sum((0, 2, 3)) * ML
    assert volumes == pytest.approx(np.array([[cavity[0], cavity[ES]]] * 2))
    assert check.check(out) == []
    written = [path for path in tmp_path.rglob("*") if path.is_file() and out in path.parents]
    assert not any(b"net.onnx" in path.read_bytes() for path in written)
    assert not (out / ".build").exists()


def classes_of(place):
    """Images of one stack."""
    return labels().shape[0] * labels().shape[1]


def test_another_network_or_card_is_another_cohort(tmp_path, place, without_ray):
    file = nearest(LEVELS, tmp_path / "net.onnx")
    out = tmp_path / "cohort"
    (place / "a/seg_sa.nii").unlink()
    network = sax_network.open_network(file)
    build.build(out, cmr=f"nifti:{place}", network=network)
    handmade_network.write_card(file, spacing_mm=1.5)
    other_card = sax_network.open_network(file)
    other_model = sax_network.open_network(nearest((21, *LEVELS[1:]), tmp_path / "b.onnx"))
    for other in (None, other_card, other_model):
        with pytest.raises(InputError, match=r"made otherwise: recipe_hash .*; segment .*; use an"):
            build.build(out, cmr=f"nifti:{place}", network=other)


def test_a_network_that_changes_during_the_build_ends_it(tmp_path, place, without_ray):
    file = nearest(LEVELS, tmp_path / "net.onnx")
    network = sax_network.open_network(file)
    nearest((21, *LEVELS[1:]), file)
    sax_network.of_identity.cache_clear()
    with pytest.raises(
        InputError, match=r"net.onnx: it or its JSON changed during the build; keep"
    ):
        build.build(tmp_path / "cohort", cmr=f"nifti:{place}", network=network)
    assert not (tmp_path / "cohort").exists()


@pytest.mark.parametrize("action", ["build", "inspect"])
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda file: file.unlink(), "no such file"),
        (lambda file: file.with_suffix(".json").unlink(), "net.json: it is not there"),
        (lambda file: handmade_network.write_card(file, size=...), "'size' is not stated"),
        (lambda file: file.write_bytes(b"no"), "no network that ONNX Runtime can run"),
    ],
)
def test_what_cannot_serve_is_refused_before_anything_begins(
    tmp_path, place, monkeypatch, capfd, action, spoil, words
):
    file = nearest(LEVELS, tmp_path / "net.onnx")
    spoil(file)
    monkeypatch.setattr(cluster, "start", lambda **options: pytest.fail("Ray was started"))
    out = tmp_path / "cohort"
    command = {
        "build": ["cohort", "build", "--cmr", f"nifti:{place}", "--cohort", str(out)],
        "inspect": ["inspect", str(place)],
    }[action]
    assert cli.main([*command, "--segment", str(file)]) == 2
    said = capfd.readouterr()
    (line,) = [line for line in said.err.splitlines() if words in line]
    assert line.startswith(f"ecgcmr: {tmp_path}/net.")
    assert "Traceback" not in said.err
    assert not out.exists()


def test_a_network_without_stacks_is_refused(tmp_path):
    network = sax_network.open_network(nearest(LEVELS, tmp_path / "net.onnx"))
    recordings = tmp_path / "ecg.csv"
    recordings.write_text("# fs: 500\n# unit: mV\nI,II,III,aVR,aVL,aVF,V1,V2,V3,V4,V5,V6\n")
    with pytest.raises(InputError, match="--segment: there is no --cmr; it segments short-axis"):
        build.build(tmp_path / "cohort", ecg=f"csv:{recordings}", network=network)


def test_inspect_says_what_the_network_does(tmp_path, place, capfd):
    file = nearest(LEVELS, tmp_path / "net.onnx")
    cavity = (labels() == 1).sum((0, 2, 3)) * ML
    assert cli.main(["inspect", str(place / "b/sa.nii"), "--segment", str(file)]) == 0
    said = capfd.readouterr().out
    assert f"volumes  LVEDV {cavity[0]:.1f} mL, LVESV {cavity[ES]:.1f} mL, LVEF 5" in said
    assert "from the model's segmentation" in said
    assert f"ES {ES}, mid 1, ED 0" in said
    assert cli.main(["inspect", str(place / "c/sa.nii"), "--segment", str(file)]) == 0
    said = capfd.readouterr().out
    assert "model's segmentation left out: a left ventricle of less than 10" in said
    assert "heart found by what moves" in said
    assert "volumes" not in said
    assert cli.main(["inspect", str(place / "a/sa.nii"), "--segment", str(file)]) == 0
    assert "LVEF 51" in (said := capfd.readouterr().out)
    assert "mL, LVEF" in said
    assert "end-systole from the segmentation" in said
