from random import Random

import pytest
import torch

from zellige.kernels import affine_relu

from .judge import LAYOUTS, assert_same_bits, scattered

BACKENDS = ["reference", "native", "triton"]
FORMS = {"pixel": (1, 1), "width": (1, 37), "height": (21, 1), "map": (21, 37)}  # sides of factors, of a map of 21x37
both = pytest.mark.parametrize("upsample", [False, True])
backends = pytest.mark.parametrize("backend", BACKENDS)


@backends
@both
def test_nan_stays_nan_under_relu(upsample, backend):
    x = torch.tensor([float("nan"), float("inf"), -float("inf"), -0.0]).view(1, 1, 2, 2)
    y = affine_relu(x, torch.tensor([[2.0]]), torch.tensor([[0.0]]), upsample, backend=backend)
    expected = x.clamp(min=0)
    if upsample:
        expected = expected.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.equal(y.nan_to_num(nan=-1.0), expected.nan_to_num(nan=-1.0))


def test_every_bfloat16_is_rounded_as_torch_does():
    x = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(torch.bfloat16).view(1, 1, 256, 256)
    factors = torch.full((1, 1), 1.0 + 2**-9), torch.full((1, 1), 1e-30)
    assert_same_bits(affine_relu(x, *factors, backend="native"), affine_relu(x, *factors, backend="reference"))


@backends
@both
@pytest.mark.parametrize("layout", ["contiguous", "channels-last"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("sides", FORMS.values(), ids=FORMS)
def test_factors_that_are_the_same_everywhere_give_the_bits_of_one_a_channel(sides, dtype, layout, upsample, backend):
    h, w = 5, 37
    x, factors = LAYOUTS[layout](torch.randn(2, 18, h, w).to(dtype)), torch.randn(2, 2, 18)
    sides = tuple(1 if side == 1 else own for side, own in zip(sides, (h, w), strict=True))
    y = affine_relu(x, *(t[:, :, None, None].expand(-1, -1, *sides) for t in factors), upsample, backend=backend)
    assert_same_bits(y, affine_relu(x, *factors, upsample, backend=backend))


@pytest.mark.parametrize("layout", ["contiguous", "channels-last"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("sides", FORMS.values(), ids=FORMS)
def test_factors_may_lie_in_memory_in_any_way_and_be_rounded(sides, dtype, layout):
    x, factors = LAYOUTS[layout](torch.randn(2, 3, 21, 37).to(dtype)), torch.randn(2, 2, 3, *sides).to(dtype)
    y = affine_relu(x, *factors.float(), backend="reference")
    for backend in ("native", "triton"):
        for given in (factors, factors.float()):
            assert_same_bits(affine_relu(x, *(scattered(t, Random(4)) for t in given), backend=backend), y)


@both
@pytest.mark.parametrize("layout", ["contiguous", "channels-last"])
@pytest.mark.parametrize(("rows", "columns"), [(1, 9), (3, 700), (6, 700), (11, 700), (7, 2100), (5, 1)])
def test_lines_that_are_computed_together_have_the_bits_of_lines_alone(rows, columns, layout, upsample):
    """Lines longer than 2048 values, in groups of four and what is left of them, behind the ends of samples."""
    x, factors = LAYOUTS[layout](torch.randn(3, 5, rows, columns).bfloat16()), torch.randn(2, 3, 5, 1, columns)
    y = affine_relu(x, *factors, upsample, backend="native")
    assert_same_bits(y, affine_relu(x, *factors, upsample, backend="reference"))


def test_every_nan_among_factors_of_places_stays_one():
    """bfloat16 has none with the high bits 0: rounded like a number it would be infinity, or zero."""
    bits = torch.tensor([0x7F800001, 0x7FFFFFFF, -1, -0x7FFFFF], dtype=torch.int32)
    nans = bits.view(torch.float32).repeat(12).view(1, 2, 1, 24)
    x, ones = torch.ones(1, 2, 5, 24, dtype=torch.bfloat16), torch.ones(1, 2, 1, 24)
    for backend in BACKENDS[:2]:
        for factors in ((nans, ones), (ones, nans)):
            assert affine_relu(x, *factors, backend=backend).isnan().all()
