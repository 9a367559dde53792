"""bias_noise_act as two nodes of ONNX, with noise and without, because a function's inputs cannot be left out."""

from typing import Any

from ..op.nodes import Node, constant, widened

__all__ = ["NODES", "translate"]

_NOISY = """
    specks = Mul (noise32, strength32)
    noisy = Add (x32, specks)
"""
_QUIET = """
    noisy = Identity (x32)
"""
_ACTIVATED = """
    axes = Constant <value_ints = [1, 2]> ()
    bias_map = Unsqueeze (bias32, axes)
    value = Add (noisy, bias_map)
    activated = LeakyRelu <alpha: float = @slope> (value)
    y32 = Mul (activated, factor)
    y = CastLike (y32, x)
"""
_ATTRIBUTES = {"slope": float, "gain": float}
_ALWAYS, _NOISE = ("x", "bias"), ("noise", "strength")

NODES = (
    Node(
        "BiasNoiseAct",
        inputs=_ALWAYS + _NOISE,
        attributes=_ATTRIBUTES,
        body=lambda fixed: widened(*_ALWAYS, *_NOISE) + _NOISY + constant("factor", "gain") + _ACTIVATED,
    ),
    Node(
        "BiasAct",
        inputs=_ALWAYS,
        attributes=_ATTRIBUTES,
        body=lambda fixed: widened(*_ALWAYS) + _QUIET + constant("factor", "gain") + _ACTIVATED,
    ),
)


def translate(
    nodes: Any, x: Any, bias: Any, noise: Any, strength: Any, slope: float, gain: float, backend: str | None = None
) -> Any:
    """Return the node that stands for the custom op, with noise or without."""
    if noise is None:
        return nodes.BiasAct(x, bias, slope=slope, gain=gain)
    return nodes.BiasNoiseAct(x, bias, noise, strength, slope=slope, gain=gain)
