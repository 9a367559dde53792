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

The system `stylegan2` uses it, and so does the rearranger, whose generator is a StyleGAN2. `StyledConv` and `ToRgb` are
its layers as they are trained; `scaled` makes the layers of inference out of them.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zellige.errors import ShapeError

from ...kernels import bias_noise_act, blur_noise_act
from ...kernels.op.validation import FLOATING, refuse, require
from .batch_parts import on_cpu
from .equalised import GAIN, SLOPE, EqualisedLinear
from .resampling import blur

__all__ = ["EPSILON", "ScaledConv", "ScaledRgb", "SpreadConv", "StyleConv", "StyledConv", "ToRgb", "modulated_conv"]

EPSILON = 1e-8  # of demodulation


def modulated_conv(
    x: Tensor, weight: Tensor, style: Tensor, *, demodulate: bool = True, upsample: bool = False, eps: float = EPSILON
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


class StyledConv(nn.Module):
    """A 3x3 convolution of StyleGAN2 as it is trained: modulate, convolve, demodulate, add noise and bias, activate.

    Args:
        inputs, outputs: channels.
        side: of the result.
        w_dim: length of a style vector.
        up: double the side, by a transposed convolution and a filter behind it.
        clamp: bound of the result; None for none.
        raw_epsilon: whether demodulation adds its epsilon to squares of the kept weights, or to those with the gain.
    """

    noise: Tensor

    def __init__(
        self, inputs: int, outputs: int, side: int, w_dim: int, *, up: bool = False, clamp: float | None = None,
        raw_epsilon: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.up, self.clamp = up, clamp
        self.gain = 1 / (3 * inputs**0.5)
        self.eps = EPSILON * self.gain**2 if raw_epsilon else EPSILON
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.style = EqualisedLinear(w_dim, inputs, bias=1.0)
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("noise", torch.randn(side, side))

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None = None) -> Tensor:
        """Convolve [N, C, H, W] to [N, K, S, S] under style vectors [N, w_dim].

        `noise` is a map [N, 1, S, S] or [1, 1, S, S]; None takes the stored one.
        """
        weight = (self.weight * self.gain).to(x.dtype)
        y = modulated_conv(x, weight, self.style(w), upsample=self.up, eps=self.eps)
        if self.up:
            y = blur(y, 1, 4)
        y = bias_noise_act(y, self.bias, self.noise[None, None] if noise is None else noise, self.noise_strength)
        return y if self.clamp is None else y.clamp(-self.clamp, self.clamp)

    def scaled(self) -> "ScaledConv":
        """The layer for inference."""
        return ScaledConv(self)


class ToRgb(nn.Module):
    """A modulated 1x1 convolution to RGB in float32, without demodulation, noise or activation.

    Args:
        inputs: channels.
        w_dim: length of a style vector.
        clamp: bound of the result; None for none.
    """

    def __init__(self, inputs: int, w_dim: int, *, clamp: float | None = None) -> None:
        super().__init__()
        self.clamp, self.gain = clamp, inputs**-0.5
        self.weight = nn.Parameter(torch.randn(3, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(3))
        self.style = EqualisedLinear(w_dim, inputs, bias=1.0)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Colour [N, C, S, S] under style vectors [N, w_dim]: [N, 3, S, S]."""
        weight = (self.weight * self.gain).to(x.dtype)
        y = modulated_conv(x, weight, self.style(w), demodulate=False).float() + self.bias[:, None, None]
        return y if self.clamp is None else y.clamp(-self.clamp, self.clamp)

    def scaled(self) -> "ScaledRgb":
        """The layer for inference."""
        return ScaledRgb(self)


class StyleConv(nn.Conv2d):
    """A 3x3 convolution of style times map, without bias.

    Args:
        inputs, outputs: channels.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1, bias=False)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:  # type: ignore[override]
        """Convolve [N, C, H, W] under [N, C] to [N, K, H, W]."""
        return super().forward(x * style.to(x.dtype)[:, :, None, None])


class SpreadConv(nn.ConvTranspose2d):
    """A transposed 3x3 convolution of style times map, of stride 2, without bias. A low-pass filter must follow.

    Args:
        inputs, outputs: channels.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, 2, bias=False)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:  # type: ignore[override]
        """Convolve [N, C, H, W] under [N, C] to [N, K, 2H + 1, 2W + 1]."""
        return F.conv_transpose2d(x * style.to(x.dtype)[:, :, None, None], self.weight, stride=2)


class ScaledConv(nn.Module):
    """A `StyledConv` for inference: gains are multiplied in, and its convolution is a layer that rewrites can replace.

    A convolution with a method `finished`, as `StyledWinogradConv` has, computes itself what follows if the side is not
    doubled. On CPUs the filter of a doubled map and what follows are one pass.

    Args:
        trained: the layer; it is not changed.
    """

    noise: Tensor
    specks: Tensor
    one: Tensor

    @torch.no_grad()
    def __init__(self, trained: StyledConv) -> None:
        super().__init__()
        self.style, self.up, self.clamp = trained.style.folded(), trained.up, trained.clamp
        outputs, inputs = trained.weight.shape[:2]
        with torch.device("meta"):
            conv = SpreadConv(inputs, outputs) if trained.up else StyleConv(inputs, outputs)
        weight = trained.weight.double() * trained.gain
        with torch.device("meta"):
            self.squares = nn.Linear(inputs, outputs)  # of the styles to those of the weights' norms
        # g lrelu(v) = lrelu(g v), so the gain of the activation belongs to all that is added up before it.
        norms = weight.square().sum((2, 3)) / GAIN**2
        self.squares.weight = nn.Parameter(norms.float(), requires_grad=False)
        self.squares.bias = nn.Parameter(torch.full((outputs,), trained.eps / GAIN**2), requires_grad=False)
        weight = (weight.transpose(0, 1) if trained.up else weight).to(trained.weight.dtype)
        conv.weight = nn.Parameter(weight.contiguous(memory_format=torch.channels_last), requires_grad=False)
        self.conv = conv
        self.bias, self.noise_strength = (
            nn.Parameter(t.detach() * GAIN, requires_grad=False) for t in (trained.bias, trained.noise_strength)
        )
        self.register_buffer("noise", trained.noise.clone())
        self.register_buffer("specks", trained.noise * self.noise_strength)
        self.register_buffer("one", torch.ones(()))
        self.eval()

    def cast_maps(self, dtype: torch.dtype) -> None:
        """Round what is added to maps of this dtype, once and for all, as files of graphs hold it."""
        self.bias.data, self.specks = self.bias.data.to(dtype), self.specks.to(dtype)

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None = None) -> Tensor:
        """Convolve [N, C, H, W] to [N, K, S, S]; arguments as of `StyledConv`."""
        style = self.style(w)
        if x.dtype == torch.float16:  # so that no product overflows; the factor cancels in the demodulation
            style = style / style.abs().amax(1, keepdim=True)
        factor = torch.rsqrt(self.squares(style.square()))
        own = (self.specks[None, None], self.one) if noise is None else (noise, self.noise_strength)
        more = self.bias, *own
        last: dict[str, Any] = {"factor": factor, "slope": SLOPE, "gain": 1.0, "clamp": self.clamp}
        finished = None if self.up else getattr(self.conv, "finished", None)
        if finished is not None:
            return finished(x, style, *more, **last)
        y = self.conv(x, style)
        if self.up and on_cpu(y, self.training) and not y.requires_grad:  # the kernel has no derivative
            return blur_noise_act(y, *more, **last)
        return bias_noise_act(blur(y, 1, 4) if self.up else y, *more, **last)


class ScaledRgb(nn.Module):
    """A `ToRgb` for inference.

    The weights are scaled, because three outputs have fewer weights than the map has numbers.

    Args:
        trained: the layer; it is not changed.
    """

    weight: Tensor

    @torch.no_grad()
    def __init__(self, trained: ToRgb) -> None:
        super().__init__()
        self.style, self.clamp = trained.style.folded(), trained.clamp
        self.register_buffer("weight", (trained.weight * trained.gain)[:, :, 0, 0].clone())  # [3, C]
        self.bias = nn.Parameter(trained.bias.detach().clone(), requires_grad=False)
        self.eval()

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Colour [N, C, S, S]: [N, 3, S, S] float32; arguments as of `ToRgb`."""
        weight = (self.style(w)[:, None] * self.weight).to(x.dtype)  # [N, 3, C]
        pixels = x.permute(0, 2, 3, 1).flatten(1, 2)  # [N, S S, C], dense in a channels-last map
        y = (pixels @ weight.transpose(1, 2)).float() + self.bias
        y = y.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)
        return y if self.clamp is None else y.clamp(-self.clamp, self.clamp)
