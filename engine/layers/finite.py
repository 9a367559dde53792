"""A check that images are numbers: a NaN would become a black byte, which looks like a picture."""

import torch
from torch import Tensor

from zellige.errors import ValuesError

__all__ = ["require_finite"]


def require_finite(images: Tensor, name: str) -> None:
    """Refuse maps or images with a NaN or an infinite value, in one pass; a CUDA device is waited for.

    Args:
        images: floating, of any shape and device.
        name: of the model that made them, for the error.
    Raises:
        ValuesError: a value is NaN or infinite.
    """
    # A NaN becomes both ends. A sum would tell as much, but float16 cannot hold it.
    if images.numel() and not torch.stack(torch.aminmax(images)).isfinite().all():
        wider = "" if images.dtype == torch.float32 else ", or load it with precision='fp32'"
        raise ValuesError(
            f"{name} gives values that are no numbers; its weights are damaged, or too large for "
            f"{str(images.dtype).removeprefix('torch.')}: get the model again{wider}"
        )
