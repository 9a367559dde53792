"""Derivatives that go through the reference: gradients of gradients, forward mode, and the transforms of torch.func."""

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.autograd import forward_ad

from zellige.errors import DerivativeError

from .precision import full_precision

__all__ = ["differentiated", "no_derivative", "reference_gradients", "refuse_derivative"]


def differentiated(*tensors: Tensor | None) -> bool:
    """Tell whether forward mode or a transform of torch.func differentiates one of the tensors.

    A custom operator has derivatives in reverse mode only: forward mode would silently take its derivative for zero,
    and torch.func would fail. The reference has all derivatives, because it is made of torch's own operators. Outside
    of a transform this function takes 0.1 microseconds. Inside, constants that were computed there count too.
    """
    transforms, forward = torch._C._functorch.get_dynamic_layer_stack_depth(), forward_ad._current_level >= 0
    if not transforms and not forward:
        return False
    # A compiler cannot ask a tensor, but it compiles anew when the transforms around its code change. Within torch.func
    # a tensor does not show a tangent of another level.
    if torch.compiler.is_compiling() or (transforms and forward):
        return True
    return any(_is_tracked(t) for t in tensors if t is not None)


def _is_tracked(tensor: Tensor) -> bool:
    functorch = torch._C._functorch
    while functorch.is_functorch_wrapped_tensor(tensor):
        if functorch.is_gradtrackingtensor(tensor):
            return True
        tensor = functorch.get_unwrapped(tensor)
    return forward_ad.unpack_dual(tensor).tangent is not None


def refuse_derivative(name: str) -> NoReturn:
    """Raise the DerivativeError of a kernel that is for inference only."""
    raise DerivativeError(f"{name} is for inference only and has no derivative; detach its arguments.")


def no_derivative(name: str) -> Callable[..., NoReturn]:
    """Return the backward of a kernel that is for inference only."""

    def backward(ctx: Any, *gradients: Tensor) -> NoReturn:
        refuse_derivative(name)

    return backward


def reference_gradients(
    function: Callable[..., Tensor], inputs: Sequence[Tensor], needed: Sequence[bool], gradient: Tensor
) -> list[Tensor | None]:
    """Differentiate a reference so that its gradients can be differentiated again.

    Args:
        function: the reference, as a function of the inputs alone.
        inputs: the inputs of the forward pass.
        needed: for each input, whether it needs a gradient.
        gradient: with respect to the function's result.

    Returns:
        One gradient for each input, None for those that need none.
    """
    wanted = [x for x, need in zip(inputs, needed, strict=True) if need]
    with torch.enable_grad(), full_precision(gradient.device):
        found = iter(torch.autograd.grad(function(*inputs), wanted, gradient, create_graph=True))
    return [next(found) if need else None for need in needed]
