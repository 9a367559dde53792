"""CUDA's graphs, streams and events on a CPU: a graph records operators and repeats them on the same memory."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from zellige.engine.runtimes import cuda_graphs


class RecordedGraph:
    """What torch.cuda.CUDAGraph does for operators that write new tensors; views need no repetition."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], Tensor]] = []
        self.replays = 0

    def replay(self) -> None:
        self.replays += 1
        for operator, given, named, result in self.calls:
            result.copy_(operator(*given, **named))


class _Recorder(TorchDispatchMode):
    def __init__(self, graph: RecordedGraph) -> None:
        super().__init__()
        self.graph = graph

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = operator(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            given = {tensor.untyped_storage().data_ptr() for tensor in tree_leaves(args) if isinstance(tensor, Tensor)}
            if result.untyped_storage().data_ptr() not in given:
                self.graph.calls.append((operator, args, kwargs or {}, result))
            elif operator._schema.is_mutable:
                self.graph.calls.append((_repeated_in_place(operator), args, kwargs or {}, result))
        return result


def _repeated_in_place(operator: Any) -> Any:
    return lambda *args, **kwargs: operator(*args, **kwargs).clone()


class _Order:
    """A stream or an event: on a CPU everything is over when it was begun."""

    def __getattr__(self, name: str) -> Any:
        if name in ("record", "synchronize", "wait_stream", "wait_event"):
            return lambda *others: None
        raise AttributeError(name)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[RecordedGraph]:
    """Graphs of `GraphRuntime` on a CPU, in the order of their capture."""
    graphs: list[RecordedGraph] = []

    @contextmanager
    def capture(graph: RecordedGraph, **options: Any) -> Iterator[None]:
        with _Recorder(graph):
            yield
        graphs.append(graph)

    monkeypatch.setattr(cuda_graphs, "CUDAGraph", RecordedGraph)
    for name in ("Stream", "Event"):
        monkeypatch.setattr(cuda_graphs, name, _Order)
    monkeypatch.setattr(cuda_graphs, "_pinned", lambda like, rows: torch.empty(rows, *like.shape[1:], dtype=like.dtype))
    monkeypatch.setattr(torch.cuda, "graph", capture)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 0))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: _Order())
    for name in ("device", "stream"):
        monkeypatch.setattr(torch.cuda, name, lambda place: nullcontext())
    return graphs
