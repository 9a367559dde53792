from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from zellige.kernels import winograd_conv, winograd_weight
from zellige.kernels.winograd_conv.weight import unpacked

from . import textbook
from .judge import DTYPES, assert_as_exact_as_eager, assert_same_bits
from .subjects import winograd_conv as subject

NATIVE = subject(False, False).native
BACKENDS = ["reference", "native"]
backends = pytest.mark.parametrize("backend", BACKENDS)
native_dtypes = pytest.mark.parametrize("dtype", NATIVE, ids=lambda dtype: f"native-{str(dtype)[6:]}")
upsamples = pytest.mark.parametrize("upsample", [False, True], ids=["as it is", "x2"])

# N, C, K, H, W. Matrices of at most 768 KiB fit into a core's cache, where each thread has tiles of its own; deeper
# ones are shared. Both have more tiles than 48, over the borders of samples, and a number that no product divides.
SHALLOW = (5, 33, 65, 9, 11)
DEEP = (5, 150, 257, 9, 11)


def arguments(size: tuple[int, ...], dtype: torch.dtype = torch.float32, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A map, and weights such that results are of the size of its values."""
    random = torch.Generator().manual_seed(seed)
    n, c, k, h, w = size
    x, weight = torch.randn(n, c, h, w, generator=random), torch.randn(k, c, 3, 3, generator=random)
    return x.to(dtype), (weight / (9 * c) ** 0.5).to(dtype)


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None = None, upsample: bool = False, **options: Any) -> Tensor:
    return winograd_conv(x, winograd_weight(weight, upsample=upsample), len(weight), bias, **options)


def judge(
    y: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None = None, upsample: bool = False,
    padding: str = "zeros", crop: int = 0,
) -> None:  # fmt: skip
    mode = "constant" if padding == "zeros" else padding

    def direct(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        added = bias.flatten(2) if bias.dim() == 4 else bias
        return textbook.winograd_conv(x, weight[None], added, upsample, mode, crop)

    bias = weight.new_zeros(len(weight)) if bias is None else bias
    exact = direct(x.double(), weight.double(), bias.double())
    assert_as_exact_as_eager(y, direct(x, weight, bias.to(x.dtype)), exact, units=2.0)
    assert y.is_contiguous(memory_format=torch.channels_last)


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@upsamples
@native_dtypes
def test_any_number_of_channels_and_outputs_is_right(upsample, dtype):
    for c in (1, 3, 15, 16, 17, 33):
        for k in (1, 31, 32, 33):
            x, weight = arguments((1, c, k, 5, 4), dtype, seed=c)
            judge(convolve(x, weight, upsample=upsample, backend="native"), x, weight, upsample=upsample)


@backends
@upsamples
@pytest.mark.parametrize("padding", ["zeros", "replicate"])
def test_any_side_padding_and_crop_is_right(upsample, backend, padding):
    for h, w in ((1, 1), (1, 2), (2, 1), (3, 1), (1, 8), (2, 2), (3, 3), (5, 6), (7, 5), (6, 13)):
        whole = min(h, w) * (2 if upsample else 1)
        x, weight = arguments((2, 4, 6, h, w), seed=h)
        for crop in range(min(3, (whole + 1) // 2)):
            y = convolve(x, weight, None, upsample, padding=padding, crop=crop, backend=backend)
            judge(y, x, weight, None, upsample, padding, crop)


@backends
@upsamples
def test_what_is_cut_off_does_not_change_the_rest(upsample, backend):
    x, weight = arguments((2, 5, 33, 9, 10))
    y = convolve(x, weight, upsample=upsample, backend=backend)
    for crop in (1, 2, 3, 4):
        part = convolve(x, weight, upsample=upsample, crop=crop, backend=backend)
        rest = y[:, :, crop:-crop, crop:-crop]
        if crop % 2 and not upsample:  # tiles begin at the first pixel that is left
            torch.testing.assert_close(part, rest)
        else:
            assert_same_bits(part, rest)


@backends
def test_one_pixel_cut_off_is_a_convolution_without_padding(backend):
    x, weight = arguments((2, 5, 33, 9, 10))
    y = convolve(x, weight, crop=1, backend=backend)
    torch.testing.assert_close(y, F.conv2d(x.double(), weight.double()).float())


@backends
@upsamples
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_biases_of_any_dtype_and_strides_are_added(upsample, backend, dtype):
    if backend == "native" and dtype not in NATIVE:
        pytest.skip(f"there is no native form for {dtype} here")
    x, weight = arguments((3, 4, 33, 5, 6), dtype)
    random = torch.Generator().manual_seed(1)
    one, nine = torch.randn(66, generator=random)[::2], torch.randn(3, 3, 3, 33, generator=random).movedim(3, 1)
    for bias in (one, nine, one[:1].expand(33), nine[:1].expand_as(nine), nine[:, :, :1, :1].expand_as(nine)):
        for given_bias in (bias.to(dtype).float(), bias.to(dtype)):
            for crop in (0, 2):
                y = convolve(x, weight, given_bias, upsample, crop=crop, backend=backend)
                judge(y, x, weight, given_bias, upsample, crop=crop)


@upsamples
@native_dtypes
@pytest.mark.parametrize("size", [SHALLOW, DEEP], ids=["shallow", "deep"])
def test_neither_other_samples_nor_threads_change_a_bit(size, upsample, dtype):
    x, weight = arguments(size, dtype)
    bias = torch.randn(len(x), len(weight), 3, 3, generator=torch.Generator().manual_seed(2))
    matrices = winograd_weight(weight, upsample=upsample)
    assert (matrices.nbytes > 768 * 1024) == (size == DEEP)
    found = []
    for count in (1, 2, 3):
        with threads(count):
            found.append(winograd_conv(x, matrices, len(weight), bias, backend="native"))
            for k in range(len(x)):
                one = winograd_conv(x[k : k + 1], matrices, len(weight), bias[k : k + 1], backend="native")
                assert_same_bits(one, found[0][k : k + 1])
    judge(found[0], x, weight, bias, upsample)
    for again in found[1:]:
        assert_same_bits(again, found[0])


@upsamples
@native_dtypes
def test_memory_that_threads_keep_from_call_to_call_is_not_seen(upsample, dtype):
    sizes = [DEEP, (1, 3, 5, 2, 3), SHALLOW, (1, 17, 33, 3, 3)]
    small = [arguments(size, dtype) for size in sizes]
    alone = [convolve(x, weight, upsample=upsample, backend="native") for x, weight in small]
    for x, weight in small:  # NaN in all of it
        assert convolve(x * torch.nan, weight, upsample=upsample, backend="native").isnan().all()
        for (x_again, weight_again), expected in zip(small, alone, strict=True):
            assert_same_bits(convolve(x_again, weight_again, upsample=upsample, backend="native"), expected)


def errors(y: Tensor, exact: Tensor) -> tuple[float, float]:
    """Root mean square and largest."""
    error = y.double() - exact
    return error.square().mean().sqrt().item(), error.abs().max().item()


@upsamples
@pytest.mark.parametrize("channels", [32, 256], ids=lambda channels: f"native-{channels}")
def test_float32_is_more_exact_than_adding_one_product_after_the_other(channels, upsample):
    x, weight = arguments((1, channels, 32, 12, 12))
    larger = F.pad(F.interpolate(x, scale_factor=2.0) if upsample else x, (1, 1, 1, 1))
    exact = F.conv2d(larger.double(), weight.double())
    direct = torch.zeros(exact.shape)
    for c, i, j in product(range(channels), range(3), range(3)):
        part = larger[:, c : c + 1, i : i + exact.shape[2], j : j + exact.shape[3]]
        direct = torch.addcmul(direct, part, weight[:, c, i, j, None, None])
    y = convolve(x, weight, upsample=upsample, backend="native")
    # Of its error 0.57 to 0.67 were measured (the largest: 0.33 to 0.52), for 32 to 512 channels.
    assert all(own <= other for own, other in zip(errors(y, exact), errors(direct, exact), strict=True))


@upsamples
@pytest.mark.parametrize("channels", [32, 256])
@pytest.mark.parametrize("backend", ["reference", *["native"] * (torch.bfloat16 in NATIVE)])
def test_bfloat16_rounds_inputs_and_weights_once_more(channels, upsample, backend):
    x, weight = arguments((2, channels, 64, 16, 16), torch.bfloat16)
    larger = F.interpolate(x, scale_factor=2.0) if upsample else x
    exact = F.conv2d(larger.double(), weight.double(), padding=1)
    y = convolve(x, weight, upsample=upsample, backend=backend)
    # 2.3 to 2.6 times the error of what is rounded at the end alone were measured (the largest: 1.2 to 2.6).
    both = zip(errors(y, exact), errors(exact.bfloat16(), exact), strict=True)
    assert all(own <= 3 * least for own, least in both)


@upsamples
def test_float64_is_the_direct_sum(upsample):
    for size in (SHALLOW, (1, 3, 5, 1, 7)):
        x, weight = arguments(size, torch.float64)
        larger = F.interpolate(x, scale_factor=2.0) if upsample else x
        exact = F.conv2d(larger, weight, padding=1)
        torch.testing.assert_close(convolve(x, weight, upsample=upsample), exact, rtol=1e-12, atol=1e-12)


@upsamples
def test_native_equals_reference_for_any_shape(upsample):
    @given(
        size=st.tuples(*(st.integers(1, most) for most in (4, 70, 70, 14, 14))),
        padding=st.sampled_from(["zeros", "replicate"]),
        crop=st.integers(0, 3),
        border=st.booleans(),
        seed=st.integers(0, 99),
    )
    def holds(size, padding, crop, border, seed):
        least = (2 if upsample else 1) * min(size[3:])
        x, weight = arguments(size, seed=seed)
        shape = (size[0], size[2], 3, 3) if border and least > 1 else (size[2],)
        options: Any = {"padding": padding, "crop": min(crop, (least - 1) // 2)}
        bias = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        native, reference = (convolve(x, weight, bias, upsample, **options, backend=name) for name in BACKENDS[::-1])
        torch.testing.assert_close(native, reference)

    holds()


@backends
@upsamples
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf], ids=str)
def test_what_is_not_finite_reaches_what_reads_it_and_nothing_else(bad, upsample, backend):
    x, weight = arguments((2, 17, 33, 6, 7))
    good = convolve(x, weight, upsample=upsample, backend=backend)
    for row, column in ((0, 0), (2, 3), (3, 4), (5, 6)):
        spoilt = x.clone()
        spoilt[1, 2, row, column] = bad
        y = convolve(spoilt, weight, upsample=upsample, backend=backend)
        larger = F.interpolate(spoilt, scale_factor=2.0) if upsample else spoilt
        exact = F.conv2d(larger.double(), weight.double(), padding=1)
        reads = ~exact.isfinite()
        assert_same_bits(y[~reads], good[~reads])
        assert not y[reads].isfinite().any()
        if bad != bad:
            assert y[reads].isnan().all()
        signed = exact.isinf() & y.isinf()
        assert torch.equal(y[signed], exact.float()[signed])


@backends
@upsamples
def test_a_weight_that_is_not_finite_spoils_its_own_output_alone(upsample, backend):
    x, weight = arguments((1, 4, 35, 5, 6))
    good = convolve(x, weight, upsample=upsample, backend=backend)
    for bad in (torch.nan, torch.inf):
        spoilt = weight.clone()
        spoilt[33, 2, 1, 1] = bad
        y = convolve(x, spoilt, upsample=upsample, backend=backend)
        assert not y[:, 33].isfinite().any()
        assert_same_bits(y[:, :33], good[:, :33])
        assert_same_bits(y[:, 34:], good[:, 34:])


@backends
def test_arguments_that_require_gradients_are_taken_without(backend):
    x, weight = (t.requires_grad_() for t in arguments((1, 4, 5, 6, 7)))
    matrices = winograd_weight(weight)
    assert not matrices.requires_grad
    with torch.no_grad():
        y = winograd_conv(x, matrices, 5, backend=backend)
    assert_same_bits(y, winograd_conv(x.detach(), matrices, 5, backend=backend))


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64], ids=str)
@pytest.mark.parametrize(("upsample", "count"), [(False, 16), (True, 9)])
def test_matrices_are_the_transformed_weights_rounded_once(upsample, count, dtype):
    axis = [[1, 0, 0], [1, 1, 1], [0, 0, 1]] if upsample else [[1, 0, 0], [0.5] * 3, [0.5, -0.5, 0.5], [0, 0, 1]]
    g = torch.tensor(axis, dtype=torch.float64)
    for c, k in ((1, 1), (16, 32), (17, 33)):
        _, weight = arguments((1, c, k, 1, 1), dtype)
        for given_weight in (weight, weight.mT.contiguous().mT, weight[:1, :1].expand(k, c, 3, 3)):
            matrices = winograd_weight(given_weight, upsample=upsample)
            pairs = 2 if dtype == torch.bfloat16 else 1
            assert matrices.shape == (-(-k // 32), count, -(-c // 16) * 16 // pairs, 32 * pairs)
            assert matrices.dtype == dtype and matrices.is_contiguous()
            plain = unpacked(matrices)
            expected = (g @ given_weight.double() @ g.T).flatten(2).permute(2, 1, 0)
            torch.testing.assert_close(plain[:, :c, :k], expected.to(dtype), rtol=1e-12, atol=1e-12)
            assert not plain[:, c:].any() and not plain[:, :, k:].any()
