"""What a run learnt, as a file for elsewhere: safetensors, the layout of the paper's published
weights, or ONNX.

The one idea: a file says what it is. safetensors and ONNX carry the sizes, the run and how its
signals were prepared; an ONNX graph takes millivolts and standardises them itself, so that nobody
can forget to. This is the door to ONNX.
"""

import importlib
import json
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ecgcmr import files, store, tasks, trial
from ecgcmr.cohort import dataset
from ecgcmr.data import inputs
from ecgcmr.errors import InputError, unknown
from ecgcmr.inference import model, weights
from ecgcmr.inference.model import Model
from ecgcmr.signals import ecg

ENDINGS = {"safetensors": ".safetensors", "authors": ".pth", "onnx": ".onnx"}
OPSET = 18
TOLERANCE = 1e-4  # between PyTorch and ONNX Runtime, absolute and relative
EXTRA = ("onnx", "onnxscript", "onnxruntime")


def write(
    run: str | Path, out: Path, form: str, *, runs: Path = Path("runs"), part: str | None = None
) -> list[str]:
    """Write what a run learnt to a file, whole or not at all.

    Args:
        run: see `model.find`.
        out: the file, with the ending that `ENDINGS` has for its form.
        form: "safetensors" (every part, with notes), "authors" (one encoder) or "onnx" (the ECG
            encoder, and what answers).
        runs: see `model.find`.
        part: "ecg" or "cmr": the only one that is written; needed where a run has both and the form
            holds one.

    Returns:
        What is in it, a line each.

    Raises:
        InputError: see `model.open_run`; a wrong ending, a part that is not there, or ONNX is not
            installed or disagrees.
    """
    if form not in ENDINGS:
        raise unknown("format", form, ENDINGS)
    if out.suffix != ENDINGS[form]:
        raise InputError(f"{out}: a file of format '{form}' is named *{ENDINGS[form]}")
    run_model = model.open_run(run, runs)
    weight_file = weights.open_file(store.verified(run_model.run.folder, store.ENCODER))
    parts = list(dict.fromkeys(name.split(".")[0] for name in weight_file.tensors))
    if part and part not in parts:
        raise InputError(
            f"run '{run_model.run.name}' has no part '{part}'; it has {', '.join(parts)}"
        )
    if form == "onnx":
        return _write_onnx(run_model, out)
    if form == "safetensors":
        names = [part] if part else parts
        weights.write(out, {name: weight_file.encoder(name) for name in names}, notes(run_model))
        return [f"{name}: {len(weight_file.encoder(name))} tensors" for name in names]
    encoders = [name for name in parts if name in weights.PUBLISHED]
    if not part and len(encoders) > 1:
        raise InputError(
            f"run '{run_model.run.name}' has encoders {' and '.join(encoders)}; choose one with "
            "--part"
        )
    chosen_part = part or encoders[0]
    if chosen_part not in weights.PUBLISHED:
        raise InputError(
            f"--part {chosen_part}: the published layout is of encoders; choose one of "
            f"{', '.join(encoders)}"
        )
    weights.publish(out, chosen_part, weight_file.encoder(chosen_part))
    return [f"{chosen_part}: {len(weights.read(out, chosen_part))} tensors in the published layout"]


def notes(run_model: Model) -> dict[str, str]:
    """What a file says about a run: version, name and fingerprint, method, preset, sizes, and the
    recipe of its signals.
    """
    cohort = run_model.run.provenance.get("cohort", {})
    return {
        "ecgcmr": run_model.run.provenance["versions"]["ecgcmr"],
        "run": run_model.trial.name,
        "fingerprint": run_model.run.fingerprint,
        "method": run_model.trial.method,
        "preset": run_model.trial.preset,
        "network": json.dumps(trial.to_json(run_model.trial)["network"]),
        "cohort": json.dumps(cohort),
        "recipe_hash": dataset.digest(cohort["recipe"]) if "recipe" in cohort else "unknown",
    }


# -- ONNX ------------------------------------------------------------------------------------------


class Graph(nn.Module):
    """From millivolts to the embedding, and to the answer of a fine-tuned run."""

    def __init__(self, run_model: Model) -> None:
        super().__init__()
        self.encoder, self.head = run_model.ecg_encoder, run_model.head
        self.samples = run_model.samples
        self.task = (
            tasks.of(run_model.trial.task, (run_model.trial.task,)) if run_model.head else None
        )
        provenance = run_model.run.provenance
        scale = [
            provenance.get(name, [value])
            for name, value in (("target_mean", 0.0), ("target_sd", 1.0))
        ]
        self.mean, self.sd = (
            nn.Buffer(torch.tensor(values, dtype=torch.float32)) for values in scale
        )

    @property
    def outputs(self) -> list[str]:
        """Names of what it returns."""
        return ["embedding", "answer"] if self.task else ["embedding"]

    def forward(self, ecg_mv: Tensor) -> tuple[Tensor, ...]:
        """Embed and answer.

        Args:
            ecg_mv: (n, 12, 5000) mV, prepared as the run's recipe says: leads, 500 Hz, cleaned.

        Returns:
            The mean token, (n, width). Of a fine-tuned run what its last layer reads, and the
            probability of the disease, (n, 1), not calibrated, or phenotypes in their units, (n,
            phenotypes).
        """
        tokens = self.encoder(inputs.to_model({"ecg": ecg_mv})["ecg"][..., : self.samples])
        if self.task is None or self.head is None:
            return (tokens[:, 1:].mean(1),)
        embedding = self.head.embedding(tokens)
        logits = self.head.head(embedding)
        answer = (
            logits.softmax(-1)[:, 1:]
            if self.task.kind == "binary"
            else logits * self.sd + self.mean
        )
        return embedding, answer


def _write_onnx(run_model: Model, out: Path) -> list[str]:
    onnx, _, runtime = _libraries()
    graph = Graph(run_model).eval()
    onnx_model = _onnx_model(graph)
    for name, text in {**notes(run_model), **_contract(graph)}.items():
        onnx_model.metadata_props.add(key=name, value=text)
    blob = onnx_model.SerializeToString()
    onnx.checker.check_model(onnx_model)
    session = runtime.InferenceSession(blob, providers=["CPUExecutionProvider"])
    worst = disagreement(graph, lambda x: session.run(None, {"ecg_mv": x}))
    if not worst <= TOLERANCE:
        raise InputError(
            f"{out}: ONNX Runtime differs from PyTorch by {worst:.1e}, more than {TOLERANCE:g}; "
            "not written"
        )
    files.write_whole(out, lambda aside: aside.write_bytes(blob))
    outputs = ", ".join(
        f"{name} {value}" for name, value in _contract(graph).items() if name.startswith("output")
    )
    return [
        f"input ecg_mv (n, 12, {ecg.SAMPLES}) float32: {_contract(graph)['input']}",
        outputs,
        f"opset {OPSET}; ONNX Runtime and PyTorch differ by at most {worst:.1e} (batches of 1 and "
        "3)",
    ]


def _libraries() -> list[Any]:
    try:
        return [importlib.import_module(name) for name in EXTRA]
    except ImportError as error:
        raise InputError(
            f"ONNX needs further packages ({error.name}): pip install 'ecgcmr[onnx]'"
        ) from error


def _onnx_model(graph: Graph) -> Any:
    """The graph as an ONNX model of any batch size."""
    example = torch.zeros(2, len(ecg.LEADS), ecg.SAMPLES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            graph,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["ecg_mv"],
            output_names=graph.outputs,
            dynamic_shapes=({0: torch.export.Dim("n")},),
            verbose=False,
        )
    return program.model_proto  # type: ignore[union-attr]


def _contract(graph: Graph) -> dict[str, str]:
    """What goes in and comes out, in words that travel with the graph."""
    words = {
        "input": (
            f"mV, leads {' '.join(ecg.LEADS)}, {ecg.RATE_HZ} Hz, cleaned as `cohort` says; "
            "standardised inside"
        ),
    }
    width, extent = graph.encoder.cls_token.shape[-1], f"the first {graph.samples} samples"
    if graph.task is None:
        return {**words, "output embedding": f"({width}) mean token of {extent}"}
    words["output embedding"] = f"({width}) what the last layer reads of {extent}"
    units = [
        f"{name} [{tasks.UNITS[name]}]" if name in tasks.UNITS else name
        for name in graph.task.columns
    ]
    scale = "probability, not calibrated: " if graph.task.kind == "binary" else ""
    return {**words, "output answer": f"{scale}{', '.join(units)}"}


def disagreement(graph: nn.Module, runtime: Callable[[np.ndarray], Iterable[np.ndarray]]) -> float:
    """The greatest difference of two computations, |a − b| / max(1, |b|), over batches of 1 and 3
    recordings of noise.

    Args:
        graph: gives a tuple of arrays for (n, 12, 5000) mV.
        runtime: the same for NumPy arrays.
    """
    worst = 0.0
    for n in (1, 3):
        x = 0.3 * torch.randn(
            n, len(ecg.LEADS), ecg.SAMPLES, generator=torch.Generator().manual_seed(n)
        )
        with torch.no_grad():
            ours = [y.numpy() for y in graph(x)]
        for a, b in zip(runtime(x.numpy()), ours, strict=True):
            worst = max(worst, float((np.abs(a - b) / np.maximum(1, np.abs(b))).max()))
    return worst
