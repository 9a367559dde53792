"""A measure of how visible the borders between patches are."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from zellige.errors import ShapeError

from .pictures import Pixels, check_images, row_chunks

__all__ = ["seam_ratio"]


def seam_ratio(image: Pixels | Sequence[Pixels], pitch: int, axis: int, *, phase: int = 0, wrap: bool = False) -> float:
    """Say how visible the borders between patches are: 1.0 is perfect, more is a seam.

    ratio = mean over borders of g / mean over all other positions of g, where g(p) is the mean absolute difference
    between the pixels p - 1 and p along the axis, over all channels and all pixels across. Borders are the positions
    p with (p - phase) mod pitch = 0. It is a ratio of means, because a mean of ratios would blow up at flat places.

    Args:
        image: uint8 [H, W, 3], also a memory map; or a sequence of pictures, whose gradients are pooled.
        pitch: distance between borders, in pixels, >= 2.
        axis: 0 for borders between rows, 1 for borders between columns.
        phase: position of one border, in pixels.
        wrap: measure only the border between the last and the first pixel of a picture that closes along the axis;
            the denominator is the same.
    Returns:
        The ratio; 1.0 for a picture without any gradient, infinity if only its borders have one. Reports turn infinity
        into None and say so.
    Raises:
        ShapeError: the picture is not [H, W, 3], has no border, or has only borders.
    """
    if axis not in (0, 1):
        raise ShapeError(f"axis must be 0 (borders between rows) or 1 (between columns); got {axis}")
    images = [image] if isinstance(image, np.ndarray) and image.ndim == 3 else image
    border_sum = border_count = inner_sum = inner_count = 0.0
    for one in images:
        check_images(one[None])
        across = one.size / one.shape[axis]
        gradients = _gradients(one, axis)  # of the positions 1 .. length - 1
        border = (np.arange(1, one.shape[axis]) - phase) % pitch == 0
        inner_sum += float(gradients[~border].sum())
        inner_count += across * np.count_nonzero(~border)
        if wrap:
            ends = one.take([-1, 0], axis=axis).astype(np.int16)
            border_sum += float(np.abs(np.diff(ends, axis=axis)).sum(dtype=np.int64))
            border_count += across
        else:
            border_sum += float(gradients[border].sum())
            border_count += across * np.count_nonzero(border)
    if not border_count or not inner_count:
        raise ShapeError(f"borders every {pitch} pixels leave no border, or nothing between borders, in this picture")
    if inner_sum == 0:
        return 1.0 if border_sum == 0 else float("inf")
    return (border_sum / border_count) / (inner_sum / inner_count)


def _gradients(image: Pixels, axis: int) -> NDArray[np.int64]:
    """Sum the absolute differences between neighbours along the axis over the other axes: [length - 1]."""
    total = np.zeros(image.shape[axis] - 1, np.int64)
    for start, stop in row_chunks(image.shape[0], image[0].nbytes):
        if axis == 1:
            rows = image[start:stop].astype(np.int16)
            total += np.abs(np.diff(rows, axis=1)).sum((0, 2), dtype=np.int64)
        else:
            rows = image[start : stop + 1].astype(np.int16)  # with the first row of the next chunk
            total[start : start + len(rows) - 1] = np.abs(np.diff(rows, axis=0)).sum((1, 2), dtype=np.int64)
    return total
