"""Layers and networks whose results for a sample have the same bits in any batch, on a CPU.

Measured with torch 2.13 on x86, for one number of threads; all other layers of the systems have these bits anyway:

| layer | rounds by the batch because | so it computes |
|---|---|---|
| linear | matrix products treat the rows beyond the last whole 16 differently | whole sixteens of rows |
| convolution | a single map of up to 20,480 numbers goes to other code than oneDNN | two of the map |
| norm of a map | torch divides a large channels-last batch among its threads before it sums | one map at a time |

Each layer has a form, a class with the same weights under the same names; a new layer adds a row to the table.
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
    """A linear layer whose rows have the same bits in any batch, in evaluation."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x W^T + b, [N, inputs] to [N, outputs]."""
        if self.training or is_written():
            return super().forward(x)
        return super().forward(F.pad(x, (0, 0, 0, -len(x) % 16)))[: len(x)]


class _Pairs(nn.Module):
    """A convolution that takes a small map twice."""

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
    """Let every layer that would round by the batch compute in shapes that the batch does not change.

    Args:
        network: on a CPU, in evaluation; its layers change their class, and keep their weights and names.
    """
    for part in network.modules():
        form = _FORMS.get(type(part))
        if form is not None:
            part.__class__ = form
