import pytest
import torch
from torch import Tensor

from zellige.kernels import glu_layer_norm

from . import textbook

BACKENDS = ["reference", "native", "triton"]
backends = pytest.mark.parametrize("backend", BACKENDS)


def arguments(shape: tuple[int, ...], dtype: torch.dtype = torch.float32, seed: int = 0) -> tuple[Tensor, ...]:
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=random).to(dtype)
    return x, *(torch.randn(shape[1] // 2, generator=random) for _ in range(2))


def exact(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return textbook.glu_layer_norm(x.double(), weight.double(), bias.double())


@backends
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_a_mean_far_above_the_deviation_costs_no_precision(memory_format, backend):
    x, weight, bias = arguments((2, 16, 33, 35))
    x[:, :8] += 1000
    x = x.contiguous(memory_format=memory_format)
    y = glu_layer_norm(x, weight, bias, backend=backend)
    torch.testing.assert_close(y, exact(x, weight, bias).float())


@backends
def test_first_values_far_from_the_rest_cost_no_precision(backend):
    x, weight, bias = arguments((2, 4, 64, 64))
    x[:, 0, 0, :16] = 1e4
    y = glu_layer_norm(x, weight, bias, backend=backend)
    torch.testing.assert_close(y, exact(x, weight, bias).float())


@backends
def test_a_constant_sample_gives_the_bias(backend):
    x, weight, bias = arguments((1, 6, 9, 9))
    x[:, :3] = 1000.1
    y = glu_layer_norm(x, weight, bias, backend=backend)
    torch.testing.assert_close(y, bias[:, None, None] * x[:, 3:].sigmoid(), atol=1e-5, rtol=1e-5)


def gates_of_the_native_kernel(right: Tensor) -> Tensor:
    """The sigmoid as the kernel computes it: a constant sample times 0 plus 1 before the gate."""
    x = torch.stack([torch.zeros_like(right), right]).view(1, 2, 1, -1)
    return glu_layer_norm(x, torch.zeros(1), torch.ones(1), backend="native").flatten()


def test_native_sigmoid_is_within_two_units():
    right = torch.linspace(-87.3, 100, 300_001)
    expected = right.double().sigmoid()
    unit = torch.finfo(torch.float32).eps * 2.0 ** expected.log2().floor()
    error = ((gates_of_the_native_kernel(right) - expected).abs() / unit).max().item()
    assert error < 2.5  # 2.0 measured


def test_native_sigmoid_ends_in_0_and_1_and_keeps_nan():
    right = torch.tensor([float("inf"), 3e38, 90.0, 0.0, -0.0, -88.0, -104.0, -3e38, -float("inf"), float("nan")])
    gates = gates_of_the_native_kernel(right)
    assert gates[:5].tolist() == [1.0, 1.0, 1.0, 0.5, 0.5]
    assert (gates[5:9] < 1e-37).all() and (gates[7:9] == 0).all() and gates[9].isnan()


@backends
def test_nan_and_infinity_come_through(backend):
    x, weight, bias = arguments((4, 4, 3, 5))
    x[0, 0, 0, 0] = float("nan")
    x[1, 1, 2, 4] = -float("inf")
    x[2, 2, 1, 1] = float("nan")
    x[2, 3, :, 0] = torch.tensor([float("inf"), -float("inf"), 1e30])
    for memory_format in (torch.contiguous_format, torch.channels_last):
        y = glu_layer_norm(x.contiguous(memory_format=memory_format), weight, bias, backend=backend)
        assert y[:2].isnan().all()
        assert y.isnan()[2].nonzero().tolist() == [[0, 1, 1]]
        torch.testing.assert_close(y, exact(x, weight, bias).float(), equal_nan=True)
