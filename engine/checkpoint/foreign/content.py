"""A foreign file's content as tensors and plain values by name, whatever it was nested in."""

import argparse
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import faults
from ..header import DTYPES
from .stand_ins import Array, Module, Network

__all__ = ["Content", "Value", "flattened"]

Value = str | int | float | bool | None
_MAX_DEPTH = 64
_MAX_NODES = 2**20  # counted with repetition, because a small pickle can hold one list a million times
_MAX_REPEATED = 2**20  # bytes of a tensor that repeats its numbers, such as a mean for every layer
_MAX_TEXT = 1000  # characters; longer texts are source code


@dataclass(frozen=True)
class Content:
    """A foreign file.

    Attributes:
        path: the file.
        container: its format.
        sha256: of its bytes, hexadecimal.
        tensors: on the CPU, by name: keys and attributes from the outside in, joined with dots.
        values: likewise; of longer texts, and of other objects, there is nothing.
    """

    path: Path
    container: str
    sha256: str
    tensors: Mapping[str, Tensor]
    values: Mapping[str, Value]


def flattened(tree: Any) -> tuple[dict[str, Tensor], dict[str, Value]]:
    """The tensors and the plain values of a tree of dictionaries, lists and stand-ins, by name.

    Names are joined with dots. The levels `_parameters`, `_buffers` and `_modules` of NVIDIA's modules and `variables`
    and `components` of its TensorFlow networks have no part in them; the parts of a TensorFlow name are joined with
    slashes, as there. The state of optimisers is left out, because it holds no weights.

    Raises:
        ReadingLimitError: the tree is deeper or larger than weights need.
        ForeignContentError: two tensors have the same name.
    """
    tensors: dict[str, Tensor] = {}
    values: dict[str, Value] = {}
    for name, leaf in _leaves(tree):
        if isinstance(leaf, Tensor):
            if name in tensors:
                raise faults.ForeignContentError(f"it has two tensors of the name {name[:120]!r}")
            tensors[name] = leaf
        else:
            values[name] = leaf
    return tensors, values


def _leaves(tree: Any) -> Iterator[tuple[str, Any]]:
    """Names and leaves, in the order of the file."""
    stack, seen = [("", tree, 0)], 0
    while stack:
        name, node, depth = stack.pop()
        seen += 1
        if depth > _MAX_DEPTH:
            raise faults.ReadingLimitError(f"it is nested deeper than {_MAX_DEPTH} levels, as no weights are")
        if seen > _MAX_NODES:
            raise faults.ReadingLimitError(f"it has more than {_MAX_NODES} entries, as no weights have")
        leaf = _leaf(node)
        if leaf is not _NOTHING:
            yield name, leaf
        else:
            stack += [(inner, child, depth + 1) for inner, child in reversed(list(_children(name, node)))]


_NOTHING = object()


def _leaf(node: Any) -> Any:
    if isinstance(node, Array):
        node = torch.from_numpy(node.value)
    if isinstance(node, Tensor):
        return _plain(node)
    if isinstance(node, float) and not math.isfinite(node):
        return str(node)
    if isinstance(node, int) and not -(2**63) <= node < 2**63:
        return _NOTHING
    if node is None or isinstance(node, bool | int | float) or (isinstance(node, str) and len(node) <= _MAX_TEXT):
        return node
    return _NOTHING


def _plain(tensor: Tensor) -> Any:
    """The tensor if a checkpoint can hold it; else a text."""
    if tensor.layout != torch.strided or tensor.dtype not in DTYPES.values() or tensor.is_meta:
        return f"a tensor of {tensor.dtype} and {tensor.layout}"
    if tensor.nbytes > max(tensor.untyped_storage().nbytes(), _MAX_REPEATED):
        raise faults.ReadingLimitError(f"a tensor of shape {list(tensor.shape)} repeats a few numbers")
    return tensor.detach()


def _children(name: str, node: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(node, Module):
        return _parts(name, node)
    if isinstance(node, Network):
        return _components(name, node)
    if isinstance(node, dict):
        inner = {} if node.keys() >= {"state", "param_groups"} else node
    elif isinstance(node, list | tuple):
        named = len(node) == 3 and all(isinstance(child, Network) for child in node)
        inner = dict(zip(("G", "D", "Gs"), node, strict=True) if named else enumerate(node))
    elif isinstance(node, argparse.Namespace):
        inner = vars(node)
    else:
        inner = {}
    return ((_joined(name, key), child) for key, child in inner.items())


def _parts(name: str, module: Module) -> Iterator[tuple[str, Any]]:
    yield _joined(name, "class_name"), module.get("class_name")
    state = module.get("state")
    for key, child in state.items() if isinstance(state, dict) else ():
        if key in ("_parameters", "_buffers", "_modules"):
            yield name, child if isinstance(child, dict) else None
        elif not isinstance(child, Tensor):
            yield _joined(name, key), child


def _components(name: str, network: Network) -> Iterator[tuple[str, Any]]:
    """Variables and components; the first part of a name ends with a dot, the others with slashes."""
    for key, child in network.items():
        if key == "variables" and isinstance(child, list | tuple):
            yield from ((_joined(name, pair[0]), pair[1]) for pair in child if len(pair) == 2)
        elif key == "components" and isinstance(child, dict):
            for part, inner in child.items():
                if isinstance(inner, Network):
                    yield from ((_joined(name, f"{part}/{deep}"), leaf) for deep, leaf in _components("", inner))
        else:
            yield _joined(name, key), child


def _joined(name: str, key: Any) -> str:
    return f"{name}.{key}" if name else str(key)
