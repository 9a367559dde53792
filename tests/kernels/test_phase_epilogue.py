import pytest
import torch

from zellige.kernels import phase_epilogue

from . import textbook


@pytest.mark.parametrize("backend", ["reference", "native", "triton"])
def test_a_mean_far_above_the_deviation_costs_no_precision(backend):
    random = torch.Generator().manual_seed(0)
    x = torch.randn(2, 64, 15, 17, generator=random) + 1000
    weight, bias = (torch.randn(8, generator=random) for _ in range(2))
    exact = textbook.glu_layer_norm(textbook.interleaved(x.double()), weight.double(), bias.double())
    for memory_format in (torch.contiguous_format, torch.channels_last):
        y = phase_epilogue(x.contiguous(memory_format=memory_format), weight, bias, backend=backend)
        torch.testing.assert_close(y, exact.float())


@pytest.mark.parametrize("backend", ["reference", "native", "triton"])
def test_each_phase_goes_to_its_pixel_of_a_square(backend):
    x = torch.arange(4.0).view(1, 4, 1, 1).expand(1, 4, 2, 3) + 1
    one, zero = torch.ones(1, 1), torch.zeros(1, 1)
    y = phase_epilogue(x, one, zero, "affine_relu", backend=backend)
    assert y.tolist() == [[[[1.0, 2.0] * 3, [3.0, 4.0] * 3] * 2]]
