"""Images as uint8 arrays and as files: conversion, PNG, contact sheets."""

import math
import os
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from zellige.errors import ShapeError

from .atomic import AtomicFile, output_errors

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["contact_sheet", "to_uint8", "write_png"]

Pixels = NDArray[np.uint8]


def to_uint8(images: "Tensor") -> Pixels:
    """Turn a network's output into 8-bit images.

    y = clamp(round((v + 1) * 127.5), 0, 255), computed in float32, halves to even.

    Args:
        images: [N, 3, H, W], values in [-1, 1] (those outside are clipped), any floating dtype, any device.
    Returns:
        uint8 [N, H, W, 3], contiguous, in host memory.
    Raises:
        ShapeError: images is not a floating tensor [N, 3, H, W].
    """
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise ShapeError(f"images must be a floating tensor [N, 3, H, W]; got {images.dtype} {list(images.shape)}")
    levels = (images.detach().float() + 1).mul_(127.5).round_().clamp_(0, 255).byte()
    # Permuted before the copy to the host: the device does it faster, and a quarter of the bytes travel.
    pixels: Pixels = levels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return pixels


def write_png(path: str | os.PathLike[str], image: Pixels) -> None:
    """Write one image as PNG; the file appears complete or not at all.

    Args:
        path: where to; an existing file is replaced.
        image: uint8 [H, W, 3].
    Raises:
        ShapeError: image is not uint8 [H, W, 3].
        OutputError: the path cannot be written.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ShapeError(f"a PNG file is written from uint8 [H, W, 3]; got {image.dtype} {list(image.shape)}")
    output = AtomicFile(path)
    with output as file, output_errors(output.path):
        Image.fromarray(np.ascontiguousarray(image)).save(file, format="PNG")


def contact_sheet(images: Pixels, columns: int | None = None, gap: int = 2) -> Pixels:
    """Lay images out in a grid on white, row by row.

    Args:
        images: uint8 [N, H, W, 3], N >= 1.
        columns: images a row; None takes the number that makes the sheet most nearly square in pixels, the smaller
            of two equals: eight panoramas of 1024x128 stack in one column.
        gap: pixels between neighbours.
    Returns:
        uint8 [rows * H + (rows - 1) * gap, columns * W + (columns - 1) * gap, 3].
    Raises:
        ShapeError: images is not uint8 [N, H, W, 3] with N >= 1, or columns is not positive.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or 0 in images.shape:
        raise ShapeError(f"a contact sheet is made of uint8 [N, H, W, 3]; got {images.dtype} {list(images.shape)}")
    if columns is not None and columns < 1:
        raise ShapeError(f"a contact sheet needs at least one column; got {columns}")
    number, height, width, _ = images.shape

    def sides(columns: int) -> tuple[int, int]:
        rows = math.ceil(number / columns)
        return rows * (height + gap) - gap, columns * (width + gap) - gap

    def elongation(columns: int) -> float:
        down, across = sides(columns)
        return max(down / across, across / down)

    if columns is None:
        columns = min(range(1, number + 1), key=elongation)
    sheet = np.full((*sides(columns), 3), 255, np.uint8)
    for index, image in enumerate(images):
        top, left = index // columns * (height + gap), index % columns * (width + gap)
        sheet[top : top + height, left : left + width] = image
    return sheet
