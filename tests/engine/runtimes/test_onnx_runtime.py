import builtins
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from zellige.engine.runtimes import joined, open_runtime
from zellige.engine.runtimes.onnx_runtime import OnnxRuntime
from zellige.errors import CheckpointError, DeviceError, MissingExtraError, ShapeError, TaskError

from .networks import rows

onnxruntime = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")
CPU = torch.device("cpu")


def model(output: str = "float", batch: int | str = "N", extra: bool = False) -> bytes:
    """y = scale[c] * z of classes c [N] and latents z [N, 6]; as bytes [N, 6] if asked for."""
    helper, types = onnx.helper, onnx.TensorProto
    scale = onnx.numpy_helper.from_array(torch.arange(1.0, 6.0).reshape(5, 1).numpy(), "scale")
    nodes = [helper.make_node("Gather", ["scale", "c"], ["s"]), helper.make_node("Mul", ["s", "z"], ["y"])]
    kind = types.FLOAT
    if output == "uint8":
        nodes[-1] = helper.make_node("Mul", ["s", "z"], ["p"])
        nodes.append(helper.make_node("Cast", ["p"], ["y"], to=types.UINT8))
        kind = types.UINT8
    outputs = [helper.make_tensor_value_info("y", kind, [batch, 6])]
    if extra:
        outputs.append(helper.make_tensor_value_info("s", types.FLOAT, [batch, 1]))
    inputs = [
        helper.make_tensor_value_info("c", types.INT64, [batch]),
        helper.make_tensor_value_info("z", types.FLOAT, [batch, 6]),
    ]
    graph = helper.make_graph(nodes, "scaled", inputs, outputs, [scale])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    return made.SerializeToString()


def expected(c: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    return (c + 1)[:, None] * z


def made(runtime: Any, inputs: Any, count: int, host: bool = True) -> torch.Tensor:
    return joined(runtime.run(inputs, host=host), count, lent=runtime.lends)


@pytest.mark.parametrize("count", [1, 4, 11])
@pytest.mark.parametrize("source", ["bytes", "path"])
def test_a_model_runs_from_its_bytes_and_from_its_file(count: int, source: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(model())
    runtime = open_runtime("onnx", path if source == "path" else model(), CPU, (1, 4))
    for seed in range(2):
        assert torch.equal(made(runtime, rows(count, seed), count), expected(*rows(count, seed)))
    assert runtime.usage.images == 2 * count and runtime.usage.padding == 0


def test_outputs_may_be_bytes() -> None:
    c, z = rows(5)[0], torch.arange(30.0).reshape(5, 6)
    found = made(open_runtime("onnx", model("uint8"), CPU), (c, z), 5)
    assert found.dtype == torch.uint8 and torch.equal(found, expected(c, z).byte())


def test_inputs_go_by_name_in_any_order() -> None:
    c, z = rows(3)
    assert torch.equal(made(OnnxRuntime(model(), CPU), {"z": z, "c": c}, 3), expected(c, z))


def test_results_are_written_into_one_buffer() -> None:
    runtime = OnnxRuntime(model(), CPU, (4,))
    runtime.warm([1, 9], rows(1))
    assert len({result.data_ptr() for _, result in runtime.run(rows(9))}) == 1
    first = runtime.run(rows(9))
    next(first)
    with pytest.raises(TaskError, match="amid another run"):
        next(runtime.run(rows(1)))


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ((torch.zeros(2, dtype=torch.int64),), "the ONNX model takes 2 inputs, c, z; got 1"),
        ({"c": torch.zeros(2), "w": torch.zeros(2)}, "the ONNX model takes the inputs c, z; got c, w"),
        (
            (torch.zeros(2, dtype=torch.int64), torch.zeros(2, 6).double()),
            "the input 'z' must be torch.float32 [N, 6]; got torch.float64 [2, 6]",
        ),
        (
            (torch.zeros(2, dtype=torch.int64), torch.zeros(2, 7)),
            "the input 'z' must be torch.float32 [N, 6]; got torch.float32 [2, 7]",
        ),
        (
            (torch.zeros(2, 1, dtype=torch.int64), torch.zeros(2, 6)),
            "the input 'c' must be torch.int64 [N]; got torch.int64 [2, 1]",
        ),
    ],
)
def test_inputs_that_do_not_fit_are_refused_by_name(inputs: Any, sentence: str) -> None:
    with pytest.raises(ShapeError, match=f"^{re.escape(sentence)}$"):
        OnnxRuntime(model(), CPU).run(inputs)


def test_what_fails_inside_is_one_sentence() -> None:
    runtime = OnnxRuntime(model(), CPU)
    with pytest.raises(ShapeError, match="^the ONNX model cannot be run on these inputs: .*"):
        list(runtime.run((torch.tensor([99]), torch.zeros(1, 6))))
    assert torch.equal(made(runtime, rows(2), 2), expected(*rows(2)))


def test_damaged_and_missing_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="^the ONNX model cannot be opened as an ONNX model: "):
        OnnxRuntime(b"nonsense", CPU)
    with pytest.raises(CheckpointError, match=r"none\.onnx cannot be opened as an ONNX model: "):
        OnnxRuntime(tmp_path / "none.onnx", CPU)


def test_models_for_one_size_of_batches_or_with_several_outputs_are_refused() -> None:
    with pytest.raises(CheckpointError, match="^the ONNX model has a fixed batch size in c, z, y; export it with any"):
        OnnxRuntime(model(batch=3), CPU)
    with pytest.raises(CheckpointError, match="^the ONNX model must have one output, a tensor; it has y: tensor"):
        OnnxRuntime(model(extra=True), CPU)


def test_a_device_without_a_provider_is_refused() -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("ONNX Runtime has CUDA here")
    with pytest.raises(DeviceError, match="^ONNX Runtime as it is installed here does not run on cuda; install onnxru"):
        OnnxRuntime(model(), torch.device("cuda"))


def test_without_onnx_runtime_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **named: Any) -> Any:
        if name == "onnxruntime":
            raise ImportError(name)
        return real(name, *args, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(
        MissingExtraError, match=r"^running ONNX models needs the package 'onnxruntime'; .*\[export\]'$"
    ):
        OnnxRuntime(model(), CPU)


@pytest.mark.gpu
@pytest.mark.parametrize("host", [True, False])
def test_the_cuda_provider_gives_the_same(host: bool) -> None:
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("ONNX Runtime is installed without CUDA")
    runtime = open_runtime("onnx", model(), torch.device("cuda"), (4,))
    found = made(runtime, rows(11), 11, host)
    assert found.device.type == ("cpu" if host else "cuda")
    torch.testing.assert_close(found.cpu(), expected(*rows(11)))


class TestUncheckedFiles:
    """What nobody vouches for is refused before the runtime sees it; see test_onnx_file.py for all that is checked."""

    def test_a_model_for_plugins_is_refused_with_what_provides_them(self) -> None:
        made = onnx.load_from_string(model())
        made.graph.node[1].domain = "zellige"
        with pytest.raises(
            CheckpointError, match="of the domain 'zellige': Zellige's plugins for TensorRT provide them"
        ):
            OnnxRuntime(made.SerializeToString(), CPU)

    def test_operators_of_the_runtime_itself_run(self) -> None:
        made = onnx.load_from_string(model())
        made.graph.node[1].output[0] = "p"
        made.graph.node.append(onnx.helper.make_node("QuickGelu", ["p"], ["y"], domain="com.microsoft", alpha=1.0))
        made.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
        found = joined(OnnxRuntime(made.SerializeToString(), CPU).run(rows(3)), 3, lent=True)
        scaled = expected(*rows(3))
        torch.testing.assert_close(found, scaled * scaled.sigmoid())

    def test_versions_beyond_the_runtime_s_are_refused_by_its_own_sentence(self) -> None:
        made = onnx.load_from_string(model())
        made.ir_version = onnx.IR_VERSION
        try:
            OnnxRuntime(made.SerializeToString(), CPU)
        except CheckpointError as error:
            assert re.match(
                "the ONNX model cannot be opened as an ONNX model: Unsupported model IR version: ", str(error)
            )
        else:
            pytest.skip("the runtime knows all versions that the package onnx knows")

    @pytest.mark.parametrize("relative", [False, True])
    def test_external_data_are_read_from_the_folder_of_the_file(
        self, relative: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made, path = onnx.load_from_string(model()), tmp_path / "m.onnx"
        onnx.save(made, path, save_as_external_data=True, location="m.data", size_threshold=0)
        assert (tmp_path / "m.data").stat().st_size >= 20
        monkeypatch.chdir(tmp_path if relative else "/")
        runtime = OnnxRuntime(Path("m.onnx") if relative else path, CPU)
        assert torch.equal(joined(runtime.run(rows(3)), 3, lent=True), expected(*rows(3)))


def test_a_copy_opens_the_file_again(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(model())
    runtime = pickle.loads(pickle.dumps(open_runtime("onnx", path, CPU, (1, 4))))
    assert runtime.buckets == (1, 4) and torch.equal(made(runtime, rows(5), 5), expected(*rows(5)))


def test_what_was_exported_in_memory_cannot_be_copied() -> None:
    with pytest.raises(TaskError, match=r"^the runtime 'onnx' holds a network that was exported in memory, and cannot"):
        pickle.dumps(open_runtime("onnx", model(), CPU))
