"""What a pickle gets for the names in it: stand-ins that hold data, from a closed list, and nothing that acts.

No class or function of the named module is imported. Callables have no attributes that a pickle could set, and classes
are frozen, because a pickle may set attributes of all that it can name.
"""

import argparse
import io
import math
import pickle
from collections.abc import Callable
from typing import Any, BinaryIO, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .. import faults

__all__ = ["SAFE", "Array", "Attributes", "Items", "Module", "Network", "Unpickler"]

_CODES = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")  # of numpy's dtypes


class _Frozen(type):
    """The class of classes whose attributes nobody can set."""

    def __setattr__(cls, name: str, value: Any) -> NoReturn:
        raise AttributeError(f"{cls.__name__} is frozen")


class _Call:
    """A function without attributes."""

    __slots__ = ("_run",)
    _run: Callable[..., Any]

    def __init__(self, run: Callable[..., Any]) -> None:
        object.__setattr__(self, "_run", run)

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError("a stand-in has no attributes")

    def __call__(self, *given: Any) -> Any:
        return self._run(*given)


class Items(dict[Any, Any], metaclass=_Frozen):
    """A dictionary, in place of its subclasses; their attributes are dropped."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        pass


class Attributes(Items):
    """An object as the dictionary of its attributes."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        self.update(_dictionary(state))


class Network(Attributes):
    """A network of NVIDIA's TensorFlow code: `variables`, pairs of name and array, and `components`, its parts."""

    __slots__ = ()


class Module(Items):
    """A module of NVIDIA's PyTorch code: `class_name`, and `state` with its parameters, buffers and parts."""

    __slots__ = ()


class _DType(metaclass=_Frozen):
    """A dtype of numpy: a code of two letters and the order of bytes."""

    __slots__ = ("code", "order")

    def __init__(self, code: Any, *_: Any) -> None:
        if code not in _CODES:
            raise faults.ForeignContentError(f"an array is of dtype {str(code)[:40]!r}, which holds no plain numbers")
        self.code, self.order = str(code), "<"

    def __setstate__(self, state: Any) -> None:
        self.order = ">" if state[1] == ">" else "<"

    def read(self, raw: Any, count: int) -> NDArray[Any]:
        content = raw.encode("latin1") if isinstance(raw, str) else raw  # Python 2 wrote bytes as text
        dtype = np.dtype(self.order + self.code)
        if not isinstance(content, bytes) or len(content) != count * dtype.itemsize:
            raise faults.ForeignContentError(f"an array does not have the {count} numbers of its shape")
        return np.frombuffer(content, dtype).astype(dtype.newbyteorder("="))


class Array(metaclass=_Frozen):
    """An array of numpy; `value` is set when its content has been read."""

    __slots__ = ("value",)
    value: NDArray[Any]

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, by_columns, raw = state
        if not all(type(size) is int and size >= 0 for size in shape) or not isinstance(dtype, _DType):
            raise faults.ForeignContentError("an array has no shape or no dtype")
        self.value = dtype.read(raw, math.prod(shape)).reshape(shape, order="F" if by_columns else "C")


class Unpickler(pickle.Unpickler):
    """Unpickles data alone.

    Args:
        file: at the beginning of the pickle.
    Raises:
        ForbiddenNameError: the pickle names a class or function that is not on the list.
    """

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="latin1")

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a name."""
        full = f"{module}.{name}"
        if full not in _NAMES:
            raise faults.ForbiddenNameError(
                f"it names {full[:120]!r}, which is not on the closed list of names that a file of weights may have"
            )
        return _NAMES[full]

    def persistent_load(self, given: Any) -> NoReturn:
        """Refuse content that lies outside of the pickle."""
        raise faults.ForeignContentError("it refers to content outside of itself")


def _dictionary(given: Any) -> dict[Any, Any]:
    if not isinstance(given, dict):
        raise faults.ForeignContentError("an object in it has no attributes")
    return given


def _module(meta: Any) -> Module:
    return Module(_dictionary(meta))


def _storage(raw: Any) -> Any:
    """The numbers of a tensor, which torch writes as a file of its own inside the pickle."""
    return torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)


def _tensor(storage: Any, offset: int, size: Any, stride: Any, *_: Any) -> Tensor:
    if not isinstance(storage, torch.TypedStorage):
        raise faults.ForeignContentError("a tensor has no numbers")
    raw, sizes, steps = storage.untyped(), tuple(size), tuple(stride)
    held, count = raw.nbytes() // storage.dtype.itemsize, math.prod(sizes)
    whole = all(type(n) is int and n >= 0 for n in (offset, *sizes, *steps)) and len(sizes) == len(steps)
    last = offset + sum((n - 1) * step for n, step in zip(sizes, steps, strict=False)) if whole and count else 0
    if not whole or last >= max(held, 1) or count > held:
        raise faults.ForeignContentError(f"a tensor of shape {str(sizes)[:60]} is not within its numbers")
    return torch.empty(0, dtype=storage.dtype).set_(raw, offset, sizes, steps)


def _scalar(dtype: Any, raw: Any) -> Any:
    if not isinstance(dtype, _DType):
        raise faults.ForeignContentError("a number in it has no dtype")
    return dtype.read(raw, 1)[0].item()


def _encoded(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise faults.ForeignContentError("bytes in it are not written as Python 2 wrote them")
    return text.encode("latin1")


_ARRAY = "ndarray"  # a class, which only names what is to be rebuilt
_NAMES: dict[str, Any] = {
    "_codecs.encode": _Call(_encoded),
    "builtins.set": set,
    "__builtin__.set": set,
    "collections.OrderedDict": Items,
    "dnnlib.util.EasyDict": Items,
    "dnnlib.tflib.network.Network": Network,
    "tfutil.Network": Network,
    "numpy.dtype": _Call(_DType),
    "numpy.ndarray": _ARRAY,
    "numpy.core.multiarray._reconstruct": _Call(lambda *_: Array()),
    "numpy._core.multiarray._reconstruct": _Call(lambda *_: Array()),
    "numpy.core.multiarray.scalar": _Call(_scalar),
    "numpy._core.multiarray.scalar": _Call(_scalar),
    "torch._utils._rebuild_parameter": _Call(lambda tensor, *_: tensor),
    "torch._utils._rebuild_tensor_v2": _Call(_tensor),
    "torch.storage._load_from_bytes": _Call(_storage),
    "torch_utils.persistence._reconstruct_persistent_obj": _Call(_module),
}
# Classes beside tensors and plain values in torch files: options of a command, and GAN zoo's configuration.
SAFE: list[Any] = [argparse.Namespace, (Attributes, "models.utils.config.BaseConfig")]
