"""Folders of pictures, each on the side of the split that a test wants it on."""

import io
from collections.abc import Callable, Collection
from itertools import count
from pathlib import Path

import numpy as np
from PIL import Image

from zellige.training.data.listing import is_held_out, mark_of


def png(pixels: np.ndarray, held_out: bool = False) -> bytes:
    """A file of pixels whose content puts it on one side: bytes behind the end of a PNG are part of no picture."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    contents = (file.getvalue() + b"%d" % number for number in count())
    return next(content for content in contents if is_held_out(mark_of(io.BytesIO(content))) == held_out)


def fill(folder: Path, picture: Callable[[int], np.ndarray], number: int, held_out: Collection[int] = ()) -> Path:
    """Write pictures 0 to `number` - 1 as 000.png, 001.png, ..., of which some are held out."""
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(number):
        (folder / f"{k:03}.png").write_bytes(png(picture(k), k in held_out))
    return folder


def noise(height: int, width: int) -> Callable[[int], np.ndarray]:
    """Pictures of noise by their numbers."""
    return lambda k: np.random.default_rng(k).integers(0, 256, (height, width, 3), np.uint8)
