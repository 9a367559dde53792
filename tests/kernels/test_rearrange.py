import subprocess
import sys
from importlib import import_module

import pytest
import torch
from torch import Tensor

from zellige.kernels import rearrange

from . import textbook
from .judge import DTYPES, assert_as_exact_as_eager, assert_same_bits

# None is a path of its own on CPUs: here torch's attention for equal widths, parts of the queries for others.
BACKENDS = ["reference", None, "triton"]
backends = pytest.mark.parametrize("backend", BACKENDS)


@pytest.fixture(autouse=True)
def no_weights_are_kept(monkeypatch):
    """As for many tokens; what runs for few is tested with the claims that all kernels share."""
    monkeypatch.setattr(import_module("zellige.kernels.rearrange.library"), "_KEPT", 0)


def arguments(
    shape: tuple[int, int, int, int, int], dtype: torch.dtype = torch.float32, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    n, tokens, keys, key_width, width = shape
    random = torch.Generator().manual_seed(seed)
    sizes = (n, tokens, key_width), (n, keys, key_width), (n, keys, width)
    q, k, v = (torch.randn(size, generator=random).to(dtype) for size in sizes)
    return q, k, v


@backends
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(2, 5, 7, 16, 16), (1, 35, 34, 33, 130), (1, 5, 33, 130, 40)])
def test_gradients_across_tiles_are_as_exact_as_eager(shape, dtype, backend):
    inputs = arguments(shape, dtype)
    slope = torch.randn(shape[0], shape[1], shape[4], generator=torch.Generator().manual_seed(1)).to(dtype)
    found = []
    for function, given_ in (
        (lambda *t: rearrange(*t, backend=backend), inputs),
        (textbook.rearrange, inputs),
        (textbook.rearrange, [t.double() for t in inputs]),
    ):
        leaves = [t.detach().requires_grad_() for t in given_]
        found.append(torch.autograd.grad(function(*leaves), leaves, slope.to(leaves[0].dtype)))
    for actual, by_eager, by_reference in zip(*found, strict=True):
        assert_as_exact_as_eager(actual, by_eager, by_reference)


def test_parts_of_the_queries_add_up():
    shape = (1, 40, 2**14, 2, 3)  # parts of 16, 16 and 8 queries
    leaves, exact = (
        [t.to(dtype).requires_grad_() for t in arguments(shape)] for dtype in (torch.float32, torch.float64)
    )
    y, expected = rearrange(*leaves), textbook.rearrange(*exact)
    torch.testing.assert_close(y, expected.float())
    found = zip(torch.autograd.grad(y.sum(), leaves), torch.autograd.grad(expected.sum(), exact), strict=True)
    for actual, wanted in found:
        torch.testing.assert_close(actual, wanted.float())


@backends
@pytest.mark.parametrize("width", [16, 40])
def test_equal_keys_give_the_mean_of_the_values(width, backend):
    q, k, v = arguments((2, 5, 67, 16, width))
    y = rearrange(q, k[:, :1].expand_as(k), v, backend=backend)
    torch.testing.assert_close(y, v.mean(1, keepdim=True).expand_as(y))


@backends
@pytest.mark.parametrize("width", [16, 40])
def test_the_order_of_keys_means_nothing(width, backend):
    q, k, v = arguments((2, 5, 67, 16, width))
    order = torch.randperm(67, generator=torch.Generator().manual_seed(2))
    y = rearrange(q, k[:, order], v[:, order], backend=backend)
    torch.testing.assert_close(y, rearrange(q, k, v, backend=backend))


@backends
@pytest.mark.parametrize("width", [64, 3])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_one_matching_key_rearranges_values(dtype, width, backend):
    order = torch.randperm(64, generator=torch.Generator().manual_seed(3))
    k = torch.eye(64, dtype=dtype)[None]
    v = torch.randn(1, 64, width).to(dtype)
    assert_same_bits(rearrange(k[:, order], k, v, 500.0, backend=backend), v[:, order])


@backends
@pytest.mark.parametrize("width", [16, 40])
def test_scores_of_ten_thousand_do_not_overflow(width, backend):
    q, k, v = arguments((1, 35, 67, 16, width))
    q = q * 1e4
    leaves = [t.requires_grad_() for t in (q, k, v)]
    y = rearrange(*leaves, backend=backend)
    assert y.isfinite().all()
    # One unit in the last place of a score of 4e4 is 0.004.
    torch.testing.assert_close(y.double(), textbook.rearrange(q.double(), k.double(), v.double()), rtol=0.02, atol=0.02)
    assert all(t.isfinite().all() for t in torch.autograd.grad(y.sum(), leaves))


@pytest.mark.filterwarnings(
    "ignore:invalid value:RuntimeWarning", "ignore:divide by zero:RuntimeWarning", "ignore:All-NaN:RuntimeWarning"
)
@backends
@pytest.mark.parametrize("width", [1, 5])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")], ids=str)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_nan_and_infinity_come_through_as_in_the_reference(place, bad, width, backend):
    # The last key is in the second tile, or behind the last full vector.
    for keys in (1, 33) if backend == "triton" else (1, 3, 33, 67, 600):
        inputs = [t.abs() for t in arguments((1, 3, keys, 1, width))]
        inputs[place][0, -1] = bad
        leaves, expected_leaves = ([t.clone().requires_grad_() for t in inputs] for _ in range(2))
        y = rearrange(*leaves, backend=backend)
        expected = rearrange(*expected_leaves, backend="reference")
        torch.testing.assert_close(y, expected, equal_nan=True)
        found = torch.autograd.grad(y.sum(), leaves), torch.autograd.grad(expected.sum(), expected_leaves)
        for actual, wanted in zip(*found, strict=True):
            assert torch.equal(actual.isnan(), wanted.isnan())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")], ids=str)
def test_what_is_not_finite_is_not_lost_in_the_library(bad, dtype):
    for place in range(3):
        for row in (0, -1):
            inputs = [t.abs() for t in arguments((1, 67, 67, 16, 16), dtype)]
            inputs[place][0, row, 0] = bad
            expected = rearrange(*inputs, backend="reference")
            assert torch.equal(rearrange(*inputs).isnan(), expected.isnan())


@backends
def test_a_scale_is_taken(backend):
    q, k, v = arguments((2, 5, 7, 16, 16))
    for scale in (0.0, -0.3, 2):
        expected = torch.softmax(q @ k.mT * scale, 2) @ v
        torch.testing.assert_close(rearrange(q, k, v, scale, backend=backend), expected)


def test_on_a_cpu_the_scores_are_not_kept():
    """Of equal widths and of others."""
    # 4096 x 2048 scores would take 32 MiB in float32; the largest tensor here takes 4.
    program = """
import resource, torch
from zellige.kernels import rearrange
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for key_width, width in ((200, 200), (16, 256)):
    sizes = (4096, key_width), (2048, key_width), (2048, width)
    q, k, v = (torch.randn(1, *size, dtype=torch.bfloat16) for size in sizes)
    rearrange(*(t[:, :64] for t in (q, k, v)))
    before = peak()
    rearrange(q, k, v)
    print((peak() - before) // 1024)
"""
    grown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert all(int(mebibytes) < 24 for mebibytes in grown.split()), grown


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(1, 1024, 1024, 512, 512), (1, 257, 300, 64, 520), (3, 65, 130, 33, 40)])
def test_gpu_gradients_are_as_exact_as_eager_at_full_shape(shape, dtype):
    found = []
    for function, wide in (
        (lambda *t: rearrange(*t, backend="triton"), False),
        (textbook.rearrange, False),
        (textbook.rearrange, True),
    ):
        leaves = [t.cuda() for t in arguments(shape, dtype)]
        leaves = [(t.double() if wide else t).requires_grad_() for t in leaves]
        y = function(*leaves)
        slope = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(dtype).cuda()
        found.append(torch.autograd.grad(y, leaves, slope.to(y.dtype)))
    for actual, by_eager, by_reference in zip(*found, strict=True):
        assert_as_exact_as_eager(actual, by_eager, by_reference)


@pytest.mark.gpu
def test_gpu_keeps_no_scores():
    inputs = [t.cuda() for t in arguments((1, 8192, 8192, 64, 512), torch.bfloat16)]
    rearrange(*inputs, backend="triton")
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    rearrange(*inputs, backend="triton")
    # The result takes 8 MiB, the scores would take 128.
    assert torch.cuda.max_memory_allocated() - before < 16 * 2**20
