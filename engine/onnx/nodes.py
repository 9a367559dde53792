"""Checks the nodes of an ONNX model, at any depth: their number, and whether an operator or function provides each."""

from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

from ..files.hostile import shown
from . import faults
from .faults import refuse

__all__ = ["MAX_CALLS", "MAX_NODES", "Parts", "check_nodes", "check_versions", "parts"]

MAX_NODES = 50_000  # with all functions expanded; the networks of this package have some hundreds
MAX_CALLS = 32  # the depth of functions that call each other; ONNX's own checker stops at 100

_STANDARD = {"", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview", "ai.onnx.preview.training"}
_PROVIDERS = {
    "zellige": "Zellige's plugins for TensorRT provide them; elsewhere export the model with --flavour portable",
    "com.microsoft": "ONNX Runtime provides them; elsewhere export the model with standard operators",
}

_Key = tuple[str, str, str]  # domain, name and overload of a function


class Parts(NamedTuple):
    """The graphs, nodes and attributes that some graphs and functions hold at any depth."""

    graphs: list[Any]
    nodes: list[Any]
    attributes: list[Any]


def parts(*scopes: Any) -> Parts:
    """The graphs, nodes and attributes in these graphs and functions, and in the subgraphs of their nodes."""
    found, pending = Parts([], [], []), list(scopes)
    while pending:
        scope = pending.pop()
        attributes = list(getattr(scope, "attribute_proto", ()))  # a function's default attributes
        if hasattr(scope, "initializer"):
            found.graphs.append(scope)
        for node in scope.node:
            found.nodes.append(node)
            attributes += node.attribute
        for attribute in attributes:
            pending += [attribute.g] if attribute.HasField("g") else []
            pending += attribute.graphs
        found.attributes.extend(attributes)
    return found


def check_versions(model: Any, what: str) -> None:
    """Check that the IR version and all operator sets are present and known.

    Raises:
        VersionError: one is missing, named twice or unknown.
    """
    import onnx

    if not 1 <= model.ir_version <= onnx.IR_VERSION:
        refuse(
            faults.VersionError, what, f"its IR version is {model.ir_version}, and 1 to {onnx.IR_VERSION} are known "
            "here; update the package onnx, or export the model for an older version",
        )  # fmt: skip
    if not model.opset_import:
        refuse(faults.VersionError, what, "it names no operator set; export it again, with an opset such as 20")
    newest = {"": onnx.defs.onnx_opset_version(), "ai.onnx.ml": onnx.defs.onnx_ml_opset_version()}
    for scope in (model, *model.functions):
        domains = [_standard(entry.domain) for entry in scope.opset_import]
        if len(domains) != len(set(domains)):
            refuse(faults.VersionError, what, "it names an operator set twice; export it again")
        for domain, entry in zip(domains, scope.opset_import, strict=True):
            most = newest.get(domain, entry.version)
            if not 1 <= entry.version <= most:
                refuse(
                    faults.VersionError, what, f"its operator set {shown(domain or 'ai.onnx')} is {entry.version}, and "
                    f"1 to {max(most, 1)} are known here; export it with an opset such as 20",
                )  # fmt: skip


def check_nodes(model: Any, what: str, domains: Collection[str]) -> None:
    """Check that no function calls itself, that the expanded model is small enough, and that every node is provided.

    Args:
        model: a ModelProto.
        what: the model's name in errors.
        domains: domains beyond ONNX's own for which the runtime has kernels.
    Raises:
        FunctionCycleError, NestingError: functions call each other without end, or too deep.
        GraphSizeError: the expanded model has more than `MAX_NODES` nodes.
        DomainError: a node is of an unknown domain.
    """
    functions = {(_standard(f.domain), f.name, f.overload): f for f in model.functions}
    if len(functions) != len(model.functions):
        refuse(faults.InvalidModelError, what, "it has two functions of one name; export it again")
    calls = _Calls(functions, what)
    nodes = calls.expanded(parts(model.graph).nodes, ())
    for key in functions:  # uncalled functions are checked too, because runtimes read them
        calls.size(key, ())
    if nodes > MAX_NODES:
        refuse(
            faults.GraphSizeError, what, f"its graph has {_round(nodes)} nodes with its functions expanded, and "
            f"{MAX_NODES} are allowed; export a smaller network",
        )  # fmt: skip
    _check_domains(parts(model.graph, *model.functions).nodes, functions, what, _STANDARD.union(domains))


class _Calls:
    """Counts the nodes of each function after all calls in it are expanded."""

    def __init__(self, functions: dict[_Key, Any], what: str) -> None:
        self.functions, self.what, self.sizes = functions, what, dict[_Key, int]()

    def expanded(self, nodes: Iterable[Any], path: tuple[_Key, ...]) -> int:
        keys = map(_key, nodes)
        return sum(self.size(key, path) if key in self.functions else 1 for key in keys)

    def size(self, key: _Key, path: tuple[_Key, ...]) -> int:
        if key in path:
            names = " -> ".join(shown(name) for _, name, _ in (*path[path.index(key) :], key))
            refuse(
                faults.FunctionCycleError, self.what, f"its functions call each other without end, {names}; repair it"
            )
        if len(path) >= MAX_CALLS:
            refuse(
                faults.NestingError, self.what, f"its functions call each other more than {MAX_CALLS} deep; inline "
                "them with onnx.inliner.inline_local_functions",
            )  # fmt: skip
        if key not in self.sizes:
            self.sizes[key] = self.expanded(parts(self.functions[key]).nodes, (*path, key))
        return self.sizes[key]


def _check_domains(nodes: Iterable[Any], functions: dict[_Key, Any], what: str, known: Collection[str]) -> None:
    for node in nodes:
        domain = _standard(node.domain)
        if _key(node) in functions or domain in known:
            continue
        provider = _PROVIDERS.get(
            domain, "neither ONNX nor a function of the file provides them; export the model with standard operators"
        )
        name = f"{shown(node.name)} ({shown(node.op_type)[1:-1]})"
        refuse(faults.DomainError, what, f"its node {name} is of the domain {shown(domain)}: {provider}")


def _key(node: Any) -> _Key:
    return _standard(node.domain), node.op_type, node.overload


def _standard(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain


def _round(count: int) -> str:
    return str(count) if count < 10**9 else "more than a thousand million"
