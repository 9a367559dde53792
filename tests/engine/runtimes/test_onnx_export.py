import os
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from zellige.engine.runtimes import joined, onnx_export
from zellige.engine.runtimes.buckets import split
from zellige.engine.runtimes.onnx_export import OPSET, onnx_graph
from zellige.engine.runtimes.onnx_runtime import OnnxRuntime
from zellige.errors import ExportError, MissingExtraError
from zellige.kernels import mask_composite

from .networks import Painter, rows

for package in ("onnx", "onnxruntime", "onnxscript"):
    pytest.importorskip(package)
CPU = torch.device("cpu")


class Laid(nn.Module):
    def forward(self, front: Tensor, back: Tensor, mask: Tensor) -> Tensor:
        return mask_composite(front, back, mask, output="uint8")


def parts(count: int) -> tuple[Tensor, ...]:
    random = torch.Generator().manual_seed(count)
    return tuple(torch.randn(count, c, 8, 8, generator=random) for c in (3, 3, 1))


def run(model: Any, inputs: Any, count: int) -> Tensor:
    runtime = OnnxRuntime(model.SerializeToString(), CPU, (4,))
    return joined(runtime.run(inputs), count, lent=runtime.lends).clone()


@pytest.mark.parametrize("count", [1, 2, 11])
def test_an_exported_network_gives_the_same_images_for_any_batch(count: int) -> None:
    network, names = Painter(), ("classes", "latents")
    model, inputs = onnx_graph(network, rows(1), names).model, rows(count, seed=count)
    found = run(model, dict(zip(names, inputs, strict=True)), count)
    right = [
        network(*(tensor[batch.start : batch.start + batch.size] for tensor in inputs)) for batch in split(count, (4,))
    ]
    # A byte may lie one beside where float32 rounds elsewhere.
    torch.testing.assert_close(found.float(), torch.cat(right).float(), rtol=0, atol=1)


def test_kernels_are_exported_as_standard_operators() -> None:
    model = onnx_graph(Laid(), parts(5)).model
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    assert [(entry.domain, entry.version) for entry in model.opset_import if entry.domain == ""] == [("", OPSET)]
    torch.testing.assert_close(run(model, parts(5), 5).float(), Laid()(*parts(5)).float(), rtol=0, atol=1)


def test_equal_networks_give_equal_bytes_that_tell_nothing_of_the_machine() -> None:
    first, second = (onnx_graph(Painter(), rows(1)).model.SerializeToString(deterministic=True) for _ in range(2))
    assert first == second
    assert os.fsencode(os.path.dirname(torch.__file__)) not in first
    assert not re.search(rb"\.py\b", first)


def test_a_network_that_chooses_by_its_values_is_refused() -> None:
    class Choosing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 2 if x.sum() > 3 else x

    with pytest.raises(ExportError, match=r"^the network cannot be exported to ONNX: .+"):
        onnx_graph(Choosing(), (torch.ones(2, 3),))


def test_without_onnxscript_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_export, "find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(MissingExtraError, match=r"^exporting ONNX models needs the package 'onnxscript'; .*\[export"):
        onnx_graph(Painter(), rows(1))
