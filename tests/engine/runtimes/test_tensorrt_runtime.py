"""The adapter of engines to torch's tensors, by stand-ins; with a GPU and a TensorRT, truly."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from zellige.engine.runtimes import joined, open_runtime
from zellige.engine.runtimes.onnx_export import onnx_graph
from zellige.engine.runtimes.tensorrt_runtime import TensorRtRuntime
from zellige.errors import DeviceError, ShapeError

from ..tensorrt.stand_in_tensorrt import Machine, engine_file, machine
from .networks import Painter, rows

__all__ = ["machine"]

CUDA = torch.device("cuda")
ONE = engine_file((1, 4, 8))


@pytest.fixture
def on_a_card(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """The stand-in's device, and a stream of torch's on it."""
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(cuda_stream=0))
    return machine


def given(count: int) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(count)
    return torch.randint(5, (count,), generator=random), torch.randn(count, 3, generator=random)


def made(runtime: Any, inputs: Any, count: int, host: bool = True) -> Tensor:
    return joined(runtime.run(inputs, host=host), count, lent=runtime.lends)


@pytest.mark.parametrize("count", [1, 3, 8, 21])
@pytest.mark.parametrize("host", [True, False])
def test_every_row_is_run(count: int, host: bool, on_a_card: Machine) -> None:
    classes, values = given(count)
    runtime = open_runtime("tensorrt", ONE, CUDA, (1, 4, 8))
    expected = (classes + 1)[:, None] * values
    assert torch.equal(made(runtime, (classes, values), count, host), expected)
    assert torch.equal(made(runtime, {"x": values.numpy(), "c": classes.numpy()}, count, host), expected)


def test_batches_padding_and_graphs_are_counted(on_a_card: Machine) -> None:
    runtime = open_runtime("tensorrt", ONE, CUDA, (1, 4, 8))
    made(runtime, given(8 + 3), 11)
    assert runtime.usage.row() == {"images": 11, "padding": 1, "batches": {"4": 1, "8": 1}, "graphs": [4, 8]}


def test_what_cannot_be_captured_is_said(on_a_card: Machine) -> None:
    runtime = open_runtime("tensorrt", ONE, CUDA, (4,))
    on_a_card.engines[0].uncapturable = True
    made(runtime, given(2), 2)
    assert "operation not permitted" in runtime.usage.row()["eager"]


def test_warm_captures_what_such_calls_need(on_a_card: Machine) -> None:
    runtime = open_runtime("tensorrt", ONE, CUDA, (1, 4, 8))
    runtime.warm([12, 1], given(1))
    assert runtime.usage.graphs == [8, 4, 1]


def test_results_are_the_callers_own(on_a_card: Machine) -> None:
    runtime = open_runtime("tensorrt", ONE, CUDA, (4,))
    (_, first), (_, second) = runtime.run(given(8))
    assert not runtime.lends and torch.equal(torch.cat([first, second]), made(runtime, given(8), 8))


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        (given(2)[:1], "the engine takes 2 inputs, c, x; got 1"),
        ({"c": given(2)[0], "z": given(2)[1]}, "the engine takes the inputs c, x; got c, z"),
        ((given(2)[0], given(2)[1].double()), "the input 'x' must be float32 [N, 3]; got float64 [2, 3]"),
        (
            (given(2)[0], given(2)[1].bfloat16()),
            "the input 'x' is bfloat16; give float32, which the model casts by itself",
        ),
    ],
)
def test_inputs_that_it_does_not_take_are_refused_before_it_runs(
    inputs: Any, sentence: str, on_a_card: Machine
) -> None:
    runtime = open_runtime("tensorrt", ONE, CUDA)
    with pytest.raises(ShapeError, match=f"^{re.escape(sentence)}$"):
        runtime.run(inputs)


def test_a_network_of_pytorch_is_refused(on_a_card: Machine) -> None:
    sentence = "the runtime 'tensorrt' runs an ONNX model; give its path or its bytes, or use 'torch'"
    with pytest.raises(DeviceError, match=f"^{sentence}$"):
        open_runtime("tensorrt", Painter(), CUDA)


@pytest.mark.gpu
@pytest.mark.parametrize("output", ["uint8", "float"])
class TestOnTheDevice:
    """With TensorRT-RTX or TensorRT, whichever is installed and runs on the device."""

    def runtime(self, output: str, folder: Path) -> tuple[Painter, TensorRtRuntime]:
        pytest.importorskip("cupy")
        network, path = Painter(output), folder / "painter.onnx"
        path.write_bytes(onnx_graph(network, rows(2), ("classes", "latents")).model.SerializeToString())
        try:
            return network, TensorRtRuntime(path, CUDA, (1, 4, 8))
        except DeviceError as error:
            pytest.skip(str(error))

    @pytest.mark.parametrize("host", [True, False])
    def test_images_are_those_of_the_network(self, output: str, host: bool, tmp_path: Path) -> None:
        network, runtime = self.runtime(output, tmp_path)
        for count in (1, 3, 21):
            found = made(runtime, rows(count, count), count, host)
            assert found.device.type == ("cpu" if host else "cuda")
            gap = (found.cpu().float() - network(*rows(count, count)).float()).abs().max()
            assert gap <= (1 if output == "uint8" else 1e-3)
        assert runtime.usage.graphs and not runtime.usage.eager

    def test_the_same_rows_give_the_same_bytes(self, output: str, tmp_path: Path) -> None:
        _, runtime = self.runtime(output, tmp_path)
        assert len({np.asarray(made(runtime, rows(8), 8)).tobytes() for _ in range(20)}) == 1
