"""fir_resample as a node of ONNX. Channels become samples, so that the function holds for any number of channels."""

from typing import Any

from ..op.nodes import Node, widened

__all__ = ["NODES", "translate"]

_TAPS = (1, 3, 3, 1)
_RESAMPLED = """
    outside = Shape <start = 0, end = 2> (x)
    sides = Shape <start = 2, end = 4> (x)
    single = Constant <value_ints = [-1, 1]> ()
    apart = Concat <axis = 0> (single, sides)
    planes = Reshape <allowzero = 0> (x32, apart)
    taps = Constant <value = float[1, 1, 4, 4] {{{taps}}}> ()
    resampled = {operator} <strides = [2, 2], pads = [1, 1, 1, 1]> (planes, taps)
    resampled_sides = Shape <start = 2, end = 4> (resampled)
    together = Concat <axis = 0> (outside, resampled_sides)
    y32 = Reshape <allowzero = 0> (resampled, together)
    y = CastLike (y32, x)
"""


def _body(up: bool) -> str:
    total = 16 if up else 64
    taps = ", ".join(str(a * b / total) for a in _TAPS for b in _TAPS)
    return widened("x") + _RESAMPLED.format(taps=taps, operator="ConvTranspose" if up else "Conv")


NODES = (Node("FirResample", inputs=("x",), attributes={"up": int}, body=lambda fixed: _body(bool(fixed["up"]))),)


def translate(nodes: Any, x: Any, up: bool, scale: float, backend: str | None = None) -> Any:
    """Return the node that stands for the custom op; only a backward pass has another scale than 1."""
    return nodes.FirResample(x, up=int(up))
