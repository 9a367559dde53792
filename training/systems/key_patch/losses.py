"""The losses of key patches, each a pure function of tensors to a scalar. Source: the paper, equations 1 to 6."""

import math
from typing import Literal

from torch import Tensor

__all__ = ["L1", "appearance", "composite", "faded", "norm", "spatial"]

L1 = Literal["image", "batch", "pixel", "element"]


def composite(inside: Tensor, outside: Tensor, mask: Tensor) -> Tensor:
    """M o a + (1 - M) o b of images [N, 3, H, W] under masks [N, 1, H, W]."""
    return inside * mask + outside * (1 - mask)


def norm(difference: Tensor, kind: L1) -> Tensor:
    """The L1 norm of [N, C, H, W], by one of four measures.

    Args:
        difference: of two maps.
        kind: "image", the sum over an image and the mean over the batch, an expectation of a norm taken literally;
            "batch", the sum over everything, as in the code; "pixel", the sum over channels and the mean over pixels
            and batch; "element", the mean over everything. For L_A the last two differ by its three channels.
    """
    total = difference.abs().sum()
    number, _, height, width = difference.shape
    parts = {"image": number, "batch": 1, "pixel": number * height * width, "element": difference.numel()}
    return total / parts[kind]


def spatial(mask: Tensor, union: Tensor, kind: L1) -> Tensor:
    """L_S = |G_M(x) - M|: the predicted masks are the union of the boxes, [N, 1, H, W] each."""
    return norm(mask - union, kind)


def appearance(image: Tensor, mask: Tensor, real: Tensor, union: Tensor, kind: L1) -> Tensor:
    """L_A = |G_I(x) o G_M(x) - y o M|: under the predicted mask are the patches, where they are in the real image.

    Gradients flow into image and mask.

    Args:
        image, real: [N, 3, H, W].
        mask, union: [N, 1, H, W].
        kind: as of `norm`.
    """
    return norm(image * mask - real * union, kind)


def faded(ends: tuple[float, float], epoch: int, epochs: int) -> float:
    """The weight of a loss in an epoch, from 1 to `epochs`: log-spaced between both ends; 0 if either end is 0."""
    first, last = ends
    if not first or not last:
        return 0.0
    share = (epoch - 1) / max(1, epochs - 1)
    return math.exp(math.log(first) + share * (math.log(last) - math.log(first)))
