"""Files that pictures of any size stream into: a format is a file of this folder and a row of the table."""

import math
import os
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from zellige.errors import OutputError, SizeError

if TYPE_CHECKING:
    from .canvas import Canvas

__all__ = ["FORMATS", "listed", "open_canvas"]

# The class of each extension, imported when a file of it is opened: `zellige --help` lists the extensions.
FORMATS = {
    ".tif": ("tiff", "TiffCanvas"),
    ".tiff": ("tiff", "TiffCanvas"),
    ".png": ("png", "PngCanvas"),
}
_LARGEST_TILE = 512
# libtiff keeps both sides in a signed 32-bit integer in many of its readers.
_LARGEST_SIDE = 2**31 - 1


def open_canvas(path: str | os.PathLike[str], width: int, height: int, *, patch: int) -> "Canvas":
    """Prepare a picture file; its format follows the extension.

    An existing file is replaced, once the new one is complete. Everything that can be known to fail fails here, before
    any rendering; nothing stays on the disk until the canvas is entered.

    Args:
        path: the file, of an extension in FORMATS.
        width, height: of the picture, in pixels, >= 1.
        patch: side in pixels of the pieces that the tiles are rendered from. Tiles are whole numbers of patches
            where a multiple of 16 (which TIFF demands) up to 512 allows it, so that few patches are cut by two tiles.
    Returns:
        A canvas, to be used in a `with` statement.
    Raises:
        OutputError: the extension is unknown, or the path cannot be written.
        SizeError: the picture is larger than the format can be.
        MissingExtraError: a package that writes the format is not installed.
    """
    from .canvas import Grid

    path = Path(path)
    extension = path.suffix.lower()
    if extension not in FORMATS:
        raise OutputError(f"{path} has no known picture format; name it {listed()}.")
    if width < 1 or height < 1:
        raise SizeError(f"A picture of {width}x{height} pixels has no pixels; both sides must be at least 1.")
    if max(width, height) > _LARGEST_SIDE:
        raise SizeError(f"{width}x{height} is too large for a picture file: no side may exceed {_LARGEST_SIDE} pixels.")
    module, name = FORMATS[extension]
    canvas: Canvas = getattr(import_module(f".{module}", __package__), name)(
        path, Grid(height, width, _tile_shape(height, width, patch))
    )
    return canvas


def listed() -> str:
    """The extensions, for sentences: ".tif, .tiff or .png"."""
    *most, last = FORMATS
    return f"{', '.join(most)} or {last}"


def _tile_shape(height: int, width: int, patch: int) -> tuple[int, int]:
    unit = math.lcm(16, patch)
    largest = _LARGEST_TILE // unit * unit or _LARGEST_TILE
    return min(largest, math.ceil(height / 16) * 16), min(largest, math.ceil(width / 16) * 16)
