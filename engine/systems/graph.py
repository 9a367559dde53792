"""Tasks as networks with named inputs and outputs, for export; they include the conversions from and to bytes."""

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
        compute: makes, from the system's Config and an Output, a function from the networks and the inputs in order to
            the outputs. For "image" pictures are bytes [N, H, W, 3] and masks bytes [N, H, W]; for "float" pictures are
            float32 [N, 3, H, W] in [-1, 1] and masks [N, 1, H, W] in [0, 1].
        example: makes inputs by name from the Config and a number of rows; equal in every call.
        outputs: the names of the outputs, in order.
        unused: the parts of the networks that the task never runs.
    """

    compute: Callable[[Any, Output], Compute]
    example: Callable[[Any, int], dict[str, Tensor]]
    outputs: tuple[str, ...]
    unused: tuple[str, ...] = ()

    def network(self, networks: nn.Module, config: Any, output: Output) -> "GraphNetwork":
        """The task as a module that takes its inputs; unused parts are removed from `networks`."""
        for part in self.unused:
            setattr(networks, part, nn.Identity())
        return GraphNetwork(networks, self.compute(config, output))


class GraphNetwork(nn.Module):
    """A module that applies `compute` to its networks and inputs."""

    def __init__(self, network: nn.Module, compute: Compute) -> None:
        super().__init__()
        self.network, self.compute = network, compute

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Compute the outputs."""
        return self.compute(self.network, *inputs)


def entering(images: Tensor) -> Tensor:
    """Turn bytes [N, H, W, 3] into float32 [N, 3, H, W] in [-1, 1]."""
    return values_of(images).permute(0, 3, 1, 2)


def finished(images: Tensor, output: Output) -> Tensor:
    """Turn images [N, 3, H, W] into the output: float32 of the same shape, or bytes [N, H, W, 3]."""
    images = images.float()
    return bytes_of(images.permute(0, 2, 3, 1)) if output == "image" else images


def finished_mask(mask: Tensor, output: Output) -> Tensor:
    """Turn masks [N, 1, H, W] in [0, 1] into the output: unchanged, or bytes [N, H, W], round(255 mask)."""
    return mask.squeeze(1).mul(255).round().to(torch.uint8) if output == "image" else mask
