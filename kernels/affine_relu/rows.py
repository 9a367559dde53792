"""The public function affine_relu_rows: affine_relu of maps whose factors are given for some rows, and of a sum."""

import torch
from torch import Tensor
from torch.nn import functional as F

from ..op import plain
from ..op.dispatch import Backend, choose_backend
from ..op.gradients import differentiated
from ..op.layout import empty_like, in_memory_order, is_channels_last, packed
from ..op.rows import between, require_between
from ..op.validation import FLOATING, refuse, require
from .reference import over_map

_NATIVE_DTYPES = (torch.float32, torch.bfloat16)


def affine_relu_rows(
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    plus: Tensor | None = None,
    *,
    every: int = 1,
    first: int = 0,
    backend: Backend | None = None,
) -> Tensor:
    """Scale and shift a map under factors that are given for some rows, add another map, and apply ReLU.

    y = max(x * a + (b + plus), 0) in float32, rounded once. Row i has the factors at the place
    p = (first + i + 1/2) / every - 1/2 among the R given rows: those of row floor(p), plus the fraction of p times the
    difference to the next row. This is the conditional norm of a strip whose latent moves down, without a map of
    factors, and with the dense place that follows it.

    It is for inference. Where the native backend does not run, or a derivative is asked for, it computes with standard
    operators in x's dtype, as PyTorch rounds them. The reference computes in float32.

    Args:
        x: [N, C, H, W]; float32, float16, bfloat16 or float64.
        scale, shift: [N, C], or [N, C, R, W] or [N, C, R, 1]; float32 or x's dtype. R = 1 gives all rows the same.
        plus: like x, or None for no sum.
        every: rows of x between two given rows.
        first: the place of x's first row, in rows of x from where the first given row begins.
        backend: forces "native" (float32 and bfloat16) or "reference"; None takes native if it runs.

    Returns:
        like x. NaN stays NaN.

    Raises:
        ShapeError: an argument has a rank, size, dtype or device that is not listed above, or a row of x lies outside
            of the given ones.
        DeviceError: the backend asked for cannot run here.

    Source: this project.
    """
    if x.dim() != 4 or x.dtype not in FLOATING:
        refuse("x", x, "[N, C, H, W], float32, float16, bfloat16 or float64")
    n, c, h, w = x.shape
    if scale.dim() not in (2, 4) or scale.shape[:2] != (n, c) or (scale.dim() == 4 and scale.shape[3] not in (1, w)):
        refuse("scale", scale, f"[{n}, {c}], [{n}, {c}, R, {w}] or [{n}, {c}, R, 1] for x of shape {list(x.shape)}")
    for name, tensor in (("scale", scale), ("shift", shift)):
        require(name, tensor, scale.shape, (torch.float32, x.dtype), "x", x)
    if plus is not None:
        require("plus", plus, x.shape, (x.dtype,), "x", x)
    scale, shift = over_map(scale), over_map(shift)
    require_between("scale", scale.shape[2], h, every, first)
    given = x, scale, shift, x if plus is None else plus
    derived = differentiated(*given) or (torch.is_grad_enabled() and any(t.requires_grad for t in given))
    written = plain.this_thread.active or torch.compiler.is_exporting() or derived
    if written or choose_backend(x.device, backend, x.dtype, native=_NATIVE_DTYPES, triton=()) == "reference":
        wide = torch.promote_types(x.dtype, torch.float32) if backend == "reference" else x.dtype
        scale, shift = (between(t, 2, h, every, first).to(wide) for t in (scale, shift))
        return F.relu((x * scale + (shift if plus is None else shift + plus)).to(x.dtype))
    return _affine_relu_rows(x, scale, shift, plus, every, first)


@torch.library.custom_op("zellige::affine_relu_rows", mutates_args=())
def _affine_relu_rows(x: Tensor, scale: Tensor, shift: Tensor, plus: Tensor | None, every: int, first: int) -> Tensor:
    from .. import _native

    order, y = is_channels_last(x), empty_like(x)
    if x.numel() == 0:
        return y
    scale, shift = (
        in_memory_order(packed(t.float().expand(-1, -1, -1, x.shape[3]), order), order) for t in (scale, shift)
    )
    added = None if plus is None else in_memory_order(packed(plus, order), order)
    into = in_memory_order(y, order)
    _native.affine_relu_rows(in_memory_order(packed(x, order), order), scale, shift, added, every, first, into, order)
    return y


@_affine_relu_rows.register_fake
def _(x: Tensor, scale: Tensor, shift: Tensor, plus: Tensor | None, every: int, first: int) -> Tensor:
    return empty_like(x)
