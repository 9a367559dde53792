"""Every kernel that a network can use has nodes: the exporter writes them, and their functions compute what it does."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from zellige import kernels
from zellige.engine.runtimes.onnx_export import onnx_graph
from zellige.errors import ExportError
from zellige.export.nodes import DOMAIN, VERSION, functions_of, nodes, translations

onnx = pytest.importorskip("onnx")
inliner = pytest.importorskip("onnx.inliner")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@dataclass(frozen=True)
class Form:
    """A kernel as a network calls it.

    Attributes:
        node: that it becomes.
        call: the public function, of the rows and the weights.
        rows: shapes of what has a row a sample, without that row.
        weights: shapes of what has not.
    """

    node: str
    call: Callable[..., Tensor]
    rows: tuple[tuple[int, ...], ...]
    weights: tuple[tuple[int, ...], ...] = ()

    def make(self, samples: int) -> tuple[list[Tensor], list[Tensor]]:
        """Draw rows and weights in float32; the weights are the same for any number of samples.

        All are values of float16, because ONNX Runtime on CPUs drops casts to it and back.
        """
        random = torch.Generator().manual_seed(0)
        weights = [torch.randn(shape, generator=random).half().float() for shape in self.weights]
        rows = [torch.randn(samples, *shape, generator=random).half().float() for shape in self.rows]
        return rows, weights


MAP, IMAGE, ONE = (16, 4, 6), (3, 4, 6), (1, 4, 6)
TOKENS = (5, 4), (7, 4), (7, 3)
k = kernels
FORMS = {
    "glu_layer_norm": Form("GluLayerNorm", partial(k.glu_layer_norm, eps=1e-3), (MAP,), ((8,), (8,))),
    "affine_relu": Form("AffineRelu", k.affine_relu, (MAP, (16,), (16,))),
    "affine_relu x2": Form("AffineRelu", partial(k.affine_relu, upsample=True), (MAP, (16,), (16,))),
    "affine_relu width": Form("AffineReluVarying", k.affine_relu, (MAP, (16, 1, 6), (16, 1, 6))),
    "affine_relu map": Form("AffineReluVarying", k.affine_relu, (MAP, MAP, MAP)),
    "affine_relu one pixel": Form("AffineRelu", k.affine_relu, (MAP, (16, 1, 1), (16, 1, 1))),
    "affine_relu height x2": Form(
        "AffineReluVarying", partial(k.affine_relu, upsample=True), (MAP, (16, 4, 1), (16, 4, 1))
    ),
    "mask_composite": Form("MaskComposite", k.mask_composite, (IMAGE, IMAGE, ONE)),
    "mask_composite bytes": Form(
        "MaskComposite", partial(k.mask_composite, logits=False, output="uint8"), (IMAGE, IMAGE, ONE)
    ),
    "phase_epilogue": Form("PhaseEpilogue", partial(k.phase_epilogue, eps=1e-3), (MAP,), ((2,), (2,))),
    "phase_epilogue affine": Form(
        "PhaseEpilogue", partial(k.phase_epilogue, activation="affine_relu"), (MAP, (4,), (4,))
    ),
    "rearrange": Form("Rearrange", k.rearrange, TOKENS),
    "rearrange scaled": Form("Rearrange", partial(k.rearrange, scale=0.3), TOKENS),
    "bias_act": Form("BiasAct", partial(k.bias_noise_act, slope=0.1, gain=2.0), (MAP,), ((16,),)),
    "bias_noise_act": Form(
        "BiasNoiseAct", lambda x, noise, bias, strength, **how: k.bias_noise_act(x, bias, noise, strength, **how),
        (MAP, ONE), ((16,), ()),
    ),
    "bias_act, factor": Form(
        "ScaledBiasAct", lambda x, factor, bias, **how: k.bias_noise_act(x, bias, factor=factor, **how),
        (MAP, (16,)), ((16,),),
    ),
    "bias_noise_act, factor": Form(
        "ScaledBiasNoiseAct",
        lambda x, noise, factor, bias, strength, **how: k.bias_noise_act(
            x, bias, noise, strength, factor=factor, clamp=1.0, **how
        ),
        (MAP, ONE, (16,)), ((16,), ()),
    ),
    "fir_resample up": Form("FirResample", partial(k.fir_resample, up=True), (MAP,)),
    "fir_resample down": Form("FirResample", partial(k.fir_resample, up=False), (MAP,)),
    "nearest_centroid": Form("NearestCentroid", k.nearest_centroid, ((6,),), ((9, 6),)),
    "nearest_centroid cosine": Form(
        "NearestCentroid", partial(k.nearest_centroid, metric="cosine"), ((6,),), ((9, 6),)
    ),
}  # fmt: skip
NAMES = {torch.float32: "float32", torch.float16: "float16"}
# A file holds one function of a name: the second form of a node goes into another network.
SECOND = {
    "affine_relu x2",
    "affine_relu height x2",
    "mask_composite bytes",
    "phase_epilogue affine",
    "fir_resample down",
    "nearest_centroid cosine",
}
each_form = pytest.mark.parametrize("name", FORMS)


@cache
def exported(second: bool) -> Any:
    """A network that calls each of its forms once in each dtype, and returns floats as float32."""
    forms = {name: form for name, form in FORMS.items() if (name in SECOND) == second}
    made = {name: form.make(2) for name, form in forms.items()}

    def network(*given: Tensor) -> tuple[Tensor, ...]:
        rows, found = iter(given), []
        for name, form in forms.items():
            own = [next(rows) for _ in form.rows]
            for dtype in NAMES:
                y = form.call(*(t.to(dtype) for t in (*own, *made[name][1])))
                found.append(y.float() if y.is_floating_point() else y)
        return tuple(found)

    inputs = [f"{name}/{place}" for name in forms for place in range(len(forms[name].rows))]
    outputs = [f"{name}/{dtype}" for name in forms for dtype in NAMES.values()]
    rows = [t.numpy() for name in forms for t in made[name][0]]
    graph = onnx_graph(network, rows, inputs, outputs, translations())
    graph.model.functions.extend(functions_of(graph.model))
    return graph.model


@cache
def found(second: bool, samples: int) -> dict[str, Tensor]:
    """What ONNX Runtime makes of a network's rows, by the names of its outputs."""
    model = exported(second)
    rows = {
        f"{name}/{place}": t.numpy()
        for name, form in FORMS.items() if (name in SECOND) == second
        for place, t in enumerate(form.make(samples)[0])
    }  # fmt: skip
    session = onnxruntime.InferenceSession(model.SerializeToString())
    names = [value.name for value in model.graph.output]
    return dict(zip(names, map(torch.from_numpy, session.run(names, rows)), strict=True))


@pytest.mark.parametrize("dtype", NAMES, ids=NAMES.get)
@pytest.mark.parametrize("samples", [1, 5])
@each_form
def test_a_file_computes_what_the_kernel_does_for_any_batch(name: str, samples: int, dtype: torch.dtype) -> None:
    rows, weights = FORMS[name].make(samples)
    right = FORMS[name].call(*(t.to(dtype) for t in (*rows, *weights)), backend="reference")
    y = found(name in SECOND, samples)[f"{name}/{NAMES[dtype]}"]
    if right.is_floating_point():
        torch.testing.assert_close(y.to(dtype), right)
    else:
        assert y.dtype == right.dtype and y.shape == right.shape
        assert (y.long() - right.long()).abs().max() <= (1 if right.dtype == torch.uint8 else 0)


@each_form
def test_the_exporter_writes_one_node_a_call(name: str) -> None:
    graph = exported(name in SECOND).graph
    written = [node.op_type for node in graph.node if node.domain == DOMAIN]
    calls = [FORMS[other].node for other in FORMS if (other in SECOND) == (name in SECOND)]
    assert written.count(FORMS[name].node) == len(NAMES) * calls.count(FORMS[name].node)


@pytest.mark.parametrize("second", [False, True])
def test_inlined_functions_leave_standard_operators_alone(second: bool) -> None:
    plain = inliner.inline_local_functions(exported(second))
    onnx.checker.check_model(plain, full_check=True)
    assert not any(node.domain for node in plain.graph.node) and not plain.functions


def test_every_node_has_a_form() -> None:
    assert {form.node for form in FORMS.values()} == nodes().keys()


def test_a_kernel_has_nodes_or_says_why_it_has_none() -> None:
    folders = [path.parent for path in Path(kernels.__file__).parent.glob("*/op.py")]
    without = {folder.name for folder in folders if not (folder / "graph.py").exists()}
    assert without == {"blur_noise_act", "feather_blend", "wave_field", "winograd_conv"}
    assert all("graph.py" in (folder / "__init__.py").read_text() for folder in folders if folder.name in without)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_what_is_not_finite_is_never_the_nearest(metric: str) -> None:
    node = onnx.helper.make_node("NearestCentroid", ["points", "centroids"], ["y"], domain=DOMAIN, metric=metric)
    session = onnxruntime.InferenceSession(of_nodes([node], [["M", 3], ["K", 3]]).SerializeToString())
    points, centroids = torch.randn(6, 3), torch.randn(5, 3) * 1e20
    centroids[0, 1], centroids[2, 0], centroids[3] = torch.inf, torch.nan, 0
    points[4, 0], points[5, 2] = torch.nan, torch.inf
    (found,) = session.run(None, {"points": points.numpy(), "centroids": centroids.numpy()})
    assert found.tolist() == kernels.nearest_centroid(points, centroids, metric).tolist()


def of_nodes(made: list[Any], shapes: list[list[Any]]) -> Any:
    """A model of nodes on the same float32 inputs, with their function; the last one's result leaves it."""
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    given = [helper.make_tensor_value_info(n, floats, s) for n, s in zip(made[0].input, shapes, strict=True)]
    kind = onnx.TensorProto.INT64 if made[0].op_type == "NearestCentroid" else floats
    graph = helper.make_graph(made, "g", given, [helper.make_tensor_value_info("y", kind, None)])
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(DOMAIN, VERSION)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    model.functions.extend(functions_of(model))
    return model


def test_nodes_of_one_kind_and_two_meanings_are_refused() -> None:
    inputs = nodes()["MaskComposite"].inputs
    made = [
        onnx.helper.make_node("MaskComposite", inputs, [y], domain=DOMAIN, logits=logits, output="float")
        for logits, y in ((0, "first"), (1, "y"))
    ]
    with pytest.raises(ExportError, match=r"^the model has nodes MaskComposite of .* --flavour portable$"):
        of_nodes(made, [["N", 3, 2, 2], ["N", 3, 2, 2], ["N", 1, 2, 2]])
