"""The graphs of a rearranger: a latent and a mask to an image, a latent to its mask, a condition to a mask."""

import torch
from torch import Tensor

from zellige.errors import TaskError

from ..graph import Compute, Graph, Output, entering, finished
from .conditions import one_hot
from .config import RearrangerConfig
from .networks import RearrangerNetworks, Source

__all__ = ["GRAPHS"]


def _source(networks: RearrangerNetworks, latent: Tensor, psi: Tensor) -> Source:
    generator = networks.generator
    return networks.source(generator.styles(generator.map(latent), psi))


def _rearrange(config: RearrangerConfig, output: Output) -> Compute:
    def compute(networks: RearrangerNetworks, latent: Tensor, psi: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        source = _source(networks, latent, psi)
        return (finished(networks.image(source, networks.moved(source, mask)).clamp(-1, 1), output),)

    return compute


def _proxy(config: RearrangerConfig, output: Output) -> Compute:
    def compute(networks: RearrangerNetworks, latent: Tensor, psi: Tensor) -> tuple[Tensor, ...]:
        return (networks.mask(_source(networks, latent, psi)),)

    return compute


def _latents(config: RearrangerConfig, count: int) -> dict[str, Tensor]:
    random, generator = torch.Generator().manual_seed(0), config.generator
    share = torch.linspace(0.5, 1, count)[:, None].expand(-1, generator.style_count).contiguous()
    return {"latent": torch.randn(count, generator.z_dim, generator=random), "psi": share}


def _with_masks(config: RearrangerConfig, count: int) -> dict[str, Tensor]:
    random, side = torch.Generator().manual_seed(1), config.split
    mask = torch.randint(config.clusters, (count, side // 4, side // 4), generator=random)
    return _latents(config, count) | {"mask": mask.repeat_interleave(4, 1).repeat_interleave(4, 2)}


def _map(config: RearrangerConfig, output: Output) -> Compute:
    if config.mapper is None:
        raise TaskError("the rearranger has no mapper, so that no condition becomes a mask; export rearrange or proxy")
    classes = len(config.mapper.names) if config.mapper.kind == "labels" else 0

    def compute(networks: RearrangerNetworks, condition: Tensor) -> tuple[Tensor, ...]:
        assert networks.mapper is not None
        read = one_hot(condition, classes) if classes else entering(condition)
        return (networks.mapper(read).argmax(1),)

    return compute


def _conditions(config: RearrangerConfig, count: int) -> dict[str, Tensor]:
    random, side = torch.Generator().manual_seed(2), config.size[0]
    mapper = config.mapper
    if mapper is not None and mapper.kind == "labels":
        drawn = torch.randint(len(mapper.names), (count, side // 4, side // 4), generator=random)
        return {"condition": drawn.repeat_interleave(4, 1).repeat_interleave(4, 2)}
    lines = (torch.rand(count, side, side, 1, generator=random) < 0.1).to(torch.uint8) * 255
    return {"condition": lines.expand(-1, -1, -1, 3).contiguous()}


GRAPHS = {
    "rearrange": Graph(_rearrange, _with_masks, ("images",), unused=("mapper",)),
    "proxy": Graph(_proxy, _latents, ("masks",), unused=("mapper", "rearranger")),
    "map": Graph(_map, _conditions, ("masks",), unused=("generator", "rearranger")),
}
