"""A 3x3 convolution by Winograd's tiles is the same layer, with what is done to the map in front of it."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.export import Dim
from torch.nn.utils.parametrizations import spectral_norm

from zellige.engine.layers.convolutions import CodedConv, PaddedConv, UpConv
from zellige.engine.rewrite.convolution import plain
from zellige.engine.rewrite.winograd import WinogradConv, winograd
from zellige.errors import ShapeError

from .judge import SIDES, assert_exact, layer, random

CODE = 4
PADDINGS = ["zeros", "replicate", "none"]
each_padding = pytest.mark.parametrize("padding", PADDINGS)


def call(conv: nn.Module, *inputs: Tensor) -> Tensor:
    return conv(*inputs)


def assert_equal(conv: nn.Module, *inputs: Tensor, **chosen: Any) -> None:
    """The trained layer is itself what is eager; of one with a map to change, the convolution alone is rewritten."""
    alone = plain if chosen else (lambda conv: conv)
    assert_exact(lambda conv: winograd(alone(conv), **chosen), conv, call, *inputs)


@each_padding
@pytest.mark.parametrize("sides", SIDES)
def test_equals_the_convolution(padding: str, sides: tuple[int, int]) -> None:
    if padding == "none":
        sides = (sides[0] + 2, sides[1] + 2)
    assert_equal(layer(PaddedConv, 3, 5, padding), random(2, 3, *sides))


@each_padding
@pytest.mark.parametrize("sides", SIDES)
def test_equals_up_sampling_and_convolution(padding: str, sides: tuple[int, int]) -> None:
    if padding == "none":
        sides = (sides[0] + 1, sides[1] + 1)
    assert_equal(layer(UpConv, 3, 5, padding), random(2, 3, *sides), upsample=True)


@pytest.mark.parametrize("spare", [1, 2, 3])
@pytest.mark.parametrize("sides", [(5, 5), (5, 8), (7, 6)])
def test_equals_with_spare_cells_cut_off(spare: int, sides: tuple[int, int]) -> None:
    conv = layer(UpConv, 3, 5, "none", spare=spare)
    assert_equal(conv, random(2, 3, *sides), upsample=True, spare=spare)


@pytest.mark.parametrize("sides", [sides for sides in SIDES if min(sides) > 1])
def test_equals_under_a_code(sides: tuple[int, int]) -> None:
    assert_equal(layer(CodedConv, CODE, 3, 5), random(2, 3, *sides), random(2, CODE), code=CODE)


@pytest.mark.parametrize("sides", [(1, 1), (1, 5), (4, 1)])
def test_a_code_needs_a_map_with_two_pixels_a_side(sides: tuple[int, int]) -> None:
    module = winograd(plain(layer(CodedConv, CODE, 3, 5)), code=CODE)
    x, code = random(2, 3, *sides, dtype=torch.float32), random(2, CODE, dtype=torch.float32)
    with pytest.raises(ShapeError) as error:
        module(x, code)
    allowed = "a map whose result has 2 pixels a side or more, for a bias of [2, 5, 3, 3]"
    assert str(error.value) == f"x is {list(x.shape)} float32; it must be {allowed}."


@given(
    st.sampled_from(PADDINGS), st.booleans(), st.integers(0, 3), st.integers(1, 20), st.integers(1, 40),
    st.integers(1, 9), st.integers(1, 9), st.booleans(), st.integers(0, 99),
)  # fmt: skip
def test_equals_for_any_sizes(
    padding: str, up: bool, n: int, c: int, k: int, h: int, w: int, bias: bool, seed: int
) -> None:
    least = 0 if padding != "none" else 1 if up else 2
    conv = layer(UpConv if up else PaddedConv, c, k, padding, bias=bias, seed=seed)
    x = random(n, c, h + least, w + least, seed=seed)
    if n == 0:  # torch's padding by values refuses empty batches
        sides = [(2 if up else 1) * side - (2 if padding == "none" else 0) for side in x.shape[2:]]
        made = winograd(plain(conv), upsample=up)(x.float())
        assert made.shape == (0, k, *sides)
        return
    assert_exact(lambda conv: winograd(plain(conv), upsample=up), conv, call, x)


@pytest.mark.parametrize("mode", ["zeros", "replicate"])
@pytest.mark.parametrize("padding", [1, "same"])
def test_takes_torchs_own_convolution(mode: str, padding: int | str) -> None:
    assert_equal(layer(nn.Conv2d, 3, 5, 3, padding=padding, padding_mode=mode), random(2, 3, 4, 5))


def test_the_mode_of_no_padding_does_not_matter() -> None:
    assert_equal(layer(nn.Conv2d, 3, 5, 3, padding_mode="reflect"), random(2, 3, 4, 5))


def test_spectral_norm_is_folded_in() -> None:
    assert_equal(spectral_norm(layer(nn.Conv2d, 3, 5, 3, padding=1)).eval(), random(2, 3, 4, 5))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_takes_either_memory_format_and_gives_channels_last(layout: torch.memory_format) -> None:
    conv = layer(nn.Conv2d, 3, 5, 3, padding=1)
    x = random(2, 3, 4, 5, dtype=torch.float32).contiguous(memory_format=layout)
    y = winograd(conv)(x)
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y, conv(x).detach())


@pytest.mark.parametrize("kind", ["plain", "up", "code"])
def test_bfloat16_is_nearly_as_exact_as_eager(kind: str) -> None:
    x, code = random(2, 48, 9, 9, dtype=torch.bfloat16), random(2, 32, dtype=torch.bfloat16)
    inputs: tuple[Tensor, ...] = (x, code) if kind == "code" else (x,)
    made = {"plain": PaddedConv, "up": UpConv, "code": CodedConv}[kind]
    sizes: tuple[object, ...] = (32, 48, 16) if kind == "code" else (48, 16, "zeros")
    chosen = {"plain": {}, "up": {"upsample": True}, "code": {"code": 32}}[kind]
    conv = layer(made, *sizes).bfloat16()
    eager = conv(*inputs).detach()
    actual = winograd(plain(conv), **chosen)(*inputs)
    exact = conv.double()(*(tensor.double() for tensor in inputs)).detach()
    assert actual.dtype == torch.bfloat16
    # The transformed map is rounded too, which by itself doubles the error; 2.1 to 2.5 times was seen.
    assert (actual - exact).square().mean() <= 9 * (eager - exact).square().mean()


@pytest.mark.parametrize("kind", ["plain", "up", "code"])
def test_can_be_exported_for_any_size(kind: str) -> None:
    module, inputs, others = example(kind)
    n = Dim("n")
    sides = ({0: n, 2: Dim("h", min=2), 3: Dim("w", min=2)}, {0: n})[: len(inputs)]
    program = torch.export.export(module, inputs, dynamic_shapes=sides)
    torch.testing.assert_close(program.module()(*others), module(*others))


@pytest.mark.parametrize("kind", ["plain", "up", "code"])
def test_compiles_in_one_graph(kind: str) -> None:
    module, inputs, _ = example(kind)
    torch.testing.assert_close(torch.compile(module, fullgraph=True, backend="aot_eager")(*inputs), module(*inputs))


@pytest.mark.parametrize("kind", ["plain", "up", "code"])
def test_inputs_stay_as_they_are(kind: str) -> None:
    module, inputs, _ = example(kind)
    copies = [tensor.clone() for tensor in inputs]
    module(*inputs)
    assert all(torch.equal(tensor, copy) for tensor, copy in zip(inputs, copies, strict=True))


def example(kind: str) -> tuple[WinogradConv, tuple[Tensor, ...], tuple[Tensor, ...]]:
    """A rewritten layer with two sets of inputs."""
    shapes = ((2, 3, 4, 6), (5, 3, 7, 3))
    x, other = (random(*shape, dtype=torch.float32).contiguous(memory_format=torch.channels_last) for shape in shapes)
    if kind == "code":
        code, another = (random(n, CODE, dtype=torch.float32) for n in (2, 5))
        return winograd(plain(layer(CodedConv, CODE, 3, 5)), code=CODE), (x, code), (other, another)
    up = kind == "up"
    return winograd(plain(layer(UpConv if up else PaddedConv, 3, 5, "zeros")), upsample=up), (x,), (other,)


@pytest.mark.parametrize(
    ("conv", "chosen", "sentence"),
    [
        (nn.Conv2d(4, 4, 5, padding=2), {}, "The convolution's kernel is 5x5; it must be 3x3."),
        (nn.Conv2d(4, 4, 3, 2), {}, "The convolution's stride is (2, 2); it must be (1, 1)."),
        (nn.Conv2d(4, 4, 3, dilation=2), {}, "The convolution's dilation is (2, 2); it must be (1, 1)."),
        (nn.Conv2d(4, 4, 3, groups=2), {}, "The convolution's groups is 2; it must be 1."),
        (nn.Conv2d(4, 4, 3, padding=2), {}, "The convolution's padding is (2, 2); it must be 1 or 0 on all sides."),
        (nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), {},
         "The convolution's padding is reflect; it must be zeros, replicate or none."),
        (nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"), {"upsample": True},
         "The convolution's padding is circular; it must be zeros, replicate or none."),
        (PaddedConv(4, 4, "zeros"), {"upsample": True, "spare": 1},
         "1 spare cells go with an unpadded convolution; this one is padded by zeros."),
        (PaddedConv(4, 4, "replicate"), {"code": 2},
         "A code needs a convolution that is padded with zeros; this one is not."),
        (PaddedConv(4, 4, "none"), {"code": 2},
         "A code needs a convolution that is padded with zeros; this one is not."),
        (PaddedConv(4, 4, "zeros"), {"code": 4}, "4 of 4 channels are constant; it must be 1 to 3."),
        (UpConv(4, 4, "zeros"), {}, "The layer is UpConv; it must be nn.Conv2d, without a forward of its own."),
    ],
)  # fmt: skip
def test_refuses_other_convolutions(conv: nn.Conv2d, chosen: dict[str, int], sentence: str) -> None:
    with pytest.raises(ShapeError) as error:
        winograd(conv, **chosen)
    assert str(error.value) == sentence
