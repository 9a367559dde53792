"""Our kernels as nodes of the domain `zellige`, with functions of standard operators for runtimes that lack them.

Each folder in `zellige.kernels` with a graph.py declares its nodes there; this module collects them. A node computes
the same as the function of its folder.
"""

from collections.abc import Callable
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from zellige.errors import ExportError

from .. import kernels
from ..kernels.op.nodes import DOMAIN, VERSION, Node

__all__ = ["DOMAIN", "VERSION", "functions_of", "nodes", "translations"]

_FLOATS = ["tensor(float)", "tensor(float16)", "tensor(bfloat16)"]
_RESULTS = [*_FLOATS, "tensor(uint8)", "tensor(int64)"]
_KINDS = {float: "FLOAT", int: "INT", str: "STRING"}


@cache
def _graphs() -> dict[str, ModuleType]:
    """Return the modules graph.py by their folders' names, which are also the names of the custom ops."""
    folders = sorted(path.parent.name for path in Path(kernels.__file__).parent.glob("*/graph.py"))
    return {folder: import_module(f"{kernels.__name__}.{folder}.graph") for folder in folders}


@cache
def nodes() -> dict[str, Node]:
    """Return every node that a kernel declares, by its name."""
    found: dict[str, Node] = {}
    for folder, graph in _graphs().items():
        for node in graph.NODES:
            if node.name in found:
                raise ValueError(f"{node.name} of {folder}/graph.py is the name of another kernel's node; choose one.")
            found[node.name] = node
    return found


def functions_of(model: Any) -> list[Any]:
    """Return one function for each kind of our nodes in a model.

    Args:
        model: onnx.ModelProto.
    Returns:
        onnx.FunctionProto, in the order of their first nodes.
    Raises:
        ExportError: two nodes of one kind differ in an attribute that decides which operators their function has.
    """
    import onnx

    found: dict[str, dict[str, Any]] = {}
    for node in model.graph.node:
        if node.domain != DOMAIN:
            continue
        kinds = nodes()[node.op_type].attributes
        values = {a.name: _value(onnx.helper.get_attribute_value(a)) for a in node.attribute}
        fixed = {name: value for name, value in values.items() if kinds[name] is not float}
        if found.setdefault(node.op_type, fixed) != fixed:
            raise ExportError(
                f"the model has nodes {node.op_type} of {found[node.op_type]} and of {fixed}, and a file can hold one "
                "function of a name; export it with --flavour portable"
            )
    return [onnx.parser.parse_function(nodes()[name].function(fixed)) for name, fixed in found.items()]


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Return the exporter's `custom_translation_table` for the operators of `zellige.kernels`."""
    import onnxscript

    _register()
    ours, domain = torch.ops.zellige, onnxscript.values.Opset(DOMAIN, VERSION)
    return {getattr(ours, folder).default: partial(graph.translate, domain) for folder, graph in _graphs().items()}


def _value(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


@cache
def _register() -> None:
    """Register the nodes with onnx, once a process, because onnxscript writes no nodes that onnx does not know."""
    from onnx import defs

    parameter, attribute, of = defs.OpSchema.FormalParameter, defs.OpSchema.Attribute, defs.OpSchema.AttrType
    for node in nodes().values():
        if not defs.has(node.name, DOMAIN):
            defs.register_schema(
                defs.OpSchema(
                    node.name, DOMAIN, VERSION,
                    inputs=[parameter(name, "U" if place else "T") for place, name in enumerate(node.inputs)],
                    outputs=[parameter("y", "V")],
                    type_constraints=[("T", _FLOATS, ""), ("U", _FLOATS, ""), ("V", _RESULTS, "")],
                    attributes=[attribute(n, getattr(of, _KINDS[kind]), "") for n, kind in node.attributes.items()],
                )
            )  # fmt: skip
