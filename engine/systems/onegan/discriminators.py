"""OneGAN's two discriminators, whose heads all give logits. Source: OneGAN supplementary, tables 8 and 9."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.export import register_dataclass
from torch.nn import functional as F

from .blocks import NormedLinear, deep, initialise, trunk, weight_dtype
from .config import OneGanConfig

__all__ = ["BackgroundDiscriminator", "Judgement", "ObjectDiscriminator"]


@dataclass(frozen=True)
class Judgement:
    """A discriminator's judgement of images: its outputs A and B in float32, and the features C."""

    adversarial: Tensor
    auxiliary: Tensor
    features: Tensor


register_dataclass(Judgement)


class ObjectDiscriminator(nn.Module):
    """D_c: whether a whole image is real, and which child class it shows."""

    def __init__(self, config: OneGanConfig) -> None:
        super().__init__()
        width = config.critic_width
        flat, hidden = 256 * width, 8 * width
        self.trunk, self.deep = trunk(config, 3, width), deep(config, width)
        self.adversarial = nn.Sequential(NormedLinear(config, flat, hidden), nn.Linear(hidden, 1))
        self.classes = nn.Sequential(NormedLinear(config, flat, hidden), nn.Linear(hidden, config.children))
        initialise(self)

    def forward(self, images: Tensor) -> Judgement:
        """Judge images [N, 3, R, R]: logits [N, 1] and [N, children], features [N, 8 width, 8, 8]."""
        first, second, third = self.deep
        features = first(self.trunk(images.to(weight_dtype(self), memory_format=torch.channels_last)))
        x = third(second(features)).flatten(1)
        return Judgement(self.adversarial(x).float(), self.classes(x).float(), features)


class BackgroundDiscriminator(nn.Module):
    """D_bg: whether each of 24x24 overlapping patches of an image is real, and whether it is background.

    At 128 pixels the sides are 126 -> 62 -> 30 -> 27 -> 24, with patches of 34 pixels, 4 apart. At 64 pixels the first
    convolution is left out, as the outermost step is in all networks. The sides are 62 -> 30 -> 27 -> 24, with patches
    of 16 pixels, 2 apart, which are nearly the same share of the picture. Images are first resized to 2 pixels less,
    because then the strides leave no rest and the patches cover the picture exactly. The paper prints a stride of 4 for
    the last convolution, which would leave a rest; FineGAN has 1. There are no norms.
    """

    def __init__(self, config: OneGanConfig) -> None:
        super().__init__()
        width = config.critic_width
        self.side = config.resolution - 2
        multiples, strides = ((1, 2, 4), (2, 2, 1)) if config.full else ((2, 4), (2, 1))
        widths = [3, *(m * width for m in multiples)]
        layers = [nn.Conv2d(widths[k], widths[k + 1], 4, stride) for k, stride in enumerate(strides)]
        self.blocks = nn.Sequential(*(nn.Sequential(layer, nn.LeakyReLU(0.2)) for layer in layers))
        self.adversarial = nn.Conv2d(widths[-1], 1, 4)
        self.auxiliary = nn.Conv2d(widths[-1], 1, 4)
        initialise(self)

    def forward(self, images: Tensor) -> Judgement:
        """Judge images [N, 3, R, R]: logits [N, 1, 24, 24] twice, features [N, 4 width, 27, 27]."""
        x = images.to(weight_dtype(self), memory_format=torch.channels_last)
        return self.patches(F.interpolate(x, size=(self.side, self.side), mode="bilinear", align_corners=False))

    def patches(self, images: Tensor) -> Judgement:
        """Judge images that are resized already, [N, 3, R - 2, R - 2]."""
        features = self.blocks(images)
        return Judgement(self.adversarial(features).float(), self.auxiliary(features).float(), features)
