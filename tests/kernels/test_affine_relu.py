import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from zellige.errors import DeviceError, ShapeError
from zellige.kernels import affine_relu

from .judge import DTYPES, LAYOUTS, assert_as_exact_as_eager, assert_same_bits

BACKENDS = ["reference", "native", "triton"]
# Single values, odd sides, more channels than a tile of the GPU kernel, planes longer than one.
SHAPES = [(1, 1, 1, 1), (2, 3, 5, 7), (1, 67, 3, 2), (2, 2, 33, 35), (3, 1, 1, 9)]
both = pytest.mark.parametrize("upsample", [False, True])
backends = pytest.mark.parametrize("backend", BACKENDS)


def arguments(shape: tuple[int, ...], dtype: torch.dtype = torch.float32, seed: int = 0) -> tuple[Tensor, ...]:
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=random).to(dtype)
    return x, *(torch.randn(shape[:2], generator=random) for _ in range(2))


def eager(x: Tensor, scale: Tensor, shift: Tensor, upsample: bool) -> Tensor:
    scale, shift = (t[:, :, None, None].to(x.dtype) for t in (scale, shift))
    y = F.relu(x * scale + shift)
    return F.interpolate(y, scale_factor=2.0) if upsample else y


def exact(x: Tensor, scale: Tensor, shift: Tensor, upsample: bool) -> Tensor:
    return affine_relu(x.double(), scale.double(), shift.double(), upsample, backend="reference")


def skip_half_natively(backend: str, dtype: torch.dtype) -> None:
    if backend == "native" and dtype == torch.float16:
        pytest.skip("the C++ kernel takes float32 and bfloat16")


@backends
@both
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_result_is_as_exact_as_eager(shape, dtype, upsample, backend):
    skip_half_natively(backend, dtype)
    given_ = arguments(shape, dtype)
    y = affine_relu(*given_, upsample, backend=backend)
    assert_as_exact_as_eager(y, eager(*given_, upsample), exact(*given_, upsample))


@backends
@both
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout_changes_no_value_and_is_kept(layout, upsample, backend):
    x, scale, shift = arguments((2, 6, 4, 8))
    x = LAYOUTS[layout](x)
    y = affine_relu(x, scale, shift, upsample, backend=backend)
    assert_same_bits(y, affine_relu(x.contiguous(), scale, shift, upsample, backend=backend))
    kept = torch.channels_last if layout == "channels-last" else torch.contiguous_format
    assert y.is_contiguous(memory_format=kept)


@given(
    shape=st.tuples(st.integers(0, 3), st.integers(0, 40), st.integers(0, 20), st.integers(0, 20)),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    channels_last=st.booleans(),
    upsample=st.booleans(),
    seed=st.integers(0, 99),
)
def test_native_equals_reference_for_any_map(shape, dtype, channels_last, upsample, seed):
    x, scale, shift = arguments(shape, dtype, seed)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    expected = affine_relu(x, scale, shift, upsample, backend="reference")
    assert_same_bits(affine_relu(x, scale, shift, upsample, backend="native"), expected)


def test_native_threads_share_one_map():
    x, scale, shift = arguments((4, 24, 96, 96))
    for memory_format in (torch.contiguous_format, torch.channels_last):
        x = x.contiguous(memory_format=memory_format)
        expected = affine_relu(x, scale, shift, backend="reference")
        assert_same_bits(affine_relu(x, scale, shift, backend="native"), expected)


@backends
@both
def test_nan_and_infinity_come_through(upsample, backend):
    x = torch.tensor([float("nan"), float("inf"), -float("inf"), -0.0]).view(1, 1, 2, 2)
    y = affine_relu(x, torch.tensor([[2.0]]), torch.tensor([[0.0]]), backend=backend)
    assert y.isnan().flatten().tolist() == [True, False, False, False]
    assert y.flatten().tolist()[1:] == [float("inf"), 0.0, 0.0]


def test_every_bfloat16_is_rounded_as_torch_does():
    x = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(torch.bfloat16).view(1, 1, 256, 256)
    factors = torch.full((1, 1), 1.0 + 2**-9), torch.full((1, 1), 1e-30)
    assert_same_bits(affine_relu(x, *factors, backend="native"), affine_relu(x, *factors, backend="reference"))


@backends
@both
def test_empty_maps_stay_empty(upsample, backend):
    for shape in [(0, 3, 4, 4), (2, 0, 4, 4), (2, 3, 0, 4), (2, 3, 4, 0)]:
        n, c, h, w = shape
        factor = 2 if upsample else 1
        y = affine_relu(*arguments(shape), upsample, backend=backend)
        assert y.shape == (n, c, factor * h, factor * w)


@backends
@both
@pytest.mark.parametrize("layout", ["contiguous", "channels-last", "sliced"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_gradients_are_as_exact_as_eager(dtype, layout, upsample, backend):
    x, scale, shift = arguments((2, 3, 6, 8), dtype)
    x = LAYOUTS[layout](x)
    found = []
    for function, inputs in (
        (lambda *t: affine_relu(*t, upsample, backend=backend), (x, scale, shift)),
        (lambda *t: eager(*t, upsample), (x, scale, shift)),
        (lambda *t: exact(*t, upsample), (x.double(), scale.double(), shift.double())),
    ):
        leaves = [t.detach().requires_grad_() for t in inputs]
        y = function(*leaves)
        slope = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)
        found.append(torch.autograd.grad(y, leaves, slope.to(y.dtype)))
    for actual, by_eager, by_reference in zip(*found, strict=True):
        assert_as_exact_as_eager(actual, by_eager, by_reference)


@both
def test_gradients_of_gradients_are_right(upsample):
    inputs = [t.double().requires_grad_() for t in arguments((2, 2, 3, 2), seed=3)]
    assert torch.autograd.gradcheck(lambda *t: affine_relu(*t, upsample), inputs)
    assert torch.autograd.gradgradcheck(lambda *t: affine_relu(*t, upsample), inputs)


@pytest.mark.parametrize("backend", ["native", "triton"])
def test_a_gradient_penalty_equals_the_references(backend):
    def penalty(backend: str) -> list[Tensor]:
        leaves = [t.requires_grad_() for t in arguments((2, 3, 4, 5))]
        slopes = torch.autograd.grad(affine_relu(*leaves, backend=backend).pow(2).sum(), leaves[0], create_graph=True)
        return list(torch.autograd.grad(slopes[0].pow(2).sum(), leaves))

    for actual, expected in zip(penalty(backend), penalty("reference"), strict=True):
        torch.testing.assert_close(actual, expected)


@backends
def test_only_wanted_gradients_are_made(backend):
    x, scale, shift = arguments((1, 2, 3, 3))
    scale.requires_grad_()
    affine_relu(x, scale, shift, backend=backend).sum().backward()
    assert x.grad is None and shift.grad is None
    torch.testing.assert_close(scale.grad, (x * (x * scale[..., None, None] + shift[..., None, None] > 0)).sum((2, 3)))


@backends
def test_arguments_are_not_changed(backend):
    inputs = [t.requires_grad_() for t in arguments((2, 3, 4, 5))]
    before = [t.detach().clone() for t in inputs]
    affine_relu(*inputs, True, backend=backend).sum().backward()
    assert all(torch.equal(now.detach(), then) for now, then in zip(inputs, before, strict=True))


@backends
def test_hundred_runs_give_the_same_bits(backend):
    inputs = arguments((2, 5, 9, 9))
    first = affine_relu(*inputs, backend=backend)
    for _ in range(10 if backend == "triton" else 100):
        assert_same_bits(affine_relu(*inputs, backend=backend), first)


@backends
@both
def test_custom_ops_pass_opcheck(upsample, backend):
    inputs = arguments((2, 3, 4, 5))
    torch.library.opcheck(torch.ops.zellige.affine_relu.default, (*inputs, upsample, backend))
    leaves = [t.requires_grad_() for t in inputs]
    torch.library.opcheck(torch.ops.zellige.affine_relu.default, (*leaves, upsample, backend))


def test_compiles_as_one_graph_with_its_backward():
    inputs = [t.requires_grad_() for t in arguments((2, 3, 4, 5))]

    def step(*t: Tensor) -> Tensor:
        return affine_relu(*t, True).tanh()

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    for actual, expected in zip(
        torch.autograd.grad(compiled(*inputs).sum(), inputs),
        torch.autograd.grad(step(*inputs).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(actual, expected)


def test_exports():
    class Layer(torch.nn.Module):
        def forward(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
            return affine_relu(x, scale, shift)

    inputs = arguments((2, 3, 4, 5))
    program = torch.export.export(Layer(), inputs)
    assert_same_bits(program.module()(*inputs), affine_relu(*inputs))


GOOD = {"x": torch.zeros(2, 3, 4, 5), "scale": torch.ones(2, 3), "shift": torch.ones(2, 3)}


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (
            {"x": torch.zeros(3, 4, 5)},
            "x is [3, 4, 5] float32; it must be [N, C, H, W], float32, float16, bfloat16 or float64.",
        ),
        (
            {"x": torch.zeros(2, 3, 4, 5).int()},
            "x is [2, 3, 4, 5] int32; it must be [N, C, H, W], float32, float16, bfloat16 or float64.",
        ),
        (
            {"scale": torch.ones(3)},
            "scale is [3] float32; it must be [2, 3] float32 for x of shape [2, 3, 4, 5].",
        ),
        (
            {"shift": torch.ones(2, 3).half()},
            "shift is [2, 3] float16; it must be [2, 3] float32 for x of shape [2, 3, 4, 5].",
        ),
        ({"shift": torch.ones(2, 3, device="meta")}, "shift is on meta but x is on cpu; move it there."),
    ],
)
def test_bad_argument_is_named(changed, sentence):
    with pytest.raises(ShapeError) as error:
        affine_relu(**(GOOD | changed))
    assert str(error.value) == sentence


def test_a_backend_without_the_dtype_is_refused():
    with pytest.raises(DeviceError, match="'native' cannot run on float16 cpu tensors here"):
        affine_relu(GOOD["x"].half(), GOOD["scale"], GOOD["shift"], backend="native")


@pytest.mark.gpu
@both
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "channels-last"])
def test_gpu_is_as_exact_as_eager_at_full_shape(layout, dtype, upsample):
    x, scale, shift = arguments((8, 96, 127, 129), dtype)
    inputs = [t.cuda() for t in (LAYOUTS[layout](x), scale, shift)]
    y = affine_relu(*inputs, upsample, backend="triton")
    assert_as_exact_as_eager(y, eager(*inputs, upsample), exact(*inputs, upsample))
