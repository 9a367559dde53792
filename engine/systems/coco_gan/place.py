"""Dense places: a layer that tells every cell of a map its own place in the picture."""

import math
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from ....kernels import wave_field
from ...layers.batch_invariance import BatchInvariantLinear, BatchInvariantPointConv
from ...layers.constants import register_constant
from ...panorama.lattice import Axis, Lattice
from .spread import Window, steady

__all__ = ["Place"]

_WAVES_AN_OCTAVE, _NOISES = 16, 16
_FINEST = 1024  # parts of a patch that places between cells are rounded to, because coordinates carry rounding errors
_GOLDEN = (5**0.5 - 1) / 2


class Place(nn.Module):
    """A field to add to a map, which depends on each cell's place in the picture and on the latent.

    y(p) = W [u(p), v(p)], u_k(p) = a_k(z) cos(2 pi f_k . p) + b_k(z) sin(2 pi f_k . p), v_l(p) = c_l(z) n_l(p), with
    a, b and c linear in the latent. There are 16 plane waves f_k for each octave, in all directions, from one turn of
    the picture to one patch (on coarse maps four cells) long. Their sum is a random field that differs for every
    latent. The n_l are 16 fixed pictures of white noise, one number for each cell. They give the finer detail, because
    few short waves would look like a weave. On a cyclic axis a turn has a whole number of each wave's cycles, and the
    noise goes round; on an open axis waves and noise go on beyond the picture. Places between cells take the nearest
    cell's noise.

    Args:
        lattice: the picture's lattice.
        latent: length of the latent.
        channels: channels of the map.
        side: side of a patch in cells.
    Source: this project, after random Fourier features (Tancik et al. 2020), the noise of StyleGAN (Karras et al. 2019)
        and the coordinates inside of a patch of InfinityGAN (Lin et al. 2022).
    """

    noise: Tensor
    down: Tensor
    across: Tensor
    cycles: Tensor

    def __init__(self, lattice: Lattice, latent: int, channels: int, side: int) -> None:
        super().__init__()
        self.side, self.axes = side, lattice.axes
        self.waves = _waves(lattice, min(side / 4, 1.0))
        self.gains = BatchInvariantLinear(latent, 2 * len(self.waves) + _NOISES)
        self.mix = BatchInvariantPointConv(len(self.waves) + _NOISES, channels, bias=False)
        register_constant(self, "noise", _noise_shape(lattice, side), partial(_noise, lattice, side))
        for name, axis, cycles in zip(("down", "across"), lattice.axes, zip(*self.waves, strict=True), strict=True):
            shape = (_length(axis, side), 2 * len(self.waves))
            register_constant(self, name, shape, partial(_table, axis, side, cycles))
        register_constant(
            self, "cycles", (2, len(self.waves)), partial(torch.tensor, list(zip(*self.waves, strict=True)))
        )
        # Latents are uniform on [-1, 1], with variance 1 / 3, so these weights give gains, waves and noise variance 1.
        nn.init.normal_(self.gains.weight, std=(3 / latent) ** 0.5)
        nn.init.zeros_(self.gains.bias)
        nn.init.normal_(self.mix.weight)
        self.mix.weight.data[:, : len(self.waves)] *= len(self.waves) ** -0.5
        self.mix.weight.data[:, len(self.waves) :] *= 0.5 * _NOISES**-0.5

    def forward(self, window: Window, margin: int = 0) -> Tensor:
        """The field over the blocks of a window, and `margin` cells beyond each side.

        Returns:
            [N, channels, S, T], S = block[0] * side + 2 * margin, T = block[1] * side + 2 * margin.
        """
        dtype, count = self.mix.weight.dtype, len(self.waves)
        cells, latent = window.cells(self.side, margin), window.condition
        parts = window.coordinates.split([axis.dimensions for axis in self.axes], dim=1)
        (rows, cos_down, sin_down), (columns, cos, sin) = (
            self._cells(
                axis, (_position(axis, part) + begin) * self.side, margin, n * self.side + margin, table, cycles
            )
            for axis, part, begin, n, table, cycles in zip(
                self.axes, parts, window.offset, window.block, (self.down, self.across), self.cycles, strict=True
            )
        )  # [N, S | T] and twice [N, S | T, K]
        gains = self.gains(latent.flatten(0, -2)).unflatten(0, latent.shape[:-1])
        gains = steady(gains) if cells is None else cells.across(gains)  # [N, R, T | 1, 2 K + 16]
        a, b, c = gains.split([count, count, _NOISES], dim=3)
        # The addition theorem splits cos and sin of a sum into products of a number of the row and one of the column.
        cos, sin = cos[:, None], sin[:, None]
        across = torch.cat(
            [a * cos + b * sin, b * cos - a * sin, c.expand(-1, -1, columns.shape[1], -1)], dim=3
        )  # [N, R, T, 2 K + 16]
        every, first = (1, 0) if cells is None else (cells.scale, cells.first)
        down = torch.cat([cos_down, sin_down], dim=2)
        y: Tensor = self.mix(wave_field(down, across, self.noise, rows, columns, dtype, every=every, first=first))
        return y

    def _cells(
        self, axis: Axis, first: Tensor, margin: int, stop: int, table: Tensor, cycles: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The nearest cells [N, S] of an axis from `first` - margin to `first` + stop, and the waves at these places.

        The waves, cosines and sines [N, S, K], come from the table. What is left to the place, as far as it lies
        between cells, is a rotation; at whole cells it changes no bit. So cells have the same bits in any block.
        """
        whole, period = first.round(), axis.patches * self.side
        if not axis.cyclic:  # the table ends a picture's length before and behind the picture
            whole = whole.clamp(margin - period, 2 * period - stop)
        index = whole.long()[:, None] + torch.arange(-margin, stop, device=first.device)
        rest = ((first - whole) / self.side * _FINEST).round() / _FINEST
        angle = 2 * math.pi * rest[:, None] * cycles
        turn_cos, turn_sin = (t[:, None].to(table.dtype) for t in (angle.cos(), angle.sin()))  # [N, 1, K]
        cos, sin = table[index % period if axis.cyclic else index + period].chunk(2, dim=2)
        return index % period, cos * turn_cos - sin * turn_sin, sin * turn_cos + cos * turn_sin


def _waves(lattice: Lattice, highest: float) -> list[tuple[float, float]]:
    """Plane waves as cycles per patch (down, across), with evenly spread lengths and directions; none comes twice."""
    lowest = 1 / max(axis.patches for axis in lattice.axes)
    count = max(1, round(_WAVES_AN_OCTAVE * math.log2(highest / lowest)))
    waves: dict[tuple[float, float], None] = {}
    for k in range(count):
        radius, angle = lowest * (highest / lowest) ** ((k + 0.5) / count), math.pi * (k * _GOLDEN % 1)
        wave = [
            round(part * axis.patches) / axis.patches if axis.cyclic else part
            for part, axis in zip((radius * math.sin(angle), radius * math.cos(angle)), lattice.axes, strict=True)
        ]
        waves[wave[0], wave[1]] = None
    waves.pop((0.0, 0.0), None)
    return list(waves)


def _length(axis: Axis, side: int) -> int:
    """Cells of an axis whose waves are kept: one turn, or on an open axis the picture, and as many on both ends."""
    return axis.patches * side * (1 if axis.cyclic else 3)


def _table(axis: Axis, side: int, frequencies: tuple[float, ...]) -> Tensor:
    """Cosines, then sines, of the waves at the centres of an axis's cells, float32 [cells, 2 K]."""
    cells = np.arange(_length(axis, side)) - (0 if axis.cyclic else axis.patches * side)
    angle = 2 * np.pi * ((cells + 0.5) / side)[:, None] * np.array(frequencies)
    return torch.from_numpy(np.concatenate([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32))


def _noise_shape(lattice: Lattice, side: int) -> tuple[int, int, int]:
    return lattice.rows * side, lattice.columns * side, _NOISES


def _noise(lattice: Lattice, side: int) -> Tensor:
    """White noise of variance 1, one vector for each cell of the picture, float32 [rows * side, columns * side, 16].

    The numbers are uniform and made from raw bits, because NumPy promises the same raw bits in all versions.
    """
    shape = _noise_shape(lattice, side)
    bits = np.random.PCG64(side).random_raw(math.prod(shape)) >> np.uint64(40)
    return torch.from_numpy(((bits / 2**23 - 1) * 3**0.5).astype(np.float32).reshape(shape))


def _position(axis: Axis, coordinate: Tensor) -> Tensor:
    """Turn an axis's part of micro coordinates, [N, dimensions], into positions in micro patches, [N]."""
    if axis.cyclic:
        cosine, sine = coordinate.unbind(1)
        return (torch.atan2(sine, cosine) / math.pi + 1) * (axis.patches / 2)
    return (coordinate[:, 0] + 1) * ((axis.patches - 1) / 2)
