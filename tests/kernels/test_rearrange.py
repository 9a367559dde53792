import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from zellige.errors import DeviceError, ShapeError
from zellige.kernels import rearrange

from .judge import DTYPES, assert_as_exact_as_eager, assert_same_bits

# None is a path of its own on CPUs: torch's attention for equal widths, parts of the queries for others.
BACKENDS = ["reference", None, "triton"]
# N, T, S, Dk, Dv: single values, sizes beside those of a tile, widths beside those of a chunk, a main with a tail.
SHAPES = [
    (1, 1, 1, 1, 1),
    (2, 3, 7, 16, 16),
    (2, 7, 3, 1, 40),
    (1, 33, 64, 33, 130),
    (1, 1, 130, 128, 40),
    (1, 65, 3, 64, 64),
    (1, 3, 65, 16, 520),
    (1, 7, 3, 520, 520),
]
backends = pytest.mark.parametrize("backend", BACKENDS)


def arguments(
    shape: tuple[int, int, int, int, int], dtype: torch.dtype = torch.float32, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    n, tokens, keys, key_width, width = shape
    random = torch.Generator().manual_seed(seed)
    sizes = (n, tokens, key_width), (n, keys, key_width), (n, keys, width)
    q, k, v = (torch.randn(size, generator=random).to(dtype) for size in sizes)
    return q, k, v


def eager(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.softmax(q @ k.mT * q.shape[2] ** -0.5, 2) @ v


def exact(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return rearrange(q.double(), k.double(), v.double(), backend="reference")


@backends
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_result_is_as_exact_as_eager(shape, dtype, backend):
    inputs = arguments(shape, dtype)
    y = rearrange(*inputs, backend=backend)
    assert y.is_contiguous()
    assert_as_exact_as_eager(y, eager(*inputs), exact(*inputs))


@backends
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(2, 5, 7, 16, 16), (1, 35, 34, 33, 130), (1, 5, 33, 130, 40)])
def test_gradients_are_as_exact_as_eager(shape, dtype, backend):
    inputs = arguments(shape, dtype)
    slope = torch.randn(shape[0], shape[1], shape[4], generator=torch.Generator().manual_seed(1)).to(dtype)
    found = []
    for function, given_ in (
        (lambda *t: rearrange(*t, backend=backend), inputs),
        (eager, inputs),
        (exact, [t.double() for t in inputs]),
    ):
        leaves = [t.detach().requires_grad_() for t in given_]
        found.append(torch.autograd.grad(function(*leaves), leaves, slope.to(leaves[0].dtype)))
    for actual, by_eager, by_reference in zip(*found, strict=True):
        assert_as_exact_as_eager(actual, by_eager, by_reference)


def every_second(t: Tensor) -> Tensor:
    return t.repeat_interleave(2, 2)[:, :, ::2]


LAYOUTS = {
    "flipped": lambda t: t.mT.contiguous().mT,
    "a map by plane": lambda t: t.transpose(0, 1).contiguous().transpose(0, 1),
    "every second column": every_second,
    "sliced": lambda t: F.pad(t, (3, 2, 1, 1))[:, 1:-1, 3:-2],
    "misaligned": lambda t: torch.cat([t.flatten()[:1], t.flatten()])[1:].view_as(t),
    "expanded samples": lambda t: t[:1].expand_as(t),
    "expanded rows": lambda t: t[:, :1].expand_as(t),
    "expanded columns": lambda t: t[:, :, :1].expand_as(t),
}


@backends
@pytest.mark.parametrize("width", [8, 12])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout_changes_no_value(layout, width, backend):
    def run(inputs: list[Tensor]) -> list[Tensor]:
        leaves = [t.requires_grad_() for t in inputs]
        y = rearrange(*leaves, backend=backend)
        slope = LAYOUTS[layout](torch.linspace(-1, 1, y.numel()).view(y.shape))
        return [y, *torch.autograd.grad(y, leaves, slope)]

    inputs = [LAYOUTS[layout](t) for t in arguments((2, 5, 6, 8, width))]
    dense = run([t.contiguous() for t in inputs])
    for actual, expected in zip(run([t.detach() for t in inputs]), dense, strict=True):
        torch.testing.assert_close(actual, expected)
        assert actual.is_contiguous()


@given(
    n=st.integers(0, 3),
    tokens=st.integers(0, 40),
    keys=st.integers(1, 40),
    key_width=st.integers(1, 70),
    width=st.integers(1, 70),
    equal=st.booleans(),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 99),
)
def test_the_library_path_equals_the_reference_for_any_sizes(n, tokens, keys, key_width, width, equal, dtype, seed):
    inputs = arguments((n, tokens, keys, key_width, key_width if equal else width), dtype, seed)
    tolerance = {} if dtype == torch.float32 else {"rtol": 0.0, "atol": 8 * torch.finfo(dtype).eps}
    torch.testing.assert_close(rearrange(*inputs), rearrange(*inputs, backend="reference"), **tolerance)


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
    torch.testing.assert_close(y.double(), exact(q, k, v), rtol=0.02, atol=0.02)
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


@backends
def test_nothing_stays_empty(backend):
    for n, tokens in ((0, 3), (2, 0)):
        leaves = [t.requires_grad_() for t in arguments((n, tokens, 3, 4, 5))]
        y = rearrange(*leaves, backend=backend)
        assert y.shape == (n, tokens, 5)
        for leaf, slope in zip(leaves, torch.autograd.grad(y.sum(), leaves), strict=True):
            assert_same_bits(slope, torch.zeros_like(leaf))


@pytest.mark.parametrize("width", [2, 3])
def test_gradients_of_gradients_are_right(width):
    inputs = [t.double().requires_grad_() for t in arguments((2, 3, 4, 2, width))]
    assert torch.autograd.gradcheck(rearrange, inputs)
    assert torch.autograd.gradgradcheck(rearrange, inputs)


@pytest.mark.parametrize("backend", [None, "triton"])
def test_a_gradient_penalty_equals_the_references(backend):
    def penalty(backend: str | None) -> list[Tensor]:
        leaves = [t.requires_grad_() for t in arguments((2, 3, 4, 5, 6))]
        slopes = torch.autograd.grad(rearrange(*leaves, backend=backend).pow(2).sum(), leaves[0], create_graph=True)
        return list(torch.autograd.grad(slopes[0].pow(2).sum(), leaves))

    for actual, expected in zip(penalty(backend), penalty("reference"), strict=True):
        torch.testing.assert_close(actual, expected)


@backends
def test_only_wanted_gradients_are_made(backend):
    q, k, v = arguments((1, 3, 4, 5, 6))
    v.requires_grad_()
    rearrange(q, k, v, backend=backend).sum().backward()
    assert q.grad is None and k.grad is None
    expected = torch.softmax(q @ k.mT * 5**-0.5, 2).sum(1)[..., None].expand_as(v)
    torch.testing.assert_close(v.grad, expected)


@backends
@pytest.mark.parametrize("width", [5, 6])
def test_arguments_are_not_changed(width, backend):
    inputs = [t.requires_grad_() for t in arguments((2, 3, 4, 5, width))]
    before = [t.detach().clone() for t in inputs]
    rearrange(*inputs, backend=backend).sum().backward()
    assert all(torch.equal(now.detach(), then) for now, then in zip(inputs, before, strict=True))


@backends
@pytest.mark.parametrize("width", [16, 40])
def test_repeated_runs_give_the_same_bits(width, backend):
    def run() -> list[Tensor]:
        leaves = [t.requires_grad_() for t in arguments((1, 35, 36, 16, width))]
        y = rearrange(*leaves, backend=backend)
        return [y, *torch.autograd.grad(y.pow(2).sum(), leaves)]

    first = run()
    for _ in range(2 if backend == "triton" else 30):
        for again, once in zip(run(), first, strict=True):
            assert_same_bits(again, once)


@pytest.mark.parametrize("widths", ["520, 520", "64, 520"])
def test_on_a_cpu_the_scores_are_not_kept(widths):
    # 4096 x 4096 scores would take 64 MiB in float32; the largest tensor here takes 8.
    program = f"""
import resource, torch
from zellige.kernels import rearrange
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
key_width, width = {widths}
q, k, v = (torch.randn(1, 4096, w, dtype=torch.bfloat16) for w in (key_width, key_width, width))
rearrange(*(t[:, :64] for t in (q, k, v)))
before = peak()
rearrange(q, k, v)
print((peak() - before) // 1024)
"""
    grown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert int(grown) < 48


@backends
def test_custom_ops_pass_opcheck(backend):
    inputs = arguments((2, 3, 4, 5, 6))
    torch.library.opcheck(torch.ops.zellige.rearrange.default, (*inputs, None, backend))
    leaves = [t.requires_grad_() for t in inputs]
    torch.library.opcheck(torch.ops.zellige.rearrange.default, (*leaves, 0.5, backend))


def test_compiles_as_one_graph_with_its_backward():
    inputs = [t.requires_grad_() for t in arguments((2, 3, 4, 5, 6))]

    def step(*t: Tensor) -> Tensor:
        return rearrange(*t).tanh()

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    for actual, expected in zip(
        torch.autograd.grad(compiled(*inputs).sum(), inputs),
        torch.autograd.grad(step(*inputs).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(actual, expected)


def test_exports():
    class Layer(torch.nn.Module):
        def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return rearrange(q, k, v)

    inputs = arguments((2, 3, 4, 5, 6))
    program = torch.export.export(Layer(), inputs)
    assert_same_bits(program.module()(*inputs), rearrange(*inputs))


GOOD = {"q": torch.zeros(2, 3, 4), "k": torch.zeros(2, 5, 4), "v": torch.zeros(2, 5, 6)}


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (
            {"q": torch.zeros(3, 4)},
            "q is [3, 4] float32; it must be [N, T, Dk], Dk from 1 to 520, float32, float16, bfloat16 or float64.",
        ),
        (
            {"q": torch.zeros(2, 3, 4).int()},
            "q is [2, 3, 4] int32; it must be [N, T, Dk], Dk from 1 to 520, float32, float16, bfloat16 or float64.",
        ),
        (
            {"q": torch.zeros(2, 3, 521), "k": torch.zeros(2, 5, 521)},
            "q is [2, 3, 521] float32; it must be [N, T, Dk], Dk from 1 to 520, float32, float16, bfloat16 or float64.",
        ),
        ({"k": torch.zeros(2, 0, 4)}, "k is [2, 0, 4] float32; it must be [N, S, Dk], S of at least 1."),
        ({"k": torch.zeros(5, 4)}, "k is [5, 4] float32; it must be [N, S, Dk], S of at least 1."),
        (
            {"k": torch.zeros(2, 5, 3)},
            "k is [2, 5, 3] float32; it must be [2, 5, 4] float32 for q of shape [2, 3, 4].",
        ),
        (
            {"k": torch.zeros(2, 5, 4).half()},
            "k is [2, 5, 4] float16; it must be [2, 5, 4] float32 for q of shape [2, 3, 4].",
        ),
        ({"v": torch.zeros(2, 5, 521)}, "v is [2, 5, 521] float32; it must be [N, S, Dv], Dv from 1 to 520."),
        (
            {"v": torch.zeros(2, 4, 6)},
            "v is [2, 4, 6] float32; it must be [2, 5, 6] float32 for k of shape [2, 5, 4].",
        ),
        ({"v": torch.zeros(2, 5, 6, device="meta")}, "v is on meta but k is on cpu; move it there."),
    ],
)
def test_bad_argument_is_named(changed, sentence):
    with pytest.raises(ShapeError) as error:
        rearrange(**(GOOD | changed))
    assert str(error.value) == sentence


def test_a_backend_that_does_not_exist_is_refused():
    with pytest.raises(DeviceError, match="'native' cannot run on float32 cpu tensors here"):
        rearrange(**GOOD, backend="native")


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "shape", [(1, 4096, 4096, 512, 512), (2, 1024, 1025, 64, 520), (1, 257, 300, 520, 520), (3, 65, 130, 33, 40)]
)
def test_gpu_is_as_exact_as_eager_at_full_shape(shape, dtype):
    inputs = [t.cuda() for t in arguments(shape, dtype)]
    y = rearrange(*inputs, backend="triton")
    assert_as_exact_as_eager(y, eager(*inputs), exact(*inputs))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(1, 1024, 1024, 512, 512), (1, 257, 300, 64, 520), (3, 65, 130, 33, 40)])
def test_gpu_gradients_are_as_exact_as_eager_at_full_shape(shape, dtype):
    found = []
    for function, wide in ((lambda *t: rearrange(*t, backend="triton"), False), (eager, False), (exact, True)):
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
