"""affine_relu as a node of ONNX."""

from functools import partial
from typing import Any

from ..op.nodes import Fixed, Node, widened

__all__ = ["NODES", "rectified", "translate"]

_UNSQUEEZED = """
    axes = Constant <value_ints = [2, 3]> ()
    scale_map = Unsqueeze ({scale}32, axes)
    shift_map = Unsqueeze ({shift}32, axes)
"""
_RECTIFIED = """
    scaled = Mul ({x}32, {scale})
    shifted = Add (scaled, {shift})
    y32 = Relu (shifted)
    {y} = CastLike (y32, x)
"""
_DOUBLED = """
    scales = Constant <value_floats = [1.0, 1.0, 2.0, 2.0]> ()
    y = Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor">
        (once, , scales)
"""


def rectified(x: str, scale: str, shift: str, y: str = "y", *, varying: bool = False) -> str:
    """Return the function's text behind its casts, for the map and factors of these names."""
    if varying:
        return _RECTIFIED.format(x=x, scale=f"{scale}32", shift=f"{shift}32", y=y)
    text = _UNSQUEEZED.format(scale=scale, shift=shift)
    return text + _RECTIFIED.format(x=x, scale="scale_map", shift="shift_map", y=y)


def _body(fixed: Fixed, varying: bool) -> str:
    upsample = bool(fixed["upsample"])
    text = widened("x", "scale", "shift")
    text += rectified("x", "scale", "shift", "once" if upsample else "y", varying=varying)
    return text + _DOUBLED if upsample else text


# Factors that vary over a map have a node of their own, because a file holds one function of a name, and a network may
# have factors of both ranks.
NODES = tuple(
    Node(name, ("x", "scale", "shift"), partial(_body, varying=varying), {"upsample": int})
    for name, varying in (("AffineRelu", False), ("AffineReluVarying", True))
)


def translate(nodes: Any, x: Any, scale: Any, shift: Any, upsample: bool, backend: str | None = None) -> Any:
    """Return the node that stands for the custom op."""
    node = nodes.AffineRelu if len(scale.shape) == 2 else nodes.AffineReluVarying
    return node(x, scale, shift, upsample=int(upsample))
