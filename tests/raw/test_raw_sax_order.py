"""What a stack's files say in several ways, or not at all: how it lies, which phase is which, what is an image."""

import functools
from pathlib import Path

import nibabel
import numpy as np
import pytest
from handmade_stacks import (
    ALONG,
    BEAT,
    ES,
    PHASES,
    SLICES,
    beating,
    folder,
    frames,
    image,
    save,
    scanner,
    shown,
    stored,
)
from pydicom.uid import generate_uid

from ecgcmr.errors import Excluded
from ecgcmr.raw import sax_dicom, sax_nifti
from ecgcmr.signals import cmr

CASES = Path(__file__).resolve().parents[3] / "shared" / "cases" / "cmr"
TURNED = "rows and columns turned to the one view"


@functools.cache
def heart_() -> tuple[np.ndarray, np.ndarray]:
    """Labels and images of nine slices, base to apex."""
    labels = beating()[2:11]
    labels.setflags(write=False)
    return labels, shown(labels)


def placed(array: np.ndarray, affine: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    """The array in one of 16 orders of its axes, and the affine that leaves every voxel in its place."""
    array, affine = array, affine.copy()
    for axis, column, bit in ((3, 0, 1), (2, 1, 2), (0, 2, 8)):
        if number & bit:
            affine[:3, 3] += affine[:3, column] * (array.shape[axis] - 1)
            affine[:3, column] *= -1
            array = np.flip(array, axis)
    if number & 4:
        array = array.swapaxes(2, 3)
        affine[:3, [0, 1]] = affine[:3, [1, 0]]
    return array, affine


def nifti(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> str:
    save(path, array, scanner() if affine is None else affine)
    return str(path)


def header(path: str, change) -> str:
    """The file with its header changed, its voxels as they are."""
    whole = nibabel.load(path)
    made = nibabel.Nifti1Image(np.array(whole.dataobj), None, whole.header)
    change(made.header)
    nibabel.save(made, path)
    return path


# -- how it lies -------------------------------------------------------------------------------------------------------


def test_every_order_of_rows_and_columns_gives_one_image(tmp_path):
    labels, seen = heart_()
    plain, words = cmr.prepare(sax_nifti.read(nifti(tmp_path / "p.nii", seen)))
    assert TURNED not in words
    for number in range(1, 16):
        array, affine = placed(seen, scanner(), number)
        record = sax_nifti.read(nifti(tmp_path / f"p{number}.nii", array, affine))
        turned, words = cmr.prepare(record)
        assert np.array_equal(turned, plain), number
        assert (TURNED in words) == (number % 8 != 0), number
    array, affine = placed(labels, scanner(), 7)
    nifti(tmp_path / "p7_gt.nii", array.astype(np.uint8), affine)
    nifti(tmp_path / "p_gt.nii", labels.astype(np.uint8))
    drawn = [cmr.prepare(sax_nifti.read(str(tmp_path / f"{name}.nii"))) for name in ("p", "p7")]
    assert np.array_equal(drawn[0][0], drawn[1][0])
    assert "heart found by the segmentation" in drawn[1][1]


@pytest.mark.parametrize("degrees", [30, 200])
def test_dicom_and_its_conversions_give_one_image(tmp_path, degrees):
    """dcm2niix turns rows upside down and the affine with them; the scanner may have turned the plane as it liked."""
    _, seen = heart_()
    axes = np.diag([-1.0, -1, 1]) @ scanner()[:3, :2] / 1.5
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    across, down = axes @ [c, s], axes @ [-s, c]
    origin = np.array([10.0, -20, 30])
    images = [
        image(
            z,
            p,
            ImageOrientationPatient=[round(float(x), 6) for x in (*across, *down)],
            ImagePositionPatient=[round(float(x), 4) for x in origin + 8 * z * ALONG],
            PixelSpacing=[1.5, 1.5],
            Rows=seen.shape[2],
            Columns=seen.shape[3],
            PixelData=(seen[z, p] + 100).astype("<u2").tobytes(),
        )
        for z in range(len(seen))
        for p in range(PHASES)
    ]
    dicom = sax_dicom.read(str(folder(tmp_path / "d", [stored(data) for data in images])))
    affine = np.eye(4)
    affine[:3] = np.array([-1.0, -1, 1])[:, None] * np.stack(
        [1.5 * across, 1.5 * down, 8 * ALONG, origin], axis=1
    )
    expected = cmr.prepare(dicom)[0]
    assert np.array_equal(dicom.frames, seen + 100)  # as the scanner shows it
    for number in (0, 2):
        array, place = placed(seen + 100, affine, number)
        record = sax_nifti.read(nifti(tmp_path / f"n{number}.nii", array, place))
        assert np.array_equal(cmr.prepare(record)[0], expected)


def test_an_affine_without_orientation_is_said(tmp_path):
    _, seen = heart_()

    def none(header):
        header["sform_code"] = header["qform_code"] = 0

    record = sax_nifti.read(header(nifti(tmp_path / "a.nii", seen), none))
    assert record.axes is None
    assert "no orientation in the header: slices in the order of the file" in record.repairs
    record = sax_nifti.read(nifti(tmp_path / "b.nii", seen, np.diag([1.5, 1.5, 8.0, 1.0])))
    assert "orientation in doubt: no short axis lies along the body" in record.repairs


@pytest.mark.parametrize("has_qform", [True, False])
def test_an_sform_of_unit_scale_states_no_size(tmp_path, has_qform):
    """ACDC's headers."""
    labels, seen = heart_()

    def acdc(header):
        header.set_qform(np.diag([-1.5, -1.5, 8.0, 1.0]), code=int(has_qform))
        header.set_sform(np.diag([-1.0, -1.0, 1.0, 1.0]), code=1)

    path = header(nifti(tmp_path / "patient001_4d.nii", seen), acdc)
    header(nifti(tmp_path / "patient001_4d_gt.nii", labels.astype(np.uint8)), acdc)
    record = sax_nifti.read(path)
    assert record.spacing_mm == pytest.approx((8.0, 1.5, 1.5))
    assert "sform of unit scale: sizes taken from pixdim" in record.repairs
    assert record.labels["LVEF"] == pytest.approx(51, abs=3)


def test_sizes_that_contradict_each_other_are_named(tmp_path):
    path = nifti(tmp_path / "p.nii", heart_()[1])
    content = bytearray(Path(path).read_bytes())
    content[80:84] = np.float32(2.5).tobytes()
    Path(path).write_bytes(content)
    with pytest.raises(Excluded, match="unreadable NIfTI: sform and pixdim state other sizes"):
        sax_nifti.read(path)


def test_five_axes_and_exchanged_ones(tmp_path):
    _, seen = heart_()
    plain = sax_nifti.read(nifti(tmp_path / "p.nii", seen))
    array = seen.transpose(3, 2, 0, 1)
    for name, shape in (("a", array[..., None]), ("b", array[:, :, :, None])):
        made = nibabel.Nifti1Image(shape, scanner())
        made.header["pixdim"][4:6] = (0.08, 1) if name == "a" else (1, 0.08)
        nibabel.save(made, tmp_path / f"{name}.nii")
        record = sax_nifti.read(str(tmp_path / f"{name}.nii"))
        assert np.array_equal(record.frames, plain.frames)
        assert np.array_equal(record.trigger_ms, plain.trigger_ms)
    for shape, reason in (
        (np.stack([array, array], axis=-1), "5 axes, more than X, Y, Z and time"),
        (array[..., None, None], "6 axes"),
        (array.swapaxes(2, 3), "axes are X, Y, time, slices"),
    ):
        nibabel.save(nibabel.Nifti1Image(shape, scanner()), tmp_path / "c.nii")
        with pytest.raises(Excluded, match=reason):
            sax_nifti.read(str(tmp_path / "c.nii"))


# -- what is an image --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "stacks"),
    [
        ("A0S9V9_sa A0S9V9_sa_gt", "A0S9V9_sa"),
        ("001_SA_CINE 001_SA_ED 001_SA_ED_gt 001_SA_ES 001_SA_ES_gt", "001_SA_CINE"),
        ("p_4d p_frame01 p_frame01_gt p_frame12 p_frame12_gt", "p_4d"),
        ("p p_label_maskDiast p-seg p.mask label_p", "p"),
        ("p_CINE_segmented_SAX q_CINE_segmented_SAX", "p_CINE_segmented_SAX q_CINE_segmented_SAX"),
        ("sa la_4ch seg_la_4ch sa_ED seg_sa other", "other sa"),
        ("p_ED p_ES p_ED_gt q_gt r_ES", "p_ED q_gt r_ES"),  # no cine: to be refused, and counted
        ("1_sa 2_sa 3", "1_sa 2_sa 3"),
    ],
)
def test_one_stack_for_each_heart(tmp_path, names, stacks):
    for name in names.split():
        (tmp_path / f"{name}.nii.gz").write_bytes(b"")
    found = [Path(source).name.removesuffix(".nii.gz") for source in sax_nifti.find(str(tmp_path))]
    assert found == stacks.split()


def test_sa_beside_other_names_in_other_folders(tmp_path):
    for name in ("p1/sa", "p1/la_2ch", "10002_20209_2_0", "deep/10003_20209_2_0"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.nii.gz").write_bytes(b"")
    assert len(sax_nifti.find(str(tmp_path))) == 3


@pytest.mark.parametrize("scale", [1, 85, 0.0])
def test_few_small_whole_numbers_are_no_image(tmp_path, scale):
    labels = heart_()[0].astype(np.float32)
    values = (labels == 1) * np.float32(255) if scale == 85 else labels
    values = (labels == 2).astype(np.float32) if not scale else values
    record = sax_nifti.read(nifti(tmp_path / "p1.nii", values))
    with pytest.raises(Excluded, match="a segmentation, no images"):
        cmr.prepare(record)


def test_ground_truth_of_two_phases_is_used(tmp_path):
    """M&Ms label end-diastole and end-systole in a file of the whole cycle; M&Ms-2 and ACDC each in one of its own."""
    labels, seen = heart_()
    ends = np.where(np.isin(np.arange(PHASES), (0, ES))[:, None, None], labels, 0).astype(np.uint8)
    mnms = sax_nifti.read(nifti(tmp_path / "A_sa.nii", seen))
    assert mnms.labels == {}
    nifti(tmp_path / "A_sa_gt.nii", ends)
    mnms = sax_nifti.read(str(tmp_path / "A_sa.nii"))
    for base, end in (("001_SA", "CINE"), ("patient001", "4d")):
        nifti(tmp_path / f"{base}_{end}.nii", seen)
        for name, phase in (("ED", 0), ("ES", ES)):
            name = name if end == "CINE" else f"frame{phase + 1:02d}"
            nifti(tmp_path / f"{base}_{name}.nii", seen[:, phase])
            nifti(tmp_path / f"{base}_{name}_gt.nii", ends[:, phase])
        record = sax_nifti.read(str(tmp_path / f"{base}_{end}.nii"))
        assert record.masked == mnms.masked == (0, ES)
        assert record.labels == mnms.labels
        assert record.labels["LVEF"] == pytest.approx(51, abs=3)


# -- which phase is which ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("late", [2, ES, 7])
def test_end_diastole_is_where_the_cavity_is_largest(tmp_path, late):
    labels, seen = heart_()
    records = []
    for name, shift in (("a", 0), ("b", late)):
        nifti(tmp_path / f"{name}_gt.nii", np.roll(labels, -shift, axis=1).astype(np.uint8))
        record = sax_nifti.read(nifti(tmp_path / f"{name}.nii", np.roll(seen, -shift, axis=1)))
        records.append(record)
    plain, rolled = records
    assert rolled.labels == plain.labels
    assert cmr.phases(rolled).ed == (0 - late) % PHASES
    assert cmr.phases(rolled).es == (ES - late) % PHASES
    (first, _), (second, words) = map(cmr.prepare, records)
    assert np.array_equal(first, second)
    assert "end-diastole from the segmentation, not the first phase" in words


def test_a_first_phase_within_two_percent_stays_end_diastole():
    masks = np.zeros((9, 12, 40, 40), np.uint8)
    for phase, side in enumerate(100 - (40 * BEAT).astype(int)):
        masks[:, phase].reshape(9, -1)[:, : 10 * side] = 1
    assert cmr.end_diastole(masks, tuple(range(12))) == 0
    masks[:, 10].reshape(9, -1)[:, :1019] = 1
    assert cmr.end_diastole(masks, tuple(range(12))) == 0
    masks[:, 10].reshape(9, -1)[:, :1030] = 1
    assert cmr.end_diastole(masks, tuple(range(12))) == 10
    assert cmr.end_diastole(masks, (3,)) is None


@pytest.mark.parametrize("order", [(0, 3, 2, 1), (0, 2, 1, 3), (0, 2, 3, 1)])
def test_labels_of_another_order_are_known_by_anatomy(tmp_path, order):
    labels, seen = heart_()
    nifti(tmp_path / "a_gt.nii", labels.astype(np.uint8))
    nifti(tmp_path / "b_gt.nii", np.array(order, np.uint8)[labels])
    first, second = (sax_nifti.read(nifti(tmp_path / f"{name}.nii", seen)) for name in ("a", "b"))
    assert second.labels == first.labels
    assert np.array_equal(second.masks, first.masks)
    numbers = ", ".join(map(str, order[1:]))
    word = f"segmentation of another order: cavity, muscle, right are {numbers}"
    assert (first.repairs, second.repairs) == (first.repairs, (*first.repairs, word))


def test_a_label_without_a_wall_is_not_used_at_all(tmp_path):
    labels, seen = heart_()
    nifti(tmp_path / "a_gt.nii", (labels == 1).astype(np.uint8))
    record = sax_nifti.read(nifti(tmp_path / "a.nii", seen))
    assert (record.masks, record.labels) == (None, {})
    assert any(word.startswith("segmentation left out: no label is enc") for word in record.repairs)
    assert cmr.prepare(record)[1][:2] == (
        "end-systole from the smallest blood pool",
        "end-diastole taken as the first phase",
    )


@pytest.mark.parametrize(
    ("facts", "word"),
    [
        ({"TemporalPositionIdentifier": lambda p: p + 1}, "temporal positions"),
        ({"AcquisitionTime": lambda p: f"1000{p:02d}.120000"}, "acquisition times"),
        ({"InstanceNumber": lambda p: p + 1}, "instance numbers"),
        (
            {"TemporalPositionIdentifier": lambda p: 1, "InstanceNumber": lambda p: p + 1},
            "instance numbers",
        ),
        (
            {"AcquisitionTime": lambda p: "100000", "InstanceNumber": lambda p: p + 1},
            "instance numbers",
        ),
    ],
)
def test_phases_without_trigger_times_are_ordered_by_what_stands_in(tmp_path, facts, word):
    number = facts.pop("InstanceNumber", None) or (lambda p: "")
    images = [
        image(s, p, TriggerTime=None, **{k: f(p) for k, f in facts.items()})
        for s in range(SLICES)
        for p in range(PHASES)
    ]
    for n, data in enumerate(images):
        data.InstanceNumber = number(n % PHASES)
    record = sax_dicom.read(str(folder(tmp_path, [stored(data) for data in images[::-1]])))
    assert np.array_equal(record.frames, frames())
    assert record.repairs == (f"phases ordered by {word}",)


def test_an_unknown_order_of_phases_is_refused(tmp_path):
    blank = [
        image(s, p, TriggerTime=None, InstanceNumber="")
        for s in range(SLICES)
        for p in range(PHASES)
    ]
    with pytest.raises(Excluded, match="order of phases unknown"):
        sax_dicom.read(str(folder(tmp_path / "a", [stored(data) for data in blank])))
    for n, data in enumerate(blank):
        data.AcquisitionTime = f"1000{n % PHASES:02d}"
        data.InstanceNumber = (7 * n) % PHASES + 1
    with pytest.raises(Excluded, match="acquisition times contradict instance numbers"):
        sax_dicom.read(str(folder(tmp_path / "b", [stored(data) for data in blank])))


# -- whose and where ---------------------------------------------------------------------------------------------------


def plane(noise: float = 0.0, shift: float = 0.0, **changes) -> list:
    """The stack's images; every second phase lies `noise` mm further along and is turned by as little."""
    images = [image(s, p, **changes) for s in range(SLICES) for p in range(PHASES)]
    for n, data in enumerate(images):
        at = np.array([10.0, -20, 30]) + (8 * (n // PHASES) + shift + noise * (n % 2)) * ALONG
        data.ImagePositionPatient = [round(float(x), 6) for x in at]
        turned = np.array(data.ImageOrientationPatient, float) + 0.01 * noise * (n % 2)
        data.ImageOrientationPatient = [round(float(x), 8) for x in turned]
    return images


@pytest.mark.parametrize(("noise", "shift"), [(0.0002, 0.0499), (0.02, 0.0), (0.2, 0.0499)])
def test_positions_and_directions_have_a_tolerance(tmp_path, noise, shift):
    """A place at the edge of a rounding is no two places."""
    record = sax_dicom.read(str(folder(tmp_path, [stored(d) for d in plane(noise, shift)])))
    assert np.array_equal(record.frames, frames())
    assert record.spacing_mm[0] == pytest.approx(8.0, abs=0.01)
    assert record.repairs == ()


def test_an_instance_is_taken_once(tmp_path):
    images = plane()
    twice = [stored(data) for data in (*images, *images[20:50])]
    record = sax_dicom.read(str(folder(tmp_path, twice)))
    assert np.array_equal(record.frames, frames())
    assert record.repairs == ("images that are there twice taken once",)


def test_images_without_pixels_are_a_reason(tmp_path):
    images = [stored(data) for data in plane(PixelData=b"")]
    with pytest.raises(Excluded, match="pixels cannot be decoded"):
        sax_dicom.read(str(folder(tmp_path, images)))


@pytest.mark.parametrize(
    ("keyword", "shift"),
    [("StudyInstanceUID", 0.0), ("StudyInstanceUID", 200.0), ("FrameOfReferenceUID", 3.0)],
)
def test_two_stacks_under_one_anonymous_number_are_refused(tmp_path, keyword, shift):
    images = [
        *plane(PatientID="ANON", **{keyword: "1.2.1"}),
        *plane(PatientID="ANON", shift=shift, SeriesInstanceUID="1.2.5", **{keyword: "1.2.2"}),
    ]
    with pytest.raises(Excluded, match="stacks of several studies or frames of reference"):
        sax_dicom.read(str(folder(tmp_path, [stored(data) for data in images])))


def test_identifiers_made_anew_for_every_image_say_nothing(tmp_path):
    images = plane(StudyInstanceUID="1.2.1")
    for data in images:
        data.FrameOfReferenceUID = generate_uid()
    record = sax_dicom.read(str(folder(tmp_path, [stored(data) for data in images])))
    assert np.array_equal(record.frames, frames())


# -- the cases that were seen ------------------------------------------------------------------------------------------


@pytest.mark.skipif(not CASES.exists(), reason="the cases are not here")
def test_the_cases_of_one_heart_give_one_image():
    plain = cmr.prepare(sax_nifti.read(str(CASES / "nifti_dcm2niix_upside_down" / "stack.nii.gz")))[
        0
    ]
    for reader, path in (
        (sax_nifti, "nifti_dcm2niix_upside_down/flipped/stack.nii.gz"),
        (sax_nifti, "nifti_five_axes/xyz1t.nii.gz"),
        (sax_nifti, "nifti_five_axes/xyzt1.nii.gz"),
        (sax_dicom, "dicom_order_of_phases_unknown/1000011_20209_2_0.zip"),
        (sax_dicom, "dicom_positions_at_a_rounding_edge/1000011_20209_2_0.zip"),
    ):
        assert np.array_equal(cmr.prepare(reader.read(str(CASES / path)))[0], plain), path
    assert len(sax_nifti.find(str(CASES / "mnms_ground_truth_taken_for_images"))) == 1
