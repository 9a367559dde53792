"""Models that cannot be built are refused in a sentence that names the node."""

from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from zellige.engine.runtimes.buckets import BUCKETS
from zellige.engine.tensorrt import build
from zellige.errors import CheckpointError

from .building import builds, refused
from .graphs import FLOAT, HALF, gated, model, node, relu, weight

build_engine = partial(build.build_engine, profile=BUCKETS)


@builds
class TestRefusedModels:
    def test_an_operator_that_does_not_exist_there(self) -> None:
        graph = model([node("Det")], (FLOAT, ("N", 4, 4)), (FLOAT, ("N",)))
        refused(
            CheckpointError,
            "the ONNX model cannot be built: TensorRT-RTX cannot run the node 'the Det' (Det); export the model with "
            "other operators, or use the runtime 'onnx'",
            graph,
        )

    @pytest.mark.parametrize(
        ("graph", "name", "reason"),
        [
            (
                model([node("Add", "x", "w")], weights=[weight("w", 4, dtype=np.float16)]), "'the Add' (Add)",
                "ElementWiseOperation SUM must have same input types. But they are of types Float and Half",
            ),
            (
                model([node("MatMul", "x", "w")], weights=[weight("w", 4, 4, dtype=np.float16)]),
                "'the MatMul' (MatMul)",
                "IMatrixMultiplyLayer must have same input types. `A` is of type Float and `B` is of type Half",
            ),
            (
                model([node("Gather", "w", "x")], (FLOAT, ("N",)), weights=[weight("w", 4, 4)]),
                "'the Gather' (Gather)",
                "indices input has type Float but must have type Int64 or Int32",
            ),
        ],
        ids=["Add", "MatMul", "Gather"],
    )  # fmt: skip
    def test_mixed_types(self, graph: bytes, name: str, reason: str) -> None:
        refused(
            CheckpointError,
            f"the ONNX model cannot be built: the node {name} mixes types, and TensorRT-RTX casts none by itself: "
            f"{reason}; cast its inputs to one type in the model",
            graph,
        )

    def test_a_node_whose_sides_do_not_fit(self) -> None:
        graph = model([node("MatMul", "x", "w")], weights=[weight("w", 5, 4)])
        refused(
            CheckpointError,
            "the ONNX model contradicts itself: the node 'the MatMul' (MatMul): Incompatible dimensions for matrix "
            "multiplication; export it again",
            graph,
        )

    def test_a_node_that_would_end_the_process(self) -> None:
        graph = model(
            [helper.make_node("TopK", ["x", "k"], ["y", "places"], name="the TopK")], (FLOAT, ("N", 4, 4)),
            (FLOAT, ("N", 4, 4)), [numpy_helper.from_array(np.ones((4, 4), np.int64), "k")],
        )  # fmt: skip
        refused(
            CheckpointError,
            "the ONNX model contradicts itself: the node 'the TopK' (TopK): K input must be a one-dimensional tensor "
            "of size 1; export it again",
            graph,
        )

    def test_an_output_that_is_not_what_the_model_says(self) -> None:
        with pytest.raises(
            CheckpointError, match=r"^the ONNX model contradicts itself: the node 'the Cast' \(Cast\): "
        ):
            build_engine(model([node("Cast", to=HALF)]))

    def test_an_operator_that_it_has_for_other_types_alone(self) -> None:
        graph = model([node("Mod", "x", "w")], weights=[weight("w", 4)])
        with pytest.raises(CheckpointError, match=r"cannot run the node 'the Mod' \(Mod\): .* floating point types"):
            build_engine(graph)

    def test_our_nodes_without_their_functions(self) -> None:
        refused(
            CheckpointError,
            "the ONNX model cannot be opened as an ONNX model: its node 'the AffineRelu' (AffineRelu) is of the domain "
            "'zellige': Zellige's plugins for TensorRT provide them; elsewhere export the model with --flavour "
            "portable",
            gated(function=False),
        )

    def test_our_nodes_within_a_branch(self) -> None:
        branch = helper.make_graph(
            [node("AffineRelu", "x", "s", domain="zellige")], "branch", [],
            [helper.make_tensor_value_info("y", FLOAT, ["N", 4])],
        )  # fmt: skip
        condition = numpy_helper.from_array(np.array(True), "c")
        graph = model([node("If", "c", then_branch=branch, else_branch=branch)], weights=[condition, weight("s", 4)])
        with pytest.raises(CheckpointError, match="its node 'the AffineRelu'"):
            build_engine(graph)

    def test_our_nodes_within_a_function(self) -> None:
        outer = helper.make_function(
            "zellige", "Block", ["x"], ["y"], [node("MaskComposite", domain="zellige")],
            [helper.make_opsetid("zellige", 1)],
        )  # fmt: skip
        with pytest.raises(CheckpointError, match=r"its node 'the MaskComposite\w*' \(MaskComposite\)"):
            build_engine(model([node("Block", domain="zellige")], functions=[outer]))

    def test_nodes_of_other_domains(self) -> None:
        refused(
            CheckpointError,
            "the ONNX model cannot be opened as an ONNX model: its node 'the Thing' (Thing) is of the domain 'other': "
            "neither ONNX nor a function of the file provides them; export the model with standard operators",
            model([node("Thing", domain="other")]),
        )

    @pytest.mark.parametrize("kind", [TensorProto.DOUBLE, TensorProto.STRING, TensorProto.COMPLEX64])
    def test_types_that_it_has_not_or_would_change(self, kind: int) -> None:
        name = {TensorProto.DOUBLE: "float64", TensorProto.STRING: "object"}.get(kind, "complex64")
        refused(
            CheckpointError,
            f"the ONNX model has 'x' in {name}; TensorRT-RTX takes and gives float32, float16, bfloat16, int32, int64, "
            "int8, uint8, bool: export it in one of them",
            model([node("Identity")], (kind, ("N", 4)), (kind, ("N", 4))),
        )

    def test_other_dynamic_sides_than_the_batch(self) -> None:
        refused(
            CheckpointError,
            "the input 'x' of the ONNX model is [N, 3, any]; only the batch may be of any size: export it with the "
            "other sides fixed",
            model([node("Relu")], (FLOAT, ("N", 3, "W")), (FLOAT, ("N", 3, "W"))),
        )

    def test_an_input_without_a_batch(self) -> None:
        refused(
            CheckpointError,
            "the input 'x' of the ONNX model has no batch; every input must be [N, ...]",
            model([node("Relu")], (FLOAT, ()), (FLOAT, ())),
        )

    def test_a_model_that_no_batch_fits(self) -> None:
        graph = model([node("Reshape", "x", "s")], weights=[numpy_helper.from_array(np.array([1, 4]), "s")])
        refused(
            CheckpointError,
            "TensorRT-RTX cannot build the ONNX model for sm_86 and batches of 1 to 32: kOPT values for profile 0 "
            "violate shape constraints: IShuffleLayer the Reshape: reshaping failed for tensor: x reshape would change "
            "volume 32 to 4",
            graph,
            targets=["sm_86"],
        )

    @pytest.mark.parametrize("content", [b"", b"no model", relu()[:40]])
    def test_what_is_no_model(self, content: bytes) -> None:
        with pytest.raises(CheckpointError, match="^the ONNX model cannot be opened as an ONNX model: "):
            build_engine(content)

    def test_a_model_without_inputs(self) -> None:
        proto = onnx.load_model_from_string(model([node("Identity", "w")], weights=[weight("w", 1, 4)]))
        del proto.graph.input[:]
        with pytest.raises(CheckpointError, match="has no inputs, and an engine needs one with a batch"):
            build_engine(proto.SerializeToString())

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        path = tmp_path / "missing.onnx"
        refused(
            CheckpointError,
            f"{path} cannot be opened as an ONNX model: it does not exist; name a .onnx file that does",
            path,
        )
