"""Cases of rearrange: attention over the tokens of a map."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from ....kernels import rearrange
from .case import Case, tolerance_of

__all__ = ["cases"]

_CUDA_BACKENDS = {
    "sdpa-math": SDPBackend.MATH,
    "sdpa-flash": SDPBackend.FLASH_ATTENTION,
    "sdpa-efficient": SDPBackend.EFFICIENT_ATTENTION,
    "sdpa-cudnn": SDPBackend.CUDNN_ATTENTION,
}
_CPU_BACKENDS = ("sdpa-math", "sdpa-flash")


def cases(dtype: torch.dtype, device: torch.device) -> Iterator[Case]:
    """Yield up to 4096 tokens, a 64x64 map, at 512 features, and with the extra columns that travel with values."""
    shapes = [(1, 256, 512, 512), (1, 1024, 512, 512), (1, 1024, 512, 515)]
    if device.type == "cuda":
        shapes = [(8, 1024, 512, 512), (4, 4096, 256, 256), (4, 4096, 512, 512), (4, 4096, 512, 515)]
    for n, tokens, width, values in shapes:

        def inputs(n: int = n, tokens: int = tokens, width: int = width, values: int = values) -> Any:
            return tuple(torch.randn(n, tokens, d, device=device).to(dtype) for d in (width, width, values))

        names = _CUDA_BACKENDS if device.type == "cuda" else _CPU_BACKENDS
        size, value_size = (n * tokens * d * dtype.itemsize for d in (width, values))
        yield Case(
            "rearrange", f"{n}x{tokens} tokens, {width} and {values} wide", inputs, rearrange, _attention,
            2 * size + 2 * value_size, tolerance_of(dtype),
            training_bytes=3 * (2 * size + value_size) + 2 * value_size,
            operations=2 * n * tokens * tokens * (width + values),
            peers={name: _with_backend(_CUDA_BACKENDS[name]) for name in names},
        )  # fmt: skip


def _attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]


def _with_backend(backend: SDPBackend) -> Callable[..., Tensor]:
    def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with sdpa_kernel([backend]):
            return _attention(q, k, v)

    return attention
