"""Cases of glu_layer_norm: gated layer norms whose rows are few and huge, because a sample is one row."""

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ....kernels import glu_layer_norm
from .case import ORDERS, Case, random_map, shape_name, tolerance_of

__all__ = ["cases"]

_PLANE, _PIXEL = ORDERS


def cases(dtype: torch.dtype, device: torch.device) -> Iterator[Case]:
    """Yield a generator's first and last blocks at batch 8, and batch 1.

    Liger has no gated layer norm. Its group norm with one group is the same normalisation, so it is measured with the
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


def _liger(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    if x.device.type != "cuda" or find_spec("liger_kernel") is None:
        raise NotImplementedError("liger_kernel is not installed" if x.device.type == "cuda" else "it is for GPUs")
    from liger_kernel.ops import LigerGroupNormFunction

    values, gate = x.chunk(2, dim=1)
    channels = values.shape[1]
    return LigerGroupNormFunction.apply(values, weight, bias, channels, 1, 1e-5) * torch.sigmoid(gate)
