"""A task of a model as one network in a precision, and as the network that was trained."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from zellige.errors import TaskError

from ..engine.device import DTYPES
from ..engine.layers.precision import cast_maps
from ..engine.rewrite.for_onnx import rewrite_for_graphs
from ..engine.systems import system_of
from ..engine.systems.graph import Output

__all__ = ["TaskNetwork", "task_network"]


@dataclass(frozen=True)
class TaskNetwork:
    """A task ready to be exported.

    Attributes:
        system, task: their names.
        module: takes the inputs in their order and returns a tuple of the outputs; on a CPU, in evaluation, rewritten.
        trained: the network as it was trained, in float32: exported files are compared with it.
        example: takes a number of rows and returns inputs by name; the same at every call.
        outputs: names of the outputs.
    """

    system: str
    task: str
    module: nn.Module
    trained: nn.Module
    example: Callable[[int], dict[str, Tensor]]
    outputs: tuple[str, ...]


def task_network(model: Any, task: str, output: Output, precision: str) -> TaskNetwork:
    """Make the network of a loaded model's task, with weights of its own.

    Args:
        model: the model, loaded in float32.
        task: one of the graphs of its system.
        output: as in `Graph.compute`.
        precision: of convolutions and of the norms behind them; inputs and outputs are the same in all.
    Raises:
        TaskError: the system has no graph of this name; the error lists those that it has.
    """
    system = system_of(model.system)
    graph = system.part("graphs").GRAPHS.get(task)
    if graph is None:
        known = ", ".join(system.graphs)
        raise TaskError(f"{model.name} is a {system.name} model, whose tasks for export are {known}; {task!r} is none")
    network = model.trained()
    trained = graph.network(copy.deepcopy(network), model.config, output)
    cast_maps(network, DTYPES[precision])
    rewrite_for_graphs(network)
    module = graph.network(network, model.config, output)
    return TaskNetwork(system.name, task, module, trained, partial(graph.example, model.config), graph.outputs)
