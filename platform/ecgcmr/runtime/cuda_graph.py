"""A step of fixed shapes recorded once as a CUDA graph and replayed from then on.

The one idea: a step is a pure function of tensors, so its kernels are the same every time; launched
one by one from Python they keep a GPU waiting whenever batch or network is small. Recorded, they
start together. Elsewhere than on a GPU the function is simply called. This file does not know what
a step computes.

`ECGCMR_GRAPHS=off` in the environment switches it off; `ECGCMR_COMPILE=on` lets torch.compile merge
a step's kernels first.
"""

import logging
import os
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

log = logging.getLogger(__name__)

SWITCH = "ECGCMR_GRAPHS"
COMPILE = "ECGCMR_COMPILE"  # off by default: compiling takes the time of 15,000 MAE steps
# Calls before the recording: libraries choose kernels and take workspace in the first ones.
WARM = 3

Work = Callable[[Mapping[str, Tensor]], Tensor]


def wanted(device: torch.device) -> bool:
    """Whether steps on this device are recorded: on a GPU, unless switched off."""
    return device.type == "cuda" and os.environ.get(SWITCH, "on") != "off"


def compiled(device: torch.device) -> bool:
    """Whether steps on this device are compiled: on a GPU, where it is asked for."""
    return device.type == "cuda" and os.environ.get(COMPILE) == "on"


class Replay:
    """Calls a function of tensors, on a GPU by recording it after a few calls.

    What the function changes in place (weights, moments) must stay the same tensors from call to
    call, and so must every tensor it reads beside its arguments; it may not ask the device for a
    value.
    """

    def __init__(self, device: torch.device, on: bool = True) -> None:
        """For functions on `device`; without `on` they are simply called."""
        self.device, self.on, self.calls = device, on and wanted(device), 0
        self.graph: torch.cuda.CUDAGraph | None = None
        self.graph_inputs: dict[str, Tensor] = {}
        self.graph_output = torch.empty(0)

    def __call__(self, work: Work, inputs: Mapping[str, Tensor]) -> Tensor:
        """The value of `work(inputs)`; a replay overwrites and returns the same tensor every time.

        Args:
            work: the function; the first one recorded is the one that is replayed.
            inputs: its arguments by name, of the same shapes every time.
        """
        if self.on and self.graph is None and self.calls >= WARM:
            self._record(work, inputs)
        self.calls += 1
        if self.graph is None:
            return self._beside(work, inputs) if self.on else work(inputs)
        names = list(self.graph_inputs)
        torch._foreach_copy_([self.graph_inputs[k] for k in names], [inputs[k] for k in names])
        self.graph.replay()
        return self.graph_output

    def _beside(self, work: Work, inputs: Mapping[str, Tensor]) -> Tensor:
        """A call before the recording, on a stream of its own as CUDA asks for."""
        here, side = torch.cuda.current_stream(self.device), torch.cuda.Stream(self.device)
        side.wait_stream(here)
        with torch.cuda.stream(side):
            output = work(inputs)
        here.wait_stream(side)
        output.record_stream(here)
        return output

    def _record(self, work: Work, inputs: Mapping[str, Tensor]) -> None:
        self.graph_inputs = {name: x.clone() for name, x in inputs.items()}
        graph = torch.cuda.CUDAGraph()
        try:
            # "thread_local": threads that copy the next batches to the device may go on meanwhile.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self.graph_output = work(self.graph_inputs)
        except RuntimeError as error:
            log.warning(
                "a step cannot be recorded (%s); it runs kernel by kernel",
                str(error).splitlines()[0],
            )
            self.on, self.graph_inputs = False, {}
            torch.cuda.synchronize(self.device)
            return
        self.graph = graph
