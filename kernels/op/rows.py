"""Values that are given for some places of an axis, and lie on straight lines between them.

Place i of the axis is at p = (first + i + 1/2) / every - 1/2 among those that are given: `every` places lie between the
middles of two of them. Its value is the one at floor(p), plus the fraction of p times the difference to the next one.
"""

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zellige.errors import ShapeError

__all__ = ["between", "places", "require_between"]


def between(values: Tensor, axis: int, count: int, every: int, first: int) -> Tensor:
    """Return values at `count` places of an axis. One given value stays one.

    The product and the sum are rounded one after the other, so that a value has the same bits wherever an axis begins.
    """
    if values.shape[axis] == 1:
        return values
    if every == 1:  # every place is a given one
        return values.narrow(axis, first, count)
    before, share = places(values, count, every, first)
    share = share.view(-1, *[1] * (values.dim() - axis - 1))
    here = values.index_select(axis, before)
    between = values.index_select(axis, (before + 1).clamp(max=values.shape[axis] - 1))
    between = between.sub_(here).mul_(share).add_(here)  # in place, because factors of fine maps are large
    # Places are given ones only if `every` is odd. There 0 times infinity would be NaN.
    return torch.where(share == 0, here, between) if every % 2 else between


def places(like: Tensor, count: int, every: int, first: int) -> tuple[Tensor, Tensor]:
    """Return for each place the number of the given one before it, int64 [count], and the share of the next, [count].

    Args:
        like: gives the shares' dtype and device.
        count, every, first: as of `between`.
    """
    wide = like.dtype == torch.float64
    before, share = (torch.from_numpy(numbers).to(like.device) for numbers in _numbers(count, every, first, wide))
    return before, share.to(like.dtype)


@lru_cache(maxsize=1024)  # a strip asks for the same ones at every level, and a dozen small operators take a while
def _numbers(count: int, every: int, first: int, wide: bool) -> tuple[NDArray[np.int64], NDArray[Any]]:
    before, rest = np.divmod(2 * np.arange(count) + (2 * first + 1 - every), 2 * every)
    dtype = np.float64 if wide else np.float32
    return before, np.divide(rest.astype(dtype), 2 * every, dtype=dtype)  # rounded once


def require_between(name: str, given: int, count: int, every: int, first: int) -> None:
    """Refuse places that lie before the first given one or behind the last.

    Args:
        name: of the argument whose rows are given.
        given: number of its rows.
        count, every, first: as of `between`.
    Raises:
        ShapeError: a place lies outside.
    """
    if every < 1:
        raise ShapeError(f"every is {every}; it must be at least 1.")
    low, high = 2 * first + 1 - every, 2 * (first + count) - 1 - every  # in 1 / (2 every)
    if given > 1 and count > 0 and (low < 0 or high > 2 * every * (given - 1)):
        raise ShapeError(
            f"rows lie at {low / (2 * every):g} to {high / (2 * every):g} for every = {every} and first = {first}; "
            f"they must lie from 0 to {given - 1}, the rows of {name}."
        )
