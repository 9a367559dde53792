"""glu_layer_norm as a node of ONNX."""

from typing import Any

from ..op.nodes import Node, widened

__all__ = ["NODES", "normalised", "translate"]

_MAPS = """
    axes = Constant <value_ints = [1, 2]> ()
    scale_map = Unsqueeze (weight32, axes)
    shift_map = Unsqueeze (bias32, axes)
"""
_GATED = """
    left, right = Split <axis = 1, num_outputs = 2> ({x}32)
    whole = Constant <value_ints = [1, 2, 3]> ()
    mean = ReduceMean (left, whole)
    centred = Sub (left, mean)
    squares = Mul (centred, centred)
    variance = ReduceMean (squares, whole)
    epsilon = Constant <value_float: float = @eps> ()
    above = Add (variance, epsilon)
    deviation = Sqrt (above)
    normal = Div (centred, deviation)
    scaled = Mul (normal, scale_map)
    shifted = Add (scaled, shift_map)
    gate = Sigmoid (right)
    y32 = Mul (shifted, gate)
    y = CastLike (y32, x)
"""


def normalised(x: str) -> str:
    """Return the function's text behind its casts, for the map of this name."""
    return _MAPS + _GATED.format(x=x)


NODES = (
    Node(
        "GluLayerNorm",
        inputs=("x", "weight", "bias"),
        attributes={"eps": float},
        body=lambda fixed: widened("x", "weight", "bias") + normalised("x"),
    ),
)


def translate(nodes: Any, x: Any, weight: Any, bias: Any, eps: float, backend: str | None = None) -> Any:
    """Return the node that stands for the custom op."""
    return nodes.GluLayerNorm(x, weight, bias, eps=eps)
