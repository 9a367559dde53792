"""Cuts images to the squares of one resolution that a model reads, and lays masks back over the whole images."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Union

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from zellige.errors import DataError, ShapeError

from .pictures import MOST_PIXELS, as_rgb, read_picture, to_uint8

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Images", "Squares", "cut_squares", "whole_mask"]

Pixels = NDArray[np.uint8]

_ROUNDING = 1e-3  # the excess over [-1, 1] that floats may have, from half precision or filters that overshoot
_TAKEN = "give a uint8 array or tensor [H, W, 3], a Pillow image, or the path of an image file"


@dataclass(frozen=True)
class Squares:
    """The centre squares of images, all of one size.

    Args:
        pixels: uint8 [N, R, R, 3].
        sizes: height and width of every image, upright, before it was cut.
    """

    pixels: Pixels
    sizes: list[tuple[int, int]]

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, part: slice) -> "Squares":
        return Squares(self.pixels[part], self.sizes[part])


Images = Union[Pixels, Squares, "Tensor", Sequence[Union[Pixels, "Tensor", Image.Image, str, os.PathLike[str]]]]


def cut_squares(images: Images, side: int) -> Squares:
    """Cut the centre square out of every image and resize it, as training does with a folder's images.

    Args:
        images: an array or tensor uint8 [N, H, W, 3]; or a tensor of floats [N, 3, H, W] in [-1, 1]; or a list of
            images of any sizes (uint8 [H, W, 3], Pillow images, paths of image files); or squares, which are returned
            as they are. A file gives its first frame, upright by its EXIF orientation, in 8 bits; transparency is
            dropped, so that transparent pixels show the colour that the file stores there.
        side: R, the side of the squares in pixels.
    Returns:
        R x R pixels of each image, resized with Lanczos' filter; a centre square that is R x R already is copied.
    Raises:
        ShapeError: there are no images, or one of them is empty or of a type or shape that is not taken.
        DataError: a file cannot be read, or has more than 100 million pixels.
    """
    if isinstance(images, Squares):
        return images
    if isinstance(images, str | os.PathLike | Image.Image):
        what = repr(os.fspath(images)) if isinstance(images, str | os.PathLike) else "image"
        raise ShapeError(f"images must be an array or a list; write [{what}] for one")
    if _is_tensor(images):
        images = _pixels(images, "images")
    if not isinstance(images, np.ndarray | Sequence) or isinstance(images, bytes | bytearray):
        raise ShapeError(f"images must be an array or a list; got {type(images).__name__}: {_TAKEN}")
    if isinstance(images, np.ndarray) and images.ndim != 4:
        raise ShapeError(f"images must be uint8 [N, H, W, 3], or a list; got {images.dtype} {list(images.shape)}")
    if not len(images):
        raise ShapeError("there are no images; give one or more")
    pixels, sizes = np.empty((len(images), side, side, 3), np.uint8), []
    for index, image in enumerate(images):
        picture = _picture(image, index)
        sizes.append((picture.height, picture.width))
        window, top, left = _window(*sizes[-1])
        square = picture.crop((left, top, left + window, top + window))
        pixels[index] = np.asarray(square.resize((side, side), Image.Resampling.LANCZOS))
    return Squares(pixels, sizes)


def whole_mask(mask: Pixels, size: tuple[int, int]) -> Pixels:
    """Lay the mask of a square back over the image from which the square was cut.

    Args:
        mask: uint8 [R, R].
        size: height and width of the image.
    Returns:
        uint8 [height, width], interpolated linearly; 0 outside of the square, which the model has not seen.
    """
    window, top, left = _window(*size)
    picture = np.zeros(size, np.uint8)
    resized = Image.fromarray(mask).resize((window, window), Image.Resampling.BILINEAR)
    picture[top : top + window, left : left + window] = np.asarray(resized)
    return picture


def _picture(image: Any, index: int) -> Image.Image:
    """One element of a list of images."""
    what = f"image {index}"
    if isinstance(image, str | os.PathLike):
        return read_picture(image)
    if isinstance(image, Image.Image):
        if image.width * image.height > MOST_PIXELS:
            raise DataError(f"{what} has more than {MOST_PIXELS:,} pixels; make it smaller")
        try:
            return as_rgb(image, what)
        except (OSError, ValueError) as error:  # the image's file is damaged or closed
            raise DataError(f"{what} cannot be read: {error}") from error
    if _is_tensor(image):
        image = _pixels(image[None] if image.ndim == 3 else image, what)
        image = image[0] if len(image) == 1 else image
    if not isinstance(image, np.ndarray):
        raise ShapeError(f"{what} is of the type {type(image).__name__}; {_TAKEN}")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ShapeError(
            f"{what} must be uint8 [H, W, 3] with at least one pixel; got {image.dtype} {list(image.shape)}"
        )
    return Image.fromarray(np.ascontiguousarray(image))


def _is_tensor(images: Any) -> bool:
    torch = sys.modules.get("torch")  # without torch in memory there are no tensors
    return torch is not None and isinstance(images, torch.Tensor)


def _pixels(images: Any, what: str) -> Pixels:
    """A tensor as uint8 [N, H, W, 3] on the host; floats must be [N, 3, H, W] in [-1, 1], as networks make them."""
    if not images.is_floating_point():
        found: Pixels = images.detach().cpu().numpy()
        return found
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
        raise ShapeError(f"{what} is a tensor {images.dtype} {list(images.shape)}; floats must be [N, 3, H, W]")
    least, most = (float(value) for value in images.detach().float().aminmax())
    if not -1 - _ROUNDING <= least <= most <= 1 + _ROUNDING:  # false of NaN
        raise ShapeError(
            f"{what} is a tensor of floats from {least:g} to {most:g}, and floats must lie in [-1, 1]; turn bytes v "
            "into v / 127.5 - 1, or give them as uint8 [N, H, W, 3]"
        )
    return to_uint8(images)


def _window(height: int, width: int) -> tuple[int, int, int]:
    """Side, top and left of the centre square."""
    side = min(height, width)
    return side, (height - side) // 2, (width - side) // 2
