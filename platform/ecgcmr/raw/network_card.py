"""What a segmentation network expects and gives, as its user states it in a JSON file beside it.

One idea: nothing is guessed. An ONNX file says the sizes of its arrays, not what they mean, and a
network that is shown another orientation, scale or order of labels still answers, wrongly. So every
field must be stated, and what is not known is refused. `docs/formats.md` shows one.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ecgcmr.errors import InputError
from ecgcmr.signals.cmr import PIXEL_MM

FIELDS = ("labels", "layout", "output", "orientation", "spacing_mm", "size", "intensity")
STRUCTURES = ("background", "lv", "myocardium", "rv")
SIDE = (16, 2048)  # pixels of the images that a network reads

Turn = Callable[[np.ndarray], np.ndarray]


def _exchanged(images: np.ndarray) -> np.ndarray:
    return images.swapaxes(-1, -2)


def _rotation(quarters: int) -> Turn:
    return lambda images: np.rot90(images, quarters, (-2, -1))


# From the displayed image to what the network reads, and back; rotations run anticlockwise.
TURNS: dict[str, tuple[Turn, Turn]] = {
    "transpose": (_exchanged, _exchanged),
    "flip rows": (lambda images: images[..., ::-1, :], lambda images: images[..., ::-1, :]),
    "flip columns": (lambda images: images[..., ::-1], lambda images: images[..., ::-1]),
    "rotate 90": (_rotation(1), _rotation(-1)),
    "rotate 180": (_rotation(2), _rotation(2)),
    "rotate 270": (_rotation(-1), _rotation(1)),
}
DISPLAYED = "as displayed"


@dataclass(frozen=True)
class Intensity:
    """How pixels are scaled: `scale` is "percentiles" (to 0 … 1 between two of them), "minmax" (to
    0 … 1), "zscore" or "none"; `over` one "image" or the whole "stack".
    """

    scale: str
    over: str = "image"
    percentiles: tuple[float, float] = (0.0, 100.0)

    def scaled(self, images: np.ndarray) -> np.ndarray:
        """Images (…, height, width) float32, scaled."""
        if self.scale == "none":
            return images
        axes = (-2, -1) if self.over == "image" else tuple(range(images.ndim))
        if self.scale == "zscore":
            middle, spread = images.mean(axes, keepdims=True), images.std(axes, keepdims=True)
            return (images - middle) / np.where(spread > 0, spread, 1)
        ends = np.percentile(images, self.percentiles, axis=axes, keepdims=True)
        low, high = ends.astype(np.float32)
        return (np.clip(images, low, high) - low) / np.where(high > low, high - low, 1)


@dataclass(frozen=True)
class Card:
    """What is stated of a network.

    Attributes:
        numbers: of the classes of background, left cavity, its muscle and the right cavity; the
            last is empty for a network without.
        has_scores: whether it gives a score for each class, (N, K, H, W); else it gives the labels,
            (N, H, W) or (N, 1, H, W).
        turns: names of `TURNS`, from the displayed image to what it reads.
        spacing_mm: of the pixels that it reads; None: as they are.
        size: height and width that it reads, or the number of which both are multiples.
        intensity: how its pixels are scaled.
        stated: the fields as they stand in the file.
    """

    numbers: tuple[tuple[int, ...], ...]
    has_scores: bool
    turns: tuple[str, ...]
    spacing_mm: float | None
    size: tuple[int, int] | int
    intensity: Intensity
    stated: Mapping[str, Any] = field(hash=False)

    @property
    def classes(self) -> list[int]:
        """Every number that is stated, in order."""
        return sorted(number for numbers in self.numbers for number in numbers)

    def to_network(self, images: np.ndarray) -> np.ndarray:
        """Images (…, rows, columns) as displayed, as the network reads them."""
        for name in self.turns:
            images = TURNS[name][0](images)
        return images

    def to_display(self, images: np.ndarray) -> np.ndarray:
        """Images as the network reads them, as displayed."""
        for name in reversed(self.turns):
            images = TURNS[name][1](images)
        return images


def read(file: Path) -> Card:
    """Read the JSON file of a network.

    Raises:
        InputError: it is not there, is no JSON object, leaves a field out, or states what is
            unknown or cannot be.
    """
    stated = _object(file)
    names = {name: f"'{name}'" for name in FIELDS}
    if missing := [names[name] for name in FIELDS if name not in stated]:
        raise _fault(file, missing[0], "is not stated", "state all of " + ", ".join(FIELDS))
    if strange := sorted(set(stated) - set(FIELDS)):
        raise _fault(file, f"'{strange[0]}'", "is no known field", "known: " + ", ".join(FIELDS))
    if stated["layout"] != "NCHW":
        fix = 'networks of one slice are supported, state "NCHW" if (N, 1, height, width) goes in'
        raise _fault(file, "'layout'", f"is {_shown(stated['layout'])}", fix)
    if stated["output"] not in ("scores", "labels"):
        fix = 'state "scores" (one channel a class) or "labels" (their numbers)'
        raise _fault(file, "'output'", f"is {_shown(stated['output'])}", fix)
    return Card(
        numbers=_numbers(file, stated["labels"]),
        has_scores=stated["output"] == "scores",
        turns=_turns(file, stated["orientation"]),
        spacing_mm=_spacing(file, stated["spacing_mm"]),
        size=_size(file, stated["size"]),
        intensity=_intensity(file, stated["intensity"]),
        stated=stated,
    )


def _fault(file: Path, what: str, fact: str, fix: str) -> InputError:
    return InputError(f"{file}: {what} {fact}; {fix}")


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _object(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        fix = "write beside the model what it expects (docs/formats.md, a network of your own)"
        raise _fault(file, "it", "is not there", fix) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = f"cannot be read ({type(error).__name__})"
        raise _fault(file, "it", reason, "write a JSON object in UTF-8") from error
    try:
        stated = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = f"is no JSON ({str(error).splitlines()[0]})"
        raise _fault(file, "it", reason, "write a JSON object") from error
    if not isinstance(stated, dict):
        raise _fault(file, "it", f"is {_shown(stated)}", "write a JSON object")
    return stated


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _numbers(file: Path, stated: Any) -> tuple[tuple[int, ...], ...]:
    fix = 'state numbers by name, as {"background": 0, "lv": 1, "myocardium": 2, "rv": 3}'
    if not isinstance(stated, dict):
        raise _fault(file, "'labels'", f"is {_shown(stated)}", fix)
    if strange := sorted(set(stated) - set(STRUCTURES)):
        known = ", ".join(STRUCTURES)
        fix = f"known: {known}; count other classes to one of them, as [0, 4]"
        raise _fault(file, "'labels'", f"names {_shown(strange[0])}", fix)
    if missing := [name for name in STRUCTURES[:3] if name not in stated]:
        raise _fault(file, "'labels'", f"has no '{missing[0]}'", fix)
    groups = {
        name: tuple(value if isinstance(value, list) else [value]) for name, value in stated.items()
    }
    every = [number for numbers in groups.values() for number in numbers]
    if (
        not all(map(_is_whole, every))
        or not all(groups.values())
        or not all(0 <= number < 256 for number in every)
    ):
        raise _fault(file, "'labels'", f"is {_shown(stated)}", fix)
    if len(set(every)) < len(every):
        raise _fault(file, "'labels'", f"has one number twice: {_shown(stated)}", fix)
    return tuple(groups.get(name, ()) for name in STRUCTURES)


def _turns(file: Path, stated: Any) -> tuple[str, ...]:
    names = stated if isinstance(stated, list) else [stated]
    if names == [DISPLAYED]:
        return ()
    if not names or not all(isinstance(name, str) and name in TURNS for name in names):
        fix = f'state "{DISPLAYED}", or the turns from there: ' + ", ".join(TURNS)
        raise _fault(file, "'orientation'", f"is {_shown(stated)}", fix)
    return tuple(names)


def _spacing(file: Path, stated: Any) -> float | None:
    if stated is None:
        return None
    low, high = PIXEL_MM
    if not (_is_number(stated) and low <= stated <= high):
        fix = f"state {low:g} to {high:g} mm, or null for pixels as they are"
        raise _fault(file, "'spacing_mm'", f"is {_shown(stated)}", fix)
    return float(stated)


def _size(file: Path, stated: Any) -> tuple[int, int] | int:
    low, high = SIDE
    fix = f'state [height, width] of {low} to {high}, or {{"multiple_of": n}}'
    if isinstance(stated, dict) and list(stated) == ["multiple_of"]:
        multiple = stated["multiple_of"]
        if _is_whole(multiple) and 1 <= multiple <= high:
            return int(multiple)
    elif isinstance(stated, list) and len(stated) == 2:
        height, width = stated
        if all(_is_whole(side) and low <= side <= high for side in stated):
            return height, width
    raise _fault(file, "'size'", f"is {_shown(stated)}", fix)


def _intensity(file: Path, stated: Any) -> Intensity:
    fix = (
        'state as {"scale": "percentiles", "percentiles": [1, 99], "over": "image"}; scales: '
        "percentiles, minmax, zscore, none; over: image, stack"
    )
    fault = _fault(file, "'intensity'", f"is {_shown(stated)}", fix)
    if not isinstance(stated, dict) or not isinstance(stated.get("scale"), str):
        raise fault
    fields = {
        "percentiles": {"scale", "percentiles", "over"},
        "minmax": {"scale", "over"},
        "zscore": {"scale", "over"},
        "none": {"scale"},
    }
    if fields.get(stated["scale"]) != set(stated):
        raise fault
    if stated.get("over", "image") not in ("image", "stack"):
        raise fault
    percentiles = stated.get("percentiles", [0, 100])
    if not (isinstance(percentiles, list) and len(percentiles) == 2):
        raise fault
    if not all(map(_is_number, percentiles)) or not 0 <= percentiles[0] < percentiles[1] <= 100:
        raise fault
    low, high = map(float, percentiles)
    return Intensity(stated["scale"], stated.get("over", "image"), (low, high))
