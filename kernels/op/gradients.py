"""Gradients of gradients, through the reference."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .precision import full_precision

__all__ = ["reference_gradients"]


def reference_gradients(
    function: Callable[..., Tensor], inputs: Sequence[Tensor], needed: Sequence[bool], gradient: Tensor
) -> list[Tensor | None]:
    """Differentiate a reference as a graph, so that the gradients can be differentiated again.

    Args:
        function: the reference, of the inputs alone.
        inputs: as the forward pass got them.
        needed: which of them need a gradient.
        gradient: with respect to the function's result.

    Returns:
        One gradient for each input, None for those that need none.
    """
    wanted = [x for x, need in zip(inputs, needed, strict=True) if need]
    with torch.enable_grad(), full_precision(gradient.device):
        found = iter(torch.autograd.grad(function(*inputs), wanted, gradient, create_graph=True))
    return [next(found) if need else None for need in needed]
