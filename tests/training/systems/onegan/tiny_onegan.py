"""OneGAN runs of a few channels, batches of noise for them, and what a step has moved."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from zellige.engine.systems.onegan.config import OneGanConfig
from zellige.training.systems.onegan.recipe import OneGanRecipe, OneGanWeights
from zellige.training.systems.onegan.training import OneGanTraining

MODEL = {
    "resolution": 64, "children": 7, "parents": 3, "latent": 6, "child_vector": 5, "parent_vector": 4,
    "background_vector": 3, "width": 1, "encoder_width": 1, "critic_width": 1,
}  # fmt: skip
NONE = {name: 0.0 for name in OneGanWeights.model_fields}


def tiny(model: dict[str, Any] | None = None, weights: dict[str, float] | None = None, **options: Any) -> OneGanRecipe:
    """A recipe whose paths all run from the first step on."""
    given = {"model": OneGanConfig(**MODEL | (model or {})), "weights": OneGanWeights(**weights or {})}
    return OneGanRecipe(**given | {"batch": 3, "phases": (0.0, 0.0)} | options)


def training(*arguments: Any, seed: int = 0, **options: Any) -> OneGanTraining:
    return OneGanTraining(tiny(*arguments, **options), torch.device("cpu"), seed)


def batch(run: OneGanTraining, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images and backgrounds as the data loader gives them."""
    random = torch.Generator().manual_seed(seed)
    shape = (2, run.recipe.batch, 3, *run.recipe.model.size)
    first, second = torch.randint(0, 256, shape, dtype=torch.uint8, generator=random)
    return first, second


def advance(run: OneGanTraining, steps: int = 1, progress: float = 0.0) -> dict[str, Tensor]:
    metrics: dict[str, Tensor] = {}
    for k in range(steps):
        metrics = run.step(batch(run, k), progress)
    return metrics


def parts(run: OneGanTraining) -> dict[str, list[nn.Parameter]]:
    """All parameters that learn, by the paper's names of their networks."""
    return run.learners | {
        "D_c": [*run.objects.trunk.parameters(), *run.objects.deep.parameters()],
        "D_c_A": list(run.objects.adversarial.parameters()),
        "D_bg": list(run.backgrounds.blocks.parameters()),
        "D_bg_A": list(run.backgrounds.adversarial.parameters()),
        "D_bg_B": list(run.backgrounds.auxiliary.parameters()),
    }


def moved_by_a_step(run: OneGanTraining) -> set[str]:
    before = {name: [p.detach().clone() for p in values] for name, values in parts(run).items()}
    advance(run)
    return {
        name
        for name, values in parts(run).items()
        if not all(torch.equal(old, new) for old, new in zip(before[name], values, strict=True))
    }


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks as small as these only wait for a second thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
