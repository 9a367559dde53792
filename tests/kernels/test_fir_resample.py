import pytest
import torch
from torch import Tensor

from zellige.kernels import fir_resample

from . import textbook
from .judge import assert_same_bits

BACKENDS = ["reference", "native", "triton"]
both = pytest.mark.parametrize("up", [False, True])
backends = pytest.mark.parametrize("backend", BACKENDS)


def argument(small: tuple[int, ...], up: bool, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    n, c, h, w = small
    shape = small if up else (n, c, 2 * h, 2 * w)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@backends
def test_a_constant_stays_inside_and_fades_at_the_border(backend):
    y = fir_resample(torch.ones(1, 1, 3, 3), True, backend=backend)
    assert (y[:, :, 1:-1, 1:-1] == 1).all() and y[0, 0, 0].tolist() == [0.5625, *[0.75] * 4, 0.5625]
    y = fir_resample(torch.ones(1, 1, 6, 6), False, backend=backend)
    assert y[0, 0].tolist() == [
        [0.765625, 0.875, 0.765625],
        [0.875, 1.0, 0.875],
        [0.765625, 0.875, 0.765625],
    ]


@backends
def test_up_is_four_times_the_adjoint_of_down(backend):
    small, large = argument((2, 3, 5, 7), True), argument((2, 3, 5, 7), False, seed=1)
    through_up = (fir_resample(small, True, backend=backend).double() * large.double()).sum()
    through_down = (small.double() * fir_resample(large, False, backend=backend).double()).sum()
    torch.testing.assert_close(through_up, 4 * through_down, rtol=1e-5, atol=1e-5)


@backends
@both
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), -0.0, 3e38])
def test_special_values_reach_their_neighbours_only(value, up, backend):
    x = argument((1, 2, 6, 6), up)
    x[0, 0, 0, 3] = value
    y = fir_resample(x, up, backend=backend)
    assert_same_bits(y, fir_resample(x, up, backend="reference"))
    assert y.isfinite().sum() == textbook.fir_resample(x.double(), up).isfinite().sum()
