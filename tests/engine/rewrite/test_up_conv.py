"""Nearest x2 and a 3x3 convolution are one layer on the small map, to the last cell of every border."""

from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from zellige.engine.layers.convolutions import PaddedConv
from zellige.engine.rewrite.up_conv import PhaseUpConv, transposed_phases, up_conv
from zellige.errors import ShapeError

from .judge import SIDES, assert_exact, layer, random

FORMS: list[Literal["phases", "transposed"]] = ["phases", "transposed"]
MODES = ["zeros", "replicate", "reflect", "circular"]
each_form = pytest.mark.parametrize("form", FORMS)
each_mode = pytest.mark.parametrize("mode", MODES)


def up(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def eager(conv: nn.Module, x: Tensor) -> Tensor:
    return conv(up(x))


@each_form
@each_mode
@pytest.mark.parametrize("sides", SIDES)
def test_equals_up_sampling_and_convolution(form: str, mode: str, sides: tuple[int, int]) -> None:
    conv = layer(nn.Conv2d, 3, 5, 3, padding=1, padding_mode=mode)
    assert_exact(lambda conv: up_conv(conv, form), conv, eager, random(2, 3, *sides))


@each_form
@pytest.mark.parametrize("sides", [sides for sides in SIDES if min(sides) > 1])
def test_without_padding_a_row_less_on_every_side(form: str, sides: tuple[int, int]) -> None:
    conv = layer(nn.Conv2d, 3, 5, 3)
    assert_exact(lambda conv: up_conv(conv, form), conv, eager, random(2, 3, *sides))


@given(
    st.sampled_from(FORMS), st.sampled_from(MODES), st.integers(0, 3), st.integers(1, 9), st.integers(1, 9),
    st.integers(1, 9), st.integers(1, 9), st.booleans(), st.integers(0, 99),
)  # fmt: skip
def test_equals_for_any_sizes(
    form: str, mode: str, n: int, c: int, k: int, h: int, w: int, bias: bool, seed: int
) -> None:
    conv = layer(nn.Conv2d, c, k, 3, padding=1, padding_mode=mode, bias=bias, seed=seed)
    x = random(n, c, h, w, seed=seed)
    if n == 0:  # torch's transposed convolution and its padding by values refuse empty batches
        assert up_conv(layer(nn.Conv2d, c, k, 3, padding=1).double())(x).shape == (0, k, 2 * h, 2 * w)
        return
    assert_exact(lambda conv: up_conv(conv, form), conv, eager, x)


@each_form
@pytest.mark.parametrize("padding", ["zeros", "replicate", "none"])
def test_takes_the_padded_convolution_of_coco_gan(form: str, padding: str) -> None:
    conv = layer(PaddedConv, 3, 5, padding)
    assert_exact(lambda conv: up_conv(conv, form), conv, eager, random(2, 3, 4, 5))


@each_form
def test_spectral_norm_is_folded_in(form: str) -> None:
    conv = spectral_norm(layer(nn.Conv2d, 3, 5, 3, padding=1)).eval()
    assert_exact(lambda conv: up_conv(conv, form), conv, eager, random(2, 3, 4, 5))


@each_form
@each_mode
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_keeps_the_memory_format(form: str, mode: str, layout: torch.memory_format) -> None:
    module = up_conv(layer(nn.Conv2d, 3, 5, 3, padding=1, padding_mode=mode), form)
    x = random(2, 3, 4, 5, dtype=torch.float32).contiguous(memory_format=layout)
    assert module(x).is_contiguous(memory_format=layout)
    torch.testing.assert_close(module(x), module(x.contiguous()))


@each_form
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sums_of_narrow_weights_are_rounded_once(form: str, dtype: torch.dtype) -> None:
    conv = layer(nn.Conv2d, 16, 8, 3, padding=1).to(dtype)
    narrow, wide = up_conv(conv, form).conv.weight, up_conv(conv.float(), form).conv.weight
    assert narrow.dtype == dtype and torch.equal(narrow, wide.to(dtype))


def test_pixels_lie_in_their_phase_as_the_fused_kernel_reads_them() -> None:
    conv = layer(nn.Conv2d, 3, 5, 3, padding=1).double()
    module, x = up_conv(conv), random(2, 3, 4, 6)
    assert isinstance(module, PhaseUpConv)
    phases, y = module.phases(x), conv(up(x))
    assert phases.shape == (2, 20, 5, 7)
    for i in (0, 1):
        for j in (0, 1):
            p = 2 * i + j
            torch.testing.assert_close(phases[:, 5 * p : 5 * p + 5, i : i + 4, j : j + 6], y[:, :, i::2, j::2])


@each_form
@each_mode
@pytest.mark.parametrize("last", [False, True])
def test_can_be_exported_for_any_size(form: str, mode: str, last: bool) -> None:
    module = up_conv(layer(nn.Conv2d, 3, 5, 3, padding=1, padding_mode=mode), form)
    layout = torch.channels_last if last else torch.contiguous_format
    x, other = (random(*shape, dtype=torch.float32).to(memory_format=layout) for shape in ((2, 3, 4, 6), (5, 3, 7, 3)))
    sides = {0: Dim("n"), 2: Dim("h", min=2), 3: Dim("w", min=2)}
    program = torch.export.export(module, (x,), dynamic_shapes=(sides,))
    torch.testing.assert_close(program.module()(other), module(other))


@each_form
def test_compiles_in_one_graph(form: str) -> None:
    module = up_conv(layer(nn.Conv2d, 3, 5, 3, padding=1, padding_mode="replicate"), form)
    x = random(2, 3, 4, 6, dtype=torch.float32).contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(torch.compile(module, fullgraph=True, backend="aot_eager")(x), module(x))


@pytest.mark.parametrize(
    ("chosen", "sentence"),
    [
        ({"kernel_size": 5, "padding": 2}, "The convolution's kernel is 5x5; it must be 3x3."),
        ({"kernel_size": (3, 1)}, "The convolution's kernel is 3x1; it must be 3x3."),
        ({"stride": 2}, "The convolution's stride is (2, 2); it must be (1, 1)."),
        ({"dilation": 2}, "The convolution's dilation is (2, 2); it must be (1, 1)."),
        ({"groups": 2}, "The convolution's groups is 2; it must be 1."),
        ({"padding": 2}, "The convolution's padding is (2, 2); it must be 1 or 0 on all sides."),
        ({"padding": (1, 0)}, "The convolution's padding is (1, 0); it must be 1 or 0 on all sides."),
    ],
)
def test_refuses_other_convolutions(chosen: dict[str, object], sentence: str) -> None:
    with pytest.raises(ShapeError) as error:
        up_conv(nn.Conv2d(**({"in_channels": 4, "out_channels": 4, "kernel_size": 3} | chosen)))
    assert str(error.value) == sentence


def test_refuses_layers_that_compute_something_else() -> None:
    class Scaled(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    for other in (Scaled(3, 5, 3, padding=1), nn.ConvTranspose2d(3, 5, 3)):
        with pytest.raises(ShapeError) as error:
            up_conv(other)
        name = type(other).__name__
        assert str(error.value) == f"The layer is {name}; it must be nn.Conv2d, without a forward of its own."


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("sides", SIDES)
def test_four_phases_equal_a_transposed_convolution(bias: bool, sides: tuple[int, int]) -> None:
    conv = layer(nn.ConvTranspose2d, 3, 5, 4, 2, 1, bias=bias)
    assert_exact(transposed_phases, conv, lambda conv, x: conv(x), random(2, 3, *sides))


@pytest.mark.parametrize("sizes", [(3, 5, 3, 2, 1), (3, 5, 4, 1), (3, 5, 5, 2, 2, 1)])
def test_other_transposed_convolutions_are_refused(sizes: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="it must be 4x4, of stride 2 and padding 1, in one group"):
        transposed_phases(nn.ConvTranspose2d(*sizes))
