import pytest
import torch

from zellige.kernels import affine_relu

from .judge import assert_same_bits

BACKENDS = ["reference", "native", "triton"]
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
