"""phase_epilogue as a node of ONNX."""

from typing import Any

from ..affine_relu.graph import rectified
from ..glu_layer_norm.graph import normalised
from ..op.nodes import Node, widened

__all__ = ["NODES", "translate"]

_INTERLEAVED = """
    phases = DepthToSpace <blocksize = 2, mode = "DCR"> (x)
    phases32 = Cast <to = 1> (phases)
"""


def _body(activation: str) -> str:
    activated = normalised("phases") if activation == "glu_layer_norm" else rectified("phases", "weight", "bias")
    return widened("weight", "bias") + _INTERLEAVED + activated


NODES = (
    Node(
        "PhaseEpilogue",
        inputs=("x", "weight", "bias"),
        attributes={"activation": str, "eps": float},
        body=lambda fixed: _body(str(fixed["activation"])),
    ),
)


def translate(
    nodes: Any, x: Any, weight: Any, bias: Any, activation: str, eps: float, backend: str | None = None
) -> Any:
    """Return the node that stands for the custom op."""
    return nodes.PhaseEpilogue(x, weight, bias, activation=activation, eps=eps)
