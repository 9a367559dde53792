"""Scaled activations give what the textbook's weights of every sample give."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional as F

from zellige.engine.layers.modulated import modulated_conv
from zellige.errors import ShapeError

from ..rewrite.judge import random

each_choice = pytest.mark.parametrize(("demodulate", "upsample"), [(True, False), (False, False), (True, True)])


def textbook(x: Tensor, weight: Tensor, style: Tensor, demodulate: bool, upsample: bool) -> Tensor:
    """Weights of every sample, and as many groups."""
    weights = weight * style[:, None, :, None, None]  # [N, K, C, R, R]
    if demodulate:
        weights = weights / (weights.square().sum((2, 3, 4), keepdim=True) + 1e-8).sqrt()
    n = len(x)
    whole = x.flatten(0, 1)[None]
    if upsample:
        y = F.conv_transpose2d(whole, weights.transpose(1, 2).flatten(0, 1), stride=2, groups=n)
    else:
        y = F.conv2d(whole, weights.flatten(0, 1), padding=weight.shape[2] // 2, groups=n)
    return y[0].unflatten(0, (n, -1))


def assert_equal(x: Tensor, weight: Tensor, style: Tensor, demodulate: bool, upsample: bool) -> None:
    exact = textbook(x, weight, style, demodulate, upsample)
    actual = modulated_conv(x, weight, style, demodulate=demodulate, upsample=upsample)
    torch.testing.assert_close(actual, exact, rtol=1e-12, atol=1e-12 * max(1.0, exact.abs().max().item()))
    narrow = modulated_conv(x.float(), weight.float(), style.float(), demodulate=demodulate, upsample=upsample)
    torch.testing.assert_close(narrow, exact.float())


@each_choice
@pytest.mark.parametrize("side", [1, 3, 5])
@pytest.mark.parametrize("sides", [(1, 1), (2, 1), (4, 4), (5, 7)])
def test_equals_the_textbook(demodulate: bool, upsample: bool, side: int, sides: tuple[int, int]) -> None:
    weight = 0.3 * random(6, 4, side, side)
    assert_equal(random(3, 4, *sides), weight, 1 + random(3, 4, seed=2), demodulate, upsample)


@given(
    st.integers(1, 4), st.integers(1, 8), st.integers(1, 8), st.integers(1, 9), st.integers(1, 9),
    st.booleans(), st.booleans(), st.integers(0, 99),
)  # fmt: skip
def test_equals_for_any_sizes(
    n: int, c: int, k: int, h: int, w: int, demodulate: bool, upsample: bool, seed: int
) -> None:
    weight = 0.3 * random(k, c, 3, 3, seed=seed)
    assert_equal(random(n, c, h, w, seed=seed), weight, 1 + random(n, c, seed=seed + 1), demodulate, upsample)


def test_demodulated_weights_have_norm_one() -> None:
    x, weight, style = random(64, 4, 1, 1), random(6, 4, 1, 1), 1 + random(4)[None]
    y = modulated_conv(x, weight, style.expand(64, -1))
    matrix = torch.linalg.lstsq(x[:, :, 0, 0], y[:, :, 0, 0]).solution  # [C, K]
    torch.testing.assert_close(matrix.square().sum(0), torch.ones(6, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_maps_are_nearly_as_exact_as_the_textbook(dtype: torch.dtype) -> None:
    x, weight, style = random(3, 16, 5, 5, dtype=dtype), random(8, 16, 3, 3, dtype=dtype), 1 + random(3, 16)
    style = style.to(dtype)
    exact = textbook(x.double(), weight.double(), style.double(), True, False)
    eager = textbook(x, weight, style, True, False)
    actual = modulated_conv(x, weight, style)
    assert actual.dtype == dtype
    assert (actual - exact).abs().max() <= 2 * (eager - exact).abs().max()
    assert torch.equal(modulated_conv(x, weight, style.float()), actual)


@pytest.mark.parametrize("upsample", [False, True])
def test_channels_last_stays_channels_last(upsample: bool) -> None:
    x = random(2, 4, 5, 6, dtype=torch.float32).contiguous(memory_format=torch.channels_last)
    weight, style = (random(*shape, dtype=torch.float32) for shape in ((6, 4, 3, 3), (2, 4)))
    assert modulated_conv(x, weight, style, upsample=upsample).is_contiguous(memory_format=torch.channels_last)


def test_an_empty_batch() -> None:
    assert modulated_conv(torch.empty(0, 4, 5, 6), torch.ones(6, 4, 3, 3), torch.empty(0, 4)).shape == (0, 6, 5, 6)


def test_has_the_textbooks_gradients() -> None:
    arguments = [random(2, 3, 4, 4), 0.3 * random(4, 3, 3, 3), 1 + random(2, 3)]
    for tensor in arguments:
        tensor.requires_grad_()
    weights = random(2, 4, 4, 4, seed=7)
    ours = torch.autograd.grad((modulated_conv(*arguments) * weights).sum(), arguments)
    textbooks = torch.autograd.grad((textbook(*arguments, True, False) * weights).sum(), arguments)
    for actual, expected in zip(ours, textbooks, strict=True):
        torch.testing.assert_close(actual, expected)


@each_choice
def test_can_be_exported_for_any_batch_and_compiled(demodulate: bool, upsample: bool) -> None:
    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(random(6, 4, 3, 3, dtype=torch.float32))

        def forward(self, x: Tensor, style: Tensor) -> Tensor:
            return modulated_conv(x, self.weight, style, demodulate=demodulate, upsample=upsample)

    module, n = Layer(), Dim("n")
    inputs, others = ((random(k, 4, 5, 6, dtype=torch.float32), random(k, 4, dtype=torch.float32)) for k in (2, 5))
    program = torch.export.export(module, inputs, dynamic_shapes=({0: n}, {0: n}))
    torch.testing.assert_close(program.module()(*others), module(*others))
    torch.testing.assert_close(torch.compile(module, fullgraph=True, backend="aot_eager")(*inputs), module(*inputs))


@pytest.mark.parametrize(
    ("x", "weight", "style", "sentence"),
    [
        ((4, 5, 6), (6, 4, 3, 3), (2, 4), "x is [4, 5, 6] float32; it must be [N, C, H, W], float32, float16, bfloat16"
         " or float64."),
        ((2, 4, 5, 6), (6, 4, 2, 2), (2, 4), "weight is [6, 4, 2, 2]; it must be [K, C, R, R] of odd R."),
        ((2, 4, 5, 6), (6, 3, 3, 3), (2, 4), "weight is [6, 3, 3, 3] float32; it must be [6, 4, 3, 3] float32 for x of"
         " shape [2, 4, 5, 6]."),
        ((2, 4, 5, 6), (6, 4, 3, 3), (1, 4), "style is [1, 4] float32; it must be [2, 4] float32 for x of shape"
         " [2, 4, 5, 6]."),
    ],
)  # fmt: skip
def test_refuses_other_shapes(
    x: tuple[int, ...], weight: tuple[int, ...], style: tuple[int, ...], sentence: str
) -> None:
    with pytest.raises(ShapeError) as error:
        modulated_conv(torch.ones(x), torch.ones(weight), torch.ones(style))
    assert str(error.value) == sentence
