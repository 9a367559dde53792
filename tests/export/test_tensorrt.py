"""Engines are really built, on a CPU, by TensorRT-RTX."""

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import onnx
import pytest
from onnx import helper

from zellige.engine.runtimes.buckets import BUCKETS
from zellige.engine.tensorrt import build
from zellige.errors import CheckpointError, OutputError
from zellige.export.tensorrt import export_tensorrt

from .building import builds
from .bundled import Exported
from .graphs import BFLOAT16, FLOAT, HALF, convolution, gated, model, node, relu, weight

build_engine = partial(build.build_engine, profile=BUCKETS)


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

    def test_weights_beside_the_file_are_built_in(self, tmp_path: Path) -> None:
        proto = onnx.load_model_from_string(convolution(FLOAT))
        onnx.save_model(
            proto, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0
        )  # fmt: skip
        assert build_engine(tmp_path / "m.onnx").content == build_engine(convolution(FLOAT)).content

    @pytest.mark.parametrize("target", ["sm_75", "sm_80", "sm_86", "sm_89", "sm_120", "sm_121"])
    def test_every_target_is_built_for(self, target: str) -> None:
        assert build_engine(convolution(HALF), targets=[target]).report["targets"] == [target]

    def test_without_targets_all_that_have_bfloat16_are_built_for(self) -> None:
        assert build_engine(relu()).report["targets"] == ["sm_80", "sm_86", "sm_89", "sm_120", "sm_121"]

    def test_functions_of_our_nodes_are_built_as_what_they_stand_for(self) -> None:
        steps = [helper.make_node("Mul", ["x", "scale"], ["z"]), helper.make_node("Add", ["z", "shift"], ["t"])]
        plain = model([*steps, node("Relu", "t")], weights=[weight("scale", 4), weight("shift", 4)])
        sizes = [build_engine(graph).report["bytes"] for graph in (gated(function=True), plain)]
        assert abs(sizes[0] - sizes[1]) < 200  # of names; another operator takes a kilobyte

    def test_a_model_of_one_batch_is_built_for_that_batch(self) -> None:
        assert build_engine(convolution(FLOAT, 4), profile=(4, 4, 4)).report["inputs"][0]["shape"] == [4, 3, 8, 8]

    @pytest.mark.slow
    def test_a_onegan_is_the_same_bytes_for_single_batches(self, bundled: Callable[..., Exported]) -> None:
        file = bundled("emoji", "portable", "bf16")
        first, second = build_engine(file.path), build_engine(file.path)
        fixed = [build_engine(file.path, profile=[(1, 1, 1), (8, 8, 8)]).content for _ in range(2)]
        assert [value["name"] for value in first.report["inputs"]] == ["child", "parent", "latent", "background"]
        assert first.report["inputs"] == file.report["inputs"]
        assert first.report["outputs"] == [{"name": "images", "dtype": "uint8", "shape": ["N", 64, 64, 3]}]
        # For a range of batches temporaries are numbered on from the last build, sometimes with more digits.
        assert abs(len(first.content) - len(second.content)) < 256 and fixed[0] == fixed[1]


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
def test_building_needs_neither_torch_nor_triton() -> None:
    code = (
        "import sys; sys.modules['torch'] = sys.modules['triton'] = None\n"
        "from zellige.engine.tensorrt.build import build_engine\n"
        "print(len(build_engine(sys.stdin.buffer.read(), profile=(1, 8, 32)).content))"
    )
    done = subprocess.run([sys.executable, "-c", code], input=relu(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert int(done.stdout) > 10_000
