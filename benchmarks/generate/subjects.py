"""What is measured: a generator, and the inputs of a batch. Models by name, and networks at the papers' full width."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from zellige.errors import UnknownModelError

from ...engine.device import DTYPES
from ...engine.layers.constants import fill_constants
from ...engine.layers.precision import cast_maps
from ...engine.library import load_checkpoint
from ...engine.systems import all_systems, system_of
from ...engine.systems.graph import GraphNetwork
from ...engine.systems.system import System

__all__ = ["REFERENCES", "SEED", "Inputs", "Subject", "subject_of"]

Inputs = tuple[Tensor, ...]
NetworkT = TypeVar("NetworkT", bound=nn.Module)

SEED = 0  # of weights
REFERENCES: dict[str, System] = {name: system for system in all_systems() for name in system.references}


@dataclass(frozen=True)
class Subject:
    """A generator whose call takes a batch of inputs to images [N, 3, R, R] in [-1, 1].

    Attributes:
        name: a model's name or path, or that of a reference network.
        system: its system.
        network: in float32, in evaluation, channels-last, on the device.
        device: where everything runs.
        inputs: makes those of a batch, the same at every call.
        example: arguments of the networks within, with which choices of rewrites are made.
    """

    name: str
    system: str
    network: "OneOutput"
    device: torch.device
    inputs: Callable[[int], Inputs]
    example: tuple[Any, ...]

    def at(self, precision: str) -> "OneOutput":
        """A copy of the network whose maps are in this precision; codes, conditions and images are float32."""
        network = copy.deepcopy(self.network)
        cast_maps(network, DTYPES[precision])
        return network


class OneOutput(nn.Module):
    """The measured graph, which has one output."""

    def __init__(self, task: GraphNetwork) -> None:
        super().__init__()
        self.task = task  # "graph" is what exported programs call their own

    def forward(self, *inputs: Tensor) -> Tensor:
        """Make images in float32."""
        (images,) = self.task(*inputs)
        return images


def subject_of(model: str, device: torch.device) -> Subject:
    """The generator of a bundled name, of a checkpoint's path, or of a reference network.

    Raises:
        UnknownModelError: there is none of this name; lists the reference networks.
        CheckpointError: the file is damaged or not ours.
    """
    if model in REFERENCES:
        system = REFERENCES[model]
        config = system.part("config").Config(**system.references[model])
        with torch.device("meta"):  # starting weights that are replaced anyway can take most of a minute
            networks = system.part("model").build(config)
        networks = _drawn(networks.to_empty(device="cpu"))
        fill_constants(networks)
        return _subject(model, system, networks, config, device)
    try:
        loaded = load_checkpoint(model, "cpu", "fp32", rewrite=False)
    except UnknownModelError as error:
        raise UnknownModelError(f"{error}; or a reference network: {', '.join(REFERENCES)}") from None
    return _subject(model, system_of(loaded.system), loaded.trained(), loaded.config, device)


def _subject(name: str, system: System, networks: nn.Module, config: Any, device: torch.device) -> Subject:
    graph = system.part("graphs").GRAPHS[system.measured]
    network = OneOutput(graph.network(networks, config, "float")).eval().requires_grad_(False).to(device)
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def inputs(batch: int) -> Inputs:
        return tuple(rows.to(device) for rows in graph.example(config, batch).values())

    example = system.part("model").example(config)
    example = tuple(part.to(device) if isinstance(part, Tensor) else part for part in example)
    return Subject(name, system.name, network, device, inputs, example)


def _drawn(network: NetworkT) -> NetworkT:
    """Random weights under the seed; scales and shifts too, since those of a new network would hide their loss."""
    random = torch.Generator().manual_seed(SEED)
    for name, weight in network.named_parameters():
        if weight.dim() > 1:
            nn.init.normal_(weight, std=weight[0].numel() ** -0.5, generator=random)
        else:
            nn.init.normal_(weight, float(name.endswith("weight")), 0.1, generator=random)
    for name, statistics in network.named_buffers():
        if name.endswith("running_mean"):
            nn.init.normal_(statistics, std=0.1, generator=random)
        elif name.endswith("running_var"):
            nn.init.uniform_(statistics, 0.5, 1.5, generator=random)
    return network
