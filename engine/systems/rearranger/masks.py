"""Proxy masks: labels of features by fixed centroids, how these are found, and masks as pictures."""

import colorsys
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zellige.errors import ShapeError

from ....kernels import nearest_centroid
from .config import RearrangerConfig

__all__ = ["colours", "fit_centroids", "labels_of", "mean_iou", "similarities"]

_ITERATIONS = 50
_SETTLED = 1e-4  # share of the features that may still change their label
_TINY = 1e-12


def labels_of(features: Tensor, centroids: Tensor, metric: str = "cosine") -> Tensor:
    """The label of every pixel, int64 [N, S, S]: the nearest centroid.

    Args:
        features: [N, C, S, S].
        centroids: [K, C] float32.
        metric: "cosine" or "euclidean".
    """
    points = features.permute(0, 2, 3, 1).float()
    nearest = nearest_centroid(points.flatten(0, 2), centroids, "cosine" if metric == "cosine" else "euclidean")
    return nearest.unflatten(0, points.shape[:3])


def similarities(features: Tensor, centroids: Tensor) -> Tensor:
    """The cosine of every pixel's feature and every centroid, [N, K, S, S], differentiable."""
    directions = torch.nn.functional.normalize(centroids, dim=1)
    units = torch.nn.functional.normalize(features.float(), dim=1)
    return torch.einsum("nchw,kc->nkhw", units, directions)


def fit_centroids(maps: Iterable[Tensor], config: RearrangerConfig, seed: int = 0) -> Tensor:
    """Centroids of features by k-means, [K, C] float32; deterministic.

    With the cosine metric it is spherical k-means: features have length 1, and centroids are scaled back to it in every
    iteration. The first centroids are drawn by k-means++; a centroid without features moves to the feature that is
    farthest from its own.

    Args:
        maps: features [N, C, S, S] of samples, 256 of them in the paper.
        config: number of clusters and metric.
        seed: of the first centroids.
    Raises:
        ShapeError: there are fewer features than clusters.
    Source: Collins et al. 2020 (spherical); Arthur & Vassilvitskii 2007.
    """
    points = torch.cat([x.permute(0, 2, 3, 1).flatten(0, 2).float() for x in maps])
    if len(points) < config.clusters:
        raise ShapeError(f"{len(points)} features cannot make {config.clusters} clusters; take more samples")
    spherical = config.metric == "cosine"
    points = _units(points) if spherical else points
    centroids = _spread(points, config.clusters, torch.Generator().manual_seed(seed))
    before = torch.full((len(points),), -1)
    for _ in range(_ITERATIONS):
        labels = nearest_centroid(points, centroids)
        if (labels != before).float().mean() <= _SETTLED:
            break
        before, centroids = labels, _means(points, labels, centroids)
        centroids = _units(centroids) if spherical else centroids
    return centroids


def mean_iou(made: Tensor, wanted: Tensor, clusters: int) -> float:
    """Intersection over union of two masks, mean over the labels that either has in all samples together.

    Args:
        made, wanted: int64 [N, S, S].
        clusters: number of labels.
    """
    pairs = (
        torch.bincount((wanted * clusters + made).flatten(), minlength=clusters**2).view(clusters, clusters).double()
    )
    both, either = pairs.diagonal(), pairs.sum(0) + pairs.sum(1) - pairs.diagonal()
    return float((both / either)[either > 0].mean())


def colours(count: int) -> npt.NDArray[np.uint8]:
    """A colour for each label, uint8 [count, 3]: hues around the circle, in three lightnesses."""
    hues = [(k * 0.381966) % 1 for k in range(count)]
    tones = [colorsys.hls_to_rgb(hue, (0.35, 0.55, 0.75)[k % 3], 0.75) for k, hue in enumerate(hues)]
    return np.rint(np.array(tones) * 255).astype(np.uint8)


def _units(points: Tensor) -> Tensor:
    return points / points.norm(dim=1, keepdim=True).clamp(min=_TINY)


def _spread(points: Tensor, count: int, random: torch.Generator) -> Tensor:
    """First centroids: each is drawn with a probability that grows with the square of its distance to the others."""
    chosen = [points[int(torch.randint(len(points), (1,), generator=random))]]
    far = (points - chosen[0]).square().sum(1)
    for _ in range(count - 1):
        sums = far.double().cumsum(0)
        place = torch.rand(1, generator=random, dtype=torch.float64) * sums[-1]
        chosen.append(points[min(int(torch.searchsorted(sums, place)), len(points) - 1)])
        far = torch.minimum(far, (points - chosen[-1]).square().sum(1))
    return torch.stack(chosen)


def _means(points: Tensor, labels: Tensor, centroids: Tensor) -> Tensor:
    sums = torch.zeros_like(centroids, dtype=torch.float64).index_add_(0, labels, points.double())
    counts = torch.bincount(labels, minlength=len(centroids))
    means = (sums / counts.clamp(min=1)[:, None]).float()
    empty = (counts == 0).nonzero()[:, 0]
    if len(empty):
        far = (points - centroids[labels]).square().sum(1)
        means[empty] = points[far.topk(len(empty)).indices]
    return means
