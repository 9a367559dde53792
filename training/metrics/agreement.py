"""Agreement of masks and clusters with a known truth: IoU, Dice, clustering accuracy, NMI."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from zellige.errors import DataError, MissingExtraError, ShapeError

__all__ = [
    "clustering_accuracy",
    "dice",
    "intersection_over_union",
    "matched_clusters",
    "normalized_mutual_information",
]

Masks = NDArray[np.bool_] | NDArray[np.uint8] | NDArray[np.floating[Any]]
Labels = NDArray[np.integer[Any]]


def intersection_over_union(predicted: Masks, truth: Masks) -> float:
    """|P and T| / |P or T| of the foregrounds, mean over images; 1 for an image in which both are empty.

    Args:
        predicted, truth: [N, H, W]; bool, uint8 from 0 to 255, or floating from 0 to 1. Foreground begins at a half.
    Raises:
        ShapeError: the masks differ in shape, or there are none.
        DataError: a floating mask holds a value that is not finite.
    """
    both, predicted_area, true_area = _areas(predicted, truth)
    return _mean_ratio(both, predicted_area + true_area - both)


def dice(predicted: Masks, truth: Masks) -> float:
    """2 |P and T| / (|P| + |T|) of the foregrounds, mean over images; 1 for an image in which both are empty.

    Args:
        predicted, truth: as for `intersection_over_union`.
    Raises:
        ShapeError, DataError: as `intersection_over_union`.
    """
    both, predicted_area, true_area = _areas(predicted, truth)
    return _mean_ratio(2 * both, predicted_area + true_area)


def clustering_accuracy(clusters: Labels, classes: Labels) -> float:
    """Share of samples that are in the cluster of their class, under the best one-to-one matching of the two.

    Args:
        clusters, classes: [N], any integers. There may be more of one than of the other; samples of a cluster or class
            without a partner count as wrong.
    Returns:
        0 to 1.
    Raises:
        ShapeError: the labels are not two lists of one length, or empty.
        MissingExtraError: scipy is not installed.
    """
    matched = matched_clusters(clusters, classes)
    hits = sum(np.count_nonzero((classes == name) & (clusters == cluster)) for name, cluster in matched.items())
    return float(hits / len(classes))


def matched_clusters(clusters: Labels, classes: Labels) -> dict[int, int]:
    """Match classes to clusters one to one, so that as many samples as possible are in the cluster of their class.

    Args:
        clusters, classes: as for `clustering_accuracy`.
    Returns:
        class -> cluster; a class that shares no sample with its cluster, or has none, is left out.
    Raises:
        ShapeError, MissingExtraError: as `clustering_accuracy`.
    Source: Kuhn (1955), the Hungarian method.
    """
    try:
        from scipy.optimize import linear_sum_assignment
    except ModuleNotFoundError as error:
        raise MissingExtraError("scipy", "clustering accuracy", "train") from error
    counts = _contingency(clusters, classes)
    pairs = zip(*linear_sum_assignment(counts, maximize=True), strict=True)
    rows, columns = np.unique(clusters), np.unique(classes)
    return {int(columns[column]): int(rows[row]) for row, column in pairs if counts[row, column]}


def normalized_mutual_information(clusters: Labels, classes: Labels) -> float:
    """2 I(K; C) / (H(K) + H(C)): 1 if clusters and classes determine each other, 0 if they are independent.

    Args:
        clusters, classes: [N], any integers.
    Returns:
        0 to 1; 1 if there is one cluster and one class.
    Raises:
        ShapeError: the labels are not two lists of one length, or empty.
    Source: scikit-learn, which divides by the arithmetic mean of the entropies too.
    """
    joint = _contingency(clusters, classes) / len(clusters)
    of_clusters, of_classes = _entropy(joint.sum(axis=1)), _entropy(joint.sum(axis=0))
    if of_clusters + of_classes == 0:
        return 1.0
    shared = of_clusters + of_classes - _entropy(joint)
    return float(np.clip(2 * shared / (of_clusters + of_classes), 0, 1))


def _areas(predicted: Masks, truth: Masks) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Count each image's pixels in both foregrounds, in the predicted one and in the true one: [N] each."""
    if predicted.shape != truth.shape or predicted.ndim != 3 or 0 in predicted.shape:
        raise ShapeError(f"masks must be [N, H, W] of one shape; got {predicted.shape} and {truth.shape}")
    ours, theirs = _foreground(predicted), _foreground(truth)
    return (ours & theirs).sum((1, 2)), ours.sum((1, 2)), theirs.sum((1, 2))


def _foreground(masks: Masks) -> NDArray[np.bool_]:
    if masks.dtype == np.bool_:
        return masks.astype(np.bool_)
    if masks.dtype == np.uint8:
        return masks >= 128
    if np.issubdtype(masks.dtype, np.floating):
        if not np.isfinite(masks).all():
            raise DataError("masks hold values that are not finite, so they cannot be compared")
        return masks >= 0.5
    raise ShapeError(f"masks must be bool, uint8 (0 to 255) or floating (0 to 1); got {masks.dtype}")


def _mean_ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> float:
    return float(np.where(whole == 0, 1.0, part / np.maximum(whole, 1)).mean())


def _contingency(clusters: Labels, classes: Labels) -> NDArray[np.int64]:
    """Count the samples that each cluster has of each class: [clusters, classes]."""
    if clusters.shape != classes.shape or clusters.ndim != 1 or not len(clusters):
        raise ShapeError(f"clusters and classes must be [N] of one length; got {clusters.shape} and {classes.shape}")
    (rows, row), (columns, column) = (np.unique(labels, return_inverse=True) for labels in (clusters, classes))
    counts = np.zeros((len(rows), len(columns)), np.int64)
    np.add.at(counts, (row, column), 1)
    return counts


def _entropy(shares: NDArray[np.float64]) -> float:
    positive = shares[shares > 0]
    return float(-(positive * np.log(positive)).sum())
