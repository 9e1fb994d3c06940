"""How one step learns: loss = f(parameters, batch, noise, knobs), a pure function per method, one
file each.

A new method is one file that meets `contract.Method`, and one line of the registry below.
"""

import torch

from ecgcmr import plugins
from ecgcmr.errors import InputError, unknown
from ecgcmr.methods.barlow_twins import BarlowTwins
from ecgcmr.methods.byol import BYOL
from ecgcmr.methods.clocs import CLOCS
from ecgcmr.methods.contract import Method
from ecgcmr.methods.mae import MAE
from ecgcmr.methods.mmcl import MMCL
from ecgcmr.methods.simclr import SimCLR
from ecgcmr.methods.supervised import Supervised
from ecgcmr.nn import Network
from ecgcmr.presets import Preset
from ecgcmr.signals import ecg

METHODS: dict[str, type[Method]] = {
    "mae": MAE,
    "mmcl": MMCL,
    "simclr": SimCLR,
    "byol": BYOL,
    "clocs": CLOCS,
    "barlow_twins": BarlowTwins,
    "supervised": Supervised,
}


def register(name: str, method: type[Method]) -> None:
    """Add a method, from a plugin.

    Raises:
        InputError: the name is taken.
    """
    plugins.register(METHODS, "method", name, method)


def build(
    name: str,
    network: Network,
    preset: Preset,
    *,
    outputs: int = 0,
    modality: str = "",
    seed: int = 0,
    samples: int | None = None,
) -> Method:
    """A method with fresh weights, in float32 on the CPU.

    Args:
        name: one of METHODS.
        network: sizes.
        preset: paper or authors.
        outputs: width of the supervised head.
        modality: what it reads, one of the method's `modalities`; by default the first of them.
        seed: of the weights; equal seeds give equal weights, and torch's own random state is left
            as it was.
        samples: ECG samples that the network sees; by default a crop, or for supervised trials what
            the preset says.

    Raises:
        InputError: no such method, or sizes that do not go together; names the field.
    """
    if name not in METHODS:
        raise unknown("method", name, METHODS)
    modality = modality or METHODS[name].modalities[0]
    if samples is None:
        whole = name == "supervised" and preset.finetune_ecg != "crop"
        samples = ecg.SAMPLES if whole else network.crop
    _check(name, network, outputs, modality, samples)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return METHODS[name](network, preset, outputs=outputs, modality=modality, samples=samples)


def _check(name: str, network: Network, outputs: int, modality: str, samples: int) -> None:
    # Every trial has a modality field, "ecg" unless told otherwise; methods that read one thing
    # ignore it.
    if modality not in METHODS[name].modalities and len(METHODS[name].modalities) > 1:
        raise unknown(f"modality of method '{name}'", modality, METHODS[name].modalities)
    if name == "supervised" and outputs < 1:
        raise InputError(
            f"outputs={outputs} of method 'supervised': give the width of the head, 2 for a disease"
        )
    if samples % network.patch or samples < network.patch:
        raise InputError(
            f"network.patch={network.patch} does not divide the {samples} samples that the "
            "network sees"
        )
    for width, heads in (("width", "heads"), ("decoder_width", "decoder_heads")):
        if getattr(network, width) % getattr(network, heads) or getattr(network, width) % 4:
            raise InputError(
                f"network.{width}={getattr(network, width)} must be a multiple of 4 and of "
                f"network.{heads}"
            )


def knobs(method: Method, overrides: dict[str, float]) -> dict[str, float]:
    """The method's defaults, overridden by what is given.

    Raises:
        InputError: the method has no such knob; lists those it has.
    """
    for name in overrides:
        if name not in method.knobs:
            raise unknown(f"knob of method '{type(method).__name__.lower()}'", name, method.knobs)
    return {**method.knobs, **overrides}
