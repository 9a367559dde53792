"""StyleGAN2's discriminator: residual blocks down to 4x4, and how much samples of a group differ.

Source: Karras et al. 2020; its minibatch deviation Karras et al. 2018.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....kernels import fir_resample
from ...layers.equalised import GAIN, SLOPE, ActivatedConv, EqualisedConv, EqualisedLinear
from ...layers.resampling import blur
from .config import StyleGan2Config

__all__ = ["Discriminator", "Halving", "minibatch_deviation"]

_GROUP = 4  # samples


class Halving(nn.Module):
    """A residual block that halves the side of a map: two convolutions, and a 1x1 one beside them."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = ActivatedConv(inputs, inputs, padding=1)
        self.down = ActivatedConv(inputs, outputs, stride=2)
        self.skip = EqualisedConv(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [N, C, S, S] to [N, C', S / 2, S / 2]."""
        beside: Tensor = self.skip(fir_resample(x, up=False))
        y: Tensor = self.down(blur(self.conv(x), 2))
        return (y + beside) * math.sqrt(0.5)


class Last(nn.Module):
    """The block of 4x4: deviation within groups, a convolution and two linear layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = ActivatedConv(width + 1, width, padding=1)
        self.fc = EqualisedLinear(16 * width, width)
        self.out = EqualisedLinear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [N, C, 4, 4] to logits [N]."""
        y = self.conv(minibatch_deviation(x))
        y = F.leaky_relu(self.fc(y.flatten(1)), SLOPE) * GAIN  # numbered by channel, row, column
        logits: Tensor = self.out(y)
        return logits[:, 0]


class Discriminator(nn.Module):
    """Images to logits of being real.

    Args:
        config: of the generator whose images it judges; it has the same widths.
    Attributes:
        map_dtype: dtype of the maps, float32 unless it is set; logits are float32.
    """

    def __init__(self, config: StyleGan2Config) -> None:
        super().__init__()
        self.config, self.map_dtype = config, torch.float32
        last = config.sides[-1]
        for level in range(len(config.sides) - 1, 0, -1):
            block = Halving(config.channels[level], config.channels[level - 1])
            self.add_module(f"b{config.sides[level]}", block)
        self.add_module("b4", Last(config.channels[0]))
        getattr(self, f"b{last}").add_module("rgb", ActivatedConv(3, config.channels[-1], 1))

    def forward(self, images: Tensor) -> Tensor:
        """Logits [N] of images [N, 3, R, R]."""
        x = images.to(self.map_dtype).contiguous(memory_format=torch.channels_last)
        x = getattr(self, f"b{self.config.resolution}").rgb(x)
        for side in reversed(self.config.sides):
            x = getattr(self, f"b{side}")(x)
        return x


def minibatch_deviation(x: Tensor, group: int = _GROUP) -> Tensor:
    """Add a channel that says by how much the samples of a group differ: the mean of their deviations at all places.

    Sample i of N is in group i mod (N / group). If the group does not divide N, the largest smaller one that does is
    taken.

    Args:
        x: [N, C, H, W].
        group: samples of a group.
    Returns:
        [N, C + 1, H, W].
    """
    count = len(x)
    group = next(size for size in range(min(group, count), 0, -1) if count % size == 0)
    groups = x.float().unflatten(0, (group, count // group))
    deviation = (groups.var(0, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3))  # [N / group]
    channel = deviation.repeat(group)[:, None, None, None].to(x.dtype).expand(-1, 1, *x.shape[2:])
    return torch.cat([x, channel], 1)
