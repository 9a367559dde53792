"""Writes tiled BigTIFF files of any size: RGB in one of four compressions, reproducible to the byte."""

import math
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np

from zellige.errors import MissingExtraError, SizeError

from ...files.atomic import AtomicFile, output_errors
from ..scene import Region
from .canvas import Canvas, Grid, Pixels, Settings
from .encode import TILES_IN_MEMORY, Encoder
from .finished import Finished, FinishedTiff

if TYPE_CHECKING:
    from ..journal import Journal

__all__ = ["TiffCanvas", "tiff_bytes"]

# One terapixel in tiles of 512. The number has a bound because the index of tiles stays in memory until the end.
MOST_TILES = 2**22
# Measured: 49, for integers in tifffile's lists and then for the packed index.
INDEX_BYTES_PER_TILE = 64
# What tifffile is told of each compression. A predictor stores differences of horizontal neighbours. tifffile's own
# JPEG would halve the resolution of the colours.
_TAGS: dict[str, dict[str, Any]] = {
    "deflate": {"compression": "adobe_deflate", "predictor": True},
    "none": {},
    "zstd": {"compression": "zstd", "predictor": True},
    "jpeg": {"compression": "jpeg", "subsampling": (1, 1)},
}
_ZSTD_LEVEL = 3


class TiffCanvas(Canvas):
    """A tiled BigTIFF; tifffile pulls encoded tiles from an iterator and the renderer pushes pixels.

    Raises:
        SizeError: the picture has more tiles than fit.
        MissingExtraError: tifffile is not installed, or imagecodecs for zstd and JPEG.
        OutputError: the path cannot be written.
    """

    def __init__(self, path: Path, grid: Grid, settings: Settings) -> None:
        memory = tiff_bytes(grid)
        self._compress = _compressor(settings)
        self._target = AtomicFile(path)
        super().__init__(self._target, grid, settings, memory)

    def _begin(self) -> None:
        if self._journal is not None and self._journal.resumed:
            file = self._resumed(self._journal)
        else:
            file = self._target.open(**self._how)
        self._encoder = Encoder(
            self._output.path, self.tile, self._encode, lambda tiles: self._drain(file, tiles), self.seconds
        )

    def _take(self, tile: Pixels, top: int, left: int) -> None:
        self._encoder.put(tile, top, left)

    def _keep(self, older: Finished, index: int) -> None:
        assert isinstance(older, FinishedTiff), "an older picture of this format"
        self._encoder.pass_on(older.encoded(index))

    def _finish(self) -> None:
        self._encoder.finish()

    def _abandon(self) -> None:
        self._encoder.abandon()

    def _encode(self, tile: Pixels, place: Region) -> bytes:
        # Beyond the right border the last pixel is repeated, because its differences are zero.
        tile[: place.height, place.width :] = tile[: place.height, place.width - 1 : place.width]
        # Zeros are the shortest below the last row. JPEG would let them shine through into the rows above.
        tile[place.height :] = tile[place.height - 1] if self._settings.compression == "jpeg" else 0
        return self._compress(tile)

    def _drain(self, file: BinaryIO, tiles: Iterator[bytes]) -> None:
        import tifffile

        with tifffile.TiffWriter(file, bigtiff=True, byteorder="<") as writer:
            writer.write(
                tiles if self._journal is None else self._noted(self._journal, file, tiles),
                shape=(self._grid.height, self._grid.width, 3),
                dtype=np.uint8,
                tile=self.tile,
                photometric="rgb",
                planarconfig="contig",
                software="zellige",
                description=self._settings.description or None,
                # tifffile describes the shape unless it is told not to, and stumbles over its own description once
                # libvips has copied it into a pyramid. There is no date, so that the same picture gives the same bytes.
                metadata=None,
                **_TAGS[self._settings.compression],
            )

    def _resumed(self, journal: "Journal") -> BinaryIO:
        """Open the unfinished file, cut behind the last tile that the journal counts; what lies before stays."""
        assert self.partial is not None, "a TIFF can be resumed"
        if not self.partial.is_file():
            raise self.unresumable("is missing")
        file = self._target.open(**self._how)
        most = 2**12 + 2 * math.prod(self.tile) * 3  # bytes, which no compression makes of a tile
        with output_errors(self._output.path):
            size = file.seek(0, os.SEEK_END)
            counted = 0 < len(journal.lengths) == journal.tiles <= self._grid.tiles
            if size < journal.end or not counted or max(journal.lengths) > most:
                raise self.unresumable("does not hold the tiles that its journal counts")
            file.truncate(journal.end)
            file.seek(0)
        kept = _Kept(file, journal.end - sum(journal.lengths), journal.end)
        return cast(BinaryIO, kept)

    def _noted(self, journal: "Journal", file: BinaryIO, tiles: Iterator[bytes]) -> Iterator[bytes]:
        """All tiles of the file; those that are there already are zeros, and the journal gets lines for the others."""
        place = journal.end - sum(journal.lengths)
        for length in journal.lengths:
            yield bytes(length)
            place += length
            if file.tell() != place:
                raise self.unresumable("does not hold its tiles where its journal says")
        count, lengths = len(journal.lengths), []
        for tile in tiles:
            yield tile
            count += 1  # tifffile asks for the next tile when it has written this one
            lengths.append(len(tile))
            if journal.due(count):
                file.flush()
                os.fsync(file.fileno())
                journal.note(count, lengths, file.tell())
                lengths.clear()


class _Kept:
    """A file in which the bytes of a range stay as they are, although they are written once more.

    tifffile counts the tiles that it writes, and cannot begin in the middle. So it writes all of a resumed file again.
    """

    def __init__(self, file: BinaryIO, start: int, end: int) -> None:
        self._file, self._start, self._end = file, start, end

    def write(self, content: bytes) -> int:
        place = self._file.tell()
        if self._start <= place < self._end:
            self._file.seek(place + len(content))
            return len(content)
        return self._file.write(content)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def tiff_bytes(grid: Grid) -> int:
    """The most host memory that a TIFF's canvas holds.

    Raises:
        SizeError: the picture has more tiles than fit.
        MissingExtraError: tifffile is not installed.
    """
    if grid.tiles > MOST_TILES:
        raise SizeError(
            f"{grid.width}x{grid.height} is too large for one file: that is {grid.tiles} tiles of "
            f"{grid.tile[1]}x{grid.tile[0]}, and at most {MOST_TILES} fit. Render it in several pictures."
        )
    try:
        import tifffile  # noqa: F401 - imported here so that a missing package shows before the rendering
    except ImportError as error:
        raise MissingExtraError("tifffile", "writing TIFF", "tiff") from error
    return TILES_IN_MEMORY * math.prod(grid.tile) * 3 + grid.tiles * INDEX_BYTES_PER_TILE


def _compressor(settings: Settings) -> Callable[[Pixels], bytes]:
    """The function that compresses one whole tile."""
    if settings.compression == "none":
        return lambda tile: tile.tobytes()
    if settings.compression == "deflate":
        return _deflated
    try:
        import imagecodecs
    except ImportError as error:
        raise MissingExtraError("imagecodecs", f"TIFF with {settings.compression}", "tiff") from error
    if settings.compression == "zstd":
        return lambda tile: bytes(imagecodecs.zstd_encode(_differences(tile).tobytes(), level=_ZSTD_LEVEL))
    return lambda tile: bytes(
        imagecodecs.jpeg8_encode(
            tile, level=settings.quality, colorspace="RGB", outcolorspace="YCBCR", subsampling="444"
        )
    )


def _differences(pixels: Pixels) -> Pixels:
    """Horizontal differences, TIFF's predictor 2."""
    differences = pixels.copy()
    differences[:, 1:] -= pixels[:, :-1]
    return differences


def _deflated(pixels: Pixels) -> bytes:
    """Compress one whole tile: horizontal differences (TIFF's predictor 2), then deflate.

    Deflate matches runs only (Z_RLE), because that is faster and about as small. On photographs and satellite images,
    on one core, it made 115 to 125 MB/s and 40 to 75 % of the raw size; plain level 1 made 54 to 102 MB/s and 40 to
    79 %, level 6 made 12 to 35 MB/s and 36 to 78 %. tifffile does not encode, because its bytes depend on the optional
    codecs that are installed.
    """
    deflate = zlib.compressobj(level=1, strategy=zlib.Z_RLE)
    return deflate.compress(_differences(pixels).data) + deflate.flush()
