"""The public function nearest_centroid: validation, registration with torch.library, and the choice of a backend."""

from typing import Literal

import torch
from torch import Tensor

from zellige.errors import ShapeError

from ..op import plain
from ..op.dispatch import Backend, choose_backend
from ..op.gradients import differentiated
from ..op.validation import FLOATING, dtype_name, refuse, require_same_device
from .reference import highest, nearest_centroid_reference, scoring

_METRICS = ("euclidean", "cosine")


def nearest_centroid(
    points: Tensor,
    centroids: Tensor,
    metric: Literal["euclidean", "cosine"] = "euclidean",
    *,
    backend: Backend | None = None,
) -> Tensor:
    """Find the nearest centroid of every point, without holding the matrix of distances.

    argmin_k |p - c_k|^2, or argmax_k <p, c_k> / (|p| |c_k|), where a zero vector has similarity 0 with all; in float32
    or wider. Among equal centroids the smallest index wins. A score that is NaN or infinite never wins against a finite
    one; a point without a finite score gets 0.

    There is no C++ kernel, because no loop of ours would beat torch's matrix product over chunks of points. So the
    backends on CPUs are "reference" and, under TRITON_INTERPRET=1 for tests, "triton". Indices have no gradient.

    Args:
        points: p, [M, D], D at least 1, any strides; float32, float16, bfloat16, or float64 (reference only).
        centroids: c, [K, D], K at least 1, points' dtype, any strides.
        metric: "euclidean" or "cosine".
        backend: forces "triton" or "reference"; None takes the device's best one.

    Returns:
        [M], int64, from 0 to K - 1.

    Raises:
        ShapeError: an argument has a rank, size, dtype or device that is not listed above.
        DeviceError: the backend asked for cannot run here.

    Source: the assignment step of k-means (Lloyd 1982).
    """
    if points.dim() != 2 or points.dtype not in FLOATING or points.shape[1] == 0:
        refuse("points", points, "[M, D] with D at least 1, float32, float16, bfloat16 or float64")
    wanted = centroids.dim() == 2 and centroids.shape[0] > 0 and centroids.shape[1] == points.shape[1]
    if not wanted or centroids.dtype != points.dtype:
        allowed = f"[K, {points.shape[1]}] with K at least 1, {dtype_name(points.dtype)}"
        refuse("centroids", centroids, f"{allowed}, for points of shape {list(points.shape)}")
    require_same_device("centroids", centroids, "points", points)
    if metric not in _METRICS:
        raise ShapeError(f"metric is {metric!r}; it must be 'euclidean' or 'cosine'.")
    if plain.this_thread.active or differentiated(points, centroids):
        return highest(points, *scoring(centroids, metric))
    return _nearest_centroid(points, centroids, metric, backend)


@torch.library.custom_op("zellige::nearest_centroid", mutates_args=())
def _nearest_centroid(points: Tensor, centroids: Tensor, metric: str, backend: str | None) -> Tensor:
    if _backend(points, backend) == "reference" or points.shape[0] == 0:
        return nearest_centroid_reference(points, centroids, metric)
    from .triton import nearest_centroid_triton

    return nearest_centroid_triton(points.contiguous(), *scoring(centroids, metric))


@_nearest_centroid.register_fake
def _(points: Tensor, centroids: Tensor, metric: str, backend: str | None) -> Tensor:
    return points.new_empty(points.shape[0], dtype=torch.int64)


def _backend(points: Tensor, backend: str | None) -> str:
    # On a CPU Triton is an interpreter for tests, and there is no C++ kernel to choose before it.
    if backend is None and points.device.type == "cpu":
        return "reference"
    return choose_backend(points.device, backend, points.dtype)
