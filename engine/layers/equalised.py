"""Layers of equalised learning rate: weights are kept as N(0, 1) and multiplied by their gain whenever they are used.

Adam moves every kept number by about the same step, so layers of any width learn at one rate. `fold_gains`
multiplies the gains in for inference. Source: Karras et al. 2018; its form is StyleGAN2's.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...kernels import bias_noise_act

__all__ = ["ActivatedConv", "EqualisedConv", "EqualisedLinear", "fold_gains"]

SLOPE, GAIN = 0.2, 2**0.5  # of StyleGAN2's leaky ReLU


class EqualisedLinear(nn.Linear):
    """y = x (m / sqrt(inputs) W)^T + m b, in float32, where m is a multiplier of the learning rate.

    Args:
        inputs, outputs: features.
        rate: m; weights are kept as N(0, 1) / m.
        bias: value of m b at the start.
    """

    def __init__(self, inputs: int, outputs: int, *, rate: float = 1.0, bias: float = 0.0) -> None:
        super().__init__(inputs, outputs)
        self.gain, self.bias_gain = rate / math.sqrt(inputs), rate
        nn.init.normal_(self.weight, std=1 / rate)
        nn.init.constant_(self.bias, bias / rate)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, outputs] of [N, inputs]."""
        bias = self.bias if self.bias_gain == 1 else self.bias * self.bias_gain
        return F.linear(x.float(), self.weight * self.gain, bias)

    @torch.no_grad()
    def folded(self) -> nn.Linear:
        """A plain layer of the same arithmetic, with the gains multiplied in; for inference."""
        with torch.device("meta"):
            plain = nn.Linear(self.in_features, self.out_features)
        plain.weight = nn.Parameter((self.weight.double() * self.gain).float(), requires_grad=False)
        plain.bias = nn.Parameter((self.bias.double() * self.bias_gain).float(), requires_grad=False)
        return plain.eval()


class EqualisedConv(nn.Conv2d):
    """A convolution in its input's dtype, whose weights are multiplied by 1 / sqrt(inputs * side^2).

    Args:
        inputs, outputs: channels.
        side: of the kernel.
        stride: of the convolution.
        padding: cells of zeros on every side.
        bias: whether it has one.
    """

    def __init__(
        self, inputs: int, outputs: int, side: int = 3, *, stride: int = 1, padding: int = 0, bias: bool = True
    ) -> None:
        super().__init__(inputs, outputs, side, stride, padding, bias=bias)
        self.gain = 1 / math.sqrt(inputs * side**2)
        nn.init.normal_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve [N, C, H, W] with the bias."""
        return self._conv_forward(x, self.scaled(x.dtype), None if self.bias is None else self.bias.to(x.dtype))

    def scaled(self, dtype: torch.dtype) -> Tensor:
        """The weight with its gain."""
        return (self.weight * self.gain).to(dtype)

    @torch.no_grad()
    def folded(self) -> nn.Module:
        """A plain layer of the same arithmetic, with the gain multiplied in; for inference."""
        return self._plain(1.0)

    def _plain(self, factor: float) -> nn.Conv2d:
        """A plain convolution whose result is `factor` times this one's."""
        with torch.device("meta"):
            plain = nn.Conv2d(
                self.in_channels, self.out_channels, self.kernel_size[0], self.stride[0], int(self.padding[0]),
                bias=self.bias is not None,
            )  # fmt: skip
        weight = (self.weight.double() * (self.gain * factor)).float().contiguous(memory_format=torch.channels_last)
        plain.weight = nn.Parameter(weight, requires_grad=False)
        if self.bias is not None:
            plain.bias = nn.Parameter((self.bias.double() * factor).float(), requires_grad=False)
        return plain.eval()


class ActivatedConv(EqualisedConv):
    """An `EqualisedConv` and StyleGAN2's activation behind it: sqrt(2) lrelu(conv(x) + bias), at a slope of 0.2."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolve [N, C, H, W]; bias and activation are one kernel."""
        assert self.bias is not None
        return bias_noise_act(self._conv_forward(x, self.scaled(x.dtype), None), self.bias)

    @torch.no_grad()
    def folded(self) -> nn.Module:
        """Plain layers of the same arithmetic, lrelu(sqrt(2) v) = sqrt(2) lrelu(v); for inference."""
        return nn.Sequential(self._plain(GAIN), nn.LeakyReLU(SLOPE))


def fold_gains(network: nn.Module) -> None:
    """Replace all layers of equalised learning rate by plain ones of the same arithmetic, which do not train."""
    for part in list(network.modules()):
        for name, layer in list(part.named_children()):
            if isinstance(layer, EqualisedConv | EqualisedLinear):
                setattr(part, name, layer.folded())
