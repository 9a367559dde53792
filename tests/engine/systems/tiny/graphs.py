import torch
from torch import Tensor

from zellige.engine.systems.graph import Compute, Graph, Output, entering, finished

from .config import Config
from .model import Networks

__all__ = ["GRAPHS"]


def _generate(config: Config, output: Output) -> Compute:
    return lambda network, latent: (finished(network(latent), output),)


def _invert(config: Config, output: Output) -> Compute:
    def compute(network: Networks, images: Tensor) -> tuple[Tensor, ...]:
        return (finished(-entering(images), output),)

    return compute


def _latents(config: Config, count: int) -> dict[str, Tensor]:
    return {"latent": torch.randn(count, config.latent, generator=torch.Generator().manual_seed(0))}


def _images(config: Config, count: int) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(0)
    return {"images": torch.randint(256, (count, *config.size, 3), generator=random).to(torch.uint8)}


GRAPHS = {
    "generate": Graph(_generate, _latents, ("images",)),
    "invert": Graph(_invert, _images, ("inverse",), unused=("stem", "to_image")),
}
