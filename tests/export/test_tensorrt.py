"""Engines are really built, on a CPU, by TensorRT-RTX; what cannot be built is refused in a sentence."""

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from zellige.engine.tensorrt.driver import devices
from zellige.errors import CheckpointError, DeviceError, MissingExtraError, OutputError, SizeError
from zellige.export.onnx import export_onnx
from zellige.export.tensorrt import build_engine, export_tensorrt

from ..engine.tensorrt.stand_in_cuda import devices as devices_of_driver
from .graphs import BFLOAT16, FLOAT, HALF, convolution, gated, model, node, relu, weight

RTX = importlib.util.find_spec("tensorrt_rtx") is not None
builds = pytest.mark.skipif(not RTX, reason="tensorrt_rtx is not installed")
without_gpu = pytest.mark.skipif(bool(devices()), reason="there is a CUDA device, which full TensorRT builds for")


def refused(kind: type[Exception], sentence: str, graph: Any, **options: Any) -> None:
    with pytest.raises(kind, match=f"^{re.escape(sentence)}$"):
        build_engine(graph, **options)


@builds
class TestBuilt:
    @pytest.mark.parametrize("kind", [FLOAT, HALF, BFLOAT16])
    def test_an_engine_of_every_precision_is_built(self, kind: int) -> None:
        built = build_engine(convolution(kind))
        assert built.content.startswith(b"vtrt") and built.report["bytes"] == len(built.content) > 10_000

    def test_the_report_says_what_was_built(self) -> None:
        import tensorrt_rtx

        report = build_engine(convolution(FLOAT), targets=["sm_89", "sm_86"], profile=[(1, 1, 1), (2, 8, 32)]).report
        assert json.loads(json.dumps(report)) == report and report.pop("seconds") > 0 and report.pop("bytes") > 0
        assert report == {
            "flavour": "rtx", "library": "tensorrt_rtx", "version": tensorrt_rtx.__version__,
            "targets": ["sm_86", "sm_89"], "device": None, "profiles": [[1, 1, 1], [2, 8, 32]],
            "inputs": [{"name": "x", "dtype": "float32", "shape": ["N", 3, 8, 8]}],
            "outputs": [{"name": "y", "dtype": "float32", "shape": ["N", 5, 8, 8]}], "metadata": {},
        }  # fmt: skip

    def test_the_report_keeps_what_the_onnx_model_said_of_itself(self) -> None:
        proto = onnx.load_model_from_string(relu())
        helper.set_model_props(proto, {"zellige.system": "onegan", "other": "thing"})
        assert build_engine(proto.SerializeToString()).report["metadata"] == {"zellige.system": "onegan"}

    def test_building_twice_gives_the_same_bytes(self) -> None:
        assert build_engine(convolution(FLOAT)).content == build_engine(convolution(FLOAT)).content

    def test_a_path_and_its_bytes_give_the_same_engine(self, tmp_path: Path) -> None:
        path = tmp_path / "model.onnx"
        path.write_bytes(convolution(FLOAT))
        assert build_engine(path).content == build_engine(path.read_bytes()).content

    @pytest.mark.parametrize("target", ["sm_75", "sm_80", "sm_86", "sm_89", "sm_120", "sm_121"])
    def test_every_target_is_built_for(self, target: str) -> None:
        assert build_engine(convolution(HALF), targets=[target]).report["targets"] == [target]

    def test_without_targets_all_that_have_bfloat16_are_built_for(self) -> None:
        assert build_engine(relu()).report["targets"] == ["sm_80", "sm_86", "sm_89", "sm_120", "sm_121"]

    def test_functions_of_our_nodes_are_built_as_what_they_stand_for(self) -> None:
        plain = model(
            [helper.make_node("Mul", ["x", "s"], ["z"]), node("Relu", "z")], weights=[weight("s", 4)]
        )  # fmt: skip
        sizes = [build_engine(graph).report["bytes"] for graph in (gated(function=True), plain)]
        assert abs(sizes[0] - sizes[1]) < 100  # of names

    def test_a_model_of_one_batch_is_built_for_that_batch(self) -> None:
        assert build_engine(convolution(FLOAT, 4), profile=(4, 4, 4)).report["inputs"][0]["shape"] == [4, 3, 8, 8]

    @pytest.mark.slow
    def test_a_onegan_is_the_same_bytes_for_single_batches(
        self, tmp_path: Path, onegan_file: Callable[..., Path]
    ) -> None:
        path = tmp_path / "onegan.onnx"
        export_onnx(onegan_file(), path, precision="bf16", batches=(1,))
        first, second = build_engine(path), build_engine(path)
        fixed = [build_engine(path, profile=[(1, 1, 1), (8, 8, 8)]).content for _ in range(2)]
        assert [(value["name"], value["dtype"], value["shape"]) for value in first.report["inputs"]] == [
            ("child", "int64", ["N"]), ("parent", "int64", ["N"]), ("latent", "float32", ["N", 6]),
            ("background", "int64", ["N"]),
        ]  # fmt: skip
        assert first.report["outputs"] == [{"name": "images", "dtype": "uint8", "shape": ["N", 64, 64, 3]}]
        # For a range of batches temporaries are numbered anew in every build, in as many digits.
        assert len(first.content) == len(second.content) and fixed[0] == fixed[1]


@builds
class TestTheFile:
    def test_is_what_was_built(self, tmp_path: Path) -> None:
        report = export_tensorrt(relu(), tmp_path / "relu.engine", targets=["sm_86"])
        built = build_engine(relu(), targets=["sm_86"])
        assert (tmp_path / "relu.engine").read_bytes() == built.content
        assert report.pop("path") == str(tmp_path / "relu.engine")
        assert report | {"seconds": 0} == built.report | {"seconds": 0}

    def test_is_as_before_when_the_build_fails(self, tmp_path: Path) -> None:
        (tmp_path / "old.engine").write_text("old")
        with pytest.raises(CheckpointError):
            export_tensorrt(model([node("Foo")]), tmp_path / "old.engine")
        assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("old.engine", "old")]

    def test_that_cannot_be_written_is_refused_before_anything_is_built(self, tmp_path: Path) -> None:
        with pytest.raises(OutputError, match="there is no folder"):
            export_tensorrt(b"no model", tmp_path / "missing" / "x.engine")


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
            "the ONNX model holds the node 'the AffineRelu' (AffineRelu), a kernel of this package without its "
            "function, and TensorRT-RTX has no plugins; export the model with --flavour portable",
            gated(function=False),
        )

    def test_our_nodes_within_a_branch(self) -> None:
        branch = helper.make_graph(
            [node("AffineRelu", "x", "s", domain="zellige")], "branch", [],
            [helper.make_tensor_value_info("y", FLOAT, ["N", 4])],
        )  # fmt: skip
        condition = numpy_helper.from_array(np.array(True), "c")
        graph = model([node("If", "c", then_branch=branch, else_branch=branch)], weights=[condition, weight("s", 4)])
        with pytest.raises(CheckpointError, match="holds the node 'the AffineRelu'"):
            build_engine(graph)

    def test_our_nodes_within_a_function(self) -> None:
        outer = helper.make_function(
            "zellige", "Block", ["x"], ["y"], [node("MaskComposite", domain="zellige")],
            [helper.make_opsetid("zellige", 1)],
        )  # fmt: skip
        with pytest.raises(CheckpointError, match=r"holds the node 'the MaskComposite\w*' \(MaskComposite\)"):
            build_engine(model([node("Block", domain="zellige")], functions=[outer]))

    def test_nodes_of_other_domains(self) -> None:
        refused(
            CheckpointError,
            "the ONNX model holds the node 'the Thing' (Thing) of the domain 'other', and TensorRT-RTX has no plugins; "
            "export the model with standard operators",
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
        with pytest.raises(
            CheckpointError, match="^the ONNX model (cannot be read as an|has no inputs or no outputs, so)"
        ):
            build_engine(content)

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        path = tmp_path / "missing.onnx"
        refused(CheckpointError, f"{path} cannot be read: No such file or directory; give an ONNX model's path", path)


@builds
class TestRefusedOptions:
    @pytest.mark.parametrize("target", ["sm_90", "sm_100", "sm_87", "86"])
    def test_targets_that_it_does_not_build_for(self, target: str) -> None:
        refused(
            DeviceError,
            f"TensorRT-RTX does not build for {target}; it does for sm_75, sm_80, sm_86, sm_89, sm_120, sm_121. Full "
            "TensorRT builds for the GPU at hand, whatever it is: take the flavour 'full' there",
            relu(),
            targets=["sm_86", target],
        )

    def test_bfloat16_on_a_target_without_it(self) -> None:
        refused(
            DeviceError,
            "the ONNX model computes in bfloat16, which sm_75 does not have; leave sm_75 out, or export it in fp16",
            convolution(BFLOAT16),
            targets=["sm_75", "sm_86"],
        )

    @pytest.mark.parametrize(
        ("profile", "shown"),
        [((0, 1, 2), "0,1,2"), ((2, 1, 4), "2,1,4"), ((1, 8, 4), "1,8,4"), ([(1, 2, 3), (1, 2)], "1,2")],
    )
    def test_profiles_that_do_not_ascend(self, profile: Any, shown: str) -> None:
        refused(
            SizeError,
            f"the profile {shown} is not the least, usual and largest batch in ascending order, each 1 or more; write "
            "it as 1,8,32",
            relu(),
            profile=profile,
        )

    def test_no_profile(self) -> None:
        refused(
            SizeError,
            "an engine needs a profile: least, usual and largest batch, such as 1,8,32",
            relu(),
            profile=[],
        )

    def test_other_batches_than_the_models_own(self) -> None:
        refused(
            SizeError,
            "the input 'x' of the ONNX model has a fixed batch of 4, and the profile 1,8,32 asks for others; export it "
            "with any batch, or take 4,4,4",
            convolution(FLOAT, 4),
        )


def test_a_flavour_that_does_not_exist() -> None:
    refused(
        DeviceError, "there is no flavour 'lite' of TensorRT; use 'rtx' or 'full'", relu(), flavour="lite"
    )  # fmt: skip


def test_full_with_targets() -> None:
    refused(
        DeviceError,
        "TensorRT builds for the GPU at hand, and not for sm_86, sm_90; leave the targets out, or take the flavour "
        "'rtx'",
        relu(),
        flavour="full",
        targets=["sm_86", "sm_90"],
    )


@without_gpu
def test_full_without_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", sys)  # any module: it must not be asked for anything
    refused(
        DeviceError,
        "TensorRT builds for the GPU at hand, and there is no CUDA device here; build where it will run, or take the "
        "flavour 'rtx', which builds for sm_75, sm_80, sm_86, sm_89, sm_120, sm_121 without one",
        relu(),
        flavour="full",
    )


@pytest.mark.parametrize(
    ("flavour", "package", "extra"),
    [("rtx", "tensorrt_rtx", "tensorrt-rtx"), ("full", "tensorrt", "tensorrt"), (None, "tensorrt_rtx", "tensorrt-rtx")],
)
def test_a_flavour_that_is_not_installed(
    flavour: Any, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=rf"'{package}'; install it with: pip install 'zellige\[{extra}\]'$"):
        build_engine(relu(), flavour=flavour)


@builds
def test_building_needs_neither_torch_nor_triton() -> None:
    code = (
        "import sys; sys.modules['torch'] = sys.modules['triton'] = None\n"
        "from zellige.engine.tensorrt.build import build_engine\n"
        "print(len(build_engine(sys.stdin.buffer.read()).content))"
    )
    done = subprocess.run([sys.executable, "-c", code], input=relu(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert int(done.stdout) > 10_000


@pytest.mark.gpu
@pytest.mark.needs_tensorrt
def test_full_builds_for_the_device_at_hand() -> None:
    report = build_engine(convolution(FLOAT), flavour="full").report
    assert (report["device"], report["targets"]) == (devices()[0].name, [devices()[0].capability])


@builds
class TestFull:
    """TensorRT-RTX under the name of full TensorRT, whose interface it shares, and a driver with a card."""

    @pytest.fixture(autouse=True)
    def card(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import tensorrt_rtx

        monkeypatch.setitem(sys.modules, "tensorrt", tensorrt_rtx)
        devices_of_driver(monkeypatch, ("A large card", 9, 0))

    def test_builds_for_the_device_at_hand(self) -> None:
        report = build_engine(convolution(HALF), flavour="full").report
        assert (report["flavour"], report["device"], report["targets"]) == ("full", "A large card", ["sm_90"])

    def test_expands_functions_that_are_no_plugins(self) -> None:
        assert build_engine(gated(function=True), flavour="full").report["bytes"] > 10_000

    def test_refuses_our_nodes_whose_plugin_is_not_registered(self) -> None:
        refused(
            CheckpointError,
            "the ONNX model cannot be built: TensorRT cannot run the node 'the AffineRelu' (AffineRelu); export the "
            "model with other operators, or use the runtime 'onnx'",
            gated(function=False),
            flavour="full",
        )
