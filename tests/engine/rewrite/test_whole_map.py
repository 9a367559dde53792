"""A convolution that covers its whole map, or makes one of a single pixel, is a product with a matrix."""

from unittest import mock

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.nn.utils.parametrizations import spectral_norm

from zellige.engine.layers.batch_invariance import BatchInvariantLinear
from zellige.engine.rewrite.whole_map import whole_map
from zellige.errors import ShapeError

from .judge import assert_exact, layer, random

Kind = type[nn.Conv2d] | type[nn.ConvTranspose2d]
each_kind = pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
each_layout = pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])


def call(conv: nn.Module, x: Tensor) -> Tensor:
    y: Tensor = conv(x)
    return y


def whole(kind: Kind, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """A batch of maps that a kernel covers, or of single pixels: N, C, R, S."""
    return random(*(shape if kind is nn.Conv2d else (*shape[:2], 1, 1)), dtype=dtype)


@each_kind
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("sides", [(4, 4), (4, 6), (7, 5)])
def test_equals_the_layer(kind: Kind, sides: tuple[int, int], bias: bool) -> None:
    conv, x = layer(kind, 3, 5, sides, bias=bias), whole(kind, 2, 3, *sides)
    assert_exact(whole_map, conv, call, x)
    with mock.patch.object(BatchInvariantLinear, "multiply", wraps=BatchInvariantLinear.multiply) as product:
        whole_map(conv)(x.float())
    assert product.call_count == 1


@each_kind
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("sides", [(4, 5), (6, 4), (7, 9)])
def test_maps_of_other_sides_go_through_the_convolution(kind: Kind, sides: tuple[int, int], bias: bool) -> None:
    assert_exact(whole_map, layer(kind, 3, 5, 4, bias=bias), call, random(2, 3, *sides))


@each_kind
def test_spectral_norm_is_folded_in(kind: Kind) -> None:
    assert_exact(whole_map, spectral_norm(layer(kind, 3, 5, 4)).eval(), call, whole(kind, 2, 3, 4, 4))


@each_kind
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_an_image_has_the_same_bits_in_any_batch(kind: Kind, dtype: torch.dtype) -> None:
    module = whole_map(layer(kind, 40, 24, 4).to(dtype))
    x = whole(kind, 50, 40, 4, 4, dtype=dtype)
    together = module(x)
    for count in (1, 2, 15, 16, 17, 33):
        assert torch.equal(module(x[:count]), together[:count])
    assert torch.equal(torch.cat([module(one) for one in x.split(1)]), together)


@each_kind
@each_layout
@pytest.mark.parametrize("sides", [None, (6, 5)])
def test_keeps_the_memory_format(kind: Kind, layout: torch.memory_format, sides: tuple[int, int] | None) -> None:
    conv = layer(kind, 3, 5, 4).to(memory_format=layout)  # whose format a single pixel takes
    x = whole(kind, 2, 3, 4, 4) if sides is None else random(2, 3, *sides)
    x = x.float().contiguous(memory_format=layout)
    y = whole_map(conv)(x)
    assert y.is_contiguous(memory_format=layout)
    torch.testing.assert_close(y, conv(x).detach())


@each_kind
def test_an_empty_batch_stays_empty(kind: Kind) -> None:
    y = whole_map(layer(kind, 3, 5, 4))(whole(kind, 0, 3, 4, 4, dtype=torch.float32))
    assert y.shape == (0, 5, *((1, 1) if kind is nn.Conv2d else (4, 4)))


@each_kind
def test_bfloat16_is_as_exact_as_eager(kind: Kind) -> None:
    conv, x = layer(kind, 48, 32, 4).bfloat16(), whole(kind, 20, 48, 4, 4, dtype=torch.bfloat16)
    eager, actual = conv(x).detach(), whole_map(conv)(x)
    exact = conv.double()(x.double()).detach()
    assert actual.dtype == torch.bfloat16
    assert (actual - exact).square().mean() <= 1.1 * (eager - exact).square().mean()


@each_kind
def test_can_be_exported_for_any_batch(kind: Kind) -> None:
    module = whole_map(layer(kind, 3, 5, 4))
    x, other = (whole(kind, n, 3, 4, 4, dtype=torch.float32) for n in (2, 5))
    program = torch.export.export(module, (x,), dynamic_shapes=({0: Dim("n")},))
    torch.testing.assert_close(program.module()(other), module(other))


@each_kind
def test_compiles_in_one_graph(kind: Kind) -> None:
    module, x = whole_map(layer(kind, 3, 5, 4)), whole(kind, 2, 3, 4, 4, dtype=torch.float32)
    torch.testing.assert_close(torch.compile(module, fullgraph=True, backend="aot_eager")(x), module(x))


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, (4, 3)), nn.Conv2d(3, 4, 4, 2), nn.Conv2d(3, 4, 4, padding=1),
        nn.Conv2d(4, 4, 4, groups=2), nn.Conv2d(3, 4, 4, dilation=2), nn.ConvTranspose2d(3, 4, 3),
        nn.ConvTranspose2d(3, 4, 4, 2), nn.ConvTranspose2d(3, 4, 4, padding=1), nn.ConvTranspose2d(4, 4, 4, groups=2),
        nn.ConvTranspose2d(3, 4, 4, dilation=2),
    ],
    ids=str,
)  # fmt: skip
def test_refuses_other_convolutions(conv: nn.Conv2d | nn.ConvTranspose2d) -> None:
    with pytest.raises(ShapeError) as error:
        whole_map(conv)
    assert str(error.value) == f"The layer is {conv}; it must be unpadded, of stride 1, in one group and at least 4x4."


def test_refuses_what_is_no_convolution_of_torch() -> None:
    with pytest.raises(ShapeError) as error:
        whole_map(nn.Linear(3, 4))
    allowed = "nn.Conv2d or nn.ConvTranspose2d, without a forward of its own"
    assert str(error.value) == f"The layer is Linear; it must be {allowed}."
