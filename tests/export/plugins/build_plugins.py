"""Run by test_register.py: build every plugin as TensorRT would, for a batch that is not known, and report on it.

python build_plugins.py REPORT.json
"""

import json
import sys
from typing import Any

import numpy as np
import plugin_module

from zellige.errors import DeviceError
from zellige.export.plugins import register_plugins
from zellige.export.plugins.assemble import EXAMPLES, TARGETS, assemble
from zellige.export.plugins.table import PLUGINS, Plugin

BATCH = 3  # in the end


def refused(ptx: str) -> list[str]:
    found = []
    for target in TARGETS:
        try:
            assemble(ptx, target)
        except DeviceError as error:
            found.append(str(error))
    return found


def built(tensorrt: Any, plugin: Plugin) -> list[dict[str, Any]]:
    shapes, values = EXAMPLES[plugin.name]
    registered = tensorrt.plugin.registry.plugins[f"zellige::{plugin.name}"]
    dtype = "float32" if plugin.inputs[0] in plugin.factors else "float16"
    inputs = []
    for name in plugin.inputs:
        shape = shapes.get(name, (-1, 1))
        batch = tensorrt.plugin.ShapeExpr(lambda n: n)
        kind = getattr(tensorrt, plugin.dtype(name, dtype))
        desc = tensorrt.plugin.TensorDesc([batch if size < 0 else size for size in shape], kind)
        desc.shape = shape
        inputs.append(desc)
    kinds = {int: np.int32, float: np.float32}
    attributes = {name: np.array([values[name]], kinds[kind]) for name, kind in plugin.attributes.items()}
    output = registered.describe(*inputs, **attributes)
    found = []
    for combination in registered.autotune(*inputs, *attributes.values(), (output,)):
        for desc, layout in zip((*inputs, output), combination.formats, strict=True):
            desc.format = layout
        last = combination.tactics[-1]
        entry, ptx, launch, extra = registered.aot_impl(*inputs, *attributes.values(), (output,), last)
        found.append(
            {
                "plugin": plugin.name,
                "entry": entry,
                "ptx": ptx,
                "refused": [] if found else refused(ptx),  # by plane; `make kernels` assembles them all
                "formats": [layout.name for layout in combination.formats],
                "types": [kind.name for kind in combination.types],
                "tactics": combination.tactics,
                "launch": {name: value.value(BATCH) for name, value in vars(launch).items()},
                "extra": [item.value(BATCH) for item in extra.items],
                "shape": [size.value(BATCH) for size in output.shape_expr],
            }
        )
    return found


def main() -> None:
    sys.modules.update(plugin_module.modules())
    tensorrt = sys.modules["tensorrt"]
    register_plugins(tensorrt)
    imported = sorted(name for name in ("torch", "triton") if name in sys.modules)
    report = {"imported": imported, "built": [found for plugin in PLUGINS for found in built(tensorrt, plugin)]}
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        json.dump(report, file)


if __name__ == "__main__":
    main()
