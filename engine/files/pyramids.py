"""Reads the pictures that are folders, the pyramids of Zarr and of Deep Zoom, tile by tile."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from zellige.errors import DataError, MissingExtraError

__all__ = ["is_pyramid", "tiles_of"]

Pixels = NDArray[np.uint8]
Tile = tuple[Pixels, int, int]  # uint8 [h, w, 3], and the row and column of its first pixel


def is_pyramid(path: Path) -> bool:
    """Whether a name ends as that of a pyramid does."""
    return path.suffix.lower() in (".zarr", ".dzi")


def tiles_of(path: Path) -> tuple[int, int, Iterator[Tile]]:
    """The height, the width, and one after the other the tiles of the largest level.

    Raises:
        DataError: the pyramid cannot be read; the tiles raise it too.
        MissingExtraError: a Zarr was given and zarr is not installed.
    """
    return _zarr(path) if path.suffix.lower() == ".zarr" else _deep_zoom(path)


def _zarr(path: Path) -> tuple[int, int, Iterator[Tile]]:
    try:
        import zarr
    except ImportError as error:
        raise MissingExtraError("zarr", "reading Zarr", "zarr") from error
    try:
        level = zarr.open_array(path / "0", mode="r")
        channels, height, width = level.shape
        _, down, across = level.shards or level.chunks
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path} cannot be read as a Zarr picture: {' '.join(str(error).split())}") from error
    if channels != 3 or level.dtype != np.uint8:
        raise DataError(f"{path} is no picture of Zellige: level 0 is {level.dtype} {list(level.shape)}, not RGB")

    def tiles() -> Iterator[Tile]:
        for top in range(0, height, down):
            for left in range(0, width, across):
                try:
                    pixels = np.asarray(level[:, top : top + down, left : left + across])
                except (OSError, ValueError, RuntimeError) as error:
                    raise DataError(f"{path} is damaged at row {top}, column {left}: {error}") from error
                yield np.moveaxis(pixels, 0, 2), top, left

    return height, width, tiles()


def _deep_zoom(path: Path) -> tuple[int, int, Iterator[Tile]]:
    try:
        text = path.read_text(encoding="utf-8")
        form = re.search(r'Format="(\w+)"', text)
        numbers = {name: int(value) for name, value in re.findall(r'(\w+)="(\d+)"', text)}
        side, height, width = numbers["TileSize"], numbers["Height"], numbers["Width"]
    except KeyError as error:
        raise DataError(f"{path} cannot be read as a Deep Zoom picture: it has no {error}") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a Deep Zoom picture: {error}") from error
    if form is None or min(side, height, width) < 1 or numbers.get("Overlap") != 0:
        raise DataError(f"{path} is no Deep Zoom picture of Zellige, whose tiles do not overlap")
    folder = path.with_name(f"{path.stem}_files") / str((max(height, width) - 1).bit_length())

    def tiles() -> Iterator[Tile]:
        for top in range(0, height, side):
            for left in range(0, width, side):
                tile = folder / f"{left // side}_{top // side}.{form[1]}"
                try:
                    with Image.open(tile) as picture:
                        yield np.asarray(picture.convert("RGB")), top, left
                except (OSError, ValueError, Image.DecompressionBombError) as error:
                    raise DataError(f"{tile} cannot be read: {error}") from error

    return height, width, tiles()
