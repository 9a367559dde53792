"""Patches that an image is made of: from files, cut out of images by boxes, or the key patches of an image."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zellige.errors import BudgetError, DataError, ShapeError

from ....kernels.op.levels import bytes_of, values_of
from ...device import available_memory, show_bytes
from ...files.hostile import open_regular
from ...files.squares import cut_squares
from .boxes import Boxes, checked_boxes, cut_patches, rounded_out, stretched
from .config import KeyPatchConfig
from .selection import edge_boxes, key_boxes, random_boxes

__all__ = [
    "PatchSet", "Pictures", "as_pictures", "key_patches", "noisy", "patches_of", "read_boxes", "with_noise",
]  # fmt: skip

Pixels = npt.NDArray[np.uint8]

_MOST_BYTES = 2**20  # of a file of boxes


@dataclass(frozen=True)
class PatchSet:
    """The patches of one image.

    Args:
        patches: stretched to the network's input, uint8 [K, R, R, 3].
        boxes: where they were cut out, int64 [K, 4]; None if nobody knows.
        picture: the image that all of them are from, uint8 [R, R, 3]; None if there is no such image.
    """

    patches: Pixels
    boxes: Boxes | None = None
    picture: Pixels | None = None


class Pictures(list[Pixels]):
    """Pictures of any sizes, uint8 [h, w, 3] each."""


def as_pictures(given: Any) -> Pictures:
    """Files or arrays of any sizes as they are, in RGB.

    Raises:
        ShapeError: there are none, or one is no picture. DataError: a file cannot be read.
    """
    if isinstance(given, Pictures):
        return given
    found = Pictures()
    for index in range(len(given) if not isinstance(given, str | bytes) else 0):
        found.append(_picture(given[index]))
    if not found:
        raise ShapeError("there is no patch to compose an image of; give a list of one patch or more")
    return found


def patches_of(pictures: Pictures, box: Sequence[str] | None, config: KeyPatchConfig) -> PatchSet:
    """Patches from pictures: the pictures themselves, or what boxes cut out of them.

    Args:
        pictures: one or more.
        box: as of `KeyPatch.compose`.
        config: of the model.
    Raises:
        ShapeError: boxes and pictures do not go together. BudgetError: the patches do not fit in memory.
    """
    side = config.resolution
    _check_memory(max(len(pictures), len(box or ())), side)
    if not box:
        return PatchSet(np.stack([stretched(picture, side) for picture in pictures]))
    boxes = [_numbers(text) for text in box]
    if len(pictures) == 1:
        pictures = Pictures(list(pictures) * len(boxes))
    if len(pictures) != len(boxes):
        raise ShapeError(
            f"{len(boxes)} boxes do not go with {len(pictures)} images; give one --box for every image, and an image "
            "twice for two of its patches, or a single image"
        )
    cut, placed = [], []
    for picture, wanted in zip(pictures, boxes, strict=True):
        checked_boxes([wanted], picture.shape[:2])
        whole = cut_squares([picture], side)
        placed.append(_in_square(wanted, picture.shape[:2], side))
        cut.append(cut_patches(whole.pixels[0], placed[-1][None])[0])
    same = all(picture is pictures[0] for picture in pictures)
    shown = cut_squares([pictures[0]], side).pixels[0] if same else None
    return PatchSet(np.stack(cut), np.stack(placed), shown)


def _check_memory(count: int, side: int) -> None:
    """Refuse more patches than memory takes, before they are stretched: as they are cut, and as one array."""
    each, left = 2 * 3 * side * side, available_memory(torch.device("cpu"))
    if count * each > left:
        raise BudgetError(
            f"{count} patches of {side} x {side} pixels take {show_bytes(count * each)}, and {show_bytes(left)} of "
            f"memory are free; give at most {left // each}"
        )


def read_boxes(path: str, given: Sequence[str] | None) -> list[str]:
    """The boxes of a text file, one a line.

    Raises:
        ShapeError: boxes were given too, or it holds none. DataError: it cannot be read.
    """
    if given:
        raise ShapeError("boxes come from --box or from the file of --boxes, and not from both; leave one out")
    try:
        with open_regular(Path(path)) as file:
            text = file.read(_MOST_BYTES).decode("utf-8")
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a text of boxes: {error}") from None
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise ShapeError(f"{path} holds no box; write X,Y,WIDTH,HEIGHT in a line for each patch")
    return lines


def key_patches(
    picture: Pixels, count: int, select: str, config: KeyPatchConfig, random: np.random.Generator,
    edge_model: str | None = None,
) -> PatchSet:  # fmt: skip
    """The key patches of a picture, or patches at random places.

    Raises:
        DataError: it has no edges, or fewer key patches. ShapeError: a model of edges without EdgeBoxes.
    """
    if edge_model is not None and select != "edgeboxes":
        raise ShapeError(f"a model of structured edges is for patches by edgeboxes, not by {select}; leave one out")
    if select == "edgeboxes":
        boxes = edge_boxes(picture, count, config, edge_model)
    else:
        boxes = key_boxes(picture, count, config) if select == "edges" else random_boxes(random, count, config)
    if len(boxes) < count:
        raise DataError(f"an image has {len(boxes)} key patches, not {count}; ask for fewer, or for random patches")
    return PatchSet(cut_patches(picture, boxes), boxes, picture)


def noisy(patches: Tensor, noise: float, seed: int, numbers: range) -> Tensor:
    """Normal noise on the last patch of each set [N, K, 3, R, R] in [-1, 1], kept in these bounds."""
    if not noise:
        return patches
    shape = patches.shape[2:]
    drawn = np.stack([np.random.default_rng((seed, k, 1)).standard_normal(shape, np.float32) for k in numbers])
    patches = patches.clone()
    patches[:, -1] += noise * torch.from_numpy(drawn).to(patches)
    return patches.clamp(-1, 1)


def with_noise(patches: PatchSet, noise: float, seed: int, number: int) -> PatchSet:
    """The patches of set `number` as the network sees them, with noise on the last one."""
    if not noise:
        return patches
    pixels = torch.from_numpy(patches.patches[-1:])
    last = noisy(values_of(pixels).permute(0, 3, 1, 2)[None], noise, seed, range(number, number + 1))
    seen = bytes_of(last[0].permute(0, 2, 3, 1)).numpy()
    return replace(patches, patches=np.concatenate([patches.patches[:-1], seen]))


def _picture(given: Any) -> Pixels:
    if isinstance(given, np.ndarray) and given.dtype == np.uint8 and given.ndim == 3 and given.shape[2] == 3:
        if 0 in given.shape:
            raise ShapeError(f"a patch has no pixel; got uint8 {list(given.shape)}")
        return given
    if isinstance(given, np.ndarray):
        raise ShapeError(f"patches must be uint8 [h, w, 3]; got {given.dtype} {list(given.shape)}")
    from ...files.pictures import as_rgb, read_picture

    if hasattr(given, "convert"):
        return np.asarray(as_rgb(given, "a patch"))
    return np.asarray(read_picture(given))


def _numbers(text: str) -> tuple[int, int, int, int]:
    try:
        x, y, w, h = (int(part) for part in text.split(","))
    except ValueError:
        raise ShapeError(f"{text!r} is no box; write X,Y,WIDTH,HEIGHT in pixels, such as 20,12,24,24") from None
    return x, y, w, h


def _in_square(box: tuple[int, int, int, int], size: tuple[int, ...], side: int) -> Boxes:
    """A box in pixels of an image as one in its centre square, resized: int64 [4].

    Raises:
        ShapeError: it leaves the centre square.
    """
    height, width = size
    window = min(height, width)
    left, top = (width - window) // 2, (height - window) // 2
    x, y, w, h = box
    if x < left or y < top or x + w > left + window or y + h > top + window:
        raise ShapeError(
            f"the box {x},{y},{w},{h} leaves the image's centre square, which is {left},{top},{window},{window}; the "
            "model sees that square alone"
        )
    scale = side / window
    return rounded_out([[(x - left) * scale, (y - top) * scale, w * scale, h * scale]], (side, side))[0]
