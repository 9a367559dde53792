"""The public function rearrange: validation, registration with torch.library, and the choice of a backend."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..op import plain
from ..op.dispatch import Backend, choose_backend
from ..op.gradients import differentiated, reference_gradients
from ..op.validation import FLOATING, refuse, require
from .library import kept_weights, rearrange_backward_library, rearrange_library
from .reference import rearrange_backward_reference, rearrange_reference

_WIDEST = 520  # 512 features, and a few columns that travel with them
_QUERIES = 1024  # of a part in graphs


def rearrange(q: Tensor, k: Tensor, v: Tensor, scale: float | None = None, *, backend: Backend | None = None) -> Tensor:
    """Give every query the mean of the values, weighted by how well their keys match it: attention with one head.

    y[n, t] = sum_s w[n, t, s] v[n, s] with w[n, t] = softmax over s of (q[n, t] . k[n, s]) * scale. Statistics and sums
    are float32, rounded once at the end. In float16 and bfloat16 the weights are rounded too before they multiply the
    values. All T x S scores are kept only in the backend "reference", in float64 on a GPU, and on a CPU up to 16 MiB.

    It is differentiable any number of times: gradients of gradients, forward mode and torch.func go through the
    reference.

    Args:
        q: [N, T, Dk], any strides, Dk from 1 to 520; float32, float16, bfloat16, or float64 (not in Triton).
        k: [N, S, Dk], S of at least 1, any strides, q's dtype.
        v: [N, S, Dv], any strides, Dv from 1 to 520, q's dtype.
        scale: factor of the scores; None takes 1 / sqrt(Dk).
        backend: forces "triton" or "reference"; None takes Triton on a GPU and, on a CPU, torch's own operators:
            products for few scores, else attention, or products for a few queries at a time if Dk and Dv differ.

    Returns:
        [N, T, Dv], contiguous, q's dtype. Rows with a score that is NaN or inf, or with none above -inf, are NaN.

    Raises:
        ShapeError: an argument has a rank, size, dtype or device that is not listed above.
        DeviceError: the backend asked for cannot run here.

    Source: the rearranger of Chae et al. 2023; attention after Vaswani et al. 2017, its order of sums after Dao 2023.
    """
    if q.dim() != 3 or q.dtype not in FLOATING or not 1 <= q.shape[2] <= _WIDEST:
        refuse("q", q, f"[N, T, Dk], Dk from 1 to {_WIDEST}, float32, float16, bfloat16 or float64")
    if k.dim() != 3 or k.shape[1] == 0:
        refuse("k", k, "[N, S, Dk], S of at least 1")
    require("k", k, (q.shape[0], k.shape[1], q.shape[2]), (q.dtype,), "q", q)
    if v.dim() != 3 or not 1 <= v.shape[2] <= _WIDEST:
        refuse("v", v, f"[N, S, Dv], Dv from 1 to {_WIDEST}")
    require("v", v, (*k.shape[:2], v.shape[2]), (q.dtype,), "k", k)
    if plain.this_thread.active:
        if torch.compiler.is_exporting():
            return _products(q, k, v, _factor(q, scale))
        return F.scaled_dot_product_attention(q, k, v, scale=scale)
    if differentiated(q, k, v):
        return rearrange_reference(q, k, v, _factor(q, scale))
    keep = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
    return _rearrange(q, k, v, scale, keep, backend)[0]


def _products(q: Tensor, k: Tensor, v: Tensor, factor: float) -> Tensor:
    """The result by plain products for a part of the queries at a time, for graphs.

    TensorRT-RTX 1.7 builds no attention node in float32, with one head or with unequal widths, and ONNX Runtime 1.31
    keeps the whole matrix of scores of one.
    """
    turned = k.mT
    parts = [torch.softmax(part @ turned * factor, 2) @ v for part in q.split(_QUERIES, 1)]
    return torch.cat(parts, 1) if len(parts) > 1 else parts[0]


@torch.library.custom_op("zellige::rearrange", mutates_args=())
def _rearrange(
    q: Tensor, k: Tensor, v: Tensor, scale: float | None, keep: bool, backend: str | None
) -> tuple[Tensor, Tensor]:
    factor, chosen = _factor(q, scale), _backend(q, backend)
    if q.shape[0] * q.shape[1] == 0:
        return _result(q, v), _kept(q, k, keep, backend)
    if chosen == "reference":
        return rearrange_reference(q, k, v, factor).contiguous(), _kept(q, k, keep, backend)
    if chosen == "library":
        y, weights = rearrange_library(q, k, v, factor)
        return y, weights if keep else _kept(q, k, keep, backend)
    from .triton import rearrange_triton

    y, log_sums = _result(q, v), _kept(q, k, keep, backend)
    rearrange_triton(q.contiguous(), k.contiguous(), v.contiguous(), y, log_sums, factor)
    return y, log_sums


@_rearrange.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, scale: float | None, keep: bool, backend: str | None) -> tuple[Tensor, Tensor]:
    return _result(q, v), _kept(q, k, keep, backend)


@torch.library.custom_op("zellige::rearrange_backward", mutates_args=())
def _rearrange_backward(
    gradient: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    y: Tensor,
    kept: Tensor,
    scale: float | None,
    backend: str | None,
) -> tuple[Tensor, Tensor, Tensor]:
    factor, chosen = _factor(q, scale), _backend(q, backend)
    dq, dk, dv = (torch.zeros_like(t, memory_format=torch.contiguous_format) for t in (q, k, v))
    if q.shape[0] * q.shape[1] == 0:
        return dq, dk, dv
    if chosen == "triton":
        from .triton import rearrange_backward_triton

        gradient, q, k, v = (t.contiguous() for t in (gradient, q, k, v))
        rearrange_backward_triton(gradient, q, k, v, y, kept, dq, dk, dv, factor)
        return dq, dk, dv
    if chosen == "library":
        found = rearrange_backward_library(gradient, q, k, v, kept, factor)
    else:
        found = rearrange_backward_reference(gradient, q, k, v, factor)
    return dq.copy_(found[0]), dk.copy_(found[1]), dv.copy_(found[2])


@_rearrange_backward.register_fake
def _(
    gradient: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    y: Tensor,
    kept: Tensor,
    scale: float | None,
    backend: str | None,
) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.scale, _, ctx.backend = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(*tensors, *output)


def _backward(ctx: Any, gradient: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    *tensors, y, kept = ctx.saved_tensors
    needed = ctx.needs_input_grad[:3]
    if torch.is_grad_enabled() or differentiated(gradient):  # the gradients are to be differentiated
        factor = _factor(tensors[0], ctx.scale)
        found = reference_gradients(lambda q, k, v: rearrange_reference(q, k, v, factor), tensors, needed, gradient)
    else:
        found = list(_rearrange_backward(gradient, *tensors, y, kept, ctx.scale, ctx.backend))
    return *(t if need else None for t, need in zip(found, needed, strict=True)), None, None, None


_rearrange.register_autograd(_backward, setup_context=_remember)


def _result(q: Tensor, v: Tensor) -> Tensor:
    return q.new_empty((*q.shape[:2], v.shape[2]))


def _kept(q: Tensor, k: Tensor, keep: bool, backend: str | None) -> Tensor:
    """Allocate the tensor that is kept for a backward pass: the logarithms of the softmax's sums, or the weights.

    Without a backward pass the number of weights is not looked at, because an export would then hold for some batches
    only.
    """
    shape: tuple[int, ...] = (0,)
    match _backend(q, backend):
        case "triton":
            shape = q.shape[:2]
        case "library" if keep:
            shape = kept_weights(q, k)
    return q.new_empty(shape, dtype=torch.promote_types(q.dtype, torch.float32))


def _factor(q: Tensor, scale: float | None) -> float:
    return q.shape[2] ** -0.5 if scale is None else scale


def _backend(q: Tensor, backend: str | None) -> str:
    # The choice is made here because torch.compile would trace the search for backends in the public function.
    if backend is None and q.device.type == "cpu":
        return "library"
    return choose_backend(q.device, backend, q.dtype)
