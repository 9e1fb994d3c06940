"""Masked data modelling: encode a fifth of the patches, reconstruct all of them (paper, section
III-A).

The encoder never sees a masked patch, and the decoder is thrown away afterwards. Positions are
fixed.
Source: He et al. 2022, arXiv:2111.06377; the decoder's sizes, betas and initialisation from the
authors' code, where the paper is silent.
"""

import torch
from torch import Tensor, nn

from ecgcmr.methods import losses, trunk
from ecgcmr.methods.contract import Knobs, Method, Tensors
from ecgcmr.nn import Network, vit
from ecgcmr.presets import Preset

HIDDEN = 0.8  # masking ratio ρ; it decides shapes and is therefore no knob


class MAE(Method):
    """Masked autoencoder of ECGs."""

    modalities = ("ecg",)
    needs = ("ecg",)
    parts = {"ecg": "ecg"}
    betas = (0.9, 0.95)
    # The published weights are those of the last epoch: the error still falls where nothing is
    # evaluated.
    keep = "last"

    decoder_pos_embed: Tensor

    def __init__(
        self, network: Network, preset: Preset, *, outputs: int, modality: str, samples: int
    ) -> None:
        """Build encoder and decoder for records of `samples` samples; `outputs` and `modality` are
        not used.
        """
        super().__init__(network, preset, outputs=outputs, modality=modality, samples=samples)
        self.preset = preset
        self.view = trunk.ecg_view(preset, samples, surrogate_rate=preset.surrogate_rate)
        times = samples // network.patch
        self.tokens = vit.LEADS * times
        # int(300 · (1 − 0.8)) is 59: the authors' truncation.
        share = 1 - HIDDEN
        self.visible = (
            int(self.tokens * share) if preset.truncate_visible else round(self.tokens * share)
        )
        self.ecg = vit.ViT(
            network.width, network.depth, network.heads, network.patch, times, fixed=True
        )
        width = network.decoder_width
        self.mask_token = nn.Parameter(torch.empty(1, 1, width).normal_(std=0.02))
        self.decoder_embed = nn.Linear(network.width, width)
        self.register_buffer("decoder_pos_embed", vit.positions(width, vit.LEADS, times))
        blocks = (vit.Block(width, network.decoder_heads) for _ in range(network.decoder_depth))
        self.decoder_blocks = nn.ModuleList(blocks)
        self.decoder_norm = nn.LayerNorm(width, eps=vit.EPS)
        self.decoder_pred = nn.Linear(width, network.patch)
        self.apply(vit.xavier)

    @staticmethod
    def defaults(preset: Preset, modality: str = "ecg") -> dict[str, float]:
        """Every knob (section IV-C.2)."""
        return {"lr": 1e-5, "weight_decay": 0.15, "warmup": 0.1}

    def lr_scale(self, batch: int) -> float:
        """What the learning rate is multiplied by at this batch size."""
        return batch / self.preset.lr_batch if self.preset.lr_batch else 1.0

    def decays(self, name: str, ndim: int) -> bool:
        """Whether weight decay applies: to matrices, and to the two learnt tokens as in the
        authors' code.
        """
        return ndim > 1

    def noise(self, generator: torch.Generator, n: int, augment: bool = True) -> dict[str, Tensor]:
        """Numbers for `n` records; evaluation masks as well."""
        mask = torch.rand(n, self.tokens, generator=generator, device=generator.device)
        return {"mask": mask, **(self.view.noise(generator, n) if augment else {})}

    def forward(self, batch: Tensors, noise: Tensors | None, knobs: Knobs) -> dict[str, Tensor]:
        """Reconstruct; batch["ecg"] is (n, 12, time). Logs the squared error and the correlation
        with the record.
        """
        noise = noise or {}
        x = self.view(batch["ecg"], noise)
        target = vit.patchify(x, self.ecg.patch)
        prediction = self.reconstruct(x, noise["mask"] if "mask" in noise else self._even(x))
        mse = losses.mse_patches(prediction, target)
        ncc = losses.ncc(
            *(tokens.unflatten(1, (vit.LEADS, -1)).flatten(2) for tokens in (prediction, target))
        )
        weight = self.preset.mae_ncc
        return {
            "loss": (1 - weight) * mse + weight * (1 - ncc) if weight else mse,
            "mse": mse,
            "ncc": ncc,
        }

    def reconstruct(self, x: Tensor, mask: Tensor) -> Tensor:
        """All patches from the visible ones.

        Args:
            x: (n, 12, samples).
            mask: (n, tokens); the patches with the smallest numbers are visible.

        Returns:
            (n, tokens, patch).
        """
        order = mask.argsort(1)
        visible_tokens = self.decoder_embed(self.ecg(x, keep=order[:, : self.visible]))
        mask_tokens = self.mask_token.to(visible_tokens.dtype).expand(
            x.shape[0], self.tokens - self.visible, -1
        )
        tokens = vit.gather(torch.cat([visible_tokens[:, 1:], mask_tokens], 1), order.argsort(1))
        tokens = torch.cat([visible_tokens[:, :1], tokens], 1) + self.decoder_pos_embed
        for block in self.decoder_blocks:
            tokens = block(tokens)
        return vit.normed(tokens, self.decoder_norm, self.decoder_pred)[:, 1:]

    def _even(self, x: Tensor) -> Tensor:
        """A fixed mask for evaluation without noise: multiples of the golden ratio spread evenly
        over the tokens.
        """
        golden = (
            torch.arange(self.tokens, device=x.device, dtype=torch.float64) * 0.6180339887498949 % 1
        )
        return golden.expand(x.shape[0], -1)
