"""A key-patch model of a few channels, its file, and pictures with something on them."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from zellige.engine.checkpoint.file import write_checkpoint
from zellige.engine.systems.key_patch.config import KeyPatchConfig
from zellige.engine.systems.key_patch.networks import Discriminator, KeyPatchNetworks

TINY = {"resolution": 64, "width": 4, "encoding": 8}


def config(**options: Any) -> KeyPatchConfig:
    return KeyPatchConfig(**TINY | options)


def networks(**options: Any) -> KeyPatchNetworks:
    """In evaluation, with weights, scales and statistics that are all different."""
    torch.manual_seed(0)
    made = KeyPatchNetworks(config(**options)).eval().requires_grad_(False)
    return randomised(made)


def randomised(network: Any) -> Any:
    random = torch.Generator().manual_seed(1)
    for part in network.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
            fan = part.weight[0].numel() if isinstance(part, nn.Conv2d) else part.in_channels * 4
            nn.init.normal_(part.weight, std=fan**-0.5, generator=random)
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.weight, 1, 0.2, generator=random)
            nn.init.normal_(part.bias, 0, 0.2, generator=random)
            nn.init.normal_(part.running_mean, 0, 0.2, generator=random)
            nn.init.uniform_(part.running_var, 0.5, 2, generator=random)
    return network


def written(path: Path, **options: Any) -> Path:
    """The file of a model."""
    parts = {"networks": networks(**options), "critic": randomised(Discriminator(config(**options)).eval())}
    tensors = {
        f"{part}.{name}": tensor
        for part, network in parts.items()
        for name, tensor in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    chosen = config(**options).model_dump(mode="json")
    write_checkpoint(path, tensors, system="key-patch", config=chosen, details={"data": str(path.parent)})
    return path


def picture(seed: int = 0, side: int = 64) -> np.ndarray:
    """Coloured discs and bars on white: uint8 [side, side, 3]."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side
    drawn = np.full((side, side, 3), 255, np.uint8)
    for _ in range(5):
        (cx, cy), r = random.uniform(0.2, 0.8, 2), random.uniform(0.05, 0.2)
        inside = (
            (x - cx) ** 2 + (y - cy) ** 2 < r**2 if random.random() < 0.5 else (abs(x - cx) < r) & (abs(y - cy) < r)
        )
        drawn[inside] = random.integers(0, 256, 3)
    return drawn
