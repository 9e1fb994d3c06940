"""A network that the user brings: on hearts of known shape it gives the phases, the place and the volumes that they have,
however it wants them shown; what is not stated or cannot be is one line, what is drawn wrongly is left out."""

import dataclasses

import handmade_network
import numpy as np
import pytest
from handmade_network import nearest
from test_phenotypes import CENTRE, SPACING, heart

from ecgcmr.errors import InputError
from ecgcmr.raw import CmrRecord, sax_network
from ecgcmr.signals import cmr

# The cavity's radius shrinks by it.
BEAT = (0.0, 0.12, 0.25, 0.3, 0.2, 0.08)
ES = 3
# Of background, left cavity, muscle, right cavity: between muscle and cavity lies no other.
LEVELS = (20.0, 220.0, 150.0, 90.0)
VIEW = np.array([[0.70, 0.64, -0.32], [-0.17, 0.58, 0.80]]) * [[1], [-1]]
ML = float(np.prod(SPACING)) / 1000


def labels(**options):
    return np.stack([heart(scale=1 - b, **options) for b in BEAT], axis=1)


def pictured(classes, levels=LEVELS):
    """A cine in which each class has its level, with noise that does not reach the next."""
    noise = np.random.default_rng(0).uniform(-15, 15, classes.shape)
    return (np.array(levels)[classes] + noise).astype(np.float32)


def stack(classes=None, **changes):
    across, down = np.linalg.qr(VIEW.T)[0].T * [[1], [1]]
    axes = np.array([across * np.sign(across @ VIEW[0]), down * np.sign(down @ VIEW[1])])
    frames = pictured(labels() if classes is None else classes)
    times = 160.0 * np.arange(frames.shape[1])
    return CmrRecord(**{"key": "p", "frames": frames, "spacing_mm": SPACING, "trigger_ms": times,
                        "repairs": (), "axes": axes, **changes})  # fmt: skip


def test_the_axes_are_those_of_the_view():
    assert not cmr.to_view(stack()).is_turned


def test_phases_place_and_volumes_are_those_of_the_heart(tmp_path):
    network = sax_network.open_network(nearest(LEVELS, tmp_path / "net.onnx"))
    record = network.segmented(stack())
    truth = labels()
    assert np.array_equal(record.masks, truth)
    assert record.masked == tuple(range(len(BEAT)))
    assert cmr.phases(record) == cmr.Phases(slice=7, es=ES, mid=1, ed=0)
    row, column = cmr.middle_of(record.masks, 7)
    assert row == pytest.approx(CENTRE[0], abs=1)
    assert column < CENTRE[1] - 5  # the right ventricle counts, at the left of the image
    cavity = (truth == 1).sum((0, 2, 3)) * ML
    assert record.labels["LVEDV"] == pytest.approx(cavity[0])
    assert record.labels["LVESV"] == pytest.approx(cavity[ES])
    assert record.labels["LVEDV"] == pytest.approx(2 / 3 * np.pi * 73 * 27**2 / 1000, rel=0.02)
    assert record.labels["LVEF"] == pytest.approx(51, abs=3)
    assert record.labels["LVCO"] == pytest.approx(record.labels["LVSV"] * 62.5 / 1000)
    assert record.labels["LVM"] == pytest.approx(1.05 * (truth[:, 0] == 2).sum() * ML)
    assert "WT_AHA_2" in record.labels
    assert cmr.prepare(record)[1] == (
        "end-systole from the model's segmentation",
        "heart found by the model's segmentation",
    )


def test_late_triggers_are_seen(tmp_path):
    """The cycle begins amid systole: the largest cavity is end-diastole, the least end-systole."""
    network = sax_network.open_network(nearest(LEVELS, tmp_path / "net.onnx"))
    record = network.segmented(stack(np.roll(labels(), -2, axis=1)))
    assert (cmr.phases(record).es, cmr.phases(record).ed) == (ES - 2, len(BEAT) - 2)
    assert record.labels["LVEDV"] == pytest.approx((labels()[:, 0] == 1).sum() * ML)
    assert (
        "end-diastole from the model's segmentation, not the first phase"
        in (cmr.prepare(record)[1])
    )


TURNS = {
    "as displayed": lambda x: x,
    "transpose": lambda x: x.T,
    "flip rows": np.flipud,
    "flip columns": np.fliplr,
    "rotate 90": np.rot90,
    "rotate 180": lambda x: np.rot90(x, 2),
    "rotate 270": lambda x: np.rot90(x, 3),
}


@pytest.mark.parametrize("words", [*TURNS, ["flip rows", "transpose"], ["rotate 90", "flip rows"]])
def test_turns_are_those_of_numpy_and_lead_back(tmp_path, words):
    file = nearest(LEVELS, tmp_path / "net.onnx", orientation=words)
    card = sax_network.open_network(file).card
    image = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
    turned = image[1, 2]
    for word in [words] if isinstance(words, str) else words:
        turned = TURNS[word](turned)
    assert np.array_equal(card.to_network(image)[1, 2], turned)
    assert np.array_equal(card.to_display(card.to_network(image)), image)


@pytest.mark.parametrize("words", ["transpose", "rotate 90", ["flip rows", "transpose"]])
def test_a_network_is_shown_the_orientation_that_is_stated(tmp_path, words):
    """It sees hearts only where they lie in the orientation that it knows."""
    classes = labels(centre=(38.0, 74.0))
    where = np.zeros(classes.shape[2:], bool)
    where[:78, 20:] = True  # the heart's box in the displayed image
    for word in [words] if isinstance(words, str) else words:
        where = TURNS[word](where)
    where = np.ascontiguousarray(where)
    file = nearest(
        LEVELS, tmp_path / "net.onnx", where=where, orientation=words, size=list(where.shape)
    )
    record = stack(classes)
    segmented = sax_network.open_network(file).segmented(record)
    assert np.array_equal(segmented.masks, classes)
    other = "rotate 90" if words == "transpose" else "transpose"
    handmade_network.write_card(file, orientation=other, size=list(where.shape))
    assert not np.array_equal(sax_network.open_network(file).segmented(record).masks, classes)


@pytest.mark.parametrize(
    ("exchange", "up", "back"), [(True, False, False), (False, True, False), (True, True, True)]
)
def test_however_the_file_lies_one_crop_comes_out(tmp_path, exchange, up, back):
    """Rows and columns of the file in another order, its header saying so."""
    where = np.zeros((100, 110), bool)
    where[:78, 20:] = True
    file = nearest(LEVELS, tmp_path / "net.onnx", where=where, size=[100, 110])
    network = sax_network.open_network(file)
    record = stack(labels(centre=(38.0, 74.0)))
    frames, axes = record.frames, record.axes.copy()
    if up:
        frames, axes[1] = frames[:, :, ::-1], -axes[1]
    if back:
        frames, axes[0] = frames[..., ::-1], -axes[0]
    if exchange:
        frames, axes = frames.swapaxes(2, 3), axes[::-1]
    turned = network.segmented(dataclasses.replace(record, frames=frames, axes=axes))
    plain = network.segmented(record)
    assert np.array_equal(cmr.prepare(turned)[0], cmr.prepare(plain)[0])
    assert turned.labels == plain.labels
    assert np.corrcoef(turned.masks.ravel() == 1, turned.frames.ravel())[0, 1] > 0.5


def test_without_orientation_the_file_s_order_is_shown_and_no_segment_named(tmp_path):
    network = sax_network.open_network(nearest(LEVELS, tmp_path / "net.onnx"))
    record = network.segmented(stack(axes=None))
    assert "WT_Global" in record.labels
    assert "WT_AHA_2" not in record.labels
    words = "orientation not known: the model read the images as the file has them"
    assert words in record.repairs


@pytest.mark.parametrize("size", [[64, 64], {"multiple_of": 16}])
def test_pixels_are_brought_to_the_stated_spacing_and_labels_back(tmp_path, size):
    """Rows of 1.5 and columns of 2 mm, the network wants 2.5: volumes stay, to the coarser pixels."""
    spacing = (8.0, 1.5, 2.0)
    classes = labels(spacing=spacing, shape=(14, 100, 84), centre=(50.0, 44.0))
    file = nearest(LEVELS, tmp_path / "net.onnx", spacing_mm=2.5, size=size)
    record = sax_network.open_network(file).segmented(stack(classes, spacing_mm=spacing))
    assert (record.masks == 1)[:, 0].sum() == pytest.approx((classes == 1)[:, 0].sum(), rel=0.03)
    assert cmr.phases(record).es == ES
    for got, right in zip(cmr.middle_of(record.masks, 7), cmr.middle_of(classes, 7)):
        assert got == pytest.approx(right, abs=1)


def test_a_small_window_is_the_middle_of_the_image(tmp_path):
    file = nearest(LEVELS, tmp_path / "net.onnx", size=[60, 40])
    record = sax_network.open_network(file).segmented(stack())
    inside = np.zeros((100, 110), bool)
    inside[20:80, 35:75] = True
    assert np.array_equal(record.masks, np.where(inside, labels(), 0))


ARGMAX, SOFTMAX = ("ArgMax", {"axis": 1, "keepdims": 0}), ("Softmax", {"axis": 1})
CHANNEL = ("ArgMax", {"axis": 1, "keepdims": 1})


@pytest.mark.parametrize(
    ("tail", "output", "numbers"),
    [
        ([], "scores", {"background": 0, "lv": 1, "myocardium": 2, "rv": 3}),
        ([SOFTMAX], "scores", {"background": 0, "rv": 1, "myocardium": 2, "lv": 3}),  # ACDC
        ([], "scores", {"background": [0, 4], "rv": 3, "myocardium": 1, "lv": 2}),
        ([], "scores", {"background": [0, 3], "myocardium": 1, "lv": 2}),
        ([ARGMAX], "labels", {"background": 0, "rv": 1, "myocardium": 2, "lv": 3}),
        ([CHANNEL], "labels", {"background": [0, 4], "rv": 3, "myocardium": 1, "lv": 2}),
        ([CHANNEL], "labels", {"background": [0, 3], "myocardium": 1, "lv": 2}),
    ],
)
def test_scores_and_labels_in_any_numbers(tmp_path, tail, output, numbers):
    level = dict(zip(("background", "lv", "myocardium", "rv"), LEVELS))
    levels = {0: level["background"], 3: level["rv"], 4: 1e4}
    levels |= {value: level[name] for name, value in numbers.items() if isinstance(value, int)}
    count = 1 + max(np.hstack([*numbers.values()]))
    ordered = [levels[n] / 100 for n in range(count)]
    file = nearest(
        ordered,
        tmp_path / "net.onnx",
        tail=tail,
        output=output,
        labels=numbers,
        intensity={"scale": "none"},
    )
    classes = labels(rv="rv" in numbers)
    record = stack(classes)
    record = dataclasses.replace(record, frames=record.frames / 100)
    assert np.array_equal(sax_network.open_network(file).segmented(record).masks, classes)


SCALES = {
    "percentiles": lambda x: (np.percentile(x, 2), np.subtract(*np.percentile(x, [98, 2]))),
    "minmax": lambda x: (x.min(), np.ptp(x)),
    "zscore": lambda x: (x.mean(), x.std()),
}


def intensity(scale, over):
    stated = {"scale": scale, "over": over}
    return stated | {"percentiles": [2, 98]} if scale == "percentiles" else stated


@pytest.mark.parametrize("scale", SCALES)
def test_each_image_is_scaled_by_itself(tmp_path, scale):
    card = sax_network.open_network(
        nearest(LEVELS, tmp_path / "net.onnx", intensity=intensity(scale, "image"))
    ).card
    images = np.random.default_rng(0).normal(50, 9, (2, 3, 40, 50)).astype(np.float32)
    images[1, 2] = 7  # blank
    scaled = card.intensity.scaled(images)
    for image, out in zip(images.reshape(6, 40, 50)[:5], scaled.reshape(6, 40, 50)):
        offset, unit = SCALES[scale](image.astype(np.float64))
        right = (image - offset) / unit
        right = right.clip(0, 1) if scale == "percentiles" else right
        assert out == pytest.approx(right, abs=1e-5)
    assert not scaled[1, 2].any()
    assert scaled.dtype == np.float32


@pytest.mark.parametrize("scale", SCALES)
def test_a_stack_of_another_gain_comes_to_the_same_labels(tmp_path, scale):
    frames = pictured(labels())
    offset, unit = SCALES[scale](frames.astype(np.float64))
    levels = (np.array(LEVELS) - offset) / unit
    file = nearest(levels, tmp_path / "net.onnx", intensity=intensity(scale, "stack"))
    record = sax_network.open_network(file).segmented(stack(frames=3000 + 7 * frames))
    assert np.array_equal(record.masks, labels())


@pytest.mark.parametrize("shape", [(1, 1, "h", "w"), (3, 1, "h", "w"), ("n", "c", 100, 110)])
@pytest.mark.parametrize("kind", [1, 10, 11])
def test_fixed_batches_and_other_precisions(tmp_path, shape, kind):
    size = [100, 110] if shape[2] == 100 else {"multiple_of": 2}
    file = nearest(LEVELS, tmp_path / "net.onnx", shape=shape, kind=kind, size=size)
    record = sax_network.open_network(file).segmented(stack())
    assert np.array_equal(record.masks, labels())


def test_specks_elsewhere_do_not_move_the_heart(tmp_path):
    network = sax_network.open_network(nearest(LEVELS, tmp_path / "net.onnx"))
    record = stack()
    record.frames[7, :, 2:6, 2:6] = LEVELS[1]
    record.frames[3, 5, 90:95, 100:105] = LEVELS[3]
    assert np.array_equal(network.segmented(record).masks, labels())


def test_frames_of_end_diastole_and_end_systole_alone(tmp_path):
    network = sax_network.open_network(nearest(LEVELS, tmp_path / "net.onnx"))
    ends = labels()[:, [0, ES]]
    record = network.segmented(stack(ends, es=1, trigger_ms=None))
    assert np.array_equal(record.masks, ends)
    assert record.labels["LVEF"] == pytest.approx(51, abs=3)
    assert cmr.prepare(record)[1][0] == "end-systole from the model's segmentation"


def test_a_segmentation_beside_the_stack_has_the_last_word(tmp_path):
    network = sax_network.open_network(nearest(LEVELS, tmp_path / "net.onnx"))
    record = stack(masks=labels(), masked=(0, ES), labels={"LVEDV": 1.0})
    assert network.segmented(record) is record


# -- what is drawn wrongly -------------------------------------------------------------------------

AUTOMATIC = (
    "end-systole from the smallest blood pool",
    "end-diastole taken as the first phase",
    "heart found by what moves",
)


@pytest.mark.parametrize(
    ("levels", "options", "reason"),
    [
        ((20, 1e4, 2e4, 3e4), {}, "no cavity of the left ventricle"),
        ((1e4, 100, 2e4, 3e4), {}, "a left ventricle of less than 10 or more than 1,000 mL"),
        ((20, 90, 150, 220), {}, "muscle does not enclose the left ventricle's cavity"),
        ((20, 220, 1e4, 90), {}, "muscle does not enclose the left ventricle's cavity"),
        (LEVELS, {"tail": [("Sqrt", {})]}, "scores that are no numbers"),
        (
            (20, 220, 150, 90, 195),
            {
                "tail": [("ArgMax", {"axis": 1, "keepdims": 0})],
                "output": "labels",
            },
            "labels that are not stated",
        ),
    ],
)
def test_what_cannot_be_a_heart_is_left_out_and_the_stack_goes_the_automatic_way(
    tmp_path, levels, options, reason
):
    network = sax_network.open_network(nearest(levels, tmp_path / "net.onnx", **options))
    record = stack()
    out = network.segmented(record)
    assert out.repairs == (f"model's segmentation left out: {reason}",)
    assert (out.masks, out.labels) == (None, {})
    image, words = cmr.prepare(out)
    assert np.array_equal(image, cmr.prepare(record)[0])
    assert set(AUTOMATIC) <= set(words)


def test_a_network_that_stumbles_is_left_out(tmp_path, monkeypatch):
    network = sax_network.open_network(nearest(LEVELS, tmp_path / "net.onnx"))

    def stumble(images):
        raise RuntimeError("[ONNXRuntimeError] : 6 : no memory")

    monkeypatch.setattr(sax_network, "_runner", lambda file, sha256: stumble)
    words = network.segmented(stack()).repairs
    assert words == ("model's segmentation left out: the network failed",)


def test_volumes_in_doubt_are_absent_and_said(tmp_path):
    """A slice that the network missed: the heart's place is sure, its volume is not."""
    network = sax_network.open_network(nearest(LEVELS, tmp_path / "net.onnx"))
    classes = labels()
    classes[8][classes[8] == 1] = 2
    record = network.segmented(stack(classes))
    assert record.labels == {}
    assert record.repairs == ("no volumes from the model's segmentation",)
    assert cmr.phases(record).es == ES


@pytest.mark.parametrize(
    "changes", [{"spacing_mm": (8.0, 0.01, 1.5)}, {"frames": pictured(labels())[:7]}]
)
def test_a_stack_that_cannot_serve_is_not_segmented(tmp_path, monkeypatch, changes):
    network = sax_network.open_network(nearest(LEVELS, tmp_path / "net.onnx"))
    record = stack(**changes)
    monkeypatch.setattr(sax_network, "_runner", lambda *_: pytest.fail("the network ran"))
    assert network.segmented(record) is record


# -- what is stated --------------------------------------------------------------------------------


@pytest.mark.parametrize("field", handmade_network.CARD)
def test_every_field_has_to_be_stated(tmp_path, field):
    file = nearest(LEVELS, tmp_path / "net.onnx", **{field: ...})
    with pytest.raises(InputError, match=rf"net.json: '{field}' is not stated; state all of lab"):
        sax_network.open_network(file)


def test_what_is_no_field_is_refused(tmp_path):
    file = nearest(LEVELS, tmp_path / "net.onnx", spacing=1.5)
    with pytest.raises(InputError, match=r"net.json: 'spacing' is no known field; known: labels, "):
        sax_network.open_network(file)


THREE = {"background": 0, "lv": 1, "myocardium": 2}
PERCENTILES = ([99, 1], [1], ["1", "99"], [-1, 99], [1, 101], 1, [5, 5], None)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("layout", ["NHWC", "NCDHW", None, 3]),
        ("output", ["logits", "", None, ["scores"]]),
        ("orientation", ["RAS", "", [], ["as displayed", "transpose"], 90, None, [["transpose"]]]),
        ("spacing_mm", ["1.5", 0, -1.5, 0.001, 100, True, [1.5, 1.5], float("nan")]),
        ("size", [256, [256], [256, 256, 1], [0, 256], [256.0, 256], [1e9, 1], None, "256x256"]),
        (
            "size",
            [{"multiple_of": 0}, {"multiple": 8}, {"multiple_of": True}, [True, 256], [10**9, 9]],
        ),
        ("intensity", [None, "zscore", {}, {"scale": "sigma"}, {"scale": ["none"]}]),
        ("intensity", [{"scale": "zscore"}, {"scale": "zscore", "over": "volume"}]),
        (
            "intensity",
            [{"scale": "none", "over": "image"}, {"scale": "percentiles", "over": "image"}],
        ),
        (
            "intensity",
            [
                {"scale": "percentiles", "over": "image", "percentiles": percentiles}
                for percentiles in PERCENTILES
            ],
        ),
        (
            "labels",
            [None, [0, 1, 2, 3], {}, {"background": 0, "lv": 1}, {"lv": 1, "myocardium": 2}],
        ),
        ("labels", [{**THREE, "lv": "1"}, {**THREE, "lv": 2}, {**THREE, "scar": 3}]),
        ("labels", [{**THREE, "lv": value} for value in (-1, 1.0, True, [], [[1]], 256, None)]),
    ],
)
def test_what_cannot_be_stated_is_one_line_with_the_field_and_the_fix(tmp_path, field, values):
    file = nearest(LEVELS, tmp_path / "net.onnx")
    for value in values:
        handmade_network.write_card(file, **{field: value})
        with pytest.raises(InputError, match=rf"net.json: '{field}' .*; .*") as refusal:
            sax_network.open_network(file)
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "is not there; write beside the model"),
        (b"{", "is no JSON"),
        (b"[" * 100_000, "is no JSON"),
        (b"", "is no JSON"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"[1, 2]", r"is \[1, 2\]; write a JSON object"),
    ],
)
def test_a_card_that_cannot_be_read(tmp_path, content, words):
    file = nearest(LEVELS, tmp_path / "net.onnx")
    card = file.with_suffix(".json")
    card.unlink() if content is None else card.write_bytes(content)
    with pytest.raises(InputError, match=rf"net.json: it {words}") as refusal:
        sax_network.open_network(file)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("network", "words"),
    [
        ({"labels": {"background": 0, "lv": 1, "myocardium": 2}}, "4 classes, net.json states the"),
        (
            {"labels": {"background": 0, "lv": 1, "myocardium": 2, "rv": [3, 4]}},
            r"4 classes, net.json states the labels 0, 1, 2, 3, 4; state 0 to 3",
        ),
        ({"output": "labels"}, r"shape \[1, 4, 130, 130\], net.json states 'output' \"labels\""),
        ({"tail": [("ArgMax", {"axis": 1, "keepdims": 0})]}, r"has the shape \[1, 130, 130\]"),
        (
            {"tail": [("AveragePool", {"kernel_shape": [2, 2], "strides": [2, 2]})]},
            r"has the shape \[1, 4, 65, 65\]",
        ),
        ({"shape": ("n", 3, "h", "w")}, r"does not run|no network that ONNX Runtime can run|shape"),
        ({"kind": 6}, r"input 'image' is tensor\(int32\); export it to read floating point"),
        ({"shape": ("n", 1, 64, 64)}, r"has 64 x 64 pixels, net.json states 'size'"),
        ({"shape": ("n", 1, 64, 64), "size": [64, 96]}, r"has 64 x 64 pixels, net.json states 'si"),
        (
            {"where": np.ones((32, 32), bool), "size": [64, 64]},
            "does not run on 64 x 64 pixels .*; state its own 'size'",
        ),
    ],
)
def test_a_network_that_contradicts_its_card(tmp_path, network, words):
    with pytest.raises(InputError, match=words) as refusal:
        sax_network.open_network(nearest(LEVELS, tmp_path / "net.onnx", **network))
    assert str(refusal.value).startswith(f"{tmp_path}/net.onnx: ")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("content", [b"", b"no network", b"\x08\x09\x12\x00" * 20])
def test_a_file_that_is_no_network(tmp_path, content):
    file = nearest(LEVELS, tmp_path / "net.onnx")
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"no network that ONNX Runtime can run \(.*\); export"):
        sax_network.open_network(file)


def test_names_of_files(tmp_path):
    for name, words in [("no.onnx", "no such file"), ("net.json", "name that, not its JSON")]:
        with pytest.raises(InputError, match=words):
            sax_network.open_network(tmp_path / name)
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(InputError, match="it cannot be read"):
        sax_network.open_network(tmp_path / "folder.onnx")


def test_without_onnx_runtime_the_line_says_what_to_install(tmp_path, monkeypatch):
    file = nearest(LEVELS, tmp_path / "net.onnx")
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"not installed: pip install 'ecgcmr\[onnx\]'"):
        sax_network.open_network(file)
