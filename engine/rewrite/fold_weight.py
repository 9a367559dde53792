"""Folds spectral norm into the weight: W' = W / sigma(W). It is exact but for one rounding of W'.

This saves the work that the parametrisation does on the weight in every call. Spectral norm takes K C R^2 divisions
and as many multiplications for sigma = u^T W v, 4.7 million for a 3x3 layer of 512 to 512 channels. At inference it
never loses. In training the weight changes between calls, so there is nothing to fold. Layers of equalised learning
rate multiply their gains in by themselves (engine/layers/equalised.py).

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
def fold_weight(layer: Layer) -> Layer:
    """Copy a layer with its parametrisations evaluated.

    W' = W / sigma(W), computed in float64 and cast to the layer's dtype.

    Args:
        layer: a convolution or linear layer; its spectral norm is evaluated as in evaluation mode and not updated.
    Returns:
        A layer of the same class in evaluation mode, without gradients.
    Raises:
        ShapeError: the layer is of another class, or has forward hooks, as torch's first spectral norm has.
    Source: Miyato et al. 2018.
    """
    kinds: tuple[Any, ...] = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    if not isinstance(layer, kinds):
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
    plain: Layer = folded.to(dtype).requires_grad_(False)
    return plain
