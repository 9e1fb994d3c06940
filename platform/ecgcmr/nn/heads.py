"""What sits on an encoder: the projector of contrastive learning, the head of fine-tuning."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ecgcmr.nn.attention import attention, join_heads, split_heads, weights
from ecgcmr.nn.resnet import BatchNorm
from ecgcmr.nn.vit import EPS, truncated_normal


class Projector(nn.Module):
    """Linear, ReLU, Linear, without batch norm (paper, section IV-C.1; lightly 1.2.22,
    which the authors used).
    """

    def __init__(self, width: int, hidden: int, out: int, *, norm: bool = False) -> None:
        """Map `width` to `out` numbers.

        With `norm` the input is layer-normalised first, as ECG embeddings are.
        """
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=EPS) if norm else None
        self.layers = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, out))

    def forward(self, x: Tensor) -> Tensor:
        """(…, width) -> (…, out), not normalised to length one."""
        return self.layers(x if self.norm is None else self.norm(x))


class NormedMLP(nn.Module):
    """Linear without bias, batch norm over the whole batch, ReLU, Linear:
    projector and predictor of BYOL and Barlow Twins.

    Source: Grill et al. 2020, section 3.2.
    """

    def __init__(self, width: int, hidden: int, out: int, *, norm: bool = False) -> None:
        """Map `width` to `out` numbers.

        With `norm` the input is layer-normalised first, as ECG embeddings are.
        """
        super().__init__()
        self.input_norm = nn.LayerNorm(width, eps=EPS) if norm else None
        self.first = nn.Linear(width, hidden, bias=False)
        self.norm = BatchNorm(hidden)
        self.last = nn.Linear(hidden, out)

    def forward(self, x: Tensor, training: bool) -> Tensor:
        """(n, width) -> (n, out); with `training` normalised by this batch's statistics."""
        x = x if self.input_norm is None else self.input_norm(x)
        hidden = self.norm(self.first(x)[..., None, None], training)
        return self.last(F.relu(hidden[..., 0, 0]))


class AttentionPool(nn.Module):
    """One query, the mean token, attends to all tokens.

    Parameters are named as `nn.MultiheadAttention`'s.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """(n, tokens, width) without the class token -> (n, width)."""
        return self.out_proj(join_heads(attention(*self._split(tokens))))[:, 0]

    def weights(self, tokens: Tensor) -> Tensor:
        """How much of each token is taken, (n, tokens, width) -> (n, heads, tokens)."""
        query, key, _ = self._split(tokens)
        return weights(query, key)[:, :, 0]

    def _split(self, tokens: Tensor) -> list[Tensor]:
        width = tokens.shape[-1]
        weight, bias = self.in_proj_weight, self.in_proj_bias
        query = F.linear(tokens.mean(1, keepdim=True), weight[:width], bias[:width])
        key, value = F.linear(tokens, weight[width:], bias[width:]).chunk(2, -1)
        return [split_heads(part, self.heads) for part in (query, key, value)]


class EcgHead(nn.Module):
    """Attention pooling, norm and linear layer: tokens of the ECG encoder to outputs."""

    def __init__(self, width: int, heads: int, outputs: int, *, double_norm: bool) -> None:
        super().__init__()
        self.double_norm = double_norm
        self.attention_pool = AttentionPool(width, heads)
        self.fc_norm = nn.LayerNorm(width, eps=EPS)
        self.head = nn.Linear(width, outputs)
        truncated_normal(self.head)

    def forward(self, tokens: Tensor) -> Tensor:
        """(n, 1 + tokens, width) -> (n, outputs)."""
        return self.head(self.embedding(tokens))

    def embedding(self, tokens: Tensor) -> Tensor:
        """What the linear layer reads: (n, 1 + tokens, width) -> (n, width)."""
        embedding = self.fc_norm(self.attention_pool(tokens[:, 1:]))
        return self.fc_norm(embedding) if self.double_norm else embedding


class CmrHead(nn.Module):
    """A linear layer on the image embedding, as ResNet's own `fc`."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.head = nn.Linear(width, outputs)

    def forward(self, embedding: Tensor) -> Tensor:
        """(n, width) -> (n, outputs)."""
        return self.head(embedding)
