"""Checks that images have no NaN, because a NaN would become a black byte and look like a picture."""

import torch
from torch import Tensor

from zellige.errors import ValuesError

__all__ = ["require_finite"]


def require_finite(images: Tensor, name: str) -> None:
    """Refuse maps or images with a NaN or an infinite value, in one pass; on CUDA this waits for the device.

    Args:
        images: a floating tensor of any shape, on any device.
        name: the name of the model that made the images, for the error.
    Raises:
        ValuesError: a value is NaN or infinite.
    """
    # A NaN becomes both minimum and maximum. A sum would show it too, but may overflow float16.
    if images.numel() and not torch.stack(torch.aminmax(images)).isfinite().all():
        raise ValuesError(
            f"{name} gives values that are no numbers; its weights are damaged, or too large for "
            f"{str(images.dtype).removeprefix('torch.')}: get the model again, or load it with precision='fp32'"
        )
