"""glu_layer_norm in plain PyTorch: the definition of right."""

import torch
from torch import Tensor


def glu_layer_norm_reference(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Compute the result in float32, for float64 maps in float64; arguments are those of op.py, validated."""
    wide = torch.promote_types(x.dtype, torch.float32)
    left, right = x.to(wide).chunk(2, 1)
    normal, _ = _standardised(left, eps)
    y = normal * weight[:, None, None].to(wide) + bias[:, None, None].to(wide)
    return (y * right.sigmoid()).to(x.dtype)


def glu_layer_norm_backward_reference(
    gradient: Tensor, x: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x, weight and bias, in the precision of the sums, without autograd."""
    wide = torch.promote_types(x.dtype, torch.float32)
    gradient, x, weight, bias = (t.to(wide) for t in (gradient, x, weight[:, None, None], bias[:, None, None]))
    left, right = x.chunk(2, 1)
    normal, inverse = _standardised(left, eps)
    gate = right.sigmoid()
    dright = gradient * (normal * weight + bias) * gate * (1 - gate)
    gradient = gradient * gate
    slope = gradient * weight
    across = normal * (slope * normal).mean((1, 2, 3), keepdim=True)
    dleft = (slope - slope.mean((1, 2, 3), keepdim=True) - across) * inverse
    return torch.cat([dleft, dright], 1), (gradient * normal).sum((0, 2, 3)), gradient.sum((0, 2, 3))


def _standardised(left: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return (left - mean) / sqrt(var + eps), and the factor alone."""
    centred = left - left.mean((1, 2, 3), keepdim=True)
    # The mean of large values is rounded more coarsely than small deviations can bear; the second mean is that error.
    centred = centred - centred.mean((1, 2, 3), keepdim=True)
    inverse = (centred.square().mean((1, 2, 3), keepdim=True) + eps).rsqrt()
    return centred * inverse, inverse
