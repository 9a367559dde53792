"""Functions without end, nodes that nobody provides, versions that are not known here."""

from typing import Any

import pytest

onnx = pytest.importorskip("onnx")

from zellige.engine.onnx import faults  # noqa: E402
from zellige.engine.onnx.file import open_model  # noqa: E402
from zellige.engine.onnx.nodes import MAX_CALLS, MAX_NODES, parts  # noqa: E402

from .onnx_models import BOOL, branch, call, function, model, node, value  # noqa: E402

RELU = node("Relu", ["x"], ["y"])


def opened(made: Any) -> Any:
    return open_model(made.SerializeToString())


def doubling(times: int) -> Any:
    """F0 calls F1 twice, and so on: 2^times nodes."""
    steps = [function(f"F{k}", call(f"F{k + 1}", result="t"), call(f"F{k + 1}", source="t")) for k in range(times)]
    return model(call("F0"), functions=[*steps, function(f"F{times}", RELU)])


def chain(length: int) -> Any:
    steps = [function(f"F{k}", call(f"F{k + 1}")) for k in range(length - 1)]
    return model(call("F0"), functions=[*steps, function(f"F{length - 1}", RELU)])


@pytest.mark.parametrize(
    "made", [model(), model(call("F"), functions=[function("F", RELU)]), doubling(8), chain(MAX_CALLS)]
)
def test_functions_that_end_pass(made: Any) -> None:
    assert opened(made) == made


def test_parts_are_found_in_subgraphs_and_functions() -> None:
    inner = node("If", ["c"], ["y"], then_branch=branch(RELU), else_branch=branch(RELU))
    found = parts(model(inner).graph, function("F", inner, RELU))
    assert len(found.graphs) == 5 and len(found.nodes) == 7 and len(found.attributes) == 4


@pytest.mark.parametrize(
    ("functions", "names"),
    [
        ([function("F", call("F"))], "'F' -> 'F'"),
        ([function("F", call("G")), function("G", call("F"))], "'F' -> 'G' -> 'F'"),
        ([function("F", RELU), function("G", call("H")), function("H", call("G"))], "'G' -> 'H' -> 'G'"),
        (
            [
                function(
                    "F",
                    node("Constant", [], ["c"], value=onnx.helper.make_tensor("", BOOL, [], [True])),
                    node("If", ["c"], ["y"], then_branch=branch(call("F")), else_branch=branch(RELU)),
                )
            ],
            "'F' -> 'F'",
        ),
        ([function("F", RELU), function("Relu", RELU, domain="ai.onnx")], "'Relu' -> 'Relu'"),
    ],
    ids=["itself", "mutually", "uncalled", "in a subgraph", "by a standard name"],
)
def test_functions_that_call_each_other_without_end_are_refused(functions: Any, names: str) -> None:
    sentence = f"^the ONNX model cannot be opened .* its functions call each other without end, {names}; repair it$"
    with pytest.raises(faults.FunctionCycleError, match=sentence):
        opened(model(call("F"), functions=functions))


@pytest.mark.parametrize("times", [16, 31])
def test_functions_that_double_are_refused_without_being_expanded(times: int) -> None:
    nodes = 2**times if times < 30 else "more than a thousand million"
    sentence = f"its graph has {nodes} nodes with its functions expanded, and {MAX_NODES} are allowed; export a smaller"
    with pytest.raises(faults.GraphSizeError, match=sentence):
        opened(doubling(times))


def test_a_graph_of_too_many_nodes_is_refused() -> None:
    nodes = [node("Relu", ["x" if k == 0 else f"t{k}"], [f"t{k + 1}"]) for k in range(MAX_NODES)]
    with pytest.raises(
        faults.GraphSizeError, match=f"its graph has {MAX_NODES + 1} nodes .*, and {MAX_NODES} are allowed"
    ):
        opened(model(*nodes, node("Relu", [f"t{MAX_NODES}"], ["y"])))


def test_a_long_chain_of_functions_is_refused() -> None:
    with pytest.raises(
        faults.NestingError, match="more than 32 deep; inline them with onnx.inliner.inline_local_functions"
    ):
        opened(chain(MAX_CALLS + 1))


def test_two_functions_of_one_name_are_refused() -> None:
    with pytest.raises(faults.InvalidModelError, match="it has two functions of one name"):
        opened(model(call("F"), functions=[function("F", RELU), function("F", RELU)]))


OPSETS = (("", 20), ("zellige", 1), ("com.microsoft", 1), ("acme", 1), ("own", 1))


@pytest.mark.parametrize(
    ("domain", "provider"),
    [
        ("zellige", "Zellige's plugins for TensorRT provide them; elsewhere export the model with --flavour portable"),
        ("com.microsoft", "ONNX Runtime provides them; elsewhere export the model with standard operators"),
        ("acme", "neither ONNX nor a function of the file provides them; export the model with standard operators"),
    ],
)
class TestDomains:
    def test_a_node_that_nothing_provides_is_refused_with_what_would(self, domain: str, provider: str) -> None:
        made = model(node("Gelu", ["x"], ["y"], domain=domain), opsets=OPSETS)
        with pytest.raises(faults.DomainError, match=rf"its node '' \(Gelu\) is of the domain '{domain}': {provider}$"):
            opened(made)

    def test_a_node_inside_of_a_function_is_found(self, domain: str, provider: str) -> None:
        body = function("F", node("Gelu", ["x"], ["y"], domain=domain))
        body.opset_import.add(domain=domain, version=1)
        with pytest.raises(faults.DomainError, match=f"of the domain '{domain}': "):
            opened(model(call("F"), functions=[body], opsets=OPSETS))

    def test_what_the_runtime_provides_passes(self, domain: str, provider: str) -> None:
        made = model(node("Gelu", ["x"], ["y"], domain=domain), opsets=OPSETS)
        assert open_model(made.SerializeToString(), domains=[domain]) == made

    def test_what_a_function_provides_passes(self, domain: str, provider: str) -> None:
        made = model(
            node("Gelu", ["x"], ["y"], domain=domain), opsets=OPSETS, functions=[function("Gelu", RELU, domain=domain)]
        )
        assert opened(made) == made


def test_an_operator_that_its_domain_does_not_have_is_refused() -> None:
    with pytest.raises(
        faults.InvalidModelError, match="ONNX's checker says: No Op registered for Nope with domain_ver"
    ):
        opened(model(node("Nope", ["x"], ["y"])))


@pytest.mark.parametrize("ir", [0, -1, onnx.IR_VERSION + 1, 2**40])
def test_an_ir_version_that_is_not_known_is_refused(ir: int) -> None:
    with pytest.raises(faults.VersionError, match=f"its IR version is {ir}, and 1 to {onnx.IR_VERSION} are known here"):
        opened(model(ir=ir))


NEWEST = onnx.defs.onnx_opset_version()


@pytest.mark.parametrize(
    ("opsets", "reason"),
    [
        ([], "it names no operator set; export it again"),
        (
            [("", NEWEST + 1)],
            f"its operator set 'ai.onnx' is {NEWEST + 1}, and 1 to {NEWEST} are known here; export it with",
        ),
        ([("", 0)], f"its operator set 'ai.onnx' is 0, and 1 to {NEWEST}"),
        ([("", 20), ("own", -3)], "its operator set 'own' is -3, and 1 to 1"),
        ([("", 20), ("", 13)], "it names an operator set twice"),
        ([("", 20), ("ai.onnx", 13)], "it names an operator set twice"),
        ([("", 20), ("ai.onnx.ml", 99)], "its operator set 'ai.onnx.ml' is 99"),
    ],
)
def test_operator_sets_that_are_not_known_are_refused(opsets: Any, reason: str) -> None:
    with pytest.raises(faults.VersionError, match=reason):
        opened(model(opsets=opsets))


def test_a_function_has_known_operator_sets_too() -> None:
    body = function("F", RELU)
    body.opset_import[0].version = 99
    with pytest.raises(faults.VersionError, match="its operator set 'ai.onnx' is 99"):
        opened(model(call("F"), functions=[body]))


def test_an_operator_set_that_is_used_is_named() -> None:
    with pytest.raises(faults.InvalidModelError, match="No opset import for domain 'own'"):
        opened(model(call("F"), functions=[function("F", RELU)], opsets=[("", 20)]))


def test_values_come_in_with_types() -> None:
    with pytest.raises(faults.InvalidModelError, match="ONNX's checker says: "):
        opened(model(inputs=[onnx.ValueInfoProto(name="x")], outputs=[value("y")]))
