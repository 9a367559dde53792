"""Plugins launched as TensorRT would launch them, under Triton's interpreter, give what the ops give."""

from math import prod
from typing import Any

import pytest
import torch

from zellige.export.plugins.tactics import tactics
from zellige.kernels.triton.tuning import INTERPRETED

from .nodes import DTYPES, NODES, Node, Tensors, chain

pytestmark = pytest.mark.skipif(not INTERPRETED, reason="kernels are launched under the interpreter")


@pytest.mark.parametrize("layout", ["planes", "channels_last"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("node", NODES, ids=lambda node: node.name)
def test_plugins_in_sequence_compute_the_op(node, dtype, layout):
    torch.manual_seed(0)
    tensors = node.tensors(dtype)
    expected = node.op(dict(tensors))
    found = launched(node, tensors, dtype, layout)
    if expected.dtype == torch.uint8:
        assert found.dtype == torch.float16
        assert (found.to(torch.uint8).int() - expected.int()).abs().max() <= 1
        assert torch.equal(found, found.round())
    elif node.op_type == "Rearrange" and dtype != torch.float32:
        # Weights, which sum to 1, are rounded before they meet the values.
        one_rounding = torch.finfo(dtype).eps * tensors["v"].abs().max().item()
        torch.testing.assert_close(found, expected, rtol=0, atol=one_rounding)
    else:
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", ["glu", "affine", "composite"])
def test_every_tactic_computes_the_same_bits(name):
    node = next(node for node in NODES if node.name == name)
    tensors = node.tensors(torch.float32)
    results = [launched(node, tensors, torch.float32, "planes", tactic) for tactic in range(4)]
    assert all(torch.equal(result, results[0]) for result in results)


def launched(node: Node, tensors: Tensors, dtype: torch.dtype, layout: str, tactic: int = 0) -> torch.Tensor:
    """Launch the plugins of a node one after the other; a tensor between two of them is full of NaN before."""
    held = dict(tensors)
    for plugin, attributes, inputs, output in chain(node):
        given = {name: held[of] for name, of in zip(plugin.inputs, inputs, strict=True)}
        shapes = {name: tuple(tensor.shape) for name, tensor in given.items()}
        kind = str(dtype).removeprefix("torch.")
        # A map that has no parts of its own in this order is reordered for the plugin, as TensorRT does it.
        order = layout if plugin.maps and tactics(plugin, kind, layout, shapes, attributes) else "planes"
        found = tactics(plugin, kind, order, shapes, attributes)
        variant = found[min(tactic, len(found) - 1)]
        y = torch.full(plugin.shape(shapes, attributes), torch.nan, dtype=getattr(torch, plugin.dtype(output, kind)))
        for name in plugin.maps:
            if order == "channels_last" and name in given:
                given[name] = given[name].contiguous(memory_format=torch.channels_last)
        if order == "channels_last" and output in plugin.maps:
            y = y.contiguous(memory_format=torch.channels_last)
        sizes = plugin.sizes(shapes, attributes, order)
        launch(variant, [given[name] for name in plugin.inputs], sizes, y)
        held[output] = y
    return held["y"]


def launch(variant: Any, inputs: list[torch.Tensor], sizes: dict[str, int], y: torch.Tensor) -> None:
    """Pass arguments by their places: inputs, sizes, output; constants by name."""
    arguments = [name for name in variant.jitted.arg_names if name in variant.types]
    scalars = [sizes[name] for name in arguments[len(inputs) : -1]]
    grid = [prod(-(-sizes.get(size, size) // divisor) for size, divisor in axis) for axis in variant.axes()]
    places = dict(zip(arguments, [*inputs, *scalars, y], strict=True))
    # Constants stand between arguments in some kernels. LENGTH is what the interpreter must know of rearrange.
    tuning = {"SIZE": 0, "VALUES": 0, "ROWS": 0, "PARTS": 1, "LENGTH": sizes.get("keys", 0)}
    names = variant.jitted.arg_names
    constants = {name: value for name, value in tuning.items() if name in names} | dict(variant.constants)
    variant.jitted[tuple(grid)](**places, **constants)


def test_there_are_as_many_tactics_as_configurations_that_differ():
    node = next(node for node in NODES if node.name == "glu")
    (*_, (plugin, attributes, _, _)) = chain(node)
    large, small = {"x": (-1, 128, 64, 64)}, {"x": (-1, 16, 2, 2)}
    assert len(tactics(plugin, "float16", "planes", large, attributes)) == 4
    assert len(tactics(plugin, "float16", "planes", small, attributes)) == 2  # of 4 and of 8 warps


def test_replaced_constants_leave_the_variants_of_the_kernels_as_they_are():
    from zellige.kernels.triton.variants import variants_by_name

    before = variants_by_name("glu_layer_norm")["glu_layer_norm_combine"]
    node = next(node for node in NODES if node.name == "glu")
    plugin, attributes, *_ = list(chain(node))[1]
    found = tactics(plugin, "float32", "planes", {"moments": (4, -1, 3)}, attributes)[0]
    assert "eps" in before.types and "eps" not in found.types
