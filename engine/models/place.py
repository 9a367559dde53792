"""Coordinates inside of a patch: every cell of a map knows its own place in the picture."""

import math

import torch
from torch import Tensor, nn

from .coordinates import Lattice

__all__ = ["Place"]


class Place(nn.Module):
    """What the cells of a map add to it, by their own place in the picture.

    y[a, b] = W phi(row a) + W' phi(column b) + W'' (phi(row a) x phi(column b)), phi the cosines and sines of the place
    in the octaves whose wave is at least four cells long; the product of a row's and a column's wave of about one
    length is a pair of diagonal waves. They follow from the micro coordinate by the addition theorems, so equal places
    of overlapping patches get equal values. Weights start as 1 / frequency, the spectrum of natural images.

    Args:
        lattice: of the picture.
        channels: of the map.
        side: of the map in cells.
    Source: this project, after the coordinate maps of InfinityGAN (Lin et al. 2022).
    """

    def __init__(self, lattice: Lattice, channels: int, side: int) -> None:
        super().__init__()
        self.side, self.axes = side, lattice.axes
        # Length of the first octave's wave in patches, and how many octaves this map can show.
        self.waves = [axis.patches if axis.cyclic else 2 * (axis.patches - 1) for axis in self.axes]
        self.octaves = [
            min(max(0, int(math.log2(side * wave / 4)) + 1), axis.octaves - (not axis.cyclic))
            for axis, wave in zip(self.axes, self.waves, strict=True)
        ]
        # Row octave j and column octave k have waves of about one length where j - k is this.
        lead = round(math.log2(self.waves[0] / self.waves[1]))
        self.pairs = [(k + lead, k) for k in range(self.octaves[1]) if 0 <= k + lead < self.octaves[0]]
        open_axes = [not axis.cyclic for axis in self.axes]
        self.rows, self.columns = (
            nn.Linear(2 * octaves + is_open, channels) for octaves, is_open in zip(self.octaves, open_axes, strict=True)
        )
        self.diagonals = nn.Linear(4 * len(self.pairs), channels, bias=False) if self.pairs else None
        frequencies = [2.0 ** torch.arange(octaves) * max(self.waves) / wave
                       for octaves, wave in zip(self.octaves, self.waves, strict=True)]  # fmt: skip
        for layer, frequency, is_open in zip((self.rows, self.columns), frequencies, open_axes, strict=True):
            scale = torch.cat([frequency.repeat(2), torch.ones(int(is_open))])
            nn.init.normal_(layer.weight)
            nn.init.zeros_(layer.bias)
            layer.weight.data /= scale.sqrt()
        if self.diagonals is not None:
            nn.init.normal_(self.diagonals.weight)
            self.diagonals.weight.data /= frequencies[1][[k for _, k in self.pairs]].repeat(4).sqrt()

    def forward(self, coordinates: Tensor) -> Tensor:
        """Micro coordinates [N, micro_dimensions] to [N, channels, side, side]."""
        vertical, horizontal = coordinates.split([axis.micro_dimensions for axis in self.axes], dim=1)
        rows, columns = self._waves(vertical, 0), self._waves(horizontal, 1)
        y = self.rows(self._flat(rows, vertical, 0)).transpose(1, 2)[:, :, :, None]
        y = y + self.columns(self._flat(columns, horizontal, 1)).transpose(1, 2)[:, :, None, :]
        if self.diagonals is not None:
            down, across = (list(indices) for indices in zip(*self.pairs, strict=True))
            product = rows[:, :, None, down, :, None] * columns[:, None, :, across, None, :]  # [N, a, b, K, 2, 2]
            y = y + self.diagonals(product.permute(0, 1, 2, 4, 5, 3).flatten(3)).permute(0, 3, 1, 2)
        return y

    def _waves(self, coordinate: Tensor, which: int) -> Tensor:
        """Cosines and sines of the place of every cell along an axis, [N, side, octaves, 2]."""
        octaves = self.octaves[which]
        frequency = 2 * math.pi / self.waves[which] * 2 ** torch.arange(octaves).to(coordinate)
        turn = self._offset(coordinate)[:, None] * frequency
        first = 0 if self.axes[which].cyclic else 1
        waves = coordinate[:, first : first + 2 * octaves].unflatten(1, (octaves, 2))[:, None]  # [N, 1, octaves, 2]
        cosine, sine = waves[..., 0], waves[..., 1]
        turned = cosine * turn.cos() - sine * turn.sin(), sine * turn.cos() + cosine * turn.sin()
        return torch.stack(turned, dim=-1)

    def _flat(self, waves: Tensor, coordinate: Tensor, which: int) -> Tensor:
        """The waves of an axis, and on an open one the place itself, [N, side, features]."""
        features = waves.transpose(2, 3).flatten(2)
        if self.axes[which].cyclic:
            return features
        place = coordinate[:, :1] + 2 * self._offset(coordinate) / (self.axes[which].patches - 1)
        return torch.cat([features, place[:, :, None]], dim=2)

    def _offset(self, like: Tensor) -> Tensor:
        """Centres of the cells from the patch's first edge, in patches, [side]."""
        return (torch.arange(self.side).to(like) + 0.5) / self.side
