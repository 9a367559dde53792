"""The generators that are measured, with their inputs: models by name, and networks at the papers' full width."""

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

__all__ = ["REFERENCES", "SEED", "Inputs", "Subject", "random_networks", "subject_of"]

Inputs = tuple[Tensor, ...]
NetworkT = TypeVar("NetworkT", bound=nn.Module)

SEED = 0  # seed of random weights
REFERENCES: dict[str, System] = {name: system for system in all_systems() for name in system.references}


@dataclass(frozen=True)
class Subject:
    """A generator, which turns a batch of inputs into images [N, 3, R, R] in [-1, 1].

    Attributes:
        name: a model's name or path, or the name of a reference network.
        system: name of its system.
        network: the network in float32, in evaluation, channels-last, on the device.
        device: the device that everything runs on.
        inputs: makes the inputs of a batch, the same at every call.
        example: arguments of the inner networks, with which rewrites are chosen.
    """

    name: str
    system: str
    network: "OneOutput"
    device: torch.device
    inputs: Callable[[int], Inputs]
    example: tuple[Any, ...]

    def at(self, precision: str) -> "OneOutput":
        """Return a copy of the network whose maps are in this precision; codes, conditions and images stay float32."""
        network = copy.deepcopy(self.network)
        cast_maps(network, DTYPES[precision])
        return network


class OneOutput(nn.Module):
    """The measured graph, which has one output."""

    def __init__(self, task: GraphNetwork) -> None:
        super().__init__()
        self.task = task  # not `graph`, which is an attribute of exported programs

    def forward(self, *inputs: Tensor) -> Tensor:
        """Make images in float32."""
        (images,) = self.task(*inputs)
        return images


def subject_of(model: str, device: torch.device) -> Subject:
    """Return the generator with a bundled name, of a checkpoint's path, or of a reference network.

    Raises:
        UnknownModelError: there is none of this name; the error lists the reference networks.
        CheckpointError: the file is damaged or not ours.
    """
    if model in REFERENCES:
        networks, config = random_networks(model)
        return _subject(model, REFERENCES[model], networks, config, device)
    try:
        loaded = load_checkpoint(model, "cpu", "fp32", rewrite=False)
    except UnknownModelError as error:
        raise UnknownModelError(f"{error}; or a reference network: {', '.join(REFERENCES)}") from None
    return _subject(model, system_of(loaded.system), loaded.trained(), loaded.config, device)


def random_networks(name: str, **fields: Any) -> tuple[nn.Module, Any]:
    """The networks of a reference with random weights, and their configuration; `fields` change its fields."""
    system = REFERENCES[name]
    config = system.part("config").Config(**{**system.references[name], **fields})
    with torch.device("meta"):  # drawing initial weights, which are replaced anyway, can take most of a minute
        networks = system.part("model").build(config)
    networks = _drawn(networks.to_empty(device="cpu"))
    fill_constants(networks)
    for part in networks.modules():
        for_inference = getattr(part, "scale_activations", None)
        if for_inference is not None:
            for_inference()
    return networks, config


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
    """Draw weights under the seed. Scales and shifts are drawn too, because their initial values would hide a loss."""
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
        elif statistics.is_floating_point():  # noise and mean styles; constants are filled in afterwards
            nn.init.normal_(statistics, generator=random)
    return network
