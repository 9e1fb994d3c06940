"""A run made of an encoder that came in a file, from which trials may start.

The one idea: a file's tensors say the sizes of their network; what they do not tell comes from the
file's notes, or is the paper's. A file of ours also says which run and which signals it learnt
from.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from ecgcmr import presets, store
from ecgcmr import trial as trials
from ecgcmr.errors import InputError
from ecgcmr.inference import weights
from ecgcmr.inference.model import Arrays, supervised_network
from ecgcmr.nn import Network, vit
from ecgcmr.runs import read_run
from ecgcmr.runtime import hardware
from ecgcmr.signals import ecg
from ecgcmr.trial import Trial

HEADS = {384: 6}  # attention heads of the published width; no tensor's shape tells them
WORD = re.compile(r"\w[\w.+-]*")  # what may name a folder


def adopt(
    file: Path,
    runs: Path,
    *,
    part: str,
    space: str,
    system: str,
    heads: int | None = None,
    preset: str | None = None,
) -> str:
    """Make a finished pre-training of an encoder that came in a file, from which trials may start.

    Args:
        file: see `weights.open_file`. What sat on the encoder (MAE's decoder, projectors,
            classifiers) is left behind.
        runs: the folder of runs.
        part: "ecg" or "cmr".
        space, system: the first folder and the system's word in the run's name.
        heads: attention heads of an ECG encoder, where neither the file's notes nor its width tell.
        preset: that its weights were made with; by default what the file's notes say, else "paper".
            An ECG encoder of `paper` opens for whole ECGs, its positions continued, one
            of `authors` for the first half that it learnt from.

    Returns:
        The run's name, `<space>/pretrain/<part>/<system>/default/seed=0`; one that is there
        already, of the same file, stays.

    Raises:
        InputError: the file cannot be read or holds another kind of network; or a run of this name
            is of another file, or its notes contradict `preset`.
    """
    for option, word in (("--space", space), ("--system", system)):
        if not WORD.fullmatch(word):
            raise InputError(
                f"{option} '{word}': use letters, digits, '.', '-', '+' and '_' only; it names a "
                "folder"
            )
    weight_file = weights.open_file(file)
    tensors = _with_counters(weight_file.encoder(part))
    network = network_of(weight_file, part, tensors, heads)
    trial = _trial(space, part, system, network, preset_of(weight_file, preset))
    names = {
        *supervised_network(part, tensors, trial).get_submodule(part).state_dict(),
        "norm.weight",
        "norm.bias",
    }
    arrays = {
        f"{part}.{name}": np.asarray(values, order="C")
        for name, values in tensors.items()
        if name in names
    }
    notes = _provenance(weight_file, sorted(tensors.keys() - names))
    folder = store.folder(runs, trial.name)
    if not (folder / store.RECORD).exists():
        store.write(
            runs, store.Finished(trial, "finished", (), pd.DataFrame(), None, arrays, 0, notes), ""
        )
        return trial.name
    old = read_run(folder)
    if old.provenance.get("imported", {}).get("sha256") != notes["imported"]["sha256"]:
        raise InputError(f"{folder} was made of another file; choose another --system")
    if old.trial != trial:
        raise InputError(f"{folder} was made with other --heads; choose another --system")
    return trial.name


def preset_of(weight_file: weights.File, requested: str | None) -> str:
    """The preset that a file's weights were made with, see `adopt`.

    Raises:
        InputError: there is no such preset, or the file says another.
    """
    noted = weight_file.notes.get("preset")
    if requested and noted and requested != noted:
        raise InputError(
            f"{weight_file.path} was made with the preset '{noted}', not '{requested}'; "
            "leave out --preset"
        )
    return presets.preset(requested or noted or "paper").name


def _trial(space: str, part: str, system: str, network: Network, preset: str) -> Trial:
    """The pre-training that stands for an import."""
    return Trial(
        space=space,
        stage="pretrain",
        task=part,
        system=system,
        method=trials.IMPORTED,
        modality=part,
        batch=0,
        epochs=0,
        network=network,
        preset=preset,
    )


def _provenance(weight_file: weights.File, left_behind: list[str]) -> dict[str, Any]:
    """Where imported weights are from; of a file of ours also which run and which signals they have
    learnt from.
    """
    origin: dict[str, Any] = {
        "file": weight_file.path.name,
        "layout": weight_file.layout,
        "left_behind": left_behind,
    }
    origin["sha256"] = hashlib.sha256(weight_file.path.read_bytes()).hexdigest()
    origin |= {
        name: weight_file.notes[name]
        for name in ("run", "fingerprint")
        if name in weight_file.notes
    }
    cohort = _note(weight_file, "cohort")
    notes = {**hardware.provenance(torch.device("cpu"), torch.float32), "imported": origin}
    return {**notes, "cohort": cohort} if cohort else notes


def _note(weight_file: weights.File, name: str) -> dict[str, Any]:
    """A JSON note of a file of ours; foreign files have none."""
    try:
        note = json.loads(weight_file.notes.get(name, "{}"))
    except ValueError as error:
        raise InputError(
            f"{weight_file.path}: the note '{name}' is damaged; export the run again"
        ) from error
    return note if isinstance(note, dict) else {}


def _with_counters(tensors: Arrays) -> Arrays:
    """With the counter of every batch norm, which old files and those of other tools lack."""
    norms = [name.removesuffix("running_var") for name in tensors if name.endswith("running_var")]
    return {**{f"{norm}num_batches_tracked": np.array(0) for norm in norms}, **tensors}


def network_of(
    weight_file: weights.File, part: str, tensors: Arrays, heads: int | None = None
) -> Network:
    """The sizes that these tensors are of; what they do not tell comes from the file's notes or is
    the paper's.

    Raises:
        InputError: it is no network of this package.
    """
    sizes = _note(weight_file, "network")
    try:
        if part == "cmr":
            return _image_sizes(
                weight_file.path, tensors, sizes.get("image_size", Network.image_size)
            )
        return _signal_sizes(weight_file.path, tensors, heads or sizes.get("heads"))
    except InputError:
        raise
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise InputError(
            f"{weight_file.path}: {error} is not as an encoder of part '{part}' has it; see --part"
        ) from error


def _signal_sizes(path: Path, tensors: Arrays, heads: int | None) -> Network:
    width, rows = tensors["cls_token"].shape[-1], tensors["pos_embed"].shape[1]
    kernel = tensors["patch_embed.proj.weight"].shape
    depth = len({name.split(".")[1] for name in tensors if name.startswith("blocks.")})
    crop = (rows - 1) // vit.LEADS * kernel[-1]
    if (
        kernel[1:3] != (1, 1)
        or (rows - 1) % vit.LEADS
        or not 0 < crop <= ecg.SAMPLES
        or ecg.SAMPLES % kernel[-1]
    ):
        raise InputError(
            f"{path}: patches of {kernel[1:]} and {rows} positions; only patches of one lead, (1, "
            "1, n), that fill up to "
            f"{ecg.SAMPLES} samples of 12 leads, after a class token, are supported"
        )
    heads = heads or HEADS.get(width)
    if not heads or width % heads or width % 4:
        other_than = "" if not heads else f", not {heads}"
        raise InputError(
            f"{path}: an encoder of width {width} needs the number of its attention "
            f"heads{other_than}; give --heads"
        )
    return Network(crop=crop, patch=kernel[-1], width=width, depth=depth, heads=heads)


def _image_sizes(path: Path, tensors: Arrays, image_size: int) -> Network:
    if "layer1.0.conv3.weight" not in tensors:
        raise InputError(
            f"{path}: no 'layer1.0.conv3'; only ResNets of bottlenecks, such as ResNet-50, are "
            "supported"
        )
    blocks = [
        {name.split(".")[1] for name in tensors if name.startswith(f"layer{i}.")}
        for i in (1, 2, 3, 4)
    ]
    first, second, third, fourth = map(len, blocks)
    width = tensors["conv1.weight"].shape[0]
    return Network(
        blocks=(first, second, third, fourth), image_width=width, image_size=int(image_size)
    )
