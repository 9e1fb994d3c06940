"""The whole study as a list of trials: every system, task and share of the labels of the paper,
at a scale.

The one idea: a scale says how large things are (network, batch, epochs, rates, grids), this file
says which things run, so `toy`, `small` and `full` differ in numbers only. A fine-tuning may start
from a *sweep* of pre-trainings; `resolved` then names the one of least validation loss. With
several seeds of pre-training, `over_pretrainings` says which evaluation starts from which. Nothing
here runs anything.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ecgcmr import paper, tasks
from ecgcmr.errors import InputError, unknown
from ecgcmr.evaluation import selection
from ecgcmr.nn import Network
from ecgcmr.trial import RENAMED, Trial

Grid = Mapping[str, Sequence[float]]

PAPER_GRID: Grid = {  # section IV-C.2: 3 · 2 · 3 · 3 · 3 · 4 = 648 configurations
    "batch": (8, 16, 32),
    "layer_decay": (0.5, 0.75),
    "drop_path": (0.0, 0.1, 0.2),
    "label_smoothing": (0.0, 0.1, 0.2),
    "weight_decay": (0.0, 0.1, 0.2),
    "lr": (1e-6, 3e-6, 1e-5, 3e-5),
}
# Label smoothing has no meaning for numbers: 216 configurations.
PHENOTYPE_GRID: Grid = {
    name: values for name, values in PAPER_GRID.items() if name != "label_smoothing"
}
# The text gives no grid for the image encoder. It has neither drop path nor layer decay; the rates
# are ours.
IMAGE_GRID: Grid = {
    "batch": (8, 16, 32),
    "label_smoothing": (0.0, 0.1, 0.2),
    "weight_decay": (0.0, 0.1, 0.2),
    "lr": (1e-5, 3e-5, 1e-4, 3e-4),
}
TREE_GRID: Grid = {  # section IV-D.1: 5 · 6 · 3 · 3 = 270 configurations
    "rounds": (50, 75, 100, 125, 150),
    "max_depth": (3, 4, 5, 6, 7, 8),
    "lr": (0.1, 0.2, 0.3),
    "subsample": (0.5, 0.75, 1.0),
}
RATES = (3e-5, 1e-4, 3e-4, 1e-3)  # of MMCL's sweep, section IV-C.2


@dataclass(frozen=True)
class Pretraining:
    """What a pre-training is: its modality (the trial's task), its method,
    and whose encoders it starts from.
    """

    task: str
    method: str
    init_from: Mapping[str, str] = field(default_factory=dict)


PRETRAININGS: dict[str, Pretraining] = {
    "mae": Pretraining("ecg", "mae"),
    "simclr": Pretraining("ecg", "simclr"),
    "clocs": Pretraining("ecg", "clocs"),
    "byol": Pretraining("ecg", "byol"),
    "barlow-twins": Pretraining("ecg", "barlow_twins"),
    "cmr-simclr": Pretraining("cmr", "simclr"),
    "mmcl": Pretraining("ecg+cmr", "mmcl", {"ecg": "mae", "cmr": "cmr-simclr"}),
    "mmcl-wo-mdm": Pretraining("ecg+cmr", "mmcl", {"cmr": "cmr-simclr"}),
}

# Fine-tuned system -> (modality, pre-trained system that it starts from, if any).
FINETUNED: dict[str, tuple[str, str]] = {
    "supervised": ("ecg", ""),
    **{
        system: ("ecg", system)
        for system in ("simclr", "clocs", "byol", "barlow-twins", "mae", "mmcl-wo-mdm", "mmcl")
    },
    "cmr-supervised": ("cmr", ""),
    "cmr-mmcl-wo-mdm": ("cmr", "mmcl-wo-mdm"),
    "cmr-mmcl": ("cmr", "mmcl"),
}
TREES = "xgboost"

# What of the study each table or figure needs: (systems, tasks, shares of the labels).
PARTS: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[float, ...]]] = {
    **{
        stem: (tuple(system.name for system in layout.systems), layout.tasks, (1.0,))
        for stem, layout in paper.LAYOUTS.items()
    },
    "figure5": (tuple(system.name for system in paper.LOW_LABEL), tasks.DISEASES, paper.FRACTIONS),
}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one kind of run is trained: its batch, its length, its rate and other knobs.

    Several rates are a sweep.
    """

    batch: int
    epochs: int
    rates: tuple[float, ...] = ()
    eval_every: int = 1
    knobs: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, kw_only=True)
class StudyScale:
    """How large the study is.

    Attributes:
        space: name of the search space, the first folder of its runs.
        preset: "paper" or "authors".
        network: every size that fixes a shape.
        pretraining: a recipe for every system of PRETRAININGS.
        disease, phenotype, image: recipes of fine-tuning: the ECG encoder on either kind of task,
            and the image encoder.
        grid, phenotype_grid, image_grid: the configurations tried for each of these.
        trees: the configurations of XGBoost.
    """

    space: str
    preset: str = "paper"
    network: Network = field(default_factory=Network)
    pretraining: Mapping[str, Recipe]
    disease: Recipe
    phenotype: Recipe
    image: Recipe
    grid: Grid = field(default_factory=lambda: PAPER_GRID)
    phenotype_grid: Grid = field(default_factory=lambda: PHENOTYPE_GRID)
    image_grid: Grid = field(default_factory=lambda: IMAGE_GRID)
    trees: Grid = field(default_factory=lambda: TREE_GRID)


def trials(scale: StudyScale, *parts: str) -> list[Trial]:
    """Every trial that tables and figures need, each once: pre-trainings first, then the grids.

    Args:
        scale: how large.
        parts: of PARTS; by default all of them.

    Raises:
        InputError: no such part.
    """
    for part in parts:
        if part not in PARTS:
            raise unknown("part of the study", part, PARTS)
    contents = [PARTS[part] for part in parts or PARTS]
    systems = {system for systems, _, _ in contents for system in systems}
    grids = [trial for part in contents for trial in _grids(scale, *part)]
    return list(dict.fromkeys([*_pretrainings(scale, systems), *grids]))


def _pretrainings(scale: StudyScale, systems: Iterable[str]) -> list[Trial]:
    """The pre-trainings that these systems start from, and those that they start from in turn."""
    sources = {FINETUNED[system][1] for system in systems if system in FINETUNED} - {""}
    sources |= {start for system in sources for start in PRETRAININGS[system].init_from.values()}
    return [
        trial for system in PRETRAININGS if system in sources for trial in _sweep(scale, system)
    ]


def _sweep(scale: StudyScale, system: str) -> list[Trial]:
    """One pre-training, once per rate."""
    kind, recipe = PRETRAININGS[system], scale.pretraining[system]
    init_from = tuple((part, _start(scale, start)) for part, start in kind.init_from.items())
    modality = kind.task if kind.task in ("ecg", "cmr") else "ecg"
    return [
        Trial(
            space=scale.space,
            stage="pretrain",
            task=kind.task,
            system=system,
            method=kind.method,
            init_from=init_from,
            modality=modality,
            preset=scale.preset,
            network=scale.network,
            batch=recipe.batch,
            epochs=recipe.epochs,
            eval_every=recipe.eval_every,
            knobs=(("lr", rate), *recipe.knobs),
        )
        for rate in recipe.rates
    ]


def _start(scale: StudyScale, system: str) -> str:
    """The name that a start is given: the pre-training's own, or the folder of its sweep."""
    sweep = _sweep(scale, system)
    return sweep[0].name if len(sweep) == 1 else sweep[0].system_folder


def _grids(
    scale: StudyScale, systems: Iterable[str], names: Iterable[str], fractions: Iterable[float]
) -> list[Trial]:
    """Every configuration for every system, task and share of the labels."""
    configurations = []
    for system, name, label_fraction in itertools.product(systems, names, fractions):
        fields: dict[str, Any] = {"preset": scale.preset, "label_fraction": label_fraction}
        if system == TREES:
            fields |= {"method": TREES, "modality": "tabular", "batch": 0, "epochs": 1}
            configurations += finetuning(scale.space, [name], {system: ()}, scale.trees, **fields)
            continue
        modality, start = FINETUNED[system]
        recipe, grid = _kind(scale, modality, name)
        fields |= {
            "modality": modality,
            "network": scale.network,
            "batch": recipe.batch,
            "epochs": recipe.epochs,
            "eval_every": recipe.eval_every,
        }
        init_from = ((modality, _start(scale, start)),) if start else ()
        fields["fixed"] = recipe.knobs
        configurations += finetuning(scale.space, [name], {system: init_from}, grid, **fields)
    return configurations


def _kind(scale: StudyScale, modality: str, name: str) -> tuple[Recipe, Grid]:
    binary = tasks.TASKS[name].kind == "binary"
    if modality == "cmr":
        grid = dict(scale.image_grid)
        if not binary:  # label smoothing has no meaning for numbers
            grid.pop("label_smoothing", None)
        return scale.image, grid
    return (scale.disease, scale.grid) if binary else (scale.phenotype, scale.phenotype_grid)


def finetuning(
    space: str,
    tasks: Iterable[str],
    init_from: Mapping[str, tuple[tuple[str, str], ...]],
    grid: Grid,
    *,
    fixed: tuple[tuple[str, float], ...] = (),
    **fields: Any,
) -> list[Trial]:
    """Every configuration of a grid for every task and system.

    Args:
        space: the search space's name.
        tasks: names of tasks or label columns.
        init_from: system -> what its encoder starts from; () is the supervised baseline.
        grid: values per knob; the words `batch` and `label_fraction` set the trial's fields.
        fixed: knobs that every configuration has.
        fields: the other fields of every trial.

    Raises:
        InputError: the grid uses a word that was renamed.
    """
    if "take" in grid:
        raise InputError(f"grid of '{space}': 'take' is called '{RENAMED['take']}' now; rename it")
    configurations = []
    for task, (system, start), values in itertools.product(
        tasks, init_from.items(), itertools.product(*grid.values())
    ):
        knobs = dict(zip(grid, values))
        of_configuration: dict[str, Any] = {
            name: knobs.pop(name) for name in ("batch", "label_fraction") if name in knobs
        }
        rest: dict[str, Any] = {"method": "supervised", **fields, **of_configuration}
        rest["knobs"] = (*knobs.items(), *fixed)
        configuration = Trial(
            space=space, stage="grid", task=task, system=system, init_from=start, **rest
        )
        configurations.append(configuration)
    return configurations


# -- which run of a sweep is meant -----------------------------------------------------------------


def resolved(trials: Sequence[Trial], runs: Path, *, again: bool = False) -> list[Trial]:
    """The trials, each start that names a sweep of pre-trainings replaced by the run chosen of it.

    Which that is, `selection.chosen_pretraining` decides and writes down.

    Args:
        trials: all of a search space, the pre-trainings too: they say what belongs to a sweep.
        runs: where their rows are.
        again: whether a choice that finished runs contradict may be replaced.

    Raises:
        InputError: a run of a sweep is missing, all of them diverged, or another choice stands.
    """
    run_of = {
        sweep: selection.chosen_pretraining(sweep, names, runs, again=again)
        for sweep, names in _sweeps(trials).items()
    }
    return [_starting_from(run_of, trial) for trial in trials]


def before_choice(trials: Sequence[Trial]) -> list[Trial]:
    """The trials as `resolved` has them, where nothing has run: the first run of a sweep stands for
    the one that will be chosen, since all cost alike.
    """
    run_of = {sweep: names[0] for sweep, names in _sweeps(trials).items()}
    return [_starting_from(run_of, trial) for trial in trials]


def _sweeps(trials: Iterable[Trial]) -> dict[str, list[str]]:
    """The names of the runs of each sweep that some trial starts from, by the sweep's folder."""
    sweeps: dict[str, list[str]] = {}
    for trial in trials:
        if trial.stage == "pretrain":
            sweeps.setdefault(trial.system_folder, []).append(trial.name)
    sources = {start for trial in trials for _, start in trial.init_from} & sweeps.keys()
    return {sweep: sweeps[sweep] for sweep in sorted(sources)}


def _starting_from(run_of: Mapping[str, str], trial: Trial) -> Trial:
    """The trial, each start replaced by the run that it stands for, if any."""
    starts = tuple((part, run_of.get(name, name)) for part, name in trial.init_from)
    return replace(trial, init_from=starts)


# -- several seeds of pre-training -----------------------------------------------------------------


def pretraining_seeds(trials: Sequence[Trial], count: int) -> list[dict[str, Trial]]:
    """The pre-trainings that something starts from, with so many seeds: for each seed all of them,
    by the name of the first.

    The first are those that the search space lists: choices are made and grids searched from them.
    The others differ from them in the seed, and start from pre-trainings of their own seed, all the
    way down. What nothing starts from, as a rate that was not chosen, has one seed; where nothing
    starts from any of them, all have as many.

    Args:
        trials: of `resolved` or `before_choice`, the fine-tunings too: they say what is needed.
        count: seeds of each, at most as many as an evaluation has.

    Raises:
        InputError: no pre-training is listed.
    """
    pretrainings = [trial for trial in trials if trial.stage == "pretrain"]
    starts = {start for trial in trials for _, start in trial.init_from}
    sources = [trial for trial in pretrainings if trial.name in starts] or pretrainings
    if not sources:
        raise InputError(
            f"--pretrain-seeds {count}: the search space lists no pre-training; list those that "
            "its trials start from"
        )
    by_seed = []
    for seed in paper.SEEDS[:count]:
        copies = {trial.name: replace(trial, seed=trial.seed + seed) for trial in sources}
        run_of = {name: copy.name for name, copy in copies.items()}
        by_seed.append({name: _starting_from(run_of, copy) for name, copy in copies.items()})
    return by_seed


def over_pretrainings(
    evaluations: Sequence[Trial], trials: Sequence[Trial], count: int
) -> list[Trial]:
    """Evaluation trials, the i-th seed starting from pre-training i mod `count`: their spread is
    then of pre-training and fine-tuning together.

    Args:
        evaluations: of `spaces.evaluation_trials`, which start from the first.
        trials, count: see `pretraining_seeds`.

    Raises:
        InputError: see there; or none of them starts from a pre-training that is listed.
    """
    runs_of = [
        {name: trial.name for name, trial in pretrainings.items()}
        for pretrainings in pretraining_seeds(trials, count)
    ]
    if not any(name in runs_of[0] for trial in evaluations for _, name in trial.init_from):
        raise InputError(
            f"--pretrain-seeds {count}: nothing that is evaluated starts from a pre-training that "
            "the search space lists; list it there, or leave the option out"
        )
    seeds = list(dict.fromkeys(trial.seed for trial in evaluations))
    return [
        _starting_from(runs_of[seeds.index(trial.seed) % count], trial) for trial in evaluations
    ]


# -- the three scales ------------------------------------------------------------------------------


FULL = StudyScale(
    space="full",
    pretraining={
        # Section IV-C.2 and IV-D.1. Batch and epochs of the rivals, and all of the image encoder's
        # SimCLR, are those of the authors' runs, where the text is silent.
        "mae": Recipe(batch=128, epochs=400, rates=(1e-5,), knobs=(("weight_decay", 0.15),)),
        "simclr": Recipe(batch=256, epochs=300, rates=(3e-3,)),
        "clocs": Recipe(batch=768, epochs=300, rates=(3e-4,)),
        "byol": Recipe(batch=256, epochs=300, rates=(1e-5,)),
        "barlow-twins": Recipe(batch=256, epochs=300, rates=(3e-5,)),
        "cmr-simclr": Recipe(batch=256, epochs=500, rates=(1e-4,), knobs=(("weight_decay", 1e-4),)),
        "mmcl": Recipe(batch=256, epochs=300, rates=RATES, knobs=(("weight_decay", 1e-4),)),
        "mmcl-wo-mdm": Recipe(batch=256, epochs=300, rates=RATES, knobs=(("weight_decay", 1e-4),)),
    },
    disease=Recipe(batch=32, epochs=400),
    phenotype=Recipe(batch=32, epochs=400),
    image=Recipe(batch=32, epochs=400),
)

# Small networks learn at rates a hundred times the paper's; BYOL's copy follows faster in a run
# this short.
TOY = StudyScale(
    space="toy",
    network=Network(
        crop=2500,
        patch=500,
        width=32,
        depth=2,
        heads=4,
        decoder_width=32,
        decoder_depth=1,
        decoder_heads=4,
        blocks=(1, 1, 1, 1),
        image_width=8,
        image_size=64,
        hidden=64,
        projection=32,
    ),
    pretraining={
        "mae": Recipe(batch=64, epochs=8, eval_every=2, rates=(2e-3,)),
        "simclr": Recipe(batch=64, epochs=4, eval_every=2, rates=(1e-3,)),
        "clocs": Recipe(batch=64, epochs=4, eval_every=2, rates=(1e-3,)),
        "byol": Recipe(
            batch=64, epochs=4, eval_every=2, rates=(1e-3,), knobs=(("momentum", 0.99),)
        ),
        "barlow-twins": Recipe(batch=64, epochs=4, eval_every=2, rates=(1e-3,)),
        "cmr-simclr": Recipe(batch=64, epochs=4, eval_every=2, rates=(1e-3,)),
        "mmcl": Recipe(batch=64, epochs=3, rates=(3e-4, 1e-3, 3e-3, 1e-2)),
        "mmcl-wo-mdm": Recipe(batch=64, epochs=3, rates=(3e-4, 1e-3, 3e-3, 1e-2)),
    },
    disease=Recipe(batch=16, epochs=4, eval_every=2),
    phenotype=Recipe(batch=64, epochs=4, eval_every=2),
    image=Recipe(batch=32, epochs=4, eval_every=2),
    grid={"lr": (3e-4, 1e-3)},
    phenotype_grid={"lr": (1e-3, 3e-3)},
    image_grid={"lr": (3e-4, 1e-3)},
    trees={"rounds": (50,), "max_depth": (3, 6), "lr": (0.1,), "subsample": (0.5, 1.0)},
)

# Hours on two cores: 5,000 synthetic subjects, a network a fiftieth of the paper's. MAE and its
# rivals train for epochs in the paper's ratio, 400 to 300. MMCL's rate is the best of those tried
# for 15 epochs (search_spaces/small.py), as a sweep over 60 would double the cost of the whole.
SMALL = StudyScale(
    space="small",
    network=Network(
        crop=2500,
        patch=250,
        width=64,
        depth=2,
        heads=4,
        decoder_width=48,
        decoder_depth=1,
        decoder_heads=4,
        blocks=(1, 1, 1, 1),
        image_width=16,
        image_size=64,
        hidden=128,
        projection=64,
    ),
    pretraining={
        "mae": Recipe(batch=64, epochs=60, eval_every=5, rates=(2e-3,)),
        "simclr": Recipe(batch=64, epochs=45, eval_every=5, rates=(1e-3,)),
        "clocs": Recipe(batch=64, epochs=45, eval_every=5, rates=(1e-3,)),
        "byol": Recipe(
            batch=64, epochs=45, eval_every=5, rates=(1e-3,), knobs=(("momentum", 0.99),)
        ),
        "barlow-twins": Recipe(batch=64, epochs=45, eval_every=5, rates=(1e-3,)),
        "cmr-simclr": Recipe(batch=64, epochs=30, eval_every=5, rates=(1e-3,)),
        "mmcl": Recipe(batch=64, epochs=60, eval_every=5, rates=(1e-3,)),
        "mmcl-wo-mdm": Recipe(batch=64, epochs=60, eval_every=5, rates=(1e-3,)),
    },
    disease=Recipe(batch=16, epochs=12, eval_every=3),
    phenotype=Recipe(batch=32, epochs=6, eval_every=2),
    image=Recipe(batch=32, epochs=12, eval_every=3),
    grid={"lr": (3e-4, 1e-3)},
    phenotype_grid={"lr": (1e-3, 3e-3)},
    image_grid={"lr": (3e-4, 1e-3)},
)
