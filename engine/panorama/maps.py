"""Maps: a small picture whose colours say which latent lies where in a panorama."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zellige.errors import MapError, SizeError

from ..files.pictures import read_picture
from .latents import AnchoredLatents, to_normal, to_uniform
from .lattice import Lattice
from .legend import Entry, hexadecimal, read_legend

__all__ = ["MOST_PIXELS", "MapLatents", "RegionMap", "read_map"]

Floats = npt.NDArray[np.float64]
Colours = npt.NDArray[np.int32]

MOST_PIXELS = 2**20
_NEAR = 32  # the greatest distance in RGB at which a pixel has a colour of the legend, as after a lossy compression
_AROUND, _BETWEEN = 2, 16  # a border pixel: within 2 pixels of colours between which it lies, with 16 levels to spare


@dataclass(frozen=True)
class RegionMap:
    """A map whose pixels are numbers of the legend's entries.

    Attributes:
        regions: uint8 [height, width].
        legend: the entries.
        moved: the number of pixels that did not have a colour of the legend exactly.
    """

    regions: npt.NDArray[np.uint8]
    legend: tuple[Entry, ...]
    moved: int = 0

    def report(self) -> dict[str, Any]:
        """The regions with their shares of the map, and the number of pixels moved."""
        counts = np.bincount(self.regions.ravel(), minlength=len(self.legend))
        regions = [
            {"colour": hexadecimal(entry.colour), "latent": entry.source, "share": int(count) / self.regions.size}
            for entry, count in zip(self.legend, counts, strict=True)
        ]
        return {"regions": regions, "map_pixels_moved": self.moved}

    def digests(self) -> tuple[str, str]:
        """SHA-256 of the pixels' numbers, and of the colours with their latents."""
        height, width = self.regions.shape
        numbers = hashlib.sha256(f"{height}x{width} ".encode() + np.ascontiguousarray(self.regions).tobytes())
        legend = hashlib.sha256()
        for entry in self.legend:
            legend.update(repr(entry.colour).encode() + np.asarray(entry.latent, "<f8").tobytes())
        return numbers.hexdigest(), legend.hexdigest()


def read_map(path: Path, legend: Path, length: int) -> RegionMap:
    """Read a map and its legend.

    A pixel within a distance of 32 in RGB of a colour of the legend has the nearest such colour. Another pixel may be
    of an anti-aliased border: it then lies between colours that are found within 2 pixels of it, in each of red, green
    and blue, and has the nearest of these.

    Args:
        path: an image file of at most `MOST_PIXELS` pixels.
        legend: the legend.
        length: the length of the model's latents.
    Raises:
        DataError: the map is no image.
        MapError: the map is too large or has other colours, or the legend is refused.
    """
    entries = read_legend(legend, length)
    picture = read_picture(path)
    if picture.width * picture.height > MOST_PIXELS:
        raise MapError(
            f"the map {path} has {picture.width}x{picture.height} pixels, and at most {MOST_PIXELS:,} are read; make "
            "it smaller, because it is stretched over the panorama"
        )
    pixels, colours = np.asarray(picture, dtype=np.int32), np.array([entry.colour for entry in entries], np.int32)
    regions, distance = _nearest(pixels, colours)
    far = distance > _NEAR**2
    regions[far], strange = _of_borders(pixels, colours, regions, far)
    if strange.any():
        raise MapError(_unknown(pixels[far][strange], path, legend, entries))
    return RegionMap(regions, entries, int((distance > 0).sum()))


class MapLatents:
    """A latent for every place of a picture over which a map is stretched.

    The region k of the map has the latent z_k, and g_k = sqrt(2) erfinv(z_k) is normal. At a place w_k is the share of
    region k in a square of side `soften` about the centre of the patch, and

        g = (1 - v^2)^(1/2) sum_k w_k g_k / (sum_k w_k^2)^(1/2) + v a,  z = erf(g / sqrt(2)),

    where a is the normal vector of `AnchoredLatents` at the place and v is `vary`. Latents of regions are independent,
    so g is normal and z is uniform on [-1, 1] everywhere, as in training. On a cyclic axis the map goes round. On an
    open one the square ends at the picture's border.

    The shares are sums over the map, which are kept for every region: 4 bytes a pixel of the map.

    Args:
        regions: the map.
        lattice: the model's lattice of one turn.
        turns: number of turns of the picture (vertically, horizontally).
        seed: the seed of the anchors.
        soften: side of the square in micro patches; 0 takes the region under the centre.
        vary: v, from 0 to 1; 0 in a picture of one turn, where the path stands still.
    Attributes:
        moving: whether the latent moves (vertically, horizontally).
    """

    def __init__(
        self,
        regions: RegionMap,
        lattice: Lattice,
        turns: tuple[int, int],
        seed: int = 0,
        *,
        soften: float = 0.0,
        vary: float = 0.0,
    ) -> None:
        self.extent = turns[0] * lattice.rows, turns[1] * lattice.columns
        longest = max(self.extent)
        if not 0 <= soften <= longest:
            raise SizeError(f"borders can be softened over 0 to {longest} patches, the longer side, not {soften:g}")
        if not 0 <= vary <= 1:
            raise SizeError(f"the latent can vary by a share from 0 to 1, not {vary:g}")
        self.soften, self.size = soften, regions.regions.shape
        self.vary = 0.0 if turns == (1, 1) else vary
        self.cyclic = lattice.axes[0].cyclic, lattice.axes[1].cyclic
        length = len(regions.legend[0].latent)
        self.anchored = AnchoredLatents(seed, length, turns, (lattice.rows, lattice.columns))
        # Colours of one latent are one region, because their vectors are not independent.
        latents = np.stack([entry.latent for entry in regions.legend])
        merged = np.unique(latents, axis=0, return_inverse=True)[1].reshape(-1)
        # Regions that the map does not have would cost time and memory.
        used, numbers = np.unique(merged[regions.regions], return_inverse=True)
        numbers = numbers.reshape(self.size)
        self.latents = np.stack([latents[merged == k][0] for k in used])
        self.normals = to_normal(self.latents)
        self.sums = np.zeros((len(used), self.size[0] + 1, self.size[1] + 1), np.int32)
        for k, sums in enumerate(self.sums):
            sums[1:, 1:] = (numbers == k).cumsum(0, dtype=np.int32).cumsum(1, dtype=np.int32)
        self.moving = (
            bool((numbers != numbers[:1]).any()) or (vary > 0 and turns[0] > 1),
            bool((numbers != numbers[:, :1]).any()) or (vary > 0 and turns[1] > 1),
        )

    def __call__(self, rows: Floats, columns: Floats) -> Floats:
        """Latents at positions in micro patches, float64 [n] each, to float64 [n, length]."""
        weights = self.weights(rows, columns)
        # Sums over regions are loops, because libraries add in an order that depends on the number of places.
        squares, gauss = np.zeros(len(rows)), np.zeros((len(rows), self.normals.shape[1]))
        for share, normal in zip(weights, self.normals, strict=True):
            squares += share**2
            gauss += share[:, None] * normal
        gauss /= np.sqrt(squares)[:, None]
        if self.vary:
            drift = self.anchored.gauss(rows, columns)
            return to_uniform(np.sqrt(1 - self.vary**2) * gauss + self.vary * drift)
        alone = (weights > 0).sum(axis=0) == 1
        return np.where(alone[:, None], self.latents[weights.argmax(axis=0)], to_uniform(gauss))

    def part(self, latent: Floats, rows: Floats, columns: Floats) -> Floats:
        """The factor of a latent's normal vector in those at positions [n], float64 [n]; 0 if no region has it."""
        weights = self.weights(rows, columns)
        share, squares = np.zeros(len(rows)), np.zeros(len(rows))
        for weight, own in zip(weights, self.latents, strict=True):
            squares += weight**2
            share += weight * np.array_equal(latent, own)
        return np.sqrt(1 - self.vary**2) * share / np.sqrt(squares)

    def weights(self, rows: Floats, columns: Floats) -> Floats:
        """Areas of the regions within the squares, in pixels of the map; float64 [regions, n]."""
        (ys, down), (xs, across) = self._cuts(rows, 0), self._cuts(columns, 1)
        counts = np.diff(np.diff(self._counts(ys, xs), axis=2), axis=3)  # [regions, n, 3, 3]
        total = np.zeros(counts.shape[:2])
        for i in range(3):
            for j in range(3):
                total += counts[:, :, i, j] * (down[:, i] * across[:, j])
        return total

    def _cuts(self, positions: Floats, axis: int) -> tuple[npt.NDArray[np.int64], Floats]:
        """First, inner and last pixels of the map in intervals: their ends, [n, 4], and shares inside, [n, 3]."""
        scale = self.size[axis] / self.extent[axis]
        centre, half = (positions + 0.5) * scale, self.soften / 2 * scale
        low, high = centre - half, centre + half
        if not self.cyclic[axis]:
            low, high = np.clip(low, 0, self.size[axis]), np.clip(high, 0, self.size[axis])
        first, last = np.floor(low), np.floor(high)
        begun = np.minimum(first + 1, high) - low if half else np.ones(len(positions))
        inside = np.stack([begun, last > first, (high - last) * (last > first)], axis=1)
        return np.stack([first, first + 1, last, last + 1], axis=1).astype(np.int64), inside

    def _counts(self, ys: npt.NDArray[np.int64], xs: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Pixels of every region above and left of points of the endlessly repeated map, int64 [regions, n, 4, 4]."""
        (height, width), sums = self.size, self.sums
        (over, y), (past, x) = np.divmod(ys[:, :, None], height), np.divmod(xs[:, None, :], width)
        counts: npt.NDArray[np.int64] = sums[:, y, x].astype(np.int64)
        counts += over * sums[:, height, x] + past * sums[:, y, width] + over * past * sums[:, -1:, -1:, None]
        return counts


def _nearest(pixels: Colours, colours: Colours) -> tuple[npt.NDArray[np.uint8], Colours]:
    """The number of the nearest colour of each pixel [h, w], and its squared distance."""
    regions, least = np.zeros(pixels.shape[:2], np.uint8), np.full(pixels.shape[:2], 2**30, np.int32)
    for k, colour in enumerate(colours):
        distance = ((pixels - colour) ** 2).sum(axis=2, dtype=np.int32)
        regions[distance < least] = k
        np.minimum(least, distance, out=least)
    return regions, least


def _of_borders(
    pixels: Colours, colours: Colours, regions: npt.NDArray[np.uint8], far: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """For the far pixels the nearest colour around each, and whether it does not lie between the colours around it."""
    ys, xs = np.nonzero(far)
    own, found = pixels[far], regions[far]
    least, low, high = np.full(len(own), 2**30), np.full_like(own, 2**20), np.full_like(own, -(2**20))
    for down in range(-_AROUND, _AROUND + 1):
        for across in range(-_AROUND, _AROUND + 1):
            y, x = np.clip(ys + down, 0, far.shape[0] - 1), np.clip(xs + across, 0, far.shape[1] - 1)
            known, region = ~far[y, x], regions[y, x]
            colour = colours[region]
            distance = ((own - colour) ** 2).sum(axis=1)
            nearer = known & (distance < least)
            found[nearer], least[nearer] = region[nearer], distance[nearer]
            low[known], high[known] = np.minimum(low, colour)[known], np.maximum(high, colour)[known]
    strange: npt.NDArray[np.bool_] = np.any((own < low - _BETWEEN) | (own > high + _BETWEEN), axis=1)
    return found, strange


def _unknown(pixels: Colours, path: Path, legend: Path, entries: tuple[Entry, ...]) -> str:
    found, counts = np.unique(pixels, axis=0, return_counts=True)
    most = int(counts.argmax())
    red, green, blue = (int(level) for level in found[most])
    others = f" and {len(found) - 1:,} other colours like it" if len(found) > 1 else ""
    has = ", ".join(hexadecimal(entry.colour) for entry in entries[:8]) + (" and more" if len(entries) > 8 else "")
    noun = "pixel" if counts[most] == 1 else "pixels"
    return (
        f"the map {path} has {int(counts[most]):,} {noun} of {hexadecimal((red, green, blue))}{others}, far from all "
        f"colours of {legend}: {has}; repaint the map, or give the colour a latent"
    )
