"""Similarity maps: the paper's definition by loops, what a run must have kept, and subjects chosen by rule alone."""

import dataclasses
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import LABELS, heart_rows, write_cohort
from handmade_stacks import write_nifti
from test_cli import called
from test_raw_wfdb import beats, write

from ecgcmr import methods, presets, store
from ecgcmr.errors import InputError
from ecgcmr.inference import pairs, similarity, subjects
from ecgcmr.nn import Network
from ecgcmr.raw import sax_nifti, wfdb
from ecgcmr.runs import read_run
from ecgcmr.signals import cmr, ecg
from ecgcmr.training import loop
from ecgcmr.trial import Trial

torch.set_num_threads(1)

TINY = Network(
    crop=500,
    patch=100,
    width=16,
    depth=1,
    heads=2,
    blocks=(1, 1, 1, 1),
    image_width=4,
    image_size=96,
    hidden=16,
    projection=8,
)
RUN = Trial(
    space="t",
    stage="pretrain",
    task="ecg+cmr",
    system="mmcl",
    method="mmcl",
    network=TINY,
    batch=4,
    epochs=2,
)
PARTS = {"ecg": "ecg", "cmr": "cmr", "head": "head"}


def mmcl(seed=1, side=96, preset="paper"):
    """A network whose projections depend on their input, biases and statistics included."""
    network = dataclasses.replace(TINY, image_size=side)
    method = methods.build("mmcl", network, presets.preset(preset), seed=seed).double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in [*method.named_parameters(), *method.named_buffers()]:
            if value.is_floating_point() and "var" not in name:
                value.add_(0.2 * torch.randn(value.shape, generator=generator, dtype=value.dtype))
    return method


def signals(n=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    ecg = torch.randn(n, 12, 5000, generator=generator, dtype=torch.float64)
    return ecg, torch.rand(n, 3, 210, 210, generator=generator, dtype=torch.float64)


ALIKE = {"ecg": ecg.RECIPE, "cmr": {**cmr.RECIPE, "crop": "heart"}}


def leave(runs, trial=RUN, *, parts=("ecg", "cmr", "head"), status="finished", recipe=ALIKE):
    """A finished run whose weights are not those that its seed draws; the method they are of."""
    method = loop.build(dataclasses.replace(trial, seed=7))
    weights = {name: value.numpy() for name, value in loop.handed_on(method).items()}
    kept = {name: value for name, value in weights.items() if name.split(".")[0] in parts}
    provenance = {"cohort": {"recipe": recipe}}
    found = store.Finished(
        trial, status, (("val", "loss", 1.0, 4),), pd.DataFrame(), None, kept, 1, provenance
    )
    store.write(runs, found, "cohort")
    return method.eval()


# -- similarity


@pytest.mark.parametrize("preset", ["paper", "authors"])
def test_similarity_is_the_cosine_of_every_locations_own_projection(preset):
    method, (ecg, cmr) = mmcl(preset=preset), signals()
    with torch.no_grad():
        found = similarity.maps(method, ecg, cmr)
        whole, _ = method.project({"ecg": ecg, "cmr": cmr}, {})
        maps = method.cmr.maps(method.views["cmr"](cmr, {}), False)
        for i in range(3):
            for row in range(3):
                for column in range(3):
                    local = method.head["cmr"](maps[i, :, row, column])
                    expected = (local / local.norm()) @ (whole[i] / whole[i].norm())
                    assert found[i, row, column].item() == pytest.approx(expected.item(), abs=1e-12)
    assert found.shape == (3, 3, 3)
    assert found.abs().max() <= 1
    assert found.std() > 0.01


def test_a_location_whose_projection_is_the_ecgs_has_similarity_one_and_the_opposite_minus_one():
    method, (ecg, cmr) = mmcl(), signals(1)
    with torch.no_grad():
        planted = method.head["cmr"](
            method.cmr.maps(method.views["cmr"](cmr, {}), False)[0, :, 0, 2]
        )
        method.head["ecg"].layers[2].weight.zero_()
        for sign in (1, -1):
            method.head["ecg"].layers[2].bias.copy_(sign * 3 * planted)  # a cosine knows no length
            found = sign * similarity.maps(method, ecg, cmr)[0]
            assert found[0, 2].item() == pytest.approx(1)
            assert (found == found.max()).nonzero().tolist() == [[0, 2]]


def test_a_map_of_one_location_is_the_similarity_of_the_pooled_image():
    method, (ecg, cmr) = mmcl(side=32), signals()
    with torch.no_grad():
        expected = torch.nn.functional.cosine_similarity(
            *method.project({"ecg": ecg, "cmr": cmr}, {})
        )
        torch.testing.assert_close(similarity.maps(method, ecg, cmr), expected[:, None, None])


def test_what_changes_in_a_corner_of_the_image_changes_that_corner_of_the_map_alone():
    method, (ecg, cmr) = mmcl(side=210), signals(1)
    changed = cmr.clone()
    changed[..., :40, -40:] = 0
    differs = (similarity.maps(method, ecg, cmr) != similarity.maps(method, ecg, changed))[0]
    assert differs.shape == (7, 7)
    assert differs[0, -1]
    assert not differs[4:].any()
    assert not differs[:, :3].any()


def test_a_row_depends_on_its_own_subject_alone():
    method, (ecg, cmr) = mmcl(), signals()
    together = similarity.maps(method, ecg, cmr)
    for i in range(3):
        torch.testing.assert_close(
            similarity.maps(method, ecg[i : i + 1], cmr[i : i + 1])[0], together[i]
        )
    torch.testing.assert_close(similarity.maps(method, ecg.flip(0), cmr.flip(0)), together.flip(0))


def test_neither_mode_nor_chance_matters_and_nothing_is_learnt():
    method, (ecg, cmr) = mmcl(), signals()
    before = {name: value.clone() for name, value in method.state_dict().items()}
    found = similarity.maps(method, ecg, cmr)
    assert not found.requires_grad
    assert torch.equal(similarity.maps(method.train(), ecg, cmr), found)
    assert all(torch.equal(before[name], value) for name, value in method.state_dict().items())


# -- what a run has kept


def test_projectors_are_handed_on_beside_the_encoders_and_do_not_mix_with_them(tmp_path):
    method = leave(tmp_path)
    assert {name.split(".")[0] for name in loop.handed_on(method)} == set(PARTS)
    for part in PARTS:
        mine, kept = (
            method.get_submodule(part).state_dict(),
            store.weights(tmp_path, RUN.name, part),
        )
        assert set(kept) == set(mine)
        assert all(np.array_equal(kept[name], value.numpy()) for name, value in mine.items())


@pytest.mark.parametrize("method", ["mae", "simclr", "byol"])
def test_other_lefthand_on_encoders_alone(method):
    built = methods.build(method, TINY, presets.preset("paper"))
    assert {name.split(".")[0] for name in loop.handed_on(built)} == set(built.parts)


def test_a_run_is_loaded_as_it_was_left(tmp_path):
    left = leave(tmp_path)
    run = read_run(tmp_path / RUN.name)
    method, trial = similarity.load(run), run.trial
    assert trial == RUN
    assert not method.training
    assert method.state_dict().keys() == left.state_dict().keys()
    assert all(
        torch.equal(value, left.state_dict()[name]) for name, value in method.state_dict().items()
    )


def test_runs_that_cannot_be_explained_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"has not finished under .*ecgcmr pretrain"):
        similarity.load(read_run(tmp_path / RUN.name))
    leave(tmp_path, parts=("ecg", "cmr"))
    folder = store.folder(tmp_path, RUN.name)
    words = f"made before projectors were kept; delete {folder} and pre-train it again"
    with pytest.raises(InputError, match=re.escape(words)):
        similarity.load(read_run(tmp_path / RUN.name))
    shutil.rmtree(folder)
    leave(tmp_path, parts=(), status="diverged")
    with pytest.raises(InputError, match="diverged and left no weights"):
        similarity.load(read_run(tmp_path / RUN.name))
    mae = dataclasses.replace(RUN, system="mae", method="mae", task="ecg")
    leave(tmp_path, mae)
    with pytest.raises(
        InputError, match="is of method 'mae'; similarity maps need one of method 'mmcl'"
    ):
        similarity.load(read_run(tmp_path / mae.name))


# -- subjects and their maps


def test_maps_are_those_of_the_signals_as_the_encoders_learnt_from_them(small_cohort, tmp_path):
    other = dataclasses.replace(RUN, system="mmcl-wo-mdm", seed=3)
    left = {trial.name: leave(tmp_path, trial) for trial in (RUN, other)}
    index = small_cohort.rows("val").query("has_ecg and has_cmr").iloc[[5, 0, 2]]
    found = similarity.maps_for([read_run(tmp_path / name) for name in left], small_cohort, index)
    raw = small_cohort.load(index, ("ecg", "cmr"))
    ecg, cmr = raw["ecg"].astype(np.float64), raw["cmr"].astype(np.float64) / 255
    for group in (slice(0, 3), slice(3, 6), slice(6, 12)):
        part = ecg[:, group]
        ecg[:, group] = (part - part.mean((1, 2), keepdims=True)) / part.std((1, 2), keepdims=True)
    assert list(found) == list(left)
    for name, method in left.items():
        expected = similarity.maps(
            method.double(), torch.from_numpy(ecg), torch.from_numpy(cmr)
        ).numpy()
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], expected, atol=1e-4)


def test_rows_without_image_and_signals_prepared_otherwise_are_refused(small_cohort, tmp_path):
    rows = small_cohort.rows("val")
    leave(tmp_path)
    with pytest.raises(InputError, match="1 of the 1 chosen rows lack ECG or CMR"):
        similarity.maps_for(
            [read_run(tmp_path / RUN.name)], small_cohort, rows[~rows["has_cmr"]].head(1)
        )
    shutil.rmtree(store.folder(tmp_path, RUN.name))
    leave(tmp_path, recipe={"cmr": {**small_cohort.recipe["cmr"], "size": 128}})
    with pytest.raises(
        InputError, match=r"learnt from signals of another recipe than .*: cmr.size 128 → 210"
    ):
        similarity.maps_for(
            [read_run(tmp_path / RUN.name)], small_cohort, rows[rows["has_cmr"]].head(1)
        )


# -- one pair


def test_a_pair_of_a_cohort_is_its_map_and_a_look_at_the_test_split_is_logged(
    small_cohort, tmp_path
):
    leave(tmp_path)
    for split, reads in (("val", 0), ("test", 1)):
        index = small_cohort.rows(split).query("has_ecg and has_cmr").tail(1)
        found = pairs.of_subject(
            read_run(tmp_path / RUN.name), small_cohort, index["subject"].iloc[0]
        )
        np.testing.assert_array_equal(
            found.similarity,
            similarity.maps_for([read_run(tmp_path / RUN.name)], small_cohort, index)[RUN.name][0],
        )
        np.testing.assert_array_equal(found.image, small_cohort.load(index, ("cmr",))["cmr"][0])
        assert len(store.test_reads(tmp_path)) == reads
    with pytest.raises(InputError, match="no subject 'nobody'"):
        pairs.of_subject(read_run(tmp_path / RUN.name), small_cohort, "nobody")
    lonely = small_cohort.rows().query("not has_cmr")["subject"].iloc[0]
    with pytest.raises(InputError, match=f"subject '{lonely}' lacks ECG or CMR"):
        pairs.of_subject(read_run(tmp_path / RUN.name), small_cohort, lonely)


def beating(path):
    """A stack of ten slices in which a disc shrinks and grows off the middle, as NIfTI."""
    y, x = np.mgrid[:96, :96]
    sizes = 18 + 6 * np.cos(2 * np.pi * np.arange(12) / 12)
    cycle = np.stack([10 + 200.0 * (np.hypot(x - 40, y - 60) < size) for size in sizes])
    return write_nifti(path, np.stack([cycle] * 10))


@pytest.mark.parametrize("crop", ["heart", "fixed"])
def test_a_pair_of_files_is_prepared_as_the_runs_cohort_was(tmp_path, crop):
    leave(tmp_path, recipe={"ecg": ecg.RECIPE, "cmr": {**cmr.RECIPE, "crop": crop}})
    trace, stack = write(tmp_path, beats()), beating(tmp_path / "stack.nii.gz")
    found = pairs.of_files(read_run(tmp_path / RUN.name), Path(trace), stack)
    record = wfdb.read(trace)
    prepared = ecg.prepare(record.signal, record.rate_hz, record.leads)[0]
    frames = cmr.prepare(sax_nifti.read(str(stack)), crop)[0]
    np.testing.assert_array_equal(found.image, frames)
    np.testing.assert_array_equal(found.ecg, prepared)
    method = similarity.load(read_run(tmp_path / RUN.name))
    signal = ecg.normalise(torch.from_numpy(prepared.astype(np.float16))[None])
    expected = similarity.maps(method, signal, torch.from_numpy(frames)[None] / 255)[0]
    np.testing.assert_allclose(found.similarity, expected, atol=1e-6)


def test_files_that_cannot_serve_and_recipes_of_old_are_refused(tmp_path):
    leave(tmp_path)
    trace, stack = Path(write(tmp_path, beats())), beating(tmp_path / "stack.nii.gz")
    short = Path(write(tmp_path, beats()[:, :2000], name="short"))
    flat = write_nifti(tmp_path / "flat.nii.gz", np.ones((10, 12, 96, 96)))
    for files, said in (
        ((short, stack), "short.hea: shorter than 10 s; this recording cannot serve"),
        ((trace, flat), "flat.nii.gz: nothing moves in the middle slices; this stack cannot serve"),
        ((tmp_path, stack), "2 recordings where one is needed"),
    ):
        with pytest.raises(InputError, match=re.escape(said)):
            pairs.of_files(read_run(tmp_path / RUN.name), *files)
    shutil.rmtree(store.folder(tmp_path, RUN.name))
    leave(tmp_path, recipe={"cmr": {**cmr.RECIPE, "size": 128}})
    with pytest.raises(
        InputError, match=r"another recipe than files are given now: cmr.size 128 → 210"
    ):
        pairs.of_files(read_run(tmp_path / RUN.name), trace, stack)


def test_the_command_draws_a_pair(small_cohort, tmp_path, capfd):
    leave(tmp_path / "runs")
    subject = small_cohort.rows("val").query("has_ecg and has_cmr")["subject"].iloc[0]
    words = ["--model", RUN.name, "--runs", tmp_path / "runs", "--out", tmp_path / "pair.png"]
    code, said, _ = called(
        capfd, "explain", "--cohort", small_cohort.path, "--subject", subject, *words
    )
    assert (code, said) == (0, str(tmp_path / "pair.png"))
    assert (tmp_path / "pair.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """12 validation rows of hand-set phenotypes, and one without CMR that is extreme in all of them."""
    volumes = [150, 90, 260, 250, 148, 120, 180, 300, 152, 155, 145, 160]
    ejection = [58, 70, 62, 25, 60, 66, 55, 30, 59, 57, 61, 56]
    walls = [7, 6, 8, 9, 7, 12, 7, None, 7, 7, 7, 7]
    rows = list(heart_rows(13, seed=1))
    for i, row in enumerate(rows[:12]):
        row.update(
            split="val", LVEDV=float(volumes[i]), LVEF=float(ejection[i]), WT_Global=walls[i]
        )
    rows[12].update(split="val", LVEDV=500.0, LVEF=5.0, WT_Global=30.0, cmr=None)
    return write_cohort(
        tmp_path_factory.mktemp("measured") / "cohort", rows, labels=(*LABELS, "WT_Global")
    )


def test_cases_follow_the_rules(measured):
    found = subjects.cases(measured)
    assert list(found["caption"]) == [
        "Typical heart\nLVEDV 152 mL, LVEF 59 %",
        "Largest left ventricle\nLVEDV 300 mL",
        "Lowest ejection fraction\nLVEF 25 %",
        "Thickest wall\nWT Global 12 mm",
    ]
    rows = measured.rows("val").reset_index(drop=True)
    assert list(found["subject"]) == [rows["subject"][i] for i in (8, 7, 3, 5)]
    pd.testing.assert_frame_equal(subjects.cases(measured), found)
    assert len(measured.load(found, ("ecg", "cmr"))["cmr"]) == 4


def test_cases_are_different_subjects_though_one_is_extreme_in_all(small_cohort):
    found = subjects.cases(
        small_cohort
    )  # there the largest ventricle ejects least, and walls are not measured
    assert found["subject"].is_unique
    rows = small_cohort.rows("val").query("has_ecg and has_cmr")
    biggest = rows.sort_values("LVEDV", ascending=False)["subject"].tolist()
    assert found["subject"].iloc[1:3].tolist() == biggest[:2]
    assert found["caption"].iloc[3] == "Next in file order"
    taken = set(found["subject"].iloc[:3])
    assert found["subject"].iloc[3] == next(name for name in rows["subject"] if name not in taken)


def test_a_second_visit_of_a_subject_is_no_other_case(tmp_path):
    rows = [{**row, "split": "val", "subject": f"p{i // 2}"} for i, row in enumerate(heart_rows(8))]
    rows[0].update(LVEDV=400.0)
    rows[1].update(LVEF=5.0)  # the second visit would be the next case
    found = subjects.cases(write_cohort(tmp_path / "visits", rows))
    assert found["subject"].iloc[1] == "p0"
    assert sorted(found["subject"]) == ["p0", "p1", "p2", "p3"]


def test_without_phenotypes_the_first_rows_with_both_signals_are_taken(tmp_path):
    rows = [{**row, "split": "val"} for row in heart_rows(4, paired=False)]
    found = subjects.cases(write_cohort(tmp_path / "bare", rows, labels=("cad",)))
    assert list(found["subject"]) == ["p00001", "p00002"]
    assert set(found["caption"]) == {"Next in file order"}
    ecg_only = [{**row, "cmr": None} for row in rows]
    with pytest.raises(InputError, match="no row of 'val' has both ECG and CMR"):
        subjects.cases(write_cohort(tmp_path / "alone", ecg_only))


def test_equal_phenotypes_leave_file_order(tmp_path):
    rows = [{**row, "split": "val", "LVEDV": 150.0, "LVEF": 60.0} for row in heart_rows(5)]
    assert list(subjects.cases(write_cohort(tmp_path / "same", rows))["subject"]) == [
        f"p{i:05d}" for i in range(4)
    ]
