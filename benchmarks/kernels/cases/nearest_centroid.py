"""Cases of nearest_centroid: labels of features among proxy classes and clusters."""

from collections.abc import Iterator
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ....kernels import nearest_centroid
from .case import Case, tolerance_of

__all__ = ["cases"]


def cases(dtype: torch.dtype, device: torch.device) -> Iterator[Case]:
    """Yield one sample's and a batch's labels among 25 proxy classes in both metrics, and among 256 clusters."""
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


def _distances(points: Tensor, centroids: Tensor) -> Tensor:
    # cdist takes no halves.
    wide = torch.promote_types(points.dtype, torch.float32)
    return torch.cdist(points.to(wide), centroids.to(wide)).argmin(1)


def _product(points: Tensor, centroids: Tensor) -> Tensor:
    """Find the nearest centroids without the squares of the points, in one matrix product."""
    wide = torch.promote_types(points.dtype, torch.float32)
    squares = centroids.to(wide).square().sum(1)
    return (squares - 2 * (points @ centroids.T).to(wide)).argmin(1)


def _similarity(points: Tensor, centroids: Tensor) -> Tensor:
    # The length of a point does not change which centroid is most similar to it.
    return (points @ F.normalize(centroids, dim=1).T).argmax(1)


# Indices may differ if two centroids are equally near, so distances are compared instead.
def _distance(index: Tensor, points: Tensor, centroids: Tensor) -> Tensor:
    return (points.double() - centroids.double()[index]).norm(dim=1)


def _nearness(index: Tensor, points: Tensor, centroids: Tensor) -> Tensor:
    return F.cosine_similarity(points.double(), centroids.double()[index])
