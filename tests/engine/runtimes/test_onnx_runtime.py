import builtins
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from zellige.engine.runtimes import joined, open_runtime
from zellige.engine.runtimes.buckets import split
from zellige.engine.runtimes.onnx_runtime import OnnxRuntime
from zellige.errors import CheckpointError, DeviceError, MissingExtraError, ShapeError, TaskError

from .networks import Painter, rows

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


class TestExport:
    def test_an_exported_network_gives_the_same_images_for_any_batch(self, tmp_path: Path) -> None:
        pytest.importorskip("onnxscript")
        from zellige.engine.runtimes.onnx_export import export_onnx

        network, path = Painter(), tmp_path / "painter.onnx"
        export_onnx(network, rows(1), path, ("classes", "latents"))
        runtime = OnnxRuntime(path, CPU, (4,))
        for count in (1, 2, 11):
            inputs = rows(count, seed=count)
            found, right = made(runtime, dict(zip(("classes", "latents"), inputs, strict=True)), count), []
            for batch in split(count, (4,)):
                right.append(network(*(tensor[batch.start : batch.start + batch.size] for tensor in inputs)))
            assert found.dtype == torch.uint8
            # A byte may lie one beside where float32 rounds elsewhere.
            torch.testing.assert_close(found.float(), torch.cat(right).float(), rtol=0, atol=1)

    def test_kernels_are_exported_as_standard_operators(self, tmp_path: Path) -> None:
        pytest.importorskip("onnxscript")
        from zellige.engine.runtimes.onnx_export import export_onnx
        from zellige.kernels import mask_composite

        class Laid(nn.Module):
            def forward(self, front: torch.Tensor, back: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
                return mask_composite(front, back, mask, output="uint8")

        path = tmp_path / "laid.onnx"
        random = torch.Generator().manual_seed(0)
        inputs = tuple(torch.randn(5, c, 8, 8, generator=random) for c in (3, 3, 1))
        export_onnx(Laid(), inputs, path)
        assert {node.domain for node in onnx.load(path).graph.node} <= {"", "ai.onnx"}
        found = made(OnnxRuntime(path, CPU), inputs, 5)
        torch.testing.assert_close(found.float(), Laid()(*inputs).float(), rtol=0, atol=1)

    def test_without_onnxscript_the_extra_is_named(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        from zellige.engine.runtimes import onnx_export

        monkeypatch.setattr(onnx_export, "find_spec", lambda name: None if name == "onnxscript" else name)
        with pytest.raises(
            MissingExtraError, match=r"^exporting ONNX models needs the package 'onnxscript'; .*\[export"
        ):
            onnx_export.export_onnx(Painter(), rows(1), tmp_path / "x.onnx")
