"""The graphs of a StyleGAN2: latents to images, and style vectors with noise to images."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..graph import Compute, Graph, Output, finished
from .config import StyleGan2Config
from .generator import Generator

__all__ = ["GRAPHS", "noise_length", "noises"]


def noise_length(config: StyleGan2Config) -> int:
    """Numbers of all maps of noise of an image."""
    return sum(side * side for side in config.noise_sides)


def noises(config: StyleGan2Config, numbers: Tensor) -> list[Tensor]:
    """Cut rows of numbers [N, noise_length] into the maps of the layers, [N, 1, S, S] each."""
    parts = numbers.split([side * side for side in config.noise_sides], dim=1)
    return [part.unflatten(1, (1, side, side)) for part, side in zip(parts, config.noise_sides, strict=True)]


def _generate(config: StyleGan2Config, output: Output) -> Compute:
    def compute(generator: Generator, latent: Tensor, psi: Tensor) -> tuple[Tensor, ...]:
        return (finished(generator(latent, psi).clamp(-1, 1), output),)

    return compute


def _synthesise(config: StyleGan2Config, output: Output) -> Compute:
    def compute(generator: Generator, styles: Tensor, noise: Tensor) -> tuple[Tensor, ...]:
        return (finished(generator.synthesise(styles, noises(config, noise)).clamp(-1, 1), output),)

    return compute


def _drawn(shape: Sequence[int]) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def _latents(config: StyleGan2Config, count: int) -> dict[str, Tensor]:
    share = torch.linspace(0.5, 1, count)[:, None].expand(-1, config.style_count).contiguous()
    return {"latent": _drawn((count, config.z_dim)), "psi": share}


def _styles(config: StyleGan2Config, count: int) -> dict[str, Tensor]:
    return {
        "styles": _drawn((count, config.style_count, config.w_dim)),
        "noise": _drawn((count, noise_length(config))),
    }


GRAPHS = {
    "generate": Graph(_generate, _latents, ("images",)),
    "synthesise": Graph(_synthesise, _styles, ("images",)),
}
