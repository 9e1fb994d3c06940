"""What a finished run learnt, as networks for evaluation.

The one idea: a run's folder is all there is to know about a model. Its trial says the sizes, its
tensors say the rest, so runs that were pre-trained, fine-tuned and imported open alike. This file
trains nothing and reads no signals.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ecgcmr import checksums, methods, presets, store
from ecgcmr.errors import InputError
from ecgcmr.evaluation import selection
from ecgcmr.inference import weights
from ecgcmr.nn import load, resnet, vit
from ecgcmr.nn.heads import EcgHead
from ecgcmr.runs import Run, folders_of, read_run
from ecgcmr.signals import SIGNALS, ecg
from ecgcmr.trial import Trial

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Model:
    """A run's networks, in float32 on the CPU, for evaluation.

    Attributes:
        run: the run.
        ecg: its ECG encoder as fine-tuning has it: for whole ECGs (positions of a pre-training
            reach over them as the preset has it), or with the preset `authors` for their first
            half, and without a final norm. None if it has none.
        cmr: its image encoder, or None.
        head: what answers from the ECG encoder's tokens, in a fine-tuned run; else None.
        encoders: every encoder, by its signal.
    """

    run: Run
    ecg: vit.ViT | None
    cmr: resnet.ResNet | None
    head: EcgHead | None
    encoders: Mapping[str, torch.nn.Module] = field(default_factory=dict)

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


def find(word: str | Path, runs: Path) -> Run:
    """The one finished run that a word means.

    Args:
        word: a run's folder, its name under `runs`, or a folder that holds no other; of a sweep of
            pre-trainings the run that was chosen, of one with several seeds the first.
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
        # Its configuration, or its system of one configuration, is named; a folder above is not it.
        of_seeds = len({folder.parent for folder in folders}) == 1
        of_seeds &= Path(word).name in folders[0].parts[-3:-1]
        standing = selection.standing_pretraining(inside) if chosen or of_seeds else None
        if standing:
            return standing
    examples = ", ".join(str(folder) for folder in folders[:2])
    raise InputError(f"{word} holds {len(folders)} runs; name one of them, e.g. {examples}")


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
    if store.ENCODER not in checksums.names(folder):
        stage = f"of stage '{trial.stage}' and method '{trial.method}'"
        why = "diverged" if run.diverged else stage
        raise InputError(
            f"run '{run.name}' kept no weights ({why}); name a pre-training or an evaluation run "
            "of a network"
        )
    file = weights.open_file(store.verified(folder, store.ENCODER))
    parts_there = {tensor.split(".")[0] for tensor in file.tensors}
    if not parts_there & {*SIGNALS}:
        raise InputError(
            f"run '{run.name}' kept {', '.join(sorted(parts_there))}, and none of these is a "
            "registered signal; name the module that registers it in ECGCMR_PLUGINS"
        )
    answers = trial.stage != "pretrain"  # a pre-training's head is its projectors
    head = file.encoder("head") if answers else {}
    networks = {
        part: supervised_network(part, file.encoder(part), trial, head)
        for part in SIGNALS
        if part in parts_there
    }
    return Model(
        run,
        ecg=networks["ecg"].ecg if "ecg" in networks else None,
        cmr=networks["cmr"].cmr if "cmr" in networks else None,
        head=networks["ecg"].head if "ecg" in networks and answers else None,
        encoders={part: network.get_submodule(part) for part, network in networks.items()},
    )


def supervised_network(part: str, tensors: Arrays, trial: Trial, head: Arrays | None = None) -> Any:
    """A supervised network with this encoder, which sees what fine-tuning shows it, and with this
    head if it has one.

    Raises:
        InputError: names or shapes are not of the trial's network.
    """
    outputs = len(head["head.bias"]) if head else 1
    network: Any = methods.build(
        "supervised", trial.network, presets.preset(trial.preset), outputs=outputs, modality=part
    )
    network.load(part, tensors)
    if head:
        load.into(network.head, head, "head")
    return network.eval().requires_grad_(False)
