"""Latents over a picture: one fixed vector, or a field that moves along closed paths through anchors."""

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch

from zellige.errors import SizeError

__all__ = ["AnchoredLatents", "fixed_latent", "fixed_latents"]

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

# Keys of independent random streams; a value never changes, or old seeds would give new pictures.
_IMAGES, _ANCHORS = 0, 1


def fixed_latent(seed: int, index: int, length: int) -> Floats:
    """Draw the latent of image `index` under a seed, uniform on [-1, 1], float64 [length], whatever else is drawn."""
    if index < 0:
        raise SizeError(f"images are numbered from 0; there is no image {index}")
    return np.random.default_rng((_valid(seed), _IMAGES, index)).uniform(-1, 1, length)


def fixed_latents(seed: int, count: int, length: int, first: int = 0) -> Floats:
    """Draw the latents of `count` images from number `first` on, float64 [count, length]; SizeError without any."""
    if count < 1:
        raise SizeError(f"{count} images cannot be generated; ask for 1 or more")
    return np.stack([fixed_latent(seed, first + k, length) for k in range(count)])


class AnchoredLatents:
    """A latent for every place of a picture that goes round several turns.

    Every turn begins at an anchor drawn from a normal distribution; between anchors a and b, at share t of a turn, the
    vector is g = a cos(pi t / 2) + b sin(pi t / 2), the great arc between two independent normal vectors, which is
    normal again. z = 2 Phi(g) - 1 then is uniform on [-1, 1] everywhere, as in training. The last turn leads back to
    the first anchor. With turns in both axes the arc is taken along rows first, then along columns.

    Args:
        seed: of the anchors.
        length: of a latent.
        turns: number of turns (vertically, horizontally); 1 means that the latent does not move along that axis.
        patches: micro patches of one turn (vertically, horizontally).
    Source: this project; spherical interpolation after White 2016.
    """

    def __init__(self, seed: int, length: int, turns: tuple[int, int], patches: tuple[int, int]) -> None:
        self.seed, self.length, self.turns, self.patches = _valid(seed), length, turns, patches
        # Anchors are drawn when needed, so that a picture of a million turns costs no memory.
        self._anchor = lru_cache(maxsize=4096)(self._draw)

    def __call__(self, rows: Floats, columns: Floats) -> Floats:
        """Latents at positions in micro patches, float64 [n] each, to float64 [n, length]."""
        (top, below, down), (left, right, across) = self._place(rows, 0), self._place(columns, 1)
        upper = self._arc(self._anchors(top, left), self._anchors(top, right), across)
        lower = self._arc(self._anchors(below, left), self._anchors(below, right), across)
        gauss = self._arc(upper, lower, down)
        return torch.erf(torch.from_numpy(gauss) / math.sqrt(2)).numpy()

    def _place(self, positions: Floats, axis: int) -> tuple[Indices, Indices, Floats]:
        """Anchor before and after each position and the share of the way between them."""
        if self.turns[axis] == 1:
            still = np.zeros(len(positions), dtype=np.int64)
            return still, still, np.zeros(len(positions))
        turn, share = np.divmod(positions / self.patches[axis], 1.0)
        before = turn.astype(np.int64) % self.turns[axis]
        return before, (before + 1) % self.turns[axis], share

    def _anchors(self, rows: Indices, columns: Indices) -> Floats:
        places, index = np.unique(np.stack([rows, columns]), axis=1, return_inverse=True)
        return np.stack([self._anchor(int(row), int(column)) for row, column in places.T])[index.ravel()]

    def _draw(self, row: int, column: int) -> Floats:
        return np.random.default_rng((self.seed, _ANCHORS, row, column)).standard_normal(self.length)

    @staticmethod
    def _arc(a: Floats, b: Floats, share: Floats) -> Floats:
        angle = (np.pi / 2 * share)[:, None]
        return np.where(angle == 0, a, a * np.cos(angle) + b * np.sin(angle))


def _valid(seed: int) -> int:
    if seed < 0:
        raise SizeError(f"the seed must be 0 or more, not {seed}")
    return seed
