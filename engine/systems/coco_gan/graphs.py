"""The graphs of a COCO-GAN: whole images; single micro patches; and blocks of patches with latents that move inside.

Panoramas are made of the latter two.
"""

import torch
from torch import Tensor

from zellige.errors import TaskError

from ..graph import Compute, Graph, Output, finished
from .config import CocoGanConfig
from .generator import Generator

__all__ = ["GRAPHS"]


def _generate(config: CocoGanConfig, output: Output) -> Compute:
    places, (down, across) = _places(config, config.still_block)

    def compute(network: Generator, latent: Tensor) -> tuple[Tensor, ...]:
        count = latent.shape[0]
        latents = latent[:, None].expand(-1, len(places), -1).flatten(0, 1)
        made = network(latents, places[None].expand(count, -1, -1).flatten(0, 1), config.still_block)
        picture = made.unflatten(0, (count, down, across)).permute(0, 3, 1, 4, 2, 5)  # [N, 3, down, P, across, P]
        return (finished(picture.flatten(4, 5).flatten(2, 3), output),)

    return compute


def _patches(config: CocoGanConfig, output: Output) -> Compute:
    def compute(network: Generator, latent: Tensor, coordinates: Tensor) -> tuple[Tensor, ...]:
        return (finished(network(latent, coordinates, (1, 1)), output),)

    return compute


def _strip(config: CocoGanConfig, output: Output) -> Compute:
    if not config.dense:
        raise TaskError(
            "the graph 'strip' moves latents from cell to cell, which takes dense places; this model has none, so "
            "export 'patches'"
        )

    def compute(network: Generator, latents: Tensor, coordinates: Tensor) -> tuple[Tensor, ...]:
        return (finished(network(latents, coordinates, config.strip_block), output),)

    return compute


def _strip_inputs(config: CocoGanConfig, count: int) -> dict[str, Tensor]:
    conditions = _conditions(config, count)
    still = conditions["latent"][:, None, None].expand(-1, *config.strip_cells, -1)
    other = _drawn(config, count, torch.Generator().manual_seed(1))[:, None, None]
    share = torch.linspace(0, 1, config.strip_cells[1])[:, None]  # a straight line stays inside of the cube of latents
    return {"latents": still + (other - still) * share, "coordinates": conditions["coordinates"]}


def _latents(config: CocoGanConfig, count: int) -> dict[str, Tensor]:
    return {"latent": _drawn(config, count, torch.Generator().manual_seed(0))}


def _conditions(config: CocoGanConfig, count: int) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(0)
    latent, (places, _) = _drawn(config, count, random), _places(config, (1, 1))
    return {"latent": latent, "coordinates": places[torch.randint(len(places), (count,), generator=random)]}


def _drawn(config: CocoGanConfig, count: int, random: torch.Generator) -> Tensor:
    return torch.rand(count, config.latent, generator=random) * 2 - 1


def _places(config: CocoGanConfig, block: tuple[int, int]) -> tuple[Tensor, tuple[int, int]]:
    """The coordinates of an image's blocks, float32 [n, dimensions], and the numbers of blocks down and across."""
    down, across = (axis.patches // n for axis, n in zip(config.lattice.axes, block, strict=True))
    first = torch.cartesian_prod(torch.arange(down) * block[0], torch.arange(across) * block[1]).double().numpy()
    return torch.from_numpy(config.lattice.micro(first[:, 0], first[:, 1])).float(), (down, across)


GRAPHS = {
    "generate": Graph(_generate, _latents, ("images",)),
    "patches": Graph(_patches, _conditions, ("patches",)),
    "strip": Graph(_strip, _strip_inputs, ("strips",)),
}
