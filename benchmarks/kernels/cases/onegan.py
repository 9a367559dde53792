"""OneGAN's maps: rows that are huge and few, since one sample is one row of the layer norm; and its convolutions."""

from collections.abc import Iterator
from importlib.util import find_spec
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....kernels import glu_layer_norm, mask_composite, winograd_conv, winograd_weight
from .case import ORDERS, Case, random_map, shape_name, tolerance_of

__all__ = ["glu_layer_norm_cases", "mask_composite_cases", "winograd_conv_cases"]

_PLANE, _PIXEL = ORDERS


def glu_layer_norm_cases(dtype: torch.dtype, device: torch.device) -> Iterator[Case]:
    """A generator's first and last blocks at batch 8, and batch 1.

    Liger has no gated layer norm; its group norm with one group is the same normalisation, and is measured with the
    gate in plain PyTorch.
    """
    shapes = [
        ((8, 128, 128, 128), _PLANE), ((8, 128, 128, 128), _PIXEL), ((1, 128, 128, 128), _PIXEL),
        ((8, 512, 16, 16), _PIXEL),
    ]  # fmt: skip
    for shape, order in shapes:

        def inputs(shape: tuple[int, ...] = shape, order: torch.memory_format = order) -> Any:
            factors = (torch.randn(shape[1] // 2, device=device).to(dtype) for _ in range(2))
            return random_map(shape, dtype, device, order), *factors

        def eager(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
            values, gate = x.chunk(2, dim=1)
            return F.group_norm(values, 1, weight, bias) * torch.sigmoid(gate)

        size = torch.Size(shape).numel() * dtype.itemsize
        yield Case(
            "glu_layer_norm", shape_name(shape, order), inputs, glu_layer_norm, eager, size + size // 2,
            tolerance_of(dtype), training_bytes=4 * size, by_pixel=order == _PIXEL, peers={"liger": _liger},
        )  # fmt: skip


def mask_composite_cases(dtype: torch.dtype, device: torch.device) -> Iterator[Case]:
    """Batches of 128x128 images: few, and maps of 16 MiB and more in both memory orders."""
    side = 128
    for n, order in ((8, _PLANE), (128, _PLANE), (128, _PIXEL)):

        def inputs(n: int = n, order: torch.memory_format = order) -> Any:
            return tuple(random_map((n, channels, side, side), dtype, device, order) for channels in (3, 3, 1))

        def eager(foreground: Tensor, background: Tensor, mask: Tensor) -> Tensor:
            share = torch.sigmoid(mask)
            return torch.tanh(foreground) * share + torch.tanh(background) * (1 - share)

        plane = n * side * side * dtype.itemsize
        yield Case(
            "mask_composite", shape_name((n, 3, side, side), order), inputs, mask_composite, eager, 10 * plane,
            tolerance_of(dtype), training_bytes=(3 * 7 + 2 * 3) * plane, by_pixel=order == _PIXEL,
        )  # fmt: skip


def winograd_conv_cases(dtype: torch.dtype, device: torch.device) -> Iterator[Case]:
    """Convolutions of the 128x128 generator, as they are and behind nearest x2, at batch 1 and 8; for CPUs.

    Operations are those of the tiles, which are fewer than the direct sum's by 2.25, or 4 behind x2: a peer that sums
    directly can reach 44 or 25 % of that limit. Maps by plane are what other runtimes know; the kernel then copies them
    into channels-last, which its result is in any case. Weights are constants, and may stay in a cache.
    """
    if device.type != "cpu":
        return
    shapes = [(64, 128, 128, False), (32, 64, 128, False), (64, 128, 64, True), (256, 256, 16, True)]
    for order in (_PIXEL, _PLANE):
        for n, (channels, outputs, side, upsample) in product((1, 8), shapes):
            weight = (torch.randn(outputs, channels, 3, 3) / (9 * channels) ** 0.5).to(dtype)
            matrices = winograd_weight(weight, upsample=upsample)

            def inputs(shape: tuple[int, ...] = (n, channels, side, side), order: torch.memory_format = order) -> Any:
                return (random_map(shape, dtype, device, order),)

            def kernel(x: Tensor, matrices: Tensor = matrices, outputs: int = outputs) -> Tensor:
                return winograd_conv(x, matrices, outputs)

            pixels = n * side * side
            result = (4 if upsample else 1) * pixels * outputs
            note = f"to {outputs}{' x2' if upsample else ''}"
            yield Case(
                "winograd_conv", shape_name((n, channels, side, side), order, note), inputs, kernel,
                _Convolution(weight.contiguous(memory_format=order), upsample),
                (pixels * channels + result) * dtype.itemsize, tolerance_of(dtype),
                # Of a pixel: 9 products, or 16 for 4 of them.
                operations=2 * (9 if upsample else 4) * pixels * channels * outputs, by_pixel=order == _PIXEL,
            )  # fmt: skip


class _Convolution(nn.Module):
    """The direct sum, with its weights as constants."""

    weight: Tensor

    def __init__(self, weight: Tensor, upsample: bool) -> None:
        super().__init__()
        self.upsample = upsample
        self.register_buffer("weight", weight)

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(x, scale_factor=2.0) if self.upsample else x
        return F.conv2d(x, self.weight.to(x.dtype), padding=1)


def _liger(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    if x.device.type != "cuda" or find_spec("liger_kernel") is None:
        raise NotImplementedError("liger_kernel is not installed" if x.device.type == "cuda" else "it is for GPUs")
    from liger_kernel.ops import LigerGroupNormFunction

    values, gate = x.chunk(2, dim=1)
    channels = values.shape[1]
    return LigerGroupNormFunction.apply(values, weight, bias, channels, 1, 1e-5) * torch.sigmoid(gate)
