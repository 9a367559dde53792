"""rearrange in plain PyTorch: the definition of right. It keeps the whole matrix of scores."""

import torch
from torch import Tensor

from ..precision import full_precision


def rearrange_reference(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Compute it in float32, or in float64 for such tensors; arguments as in op.py, already validated."""
    wide = torch.promote_types(q.dtype, torch.float32)
    with full_precision(q.device):
        return (_weights(q.to(wide), k.to(wide), scale) @ v.to(wide)).to(q.dtype)


def rearrange_backward_reference(
    gradient: Tensor, q: Tensor, k: Tensor, v: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v, in the precision of the sums, without autograd."""
    wide = torch.promote_types(q.dtype, torch.float32)
    gradient, q, k, v = (t.to(wide) for t in (gradient, q, k, v))
    with full_precision(q.device):
        weights = _weights(q, k, scale)  # [N, T, S]
        slopes = gradient @ v.mT
        slopes = weights * (slopes - (weights * slopes).sum(2, keepdim=True)) * scale
        return slopes @ k, slopes.mT @ q, weights.mT @ gradient


def _weights(q: Tensor, k: Tensor, scale: float) -> Tensor:
    return torch.softmax(q @ k.mT * scale, 2)
