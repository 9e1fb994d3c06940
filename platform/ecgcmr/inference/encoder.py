"""One encoder of a finished run, which makes embeddings of signals as a shard holds them."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from ecgcmr import presets
from ecgcmr.cohort import shards
from ecgcmr.data import inputs
from ecgcmr.errors import unknown
from ecgcmr.inference import ensemble, model
from ecgcmr.inference.model import Model
from ecgcmr.methods import encodings
from ecgcmr.runtime import hardware


@dataclass(frozen=True, eq=False)
class Encoder:
    """An encoder of a finished run, for evaluation.

    Attributes:
        run: whose it is.
        modality: the signal that it reads.
        device: where it is.
        dtype: of its weights: float32, or float64 if it was trained so.
    """

    run: Model
    modality: str
    device: torch.device
    dtype: torch.dtype

    @property
    def pooling(self) -> str:
        """What an embedding is, in words."""
        answers = self.run.head is not None and self.modality == "ecg"
        return "what the last layer reads" if answers else encodings.of(self.modality).pooling

    @torch.no_grad()
    def of(self, signals: np.ndarray) -> np.ndarray:
        """Embeddings of signals as a shard holds them.

        An ECG is seen whole, as fine-tuning starts from it (positions of a pre-training reach over
        it as the preset has it). Of a pre-training it is the mean token, which contrastive learning
        compares; of a fine-tuned network what its last layer reads, so logits are a linear function
        of it. Of an image it is what the ResNet pools.

        Args:
            signals: (n, *shape), e.g. (n, 12, 5000) float16 mV.

        Returns:
            (n, width) float32.
        """
        x = inputs.held(signals, self.modality, self.device)
        x = self._view(inputs.of_held(x, self.modality, self.dtype), {})
        encoding, network = encodings.of(self.modality), self.run.encoders[self.modality]
        if self.run.head is not None and self.modality == "ecg":
            embeddings = self.run.head.embedding(encoding.features(network, x, None, 0.0, False))
        else:
            embeddings = encoding.embed(network, x, None, 0.0, False)
        return embeddings.float().cpu().numpy()

    @cached_property
    def _view(self) -> encodings.View:
        """What fine-tuning shows in evaluation: an ECG from its beginning, an image resized."""
        trial = self.run.trial
        samples = self.run.samples if self.run.ecg else 0
        preset = presets.preset(trial.preset)
        return encodings.of(self.modality).view(trial.network, preset, samples, rate=0.0)

    @property
    def width(self) -> int:
        """Numbers of an embedding."""
        signal = shards.SIGNALS[self.modality]
        return self.of(np.zeros((1, *signal.shape), signal.dtype)).shape[1]


def open_encoder(
    folder: Path | str, modality: str | None = None, device: str | None = None
) -> Encoder:
    """The encoder of the one run in a folder.

    Args:
        folder: of a pre-training or an evaluation run, or one above it that holds no other.
        modality: the signal; None for the only one there is, or "ecg".
        device: "cpu", "cuda" …; by default a GPU if there is one.

    Raises:
        InputError: see `model.open_run`; or the run has no such encoder.
    """
    run, place = model.open_run(folder), hardware.device(device)
    encoders = run.encoders
    modality = modality or next(iter(encoders))
    if modality not in encoders:
        raise unknown(f"modality of the encoders in {run.run.folder}", modality, encoders)
    dtype = ensemble.dtype(run.run.provenance)
    for part in (encoders[modality], run.head):
        if part is not None:
            part.to(place, dtype)
    return Encoder(run, modality, place, dtype)
