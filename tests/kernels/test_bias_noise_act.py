import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from zellige.kernels import bias_noise_act

from .judge import assert_same_bits

BACKENDS = ["reference", "native", "triton"]
KINDS = ["no noise", "noise", "shared noise"]
kinds = pytest.mark.parametrize("kind", KINDS)
backends = pytest.mark.parametrize("backend", BACKENDS)


def arguments(
    shape: tuple[int, ...], kind: str = "noise", dtype: torch.dtype = torch.float32, seed: int = 0
) -> list[Tensor]:
    random = torch.Generator().manual_seed(seed)
    n, c, h, w = shape
    shapes = [shape, (c,), (1 if kind == "shared noise" else n, 1, h, w), ()]
    x, *others = (torch.randn(s, generator=random) for s in shapes[: 2 if kind == "no noise" else 4])
    return [x.to(dtype), *others]


@given(
    shape=st.tuples(st.integers(0, 3), st.integers(0, 40), st.integers(0, 20), st.integers(0, 20)),
    kind=st.sampled_from(KINDS),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    channels_last=st.booleans(),
    slope=st.floats(-2, 2, width=32),
    gain=st.floats(-4, 4),
    seed=st.integers(0, 99),
)
def test_native_equals_reference_for_any_slope_and_gain(shape, kind, dtype, channels_last, slope, gain, seed):
    x, *others = arguments(shape, kind, dtype, seed)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    expected = bias_noise_act(x, *others, slope=slope, gain=gain, backend="reference")
    assert_same_bits(bias_noise_act(x, *others, slope=slope, gain=gain, backend="native"), expected)


@backends
def test_nan_and_infinity_come_through(backend):
    x = torch.tensor([float("nan"), float("inf"), -float("inf"), -0.0]).view(1, 1, 2, 2)
    y = bias_noise_act(x, torch.zeros(1), backend=backend)
    assert y.isnan().flatten().tolist() == [True, False, False, False]
    assert y.flatten().tolist()[1:] == [float("inf"), -float("inf"), 0.0]
    y = bias_noise_act(torch.zeros(1, 1, 2, 2), torch.zeros(1), x, torch.tensor(1.0), backend=backend)
    assert y.isnan().flatten().tolist() == [True, False, False, False]


def test_every_bfloat16_is_rounded_as_torch_does():
    x = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(torch.bfloat16).view(1, 1, 256, 256)
    bias = torch.full((1,), 1e-30)
    assert_same_bits(bias_noise_act(x, bias, backend="native"), bias_noise_act(x, bias, backend="reference"))
