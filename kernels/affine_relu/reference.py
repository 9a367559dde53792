"""affine_relu in plain PyTorch: the definition of right."""

import torch
from torch import Tensor
from torch.nn import functional as F


def affine_relu_reference(x: Tensor, scale: Tensor, shift: Tensor, upsample: bool) -> Tensor:
    """Compute the result in float32, for float64 maps in float64; arguments are those of op.py, validated."""
    wide = torch.promote_types(x.dtype, torch.float32)
    y = F.relu(x.to(wide) * scale[:, :, None, None].to(wide) + shift[:, :, None, None].to(wide)).to(x.dtype)
    return F.interpolate(y, scale_factor=2.0, mode="nearest") if upsample and y.numel() else _doubled(y, upsample)


def affine_relu_backward_reference(
    gradient: Tensor, x: Tensor, scale: Tensor, shift: Tensor, upsample: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x, scale and shift, in the precision of the sums, without autograd."""
    wide = torch.promote_types(x.dtype, torch.float32)
    gradient, x, scale, shift = (t.to(wide) for t in (gradient, x, scale[:, :, None, None], shift[:, :, None, None]))
    if upsample:
        gradient = gradient.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).sum((3, 5))
    gradient = gradient * (x * scale + shift > 0)
    return gradient * scale, (gradient * x).sum((2, 3)), gradient.sum((2, 3))


def _doubled(y: Tensor, upsample: bool) -> Tensor:
    # Interpolation refuses empty maps.
    n, c, h, w = y.shape
    return y.new_empty(n, c, 2 * h, 2 * w) if upsample else y
