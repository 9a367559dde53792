"""A model of the fused flavour becomes one whose nodes are plugins, and nothing else of it changes."""

from typing import Any

import onnx
import pytest
from onnx import ModelProto, TensorProto, helper

from zellige.errors import TaskError
from zellige.export.plugins import split_for_plugins

from .nodes import NODES, PLUGIN, Node


def model_of(op_type: str, inputs: list[str], attributes: dict[str, Any], domain: str = "zellige") -> ModelProto:
    """A node between two of ONNX's own, with a function that stands for it."""
    first, *others = inputs
    nodes = [
        helper.make_node("Identity", ["image"], [first], "before"),
        helper.make_node(op_type, inputs, ["y"], "fused", domain=domain, **attributes),
        helper.make_node("Identity", ["y"], ["result"], "behind"),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N"]) for name in ("image", *others)]
    result = helper.make_tensor_value_info("result", TensorProto.FLOAT, ["N"])
    graph = helper.make_graph(nodes, "fused", values, [result])
    imports = [helper.make_opsetid("", 20), helper.make_opsetid("zellige", 1)]
    body = [helper.make_node("Identity", [first], ["y"])]
    function = helper.make_function("zellige", op_type, inputs, ["y"], body, imports[:1])
    return helper.make_model(graph, functions=[function], opset_imports=imports)


def split(node: Node) -> list[onnx.NodeProto]:
    return list(split_for_plugins(model_of(node.op_type, list(node.shapes), node.attributes)).graph.node)


@pytest.mark.parametrize("node", NODES, ids=lambda node: node.name)
def test_a_node_becomes_its_plugins_in_sequence(node):
    plugins = [new for new in split(node) if new.domain == "zellige"]
    assert [new.op_type for new in plugins] == [name for name, *_ in node.plugins]
    for new, (name, expected, inputs, _) in zip(plugins, node.plugins, strict=True):
        attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in new.attribute}
        # What TensorRT's parser finds them by, and that they are compiled ahead of time.
        assert attributes.pop("plugin_namespace") == b"zellige" and attributes.pop("plugin_version") == b"1"
        assert attributes.pop("aot") == 1
        assert attributes.keys() == expected.keys() == PLUGIN[name].attributes.keys()
        assert all(attributes[key] == pytest.approx([value]) for key, value in expected.items())
        assert len(new.input) == len(inputs) and len(new.output) == 1


@pytest.mark.parametrize("node", NODES, ids=lambda node: node.name)
def test_every_tensor_is_made_before_it_is_read_and_the_model_is_valid(node):
    model = model_of(node.op_type, list(node.shapes), node.attributes)
    found = split_for_plugins(model)
    known = {value.name for value in found.graph.input}
    for new in found.graph.node:
        assert set(new.input) <= known
        known |= set(new.output)
    assert found.graph.node[0] == model.graph.node[0] and found.graph.node[-1] == model.graph.node[-1]
    # An export in this process has told onnx of nodes that have the names of plugins and other attributes.
    for new in found.graph.node:
        new.domain = new.domain.replace("zellige", "plugins")
    found.opset_import.append(helper.make_opsetid("plugins", 1))
    onnx.checker.check_model(found)


@pytest.mark.parametrize("node", NODES, ids=lambda node: node.name)
def test_factors_are_cast_to_float32_and_maps_are_not(node):
    nodes = split(node)
    casts = {new.input[0] for new in nodes if new.op_type == "Cast" and new.attribute[0].i == TensorProto.FLOAT}
    factors = {"weight", "bias", "scale", "shift"} & set(node.shapes) if node.op_type != "Rearrange" else set()
    assert casts == factors


def test_bytes_are_cast_behind_the_plugin():
    node = next(node for node in NODES if node.name == "bytes")
    *_, plugin, cast, _ = split(node)
    assert cast.op_type == "Cast" and cast.attribute[0].i == TensorProto.UINT8
    assert cast.input == plugin.output and cast.output == ["y"]


def test_functions_of_the_domain_go_and_the_model_that_was_given_stays():
    node = NODES[0]
    model = model_of(node.op_type, list(node.shapes), node.attributes)
    before = model.SerializeToString(deterministic=True)
    assert not split_for_plugins(model).functions
    assert model.SerializeToString(deterministic=True) == before and model.functions


def test_a_node_of_another_domain_stays_as_it_is():
    model = model_of("GluLayerNorm", ["x", "weight", "bias"], {}, domain="another")
    assert list(split_for_plugins(model).graph.node) == list(model.graph.node)


@pytest.mark.parametrize(
    ("op_type", "inputs"), [("FirResample", ["x"]), ("AffineReluVarying", ["x", "scale", "shift"])]
)
def test_a_node_without_a_plugin_becomes_its_function(op_type, inputs):
    found = split_for_plugins(model_of(op_type, inputs, {}))
    assert [new.op_type for new in found.graph.node] == ["Identity"] * 3 and not found.functions
    onnx.checker.check_model(found)


def test_a_node_without_a_plugin_and_without_a_function_is_refused():
    model = model_of("FeatherBlend", ["x"], {})
    del model.functions[:]
    with pytest.raises(
        TaskError, match="a node FeatherBlend of the domain zellige, which has neither a plugin for Ten"
    ):
        split_for_plugins(model)
