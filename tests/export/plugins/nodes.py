"""Nodes of the fused flavour, each with the op that it stands for and the plugins that it becomes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zellige import kernels as zk
from zellige.export.plugins.table import PLUGINS, Plugin

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
PLUGIN = {plugin.name: plugin for plugin in PLUGINS}
Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Node:
    """A node of the domain zellige.

    Attributes:
        name: of the case.
        op_type: of the node.
        attributes: of the node.
        shapes: of the inputs, in order, those of factors for float32.
        op: the op, of the inputs by name.
        plugins: what the node becomes: a plugin, its attributes, the names of its inputs, and of its output.
    """

    name: str
    op_type: str
    attributes: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]
    op: Callable[[Tensors], Tensor]
    plugins: tuple[tuple[str, dict[str, float], tuple[str, ...], str], ...]

    def tensors(self, dtype: torch.dtype) -> Tensors:
        """Random inputs: maps of the dtype, factors float32."""
        factors = ("weight", "bias", "scale", "shift")
        return {
            name: torch.randn(shape, dtype=torch.float32 if name in factors else dtype)
            for name, shape in self.shapes.items()
        }


def chain(node: Node) -> Iterator[tuple[Plugin, dict[str, float], tuple[str, ...], str]]:
    """Yield the plugins of a node in order."""
    for name, attributes, inputs, output in node.plugins:
        yield PLUGIN[name], attributes, inputs, output


def _gated(name: str, op_type: str, last: str, phases: int, shapes: Any, op: Any) -> Node:
    plugins = (
        ("GluMoments", {"phases": phases}, ("x",), "moments"),
        ("GluCombine", {"eps": 1e-5}, ("moments",), "normal"),
        (last, {}, ("x", "weight", "bias", "normal"), "y"),
    )
    activation = {"activation": "glu_layer_norm"} if op_type == "PhaseEpilogue" else {}
    return Node(name, op_type, {"eps": 1e-5, **activation}, shapes, op, plugins)


def _map(channels: int, factors: tuple[int, ...], rows: int, columns: int) -> dict[str, tuple[int, ...]]:
    return {"x": (2, channels, rows, columns), "weight": factors, "bias": factors}


def _glu(t: Tensors) -> Tensor:
    return zk.glu_layer_norm(t["x"], t["weight"], t["bias"], backend="reference")


def _phase_glu(t: Tensors) -> Tensor:
    return zk.phase_epilogue(t["x"], t["weight"], t["bias"], backend="reference")


def _phase_affine(t: Tensors) -> Tensor:
    return zk.phase_epilogue(t["x"], t["weight"], t["bias"], "affine_relu", backend="reference")


def _affine(name: str, upsample: int, side: int, channels: int) -> Node:
    return Node(
        name, "AffineRelu", {"upsample": upsample},
        {"x": (2, channels, side, side), "scale": (2, channels), "shift": (2, channels)},
        lambda t: zk.affine_relu(t["x"], t["scale"], t["shift"], bool(upsample), backend="reference"),
        (("AffineRelu", {"upsample": upsample}, ("x", "scale", "shift"), "y"),),
    )  # fmt: skip


def _composite(name: str, logits: int, output: Any, channels: int, rows: int, columns: int) -> Node:
    images = ("foreground", "background", "mask")
    plugin = "MaskComposite" if output == "float" else "MaskCompositeBytes"
    return Node(
        name, "MaskComposite", {"logits": logits, "output": output},
        {name: (2, 1 if name == "mask" else channels, rows, columns) for name in images},
        lambda t: zk.mask_composite(
            t["foreground"], t["background"], t["mask"], logits=bool(logits), output=output, backend="reference"
        ),
        ((plugin, {"logits": logits}, images, "y"),),
    )  # fmt: skip


def _rearranged(name: str, queries: int, keys: int, widths: tuple[int, int]) -> Node:
    scale = 0.2
    return Node(
        name, "Rearrange", {"scale": scale},
        {"q": (2, queries, widths[0]), "k": (2, keys, widths[0]), "v": (2, keys, widths[1])},
        lambda t: zk.rearrange(t["q"], t["k"], t["v"], scale, backend="reference"),
        (("Rearrange", {"scale": scale}, ("q", "k", "v"), "y"),),
    )  # fmt: skip


# Sizes that are multiples of 16 and sizes that are not; maps of several tiles and of less than one.
NODES = (
    _gated("glu", "GluLayerNorm", "GluNormalise", 1, _map(64, (32,), 16, 16), _glu),
    _gated("glu-odd", "GluLayerNorm", "GluNormalise", 1, _map(36, (18,), 7, 5), _glu),
    _gated("glu-parts", "GluLayerNorm", "GluNormalise", 1, _map(128, (64,), 16, 12), _glu),
    _gated("phase-glu", "PhaseEpilogue", "PhaseGlu", 4, _map(128, (16,), 8, 8), _phase_glu),
    _gated("phase-glu-odd", "PhaseEpilogue", "PhaseGlu", 4, _map(72, (9,), 3, 5), _phase_glu),
    Node(
        "phase-affine", "PhaseEpilogue", {"activation": "affine_relu"}, _map(64, (2, 16), 8, 6), _phase_affine,
        (("PhaseAffine", {}, ("x", "weight", "bias"), "y"),),
    ),
    _affine("affine", 0, 8, 32),
    _affine("affine-x2-odd", 1, 5, 12),
    _composite("composite", 1, "float", 3, 16, 16),
    _composite("composite-finished-odd", 0, "float", 4, 5, 7),
    _composite("bytes", 1, "uint8", 3, 16, 16),
    _rearranged("rearrange", 40, 35, (128, 128)),
    _rearranged("rearrange-odd", 9, 33, (24, 56)),
)  # fmt: skip
