"""What the paper reports: the systems and numbers of its tables, and its claims as contrasts that
runs can decide.

Facts of Turgut et al. 2023 (arXiv:2308.05764) and nothing else: no run, no file and no statistic is
touched here. A system is a trial's, so a new system shows up in a table by one line here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ecgcmr import tasks

GROUPS = ("lv", "rv", "wt", "ecc", "err")  # of the 61 phenotypes, Table IV
# Of the five runs of every best configuration, over which the tables have mean and standard
# deviation (section IV-D.2); the numbers are the authors' (oetu/mae bash_scripts/finetune_ecg.sh).
SEEDS = (0, 101, 202, 303, 404)
FRACTIONS = (1.0, 0.1, 0.01)  # shares of the labels, section V-D
SHORT = {
    "cad": "CAD",
    "af": "AF",
    "dm": "DM",
    "lv": "LV",
    "rv": "RV",
    "wt": "WT",
    "ecc": "Ecc",
    "err": "Err",
}
METRICS = {
    "auroc": ("ROC AUC [%]", 100.0),
    "pearson": ("Pearson's r", 1.0),
}  # how the tables print a metric: unit, factor


@dataclass(frozen=True)
class System:
    """One line of a table.

    Attributes:
        name: the trial's `system`.
        title: what a reader sees.
        modality: what it reads.
        mdm, mmcl: which pre-training it had; None: not of that scheme.
        reference: shown beside the others and not ranked among them.
    """

    name: str
    title: str
    modality: str = "ECG"
    mdm: bool | None = None
    mmcl: bool | None = None
    reference: bool = False


@dataclass(frozen=True)
class Layout:
    """One table of the paper.

    Attributes:
        stem: "table1" … "table5", the stem of its files.
        title: `Table I. …`.
        systems, tasks: its lines, and the names of the tasks in its columns.
        proposed_system: name of the system that the others are compared with.
        numbers: the paper's (mean, sd) by (system, task); sd None where the paper prints none.
    """

    stem: str
    title: str
    systems: tuple[System, ...]
    tasks: tuple[str, ...]
    proposed_system: str
    numbers: Mapping[tuple[str, str], tuple[float, float | None]] = field(default_factory=dict)


def _numbers(
    columns: tuple[str, ...], lines: Mapping[str, tuple[tuple[float, float | None], ...]]
) -> dict[tuple[str, str], tuple[float, float | None]]:
    return {
        (system, task): pair
        for system, pairs in lines.items()
        for task, pair in zip(columns, pairs, strict=True)
    }


_ECG = {  # ROC AUC [%] on 6,007 subjects of the UK Biobank, Tables I to III
    "supervised": ((66.90, 0.47), (69.76, 2.13), (67.35, 0.76)),
    "simclr": ((66.03, 0.99), (67.95, 0.59), (68.73, 0.47)),
    "clocs": ((67.30, 0.46), (67.33, 0.32), (68.68, 0.37)),
    "byol": ((67.59, 0.28), (69.76, 0.52), (67.70, 0.26)),
    "barlow-twins": ((68.11, 0.54), (67.42, 0.72), (69.58, 0.02)),
    "mae": ((71.71, 0.36), (72.32, 0.73), (73.15, 0.39)),
    "mmcl-wo-mdm": ((70.36, 0.51), (72.41, 0.52), (73.40, 0.48)),
    "mmcl": ((73.00, 0.30), (74.11, 0.53), (75.56, 0.16)),
}
_OTHERS = {
    "xgboost": ((71.97, 0.14), (72.22, 0.00), (72.53, 0.15)),
    "cmr-supervised": ((71.88, 0.64), (73.11, 0.64), (74.24, 0.50)),
    "cmr-mmcl-wo-mdm": ((74.69, 0.23), (77.36, 0.62), (77.37, 0.42)),
    "cmr-mmcl": ((74.37, 0.69), (77.13, 0.42), (77.82, 0.26)),
}
_PHENOTYPES = {  # mean of Pearson's r over the phenotypes of a group, Table IV
    "supervised": (0.56, 0.58, 0.54, 0.29, 0.30),
    "mae": (0.62, 0.64, 0.60, 0.36, 0.36),
    "mmcl-wo-mdm": (0.58, 0.60, 0.57, 0.32, 0.33),
    "mmcl": (0.63, 0.65, 0.61, 0.37, 0.38),
    "cmr-supervised": (0.84, 0.85, 0.78, 0.64, 0.66),
}
_DISEASES = _numbers(tasks.DISEASES, {**_ECG, **_OTHERS})

ABLATION = (
    System("supervised", "Supervised ViT", mdm=False, mmcl=False),
    System("mae", "MDM", mdm=True, mmcl=False),
    System("mmcl-wo-mdm", "MMCL w/o MDM", mdm=False, mmcl=True),
    System("mmcl", "MMCL", mdm=True, mmcl=True),
)

LAYOUTS = {
    layout.stem: layout
    for layout in (
        Layout(
            "table1",
            "Table I. Diagnostic modalities.",
            (
                System("supervised", "ECG"),
                System("xgboost", "Tabular", "Tabular"),
                System("cmr-supervised", "CMR", "CMR"),
                System("mmcl", "ECG (MMCL)"),
            ),
            tasks.DISEASES,
            "mmcl",
            _DISEASES,
        ),
        Layout(
            "table2",
            "Table II. Pre-training strategies for the ECG.",
            (
                System("supervised", "Supervised ViT"),
                System("simclr", "SimCLR"),
                System("clocs", "CLOCS"),
                System("byol", "BYOL"),
                System("barlow-twins", "Barlow Twins"),
                System("mae", "MAE"),
                System("mmcl", "MMCL"),
            ),
            tasks.DISEASES,
            "mmcl",
            _DISEASES,
        ),
        Layout(
            "table3",
            "Table III. Ablation: masked data modelling and multimodal contrastive learning.",
            ABLATION,
            tasks.DISEASES,
            "mmcl",
            _DISEASES,
        ),
        Layout(
            "table4",
            "Table IV. CMR phenotypes from the ECG.",
            (*ABLATION, System("cmr-supervised", "CMR (reference)", "CMR", False, False, True)),
            GROUPS,
            "mmcl",
            _numbers(
                GROUPS,
                {system: tuple((r, None) for r in line) for system, line in _PHENOTYPES.items()},
            ),
        ),
        Layout(
            "table5",
            "Table V. Diseases from the CMR image.",
            (
                System("cmr-supervised", "Supervised ResNet", "CMR", False, False),
                System("cmr-mmcl-wo-mdm", "MMCL w/o MDM", "CMR", False, True),
                System("cmr-mmcl", "MMCL", "CMR", True, True),
            ),
            tasks.DISEASES,
            "cmr-mmcl",
            _DISEASES,
        ),
    )
}

# Figure 5 shows every ECG system at every share of the labels.
LOW_LABEL = (*LAYOUTS["table2"].systems[:-1], ABLATION[2], ABLATION[3])

TITLES = {  # in the order of lists that hold them all
    **{system.name: system.title for system in LOW_LABEL},
    "mae": "MAE",
    "xgboost": "XGBoost (tabular)",
    "cmr-supervised": "Supervised ResNet (CMR)",
    "cmr-mmcl-wo-mdm": "MMCL w/o MDM (CMR)",
    "cmr-mmcl": "MMCL (CMR)",
}


# -- claims ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Contrast:
    """One comparison: `better` minus `worse` on a task, at a share of the labels."""

    better: str
    worse: str
    task: str
    label_fraction: float = 1.0


@dataclass(frozen=True)
class Claim:
    """One sentence of the paper, and the contrasts that it states, all of which have to come out.

    Attributes:
        section: where the paper says so.
        text: the sentence, short.
        contrasts: what it states; none for a claim that is judged by eye.
        margin: by how much (in the metric's unit, 0.01 of AUROC is one point) `better` may fall
            short: 0 for a claim of superiority, more for one that two systems are on par.
    """

    section: str
    text: str
    contrasts: tuple[Contrast, ...]
    margin: float = 0.0


def _over(
    better: str, worse: tuple[str, ...], names: tuple[str, ...], label_fraction: float = 1.0
) -> tuple[Contrast, ...]:
    return tuple(Contrast(better, rival, task, label_fraction) for rival in worse for task in names)


_D = tasks.DISEASES
_BASELINES = ("supervised", "simclr", "clocs", "byol", "barlow-twins")

CLAIMS = (
    Claim("V-A", "MMCL's ECG outperforms the supervised ECG", _over("mmcl", ("supervised",), _D)),
    Claim("V-A", "MMCL's ECG outperforms tabular data", _over("mmcl", ("xgboost",), _D)),
    Claim("V-A", "MMCL's ECG outperforms the CMR image", _over("mmcl", ("cmr-supervised",), _D)),
    Claim(
        "V-A",
        "The CMR image outperforms the supervised ECG",
        _over("cmr-supervised", ("supervised",), _D),
    ),
    Claim(
        "V-A",
        "The CMR image outperforms tabular data for AF and DM",
        _over("cmr-supervised", ("xgboost",), ("af", "dm")),
    ),
    Claim(
        "V-A",
        "The CMR image is on par with tabular data for CAD (within one point)",
        (
            Contrast("cmr-supervised", "xgboost", "cad"),
            Contrast("xgboost", "cmr-supervised", "cad"),
        ),
        margin=0.01,
    ),
    Claim("V-B", "MAE is the best unimodal pre-training of the ECG", _over("mae", _BASELINES, _D)),
    Claim(
        "V-B",
        "MMCL outperforms every other way of training the ECG",
        _over("mmcl", (*_BASELINES, "mae"), _D),
    ),
    Claim(
        "V-B",
        "MMCL without MDM outperforms the supervised ViT",
        _over("mmcl-wo-mdm", ("supervised",), _D),
    ),
    Claim(
        "V-B",
        "MMCL without MDM outperforms MDM for AF and DM",
        _over("mmcl-wo-mdm", ("mae",), ("af", "dm")),
    ),
    Claim(
        "V-B",
        "MMCL without MDM is inferior to MDM for CAD",
        _over("mae", ("mmcl-wo-mdm",), ("cad",)),
    ),
    Claim("V-B", "MDM improves MMCL", _over("mmcl", ("mmcl-wo-mdm",), _D)),
    Claim(
        "V-C",
        "MDM encodes phenotypes better than supervision",
        _over("mae", ("supervised",), GROUPS),
    ),
    Claim(
        "V-C",
        "MDM encodes phenotypes better than MMCL without MDM",
        _over("mae", ("mmcl-wo-mdm",), GROUPS),
    ),
    Claim(
        "V-C",
        "MMCL encodes phenotypes best of the ECG systems",
        _over("mmcl", ("supervised", "mae", "mmcl-wo-mdm"), GROUPS),
    ),
    Claim(
        "V-C",
        "Phenotypes from the CMR image itself top the list",
        _over("cmr-supervised", ("supervised", "mae", "mmcl-wo-mdm", "mmcl"), GROUPS),
    ),
    Claim(
        "V-D",
        "With 10 % of the labels MMCL outperforms all baselines",
        _over("mmcl", (*_BASELINES, "mae", "mmcl-wo-mdm"), _D, 0.1),
    ),
    Claim(
        "V-D",
        "With 1 % of the labels MMCL outperforms all baselines, but MMCL without MDM for CAD",
        (
            *_over("mmcl", (*_BASELINES, "mae"), _D, 0.01),
            *_over("mmcl", ("mmcl-wo-mdm",), ("af", "dm"), 0.01),
        ),
    ),
    Claim(
        "V-D",
        "With 1 % of the labels MMCL is inferior to MMCL without MDM for CAD",
        _over("mmcl-wo-mdm", ("mmcl",), ("cad",), 0.01),
    ),
    Claim("V-E", "With MDM, ECG and image agree most in the left ventricle (Figure 6)", ()),
    Claim(
        "V-F",
        "MMCL improves the CMR image's own predictions",
        _over("cmr-mmcl", ("cmr-supervised",), _D)
        + _over("cmr-mmcl-wo-mdm", ("cmr-supervised",), _D),
    ),
    Claim(
        "V-F",
        "MDM is not needed for image embeddings (within one point)",
        _over("cmr-mmcl-wo-mdm", ("cmr-mmcl",), _D),
        margin=0.01,
    ),
)
