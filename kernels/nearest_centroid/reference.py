"""nearest_centroid in plain PyTorch: chunks of points, each one matrix product. It is the CPU's path too."""

import torch
from torch import Tensor

from ..op.precision import full_precision

_CHUNK = 2**19  # values of a chunk's scores or points: 2 MiB in float32, which stay in a cache


def nearest_centroid_reference(points: Tensor, centroids: Tensor, metric: str) -> Tensor:
    """Compute it in float32, or in float64 for such points; arguments as in op.py, already validated."""
    scores = scoring(centroids, metric)
    count, width = centroids.shape
    nearest = [highest(chunk, *scores) for chunk in points.split(max(1, _CHUNK // max(count, width)))]
    # A matrix product may give equal centroids unequal last bits: whichever has won, the first of them is meant.
    _, group = torch.unique(centroids, dim=0, return_inverse=True)
    order = torch.arange(count, device=centroids.device)
    first = torch.full_like(order, count).scatter_reduce_(0, group, order, "amin")
    return first[group[torch.cat(nearest)]]


def scoring(centroids: Tensor, metric: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return centre [D], directions [K, D] and bias [K]: the largest <point - centre, direction> + bias is the nearest.

    Euclidean: of |p - c|^2 = |p|^2 - 2 <p, c> + |c|^2 the first term is the same for all centroids. Squares of a large
    common offset would swallow the differences, so all is measured from one of the centroids, the one nearest to their
    mean: unlike the mean itself it leaves integers integers, and with them the ties.
    """
    centroids = centroids.to(torch.promote_types(centroids.dtype, torch.float32))
    finite = centroids.isfinite().all(1)
    centroids = torch.where(finite[:, None], centroids, 0)
    if metric == "euclidean":
        mean = centroids.sum(0) / finite.sum().clamp(min=1)
        # Rows that are not finite are zeros here, and may be chosen only where there is no other.
        centre = centroids[torch.where(finite, (centroids - mean).square().sum(1), torch.inf).argmin()]
        directions = centroids - centre
        bias = directions.square().sum(1) * -0.5
    else:
        centre = torch.zeros_like(centroids[0])
        # Scaled before the norm, so that no square overflows or vanishes; a zero vector stays zero.
        largest = centroids.abs().amax(1, keepdim=True)
        scaled = torch.where(largest > 0, centroids / largest, 0)
        directions = torch.where(largest > 0, scaled / scaled.square().sum(1, keepdim=True).sqrt(), 0)
        bias = torch.zeros_like(largest[:, 0])
    return centre, directions, torch.where(finite, bias, -torch.inf)


def highest(points: Tensor, centre: Tensor, directions: Tensor, bias: Tensor) -> Tensor:
    """Return the index of the largest score of each point, [M], from the results of `scoring`."""
    with full_precision(points.device):
        scores = torch.addmm(bias, points.to(bias.dtype) - centre, directions.T)
    return scores.nan_to_num_(nan=-torch.inf, posinf=-torch.inf, neginf=-torch.inf).argmax(1)
