"""Search spaces: the trials that a file lists, which of them can run,
and which point of a grid is best.

The one idea: a grid is a list of trials, and rows on disk say the rest. This file reads labels and
rows; it starts nothing.
"""

import traceback
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ecgcmr import paper, plugins, store, tasks
from ecgcmr.cohort import dataset
from ecgcmr.data import examples
from ecgcmr.errors import InputError
from ecgcmr.evaluation import selection
from ecgcmr.training import finetune, trees
from ecgcmr.trial import Trial

# -- files -----------------------------------------------------------------------------------------


def load(path: Path) -> list[Trial]:
    """The trials of a search-space file: a Python file that defines `trials() -> list[Trial]`.

    Raises:
        InputError: no such file, no `trials`, an exception inside it (named by line), no trials, or
        two of one name.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such search-space file; see search_spaces/")
    try:
        module = plugins.file(path)  # it may register methods and tasks of its own
        if not callable(getattr(module, "trials", None)):
            raise InputError(f"{path}: defines no function trials() -> list[Trial]")
        trials = list(module.trials())
    except InputError as error:
        raise InputError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from error
    except Exception as error:
        raise InputError(
            f"{path}:{_line(path, error)}: {type(error).__name__}: {one_line(error)}"
        ) from error
    return _all_different(path, trials)


def _all_different(path: Path, trials: list[Any]) -> list[Trial]:
    """What a file lists, if it is trials and no two are of one name."""
    if not trials:
        raise InputError(f"{path}: trials() returns no trials")
    strangers = [item for item in trials if not isinstance(item, Trial)]
    if strangers:
        raise InputError(
            f"{path}: trials() returns a {type(strangers[0]).__name__}; every item must be a Trial"
        )
    names = [trial.name for trial in trials]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(
            f"{path}: two trials are named '{twice}'; make label, knobs, take or seed differ"
        )
    return trials


def _line(path: Path, error: BaseException) -> int:
    """The last line of `path` that an exception passed through."""
    if isinstance(error, SyntaxError) and error.lineno:
        return error.lineno
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename) == path
    ]
    return (lines and lines[-1]) or 1


def one_line(error: BaseException) -> str:
    """What an error says, without line breaks, at most 300 characters."""
    return " ".join(str(error).split())[:300] or type(error).__name__


# -- what can run ----------------------------------------------------------------------------------


def check(trials: Sequence[Trial], cohort: dataset.Cohort, runs: Path) -> None:
    """Refuse what no pack could run, before Ray starts.

    Raises:
        InputError: see `finetune.check` and `check_labels`; or a start that is not there.
    """
    finetune.check(trials)
    final = any(trial.stage == "final" for trial in trials)
    check_labels(trials, cohort, ("train", "val", "test") if final else ("train", "val"))
    _check_starts(trials, runs)


def check_labels(trials: Iterable[Trial], cohort: dataset.Cohort, splits: Sequence[str]) -> None:
    """Refuse, before anything runs, tasks that these splits cannot answer; looks at labels alone.

    Raises:
        InputError: a column is missing or not 0/1, or a class has next to nobody in a split.
    """
    for name, modality in dict.fromkeys(
        (t.task, t.modality) for t in trials if t.stage != "pretrain"
    ):
        for split in splits:
            examples.answerable(cohort, tasks.of(name, (name,)), modality, split)


def feasible(trials: Iterable[Trial], cohort: dataset.Cohort) -> tuple[list[Trial], dict[str, int]]:
    """The trials whose share of the labels leaves somebody to learn from.

    For the others, the reason and how many.

    Raises:
        InputError: see `check_labels`.
    """
    trials = list(trials)
    check_labels(trials, cohort, ("train",))
    reasons: dict[tuple[str, str, float], str] = {}
    for trial in trials:
        key = trial.task, trial.modality, trial.take
        if key not in reasons:
            try:
                reasons[key] = ""
                examples.training_rows(cohort, trial)
            except InputError as error:
                reasons[key] = str(error)
    can_run = [trial for trial in trials if not reasons[trial.task, trial.modality, trial.take]]
    left_out = Counter(reasons[trial.task, trial.modality, trial.take] for trial in trials)
    return can_run, {reason: n for reason, n in left_out.items() if reason}


def halving(trials: Iterable[Trial], keep: int) -> list[Trial]:
    """The same trials under successive halving (`asha`).

    Trees are left as they are, as they have no epochs.
    """
    return [
        trial if trial.method == trees.METHOD else replace(trial, halving=keep) for trial in trials
    ]


def _check_starts(trials: Iterable[Trial], runs: Path) -> None:
    """Refuse a start that is not there before a thousand trials wait for it."""
    for name in sorted({name for trial in trials for _, name in trial.starts}):
        if not (store.folder(runs, name) / store.ENCODER).exists():
            raise InputError(
                f"start '{name}' has no encoder under {runs}; run its pre-training first "
                "(ecgcmr pretrain)"
            )


# -- the choice ------------------------------------------------------------------------------------


def finals(
    trials: Iterable[Trial],
    runs: Path,
    seeds: Sequence[int] = paper.SEEDS,
    *,
    budget: int | None = None,
    again: bool = False,
) -> list[Trial]:
    """The best point by validation of every system and task, with every seed:
    the only trials that see the test set.

    What is best, `selection.chosen_configuration` decides and writes down.

    Args:
        trials: the grid.
        runs: where its rows are.
        seeds: of the final trials; by default the authors' five.
        budget: as given to `run`: so many rows per system and task suffice.
        again: whether a choice that finished runs contradict may be replaced.

    Raises:
        InputError: grid rows are missing, no point of a system has a finite value, or another
        choice stands.
    """
    groups: dict[Any, list[Trial]] = defaultdict(list)
    for trial in trials:
        if trial.stage == "grid":
            groups[selection.question(trial)].append(trial)
    missing = [name for group in groups.values() for name in _missing(group, runs, budget)]
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise InputError(
            f"{len(missing)} grid trials have no rows under {runs}: "
            f"{', '.join(missing[:5])}{more}; run ecgcmr sweep first"
        )
    best = [selection.chosen_configuration(group, runs, again=again) for group in groups.values()]
    return [replace(trial, stage="final", seed=seed) for trial in best for seed in seeds]


def _missing(group: list[Trial], runs: Path, budget: int | None) -> list[str]:
    absent = [
        trial.name
        for trial in group
        if not (store.folder(runs, trial.name) / store.RECORD).exists()
    ]
    suffices = len(group) if budget is None else min(budget, len(group))
    return absent if len(group) - len(absent) < suffices else []
