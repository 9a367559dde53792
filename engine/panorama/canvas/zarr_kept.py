"""The shards of a Zarr that are copied from an older picture, on all levels."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zellige.errors import DataError

__all__ = ["Kept", "shard_of"]

Flags = NDArray[np.bool_]


class Kept:
    """Copies shards, byte by byte, and knows on every level the ones whose pixels all come from copies.

    Args:
        older: the folder of the older picture.
        root: the folder of the new one.
        sizes: height and width of every level.
        tile: height and width of a shard.
    Raises:
        DataError: the older picture is laid out otherwise, so that its shards would be read wrongly.
    """

    def __init__(self, older: Path, root: Path, sizes: list[tuple[int, int]], tile: tuple[int, int]) -> None:
        self._older, self._root, self._sizes = older, root, sizes
        self._shards = [(math.ceil(height / tile[0]), math.ceil(width / tile[1])) for height, width in sizes]
        self._kept: Flags = np.zeros(self._shards[0], bool)
        for level in range(len(sizes)):
            if _layout(older, level) != _layout(root, level):
                raise DataError(f"{older} was written by a version that lays out its levels otherwise; render it again")

    def copy(self, level: int, index: int) -> None:
        """Copy a shard; those of level 0 come before all others.

        Raises:
            DataError: the older picture lacks it.
        """
        columns = self._shards[level][1]
        target = shard_of(self._root, level, index, columns)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(shard_of(self._older, level, index, columns), target)
        except FileNotFoundError:
            raise DataError(f"{self._older} is damaged: it lacks shard {index} of level {level}") from None
        if level == 0:
            self._kept.flat[index] = True

    def of_level(self, level: int, cyclic: tuple[bool, bool]) -> Flags:
        """Whether the older picture's shards of a level are those of the new one, in row-major order.

        Args:
            level: its number, which grows by one from call to call, from 1 on.
            cyclic: whether the picture closes on itself (vertically, horizontally).
        """
        kept = self._kept
        (rows, columns), (height, width) = self._shards[level], self._sizes[level - 1]
        whole = np.ones((2 * rows, 2 * columns), bool)
        whole[: kept.shape[0], : kept.shape[1]] = kept
        self._kept = np.logical_and.reduce(whole.reshape(rows, 2, columns, 2), axis=(1, 3))
        # At an odd side the last pixel's partner is the first one.
        if cyclic[0] and height % 2:
            self._kept[-1] &= _halved(kept[0], columns)
        if cyclic[1] and width % 2:
            self._kept[:, -1] &= _halved(kept[:, 0], rows)
        if all(cyclic) and height % 2 and width % 2:
            self._kept[-1, -1] &= kept[0, 0]
        return self._kept.ravel()


def shard_of(root: Path, level: int, index: int, columns: int) -> Path:
    """The file of a shard."""
    return root / str(level) / "c" / "0" / str(index // columns) / str(index % columns)


def _halved(kept: Flags, count: int) -> Flags:
    """Whether both of each two neighbours are kept."""
    whole = np.ones(2 * count, bool)
    whole[: len(kept)] = kept
    halved: Flags = whole[::2] & whole[1::2]
    return halved


def _layout(root: Path, level: int) -> Any:
    try:
        return json.loads((root / str(level) / "zarr.json").read_bytes())
    except (OSError, ValueError):
        return None
