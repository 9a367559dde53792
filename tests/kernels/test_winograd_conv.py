from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
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
from .test_claims_integration import Calls

NATIVE = subject(False, False).native
BACKENDS = ["reference", "native"]


@dataclass(frozen=True)
class Form:
    """What is convolved, and how.

    Attributes:
        name: in the names of tests.
        axis: the transform of a kernel along one axis.
        single: bound of the error in float32, over that of adding one product after the other.
        half: the same in bfloat16, over that of rounding the exact result.
        options: of winograd_weight.
    """

    name: str
    axis: list[list[float]]
    single: float = 1.0
    half: float = 3.0
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def cells(self) -> int | None:
        """A side of a tile of a 4x4 kernel."""
        return self.options.get("cells")

    @property
    def transposed(self) -> bool:
        return "transposed" in self.options

    @property
    def upsample(self) -> bool:
        return "upsample" in self.options

    @property
    def halves(self) -> bool:
        return self.cells is not None and not self.transposed

    @property
    def least(self) -> int:
        """Pixels a side at least."""
        return 2 if self.halves else 1

    def outputs(self, weight: Tensor) -> int:
        return weight.shape[1 if self.transposed else 0]

    def spread(self, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, int]:
        """The same as a convolution without padding: a larger map, weights [K, C, R, R], the stride."""
        if self.transposed:
            n, c, h, w = x.shape
            stuffed = x.new_zeros(n, c, 2 * h + 3, 2 * w + 3)
            stuffed[:, :, 2:-2:2, 2:-2:2] = x
            return stuffed, weight.transpose(0, 1).flip(2, 3), 1
        x = F.interpolate(x, scale_factor=2.0) if self.upsample else x
        return F.pad(x, (1, 1, 1, 1)), weight, 2 if self.halves else 1

    def exact(self, x: Tensor, weight: Tensor) -> Tensor:
        """What torch's own function makes of it in float64."""
        x, weight = x.double(), weight.double()
        if self.transposed:
            return F.conv_transpose2d(x, weight, stride=2, padding=1)
        x = F.interpolate(x, scale_factor=2.0) if self.upsample else x
        return F.conv2d(x, weight, stride=2 if self.halves else 1, padding=1)


TWO_TAPS = {
    1: [[1.0, 0.0], [0.0, 1.0]],
    2: [[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]],
    3: [[1.0, 0.0], [0.5, 0.5], [0.5, -0.5], [0.0, 1.0]],
}
# Of the error in float32 were measured, for 32 to 512 channels, 0.57 to 0.68 with 3x3 kernels (the largest: 0.28 to
# 0.52), 0.85 to 0.97 with tiles of 3 cells, 1.02 to 1.17 with 2, 0.49 to 0.56 with 1. In bfloat16 it was 2.3 to 2.6
# times that of rounding, 2.5 to 2.7, 2.7 to 2.8, and that of rounding.
BOUNDS = {1: (0.7, 1.05), 2: (1.3, 3.0), 3: (1.1, 3.0)}
SAME = Form("as it is", [[1.0, 0.0, 0.0], [0.5] * 3, [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]])
UPSAMPLED = Form("x2", [[1.0, 0.0, 0.0], [1.0] * 3, [0.0, 0.0, 1.0]], options={"upsample": True})
STRIDED = [
    Form(f"{name}, {cells} cells", TWO_TAPS[cells], *BOUNDS[cells], {"cells": cells} | options)
    for name, options in (("halved", {}), ("transposed", {"transposed": True}))
    for cells in (3, 2, 1)
]
FORMS = [SAME, UPSAMPLED, *STRIDED]


def each(forms: list[Form]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("form", forms, ids=lambda form: form.name)


each_form, each_3x3, each_4x4 = each(FORMS), each([SAME, UPSAMPLED]), each(STRIDED)
backends = pytest.mark.parametrize("backend", BACKENDS)
native_dtypes = pytest.mark.parametrize("dtype", NATIVE, ids=lambda dtype: f"native-{str(dtype)[6:]}")

# N, C, K, H, W. Matrices of at most 768 KiB fit into a core's cache, where each thread has tiles of its own; deeper
# ones are shared. Both have more tiles than 48, over the borders of samples, and a number that no product divides.
SHALLOW = (5, 17, 65, 9, 11)
DEEP = (5, 150, 257, 9, 11)


def arguments(
    form: Form, size: tuple[int, ...], dtype: torch.dtype = torch.float32, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """A map, and weights such that results are of the size of its values."""
    random = torch.Generator().manual_seed(seed)
    n, c, k, h, w = size
    side = 3 if form.cells is None else 4
    channels = (c, k) if form.transposed else (k, c)
    products = 4 if form.transposed else side * side
    x, weight = torch.randn(n, c, h, w, generator=random), torch.randn(*channels, side, side, generator=random)
    return x.to(dtype), (weight / (products * c) ** 0.5).to(dtype)


def wider(form: Form, size: tuple[int, ...]) -> tuple[int, ...]:
    """The size of the map that makes as many tiles if its sides are halved."""
    return (*size[:3], *(2 * side + 1 for side in size[3:])) if form.halves else size


def convolve(form: Form, x: Any, weight: Tensor, bias: Tensor | None = None, **options: Any) -> Tensor:
    return winograd_conv(x, winograd_weight(weight, **form.options), form.outputs(weight), bias, **options)


def judge(
    form: Form, y: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None = None, padding: str = "zeros", crop: int = 0
) -> None:
    mode = "constant" if padding == "zeros" else padding

    def direct(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        if form.cells is not None:
            return textbook.strided_conv(x, weight[None], bias, form.transposed)
        added = bias.flatten(2) if bias.dim() == 4 else bias
        return textbook.winograd_conv(x, weight[None], added, form.upsample, mode, crop)

    bias = weight.new_zeros(form.outputs(weight)) if bias is None else bias
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


@each_form
@native_dtypes
def test_any_number_of_channels_and_outputs_is_right(form, dtype):
    for c in (1, 3, 15, 16, 17, 33):
        for k in (1, 31, 32, 33):
            x, weight = arguments(form, (1, c, k, 5, 4), dtype, seed=c)
            judge(form, convolve(form, x, weight, backend="native"), x, weight)


@backends
@each_3x3
@pytest.mark.parametrize("padding", ["zeros", "replicate"])
def test_any_side_padding_and_crop_is_right(form, backend, padding):
    for h, w in ((1, 1), (1, 2), (2, 1), (3, 1), (1, 8), (2, 2), (3, 3), (5, 6), (7, 5), (6, 13)):
        whole = min(h, w) * (2 if form.upsample else 1)
        x, weight = arguments(form, (2, 4, 6, h, w), seed=h)
        for crop in range(min(3, (whole + 1) // 2)):
            y = convolve(form, x, weight, padding=padding, crop=crop, backend=backend)
            judge(form, y, x, weight, None, padding, crop)


@backends
@each_4x4
def test_any_side_is_right(form, backend):
    for h, w in ((1, 1), (1, 2), (2, 1), (1, 8), (2, 2), (2, 3), (3, 3), (5, 6), (7, 5), (6, 13), (12, 14), (15, 11)):
        if min(h, w) >= form.least:
            x, weight = arguments(form, (2, 4, 6, h, w), seed=h)
            y = convolve(form, x, weight, backend=backend)
            assert y.shape[2:] == ((h // 2, w // 2) if form.halves else (2 * h, 2 * w))
            judge(form, y, x, weight)


@backends
@each_3x3
def test_what_is_cut_off_does_not_change_the_rest(form, backend):
    x, weight = arguments(form, (2, 5, 33, 9, 10))
    y = convolve(form, x, weight, backend=backend)
    for crop in (1, 2, 3, 4):
        part = convolve(form, x, weight, crop=crop, backend=backend)
        rest = y[:, :, crop:-crop, crop:-crop]
        if crop % 2 and not form.upsample:  # tiles begin at the first pixel that is left
            torch.testing.assert_close(part, rest)
        else:
            assert_same_bits(part, rest)


@backends
def test_one_pixel_cut_off_is_a_convolution_without_padding(backend):
    x, weight = arguments(SAME, (2, 5, 33, 9, 10))
    y = convolve(SAME, x, weight, crop=1, backend=backend)
    torch.testing.assert_close(y, F.conv2d(x.double(), weight.double()).float())


@backends
@each_form
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_biases_of_any_dtype_and_strides_are_added(form, backend, dtype):
    if backend == "native" and dtype not in NATIVE:
        pytest.skip(f"there is no native form for {dtype} here")
    x, weight = arguments(form, (3, 4, 33, 5, 6), dtype)
    random = torch.Generator().manual_seed(1)
    one, nine = torch.randn(66, generator=random)[::2], torch.randn(3, 3, 3, 33, generator=random).movedim(3, 1)
    biases, crops = [one, one[:1].expand(33)], (0,)
    if form.cells is None:
        biases += [nine, nine[:1].expand_as(nine), nine[:, :, :1, :1].expand_as(nine)]
        crops = (0, 2)
    for bias, crop in product(biases, crops):
        for given_bias in (bias.to(dtype).float(), bias.to(dtype)):
            y = convolve(form, x, weight, given_bias, crop=crop, backend=backend)
            judge(form, y, x, weight, given_bias, crop=crop)


@backends
@each_form
@pytest.mark.parametrize("slope", [0.0, 0.2])
def test_numbers_below_zero_are_multiplied_at_last(form: Form, backend: Any, slope: float) -> None:
    x, weight = arguments(form, wider(form, SHALLOW))
    matrices, k = winograd_weight(weight, **form.options), form.outputs(weight)
    bias = torch.linspace(-1, 1, k)
    plain = winograd_conv(x, matrices, k, bias, backend=backend)
    assert (plain < 0).any() and (plain > 0).any()
    y = winograd_conv(x, matrices, k, bias, slope=slope, backend=backend)
    assert_same_bits(y + 0, F.leaky_relu(plain, slope) + 0)  # + 0: a product with 0 may be -0


@backends
@each_form
@native_dtypes
@pytest.mark.parametrize("channels", [(5,), (16, 3), (32, 16), (3, 5), (16, 5, 16), (16, 32, 16, 1)], ids=str)
def test_joined_maps_have_the_bits_of_one_map_and_are_read_apart(form, backend, dtype, channels):
    x, weight = arguments(form, wider(form, (3, sum(channels), 33, 5, 6)), dtype)
    bias = torch.randn(33, generator=torch.Generator().manual_seed(1))
    maps = list(x.split(channels, 1))
    maps[-1] = maps[-1].contiguous(memory_format=torch.channels_last)
    expected = convolve(form, x, weight, bias, backend=backend)
    with Calls() as calls:
        assert_same_bits(convolve(form, maps, weight, bias, backend=backend), expected)
    ((_, given_arguments),) = calls.found
    apart = all(width % 16 == 0 for width in channels[:-1])
    assert len(given_arguments[0]) == (len(channels) if apart else 1)
    assert_same_bits(convolve(form, tuple(maps), weight, bias, backend=backend), expected)


@each_form
@native_dtypes
@pytest.mark.parametrize("size", [SHALLOW, DEEP], ids=["shallow", "deep"])
def test_neither_other_samples_nor_threads_change_a_bit(size, form, dtype):
    x, weight = arguments(form, wider(form, size), dtype)
    border = (3, 3) if form.cells is None else ()
    bias = torch.randn(len(x), size[2], *border, generator=torch.Generator().manual_seed(2))
    bias = bias if border else bias[0]
    matrices = winograd_weight(weight, **form.options)
    assert (matrices.nbytes > 768 * 1024) == (size == DEEP)
    found = []
    for count in (1, 2, 3):
        with threads(count):
            found.append(winograd_conv(x, matrices, size[2], bias, backend="native"))
            for k in range(len(x)):
                own = bias[k : k + 1] if border else bias
                one = winograd_conv(x[k : k + 1], matrices, size[2], own, backend="native")
                assert_same_bits(one, found[0][k : k + 1])
    judge(form, found[0], x, weight, bias)
    for again in found[1:]:
        assert_same_bits(again, found[0])


@each_form
@native_dtypes
def test_memory_that_threads_keep_from_call_to_call_is_not_seen(form, dtype):
    sizes = [DEEP, (1, 3, 5, 2, 3), SHALLOW, (1, 17, 33, 3, 3)]
    small = [arguments(form, size, dtype) for size in sizes]
    alone = [convolve(form, x, weight, backend="native") for x, weight in small]
    for x, weight in small:  # NaN in all of it
        assert convolve(form, x * torch.nan, weight, backend="native").isnan().all()
        for (x_again, weight_again), expected in zip(small, alone, strict=True):
            assert_same_bits(convolve(form, x_again, weight_again, backend="native"), expected)


def errors(y: Tensor, exact: Tensor) -> tuple[float, float]:
    """Root mean square and largest."""
    error = y.double() - exact
    return error.square().mean().sqrt().item(), error.abs().max().item()


@each_form
@pytest.mark.parametrize("channels", [32, 256], ids=lambda channels: f"native-{channels}")
def test_float32_is_about_as_exact_as_adding_one_product_after_the_other(channels, form):
    x, weight = arguments(form, wider(form, (1, channels, 32, 12, 12)))
    larger, taps, stride = form.spread(x, weight)
    exact = form.exact(x, weight)
    direct = torch.zeros(exact.shape)
    rows, columns = (stride * side for side in exact.shape[2:])
    for c, i, j in product(range(channels), *(range(side) for side in taps.shape[2:])):
        part = larger[:, c : c + 1, i : i + rows : stride, j : j + columns : stride]
        direct = torch.addcmul(direct, part, taps[:, c, i, j, None, None])
    y = convolve(form, x, weight, backend="native")
    assert all(own <= form.single * other for own, other in zip(errors(y, exact), errors(direct, exact), strict=True))


@each_form
@pytest.mark.parametrize("channels", [32, 256])
@pytest.mark.parametrize("backend", ["reference", *["native"] * (torch.bfloat16 in NATIVE)])
def test_bfloat16_rounds_inputs_and_weights_once_more(channels, form, backend):
    x, weight = arguments(form, wider(form, (2, channels, 64, 16, 16)), torch.bfloat16)
    exact = form.exact(x, weight)
    y = convolve(form, x, weight, backend=backend)
    both = zip(errors(y, exact), errors(exact.bfloat16(), exact), strict=True)
    assert all(own <= form.half * least for own, least in both)


@each_form
def test_float64_is_the_direct_sum(form):
    for size in (SHALLOW, (1, 3, 5, form.least, 7)):
        x, weight = arguments(form, size, torch.float64)
        torch.testing.assert_close(convolve(form, x, weight), form.exact(x, weight), rtol=1e-12, atol=1e-12)


@each_form
def test_native_equals_reference_for_any_shape(form):
    @given(
        size=st.tuples(*(st.integers(1, most) for most in (4, 70, 70)), *[st.integers(form.least, 14)] * 2),
        padding=st.sampled_from(["zeros", "replicate"]),
        crop=st.integers(0, 3),
        border=st.booleans(),
        seed=st.integers(0, 99),
    )
    def holds(size, padding, crop, border, seed):
        x, weight = arguments(form, size, seed=seed)
        shape: tuple[int, ...] = (size[2],)
        options: Any = {}
        if form.cells is None:
            least = (2 if form.upsample else 1) * min(size[3:])
            shape = (size[0], size[2], 3, 3) if border and least > 1 else shape
            options = {"padding": padding, "crop": min(crop, (least - 1) // 2)}
        bias = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        native, reference = (convolve(form, x, weight, bias, **options, backend=name) for name in BACKENDS[::-1])
        torch.testing.assert_close(native, reference)

    holds()


def reached(form: Form, reads: Tensor) -> Tensor:
    """The pixels that NaN may reach, from those that read it: with tiles of 3 cells, all of a tile."""
    if form.cells != 3:
        return reads
    for axis in (2, 3):
        pixels = torch.arange(reads.shape[axis])
        tiles = (pixels + 1) // 6 if form.transposed else pixels // 3  # pixel 2h + p of a doubled map is cell h + p
        same = (tiles[:, None] == tiles).double()
        reads = torch.tensordot(reads.double(), same, ([axis], [0])).movedim(-1, axis) > 0
    return reads


@backends
@each_form
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf], ids=str)
def test_what_is_not_finite_reaches_what_reads_it_and_at_most_its_tile(bad, form, backend):
    x, weight = arguments(form, wider(form, (2, 17, 33, 6, 7)))
    good = convolve(form, x, weight, backend=backend)
    last = (x.shape[2] - 1, x.shape[3] - 1)
    for row, column in ((0, 0), (2, 3), (3, 4), last):
        spoilt = x.clone()
        spoilt[1, 2, row, column] = bad
        y = convolve(form, spoilt, weight, backend=backend)
        exact = form.exact(spoilt, weight)
        reads = ~exact.isfinite()
        rest = ~reached(form, reads)
        assert rest.any()
        assert_same_bits(y[rest], good[rest])
        assert not y[reads].isfinite().any()
        if bad != bad:
            assert y[reads].isnan().all()
        signed = exact.isinf() & y.isinf()
        assert torch.equal(y[signed], exact.float()[signed])


@backends
@each_form
def test_a_weight_that_is_not_finite_spoils_its_own_output_alone(form, backend):
    x, weight = arguments(form, (1, 4, 35, 5, 6))
    good = convolve(form, x, weight, backend=backend)
    spoils = torch.ones_like(good[:, 33], dtype=torch.bool)
    if form.transposed:  # a tap makes one of four pixels
        spoils[:] = False
        spoils[:, ::2, ::2] = True
    for bad in (torch.nan, torch.inf):
        spoilt = weight.clone()
        (spoilt[2, 33] if form.transposed else spoilt[33, 2])[1, 1] = bad
        y = convolve(form, x, spoilt, backend=backend)
        assert not y[:, 33][spoils].isfinite().any()
        assert_same_bits(y[:, 33][~spoils], good[:, 33][~spoils])
        assert_same_bits(y[:, :33], good[:, :33])
        assert_same_bits(y[:, 34:], good[:, 34:])


@backends
def test_arguments_that_require_gradients_are_taken_without(backend):
    x, weight = (t.requires_grad_() for t in arguments(SAME, (1, 4, 5, 6, 7)))
    matrices = winograd_weight(weight)
    assert not matrices.requires_grad
    with torch.no_grad():
        y = winograd_conv(x, matrices, 5, backend=backend)
    assert_same_bits(y, winograd_conv(x.detach(), matrices, 5, backend=backend))


def kernels_of(form: Form, weight: Tensor) -> Tensor:
    """The kernels that are transformed, by groups of outputs and of inputs: [f, s, K, C, R, R]."""
    if form.cells is None:
        return weight[None, None]
    weight = weight.transpose(0, 1).flip(2, 3) if form.transposed else weight
    found = torch.stack([weight[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)])
    return found[:, None] if form.transposed else found[None]


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64], ids=str)
@each_form
def test_matrices_are_the_transformed_weights_rounded_once(form, dtype):
    g = torch.tensor(form.axis, dtype=torch.float64)
    pairs = 2 if dtype == torch.bfloat16 else 1
    for c, k in ((1, 1), (16, 32), (17, 33)):
        _, weight = arguments(form, (1, c, k, 1, 1), dtype)
        for given_weight in (weight, weight.mT.contiguous().mT, weight[:1, :1].expand_as(weight)):
            matrices = winograd_weight(given_weight, **form.options)
            kernels = kernels_of(form, given_weight.double())
            f, s = kernels.shape[:2]
            stored, blocks = -(-c // 16) * 16, -(-k // 32)
            assert matrices.shape == (f * blocks, len(g) ** 2, s * stored // pairs, 32 * pairs)
            assert matrices.dtype == dtype and matrices.is_contiguous()
            plain = unpacked(matrices).view(-1, s, stored, f, 32 * blocks)
            expected = (g @ kernels @ g.T).flatten(4).permute(4, 1, 3, 0, 2)  # [P, s, C, f, K]
            torch.testing.assert_close(plain[:, :, :c, :, :k], expected.to(dtype), rtol=1e-12, atol=1e-12)
            assert not plain[:, :, c:].any() and not plain[..., k:].any()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("c", "k", "h", "w"), [(1, 1, 1, 1), (40, 33, 5, 7), (64, 32, 12, 12), (17, 70, 16, 9)])
def test_tiles_of_four_have_three_times_the_error_of_tiles_of_two(c, k, h, w, backend):
    random = torch.Generator().manual_seed(0)
    x, weight = torch.randn(3, c, h, w, generator=random), torch.randn(k, c, 3, 3, generator=random)
    exact = F.conv2d(x.double(), weight.double(), padding=1)
    errors = {}
    for cells in (2, 4):
        y = winograd_conv(x, winograd_weight(weight, cells=cells), k, backend=backend)
        errors[cells] = (y - exact).square().mean().sqrt().item()
    assert errors[4] <= 4 * max(errors[2], 1e-7 * exact.square().mean().sqrt().item())
