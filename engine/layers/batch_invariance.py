"""Makes networks batch invariant on a CPU: a sample's results have the same bits in any batch.

Only the layers below round a sample differently in another batch (torch 2.13 on x86, for one number of threads):

| layer | why the batch changes its rounding | how it computes instead |
|---|---|---|
| linear | matrix products treat the rows beyond the last whole 16 differently | pads the rows to a multiple of 16 |
| convolution | a single map of up to 20,480 numbers goes to other code than oneDNN | takes such a map twice |
| norm of a map | torch divides a large channels-last batch among its threads before it sums | takes one map at a time |

Each of these layers has a form: a class with the same weights under the same names. A new layer adds a row to `_FORMS`.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .batch_parts import is_written
from .convolutions import CodedConv, PaddedConv, UpConv
from .norms import MapNorm

__all__ = ["BatchInvariantLinear", "make_batch_invariant"]

_SMALL = 20480  # numbers of a map


class BatchInvariantLinear(nn.Linear):
    """A linear layer whose rows, in evaluation, have the same bits in any batch."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x W^T + b, [N, inputs] to [N, outputs]."""
        return super().forward(x) if self.training else self.multiply(x, self.weight, self.bias)

    @staticmethod
    def multiply(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return x W^T + b, whose rows have the same bits in any batch."""
        if is_written():
            return F.linear(x, weight, bias)
        return F.linear(F.pad(x, (0, 0, 0, -len(x) % 16)), weight, bias)[: len(x)]


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
