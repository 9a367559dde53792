import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from zellige.errors import DeviceError, ShapeError
from zellige.kernels import mask_composite

from .judge import DTYPES, LAYOUTS, assert_as_exact_as_eager, assert_same_bits

BACKENDS = ["reference", "native", "triton"]
# Single values, odd sides, planes about as long as one block of the CPU kernel and one tile of the GPU kernel.
SHAPES = [(1, 1, 1, 1), (2, 3, 5, 7), (3, 4, 1, 3), (1, 2, 1, 1023), (2, 3, 25, 41)]
forms = pytest.mark.parametrize("logits", [True, False], ids=["logits", "finished"])
backends = pytest.mark.parametrize("backend", BACKENDS)


def arguments(shape: tuple[int, ...], dtype: torch.dtype = torch.float32, seed: int = 0) -> tuple[Tensor, ...]:
    random = torch.Generator().manual_seed(seed)
    n, c, h, w = shape
    return tuple(torch.randn((n, k, h, w), generator=random).mul(2).to(dtype) for k in (c, c, 1))


def eager(foreground: Tensor, background: Tensor, mask: Tensor, logits: bool) -> Tensor:
    if not logits:
        return foreground * mask + background * (1 - mask)
    return foreground.tanh() * mask.sigmoid() + background.tanh() * (1 - mask.sigmoid())


def exact(*maps_and_logits: Tensor | bool) -> Tensor:
    *maps, logits = maps_and_logits
    return mask_composite(*(t.double() for t in maps), logits=logits, backend="reference")


def skip_half_natively(backend: str, dtype: torch.dtype) -> None:
    if backend == "native" and dtype == torch.float16:
        pytest.skip("the C++ kernel takes float32 and bfloat16")


def judge(actual: Tensor, by_eager: Tensor, by_reference: Tensor, backend: str) -> None:
    if backend == "triton" and actual.dtype == torch.bfloat16 and not actual.is_cuda:
        # Triton's interpreter cuts digits off where a GPU rounds: a whole unit in the last place instead of a half.
        torch.testing.assert_close(actual.double(), by_reference, rtol=2**-7, atol=1e-6)
    else:
        assert_as_exact_as_eager(actual, by_eager, by_reference)


@backends
@forms
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_result_is_as_exact_as_eager(shape, dtype, logits, backend):
    skip_half_natively(backend, dtype)
    maps = arguments(shape, dtype)
    y = mask_composite(*maps, logits=logits, backend=backend)
    judge(y, eager(*maps, logits), exact(*maps, logits), backend)


@backends
@forms
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_bytes_are_the_nearest_ones(shape, dtype, logits, backend):
    skip_half_natively(backend, dtype)
    maps = arguments(shape, dtype)
    pixels = mask_composite(*maps, logits=logits, output="uint8", backend=backend)
    n, c, h, w = shape
    assert pixels.dtype == torch.uint8 and pixels.shape == (n, h, w, c) and pixels.is_contiguous()
    scaled = (exact(*maps, logits).permute(0, 2, 3, 1) + 1).mul(127.5).clamp(0, 255)
    # Half a byte, and what float32 leaves of it: 127.5 times a few units in the last place.
    assert (pixels - scaled).abs().max() <= 0.5 + 1e-4


@backends
@forms
@pytest.mark.parametrize("output", ["float", "uint8"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout_changes_no_value_and_is_kept(layout, output, logits, backend):
    foreground, background, mask = (LAYOUTS[layout](t) for t in arguments((2, 4, 4, 8)))
    dense = (t.contiguous() for t in (foreground, background, mask))
    y = mask_composite(foreground, background, mask, logits=logits, output=output, backend=backend)
    expected = mask_composite(*dense, logits=logits, output=output, backend=backend)
    if output == "uint8":
        assert torch.equal(y, expected)
        return
    assert_same_bits(y, expected)
    kept = torch.channels_last if layout == "channels-last" else torch.contiguous_format
    assert y.is_contiguous(memory_format=kept)


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


@given(
    shape=st.tuples(st.integers(0, 3), st.integers(1, 4), st.integers(0, 40), st.integers(0, 40)),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    channels_last=st.booleans(),
    output=st.sampled_from(["float", "uint8"]),
    seed=st.integers(0, 99),
)
def test_native_gives_the_references_bits_for_any_finished_images(shape, dtype, channels_last, output, seed):
    maps = arguments(shape, dtype, seed)
    if channels_last:
        maps = tuple(t.contiguous(memory_format=torch.channels_last) for t in maps)
    y, expected = (
        mask_composite(*maps, logits=False, output=output, backend=backend) for backend in ("native", "reference")
    )
    assert_same_bits(y.float(), expected.float())


@given(
    shape=st.tuples(st.integers(0, 3), st.integers(1, 4), st.integers(0, 40), st.integers(0, 40)),
    channels_last=st.booleans(),
    seed=st.integers(0, 99),
)
def test_native_is_close_to_the_reference_for_any_logits(shape, channels_last, seed):
    maps = arguments(shape, seed=seed)
    if channels_last:
        maps = tuple(t.contiguous(memory_format=torch.channels_last) for t in maps)
    y, expected = (mask_composite(*maps, backend=backend) for backend in ("native", "reference"))
    torch.testing.assert_close(y, expected)


@forms
def test_native_threads_share_one_map(logits):
    maps = arguments((4, 3, 96, 96))
    parts = [mask_composite(*(t[n : n + 1] for t in maps), logits=logits, backend="native") for n in range(4)]
    for memory_format in (torch.contiguous_format, torch.channels_last):
        laid = (t.contiguous(memory_format=memory_format) for t in maps)
        assert_same_bits(mask_composite(*laid, logits=logits, backend="native"), torch.cat(parts))


@pytest.mark.parametrize("backend", ["native", "triton"])
def test_tanh_and_sigmoid_keep_their_digits(backend):
    """Over all magnitudes; the other image is 0, so that nothing but one product is left."""
    sizes = torch.logspace(-30, 2, 4096)
    x = torch.cat([-sizes.flip(0), sizes]).view(1, 1, 64, 128)
    zeros, certain = torch.zeros_like(x), torch.full_like(x, 200.0)
    unit = torch.finfo(torch.float32).eps
    for maps in ((x, zeros, certain), (zeros, x, -certain)):
        by_tanh = mask_composite(*maps, backend=backend).double() / x.double().tanh() - 1
        assert by_tanh.abs().max() <= 3 * unit  # measured: 2.0 natively, 1.4 in Triton's interpreter
    m = x.clamp(-80, 80)
    ones = torch.full_like(x, 50.0)
    for maps, share in (((ones, zeros, m), m.double().sigmoid()), ((zeros, ones, m), (-m.double()).sigmoid())):
        error = mask_composite(*maps, backend=backend).double() / share - 1
        assert error.abs().max() <= 3 * unit  # measured: 2.2 and 2.3


@backends
def test_logits_saturate(backend):
    infinity = float("inf")
    f = torch.tensor([infinity, -infinity, 1e30, -1e30, 20.0, -20.0, 0.0, -0.0]).view(1, 1, 2, 4)
    for m, maps in ((infinity, (f, torch.ones_like(f))), (-infinity, (torch.ones_like(f), f))):
        y = mask_composite(*maps, torch.full_like(f, m), backend=backend)
        assert y.flatten().tolist() == [1, -1, 1, -1, 1, -1, 0, 0]


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


@backends
@pytest.mark.parametrize("output", ["float", "uint8"])
def test_empty_maps_stay_empty(output, backend):
    for n, c, h, w in [(0, 3, 4, 4), (2, 3, 0, 4), (2, 3, 4, 0)]:
        y = mask_composite(*arguments((n, c, h, w)), output=output, backend=backend)
        assert y.shape == ((n, h, w, c) if output == "uint8" else (n, c, h, w))


@backends
@forms
@pytest.mark.parametrize("layout", ["contiguous", "channels-last", "sliced"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_gradients_are_as_exact_as_eager(dtype, layout, logits, backend):
    maps = [LAYOUTS[layout](t) for t in arguments((2, 3, 6, 8), dtype)]
    found = []
    for function, inputs in (
        (lambda *t: mask_composite(*t, logits=logits, backend=backend), maps),
        (lambda *t: eager(*t, logits), maps),
        (lambda *t: exact(*t, logits), [t.double() for t in maps]),
    ):
        leaves = [t.detach().requires_grad_() for t in inputs]
        y = function(*leaves)
        slope = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)
        found.append(torch.autograd.grad(y, leaves, slope.to(y.dtype)))
    for actual, by_eager, by_reference in zip(*found, strict=True):
        judge(actual, by_eager, by_reference, backend)


@forms
def test_gradients_of_gradients_are_right(logits):
    inputs = [t.requires_grad_() for t in arguments((2, 2, 3, 2), torch.float64, seed=3)]
    assert torch.autograd.gradcheck(lambda *t: mask_composite(*t, logits=logits), inputs)
    assert torch.autograd.gradgradcheck(lambda *t: mask_composite(*t, logits=logits), inputs)


@forms
@pytest.mark.parametrize("backend", ["native", "triton"])
def test_a_gradient_penalty_equals_the_references(backend, logits):
    def penalty(backend: str) -> list[Tensor]:
        leaves = [t.requires_grad_() for t in arguments((2, 3, 4, 5))]
        y = mask_composite(*leaves, logits=logits, backend=backend)
        slopes = torch.autograd.grad(y.pow(2).sum(), leaves[0], create_graph=True)
        return list(torch.autograd.grad(slopes[0].pow(2).sum(), leaves))

    for actual, expected in zip(penalty(backend), penalty("reference"), strict=True):
        torch.testing.assert_close(actual, expected)


@backends
def test_only_wanted_gradients_are_made(backend):
    foreground, background, mask = arguments((1, 2, 3, 3))
    mask.requires_grad_()
    mask_composite(foreground, background, mask, logits=False, backend=backend).sum().backward()
    assert foreground.grad is None and background.grad is None
    torch.testing.assert_close(mask.grad, (foreground - background).sum(1, keepdim=True))


@backends
def test_bytes_require_no_gradient(backend):
    maps = [t.requires_grad_() for t in arguments((1, 3, 2, 2))]
    assert not mask_composite(*maps, output="uint8", backend=backend).requires_grad


@backends
@forms
def test_arguments_are_not_changed(logits, backend):
    maps = [t.requires_grad_() for t in arguments((2, 3, 4, 5))]
    before = [t.detach().clone() for t in maps]
    mask_composite(*maps, logits=logits, backend=backend).sum().backward()
    mask_composite(*maps, logits=logits, output="uint8", backend=backend)
    assert all(torch.equal(now.detach(), then) for now, then in zip(maps, before, strict=True))


@backends
@forms
def test_hundred_runs_give_the_same_bits(logits, backend):
    maps = arguments((2, 3, 9, 9))
    first = mask_composite(*maps, logits=logits, backend=backend)
    for _ in range(10 if backend == "triton" else 100):
        assert_same_bits(mask_composite(*maps, logits=logits, backend=backend), first)


@backends
@pytest.mark.parametrize("output", ["float", "uint8"])
def test_custom_ops_pass_opcheck(output, backend):
    maps = arguments((2, 3, 4, 5))
    torch.library.opcheck(torch.ops.zellige.mask_composite.default, (*maps, True, output, backend))
    leaves = [LAYOUTS["channels-last"](t).requires_grad_() for t in maps]
    torch.library.opcheck(torch.ops.zellige.mask_composite.default, (*leaves, False, output, backend))


def test_compiles_as_one_graph_with_its_backward():
    maps = [t.requires_grad_() for t in arguments((2, 3, 4, 5))]

    def step(*t: Tensor) -> Tensor:
        return mask_composite(*t).tanh()

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    for actual, expected in zip(
        torch.autograd.grad(compiled(*maps).sum(), maps), torch.autograd.grad(step(*maps).sum(), maps), strict=True
    ):
        torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("output", ["float", "uint8"])
def test_exports(output):
    class Layer(torch.nn.Module):
        def forward(self, foreground: Tensor, background: Tensor, mask: Tensor) -> Tensor:
            return mask_composite(foreground, background, mask, output=output)

    maps = arguments((2, 3, 4, 5))
    program = torch.export.export(Layer(), maps)
    assert torch.equal(program.module()(*maps), mask_composite(*maps, output=output))


GOOD = {
    "foreground": torch.zeros(2, 3, 4, 5),
    "background": torch.zeros(2, 3, 4, 5),
    "mask": torch.zeros(2, 1, 4, 5),
}
ALLOWED = "it must be [N, C, H, W] with 1 to 4 channels, float32, float16, bfloat16 or float64."


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"foreground": torch.zeros(3, 4, 5)}, f"foreground is [3, 4, 5] float32; {ALLOWED}"),
        ({"foreground": torch.zeros(2, 3, 4, 5).int()}, f"foreground is [2, 3, 4, 5] int32; {ALLOWED}"),
        ({"foreground": torch.zeros(2, 5, 4, 5)}, f"foreground is [2, 5, 4, 5] float32; {ALLOWED}"),
        (
            {"background": torch.zeros(2, 1, 4, 5)},
            "background is [2, 1, 4, 5] float32; it must be [2, 3, 4, 5] float32 for foreground of shape [2, 3, 4, 5].",
        ),
        (
            {"mask": torch.zeros(2, 3, 4, 5)},
            "mask is [2, 3, 4, 5] float32; it must be [2, 1, 4, 5] float32 for foreground of shape [2, 3, 4, 5].",
        ),
        (
            {"mask": torch.zeros(2, 1, 4, 5).half()},
            "mask is [2, 1, 4, 5] float16; it must be [2, 1, 4, 5] float32 for foreground of shape [2, 3, 4, 5].",
        ),
        (
            {"mask": torch.zeros(2, 1, 4, 5, device="meta")},
            "mask is on meta but foreground is on cpu; move it there.",
        ),
        ({"output": "int8"}, "output is 'int8'; it must be 'float' or 'uint8'."),
    ],
)
def test_bad_argument_is_named(changed, sentence):
    with pytest.raises(ShapeError) as error:
        mask_composite(**(GOOD | changed))
    assert str(error.value) == sentence


def test_a_backend_without_the_dtype_is_refused():
    with pytest.raises(DeviceError, match="'native' cannot run on float16 cpu tensors here"):
        mask_composite(*(t.half() for t in GOOD.values()), backend="native")


@pytest.mark.gpu
@forms
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "channels-last"])
def test_gpu_is_as_exact_as_eager_at_full_shape(layout, dtype, logits):
    maps = [LAYOUTS[layout](t).cuda() for t in arguments((8, 3, 513, 511), dtype)]
    y = mask_composite(*maps, logits=logits, backend="triton")
    assert_as_exact_as_eager(y, eager(*maps, logits), exact(*maps, logits))
    pixels = mask_composite(*maps, logits=logits, output="uint8", backend="triton")
    scaled = (exact(*maps, logits).permute(0, 2, 3, 1) + 1).mul(127.5).clamp(0, 255)
    assert (pixels - scaled).abs().max() <= 0.5 + 1e-4
