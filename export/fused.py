"""Our kernels as nodes of the domain `zellige`, with functions of standard operators for runtimes that lack them.

| node | inputs | attributes |
|---|---|---|
| GluLayerNorm | x, weight, bias | eps |
| AffineRelu | x, scale, shift | upsample |
| MaskComposite | foreground, background, mask | logits, output ("float" or "uint8") |
| PhaseEpilogue | x, weight, bias | activation ("glu_layer_norm" or "affine_relu"), eps |
| Rearrange | q, k, v | scale |

Each means what the function of `zellige.kernels` of its name does. A function computes it in float32 and rounds once.
"""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch

from zellige.errors import ExportError

__all__ = ["DOMAIN", "NODES", "VERSION", "functions_of", "translations"]

DOMAIN, VERSION = "zellige", 1
_FLOATS = ["tensor(float)", "tensor(float16)", "tensor(bfloat16)"]

# Of each node its inputs, and its attributes with the names of their types.
NODES: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "GluLayerNorm": (("x", "weight", "bias"), {"eps": "FLOAT"}),
    "AffineRelu": (("x", "scale", "shift"), {"upsample": "INT"}),
    "MaskComposite": (("foreground", "background", "mask"), {"logits": "INT", "output": "STRING"}),
    "PhaseEpilogue": (("x", "weight", "bias"), {"activation": "STRING", "eps": "FLOAT"}),
    "Rearrange": (("q", "k", "v"), {"scale": "FLOAT"}),
}

_WIDE = "{0}32 = Cast <to = 1> ({0})\n"
_GAINS = """
    axes = Constant <value_ints = [1, 2]> ()
    scale_map = Unsqueeze (weight32, axes)
    shift_map = Unsqueeze (bias32, axes)
"""
_FACTORS = """
    axes = Constant <value_ints = [2, 3]> ()
    scale_map = Unsqueeze ({scale}32, axes)
    shift_map = Unsqueeze ({shift}32, axes)
"""
_GLU = """
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
_AFFINE = """
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
_FINISHED = """
    front = Tanh (foreground32)
    back = Tanh (background32)
    share = Sigmoid (mask32)
"""
_GIVEN = """
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
_INTERLEAVED = """
    phases = DepthToSpace <blocksize = 2, mode = "DCR"> (x)
    phases32 = Cast <to = 1> (phases)
"""
_REARRANGED = """
    turned = Transpose <perm = [0, 2, 1]> (k32)
    products = MatMul (q32, turned)
    factor = Constant <value_float: float = @scale> ()
    scores = Mul (products, factor)
    weights = Softmax <axis = -1> (scores)
    y32 = MatMul (weights, v32)
    y = CastLike (y32, q)
"""


def functions_of(model: Any) -> list[Any]:
    """One function for each kind of our nodes in a model.

    Args:
        model: onnx.ModelProto.
    Returns:
        onnx.FunctionProto, in the order of their first nodes.
    Raises:
        ExportError: two nodes of one kind differ in an attribute that decides what their function consists of.
    """
    import onnx

    found: dict[str, dict[str, Any]] = {}
    for node in model.graph.node:
        if node.domain != DOMAIN:
            continue
        values = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        fixed = {name: value for name, value in values.items() if NODES[node.op_type][1][name] != "FLOAT"}
        if found.setdefault(node.op_type, fixed) != fixed:
            raise ExportError(
                f"the model has nodes {node.op_type} of {found[node.op_type]} and of {fixed}, and a file can hold one "
                "function of a name; export it with --flavour portable"
            )
    return [_function(kind, fixed) for kind, fixed in found.items()]


def _function(kind: str, fixed: dict[str, Any]) -> Any:
    import onnx

    inputs, attributes = NODES[kind]
    head = (
        f'<domain: "{DOMAIN}", opset_import: ["": 20]>\n{kind} <{", ".join(attributes)}> ({", ".join(inputs)}) => (y)\n'
    )
    wide = "".join(_WIDE.format(name) for name in inputs if kind != "PhaseEpilogue" or name != "x")
    return onnx.parser.parse_function(f"{head}{{\n{wide}{_body(kind, fixed)}}}")


def _body(kind: str, fixed: dict[str, Any]) -> str:
    if kind == "GluLayerNorm":
        return _GAINS + _GLU.format(x="x")
    if kind == "AffineRelu":
        up = bool(fixed["upsample"])
        return (
            _FACTORS.format(scale="scale", shift="shift")
            + _AFFINE.format(x="x", y="once" if up else "y")
            + (_DOUBLED if up else "")
        )
    if kind == "MaskComposite":
        last = _BYTES if fixed["output"] == b"uint8" else "y = CastLike (y32, foreground)\n"
        return (_FINISHED if fixed["logits"] else _GIVEN) + _COMPOSITE + last
    if kind == "PhaseEpilogue":
        if fixed["activation"] == b"glu_layer_norm":
            return _INTERLEAVED + _GAINS + _GLU.format(x="phases")
        factors = _FACTORS.format(scale="weight", shift="bias")
        return _INTERLEAVED + factors + _AFFINE.format(x="phases", y="y")
    return _REARRANGED


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """What the exporter writes for each operator of `zellige.kernels`, for its `custom_translation_table`."""
    _register()
    import zellige.kernels  # noqa: F401  registers the operators

    ours, nodes = torch.ops.zellige, _nodes()
    return {
        ours.glu_layer_norm.default: lambda x, weight, bias, eps, backend=None: nodes.GluLayerNorm(
            x, weight, bias, eps=eps
        ),
        ours.affine_relu.default: lambda x, scale, shift, upsample, backend=None: nodes.AffineRelu(
            x, scale, shift, upsample=int(upsample)
        ),
        ours.mask_composite.default: lambda front, back, mask, logits, output, backend=None: nodes.MaskComposite(
            front, back, mask, logits=int(logits), output=output
        ),
        ours.phase_epilogue.default: lambda x, weight, bias, activation, eps, backend=None: nodes.PhaseEpilogue(
            x, weight, bias, activation=activation, eps=eps
        ),
    }


def _nodes() -> Any:
    import onnxscript

    return onnxscript.values.Opset(DOMAIN, VERSION)


@cache
def _register() -> None:
    """Tell onnx of the nodes, once a process; onnxscript writes no others."""
    from onnx import defs

    def schemas() -> Iterator[Any]:
        parameter, attribute, of = defs.OpSchema.FormalParameter, defs.OpSchema.Attribute, defs.OpSchema.AttrType
        for kind, (inputs, attributes) in NODES.items():
            yield defs.OpSchema(
                kind, DOMAIN, VERSION,
                inputs=[parameter(name, "T" if place == 0 else "U") for place, name in enumerate(inputs)],
                outputs=[parameter("y", "V")],
                type_constraints=[("T", _FLOATS, ""), ("U", _FLOATS, ""), ("V", [*_FLOATS, "tensor(uint8)"], "")],
                attributes=[attribute(name, getattr(of, type_), "") for name, type_ in attributes.items()],
            )  # fmt: skip

    for schema in schemas():
        if not defs.has(schema.name, DOMAIN):
            defs.register_schema(schema)
