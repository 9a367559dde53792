"""A small `tensorrt.plugin`: what plugins are registered with, as strict as its documentation, and without TensorRT.

Shapes are expressions of the batch N, which is not known before `value` is asked for one.
"""

import inspect
import typing
from collections.abc import Callable, Iterator
from enum import Enum
from types import ModuleType, SimpleNamespace
from typing import Any


class TensorFormat(Enum):
    LINEAR = 0
    HWC = 1
    HWC8 = 2


class DataType(Enum):
    FLOAT = 0
    HALF = 1
    BF16 = 2
    INT32 = 3


class SymInt32:
    """An expression; on its right there may be numbers, on its left there may not."""

    def __init__(self, value: Any) -> None:
        assert isinstance(value, (int, SymInt32)) or callable(value), value
        self._of: Callable[[int], int]
        if isinstance(value, SymInt32):
            self._of = value._of
        else:
            self._of = value if callable(value) else lambda n: value

    def value(self, n: int) -> int:
        return self._of(n)

    def __add__(self, other: Any) -> "SymInt32":
        return type(self)(lambda n: self.value(n) + SymInt32(other).value(n))

    def __sub__(self, other: Any) -> "SymInt32":
        return type(self)(lambda n: self.value(n) - SymInt32(other).value(n))

    def __mul__(self, other: Any) -> "SymInt32":
        return type(self)(lambda n: self.value(n) * SymInt32(other).value(n))

    def __floordiv__(self, other: Any) -> "SymInt32":
        return type(self)(lambda n: self.value(n) // SymInt32(other).value(n))

    def __eq__(self, other: object) -> bool:
        raise AssertionError("comparing gives an expression, which is always true")

    __hash__ = None  # type: ignore[assignment]


class ShapeExpr(SymInt32):
    pass


class SymIntExprs:
    def __init__(self, length: int) -> None:
        self.items: list[Any] = [None] * length

    def __setitem__(self, index: int, value: Any) -> None:
        assert isinstance(value, SymInt32), value
        self.items[index] = value


class KernelLaunchParams:
    _NAMES = ("grid_x", "grid_y", "grid_z", "block_x", "block_y", "block_z", "shared_mem")

    def __init__(self) -> None:
        for name in self._NAMES:
            setattr(self, name, 0 if name == "shared_mem" else 1)

    def __setattr__(self, name: str, value: Any) -> None:
        assert name in self._NAMES, name
        super().__setattr__(name, SymInt32(value))


class TensorDesc:
    def __init__(self, shape_expr: tuple[Any, ...], dtype: DataType) -> None:
        self.shape_expr = tuple(size if isinstance(size, ShapeExpr) else ShapeExpr(size) for size in shape_expr)
        self.dtype = dtype
        self.shape: tuple[int, ...] = ()  # known from autotune on
        self.format = TensorFormat.LINEAR


class AutoTuneCombination:
    def __init__(self, io_types: str, layouts: str, tactics: list[int]) -> None:
        names = {"FP32": DataType.FLOAT, "FP16": DataType.HALF, "BF16": DataType.BF16}
        self.types = [names[name.strip()] for name in io_types.split(",")]
        self.formats = [TensorFormat[name.strip()] for name in layouts.split(",")]
        self.tactics = tactics
        assert len(self.types) == len(self.formats)
        assert tactics and all(isinstance(tactic, int) and tactic > 0 for tactic in tactics)
        # HWC8 is bound to values of 2 bytes.
        for kind, layout in zip(self.types, self.formats, strict=True):
            assert layout is not TensorFormat.HWC8 or kind in (DataType.HALF, DataType.BF16)


class Registry:
    """What was registered: the three functions of each plugin, checked as TensorRT checks them."""

    def __init__(self) -> None:
        self.plugins: dict[str, SimpleNamespace] = {}
        self.op = SimpleNamespace()

    def register(self, identity: str) -> Callable[[Any], Any]:
        def decorate(function: Any) -> Any:
            namespace, name = identity.split("::")
            assert namespace not in ("", "trt", "tensorrt", "std")
            signature = inspect.signature(function)
            inputs: list[str] = []
            attributes: dict[str, Any] = {}
            for parameter in signature.parameters.values():
                assert parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
                assert parameter.default is inspect.Parameter.empty
                if issubclass(parameter.annotation, TensorDesc):
                    assert not attributes, "tensors come before attributes"
                    inputs.append(parameter.name)
                else:
                    assert parameter.name not in ("outputs", "stream", "tactic")
                    assert serializable(parameter.annotation), parameter.annotation
                    attributes[parameter.name] = parameter.annotation
            assert inputs and signature.return_annotation is TensorDesc
            assert not hasattr(getattr(self.op, namespace, None), name), "registered twice"
            plugin = SimpleNamespace(describe=function, inputs=inputs, attributes=attributes)
            self.plugins[identity] = plugin
            setattr(self.op, namespace, getattr(self.op, namespace, SimpleNamespace()))
            setattr(getattr(self.op, namespace), name, plugin)
            return function

        return decorate

    def autotune(self, identity: str) -> Callable[[Any], Any]:
        return self._second(identity, "autotune", ["outputs"], lambda kind: kind == list[AutoTuneCombination])

    def aot_impl(self, identity: str) -> Callable[[Any], Any]:
        def returns(kind: Any) -> bool:
            parts = typing.get_args(kind)
            texts = all(part in (str, bytes) for part in parts[:2])
            return typing.get_origin(kind) is tuple and texts and parts[2:] == (KernelLaunchParams, SymIntExprs)

        return self._second(identity, "aot_impl", ["outputs", "tactic"], returns)

    def _second(self, identity: str, kind: str, last: list[str], returns: Callable[[Any], bool]) -> Callable[..., Any]:
        def decorate(function: Any) -> Any:
            plugin = self.plugins[identity]
            signature = inspect.signature(function)
            assert list(signature.parameters) == [*plugin.inputs, *plugin.attributes, *last]
            for name, parameter in signature.parameters.items():
                expected = {"outputs": tuple[TensorDesc], "tactic": int} | plugin.attributes
                assert parameter.annotation == expected.get(name, TensorDesc)
            assert returns(signature.return_annotation)
            setattr(plugin, kind, function)
            return function

        return decorate


def serializable(annotation: Any) -> bool:
    """Numbers, text, or arrays of one dimension of a dtype."""
    return annotation in (int, float, str, bytes, bool) or "numpy.ndarray" in str(annotation)


def modules() -> Iterator[tuple[str, ModuleType]]:
    """The modules `tensorrt` and `tensorrt.plugin`, the registry as `registry` in the latter."""
    registry = Registry()
    tensorrt, plugin = ModuleType("tensorrt"), ModuleType("tensorrt.plugin")
    names = {"float32": DataType.FLOAT, "float16": DataType.HALF, "bfloat16": DataType.BF16}
    tensorrt.__dict__.update(names, TensorFormat=TensorFormat, DataType=DataType, plugin=plugin, __version__="11.0")
    known = (TensorDesc, KernelLaunchParams, ShapeExpr, SymInt32, SymIntExprs, AutoTuneCombination)
    plugin.__dict__.update({kind.__name__: kind for kind in known})
    plugin.__dict__.update(
        registry=registry,
        op=registry.op,
        register=registry.register,
        autotune=registry.autotune,
        aot_impl=registry.aot_impl,
        from_shape_expr=lambda shape, dtype: TensorDesc(shape, dtype),
    )
    yield "tensorrt", tensorrt
    yield "tensorrt.plugin", plugin
