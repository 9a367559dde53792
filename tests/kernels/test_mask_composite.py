import pytest
import torch
from torch import Tensor

from zellige.kernels import mask_composite

from .judge import LAYOUTS

BACKENDS = ["reference", "native", "triton"]
forms = pytest.mark.parametrize("logits", [True, False], ids=["logits", "finished"])
backends = pytest.mark.parametrize("backend", BACKENDS)


def arguments(shape: tuple[int, ...], dtype: torch.dtype = torch.float32, seed: int = 0) -> tuple[Tensor, ...]:
    random = torch.Generator().manual_seed(seed)
    n, c, h, w = shape
    return tuple(torch.randn((n, k, h, w), generator=random).mul(2).to(dtype) for k in (c, c, 1))


@backends
@pytest.mark.parametrize("output", ["float", "uint8"])
def test_maps_may_lie_in_memory_each_in_its_own_way(output, backend):
    foreground, background, mask = arguments((2, 3, 5, 6))
    expected = mask_composite(foreground, background, mask, output=output, backend=backend)
    for mixed in (
        (LAYOUTS["channels-last"](foreground), background, mask),
        (foreground, LAYOUTS["channels-last"](background), LAYOUTS["flipped sides"](mask)),
    ):
        assert torch.equal(mask_composite(*mixed, output=output, backend=backend), expected)


@pytest.mark.parametrize("backend", ["native", "triton"])
def test_tanh_and_sigmoid_keep_their_digits(backend):
    """Over all magnitudes; the other image is 0, so that nothing but one product is left."""
    sizes = torch.logspace(-30, 2, 4096)
    x = torch.cat([-sizes.flip(0), sizes]).view(1, 1, 64, 128)
    zeros, certain = torch.zeros_like(x), torch.full_like(x, 200.0)
    unit = torch.finfo(torch.float32).eps
    for maps in ((x, zeros, certain), (zeros, x, -certain)):
        by_tanh = mask_composite(*maps, backend=backend).double() / x.double().tanh() - 1
        assert by_tanh.abs().max() <= 3 * unit  # measured: 1.5 natively, 1.4 in Triton's interpreter
    m = x.clamp(-80, 80)
    ones = torch.full_like(x, 50.0)
    for maps, share in (((ones, zeros, m), m.double().sigmoid()), ((zeros, ones, m), (-m.double()).sigmoid())):
        error = mask_composite(*maps, backend=backend).double() / share - 1
        assert error.abs().max() <= 3 * unit  # measured: 1.7 and 2.3


@backends
def test_logits_saturate(backend):
    infinity = float("inf")
    f = torch.tensor([infinity, -infinity, 1e30, -1e30, 20.0, -20.0, 0.0, -0.0]).view(1, 1, 2, 4)
    for m, maps in ((infinity, (f, torch.ones_like(f))), (-infinity, (torch.ones_like(f), f))):
        y = mask_composite(*maps, torch.full_like(f, m), backend=backend)
        assert y.flatten().tolist() == [1, -1, 1, -1, 1, -1, 0, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_native_gradients_of_saturated_logits_end_in_0(dtype):
    x = torch.tensor([float("inf"), -float("inf"), 1e30, -40.0]).view(1, 1, 2, 2).to(dtype)
    leaves = [x.clone().requires_grad_(), torch.zeros_like(x).requires_grad_(), x.clone().requires_grad_()]
    y = mask_composite(*leaves, backend="native")
    for slope in torch.autograd.grad(y, (leaves[0], leaves[2]), torch.ones_like(y)):
        assert slope.abs().max() < 1e-15


@backends
@forms
def test_nan_stays_nan_and_is_0_as_a_byte(logits, backend):
    nan = float("nan")
    for dtype in (torch.float32, torch.bfloat16):
        for where in range(3):
            maps = list(arguments((1, 2, 3, 5), dtype))
            maps[where][0, 0, 1, 2] = nan
            for sign in (1, -1):
                hit = torch.zeros(1, 2, 3, 5, dtype=torch.bool)
                hit[0, slice(None) if where == 2 else 0, 1, 2] = True
                signed = [t * sign if k == where else t for k, t in enumerate(maps)]
                y = mask_composite(*signed, logits=logits, backend=backend)
                assert torch.equal(y.isnan(), hit)
                pixels = mask_composite(*signed, logits=logits, output="uint8", backend=backend)
                assert (pixels.permute(0, 3, 1, 2)[hit] == 0).all()


@backends
def test_bytes_round_half_to_even_and_are_limited(backend):
    # In float32 (y + 1) * 127.5 is exactly 127.5, 128.5, 126.5 and 125.5 for the first four.
    f = torch.tensor([0.0, 2 / 255, -2 / 255, -4 / 255, 7.0, -7.0, float("inf"), -float("inf")]).view(1, 1, 2, 4)
    ones = torch.ones_like(f)
    pixels = mask_composite(f, torch.zeros_like(f), ones, logits=False, output="uint8", backend=backend)
    assert pixels.flatten().tolist() == [128, 128, 126, 126, 255, 0, 255, 0]
