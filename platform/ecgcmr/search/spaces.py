"""Search spaces: the trials that a file lists, which of them can run,
and which configuration of a grid is best.

The one idea: a grid is a list of trials, and rows on disk say the rest. This file reads labels and
rows; it starts nothing.
"""

import re
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
from ecgcmr.runs import read_run
from ecgcmr.training import finetune, trees
from ecgcmr.trial import RENAMED, Trial

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
            f"{path}:{_line(path, error)}: "
            f"{_renamed(error) or f'{type(error).__name__}: {one_line(error)}'}"
        ) from error
    return _all_different(path, trials)


def _all_different(path: Path, trials: list[Any]) -> list[Trial]:
    """What a file lists, if it is trials and no two are of one name."""
    if not trials:
        raise InputError(f"{path}: trials() returns no trials")
    foreign = [item for item in trials if not isinstance(item, Trial)]
    if foreign:
        raise InputError(
            f"{path}: trials() returns a {type(foreign[0]).__name__}; every item must be a Trial"
        )
    names = [trial.name for trial in trials]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(
            f"{path}: two trials are named '{twice}'; make system, knobs, label_fraction or seed "
            "differ"
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


def _renamed(error: BaseException) -> str:
    """Says what a word of a trial is called now, if that is all that is wrong; else empty."""
    words = re.match(
        r"(?:(?:Trial|Pretraining)\.__init__|finetuning)\(\) got an unexpected keyword argument "
        r"'(\w+)'|'Trial' object has no attribute '(\w+)'",
        str(error),
    )
    word = words and (words[1] or words[2])
    if "finetuning() missing 1 required positional argument: 'init_from'" in str(error):
        word = "starts"  # taken for a field of the trials
    if word not in RENAMED:
        return ""
    return f"a trial's '{word}' is called '{RENAMED[word]}' now; rename it (CHANGELOG.md)"


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
    reads_test = any(trial.stage == "evaluation" for trial in trials)
    check_labels(trials, cohort, ("train", "val", "test") if reads_test else ("train", "val"))
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
        key = trial.task, trial.modality, trial.label_fraction
        if key not in reasons:
            try:
                reasons[key] = ""
                examples.training_rows(cohort, trial)
            except InputError as error:
                reasons[key] = str(error)
    can_run = [
        trial for trial in trials if not reasons[trial.task, trial.modality, trial.label_fraction]
    ]
    left_out = Counter(
        reasons[trial.task, trial.modality, trial.label_fraction] for trial in trials
    )
    return can_run, {reason: n for reason, n in left_out.items() if reason}


def under_asha(trials: Iterable[Trial], keep: int) -> list[Trial]:
    """The same trials under successive halving (`asha`).

    Trees are left as they are, as they have no epochs.
    """
    return [
        trial if trial.method == trees.METHOD else replace(trial, asha=keep) for trial in trials
    ]


def _check_starts(trials: Iterable[Trial], runs: Path) -> None:
    """Refuse a start that is not there, or cannot be read, before a thousand trials wait for it."""
    for name in sorted({name for trial in trials for _, name in trial.init_from}):
        folder = store.folder(runs, name)
        if not (folder / store.RECORD).exists():
            raise InputError(
                f"start '{name}' has no encoder under {runs}; run its pre-training first "
                "(ecgcmr pretrain, with the same --pretrain-seeds)"
            )
        if read_run(folder).diverged:
            raise InputError(
                f"start '{name}' diverged under {runs} and left no encoder; give its pre-training "
                "a smaller rate, or leave out what starts from it"
            )
        store.verified(folder, store.ENCODER)


# -- the choice ------------------------------------------------------------------------------------


def evaluation_trials(
    trials: Iterable[Trial],
    runs: Path,
    seeds: Sequence[int] = paper.SEEDS,
    *,
    budget: int | None = None,
    again: bool = False,
) -> list[Trial]:
    """The best configuration by validation of every system and task, with every seed:
    the only trials that see the test set.

    What is best, `selection.chosen_configuration` decides and writes down.

    Args:
        trials: the grid.
        runs: where its rows are.
        seeds: of the evaluation trials; by default the authors' five.
        budget: as given to `run`: so many rows per system and task suffice.
        again: whether a choice that finished runs contradict may be replaced.

    Raises:
        InputError: grid rows are missing, no configuration of a system has a finite value, or
            another choice stands.
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
    return [replace(trial, stage="evaluation", seed=seed) for trial in best for seed in seeds]


def _missing(group: list[Trial], runs: Path, budget: int | None) -> list[str]:
    absent = [
        trial.name
        for trial in group
        if not (store.folder(runs, trial.name) / store.RECORD).exists()
    ]
    suffices = len(group) if budget is None else min(budget, len(group))
    return absent if len(group) - len(absent) < suffices else []
