"""A finished run, read from its folder: the only reader of `trial.json`.

The one idea: a folder is finished when its record is there, and the record says all that others ask
of a run: which trial it was, by which recipe it was made, how it ended, and how the signals that it
learnt from were prepared.
"""

import itertools
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from ecgcmr import store
from ecgcmr import trial as trials
from ecgcmr.errors import InputError, differing
from ecgcmr.trial import Trial

DIVERGED = "diverged"


@dataclass(frozen=True, eq=False)
class Run:
    """A finished trial.

    Attributes:
        folder: where it lies; a copy elsewhere need not be called as the trial.
        trial: what was run.
        recipe: all that decided its result, see `trial.recipe`.
        fingerprint: of that.
        status: "finished", "early-stopped", "halted" or "diverged".
        provenance: machine, versions, seconds, cohort and what else it says of itself.
    """

    folder: Path
    trial: Trial
    recipe: Mapping[str, Any]
    fingerprint: str
    status: str
    provenance: dict[str, Any]

    @property
    def diverged(self) -> bool:
        """Whether it ended without weights worth keeping."""
        return self.status == DIVERGED

    @property
    def cohort(self) -> str:
        """Fingerprint of the cohort that it was made from; empty for imported weights."""
        return str(self.recipe["cohort"])

    @property
    def signal_recipes(self) -> dict[str, Any]:
        """How the signals that it learnt from were prepared, by signal; empty where nobody knows."""
        return dict(self.provenance.get("cohort", {}).get("recipe", {}))

    @property
    def home(self) -> Path:
        """The folder of runs that it lies in, if its folders are called as its trial is; else the
        folder above it.
        """
        folder = self.folder.resolve()
        home = trials.runs_above(folder) if len(folder.parents) >= trials.DEPTH else folder.parent
        return home if store.folder(home, self.trial.name) == folder else folder.parent

    @property
    def name(self) -> str:
        """Where it lies below `home`: the trial's own name, or its folder's of a copy elsewhere."""
        return self.folder.resolve().relative_to(self.home).as_posix()

    def score(self, split: str, metric: str) -> float:
        """A number of its rows; NaN if it has none."""
        return score(self.folder, split, metric)


def read_run(folder: Path) -> Run:
    """The run of a folder.

    Raises:
        InputError: it has not finished, or its record is damaged, of another version, or was
            written before trials' words changed.
    """
    path = folder / store.RECORD
    if not path.exists():
        raise InputError(
            f"run '{folder.name}' has not finished under {folder.parent}; run it first "
            "(ecgcmr pretrain, sweep or evaluate)"
        )
    try:
        record = json.loads(path.read_text())
        _refuse_record_before(path, record)
        store.verified(folder, store.RECORD)
        trial = trials.from_json(record["trial"])
        provenance = dict(record["provenance"])
        return Run(
            folder, trial, record["recipe"], record["fingerprint"], record["status"], provenance
        )
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} is damaged, or not the record of a run of this version "
            f"({type(error).__name__}); restore the folder, "
            "or delete it and train it again"
        ) from error


def refuse_before(path: Path, words: Collection[str], version: str = "") -> None:
    """Refuse what was written before words of users' files changed (`trial.RENAMED`).

    Args:
        path: the file or folder.
        words: that it holds; none of them renamed: nothing happens.
        version: of ecgcmr that wrote it, if known.
    """
    changes = [f"{old} → {new}" for old, new in trials.RENAMED.items() if old in words]
    if changes:
        raise InputError(
            f"{path}: written before names changed ({', '.join(changes)}), and not read any more; "
            "make it again with another --runs (ecgcmr pretrain, sweep, evaluate or import), or "
            "read it with the ecgcmr of before "
            f"({f'{version} wrote it; ' if version else ''}CHANGELOG.md names the commit)"
        )


def refuse_system_before(system: Path) -> None:
    """Refuse a system's folder of before, by what it and the files and folders in it are called.

    Where runs have finished in it, their records decide: a copy may be called anything.

    Args:
        system: `<runs>/<space>/<stage>/<task>/<system>`; one that is not there is none.
    """
    for path in sorted(system.iterdir()) if system.is_dir() else ():
        words = trials.words_before("/".join(path.parts[-5:]))
        folders = store.finished_folders(system) if words else []
        if folders:
            read_run(folders[0])
            words = trials.words_before(path.name) if path.is_file() else []
        refuse_before(path, words)


def _refuse_record_before(path: Path, record: dict[str, Any]) -> None:
    fields, version = record["trial"], record.get("recipe", {}).get("code", "")
    refuse_before(path, {*fields, fields.get("stage")}, version)


def check_names(runs: Path) -> None:
    """Refuse a folder of runs that was begun before names changed: under the new ones all of it
    would be run again, beside the old.

    Looks at names, and at one record of each system; a damaged one is for `read_run` to refuse.

    Raises:
        InputError: names the first file or folder.
    """
    for stage in (*trials.STAGES, "final"):
        for system in sorted(runs.glob(f"*/{stage}/*/*")):
            refuse_system_before(system)
            for path in itertools.islice(system.glob(f"*/seed=*/{store.RECORD}"), 1):
                try:
                    _refuse_record_before(path, json.loads(path.read_text()))
                except InputError:
                    raise
                except (OSError, ValueError, KeyError, TypeError, AttributeError):
                    continue


def all_runs(runs: Path, without: Collection[str] = ()) -> Iterator[Run]:
    """Every finished run below a folder of runs but those named, by name."""
    for folder in store.finished_folders(runs):
        if folder.relative_to(runs).as_posix() not in without:
            yield read_run(folder)


def folders_of(run: str | Path, runs: Path) -> list[Path]:
    """The folders of the finished runs that a word means: one run's folder, one above some, or a
    name under `runs`.

    Raises:
        InputError: there is none.
    """
    for folder in (Path(run).expanduser(), Path(runs) / run):
        if (folder / store.RECORD).exists():
            return [folder.resolve()]
        if inside := store.finished_folders(folder):
            return [path.resolve() for path in inside]
    raise InputError(
        f"{run}: no finished run; give a run's folder (it holds {store.RECORD}) or its name under "
        "--runs"
    )


def is_finished(runs: Path, trial: Trial, cohort_fingerprint: str) -> bool:
    """Whether the trial was already run, by this recipe.

    Raises:
        InputError: a folder of this name was made by another recipe; names the fields that differ.
    """
    folder = store.folder(runs, trial.name)
    if not (folder / store.RECORD).exists():
        return False
    if differ := differing(read_run(folder).recipe, trials.recipe(trial, cohort_fingerprint)):
        starts = all(word.startswith("init_from.") for word in differ.split("; "))
        hint = "give the --pretrain-seeds that it was made with, " if starts else ""
        raise InputError(
            f"{folder} was made by another recipe: {differ}; {hint}use another --runs or delete "
            "the folder"
        )
    return True


def set_damaged_aside(runs: Path, wanted: Iterable[Trial]) -> list[str]:
    """Set aside what of some trials is not as it was written, so that it is run again; a line each.

    Raises:
        InputError: a folder was written without checksums.
    """
    folders = (store.folder(runs, trial.name) for trial in wanted)
    return [line for folder in folders if (line := store.set_damaged_aside(folder))]


def score(folder: Path, split: str, metric: str) -> float:
    """A number of the rows in a run's folder; NaN if there is none."""
    path = store.verified(folder, store.ROWS)
    columns = ["split", "metric", "value"]
    rows = pq.read_table(path, columns=columns).to_pydict()  # a third of pandas' time
    for row_split, row_metric, value in zip(*(rows[name] for name in columns)):
        if (row_split, row_metric) == (split, metric) and value is not None:
            return float(value)
    return float("nan")


# -- what a run was made from ----------------------------------------------------------------------


def check_prepared_alike(
    run: Run,
    present: Mapping[str, Any],
    signals: Iterable[str],
    *,
    where: str = "these",
    advice: str = "",
) -> None:
    """Refuse signals that were prepared otherwise than those that a run learnt from, in any field.

    An import whose file says nothing of it passes; `inference.ensemble.cautions` tells whoever uses
    it.

    Args:
        run: what learnt.
        present: recipe by signal of the signals at hand, e.g. of a cohort.
        signals: which of them count.
        where: what the signals at hand are, in words.
        advice: what to do, if not to prepare them alike.

    Raises:
        InputError: names the fields that differ, or says that the run does not tell.
    """
    if "imported" in run.provenance and not run.signal_recipes:
        return
    learnt_from = {name: run.signal_recipes.get(name) for name in signals}
    recipe_names = [name for name, recipe in learnt_from.items() if recipe]
    # As JSON has it: tuples are lists in a record.
    fields = json.loads(json.dumps({name: present.get(name, {}) for name in recipe_names}))
    trained_with = run.provenance.get("versions", {}).get("ecgcmr", "?")
    advice = advice or f"prepare them as it did (it was trained with ecgcmr {trained_with})"
    if differ := differing(_by_field(learnt_from, recipe_names), _by_field(fields, recipe_names)):
        raise InputError(
            f"run {run.folder} learnt from signals of another recipe than {where}: {differ}; "
            f"{advice}"
        )
    if missing := [name for name in learnt_from if name not in recipe_names]:
        raise InputError(
            f"run {run.folder} does not say how its {missing[0]} signals were prepared; train it "
            "on a cohort of this version"
        )


def _by_field(recipes: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """`ecg.rate_hz` and so on: the fields of some recipes in one mapping."""
    return {f"{name}.{field}": value for name in names for field, value in recipes[name].items()}


def withdrawn_since(
    runs: Path, cohort: str, init_from: Iterable[Sequence[str]], since: Mapping[str, int]
) -> int:
    """How many people have withdrawn since from a trial's cohort, or from that of a run that it
    started from.

    Args:
        runs: where those runs lie; one that is not there counts for nobody.
        cohort: fingerprint of the trial's own.
        init_from: (part, name) of the runs that it started from.
        since: of `store.withdrawn`.
    """
    people = [since.get(cohort, 0)]
    for _, name in init_from if since else ():
        folder = store.folder(runs, name)
        if (folder / store.RECORD).exists():
            run = read_run(folder)
            people.append(withdrawn_since(runs, run.cohort, run.trial.init_from, since))
    return max(people)
