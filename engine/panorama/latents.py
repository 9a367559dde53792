"""The latents of a picture: one vector for all places, or a field that moves along closed paths through anchors."""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch

from zellige.errors import SizeError

__all__ = ["AnchoredLatents", "StillLatents", "fixed_latent", "fixed_latents", "to_normal", "to_uniform"]

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

# Keys of independent random streams; a value must never change, because old seeds would then give new pictures.
_IMAGES, _ANCHORS = 0, 1
_INSIDE = float(np.nextafter(1.0, 0.0))  # the largest float64 below 1


def fixed_latent(seed: int, index: int, length: int) -> Floats:
    """Draw the latent of image `index` under a seed: uniform on [-1, 1], float64 [length], the same in every batch."""
    if index < 0:
        raise SizeError(f"images are numbered from 0; there is no image {index}")
    return np.random.default_rng((_valid(seed), _IMAGES, index)).uniform(-1, 1, length)


def fixed_latents(seed: int, count: int, length: int, first: int = 0) -> Floats:
    """Latents of `count` images from image `first` on, float64 [count, length]; raises SizeError if `count` < 1."""
    if count < 1:
        raise SizeError(f"{count} images cannot be generated; ask for 1 or more")
    return np.stack([fixed_latent(seed, first + k, length) for k in range(count)])


def to_normal(latents: Floats) -> Floats:
    """The normal vectors whose latents these are: g = sqrt(2) erfinv(z), float64 of any shape.

    The ends of [-1, 1] belong to infinite numbers. They are taken as the nearest numbers inside, whose g is 8.2.
    """
    inside = torch.from_numpy(np.clip(latents, -_INSIDE, _INSIDE))
    return (math.sqrt(2) * torch.erfinv(inside)).numpy()


def to_uniform(gauss: Floats) -> Floats:
    """The latents of normal vectors: z = erf(g / sqrt(2)), uniform on [-1, 1] if g is standard normal."""
    return torch.erf(torch.from_numpy(gauss) / math.sqrt(2)).numpy()


@dataclass(frozen=True)
class StillLatents:
    """The same latent, [length], at every place of a picture."""

    latent: Floats

    def __call__(self, rows: Floats, columns: Floats) -> Floats:
        """Latents at positions [n], float64 [n, length]."""
        return np.broadcast_to(self.latent, (len(rows), len(self.latent)))

    def part(self, latent: Floats, rows: Floats, columns: Floats) -> Floats:
        """The factor of a latent's normal vector at positions [n], float64 [n]: 1 if it is this latent, else 0."""
        return np.full(len(rows), float(np.array_equal(latent, self.latent)))


class AnchoredLatents:
    """A latent for every place of a picture that goes round several turns.

    Every turn begins at an anchor drawn from a normal distribution. Between anchors a and b, after a share t of the
    turn, the vector is g = a cos(pi t / 2) + b sin(pi t / 2). This is the great arc between two independent normal
    vectors, so g is normal too, and z = 2 Phi(g) - 1 is uniform on [-1, 1] everywhere, as in training. The last turn
    leads back to the first anchor. With turns in both axes the arc is taken along rows first, then along columns.

    Args:
        seed: the seed of the anchors.
        length: the length of a latent.
        turns: number of turns (vertically, horizontally); 1 means that the latent does not move along that axis.
        patches: number of micro patches in one turn (vertically, horizontally).
    Source: this project; spherical interpolation after White 2016.
    """

    def __init__(self, seed: int, length: int, turns: tuple[int, int], patches: tuple[int, int]) -> None:
        self.seed, self.length, self.turns, self.patches = _valid(seed), length, turns, patches

    def __call__(self, rows: Floats, columns: Floats) -> Floats:
        """Latents at positions in micro patches, float64 [n] each, to float64 [n, length]."""
        return to_uniform(self.gauss(rows, columns))

    def gauss(self, rows: Floats, columns: Floats) -> Floats:
        """The normal vectors g of the latents, float64 [n, length]."""
        (top, below, down), (left, right, across) = self._place(rows, 0), self._place(columns, 1)
        upper = self._arc(self._anchors(top, left), self._anchors(top, right), across)
        lower = self._arc(self._anchors(below, left), self._anchors(below, right), across)
        return self._arc(upper, lower, down)

    def part(self, latent: Floats, rows: Floats, columns: Floats) -> Floats:
        """The factor of a latent's normal vector at positions [n]: 0, because anchors are independent of it."""
        return np.zeros(len(rows))

    def _place(self, positions: Floats, axis: int) -> tuple[Indices, Indices, Floats]:
        """The anchors before and after each position, and the position's share of the way between them."""
        if self.turns[axis] == 1:
            still = np.zeros(len(positions), dtype=np.int64)
            return still, still, np.zeros(len(positions))
        turn, share = np.divmod(positions / self.patches[axis], 1.0)
        before = turn.astype(np.int64) % self.turns[axis]
        return before, (before + 1) % self.turns[axis], share

    def _anchors(self, rows: Indices, columns: Indices) -> Floats:
        places, index = np.unique(np.stack([rows, columns]), axis=1, return_inverse=True)
        return np.stack([_anchor(self.seed, *map(int, place), self.length) for place in places.T])[index.ravel()]

    @staticmethod
    def _arc(a: Floats, b: Floats, share: Floats) -> Floats:
        angle = (np.pi / 2 * share)[:, None]
        return np.where(angle == 0, a, a * np.cos(angle) + b * np.sin(angle))


# Anchors are drawn when they are needed, in 30 us. Few are kept: 4,096 took 12 MiB more than their bytes say, because
# they lie between the maps of the heap, and a render reads those of two rows of turns.
@lru_cache(maxsize=128)
def _anchor(seed: int, row: int, column: int, length: int) -> Floats:
    return np.random.default_rng((seed, _ANCHORS, row, column)).standard_normal(length)


def _valid(seed: int) -> int:
    if seed < 0:
        raise SizeError(f"the seed must be 0 or more, not {seed}")
    return seed
