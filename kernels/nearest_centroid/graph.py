"""nearest_centroid as a node of ONNX. Its function holds the matrix of scores.

The first of equal centroids wins only if the runtime's matrix product gives equal columns equal bits. In the kernel the
first always wins.
"""

from typing import Any

from ..op.nodes import Node, widened

__all__ = ["NODES", "translate"]

# Centroids that are not finite become zeros. Their bias of -inf lets them win only if there is no other.
_CLEANED = """
    zero = Constant <value_float = 0.0> ()
    one = Constant <value_float = 1.0> ()
    lowest = Constant <value_float = -inf> ()
    rows = Constant <value_ints = [0]> ()
    columns = Constant <value_ints = [1]> ()
    differences = Sub (centroids32, centroids32)
    broken = ReduceSum <keepdims = 1> (differences, columns)
    is_broken = IsNaN (broken)
    clean = Where (is_broken, zero, centroids32)
"""
# The centroid nearest to the mean becomes the origin, as in the reference.
_EUCLIDEAN = """
    counted = Where (is_broken, zero, one)
    count = ReduceSum <keepdims = 1> (counted, rows)
    at_least = Max (count, one)
    total = ReduceSum <keepdims = 1> (clean, rows)
    mean = Div (total, at_least)
    from_mean = Sub (clean, mean)
    spreads = ReduceSumSquare <keepdims = 1> (from_mean, columns)
    farthest = Neg (lowest)
    usable = Where (is_broken, farthest, spreads)
    place = ArgMin <axis = 0, keepdims = 0> (usable)
    centre = Gather <axis = 0> (clean, place)
    directions = Sub (clean, centre)
    moved = Sub (points32, centre)
    lengths = ReduceSumSquare <keepdims = 0> (directions, columns)
    minus_half = Constant <value_float = -0.5> ()
    offsets = Mul (lengths, minus_half)
"""
# Vectors are scaled before the norm, so that no square overflows or vanishes. A zero vector stays zero.
_COSINE = """
    sizes = Abs (clean)
    largest = ReduceMax <keepdims = 1> (sizes, columns)
    is_zero = Equal (largest, zero)
    divisor = Where (is_zero, one, largest)
    scaled = Div (clean, divisor)
    squared = ReduceSumSquare <keepdims = 1> (scaled, columns)
    length = Sqrt (squared)
    norm = Where (is_zero, one, length)
    directions = Div (scaled, norm)
    moved = Identity (points32)
    flat_largest = Squeeze (largest, columns)
    offsets = Mul (flat_largest, zero)
"""
_NEAREST = """
    flat_broken = Squeeze (is_broken, columns)
    bias = Where (flat_broken, lowest, offsets)
    turned = Transpose <perm = [1, 0]> (directions)
    products = MatMul (moved, turned)
    scores = Add (products, bias)
    is_nan = IsNaN (scores)
    is_infinite = IsInf (scores)
    is_far = Or (is_nan, is_infinite)
    finite = Where (is_far, lowest, scores)
    y = ArgMax <axis = 1, keepdims = 0> (finite)
"""


def _body(metric: str) -> str:
    return widened("points", "centroids") + _CLEANED + (_EUCLIDEAN if metric == "euclidean" else _COSINE) + _NEAREST


NODES = (
    Node(
        "NearestCentroid",
        inputs=("points", "centroids"),
        attributes={"metric": str},
        body=lambda fixed: _body(str(fixed["metric"])),
    ),
)


def translate(nodes: Any, points: Any, centroids: Any, metric: str, backend: str | None = None) -> Any:
    """Return the node that stands for the custom op."""
    return nodes.NearestCentroid(points, centroids, metric=metric)
