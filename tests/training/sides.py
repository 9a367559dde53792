"""Folders of pictures with as many on each side of the split as a test needs."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from zellige.training.data.listing import is_held_out, mark_of


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def held_out(path: Path) -> bool:
    """Whether the content of a file puts it on the held-out side."""
    with path.open("rb") as file:
        return is_held_out(mark_of(file))


def fill(folder: Path, picture: Callable[[int], np.ndarray], trained: int, kept: int = 0) -> dict[str, set[int]]:
    """Write pictures 0, 1, ... under their numbers, leaving out those for which their side has no room.

    Returns:
        the numbers of each side, "train" and "held-out".
    """
    folder.mkdir(parents=True, exist_ok=True)
    sides: dict[str, set[int]] = {"train": set(), "held-out": set()}
    number = 0
    while len(sides["train"]) < trained or len(sides["held-out"]) < kept:
        content = png(picture(number))
        side, room = ("held-out", kept) if is_held_out(mark_of(io.BytesIO(content))) else ("train", trained)
        if len(sides[side]) < room:
            sides[side].add(number)
            (folder / f"{number:03}.png").write_bytes(content)
        number += 1
    return sides


def noise(height: int, width: int) -> Callable[[int], np.ndarray]:
    """Pictures of noise by their numbers."""
    return lambda k: np.random.default_rng(k).integers(0, 256, (height, width, 3), np.uint8)
