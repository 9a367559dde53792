from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from zellige import kernels
from zellige.errors import ExportError
from zellige.export.fused import DOMAIN, NODES, VERSION, functions_of

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

Case = tuple[str, tuple[tuple[int, ...], ...], dict[str, Any], Callable[..., Tensor]]
CASES: list[Case] = [
    ("GluLayerNorm", ((2, 8, 3, 5), (4,), (4,)), {"eps": 1e-3},
     lambda x, w, b: kernels.glu_layer_norm(x, w, b, 1e-3, backend="reference")),
    ("AffineRelu", ((2, 4, 3, 5), (2, 4), (2, 4)), {"upsample": 0},
     lambda x, s, t: kernels.affine_relu(x, s, t, backend="reference")),
    ("AffineRelu", ((2, 4, 3, 5), (2, 4), (2, 4)), {"upsample": 1},
     lambda x, s, t: kernels.affine_relu(x, s, t, True, backend="reference")),
    ("MaskComposite", ((2, 3, 3, 5), (2, 3, 3, 5), (2, 1, 3, 5)), {"logits": 1, "output": "uint8"},
     lambda f, b, m: kernels.mask_composite(f, b, m, output="uint8", backend="reference")),
    ("MaskComposite", ((2, 3, 3, 5), (2, 3, 3, 5), (2, 1, 3, 5)), {"logits": 0, "output": "float"},
     lambda f, b, m: kernels.mask_composite(f, b, m, logits=False, backend="reference")),
    ("PhaseEpilogue", ((2, 16, 3, 5), (2,), (2,)), {"activation": "glu_layer_norm", "eps": 1e-5},
     lambda x, w, b: kernels.phase_epilogue(x, w, b, activation="glu_layer_norm", backend="reference")),
    ("PhaseEpilogue", ((2, 16, 3, 5), (2, 4), (2, 4)), {"activation": "affine_relu", "eps": 1e-5},
     lambda x, w, b: kernels.phase_epilogue(x, w, b, activation="affine_relu", backend="reference")),
    ("Rearrange", ((2, 4, 3), (2, 5, 3), (2, 5, 7)), {"scale": 0.3},
     lambda q, k, v: kernels.rearrange(q, k, v, 0.3, backend="reference")),
]  # fmt: skip
DTYPES = {torch.float32: "FLOAT", torch.float16: "FLOAT16", torch.uint8: "UINT8"}


def inputs_of(shapes: tuple[tuple[int, ...], ...], dtype: torch.dtype) -> list[Tensor]:
    random = torch.Generator().manual_seed(0)
    return [torch.randn(*shape, generator=random).to(dtype) for shape in shapes]


def with_function(kind: str, attributes: list[dict[str, Any]], inputs: list[Tensor], output: Tensor) -> Any:
    """A model of one node, or of several on the same inputs, with its function; the last one's result leaves it."""
    helper, names = onnx.helper, NODES[kind][0]
    types = [getattr(onnx.TensorProto, DTYPES[tensor.dtype]) for tensor in (*inputs, output)]
    last = len(attributes) - 1
    nodes = [
        helper.make_node(kind, names, ["y" if place == last else f"y{place}"], domain=DOMAIN, **values)
        for place, values in enumerate(attributes)
    ]
    given = [
        helper.make_tensor_value_info(name, kind_of, list(tensor.shape))
        for name, kind_of, tensor in zip(names, types, inputs, strict=False)
    ]
    graph = helper.make_graph(nodes, "g", given, [helper.make_tensor_value_info("y", types[-1], None)])
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(DOMAIN, VERSION)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    model.functions.extend(functions_of(model))
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["float32", "float16"])
@pytest.mark.parametrize(
    ("kind", "shapes", "attributes", "kernel"),
    CASES,
    ids=[f"{case[0]}-{'-'.join(map(str, case[2].values()))}" for case in CASES],
)
def test_a_function_computes_what_its_kernel_does(
    kind: str, shapes: Any, attributes: dict[str, Any], kernel: Callable[..., Tensor], dtype: torch.dtype
) -> None:
    inputs = inputs_of(shapes, dtype)
    right = kernel(*inputs)
    session = onnxruntime.InferenceSession(with_function(kind, [attributes], inputs, right).SerializeToString())
    (found,) = session.run(None, {name: t.numpy() for name, t in zip(NODES[kind][0], inputs, strict=True)})
    assert found.shape == tuple(right.shape)
    if right.dtype == torch.uint8:
        assert np.abs(found.astype(int) - right.numpy().astype(int)).max() <= 1
    else:
        torch.testing.assert_close(torch.from_numpy(found), right)


def test_every_node_has_a_case() -> None:
    assert {case[0] for case in CASES} == NODES.keys()


def test_nodes_of_one_kind_and_two_meanings_are_refused() -> None:
    kind, shapes, _, kernel = CASES[3]
    inputs = inputs_of(shapes, torch.float32)
    two = [{"logits": 0, "output": "float"}, {"logits": 1, "output": "float"}]
    with pytest.raises(ExportError, match=r"^the model has nodes MaskComposite of .* --flavour portable$"):
        with_function(kind, two, inputs, kernel(*inputs))
