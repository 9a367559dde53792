"""nearest_centroid in blocks of points, each of which walks all centroids and keeps the best so far."""

import torch
import triton
import triton.language as tl
from torch import Tensor

_POINTS, _CENTROIDS, _WIDTH = 64, 64, 32


def nearest_centroid_triton(points: Tensor, centre: Tensor, directions: Tensor, bias: Tensor) -> Tensor:
    """Find the direction with the largest score for each contiguous point; the rest is what scoring() returns."""
    count, width = points.shape
    nearest = torch.empty(count, dtype=torch.int64, device=points.device)
    _nearest[(triton.cdiv(count, _POINTS),)](
        points, centre.contiguous(), directions.contiguous(), bias, nearest, count, directions.shape[0], width,
        POINTS=_POINTS, CENTROIDS=_CENTROIDS, WIDTH=_WIDTH,
    )  # fmt: skip
    return nearest


@triton.jit
def _nearest(
    points,
    centre,
    directions,
    bias,
    nearest,
    count,
    centroids,
    width,
    POINTS: tl.constexpr,
    CENTROIDS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * POINTS + tl.arange(0, POINTS)
    best = tl.full((POINTS,), float("-inf"), tl.float32)
    index = tl.zeros((POINTS,), tl.int64)
    # No range: under NumPy 2.4 the interpreter of Triton 3.6 cannot count to a runtime number.
    start = 0
    while start < centroids:
        k = start + tl.arange(0, CENTROIDS)
        scores = tl.zeros((POINTS, CENTROIDS), tl.float32)
        left = 0
        while left < width:
            d = left + tl.arange(0, WIDTH)
            here = (row < count)[:, None] & (d < width)[None, :]
            p = tl.load(points + row[:, None] * width + d[None, :], mask=here, other=0.0).to(tl.float32)
            p = tl.where(here, p - tl.load(centre + d, mask=d < width, other=0.0)[None, :], 0.0)
            there = (d < width)[:, None] & (k < centroids)[None, :]
            c = tl.load(directions + k.to(tl.int64)[None, :] * width + d[:, None], mask=there, other=0.0)
            # Full float32 products: those of TF32 have 10 bits, and would confuse neighbours.
            scores = tl.dot(p, c, scores, input_precision="ieee")
            left += WIDTH
        scores += tl.load(bias + k, mask=k < centroids, other=float("-inf"))[None, :]
        # False for NaN too: what is not finite never wins.
        scores = tl.where(tl.abs(scores) < float("inf"), scores, float("-inf"))
        top = tl.max(scores, axis=1)
        first = tl.min(tl.where(scores == top[:, None], k[None, :], centroids), axis=1)
        better = top > best
        best = tl.where(better, top, best)
        index = tl.where(better, first.to(tl.int64), index)
        start += CENTROIDS
    tl.store(nearest + row, index, mask=row < count)
