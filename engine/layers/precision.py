"""Casts the layers of a network that do nearly all of its work to bfloat16 or float16."""

from typing import Any, TypeVar

import torch
from torch import nn

from .norms import MapNorm

__all__ = ["cast_maps"]

Network = TypeVar("Network", bound=nn.Module)
# Layers that make or normalise maps, subclasses included. Linear layers, batch norms and codes stay in float32, because
# bfloat16 cannot tell neighbouring angles of a coordinate apart.
_OF_MAPS = (nn.Conv2d, nn.ConvTranspose2d, MapNorm)


def cast_maps(network: Network, dtype: torch.dtype) -> Network:
    """Cast the layers of a network that make or normalise maps; all other layers keep their dtype.

    Args:
        network: a trained network, which is changed.
        dtype: float32, bfloat16 or float16.
    Returns:
        the same network.
    """
    part: Any
    for part in network.modules():
        if isinstance(part, _OF_MAPS):
            part.to(dtype)
        if hasattr(part, "cast_maps"):  # a network that begins with a map of its own
            part.cast_maps(dtype)
    return network
