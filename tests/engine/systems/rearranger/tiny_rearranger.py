"""A rearranger of a few channels with fitted centroids, and its file."""

from pathlib import Path
from typing import Any

import torch

from zellige.engine.checkpoint.file import write_checkpoint
from zellige.engine.systems.rearranger.config import RearrangerConfig
from zellige.engine.systems.rearranger.masks import fit_centroids
from zellige.engine.systems.rearranger.networks import RearrangerNetworks

from ..stylegan2.tiny_stylegan2 import TINY as GENERATOR
from ..stylegan2.tiny_stylegan2 import generator

TINY: dict[str, Any] = {"generator": GENERATOR, "split": 8, "clusters": 5, "width": 16, "key_width": 8, "depth": 2}


MAPPER: dict[str, Any] = {"channels": (12, 8), "hidden": 6, "names": ("ground", "thing"),
                          "palette": ((255, 255, 255), (255, 0, 0))}  # fmt: skip


def config(**options: Any) -> RearrangerConfig:
    return RearrangerConfig(**TINY | options)


def networks(**options: Any) -> RearrangerNetworks:
    """In evaluation; centroids are those of 8 samples."""
    chosen = config(**options)
    own = generator()
    torch.manual_seed(1)
    made = RearrangerNetworks(chosen, own).eval().requires_grad_(False)
    features = made.source(styles(made, 8)).features.map
    made.centroids.copy_(fit_centroids([features], chosen))
    return made


def styles(made: RearrangerNetworks, count: int, seed: int = 7) -> torch.Tensor:
    z = torch.randn(count, 16, generator=torch.Generator().manual_seed(seed))
    return made.generator.styles(made.generator.map(z))


def written(path: Path, **options: Any) -> Path:
    """The file of a model."""
    tensors = {
        f"networks.{name}": tensor
        for name, tensor in networks(**options).state_dict().items()
        if "num_batches" not in name
    }
    write_checkpoint(path, tensors, system="rearranger", config=config(**options).model_dump(mode="json"))
    return path
