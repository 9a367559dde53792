"""StyleGAN2's generator: mapping network and synthesis network with skip connections of RGB.

It can be split: `begin` runs up to the second convolution of a block, `finish` from that block's toRGB on.

Source: Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", CVPR 2020.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zellige.errors import SizeError

from ....kernels import fir_resample
from ...layers.equalised import GAIN, SLOPE, EqualisedLinear
from ...layers.modulated import StyledConv, ToRgb
from .config import StyleGan2Config

__all__ = ["Features", "Generator"]

_EPS = 1e-8  # under the root of the latents' norm


@dataclass(frozen=True)
class Features:
    """What the first half of a synthesis network hands to the second.

    Attributes:
        map: what a convolution of a block gives, [N, C, S, S].
        rgb: the image of the blocks before it, doubled to [N, 3, S, S], float32; None before the first block.
        after: the convolution, "conv" for the block's second or "up" for its first.
    """

    map: Tensor
    rgb: Tensor | None
    after: Literal["up", "conv"] = "conv"


class Block(nn.Module):
    """The layers of one resolution: `up` (none in the first block), `conv` and `rgb`."""

    up: StyledConv | None

    def __init__(self, config: StyleGan2Config, level: int) -> None:
        super().__init__()
        side, width = config.sides[level], config.channels[level]
        styled = partial(StyledConv, side=side, w_dim=config.w_dim, clamp=config.clamp, raw_epsilon=config.raw_epsilon)
        self.up = styled(config.channels[level - 1], width, up=True) if level else None
        self.conv = styled(width, width)
        self.rgb = ToRgb(width, config.w_dim, clamp=config.clamp)


class Generator(nn.Module):
    """Latents to images.

    Args:
        config: widths and arithmetic.
    Attributes:
        map_dtype: dtype of the maps, float32 unless it is set; images and styles are float32.
    """

    w_avg: Tensor

    def __init__(self, config: StyleGan2Config) -> None:
        super().__init__()
        self.config, self.map_dtype = config, torch.float32
        inputs = [config.z_dim, *[config.w_dim] * (config.mapping_layers - 1)]
        self.mapping = nn.ModuleList(EqualisedLinear(n, config.w_dim, rate=config.mapping_rate) for n in inputs)
        self.register_buffer("w_avg", torch.zeros(config.w_dim))
        self.const = nn.Parameter(torch.randn(config.channels[0], 4, 4))
        for level, side in enumerate(config.sides):
            self.add_module(f"b{side}", Block(config, level))

    def forward(
        self, z: Tensor, psi: Tensor | float = 1.0, *, cutoff: int | None = None,
        noise: Sequence[Tensor] | None = None,
    ) -> Tensor:  # fmt: skip
        """Images [N, 3, R, R] in [-1, 1], or a little beyond, of latents [N, z_dim]; arguments as of the parts."""
        return self.synthesise(self.styles(self.map(z), psi, cutoff), noise)

    def map(self, z: Tensor) -> Tensor:
        """Style vectors w [N, w_dim] of latents [N, z_dim], float32."""
        w = z.float()
        w = w * torch.rsqrt(w.square().mean(1, keepdim=True) + _EPS)
        for layer in self.mapping:
            w = activated_rows(layer(w))
        return w

    def styles(self, w: Tensor, psi: Tensor | float = 1.0, cutoff: int | None = None) -> Tensor:
        """The style vectors of all layers, [N, L, w_dim]: w_avg + psi (w - w_avg).

        Args:
            w: [N, w_dim].
            psi: 1 leaves w, 0 gives the mean; a number, or one for each row and layer [N, L].
            cutoff: number of layers, from the first, that a single number truncates; None for all.
        """
        count = self.config.style_count
        if isinstance(psi, float | int) and psi == 1:
            return w[:, None].expand(-1, count, -1)
        if isinstance(psi, float | int):
            share = torch.full((1, count), float(psi), device=w.device)
            if cutoff is not None:
                share[:, cutoff:] = 1
        else:
            share = psi
        return self.w_avg + share[:, :, None] * (w - self.w_avg)[:, None]

    def synthesise(self, styles: Tensor, noise: Sequence[Tensor] | None = None) -> Tensor:
        """Images [N, 3, R, R] float32 of style vectors [N, L, w_dim].

        Args:
            styles: one vector for each layer.
            noise: a map [N, 1, S, S] or [1, 1, S, S] for each 3x3 convolution; None takes the stored ones.
        """
        return self.finish(self.begin(styles, noise), styles, noise)

    def begin(
        self, styles: Tensor, noise: Sequence[Tensor] | None = None, *, side: int | None = None,
        after: Literal["up", "conv"] = "conv",
    ) -> Features:  # fmt: skip
        """The features of the block of a side, of the image's own one if it is left out.

        Args:
            styles, noise: as of `synthesise`.
            side: of the block's maps.
            after: the block's convolution whose result is taken; the first block has no "up".
        """
        x, rgb, last = self._start(styles.shape[0]), None, side or self.config.resolution
        for level, block_side in enumerate(self.config.sides):
            if level:
                rgb = fir_resample(self._coloured(level - 1, x, rgb, styles), up=True)
                x = self._up(level, x, styles, noise)
            if block_side == last and after == "up":
                return Features(x, rgb, after)
            x = self._conv(level, x, styles, noise)
            if block_side == last:
                return Features(x, rgb)
        raise SizeError(f"a StyleGAN2 of {self.config.resolution} pixels has no block of {last} pixels")

    def maps(self, styles: Tensor, noise: Sequence[Tensor] | None = None) -> list[Tensor]:
        """What the second convolution of every block gives, from the smallest on; arguments as of `synthesise`."""
        x, found = self._start(styles.shape[0]), []
        for level in range(len(self.config.sides)):
            x = self._conv(level, self._up(level, x, styles, noise) if level else x, styles, noise)
            found.append(x)
        return found

    def finish(self, features: Features, styles: Tensor, noise: Sequence[Tensor] | None = None) -> Tensor:
        """Images of the features that a block gave; other arguments as of `synthesise`."""
        x, rgb = features.map, features.rgb
        first = self.config.sides.index(x.shape[2])
        for level in range(first, len(self.config.sides)):
            if level > first:
                assert rgb is not None
                rgb = fir_resample(rgb, up=True)
                x = self._up(level, x, styles, noise)
            if level > first or features.after == "up":
                x = self._conv(level, x, styles, noise)
            rgb = self._coloured(level, x, rgb, styles)
        assert rgb is not None
        return rgb

    def cast_maps(self, dtype: torch.dtype) -> None:
        """Begin with a map of this dtype; for inference, because the constant is rounded once and for all."""
        self.map_dtype = dtype
        self.const.data = self.const.data.to(dtype)

    @torch.no_grad()
    def scale_activations(self) -> None:
        """Replace all layers by those of inference, which scale activations and hold their gains; they do not train."""
        for block in (self._block(level) for level in range(len(self.config.sides))):
            for name, layer in list(block.named_children()):
                if isinstance(layer, StyledConv | ToRgb):
                    setattr(block, name, layer.scaled())
        self.mapping = nn.ModuleList(
            layer.folded() if isinstance(layer, EqualisedLinear) else layer for layer in self.mapping
        )

    def _start(self, count: int) -> Tensor:
        return self.const.to(self.map_dtype).expand(count, -1, -1, -1).contiguous(memory_format=torch.channels_last)

    def _block(self, level: int) -> Block:
        block = getattr(self, f"b{self.config.sides[level]}")
        assert isinstance(block, Block)
        return block

    def _up(self, level: int, x: Tensor, styles: Tensor, noise: Sequence[Tensor] | None) -> Tensor:
        """A block's first convolution, whose noise and style have one number."""
        number, up = 2 * level - 1, self._block(level).up
        assert up is not None
        y: Tensor = up(x, styles[:, number], None if noise is None else noise[number])
        return y

    def _conv(self, level: int, x: Tensor, styles: Tensor, noise: Sequence[Tensor] | None) -> Tensor:
        """A block's second convolution."""
        number = 2 * level
        y: Tensor = self._block(level).conv(x, styles[:, number], None if noise is None else noise[number])
        return y

    def _coloured(self, level: int, x: Tensor, rgb: Tensor | None, styles: Tensor) -> Tensor:
        """The image of a block and of those before it, whose image is doubled already."""
        own: Tensor = self._block(level).rgb(x, styles[:, 2 * level + 1])
        return own if rgb is None else rgb + own


def activated_rows(rows: Tensor) -> Tensor:
    """sqrt(2) lrelu(x) at a slope of 0.2, of rows [N, C]."""
    return F.leaky_relu(rows, SLOPE) * GAIN
