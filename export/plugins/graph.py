"""Nodes of the domain zellige in the form that full TensorRT's plugins take: one launch a node."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from zellige.errors import MissingExtraError, TaskError

from .register import NAMESPACE

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

__all__ = ["split_for_plugins"]

_EPS = 1e-5
_WITH_PLUGINS = ("GluLayerNorm", "PhaseEpilogue", "AffineRelu", "MaskComposite", "Rearrange")


def split_for_plugins(model: "ModelProto") -> "ModelProto":
    """Return a model whose nodes of the domain zellige are plugins of `table.py`, without functions.

    A node that takes several launches becomes several nodes, and the tensors between them are ordinary tensors. Factors
    are cast to float32. Bytes leave plugins as float16 and are cast. A node without a plugin becomes the standard
    operators of its function. All other nodes stay.

    Args:
        model: a model of the fused flavour; it is not changed.

    Raises:
        TaskError: a node of the domain has neither a plugin nor a function.
        MissingExtraError: onnx is not installed.
    """
    try:
        import onnx
        from onnx.inliner import inline_selected_functions
    except ImportError as error:
        raise MissingExtraError("onnx", "preparing a model for TensorRT's plugins", "tensorrt") from error
    result = onnx.ModelProto()
    result.CopyFrom(model)
    without = [(f.domain, f.name) for f in model.functions if f.domain == NAMESPACE and f.name not in _WITH_PLUGINS]
    if without:
        result = inline_selected_functions(result, without)
    nodes = [new for node in result.graph.node for new in _split(node)]
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    kept = [function for function in result.functions if function.domain != NAMESPACE]
    del result.functions[:]
    result.functions.extend(kept)
    return result


def _split(node: "NodeProto") -> Iterator["NodeProto"]:
    from onnx import TensorProto, helper

    if node.domain != NAMESPACE:
        yield node
        return
    given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    inputs, (output,) = list(node.input), node.output
    base = node.name or output
    if node.op_type in ("GluLayerNorm", "PhaseEpilogue", "AffineRelu"):
        for place in (1, 2):
            factor = f"{base}/factor{place}"
            yield helper.make_node("Cast", [inputs[place]], [factor], factor, to=TensorProto.FLOAT)
            inputs[place] = factor
    match node.op_type:
        case "GluLayerNorm":
            yield from _normalised(base, inputs, output, "GluNormalise", 1, given)
        case "PhaseEpilogue" if _text(given.get("activation", "glu_layer_norm")) == "glu_layer_norm":
            yield from _normalised(base, inputs, output, "PhaseGlu", 4, given)
        case "PhaseEpilogue":
            yield _plugin("PhaseAffine", base, inputs, output, {})
        case "AffineRelu":
            yield _plugin("AffineRelu", base, inputs, output, {"upsample": int(given.get("upsample", 0))})
        case "Rearrange":
            yield _plugin("Rearrange", base, inputs, output, {"scale": float(given["scale"])})
        case "MaskComposite":
            logits = {"logits": int(given.get("logits", 1))}
            if _text(given.get("output", "float")) == "float":
                yield _plugin("MaskComposite", base, inputs, output, logits)
            else:
                yield _plugin("MaskCompositeBytes", base, inputs, f"{base}/values", logits)
                yield helper.make_node("Cast", [f"{base}/values"], [output], f"{base}/bytes", to=TensorProto.UINT8)
        case other:
            raise TaskError(
                f"the model has a node {other} of the domain {NAMESPACE}, which has neither a plugin for TensorRT "
                "nor a function; export the portable flavour."
            )


def _normalised(
    base: str, inputs: list[str], output: str, last: str, phases: int, given: Mapping[str, Any]
) -> Iterator["NodeProto"]:
    moments, normal = f"{base}/moments", f"{base}/normal"
    yield _plugin("GluMoments", moments, inputs[:1], moments, {"phases": phases})
    yield _plugin("GluCombine", normal, [moments], normal, {"eps": float(given.get("eps", _EPS))})
    yield _plugin(last, base, [*inputs, normal], output, {})


def _plugin(name: str, node: str, inputs: list[str], output: str, attributes: Mapping[str, float]) -> "NodeProto":
    """Make a node that TensorRT's parser finds by its name and namespace, as a plugin compiled ahead of time."""
    from onnx import helper

    arrays = {attribute: [value] for attribute, value in attributes.items()}
    return helper.make_node(
        name, inputs, [output], node, domain=NAMESPACE, plugin_namespace=NAMESPACE, plugin_version="1", aot=1, **arrays
    )


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
