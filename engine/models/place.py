"""Coordinates inside of a patch: every cell of a map knows its own place in the picture."""

import math

import torch
from torch import Tensor, nn

from .coordinates import Axis, Lattice

__all__ = ["Place"]

_WAVES_AN_OCTAVE = 16
_GOLDEN = (5**0.5 - 1) / 2


class Place(nn.Module):
    """What the cells of a map add to it, by their own place in the picture and by the latent.

    y(p) = W u(p), u_k(p) = a_k(z) cos(2 pi f_k . p) + b_k(z) sin(2 pi f_k . p), with a and b linear in the latent. The
    plane waves f_k point in all directions, 16 an octave, from one turn of the picture to four cells long. Their sum is
    a random field, different for every latent, with as much variance in each octave, as of natural terrain. On a cyclic
    axis frequencies are whole numbers a turn, so the field closes; on an open one it goes on beyond the picture.

    Args:
        lattice: of the picture.
        latent: length of the latent.
        channels: of the map.
        side: of a patch in cells.
    Source: this project, after random Fourier features (Tancik et al. 2020) and the coordinates inside of a patch of
        InfinityGAN (Lin et al. 2022).
    """

    def __init__(self, lattice: Lattice, latent: int, channels: int, side: int) -> None:
        super().__init__()
        self.side, self.axes = side, lattice.axes
        self.waves = _waves(lattice, side / 4)
        self.gains = nn.Linear(latent, 2 * len(self.waves))
        self.mix = nn.Conv2d(len(self.waves), channels, 1, bias=False)
        # Latents are uniform on [-1, 1], of variance 1 / 3: gains start with variance 1, and so does y.
        nn.init.normal_(self.gains.weight, std=(3 / latent) ** 0.5)
        nn.init.zeros_(self.gains.bias)
        nn.init.normal_(self.mix.weight, std=len(self.waves) ** -0.5)

    def forward(self, coordinates: Tensor, latent: Tensor, patches: int = 1, margin: int = 0) -> Tensor:
        """The field over patches x patches micro patches and a margin.

        Args:
            coordinates: [N, dimensions] of the top left micro patches.
            latent: [N, latent].
            patches: micro patches along each side.
            margin: cells added on every side.
        Returns:
            [N, channels, S, S], S = patches * side + 2 * margin.
        """
        vertical, horizontal = coordinates.split([axis.dimensions for axis in self.axes], dim=1)
        waves = torch.tensor(self.waves, dtype=coordinates.dtype, device=coordinates.device)
        frequencies = 2 * math.pi * waves  # [K, 2]
        cells = (torch.arange(-margin, patches * self.side + margin).to(coordinates) + 0.5) / self.side
        down = (_position(self.axes[0], vertical)[:, None] + cells)[:, None, :] * frequencies[:, :1]  # [N, K, S]
        across = (_position(self.axes[1], horizontal)[:, None] + cells)[:, None, :] * frequencies[:, 1:]
        a, b = self.gains(latent)[:, :, None].chunk(2, dim=1)
        # cos and sin of a sum by the addition theorem: products of a row's and a column's numbers.
        with_cos, with_sin = a * down.cos() + b * down.sin(), b * down.cos() - a * down.sin()
        dtype = self.mix.weight.dtype
        p, c, q, s = (t.to(dtype) for t in (with_cos, across.cos(), with_sin, across.sin()))
        field = torch.addcmul(p[:, :, :, None] * c[:, :, None, :], q[:, :, :, None], s[:, :, None, :])
        y: Tensor = self.mix(field.contiguous(memory_format=torch.channels_last))
        return y


def _waves(lattice: Lattice, highest: float) -> list[tuple[float, float]]:
    """Plane waves in cycles a patch (down, across), their lengths and directions evenly spread; none twice."""
    lowest = 1 / max(axis.patches for axis in lattice.axes)
    count = max(1, round(_WAVES_AN_OCTAVE * math.log2(highest / lowest)))
    waves = {}
    for k in range(count):
        radius, angle = lowest * (highest / lowest) ** ((k + 0.5) / count), math.pi * (k * _GOLDEN % 1)
        wave = [
            round(part * axis.patches) / axis.patches if axis.cyclic else part
            for part, axis in zip((radius * math.sin(angle), radius * math.cos(angle)), lattice.axes, strict=True)
        ]
        waves[wave[0], wave[1]] = None
    waves.pop((0.0, 0.0), None)
    return list(waves)


def _position(axis: Axis, coordinate: Tensor) -> Tensor:
    """Position in micro patches from an axis's part of a micro coordinate: [N, 1 or 2] to [N]."""
    if axis.cyclic:
        cosine, sine = coordinate.unbind(1)
        return (torch.atan2(sine, cosine) / math.pi + 1) * (axis.patches / 2)
    return (coordinate[:, 0] + 1) * ((axis.patches - 1) / 2)
