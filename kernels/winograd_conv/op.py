"""The public function winograd_conv: validation, registration with torch.library, and the choice of a backend."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from zellige.errors import ShapeError

from ..bias_noise_act.op import flat, require_layer
from ..op.dispatch import Backend, choose_backend
from ..op.gradients import differentiated, no_derivative, refuse_derivative
from ..op.layout import in_memory_order, packed
from ..op.validation import FLOATING, dtype_name, refuse, require, require_same_device
from .reference import finished, winograd_conv_reference
from .weight import FORMS, LANES, Form

_PADDINGS = ("zeros", "replicate")
_MOST_MAPS = 4  # that are joined


def winograd_conv(
    x: Tensor | Sequence[Tensor],
    matrices: Tensor,
    outputs: int,
    bias: Tensor | None = None,
    *,
    padding: Literal["zeros", "replicate"] = "zeros",
    crop: int = 0,
    style: Tensor | None = None,
    factor: Tensor | None = None,
    noise: Tensor | None = None,
    strength: Tensor | None = None,
    slope: float = 1.0,
    gain: float = 1.0,
    clamp: float | None = None,
    backend: Backend | None = None,
) -> Tensor:
    """Convolve in fewer multiplications: 3x3, 3x3 on the map up-sampled by 2, or of stride 2 and transposed.

    y = A' [(G g G') * (B' d B)] A for each 2x2 pixels of the result, where d are the 4x4 pixels that they depend on:
    16 multiplications an input instead of 36. If the map is up-sampled, they depend on 3x3 pixels of the small map
    only: for an axis with kernel (a, b, c) and neighbours (p, q, r) the two results are

        a (p - q) + (a + b + c) q   and   (a + b + c) q + c (r - q),

    9 multiplications instead of 36. A 4x4 kernel of stride 2 is four 2x2 kernels, each on every second pixel of the
    padded map, and a transposed one makes every second pixel of the result with each. For an axis with such a kernel
    (a, b) and neighbours (p, q, r, s) the three results are

        m0 + m1 + m2,  m1 - m2  and  m1 + m2 - m3,  where
        m0 = a (p - r), m1 = (a + b) / 2 (q + r), m2 = (a - b) / 2 (r - q), m3 = b (q - s),

    16 multiplications instead of 36. Tiles of two results take 9 instead of 16, and tiles of one are the direct sum.

    A transposed 3x3 kernel (a, b, c) of stride 2 makes c p + a q of neighbours (p, q), and b q beside it. Tiles of two
    cells take c (p - q), (a + c) q, a (r - q), b q and b r: 25 multiplications instead of 36.

    At last y = gain * lrelu(factor[n,k] * y + bias + strength * noise), limited to [-clamp, clamp], where y is the
    convolution of style[n,c] * x.

    Sums and products are float32 or wider; the transformed input is rounded to x's dtype. Errors are root mean square,
    for 32 to 512 channels. In float32 a 3x3 kernel has 0.57 to 0.68 of the error of a direct sum that adds one product
    after the other. A 4x4 kernel has 0.85 to 0.97 of it with tiles of 3 cells, 1.02 to 1.17 with 2, and half of it with
    1. A direct sum that adds in blocks can have a third of the kernel's error, and a sixth for stride 2. In bfloat16
    transformed inputs and weights are rounded. A 3x3 kernel has 2.3 to 2.6 times the error of rounding the exact
    result, and a 4x4 one 2.5 to 2.8 times. Tiles of 1 cell transform nothing, and have only that error.

    It is for inference only: it has no derivative. It is for CPUs: GPUs have matrix units for the direct sum, so the
    reference runs there.

    Args:
        x: [N, C, H, W], any strides, C, H and W at least 1, and sides at least 2 for stride 2; float32, bfloat16, or
            float16 and float64 (reference only). Or 1 to 4 such maps, which are joined along their channels; they are
            read where they lie if the channels of all but the last are a multiple of 16.
        matrices: of x's dtype, from winograd_weight; their shape says what is convolved.
        outputs: K, at least 1.
        bias: [K], or for 3x3 kernels [N, K, 3, 3] with values for nine places of the result: its corners, sides and
            middle. Corners and sides are the outermost pixels before `crop`. float32 or x's dtype; None adds nothing.
        padding: of one pixel: "zeros", or "replicate", which repeats the border and is for 3x3 kernels alone. A
            transposed convolution with a padding of 1 cuts one pixel off every side, as in torch.
        crop: pixels to cut off every side of the result; without up-sampling, 1 is a convolution without padding.
            At least one pixel must be left. 0 for kernels of stride 2.
        style: [N, C] factors of the input, float32 or x's dtype; None for 1.
        factor: [N, K] factors of the sums, float32 or x's dtype; None for 1.
        noise: [N, 1, rows, columns] of the result, or [1, 1, rows, columns] for all samples; float32 or x's dtype; or
            None.
        strength: [] or [1], float32 or x's dtype; None if noise is None.
        slope: numbers below 0 are multiplied by it at last, before the result is rounded: 0 for a ReLU, 0.2 for a
            leaky one, 1 for none; from 0 to 1.
        gain: factor behind the activation.
        clamp: bound of the result, above 0; None for none.
        backend: forces "native" (float32, and bfloat16 if the processor multiplies in it) or "reference"; None
            takes the best one.

    Returns:
        [N, K, H - 2 crop, W - 2 crop], with up-sampling [N, K, 2H - 2 crop, 2W - 2 crop]; [N, K, H / 2, W / 2] for a
        4x4 kernel, rounded down, [N, K, 2H, 2W] for a transposed one, and [N, K, 2H + 1, 2W + 1] for a transposed 3x3
        one; x's dtype, always channels-last. NaN and infinities of x reach the pixels that read them and no others.
        With tiles of 3 or 4 cells they may reach all pixels of such a pixel's tile, which are 3x3 or 4x4, or 6x6 for a
        transposed kernel. NaN makes NaN; an infinity makes an infinity or NaN, because tiles take differences. Values
        above a quarter of the dtype's largest may overflow in the differences. The native bfloat16 takes numbers below
        1.2e-38 for 0.

    Raises:
        ShapeError: an argument has a rank, size, dtype, device or value that is not listed above.
        DeviceError: the backend asked for cannot run here.

    Source: Winograd 1980, Lavin & Gray 2016 (F(2x2, 3x3), F(3x3, 2x2)); the form for up-sampled maps is this project's.
    """
    maps = [x] if isinstance(x, Tensor) else list(x)
    if not 1 <= len(maps) <= _MOST_MAPS:
        raise ShapeError(f"x has {len(maps)} maps; it must be a map, or 1 to {_MOST_MAPS}.")
    for one in maps:
        if one.dim() != 4 or min(one.shape[1:]) < 1 or one.dtype not in FLOATING:
            refuse("x", one, "[N, C, H, W], C, H and W at least 1, float32, float16, bfloat16 or float64")
    if outputs < 1:
        raise ShapeError(f"outputs is {outputs}; it must be at least 1.")
    first = maps[0]
    for other in maps[1:]:
        require("x[1:]", other, (len(first), other.shape[1], *first.shape[2:]), (first.dtype,), "x[0]", first)
    if any(one.shape[1] % LANES for one in maps[:-1]):
        maps = [torch.cat(maps, 1)]
    x = maps[0]
    form = _form(maps, matrices, outputs)
    if form is None or matrices.dtype != x.dtype:
        inputs = sum(one.shape[1] for one in maps)
        shape = [len(x), inputs, *x.shape[2:]]
        wanted = f"x of shape {shape} {dtype_name(x.dtype)} and {outputs} outputs"
        refuse("matrices", matrices, f"what winograd_weight returns for {wanted}")
    require_same_device("matrices", matrices, "x", x)
    if form.groups > 1 and min(x.shape[2:]) < 2:
        refuse("x", x, "[N, C, H, W], H and W at least 2 for a kernel of stride 2")
    high, wide = _sides(x, form)
    if bias is not None:
        border = bias.dim() != 1 and not form.strided
        require("bias", bias, (x.shape[0], outputs, 3, 3) if border else (outputs,), (torch.float32, x.dtype), "x", x)
        if border and min(high, wide) < 2:
            refuse("x", x, f"a map whose result has 2 pixels a side or more, for a bias of {list(bias.shape)}")
    if padding not in _PADDINGS:
        raise ShapeError(f"padding is {padding!r}; it must be {' or '.join(map(repr, _PADDINGS))}.")
    if form.strided and (padding != "zeros" or crop):
        raise ShapeError(f"padding is {padding!r} and crop is {crop}; they must be 'zeros' and 0 for a stride of 2.")
    if not 0 <= 2 * crop < min(high, wide):
        raise ShapeError(f"crop is {crop}; it must be 0 or more, and leave at least one of {high}x{wide} pixels.")
    if not 0 <= slope <= 1:
        raise ShapeError(f"slope is {slope}; it must be from 0 to 1.")
    if style is not None:
        inputs = sum(one.shape[1] for one in maps)
        require("style", style, (x.shape[0], inputs), (torch.float32, x.dtype), "x", x)
    result = x.new_empty(()).expand(x.shape[0], outputs, high - 2 * crop, wide - 2 * crop)  # its shape without memory
    require_layer(result, noise, strength, factor, clamp)
    if differentiated(*maps, matrices, bias, style, factor, noise, strength):
        refuse_derivative("winograd_conv")
    tensors = (matrices, bias, style, factor, noise, strength)
    return _winograd_conv(maps, *tensors, outputs, padding, crop, slope, gain, clamp, backend)


@torch.library.custom_op("zellige::winograd_conv", mutates_args=())
def _winograd_conv(
    maps: list[Tensor], matrices: Tensor, bias: Tensor | None, style: Tensor | None, factor: Tensor | None,
    noise: Tensor | None, strength: Tensor | None, outputs: int, padding: str, crop: int, slope: float, gain: float,
    clamp: float | None, backend: str | None,
) -> Tensor:  # fmt: skip
    # The choice is made here because torch.compile would trace the search for backends in the public function.
    x = maps[0]
    backend = choose_backend(x.device, backend, x.dtype, native=native_dtypes(), triton=())
    form = _checked_form(maps, matrices, outputs)
    y = _result(maps, matrices, outputs, crop)
    if x.numel() == 0:
        return y
    if backend == "reference":
        joined = torch.cat(maps, 1)
        found = winograd_conv_reference(joined, matrices, bias, outputs, form, padding, crop, style, factor)
        return y.copy_(finished(found, noise, strength, slope, gain, clamp))
    from .. import _native

    factors = None
    if bias is not None:
        rows = bias.permute(0, 2, 3, 1).flatten(0, 2) if bias.dim() == 4 else bias[None]
        factors = rows.detach().to(torch.float32).contiguous()
    _native.winograd_conv(
        [in_memory_order(packed(one, True), True) for one in maps], matrices.detach().contiguous(), _flat(style),
        _flat(factor), _flat(noise), 0.0 if strength is None else strength.item(), factors, in_memory_order(y, True),
        form.kind, form.made, padding == "replicate", crop, slope, gain, torch.inf if clamp is None else clamp,
    )  # fmt: skip
    return y


@_winograd_conv.register_fake
def _(
    maps: list[Tensor], matrices: Tensor, bias: Tensor | None, style: Tensor | None, factor: Tensor | None,
    noise: Tensor | None, strength: Tensor | None, outputs: int, padding: str, crop: int, slope: float, gain: float,
    clamp: float | None, backend: str | None,
) -> Tensor:  # fmt: skip
    return _result(maps, matrices, outputs, crop)


_winograd_conv.register_autograd(no_derivative("winograd_conv"))


@_winograd_conv.register_vmap
def _(info: Any, dims: tuple[Any, ...], maps: list[Tensor], *others: Any) -> tuple[Tensor, int]:
    # torch's own loop over the batch takes no lists of tensors.
    def at(k: int, value: Any, dim: int | None) -> Any:
        return value if dim is None else value.select(dim, k)

    def one(k: int) -> Any:
        parts = [at(k, *pair) for pair in zip(maps, dims[0], strict=True)]
        return _winograd_conv(parts, *(at(k, *pair) for pair in zip(others, dims[1:], strict=True)))

    return torch.stack([one(k) for k in range(info.batch_size)]), 0


def _flat(x: Tensor | None) -> Tensor | None:
    return None if x is None else flat(x)


def native_dtypes() -> tuple[torch.dtype, ...]:
    """Return the dtypes that the C++ kernel takes on this machine."""
    try:
        from .. import _native
    except ImportError:
        return ()
    return (torch.float32, torch.bfloat16) if _native.has_bfloat16_dot() else (torch.float32,)


def _form(maps: Sequence[Tensor], matrices: Tensor, outputs: int) -> Form | None:
    """The form of the weights; no two forms have weights of one shape."""
    inputs, dtype = sum(one.shape[1] for one in maps), maps[0].dtype
    found = (form for form in FORMS if tuple(matrices.shape) == form.shape(inputs, outputs, dtype))
    return next(found, None)


def _checked_form(maps: Sequence[Tensor], matrices: Tensor, outputs: int) -> Form:
    form = _form(maps, matrices, outputs)
    assert form is not None  # the public function has refused other weights
    return form


def _sides(x: Tensor, form: Form) -> tuple[int, int]:
    """Height and width of the whole result."""
    high, wide = x.shape[2:]
    if form.groups > 1:
        return high // 2, wide // 2
    if form.spread:
        return 2 * high + 1, 2 * wide + 1
    return (2 * high, 2 * wide) if form.doubles else (high, wide)


def _result(maps: Sequence[Tensor], matrices: Tensor, outputs: int, crop: int) -> Tensor:
    x = maps[0]
    high, wide = _sides(x, _checked_form(maps, matrices, outputs))
    shape = (x.shape[0], outputs, high - 2 * crop, wide - 2 * crop)
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
