"""Macro patches drawn from pictures, with the lattice positions at which they were taken."""

from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ....engine.panorama.lattice import Lattice
from ...data.sources import Pictures

__all__ = ["MacroPatches", "Sampling"]

Sampling = Literal["lattice", "continuous"]


class MacroPatches(Dataset[tuple[Tensor, ...]]):
    """Item i is a macro patch of a random picture, with its position; both are a function of (seed, i) alone.

    Positions are drawn uniformly from the macro lattice. With `sampling="continuous"` cyclic axes take any real
    position, so that a generator learns every angle instead of the lattice's columns only. Items 2k and 2k + 1 share
    their position, so the distance within the pair tells how much pictures differ at one coordinate. If an axis of the
    lattice is cyclic but the pictures are not, the crop is taken anywhere inside them, without wrapping (textures are
    alike everywhere).

    Args:
        pictures: pictures of the lattice's resolution.
        lattice: rows, columns, span.
        patch: side of a micro patch in pixels.
        seed: of all draws.
        sampling: "lattice" (as published) or "continuous".
    """

    def __init__(
        self, pictures: Pictures, lattice: Lattice, patch: int, seed: int, sampling: Sampling = "lattice"
    ) -> None:
        self.pictures, self.lattice, self.patch, self.seed, self.sampling = pictures, lattice, patch, seed, sampling

    def __getitem__(self, item: int) -> tuple[Tensor, ...]:
        """Return the patch, uint8 [3, K, K], and the row and column of its first micro patch, float64 [2]."""
        shared, own = np.random.default_rng((self.seed, 0, item // 2)), np.random.default_rng((self.seed, 1, item))
        position, corner = [], []
        for axis, wraps, pixels in zip(self.lattice.axes, self.pictures.cyclic, self.pictures.resolution, strict=True):
            if axis.cyclic and self.sampling == "continuous":
                place = shared.uniform(0, axis.patches)
            else:
                place = float(shared.integers(axis.macro_positions))
            position.append(place)
            free = pixels - self.patch * self.lattice.span
            corner.append(own.uniform(0, free) if axis.cyclic and not wraps else place * self.patch)
        size = self.patch * self.lattice.span
        crop = self.pictures.crop(int(own.integers(2**31)), corner[0], corner[1], (size, size))
        return torch.from_numpy(crop).permute(2, 0, 1), torch.tensor(position, dtype=torch.float64)
