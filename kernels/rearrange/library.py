"""rearrange on CPUs: a matrix of weights if it is small, else torch's own attention, else the reference in parts."""

import torch
from torch import Tensor

from ..op.precision import full_precision
from .reference import attention, rearrange_backward_reference, rearrange_reference

_KEPT = 2**22  # weights, 16 MiB: computing them anew costs up to a third of the time of forward and backward
_SCORES = 2**18  # scores computed at once: 1 MiB in float32, so that they stay in the cache of a core
_FEWEST_QUERIES = 16  # queries computed at once, so that keys and values are not read for each


def kept_weights(q: Tensor, k: Tensor) -> tuple[int, ...]:
    """Return the shape of the weights that are kept for the backward pass: [N, T, S], or (0,) if they are too many."""
    shape = (*q.shape[:2], k.shape[1])
    return shape if shape[0] * shape[1] * shape[2] <= _KEPT else (0,)


def rearrange_library(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Return the result and the weights that are kept, from validated tensors that are not empty."""
    if len(kept_weights(q, k)) == 3:
        wide = torch.promote_types(q.dtype, torch.float32)
        q, k, v, dtype = q.to(wide).contiguous(), k.to(wide).contiguous(), v.to(wide).contiguous(), q.dtype
        with full_precision(q.device):
            weights = attention(q, k, scale)
            return (weights @ v).to(dtype), weights
    return _without_weights(q, k, v, scale), q.new_empty((0,), dtype=torch.promote_types(q.dtype, torch.float32))


def _without_weights(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    if q.shape[2] == v.shape[2]:
        # scaled_dot_product_attention calls this operator, but does not return the logarithms of the sums.
        heads = (t.contiguous()[:, None] for t in (q, k, v))
        y, log_sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(*heads, scale=scale)
        # Rows that are NaN by definition may come back as zeros, with a sum of 1 or inf. The code below repeats them.
        if (log_sums.isfinite() & (log_sums != 0.0)).all():
            return y[:, 0].contiguous()
    # For unequal widths scaled_dot_product_attention would keep the whole matrix.
    wide = torch.promote_types(q.dtype, torch.float32)
    k, v = k.to(wide), v.to(wide)
    y = q.new_empty((*q.shape[:2], v.shape[2]))
    step = _queries(q, k)
    for part, y_part in zip(q.split(step, 1), y.split(step, 1), strict=True):
        y_part.copy_(rearrange_reference(part.to(wide), k, v, scale))
    return y


def rearrange_backward_library(
    gradient: Tensor, q: Tensor, k: Tensor, v: Tensor, weights: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients from the weights if they are kept, else as sums over parts of the queries in fixed order."""
    if weights.dim() == 3:
        return rearrange_backward_reference(gradient, q, k, v, scale, weights)
    wide = torch.promote_types(q.dtype, torch.float32)
    k, v = k.to(wide), v.to(wide)
    dq, dk, dv = torch.empty_like(q, dtype=wide), torch.zeros_like(k), torch.zeros_like(v)
    step = _queries(q, k)
    for part, slopes, dq_part in zip(q.split(step, 1), gradient.split(step, 1), dq.split(step, 1), strict=True):
        found = rearrange_backward_reference(slopes.to(wide), part.to(wide), k, v, scale)
        dq_part.copy_(found[0])
        dk += found[1]
        dv += found[2]
    return dq, dk, dv


def _queries(q: Tensor, k: Tensor) -> int:
    return max(_FEWEST_QUERIES, _SCORES // (q.shape[0] * k.shape[1]))
