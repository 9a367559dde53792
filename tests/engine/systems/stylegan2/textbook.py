"""StyleGAN2's arithmetic as its paper writes it, with weights of its own for every sample."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

State = dict[str, Tensor]
LINE = torch.tensor([1.0, 3.0, 3.0, 1.0])
FIR = LINE[:, None] * LINE / 64  # of sum 1


class Draw:
    """Random tensors."""

    def __init__(self, seed: int) -> None:
        self.random = torch.Generator().manual_seed(seed)

    def __call__(self, *shape: int, mean: float = 0.0, std: float = 1.0) -> Tensor:
        return mean + std * torch.randn(shape, generator=self.random)


def unit(z: Tensor) -> Tensor:
    return z / (z.square().mean(1, keepdim=True) + 1e-8).sqrt()


def active(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0.2 * x) * math.sqrt(2)


def dense(x: Tensor, weight: Tensor, bias: Tensor, rate: float = 1.0) -> Tensor:
    return x @ (weight * rate / math.sqrt(weight.shape[1])).T + bias * rate


def filtered(x: Tensor, taps: Tensor, before: int, after: int) -> Tensor:
    padded = F.pad(x, (before, after, before, after))
    return F.conv2d(padded.flatten(0, 1)[:, None], taps[None, None]).unflatten(0, x.shape[:2])[:, :, 0]


def spread(x: Tensor) -> Tensor:
    """Zeros behind every pixel, right and below."""
    wide = x.new_zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
    wide[:, :, ::2, ::2] = x
    return wide


def modulated(
    x: Tensor, weight: Tensor, style: Tensor, convolve: Callable[[Tensor, Tensor], Tensor], eps: float
) -> Tensor:
    own = weight[None] * style[:, None, :, None, None]
    own = own * (own.square().sum((2, 3, 4), keepdim=True) + eps).rsqrt()
    return torch.cat([convolve(x[n : n + 1], own[n]) for n in range(len(x))])


def same(x: Tensor, weight: Tensor) -> Tensor:
    return F.conv2d(x, weight, padding=1)


def transposed(x: Tensor, weight: Tensor) -> Tensor:
    return F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)


def coloured(x: Tensor, weight: Tensor, style: Tensor, bias: Tensor) -> Tensor:
    return torch.einsum("nchw,nc,kc->nkhw", x, style, weight / math.sqrt(x.shape[1])) + bias[:, None, None]
