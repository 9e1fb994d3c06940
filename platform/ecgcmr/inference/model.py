"""What a finished run learnt, as networks for evaluation; and a run made of weights that came in a file.

The one idea: a run's folder is all there is to know about a model. Its trial says the sizes, its tensors say the rest, so
runs that were pre-trained, fine-tuned and imported open alike. This file trains nothing and reads no signals.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from ecgcmr import methods, presets, store
from ecgcmr import trial as trials
from ecgcmr.errors import InputError
from ecgcmr.evaluation import selection
from ecgcmr.inference import weights
from ecgcmr.nn import Network, load, resnet, vit
from ecgcmr.nn.heads import EcgHead
from ecgcmr.runs import Run, folders_of, read_run
from ecgcmr.runtime import hardware
from ecgcmr.signals import SIGNALS, ecg
from ecgcmr.trial import Trial

HEADS = {384: 6}  # attention heads of the published width; no tensor's shape tells them
WORD = re.compile(r"\w[\w.+-]*")  # what may name a folder

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Model:
    """A run's networks, in float32 on the CPU, for evaluation.

    Attributes:
        run: the run.
        ecg: its ECG encoder as fine-tuning has it: for whole ECGs (positions of a pre-training are stretched over them), or
            with the preset `authors` for their first half, and without a final norm. None if it has none.
        cmr: its image encoder, or None.
        head: what answers from the ECG encoder's tokens, in a fine-tuned run; else None.
        encoders: every encoder, by its signal.
    """

    run: Run
    ecg: vit.ViT | None
    cmr: resnet.ResNet | None
    head: EcgHead | None
    encoders: Mapping[str, torch.nn.Module]

    @property
    def trial(self) -> Trial:
        """What was run."""
        return self.run.trial

    @property
    def samples(self) -> int:
        """Samples of a prepared ECG, from its beginning, that the ECG encoder sees.

        Raises:
            InputError: it has no ECG encoder.
        """
        return self.ecg_encoder.patch * self.ecg_encoder.times

    @property
    def patch_s(self) -> float:
        """Seconds of a patch of the ECG."""
        return self.ecg_encoder.patch / ecg.RATE_HZ

    @property
    def ecg_encoder(self) -> vit.ViT:
        """The ECG encoder.

        Raises:
            InputError: it has none.
        """
        if self.ecg is None:
            raise InputError(
                f"run '{self.run.name}' has no ECG encoder; name one that was trained on ECGs"
            )
        return self.ecg


# -- from a folder -----------------------------------------------------------------------------------------------------


def find(word: str | Path, runs: Path) -> Run:
    """The one finished run that a word means.

    Args:
        word: a run's folder, its name under `runs`, or a folder that holds no other; of a sweep of
            pre-trainings the run that was chosen.
        runs: the folder of runs.

    Raises:
        InputError: there is no finished run, or several.
    """
    folders = folders_of(word, runs)
    if len(folders) == 1:
        return read_run(folders[0])
    inside = [read_run(folder) for folder in folders]
    of_sweep = {run.trial.stage for run in inside} == {"pretrain"}
    if of_sweep and len({folder.parents[1] for folder in folders}) == 1:
        chosen = selection.read_choice(folders[0].parents[1])
        standing = selection.standing_pretraining(inside) if chosen else None
        if standing:
            return standing
    listed = ", ".join(str(folder) for folder in folders[:2])
    raise InputError(f"{word} holds {len(folders)} runs; name one of them, e.g. {listed}")


def open_run(word: str | Path, runs: Path = Path("runs")) -> Model:
    """The networks of a finished run.

    Args:
        word: see `find`.
        runs: see `find`.

    Raises:
        InputError: there is none, it kept no weights, or they do not fit its trial.
    """
    run = find(word, runs)
    trial, folder = run.trial, run.folder
    if not (folder / store.ENCODER).exists():
        stage = f"of stage '{trial.stage}' and method '{trial.method}'"
        why = "diverged" if run.diverged else stage
        raise InputError(
            f"run '{run.name}' kept no weights ({why}); name a pre-training or a final run of a network"
        )
    file = weights.open_file(folder / store.ENCODER)
    held = {tensor.split(".")[0] for tensor in file.tensors}
    answers = trial.stage != "pretrain"  # a pre-training's head is its projectors
    head = file.encoder("head") if answers else {}
    built = {
        part: _network(part, file.encoder(part), trial, head) for part in SIGNALS if part in held
    }
    return Model(
        run,
        ecg=built["ecg"].ecg if "ecg" in built else None,
        cmr=built["cmr"].cmr if "cmr" in built else None,
        head=built["ecg"].head if "ecg" in built and answers else None,
        encoders={part: network.get_submodule(part) for part, network in built.items()},
    )


def _network(part: str, tensors: Arrays, trial: Trial, head: Arrays | None = None) -> Any:
    """A supervised network with this encoder, which sees what fine-tuning shows it, and with this head if it has one.

    Raises:
        InputError: names or shapes are not of the trial's network.
    """
    outputs = len(head["head.bias"]) if head else 1
    made: Any = methods.build(
        "supervised", trial.network, presets.preset(trial.preset), outputs=outputs, modality=part
    )
    made.load(part, tensors)
    if head:
        load.into(made.head, head, "head")
    return made.eval().requires_grad_(False)


# -- from a file -------------------------------------------------------------------------------------------------------


def adopt(
    file: Path, runs: Path, *, part: str, space: str, label: str, heads: int | None = None
) -> str:
    """Make a finished pre-training of an encoder that came in a file, from which trials may start.

    Args:
        file: see `weights.open_file`. What sat on the encoder (MAE's decoder, projectors, classifiers) is left behind.
        runs: the folder of runs.
        part: "ecg" or "cmr".
        space, label: the first folder and the system's word in the run's name.
        heads: attention heads of an ECG encoder, where neither the file's notes nor its width tell.

    Returns:
        The run's name, `<space>/pretrain/<part>/<label>/default/seed=0`; one that is there already, of the same file, stays.

    Raises:
        InputError: the file cannot be read or holds another kind of network; or a run of this name is of another file.
    """
    for option, word in (("--space", space), ("--label", label)):
        if not WORD.fullmatch(word):
            raise InputError(
                f"{option} '{word}': use letters, digits, '.', '-', '+' and '_' only; it names a folder"
            )
    opened = weights.open_file(file)
    tensors = _counted(opened.encoder(part))
    trial = Trial(
        space=space,
        stage="pretrain",
        task=part,
        label=label,
        method=trials.IMPORTED,
        modality=part,
        batch=0,
        epochs=0,
        network=network_of(opened, part, tensors, heads),
    )
    names = {
        *_network(part, tensors, trial).get_submodule(part).state_dict(),
        "norm.weight",
        "norm.bias",
    }
    kept = {
        f"{part}.{name}": np.asarray(values, order="C")
        for name, values in tensors.items()
        if name in names
    }
    notes = _provenance(opened, sorted(tensors.keys() - names))
    folder = store.folder(runs, trial.name)
    if not (folder / store.RECORD).exists():
        store.write(
            runs, store.Finished(trial, "finished", (), pd.DataFrame(), None, kept, 0, notes), ""
        )
        return trial.name
    old = read_run(folder)
    if old.provenance.get("imported", {}).get("sha256") != notes["imported"]["sha256"]:
        raise InputError(f"{folder} was made of another file; choose another --label")
    if old.trial != trial:
        raise InputError(f"{folder} was made with other --heads; choose another --label")
    return trial.name


def _provenance(opened: weights.File, left: list[str]) -> dict[str, Any]:
    """Where imported weights are from; of a file of ours also which run and which signals they have learnt from."""
    found: dict[str, Any] = {"file": opened.path.name, "layout": opened.layout, "left_behind": left}
    found["sha256"] = hashlib.sha256(opened.path.read_bytes()).hexdigest()
    found |= {name: opened.notes[name] for name in ("run", "fingerprint") if name in opened.notes}
    cohort = _noted(opened, "cohort")
    notes = {**hardware.provenance(torch.device("cpu"), torch.float32), "imported": found}
    return {**notes, "cohort": cohort} if cohort else notes


def _noted(opened: weights.File, name: str) -> dict[str, Any]:
    """A JSON note of a file of ours; foreign files have none."""
    try:
        found = json.loads(opened.notes.get(name, "{}"))
    except ValueError as error:
        raise InputError(
            f"{opened.path}: the note '{name}' is damaged; export the run again"
        ) from error
    return found if isinstance(found, dict) else {}


def _counted(tensors: Arrays) -> Arrays:
    """With the counter of every batch norm, which old files and those of other tools lack."""
    norms = [name.removesuffix("running_var") for name in tensors if name.endswith("running_var")]
    return {**{f"{norm}num_batches_tracked": np.array(0) for norm in norms}, **tensors}


def network_of(
    opened: weights.File, part: str, tensors: Arrays, heads: int | None = None
) -> Network:
    """The sizes that these tensors are of; what they do not tell comes from the file's notes or is the paper's.

    Raises:
        InputError: it is no network of this package.
    """
    noted = _noted(opened, "network")
    try:
        if part == "cmr":
            return _image_sizes(opened.path, tensors, noted.get("image_size", Network.image_size))
        return _signal_sizes(opened.path, tensors, heads or noted.get("heads"))
    except InputError:
        raise
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise InputError(
            f"{opened.path}: {error} is not as an encoder of part '{part}' has it; see --part"
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
            f"{path}: patches of {kernel[1:]} and {rows} positions; only patches of one lead, (1, 1, n), that fill up to "
            f"{ecg.SAMPLES} samples of 12 leads, after a class token, are supported"
        )
    heads = heads or HEADS.get(width)
    if not heads or width % heads or width % 4:
        told = "" if not heads else f", not {heads}"
        raise InputError(
            f"{path}: an encoder of width {width} needs the number of its attention heads{told}; give --heads"
        )
    return Network(crop=crop, patch=kernel[-1], width=width, depth=depth, heads=heads)


def _image_sizes(path: Path, tensors: Arrays, image_size: int) -> Network:
    if "layer1.0.conv3.weight" not in tensors:
        raise InputError(
            f"{path}: no 'layer1.0.conv3'; only ResNets of bottlenecks, such as ResNet-50, are supported"
        )
    found = [
        {name.split(".")[1] for name in tensors if name.startswith(f"layer{i}.")}
        for i in (1, 2, 3, 4)
    ]
    one, two, three, four = map(len, found)
    width = tensors["conv1.weight"].shape[0]
    return Network(blocks=(one, two, three, four), image_width=width, image_size=int(image_size))
