"""Constant channels of a convolution are vectors by place, at every border and on maps too narrow to have a middle."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.export import Dim

from zellige.engine.layers.convolutions import PaddedConv
from zellige.engine.rewrite.constant_channels import ConstantChannelsConv, constant_channels
from zellige.errors import ShapeError

from .judge import SIDES, assert_exact, layer, random

MODES = ["zeros", "replicate", "reflect", "circular"]


def joined(x: Tensor, code: Tensor, first: bool) -> Tensor:
    tiles = code[:, :, None, None].expand(-1, -1, *x.shape[2:])
    return torch.cat([tiles, x] if first else [x, tiles], dim=1)


def assert_equal(conv: nn.Module, x: Tensor, code: Tensor, first: bool = True) -> None:
    assert_exact(
        lambda conv: constant_channels(conv, code.shape[1], first=first),
        conv,
        lambda conv, x, code: conv(joined(x, code, first)),
        x,
        code,
    )


@pytest.mark.parametrize("sides", SIDES)
@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("first", [True, False])
def test_equals_the_convolution_of_all_channels(sides: tuple[int, int], kernel: int, first: bool) -> None:
    conv = layer(nn.Conv2d, 7, 5, kernel, padding=kernel // 2)
    assert_equal(conv, random(2, 3, *sides), random(2, 4), first)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("first", [True, False])
def test_equals_with_every_padding(mode: str, kernel: int, first: bool) -> None:
    conv = layer(nn.Conv2d, 7, 5, kernel, padding=kernel // 2, padding_mode=mode)
    assert_equal(conv, random(2, 3, 6, 7), random(2, 4), first)


@pytest.mark.parametrize("kernel", [3, 5])
def test_equals_without_padding(kernel: int) -> None:
    assert_equal(layer(nn.Conv2d, 7, 5, kernel), random(2, 3, 6, 5), random(2, 4))


@given(
    st.integers(0, 3), st.integers(1, 6), st.integers(1, 6), st.integers(1, 8), st.integers(1, 9), st.integers(1, 9),
    st.sampled_from([1, 3, 5, 7]), st.booleans(), st.booleans(), st.integers(0, 99),
)  # fmt: skip
def test_equals_for_any_sizes(
    n: int, c: int, constants: int, k: int, h: int, w: int, kernel: int, first: bool, bias: bool, seed: int
) -> None:
    conv = layer(nn.Conv2d, c + constants, k, kernel, padding=kernel // 2, bias=bias, seed=seed)
    if n == 0:
        assert constant_channels(conv, constants)(torch.empty(0, c, h, w), torch.empty(0, constants)).numel() == 0
        return
    assert_equal(conv, random(n, c, h, w, seed=seed), random(n, constants, seed=seed + 1), first)


@pytest.mark.parametrize("padding", ["zeros", "replicate", "none"])
def test_takes_the_padded_convolution_of_coco_gan(padding: str) -> None:
    assert_equal(layer(PaddedConv, 7, 5, padding), random(2, 3, 4, 5), random(2, 4))


def test_nine_vectors_are_the_bias_of_a_map() -> None:
    conv = layer(nn.Conv2d, 7, 5, 3, padding=1).double()
    x, code = random(2, 3, 5, 6), random(2, 4)
    module = constant_channels(conv, 4)
    vectors = module.border_bias(code)
    assert vectors.shape == (2, 5, 3, 3)
    rows, columns = torch.tensor([0, 1, 1, 1, 2]), torch.tensor([0, 1, 1, 1, 1, 2])
    torch.testing.assert_close(module.real(x) + vectors[:, :, rows[:, None], columns], conv(joined(x, code, True)))


def test_one_vector_for_all_pixels_is_wrong_at_the_border() -> None:
    conv = layer(nn.Conv2d, 7, 5, 3, padding=1).double()
    x, code = random(2, 3, 5, 6), random(2, 4)
    module = constant_channels(conv, 4)
    error = module.real(x) + module.border_bias(code)[:, :, 1:2, 1:2] - conv(joined(x, code, True))
    torch.testing.assert_close(error[:, :, 1:-1, 1:-1], torch.zeros(2, 5, 3, 4, dtype=torch.float64))
    assert error.abs().max() > 0.5


@pytest.mark.parametrize("mode", [*MODES[1:], "none"])
def test_the_vectors_are_equal_where_constants_go_on_beyond_the_border(mode: str) -> None:
    chosen = {} if mode == "none" else {"padding": 1, "padding_mode": mode}
    vectors = constant_channels(layer(nn.Conv2d, 7, 5, 3, **chosen), 4).border_bias(torch.randn(2, 4))
    assert vectors.shape == (2, 5, 3, 3) and torch.equal(vectors, vectors[:, :, 1:2, 1:2].expand_as(vectors))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_keeps_the_memory_format(mode: str, layout: torch.memory_format) -> None:
    module = constant_channels(layer(nn.Conv2d, 7, 5, 3, padding=1, padding_mode=mode), 4)
    x, code = (random(*shape, dtype=torch.float32) for shape in ((2, 3, 4, 5), (2, 4)))
    y = module(x.contiguous(memory_format=layout), code)
    assert y.is_contiguous(memory_format=layout)
    torch.testing.assert_close(y, module(x, code))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_results_are_nearly_as_exact_as_eager(dtype: torch.dtype) -> None:
    conv = layer(nn.Conv2d, 48, 16, 3, padding=1).to(dtype)
    x, code = random(2, 16, 9, 9, dtype=dtype), random(2, 32)
    narrow = joined(x, code.to(dtype), True)
    eager, exact = conv(narrow).detach(), conv.double()(narrow.double()).detach()
    actual = constant_channels(conv.to(dtype), 32)(x, code)
    assert actual.dtype == dtype
    # Three roundings instead of one; up to 2.3 times eager's error was seen with 20 seeds.
    assert (actual - exact).abs().max() <= 3 * (eager - exact).abs().max()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("mode", MODES)
def test_vectors_of_narrow_layers_are_float32(mode: str, dtype: torch.dtype) -> None:
    conv = layer(nn.Conv2d, 7, 5, 3, padding=1, padding_mode=mode).to(dtype)
    vectors = constant_channels(conv, 4).border_bias(random(2, 4))
    assert vectors.dtype == torch.float32
    torch.testing.assert_close(vectors, constant_channels(conv.float(), 4).border_bias(random(2, 4)))


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_can_be_exported_for_any_size(mode: str, last: bool) -> None:
    module = constant_channels(layer(nn.Conv2d, 7, 5, 3, padding=1, padding_mode=mode), 4)
    layout = torch.channels_last if last else torch.contiguous_format
    shapes = ((2, 3, 4, 6), (5, 3, 7, 3))
    x, other = (random(*shape, dtype=torch.float32).to(memory_format=layout) for shape in shapes)
    code, another = (random(n, 4, dtype=torch.float32) for n in (2, 5))
    n = Dim("n")
    sides = ({0: n, 2: Dim("h", min=3), 3: Dim("w", min=3)}, {0: n})
    program = torch.export.export(module, (x, code), dynamic_shapes=sides)
    torch.testing.assert_close(program.module()(other, another), module(other, another))


@pytest.mark.parametrize("sides", [(1, 1), (2, 5), (4, 6)])
def test_compiles_in_one_graph(sides: tuple[int, int]) -> None:
    module = constant_channels(layer(nn.Conv2d, 7, 5, 3, padding=1), 4)
    x, code = random(2, 3, *sides, dtype=torch.float32), random(2, 4, dtype=torch.float32)
    torch.testing.assert_close(torch.compile(module, fullgraph=True, backend="aot_eager")(x, code), module(x, code))


def test_inputs_stay_as_they_are() -> None:
    module: ConstantChannelsConv = constant_channels(layer(nn.Conv2d, 7, 5, 1), 4)
    x, code = random(2, 3, 4, 5, dtype=torch.float32), random(2, 4, dtype=torch.float32)
    copies = x.clone(), code.clone()
    module(x, code)
    assert torch.equal(x, copies[0]) and torch.equal(code, copies[1])


@pytest.mark.parametrize(
    ("conv", "constants", "sentence"),
    [
        (nn.Conv2d(7, 5, 4), 4, "The convolution's kernel is 4x4; it must be a square of odd side."),
        (nn.Conv2d(8, 4, 3, 2), 4, "The convolution's stride is (2, 2); it must be (1, 1)."),
        (nn.Conv2d(8, 4, 5, padding=1), 4, "The convolution's padding is (1, 1); it must be 2 or 0 on all sides."),
        (nn.Conv2d(8, 4, 3, groups=4), 4, "The convolution's groups is 4; it must be 1."),
        (nn.Conv2d(7, 5, 3), 7, "7 of 7 channels are constant; it must be 1 to 6."),
        (nn.Conv2d(7, 5, 3), 0, "0 of 7 channels are constant; it must be 1 to 6."),
    ],
)
def test_refuses_other_convolutions(conv: nn.Conv2d, constants: int, sentence: str) -> None:
    with pytest.raises(ShapeError) as error:
        constant_channels(conv, constants)
    assert str(error.value) == sentence
