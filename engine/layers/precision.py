"""Networks whose maps are in one precision, and all else in float32."""

import torch
from torch import nn

from .norms import MapNorm

__all__ = ["cast_maps"]

_LAYERS = (nn.Conv2d, nn.ConvTranspose2d, MapNorm)


def cast_maps(network: nn.Module, dtype: torch.dtype) -> None:
    """Run a network's convolutions and the norms behind them in `dtype`; codes and conditions stay in float32."""
    for layer in network.modules():
        if isinstance(layer, _LAYERS):
            layer.to(dtype)
