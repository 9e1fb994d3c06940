"""Which NIfTI files of a folder show one heart, by their names: cines, stills of end-diastole and
end-systole, and segmentations of either.

One idea: a name is words. Those that say "segmentation", "still" or "cine" are set aside, and files
with the same words left are one heart's: `sa` and `seg_sa_ED` (ukbb_cardiac), `A0S9V9_sa` and
`A0S9V9_sa_gt` (M&Ms), `001_SA_CINE` and `001_SA_ES_gt` (M&Ms-2), `patient001_4d` and
`patient001_frame12_gt` (ACDC). What a file holds is not looked at.
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ENDINGS = (".nii.gz", ".nii")
# "segmented" is none of them: UK Biobank's cines are called CINE_segmented_SAX, by how they were
# acquired.
DRAWN = re.compile(r"gt|seg|segs|segmentations?|groundtruth|labels?\w*|masks?\w*|pred|prediction")
STILL = re.compile(r"ed|es|frame\d+")
CINE = re.compile(r"cine|4d")
# ukbb_cardiac's other views of the person whose short axis is called `sa`.
OTHER_VIEWS = re.compile(r"la|ao")


@dataclass(frozen=True)
class Name:
    """What a file's name says.

    Attributes:
        file: its path.
        heart: the folder and the words that say whose it is.
        still: "ed", "es", "frame12" or, of a cycle, "".
        is_drawing: whether it is a segmentation.
    """

    file: Path
    heart: tuple[Path, tuple[str, ...]]
    still: str
    is_drawing: bool


def name(file: Path) -> Name:
    """Take a file's name apart."""
    words = [word for word in re.split(r"[\W_]+", stem(file).lower()) if word]
    still = next((word for word in words if STILL.fullmatch(word)), "")
    heart = tuple(
        word for word in words if not any(p.fullmatch(word) for p in (DRAWN, STILL, CINE))
    )
    return Name(file, (file.parent, heart), still, any(map(DRAWN.fullmatch, words)))


def stacks(files: Iterable[Path]) -> list[Path]:
    """One file for each heart, and whatever belongs to none: a segmentation or a still without its
    cine is listed, to be refused and counted.

    Of stills alone, end-diastole stands for both ends. Other views beside a file called `sa` are
    left out.
    """
    hearts: dict[tuple[Path, tuple[str, ...]], list[Name]] = defaultdict(list)
    for file in files:
        hearts[name(file).heart].append(name(file))
    out = []
    for (folder, words), names in hearts.items():
        if words and OTHER_VIEWS.fullmatch(words[0]) and (folder, ("sa",)) in hearts:
            continue
        out += [entry.file for entry in _leading(names)]
    return sorted(out)


def companions(file: Path) -> list[Name]:
    """The other files of a heart, in order."""
    heart = name(file).heart
    names = (name(path) for path in sorted(file.parent.iterdir()) if is_nifti(path))
    return [entry for entry in names if entry.heart == heart and entry.file != file]


def is_nifti(file: Path) -> bool:
    """Whether a file is named as NIfTI."""
    return file.name.lower().endswith(ENDINGS)


def key(file: Path) -> str:
    """The file's stem, or the folder's name for a file that is called `sa` in every folder."""
    return file.parent.name if stem(file) in ("sa", "sa_ED") else stem(file).removesuffix("_ED")


def stem(file: Path) -> str:
    """The name without its ending."""
    return re.sub(r"(?i)\.nii(\.gz)?$", "", file.name)


def _leading(names: list[Name]) -> list[Name]:
    """The files of a heart that are read as stacks; what lies beside them is read with them."""
    images = [entry for entry in names if not entry.is_drawing]
    cines = [entry for entry in images if not entry.still]
    ends = {entry.still: entry for entry in images}
    if cines:
        return cines
    if "ed" in ends and "es" in ends:
        return [ends["ed"], *(entry for entry in images if entry.still not in ("ed", "es"))]
    return images or names
