"""A segmentation network that the user brings, over short-axis stacks.

One idea: a network only draws. Its labels go the way of those that lie beside a stack
(`segmentation`): anatomy must bear them out, failed phases are left out, ends of the cycle, the
heart's place and volumes follow by the same rules. A segmentation beside the stack has the last
word, and what a network draws wrongly is left out with a reason, so that the stack goes the
automatic way. ONNX Runtime runs it on one thread, slice by slice and phase by phase; this is the
door to it.
"""

import functools
import hashlib
import importlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from ecgcmr import files
from ecgcmr.errors import Excluded, InputError
from ecgcmr.raw import network_card, segmentation
from ecgcmr.raw.network_card import Card
from ecgcmr.raw.records import CmrRecord
from ecgcmr.raw.segmentation import Segmentation
from ecgcmr.signals import cmr, phenotypes

ENDING = ".onnx"
SOURCE = "model's segmentation"
LEFT_OUT = f"{SOURCE} left out: "
BATCH = 8  # images at once
CAVITY_ML = (10.0, 1000.0)  # of the left ventricle at its largest
TRIAL_SIDE = 128  # pixels about which a network of any size is tried
TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}


@dataclass(frozen=True)
class Network:
    """A network and what is stated of it.

    Attributes:
        file: the ONNX file.
        sha256: of its content.
        card: what its JSON file states.
    """

    file: Path
    sha256: str
    card: Card

    @property
    def identity(self) -> str:
        """What decides its answers, as JSON: the model's checksum and what is stated of it."""
        return json.dumps({"model": self.sha256, **self.card.stated}, sort_keys=True)

    def segmented(self, record: CmrRecord, folder: Path | None = None) -> CmrRecord:
        """A record with the network's segmentation, if none lies beside its stack.

        Args:
            record: as its reader returns it. One that cannot serve comes back as it is.
            folder: where labels are kept for a second reading.
        """
        if record.masks is not None or len(record.frames) < cmr.LEAST_SLICES:
            return record
        upright = cmr.to_view(record)
        try:
            frames, _ = cmr.plausible(upright)
        except Excluded:  # `cmr.prepare` says so
            return record
        spacing_mm = upright.spacing_mm
        draw = functools.partial(self._drawn, frames, spacing_mm[1:])
        try:
            masks = draw() if folder is None else _kept(folder, self._key(upright, frames), draw)
            drawing = _judged(masks, spacing_mm, record.es)
        except Excluded as error:
            return replace(record, repairs=(*record.repairs, f"{LEFT_OUT}{error}"))
        return _with(record, drawing, spacing_mm)

    def _key(self, upright: cmr.Upright, frames: np.ndarray) -> str:
        facts = json.dumps([self.identity, frames.shape, upright.spacing_mm])
        return hashlib.sha256(facts.encode() + frames.tobytes()).hexdigest()

    def _drawn(self, frames: np.ndarray, spacing_mm: tuple[float, float]) -> np.ndarray:
        """Labels like the frames, (slices, phases, height, width) as displayed, uint8.

        Raises:
            Excluded: the network fails on them, or gives no numbers or no known ones.
        """
        card = self.card
        images = card.to_network(card.intensity.scaled(frames))
        sides_mm = spacing_mm
        if card.to_network(np.empty((1, 2))).shape == (2, 1):
            sides_mm = (spacing_mm[1], spacing_mm[0])
        height, width = images.shape[-2:]
        rows = _grid(height, sides_mm[0], card, 0)
        columns = _grid(width, sides_mm[1], card, 1)
        images = images.reshape(-1, height, width)
        run = _runner(str(self.file), self.sha256)
        labels = np.concatenate(
            [
                _labels(images[at : at + BATCH], (rows, columns), run, card)
                for at in range(0, len(images), BATCH)
            ]
        )
        labels = labels.reshape(*frames.shape[:2], height, width)
        return np.ascontiguousarray(card.to_display(labels))


def open_network(file: Path | str) -> Network:
    """A network that reads and gives what its JSON file states.

    Args:
        file: the ONNX file; beside it lies a JSON file of its name.

    Raises:
        InputError: a file is not there or unreadable, ONNX Runtime is not installed, something is
            not stated (see `network_card.read`), or the network contradicts what is stated.
    """
    file = Path(file)
    if file.suffix.lower() != ENDING:
        raise InputError(f"{file}: a network is a file *{ENDING}; name that, not its JSON")
    content = _content(file)
    sha256 = hashlib.sha256(content).hexdigest()
    card = network_card.read(file.with_suffix(".json"))
    session = _session(file, content)
    _check_input(file, session, card)
    _check_output(file, session, card)
    return Network(file, sha256, card)


@functools.lru_cache(maxsize=1)
def of_identity(file: str, identity: str) -> Network:
    """The network that a build was begun with, opened once in a process.

    Raises:
        InputError: see `open_network`; or it is another now.
    """
    network = open_network(file)
    if network.identity != identity:
        raise InputError(f"{file}: it or its JSON changed during the build; keep them as they are")
    return network


# -- the file --------------------------------------------------------------------------------------


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{file}: no such file; name a network as MODEL{ENDING}") from None
    except OSError as error:
        reason = type(error).__name__
        raise InputError(f"{file}: it cannot be read ({reason}); name a file *{ENDING}") from error


def _session(file: Path, content: bytes) -> Any:
    """An ONNX Runtime session on one thread."""
    try:
        runtime = importlib.import_module("onnxruntime")
    except ImportError as error:
        raise InputError(
            f"{file}: a network needs ONNX Runtime, which is not installed: "
            "pip install 'ecgcmr[onnx]'"
        ) from error
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what fails is raised as well
    try:
        return runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no common base
        raise InputError(
            f"{file}: no network that ONNX Runtime can run ({_reason(error)}); export it to one "
            "ONNX file with its weights inside"
        ) from error


def _reason(error: Exception) -> str:
    line = str(error).splitlines()[0] if str(error) else type(error).__name__
    return line if len(line) <= 160 else f"{line[:157]}…"


def _check_input(file: Path, session: Any, card: Card) -> None:
    inputs = session.get_inputs()
    if len(inputs) != 1:
        names = ", ".join(entry.name for entry in inputs)
        raise InputError(f"{file}: {len(inputs)} inputs ({names}); a network reads images alone")
    (entry,) = inputs
    if entry.type not in TYPES:
        raise InputError(
            f"{file}: input '{entry.name}' is {entry.type}; export it to read floating point"
        )
    shape = list(entry.shape)
    if len(shape) != 4 or (_is_fixed(shape[1]) and shape[1] != 1):
        raise InputError(
            f"{file}: input '{entry.name}' has the shape {shape}; (N, 1, height, width) is "
            "supported, one slice of one phase each"
        )
    stated_sides = card.size if isinstance(card.size, tuple) else (None, None)
    fixed = [(side, stated) for side, stated in zip(shape[2:], stated_sides) if _is_fixed(side)]
    if any(side != stated for side, stated in fixed):
        statement = (
            f"{file.with_suffix('.json').name} states 'size' {json.dumps(card.stated['size'])}"
        )
        raise InputError(
            f"{file}: input '{entry.name}' has {shape[2]} x {shape[3]} pixels, {statement}; "
            "state the network's own"
        )


def _is_fixed(side: Any) -> bool:
    """Whether an entry of a network's shape is a number, not a name that stands for any."""
    return isinstance(side, int)


def _trial_sides(card: Card) -> tuple[int, int]:
    if isinstance(card.size, tuple):
        return card.size
    # An odd number of times, which shows a network that wants a larger multiple.
    side = card.size * (round(TRIAL_SIDE / card.size) | 1)
    return side, side


def _check_output(file: Path, session: Any, card: Card) -> None:
    """Run the network once, on a blank image, and look at what it gives."""
    outputs = session.get_outputs()
    if len(outputs) != 1:
        names = ", ".join(entry.name for entry in outputs)
        raise InputError(f"{file}: {len(outputs)} outputs ({names}); export the segmentation alone")
    sides = _trial_sides(card)
    try:
        answer = _run(session, np.zeros((1, *sides), np.float32))
    except Exception as error:
        raise InputError(
            f"{file}: it does not run on {sides[0]} x {sides[1]} pixels ({_reason(error)}); "
            "state its own 'size'"
        ) from error
    statement = file.with_suffix(".json").name
    shapes = [(1, *sides), (1, 1, *sides)]
    if card.has_scores:
        shapes = [(1, len(card.classes), *sides)]
        has_channels = answer.ndim == 4 and answer.shape[2:] == sides
        if has_channels and card.classes != [*range(answer.shape[1])]:
            raise InputError(
                f"{file}: its output has {answer.shape[1]} classes, {statement} states the labels "
                f"{', '.join(map(str, card.classes))}; state 0 to {answer.shape[1] - 1}"
            )
    if answer.shape not in shapes or answer.dtype.kind not in "iuf":
        raise InputError(
            f"{file}: its output has the shape {list(answer.shape)}, {statement} states 'output' "
            f'"{card.stated["output"]}" and so {" or ".join(str(list(shape)) for shape in shapes)}'
        )


@functools.lru_cache(maxsize=1)
def _runner(file: str, sha256: str) -> Callable[[np.ndarray], np.ndarray]:
    """Runs images through the network, whose session is opened once in a process."""
    content = _content(Path(file))
    if hashlib.sha256(content).hexdigest() != sha256:
        raise InputError(f"{file}: it changed while it was used; keep it as it is")
    return functools.partial(_run, _session(Path(file), content))


def _run(session: Any, images: np.ndarray) -> np.ndarray:
    """(n, height, width) through a network; one whose batch is fixed gets blanks at its end."""
    (entry,) = session.get_inputs()
    size = entry.shape[0] if _is_fixed(entry.shape[0]) else len(images)
    images = images[:, None].astype(TYPES[entry.type])
    answers = []
    for at in range(0, len(images), size):
        chunk = images[at : at + size]
        blanks = np.zeros((size - len(chunk), *chunk.shape[1:]), chunk.dtype)
        answers.append(session.run(None, {entry.name: np.concatenate([chunk, blanks])})[0])
    return np.asarray(np.concatenate(answers)[: len(images)])


# -- images there, labels back ---------------------------------------------------------------------


@dataclass(frozen=True)
class Grid:
    """One axis of images: `n` pixels of the file, of which the network's `size` begin at `start`
    and span `length`.
    """

    n: int
    size: int
    start: float
    length: float

    def there(self) -> tuple[slice, np.ndarray]:
        """Weights of the file's pixels for the network's."""
        return cmr.weights(self.n, self.start, self.length, self.size)

    def back(self) -> tuple[slice, np.ndarray]:
        """Weights of the network's pixels for the file's."""
        step = self.length / self.size
        return cmr.weights(self.size, -self.start / step, self.n / step, self.n)


def _grid(n: int, side_mm: float, card: Card, axis: int) -> Grid:
    """The middle of the image, cut or filled up to what the network reads."""
    step = 1.0 if card.spacing_mm is None else card.spacing_mm / side_mm
    if isinstance(card.size, tuple):
        size = card.size[axis]
    else:
        size = card.size * math.ceil(n / step / card.size)
    if size > network_card.SIDE[1]:
        raise Excluded("larger than a network's images")
    start = float(n // 2 - size // 2) if step == 1 else (n - size * step) / 2
    return Grid(n, size, start, size * step)


def _labels(
    images: np.ndarray,
    grids: tuple[Grid, Grid],
    run: Callable[[np.ndarray], np.ndarray],
    card: Card,
) -> np.ndarray:
    """Labels of some images, (n, height, width) each: 0 background, 1 left cavity, 2 muscle, 3
    right cavity.

    Raises:
        Excluded: see `Network._drawn`.
    """
    (row_part, down), (column_part, across) = (grid.there() for grid in grids)
    try:
        answer = run(down @ images[:, row_part, column_part] @ across.T)
    except InputError:
        raise
    except Exception as error:  # of ONNX Runtime, whose errors have no common base
        raise Excluded("the network failed") from error
    if not np.isfinite(answer).all():
        raise Excluded("scores that are no numbers")
    scores = _scores(answer, card)
    (row_part, down), (column_part, across) = (grid.back() for grid in grids)
    return (down @ scores[..., row_part, column_part] @ across.T).argmax(1).astype(np.uint8)


def _scores(answer: np.ndarray, card: Card) -> np.ndarray:
    """(n, 3 or 4, height, width) float32: background, left cavity, muscle and right cavity."""
    groups = [list(numbers) for numbers in card.numbers if numbers]
    if card.has_scores:
        return np.stack([answer[:, numbers].max(1) for numbers in groups], axis=1).astype(
            np.float32
        )
    labels = answer.reshape(len(answer), *answer.shape[-2:])
    if not np.isin(labels, card.classes).all():
        raise Excluded("labels that are not stated")
    return np.stack([np.isin(labels, numbers) for numbers in groups], axis=1).astype(np.float32)


def _kept(folder: Path, key: str, draw: Callable[[], np.ndarray]) -> np.ndarray:
    """Labels that were drawn before, else draw and keep them."""
    file = folder / f"{key}.npz"
    if file.exists():
        with np.load(file) as archive:
            return np.asarray(archive["masks"])
    masks = draw()

    def write(aside: Path) -> None:
        with aside.open("wb") as stream:
            np.savez_compressed(stream, masks=masks)

    files.write_whole(file, write)
    return masks


# -- judging ---------------------------------------------------------------------------------------


def _judged(
    masks: np.ndarray, spacing_mm: tuple[float, float, float], es: int | None
) -> Segmentation:
    """What the network's labels give, if they can be a heart's.

    Args:
        masks: (slices, phases, height, width) as displayed.
        spacing_mm: of slices, rows and columns.
        es: the phase of end-systole where the stack is the two ends of the cycle, ED first.

    Raises:
        Excluded: they cannot.
    """
    masks = np.stack([_largest(masks[:, t]) for t in range(masks.shape[1])], axis=1)
    cavity = (masks == phenotypes.CAVITY).sum((0, 2, 3))
    if cavity.max() < cmr.LEAST_BLOOD:
        raise Excluded("no cavity of the left ventricle")
    millilitres = float(cavity.max()) * float(np.prod(spacing_mm)) / 1000
    if not CAVITY_ML[0] <= millilitres <= CAVITY_ML[1]:
        low, high = CAVITY_ML
        raise Excluded(f"a left ventricle of less than {low:g} or more than {high:,.0f} mL")
    order = phenotypes.label_order(masks)
    if order is None or order[:2] != (phenotypes.CAVITY, phenotypes.MUSCLE):
        raise Excluded("muscle does not enclose the left ventricle's cavity")
    if es is None:
        return segmentation.of_whole(masks, masks.shape[1])
    return segmentation.of_ends(masks[:, 0], masks[:, es], (0, es, masks.shape[1]), ())


def _largest(labels: np.ndarray) -> np.ndarray:
    """Labels of one phase, (slices, height, width), in their largest connected part alone."""
    parts, count = ndimage.label(labels > 0, structure=np.ones((3, 3, 3)))
    if count < 2:
        return labels
    sizes = np.bincount(parts.ravel())[1:]
    return np.where(parts == 1 + int(sizes.argmax()), labels, np.uint8(0))


def _with(
    record: CmrRecord, drawing: Segmentation, spacing_mm: tuple[float, float, float]
) -> CmrRecord:
    """A record with a segmentation that is drawn as displayed, and its volumes."""
    assert drawing.masks is not None
    measures: dict[str, float] = {}
    if drawing.ed is not None:
        measures = phenotypes.measure(
            drawing.ed,
            drawing.es,
            spacing_mm,
            heart_rate=phenotypes.heart_rate(record.trigger_ms),
            from_apex=segmentation.seen_from_apex(record.axes),
        )
    words = drawing.words if measures else (*drawing.words, f"no volumes from the {SOURCE}")
    if record.axes is None:
        words = (*words, "orientation not known: the model read the images as the file has them")
    return replace(
        record,
        masks=cmr.from_view(drawing.masks, cmr.order_of(record)),
        masked=drawing.masked,
        masks_from=SOURCE,
        labels={**measures, **record.labels},
        repairs=(*record.repairs, *words),
    )
