"""Writes Zarr v3 in whole shards, with the levels and the metadata of OME-Zarr 0.5."""

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from zellige.errors import MissingExtraError

from ...files.atomic import AtomicFolder, output_errors, sync
from ..scene import Region
from .canvas import Canvas, Grid, Pixels, Settings
from .encode import WORKERS, Encoder, Seconds, in_threads
from .finished import Finished
from .zarr_kept import Kept, shard_of
from .zarr_levels import CONFIG, grid_of, halve_shard, open_levels, require_shards, sync_shards, timed_store

__all__ = ["ZarrCanvas"]

_LARGEST_CHUNK = 256
_ZSTD_LEVEL = 3
# Halving ends at a level with no side above it, which a viewer shows at once.
_SMALLEST_LEVEL = 512
# Whole tiles for each worker. While a level is halved: its two free tiles, four tiles of the level above, the zarr
# package's copies of these, sums of 16 bits and the result. Measured: 11.
_TILES_A_WORKER = 16


class ZarrCanvas(Canvas):
    """A folder with a Zarr v3 group: level 0 is the picture, and each further level has half the size of the last.

    Arrays are uint8 [3, H, W], because OME-Zarr wants channels before space. A shard is a tile of the canvas, so it is
    written once, whole, by one thread. Every chunk carries a checksum behind its compression, because that of the shard
    guards the index alone. Shards of zeros are written too, because a missing shard would read as zeros.

    The pixel at (i, j) of a level is the mean of 2 x 2 pixels of the level above, rounded. At an odd side the last
    pixel's partner is the first pixel on an axis that closes on itself, and itself on other axes.

    Raises:
        MissingExtraError: zarr is not installed.
        OutputError: the path cannot be written, or holds a folder that no canvas wrote.
    """

    def __init__(self, path: Path, grid: Grid, settings: Settings) -> None:
        try:
            import zarr  # noqa: F401 - imported here so that a missing package shows before the rendering
        except ImportError as error:
            raise MissingExtraError("zarr", "writing Zarr", "zarr") from error
        self._folder = AtomicFolder(path, is_canvas)
        self._folder.check()
        self._kept: Kept | None = None
        self._others: Callable[[int, int], bool] | None = None
        super().__init__(self._folder, grid, settings, _TILES_A_WORKER * WORKERS * math.prod(grid.tile) * 3)

    @property
    def grid(self) -> Grid:
        """The picture and its shards on level 0."""
        return self._grid

    @property
    def stored_pixels(self) -> int:
        """Pixels of all levels."""
        return sum(height * width for height, width in _sizes(self._grid.height, self._grid.width))

    @property
    def levels(self) -> int:
        """The number of its levels, when it is entered."""
        return len(self._levels)

    @property
    def cyclic(self) -> tuple[bool, bool]:
        """Whether the picture closes on itself (vertically, horizontally)."""
        return self._settings.cyclic

    def hand_over(self, halve: Callable[[int, int], bool]) -> Path:
        """Let others write the shards, when the canvas is entered: all of level 0, and of other levels what they want.

        Args:
            halve: is told a level and its number of shards, when the level above is there. It writes the level, or says
                with False that the canvas shall. Others make what they write durable.
        Returns:
            the unfinished folder, with the arrays of all levels.
        """
        self._others = halve
        self._folder.durable = True
        for path in [self._root, *(self._root / str(k) for k in range(len(self._levels)))]:
            sync(path / "zarr.json")
            sync(path)
        return self._root

    def adopt(self, tiles: int) -> None:
        """Count the next tiles, whose shards others have written."""
        self._written += tiles
        if self._journal is not None and self._journal.due(self._written):
            self._journal.note(self._written)

    def _begin(self) -> None:
        root = self._folder.open(**self._how)
        sizes = list(_sizes(self._grid.height, self._grid.width))
        known = {"cyclic": [bool(axis) for axis in self._settings.cyclic], **self._settings.metadata}
        attributes = {"ome": _ome(self._output.path.stem, len(sizes)), "zellige": known}
        with output_errors(self._output.path):
            if self._how["resume"]:
                self._sweep(root)
                try:
                    self._levels = open_levels(root, len(sizes), self.seconds)
                except (OSError, ValueError, KeyError, TypeError):  # JSON that is not zarr's
                    raise self.unresumable("has metadata that cannot be read") from None
            else:
                self._levels = _arrays(root, sizes, self.tile, self._settings.compression, attributes, self.seconds)
            if self._journal is not None:
                for path in [root, *(root / str(k) for k in range(len(sizes)))]:
                    sync(path / "zarr.json")
                    sync(path)
        self._root = root
        self._encoder = Encoder(self._output.path, self.tile, self._encode, self._drain, self.seconds)

    def _take(self, tile: Pixels, top: int, left: int) -> None:
        self._encoder.put(tile, top, left)

    def _encode(self, tile: Pixels, place: Region) -> None:
        pixels = np.moveaxis(tile[: place.height, : place.width], 2, 0)
        self._levels[0][:, place.top : place.top + place.height, place.left : place.left + place.width] = pixels

    def _drain(self, results: Iterator[None]) -> None:
        durable = count = self.done
        for _ in results:
            count += 1
            if self._journal is not None and self._journal.due(count):
                sync_shards(self._root, 0, range(durable, count), self._grid.columns)
                self._journal.note(count)
                durable = count

    def _keep(self, older: Finished, index: int) -> None:
        if self._kept is None:
            self._kept = Kept(older.path, self._root, [level.shape[1:] for level in self._levels], self.tile)
        self._kept.copy(0, index)

    def _shard(self, root: Path, index: int) -> Path:
        """The file of a tile."""
        return shard_of(root, 0, index, self._grid.columns)

    def _sweep(self, root: Path) -> None:
        """Remove all shards but those that the journal counts: the others may be half written, and are made again."""
        for folder, _, files in os.walk(root):
            for name in files:
                if name != "zarr.json" and not self._is_done(Path(folder, name).relative_to(root).parts):
                    Path(folder, name).unlink()
        if not all(self._shard(root, k).is_file() for k in range(self.done)):
            raise self.unresumable("does not hold the tiles that its journal counts")

    def _is_done(self, parts: tuple[str, ...]) -> bool:
        if len(parts) != 5 or parts[:3] != ("0", "c", "0") or not (parts[3] + parts[4]).isdecimal():
            return False
        return int(parts[3]) * self._grid.columns + int(parts[4]) < self.done

    def _finish(self) -> None:
        self._encoder.finish()
        with output_errors(self._output.path):
            for number, level in enumerate(self._levels[1:], 1):
                grid = grid_of(level)
                if self._others is None:
                    self._halve(number, grid.tiles)
                elif not self._others(number, grid.tiles):
                    above = grid_of(self._levels[number - 1])
                    require_shards(self._root, number - 1, range(above.tiles), above.columns)
                    self._halve(number, grid.tiles)
                    sync_shards(self._root, number, range(grid.tiles), grid.columns)
            if self._others is not None:
                self._tidy()

    def _halve(self, number: int, shards: int) -> None:
        """Write a level, shard by shard, from the finished one above."""
        above, level = self._levels[number - 1 : number + 1]
        kept = None if self._kept is None else self._kept.of_level(number, self._settings.cyclic)

        def shard(index: int) -> None:
            if kept is not None and self._kept is not None and kept[index]:
                self._kept.copy(number, index)
                return
            began = time.perf_counter()
            halve_shard(above, level, index, self._settings.cyclic)
            self.seconds.add(encode=time.perf_counter() - began)

        in_threads(shard, shards)

    def _tidy(self) -> None:
        """Remove what writers that were killed have left beside the shards."""
        for folder, _, files in os.walk(self._root):
            for name in files:
                if name != "zarr.json" and not name.isdecimal():
                    Path(folder, name).unlink(missing_ok=True)

    def _abandon(self) -> None:
        self._encoder.abandon()
        self._levels = []


def is_canvas(folder: Path) -> bool:
    """Whether a folder holds a picture that this class wrote, and nothing else."""
    try:
        written = json.loads((folder / "zarr.json").read_bytes())["attributes"]["zellige"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return isinstance(written, dict) and all(
        entry.name == "zarr.json" or entry.name.isdecimal() for entry in folder.iterdir()
    )


def _sizes(height: int, width: int) -> Iterator[tuple[int, int]]:
    yield height, width
    while max(height, width) > _SMALLEST_LEVEL:
        height, width = -(-height // 2), -(-width // 2)
        yield height, width


def _ome(name: str, levels: int) -> dict[str, Any]:
    """The metadata of OME-Zarr 0.5, in pixels of level 0: a pixel's place is its centre.

    The scale is 2^k even if a side is odd, because every pixel of level k has the width of 2^k pixels.
    """
    datasets = [
        {
            "path": str(k),
            "coordinateTransformations": [
                {"type": "scale", "scale": [1.0, 2.0**k, 2.0**k]},
                {"type": "translation", "translation": [0.0, (2.0**k - 1) / 2, (2.0**k - 1) / 2]},
            ],
        }
        for k in range(levels)
    ]
    axes = [{"name": "c", "type": "channel"}, {"name": "y", "type": "space"}, {"name": "x", "type": "space"}]
    channels = [
        {"label": label, "color": colour, "active": True, "window": {"min": 0, "max": 255, "start": 0, "end": 255}}
        for label, colour in (("red", "FF0000"), ("green", "00FF00"), ("blue", "0000FF"))
    ]
    return {
        "version": "0.5",
        "multiscales": [{"name": name, "axes": axes, "datasets": datasets, "type": "mean of 2x2"}],
        "omero": {"channels": channels, "rdefs": {"model": "color"}},
    }


def _arrays(
    root: Path,
    sizes: list[tuple[int, int]],
    tile: tuple[int, int],
    compression: str,
    attributes: dict[str, Any],
    seconds: Seconds,
) -> list[Any]:
    """Create the group and its arrays in an empty folder."""
    import zarr
    from zarr.codecs import Crc32cCodec, ZstdCodec

    group = zarr.create_group(timed_store(root, seconds), attributes=attributes)
    packed = (ZstdCodec(level=_ZSTD_LEVEL),) if compression == "zstd" else ()
    return [
        group.create_array(
            str(k),
            shape=(3, height, width),
            dtype="uint8",
            chunks=(3, *map(_chunk, tile)),
            shards=(3, *tile),
            compressors=(*packed, Crc32cCodec()),
            filters=None,
            fill_value=0,
            dimension_names=("c", "y", "x"),
            config=CONFIG,
        )
        for k, (height, width) in enumerate(sizes)
    ]


def _chunk(side: int) -> int:
    """The largest divisor of a shard's side, which is a multiple of 16, that is no larger than a chunk may be."""
    return next(chunk for chunk in range(min(side, _LARGEST_CHUNK), 0, -1) if side % chunk == 0)
