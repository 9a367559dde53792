from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from zellige.engine.checkpoint.file import Header, read_tensors, validated
from zellige.engine.device import precision_of
from zellige.engine.files.squares import Squares, cut_squares
from zellige.engine.layers.precision import cast_maps
from zellige.engine.runtimes import checked_as, converted

from .config import Config

__all__ = ["PREFIX", "RUNS", "Networks", "Tiny", "build", "example", "open_graph", "open_model"]

RUNS = ("generate",)
PREFIX = ""


class Networks(nn.Module):
    """A linear layer and a convolution."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.stem = nn.Linear(config.latent, 16 * 16)
        self.to_image = nn.Conv2d(16, 3, 3, padding=1)

    def forward(self, latent: Tensor) -> Tensor:
        """Latents [N, latent] to images [N, 3, S, S]."""
        x = self.stem(latent).unflatten(1, (16, 4, 4)).to(self.to_image.weight.dtype)
        x = nn.functional.interpolate(x, size=self.config.size, mode="nearest")
        return self.to_image(x).float().tanh()


def build(config: Config) -> Networks:
    """The networks."""
    return Networks(config)


def example(config: Config) -> tuple[Tensor, ...]:
    """One latent."""
    return (torch.zeros(1, config.latent),)


def open_model(
    header: Header, name: str, device: torch.device, dtype: torch.dtype, *, rewrite: bool = True, runtime: str = "torch"
) -> "Tiny":
    """The model of a checkpoint."""
    return Tiny(header, name, device, dtype)


def open_graph(task: str, header: Header, graph: Any) -> Any:
    """None is made of files here."""
    raise NotImplementedError


@dataclass(frozen=True)
class Negatives:
    """What `invert` makes."""

    inverse: npt.NDArray[np.uint8]
    grey: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Weights:
    """What `weigh` finds."""

    level: npt.NDArray[np.float64]


class Tiny:
    """A loaded Tiny."""

    system = "tiny"
    batch = 2
    choices: list[Any] = []  # noqa: RUF012

    def __init__(self, header: Header, name: str, device: torch.device, dtype: torch.dtype) -> None:
        self.header, self.name, self.device, self.dtype = header, name, device, dtype
        self.config = validated(header, Config)
        self.networks = self.trained()

    @property
    def precision(self) -> str:
        return precision_of(self.dtype)

    @property
    def size(self) -> tuple[int, int]:
        return self.config.size

    def trained(self) -> Networks:
        with torch.device("meta"):
            networks = Networks(self.config)
        tensors = read_tensors(self.header, {name: t.shape for name, t in networks.state_dict().items()})
        networks.load_state_dict(tensors, assign=True)
        cast_maps(networks, self.dtype)
        return networks.eval().requires_grad_(False)

    def generate(self, count: int, seed: int = 0, *, first: int = 0, as_: Any = "numpy") -> Any:
        latents = [np.random.default_rng((seed, first + k)).standard_normal(self.config.latent) for k in range(count)]
        images = self.networks(torch.from_numpy(np.stack(latents)).float())
        return converted(images, checked_as(as_, self.device))

    def warm(self, counts: Iterable[int]) -> None: ...

    def read(self, source: str, given: Any) -> Squares:
        return cut_squares(given, self.config.side)

    def invert(self, images: Any, strength: float = 1.0) -> Negatives:
        levels = self.read("images", images).pixels
        inverse = (levels + strength * (255.0 - 2.0 * levels)).astype(np.uint8)
        return Negatives(inverse, inverse.mean(-1).astype(np.uint8))

    def reframe(self, images: Any, frame: Any) -> npt.NDArray[np.uint8]:
        framed = self.read("images", images).pixels.copy()
        framed[:, 0] = self.read("frame", frame).pixels[:, 0]
        return framed

    def mix(self, parts: Any) -> npt.NDArray[np.uint8]:
        return self.read("parts", parts).pixels.mean(0, keepdims=True).astype(np.uint8)

    def weigh(self, images: Any) -> Weights:
        return Weights(self.read("images", images).pixels.mean((1, 2, 3)))
