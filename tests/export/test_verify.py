import dataclasses
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from zellige.errors import ExportError
from zellige.export.onnx import written_onnx
from zellige.export.verify import in_float32, verify

from .bundled import Exported

onnx = pytest.importorskip("onnx")
for package in ("onnxruntime", "onnxscript"):
    pytest.importorskip(package)

ModelFile = Callable[..., Path]
Written = Callable[..., tuple[Any, Any]]


@pytest.fixture(scope="module")
def written(onegan_file: ModelFile) -> Written:
    """A graph and its task, made once for all tests of the module; who changes the model copies it."""

    @cache
    def graph_of(task: str, flavour: Any, precision: str) -> tuple[Any, Any]:
        return written_onnx(onegan_file(), task=task, flavour=flavour, precision=precision, output="image")

    return graph_of


@pytest.mark.parametrize(
    ("task", "flavour", "precision"), [("reconstruct", "portable", "fp32"), ("generate", "fused", "bf16")]
)
def test_a_weight_that_changed_is_found_by_its_node(written: Written, task: str, flavour: str, precision: str) -> None:
    graph, described = written(task, flavour, precision)
    broken = onnx.ModelProto()
    broken.CopyFrom(graph.model)
    (weight,) = (t for t in broken.graph.initializer if t.name.endswith("background.blocks.1.conv.weight"))
    values = onnx.numpy_helper.to_array(weight).copy()
    values[0] *= 2
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    (node,) = (node for node in broken.graph.node if weight.name in node.input)
    with pytest.raises(ExportError) as error:
        verify(dataclasses.replace(graph, model=broken), broken.SerializeToString(), described, precision, (2,))
    assert f"they part at the node {node.name} (Conv, of background.blocks.1.conv). No file was written" in str(
        error.value
    )
    assert str(error.value).startswith(
        f"the exported {described.outputs[0]} is not what PyTorch computes: at batch 2 the file"
    )


def test_an_operator_that_changed_is_found_in_a_branch(written: Written) -> None:
    graph, task = written("reconstruct", "portable", "fp32")
    broken = onnx.ModelProto()
    broken.CopyFrom(graph.model)
    tanh = next(node for node in broken.graph.node if node.op_type == "Tanh")
    tanh.op_type = "Sin"
    with pytest.raises(ExportError, match=f"part at the node {tanh.name} "):
        verify(dataclasses.replace(graph, model=broken), broken.SerializeToString(), task, "fp32", (1,))


def test_differences_are_told_for_every_output_and_batch(written: Written) -> None:
    graph, task = written("reconstruct", "portable", "fp32")
    rows = verify(graph, graph.model.SerializeToString(), task, "fp32", (1, 5))
    outputs = ["image", "foreground", "whole_background", "mask"]
    assert [(row["batch"], row["output"]) for row in rows] == [(n, name) for n in (1, 5) for name in outputs]
    assert all(row["max_error"] <= 1 and (row["psnr_db"] is None or row["psnr_db"] > 70) for row in rows)


def test_halves_are_held_against_the_trained_network_too(bundled: Callable[..., Exported]) -> None:
    rows = bundled("emoji", "fused", "fp16").report["verification"]
    assert {row["what"] for row in rows} == {"file in float32, weights as rounded", "file"}
    rounded = [row["mean_error"] for row in rows if row["what"] == "file"]
    assert all(0 < error < 1 for error in rounded)


def test_a_widened_model_has_no_halves(written: Written) -> None:
    graph, _ = written("generate", "fused", "bf16")
    kinds = {tensor.data_type for tensor in in_float32(graph.model).graph.initializer}
    assert onnx.TensorProto.FLOAT in kinds
    assert not kinds & {onnx.TensorProto.BFLOAT16, onnx.TensorProto.FLOAT16}
    assert onnx.TensorProto.BFLOAT16 in {tensor.data_type for tensor in graph.model.graph.initializer}
    values = {t.name: onnx.numpy_helper.to_array(t) for t in in_float32(graph.model).graph.initializer}
    for tensor in graph.model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.BFLOAT16:
            wide = torch.from_numpy(values[tensor.name].copy())
            assert torch.equal(wide, wide.bfloat16().float())
