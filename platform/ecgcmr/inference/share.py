"""A folder of a model that can be handed on: all that serving needs of one system, and no row about
a person.
"""

import os
import shutil
from pathlib import Path

import torch

from ecgcmr import checksums, files, store, tasks
from ecgcmr.errors import InputError
from ecgcmr.inference import calibration, ensemble
from ecgcmr.runs import Run


def share(folder: Path | str, out: Path | str, system: str | None = None) -> dict[str, list[Run]]:
    """Make a folder that holds all that serving needs of one system, and no row about a person.

    Weights, records and what the answers mean; neither predictions nor pseudonyms. Counts and
    percentiles of the validation rows are in it, as are prevalence and the fingerprint of the
    cohort.

    Returns:
        The runs that were copied, by task.

    Raises:
        InputError: see `ensemble.runs_in`, `ensemble.of_system` and `calibration.meaning`; or `out`
            is there already.
    """
    out, seeds_by_task = Path(out), ensemble.of_system(ensemble.runs_in(Path(folder)), system)
    if out.exists():
        raise InputError(f"{out}: is there already; choose another folder or delete it")
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        for name, seeds in seeds_by_task.items():
            meaning = calibration.meaning(seeds, tasks.of(name, (name,)))
            for run in seeds:
                ensemble.network(run, torch.device("cpu"))  # what cannot be loaded is not shared
                copy = aside / name / run.folder.name
                copy.mkdir(parents=True)
                for file in (store.RECORD, store.ENCODER):
                    shutil.copyfile(store.verified(run.folder, file), copy / file)
                checksums.write(copy)
            files.write_json(
                aside / name / calibration.CALIBRATION,
                {
                    "format": 1,
                    "level": calibration.LEVEL,
                    "answers": calibration.meaning_record(meaning),
                },
            )
            checksums.write(aside / name)
        files.flush_all(aside)
        aside.rename(out)
        files.flush(out.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return seeds_by_task
