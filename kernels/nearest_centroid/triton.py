"""nearest_centroid in blocks of points, each of which walks all centroids and keeps the best so far."""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..triton.tuning import size_class, tuned
from ..triton.variants import FLOATS, FP32, Variant, with_wide

_WIDTH = 32  # columns multiplied at a time in every configuration, so that all add products in the same order
_BLOCKS = [
    triton.Config({"POINTS": points, "CENTROIDS": centroids}, num_warps=warps, num_stages=stages)
    for points, centroids, warps, stages in ((64, 64, 4, 2), (32, 64, 4, 2), (128, 64, 8, 2), (64, 128, 8, 2))
]


def nearest_centroid_triton(points: Tensor, centre: Tensor, directions: Tensor, bias: Tensor) -> Tensor:
    """Find the direction with the largest score for each point; points are contiguous, the rest is from scoring()."""
    count, width = points.shape
    nearest = torch.empty(count, dtype=torch.int64, device=points.device)
    _nearest[lambda chosen: (triton.cdiv(count, chosen["POINTS"]),)](
        points, centre.contiguous(), directions.contiguous(), bias, nearest, count, directions.shape[0], width,
        SIZE=size_class(count * directions.shape[0]), WIDTH=_WIDTH,
        enable_fp_fusion=True,  # no sum here equals another backend's in every bit, and products take all the time
    )  # fmt: skip
    return nearest


@tuned(_BLOCKS, "SIZE")
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
    SIZE: tl.constexpr,
    POINTS: tl.constexpr,
    CENTROIDS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * POINTS + tl.arange(0, POINTS)
    best = tl.full((POINTS,), float("-inf"), tl.float32)
    index = tl.zeros((POINTS,), tl.int64)
    # A range would fail: under NumPy 2.4 the interpreter of Triton 3.6 cannot count to a runtime number.
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
            # Products are full float32: TF32 keeps 10 bits, which would confuse neighbours.
            scores = tl.dot(p, c, scores, input_precision="ieee")
            left += WIDTH
        scores += tl.load(bias + k, mask=k < centroids, other=float("-inf"))[None, :]
        # The comparison is false for NaN too, so a score that is not finite never wins.
        scores = tl.where(tl.abs(scores) < float("inf"), scores, float("-inf"))
        top = tl.max(scores, axis=1)
        first = tl.min(tl.where(scores == top[:, None], k[None, :], centroids), axis=1)
        better = top > best
        best = tl.where(better, top, best)
        index = tl.where(better, first.to(tl.int64), index)
        start += CENTROIDS
    tl.store(nearest + row, index, mask=row < count)


def variants() -> Iterator[Variant]:
    """Yield the variants to build ahead of time: nearest_centroid_DTYPE[_wide]."""
    for dtype, pointer in FLOATS.items():
        types = {"points": pointer, "centre": FP32, "directions": FP32, "bias": FP32, "nearest": "*i64"}
        types |= dict.fromkeys(("count", "centroids", "width"), "i32")
        first = _BLOCKS[0]
        variant = Variant(
            f"nearest_centroid_{dtype}", _nearest, types, first.kwargs | {"WIDTH": _WIDTH}, ((("count", "POINTS"),),),
            warps=first.num_warps, stages=first.num_stages, fp_fusion=True,
        )  # fmt: skip
        yield from with_wide(variant, "points", "centre", "directions", "width")
