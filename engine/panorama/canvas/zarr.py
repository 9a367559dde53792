"""Writes Zarr v3 in whole shards, with the levels and the metadata of OME-Zarr 0.5."""

import json
import math
import os
import time
from collections.abc import Iterator
from itertools import chain, product
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

__all__ = ["ZarrCanvas"]

_LARGEST_CHUNK = 256
_ZSTD_LEVEL = 3
_CONFIG = {"write_empty_chunks": True}
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
        super().__init__(self._folder, grid, settings, _TILES_A_WORKER * WORKERS * math.prod(grid.tile) * 3)

    def _begin(self) -> None:
        root = self._folder.open(**self._how)
        sizes = list(_sizes(self._grid.height, self._grid.width))
        known = {"cyclic": [bool(axis) for axis in self._settings.cyclic], **self._settings.metadata}
        attributes = {"ome": _ome(self._output.path.stem, len(sizes)), "zellige": known}
        with output_errors(self._output.path):
            if self._how["resume"]:
                self._sweep(root)
                try:
                    self._levels = _opened(root, len(sizes), self.seconds)
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
                shards = [self._shard(self._root, k) for k in range(durable, count)]
                for path in chain(shards, *_folders(shards)):
                    sync(path)
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
            for number in range(1, len(self._levels)):
                self._halve(number)

    def _halve(self, number: int) -> None:
        """Write a level, shard by shard, from the finished one above."""
        above, level = self._levels[number - 1 : number + 1]
        _, height, width = level.shape
        grid = Grid(height, width, level.shards[1:])
        kept = None if self._kept is None else self._kept.of_level(number, self._settings.cyclic)

        def shard(index: int) -> None:
            if kept is not None and self._kept is not None and kept[index]:
                self._kept.copy(number, index)
                return
            began = time.perf_counter()
            (top, left), (high, wide, _) = grid.origin(index), grid.shape(index)
            pixels = np.empty((3, high, wide), np.uint8)
            # A quarter is one shard of the level above. Reading all four at once would take twice the memory.
            down, across = (range(0, side, step // 2) for side, step in zip((high, wide), grid.tile, strict=True))
            for row, column in product(down, across):
                quarter = pixels[:, row : row + grid.tile[0] // 2, column : column + grid.tile[1] // 2]
                ends = row + quarter.shape[1], column + quarter.shape[2]
                rows, columns = (2 * (top + row), 2 * (top + ends[0])), (2 * (left + column), 2 * (left + ends[1]))
                quarter[:] = _halved(_window(above, rows, columns, self._settings.cyclic))
            level[:, top : top + high, left : left + wide] = pixels
            self.seconds.add(encode=time.perf_counter() - began)

        in_threads(shard, grid.tiles)

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

    group = zarr.create_group(_store(root, seconds), attributes=attributes)
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
            config=_CONFIG,
        )
        for k, (height, width) in enumerate(sizes)
    ]


def _opened(root: Path, levels: int, seconds: Seconds) -> list[Any]:
    """Open the arrays of an unfinished picture."""
    import zarr

    store = _store(root, seconds)
    # `open_array` takes a configuration too, and ignores it if the array exists: black shards were left out.
    return [zarr.open_array(store, path=str(k), mode="r+").with_config(_CONFIG) for k in range(levels)]


def _store(root: Path, seconds: Seconds) -> Any:
    from zarr.storage import LocalStore

    class TimedStore(LocalStore):  # type: ignore[misc]  # zarr is untyped where it is not installed
        async def set(self, key: str, value: Any) -> None:
            began = time.perf_counter()
            await super().set(key, value)
            spent = time.perf_counter() - began
            seconds.add(encode=-spent, write=spent)  # the thread that encodes waits for it

    return TimedStore(root)


def _folders(shards: list[Path]) -> Iterator[list[Path]]:
    """The folders whose names must be durable with those of new shards: of the row, and of the rows."""
    for level in (0, 1, 2, 3):
        yield sorted({path.parents[level] for path in shards})


def _chunk(side: int) -> int:
    """The largest divisor of a shard's side, which is a multiple of 16, that is no larger than a chunk may be."""
    return next(chunk for chunk in range(min(side, _LARGEST_CHUNK), 0, -1) if side % chunk == 0)


def _window(level: Any, rows: tuple[int, int], columns: tuple[int, int], cyclic: tuple[bool, bool]) -> Pixels:
    """Pixels [3, h, w] of a level; the window may reach one row or column beyond its end."""
    _, height, width = level.shape
    inside = slice(rows[0], min(rows[1], height))
    pixels: Pixels = level[:, inside, columns[0] : min(columns[1], width)]
    if columns[1] > width:
        pixels = np.concatenate([pixels, level[:, inside, :1] if cyclic[1] else pixels[:, :, -1:]], axis=2)
    if rows[1] > height:
        beyond = _window(level, (0, 1), columns, cyclic) if cyclic[0] else pixels[:, -1:]
        pixels = np.concatenate([pixels, beyond], axis=1)
    return pixels


def _halved(pixels: Pixels) -> Pixels:
    """Rounded means of 2 x 2 pixels, [3, 2h, 2w] to [3, h, w]."""
    sums = pixels[:, ::2, ::2].astype(np.uint16)
    for row, column in list(product((0, 1), repeat=2))[1:]:
        sums += pixels[:, row::2, column::2]
    sums += 2
    sums >>= 2
    return sums.astype(np.uint8)
