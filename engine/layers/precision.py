"""Which layers of a network run in bfloat16 or float16, where nearly all of the work is."""

from typing import TypeVar

import torch
from torch import nn

from .norms import MapNorm

__all__ = ["cast_maps"]

Network = TypeVar("Network", bound=nn.Module)
# Layers that make or normalise maps, subclasses included. Linear layers, batch norms and codes stay in float32:
# bfloat16 cannot tell neighbouring angles of a coordinate apart.
_OF_MAPS = (nn.Conv2d, nn.ConvTranspose2d, MapNorm)


def cast_maps(network: Network, dtype: torch.dtype) -> Network:
    """Let the layers of a network that make maps compute in a dtype; everything else stays as it is.

    Args:
        network: trained; it is changed.
        dtype: float32, bfloat16 or float16.
    Returns:
        the network.
    """
    for part in network.modules():
        if isinstance(part, _OF_MAPS):
            part.to(dtype)
    return network
