"""What the fuzz run starts from where readers of short-axis stacks are concerned; see fuzz_seeds.py."""

import copy
import io
import struct
import tarfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import handmade_exports as made
import nibabel
import numpy as np
import pydicom
from fuzz_seeds import (
    GAIN,
    NAME,
    OFFSET,
    REFUSED,
    SAME,
    SPACING,
    Field,
    Files,
    Seed,
    content,
    packed,
    written,
)
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
)

SLICES, PHASES, ROWS, COLUMNS = 8, 10, 48, 40
SIZES_MM = (8.0, 1.8, 1.7)
ALONG = np.array([0.72, -0.48, -0.5]) / np.linalg.norm(
    [0.72, -0.48, -0.5]
)  # base → apex: left, to the front, down


@cache
def frames() -> np.ndarray:
    """A disc that contracts in a grainy chest; no two images and no two rows of one are alike; whole numbers."""
    y, x = np.mgrid[:ROWS, :COLUMNS]
    grain = np.random.default_rng(0).integers(0, 60, (SLICES, 1, ROWS, COLUMNS))
    radius = (
        np.array([12, 11, 10, 8, 7, 7, 8, 9, 10, 11])[None, :, None, None]
        - 0.4 * np.arange(SLICES)[:, None, None, None]
    )
    disc = np.hypot(y - ROWS / 2, x - COLUMNS / 2) < radius
    return (100 + grain + 400 * disc + np.arange(PHASES)[None, :, None, None]).astype(np.int16)


def nifti(data: np.ndarray | None = None, ending: str = ".nii") -> bytes:
    right = np.cross(ALONG, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    axes = np.stack(
        [right * SIZES_MM[2], np.cross(ALONG, right) * SIZES_MM[1], ALONG * SIZES_MM[0]], axis=1
    )
    affine = np.eye(4)
    affine[:3, :3] = np.array([-1, -1, 1])[:, None] * axes
    image = nibabel.Nifti1Image((frames() if data is None else data).transpose(3, 2, 0, 1), affine)
    image.header.set_zooms((SIZES_MM[2], SIZES_MM[1], SIZES_MM[0], 0.08))
    image.header.set_xyzt_units("mm", "sec")
    image.header["descrip"], image.header["db_name"] = (
        f"{made.FIRST} {made.LAST}".encode(),
        made.ID.encode(),
    )
    return written(ending, lambda path: nibabel.save(image, path))


def nifti_seeds() -> list[Seed]:
    f = "s1.nii"

    def put(
        label: str, allowed: frozenset[str] | None, at: int, form: str, *values: float
    ) -> Field:
        def make(files: Files, rng: np.random.Generator) -> Files:
            body = bytearray(files[f])
            struct.pack_into(form, body, at, values[rng.integers(len(values))])
            return {f: bytes(body)}

        return Field(label, make, allowed)

    nan, inf = float("nan"), float("inf")
    fields = (
        put("width", REFUSED, 42, "<h", 0, -1, 39, 41, 20, 32767, 1),
        put("slices", REFUSED, 46, "<h", 0, -8, 7, 9, 4, 32767),
        put("phases", REFUSED, 48, "<h", 0, -1, 9, 11, 1, 32767),
        put("dimensions", REFUSED, 40, "<h", 0, 1, 3, 7, 8, -1, 32767),
        put("fifth dimension", SAME, 50, "<h", 0, 1, 2, -1),
        put("type", REFUSED, 70, "<h", 0, 1, 2, 8, 16, 32, 64, 128, 1536, 2304, -1),
        put("unsigned", SAME, 70, "<h", 512),
        put("bits", SAME, 72, "<h", 8, 32, 0, -1),
        put("no size of pixels", REFUSED, 80, "<f", 0.0, nan, inf, -inf, 1e30, 1e-30, 500.0, 0.01),
        put("negative size of pixels", SPACING, 80, "<f", -1.7, -2.0),
        put("size of pixels", SPACING, 80, "<f", 1.2, 2.5),
        put("no distance of slices", REFUSED, 88, "<f", 0.0, nan, inf, 1e30, 1e-30, 4000.0),
        put("time step", SAME, 92, "<f", 0.0, nan, inf, -1.0, 1e30),
        put("shifted", REFUSED, 108, "<f", 353, 354, 1e9, nan, -inf, 1e30, 352 + 80),
        put("slope is none", SAME, 112, "<f", 0.0, nan),
        put("slope", GAIN, 112, "<f", 2.0, 0.01, 1e-30),
        put("slope is absurd", REFUSED, 112, "<f", 1e36, -1.0, 3e38, -1e30),
        put("intercept", OFFSET, 116, "<f", 5.0, -1000.0),
        put("intercept is absurd", REFUSED, 116, "<f", 3e38, -3e38, 1e30),
        put("affine", REFUSED, 280, "<f", nan, inf, 1e30),
        put("magic", REFUSED, 344, "<I", 0, 0x2B32, 0xFFFFFFFF),
        put("length of the header", SAME, 0, "<i", 0, 540, -1, 347),
        content(
            "other contents",
            f,
            lambda: nifti(frames()[:, :1, :, :]),
            lambda: nifti(frames()[:, :, :1, :1]),
            lambda: nifti(np.zeros_like(frames())),
            lambda: nifti(np.full(frames().shape, np.nan, np.float32)),
            lambda: nifti(frames()[:4]),
            allowed=REFUSED,
        ),
        content(
            "as it is",
            f,
            lambda: nifti(frames().astype(np.float32)),
            lambda: nifti(frames().astype(">i2")),
            lambda: nifti(frames().astype(np.float64)),
            allowed=SAME,
        ),
    )
    base = Seed("cmr", "nifti", {f: nifti()}, f, (frames(),), spacing_mm=SIZES_MM, fields=fields)
    gz, stack, drawn = "s1.nii.gz", "s1/sa.nii", "s1/seg_sa.nii"
    good = masks()
    missing = np.where(np.arange(PHASES)[:, None, None] == 4, 0, good)
    others = (
        np.zeros_like(good),
        np.full_like(good, 2),
        good + 4,
        3 - good,
        -good,
        good * 1e30,
        np.full(good.shape, nan),
        good[:, :, ::-1],
        good[:, :5],
        good[:4],
        missing,
        np.roll(good, 20, axis=2),
        np.where(good == 2, 0, good),
    )
    cut = segmented(good)()[:3000]
    labels = content(
        "segmentations", drawn, *map(segmented, others), lambda: b"", lambda: cut, allowed=SAME
    )
    return [
        base,
        replace(
            base, files={gz: nifti(ending=".nii.gz")}, path=gz, fields=(), sealed=((gz, SAME),)
        ),
        # What a segmentation says may be wrong where it is damaged, but the frames beside it are not.
        replace(
            base,
            files={stack: nifti(), drawn: segmented(good)()},
            path="s1",
            fields=(labels,),
            sealed=((drawn, SAME),),
        ),
    ]


@cache
def masks() -> np.ndarray:
    """What `frames` shows, as ukbb_cardiac labels it, with a wall and a right ventricle around it."""
    y, x = np.mgrid[:ROWS, :COLUMNS] - np.array([ROWS, COLUMNS])[:, None, None] / 2
    blood = frames() > 450
    wall = (np.hypot(y, x) < 15) & ~blood
    right = (np.hypot(y, x + 16) < 6) & ~blood & ~wall
    return np.select([blood, wall, right], [1, 2, 3], 0).astype(np.int16)


def segmented(labels: np.ndarray) -> Callable[[], bytes]:
    return lambda: nifti(labels.astype(np.int16 if labels.dtype.kind == "i" else np.float32))


def image(slice_: int, phase: int) -> Dataset:
    right = np.cross(ALONG, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    data = Dataset()
    data.PatientName, data.PatientID, data.PatientBirthDate = (
        f"{made.LAST}^{made.FIRST}",
        made.ID,
        "19510423",
    )
    data.SOPClassUID, data.SOPInstanceUID, data.Modality = (
        MRImageStorage,
        f"1.2.{slice_}.{phase}",
        "MR",
    )
    data.SeriesInstanceUID, data.SeriesNumber, data.InstanceNumber = (
        "1.2.3",
        5,
        slice_ * PHASES + phase + 1,
    )
    data.ImageOrientationPatient = [float(x) for x in (*right, *np.cross(ALONG, right))]
    data.ImagePositionPatient = [
        round(float(x), 4) for x in np.array([10.0, -20, 30]) + SIZES_MM[0] * slice_ * ALONG
    ]
    data.TriggerTime, data.PixelSpacing = 10.0 + 80 * phase, list(SIZES_MM[1:])
    data.Rows, data.Columns, data.SamplesPerPixel = ROWS, COLUMNS, 1
    data.PhotometricInterpretation, data.PixelRepresentation = "MONOCHROME2", 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 16, 15
    data.PixelData = frames()[slice_, phase].astype("<u2").tobytes()
    return data


def stored(data: Dataset, syntax: str = ExplicitVRLittleEndian) -> bytes:
    data = copy.deepcopy(data)
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    whole = io.BytesIO()
    pydicom.dcmwrite(whole, data, enforce_file_format=True)
    return whole.getvalue()


def sax_seeds() -> list[Seed]:
    name = "s1/IM{:03d}.dcm"
    images = {
        name.format(s * PHASES + p): stored(image(s, p))
        for s in range(SLICES)
        for p in range(PHASES)
    }

    def put(
        label: str, allowed: frozenset[str] | None, keyword: str, values: tuple, every: bool
    ) -> Field:
        def make(files: Files, rng: np.random.Generator) -> Files:
            names, value = sorted(files), values[rng.integers(len(values))]
            for name in names if every else [names[rng.integers(len(names))]]:
                data = pydicom.dcmread(io.BytesIO(files[name]))
                data.pop(keyword, None)
                if value is not None:
                    # Under implicit VR a reader goes by its dictionary: words get in where numbers belong.
                    words = isinstance(value, (str, list))
                    data.add_new(
                        keyword, "LO" if words else pydicom.datadict.dictionary_VR(keyword), value
                    )
                files = {**files, name: stored(data, ImplicitVRLittleEndian)}
            return files

        return Field(f"{label} of {'every' if every else 'one'} image", make, allowed)

    def one(label: str, allowed: frozenset[str] | None, keyword: str, *values: object) -> Field:
        return put(label, allowed, keyword, values, every=False)

    def all_(label: str, allowed: frozenset[str] | None, keyword: str, *values: object) -> Field:
        return put(label, allowed, keyword, values, every=True)

    image_ = frozenset({"image"})
    fields = (
        one("rows", image_, "Rows", 0, 47, 60_000, None),
        all_("rows", REFUSED, "Rows", 0, 47, 60_000, None),
        one("bits", image_, "BitsAllocated", 0, 8, 32, 1, 12),
        all_("bits", REFUSED, "BitsAllocated", 0, 8, 32, 1, 12),
        one("number of frames", image_, "NumberOfFrames", "0", "2", "-1", "999999999", NAME),
        all_("number of frames", SAME, "NumberOfFrames", "0", "2", "-1", "999999999", NAME),
        one(
            "spacing",
            image_,
            "PixelSpacing",
            ["0", "0"],
            ["NaN", "1"],
            ["1e30", "1e30"],
            ["-1", "1"],
            [NAME, "1"],
        ),
        all_(
            "no spacing",
            REFUSED,
            "PixelSpacing",
            ["0", "0"],
            ["NaN", "1"],
            ["1e30", "1e30"],
            ["-1", "1"],
            ["1"],
            None,
        ),
        all_("spacing", SPACING, "PixelSpacing", ["1.2", "1.2"], ["2.5", "2.4"]),
        one(
            "orientation",
            image_,
            "ImageOrientationPatient",
            ["0"] * 6,
            ["NaN"] * 6,
            ["1"] * 5,
            [NAME] * 6,
        ),
        all_(
            "orientation",
            REFUSED,
            "ImageOrientationPatient",
            ["0"] * 6,
            ["NaN"] * 6,
            ["1"] * 5,
            ["1e30"] * 6,
            None,
        ),
        one(
            "position",
            image_,
            "ImagePositionPatient",
            ["NaN"] * 3,
            ["1e308"] * 3,
            ["0", "0"],
            [NAME] * 3,
        ),
        all_(
            "position",
            REFUSED,
            "ImagePositionPatient",
            ["NaN"] * 3,
            ["0"] * 3,
            ["0", "0"],
            [NAME] * 3,
            None,
        ),
        one("trigger time", image_, "TriggerTime", "NaN", "-1", "1e308", NAME, "", None),
        all_("trigger time", SAME, "TriggerTime", "NaN", "0", "", None, NAME),
        one("instance", image_, "InstanceNumber", "NaN", "-1", NAME, "", None, "9" * 12),
        one("series", image_, "SeriesNumber", NAME, "", None, "9" * 12),
        one("slope", image_, "RescaleSlope", "NaN", "inf", "1e38", NAME, "0", ""),
        all_("no slope", REFUSED, "RescaleSlope", "NaN", "inf", "1e38", NAME, "-1"),
        all_("slope", GAIN, "RescaleSlope", "2", "0.1"),
        all_("intercept", OFFSET, "RescaleIntercept", "5", "-1024"),
        all_("colours", REFUSED, "PhotometricInterpretation", "RGB", "PALETTE COLOR", NAME),
        all_("samples per pixel", REFUSED, "SamplesPerPixel", 3, 0),
        one("pixels", image_, "PixelData", b"", bytes(10), bytes(100_000)),
        all_("pixels", REFUSED, "PixelData", b"", bytes(10), bytes(2 * ROWS * COLUMNS)),
    )
    base = Seed("cmr", "dicom", images, "s1", (frames(),), spacing_mm=SIZES_MM, fields=fields)
    archive = {"s1.zip": packed(images)}
    bomb = {**images, "s1/x.dcm": bytes(200 << 20)}
    packs = (
        content(
            "bomb",
            "s1.zip",
            lambda: packed(bomb),
            lambda: packed({"s1/x.dcm": bytes(60 << 20)}),
            allowed=SAME,
        ),
        content(
            "names",
            "s1.zip",
            lambda: packed({f"../../{n}": b for n, b in images.items()}),
            allowed=SAME,
        ),
    )
    tars = {f"s1.tar{end}": tarred(images, end) for end in ("", ".gz", ".xz")}
    return [
        base,
        replace(base, files=archive, path="s1.zip", fields=packs, sealed=(("s1.zip", SAME),)),
        replace(base, files={"s1.tar": tars["s1.tar"]}, path="s1.tar", fields=()),
        *(
            replace(base, files={n: tars[n]}, path=n, fields=(), sealed=((n, SAME),))
            for n in ("s1.tar.gz", "s1.tar.xz")
        ),
        enhanced_seed(base),
    ]


def tarred(members: Files, end: str) -> bytes:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode=f"w:{end[1:]}") as archive:
        for name, body in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(body)
            archive.addfile(entry, io.BytesIO(body))
    return whole.getvalue()


def enhanced(slice_: int) -> Dataset:
    """All phases of a slice as one multi-frame image."""
    data = image(slice_, 0)
    data.SOPClassUID, data.NumberOfFrames = EnhancedMRImageStorage, PHASES
    data.PixelData = frames()[slice_].astype("<u2").tobytes()
    shared, position, direction, pixel = (Dataset() for _ in range(4))
    direction.ImageOrientationPatient, pixel.PixelSpacing = (
        data.ImageOrientationPatient,
        data.PixelSpacing,
    )
    position.ImagePositionPatient = data.ImagePositionPatient
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [direction], [pixel]
    groups = []
    for phase in range(PHASES):
        group, beat = Dataset(), Dataset()
        beat.NominalCardiacTriggerDelayTime = 10.0 + 80 * phase
        group.CardiacSynchronizationSequence, group.PlanePositionSequence = [beat], [position]
        groups.append(group)
    for name in ("ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing", "TriggerTime"):
        delattr(data, name)
    data.SharedFunctionalGroupsSequence, data.PerFrameFunctionalGroupsSequence = [shared], groups
    return data


def enhanced_seed(base: Seed) -> Seed:
    def put(
        label: str, allowed: frozenset[str] | None, *changes: Callable[[Dataset], object]
    ) -> Field:
        def make(files: Files, rng: np.random.Generator) -> Files:
            change, out = changes[rng.integers(len(changes))], {}
            for name, body in files.items():
                data = pydicom.dcmread(io.BytesIO(body))
                change(data)
                out[name] = stored(data, ImplicitVRLittleEndian)
            return out

        return Field(label, make, allowed)

    def every(name: str, value: object) -> Callable[[Dataset], object]:
        return lambda data: setattr(data, name, value)

    def each(name: str, value: object) -> Callable[[Dataset], object]:
        return lambda data: [
            setattr(group, name, value) for group in data.PerFrameFunctionalGroupsSequence
        ]

    fields = (
        put("as it is", SAME, lambda data: None),
        put(
            "frames",
            REFUSED,
            *(every("NumberOfFrames", n) for n in (999_999_999, PHASES + 1, 0, None)),
        ),
        put(
            "groups",
            REFUSED,
            every("PerFrameFunctionalGroupsSequence", []),
            every("SharedFunctionalGroupsSequence", []),
            each("PlanePositionSequence", []),
        ),
        put("beats", SAME, each("CardiacSynchronizationSequence", [])),
        put("pixels", REFUSED, every("PixelData", bytes(2 * ROWS * COLUMNS * (PHASES - 1)))),
    )
    files = {f"s1/IM{s}.dcm": stored(enhanced(s)) for s in range(SLICES)}
    return replace(base, files=files, fields=fields)
