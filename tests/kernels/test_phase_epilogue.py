import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from zellige.errors import DeviceError, ShapeError
from zellige.kernels import affine_relu, glu_layer_norm, phase_epilogue

from .judge import DTYPES, LAYOUTS, assert_as_exact_as_eager, assert_same_bits

BACKENDS = ["reference", "native", "triton"]
# [N, C, H, W] with the result's channels. Single values, odd sides, more channels than a tile of the GPU kernel.
SHAPES = [(1, 1, 1, 1), (2, 3, 5, 7), (1, 131, 3, 2), (2, 2, 17, 19), (3, 1, 1, 3)]
activations = pytest.mark.parametrize("activation", ["glu_layer_norm", "affine_relu"])
backends = pytest.mark.parametrize("backend", BACKENDS)


def arguments(
    shape: tuple[int, ...], activation: str, dtype: torch.dtype = torch.float32, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor, str]:
    n, channels, h, w = shape
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(n, (8 if activation == "glu_layer_norm" else 4) * channels, h, w, generator=random).to(dtype)
    factors = (channels,) if activation == "glu_layer_norm" else (n, channels)
    return x, *(torch.randn(factors, generator=random) for _ in range(2)), activation


def interleaved(x: Tensor) -> Tensor:
    n, channels, h, w = x.shape
    whole = x.new_empty(n, channels // 4, 2 * h, 2 * w)
    for phase, values in enumerate(x.chunk(4, 1)):
        whole[:, :, phase // 2 :: 2, phase % 2 :: 2] = values
    return whole


def eager(x: Tensor, weight: Tensor, bias: Tensor, activation: str) -> Tensor:
    u, weight, bias = interleaved(x), weight.to(x.dtype), bias.to(x.dtype)
    if activation == "affine_relu":
        return (u * weight[:, :, None, None] + bias[:, :, None, None]).relu()
    left, right = u.chunk(2, 1)
    left = torch.nn.functional.layer_norm(left, left.shape[1:])
    return (left * weight[:, None, None] + bias[:, None, None]) * right.sigmoid()


def exact(x: Tensor, weight: Tensor, bias: Tensor, activation: str) -> Tensor:
    function = affine_relu if activation == "affine_relu" else glu_layer_norm
    return function(interleaved(x.double()), weight.double(), bias.double(), backend="reference")


def skip_half_natively(backend: str, dtype: torch.dtype) -> None:
    if backend == "native" and dtype == torch.float16:
        pytest.skip("the C++ kernel takes float32 and bfloat16")


@backends
@activations
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_result_is_as_exact_as_eager(shape, dtype, activation, backend):
    skip_half_natively(backend, dtype)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        x, *others = arguments(shape, activation, dtype)
        x = x.contiguous(memory_format=memory_format)
        y = phase_epilogue(x, *others, backend=backend)
        assert_as_exact_as_eager(y, eager(x, *others), exact(x, *others))


@backends
@activations
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout_changes_no_value_and_is_kept(layout, activation, backend):
    x, weight, bias, _ = arguments((2, 3, 4, 8), activation)
    x = LAYOUTS[layout](x)
    y = phase_epilogue(x, weight, bias, activation, backend=backend)
    torch.testing.assert_close(y, phase_epilogue(x.contiguous(), weight, bias, activation, backend=backend))
    kept = torch.channels_last if layout == "channels-last" else torch.contiguous_format
    assert y.is_contiguous(memory_format=kept)


@given(
    shape=st.tuples(st.integers(0, 3), st.integers(0, 20), st.integers(0, 12), st.integers(0, 20)),
    activation=st.sampled_from(["glu_layer_norm", "affine_relu"]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    channels_last=st.booleans(),
    seed=st.integers(0, 99),
)
def test_native_equals_reference_for_any_map(shape, activation, dtype, channels_last, seed):
    x, *others = arguments(shape, activation, dtype, seed)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    expected = phase_epilogue(x, *others, backend="reference")
    actual = phase_epilogue(x, *others, backend="native")
    if activation == "affine_relu":
        assert_same_bits(actual, expected)
    else:
        torch.testing.assert_close(actual, expected)


@activations
def test_native_threads_share_one_map_and_change_no_bit(activation):
    # Samples that all threads share, and ones that each take by itself; neither must depend on the other samples.
    for shape in [(2, 48, 48, 48), (6, 24, 16, 17)]:
        x, weight, bias, _ = arguments(shape, activation)
        for memory_format in (torch.contiguous_format, torch.channels_last):
            x = x.contiguous(memory_format=memory_format)
            y = phase_epilogue(x, weight, bias, activation, backend="native")
            torch.testing.assert_close(y, phase_epilogue(x, weight, bias, activation, backend="reference"))
            for k in range(len(x)):
                of_one = [t[k : k + 1] if activation == "affine_relu" else t for t in (weight, bias)]
                alone = phase_epilogue(x[k : k + 1], *of_one, activation, backend="native")
                assert_same_bits(alone, y[k : k + 1])


@backends
def test_a_mean_far_above_the_deviation_costs_no_precision(backend):
    x, *others = arguments((2, 8, 15, 17), "glu_layer_norm")
    x += 1000
    for memory_format in (torch.contiguous_format, torch.channels_last):
        y = phase_epilogue(x.contiguous(memory_format=memory_format), *others, backend=backend)
        torch.testing.assert_close(y, exact(x, *others).float())


@backends
@activations
def test_nan_and_infinity_come_through(activation, backend):
    x, *others = arguments((2, 2, 3, 5), activation)
    x[0, 5, 0, 0] = float("nan")
    x[0, 6, 2, 4] = -float("inf")
    x[1, -1, 1, 1] = float("inf")
    for memory_format in (torch.contiguous_format, torch.channels_last):
        y = phase_epilogue(x.contiguous(memory_format=memory_format), *others, backend=backend)
        torch.testing.assert_close(y, exact(x, *others).float(), equal_nan=True)


@backends
@activations
def test_empty_maps_stay_empty(activation, backend):
    for n, c, h, w in [(0, 3, 4, 4), (2, 0, 4, 4), (2, 3, 0, 4), (2, 3, 4, 0)]:
        y = phase_epilogue(*arguments((n, c, h, w), activation), backend=backend)
        assert y.shape == (n, c, 2 * h, 2 * w)


@backends
@activations
def test_arguments_are_not_changed(activation, backend):
    *inputs, _ = arguments((2, 3, 4, 5), activation)
    before = [t.clone() for t in inputs]
    phase_epilogue(*inputs, activation, backend=backend)
    assert all(torch.equal(now, then) for now, then in zip(inputs, before, strict=True))


@backends
@activations
def test_hundred_runs_give_the_same_bits(activation, backend):
    inputs = arguments((2, 5, 5, 5), activation)
    first = phase_epilogue(*inputs, backend=backend)
    for _ in range(10 if backend == "triton" else 100):
        assert_same_bits(phase_epilogue(*inputs, backend=backend), first)


@backends
@activations
def test_custom_op_passes_opcheck(activation, backend):
    inputs = arguments((2, 3, 4, 5), activation)
    torch.library.opcheck(torch.ops.zellige.phase_epilogue.default, (*inputs, 1e-5, backend))


@backends
def test_a_backward_is_refused(backend):
    x, *others = arguments((1, 2, 3, 4), "glu_layer_norm")
    y = phase_epilogue(x.requires_grad_(), *others, backend=backend)
    with pytest.raises(RuntimeError, match="no autograd formula was registered"):
        y.sum().backward()


@activations
def test_compiles_as_one_graph(activation):
    inputs = arguments((2, 3, 4, 5), activation)
    compiled = torch.compile(lambda *t: phase_epilogue(*t, activation).tanh(), fullgraph=True, backend="aot_eager")
    assert_same_bits(compiled(*inputs[:3]), phase_epilogue(*inputs).tanh())


@activations
def test_exports(activation):
    class Layer(torch.nn.Module):
        def forward(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
            return phase_epilogue(x, weight, bias, activation)

    *inputs, _ = arguments((2, 3, 4, 5), activation)
    program = torch.export.export(Layer(), tuple(inputs))
    assert_same_bits(program.module()(*inputs), phase_epilogue(*inputs, activation))


GOOD = {"x": torch.zeros(2, 24, 4, 5), "weight": torch.ones(3), "bias": torch.ones(3)}


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (
            {"x": torch.zeros(24, 4, 5)},
            "x is [24, 4, 5] float32; it must be [N, 8C, H, W] for glu_layer_norm, float32, float16, bfloat16 or "
            "float64.",
        ),
        (
            {"x": torch.zeros(2, 20, 4, 5)},
            "x is [2, 20, 4, 5] float32; it must be [N, 8C, H, W] for glu_layer_norm, float32, float16, bfloat16 or "
            "float64.",
        ),
        (
            {"x": torch.zeros(2, 22, 4, 5), "activation": "affine_relu"},
            "x is [2, 22, 4, 5] float32; it must be [N, 4C, H, W] for affine_relu, float32, float16, bfloat16 or "
            "float64.",
        ),
        (
            {"weight": torch.ones(6)},
            "weight is [6] float32; it must be [3] float32 for x of shape [2, 24, 4, 5].",
        ),
        (
            {"activation": "affine_relu"},
            "weight is [3] float32; it must be [2, 6] float32 for x of shape [2, 24, 4, 5].",
        ),
        ({"bias": torch.ones(3, device="meta")}, "bias is on meta but x is on cpu; move it there."),
        ({"eps": 0.0}, "eps is 0.0; it must be a finite number above 0."),
        ({"activation": "relu"}, "activation is 'relu'; it must be one of 'glu_layer_norm', 'affine_relu'."),
    ],
)
def test_bad_argument_is_named(changed, sentence):
    with pytest.raises(ShapeError) as error:
        phase_epilogue(**(GOOD | changed))
    assert str(error.value) == sentence


def test_a_backend_without_the_dtype_is_refused():
    with pytest.raises(DeviceError, match="'native' cannot run on float16 cpu tensors here"):
        phase_epilogue(GOOD["x"].half(), GOOD["weight"], GOOD["bias"], backend="native")


@pytest.mark.gpu
@activations
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "channels-last"])
def test_gpu_is_as_exact_as_eager_at_full_shape(layout, dtype, activation):
    x, weight, bias, _ = arguments((8, 96, 63, 65), activation, dtype)
    inputs = [t.cuda() for t in (LAYOUTS[layout](x), weight, bias)]
    y = phase_epilogue(*inputs, activation, backend="triton")
    assert_as_exact_as_eager(y, eager(*inputs, activation), exact(*inputs, activation))
