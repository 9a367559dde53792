"""The public function winograd_conv: validation, registration with torch.library, and the choice of a backend."""

from typing import Literal

import torch
from torch import Tensor

from zellige.errors import ShapeError

from ..op.dispatch import Backend, choose_backend
from ..op.gradients import differentiated, no_derivative, refuse_derivative
from ..op.layout import in_memory_order, packed
from ..op.validation import FLOATING, dtype_name, refuse, require, require_same_device
from .reference import winograd_conv_reference
from .weight import BLOCK, LANES, PRODUCTS

_PADDINGS = ("zeros", "replicate")


def winograd_conv(
    x: Tensor,
    matrices: Tensor,
    outputs: int,
    bias: Tensor | None = None,
    *,
    padding: Literal["zeros", "replicate"] = "zeros",
    crop: int = 0,
    backend: Backend | None = None,
) -> Tensor:
    """Convolve a map, or the map up-sampled by 2, with a 3x3 kernel in fewer multiplications.

    y = A' [(G g G') * (B' d B)] A for each 2x2 pixels of the result, where d are the 4x4 pixels that they depend on:
    16 multiplications an input instead of 36. If the map is up-sampled, they depend on 3x3 pixels of the small map
    only: for an axis with kernel (a, b, c) and neighbours (p, q, r) the two results are

        a (p - q) + (a + b + c) q   and   (a + b + c) q + c (r - q),

    9 multiplications instead of 36. Sums and products are float32 or wider; the transformed input is rounded to x's
    dtype. In float32 the error is below that of a direct sum that adds one product after the other; a direct sum that
    adds in blocks can have a third of the error. In bfloat16 transformed inputs and weights are rounded: for 32 to 512
    channels the root mean square error is 2.3 to 2.6 times that of rounding the exact result.

    It is for inference only: it has no derivative. It is for CPUs: GPUs have matrix units for the direct sum, so the
    reference runs there.

    Args:
        x: [N, C, H, W], any strides, C, H and W at least 1; float32, bfloat16, or float16 and float64 (reference only).
        matrices: of x's dtype, from winograd_weight; they say whether x is up-sampled.
        outputs: K, at least 1.
        bias: [K], or [N, K, 3, 3] with values for nine places of the result: its corners, sides and middle. Corners
            and sides are the outermost pixels before `crop`. float32 or x's dtype; None adds nothing.
        padding: of one pixel: "zeros", or "replicate", which repeats the border.
        crop: pixels to cut off every side of the result; without up-sampling, 1 is a convolution without padding.
            At least one pixel must be left.
        backend: forces "native" (float32, and bfloat16 if the processor multiplies in it) or "reference"; None
            takes the best one.

    Returns:
        [N, K, H - 2 crop, W - 2 crop], with up-sampling [N, K, 2H - 2 crop, 2W - 2 crop]; x's dtype, always
        channels-last. NaN and infinities reach the pixels that read them and no others. NaN makes NaN; an infinity
        makes an infinity or NaN, because tiles take differences. Values above a quarter of the dtype's largest may
        overflow in the differences. The native bfloat16 takes numbers below 1.2e-38 for 0.

    Raises:
        ShapeError: an argument has a rank, size, dtype, device or value that is not listed above.
        DeviceError: the backend asked for cannot run here.

    Source: Winograd 1980, Lavin & Gray 2016 (F(2x2, 3x3)); the form for up-sampled maps is this project's.
    """
    if x.dim() != 4 or min(x.shape[1:]) < 1 or x.dtype not in FLOATING:
        refuse("x", x, "[N, C, H, W], C, H and W at least 1, float32, float16, bfloat16 or float64")
    if outputs < 1:
        raise ShapeError(f"outputs is {outputs}; it must be at least 1.")
    pairs = 2 if x.dtype == torch.bfloat16 else 1
    stored = -(-x.shape[1] // LANES) * LANES
    products = matrices.shape[1] if matrices.dim() == 4 else 0
    shape = (-(-outputs // BLOCK), products, stored // pairs, BLOCK * pairs)
    if products not in PRODUCTS.values() or tuple(matrices.shape) != shape or matrices.dtype != x.dtype:
        wanted = f"x of shape {list(x.shape)} {dtype_name(x.dtype)} and {outputs} outputs"
        refuse("matrices", matrices, f"what winograd_weight returns for {wanted}")
    require_same_device("matrices", matrices, "x", x)
    upsample = products == PRODUCTS[True]
    high, wide = ((2 if upsample else 1) * side for side in x.shape[2:])
    if bias is not None:
        border = bias.dim() != 1
        require("bias", bias, (x.shape[0], outputs, 3, 3) if border else (outputs,), (torch.float32, x.dtype), "x", x)
        if border and min(high, wide) < 2:
            refuse("x", x, f"a map whose result has 2 pixels a side or more, for a bias of {list(bias.shape)}")
    if padding not in _PADDINGS:
        raise ShapeError(f"padding is {padding!r}; it must be {' or '.join(map(repr, _PADDINGS))}.")
    if not 0 <= 2 * crop < min(high, wide):
        raise ShapeError(f"crop is {crop}; it must be 0 or more, and leave at least one of {high}x{wide} pixels.")
    if differentiated(x, matrices, bias):
        refuse_derivative("winograd_conv")
    return _winograd_conv(x, matrices, bias, outputs, padding, crop, backend)


@torch.library.custom_op("zellige::winograd_conv", mutates_args=())
def _winograd_conv(
    x: Tensor, matrices: Tensor, bias: Tensor | None, outputs: int, padding: str, crop: int, backend: str | None
) -> Tensor:
    # The choice is made here because torch.compile would trace the search for backends in the public function.
    backend = choose_backend(x.device, backend, x.dtype, native=native_dtypes(), triton=())
    y = _result(x, matrices, outputs, crop)
    if x.numel() == 0:
        return y
    if backend == "reference":
        return y.copy_(winograd_conv_reference(x, matrices, bias, outputs, padding, crop))
    from .. import _native

    factors = None
    if bias is not None:
        rows = bias.permute(0, 2, 3, 1).flatten(0, 2) if bias.dim() == 4 else bias[None]
        factors = rows.detach().to(torch.float32).contiguous()
    upsample = matrices.shape[1] == PRODUCTS[True]
    maps = in_memory_order(packed(x, True), True), matrices.detach().contiguous(), factors, in_memory_order(y, True)
    _native.winograd_conv(*maps, upsample, padding == "replicate", crop)
    return y


@_winograd_conv.register_fake
def _(
    x: Tensor, matrices: Tensor, bias: Tensor | None, outputs: int, padding: str, crop: int, backend: str | None
) -> Tensor:
    return _result(x, matrices, outputs, crop)


_winograd_conv.register_autograd(no_derivative("winograd_conv"))


def native_dtypes() -> tuple[torch.dtype, ...]:
    """Return the dtypes that the C++ kernel takes on this machine."""
    try:
        from .. import _native
    except ImportError:
        return ()
    return (torch.float32, torch.bfloat16) if _native.has_bfloat16_dot() else (torch.float32,)


def _result(x: Tensor, matrices: Tensor, outputs: int, crop: int) -> Tensor:
    factor = 2 if matrices.shape[1] == PRODUCTS[True] else 1
    high, wide = (factor * side - 2 * crop for side in x.shape[2:])
    shape = (x.shape[0], outputs, high, wide)
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
