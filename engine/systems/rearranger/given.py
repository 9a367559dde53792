"""What the tasks of a rearranger are given: seeds, images, and masks in colours."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from zellige.errors import DataError, ShapeError

from ...files.pictures import as_rgb, read_picture
from ...files.squares import cut_squares
from .config import MapperConfig, RearrangerConfig
from .masks import colours

__all__ = ["Given", "as_given", "classes_of_picture", "labels_of_picture", "squares"]

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]

_SEED = re.compile(r"seed:(\d{1,18})(?::(\d{1,18}))?")


@dataclass(frozen=True)
class Given:
    """One thing that a task is given: an image of a seed, or a picture.

    Attributes:
        name: for errors.
        seed: seed and number of the image; None for a picture.
        picture: uint8 [H, W, 3], of any size; None for a seed.
    """

    name: str
    seed: tuple[int, int] | None = None
    picture: Pixels | None = None


def as_given(source: str, given: Any) -> list[Given]:
    """Read what a source was given: one or more of `seed:7`, `seed:7:2` (its third image), paths and arrays.

    Raises:
        ShapeError: there is nothing, or an array is not uint8 [H, W, 3]. DataError: a file cannot be read.
    """
    if isinstance(given, str | bytes) or not isinstance(given, Sequence | np.ndarray):
        given = [given]
    elif isinstance(given, np.ndarray) and given.ndim == 3:
        given = given[None]
    if not len(given):
        raise ShapeError(f"there are no {source}; give seed:7, a file, or an array uint8 [H, W, 3]")
    return [one if isinstance(one, Given) else _one(source, one, number) for number, one in enumerate(given)]


def _one(source: str, given: Any, number: int) -> Given:
    if isinstance(given, str) and given.startswith("seed:"):
        found = _SEED.fullmatch(given)
        if found is None:
            raise DataError(f"{given!r} is no seed; write seed:7, or seed:7:2 for its third image")
        return Given(given, (int(found[1]), int(found[2] or 0)))
    if isinstance(given, np.ndarray):
        if given.dtype != np.uint8 or given.ndim != 3 or given.shape[2] != 3 or not given.size:
            raise ShapeError(f"{source} {number} must be uint8 [H, W, 3]; got {given.dtype} {list(given.shape)}")
        return Given(f"{source} {number}", picture=given)
    return Given(str(given), picture=np.asarray(as_rgb(read_picture(given), str(given))))


def squares(given: Sequence[Given], side: int) -> Pixels:
    """The centre squares of pictures, uint8 [N, side, side, 3]."""
    return cut_squares([one.picture for one in given if one.picture is not None], side).pixels


def classes_of_picture(given: Given, mapper: MapperConfig, side: int) -> Labels:
    """The classes of a painted map, int64 [side, side]; other sizes are resized by nearest.

    Raises:
        DataError: a pixel has a colour that the palette lacks; the error names it, and the classes with their colours.
    """
    found, unknown = _indices(given, np.array(mapper.palette, np.uint8), side)
    if unknown is not None:
        known = ", ".join(f"{name} #{bytes(c).hex()}" for name, c in zip(mapper.names, mapper.palette, strict=True))
        raise DataError(f"{given.name} has the colour {unknown}, which is no class's; the classes are {known}")
    return found


def labels_of_picture(given: Given, config: RearrangerConfig) -> Labels:
    """The labels of a mask in the colours of the task `proxy`, int64 [S, S]; other sizes are resized by nearest.

    Raises:
        DataError: a pixel has another colour; the error names it, and the colours that there are.
    """
    palette = colours(config.clusters)
    found, unknown = _indices(given, palette, config.split)
    if unknown is not None:
        known = ", ".join("#" + bytes(colour).hex() for colour in palette)
        raise DataError(
            f"{given.name} has the colour {unknown}, which is no label's; the labels' colours are {known}. Paint on a "
            "mask that the task proxy made, without smoothing"
        )
    return found


def _indices(given: Given, palette: Pixels, side: int) -> tuple[Labels, str | None]:
    """The number of each pixel's colour in a palette [K, 3], int64 [side, side], and a colour that it lacks."""
    assert given.picture is not None
    codes, known = (colour.astype(np.int64) @ np.array([65536, 256, 1]) for colour in (given.picture, palette))
    order = np.argsort(known)
    places = order[np.searchsorted(known, codes, sorter=order).clip(max=len(known) - 1)]
    strange = known[places] != codes
    height, width = codes.shape
    rows = (np.arange(side) * 2 + 1) * height // (2 * side)
    columns = (np.arange(side) * 2 + 1) * width // (2 * side)
    found = "#" + bytes(given.picture[strange][0]).hex() if strange.any() else None
    return places[rows][:, columns], found
