"""Boxes of patches, x, y, width and height in whole pixels of the square that a model sees, and patches cut by them."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from zellige.errors import ShapeError

__all__ = ["Boxes", "checked_boxes", "cut_patches", "flipped", "overlaps", "rounded_out", "stretched", "union_mask"]

Pixels = npt.NDArray[np.uint8]
Boxes = npt.NDArray[np.int64]  # [K, 4]


def rounded_out(boxes: npt.NDArray[np.floating] | Sequence[Sequence[float]], size: tuple[int, int]) -> Boxes:
    """Boxes in whole pixels: outward, so that flipping before and after rounding give the same; cut at the border.

    Args:
        boxes: x, y, w, h in pixels, [K, 4].
        size: height and width of the picture.
    """
    x, y, w, h = np.asarray(boxes, np.float64).reshape(-1, 4).T
    slack = 1e-6  # of products such as 0.3 * 64 * 10 / 10
    left, top = np.floor(x + slack).clip(0), np.floor(y + slack).clip(0)
    right, bottom = np.ceil(x + w - slack).clip(None, size[1]), np.ceil(y + h - slack).clip(None, size[0])
    return np.stack([left, top, right - left, bottom - top], axis=1).astype(np.int64)


def checked_boxes(boxes: npt.ArrayLike, size: tuple[int, int]) -> Boxes:
    """Boxes that lie in a picture and have an area.

    Raises:
        ShapeError: one does not; or they are not whole numbers [K, 4], or none.
    """
    found = np.asarray(boxes)
    if found.ndim != 2 or found.shape[1] != 4 or not len(found) or found.dtype.kind not in "iu":
        raise ShapeError(f"boxes must be whole numbers x, y, width, height, [K, 4]; got {found.dtype} {found.shape}")
    height, width = size
    for x, y, w, h in found.tolist():
        if w < 1 or h < 1:
            raise ShapeError(f"the box {x},{y},{w},{h} has no area; give a width and a height of 1 or more")
        if x < 0 or y < 0 or x + w > width or y + h > height:
            raise ShapeError(
                f"the box {x},{y},{w},{h} leaves the image, which has {width} x {height} pixels; give x, y, width and "
                "height in its pixels"
            )
    return found.astype(np.int64)


def union_mask(boxes: Boxes, size: tuple[int, int]) -> Pixels:
    """1 inside of any of the boxes [K, 4], 0 elsewhere: uint8 [H, W]."""
    mask = np.zeros(size, np.uint8)
    for x, y, w, h in boxes.tolist():
        mask[y : y + h, x : x + w] = 1
    return mask


def flipped(boxes: Boxes, width: int) -> Boxes:
    """Boxes [K, 4] in the picture that is mirrored left to right: x' = W - x - w."""
    x, y, w, h = boxes.T
    return np.stack([width - x - w, y, w, h], axis=1)


def overlaps(first: Boxes, second: Boxes) -> npt.NDArray[np.float64]:
    """Intersection over union of boxes [K, 4] with boxes [M, 4]: [K, M]."""
    (x, y, w, h), (x2, y2, w2, h2) = first.T.astype(np.float64), second.T.astype(np.float64)
    across = np.minimum.outer(x + w, x2 + w2) - np.maximum.outer(x, x2)
    down = np.minimum.outer(y + h, y2 + h2) - np.maximum.outer(y, y2)
    common = across.clip(0) * down.clip(0)
    return np.asarray(common / (np.add.outer(w * h, w2 * h2) - common))


def cut_patches(picture: Pixels, boxes: Boxes) -> Pixels:
    """Cut boxes [K, 4] out of a picture [S, S, 3], each stretched to its size: uint8 [K, S, S, 3]."""
    return np.stack([stretched(picture[y : y + h, x : x + w], picture.shape[0]) for x, y, w, h in boxes.tolist()])


def stretched(patch: Pixels, side: int) -> Pixels:
    """A patch [h, w, 3] stretched bicubically to a square: uint8 [side, side, 3]."""
    whole = Image.fromarray(np.ascontiguousarray(patch))
    return np.asarray(whole.resize((side, side), Image.Resampling.BICUBIC))
