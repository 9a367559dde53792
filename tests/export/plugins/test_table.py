"""What the table of plugins says is what the ops' fakes and the kernels say."""

from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from zellige.export.plugins.tactics import parts_across_channels, tactics
from zellige.kernels.triton.variants import FLOATS

from .nodes import DTYPES, NODES, PLUGIN, chain


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("node", NODES, ids=lambda node: node.name)
def test_results_have_the_shapes_and_dtypes_of_the_ops(node, dtype):
    with FakeTensorMode():
        tensors = node.tensors(dtype)
        expected = node.op(tensors)
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        for plugin, attributes, inputs, output in chain(node):
            given = {name: shapes[held] for name, held in zip(plugin.inputs, inputs, strict=True)}
            shapes[output] = plugin.shape(given, attributes)
    assert shapes["y"] == tuple(expected.shape)
    last = PLUGIN[node.plugins[-1][0]]
    if expected.dtype != torch.uint8:  # of which plugins have none
        assert last.dtype(last.output, str(dtype).removeprefix("torch.")) == str(expected.dtype).removeprefix("torch.")


@pytest.mark.parametrize("layout", ["planes", "channels_last"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("node", NODES, ids=lambda node: node.name)
def test_arguments_are_inputs_then_sizes_then_the_output(node, dtype, layout):
    """As TensorRT passes them; floats and pointers to nothing are constants."""
    name = str(dtype).removeprefix("torch.")
    for plugin, variant, sizes in variants(node, dtype, layout):
        arguments = [argument for argument in variant.jitted.arg_names if argument in variant.types]
        scalars = arguments[len(plugin.inputs) : -1]
        assert arguments == [*plugin.inputs, *scalars, plugin.output]
        pointers = [FLOATS[plugin.dtype(tensor, name)] for tensor in (*plugin.inputs, plugin.output)]
        assert [variant.types[argument] for argument in (*plugin.inputs, plugin.output)] == pointers
        assert all(variant.types[scalar] == "i32" for scalar in scalars)
        assert set(scalars) <= set(sizes)


@pytest.mark.parametrize("node", NODES, ids=lambda node: node.name)
def test_wide_loads_are_chosen_only_where_sizes_are_multiples_of_16(node):
    for layout in ("planes", "channels_last"):
        for _, variant, sizes in variants(node, torch.float16, layout):
            assert all(sizes[size] % 16 == 0 for size in variant.divisible if size in sizes)


@pytest.mark.parametrize(("channels", "side"), [(64, 32), (512, 2), (48, 8), (48, 64), (256, 16), (128, 8)])
@pytest.mark.parametrize("phases", [1, 4])
def test_a_map_has_as_many_parts_in_either_memory_order(channels, side, phases):
    runs = phases * side * side
    found = parts_across_channels(runs, channels, phases)
    assert found is not None
    down, across = found
    by_plane = phases * -(-channels * side * side // 4096)
    assert -(-runs // down) * -(-channels // across) == by_plane
    assert down * across <= 4096 and down & (down - 1) == 0 == across & (across - 1)


def test_a_map_that_cannot_be_divided_so_is_served_by_plane_only():
    assert parts_across_channels(runs=999, length=1000, phases=1) is None
    shapes = {"x": (-1, 2000, 27, 37)}
    plugin, attributes = PLUGIN["GluMoments"], {"phases": 1}
    assert not tactics(plugin, "float32", "channels_last", shapes, attributes)
    assert tactics(plugin, "float32", "planes", shapes, attributes)


def variants(node: Any, dtype: torch.dtype, layout: str) -> list[tuple[Any, Any, dict[str, Any]]]:
    """Every variant for the plugins of a node, and the sizes that it is launched with."""
    shapes = {name: tuple(tensor.shape) for name, tensor in node.tensors(dtype).items()}
    found = []
    for plugin, attributes, inputs, output in chain(node):
        if plugin.maps or layout == "planes":
            given = {name: shapes[held] for name, held in zip(plugin.inputs, inputs, strict=True)}
            every = tactics(plugin, str(dtype).removeprefix("torch."), layout, given, attributes)
            assert every or layout == "channels_last"
            found += [(plugin, variant, plugin.sizes(given, attributes, layout)) for variant in every]
        shapes[output] = plugin.shape(
            {name: shapes[held] for name, held in zip(plugin.inputs, inputs, strict=True)}, attributes
        )
    return found


def test_each_op_that_is_fused_has_plugins():
    assert {node.op_type for node in NODES} == {
        "GluLayerNorm", "PhaseEpilogue", "AffineRelu", "MaskComposite", "Rearrange",
    }  # fmt: skip
    assert {name for node in NODES for name, *_ in node.plugins} == set(PLUGIN)
