"""Latents that a caller gives, in any form, checked before they reach the generator."""

from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from zellige.errors import ShapeError, ValuesError

__all__ = ["checked_latents"]

_ROUNDING = 1e-6  # the excess over [-1, 1] that a latent may have


def checked_latents(given: npt.ArrayLike | Tensor, length: int) -> npt.NDArray[Any]:
    """Latents as an array.

    Args:
        given: [n, length] in [-1, 1], n >= 1: an array, a tensor or nested lists.
        length: the length of the model's latents.
    Raises:
        ShapeError: they have another shape, or are no real numbers.
        ValuesError: a value is not finite, or outside of the cube [-1, 1] that generators are trained with.
    """
    latents = _numbers(given)
    if latents.ndim != 2 or latents.shape[1] != length:
        raise ShapeError(f"latents must be [n, {length}], not {list(latents.shape)}")
    if not len(latents):
        raise ShapeError("there are no latents; give one or more")
    furthest = float(np.abs(latents).max())
    if not furthest <= 1 + _ROUNDING:  # true of NaN too
        reason = f"reach {furthest:g}" if np.isfinite(furthest) else "hold values that are not finite"
        raise ValuesError(f"latents must be within [-1, 1], as in training; those given {reason}")
    return latents


def _numbers(given: npt.ArrayLike | Tensor) -> npt.NDArray[Any]:
    try:
        array = np.asarray(given.detach().cpu().float() if isinstance(given, Tensor) else given)
    except ValueError:  # rows of several lengths
        array = np.empty(0, object)
    if array.dtype.kind not in "fiu":
        raise ShapeError(f"latents are real numbers, in an array, a tensor or nested lists; got {type(given).__name__}")
    return array
