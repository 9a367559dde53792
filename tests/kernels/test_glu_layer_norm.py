import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from zellige.errors import DeviceError, ShapeError
from zellige.kernels import glu_layer_norm

from .judge import DTYPES, LAYOUTS, assert_as_exact_as_eager, assert_same_bits

BACKENDS = ["reference", "native", "triton"]
# Single values, odd sides, more channels than a tile of the GPU kernel; rows (whole samples) of 1 to 4097 values around
# the sizes of lanes, blocks and parts.
SHAPES = [
    (1, 2, 1, 1),
    (2, 6, 5, 7),
    (1, 262, 3, 2),
    (3, 2, 1, 3),
    (2, 2, 1, 7),
    (1, 2, 33, 31),
    (1, 2, 25, 41),
    (2, 34, 1, 241),
]
backends = pytest.mark.parametrize("backend", BACKENDS)


def arguments(shape: tuple[int, ...], dtype: torch.dtype = torch.float32, seed: int = 0) -> tuple[Tensor, ...]:
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=random).to(dtype)
    return x, *(torch.randn(shape[1] // 2, generator=random) for _ in range(2))


def eager(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    left, right = x.chunk(2, 1)
    weight, bias = (t[:, None, None].to(x.dtype) for t in (weight, bias))
    return (F.layer_norm(left, left.shape[1:]) * weight + bias) * right.sigmoid()


def exact(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return glu_layer_norm(x.double(), weight.double(), bias.double(), backend="reference")


def skip_half_natively(backend: str, dtype: torch.dtype) -> None:
    if backend == "native" and dtype == torch.float16:
        pytest.skip("the C++ kernel takes float32 and bfloat16")


@backends
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_result_is_as_exact_as_eager(shape, dtype, backend):
    skip_half_natively(backend, dtype)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        x, *factors = arguments(shape, dtype)
        x = x.contiguous(memory_format=memory_format)
        y = glu_layer_norm(x, *factors, backend=backend)
        assert_as_exact_as_eager(y, eager(x, *factors), exact(x, *factors))


@backends
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout_changes_no_value_and_is_kept(layout, backend):
    x, weight, bias = arguments((2, 6, 4, 8))
    x = LAYOUTS[layout](x)
    weight, bias = weight[: x.shape[1] // 2], bias[: x.shape[1] // 2]
    y = glu_layer_norm(x, weight, bias, backend=backend)
    torch.testing.assert_close(y, glu_layer_norm(x.contiguous(), weight, bias, backend=backend))
    kept = torch.channels_last if layout == "channels-last" else torch.contiguous_format
    assert y.is_contiguous(memory_format=kept)


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


@given(
    shape=st.tuples(st.integers(0, 3), st.integers(0, 40).map(lambda c: 2 * c), st.integers(0, 20), st.integers(0, 20)),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    channels_last=st.booleans(),
    seed=st.integers(0, 99),
)
def test_native_equals_reference_for_any_map(shape, dtype, channels_last, seed):
    x, weight, bias = arguments(shape, dtype, seed)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    expected = glu_layer_norm(x, weight, bias, backend="reference")
    torch.testing.assert_close(glu_layer_norm(x, weight, bias, backend="native"), expected)


def test_native_threads_share_one_map_and_change_no_bit():
    # Samples that all threads share, and ones that each take by itself; neither must depend on the other samples.
    for shape in [(2, 48, 96, 96), (6, 24, 32, 33)]:
        x, weight, bias = arguments(shape)
        for memory_format in (torch.contiguous_format, torch.channels_last):
            x = x.contiguous(memory_format=memory_format)
            y = glu_layer_norm(x, weight, bias, backend="native")
            torch.testing.assert_close(y, glu_layer_norm(x, weight, bias, backend="reference"))
            for k in range(len(x)):
                alone = glu_layer_norm(x[k : k + 1], weight, bias, backend="native")
                assert_same_bits(alone, y[k : k + 1])


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


@backends
def test_empty_maps_stay_empty(backend):
    for shape in [(0, 6, 4, 4), (2, 0, 4, 4), (2, 6, 0, 4), (2, 6, 4, 0)]:
        inputs = [t.requires_grad_() for t in arguments(shape)]
        y = glu_layer_norm(*inputs, backend=backend)
        assert y.shape == (shape[0], shape[1] // 2, *shape[2:])
        gradients = torch.autograd.grad(y.sum(), inputs)
        assert all((t == 0).all() for t in gradients)


@backends
@pytest.mark.parametrize("layout", ["contiguous", "channels-last", "sliced"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_gradients_are_as_exact_as_eager(dtype, layout, backend):
    x, weight, bias = arguments((2, 6, 6, 8), dtype)
    x = LAYOUTS[layout](x)
    found = []
    for function, inputs in (
        (lambda *t: glu_layer_norm(*t, backend=backend), (x, weight, bias)),
        (eager, (x, weight, bias)),
        (exact, (x.double(), weight.double(), bias.double())),
    ):
        leaves = [t.detach().requires_grad_() for t in inputs]
        y = function(*leaves)
        slope = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)
        found.append(torch.autograd.grad(y, leaves, slope.to(y.dtype)))
    for actual, by_eager, by_reference in zip(*found, strict=True):
        assert_as_exact_as_eager(actual, by_eager, by_reference)


@pytest.mark.parametrize("layout", ["contiguous", "channels-last"])
@pytest.mark.parametrize("shape", SHAPES)
def test_triton_gradients_equal_the_references(shape, layout):
    found = []
    for backend in ("triton", "reference"):
        x, weight, bias = arguments(shape)
        leaves = [t.requires_grad_() for t in (LAYOUTS[layout](x), weight, bias)]
        y = glu_layer_norm(*leaves, backend=backend)
        slope = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
        found.append(torch.autograd.grad(y, leaves, slope))
    for actual, expected in zip(*found, strict=True):
        torch.testing.assert_close(actual, expected, atol=2e-5, rtol=1e-5)


def test_gradients_of_gradients_are_right():
    inputs = [t.double().requires_grad_() for t in arguments((2, 4, 3, 2), seed=3)]
    assert torch.autograd.gradcheck(glu_layer_norm, inputs)
    assert torch.autograd.gradgradcheck(glu_layer_norm, inputs)


@pytest.mark.parametrize("backend", ["native", "triton"])
def test_a_gradient_penalty_equals_the_references(backend):
    def penalty(backend: str) -> list[Tensor]:
        leaves = [t.requires_grad_() for t in arguments((2, 6, 4, 5))]
        y = glu_layer_norm(*leaves, backend=backend)
        slopes = torch.autograd.grad(y.pow(2).sum(), leaves[0], create_graph=True)
        return list(torch.autograd.grad(slopes[0].pow(2).sum(), leaves))

    for actual, expected in zip(penalty(backend), penalty("reference"), strict=True):
        torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-5)


@backends
def test_only_wanted_gradients_are_made(backend):
    x, weight, bias = arguments((1, 4, 3, 3))
    bias.requires_grad_()
    glu_layer_norm(x, weight, bias, backend=backend).sum().backward()
    assert x.grad is None and weight.grad is None
    torch.testing.assert_close(bias.grad, x[:, 2:].sigmoid().sum((0, 2, 3)))


@backends
def test_arguments_are_not_changed(backend):
    inputs = [t.requires_grad_() for t in arguments((2, 6, 4, 5))]
    before = [t.detach().clone() for t in inputs]
    glu_layer_norm(*inputs, backend=backend).sum().backward()
    assert all(torch.equal(now.detach(), then) for now, then in zip(inputs, before, strict=True))


@backends
def test_hundred_runs_give_the_same_bits(backend):
    inputs = arguments((2, 10, 9, 9))
    first = glu_layer_norm(*inputs, backend=backend)
    for _ in range(10 if backend == "triton" else 100):
        assert_same_bits(glu_layer_norm(*inputs, backend=backend), first)


@backends
def test_custom_ops_pass_opcheck(backend):
    inputs = arguments((2, 6, 4, 5))
    torch.library.opcheck(torch.ops.zellige.glu_layer_norm.default, (*inputs, 1e-5, backend))
    leaves = [t.requires_grad_() for t in inputs]
    torch.library.opcheck(torch.ops.zellige.glu_layer_norm.default, (*leaves, 1e-5, backend))


def test_compiles_as_one_graph_with_its_backward():
    inputs = [t.requires_grad_() for t in arguments((2, 6, 4, 5))]

    def step(*t: Tensor) -> Tensor:
        return glu_layer_norm(*t).tanh()

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    for actual, expected in zip(
        torch.autograd.grad(compiled(*inputs).sum(), inputs),
        torch.autograd.grad(step(*inputs).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(actual, expected)


def test_exports():
    class Layer(torch.nn.Module):
        def forward(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
            return glu_layer_norm(x, weight, bias)

    inputs = arguments((2, 6, 4, 5))
    program = torch.export.export(Layer(), inputs)
    assert_same_bits(program.module()(*inputs), glu_layer_norm(*inputs))


GOOD = {"x": torch.zeros(2, 6, 4, 5), "weight": torch.ones(3), "bias": torch.ones(3)}


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (
            {"x": torch.zeros(6, 4, 5)},
            "x is [6, 4, 5] float32; it must be [N, 2C, H, W], float32, float16, bfloat16 or float64.",
        ),
        (
            {"x": torch.zeros(2, 7, 4, 5)},
            "x is [2, 7, 4, 5] float32; it must be [N, 2C, H, W], float32, float16, bfloat16 or float64.",
        ),
        (
            {"x": torch.zeros(2, 6, 4, 5).int()},
            "x is [2, 6, 4, 5] int32; it must be [N, 2C, H, W], float32, float16, bfloat16 or float64.",
        ),
        (
            {"weight": torch.ones(6)},
            "weight is [6] float32; it must be [3] float32 for x of shape [2, 6, 4, 5].",
        ),
        (
            {"bias": torch.ones(3).half()},
            "bias is [3] float16; it must be [3] float32 for x of shape [2, 6, 4, 5].",
        ),
        ({"bias": torch.ones(3, device="meta")}, "bias is on meta but x is on cpu; move it there."),
        ({"eps": 0.0}, "eps is 0.0; it must be a finite number above 0."),
        ({"eps": -1e-5}, "eps is -1e-05; it must be a finite number above 0."),
        ({"eps": float("nan")}, "eps is nan; it must be a finite number above 0."),
    ],
)
def test_bad_argument_is_named(changed, sentence):
    with pytest.raises(ShapeError) as error:
        glu_layer_norm(**(GOOD | changed))
    assert str(error.value) == sentence


def test_a_backend_without_the_dtype_is_refused():
    with pytest.raises(DeviceError, match="'native' cannot run on float16 cpu tensors here"):
        glu_layer_norm(GOOD["x"].half(), GOOD["weight"], GOOD["bias"], backend="native")


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "channels-last"])
def test_gpu_is_as_exact_as_eager_at_full_shape(layout, dtype):
    x, weight, bias = arguments((8, 192, 127, 129), dtype)
    inputs = [t.cuda() for t in (LAYOUTS[layout](x), weight, bias)]
    y = glu_layer_norm(*inputs, backend="triton")
    assert_as_exact_as_eager(y, eager(*inputs), exact(*inputs))


@pytest.mark.gpu
@pytest.mark.parametrize("layout", ["contiguous", "channels-last"])
def test_gpu_gradients_equal_the_references_at_full_shape(layout):
    found = []
    for backend in ("triton", "reference"):
        leaves = [t.cuda().requires_grad_() for t in arguments((2, 130, 127, 129))]
        y = glu_layer_norm(LAYOUTS[layout](leaves[0]), *leaves[1:], backend=backend)
        slope = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).cuda()
        found.append(torch.autograd.grad(y, leaves, slope))
    for actual, expected in zip(*found, strict=True):
        torch.testing.assert_close(actual, expected, atol=1e-3, rtol=1e-4)
