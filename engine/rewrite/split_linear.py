"""A linear layer over latents joined with coordinates, in two parts: once an image, and once a lattice.

W [z, c] + b = A z + (B c + b), A and B the columns of W that belong to each. For N images at the same P positions the
first term is [N, K] and the second [P, K].

Saves all but (N l + P m) K of the N P (l + m) K multiplications, with latents of l and coordinates of m numbers: 32x
for a latent of 128 and coordinates of 4 at 1024 positions of one image. What is left are N P K additions. Exact.

Loses where every row has its own latent and its own place: then there is nothing to share. The first layer of a network
over latents and coordinates is one, and so are the layers from a condition to scale and shift. Source: this project.
"""

from typing import Any

import torch
from torch import Tensor, nn

from zellige.errors import ShapeError

from ..layers.batch_invariance import BatchInvariantLinear
from .convolution import require_plain
from .fold_weight import fold_weight

__all__ = ["SplitLinear", "split_linear"]


@torch.no_grad()
def split_linear(linear: nn.Linear, latent: int, *, first: bool = True) -> "SplitLinear":
    """Split a linear layer by its inputs.

    Args:
        linear: over l + m inputs; it is not changed. The parts of a BatchInvariantLinear are such layers too.
        latent: l, how many inputs are the latent's.
        first: whether they come before the coordinates, or after them.
    Returns:
        A module from latents [N, l] and coordinates [P, m] to [N, P, K].
    Raises:
        ShapeError: the layer is no linear layer, or has not more than l inputs.
    """
    require_plain(linear, nn.Linear)
    if not 0 < latent < linear.in_features:
        inputs = linear.in_features
        raise ShapeError(f"{latent} of {inputs} inputs are the latent's; it must be 1 to {inputs - 1}.")
    return SplitLinear(linear, latent, first)


class SplitLinear(nn.Module):
    """The sum of a linear layer of latents and one of coordinates; made by `split_linear`."""

    def __init__(self, linear: nn.Linear, latent: int, first: bool) -> None:
        super().__init__()
        plain = fold_weight(linear)
        sizes = [latent, plain.in_features - latent]
        parts = plain.weight.split(sizes if first else sizes[::-1], dim=1)
        image, position = parts if first else parts[::-1]
        kind = BatchInvariantLinear if isinstance(plain, BatchInvariantLinear) else nn.Linear
        self.image, self.position = _part(kind, image, None), _part(kind, position, plain.bias)
        self.eval()

    def forward(self, latents: Tensor, coordinates: Tensor) -> Tensor:
        """All of N latents [N, l] at all of P coordinates [P, m]: [N, P, K].

        Where either stays the same from call to call keep its part: image(latents) [N, K] and position(coordinates)
        [P, K], the bias included.
        """
        y: Tensor = self.image(latents)[:, None] + self.position(coordinates)
        return y


def _part(kind: Any, weight: Tensor, bias: Tensor | None) -> nn.Linear:
    part: nn.Linear = kind(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    part.weight = nn.Parameter(weight.contiguous(), requires_grad=False)
    if bias is not None:
        part.bias = nn.Parameter(bias.clone(), requires_grad=False)
    return part
