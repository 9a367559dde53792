import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from zellige.errors import DeviceError, ShapeError
from zellige.kernels import fir_resample

from .judge import DTYPES, LAYOUTS, assert_as_exact_as_eager, assert_same_bits

BACKENDS = ["reference", "native", "triton"]
# Of the smaller map: single values, odd sides, more channels than a tile of the GPU kernel, planes longer than one.
SHAPES = [(1, 1, 1, 1), (2, 3, 5, 7), (1, 67, 3, 2), (2, 2, 33, 17), (3, 1, 1, 9)]
both = pytest.mark.parametrize("up", [False, True])
backends = pytest.mark.parametrize("backend", BACKENDS)


def argument(small: tuple[int, ...], up: bool, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    n, c, h, w = small
    shape = small if up else (n, c, 2 * h, 2 * w)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def eager(x: Tensor, up: bool) -> Tensor:
    """The textbook form, which shares nothing with the reference: a convolution with the whole filter."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=x.dtype, device=x.device)
    filters = torch.outer(taps, taps).expand(x.shape[1], 1, 4, 4)
    if up:
        return F.conv_transpose2d(x, filters / 16, stride=2, padding=1, groups=x.shape[1])
    return F.conv2d(x, filters / 64, stride=2, padding=1, groups=x.shape[1])


def exact(x: Tensor, up: bool) -> Tensor:
    return eager(x.double(), up)


def assert_right(actual: Tensor, by_eager: Tensor, by_convolution: Tensor, backend: str) -> None:
    if backend == "triton" and actual.dtype == torch.bfloat16 and not actual.is_cuda:
        # Triton's interpreter cuts bfloat16 off where a GPU rounds: up to 2**-7 is lost, 0.0076 measured.
        torch.testing.assert_close(actual.double(), by_convolution, rtol=2**-7, atol=1e-6)
    else:
        assert_as_exact_as_eager(actual, by_eager, by_convolution)


def skip_half_natively(backend: str, dtype: torch.dtype) -> None:
    if backend == "native" and dtype == torch.float16:
        pytest.skip("the C++ kernel takes float32 and bfloat16")


@backends
@both
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_result_is_as_exact_as_a_convolution(shape, dtype, up, backend):
    skip_half_natively(backend, dtype)
    x = argument(shape, up, dtype)
    assert_right(fir_resample(x, up, backend=backend), eager(x, up), exact(x, up), backend)


@both
def test_reference_equals_a_convolution_in_float64(up):
    x = argument((2, 3, 5, 7), up).double()
    torch.testing.assert_close(fir_resample(x, up), eager(x, up), rtol=1e-14, atol=1e-14)


@both
@pytest.mark.parametrize("layout", ["contiguous", "channels-last"])
@pytest.mark.parametrize("columns", [1, 3, 7, 1023, 1025, 4097])
def test_odd_widths_are_right(columns, layout, up):
    x = LAYOUTS[layout](argument((1, 3, 1, columns), up))
    expected = fir_resample(x, up, backend="reference")
    assert_same_bits(fir_resample(x, up, backend="native"), expected)
    if columns < 1000 or (layout == "contiguous" and columns < 2000):  # the interpreter needs up to 19 s for the others
        assert_same_bits(fir_resample(x, up, backend="triton"), expected)


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


@pytest.mark.parametrize("backend", ["native", "triton"])
@both
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout_changes_no_bit_and_is_kept(layout, up, backend):
    x = LAYOUTS[layout](argument((2, 6, 4, 8), up))
    if not up and layout == "a channels-last slice":
        x = x[:, :, 1:, 1:]  # to even sides
    y = fir_resample(x, up, backend=backend)
    assert_same_bits(y, fir_resample(x.contiguous(), up, backend="reference"))
    kept = torch.channels_last if layout == "channels-last" else torch.contiguous_format
    assert y.is_contiguous(memory_format=kept)


@given(
    shape=st.tuples(st.integers(0, 3), st.integers(0, 40), st.integers(0, 12), st.integers(0, 12)),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    channels_last=st.booleans(),
    up=st.booleans(),
    seed=st.integers(0, 99),
)
def test_native_equals_reference_for_any_map(shape, dtype, channels_last, up, seed):
    x = argument(shape, up, dtype, seed)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    assert_same_bits(fir_resample(x, up, backend="native"), fir_resample(x, up, backend="reference"))


@both
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(4, 24, 48, 50), (1, 1100, 3, 5), (1, 2, 3, 5000), (1, 513, 2, 9)])
def test_native_parts_share_one_map(shape, dtype, up):
    for memory_format in (torch.contiguous_format, torch.channels_last):
        x = argument(shape, up, dtype).contiguous(memory_format=memory_format)
        assert_same_bits(fir_resample(x, up, backend="native"), fir_resample(x, up, backend="reference"))


@backends
@both
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), -0.0, 3e38])
def test_special_values_reach_their_neighbours_only(value, up, backend):
    x = argument((1, 2, 6, 6), up)
    x[0, 0, 0, 3] = value
    y = fir_resample(x, up, backend=backend)
    assert_same_bits(y, fir_resample(x, up, backend="reference"))
    assert y.isfinite().sum() == exact(x, up).isfinite().sum()


@backends
@both
def test_empty_maps_stay_empty(up, backend):
    for shape in [(0, 3, 4, 4), (2, 0, 4, 4), (2, 3, 0, 4), (2, 3, 4, 0)]:
        x = torch.zeros(shape, requires_grad=True)
        n, c, h, w = shape
        y = fir_resample(x, up, backend=backend)
        assert y.shape == ((n, c, 2 * h, 2 * w) if up else (n, c, h // 2, w // 2))
        (slope,) = torch.autograd.grad(y.sum(), x)
        assert slope.shape == shape


@backends
@both
@pytest.mark.parametrize("layout", ["contiguous", "channels-last", "flipped sides"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_gradients_are_as_exact_as_a_convolutions(dtype, layout, up, backend):
    x = LAYOUTS[layout](argument((2, 3, 6, 8), up, dtype))
    found = []
    for function, given_ in (
        (lambda t: fir_resample(t, up, backend=backend), x),
        (lambda t: eager(t, up), x),
        (lambda t: eager(t, up), x.double()),
    ):
        leaf = given_.detach().requires_grad_()
        y = function(leaf)
        slope = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)
        found += torch.autograd.grad(y, leaf, slope.to(y.dtype))
    assert_right(*found, backend)


@both
def test_gradients_of_gradients_are_right(up):
    x = argument((2, 2, 3, 2), up).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda t: fir_resample(t, up), x)
    assert torch.autograd.gradgradcheck(lambda t: fir_resample(t, up).pow(2), x)


@pytest.mark.parametrize("backend", ["native", "triton"])
@both
def test_a_gradient_penalty_equals_a_convolutions(up, backend):
    def penalty(function) -> Tensor:
        x = argument((2, 3, 4, 5), up).requires_grad_()
        (slope,) = torch.autograd.grad(function(x).pow(3).sum(), x, create_graph=True)
        return torch.autograd.grad(slope.pow(2).sum(), x)[0]

    actual = penalty(lambda t: fir_resample(t, up, backend=backend))
    torch.testing.assert_close(actual, penalty(lambda t: eager(t, up)), rtol=1e-4, atol=1e-4)


@backends
@both
def test_argument_is_not_changed(up, backend):
    x = argument((2, 3, 4, 5), up).requires_grad_()
    before = x.detach().clone()
    fir_resample(x, up, backend=backend).sum().backward()
    assert torch.equal(x.detach(), before)


@backends
@both
def test_many_runs_give_the_same_bits(up, backend):
    x = argument((2, 5, 9, 9), up)
    first = fir_resample(x, up, backend=backend)
    for _ in range(5 if backend == "triton" else 50):
        assert_same_bits(fir_resample(x, up, backend=backend), first)


@backends
@both
def test_custom_ops_pass_opcheck(up, backend):
    x = argument((2, 3, 4, 5), up)
    for given_ in (x, x.clone().requires_grad_()):
        torch.library.opcheck(torch.ops.zellige.fir_resample.default, (given_, up, 1.0, backend))


@both
def test_compiles_as_one_graph_with_its_backward(up):
    x = argument((2, 3, 4, 5), up).requires_grad_()

    def step(t: Tensor) -> Tensor:
        return fir_resample(t, up).tanh()

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    (actual,) = torch.autograd.grad(compiled(x).sum(), x)
    (expected,) = torch.autograd.grad(step(x).sum(), x)
    torch.testing.assert_close(actual, expected)


@both
def test_exports(up):
    class Layer(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return fir_resample(x, up)

    x = argument((2, 3, 4, 5), up)
    program = torch.export.export(Layer(), (x,))
    assert_same_bits(program.module()(x), fir_resample(x, up))


MAPS = "it must be [N, C, H, W], float32, float16, bfloat16 or float64."
EVEN = "it must be [N, C, H, W] with even H and W to be halved."


@pytest.mark.parametrize(
    ("x", "sentence"),
    [
        (torch.zeros(3, 4, 4), f"x is [3, 4, 4] float32; {MAPS}"),
        (torch.zeros(2, 3, 4, 4).int(), f"x is [2, 3, 4, 4] int32; {MAPS}"),
        (torch.zeros(2, 3, 5, 4), f"x is [2, 3, 5, 4] float32; {EVEN}"),
        (torch.zeros(2, 3, 4, 5), f"x is [2, 3, 4, 5] float32; {EVEN}"),
    ],
)
def test_bad_argument_is_named(x, sentence):
    with pytest.raises(ShapeError) as error:
        fir_resample(x, False)
    assert str(error.value) == sentence


def test_a_backend_without_the_dtype_is_refused():
    with pytest.raises(DeviceError, match="'native' cannot run on float16 cpu tensors here"):
        fir_resample(torch.zeros(1, 1, 2, 2).half(), True, backend="native")


@pytest.mark.gpu
@both
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "channels-last"])
def test_gpu_is_as_exact_as_a_convolution_at_full_shape(layout, dtype, up):
    x = LAYOUTS[layout](argument((8, 96, 63, 65), up, dtype).cuda())
    y = fir_resample(x, up, backend="triton")
    assert_right(y, eager(x, up), exact(x, up), "triton")
    assert_same_bits(y, fir_resample(x, up, backend="reference"))
