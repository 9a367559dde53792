"""affine_relu in plain PyTorch: the definition of right."""

import torch
from torch import Tensor
from torch.nn import functional as F


def affine_relu_reference(x: Tensor, scale: Tensor, shift: Tensor, upsample: bool) -> Tensor:
    """Compute the result in float32, for float64 maps in float64; arguments are those of op.py, validated."""
    wide = torch.promote_types(x.dtype, torch.float32)
    y = F.relu(x.to(wide) * over_map(scale).to(wide) + over_map(shift).to(wide)).to(x.dtype)
    return F.interpolate(y, scale_factor=2.0, mode="nearest") if upsample and y.numel() else _doubled(y, upsample)


def affine_relu_backward_reference(
    gradient: Tensor, x: Tensor, scale: Tensor, shift: Tensor, upsample: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x, scale and shift, in the precision of the sums, without autograd."""
    wide, factors = torch.promote_types(x.dtype, torch.float32), scale.shape
    gradient, x, scale, shift = (t.to(wide) for t in (gradient, x, over_map(scale), over_map(shift)))
    if upsample:
        gradient = gradient.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).sum((3, 5))
    gradient = gradient * (x * scale + shift > 0)
    dscale, dshift = (t.sum_to_size(scale.shape).reshape(factors) for t in (gradient * x, gradient))
    return gradient * scale, dscale, dshift


def over_map(factors: Tensor) -> Tensor:
    """View factors [N, C] as a map of one pixel; factors that vary over a map stay."""
    return factors[:, :, None, None] if factors.dim() == 2 else factors


def _doubled(y: Tensor, upsample: bool) -> Tensor:
    # Interpolation refuses empty maps.
    n, c, h, w = y.shape
    return y.new_empty(n, c, 2 * h, 2 * w) if upsample else y
