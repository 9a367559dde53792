import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from zellige.errors import DeviceError, ShapeError
from zellige.kernels import bias_noise_act

from .judge import DTYPES, LAYOUTS, assert_as_exact_as_eager, assert_same_bits

BACKENDS = ["reference", "native", "triton"]
# Single values, odd sides, more channels than a tile and than a program's steps, planes longer than a tile.
SHAPES = [(1, 1, 1, 1), (2, 3, 5, 7), (1, 67, 3, 2), (2, 2, 33, 35), (3, 1, 1, 9)]
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


def eager(x: Tensor, bias: Tensor, noise: Tensor | None = None, strength: Tensor | None = None) -> Tensor:
    if noise is not None and strength is not None:
        x = x + strength.to(x.dtype) * noise.to(x.dtype)
    return F.leaky_relu(x + bias.to(x.dtype)[:, None, None], 0.2) * 2**0.5


def exact(*inputs: Tensor) -> Tensor:
    return bias_noise_act(*(t.double() for t in inputs), backend="reference")


def assert_right(actual: Tensor, by_eager: Tensor, by_reference: Tensor, backend: str) -> None:
    if backend == "triton" and actual.dtype == torch.bfloat16 and not actual.is_cuda:
        # Triton's interpreter cuts bfloat16 off where a GPU rounds: up to 2**-7 is lost, 0.0076 measured.
        torch.testing.assert_close(actual.double(), by_reference, rtol=2**-7, atol=1e-6)
    else:
        assert_as_exact_as_eager(actual, by_eager, by_reference)


def skip_half_natively(backend: str, dtype: torch.dtype) -> None:
    if backend == "native" and dtype == torch.float16:
        pytest.skip("the C++ kernel takes float32 and bfloat16")


@backends
@kinds
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_result_is_as_exact_as_eager(shape, dtype, kind, backend):
    skip_half_natively(backend, dtype)
    given_ = arguments(shape, kind, dtype)
    y = bias_noise_act(*given_, backend=backend)
    assert_right(y, eager(*given_), exact(*given_), backend)


@backends
@pytest.mark.parametrize("pixels", [1, 3, 7, 1023, 1025, 4097])
@pytest.mark.parametrize("layout", ["contiguous", "channels-last"])
def test_odd_counts_of_pixels_are_right(layout, pixels, backend):
    x, *others = arguments((2, 2, 1, pixels))
    x = LAYOUTS[layout](x)
    assert_as_exact_as_eager(bias_noise_act(x, *others, backend=backend), eager(x, *others), exact(x, *others))


@pytest.mark.parametrize("backend", ["native", "triton"])
@kinds
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout_changes_no_bit_and_is_kept(layout, kind, backend):
    x = LAYOUTS[layout](arguments((2, 6, 4, 8))[0])
    _, *others = arguments(tuple(x.shape), kind)
    if kind != "no noise":
        others[1] = others[1].transpose(2, 3).contiguous().transpose(2, 3)
    y = bias_noise_act(x, *others, backend=backend)
    assert_same_bits(y, bias_noise_act(x.contiguous(), *others, backend="reference"))
    kept = torch.channels_last if layout == "channels-last" else torch.contiguous_format
    assert y.is_contiguous(memory_format=kept)


@given(
    shape=st.tuples(st.integers(0, 3), st.integers(0, 40), st.integers(0, 20), st.integers(0, 20)),
    kind=st.sampled_from(KINDS),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    channels_last=st.booleans(),
    slope=st.floats(-2, 2, width=32),
    gain=st.floats(-4, 4),
    seed=st.integers(0, 99),
)
def test_native_equals_reference_for_any_map(shape, kind, dtype, channels_last, slope, gain, seed):
    x, *others = arguments(shape, kind, dtype, seed)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    expected = bias_noise_act(x, *others, slope=slope, gain=gain, backend="reference")
    assert_same_bits(bias_noise_act(x, *others, slope=slope, gain=gain, backend="native"), expected)


@kinds
def test_native_threads_share_one_map(kind):
    x, *others = arguments((4, 24, 96, 96), kind)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        x = x.contiguous(memory_format=memory_format)
        expected = bias_noise_act(x, *others, backend="reference")
        assert_same_bits(bias_noise_act(x, *others, backend="native"), expected)


@backends
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_every_tensor_may_have_the_dtype_of_x(dtype, backend):
    skip_half_natively(backend, dtype)
    inputs = [t.to(dtype) for t in arguments((2, 3, 4, 5))]
    inputs[3] = inputs[3].view(1)
    leaves = [t.requires_grad_() for t in inputs]
    y = bias_noise_act(*leaves, backend=backend)
    detached = [t.detach() for t in inputs]
    assert_right(y.detach(), eager(*detached), exact(*detached), backend)
    for slope, leaf in zip(torch.autograd.grad(y.float().sum(), leaves), leaves, strict=True):
        assert slope.dtype == leaf.dtype and slope.shape == leaf.shape


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


@backends
@kinds
def test_empty_maps_stay_empty(kind, backend):
    for shape in [(0, 3, 4, 4), (2, 0, 4, 4), (2, 3, 0, 4), (2, 3, 4, 0)]:
        leaves = [t.requires_grad_() for t in arguments(shape, kind)]
        y = bias_noise_act(*leaves, backend=backend)
        assert y.shape == shape
        for slope, leaf in zip(torch.autograd.grad(y.sum(), leaves), leaves, strict=True):
            assert slope.shape == leaf.shape and not slope.any()


@backends
@kinds
@pytest.mark.parametrize("layout", ["contiguous", "channels-last", "sliced"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_gradients_are_as_exact_as_eager(dtype, layout, kind, backend):
    x = LAYOUTS[layout](arguments((2, 18, 6, 8), dtype=dtype)[0])
    _, *others = arguments(tuple(x.shape), kind)
    found = []
    for function, inputs in (
        (lambda *t: bias_noise_act(*t, backend=backend), (x, *others)),
        (eager, (x, *others)),
        (exact, (x.double(), *(t.double() for t in others))),
    ):
        leaves = [t.detach().requires_grad_() for t in inputs]
        y = function(*leaves)
        slope = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)
        found.append(torch.autograd.grad(y, leaves, slope.to(y.dtype)))
    for actual, by_eager, by_reference in zip(*found, strict=True):
        assert_right(actual, by_eager, by_reference, backend)


@kinds
def test_gradients_of_gradients_are_right(kind):
    inputs = [t.double().requires_grad_() for t in arguments((2, 2, 3, 2), kind, seed=3)]
    assert torch.autograd.gradcheck(bias_noise_act, inputs)
    assert torch.autograd.gradgradcheck(bias_noise_act, inputs)


@pytest.mark.parametrize("backend", ["native", "triton"])
@kinds
def test_a_gradient_penalty_equals_the_references(kind, backend):
    def penalty(backend: str) -> list[Tensor]:
        leaves = [t.requires_grad_() for t in arguments((2, 3, 4, 5), kind)]
        value = bias_noise_act(*leaves, backend=backend).pow(2).sum()
        slopes = torch.autograd.grad(value, leaves[0], create_graph=True)
        return list(torch.autograd.grad(slopes[0].pow(2).sum(), leaves))

    for actual, expected in zip(penalty(backend), penalty("reference"), strict=True):
        torch.testing.assert_close(actual, expected)


@backends
def test_only_wanted_gradients_are_made(backend):
    x, bias, noise, strength = arguments((1, 2, 3, 3))
    strength.requires_grad_()
    bias_noise_act(x, bias, noise, strength, backend=backend).sum().backward()
    assert x.grad is None and bias.grad is None and noise.grad is None
    value = x + strength.detach() * noise + bias[:, None, None]
    torch.testing.assert_close(strength.grad, (2**0.5 * torch.where(value >= 0, 1.0, 0.2) * noise).sum())


@backends
def test_arguments_are_not_changed(backend):
    inputs = [t.requires_grad_() for t in arguments((2, 3, 4, 5))]
    before = [t.detach().clone() for t in inputs]
    bias_noise_act(*inputs, backend=backend).sum().backward()
    assert all(torch.equal(now.detach(), then) for now, then in zip(inputs, before, strict=True))


@backends
def test_many_runs_give_the_same_bits(backend):
    def run() -> list[Tensor]:
        leaves = [t.requires_grad_() for t in arguments((2, 5, 9, 9))]
        y = bias_noise_act(*leaves, backend=backend)
        return [y.detach(), *torch.autograd.grad(y.pow(2).sum(), leaves)]

    first = run()
    for _ in range(5 if backend == "triton" else 50):
        for again, before in zip(run(), first, strict=True):
            assert_same_bits(again, before)


@backends
@kinds
def test_custom_ops_pass_opcheck(kind, backend):
    inputs = arguments((2, 3, 4, 5), kind)
    missing = [None] * (4 - len(inputs))
    torch.library.opcheck(torch.ops.zellige.bias_noise_act.default, (*inputs, *missing, 0.2, 1.5, backend))
    leaves = [t.requires_grad_() for t in inputs]
    torch.library.opcheck(torch.ops.zellige.bias_noise_act.default, (*leaves, *missing, 0.2, 1.5, backend))


@kinds
def test_compiles_as_one_graph_with_its_backward(kind):
    inputs = [t.requires_grad_() for t in arguments((2, 3, 4, 5), kind)]

    def step(*t: Tensor) -> Tensor:
        return bias_noise_act(*t).tanh()

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    for actual, expected in zip(
        torch.autograd.grad(compiled(*inputs).sum(), inputs),
        torch.autograd.grad(step(*inputs).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(actual, expected)


def test_exports():
    class Layer(torch.nn.Module):
        def forward(self, x: Tensor, bias: Tensor, noise: Tensor, strength: Tensor) -> Tensor:
            return bias_noise_act(x, bias, noise, strength)

    inputs = tuple(arguments((2, 3, 4, 5)))
    program = torch.export.export(Layer(), inputs)
    assert_same_bits(program.module()(*inputs), bias_noise_act(*inputs))


GOOD = {
    "x": torch.zeros(2, 3, 4, 5),
    "bias": torch.ones(3),
    "noise": torch.ones(2, 1, 4, 5),
    "strength": torch.ones(()),
}
FOR_X = "for x of shape [2, 3, 4, 5]."
MAPS = "it must be [N, C, H, W], float32, float16, bfloat16 or float64."


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"x": torch.zeros(3, 4, 5)}, f"x is [3, 4, 5] float32; {MAPS}"),
        ({"x": torch.zeros(2, 3, 4, 5).int()}, f"x is [2, 3, 4, 5] int32; {MAPS}"),
        ({"bias": torch.ones(4)}, f"bias is [4] float32; it must be [3] float32 {FOR_X}"),
        ({"bias": torch.ones(3).half()}, f"bias is [3] float16; it must be [3] float32 {FOR_X}"),
        ({"bias": torch.ones(3, device="meta")}, "bias is on meta but x is on cpu; move it there."),
        ({"noise": None}, "strength is given and noise is None; give both or neither."),
        ({"strength": None}, "noise is given and strength is None; give both or neither."),
        (
            {"noise": torch.ones(2, 3, 4, 5)},
            f"noise is [2, 3, 4, 5] float32; it must be [2, 1, 4, 5] or [1, 1, 4, 5], float32, {FOR_X}",
        ),
        (
            {"noise": torch.ones(2, 1, 4, 5).half()},
            f"noise is [2, 1, 4, 5] float16; it must be [2, 1, 4, 5] or [1, 1, 4, 5], float32, {FOR_X}",
        ),
        ({"noise": torch.ones(2, 1, 4, 5, device="meta")}, "noise is on meta but x is on cpu; move it there."),
        ({"strength": torch.ones(3)}, f"strength is [3] float32; it must be [] or [1], float32, {FOR_X}"),
        ({"strength": torch.ones((), device="meta")}, "strength is on meta but x is on cpu; move it there."),
        (
            {"x": torch.zeros(2, 3, 4, 5).half(), "strength": torch.ones(1).bfloat16()},
            f"strength is [1] bfloat16; it must be [] or [1], float32 or float16, {FOR_X}",
        ),
    ],
)
def test_bad_argument_is_named(changed, sentence):
    with pytest.raises(ShapeError) as error:
        bias_noise_act(**(GOOD | changed))
    assert str(error.value) == sentence


def test_a_backend_without_the_dtype_is_refused():
    with pytest.raises(DeviceError, match="'native' cannot run on float16 cpu tensors here"):
        bias_noise_act(GOOD["x"].half(), GOOD["bias"], backend="native")


@pytest.mark.gpu
@kinds
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "channels-last"])
def test_gpu_is_as_exact_as_eager_at_full_shape(layout, dtype, kind):
    x, *others = (t.cuda() for t in arguments((8, 96, 127, 129), kind, dtype))
    inputs = [LAYOUTS[layout](x), *others]
    y = bias_noise_act(*inputs, backend="triton")
    assert_as_exact_as_eager(y, eager(*inputs), exact(*inputs))
    assert_same_bits(y, bias_noise_act(*inputs, backend="reference"))
    leaves = [t.detach().requires_grad_() for t in inputs]
    slope = torch.randn(y.shape, device="cuda").to(dtype)
    doubles = [t.detach().double().requires_grad_() for t in inputs]
    for actual, by_eager, by_reference in zip(
        torch.autograd.grad(bias_noise_act(*leaves, backend="triton"), leaves, slope),
        torch.autograd.grad(eager(*leaves), leaves, slope),
        torch.autograd.grad(exact(*doubles), doubles, slope.double()),
        strict=True,
    ):
        # A sum of 1.6 million float32 values, whose error is that of sums and not of values.
        scale = by_reference.abs().max().clamp(min=1).float() if actual.dim() < 2 else 1.0
        assert_as_exact_as_eager(actual / scale, by_eager / scale, by_reference / scale)
