"""Plugins are registered as TensorRT asks for it, and what they return is a launch of code that every GPU takes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from zellige.errors import DeviceError, MissingExtraError, ShapeError
from zellige.export.plugins import register_plugins
from zellige.export.plugins.assemble import TARGETS
from zellige.export.plugins.table import PLUGINS

from .plugin_module import Registry, modules


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    pytest.importorskip("triton")
    out = tmp_path_factory.mktemp("plugins") / "report.json"
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    # Triton compiles in a process of its own: in this one it interprets.
    command = [sys.executable, str(Path(__file__).with_name("build_plugins.py")), str(out)]
    subprocess.run(command, env=environment, check=True)
    return json.loads(out.read_text())


@pytest.fixture
def tensorrt(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    for name, module in modules():
        monkeypatch.setitem(sys.modules, name, module)
    return sys.modules["tensorrt"]


def built(report: dict[str, Any], name: str) -> dict[str, Any]:
    """The first of a plugin: by plane."""
    return next(found for found in report["built"] if found["plugin"] == name)


def test_every_plugin_is_registered_once_however_often_it_is_asked_for(tensorrt):
    names = register_plugins(tensorrt)
    assert names == register_plugins(tensorrt) == tuple(plugin.name for plugin in PLUGINS)
    assert isinstance(tensorrt.plugin.registry, Registry)
    assert set(tensorrt.plugin.registry.plugins) == {f"zellige::{name}" for name in names}
    functions = tensorrt.plugin.registry.plugins.values()
    assert all(hasattr(found, "autotune") and hasattr(found, "aot_impl") for found in functions)


def test_registration_imports_neither_torch_nor_triton(report):
    assert report["imported"] == []


def test_the_consumers_tensorrt_is_refused():
    message = "registered with tensorrt_rtx; they work with full TensorRT only, the module tensorrt: elsewhere export"
    with pytest.raises(DeviceError, match=message):
        register_plugins(ModuleType("tensorrt_rtx"))


def test_a_tensorrt_without_plugins_ahead_of_time_is_refused(tensorrt, monkeypatch):
    monkeypatch.delattr(tensorrt.plugin, "aot_impl")
    with pytest.raises(DeviceError, match="TensorRT 11.0 has no plugins that are compiled ahead of time"):
        register_plugins(tensorrt)


def test_the_code_of_every_plugin_is_taken_by_every_architecture(report):
    assert {found["plugin"] for found in report["built"]} == {plugin.name for plugin in PLUGINS}
    assert TARGETS == (80, 86, 89, 90, 100, 120)
    assert [found["refused"] for found in report["built"]] == [[]] * len(report["built"])


def test_each_code_has_a_name_of_its_own(report):
    names = [found["entry"] for found in report["built"]]
    assert len(set(names)) == len(names) == len({found["ptx"] for found in report["built"]})
    assert all(f".visible .entry {found['entry']}(" in found["ptx"] for found in report["built"])


def test_code_is_of_a_version_that_cuda_12_reads(report):
    assert all(".version 8.0\n.target sm_80\n" in found["ptx"] for found in report["built"])


def test_parameters_are_inputs_sizes_and_output_alone(report):
    """Without the pointers to scratch memory that Triton declares, for which TensorRT passes nothing."""
    for found in report["built"]:
        plugin = next(plugin for plugin in PLUGINS if plugin.name == found["plugin"])
        declared = found["ptx"].split(f".entry {found['entry']}(")[1].split(")")[0].split(",")
        pointers = [".u64 .ptr" in parameter for parameter in declared]
        sizes = [".u32" in parameter for parameter in declared]
        count = len(plugin.inputs)
        assert pointers == [True] * count + [False] * len(found["extra"]) + [True]
        assert sizes == [not pointer for pointer in pointers]


def test_launches_are_those_of_the_kernels(report):
    """Counted by hand for a batch of 3: 64 of 128 channels are normalised, 32 x 32 pixels, tiles of 4096 values."""
    moments, normalise = built(report, "GluMoments"), built(report, "GluNormalise")
    assert moments["shape"] == [4, 3, 64 * 1024 // 4096]
    assert moments["extra"] == [3, 1, 64 * 1024] and moments["launch"]["grid_x"] == 3 * 16
    assert built(report, "GluCombine")["extra"] == [3, 16] and built(report, "GluCombine")["launch"]["grid_x"] == 3
    assert normalise["shape"] == [3, 64, 32, 32] and normalise["extra"] == [64, 1024]
    assert normalise["launch"]["grid_x"] == 3 * 64 * 1024 // 4096 and normalise["launch"]["block_x"] == 256
    phase = built(report, "PhaseGlu")
    assert phase["shape"] == [3, 64, 32, 32] and phase["extra"] == [64, 256, 16]
    composite = built(report, "MaskCompositeBytes")
    assert composite["shape"] == [3, 32, 32, 3] and composite["types"][-1] == "HALF"
    rearranged = built(report, "Rearrange")
    assert rearranged["extra"] == [64, 64] and rearranged["launch"]["grid_x"] in (3, 6, 12)


def test_threads_and_shared_memory_are_those_of_the_code(report):
    for found in report["built"]:
        assert f".reqntid {found['launch']['block_x']}" in found["ptx"]
        assert 0 <= found["launch"]["shared_mem"] <= 48 * 1024
        assert found["launch"]["shared_mem"] == 0 or ".extern .shared" in found["ptx"]


def test_maps_are_offered_in_both_memory_orders_and_all_else_by_plane(report):
    for plugin in PLUGINS:
        offered = [found["formats"] for found in report["built"] if found["plugin"] == plugin.name]
        tensors = (*plugin.inputs, plugin.output)
        channels_last = ["HWC8" if tensor in plugin.maps else "LINEAR" for tensor in tensors]
        # Three channels have gaps in a format of eight.
        both = plugin.maps and not plugin.name.startswith("MaskComposite")
        assert offered == [["LINEAR"] * len(tensors), channels_last][: 2 if both else 1]


def test_code_holds_no_paths_of_this_machine(report):
    assert not any(".file" in found["ptx"] or "triton.py" in found["ptx"] for found in report["built"])


def given(tensorrt: ModuleType, name: str, dtype: Any, *shape: int) -> tuple[Any, Any]:
    """What TensorRT asks a plugin of one input for, and that input."""
    register_plugins(tensorrt)
    desc = tensorrt.plugin.TensorDesc([max(size, 1) for size in shape], dtype)
    desc.shape = shape
    return tensorrt.plugin.registry.plugins[f"zellige::{name}"], desc


def test_a_map_of_integers_is_refused(tensorrt):
    plugin, x = given(tensorrt, "GluMoments", tensorrt.DataType.INT32, 2, 8, 4, 4)
    with pytest.raises(ShapeError, match="got x of type DataType.INT32; it must be float32, float16 or bfloat16"):
        plugin.autotune(x, np.array([1], np.int32), ())


def test_sizes_that_are_not_known_are_refused_but_for_the_batch(tensorrt):
    plugin, x = given(tensorrt, "GluMoments", tensorrt.float32, -1, 8, -1, 4)
    with pytest.raises(ShapeError, match=r"got x of shape \[-1, 8, -1, 4\].*; all sizes but the batch must be known"):
        plugin.autotune(x, np.array([1], np.int32), ())


def test_building_without_triton_names_the_extra(tensorrt, monkeypatch):
    plugin, x = given(tensorrt, "GluMoments", tensorrt.float32, -1, 8, 4, 4)
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(MissingExtraError, match=r"compiling kernels for TensorRT needs the package 'triton'"):
        plugin.autotune(x, np.array([1], np.int32), ())


@pytest.mark.needs_tensorrt
def test_full_tensorrt_takes_the_plugins():
    import tensorrt

    names = register_plugins(tensorrt)
    creators = {creator.name for creator in tensorrt.get_plugin_registry().all_creators}
    assert set(names) <= creators
