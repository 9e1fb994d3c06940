"""The image encoder: ResNet with bottlenecks, under torchvision's parameter names
and without its last layer.

The one idea: batch statistics are those of the *whole* batch however it is spread. Alone and under
vmap that is the fused kernel; with torch.distributed initialised it is an all-reduce with its own
backward, which unlike `nn.SyncBatchNorm` also runs on CPUs. Ours because torchvision does not
import beside the CPU build of torch.

Source: He et al. 2016, arXiv:1512.03385, with the stride on the 3 × 3 convolution (torchvision's
v1.5).
"""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from ecgcmr.runtime import hardware


def spread() -> bool:
    """Whether other processes hold parts of the same batch."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


class _Standardise(torch.autograd.Function):
    """(x − mean) / std per channel over the batch of all processes.

    Also returns mean and variance (no gradient).

    A Function and not traced operations: it keeps x alone for the backward, as the fused kernel
    does, and both directions need one summed vector per statistic.
    """

    @staticmethod
    def forward(ctx, x: Tensor, eps: float):
        count = x.numel() // x.shape[1] * dist.get_world_size()
        mean = _sum_channels(x) / count
        variance = _sum_channels((x - mean[:, None, None]).square()) / count
        scale = (variance + eps).rsqrt()
        ctx.save_for_backward(x, mean, scale)
        ctx.count = count
        ctx.mark_non_differentiable(mean, variance)
        return (x - mean[:, None, None]) * scale[:, None, None], mean, variance

    @staticmethod
    def backward(ctx, *grads: Tensor):
        x, mean, scale = ctx.saved_tensors
        normal = (x - mean[:, None, None]) * scale[:, None, None]
        first = _sum_channels(grads[0]) / ctx.count
        second = _sum_channels(grads[0] * normal) / ctx.count
        gradient = grads[0] - first[:, None, None] - normal * second[:, None, None]
        return gradient * scale[:, None, None], None


def _sum_channels(x: Tensor) -> Tensor:
    total = x.sum((0, 2, 3))
    dist.all_reduce(total)
    return total


class BatchNorm(nn.Module):
    """Batch normalisation over the batch of all processes.

    Tensors are named as `nn.BatchNorm2d`'s.
    """

    eps, momentum = 1e-5, 0.1
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def forward(self, x: Tensor, training: bool) -> Tensor:
        """(n, channels, h, w) -> the same.

        With `training` by the batch's statistics, which are then also tracked.
        """
        if training:
            self.num_batches_tracked.add_(1)
            if spread():
                return self._spread(x)
        return F.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            training,
            self.momentum,
            self.eps,
        )

    def _spread(self, x: Tensor) -> Tensor:
        normal, mean, variance = _Standardise.apply(hardware.full(x), self.eps)
        count = x.numel() // x.shape[1] * dist.get_world_size()
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / max(count - 1, 1)), self.momentum)
        return (normal * self.weight[:, None, None] + self.bias[:, None, None]).to(x.dtype)


def convolution(inside: int, outside: int, size: int, stride: int = 1) -> nn.Conv2d:
    """A convolution without bias that keeps the side at stride 1."""
    return nn.Conv2d(inside, outside, size, stride, padding=size // 2, bias=False)


class Bottleneck(nn.Module):
    """1 × 1, 3 × 3, 1 × 1 convolutions around a residual.

    Four times as many channels leave as the middle has.
    """

    expansion = 4

    def __init__(self, inside: int, width: int, stride: int) -> None:
        super().__init__()
        outside = self.expansion * width
        self.conv1, self.bn1 = convolution(inside, width, 1), BatchNorm(width)
        self.conv2, self.bn2 = convolution(width, width, 3, stride), BatchNorm(width)
        self.conv3, self.bn3 = convolution(width, outside, 1), BatchNorm(outside)
        self.downsample: nn.ModuleList | None = None
        if stride != 1 or inside != outside:
            self.downsample = nn.ModuleList(
                [convolution(inside, outside, 1, stride), BatchNorm(outside)]
            )

    def forward(self, x: Tensor, training: bool) -> Tensor:
        """(n, inside, h, w) -> (n, 4 · width, h / stride, w / stride)."""
        out = F.relu(self.bn1(self.conv1(x), training))
        out = F.relu(self.bn2(self.conv2(out), training))
        out = self.bn3(self.conv3(out), training)
        if self.downsample is not None:
            shrink, norm = self.downsample
            x = norm(shrink(x), training)
        return F.relu(out + x)


class ResNet(nn.Module):
    """conv1, bn1, four layers of bottlenecks; (3, 4, 6, 3) blocks of width 64 are ResNet-50."""

    def __init__(self, blocks: tuple[int, int, int, int], width: int) -> None:
        """Build the encoder; `out` is the length of its embedding, 32 · width."""
        super().__init__()
        self.out = 8 * width * Bottleneck.expansion
        self.conv1 = nn.Conv2d(3, width, 7, 2, padding=3, bias=False)
        self.bn1 = BatchNorm(width)
        inside = width
        for i, count in enumerate(blocks):
            layer = nn.ModuleList()
            for j in range(count):
                layer.append(Bottleneck(inside, width << i, stride=2 if i > 0 and j == 0 else 1))
                inside = Bottleneck.expansion * (width << i)
            setattr(self, f"layer{i + 1}", layer)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def maps(self, x: Tensor, training: bool) -> Tensor:
        """The last feature map, (n, 3, side, side) -> (n, out, ⌈side / 32⌉, ⌈side / 32⌉):
        7 × 7 for 210 pixels.
        """
        x = F.relu(self.bn1(self.conv1(x), training))
        x = F.max_pool2d(x, 3, 2, padding=1)
        for i in range(4):
            for block in self.get_submodule(f"layer{i + 1}").children():
                x = block(x, training)
        return x

    def forward(self, x: Tensor, training: bool) -> Tensor:
        """The embedding, (n, 3, side, side) -> (n, out)."""
        return self.maps(x, training).mean((-2, -1))


def depth_of(name: str) -> int:
    """Layer-decay depth of an encoder's parameter: 0 for the stem, i for `layer i`."""
    first = name.split(".")[0]
    return int(first.removeprefix("layer")) if first.startswith("layer") else 0
