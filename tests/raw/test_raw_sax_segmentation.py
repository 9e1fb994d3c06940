"""Segmentations beside NIfTI stacks: phases, phenotypes, and what does not fit."""

import dataclasses

import numpy as np
import pytest
from handmade_stacks import BEAT, ES, beating, person, save, scanner, shown

from ecgcmr.cohort import build, inspect, prepare
from ecgcmr.errors import Excluded, InputError
from ecgcmr.raw import sax_nifti
from ecgcmr.signals import cmr, phenotypes


def test_segmentation_of_the_whole_cycle(tmp_path):
    labels = beating()
    record = sax_nifti.read(
        person(tmp_path / "1234567_20209_2_0", labels, scanner(), seg_sa=labels)
    )
    assert np.array_equal(record.masks, labels)
    assert record.masks.dtype == np.uint8
    assert record.masked == tuple(range(len(BEAT)))
    assert (record.key, record.person) == ("1234567_20209_2_0", "1234567")
    assert record.repairs == ("unit of time not named, taken as s",)
    truth = phenotypes.measure(
        labels[:, 0], labels[:, ES], (8.0, 1.5, 1.5), heart_rate=62.5, from_apex=True
    )
    assert record.labels == pytest.approx(truth)
    assert len(record.labels) == 27
    assert cmr.prepare(record)[1] == (
        "end-systole from the segmentation",
        "heart found by the segmentation",
    )


def test_segments_follow_the_affine_through_every_flip_and_quarter_turn(tmp_path):
    """The same heart stored with each axis reversed and rows and columns exchanged, the affine saying so."""
    labels, affine = beating(), scanner()
    for number in range(16):
        stored_, place = labels, affine.copy()
        for axis, bit in ((3, 1), (2, 2), (0, 4)):  # columns, rows, slices
            if number & bit:
                column = {3: 0, 2: 1, 0: 2}[axis]
                place[:3, 3] += place[:3, column] * (stored_.shape[axis] - 1)
                place[:3, column] *= -1
                stored_ = np.flip(stored_, axis)
        if number & 8:
            stored_ = stored_.swapaxes(2, 3)
            place[:3, [0, 1]] = place[:3, [1, 0]]
        record = sax_nifti.read(person(tmp_path / f"p{number}", stored_, place, seg_sa=stored_))
        walls = {k: record.labels[f"WT_AHA_{k}"] for k in range(1, 7)}
        assert max(walls, key=walls.get) == 2, number
        assert record.labels["LVEF"] == pytest.approx(51, abs=3)
        assert (record.masks[0] > 0).sum() < (
            record.masks[3] > 0
        ).sum()  # two empty slices above the base
        assert np.array_equal(record.masks[..., 0, 0] > 0, record.frames[..., 0, 0] > 300)
        assert np.corrcoef(record.masks.ravel() == 1, record.frames.ravel())[0, 1] > 0.5


def test_segmentation_of_end_diastole_and_end_systole(tmp_path):
    labels = beating()
    seen = shown(labels)
    ends = {"seg_sa_ED": labels[:, 0], "seg_sa_ES": labels[:, ES]}
    whole = sax_nifti.read(person(tmp_path / "w", labels, scanner(), seg_sa=labels))
    placed = sax_nifti.read(
        person(tmp_path / "p", labels, scanner(), **ends, sa_ED=seen[:, 0], sa_ES=seen[:, ES])
    )
    assert placed.masked == (0, ES)
    assert np.array_equal(placed.masks[:, ES], labels[:, ES])
    assert not placed.masks[:, 1:ES].any()
    assert placed.labels == pytest.approx(whole.labels)
    loose = sax_nifti.read(person(tmp_path / "l", labels, scanner(), **ends))
    assert loose.masked == (0,)
    assert loose.labels == pytest.approx(whole.labels)
    assert "phase of the segmented end-systole not known" in loose.repairs
    assert cmr.prepare(loose)[1] == (
        "end-systole from the smallest blood pool",
        "heart found by the segmentation",
    )


def test_frames_of_end_diastole_and_end_systole_alone(tmp_path):
    labels = beating()
    seen = shown(labels)
    for name, array in (("sa_ED", seen[:, 0]), ("sa_ES", seen[:, ES])):
        save(tmp_path / "p1" / f"{name}.nii", array, scanner())
        save(tmp_path / "p2" / f"{name}.nii", array, scanner())
        save(
            tmp_path / "p2" / f"seg_{name}.nii",
            labels[:, {"sa_ED": 0, "sa_ES": ES}[name]],
            scanner(),
        )
    plain, drawn = map(sax_nifti.read, sax_nifti.find(str(tmp_path)))
    assert (plain.key, drawn.key) == ("p1", "p2")
    assert np.array_equal(plain.frames, seen[:, [0, ES]])
    assert (plain.es, plain.masks, plain.labels) == (1, None, {})
    assert drawn.masked == (0, 1)
    assert "LVCO" not in drawn.labels  # no time
    assert len(drawn.labels) == 26
    assert cmr.prepare(plain)[1][0] == "end-systole as the files name it"
    assert cmr.prepare(drawn)[1][0] == "end-systole from the segmentation"
    (tmp_path / "p1" / "sa_ES.nii").unlink()
    with pytest.raises(Excluded, match="no time axis"):
        sax_nifti.read(str(tmp_path / "p1" / "sa_ED.nii"))


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (lambda m: m[:, :, :-1], "files of another size"),
        (lambda m: m[:, :-1], "another number of phases"),
        (lambda m: np.where(m == 3, 5, m), "labels other than 0 to 3"),
        (lambda m: np.where(m == 3, 2.5, m).astype(np.float32), "labels other than 0 to 3"),
        (lambda m: np.where(m == 3, np.nan, m).astype(np.float32), "labels other than 0 to 3"),
    ],
)
def test_a_segmentation_that_does_not_fit_is_left_out(tmp_path, spoil, word):
    labels = beating()
    record = sax_nifti.read(person(tmp_path / "p", labels, scanner(), seg_sa=spoil(labels)))
    assert any(word in repair for repair in record.repairs)
    assert (record.masks, record.masked, record.labels) == (None, (), {})
    assert cmr.prepare(record)[1] == (
        "end-systole from the smallest blood pool",
        "end-diastole taken as the first phase",
        "heart found by what moves",
    )


def test_a_segmentation_of_another_place_or_broken_is_left_out(tmp_path):
    labels, moved = beating(), scanner()
    moved[:3, 3] += 20
    source = person(tmp_path / "p", labels, scanner())
    save(tmp_path / "p" / "seg_sa.nii", labels, moved)
    assert (
        "segmentation left out: files of another place beside the stack"
        in sax_nifti.read(source).repairs
    )
    (tmp_path / "p" / "seg_sa.nii").write_bytes(b"\x1f\x8bnothing")
    assert "segmentation left out: unreadable NIfTI" in sax_nifti.read(source).repairs


def test_a_failed_phase_is_not_end_systole(tmp_path):
    labels = beating()
    broken = labels.copy()
    broken[:, 9] = 0
    broken[5, 9, 50, 58] = 1
    record = sax_nifti.read(person(tmp_path / "p", labels, scanner(), seg_sa=broken))
    assert 9 not in record.masked
    assert record.labels["LVEF"] == pytest.approx(51, abs=3)
    assert "phases with a failed segmentation left out" in record.repairs


def test_the_segmentation_outweighs_the_blood_pool_also_where_a_stack_is_looked_at(tmp_path):
    labels, later = beating(), np.roll(beating(), 3, axis=1)
    source = person(tmp_path / "p", labels, scanner(), seg_sa=later)
    record = sax_nifti.read(source)
    assert cmr.phases(record).es == ES + 3
    assert cmr.phases(dataclasses.replace(record, masks=None)).es == ES
    (seen,) = inspect.look(inspect.find(source))
    assert f"ES {ES + 3}," in seen.facts["taken"]
    assert "end-systole from the segmentation" in seen.repairs


def test_a_named_unit_and_a_senseless_step(tmp_path):
    labels = beating()
    source = person(tmp_path / "p", labels, scanner(), seg_sa=labels)
    save(tmp_path / "p" / "sa.nii", shown(labels), scanner(), unit="sec")
    record = sax_nifti.read(source)
    assert record.repairs == ()
    assert record.labels["LVCO"] == pytest.approx(record.labels["LVSV"] * 0.0625)
    save(tmp_path / "p" / "sa.nii", shown(labels), scanner(), unit="msec")  # 12 phases of 0.08 ms
    assert "LVCO" not in sax_nifti.read(source).labels
    path = tmp_path / "p" / "sa.nii"
    content = path.read_bytes()
    path.write_bytes(content[:123] + b"\xb7" + content[124:])  # units that do not exist
    assert sax_nifti.read(source).repairs == ("unit of time not named, taken as s",)


def test_without_orientation_no_segment_is_named(tmp_path):
    labels = beating()
    source = person(tmp_path / "p", labels, scanner(), seg_sa=labels)
    for name in ("sa", "seg_sa"):
        path = tmp_path / "p" / f"{name}.nii"
        content = path.read_bytes()
        path.write_bytes(content[:252] + bytes(4) + content[256:])  # qform_code and sform_code
    record = sax_nifti.read(source)
    assert record.repairs[0] == "no orientation in the header: slices in the order of the file"
    assert "WT_Global" in record.labels
    assert "WT_AHA_1" not in record.labels


def test_the_survey_of_a_cohort_takes_phenotypes_and_the_crop(tmp_path):
    labels = beating()
    source = person(tmp_path / "1234567_20209_2_0", labels, scanner(), seg_sa=labels)
    found = {crop: prepare._judge("cmr", f"nifti:{source}", {"crop": crop}) for crop in cmr.CROPS}
    assert found["heart"].numbers == sax_nifti.read(source).labels
    assert (found["heart"].key, found["heart"].person) == ("1234567_20209_2_0", "1234567")
    assert len({each.digest for each in found.values()}) == 3
    assert "heart found by the segmentation" in found["heart"].repairs
    assert "heart found by the segmentation" not in found["fixed"].repairs
    assert [
        build.recipe_of("nifti", {}, {"crop": crop})["cmr"]["crop"] for crop in cmr.CROPS
    ] == list(cmr.CROPS)
    with pytest.raises(InputError, match="known: fixed, heart, none"):
        build.recipe_of("nifti", {}, {"crop": "manual"})
