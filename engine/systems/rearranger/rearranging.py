"""The rearranger: moves the features of one image to where a proxy mask of another wants them.

Queries come from the mask, keys and values from the features; one head of attention moves whole vectors. There is no
way from a feature to the result at the same place but through attention, or the source's layout would leak.

Source: Chae, Cho, Go, Choi, Uh, "Semantic Image Synthesis with Unconditional Generator", NeurIPS 2023, section 3.
"""

import math
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....kernels import rearrange
from ...layers.constants import register_constant
from ...layers.equalised import ActivatedConv, EqualisedConv
from ..stylegan2.generator import Features
from .config import RearrangerConfig

__all__ = ["Rearranger", "positions"]

_COLOURS = 8  # columns of values for the image of three channels, so that rows stay aligned


class ResidualBlock(nn.Module):
    """(convolutions(x) + x) / sqrt(2), each a 3x3 one with StyleGAN2's activation.

    Args:
        width: channels.
        depth: convolutions.
    """

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(ActivatedConv(width, width, padding=1) for _ in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        """Maps [N, C, S, S] to the same."""
        y: Tensor = self.layers(x)
        return (y + x) * math.sqrt(0.5)


class Rearranger(nn.Module):
    """Features and a proxy mask to features of the mask's layout.

    Args:
        config: widths and reading.
    Attributes:
        map_dtype: dtype of the maps, float32 unless it is set.
    """

    places: Tensor
    key_places: Tensor

    def __init__(self, config: RearrangerConfig) -> None:
        super().__init__()
        self.config, self.map_dtype = config, torch.float32
        width, channels = config.width, config.features
        self.classes = nn.Parameter(torch.randn(config.clusters, width))
        register_constant(self, "places", (1, width, config.split, config.split), partial(_places, width, config.split))
        if config.key_positions:
            shape = (1, channels, config.split, config.split)
            register_constant(self, "key_places", shape, partial(_places, channels, config.split))
        blocks = 2 if config.reading == "C" else 1
        self.before = nn.Sequential(*(ResidualBlock(width, config.depth) for _ in range(blocks)))
        self.beside = ResidualBlock(channels, config.depth) if config.reading == "B" else nn.Identity()
        self.query = EqualisedConv(width, config.key_width, 1, bias=False)
        self.key = EqualisedConv(channels, config.key_width, 1, bias=False)
        self.value = EqualisedConv(channels, width, 1, bias=False)
        self.joined = EqualisedConv(width, width, 1)
        self.after = nn.Sequential(*(ResidualBlock(width, config.depth) for _ in range(blocks)))
        self.features = EqualisedConv(width, channels, 1) if width != channels else nn.Identity()

    def forward(self, features: Features, mask: Tensor) -> Features:
        """Move features.

        Args:
            features: what the generator's first half gives, map [N, C, S, S] and rgb [N, 3, S, S].
            mask: labels, int64 [N, S, S]; or probabilities [N, K, S, S].
        Returns:
            features of the same shapes; without rgb if the configuration drops it.
        """
        source = features.map.to(self.map_dtype)
        query = self.query(self.before(self.embedded(mask).to(self.map_dtype)))
        placed = source + self.key_places.to(source.dtype) if self.config.key_positions else source
        key = self.key(self.beside(placed))
        values, rgb = _tokens(self.value(source)), features.rgb
        moves = self.config.rgb == "rearrange" and rgb is not None
        if moves:
            assert rgb is not None
            colours = F.pad(_tokens(rgb.to(values.dtype)), (0, _COLOURS - 3))
            values = torch.cat([values, colours], 2)
        moved = rearrange(_tokens(query), _tokens(key), values)
        if moves:
            moved, colours = moved.split([self.config.width, _COLOURS], 2)
            rgb = _map(colours[:, :, :3], self.config.split).float()
        made = self.features(self.after(self.joined(_map(moved, self.config.split))))
        return Features(made, None if self.config.rgb == "drop" else rgb, features.after)

    def cast_maps(self, dtype: torch.dtype) -> None:
        """Compute maps of this dtype."""
        self.map_dtype = dtype

    def embedded(self, mask: Tensor) -> Tensor:
        """Class vectors and positions of a mask, [N, width, S, S] float32; arguments as of `forward`."""
        if mask.is_floating_point():
            vectors = torch.einsum("nkhw,kc->nchw", mask, self.classes)
        else:
            vectors = F.embedding(mask, self.classes).permute(0, 3, 1, 2)
        return vectors + self.places


def positions(width: int, side: int) -> Tensor:
    """Sinusoidal positions of a map, [width, side, side]: the first half encodes rows, the second columns.

    Along an axis p[2t] = sin(x / 10000^(2t / (width / 2))), and p[2t + 1] is the cosine. Source: Vaswani et al. 2017.
    """
    half = width // 2
    rates = torch.exp(torch.arange(0, half, 2, dtype=torch.float64) * (-math.log(10000.0) / half))
    angles = torch.arange(side, dtype=torch.float64)[:, None] * rates
    line = torch.stack([angles.sin(), angles.cos()], 2).flatten(1).T.float()  # [half, side]
    rows, columns = line[:, :, None].expand(-1, -1, side), line[:, None, :].expand(-1, side, -1)
    return torch.cat([rows, columns]).contiguous()


def _places(width: int, side: int) -> Tensor:
    return positions(width, side)[None]


def _tokens(x: Tensor) -> Tensor:
    """Maps [N, C, S, S] as rows [N, S S, C], which channels-last maps are already."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def _map(rows: Tensor, side: int) -> Tensor:
    """Rows [N, S S, C] as channels-last maps [N, C, S, S]."""
    return rows.unflatten(1, (side, side)).permute(0, 3, 1, 2)
