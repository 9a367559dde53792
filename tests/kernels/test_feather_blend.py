import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from zellige.errors import DeviceError, ShapeError
from zellige.kernels import available_backends, feather_blend

BACKENDS = ["reference", "native", "triton"]
FAST_BACKENDS = ["native", "triton"]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]

# (N, C, P, Q), (H, W): single values, odd sides, more patches than one scan of the GPU kernel, wider than its tile.
SHAPES = [
    ((1, 1, 1, 1), (1, 1)),
    ((4, 3, 5, 7), (9, 11)),
    ((3, 2, 17, 1), (13, 3)),
    ((5, 4, 3, 33), (6, 67)),
    ((140, 3, 3, 4), (10, 9)),
]


def scene(shape: tuple[int, ...], size: tuple[int, int], dtype: torch.dtype = torch.float32, seed: int = 0):
    """Patches at random places, many of them partly and some wholly outside the picture."""
    random = torch.Generator().manual_seed(seed)
    count, _, rows, columns = shape
    patches = (torch.rand(shape, generator=random) * 2.4 - 1.2).to(dtype)
    tops = torch.randint(-rows - 1, size[0] + 2, (count,), generator=random)
    lefts = torch.randint(-columns - 1, size[1] + 2, (count,), generator=random)
    windows = [(torch.rand(n, generator=random) * 1.5 - 0.3).clamp(min=0) for n in (rows, columns)]
    return patches, torch.stack([tops, lefts], dim=1), *windows


def assert_same_bits(actual: Tensor, expected: Tensor) -> None:
    assert actual.dtype == expected.dtype and actual.shape == expected.shape
    if actual.dtype == torch.float32:
        actual, expected = (t.nan_to_num(nan=7.0).view(torch.int32) for t in (actual, expected))
    assert torch.equal(actual, expected), f"{(actual != expected).sum()} of {actual.numel()} values differ"


def feather(size: int, overlap: int) -> Tensor:
    """A window whose copies, size - overlap apart, add up to 1."""
    ramp = (torch.arange(overlap) + 0.5) / overlap
    return torch.cat([ramp, torch.ones(size - 2 * overlap), ramp.flip(0)])


@pytest.mark.parametrize("backend", FAST_BACKENDS)
@pytest.mark.parametrize("output", ["uint8", "float"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("shape", "size"), SHAPES)
def test_backend_equals_reference_bit_for_bit(shape, size, dtype, output, backend):
    arguments = scene(shape, size, dtype)
    expected = feather_blend(*arguments, size, output=output, backend="reference")
    assert_same_bits(feather_blend(*arguments, size, output=output, backend=backend), expected)


LAYOUTS = {
    "channels-last": lambda p: p.contiguous(memory_format=torch.channels_last),
    "sliced": lambda p: torch.cat([p, p, p], dim=1).repeat(1, 1, 2, 3)[:, :3, 1 : p.shape[2] + 1, ::2],
    "flipped sides": lambda p: p.transpose(2, 3).contiguous().transpose(2, 3),
    "expanded patches": lambda p: p[:1].expand_as(p),
    "expanded channels": lambda p: p[:, :1].expand_as(p),
    "expanded columns": lambda p: p[..., :1].expand_as(p),
    "a channels-last slice": lambda p: p.contiguous(memory_format=torch.channels_last)[:, :, 1:, 2:],
    "misaligned": lambda p: torch.cat([p.flatten()[:1], p.flatten()])[1:].view_as(p),
}


@pytest.mark.parametrize("backend", FAST_BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_strides_do_not_change_the_picture(layout, dtype, backend):
    patches, positions, *_ = scene((4, 3, 6, 8), (11, 13), dtype)
    patches = LAYOUTS[layout](patches)
    windows = torch.rand(patches.shape[2]), torch.rand(patches.shape[3] * 2)[::2]
    expected = feather_blend(patches.contiguous(), positions, *windows, (11, 13), output="float", backend="reference")
    strided_positions = torch.stack([positions, positions], dim=-1)[..., 0]
    actual = feather_blend(patches, strided_positions, *windows, (11, 13), output="float", backend=backend)
    assert_same_bits(actual, expected)


@given(
    shape=st.tuples(st.integers(0, 6), st.integers(1, 4), st.integers(1, 70), st.integers(1, 40)),
    size=st.tuples(st.integers(1, 140), st.integers(1, 70)),
    dtype=st.sampled_from(DTYPES),
    channels_last=st.booleans(),
    output=st.sampled_from(["uint8", "float"]),
    seed=st.integers(0, 99),
)
def test_native_equals_reference_for_any_scene(shape, size, dtype, channels_last, output, seed):
    patches, *rest = scene(shape, size, dtype, seed)
    if channels_last:
        patches = patches.contiguous(memory_format=torch.channels_last)
    expected = feather_blend(patches, *rest, size, output=output, backend="reference")
    assert_same_bits(feather_blend(patches, *rest, size, output=output, backend="native"), expected)


def test_native_widens_every_half_and_every_bfloat16():
    bits = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(1, 1, 256, 256)
    ones = torch.ones(256)
    for dtype in (torch.float16, torch.bfloat16):
        arguments = (bits.view(dtype), torch.zeros(1, 2, dtype=torch.int64), ones, ones, (256, 256))
        expected = bits.view(dtype).float()[0, 0, :, :, None]
        assert_same_bits(feather_blend(*arguments, output="float", backend="native"), expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("channels_last", [False, True])
def test_patches_side_by_side_come_back_bit_for_bit(channels_last, backend):
    patches = torch.randn(6, 3, 4, 5)
    patches[0, 0, 0, :3] = torch.tensor([-0.0, 1e-40, 3e38])
    expected = patches.unflatten(0, (2, 3)).permute(0, 3, 1, 4, 2).reshape(8, 15, 3)
    positions = torch.cartesian_prod(torch.arange(2) * 4, torch.arange(3) * 5)
    if channels_last:
        patches = patches.contiguous(memory_format=torch.channels_last)
    arguments = (patches, positions, torch.ones(4), torch.ones(5), (8, 15))
    assert_same_bits(feather_blend(*arguments, output="float", backend=backend), expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_feathered_constant_stays_constant(backend):
    size, overlap = 8, 3
    positions = torch.cartesian_prod(torch.arange(3) * (size - overlap), torch.arange(4) * (size - overlap))
    arguments = (torch.full((12, 3, size, size), 0.3), positions, feather(size, overlap), feather(size, overlap))
    picture = feather_blend(*arguments, (18, 23), output="float", backend=backend)
    torch.testing.assert_close(picture, torch.full((18, 23, 3), 0.3))


@pytest.mark.parametrize("backend", BACKENDS)
def test_overlap_is_the_weighted_mean(backend):
    patches = torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1).expand(2, 1, 1, 2)
    arguments = (patches, torch.tensor([[0, 0], [0, 1]]), torch.ones(1), torch.tensor([1.0, 3.0]), (1, 3))
    picture = feather_blend(*arguments, output="float", backend=backend)
    assert picture.flatten().tolist() == [-1.0, -0.5, 1.0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_uncovered_pixels_are_mid_grey(backend):
    for count in (0, 2):
        patches, positions = torch.randn(count, 3, 4, 4), torch.full((count, 2), 100)
        arguments = (patches, positions, torch.ones(4), torch.ones(4), (5, 6))
        assert_same_bits(feather_blend(*arguments, output="float", backend=backend), torch.zeros(5, 6, 3))
        assert (feather_blend(*arguments, backend=backend) == 128).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_zero_weight_does_not_cover(backend):
    arguments = (torch.ones(1, 1, 1, 2), torch.zeros(1, 2, dtype=torch.int64), torch.ones(1), torch.tensor([0.0, 2.0]))
    assert feather_blend(*arguments, (1, 2), output="float", backend=backend).flatten().tolist() == [0.0, 1.0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_bytes_round_half_to_even_and_saturate(backend):
    values = torch.tensor([-1.0, -3.0, 1.0, 1.5, 0.0, 0.5 / 127.5 - 1, 2.5 / 127.5 - 1, float("inf"), -float("inf")])
    count = len(values)
    arguments = (values.view(1, 1, 1, -1), torch.zeros(1, 2, dtype=torch.int64), torch.ones(1), torch.ones(count))
    picture = feather_blend(*arguments, (1, count), backend=backend)
    assert picture.flatten().tolist() == [0, 0, 255, 255, 128, 0, 2, 255, 0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_nan_stays_in_its_pixel(backend):
    patches = torch.ones(1, 1, 3, 3)
    patches[0, 0, 1, 1] = float("nan")
    arguments = (patches, torch.zeros(1, 2, dtype=torch.int64), torch.ones(3), torch.ones(3), (3, 3))
    assert feather_blend(*arguments, backend=backend).flatten().tolist() == [255] * 4 + [0] + [255] * 4
    assert feather_blend(*arguments, output="float", backend=backend).isnan().sum() == 1


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("far", [2**63 - 1, -(2**63), 2**32, -(2**32), 2**31, 2**63 - 3, 3 - 2**63])
def test_positions_beyond_any_picture_add_nothing(far, backend):
    positions = torch.tensor([[far, 0], [0, far], [far, far]])
    arguments = (torch.ones(3, 3, 4, 5), positions, torch.ones(4), torch.ones(5), (6, 7))
    assert (feather_blend(*arguments, backend=backend) == 128).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_arguments_are_not_changed(backend):
    arguments = scene((5, 3, 6, 7), (12, 13))
    before = [t.clone() for t in arguments]
    feather_blend(*arguments, (12, 13), backend=backend)
    for now, then in zip(arguments, before, strict=True):
        assert torch.equal(now, then)


@pytest.mark.parametrize("backend", ["reference", "native"])
def test_hundred_runs_give_the_same_bits(backend):
    arguments = scene((20, 3, 9, 9), (20, 20))
    first = feather_blend(*arguments, (20, 20), output="float", backend=backend)
    for _ in range(100):
        assert_same_bits(feather_blend(*arguments, (20, 20), output="float", backend=backend), first)


@pytest.mark.parametrize("backend", BACKENDS)
def test_patches_are_added_in_index_order(backend):
    # In float32 1e8 + 1 - 1e8 is 0, and 1e8 - 1e8 + 1 is 1: the order of the patches shows in the sum.
    values, weights = torch.tensor([1e8, 1.0, -1e8]), torch.ones(1)
    arguments = (torch.zeros(3, 2, dtype=torch.int64), weights, weights, (1, 1))
    for order, expected in (([0, 1, 2], 0.0), ([0, 2, 1], 1 / 3)):
        picture = feather_blend(values[order].view(3, 1, 1, 1), *arguments, output="float", backend=backend)
        assert picture.item() == pytest.approx(expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("output", ["uint8", "float"])
def test_custom_op_passes_opcheck(output, backend):
    arguments = scene((3, 3, 4, 5), (7, 8))
    torch.library.opcheck(torch.ops.zellige.feather_blend.default, (*arguments, 7, 8, output, backend))


def test_compiles_as_one_graph():
    patches, *rest = scene((3, 3, 4, 5), (7, 8))

    def render(patches: Tensor) -> Tensor:
        return feather_blend(patches.tanh(), *rest, (7, 8), output="float")

    compiled = torch.compile(render, fullgraph=True, backend="aot_eager")
    assert_same_bits(compiled(patches), render(patches))


def test_default_backend_is_the_best_available():
    assert available_backends(torch.device("cpu"))[0] == "native"
    assert available_backends(torch.device("meta")) == ("reference",)


GOOD = {
    "patches": torch.zeros(2, 3, 4, 5),
    "positions": torch.zeros(2, 2, dtype=torch.int64),
    "window_rows": torch.ones(4),
    "window_columns": torch.ones(5),
    "size": (6, 7),
}
PATCH_RULE = "it must be [N, C, P, Q] with 1 to 4 channels, float32, float16 or bfloat16."
FOR_PATCHES = "for patches of shape [2, 3, 4, 5]."


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"patches": torch.zeros(3, 4, 5)}, f"patches is [3, 4, 5] float32; {PATCH_RULE}"),
        ({"patches": torch.zeros(2, 5, 4, 5)}, f"patches is [2, 5, 4, 5] float32; {PATCH_RULE}"),
        ({"patches": torch.zeros(2, 3, 4, 5).double()}, f"patches is [2, 3, 4, 5] float64; {PATCH_RULE}"),
        (
            {"patches": torch.zeros(2, 3, 4, 0)},
            "patches is [2, 3, 4, 0] float32; it must be at least one row and one column.",
        ),
        ({"positions": torch.zeros(3, 2).long()}, f"positions is [3, 2] int64; it must be [2, 2] int64 {FOR_PATCHES}"),
        ({"positions": torch.zeros(2, 2)}, f"positions is [2, 2] float32; it must be [2, 2] int64 {FOR_PATCHES}"),
        ({"window_rows": torch.ones(5)}, f"window_rows is [5] float32; it must be [4] float32 {FOR_PATCHES}"),
        (
            {"window_columns": torch.ones(5).half()},
            f"window_columns is [5] float16; it must be [5] float32 {FOR_PATCHES}",
        ),
        (
            {"window_rows": torch.ones(4, device="meta")},
            "window_rows is on meta but patches are on cpu; move it there.",
        ),
        ({"size": (0, 7)}, "size is (0, 7); it must be (height, width), each from 1 to 2147483520."),
        ({"output": "bytes"}, "output is 'bytes'; it must be 'uint8' or 'float'."),
    ],
)
def test_bad_argument_is_named(changed, sentence):
    with pytest.raises(ShapeError) as error:
        feather_blend(**(GOOD | changed))
    assert str(error.value) == sentence


def test_unknown_backend_is_refused():
    with pytest.raises(
        DeviceError, match="backend 'cuda' cannot run on cpu tensors here; choose one of native, triton"
    ):
        feather_blend(**GOOD, backend="cuda")


@pytest.mark.gpu
@pytest.mark.parametrize("output", ["uint8", "float"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("channels_last", [False, True])
def test_gpu_equals_reference_at_full_shape(channels_last, dtype, output):
    random = torch.Generator().manual_seed(0)
    patches = (torch.rand(4096, 3, 64, 64, generator=random) * 2.4 - 1.2).to(dtype)
    positions = torch.cartesian_prod(torch.arange(32) * 32 - 16, torch.arange(128) * 32 - 16)
    arguments = (patches, positions, feather(64, 32), feather(64, 32))
    expected = feather_blend(*arguments, (1000, 4100), output=output, backend="reference")
    on_device = [t.cuda() for t in arguments]
    if channels_last:
        on_device[0] = on_device[0].contiguous(memory_format=torch.channels_last)
    actual = feather_blend(*on_device, (1000, 4100), output=output, backend="triton")
    assert_same_bits(actual.cpu(), expected)
