"""Tiny models with random weights: a few thousand numbers that draw a different patch at every place."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from zellige.engine.checkpoint.file import write_checkpoint
from zellige.engine.layers.spectral import plain_state
from zellige.engine.library import load, load_task
from zellige.engine.systems.coco_gan.config import CocoGanConfig
from zellige.engine.systems.coco_gan.critic import Discriminator, Head
from zellige.engine.systems.coco_gan.generator import ConditionalNorm, Generator
from zellige.engine.systems.coco_gan.model import CocoGan
from zellige.engine.systems.onegan.model import PREFIX, OneGan
from zellige.engine.systems.onegan.networks import OneGanNetworks

from .systems.onegan.tiny_onegan import tiny, trained

ModelFile = Callable[..., Path]
Model = Callable[..., CocoGan]
OneGanModel = Callable[..., OneGan]

# No layer is narrower than 16: the rows of narrower matrix products get other last bits at other places of a batch.
CONFIGS = {
    "plane": CocoGanConfig(topology="plane", rows=3, columns=4, patch=8, latent=6, width=4, critic_width=1),
    "cylinder": CocoGanConfig(
        topology="cylinder", rows=3, columns=4, patch=8, latent=6, width=4, critic_width=1,
        padding="replicate",
    ),
    "dense": CocoGanConfig(
        topology="cylinder", rows=3, columns=4, patch=8, latent=6, width=4, critic_width=1,
        dense=True, padding="none",
    ),
    "dense wide": CocoGanConfig(
        topology="cylinder", rows=3, columns=12, patch=32, latent=6, width=16, critic_width=1,
        dense=True, padding="none",
    ),
    "dense torus": CocoGanConfig(
        topology="torus", rows=2, columns=3, patch=8, latent=5, width=4, critic_width=1,
        dense=True, padding="none",
    ),
    "torus": CocoGanConfig(topology="torus", rows=2, columns=3, patch=4, latent=5, width=2, critic_width=1),
    # More than one tile of a file each way.
    "large": CocoGanConfig(topology="plane", rows=66, columns=67, patch=8, latent=6, width=4, critic_width=1),
    "guided": CocoGanConfig(
        topology="plane", rows=3, columns=3, patch=8, latent=6, width=4, critic_width=2, head_width=8, latent_head=True
    ),
}  # fmt: skip


def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Give a network weights, biases and batch statistics as different from their start as training would."""
    random = torch.Generator().manual_seed(seed)
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            nn.init.normal_(part.weight, std=part.weight[0].numel() ** -0.5, generator=random)
            if part.bias is not None:
                nn.init.normal_(part.bias, std=0.3, generator=random)
        if isinstance(part, ConditionalNorm):
            nn.init.normal_(part.scale.bias, mean=1.0, std=0.2, generator=random)
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d | ConditionalNorm):
            nn.init.normal_(part.running_mean, std=0.3, generator=random)
            nn.init.uniform_(part.running_var, 0.3, 2.0, generator=random)
    return module.eval().requires_grad_(False)


def tiny_state(config: CocoGanConfig, seed: int = 0) -> dict[str, torch.Tensor]:
    """The tensors of a model file, as training writes them."""
    parts: dict[str, nn.Module] = {"generator": randomise(Generator(config, spectral=False), seed)}
    if config.latent_head:
        critic = Discriminator(config, spectral=False)
        parts |= {"critic": randomise(critic, seed), "latent_head": randomise(Head(
            critic.features, config.latent, config.head_width, spectral=False), seed)}  # fmt: skip
    return {
        f"{part}.{name}": tensor
        for part, module in parts.items()
        for name, tensor in plain_state(module).items()
        if tensor.is_floating_point()
    }


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    """The path of a checkpoint by its name in CONFIGS; guided is a plane with a latent head."""
    folder = tmp_path_factory.mktemp("models")

    def path(name: str) -> Path:
        file = folder / f"{name}.safetensors"
        if not file.exists():
            config = CONFIGS[name]
            write_checkpoint(
                file,
                tiny_state(config),
                system="coco-gan",
                config=config.model_dump(mode="json"),
                details={"licence": "CC0", "description": "random"},
            )
        return file

    return path


@pytest.fixture(scope="session")
def model(model_file: ModelFile) -> Model:
    """A tiny model on the CPU."""

    def opened(name: str, precision: Any = "fp32") -> CocoGan:
        return load(model_file(name), device="cpu", precision=precision)

    return opened


@pytest.fixture(scope="session")
def onegan_file(tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    """The path of a OneGAN's checkpoint, of tiny sizes but for what is given; `mask` is a bias on the mask's logits."""
    folder = tmp_path_factory.mktemp("onegans")

    def path(mask: float | None = None, **chosen: Any) -> Path:
        file = folder / f"{'-'.join(map(str, ['tiny', mask, *sum(sorted(chosen.items()), ())]))}.safetensors"
        if not file.exists():
            config = tiny(**chosen)
            networks = trained(OneGanNetworks, config).requires_grad_(False)
            if mask is not None:
                nn.init.zeros_(networks.foreground.to_mask.weight)
                nn.init.constant_(networks.foreground.to_mask.bias, mask)
            tensors = {PREFIX + name: tensor for name, tensor in networks.state_dict().items()}
            write_checkpoint(file, tensors, system="onegan", config=config.model_dump(mode="json"))
        return file

    return path


@pytest.fixture(scope="session")
def onegan(onegan_file: ModelFile) -> OneGanModel:
    """A tiny OneGAN on the CPU."""

    def opened(precision: Any = "fp32", **chosen: Any) -> OneGan:
        return load_task("segment", onegan_file(**chosen), device="cpu", precision=precision)

    return opened
