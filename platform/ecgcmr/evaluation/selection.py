"""Which configuration stands for a system, and which pre-training for a method: decided once, and
written beside the runs.

The one idea: who runs what follows decides (`sweep` which pre-training to start from, `evaluate`
which configuration to run with five seeds), and writes what was compared, by what, and which won.
Everybody else reads that: a table and a served model can then not be different systems. Finished
runs that contradict what is written are said; nobody chooses anew in silence.
"""

import json
import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from ecgcmr import files, runs, store, tasks
from ecgcmr.errors import InputError
from ecgcmr.runs import Run
from ecgcmr.trial import Trial, first_seeds, label_fraction_of, words_before

CHOICE = "choice"  # stem of the file in a system's folder
# of pre-trainings: by it the authors' code keeps checkpoints; the text is silent
LOSS = "validation loss, the least"
AGAIN = "--choose-again"


@dataclass(frozen=True)
class Choice:
    """What was chosen of what.

    Attributes:
        chosen: the configuration (`Trial.configuration`), or the name of the pre-training.
        by: the number that decided, in words.
        compared: that number of each candidate; None where it has none, as when it diverged.
        unlisted: finished configurations of this grid that the search space did not list, and so
            were not compared.
        replaced: what stood before, the latest last.
    """

    chosen: str
    by: str
    compared: Mapping[str, float | None]
    unlisted: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()

    def better(self, number: float, rival: float) -> bool:
        """Whether one number would have won over another."""
        return number < rival if self.by == LOSS else number > rival


def choice_file(system: Path, label_fraction: float = 1.0) -> Path:
    """The file of a choice in a system's folder; of a share of the labels it names the share.

    Args:
        system: `<runs>/<space>/evaluation/<task>/<system>`, or of a sweep of pre-trainings.
        label_fraction: share of the labels.
    """
    return system / (
        f"{CHOICE}.json"
        if label_fraction == 1
        else f"{CHOICE},label_fraction={label_fraction:g}.json"
    )


def read_choice(system: Path, label_fraction: float = 1.0) -> Choice | None:
    """What is written in a system's folder; None if nothing is.

    Raises:
        InputError: the file is damaged, or was written before names changed.
    """
    path = choice_file(system, label_fraction)
    runs.refuse_system_before(system)
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text())
        runs.refuse_before(path, words_before(record["chosen"]))
        numbers = {
            str(name): None if value is None else float(value)
            for name, value in record["compared"].items()
        }
        others, earlier = (tuple(map(str, record[name])) for name in ("unlisted", "replaced"))
        return Choice(str(record["chosen"]), str(record["by"]), numbers, others, earlier)
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: damaged ({type(error).__name__}); delete it and run  ecgcmr evaluate  again, "
            "which writes it"
        ) from error


def _decide(path: Path, fresh: Choice, again: bool) -> Choice:
    """Write a choice, unless another stands.

    Raises:
        InputError: another stands, and `again` does not say that it may be replaced.
    """
    old = read_choice(path.parent, _label_fraction_of(path))
    if old and old.chosen != fresh.chosen and not again:
        raise InputError(
            f"{path}: {_with_value(old, old.chosen)} was chosen of {len(old.compared)}; of the "
            f"{len(fresh.compared)} that have finished now {_with_value(fresh, fresh.chosen)} is "
            "best: choose it with "
            f"{AGAIN}, or restore what was compared"
        )
    if old and old.chosen != fresh.chosen:
        fresh = replace(fresh, replaced=(*old.replaced, old.chosen))
    elif old:
        fresh = replace(fresh, replaced=old.replaced)
    if fresh != old:
        files.write_json(path, asdict(fresh))
    return fresh


def _label_fraction_of(path: Path) -> float:
    return float(path.stem.partition("label_fraction=")[2] or 1)


def _with_value(choice: Choice, name: str) -> str:
    value = choice.compared.get(name)
    return f"'{name}'" if value is None else f"'{name}' ({value:.4g})"


# -- the configuration of a system -----------------------------------------------------------------


Question = tuple[str, float]


def question(trial: Trial) -> Question:
    """What has one best configuration, and one Optuna study: a system's folder and the share of the
    labels.
    """
    return trial.system_folder, trial.label_fraction


def metric_of(trial: Trial) -> str:
    """The validation metric that selects among a task's trials; larger is better."""
    return tasks.of(trial.task, (trial.task,)).metric


def value(runs_folder: Path, trial: Trial) -> float:
    """The validation metric by which a finished trial is evaluated; NaN if there is none.

    Raises:
        InputError: see `runs.read_run`.
    """
    folder = store.folder(runs_folder, trial.name)
    if not (folder / store.RECORD).exists():
        return math.nan
    return runs.read_run(folder).score("val", metric_of(trial))


def chosen_configuration(grid: Sequence[Trial], runs_folder: Path, *, again: bool = False) -> Trial:
    """The best of one question's grid, which is written down: the mean over seeds, of equal ones
    the first by name.

    Args:
        grid: the trials of one question; a configuration of which a seed has not finished is no
            candidate.
        runs_folder: where their rows are.
        again: whether it may replace a choice that finished runs contradict.

    Returns:
        A trial of the chosen configuration.

    Raises:
        InputError: none has a finite value; or another choice stands.
    """
    by_configuration: dict[str, list[Trial]] = defaultdict(list)
    for trial in sorted(grid, key=lambda trial: trial.name):
        by_configuration[trial.configuration].append(trial)
    first = grid[0]
    folders = _finished_folders(runs_folder, first.system_folder, first.label_fraction)
    means = {
        configuration: _mean([value(runs_folder, trial) for trial in trials])
        for configuration, trials in by_configuration.items()
        if folders >= {store.folder(runs_folder, trial.name) for trial in trials}
    }
    finite = [(-mean, configuration) for configuration, mean in means.items() if mean is not None]
    if not finite:
        raise InputError(
            f"no configuration of {first.system_folder} has a finite validation value under "
            f"{runs_folder}"
        )
    fresh = Choice(
        chosen=min(finite)[1],
        by=f"validation {metric_of(first)}, the mean over the grid's seeds, the largest",
        compared=means,
        unlisted=tuple(
            sorted({folder.parent.name for folder in folders} - by_configuration.keys())
        ),
    )
    system = store.folder(runs_folder, replace(first, stage="evaluation").system_folder)
    _decide(choice_file(system, first.label_fraction), fresh, again)
    return by_configuration[fresh.chosen][0]


def _mean(values: Iterable[float]) -> float | None:
    """None if any is missing."""
    mean = float(np.mean(list(values)))
    return mean if math.isfinite(mean) else None


def _finished_folders(runs_folder: Path, system: str, label_fraction: float) -> set[Path]:
    """Of the trials of a system that have finished with this share of the labels."""
    folders = store.finished_folders(store.folder(runs_folder, system))
    return {folder for folder in folders if label_fraction_of(folder.parent.name) == label_fraction}


def standing_configuration(
    configurations: Collection[str], system: Path, label_fraction: float = 1.0
) -> str:
    """Of the configurations that a system has evaluation runs of, the one that stands for it.

    Args:
        configurations: those of its evaluation runs.
        system: its folder of evaluation runs.
        label_fraction: share of the labels.

    Returns:
        What was chosen, whose evaluation runs may still be missing; the only one there is where no
        choice lies beside it, as in a model that was handed on.

    Raises:
        InputError: there are several, and no choice.
    """
    choice = read_choice(system, label_fraction)
    if choice:
        return choice.chosen
    if len(set(configurations)) > 1:
        raise InputError(
            f"{system}: evaluation runs of {len(set(configurations))} configurations and no "
            f"{choice_file(system, label_fraction).name} that says "
            "which of them stands; run  ecgcmr evaluate  with their search space, which writes it"
        )
    return min(configurations)


def standing_runs(evaluations: Sequence[Run]) -> list[Run]:
    """Of one system's evaluation runs on one task and share of the labels, those that stand for it,
    by seed.

    Raises:
        InputError: see `standing_configuration`; or what was chosen has no evaluation run.
    """
    system, label_fraction = evaluations[0].folder.parents[1], evaluations[0].trial.label_fraction
    standing_name = standing_configuration(
        {run.trial.configuration for run in evaluations}, system, label_fraction
    )
    standing = [run for run in evaluations if run.trial.configuration == standing_name]
    if not standing:
        raise InputError(
            f"{system}: '{standing_name}' was chosen and has no evaluation run; run  ecgcmr "
            "evaluate  with its search space"
        )
    return sorted(standing, key=lambda run: run.trial.seed)


# -- the pre-training of a method ------------------------------------------------------------------


def chosen_pretraining(
    sweep: str, names: Sequence[str], runs_folder: Path, *, again: bool = False
) -> str:
    """The run of least validation loss of a sweep of pre-trainings, which is written down; of equal
    ones the first by name.

    The text does not say by what MMCL's rate was chosen; validation loss is what the authors' code
    keeps checkpoints by. Of several seeds the first stands for its configuration, as grids are
    searched from it: a lucky seed does not choose a rate.

    Args:
        sweep: `<space>/pretrain/<task>/<system>`.
        names: of its runs.
        runs_folder: where their rows are.
        again: whether it may replace a choice that finished runs contradict.

    Raises:
        InputError: a run is missing, or all of them diverged; or another choice stands.
    """
    candidates = first_seeds(names)
    folders = {name: store.folder(runs_folder, name) for name in names if name in candidates}
    missing = [name for name, folder in folders.items() if not (folder / store.RECORD).exists()]
    if missing:
        raise InputError(
            f"start '{sweep}' is the best of {len(folders)} pre-trainings, of which {len(missing)} "
            "have not finished under "
            f"{runs_folder}, e.g. {missing[0]}; run ecgcmr pretrain first"
        )
    losses = {name: _mean([runs.score(folder, "val", "loss")]) for name, folder in folders.items()}
    finite = [(loss, name) for name, loss in losses.items() if loss is not None]
    if not finite:
        raise InputError(
            f"start '{sweep}': all {len(folders)} pre-trainings diverged; give smaller rates"
        )
    system = store.folder(runs_folder, sweep)
    names_there = {run.trial.name for run in map(runs.read_run, store.finished_folders(system))}
    fresh = Choice(
        chosen=min(finite)[1],
        by=LOSS,
        compared=losses,
        unlisted=tuple(sorted(first_seeds(names_there | losses.keys()) - losses.keys())),
    )
    return _decide(choice_file(system), fresh, again).chosen


def standing_pretraining(candidates: Sequence[Run]) -> Run | None:
    """Of the finished pre-trainings of one system, the one that stands for it; None if all
    diverged. Of several seeds that is the first.

    Raises:
        InputError: several have finished and none was chosen, or what was chosen is not there.
    """
    system = candidates[0].folder.parents[1]
    choice = read_choice(system)
    if choice:
        standing = [run for run in candidates if run.trial.name == choice.chosen]
        if not standing:
            raise InputError(
                f"{system}: '{choice.chosen}' was chosen and is not there; run  ecgcmr pretrain  "
                "with its search space"
            )
        return standing[0]
    first = first_seeds(run.trial.name for run in candidates)
    whole = [run for run in candidates if not run.diverged and run.trial.name in first]
    if len(whole) > 1:
        raise InputError(
            f"{system}: {len(whole)} pre-trainings and no {CHOICE}.json that says which of them "
            "stands; run  ecgcmr sweep  "
            "with their search space, which writes it"
        )
    return whole[0] if whole else None


# -- what contradicts a choice ---------------------------------------------------------------------


def contradictions(runs_folder: Path) -> list[str]:
    """A line for every written choice that runs which have finished since contradict."""
    paths = sorted(runs_folder.glob(f"*/*/*/*/{CHOICE}*.json"))
    return [
        line for path in paths if (line := contradiction(path.parent, _label_fraction_of(path)))
    ]


def contradiction(system: Path, label_fraction: float = 1.0) -> str:
    """Says which finished run would have won over the written choice, and what to do; empty if none
    would.

    Args:
        system: the folder that the choice lies in.
        label_fraction: share of the labels.
    """
    choice = read_choice(system, label_fraction)
    value_of_chosen = choice.compared.get(choice.chosen) if choice else None
    if choice is None or value_of_chosen is None:
        return ""
    later = _finished_since(system, choice, label_fraction)
    beaten = [name for name, number in later.items() if choice.better(number, value_of_chosen)]
    if not beaten:
        return ""
    best = min(beaten, key=lambda name: (later[name] if choice.by == LOSS else -later[name], name))
    command = "sweep" if choice.by == LOSS else "evaluate"
    return (
        f"{choice_file(system, label_fraction)}: {_with_value(choice, choice.chosen)} was chosen "
        f"of {len(choice.compared)}; '{best}' "
        f"({later[best]:.4g}) has finished since: run  ecgcmr {command} {AGAIN}  with the search "
        "space"
    )


def _finished_since(system: Path, choice: Choice, label_fraction: float) -> dict[str, float]:
    """The deciding number of each candidate that finished after the choice was written; of several
    seeds the mean.
    """
    stage = system.parents[1]
    known_names = {*choice.compared, *choice.unlisted}
    if choice.by == LOSS:
        finished_runs = {
            run.trial.name: run for run in map(runs.read_run, store.finished_folders(system))
        }
        later = first_seeds({*finished_runs, *choice.compared}) - known_names
        values = {name: finished_runs[name].score("val", "loss") for name in later}
        return {name: number for name, number in values.items() if math.isfinite(number)}
    grid = stage.with_name("grid") / system.relative_to(stage)
    by_configuration: dict[str, list[float]] = defaultdict(list)
    for folder in store.finished_folders(grid):
        configuration = folder.parent.name
        if configuration not in known_names and label_fraction_of(configuration) == label_fraction:
            run = runs.read_run(folder)
            by_configuration[configuration].append(run.score("val", metric_of(run.trial)))
    means = {configuration: _mean(numbers) for configuration, numbers in by_configuration.items()}
    return {configuration: mean for configuration, mean in means.items() if mean is not None}
