"""Key-patch runs of a few channels, and batches for them."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from zellige.engine.systems.key_patch.config import KeyPatchConfig
from zellige.training.systems.key_patch.recipe import KeyPatchRecipe
from zellige.training.systems.key_patch.training import KeyPatchTraining

MODEL = {"resolution": 64, "width": 4, "encoding": 8}


def tiny(model: dict[str, Any] | None = None, **options: Any) -> KeyPatchRecipe:
    return KeyPatchRecipe(**{"model": KeyPatchConfig(**MODEL | (model or {})), "batch": 3, "ratio": "1:1"} | options)


def training(model: dict[str, Any] | None = None, **options: Any) -> KeyPatchTraining:
    return KeyPatchTraining(tiny(model, **options), torch.device("cpu"), 0)


def batch(run: KeyPatchTraining, seed: int = 0) -> tuple[Tensor, ...]:
    """Images, other images, boxes and patches as the data loader gives them."""
    random, count = torch.Generator().manual_seed(seed), run.recipe.batch
    number = run.recipe.model.patches
    image, other = torch.randint(0, 256, (2, count, 3, 64, 64), dtype=torch.uint8, generator=random)
    corner = torch.randint(0, 40, (count, number, 2), generator=random)
    patches = torch.randint(0, 256, (count, number, 3, 64, 64), dtype=torch.uint8, generator=random)
    return image, other, torch.cat([corner, torch.full_like(corner, 20)], 2), patches


def picture(index: int) -> np.ndarray:
    """Coloured blocks on white: uint8 [64, 64, 3]."""
    random = np.random.default_rng(index)
    drawn = np.full((64, 64, 3), 255, np.uint8)
    for _ in range(4):
        x, y, w, h = random.integers(4, 40, 4)
        drawn[y : y + h // 2, x : x + w // 2] = random.integers(0, 256, 3)
    return drawn


class Blocks:
    """A source of pictures without files."""

    resolution = (64, 64)
    cyclic = (False, False)
    licence = "none"
    listings: dict[str, Any] = {}  # noqa: RUF012

    def on(self, split: str) -> "Blocks":
        return self

    def image(self, index: int) -> np.ndarray:
        return picture(index)

    def kind(self, index: int) -> int:
        return index % 2
