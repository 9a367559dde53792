"""mask_composite as a node of ONNX."""

from typing import Any

from ..op.nodes import Node, widened

__all__ = ["NODES", "translate"]

_FROM_LOGITS = """
    front = Tanh (foreground32)
    back = Tanh (background32)
    share = Sigmoid (mask32)
"""
_FINISHED = """
    front = Identity (foreground32)
    back = Identity (background32)
    share = Identity (mask32)
"""
_COMPOSITE = """
    difference = Sub (front, back)
    part = Mul (difference, share)
    y32 = Add (back, part)
"""
_BYTES = """
    last = Transpose <perm = [0, 2, 3, 1]> (y32)
    one = Constant <value_float = 1.0> ()
    half = Constant <value_float = 127.5> ()
    raised = Add (last, one)
    levels = Mul (raised, half)
    rounded = Round (levels)
    least = Constant <value_float = 0.0> ()
    most = Constant <value_float = 255.0> ()
    limited = Clip (rounded, least, most)
    y = Cast <to = 2> (limited)
"""
_VALUES = "y = CastLike (y32, foreground)\n"
_INPUTS = ("foreground", "background", "mask")


def _body(logits: bool, output: str) -> str:
    images = _FROM_LOGITS if logits else _FINISHED
    return widened(*_INPUTS) + images + _COMPOSITE + (_BYTES if output == "uint8" else _VALUES)


NODES = (
    Node(
        "MaskComposite",
        inputs=_INPUTS,
        attributes={"logits": int, "output": str},
        body=lambda fixed: _body(bool(fixed["logits"]), str(fixed["output"])),
    ),
)


def translate(
    nodes: Any, foreground: Any, background: Any, mask: Any, logits: bool, output: str, backend: str | None = None
) -> Any:
    """Return the node that stands for the custom op."""
    return nodes.MaskComposite(foreground, background, mask, logits=int(logits), output=output)
