"""Start an encoder from another's weights: positions are resized, heads left behind,
anything else must fit by name.

The one idea: an encoder is handed on between methods that put different things on top of it, so
what belongs to a head may be missing or left over; what belongs to the encoder may not.
"""

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ecgcmr.errors import InputError
from ecgcmr.nn import vit

# Left over in a file by what sat on the encoder: MAE's decoder and norm, pooling, classifiers,
# other projectors.
_ON_TOP = (
    "norm.",
    "fc_norm.",
    "fc.",
    "head.",
    "attention_pool.",
    "mask_token",
    "decoder_",
    "projector.",
    "predictor.",
)


def into(
    module: nn.Module,
    weights: Mapping[str, np.ndarray | Tensor],
    part: str,
    *,
    continues: bool = False,
) -> None:
    """Copy weights into an encoder, in place.

    Args:
        module: the encoder; keeps its own values only for a final norm that the weights lack.
        weights: by name without prefix, as `store.weights` gives them.
        part: "ecg" or "cmr", for the error.
        continues: whether positions go on beyond their end in a longer record; else they are
            stretched over it.

    Raises:
        InputError: the names or shapes differ; lists `- in the file only`, `+ in the model only`,
        `~ of another shape`.
    """
    model = module.state_dict()
    file = {
        k: torch.as_tensor(np.asarray(v) if not isinstance(v, Tensor) else v)
        for k, v in weights.items()
    }
    if "pos_embed" in file and "pos_embed" in model:
        resize = continue_positions if continues else resize_positions
        file["pos_embed"] = resize(file["pos_embed"], model["pos_embed"].shape[1])
    if differences := _differences(file, model):
        first = f"the weights to start from and the {part} encoder differ; use the same network"
        raise InputError("\n".join([first, *differences]))
    module.load_state_dict({**model, **{k: v for k, v in file.items() if k in model}})


def _differences(file: Mapping[str, Tensor], model: Mapping[str, Tensor]) -> list[str]:
    """What does not fit, a line each."""
    extra = sorted(k for k in file if k not in model and not k.startswith(_ON_TOP))
    absent = sorted(k for k in model if k not in file and not k.startswith("norm."))
    shapes = sorted(k for k in model if k in file and file[k].shape != model[k].shape)
    lines = [f"  - in the file only: {k}" for k in extra]
    lines += [f"  + in the model only: {k}" for k in absent]
    lines += [
        f"  ~ {k}: {tuple(file[k].shape)} in the file, {tuple(model[k].shape)} in the model"
        for k in shapes
    ]
    return lines


def resize_positions(table: Tensor, rows: int, leads: int = 12) -> Tensor:
    """Positions for another number of time patches: linear interpolation along time, lead by lead.

    Args:
        table: (1, 1 + leads · times, width), the class token's row first; that one is kept.
        rows: 1 + leads · new times.
        leads: of the record.
    """
    if table.shape[1] == rows or (table.shape[1] - 1) % leads or (rows - 1) % leads:
        return table  # equal, or a mismatch that the caller reports by its shapes
    grid = table[0, 1:].unflatten(0, (leads, -1)).transpose(1, 2)
    grid = F.interpolate(grid, size=(rows - 1) // leads, mode="linear", align_corners=False)
    return torch.cat([table[:, :1], grid.transpose(1, 2).flatten(0, 1)[None]], 1)


def continue_positions(table: Tensor, rows: int, leads: int = 12) -> Tensor:
    """Positions for more time patches: those there are, then the sine-cosine of later times.

    The table of MAE goes on as itself. One that was trained began as sine-cosine too; what training
    added to a lead, on average over time, is added beyond its end.

    Args:
        table, rows, leads: see `resize_positions`; fewer rows are the first times.
    """
    if table.shape[1] == rows or (table.shape[1] - 1) % leads or (rows - 1) % leads:
        return table  # as in `resize_positions`
    times, width = (table.shape[1] - 1) // leads, table.shape[-1]
    grid = table[0, 1:].unflatten(0, (leads, times))
    sine = vit.positions(width, leads, max(times, (rows - 1) // leads))[0, 1:].to(table)
    sine = sine.unflatten(0, (leads, -1))
    beyond = sine[:, times:] + (grid - sine[:, :times]).mean(1, keepdim=True)
    longer = torch.cat([grid, beyond], 1)[:, : (rows - 1) // leads]
    return torch.cat([table[:, :1], longer.flatten(0, 1)[None]], 1)
