"""Nearest x2 and a 1x1 convolution commute."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from zellige.engine.rewrite.up_pointwise import up_pointwise
from zellige.errors import ShapeError

from .judge import SIDES, assert_exact, layer, random


def eager(conv: nn.Module, x: Tensor) -> Tensor:
    return conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


@pytest.mark.parametrize("sides", SIDES)
@pytest.mark.parametrize("bias", [True, False])
def test_equals_up_sampling_and_convolution(sides: tuple[int, int], bias: bool) -> None:
    assert_exact(up_pointwise, layer(nn.Conv2d, 3, 5, 1, bias=bias), eager, random(2, 3, *sides))


@given(st.integers(0, 3), st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.integers(1, 9))
def test_equals_for_any_sizes(n: int, c: int, k: int, h: int, w: int) -> None:
    assert_exact(up_pointwise, layer(nn.Conv2d, c, k, 1), eager, random(n, c, h, w))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_keeps_the_memory_format(layout: torch.memory_format) -> None:
    x = random(2, 3, 4, 5, dtype=torch.float32).contiguous(memory_format=layout)
    assert up_pointwise(layer(nn.Conv2d, 3, 5, 1))(x).is_contiguous(memory_format=layout)


def test_can_be_exported_and_compiled() -> None:
    module, x = up_pointwise(layer(nn.Conv2d, 3, 5, 1)), random(2, 3, 4, 5, dtype=torch.float32)
    torch.testing.assert_close(torch.export.export(module, (x,)).module()(x), module(x))
    torch.testing.assert_close(torch.compile(module, fullgraph=True, backend="aot_eager")(x), module(x))


@pytest.mark.parametrize(
    ("conv", "sentence"),
    [
        (nn.Conv2d(3, 5, 3, padding=1), "The convolution's kernel is 3x3; it must be 1x1."),
        (nn.Conv2d(3, 5, 1, 2), "The convolution's stride is (2, 2); it must be (1, 1)."),
        (nn.Conv2d(3, 5, 1, padding=1), "The convolution's padding is (1, 1); it must be 0 on all sides."),
    ],
)
def test_refuses_other_convolutions(conv: nn.Conv2d, sentence: str) -> None:
    with pytest.raises(ShapeError) as error:
        up_pointwise(conv)
    assert str(error.value) == sentence
