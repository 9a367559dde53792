"""OneGANs of a few channels, with weights as different from their start as training would make them."""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor, nn

from zellige.engine.layers.norms import MapNorm
from zellige.engine.systems.onegan.config import OneGanConfig
from zellige.engine.systems.onegan.networks import Codes, OneGanNetworks

ModuleT = TypeVar("ModuleT", bound=nn.Module)

SIZES = {
    "resolution": 64, "children": 7, "parents": 3, "latent": 6, "child_vector": 5, "parent_vector": 4,
    "background_vector": 3, "width": 1, "encoder_width": 2, "critic_width": 2,
}  # fmt: skip
# Every value that is not a field's default.
CHOICES = [
    {"resolution": 128},
    {"norm_axes": "pixel"},
    {"norm_affine": "element"},
    {"bias_before_norm": True},
    {"table_bias": True},
    {"upsampling": "bilinear"},
    {"bypass": "bottleneck"},
    {"background_input": "masked"},
    {"sigma": "softplus"},
    {"tie_parents": False},
    {"background_classes": "child"},
    {"reconstruction_codes": "classes"},
    {"mix": "separate"},
]
every_choice = pytest.mark.parametrize("chosen", CHOICES, ids=lambda chosen: "-".join(map(str, *chosen.items())))


def tiny(**chosen: Any) -> OneGanConfig:
    return OneGanConfig(**{**SIZES, **chosen})


def trained(build: Callable[[OneGanConfig], ModuleT], config: OneGanConfig | None = None, seed: int = 0) -> ModuleT:
    """A network with scales, shifts and biases away from their start."""
    torch.manual_seed(seed)
    network = build(config or tiny())
    for part in network.modules():
        if isinstance(part, MapNorm | nn.LayerNorm):
            nn.init.normal_(part.weight, 1, 0.3)
            nn.init.normal_(part.bias, 0, 0.3)
        if isinstance(part, nn.Conv2d | nn.Linear) and part.bias is not None:
            nn.init.normal_(part.bias, 0, 0.3)
    return network


def parameters(build: Callable[[], nn.Module]) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build().parameters())


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def drawn(network: OneGanNetworks, count: int = 2, seed: int = 0) -> Codes:
    return network.codes(*network.draw(count, torch.Generator().manual_seed(seed)))


def images(config: OneGanConfig, count: int = 2, seed: int = 0) -> Tensor:
    return normal(count, 3, config.resolution, config.resolution, seed=seed).tanh()


def sides(network: nn.Module) -> list[int]:
    """Sides of the results of all convolutions, in the order in which they will run."""
    found: list[int] = []
    for part in network.modules():
        if isinstance(part, nn.Conv2d):
            part.register_forward_hook(lambda _, __, y: found.append(y.shape[-1]))
    return found


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Maps this small take longer on several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
