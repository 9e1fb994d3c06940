"""What an answer is about and how it is evaluated: three diseases and 61 CMR phenotypes in five
groups.

Any other 0/1 column of a cohort (a SNOMED CT or SCP diagnosis, a column of the user's own labels)
is a task too: `of`.
"""

from dataclasses import dataclass

from ecgcmr import plugins
from ecgcmr.errors import unknown

SEGMENTS = (
    *(f"AHA_{i}" for i in range(1, 17)),
    "Global",
)  # 16 segments and their mean: ukbb_cardiac's "17"

# Units as Bai et al. 2020 publish them. The paper prints strain in mm; strain is a ratio, in %.
UNITS: dict[str, str] = {
    **dict.fromkeys(("LVEDV", "LVESV", "LVSV", "RVEDV", "RVESV", "RVSV"), "mL"),
    **dict.fromkeys(("LVEF", "RVEF"), "%"),
    "LVCO": "L/min",
    "LVM": "g",
    **{f"WT_{segment}": "mm" for segment in SEGMENTS},
    **{f"Ecc_{segment}": "%" for segment in SEGMENTS},
    **{f"Err_{segment}": "%" for segment in SEGMENTS},
}

PHENOTYPES: tuple[str, ...] = (
    *("LVEDV", "LVESV", "LVSV", "LVEF", "LVCO", "LVM"),
    *("RVEDV", "RVESV", "RVSV", "RVEF"),
    *(f"WT_{segment}" for segment in SEGMENTS),
    *(f"Ecc_{segment}" for segment in SEGMENTS),
    *(f"Err_{segment}" for segment in SEGMENTS),
)

_VOLUME, _WALL, _ECC, _ERR = (
    (0, 1000, 5, 800),
    (0, 60, 1.5, 40),
    (-100, 100, -70, -1.5),
    (-100, 300, 2, 200),
)

# A value lies between the first two, or its segmentation failed (ukbb_cardiac then writes volumes
# of 0 and RVEF of -inf). A median lies between the last two, or the column is in another unit:
# litres, fractions, cm, strain without its sign.
LIMITS: dict[str, tuple[float, float, float, float]] = {
    **dict.fromkeys(("LVEDV", "LVESV", "LVSV", "RVEDV", "RVESV", "RVSV"), _VOLUME),
    **dict.fromkeys(("LVEF", "RVEF"), (0, 100, 3, 98)),
    "LVCO": (0, 40, 0.3, 25),
    "LVM": (0, 1000, 5, 800),
    **{f"WT_{segment}": _WALL for segment in SEGMENTS},
    **{f"Ecc_{segment}": _ECC for segment in SEGMENTS},
    **{f"Err_{segment}": _ERR for segment in SEGMENTS},
}

DISEASES = ("cad", "af", "dm")  # ICD-10 I20-I25, I48, E10-E14 (paper, section IV-B)

PREVALENCE = {"cad": 0.0722, "af": 0.0298, "dm": 0.0446}  # paper, section IV-B


@dataclass(frozen=True)
class Task:
    """A question put to an encoder.

    Attributes:
        name: the word in paths, commands and tables.
        title: what a reader sees.
        kind: "binary" (cross-entropy over two classes, AUROC) or "regression" (squared error,
            Pearson's r).
        columns: the cohort's label columns, in the order of the outputs.
    """

    name: str
    title: str
    kind: str
    columns: tuple[str, ...]

    @property
    def outputs(self) -> int:
        """Width of the head: two classes, or one number per phenotype."""
        return 2 if self.kind == "binary" else len(self.columns)

    @property
    def metric(self) -> str:
        """The validation metric that stops training and selects the best configuration (larger is
        better).
        """
        return "auroc" if self.kind == "binary" else "pearson"


def _group(name: str, title: str) -> Task:
    columns = tuple(
        p
        for p in PHENOTYPES
        if (p.startswith(name) if name in ("LV", "RV") else p.startswith(name + "_"))
    )
    return Task(name.lower(), title, "regression", columns)


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task("cad", "Coronary artery disease", "binary", ("cad",)),
        Task("af", "Atrial fibrillation", "binary", ("af",)),
        Task("dm", "Diabetes mellitus", "binary", ("dm",)),
        _group("LV", "Left ventricle"),
        _group("RV", "Right ventricle"),
        _group("WT", "Wall thickness"),
        _group("Ecc", "Circumferential strain"),
        _group("Err", "Radial strain"),
    )
}


def register(task: Task) -> None:
    """Add a task, from a plugin.

    Raises:
        InputError: the name is taken.
    """
    plugins.register(TASKS, "task", task.name, task)


def of(name: str, columns: tuple[str, ...] = ()) -> Task:
    """The task of that name; a 0/1 column of the cohort at hand is one as well.

    Raises:
        InputError: neither a task nor one of `columns`.
    """
    if name in TASKS:
        return TASKS[name]
    if name in columns:
        return Task(name, name, "binary", (name,))
    raise unknown("task", name, {*TASKS, *columns})
