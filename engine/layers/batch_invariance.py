"""Layers and networks whose results for a sample have the same bits in any batch, on a CPU."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .batch_parts import is_written
from .norms import GluLayerNorm, MapNorm

__all__ = ["BatchInvariantLinear", "make_batch_invariant"]

Layer = Callable[..., Tensor]
_SMALL = 20480  # numbers of a map


class BatchInvariantLinear(nn.Linear):
    """A linear layer whose rows have the same bits in any batch, in evaluation."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x W^T + b, [N, inputs] to [N, outputs]."""
        if self.training or is_written():
            return super().forward(x)
        return _by_sixteen(super().forward)(x)


def make_batch_invariant(network: nn.Module) -> None:
    """Let every layer that would round by the batch compute in shapes that the batch does not change.

    For one number of threads, and for inference alone. Measured with torch 2.13 on x86: all other layers of OneGAN have
    the same bits in any batch.

    Args:
        network: on a CPU; its layers are changed in place, their weights and names are not.
    """
    for part in network.modules():
        if isinstance(part, nn.Linear):
            part.forward = _by_sixteen(part.forward)  # type: ignore[method-assign]
        elif isinstance(part, MapNorm) and not isinstance(part, GluLayerNorm):
            part.forward = _one_by_one(part.forward)  # type: ignore[method-assign]
        elif isinstance(part, nn.Conv2d):
            part.forward = _by_two(part.forward)  # type: ignore[method-assign]


def _by_sixteen(linear: Layer) -> Layer:
    """Matrix products round the rows beyond the last whole 16 differently; so the batch is filled up to whole ones."""

    def filled(x: Tensor) -> Tensor:
        if not x.is_floating_point():  # classes, which a table looks up
            return linear(x)
        return linear(F.pad(x, (0, 0, 0, -len(x) % 16)))[: len(x)]

    return filled


def _one_by_one(norm: Layer) -> Layer:
    """Over a large channels-last map torch sums what each thread was given, which is a share of the whole batch."""

    def each(x: Tensor) -> Tensor:
        return torch.cat([norm(image) for image in x.split(1)]) if len(x) > 1 else norm(x)

    return each


def _by_two(conv: Layer) -> Layer:
    """A single map of up to 20,480 numbers torch does not give to oneDNN, but to a convolution with other sums."""

    def filled(x: Tensor, *code: Tensor) -> Tensor:
        if len(x) == 1 and x.numel() <= _SMALL:
            twice = x.expand(2, -1, -1, -1).contiguous(memory_format=torch.channels_last)
            return conv(twice, *(t.expand(2, -1) for t in code))[:1]
        return conv(x, *code)

    return filled
