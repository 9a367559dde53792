"""bias_noise_act as four nodes of ONNX, with noise or factors or without, as a function's inputs cannot be left out."""

from typing import Any

from ..op.nodes import Fixed, Node, constant, widened

__all__ = ["NODES", "translate"]

_SCALED = """
    last = Constant <value_ints = [2, 3]> ()
    factor_map = Unsqueeze (factor32, last)
    scaled = Mul (x32, factor_map)
"""
_UNSCALED = """
    scaled = Identity (x32)
"""
_NOISY = """
    specks = Mul (noise32, strength32)
    noisy = Add (scaled, specks)
"""
_QUIET = """
    noisy = Identity (scaled)
"""
_ACTIVATED = """
    axes = Constant <value_ints = [1, 2]> ()
    bias_map = Unsqueeze (bias32, axes)
    value = Add (noisy, bias_map)
    activated = LeakyRelu <alpha: float = @slope> (value)
    gained = Mul (activated, gain)
"""
_CLAMPED = """
    below = Neg (bound)
    y32 = Clip (gained, below, bound)
    y = CastLike (y32, x)
"""
_FREE = """
    y = CastLike (gained, x)
"""
_ATTRIBUTES = {"slope": float, "gain": float, "clamp": float, "clamped": int}
_ALWAYS, _NOISE, _FACTOR = ("x", "bias"), ("noise", "strength"), ("factor",)


def _body(inputs: tuple[str, ...], fixed: Fixed) -> str:
    steps = [widened(*inputs), _SCALED if "factor" in inputs else _UNSCALED, _NOISY if "noise" in inputs else _QUIET]
    steps += [constant("gain", "gain"), _ACTIVATED]
    steps += [constant("bound", "clamp"), _CLAMPED] if fixed["clamped"] else [_FREE]
    return "".join(steps)


def _node(name: str, inputs: tuple[str, ...]) -> Node:
    return Node(name, inputs=inputs, attributes=_ATTRIBUTES, body=lambda fixed: _body(inputs, fixed))


NODES = (
    _node("BiasNoiseAct", _ALWAYS + _NOISE),
    _node("BiasAct", _ALWAYS),
    _node("ScaledBiasNoiseAct", _ALWAYS + _NOISE + _FACTOR),
    _node("ScaledBiasAct", _ALWAYS + _FACTOR),
)


def translate(
    nodes: Any, x: Any, bias: Any, noise: Any, strength: Any, factor: Any, slope: float, gain: float,
    clamp: float | None, backend: str | None = None,
) -> Any:  # fmt: skip
    """Return the node that stands for the custom op, with noise and factors or without."""
    given = {"slope": slope, "gain": gain, "clamp": clamp or 0.0, "clamped": int(clamp is not None)}
    inputs = [x, bias, *([] if noise is None else [noise, strength]), *([] if factor is None else [factor])]
    name = f"{'' if factor is None else 'Scaled'}Bias{'' if noise is None else 'Noise'}Act"
    return getattr(nodes, name)(*inputs, **given)
