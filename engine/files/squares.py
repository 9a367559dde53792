"""Image files and arrays as the squares that a model of one resolution reads, and masks back at the images' sizes."""

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from zellige.errors import DataError, ShapeError, ZelligeError

__all__ = ["MOST_PIXELS", "Images", "Squares", "cut_squares", "read_picture", "whole_mask"]

Pixels = NDArray[np.uint8]

MOST_PIXELS = 100_000_000
# Pillow would start Ghostscript for some of the formats that it knows.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
_ADVICE = "give a PNG, JPEG, WebP, BMP, GIF or TIFF image"


@dataclass(frozen=True)
class Squares:
    """The centre squares of images, in one size.

    Args:
        pixels: uint8 [N, R, R, 3].
        sizes: height and width of every upright image before it was cut.
    """

    pixels: Pixels
    sizes: list[tuple[int, int]]

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, part: slice) -> "Squares":
        return Squares(self.pixels[part], self.sizes[part])


Images = Pixels | Squares | Sequence[Pixels | str | os.PathLike[str]]


def cut_squares(images: Images, side: int) -> Squares:
    """Cut the centre square out of every image and resize it, as training does with a folder's images.

    Args:
        images: uint8 [N, H, W, 3]; or a list of uint8 [H, W, 3] and of image files, of any sizes; or squares, which are
            returned as they are. Of a file the first frame counts, upright by its EXIF orientation, in 8 bits; its
            transparency is dropped, and what was transparent has the colour that the file stores there.
        side: R, of the result in pixels.
    Returns:
        R x R pixels of each, resized by Lanczos' filter; those of a centre square of R are copied.
    Raises:
        ShapeError: there are no images, or one of them is an array of another form, or empty.
        DataError: a file cannot be read, or has more than 100 million pixels.
    """
    if isinstance(images, Squares):
        return images
    if isinstance(images, str | os.PathLike):
        raise ShapeError(f"images must be an array or a list; write [{str(images)!r}] for one file")
    if isinstance(images, np.ndarray) and images.ndim != 4:
        raise ShapeError(f"images must be uint8 [N, H, W, 3], or a list; got {images.dtype} {list(images.shape)}")
    if not len(images):
        raise ShapeError("there are no images; give one or more")
    pixels, sizes = np.empty((len(images), side, side, 3), np.uint8), []
    for index, image in enumerate(images):
        picture = _from_array(image, index) if isinstance(image, np.ndarray) else read_picture(image)
        sizes.append((picture.height, picture.width))
        window, top, left = _window(*sizes[-1])
        square = picture.crop((left, top, left + window, top + window))
        pixels[index] = np.asarray(square.resize((side, side), Image.Resampling.LANCZOS))
    return Squares(pixels, sizes)


def whole_mask(mask: Pixels, size: tuple[int, int]) -> Pixels:
    """Lay the mask of a square back over the image that the square was cut out of.

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


def read_picture(path: str | os.PathLike[str]) -> Image.Image:
    """Read an image file: its first frame, upright, RGB of 8 bits, without transparency.

    Raises:
        DataError: it is missing, no image, damaged, larger than 100 million pixels, or of more than 16 bits a channel.
    """
    path = Path(path)
    if path.is_dir():
        raise DataError(f"{path} is a folder; give the image files in it, such as {path}/*.png")
    if not path.is_file():  # a pipe would block when it is opened
        raise DataError(f"there is no image file {path}; {_ADVICE}")
    try:
        with warnings.catch_warnings():  # Pillow warns of much that it then reads, and of sizes that are checked here
            warnings.simplefilter("ignore")
            with Image.open(path, formats=_FORMATS) as file:
                if file.width * file.height > MOST_PIXELS:
                    raise DataError(_too_large(path, f"{file.width}x{file.height} pixels"))
                return _plain(ImageOps.exif_transpose(file), path)
    except ZelligeError:
        raise
    except UnidentifiedImageError:
        raise DataError(f"{path} is no image, or in no format that is read here; {_ADVICE}") from None
    except Image.DecompressionBombError:  # from twice Pillow's own bound on, which is near ours
        raise DataError(_too_large(path, "far more")) from None
    except Exception as error:  # Pillow raises many kinds, by format and by fault
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path} cannot be read ({reason.rstrip('.')}); {_ADVICE}") from error


def _plain(picture: Image.Image, path: Path) -> Image.Image:
    if picture.mode == "F" or picture.mode.startswith("I"):
        # Pillow converts greys of 16 bits by clipping them at 255.
        levels = np.asarray(picture)
        if picture.mode == "F" or levels.min() < 0 or levels.max() > 65535:
            raise DataError(f"{path} has more than 16 bits a pixel and channel; save it with 8 or 16")
        picture = Image.fromarray((levels >> 8).astype(np.uint8))
    return picture.convert("RGB")


def _from_array(image: Pixels, index: int) -> Image.Image:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ShapeError(
            f"image {index} must be uint8 [H, W, 3] with at least one pixel; got {image.dtype} {list(image.shape)}"
        )
    return Image.fromarray(np.ascontiguousarray(image))


def _window(height: int, width: int) -> tuple[int, int, int]:
    """Side, top and left of the centre square."""
    side = min(height, width)
    return side, (height - side) // 2, (width - side) // 2


def _too_large(path: Path, size: str) -> str:
    return f"{path} has {size}, and at most {MOST_PIXELS:,} are read; make it smaller"
