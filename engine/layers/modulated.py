"""StyleGAN2's modulated convolution, computed with scaled activations instead of scaled weights.

The textbook gives every sample weights of its own, w'[n,k,c] = d[n,k] s[n,c] w[k,c], d[n,k] = 1 / sqrt(sum over c and
taps of (s[n,c] w[k,c])^2 + eps), and convolves as many groups as there are samples. But a convolution is linear in its
input channels and in its output channels, so that

    y[n] = d[n] conv(s[n] x[n], w),    d[n,k] = 1 / sqrt(sum over c of s[n,c]^2 (sum over taps of w[k,c]^2) + eps).

This saves making and summing the weights: N (C + K) H W multiplications replace 3 N K C R^2. At 8 samples, 512 channels
and a 4x4 map, 0.13 million replace 57 million. The convolution is an ordinary one with constant weights, one group and
any batch, which every runtime has and which can be exported.

It is exact. It loses one pass over each map if the maps are larger than the weights, as for 32 channels at 1024x1024.
In float16 the product s x may pass 65504 although s w does not; then divide s by its largest number, which cancels
in d.

The system `stylegan2` uses it, and so does the rearranger, whose generator is a StyleGAN2.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from zellige.errors import ShapeError

from ...kernels.op.validation import FLOATING, refuse, require

__all__ = ["modulated_conv"]


def modulated_conv(
    x: Tensor, weight: Tensor, style: Tensor, *, demodulate: bool = True, upsample: bool = False, eps: float = 1e-8
) -> Tensor:
    """Convolve maps with weights that a style scales per input channel and demodulation norms per output channel.

    y[n,k] = d[n,k] sum over c of w[k,c] * (s[n,c] x[n,c]), d as above, or 1 without demodulation.

    Args:
        x: [N, C, H, W], floating.
        weight: [K, C, R, R], R odd, x's dtype, with gains multiplied in.
        style: [N, C], float32 or x's dtype.
        demodulate: norm every output channel's weights to 1; the layer to RGB goes without.
        upsample: convolve transposed with stride 2; the caller applies the low-pass filter that must follow.
        eps: added to the sum of squares.
    Returns:
        [N, K, H, W], zero padded, x's dtype; [N, K, 2H + R - 2, 2W + R - 2] with `upsample`. d is computed in float32
        or wider.
    Raises:
        ShapeError: an argument has another shape or dtype.
    Source: Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN", equations 1 to 3.
    """
    if x.dim() != 4 or x.dtype not in FLOATING:
        refuse("x", x, "[N, C, H, W], float32, float16, bfloat16 or float64")
    if weight.dim() != 4 or weight.shape[2] % 2 == 0:
        raise ShapeError(f"weight is {list(weight.shape)}; it must be [K, C, R, R] of odd R.")
    outputs, _, side, _ = weight.shape
    require("weight", weight, (outputs, x.shape[1], side, side), (x.dtype,), "x", x)
    require("style", style, x.shape[:2], (torch.float32, x.dtype), "x", x)
    scaled = x * style.to(x.dtype)[:, :, None, None]
    if upsample:
        y = F.conv_transpose2d(scaled, weight.transpose(0, 1), stride=2)
    else:
        y = F.conv2d(scaled, weight, padding=side // 2)
    if not demodulate:
        return y
    wide = torch.promote_types(x.dtype, torch.float32)
    squares = weight.to(wide).square().sum((2, 3))  # [K, C]
    demodulation = torch.rsqrt(F.linear(style.to(wide).square(), squares) + eps)  # [N, K]
    return y * demodulation.to(y.dtype)[:, :, None, None]
