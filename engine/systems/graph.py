"""Tasks as networks with named inputs and outputs, numerics before and after them included: what is exported."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ...kernels.op.levels import bytes_of, values_of

__all__ = ["OUTPUTS", "Compute", "Graph", "GraphNetwork", "Output", "entering", "finished", "finished_mask"]

Output = Literal["image", "float"]
OUTPUTS = ("image", "float")
Compute = Callable[..., tuple[Tensor, ...]]


@dataclass(frozen=True)
class Graph:
    """A task as one network.

    Attributes:
        compute: from the system's Config and an Output to a function of the networks and the inputs, in their order,
            that gives the outputs. An "image" ends in bytes, [N, H, W, 3], and masks [N, H, W]; a "float" in float32,
            [N, 3, H, W] in [-1, 1], and masks [N, 1, H, W] in [0, 1].
        example: from the Config and a number of rows to inputs by name; the same at every call.
        outputs: names, in order.
        unused: parts of the networks that it never runs.
    """

    compute: Callable[[Any, Output], Compute]
    example: Callable[[Any, int], dict[str, Tensor]]
    outputs: tuple[str, ...]
    unused: tuple[str, ...] = ()

    def network(self, networks: nn.Module, config: Any, output: Output) -> "GraphNetwork":
        """The task as a module of its inputs; the networks lose the parts that it never runs."""
        for part in self.unused:
            setattr(networks, part, nn.Identity())
        return GraphNetwork(networks, self.compute(config, output))


class GraphNetwork(nn.Module):
    """A function of networks and inputs."""

    def __init__(self, network: nn.Module, compute: Compute) -> None:
        super().__init__()
        self.network, self.compute = network, compute

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Compute the outputs."""
        return self.compute(self.network, *inputs)


def entering(images: Tensor) -> Tensor:
    """Bytes [N, H, W, 3] to float32 [N, 3, H, W] in [-1, 1]."""
    return values_of(images).permute(0, 3, 1, 2)


def finished(images: Tensor, output: Output) -> Tensor:
    """Images [N, 3, H, W] as float32, or as bytes [N, H, W, 3]."""
    images = images.float()
    return bytes_of(images.permute(0, 2, 3, 1)) if output == "image" else images


def finished_mask(mask: Tensor, output: Output) -> Tensor:
    """Masks [N, 1, H, W] in [0, 1] as they are, or as bytes [N, H, W], round(255 mask)."""
    return mask.squeeze(1).mul(255).round().to(torch.uint8) if output == "image" else mask
