"""COCO-GAN's discriminator, and the two heads that take its feature. Source: COCO-GAN (see `generator.py`)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...layers.spectral import initialise
from .config import CocoGanConfig

__all__ = ["Discriminator", "Head"]


class DiscriminatorBlock(nn.Module):
    """Residual block: [ReLU], conv, ReLU, conv, [2x2 mean]. Every block has the shortcut: [2x2 mean], 1x1 conv."""

    def __init__(self, inputs: int, outputs: int, *, first: bool, down: bool) -> None:
        super().__init__()
        self.first, self.down = first, down
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(x if self.first else F.relu(x))
        y = self.conv2(F.relu(y, inplace=True))
        if self.down:
            x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
        return self.shortcut(x) + y


class Discriminator(nn.Module):
    """D(s, c'): gives a macro patch with its coordinate one critic value, and the feature that the heads take.

    D = linear(h) + <h, embed(c')>, where h is the sum over space of the last block's ReLU (projection discriminator).
    Source: COCO-GAN; Miyato & Koyama (2018).
    """

    def __init__(self, config: CocoGanConfig, *, spectral: bool = True) -> None:
        super().__init__()
        widths = [config.channels] + [m * config.critic_width for m in config.critic_multipliers]
        last = len(widths) - 2
        self.blocks = nn.ModuleList(
            DiscriminatorBlock(widths[i], widths[i + 1], first=i == 0, down=i != last) for i in range(len(widths) - 1)
        )
        self.critic = nn.Linear(widths[-1], 1)
        self.embed = nn.Linear(config.lattice.dimensions, widths[-1])
        self.features = widths[-1]
        initialise(self, spectral=spectral)

    def forward(self, macro: Tensor, coordinates: Tensor | None) -> tuple[Tensor, Tensor]:
        """Judge macro patches.

        Args:
            macro: [N, channels, K, K] in [-1, 1].
            coordinates: macro coordinates [N, dimensions]; None drops the projection term.
        Returns:
            critic value [N] and feature h [N, features], both float32.
        """
        x = macro.contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            x = block(x)
        h = F.relu(x).float().sum(dim=(2, 3))
        value = self.critic(h).squeeze(1)
        if coordinates is not None:
            value = value + (h * self.embed(coordinates)).sum(dim=1)
        return value.float(), h


class Head(nn.Module):
    """A small head on the critic's feature: linear, batch norm, leaky ReLU 0.2, linear, tanh.

    As head A it predicts the macro coordinate, as head Q the latent vector. Source: COCO-GAN, supplementary.
    """

    def __init__(self, features: int, outputs: int, width: int = 128, *, spectral: bool = True) -> None:
        super().__init__()
        self.hidden = nn.Linear(features, width)
        self.norm = nn.BatchNorm1d(width, eps=1e-5, momentum=0.1)
        self.output = nn.Linear(width, outputs)
        initialise(self, spectral=spectral)

    def forward(self, feature: Tensor) -> Tensor:
        """Predict [N, outputs] in [-1, 1] from features [N, features]."""
        x = F.leaky_relu(self.norm(self.hidden(feature)), 0.2)
        return torch.tanh(self.output(x))
