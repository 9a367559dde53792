"""OneGAN's two generators: they turn codes into pre-images, and pre-images into the raw outputs of their heads.

A pre-image is [N, 16 width, 16, 16], and a bypass of an encoder may replace it. Source: OneGAN supplementary, tables 3
and 4. They print a last up block of 3 channels before a layer that declares 64; here it has 64.
"""

import torch
from torch import Tensor, nn

from ...layers.batch_parts import joined, part_sizes, parts_of
from ...layers.norms import GluLayerNorm
from .blocks import CodedBlock, GluConv, initialise, norm_settings, weight_dtype
from .config import OneGanConfig

__all__ = ["BackgroundGenerator", "ForegroundGenerator", "PreImage"]


class PreImage(nn.Module):
    """G_fg0 and G_bg0: turn a class's vector and the pose code into a pre-image."""

    def __init__(self, config: OneGanConfig, vector: int) -> None:
        super().__init__()
        width = config.width
        self.stem = nn.Linear(vector + config.latent, 2 * 64 * width * 16, bias=config.bias_before_norm)
        self.norm = GluLayerNorm(64 * width, 4, **norm_settings(config))
        self.blocks = nn.Sequential(
            GluConv(config, 64 * width, 32 * width, 8, "up"), GluConv(config, 32 * width, 16 * width, 16, "up")
        )

    def forward(self, vector: Tensor, latent: Tensor) -> Tensor:
        """Turn vectors [N, vector] and pose codes [N, latent] into [N, 16 width, 16, 16]."""
        dtype = self.stem.weight.dtype
        x = self.stem(torch.cat([vector.to(dtype), latent.to(dtype)], dim=1)).unflatten(1, (-1, 4, 4))
        x = x.to(weight_dtype(self.blocks), memory_format=torch.channels_last)
        y: Tensor = self.blocks(self.norm(x))
        return y


class BackgroundGenerator(nn.Module):
    """G_bg: `pre_image` is G_bg0, and a call of the module is G_bg1."""

    def __init__(self, config: OneGanConfig) -> None:
        super().__init__()
        width = config.width
        self.pre_image = PreImage(config, config.background_vector)
        widths = [16 * width, 8 * width, 4 * width, 2 * width][: 4 if config.full else 3]
        self.blocks = nn.Sequential(
            *(GluConv(config, widths[k], widths[k + 1], 32 << k, "up") for k in range(len(widths) - 1))
        )
        self.to_image = nn.Conv2d(widths[-1], 3, 3, padding=1)
        self.widest = 2 * widths[-1] * config.resolution**2  # numbers of a sample's largest map
        initialise(self)

    def forward(self, pre_image: Tensor) -> Tensor:
        """Turn a pre-image [N, 16 width, 16, 16] into the background before tanh, [N, 3, R, R]."""
        sizes = part_sizes(pre_image, self.widest * pre_image.element_size(), self.training)
        return joined([self.to_image(self.blocks(part)) for (part,) in parts_of(sizes, pre_image)])


class ForegroundGenerator(nn.Module):
    """G_fg: `pre_image` is G_fg0, `shape` G_fg1 and `style` G_fg2; only `style` takes the child's vector."""

    def __init__(self, config: OneGanConfig) -> None:
        super().__init__()
        width, side = config.width, config.resolution
        self.pre_image = PreImage(config, config.parent_vector)
        widths = [16 * width, 8 * width, 4 * width, 4 * width][: 4 if config.full else 3]
        self.blocks = nn.Sequential(
            *(GluConv(config, widths[k], widths[k + 1], 32 << k, "up") for k in range(len(widths) - 1))
        )
        self.parent = CodedBlock(config, 4 * width, config.parent_vector, 2 * width, side)
        self.child = CodedBlock(config, 2 * width, config.child_vector, width, side)
        self.to_image = nn.Conv2d(width, 3, 3, padding=1)
        self.to_mask = nn.Conv2d(width, 1, 3, padding=1)
        self.widest = 8 * width * side**2  # numbers of a sample's largest map
        initialise(self)

    def forward(self, pre_image: Tensor, parent: Tensor, child: Tensor) -> tuple[Tensor, Tensor]:
        """Turn a pre-image into the foreground before tanh and the mask before sigmoid.

        Args:
            pre_image: [N, 16 width, 16, 16].
            parent: shape vectors v_p, [N, parent_vector].
            child: style vectors v_c, [N, child_vector].
        Returns:
            foreground [N, 3, R, R] and mask [N, 1, R, R].
        """
        sizes = part_sizes(pre_image, self.widest * pre_image.element_size(), self.training)
        parts = parts_of(sizes, pre_image, parent, child)
        made = [self.style(self.shape(part, shape), style) for part, shape, style in parts]
        images, masks = (joined(maps) for maps in zip(*made, strict=True))
        return images, masks

    def shape(self, pre_image: Tensor, parent: Tensor) -> Tensor:
        """G_fg1: turn a pre-image and shape vectors into features [N, 2 width, R, R]."""
        y: Tensor = self.parent(self.blocks(pre_image), parent)
        return y

    def style(self, features: Tensor, child: Tensor) -> tuple[Tensor, Tensor]:
        """G_fg2: turn features and style vectors into the foreground before tanh and the mask before sigmoid."""
        x = self.child(features, child)
        return self.to_image(x), self.to_mask(x)
