"""Edits: a picture's latent field with another latent in a region, and the pixels that this changes."""

import math
from dataclasses import dataclass
from itertools import product
from typing import Protocol

import numpy as np
import numpy.typing as npt

from zellige.errors import SizeError

from .latents import to_normal, to_uniform
from .scene import Region, Scene

__all__ = ["Bump", "EditedLatents", "MixedLatents", "bump_of", "changed_by", "overlap"]

Floats = npt.NDArray[np.float64]
Interval = tuple[int, int]  # pixels from the first to behind the last


class MixedLatents(Protocol):
    """A field of latents that knows the latents which it is mixed of."""

    def __call__(self, rows: Floats, columns: Floats) -> Floats:
        """Latents at positions [n], float64 [n, length]."""
        ...

    def part(self, latent: Floats, rows: Floats, columns: Floats) -> Floats:
        """The factor of a latent's normal vector in the normal vectors at positions, float64 [n]."""
        ...


@dataclass(frozen=True)
class Bump:
    """The weight of an edit: 1 in a rectangle, and a smooth fall to 0 over some pixels outside of it.

    Along an axis w = cos^2(pi d / (2 s)), where d is the distance from the rectangle and s the softening, and w = 0
    from d = s on. The weight at a place is the product of both axes' weights. It is 1 along an axis that the rectangle
    spans.

    Args:
        region: the rectangle; on a cyclic axis it may go round the closure.
        soften: s in pixels; 0 is a step.
        size: height and width of the picture in pixels.
        cyclic: whether the picture is cyclic (vertically, horizontally).
        patch: side of a micro patch in pixels.
    """

    region: Region
    soften: float
    size: tuple[int, int]
    cyclic: tuple[bool, bool]
    patch: int

    @property
    def spans(self) -> tuple[bool, bool]:
        """Whether the rectangle is as long as the picture (vertically, horizontally)."""
        return self.region.height == self.size[0], self.region.width == self.size[1]

    def __call__(self, rows: Floats, columns: Floats) -> Floats:
        """Weights at positions in micro patches, float64 [n] each, to float64 [n]."""
        return self._along(0, rows) * self._along(1, columns)

    def along(self, axis: int) -> Interval:
        """The pixels between which the weight is not 0; they may reach beyond the picture."""
        start, length = _side(self.region, axis)
        beyond = math.ceil(self.soften)
        return start - beyond, start + length + beyond

    def _along(self, axis: int, positions: Floats) -> Floats:
        if self.spans[axis]:
            return np.ones(len(positions))
        start, length = _side(self.region, axis)
        away = (positions + 0.5) * self.patch - (start + length / 2)
        if self.cyclic[axis]:
            half = self.size[axis] / 2
            away = np.mod(away + half, 2 * half) - half
        outside = np.maximum(np.abs(away) - length / 2, 0)
        if not self.soften:
            return np.where(outside > 0, 0.0, 1.0)
        fall = np.cos(np.pi / 2 * (np.minimum(outside, self.soften) / self.soften)) ** 2
        return np.where(outside >= self.soften, 0.0, fall)


class EditedLatents:
    """A field of latents with another latent in a region.

    With the weight w of the new latent, and the normal vectors g = sqrt(2) erfinv(z) of the new and of the old one,

        g = (w g_new + (1 - w) g_old) / (w^2 + (1 - w)^2 + 2 w (1 - w) c)^(1/2),  z = erf(g / sqrt(2)).

    c is the factor of g_new in g_old, which is 0 unless the same latent was there before. So g is standard normal and z
    is uniform on [-1, 1] everywhere, as in training. If w = 0 the old latent comes back to the bit, and if w = 1 the
    new one.

    Args:
        before: the field without the edit.
        latent: the new latent, float64 [length].
        weight: its weight.
    Source: this project; see `MapLatents`.
    """

    def __init__(self, before: MixedLatents, latent: Floats, weight: Bump) -> None:
        self.before, self.latent, self.weight = before, latent, weight
        self._normal = to_normal(latent)

    def __call__(self, rows: Floats, columns: Floats) -> Floats:
        """Latents at positions in micro patches, float64 [n] each, to float64 [n, length]."""
        weights = self.weight(rows, columns)
        latents = np.array(self.before(rows, columns))
        latents[weights == 1] = self.latent
        mixed = (weights > 0) & (weights < 1)
        if not mixed.any():
            return latents
        w, old = weights[mixed], latents[mixed]
        common = self.before.part(self.latent, rows[mixed], columns[mixed])
        gauss = w[:, None] * self._normal + (1 - w)[:, None] * to_normal(old)
        made = to_uniform(gauss / _deviation(w, common)[:, None])
        latents[mixed] = np.where((common == 1)[:, None], old, made)
        return latents

    def part(self, latent: Floats, rows: Floats, columns: Floats) -> Floats:
        """See `MixedLatents.part`."""
        w = self.weight(rows, columns)
        own = 1.0 if np.array_equal(latent, self.latent) else 0.0
        common = self.before.part(self.latent, rows, columns)
        parts: Floats = (w * own + (1 - w) * self.before.part(latent, rows, columns)) / _deviation(w, common)
        return parts


def bump_of(scene: Scene, region: Region, soften: float) -> Bump:
    """The weight of an edit of a scene.

    Raises:
        SizeError: the region is empty, reaches outside of the picture on an open axis, or goes round a cyclic one more
            than once; or the softening is out of bounds.
    """
    if region.height < 1 or region.width < 1:
        raise SizeError(
            f"a region of {region.width}x{region.height} is empty, so nothing would be edited; give a width and a "
            "height of 1 or more"
        )
    size, cyclic = (scene.height, scene.width), (scene.lattice.axes[0].cyclic, scene.lattice.axes[1].cyclic)
    for axis, name in enumerate(("vertical", "horizontal")):
        (start, length), extent = _side(region, axis), size[axis]
        inside = -extent < start < extent if cyclic[axis] else 0 <= start <= extent - length
        if length > extent or not inside:
            closure = f"; the {name} axis is cyclic, so a region may go round the closure" if cyclic[axis] else ""
            raise SizeError(
                f"the region {region.width}x{region.height} at ({region.left}, {region.top}) reaches outside of the "
                f"{scene.width}x{scene.height} picture{closure}"
            )
    if not 0 <= soften <= max(size):
        raise SizeError(f"soften must be from 0 to {max(size)}, the picture's longer side in pixels, not {soften:g}")
    return Bump(region, soften, size, cyclic, scene.patch)


def changed_by(scene: Scene, bump: Bump) -> list[Region]:
    """The pixels that an edit can change, as rectangles that do not overlap.

    Args:
        scene: the picture with the edit.
        bump: the edit's weight.
    """
    down, across = (_changed(scene, bump, axis) for axis in (0, 1))
    return [Region(top, left, end - top, stop - left) for (top, end), (left, stop) in product(down, across)]


def overlap(one: Region, other: Region) -> Region | None:
    """The pixels that two regions share; None if there are none."""
    top, left = max(one.top, other.top), max(one.left, other.left)
    height = min(one.top + one.height, other.top + other.height) - top
    width = min(one.left + one.width, other.left + other.width) - left
    return Region(top, left, height, width) if height > 0 and width > 0 else None


def _changed(scene: Scene, bump: Bump, axis: int) -> list[Interval]:
    """The intervals of an axis whose patches see a cell, or have a centre, of positive weight."""
    patch, extent = scene.patch, bump.size[axis]
    low, high = bump.along(axis)
    if scene.halved[axis]:  # a patch has the latent of its centre
        low, high = low - patch // 2, high + patch // 2
    elif scene.inside is not None:  # a patch sees cells up to `reach` beyond itself
        reach = -(-scene.inside.reach * patch // scene.inside.a_patch)
        low, high = (low - reach) // patch * patch, -(-(high + reach) // patch) * patch
    else:  # patches lie edge to edge, which is refused unless the edit spans the axis
        low, high = 0, extent
    if bump.spans[axis] or high - low >= extent:
        return [(0, extent)]
    if not bump.cyclic[axis]:
        return [(max(low, 0), min(high, extent))]
    low, high = low % extent, low % extent + high - low
    return [(low, high)] if high <= extent else [(0, high - extent), (low, extent)]


def _side(region: Region, axis: int) -> tuple[int, int]:
    """First pixel and length of a region along an axis."""
    return ((region.top, region.height), (region.left, region.width))[axis]


def _deviation(w: Floats, common: Floats) -> Floats:
    deviation: Floats = np.sqrt(w**2 + (1 - w) ** 2 + 2 * w * (1 - w) * common)
    return deviation
