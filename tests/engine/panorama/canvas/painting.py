"""What the tests of all formats share: pictures, and how they are painted."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zellige.engine.panorama.canvas import open_canvas
from zellige.engine.panorama.canvas.canvas import Canvas

PACKAGES = {".tif": "tifffile", ".tiff": "tifffile", ".zarr": "zarr", ".dzi": "pyvips"}


def needs(extension: str) -> None:
    """Skip the test if the package that writes the format is missing."""
    if extension.lower() in PACKAGES:
        pytest.importorskip(PACKAGES[extension.lower()])


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def tiles(picture: np.ndarray, tile: tuple[int, int]) -> Iterator[np.ndarray]:
    for top in range(0, picture.shape[0], tile[0]):
        for left in range(0, picture.shape[1], tile[1]):
            yield picture[top : top + tile[0], left : left + tile[1]]


def paint(path: Path, picture: np.ndarray, patch: int = 64, **settings: Any) -> Canvas:
    with open_canvas(path, picture.shape[1], picture.shape[0], patch=patch, **settings) as canvas:
        for tile in tiles(picture, canvas.tile):
            canvas.write(tile)
    return canvas


def run_to_the_end(action: Callable[[], None]) -> None:
    """Run an action in a thread: a deadlock must fail a test, not hang the suite."""
    errors = []

    def catch() -> None:
        try:
            action()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=catch, daemon=True)
    thread.start()
    thread.join(timeout=60)
    assert not thread.is_alive(), "deadlock"
    if errors:
        raise errors[0]


def threads_left() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("zellige-")]
