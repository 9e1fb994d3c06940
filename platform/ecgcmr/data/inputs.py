"""What a network reads of stored signals: the one place that asks `Signal.to_model`.

Two roads lead there. Pre-training converts every batch. Fine-tuning sees its rows hundreds of times
and holds them on the device: converted, in half precision, where a signal converts `once`, else as
stored. Between the two lies a rounding, so runs are only compared with runs of the same road.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ecgcmr.signals import SIGNALS


def to_model(batch: Mapping[str, Tensor], dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """What networks read of stored signals, (n, *shape) by name; other entries as they are."""
    return {
        name: SIGNALS[name].to_model(x, dtype) if name in SIGNALS else x
        for name, x in batch.items()
    }


def held(stored_signal: np.ndarray, name: str, device: torch.device) -> Tensor:
    """A stored signal, (n, *shape), as fine-tuning and evaluation hold it on the device."""
    x = torch.from_numpy(np.array(stored_signal)).to(device)  # a copy: it may be a view of a file
    signal = SIGNALS[name]
    return signal.to_model(x.float(), torch.float16) if signal.once else x


def of_held(x: Tensor, name: str, dtype: torch.dtype) -> Tensor:
    """What a network reads of a signal that is `held`."""
    signal = SIGNALS[name]
    return x.to(dtype) if signal.once else signal.to_model(x, dtype)
