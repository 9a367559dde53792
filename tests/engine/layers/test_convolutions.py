"""Convolutions with what is done to the map in front of them equal the plain composition."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zellige.engine.layers.convolutions import CodedConv, PaddedConv, UpConv, trim

from ..systems.onegan.tiny_onegan import normal

PADDINGS = ["zeros", "replicate", "none"]
each_padding = pytest.mark.parametrize("padding", PADDINGS)
each_layout = pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])


def composed(conv: nn.Conv2d, x: Tensor, padding: str) -> Tensor:
    if padding != "none":
        x = F.pad(x, (1, 1, 1, 1), mode="constant" if padding == "zeros" else padding)
    return F.conv2d(x, conv.weight, conv.bias)


@each_padding
@pytest.mark.parametrize("bias", [True, False])
def test_a_padded_convolution(padding: Any, bias: bool) -> None:
    conv, x = PaddedConv(3, 5, padding, bias=bias), normal(2, 3, 5, 6)
    torch.testing.assert_close(conv(x), composed(conv, x, padding))
    assert conv(x).shape == ((2, 5, 3, 4) if padding == "none" else (2, 5, 5, 6))


@each_padding
@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
@pytest.mark.parametrize("spare", [0, 1, 2])
@pytest.mark.parametrize("bias", [True, False])
def test_an_up_convolution(padding: Any, mode: Any, spare: int, bias: bool) -> None:
    conv, x = UpConv(3, 5, padding, bias=bias, mode=mode, spare=spare), normal(2, 3, 5, 6)
    large = F.interpolate(x, scale_factor=2, mode=mode)[:, :, spare : 10 - spare, spare : 12 - spare]
    torch.testing.assert_close(conv(x), composed(conv, large, padding))


@each_layout
@pytest.mark.parametrize("bias", [True, False])
def test_a_convolution_under_a_code_which_comes_first(layout: torch.memory_format, bias: bool) -> None:
    conv, x, code = CodedConv(4, 3, 5, bias=bias), normal(2, 3, 5, 6).contiguous(memory_format=layout), normal(2, 4)
    joined = torch.cat([code[:, :, None, None].expand(2, 4, 5, 6), x], dim=1)
    torch.testing.assert_close(conv(x, code), composed(conv, joined, "zeros"))


def test_a_code_takes_the_dtype_of_the_map() -> None:
    conv, x, code = CodedConv(4, 3, 5).bfloat16(), normal(2, 3, 5, 6).bfloat16(), normal(2, 4)
    assert torch.equal(conv(x, code), conv(x, code.bfloat16()))


@pytest.mark.parametrize(
    "conv",
    [PaddedConv(3, 5, "zeros"), PaddedConv(3, 5, "replicate"), UpConv(3, 5, "zeros"), UpConv(3, 5, "none", spare=1)],
    ids=str,
)
def test_channels_last_maps_stay_so(conv: nn.Conv2d) -> None:
    conv = conv.to(memory_format=torch.channels_last)
    x = normal(2, 3, 5, 6).contiguous(memory_format=torch.channels_last)
    assert conv(x).is_contiguous(memory_format=torch.channels_last)


def test_a_code_leaves_a_map_channels_last() -> None:
    conv = CodedConv(4, 3, 5).to(memory_format=torch.channels_last)
    x = normal(2, 3, 5, 6).contiguous(memory_format=torch.channels_last)
    assert conv(x, normal(2, 4)).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("conv", [UpConv(3, 5, "replicate"), CodedConv(4, 3, 5)], ids=["up", "coded"])
def test_the_weights_are_those_of_a_convolution(conv: nn.Conv2d) -> None:
    inputs = 7 if isinstance(conv, CodedConv) else 3
    assert {name: tuple(tensor.shape) for name, tensor in conv.state_dict().items()} == {
        "weight": (5, inputs, 3, 3), "bias": (5,),
    }  # fmt: skip


@pytest.mark.parametrize("conv", [PaddedConv(3, 5, "replicate"), UpConv(3, 5, "replicate")], ids=["padded", "up"])
def test_replicated_borders_stay_narrow_under_autocast(conv: nn.Conv2d) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert conv(normal(2, 3, 5, 6).bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("kind", ["up", "coded"])
def test_gradients_are_those_of_the_composition(kind: str) -> None:
    x, code = normal(1, 2, 2, 3, dtype=torch.float64).requires_grad_(), normal(1, 3, dtype=torch.float64)
    if kind == "up":
        up = UpConv(2, 1, "replicate").double()
        assert torch.autograd.gradcheck(up, x)
    else:
        coded = CodedConv(3, 2, 1).double()
        assert torch.autograd.gradcheck(coded, (x, code.requires_grad_()))


@pytest.mark.parametrize("cells", [0, 1, 2])
def test_cells_are_cut_off_every_side(cells: int) -> None:
    x = normal(1, 1, 5, 6)
    padded = F.pad(x, (cells,) * 4, value=9.0)
    assert torch.equal(trim(padded, cells), x)
