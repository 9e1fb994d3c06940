"""Multimodal contrastive learning: an ECG and the CMR image of its subject attract (section III-B).

Both encoders learn; afterwards the ECG encoder answers alone. Averaging the tokens is this stage's
pooling; attention pooling replaces it in fine-tuning (section IV-C.2). Any two signals may take the
places of ECG and image.
"""

import torch
from torch import Tensor, nn

from ecgcmr.methods import encodings, losses, trunk
from ecgcmr.methods.contract import EverySignal, Knobs, Method, Tensors, of_view
from ecgcmr.nn import Network
from ecgcmr.presets import Preset


class MMCL(Method):
    """Contrastive learning between two signals."""

    modalities = EverySignal("ecg+cmr")
    needs = ("ecg", "cmr")
    # The projectors, without which ECG and image cannot be compared (section III-C).
    beside = {"head": "head"}

    def __init__(
        self, network: Network, preset: Preset, *, outputs: int, modality: str, samples: int
    ) -> None:
        """Build the encoders of `modality`, e.g. "ecg+cmr", and projectors; `outputs` is not used.

        Args:
            network: sizes.
            preset: paper or authors.
            outputs: not used.
            modality: two signals; any other word means the default.
            samples: of an ECG's view.
        """
        super().__init__(network, preset, outputs=outputs, modality=modality, samples=samples)
        self.optimiser = trunk.contrastive_optimiser(preset)
        # A trial names a modality whatever its method.
        pair = modality if modality in self.modalities else self.modalities[0]
        self.needs = tuple(pair.split("+"))
        self.parts = {name: name for name in self.needs}
        self.encodings = {name: encodings.of(name) for name in self.needs}
        rate = preset.augment_rate
        self.views = {
            name: encoding.view(network, preset, samples, rate=rate)
            for name, encoding in self.encodings.items()
        }
        self.depth = network.depth
        for name, encoding in self.encodings.items():
            self.add_module(name, encoding.build(network, preset, samples))
        hidden_width, out = network.hidden, network.projection
        self.head = nn.ModuleDict(
            {
                name: encoding.projector(network, hidden_width, out)
                for name, encoding in self.encodings.items()
            }
        )

    @staticmethod
    def defaults(preset: Preset, modality: str = "ecg+cmr") -> dict[str, float]:
        """Every knob (section IV-C.2); drop path is in the authors' configuration, where the paper
        is silent.
        """
        contrast = {"temperature": 0.1, "lambda": 0.75}
        return {"lr": 1e-4, "weight_decay": 1e-4, "warmup": 0.1, **contrast, "drop_path": 0.1}

    def noise(self, generator: torch.Generator, n: int, augment: bool = True) -> dict[str, Tensor]:
        """Numbers for `n` pairs; none for evaluation."""
        if not augment:
            return {}
        noise: dict[str, Tensor] = {}
        for signal, view in self.views.items():
            noise |= {f"{signal}.{name}": u for name, u in view.noise(generator, n).items()}
        for signal, encoding in self.encodings.items():
            if encoding.drops:
                noise[f"{signal}.drop_path"] = torch.rand(
                    n, self.depth, 2, generator=generator, device=generator.device
                )
        return noise

    def forward(self, batch: Tensors, noise: Tensors | None, knobs: Knobs) -> dict[str, Tensor]:
        """Contrast the two signals of the batch."""
        knobs = {**self.knobs, **knobs}
        first, second = self.project(batch, noise or {}, knobs["drop_path"])
        loss = losses.clip(first, second, knobs["temperature"], knobs["lambda"])
        return {"loss": loss, "top1": losses.retrieval(first, second)}

    def project(
        self, batch: Tensors, noise: Tensors, drop_path: Tensor | float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Projections of both signals, (n, projection) each, not yet of length one."""
        embeddings = [self._embed(name, batch[name], noise, drop_path) for name in self.needs]
        first, second = (self.head[name](z) for name, z in zip(self.needs, embeddings))
        return first, second

    def _embed(self, name: str, x: Tensor, noise: Tensors, drop_path: Tensor | float) -> Tensor:
        numbers = of_view(noise, name)
        view, learns = self.views[name](x, numbers), self.training and bool(noise)
        drops = numbers.get("drop_path")
        return self.encodings[name].embed(getattr(self, name), view, drops, drop_path, learns)
