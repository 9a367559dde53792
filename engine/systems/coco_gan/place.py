"""Dense places: a layer that tells every cell of a map its own place in the picture."""

import math
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from ...layers.batch_invariance import BatchInvariantLinear
from ...layers.constants import register_constant
from ...panorama.lattice import Axis, Lattice

__all__ = ["Place"]

_WAVES_AN_OCTAVE, _NOISES = 16, 16
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

    def __init__(self, lattice: Lattice, latent: int, channels: int, side: int) -> None:
        super().__init__()
        self.side, self.axes = side, lattice.axes
        self.waves = _waves(lattice, min(side / 4, 1.0))
        self.gains = BatchInvariantLinear(latent, 2 * len(self.waves) + _NOISES)
        self.mix = nn.Conv2d(len(self.waves) + _NOISES, channels, 1, bias=False)
        register_constant(self, "noise", _noise_shape(lattice, side), partial(_noise, lattice, side))
        # Latents are uniform on [-1, 1], with variance 1 / 3, so these weights give gains, waves and noise variance 1.
        nn.init.normal_(self.gains.weight, std=(3 / latent) ** 0.5)
        nn.init.zeros_(self.gains.bias)
        nn.init.normal_(self.mix.weight)
        self.mix.weight.data[:, : len(self.waves)] *= len(self.waves) ** -0.5
        self.mix.weight.data[:, len(self.waves) :] *= 0.5 * _NOISES**-0.5

    def forward(self, coordinates: Tensor, latent: Tensor, block: tuple[int, int] = (1, 1), margin: int = 0) -> Tensor:
        """The field over a block of micro patches and a margin.

        Args:
            coordinates: micro coordinates [N, dimensions] of the blocks' top left patches.
            latent: [N, latent].
            block: micro patches down and across.
            margin: cells added on every side.
        Returns:
            [N, channels, S, T], S = block[0] * side + 2 * margin, T = block[1] * side + 2 * margin.
        """
        parts = coordinates.split([axis.dimensions for axis in self.axes], dim=1)
        corner = [_position(axis, part)[:, None] for axis, part in zip(self.axes, parts, strict=True)]
        cells = [torch.arange(-margin, n * self.side + margin, device=coordinates.device) for n in block]
        waves = torch.tensor(self.waves, dtype=coordinates.dtype, device=coordinates.device)
        down, across = (
            2 * math.pi * (place + (inside + 0.5) / self.side)[:, None, :] * frequencies[:, None]
            for place, inside, frequencies in zip(corner, cells, waves.unbind(1), strict=True)
        )  # [N, K, S] and [N, K, T]
        a, b, c = self.gains(latent)[:, :, None].split([len(waves), len(waves), _NOISES], dim=1)
        # The addition theorem splits cos and sin of a sum into products of a number of the row and one of the column.
        with_cos, with_sin = a * down.cos() + b * down.sin(), b * down.cos() - a * down.sin()
        dtype = self.mix.weight.dtype
        p, q, r, s = (t.to(dtype) for t in (with_cos, across.cos(), with_sin, across.sin()))
        field = torch.addcmul(p[:, :, :, None] * q[:, :, None, :], r[:, :, :, None], s[:, :, None, :])
        row, column = (
            ((place * self.side).round().long() + inside) % (axis.patches * self.side)
            for axis, place, inside in zip(self.axes, corner, cells, strict=True)
        )
        noise = self.noise[row[:, :, None], column[:, None, :]].permute(0, 3, 1, 2)  # [N, 16, S, T]
        features = torch.cat([field, (noise * c[:, :, :, None]).to(dtype)], dim=1)
        y: Tensor = self.mix(features.contiguous(memory_format=torch.channels_last))
        return y


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
