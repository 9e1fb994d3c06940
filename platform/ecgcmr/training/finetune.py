"""The pack engine: trains supervised trials together, as one program over stacked weights,
and judges them.

A pack is what may share a program: everything that fixes a shape or the data is equal (`SHARED`),
while start, seed and knobs differ. Each member ends as it would have alone; one that diverges or
stops early leaves the pack, so that no step is spent on it. A pack itself is in `pack`. This
file knows nothing of Ray, and does not choose what to run.
"""

import contextlib
import dataclasses
import hashlib
import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ecgcmr import methods, presets, store, tasks
from ecgcmr.data import examples, sampler
from ecgcmr.data.examples import Cohort, Scale, Split
from ecgcmr.errors import InputError, unknown
from ecgcmr.runs import check_prepared_alike, read_run
from ecgcmr.runtime import hardware
from ecgcmr.tasks import Task
from ecgcmr.training import asha, checkpoint, pack_judge, pack_step, trees
from ecgcmr.training.asha import Rungs
from ecgcmr.training.checkpoint import EVERY_S, SAVE_SHARE
from ecgcmr.training.pack import (
    Pack,
    assemble,
    at_best,
    compact,
    keep_best,
    restore,
    state_of,
)
from ecgcmr.trial import Trial, recipe

log = logging.getLogger(__name__)

MAY_DIFFER = ("system", "init_from", "seed", "knobs")  # none of them changes a shape or the data
SHARED = tuple(f.name for f in dataclasses.fields(Trial) if f.name not in MAY_DIFFER)

CHECKPOINTS = ".packs"  # below runs
LEAVE = 8  # a pack is made smaller once one in so many of its members has ended


# -- which trials ----------------------------------------------------------------------------------


def pack_key(trial: Trial) -> tuple[Any, ...]:
    """What the members of a pack have in common."""
    return tuple(getattr(trial, name) for name in SHARED)


def check(trials: Sequence[Trial]) -> None:
    """Refuse trials that no pack could run.

    Raises:
        InputError: not a fine-tuning, a modality or knob that does not exist; or see `trees.check`.
    """
    for trial in trials:
        if trial.method == trees.METHOD:
            trees.check(trial)
            continue
        if trial.method != "supervised":
            raise InputError(
                f"method '{trial.method}' of '{trial.name}': fit trains 'supervised' and "
                f"'{trees.METHOD}'; pre-train it"
            )
        modalities = methods.Supervised.modalities
        if trial.modality not in modalities:
            raise unknown(f"modality of '{trial.name}'", trial.modality, modalities)
        if foreign := [part for part, _ in trial.init_from if part != trial.modality]:
            raise InputError(
                f"start of '{trial.name}': part '{foreign[0]}' is not its modality "
                f"'{trial.modality}'"
            )
        knobs = methods.Supervised.defaults(presets.preset(trial.preset), trial.modality)
        for name, _ in trial.knobs:
            if name not in knobs:
                raise unknown(f"knob of '{trial.name}'", name, knobs)


def check_pack(trials: Sequence[Trial]) -> None:
    """Refuse a mixed pack, with the field named."""
    for name in SHARED:
        values = dict.fromkeys(getattr(trial, name) for trial in trials)
        if len(values) > 1:
            text = ", ".join(str(value) for value in values)
            raise InputError(f"a pack needs trials of one shape; they differ in {name}: {text}")


# -- training --------------------------------------------------------------------------------------


@dataclass
class Watch:
    """Early stopping of every member, (E,) each.

    Attributes:
        best: the best validation metric, −∞ before the first.
        epoch: when that was, from 0; −1 before the first.
        good: the last epoch that came within `max_delta` of the best.
        status: "" while it trains, then "finished", "early-stopped", "halted" (at a rung) or
            "diverged".
    """

    best: np.ndarray
    epoch: np.ndarray
    good: np.ndarray
    status: list[str]

    @classmethod
    def of(cls, members: int) -> "Watch":
        """Before the first epoch."""
        return cls(
            np.full(members, -np.inf), np.full(members, -1), np.full(members, -1), [""] * members
        )

    def see(
        self,
        epoch: int,
        values: np.ndarray,
        alive: np.ndarray,
        patience: np.ndarray,
        slack: np.ndarray,
        places: np.ndarray | None = None,
    ) -> np.ndarray:
        """Take in a validation of the members at `places`, by default of all.

        Patience counts epochs since the metric last came within `slack` of the best (authors'
        util/callbacks.py). A member that is no longer alive, or whose metric is not a number, has
        diverged.

        Returns:
            Who reached a new best, (E,) bool.
        """
        at = np.arange(len(self.status)) if places is None else places
        training = np.array([self.status[place] == "" for place in at])
        for place in at[training & ~(alive & np.isfinite(values))]:
            self.status[place] = "diverged"
        training &= alive & np.isfinite(values)
        better = training & (values > self.best[at])
        self.best[at[better]], self.epoch[at[better]] = values[better], epoch
        self.good[at[better | training & (values >= self.best[at] - slack)]] = epoch
        for place in at[training & (epoch - self.good[at] > patience)]:
            self.status[place] = "early-stopped"
        return better

    def halt(self, trials: Sequence[Trial], places: np.ndarray, rungs: Rungs, rung: int) -> None:
        """End those of the members at `places` that are not among the best of a rung."""
        training = {
            trial.name: place for trial, place in zip(trials, places) if not self.status[place]
        }
        best = {name: float(self.best[place]) for name, place in training.items()}
        for name in best.keys() - rungs.survivors(rung, best):
            self.status[training[name]] = "halted"


@dataclass
class Curves:
    """What is noted at every validation of every member.

    Attributes:
        points: per member that the pack began with, its rows so far.
        sums: of the losses since the last validation, (E,) float64 on the device; members that have
            left stay behind.
        steps: how many those are.
    """

    points: list[list[dict[str, float]]]
    sums: Tensor
    steps: int = 0

    @classmethod
    def of(cls, members: int, device: torch.device) -> "Curves":
        """Before the first step."""
        return cls(
            [[] for _ in range(members)], torch.zeros(members, dtype=torch.float64, device=device)
        )

    def add(self, pack: Pack, losses: Tensor) -> None:
        """Take in the losses of a step, (E,)."""
        if len(self.sums) != len(losses):
            # The pack became smaller: at a validation, when the sums are zero.
            self.sums = self.sums[: len(losses)]
        self.sums += losses
        self.steps += 1

    def note(
        self, pack: Pack, members: list[bool], at: dict[str, float], values: np.ndarray, name: str
    ) -> None:
        """One more row for every member of `members`, (E,)."""
        means = (self.sums / self.steps).cpu().numpy()
        for e in np.flatnonzero(members):
            place = pack.places[e]
            self.points[place].append({**at, "train_loss": float(means[e]), name: float(values[e])})
        self.sums, self.steps = torch.zeros_like(self.sums), 0


@dataclass
class Course:
    """How far a pack has come.

    Attributes:
        whole: the pack as it began, which keeps everybody's best weights.
        pack: those of its members that still train.
        watch, curves: of all.
        epoch: the next one.
    """

    whole: Pack
    pack: Pack
    watch: Watch
    curves: Curves
    epoch: int = 0

    @classmethod
    def of(cls, pack: Pack) -> "Course":
        """Before the first step."""
        members = len(pack.trials)
        return cls(pack, pack, Watch.of(members), Curves.of(members, pack.device))

    def state(self) -> dict[str, Any]:
        """For a checkpoint after a validation, when the sums of the curves are zero."""
        watch = {name: getattr(self.watch, name).tolist() for name in ("best", "epoch", "good")}
        return {
            "pack": state_of(self.pack),
            "watch": {**watch, "status": self.watch.status},
            "curves": self.curves.points,
            "epoch": self.epoch,
        }

    @classmethod
    def from_state(cls, whole: Pack, state: dict[str, Any]) -> "Course":
        """Where `state` was taken."""
        pack = restore(whole, state["pack"])
        best, last, good = (np.array(state["watch"][name]) for name in ("best", "epoch", "good"))
        watch = Watch(best, last, good, state["watch"]["status"])
        curves = Curves.of(len(pack.trials), pack.device)
        curves.points = state["curves"]
        return cls(whole, pack, watch, curves, state["epoch"])


def train(
    course: Course,
    task: Task,
    rows: Split,
    val: Split,
    scale: Scale,
    progress: store.Progress | None = None,
    save: Callable[[Course], None] = lambda course: None,
    rungs: Rungs | None = None,
) -> None:
    """Train the pack until every member has ended; its `best` weights are those to keep.

    Args:
        course: where it stands; changed in place.
        task, rows, val, scale: what it learns and is evaluated by.
        progress: is told the steps.
        save: writes a checkpoint; called after validations, so that this takes at most SAVE_SHARE
            of the time.
        rungs: where members are compared with the rest of their grid.
    """
    trial, n, watch = course.pack.trials[0], len(rows.subjects), course.watch
    per_epoch = sampler.permuted_steps(n, trial.batch)
    figures: dict[str, float] = {}  # beside the number of the step on the display
    saved_s, cost_s, validation_epoch = time.monotonic(), 0.0, course.epoch
    while course.epoch < trial.epochs:
        epoch, pack = course.epoch, course.pack
        draws = pack_step.draws_of(pack.trials, pack.device)
        orders = pack_step.orders(draws, epoch, n, pack.trials, pack.device)
        for now in range(epoch * per_epoch, (epoch + 1) * per_epoch):
            losses = pack_step.advance(pack, rows, draws, orders, now, trial.epochs * per_epoch)
            course.curves.add(pack, losses)
            if progress:
                progress.update(now + 1, **figures)
        course.epoch += 1
        if course.epoch % trial.eval_every and course.epoch < trial.epochs:
            continue
        in_training = [not watch.status[place] for place in pack.places]
        rung = rungs.reached(validation_epoch, course.epoch) if rungs else None
        validation_epoch = course.epoch
        values = validate(pack, val, task, scale, watch, epoch, rungs, rung)
        course.curves.note(
            pack, in_training, {"step": now + 1, "epoch": epoch}, values, f"val_{task.metric}"
        )
        going_on = [e for e, place in enumerate(pack.places) if not watch.status[place]]
        figures = {"training": len(going_on), f"best {task.metric}": float(watch.best.max())}
        if not going_on:
            break
        if len(going_on) * LEAVE <= len(pack.trials) * (LEAVE - 1):
            course.pack = compact(pack, going_on)
        start_s = time.monotonic()
        if start_s - saved_s >= max(EVERY_S, cost_s / SAVE_SHARE):
            save(course)
            saved_s, cost_s = time.monotonic(), time.monotonic() - start_s
    watch.status = [status or "finished" for status in watch.status]


def validate(
    pack: Pack,
    val: Split,
    task: Task,
    scale: Scale,
    watch: Watch,
    epoch: int,
    rungs: Rungs | None = None,
    rung: int | None = None,
) -> np.ndarray:
    """Judge every member, keep the weights of those at their best, freeze those that have ended.

    Returns:
        The selecting metric, (E,).
    """
    values = pack_judge.judge(pack_judge.evaluate(pack, val, task, scale), val, task)
    patience, slack = (pack.knobs[name].cpu().numpy() for name in ("patience", "max_delta"))
    better = watch.see(epoch, values, pack.alive.cpu().numpy(), patience, slack, pack.places)
    keep_best(pack, better)
    if rungs and rung:
        watch.halt(pack.trials, pack.places, rungs, rung)
    pack.alive &= torch.tensor(
        [not watch.status[place] for place in pack.places], device=pack.device
    )
    log.info(
        "epoch %d: %d members train, best %s %.4f",
        epoch,
        watch.status.count(""),
        task.metric,
        watch.best.max(),
    )
    return values


# -- the verb --------------------------------------------------------------------------------------


def fit(
    trials: Sequence[Trial],
    cohort: Cohort,
    runs: Path,
    *,
    device: str | None = None,
    precision: str = "auto",
    progress: str | None = None,
) -> list[store.Finished]:
    """Train a pack of supervised trials, networks together and trees in turn,
    and write each one's folder.

    Args:
        trials: of one shape; see MAY_DIFFER. None of them finished.
        cohort: of `dataset.open`.
        runs: the folder of runs; starts are read from it and results written to it.
        device: "cpu", "cuda" …; by default a GPU if there is one.
        precision: "auto", "float32", "bfloat16" or "float64".
        progress: the name under which the display shows the pack.

    Raises:
        InputError: a mixed pack, an unknown knob, a missing start or column, a label with one
        class.
    """
    check(trials)
    check_pack(trials)
    if trials[0].method == trees.METHOD:
        with _display(runs, progress, len(trials), "trials") as display:
            return trees.fit(trials, cohort, runs, display)
    return _fit_networks(trials, cohort, runs, device, precision, progress)


def _fit_networks(
    trials: Sequence[Trial],
    cohort: Cohort,
    runs: Path,
    device: str | None,
    precision: str,
    progress: str | None,
) -> list[store.Finished]:
    """`fit` of checked trials of networks."""
    start_s, first = time.monotonic(), trials[0]
    place = hardware.device(device)
    task = tasks.of(first.task, (first.task,))
    _check_prepared_alike(trials, cohort, runs)
    splits, scale, notes = _materials(cohort, first, task, place)
    pack = assemble(trials, task, runs, place, hardware.precision(precision, place))
    steps = first.epochs * sampler.permuted_steps(len(splits["train"].subjects), first.batch)
    path, identity = _checkpoint(trials, cohort, runs, pack.precision)
    course = _course(pack, path, identity)
    with _display(runs, progress, steps, "steps") as display:
        train(
            course,
            task,
            splits["train"],
            splits["val"],
            scale,
            display,
            lambda course: checkpoint.write(path, identity, course.state()),
            asha.of(first, runs, cohort.fingerprint),
        )
    pack = at_best(pack)
    split_names = ["val"]
    if first.stage == "evaluation":
        split_names.append("test")
        splits["test"] = _test_split(trials, cohort, runs, task, scale, place)
    predictions = {
        split: pack_judge.evaluate(pack, splits[split], task, scale).cpu().numpy()
        for split in split_names
    }
    notes |= _provenance(pack, split_names, time.monotonic() - start_s, cohort)
    results = [
        _result(pack, e, task, splits, predictions, course, notes) for e in range(len(trials))
    ]
    for result in results:
        store.write(runs, result, cohort.fingerprint)
    path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # never made, or another pack's checkpoint is in it
        path.parent.rmdir()
    return results


def _test_split(
    trials: Sequence[Trial],
    cohort: Cohort,
    runs: Path,
    task: Task,
    scale: Scale,
    device: torch.device,
) -> Split:
    """The test rows, which every trial is noted to have read:
    the only place where test signals are read.
    """
    modality = trials[0].modality
    index = examples.answerable(cohort, task, modality, "test")
    for trial in trials:
        store.log_test_read(runs, trial.name, len(index))
    return examples.bring(cohort, index, task, modality, scale, device)


def _checkpoint(
    trials: Sequence[Trial], cohort: Cohort, runs: Path, precision: torch.dtype
) -> tuple[Path, dict[str, Any]]:
    """The file of this very pack, members in this order, and what it is told by."""
    members = [recipe(trial, cohort.fingerprint) for trial in trials]
    text = json.dumps([str(precision), members], sort_keys=True)
    name = hashlib.sha256(text.encode()).hexdigest()[:16]
    return runs / CHECKPOINTS / f"{name}.pt", {"pack": name}


def _course(pack: Pack, path: Path, identity: dict[str, Any]) -> Course:
    """Where a killed run of this pack left it, or its beginning."""
    try:
        state = checkpoint.read(path, identity)
    except InputError as error:
        log.warning("%s; the pack begins anew", error)
        state = None
    return Course.from_state(pack, state) if state else Course.of(pack)


@contextlib.contextmanager
def _display(
    runs: Path, name: str | None, total: int, unit: str
) -> Iterator[store.Progress | None]:
    if name is None:
        yield None
        return
    display = store.Progress(runs, name, total, unit)
    try:
        yield display
    finally:
        display.close()
        with contextlib.suppress(OSError):  # never made, or not empty
            display.path.parent.rmdir()


def _materials(
    cohort: Cohort, trial: Trial, task: Task, device: torch.device
) -> tuple[dict[str, Split], Scale, dict[str, Any]]:
    rows = examples.rows_of(cohort, trial, task)
    splits = {
        "train": examples.bring(
            cohort,
            rows.train,
            task,
            trial.modality,
            rows.scale,
            device,
            f"train {trial.task} {trial.label_fraction}",
        ),
        "val": examples.bring(
            cohort, rows.val, task, trial.modality, rows.scale, device, f"val {trial.task}"
        ),
    }
    return splits, rows.scale, rows.notes


def _provenance(
    pack: Pack, split_names: list[str], seconds: float, cohort: Cohort
) -> dict[str, Any]:
    return {
        **hardware.provenance(pack.device, pack.precision),
        "cohort": cohort.provenance,
        "seconds": round(seconds, 3),
        "pack_size": len(pack.trials),
        "test_reads": split_names.count("test"),
    }


def _result(
    pack: Pack,
    e: int,
    task: Task,
    splits: dict[str, Split],
    predictions: dict[str, np.ndarray],
    course: Course,
    notes: dict[str, Any],
) -> store.Finished:
    """What member `e` leaves behind; without a single validation that is its status alone."""
    trial, watch = pack.trials[e], course.watch
    has_validation = watch.epoch[e] >= 0
    rows: list[tuple[str, str, float, int]] = []
    tables = []
    for name, outputs in predictions.items():
        split, output = splits[name], outputs[e]
        scores = {task.metric: math.nan}
        if has_validation:
            scores = examples.scores(split.answers, output, task)
        rows += [(name, metric, score, len(output)) for metric, score in scores.items()]
        tables.append(examples.predictions(name, split.subjects, split.answers, output, task))
    weights = {}
    if trial.stage == "evaluation" and has_validation:  # those of a grid would fill the disk
        weights = {
            name: tensor[e].float().cpu().contiguous().numpy()
            for name, tensor in {**pack.params, **pack.buffers}.items()
        }
    return store.Finished(
        trial=trial,
        status=watch.status[e],
        scores=tuple(rows),
        curve=pd.DataFrame(course.curves.points[e]),
        predictions=pd.concat(tables, ignore_index=True) if has_validation else None,
        weights=weights,
        epoch=int(watch.epoch[e]),
        provenance=notes,
    )


def _check_prepared_alike(trials: Sequence[Trial], cohort: Cohort, runs: Path) -> None:
    """Refuse an encoder that was trained on signals prepared in another way."""
    for part, name in sorted({start for trial in trials for start in trial.init_from}):
        folder = store.folder(runs, name)
        if not (folder / store.RECORD).exists():
            continue  # `store.weights` says so
        check_prepared_alike(
            read_run(folder),
            cohort.recipe,
            (part,),
            where=str(cohort.path),
            advice="pre-train on this cohort or build it alike",
        )
