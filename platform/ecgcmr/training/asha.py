"""Asynchronous successive halving: at a rung, a grid's trial trains on only if it is among
the best that reached it.

The paper runs its whole grid and so does this platform by default; a trial that ran under this rule
says so in its name. Rungs are files that any process appends to, so packs and nodes share them.
Nothing is promoted later: who ends, ends.

Source: Li et al., A System for Massively Parallel Hyperparameter Tuning, MLSys 2020, in its
stopping form.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ecgcmr.trial import Trial

FOLDER = ".rungs"  # below runs
COUNT = 3


@dataclass(frozen=True)
class Rungs:
    """The rungs of one question.

    Attributes:
        folder: where their files lie.
        keep: one in so many goes on.
        epochs: after how many epochs each rung stands, ascending.
    """

    folder: Path
    keep: int
    epochs: tuple[int, ...]

    def reached(self, before: int, now: int) -> int | None:
        """The last rung between two numbers of finished epochs, the first exclusive.

        None if there is none.
        """
        return max((rung for rung in self.epochs if before < rung <= now), default=None)

    def survivors(self, rung: int, values: Mapping[str, float]) -> set[str]:
        """Report the best values so far of trials at a rung, by name; who of them goes on.

        A trial goes on if it is among the best ⌈n / keep⌉ of the n that have reported there, equal
        values included.
        """
        path = self.folder / f"{rung}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = "".join(f"{json.dumps([name, value])}\n" for name, value in values.items())
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            # One write: lines of other processes come before or after.
            os.write(file, lines.encode())
        finally:
            os.close(file)
        # Of a resumed trial the last line counts.
        value_of = dict(json.loads(line) for line in path.read_text().splitlines())
        count = -(-len(value_of) // self.keep)
        least = sorted(value_of.values(), reverse=True)[count - 1]
        return {name for name in values if value_of[name] >= least}


def of(trial: Trial, runs: Path, cohort_fingerprint: str) -> Rungs | None:
    """The rungs at which a trial is compared with its grid; None if its grid is run whole."""
    if trial.stage != "grid" or not trial.asha:
        return None
    steps = {max(1, round(trial.epochs / trial.asha**k)) for k in range(1, COUNT + 1)}
    question = Path(
        trial.space,
        trial.task,
        trial.system,
        f"label_fraction={trial.label_fraction:g},{trial.preset},seed={trial.seed}",
    )
    folder = runs / FOLDER / cohort_fingerprint / question
    epochs = tuple(sorted(step for step in steps if step < trial.epochs))
    return Rungs(folder, trial.asha, epochs)
