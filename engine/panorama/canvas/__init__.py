"""Picture files of any size, written tile by tile; each format is a module of this folder and a row in `FORMATS`."""

import math
import os
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from zellige.errors import OutputError, SizeError
from zellige.version import __version__

from ...files.atomic import partial_of

if TYPE_CHECKING:
    from .canvas import Canvas

__all__ = ["FORMATS", "Format", "format_of", "is_unfinished", "listed", "open_canvas", "paths_of", "resumable"]


class Format(NamedTuple):
    """A row of the table of formats.

    Attributes:
        module: the file of this folder that writes it. It is imported when a file is opened, because `zellige --help`
            needs only the extensions.
        name: the canvas's class in it.
        compressions: the names that it knows; the first is the default.
        resumes: whether an unfinished picture can be gone on with.
    """

    module: str
    name: str
    compressions: tuple[str, ...]
    resumes: bool = True


_TIFF = Format("tiff", "TiffCanvas", ("deflate", "none", "zstd", "jpeg"))
FORMATS = {
    ".tif": _TIFF,
    ".tiff": _TIFF,
    ".png": Format("png", "PngCanvas", ("deflate",), resumes=False),
    ".zarr": Format("zarr", "ZarrCanvas", ("zstd", "none")),
    ".dzi": Format("dzi", "DziCanvas", ("jpeg", "png")),
}
_LARGEST_TILE = 512
# Many readers that use libtiff keep each side in a signed 32-bit integer.
_LARGEST_SIDE = 2**31 - 1
_QUALITY = 95


def open_canvas(
    path: str | os.PathLike[str],
    width: int,
    height: int,
    *,
    patch: int,
    compression: str | None = None,
    quality: int | None = None,
    cyclic: tuple[bool, bool] = (False, False),
    metadata: Mapping[str, str] | None = None,
    tile: tuple[int, int] | None = None,
) -> "Canvas":
    """Prepare a picture file in the format of its extension.

    An existing file is replaced once the new one is complete. Every error that can be foreseen is raised here, before
    any rendering. Nothing stays on the disk before the canvas is entered.

    Args:
        path: the file, with an extension in FORMATS; for .zarr a folder, for .dzi a file and a folder beside it.
        width, height: size of the picture in pixels, >= 1.
        patch: side of a patch in pixels. A tile's side is a common multiple of it and of 16 (which TIFF demands) if
            there is one up to 512, so that few patches are cut by two tiles.
        compression: one that the format has; None takes its first.
        quality: of JPEG, from 1 to 100, on the scale of libjpeg; None takes 95.
        cyclic: whether the picture closes on itself (vertically, horizontally); reduced levels then do as well.
        metadata: names and values that are kept inside the file, with the version of this package. None keeps nothing.
        tile: height and width of a tile, multiples of 16; None chooses them.
    Returns:
        A canvas, to be used in a `with` statement.
    Raises:
        OutputError: the extension or compression is unknown, or the path cannot be written.
        SizeError: the picture is larger than the format allows.
        MissingExtraError: a package that writes the format is not installed.
    """
    from .canvas import Canvas, Grid, Settings

    path = Path(path)
    form = format_of(path)
    chosen = compression or form.compressions[0]
    if chosen not in form.compressions:
        raise OutputError(
            f"{path.name} cannot have the compression {chosen}; {path.suffix} takes {_either(form.compressions)}."
        )
    if quality is not None and chosen != "jpeg":
        raise OutputError(f"A quality is JPEG's, and {path.name} has the compression {chosen}; leave the quality out.")
    if quality is not None and not 1 <= quality <= 100:
        raise OutputError(f"The quality of JPEG is a number from 1 to 100, not {quality}.")
    if width < 1 or height < 1:
        raise SizeError(f"A picture of {width}x{height} pixels has no pixels; both sides must be at least 1.")
    if max(width, height) > _LARGEST_SIDE:
        raise SizeError(f"{width}x{height} is too large for a picture file: no side may exceed {_LARGEST_SIDE} pixels.")
    settings = Settings(chosen, _QUALITY if quality is None else quality, cyclic)
    if metadata is not None:
        lossy = {"quality": str(settings.quality)} if chosen == "jpeg" else {}
        settings = replace(settings, metadata={"version": f"zellige {__version__}", **metadata, **lossy})
    canvas: Canvas = getattr(import_module(f".{form.module}", __package__), form.name)(
        path, Grid(height, width, tile or _tile_shape(height, width, patch)), settings
    )
    return canvas


def paths_of(path: Path) -> list[Path]:
    """The file or folder of a picture, and for .dzi also the folder of its tiles."""
    return [path, path.with_name(f"{path.stem}_files")] if path.suffix.lower() == ".dzi" else [path]


def listed() -> str:
    """The extensions as words of a sentence: ".tif, .tiff or .png"."""
    return _either(tuple(FORMATS))


def resumable() -> str:
    """The extensions of pictures that can be resumed, as words of a sentence."""
    return _either(tuple(extension for extension, form in FORMATS.items() if form.resumes))


def is_unfinished(path: Path) -> bool:
    """Whether a run that was stopped has left an unfinished picture of this name."""
    return partial_of(paths_of(path)[-1]).exists() and partial_of(path, "journal").exists()


def format_of(path: Path) -> Format:
    """The row of the table for a picture's extension; raises OutputError if there is none."""
    try:
        return FORMATS[path.suffix.lower()]
    except KeyError:
        raise OutputError(f"{path} has no known picture format; name it {listed()}.") from None


def _either(words: tuple[str, ...]) -> str:
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last


def _tile_shape(height: int, width: int, patch: int) -> tuple[int, int]:
    unit = math.lcm(16, patch)
    largest = _LARGEST_TILE // unit * unit or _LARGEST_TILE
    return min(largest, math.ceil(height / 16) * 16), min(largest, math.ceil(width / 16) * 16)
