"""Register the plugins of the table with full TensorRT: shapes, tactics, and for each tactic its code and launch."""

from collections.abc import Callable, Sequence
from functools import reduce
from importlib import import_module
from inspect import Parameter, Signature
from math import prod
from operator import mul
from types import GenericAlias, ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zellige.errors import DeviceError, ShapeError

from .table import PLUGINS, Plugin, rounded_up
from .tactics import codes

__all__ = ["NAMESPACE", "register_plugins"]

NAMESPACE = "zellige"

# For each dtype the name that AutoTuneCombination has for it, and TensorRT's channels-last format, which holds 8
# channels at a time if values are 2 bytes.
_DTYPES = {"float32": ("FP32", "HWC"), "float16": ("FP16", "HWC8"), "bfloat16": ("BF16", "HWC8")}
_EIGHT = 8
# Attributes are arrays of one number, because the ONNX parser is sure to fill these. It may not fill single floats.
_ATTRIBUTES: dict[type, Any] = {int: NDArray[np.int32], float: NDArray[np.float32]}


def register_plugins(trt: ModuleType) -> tuple[str, ...]:
    """Register every plugin of the table in the namespace "zellige", once a process.

    Neither torch nor Triton is imported before an engine is built with a plugin. The engine holds the kernels' code, so
    running it needs nothing of this package.

    Args:
        trt: the module `tensorrt`.

    Returns:
        The plugins' names, which nodes have after `split_for_plugins`.

    Raises:
        DeviceError: the module is another one, such as `tensorrt_rtx`, whose parser ends the process at a plugin, or
            its version has no plugins that are compiled ahead of time.
    """
    if trt.__name__ != "tensorrt":
        raise DeviceError(
            f"plugins cannot be registered with {trt.__name__}; they work with full TensorRT only, the module "
            "tensorrt: elsewhere export the portable flavour."
        )
    plugin_module = import_module("tensorrt.plugin")
    if not hasattr(plugin_module, "aot_impl"):
        raise DeviceError(
            f"TensorRT {trt.__version__} has no plugins that are compiled ahead of time; they need 10.9 or newer, or "
            "export the portable flavour."
        )
    if not hasattr(plugin_module.op, NAMESPACE):
        for plugin in PLUGINS:
            _Registered(trt, plugin_module, plugin).register()
    return tuple(plugin.name for plugin in PLUGINS)


class _Registered:
    """The three functions of a plugin that TensorRT calls: for its output, its tactics, and a tactic's code."""

    def __init__(self, trt: ModuleType, module: Any, plugin: Plugin) -> None:
        self.module, self.plugin = module, plugin
        self.dtypes = {name: getattr(trt, name) for name in _DTYPES}
        self.linear = trt.TensorFormat.LINEAR

    def register(self) -> None:
        """Hand the functions over, with signatures whose names and annotations TensorRT checks."""
        module, name = self.module, f"{NAMESPACE}::{self.plugin.name}"
        outputs, tactic = ("outputs", GenericAlias(tuple, (module.TensorDesc,))), ("tactic", int)
        code = GenericAlias(tuple, (str, str, module.KernelLaunchParams, module.SymIntExprs))
        combinations = GenericAlias(list, (module.AutoTuneCombination,))
        module.register(name)(self._signed(self.describe, [], module.TensorDesc))
        module.autotune(name)(self._signed(self.autotune, [outputs], combinations))
        module.aot_impl(name)(self._signed(self.compiled, [outputs, tactic], code))

    def describe(self, *inputs: Any, **attributes: Any) -> Any:
        """Return the description of the output."""
        shapes = {name: tensor.shape_expr for name, tensor in zip(self.plugin.inputs, inputs, strict=True)}
        shape = self.plugin.shape(shapes, self._numbers(tuple(attributes[name] for name in self.plugin.attributes)))
        dtype = self.dtypes[self.plugin.dtype(self.plugin.output, self._dtype(inputs))]
        return self.module.from_shape_expr(shape, dtype=dtype)

    def autotune(self, *arguments: Any) -> list[Any]:
        """Return the memory orders that have kernels, with a tactic for each kernel."""
        plugin, count = self.plugin, len(self.plugin.inputs)
        inputs, attributes = arguments[:count], self._numbers(arguments[count:-1])
        shapes, dtype = self._shapes(inputs), self._dtype(inputs)
        tensors = (*plugin.inputs, plugin.output)
        types = ", ".join(_DTYPES[plugin.dtype(tensor, dtype)][0] for tensor in tensors)
        found = []
        for layout in ("planes", "channels_last"):
            if layout == "channels_last" and not self._packed(dtype, shapes, attributes):
                continue
            along = _DTYPES[dtype][1] if layout == "channels_last" else "LINEAR"
            formats = ", ".join(along if tensor in plugin.maps else "LINEAR" for tensor in tensors)
            tactics = list(range(1, len(codes(plugin, dtype, layout, shapes, attributes)) + 1))
            if tactics:
                found.append(self.module.AutoTuneCombination(types, formats, tactics))
        return found

    def compiled(self, *arguments: Any) -> tuple[str, str, Any, Any]:
        """Return the name, PTX, launch and sizes of a tactic."""
        plugin, module, count = self.plugin, self.module, len(self.plugin.inputs)
        inputs, attributes, tactic = arguments[:count], self._numbers(arguments[count:-2]), arguments[-1]
        first = inputs[plugin.inputs.index(plugin.maps[0])] if plugin.maps else inputs[0]
        layout = "planes" if first.format == self.linear else "channels_last"
        code = codes(plugin, self._dtype(inputs), layout, self._shapes(inputs), attributes)[tactic - 1]
        expressions = {name: tensor.shape_expr for name, tensor in zip(plugin.inputs, inputs, strict=True)}
        sizes = plugin.sizes(expressions, attributes, layout)
        launch = module.KernelLaunchParams()
        for axis, factors in zip("xyz", code.entry["grid"], strict=False):
            programs = [rounded_up(sizes.get(size, size), divisor) for size, divisor in factors]
            setattr(launch, f"grid_{axis}", _product(programs))
        launch.block_x = code.entry["threads"]
        launch.shared_mem = code.entry["shared_bytes"]
        scalars = [name for name, kind in code.entry["arguments"] if not kind.startswith("*")]
        extra = module.SymIntExprs(len(scalars))
        for place, name in enumerate(scalars):
            extra[place] = module.SymInt32(sizes[name])
        return code.entry["entry"], code.ptx, launch, extra

    def _signed(self, method: Callable[..., Any], others: Sequence[tuple[str, Any]], returns: Any) -> Any:
        def function(*arguments: Any, **attributes: Any) -> Any:
            return method(*arguments, **attributes)

        annotated = [(name, self.module.TensorDesc) for name in self.plugin.inputs]
        annotated += [(name, _ATTRIBUTES[kind]) for name, kind in self.plugin.attributes.items()]
        parameters = [
            Parameter(name, Parameter.POSITIONAL_OR_KEYWORD, annotation=kind) for name, kind in (*annotated, *others)
        ]
        function.__signature__ = Signature(parameters, return_annotation=returns)  # type: ignore[attr-defined]
        function.__name__ = self.plugin.name
        return function

    def _numbers(self, values: Sequence[Any]) -> dict[str, float]:
        named = zip(self.plugin.attributes.items(), values, strict=True)
        return {name: kind(np.ravel(value)[0]) for (name, kind), value in named}

    def _dtype(self, inputs: Sequence[Any]) -> str:
        for name, kind in self.dtypes.items():
            if inputs[0].dtype == kind:
                return name
        raise ShapeError(
            f"{self.plugin.name} got {self.plugin.inputs[0]} of type {inputs[0].dtype}; it must be float32, float16 or "
            "bfloat16."
        )

    def _shapes(self, inputs: Sequence[Any]) -> dict[str, tuple[int, ...]]:
        shapes = {name: tuple(tensor.shape) for name, tensor in zip(self.plugin.inputs, inputs, strict=True)}
        # The batch, which may be unknown, is the first size; in moments it is the second.
        for name, shape in shapes.items():
            if any(size < 0 for size in shape[1:]) and name != "moments":
                raise ShapeError(
                    f"{self.plugin.name} got {name} of shape {list(shape)}, -1 for unknown; all sizes but the batch "
                    "must be known: export the model with a dynamic batch only."
                )
        return shapes

    def _packed(self, dtype: str, shapes: dict[str, tuple[int, ...]], attributes: dict[str, float]) -> bool:
        """Tell whether channels-last maps have no gaps in TensorRT's format."""
        every = shapes | {self.plugin.output: self.plugin.shape(shapes, attributes)}
        multiple = _EIGHT if dtype != "float32" else 1
        return bool(self.plugin.maps) and all(every[name][1] % multiple == 0 for name in self.plugin.maps)


def _product(factors: Sequence[Any]) -> Any:
    """Multiply expressions and numbers; a number must stand on an expression's right."""
    numbers = prod(factor for factor in factors if isinstance(factor, int))
    expressions = [factor for factor in factors if not isinstance(factor, int)]
    return reduce(mul, [*expressions, numbers]) if expressions else numbers
