"""Folds spectral norm and gains into the weight.

W' = W / sigma(W), or W' = gain W for layers of equalised learning rate. It is exact but for one rounding of W'.

This saves the work that the parametrisation does on the weight in every call. Spectral norm takes K C R^2 divisions
and as many multiplications for sigma = u^T W v, 4.7 million for a 3x3 layer of 512 to 512 channels. A gain takes
K C R^2 multiplications. At inference it never loses. In training the weight changes between calls, so there is nothing
to fold.

`plain_state` of engine/layers/spectral.py does the same for the checkpoint of a whole network.
"""

import copy
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.utils import parametrize

from zellige.errors import ShapeError

__all__ = ["fold_weight"]

Layer = TypeVar("Layer", bound=nn.Conv2d | nn.ConvTranspose2d | nn.Linear)


@torch.no_grad()
def fold_weight(layer: Layer, gain: float = 1.0, bias_gain: float = 1.0) -> Layer:
    """Copy a layer with its parametrisations evaluated and its gains multiplied in.

    W' = gain W / sigma(W), b' = bias_gain b, computed in float64 and cast to the layer's dtype.

    Args:
        layer: a convolution or linear layer; its spectral norm is evaluated as in evaluation mode and not updated.
        gain: the factor of the weight, such as 1 / sqrt(fan in).
        bias_gain: the factor of the bias, such as the learning rate multiplier.
    Returns:
        A layer of the same class in evaluation mode, without gradients. With gains it is of torch's own class, because
        a subclass would multiply by the gains again.
    Raises:
        ShapeError: the layer is of another class, or has forward hooks, as torch's first spectral norm has.
    Source: Miyato et al. 2018 (spectral norm); Karras et al. 2018 (equalised learning rate).
    """
    kinds: tuple[Any, ...] = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    kind = next((kind for kind in kinds if isinstance(layer, kind)), None)
    if kind is None:
        names = ", ".join(f"nn.{kind.__name__}" for kind in kinds)
        raise ShapeError(f"The layer is {type(layer).__name__}; it must be one of {names}.")
    if layer._forward_hooks or layer._forward_pre_hooks:
        raise ShapeError(f"The layer {type(layer).__name__} has forward hooks, which would be lost; remove them first.")
    dtype = next(layer.parameters()).dtype  # not layer.weight, because reading it updates a spectral norm in training
    folded: Any = copy.deepcopy(layer).eval().double()
    if parametrize.is_parametrized(folded):
        values = {name: getattr(folded, name).detach() for name in folded.parametrizations}
        # Not remove_parametrizations, which would delete the property of the class that the trained layer shares.
        del folded.parametrizations
        folded.__class__ = parametrize.type_before_parametrizations(layer)
        for name, value in values.items():
            setattr(folded, name, nn.Parameter(value))
    if (gain, bias_gain) != (1.0, 1.0):
        folded.__class__ = kind
        folded.weight.mul_(gain)
        if folded.bias is not None:
            folded.bias.mul_(bias_gain)
    plain: Layer = folded.to(dtype).requires_grad_(False)
    return plain
