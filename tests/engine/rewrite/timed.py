"""A network of one layer of each kind, whose forms take as long as a test says."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from zellige.engine.layers.convolutions import CodedConv, UpConv
from zellige.engine.rewrite.plan import Choice
from zellige.kernels.winograd_conv.op import native_dtypes

from .judge import layer, random

subject = sys.modules[Choice.__module__]  # in the package its name is that of its function
TILES = torch.float32 in native_dtypes()
needs_tiles = pytest.mark.skipif(not TILES, reason="the C++ kernels are not built")
Timer = Callable[..., list[nn.Module]]


class Tiny(nn.Module):
    """One layer of each kind that has forms, one that has none, and one that is not called."""

    def __init__(self) -> None:
        super().__init__()
        self.up = layer(UpConv, 3, 16, "zeros")
        self.coded = layer(CodedConv, 4, 16, 16, seed=1)
        self.same = nn.Sequential(layer(nn.Conv2d, 16, 16, 3, padding=1, seed=2))
        self.last = layer(nn.Conv2d, 16, 3, 1, seed=3)
        self.idle = layer(UpConv, 3, 16, "zeros", seed=4)
        self.requires_grad_(False)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        return self.last(self.same(self.coded(self.up(x), code)))


LAYERS = ["up", "coded", "same.0"] if TILES else ["up", "coded"]


def given() -> tuple[Tensor, Tensor]:
    x = random(2, 3, 5, 6, dtype=torch.float32).contiguous(memory_format=torch.channels_last)
    return x, random(2, 4, dtype=torch.float32)


def run(network: nn.Module) -> Callable[[], Tensor]:
    inputs = given()
    return lambda: network(*inputs)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for each test."""
    monkeypatch.setenv("ZELLIGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def timer(monkeypatch: pytest.MonkeyPatch) -> Timer:
    """A clock that says how long a module of a class takes, others 1 ms; it returns the modules that were timed."""

    def set_to(**milliseconds: float) -> list[nn.Module]:
        timed: list[nn.Module] = []

        def milliseconds_of(form: nn.Module, inputs: tuple[Tensor, ...]) -> float:
            timed.append(form)
            return milliseconds.get(type(form).__name__, 1.0)

        monkeypatch.setattr(subject, "_milliseconds", milliseconds_of)
        return timed

    return set_to


def by_layer(choices: list[Choice]) -> dict[str, str]:
    return {choice.layer: choice.form for choice in choices}
