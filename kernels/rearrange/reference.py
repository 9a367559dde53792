"""rearrange in plain PyTorch: the definition of right. It keeps the whole matrix of scores."""

import torch
from torch import Tensor

from ..op.precision import full_precision


def rearrange_reference(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Compute the result in float32, for float64 tensors in float64; arguments are those of op.py, validated."""
    wide = torch.promote_types(q.dtype, torch.float32)
    with full_precision(q.device):
        return (attention(q.to(wide), k.to(wide), scale) @ v.to(wide)).to(q.dtype)


def rearrange_backward_reference(
    gradient: Tensor, q: Tensor, k: Tensor, v: Tensor, scale: float, weights: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of q, k and v without autograd, in the sums' precision; weights are [N, T, S] if kept."""
    wide = torch.promote_types(q.dtype, torch.float32)
    gradient, q, k, v = (t.to(wide) for t in (gradient, q, k, v))
    with full_precision(q.device):
        weights = attention(q, k, scale) if weights is None else weights
        slopes = gradient @ v.mT
        slopes = weights * (slopes - (weights * slopes).sum(2, keepdim=True)) * scale
        return slopes @ k, slopes.mT @ q, weights.mT @ gradient


def attention(q: Tensor, k: Tensor, scale: float) -> Tensor:
    """Return the weights [N, T, S] of the values, from tensors in the precision of the sums, without autocast."""
    return torch.softmax(q @ k.mT * scale, 2)
