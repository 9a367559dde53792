"""affine_relu as a node of ONNX."""

from typing import Any

from ..op.nodes import Node, widened

__all__ = ["NODES", "rectified", "translate"]

_RECTIFIED = """
    axes = Constant <value_ints = [2, 3]> ()
    scale_map = Unsqueeze ({scale}32, axes)
    shift_map = Unsqueeze ({shift}32, axes)

    scaled = Mul ({x}32, scale_map)
    shifted = Add (scaled, shift_map)
    y32 = Relu (shifted)
    {y} = CastLike (y32, x)
"""
_DOUBLED = """
    scales = Constant <value_floats = [1.0, 1.0, 2.0, 2.0]> ()
    y = Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor">
        (once, , scales)
"""


def rectified(x: str, scale: str, shift: str, y: str = "y") -> str:
    """Return the function's text behind its casts, for the map and factors of these names."""
    return _RECTIFIED.format(x=x, scale=scale, shift=shift, y=y)


def _body(upsample: bool) -> str:
    text = widened("x", "scale", "shift") + rectified("x", "scale", "shift", "once" if upsample else "y")
    return text + _DOUBLED if upsample else text


NODES = (
    Node(
        "AffineRelu",
        inputs=("x", "scale", "shift"),
        attributes={"upsample": int},
        body=lambda fixed: _body(bool(fixed["upsample"])),
    ),
)


def translate(nodes: Any, x: Any, scale: Any, shift: Any, upsample: bool, backend: str | None = None) -> Any:
    """Return the node that stands for the custom op."""
    return nodes.AffineRelu(x, scale, shift, upsample=int(upsample))
