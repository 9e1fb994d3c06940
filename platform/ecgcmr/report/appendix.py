"""What the page says beside results: who is in the cohort, what was trained how, and all it takes
to run it again.

Words and counts out of the cohort's manifest and index and of the trials' records; nothing is
measured and nothing judged here. What is listed is listed completely: a reader who doubts a number
finds the run that it comes from.
"""

import dataclasses
import importlib.metadata
import json
import platform
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ecgcmr import __version__, paper, presets, signals, store, tasks
from ecgcmr import trial as trials
from ecgcmr.cohort import presence
from ecgcmr.cohort.dataset import Cohort
from ecgcmr.cohort.shards import SPLITS
from ecgcmr.paper import SHORT
from ecgcmr.runs import Run, all_runs
from ecgcmr.trial import Trial

SPLIT_TITLES = {"train": "Training", "val": "Validation", "test": "Test"}
TITLES = {"cmr-simclr": "SimCLR", **paper.TITLES}  # a pre-training's signals are named beside it
SIGNALS = {
    "ecg": "ECG",
    "cmr": "CMR",
    "ecg+cmr": "ECG + CMR",
}  # in the order that pre-trainings need each other
UNITS = {"rows": "subject‑visits"}  # the manifest's word, and the reader's
PACKAGES = (
    "torch",
    "ray",
    "optuna",
    "xgboost",
    "aim",
    "numpy",
    "scipy",
    "pandas",
    "pyarrow",
    "scikit-learn",
    "safetensors",
    "matplotlib",
    "jinja2",
)


def read(runs: Path) -> list[Run]:
    """Every finished trial, in the order of `order`."""
    return sorted(all_runs(runs), key=lambda run: order(run.trial))


def order(trial: Trial) -> tuple[Any, ...]:
    """Tasks and systems in the order of the tables, pre-trainings in that of their making, then by
    name.
    """
    systems, names = list(TITLES), [*SIGNALS, *tasks.TASKS]
    task = names.index(trial.task) if trial.task in names else len(names)
    system = systems.index(trial.system) if trial.system in systems else len(systems)
    return (
        trial.space,
        task,
        trial.task,
        system,
        trial.system,
        -trial.label_fraction,
        dict(trial.knobs).get("lr", 0.0),
        trial.name,
    )


def titled(trial: Trial) -> str:
    """`MMCL, ECG + CMR` for a pre-training."""
    return f"{TITLES.get(trial.system, trial.system)}, {SIGNALS.get(trial.task, trial.task)}"


def sweeps(runs: Iterable[Run]) -> set[str]:
    """The pre-trainings that ran at several rates, by `Trial.system_folder`."""
    rates: dict[str, set[float]] = {}
    for trial in (run.trial for run in runs if run.trial.stage == "pretrain"):
        rates.setdefault(trial.system_folder, set()).add(dict(trial.knobs).get("lr", 0.0))
    return {name for name, several in rates.items() if len(several) > 1}


# -- cohort ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Box:
    """One box of the flow diagram.

    Attributes:
        title: `found`, `readable` …
        n, unit: how many of what.
        left: (how many, why) of those that the box before it had and this one has not, the largest
            number first.
        facts: (what, how many) of the box's own, e.g. how many are paired, or files beside it that
            are no part of any recording.
    """

    title: str
    n: int
    unit: str
    left: tuple[tuple[int, str], ...] = ()
    facts: tuple[tuple[str, int], ...] = ()

    @property
    def less(self) -> int:
        """How many left before this box."""
        return sum(n for n, _ in self.left)


def flow(manifest: Mapping[str, Any]) -> list[Box]:
    """From found to kept, as boxes.

    The manifest's steps that count what the first one counts, and the last, are boxes; steps in
    between that count something else (how many rows are paired, how many labelled) exclude nobody
    and are facts about the last.
    """
    steps = manifest["flow"]
    unit = steps[0].get("unit", "recordings")
    chain = [
        step
        for i, step in enumerate(steps)
        if step.get("unit", unit) == unit or i == len(steps) - 1
    ]
    facts = tuple((step["step"], step["n"]) for step in steps if step not in chain)
    boxes: list[Box] = []
    before = 0
    for step in chain:
        counts = step.get("unit", unit)
        exclusion_counts = {reason: n for reason, n in step["reasons"].items() if n}
        n_without_reason = before - step["n"] - sum(exclusion_counts.values())
        if boxes and counts == unit and n_without_reason > 0:
            exclusion_counts["no reason given"] = n_without_reason
        exclusions = tuple(
            sorted(
                ((n, reason) for reason, n in exclusion_counts.items()),
                key=lambda pair: (-pair[0], pair[1]),
            )
        )
        boxes.append(
            Box(
                step["step"],
                step["n"],
                UNITS.get(counts, counts),
                exclusions,
                (*_left_aside(step), *(facts if step is chain[-1] else ())),
            )
        )
        before = step["n"]
    return boxes


def _left_aside(step: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Files that a build passed over, by kind, as facts."""
    for kind, n in step.get("left_aside", {}).items():
        yield f"left aside: {kind}", n


def splits(cohort: Cohort) -> list[tuple[str, int, list[tuple[str, int]]]]:
    """Title, rows and what they hold, of each split: the last boxes of the flow."""
    index = cohort.rows()
    boxes = []
    for split in SPLITS:
        rows = index[index.split == split]
        n_both = int(presence.has(rows, *signals.ALWAYS).sum())
        facts = [
            (f"with {signals.SIGNALS[name].title}", int(presence.has(rows, name).sum()))
            for name in signals.ALWAYS
        ]
        facts.append(("with both", n_both))
        boxes.append((SPLIT_TITLES[split], len(rows), [("people", rows.subject.nunique()), *facts]))
    return boxes


def repairs(manifest: Mapping[str, Any]) -> list[tuple[str, int]]:
    """What was mended while reading, with how often, most frequent first."""
    counts = Counter(repair["what"] for repair in manifest["repairs"])
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))


def characteristics(cohort: Cohort) -> list[tuple[str, ...]]:
    """Lines of the table of who is in the cohort: age, sex, size and positives, per split and over
    all.
    """
    index, labels = cohort.rows(), cohort.manifest["labels"]
    parts = [*(index[index.split == split] for split in SPLITS), index]
    lines = [("Subject-visits", *(f"{len(rows):,}" for rows in parts))]
    for name, title in (
        ("age", "Age [years]"),
        ("height", "Height [cm]"),
        ("weight", "Weight [kg]"),
    ):
        lines.append((title, *(_spread(rows[name]) for rows in parts)))
    lines.insert(
        2,
        (
            "Men",
            *(_share(int((rows.sex == 1).sum()), int(rows.sex.notna().sum())) for rows in parts),
        ),
    )
    binary = [
        name for name, by in labels.items() if all("positive" in part for part in by.values())
    ]
    for name in [
        *(n for n in tasks.DISEASES if n in binary),
        *sorted(set(binary) - set(tasks.DISEASES)),
    ]:
        shares = [(int((rows[name] == 1).sum()), int(rows[name].notna().sum())) for rows in parts]
        lines.append((f"{SHORT.get(name, name)} positive", *(_share(*pair) for pair in shares)))
    return lines


def phenotypes(manifest: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Name, unit, and number and mean per split of every measured phenotype."""
    labels = manifest["labels"]
    measured = [name for name, by in labels.items() if all("mean" in part for part in by.values())]
    names = [
        *(n for n in tasks.PHENOTYPES if n in measured),
        *sorted(set(measured) - set(tasks.PHENOTYPES)),
    ]
    lines = []
    for name in names:
        parts = [labels[name][split] for split in SPLITS]
        means = ["—" if part["mean"] is None else f"{part['mean']:.1f}" for part in parts]
        lines.append(
            (
                name.replace("_", " "),
                tasks.UNITS.get(name, ""),
                f"{sum(p['n'] for p in parts):,}",
                *means,
            )
        )
    return lines


def _share(part: int, whole: int) -> str:
    """`80 (7.1 %)`, of those of whom it is known."""
    return f"{part:,} ({100 * part / whole:.1f} %)" if whole else "—"


def _spread(values: pd.Series) -> str:
    """`58.1 ± 7.5`, mean and standard deviation."""
    values = values.dropna()
    return f"{values.mean():.1f} ± {values.std():.1f}" if len(values) > 1 else "—"


# -- training --------------------------------------------------------------------------------------


def pretrainings(runs: Sequence[Run], rows: pd.DataFrame) -> list[dict[str, str]]:
    """One line per pre-training, all of them; `chosen` where something starts from it."""
    losses = rows[(rows.split == "val") & (rows.metric == "loss")].set_index("trial").value
    starting_points = {start for run in runs for _, start in run.trial.init_from}
    swept, several, lines = sweeps(runs), pretrain_seeds_of(runs), []
    for run in runs:
        trial, note = run.trial, run.provenance
        if trial.stage != "pretrain":
            continue
        seed = f", seed {trial.seed}" if several[trial.space] > 1 else ""
        lines.append(
            {
                "title": titled(trial) + seed,
                "init_from": start_of(trial, swept),
                "epochs": f"{trial.epochs:,}",
                "validated": validated(trial),
                "batch": f"{trial.batch:,}",
                "rate": f"{dict(trial.knobs)['lr']:g}" if "lr" in dict(trial.knobs) else "default",
                "loss": f"{losses[trial.name]:.4f}" if trial.name in losses else "—",
                "time": f"{note['seconds'] / 60:,.1f} min" if "seconds" in note else "—",
                "status": "" if run.status == "finished" else run.status,
                "chosen": "✓" if trial.name in starting_points else "—",
            }
        )
    return lines


def validated(trial: Trial) -> str:
    """`validated every 2` where validation is not measured after each epoch."""
    return f"validated every {trial.eval_every}" if trial.eval_every > 1 else ""


def start_of(trial: Trial, swept: Collection[str]) -> str:
    """`ECG: MMCL (lr=0.001)`, `ECG: MAE, CMR: SimCLR` or `random weights`; the rate where several
    were tried.

    Trees start from nothing.
    """
    if trial.modality == "tabular":
        return "—"
    words = []
    for part, name in trial.init_from:
        parts = trials.name_parts(name)
        rates = [word for word in parts.configuration.split(",") if word.startswith("lr=")]
        rate = f" ({rates[0]})" if rates and parts.system_folder in swept else ""
        title = TITLES.get(parts.system, parts.system or name)
        words.append(f"{SIGNALS.get(part, part)}: {title}{rate}")
    return ", ".join(words) or "random weights"


def test_reads(runs: Path, runs_read: Iterable[Run]) -> str:
    """One line on how often the test set was read: it should be once per evaluation run.

    Raises:
        InputError: the log is damaged.
    """
    evaluations = {run.trial.name for run in runs_read if run.trial.stage == "evaluation"}
    counts = Counter(entry["trial"] for entry in store.test_reads(runs))
    if not counts:
        return (
            f"No log of test reads lies beside the {len(evaluations):,} evaluation runs: they were "
            "made before reads were logged."
            if evaluations
            else "Nothing has read the test set yet."
        )
    faults = [
        (len(evaluations - counts.keys()), "evaluation runs have no logged read"),
        (
            sum(counts[name] > 1 for name in evaluations),
            "evaluation runs read it more than once (a killed run starts again)",
        ),
        (
            len(counts.keys() - evaluations),
            "trials read it that are no finished evaluation run here",
        ),
    ]
    faults_said = [f"{n:,} {words}" for n, words in faults if n]
    total = f"The test set was read {counts.total():,} time{'s' if counts.total() != 1 else ''}"
    if faults_said:
        return (
            f"{total}, by {len(evaluations):,} evaluation runs, and not once by each: "
            f"{'; '.join(faults_said)}."
        )
    return (
        f"{total}: once by each of the {len(evaluations):,} evaluation runs, and by nothing else."
    )


# -- configuration ---------------------------------------------------------------------------------


def commands(
    manifest: Mapping[str, Any],
    spaces: Sequence[str],
    pretrain_seeds: Mapping[str, int] | None = None,
) -> str:
    """The commands that make the same cohort and run the same trials; a cohort does not know the
    folders it came from.

    Args:
        manifest: of the cohort.
        spaces: names of the search spaces.
        pretrain_seeds: of each pre-training, by search space (`pretrain_seeds_of`).
    """
    name, request = manifest["name"], manifest.get("request", {})
    if manifest["source"] == "synthetic":
        command = (
            "ecgcmr cohort synth --subjects "
            f"{request.get('subjects', sum(manifest['rows'].values()))}"
        )
    else:
        readers = manifest.get("recipe", {}).get("readers", {})
        options = [
            f"--{kind} {reader}:PATH"
            for kind, names in readers.items()
            for reader in names.split("+")
        ]
        options += ["--labels LABELS"] if request.get("labels", "none") != "none" else []
        command = " ".join(["ecgcmr cohort build", *options])
    lines = [f"{command} --seed {manifest['seed']} --cohort {name}"]
    for space in spaces:
        file = f"search_spaces/{space}.py"
        count = (pretrain_seeds or {}).get(space, 1)
        seeds = f" --pretrain-seeds {count}" if count > 1 else ""
        lines += [
            f"ecgcmr {verb:8s} {file} --cohort {name} --runs runs{option}"
            for verb, option in (("pretrain", seeds), ("sweep", ""), ("evaluate", seeds))
        ]
    return "\n".join([*lines, f"ecgcmr report   --cohort {name} --runs runs"])


def pretrain_seeds_of(runs: Iterable[Run]) -> dict[str, int]:
    """How many seeds a pre-training ran with at most, by search space."""
    seeds: dict[tuple[str, ...], set[int]] = {}
    for trial in (run.trial for run in runs if run.trial.stage == "pretrain"):
        seeds.setdefault((trial.space, trial.task, trial.system, trial.configuration), set()).add(
            trial.seed
        )
    counts: dict[str, int] = {}
    for (space, *_), several in seeds.items():
        counts[space] = max(len(several), counts.get(space, 1))
    return counts


def settings(runs: Sequence[Run], manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What one has to know to run the same again, as (name, words) pairs."""
    notes = [run.provenance for run in runs]
    seeds = {
        stage: sorted({run.trial.seed for run in runs if run.trial.stage == stage})
        for stage in trials.STAGES
    }
    balance_seeds = sorted({note["balance_seed"] for note in notes if "balance_seed" in note})
    words_by_name: dict[str, Iterable[str]] = {
        "Search space": sorted({run.trial.space for run in runs}),
        "Preset": sorted({run.trial.preset for run in runs}),
        "Seeds of the evaluation runs": map(str, seeds["evaluation"]),
        "Seeds of the grid": map(str, seeds["grid"]),
        "Seeds of pre-training": map(str, seeds["pretrain"]),
        "Seed of the balanced sets": map(str, balance_seeds),
        "Seed of cohort and split": [str(manifest["seed"])],
        "Device": sorted({str(note["device"]) for note in notes if "device" in note}),
        "Precision": sorted({str(note["precision"]) for note in notes if "precision" in note}),
        "Versions that trained": sorted(
            {f"{k} {v}" for note in notes for k, v in note.get("versions", {}).items()}
        ),
        "Versions beside this page": versions(),
        "Cohort": [f"{manifest['name']} (source {manifest['source']})"],
        "Cohort fingerprint": [manifest["fingerprint"]],
        "Recipe hash": [manifest["recipe_hash"]],
    }
    return [(name, text) for name, words in words_by_name.items() if (text := ", ".join(words))]


def versions() -> list[str]:
    """`python 3.11.2`, `torch 2.13.0` … as installed here."""
    lines = [f"ecgcmr {__version__}", f"python {platform.python_version()}"]
    packages = {str(part.metadata["Name"]).lower() for part in importlib.metadata.distributions()}
    return lines + [
        f"{name} {importlib.metadata.version(name)}" for name in PACKAGES if name in packages
    ]


def exact(runs: Sequence[Run], manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(title, JSON) of what decides a result and is too long for a line: networks, presets, the
    cohort's recipe.
    """
    sizes: dict[str, set[str]] = {}
    for trial in (run.trial for run in runs if run.trial.modality != "tabular"):
        sizes.setdefault(json.dumps(trials.to_json(trial)["network"], indent=1), set()).add(
            trial.space
        )
    networks = [(f"Network of {', '.join(sorted(spaces))}", text) for text, spaces in sizes.items()]
    preset_names = sorted({run.trial.preset for run in runs})
    texts = [
        (f"Preset {name}", json.dumps(dataclasses.asdict(presets.preset(name)), indent=1))
        for name in preset_names
    ]
    recipe = json.dumps(manifest["recipe"], indent=1, sort_keys=True, ensure_ascii=False)
    return [*networks, *texts, ("Recipe of the cohort", recipe)]


def grids(runs: Sequence[Run]) -> list[tuple[str, ...]]:
    """Tasks, systems, values tried and number of configurations of every grid; systems and tasks of
    equal grids share a line.
    """
    cells: dict[tuple[Any, ...], list[Trial]] = {}
    for run in runs:
        if run.trial.stage == "grid":
            cells.setdefault(_cell(run.trial), []).append(run.trial)
    lines: dict[tuple[str, str, str], tuple[dict[str, None], dict[str, None]]] = {}
    for (space, task, system, _), members in cells.items():
        task_titles, systems = lines.setdefault(
            (space, _values(members), f"{len(members):,}"), ({}, {})
        )
        task_titles[SHORT.get(task, task)] = None
        systems[TITLES.get(system, system)] = None
    return [
        (", ".join(task_titles), ", ".join(systems), values, n)
        for (_, values, n), (task_titles, systems) in lines.items()
    ]


def _values(members: Iterable[Trial]) -> str:
    """`batch 8, 16; lr 1e-05, 3e-05`."""
    values_by_name: dict[str, set[float]] = {}
    for trial in members:
        for name, value in (*((("batch", trial.batch),) if trial.batch else ()), *trial.knobs):
            values_by_name.setdefault(name, set()).add(value)
    return "; ".join(
        f"{name} {', '.join(f'{v:g}' for v in sorted(values))}"
        for name, values in sorted(values_by_name.items())
    )


def configurations(runs: Sequence[Run]) -> list[tuple[str, ...]]:
    """Task, share of the labels, system, chosen configuration, configurations tried, epochs, start
    and seeds of the evaluation runs.
    """
    grid_sizes = Counter(_cell(run.trial) for run in runs if run.trial.stage == "grid")
    evaluations = [run.trial for run in runs if run.trial.stage == "evaluation"]
    swept, lines = sweeps(runs), Counter[tuple[str, ...]]()
    for trial in evaluations:
        n = grid_sizes[_cell(trial)]
        question = (
            SHORT.get(trial.task, trial.task),
            f"{100 * trial.label_fraction:g} %",
            TITLES.get(trial.system, trial.system),
        )
        length = f"{trial.epochs:,}" + (f", {validated(trial)}" if validated(trial) else "")
        how = (
            trial.configuration.replace(",", ", "),
            f"{n:,}" if n else "—",
            length,
            start_of(trial, swept),
        )
        lines[*question, *how, trial.space] += 1
    return [(*line[:-1], str(n)) for line, n in lines.items()]


def _cell(trial: Trial) -> tuple[Any, ...]:
    return (trial.space, trial.task, trial.system, trial.label_fraction)


def fingerprints(runs: Sequence[Run]) -> list[tuple[str, str, str]]:
    """Name, fingerprint and status of every evaluation run and of every pre-training."""
    listing = [run for run in runs if run.trial.stage != "grid"]
    return [(run.trial.name, run.fingerprint, run.status) for run in listing]
