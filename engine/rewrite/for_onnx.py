"""The forms of layers that a graph is written with, for whatever runs it.

A graph does not know its machine, and the same model must give the same file, so nothing is measured: the forms are
those of standard operators that were faster in ONNX Runtime 1.31 on 2 cores with AVX-512, fp32, batches 1 and 8.

| layer | form | time of the trained layer over its own |
|---|---|---|
| up-convolution of 128 channels or more | transposed | 1.3 to 1.9 zero-padded, 0.95 to 1.5 replicated |
| up-convolution of fewer | as trained | phases 0.89 to 1.7, transposed 0.83 to 1.7, and below 1 at batch 8 |
| in bfloat16 | as trained | TensorRT-RTX 1.7 builds no transposed ones |
| convolution with constant channels | constant channels | 1.06 to 1.6; once 0.62 at batch 1 |
"""

import torch
from torch import nn

from ..layers.convolutions import CodedConv, UpConv
from .constant_channels import constant_channels
from .convolution import plain
from .up_conv import up_conv

__all__ = ["rewrite_for_graphs"]

_WIDE = 128  # channels


def rewrite_for_graphs(network: nn.Module) -> None:
    """Put the forms for graphs in the place of a network's layers.

    Args:
        network: trained, in evaluation, in the precision of the graph; it is changed.
    """
    for part in list(network.modules()):
        for name, layer in part.named_children():
            if isinstance(layer, CodedConv):
                setattr(part, name, constant_channels(plain(layer), layer.code))
            elif isinstance(layer, UpConv) and _gains(layer):
                setattr(part, name, up_conv(plain(layer), "transposed"))


def _gains(layer: UpConv) -> bool:
    built = layer.weight.dtype != torch.bfloat16
    return built and layer.mode == "nearest" and not layer.spare and layer.in_channels >= _WIDE
