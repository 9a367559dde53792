"""Reads image files and writes PNG files, as uint8 arrays. No other file of this package opens a user's image file."""

import math
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from zellige.errors import DataError, ShapeError, ZelligeError

from .atomic import AtomicFile, output_errors
from .faults import PictureFileError
from .hostile import IrregularFileError, open_regular
from .kinds import START_BYTES, kind_of

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["MOST_PIXELS", "as_rgb", "contact_sheet", "read_picture", "text_of", "to_uint8", "write_png"]

Pixels = NDArray[np.uint8]

MOST_PIXELS = 100_000_000
# Other formats stay closed, because Pillow starts Ghostscript for some of them.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
_ADVICE = "give a PNG, JPEG, WebP, BMP, GIF or TIFF image"
_ORIENTATION = 0x0112  # of EXIF
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
_TEXT_BOUNDS = ("MAX_TEXT_CHUNK", "text chunks")  # words in Pillow's errors about too much text in a PNG
# Tags of TIFF, and the value of SampleFormat for unsigned integers.
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT, _UNSIGNED = 258, 262, 339, 1


def read_picture(path: str | os.PathLike[str]) -> Image.Image:
    """Read the first frame of an image file, upright by its EXIF orientation, as 8-bit RGB without transparency.

    A 16-bit channel keeps its upper 8 bits. A broken EXIF block is ignored.

    Raises:
        DataError: the file is missing, damaged or not an image, has more than 100 million pixels, or has channels of
            floats, signed numbers or more than 16 bits.
    """
    path = Path(path)
    with _opened(path) as file:
        return _decoded(file, path)


def text_of(path: str | os.PathLike[str], name: str) -> str:
    """A text of a PNG file; empty if it has none of this name.

    Raises:
        DataError: the file is missing, damaged, no PNG, or has more text than is read.
    """
    path = Path(path)
    with _opened(path) as file:
        try:
            with Image.open(file, formats=("PNG",)) as picture:
                return str(getattr(picture, "text", {}).get(name, ""))
        except Exception as error:  # Pillow raises another class for each fault
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DataError(f"{path} cannot be read as a PNG image ({reason.rstrip('.')})") from error


def _opened(path: Path) -> BinaryIO:
    try:
        return open_regular(path)
    except IrregularFileError as error:
        if path.is_dir():
            raise DataError(f"{path} is a folder; give the image files in it, such as {path}/*.png") from None
        raise DataError(f"{path} cannot be read: {error.strerror}; {_ADVICE}") from None
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a name with a NUL character
        raise DataError(f"there is no image file {path}; {_ADVICE}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}; check its name and permissions") from None


def _decoded(file: BinaryIO, path: Path) -> Image.Image:
    try:
        with warnings.catch_warnings():  # Pillow warns of faults that it then repairs, and of sizes checked below
            warnings.simplefilter("ignore")
            with Image.open(file, formats=_FORMATS) as picture:
                if picture.width * picture.height > MOST_PIXELS:
                    raise DataError(_too_large(path, f"{picture.width}x{picture.height} pixels"))
                return as_rgb(picture, str(path))
    except ZelligeError:
        raise
    except UnidentifiedImageError:
        file.seek(0)
        kind = kind_of(file.read(START_BYTES))
        found = f"is {kind.title}, and not an image" if kind else "is no image, or in no format that is read here"
        if kind and kind.fault is PictureFileError:
            found = f"is {kind.title} that is damaged, or whose channels cannot be read here"
        raise DataError(f"{path} {found}; {_ADVICE}") from None
    except Image.DecompressionBombError:  # raised above twice Pillow's own bound, which is near MOST_PIXELS
        raise DataError(_too_large(path, "far too many pixels")) from None
    except Exception as error:  # Pillow raises another class for each format and fault
        reason = " ".join(str(error).split()) or type(error).__name__
        if any(bound in reason for bound in _TEXT_BOUNDS):
            raise DataError(f"{path} holds more text than is read; save it again without its metadata") from None
        raise DataError(f"{path} cannot be read ({reason.rstrip('.')}); {_ADVICE}") from error


def as_rgb(picture: Image.Image, what: str) -> Image.Image:
    """Turn a Pillow image upright and make it 8-bit RGB without transparency.

    Args:
        picture: an image of any mode.
        what: its name in errors.
    Raises:
        DataError: the channels are floats, signed numbers, or of more than 16 bits.
        Exception: Pillow's own errors about a damaged file.
    """
    picture.load()
    tags = picture.tag_v2 if isinstance(picture, TiffImagePlugin.TiffImageFile) else {}
    formats = tags.get(_SAMPLE_FORMAT) or (_UNSIGNED,)
    # Pillow reads signed bytes as unsigned, and clips 32 bits and floats to 255. Old versions give a 16-bit PNG mode I.
    is_wide = picture.mode == "F" or (picture.mode == "I" and picture.format != "PNG")
    if is_wide or any(number != _UNSIGNED for number in formats):
        raise DataError(
            f"{what} has channels of signed numbers, floats or 32 bits, for which no numbers of black and white are "
            "known; save it with 8 or 16 unsigned bits a channel"
        )
    if picture.mode.startswith("I"):
        picture = _upper_bits(picture, tags.get(_BITS, (16,))[0], inverted=tags.get(_PHOTOMETRIC) == 0)
    return _upright(picture).convert("RGB")


def _upper_bits(picture: Image.Image, bits: int, *, inverted: bool) -> Image.Image:
    """The upper 8 bits of each pixel, with white as 255; Pillow would clip at 255 and would not invert white-is-0."""
    levels = np.asarray(picture).astype(np.uint16) >> (bits - 8)
    grey = Image.fromarray((255 - levels if inverted else levels).astype(np.uint8))
    grey.info["exif"] = picture.info.get("exif", b"")
    return grey


def _upright(picture: Image.Image) -> Image.Image:
    try:
        turn = _TURNS.get(picture.getexif().get(_ORIENTATION, 1))
    except Exception:  # Pillow raises many classes for a broken EXIF block; the pixels are sound all the same
        return picture
    return picture if turn is None else picture.transpose(turn)


def _too_large(path: Path, size: str) -> str:
    return f"{path} has {size}, and at most {MOST_PIXELS:,} are read; make it smaller"


def to_uint8(images: "Tensor") -> Pixels:
    """Turn a network's output into 8-bit images.

    `bytes_of` computes the bytes, in float32.

    Args:
        images: [N, 3, H, W] with values in [-1, 1] (others are clipped), of any floating dtype, on any device.
    Returns:
        uint8 [N, H, W, 3], contiguous, in host memory.
    Raises:
        ShapeError: images is not a floating tensor [N, 3, H, W].
    """
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise ShapeError(f"images must be a floating tensor [N, 3, H, W]; got {images.dtype} {list(images.shape)}")
    from ...kernels.op.levels import bytes_of

    # Permuted before the copy to the host, because the device is faster and bytes are a quarter of float32's traffic.
    pixels: Pixels = bytes_of(images.detach().float()).permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return pixels


def write_png(path: str | os.PathLike[str], image: Pixels) -> None:
    """Write one image as PNG; the file appears complete or not at all.

    Args:
        path: the file to make or replace.
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
        columns: images in a row; None takes the number that makes the sheet most nearly square in pixels, and the
            smaller of two equally good numbers. Eight panoramas of 1024x128 stack in one column.
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
