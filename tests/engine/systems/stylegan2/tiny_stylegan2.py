"""A StyleGAN2 of a few channels, and its file."""

from pathlib import Path
from typing import Any

import torch

from zellige.engine.checkpoint.file import write_checkpoint
from zellige.engine.systems.stylegan2.config import StyleGan2Config
from zellige.engine.systems.stylegan2.discriminator import Discriminator
from zellige.engine.systems.stylegan2.generator import Generator

TINY: dict[str, Any] = {"channels": (24, 16, 16), "z_dim": 16, "w_dim": 12, "mapping_layers": 2}


def config(**options: Any) -> StyleGan2Config:
    return StyleGan2Config(**TINY | options)


def generator(**options: Any) -> Generator:
    """In evaluation, with biases, noise and a mean that are all different."""
    torch.manual_seed(0)
    made = Generator(config(**options)).eval().requires_grad_(False)
    for name, tensor in made.state_dict().items():
        if name.endswith(("bias", "w_avg")):
            tensor.add_(0.2 * torch.randn(tensor.shape))
        elif name.endswith("noise_strength"):
            tensor.fill_(0.3)
    return made


def tensors(**options: Any) -> dict[str, torch.Tensor]:
    networks = {"generator": generator(**options), "discriminator": Discriminator(config(**options))}
    return {
        f"{part}.{name}": tensor for part, network in networks.items() for name, tensor in network.state_dict().items()
    }


def written(path: Path, **options: Any) -> Path:
    """The file of a model."""
    chosen = config(**options).model_dump(mode="json")
    write_checkpoint(path, tensors(**options), system="stylegan2", config=chosen, details={"data": str(path.parent)})
    return path
