"""The rearranger's attention over the tokens of a map, and the labels of its features."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from ....kernels import nearest_centroid, rearrange
from .case import Case, tolerance_of

__all__ = ["nearest_centroid_cases", "rearrange_cases"]

_CUDA_BACKENDS = {
    "sdpa-math": SDPBackend.MATH,
    "sdpa-flash": SDPBackend.FLASH_ATTENTION,
    "sdpa-efficient": SDPBackend.EFFICIENT_ATTENTION,
    "sdpa-cudnn": SDPBackend.CUDNN_ATTENTION,
}
_CPU_BACKENDS = ("sdpa-math", "sdpa-flash")


def rearrange_cases(dtype: torch.dtype, device: torch.device) -> Iterator[Case]:
    """Up to 4096 tokens, the 64x64 map, at 512 features, and with the columns that travel along."""
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


def nearest_centroid_cases(dtype: torch.dtype, device: torch.device) -> Iterator[Case]:
    """One sample's and a batch's labels among 25 proxy classes, by both metrics; 256 clusters."""
    shapes: list[tuple[int, int, int, Literal["euclidean", "cosine"]]] = [
        (4096, 512, 25, "euclidean"), (32768, 512, 25, "cosine"), (16384, 512, 256, "euclidean"),
    ]  # fmt: skip
    for points, width, count, metric in shapes:

        def inputs(points: int = points, width: int = width, count: int = count) -> Any:
            return tuple(torch.randn(rows, width, device=device).to(dtype) for rows in (points, count))

        product = _similarity if metric == "cosine" else _product
        yield Case(
            "nearest_centroid", f"{points}x{width} to {count} {metric}", inputs,
            partial(nearest_centroid, metric=metric), _similarity if metric == "cosine" else _distances,
            (points + count) * width * dtype.itemsize + points * 8, tolerance_of(dtype),
            operations=2 * points * width * count, peers={} if metric == "cosine" else {"eager-product": _product},
            graph=product, seen=_nearness if metric == "cosine" else _distance,
        )  # fmt: skip


def _attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]


def _with_backend(backend: SDPBackend) -> Callable[..., Tensor]:
    def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with sdpa_kernel([backend]):
            return _attention(q, k, v)

    return attention


def _distances(points: Tensor, centroids: Tensor) -> Tensor:
    # cdist takes no halves.
    wide = torch.promote_types(points.dtype, torch.float32)
    return torch.cdist(points.to(wide), centroids.to(wide)).argmin(1)


def _product(points: Tensor, centroids: Tensor) -> Tensor:
    """The same without the squares of the points, as one matrix product."""
    wide = torch.promote_types(points.dtype, torch.float32)
    squares = centroids.to(wide).square().sum(1)
    return (squares - 2 * (points @ centroids.T).to(wide)).argmin(1)


def _similarity(points: Tensor, centroids: Tensor) -> Tensor:
    # The lengths of the points do not change which is the most similar.
    return (points @ F.normalize(centroids, dim=1).T).argmax(1)


# Indices may differ where two centroids are equally near; how near they are may not.
def _distance(index: Tensor, points: Tensor, centroids: Tensor) -> Tensor:
    return (points.double() - centroids.double()[index]).norm(dim=1)


def _nearness(index: Tensor, points: Tensor, centroids: Tensor) -> Tensor:
    return F.cosine_similarity(points.double(), centroids.double()[index])
