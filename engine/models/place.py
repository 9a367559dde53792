"""Coordinates inside of a patch: every cell of a map knows its own place in the picture."""

import math

import torch
from torch import Tensor, nn

from .coordinates import Lattice

__all__ = ["Place"]


class Place(nn.Module):
    """What the cells of a map add to it, by their own place in the picture and by the latent.

    y[a, b] = W (g * phi(row a)) + W' (g' * phi(column b)) + W'' (g'' * (phi(row a) x phi(column b))), phi the cosines
    and sines of the place at the frequencies 2^k, 3 2^k and 5 2^k whose wave is at least four cells long, g gains that
    are linear in the latent, so that every latent has a field of waves of its own. A product of a row's and a column's
    wave is a pair of slanted waves; every column wave is paired with the three row waves nearest in length. Waves
    follow from the micro coordinate's octaves by the addition theorems, so equal places of overlapping patches get
    equal values. Weights start as 1 / frequency, like natural images' spectra.

    Args:
        lattice: of the picture.
        latent: length of the latent.
        channels: of the map.
        side: of the map in cells.
    Source: this project, after the coordinate maps of InfinityGAN (Lin et al. 2022).
    """

    def __init__(self, lattice: Lattice, latent: int, channels: int, side: int) -> None:
        super().__init__()
        self.side, self.axes = side, lattice.axes
        # Length of the first octave's wave in patches; and the frequencies, each as the octaves that it is the sum of.
        self.waves = [axis.patches if axis.cyclic else 2 * (axis.patches - 1) for axis in self.axes]
        self.sums = [
            _frequencies(axis.octaves - (not axis.cyclic), side * wave / 4)
            for axis, wave in zip(self.axes, self.waves, strict=True)
        ]
        down, across = (
            [sum(2.0**k for k in octaves) * max(self.waves) / wave for octaves in sums]
            for sums, wave in zip(self.sums, self.waves, strict=True)
        )
        self.pairs = [
            (row, column)
            for column, frequency in enumerate(across)
            for row in sorted(range(len(down)), key=lambda row: abs(math.log2(down[row] / frequency)))[:3]
        ]
        slow = [[1.0] * (not axis.cyclic) for axis in self.axes]
        diagonal = [max(down[row], across[column]) for row, column in self.pairs]
        spectra = [2 * down + slow[0], 2 * across + slow[1], 4 * diagonal]
        self.sizes = [len(spectrum) for spectrum in spectra]
        self.gains = nn.Linear(latent, sum(self.sizes))
        self.rows, self.columns, self.diagonals = (nn.Linear(size, channels, bias=False) for size in self.sizes)
        # Latents are uniform on [-1, 1], of variance 1 / 3: gains start with variance 1 / 2 around 1 / 2.
        nn.init.normal_(self.gains.weight, std=(1.5 / latent) ** 0.5)
        nn.init.constant_(self.gains.bias, 0.5)
        for layer, spectrum in zip((self.rows, self.columns, self.diagonals), spectra, strict=True):
            nn.init.normal_(layer.weight)
            layer.weight.data /= torch.tensor(spectrum, device=layer.weight.device)

    def forward(self, coordinates: Tensor, latent: Tensor) -> Tensor:
        """Micro coordinates [N, micro_dimensions] and latents [N, latent] to [N, channels, side, side]."""
        vertical, horizontal = coordinates.split([axis.micro_dimensions for axis in self.axes], dim=1)
        rows, columns = self._waves(vertical, 0), self._waves(horizontal, 1)
        down, across, diagonal = self.gains(latent)[:, None].split(self.sizes, dim=2)
        y = self.rows(self._flat(rows, vertical, 0) * down).transpose(1, 2)[:, :, :, None]
        y = y + self.columns(self._flat(columns, horizontal, 1) * across).transpose(1, 2)[:, :, None, :]
        row, column = [row for row, _ in self.pairs], [column for _, column in self.pairs]
        product = rows[:, :, None, row, :, None] * columns[:, None, :, column, None, :]  # [N, a, b, pairs, 2, 2]
        product = product.permute(0, 1, 2, 4, 5, 3).flatten(3)
        return y + self.diagonals(product * diagonal[:, None]).permute(0, 3, 1, 2)

    def _waves(self, coordinate: Tensor, which: int) -> Tensor:
        """Cosines and sines of the place of every cell along an axis, [N, side, frequencies, 2]."""
        axis, octaves = self.axes[which], 1 + max(max(sums) for sums in self.sums[which])
        frequency = 2 * math.pi / self.waves[which] * 2 ** torch.arange(octaves).to(coordinate)
        turn = self._offset(coordinate)[:, None] * frequency
        first = 0 if axis.cyclic else 1
        waves = coordinate[:, first : first + 2 * octaves].unflatten(1, (octaves, 2))[:, None]  # [N, 1, octaves, 2]
        turned = _turn(waves, torch.stack([turn.cos(), turn.sin()], dim=-1))
        singles = [sums[0] for sums in self.sums[which] if len(sums) == 1]
        one, other = ([sums[i] for sums in self.sums[which] if len(sums) == 2] for i in (0, 1))
        return torch.cat([turned[:, :, singles], _turn(turned[:, :, one], turned[:, :, other])], dim=2)

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


def _frequencies(octaves: int, highest: float) -> list[tuple[int, ...]]:
    """The frequencies 2^k, then 3 2^k and 5 2^k, up to the highest, each as the exponents that add up to it."""
    single: list[tuple[int, ...]] = [(k,) for k in range(octaves)]
    double: list[tuple[int, ...]] = [(k, k + step) for step in (1, 2) for k in range(octaves - step)]
    return [sums for sums in single + double if sum(2**k for k in sums) <= highest]


def _turn(wave: Tensor, by: Tensor) -> Tensor:
    """Cosine and sine of the sum of two angles from those of each, [..., 2]."""
    cosine, sine = wave[..., 0], wave[..., 1]
    return torch.stack([cosine * by[..., 0] - sine * by[..., 1], sine * by[..., 0] + cosine * by[..., 1]], dim=-1)
