"""The levels of an unfinished Zarr: opens them, and makes single shards durable or out of those of the level above."""

import socket
import time
from collections.abc import Iterable, Iterator
from itertools import chain, product
from pathlib import Path
from typing import Any

import numpy as np

from zellige.errors import OutputError

from ...files.atomic import sync
from .canvas import Grid, Pixels
from .encode import Seconds
from .zarr_kept import shard_of

__all__ = ["CONFIG", "grid_of", "halve_shard", "open_levels", "require_shards", "sync_shards", "timed_store"]

CONFIG = {"write_empty_chunks": True}


def open_levels(root: Path, levels: int, seconds: Seconds) -> list[Any]:
    """Open the arrays of an unfinished picture for writing.

    Args:
        root: the folder.
        levels: their number.
        seconds: the time of writing is added here.
    Raises:
        OSError, ValueError, KeyError, TypeError: the folder holds JSON that is not zarr's.
    """
    import zarr

    store = timed_store(root, seconds)
    # `open_array` takes a configuration too, and ignores it if the array exists: black shards were left out.
    return [zarr.open_array(store, path=str(k), mode="r+").with_config(CONFIG) for k in range(levels)]


def timed_store(root: Path, seconds: Seconds) -> Any:
    """A folder as a store of zarr; the time of writing is added to `seconds.write`, and taken off `encode`."""
    from zarr.storage import LocalStore

    class TimedStore(LocalStore):  # type: ignore[misc]  # zarr is untyped where it is not installed
        async def set(self, key: str, value: Any) -> None:
            began = time.perf_counter()
            await super().set(key, value)
            spent = time.perf_counter() - began
            seconds.add(encode=-spent, write=spent)  # the thread that encodes waits for it

    return TimedStore(root)


def grid_of(level: Any) -> Grid:
    """A level and its shards."""
    return Grid(level.shape[1], level.shape[2], level.shards[1:])


def halve_shard(above: Any, level: Any, index: int, cyclic: tuple[bool, bool]) -> None:
    """Write a shard of a level from the finished level above.

    Args:
        above, level: arrays of zarr, [3, H, W] and [3, ceil(H / 2), ceil(W / 2)].
        index: the number of the shard, in row-major order.
        cyclic: whether the picture closes on itself (vertically, horizontally).
    """
    grid = grid_of(level)
    (top, left), (high, wide, _) = grid.origin(index), grid.shape(index)
    pixels = np.empty((3, high, wide), np.uint8)
    # A quarter is one shard of the level above. Reading all four at once would take twice the memory.
    down, across = (range(0, side, step // 2) for side, step in zip((high, wide), grid.tile, strict=True))
    for row, column in product(down, across):
        quarter = pixels[:, row : row + grid.tile[0] // 2, column : column + grid.tile[1] // 2]
        ends = row + quarter.shape[1], column + quarter.shape[2]
        rows, columns = (2 * (top + row), 2 * (top + ends[0])), (2 * (left + column), 2 * (left + ends[1]))
        quarter[:] = _halved(_window(above, rows, columns, cyclic))
    level[:, top : top + high, left : left + wide] = pixels


def require_shards(root: Path, level: int, indices: Iterable[int], columns: int) -> None:
    """Refuse to read shards that are not there, because zarr reads a missing one as zeros.

    Args:
        root, level, indices, columns: as of `sync_shards`.
    Raises:
        OutputError: a shard is missing.
    """
    for index in indices:
        shard = shard_of(root, level, index, columns)
        if not shard.is_file():
            raise OutputError(
                f"{shard} is not seen on {socket.gethostname()}, though another process has written it; the folder "
                "must be shared by all of them."
            )


def sync_shards(root: Path, level: int, indices: range, columns: int) -> None:
    """Make shards durable, with the names in the folders of their rows and above.

    Args:
        root: the folder of the picture.
        level: the number of the level.
        indices: the numbers of the shards, in row-major order.
        columns: shards in a row of the level.
    """
    shards = [shard_of(root, level, k, columns) for k in indices]
    for path in chain(shards, *_folders(shards)):
        sync(path)


def _folders(shards: list[Path]) -> Iterator[list[Path]]:
    """The folders whose names must be durable with those of new shards: of the row, and of the rows."""
    for above in (0, 1, 2, 3):
        yield sorted({path.parents[above] for path in shards})


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
