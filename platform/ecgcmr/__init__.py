"""ecgcmr teaches the 12-lead ECG what cardiac MRI knows; `docs/architecture.md` shows how a shard
becomes a table cell.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from ecgcmr.inference.encoder import Encoder
    from ecgcmr.inference.predict import Model

__version__ = "0.2.0"


def load(folder: "Path | str", system: str | None = None, device: str | None = None) -> "Model":
    """A finished model that answers ECGs; see `inference.predict.load`."""
    from ecgcmr.inference import predict  # not above: importing the package stays fast

    return predict.load(folder, system, device)


def encoder(
    folder: "Path | str", modality: str | None = None, device: str | None = None
) -> "Encoder":
    """The encoder of a pre-training or an evaluation run; see `inference.encoder.open_encoder`."""
    from ecgcmr.inference import encoder as encoders

    return encoders.open_encoder(folder, modality, device)
