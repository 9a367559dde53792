"""Rules that ONNX's checker knows, and values that would fill the memory."""

import subprocess
import sys
from typing import Any

import pytest

onnx = pytest.importorskip("onnx")

from zellige.engine.onnx import faults  # noqa: E402
from zellige.engine.onnx.file import open_model  # noqa: E402
from zellige.engine.onnx.values import without_weights  # noqa: E402

from .onnx_models import BOOL, FLOAT, INT64, branch, call, function, model, node, numbers, tensor, value  # noqa: E402

VAST = 2**37


def opened(made: Any) -> Any:
    return open_model(made.SerializeToString())


def doublings(times: int) -> list[Any]:
    """A constant of four floats, joined to itself again and again: c0, c1 and so on."""
    first = node("Constant", [], ["c0"], value=tensor("", raw_data=bytes(16)))
    return [first, *(node("Concat", [f"c{k}", f"c{k}"], [f"c{k + 1}"], axis=0) for k in range(times))]


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (model(node("Add", ["x", "b"], ["y"]), node("Relu", ["y"], ["b"])), "topologically sorted, however input 'b'"),
        (model(node("Relu", ["y"], ["y"])), "topologically sorted, however input 'y'"),
        (model(node("Relu", ["t"], ["y"]), node("Relu", ["x"], ["t"])), "topologically sorted, however input 't'"),
        (model(node("Add", ["x", "nothing"], ["y"])), "however input 'nothing'"),
        (
            model(call("F"), functions=[function("F", node("Relu", ["t"], ["y"]))]),
            "Nodes in a function must be topolog",
        ),
        (model(inputs=[value("x"), value("x")]), "'x' has been used as graph input names multiple times"),
        (model(inputs=[value("x"), value("")]), "Field 'name' of 'value_info' is required to be non-empty"),
        (
            model(node("Relu", ["x"], ["y"]), node("Abs", ["x"], ["y"])),
            "'y' has been used as output names multiple times",
        ),
        (model(node("Relu", ["x"], ["t"])), "Graph output 'y' is not an output of any node"),
        (model(weights=[numbers("s", 1), numbers("s", 1)]), "s initializer name is not unique"),
        (model(node("Relu", ["x", "x"], ["y"])), "has input size 2 not in range"),
        (model(node("Relu", ["x"], ["y"], slope=0.1)), "Unrecognized attribute: slope"),
        (
            model(node("If", ["x"], ["y"], then_branch=branch(node("Relu", ["x"], ["y"])))),
            "Required attribute 'else_branch' is missing",
        ),
    ],
)
def test_what_breaks_a_rule_of_onnx_is_refused_in_one_line(made: Any, reason: str) -> None:
    with pytest.raises(faults.InvalidModelError, match=f"^the ONNX model .*ONNX's checker says: .*{reason}[^\n]*$"):
        opened(made)


def test_two_metadata_of_one_key_are_refused() -> None:
    made = model()
    for text in "ab":
        made.metadata_props.add(key="zellige.format", value=text)
    with pytest.raises(faults.InvalidModelError, match="ONNX's checker says: .*duplicate keys in metadata_props"):
        opened(made)


@pytest.mark.parametrize(
    ("made", "name"),
    [
        (model(node("ConstantOfShape", ["s"], ["y"]), weights=[numbers("s", 2**30, 2**7)]), "y"),
        (
            model(
                node("Constant", [], ["s"], value=numbers("", VAST)),
                node("ConstantOfShape", ["s"], ["c"]),
                node("Add", ["x", "c"], ["y"]),
            ),
            "c",
        ),
        (model(node("Expand", ["x", "s"], ["y"]), inputs=[value("x", (4, 1))], weights=[numbers("s", 4, VAST)]), "y"),
        (model(node("Tile", ["x", "s"], ["y"]), inputs=[value("x", (4, 4))], weights=[numbers("s", 1, VAST)]), "y"),
        (model(*doublings(40), node("Add", ["x", "c40"], ["y"])), "c"),
        (model(*doublings(70), node("Add", ["x", "c70"], ["y"])), "c"),
        (
            model(
                node("Range", ["a", "b", "d"], ["r"]), node("Cast", ["r"], ["c"], to=FLOAT),
                node("Add", ["x", "c"], ["y"]),
                weights=[onnx.helper.make_tensor(k, INT64, [], [n]) for k, n in (("a", 0), ("b", VAST), ("d", 1))],
            ),
            "r",
        ),
        (
            model(
                node("Resize", ["x", "", "k"], ["y"]), inputs=[value("x", ("N", 4))],
                weights=[onnx.helper.make_tensor("k", FLOAT, [2], [1.0, float(VAST)])],
            ),
            "y",
        ),
        (model(node("RandomNormal", [], ["c"], shape=[VAST]), node("Add", ["x", "c"], ["y"])), "c"),
        (model(inputs=[value("x", ("N", VAST))]), "x"),
        (model(outputs=[value("y", ("N", VAST))]), "y"),
        (
            model(call("F"), functions=[function("F", *doublings(40), node("Add", ["x", "c40"], ["y"]))]),
            "",
        ),
        (
            model(
                node(
                    "If", ["c"], ["y"], then_branch=branch(*doublings(40), node("Add", ["x", "c40"], ["y"])),
                    else_branch=branch(node("Relu", ["x"], ["y"])),
                ),
                inputs=[value("x"), value("c", (), BOOL)],
            ),
            "c",
        ),
    ],
    ids=[
        "fill", "fill by a constant", "expand", "tile", "doublings", "overflow", "range", "resize", "random", "input",
        "output", "function", "branch",
    ],
)  # fmt: skip
def test_a_value_that_would_fill_the_memory_is_refused(made: Any, name: str) -> None:
    with pytest.raises(
        faults.ValueSizeError, match=f"its value '{name}.*' of the sides .* takes more than 4 GiB; export a"
    ):
        opened(made)


def test_a_value_of_a_negative_side_is_refused() -> None:
    with pytest.raises(faults.TensorDimsError, match=r"'x' has the sides \[1, -4\]"):
        opened(model(inputs=[value("x", ("N", -4))]))


KERNEL = tensor(sides=(4, 4, 3), raw_data=bytes(192))
MAPS = {"weights": [KERNEL], "inputs": [value("x", ("N", 4, 8))], "outputs": [value("y", (None,) * 3)]}


@pytest.mark.parametrize("group", [0, -1])
@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose"])
def test_convolutions_of_no_groups_are_refused(kind: str, group: int) -> None:
    with pytest.raises(
        faults.InvalidModelError, match=rf"its node '' \('{kind}'\) has a group below 1; export it again"
    ):
        opened(model(node(kind, ["x", "w"], ["y"], group=group), **MAPS))


def test_the_groups_of_a_convolution_in_a_function_may_come_from_its_call() -> None:
    inner = node("ConvTranspose", ["x", "w"], ["y"])
    inner.attribute.add(name="group", ref_attr_name="groups", type=onnx.AttributeProto.INT)
    body = function("F", node("Constant", [], ["w"], value=KERNEL), inner)
    body.attribute.append("groups")
    for groups, right in ((1, True), (0, False)):
        made = model(node("F", ["x"], ["y"], domain="own", groups=groups), functions=[body], **{**MAPS, "weights": []})
        if right:
            assert opened(made) == made
        else:
            with pytest.raises(faults.InvalidModelError, match="has a group below 1"):
                opened(made)


def test_constants_of_moderate_size_pass() -> None:
    made = model(*doublings(10), node("Concat", ["c10", "c10"], ["flat"], axis=0), node("Relu", ["x"], ["y"]))
    assert opened(made) == made


def test_weights_are_not_copied_for_the_checks() -> None:
    weights = [tensor("long", sides=(1025,), raw_data=bytes(4100)), numbers("short", 4)]
    light = without_weights(model(weights=weights))
    assert [kept.name for kept in light.graph.initializer] == ["short"]
    assert [(kept.name, len(kept.type.tensor_type.shape.dim)) for kept in light.graph.input] == [("x", 2), ("long", 1)]


def test_a_bomb_is_refused_in_little_memory() -> None:
    """Under a limit on the address space that a single one of its values would break."""
    made = model(*doublings(40), node("Reshape", ["x", "c40"], ["y"]))
    code = (
        "import sys; from zellige.engine.onnx.file import open_model\n"
        "import onnx, resource; size = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (size + 2**28,) * 2)\n"
        "try: open_model(sys.stdin.buffer.read())\n"
        "except Exception as error: print(type(error).__name__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=made.SerializeToString(), capture_output=True, timeout=120
    )
    assert done.stdout.strip() == b"ValueSizeError", done.stderr.decode()[-500:]
