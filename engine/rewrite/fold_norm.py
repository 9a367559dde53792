"""Folds a batch norm at inference into the layer before it.

With the running statistics the norm is linear, y = g (x - mean) / sqrt(var + eps) + b = scale x + shift, and so is the
layer before it: scale (W * x + c) + shift = (scale W) * x + (scale c + shift).

This saves one pass over the map, K H W multiplications in a sample. It is exact, except that the folded weights are
rounded once more in their own dtype. It never loses. The norm cannot go into the layer after it, because that layer's
zero padding is not normalised.

Networks of convolutions and transposed convolutions, each with a batch norm, use it. Conditional batch norms cannot,
because their scales differ between samples, nor can a norm that follows a sum of two layers.
"""

from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from zellige.errors import ShapeError

from ..layers.convolutions import JoinedConvTranspose2d
from .convolution import require_plain
from .fold_weight import fold_weight

__all__ = ["fold_norm", "fold_norms"]

_BEFORE = (nn.Conv2d, nn.ConvTranspose2d, JoinedConvTranspose2d)
Layer = TypeVar("Layer", nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


@torch.no_grad()
def fold_norm(layer: Layer, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> Layer:
    """Fold a batch norm into the layer whose result it normalises.

    Args:
        layer: a convolution, transposed convolution or linear layer with any padding, stride and groups; not changed.
        norm: a batch norm with running statistics over the layer's K outputs; not changed.
    Returns:
        A layer of the same class and dtype, with a bias, that computes the layer and the norm.
    Raises:
        ShapeError: the layer is of another class, or the norm has another number of channels or no running statistics.
    """
    require_plain(layer, nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    scale, shift = _factors(norm)
    folded: Any = fold_weight(layer)
    outputs = folded.out_features if isinstance(folded, nn.Linear) else folded.out_channels
    if len(scale) != outputs:
        raise ShapeError(f"The norm has {len(scale)} channels; it must have the layer's {outputs}.")
    weight = folded.weight.double()
    if isinstance(folded, nn.ConvTranspose2d):  # [C, K / groups, R, R], the groups along C
        by_group = scale.view(folded.groups, 1, -1, 1, 1)
        weight = (weight.unflatten(0, (folded.groups, -1)) * by_group).flatten(0, 1)
    else:
        weight = weight * scale.view(-1, *[1] * (weight.dim() - 1))
    bias = shift if folded.bias is None else scale * folded.bias.double() + shift
    for name, value in (("weight", weight), ("bias", bias)):
        value = value.to(folded.weight.dtype, memory_format=torch.preserve_format)
        setattr(folded, name, nn.Parameter(value, requires_grad=False))
    plain: Layer = folded
    return plain


def fold_norms(network: nn.Module) -> None:
    """Fold every batch norm that follows a layer in an `nn.Sequential`, where nothing else can take the layer's result.

    Args:
        network: trained, in evaluation; it is changed, and a folded norm leaves the sequence.
    """
    for part in network.modules():
        if type(part) is not nn.Sequential:
            continue
        steps: list[Any] = []
        for step in part:
            if type(step) is nn.BatchNorm2d and steps and type(steps[-1]) in _BEFORE:
                steps[-1] = fold_norm(steps[-1], step)
            else:
                steps.append(step)
        if len(steps) < len(part):
            del part[:]
            part.extend(steps)


def _factors(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Scale and shift in float64."""
    require_plain(norm, nn.BatchNorm1d, nn.BatchNorm2d)
    if norm.running_mean is None or norm.running_var is None:
        raise ShapeError("The norm has no running statistics; it must be made with track_running_stats=True.")
    scale = torch.rsqrt(norm.running_var.double() + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = -scale * norm.running_mean.double()
    return scale, shift if norm.bias is None else shift + norm.bias.double()
