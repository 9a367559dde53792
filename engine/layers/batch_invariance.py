"""Makes networks batch invariant on a CPU: a sample's results have the same bits in any batch.

Only the layers below round a sample differently in another batch (torch 2.13 on x86):

| layer | why the batch changes its rounding | how it computes instead |
|---|---|---|
| linear | matrix products treat the rows beyond the last whole 16 differently | pads the rows to a multiple of 16 |
| convolution | a single map of up to 20,480 numbers goes to other code than oneDNN | takes such a map twice |
| norm of a map | torch divides a large channels-last batch among its threads before it sums | takes one map at a time |

A product with outputs that are no multiple of 16 has other bits with 3 threads or more; linear layers pad them too.

Each of these layers has a form: a class with the same weights under the same names. A new layer adds a row to `_FORMS`.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .batch_parts import is_written
from .convolutions import CodedConv, PaddedConv, UpConv
from .modulated import SpreadConv, StyleConv
from .norms import MapNorm

__all__ = ["BatchInvariantLinear", "BatchInvariantPointConv", "make_batch_invariant"]

_SMALL = 20480  # numbers of a map


class BatchInvariantLinear(nn.Linear):
    """A linear layer whose rows, in evaluation, have the same bits in any batch."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x W^T + b, [N, inputs] to [N, outputs]."""
        return super().forward(x) if self.training else self.multiply(x, self.weight, self.bias)

    @staticmethod
    def multiply(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return x W^T + b, whose rows have the same bits in any batch, with any number of threads."""
        if is_written():  # then the number of rows is a symbol
            return F.linear(x, weight, bias)
        (count, width), rows, outputs = (len(x), len(weight)), -len(x) % 16, -len(weight) % 16
        x = F.pad(x, (0, 0, 0, rows)) if rows else x
        if outputs:
            weight = F.pad(weight, (0, 0, 0, outputs))
            bias = None if bias is None else F.pad(bias, (0, outputs))
        return F.linear(x, weight, bias)[:count, :width].contiguous()


class BatchInvariantPointConv(nn.Conv2d):
    """A 1x1 convolution whose pixels, in evaluation on a CPU, have the same bits in any map, batch and thread count.

    In float32 oneDNN's convolution has others with another number of threads, or fewer than 16 maps (torch 2.13). A
    product of matrices with the pixels as rows has not, and is as fast.
    """

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True) -> None:
        super().__init__(inputs, outputs, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve [N, C, H, W] to [N, C', H, W]."""
        if self.training or is_written() or x.device.type != "cpu" or self.weight.dtype != torch.float32:
            return super().forward(x)
        pixels = x.permute(0, 2, 3, 1)
        y = BatchInvariantLinear.multiply(pixels.flatten(0, 2), self.weight.flatten(1), self.bias)
        return y.unflatten(0, pixels.shape[:3]).permute(0, 3, 1, 2)


class _Pairs(nn.Module):
    """A convolution that runs on two copies of a single small map."""

    def forward(self, x: Tensor, *code: Tensor) -> Tensor:
        conv: Any = super()
        if len(x) == 1 and x.numel() <= _SMALL:
            twice = x.expand(2, -1, -1, -1).contiguous(memory_format=torch.channels_last)
            return conv.forward(twice, *(t.expand(2, -1) for t in code))[:1]
        return conv.forward(x, *code)


class _Conv2d(_Pairs, nn.Conv2d):
    pass


class _PaddedConv(_Pairs, PaddedConv):
    pass


class _UpConv(_Pairs, UpConv):
    pass


class _CodedConv(_Pairs, CodedConv):
    pass


class _StyleConv(_Pairs, StyleConv):
    pass


class _SpreadConv(_Pairs, SpreadConv):  # type: ignore[misc]
    pass


class _MapNorm(MapNorm):
    def forward(self, x: Tensor) -> Tensor:
        norm = super().forward
        return torch.cat([norm(image) for image in x.split(1)]) if len(x) > 1 else norm(x)


_FORMS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: BatchInvariantLinear,
    nn.Conv2d: _Conv2d,
    PaddedConv: _PaddedConv,
    UpConv: _UpConv,
    CodedConv: _CodedConv,
    StyleConv: _StyleConv,
    SpreadConv: _SpreadConv,
    MapNorm: _MapNorm,
}


def make_batch_invariant(network: nn.Module) -> None:
    """Give every layer whose rounding depends on the batch the form that rounds the same in any batch.

    Args:
        network: a network on a CPU, in evaluation; its layers change class, and keep their weights and names.
    """
    for part in network.modules():
        form = _FORMS.get(type(part))
        if form is not None:
            part.__class__ = form
