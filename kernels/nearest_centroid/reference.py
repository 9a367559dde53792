"""nearest_centroid in plain PyTorch, one matrix product for each chunk of points. CPUs use it too."""

import torch
from torch import Tensor

from ..op.precision import full_precision

_CHUNK = 2**19  # values of a chunk's scores or points: 2 MiB in float32, which stay in a cache


def nearest_centroid_reference(points: Tensor, centroids: Tensor, metric: str) -> Tensor:
    """Compute the result in float32, for float64 points in float64; arguments are those of op.py, validated."""
    scores = scoring(centroids, metric)
    count, width = centroids.shape
    nearest = [highest(chunk, *scores) for chunk in points.split(max(1, _CHUNK // max(count, width)))]
    # A matrix product may give equal centroids unequal last bits, so the winner is replaced by the first of its equals.
    _, group = torch.unique(centroids, dim=0, return_inverse=True)
    order = torch.arange(count, device=centroids.device)
    first = torch.full_like(order, count).scatter_reduce_(0, group, order, "amin")
    return first[group[torch.cat(nearest)]]


def scoring(centroids: Tensor, metric: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return centre [D], directions [K, D] and bias [K]: the largest <point - centre, direction> + bias is the nearest.

    Euclidean: |p - c|^2 = |p|^2 - 2 <p, c> + |c|^2, and the first term is the same for all centroids. Squares of a
    large common offset would swallow the differences, so the centroid nearest to the mean becomes the origin. The mean
    itself would not do, because integers would not stay integers, nor ties ties.
    """
    centroids = centroids.to(torch.promote_types(centroids.dtype, torch.float32))
    finite = centroids.isfinite().all(1)
    centroids = torch.where(finite[:, None], centroids, 0)
    if metric == "euclidean":
        mean = centroids.sum(0) / finite.sum().clamp(min=1)
        # Rows that are not finite were set to zero; one of them is chosen only if there is no other.
        centre = centroids[torch.where(finite, (centroids - mean).square().sum(1), torch.inf).argmin()]
        directions = centroids - centre
        bias = directions.square().sum(1) * -0.5
    else:
        centre = torch.zeros_like(centroids[0])
        # Vectors are scaled before the norm, so that no square overflows or vanishes. A zero vector stays zero.
        largest = centroids.abs().amax(1, keepdim=True)
        scaled = torch.where(largest > 0, centroids / largest, 0)
        directions = torch.where(largest > 0, scaled / scaled.square().sum(1, keepdim=True).sqrt(), 0)
        bias = torch.zeros_like(largest[:, 0])
    return centre, directions, torch.where(finite, bias, -torch.inf)


def highest(points: Tensor, centre: Tensor, directions: Tensor, bias: Tensor) -> Tensor:
    """Return [M]: for each point the index of its largest score, from the results of `scoring`."""
    with full_precision(points.device):
        scores = torch.addmm(bias, points.to(bias.dtype) - centre, directions.T)
    return scores.nan_to_num_(nan=-torch.inf, posinf=-torch.inf, neginf=-torch.inf).argmax(1)
