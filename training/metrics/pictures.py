"""Likeness of images to the data: sliced Wasserstein distance, diversity."""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from zellige.errors import DataError, ShapeError

__all__ = ["Pixels", "check_images", "diversity", "row_chunks", "sliced_wasserstein"]

Pixels = NDArray[np.uint8]

SMALLEST_LEVEL = 16
# Pyramids of this many images, and projections on this many directions, are in memory at a time.
IMAGES_AT_ONCE = 64
DIRECTIONS_AT_ONCE = 32
# Bytes of a picture that are read at a time, because it may be a memory map far larger than the memory.
CHUNK_BYTES = 2**22


def sliced_wasserstein(
    real: Pixels,
    generated: Pixels,
    *,
    patches: int = 128,
    size: int = 7,
    projections: int = 512,
    levels: int | None = None,
    wrap: bool = False,
    seed: int = 0,
) -> dict[str, float]:
    """Compare the patches of two sets of images, at each level of their Laplacian pyramids.

    SWD = 1000 * mean over directions u of mean_k |sort(X u)_k - sort(Y u)_k|, where the rows of X and Y [M, 3 size^2]
    are the patches of one level and the u are random unit vectors. Less is better. Each colour channel of a set is
    brought to mean 0 and deviation 1, so a change of brightness or contrast of a whole set does not count. A level
    holds the difference between the image and its half-sized copy doubled again, with a 5x5 binomial filter. The last
    level holds the small image itself.

    Args:
        real, generated: uint8 [N, H, W, 3], the same shape; some thousands of images for steady numbers.
        patches: number for each image and level. Their places are the same in both sets, so equal sets have distance 0.
        size: side of the patches, in pixels.
        projections: number of directions u.
        levels: number of levels; None goes down to a short side of 16 pixels.
        wrap: the images close horizontally, as panoramas of 360 degrees do; filters and patches cross the border.
        seed: of places and directions.
    Returns:
        The distance for each level, named by its short side in pixels ("128", "64", ...), and their "mean".
    Raises:
        ShapeError: the sets differ in shape, are not images, or are too small for the patches at the last level.
    Source: Karras et al., Progressive Growing of GANs (2018), section 5.
    """
    check_images(real)
    check_images(generated)
    if real.shape != generated.shape:
        raise ShapeError(
            f"the sets must have the same number of images of one size; got {real.shape} and {generated.shape}"
        )
    sides = [min(real.shape[1:3])]
    while len(sides) < levels if levels is not None else (sides[-1] + 1) // 2 >= SMALLEST_LEVEL:
        sides.append((sides[-1] + 1) // 2)
    if sides[-1] < max(size, 2):
        raise ShapeError(f"the short side of level {len(sides)} is {sides[-1]}, too small for patches of {size}x{size}")
    if wrap and real.shape[2] % 2 ** (len(sides) - 1):
        raise ShapeError(
            f"{real.shape[2]} columns do not close at all of {len(sides)} levels: halving needs even widths"
        )
    generator = torch.Generator().manual_seed(seed)
    directions = F.normalize(torch.randn(3 * size * size, projections, generator=generator), dim=0)
    distances = {}
    for level, side in enumerate(sides):
        last = level == len(sides) - 1
        first, second = (_patches(images, level, last, patches, size, wrap, seed) for images in (real, generated))
        parts = directions.split(DIRECTIONS_AT_ONCE, dim=1)
        sums = [((u.T @ first.T).sort()[0] - (u.T @ second.T).sort()[0]).abs().mean(1).sum() for u in parts]
        distances[str(side)] = 1000 * float(torch.stack(sums).sum()) / projections
    return distances | {"mean": sum(distances.values()) / len(distances)}


def _patches(images: Pixels, level: int, last: bool, number: int, size: int, wrap: bool, seed: int) -> Tensor:
    """Cut random patches out of one pyramid level and normalise their channels: [N * number, 3 * size * size]."""
    generator = torch.Generator().manual_seed(seed + 1)
    cut = []
    for start in range(0, len(images), IMAGES_AT_ONCE):
        batch = torch.tensor(images[start : start + IMAGES_AT_ONCE]).permute(0, 3, 1, 2).float()
        for _ in range(level):
            batch = _halve(batch, wrap)
        if not last:
            batch = batch - _double(_halve(batch, wrap), batch.shape[2], batch.shape[3], wrap)
        count, _, height, width = batch.shape
        places = (count, number, 1, 1)
        rows = torch.randint(height - size + 1, places, generator=generator) + torch.arange(size)[:, None]
        columns = torch.randint(width if wrap else width - size + 1, places, generator=generator) + torch.arange(size)
        inside = batch.permute(0, 2, 3, 1)[torch.arange(count)[:, None, None, None], rows, columns % width]
        cut.append(inside.flatten(0, 1))  # [count * number, size, size, 3]
    pixels = torch.cat(cut)
    pixels -= pixels.mean((0, 1, 2))
    # A constant channel has no deviation, and stays at zero.
    pixels /= pixels.std((0, 1, 2), correction=0).clamp_min(1e-6)
    return pixels.flatten(1)


def _blur(images: Tensor, wrap: bool) -> Tensor:
    """Filter [N, 3, H, W] with the 5x5 binomial kernel; the images are mirrored at borders, or closed horizontally."""
    line = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    kernel = torch.outer(line, line).expand(3, 1, 5, 5)
    images = F.pad(images, (2, 2, 0, 0), mode="circular" if wrap else "reflect")
    return F.conv2d(F.pad(images, (0, 0, 2, 2), mode="reflect"), kernel, groups=3)


def _halve(images: Tensor, wrap: bool) -> Tensor:
    return _blur(images, wrap)[:, :, ::2, ::2]


def _double(images: Tensor, height: int, width: int, wrap: bool) -> Tensor:
    spread = images.new_zeros(*images.shape[:2], height, width)
    spread[:, :, ::2, ::2] = images
    return _blur(spread, wrap) * 4  # one pixel of four is not zero


def diversity(real: Pixels, generated: Pixels) -> float:
    """Compare the differences among generated images with those among real ones: 1.0 is like the data.

    ratio = d(generated) / d(real), where d is the mean of |a - b| over all pixels, channels and pairs of images
    a != b of the set. Give images of one place (the same coordinate), so that the place itself adds no difference. A
    ratio near 0 means that the generator makes the same image for every latent.

    Args:
        real, generated: uint8 [N, H, W, 3] of one size; the numbers of images may differ, each >= 2.
    Returns:
        The ratio, >= 0.
    Raises:
        ShapeError: the sets are not images of one size, or hold less than two.
        DataError: all real images are the same.
    """
    check_images(real)
    check_images(generated)
    if real.shape[1:] != generated.shape[1:] or min(len(real), len(generated)) < 2:
        raise ShapeError(f"both sets need two images or more, of one size; got {real.shape} and {generated.shape}")
    among_real = _mean_distance(real)
    if among_real == 0:
        raise DataError("all real images are the same, so that there is no diversity to compare with")
    return _mean_distance(generated) / among_real


def _mean_distance(images: Pixels) -> float:
    # If values are sorted at each pixel, the k-th of N is subtracted N - 1 - k times and added k times. This is exact
    # over all pairs and takes N log N.
    number = len(images)
    weights = 2 * np.arange(number, dtype=np.int64) - (number - 1)
    total = 0
    for start, stop in row_chunks(images.shape[1], images[:, 0].nbytes):
        ordered = np.sort(images[:, start:stop], axis=0)
        total += int((ordered.sum((1, 2, 3), dtype=np.int64) * weights).sum())
    return total / (number * (number - 1) / 2) / images[0].size


def row_chunks(rows: int, bytes_a_row: int) -> Iterator[tuple[int, int]]:
    """Yield the stretches of rows that are read at a time, as [start, stop)."""
    step = max(1, CHUNK_BYTES // bytes_a_row)
    for start in range(0, rows, step):
        yield start, min(start + step, rows)


def check_images(images: Pixels) -> None:
    """Raise ShapeError unless images are uint8 [N, H, W, 3] and not empty."""
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or 0 in images.shape:
        raise ShapeError(f"images must be uint8 [N, H, W, 3]; got {images.dtype} {images.shape}")
